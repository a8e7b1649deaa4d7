//! O3: what OMS refuses, and what it cannot take now.

use std::collections::BTreeSet;
use std::time::Duration;

use ferryfs::journal::{AnnouncementState, Durability, TargetKind};
use ferryfs::oms::{Outcome, TransientKind};
use ferryfs::outbox::{ItemState, Outbox, Target};
use ferryfs::types::Key;

use crate::world::{Oms, PATIENCE, World, failed, failure, success, unavailable, unreachable};

#[tokio::test]
async fn an_outage_passes_and_nothing_is_recorded_as_failed() {
    let mut outage = 6;
    let world = World::new(Oms::new(move |_| {
        if outage > 0 {
            outage -= 1;
            return unavailable();
        }
        Outcome::Accepted
    }));
    let mut start = world.start_idle();
    let keys: BTreeSet<String> = (0..25).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        start.owe(key).await;
    }
    start.run();
    start.until_nothing_is_left().await;

    assert_eq!(world.log.keys(), keys.iter().map(|key| success(key)).collect());
    assert!(!world.log.log().iter().any(|line| line.starts_with("PUT") && line.contains("failed_object")));
    for key in &keys {
        let puts = world.log.log().iter().filter(|line| **line == format!("PUT {}", success(key))).count();
        assert_eq!(puts, 1, "{key} is recorded once");
    }
    let status = &start.outbox.status().targets[0];
    assert_eq!((status.counters.announced, status.counters.failed, status.failing), (25, 0, 0));
    assert_eq!(status.last_error, None);
    // The first two go together; every later one of the outage waits for its backoff.
    let times = world.oms.times();
    let mut least = Duration::from_millis(2);
    for pair in times[1..6].windows(2) {
        assert!(pair[1] - pair[0] >= least, "{pair:?} sooner than {least:?}");
        least = (least * 2).min(Duration::from_millis(20));
    }
    start.stop().await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let mut first = true;
    let world = World::new(Oms::new(move |_| {
        if std::mem::take(&mut first) {
            let retry_after = Some(Duration::from_millis(300));
            return Outcome::Transient { kind: TransientKind::Throttled, failure: failure(429), retry_after };
        }
        Outcome::Accepted
    }));
    let start = world.start();
    start.owe("a").await;
    start.until("backing off", |outbox| outbox.status().targets[0].failing == 1).await;
    start.owe("b").await;
    start.until_nothing_is_left().await;
    let times = world.oms.times();
    assert!(times[1] - times[0] >= Duration::from_millis(300), "also a new key waits: {times:?}");
    start.stop().await;
}

#[tokio::test]
async fn a_refused_key_is_found_recorded_kept_and_sent_again_on_demand() {
    let refuses = |keys: &[String]| match keys.iter().any(|key| key == "bad") {
        true => Outcome::Rejected(failure(400)),
        false => Outcome::Accepted,
    };
    let world = World::new(Oms::new(refuses));
    let mut start = world.start_idle();
    for key in ["a", "b", "bad", "c"] {
        start.owe(key).await;
    }
    start.run();
    start
        .until("only the refused one left", |outbox| {
            let left = outbox.left(None, "");
            (left.announcements, left.failed, left.records) == (0, 1, 0)
        })
        .await;

    let mut calls = world.oms.calls();
    assert_eq!(calls.remove(0), ["a", "b", "bad", "c"]);
    calls.sort();
    assert_eq!(calls, [["a"], ["b"], ["bad"], ["c"]], "then key by key");
    let expected = BTreeSet::from([success("a"), success("b"), success("c"), failed("bad")]);
    assert_eq!(world.log.keys(), expected);
    let status = &start.outbox.status().targets[0];
    assert_eq!((status.failed, status.counters.failed), (1, 1));
    assert_eq!(status.failures[0].key, "bad");
    let listed = start.outbox.list(10);
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].state, listed[0].attempts), (ItemState::Failed, 2));
    assert_eq!(listed[0].error.as_deref(), Some("HTTP 400"));

    // A restart keeps it, and does not send it by itself.
    start.stop().await;
    let start = world.start();
    start.owe("d").await;
    start.until("d told", |outbox| outbox.left(None, "d").is_nothing()).await;
    assert_eq!(world.oms.times_told("bad"), 2);

    // Refused again: still one failure, still one record.
    assert_eq!(start.outbox.retry_failed(None, "").await.unwrap(), 1);
    start
        .until("refused again", |outbox| {
            let left = outbox.left(None, "bad");
            (left.announcements, left.failed, left.records) == (0, 1, 0)
        })
        .await;
    assert_eq!(world.oms.times_told("bad"), 3);

    world.oms.set(|_| Outcome::Accepted);
    assert_eq!(start.outbox.retry_failed(None, "nothing like it").await.unwrap(), 0);
    assert_eq!(start.outbox.retry_failed(Some(start.sync), "ba").await.unwrap(), 1);
    start.until_nothing_is_left().await;
    assert!(world.log.keys().contains(&success("bad")));
    assert!(!world.log.keys().contains(&failed("bad")), "the twin is gone");
    start.stop().await;
    let rows = world.snapshot();
    assert_eq!((rows.announcements.len(), rows.records.len()), (0, 0));
}

