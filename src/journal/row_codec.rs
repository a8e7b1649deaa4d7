//! The other tables.

use rusqlite::{Connection, Row, params};

use super::codec::Bits;
use super::{
    AnnouncementRow, AttemptRow, AttributeRow, CopyRow, ExtentRow, PartRow, PartialRow, RecordRow, Remote, RemovalRow,
    SourceRow, TargetRow,
};
use crate::types::{Attrs, Ino};

pub(super) const SELECT_TARGET: &str = "SELECT id, kind, identity FROM target";

pub(super) fn target(row: &Row<'_>) -> rusqlite::Result<TargetRow> {
    Ok(TargetRow { id: row.get(0)?, kind: row.get(1)?, identity: row.get(2)? })
}

pub(super) const SELECT_PARTIAL: &str = "SELECT ino, etag, size, end FROM partial";

pub(super) fn partial(row: &Row<'_>) -> rusqlite::Result<PartialRow> {
    let bits = |at| row.get::<_, Bits>(at).map(|bits| bits.0);
    Ok(PartialRow { ino: row.get(0)?, etag: row.get(1)?, size: bits(2)?, end: bits(3)? })
}

pub(super) fn insert_partial(conn: &Connection, row: &PartialRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO partial (ino, etag, size, end) VALUES (?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute(params![row.ino, row.etag, Bits(row.size), Bits(row.end)])?;
    Ok(())
}

pub(super) fn delete_partial(conn: &Connection, ino: Ino) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM partial WHERE ino = ?1")?.execute([ino])?;
    conn.prepare_cached("DELETE FROM extent WHERE ino = ?1")?.execute([ino])?;
    Ok(())
}

pub(super) const SELECT_COPY: &str = "SELECT ino, key, etag, size, crc64, version_id FROM copy";

pub(super) fn copy(row: &Row<'_>) -> rusqlite::Result<CopyRow> {
    let origin = Remote {
        key: row.get(1)?,
        etag: row.get(2)?,
        size: row.get::<_, Bits>(3)?.0,
        crc64: row.get(4)?,
        version_id: row.get(5)?,
        last_modified: None,
    };
    Ok(CopyRow { ino: row.get(0)?, origin })
}

pub(super) fn insert_copy(conn: &Connection, row: &CopyRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO copy (ino, key, etag, size, crc64, version_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Remote { key, etag, size, crc64, version_id, last_modified: _ } = &row.origin;
    conn.prepare_cached(sql)?.execute(params![row.ino, key, etag, Bits(*size), crc64, version_id])?;
    Ok(())
}

pub(super) fn delete_copy(conn: &Connection, ino: Ino) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM copy WHERE ino = ?1")?.execute([ino])?;
    Ok(())
}

/// Those of one file.
pub(super) const SELECT_EXTENT: &str =
    "SELECT ino, start, end, fetched FROM extent WHERE ino = ?1 ORDER BY fetched, start";

pub(super) fn extent(row: &Row<'_>) -> rusqlite::Result<ExtentRow> {
    let bits = |at| row.get::<_, Bits>(at).map(|bits| bits.0);
    Ok(ExtentRow { ino: row.get(0)?, start: bits(1)?, end: bits(2)?, fetched: row.get(3)? })
}

