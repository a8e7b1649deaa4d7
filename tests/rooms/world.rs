//! The rooms of a mount over the emulator, without a kernel: what it would ask is called directly,
//! so that the order of calls and steps is the test's.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferryfs::cache::Cache;
use ferryfs::clock::{Clock, ManualClock, SystemClock};
use ferryfs::disk;
use ferryfs::download::Downloader;
use ferryfs::emulator::{Action, Emulator, Fault, Match};
use ferryfs::http::Client;
use ferryfs::journal::{Journal, TargetKind};
use ferryfs::namespace::{Conflict, Defaults, Mapping, Namespace};
use ferryfs::oms::{Announcer, SyncTask, SyncUrl};
use ferryfs::outbox::{Outbox, Target};
use ferryfs::store::{Addressing, CosOptions, Credentials, ObjectStore, RetryOptions, Terms, cos};
use ferryfs::task::{Guardian, Shutdown};
use ferryfs::types::Ino;
use ferryfs::upload::Uploader;
use ferryfs::vfs::{Caller, ClosePolicy, FsyncPolicy, KilledWriter, Parts, Vfs};
use secrecy::SecretString;

pub const BUCKET: &str = "examplebucket-1250000000";
pub const LOGS: &str = "logs-1250000000";
pub const PREFIX: &str = "data/";
pub const ROOT: Ino = Ino::ROOT;
pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 0 };
const PATIENCE: Duration = Duration::from_secs(20);

/// How a world behaves.
#[derive(Clone)]
pub struct Options {
    pub delay: Duration,
    pub attr_ttl: Duration,
    pub whole_below: u64,
    pub multipart_above: u64,
    pub latency: Duration,
    pub late: Duration,
    /// Larger objects are copied in parts of 1 MiB.
    pub copy_in_one: u64,
    /// Of what is written.
    pub terms: Terms,
    pub move_quiet: Duration,
    pub conflict: Conflict,
    pub fsync: FsyncPolicy,
    /// Everything is announced, and recorded in [`LOGS`].
    pub sync: bool,
    /// `cache.size`
    pub limit: u64,
    /// Of the store's client.
    pub retry: RetryOptions,
    pub request_timeout: Duration,
    /// Stands still until the test moves it: nothing that waits for a time happens by itself.
    pub clock: Option<ManualClock>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            delay: Duration::from_millis(20),
            attr_ttl: Duration::from_secs(10),
            whole_below: 1 << 20,
            multipart_above: 4 << 20,
            latency: Duration::ZERO,
            late: Duration::from_secs(120),
            copy_in_one: u64::MAX,
            terms: Terms::default(),
            move_quiet: Duration::from_secs(60),
            conflict: Conflict::default(),
            fsync: FsyncPolicy::Disk,
            sync: false,
            limit: 1 << 30,
            retry: RetryOptions::default(),
            request_timeout: Duration::from_secs(60),
            clock: None,
        }
    }
}

/// The rooms of one daemon's life.
pub struct Rooms {
    pub vfs: Vfs,
    pub namespace: Namespace,
    pub uploader: Uploader,
    pub journal: Journal,
    pub outbox: Outbox,
    guardian: Guardian,
    ends: [Shutdown; 2],
    workers: [tokio::task::JoinHandle<()>; 2],
}

/// The sync task and the log bucket.
struct Announcing {
    announcer: Arc<SyncTask>,
    log: Arc<dyn ObjectStore>,
    task: String,
}

impl Announcing {
    fn target(&self, journal: &Journal) -> Target {
        Target {
            sync: journal.target(TargetKind::Sync, self.announcer.identity()).unwrap(),
            record: Some(journal.target(TargetKind::Record, self.log.name()).unwrap()),
            announcer: self.announcer.clone(),
            record_store: Some(self.log.clone()),
            record_prefix: String::new(),
            task: self.task.clone(),
        }
    }
}

/// A bucket and a state directory, and the rooms over them.
pub struct World {
    pub emulator: Emulator,
    pub store: Arc<dyn ObjectStore>,
    pub rooms: Rooms,
    announcing: Option<Announcing>,
    options: Options,
    root: tempfile::TempDir,
}

