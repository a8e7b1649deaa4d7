//! What POSIX calls mean on this mount: handles, open and close, rename, remove, attributes.

mod error;
mod reply;

pub use error::{Error, Result};
pub use reply::{
    BackingRegistrar, Caller, DirEntry, Entry, Invalidation, OpenMode, Opened, SetAttr, SetTime, Stat, StatFs,
};

use std::ffi::OsStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::Ino;

/// The filesystem; cheap to clone.
#[derive(Clone)]
pub struct Vfs {
    inner: Arc<()>,
}

/// Every call but `forget` may wait (for the journal, the disk, the store) and must therefore not
/// run on a FUSE dispatch thread beyond its first poll.
#[expect(unused_variables, reason = "signatures first")]
impl Vfs {
    /// Passthrough: called once at INIT. `None`: the kernel or the cache's filesystem refuses it;
    /// `why` is shown by `status`.
    pub fn set_registrar(&self, registrar: Option<Arc<dyn BackingRegistrar>>, why: &str) {}

    /// Invalidations that the fuse room must send to the kernel from a thread of its own.
    /// Can be taken once.
    pub fn take_invalidations(&self) -> Option<tokio::sync::mpsc::UnboundedReceiver<Invalidation>> {
        unimplemented!()
    }

    /// Raises the lookup count of the returned inode by one.
    pub async fn lookup(&self, parent: Ino, name: &OsStr, caller: Caller) -> Result<Entry> {
        unimplemented!()
    }

    /// The kernel drops `count` lookups.
    pub fn forget(&self, ino: Ino, count: u64) {}

    /// stat(2).
    pub async fn getattr(&self, ino: Ino, fh: Option<u64>) -> Result<Stat> {
        unimplemented!()
    }

    /// chmod, chown, truncate, utimensat. A [`SetAttr`] with nothing set means: strip suid and sgid.
    pub async fn setattr(&self, ino: Ino, fh: Option<u64>, change: SetAttr, caller: Caller) -> Result<Stat> {
        unimplemented!()
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        unimplemented!()
    }

    /// mknod(2); `mode` has the type bits.
    pub async fn mknod(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32, caller: Caller) -> Result<Entry> {
        unimplemented!()
    }

    /// mkdir(2).
    pub async fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32, caller: Caller) -> Result<Entry> {
        unimplemented!()
    }

    /// unlink(2).
    pub async fn unlink(&self, parent: Ino, name: &OsStr, caller: Caller) -> Result<()> {
        unimplemented!()
    }

    /// rmdir(2).
    pub async fn rmdir(&self, parent: Ino, name: &OsStr, caller: Caller) -> Result<()> {
        unimplemented!()
    }

    /// symlink(2).
    pub async fn symlink(&self, parent: Ino, name: &OsStr, target: &OsStr, caller: Caller) -> Result<Entry> {
        unimplemented!()
    }

    /// renameat2(2); `flags` as the system call's.
    pub async fn rename(
        &self,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        flags: u32,
        caller: Caller,
    ) -> Result<()> {
        unimplemented!()
    }

    /// open(2); `flags` as the system call's (O_TRUNC included: FUSE_ATOMIC_O_TRUNC is negotiated).
    pub async fn open(&self, ino: Ino, flags: i32, caller: Caller) -> Result<Opened> {
        unimplemented!()
    }

    /// open(2) with O_CREAT of a name that the kernel does not know.
    pub async fn create(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        unimplemented!()
    }

    /// Server-mode read.
    pub async fn read(&self, ino: Ino, fh: u64, offset: u64, size: u32) -> Result<Bytes> {
        unimplemented!()
    }

    /// Server-mode write; `append`: O_APPEND is set on the handle.
    pub async fn write(&self, ino: Ino, fh: u64, offset: u64, data: Bytes, kill_suid: bool) -> Result<u32> {
        unimplemented!()
    }

    /// Each close(2) of a descriptor.
    pub async fn flush(&self, ino: Ino, fh: u64, pid: u32) -> Result<()> {
        unimplemented!()
    }

    /// The last descriptor of a handle is gone. Nobody waits for it, but the work is done when it returns.
    pub async fn release(&self, ino: Ino, fh: u64) {}

    /// fsync(2), fdatasync(2).
    pub async fn fsync(&self, ino: Ino, fh: u64, datasync: bool) -> Result<()> {
        unimplemented!()
    }

    /// A directory stream.
    pub async fn opendir(&self, ino: Ino, caller: Caller) -> Result<u64> {
        unimplemented!()
    }

    /// Entries after `offset` (0: from the start), at most `max`. With `plus` each entry but `.` and
    /// `..` carries its stat, and the caller must raise the lookup count of those it really hands
    /// to the kernel by [`Vfs::remember`].
    pub async fn readdir(&self, ino: Ino, fh: u64, offset: u64, max: usize, plus: bool) -> Result<Vec<DirEntry>> {
        unimplemented!()
    }

    /// Raises the lookup count of an entry that readdirplus handed to the kernel.
    pub fn remember(&self, ino: Ino) {}

    /// End of a directory stream.
    pub fn releasedir(&self, fh: u64) {}

    /// fsync(2) of a directory.
    pub async fn fsyncdir(&self, ino: Ino, datasync: bool) -> Result<()> {
        unimplemented!()
    }

    /// statvfs(3).
    pub async fn statfs(&self) -> Result<StatFs> {
        unimplemented!()
    }

    /// fallocate(2).
    pub async fn fallocate(&self, ino: Ino, fh: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        unimplemented!()
    }

    /// lseek(2) with SEEK_HOLE or SEEK_DATA.
    pub async fn lseek(&self, ino: Ino, fh: u64, offset: i64, whence: i32) -> Result<i64> {
        unimplemented!()
    }

    /// getxattr(2).
    pub async fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Bytes> {
        unimplemented!()
    }

    /// listxattr(2): names, each ended by NUL.
    pub async fn listxattr(&self, ino: Ino) -> Result<Bytes> {
        unimplemented!()
    }

    /// setxattr(2).
    pub async fn setxattr(&self, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        unimplemented!()
    }

    /// removexattr(2).
    pub async fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        unimplemented!()
    }
}
