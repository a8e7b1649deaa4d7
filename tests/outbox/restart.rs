//! What a crash leaves, and what a start makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferryfs::journal::{AnnouncementRow, AnnouncementState, Durability, RecordOutcome, RecordRow};
use ferryfs::oms::Outcome;
use ferryfs::outbox::{Error, Outbox, Target};
use ferryfs::store::ErrorKind;
use ferryfs::types::{Key, TargetId, TimeNs};

use crate::world::{Oms, World, eventually, failed, failure, success, unavailable, unreachable};

#[tokio::test]
async fn a_crash_before_sending_leaves_it_owed() {
    let world = World::new(Oms::accepting());
    let start = world.start_idle();
    start.owe("a").await;
    start.kill().await;
    assert_eq!(world.oms.calls().len(), 0);
    let start = world.start();
    start.until_nothing_is_left().await;
    assert_eq!(world.log.keys(), BTreeSet::from([success("a")]));
    start.stop().await;
}

#[tokio::test]
async fn a_crash_between_sending_and_settling_sends_again() {
    let world = World::new(Oms::accepting());
    let start = world.start();
    world.oms.hold();
    for key in ["a", "b", "c"] {
        start.owe(key).await;
    }
    eventually("under way", || world.oms.times_told("a") == 1).await;
    start.kill().await;
    world.oms.let_go();
    assert_eq!(world.snapshot().announcements.len(), 3);
    let start = world.start();
    start.until_nothing_is_left().await;
    assert_eq!(world.oms.times_told("a"), 2, "at least once");
    assert_eq!(world.log.keys(), ["a", "b", "c"].into_iter().map(success).collect());
    start.stop().await;
    assert!(world.snapshot().announcements.is_empty());
}

#[tokio::test]
async fn a_crash_between_settling_and_recording_records_without_sending() {
    let world = World::new(Oms::accepting());
    world.log.refuse(Some(ErrorKind::Network));
    let start = world.start();
    start.owe("a").await;
    start.until("told", |outbox| outbox.left(None, "").announcements == 0).await;
    start.kill().await;
    world.log.refuse(None);
    let start = world.start();
    start.until_nothing_is_left().await;
    assert_eq!(world.oms.times_told("a"), 1);
    assert_eq!(world.log.keys(), BTreeSet::from([success("a")]));
    start.stop().await;
    assert!(world.snapshot().records.is_empty());
}

#[tokio::test]
async fn kills_at_any_moment_lose_nothing() {
    let world = World::new(Oms::accepting());
    let mut owed = BTreeSet::new();
    for round in 0..15_u32 {
        let start = world.start();
        for n in 0..40 {
            let key = format!("r{round:02}/{n:02}");
            start.owe(&key).await;
            owed.insert(key);
            if n % 8 == round % 8 {
                tokio::task::yield_now().await;
            }
        }
        // Somewhere in the middle of sending and recording.
        let told = u64::from(round) * 2;
        start.until("some told", |outbox| outbox.status().targets[0].counters.announced >= told).await;
        start.kill().await;
    }
    let start = world.start();
    start.until_nothing_is_left().await;
    assert_eq!(world.log.keys(), owed.iter().map(|key| success(key)).collect());
    start.stop().await;
    let rows = world.snapshot();
    assert_eq!((rows.announcements.len(), rows.records.len()), (0, 0));
}

/// A generator of numbers that a failing run can be repeated with.
struct Dice(u64);