#[tokio::test]
async fn a_forgotten_ticket_does_not_keep_a_refused_key_from_being_sent_again() {
    let world = World::new(Oms::new(|_| Outcome::Rejected(failure(400))));
    let mut start = world.start_idle();
    start.owe("a").await;
    let (ticket, _never_submitted) = start.outbox.owe(start.sync, &Key::from("a")).unwrap();
    start.run();
    start.until("refused", |outbox| outbox.left(None, "").failed == 1).await;
    world.oms.set(|_| Outcome::Accepted);
    assert_eq!(start.outbox.retry_failed(None, "").await.unwrap(), 0, "somebody is about to announce it");
    drop(ticket);
    assert_eq!(start.outbox.retry_failed(None, "").await.unwrap(), 1);
    start.until_nothing_is_left().await;
    assert_eq!(world.log.keys(), BTreeSet::from([success("a")]));
    start.stop().await;
    assert!(world.snapshot().announcements.is_empty());
}

#[tokio::test]
async fn a_refused_key_that_changes_is_announced_by_itself() {
    let world = World::new(Oms::new(|_| Outcome::Rejected(failure(400))));
    let start = world.start();
    start.owe("a").await;
    start.until("refused", |outbox| outbox.left(None, "").failed == 1).await;
    world.oms.set(|_| Outcome::Accepted);
    start.owe("a").await;
    start.until_nothing_is_left().await;
    assert_eq!(world.log.keys(), BTreeSet::from([success("a")]));
    start.stop().await;
    assert!(world.snapshot().announcements.is_empty());
}

#[tokio::test]
async fn refused_credentials_pause_the_target_and_a_probe_ends_the_pause() {
    for outcome in
        [Outcome::Unauthorized(failure(401)), Outcome::Unauthorized(failure(403)), Outcome::NoSuchTask(failure(404))]
    {
        let world = World::new(Oms::new(move |_| outcome.clone()));
        let mut start = world.start_idle();
        for n in 0..30 {
            start.owe(&format!("{n:02}")).await;
        }
        start.run();
        start.until("probed", |outbox| outbox.status().targets[0].counters.requests >= 5).await;
        let status = start.outbox.status();
        let why = status.targets[0].paused.clone().expect("paused");
        assert!(why.contains("HTTP 40"), "{why}");
        assert_eq!((status.targets[0].failed, status.targets[0].counters.failed), (0, 0));

        world.oms.set(|_| Outcome::Accepted);
        start.until_nothing_is_left().await;
        assert_eq!(start.outbox.status().targets[0].paused, None);
        assert_eq!(world.log.keys().len(), 30);
        assert!(world.log.keys().iter().all(|key| key.contains("/success_object/")));
        start.stop().await;
    }
}

#[tokio::test]
async fn a_pause_is_ended_by_the_operator() {
    let mut world = World::new(Oms::new(|_| Outcome::Unauthorized(failure(401))));
    world.options.first_probe = Duration::from_secs(3600);
    world.options.max_probe = Duration::from_secs(3600);
    let start = world.start();
    start.owe("a").await;
    start.until("paused", |outbox| outbox.status().targets[0].paused.is_some()).await;
    assert_eq!(world.oms.times_told("a"), 1);
    world.oms.set(|_| Outcome::Accepted);
    assert_eq!(start.outbox.retry_failed(None, "").await.unwrap(), 0);
    start.until_nothing_is_left().await;
    start.stop().await;
}