impl World {
    pub async fn new(options: Options) -> World {
        World::with_objects(options, &[]).await
    }

    pub async fn with_objects(options: Options, objects: &[(&str, &[u8])]) -> World {
        // Not in /tmp, which may be a filesystem without leases.
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in ["state", "cache", "emulator"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let emulator = Emulator::start(ferryfs::emulator::Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            root: root.path().join("emulator"),
            buckets: vec![BUCKET.to_owned(), LOGS.to_owned()],
            credentials: vec![("AKIDtest".to_owned(), "secret".to_owned())],
            oms_credentials: Some(("ak".to_owned(), "sk".to_owned())),
            latency: options.latency,
            bandwidth: None,
        })
        .await
        .unwrap();
        for (name, bytes) in objects {
            emulator.put_object(BUCKET, &format!("{PREFIX}{name}"), bytes).unwrap();
        }
        let open = |bucket: &str| {
            let mut cos_options =
                CosOptions::new(bucket, "ap-guangzhou", Credentials::new("AKIDtest", "secret", None).into());
            cos_options.endpoint = Some(emulator.store_url());
            cos_options.addressing = Addressing::Path;
            cos_options.retry = options.retry.clone();
            cos_options.request_timeout = options.request_timeout;
            cos(cos_options).unwrap()
        };
        let store = open(BUCKET);
        let announcing = options.sync.then(|| {
            let url: SyncUrl = emulator.oms_url().parse().unwrap();
            let task = url.task().to_owned();
            let oms_options = ferryfs::oms::Options::new(url, "ak".to_owned(), SecretString::from("sk"));
            let client = Client::new(&ferryfs::http::Options::default()).unwrap();
            let task_of = SyncTask::new(oms_options, client, Arc::new(SystemClock)).unwrap();
            Announcing { announcer: Arc::new(task_of), log: open(LOGS), task }
        });
        let rooms = Rooms::open(&options, &root, store.clone(), announcing.as_ref()).await;
        World { emulator, store, rooms, announcing, options, root }
    }

    /// Ends the rooms and opens them again from what is on the disk.
    pub async fn restart(self) -> World {
        self.restart_after(|_| {}).await
    }

    /// As [`World::restart`]; `between` may change the state and cache directories' parent.
    pub async fn restart_after(self, between: impl FnOnce(&std::path::Path)) -> World {
        self.rooms.close().await;
        between(self.root.path());
        let rooms = Rooms::open(&self.options, &self.root, self.store.clone(), self.announcing.as_ref()).await;
        World { rooms, ..self }
    }

    pub async fn close(self) {
        self.rooms.close().await;
    }

    /// Requests of one method on one key.
    pub fn count(&self, method: &str, key: &str) -> usize {
        let key = format!("{PREFIX}{key}");
        self.emulator.requests().iter().filter(|one| one.method == method && one.key == key).count()
    }

    pub fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.emulator.object(BUCKET, &format!("{PREFIX}{name}")).map(|object| object.bytes().unwrap())
    }

    /// Keys below the mapping, without its prefix.
    pub fn keys(&self) -> Vec<String> {
        self.emulator.keys(BUCKET).iter().map(|key| key.trim_start_matches(PREFIX).to_owned()).collect()
    }

    pub fn refuse(&self, method: &str, name: &str, status: u16, code: &str) {
        self.fault(method, name, Action::Status { status, code: code.to_owned(), retry_after: None }, 0);
    }

    /// `count` 0: for ever.
    pub fn fault(&self, method: &str, name: &str, action: Action, count: u32) {
        let matching =
            Match { method: Some(method.to_owned()), key: Some(format!("{PREFIX}{name}")), ..Match::default() };
        let count = if count == 0 { u32::MAX } else { count };
        self.emulator.add_fault(Fault { count, ..Fault::new(matching, action) });
    }

    /// Waits until a condition holds.
    pub async fn until(&self, what: &str, condition: impl Fn(&World) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "never: {what}; the bucket has {:?}", self.keys());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nothing is left to do, as `ferryfs wait` does.
    pub async fn settled(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.rooms.uploader.hurry();
            let left = self.rooms.uploader.outstanding(None);
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "never settled: {left:?} {:?}", self.rooms.uploader.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.rooms.guardian.reason(), None);
    }
}

