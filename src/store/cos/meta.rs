//! Headers of objects, as sent and as received (PROTOCOL section 3). Pure.

use super::terms;
use crate::http::{HeaderMap, decode, encode, parse_date};
use crate::store::{ObjectHeaders, ObjectMeta};
use crate::types::{Crc64, ETag, Key};

/// What user metadata begins with.
pub(super) const META: &str = "x-cos-meta-";

/// User metadata of an object in all, bytes (PROTOCOL section 5).
pub(super) const MAX_METADATA_BYTES: usize = 2 * 1024;

/// CRC-64/XZ in decimal.
pub(super) const CRC64: &str = "x-cos-hash-crc64ecma";

/// The standard headers that travel with an object, besides Content-Type.
const STANDARD: [&str; 5] = ["cache-control", "content-disposition", "content-encoding", "content-language", "expires"];

/// The headers to send for an object.
///
/// # Errors
/// Why they cannot be sent.
pub(super) fn to_wire(headers: &ObjectHeaders) -> Result<Vec<(String, String)>, String> {
    let mut list = Vec::new();
    if let Some(kind) = &headers.content_type {
        list.push(("content-type".to_owned(), plain("content-type", kind)?));
    }
    for (name, value) in &headers.standard {
        if !STANDARD.contains(&name.as_str()) {
            return Err(format!("`{name}` is not one of the standard headers {}", STANDARD.join(", ")));
        }
        list.push((name.clone(), plain(name, value)?));
    }
    let mut total = 0;
    for (name, value) in &headers.metadata {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(format!("metadata name `{name}` holds more than lower-case letters, digits and `-`"));
        }
        let value = encode_value(value);
        total += name.len() + value.len();
        list.push((format!("{META}{name}"), value));
    }
    if total > MAX_METADATA_BYTES {
        return Err(format!("{total} bytes of metadata are more than the {MAX_METADATA_BYTES} allowed"));
    }
    Ok(list)
}

fn plain(name: &str, value: &str) -> Result<String, String> {
    if is_plain(value) {
        return Ok(value.to_owned());
    }
    Err(format!("the value of {name} is not printable ASCII"))
}

/// What a header carries unchanged: printable ASCII without blanks at its ends.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| (0x20..0x7f).contains(&b)) && !value.starts_with(' ') && !value.ends_with(' ')
}

/// A metadata value as sent: itself where it is plain, percent-encoded where it is not, or where it
/// would be taken for an encoded one. So what other tools write in plain ASCII, percent signs
/// included, is kept as it is, and every value comes back as it was.
fn encode_value(value: &str) -> String {
    if is_plain(value) && decode_value(value) == value { value.to_owned() } else { encode(value) }
}

/// The inverse of [`encode_value`]: undoes one encoding where peeling off encodings ends in text that
/// could not have been sent as it is. Escapes within plain text are that text's own.
fn decode_value(wire: &str) -> String {
    // Longer than any metadata that COS stores, and peeling takes a pass for each layer.
    if wire.len() > 2 * MAX_METADATA_BYTES {
        return wire.to_owned();
    }
    let Some(first) = peel(wire) else {
        return wire.to_owned();
    };
    let mut innermost = first.clone();
    while is_plain(&innermost) {
        match peel(&innermost) {
            Some(next) => innermost = next,
            None => return wire.to_owned(),
        }
    }
    first
}

/// One percent-decoding; `None` if it changes nothing or gives no UTF-8.
fn peel(text: &str) -> Option<String> {
    String::from_utf8(decode(text)).ok().filter(|decoded| decoded != text)
}

/// The checksum of a header or an element; what cannot be read is as good as none.
pub(super) fn crc64(text: Option<&str>) -> Option<Crc64> {
    text.and_then(|text| text.trim().parse().ok()).map(Crc64)
}

/// A header as text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An object's ETag, without which no reply about an object is whole.
pub(super) fn etag(headers: &HeaderMap) -> Result<ETag, String> {
    let text = header(headers, "etag").map(ETag::parse).filter(|etag| !etag.0.is_empty());
    text.ok_or_else(|| "the reply has no ETag".to_owned())
}

