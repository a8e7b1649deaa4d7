//! Attempts whose outcome nobody told us (R2): look, and take it from there.

use std::collections::HashSet;
use std::time::Duration;

use crate::journal::{AttemptKind, AttemptRow, Content, Durability};
use crate::namespace::{Mapping, Tree, remote_of};
use crate::store::{ErrorKind, HeadOptions, ObjectMeta};

use super::Uploader;
use super::commit::Sent;
use super::error::{StepError, StepResult};
use super::queue::Next;

/// The store's clock and ours, and how long an Initiate may take.
const AROUND: Duration = Duration::from_secs(60);

impl Uploader {
    pub(super) async fn settle(&self, number: u64) -> StepResult<Next> {
        let Some(attempt) = self.book().attempts.get(&number).cloned() else { return Ok(Next::Done) };
        let busy = self.inner.namespace.read(|tree| tree.get(attempt.ino).is_some_and(|inode| inode.attempting));
        if busy {
            return Ok(Next::Blocked);
        }
        let Some(mapping) = self.inner.namespace.read(|tree| tree.mapping(attempt.target).cloned()) else {
            return self.drop_attempt(&attempt).await.map(|()| Next::Done);
        };
        let Some(_key) = self.inner.locks.try_lock(attempt.target, &[&attempt.key]) else { return Ok(Next::Blocked) };
        let found = mapping.store.head(&attempt.key, HeadOptions::default()).await;
        mapping.observe(&found);
        match found {
            Ok(meta) if self.is_attempt(&meta, &attempt) => {
                if self.is_over(&attempt) {
                    self.arrived_late(&attempt, &meta).await
                } else {
                    self.applied(&attempt, &meta).await
                }
            }
            // The last look takes whatever of ours has arrived.
            Ok(meta) if self.is_last_look(&attempt) && self.is_ours(&meta) => self.arrived_late(&attempt, &meta).await,
            Ok(_) => self.not_applied(&attempt, &mapping).await,
            Err(error) if error.kind == ErrorKind::NotFound => self.not_applied(&attempt, &mapping).await,
            Err(error) => Err(StepError::Store(error)),
        }
    }

    /// It was settled before, or a start found its row beside a later version.
    fn is_over(&self, attempt: &AttemptRow) -> bool {
        let later =
            |tree: &Tree| tree.get(attempt.ino).is_some_and(|inode| attempt.generation < inode.row.remote_generation);
        self.book().parked.contains_key(&attempt.attempt) || self.inner.namespace.read(later)
    }

    fn is_last_look(&self, attempt: &AttemptRow) -> bool {
        let now = self.now();
        self.book().parked.get(&attempt.attempt).is_some_and(|until| *until <= now)
    }

    /// It had arrived: verified as any other, then committed.
    async fn applied(&self, attempt: &AttemptRow, meta: &ObjectMeta) -> StepResult<Next> {
        let known = attempt.crc64.or(self.crc_of_parts(attempt));
        let differs =
            meta.size != attempt.size || matches!((known, meta.crc64), (Some(known), Some(there)) if known != there);
        if differs {
            return Err(self.mismatch(attempt, meta.crc64).await?);
        }
        let mut remote = remote_of(meta);
        remote.crc64 = remote.crc64.or(known);
        let content = attempt.kind != AttemptKind::Copy;
        self.book().arrived(attempt);
        let exists = self.inner.namespace.touch(|tree| match tree.get_mut(attempt.ino) {
            Some(inode) => {
                inode.attempting = true;
                true
            }
            None => false,
        });
        let next = self.commit(Sent { attempt, remote, content }).await;
        self.give_way(attempt.ino).await?;
        if exists {
            self.end_attempt(attempt.ino).await?;
            // Also if nothing is left to do: its failure is over.
            self.look_again(attempt.ino);
        }
        next
    }

    fn crc_of_parts(&self, attempt: &AttemptRow) -> Option<crate::types::Crc64> {
        let mut parts = self.book().parts.get(&attempt.attempt)?.clone();
        parts.sort_by_key(|part| part.number);
        let total: u64 = parts.iter().map(|part| part.size).sum();
        (total == attempt.size).then(|| {
            parts
                .iter()
                .fold(crate::types::Crc64::default(), |sum, part| crate::checksum::combine(sum, part.crc64, part.size))
        })
    }

    /// It has not arrived so far. It may still (R1): the key stays suspicious, and what
    /// comes to stand there is looked at again.
    async fn not_applied(&self, attempt: &AttemptRow, mapping: &Mapping) -> StepResult<Next> {
        let wanted = self.inner.namespace.read(|tree| is_wanted(tree, attempt));
        if let Some(upload_id) = &attempt.upload_id {
            let still_there = match mapping.store.list_parts(&attempt.key, upload_id, None).await {
                Ok(_) => true,
                Err(error) if error.kind == ErrorKind::NoSuchUpload => false,
                Err(error) => return Err(StepError::Store(error)),
            };
            if still_there && wanted {
                // The inode's next look continues it.
                let now = self.now();
                self.queue().put_sooner(super::queue::Work::Inode(attempt.ino), now);
                return Ok(Next::Done);
            }
            if still_there {
                mapping.store.abort_multipart(&attempt.key, upload_id).await.map_err(StepError::Store)?;
            }
        }
        if by_parts(attempt) && attempt.upload_id.is_none() {
            self.abort_nameless(attempt, mapping).await?;
        }
        let parked = self.park(attempt).await?;
        if parked.is_none() {
            self.drop_attempt(attempt).await?;
        }
        self.give_way(attempt.ino).await?;
        let now = self.now();
        // The pause after its failure stays.
        self.queue().ensure(super::queue::Work::Inode(attempt.ino), now);
        Ok(parked.map_or(Next::Done, Next::Later))
    }

