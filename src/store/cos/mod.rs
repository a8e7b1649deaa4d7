//! Tencent COS: its XML API over the shared engine of the room above.
//!
//! # Invariants
//! 1. Every request is signed over method, decoded path, all parameters, Host, Content-* and every
//!    `x-cos-*` header; a repeat is signed again.
//! 2. Copy, part copy and Complete succeed only if the body says so (it can be an error after 200).
//! 3. PUT, copy, Complete and Initiate are repeated only if certainly not applied.
//! 4. What COS would silently spoil (metadata names, values that are not ASCII, keys it does not
//!    allow) is refused or encoded before it is sent.

mod checks;
mod client;
mod fault;
mod lists;
mod meta;
mod multipart;
mod objects;
mod options;
mod sign;
mod terms;

pub use options::{Addressing, CosOptions};

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{
    Capabilities, CopyOptions, CopySource, DeleteFailure, GetOptions, GetResult, HeadOptions, ListOptions, ListPage,
    ObjectMeta, ObjectStore, Part, PartsPage, PutOptions, PutResult, Result, UploadsPage,
};
use crate::types::{Key, TimeNs};
use client::CosClient;

/// A COS bucket. Connects to nothing yet.
///
/// # Errors
/// [`ErrorKind::Rejected`](super::ErrorKind::Rejected) naming the setting that is wrong.
pub fn cos(options: CosOptions) -> Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(Cos { client: CosClient::new(options)?, capabilities: capabilities() }))
}

/// What COS allows (PROTOCOL section 5).
fn capabilities() -> Capabilities {
    Capabilities {
        provider: "cos",
        min_part_bytes: 1 << 20,
        // "5 GB", not said which: the smaller reading.
        max_part_bytes: 5_000_000_000,
        max_parts: 10_000,
        consecutive_parts: true,
        max_key_bytes: checks::MAX_KEY_BYTES,
        max_metadata_bytes: meta::MAX_METADATA_BYTES,
        max_delete_keys: 1_000,
        crc64: true,
    }
}

/// The handle; each method's work lies in `objects`, `lists` and `multipart`.
struct Cos {
    client: CosClient,
    capabilities: Capabilities,
}

impl fmt::Debug for Cos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cos").field(&self.client.name()).finish()
    }
}

impl ObjectStore for Cos {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn name(&self) -> &str {
        self.client.name()
    }

    fn may_arrive_late(&self, key: &Key) -> bool {
        self.client.may_arrive_late(key)
    }

    fn time(&self, local: TimeNs) -> TimeNs {
        self.client.time(local)
    }

    fn head_bucket(&self) -> BoxFuture<'_, Result<()>> {
        lists::head_bucket(&self.client).boxed()
    }

    fn list(&self, options: ListOptions) -> BoxFuture<'_, Result<ListPage>> {
        lists::list(&self.client, options).boxed()
    }

    fn head<'a>(&'a self, key: &'a Key, options: HeadOptions) -> BoxFuture<'a, Result<ObjectMeta>> {
        objects::head(&self.client, key, options).boxed()
    }

    fn tags<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<BTreeMap<String, String>>> {
        terms::tags(&self.client, key).boxed()
    }

    fn get<'a>(&'a self, key: &'a Key, options: GetOptions) -> BoxFuture<'a, Result<GetResult>> {
        objects::get(&self.client, key, options).boxed()
    }

    fn put<'a>(&'a self, key: &'a Key, body: Bytes, options: PutOptions) -> BoxFuture<'a, Result<PutResult>> {
        objects::put(&self.client, &self.capabilities, key, body, options).boxed()
    }

    fn copy<'a>(&'a self, source: CopySource, key: &'a Key, options: CopyOptions) -> BoxFuture<'a, Result<PutResult>> {
        objects::copy(&self.client, source, key, options).boxed()
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        objects::delete(&self.client, key).boxed()
    }

    fn delete_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<DeleteFailure>>> {
        objects::delete_many(&self.client, &self.capabilities, keys).boxed()
    }

    fn create_multipart<'a>(&'a self, key: &'a Key, options: PutOptions) -> BoxFuture<'a, Result<String>> {
        multipart::create(&self.client, key, options).boxed()
    }

    fn put_part<'a>(
        &'a self,
        key: &'a Key,
        upload_id: &'a str,
        number: u32,
        body: Bytes,
        content_md5: [u8; 16],
    ) -> BoxFuture<'a, Result<Part>> {
        let to = multipart::Target { key, upload_id, number };
        multipart::put_part(&self.client, &self.capabilities, to, body, content_md5).boxed()
    }

    fn copy_part<'a>(
        &'a self,
        key: &'a Key,
        upload_id: &'a str,
        number: u32,
        source: CopySource,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Part>> {
        let to = multipart::Target { key, upload_id, number };
        multipart::copy_part(&self.client, &self.capabilities, to, source, range).boxed()
    }

    fn list_parts<'a>(
        &'a self,
        key: &'a Key,
        upload_id: &'a str,
        marker: Option<u32>,
    ) -> BoxFuture<'a, Result<PartsPage>> {
        multipart::list_parts(&self.client, key, upload_id, marker).boxed()
    }

    fn complete_multipart<'a>(
        &'a self,
        key: &'a Key,
        upload_id: &'a str,
        parts: &'a [Part],
        forbid_overwrite: bool,
    ) -> BoxFuture<'a, Result<PutResult>> {
        multipart::complete(&self.client, &self.capabilities, key, upload_id, parts, forbid_overwrite).boxed()
    }

    fn abort_multipart<'a>(&'a self, key: &'a Key, upload_id: &'a str) -> BoxFuture<'a, Result<()>> {
        multipart::abort(&self.client, key, upload_id).boxed()
    }

    fn list_uploads<'a>(
        &'a self,
        prefix: &'a str,
        marker: Option<(String, String)>,
    ) -> BoxFuture<'a, Result<UploadsPage>> {
        lists::list_uploads(&self.client, prefix, marker).boxed()
    }
}
