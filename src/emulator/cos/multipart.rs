//! Multipart uploads.

use std::sync::Arc;

use super::MOST_XML_BYTES;
use super::OWNER;
use super::headers;
use super::listing;
use super::no_such_upload;
use super::object;
use super::xml;
use super::xml::Writer;
use crate::emulator::encoding::iso_date;
use crate::emulator::exchange::Exchange;
use crate::emulator::exchange::blocking;
use crate::emulator::reply::Refusal;
use crate::emulator::reply::Reply;
use crate::emulator::reply::Stop;
use crate::emulator::shelf::Bucket;
use crate::emulator::shelf::CompleteError;
use crate::emulator::wire::Call;

/// Smallest part but the last, bytes (PROTOCOL 5: "1 MB", in the clients 2^20).
const LEAST_PART_BYTES: u64 = 1024 * 1024;
/// Highest part number.
const MOST_PARTS: u32 = 10_000;

pub(super) async fn initiate(exchange: &mut Exchange, bucket: Arc<Bucket>, key: String) -> Result<Reply, Stop> {
    exchange.drain().await;
    let kept = headers::kept(&exchange.call.headers)?;
    exchange.applying().await;
    let out = Writer::default().open("InitiateMultipartUploadResult").leaf("Bucket", bucket.name()).leaf("Key", &key);
    let now_ns = exchange.state.now_ns();
    let id = blocking(move || bucket.begin_upload(key, kept, now_ns)).await?;
    Ok(super::xml(out.leaf("UploadId", id).close("InitiateMultipartUploadResult")))
}

pub(super) fn part_number(call: &Call) -> Result<u32, Refusal> {
    let number = call.param("partNumber").and_then(|text| text.parse().ok());
    let bad = || headers::invalid(format!("partNumber is a number from 1 to {MOST_PARTS}"));
    number.filter(|number| (1..=MOST_PARTS).contains(number)).ok_or_else(bad)
}

pub(super) async fn put_part(
    exchange: &mut Exchange,
    bucket: Arc<Bucket>,
    key: String,
    id: String,
) -> Result<Reply, Stop> {
    let number = part_number(&exchange.call)?;
    object::check_length(exchange)?;
    if !bucket.has_upload(&key, &id) {
        return Err(no_such_upload().into());
    }
    let received = exchange.blob(&bucket).await?;
    exchange.applying().await;
    let now_ns = exchange.state.now_ns();
    let stored = blocking(move || bucket.put_part(&key, &id, number, received, now_ns)).await?;
    let part = stored.ok_or_else(no_such_upload)?;
    let reply = Reply::empty(200).with("ETag", format!("\"{}\"", part.etag));
    Ok(reply.with("x-cos-hash-crc64ecma", part.crc64.to_string()))
}

/// What is wrong with a list of parts is told by the status; all else would come in the body of
/// a 200 on COS, but nothing else goes wrong here except by a fault.
pub(super) async fn complete(
    exchange: &mut Exchange,
    bucket: Arc<Bucket>,
    key: String,
    id: String,
) -> Result<Reply, Stop> {
    let text = exchange.text(MOST_XML_BYTES).await?;
    let malformed = || Refusal::new(400, "MalformedXML", "The XML you provided was not well-formed.");
    let root = xml::parse(&text).filter(|root| root.name == "CompleteMultipartUpload").ok_or_else(malformed)?;
    let mut listed = Vec::new();
    for part in root.children.iter().filter(|child| child.name == "Part") {
        let number = part.child("PartNumber").and_then(|text| text.trim().parse::<u32>().ok()).ok_or_else(malformed)?;
        let etag = part.child("ETag").ok_or_else(malformed)?;
        listed.push((number, etag.trim().trim_matches('"').to_ascii_lowercase()));
    }
    exchange.applying().await;
    let now_ns = exchange.state.now_ns();
    let forbid = headers::forbids_overwrite(&exchange.call);
    let name = bucket.name().to_owned();
    let note = exchange.note_of("complete");
    let completing = move || bucket.complete(&key, &id, &listed, LEAST_PART_BYTES, forbid, now_ns);
    let object = blocking(move || completing().inspect(|object| note(object))).await.map_err(refuse)?;
    let host = &exchange.call.host;
    let location = format!("http://{host}{}", exchange.call.raw_path);
    let out = Writer::default().open("CompleteMultipartUploadResult").leaf("Location", location);
    let out = out.leaf("Bucket", name).leaf("Key", &object.key).leaf("ETag", format!("\"{}\"", object.etag));
    let reply = super::late(out.close("CompleteMultipartUploadResult"), exchange.drip);
    Ok(reply.with("x-cos-hash-crc64ecma", object.crc64.to_string()))
}

fn refuse(error: CompleteError) -> Stop {
    match error {
        CompleteError::NoUpload => no_such_upload().into(),
        CompleteError::Empty => Refusal::new(400, "MalformedXML", "no parts are listed").into(),
        CompleteError::Part(number) => {
            let message = format!("part {number} was not uploaded, has another ETag, or leaves a gap before it");
            Refusal::new(400, "InvalidPart", message).into()
        }
        CompleteError::Order(number) => {
            let message = format!("part {number} is not in ascending order");
            Refusal::new(400, "InvalidPartOrder", message).into()
        }
        CompleteError::Small(number) => {
            let message = format!("part {number} is smaller than the minimum allowed size");
            Refusal::new(400, "EntityTooSmall", message).into()
        }
        CompleteError::Put(error) => error.into(),
    }
}

