//! A store that fails. In the end the right object is there, and nothing was announced that was not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ferryfs::checksum::crc64;
use ferryfs::emulator::{Action, Side};

use super::harness::{Cloud, Mount, Options, pattern};

/// More than one part of 1 MiB.
const PARTS: usize = 4_500_000;
const SMALL: usize = 50_000;

fn slow_down() -> Action {
    Action::Status { status: 503, code: "SlowDown".to_owned(), retry_after: None }
}

/// Every version that the store ever had under a key was the right one; it was announced after
/// the last of them.
#[track_caller]
fn right_all_along(cloud: &Cloud, key: &str, bytes: &[u8], most: usize) {
    cloud.holds(key, bytes);
    let stores: Vec<_> = cloud.emulator().stores().into_iter().filter(|store| store.key == key).collect();
    assert!(stores.iter().all(|store| store.crc64 == crc64(bytes).0), "{stores:?}");
    assert!((1..=most).contains(&stores.len()), "stored {} times: {stores:?}", stores.len());
    let events: Vec<_> = cloud.emulator().oms_events().into_iter().filter(|event| event.key == key).collect();
    let last = stores.iter().map(|store| store.time_ns).max().unwrap();
    assert!(events.iter().any(|event| event.time_ns >= last), "{key} was announced before it was there");
    let first = stores.iter().map(|store| store.time_ns).min().unwrap();
    assert!(events.iter().all(|event| event.time_ns >= first), "{key} was announced before it was there");
    assert!(cloud.recorded("success_object").contains(&key.to_owned()));
    assert_eq!(cloud.recorded("failed_object"), [] as [&str; 0]);
    assert_eq!(cloud.emulator().uploads(super::harness::BUCKET), [], "an upload was left behind");
}

/// A new file of `size` meets `faults` (method, sub-resource, action, times) and is stored at most
/// `most` times.
#[track_caller]
fn upload_meets(size: usize, faults: &[(&str, &str, Action, u32)], most: usize) {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    for (method, sub_resource, action, count) in faults {
        cloud.fault(method, sub_resource, "data/file", action.clone(), *count);
    }
    let bytes = pattern(9, size);
    fs::write(mount.path("file"), &bytes).unwrap();
    mount.wait("file");
    cloud.all_faults_met();
    right_all_along(&cloud, "data/file", &bytes, most);
    // Over what is there.
    for (method, sub_resource, action, count) in faults {
        cloud.fault(method, sub_resource, "data/file", action.clone(), *count);
    }
    cloud.emulator().clear_log();
    let bytes = pattern(10, size + 1);
    fs::write(mount.path("file"), &bytes).unwrap();
    mount.wait_all();
    cloud.all_faults_met();
    right_all_along(&cloud, "data/file", &bytes, most);
    assert_eq!(cloud.keys(), ["data/file"]);
    mount.umount();
}

/// A stored file that is renamed; its copy meets the fault.
#[track_caller]
fn rename_meets(action: Action, count: u32, most: usize) {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    let bytes = pattern(11, SMALL);
    fs::write(mount.path("from"), &bytes).unwrap();
    mount.wait("from");
    cloud.fault("PUT", "copy", "data/to", action, count);
    fs::rename(mount.path("from"), mount.path("to")).unwrap();
    mount.wait_all();
    cloud.all_faults_met();
    right_all_along(&cloud, "data/to", &bytes, most);
    assert_eq!(cloud.keys(), ["data/to"]);
    mount.umount();
}

#[test]
fn a_corrupted_put_is_sent_again() {
    upload_meets(SMALL, &[("PUT", "object", Action::Corrupt(Side::Request), 2)], 1);
}

#[test]
fn a_corrupted_part_is_sent_again() {
    upload_meets(PARTS, &[("PUT", "partNumber", Action::Corrupt(Side::Request), 3)], 1);
}

#[test]
fn a_wrong_crc64_of_a_put_is_not_believed() {
    upload_meets(SMALL, &[("PUT", "object", Action::WrongCrc, 1)], 2);
}

#[test]
fn a_wrong_crc64_of_a_part_is_not_believed() {
    upload_meets(PARTS, &[("PUT", "partNumber", Action::WrongCrc, 1)], 1);
}

#[test]
fn a_wrong_crc64_of_the_whole_is_not_believed() {
    upload_meets(PARTS, &[("POST", "uploadId", Action::WrongCrc, 1)], 2);
}

#[test]
fn a_put_that_was_applied_without_an_answer_is_found() {
    // Also over an object, where no condition would refuse a second one.
    upload_meets(SMALL, &[("PUT", "object", Action::ApplyThenCut, 1)], 1);
}

#[test]
fn a_complete_that_was_applied_without_an_answer_is_found() {
    upload_meets(PARTS, &[("POST", "uploadId", Action::ApplyThenCut, 1)], 1);
}

