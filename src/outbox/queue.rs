//! Announcements of one sync task: what is owed, under way, failed. Pure: no clock, no I/O.
//!
//! A key has at most one entry that waits and one that is under way. An entry may stand for several
//! journal rows: an announcement carries only the key, so one request covers every row of the key
//! that was on disk before it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::journal::{AnnouncementRow, AnnouncementState, Op};
use crate::types::{Key, TargetId, TimeNs};

/// A key, shared between the indexes.
pub(super) type Name = Arc<str>;

/// One key to announce.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Of the newest row.
    pub(super) seq: u64,
    /// Rows that it stands for as well.
    pub(super) older: Vec<u64>,
    pub(super) state: AnnouncementState,
    pub(super) attempts: u32,
    pub(super) error: Option<String>,
    pub(super) owed: TimeNs,
    /// Not before this monotonic time.
    pub(super) due: Duration,
    /// To be sent in a request of its own: the last one was refused for one of its keys.
    pub(super) alone: bool,
    /// The target's served time when this became owed.
    pub(super) since: Duration,
    /// Callers whose batch may delete this row. It is not written meanwhile: that could bring it back.
    pub(super) claims: u32,
}

impl Entry {
    /// A new announcement.
    pub(super) fn new(seq: u64, owed: TimeNs, due: Duration, since: Duration) -> Entry {
        Entry {
            seq,
            older: Vec::new(),
            state: AnnouncementState::Owed,
            attempts: 0,
            error: None,
            owed,
            due,
            alone: false,
            since,
            claims: 0,
        }
    }

    /// Every row that it stands for.
    pub(super) fn rows(&self) -> impl Iterator<Item = u64> + '_ {
        self.older.iter().copied().chain(std::iter::once(self.seq))
    }

    fn delete_ops(&self) -> Vec<Op> {
        self.rows().map(Op::DeleteAnnouncement).collect()
    }
}

#[derive(Debug)]
struct Flight {
    entry: Entry,
    /// The key is gone from the bucket meanwhile.
    gone: bool,
    /// Its rows are deleted by a batch that is submitted.
    rows_deleted: bool,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: Option<Entry>,
    flying: Option<Flight>,
}

/// What a request's outcome means for one of its keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// OMS has taken it.
    Accepted,
    /// To be sent again.
    Again {
        /// Not before.
        due: Duration,
        /// In a request of its own.
        alone: bool,
        /// Why.
        error: String,
    },
    /// Declared failed.
    Failed {
        /// Why.
        error: String,
        /// It only ran out of time.
        by_time: bool,
    },
}

/// What became of a key when its fate was settled.
#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) ops: Vec<Op>,
    /// The outcome stands and is to be recorded under this sequence.
    pub(super) record: Option<u64>,
}

/// The announcements of one sync task.
#[derive(Debug)]
pub(super) struct Queue {
    sync: TargetId,
    slots: BTreeMap<Name, Slot>,
    /// Entries that may be sent when their time comes: state Owed, none of their key under way.
    due: BTreeSet<(Duration, u64, Name)>,
    /// Entries declared failed, for whatever reason.
    failed: BTreeSet<Name>,
    /// Those of `failed` that only ran out of time.
    gave_up: BTreeSet<Name>,
    waiting: usize,
    flying: usize,
}

impl Queue {
    pub(super) fn new(sync: TargetId) -> Queue {
        Queue {
            sync,
            slots: BTreeMap::new(),
            due: BTreeSet::new(),
            failed: BTreeSet::new(),
            gave_up: BTreeSet::new(),
            waiting: 0,
            flying: 0,
        }
    }

    /// Takes a row of the journal at start; rows come in order of number.
    pub(super) fn load(&mut self, row: &AnnouncementRow, now: Duration) {
        let name: Name = row.key.as_str().into();
        let mut entry = Entry::new(row.seq, row.owed, now, Duration::ZERO);
        entry.state = row.state;
        entry.attempts = row.attempts;
        entry.error = row.error.clone();
        if let Some(old) = self.take_waiting(&name) {
            entry.older = old.rows().collect();
        }
        self.put_waiting(name, entry);
    }

    /// The rows that a new announcement of the key makes superfluous; the caller's batch is going to
    /// delete them. What is under way stays: its reply settles only what was sent.
    pub(super) fn supersede(&mut self, key: &str) -> Vec<u64> {
        let Some(entry) = self.slots.get_mut(key).and_then(|slot| slot.waiting.as_mut()) else {
            return Vec::new();
        };
        entry.claims += 1;
        entry.rows().collect()
    }

