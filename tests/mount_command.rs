//! The life of a mount by its commands alone, against the emulator. Needs root and /dev/fuse; fails
//! without, rather than passing unseen.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ferryfs::control::Status;
use ferryfs::disk;
use ferryfs::emulator::{self, Action, Emulator, Fault, Match};
use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_ferryfs");
const BUCKET: &str = "examplebucket-1250000000";
const LOG_BUCKET: &str = "logs-1250000000";

/// An emulator, a configuration for it, and a directory to mount on. Dropped, it takes the mount and its
/// daemon away, also when a test fails.
struct Stage {
    emulator: Option<Emulator>,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        // Not in /tmp, which may be a filesystem that takes no passthrough.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = emulator::Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            root: dir.path().join("objects"),
            buckets: vec![BUCKET.to_owned(), LOG_BUCKET.to_owned()],
            credentials: vec![("id".to_owned(), "hush".to_owned())],
            oms_credentials: Some(("ak".to_owned(), "hush".to_owned())),
            latency: Duration::ZERO,
            bandwidth: None,
        };
        let emulator = runtime.block_on(Emulator::start(options)).unwrap();
        let stage = Stage { emulator: Some(emulator), runtime, dir };
        stage.config("demo.toml", |text| text);
        stage
    }

    fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount_dir(&self) -> PathBuf {
        self.path("mnt")
    }

    /// Writes a configuration, changed by `change`.
    fn config(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = format!(
            "[[mapping]]\npath = \"/\"\nurl = \"cos://{BUCKET}/data/\"\nregion = \"ap-guangzhou\"\n\
             endpoint = \"{}\"\naddressing = \"path\"\nsecret_id = \"id\"\nsecret_key = \"hush\"\n\
             [mapping.sync]\nurl = \"{}\"\naccess_key = \"ak\"\nsecret_key = \"hush\"\nrecord = \"cos://{LOG_BUCKET}/\"\n\
             [cache]\ndir = \"cache\"\nsize = \"1GiB\"\n[state]\ndir = \"state\"\n[mount]\ndir = \"mnt\"\n",
            self.emulator().store_url(),
            self.emulator().oms_url()
        );
        let path = self.path(name);
        fs::write(&path, change(text)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn run(&self, program: &Path, words: &[&str]) -> Answer {
        let output = Command::new(program)
            .args(words)
            .current_dir(self.dir.path())
            .env("FERRYFS_RUN_DIR", self.path("run"))
            .output()
            .unwrap();
        Answer::of(output)
    }

    fn ferryfs(&self, words: &[&str]) -> Answer {
        self.run(Path::new(BINARY), words)
    }

    fn status(&self) -> Status {
        let answer = self.ferryfs(&["status", "mnt", "--json"]);
        answer.is(0, "");
        serde_json::from_str(&answer.out).unwrap()
    }

    fn kill_daemon(&self) {
        kill(self.status().pid);
    }
}

/// SIGKILL, and until the process is gone.
fn kill(pid: u32) {
    let process = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(process, Signal::KILL).unwrap();
    let start = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        // A zombie that nobody reaps stays listed, and is gone all the same.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "the daemon does not die");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("state/ferryfs.log")).unwrap_or_default();
            eprintln!("--- the daemon's log ---\n{log}---");
        }
        let status = self.ferryfs(&["status", "mnt", "--json"]);
        if let Ok(status) = serde_json::from_str::<Status>(&status.out) {
            kill(status.pid);
        }
        while disk::mount_info(&self.mount_dir()).is_ok_and(|mount| mount.is_some()) {
            disk::unmount(&self.mount_dir(), true).unwrap();
        }
        if let Some(emulator) = self.emulator.take() {
            self.runtime.block_on(emulator.shutdown());
        }
    }
}

#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: Output) -> Answer {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    fn is(&self, code: i32, message: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(message), "{message}: {self:?}");
    }
}

#[test]
fn a_mount_answers_waits_refuses_while_busy_and_goes() {
    let stage = Stage::new();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    // It answers at once, and is found by other spellings too.
    fs::create_dir(stage.path("mnt/sub")).unwrap();
    fs::write(stage.path("mnt/sub/file"), "content").unwrap();
    stage.ferryfs(&["wait", "mnt/", "sub/file"]).is(0, "");
    assert_eq!(stage.emulator().object(BUCKET, "data/sub/file").unwrap().bytes().unwrap(), b"content");
    stage.ferryfs(&["wait", "./mnt"]).is(0, "");
    assert!(stage.emulator().oms_events().iter().any(|event| event.key == "data/sub/file"));
    stage.ferryfs(&["wait", "mnt", "sub/absent"]).is(1, "sub/absent");
    let status = stage.status();
    assert_eq!(status.mount, stage.mount_dir().canonicalize().unwrap());
    assert_eq!((status.uploads_files, status.announcements_owed, status.records_owed), (0, 0, 0));
    let shown = stage.ferryfs(&["status", "mnt"]);
    shown.is(0, "");
    assert!(shown.out.contains("running") && shown.out.contains("online"), "{shown:?}");
    assert!(stage.ferryfs(&["outbox", "list", "mnt"]).out.contains("nothing owed"));

    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(1, "is mounted on");
    let open = fs::File::open(stage.path("mnt/sub/file")).unwrap();
    stage.ferryfs(&["umount", "mnt", "--timeout", "20s"]).is(1, "busy");
    assert_eq!(fs::read(stage.path("mnt/sub/file")).unwrap(), b"content");
    drop(open);
    stage.ferryfs(&["umount", "mnt", "--timeout", "20s"]).is(0, "");
    assert!(disk::mount_info(&stage.mount_dir()).unwrap().is_none());
    stage.ferryfs(&["status", "mnt"]).is(1, "no ferryfs is mounted");

    // At once again: whoever unmounted has waited for the locks. The directory comes from the file.
    stage.ferryfs(&["mount", "--config", "demo.toml"]).is(0, "");
    assert_eq!(fs::read(stage.path("mnt/sub/file")).unwrap(), b"content");
    stage.ferryfs(&["umount", "mnt"]).is(0, "");
}

