//! Versions of files that others go on writing to: upload_open, and closes among several writers.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ferryfs::emulator::Action;

use super::both;
use super::harness::{BUCKET, Cloud, Mount, Options, pattern, until};
use super::remote::{NEVER, PARTS, clean_files, close, dirty_files, new, remote_close, stored, versions};

/// Ends a writer's loop, also when the test fails: its scope waits for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Records of a program that appends for ever, and what they look like.
const RECORD: usize = 512;

fn record(number: u64) -> Vec<u8> {
    pattern(number + 1, RECORD)
}

/// What the store has consists of whole records, in order, from the first.
#[track_caller]
fn whole_records(bytes: &[u8]) -> usize {
    assert_eq!(bytes.len() % RECORD, 0, "a record is torn");
    for (number, found) in bytes.chunks(RECORD).enumerate() {
        assert!(found == record(number as u64), "record {number}");
    }
    bytes.len() / RECORD
}

#[test]
fn a_file_that_stays_open_goes_up_every_interval_if_it_changed() {
    let interval = |options: &mut Options| {
        options.write_back = "upload_open = \"1s\"".to_owned();
        options.delay = NEVER;
    };
    both(interval, |cloud, mount| {
        let quiet = new(mount, "quiet", b"once");
        let large = new(mount, "large", &pattern(1, PARTS));
        let stop = AtomicBool::new(false);
        let mut log = new(mount, "log", b"");
        let records = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut records = 0;
                while !stop.load(Ordering::Relaxed) {
                    log.write_all(&record(records)).unwrap();
                    records += 1;
                    thread::sleep(Duration::from_millis(1));
                }
                records
            });
            let stopping = Stop(&stop);
            let grown = |more: usize| {
                let before = versions(cloud, "data/log").len();
                until("another version of the log", || versions(cloud, "data/log").len() >= before + more);
                whole_records(&cloud.bytes("data/log").unwrap())
            };
            let first = grown(1);
            until("the others", || cloud.object("data/quiet").is_some() && cloud.object("data/large").is_some());
            cloud.holds("data/large", &pattern(1, PARTS));
            large.write_all_at(b"changed", 0).unwrap();
            let later = grown(2);
            drop(stopping);
            assert!(later > first, "{first} and then {later} records");
            writer.join().unwrap()
        });
        let mut changed = pattern(1, PARTS);
        changed[..7].copy_from_slice(b"changed");
        until("the change", || versions(cloud, "data/large").len() == 2);
        close(log).unwrap();
        drop((quiet, large));
        mount.wait_all();
        assert_eq!(whole_records(&cloud.bytes("data/log").unwrap()) as u64, records);
        stored(cloud, "data/quiet", &[b"once"]);
        stored(cloud, "data/large", &[&pattern(1, PARTS), &changed]);
        assert_eq!((dirty_files(mount), clean_files(mount)), (0, cloud.keys().len()), "copies are left behind");
    });
}

#[test]
fn a_large_file_that_others_write_to_is_copied_when_one_of_them_closes_it() {
    both(remote_close, |cloud, mount| {
        let bytes = pattern(1, PARTS);
        drop(new(mount, "file", &bytes));
        let other = OpenOptions::new().write(true).open(mount.path("file")).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut turn = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    other.write_all_at(&turn.to_le_bytes(), 0).unwrap();
                    turn += 1;
                    thread::sleep(Duration::from_millis(25));
                }
            });
            let stopping = Stop(&stop);
            // Each part takes longer than the other's pause: the file itself is never still so long.
            cloud.fault("PUT", "uploadId", "data/file", Action::Delay(60), 12);
            let file = OpenOptions::new().write(true).open(mount.path("file")).unwrap();
            file.write_all_at(b"mine", 1000).unwrap();
            close(file).unwrap();
            drop(stopping);
        });
        let mut there = cloud.bytes("data/file").unwrap();
        assert_eq!(&there[1000..1004], b"mine");
        let mut expected = bytes.clone();
        expected[1000..1004].copy_from_slice(b"mine");
        expected[..8].copy_from_slice(&[0; 8]);
        there[..8].copy_from_slice(&[0; 8]);
        assert!(there == expected, "one version, whole");
        cloud.emulator().clear_faults();
        close(other).unwrap();
        mount.wait_all();
        assert_eq!((dirty_files(mount), clean_files(mount)), (0, cloud.keys().len()), "copies are left behind");
        assert_eq!(cloud.emulator().uploads(BUCKET), []);
    });
}

/// A copy of a file that stays open is nobody's after a crash.
#[test]
fn a_crash_while_a_copy_goes_up_leaves_no_copy() {
    let cloud = Cloud::start();
    let options = Options { write_back: "upload_open = \"1s\"".to_owned(), delay: NEVER, ..Options::default() };
    let mut mount = Mount::prepare(&cloud, &options);
    mount.env.push(("FERRYFS_FAILPOINT", "upload-after-part:2".to_owned()));
    mount.remount();
    let open = new(&mount, "file", &pattern(1, PARTS));
    mount.wait_for_death();
    assert_eq!((dirty_files(&mount), clean_files(&mount)), (1, 1), "the file and its copy");
    mount.env.clear();
    mount.remount();
    assert_eq!((dirty_files(&mount), clean_files(&mount)), (1, 0), "the file alone");
    assert_eq!(mount.status().torn.len(), 1);
    drop(open);
    fs::remove_file(mount.path("file")).unwrap();
    mount.wait_all();
    assert_eq!(cloud.keys(), [""; 0]);
    assert_eq!(cloud.emulator().uploads(BUCKET), []);
}
