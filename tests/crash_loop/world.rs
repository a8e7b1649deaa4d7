//! A store, a mount, its writers, and what the tree must be.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ferryfs::control::Address;
use ferryfs::control::Client;
use ferryfs::control::Phase;
use ferryfs::control::Status;
use ferryfs::disk;

use super::cloud::Cloud;
use super::findings::Findings;
use super::history::History;
use super::history::Kill;
use super::model::Model;
use super::model::Node;
use super::model::Op;
use super::writer;
use super::writer::Line;
use super::writer::Task;
use crate::harness::Guarded;
use crate::harness::Mount;
use crate::harness::Options;
use crate::harness::PATIENCE;
use crate::harness::Random;
use crate::harness::die_together;

/// Programs that write at the same time.
const WRITERS: u64 = 3;

/// From here on a wait is worth a line.
const SLOW: Duration = Duration::from_secs(10);
/// Longer than the listing a minute after the last copy of a renamed directory.
const LONGEST_WAIT: Duration = Duration::from_secs(150);

pub struct World {
    /// Dropped first: what runs ends before its directories go.
    writers: Vec<Writer>,
    daemon: Option<Guarded>,
    pub cloud: Cloud,
    pub mount: Mount,
    pub model: Model,
    pub history: History,
    pub random: Random,
    pub findings: Findings,
    /// Operations that were acknowledged, and those that a kill cut.
    pub acknowledged: u64,
    pub cut: u64,
    pub slowest_wait: Duration,
    /// Empty files that were closed right before the end: a close before anything was written makes no mark
    /// (C2), so they may be held until their handle's end has been told.
    pub emptied: Vec<String>,
    /// What was begun and not acknowledged, until the next start shows what became of it.
    pub unknown: Vec<Op>,
    starts: u64,
    next_id: u64,
    test: &'static str,
    /// Of the store and of this program; the mount's own are beside it.
    pub root: tempfile::TempDir,
}

struct Writer {
    child: Guarded,
    journal: PathBuf,
    /// Lines of its journal that were read.
    read: usize,
}

pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

