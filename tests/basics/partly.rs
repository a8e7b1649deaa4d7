//! C7: large files of which most is in the bucket only are written to, cut, mapped and renamed without
//! being fetched first, and end in the bucket as programs made them.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use ferryfs::emulator::{Action, Side};
use rustix::fs::{FallocateFlags, fallocate};

use super::both;
use super::harness::{Cloud, Mapping, Mount, Options, errno, pattern, shown, until};
use super::remote::{close, remote_close};

const MIB: usize = 1 << 20;
/// Beyond what is fetched whole when it is opened.
const LARGE: usize = 24 * MIB;

fn open_rw(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Bytes of an object that were sent, by the emulator's log.
fn fetched(cloud: &Cloud, key: &str) -> u64 {
    cloud.requests("GET", key).iter().map(|request| request.response_bytes).sum()
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end as u64).unwrap()
    }
}

#[test]
fn small_writes_into_a_large_remote_file_fetch_little_of_it() {
    const SIZE: usize = 256 * MIB;
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options { part_size: "16MiB", ..Options::default() });
    let mut model = pattern(11, SIZE);
    cloud.put("data/big", &model);
    let noise = pattern(12, 8 << 10);
    let mut random = Random(13);

    let file = open_rw(&mount.path("big"));
    for round in 0..100 {
        let (at, from) = (random.below(SIZE - 4096), random.below(4096));
        file.write_all_at(&noise[from..from + 4096], at as u64).unwrap();
        model[at..at + 4096].copy_from_slice(&noise[from..from + 4096]);
        if round % 10 == 0 {
            let mut back = vec![0; 12_288];
            let at = at.saturating_sub(4096).min(SIZE - back.len());
            file.read_exact_at(&mut back, at as u64).unwrap();
            assert!(back == model[at..at + back.len()], "round {round}: what was read around a write");
        }
    }
    assert_eq!(file.metadata().unwrap().len(), SIZE as u64);
    drop(file);
    let sent = fetched(&cloud, "data/big");
    eprintln!("fetched before close returned: {sent} bytes, {:.2} %", sent as f64 * 100.0 / SIZE as f64);
    // close(2) has returned, and with it the fill has begun: the log may show its first requests.
    assert!(sent > 0 && sent < SIZE as u64 / 10, "{sent} bytes were fetched before close returned");

    mount.wait("big");
    cloud.holds("data/big", &model);
    // Whole by now: not a byte is fetched any more.
    let sent = fetched(&cloud, "data/big");
    assert!(fs::read(mount.path("big")).unwrap() == model);
    open_rw(&mount.path("big")).write_all_at(b"once more", 5).unwrap();
    assert_eq!(fetched(&cloud, "data/big"), sent);
}

#[test]
fn what_is_done_to_a_file_that_is_partly_here_ends_in_the_bucket() {
    both(
        |_| {},
        |cloud, mount| {
            let mut model = pattern(21, LARGE);
            cloud.put("data/file", &model);
            let noise = pattern(22, 256 << 10);
            let mut random = Random(23);
            let file = open_rw(&mount.path("file"));
            for round in 0..400 {
                let at = random.below(model.len().max(1));
                let length = 1 + random.below(100_000);
                match random.below(20) {
                    0 => {
                        let size = random.below(LARGE + MIB);
                        file.set_len(size as u64).unwrap();
                        model.resize(size, 0);
                    }
                    1 => {
                        let end = (at + length).min(model.len());
                        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                        fallocate(file.as_fd(), mode, at as u64, length as u64).unwrap();
                        model[at.min(end)..end].fill(0);
                    }
                    2 => {
                        fallocate(file.as_fd(), FallocateFlags::ZERO_RANGE, at as u64, length as u64).unwrap();
                        model.resize(model.len().max(at + length), 0);
                        model[at..at + length].fill(0);
                    }
                    3 => {
                        fallocate(file.as_fd(), FallocateFlags::empty(), at as u64, length as u64).unwrap();
                        model.resize(model.len().max(at + length), 0);
                    }
                    4..10 => {
                        let from = random.below(128 << 10);
                        file.write_all_at(&noise[from..from + length], at as u64).unwrap();
                        model.resize(model.len().max(at + length), 0);
                        model[at..at + length].copy_from_slice(&noise[from..from + length]);
                    }
                    _ => {
                        let mut back = vec![0; length.min(model.len() - at.min(model.len()))];
                        file.read_exact_at(&mut back, at as u64).unwrap();
                        assert!(back == model[at..at + back.len()], "round {round}: {length} bytes at {at}");
                    }
                }
                assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "round {round}");
            }
            drop(file);
            mount.wait("file");
            cloud.holds("data/file", &model);
            assert!(fs::read(mount.path("file")).unwrap() == model);
            mount.forget_all();
            assert!(fs::read(mount.path("file")).unwrap() == model);
        },
    );
}

