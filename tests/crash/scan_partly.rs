//! C7 and a lost journal (J5): of a file that was partly here nothing but what programs wrote is taken for its content.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use ferryfs::emulator::Action;

use crate::harness::{BUCKET, Cloud, Mount, Options, errno, pattern, until};
use crate::recover::{done, list, recover, refused};
use crate::scan::{dirty_files, lose_journal, reboot, scan, tag};

/// Beyond what is fetched whole when it is opened.
const LARGE: usize = 20 << 20;

/// A mount, and `file` as a program left it: so many pieces written, its end cut off and extended, not
/// closed when the daemon died and the journal was lost.
fn cut_off(cloud: &Cloud, pieces: usize) -> (Mount, Vec<u8>, Vec<u8>) {
    let good = pattern(95, LARGE);
    cloud.put("data/file", &good);
    let mut mount = Mount::new(cloud, Options { attr_ttl: "100ms", ..Options::default() });
    let file = OpenOptions::new().read(true).write(true).open(mount.path("file")).unwrap();
    let mut model = good.clone();
    for n in 0..pieces {
        let at = 1_000_000 + n * 10_000;
        file.write_all_at(b"acknowledged", at as u64).unwrap();
        model[at..at + 12].copy_from_slice(b"acknowledged");
    }
    file.set_len(LARGE as u64 - 1000).unwrap();
    model.truncate(LARGE - 1000);
    file.set_len(LARGE as u64 + 500).unwrap();
    model.resize(LARGE + 500, 0);
    let told = tag(&dirty_files(&mount)[0]);
    assert!(told["partly"].is_array(), "{told}");
    assert_eq!(told["written"].as_array().map(Vec::len), (pieces <= 120).then_some(pieces), "{told}");
    mount.kill9();
    lose_journal(&mount);
    (mount, good, model)
}

#[test]
fn what_programs_wrote_is_shown_over_its_base() {
    let cloud = Cloud::start();
    let (mut mount, good, model) = cut_off(&cloud, 3);
    let told = done(&scan(&mount, &[]));
    assert!(told.contains("0 files to upload, 1 held"), "{told}");
    mount.remount();
    assert!(fs::read(mount.path("file")).unwrap() == model);
    let held = list(&mount);
    assert_eq!((held[0].path.as_str(), held[0].in_place, held[0].why.as_str()), ("/file", true, "journal_lost"));
    until("all of it is here", || !list(&mount)[0].incomplete);
    cloud.holds("data/file", &good);
    // Whole, its file tells so: without the journal once more it is held as any other.
    mount.kill9();
    assert!(tag(&dirty_files(&mount)[0])["partly"].is_null());
    lose_journal(&mount);
    done(&scan(&mount, &[]));
    mount.remount();
    assert!(fs::read(mount.path("file")).unwrap() == model);
    done(&recover(&mount, "accept", &["file"]));
    mount.wait_all();
    cloud.holds("data/file", &model);
}

#[test]
fn without_its_base_it_is_incomplete() {
    for gone in [false, true] {
        let cloud = Cloud::start();
        let (mut mount, ..) = cut_off(&cloud, 3);
        let theirs = pattern(96, LARGE);
        if gone {
            cloud.emulator().delete_object(BUCKET, "data/file").unwrap();
        } else {
            cloud.put("data/file", &theirs);
        }
        done(&scan(&mount, &[]));
        for _ in 0..2 {
            mount.remount();
            let held = list(&mount);
            let told = (held[0].path.as_str(), held[0].in_place, held[0].why.as_str(), held[0].incomplete);
            assert_eq!(told, ("/file", true, "incomplete", true));
            let file = File::open(mount.path("file")).unwrap();
            assert_eq!(file.metadata().unwrap().len(), LARGE as u64 + 500);
            let mut back = [0; 12];
            file.read_exact_at(&mut back, 1_010_000).unwrap();
            assert_eq!(&back, b"acknowledged");
            for at in [0, 1_500_000] {
                assert_eq!(errno(file.read_at(&mut back, at)), Some(libc::EIO), "zeros, or theirs");
            }
            drop(file);
            refused(&recover(&mount, "accept", &["file"]), 1, "parts of it are not here");
            let to = mount.outside("saved");
            refused(&recover(&mount, "save", &["file", "--to", to.to_str().unwrap()]), 1, "parts of it are not here");
            mount.kill9();
        }
        mount.remount();
        assert_eq!(cloud.bytes("data/file"), (!gone).then(|| theirs.clone()));
        done(&recover(&mount, "discard", &["file", "--yes"]));
        until("the bucket's version is shown", || fs::read(mount.path("file")).ok() == (!gone).then(|| theirs.clone()));
        mount.wait_all();
        assert_eq!(list(&mount), []);
        assert_eq!(cloud.bytes("data/file"), (!gone).then_some(theirs));
    }
}