impl Rooms {
    async fn open(
        options: &Options,
        root: &tempfile::TempDir,
        store: Arc<dyn ObjectStore>,
        announcing: Option<&Announcing>,
    ) -> Rooms {
        let clock: Arc<dyn Clock> = match &options.clock {
            Some(clock) => Arc::new(clock.clone()),
            None => Arc::new(SystemClock),
        };
        let state_dir = root.path().join("state");
        let journal = Journal::open(&state_dir).unwrap();
        let target = journal.target(TargetKind::Mapping, "cos://examplebucket-1250000000/data/").unwrap();
        let targets: Vec<Target> = announcing.iter().map(|announcing| announcing.target(&journal)).collect();
        let snapshot = journal.load().unwrap();
        let defaults = Defaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755 };
        let sync = targets.first().map(|target| target.sync);
        let mut mapping = Mapping::new(target, String::new(), PREFIX.to_owned(), store, sync, defaults);
        mapping.terms = options.terms.clone();
        mapping.conflict = options.conflict;
        let names = ferryfs::namespace::Options { attr_ttl: options.attr_ttl };
        let (namespace, replaced) =
            Namespace::open(journal.clone(), clock.clone(), names, vec![Arc::new(mapping)], &snapshot).unwrap();
        let space = ferryfs::cache::Options { state_dir, cache_dir: root.path().join("cache"), limit: options.limit };
        let cache = Cache::open(space, journal.clone()).unwrap();
        let boot_id = disk::boot_id().unwrap();
        let (of_namespace, of_cache, boot) = (namespace.clone(), cache.clone(), boot_id.clone());
        tokio::task::spawn_blocking(move || Vfs::recover(&of_namespace, &of_cache, &boot)).await.unwrap().unwrap();
        let rows = (&snapshot.announcements[..], &snapshot.records[..]);
        let announce = ferryfs::outbox::Options {
            requests_per_second: 1000,
            first_backoff: Duration::from_millis(2),
            max_backoff: Duration::from_millis(20),
            first_probe: Duration::from_millis(5),
            max_probe: Duration::from_millis(20),
            ..ferryfs::outbox::Options::default()
        };
        let outbox = Outbox::open(journal.clone(), clock, announce, targets, rows).unwrap();
        let upload = ferryfs::upload::Options {
            delay: options.delay,
            multipart_above: options.multipart_above,
            part_bytes: 1 << 20,
            late: options.late,
            copy_in_one: options.copy_in_one,
            copy_part_bytes: 1 << 20,
            move_quiet: options.move_quiet,
            mount_uuid: journal.mount_uuid().to_owned(),
            ..ferryfs::upload::Options::default()
        };
        let uploader = Uploader::open(namespace.clone(), cache.clone(), outbox.clone(), upload, &snapshot);
        let (guardian, ends) = (Guardian::new(), [Shutdown::new(), Shutdown::new()]);
        let worker = guardian.spawn("uploader", uploader.clone().run(ends[0].clone()));
        let (announcer, end) = (outbox.clone(), ends[1].clone());
        let sender = guardian.spawn("outbox", async move { announcer.run(async move { end.triggered().await }).await });
        let parts = Parts {
            namespace: namespace.clone(),
            replaced,
            cache,
            uploader: uploader.clone(),
            downloader: Downloader::new(ferryfs::download::Options::default()),
            guardian: guardian.clone(),
            shutdown: ends[1].clone(),
        };
        let posix = ferryfs::vfs::Options {
            close: ClosePolicy::Process,
            fsync: options.fsync,
            upload_open: None,
            killed_writer: KilledWriter::Hold,
            whole_below: options.whole_below,
            boot_id,
        };
        let vfs = Vfs::start(parts, posix);
        Rooms { vfs, namespace, uploader, journal, outbox, guardian, ends, workers: [worker, sender] }
    }

    async fn close(self) {
        assert_eq!(self.guardian.reason(), None);
        self.ends.iter().for_each(Shutdown::trigger);
        for worker in self.workers {
            worker.await.unwrap();
        }
        let journal = self.journal;
        tokio::task::spawn_blocking(move || journal.close()).await.unwrap().unwrap();
    }

    pub async fn lookup(&self, dir: Ino, name: &str) -> Option<Ino> {
        match self.vfs.lookup(dir, OsStr::new(name), CALLER).await {
            Ok(entry) => Some(entry.stat.ino),
            Err(ferryfs::vfs::Error::NotFound) => None,
            Err(error) => panic!("lookup of {name}: {error}"),
        }
    }

    pub async fn open_file(&self, dir: Ino, name: &str, flags: i32) -> (Ino, u64) {
        let ino = self.lookup(dir, name).await.unwrap_or_else(|| panic!("no {name}"));
        (ino, self.vfs.open(ino, flags, CALLER).await.unwrap().fh)
    }

    pub async fn create(&self, dir: Ino, name: &str) -> (Ino, u64) {
        let flags = libc::O_CREAT | libc::O_WRONLY;
        let (entry, opened) = self.vfs.create(dir, OsStr::new(name), 0o644, 0, flags, CALLER).await.unwrap();
        (entry.stat.ino, opened.fh)
    }

    pub async fn append(&self, (ino, fh): (Ino, u64), offset: u64, bytes: &[u8]) {
        let wrote = self.vfs.write(ino, fh, offset, Bytes::copy_from_slice(bytes), false).await.unwrap();
        assert_eq!(wrote as usize, bytes.len());
    }

    pub async fn close_file(&self, (ino, fh): (Ino, u64)) {
        self.vfs.flush(ino, fh, 0).await.unwrap();
        self.vfs.release(ino, fh).await;
    }

    /// A program that writes a file from nothing.
    pub async fn write(&self, dir: Ino, name: &str, bytes: &[u8]) -> Ino {
        let handle = match self.lookup(dir, name).await {
            Some(_) => self.open_file(dir, name, libc::O_WRONLY | libc::O_TRUNC).await,
            None => self.create(dir, name).await,
        };
        for (index, chunk) in bytes.chunks(1 << 20).enumerate() {
            self.append(handle, (index << 20) as u64, chunk).await;
        }
        self.close_file(handle).await;
        handle.0
    }

    /// A program that reads a file whole.
    pub async fn read(&self, dir: Ino, name: &str) -> Vec<u8> {
        let (ino, fh) = self.open_file(dir, name, libc::O_RDONLY).await;
        let bytes = self.vfs.read(ino, fh, 0, 1 << 20).await.unwrap();
        self.vfs.release(ino, fh).await;
        bytes.to_vec()
    }

    pub async fn rename(&self, from: (Ino, &str), to: (Ino, &str)) {
        self.vfs.rename(from.0, OsStr::new(from.1), to.0, OsStr::new(to.1), 0, CALLER).await.unwrap();
    }

    pub async fn unlink(&self, dir: Ino, name: &str) {
        self.vfs.unlink(dir, OsStr::new(name), CALLER).await.unwrap();
    }

    pub async fn mkdir(&self, dir: Ino, name: &str) -> Ino {
        self.vfs.mkdir(dir, OsStr::new(name), 0o755, 0, CALLER).await.unwrap().stat.ino
    }

    pub async fn names(&self, dir: Ino) -> Vec<String> {
        let fh = self.vfs.opendir(dir, CALLER).await.unwrap();
        let entries = self.vfs.readdir(dir, fh, 0, usize::MAX, false).await.unwrap();
        self.vfs.releasedir(fh);
        entries.into_iter().map(|entry| entry.name).filter(|name| name != "." && name != "..").collect()
    }
}
