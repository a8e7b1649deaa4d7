//! What the outbox is put into: a scripted OMS, buckets in memory, a journal in a temporary
//! directory, a clock whose boot time a test can push.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferryfs::clock::{Clock, SystemClock};
use ferryfs::journal::{Durability, Journal, Snapshot, TargetKind};
use ferryfs::oms::{Announcer, Failure, Outcome, TransientKind};
use ferryfs::outbox::{Options, Outbox, Target};
use ferryfs::store::{
    Capabilities, CopyOptions, CopySource, DeleteFailure, Error, ErrorKind, GetOptions, GetResult, HeadOptions,
    ListOptions, ListPage, ObjectHeaders, ObjectMeta, ObjectStore, Part, PartsPage, PutOptions, PutResult, Result,
    UploadsPage,
};
use ferryfs::task::Shutdown;
use ferryfs::types::{ETag, Key, TargetId, TimeNs};
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longer than anything here takes; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const TASK: &str = "31e9b7e6";

type Script = Box<dyn FnMut(&[String]) -> Outcome + Send>;

/// OMS as a test wants it.
pub struct Oms {
    script: Mutex<Script>,
    /// Every request: when, and its keys.
    calls: Mutex<Vec<(Instant, Vec<String>)>>,
    /// Requests under way now, and the most ever.
    under_way: Mutex<(usize, usize)>,
    held: watch::Sender<bool>,
}

impl Oms {
    pub fn new(script: impl FnMut(&[String]) -> Outcome + Send + 'static) -> Arc<Oms> {
        Arc::new(Oms {
            script: Mutex::new(Box::new(script)),
            calls: Mutex::default(),
            under_way: Mutex::default(),
            held: watch::Sender::new(false),
        })
    }

    pub fn accepting() -> Arc<Oms> {
        Oms::new(|_| Outcome::Accepted)
    }

    pub fn set(&self, script: impl FnMut(&[String]) -> Outcome + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Requests made from now on wait until they are let go.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    pub fn calls(&self) -> Vec<Vec<String>> {
        self.calls.lock().unwrap().iter().map(|(_, keys)| keys.clone()).collect()
    }

    pub fn times(&self) -> Vec<Instant> {
        self.calls.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    pub fn most_under_way(&self) -> usize {
        self.under_way.lock().unwrap().1
    }

    pub fn times_told(&self, key: &str) -> usize {
        self.calls().iter().flatten().filter(|told| *told == key).count()
    }
}

impl Announcer for Oms {
    fn announce<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Outcome> {
        let keys: Vec<String> = keys.iter().map(|key| key.0.clone()).collect();
        Box::pin(async move {
            self.calls.lock().unwrap().push((Instant::now(), keys.clone()));
            {
                let mut under_way = self.under_way.lock().unwrap();
                under_way.0 += 1;
                under_way.1 = under_way.1.max(under_way.0);
            }
            self.held.subscribe().wait_for(|held| !held).await.unwrap();
            self.under_way.lock().unwrap().0 -= 1;
            (self.script.lock().unwrap())(&keys)
        })
    }

    fn identity(&self) -> &str {
        "https://oms.example.com/v2/p/sync-tasks/31e9b7e6/events"
    }
}

pub fn failure(status: u16) -> Failure {
    Failure { status: Some(status), ..Failure::default() }
}

pub fn unavailable() -> Outcome {
    Outcome::Transient { kind: TransientKind::Server, failure: failure(503), retry_after: None }
}

pub fn unreachable() -> Outcome {
    Outcome::Transient { kind: TransientKind::Network, failure: Failure::default(), retry_after: None }
}

/// A bucket in memory: what the outbox needs of one.
#[derive(Debug)]
pub struct Bucket {
    capabilities: Capabilities,
    objects: Mutex<BTreeMap<String, (Bytes, TimeNs)>>,
    /// `PUT key` and `DELETE key`, as they were applied.
    log: Mutex<Vec<String>>,
    refuses: Mutex<Option<ErrorKind>>,
    refused: AtomicU64,
    page: u32,
}

impl Bucket {
    pub fn new() -> Arc<Bucket> {
        Bucket::with_page(1000)
    }

    pub fn with_page(page: u32) -> Arc<Bucket> {
        Arc::new(Bucket {
            capabilities: Capabilities {
                provider: "cos",
                min_part_bytes: 1 << 20,
                max_part_bytes: 5 << 30,
                max_parts: 10_000,
                consecutive_parts: true,
                max_key_bytes: 850,
                max_metadata_bytes: 2048,
                max_delete_keys: 1000,
                crc64: true,
            },
            objects: Mutex::default(),
            log: Mutex::default(),
            refuses: Mutex::default(),
            refused: AtomicU64::new(0),
            page,
        })
    }

    pub fn refuse(&self, kind: Option<ErrorKind>) {
        *self.refuses.lock().unwrap() = kind;
    }

    /// Writes refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    pub fn keys(&self) -> BTreeSet<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    pub fn body(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().unwrap().get(key).map(|(body, _)| body.clone())
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Puts an object with a time of the test's choice.
    pub fn plant(&self, key: &str, seconds: i64) {
        self.objects.lock().unwrap().insert(key.to_owned(), (Bytes::new(), TimeNs::new(seconds, 0)));
    }

    fn change<T>(&self, what: String, apply: impl FnOnce(&mut BTreeMap<String, (Bytes, TimeNs)>) -> T) -> Result<T> {
        if let Some(kind) = *self.refuses.lock().unwrap() {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(error(kind, what));
        }
        self.log.lock().unwrap().push(what);
        Ok(apply(&mut self.objects.lock().unwrap()))
    }
}

fn error(kind: ErrorKind, what: String) -> Error {
    Error {
        kind,
        outcome: ferryfs::store::Outcome::NotApplied,
        what,
        status: Some(403),
        code: Some("AccessDenied".to_owned()),
        message: None,
        request_id: None,
        attempts: 1,
        retry_after_s: None,
        source: None,
    }
}

fn unsupported<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    Box::pin(async { Err(error(ErrorKind::Rejected, "the outbox does not do this".to_owned())) })
}

fn meta(key: &str, body: &Bytes, time: TimeNs) -> ObjectMeta {
    ObjectMeta {
        key: Key::from(key),
        size: body.len() as u64,
        etag: ETag("e".to_owned()),
        last_modified: Some(time),
        crc64: None,
        version_id: None,
        storage_class: None,
        encryption: None,
        tag_count: 0,
        headers: ObjectHeaders::default(),
    }
}

impl ObjectStore for Bucket {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn name(&self) -> &str {
        "cos://logs-1250000000"
    }

