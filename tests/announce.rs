//! Announcing through a real mount while OMS or the log bucket does not answer as it should. Needs
//! root and /dev/fuse; fails without, rather than passing unseen.

mod harness;

use std::fs;
use std::time::Duration;

use ferryfs::control::{OutboxEntry, OutboxState};
use ferryfs::emulator::{Action, Fault, Match, RequestRecord};
use harness::{Cloud, LOGS, Mount, Options, shown, until};

const SOON: Duration = Duration::from_millis(300);

/// Every announcement with a key that fits `key` is answered so, until the faults are cleared.
fn oms_answers(cloud: &Cloud, key: &str, status: u16, code: &str) {
    let matching = Match { key: Some(key.to_owned()), sub_resource: Some("oms".to_owned()), ..Match::default() };
    for_ever(cloud, matching, status, code);
}

/// Every request of this method (`None`: all) to the log bucket is answered so, until the faults are
/// cleared.
fn log_bucket_answers(cloud: &Cloud, method: Option<&str>, status: u16, code: &str) {
    let matching = Match { method: method.map(str::to_owned), bucket: Some(LOGS.to_owned()), ..Match::default() };
    for_ever(cloud, matching, status, code);
}

fn for_ever(cloud: &Cloud, matching: Match, status: u16, code: &str) {
    let action = Action::Status { status, code: code.to_owned(), retry_after: None };
    cloud.emulator().add_fault(Fault { count: u32::MAX, ..Fault::new(matching, action) });
}

fn oms_requests(cloud: &Cloud, status: u16) -> Vec<RequestRecord> {
    let mut requests = cloud.emulator().requests();
    requests.retain(|request| !request.oms_keys.is_empty() && request.status == status);
    requests
}

/// PUT records of this kind that were asked for, whatever came of it.
fn record_puts(cloud: &Cloud, kind: &str) -> usize {
    let part = format!("/{kind}/");
    let requests = cloud.emulator().requests();
    requests.iter().filter(|one| one.method == "PUT" && one.bucket == LOGS && one.key.contains(&part)).count()
}

