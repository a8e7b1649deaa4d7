//! O1 and O2: what is sent, and when.

use std::collections::BTreeSet;

use ferryfs::journal::Durability;
use ferryfs::oms::Outcome;
use ferryfs::types::Key;

use crate::world::{Oms, World, eventually, success};

#[tokio::test]
async fn every_key_is_announced_in_small_requests_and_recorded() {
    let world = World::new(Oms::accepting());
    let mut start = world.start_idle();
    let keys: BTreeSet<String> = (0..95).map(|n| format!("data/{n} \u{4e2d}+%.txt")).collect();
    for key in &keys {
        start.owe(key).await;
    }
    start.run();
    start.until_nothing_is_left().await;

    let calls = world.oms.calls();
    assert!(calls.iter().all(|keys| (1..=10).contains(&keys.len())), "{calls:?}");
    assert_eq!(calls.len(), 10, "95 keys that wait fit into ten requests");
    assert!(world.oms.most_under_way() <= world.options.concurrency);
    assert_eq!(calls.into_iter().flatten().collect::<BTreeSet<_>>(), keys);
    assert_eq!(world.log.keys(), keys.iter().map(|key| success(key)).collect());
    assert!(world.log.body(&success("data/1 \u{4e2d}+%.txt")).unwrap().is_empty());
    let counters = start.outbox.status().targets[0].counters;
    assert_eq!((counters.announced, counters.recorded, counters.failed), (95, 95, 0));

    start.stop().await;
    let rows = world.snapshot();
    assert_eq!((rows.announcements.len(), rows.records.len()), (0, 0));
}

#[tokio::test]
async fn nothing_is_sent_before_its_rows_are_on_disk() {
    let world = World::new(Oms::accepting());
    let start = world.start();
    let (ticket, ops) = start.outbox.owe(start.sync, &Key::from("early")).unwrap();
    start.owe("fence").await;
    start.until_nothing_is_left().await;
    assert_eq!(world.oms.times_told("early"), 0);

    start.journal.submit(ops, Durability::Disk).await.unwrap();
    start.outbox.committed(ticket);
    start.until_nothing_is_left().await;
    assert_eq!(world.oms.times_told("early"), 1);
    start.stop().await;
}

#[tokio::test]
async fn a_forgotten_ticket_leaves_what_was_owed() {
    let world = World::new(Oms::accepting());
    let mut start = world.start_idle();
    start.owe("a").await;
    let (ticket, _never_submitted) = start.outbox.owe(start.sync, &Key::from("a")).unwrap();
    drop(ticket);
    start.run();
    start.until_nothing_is_left().await;
    assert_eq!(world.oms.times_told("a"), 1);
    start.stop().await;
    assert!(world.snapshot().announcements.is_empty());
}

#[tokio::test]
async fn changes_coalesce_but_not_with_what_is_under_way() {
    let world = World::new(Oms::accepting());
    let start = world.start();
    world.oms.hold();
    start.owe("a").await;
    eventually("under way", || world.oms.times_told("a") == 1).await;
    for _ in 0..5 {
        start.owe("a").await;
    }
    start.owe("ab").await;
    assert_eq!(start.outbox.left(None, "a").announcements, 3);
    let left = start.outbox.left_of(start.sync, &Key::from("a"));
    assert_eq!(left.announcements, 2, "one under way, and one for five changes");
    assert!(!start.outbox.is_idle_for(start.sync, &Key::from("a")));
    world.oms.let_go();
    start.until_nothing_is_left().await;
    assert_eq!(world.oms.times_told("a"), 2, "the reply settled only what was sent");
    assert!(start.outbox.is_idle_for(start.sync, &Key::from("a")));
    start.stop().await;
    assert!(world.snapshot().announcements.is_empty());
}

#[tokio::test]
async fn a_key_that_is_gone_is_not_announced() {
    let world = World::new(Oms::accepting());
    let mut start = world.start_idle();
    start.owe("gone").await;
    start.owe("kept").await;
    let ops = start.outbox.gone(start.sync, &Key::from("gone"));
    start.journal.submit(ops, Durability::Buffered).await.unwrap();
    assert!(start.outbox.is_idle_for(start.sync, &Key::from("gone")));
    start.run();
    start.until_nothing_is_left().await;
    assert_eq!(world.oms.calls(), [["kept"]]);
    assert_eq!(world.log.keys(), BTreeSet::from([success("kept")]));
    assert_eq!(start.outbox.status().targets[0].counters.gone, 1);
    start.stop().await;
    assert!(world.snapshot().announcements.is_empty());
}

#[tokio::test]
async fn a_key_gone_while_under_way_is_not_sent_again() {
    let world = World::new(Oms::new(|_| crate::world::unavailable()));
    let start = world.start();
    world.oms.hold();
    start.owe("a").await;
    eventually("under way", || world.oms.times_told("a") == 1).await;
    let ops = start.outbox.gone(start.sync, &Key::from("a"));
    assert!(ops.is_empty(), "what is under way stays until its reply");
    world.oms.let_go();
    start.until_nothing_is_left().await;
    assert_eq!(world.oms.times_told("a"), 1);
    assert_eq!(start.outbox.status().targets[0].counters.gone, 1);
    start.stop().await;
    assert!(world.snapshot().announcements.is_empty());
}

#[tokio::test]
async fn requests_keep_to_the_rate() {
    let mut world = World::new(Oms::accepting());
    world.options.requests_per_second = 50;
    world.options.concurrency = 1;
    let mut start = world.start_idle();
    for n in 0..60 {
        start.owe(&format!("{n}")).await;
    }
    start.run();
    start.until_nothing_is_left().await;
    let times = world.oms.times();
    assert_eq!(times.len(), 6);
    let taken = times[5] - times[0];
    assert!(taken.as_millis() >= 95, "six requests, five intervals of 20 ms: {taken:?}");
    start.stop().await;
}

#[tokio::test]
async fn shutdown_settles_what_is_under_way() {
    let world = World::new(Oms::new(|_| Outcome::Accepted));
    let start = world.start();
    world.oms.hold();
    start.owe("a").await;
    eventually("under way", || world.oms.times_told("a") == 1).await;
    let oms = world.oms.clone();
    let release = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        oms.let_go();
    });
    start.stop().await;
    release.await.unwrap();
    let rows = world.snapshot();
    assert_eq!((rows.announcements.len(), rows.records.len()), (0, 1), "told; the record is owed");
}

#[tokio::test]
async fn a_dispatcher_runs_once() {
    let world = World::new(Oms::accepting());
    let start = world.start();
    start.owe("a").await;
    start.until_nothing_is_left().await;
    let again = start.outbox.run(std::future::pending()).await;
    assert!(matches!(again, Err(ferryfs::outbox::Error::AlreadyRunning)));
    start.stop().await;
}
