//! The COS dialect (PROTOCOL sections 1 to 7).
//!
//! # Invariants
//! 1. A bucket that does not exist is told first, then the signature is checked, then the rest.
//! 2. What this dialect does not do is refused as NotImplemented, never taken for something else.
//! 3. A change is answered after its record is on disk.

mod copy;
mod headers;
mod listing;
mod multipart;
mod object;
mod signature;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;

use super::encoding::iso_date;
use super::exchange::Exchange;
use super::reply::Content;
use super::reply::Refusal;
use super::reply::Reply;
use super::reply::Stop;
use super::shelf::Bucket;
use super::shelf::PutError;
use super::state::request_id;
use super::wire::Place;
use xml::Writer;

/// What `x-cos-bucket-region` tells and listings of buckets say.
const REGION: &str = "ap-guangzhou";

/// Owner of all, as listings name it.
const OWNER: &str = "qcs::cam::uin/100000000001:uin/100000000001";

/// Parts of XML bodies: 1000 keys of 850 bytes with every byte escaped stay below.
const MOST_XML_BYTES: usize = 8 * 1024 * 1024;

/// Sub-resources that COS has and this dialect has not.
const UNSUPPORTED: [&str; 25] = [
    "accelerate",
    "acl",
    "append",
    "ci-process",
    "cors",
    "domain",
    "encryption",
    "intelligenttiering",
    "inventory",
    "lifecycle",
    "logging",
    "notification",
    "object-lock",
    "origin",
    "policy",
    "referer",
    "rename",
    "replication",
    "restore",
    "select",
    "symlink",
    "tagging",
    "torrent",
    "versions",
    "website",
];

/// Works on one request.
pub(super) async fn answer(exchange: &mut Exchange) -> Result<Reply, Stop> {
    let name = exchange.call.bucket().to_owned();
    let bucket = exchange.state.shelf.bucket(&name);
    if bucket.is_none() && !matches!(exchange.call.place, Place::Service) {
        return Err(Refusal::new(404, "NoSuchBucket", "The specified bucket does not exist.").into());
    }
    signature::verify(&exchange.call, &exchange.state.credentials, exchange.state.now_s())?;
    let reads_tags = exchange.call.method == Method::GET && !exchange.call.key().is_empty();
    let unsupported = |name: &&&str| exchange.call.has(name) && !(reads_tags && **name == "tagging");
    if let Some(name) = UNSUPPORTED.iter().find(unsupported) {
        let message = format!("this emulator does not do {name}");
        return Err(Refusal::new(501, "NotImplemented", message).into());
    }
    match (bucket, exchange.call.key().to_owned()) {
        (None, _) => on_service(exchange),
        (Some(bucket), key) if key.is_empty() => on_bucket(exchange, bucket).await,
        (Some(bucket), key) => on_object(exchange, bucket, key).await,
    }
}

fn on_service(exchange: &Exchange) -> Result<Reply, Stop> {
    if exchange.call.method != Method::GET {
        return Err(not_allowed());
    }
    let mut out = Writer::default().open("ListAllMyBucketsResult").open("Owner");
    out = out.leaf("ID", OWNER).leaf("DisplayName", "100000000001").close("Owner").open("Buckets");
    for bucket in exchange.state.shelf.buckets() {
        out = out.open("Bucket").leaf("Name", bucket.name()).leaf("Location", REGION);
        out = out.leaf("CreationDate", iso_date(bucket.created_ns())).leaf("BucketType", "cos").close("Bucket");
    }
    Ok(xml(out.close("Buckets").leaf("IsTruncated", "false").close("ListAllMyBucketsResult")))
}

async fn on_bucket(exchange: &mut Exchange, bucket: Arc<Bucket>) -> Result<Reply, Stop> {
    let call = &exchange.call;
    let reply = match call.method {
        Method::HEAD => Reply::empty(200),
        Method::GET if call.has("uploads") => multipart::list_uploads(call, &bucket)?,
        Method::GET if call.has("versioning") => xml(Writer::default().leaf("VersioningConfiguration", "")),
        Method::GET if call.has("location") => xml(Writer::default().leaf("LocationConstraint", REGION)),
        Method::GET => listing::list(call, &bucket)?,
        Method::POST if call.has("delete") => object::delete_many(exchange, bucket).await?,
        _ => return Err(not_allowed()),
    };
    Ok(reply.with("x-cos-bucket-region", REGION))
}

