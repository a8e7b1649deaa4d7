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
//! 5. Rows are read back exactly as they were written; a value that has no meaning here is an
//!    error, never a default.
//! 6. After a failure nothing touches the database: no commit, no checkpoint. The WAL keeps what
//!    was promised, and the next start reads it.

mod apply;
mod checkpoint;
mod codec;
mod database;
mod error;
mod inode_codec;
mod latch;
mod numbers;
mod queries;
mod replace;
mod row_codec;
mod rows;
mod schema;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use numbers::Numbers;
pub use rows::{
    AnnouncementRow, AnnouncementState, AttemptKind, AttemptRow, AttributeRow, Content, CopyRow, ExtentRow, Hold,
    InodeRow, Mark, Op, PartRow, PartialRow, RecordOutcome, RecordRow, Remote, RemovalRow, Snapshot, SourceRow,
    TargetKind, TargetRow,
};

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use self::database::{Database, ended};
use self::latch::Latch;
use self::writer::Request;
use crate::types::{Ino, Key, TargetId, TimeNs};

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

/// Handle of the database; cheap to clone. The last one to be dropped closes it.
#[derive(Clone)]
pub struct Journal {
    database: Arc<Database>,
}

/// Resolves when a batch is as durable as asked. Dropping it does not cancel the batch.
#[must_use = "without its receipt nobody knows that a batch failed"]
pub struct Receipt {
    reply: oneshot::Receiver<Result<()>>,
    latch: Arc<Latch>,
}

impl Journal {
    /// Opens or makes `dir/journal.db`, migrates it forward, starts the writer and the checkpointer.
    ///
    /// # Errors
    /// A newer schema, a damaged database, a SQLite older than 3.51.3 (J3), I/O.
    pub fn open(dir: &Path) -> Result<Journal> {
        Ok(Journal { database: Arc::new(Database::open(dir)?) })
    }

    /// Whether `dir` has a journal, in whatever state.
    pub fn exists(dir: &Path) -> bool {
        schema::exists(dir)
    }

    /// Puts the closed journal of `new` into `dir`; the one that is there is moved aside, not removed.
    /// Returns where it is then, if there was one. After a crash in the middle there is no journal, and
    /// what was aside stays so.
    ///
    /// # Errors
    /// As rename(2) and fsync(2).
    pub fn replace(dir: &Path, new: &Path, now: TimeNs) -> std::io::Result<Option<PathBuf>> {
        replace::replace(dir, new, now)
    }

    /// Looks at every page of the database.
    ///
    /// # Errors
    /// [`Error::Read`] with what is wrong.
    pub fn verify(&self) -> Result<()> {
        match self.database.read(|conn| queries::quick_check(conn))? {
            None => Ok(()),
            Some(wrong) => Err(Error::Read(wrong)),
        }
    }

    /// The next number of a counter, without reserving it.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn peek(&self, counter: Counter) -> Result<u64> {
        self.database.read(|conn| queries::next_number(conn, counter))
    }

    /// Reads everything, in one read transaction.
    ///
    /// # Errors
    /// [`Error::Read`]: a damaged database is never an empty result.
    pub fn load(&self) -> Result<Snapshot> {
        self.database.read(queries::load)
    }

    /// The number of a target, made on first use (durable on return). Waits for the disk: not for
    /// a task that others wait for.
    ///
    /// # Errors
    /// As [`Journal::submit`].
    pub fn target(&self, kind: TargetKind, identity: &str) -> Result<TargetId> {
        let identity = identity.to_owned();
        self.database.ask(|done| Request::Target { kind, identity, done })
    }

    /// Reserves `count` numbers; on disk before it returns. The first number ever is 2 for
    /// [`Counter::Ino`] (1 is the root), 1 otherwise. Waits as [`Journal::target`] does.
    ///
    /// # Errors
    /// As [`Journal::submit`].
    pub fn reserve(&self, counter: Counter, count: u64) -> Result<Range<u64>> {
        self.database.ask(|done| Request::Reserve { counter, count, done })
    }

    /// Queues a batch. Never blocks: callers hold locks, and the order of calls is the order of
    /// commits. An empty batch with [`Durability::Disk`] is a barrier.
    ///
    /// The receipt resolves to [`Error::Latched`] if this or an earlier commit failed, to
    /// [`Error::Closed`] after [`Journal::close`].
    pub fn submit(&self, ops: Vec<Op>, durability: Durability) -> Receipt {
        let (done, reply) = oneshot::channel();
        self.database.send(Request::Batch { ops, durability, done });
        Receipt { reply, latch: Arc::clone(self.database.latch()) }
    }

    /// The name of this mount among all mounts of all hosts, made with its database: 32 hexadecimal
    /// digits, the first part of attempts' names (R2).
    pub fn mount_uuid(&self) -> &str {
        self.database.mount_uuid()
    }

    /// A named value.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn meta(&self, name: &'static str) -> Result<Option<String>> {
        self.database.read(|conn| queries::meta(conn, name))
    }

    /// Attribute rows of the objects directly under `prefix` (which ends with `/` or is empty):
    /// keys `prefix` itself, `prefix + name`, `prefix + name + "/"`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn attributes_under(&self, target: TargetId, prefix: &str) -> Result<Vec<AttributeRow>> {
        self.database.read(|conn| queries::attributes_under(conn, target, prefix))
    }

    /// The attribute row of one object.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn attribute(&self, target: TargetId, key: &Key) -> Result<Option<AttributeRow>> {
        self.database.read(|conn| queries::attribute(conn, target, key))
    }

    /// The extents of a file that is not wholly local, by kind and start.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn extents(&self, ino: Ino) -> Result<Vec<ExtentRow>> {
        self.database.read(|conn| queries::extents(conn, ino))
    }

    /// Why writing has stopped for good, if it has.
    pub fn failure(&self) -> Option<String> {
        self.database.latch().reason().map(str::to_owned)
    }

    /// Resolves to the reason when writing has stopped for good; otherwise never.
    pub async fn failed(&self) -> String {
        self.database.latch().wait().await
    }

    /// Transactions committed since the start: fewer than batches, because those that wait together
    /// share one.
    pub fn commits(&self) -> u64 {
        self.database.commits()
    }

    /// Commits what is queued to disk and stops the threads. Later submits fail; reading goes on.
    ///
    /// # Errors
    /// [`Error::Latched`] if it could not, [`Error::Closed`] if it was closed before.
    pub fn close(&self) -> Result<()> {
        self.database.close()
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

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let reply = ready!(Pin::new(&mut self.reply).poll(cx));
        Poll::Ready(reply.unwrap_or_else(|_| Err(ended(&self.latch))))
    }
}
