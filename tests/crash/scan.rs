//! A journal that is lost or damaged is rebuilt from the files (J5), and nothing that is not proven goes
//! over a good version.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Output;

use ferryfs::{disk, failpoint};

use crate::harness::{Cloud, Mount, Options, pattern, shown, until};
use crate::recover::{done, list, recover, refused};
use crate::torn::torn;

/// What is known of directories stays known while the network is away.
fn options() -> Options {
    Options { attr_ttl: "60s", ..Options::default() }
}

pub fn scan(mount: &Mount, more: &[&str]) -> Output {
    let mut command = mount.command(["recover", "--scan", "--config"]);
    command.arg(mount.outside("test.toml")).args(more).output().unwrap()
}

pub fn lose_journal(mount: &Mount) {
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        match fs::remove_file(mount.state_dir().join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{name}: {error}"),
            _ => {}
        }
    }
}

#[track_caller]
fn mount_is_refused(mount: &mut Mount) {
    // Twice: a refusal must not make the next start believe.
    for _ in 0..2 {
        refused(&mount.try_mount(), 1, "ferryfs recover --scan");
    }
}

/// Files below the directory of dirty content.
pub fn dirty_files(mount: &Mount) -> Vec<PathBuf> {
    let shards = fs::read_dir(mount.state_dir().join("dirty")).unwrap();
    shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap()).map(|entry| entry.unwrap().path()).collect()
}

pub const TAG: &str = "user.ferryfs";

