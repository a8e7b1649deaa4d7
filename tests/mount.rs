//! The kernel's side: real mounts of a bucket in the emulator. Needs root and /dev/fuse; the
//! tests fail without, rather than pass unseen.

use std::fs;
use std::io;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferryfs::cache::Cache;
use ferryfs::clock::SystemClock;
use ferryfs::disk;
use ferryfs::download::Downloader;
use ferryfs::emulator::Emulator;
use ferryfs::fuse::{Ended, MountOptions, Mounted, mount};
use ferryfs::journal::{Journal, TargetKind};
use ferryfs::namespace::{Defaults, Mapping, Namespace};
use ferryfs::outbox::Outbox;
use ferryfs::store::{Addressing, CosOptions, Credentials, cos};
use ferryfs::task::{Guardian, Shutdown};
use ferryfs::upload::Uploader;
use ferryfs::vfs::{ClosePolicy, FsyncPolicy, KilledWriter, Parts, Vfs};
use tokio::runtime::Runtime;

const BUCKET: &str = "examplebucket-1250000000";
const PREFIX: &str = "data/";

/// A mount and all that it stands on.
struct Setup {
    mounted: Mounted,
    vfs: Vfs,
    emulator: Emulator,
    guardian: Guardian,
    shutdown: Shutdown,
    journal: Journal,
    runtime: Runtime,
    dir: PathBuf,
    _root: tempfile::TempDir,
}

impl Setup {
    fn new(change: impl FnOnce(&mut MountOptions)) -> Setup {
        Setup::with_objects(&[], change)
    }