#[test]
fn connections_cut_in_the_middle_are_made_again() {
    let cut = |side| Action::Cut { after: 10_000, side };
    let put = ("PUT", "object", cut(Side::Request), 2);
    upload_meets(SMALL, &[put], 1);
    upload_meets(PARTS, &[("PUT", "partNumber", cut(Side::Request), 3)], 1);
}

#[test]
fn a_store_that_asks_to_slow_down_is_obeyed() {
    upload_meets(SMALL, &[("PUT", "object", slow_down(), 3)], 1);
    upload_meets(
        PARTS,
        &[
            ("POST", "uploads", slow_down(), 2),
            ("PUT", "partNumber", slow_down(), 4),
            ("POST", "uploadId", slow_down(), 2),
        ],
        1,
    );
}

#[test]
fn an_error_with_status_200_of_complete_is_an_error() {
    upload_meets(PARTS, &[("POST", "uploadId", Action::ErrorIn200("InternalError".to_owned()), 2)], 1);
}

#[test]
fn an_error_with_status_200_of_a_copy_is_an_error() {
    rename_meets(Action::ErrorIn200("InternalError".to_owned()), 2, 1);
}

#[test]
fn a_wrong_crc64_of_a_copy_is_not_believed() {
    rename_meets(Action::WrongCrc, 1, 2);
}

#[test]
fn a_copy_that_was_applied_without_an_answer_is_found() {
    rename_meets(Action::ApplyThenCut, 1, 1);
}

#[test]
fn a_copy_onto_itself_that_was_applied_without_an_answer_is_found() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    let bytes = pattern(13, SMALL);
    fs::write(mount.path("file"), &bytes).unwrap();
    mount.wait("file");
    cloud.emulator().clear_log();
    cloud.fault("PUT", "copy", "data/file", Action::ApplyThenCut, 1);
    fs::set_permissions(mount.path("file"), fs::Permissions::from_mode(0o640)).unwrap();
    mount.wait_all();
    cloud.all_faults_met();
    right_all_along(&cloud, "data/file", &bytes, 1);
    assert_eq!(cloud.metadata("data/file", "mode"), Some(0o100_640.to_string()));
    mount.umount();
}

#[test]
fn a_rename_over_a_file_whose_copy_got_no_answer_is_found() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    let (old, new) = (pattern(14, SMALL), pattern(15, SMALL + 7));
    fs::write(mount.path("to"), &old).unwrap();
    fs::write(mount.path("from"), &new).unwrap();
    mount.wait_all();
    cloud.emulator().clear_log();
    cloud.fault("PUT", "copy", "data/to", Action::ApplyThenCut, 1);
    fs::rename(mount.path("from"), mount.path("to")).unwrap();
    mount.wait_all();
    cloud.all_faults_met();
    right_all_along(&cloud, "data/to", &new, 1);
    assert_eq!(cloud.keys(), ["data/to"]);
    mount.umount();
}

#[test]
fn a_copy_that_must_slow_down_is_made() {
    rename_meets(slow_down(), 3, 1);
}

#[test]
fn a_slow_complete_is_waited_for() {
    upload_meets(PARTS, &[("POST", "uploadId", Action::Delay(3_000), 1)], 1);
}

#[test]
fn a_corrupted_download_is_never_handed_out() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    let bytes = pattern(12, SMALL);
    cloud.put("data/theirs", &bytes);
    cloud.fault("GET", "object", "data/theirs", Action::Corrupt(Side::Response), 1);
    match fs::read(mount.path("theirs")) {
        Ok(read) => assert!(read == bytes),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
    }
    cloud.all_faults_met();
    assert!(fs::read(mount.path("theirs")).unwrap() == bytes, "the copy is gone with its error");
    mount.wait_all();
    mount.umount();
}

#[test]
fn a_store_that_refuses_for_long_shows_it_and_gets_it_in_the_end() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    let denied = Action::Status { status: 403, code: "AccessDenied".to_owned(), retry_after: None };
    cloud.fault("PUT", "object", "data/file", denied, 1_000_000);
    fs::write(mount.path("file"), "content").unwrap();
    super::harness::until("status shows the refusal", || !mount.status().failed.is_empty());
    let shown = mount.status().failed;
    assert!(shown[0].path.contains("file") && shown[0].reason.contains("403"), "{shown:?}");
    let waited = mount.try_wait("file", Duration::from_millis(300));
    assert_eq!(waited.status.code(), Some(1));
    assert_eq!(cloud.announced(), [] as [&str; 0]);
    cloud.emulator().clear_faults();
    mount.wait("file");
    right_all_along(&cloud, "data/file", b"content", 1);
    assert_eq!(mount.status().failed, []);
    mount.umount();
}
