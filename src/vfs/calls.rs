//! The kernel's calls.

use std::ffi::OsStr;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::types::{DeviceNo, FileKind, Ino};

use super::error::{Error, Result};
use super::reply::{self, BackingRegistrar, Caller, DirEntry, Entry, Invalidation, Opened, SetAttr, Stat, StatFs};
use super::{Vfs, names};

impl Vfs {
    /// J3: a journal that has failed takes no change, so none is made: what is here stays readable.
    pub(super) fn may_change(&self) -> Result<()> {
        match self.inner.namespace.journal().failure() {
            None => Ok(()),
            Some(reason) => Err(crate::journal::Error::Latched(reason).into()),
        }
    }
}

/// Every call but `forget` may wait (for the journal, the disk, the store) and must therefore not
/// run on a FUSE dispatch thread beyond its first poll.
impl Vfs {
    /// Passthrough: called once at INIT. `None`: the kernel or the cache's filesystem refuses it;
    /// `why` is shown by `status`.
    pub fn set_registrar(&self, registrar: Option<Arc<dyn BackingRegistrar>>, why: &str) {
        *self.inner.passthrough.lock().unwrap_or_else(PoisonError::into_inner) = (registrar, why.to_owned());
    }

    /// Invalidations that the fuse room must send to the kernel from a thread of its own.
    /// Can be taken once.
    pub fn take_invalidations(&self) -> Option<UnboundedReceiver<Invalidation>> {
        self.inner.invalidated.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Raises the lookup count of the returned inode by one.
    pub async fn lookup(&self, parent: Ino, name: &OsStr, caller: Caller) -> Result<Entry> {
        let _ = caller;
        self.do_lookup(parent, name).await
    }

    /// The kernel drops `count` lookups.
    pub fn forget(&self, ino: Ino, count: u64) {
        let unlinked = self.inner.namespace.touch(|tree| {
            tree.get_mut(ino).is_some_and(|inode| {
                inode.lookups = inode.lookups.saturating_sub(count);
                inode.lookups == 0 && !inode.row.linked
            })
        });
        if unlinked {
            self.reap(ino);
        }
    }

    /// stat(2).
    pub async fn getattr(&self, ino: Ino, fh: Option<u64>) -> Result<Stat> {
        let _ = fh;
        self.do_getattr(ino).await
    }

    /// chmod, chown, truncate, utimensat. A [`SetAttr`] with nothing set means: strip suid and sgid.
    pub async fn setattr(&self, ino: Ino, fh: Option<u64>, change: SetAttr, caller: Caller) -> Result<Stat> {
        self.may_change()?;
        let _ = fh;
        self.do_setattr(ino, change, caller).await
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        self.with_inode(ino, |inode| inode.row.symlink.clone().map(Bytes::from))?.ok_or(Error::Invalid)
    }

    /// mknod(2); `mode` has the type bits, less the umask; `device` counts for devices.
    pub async fn mknod(&self, parent: Ino, name: &OsStr, mode: u32, device: DeviceNo, caller: Caller) -> Result<Entry> {
        self.may_change()?;
        // No type means a regular file.
        let kind = if mode & libc::S_IFMT == 0 { Some(FileKind::File) } else { FileKind::from_mode(mode, device) };
        match kind.ok_or(Error::Invalid)? {
            FileKind::File => self.do_mknod(parent, name, mode, caller).await,
            kind if kind.is_special() => self.make_special(parent, name, kind, mode, caller).await,
            _ => Err(Error::NotPermitted),
        }
    }

    /// mkdir(2).
    pub async fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32, caller: Caller) -> Result<Entry> {
        self.may_change()?;
        self.do_mkdir(parent, name, mode & !umask, caller).await
    }

    /// unlink(2).
    pub async fn unlink(&self, parent: Ino, name: &OsStr, caller: Caller) -> Result<()> {
        self.may_change()?;
        let _ = caller;
        self.do_unlink(parent, name).await
    }

    /// rmdir(2).
    pub async fn rmdir(&self, parent: Ino, name: &OsStr, caller: Caller) -> Result<()> {
        self.may_change()?;
        let _ = caller;
        self.do_rmdir(parent, name).await
    }

    /// symlink(2).
    pub async fn symlink(&self, parent: Ino, name: &OsStr, target: &OsStr, caller: Caller) -> Result<Entry> {
        self.may_change()?;
        self.do_symlink(parent, name, target, caller).await
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
        self.may_change()?;
        let _ = caller;
        self.do_rename((parent, name), (new_parent, new_name), flags).await
    }