/// Offsets of files end at 2^63: as signed numbers they are in order.
pub(super) fn insert_extent(conn: &Connection, row: &ExtentRow) -> rusqlite::Result<()> {
    let values = params![row.ino, row.fetched, Bits(row.start), Bits(row.end)];
    let swallow = "DELETE FROM extent WHERE ino = ?1 AND fetched = ?2 AND start BETWEEN ?3 AND ?4";
    conn.prepare_cached(swallow)?.execute(values)?;
    let sql = "INSERT INTO extent (ino, fetched, start, end) VALUES (?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Without its condition.
pub(super) const SELECT_ATTRIBUTE: &str =
    "SELECT target, key, etag, kind, mode, uid, gid, mtime, symlink, crc64, xattrs FROM attribute";

pub(super) fn attribute(row: &Row<'_>) -> rusqlite::Result<AttributeRow> {
    Ok(AttributeRow {
        target: row.get(0)?,
        key: row.get(1)?,
        etag: row.get(2)?,
        kind: row.get(3)?,
        attrs: Attrs { mode: row.get(4)?, uid: row.get(5)?, gid: row.get(6)?, mtime: row.get(7)? },
        symlink: row.get(8)?,
        crc64: row.get(9)?,
        xattrs: row.get(10)?,
    })
}

pub(super) fn insert_attribute(conn: &Connection, row: &AttributeRow) -> rusqlite::Result<()> {
    let sql =
        "INSERT OR REPLACE INTO attribute (target, key, etag, kind, mode, uid, gid, mtime, symlink, crc64, xattrs)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let Attrs { mode, uid, gid, mtime } = row.attrs;
    conn.prepare_cached(sql)?.execute(params![
        row.target,
        row.key,
        row.etag,
        row.kind,
        mode,
        uid,
        gid,
        mtime,
        row.symlink,
        row.crc64,
        row.xattrs
    ])?;
    Ok(())
}

pub(super) const SELECT_ATTEMPT: &str = "
    SELECT attempt, kind, ino, target, key, source, generation, attr_generation, mode, uid, gid, mtime, size, crc64,
        upload_id, part_bytes, started
    FROM attempt";

pub(super) fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRow> {
    Ok(AttemptRow {
        attempt: row.get::<_, Bits>(0)?.0,
        kind: row.get(1)?,
        ino: row.get(2)?,
        target: row.get(3)?,
        key: row.get(4)?,
        source: row.get(5)?,
        generation: row.get::<_, Bits>(6)?.0,
        attr_generation: row.get::<_, Bits>(7)?.0,
        attrs: Attrs { mode: row.get(8)?, uid: row.get(9)?, gid: row.get(10)?, mtime: row.get(11)? },
        size: row.get::<_, Bits>(12)?.0,
        crc64: row.get(13)?,
        upload_id: row.get(14)?,
        part_bytes: row.get::<_, Bits>(15)?.0,
        started: row.get(16)?,
    })
}

pub(super) fn insert_attempt(conn: &Connection, row: &AttemptRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO attempt (attempt, kind, ino, target, key, source, generation, attr_generation,
            mode, uid, gid, mtime, size, crc64, upload_id, part_bytes, started)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    conn.prepare_cached(sql)?.execute(params![
        Bits(row.attempt),
        row.kind,
        row.ino,
        row.target,
        row.key,
        row.source,
        Bits(row.generation),
        Bits(row.attr_generation),
        row.attrs.mode,
        row.attrs.uid,
        row.attrs.gid,
        row.attrs.mtime,
        Bits(row.size),
        row.crc64,
        row.upload_id,
        Bits(row.part_bytes),
        row.started,
    ])?;
    Ok(())
}

pub(super) const SELECT_PART: &str = "SELECT attempt, number, size, etag, crc64 FROM part";

pub(super) fn part(row: &Row<'_>) -> rusqlite::Result<PartRow> {
    Ok(PartRow {
        attempt: row.get::<_, Bits>(0)?.0,
        number: row.get(1)?,
        size: row.get::<_, Bits>(2)?.0,
        etag: row.get(3)?,
        crc64: row.get(4)?,
    })
}

pub(super) fn insert_part(conn: &Connection, row: &PartRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO part (attempt, number, size, etag, crc64) VALUES (?1, ?2, ?3, ?4, ?5)";
    conn.prepare_cached(sql)?.execute(params![Bits(row.attempt), row.number, Bits(row.size), row.etag, row.crc64])?;
    Ok(())
}

pub(super) const SELECT_REMOVAL: &str = "SELECT target, key, etag, ino, owed FROM removal";

pub(super) fn removal(row: &Row<'_>) -> rusqlite::Result<RemovalRow> {
    Ok(RemovalRow { target: row.get(0)?, key: row.get(1)?, etag: row.get(2)?, ino: row.get(3)?, owed: row.get(4)? })
}

pub(super) fn insert_removal(conn: &Connection, row: &RemovalRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO removal (target, key, etag, ino, owed) VALUES (?1, ?2, ?3, ?4, ?5)";
    conn.prepare_cached(sql)?.execute(params![row.target, row.key, row.etag, row.ino, row.owed])?;
    Ok(())
}

pub(super) const SELECT_SOURCE: &str = "SELECT ino, target, prefix, renamed FROM source";

pub(super) fn source(row: &Row<'_>) -> rusqlite::Result<SourceRow> {
    Ok(SourceRow { ino: row.get(0)?, target: row.get(1)?, prefix: row.get(2)?, at: row.get(3)? })
}

pub(super) fn insert_source(conn: &Connection, row: &SourceRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO source (ino, target, prefix, renamed) VALUES (?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute(params![row.ino, row.target, row.prefix, row.at])?;
    Ok(())
}

pub(super) const SELECT_ANNOUNCEMENT: &str = "SELECT seq, sync, key, state, attempts, error, owed FROM announcement";

pub(super) fn announcement(row: &Row<'_>) -> rusqlite::Result<AnnouncementRow> {
    Ok(AnnouncementRow {
        seq: row.get::<_, Bits>(0)?.0,
        sync: row.get(1)?,
        key: row.get(2)?,
        state: row.get(3)?,
        attempts: row.get(4)?,
        error: row.get(5)?,
        owed: row.get(6)?,
    })
}

pub(super) fn insert_announcement(conn: &Connection, row: &AnnouncementRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO announcement (seq, sync, key, state, attempts, error, owed)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    conn.prepare_cached(sql)?.execute(params![
        Bits(row.seq),
        row.sync,
        row.key,
        row.state,
        row.attempts,
        row.error,
        row.owed
    ])?;
    Ok(())
}

pub(super) const SELECT_RECORD: &str = "SELECT seq, record, sync, key, outcome, attempts FROM record";

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<RecordRow> {
    Ok(RecordRow {
        seq: row.get::<_, Bits>(0)?.0,
        record: row.get(1)?,
        sync: row.get(2)?,
        key: row.get(3)?,
        outcome: row.get(4)?,
        attempts: row.get(5)?,
    })
}

pub(super) fn insert_record(conn: &Connection, row: &RecordRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO record (seq, record, sync, key, outcome, attempts)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    conn.prepare_cached(sql)?.execute(params![
        Bits(row.seq),
        row.record,
        row.sync,
        row.key,
        row.outcome,
        row.attempts
    ])?;
    Ok(())
}
