//! One sync task and its log bucket: what is owed to them, and the policy of O2 and O3 (when a
//! request may go, what its outcome means). Holds no lock and does no I/O.

use std::time::Duration;

use crate::journal::{AnnouncementRow, AnnouncementState, Durability, Op, RecordOutcome, RecordRow};
use crate::oms::{Failure, MAX_KEYS, Outcome};
use crate::store;
use crate::types::{Key, TimeNs};

use super::options::{Options, Target};
use super::pace::{Backoff, Gate, Served, TokenBucket, wait};
use super::queue::{Entry, Fate, Name, Queue};
use super::record_key::{RecordKeys, RecordObject};
use super::records::Records;
use super::status::{Counters, Item, ItemState, Left, TargetStatus};

/// Failed announcements that the status shows; the list has all.
const STATUS_FAILURES: usize = 20;

/// Announcements that ran out of time and are owed again at one acceptance. The rest follows at the
/// next: one batch of the journal stays small.
pub(super) const REVIVE_AT_ONCE: usize = 500;

/// A reading of all clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: TimeNs,
    pub(super) monotonic: Duration,
    pub(super) boottime: Duration,
}

/// Why only probes are sent, and when the next one goes.
#[derive(Debug)]
struct Pause {
    why: String,
    probes: u32,
    next: Duration,
}

/// A key whose fate is settled but not yet on disk.
#[derive(Debug)]
pub(super) struct Landing {
    name: Name,
    fate: Fate,
    record: Option<(u64, RecordOutcome)>,
}

/// A settled request: rows to commit, then what to do.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) ops: Vec<Op>,
    pub(super) durability: Durability,
    pub(super) landings: Vec<Landing>,
    /// Keys that ran out of time and are to be owed again.
    pub(super) revive: Vec<Name>,
}

/// A record to write.
pub(super) struct RecordJob {
    pub(super) name: Name,
    pub(super) object: RecordObject,
    /// The record of the other outcome, which this one makes untrue.
    pub(super) stale: Option<String>,
}

/// One sync task and its log bucket.
pub(super) struct Lane {
    pub(super) target: Target,
    pub(super) queue: Queue,
    pub(super) records: Records,
    record_keys: Option<RecordKeys>,
    options: Options,
    gate: Gate,
    pause: Option<Pause>,
    bucket: TokenBucket,
    served: Served,
    requests_under_way: usize,
    last_error: Option<String>,
    record_gate: Gate,
    record_error: Option<String>,
    pub(super) counters: Counters,
}

impl Lane {
    pub(super) fn new(target: Target, options: Options, now: Now) -> Lane {
        let record_keys = target
            .log()
            .map(|(_, store)| RecordKeys::new(&target.record_prefix, &target.task, store.capabilities().max_key_bytes));
        Lane {
            queue: Queue::new(target.sync),
            records: Records::default(),
            record_keys,
            gate: Gate::default(),
            pause: None,
            bucket: TokenBucket::new(options.requests_per_second, options.concurrency, now.monotonic),
            served: Served::new(now.boottime),
            requests_under_way: 0,
            last_error: None,
            record_gate: Gate::default(),
            record_error: None,
            counters: Counters::default(),
            target,
            options,
        }
    }

    pub(super) fn record_keys(&self) -> Option<&RecordKeys> {
        self.record_keys.as_ref()
    }

    fn backoff(&self) -> Backoff {
        Backoff { first: self.options.first_backoff, max: self.options.max_backoff }
    }

    /// Rows of a new announcement, and the rows that it makes superfluous.
    pub(super) fn owe(&mut self, key: &str, seq: u64, now: Now) -> (Vec<u64>, Vec<Op>) {
        let superseded = self.queue.supersede(key);
        let row = AnnouncementRow {
            seq,
            sync: self.target.sync,
            key: Key::from(key),
            state: AnnouncementState::Owed,
            attempts: 0,
            error: None,
            owed: now.wall,
        };
        let ops = superseded.iter().copied().map(Op::DeleteAnnouncement).chain([Op::PutAnnouncement(row)]).collect();
        (superseded, ops)
    }

    /// The rows of [`Lane::owe`] are on disk: the announcement may be sent (J2).
    pub(super) fn committed(&mut self, key: &str, seq: u64, superseded: &[u64], now: Now) {
        let since = self.served.total(now.boottime);
        self.queue.insert(key, Entry::new(seq, now.wall, now.monotonic, since), superseded);
    }

