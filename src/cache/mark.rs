//! Marks (C3) and tags (J5) of backing files.

use std::fs::File;
use std::io;

use crate::disk;
use crate::journal::Mark;
use crate::types::{FileKind, Ino};

/// Extended attribute that tells what a backing file is, should the journal be lost.
const TAG: &str = "user.ferryfs";

/// What a backing file tells of itself (J5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// `provider://bucket/prefix` of its mapping.
    pub mapping: String,
    /// The key that it was made for.
    pub key: String,
    /// Its inode.
    pub ino: Ino,
    /// Kind of its inode.
    pub kind: FileKind,
    /// Generation of its content.
    pub generation: u64,
}

pub(super) fn set_tag(file: &File, tag: &Tag) -> io::Result<()> {
    let text = serde_json::json!({
        "mapping": tag.mapping,
        "key": tag.key,
        "ino": tag.ino.0,
        "generation": tag.generation,
    });
    match disk::set_xattr(file, TAG, text.to_string().as_bytes()) {
        // The tag serves a lost journal only: a filesystem without user attributes still works.
        Err(error) if matches!(disk::errno(&error), Some(libc::EOPNOTSUPP | libc::ENOSPC | libc::E2BIG)) => Ok(()),
        other => other,
    }
}

/// How the file looks now. Asking for both times arms the kernel's fine-grained stamps: every write
/// that begins after this call moves them (PASSTHROUGH section 2).
///
/// # Errors
/// The disk's.
pub fn mark(file: &File) -> io::Result<Mark> {
    let stat = disk::fstat(file)?;
    Ok(Mark { backing_ino: stat.ino, size: stat.size, mtime: stat.mtime, ctime: stat.ctime, synced: false })
}

/// Nothing was written between two marks.
pub fn same_mark(a: &Mark, b: &Mark) -> bool {
    a.backing_ino == b.backing_ino && a.size == b.size && a.mtime == b.mtime && a.ctime == b.ctime
}