    fn head_bucket(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn list(&self, options: ListOptions) -> BoxFuture<'_, Result<ListPage>> {
        Box::pin(async move {
            let objects = self.objects.lock().unwrap();
            let after = options.marker.clone().unwrap_or_default();
            let mut rest = objects.iter().filter(|(key, _)| key.starts_with(&options.prefix) && **key > after);
            let page: Vec<ObjectMeta> =
                rest.by_ref().take(self.page as usize).map(|(key, (body, time))| meta(key, body, *time)).collect();
            let more = rest.next().is_some();
            let next_marker = page.last().filter(|_| more).map(|last| last.key.0.clone());
            Ok(ListPage { objects: page, prefixes: Vec::new(), next_marker })
        })
    }

    fn head<'a>(&'a self, key: &'a Key, _: HeadOptions) -> BoxFuture<'a, Result<ObjectMeta>> {
        Box::pin(async move {
            let objects = self.objects.lock().unwrap();
            let (body, time) = objects.get(&key.0).ok_or_else(|| error(ErrorKind::NotFound, format!("HEAD {key}")))?;
            Ok(meta(&key.0, body, *time))
        })
    }

    fn get<'a>(&'a self, _: &'a Key, _: GetOptions) -> BoxFuture<'a, Result<GetResult>> {
        unsupported()
    }

    fn put<'a>(&'a self, key: &'a Key, body: Bytes, options: PutOptions) -> BoxFuture<'a, Result<PutResult>> {
        Box::pin(async move {
            assert_eq!(options.content_md5, Some(ferryfs::checksum::md5(&body)), "every upload is verified");
            self.change(format!("PUT {key}"), |objects| {
                objects.insert(key.0.clone(), (body, SystemClock.now()));
                PutResult { etag: ETag("e".to_owned()), crc64: None, version_id: None }
            })
        })
    }

    fn copy<'a>(&'a self, _: CopySource, _: &'a Key, _: CopyOptions) -> BoxFuture<'a, Result<PutResult>> {
        unsupported()
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.change(format!("DELETE {key}"), |objects| {
                objects.remove(&key.0);
            })
        })
    }

    fn delete_many<'a>(&'a self, _: &'a [Key]) -> BoxFuture<'a, Result<Vec<DeleteFailure>>> {
        unsupported()
    }

    fn create_multipart<'a>(&'a self, _: &'a Key, _: PutOptions) -> BoxFuture<'a, Result<String>> {
        unsupported()
    }

    fn put_part<'a>(&'a self, _: &'a Key, _: &'a str, _: u32, _: Bytes, _: [u8; 16]) -> BoxFuture<'a, Result<Part>> {
        unsupported()
    }

    fn copy_part<'a>(
        &'a self,
        _: &'a Key,
        _: &'a str,
        _: u32,
        _: CopySource,
        _: Range<u64>,
    ) -> BoxFuture<'a, Result<Part>> {
        unsupported()
    }

    fn list_parts<'a>(&'a self, _: &'a Key, _: &'a str, _: Option<u32>) -> BoxFuture<'a, Result<PartsPage>> {
        unsupported()
    }

    fn complete_multipart<'a>(
        &'a self,
        _: &'a Key,
        _: &'a str,
        _: &'a [Part],
        _: bool,
    ) -> BoxFuture<'a, Result<PutResult>> {
        unsupported()
    }

    fn abort_multipart<'a>(&'a self, _: &'a Key, _: &'a str) -> BoxFuture<'a, Result<()>> {
        unsupported()
    }

    fn list_uploads<'a>(&'a self, _: &'a str, _: Option<(String, String)>) -> BoxFuture<'a, Result<UploadsPage>> {
        unsupported()
    }
}