#[tokio::test]
async fn time_in_reach_declares_failed_and_the_first_acceptance_owes_again() {
    let world = World::new(Oms::new(|_| unavailable()));
    let start = world.start();
    start.owe("a").await;
    start.until("tried", |outbox| outbox.status().targets[0].counters.requests >= 3).await;
    assert_eq!(start.outbox.left(None, "").failed, 0);
    world.clock.push_hours(25);
    start
        .until("given up and recorded", |outbox| {
            let left = outbox.left(None, "");
            (left.failed, left.records) == (1, 0)
        })
        .await;
    assert_eq!(start.outbox.list(9)[0].state, ItemState::GaveUp);
    assert_eq!(world.log.keys(), BTreeSet::from([failed("a")]));

    // It is still known to have failed by time alone after a restart.
    start.stop().await;
    assert_eq!(world.snapshot().announcements[0].state, AnnouncementState::GaveUp);
    let start = world.start();
    world.oms.set(|_| Outcome::Accepted);
    start.owe("b").await;
    start.until_nothing_is_left().await;
    assert_eq!(world.log.keys(), BTreeSet::from([success("a"), success("b")]));
    start.stop().await;
    assert!(world.snapshot().announcements.is_empty());
}

#[tokio::test]
async fn time_in_a_pause_does_not_count() {
    let world = World::new(Oms::new(|_| unavailable()));
    let start = world.start();
    start.owe("a").await;
    start.until("tried", |outbox| outbox.status().targets[0].counters.requests >= 2).await;
    world.oms.set(|_| Outcome::Unauthorized(failure(401)));
    start.until("paused", |outbox| outbox.status().targets[0].paused.is_some()).await;
    world.clock.push_hours(1000);
    world.oms.set(|_| unavailable());
    let tried = start.outbox.status().targets[0].counters.requests;
    start.until("tried on", |outbox| outbox.status().targets[0].counters.requests >= tried + 3).await;
    let status = &start.outbox.status().targets[0];
    assert_eq!(status.failed, 0);
    assert!(status.paused.is_some(), "503 does not say that the credentials are good");
    world.oms.set(|_| Outcome::Accepted);
    start.until_nothing_is_left().await;
    start.stop().await;
}

#[tokio::test]
async fn one_sync_task_does_not_wait_for_another() {
    let world = World::new(Oms::new(|_| Outcome::NoSuchTask(failure(404))));
    let other = World::new(Oms::accepting());
    let journal = world.journal();
    let (sync, record) = world.targets(&journal);
    let second = journal.target(TargetKind::Sync, "https://oms.example.com/v2/p/sync-tasks/other/events").unwrap();
    let target = |sync, world: &World| Target {
        sync,
        record: Some(record),
        announcer: world.oms.clone(),
        record_store: Some(world.log.clone()),
        record_prefix: "logs/".to_owned(),
        task: "other".to_owned(),
    };
    let targets = vec![target(sync, &world), target(second, &other)];
    let outbox =
        Outbox::open(journal.clone(), world.clock.clone(), world.options.clone(), targets, (&[], &[])).unwrap();
    for sync in [sync, second] {
        let (ticket, ops) = outbox.owe(sync, &Key::from("a")).unwrap();
        journal.submit(ops, Durability::Disk).await.unwrap();
        outbox.committed(ticket);
    }
    let mut changes = outbox.subscribe();
    let told = async {
        while !outbox.is_idle_for(second, &Key::from("a")) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, outbox.run(told)).await.unwrap().unwrap();
    assert_eq!(outbox.left(Some(sync), "").announcements, 1);
    assert!(outbox.left(Some(second), "").is_nothing());
    assert_eq!(other.log.keys(), BTreeSet::from(["logs/oms_source_record/other/success_object/a".to_owned()]));
    assert!(world.log.keys().is_empty());
    journal.close().unwrap();
}

#[tokio::test]
async fn time_out_of_reach_does_not_count() {
    let world = World::new(Oms::new(|_| unreachable()));
    let start = world.start();
    start.owe("a").await;
    start.until("tried", |outbox| outbox.status().targets[0].counters.requests >= 3).await;
    world.clock.push_hours(1000);
    let tried = start.outbox.status().targets[0].counters.requests;
    start.until("tried on", |outbox| outbox.status().targets[0].counters.requests >= tried + 3).await;
    assert_eq!(start.outbox.left(None, "").failed, 0);
    world.oms.set(|_| Outcome::Accepted);
    start.until_nothing_is_left().await;
    assert_eq!(world.log.keys(), BTreeSet::from([success("a")]));
    start.stop().await;
}