    fn with_objects(objects: &[(&str, &[u8])], change: impl FnOnce(&mut MountOptions)) -> Setup {
        // Not in /tmp, which may be a filesystem that takes no passthrough.
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let place = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (state, cache_dir, dir) = (place("state"), place("cache"), place("mnt"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let entered = runtime.enter();
        let emulator = runtime
            .block_on(Emulator::start(ferryfs::emulator::Options {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                root: place("emulator"),
                buckets: vec![BUCKET.to_owned()],
                credentials: vec![("AKIDtest".to_owned(), "secret".to_owned())],
                oms_credentials: None,
                latency: Duration::ZERO,
                bandwidth: None,
            }))
            .unwrap();
        for (name, bytes) in objects {
            emulator.put_object(BUCKET, &format!("{PREFIX}{name}"), bytes).unwrap();
        }
        let mut options = CosOptions::new(BUCKET, "ap-guangzhou", Credentials::new("AKIDtest", "secret", None).into());
        options.endpoint = Some(emulator.store_url());
        options.addressing = Addressing::Path;
        let store = cos(options).unwrap();

        let clock = Arc::new(SystemClock);
        let journal = Journal::open(&state).unwrap();
        let target = journal.target(TargetKind::Mapping, "cos://examplebucket-1250000000/data/").unwrap();
        let snapshot = journal.load().unwrap();
        let defaults = Defaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755 };
        let mapping = Mapping::new(target, String::new(), PREFIX.to_owned(), store, None, defaults);
        let options = ferryfs::namespace::Options { attr_ttl: Duration::from_secs(10) };
        let (namespace, replaced) =
            Namespace::open(journal.clone(), clock.clone(), options, vec![Arc::new(mapping)], &snapshot).unwrap();
        let options = ferryfs::cache::Options { state_dir: state, cache_dir: cache_dir.clone(), limit: 1 << 30 };
        let cache = Cache::open(options, journal.clone()).unwrap();
        let rows = (&snapshot.announcements[..], &snapshot.records[..]);
        let outbox =
            Outbox::open(journal.clone(), clock, ferryfs::outbox::Options::default(), Vec::new(), rows).unwrap();
        let options = ferryfs::upload::Options {
            delay: Duration::from_millis(50),
            mount_uuid: journal.mount_uuid().to_owned(),
            ..ferryfs::upload::Options::default()
        };
        let uploader = Uploader::open(namespace.clone(), cache.clone(), outbox, options, &snapshot);
        let (guardian, shutdown) = (Guardian::new(), Shutdown::new());
        let worker = uploader.clone().run(shutdown.clone());
        guardian.spawn("uploader", worker);
        let parts = Parts {
            namespace,
            replaced,
            cache,
            uploader,
            downloader: Downloader::new(ferryfs::download::Options::default()),
            guardian: guardian.clone(),
            shutdown: shutdown.clone(),
        };
        let options = ferryfs::vfs::Options {
            close: ClosePolicy::Process,
            fsync: FsyncPolicy::Disk,
            upload_open: None,
            killed_writer: KilledWriter::Hold,
            whole_below: 1 << 20,
            boot_id: disk::boot_id().unwrap(),
        };
        let vfs = Vfs::start(parts, options);
        drop(entered);

        let mut options = MountOptions::new(dir.clone(), format!("cos://{BUCKET}/{PREFIX}"), cache_dir);
        change(&mut options);
        let mounted = mount(vfs.clone(), runtime.handle().clone(), options).unwrap();
        Setup { mounted, vfs, emulator, guardian, shutdown, journal, runtime, dir, _root: root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Waits until the bucket holds these bytes under a name.
    fn wait_for_object(&self, name: &str, bytes: &[u8]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let key = format!("{PREFIX}{name}");
        loop {
            let object = self.emulator.object(BUCKET, &key);
            if object.is_some_and(|object| object.bytes().unwrap() == bytes) {
                return;
            }
            assert!(Instant::now() < deadline, "{key} is not in the bucket: {:?}", self.emulator.keys(BUCKET));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Nothing panicked below.
    fn check(&self) {
        assert_eq!(self.guardian.reason(), None);
    }

    fn unmount(self) {
        self.mounted.unmount(false).unwrap();
        assert_eq!(self.mounted.join(), Ended::Unmounted);
        assert!(disk::mount_info(&self.dir).unwrap().is_none());
        self.check();
        self.shutdown.trigger();
        self.journal.close().unwrap();
    }
}

/// Bytes without a short period.
fn pattern(size: usize) -> Vec<u8> {
    (0..size as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

/// Names in a directory, as readdir(3) gives them.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What any program does with files.
fn programs_work(setup: &Setup) {
    let file = setup.path("file");
    let bytes = pattern(3_000_000);
    fs::write(&file, &bytes).unwrap();
    assert!(fs::read(&file).unwrap() == bytes);
    setup.wait_for_object("file", &bytes);

    let mut appended = fs::OpenOptions::new().append(true).open(&file).unwrap();
    appended.write_all(b"more").unwrap();
    appended.sync_all().unwrap();
    appended.sync_data().unwrap();
    assert_eq!(appended.metadata().unwrap().len(), 3_000_004);
    drop(appended);
    let changed = fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    changed.write_all_at(b"XYZ", 1_000_000).unwrap();
    let mut three = [0; 5];
    changed.read_exact_at(&mut three, 999_999).unwrap();
    assert_eq!(&three[1..4], b"XYZ");
    changed.set_len(1_000_003).unwrap();
    drop(changed);
    let mut expected = bytes[..1_000_000].to_vec();
    expected.extend_from_slice(b"XYZ");
    assert!(fs::read(&file).unwrap() == expected);

    fs::create_dir(setup.path("dir")).unwrap();
    fs::rename(&file, setup.path("dir/renamed")).unwrap();
    assert_eq!(errno(fs::metadata(&file)), Some(libc::ENOENT));
    setup.wait_for_object("dir/renamed", &expected);

    let many: Vec<String> = (0..150).map(|n| format!("a file with a longer name {n:04}")).collect();
    for name in &many {
        fs::write(setup.path("dir").join(name), name).unwrap();
    }
    let mut all = many.clone();
    all.push("renamed".to_owned());
    assert_eq!(names(&setup.path("dir")), all);
    for entry in fs::read_dir(setup.path("dir")).unwrap() {
        let entry = entry.unwrap();
        let length = entry.metadata().unwrap().len();
        assert!(length == 30 || entry.file_name() == "renamed", "{entry:?} {length}");
    }
    fs::remove_file(setup.path("dir/renamed")).unwrap();
    assert_eq!(errno(fs::remove_dir(setup.path("dir"))), Some(libc::ENOTEMPTY));
    setup.check();
}

#[test]
fn programs_work_through_passthrough() {
    let setup = Setup::new(|_| {});
    assert_eq!(setup.vfs.passthrough().0, setup.mounted.passthrough().is_ok());
    if disk::kernel_version().unwrap() < (6, 9) {
        assert!(setup.mounted.passthrough().unwrap_err().contains("6.9"));
    }
    programs_work(&setup);
    setup.unmount();
}

#[test]
fn programs_work_without_passthrough() {
    let setup = Setup::new(|options| options.passthrough = false);
    assert_eq!(setup.mounted.passthrough(), Err("switched off by configuration"));
    programs_work(&setup);
    setup.unmount();
}

#[test]
fn programs_work_with_several_dispatch_threads() {
    let setup = Setup::new(|options| options.threads = 3);
    programs_work(&setup);
    setup.unmount();
}

#[test]
fn objects_are_read_whole_and_in_pieces() {
    let (small, large) = (pattern(5000), pattern(6_000_001));
    let objects = [("small", &small[..]), ("deep/large", &large[..]), ("empty", &[][..])];
    let setup = Setup::with_objects(&objects, |_| {});
    assert_eq!(names(&setup.dir), ["deep", "empty", "small"]);
    assert!(fs::read(setup.path("small")).unwrap() == small);
    assert!(fs::read(setup.path("empty")).unwrap().is_empty());
    let mut file = fs::File::open(setup.path("deep/large")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 6_000_001);
    let mut piece = vec![0; 10_000];
    file.seek(SeekFrom::Start(5_000_000)).unwrap();
    file.read_exact(&mut piece).unwrap();
    assert!(piece == large[5_000_000..5_010_000]);
    drop(file);
    assert!(fs::read(setup.path("deep/large")).unwrap() == large);
    setup.unmount();
}

#[test]
fn attributes_and_refusals_reach_programs() {
    let setup = Setup::new(|_| {});
    let path = setup.path("file");
    fs::write(&path, b"x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
    // One and a half seconds before 1970.
    let status = Command::new("touch").args(["-d", "1969-12-31T23:59:58.5Z"]).arg(&path).status().unwrap();
    assert!(status.success());
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o4711);
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(metadata.nlink(), 1);
    assert_eq!(errno(fs::hard_link(&path, setup.path("other"))), Some(libc::EPERM));
    assert_eq!(errno(fs::metadata(setup.path("none"))), Some(libc::ENOENT));
    assert_eq!(errno(fs::write(setup.path(&"n".repeat(256)), b"")), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(fs::create_dir(&path)), Some(libc::EEXIST));
    assert_eq!(errno(fs::read_dir(&path).map(|_| ())), Some(libc::ENOTDIR));
    std::os::unix::fs::symlink("file", setup.path("link")).unwrap();
    assert_eq!(fs::read_link(setup.path("link")).unwrap(), Path::new("file"));
    assert_eq!(fs::read(setup.path("link")).unwrap(), b"x");
    assert!(disk::statvfs(&setup.dir).unwrap().blocks > 0);
    setup.unmount();
}

#[test]
fn the_table_of_mounts_shows_type_and_source() {
    let setup = Setup::new(|options| options.fs_name = "cos://a/b, c d/".to_owned());
    let info = disk::mount_info(&setup.dir).unwrap().unwrap();
    assert_eq!((info.fstype.as_str(), info.source.as_str()), ("fuse.ferryfs", "cos://a/b, c d/"));
    setup.unmount();
}

#[test]
fn a_read_only_mount_refuses_writes() {
    let setup = Setup::with_objects(&[("file", b"content")], |options| options.read_only = true);
    assert_eq!(fs::read(setup.path("file")).unwrap(), b"content");
    assert_eq!(errno(fs::write(setup.path("other"), b"")), Some(libc::EROFS));
    setup.unmount();
}

#[test]
fn what_is_in_use_is_unmounted_only_lazily() {
    let setup = Setup::new(|_| {});
    let mut file = fs::File::create(setup.path("file")).unwrap();
    file.write_all(b"one ").unwrap();
    assert_eq!(setup.mounted.unmount(false).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    setup.mounted.unmount(true).unwrap();
    assert!(disk::mount_info(&setup.dir).unwrap().is_none());
    file.write_all(b"two").unwrap();
    assert_eq!(*setup.mounted.watch().borrow(), None);
    drop(file);
    assert_eq!(setup.runtime.block_on(setup.mounted.ended()), Ended::Unmounted);
    setup.wait_for_object("file", b"one two");
    setup.check();
}

#[test]
fn an_unmount_by_somebody_else_ends_the_session() {
    let setup = Setup::new(|_| {});
    disk::unmount(&setup.dir, false).unwrap();
    assert_eq!(setup.mounted.join(), Ended::Unmounted);
    // What is mounted there next is not ours to take away.
    setup.mounted.unmount(false).unwrap();
}

#[test]
fn a_dropped_mount_is_taken_away() {
    let setup = Setup::new(|_| {});
    let dir = setup.dir.clone();
    assert!(disk::mount_info(&dir).unwrap().is_some());
    drop(setup.mounted);
    assert!(disk::mount_info(&dir).unwrap().is_none());
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let setup = Setup::new(|_| {});
    let options = MountOptions::new(setup.path("none"), "cos://b/".to_owned(), setup.dir.clone());
    let error = match mount(setup.vfs.clone(), setup.runtime.handle().clone(), options) {
        Ok(_) => panic!("mounted on nothing"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("mnt/none"), "{error}");
    setup.unmount();
}
