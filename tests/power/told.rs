//! What a program was told stays under its name; what it was not told never hides a good version.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use ferryfs::emulator::Action;

use super::device::Format;
use super::machine::Machine;
use super::platter::Cut;
use crate::harness::{Cloud, Options, until};

/// A machine with a file whose good version is in the bucket.
fn with_good_report(cloud: &Cloud) -> Machine {
    let machine = Machine::start(cloud, Format::Ext4, Options { delay: "30s", ..Options::default() });
    fs::write(machine.mount.path("report"), "good").unwrap();
    machine.mount.wait_all();
    cloud.holds("data/report", b"good");
    machine
}

/// The power goes, and with it all that was not flushed.
fn cut(machine: &mut Machine) {
    machine.halt();
    let (left, _lost) = machine.cut(Cut::KeepNone);
    machine.restart(left);
}

fn held(machine: &Machine) -> Vec<String> {
    machine.mount.status().torn.into_iter().map(|torn| torn.path).collect()
}

fn shown(machine: &Machine) -> String {
    fs::read_to_string(machine.mount.path("report")).unwrap()
}

#[test]
fn content_that_was_synced_while_the_file_was_open_is_there_and_held() {
    let cloud = Cloud::start();
    let mut machine = with_good_report(&cloud);
    let mut file = File::create(machine.mount.path("report")).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_all().unwrap();
    machine.halt();
    let (left, _lost) = machine.cut(Cut::KeepNone);
    drop(file);
    machine.restart(left);
    assert_eq!(shown(&machine), "synced");
    assert_eq!(held(&machine), ["/report"]);
    cloud.holds("data/report", b"good");
    cut(&mut machine);
    assert_eq!(shown(&machine), "synced", "after another cut");
    let accepted = machine.mount.run(&["recover", "accept"], &["report"]);
    assert!(accepted.status.success(), "{accepted:?}");
    machine.mount.wait_all();
    cloud.holds("data/report", b"synced");
}

#[test]
fn content_that_was_synced_before_more_was_written_keeps_the_name() {
    let cloud = Cloud::start();
    let mut machine = with_good_report(&cloud);
    let file = OpenOptions::new().write(true).truncate(true).open(machine.mount.path("report")).unwrap();
    file.write_all_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b" and more", 6).unwrap();
    drop(file);
    // The rows of the close reach the disk by another's sync.
    File::open(machine.mount.dir()).unwrap().sync_all().unwrap();
    cut(&mut machine);
    assert!(shown(&machine).starts_with("synced"), "{:?}", shown(&machine));
    cloud.holds("data/report", b"good");
}

#[test]
fn content_written_with_o_sync_is_there() {
    let cloud = Cloud::start();
    let mut machine = with_good_report(&cloud);
    let mut file = OpenOptions::new();
    let mut file =
        file.write(true).truncate(true).custom_flags(libc::O_SYNC).open(machine.mount.path("report")).unwrap();
    file.write_all(b"one ").unwrap();
    file.write_all(b"two").unwrap();
    machine.halt();
    let (left, _lost) = machine.cut(Cut::KeepNone);
    drop(file);
    machine.restart(left);
    assert_eq!(shown(&machine), "one two");
    assert_eq!(held(&machine), ["/report"]);
}

#[test]
fn a_file_that_was_closed_after_its_fsync_goes_up_once_its_close_is_on_the_disk() {
    let cloud = Cloud::start();
    let mut machine = with_good_report(&cloud);
    let mut file = File::create(machine.mount.path("report")).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_all().unwrap();
    drop(file);
    File::open(machine.mount.dir()).unwrap().sync_all().unwrap();
    cut(&mut machine);
    assert_eq!(shown(&machine), "synced");
    assert_eq!(held(&machine), [""; 0]);
    machine.mount.wait_all();
    cloud.holds("data/report", b"synced");
}

#[test]
fn what_was_saved_without_a_sync_hides_no_good_version() {
    let cloud = Cloud::start();
    let mut machine = with_good_report(&cloud);
    fs::write(machine.mount.path("new"), vec![b'n'; 10_000]).unwrap();
    fs::rename(machine.mount.path("new"), machine.mount.path("report")).unwrap();
    // The rename is on the disk; the content, which nobody asked to be, is not.
    File::open(machine.mount.dir()).unwrap().sync_all().unwrap();
    cut(&mut machine);
    assert_eq!(shown(&machine), "good");
    assert_eq!(held(&machine), ["/report"]);
    cut(&mut machine);
    assert_eq!(shown(&machine), "good", "after another cut");
    let discarded = machine.mount.run(&["recover", "discard"], &["report", "--yes"]);
    assert!(discarded.status.success(), "{discarded:?}");
    machine.mount.wait_all();
    cloud.holds("data/report", b"good");
    assert_eq!(shown(&machine), "good");
}

#[test]
fn a_version_whose_upload_the_cut_left_unanswered_is_found_and_shown() {
    let cloud = Cloud::start();
    let mut machine = Machine::start(&cloud, Format::Ext4, Options::default());
    // The daemon does not hear that it has arrived, and nothing when it asks.
    cloud.fault("PUT", "object", "data/report", Action::ApplyThenCut, 1);
    cloud.fault("HEAD", "object", "data/report", Action::Delay(60_000), 1);
    fs::write(machine.mount.path("report"), "good").unwrap();
    until("it has asked", || cloud.count("HEAD", "data/report") > 0);
    let mut file = File::create(machine.mount.path("report")).unwrap();
    file.write_all(b"half").unwrap();
    File::open(machine.mount.dir()).unwrap().sync_all().unwrap();
    machine.halt();
    let (left, _lost) = machine.cut(Cut::KeepNone);
    drop(file);
    machine.restart(left);
    until("the bucket's version is found", || shown(&machine) == "good");
    assert_eq!(held(&machine), ["/report"]);
    assert_eq!(cloud.count("PUT", "data/report"), 1, "nothing is sent again");
}
