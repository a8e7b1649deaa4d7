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
mod calls;
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
pub use space::Pressure;
pub use verify::{Rotten, Verified};

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cache::{self, Cache, Found};
use crate::download::Downloader;
use crate::journal::Content;
use crate::namespace::{Inode, Mapping, Namespace, Replaced};
use crate::task::{Guardian, Shutdown};
use crate::types::{Ino, TimeNs};
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
    room: space::Room,
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
            room: space::Room::default(),
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
