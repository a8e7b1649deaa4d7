//! Removals that go together (R1, R4): by one listing and one request for many keys.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use ferryfs::emulator::{Action, Fault, Match};
use ferryfs::vfs::FsyncPolicy;

use crate::world::{BUCKET, CALLER, Options, PREFIX, ROOT, World};

/// Files of a test; more than a page of a listing is asked for at least.
const FILES: usize = 120;

fn name(n: usize) -> String {
    format!("f{n:03}")
}

/// A world with files that are in the bucket and known.
async fn with_files(options: Options) -> World {
    let names: Vec<String> = (0..FILES).map(name).collect();
    let objects: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let world = World::with_objects(options, &objects).await;
    assert_eq!(world.rooms.names(ROOT).await.len(), FILES);
    world
}

/// Removed at once, and due at once.
async fn remove_all(world: &World) {
    for n in 0..FILES {
        world.rooms.unlink(ROOT, &name(n)).await;
    }
}

/// Removals wait for the test to hurry them: all go together.
fn slow() -> Options {
    Options { delay: Duration::from_secs(60), ..Options::default() }
}

fn deletes(world: &World) -> Vec<ferryfs::emulator::RequestRecord> {
    let mut requests = world.emulator.requests();
    requests.retain(|one| one.method == "POST" && one.sub_resource.iter().any(|sub| sub == "delete"));
    requests
}

