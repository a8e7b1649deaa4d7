//! The one database of a mount: what must survive the daemon.
//!
//! # Promise
//! A batch of [`Op`]s is applied whole or not at all, in the order of [`Journal::submit`] calls.
//! When its [`Receipt`] resolves, it is as durable as it asked to be.
//!
//! # Invariants
//! 1. (J1) One thread writes. Batches that wait together commit together, as durable as the
//!    strongest of them asks.
//! 2. (J1) A `Disk` commit carries every earlier `Buffered` one to the disk.
//! 3. (J3) A failed commit or sync is final: every later submit fails with [`Error::Latched`].
//! 4. SQL is nowhere but in this room.

mod error;
mod numbers;
mod rows;

pub use error::{Error, Result};
pub use numbers::Numbers;
pub use rows::{
    AnnouncementRow, AnnouncementState, AttemptKind, AttemptRow, AttributeRow, Content, Hold, InodeRow, Mark, Op,
    PartRow, RecordOutcome, RecordRow, Remote, RemovalRow, Snapshot, TargetKind, TargetRow,
};

use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use crate::types::{Key, TargetId};

/// How durable a batch must be when its receipt resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Survives SIGKILL of the daemon (written to the WAL file).
    Buffered,
    /// Survives a power cut (WAL fsynced, with all earlier batches).
    Disk,
}

/// Ranges of numbers that are never given out twice (J6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Inode numbers.
    Ino,
    /// Backing files.
    Backing,
    /// Attempts.
    Attempt,
    /// Announcements.
    Seq,
}

/// Handle of the database; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<()>,
}

/// Resolves when a batch is as durable as asked. Dropping it does not cancel the batch.
pub struct Receipt {
    inner: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
}

impl Journal {
    /// Opens or makes `dir/journal.db`, migrates it forward, starts the writer and the checkpointer.
    ///
    /// # Errors
    /// A newer schema, a damaged database, a SQLite older than 3.51.3 (J3), I/O.
    pub fn open(_dir: &Path) -> Result<Journal> {
        unimplemented!()
    }

    /// Reads everything, in one read transaction.
    pub fn load(&self) -> Result<Snapshot> {
        unimplemented!()
    }

    /// The number of a target, made on first use (durable on return).
    pub fn target(&self, _kind: TargetKind, _identity: &str) -> Result<TargetId> {
        unimplemented!()
    }

    /// Reserves `count` numbers; on disk before it returns. The first number ever is 2 for
    /// [`Counter::Ino`] (1 is the root), 1 otherwise.
    pub fn reserve(&self, _counter: Counter, _count: u64) -> Result<Range<u64>> {
        unimplemented!()
    }

    /// Queues a batch. Never blocks: callers hold locks, and the order of calls is the order of
    /// commits. An empty batch with [`Durability::Disk`] is a barrier.
    pub fn submit(&self, _ops: Vec<Op>, _durability: Durability) -> Receipt {
        unimplemented!()
    }

    /// A named value.
    pub fn meta(&self, _name: &'static str) -> Result<Option<String>> {
        unimplemented!()
    }

    /// Attribute rows of the objects directly under `prefix` (which ends with `/` or is empty):
    /// keys `prefix` itself, `prefix + name`, `prefix + name + "/"`.
    pub fn attributes_under(&self, _target: TargetId, _prefix: &str) -> Result<Vec<AttributeRow>> {
        unimplemented!()
    }

    /// The attribute row of one object.
    pub fn attribute(&self, _target: TargetId, _key: &Key) -> Result<Option<AttributeRow>> {
        unimplemented!()
    }

    /// Why writing has stopped for good, if it has.
    pub fn failure(&self) -> Option<String> {
        unimplemented!()
    }

    /// Commits what is queued to disk and stops the threads. Later submits fail.
    pub fn close(&self) -> Result<()> {
        unimplemented!()
    }
}

impl Receipt {
    /// Waits on the calling thread; not for async code.
    ///
    /// # Errors
    /// As the future.
    pub fn wait(self) -> Result<()> {
        futures::executor::block_on(self)
    }
}

impl Future for Receipt {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<()>> {
        self.inner.as_mut().poll(cx)
    }
}