pub(super) async fn abort(
    exchange: &mut Exchange,
    bucket: Arc<Bucket>,
    key: String,
    id: String,
) -> Result<Reply, Stop> {
    exchange.applying().await;
    match blocking(move || bucket.abort(&key, &id)).await? {
        true => Ok(Reply::empty(204)),
        false => Err(no_such_upload().into()),
    }
}

pub(super) fn list_parts(call: &Call, bucket: &Bucket, key: &str, id: &str) -> Result<Reply, Stop> {
    let upload = bucket.upload(key, id).ok_or_else(no_such_upload)?;
    let encoding = listing::Encoding::of(call)?;
    let after = listing::number(call, "part-number-marker", u32::MAX)?.unwrap_or(0);
    let most = listing::number(call, "max-parts", listing::MOST)?.unwrap_or(listing::MOST);
    let rest: Vec<_> = upload.parts.values().filter(|part| part.number > after).collect();
    let page: Vec<_> = rest.iter().take(usize::try_from(most).unwrap_or(usize::MAX)).collect();
    let truncated = page.len() < rest.len();
    let mut out = Writer::default().open("ListPartsResult").leaf("Bucket", bucket.name());
    out = encoding.declare(out).leaf("Key", encoding.apply(key)).leaf("UploadId", id);
    for role in ["Owner", "Initiator"] {
        out = out.open(role).leaf("ID", OWNER).leaf("DisplayName", "100000000001").close(role);
    }
    out = out.leaf("PartNumberMarker", after.to_string());
    let last = page.last().map_or(after, |part| part.number);
    out = out.leaf("NextPartNumberMarker", last.to_string()).leaf("MaxParts", most.to_string());
    out = out.leaf("IsTruncated", truncated.to_string());
    out = out.leaf("StorageClass", upload.kept.storage_class.as_deref().unwrap_or("STANDARD"));
    for part in page {
        out = out.open("Part").leaf("PartNumber", part.number.to_string());
        out = out.leaf("LastModified", iso_date(part.modified_ns)).leaf("ETag", format!("\"{}\"", part.etag));
        out = out.leaf("Size", part.blob.bytes().to_string()).close("Part");
    }
    Ok(super::xml(out.close("ListPartsResult")))
}

pub(super) fn list_uploads(call: &Call, bucket: &Bucket) -> Result<Reply, Stop> {
    let encoding = listing::Encoding::of(call)?;
    let most = listing::number(call, "max-uploads", listing::MOST)?.unwrap_or(listing::MOST);
    let prefix = call.param("prefix").unwrap_or_default();
    let delimiter = listing::delimiter(call)?;
    let key_marker = call.param("key-marker").unwrap_or_default();
    let id_marker = call.param("upload-id-marker").unwrap_or_default();
    let mut entries = Writer::default();
    let (mut count, mut truncated) = (0, false);
    let mut last = (String::new(), String::new());
    for upload in bucket.uploads() {
        let place = (upload.key.as_str(), upload.id.as_str());
        // Without an id marker all uploads of the marked key are behind us.
        let behind = match (key_marker.is_empty(), id_marker.is_empty()) {
            (true, _) => false,
            (false, true) => place.0 <= key_marker,
            (false, false) => place <= (key_marker, id_marker),
        };
        if behind || !upload.key.starts_with(prefix) {
            continue;
        }
        let group = listing::common_prefix(&upload.key, prefix, delimiter);
        if group.is_some_and(|group| group == last.0 || group == key_marker) {
            continue;
        }
        if count == most {
            truncated = true;
            break;
        }
        count += 1;
        match group {
            Some(group) => {
                last = (group.to_owned(), String::new());
                entries = entries.open("CommonPrefixes").leaf("Prefix", encoding.apply(group)).close("CommonPrefixes");
            }
            None => {
                last = (upload.key.clone(), upload.id.clone());
                entries = entries.open("Upload").leaf("Key", encoding.apply(&upload.key)).leaf("UploadId", &upload.id);
                entries = entries.leaf("StorageClass", upload.kept.storage_class.as_deref().unwrap_or("STANDARD"));
                for role in ["Initiator", "Owner"] {
                    entries = entries.open(role).leaf("ID", OWNER).leaf("DisplayName", "100000000001").close(role);
                }
                entries = entries.leaf("Initiated", iso_date(upload.initiated_ns)).close("Upload");
            }
        }
    }
    let mut out = Writer::default().open("ListMultipartUploadsResult").leaf("Bucket", bucket.name());
    out = encoding.declare(out).leaf("KeyMarker", encoding.apply(key_marker)).leaf("UploadIdMarker", id_marker);
    if truncated {
        out = out.leaf("NextKeyMarker", encoding.apply(&last.0)).leaf("NextUploadIdMarker", &last.1);
    }
    out = out.leaf("MaxUploads", most.to_string()).leaf("IsTruncated", truncated.to_string());
    out = out.leaf("Prefix", encoding.apply(prefix));
    if let Some(delimiter) = delimiter {
        out = out.leaf("Delimiter", encoding.apply(&delimiter.to_string()));
    }
    Ok(super::xml(out.append(entries).close("ListMultipartUploadsResult")))
}
