//! What calls take and give, in POSIX terms; the fuse room translates.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::types::{FileKind, Ino, TimeNs};

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Filesystem user id.
    pub uid: u32,
    /// Filesystem group id.
    pub gid: u32,
    /// Thread id; 0 where the kernel has none.
    pub pid: u32,
}

/// stat(2).
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// Inode number.
    pub ino: Ino,
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, without the type.
    pub mode: u32,
    /// Links; 0 for an unlinked inode.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Access time.
    pub atime: TimeNs,
    /// Modification time.
    pub mtime: TimeNs,
    /// Change time.
    pub ctime: TimeNs,
    /// How long the kernel may believe this.
    pub ttl: Duration,
}

/// A directory entry with its inode.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The inode.
    pub stat: Stat,
    /// How long the kernel may believe that the name means this inode.
    pub ttl: Duration,
}

/// An entry of a directory stream.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Inode number.
    pub ino: Ino,
    /// Pass as `offset` to continue after this entry.
    pub next_offset: u64,
    /// Kind.
    pub kind: FileKind,
    /// Name.
    pub name: String,
    /// With readdirplus, but for `.` and `..`.
    pub entry: Option<Entry>,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present time.
    Now,
    /// This time.
    At(TimeNs),
}

/// Attributes to change.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncate or extend to this many bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

/// How the kernel serves a handle (PASSTHROUGH section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// From the backing file registered under this id.
    Passthrough(u32),
    /// By requests to us, without the kernel's page cache (FOPEN_DIRECT_IO).
    Direct,
    /// By requests to us, through the kernel's page cache; `keep`: FOPEN_KEEP_CACHE.
    Cached {
        /// Content has not changed since the last open.
        keep: bool,
    },
}

/// An open file.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Handle.
    pub fh: u64,
    /// How it is served.
    pub mode: OpenMode,
    /// No FLUSH is wanted at close (FOPEN_NOFLUSH): read-only handles.
    pub no_flush: bool,
}

/// Where a copy reads or writes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Inode.
    pub ino: Ino,
    /// Handle.
    pub fh: u64,
    /// First byte.
    pub offset: u64,
}

/// statvfs(3).
#[derive(Clone, Copy, Debug)]
pub struct StatFs {
    /// Bytes of a block.
    pub block_size: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free for unprivileged users.
    pub available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name, bytes.
    pub name_max: u32,
}

/// Something the kernel must forget.
#[derive(Clone, Debug)]
pub enum Invalidation {
    /// Attributes and pages of an inode.
    Inode(Ino),
    /// A name in a directory.
    Entry(Ino, String),
    /// Nothing: whoever listens hears that what was ordered before has been sent.
    Told(tokio::sync::mpsc::UnboundedSender<()>),
}

/// Registers backing files with the kernel (FUSE_DEV_IOC_BACKING_OPEN and _CLOSE).
pub trait BackingRegistrar: Send + Sync {
    /// Registers a file opened read-only; returns its id.
    ///
    /// # Errors
    /// The ioctl's: EPERM (this mount may not), ELOOP (this filesystem cannot).
    fn register(&self, file: BorrowedFd<'_>) -> io::Result<u32>;

    /// Gives an id back.
    fn unregister(&self, id: u32);
}

/// A bucket has no size: one pebibyte, all of it free, is what installers and backup programs
/// accept (USERS row 27).
pub(super) const UNLIMITED: StatFs = StatFs {
    block_size: 4096,
    blocks: 1 << 38,
    free: 1 << 38,
    available: 1 << 38,
    files: 1 << 40,
    files_free: 1 << 40,
    name_max: 255,
};