#[test]
fn a_large_remote_file_is_cut_without_being_fetched() {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options::default());
    let bytes = pattern(31, LARGE);
    for name in ["cut", "emptied", "grown"] {
        cloud.put(&format!("data/{name}"), &bytes);
    }
    let cut = |name, size| OpenOptions::new().write(true).open(mount.path(name)).unwrap().set_len(size).unwrap();
    cut("cut", 5000);
    cut("emptied", 0);
    cut("grown", LARGE as u64 + 5000);
    mount.wait_all();
    cloud.holds("data/cut", &bytes[..5000]);
    cloud.holds("data/emptied", b"");
    cloud.holds("data/grown", &[bytes, vec![0; 5000]].concat());
    assert!(fetched(&cloud, "data/cut") < MIB as u64);
    assert_eq!(fetched(&cloud, "data/emptied"), 0);
}

#[test]
fn times_and_sizes_of_a_file_that_is_being_filled_are_the_programs() {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options::default());
    cloud.put("data/file", &pattern(41, LARGE));
    let path = mount.path("file");
    let file = open_rw(&path);
    let before = fs::metadata(&path).unwrap();
    // Opened, not written to: nothing changes, nothing goes up.
    drop(open_rw(&path));
    assert_eq!(fs::metadata(&path).unwrap().mtime(), before.mtime());
    file.write_all_at(b"x", 100).unwrap();
    let written = file.metadata().unwrap();
    assert!((written.mtime(), written.mtime_nsec()) > (before.mtime(), before.mtime_nsec()));
    assert_eq!(written.len(), LARGE as u64);
    let then = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(then).unwrap();
    drop(file);
    mount.wait("file");
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), then, "the fill has moved it");
    assert_eq!(cloud.count("PUT", "data/file") + cloud.count("POST", "data/file"), 2 + LARGE.div_ceil(MIB));
}

#[test]
fn mappings_of_a_file_that_is_partly_here_are_read_and_stored_through() {
    both(
        |_| {},
        |cloud, mount| {
            let mut model = pattern(51, LARGE);
            cloud.put("data/file", &model);
            let file = open_rw(&mount.path("file"));
            let mapping = Mapping::new(&file, LARGE);
            for (round, at) in [0, 5_000_000, LARGE - 4096].into_iter().enumerate() {
                assert!(mapping.load(at, 4096) == model[at..at + 4096], "page at {at}");
                let text = format!("stored through a mapping {round}");
                mapping.store(at + 10, text.as_bytes());
                model[at + 10..at + 10 + text.len()].copy_from_slice(text.as_bytes());
                file.write_all_at(b"and written beside it", at as u64 + 2000).unwrap();
                model[at + 2000..at + 2021].copy_from_slice(b"and written beside it");
                assert!(mapping.load(at, 4096) == model[at..at + 4096], "page at {at}, stored to");
            }
            drop(file);
            // The mapping outlives the descriptor.
            mapping.store(77, b"!");
            model[77] = b'!';
            drop(mapping);
            mount.wait("file");
            cloud.holds("data/file", &model);
        },
    );
}

