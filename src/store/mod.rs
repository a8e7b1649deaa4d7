//! One client for object stores.
//!
//! # Contract
//! - [`ObjectStore`] is one bucket of one provider. Keys are whole object keys.
//! - A call retries by itself only what its idempotence allows, a bounded number of times, with
//!   jitter; what it returns is final for this call. [`Error::outcome`] tells whether a failed
//!   mutation may have been applied.
//! - Nothing is trusted: a body shorter or longer than announced is an error, a 200 whose body is
//!   an error is an error (copy, complete), a checksum the store returns is handed to the caller.
//! - Credentials appear in no message and no log line.
//! - [`Outcome::Unknown`] outlasts the attempt that it came from: if one attempt of a call may have
//!   been applied and a later one is refused, the call's error has the later one's kind and an
//!   unknown outcome.
//! - [`ObjectStore::may_arrive_late`] tells of attempts whose reply was lost, since a repeat that
//!   succeeded hides them.
//! - Delete of one key, part uploads and abort are repeated after an unknown outcome, since twice is as
//!   good as once; PUT, copy, initiate, complete and delete of many keys only if certainly not applied:
//!   settle them by looking.
//!
//! # Invariants
//! 1. Dot segments, `//`, and every byte of a key reach the wire as written.
//! 2. Status and provider code become an [`ErrorKind`] in one function.
//! 3. Bodies and lists are bounded: a list call returns one page.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::types::{Crc64, ETag, Key, TimeNs};

pub use cos::{Addressing, CosOptions, cos};
pub use credentials::{Credentials, CredentialsSource};
pub use error::{Error, ErrorKind, Outcome, Result};
pub use probe::check;
pub use retry::RetryOptions;
pub use terms::{Encryption, Terms};

mod backoff;
mod cos;
mod credentials;
mod error;
mod late;
mod probe;
mod retry;
mod skew;
mod terms;
mod xml;

/// What a provider allows (PROTOCOL section 5).
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// `cos`, `oss` or `s3`.
    pub provider: &'static str,
    /// Smallest part but the last, bytes.
    pub min_part_bytes: u64,
    /// Largest part, and largest single PUT and single copy, bytes.
    pub max_part_bytes: u64,
    /// Largest number of parts.
    pub max_parts: u32,
    /// Part numbers must run from 1 without gaps.
    pub consecutive_parts: bool,
    /// Longest key, bytes of UTF-8.
    pub max_key_bytes: usize,
    /// User metadata in all (names and values), bytes.
    pub max_metadata_bytes: usize,
    /// Keys in one delete call.
    pub max_delete_keys: usize,
    /// The store reports CRC-64/XZ of objects and parts.
    pub crc64: bool,
}

/// Headers of an object that travel with its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectHeaders {
    /// Content-Type.
    pub content_type: Option<String>,
    /// Cache-Control, Content-Disposition, Content-Encoding, Content-Language, Expires by
    /// lower-case name.
    pub standard: BTreeMap<String, String>,
    /// User metadata by lower-case name without the provider's prefix (`md5`, `mode`, `ferry`).
    pub metadata: BTreeMap<String, String>,
}

/// One version of an object, as HEAD, GET or LIST tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: Key,
    /// Bytes.
    pub size: u64,
    /// Opaque.
    pub etag: ETag,
    /// The store's time.
    pub last_modified: Option<TimeNs>,
    /// Of the whole object; absent on old objects and in listings.
    pub crc64: Option<Crc64>,
    /// On versioned buckets.
    pub version_id: Option<String>,
    /// `None` is the provider's standard class.
    pub storage_class: Option<String>,
    /// Not known from listings; `None` also where the bucket's own setting decides unseen.
    pub encryption: Option<Encryption>,
    /// Number of tags; not known from listings (0).
    pub tag_count: u32,
    /// Not known from listings (`Default`).
    pub headers: ObjectHeaders,
}

/// Arguments of [`ObjectStore::list`].
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Keys that begin with this.
    pub prefix: String,
    /// `Some('/')` groups what lies deeper into common prefixes.
    pub delimiter: Option<char>,
    /// Continue after this key or common prefix (exclusive).
    pub marker: Option<String>,
    /// At most this many keys and prefixes (0: the provider's maximum, 1000).
    pub max_keys: u32,
}