impl World {
    pub fn new(test: &'static str, seed: u64, options: &Options, latency: Duration) -> World {
        let root = tempfile::Builder::new().prefix("crash-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let cloud = Cloud::start(root.path(), latency);
        let mount = Mount::prepare_for(&cloud.service, options);
        std::os::unix::fs::symlink(mount.outside(""), root.path().join("mount")).unwrap();
        let mut world = World {
            writers: Vec::new(),
            daemon: None,
            cloud,
            mount,
            model: Model::default(),
            history: History::default(),
            random: Random::new(seed),
            findings: Findings::default(),
            acknowledged: 0,
            cut: 0,
            slowest_wait: Duration::ZERO,
            emptied: Vec::new(),
            unknown: Vec::new(),
            starts: 0,
            next_id: 0,
            test,
            root,
        };
        world.start();
        world.ready();
        for dir in (0..WRITERS).map(|writer| format!("w{writer}")).chain(["shared".to_owned()]) {
            fs::create_dir(world.mount.path(&dir)).unwrap();
            world.happened(&Op::Mkdir { path: dir });
        }
        world
    }

    fn happened(&mut self, op: &Op) {
        self.model.apply(op);
        self.history.note(op, &self.model);
    }

    /// Begins to start a daemon, in the foreground: it is our child.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none());
        // What the start finds, for whoever looks into a failure: the last few.
        let kept = self.root.path().join(format!("before-start-{}", self.starts % 4));
        self.starts += 1;
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir(&kept).unwrap();
        for entry in fs::read_dir(self.mount.state_dir()).into_iter().flatten().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), kept.join(entry.file_name())).unwrap();
            }
        }
        let log = File::options().append(true).create(true).open(self.root.path().join("daemon.log")).unwrap();
        let mut command = self.mount.command(["mount", "--foreground", "--config"]);
        command.arg(self.mount.config()).arg(self.mount.dir());
        command.env("FERRYFS_LOG", "ferryfs=debug").stdout(log.try_clone().unwrap()).stderr(log);
        die_together(&mut command);
        self.daemon = Some(Guarded(command.spawn().unwrap()));
    }

    fn daemon(&mut self) -> &mut Child {
        &mut self.daemon.as_mut().expect("a daemon").0
    }

    /// The daemon's own word; `None` while it does not answer.
    fn try_status(&mut self) -> Option<Status> {
        let pid = self.daemon().id();
        let socket = self.mount.state_dir().join("control.sock");
        let address = Address { pid, socket, mount: self.mount.dir().to_owned() };
        Client::new(address).status().ok()
    }

    pub fn status(&mut self) -> Status {
        self.try_status().expect("the daemon answers")
    }

    /// Until the mount answers.
    pub fn ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pid = self.daemon().id();
            if let Some(ended) = self.daemon().try_wait().unwrap() {
                panic!("the daemon does not start: {ended}");
            }
            let up = self.try_status().is_some_and(|status| status.phase == Phase::Running && status.pid == pid);
            if up && disk::statvfs(self.mount.dir()).is_ok() && disk::mount_info(self.mount.dir()).unwrap().is_some() {
                return;
            }
            assert!(Instant::now() < deadline, "the daemon does not get ready");
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// SIGKILL. Whether it was still running.
    pub fn kill(&mut self) -> bool {
        let mut daemon = self.daemon.take().expect("a daemon");
        let begun_ns = now_ns();
        let ended = daemon.0.try_wait().unwrap();
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
        self.history.kills.push(Kill { begun_ns, gone_ns: now_ns() });
        assert!(ended.is_none_or(|ended| ended.success()), "the daemon ended by itself: {ended:?}");
        ended.is_none()
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(self.daemon());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Ends the daemon in order: everything is in the bucket.
    pub fn umount(&mut self) {
        let output = self.mount.run(&["umount"], &["--timeout", "60s"]);
        assert!(output.status.success(), "umount: {}", crate::harness::shown(&output));
        let mut daemon = self.daemon.take().expect("a daemon");
        assert!(daemon.0.wait().unwrap().success());
    }

    fn stop_file(&self) -> PathBuf {
        self.root.path().join("stop")
    }

    /// Lets the writers work.
    pub fn write(&mut self) {
        assert!(self.writers.is_empty() && self.unknown.is_empty());
        let _ = fs::remove_file(self.stop_file());
        for writer in 0..WRITERS {
            self.next_id += 1_000_000;
            let journal = self.root.path().join(format!("writer-{writer}.journal"));
            let _ = fs::rename(&journal, journal.with_extension("journal.before"));
            let task = Task {
                writer,
                seed: self.random.below(u64::MAX),
                root: self.mount.dir().to_owned(),
                journal: journal.clone(),
                stop: self.stop_file(),
                model: self.model.clone(),
                next_id: self.next_id,
            };
            let file = self.root.path().join(format!("writer-{writer}.task"));
            let child = Guarded(writer::spawn(&task, &file, self.test));
            self.writers.push(Writer { child, journal, read: 0 });
        }
    }

    /// Until every writer has been acknowledged something.
    pub fn warm(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.writers.iter().all(|writer| writer::read_journal(&writer.journal).len() > 2) {
            assert!(Instant::now() < deadline, "the writers do nothing");
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Ends the writers, which the end of the daemon ends too, and takes note of what they were told.
    pub fn gather(&mut self) {
        File::create(self.stop_file()).unwrap();
        self.emptied.clear();
        let deadline = Instant::now() + PATIENCE;
        for mut writer in std::mem::take(&mut self.writers) {
            while writer.child.0.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "a writer hangs");
                thread::sleep(Duration::from_millis(2));
            }
            let ended = writer.child.0.wait().unwrap();
            assert!(ended.success(), "a writer fell over: {ended}");
            self.read(&mut writer);
        }
    }

    fn read(&mut self, writer: &mut Writer) {
        let mut begun = None;
        let mut last = None;
        for line in writer::read_journal(&writer.journal).into_iter().skip(writer.read) {
            writer.read += 1;
            match (line, begun.take()) {
                (Line::Begun(op), None) => begun = Some(op),
                (Line::Done, Some(op)) => {
                    self.acknowledged += 1;
                    self.happened(&op);
                    last = Some(op);
                }
                (Line::Failed(errno), Some(op)) => {
                    // What calls give whose daemon has gone.
                    let expected = [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO].contains(&errno);
                    assert!(expected, "errno {errno} of {op:?}");
                    self.cut += 1;
                    self.unknown.push(op);
                }
                (line, begun) => panic!("{line:?} after {begun:?}"),
            }
        }
        if let Some(Op::Write { path, len: 0, .. }) = last {
            self.emptied.push(path);
        }
        assert!(begun.is_none(), "a writer ended in {begun:?}");
    }

    /// `ferryfs wait`: nothing is left to do.
    pub fn wait(&mut self) {
        let started = Instant::now();
        loop {
            let output = self.mount.try_wait("", SLOW);
            let waited = started.elapsed();
            if output.status.success() {
                self.slowest_wait = self.slowest_wait.max(waited);
                return;
            }
            let said = crate::harness::shown(&output);
            println!("after {waited:.1?} there is still something to wait for: {said}");
            assert!(waited < LONGEST_WAIT, "wait: {said}");
        }
    }

    /// What shows as held.
    pub fn torn_shown(&mut self) -> BTreeSet<String> {
        let status = self.status();
        assert_eq!(status.problems_left_out, 0);
        assert_eq!(status.held, []);
        status.torn.into_iter().map(|torn| torn.path.trim_start_matches('/').to_owned()).collect()
    }

    /// `ferryfs recover accept` or `discard`.
    pub fn recover(&mut self, verb: &str, path: &str) {
        let path = self.mount.path(path);
        let mut words = vec![path.to_str().unwrap()];
        if verb == "discard" {
            words.push("--yes");
        }
        let output = self.mount.run(&["recover", verb], &words);
        assert!(output.status.success(), "{verb} {words:?}: {}", crate::harness::shown(&output));
    }

    /// Keeps all that tells what happened; where.
    pub fn keep(&mut self) -> PathBuf {
        let root = self.root.path().to_owned();
        let model = serde_json::to_vec_pretty(&self.model).unwrap();
        fs::write(root.join("model.json"), model).unwrap();
        for what in ["requests", "stores", "oms"] {
            fs::write(root.join(format!("{what}.json")), self.cloud.ask_text(what)).unwrap();
        }
        if self.daemon.is_some() {
            let status = self.try_status();
            fs::write(root.join("status.json"), serde_json::to_vec_pretty(&status).unwrap()).unwrap();
        }
        self.root.disable_cleanup(true);
        self.mount.keep();
        root
    }

    /// A file's true path: below the mount's directory.
    pub fn path(&self, path: &str) -> PathBuf {
        self.mount.path(path)
    }

    /// A node came about other than by a writer.
    pub fn settled(&mut self, path: &str) {
        if let Some(node) = self.model.nodes.get(path).cloned() {
            self.history.came(path, &node);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("evidence: {}", self.root.path().display());
            self.root.disable_cleanup(true);
            self.mount.keep();
        }
    }
}

/// A path's content as it is read now.
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is at a path, without its content.
pub fn is_there(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// What is there of a node's kind, for messages.
pub fn kind(node: &Node) -> &'static str {
    match node {
        Node::Dir { .. } => "directory",
        Node::File(_) => "file",
        Node::Link { .. } => "link",
    }
}
