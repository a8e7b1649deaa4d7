//! Headers of objects: what is kept of a request, what comes back, conditions, ranges.

use std::collections::BTreeMap;
use std::ops::Range;

use hyper::HeaderMap;

use crate::emulator::encoding::decode_form;
use crate::emulator::encoding::http_date;
use crate::emulator::encoding::parse_http_date;
use crate::emulator::reply::Refusal;
use crate::emulator::shelf::Kept;
use crate::emulator::shelf::Object;
use crate::emulator::wire::Call;

/// Longest key, bytes (PROTOCOL 5).
const MOST_KEY_BYTES: usize = 850;
/// User metadata in all, bytes (PROTOCOL 3).
const MOST_METADATA_BYTES: usize = 2048;
/// Bytes that no key may hold (PROTOCOL 5).
const FORBIDDEN_IN_KEYS: [char; 4] = ['\u{18}', '\u{19}', '\u{1a}', '\u{1b}'];

/// Kept and returned as they came.
const KEPT: [&str; 8] = [
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    ENCRYPTION,
    KMS_KEY,
];

/// Other than STANDARD (PROTOCOL 3).
const STORAGE_CLASSES: [&str; 8] = [
    "STANDARD_IA",
    "INTELLIGENT_TIERING",
    "ARCHIVE",
    "DEEP_ARCHIVE",
    "COLD",
    "MAZ_STANDARD",
    "MAZ_STANDARD_IA",
    "MAZ_INTELLIGENT_TIERING",
];

const ENCRYPTION: &str = "x-cos-server-side-encryption";
const KMS_KEY: &str = "x-cos-server-side-encryption-cos-kms-key-id";

/// Tags of an object, and characters of one (PROTOCOL 4; the lengths are those of the manual).
const MOST_TAGS: usize = 10;
const MOST_TAG_NAME: usize = 127;
const MOST_TAG_VALUE: usize = 255;

const ACLS: [&str; 3] = ["default", "private", "public-read"];

pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(400, "InvalidArgument", message)
}

/// Whether a key may be stored.
pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if key.len() > MOST_KEY_BYTES {
        return Err(Refusal::new(400, "KeyTooLong", "Your key is too long."));
    }
    if key.contains(FORBIDDEN_IN_KEYS) {
        return Err(Refusal::new(400, "InvalidObjectName", "the key holds a forbidden control character"));
    }
    Ok(())
}

/// What a PUT, an Initiate or a replacing copy wants kept.
pub(super) fn kept(headers: &HeaderMap) -> Result<Kept, Refusal> {
    let mut kept = Kept::default();
    let mut bytes = 0;
    for (name, value) in headers {
        let name = name.as_str();
        let metadata = name.strip_prefix("x-cos-meta-");
        if metadata.is_none() && !KEPT.contains(&name) {
            continue;
        }
        let value = value.to_str().map_err(|_| invalid(format!("{name} is not ASCII")))?.to_owned();
        match metadata {
            Some(suffix) if suffix.is_empty() || suffix.contains('_') => {
                return Err(invalid(format!("{name}: the name may hold letters, digits and dashes")));
            }
            Some(suffix) => {
                bytes += suffix.len() + value.len();
                kept.metadata.insert(suffix.to_owned(), value);
            }
            None => drop(kept.headers.insert(name.to_owned(), value)),
        }
    }
    if bytes > MOST_METADATA_BYTES {
        return Err(invalid(format!("{bytes} bytes of user metadata, {MOST_METADATA_BYTES} at most")));
    }
    if headers.contains_key("x-cos-server-side-encryption-customer-algorithm") {
        return Err(Refusal::new(501, "NotImplemented", "this emulator does not encrypt with customers' keys"));
    }
    let encryption = kept.headers.get(ENCRYPTION).map(String::as_str);
    if encryption.is_some_and(|kind| !matches!(kind, "AES256" | "cos/kms")) {
        return Err(invalid(format!("{ENCRYPTION} is AES256 or cos/kms")));
    }
    if kept.headers.contains_key(KMS_KEY) && encryption != Some("cos/kms") {
        return Err(invalid(format!("{KMS_KEY} needs {ENCRYPTION}: cos/kms")));
    }
    kept.storage_class = storage_class(headers)?;
    kept.acl = acl(headers)?;
    kept.tags = tags(headers)?;
    Ok(kept)
}