#[test]
fn a_file_whose_base_is_replaced_before_it_is_whole_is_held() {
    for gone in [false, true] {
        let cloud = Cloud::start();
        let mut mount = Mount::new(&cloud, Options::default());
        let ours = pattern(61, LARGE);
        let theirs = pattern(62, LARGE);
        cloud.put("data/file", &ours);
        let path = mount.path("file");
        let file = open_rw(&path);
        let mut read = vec![0; 1000];
        file.read_exact_at(&mut read, 1_000_000).unwrap();
        file.write_all_at(b"local", 20_000_000).unwrap();
        if gone {
            cloud.emulator().delete_object(super::harness::BUCKET, "data/file").unwrap();
        } else {
            cloud.put("data/file", &theirs);
        }
        drop(file);
        let held = |mount: &Mount| mount.status().torn.first().map(|torn| (torn.path.clone(), torn.reason.clone()));
        until("it is held", || held(&mount).is_some());
        for start in 0..2 {
            let (at, reason) = held(&mount).unwrap();
            assert_eq!(at, "/file");
            assert!(reason.contains("parts of it"), "{reason}");
            // What is here is shown, what is not is an error, and nothing of theirs is ever mixed in.
            let file = File::open(&path).unwrap();
            assert_eq!(file.metadata().unwrap().len(), LARGE as u64);
            let mut back = [0; 5];
            file.read_exact_at(&mut back, 20_000_000).unwrap();
            assert_eq!(&back, b"local");
            file.read_exact_at(&mut read, 1_000_000).unwrap();
            assert!(read == ours[1_000_000..1_001_000], "fetched before, after {start} starts");
            assert_eq!(errno(file.read_at(&mut back, 10_000_000)), Some(libc::EIO));
            drop(file);
            mount.kill9();
            mount.remount();
        }
        assert_eq!(mount.try_wait("", Duration::from_secs(2)).status.code(), Some(1), "held is something left");
        assert_eq!(cloud.bytes("data/file"), (!gone).then(|| theirs.clone()), "the bucket keeps theirs");

        let refused = mount.run(&["recover", "accept"], &["file"]);
        assert_ne!(refused.status.code(), Some(0), "half a file cannot be accepted");
        assert!(shown(&refused).contains("parts of it are not here"), "{}", shown(&refused));
        if !gone {
            let discarded = mount.run(&["recover", "discard"], &["file", "--yes"]);
            assert!(discarded.status.success(), "{}", shown(&discarded));
            until("theirs is shown", || fs::read(&path).is_ok_and(|bytes| bytes == theirs));
            assert_eq!(held(&mount), None);
            mount.wait_all();
            continue;
        }
        // Programs write all that is missing: it is whole.
        let file = open_rw(&path);
        for at in (0..LARGE).step_by(MIB) {
            file.write_all_at(&ours[at..at + MIB], at as u64).unwrap();
        }
        drop(file);
        mount.wait_all();
        assert_eq!(held(&mount), None);
        cloud.holds("data/file", &ours);
    }
}

#[test]
fn a_base_that_arrives_corrupt_is_fetched_again_and_never_goes_up() {
    for falls in [1, 1000] {
        let cloud = Cloud::start();
        let mount = Mount::new(&cloud, Options::default());
        let mut model = pattern(81, LARGE);
        cloud.put("data/file", &model);
        let file = open_rw(&mount.path("file"));
        file.write_all_at(b"ours", 1_000_000).unwrap();
        cloud.fault("GET", "object", "data/file", Action::Corrupt(Side::Response), falls);
        drop(file);
        if falls == 1 {
            mount.wait("file");
            cloud.all_faults_met();
            model[1_000_000..1_000_004].copy_from_slice(b"ours");
        } else {
            until("it is held", || !mount.status().torn.is_empty());
            assert_eq!(mount.try_wait("", Duration::from_secs(1)).status.code(), Some(1));
        }
        cloud.holds("data/file", &model);
    }
}

