//! Deleting what nobody wants any more (R3, R4).

use std::time::Duration;

use crate::failpoint;
use crate::journal::{Durability, Op, RemovalRow};
use crate::namespace::{Inode, Tree};
use crate::store::{ErrorKind, HeadOptions, Outcome};
use crate::types::{Ino, Key, TargetId};

use super::error::{StepError, StepResult};
use super::queue::{Next, Work};
use super::{NO_ATTEMPT, Uploader};

/// What becomes of a removal that is owed.
pub(super) enum Removal {
    /// Nothing is owed any more.
    Settled,
    /// A reader still needs the version.
    Needed,
    /// This inode still needs the version, or is about to replace it.
    NeededBy(Ino),
    /// This version may go.
    Free(RemovalRow),
    /// The row means a version that an inode wants at this very key.
    Obsolete,
}

/// Looks at who still wants what.
pub(super) fn judge(tree: &Tree, target: TargetId, key: &Key) -> Removal {
    let Some(row) = tree.removal(target, key) else { return Removal::Settled };
    for ino in tree.at_remote(target, key) {
        let Some(inode) = tree.get(*ino) else { continue };
        let same = inode.row.remote.as_ref().is_some_and(|remote| remote.etag == row.etag);
        if inode.row.linked {
            if tree.key(*ino).as_ref() == Some(key) {
                // Whatever version the row means: the inode's own is there now, or will be again.
                return Removal::Obsolete;
            }
            if same {
                return Removal::NeededBy(*ino);
            }
        }
    }
    if let Some(copy) = tree.copies_of(target, key).next() {
        let waits = tree.get(copy).is_some_and(|inode| inode.row.linked && inode.partial.is_none());
        return if waits { Removal::NeededBy(copy) } else { Removal::Needed };
    }
    // C7: whose version it was, or still is, fetches ranges of it.
    let mut users = tree.at_remote(target, key).iter().chain(std::iter::once(&row.ino));
    if users.any(|ino| tree.get(*ino).is_some_and(Inode::needs_remote)) {
        return Removal::Needed;
    }
    // A program has made the name anew: its version replaces this one when it is closed. Until
    // then the old one is the only good one (P2).
    let replacing = tree.wanting(target, key).filter(|ino| {
        tree.get(*ino).is_some_and(|inode| {
            inode.row.remote.as_ref().is_none_or(|remote| remote.key != *key)
                && (inode.is_dirty()
                    || inode.copied.is_some()
                    || inode.row.remote.is_some()
                    || inode.row.marker_wanted
                    || inode.row.symlink.is_some()
                    || inode.row.kind.is_special())
        })
    });
    if let Some(ino) = replacing {
        return Removal::NeededBy(ino);
    }
    match markerless(tree, target, key) {
        Some(dir) => Removal::NeededBy(dir),
        None => Removal::Free(row.clone()),
    }
}

/// N1: the directory of a key, if it still waits for the marker that lets it stay.
fn markerless(tree: &Tree, target: TargetId, key: &Key) -> Option<Ino> {
    let (dir, _) = key.as_str().trim_end_matches('/').rsplit_once('/')?;
    let dir = tree.wanting(target, &Key(format!("{dir}/")))?;
    tree.get(dir).filter(|inode| inode.row.marker_wanted && inode.row.remote.is_none()).map(|_| dir)
}

impl Uploader {
    pub(super) async fn remove(&self, target: TargetId, key: Key) -> StepResult<Next> {
        let row = match self.inner.namespace.read(|tree| judge(tree, target, &key)) {
            Removal::Settled => return Ok(Next::Done),
            Removal::Needed => return Ok(Next::Blocked),
            Removal::NeededBy(ino) => return Ok(self.behind(ino)),
            Removal::Obsolete => return self.settled(target, &key, false).await,
            Removal::Free(row) => row,
        };
        if self.is_unsettled(target, &key) {
            return Ok(Next::Blocked);
        }
        let Some(mapping) = self.inner.namespace.read(|tree| tree.mapping(target).cloned()) else {
            return Ok(Next::Done);
        };
        let Some(_keys) = self.inner.locks.try_lock(target, &[&key]) else { return Ok(Next::Blocked) };
        let found = mapping.store.head(&key, HeadOptions::default()).await;
        mapping.observe(&found);
        match found {
            Ok(meta) if meta.etag == row.etag || self.is_ours(&meta) => {}
            Ok(meta) => {
                self.count(|counters| {
                    counters.removals_dropped += 1;
                    counters.conflicts += 1;
                });
                tracing::warn!(%key, meant = %row.etag, found = %meta.etag, "conflict: not deleted: another host's version stands there");
                return self.settled(target, &key, false).await;
            }
            Err(error) if error.kind == ErrorKind::NotFound => return self.settled(target, &key, true).await,
            Err(error) => return Err(StepError::Store(error)),
        }
        // J2: what justifies the request is on disk. One barrier serves all that wait together.
        self.inner.namespace.barrier().await?;
        if !matches!(self.inner.namespace.read(|tree| judge(tree, target, &key)), Removal::Free(_)) {
            // Looked at again, not blocked: others may have stopped at the key that is held here.
            return Ok(Next::After(Duration::ZERO));
        }
        failpoint::hit(failpoint::REMOVAL_BEFORE_DELETE);
        let deleted = mapping.store.delete(&key).await;
        mapping.observe(&deleted);
        match deleted {
            Ok(()) => {
                failpoint::hit(failpoint::REMOVAL_AFTER_DELETE);
                self.count(|counters| counters.removals += 1);
                self.settled(target, &key, true).await
            }
            Err(error) => {
                if error.outcome() == Outcome::Unknown {
                    self.suspect(target, &key, NO_ATTEMPT);
                }
                Err(StepError::Store(error))
            }
        }
    }

    fn is_unsettled(&self, target: TargetId, key: &Key) -> bool {
        let book = self.book();
        book.unsettled().any(|one| one.target == target && one.key == *key)
    }

    /// Waits for an inode's step; if it waits for one at all, that is in the queue.
    fn behind(&self, ino: Ino) -> Next {
        let pending = self.inner.namespace.read(|tree| tree.is_pending(ino));
        if pending {
            let now = self.now();
            self.queue().ensure(Work::Inode(ino), now + self.inner.options.delay);
        }
        Next::Behind(ino)
    }

    async fn settled(&self, target: TargetId, key: &Key, gone: bool) -> StepResult<Next> {
        let deleted_at = gone.then(|| self.now());
        let sync = self.inner.namespace.read(|tree| tree.mapping(target).and_then(|mapping| mapping.sync));
        let unsent = sync.filter(|_| gone).map(|sync| self.inner.outbox.gone(sync, key));
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            tree.settle_removal(target, key, deleted_at, ops);
            if gone {
                ops.push(Op::DeleteAttribute(target, key.clone()));
            }
            ops.extend(unsent.unwrap_or_default());
        });
        commit.durable().await?;
        Ok(Next::Done)
    }
}
