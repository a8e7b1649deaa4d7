//! What POSIX calls mean on this mount: handles, open and close, rename, remove, attributes.
//!
//! # Promise
//! The promises, each with the test that proves it:
#![doc = include_str!("SEMANTICS.md")]
//!
//! # Invariants
//! 1. (C1) While any handle of an inode is open it has one backing file, one mode and one backing id.
//! 2. (C2) A row says `open` before anybody can write; close(2) returns after the provisional mark;
//!    the final mark needs the lease (C4).
//! 3. (C4) No write descriptor is kept beyond the call that needs it, save those of open handles in
//!    server mode; backing ids come from read-only descriptors.
//! 4. (J2) No backing file is cut or unlinked before the rows that allow it are on disk.
//! 5. Nothing waits for an invalidation: they go through a channel to a thread of the fuse room.
//! 6. A caller that is being killed ends waits for the store and for those who wait for it, by an error as
//!    the store's own, and nothing else: what was begun here is done to its end.

mod attrs;
mod chase;
mod close;
mod content;
mod copied;
mod copy;
mod dirs;
mod error;
mod exchange;
mod fetches;
mod filler;
mod handles;
mod held;
mod io;
mod locks;
mod marks;
mod names;
mod open;
mod partial;
mod push;
mod rebuild;
mod recover;
mod refresh;
mod reply;
mod session;
mod space;
mod verify;
mod worker;
mod xattrs;

pub use error::{Error, Result};
pub use held::{HeldError, HeldFile, InBucket};
pub use rebuild::{Fate, Finding};
pub use recover::Recovered;
pub use reply::{
    BackingRegistrar, Caller, DirEntry, Entry, Invalidation, OpenMode, Opened, Place, SetAttr, SetTime, Stat, StatFs,
};
pub use verify::{Rotten, Verified};

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cache::{self, Cache, Found};
use crate::download::Downloader;
use crate::journal::Content;
use crate::namespace::{Inode, Mapping, Namespace, Replaced};
use crate::task::{Guardian, Shutdown};
use crate::types::{DeviceNo, FileKind, Ino, TimeNs};
use crate::upload::Uploader;

/// When close(2) returns (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosePolicy {
    /// When the file survives the daemon.
    Process,
    /// When it survives a power cut.
    Disk,
    /// When the bucket has it, verified.
    Remote,
}

/// When fsync(2) returns (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// When content and name survive a power cut.
    Disk,
    /// When the bucket has them as well.
    Remote,
}

/// What becomes of a file whose writer was killed by a signal (C6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KilledWriter {
    /// Held as torn.
    Hold,
    /// Uploaded as any other.
    Upload,
}

/// How the room behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// When close(2) returns.
    pub close: ClosePolicy,
    /// When fsync(2) returns.
    pub fsync: FsyncPolicy,
    /// A file that stays open goes up as often as this, if it changed; `None`: when it is closed.
    pub upload_open: Option<Duration>,
    /// Files of killed writers.
    pub killed_writer: KilledWriter,
    /// Objects up to this size are fetched whole when they are opened for reading.
    pub whole_below: u64,
    /// Of this boot (C5).
    pub boot_id: String,
}

/// The filesystem; cheap to clone.
#[derive(Clone)]
pub struct Vfs {
    inner: Arc<Inner>,
}

/// The rooms below and what runs beside the calls.
pub struct Parts {
    /// Inodes.
    pub namespace: Namespace,
    /// What the bucket made obsolete.
    pub replaced: UnboundedReceiver<Replaced>,
    /// Backing files.
    pub cache: Cache,
    /// Local to bucket.
    pub uploader: Uploader,
    /// Bucket to local.
    pub downloader: Downloader,
    /// Owns the workers.
    pub guardian: Guardian,
    /// Ends the workers.
    pub shutdown: Shutdown,
}

struct Inner {
    namespace: Namespace,
    cache: Cache,
    uploader: Uploader,
    downloader: Downloader,
    options: Options,
    guardian: Guardian,
    shutdown: Shutdown,
    locks: locks::InodeLocks,
    /// Whose turn it is to bring a version of an open file to the bucket; taken before `locks`.
    turns: locks::InodeLocks,
    handles: handles::Handles,
    streams: handles::Streams,
    live: handles::Live,
    fetches: fetches::Fetches,
    /// Set once at INIT; with why not, if not.
    passthrough: Mutex<(Option<Arc<dyn BackingRegistrar>>, String)>,
    invalidations: UnboundedSender<Invalidation>,
    /// Taken once.
    invalidated: Mutex<Option<UnboundedReceiver<Invalidation>>>,
    syncs: UnboundedSender<Ino>,
    /// See [`Vfs::marks_taken_back`].
    marks_taken_back: AtomicU64,
}

impl Vfs {
    /// Settles what the last daemon left (C5). To be called before the uploader is opened, on a
    /// thread that may block.
    ///
    /// # Errors
    /// The journal or the disk failed.
    pub fn recover(namespace: &Namespace, cache: &Cache, boot_id: &str) -> Result<Recovered> {
        recover::recover(namespace, cache, boot_id)
    }

    /// Decides what becomes of the backing files of a lost journal (J5). Changes nothing.
    ///
    /// # Errors
    /// The store does not tell what it has, or a file cannot be read.
    pub async fn plan_rebuild(mappings: &[Arc<Mapping>], found: Vec<Found>, boot_id: &str) -> Result<Vec<Finding>> {
        rebuild::plan(mappings, found, boot_id).await
    }

