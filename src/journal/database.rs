//! What is behind the handle: the queue to the writer, and a connection for reading.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use super::latch::Latch;
use super::schema::{FILE_NAME, connect, explain, migrate, mount_uuid, prepare_file};
use super::writer::{Request, Writer};
use super::{Error, Result};
use crate::disk;

pub(super) struct Database {
    /// Unbounded: callers hold locks and must not wait here. Each caller is a request of the kernel
    /// or of a worker that then waits for its receipt, so the queue is as long as they are many.
    requests: Sender<Request>,
    latch: Arc<Latch>,
    commits: Arc<AtomicU64>,
    mount_uuid: String,
    /// Guards the reading connection; last in the order of locks.
    reader: Mutex<Connection>,
    /// The writer, until somebody has waited for its end.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Database {
    pub(super) fn open(dir: &Path) -> Result<Database> {
        prepare_file(dir)?;
        let mut conn = connect(dir)?;
        migrate(&mut conn, dir)?;
        let mount_uuid = mount_uuid(&conn, dir)?;
        let failed = |error: std::io::Error| Error::Open { path: dir.join(FILE_NAME), reason: error.to_string() };
        // The WAL's name, too, must survive a power cut.
        disk::sync_dir(dir).map_err(failed)?;
        let reader = Mutex::new(connect(dir)?);
        let latch = Arc::new(Latch::new());
        let commits = Arc::new(AtomicU64::new(0));
        let (requests, queue) = channel();
        let writer = Writer::new(conn, dir, queue, Arc::clone(&latch), Arc::clone(&commits))?;
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run()).map_err(failed)?;
        Ok(Database { requests, latch, commits, mount_uuid, reader, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn latch(&self) -> &Arc<Latch> {
        &self.latch
    }

    pub(super) fn mount_uuid(&self) -> &str {
        &self.mount_uuid
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Queues a request. After the writer's end it is dropped, and whoever waits for it learns so.
    pub(super) fn send(&self, request: Request) {
        drop(self.requests.send(request));
    }

    /// Queues a request and waits for its answer.
    pub(super) fn ask<T>(&self, request: impl FnOnce(SyncSender<Result<T>>) -> Request) -> Result<T> {
        let (done, answer) = sync_channel(1);
        self.send(request(done));
        answer.recv().unwrap_or_else(|_| Err(ended(&self.latch)))
    }

    /// Runs a query on the reading connection.
    pub(super) fn read<T>(&self, query: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T> {
        // A panic in a query has rolled its transaction back: the connection is usable.
        let mut conn = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        query(&mut conn).map_err(|error| Error::Read(explain(&error)))
    }

    /// Commits what is queued, checkpoints, ends the threads. Again: `Closed`.
    pub(super) fn close(&self) -> Result<()> {
        let outcome = self.ask(|done| Request::Close { done });
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_panic)) = thread.map(JoinHandle::join) {
            self.latch.set("the writing thread panicked".to_owned());
        }
        outcome
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A failure here has latched, hence is in the log.
        drop(self.close());
    }
}

/// Why nobody answers: the writer failed, or was closed.
pub(super) fn ended(latch: &Latch) -> Error {
    latch.reason().map_or(Error::Closed, |reason| Error::Latched(reason.to_owned()))
}
