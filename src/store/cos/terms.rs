//! ACL, encryption and tags on the wire (PROTOCOL section 3).

use std::collections::BTreeMap;

use super::checks;
use super::client::{Call, CosClient, Reply};
use super::meta::header;
use crate::http::{HeaderMap, Method, encode};
use crate::store::error::Result;
use crate::store::retry::Repeat;
use crate::store::xml::Element;
use crate::store::{Encryption, Terms};
use crate::types::Key;

const ENCRYPTION: &str = "x-cos-server-side-encryption";
const KMS_KEY: &str = "x-cos-server-side-encryption-cos-kms-key-id";
const KMS: &str = "cos/kms";

/// The headers that ask for these terms.
pub(super) fn to_wire(terms: &Terms) -> Vec<(String, String)> {
    let mut list = Vec::new();
    let mut add = |name: &str, value: String| list.push((name.to_owned(), value));
    if let Some(acl) = &terms.acl {
        add("x-cos-acl", acl.clone());
    }
    match &terms.encryption {
        None => {}
        Some(Encryption::Aes256) => add(ENCRYPTION, "AES256".to_owned()),
        Some(Encryption::Kms { key_id }) => {
            add(ENCRYPTION, KMS.to_owned());
            if let Some(id) = key_id {
                add(KMS_KEY, id.clone());
            }
        }
    }
    if !terms.tags.is_empty() {
        let pair = |(name, value): (&String, &String)| format!("{}={}", encode(name), encode(value));
        add("x-cos-tagging", terms.tags.iter().map(pair).collect::<Vec<_>>().join("&"));
    }
    list
}

/// How an object is encrypted, as its headers tell; `None` also for what only its owner can name (a
/// customer's own key).
pub(super) fn encryption(headers: &HeaderMap) -> Option<Encryption> {
    match header(headers, ENCRYPTION)?.trim() {
        "AES256" => Some(Encryption::Aes256),
        KMS => Some(Encryption::Kms { key_id: header(headers, KMS_KEY).map(str::to_owned) }),
        _ => None,
    }
}

/// How many tags an object has; silence is none.
pub(super) fn tag_count(headers: &HeaderMap) -> u32 {
    header(headers, "x-cos-tagging-count").and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

pub(super) async fn tags(client: &CosClient, key: &Key) -> Result<BTreeMap<String, String>> {
    checks::key(key).map_err(|text| client.refuse(&Method::GET, Some(key), text))?;
    let mut call = Call::new(Method::GET, Some(key), Repeat::Read);
    call.query.push(("tagging", String::new()));
    client.call(call, |reply: Reply| Ok(tag_set(&reply.xml("Tagging")?)?)).await
}

fn tag_set(root: &Element) -> std::result::Result<BTreeMap<String, String>, String> {
    let set = root.all("TagSet").next().ok_or_else(|| "the reply has no TagSet".to_owned())?;
    set.all("Tag")
        .map(|tag| {
            let name = tag.value("Key").ok_or_else(|| "a tag has no key".to_owned())?;
            Ok((name.to_owned(), tag.value("Value").unwrap_or_default().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::xml::parse;

    #[test]
    fn terms_are_told_in_headers() {
        assert!(to_wire(&Terms::default()).is_empty());
        let terms = Terms {
            acl: Some("public-read".to_owned()),
            encryption: Some(Encryption::Kms { key_id: Some("k-1".to_owned()) }),
            tags: [("team".to_owned(), "a&b".to_owned()), ("keep".to_owned(), "7 y".to_owned())].into(),
        };
        let wire = to_wire(&terms);
        let told: Vec<(&str, &str)> = wire.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            told,
            [
                ("x-cos-acl", "public-read"),
                (ENCRYPTION, "cos/kms"),
                (KMS_KEY, "k-1"),
                ("x-cos-tagging", "keep=7%20y&team=a%26b"),
            ]
        );
        let mut headers = HeaderMap::new();
        for (name, value) in &wire {
            headers.insert(name.parse::<crate::http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        assert_eq!(encryption(&headers), terms.encryption);
        assert_eq!(encryption(&HeaderMap::new()), None);
    }

    #[test]
    fn tag_sets_are_read() {
        let body = b"<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag><Tag><Key>b</Key><Value/></Tag></TagSet></Tagging>";
        let tags = tag_set(&parse(body).unwrap()).unwrap();
        assert_eq!(tags, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())].into());
        assert!(tag_set(&parse(b"<Tagging/>").unwrap()).is_err());
        assert!(tag_set(&parse(b"<Tagging><TagSet><Tag/></TagSet></Tagging>").unwrap()).is_err());
    }
}