/// One page of a listing, in byte order.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects; headers and CRC are not known.
    pub objects: Vec<ObjectMeta>,
    /// Common prefixes, each with its trailing delimiter.
    pub prefixes: Vec<String>,
    /// Pass as `marker` for the next page; `None` at the end.
    pub next_marker: Option<String>,
}

/// Arguments of [`ObjectStore::head`].
#[derive(Clone, Debug, Default)]
pub struct HeadOptions {
    /// This version; `None` the current one.
    pub version_id: Option<String>,
}

/// Arguments of [`ObjectStore::get`].
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// Bytes wanted, end exclusive; `None` the whole object.
    pub range: Option<Range<u64>>,
    /// Fail with [`ErrorKind::Precondition`] unless the object is this one.
    pub if_match: Option<ETag>,
    /// This version; `None` the current one.
    pub version_id: Option<String>,
}

/// An object being received.
pub struct GetResult {
    /// Of the object, not of the range; `meta.crc64` is the whole object's.
    pub meta: ObjectMeta,
    /// The bytes that the body will hold, end exclusive.
    pub range: Range<u64>,
    /// Ends with an error if it would be shorter or longer than `range`.
    pub body: BoxStream<'static, Result<Bytes>>,
}

/// Arguments of [`ObjectStore::put`] and [`ObjectStore::create_multipart`].
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Headers stored with the object.
    pub headers: ObjectHeaders,
    /// Content-MD5 of the body (single PUT only); computed by the caller, who also keeps it.
    pub content_md5: Option<[u8; 16]>,
    /// Fail with [`ErrorKind::AlreadyExists`] if the key exists (not honoured on versioned COS).
    pub forbid_overwrite: bool,
    /// Storage class; `None` the bucket's standard.
    pub storage_class: Option<String>,
    /// ACL, encryption, tags.
    pub terms: Terms,
}

/// What a store says of an object that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutResult {
    /// The new ETag.
    pub etag: ETag,
    /// As the store computed it; `None` if it does not tell.
    pub crc64: Option<Crc64>,
    /// On versioned buckets.
    pub version_id: Option<String>,
}

/// Where a server-side copy reads; the bucket is the same.
#[derive(Clone, Debug)]
pub struct CopySource {
    /// Key.
    pub key: Key,
    /// Fail with [`ErrorKind::Precondition`] unless the source is this one.
    pub if_match: Option<ETag>,
    /// This version.
    pub version_id: Option<String>,
}

/// Arguments of [`ObjectStore::copy`].
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// `Some` replaces all headers and metadata (directive Replaced); `None` keeps the source's.
    pub replace_headers: Option<ObjectHeaders>,
    /// As in [`PutOptions`].
    pub forbid_overwrite: bool,
    /// Storage class of the copy (COS does not keep the source's by itself).
    pub storage_class: Option<String>,
    /// ACL, encryption, tags of the copy (COS keeps the source's tags by itself, nothing else).
    pub terms: Terms,
}

/// A part that the store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// Of the part.
    pub etag: ETag,
    /// Bytes (0 where the store did not tell: part upload and copy replies).
    pub size: u64,
    /// Of the part, where the store tells.
    pub crc64: Option<Crc64>,
}

/// One page of [`ObjectStore::list_parts`].
#[derive(Clone, Debug, Default)]
pub struct PartsPage {
    /// In order of number.
    pub parts: Vec<Part>,
    /// Pass as `marker` for the next page; `None` at the end.
    pub next_marker: Option<u32>,
}

/// A multipart upload in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its key.
    pub key: Key,
    /// Its id.
    pub upload_id: String,
    /// When it was begun, the store's time.
    pub initiated: Option<TimeNs>,
}

/// One page of [`ObjectStore::list_uploads`].
#[derive(Clone, Debug, Default)]
pub struct UploadsPage {
    /// In order of key, then id.
    pub uploads: Vec<Upload>,
    /// Pass as `marker` for the next page (key marker, upload-id marker); `None` at the end.
    pub next_marker: Option<(String, String)>,
}

