//! The state that all handles share, and every call that changes it.
//!
//! One mutex guards it; it is held for memory work and for [`Journal::submit`] only, which never
//! blocks, and for one disk commit in ten thousand announcements (a new block of numbers). Rows are
//! submitted under the lock: so the order of commits is the order of decisions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::journal::{AnnouncementRow, AnnouncementState, Counter, Durability, Journal, Numbers, Op, RecordRow};
use crate::types::{Key, TargetId};

use super::error::{Error, Result};
use super::lane::{Lane, Now};
use super::options::{Options, Target};
use super::queue::Name;
use super::status::{Item, Left, Status};

/// Announcements owed in one journal batch when many are owed at once.
const OWE_AT_ONCE: usize = 500;

/// What all handles share.
pub(super) struct Ledger {
    pub(super) journal: Journal,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    /// Guards everything that changes; last in the crate's order of locks but for the journal.
    state: Mutex<State>,
    /// Wakes the dispatcher.
    pub(super) wake: Notify,
    /// Raised at every change, for those who wait.
    version: watch::Sender<u64>,
}

/// An announcement whose rows are not on disk yet, and the rows that they replace.
#[derive(Debug)]
pub(super) struct Claim {
    lane: usize,
    key: Name,
    seq: u64,
    superseded: Vec<u64>,
}

/// What changes.
pub(super) struct State {
    pub(super) lanes: Vec<Lane>,
    numbers: Numbers,
    pub(super) running: bool,
}

impl State {
    /// Rows of a new announcement, and the claim for [`State::committed`] once they are on disk.
    pub(super) fn owe(&mut self, lane: usize, key: &str, now: Now) -> Result<(Claim, Vec<Op>)> {
        let seq = self.numbers.next()?;
        let Some(at) = self.lanes.get_mut(lane) else {
            return Err(Error::UnknownTarget(TargetId(u32::MAX)));
        };
        let (superseded, ops) = at.owe(key, seq, now);
        Ok((Claim { lane, key: key.into(), seq, superseded }, ops))
    }

    /// The rows of a claim are on disk.
    pub(super) fn committed(&mut self, claim: &Claim, now: Now) {
        if let Some(lane) = self.lanes.get_mut(claim.lane) {
            lane.committed(&claim.key, claim.seq, &claim.superseded, now);
        }
    }

    fn lane_of(&self, sync: TargetId) -> Result<usize> {
        self.lanes.iter().position(|lane| lane.target.sync == sync).ok_or(Error::UnknownTarget(sync))
    }
}

impl Ledger {
    pub(super) fn open(
        journal: Journal,
        clock: Arc<dyn Clock>,
        options: Options,
        targets: Vec<Target>,
        (announcements, records): (&[AnnouncementRow], &[RecordRow]),
    ) -> Result<Ledger> {
        let now = reading(&*clock);
        let mut lanes: Vec<Lane> = Vec::with_capacity(targets.len());
        for target in targets {
            let twice = lanes.iter().any(|lane| lane.target.sync == target.sync);
            if twice || target.record.is_some() != target.record_store.is_some() {
                return Err(Error::BadTarget(target.sync));
            }
            lanes.push(Lane::new(target, options.clone(), now));
        }
        let mut announcements: Vec<&AnnouncementRow> = announcements.iter().collect();
        announcements.sort_by_key(|row| row.seq);
        let mut unknown: Vec<(TargetId, bool)> = Vec::new();
        for row in announcements {
            match lanes.iter_mut().find(|lane| lane.target.sync == row.sync) {
                Some(lane) => lane.queue.load(row, now.monotonic),
                None => unknown.push((row.sync, row.state == AnnouncementState::Failed)),
            }
        }
        let mut records: Vec<&RecordRow> = records.iter().collect();
        records.sort_by_key(|row| row.seq);
        for row in records {
            // Both must be configured still: the task is part of the record's key.
            match lanes.iter_mut().find(|lane| lane.target.sync == row.sync && lane.target.record == Some(row.record)) {
                Some(lane) => {
                    let name: Name = row.key.as_str().into();
                    lane.records.insert(&name, row.seq, row.outcome, row.attempts, now.monotonic);
                }
                None => unknown.push((row.record, false)),
            }
        }
        // What OMS refused is not owed: it stays in the journal and shows again with its target.
        if let Some((target, _)) = unknown.iter().find(|(_, failed)| !failed) {
            let owed = unknown.iter().filter(|(other, failed)| other == target && !failed).count();
            return Err(Error::Unconfigured { target: *target, owed });
        }
        if !unknown.is_empty() {
            tracing::warn!(
                count = unknown.len(),
                "failed announcements of sync tasks that are not configured are kept"
            );
        }
        let numbers = Numbers::new(journal.clone(), Counter::Seq);
        Ok(Ledger {
            journal,
            clock,
            options,
            state: Mutex::new(State { lanes, numbers, running: false }),
            wake: Notify::new(),
            version: watch::Sender::new(0),
        })
    }

