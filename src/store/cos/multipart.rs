//! Objects in parts.

use std::ops::Range;

use bytes::Bytes;

use super::checks;
use super::client::{Call, CosClient, Reply, Wrong};
use super::meta::{CRC64, crc64, etag, header};
use super::objects::{forbid_overwrite, put_result, source_headers, stored_headers};
use crate::checksum::md5_base64;
use crate::http::Method;
use crate::store::error::{ErrorKind, Result};
use crate::store::retry::Repeat;
use crate::store::xml::{Element, escape};
use crate::store::{Capabilities, CopySource, Part, PartsPage, PutOptions, PutResult};
use crate::types::{ETag, Key};

/// The most parts that a page of ListParts holds.
const MAX_PAGE: u32 = 1000;

/// Where a part goes.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) key: &'a Key,
    pub(super) upload_id: &'a str,
    pub(super) number: u32,
}

impl<'a> Target<'a> {
    /// The call that puts something there.
    fn call(&self, client: &CosClient, capabilities: &Capabilities) -> Result<Call<'a>> {
        if self.number == 0 || self.number > capabilities.max_parts {
            let text = format!("part numbers run from 1 to {}, not {}", capabilities.max_parts, self.number);
            return Err(client.refuse(&Method::PUT, Some(self.key), text));
        }
        let mut call = Call::new(Method::PUT, Some(self.key), Repeat::Idempotent);
        call.query.push(("partNumber", self.number.to_string()));
        call.query.push(("uploadId", self.upload_id.to_owned()));
        Ok(call)
    }
}

pub(super) async fn create(client: &CosClient, key: &Key, options: PutOptions) -> Result<String> {
    let refuse = |text| client.refuse(&Method::POST, Some(key), text);
    checks::key(key).map_err(refuse)?;
    // A repeat of an Initiate that was applied would leave an upload that nobody knows of.
    let mut call = Call::new(Method::POST, Some(key), Repeat::Once);
    call.query.push(("uploads", String::new()));
    call.headers = stored_headers(&options).map_err(refuse)?;
    let read = |reply: Reply| {
        let root = reply.xml("InitiateMultipartUploadResult")?;
        root.word("UploadId").map(str::to_owned).ok_or_else(|| Wrong::Reply("the reply has no UploadId".to_owned()))
    };
    client.call(call, read).await
}

pub(super) async fn put_part(
    client: &CosClient,
    capabilities: &Capabilities,
    to: Target<'_>,
    body: Bytes,
    content_md5: [u8; 16],
) -> Result<Part> {
    let size = body.len() as u64;
    if size > capabilities.max_part_bytes {
        return Err(client.refuse(&Method::PUT, Some(to.key), format!("{size} bytes are more than a part takes")));
    }
    let mut call = to.call(client, capabilities)?;
    call.headers.push(("content-md5".to_owned(), md5_base64(&content_md5)));
    call.body = body;
    let read = |reply: Reply| {
        let sum = crc64(header(&reply.headers, CRC64));
        Ok(Part { number: to.number, etag: etag(&reply.headers)?, size, crc64: sum })
    };
    client.call(call, read).await
}

pub(super) async fn copy_part(
    client: &CosClient,
    capabilities: &Capabilities,
    to: Target<'_>,
    source: CopySource,
    range: Range<u64>,
) -> Result<Part> {
    let refuse = |text| client.refuse(&Method::PUT, Some(to.key), text);
    checks::key(&source.key).map_err(refuse)?;
    if range.start >= range.end {
        return Err(refuse(format!("the range {}..{} is empty", range.start, range.end)));
    }
    let mut call = to.call(client, capabilities)?;
    call.slow = true;
    call.headers = source_headers(client, &source);
    let last = range.end - 1;
    call.headers.push(("x-cos-copy-source-range".to_owned(), format!("bytes={}-{last}", range.start)));
    let read = |reply: Reply| {
        let root = reply.xml("CopyPartResult")?;
        let etag = root.word("ETag").ok_or_else(|| "the reply has no ETag".to_owned())?;
        let result = put_result(ETag::parse(etag), Some(&root), &reply.headers);
        Ok(Part { number: to.number, etag: result.etag, size: range.end - range.start, crc64: result.crc64 })
    };
    client.call(call, read).await
}

pub(super) async fn list_parts(
    client: &CosClient,
    key: &Key,
    upload_id: &str,
    marker: Option<u32>,
) -> Result<PartsPage> {
    let mut call = Call::new(Method::GET, Some(key), Repeat::Read);
    call.query.push(("uploadId", upload_id.to_owned()));
    call.query.push(("max-parts", MAX_PAGE.to_string()));
    call.query.push(("encoding-type", "url".to_owned()));
    call.query.extend(marker.map(|number| ("part-number-marker", number.to_string())));
    client.call(call, |reply: Reply| Ok(parts(&reply.xml("ListPartsResult")?, marker.unwrap_or(0))?)).await
}