    /// open(2); `flags` as the system call's (O_TRUNC included: FUSE_ATOMIC_O_TRUNC is negotiated).
    pub async fn open(&self, ino: Ino, flags: i32, caller: Caller) -> Result<Opened> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            self.may_change()?;
        }
        self.do_open(ino, flags, caller).await
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
        self.may_change()?;
        let name = names::text(name)?;
        self.do_create((parent, name), mode & !umask, flags, caller).await
    }

    /// Server-mode read.
    pub async fn read(&self, ino: Ino, fh: u64, offset: u64, size: u32) -> Result<Bytes> {
        let _ = ino;
        self.do_read(fh, offset, size).await
    }

    /// Server-mode write; `append`: O_APPEND is set on the handle.
    pub async fn write(&self, ino: Ino, fh: u64, offset: u64, data: Bytes, kill_suid: bool) -> Result<u32> {
        self.may_change()?;
        self.do_write(ino, fh, offset, data, kill_suid).await
    }

    /// Each close(2) of a descriptor.
    pub async fn flush(&self, ino: Ino, fh: u64, pid: u32) -> Result<()> {
        self.do_flush(ino, fh, pid).await
    }

    /// The last descriptor of a handle is gone. Nobody waits for it, but the work is done when it returns.
    pub async fn release(&self, ino: Ino, fh: u64) {
        self.do_release(ino, fh).await;
    }

    /// The mount is gone from the kernel: what programs have closed and the kernel had not yet
    /// released is released (it drops such requests). What may write and was never closed keeps its
    /// row: it is held as torn by the next start (P2).
    pub async fn disconnected(&self) {
        for (ino, fh) in self.inner.handles.closed() {
            self.do_release(ino, fh).await;
        }
    }

    /// fsync(2), fdatasync(2).
    pub async fn fsync(&self, ino: Ino, fh: u64, datasync: bool) -> Result<()> {
        self.may_change()?;
        let _ = (fh, datasync);
        self.do_fsync(ino).await
    }

    /// A directory stream.
    pub async fn opendir(&self, ino: Ino, caller: Caller) -> Result<u64> {
        let _ = caller;
        self.do_opendir(ino).await
    }

    /// Entries after `offset` (0: from the start), at most `max`. With `plus` each entry but `.` and
    /// `..` carries its stat, and the caller must raise the lookup count of those it really hands
    /// to the kernel by [`Vfs::remember`].
    pub async fn readdir(&self, ino: Ino, fh: u64, offset: u64, max: usize, plus: bool) -> Result<Vec<DirEntry>> {
        self.do_readdir(ino, fh, offset, max, plus).await
    }

    /// Raises the lookup count of an entry that readdirplus handed to the kernel.
    pub fn remember(&self, ino: Ino) {
        self.inner.namespace.touch(|tree| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.lookups += 1;
            }
        });
    }

    /// End of a directory stream.
    pub fn releasedir(&self, fh: u64) {
        self.inner.streams.remove(fh);
    }

    /// fsync(2) of a directory.
    pub async fn fsyncdir(&self, ino: Ino, datasync: bool) -> Result<()> {
        self.may_change()?;
        let _ = datasync;
        self.do_fsyncdir(ino).await
    }

    /// statvfs(3).
    pub async fn statfs(&self) -> Result<StatFs> {
        Ok(reply::UNLIMITED)
    }

    /// fallocate(2).
    pub async fn fallocate(&self, ino: Ino, fh: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        self.may_change()?;
        self.do_fallocate(ino, fh, offset, length, mode).await
    }

    /// lseek(2) with SEEK_HOLE or SEEK_DATA.
    pub async fn lseek(&self, ino: Ino, fh: u64, offset: i64, whence: i32) -> Result<i64> {
        self.do_lseek(ino, fh, offset, whence).await
    }

    /// getxattr(2).
    pub async fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Bytes> {
        self.do_getxattr(ino, name).await
    }

    /// listxattr(2): names, each ended by NUL.
    pub async fn listxattr(&self, ino: Ino) -> Result<Bytes> {
        self.do_listxattr(ino).await
    }

    /// setxattr(2); `flags` as the system call's.
    pub async fn setxattr(&self, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        self.may_change()?;
        self.do_setxattr(ino, name, Some(value), flags).await
    }

    /// removexattr(2).
    pub async fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        self.may_change()?;
        self.do_setxattr(ino, name, None, libc::XATTR_REPLACE).await
    }
}