/// `None` is STANDARD.
pub(super) fn storage_class(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(class) = headers.get("x-cos-storage-class").map(|value| value.to_str().unwrap_or_default()) else {
        return Ok(None);
    };
    match class {
        "STANDARD" => Ok(None),
        other if STORAGE_CLASSES.contains(&other) => Ok(Some(other.to_owned())),
        _ => Err(invalid("x-cos-storage-class is not one of those that exist")),
    }
}

fn acl(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let acl = headers.get("x-cos-acl").map(|value| value.to_str().unwrap_or_default());
    if acl.is_some_and(|acl| !ACLS.contains(&acl)) {
        return Err(invalid("x-cos-acl is not one of those that exist"));
    }
    Ok(acl.filter(|acl| *acl != "default").map(str::to_owned))
}

/// `x-cos-tagging`: pairs as in a form.
fn tags(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Refusal> {
    let bad = |message: &str| Refusal::new(400, "InvalidTag", message);
    let mut tags = BTreeMap::new();
    let Some(value) = headers.get("x-cos-tagging") else { return Ok(tags) };
    let text = value.to_str().map_err(|_| bad("x-cos-tagging is not ASCII"))?;
    for pair in text.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = decode_form(name).zip(decode_form(value));
        let (name, value) = decoded.ok_or_else(|| bad("a tag is not URL-encoded UTF-8"))?;
        let lengths = (name.chars().count(), value.chars().count());
        if !(1..=MOST_TAG_NAME).contains(&lengths.0) || lengths.1 > MOST_TAG_VALUE {
            return Err(bad("the name or the value of a tag is too long, or empty"));
        }
        if tags.insert(name, value).is_some() {
            return Err(bad("a tag is given twice"));
        }
    }
    if tags.len() > MOST_TAGS {
        return Err(bad("an object takes 10 tags at most"));
    }
    Ok(tags)
}

/// `x-cos-forbid-overwrite: true`.
pub(super) fn forbids_overwrite(call: &Call) -> bool {
    call.header("x-cos-forbid-overwrite") == Some("true")
}

/// What HEAD and GET say of an object, but its length.
pub(super) fn of_object(object: &Object) -> Vec<(String, String)> {
    let mut headers = vec![
        ("ETag".to_owned(), format!("\"{}\"", object.etag)),
        ("Last-Modified".to_owned(), http_date(object.modified_ns)),
        ("x-cos-hash-crc64ecma".to_owned(), object.crc64.to_string()),
        ("Accept-Ranges".to_owned(), "bytes".to_owned()),
    ];
    let kept = &object.kept;
    headers.extend(kept.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers.extend(kept.metadata.iter().map(|(name, value)| (format!("x-cos-meta-{name}"), value.clone())));
    headers.extend(kept.storage_class.iter().map(|class| ("x-cos-storage-class".to_owned(), class.clone())));
    if !kept.tags.is_empty() {
        headers.push(("x-cos-tagging-count".to_owned(), kept.tags.len().to_string()));
    }
    if !kept.headers.contains_key("content-type") {
        headers.push(("Content-Type".to_owned(), "application/octet-stream".to_owned()));
    }
    headers
}

/// How conditions come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Holds,
    /// 304 for reads.
    NotModified,
    /// 412.
    Failed,
}

/// If-Match and its kin, under `prefix` (empty, or `x-cos-copy-source-`).
pub(super) fn condition(call: &Call, prefix: &str, object: &Object) -> Condition {
    let header = |name: &str| call.header(&format!("{prefix}{name}"));
    let names = |list: &str| {
        list.split(',').map(|tag| tag.trim().trim_matches('"')).any(|tag| tag == "*" || tag == object.etag)
    };
    let modified_s = object.modified_ns.div_euclid(1_000_000_000);
    if let Some(list) = header("if-match") {
        if !names(list) {
            return Condition::Failed;
        }
    } else if let Some(date) = header("if-unmodified-since").and_then(parse_http_date)
        && modified_s > date
    {
        return Condition::Failed;
    }
    if let Some(list) = header("if-none-match") {
        if names(list) {
            return Condition::NotModified;
        }
    } else if let Some(date) = header("if-modified-since").and_then(parse_http_date)
        && modified_s <= date
    {
        return Condition::NotModified;
    }
    Condition::Holds
}