/// More pieces than a tag can list, or a restart of the machine since.
#[test]
fn what_is_not_known_to_be_a_programs_is_aside() {
    for pieces in [300, 3] {
        let cloud = Cloud::start();
        let (mut mount, good, model) = cut_off(&cloud, pieces);
        if pieces == 3 {
            reboot(&mount);
        }
        let told = done(&scan(&mount, &[]));
        assert!(told.contains("0 files to upload, 1 held"), "{told}");
        mount.remount();
        let held = list(&mount);
        let told = (held[0].path.as_str(), held[0].in_place, held[0].why.as_str(), held[0].incomplete);
        assert_eq!(told, ("/file", false, "incomplete", true));
        assert!(fs::read(mount.path("file")).unwrap() == good);
        refused(&recover(&mount, "accept", &["file"]), 1, "parts of it are not here");
        let to = mount.outside("saved");
        let file = held[0].file.to_str().unwrap();
        refused(&recover(&mount, "save", &["file", "--to", to.to_str().unwrap()]), 1, file);
        // Nothing is fetched over what the program wrote.
        let here = fs::read(file).unwrap();
        assert!(here[1_000_000..1_000_012] == model[1_000_000..1_000_012]);
        assert!(here[1_000_012..1_010_000].iter().all(|byte| *byte == 0));
        done(&recover(&mount, "discard", &["--all", "--yes"]));
        mount.wait_all();
        cloud.holds("data/file", &good);
        assert_eq!(list(&mount), []);
    }
}

#[test]
fn a_file_that_has_become_whole_and_is_closed_goes_up() {
    let cloud = Cloud::start();
    let mut model = pattern(97, LARGE);
    cloud.put("data/file", &model);
    let mut mount = Mount::new(&cloud, Options::default());
    let refusal = Action::Status { status: 503, code: "SlowDown".to_owned(), retry_after: None };
    cloud.fault("POST", "uploads", "data/file", refusal, u32::MAX);
    OpenOptions::new().write(true).open(mount.path("file")).unwrap().write_all_at(b"written", 5_000_000).unwrap();
    model[5_000_000..5_000_007].copy_from_slice(b"written");
    until("it is whole", || tag(&dirty_files(&mount)[0])["closed"].is_string());
    mount.kill9();
    lose_journal(&mount);
    cloud.emulator().clear_faults();
    let told = done(&scan(&mount, &[]));
    assert!(told.contains("1 file to upload, 0 held"), "{told}");
    mount.remount();
    mount.wait_all();
    cloud.holds("data/file", &model);
}

/// Opened for writing, and nothing written: the bucket's version is all there is.
#[test]
fn a_file_that_was_only_read_is_not_held() {
    let cloud = Cloud::start();
    let good = pattern(98, LARGE);
    cloud.put("data/file", &good);
    let mut mount = Mount::new(&cloud, Options::default());
    let file = OpenOptions::new().read(true).write(true).open(mount.path("file")).unwrap();
    file.read_exact_at(&mut [0; 100], 7_000_000).unwrap();
    mount.kill9();
    lose_journal(&mount);
    done(&scan(&mount, &[]));
    mount.remount();
    assert_eq!(list(&mount), []);
    assert!(fs::read(mount.path("file")).unwrap() == good);
    mount.wait_all();
}
