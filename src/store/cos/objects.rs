//! Whole objects: HEAD, GET, PUT, copy, delete.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::checks;
use super::client::{Call, CosClient, Reply, Wrong, local, transport};
use super::meta::{CRC64, crc64, etag, from_wire, header, to_wire};
use super::terms;
use crate::checksum::{md5, md5_base64};
use crate::http::{Body, HeaderMap, Method};
use crate::store::error::{Error, ErrorKind, Outcome, Result};
use crate::store::retry::Repeat;
use crate::store::xml::{Element, escape};
use crate::store::{
    Capabilities, CopyOptions, CopySource, DeleteFailure, GetOptions, GetResult, HeadOptions, ObjectMeta, PutOptions,
    PutResult,
};
use crate::types::{ETag, Key};

pub(super) async fn head(client: &CosClient, key: &Key, options: HeadOptions) -> Result<ObjectMeta> {
    checks::key(key).map_err(|text| client.refuse(&Method::HEAD, Some(key), text))?;
    let mut call = Call::new(Method::HEAD, Some(key), Repeat::Read);
    call.query.extend(options.version_id.map(|id| ("versionId", id)));
    let read = |reply: Reply| {
        let size = content_length(&reply.headers).ok_or_else(|| "the reply has no Content-Length".to_owned())?;
        Ok(from_wire(key, size, &reply.headers)?)
    };
    client.call(call, read).await
}

pub(super) async fn get(client: &CosClient, key: &Key, options: GetOptions) -> Result<GetResult> {
    let refuse = |text| client.refuse(&Method::GET, Some(key), text);
    checks::key(key).map_err(refuse)?;
    let mut call = Call::new(Method::GET, Some(key), Repeat::Read);
    call.collect = false;
    call.query.extend(options.version_id.map(|id| ("versionId", id)));
    if let Some(range) = &options.range {
        if range.start >= range.end {
            return Err(refuse(format!("the range {}..{} is empty", range.start, range.end)));
        }
        call.headers.push(("range".to_owned(), format!("bytes={}-{}", range.start, range.end - 1)));
    }
    call.headers.extend(options.if_match.map(|etag| ("if-match".to_owned(), etag.quoted())));
    let what = client.what(&Method::GET, Some(key));
    let read = |reply: Reply| {
        let (range, size) = served(&reply, options.range.as_ref())?;
        let meta = from_wire(key, size, &reply.headers)?;
        let body = reply.body.ok_or_else(|| "the reply has no body".to_owned())?;
        let body = guarded(body, range.end - range.start, what.clone());
        Ok(GetResult { meta, range, body })
    };
    client.call(call, read).await
}

/// The bytes that a reply holds and the size of the object, checked against what was asked for.
fn served(reply: &Reply, asked: Option<&Range<u64>>) -> std::result::Result<(Range<u64>, u64), String> {
    let length = content_length(&reply.headers);
    if reply.status != 206 {
        let size = length.ok_or_else(|| "the reply has no Content-Length".to_owned())?;
        return match asked {
            None => Ok((0..size, size)),
            // All of a small object where its beginning was asked for is an answer; any other is not.
            Some(range) if range.start == 0 && size <= range.end => Ok((0..size, size)),
            Some(range) => Err(format!("the whole object was sent for the range {}..{}", range.start, range.end)),
        };
    }
    let text = header(&reply.headers, "content-range").unwrap_or_default();
    let (range, size) = content_range(text).ok_or_else(|| format!("`{text}` is no Content-Range"))?;
    let fits = asked.is_some_and(|asked| range.start == asked.start && range.end == asked.end.min(size));
    if !fits || length.is_some_and(|length| length != range.end - range.start) {
        return Err(format!("Content-Range `{text}` is not what was asked for"));
    }
    Ok((range, size))
}

/// `bytes first-last/size`.
fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then(|| (first..last + 1, size))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-length").and_then(|text| text.trim().parse().ok())
}

/// The body as a stream that ends with an error unless it holds exactly `expected` bytes.
fn guarded(body: Body, expected: u64, what: String) -> BoxStream<'static, Result<Bytes>> {
    let wrong = |what: &str, text: String| local(what, ErrorKind::BadReply, text);
    let step = move |state: Option<(Body, u64, String)>| async move {
        let (mut body, seen, what) = state?;
        match body.next().await {
            Some(Ok(chunk)) => {
                let seen = seen + chunk.len() as u64;
                if seen > expected {
                    let error = wrong(&what, format!("the body is longer than the {expected} bytes announced"));
                    return Some((Err(error), None));
                }
                Some((Ok(chunk), Some((body, seen, what))))
            }
            Some(Err(error)) => {
                let (mut error, _) = transport(what, error);
                error.outcome = Outcome::NotApplied;
                Some((Err(error), None))
            }
            None if seen < expected => {
                let error = wrong(&what, format!("the body ended after {seen} of {expected} bytes"));
                Some((Err(error), None))
            }
            None => None,
        }
    };
    stream::unfold(Some((body, 0, what)), step).boxed()
}