pub(super) fn failed() -> Refusal {
    let message = "At least one of the preconditions you specified did not hold.";
    Refusal::new(412, "PreconditionFailed", message)
}

/// The bytes that a Range header asks for: `None` for the whole (also if it is not of the one
/// form that is understood, as RFC 9110 has it).
pub(super) fn range(call: &Call, size: u64) -> Result<Option<Range<u64>>, Refusal> {
    let Some((first, last)) = call.header("range").and_then(|text| text.strip_prefix("bytes=")?.split_once('-')) else {
        return Ok(None);
    };
    let beyond = || Refusal::new(416, "InvalidRange", "The requested range is not satisfiable");
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Ok(None),
        (Ok(first), _) if first >= size => Err(beyond()),
        (Ok(first), Ok(last)) => Ok(Some(first..last.saturating_add(1).min(size))),
        (Ok(first), Err(_)) if last.is_empty() => Ok(Some(first..size)),
        (Err(_), Ok(0)) if first.is_empty() => Err(beyond()),
        (Err(_), Ok(_)) if first.is_empty() && size == 0 => Err(beyond()),
        (Err(_), Ok(last)) if first.is_empty() => Ok(Some(size.saturating_sub(last)..size)),
        _ => Ok(None),
    }
}

/// Where a copy reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) bucket: String,
    pub(super) key: String,
}

/// Whether `name`, a directive of a copy, asks for the request's own headers instead of the source's. COS
/// names the two `Copy` and `Replaced`, and takes S3's `COPY` and `REPLACE` too: cosfs sends those.
pub(super) fn replaces(call: &Call, name: &str) -> Result<bool, Refusal> {
    match call.header(name) {
        None | Some("Copy" | "COPY") => Ok(false),
        Some("Replaced" | "REPLACE") => Ok(true),
        Some(_) => Err(invalid(format!("{name} is Copy or Replaced"))),
    }
}

/// Takes `x-cos-copy-source` apart: `<bucket host>/<encoded key>`, or for addresses without a
/// bucket in their name `<address>/<bucket>/<encoded key>`; or `/<bucket>/<encoded key>` as S3 has it and
/// cosfs sends it (an empty host names no bucket).
pub(super) fn copy_source(call: &Call) -> Result<Source, Refusal> {
    let bad = || Refusal::new(400, "InvalidCopySource", "x-cos-copy-source is not <bucket host>/<encoded key>");
    let text = call.header("x-cos-copy-source").ok_or_else(bad)?;
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if !matches!(query, "" | "versionId=" | "versionId=null") {
        return Err(Refusal::new(404, "NoSuchVersion", "the bucket has no versions"));
    }
    let (host, rest) = path.split_once('/').ok_or_else(bad)?;
    let source = Call::parse(hyper::Method::GET, &"/".parse().map_err(|_| bad())?, host_only(host).ok_or_else(bad)?)?;
    let decode = |text: &str| decode_form(&text.replace('+', "%2B")).filter(|text| !text.is_empty()).ok_or_else(bad);
    match source.bucket() {
        "" => {
            let (bucket, key) = rest.split_once('/').ok_or_else(bad)?;
            Ok(Source { bucket: decode(bucket)?, key: decode(key)? })
        }
        bucket => Ok(Source { bucket: bucket.to_owned(), key: decode(rest)? }),
    }
}