#[test]
fn umount_uploads_what_is_left() {
    let stage = Stage::new();
    stage.config("slow.toml", |text| format!("{text}[write_back]\ndelay = \"1h\"\n"));
    stage.ferryfs(&["mount", "--config", "slow.toml", "mnt"]).is(0, "");
    fs::write(stage.path("mnt/late"), "not yet").unwrap();
    stage.ferryfs(&["umount", "mnt", "--timeout", "60s"]).is(0, "");
    assert_eq!(stage.emulator().object(BUCKET, "data/late").unwrap().bytes().unwrap(), b"not yet");
    assert!(stage.emulator().oms_events().iter().any(|event| event.key == "data/late"));
}

#[test]
fn a_killed_daemons_mount_is_told_taken_away_and_mounted_over() {
    let stage = Stage::new();
    stage.config("slow.toml", |text| format!("{text}[write_back]\ndelay = \"1h\"\n"));
    stage.ferryfs(&["mount", "--config", "slow.toml", "mnt"]).is(0, "");
    fs::write(stage.path("mnt/kept"), "kept").unwrap();
    stage.kill_daemon();
    stage.ferryfs(&["status", "mnt"]).is(1, "is gone; run `ferryfs umount");

    // Mounted over the dead one.
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "a daemon that is gone");
    stage.ferryfs(&["wait", "mnt"]).is(0, "");
    assert_eq!(stage.emulator().object(BUCKET, "data/kept").unwrap().bytes().unwrap(), b"kept");

    stage.kill_daemon();
    let answer = stage.ferryfs(&["umount", "mnt"]);
    answer.is(0, "");
    assert!(answer.out.contains("what was closed is kept"), "{answer:?}");
    assert!(disk::mount_info(&stage.mount_dir()).unwrap().is_none());
}

#[test]
fn a_wrong_key_or_bucket_is_told_by_the_command_that_mounts() {
    let stage = Stage::new();
    stage.config("key.toml", |text| text.replace("secret_key = \"hush\"\n[mapping", "secret_key = \"x\"\n[mapping"));
    let answer = stage.ferryfs(&["mount", "--config", "key.toml", "mnt"]);
    for wanted in ["secret_key", "HTTP 403", "SignatureDoesNotMatch", "request id"] {
        answer.is(1, wanted);
    }
    stage.config("bucket.toml", |text| text.replace(BUCKET, "other-1250000000"));
    let answer = stage.ferryfs(&["mount", "--config", "bucket.toml", "mnt"]);
    for wanted in ["other-1250000000", "HTTP 404", "NoSuchBucket", "request id"] {
        answer.is(1, wanted);
    }
    assert!(disk::mount_info(&stage.mount_dir()).unwrap().is_none());
}

#[test]
fn a_wrong_region_or_log_bucket_is_told_too() {
    let stage = Stage::new();
    let matching = Match { bucket: Some(BUCKET.to_owned()), ..Match::default() };
    let action = Action::Status { status: 301, code: "PermanentRedirect".to_owned(), retry_after: None };
    stage.emulator().add_fault(Fault { count: u32::MAX, ..Fault::new(matching, action) });
    let answer = stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]);
    for wanted in [BUCKET, "region", "HTTP 301", "PermanentRedirect", "request id"] {
        answer.is(1, wanted);
    }
    stage.emulator().clear_faults();

    stage.config("logs.toml", |text| text.replace(LOG_BUCKET, "elsewhere-1250000000"));
    let answer = stage.ferryfs(&["mount", "--config", "logs.toml", "mnt"]);
    for wanted in ["elsewhere-1250000000", "HTTP 404", "NoSuchBucket", "request id"] {
        answer.is(1, wanted);
    }
    assert!(!answer.err.contains("hush"), "{answer:?}");
    assert!(disk::mount_info(&stage.mount_dir()).unwrap().is_none());
}

