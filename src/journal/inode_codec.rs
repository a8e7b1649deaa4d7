//! The `inode` table: by far the widest row, hence a file of its own.

use rusqlite::{Connection, Row, params};

use super::codec::Bits;
use super::{InodeRow, Mark, Remote};
use crate::types::{Attrs, ETag, Key};

/// All inodes by number. The order of columns is that of [`decode`].
pub(super) const SELECT: &str = "
    SELECT ino, target, kind, parent, name, linked, mode, uid, gid, mtime, attrs_known, ctime, attr_generation,
        remote_attr_generation, size, symlink, content, generation, remote_generation, backing, mark_ino, mark_size,
        mark_mtime, mark_ctime, mark_synced, hold, remote_key, remote_etag, remote_size, remote_crc64,
        remote_version_id, remote_last_modified, recheck_at, marker_wanted, xattrs, segment, told
    FROM inode";

const INSERT: &str = "
    INSERT OR REPLACE INTO inode (ino, target, kind, parent, name, linked, mode, uid, gid, mtime, attrs_known, ctime,
        attr_generation, remote_attr_generation, size, symlink, content, generation, remote_generation, backing,
        mark_ino, mark_size, mark_mtime, mark_ctime, mark_synced, hold, remote_key, remote_etag, remote_size,
        remote_crc64, remote_version_id, remote_last_modified, recheck_at, marker_wanted, xattrs, segment, told)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
        ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37)";

/// Writes the whole row.
pub(super) fn insert(conn: &Connection, row: &InodeRow) -> rusqlite::Result<()> {
    let (mark, remote) = (row.mark.as_ref(), row.remote.as_ref());
    conn.prepare_cached(INSERT)?.execute(params![
        row.ino,
        row.target,
        row.kind,
        row.parent,
        row.name,
        row.linked,
        row.attrs.mode,
        row.attrs.uid,
        row.attrs.gid,
        row.attrs.mtime,
        row.attrs_known,
        row.ctime,
        Bits(row.attr_generation),
        Bits(row.remote_attr_generation),
        Bits(row.size),
        row.symlink,
        row.content,
        Bits(row.generation),
        Bits(row.remote_generation),
        row.backing,
        mark.map(|mark| Bits(mark.backing_ino)),
        mark.map(|mark| Bits(mark.size)),
        mark.map(|mark| mark.mtime),
        mark.map(|mark| mark.ctime),
        mark.map(|mark| mark.synced),
        row.hold,
        remote.map(|remote| &remote.key),
        remote.map(|remote| &remote.etag),
        remote.map(|remote| Bits(remote.size)),
        remote.and_then(|remote| remote.crc64),
        remote.and_then(|remote| remote.version_id.as_deref()),
        remote.and_then(|remote| remote.last_modified),
        row.recheck_at,
        row.marker_wanted,
        row.xattrs,
        row.segment,
        row.told,
    ])?;
    Ok(())
}

/// Reads a row of [`SELECT`].
pub(super) fn decode(row: &Row<'_>) -> rusqlite::Result<InodeRow> {
    Ok(InodeRow {
        ino: row.get(0)?,
        target: row.get(1)?,
        kind: row.get(2)?,
        parent: row.get(3)?,
        name: row.get(4)?,
        linked: row.get(5)?,
        attrs: Attrs { mode: row.get(6)?, uid: row.get(7)?, gid: row.get(8)?, mtime: row.get(9)? },
        attrs_known: row.get(10)?,
        ctime: row.get(11)?,
        attr_generation: row.get::<_, Bits>(12)?.0,
        remote_attr_generation: row.get::<_, Bits>(13)?.0,
        size: row.get::<_, Bits>(14)?.0,
        symlink: row.get(15)?,
        content: row.get(16)?,
        generation: row.get::<_, Bits>(17)?.0,
        remote_generation: row.get::<_, Bits>(18)?.0,
        backing: row.get(19)?,
        mark: mark(row)?,
        hold: row.get(25)?,
        remote: remote(row)?,
        recheck_at: row.get(32)?,
        marker_wanted: row.get(33)?,
        xattrs: row.get(34)?,
        segment: row.get(35)?,
        told: row.get(36)?,
    })
}

fn mark(row: &Row<'_>) -> rusqlite::Result<Option<Mark>> {
    let Some(Bits(backing_ino)) = row.get::<_, Option<Bits>>(20)? else { return Ok(None) };
    Ok(Some(Mark {
        backing_ino,
        size: row.get::<_, Bits>(21)?.0,
        mtime: row.get(22)?,
        ctime: row.get(23)?,
        synced: row.get(24)?,
    }))
}

fn remote(row: &Row<'_>) -> rusqlite::Result<Option<Remote>> {
    let Some(key) = row.get::<_, Option<Key>>(26)? else { return Ok(None) };
    Ok(Some(Remote {
        key,
        etag: row.get::<_, ETag>(27)?,
        size: row.get::<_, Bits>(28)?.0,
        crc64: row.get(29)?,
        version_id: row.get(30)?,
        last_modified: row.get(31)?,
    }))
}