/// Null: it has none, or was removed a moment ago.
pub fn tag(path: &Path) -> serde_json::Value {
    let text = disk::get_xattr(path, TAG).ok().flatten();
    text.map_or(serde_json::Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

fn set_tag(path: &Path, tag: &serde_json::Value) {
    disk::set_xattr(&File::open(path).unwrap(), TAG, tag.to_string().as_bytes()).unwrap();
}

/// As after a restart of the machine: what files tell is of another boot.
pub fn reboot(mount: &Mount) {
    for path in dirty_files(mount) {
        let mut told = tag(&path);
        for state in ["open", "closed"] {
            if told.get(state).is_some() {
                told[state] = "another boot".into();
            }
        }
        set_tag(&path, &told);
    }
}

/// Good versions in the bucket and the cache; then, offline, closed files that wait, and one being rewritten.
fn prepared(cloud: &mut Cloud) -> (Mount, File) {
    let mount = Mount::new(cloud, options());
    fs::create_dir(mount.path("dir")).unwrap();
    for (name, content) in [("kept", "kept"), ("changed", "one"), ("report", "good"), ("dir/doc", "first")] {
        fs::write(mount.path(name), content).unwrap();
    }
    fs::write(mount.path("large"), pattern(1, 3_000_000)).unwrap();
    mount.wait_all();
    cloud.stop();
    fs::write(mount.path("changed"), "two").unwrap();
    fs::write(mount.path("new"), "new").unwrap();
    fs::write(mount.path("dir/.doc.tmp"), "saved").unwrap();
    fs::rename(mount.path("dir/.doc.tmp"), mount.path("dir/doc")).unwrap();
    let mut report = File::create(mount.path("report")).unwrap();
    report.write_all(b"half").unwrap();
    // The last word on a file comes a moment after its close.
    until("all that is closed says so", || {
        let tags: Vec<_> = dirty_files(&mount).iter().map(|path| tag(path)).collect();
        let closed = |key: &str| tags.iter().any(|tag| tag["key"] == key && tag["closed"].is_string());
        ["data/changed", "data/new", "data/dir/doc"].into_iter().all(closed)
    });
    (mount, report)
}

/// All of it is settled as it must be.
fn whole_again(cloud: &Cloud, mount: &Mount) {
    let held = list(mount);
    let found: Vec<_> = held.iter().map(|entry| (entry.path.as_str(), entry.in_place, entry.why.as_str())).collect();
    assert_eq!(found, [("/report", true, "journal_lost")]);
    assert_eq!(fs::read(mount.path("report")).unwrap(), b"half");
    cloud.holds("data/report", b"good");
    done(&recover(mount, "discard", &["report", "--yes"]));
    mount.wait_all();
    let large = pattern(1, 3_000_000);
    let end: [(&str, &[u8]); 6] = [
        ("changed", b"two"),
        ("dir/doc", b"saved"),
        ("kept", b"kept"),
        ("large", &large),
        ("new", b"new"),
        ("report", b"good"),
    ];
    for (name, content) in end {
        cloud.holds(&format!("data/{name}"), content);
        assert!(fs::read(mount.path(name)).unwrap() == content, "{name}");
    }
    let mut keys: Vec<String> = end.iter().map(|(name, _)| format!("data/{name}")).collect();
    keys.push("data/dir/".to_owned());
    keys.sort();
    assert_eq!(cloud.keys(), keys);
    assert_eq!(torn(mount), [""; 0]);
    let announced = cloud.announced();
    for name in ["changed", "new", "dir/doc"] {
        assert!(announced.contains(&format!("data/{name}")), "{name} is not announced");
    }
    // What was cached is used as it is.
    assert_eq!((cloud.count("GET", "data/kept"), cloud.count("GET", "data/large")), (0, 0));
    assert_eq!((cloud.count("PUT", "data/kept"), cloud.count("PUT", "data/large")), (0, 0));
}

#[test]
fn a_deleted_journal_is_rebuilt_from_the_files() {
    let mut cloud = Cloud::start();
    let (mut mount, report) = prepared(&mut cloud);
    refused(&scan(&mount, &[]), 1, "another ferryfs uses");
    mount.kill9();
    drop(report);
    lose_journal(&mount);
    mount_is_refused(&mut mount);
    refused(&scan(&mount, &[]), 1, "changed nothing");
    cloud.restart();
    let told = done(&scan(&mount, &["--dry-run"]));
    assert!(told.contains("3 files to upload, 1 held, 2 cached") && told.contains("nothing was changed"), "{told}");
    mount_is_refused(&mut mount);
    let told = done(&scan(&mount, &[]));
    assert!(told.contains("3 files to upload, 1 held, 2 cached"), "{told}");
    mount.remount();
    whole_again(&cloud, &mount);
    mount.umount();
    refused(&scan(&mount, &[]), 1, "is good");
}

#[test]
fn a_damaged_journal_is_put_aside_and_rebuilt() {
    for from in [0, 4096] {
        let mut cloud = Cloud::start();
        let (mut mount, report) = prepared(&mut cloud);
        mount.kill9();
        drop(report);
        // Checkpointed, so that the damage is not behind a log that is still read first.
        ferryfs::journal::Journal::open(&mount.state_dir()).unwrap().close().unwrap();
        let path = mount.state_dir().join("journal.db");
        let mut file = File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(from)).unwrap();
        let size = file.metadata().unwrap().len();
        file.write_all(&pattern(9, usize::try_from(size - from).unwrap())).unwrap();
        drop(file);
        let damaged = fs::read(&path).unwrap();
        cloud.restart();
        mount_is_refused(&mut mount);
        let told = done(&scan(&mount, &[]));
        mount.remount();
        whole_again(&cloud, &mount);
        let aside = told.lines().find_map(|line| line.strip_prefix("the old journal is ")).unwrap();
        assert!(fs::read(aside).unwrap() == damaged, "the old journal is as it was");
    }
}

#[test]
fn a_crash_in_a_scan_leaves_it_to_be_repeated() {
    for point in [failpoint::SCAN_JOURNAL_MADE, failpoint::SCAN_JOURNAL_ASIDE] {
        let mut cloud = Cloud::start();
        let (mut mount, report) = prepared(&mut cloud);
        mount.kill9();
        drop(report);
        lose_journal(&mount);
        fs::write(mount.state_dir().join("journal.db"), pattern(3, 8192)).unwrap();
        cloud.restart();
        mount.env.push(("FERRYFS_FAILPOINT", point.to_owned()));
        let output = scan(&mount, &[]);
        assert_eq!(output.status.code(), None, "{point}: {}", shown(&output));
        mount.env.clear();
        mount_is_refused(&mut mount);
        done(&scan(&mount, &[]));
        mount.remount();
        whole_again(&cloud, &mount);
    }
}

#[test]
fn after_a_restart_of_the_machine_nothing_hides_a_good_version() {
    let mut cloud = Cloud::start();
    let (mut mount, report) = prepared(&mut cloud);
    mount.kill9();
    drop(report);
    reboot(&mount);
    lose_journal(&mount);
    cloud.restart();
    let told = done(&scan(&mount, &[]));
    assert!(told.contains("0 files to upload, 4 held"), "{told}");
    mount.remount();
    let held = list(&mount);
    let found: Vec<_> = held.iter().map(|entry| (entry.path.as_str(), entry.in_place)).collect();
    assert_eq!(found, [("/changed", false), ("/dir/doc", false), ("/new", true), ("/report", false)]);
    assert_eq!(fs::read(mount.path("changed")).unwrap(), b"one");
    assert_eq!(fs::read(mount.path("report")).unwrap(), b"good");
    // Its owner knows better.
    done(&recover(&mount, "accept", &["changed", "dir/doc", "new"]));
    done(&recover(&mount, "discard", &["report", "--yes"]));
    mount.wait_all();
    for (name, content) in [("changed", &b"two"[..]), ("dir/doc", b"saved"), ("new", b"new"), ("report", b"good")] {
        cloud.holds(&format!("data/{name}"), content);
        assert_eq!(fs::read(mount.path(name)).unwrap(), content, "{name}");
    }
}

#[test]
fn closed_content_is_held_where_the_bucket_changed_since() {
    let mut cloud = Cloud::start();
    let (mut mount, report) = prepared(&mut cloud);
    mount.kill9();
    drop(report);
    lose_journal(&mount);
    cloud.restart();
    cloud.put("data/changed", b"of another host");
    cloud.put("data/kept", b"kept by another host");
    done(&scan(&mount, &[]));
    mount.remount();
    let held = list(&mount);
    let paths: Vec<_> = held.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["/changed", "/report"]);
    cloud.holds("data/changed", b"of another host");
    assert_eq!(fs::read(mount.path("changed")).unwrap(), b"two");
    assert_eq!(fs::read(mount.path("kept")).unwrap(), b"kept by another host", "stale cache is dropped");
    done(&recover(&mount, "discard", &["--all", "--yes"]));
    assert_eq!(fs::read(mount.path("changed")).unwrap(), b"of another host");
    mount.wait_all();
    cloud.holds("data/new", b"new");
}

