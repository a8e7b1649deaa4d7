use super::*;

use proptest::prelude::*;
use std::collections::HashMap;

const SYNC: TargetId = TargetId(7);
const NOW: Duration = Duration::from_secs(10);

fn entry(seq: u64) -> Entry {
    Entry::new(seq, TimeNs(0), NOW, Duration::ZERO)
}

/// Owes and commits a key.
fn owe(queue: &mut Queue, key: &str, seq: u64) -> Vec<u64> {
    let superseded = queue.supersede(key);
    queue.insert(key, entry(seq), &superseded);
    queue.self_check();
    superseded
}

fn deleted(ops: &[Op]) -> Vec<u64> {
    ops.iter()
        .map(|op| match op {
            Op::DeleteAnnouncement(seq) => *seq,
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

fn again() -> Fate {
    Fate::Again { due: NOW, alone: false, error: "503".into() }
}

fn failed() -> Fate {
    Fate::Failed { error: "400".into(), by_time: false }
}

#[test]
fn what_waits_is_coalesced_and_what_is_under_way_is_not() {
    let mut queue = Queue::new(SYNC);
    assert!(owe(&mut queue, "a", 1).is_empty());
    assert_eq!(owe(&mut queue, "a", 2), [1], "pending entries of one key coalesce");
    let names = queue.take(NOW, 10);
    assert_eq!(queue.under_way("a").unwrap().seq, 2);
    assert!(owe(&mut queue, "a", 3).is_empty(), "one in flight does not");
    assert_eq!(queue.take(NOW, 10), [], "a key is under way once at a time");
    let settled = queue.settle("a", &Fate::Accepted);
    assert_eq!((deleted(&settled.ops), settled.record), (vec![2], Some(2)), "a reply settles what was sent");
    queue.land(&names[0], Fate::Accepted);
    queue.self_check();
    assert_eq!(queue.take(NOW, 10).len(), 1);
    assert_eq!(queue.under_way("a").unwrap().seq, 3);
}

#[test]
fn a_request_takes_what_is_due_in_order_of_backoff() {
    let mut queue = Queue::new(SYNC);
    for (seq, key) in ["z", "y", "x", "w"].iter().enumerate() {
        let mut entry = entry(seq as u64);
        entry.due = NOW - Duration::from_secs(seq as u64);
        queue.insert(key, entry, &[]);
    }
    let mut late = entry(9);
    late.due = NOW + Duration::from_secs(1);
    queue.insert("late", late, &[]);
    let names: Vec<String> = queue.take(NOW, 3).iter().map(|name| name.to_string()).collect();
    assert_eq!(names, ["w", "x", "y"]);
    let names: Vec<String> = queue.take(NOW, 3).iter().map(|name| name.to_string()).collect();
    assert_eq!(names, ["z"]);
    assert_eq!(queue.next_due(), Some(NOW + Duration::from_secs(1)));
}

#[test]
fn a_refused_request_is_repeated_key_by_key() {
    let mut queue = Queue::new(SYNC);
    for (seq, key) in ["a", "b", "c"].iter().enumerate() {
        owe(&mut queue, key, seq as u64 + 1);
    }
    for name in queue.take(NOW, 10) {
        let fate = Fate::Again { due: NOW, alone: true, error: "400".into() };
        let settled = queue.settle(&name, &fate);
        assert!(matches!(settled.ops.as_slice(), [Op::PutAnnouncement(row)] if row.attempts == 1));
        queue.land(&name, fate);
    }
    queue.self_check();
    for _ in 0..3 {
        assert_eq!(queue.take(NOW, 10).len(), 1);
    }
    assert_eq!(queue.take(NOW, 10), []);
}

#[test]
fn what_failed_is_kept_until_somebody_owes_it_again() {
    let mut queue = Queue::new(SYNC);
    owe(&mut queue, "a", 1);
    let name = queue.take(NOW, 10).remove(0);
    let settled = queue.settle(&name, &failed());
    assert!(matches!(settled.ops.as_slice(), [Op::PutAnnouncement(row)] if row.state == AnnouncementState::Failed));
    assert_eq!(settled.record, Some(1));
    queue.land(&name, failed());
    queue.self_check();
    assert_eq!((queue.counts(), queue.next_due()), ((0, 0, 1), None));
    assert_eq!(queue.failed_keys(false, "", 9), std::slice::from_ref(&name));
    assert_eq!(queue.failed_keys(true, "", 9), [], "it did not run out of time");
    assert_eq!(queue.failed_keys(false, "b", 9), []);
    assert_eq!(queue.supersede("a"), [1]);
    assert_eq!(queue.failed_keys(false, "", 9), [], "somebody is at it");
    queue.insert("a", entry(2), &[1]);
    queue.self_check();
    assert_eq!(queue.counts(), (1, 0, 0));
}

#[test]
fn a_failure_of_what_was_announced_again_meanwhile_means_nothing() {
    let mut queue = Queue::new(SYNC);
    owe(&mut queue, "a", 1);
    let name = queue.take(NOW, 10).remove(0);
    owe(&mut queue, "a", 2);
    let settled = queue.settle(&name, &failed());
    assert_eq!((deleted(&settled.ops), settled.record), (vec![1], None));
    queue.land(&name, failed());
    queue.self_check();
    assert_eq!(queue.counts(), (1, 0, 0));
    queue.take(NOW, 10);
    assert_eq!(queue.under_way("a").unwrap().rows().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_failure_that_was_settled_first_leaves_its_row_to_the_newer_announcement() {
    let mut queue = Queue::new(SYNC);
    owe(&mut queue, "a", 1);
    let name = queue.take(NOW, 10).remove(0);
    assert_eq!(queue.settle(&name, &failed()).record, Some(1));
    owe(&mut queue, "a", 2);
    queue.land(&name, failed());
    queue.self_check();
    queue.take(NOW, 10);
    assert_eq!(deleted(&queue.settle("a", &Fate::Accepted).ops), [1, 2]);
}

#[test]
fn gone_ends_what_waits_and_what_failed_but_not_what_is_under_way() {
    let mut queue = Queue::new(SYNC);
    owe(&mut queue, "a", 1);
    let (ops, waited) = queue.remove_gone("a");
    assert_eq!((deleted(&ops), waited), (vec![1], true));
    assert!(!queue.holds("a"));
    assert_eq!(queue.remove_gone("a"), (Vec::new(), false));

    owe(&mut queue, "b", 2);
    let name = queue.take(NOW, 10).remove(0);
    assert_eq!(queue.remove_gone("b"), (Vec::new(), false));
    let settled = queue.settle(&name, &Fate::Accepted);
    assert_eq!(settled.record, Some(2), "its reply still counts");
    assert_eq!(queue.land(&name, Fate::Accepted), (Vec::new(), false));

    owe(&mut queue, "c", 3);
    let name = queue.take(NOW, 10).remove(0);
    queue.remove_gone("c");
    let settled = queue.settle(&name, &again());
    assert_eq!(deleted(&settled.ops), [3]);
    assert_eq!(queue.land(&name, again()), (Vec::new(), true), "not sent again");

    owe(&mut queue, "d", 4);
    let name = queue.take(NOW, 10).remove(0);
    queue.settle(&name, &again());
    queue.remove_gone("d");
    let (ops, gone) = queue.land(&name, again());
    assert_eq!((deleted(&ops), gone), (vec![4], true), "gone between settling and landing");
    queue.self_check();
    assert!(!queue.holds("d"));
}

#[test]
fn a_row_that_a_caller_deletes_is_not_written_again() {
    let mut queue = Queue::new(SYNC);
    owe(&mut queue, "a", 1);
    assert_eq!(queue.supersede("a"), [1]);
    // The caller's batch is still on its way when the old announcement is sent and fails.
    let name = queue.take(NOW, 10).remove(0);
    assert_eq!(queue.settle(&name, &again()).ops, []);
    queue.land(&name, again());
    queue.insert("a", entry(2), &[1]);
    queue.self_check();
    queue.take(NOW, 10);
    assert_eq!(queue.under_way("a").unwrap().rows().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_released_row_is_written_and_retried_again() {
    let mut queue = Queue::new(SYNC);
    owe(&mut queue, "a", 1);
    let (first, second) = (queue.supersede("a"), queue.supersede("a"));
    queue.release("a", &first);
    let name = queue.take(NOW, 10).remove(0);
    assert_eq!(queue.settle(&name, &failed()).ops, [], "one claim is left");
    queue.release("a", &second);
    assert_eq!(queue.settle(&name, &failed()).ops.len(), 1);
    queue.land(&name, failed());
    assert_eq!(queue.failed_keys(false, "", 9), [name]);
}

#[test]
fn a_start_takes_over_every_state() {
    let mut queue = Queue::new(SYNC);
    let row = |seq, key: &str, state| AnnouncementRow {
        seq,
        sync: SYNC,
        key: Key::from(key),
        state,
        attempts: 3,
        error: Some("e".into()),
        owed: TimeNs(5),
    };
    queue.load(&row(1, "a", AnnouncementState::Owed), NOW);
    queue.load(&row(2, "b", AnnouncementState::Failed), NOW);
    queue.load(&row(3, "c", AnnouncementState::GaveUp), NOW);
    queue.load(&row(4, "a", AnnouncementState::Owed), NOW);
    queue.self_check();
    assert_eq!(queue.counts(), (1, 0, 2));
    assert_eq!(queue.failed_keys(true, "", 9).len(), 1);
    assert_eq!(queue.take(NOW, 10).len(), 1);
    assert_eq!(deleted(&queue.settle("a", &Fate::Accepted).ops), [1, 4], "two rows of one key are one request");
}

/// What a model of the journal and of the outside world sees.
#[derive(Clone, Debug)]
enum Step {
    Owe(u8),
    Gone(u8),
    Take,
    Settle(u8, u8),
    Land,
    Retry,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3u8).prop_map(Step::Owe),
        1 => (0..3u8).prop_map(Step::Gone),
        3 => Just(Step::Take),
        4 => (0..3u8, 0..4u8).prop_map(|(key, fate)| Step::Settle(key, fate)),
        4 => Just(Step::Land),
        1 => Just(Step::Retry),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    /// Whatever the order: every row on disk is one that memory knows of (so none is forgotten), and
    /// a change that no request has carried since, and whose key is not gone, has a row.
    #[test]
    fn no_row_is_forgotten_and_no_change_is_lost(steps in steps()) {
        let mut queue = Queue::new(SYNC);
        let mut disk: HashMap<u64, String> = HashMap::new();
        let mut untold: HashMap<String, u64> = HashMap::new();
        let mut settled: Vec<(Name, Fate, u64)> = Vec::new();
        let mut sent: HashMap<String, u64> = HashMap::new();
        let mut seq = 0;
        fn apply(disk: &mut HashMap<u64, String>, ops: &[Op]) {
            for op in ops {
                match op {
                    Op::DeleteAnnouncement(seq) => { disk.remove(seq); }
                    Op::PutAnnouncement(row) => { disk.insert(row.seq, row.key.0.clone()); }
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        for step in steps {
            match step {
                Step::Owe(key) => {
                    let key = format!("k{key}");
                    seq += 1;
                    for old in queue.supersede(&key) {
                        disk.remove(&old);
                    }
                    disk.insert(seq, key.clone());
                    let superseded: Vec<u64> = (0..seq).filter(|old| !disk.contains_key(old)).collect();
                    queue.insert(&key, entry(seq), &superseded);
                    untold.insert(key, seq);
                }
                Step::Gone(key) => {
                    let key = format!("k{key}");
                    let (ops, _) = queue.remove_gone(&key);
                    apply(&mut disk, &ops);
                    untold.remove(&key);
                }
                Step::Take => {
                    for name in queue.take(NOW, 2) {
                        let carried = queue.under_way(&name).unwrap().rows().max().unwrap();
                        sent.insert(name.to_string(), carried);
                    }
                }
                Step::Settle(key, fate) => {
                    let name: Name = format!("k{key}").as_str().into();
                    let pending = settled.iter().any(|(other, _, _)| *other == name);
                    let Some(carried) = sent.get(&*name).copied().filter(|_| !pending) else { continue };
                    let fate = match fate {
                        0 => Fate::Accepted,
                        1 => again(),
                        2 => failed(),
                        _ => Fate::Failed { error: "late".into(), by_time: true },
                    };
                    apply(&mut disk, &queue.settle(&name, &fate).ops);
                    settled.push((name, fate, carried));
                }
                Step::Land => {
                    for (name, fate, carried) in settled.drain(..) {
                        if fate == Fate::Accepted && untold.get(&*name).is_some_and(|seq| *seq <= carried) {
                            untold.remove(&*name);
                        }
                        sent.remove(&*name);
                        let (ops, _) = queue.land(&name, fate);
                        apply(&mut disk, &ops);
                    }
                }
                Step::Retry => {
                    for name in queue.failed_keys(false, "", 9) {
                        seq += 1;
                        for old in queue.supersede(&name) {
                            disk.remove(&old);
                        }
                        disk.insert(seq, name.to_string());
                        queue.insert(&name, entry(seq), &[]);
                        if let Some(change) = untold.get_mut(&*name) {
                            *change = seq;
                        }
                    }
                }
            }
            queue.self_check();
            for (key, change) in &untold {
                let kept = disk.values().any(|other| other == key);
                let landing = settled.iter().any(|(name, fate, carried)| {
                    **name == **key && *fate == Fate::Accepted && carried >= change
                });
                prop_assert!(kept || landing, "{key} is lost");
            }
        }
        // Everything ends: what is left of rows is what memory still holds.
        for (name, fate, _) in settled.drain(..) {
            let (ops, _) = queue.land(&name, fate);
            apply(&mut disk, &ops);
        }
        for row in disk.iter() {
            let known = queue.entries("").any(|(name, entry, _)| **name == **row.1 && entry.rows().any(|seq| seq == *row.0));
            prop_assert!(known, "row {row:?} is forgotten");
        }
    }
}
