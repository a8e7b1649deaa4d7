//! Records owed to one log bucket for one sync task. Pure: no clock, no I/O.
//!
//! A key has at most one record under way and one that waits for it: records of a key are written in
//! sequence, and a later outcome takes the place of one that is not under way yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::journal::{Op, RecordOutcome, RecordRow};
use crate::types::{Key, TargetId};

use super::queue::Name;

/// One record to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) seq: u64,
    /// Rows whose place it has taken.
    older: Vec<u64>,
    pub(super) outcome: RecordOutcome,
    pub(super) attempts: u32,
    pub(super) error: Option<String>,
    due: Duration,
    /// A submitted batch deletes this row: it is not written again.
    superseded: bool,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: Option<Record>,
    flying: Option<Record>,
}

/// The records of one sync task.
#[derive(Debug, Default)]
pub(super) struct Records {
    slots: BTreeMap<Name, Slot>,
    /// What may be written when its time comes: none of the key under way.
    due: BTreeSet<(Duration, u64, Name)>,
    waiting: usize,
    flying: usize,
}

impl Records {
    /// The rows of a key that a later outcome makes superfluous: its batch deletes them.
    pub(super) fn supersede(&mut self, key: &str) -> Vec<Op> {
        let Some(record) = self.slots.get_mut(key).and_then(|slot| slot.waiting.as_mut()) else {
            return Vec::new();
        };
        record.superseded = true;
        record.older.drain(..).chain(std::iter::once(record.seq)).map(Op::DeleteRecord).collect()
    }

    /// Takes over a record whose row is on disk; a waiting one of the key is cancelled.
    pub(super) fn insert(&mut self, name: &Name, seq: u64, outcome: RecordOutcome, attempts: u32, due: Duration) {
        let mut record = Record { seq, older: Vec::new(), outcome, attempts, error: None, due, superseded: false };
        if let Some(old) = self.take_waiting(name) {
            record.older = old.older;
            if !old.superseded {
                record.older.push(old.seq);
            }
        }
        self.put_waiting(name.clone(), record);
    }