/// One key of a [`ObjectStore::delete_many`] call that the store refused to delete.
#[derive(Clone, Debug)]
pub struct DeleteFailure {
    /// The key.
    pub key: Key,
    /// The store's code.
    pub code: String,
    /// The store's message.
    pub message: String,
}

/// One bucket. See the module's contract.
pub trait ObjectStore: Send + Sync + Debug {
    /// What this provider allows.
    fn capabilities(&self) -> &Capabilities;

    /// `provider://bucket`, for messages.
    fn name(&self) -> &str;

    /// Whether a mutation of this key was attempted within the last 120 s whose outcome nobody knows,
    /// also within a call that was then repeated with success: it may still arrive and undo a later
    /// version, which must therefore be looked at again (R1). A store that never repeats has none
    /// that its callers do not know of.
    fn may_arrive_late(&self, _key: &Key) -> bool {
        false
    }

    /// The store's time at a moment of this machine's clock, as far as its replies have told it (whole
    /// seconds); the same time for a store that tells none.
    fn time(&self, local: TimeNs) -> TimeNs {
        local
    }

    /// HEAD of the bucket itself: proves key, bucket and region.
    fn head_bucket(&self) -> BoxFuture<'_, Result<()>>;

    /// One page of keys.
    fn list(&self, options: ListOptions) -> BoxFuture<'_, Result<ListPage>>;

    /// Metadata of an object.
    fn head<'a>(&'a self, key: &'a Key, options: HeadOptions) -> BoxFuture<'a, Result<ObjectMeta>>;

    /// The tags of an object ([`ObjectMeta::tag_count`] tells whether it has any). A store without tags
    /// has none.
    fn tags<'a>(&'a self, _key: &'a Key) -> BoxFuture<'a, Result<BTreeMap<String, String>>> {
        Box::pin(std::future::ready(Ok(BTreeMap::new())))
    }

    /// An object or a range of it. Retries until the headers are there; a body that breaks later
    /// is the caller's to continue.
    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> BoxFuture<'a, Result<GetResult>>;

    /// Stores a whole object.
    fn put<'a>(&'a self, key: &'a Key, body: Bytes, options: PutOptions) -> BoxFuture<'a, Result<PutResult>>;

    /// Copies on the server, up to `max_part_bytes`.
    fn copy<'a>(&'a self, source: CopySource, key: &'a Key, options: CopyOptions) -> BoxFuture<'a, Result<PutResult>>;

    /// Deletes; succeeds if the key is not there.
    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>>;

    /// Deletes at most `max_delete_keys` keys, whatever stands there; returns those that were refused. After
    /// an error any of them may be gone.
    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<DeleteFailure>>>;

    /// Begins a multipart upload; returns its id.
    fn create_multipart<'a>(&'a self, key: &'a Key, options: PutOptions) -> BoxFuture<'a, Result<String>>;

    /// Stores a part (sent again under the same number it replaces the earlier one).
    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload_id: &'a str,
        number: u32,
        body: Bytes,
        content_md5: [u8; 16],
    ) -> BoxFuture<'a, Result<Part>>;

    /// Copies a range of an object of this bucket into a part.
    fn copy_part<'a>(
        &'a self,
        key: &'a Key,
        upload_id: &'a str,
        number: u32,
        source: CopySource,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Part>>;

    /// The parts that the store holds.
    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload_id: &'a str,
        marker: Option<u32>,
    ) -> BoxFuture<'a, Result<PartsPage>>;

    /// Makes the object of its parts. A lost reply shows as [`Outcome::Unknown`], a repeat of an
    /// applied one as [`ErrorKind::NoSuchUpload`]: settle both by HEAD.
    fn complete_multipart<'a>(
        &'a self,
        key: &'a Key,
        upload_id: &'a str,
        parts: &'a [Part],
        forbid_overwrite: bool,
    ) -> BoxFuture<'a, Result<PutResult>>;

    /// Drops a multipart upload; succeeds if it is not there.
    fn abort_multipart<'a>(&'a self, key: &'a Key, upload_id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Multipart uploads in progress under a prefix.
    fn list_uploads<'a>(
        &'a self,
        prefix: &'a str,
        marker: Option<(String, String)>,
    ) -> BoxFuture<'a, Result<UploadsPage>>;
}