fn parts(root: &Element, marker: u32) -> std::result::Result<PartsPage, String> {
    let mut page = PartsPage::default();
    for entry in root.all("Part") {
        let number = entry.word("PartNumber").and_then(|text| text.parse().ok());
        let size = entry.word("Size").and_then(|text| text.parse().ok());
        let (Some(number), Some(size), Some(etag)) = (number, size, entry.word("ETag")) else {
            return Err("a part lacks its number, size or ETag".to_owned());
        };
        page.parts.push(Part { number, etag: ETag::parse(etag), size, crc64: crc64(entry.word("CRC64")) });
    }
    page.parts.sort_by_key(|part| part.number);
    if root.word("IsTruncated").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        let told = root.word("NextPartNumberMarker").and_then(|text| text.parse().ok());
        let next = told.or_else(|| page.parts.last().map(|part| part.number)).filter(|next| *next > marker);
        page.next_marker = Some(next.ok_or_else(|| "the listing is cut and says not where to go on".to_owned())?);
    }
    Ok(page)
}

pub(super) async fn complete(
    client: &CosClient,
    capabilities: &Capabilities,
    key: &Key,
    upload_id: &str,
    parts: &[Part],
    forbid: bool,
) -> Result<PutResult> {
    let refuse = |text| client.refuse(&Method::POST, Some(key), text);
    let body = complete_body(parts, capabilities).map_err(refuse)?;
    let mut call = Call::new(Method::POST, Some(key), Repeat::Once);
    call.slow = true;
    call.query.push(("uploadId", upload_id.to_owned()));
    call.headers.push(("content-type".to_owned(), "application/xml".to_owned()));
    forbid_overwrite(&mut call, forbid);
    call.body = Bytes::from(body);
    let read = |reply: Reply| {
        let root = reply.xml("CompleteMultipartUploadResult")?;
        let etag = root.word("ETag").ok_or_else(|| "the reply has no ETag".to_owned())?;
        Ok(put_result(ETag::parse(etag), Some(&root), &reply.headers))
    };
    client.call(call, read).await
}

/// The parts as COS wants them told: ascending, and from 1 without gaps.
fn complete_body(parts: &[Part], capabilities: &Capabilities) -> std::result::Result<String, String> {
    if parts.is_empty() || parts.len() > capabilities.max_parts as usize {
        return Err(format!("an object has 1 to {} parts, not {}", capabilities.max_parts, parts.len()));
    }
    let mut body = String::from("<CompleteMultipartUpload>");
    for (part, expected) in parts.iter().zip(1..) {
        if part.number != expected {
            return Err(format!("part {} stands where part {expected} must", part.number));
        }
        let etag = escape(&part.etag.quoted()).ok_or_else(|| format!("the ETag of part {expected} is no text"))?;
        body.push_str(&format!("<Part><PartNumber>{expected}</PartNumber><ETag>{etag}</ETag></Part>"));
    }
    body.push_str("</CompleteMultipartUpload>");
    Ok(body)
}

pub(super) async fn abort(client: &CosClient, key: &Key, upload_id: &str) -> Result<()> {
    let mut call = Call::new(Method::DELETE, Some(key), Repeat::Idempotent);
    call.query.push(("uploadId", upload_id.to_owned()));
    match client.call(call, |_| Ok(())).await {
        Err(error) if error.kind == ErrorKind::NoSuchUpload => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::cos::capabilities;
    use crate::store::xml::parse;

    fn part(number: u32) -> Part {
        Part { number, etag: ETag(format!("e{number}")), size: 1, crc64: None }
    }

    #[test]
    fn parts_are_told_in_order_and_without_gaps() {
        let body = complete_body(&[part(1), part(2)], &capabilities()).unwrap();
        let root = parse(body.as_bytes()).unwrap();
        let told: Vec<_> = root.all("Part").map(|p| (p.word("PartNumber").unwrap(), p.word("ETag").unwrap())).collect();
        assert_eq!(told, [("1", "\"e1\""), ("2", "\"e2\"")]);
        for wrong in [&[][..], &[part(2)], &[part(1), part(3)], &[part(2), part(1)], &[part(1), part(1)]] {
            assert!(complete_body(wrong, &capabilities()).is_err());
        }
    }

    #[test]
    fn pages_of_parts() {
        let body = "<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>2</NextPartNumberMarker>\
            <Part><PartNumber>2</PartNumber><ETag>\"b\"</ETag><Size>7</Size></Part>\
            <Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag><Size>8</Size></Part></ListPartsResult>";
        let root = parse(body.as_bytes()).unwrap();
        let page = parts(&root, 0).unwrap();
        assert_eq!(page.parts.iter().map(|p| (p.number, p.size)).collect::<Vec<_>>(), [(1, 8), (2, 7)]);
        assert_eq!(page.next_marker, Some(2));
        assert!(parts(&root, 2).is_err());
        assert!(parts(&parse(b"<R><Part><PartNumber>1</PartNumber></Part></R>").unwrap(), 0).is_err());
    }
}