    /// A crash between Initiate and the row with its id leaves an upload that only a listing tells of:
    /// one of this very key, begun around then, that no attempt of ours names. Should it be another
    /// host's after all, both wrote one name at one time, and that host begins its upload anew.
    async fn abort_nameless(&self, attempt: &AttemptRow, mapping: &Mapping) -> StepResult<()> {
        let named: HashSet<String> =
            self.book().attempts.values().filter_map(|attempt| attempt.upload_id.clone()).collect();
        let mut marker = None;
        loop {
            let page = mapping.store.list_uploads(attempt.key.as_str(), marker).await.map_err(StepError::Store)?;
            for upload in page.uploads {
                let around = upload
                    .initiated
                    .is_some_and(|at| u128::from(at.0.abs_diff(attempt.started.0)) <= AROUND.as_nanos());
                if upload.key == attempt.key && around && !named.contains(&upload.upload_id) {
                    tracing::info!(key = %attempt.key, "aborting a multipart upload whose id a crash took");
                    match mapping.store.abort_multipart(&attempt.key, &upload.upload_id).await {
                        Err(error) if error.kind != ErrorKind::NoSuchUpload => return Err(StepError::Store(error)),
                        _ => {}
                    }
                }
            }
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(());
            }
        }
    }

    /// R1: it may arrive late. What comes to stand at its key meanwhile is looked at again by itself;
    /// should nothing come (unlinked, renamed), the object would stay, and the name come back. How long
    /// to wait before it is looked for; `None`: that has been done.
    async fn park(&self, attempt: &AttemptRow) -> StepResult<Option<Duration>> {
        if by_parts(attempt) {
            // Its parts are aborted: no Complete can arrive any more.
            return Ok(None);
        }
        let late = self.inner.options.late;
        let now = self.now();
        let earlier: Vec<AttemptRow> = {
            let mut book = self.book();
            if let Some(until) = book.parked.get(&attempt.attempt) {
                return Ok(Some(until.saturating_sub(now)).filter(|left| !left.is_zero()));
            }
            book.parked.insert(attempt.attempt, now + late);
            let same = |one: &&AttemptRow| one.target == attempt.target && one.key == attempt.key;
            let parked = |one: &&AttemptRow| one.attempt != attempt.attempt && book.parked.contains_key(&one.attempt);
            book.attempts.values().filter(same).filter(parked).cloned().collect()
        };
        // What stands at its key is another host's unless it comes late.
        self.inner.namespace.touch(|tree| tree.note_late(attempt.attempt));
        // Its last look is theirs too.
        for attempt in earlier {
            self.drop_attempt(&attempt).await?;
        }
        Ok(Some(late))
    }

    /// An object of ours stands at the key that none of our steps put there last: a late request. If
    /// an inode has the key, its own second look sees to it.
    async fn arrived_late(&self, attempt: &AttemptRow, meta: &ObjectMeta) -> StepResult<Next> {
        let (target, key) = (attempt.target, &attempt.key);
        let wall = self.inner.namespace.clock().now();
        let (unwanted, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let unwanted = tree.wanting(target, key).is_none() && tree.at_remote(target, key).is_empty();
            if unwanted {
                tree.owe_removal(target, &remote_of(meta), attempt.ino, wall, ops);
            }
            unwanted
        });
        commit.durable().await?;
        if unwanted {
            tracing::warn!(%key, "a late request made an object that nothing wants any more; it is deleted");
            self.removal_owed(target, key.clone());
        }
        self.drop_attempt(attempt).await?;
        Ok(Next::Done)
    }
}

/// Its object comes by Complete.
fn by_parts(attempt: &AttemptRow) -> bool {
    attempt.kind == AttemptKind::Multipart || attempt.part_bytes > 0
}

/// The inode's next look would make the same attempt again, and can continue this one.
fn is_wanted(tree: &Tree, attempt: &AttemptRow) -> bool {
    tree.get(attempt.ino).is_some_and(|inode| {
        let row = &inode.row;
        let same = match attempt.kind {
            AttemptKind::Put | AttemptKind::Multipart => {
                let offered = inode.offered.is_some_and(|offered| offered.generation == attempt.generation);
                offered || (row.content == Content::Closed && row.generation == attempt.generation)
            }
            AttemptKind::Copy => {
                matches!(row.content, Content::Clean | Content::Absent)
                    && row.generation == attempt.generation
                    && row.attr_generation == attempt.attr_generation
                    && inode.origin().map(|origin| &origin.key) == attempt.source.as_ref()
            }
        };
        same && row.linked && tree.key(attempt.ino).as_ref() == Some(&attempt.key)
    })
}
