//! How much room a filesystem has.

use std::fs::File;
use std::io;
use std::path::Path;

use super::error::at_errno;

/// What statvfs(3) tells of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceStat {
    /// Bytes a block; the unit of the next three.
    pub block_size: u64,
    /// All blocks.
    pub blocks: u64,
    /// Blocks free, with the reserve of root.
    pub free: u64,
    /// Blocks free for others than root.
    pub available: u64,
    /// All inodes; 0 where the filesystem makes them as needed.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
}

/// TMPFS_MAGIC and RAMFS_MAGIC, statfs(2).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether a file lies in memory only. Nothing of it is ever written back, so a page that a mapping
/// has dirtied stays writable, and later stores move no time, whatever is synced.
///
/// # Errors
/// As fstatfs(2).
pub fn is_in_memory(file: &File) -> io::Result<bool> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(IN_MEMORY.contains(&kind))
}

/// Room on the filesystem of `path`.
///
/// # Errors
/// As statvfs(3).
pub fn statvfs(path: &Path) -> io::Result<SpaceStat> {
    let stat = rustix::fs::statvfs(path).map_err(at_errno("ask for the free space of", path))?;
    Ok(SpaceStat {
        block_size: stat.f_frsize,
        blocks: stat.f_blocks,
        free: stat.f_bfree,
        available: stat.f_bavail,
        files: stat.f_files,
        files_free: stat.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_plausible() {
        let dir = tempfile::tempdir().unwrap();
        let space = statvfs(dir.path()).unwrap();
        assert!(space.block_size >= 512 && space.blocks > 0);
        assert!(space.available <= space.free && space.free <= space.blocks);
        assert!(statvfs(&dir.path().join("missing")).is_err());
    }
}
