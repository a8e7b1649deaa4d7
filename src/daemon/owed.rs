//! What a journal still owes, seen before its rows become a tree (J4). Pure.

use crate::journal::{Content, InodeRow, Snapshot};
use crate::types::{FileKind, Ino};

/// Whether the bucket is not yet as the row wants it.
pub(super) fn is_owed(row: &InodeRow, snapshot: &Snapshot) -> bool {
    if !row.linked {
        // Held aside (C5): only its mapping can take it back.
        return row.content == Content::Torn;
    }
    if !matches!(row.content, Content::Absent | Content::Clean) {
        return true;
    }
    match (&row.remote, row.kind) {
        (None, FileKind::Dir) => row.marker_wanted,
        (None, _) => true,
        (Some(remote), _) => {
            let moved = key(row, snapshot).is_some_and(|key| key != remote.key.as_str());
            moved || row.attr_generation != row.remote_attr_generation
        }
    }
}

/// The path of a row below the mount's root, of held content that is aside the one that it had; `None`
/// if rows that it takes are missing.
pub(super) fn path(row: &InodeRow, snapshot: &Snapshot) -> Option<String> {
    let (top, path) = place(row, snapshot)?;
    Some(if top.is_empty() { format!("/{path}") } else { format!("/{top}/{path}") })
}

/// The key that a row wants; `None` if rows that it takes are missing.
fn key(row: &InodeRow, snapshot: &Snapshot) -> Option<String> {
    let (_, path) = place(row, snapshot)?;
    let identity = &snapshot.targets.iter().find(|target| target.id == row.target)?.identity;
    let (_, place) = identity.split_once("://")?;
    let (_, prefix) = place.split_once('/')?;
    let slash = if row.kind == FileKind::Dir { "/" } else { "" };
    Some(format!("{prefix}{path}{slash}"))
}

/// The directory of its mapping, empty for one at the mount's root, and the path in it.
fn place<'a>(row: &'a InodeRow, snapshot: &'a Snapshot) -> Option<(&'a str, String)> {
    let by_number = |ino: Ino| {
        let at = snapshot.inodes.binary_search_by_key(&ino, |row| row.ino).ok()?;
        snapshot.inodes.get(at)
    };
    let mut top = "";
    let mut names = vec![row.name.as_str()];
    let mut above = by_number(row.parent)?;
    // The top of a mapping is the mount's root, or lies in it and belongs to another target.
    while above.ino != Ino::ROOT {
        let over = by_number(above.parent)?;
        if over.ino == Ino::ROOT && over.target != above.target {
            top = above.name.as_str();
            break;
        }
        names.push(above.name.as_str());
        above = over;
    }
    names.reverse();
    Some((top, names.join("/")))
}