fn outbox(mount: &Mount) -> Vec<OutboxEntry> {
    let output = mount.run(&["outbox", "list"], &["--json"]);
    assert!(output.status.success(), "{}", shown(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes `count` files and returns their keys, sorted.
fn write_files(mount: &Mount, name: &str, count: usize) -> Vec<String> {
    let names = (0..count).map(|number| format!("{name}-{number:02}"));
    names
        .map(|name| {
            fs::write(mount.path(&name), &name).unwrap();
            format!("data/{name}")
        })
        .collect()
}

/// All are uploaded, and none is announced.
fn until_owed(mount: &Mount, count: u64) {
    until("all is uploaded and owed to OMS", || {
        let status = mount.status();
        status.uploads_files == 0 && status.announcements_owed == count
    });
}

#[test]
fn an_oms_that_answers_503_hears_of_everything_when_it_is_back() {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options::default());
    oms_answers(&cloud, "*", 503, "OMS.0500");
    let keys = write_files(&mount, "file", 25);
    until_owed(&mount, 25);
    until("it backs off", || oms_requests(&cloud, 503).len() >= 4);

    let status = mount.status();
    assert_eq!((status.announcements_owed, status.announcements_failed, status.records_owed), (25, 0, 0));
    let entries = outbox(&mount);
    assert_eq!(entries.len(), 25);
    assert!(entries.iter().all(|entry| matches!(entry.state, OutboxState::Owed | OutboxState::Sending)), "{entries:?}");
    assert!(entries.iter().any(|one| one.error.as_ref().is_some_and(|error| error.contains("503"))), "{entries:?}");
    let waited = mount.try_wait("", SOON);
    assert_eq!(waited.status.code(), Some(1), "{}", shown(&waited));
    assert!(shown(&waited).contains("announce"), "{}", shown(&waited));
    assert_eq!(cloud.announced(), Vec::<String>::new());

    cloud.emulator().clear_faults();
    mount.wait_all();
    let mut announced = cloud.announced();
    announced.sort();
    assert_eq!(announced, keys, "each once: what was refused was not taken");
    assert_eq!(cloud.recorded("success_object"), keys);
    assert_eq!(cloud.recorded("failed_object"), Vec::<String>::new());
    assert_eq!((record_puts(&cloud, "failed_object"), mount.status().announcements_failed), (0, 0));

    // Requests that were under way together are one step of the backoff; the steps grow from 1 s.
    let times: Vec<i64> = oms_requests(&cloud, 503).iter().map(|request| request.time_ns).collect();
    let pauses: Vec<i64> =
        times.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).filter(|ms| *ms >= 900).collect();
    assert!(pauses.len() >= 2 && pauses[0] >= 1_000 && pauses[1] >= 2_000, "{pauses:?}");
    assert!(times.len() <= pauses.len() + 2, "one request at a time in an outage: {times:?}");
    assert!(oms_requests(&cloud, 200).iter().all(|request| request.oms_keys.len() <= 10));
}

#[test]
fn what_oms_refuses_is_kept_recorded_shown_and_sent_again_when_asked() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    // Owed all together, so that they go in one request; and across a SIGKILL.
    oms_answers(&cloud, "*", 503, "OMS.0500");
    let good = write_files(&mount, "good", 5);
    let bad = write_files(&mount, "bad", 2);
    until_owed(&mount, 7);
    mount.kill9();
    cloud.emulator().clear_faults();
    oms_answers(&cloud, "data/bad-*", 400, "OMS.0001");
    mount.remount();

    until("all is settled", || {
        let status = mount.status();
        (status.announcements_owed, status.records_owed, status.announcements_failed) == (0, 0, 2)
    });
    assert_eq!(cloud.recorded("failed_object"), bad);
    assert_eq!(cloud.recorded("success_object"), good);
    let mut announced = cloud.announced();
    announced.sort();
    assert_eq!(announced, good);
    let refused = oms_requests(&cloud, 400);
    assert!(refused.iter().any(|request| request.oms_keys.len() > 1), "several together first: {refused:?}");
    for key in &bad {
        assert!(refused.iter().any(|request| request.oms_keys == [key.clone()]), "{key} alone: {refused:?}");
    }

    // It is shown, and nobody waits for ever.
    let text = shown(&mount.run(&["status"], &[]));
    assert!(text.contains("FAILED") && text.contains("2 announcements: see `ferryfs outbox list`"), "{text}");
    let entries = outbox(&mount);
    assert_eq!(entries.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), bad);
    for entry in &entries {
        let error = entry.error.as_deref().unwrap_or_default();
        assert!(entry.state == OutboxState::Failed && error.contains("400") && error.contains("OMS.0001"), "{entry:?}");
    }
    let text = shown(&mount.run(&["outbox", "list"], &[]));
    assert!(text.contains("failed") && bad.iter().all(|key| text.contains(key)), "{text}");
    for path in ["", "bad-00"] {
        let waited = mount.try_wait(path, harness::PATIENCE);
        assert_eq!(waited.status.code(), Some(1), "{}", shown(&waited));
        assert!(shown(&waited).contains("ferryfs outbox retry"), "{}", shown(&waited));
    }
    mount.wait("good-00");

    // A crash changes nothing, and does not send it again.
    let sent = refused.len();
    mount.kill9();
    mount.remount();
    assert_eq!(mount.status().announcements_failed, 2);
    assert_eq!(outbox(&mount).len(), 2);

    // Sent again while OMS still refuses: failed again, nothing lost.
    let retry = |mount: &Mount| {
        let output = mount.run(&["outbox", "retry"], &[]);
        assert!(
            output.status.success() && shown(&output).contains("2 announcements are sent again"),
            "{}",
            shown(&output)
        );
    };
    assert_eq!(oms_requests(&cloud, 400).len(), sent);
    retry(&mount);
    until("it fails again", || {
        let status = mount.status();
        let settled = (status.announcements_owed, status.records_owed, status.announcements_failed) == (0, 0, 2);
        settled && oms_requests(&cloud, 400).len() > sent
    });
    assert_eq!(cloud.recorded("failed_object"), bad);

    // And when it does not refuse any more, the record of the failure goes.
    cloud.emulator().clear_faults();
    retry(&mount);
    mount.wait_all();
    let all: Vec<String> = bad.iter().chain(&good).cloned().collect();
    assert_eq!(cloud.recorded("success_object"), all);
    assert_eq!(cloud.recorded("failed_object"), Vec::<String>::new());
    assert_eq!(cloud.announced().len(), 7);
    assert_eq!(mount.status().announcements_failed, 0);
    assert_eq!(outbox(&mount), []);
    let requests = cloud.emulator().requests();
    for key in &bad {
        let at = |method: &str, kind: &str| {
            let end = format!("/{kind}/{key}");
            requests.iter().rposition(|one| one.method == method && one.bucket == LOGS && one.key.ends_with(&end))
        };
        let (success, removal) = (at("PUT", "success_object").unwrap(), at("DELETE", "failed_object").unwrap());
        assert!(success < removal, "the twin of {key} went before the success was recorded");
    }
}