    /// When the next request to OMS may go; `None` if nothing waits or one must end first.
    pub(super) fn next_request_at(&mut self, now: Now) -> Option<Duration> {
        let limit = if self.pause.is_some() { 1 } else { self.gate.limit(self.options.concurrency) };
        if self.requests_under_way >= limit {
            return None;
        }
        let due = self.queue.next_due()?;
        let opens = self.pause.as_ref().map_or(self.gate.opens(), |pause| pause.next);
        Some(due.max(opens).max(self.bucket.ready_at(now.monotonic)))
    }

    /// The keys of the next request, if one may go now.
    pub(super) fn next_request(&mut self, now: Now) -> Option<Vec<Name>> {
        if self.next_request_at(now)? > now.monotonic {
            return None;
        }
        let names = self.queue.take(now.monotonic, MAX_KEYS);
        if names.is_empty() {
            return None;
        }
        self.bucket.take(now.monotonic);
        self.requests_under_way += 1;
        self.counters.requests += 1;
        Some(names)
    }

    /// What a request's outcome means: decides each key's fate and says which rows tell it.
    pub(super) fn settle(&mut self, names: &[Name], outcome: &Outcome, now: Now, jitter: f64) -> Settlement {
        let fates = self.judge(names, outcome, now, jitter);
        self.requests_under_way -= 1;
        let mut settlement = Settlement {
            ops: Vec::new(),
            durability: Durability::Buffered,
            landings: Vec::with_capacity(names.len()),
            revive: Vec::new(),
        };
        let log = self.target.record.filter(|_| self.record_keys.is_some());
        for (name, fate) in names.iter().zip(fates) {
            let settled = self.queue.settle(name, &fate);
            settlement.ops.extend(settled.ops);
            let outcome = match fate {
                Fate::Accepted => RecordOutcome::Success,
                Fate::Again { .. } | Fate::Failed { .. } => RecordOutcome::Failed,
            };
            let record = settled.record.map(|seq| (seq, outcome));
            if record.is_some() {
                settlement.durability = Durability::Disk;
            }
            if let (Some((seq, outcome)), Some(record)) = (record, log) {
                settlement.ops.extend(self.records.supersede(name));
                settlement.ops.push(Op::PutRecord(RecordRow {
                    seq,
                    record,
                    sync: self.target.sync,
                    key: Key::from(&**name),
                    outcome,
                    attempts: 0,
                }));
            }
            settlement.landings.push(Landing { name: name.clone(), fate, record });
        }
        if *outcome == Outcome::Accepted {
            settlement.revive = self.queue.failed_keys(true, "", REVIVE_AT_ONCE);
        }
        settlement
    }

    fn judge(&mut self, names: &[Name], outcome: &Outcome, now: Now, jitter: f64) -> Vec<Fate> {
        let announcer = self.target.announcer.clone();
        let sync_task = announcer.identity();
        match outcome {
            Outcome::Accepted => {
                if self.gate.failures() > 0 || self.pause.is_some() {
                    tracing::info!(sync_task, "announcements are accepted again");
                }
                self.answered(now);
                self.last_error = None;
                names.iter().map(|_| Fate::Accepted).collect()
            }
            Outcome::Transient { kind, failure, retry_after } => {
                if self.gate.failures() == 0 {
                    tracing::warn!(sync_task, error = %failure, "announcing fails; it is tried again");
                }
                let served = self.served.mark(now.boottime, kind.is_reachable() && self.pause.is_none());
                self.gate.close(now.monotonic, self.backoff(), jitter, *retry_after);
                if let Some(pause) = &mut self.pause {
                    // The reason of the pause stands until OMS itself says otherwise.
                    pause.next = self.gate.opens().max(pause.next);
                }
                self.last_error = Some(failure.to_string());
                names.iter().map(|name| self.later(name, failure, *retry_after, served, now, jitter)).collect()
            }
            Outcome::Rejected(failure) => {
                self.answered(now);
                self.last_error = Some(failure.to_string());
                let error = failure.to_string();
                if let [name] = names {
                    tracing::error!(sync_task, key = &**name, error, "OMS refuses an announcement");
                    return vec![Fate::Failed { error, by_time: false }];
                }
                let due = now.monotonic;
                names.iter().map(|_| Fate::Again { due, alone: true, error: error.clone() }).collect()
            }
            Outcome::Unauthorized(failure) => {
                self.pause(names, "OMS does not accept the credentials", failure, now, jitter)
            }
            Outcome::NoSuchTask(failure) => self.pause(names, "the sync task does not exist", failure, now, jitter),
        }
    }