fn host_only(host: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("host", host.parse().ok()?);
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(headers: &[(&'static str, &str)]) -> Call {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Call::parse(hyper::Method::GET, &"/k".parse().unwrap(), headers).unwrap()
    }

    #[test]
    fn ranges() {
        let range = |text: &str, size| range(&call(&[("range", text)]), size).map_err(|refusal| refusal.code);
        let beyond = Err("InvalidRange".to_owned());
        assert_eq!(range("bytes=0-0", 10), Ok(Some(0..1)));
        assert_eq!(range("bytes=5-", 10), Ok(Some(5..10)));
        assert_eq!(range("bytes=5-99", 10), Ok(Some(5..10)));
        assert_eq!(range("bytes=-3", 10), Ok(Some(7..10)));
        assert_eq!(range("bytes=-30", 10), Ok(Some(0..10)));
        assert_eq!(range("bytes=10-", 10), beyond);
        assert_eq!(range("bytes=0-0", 0), beyond);
        assert_eq!(range("bytes=-0", 10), beyond);
        assert_eq!(range("bytes=3-2", 10), Ok(None));
        assert_eq!(range("bytes=0-1,3-4", 10), Ok(None));
        assert_eq!(range("lines=0-1", 10), Ok(None));
    }

    #[test]
    fn copy_sources() {
        let source = |text: &str| copy_source(&call(&[("x-cos-copy-source", text)])).map_err(|refusal| refusal.code);
        let is = |bucket: &str, key: &str| Ok(Source { bucket: bucket.to_owned(), key: key.to_owned() });
        assert_eq!(source("b-1.cos.ap-guangzhou.myqcloud.com/a/%E4%B8%AD+%20"), is("b-1", "a/\u{4e2d}+ "));
        assert_eq!(source("b-1.cos.x.y//a?versionId="), is("b-1", "/a"));
        assert_eq!(source("127.0.0.1:9000/b-1/k"), is("b-1", "k"));
        let bad = Err("InvalidCopySource".to_owned());
        assert_eq!(source("b-1.cos.x.y"), bad);
        assert_eq!(source("b-1.cos.x.y/"), bad);
        assert_eq!(source("/b-1/a/%E4%B8%AD+%20"), is("b-1", "a/\u{4e2d}+ "));
        assert_eq!(source("/b-1"), bad);
        assert_eq!(source("/b-1/"), bad);
        assert_eq!(source("b-1.cos.x.y/k?versionId=7"), Err("NoSuchVersion".to_owned()));
    }

    #[test]
    fn directives_of_copies() {
        let directive = |text: &str| {
            replaces(&call(&[("x-cos-metadata-directive", text)]), "x-cos-metadata-directive")
                .map_err(|refusal| refusal.code)
        };
        assert!(!replaces(&call(&[]), "x-cos-metadata-directive").unwrap());
        for (text, wanted) in [("Copy", false), ("COPY", false), ("Replaced", true), ("REPLACE", true)] {
            assert_eq!(directive(text), Ok(wanted), "{text}");
        }
        for text in ["", "Replace", "replaced"] {
            assert_eq!(directive(text), Err("InvalidArgument".to_owned()), "{text}");
        }
    }

    #[test]
    fn limits_of_keys_and_metadata() {
        assert!(check_key(&"k".repeat(850)).is_ok());
        assert_eq!(check_key(&"k".repeat(851)).unwrap_err().code, "KeyTooLong");
        assert_eq!(check_key("a\u{1b}").unwrap_err().code, "InvalidObjectName");
        let code = |name, value: &str| kept(&call(&[(name, value)]).headers).map_err(|refusal| refusal.code);
        let bad = Err("InvalidArgument".to_owned());
        assert!(code("x-cos-meta-m", &"v".repeat(2047)).is_ok());
        assert_eq!(code("x-cos-meta-m", &"v".repeat(2048)), bad);
        assert_eq!(code("x-cos-meta-a_b", "v"), bad);
        assert_eq!(code("x-cos-storage-class", "FROZEN"), bad);
        assert_eq!(code("x-cos-storage-class", "STANDARD").unwrap().storage_class, None);
        assert_eq!(code("x-cos-acl", "everyone"), bad);
        assert_eq!(code("x-cos-acl", "private").unwrap().acl.as_deref(), Some("private"));
        assert_eq!(code("x-cos-server-side-encryption", "aes"), bad);
        assert_eq!(code("x-cos-server-side-encryption-cos-kms-key-id", "k"), bad);
        let bad_tag = Err("InvalidTag".to_owned());
        assert_eq!(code("x-cos-tagging", "a=1&a=2"), bad_tag);
        assert_eq!(code("x-cos-tagging", "=1"), bad_tag);
        assert_eq!(code("x-cos-tagging", "a=1&b=x%26y").unwrap().tags["b"], "x&y");
    }
}
