//! What a file looks like (C3).

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, StatxTimestamp, makedev, statx};

use super::error::at_errno;
use crate::types::TimeNs;

/// A file's attributes as statx(2) tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Device of the filesystem.
    pub dev: u64,
    /// Inode number on it.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Allocated, in units of 512 bytes whatever the filesystem's block size.
    pub blocks: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Names.
    pub nlink: u32,
    /// Last change of content.
    pub mtime: TimeNs,
    /// Last change of content or attributes; cannot be set.
    pub ctime: TimeNs,
    /// Last read, as far as the mount keeps it.
    pub atime: TimeNs,
}

/// BASIC_STATS holds MTIME and CTIME; both must be asked for, or the kernel neither reports them
/// nor makes the next write move them by less than its tick (PASSTHROUGH 2.1).
const MASK: StatxFlags = StatxFlags::BASIC_STATS;

/// Attributes of an open file.
///
/// # Errors
/// As statx(2).
pub fn fstat(file: &File) -> io::Result<FileStat> {
    Ok(FileStat::from(statx(file, "", AtFlags::EMPTY_PATH, MASK)?))
}

/// Attributes of what is at a path; a symbolic link is not followed.
///
/// # Errors
/// As statx(2).
pub fn lstat(path: &Path) -> io::Result<FileStat> {
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, MASK).map_err(at_errno("stat", path))?;
    Ok(FileStat::from(stat))
}

impl From<Statx> for FileStat {
    fn from(stat: Statx) -> Self {
        FileStat {
            dev: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            mode: u32::from(stat.stx_mode),
            nlink: stat.stx_nlink,
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            atime: time(stat.stx_atime),
        }
    }
}

fn time(stamp: StatxTimestamp) -> TimeNs {
    TimeNs::new(stamp.tv_sec, stamp.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn fstat_and_lstat_agree_with_std() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"twelve bytes").unwrap();
        let stat = fstat(&file).unwrap();
        let std = file.metadata().unwrap();
        assert_eq!((stat.dev, stat.ino, stat.size), (std.dev(), std.ino(), 12));
        assert_eq!((stat.mode, u64::from(stat.nlink), stat.blocks), (std.mode(), std.nlink(), std.blocks()));
        assert_eq!((stat.mtime.sec(), i64::from(stat.mtime.nsec())), (std.mtime(), std.mtime_nsec()));
        assert_eq!((stat.ctime.sec(), i64::from(stat.ctime.nsec())), (std.ctime(), std.ctime_nsec()));
        assert_eq!(lstat(&path).unwrap(), stat);
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert_ne!(lstat(&dir.path().join("link")).unwrap().ino, stat.ino);
        let missing = lstat(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_write_after_a_stat_is_seen_in_the_times() {
        // Multigrain time stamps; older kernels move them by ticks, and C3 waits for one there.
        if crate::disk::kernel_version().unwrap() < (6, 13) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join("file")).unwrap();
        let mut before = fstat(&file).unwrap();
        for _ in 0..1000 {
            file.write_all(b"x").unwrap();
            let after = fstat(&file).unwrap();
            assert!(after.mtime > before.mtime && after.ctime > before.ctime);
            before = after;
        }
    }
}
