//! ACL, encryption and tags of what a mapping writes.

use std::collections::BTreeMap;

use super::error::Result;
use super::place::{At, Source};
use super::raw::RawMapping;
use super::values::choice;
use crate::store::{Encryption, Terms};

/// Tags of one object, and bytes of their names and values: COS takes 10, of 127 and 255 characters.
const MAX_TAGS: usize = 10;
const MAX_TAG_NAME: usize = 127;
const MAX_TAG_VALUE: usize = 255;

pub(super) fn terms(source: &Source<'_>, raw: &RawMapping) -> Result<Terms> {
    let acls = [("default", "default"), ("private", "private"), ("public-read", "public-read")];
    Ok(Terms {
        acl: choice(source, raw.acl.as_ref(), &acls)?.map(str::to_owned),
        encryption: encryption(source, raw)?,
        tags: tags(source, raw.tags.as_ref())?,
    })
}

fn encryption(source: &Source<'_>, raw: &RawMapping) -> Result<Option<Encryption>> {
    let kms = choice(source, raw.sse.as_ref(), &[("AES256", false), ("KMS", true)])?;
    let key_id = raw.sse_kms_key_id.as_ref();
    if let Some(id) = key_id {
        if kms != Some(true) {
            return Err(source.refuse(
                &id.place,
                "`sse_kms_key_id` stands without sse = \"KMS\"",
                "add sse = \"KMS\", or remove the line",
            ));
        }
        // It travels in a header.
        if id.value.is_empty() || !id.value.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(source.refuse(
                &id.place,
                format!("`{}` is not the id of a key", id.value.escape_debug()),
                "write the id as the key service shows it",
            ));
        }
    }
    Ok(kms.map(|kms| match kms {
        true => Encryption::Kms { key_id: key_id.map(|id| id.value.clone()) },
        false => Encryption::Aes256,
    }))
}

fn tags(source: &Source<'_>, raw: Option<&At<String>>) -> Result<BTreeMap<String, String>> {
    let mut tags = BTreeMap::new();
    let Some(at) = raw else { return Ok(tags) };
    let refuse = |message: String| {
        source.refuse(&at.place, message, "write up to 10 tags as tags = \"team=billing&keep=7 years\"")
    };
    for pair in at.value.split('&') {
        let (name, value) = pair.split_once('=').ok_or_else(|| refuse(format!("`{pair}` is not NAME=VALUE")))?;
        if name.is_empty() || name.chars().count() > MAX_TAG_NAME {
            return Err(refuse(format!("`{name}` is not the name of a tag: 1 to {MAX_TAG_NAME} characters")));
        }
        if value.chars().count() > MAX_TAG_VALUE {
            return Err(refuse(format!("the value of `{name}` has more than {MAX_TAG_VALUE} characters")));
        }
        let allowed = |c: char| c.is_alphanumeric() || " +-=._:/".contains(c);
        if let Some(odd) = name.chars().chain(value.chars()).find(|c| !allowed(*c)) {
            return Err(refuse(format!(
                "tags hold letters, digits, blanks and +-=._:/ but not `{}`",
                odd.escape_debug()
            )));
        }
        if tags.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(refuse(format!("the tag `{name}` is given twice")));
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(refuse(format!("{} tags are more than the {MAX_TAGS} that an object takes", tags.len())));
    }
    Ok(tags)
}
