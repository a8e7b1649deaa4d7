//! Reading.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::codec::Bits;
use super::{AttributeRow, Counter, ExtentRow, Snapshot, inode_codec, row_codec};
use crate::types::{Ino, Key, TargetId};

/// Everything, as of one moment.
pub(super) fn load(conn: &mut Connection) -> rusqlite::Result<Snapshot> {
    let transaction = conn.transaction()?;
    let mut snapshot = Snapshot {
        targets: all(&transaction, row_codec::SELECT_TARGET, row_codec::target)?,
        inodes: all(&transaction, inode_codec::SELECT, inode_codec::decode)?,
        partials: all(&transaction, row_codec::SELECT_PARTIAL, row_codec::partial)?,
        copies: all(&transaction, row_codec::SELECT_COPY, row_codec::copy)?,
        attempts: all(&transaction, row_codec::SELECT_ATTEMPT, row_codec::attempt)?,
        parts: all(&transaction, row_codec::SELECT_PART, row_codec::part)?,
        removals: all(&transaction, row_codec::SELECT_REMOVAL, row_codec::removal)?,
        sources: all(&transaction, row_codec::SELECT_SOURCE, row_codec::source)?,
        announcements: all(&transaction, row_codec::SELECT_ANNOUNCEMENT, row_codec::announcement)?,
        records: all(&transaction, row_codec::SELECT_RECORD, row_codec::record)?,
    };
    transaction.finish()?;
    // Here, not in SQL: it would sort the numbers above 2^63 as negative ones.
    snapshot.targets.sort_unstable_by_key(|row| row.id);
    snapshot.inodes.sort_unstable_by_key(|row| row.ino);
    snapshot.partials.sort_unstable_by_key(|row| row.ino);
    snapshot.copies.sort_unstable_by_key(|row| row.ino);
    snapshot.attempts.sort_unstable_by_key(|row| row.attempt);
    snapshot.parts.sort_unstable_by_key(|row| (row.attempt, row.number));
    snapshot.sources.sort_unstable_by_key(|row| row.at);
    snapshot.announcements.sort_unstable_by_key(|row| row.seq);
    snapshot.records.sort_unstable_by_key(|row| row.seq);
    Ok(snapshot)
}

fn all<T>(conn: &Connection, sql: &str, decode: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Vec<T>> {
    conn.prepare(sql)?.query_map([], |row| decode(row))?.collect()
}

/// A named value.
pub(super) fn meta(conn: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// What is wrong with the database, if anything.
pub(super) fn quick_check(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let said: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((said != "ok").then_some(said))
}

/// What the next reservation of a counter begins with.
pub(super) fn next_number(conn: &Connection, counter: Counter) -> rusqlite::Result<u64> {
    let mut find = conn.prepare_cached("SELECT next FROM counter WHERE id = ?1")?;
    let next = find.query_row(params![counter], |row| row.get::<_, Bits>(0)).optional()?;
    Ok(next.map_or(counter.first(), |Bits(next)| next))
}

/// The extents of one file.
pub(super) fn extents(conn: &Connection, ino: Ino) -> rusqlite::Result<Vec<ExtentRow>> {
    conn.prepare_cached(row_codec::SELECT_EXTENT)?.query_map([ino], row_codec::extent)?.collect()
}

/// One attribute row.
pub(super) fn attribute(conn: &Connection, target: TargetId, key: &Key) -> rusqlite::Result<Option<AttributeRow>> {
    let sql = format!("{} WHERE target = ?1 AND key = ?2", row_codec::SELECT_ATTRIBUTE);
    conn.prepare_cached(&sql)?.query_row(params![target, key], row_codec::attribute).optional()
}

/// The attribute rows of `prefix` itself and of its direct children, by key. What lies deeper is
/// jumped over, not read: the cost follows the number of children, not of descendants.
pub(super) fn attributes_under(
    conn: &mut Connection,
    target: TargetId,
    prefix: &str,
) -> rusqlite::Result<Vec<AttributeRow>> {
    let transaction = conn.transaction()?;
    let sql = format!("{} WHERE target = ?1 AND key >= ?2 ORDER BY key", row_codec::SELECT_ATTRIBUTE);
    let mut found = Vec::new();
    let mut from = Some(prefix.to_owned());
    while let Some(start) = from.take() {
        let mut statement = transaction.prepare_cached(&sql)?;
        let mut rows = statement.query(params![target, start])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(1)?.as_str()?;
            let Some(rest) = key.strip_prefix(prefix) else { break };
            match rest.split_once('/') {
                Some((child, below)) if !below.is_empty() => {
                    // `0` is the character after `/`: the first key that is not below the child.
                    from = Some(format!("{prefix}{child}0"));
                    break;
                }
                _ => found.push(row_codec::attribute(row)?),
            }
        }
    }
    transaction.finish()?;
    Ok(found)
}