    /// When the next record is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _, _)| *due)
    }

    /// Takes the next record that is due.
    pub(super) fn take(&mut self, now: Duration) -> Option<(Name, RecordOutcome)> {
        let (due, _, name) = self.due.first()?;
        if *due > now {
            return None;
        }
        let name = name.clone();
        let record = self.take_waiting(&name)?;
        let outcome = record.outcome;
        self.slots.entry(name.clone()).or_default().flying = Some(record);
        self.flying += 1;
        Some((name, outcome))
    }

    /// The rows to delete now that the record under way is written.
    pub(super) fn written(&mut self, name: &Name) -> Vec<Op> {
        let Some(record) = self.land(name) else { return Vec::new() };
        self.settle_slot(name);
        record.older.iter().copied().chain(std::iter::once(record.seq)).map(Op::DeleteRecord).collect()
    }

    /// The record under way could not be written. Returns the row to write.
    pub(super) fn failed(&mut self, name: &Name, ids: (TargetId, TargetId), error: String, due: Duration) -> Vec<Op> {
        let Some(mut record) = self.land(name) else { return Vec::new() };
        let later = self.take_waiting(name);
        if let Some(mut later) = later {
            // Cancelled: its rows go when the later one is written.
            later.older.extend(record.older.iter().copied().chain(std::iter::once(record.seq)));
            self.put_waiting(name.clone(), later);
            return Vec::new();
        }
        record.attempts = record.attempts.saturating_add(1);
        record.error = Some(error);
        record.due = due;
        let (sync, target) = ids;
        let row = Op::PutRecord(RecordRow {
            seq: record.seq,
            record: target,
            sync,
            key: Key::from(&**name),
            outcome: record.outcome,
            attempts: record.attempts,
        });
        let ops = if record.superseded { Vec::new() } else { vec![row] };
        self.put_waiting(name.clone(), record);
        ops
    }

    /// Records that failed at least once, of the record under way.
    pub(super) fn attempts(&self, name: &Name) -> u32 {
        self.slots.get(name).and_then(|slot| slot.flying.as_ref()).map_or(0, |record| record.attempts)
    }

    /// Makes everything that waits due now.
    pub(super) fn hurry(&mut self, now: Duration) {
        let late: Vec<Name> = self.due.iter().filter(|(due, _, _)| *due > now).map(|(_, _, n)| n.clone()).collect();
        for name in late {
            if let Some(mut record) = self.take_waiting(&name) {
                record.due = now;
                self.put_waiting(name, record);
            }
        }
    }

    /// Records owed and not under way, under way.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting, self.flying)
    }

    /// Every record of the keys that begin with `prefix`; true: under way.
    pub(super) fn entries<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Name, &'a Record, bool)> + 'a {
        self.slots
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .flat_map(|(name, slot)| {
                let flying = slot.flying.as_ref().map(|record| (name, record, true));
                flying.into_iter().chain(slot.waiting.as_ref().map(|record| (name, record, false)))
            })
    }

    /// Whether a record of the key is owed or under way.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.slots.contains_key(key)
    }

    fn land(&mut self, name: &Name) -> Option<Record> {
        let record = self.slots.get_mut(name)?.flying.take()?;
        self.flying -= 1;
        Some(record)
    }

    /// After a flight: what waited for it may go, an empty slot is dropped.
    fn settle_slot(&mut self, name: &Name) {
        match self.take_waiting(name) {
            Some(record) => self.put_waiting(name.clone(), record),
            None => {
                self.slots.remove(name);
            }
        }
    }

    fn put_waiting(&mut self, name: Name, record: Record) {
        let slot = self.slots.entry(name.clone()).or_default();
        if slot.flying.is_none() {
            self.due.insert((record.due, record.seq, name));
        }
        slot.waiting = Some(record);
        self.waiting += 1;
    }

    fn take_waiting(&mut self, name: &Name) -> Option<Record> {
        let record = self.slots.get_mut(name)?.waiting.take()?;
        self.waiting -= 1;
        self.due.remove(&(record.due, record.seq, name.clone()));
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: (TargetId, TargetId) = (TargetId(1), TargetId(2));

    fn name(text: &str) -> Name {
        text.into()
    }

    #[test]
    fn records_of_a_key_are_written_in_sequence() {
        let mut records = Records::default();
        let a = name("a");
        records.insert(&a, 1, RecordOutcome::Failed, 0, Duration::ZERO);
        assert_eq!(records.take(Duration::ZERO), Some((a.clone(), RecordOutcome::Failed)));
        records.insert(&a, 2, RecordOutcome::Success, 0, Duration::ZERO);
        assert_eq!(records.take(Duration::ZERO), None, "the earlier one is still under way");
        assert_eq!(records.written(&a), [Op::DeleteRecord(1)]);
        assert_eq!(records.take(Duration::ZERO), Some((a.clone(), RecordOutcome::Success)));
        assert_eq!(records.written(&a), [Op::DeleteRecord(2)]);
        assert!(!records.holds("a"));
        assert_eq!(records.counts(), (0, 0));
    }

    #[test]
    fn a_later_outcome_cancels_an_earlier_record_still_owed() {
        let mut records = Records::default();
        let a = name("a");
        records.insert(&a, 1, RecordOutcome::Failed, 0, Duration::ZERO);
        assert_eq!(records.supersede("a"), [Op::DeleteRecord(1)]);
        records.insert(&a, 2, RecordOutcome::Success, 0, Duration::ZERO);
        assert_eq!(records.take(Duration::ZERO), Some((a.clone(), RecordOutcome::Success)));
        assert_eq!(records.written(&a), [Op::DeleteRecord(2)]);
    }

    #[test]
    fn a_failed_write_is_kept_and_a_later_outcome_takes_its_rows() {
        let mut records = Records::default();
        let a = name("a");
        let second = Duration::from_secs(1);
        records.insert(&a, 1, RecordOutcome::Failed, 0, Duration::ZERO);
        records.take(Duration::ZERO).unwrap();
        let ops = records.failed(&a, T, "refused".into(), second);
        assert!(matches!(ops.as_slice(), [Op::PutRecord(row)] if row.seq == 1 && row.attempts == 1));
        assert_eq!(records.take(Duration::ZERO), None);
        records.take(second).unwrap();
        records.insert(&a, 2, RecordOutcome::Success, 0, second);
        assert_eq!(records.failed(&a, T, "refused".into(), 9 * second), [], "cancelled: nothing to write");
        assert_eq!(records.take(second), Some((a.clone(), RecordOutcome::Success)));
        assert_eq!(records.written(&a), [Op::DeleteRecord(1), Op::DeleteRecord(2)]);
    }

    #[test]
    fn a_superseded_row_is_never_written_again() {
        let mut records = Records::default();
        let a = name("a");
        records.insert(&a, 1, RecordOutcome::Failed, 0, Duration::ZERO);
        assert_eq!(records.supersede("a"), [Op::DeleteRecord(1)]);
        // Its successor's batch is not on disk yet when this one is sent and fails.
        records.take(Duration::ZERO).unwrap();
        assert_eq!(records.failed(&a, T, "refused".into(), Duration::ZERO), []);
        records.insert(&a, 2, RecordOutcome::Success, 0, Duration::ZERO);
        records.take(Duration::ZERO).unwrap();
        assert_eq!(records.written(&a), [Op::DeleteRecord(2)]);
    }
}
