//! Extended attributes in one header, in the form of s3fs and cosfs: percent-encoded JSON, an object of
//! name and base64 of the value. Pure.
//!
//! Those tools split the JSON at commas and colons, so a name that holds `,`, `:` or `"` is readable here
//! only.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http::{decode, encode};

/// Extended attributes of an inode, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xattrs(pub BTreeMap<String, Vec<u8>>);

impl Xattrs {
    /// Reads the header. What is no such header, or a value that is no base64, is left out: no tool shows it.
    pub fn parse(header: &str) -> Xattrs {
        // A name that is not ASCII was decoded with the rest of the metadata.
        let json = if header.starts_with('{') { header.as_bytes().to_vec() } else { decode(header) };
        let texts: BTreeMap<String, String> = serde_json::from_slice(&json).unwrap_or_default();
        Xattrs(texts.into_iter().filter_map(|(name, value)| Some((name, STANDARD.decode(value).ok()?))).collect())
    }

    /// The header; `None` if there are none.
    pub fn to_header(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let pairs: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{}:\"{}\"", quoted(name), STANDARD.encode(value))).collect();
        Some(encode(&format!("{{{}}}", pairs.join(","))))
    }
}

/// A string of JSON in ASCII and without `%`: the header is then encoded exactly once, whoever reads it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if (0x20..0x7f).contains(&byte) && !b"\"\\%".contains(&byte) => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("\\u{unit:04x}")),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pairs: &[(&str, &[u8])]) -> Xattrs {
        Xattrs(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect())
    }

    #[test]
    fn the_header_is_the_one_of_s3fs() {
        // As s3fs 1.90 wrote it (build_xattrs: JSON of base64, then urlEncode).
        let theirs = "%7B%22user.colour%22%3A%22cmVk%22%2C%22user.empty%22%3A%22%22%7D";
        let ours = of(&[("user.colour", b"red"), ("user.empty", b"")]);
        assert_eq!(ours.to_header().as_deref(), Some(theirs));
        assert_eq!(Xattrs::parse(theirs), ours);
        assert_eq!(Xattrs::default().to_header(), None);
    }

    #[test]
    fn what_is_no_header_of_attributes_shows_none() {
        for rubbish in ["", "x", "%7B", "[1]", "{\"a\":1}", "{\"user.a\":\"###\"}"] {
            assert_eq!(Xattrs::parse(rubbish), Xattrs::default(), "{rubbish}");
        }
    }

    proptest! {
        #[test]
        fn names_and_values_come_back(
            pairs in proptest::collection::btree_map("\\PC{1,12}", proptest::collection::vec(any::<u8>(), 0..40), 1..4),
        ) {
            let xattrs = Xattrs(pairs);
            let header = xattrs.to_header().unwrap();
            prop_assert!(header.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%-_.~".contains(&byte)));
            prop_assert_eq!(Xattrs::parse(&header), xattrs.clone());
            prop_assert_eq!(Xattrs::parse(&String::from_utf8(decode(&header)).unwrap()), xattrs);
        }
    }
}
