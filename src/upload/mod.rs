//! Local to bucket: the reconciler.
//!
//! # Promise
//! Level-triggered: it compares what is wanted with what the bucket has and takes the cheapest step
//! that brings them together; after a crash it only looks again. "The bucket has it" and "OMS must
//! be told" are one transaction (P4). Nothing is announced that was not verified (P3).
//!
//! # Invariants
//! 1. (R1) One mutation per key at a time; `locks` holds the keys of every request under way.
//! 2. (R2) An attempt is a row on disk before its request goes; its name travels in the object.
//! 3. (R3) No key is overwritten or deleted while another inode's only good copy lives there.
//! 4. (R4) What stands at a key is looked at right before it is changed; where nothing may stand,
//!    the request forbids overwriting.
//! 5. (P2) Only content with a final mark is sent, and only if the mark still holds when it has been
//!    read; of an open file, only a version that somebody waits for, under the same condition.
//! 6. (R5) Before a key under a renamed directory's old name is changed, what belongs to that directory
//!    there is an inode with its row; a move never overwrites.
//! 7. Another host's version is never overwritten before it is kept, unless the mapping says so.
//! 8. A failed step is repeated with backoff for as long as it takes, and shown until it succeeds.

mod awaited;
mod batch;
mod commit;
mod conflict;
mod copy;
mod copy_parts;
mod error;
mod locks;
mod mover;
mod multipart;
mod parts;
mod plan;
mod queue;
mod removal;
mod send;
mod settle;
mod status;
mod urgent;
mod worker;

pub use error::Fatal;
pub use mover::Move;
pub use status::{Counters, Failure, Flight, Outstanding, Status};
pub use urgent::{Cause, NotUploaded, Scope};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use crate::cache::Cache;
use crate::journal::{AttemptRow, Counter, Numbers, PartRow, Snapshot};
use crate::namespace::Namespace;
use crate::outbox::Outbox;
use crate::types::{Ino, Key, TargetId};

use locks::KeyLocks;
use mover::Carry;
use queue::{Queue, Work};

/// How the room behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Quiet time before a change goes up.
    pub delay: Duration,
    /// Longest time that a file which keeps changing waits.
    pub max_delay: Duration,
    /// Files above this size go up in parts.
    pub multipart_above: u64,
    /// Bytes of a part, before the store's limits.
    pub part_bytes: u64,
    /// Objects above this size are copied in parts, as are those above the store's own limit.
    pub copy_in_one: u64,
    /// Bytes of a part that is copied, before the store's limits.
    pub copy_part_bytes: u64,
    /// Parts of one file under way at once.
    pub parallel_parts: usize,
    /// Steps under way at once.
    pub parallel: usize,
    /// Bytes of content held in memory at once.
    pub memory: u64,
    /// First pause after a failure.
    pub retry_first: Duration,
    /// Longest pause between repeats.
    pub retry_longest: Duration,
    /// R1: how long after an unknown outcome a late request may still arrive.
    pub late: Duration,
    /// R5: a renamed directory's move ends when a listing this long after its last copy shows nothing
    /// more: listings lag.
    pub move_quiet: Duration,
    /// Name of this mount in attempts; never changes (R2).
    pub mount_uuid: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(30),
            multipart_above: 16 << 20,
            part_bytes: 16 << 20,
            copy_in_one: u64::MAX,
            // No byte of it passes here; it must be done within the time of a slow answer.
            copy_part_bytes: 256 << 20,
            parallel_parts: 4,
            parallel: 16,
            memory: 96 << 20,
            retry_first: Duration::from_secs(1),
            retry_longest: Duration::from_secs(60),
            late: Duration::from_secs(120),
            move_quiet: Duration::from_secs(60),
            mount_uuid: String::new(),
        }
    }
}

/// Handle of the room; cheap to clone.
#[derive(Clone)]
pub struct Uploader {
    inner: Arc<Inner>,
}

/// Unit of the memory budget: a semaphore counts in u32.
const MEMORY_UNIT: u64 = 64 << 10;