#[test]
fn a_version_stays_in_the_bucket_while_a_handle_needs_its_ranges() {
    both(
        |_| {},
        |cloud, mount| {
            let bytes = pattern(71, LARGE);
            for name in ["moved", "removed", "changed", "replaced", "written"] {
                cloud.put(&format!("data/{name}"), &bytes);
            }
            let read = |name: &str| {
                let file = File::open(mount.path(name)).unwrap();
                file.read_exact_at(&mut [0; 10], 5).unwrap();
                file
            };
            let readers = [read("moved"), read("removed"), read("changed"), read("replaced")];
            let writer = open_rw(&mount.path("written"));
            writer.write_all_at(b"ours", 7).unwrap();
            fs::rename(mount.path("moved"), mount.path("moved-on")).unwrap();
            fs::write(mount.path("moved"), "another").unwrap();
            fs::remove_file(mount.path("removed")).unwrap();
            fs::set_permissions(mount.path("changed"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(mount.path("new"), "a new version").unwrap();
            fs::rename(mount.path("new"), mount.path("replaced")).unwrap();
            fs::rename(mount.path("written"), mount.path("written-on")).unwrap();
            fs::write(mount.path("written"), "another").unwrap();
            // What needs no key that is needed has gone up long before what does.
            fs::write(mount.path("other"), "x").unwrap();
            mount.wait("other");
            for (reader, name) in readers.iter().zip(["moved", "removed", "changed", "replaced"]) {
                let mut all = vec![0; LARGE];
                reader.read_exact_at(&mut all, 0).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(all == bytes, "{name}");
                cloud.holds(&format!("data/{name}"), &bytes);
            }
            drop(readers);
            drop(writer);
            mount.wait_all();
            cloud.holds("data/moved", b"another");
            cloud.holds("data/moved-on", &bytes);
            assert!(cloud.object("data/removed").is_none());
            cloud.holds("data/changed", &bytes);
            cloud.holds("data/replaced", b"a new version");
            cloud.holds("data/written", b"another");
            let mut ours = bytes;
            ours[7..11].copy_from_slice(b"ours");
            cloud.holds("data/written-on", &ours);
        },
    );
}

/// close(2) answers 0 only if the bucket has the content (P1).
#[test]
fn a_close_of_what_is_held_does_not_call_it_uploaded() {
    both(
        |options| options.write_back = "close = \"remote\"\nfsync = \"remote\"".to_owned(),
        |cloud, mount| {
            let theirs = pattern(82, LARGE);
            cloud.put("data/file", &pattern(81, LARGE));
            let file = open_rw(&mount.path("file"));
            file.write_all_at(b"local", 20_000_000).unwrap();
            cloud.put("data/file", &theirs);
            assert_eq!(errno(file.sync_all()), Some(libc::EIO));
            file.write_all_at(b"more", 10).unwrap();
            assert_eq!(errno(close(file)), Some(libc::EIO));
            cloud.holds("data/file", &theirs);
            until("it is shown as held", || mount.status().torn.len() == 1);
            let discarded = mount.run(&["recover", "discard"], &["file", "--yes"]);
            assert!(discarded.status.success(), "{}", shown(&discarded));
            cloud.holds("data/file", &theirs);
        },
    );
}

#[test]
fn a_close_that_waits_for_the_rest_of_a_file_ends_when_it_is_removed() {
    both(remote_close, |cloud, mount| {
        cloud.put("data/file", &pattern(83, LARGE));
        let file = open_rw(&mount.path("file"));
        file.write_all_at(b"local", 20_000_000).unwrap();
        cloud.fault("GET", "object", "data/file", Action::Delay(15_000), 100);
        let closing = std::thread::spawn(move || close(file));
        until("the rest is asked for", || cloud.count("GET", "data/file") > 0);
        assert!(!closing.is_finished());
        let removed = std::time::Instant::now();
        fs::remove_file(mount.path("file")).unwrap();
        closing.join().unwrap().unwrap();
        let waited = removed.elapsed();
        assert!(waited < Duration::from_secs(10), "{waited:?}");
    });
}
