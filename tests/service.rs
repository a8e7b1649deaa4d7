//! The daemon under a service manager: what it is told by signals, and what it tells (sd_notify(3)).
//! Needs root and /dev/fuse; fails without, rather than passing unseen.

mod harness;

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ferryfs::disk;
use ferryfs::emulator::{Action, Fault, Match};
use harness::{BUCKET, Cloud, Mount, Options, PATIENCE, pattern, shown, until};
use rustix::process::{Pid, Signal, kill_process};

/// How soon who was told to hurry must be gone; what is under way would take far longer.
const HURRY: Duration = Duration::from_secs(15);

/// One datagram: lines of `KEY=VALUE`.
#[derive(Clone, Debug)]
struct Message(String);

impl Message {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    fn is(&self, key: &str) -> bool {
        self.get(key) == Some("1")
    }
}

/// `ferryfs mount --foreground` and the socket of its manager. Dropped, it kills the daemon; the mount
/// is taken away by [`Mount`], which must outlive it.
struct Service {
    child: Child,
    socket: UnixDatagram,
    heard: Vec<Message>,
    /// Not below the target directory: a socket's path must be short.
    _dir: tempfile::TempDir,
}

impl Service {
    fn start(mount: &Mount) -> Service {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // Where `Mount::log` looks.
        fs::create_dir_all(mount.state_dir()).unwrap();
        fs::set_permissions(mount.state_dir(), fs::Permissions::from_mode(0o700)).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(mount.state_dir().join("ferryfs.log"));
        let mut command = mount.command(["mount", "--foreground", "--config"]);
        command.arg(mount.outside("test.toml")).arg(mount.dir()).env("NOTIFY_SOCKET", &path);
        let child = command.stdout(Stdio::null()).stderr(log.unwrap()).spawn().unwrap();
        Service { child, socket, heard: Vec::new(), _dir: dir }
    }

    /// Started, and READY.
    fn ready(mount: &Mount) -> Service {
        let mut service = Service::start(mount);
        service.until_told("READY=1", |message| message.is("READY"));
        service
    }

    fn take_one(&mut self) -> Option<Message> {
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                let message = Message(String::from_utf8(buffer[..length].to_vec()).unwrap());
                self.heard.push(message.clone());
                Some(message)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message that is so.
    #[track_caller]
    fn until_told(&mut self, what: &str, is_so: impl Fn(&Message) -> bool) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.take_one() {
                Some(message) if is_so(&message) => return message,
                Some(_) => {}
                None => {
                    let ended = self.child.try_wait().unwrap();
                    assert!(ended.is_none(), "ended ({ended:?}) without {what}: {:?}", self.heard);
                    assert!(Instant::now() < deadline, "never told {what}: {:?}", self.heard);
                }
            }
        }
    }

    /// The next message of a drain that goes on.
    #[track_caller]
    fn until_progress(&mut self) -> Message {
        let message = self.until_told("progress", |one| one.get("EXTEND_TIMEOUT_USEC").is_some());
        assert!(message.get("STATUS").unwrap().starts_with("uploading "), "{message:?}");
        assert!(message.is("STOPPING"), "{message:?}");
        // More than the pause to the next one by far.
        assert!(message.get("EXTEND_TIMEOUT_USEC").unwrap().parse::<u64>().unwrap() >= 10_000_000, "{message:?}");
        message
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Hears it out until it has ended.
    #[track_caller]
    fn until_ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            let heard = self.take_one().is_some();
            if !heard && let Some(status) = self.child.try_wait().unwrap() {
                while self.take_one().is_some() {}
                return status;
            }
            assert!(Instant::now() < deadline, "does not end within {limit:?}: {:?}", self.heard);
        }
    }

    /// Ended well, said so, and the mount is gone.
    #[track_caller]
    fn ends_well(&mut self, mount: &Mount, limit: Duration) {
        let status = self.until_ended(limit);
        assert!(status.success(), "{status}: {:?}", self.heard);
        let last = self.heard.iter().rfind(|message| message.is("STOPPING"));
        let told = last.and_then(|message| message.get("STATUS")).unwrap_or_else(|| panic!("{:?}", self.heard));
        assert!(told.starts_with("left for the next start: ") || told.starts_with("everything is in"), "{told}");
        assert!(disk::mount_info(mount.dir()).unwrap().is_none(), "still mounted");
    }

    fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended, or does now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing goes up before somebody hurries.
fn lazy() -> Options {
    Options { delay: "1h", ..Options::default() }
}