/// An object as the headers of a HEAD or GET tell it.
///
/// # Errors
/// What the reply lacks.
pub(super) fn from_wire(key: &Key, size: u64, headers: &HeaderMap) -> Result<ObjectMeta, String> {
    // Set by the store on its default domain, not by whoever wrote the object.
    let forced = header(headers, "x-cos-force-download").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let owned = |name: &str| header(headers, name).map(str::to_owned);
    let mut kept = ObjectHeaders { content_type: owned("content-type"), ..ObjectHeaders::default() };
    for name in STANDARD {
        if let Some(value) = owned(name).filter(|_| !(forced && name == "content-disposition")) {
            kept.standard.insert(name.to_owned(), value);
        }
    }
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(META) {
            let value = String::from_utf8_lossy(value.as_bytes());
            kept.metadata.insert(name.to_owned(), decode_value(&value));
        }
    }
    Ok(ObjectMeta {
        key: key.clone(),
        size,
        etag: etag(headers)?,
        last_modified: header(headers, "last-modified").and_then(parse_date),
        crc64: crc64(header(headers, CRC64)),
        version_id: owned("x-cos-version-id").filter(|id| !id.is_empty()),
        storage_class: storage_class(header(headers, "x-cos-storage-class")),
        encryption: terms::encryption(headers),
        tag_count: terms::tag_count(headers),
        headers: kept,
    })
}

/// A storage class; the standard one is told by silence in headers and by name in listings.
pub(super) fn storage_class(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|class| !class.is_empty() && *class != "STANDARD").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metadata(name: &str, value: &str) -> ObjectHeaders {
        ObjectHeaders { metadata: [(name.to_owned(), value.to_owned())].into(), ..ObjectHeaders::default() }
    }

    #[test]
    fn plain_values_are_kept_and_others_are_encoded() {
        for value in ["33188", "100%", "50%2Boff", "{\"a\": \"b\"}", "%7B%22user.x%22%3A%22eA%3D%3D%22%7D", ""] {
            assert_eq!(encode_value(value), value);
            assert_eq!(decode_value(value), value);
        }
        assert_eq!(encode_value("\u{6587} x"), "%E6%96%87%20x");
        assert_eq!(decode_value("%e6%96%87 x"), "\u{6587} x");
        assert_eq!(encode_value("%E6%96%87"), "%25E6%2596%2587");
        assert_eq!(decode_value("%ff"), "%ff");
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in "(%[0-9a-fA-F]{2}|%25|[a-z% ]|\\PC|\\x00|\n){0,12}") {
            let wire = encode_value(&value);
            prop_assert!(is_plain(&wire));
            prop_assert_eq!(decode_value(&wire), value);
        }
    }

    #[test]
    fn what_cos_would_not_keep_is_refused_here() {
        assert!(to_wire(&metadata("with_underscore", "x")).unwrap_err().contains("with_underscore"));
        assert!(to_wire(&metadata("Upper", "x")).is_err());
        assert!(to_wire(&metadata("a", &"x".repeat(2047))).is_ok());
        assert!(to_wire(&metadata("a", &"x".repeat(2048))).unwrap_err().contains("2049"));
        let unknown = ObjectHeaders { standard: [("x-evil".into(), "1".into())].into(), ..ObjectHeaders::default() };
        assert!(to_wire(&unknown).is_err());
        let split = ObjectHeaders { content_type: Some("a\r\nb: c".to_owned()), ..ObjectHeaders::default() };
        assert!(to_wire(&split).is_err());
    }

    #[test]
    fn an_object_is_read_from_its_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("etag", "\"abc-3\""),
            ("x-cos-hash-crc64ecma", "18374686479671623680"),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("x-cos-meta-mode", "33188"),
            ("content-type", "text/plain"),
            ("content-disposition", "attachment"),
            ("x-cos-force-download", "true"),
            ("x-cos-storage-class", "STANDARD_IA"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let meta = from_wire(&Key::from("k"), 7, &headers).unwrap();
        assert_eq!(meta.etag.0, "abc-3");
        assert_eq!(meta.crc64, Some(Crc64(18_374_686_479_671_623_680)));
        assert_eq!(meta.headers.metadata["mode"], "33188");
        assert!(meta.headers.standard.is_empty());
        assert_eq!(meta.storage_class.as_deref(), Some("STANDARD_IA"));
        headers.remove("etag");
        assert!(from_wire(&Key::from("k"), 7, &headers).is_err());
    }
}
