//! Every request in order, every object version stored, every key announced, every announcement as sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::wire::Call;

/// Entries of each kind that are kept: some 100 MB at worst. Older ones are forgotten.
const MOST_ENTRIES: usize = 200_000;
/// OMS requests of which everything is kept: some 2 KB each with ten keys of usual length.
const MOST_OMS_REQUESTS: usize = 20_000;

/// One request. `status` is 0 while it is unanswered and if the connection was cut instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestRecord {
    /// From 1, in order of arrival.
    pub seq: u64,
    /// Of arrival, nanoseconds since the epoch.
    pub time_ns: i64,
    /// `GET`, `PUT`...
    pub method: String,
    /// Empty for the service and OMS.
    pub bucket: String,
    /// Decoded; empty unless an object is meant.
    pub key: String,
    /// As sent.
    pub query: String,
    /// What faults can match: `uploads`, `uploadId`, `partNumber`, `delete`, `list`, `copy`,
    /// `object`, `bucket`, `service`, `oms`.
    pub sub_resource: Vec<String>,
    /// HTTP status; 0 if there was no answer.
    pub status: u16,
    /// Bytes of the body received.
    pub request_bytes: u64,
    /// Bytes of the body sent.
    pub response_bytes: u64,
    /// The action of the fault that this request met, if one.
    pub fault: Option<String>,
    /// Decoded keys of an OMS request whose body could be read.
    pub oms_keys: Vec<String>,
}

/// One object version that a request stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreRecord {
    /// Of the request.
    pub request: u64,
    /// When, nanoseconds since the epoch.
    pub time_ns: i64,
    /// `put`, `copy` or `complete`.
    pub how: String,
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Without quotes.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// CRC-64/XZ.
    pub crc64: u64,
}

/// One key of an accepted OMS request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OmsEvent {
    /// Decoded form-style.
    pub key: String,
    /// As sent.
    pub raw: String,
    /// When, nanoseconds since the epoch.
    pub time_ns: i64,
    /// `seq` of the request.
    pub request: u64,
    /// Of the URL.
    pub project: String,
    /// Of the URL.
    pub task: String,
}

/// One OMS request as it arrived, whatever came of it: for others to check its signature and body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OmsRequest {
    /// `seq` of the request.
    pub request: u64,
    /// `POST`...
    pub method: String,
    /// `http://host/path[?query]`, path and query as sent.
    pub url: String,
    /// (lower-case name, value) in order of arrival, with `Authorization`.
    pub headers: Vec<(String, String)>,
    /// As sent; bytes that are not UTF-8 are replaced.
    pub body: String,
}

/// A request being answered; counts itself.
#[derive(Debug)]
pub(super) struct Entry {
    seq: u64,
    time_ns: i64,
    method: String,
    bucket: String,
    key: String,
    query: String,
    sub_resource: Vec<&'static str>,
    status: AtomicU16,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    fault: OnceLock<String>,
    oms_keys: OnceLock<Vec<String>>,
}

impl Entry {
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.request_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.response_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(super) fn met(&self, fault: String) {
        self.fault.get_or_init(|| fault);
    }

    pub(super) fn announced(&self, keys: Vec<String>) {
        self.oms_keys.get_or_init(|| keys);
    }

    fn record(&self) -> RequestRecord {
        RequestRecord {
            seq: self.seq,
            time_ns: self.time_ns,
            method: self.method.clone(),
            bucket: self.bucket.clone(),
            key: self.key.clone(),
            query: self.query.clone(),
            sub_resource: self.sub_resource.iter().map(|name| (*name).to_owned()).collect(),
            status: self.status.load(Ordering::SeqCst),
            request_bytes: self.request_bytes.load(Ordering::SeqCst),
            response_bytes: self.response_bytes.load(Ordering::SeqCst),
            fault: self.fault.get().cloned(),
            oms_keys: self.oms_keys.get().cloned().unwrap_or_default(),
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Short sections only; taken with no other lock held.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_seq: u64,
    requests: VecDeque<Arc<Entry>>,
    stores: VecDeque<StoreRecord>,
    oms: VecDeque<OmsEvent>,
    oms_requests: VecDeque<OmsRequest>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("invariant: nothing panics while it holds this lock")
    }

    pub(super) fn begin(&self, call: &Call, time_ns: i64) -> Arc<Entry> {
        let mut inner = self.lock();
        inner.last_seq += 1;
        let entry = Arc::new(Entry {
            seq: inner.last_seq,
            time_ns,
            method: call.method.to_string(),
            bucket: call.bucket().to_owned(),
            key: call.key().to_owned(),
            query: call.raw_query.clone(),
            sub_resource: call.sub_resources(),
            status: AtomicU16::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            fault: OnceLock::new(),
            oms_keys: OnceLock::new(),
        });
        push(&mut inner.requests, entry.clone(), MOST_ENTRIES);
        entry
    }

    pub(super) fn stored(&self, record: StoreRecord) {
        push(&mut self.lock().stores, record, MOST_ENTRIES);
    }

    pub(super) fn oms(&self, events: Vec<OmsEvent>) {
        let mut inner = self.lock();
        for event in events {
            push(&mut inner.oms, event, MOST_ENTRIES);
        }
    }

    pub(super) fn oms_request(&self, request: OmsRequest) {
        push(&mut self.lock().oms_requests, request, MOST_OMS_REQUESTS);
    }

    pub(super) fn requests(&self) -> Vec<RequestRecord> {
        let entries: Vec<_> = self.lock().requests.iter().cloned().collect();
        entries.iter().map(|entry| entry.record()).collect()
    }

    pub(super) fn stores(&self) -> Vec<StoreRecord> {
        self.lock().stores.iter().cloned().collect()
    }

    pub(super) fn oms_events(&self) -> Vec<OmsEvent> {
        self.lock().oms.iter().cloned().collect()
    }

    pub(super) fn oms_requests(&self) -> Vec<OmsRequest> {
        self.lock().oms_requests.iter().cloned().collect()
    }

    /// Forgets what was logged; numbers go on.
    pub(super) fn clear(&self) {
        let mut inner = self.lock();
        inner.requests.clear();
        inner.stores.clear();
        inner.oms.clear();
        inner.oms_requests.clear();
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}
