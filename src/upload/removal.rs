//! Deleting what nobody wants any more (R3, R4).

use crate::failpoint;
use crate::journal::{Content, Durability, Op, RemovalRow};
use crate::namespace::Tree;
use crate::store::{ErrorKind, HeadOptions, Outcome};
use crate::types::{Key, TargetId};

use super::Uploader;
use super::error::{StepError, StepResult};
use super::queue::Next;

enum Removal {
    /// Nothing is owed any more.
    Settled,
    /// Somebody still needs the key, or is about to replace its version.
    Needed,
    /// This version may go.
    Free(RemovalRow),
    /// The row means a version that an inode wants at this very key.
    Obsolete,
}

fn judge(tree: &Tree, target: TargetId, key: &Key) -> Removal {
    let Some(row) = tree.removal(target, key) else { return Removal::Settled };
    for ino in tree.at_remote(target, key) {
        let Some(inode) = tree.get(*ino) else { continue };
        let same = inode.row.remote.as_ref().is_some_and(|remote| remote.etag == row.etag);
        if inode.row.linked {
            if tree.key(*ino).as_ref() == Some(key) && same {
                return Removal::Obsolete;
            }
            if same {
                return Removal::Needed;
            }
        } else if inode.handles > 0 && inode.row.content == Content::Absent {
            return Removal::Needed;
        }
    }
    // A program has made the name anew: its version replaces this one when it is closed. Until
    // then the old one is the only good one (P2).
    let replaced_soon = tree.wanting(target, key).and_then(|ino| tree.get(ino)).is_some_and(|inode| {
        inode.row.remote.as_ref().is_none_or(|remote| remote.key != *key)
            && (inode.is_dirty()
                || inode.row.remote.is_some()
                || inode.row.marker_wanted
                || inode.row.symlink.is_some())
    });
    if replaced_soon { Removal::Needed } else { Removal::Free(row.clone()) }
}

impl Uploader {
    pub(super) async fn remove(&self, target: TargetId, key: Key) -> StepResult<Next> {
        let row = match self.inner.namespace.read(|tree| judge(tree, target, &key)) {
            Removal::Settled => return Ok(Next::Done),
            Removal::Needed => return Ok(Next::Blocked),
            Removal::Obsolete => return self.settled(target, &key, false).await,
            Removal::Free(row) => row,
        };
        if self.book().attempts.values().any(|attempt| attempt.target == target && attempt.key == key) {
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
                self.count(|counters| counters.removals_dropped += 1);
                tracing::warn!(%key, meant = %row.etag, found = %meta.etag, "not deleted: another host's version stands there");
                return self.settled(target, &key, false).await;
            }
            Err(error) if error.kind == ErrorKind::NotFound => return self.settled(target, &key, true).await,
            Err(error) => return Err(StepError::Store(error)),
        }
        // J2: what justifies the request is on disk. One barrier serves all that wait together.
        self.inner.namespace.barrier().await?;
        if !matches!(self.inner.namespace.read(|tree| judge(tree, target, &key)), Removal::Free(_)) {
            return Ok(Next::Blocked);
        }
        failpoint::hit(failpoint::REMOVAL_BEFORE_DELETE);
        let deleted = mapping.store.delete(&key).await;
        mapping.observe(&deleted);
        match deleted {
            Ok(()) => {
                self.count(|counters| counters.removals += 1);
                self.settled(target, &key, true).await
            }
            Err(error) => {
                if error.outcome() == Outcome::Unknown {
                    self.book().suspicious.insert((target, key.clone()));
                }
                Err(StepError::Store(error))
            }
        }
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