pub(super) async fn put(
    client: &CosClient,
    capabilities: &Capabilities,
    key: &Key,
    body: Bytes,
    options: PutOptions,
) -> Result<PutResult> {
    let refuse = |text| client.refuse(&Method::PUT, Some(key), text);
    checks::key(key).map_err(refuse)?;
    if body.len() as u64 > capabilities.max_part_bytes {
        return Err(refuse(format!("{} bytes are more than one PUT takes", body.len())));
    }
    // The same bytes twice are another version (another ETag time, a version on versioned buckets), and
    // a repeat could go over what another host wrote in between: only a HEAD tells (R2).
    let mut call = Call::new(Method::PUT, Some(key), Repeat::Once);
    call.headers = stored_headers(&options).map_err(refuse)?;
    call.headers.extend(options.content_md5.map(|sum| ("content-md5".to_owned(), md5_base64(&sum))));
    forbid_overwrite(&mut call, options.forbid_overwrite);
    call.body = body;
    client.call(call, |reply| Ok(put_result(etag(&reply.headers)?, None, &reply.headers))).await
}

/// The headers of [`PutOptions`] that are stored with an object, for PUT and Initiate.
pub(super) fn stored_headers(options: &PutOptions) -> std::result::Result<Vec<(String, String)>, String> {
    let mut headers = to_wire(&options.headers)?;
    headers.extend(options.storage_class.iter().map(|class| ("x-cos-storage-class".to_owned(), class.clone())));
    headers.extend(terms::to_wire(&options.terms));
    Ok(headers)
}

pub(super) fn forbid_overwrite(call: &mut Call<'_>, forbid: bool) {
    if forbid {
        call.forbid_overwrite = true;
        call.headers.push(("x-cos-forbid-overwrite".to_owned(), "true".to_owned()));
    }
}

/// What a store says of an object it took; `body` is the XML of the reply, where there is one.
pub(super) fn put_result(etag: ETag, body: Option<&Element>, headers: &HeaderMap) -> PutResult {
    let sum = crc64(header(headers, CRC64)).or_else(|| crc64(body.and_then(|body| body.word("CRC64"))));
    let version = header(headers, "x-cos-version-id").or_else(|| body.and_then(|body| body.word("VersionId")));
    PutResult { etag, crc64: sum, version_id: version.filter(|id| !id.is_empty()).map(str::to_owned) }
}

/// The headers that name a copy's source.
pub(super) fn source_headers(client: &CosClient, source: &CopySource) -> Vec<(String, String)> {
    let place = client.place().copy_source(source.key.as_str(), source.version_id.as_deref());
    let mut headers = vec![("x-cos-copy-source".to_owned(), place)];
    headers.extend(source.if_match.as_ref().map(|etag| ("x-cos-copy-source-if-match".to_owned(), etag.quoted())));
    headers
}

pub(super) async fn copy(client: &CosClient, source: CopySource, key: &Key, options: CopyOptions) -> Result<PutResult> {
    let refuse = |text| client.refuse(&Method::PUT, Some(key), text);
    checks::key(key).map_err(refuse)?;
    checks::key(&source.key).map_err(refuse)?;
    let mut call = Call::new(Method::PUT, Some(key), Repeat::Once);
    call.slow = true;
    call.headers = source_headers(client, &source);
    if let Some(headers) = &options.replace_headers {
        call.headers.extend(to_wire(headers).map_err(refuse)?);
        call.headers.push(("x-cos-metadata-directive".to_owned(), "Replaced".to_owned()));
    }
    call.headers.extend(options.storage_class.map(|class| ("x-cos-storage-class".to_owned(), class)));
    call.headers.extend(terms::to_wire(&options.terms));
    if !options.terms.tags.is_empty() {
        call.headers.push(("x-cos-tagging-directive".to_owned(), "Replaced".to_owned()));
    }
    forbid_overwrite(&mut call, options.forbid_overwrite);
    let read = |reply: Reply| {
        let root = reply.xml("CopyObjectResult")?;
        let etag = root.word("ETag").ok_or_else(|| "the reply has no ETag".to_owned())?;
        Ok(put_result(ETag::parse(etag), Some(&root), &reply.headers))
    };
    client.call(call, read).await
}

pub(super) async fn delete(client: &CosClient, key: &Key) -> Result<()> {
    checks::key(key).map_err(|text| client.refuse(&Method::DELETE, Some(key), text))?;
    let call = Call::new(Method::DELETE, Some(key), Repeat::Idempotent);
    match client.call(call, |_| Ok(())).await {
        // COS answers 204 for an absent key; others of its dialect say so. A bare 404 could as well
        // mean the bucket.
        Err(error) if error.kind == ErrorKind::NotFound && error.code.is_some() => Ok(()),
        other => other,
    }
}

