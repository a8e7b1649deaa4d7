//! Room in the cache: evict what the bucket has, hold back what it has not (P7).

use std::collections::HashSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache;
use crate::disk;
use crate::journal::{Content, Durability};
use crate::task::interruptible;
use crate::types::{BackingNo, Ino};

use super::Vfs;
use super::error::{Error, Result};

/// How long a writer is held back while uploads make room, before it is told ENOSPC.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same where no upload can make any: what was removed a moment ago is still on its way out.
const HOPELESS: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// What became of those who wanted room.
#[derive(Debug, Default)]
pub(super) struct Room {
    waiting: AtomicU64,
    refused: AtomicU64,
}

/// One call that waits for room.
struct Waiting<'a>(&'a Room);

impl<'a> Waiting<'a> {
    fn begin(room: &'a Room) -> Waiting<'a> {
        room.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(room)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How much room there is.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    /// Files that are opened for writing now are served by requests, and their writes wait for room.
    pub tight: bool,
    /// Calls that wait for room now.
    pub waiting: u64,
    /// Calls that found none since the start.
    pub refused: u64,
    /// Bytes free on the disk for others than root.
    pub disk_available: u64,
    /// So few that what is written now is held when it is closed (C6).
    pub disk_full: bool,
    /// Inodes free on the disk; `None` where they are made as needed.
    pub disk_inodes: Option<u64>,
}

impl Vfs {
    /// How much room there is, and what became of those who wanted some.
    pub fn pressure(&self) -> Pressure {
        let disk = self.inner.cache.disk_space().ok();
        Pressure {
            tight: self.inner.cache.usage().is_tight(),
            waiting: self.inner.room.waiting.load(Ordering::Relaxed),
            refused: self.inner.room.refused.load(Ordering::Relaxed),
            disk_available: disk.map_or(0, |disk| disk.available.saturating_mul(disk.block_size)),
            disk_full: self.disk_is_full(),
            disk_inodes: disk.filter(|disk| disk.files > 0).map(|disk| disk.files_free),
        }
    }

    /// Returns when `bytes` more fit below the limit.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when uploads did not make room in time.
    pub(super) async fn make_room(&self, bytes: u64) -> Result<()> {
        self.wait_for_room(bytes, |vfs| {
            let usage = vfs.inner.cache.usage();
            usage.used.saturating_add(bytes) <= usage.limit && (bytes > 0 || usage.used < usage.limit)
        })
        .await
    }

    /// Returns when a range of a backing file may be written; what that adds counts then.
    ///
    /// # Errors
    /// As [`Vfs::make_room`].
    pub(super) async fn make_room_to_grow(&self, backing: BackingNo, range: Range<u64>) -> Result<()> {
        match self.inner.cache.grow(backing, &range) {
            Ok(()) => Ok(()),
            Err(more) => self.wait_for_room(more, |vfs| vfs.inner.cache.grow(backing, &range).is_ok()).await,
        }
    }

    /// Waits as long as uploads may make room: at their speed writers go on (P7).
    async fn wait_for_room(&self, bytes: u64, fits: impl Fn(&Vfs) -> bool) -> Result<()> {
        if !self.inner.cache.shortage(bytes).is_none() {
            // The disk itself says when there is none.
            self.evict(bytes).await?;
        }
        if fits(self) {
            return Ok(());
        }
        let _waiting = Waiting::begin(&self.inner.room);
        let begun = self.monotonic();
        let mut hoped = begun;
        loop {
            // Before the look at what can go: what is uploaded in between is found by it.
            if self.may_gain_room() {
                hoped = self.monotonic();
            }
            self.evict(bytes).await?;
            if fits(self) {
                return Ok(());
            }
            let usage = self.inner.cache.usage();
            let past = |since, limit| self.monotonic().saturating_sub(since) >= limit;
            if bytes > usage.limit || past(begun, PATIENCE) || past(hoped, HOPELESS) {
                self.inner.room.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(used = usage.used, limit = usage.limit, wanted = bytes, "the cache is full");
                return Err(Error::NoSpace);
            }
            self.inner.uploader.hurry();
            interruptible(tokio::time::sleep(LOOK)).await?;
        }
    }

    /// Something is closed, or about to be, that the bucket can take: it may be let go then.
    fn may_gain_room(&self) -> bool {
        self.inner.namespace.read(|tree| {
            tree.inodes().any(|inode| {
                let row = &inode.row;
                let leaving = match row.content {
                    Content::Closed => true,
                    Content::Open | Content::Flushed => inode.writers == 0,
                    Content::Clean => inode.attempting,
                    Content::Absent | Content::Torn => false,
                };
                leaving && row.linked && tree.mapping_of(inode.ino()).is_some_and(|mapping| !mapping.is_offline())
            })
        })
    }

    /// Files that the kernel writes to grow unseen: what they are by now is counted.
    pub(super) fn count_open(&self) {
        for ino in self.inner.live.inodes() {
            let Some(file) = self.inner.live.get(ino) else { continue };
            let backing = self.with_inode(ino, |inode| inode.row.backing.filter(|_| inode.partial.is_none()));
            let (Ok(Some(backing)), Ok(stat)) = (backing, disk::fstat(&file)) else { continue };
            // Its session may have ended meanwhile, and with it what it is.
            if self.inner.live.get(ino).is_some_and(|now| Arc::ptr_eq(&now, &file)) {
                // Blocks of 512 bytes: holes take none.
                self.inner.cache.grown(backing, stat.size.min(stat.blocks.saturating_mul(512)));
            }
        }
    }

    /// Lets clean content go, least recently used first, so that `wanted` more bytes fit.
    pub(super) async fn evict(&self, wanted: u64) -> Result<usize> {
        let victims = self.inner.cache.victims(wanted).into_iter().collect();
        Ok(self.let_go(&victims).await?.len())
    }

    /// Lets those of these backing files go that are clean and that nobody uses; which they were.
    pub(super) async fn let_go(&self, victims: &HashSet<BackingNo>) -> Result<Vec<BackingNo>> {
        if victims.is_empty() {
            return Ok(Vec::new());
        }
        let candidates: Vec<(Ino, BackingNo)> = self.inner.namespace.read(|tree| {
            tree.inodes()
                .filter_map(|inode| inode.row.backing.map(|backing| (inode.ino(), backing)))
                .filter(|(_, backing)| victims.contains(backing))
                .collect()
        });
        let mut free = Vec::new();
        for (ino, backing) in candidates {
            // Who opens it right now relies on the content that it has found: left alone. Others
            // wait until it is gone.
            let Some(state) = self.inner.locks.try_lock(ino) else { continue };
            // C4: a mapping that outlived its handle may still be stored through.
            let quiet = match self.inner.cache.open_read(backing) {
                Ok(file) => self.inner.cache.is_quiescent(&file).is_ok_and(|quiet| quiet),
                // Lost: there is nothing to store to.
                Err(cache::Error::Io(error)) => error.kind() == ErrorKind::NotFound,
                Err(cache::Error::Journal(_)) => false,
            };
            if state.is_idle() && quiet {
                free.push((ino, backing, state));
            } else {
                self.inner.locks.release(ino, state);
            }
        }
        // J2: "clean + owed" and the letting go are on disk before the content goes.
        let (gone, commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            let mut gone = Vec::new();
            for (ino, backing, _) in &free {
                let (ino, backing) = (*ino, *backing);
                let Some(inode) = tree.get_mut(ino) else { continue };
                let evictable = inode.row.content == Content::Clean
                    && inode.row.backing == Some(backing)
                    && inode.handles == 0
                    && !inode.attempting
                    && inode.row.recheck_at.is_none()
                    && inode.row.remote.is_some();
                if evictable {
                    inode.row.content = Content::Absent;
                    inode.row.backing = None;
                    inode.row.mark = None;
                    tree.persist(ino, ops);
                    gone.push(backing);
                }
            }
            gone
        });
        let durable = commit.durable().await;
        if durable.is_ok() {
            for backing in &gone {
                self.inner.cache.discard(*backing);
            }
        }
        for (ino, _, state) in free {
            self.inner.locks.release(ino, state);
        }
        durable?;
        Ok(gone)
    }

    /// Lets all clean content go that nobody uses (`ferryfs cache prune`); how many files that were, and
    /// their bytes.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn drop_clean(&self) -> Result<(usize, u64)> {
        let before = self.inner.cache.usage();
        let files = self.evict(before.limit).await?;
        Ok((files, before.used.saturating_sub(self.inner.cache.usage().used)))
    }
}