#[test]
fn a_log_bucket_that_refuses_is_owed_its_records_across_crashes() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    log_bucket_answers(&cloud, Some("PUT"), 403, "AccessDenied");
    let keys = write_files(&mount, "file", 12);
    let owed = |mount: &Mount| {
        let status = mount.status();
        assert_eq!(status.announcements_failed, 0);
        (status.uploads_files, status.announcements_owed, status.records_owed)
    };
    until("only records are owed", || owed(&mount) == (0, 0, 12));
    until("one was refused", || record_puts(&cloud, "success_object") > 0);
    let waited = mount.try_wait("", SOON);
    assert_eq!(waited.status.code(), Some(1), "{}", shown(&waited));
    assert!(shown(&waited).contains("12 records"), "{}", shown(&waited));
    until("the list says why", || {
        let entries = outbox(&mount);
        assert_eq!(entries.len(), 12, "{entries:?}");
        assert!(entries.iter().all(|entry| entry.state == OutboxState::Recording), "{entries:?}");
        entries.iter().any(|one| one.error.as_ref().is_some_and(|error| error.contains("AccessDenied")))
    });

    // Killed; and mounted again although nothing of the log bucket may be touched.
    mount.kill9();
    cloud.emulator().clear_faults();
    log_bucket_answers(&cloud, None, 403, "AccessDenied");
    mount.remount();
    assert_eq!(owed(&mount), (0, 0, 12));

    // The same with a log bucket that is out of order.
    mount.kill9();
    cloud.emulator().clear_faults();
    log_bucket_answers(&cloud, None, 503, "ServiceUnavailable");
    let before = record_puts(&cloud, "success_object");
    mount.remount();
    until("it is tried", || record_puts(&cloud, "success_object") > before);
    assert_eq!(owed(&mount), (0, 0, 12));
    assert_eq!(cloud.recorded("success_object"), Vec::<String>::new());

    cloud.emulator().clear_faults();
    mount.wait_all();
    assert_eq!(cloud.recorded("success_object"), keys);
    assert_eq!(cloud.recorded("failed_object"), Vec::<String>::new());
    let mut announced = cloud.announced();
    announced.sort();
    assert_eq!(announced, keys, "each once: the announcement was settled before its record");
    assert_eq!(owed(&mount), (0, 0, 0));
}

#[test]
fn what_has_no_record_is_announced_when_asked() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    fs::create_dir(mount.path("sub")).unwrap();
    mount.wait_all();
    cloud.put("data/sub/theirs", b"x");
    cloud.put("data/elsewhere", b"y");
    cloud.put("data/.ferryfs-moving/private", b"z");
    let reconcile = |more: &[&str]| {
        let output = mount.run(&["outbox", "reconcile"], more);
        assert!(output.status.success(), "{}", shown(&output));
        output.stdout
    };
    let found: serde_json::Value = serde_json::from_slice(&reconcile(&["sub", "--json"])).unwrap();
    assert_eq!(found["objects"], 2, "the directory and what is in it: {found}");
    mount.wait("sub");
    assert!(cloud.recorded("success_object").contains(&"data/sub/theirs".to_owned()));
    assert!(!cloud.announced().contains(&"data/elsewhere".to_owned()), "it lies elsewhere");

    let text = String::from_utf8(reconcile(&[])).unwrap();
    assert!(text.starts_with("3 objects compared with their records: "), "{text}");
    mount.wait_all();
    assert!(cloud.recorded("success_object").contains(&"data/elsewhere".to_owned()));
    assert!(!cloud.announced().iter().any(|key| key.contains(".ferryfs-moving")), "private");

    fs::write(mount.path("file"), "ours").unwrap();
    let output = mount.run(&["outbox", "reconcile"], &["file"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("it is no directory of a bucket"), "{}", shown(&output));
    mount.umount();
}
