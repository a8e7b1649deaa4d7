//! Copies of what is in the bucket only: the store makes them, nothing is fetched or sent.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;

use ferryfs::emulator::Action;
use rustix::fs::copy_file_range;

use super::both;
use super::harness::{Answer, Cloud, Mount, errno, pattern, shown, until};

const MIB: usize = 1 << 20;
/// Beyond what is fetched whole when it is opened.
const LARGE: usize = 24 * MIB;

#[track_caller]
fn cp(mount: &Mount, from: &str, to: &str) {
    let output = Command::new("cp").args([mount.path(from), mount.path(to)]).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
}

/// Bytes of content of the bucket's objects that were fetched and sent.
fn travelled(cloud: &Cloud) -> (u64, u64) {
    let requests = cloud.emulator().requests();
    let of = |method: &str, bytes: fn(&ferryfs::emulator::RequestRecord) -> u64| -> u64 {
        let object = requests.iter().filter(|request| {
            request.bucket == super::harness::BUCKET && request.method == method && !request.key.is_empty()
        });
        object.map(bytes).sum()
    };
    (of("GET", |request| request.response_bytes), of("PUT", |request| request.request_bytes))
}

/// No copy to this key comes through until the faults are cleared.
fn hold(cloud: &Cloud, key: &str) {
    let code = "SlowDown".to_owned();
    cloud.fault("PUT", "copy", key, Action::Status { status: 503, code, retry_after: None }, u32::MAX);
}

fn pread(file: &File, at: usize, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at as u64)?;
    Ok(bytes)
}

#[test]
fn cp_of_a_large_file_that_is_not_here_moves_no_content() {
    both(
        |_| {},
        |cloud, mount| {
            const SIZE: usize = 64 * MIB + 12_345;
            let model = pattern(41, SIZE);
            cloud.put_with("data/big", &model, &[("mode", "33188"), ("tool", "theirs")]);
            cp(mount, "big", "copy");
            assert_eq!(fs::metadata(mount.path("copy")).unwrap().len(), SIZE as u64);
            mount.wait("copy");
            assert_eq!(travelled(cloud), (0, 0), "fetched, sent");
            cloud.holds("data/copy", &model);
            cloud.holds("data/big", &model);
            let counters = mount.status().counters;
            assert_eq!((counters.copies, counters.puts, counters.multiparts), (1, 0, 0));
            assert_eq!(cloud.announced(), ["data/copy"]);
            // Over a file that exists, which keeps its mode.
            fs::write(mount.path("old"), "old content").unwrap();
            fs::set_permissions(mount.path("old"), fs::Permissions::from_mode(0o640)).unwrap();
            mount.wait("old");
            let (fetched, sent) = travelled(cloud);
            cp(mount, "copy", "old");
            mount.wait_all();
            assert_eq!(travelled(cloud), (fetched, sent));
            cloud.holds("data/old", &model);
            assert_eq!(fs::metadata(mount.path("old")).unwrap().permissions().mode() & 0o7777, 0o640);
            // And it is a file like any other, here and for another host.
            fs::rename(mount.path("copy"), mount.path("moved")).unwrap();
            fs::remove_file(mount.path("big")).unwrap();
            mount.wait_all();
            mount.forget_all();
            assert!(fs::read(mount.path("moved")).unwrap() == model);
            assert!(fs::read(mount.path("old")).unwrap() == model);
            assert_eq!(cloud.keys(), ["data/moved", "data/old"]);
            assert_eq!(fs::metadata(mount.path("old")).unwrap().permissions().mode() & 0o7777, 0o640);
        },
    );
}