#[test]
fn waiting_ends_in_time_and_says_what_is_left() {
    let stage = Stage::new();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    fs::write(stage.path("mnt/done"), "done").unwrap();
    stage.ferryfs(&["wait", "mnt", "done"]).is(0, "");
    let matching = Match { method: Some("PUT".to_owned()), bucket: Some(BUCKET.to_owned()), ..Match::default() };
    stage.emulator().add_fault(Fault { count: u32::MAX, ..Fault::new(matching, Action::Delay(600_000)) });
    fs::write(stage.path("mnt/slow"), "slow").unwrap();
    for words in [&["wait", "mnt", "--timeout", "300ms"][..], &["wait", "mnt", "slow", "--timeout", "300ms"]] {
        let start = Instant::now();
        let answer = stage.ferryfs(words);
        answer.is(1, "not settled: 1 file (4 B) to upload");
        answer.is(1, "/slow waits for its upload");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
    // What it does not wait for does not keep it.
    stage.ferryfs(&["wait", "mnt", "done", "--timeout", "30s"]).is(0, "");
    // An unmount that runs out of time says what is kept, and keeps it.
    let answer = stage.ferryfs(&["umount", "mnt", "--timeout", "1s"]);
    answer.is(1, "unmounted; kept for the next mount: 1 file (4 B) to upload");
    assert!(disk::mount_info(&stage.mount_dir()).unwrap().is_none());
    stage.emulator().clear_faults();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    stage.ferryfs(&["wait", "mnt"]).is(0, "");
    assert_eq!(stage.emulator().object(BUCKET, "data/slow").unwrap().bytes().unwrap(), b"slow");
}

/// What nobody has looked at since the start is in the bucket all the same.
#[test]
fn waiting_for_what_another_client_stored_asks_the_bucket() {
    let stage = Stage::new();
    stage.emulator().put_object(BUCKET, "data/theirs/file", b"theirs").unwrap();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    stage.ferryfs(&["wait", "mnt", "theirs/file"]).is(0, "");
    stage.ferryfs(&["wait", "mnt", "theirs"]).is(0, "");
    stage.ferryfs(&["wait", "mnt", "theirs/other"]).is(1, "there is no /theirs/other here or in the bucket");
    stage.ferryfs(&["wait", "mnt", "theirs/file/below"]).is(1, "there is no /theirs/file/below");
}

#[test]
fn waiting_for_a_torn_file_ends_at_once_and_says_so() {
    // Closed last: a close waits for its daemon or for its end.
    let mut open;
    let stage = Stage::new();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    open = fs::File::create(stage.path("mnt/report")).unwrap();
    open.write_all(b"half").unwrap();
    stage.kill_daemon();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    // Only now, so that it certainly was being written when the next daemon looked.
    drop(open);
    for words in [&["wait", "mnt"][..], &["wait", "mnt", "report"]] {
        let answer = stage.ferryfs(words);
        answer.is(1, "not settled: 1 stuck");
        answer.is(1, "/report: torn");
    }
    let shown = stage.ferryfs(&["status", "mnt"]);
    assert!(shown.out.contains("TORN") && shown.out.contains("/report"), "{shown:?}");
    // Written anew, it is a file like others.
    fs::write(stage.path("mnt/report"), "whole").unwrap();
    stage.ferryfs(&["wait", "mnt", "report"]).is(0, "");
    assert_eq!(stage.emulator().object(BUCKET, "data/report").unwrap().bytes().unwrap(), b"whole");
}

#[test]
fn the_helper_mounts_in_the_background() {
    let stage = Stage::new();
    let helper = stage.path("mount.ferryfs");
    std::os::unix::fs::symlink(BINARY, &helper).unwrap();
    stage.run(&helper, &["demo.toml", "mnt", "-o", "rw,_netdev,nofail,noatime,ro"]).is(0, "");
    let error = fs::write(stage.path("mnt/x"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    stage.run(&helper, &["demo.toml", "mnt"]).is(32, "is mounted on");
    stage.ferryfs(&["umount", "mnt"]).is(0, "");
    // As mount(8) calls it, and what fails for want of a good bucket is no usage error.
    stage.run(&helper, &["demo.toml", "mnt", "-s", "-v", "-n", "-o", "rw,noauto,user=nobody,x-y=z"]).is(0, "");
    stage.config("bucket.toml", |text| {
        text.replace(BUCKET, "other-1250000000").replace("\"state\"", "\"state2\"").replace("\"cache\"", "\"cache2\"")
    });
    fs::create_dir(stage.path("mnt2")).unwrap();
    let other = stage.run(&helper, &["bucket.toml", "mnt2", "-o", "cache_size=64MiB"]);
    assert!(matches!(other.code, Some(32)) && other.err.contains("NoSuchBucket"), "{other:?}");
    stage.ferryfs(&["umount", "mnt"]).is(0, "");
}

#[test]
fn the_demo_passes() {
    let stage = Stage::new();
    let answer = stage.ferryfs(&["demo"]);
    answer.is(0, "");
    for wanted in ["/hello.txt", "/large.bin", "/tree/branch-3/leaf.txt", "announced  success", "taken away"] {
        assert!(answer.out.contains(wanted), "{wanted}: {answer:?}");
    }
}