    /// OMS answered, and not with a pause: whatever was wrong with the target is over.
    fn answered(&mut self, now: Now) {
        self.served.mark(now.boottime, true);
        self.gate.open();
        self.pause = None;
    }

    fn later(
        &self,
        name: &Name,
        failure: &Failure,
        retry_after: Option<Duration>,
        served: Duration,
        now: Now,
        jitter: f64,
    ) -> Fate {
        let (attempts, since, alone) =
            self.queue.under_way(name).map_or((0, served, false), |entry| (entry.attempts, entry.since, entry.alone));
        let error = failure.to_string();
        if served.saturating_sub(since) >= self.options.give_up_after {
            tracing::error!(
                sync_task = self.target.announcer.identity(),
                key = &**name,
                error,
                "an announcement could not be made for too long; it is made again when OMS accepts others"
            );
            return Fate::Failed { error, by_time: true };
        }
        let delay = wait(self.backoff().delay(attempts.saturating_add(1), jitter), retry_after);
        Fate::Again { due: now.monotonic + delay, alone, error }
    }

    fn pause(&mut self, names: &[Name], why: &str, failure: &Failure, now: Now, jitter: f64) -> Vec<Fate> {
        self.served.mark(now.boottime, false);
        let error = failure.to_string();
        let why = format!("{why}: {error}");
        let sync_task = self.target.announcer.identity();
        let probes = self.pause.as_ref().map_or(0, |pause| pause.probes).saturating_add(1);
        let backoff = Backoff { first: self.options.first_probe, max: self.options.max_probe };
        let delay = backoff.delay(probes, jitter);
        if self.pause.is_none() {
            tracing::error!(sync_task, why, "announcing is paused; the sync task is probed from time to time");
        } else {
            tracing::warn!(sync_task, why, "announcing stays paused");
        }
        self.last_error = Some(error.clone());
        self.pause = Some(Pause { why, probes, next: now.monotonic + delay });
        let due = now.monotonic;
        names
            .iter()
            .map(|name| {
                let alone = self.queue.under_way(name).is_some_and(|entry| entry.alone);
                Fate::Again { due, alone, error: error.clone() }
            })
            .collect()
    }

    /// The rows of a settlement are on disk. Returns rows that go as well.
    pub(super) fn land(&mut self, landings: Vec<Landing>, now: Now) -> Vec<Op> {
        let mut ops = Vec::new();
        for Landing { name, fate, record } in landings {
            match &fate {
                Fate::Accepted => self.counters.announced += 1,
                Fate::Failed { .. } if record.is_some() => self.counters.failed += 1,
                Fate::Failed { .. } | Fate::Again { .. } => {}
            }
            let (more, gone) = self.queue.land(&name, fate);
            ops.extend(more);
            self.counters.gone += u64::from(gone);
            if let (Some((seq, outcome)), true) = (record, self.record_keys.is_some()) {
                self.records.insert(&name, seq, outcome, 0, now.monotonic);
            }
        }
        ops
    }

    /// When the next record may be written; `None` if none waits or one must end first.
    pub(super) fn next_record_at(&self) -> Option<Duration> {
        let (_, under_way) = self.records.counts();
        if under_way >= self.record_gate.limit(self.options.record_concurrency) {
            return None;
        }
        Some(self.records.next_due()?.max(self.record_gate.opens()))
    }

    /// The next record to write, if one may be written now.
    pub(super) fn next_record(&mut self, now: Now) -> Option<RecordJob> {
        if self.next_record_at()? > now.monotonic {
            return None;
        }
        let keys = self.record_keys.as_ref()?;
        let (name, outcome) = self.records.take(now.monotonic)?;
        let stale = match outcome {
            RecordOutcome::Success => Some(keys.object(RecordOutcome::Failed, &name).key),
            // An earlier version was announced: its success record stays true.
            RecordOutcome::Failed => None,
        };
        Some(RecordJob { object: keys.object(outcome, &name), stale, name })
    }