#[test]
fn a_copy_is_readable_before_the_store_has_made_it() {
    both(
        |_| {},
        |cloud, mount| {
            let model = pattern(42, LARGE);
            for name in ["kept", "changed", "removed", "moved", "chmodded"] {
                cloud.put(&format!("data/{name}"), &model);
            }
            for name in ["kept", "changed", "removed", "moved", "chmodded"] {
                hold(cloud, &format!("data/{name}-copy"));
                cp(mount, name, &format!("{name}-copy"));
            }
            let files = ["kept", "changed", "removed", "moved", "chmodded"]
                .map(|name| File::open(mount.path(&format!("{name}-copy"))).unwrap());
            for file in &files {
                assert!(pread(file, 5 * MIB, 1000).unwrap() == model[5 * MIB..5 * MIB + 1000]);
            }
            // What becomes of the other here waits, in the bucket, until the copy is made.
            fs::write(mount.path("changed"), "another version").unwrap();
            fs::remove_file(mount.path("removed")).unwrap();
            fs::rename(mount.path("moved"), mount.path("moved-on")).unwrap();
            fs::set_permissions(mount.path("chmodded"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(mount.path("other"), "x").unwrap();
            mount.wait("other");
            for name in ["kept", "changed", "removed", "moved", "chmodded"] {
                cloud.holds(&format!("data/{name}"), &model);
                assert!(cloud.object(&format!("data/{name}-copy")).is_none());
            }
            assert_eq!(mount.status().copies_owed, 7, "five copies, a rename and a change of attributes");
            for file in &files {
                assert!(pread(file, 9 * MIB, 1000).unwrap() == model[9 * MIB..9 * MIB + 1000]);
            }
            cloud.emulator().clear_faults();
            mount.wait_all();
            // Also what was opened before: it goes on from the copy's own object.
            for file in &files {
                assert!(pread(file, 0, LARGE).unwrap() == model);
            }
            // Whole and verified by then, it is cached.
            drop(files);
            let (fetched, _) = travelled(cloud);
            for name in ["kept-copy", "changed-copy", "removed-copy", "moved-copy", "chmodded-copy"] {
                mount.wait(name);
                assert!(fs::read(mount.path(name)).unwrap() == model);
            }
            assert_eq!(travelled(cloud).0, fetched, "fetched again");
            for name in ["kept-copy", "changed-copy", "removed-copy", "moved-copy", "chmodded-copy", "moved-on"] {
                cloud.holds(&format!("data/{name}"), &model);
            }
            cloud.holds("data/changed", b"another version");
            assert!(cloud.object("data/removed").is_none() && cloud.object("data/moved").is_none());
        },
    );
}

#[test]
fn a_copy_over_a_file_is_not_taken_for_what_it_replaces() {
    both(
        |_| {},
        |cloud, mount| {
            let model = pattern(48, LARGE);
            cloud.put("data/from", &model);
            fs::write(mount.path("old"), "old").unwrap();
            mount.wait("old");
            hold(cloud, "data/old");
            cp(mount, "from", "old");
            assert!(fs::read(mount.path("old")).unwrap() == model);
            // It is cached before it has an object of its own, and compared with what it is a copy of.
            until("it is cached", || {
                let answer = Answer::of(mount.run(&["cache", "verify"], &[]));
                answer.is(0, "");
                answer.out.contains("24 MiB")
            });
            let (fetched, _) = travelled(cloud);
            assert!(fs::read(mount.path("old")).unwrap() == model);
            assert_eq!(travelled(cloud).0, fetched);
            cloud.holds("data/old", b"old");
            cloud.emulator().clear_faults();
            mount.wait_all();
            cloud.holds("data/old", &model);
        },
    );
}

#[test]
fn a_copy_that_is_written_to_is_a_file_of_its_own() {
    both(
        |_| {},
        |cloud, mount| {
            let model = pattern(43, LARGE);
            cloud.put("data/from", &model);
            for name in ["written", "cut", "anew", "linked"] {
                hold(cloud, &format!("data/{name}"));
            }
            // Through the same handle, right after the copy, and by another before the store has made it.
            let from = File::open(mount.path("from")).unwrap();
            let written =
                OpenOptions::new().read(true).write(true).create_new(true).open(mount.path("written")).unwrap();
            let copied = copy_file_range(&from, Some(&mut 0), &written, Some(&mut 0), LARGE).unwrap();
            assert_eq!(copied, LARGE);
            written.write_all_at(b"ours", 10 * MIB as u64).unwrap();
            let mut ours = model.clone();
            ours[10 * MIB..10 * MIB + 4].copy_from_slice(b"ours");
            assert!(pread(&written, 10 * MIB - 100, 300).unwrap() == ours[10 * MIB - 100..10 * MIB + 200]);
            drop((from, written));
            cp(mount, "from", "cut");
            OpenOptions::new().write(true).open(mount.path("cut")).unwrap().set_len(1000).unwrap();
            cp(mount, "from", "anew");
            fs::write(mount.path("anew"), "anew").unwrap();
            cp(mount, "from", "linked");
            fs::remove_file(mount.path("linked")).unwrap();
            // The other may be replaced once nobody needs it.
            fs::write(mount.path("from"), "replaced").unwrap();
            cloud.emulator().clear_faults();
            mount.wait_all();
            cloud.holds("data/written", &ours);
            cloud.holds("data/cut", &model[..1000]);
            cloud.holds("data/anew", b"anew");
            cloud.holds("data/from", b"replaced");
            assert_eq!(cloud.keys(), ["data/anew", "data/cut", "data/from", "data/written"]);
        },
    );
}

#[test]
fn copies_in_pieces_and_under_names_that_change_places_are_right() {
    both(
        |_| {},
        |cloud, mount| {
            const FIRST: usize = 17 * MIB + 5;
            let model = pattern(47, LARGE);
            for name in ["from", "one", "removed"] {
                cloud.put(&format!("data/{name}"), &model);
            }
            cloud.put("data/other", b"small");
            hold(cloud, "data/*");
            let from = File::open(mount.path("from")).unwrap();
            let pieces = File::create_new(mount.path("pieces")).unwrap();
            let mut done = 0;
            for (length, expected) in [(FIRST, FIRST), (LARGE, LARGE - FIRST), (LARGE, 0)] {
                let (mut at, mut put) = (done as u64, done as u64);
                assert_eq!(copy_file_range(&from, Some(&mut at), &pieces, Some(&mut put), length).unwrap(), expected);
                done += expected;
                assert_eq!(pieces.metadata().unwrap().len(), done as u64);
            }
            drop((from, pieces));
            // The name of the copy is another's, whose new name is that of what was copied.
            cp(mount, "one", "tmp");
            fs::rename(mount.path("other"), mount.path("one")).unwrap();
            fs::rename(mount.path("tmp"), mount.path("other")).unwrap();
            // A name that was just removed, and the very name that was copied.
            fs::remove_file(mount.path("removed")).unwrap();
            cp(mount, "from", "removed");
            cp(mount, "from", "back");
            fs::rename(mount.path("back"), mount.path("from")).unwrap();
            cloud.emulator().clear_faults();
            mount.wait_all();
            assert_eq!(travelled(cloud), (0, 0), "fetched, sent");
            for name in ["from", "pieces", "other", "removed"] {
                cloud.holds(&format!("data/{name}"), &model);
            }
            cloud.holds("data/one", b"small");
            // Of a part only that part is a file.
            let from = File::open(mount.path("from")).unwrap();
            let part = File::create_new(mount.path("part")).unwrap();
            assert_eq!(copy_file_range(&from, Some(&mut 0), &part, Some(&mut 0), FIRST).unwrap(), FIRST);
            drop((from, part));
            mount.wait("part");
            cloud.holds("data/part", &model[..FIRST]);
            assert_eq!(
                cloud.keys(),
                ["data/from", "data/one", "data/other", "data/part", "data/pieces", "data/removed"]
            );
        },
    );
}

#[test]
fn a_copy_whose_original_changes_elsewhere_is_never_made_of_another_version() {
    both(
        |_| {},
        |cloud, mount| {
            let model = pattern(44, LARGE);
            cloud.put("data/from", &model);
            hold(cloud, "data/copy");
            cp(mount, "from", "copy");
            cloud.put("data/from", &pattern(45, LARGE));
            cloud.emulator().clear_faults();
            let failed = || mount.status().failed;
            until("it is shown", || {
                failed().iter().any(|problem| problem.path == "/copy" && problem.reason.contains("data/from"))
            });
            assert!(cloud.object("data/copy").is_none());
            assert_eq!(errno(fs::read(mount.path("copy"))), Some(libc::EIO));
            // Looked at again and copied again it is the new version.
            let refreshed = mount.run(&["refresh"], &[]);
            assert!(refreshed.status.success(), "{}", shown(&refreshed));
            cp(mount, "from", "copy");
            mount.wait("copy");
            cloud.holds("data/copy", &pattern(45, LARGE));
        },
    );
}

#[test]
fn a_copy_survives_a_kill_in_every_state() {
    both(
        |_| {},
        |cloud, mount| {
            let model = pattern(46, LARGE);
            cloud.put("data/from", &model);
            hold(cloud, "data/closed");
            cp(mount, "from", "closed");
            let from = File::open(mount.path("from")).unwrap();
            let open = File::create_new(mount.path("open")).unwrap();
            assert_eq!(copy_file_range(&from, Some(&mut 0), &open, Some(&mut 0), LARGE).unwrap(), LARGE);
            mount.kill9();
            drop((from, open));
            cloud.emulator().clear_faults();
            mount.remount();
            // Open it was no finished file (P2); its bytes are shown, the bucket gets nothing.
            assert_eq!(mount.status().torn.iter().map(|torn| torn.path.as_str()).collect::<Vec<_>>(), ["/open"]);
            assert!(fs::read(mount.path("open")).unwrap() == model);
            assert!(cloud.object("data/open").is_none());
            mount.wait("closed");
            cloud.holds("data/closed", &model);
            assert_eq!(
                cloud.count("PUT", "data/closed"),
                cloud.count_by(|request| {
                    request.key == "data/closed" && request.sub_resource.contains(&"copy".to_owned())
                }),
                "content was sent"
            );
            fs::remove_file(mount.path("open")).unwrap();
            for (n, moment) in
                ["upload-before-put", "upload-after-put", "upload-before-clean-owed", "upload-after-clean-owed"]
                    .into_iter()
                    .enumerate()
            {
                let name = format!("at-{n}");
                mount.umount();
                mount.env = vec![("FERRYFS_FAILPOINT", moment.to_owned())];
                mount.remount();
                cp(mount, "from", &name);
                mount.wait_for_death();
                mount.env.clear();
                mount.remount();
                mount.wait_all();
                cloud.holds(&format!("data/{name}"), &model);
                let copies = cloud.emulator().requests();
                let made = copies.iter().filter(|request| {
                    request.key == format!("data/{name}") && request.method == "PUT" && request.status == 200
                });
                assert_eq!(made.count(), 1, "{moment}");
                assert!(cloud.announced().contains(&format!("data/{name}")), "{moment}");
            }
        },
    );
}