struct Inner {
    namespace: Namespace,
    cache: Cache,
    outbox: Outbox,
    options: Options,
    locks: KeyLocks,
    /// Taken alone, in short sections.
    queue: Mutex<Queue>,
    wake: Notify,
    memory: Arc<Semaphore>,
    numbers: Mutex<Numbers>,
    /// Taken alone, in short sections.
    book: Mutex<Book>,
    changed: watch::Sender<u64>,
}

/// What the room remembers besides its rows.
#[derive(Default)]
struct Book {
    /// Attempts whose outcome is unknown, and multipart uploads that may be continued.
    attempts: HashMap<u64, AttemptRow>,
    parts: HashMap<u64, Vec<PartRow>>,
    /// Attempts that had not arrived when they were settled, and when they are looked for once more,
    /// monotonic (R1). Nothing waits for them.
    parked: HashMap<u64, Duration>,
    /// Keys at which a late request may still arrive (R1).
    suspicious: HashMap<(TargetId, Key), Suspicion>,
    failures: HashMap<Work, Failure>,
    /// Failures ever.
    failed: u64,
    flights: HashMap<Ino, Flight>,
    /// Renamed directories.
    moves: HashMap<Ino, Carry>,
    counters: Counters,
}

/// Requests to one key whose outcome nobody knows.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    /// The first attempt among them.
    first: u64,
    /// When the last of them was lost, monotonic.
    since: Duration,
}

/// Names a DELETE; attempts begin above it.
const NO_ATTEMPT: u64 = 0;

/// Suspicions that are over are cleared away whenever so many more have come.
const SUSPICIONS_CLEARED: usize = 1024;

impl Book {
    /// Attempts that something waits for.
    fn unsettled(&self) -> impl Iterator<Item = &AttemptRow> {
        self.attempts.values().filter(|attempt| !self.parked.contains_key(&attempt.attempt))
    }

    /// The outcome of a request is unknown: it may still arrive at the key, until `late` is over.
    fn suspect(&mut self, target: TargetId, key: &Key, attempt: u64, now: Duration, late: Duration) {
        if self.suspicious.len() % SUSPICIONS_CLEARED == SUSPICIONS_CLEARED - 1 {
            self.suspicious.retain(|_, suspicion| now.saturating_sub(suspicion.since) < late);
        }
        let suspicion =
            self.suspicious.entry((target, key.clone())).or_insert(Suspicion { first: attempt, since: now });
        *suspicion = Suspicion { first: attempt.min(suspicion.first), since: now };
    }

    /// The attempt has arrived: it cannot arrive late any more. Earlier ones still may.
    fn arrived(&mut self, attempt: &AttemptRow) {
        let key = (attempt.target, attempt.key.clone());
        if self.suspicious.get(&key).is_some_and(|suspicion| suspicion.first == attempt.attempt) {
            self.suspicious.remove(&key);
        }
    }
}

impl Uploader {
    /// Takes over what the journal's rows owe. Nothing moves before [`Uploader::run`].
    pub fn open(namespace: Namespace, cache: Cache, outbox: Outbox, options: Options, snapshot: &Snapshot) -> Uploader {
        let permits = usize::try_from(options.memory / MEMORY_UNIT).unwrap_or(Semaphore::MAX_PERMITS).max(1);
        let numbers = Mutex::new(Numbers::new(namespace.journal().clone(), Counter::Attempt));
        let mut book = Book::default();
        let now = namespace.clock().monotonic();
        for attempt in &snapshot.attempts {
            book.suspect(attempt.target, &attempt.key, attempt.attempt, now, options.late);
            book.attempts.insert(attempt.attempt, attempt.clone());
        }
        for part in &snapshot.parts {
            book.parts.entry(part.attempt).or_default().push(part.clone());
        }
        // A removal that was under way at a crash may still arrive.
        for removal in &snapshot.removals {
            book.suspect(removal.target, &removal.key, NO_ATTEMPT, now, options.late);
        }
        let inner = Inner {
            namespace,
            cache,
            outbox,
            options,
            locks: KeyLocks::default(),
            queue: Mutex::default(),
            wake: Notify::new(),
            memory: Arc::new(Semaphore::new(permits)),
            numbers,
            book: Mutex::new(book),
            changed: watch::Sender::new(0),
        };
        let uploader = Uploader { inner: Arc::new(inner) };
        uploader.look_at_everything();
        uploader
    }

