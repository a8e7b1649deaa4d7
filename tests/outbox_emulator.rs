//! Outbox, OMS client and COS client against the emulator, which verifies every signature with code
//! of its own; also with the process killed between every two durable steps.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ferryfs::clock::SystemClock;
use ferryfs::emulator::{Action, Emulator, Fault, Match};
use ferryfs::failpoint;
use ferryfs::http::Client;
use ferryfs::journal::{Durability, Journal, TargetKind};
use ferryfs::oms::{Announcer, SyncTask, SyncUrl};
use ferryfs::outbox::{Options, Outbox, Target};
use ferryfs::store::{Addressing, CosOptions, Credentials, ObjectStore, cos};
use ferryfs::types::{Key, TargetId};
use secrecy::SecretString;
use tempfile::TempDir;

const SOURCE: &str = "examplebucket-1250000000";
const LOG: &str = "logs-1250000000";
const ACCESS_KEY: &str = "FAKEHWAK00000000TEST";
const SECRET_KEY: &str = "FakeHuaweiSecretKeyForTestsOnly000000000";

/// Longer than anything here takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The variables that make this binary the process to be killed.
const CHILD_DIR: &str = "FERRYFS_OUTBOX_DIR";
const CHILD_OMS: &str = "FERRYFS_OUTBOX_OMS";
const CHILD_STORE: &str = "FERRYFS_OUTBOX_STORE";

/// Everything that a key may hold and that some encoding gets wrong.
const NAMES: [&str; 12] = [
    "data/a b.txt",
    "data/a+b.txt",
    "data/100%.txt",
    "data/%2F.txt",
    "data/\u{4e2d}\u{6587}/\u{6587}\u{4ef6}.txt",
    "data/~*()'!&=?#.txt",
    "data/./dot/../dots",
    "data//two slashes",
    "data/\"quoted\"\\back",
    "data/dir/",
    "data/caf\u{e9}",
    "/leading",
];

async fn emulator(root: &Path) -> Emulator {
    Emulator::start(ferryfs::emulator::Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        root: root.to_owned(),
        buckets: vec![SOURCE.to_owned(), LOG.to_owned()],
        credentials: vec![("AKIDtest".to_owned(), "secret".to_owned())],
        oms_credentials: Some((ACCESS_KEY.to_owned(), SECRET_KEY.to_owned())),
        latency: Duration::ZERO,
        bandwidth: None,
    })
    .await
    .unwrap()
}

fn store(url: &str, bucket: &str) -> Arc<dyn ObjectStore> {
    let mut options = CosOptions::new(bucket, "ap-guangzhou", Credentials::new("AKIDtest", "secret", None).into());
    options.endpoint = Some(url.to_owned());
    options.addressing = Addressing::Path;
    cos(options).unwrap()
}

/// One start of the daemon's outbox.
struct Start {
    journal: Journal,
    outbox: Outbox,
    sync: TargetId,
}

fn start(dir: &Path, oms_url: &str, store_url: &str, secret_key: &str) -> Start {
    std::fs::create_dir_all(dir).unwrap();
    let journal = Journal::open(dir).unwrap();
    let url: SyncUrl = oms_url.parse().unwrap();
    let task = url.task().to_owned();
    let options = ferryfs::oms::Options::new(url, ACCESS_KEY.to_owned(), SecretString::from(secret_key));
    let client = Client::new(&ferryfs::http::Options::default()).unwrap();
    let announcer = SyncTask::new(options, client, Arc::new(SystemClock)).unwrap();
    let log = store(store_url, LOG);
    let sync = journal.target(TargetKind::Sync, announcer.identity()).unwrap();
    let record = journal.target(TargetKind::Record, log.name()).unwrap();
    let target = Target {
        sync,
        record: Some(record),
        announcer: Arc::new(announcer),
        record_store: Some(log),
        record_prefix: String::new(),
        task,
    };
    let options = Options {
        requests_per_second: 1000,
        first_backoff: Duration::from_millis(2),
        max_backoff: Duration::from_millis(20),
        first_probe: Duration::from_millis(5),
        max_probe: Duration::from_millis(20),
        ..Options::default()
    };
    let rows = journal.load().unwrap();
    let outbox = Outbox::open(
        journal.clone(),
        Arc::new(SystemClock),
        options,
        vec![target],
        (&rows.announcements, &rows.records),
    )
    .unwrap();
    Start { journal, outbox, sync }
}

