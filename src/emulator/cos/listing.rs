//! GET Bucket: listings in byte order.

use super::OWNER;
use super::headers;
use super::xml::Writer;
use crate::emulator::encoding::encode_key;
use crate::emulator::encoding::iso_date;
use crate::emulator::reply::Refusal;
use crate::emulator::reply::Reply;
use crate::emulator::reply::Stop;
use crate::emulator::shelf::Bucket;
use crate::emulator::wire::Call;

/// Most entries of one page, and the default (PROTOCOL 5).
pub(super) const MOST: u32 = 1000;

/// `encoding-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Url,
}

impl Encoding {
    pub(super) fn of(call: &Call) -> Result<Encoding, Refusal> {
        match call.param("encoding-type") {
            None | Some("") => Ok(Encoding::Plain),
            Some("url") => Ok(Encoding::Url),
            Some(_) => Err(headers::invalid("encoding-type is url or nothing")),
        }
    }

    pub(super) fn apply(self, text: &str) -> String {
        match self {
            Encoding::Plain => text.to_owned(),
            Encoding::Url => encode_key(text),
        }
    }

    pub(super) fn declare(self, out: Writer) -> Writer {
        match self {
            Encoding::Plain => out,
            Encoding::Url => out.leaf("EncodingType", "url"),
        }
    }
}

/// A count or a part number in the query, cut to `most`.
pub(super) fn number(call: &Call, name: &str, most: u32) -> Result<Option<u32>, Refusal> {
    let Some(text) = call.param(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let bad = |_| headers::invalid(format!("{name} is not a number"));
    text.parse::<u32>().map(|number| Some(number.min(most))).map_err(bad)
}

/// At most one character.
pub(super) fn delimiter(call: &Call) -> Result<Option<char>, Refusal> {
    let mut letters = call.param("delimiter").unwrap_or_default().chars();
    match (letters.next(), letters.next()) {
        (first, None) => Ok(first),
        _ => Err(Refusal::new(400, "InvalidDelimiter", "the delimiter is one character")),
    }
}

/// What a key is grouped under: up to and with the first delimiter behind the prefix.
pub(super) fn common_prefix<'a>(key: &'a str, prefix: &str, delimiter: Option<char>) -> Option<&'a str> {
    let delimiter = delimiter?;
    let at = key.strip_prefix(prefix)?.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len_utf8())
}

/// The least text above all that begin with this one. UTF-8 holds no byte 0xff, so the last can
/// always go up; empty has none.
fn above_all_with(prefix: &str) -> Vec<u8> {
    let mut bytes = prefix.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    bytes
}

