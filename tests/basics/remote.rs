//! close and fsync that wait for the bucket.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ferryfs::checksum::crc64;
use ferryfs::emulator::Action;

use super::both;
use super::harness::{BUCKET, Cloud, Mapping, Mount, Options, pattern, until};

/// More than two parts of 1 MiB.
pub(super) const PARTS: usize = 2_600_000;

/// Nothing goes up by itself while a test runs.
pub(super) const NEVER: &str = "12h";

pub(super) fn remote_close(options: &mut Options) {
    options.write_back = "close = \"remote\"".to_owned();
    options.delay = NEVER;
}

fn remote_fsync(options: &mut Options) {
    options.write_back = "fsync = \"remote\"".to_owned();
    options.delay = NEVER;
}

/// close(2), with its result.
pub(super) fn close(file: File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std's files swallow the result of close(2)")]
    // SAFETY: the descriptor was given up by its owner just now.
    let closed = unsafe { libc::close(file.into_raw_fd()) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The errno of a failed call.
#[track_caller]
fn errno(result: io::Result<()>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

pub(super) fn new(mount: &Mount, name: &str, bytes: &[u8]) -> File {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(mount.path(name)).unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// CRC64 of every version that the store ever had under a key.
pub(super) fn versions(cloud: &Cloud, key: &str) -> Vec<u64> {
    cloud.emulator().stores().into_iter().filter(|store| store.key == key).map(|store| store.crc64).collect()
}

/// These versions, and no other, were ever stored.
#[track_caller]
pub(super) fn stored(cloud: &Cloud, key: &str, versions_wanted: &[&[u8]]) {
    let wanted: Vec<u64> = versions_wanted.iter().map(|bytes| crc64(bytes).0).collect();
    assert_eq!(versions(cloud, key), wanted, "versions of {key}");
    assert_eq!(cloud.emulator().uploads(BUCKET), [], "an upload was left behind");
}

/// Backing files of content that the bucket lacks.
pub(super) fn dirty_files(mount: &Mount) -> usize {
    files_in(&mount.state_dir().join("dirty"))
}

/// Files that are kept in the cache, or on their way.
pub(super) fn clean_files(mount: &Mount) -> usize {
    files_in(&mount.cache_dir().join("clean"))
}

fn files_in(dir: &Path) -> usize {
    let shards = fs::read_dir(dir).unwrap();
    shards.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn a_close_that_waits_for_the_bucket_finds_the_object_there() {
    both(remote_close, |cloud, mount| {
        for (name, size) in [("small", 5_000), ("large", PARTS)] {
            let key = format!("data/{name}");
            let (one, two) = (pattern(1, size), pattern(2, size + 7));
            close(new(mount, name, &one)).unwrap();
            cloud.holds(&key, &one);
            close(new(mount, name, &two)).unwrap();
            cloud.holds(&key, &two);
            // A part of it, in place.
            let file = OpenOptions::new().write(true).open(mount.path(name)).unwrap();
            file.write_all_at(b"three", 100).unwrap();
            close(file).unwrap();
            let mut three = two.clone();
            three[100..105].copy_from_slice(b"three");
            cloud.holds(&key, &three);
            // Nothing was written: nothing is sent.
            close(OpenOptions::new().write(true).open(mount.path(name)).unwrap()).unwrap();
            mount.wait_all();
            stored(cloud, &key, &[&one, &two, &three]);
            assert_eq!(dirty_files(mount), 0, "what the bucket has counts as cached");
            assert!(cloud.announced().contains(&key));
        }
    });
}

/// Larger than what is fetched whole when it is opened: parts of it are nowhere but in the bucket (C7).
#[test]
fn a_file_that_is_only_partly_here_is_made_whole_before_it_goes_up() {
    both(
        |options| {
            remote_close(options);
            options.write_back.push_str("\nfsync = \"remote\"");
        },
        |cloud, mount| {
            let mut bytes = pattern(5, 20 << 20);
            cloud.put("data/big", &bytes);
            let file = OpenOptions::new().write(true).open(mount.path("big")).unwrap();
            for (at, word, sync) in [(10 << 20, b"one", true), (5, b"two", false)] {
                file.write_all_at(word, at as u64).unwrap();
                bytes[at..at + 3].copy_from_slice(word);
                if sync {
                    file.sync_all().unwrap();
                    cloud.holds("data/big", &bytes);
                }
            }
            close(file).unwrap();
            cloud.holds("data/big", &bytes);
            let file = OpenOptions::new().write(true).open(mount.path("big")).unwrap();
            file.write_all_at(b"three", 7 << 20).unwrap();
            close(file).unwrap();
            bytes[7 << 20..(7 << 20) + 5].copy_from_slice(b"three");
            cloud.holds("data/big", &bytes);
        },
    );
}

#[test]
fn a_close_tells_why_the_bucket_does_not_have_it_and_it_goes_up_later() {
    both(remote_close, |cloud, mount| {
        let refused = |status, code: &str| Action::Status { status, code: code.to_owned(), retry_after: None };
        let cases = [
            (refused(403, "AccessDenied"), libc::EACCES),
            (refused(403, "QuotaExceeded"), libc::EDQUOT),
            (refused(400, "InvalidRequest"), libc::EIO),
        ];
        for (index, (action, expected)) in cases.into_iter().enumerate() {
            let name = format!("file{index}");
            let key = format!("data/{name}");
            cloud.fault("PUT", "object", &key, action, 1);
            let bytes = pattern(index as u64, 4000);
            assert_eq!(errno(close(new(mount, &name, &bytes))), expected, "{name}");
            assert_eq!(fs::read(mount.path(&name)).unwrap(), bytes);
            until("it goes up in the background", || cloud.object(&key).is_some());
            mount.wait(&name);
            stored(cloud, &key, &[&bytes]);
        }
        cloud.all_faults_met();
        // Applied, but nobody said so: looked for, found, no error.
        cloud.fault("PUT", "object", "data/cut", Action::ApplyThenCut, 1);
        close(new(mount, "cut", b"found")).unwrap();
        cloud.holds("data/cut", b"found");
        // Kept otherwise than sent: sent again, no error.
        cloud.fault("PUT", "object", "data/wrong", Action::WrongCrc, 1);
        close(new(mount, "wrong", b"right")).unwrap();
        cloud.holds("data/wrong", b"right");
        cloud.all_faults_met();
    });
}

#[test]
fn without_the_network_a_close_fails_in_bounded_time_and_nothing_is_lost() {
    for passthrough in [true, false] {
        let mut cloud = Cloud::start();
        let mut options = Options { passthrough, ..Options::default() };
        remote_close(&mut options);
        options.write_back.push_str("\nfsync = \"remote\"");
        let mut mount = Mount::new(&cloud, options);
        let mut file = new(&mount, "file", b"one ");
        cloud.stop();
        let begun = Instant::now();
        assert_eq!(errno(file.sync_all()), libc::EIO);
        file.write_all(b"two").unwrap();
        assert_eq!(errno(close(file)), libc::EIO);
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_eq!(fs::read(mount.path("file")).unwrap(), b"one two");
        cloud.restart();
        mount.wait("file");
        cloud.holds("data/file", b"one two");
        stored(&cloud, "data/file", &[b"one two"]);
        mount.umount();
    }
}

#[test]
fn an_fsync_that_waits_for_the_bucket_uploads_the_open_file() {
    both(remote_fsync, |cloud, mount| {
        for (name, size) in [("small", 5_000), ("large", PARTS)] {
            let key = format!("data/{name}");
            let one = pattern(1, size);
            let file = new(mount, name, &one);
            file.sync_all().unwrap();
            cloud.holds(&key, &one);
            file.sync_data().unwrap();
            drop(file);
            mount.wait(name);
            stored(cloud, &key, &[&one]);

            let file = OpenOptions::new().write(true).open(mount.path(name)).unwrap();
            file.write_all_at(b"two", 10).unwrap();
            file.sync_data().unwrap();
            let mut two = one.clone();
            two[10..13].copy_from_slice(b"two");
            cloud.holds(&key, &two);
            file.write_all_at(b"three", size as u64).unwrap();
            let mut three = two.clone();
            three.extend_from_slice(b"three");
            close(file).unwrap();
            cloud.holds(&key, &two);
            // Closed, not yet uploaded: an fsync of whoever has it open brings it there.
            File::open(mount.path(name)).unwrap().sync_all().unwrap();
            cloud.holds(&key, &three);
            mount.wait_all();
            stored(cloud, &key, &[&one, &two, &three]);
        }
    });
}

#[test]
fn an_fsync_of_a_directory_waits_for_its_names() {
    both(remote_fsync, |cloud, mount| {
        let sync = |name: &str| File::open(mount.path(name)).unwrap().sync_all().unwrap();
        fs::create_dir(mount.path("dir")).unwrap();
        fs::create_dir(mount.path("other")).unwrap();
        sync("");
        assert_eq!(cloud.keys(), ["data/dir/", "data/other/"]);
        for name in ["a", "b", "c"] {
            fs::write(mount.path("dir").join(name), name).unwrap();
        }
        sync("dir");
        assert_eq!(cloud.keys(), ["data/dir/", "data/dir/a", "data/dir/b", "data/dir/c", "data/other/"]);
        fs::rename(mount.path("dir/a"), mount.path("dir/moved")).unwrap();
        fs::rename(mount.path("dir/b"), mount.path("other/b")).unwrap();
        fs::remove_file(mount.path("dir/c")).unwrap();
        // One that stays open keeps nobody waiting.
        let open = new(mount, "dir/open", b"half");
        sync("dir");
        assert_eq!(cloud.keys(), ["data/dir/", "data/dir/moved", "data/other/", "data/other/b"]);
        // The kernel tells of the end of a handle a moment after close(2).
        drop(open);
        sync("dir");
        cloud.holds("data/dir/open", b"half");
        for round in 0..20 {
            let name = format!("dir/round{round}");
            drop(new(mount, &name, name.as_bytes()));
            sync("dir");
            cloud.holds(&format!("data/{name}"), name.as_bytes());
        }
    });
}

/// After the sync of an upload every store through a mapping moves the file's times, or what comes
/// after that upload would be taken for it.
#[test]
fn stores_through_a_mapping_after_an_fsync_are_not_missed() {
    both(remote_fsync, |cloud, mount| {
        for round in 0..10 {
            let name = format!("mapped{round}");
            let key = format!("data/{name}");
            let mut bytes = vec![b'.'; 8192];
            let file = new(mount, &name, &bytes);
            let mapping = Mapping::new(&file, 8192);
            for (byte, at) in [(b'a', 0), (b'b', 0), (b'c', 5000)] {
                mapping.store(at, &[byte]);
                bytes[at] = byte;
                file.sync_all().unwrap();
                cloud.holds(&key, &bytes);
            }
            // The page is clean now; these two stores go to it one after the other.
            mapping.store(0, b"d");
            mapping.store(1, b"e");
            bytes[..2].copy_from_slice(b"de");
            drop(file);
            drop(mapping);
            File::open(mount.path(&name)).unwrap().sync_all().unwrap();
            cloud.holds(&key, &bytes);
        }
    });
}

#[test]
fn a_file_is_looked_at_and_read_while_its_close_waits() {
    for passthrough in [true, false] {
        let cloud = Cloud::start();
        let mut options = Options { passthrough, ..Options::default() };
        remote_close(&mut options);
        let mut mount = Mount::new(&cloud, options);
        cloud.fault("PUT", "object", "data/file", Action::Delay(3000), 1);
        let file = new(&mount, "file", b"content");
        let closed = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                close(file).unwrap();
                closed.store(true, Ordering::SeqCst);
            });
            until("the upload is under way", || !mount.status().in_flight.is_empty());
            assert_eq!(fs::metadata(mount.path("file")).unwrap().len(), 7);
            assert_eq!(fs::read(mount.path("file")).unwrap(), b"content");
            close(new(&mount, "other", b"not held up")).unwrap();
            assert!(!closed.load(Ordering::SeqCst), "all that was to be shown while it waits");
        });
        cloud.holds("data/file", b"content");
        mount.umount();
    }
}

/// Half a file never replaces a good one, also where a close uploads (P2, C2, C6).
#[test]
fn a_close_that_is_none_uploads_nothing() {
    both(remote_close, |cloud, mount| {
        close(new(mount, "report", b"good\n")).unwrap();
        // The descriptor of a child that ends, while the program that opened it goes on.
        let mut program = Command::new("sh");
        program.args(["-c", "{ /bin/echo half; read -r never; } > report"]);
        program.current_dir(mount.dir()).stdin(Stdio::piped());
        let mut program = program.spawn().unwrap();
        until("half is written", || fs::read(mount.path("report")).unwrap() == b"half\n");
        // Whatever comes after it is through.
        close(new(mount, "after", b"x")).unwrap();
        cloud.holds("data/report", b"good\n");
        // And of one that is killed.
        program.kill().unwrap();
        program.wait().unwrap();
        until("it is held", || mount.status().torn.len() == 1);
        stored(cloud, "data/report", &[b"good\n"]);
        close(new(mount, "report", b"anew\n")).unwrap();
        stored(cloud, "data/report", &[b"good\n", b"anew\n"]);
    });
}

/// A write with O_DIRECT may end after a version was sent and leave no trace in the file's times.
#[test]
fn a_file_open_with_o_direct_goes_up_again_when_it_is_closed() {
    both(remote_fsync, |cloud, mount| {
        let one = pattern(31, 5_000);
        let file = new(mount, "file", &one);
        let mut options = OpenOptions::new();
        let direct = options.write(true).custom_flags(libc::O_DIRECT).open(mount.path("file")).unwrap();
        file.sync_all().unwrap();
        stored(cloud, "data/file", &[&one]);
        drop(direct);
        drop(file);
        mount.wait("file");
        stored(cloud, "data/file", &[&one, &one]);
        // Without such a handle it is not sent again.
        let file = new(mount, "file", &one);
        file.sync_all().unwrap();
        drop(file);
        mount.wait("file");
        stored(cloud, "data/file", &[&one, &one, &one]);
    });
}

#[test]
fn a_file_that_is_moved_or_removed_while_it_is_open_ends_where_it_belongs() {
    both(
        |options| {
            remote_fsync(options);
            options.write_back.push_str("\nclose = \"remote\"");
        },
        |cloud, mount| {
            let mut moved = new(mount, "old", b"one");
            moved.sync_all().unwrap();
            cloud.holds("data/old", b"one");
            fs::rename(mount.path("old"), mount.path("new")).unwrap();
            moved.write_all(b" two").unwrap();
            moved.sync_all().unwrap();
            cloud.holds("data/new", b"one two");
            close(moved).unwrap();
            let mut removed = new(mount, "gone", b"one");
            removed.sync_all().unwrap();
            cloud.holds("data/gone", b"one");
            fs::remove_file(mount.path("gone")).unwrap();
            removed.write_all(b" two").unwrap();
            removed.sync_all().unwrap();
            close(removed).unwrap();
            mount.wait_all();
            assert_eq!(cloud.keys(), ["data/new"]);
            stored(cloud, "data/new", &[b"one two"]);
            stored(cloud, "data/gone", &[b"one"]);
        },
    );
}

/// The daemon dies in the middle of an upload that a program waits for.
#[test]
fn a_crash_while_a_program_waits_tears_nothing_and_leaves_nothing_behind() {
    for (point, size) in [
        ("upload-before-put:2", 5_000),
        ("upload-after-put:2", 5_000),
        ("upload-after-part:5", PARTS),
        ("upload-before-complete:2", PARTS),
        ("upload-after-complete:2", PARTS),
        ("upload-after-clean-owed:2", PARTS),
    ] {
        eprintln!("{point}");
        let cloud = Cloud::start();
        let mut options = Options::default();
        remote_close(&mut options);
        options.write_back.push_str("\nfsync = \"remote\"");
        let mut mount = Mount::prepare(&cloud, &options);
        mount.env.push(("FERRYFS_FAILPOINT", point.to_owned()));
        mount.remount();
        let (good, better) = (pattern(1, size), pattern(2, size + 1));
        close(new(&mount, "file", &good)).unwrap();
        close(new(&mount, "file", &better)).unwrap_err();
        mount.wait_for_death();
        mount.env.clear();
        mount.remount();
        mount.wait_all();
        cloud.holds("data/file", &better);
        assert!(versions(&cloud, "data/file").iter().all(|crc| [crc64(&good).0, crc64(&better).0].contains(crc)));
        assert_eq!(fs::read(mount.path("file")).unwrap(), better);
        assert!(mount.status().torn.is_empty(), "{point}: it was closed");
        assert_eq!((cloud.emulator().uploads(BUCKET), dirty_files(&mount)), (vec![], 0), "{point}");
        mount.umount();
    }
}
