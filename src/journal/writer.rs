//! The thread that writes (J1).

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::apply::{self, STATEMENTS};
use super::checkpoint::{self, Checkpointer, Stopped};
use super::latch::Latch;
use super::schema::explain;
use super::{Counter, Durability, Error, Op, Result, TargetKind};
use crate::failpoint;
use crate::types::TargetId;

/// Requests that share a transaction at most, so that the first does not wait for an endless queue.
const BATCH_MAX: usize = 1024;

/// Changes after which the checkpointer looks at the WAL: each dirties one to four pages.
const OPS_PER_LOOK: usize = 256;

/// What the handle asks for.
pub(super) enum Request {
    Batch { ops: Vec<Op>, durability: Durability, done: oneshot::Sender<Result<()>> },
    Target { kind: TargetKind, identity: String, done: SyncSender<Result<TargetId>> },
    Reserve { counter: Counter, count: u64, done: SyncSender<Result<Range<u64>>> },
    Close { done: SyncSender<Result<()>> },
}

impl Request {
    fn durability(&self) -> Durability {
        match self {
            Request::Batch { durability, .. } => *durability,
            Request::Target { .. } | Request::Reserve { .. } | Request::Close { .. } => Durability::Disk,
        }
    }

    fn refuse(self, error: Error) {
        // Whoever dropped its receiver does not want to know: the batch counts all the same.
        match self {
            Request::Batch { done, .. } => drop(done.send(Err(error))),
            Request::Target { done, .. } => drop(done.send(Err(error))),
            Request::Reserve { done, .. } => drop(done.send(Err(error))),
            Request::Close { done } => drop(done.send(Err(error))),
        }
    }
}

/// A request that is applied and waits for the commit.
enum Applied {
    Batch(oneshot::Sender<Result<()>>),
    Target(SyncSender<Result<TargetId>>, TargetId),
    Reserve(SyncSender<Result<Range<u64>>>, Option<Range<u64>>),
    Close(SyncSender<Result<()>>),
}

