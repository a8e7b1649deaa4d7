//! C7 and crashes: what was written into a file that is partly here is neither lost, nor mixed with
//! another version, nor uploaded before its writer closed it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Cloud, Mount, Options, pattern, until};

/// Beyond what is fetched whole when it is opened.
const LARGE: usize = 20 << 20;

fn open_rw(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn torn(mount: &Mount) -> Vec<String> {
    mount.status().torn.into_iter().map(|torn| torn.path).collect()
}

/// A mount that has `data/file`, and its content.
fn with_large_file(cloud: &Cloud) -> (Mount, Vec<u8>) {
    let bytes = pattern(91, LARGE);
    cloud.put("data/file", &bytes);
    (Mount::new(cloud, Options { attr_ttl: "100ms", ..Options::default() }), bytes)
}

#[test]
fn a_writer_cut_off_in_a_file_that_is_partly_here_leaves_it_torn_and_whole() {
    let cloud = Cloud::start();
    let (mut mount, good) = with_large_file(&cloud);
    let mut model = good.clone();
    let file = open_rw(&mount.path("file"));
    file.write_all_at(b"acknowledged", 9_999_999).unwrap();
    model[9_999_999..10_000_011].copy_from_slice(b"acknowledged");
    file.set_len(LARGE as u64 - 1000).unwrap();
    model.truncate(LARGE - 1000);
    file.set_len(LARGE as u64 + 500).unwrap();
    model.resize(LARGE + 500, 0);
    file.sync_all().unwrap();
    for _ in 0..2 {
        mount.kill9();
        mount.remount();
        assert_eq!(torn(&mount), ["/file"]);
        assert!(fs::read(mount.path("file")).unwrap() == model, "what was acknowledged, over its base");
        cloud.holds("data/file", &good);
    }
    drop(file);
    // A session that goes on with it settles it.
    open_rw(&mount.path("file")).write_all_at(b"and on", 3).unwrap();
    model[3..9].copy_from_slice(b"and on");
    mount.wait_all();
    assert_eq!(torn(&mount), [""; 0]);
    cloud.holds("data/file", &model);
    assert_eq!(cloud.announced(), ["data/file"]);
}

#[test]
fn a_closed_file_goes_up_although_the_daemon_ends_while_it_is_being_filled() {
    // 20 MiB take some 5 s.
    let cloud = Cloud::with(Duration::ZERO, Some(4 << 20));
    let (mut mount, mut model) = with_large_file(&cloud);
    let file = open_rw(&mount.path("file"));
    for at in (0..LARGE - 100).step_by(1_234_567) {
        file.write_all_at(b"before close", at as u64).unwrap();
        model[at..at + 12].copy_from_slice(b"before close");
    }
    drop(file);
    for _ in 0..3 {
        let seen = cloud.count("GET", "data/file");
        until("it is being filled", || cloud.count("GET", "data/file") > seen || cloud.count("PUT", "data/file") > 0);
        mount.kill9();
        mount.remount();
        assert_eq!(torn(&mount), [""; 0], "it was closed");
    }
    // Reopened in the middle, left alone, and written to once more.
    drop(open_rw(&mount.path("file")));
    open_rw(&mount.path("file")).write_all_at(b"after all", 50).unwrap();
    model[50..59].copy_from_slice(b"after all");
    mount.wait_all();
    cloud.holds("data/file", &model);
    assert!(fs::read(mount.path("file")).unwrap() == model);
}

#[test]
fn every_write_that_was_acknowledged_survives_the_daemon() {
    let cloud = Cloud::start();
    let (mut mount, good) = with_large_file(&cloud);
    let mut models = Vec::new();
    for round in 0..8_usize {
        // A file of its own: one that is whole by now would be written to by the kernel, without the daemon.
        let name = format!("file-{round}");
        cloud.put(&format!("data/{name}"), &good);
        until("it is seen", || mount.path(&name).exists());
        let file = open_rw(&mount.path(&name));
        let written = Mutex::new(Vec::new());
        let noise = pattern(100 + round as u64, 1 << 16);
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0_usize.. {
                    let random = n.wrapping_mul(2_654_435_761).wrapping_add(round * 977);
                    let (at, from) = (random % (LARGE - 8192), random % 50_000);
                    let piece = &noise[from..from + 1 + random % 8000];
                    let acknowledged = file.write_all_at(piece, at as u64).is_ok();
                    written.lock().unwrap().push((at, piece, acknowledged));
                    if !acknowledged {
                        return;
                    }
                }
            });
            until("some writes are in", || written.lock().unwrap().len() >= 3 + 17 * round);
            mount.kill9();
        });
        mount.remount();
        let back = fs::read(mount.path(&name)).unwrap();
        let mut model = good.clone();
        for (at, piece, acknowledged) in written.into_inner().unwrap() {
            let place = at..at + piece.len();
            // Of the last one all, some, or nothing may be there.
            let piece = if acknowledged { piece } else { &back[place.clone()] };
            model[place].copy_from_slice(piece);
        }
        assert!(back == model, "round {round}");
        models.push((name, model));
        assert_eq!(torn(&mount).len(), models.len());
    }
    for (name, model) in &mut models {
        open_rw(&mount.path(name)).write_all_at(b"settled", 0).unwrap();
        model[..7].copy_from_slice(b"settled");
    }
    mount.wait_all();
    for (name, model) in models {
        cloud.holds(&format!("data/{name}"), &model);
    }
}

#[test]
fn a_journal_cut_off_at_any_commit_of_a_partial_write_keeps_what_was_acknowledged() {
    for (failpoint, count) in
        ["journal-before-commit", "journal-after-commit"].into_iter().flat_map(|name| (1..=3).map(move |n| (name, n)))
    {
        let cloud = Cloud::start();
        let (mut mount, mut model) = with_large_file(&cloud);
        assert_eq!(fs::metadata(mount.path("file")).unwrap().len(), LARGE as u64);
        mount.kill9();
        mount.env = vec![("FERRYFS_FAILPOINT", format!("{failpoint}:{}", 8 * count))];
        if !mount.try_mount().status.success() {
            mount.env.clear();
            mount.remount();
            continue;
        }
        let started = Instant::now();
        let mut doubt = 0..0;
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(mount.path("file")) {
            for n in 0_usize.. {
                assert!(started.elapsed() < Duration::from_secs(30), "the failpoint is never met");
                let at = n * 70_001 % (LARGE - 10);
                if file.write_all_at(b"acked", at as u64).is_err() {
                    doubt = at..at + 5;
                    break;
                }
                model[at..at + 5].copy_from_slice(b"acked");
            }
        }
        mount.wait_for_death();
        mount.env.clear();
        mount.remount();
        let back = fs::read(mount.path("file")).unwrap();
        model[doubt.clone()].copy_from_slice(&back[doubt]);
        assert!(back == model, "{failpoint}, {count}");
    }
}
