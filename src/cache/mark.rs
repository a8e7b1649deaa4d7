//! Marks of backing files (C3).

use std::fs::File;
use std::io;

use crate::disk;
use crate::journal::Mark;

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
