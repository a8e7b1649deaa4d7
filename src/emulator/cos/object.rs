//! PUT, GET, HEAD and DELETE of objects.

use std::sync::Arc;

use hyper::Method;

use super::MOST_XML_BYTES;
use super::headers;
use super::headers::Condition;
use super::no_such_key;
use super::xml;
use super::xml::Writer;
use crate::emulator::encoding::hex;
use crate::emulator::exchange::Exchange;
use crate::emulator::exchange::blocking;
use crate::emulator::reply::Content;
use crate::emulator::reply::Refusal;
use crate::emulator::reply::Reply;
use crate::emulator::reply::Stop;
use crate::emulator::shelf::Bucket;
use crate::emulator::shelf::NewObject;
use crate::emulator::shelf::Object;

/// Largest single PUT and part, bytes (PROTOCOL 5: 5 GB).
pub(super) const MOST_PUT_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// Keys of one delete call.
const MOST_DELETED: usize = 1000;

/// A body of unknown length is refused, as is one too large, before it is read.
pub(super) fn check_length(exchange: &Exchange) -> Result<(), Refusal> {
    let call = &exchange.call;
    let length = call.header("content-length").and_then(|text| text.parse::<u64>().ok());
    match length {
        None if !call.headers.contains_key("transfer-encoding") => {
            let message = "You must provide the Content-Length HTTP header.";
            Err(Refusal::new(411, "MissingContentLength", message))
        }
        Some(length) if length > MOST_PUT_BYTES => {
            let message = "Your proposed upload exceeds the maximum allowed object size.";
            Err(Refusal::new(400, "EntityTooLarge", message))
        }
        _ => Ok(()),
    }
}

pub(super) async fn put(exchange: &mut Exchange, bucket: Arc<Bucket>, key: String) -> Result<Reply, Stop> {
    check_length(exchange)?;
    let kept = headers::kept(&exchange.call.headers)?;
    let received = exchange.blob(&bucket).await?;
    exchange.applying().await;
    let forbid = headers::forbids_overwrite(&exchange.call);
    let new = NewObject {
        key,
        etag: hex(&received.md5),
        crc64: received.crc64,
        modified_ns: exchange.state.now_ns(),
        parts: 0,
        kept,
        blobs: vec![received.blob],
    };
    let note = exchange.note_of("put");
    let object = blocking(move || bucket.put(new, forbid).inspect(|object| note(object))).await?;
    let reply = Reply::empty(200).with("ETag", format!("\"{}\"", object.etag));
    Ok(reply.with("x-cos-hash-crc64ecma", object.crc64.to_string()))
}

/// The content of archived objects cannot be read.
pub(super) fn check_restored(object: &Object) -> Result<(), Refusal> {
    if matches!(object.kept.storage_class.as_deref(), Some("ARCHIVE" | "DEEP_ARCHIVE")) {
        let message = "The operation is not valid for the object's storage class: restore it first.";
        return Err(Refusal::new(403, "InvalidObjectState", message));
    }
    Ok(())
}

/// GET and HEAD.
pub(super) fn get(exchange: &Exchange, bucket: &Bucket, key: &str) -> Result<Reply, Stop> {
    let call = &exchange.call;
    let object = bucket.object(key).ok_or_else(no_such_key)?;
    match headers::condition(call, "", &object) {
        Condition::Holds => {}
        Condition::Failed => return Err(headers::failed().into()),
        Condition::NotModified => return Ok(Reply::empty(304).with_all(headers::of_object(&object))),
    }
    let mut found = headers::of_object(&object);
    if call.method == Method::HEAD {
        return Ok(Reply::empty(200).with_all(found).with("Content-Length", object.size.to_string()));
    }
    check_restored(&object)?;
    for (name, value) in &call.query {
        if let Some(name) = name.strip_prefix("response-") {
            found.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
            found.push((name.to_owned(), value.clone()));
        }
    }
    Ok(body(&object, headers::range(call, object.size)?).with_all(found))
}

/// GET Object tagging.
pub(super) fn tagging(bucket: &Bucket, key: &str) -> Result<Reply, Stop> {
    let object = bucket.object(key).ok_or_else(no_such_key)?;
    let mut out = Writer::default().open("Tagging").open("TagSet");
    for (name, value) in &object.kept.tags {
        out = out.open("Tag").leaf("Key", name).leaf("Value", value).close("Tag");
    }
    Ok(super::xml(out.close("TagSet").close("Tagging")))
}

fn body(object: &Object, range: Option<std::ops::Range<u64>>) -> Reply {
    let wanted = range.clone().unwrap_or(0..object.size);
    let length = wanted.end - wanted.start;
    let content = Content::File(object.reader(wanted.start, length), length);
    let reply = Reply { status: if range.is_some() { 206 } else { 200 }, headers: Vec::new(), content };
    match range {
        None => reply,
        Some(range) => {
            let told = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
            reply.with("Content-Range", told)
        }
    }
}

pub(super) async fn delete(exchange: &mut Exchange, bucket: Arc<Bucket>, key: String) -> Result<Reply, Stop> {
    exchange.applying().await;
    blocking(move || bucket.delete(&key)).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn delete_many(exchange: &mut Exchange, bucket: Arc<Bucket>) -> Result<Reply, Stop> {
    if !exchange.call.headers.contains_key("content-md5") {
        let message = "Missing required header for this request: Content-MD5";
        return Err(Refusal::new(400, "InvalidRequest", message).into());
    }
    let text = exchange.text(MOST_XML_BYTES).await?;
    let malformed = || Refusal::new(400, "MalformedXML", "The XML you provided was not well-formed.");
    let root = xml::parse(&text).filter(|root| root.name == "Delete").ok_or_else(malformed)?;
    let quiet = root.child("Quiet").is_some_and(|quiet| quiet.trim() == "true");
    let mut keys = Vec::new();
    for object in root.children.iter().filter(|child| child.name == "Object") {
        keys.push(object.child("Key").filter(|key| !key.is_empty()).ok_or_else(malformed)?.to_owned());
    }
    if keys.is_empty() || keys.len() > MOST_DELETED {
        return Err(malformed().into());
    }
    exchange.applying().await;
    let mut out = Writer::default().open("DeleteResult");
    let mut wanted = Vec::with_capacity(keys.len());
    for key in keys {
        match exchange.state.faults.refusal(bucket.name(), &key) {
            None => wanted.push(key),
            Some(code) => {
                out = out.open("Error").leaf("Key", key).leaf("Code", code).leaf("Message", "a fault").close("Error");
            }
        }
    }
    let outcomes = blocking(move || {
        let delete = |key: String| (bucket.delete(&key), key);
        Ok::<_, Stop>(wanted.into_iter().map(delete).collect::<Vec<_>>())
    })
    .await?;
    for (outcome, key) in outcomes {
        match outcome {
            Ok(_) if quiet => {}
            Ok(_) => out = out.open("Deleted").leaf("Key", key).close("Deleted"),
            Err(error) => {
                tracing::error!("the emulator failed to {error}");
                out = out.open("Error").leaf("Key", key).leaf("Code", "InternalError");
                out = out.leaf("Message", error.to_string()).close("Error");
            }
        }
    }
    Ok(super::xml(out.close("DeleteResult")))
}
