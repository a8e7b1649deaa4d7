//! Room in the cache: evict what the bucket has, hold back what it has not (P7).

use std::collections::HashSet;
use std::io::ErrorKind;
use std::time::Duration;

use crate::cache;
use crate::journal::{Content, Durability};
use crate::task::interruptible;
use crate::types::{BackingNo, Ino};

use super::Vfs;
use super::error::{Error, Result};

/// How long a writer is held back while uploads make room, before it is told ENOSPC.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

impl Vfs {
    /// Returns when `bytes` more fit below the limit.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when uploads did not make room in time.
    pub(super) async fn make_room(&self, bytes: u64) -> Result<()> {
        let fits = |vfs: &Vfs| {
            let usage = vfs.inner.cache.usage();
            usage.used.saturating_add(bytes) <= usage.limit && (bytes > 0 || usage.used < usage.limit)
        };
        if fits(self) {
            return Ok(());
        }
        self.evict(bytes).await?;
        let deadline = self.inner.namespace.clock().monotonic() + PATIENCE;
        while !fits(self) {
            if bytes > self.inner.cache.usage().limit || self.inner.namespace.clock().monotonic() >= deadline {
                let usage = self.inner.cache.usage();
                tracing::warn!(used = usage.used, limit = usage.limit, wanted = bytes, "the cache is full");
                return Err(Error::NoSpace);
            }
            self.inner.uploader.hurry();
            interruptible(tokio::time::sleep(LOOK)).await?;
            self.evict(bytes).await?;
        }
        Ok(())
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
