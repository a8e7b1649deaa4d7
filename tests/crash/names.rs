//! Names that change while the content behind them is on its way.

use std::fs;

use ferryfs::emulator::Action;

use crate::harness::{BUCKET, Cloud, Mount, Options, pattern, until};

/// Longer than what a test does meanwhile; the attempts end by themselves.
const DELAY_MS: u64 = 1500;

/// A file whose PUT is under way when this returns.
fn in_flight(cloud: &Cloud, mount: &Mount, name: &str, bytes: &[u8]) {
    let key = format!("data/{name}");
    let before = cloud.count("PUT", &key);
    cloud.fault("PUT", "object", &key, Action::Delay(DELAY_MS), 1);
    fs::write(mount.path(name), bytes).unwrap();
    until("the PUT is under way", || cloud.count("PUT", &key) > before);
}

/// The end of every test: what is there, what is announced, nothing left behind.
fn settled(cloud: &Cloud, mount: &mut Mount, wanted: &[(&str, &[u8])]) {
    mount.wait_all();
    let keys: Vec<String> = wanted.iter().map(|(name, _)| format!("data/{name}")).collect();
    assert_eq!(cloud.keys(), keys);
    for (name, bytes) in wanted {
        cloud.holds(&format!("data/{name}"), bytes);
        assert!(fs::read(mount.path(name)).unwrap() == *bytes, "{name} here");
    }
    let announced = cloud.announced();
    for key in &keys {
        assert!(announced.contains(key), "{key} is not announced: {announced:?}");
    }
    assert!(!announced.iter().any(|key| key.contains(".ferryfs-moving")), "{announced:?}");
    assert_eq!(cloud.emulator().uploads(BUCKET), []);
    cloud.all_faults_met();
    let status = mount.status();
    assert!(status.torn.is_empty() && status.failed.is_empty(), "{status:?}");
    // Another host sees the same.
    mount.forget_all();
    for (name, bytes) in wanted {
        assert!(fs::read(mount.path(name)).unwrap() == *bytes, "{name} elsewhere");
    }
}

fn mounted() -> (Cloud, Mount) {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options::default());
    (cloud, mount)
}

#[test]
fn what_is_unlinked_on_its_way_does_not_come_back() {
    let (cloud, mut mount) = mounted();
    in_flight(&cloud, &mount, "a", b"one");
    fs::remove_file(mount.path("a")).unwrap();
    settled(&cloud, &mut mount, &[]);
    assert_eq!(cloud.announced(), [""; 0]);
}

#[test]
fn what_is_unlinked_on_its_way_stays_away_after_a_kill() {
    let (cloud, mut mount) = mounted();
    in_flight(&cloud, &mount, "a", b"one");
    fs::remove_file(mount.path("a")).unwrap();
    mount.kill9();
    mount.remount();
    settled(&cloud, &mut mount, &[]);
}

#[test]
fn what_is_renamed_on_its_way_arrives_under_its_new_name() {
    let (cloud, mut mount) = mounted();
    in_flight(&cloud, &mount, "a", b"one");
    fs::rename(mount.path("a"), mount.path("b")).unwrap();
    settled(&cloud, &mut mount, &[("b", b"one")]);
}

#[test]
fn what_is_renamed_on_its_way_arrives_under_its_new_name_after_a_kill() {
    let (cloud, mut mount) = mounted();
    cloud.fault("PUT", "object", "data/a", Action::ApplyThenCut, 1);
    in_flight(&cloud, &mount, "a", b"one");
    fs::rename(mount.path("a"), mount.path("b")).unwrap();
    mount.kill9();
    cloud.emulator().clear_faults();
    mount.remount();
    settled(&cloud, &mut mount, &[("b", b"one")]);
}

#[test]
fn a_name_made_anew_holds_the_new_content() {
    let (cloud, mut mount) = mounted();
    in_flight(&cloud, &mount, "a", b"the old one");
    fs::remove_file(mount.path("a")).unwrap();
    fs::write(mount.path("a"), "the new one").unwrap();
    settled(&cloud, &mut mount, &[("a", b"the new one")]);
}

#[test]
fn a_name_made_anew_before_a_kill_holds_the_new_content() {
    let (cloud, mut mount) = mounted();
    in_flight(&cloud, &mount, "a", b"the old one");
    fs::remove_file(mount.path("a")).unwrap();
    fs::write(mount.path("a"), "the new one").unwrap();
    mount.kill9();
    mount.remount();
    settled(&cloud, &mut mount, &[("a", b"the new one")]);
}

#[test]
fn content_written_while_the_old_one_is_on_its_way_wins() {
    let (cloud, mut mount) = mounted();
    in_flight(&cloud, &mount, "a", b"the old one");
    fs::write(mount.path("a"), "the new one").unwrap();
    settled(&cloud, &mut mount, &[("a", b"the new one")]);
}

