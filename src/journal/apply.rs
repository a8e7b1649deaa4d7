//! What each change does to the tables, inside the writer's transaction.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::Bits;
use super::{Counter, Op, TargetKind, inode_codec, queries, row_codec};
use crate::types::TargetId;

/// Statements that the writer uses; its cache must hold them all.
pub(super) const STATEMENTS: usize = 40;

/// Applies one change.
pub(super) fn apply(conn: &Connection, op: &Op) -> rusqlite::Result<()> {
    let delete = |sql: &str, params: &[&dyn rusqlite::ToSql]| conn.prepare_cached(sql)?.execute(params).map(drop);
    match op {
        Op::PutInode(row) => inode_codec::insert(conn, row),
        Op::DeleteInode(ino) => {
            row_codec::delete_partial(conn, *ino)?;
            row_codec::delete_copy(conn, *ino)?;
            delete("DELETE FROM inode WHERE ino = ?1", params![ino])
        }
        Op::PutPartial(row) => row_codec::insert_partial(conn, row),
        Op::DeletePartial(ino) => row_codec::delete_partial(conn, *ino),
        Op::PutCopy(row) => row_codec::insert_copy(conn, row),
        Op::DeleteCopy(ino) => row_codec::delete_copy(conn, *ino),
        Op::PutExtent(row) => row_codec::insert_extent(conn, row),
        Op::PutAttribute(row) => row_codec::insert_attribute(conn, row),
        Op::DeleteAttribute(target, key) => {
            delete("DELETE FROM attribute WHERE target = ?1 AND key = ?2", params![target, key])
        }
        Op::ForgetAttributes => delete("DELETE FROM attribute", params![]),
        Op::PutAttempt(row) => row_codec::insert_attempt(conn, row),
        Op::DeleteAttempt(attempt) => {
            delete("DELETE FROM part WHERE attempt = ?1", params![Bits(*attempt)])?;
            delete("DELETE FROM attempt WHERE attempt = ?1", params![Bits(*attempt)])
        }
        Op::PutPart(row) => row_codec::insert_part(conn, row),
        Op::PutRemoval(row) => row_codec::insert_removal(conn, row),
        Op::DeleteRemoval(target, key) => {
            delete("DELETE FROM removal WHERE target = ?1 AND key = ?2", params![target, key])
        }
        Op::PutSource(row) => row_codec::insert_source(conn, row),
        Op::DeleteSource(ino, prefix) => {
            delete("DELETE FROM source WHERE ino = ?1 AND prefix = ?2", params![ino, prefix])
        }
        Op::PutAnnouncement(row) => row_codec::insert_announcement(conn, row),
        Op::DeleteAnnouncement(seq) => delete("DELETE FROM announcement WHERE seq = ?1", params![Bits(*seq)]),
        Op::PutRecord(row) => row_codec::insert_record(conn, row),
        Op::DeleteRecord(seq) => delete("DELETE FROM record WHERE seq = ?1", params![Bits(*seq)]),
        Op::SetMeta(name, value) => {
            let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)";
            conn.prepare_cached(sql)?.execute(params![name, value]).map(drop)
        }
    }
}

/// Changes a page, so that the commit has something to write and sync (see the table).
pub(super) fn raise_barrier(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE barrier SET count = count + 1")?.execute([]).map(drop)
}

/// The number of a target, made if it has none.
pub(super) fn target(conn: &Connection, kind: TargetKind, identity: &str) -> rusqlite::Result<TargetId> {
    let mut find = conn.prepare_cached("SELECT id FROM target WHERE kind = ?1 AND identity = ?2")?;
    if let Some(id) = find.query_row(params![kind, identity], |row| row.get(0)).optional()? {
        return Ok(id);
    }
    let sql = "INSERT INTO target (kind, identity) VALUES (?1, ?2) RETURNING id";
    conn.prepare_cached(sql)?.query_row(params![kind, identity], |row| row.get(0))
}

/// The next `count` numbers of a counter; `None` if there are not so many left.
pub(super) fn reserve(conn: &Connection, counter: Counter, count: u64) -> rusqlite::Result<Option<Range<u64>>> {
    let start = queries::next_number(conn, counter)?;
    let Some(end) = start.checked_add(count) else { return Ok(None) };
    let sql = "INSERT OR REPLACE INTO counter (id, next) VALUES (?1, ?2)";
    conn.prepare_cached(sql)?.execute(params![counter, Bits(end)])?;
    Ok(Some(start..end))
}

impl Counter {
    /// The first number ever.
    pub(super) fn first(self) -> u64 {
        match self {
            // 1 is the root.
            Counter::Ino => 2,
            Counter::Backing | Counter::Attempt | Counter::Seq => 1,
        }
    }
}