/// Uploads below `data/slow` hang until the faults are cleared.
fn hang_uploads(cloud: &Cloud) {
    let matching = Match {
        method: Some("PUT".to_owned()),
        bucket: Some(BUCKET.to_owned()),
        key: Some("data/slow*".to_owned()),
        ..Match::default()
    };
    cloud.emulator().add_fault(Fault { count: u32::MAX, ..Fault::new(matching, Action::Delay(600_000)) });
}

fn until_hanging(cloud: &Cloud) {
    until("an upload is under way", || {
        let requests = cloud.emulator().requests();
        requests.iter().any(|one| one.method == "PUT" && one.key.starts_with("data/slow") && one.status == 0)
    });
}

#[test]
fn ready_means_that_the_mount_answers() {
    let cloud = Cloud::start();
    cloud.put("data/there", b"there");
    let mount = Mount::prepare(&cloud, &Options::default());
    let mut service = Service::start(&mount);
    service.until_told("READY=1", |message| message.is("READY"));
    // At this moment, not a little later.
    let mounted = disk::mount_info(mount.dir()).unwrap().expect("READY without a mount");
    assert_eq!(mounted.fstype, "fuse.ferryfs");
    assert!(disk::statvfs(mount.dir()).is_ok());
    assert_eq!(service.heard.len(), 1, "{:?}", service.heard);
    assert!(service.heard[0].get("STATUS").is_some(), "{:?}", service.heard);
    assert_eq!(fs::read(mount.path("there")).unwrap(), b"there");
    assert_eq!(mount.status().pid, service.child.id());

    // With nothing to do it is gone at once.
    service.signal(Signal::TERM);
    service.ends_well(&mount, HURRY);
}

#[test]
fn a_signal_right_after_ready_is_heard() {
    let cloud = Cloud::start();
    let mount = Mount::prepare(&cloud, &Options::default());
    // A manager may be that fast, and the default action of these signals is death without unmounting.
    for _ in 0..5 {
        let mut service = Service::ready(&mount);
        service.signal(Signal::HUP);
        service.signal(Signal::TERM);
        service.ends_well(&mount, PATIENCE);
    }
}

#[test]
fn a_reload_puts_new_keys_in_force_everywhere() {
    let mut cloud = Cloud::start();
    let options = Options::default();
    let mount = Mount::prepare(&cloud, &options);
    let mut service = Service::ready(&mount);
    fs::write(mount.path("before"), "before").unwrap();
    mount.wait("before");

    // Uploaded with the old keys, and not yet announced.
    let oms = Match { sub_resource: Some("oms".to_owned()), ..Match::default() };
    let refused = Action::Status { status: 503, code: "OMS.0500".to_owned(), retry_after: None };
    cloud.emulator().add_fault(Fault { count: u32::MAX, ..Fault::new(oms, refused) });
    fs::write(mount.path("between"), "between").unwrap();
    until("it is uploaded", || cloud.object("data/between").is_some() && mount.status().announcements_owed == 1);

    cloud.rotate_keys();
    fs::write(mount.path("after"), "after").unwrap();
    until("the old keys are refused", || {
        let status = mount.status();
        let paused = status.mappings[0].sync.as_ref().is_some_and(|sync| sync.paused.is_some());
        let failed =
            status.failed.iter().any(|one| one.path == "/after" && one.reason.contains("SignatureDoesNotMatch"));
        paused && failed
    });
    let text = shown(&mount.run(&["status"], &[]));
    assert!(text.contains("PAUSED") && text.contains("FAILED") && text.contains("SignatureDoesNotMatch"), "{text}");

    // A reload that finds nothing usable leaves everything as it is, and says so.
    let good = fs::read_to_string(mount.outside("test.toml")).unwrap();
    fs::write(mount.outside("test.toml"), format!("{good}colour = 1\n")).unwrap();
    service.signal(Signal::HUP);
    service.until_told("RELOADING=1", |message| message.is("RELOADING"));
    let told = service.until_told("READY=1", |message| message.is("READY"));
    assert!(told.get("STATUS").unwrap().contains("not reloaded"), "{told:?}");

    mount.configure(&cloud, &options);
    service.signal(Signal::HUP);
    let reloading = service.until_told("RELOADING=1", |message| message.is("RELOADING"));
    let at: i128 = reloading.get("MONOTONIC_USEC").unwrap().parse().unwrap();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let age = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000 - at;
    assert!((0..60_000_000).contains(&age), "{age} microseconds ago");
    let told = service.until_told("READY=1", |message| message.is("READY"));
    assert!(!told.get("STATUS").unwrap().contains("not reloaded"), "{told:?}");

    // Much sooner than a paused task would be probed by itself.
    let waited = mount.try_wait("", Duration::from_secs(30));
    assert!(waited.status.success(), "{}", shown(&waited));
    for name in ["before", "between", "after"] {
        cloud.holds(&format!("data/{name}"), name.as_bytes());
    }
    assert_eq!(cloud.recorded("success_object"), ["data/after", "data/before", "data/between"]);
    assert_eq!(cloud.recorded("failed_object"), Vec::<String>::new());
    service.signal(Signal::TERM);
    service.ends_well(&mount, PATIENCE);
}