impl Start {
    async fn owe(&self, key: &str) {
        let (ticket, ops) = self.outbox.owe(self.sync, &Key::from(key)).unwrap();
        self.journal.submit(ops, Durability::Disk).await.unwrap();
        self.outbox.committed(ticket);
    }

    /// Sends until the outbox says what the test waits for.
    async fn run_until(&self, what: &str, mut is_so: impl FnMut(&Outbox) -> bool) {
        let mut changes = self.outbox.subscribe();
        let wait = async {
            while !is_so(&self.outbox) {
                changes.changed().await.unwrap();
            }
        };
        let ended = tokio::time::timeout(PATIENCE, self.outbox.run(wait)).await;
        ended.unwrap_or_else(|_| panic!("never {what}: {:#?}", self.outbox.status())).unwrap();
    }

    async fn run_until_nothing_is_left(&self) {
        self.run_until("all announced and recorded", |outbox| outbox.left(None, "").is_nothing()).await;
    }
}

fn oms_fault(action: Action, count: u32) -> Fault {
    let matching = Match { sub_resource: Some("oms".to_owned()), ..Match::default() };
    Fault { count, ..Fault::new(matching, action) }
}

fn unavailable() -> Action {
    Action::Status { status: 503, code: "OMS.0503".to_owned(), retry_after: None }
}

fn success(emulator: &Emulator, key: &str) -> String {
    let url: SyncUrl = emulator.oms_url().parse().unwrap();
    format!("oms_source_record/{}/success_object/{key}", url.task())
}

fn told(emulator: &Emulator) -> BTreeSet<String> {
    emulator.oms_events().into_iter().map(|event| event.key).collect()
}

fn recorded(emulator: &Emulator) -> BTreeSet<String> {
    emulator.keys(LOG).into_iter().collect()
}

#[tokio::test]
async fn awkward_keys_are_announced_and_recorded_as_they_are() {
    let root = TempDir::new().unwrap();
    let emulator = emulator(&root.path().join("emulator")).await;
    let start = start(&root.path().join("state"), &emulator.oms_url(), &emulator.store_url(), SECRET_KEY);
    let mut keys: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    keys.extend((0..50).map(|n| format!("data/many/{n}")));
    let long = format!("data/{}", "\u{4e2d}".repeat(270));
    for key in keys.iter().chain([&long]) {
        start.owe(key).await;
    }
    start.run_until_nothing_is_left().await;

    let mut expected: BTreeSet<String> = keys.iter().map(|key| success(&emulator, key)).collect();
    let records = recorded(&emulator);
    let extra: Vec<&String> = records.difference(&expected).collect();
    assert_eq!(extra.len(), 1, "only the long one stands elsewhere: {extra:?}");
    assert!(extra[0].starts_with(&success(&emulator, "long/")));
    assert_eq!(emulator.object(LOG, extra[0]).unwrap().bytes().unwrap(), long.as_bytes());
    expected.insert(extra[0].clone());
    assert_eq!(records, expected);
    keys.insert(long);
    assert_eq!(told(&emulator), keys);
    let requests: BTreeSet<u64> = emulator.oms_events().iter().map(|event| event.request).collect();
    assert_eq!(requests.len(), 7, "63 keys in requests of ten");
    emulator.shutdown().await;
}

#[tokio::test]
async fn an_outage_of_oms_passes() {
    let root = TempDir::new().unwrap();
    let emulator = emulator(&root.path().join("emulator")).await;
    emulator.add_fault(oms_fault(unavailable(), 5));
    emulator.add_fault(oms_fault(Action::ApplyThenCut, 1));
    let start = start(&root.path().join("state"), &emulator.oms_url(), &emulator.store_url(), SECRET_KEY);
    for n in 0..20 {
        start.owe(&format!("k{n}")).await;
    }
    start.run_until_nothing_is_left().await;
    assert_eq!(recorded(&emulator), (0..20).map(|n| success(&emulator, &format!("k{n}"))).collect());
    assert_eq!(start.outbox.status().targets[0].counters.failed, 0);
    assert!(!emulator.stores().iter().any(|store| store.key.contains("failed_object")));
    assert!(emulator.faults().is_empty(), "all faults were met");
    emulator.shutdown().await;
}

