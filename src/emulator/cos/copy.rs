//! Copies on the server, of objects and into parts.

use std::sync::Arc;

use md5::Digest;
use md5::Md5;

use super::headers;
use super::headers::Condition;
use super::multipart;
use super::no_such_key;
use super::no_such_upload;
use super::object;
use super::xml::Writer;
use crate::emulator::encoding::hex;
use crate::emulator::encoding::iso_date;
use crate::emulator::exchange::Exchange;
use crate::emulator::exchange::blocking;
use crate::emulator::reply::CHUNK_BYTES;
use crate::emulator::reply::Refusal;
use crate::emulator::reply::Reply;
use crate::emulator::reply::Stop;
use crate::emulator::shelf::Bucket;
use crate::emulator::shelf::Kept;
use crate::emulator::shelf::NewObject;
use crate::emulator::shelf::Object;
use crate::emulator::shelf::PutError;

/// The object to copy from, if the conditions on it hold.
fn source(exchange: &Exchange) -> Result<(String, Arc<Object>), Stop> {
    let source = headers::copy_source(&exchange.call)?;
    let no_bucket = || Refusal::new(404, "NoSuchBucket", "The source bucket does not exist.");
    let bucket = exchange.state.shelf.bucket(&source.bucket).ok_or_else(no_bucket)?;
    let object = bucket.object(&source.key).ok_or_else(no_such_key)?;
    if headers::condition(&exchange.call, "x-cos-copy-source-", &object) != Condition::Holds {
        return Err(headers::failed().into());
    }
    object::check_restored(&object)?;
    Ok((source.bucket, object))
}

/// PUT Object - Copy.
pub(super) async fn copy(exchange: &mut Exchange, bucket: Arc<Bucket>, key: String) -> Result<Reply, Stop> {
    exchange.drain().await;
    let replaced = headers::replaces(&exchange.call, "x-cos-metadata-directive")?;
    let tags_replaced = headers::replaces(&exchange.call, "x-cos-tagging-directive")?;
    let mut wanted = headers::kept(&exchange.call.headers)?;
    exchange.applying().await;
    let (source_bucket, object) = source(exchange)?;
    if object.size > object::MOST_PUT_BYTES {
        let message = "an object above 5 GB is copied by parts";
        return Err(Refusal::new(400, "EntityTooLarge", message).into());
    }
    if !tags_replaced {
        wanted.tags = object.kept.tags.clone();
    }
    let onto_itself = source_bucket == bucket.name() && object.key == key;
    if onto_itself && !replaced && wanted.storage_class == object.kept.storage_class {
        let message = "a copy of an object onto itself must change its metadata or its storage class";
        return Err(Refusal::new(400, "InvalidRequest", message).into());
    }
    let kept = match replaced {
        true => wanted,
        // Storage class, ACL and encryption are not copied (PROTOCOL 4).
        false => {
            let encryption = |name: &String| name.starts_with("x-cos-server-side-encryption");
            let mut all = object.kept.headers.clone();
            all.retain(|name, _| !encryption(name));
            let named = std::mem::take(&mut wanted.headers);
            all.extend(named.into_iter().filter(|(name, _)| encryption(name)));
            Kept { headers: all, metadata: object.kept.metadata.clone(), ..wanted }
        }
    };
    let now_ns = exchange.state.now_ns();
    let etag = match object.parts {
        0 => object.etag.clone(),
        // The copy of an object made of parts gets an ETag of its own.
        _ => format!("{}-1", hex(&Md5::digest(format!("{} {key} {now_ns}", object.etag)))),
    };
    let parts = object.parts.min(1);
    let forbid = headers::forbids_overwrite(&exchange.call);
    let note = exchange.note_of("copy");
    let copied = blocking(move || {
        let blobs = bucket.link(&object)?;
        let crc64 = object.crc64;
        let new = NewObject { key, etag, crc64, modified_ns: now_ns, parts, kept, blobs };
        bucket.put(new, forbid).inspect(|copied| note(copied))
    })
    .await
    .map_err(|error: PutError| Stop::from(error))?;
    let etag = format!("\"{}\"", copied.etag);
    let crc64 = copied.crc64.to_string();
    let out = result("CopyObjectResult", &etag, &crc64, copied.modified_ns);
    Ok(super::late(out, exchange.drip).with("ETag", etag).with("x-cos-hash-crc64ecma", crc64))
}

fn result(root: &str, etag: &str, crc64: &str, modified_ns: i64) -> Writer {
    let out = Writer::default().open(root).leaf("ETag", etag).leaf("CRC64", crc64);
    out.leaf("LastModified", iso_date(modified_ns)).close(root)
}

/// Upload Part - Copy.
pub(super) async fn copy_part(
    exchange: &mut Exchange,
    bucket: Arc<Bucket>,
    key: String,
    id: String,
) -> Result<Reply, Stop> {
    exchange.drain().await;
    let number = multipart::part_number(&exchange.call)?;
    exchange.applying().await;
    if !bucket.has_upload(&key, &id) {
        return Err(no_such_upload().into());
    }
    let (_, object) = source(exchange)?;
    let range = match exchange.call.header("x-cos-copy-source-range") {
        None => 0..object.size,
        Some(text) => {
            let bounds = text.strip_prefix("bytes=").and_then(|text| text.split_once('-'));
            let bounds = bounds.and_then(|(first, last)| Some((first.parse().ok()?, last.parse::<u64>().ok()?)));
            let (first, last): (u64, u64) =
                bounds.ok_or_else(|| headers::invalid("x-cos-copy-source-range is not bytes=first-last"))?;
            if first > last || last >= object.size {
                let message = "The requested range is not satisfiable";
                return Err(Refusal::new(416, "InvalidRange", message).into());
            }
            first..last + 1
        }
    };
    if range.end - range.start > object::MOST_PUT_BYTES {
        let message = "a part is at most 5 GB";
        return Err(Refusal::new(400, "EntityTooLarge", message).into());
    }
    let now_ns = exchange.state.now_ns();
    let part = blocking(move || {
        let mut reader = object.reader(range.start, range.end - range.start);
        let mut writer = bucket.writer()?;
        loop {
            let chunk = reader.next(CHUNK_BYTES)?;
            if chunk.is_empty() {
                break;
            }
            writer.write(&chunk)?;
        }
        bucket.put_part(&key, &id, number, writer.finish(), now_ns)
    })
    .await?
    .ok_or_else(no_such_upload)?;
    let etag = format!("\"{}\"", part.etag);
    let crc64 = part.crc64.to_string();
    let out = result("CopyPartResult", &etag, &crc64, part.modified_ns);
    Ok(super::late(out, exchange.drip).with("x-cos-hash-crc64ecma", crc64))
}
