//! The daemon ends while many keys are deleted by one request.

use std::fs;
use std::io;

use ferryfs::emulator::{Action, Fault, Match, RequestRecord};
use ferryfs::failpoint;

use crate::harness::{Cloud, Mount, Options, PATIENCE, names, until};

const FILES: usize = 200;

fn name(n: usize) -> String {
    format!("f{n:03}")
}

/// Files in the bucket, beside one that stays.
fn start(delay: &'static str) -> (Cloud, Mount) {
    let cloud = Cloud::start();
    for n in 0..FILES {
        cloud.put(&format!("data/d/{}", name(n)), b"old");
    }
    cloud.put("data/d/stays", b"stays");
    let mount = Mount::prepare(&cloud, &Options { delay, ..Options::default() });
    (cloud, mount)
}

/// Removes what is still there, until the daemon is gone; how many are left.
fn remove(mount: &Mount) -> usize {
    let gone = |n: &usize| match fs::remove_file(mount.path(&format!("d/{}", name(*n)))) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(()) => true,
    };
    FILES - (0..FILES).take_while(gone).count()
}

fn batches(cloud: &Cloud) -> Vec<RequestRecord> {
    let mut requests = cloud.emulator().requests();
    requests.retain(|one| one.method == "POST" && one.sub_resource.iter().any(|sub| sub == "delete"));
    requests
}

/// Every third name is made anew, one is another host's: those are there in the end, and nothing else.
fn settles(cloud: &Cloud, mount: &mut Mount) {
    assert_eq!(remove(mount), 0);
    for n in (0..FILES).step_by(3) {
        fs::write(mount.path(&format!("d/{}", name(n))), format!("new {n}")).unwrap();
    }
    cloud.put("data/d/f001", b"another host's");
    mount.wait_all();
    let mut wanted: Vec<String> = (0..FILES).step_by(3).chain([1]).map(name).collect();
    wanted.push("stays".to_owned());
    wanted.sort();
    let keys: Vec<String> = wanted.iter().map(|name| format!("data/d/{name}")).collect();
    assert_eq!(cloud.keys(), keys);
    for n in (0..FILES).step_by(3) {
        cloud.holds(&format!("data/d/{}", name(n)), format!("new {n}").as_bytes());
    }
    cloud.holds("data/d/f001", b"another host's");
    let status = mount.status();
    assert!(status.torn.is_empty() && status.failed.is_empty(), "{status:?}");
    // Another host sees the same.
    mount.forget_all();
    assert_eq!(names(&mount.path("d")), wanted);
    mount.umount();
}

#[test]
fn a_daemon_that_ends_before_or_after_a_batch_loses_and_resurrects_nothing() {
    for (point, deleted) in [(failpoint::REMOVAL_BEFORE_DELETE, 0), (failpoint::REMOVAL_AFTER_DELETE, 1)] {
        // All go together, when somebody waits for them.
        let (cloud, mut mount) = start("60s");
        mount.env.push(("FERRYFS_FAILPOINT", point.to_owned()));
        mount.remount();
        assert_eq!(remove(&mount), 0);
        assert!(!mount.try_wait("", PATIENCE).status.success(), "the daemon should have ended");
        mount.wait_for_death();
        assert_eq!(batches(&cloud).len(), deleted, "{point}");
        assert_eq!(cloud.keys().len(), if deleted > 0 { 1 } else { FILES + 1 }, "{point}");
        mount.env.clear();
        mount.remount();
        settles(&cloud, &mut mount);
    }
}

#[test]
fn a_daemon_killed_while_the_store_works_on_a_batch_loses_and_resurrects_nothing() {
    for late in [None, Some(300)] {
        let (cloud, mut mount) = start("200ms");
        let matching =
            Match { method: Some("POST".to_owned()), sub_resource: Some("delete".to_owned()), ..Match::default() };
        // The store never gets to it, or works on it while the next daemon starts.
        let action = if late.is_some() { Action::ApplyThenCut } else { Action::Delay(5000) };
        cloud.emulator().add_fault(Fault { apply_after_ms: late, ..Fault::new(matching, action) });
        mount.remount();
        assert_eq!(remove(&mount), 0);
        until("a batch is under way", || !batches(&cloud).is_empty());
        mount.kill9();
        if late.is_some() {
            // What a request does that arrives later still is told in tests/rooms.
            until("it is applied", || cloud.keys().len() < FILES + 1);
        }
        mount.remount();
        assert_eq!(names(&mount.path("d")), ["stays"], "what was removed does not come back");
        settles(&cloud, &mut mount);
        cloud.all_faults_met();
    }
}