pub(super) async fn delete_many(
    client: &CosClient,
    capabilities: &Capabilities,
    keys: &[Key],
) -> Result<Vec<DeleteFailure>> {
    let refuse = |text| client.refuse(&Method::POST, None, text);
    if keys.len() > capabilities.max_delete_keys {
        return Err(refuse(format!("{} keys are more than one delete call takes", keys.len())));
    }
    let mut failures = Vec::new();
    let mut objects = String::new();
    for key in keys {
        checks::key(key).map_err(refuse)?;
        match escape(key.as_str()) {
            Some(text) => objects.push_str(&format!("<Object><Key>{text}</Key></Object>")),
            // XML cannot name it; a DELETE can.
            None => match delete(client, key).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => failures.push(failure(key.clone(), &error)),
            },
        }
    }
    if objects.is_empty() {
        return Ok(failures);
    }
    // Of many keys, what has come to stand at one meanwhile is soon another's.
    let mut call = Call::new(Method::POST, None, Repeat::Once);
    call.query.push(("delete", String::new()));
    call.body = Bytes::from(format!("<Delete><Quiet>true</Quiet>{objects}</Delete>"));
    call.headers.push(("content-type".to_owned(), "application/xml".to_owned()));
    call.headers.push(("content-md5".to_owned(), md5_base64(&md5(&call.body))));
    let asked: HashSet<&str> = keys.iter().map(Key::as_str).collect();
    let read = |reply: Reply| refusals(&reply.xml("DeleteResult")?, &asked);
    failures.extend(client.call(call, read).await?);
    Ok(failures)
}

fn failure(key: Key, error: &Error) -> DeleteFailure {
    DeleteFailure { key, code: error.code.clone().unwrap_or_default(), message: error.to_string() }
}

/// The keys that were refused. One that was not asked for shows that names got garbled on the way,
/// and then nothing is known of the others.
fn refusals(root: &Element, asked: &HashSet<&str>) -> std::result::Result<Vec<DeleteFailure>, Wrong> {
    let mut failures = Vec::new();
    for refused in root.all("Error") {
        let key = refused.value("Key").unwrap_or_default();
        let code = refused.word("Code").unwrap_or_default();
        if code == "NoSuchKey" {
            continue;
        }
        if !asked.contains(key) {
            return Err(Wrong::Reply(format!("a key that was not asked for was refused with {code}")));
        }
        failures.push(DeleteFailure {
            key: Key::from(key),
            code: code.to_owned(),
            message: refused.word("Message").unwrap_or_default().to_owned(),
        });
    }
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::xml::parse;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0..10, 100)));
        assert_eq!(content_range("bytes 99-99/100"), Some((99..100, 100)));
        for bad in ["", "bytes 0-9/*", "bytes 9-0/100", "bytes 0-100/100", "0-9/100", "bytes */100"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    fn reply(status: u16, headers: &[(&'static str, &str)]) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Reply { status, headers: map, bytes: Bytes::new(), body: None }
    }

    #[test]
    fn only_the_range_asked_for_is_taken() {
        let part = reply(206, &[("content-length", "10"), ("content-range", "bytes 5-14/100")]);
        assert_eq!(served(&part, Some(&(5..15))), Ok((5..15, 100)));
        assert!(served(&part, Some(&(4..15))).is_err());
        assert!(served(&part, Some(&(5..16))).is_err());
        assert!(served(&part, None).is_err());
        let tail = reply(206, &[("content-range", "bytes 5-9/10")]);
        assert_eq!(served(&tail, Some(&(5..50))), Ok((5..10, 10)));
        let lying = reply(206, &[("content-length", "9"), ("content-range", "bytes 5-14/100")]);
        assert!(served(&lying, Some(&(5..15))).is_err());
        let whole = reply(200, &[("content-length", "10")]);
        assert_eq!(served(&whole, None), Ok((0..10, 10)));
        assert_eq!(served(&whole, Some(&(0..10))), Ok((0..10, 10)));
        assert!(served(&whole, Some(&(0..5))).is_err());
        assert!(served(&whole, Some(&(1..10))).is_err());
    }

    #[test]
    fn refused_deletes_are_told_and_garbled_ones_noticed() {
        let body = "<DeleteResult><Error><Key>a&amp;b</Key><Code>AccessDenied</Code><Message>m</Message></Error>\
                    <Error><Key>gone</Key><Code>NoSuchKey</Code></Error></DeleteResult>";
        let root = parse(body.as_bytes()).unwrap();
        let failures = refusals(&root, &HashSet::from(["a&b", "gone"])).ok().unwrap();
        assert_eq!(failures.len(), 1);
        assert_eq!((failures[0].key.as_str(), failures[0].code.as_str()), ("a&b", "AccessDenied"));
        assert!(refusals(&root, &HashSet::from(["a", "gone"])).is_err());
    }
}
