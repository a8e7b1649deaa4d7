//! The database file: opening it, its tables, and the way from older tables to ours.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Error, Result};
use crate::disk;

/// The database's file in the state directory; SQLite adds `-wal` and `-shm`.
pub(super) const FILE_NAME: &str = "journal.db";

/// Row of `meta` that holds the mount's name.
const MOUNT_UUID: &str = "mount-uuid";

/// SQLite 3.51.3 repaired the WAL-reset bug: two connections that commit and checkpoint at the
/// same moment could corrupt the database (J3).
const SQLITE_MIN: i32 = 3_051_003;

/// Marks the file as ours: "FERR".
const APPLICATION_ID: i64 = 0x4645_5252;

/// How long a statement waits for another connection: a restart of the WAL takes a copy of some
/// thousand pages, a backup or a shell of an operator may take longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// What the WAL file is cut to when it starts anew.
const WAL_LIMIT_BYTES: i64 = 64 << 20;

/// Step `n` leads from schema `n` to `n + 1`; PRAGMA user_version holds the number. Never edit a
/// step that was released: add one.
const STEPS: &[&str] = &[FIRST, PARTIAL, SOURCES, XATTRS, COPIES, TOLD];

/// 64-bit unsigned numbers are stored as the signed number with the same bits (J3); times are
/// nanoseconds since the epoch; enumerations are the numbers of codec.rs.
const FIRST: &str = "
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Raised in every batch that must reach the disk: a transaction that changes no page would not
-- write to the WAL, and so would not sync what earlier ones wrote to it.
CREATE TABLE barrier (
    id    INTEGER PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT;
INSERT INTO barrier VALUES (1, 0);

CREATE TABLE counter (
    id   INTEGER PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT;

CREATE TABLE target (
    id       INTEGER PRIMARY KEY,
    kind     INTEGER NOT NULL,
    identity TEXT NOT NULL,
    UNIQUE (kind, identity)
) STRICT;

CREATE TABLE inode (
    ino                    INTEGER PRIMARY KEY,
    target                 INTEGER NOT NULL,
    kind                   INTEGER NOT NULL,
    parent                 INTEGER NOT NULL,
    name                   TEXT NOT NULL,
    linked                 INTEGER NOT NULL,
    mode                   INTEGER NOT NULL,
    uid                    INTEGER NOT NULL,
    gid                    INTEGER NOT NULL,
    mtime                  INTEGER NOT NULL,
    attrs_known            INTEGER NOT NULL,
    ctime                  INTEGER NOT NULL,
    attr_generation        INTEGER NOT NULL,
    remote_attr_generation INTEGER NOT NULL,
    size                   INTEGER NOT NULL,
    symlink                TEXT,
    content                INTEGER NOT NULL,
    generation             INTEGER NOT NULL,
    remote_generation      INTEGER NOT NULL,
    backing                INTEGER,
    mark_ino               INTEGER,
    mark_size              INTEGER,
    mark_mtime             INTEGER,
    mark_ctime             INTEGER,
    mark_synced            INTEGER,
    hold                   INTEGER,
    remote_key             TEXT,
    remote_etag            TEXT,
    remote_size            INTEGER,
    remote_crc64           INTEGER,
    remote_version_id      TEXT,
    remote_last_modified   INTEGER,
    recheck_at             INTEGER,
    marker_wanted          INTEGER NOT NULL
) STRICT;

CREATE TABLE attribute (
    target  INTEGER NOT NULL,
    key     TEXT NOT NULL,
    etag    TEXT NOT NULL,
    kind    INTEGER NOT NULL,
    mode    INTEGER NOT NULL,
    uid     INTEGER NOT NULL,
    gid     INTEGER NOT NULL,
    mtime   INTEGER NOT NULL,
    symlink TEXT,
    crc64   INTEGER,
    PRIMARY KEY (target, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempt (
    attempt         INTEGER PRIMARY KEY,
    kind            INTEGER NOT NULL,
    ino             INTEGER NOT NULL,
    target          INTEGER NOT NULL,
    key             TEXT NOT NULL,
    source          TEXT,
    generation      INTEGER NOT NULL,
    attr_generation INTEGER NOT NULL,
    mode            INTEGER NOT NULL,
    uid             INTEGER NOT NULL,
    gid             INTEGER NOT NULL,
    mtime           INTEGER NOT NULL,
    size            INTEGER NOT NULL,
    crc64           INTEGER,
    upload_id       TEXT,
    part_bytes      INTEGER NOT NULL,
    started         INTEGER NOT NULL
) STRICT;

CREATE TABLE part (
    attempt INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    size    INTEGER NOT NULL,
    etag    TEXT NOT NULL,
    crc64   INTEGER NOT NULL,
    PRIMARY KEY (attempt, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE removal (
    target INTEGER NOT NULL,
    key    TEXT NOT NULL,
    etag   TEXT NOT NULL,
    ino    INTEGER NOT NULL,
    owed   INTEGER NOT NULL,
    PRIMARY KEY (target, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE announcement (
    seq      INTEGER PRIMARY KEY,
    sync     INTEGER NOT NULL,
    key      TEXT NOT NULL,
    state    INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    error    TEXT,
    owed     INTEGER NOT NULL
) STRICT;

CREATE TABLE record (
    seq      INTEGER PRIMARY KEY,
    record   INTEGER NOT NULL,
    sync     INTEGER NOT NULL,
    key      TEXT NOT NULL,
    outcome  INTEGER NOT NULL,
    attempts INTEGER NOT NULL
) STRICT;
";

/// Extended attributes, and keys whose last segment is not the name that shows them. Attributes looked
/// at before may have extended ones that nobody took note of: they are asked for again.
const XATTRS: &str = "
ALTER TABLE inode ADD COLUMN xattrs TEXT;
ALTER TABLE inode ADD COLUMN segment TEXT;
ALTER TABLE attribute ADD COLUMN xattrs TEXT;
DELETE FROM attribute;
";

/// What programs were told of content on the disk. Of older rows nothing is known.
const TOLD: &str = "
ALTER TABLE inode ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
";

/// Whether there is a database file.
pub(super) fn exists(dir: &Path) -> bool {
    dir.join(FILE_NAME).exists()
}

/// Files that are written to while most of them is still in the bucket only (C7).
const PARTIAL: &str = "
CREATE TABLE partial (
    ino  INTEGER PRIMARY KEY,
    etag TEXT NOT NULL,
    size INTEGER NOT NULL,
    end  INTEGER NOT NULL
) STRICT;

CREATE TABLE extent (
    ino     INTEGER NOT NULL,
    fetched INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    end     INTEGER NOT NULL,
    PRIMARY KEY (ino, fetched, start)
) STRICT, WITHOUT ROWID;
";

/// What renamed directories still have under old names (R5).
const SOURCES: &str = "
CREATE TABLE source (
    ino     INTEGER NOT NULL,
    target  INTEGER NOT NULL,
    prefix  TEXT NOT NULL,
    renamed INTEGER NOT NULL,
    PRIMARY KEY (ino, prefix)
) STRICT, WITHOUT ROWID;
";

/// Files that the store is to copy from another's object.
const COPIES: &str = "
CREATE TABLE copy (
    ino        INTEGER PRIMARY KEY,
    key        TEXT NOT NULL,
    etag       TEXT NOT NULL,
    size       INTEGER NOT NULL,
    crc64      INTEGER,
    version_id TEXT
) STRICT;
";

/// Makes the file if there is none, for the owner alone: SQLite gives the WAL the same mode.
pub(super) fn prepare_file(dir: &Path) -> Result<()> {
    let path = dir.join(FILE_NAME);
    let io = |error: std::io::Error| Error::Open { path: path.clone(), reason: error.to_string() };
    let wal = dir.join(format!("{FILE_NAME}-wal"));
    if !path.exists() && wal.exists() {
        // SQLite would read it into the new database: some pages of the lost one, as if they were all.
        let reason = format!(
            "it is gone but {} is there: put it back, or run `ferryfs recover --scan --config FILE`",
            wal.display()
        );
        return Err(Error::Open { path, reason });
    }
    match disk::create_exclusive(&path, 0o600) {
        Ok(_empty) => disk::sync_dir(dir).map_err(io),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => disk::chmod(&path, 0o600).map_err(io),
        Err(error) => Err(io(error)),
    }
}

/// A connection with our settings; `synchronous` is FULL until somebody changes it.
pub(super) fn connect(dir: &Path) -> Result<Connection> {
    let path = dir.join(FILE_NAME);
    let found = rusqlite::version_number();
    if found < SQLITE_MIN {
        let reason = format!("SQLite {} can corrupt it: 3.51.3 or later is needed", rusqlite::version());
        return Err(Error::Open { path, reason });
    }
    let open = || {
        let conn = settings(&path)?;
        let mode = conn.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))?;
        Ok((conn, mode))
    };
    let (conn, mode) = open().map_err(|error| opening(&path, &error))?;
    if mode != "wal" {
        let reason = format!("its journal mode is `{mode}`: the filesystem cannot hold a WAL, use a local one");
        return Err(Error::Open { path, reason });
    }
    Ok(conn)
}

fn settings(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // After a failure nothing may touch the database any more, not even the end of a connection;
    // an orderly close checkpoints by itself.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_LIMIT_BYTES, |_| Ok(()))?;
    Ok(conn)
}

/// Brings the tables to our schema.
pub(super) fn migrate(conn: &mut Connection, dir: &Path) -> Result<()> {
    let path = dir.join(FILE_NAME);
    let known = i64::try_from(STEPS.len()).expect("invariant: a handful of steps");
    let read = |name: &str| {
        conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|error| opening(&path, &error))
    };
    let (found, id) = (read("user_version")?, read("application_id")?);
    if (found, id) != (0, 0) && id != APPLICATION_ID {
        let reason = "it is another program's database: give ferryfs a state directory of its own".to_owned();
        return Err(Error::Open { path, reason });
    }
    if found > known {
        return Err(Error::NewerSchema { path, found, known });
    }
    let done = usize::try_from(found).unwrap_or(0);
    steps(conn, STEPS.get(done..).unwrap_or_default(), known).map_err(|error| opening(&path, &error))
}

/// All missing steps in one transaction: a crash leaves the old schema or the new one.
fn steps(conn: &mut Connection, steps: &[&str], version: i64) -> rusqlite::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

/// The name of this database among all mounts of all hosts, made at its first opening.
pub(super) fn mount_uuid(conn: &Connection, dir: &Path) -> Result<String> {
    let draw = uuid::Uuid::new_v4().simple().to_string();
    let run = || {
        conn.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?1, ?2)", [MOUNT_UUID, &draw])?;
        conn.query_row("SELECT value FROM meta WHERE name = ?1", [MOUNT_UUID], |row| row.get(0))
    };
    run().map_err(|error| opening(&dir.join(FILE_NAME), &error))
}

/// An error of opening, with the remedy where there is one.
fn opening(path: &Path, error: &rusqlite::Error) -> Error {
    Error::Open { path: path.to_owned(), reason: explain(error) }
}

/// What an error of SQLite means to an operator.
pub(super) fn explain(error: &rusqlite::Error) -> String {
    let remedy = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "; the database is damaged: run `ferryfs recover --scan --config FILE`, which moves it aside and rebuilds \
             what the files in the state and cache directories still tell"
        }
        Some(ErrorCode::DiskFull) => "; the disk is full: make room on it and start again",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another process holds it: end that one",
        Some(ErrorCode::ReadOnly) => "; it cannot be written: see to the mode of the file and of its filesystem",
        _ => "",
    };
    format!("{error}{remedy}")
}