fn fault_of_batches(action: Action) -> Fault {
    let matching =
        Match { method: Some("POST".to_owned()), sub_resource: Some("delete".to_owned()), ..Match::default() };
    Fault::new(matching, action)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_together_goes_by_one_request() {
    let world = with_files(slow()).await;
    let before = world.emulator.requests().len();
    remove_all(&world).await;
    world.settled().await;
    assert_eq!(world.keys(), [""; 0]);
    let requests = &world.emulator.requests()[before..];
    let count = |method: &str| requests.iter().filter(|one| one.method == method).count();
    assert_eq!((count("GET"), count("POST"), requests.len()), (1, 1, 2), "{requests:?}");
    assert_eq!(world.rooms.uploader.status().counters.removals, FILES as u64);
    assert_eq!(world.rooms.names(ROOT).await, [""; 0]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_have_between_costs_a_page_more_and_stays() {
    let world = with_files(slow()).await;
    // Ours are the first and the last of hundreds, and some in the middle.
    for n in 0..300 {
        world.emulator.put_object(BUCKET, &format!("{PREFIX}f050-{n:03}"), b"another's").unwrap();
    }
    let before = world.emulator.requests().len();
    remove_all(&world).await;
    world.settled().await;
    assert!(world.keys().iter().all(|key| key.starts_with("f050-")) && world.keys().len() == 300);
    let requests = world.emulator.requests().len() - before;
    assert!(requests <= 10, "{requests} requests for {FILES} files");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_hosts_version_under_a_removed_name_stays() {
    let world = with_files(slow()).await;
    remove_all(&world).await;
    world.emulator.put_object(BUCKET, &format!("{PREFIX}f007"), b"another host's").unwrap();
    world.settled().await;
    assert_eq!(world.keys(), ["f007"]);
    assert_eq!(world.object("f007").unwrap(), b"another host's");
    let counters = world.rooms.uploader.status().counters;
    assert_eq!((counters.removals, counters.removals_dropped), (FILES as u64 - 1, 1));
    assert_eq!(world.count("HEAD", "f007"), 1, "looked at by itself");
    assert_eq!(deletes(&world).len(), 1);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_refused_is_tried_again_and_shown() {
    let world = with_files(slow()).await;
    world.refuse("DELETE", "f01?", 403, "AccessDenied");
    remove_all(&world).await;
    world
        .until("all others are gone, and the refusals are shown", |world| {
            world.rooms.uploader.hurry();
            let status = world.rooms.uploader.status();
            status.failures.len() == 10 && status.removals_owed == 10
        })
        .await;
    let left: Vec<String> = (10..20).map(name).collect();
    assert_eq!(world.keys(), left);
    let failures = world.rooms.uploader.status().failures;
    assert!(failures.iter().all(|failure| failure.error.contains("AccessDenied")), "{failures:?}");
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.keys(), [""; 0]);
    let status = world.rooms.uploader.status();
    assert!(status.failures.is_empty() && status.counters.removals == FILES as u64, "{status:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_many_may_not_be_deleted_each_is() {
    let world = with_files(slow()).await;
    // The right to delete many keys is one of its own.
    let refused = Action::Status { status: 403, code: "AccessDenied".to_owned(), retry_after: None };
    world.emulator.add_fault(Fault { count: u32::MAX, ..fault_of_batches(refused) });
    remove_all(&world).await;
    world.settled().await;
    assert_eq!(world.keys(), [""; 0]);
    assert_eq!(deletes(&world).len(), 1, "not asked for again");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_without_an_answer_is_looked_for_not_repeated() {
    for (action, applied) in
        [(Action::ApplyThenCut, true), (Action::Cut { after: 100, side: ferryfs::emulator::Side::Request }, false)]
    {
        let world = with_files(slow()).await;
        world.emulator.add_fault(fault_of_batches(action));
        remove_all(&world).await;
        world.rooms.uploader.hurry();
        let is_lost = |world: &World| deletes(world).len() == 1 && (!applied || world.keys().is_empty());
        world.until("the request is lost", is_lost).await;
        // Were it repeated as it was, this would go.
        world.emulator.put_object(BUCKET, &format!("{PREFIX}f000"), b"another host's").unwrap();
        world.settled().await;
        assert_eq!(world.keys(), ["f000"]);
        assert_eq!(world.object("f000").unwrap(), b"another host's");
        assert_eq!(deletes(&world).len(), if applied { 1 } else { 2 }, "what is gone needs no request");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_asked_for_all_at_once_again() {
    let world = with_files(slow()).await;
    let slow_down = Action::Status { status: 503, code: "SlowDown".to_owned(), retry_after: None };
    world.emulator.add_fault(Fault { count: 7, ..fault_of_batches(slow_down) });
    remove_all(&world).await;
    world.rooms.uploader.hurry();
    world.until("it is shown", |world| !world.rooms.uploader.status().failures.is_empty()).await;
    assert_eq!(world.rooms.uploader.status().failures.len(), 1, "once");
    world.settled().await;
    assert_eq!(world.keys(), [""; 0]);
    assert_eq!(deletes(&world).iter().filter(|one| one.status == 200).count(), 1);
    assert_eq!(world.emulator.requests().iter().filter(|one| one.method == "HEAD").count(), 0);
    assert!(world.rooms.uploader.status().failures.is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_made_anew_while_its_key_is_in_a_batch_holds_the_new_content() {
    let world = with_files(Options::default()).await;
    world.emulator.add_fault(fault_of_batches(Action::Delay(700)));
    remove_all(&world).await;
    world.rooms.uploader.hurry();
    world.until("a batch is under way", |world| !deletes(world).is_empty()).await;
    let made: BTreeSet<String> = (0..FILES).step_by(10).map(name).collect();
    for name in &made {
        world.rooms.write(ROOT, name, b"made anew").await;
    }
    world.settled().await;
    assert_eq!(world.keys(), made.iter().cloned().collect::<Vec<_>>());
    for name in &made {
        assert_eq!(world.object(name).unwrap(), b"made anew");
    }
    assert_eq!(world.rooms.uploader.status().counters.conflicts, 0, "nobody else was here");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_arrives_late_is_undone_also_after_a_restart() {
    let world = with_files(Options { late: Duration::from_secs(7), ..slow() }).await;
    let late = Fault { apply_after_ms: Some(5500), ..fault_of_batches(Action::ApplyThenCut) };
    world.emulator.add_fault(late);
    remove_all(&world).await;
    world.rooms.uploader.hurry();
    world.until("the batch is lost", |world| deletes(world).len() == 1).await;
    let world = world.restart().await;
    world.rooms.write(ROOT, "f000", b"made anew").await;
    world.settled().await;
    assert_eq!(world.keys(), ["f000"], "too early to show anything");
    world.until("the late batch arrives", |world| world.object("f000").is_none()).await;
    world
        .until("it is undone", |world| {
            world.rooms.uploader.hurry();
            world.object("f000").is_some_and(|bytes| bytes == b"made anew")
        })
        .await;
    world.settled().await;
    assert_eq!(world.keys(), ["f000"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_one_of_a_batch_is_told_that_it_failed() {
    let world = World::new(Options { fsync: FsyncPolicy::Remote, ..slow() }).await;
    let [first, dir] = [world.rooms.mkdir(ROOT, "a").await, world.rooms.mkdir(ROOT, "b").await];
    let gone = world.rooms.mkdir(dir, "gone").await;
    for (dir, name) in [(first, "1"), (first, "2"), (gone, "3"), (gone, "4")] {
        world.rooms.write(dir, name, b"content").await;
    }
    world.settled().await;
    let slow_down = Action::Status { status: 503, code: "SlowDown".to_owned(), retry_after: None };
    world.emulator.add_fault(Fault { count: u32::MAX, ..fault_of_batches(slow_down) });
    for (dir, name) in [(first, "1"), (first, "2"), (gone, "3"), (gone, "4")] {
        world.rooms.unlink(dir, name).await;
    }
    world.rooms.vfs.rmdir(dir, OsStr::new("gone"), CALLER).await.unwrap();
    world.rooms.uploader.hurry();
    world.until("all of them are refused", |world| !world.rooms.uploader.status().failures.is_empty()).await;
    let waited = tokio::time::timeout(Duration::from_secs(45), world.rooms.vfs.fsyncdir(dir, false)).await;
    waited.expect("the store fails all the time, and nobody tells").unwrap_err();
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.keys(), ["a/", "b/"]);
    world.close().await;
}