#[test]
fn a_drain_tells_its_progress_and_leaves_nothing() {
    // Three seconds and more of uploading.
    let cloud = Cloud::with(Duration::ZERO, Some(1 << 20));
    let mount = Mount::prepare(&cloud, &lazy());
    let mut service = Service::ready(&mount);
    let files: Vec<(String, Vec<u8>)> =
        [700_000, 3_000_000, 5].iter().map(|size| (format!("file-{size}"), pattern(*size, *size as usize))).collect();
    for (name, bytes) in &files {
        fs::write(mount.path(name), bytes).unwrap();
    }
    assert_eq!(cloud.keys(), Vec::<String>::new());
    service.signal(Signal::TERM);
    let first = service.until_progress();
    assert!(first.get("STATUS").unwrap().contains("3 files"), "{first:?}");
    // Meanwhile the mount answers.
    assert_eq!(fs::read(mount.path("file-5")).unwrap(), files[2].1);
    until("the drain goes on", || service.until_progress().get("STATUS") != first.get("STATUS"));
    service.until_progress();
    service.ends_well(&mount, PATIENCE);
    for (name, bytes) in &files {
        cloud.holds(&format!("data/{name}"), bytes);
    }
    let keys = ["data/file-3000000", "data/file-5", "data/file-700000"];
    let mut announced = cloud.announced();
    announced.sort();
    assert_eq!(announced, keys);
    assert_eq!(cloud.recorded("success_object"), keys);
}

#[test]
fn told_twice_it_hurries_and_the_rest_goes_up_at_the_next_start() {
    let cloud = Cloud::start();
    hang_uploads(&cloud);
    let mount = Mount::prepare(&cloud, &lazy());
    let mut service = Service::ready(&mount);
    let (small, large) = (pattern(1, 9_000), pattern(2, 3 << 20));
    fs::write(mount.path("slow-small"), &small).unwrap();
    fs::write(mount.path("slow-large"), &large).unwrap();
    fs::write(mount.path("quick"), "quick").unwrap();
    service.signal(Signal::TERM);
    service.until_progress();
    until_hanging(&cloud);
    service.signal(Signal::TERM);
    service.ends_well(&mount, HURRY);
    assert!(cloud.object("data/slow-small").is_none() && cloud.object("data/slow-large").is_none());

    cloud.emulator().clear_faults();
    let mut service = Service::ready(&mount);
    mount.wait_all();
    cloud.holds("data/slow-small", &small);
    cloud.holds("data/slow-large", &large);
    cloud.holds("data/quick", b"quick");
    assert_eq!(cloud.recorded("success_object"), ["data/quick", "data/slow-large", "data/slow-small"]);
    service.signal(Signal::TERM);
    service.ends_well(&mount, PATIENCE);
}

#[test]
fn killed_in_the_drain_it_loses_nothing_and_the_dead_mount_is_cleared() {
    let cloud = Cloud::start();
    hang_uploads(&cloud);
    let mount = Mount::prepare(&cloud, &lazy());
    let mut service = Service::ready(&mount);
    fs::write(mount.path("slow"), "slow").unwrap();
    fs::write(mount.path("quick"), "quick").unwrap();
    service.signal(Signal::TERM);
    service.until_progress();
    until_hanging(&cloud);
    // The manager's time-out.
    service.kill9();
    assert!(disk::mount_info(mount.dir()).unwrap().is_some(), "a killed daemon cannot unmount");
    assert!(disk::statvfs(mount.dir()).is_err(), "nobody answers");

    cloud.emulator().clear_faults();
    let mut service = Service::ready(&mount);
    assert_eq!(fs::read(mount.path("slow")).unwrap(), b"slow");
    mount.wait_all();
    cloud.holds("data/slow", b"slow");
    cloud.holds("data/quick", b"quick");
    assert_eq!(cloud.recorded("success_object"), ["data/quick", "data/slow"]);
    service.signal(Signal::TERM);
    // And no second mount lies below.
    service.ends_well(&mount, PATIENCE);
}

