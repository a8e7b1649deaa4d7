//! `ferryfs recover`: what is held is listed, and settled as its owner says.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::process::Output;

use ferryfs::control::{Address, Client, HeldEntry};
use ferryfs::emulator::Action;
use ferryfs::failpoint;
use ferryfs::journal::{Durability, Journal, Op};

use crate::harness::{Cloud, Mount, Options, shown, until};
use crate::torn::{Program, good_report, torn};

pub fn list(mount: &Mount) -> Vec<HeldEntry> {
    let output = mount.run(&["recover", "list"], &["--json"]);
    assert!(output.status.success(), "{}", shown(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn recover(mount: &Mount, verb: &str, more: &[&str]) -> Output {
    mount.run(&["recover", verb], more)
}

#[track_caller]
pub fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", shown(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
pub fn refused(output: &Output, code: i32, why: &str) {
    let said = shown(output);
    assert!(output.status.code() == Some(code) && said.contains(why), "wanted {code} and `{why}`: {said}");
}

/// A mount on which `report` was half rewritten when the daemon died; its good version is in the bucket.
fn torn_report(cloud: &Cloud) -> Mount {
    let mut mount = good_report(cloud);
    let mut writer = Program::shell(&mount, "{ echo half; sleep 60; } > report");
    until("half is written", || fs::read_to_string(mount.path("report")).unwrap() == "half\n");
    mount.kill9();
    writer.kill();
    mount.remount();
    mount
}

/// As after a power cut: nothing that was not synced counts.
fn power_cut(mount: &mut Mount) {
    mount.kill9();
    let journal = Journal::open(&mount.state_dir()).unwrap();
    let boot = Op::SetMeta("boot_id", "another boot".to_owned());
    journal.submit(vec![boot], Durability::Disk).wait().unwrap();
    journal.close().unwrap();
    mount.remount();
}

#[test]
fn what_is_held_is_listed_with_what_the_bucket_has() {
    let cloud = Cloud::start();
    let mount = torn_report(&cloud);
    let held = list(&mount);
    assert_eq!(held.len(), 1, "{held:?}");
    let report = &held[0];
    assert_eq!((report.path.as_str(), report.why.as_str(), report.in_place), ("/report", "crash", true));
    assert_eq!(report.size, 5);
    assert_eq!(fs::read(&report.file).unwrap(), b"half\n");
    assert_eq!((report.bucket.asked, report.bucket.size), (true, Some(5)));
    assert!(report.bucket.time_ns.is_some() && report.since_ns >= report.mtime_ns && report.mtime_ns > 0);
    let table = done(&recover(&mount, "list", &[]));
    assert!(table.contains("/report") && table.contains("torn: it was being written"), "{table}");
    let status = done(&mount.run(&["status"], &[]));
    assert!(status.contains("ferryfs recover"), "{status}");
}

#[test]
fn accepted_content_goes_up() {
    let cloud = Cloud::start();
    let mut mount = torn_report(&cloud);
    assert!(done(&recover(&mount, "accept", &["report"])).contains("/report: accepted"));
    mount.wait_all();
    cloud.holds("data/report", b"half\n");
    assert_eq!((torn(&mount), list(&mount)), (vec![], vec![]));
    assert_eq!(cloud.announced(), ["data/report", "data/report"]);
    assert_eq!(cloud.count("PUT", "data/report"), 2);
    refused(&recover(&mount, "accept", &["report"]), 1, "nothing is held at /report");
    mount.forget_all();
    assert_eq!(fs::read_to_string(mount.path("report")).unwrap(), "half\n");
}

#[test]
fn discarded_content_makes_way_for_the_good_version() {
    let cloud = Cloud::start();
    let mut mount = torn_report(&cloud);
    let mut reader = File::open(mount.path("report")).unwrap();
    refused(&recover(&mount, "discard", &["report"]), 2, "--yes");
    assert_eq!(torn(&mount), ["/report"]);
    done(&recover(&mount, "discard", &["report", "--yes"]));
    assert_eq!(fs::read_to_string(mount.path("report")).unwrap(), "good\n");
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert_eq!(read, "half\n", "an open file is one version to its end");
    drop(reader);
    mount.wait_all();
    assert_eq!(torn(&mount), [""; 0]);
    mount.kill9();
    mount.remount();
    assert_eq!(fs::read_to_string(mount.path("report")).unwrap(), "good\n");
    mount.wait_all();
    cloud.holds("data/report", b"good\n");
    assert_eq!(cloud.count("PUT", "data/report"), 1);
    fs::write(mount.path("report"), "anew\n").unwrap();
    mount.wait_all();
    cloud.holds("data/report", b"anew\n");
}

#[test]
fn a_discarded_file_that_the_bucket_never_had_is_gone() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    fs::create_dir(mount.path("dir")).unwrap();
    let mut file = File::create(mount.path("dir/new")).unwrap();
    file.write_all(b"half").unwrap();
    mount.kill9();
    mount.remount();
    assert_eq!(list(&mount)[0].bucket.size, None);
    done(&recover(&mount, "discard", &["--all", "--yes"]));
    assert!(!mount.path("dir/new").exists());
    mount.wait_all();
    assert_eq!(cloud.keys(), ["data/dir/"]);
    mount.kill9();
    mount.remount();
    assert!(!mount.path("dir/new").exists());
    assert_eq!(list(&mount), []);
}

/// Renamed while it was written: the good version belongs to the new name.
#[test]
fn a_discarded_file_that_was_renamed_completes_its_rename() {
    let cloud = Cloud::start();
    let mut mount = good_report(&cloud);
    let mut file = OpenOptions::new().append(true).open(mount.path("report")).unwrap();
    file.write_all(b"and half").unwrap();
    fs::rename(mount.path("report"), mount.path("renamed")).unwrap();
    mount.kill9();
    mount.remount();
    assert_eq!(torn(&mount), ["/renamed"]);
    assert_eq!(list(&mount)[0].bucket.size, Some(5));
    done(&recover(&mount, "discard", &["renamed", "--yes"]));
    mount.wait_all();
    assert_eq!(fs::read_to_string(mount.path("renamed")).unwrap(), "good\n");
    assert_eq!(cloud.keys(), ["data/renamed"]);
    cloud.holds("data/renamed", b"good\n");
}

#[test]
fn saved_content_is_a_file_elsewhere_and_stays_held() {
    let cloud = Cloud::start();
    let mut mount = torn_report(&cloud);
    let dir = mount.outside("saved");
    fs::create_dir(&dir).unwrap();
    let to = dir.to_str().unwrap();
    done(&recover(&mount, "save", &["report", "--to", to]));
    assert_eq!(fs::read(dir.join("report")).unwrap(), b"half\n");
    assert_eq!(torn(&mount), ["/report"]);
    refused(&recover(&mount, "save", &["report", "--to", to]), 1, "is there already");
    done(&recover(&mount, "save", &["--all", "--to", to, "--force"]));
    // Without a daemon, from what is on the disk.
    let config = mount.outside("test.toml");
    let unmounted = |mount: &Mount, verb: &str, more: &[&str]| {
        mount.command(["recover", verb, "--config"]).arg(&config).args(more).output().unwrap()
    };
    refused(&unmounted(&mount, "list", &[]), 1, "it is mounted");
    let _writer = Program::shell(&mount, "{ echo more; sleep 60; } >> open");
    until("it writes", || fs::read_to_string(mount.path("open")).is_ok_and(|text| text == "more\n"));
    mount.kill9();
    let listed = done(&unmounted(&mount, "list", &["--json"]));
    let held: Vec<HeldEntry> = serde_json::from_str(&listed).unwrap();
    let why: Vec<_> = held.iter().map(|entry| (entry.path.as_str(), entry.why.as_str())).collect();
    assert_eq!(why, [("/open", "undecided"), ("/report", "crash")]);
    let file = dir.join("offline");
    done(&unmounted(&mount, "save", &["/report", "--to", file.to_str().unwrap()]));
    assert_eq!(fs::read(&file).unwrap(), b"half\n");
    mount.remount();
    assert_eq!(list(&mount).len(), 2);
}

#[test]
fn what_a_killed_writer_left_can_be_accepted() {
    let cloud = Cloud::start();
    let mount = good_report(&cloud);
    let mut writer = Program::shell(&mount, "exec 3> report; printf 'half\\n' >&3; read -r never");
    until("half is written", || fs::read_to_string(mount.path("report")).unwrap() == "half\n");
    writer.kill();
    until("it is held", || torn(&mount) == ["/report"]);
    let held = list(&mount);
    assert_eq!(held[0].why, "killed_writer");
    // A program that has it open again decides by itself.
    let status = mount.status();
    let socket = mount.state_dir().join("control.sock");
    let client = Client::new(Address { pid: status.pid, socket, mount: mount.dir().to_owned() });
    let mut again = OpenOptions::new().append(true).open(mount.path("report")).unwrap();
    for accept in [true, false] {
        assert!(client.settle_held(&held[0], accept).is_err());
    }
    again.write_all(b"whole\n").unwrap();
    drop(again);
    mount.wait_all();
    cloud.holds("data/report", b"half\nwhole\n");
    let mut writer = Program::shell(&mount, "exec 3>> report; printf 'half\\n' >&3; read -r never");
    until("half is written", || fs::read(mount.path("report")).unwrap().len() == 16);
    writer.kill();
    until("it is held", || torn(&mount) == ["/report"]);
    assert!(client.settle_held(&held[0], true).is_err(), "another content than was listed");
    done(&recover(&mount, "accept", &["--all"]));
    mount.wait_all();
    cloud.holds("data/report", b"half\nwhole\nhalf\n");
}

/// What its last close left is on its way to the bucket when the next writer is killed.
#[test]
fn a_discard_waits_for_the_version_that_it_brings_back() {
    for in_bucket in [false, true] {
        let cloud = Cloud::start();
        let mount = if in_bucket { good_report(&cloud) } else { Mount::new(&cloud, Options::default()) };
        cloud.fault("PUT", "object", "data/report", Action::Delay(5_000), 1);
        fs::write(mount.path("report"), "whole\n").unwrap();
        until("it is on its way", || cloud.emulator().faults().is_empty());
        let mut writer = Program::shell(&mount, "exec 3>> report; printf 'half\\n' >&3; read -r never");
        until("half is written", || fs::read(mount.path("report")).unwrap().len() == 11);
        writer.kill();
        until("it is held", || torn(&mount) == ["/report"]);
        refused(&recover(&mount, "discard", &["report", "--yes"]), 1, "on its way");
        assert_eq!(fs::read(mount.path("report")).unwrap(), b"whole\nhalf\n");
        until("it has arrived", || recover(&mount, "discard", &["report", "--yes"]).status.success());
        mount.wait_all();
        assert_eq!(fs::read(mount.path("report")).unwrap(), b"whole\n");
        cloud.holds("data/report", b"whole\n");
        assert!(cloud.announced().contains(&"data/report".to_owned()));
    }
}

/// Lists, decisions and programs at the same time: each file ends as one of them said.
#[test]
fn decisions_and_programs_at_once_settle_each_file_once() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    let names: Vec<String> = (0..24).map(|n| format!("file-{n:02}")).collect();
    for name in &names {
        fs::write(mount.path(name), "good").unwrap();
    }
    mount.wait_all();
    let open: Vec<File> = names.iter().map(|name| File::create(mount.path(name)).unwrap()).collect();
    for mut file in &open {
        file.write_all(b"half").unwrap();
    }
    mount.kill9();
    drop(open);
    mount.remount();
    assert_eq!(list(&mount).len(), names.len());
    let status = mount.status();
    let address =
        || Address { pid: status.pid, socket: mount.state_dir().join("control.sock"), mount: mount.dir().to_owned() };
    std::thread::scope(|scope| {
        for accept in [true, false] {
            scope.spawn(move || {
                let client = Client::new(address());
                for entry in client.held().unwrap() {
                    // The other one, or a program, may have been first.
                    let _ = client.settle_held(&entry, accept);
                }
            });
        }
        scope.spawn(|| {
            let client = Client::new(address());
            while !client.held().unwrap().is_empty() {}
        });
        scope.spawn(|| {
            for name in names.iter().step_by(3) {
                fs::remove_file(mount.path(name)).unwrap();
            }
            for name in names.iter().skip(1).step_by(3) {
                fs::write(mount.path("new"), "anew").unwrap();
                fs::rename(mount.path("new"), mount.path(name)).unwrap();
            }
        });
    });
    mount.wait_all();
    assert_eq!((list(&mount), torn(&mount)), (vec![], vec![]));
    for (n, name) in names.iter().enumerate() {
        let there = cloud.bytes(&format!("data/{name}"));
        assert_eq!(there, fs::read(mount.path(name)).ok(), "{name}");
        let wanted: &[Option<&[u8]>] = match n % 3 {
            0 => &[None],
            1 => &[Some(b"anew")],
            _ => &[Some(b"half"), Some(b"good")],
        };
        assert!(wanted.contains(&there.as_deref()), "{name}: {there:?}");
    }
}

/// A mount after a power cut in the middle of a rewrite of `dir/report`.
fn set_aside(cloud: &Cloud) -> Mount {
    let mut mount = Mount::new(cloud, Options::default());
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/report"), "good\n").unwrap();
    mount.wait_all();
    let mut file = File::create(mount.path("dir/report")).unwrap();
    file.write_all(b"half").unwrap();
    power_cut(&mut mount);
    drop(file);
    assert_eq!(fs::read_to_string(mount.path("dir/report")).unwrap(), "good\n");
    let held = list(&mount);
    assert_eq!((held[0].path.as_str(), held[0].in_place, held[0].why.as_str()), ("/dir/report", false, "power"));
    assert_eq!(held[0].bucket.size, Some(5));
    mount
}

#[test]
fn after_a_power_cut_the_good_version_is_shown_and_the_rest_is_kept() {
    let cloud = Cloud::start();
    let mut mount = set_aside(&cloud);
    assert_eq!(torn(&mount), ["/dir/report"]);
    mount.kill9();
    mount.remount();
    assert_eq!(list(&mount).len(), 1, "after another start");
    let to = mount.outside("saved");
    done(&recover(&mount, "save", &["dir/report", "--to", to.to_str().unwrap()]));
    assert_eq!(fs::read(&to).unwrap(), b"half");
    done(&recover(&mount, "accept", &["dir/report"]));
    assert_eq!(fs::read(mount.path("dir/report")).unwrap(), b"half");
    mount.wait_all();
    cloud.holds("data/dir/report", b"half");
    assert_eq!(cloud.keys(), ["data/dir/", "data/dir/report"]);
    mount.forget_all();
    assert_eq!(fs::read(mount.path("dir/report")).unwrap(), b"half");
}

#[test]
fn what_is_kept_aside_overwrites_nothing_newer() {
    let cloud = Cloud::start();
    let mut mount = set_aside(&cloud);
    // Its path is taken, in turn, by a directory and by nothing at all, not even its own directory.
    fs::remove_file(mount.path("dir/report")).unwrap();
    fs::create_dir(mount.path("dir/report")).unwrap();
    refused(&recover(&mount, "accept", &["dir/report"]), 1, "its name was taken");
    fs::remove_dir(mount.path("dir/report")).unwrap();
    fs::remove_dir(mount.path("dir")).unwrap();
    refused(&recover(&mount, "accept", &["dir/report"]), 1, "its directory is not there");
    let size = list(&mount)[0].size;
    assert_eq!(size, 4, "still held");
    done(&recover(&mount, "discard", &["dir/report", "--yes"]));
    mount.wait_all();
    assert_eq!((list(&mount), cloud.keys()), (vec![], vec![]));
    mount.kill9();
    mount.remount();
    assert_eq!(list(&mount), []);
}

#[test]
fn a_crash_while_something_is_settled_leaves_it_held_or_settled() {
    let cloud = Cloud::start();
    for (point, verb, held_after) in [
        (failpoint::ACCEPT_BEFORE_ROW, "accept", true),
        (failpoint::ACCEPT_AFTER_ROW, "accept", false),
        (failpoint::DISCARD_BEFORE_ROW, "discard", true),
        (failpoint::DISCARD_AFTER_ROW, "discard", false),
    ] {
        println!("{point}");
        let mut mount = torn_report(&cloud);
        mount.kill9();
        mount.env.push(("FERRYFS_FAILPOINT", point.to_owned()));
        mount.remount();
        let more: &[&str] = if verb == "discard" { &["report", "--yes"] } else { &["report"] };
        assert_eq!(recover(&mount, verb, more).status.code(), Some(1));
        mount.wait_for_death();
        mount.env.clear();
        mount.remount();
        assert_eq!(list(&mount).len(), usize::from(held_after), "{point}");
        if held_after {
            done(&recover(&mount, verb, more));
        }
        mount.wait_all();
        let end: &[u8] = if verb == "accept" { b"half\n" } else { b"good\n" };
        cloud.holds("data/report", end);
        assert_eq!(fs::read(mount.path("report")).unwrap(), end);
        let files = fs::read_dir(mount.state_dir().join("dirty")).unwrap();
        let left = files.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap()).count();
        assert_eq!(left, 0, "{point}: files that nobody knows of");
        mount.umount();
    }
}

#[test]
fn wrong_command_lines_exit_with_2() {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options::default());
    for (verb, more) in [
        ("accept", &[][..]),
        ("accept", &["a", "--all"]),
        ("accept", &["/etc/passwd"]),
        ("discard", &[]),
        ("save", &["a"]),
        ("save", &["--to", "/tmp"]),
        ("shred", &["a"]),
    ] {
        assert_eq!(recover(&mount, verb, more).status.code(), Some(2), "{verb} {more:?}");
    }
    for words in [&["recover"][..], &["recover", "list"], &["recover", "--scan"], &["recover", "--dry-run"]] {
        let output = mount.command(words.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", shown(&output));
    }
    assert_eq!(done(&recover(&mount, "list", &[])), "nothing is held\n");
    refused(&recover(&mount, "accept", &["missing"]), 1, "nothing is held");
    let help = mount.command(["help", "recover"]).output().unwrap();
    assert!(done(&help).contains("discard"));
}