    /// A record was written, or not. Returns the rows that say so.
    pub(super) fn record_done(
        &mut self,
        name: &Name,
        result: Result<(), store::Error>,
        now: Now,
        jitter: f64,
    ) -> Vec<Op> {
        let Err(error) = result else {
            self.record_gate.open();
            self.record_error = None;
            self.counters.recorded += 1;
            return self.records.written(name);
        };
        if self.record_error.is_none() {
            tracing::warn!(key = &**name, %error, "a log record cannot be written; it is tried again");
        }
        self.record_error = Some(error.to_string());
        let retry_after = error.retry_after_s.map(Duration::from_secs);
        // A refused key says nothing of the others; everything else concerns the bucket.
        if error.kind != store::ErrorKind::Rejected {
            self.record_gate.close(now.monotonic, self.backoff(), jitter, retry_after);
        }
        let attempts = self.records.attempts(name).saturating_add(1);
        let due = now.monotonic + wait(self.backoff().delay(attempts, jitter), retry_after);
        match self.target.record {
            Some(record) => self.records.failed(name, (self.target.sync, record), error.to_string(), due),
            None => Vec::new(),
        }
    }

    /// No waiting any more: the operator wants it tried now.
    pub(super) fn hurry(&mut self, now: Now) {
        self.gate.open();
        self.record_gate.open();
        if let Some(pause) = &mut self.pause {
            pause.next = now.monotonic;
        }
        self.queue.hurry(now.monotonic);
        self.records.hurry(now.monotonic);
    }

    pub(super) fn status(&self) -> TargetStatus {
        let (owed, in_flight, failed) = self.queue.counts();
        let (records_owed, records_in_flight) = self.records.counts();
        TargetStatus {
            sync: self.target.sync.0,
            name: self.target.announcer.identity().to_owned(),
            record: self.target.log().map(|(_, store)| format!("{}/{}", store.name(), self.target.record_prefix)),
            owed,
            in_flight,
            failed,
            failures: self
                .queue
                .failures()
                .take(STATUS_FAILURES)
                .map(|(name, entry)| self.item(name, entry, false))
                .collect(),
            paused: self.pause.as_ref().map(|pause| pause.why.clone()),
            failing: self.gate.failures(),
            last_error: self.last_error.clone(),
            records_owed,
            records_in_flight,
            record_error: self.record_error.clone(),
            counters: self.counters,
        }
    }

    fn item(&self, name: &Name, entry: &Entry, in_flight: bool) -> Item {
        let state = match (entry.state, in_flight) {
            (_, true) => ItemState::InFlight,
            (AnnouncementState::Owed, _) => ItemState::Owed,
            (AnnouncementState::Failed, _) => ItemState::Failed,
            (AnnouncementState::GaveUp, _) => ItemState::GaveUp,
        };
        Item {
            sync: self.target.sync.0,
            seq: entry.seq,
            key: name.to_string(),
            state,
            attempts: entry.attempts,
            error: entry.error.clone(),
            owed_ns: Some(entry.owed.0),
        }
    }

    /// Failed ones first, then what is owed and under way, then records, each in order of key.
    pub(super) fn items(&self) -> impl Iterator<Item = Item> + '_ {
        let failed = self.queue.failures().map(|(name, entry)| self.item(name, entry, false));
        let owed = self
            .queue
            .entries("")
            .filter(|(_, entry, in_flight)| *in_flight || entry.state == AnnouncementState::Owed)
            .map(|(name, entry, in_flight)| self.item(name, entry, in_flight));
        let records = self.records.entries("").map(|(name, record, _)| Item {
            sync: self.target.sync.0,
            seq: record.seq,
            key: name.to_string(),
            state: match record.outcome {
                RecordOutcome::Success => ItemState::RecordSuccess,
                RecordOutcome::Failed => ItemState::RecordFailed,
            },
            attempts: record.attempts,
            error: record.error.clone(),
            owed_ns: None,
        });
        failed.chain(owed).chain(records)
    }

    /// What is left of the keys that begin with `prefix` and are meant.
    pub(super) fn left(&self, prefix: &str, meant: impl Fn(&str) -> bool) -> Left {
        let records = self.records.entries(prefix).filter(|(name, _, _)| meant(name)).count();
        let mut left = Left { records, ..Left::default() };
        for (_, entry, in_flight) in self.queue.entries(prefix).filter(|(name, _, _)| meant(name)) {
            if in_flight || entry.state == AnnouncementState::Owed {
                left.announcements += 1;
            } else {
                left.failed += 1;
            }
        }
        left
    }

    /// What is left of all keys, without looking at each.
    pub(super) fn left_in_all(&self) -> Left {
        let (owed, in_flight, failed) = self.queue.counts();
        let (records, writing) = self.records.counts();
        Left { announcements: owed + in_flight, failed, records: records + writing }
    }
}