/// The writer's state; everything in it belongs to its thread.
pub(super) struct Writer {
    conn: Connection,
    requests: Receiver<Request>,
    latch: Arc<Latch>,
    commits: Arc<AtomicU64>,
    checkpointer: Option<Checkpointer>,
    /// What `PRAGMA synchronous` of `conn` is set for.
    durability: Durability,
    ops_since_look: usize,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        dir: &Path,
        requests: Receiver<Request>,
        latch: Arc<Latch>,
        commits: Arc<AtomicU64>,
    ) -> Result<Writer> {
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        let checkpointer = Some(Checkpointer::spawn(dir, Arc::clone(&latch))?);
        let durability = Durability::Disk; // as schema::connect leaves it
        Ok(Writer { conn, requests, latch, commits, checkpointer, durability, ops_since_look: 0 })
    }

    /// Serves requests until Close, or until all handles are gone.
    pub(super) fn run(mut self) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.serve()));
        if result.is_err() {
            self.latch.set("the writing thread panicked".to_owned());
        }
    }

    fn serve(&mut self) {
        while let Ok(first) = self.requests.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && !matches!(batch.last(), Some(Request::Close { .. }))
                && let Ok(next) = self.requests.try_recv()
            {
                batch.push(next);
            }
            let closing = matches!(batch.last(), Some(Request::Close { .. }));
            self.commit(batch);
            if closing {
                return;
            }
        }
    }

    /// One transaction for all of them.
    ///
    /// 1. Durability is set: the strongest that is asked for. A crash here loses nothing promised.
    /// 2. All changes are applied and committed: SQLite writes the WAL, and for `Disk` syncs it.
    ///    A crash before the commit's last page leaves the state before this transaction.
    /// 3. The receipts resolve. A crash between 2 and 3 leaves changes that nobody was promised.
    fn commit(&mut self, batch: Vec<Request>) {
        if let Some(reason) = self.latch.reason() {
            let error = Error::Latched(reason.to_owned());
            return batch.into_iter().for_each(|request| request.refuse(error.clone()));
        }
        let durability = batch.iter().map(Request::durability).max().unwrap_or(Durability::Buffered);
        let mut waiting = Vec::with_capacity(batch.len());
        let mut batch = batch.into_iter();
        match self.transaction(&mut batch, &mut waiting, durability) {
            Ok(()) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                failpoint::hit(failpoint::JOURNAL_AFTER_COMMIT);
                for applied in waiting {
                    self.confirm(applied);
                }
                self.look_at_wal();
            }
            Err(error) => {
                self.latch.set(explain(&error));
                // Best effort: an error may have ended the transaction already, and what it wrote
                // is never committed on this connection.
                drop(self.conn.execute_batch("ROLLBACK"));
                let error = Error::Latched(explain(&error));
                waiting.into_iter().for_each(|applied| applied.refuse(error.clone()));
                batch.for_each(|request| request.refuse(error.clone()));
            }
        }
    }

    fn transaction(
        &mut self,
        batch: &mut dyn Iterator<Item = Request>,
        waiting: &mut Vec<Applied>,
        durability: Durability,
    ) -> rusqlite::Result<()> {
        self.set_durability(durability)?;
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for request in batch {
            let (applied, result) = self.apply(request);
            waiting.push(applied);
            result?;
        }
        if durability == Durability::Disk {
            apply::raise_barrier(&self.conn)?;
        }
        failpoint::hit(failpoint::JOURNAL_BEFORE_COMMIT);
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// FULL makes SQLite sync the WAL file in each commit, and with it all that earlier commits
    /// wrote there; NORMAL syncs it only in checkpoints.
    fn set_durability(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.durability == durability {
            return Ok(());
        }
        let level = match durability {
            Durability::Buffered => "NORMAL",
            Durability::Disk => "FULL",
        };
        // IMPORTANT: outside a transaction, where SQLite ignores it, and never from the cache of
        // statements: it takes effect when it is prepared, not when it is stepped.
        self.conn.pragma_update(None, "synchronous", level)?;
        self.durability = durability;
        Ok(())
    }

    /// Applies a request; it waits for the commit whether or not that worked.
    fn apply(&mut self, request: Request) -> (Applied, rusqlite::Result<()>) {
        match request {
            Request::Batch { ops, done, .. } => {
                self.ops_since_look += ops.len();
                (Applied::Batch(done), ops.iter().try_for_each(|op| apply::apply(&self.conn, op)))
            }
            Request::Target { kind, identity, done } => match apply::target(&self.conn, kind, &identity) {
                Ok(id) => (Applied::Target(done, id), Ok(())),
                Err(error) => (Applied::Target(done, TargetId(0)), Err(error)),
            },
            Request::Reserve { counter, count, done } => match apply::reserve(&self.conn, counter, count) {
                Ok(range) => (Applied::Reserve(done, range), Ok(())),
                Err(error) => (Applied::Reserve(done, None), Err(error)),
            },
            Request::Close { done } => (Applied::Close(done), Ok(())),
        }
    }

    fn confirm(&mut self, applied: Applied) {
        // A receiver that is gone does not want to know.
        match applied {
            Applied::Batch(done) => drop(done.send(Ok(()))),
            Applied::Target(done, id) => drop(done.send(Ok(id))),
            Applied::Reserve(done, range) => {
                let range = range.ok_or_else(|| Error::Read("there are no numbers left to reserve".to_owned()));
                drop(done.send(range));
            }
            Applied::Close(done) => drop(done.send(self.finish())),
        }
    }

    fn look_at_wal(&mut self) {
        if self.ops_since_look < OPS_PER_LOOK {
            return;
        }
        self.ops_since_look = 0;
        if let Some(Err(Stopped)) = self.checkpointer.as_ref().map(Checkpointer::wake) {
            self.latch.set("the checkpointing thread ended".to_owned());
        }
    }

    /// Ends the checkpointer and leaves a database whose WAL is empty.
    fn finish(&mut self) -> Result<()> {
        if let Some(Err(Stopped)) = self.checkpointer.take().map(Checkpointer::stop) {
            self.latch.set("the checkpointing thread panicked".to_owned());
        }
        // The checkpointer may have failed in its last step.
        if self.latch.reason().is_none()
            && let Err(error) = checkpoint::finish(&self.conn)
        {
            self.latch.set(format!("last checkpoint: {}", explain(&error)));
        }
        self.latch.reason().map_or(Ok(()), |reason| Err(Error::Latched(reason.to_owned())))
    }
}

impl Applied {
    fn refuse(self, error: Error) {
        match self {
            Applied::Batch(done) => drop(done.send(Err(error))),
            Applied::Target(done, _) => drop(done.send(Err(error))),
            Applied::Reserve(done, _) => drop(done.send(Err(error))),
            Applied::Close(done) => drop(done.send(Err(error))),
        }
    }
}