/// The machine's clock, with a boot time that a test pushes forward.
#[derive(Debug, Default)]
pub struct PushedClock {
    pushed_s: AtomicU64,
}

impl PushedClock {
    pub fn push_hours(&self, hours: u64) {
        self.pushed_s.fetch_add(hours * 3600, Ordering::SeqCst);
    }
}

impl Clock for PushedClock {
    fn now(&self) -> TimeNs {
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    fn boottime(&self) -> Duration {
        SystemClock.boottime() + Duration::from_secs(self.pushed_s.load(Ordering::SeqCst))
    }
}

/// Waits that suit a test.
pub fn options() -> Options {
    Options {
        requests_per_second: 10_000,
        first_backoff: Duration::from_millis(2),
        max_backoff: Duration::from_millis(20),
        first_probe: Duration::from_millis(2),
        max_probe: Duration::from_millis(20),
        shutdown_grace: Duration::from_secs(5),
        ..Options::default()
    }
}

/// A mount's directory, and what lives in it from one start to the next.
pub struct World {
    dir: TempDir,
    pub oms: Arc<Oms>,
    pub log: Arc<Bucket>,
    pub clock: Arc<PushedClock>,
    pub options: Options,
}

/// One start of the daemon.
pub struct Start {
    pub journal: Journal,
    pub outbox: Outbox,
    pub sync: TargetId,
    shutdown: Shutdown,
    running: Option<JoinHandle<ferryfs::outbox::Result<()>>>,
}

impl World {
    pub fn new(oms: Arc<Oms>) -> World {
        World { dir: TempDir::new().unwrap(), oms, log: Bucket::new(), clock: Arc::default(), options: options() }
    }

    pub fn targets(&self, journal: &Journal) -> (TargetId, TargetId) {
        let sync = journal.target(TargetKind::Sync, self.oms.identity()).unwrap();
        (sync, journal.target(TargetKind::Record, self.log.name()).unwrap())
    }

    pub fn journal(&self) -> Journal {
        Journal::open(self.dir.path()).unwrap()
    }

    pub fn snapshot(&self) -> Snapshot {
        let journal = self.journal();
        let snapshot = journal.load().unwrap();
        journal.close().unwrap();
        snapshot
    }

    /// Opens journal and outbox; nothing is sent yet.
    pub fn start_idle(&self) -> Start {
        let journal = self.journal();
        let (sync, record) = self.targets(&journal);
        let target = Target {
            sync,
            record: Some(record),
            announcer: self.oms.clone(),
            record_store: Some(self.log.clone()),
            record_prefix: String::new(),
            task: TASK.to_owned(),
        };
        let rows = journal.load().unwrap();
        let outbox = Outbox::open(
            journal.clone(),
            self.clock.clone(),
            self.options.clone(),
            vec![target],
            (&rows.announcements, &rows.records),
        )
        .unwrap();
        Start { journal, outbox, sync, shutdown: Shutdown::new(), running: None }
    }

    /// As [`World::start_idle`], and begins to send.
    pub fn start(&self) -> Start {
        let mut start = self.start_idle();
        start.run();
        start
    }
}

impl Start {
    pub fn run(&mut self) {
        let (outbox, shutdown) = (self.outbox.clone(), self.shutdown.clone());
        self.running = Some(tokio::spawn(async move { outbox.run(async move { shutdown.triggered().await }).await }));
    }

    /// Owes a key as an uploader does: its rows in a batch on disk, then the ticket.
    pub async fn owe(&self, key: &str) {
        let (ticket, ops) = self.outbox.owe(self.sync, &Key::from(key)).unwrap();
        self.journal.submit(ops, Durability::Disk).await.unwrap();
        self.outbox.committed(ticket);
    }

    /// Waits until the outbox says what the test waits for.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&Outbox) -> bool) {
        let mut changes = self.outbox.subscribe();
        let wait = async {
            while !is_so(&self.outbox) {
                changes.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("never {what}: {:#?}", self.outbox.status());
        }
    }

    pub async fn until_nothing_is_left(&self) {
        self.until("all announced and recorded", |outbox| outbox.left(None, "").is_nothing()).await;
    }

    /// Ends as SIGTERM ends it.
    pub async fn stop(mut self) {
        self.shutdown.trigger();
        if let Some(running) = self.running.take() {
            tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
        }
        self.journal.close().unwrap();
    }

    /// Ends wherever it stands: what is under way is dropped, and so is all memory.
    pub async fn kill(mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
        }
        self.journal.close().unwrap();
    }
}

/// Waits for something that the outbox does not tell of.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never {what}");
}

pub fn success(key: &str) -> String {
    format!("oms_source_record/{TASK}/success_object/{key}")
}

pub fn failed(key: &str) -> String {
    format!("oms_source_record/{TASK}/failed_object/{key}")
}
