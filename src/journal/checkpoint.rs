//! Moving what the WAL holds into the database, beside the writer (J3).

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, ErrorCode};

use super::latch::Latch;
use super::schema::{connect, explain};
use super::{Error, Result};

/// Pages (of 4 KiB) that wait in the WAL before a checkpoint is worth its two syncs: SQLite's own
/// measure (SQLITE_DEFAULT_WAL_AUTOCHECKPOINT).
const PAGES: i64 = 1000;

/// Pages that the WAL may have: 64 MiB, what its file is cut to. A checkpoint beside a writer that
/// never rests never gets to the WAL's end, so that the WAL would grow for ever; at this size the
/// writer is made to wait. What it writes until then comes on top.
const PAGES_MAX: i64 = 16_384;

/// The checkpointer's handle, in the writer.
pub(super) struct Checkpointer {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    pub(super) fn spawn(dir: &Path, latch: Arc<Latch>) -> Result<Checkpointer> {
        let conn = connect(dir)?;
        // One wake-up that waits is enough: it looks at all there is.
        let (wake, woken) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(&conn, &woken, &latch))
            .map_err(|error| Error::Open { path: dir.to_owned(), reason: error.to_string() })?;
        Ok(Checkpointer { wake, thread })
    }

    /// Asks for a look at the WAL. Never waits.
    pub(super) fn wake(&self) -> std::result::Result<(), Stopped> {
        match self.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => Ok(()),
            Err(TrySendError::Disconnected(())) => Err(Stopped),
        }
    }

    /// Ends the thread, after the checkpoint that may be under way.
    pub(super) fn stop(self) -> std::result::Result<(), Stopped> {
        drop(self.wake);
        self.thread.join().map_err(|_panic| Stopped)
    }
}

/// The thread has ended by itself: after a failure, which has latched, or a panic.
#[derive(Debug)]
pub(super) struct Stopped;

fn run(conn: &Connection, woken: &Receiver<()>, latch: &Latch) {
    while woken.recv().is_ok() {
        if latch.reason().is_some() {
            return;
        }
        if let Err(error) = look(conn) {
            // A failed sync has dropped pages that the next one would report as written: the
            // database must not be taken for newer than it is. The WAL still has everything.
            latch.set(format!("checkpoint: {}", explain(&error)));
            return;
        }
    }
}

/// Checkpoints if there is enough to do.
fn look(conn: &Connection) -> rusqlite::Result<()> {
    let Some(state) = checkpoint(conn, "NOOP")? else { return Ok(()) };
    if state.pages - state.moved < PAGES {
        return Ok(());
    }
    let Some(state) = checkpoint(conn, "PASSIVE")? else { return Ok(()) };
    if state.pages >= PAGES_MAX {
        // Most is moved: what the writer waits for is the rest.
        checkpoint(conn, "RESTART")?;
    }
    Ok(())
}

/// State of the WAL after a checkpoint.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Pages in it.
    pages: i64,
    /// Of those, pages that are in the database.
    moved: i64,
}

/// Runs a checkpoint; `None` if another connection was in its way: the next one does the work.
fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<Option<State>> {
    // Not cached: SQLite may run a PRAGMA when it is prepared.
    let result = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok((row.get::<_, i64>(0)?, State { pages: row.get(1)?, moved: row.get(2)? }))
    });
    match result {
        Ok((0, state)) => Ok(Some(state)),
        Ok(_busy) => Ok(None),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last checkpoint: everything is in the database and the WAL is empty.
pub(super) fn finish(conn: &Connection) -> rusqlite::Result<()> {
    checkpoint(conn, "TRUNCATE").map(drop)
}