    /// The caller's batch is not going to be: the rows of [`Queue::supersede`] stay.
    pub(super) fn release(&mut self, key: &str, superseded: &[u64]) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let flying = slot.flying.as_mut().map(|flight| &mut flight.entry);
        for entry in slot.waiting.as_mut().into_iter().chain(flying) {
            if superseded.contains(&entry.seq) {
                entry.claims = entry.claims.saturating_sub(1);
            }
        }
    }

    /// Takes over a new announcement whose row is on disk; `superseded` rows are not any more. It
    /// always replaces what waits, also what has failed: the object changed after that was sent.
    pub(super) fn insert(&mut self, key: &str, mut entry: Entry, superseded: &[u64]) {
        let name: Name = self.slots.get_key_value(key).map_or_else(|| key.into(), |(name, _)| name.clone());
        if let Some(old) = self.take_waiting(&name) {
            entry.older.extend(old.rows().filter(|seq| !superseded.contains(seq)));
        }
        self.put_waiting(name, entry);
    }

    /// The key is gone from the bucket. Returns the rows to delete and whether anything waited.
    pub(super) fn remove_gone(&mut self, key: &str) -> (Vec<Op>, bool) {
        let Some((name, _)) = self.slots.get_key_value(key) else {
            return (Vec::new(), false);
        };
        let name = name.clone();
        if let Some(flight) = self.slots.get_mut(&name).and_then(|slot| slot.flying.as_mut()) {
            flight.gone = true;
        }
        let Some(entry) = self.take_waiting(&name) else {
            return (Vec::new(), false);
        };
        self.drop_empty(&name);
        (entry.delete_ops(), true)
    }

    /// When the next entry is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _, _)| *due)
    }

    /// Takes what goes into the next request: entries that are due, in order of their time.
    pub(super) fn take(&mut self, now: Duration, most: usize) -> Vec<Name> {
        let mut names: Vec<Name> = Vec::new();
        for (due, _, name) in &self.due {
            if *due > now || names.len() >= most {
                break;
            }
            let alone = self.slots.get(name).and_then(|slot| slot.waiting.as_ref()).is_some_and(|entry| entry.alone);
            if alone && names.is_empty() {
                names.push(name.clone());
                break;
            }
            if alone {
                // Whoever stands behind waits for it: order of backoff is kept.
                break;
            }
            names.push(name.clone());
        }
        for name in &names {
            if let Some(entry) = self.take_waiting(name) {
                let slot = self.slots.entry(name.clone()).or_default();
                slot.flying = Some(Flight { entry, gone: false, rows_deleted: false });
                self.flying += 1;
            }
        }
        names
    }

    /// What is under way of a key.
    pub(super) fn under_way(&self, key: &str) -> Option<&Entry> {
        self.slots.get(key).and_then(|slot| slot.flying.as_ref()).map(|flight| &flight.entry)
    }

    /// The rows that a fate changes, to be committed before [`Queue::land`]. Memory stays as it is:
    /// until the batch is on disk the key counts as under way.
    pub(super) fn settle(&mut self, key: &str, fate: &Fate) -> Settled {
        let sync = self.sync;
        let Some(slot) = self.slots.get_mut(key) else {
            return Settled { ops: Vec::new(), record: None };
        };
        let newer = slot.waiting.is_some();
        let Some(flight) = slot.flying.as_mut() else {
            return Settled { ops: Vec::new(), record: None };
        };
        let entry = &flight.entry;
        let row = |state, error: &str| {
            Op::PutAnnouncement(AnnouncementRow {
                seq: entry.seq,
                sync,
                key: Key::from(key),
                state,
                attempts: entry.attempts.saturating_add(1),
                error: Some(error.to_owned()),
                owed: entry.owed,
            })
        };
        match fate {
            Fate::Accepted => {
                let record = Some(entry.seq);
                let ops = entry.delete_ops();
                flight.rows_deleted = true;
                Settled { ops, record }
            }
            // A newer announcement of the key, or its end, makes this one's failure meaningless.
            Fate::Again { .. } | Fate::Failed { .. } if flight.gone || newer => {
                let ops = entry.delete_ops();
                flight.rows_deleted = true;
                Settled { ops, record: None }
            }
            Fate::Again { error, .. } => {
                let ops = if entry.claims > 0 { Vec::new() } else { vec![row(AnnouncementState::Owed, error)] };
                Settled { ops, record: None }
            }
            Fate::Failed { error, by_time } => {
                let state = if *by_time { AnnouncementState::GaveUp } else { AnnouncementState::Failed };
                let ops = if entry.claims > 0 { Vec::new() } else { vec![row(state, error)] };
                Settled { ops, record: Some(entry.seq) }
            }
        }
    }

    /// Takes a settled fate over into memory. Returns rows that are to be deleted as well, and
    /// whether the key ended as gone.
    pub(super) fn land(&mut self, name: &Name, fate: Fate) -> (Vec<Op>, bool) {
        let Some(flight) = self.slots.get_mut(name).and_then(|slot| slot.flying.take()) else {
            return (Vec::new(), false);
        };
        self.flying -= 1;
        let newer = self.take_waiting(name);
        let Flight { mut entry, gone, rows_deleted } = flight;
        let (state, error, due, alone) = match fate {
            Fate::Accepted => {
                if let Some(newer) = newer {
                    self.put_waiting(name.clone(), newer);
                }
                self.drop_empty(name);
                return (Vec::new(), false);
            }
            Fate::Again { due, alone, error } => (AnnouncementState::Owed, error, due, alone),
            Fate::Failed { error, by_time: true } => (AnnouncementState::GaveUp, error, Duration::ZERO, false),
            Fate::Failed { error, by_time: false } => (AnnouncementState::Failed, error, Duration::ZERO, false),
        };
        if let Some(mut newer) = newer {
            if !rows_deleted {
                newer.older.extend(entry.rows());
            }
            self.put_waiting(name.clone(), newer);
            return (Vec::new(), false);
        }
        if gone {
            self.drop_empty(name);
            return (if rows_deleted { Vec::new() } else { entry.delete_ops() }, true);
        }
        entry.state = state;
        entry.error = Some(error);
        entry.attempts = entry.attempts.saturating_add(1);
        entry.due = due;
        entry.alone = alone;
        self.put_waiting(name.clone(), entry);
        (Vec::new(), false)
    }

    /// Makes everything that waits due now.
    pub(super) fn hurry(&mut self, now: Duration) {
        let late: Vec<(Duration, u64, Name)> = self.due.iter().filter(|(due, _, _)| *due > now).cloned().collect();
        for (_, _, name) in late {
            if let Some(mut entry) = self.take_waiting(&name) {
                entry.due = now;
                self.put_waiting(name, entry);
            }
        }
    }

    /// Keys declared failed that begin with `prefix`; only those that ran out of time, if asked. A key that
    /// a caller is about to announce again is left out.
    pub(super) fn failed_keys(&self, by_time_only: bool, prefix: &str, most: usize) -> Vec<Name> {
        let set = if by_time_only { &self.gave_up } else { &self.failed };
        set.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(|name| name.starts_with(prefix))
            .filter(|name| {
                self.slots.get(*name).and_then(|slot| slot.waiting.as_ref()).is_some_and(|entry| entry.claims == 0)
            })
            .take(most)
            .cloned()
            .collect()
    }

    /// Announcements owed and not under way, under way, failed.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.waiting - self.failed.len(), self.flying, self.failed.len())
    }

    /// Every entry of the keys that begin with `prefix`, in order; true: under way.
    pub(super) fn entries<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Name, &'a Entry, bool)> + 'a {
        self.slots
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .flat_map(|(name, slot)| {
                let flying = slot.flying.as_ref().map(|flight| (name, &flight.entry, true));
                let waiting = slot.waiting.as_ref().map(|entry| (name, entry, false));
                flying.into_iter().chain(waiting)
            })
    }

    /// The failed entries, in order of key.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&Name, &Entry)> {
        self.failed
            .iter()
            .filter_map(|name| self.slots.get(name).and_then(|slot| slot.waiting.as_ref()).map(|entry| (name, entry)))
    }

    /// Whether anything of the key is owed, under way or failed.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.slots.contains_key(key)
    }

    /// Puts an entry into its slot and into the indexes.
    fn put_waiting(&mut self, name: Name, entry: Entry) {
        let slot = self.slots.entry(name.clone()).or_default();
        match entry.state {
            AnnouncementState::Owed if slot.flying.is_none() => {
                self.due.insert((entry.due, entry.seq, name));
            }
            AnnouncementState::Owed => {}
            AnnouncementState::Failed => {
                self.failed.insert(name);
            }
            AnnouncementState::GaveUp => {
                self.failed.insert(name.clone());
                self.gave_up.insert(name);
            }
        }
        slot.waiting = Some(entry);
        self.waiting += 1;
    }

    /// Takes an entry out of its slot and of the indexes; the slot stays, perhaps empty.
    fn take_waiting(&mut self, name: &Name) -> Option<Entry> {
        let entry = self.slots.get_mut(name)?.waiting.take()?;
        self.waiting -= 1;
        self.due.remove(&(entry.due, entry.seq, name.clone()));
        self.failed.remove(name);
        self.gave_up.remove(name);
        Some(entry)
    }

    fn drop_empty(&mut self, name: &Name) {
        if self.slots.get(name).is_some_and(|slot| slot.waiting.is_none() && slot.flying.is_none()) {
            self.slots.remove(name);
        }
    }

    /// Checks what the comments on the fields promise.
    #[cfg(test)]
    pub(super) fn self_check(&self) {
        let mut due = BTreeSet::new();
        let (mut waiting, mut flying) = (0, 0);
        let (mut failed, mut gave_up) = (BTreeSet::new(), BTreeSet::new());
        for (name, slot) in &self.slots {
            assert!(slot.waiting.is_some() || slot.flying.is_some(), "empty slot of {name}");
            flying += usize::from(slot.flying.is_some());
            let Some(entry) = &slot.waiting else { continue };
            waiting += 1;
            assert!(!entry.older.contains(&entry.seq), "{name}");
            match entry.state {
                AnnouncementState::Owed if slot.flying.is_none() => {
                    due.insert((entry.due, entry.seq, name.clone()));
                }
                AnnouncementState::Owed => {}
                AnnouncementState::Failed => {
                    failed.insert(name.clone());
                }
                AnnouncementState::GaveUp => {
                    failed.insert(name.clone());
                    gave_up.insert(name.clone());
                }
            }
        }
        assert_eq!((&self.due, &self.failed, &self.gave_up), (&due, &failed, &gave_up));
        assert_eq!((self.waiting, self.flying), (waiting, flying));
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