    /// Writes the rows of a plan into the empty journal of `namespace`, on disk on return.
    ///
    /// # Errors
    /// The journal or the disk failed.
    pub fn rebuild(
        namespace: &Namespace,
        options: &cache::Options,
        findings: &mut [Finding],
        boot_id: &str,
    ) -> Result<()> {
        rebuild::apply(namespace, options, findings, boot_id)
    }

    /// Puts the rooms together and starts the workers; to be called within the runtime.
    pub fn start(parts: Parts, options: Options) -> Vfs {
        let (invalidations, invalidated) = unbounded_channel();
        let (syncs, to_sync) = unbounded_channel();
        let inner = Inner {
            namespace: parts.namespace,
            cache: parts.cache,
            uploader: parts.uploader,
            downloader: parts.downloader,
            options,
            guardian: parts.guardian,
            shutdown: parts.shutdown,
            locks: locks::InodeLocks::default(),
            turns: locks::InodeLocks::default(),
            handles: handles::Handles::default(),
            streams: handles::Streams::default(),
            live: handles::Live::default(),
            fetches: fetches::Fetches::default(),
            passthrough: Mutex::new((None, "not mounted yet".to_owned())),
            invalidations,
            invalidated: Mutex::new(Some(invalidated)),
            syncs,
            marks_taken_back: AtomicU64::new(0),
        };
        let vfs = Vfs { inner: Arc::new(inner) };
        vfs.start_workers(parts.replaced, to_sync);
        vfs
    }

    fn monotonic(&self) -> Duration {
        self.inner.namespace.clock().monotonic()
    }

    fn with_inode<T>(&self, ino: Ino, look: impl FnOnce(&Inode) -> T) -> Result<T> {
        self.inner.namespace.read(|tree| tree.get(ino).map(look).ok_or(Error::NotFound))
    }

    /// The time that a change gets which the kernel does not stamp.
    fn now(&self) -> TimeNs {
        self.inner.cache.now().unwrap_or_else(|error| {
            tracing::debug!(%error, "the disk tells no time; the system's clock does");
            self.inner.namespace.clock().now()
        })
    }

    fn registrar(&self) -> Option<Arc<dyn BackingRegistrar>> {
        self.inner.passthrough.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Whether files are served by the kernel from their backing files; and why not.
    pub fn passthrough(&self) -> (bool, String) {
        let state = self.inner.passthrough.lock().unwrap_or_else(PoisonError::into_inner);
        (state.0.is_some(), state.1.clone())
    }

    /// Open handles.
    pub fn open_handles(&self) -> usize {
        self.inner.handles.len()
    }

    /// Closes since the start that were none: the handle lived on elsewhere, or its writer had been killed.
    pub fn marks_taken_back(&self) -> u64 {
        self.inner.marks_taken_back.load(Ordering::Relaxed)
    }

    /// Files held as torn: path and reason.
    pub fn torn(&self) -> Vec<(String, crate::journal::Hold)> {
        self.inner.namespace.read(|tree| {
            tree.inodes()
                .filter(|inode| inode.row.content == Content::Torn)
                .filter_map(|inode| Some((tree.shown_held_path(inode.ino()), inode.row.hold?)))
                .collect()
        })
    }

    /// Forgets an inode that lost its name and its last user.
    fn reap(&self, ino: Ino) {
        let (trash, commit) =
            self.inner.namespace.update(crate::journal::Durability::Buffered, |tree, ops| tree.reap(ino, ops));
        commit.in_background();
        self.trash(trash);
    }

    fn serve_from_file(&self, ino: Ino, backing: crate::types::BackingNo) -> Result<()> {
        let (read, write) = (self.inner.cache.open_read(backing)?, self.inner.cache.open_write(backing)?);
        self.inner.handles.replace_sources(ino, &Arc::new(read), &Arc::new(write));
        Ok(())
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
        let _ = fh;
        self.do_setattr(ino, change, caller).await
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        self.with_inode(ino, |inode| inode.row.symlink.clone().map(Bytes::from))?.ok_or(Error::Invalid)
    }

    /// mknod(2); `mode` has the type bits, less the umask; `device` counts for devices.
    pub async fn mknod(&self, parent: Ino, name: &OsStr, mode: u32, device: DeviceNo, caller: Caller) -> Result<Entry> {
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
        self.do_mkdir(parent, name, mode & !umask, caller).await
    }

    /// unlink(2).
    pub async fn unlink(&self, parent: Ino, name: &OsStr, caller: Caller) -> Result<()> {
        let _ = caller;
        self.do_unlink(parent, name).await
    }

    /// rmdir(2).
    pub async fn rmdir(&self, parent: Ino, name: &OsStr, caller: Caller) -> Result<()> {
        let _ = caller;
        self.do_rmdir(parent, name).await
    }

    /// symlink(2).
    pub async fn symlink(&self, parent: Ino, name: &OsStr, target: &OsStr, caller: Caller) -> Result<Entry> {
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
        let _ = caller;
        self.do_rename((parent, name), (new_parent, new_name), flags).await
    }

    /// open(2); `flags` as the system call's (O_TRUNC included: FUSE_ATOMIC_O_TRUNC is negotiated).
    pub async fn open(&self, ino: Ino, flags: i32, caller: Caller) -> Result<Opened> {
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
        let _ = datasync;
        self.do_fsyncdir(ino).await
    }

    /// statvfs(3).
    pub async fn statfs(&self) -> Result<StatFs> {
        Ok(reply::UNLIMITED)
    }

    /// fallocate(2).
    pub async fn fallocate(&self, ino: Ino, fh: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
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
        self.do_setxattr(ino, name, Some(value), flags).await
    }

    /// removexattr(2).
    pub async fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        self.do_setxattr(ino, name, None, libc::XATTR_REPLACE).await
    }
}