async fn on_object(exchange: &mut Exchange, bucket: Arc<Bucket>, key: String) -> Result<Reply, Stop> {
    headers::check_key(&key)?;
    let call = &exchange.call;
    if !matches!(call.param("versionId"), None | Some("" | "null")) {
        return Err(Refusal::new(404, "NoSuchVersion", "the bucket has no versions").into());
    }
    let upload = call.param("uploadId").map(str::to_owned);
    let copies = call.headers.contains_key("x-cos-copy-source");
    match (&call.method, upload) {
        (&Method::POST, None) if call.has("uploads") => multipart::initiate(exchange, bucket, key).await,
        (&Method::POST, Some(id)) => multipart::complete(exchange, bucket, key, id).await,
        (&Method::PUT, Some(id)) if copies => copy::copy_part(exchange, bucket, key, id).await,
        (&Method::PUT, Some(id)) => multipart::put_part(exchange, bucket, key, id).await,
        (&Method::GET, Some(id)) => multipart::list_parts(call, &bucket, &key, &id),
        (&Method::DELETE, Some(id)) => multipart::abort(exchange, bucket, key, id).await,
        (&Method::PUT, None) if call.has("partNumber") => Err(headers::invalid("partNumber without uploadId").into()),
        (&Method::PUT, None) if copies => copy::copy(exchange, bucket, key).await,
        (&Method::PUT, None) => object::put(exchange, bucket, key).await,
        (&Method::GET, None) if call.has("tagging") => object::tagging(&bucket, &key),
        (&Method::GET | &Method::HEAD, None) => object::get(exchange, &bucket, &key),
        (&Method::DELETE, None) => object::delete(exchange, bucket, key).await,
        _ => Err(not_allowed()),
    }
}

fn not_allowed() -> Stop {
    Refusal::new(405, "MethodNotAllowed", "The specified method is not allowed against this resource.").into()
}

fn no_such_key() -> Refusal {
    Refusal::new(404, "NoSuchKey", "The specified key does not exist.")
}

fn no_such_upload() -> Refusal {
    let message = "The specified multipart upload does not exist.";
    Refusal::new(404, "NoSuchUpload", message)
}

fn xml(document: Writer) -> Reply {
    Reply::text(200, "application/xml", document.document())
}

impl From<PutError> for Stop {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Exists => {
                Refusal::new(409, "FileAlreadyExists", "The key exists and may not be overwritten.").into()
            }
            PutError::Failed(error) => error.into(),
        }
    }
}

/// A result that comes late: the headers of the 200 go at once, the element when it is there.
fn late(element: Writer, pause: Duration) -> Reply {
    let (lead, text) = match pause.is_zero() {
        // The vendor's own Python client takes white space before the root element only.
        true => (Bytes::from_static(xml::DECLARATION.as_bytes()), element.element()),
        false => (Bytes::new(), element.document()),
    };
    let content = Content::Drip { lead, pause, text: text.into() };
    Reply { status: 200, headers: Vec::new(), content }.with("Content-Type", "application/xml")
}

fn error_element(refusal: &Refusal, resource: &str) -> Writer {
    let out = Writer::default().open("Error").leaf("Code", &refusal.code).leaf("Message", &refusal.message);
    let out = out.leaf("Resource", resource).leaf("RequestId", request_id());
    out.leaf("TraceId", request_id()).close("Error")
}

/// A 200 whose body is an error, as copies and Complete may bring it.
pub(super) fn late_refusal(refusal: Refusal) -> Reply {
    late(error_element(&refusal, ""), Duration::ZERO)
}

/// A refusal in the terms of this dialect.
pub(super) fn refusal(refusal: Refusal, host: &str, path: &str, is_head: bool) -> Reply {
    let reply = match is_head || refusal.status == 304 {
        true => Reply::empty(refusal.status),
        false => {
            let text = error_element(&refusal, &format!("{host}{path}")).document();
            Reply::text(refusal.status, "application/xml", text)
        }
    };
    let reply = match refusal.retry_after {
        Some(seconds) => reply.with("Retry-After", seconds.to_string()),
        None => reply,
    };
    reply.with("x-cos-trace-id", request_id())
}

/// What every answer of this dialect carries.
pub(super) fn common(reply: Reply) -> Reply {
    reply.with("Server", "tencent-cos").with("x-cos-request-id", request_id())
}