    /// The state. A panic elsewhere while it was held ends the dispatcher loudly; what others still
    /// ask meanwhile is answered from what there is.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Now {
        reading(&*self.clock)
    }

    /// Tells the dispatcher and all who wait that something changed.
    pub(super) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
        self.wake.notify_one();
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn owe(&self, sync: TargetId, key: &Key) -> Result<(Claim, Vec<Op>)> {
        let now = self.now();
        let mut state = self.state();
        let lane = state.lane_of(sync)?;
        state.owe(lane, key.as_str(), now)
    }

    pub(super) fn committed(&self, claim: Claim) {
        let now = self.now();
        self.state().committed(&claim, now);
        self.changed();
    }

    /// The rows of a claim are never going to be on disk.
    pub(super) fn release(&self, claim: &Claim) {
        if let Some(lane) = self.state().lanes.get_mut(claim.lane) {
            lane.queue.release(&claim.key, &claim.superseded);
        }
    }

    pub(super) fn gone(&self, sync: TargetId, key: &Key) -> Vec<Op> {
        let ops = {
            let mut state = self.state();
            // Nothing can be owed to a sync task that was never given: nothing ends.
            let Some(lane) = state.lanes.iter_mut().find(|lane| lane.target.sync == sync) else {
                return Vec::new();
            };
            let (ops, waited) = lane.queue.remove_gone(key.as_str());
            lane.counters.gone += u64::from(waited);
            ops
        };
        self.changed();
        ops
    }

    /// Owes many keys, with batches of this outbox's own.
    ///
    /// A crash before a batch is on disk leaves its keys as they were; after it, owed.
    pub(super) async fn owe_all(&self, sync: TargetId, names: &[Name]) -> Result<()> {
        for chunk in names.chunks(OWE_AT_ONCE) {
            let mut claims = Vec::with_capacity(chunk.len());
            let receipt = {
                let now = self.now();
                let mut state = self.state();
                let lane = state.lane_of(sync)?;
                let mut ops = Vec::new();
                for name in chunk {
                    let (claim, rows) = state.owe(lane, name, now)?;
                    claims.push(claim);
                    ops.extend(rows);
                }
                self.journal.submit(ops, Durability::Disk)
            };
            receipt.await?;
            for claim in claims {
                self.committed(claim);
            }
        }
        Ok(())
    }

    /// Nothing waits for its backoff or for the next probe.
    pub(super) fn hurry(&self) {
        let now = self.now();
        self.state().lanes.iter_mut().for_each(|lane| lane.hurry(now));
        self.changed();
    }

    /// See [`super::Outbox::retry_failed`].
    pub(super) async fn retry_failed(&self, sync: Option<TargetId>, prefix: &str) -> Result<usize> {
        let lanes: Vec<TargetId> = {
            let now = self.now();
            let mut state = self.state();
            if let Some(sync) = sync {
                state.lane_of(sync)?;
            }
            let chosen = state.lanes.iter_mut().filter(|lane| sync.is_none_or(|sync| lane.target.sync == sync));
            chosen
                .map(|lane| {
                    lane.hurry(now);
                    lane.target.sync
                })
                .collect()
        };
        self.changed();
        let mut retried = 0;
        for sync in lanes {
            // Once through what is failed now: what fails again meanwhile is not sent in circles.
            let names = {
                let state = self.state();
                let lane = state.lane_of(sync)?;
                state.lanes.get(lane).map(|lane| lane.queue.failed_keys(false, prefix, usize::MAX)).unwrap_or_default()
            };
            self.owe_all(sync, &names).await?;
            retried += names.len();
        }
        Ok(retried)
    }

    pub(super) fn status(&self) -> Status {
        Status { targets: self.state().lanes.iter().map(Lane::status).collect() }
    }

    pub(super) fn list(&self, limit: usize) -> Vec<Item> {
        self.state().lanes.iter().flat_map(Lane::items).take(limit).collect()
    }

    pub(super) fn is_idle_for(&self, sync: TargetId, key: &Key) -> bool {
        let state = self.state();
        let lane = state.lanes.iter().find(|lane| lane.target.sync == sync);
        lane.is_none_or(|lane| !lane.queue.holds(key.as_str()) && !lane.records.holds(key.as_str()))
    }

    pub(super) fn left_of(&self, sync: TargetId, key: &Key) -> Left {
        let state = self.state();
        let lane = state.lanes.iter().find(|lane| lane.target.sync == sync);
        lane.map(|lane| lane.left(key.as_str(), |name| name == key.as_str())).unwrap_or_default()
    }

    pub(super) fn left(&self, sync: Option<TargetId>, prefix: &str) -> Left {
        let state = self.state();
        let lanes = state.lanes.iter().filter(|lane| sync.is_none_or(|sync| lane.target.sync == sync));
        let of = |lane: &Lane| if prefix.is_empty() { lane.left_in_all() } else { lane.left(prefix, |_| true) };
        lanes.fold(Left::default(), |left, lane| left.plus(of(lane)))
    }
}

fn reading(clock: &dyn Clock) -> Now {
    Now { wall: clock.now(), monotonic: clock.monotonic(), boottime: clock.boottime() }
}