#[test]
fn a_save_over_a_name_on_its_way_wins() {
    let (cloud, mut mount) = mounted();
    in_flight(&cloud, &mount, "a", b"the old one");
    fs::write(mount.path("a.tmp"), "the new one").unwrap();
    fs::rename(mount.path("a.tmp"), mount.path("a")).unwrap();
    settled(&cloud, &mut mount, &[("a", b"the new one")]);
}

fn swap(mount: &Mount, a: &str, b: &str) {
    fs::rename(mount.path(a), mount.path("third")).unwrap();
    fs::rename(mount.path(b), mount.path(a)).unwrap();
    fs::rename(mount.path("third"), mount.path(b)).unwrap();
}

#[test]
fn names_go_round() {
    let (cloud, mut mount) = mounted();
    fs::write(mount.path("a"), "was a").unwrap();
    fs::write(mount.path("b"), "was b").unwrap();
    mount.wait_all();
    swap(&mount, "a", "b");
    settled(&cloud, &mut mount, &[("a", b"was b"), ("b", b"was a")]);
}

#[test]
fn names_go_round_through_kills() {
    let (cloud, mut mount) = mounted();
    let three = ["a", "b", "c"];
    for name in three {
        fs::write(mount.path(name), format!("was {name}")).unwrap();
    }
    mount.wait_all();
    // a <- b <- c <- a
    fs::rename(mount.path("a"), mount.path("third")).unwrap();
    fs::rename(mount.path("b"), mount.path("a")).unwrap();
    fs::rename(mount.path("c"), mount.path("b")).unwrap();
    fs::rename(mount.path("third"), mount.path("c")).unwrap();
    for kill in 1..=6 {
        let copies = || cloud.count_by(|request| request.sub_resource.iter().any(|name| name == "copy"));
        let seen = copies();
        until("another copy, or the end", || copies() > seen || mount.status().copies_owed == 0);
        mount.kill9();
        mount.remount();
        for (name, was) in [("a", "b"), ("b", "c"), ("c", "a")] {
            let held = fs::read_to_string(mount.path(name)).unwrap();
            assert_eq!(held, format!("was {was}"), "{name} after kill {kill}");
        }
    }
    settled(&cloud, &mut mount, &[("a", b"was b"), ("b", b"was c"), ("c", b"was a")]);
}

#[test]
fn large_files_that_swap_names_on_their_way_arrive_swapped() {
    let cloud = Cloud::start();
    let write_back = "threshold = \"1MiB\"".to_owned();
    let mut mount = Mount::new(&cloud, Options { write_back, ..Options::default() });
    let (a, b) = (pattern(1, 3_300_000), pattern(2, 3_400_001));
    cloud.fault("PUT", "partNumber", "data/*", Action::Delay(DELAY_MS), 2);
    fs::write(mount.path("a"), &a).unwrap();
    fs::write(mount.path("b"), &b).unwrap();
    until("parts are under way", || cloud.count("PUT", "data/a") > 0 && cloud.count("PUT", "data/b") > 0);
    swap(&mount, "a", "b");
    settled(&cloud, &mut mount, &[("a", &b), ("b", &a)]);
}

#[test]
fn a_large_file_unlinked_on_its_way_leaves_no_parts_behind() {
    let cloud = Cloud::start();
    let write_back = "threshold = \"1MiB\"".to_owned();
    let mut mount = Mount::new(&cloud, Options { write_back, ..Options::default() });
    fs::write(mount.path("a"), "small and there").unwrap();
    mount.wait_all();
    // The store takes no part for a while: the upload is not under way, nor over.
    let refuse = Action::Status { status: 503, code: "ServiceUnavailable".to_owned(), retry_after: None };
    cloud.fault("PUT", "partNumber", "data/a", refuse, 1000);
    fs::write(mount.path("a"), pattern(1, 3_300_000)).unwrap();
    until("an upload is begun", || cloud.count("PUT", "data/a") > 3);
    assert_eq!(cloud.emulator().uploads(BUCKET).len(), 1);
    fs::remove_file(mount.path("a")).unwrap();
    cloud.emulator().clear_faults();
    settled(&cloud, &mut mount, &[]);
}

#[test]
fn a_large_file_rewritten_small_on_its_way_leaves_no_parts_behind() {
    let cloud = Cloud::start();
    let write_back = "threshold = \"1MiB\"".to_owned();
    let mut mount = Mount::new(&cloud, Options { write_back, ..Options::default() });
    let refuse = Action::Status { status: 503, code: "ServiceUnavailable".to_owned(), retry_after: None };
    cloud.fault("PUT", "partNumber", "data/a", refuse, 1000);
    fs::write(mount.path("a"), pattern(1, 3_300_000)).unwrap();
    until("an upload is begun", || cloud.count("PUT", "data/a") > 1);
    fs::write(mount.path("a"), "small").unwrap();
    cloud.emulator().clear_faults();
    settled(&cloud, &mut mount, &[("a", b"small")]);
    fs::remove_file(mount.path("a")).unwrap();
    settled(&cloud, &mut mount, &[]);
}