    fn look_at_everything(&self) {
        let now = self.now();
        let (inodes, removals) = self.inner.namespace.read(|tree| {
            let inodes: Vec<Ino> = tree
                .inodes()
                .filter(|inode| inode.row.recheck_at.is_some() || tree.is_pending(inode.ino()))
                .map(crate::namespace::Inode::ino)
                .collect();
            let removals: Vec<_> = tree.removals().map(|row| (row.target, row.key.clone())).collect();
            (inodes, removals)
        });
        let moving: Vec<Ino> = self.inner.namespace.read(|tree| tree.moving().map(|(dir, _)| dir).collect());
        self.carry(moving);
        let attempts: Vec<u64> = self.book().attempts.keys().copied().collect();
        let mut queue = self.queue();
        for attempt in attempts {
            queue.put(Work::Settle(attempt), now);
        }
        for ino in inodes {
            queue.put(Work::Inode(ino), now);
        }
        for (target, key) in removals {
            queue.put(Work::Removal(target, key), now);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.inner.namespace.clock().monotonic()
    }

    /// R1: a request to the key may still arrive; see [`Book::suspect`].
    fn suspect(&self, target: TargetId, key: &Key, attempt: u64) {
        let now = self.now();
        self.book().suspect(target, key, attempt, now, self.inner.options.late);
    }

    /// R1: whether a request to the key may still arrive.
    fn is_suspicious(&self, target: TargetId, key: &Key) -> bool {
        let now = self.now();
        let since = self.book().suspicious.get(&(target, key.clone())).map(|suspicion| suspicion.since);
        since.is_some_and(|since| now.saturating_sub(since) < self.inner.options.late)
    }

    /// A change that may still be followed by others: due after the delay.
    pub fn changed(&self, ino: Ino) {
        let now = self.now();
        let since =
            self.inner.namespace.touch(|tree| tree.get_mut(ino).map(|inode| *inode.dirty_since.get_or_insert(now)));
        let options = &self.inner.options;
        let at = plan::due(now, since.unwrap_or(now), options.delay, options.max_delay);
        self.queue().put(Work::Inode(ino), at);
        self.inner.wake.notify_one();
    }

    /// A key is to leave the bucket: due after the delay (a new version may make it unnecessary).
    pub fn removal_owed(&self, target: TargetId, key: Key) {
        let at = queue::in_company(self.now() + self.inner.options.delay, self.inner.options.delay / 4);
        self.queue().put_sooner(Work::Removal(target, key), at);
        self.inner.wake.notify_one();
    }

    /// A handle was closed or a key was let go: what waited for it may go on.
    pub fn unblocked(&self) {
        let now = self.now();
        self.queue().wake_blocked(now);
        self.inner.wake.notify_one();
    }

    /// An inode lost its name: what waited for its next step may go on.
    pub fn let_go(&self, ino: Ino) {
        let now = self.now();
        self.queue().wake_behind(ino, now);
        self.inner.wake.notify_one();
    }

    /// What failed is tried again now: the store answers again, or its credentials were replaced.
    pub fn retry(&self) {
        let now = self.now();
        self.queue().retry(now);
        self.inner.wake.notify_one();
    }

    /// Everything goes up now, without delay (a drain, a wait). Pauses after failures stay.
    pub fn hurry(&self) {
        let now = self.now();
        self.queue().hurry(now);
        self.inner.wake.notify_one();
    }

    /// Ticks at every change of what is outstanding.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    fn tick(&self) {
        self.inner.changed.send_modify(|count| *count += 1);
    }
}
