//! What goes on behind the calls: content to the disk, space, what the bucket made obsolete, the
//! probe of offline mappings.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cache::{mark, same_mark};
use crate::journal::{Content, Durability, Hold};
use crate::namespace::Replaced;
use crate::task::Shutdown;
use crate::types::Ino;

use super::Vfs;
use super::reply::Invalidation;

/// P1: the sync of a closed file to the disk begins within 1 s.
const SYNC_WITHIN: Duration = Duration::from_millis(500);
/// How often the cache's use is looked at.
const SPACE_LOOK: Duration = Duration::from_secs(1);
/// How often an offline mapping is probed.
const PROBE: Duration = Duration::from_secs(2);
/// How long a probe may take: as long as connecting.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// Eviction begins above this share of the limit, in percent.
const EVICT_ABOVE: u64 = 90;

impl Vfs {
    /// Starts the workers.
    pub(super) fn start_workers(&self, replaced: UnboundedReceiver<Replaced>, syncs: UnboundedReceiver<Ino>) {
        let guardian = self.inner.guardian.clone();
        let shutdown = self.inner.shutdown.clone();
        guardian.spawn("replaced", self.clone().take_replaced(replaced, shutdown.clone()));
        guardian.spawn("sync", self.clone().sync_closed(syncs, shutdown.clone()));
        guardian.spawn("space", self.clone().keep_space(shutdown.clone()));
        guardian.spawn("fill", self.clone().fill_all());
        if let Some(interval) = self.inner.options.upload_open {
            guardian.spawn("upload-open", self.clone().upload_open(interval, shutdown.clone()));
        }
        guardian.spawn("probe", self.clone().probe_offline(shutdown));
    }

    /// The content of a closed file goes to the disk soon.
    pub(super) fn sync_soon(&self, ino: Ino) {
        // Nobody listens during shutdown only: the drain syncs the journal, and marks that were not
        // synced say so.
        let _gone = self.inner.syncs.send(ino);
    }

    async fn take_replaced(self, mut replaced: UnboundedReceiver<Replaced>, shutdown: Shutdown) -> super::Result<()> {
        loop {
            let one = tokio::select! {
                () = shutdown.triggered() => return Ok(()),
                one = replaced.recv() => one,
            };
            let Some(one) = one else { return Ok(()) };
            self.invalidate(Invalidation::Entry(one.parent, one.name));
            self.invalidate(Invalidation::Inode(one.ino));
            self.trash(one.trash);
        }
    }

    pub(super) fn invalidate(&self, invalidation: Invalidation) {
        // Before the mount and after it nobody listens, and the kernel has nothing to forget.
        let _gone = self.inner.invalidations.send(invalidation);
    }

    async fn sync_closed(self, mut syncs: UnboundedReceiver<Ino>, shutdown: Shutdown) -> super::Result<()> {
        loop {
            let first = tokio::select! {
                () = shutdown.triggered() => return Ok(()),
                first = syncs.recv() => first,
            };
            let Some(first) = first else { return Ok(()) };
            tokio::time::sleep(SYNC_WITHIN).await;
            let mut batch = HashSet::from([first]);
            while let Ok(more) = syncs.try_recv() {
                batch.insert(more);
            }
            for ino in batch {
                if let Err(error) = self.sync_one(ino).await {
                    tracing::error!(%ino, %error, "a closed file could not be synced to the disk");
                }
            }
        }
    }

    /// Syncs the content of a closed file, unless it is in the bucket by now.
    async fn sync_one(&self, ino: Ino) -> super::Result<()> {
        let closed = |vfs: &Vfs| {
            vfs.inner.namespace.read(|tree| {
                let row = &tree.get(ino)?.row;
                let waiting = matches!(row.content, Content::Closed | Content::Torn);
                row.mark.filter(|_| waiting).map(|mark| (mark, row.generation))
            })
        };
        let Some((marked, generation)) = closed(self) else { return Ok(()) };
        if marked.synced {
            // By an fsync before the close; that it was closed is not on the disk yet.
            return Ok(self.inner.namespace.barrier().await?);
        }
        let (_, file) = self.inner.backing_file(ino)?;
        let synced = match self.sync_backing(file, marked).await {
            Ok(synced) => synced,
            Err(error) => {
                self.hold_unsynced(ino, generation).await?;
                return Err(error);
            }
        };
        let (_, file) = self.inner.backing_file(ino)?;
        if !self.is_partial(ino) && !same_mark(&mark(&file)?, &marked) {
            return Ok(());
        }
        let ((), commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            if let Some(inode) = tree.get_mut(ino)
                && inode.row.generation == generation
                && inode.row.mark == Some(marked)
            {
                inode.row.mark = Some(synced);
                if inode.row.linked {
                    tree.persist(ino, ops);
                }
            }
        });
        Ok(commit.durable().await?)
    }

    /// The disk did not take the content of a closed file: what is read of it from now on may be anything.
    /// The kernel tells of that once.
    async fn hold_unsynced(&self, ino: Ino, generation: u64) -> super::Result<()> {
        let state = self.inner.locks.lock(ino).await;
        let (held, commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            let inode = tree.get_mut(ino).filter(|inode| inode.row.generation == generation)?;
            // The bucket has it: should it not be what the disk has, it is fetched again.
            inode.unverified |= inode.row.content == Content::Clean;
            if inode.row.content != Content::Closed {
                return None;
            }
            inode.row.content = Content::Torn;
            inode.row.hold = Some(Hold::DiskFailed);
            if inode.row.linked {
                tree.persist(ino, ops);
            }
            Some(tree.shown_path(ino))
        });
        self.inner.locks.release(ino, state);
        commit.durable().await?;
        if let Some(path) = held {
            tracing::error!(path, "held: the disk did not take its content");
            self.inner.uploader.changed(ino);
        }
        Ok(())
    }

    async fn keep_space(self, shutdown: Shutdown) -> super::Result<()> {
        loop {
            tokio::select! {
                () = shutdown.triggered() => return Ok(()),
                () = tokio::time::sleep(SPACE_LOOK) => {}
            }
            self.count_open();
            let usage = self.inner.cache.usage();
            let wanted = usage.used > usage.limit / 100 * EVICT_ABOVE || !self.inner.cache.shortage(0).is_none();
            if wanted && usage.evictable > 0 {
                self.evict(0).await?;
            }
        }
    }

    /// P7: an offline mapping is online again as soon as a probe succeeds.
    async fn probe_offline(self, shutdown: Shutdown) -> super::Result<()> {
        loop {
            tokio::select! {
                () = shutdown.triggered() => return Ok(()),
                () = tokio::time::sleep(PROBE) => {}
            }
            let offline = self.inner.namespace.read(|tree| {
                tree.mappings().iter().filter(|mapping| mapping.is_offline()).cloned().collect::<Vec<_>>()
            });
            let uploader = &self.inner.uploader;
            // Side by side: one that stays silent must not keep the others offline.
            join_all(offline.iter().map(|mapping| async move {
                // A silent one is asked anew: the network may have come back while it kept its silence.
                let Ok(answer) = tokio::time::timeout(PROBE_LIMIT, mapping.store.head_bucket()).await else { return };
                mapping.observe(&answer);
                if !mapping.is_offline() {
                    uploader.retry();
                }
            }))
            .await;
        }
    }
}