#[tokio::test]
async fn wrong_keys_pause_and_right_ones_go_on_after_a_restart() {
    let root = TempDir::new().unwrap();
    let state = root.path().join("state");
    let emulator = emulator(&root.path().join("emulator")).await;
    let first = start(&state, &emulator.oms_url(), &emulator.store_url(), "wrong");
    first.owe("a").await;
    first.run_until("paused", |outbox| outbox.status().targets[0].paused.is_some()).await;
    let why = first.outbox.status().targets[0].paused.clone().unwrap();
    assert!(why.contains("HTTP 401") && why.contains("APIGW.0301") && why.contains("request id"), "{why}");
    first.journal.close().unwrap();

    let second = start(&state, &emulator.oms_url(), &emulator.store_url(), SECRET_KEY);
    second.run_until_nothing_is_left().await;
    assert_eq!(recorded(&emulator), BTreeSet::from([success(&emulator, "a")]));
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_is_off_by_hours_is_corrected() {
    let root = TempDir::new().unwrap();
    let emulator = emulator(&root.path().join("emulator")).await;
    emulator.set_clock_offset(7200);
    let start = start(&root.path().join("state"), &emulator.oms_url(), &emulator.store_url(), SECRET_KEY);
    start.owe("a").await;
    start.run_until_nothing_is_left().await;
    assert_eq!(told(&emulator), BTreeSet::from(["a".to_owned()]));
    assert_eq!(start.outbox.status().targets[0].counters.requests, 1, "corrected within the request");
    emulator.shutdown().await;
}

#[tokio::test]
async fn reconcile_compares_real_listings() {
    let root = TempDir::new().unwrap();
    let emulator = emulator(&root.path().join("emulator")).await;
    let start = start(&root.path().join("state"), &emulator.oms_url(), &emulator.store_url(), SECRET_KEY);
    let names: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    for name in &names {
        emulator.put_object(SOURCE, name, b"content").unwrap();
    }
    let source = store(&emulator.store_url(), SOURCE);
    let found = start.outbox.reconcile(start.sync, &*source, "", |_| false).await.unwrap();
    assert_eq!((found.objects, found.owed), (names.len() as u64, names.len() as u64));
    let found = start.outbox.reconcile(start.sync, &*source, "", |_| false).await.unwrap();
    assert_eq!((found.owed, found.pending), (0, names.len() as u64), "owed already");
    start.run_until_nothing_is_left().await;
    assert_eq!(told(&emulator), names);
    emulator.shutdown().await;
}

/// The process that is killed: owes its keys once, and sends.
async fn child() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let dir = variable(CHILD_DIR);
    let start = start(Path::new(&dir), &variable(CHILD_OMS), &variable(CHILD_STORE), SECRET_KEY);
    if start.journal.load().unwrap().announcements.is_empty() {
        for n in 0..30 {
            start.owe(&format!("k{n:02}")).await;
        }
    }
    start.run_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_any_two_steps_loses_nothing() {
    if std::env::var(CHILD_DIR).is_ok() {
        return child().await;
    }
    for point in [
        failpoint::OMS_BEFORE_SEND,
        failpoint::OMS_AFTER_SEND,
        failpoint::RECORD_BEFORE_PUT,
        failpoint::RECORD_AFTER_PUT,
    ] {
        let root = TempDir::new().unwrap();
        let state = root.path().join("state");
        let emulator = emulator(&root.path().join("emulator")).await;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "a_kill_between_any_two_steps_loses_nothing", "--test-threads", "1"])
            .env(CHILD_DIR, &state)
            .env(CHILD_OMS, emulator.oms_url())
            .env(CHILD_STORE, emulator.store_url())
            .env("FERRYFS_FAILPOINT", format!("{point}:2"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(9), "{point}: {}", String::from_utf8_lossy(&output.stdout));

        let expected: BTreeSet<String> = (0..30).map(|n| format!("k{n:02}")).collect();
        let left = start(&state, &emulator.oms_url(), &emulator.store_url(), SECRET_KEY);
        assert!(!left.outbox.left(None, "").is_nothing(), "{point}: killed in the middle");
        left.run_until_nothing_is_left().await;
        assert_eq!(told(&emulator), expected, "{point}");
        assert_eq!(recorded(&emulator), expected.iter().map(|key| success(&emulator, key)).collect(), "{point}");
        let rows = left.journal.load().unwrap();
        assert_eq!((rows.announcements.len(), rows.records.len()), (0, 0), "{point}");
        left.journal.close().unwrap();
        emulator.shutdown().await;
    }
}