pub(super) fn list(call: &Call, bucket: &Bucket) -> Result<Reply, Stop> {
    let encoding = Encoding::of(call)?;
    let most = number(call, "max-keys", MOST)?.unwrap_or(MOST);
    let prefix = call.param("prefix").unwrap_or_default();
    let marker = call.param("marker").unwrap_or_default();
    let delimiter = delimiter(call)?;
    let (mut objects, mut prefixes) = (Writer::default(), Writer::default());
    let (mut count, mut next_marker) = (0, None);
    let mut last = String::new();
    // Exclusive of the marker, but not of the prefix.
    let (mut at, mut after) = match marker >= prefix && !marker.is_empty() {
        true => (marker.as_bytes().to_vec(), true),
        false => (prefix.as_bytes().to_vec(), false),
    };
    while let Some(object) = bucket.next_object(&at, after) {
        if !object.key.starts_with(prefix) {
            break;
        }
        let group = common_prefix(&object.key, prefix, delimiter);
        // A page that ended with a common prefix goes on behind all of it.
        if group.is_some_and(|group| group == marker) {
            (at, after) = (above_all_with(marker), false);
            continue;
        }
        if count == most {
            next_marker = Some(last);
            break;
        }
        count += 1;
        match group {
            Some(group) => {
                prefixes =
                    prefixes.open("CommonPrefixes").leaf("Prefix", encoding.apply(group)).close("CommonPrefixes");
                (at, after) = (above_all_with(group), false);
                last = group.to_owned();
            }
            None => {
                objects = objects.open("Contents").leaf("Key", encoding.apply(&object.key));
                objects = objects.leaf("LastModified", iso_date(object.modified_ns));
                objects = objects.leaf("ETag", format!("\"{}\"", object.etag)).leaf("Size", object.size.to_string());
                objects = objects.open("Owner").leaf("ID", OWNER).leaf("DisplayName", "100000000001").close("Owner");
                let class = object.kept.storage_class.as_deref().unwrap_or("STANDARD");
                objects = objects.leaf("StorageClass", class).close("Contents");
                (at, after) = (object.key.clone().into_bytes(), true);
                last = object.key.clone();
            }
        }
    }
    let mut out = Writer::default().open("ListBucketResult").leaf("Name", bucket.name());
    out = encoding.declare(out).leaf("Prefix", encoding.apply(prefix)).leaf("Marker", encoding.apply(marker));
    out = out.leaf("MaxKeys", most.to_string());
    if let Some(delimiter) = delimiter {
        out = out.leaf("Delimiter", encoding.apply(&delimiter.to_string()));
    }
    out = out.leaf("IsTruncated", (next_marker.is_some() && most > 0).to_string());
    if let Some(next) = next_marker.filter(|_| most > 0) {
        out = out.leaf("NextMarker", encoding.apply(&next));
    }
    Ok(super::xml(out.append(objects).append(prefixes).close("ListBucketResult")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::cos::xml::parse;
    use crate::emulator::reply::Content;
    use crate::emulator::shelf::Kept;
    use crate::emulator::shelf::NewObject;
    use crate::emulator::shelf::Shelf;
    use proptest::prelude::Strategy;
    use proptest::proptest;
    use std::collections::BTreeSet;

    #[test]
    fn common_prefixes() {
        assert_eq!(common_prefix("a/b/c", "", Some('/')), Some("a/"));
        assert_eq!(common_prefix("a/b/c", "a/", Some('/')), Some("a/b/"));
        assert_eq!(common_prefix("a/", "a/", Some('/')), None, "a directory's own marker");
        assert_eq!(common_prefix("a/b", "a", Some('/')), Some("a/"));
        assert_eq!(common_prefix("a/b", "x", Some('/')), None);
        assert_eq!(common_prefix("a/b", "", None), None);
        assert_eq!(common_prefix("\u{4e2d}\u{6587}x", "\u{4e2d}", Some('\u{6587}')), Some("\u{4e2d}\u{6587}"));
    }

    /// One page: keys, common prefixes, next marker.
    fn page(bucket: &Bucket, query: &[(&str, &str)]) -> (Vec<String>, Vec<String>, Option<String>) {
        let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", encode_key(value))).collect();
        let target = format!("/b-1?{}", query.join("&"));
        let call = Call::parse(hyper::Method::GET, &target.parse().unwrap(), hyper::HeaderMap::new()).unwrap();
        let Content::Text(text) = list(&call, bucket).unwrap().content else { panic!("no text") };
        let root = parse(&text).unwrap();
        let all = |tag: &str, leaf: &str| {
            let found = root.children.iter().filter(|child| child.name == tag);
            found.map(|child| child.child(leaf).unwrap().to_owned()).collect()
        };
        assert_eq!(root.child("IsTruncated"), Some(if root.child("NextMarker").is_some() { "true" } else { "false" }));
        (all("Contents", "Key"), all("CommonPrefixes", "Prefix"), root.child("NextMarker").map(str::to_owned))
    }

    fn some_key() -> impl Strategy<Value = String> {
        proptest::string::string_regex("[ab/0\u{4e2d}]{1,5}").unwrap()
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn pages_together_are_the_whole(
            keys in proptest::collection::btree_set(some_key(), 0..15),
            prefix in "[ab/]{0,2}",
            delimited in proptest::bool::ANY,
            size in 1usize..5,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let shelf = Shelf::open(dir.path().to_owned(), &["b-1".to_owned()], 0).unwrap();
            let bucket = shelf.bucket("b-1").unwrap();
            for key in &keys {
                let blobs = Vec::new();
                let (etag, kept) = (String::new(), Kept::default());
                let new = NewObject { key: key.clone(), etag, crc64: 0, modified_ns: 0, parts: 0, kept, blobs };
                bucket.put(new, false).unwrap();
            }
            let delimiter = if delimited { "/" } else { "" };
            let (mut wanted_keys, mut wanted_prefixes) = (Vec::new(), BTreeSet::new());
            for key in keys.iter().filter(|key| key.starts_with(&prefix)) {
                match key[prefix.len()..].find('/').filter(|_| delimited) {
                    Some(at) => drop(wanted_prefixes.insert(key[..prefix.len() + at + 1].to_owned())),
                    None => wanted_keys.push(key.clone()),
                }
            }
            let (mut found_keys, mut found_prefixes) = (Vec::new(), Vec::new());
            let (size, mut marker) = (size.to_string(), String::new());
            loop {
                let query = [("prefix", &*prefix), ("delimiter", delimiter), ("marker", &marker), ("max-keys", &size)];
                let (some, groups, next) = page(&bucket, &query);
                assert!(some.len() + groups.len() <= size.parse().unwrap());
                found_keys.extend(some);
                found_prefixes.extend(groups);
                let Some(next) = next else { break };
                assert!(next > marker, "{next} does not follow {marker}");
                marker = next;
            }
            assert_eq!(found_keys, wanted_keys);
            assert_eq!(found_prefixes, wanted_prefixes.into_iter().collect::<Vec<_>>());
        }
    }
}