#[test]
fn two_files_of_one_key_and_files_of_no_mapping_are_kept() {
    let mut cloud = Cloud::start();
    let (mut mount, report) = prepared(&mut cloud);
    mount.kill9();
    drop(report);
    let of = |key: &str| dirty_files(&mount).into_iter().find(|path| tag(path)["key"] == key).unwrap();
    let numbered = |number: u64| {
        let shard = mount.state_dir().join(format!("dirty/{:02x}", number & 0xff));
        fs::create_dir_all(&shard).unwrap();
        shard.join(format!("{number:016x}"))
    };
    let (older, stray) = (numbered(0xffff), of("data/new"));
    fs::write(&older, "older").unwrap();
    let mut told = tag(&stray);
    told["generation"] = 0.into();
    set_tag(&older, &told);
    let stranger = numbered(0xfffe);
    fs::write(&stranger, "of another bucket").unwrap();
    told["mapping"] = "cos://gone-1250000000/".into();
    set_tag(&stranger, &told);
    lose_journal(&mount);
    cloud.restart();
    let said = done(&scan(&mount, &[]));
    assert!(said.contains("cos://gone-1250000000/ data/new") && said.contains("1 left"), "{said}");
    mount.remount();
    let held = list(&mount);
    let aside: Vec<_> = held.iter().filter(|entry| !entry.in_place).collect();
    assert_eq!((aside.len(), aside[0].path.as_str()), (1, "/new"));
    assert_eq!(fs::read(&aside[0].file).unwrap(), b"older");
    assert_eq!(fs::read(mount.path("new")).unwrap(), b"new");
    done(&recover(&mount, "discard", &["--all", "--yes"]));
    mount.wait_all();
    cloud.holds("data/new", b"new");
    mount.kill9();
    mount.remount();
    let left = mount.state_dir().join("unplaced").join(stranger.file_name().unwrap());
    assert_eq!(fs::read(left).unwrap(), b"of another bucket", "no start cleans it up");
}

/// The tag that a scan reads moves the file's times, and those are part of its mark.
#[test]
fn a_crash_while_a_renamed_file_is_tagged_tears_nothing() {
    let mut cloud = Cloud::start();
    let mut mount = Mount::prepare(&cloud, &options());
    mount.env.push(("FERRYFS_FAILPOINT", failpoint::RENAME_AFTER_TAG.to_owned()));
    mount.remount();
    fs::read_dir(mount.dir()).unwrap().for_each(drop);
    cloud.stop();
    fs::write(mount.path("tmp"), "saved").unwrap();
    // The final mark follows the close; a rename tags what has one.
    for step in 0.. {
        assert!(step < 6000, "no rename of a closed file tags it");
        if fs::rename(mount.path("tmp"), mount.path("doc")).is_err() {
            break;
        }
        if fs::rename(mount.path("doc"), mount.path("tmp")).is_err() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    mount.wait_for_death();
    mount.env.clear();
    cloud.restart();
    mount.remount();
    assert_eq!(torn(&mount), [""; 0]);
    mount.wait_all();
    let keys = cloud.keys();
    assert!(keys == ["data/doc"] || keys == ["data/tmp"], "{keys:?}");
    cloud.holds(&keys[0], b"saved");
}