#[test]
fn it_starts_without_the_network() {
    let mut cloud = Cloud::start();
    let mount = Mount::prepare(&cloud, &Options::default());
    let mut service = Service::ready(&mount);
    fs::write(mount.path("cached"), "cached").unwrap();
    mount.wait("cached");
    service.signal(Signal::TERM);
    service.ends_well(&mount, PATIENCE);

    cloud.stop();
    let mut service = Service::ready(&mount);
    let status = mount.status();
    assert!(!status.mappings[0].online, "{status:?}");
    let text = shown(&mount.run(&["status"], &[]));
    assert!(text.contains("OFFLINE"), "{text}");
    let began = Instant::now();
    assert_eq!(fs::read(mount.path("cached")).unwrap(), b"cached");
    fs::write(mount.path("cached"), "changed").unwrap();
    assert_eq!(fs::read(mount.path("cached")).unwrap(), b"changed");
    assert!(began.elapsed() < Duration::from_secs(10), "offline calls took {:?}", began.elapsed());
    let waited = mount.try_wait("", Duration::from_millis(300));
    assert_eq!(waited.status.code(), Some(1), "{}", shown(&waited));
    assert!(shown(&waited).contains("1 file (7 B) to upload"), "{}", shown(&waited));

    cloud.restart();
    until("it is online", || mount.status().mappings[0].online);
    mount.wait_all();
    cloud.holds("data/cached", b"changed");
    assert_eq!(cloud.announced(), ["data/cached"]);
    assert_eq!(harness::names(mount.dir()), ["cached"]);

    // And when the network goes while it runs.
    cloud.stop();
    fs::write(mount.path("new"), "new").unwrap();
    until("it is offline", || !mount.status().mappings[0].online);
    fs::write(mount.path("newer"), "newer").unwrap();
    assert_eq!(fs::read(mount.path("new")).unwrap(), b"new");
    cloud.restart();
    mount.wait_all();
    cloud.holds("data/new", b"new");
    cloud.holds("data/newer", b"newer");
    service.signal(Signal::TERM);
    service.ends_well(&mount, PATIENCE);
}

#[test]
fn a_program_that_keeps_a_file_open_does_not_keep_the_daemon() {
    let cloud = Cloud::start();
    let mount = Mount::prepare(&cloud, &Options::default());
    // Declared first, so that it is closed last: a close waits for its daemon or for its end.
    let mut open;
    let mut service = Service::ready(&mount);
    fs::write(mount.path("closed"), "closed").unwrap();
    open = fs::File::create(mount.path("open")).unwrap();
    open.write_all(b"half").unwrap();
    // A child that inherits it closes it: that FLUSH tells of no end.
    assert!(Command::new("true").status().unwrap().success());
    service.signal(Signal::TERM);
    service.ends_well(&mount, HURRY);
    drop(open);
    cloud.holds("data/closed", b"closed");
    assert!(cloud.object("data/open").is_none(), "its writer never closed it");

    // It is held and shown, not lost.
    let mut service = Service::ready(&mount);
    let status = mount.status();
    assert_eq!(status.torn.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["/open"]);
    service.signal(Signal::TERM);
    service.ends_well(&mount, HURRY);
}

#[test]
fn unmounted_by_others_it_drains_and_hears_its_manager() {
    let cloud = Cloud::start();
    hang_uploads(&cloud);
    let mount = Mount::prepare(&cloud, &lazy());
    let mut service = Service::ready(&mount);
    fs::write(mount.path("slow"), "slow").unwrap();
    fs::write(mount.path("quick"), "quick").unwrap();
    // As at shutdown: the manager unmounts, and tells the service to stop.
    disk::unmount(mount.dir(), false).unwrap();
    service.until_progress();
    until_hanging(&cloud);
    service.signal(Signal::TERM);
    until("what can go up does", || service.until_progress().get("STATUS").unwrap().contains("1 files, 4 B"));
    cloud.holds("data/quick", b"quick");
    service.signal(Signal::TERM);
    service.ends_well(&mount, HURRY);

    cloud.emulator().clear_faults();
    let mut service = Service::ready(&mount);
    mount.wait_all();
    cloud.holds("data/slow", b"slow");
    service.signal(Signal::TERM);
    service.ends_well(&mount, PATIENCE);
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd/ferryfs@.service");
    let text = fs::read_to_string(unit).unwrap();
    for line in [
        "Type=notify",
        "ExecStart=/usr/bin/ferryfs mount --foreground --config /etc/ferryfs/%i.toml",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        "KillMode=mixed",
        "WantedBy=multi-user.target",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}");
    }
    // It works without the network, so it must not wait for it.
    assert!(!text.contains("network-online.target"));

    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("ferryfs@.service");
    fs::write(&copy, text.replace("/usr/bin/ferryfs", env!("CARGO_BIN_EXE_ferryfs"))).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg(&copy).output() {
        Ok(output) => {
            // A key that it does not know is a warning only.
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("ferryfs"), "{said}");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    }
}