impl Dice {
    /// From 0 to `sides` - 1 (Knuth's MMIX generator; its high bits are the good ones).
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn whatever_happens_the_last_change_of_every_key_is_told_and_recorded() {
    for seed in 0..8 {
        let mut dice = Dice(seed);
        let mut oms_dice = Dice(seed + 1000);
        let world = World::new(Oms::new(move |_| match oms_dice.roll(8) {
            0 => unavailable(),
            1 => unreachable(),
            2 => Outcome::Rejected(failure(400)),
            3 => Outcome::Unauthorized(failure(403)),
            _ => Outcome::Accepted,
        }));
        // Requests made before the last change of each key that still exists.
        let mut changed: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..6 {
            let start = world.start();
            for _ in 0..60 {
                let key = format!("k{}", dice.roll(12));
                match dice.roll(12) {
                    0 => {
                        let ops = start.outbox.gone(start.sync, &Key::from(key.as_str()));
                        start.journal.submit(ops, Durability::Disk).await.unwrap();
                        changed.remove(&key);
                    }
                    1 => world.log.refuse((dice.roll(2) == 0).then_some(ErrorKind::Network)),
                    2 => {
                        start.outbox.retry_failed(None, "").await.unwrap();
                    }
                    3 => tokio::time::sleep(Duration::from_millis(dice.roll(4))).await,
                    _ => {
                        let (ticket, ops) = start.outbox.owe(start.sync, &Key::from(key.as_str())).unwrap();
                        start.journal.submit(ops, Durability::Disk).await.unwrap();
                        // Nothing else runs between these two lines (one thread, no await): no
                        // request counted here carries the change.
                        let earlier = world.oms.times_told(&key);
                        start.outbox.committed(ticket);
                        changed.insert(key, earlier);
                    }
                }
            }
            start.kill().await;
        }
        world.log.refuse(None);
        world.oms.set(|_| Outcome::Accepted);
        let start = world.start();
        start.outbox.retry_failed(None, "").await.unwrap();
        start.until_nothing_is_left().await;
        start.stop().await;
        let rows = world.snapshot();
        assert_eq!((rows.announcements.len(), rows.records.len()), (0, 0), "seed {seed}");
        let records = world.log.keys();
        for (key, earlier) in &changed {
            assert!(world.oms.times_told(key) > *earlier, "seed {seed}: {key}");
            assert!(records.contains(&success(key)), "seed {seed}: {key} is not recorded");
            assert!(!records.contains(&failed(key)), "seed {seed}: {key} is recorded as failed");
        }
    }
}

#[tokio::test]
async fn a_start_is_refused_while_something_is_owed_to_an_unknown_target() {
    let world = World::new(Oms::accepting());
    let journal = world.journal();
    let (sync, record) = world.targets(&journal);
    let announcement = |sync, state| AnnouncementRow {
        seq: 1,
        sync,
        key: Key::from("a"),
        state,
        attempts: 0,
        error: None,
        owed: TimeNs(0),
    };
    let log_row =
        |record| RecordRow { seq: 1, record, sync, key: Key::from("a"), outcome: RecordOutcome::Success, attempts: 0 };
    let target = || Target {
        sync,
        record: Some(record),
        announcer: world.oms.clone(),
        record_store: Some(world.log.clone()),
        record_prefix: String::new(),
        task: crate::world::TASK.to_owned(),
    };
    let open = |targets, announcements: &[AnnouncementRow], records: &[RecordRow]| {
        Outbox::open(journal.clone(), world.clock.clone(), world.options.clone(), targets, (announcements, records))
    };
    let other = TargetId(99);
    for state in [AnnouncementState::Owed, AnnouncementState::GaveUp] {
        let result = open(vec![target()], &[announcement(other, state)], &[]);
        assert!(matches!(result, Err(Error::Unconfigured { target, owed: 1 }) if target == other));
    }
    let result = open(vec![target()], &[], &[log_row(other)]);
    assert!(matches!(result, Err(Error::Unconfigured { target, owed: 1 }) if target == other));
    assert!(open(vec![target()], &[announcement(other, AnnouncementState::Failed)], &[]).is_ok(), "not owed");
    assert!(open(vec![target()], &[announcement(sync, AnnouncementState::Owed)], &[log_row(record)]).is_ok());
    assert!(matches!(open(vec![target(), target()], &[], &[]), Err(Error::BadTarget(_))));
    let half = Target { record_store: None, ..target() };
    assert!(matches!(open(vec![half], &[], &[]), Err(Error::BadTarget(_))));
    journal.close().unwrap();
}

#[tokio::test]
async fn without_a_log_bucket_telling_is_enough() {
    let world = World::new(Oms::accepting());
    let journal = world.journal();
    let (sync, _) = world.targets(&journal);
    let target = Target {
        sync,
        record: None,
        announcer: world.oms.clone(),
        record_store: None,
        record_prefix: String::new(),
        task: crate::world::TASK.to_owned(),
    };
    let outbox =
        Outbox::open(journal.clone(), world.clock.clone(), world.options.clone(), vec![target], (&[], &[])).unwrap();
    let (ticket, ops) = outbox.owe(sync, &Key::from("a")).unwrap();
    journal.submit(ops, Durability::Disk).await.unwrap();
    outbox.committed(ticket);
    assert!(matches!(outbox.owe(TargetId(99), &Key::from("a")), Err(Error::UnknownTarget(_))));
    let mut changes = outbox.subscribe();
    let told = async {
        while !outbox.left(None, "").is_nothing() {
            changes.changed().await.unwrap();
        }
    };
    outbox.run(told).await.unwrap();
    assert!(matches!(outbox.reconcile(sync, &*world.log, "", |_| false).await, Err(Error::NoRecords(_))));
    assert!(journal.load().unwrap().announcements.is_empty());
    journal.close().unwrap();
}
