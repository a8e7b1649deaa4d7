//! The ends of attempts: the one transaction of success, and what failures leave behind.

use crate::cache::{Tag, TagState};
use crate::failpoint;
use crate::journal::{AttemptKind, AttemptRow, AttributeRow, Content, Durability, Op, Remote};
use crate::namespace::{Tree, remote_of};
use crate::store::{self, ErrorKind, HeadOptions, Outcome};
use crate::types::{Crc64, FileKind, Ino, TimeNs};

use super::Uploader;
use super::error::{StepError, StepResult};
use super::mover::of_namespace;
use super::plan::{Job, is_vacant};
use super::queue::Next;
use super::status::Flight;

/// A verified version.
pub(super) struct Sent<'a> {
    pub(super) attempt: &'a AttemptRow,
    pub(super) remote: Remote,
    /// It carries the content of the attempt's generation (a copy carries the old one's).
    pub(super) content: bool,
}

impl Uploader {
    /// Remote is the new version, what it replaced is settled, OMS is owed, the attempt is over:
    /// one transaction (P4), on disk before anything builds on it (J2).
    pub(super) async fn commit(&self, sent: Sent<'_>) -> StepResult<Next> {
        let Sent { attempt, remote, content } = sent;
        let (target, key) = (attempt.target, attempt.key.clone());
        let clock = self.inner.namespace.clock().clone();
        let (now, wall) = (clock.monotonic(), clock.now());
        let mapping = self.inner.namespace.read(|tree| tree.mapping(target).cloned());
        let suspicious = self.is_suspicious(target, &key)
            || mapping.as_ref().is_some_and(|mapping| mapping.store.may_arrive_late(&key));
        let late = i64::try_from(self.inner.options.late.as_nanos()).unwrap_or(i64::MAX);
        let recheck_at = suspicious.then(|| TimeNs(wall.0.saturating_add(late)));
        let owed = match mapping.and_then(|mapping| mapping.sync) {
            Some(sync) => Some(self.inner.outbox.owe(sync, &key)?),
            None => None,
        };
        failpoint::hit(failpoint::UPLOAD_BEFORE_CLEAN_OWED);
        let (ended, commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            ops.push(Op::DeleteAttempt(attempt.attempt));
            tree.settle_removal(target, &key, None, ops);
            let wanted_here = tree.key(attempt.ino).as_ref() == Some(&key);
            let old = tree.get(attempt.ino).and_then(|inode| inode.row.remote.clone());
            let Some(inode) = tree.get_mut(attempt.ino) else {
                // It was forgotten meanwhile: nobody wants what was sent.
                tree.owe_removal(target, &remote, attempt.ino, wall, ops);
                return Ended { removals: vec![key.clone()], ticket: None, clean: None };
            };
            let mut removals = Vec::new();
            let of_this = inode.row.generation == attempt.generation;
            let linked = inode.row.linked;
            inode.row.remote_attr_generation = attempt.attr_generation;
            if content {
                inode.row.remote_generation = attempt.generation;
                inode.offered = inode.offered.filter(|offered| offered.generation != attempt.generation);
                if linked && inode.row.generation == attempt.generation && inode.row.content == Content::Closed {
                    inode.row.content = Content::Clean;
                    inode.row.mark = None;
                }
            }
            // The second look that an earlier version still waits for is this one's, if it stands where
            // that one stood.
            let waiting = inode.row.recheck_at.filter(|_| old.as_ref().is_some_and(|old| old.key == key));
            inode.row.recheck_at = recheck_at.or(waiting);
            inode.settled = Some(now);
            inode.checked = Some(now);
            let clean = (inode.row.content == Content::Clean).then_some(()).and(inode.row.backing);
            let (kind, attrs_known) = (inode.row.kind, inode.row.attrs_known);
            let (symlink, xattrs) = (inode.row.symlink.clone(), inode.row.xattrs.clone());
            tree.set_remote(attempt.ino, Some(remote.clone()));
            if of_this && tree.get(attempt.ino).is_some_and(|inode| inode.copied.is_some()) {
                // It has an object of its own.
                tree.set_copied(attempt.ino, None, ops);
                if let Some(inode) = tree.get_mut(attempt.ino) {
                    inode.row.remote_generation = attempt.generation;
                }
            }
            if let Some(old) = old.filter(|old| old.key != key) {
                // R3: only if no other inode's version stands there. An unlinked one that is still
                // read holds the removal back, not off: nobody would owe it later.
                let another =
                    tree.at_remote(target, &old.key).iter().any(|other| tree.get(*other).is_some_and(|o| o.row.linked));
                if !another {
                    removals.push(old.key.clone());
                    tree.owe_removal(target, &old, attempt.ino, wall, ops);
                }
            }
            // What was copied unseen may be a link: its row waits for the HEAD that tells.
            if attrs_known {
                ops.push(Op::PutAttribute(AttributeRow {
                    target,
                    key: key.clone(),
                    etag: remote.etag.clone(),
                    kind,
                    attrs: attempt.attrs,
                    symlink,
                    crc64: remote.crc64,
                    xattrs,
                }));
            }
            if !linked {
                // R2: unlinked during the attempt: the result is a removal owed.
                removals.push(key.clone());
                tree.owe_removal(target, &remote, attempt.ino, wall, ops);
            }
            let ticket = owed.filter(|_| wanted_here).map(|(ticket, rows)| {
                ops.extend(rows);
                ticket
            });
            tree.persist(attempt.ino, ops);
            Ended { removals, ticket, clean }
        });
        commit.durable().await?;
        failpoint::hit(failpoint::UPLOAD_AFTER_CLEAN_OWED);
        {
            let mut book = self.book();
            book.attempts.remove(&attempt.attempt);
            book.parts.remove(&attempt.attempt);
            book.parked.remove(&attempt.attempt);
        }
        if let Some(ticket) = ended.ticket {
            self.inner.outbox.committed(ticket);
        }
        for key in ended.removals {
            self.removal_owed(target, key);
        }
        if let Some(backing) = ended.clean {
            // Under the tree lock, so that an opening for writing, which moves the file back, comes
            // wholly before or wholly after; one rename(2).
            let moved = self.inner.namespace.touch(|tree| match tree.get(attempt.ino) {
                Some(inode) if inode.row.content == Content::Clean && inode.row.backing == Some(backing) => {
                    let tag = Tag {
                        mapping: tree.mapping_of(attempt.ino).map_or_else(String::new, |mapping| mapping.identity()),
                        key: key.0.clone(),
                        ino: attempt.ino,
                        generation: inode.row.generation,
                        attrs: inode.row.attrs,
                        base: None,
                        state: TagState::Clean(remote.etag.clone(), remote.crc64),
                    };
                    self.inner.cache.retag(&self.inner.cache.open_read(backing)?, &tag)?;
                    self.inner.cache.to_clean(backing, inode.row.size)
                }
                _ => Ok(()),
            });
            moved?;
        }
        Ok(Next::Done)
    }

    /// An attempt that a power cut left unanswered is settled: what was made of the content later makes way for the
    /// version that the bucket has (C5).
    pub(super) async fn give_way(&self, ino: Ino) -> StepResult<()> {
        let (replaced, commit) =
            self.inner.namespace.update(Durability::Buffered, |tree, ops| tree.set_aside_if_doubtful(ino, ops));
        commit.durable().await?;
        if let Some(replaced) = replaced {
            self.inner.namespace.expire(replaced.parent);
            self.inner.namespace.announce([replaced]);
        }
        Ok(())
    }

    /// After any attempt: the inode may be forgotten, or has changed meanwhile: whether it waits for
    /// another step.
    pub(super) async fn end_attempt(&self, ino: Ino) -> StepResult<bool> {
        let ((pending, trash), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.attempting = false;
            }
            let trash = tree.reap(ino, ops);
            let recheck = tree.get(ino).is_some_and(|inode| inode.row.recheck_at.is_some());
            (tree.is_pending(ino) || recheck, trash)
        });
        if let Some(backing) = trash {
            // J2: the row that lets it go is on disk before the file goes.
            drop(commit);
            self.inner.namespace.barrier().await?;
            self.inner.cache.discard(backing);
        } else {
            commit.in_background();
        }
        Ok(pending)
    }

    /// A request failed. If it certainly was not applied the attempt is over; otherwise it must be
    /// settled (R2).
    pub(super) async fn give_up(&self, attempt: &AttemptRow, error: store::Error) -> StepResult<StepError> {
        if error.outcome() == Outcome::Unknown {
            self.suspect(attempt.target, &attempt.key, attempt.attempt);
            self.book().attempts.insert(attempt.attempt, attempt.clone());
            return Ok(StepError::Unknown(attempt.attempt, error));
        }
        if error.kind == ErrorKind::AlreadyExists {
            return self.taken(attempt, error).await;
        }
        self.drop_attempt(attempt).await?;
        Ok(StepError::Store(error))
    }

    /// Something stands where nothing was expected: our own request, applied before its reply was
    /// lost, or another host's object.
    async fn taken(&self, attempt: &AttemptRow, error: store::Error) -> StepResult<StepError> {
        let mapping = self.inner.namespace.read(|tree| tree.mapping(attempt.target).cloned());
        let Some(mapping) = mapping else { return Ok(StepError::Store(error)) };
        match mapping.store.head(&attempt.key, HeadOptions::default()).await {
            Ok(meta) if self.is_attempt(&meta, attempt) => {
                self.book().attempts.insert(attempt.attempt, attempt.clone());
                Ok(StepError::Unknown(attempt.attempt, error))
            }
            Ok(meta) => {
                self.drop_attempt(attempt).await?;
                let remote = remote_of(&meta);
                if self.meet_copy(attempt, &meta).await? {
                    return Ok(StepError::Again);
                }
                if !self.is_ours(&meta) && self.adopt_marker(attempt, &remote).await? {
                    return Ok(StepError::Changed);
                }
                // What a renamed directory has there is no other host's: it is settled first (R5).
                let (target, key) = (attempt.target, &attempt.key);
                self.inner.namespace.settle_key(target, key).await.map_err(of_namespace)?;
                if !self.is_ours(&meta) && self.is_known_there(attempt, &remote) {
                    self.changed(attempt.ino);
                    return Ok(StepError::Changed);
                }
                // A move never overwrites (R5): what moves stands aside.
                if !self.is_ours(&meta)
                    && let Some(other) = self.inner.namespace.give_way(attempt.ino).await.map_err(of_namespace)?
                {
                    self.count(|counters| counters.conflicts += 1);
                    tracing::warn!(key = %attempt.key, name = other, "conflict: another host made the name that this object moves to");
                    self.changed(attempt.ino);
                    return Ok(StepError::Changed);
                }
                if !self.is_ours(&meta) {
                    let wanted = |tree: &Tree| tree.key(attempt.ino).as_ref() == Some(&attempt.key);
                    if !self.inner.namespace.read(wanted) {
                        return Ok(StepError::Again);
                    }
                    self.meet(attempt.ino, &mapping, &meta).await?;
                }
                // The next look expects this version.
                let wall = self.inner.namespace.clock().now();
                let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
                    tree.owe_removal(attempt.target, &remote, attempt.ino, wall, ops);
                });
                commit.in_background();
                Ok(StepError::Store(error))
            }
            Err(_) => {
                self.drop_attempt(attempt).await?;
                Ok(StepError::Store(error))
            }
        }
    }

    /// What was found at an attempt's key is a version that another inode has there, or had: the next
    /// plan sees to it.
    fn is_known_there(&self, attempt: &AttemptRow, found: &Remote) -> bool {
        let (target, key, ino) = (attempt.target, &attempt.key, attempt.ino);
        self.inner.namespace.read(|tree| {
            let owed = tree.removal(target, key).is_some_and(|owed| owed.etag == found.etag);
            let others = tree.at_remote(target, key).iter().filter(|other| **other != ino);
            let mut versions = others.filter_map(|other| tree.get(*other)?.row.remote.as_ref());
            !is_vacant(tree, ino, key) && (owed || versions.any(|version| version.etag == found.etag))
        })
    }

    /// N1: a marker never goes over an existing one: another host's is the directory's. `false`: it
    /// is no directory.
    async fn adopt_marker(&self, attempt: &AttemptRow, found: &Remote) -> StepResult<bool> {
        let (adopted, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let Some(inode) = tree.get_mut(attempt.ino).filter(|inode| inode.is_dir()) else { return false };
            inode.row.remote_attr_generation = attempt.attr_generation;
            // Unless a program has changed its attributes since, the marker's are the true ones.
            inode.row.attrs_known = inode.row.attr_generation != attempt.attr_generation;
            tree.set_remote(attempt.ino, Some(found.clone()));
            tree.persist(attempt.ino, ops);
            true
        });
        commit.durable().await?;
        Ok(adopted)
    }

    pub(super) async fn drop_attempt(&self, attempt: &AttemptRow) -> StepResult<()> {
        let number = attempt.attempt;
        let ((), commit) =
            self.inner.namespace.update(Durability::Buffered, |_, ops| ops.push(Op::DeleteAttempt(number)));
        commit.durable().await?;
        let mut book = self.book();
        book.attempts.remove(&number);
        book.parts.remove(&number);
        book.parked.remove(&number);
        Ok(())
    }

    /// What the store holds is not what was sent: sent again, never announced.
    pub(super) async fn mismatch(&self, attempt: &AttemptRow, there: Option<Crc64>) -> StepResult<StepError> {
        let here = attempt.crc64.map_or_else(|| "unknown".to_owned(), |crc| crc.to_string());
        let there = there.map_or_else(|| "unknown".to_owned(), |crc| crc.to_string());
        let what =
            format!("the store holds {} with CRC64 {there} where {here} was sent; it is sent again", attempt.key);
        tracing::error!(key = %attempt.key, sent = here, stored = there, "the store holds another content than was sent");
        self.suspect(attempt.target, &attempt.key, attempt.attempt);
        // Ours, but wrong: the next look must be able to replace it.
        let mapping = self.inner.namespace.read(|tree| tree.mapping(attempt.target).cloned());
        if let Some(mapping) = mapping
            && let Ok(meta) = mapping.store.head(&attempt.key, HeadOptions::default()).await
        {
            let wall = self.inner.namespace.clock().now();
            let remote = remote_of(&meta);
            let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
                tree.owe_removal(attempt.target, &remote, attempt.ino, wall, ops);
            });
            commit.in_background();
        }
        self.drop_attempt(attempt).await?;
        Ok(StepError::Mismatch(what))
    }

    /// The CRC64 that the store reports of what was just stored; `None` if it does not tell. A
    /// store that cannot be asked leaves the attempt to be settled.
    pub(super) async fn crc_there(
        &self,
        attempt: &AttemptRow,
        job: &Job,
        told: Option<Crc64>,
    ) -> StepResult<Option<Crc64>> {
        if told.is_some() {
            return Ok(told);
        }
        match job.mapping.store.head(&job.key, HeadOptions::default()).await {
            Ok(meta) => Ok(meta.crc64),
            Err(error) => Err(self.give_up(attempt, store::Error { outcome: Outcome::Unknown, ..error }).await?),
        }
    }

    /// The object was made by this very attempt, and no other tool has written it since (by size and CRC64
    /// only if it has no name; every marker has the same).
    pub(super) fn is_attempt(&self, meta: &store::ObjectMeta, attempt: &AttemptRow) -> bool {
        match meta.headers.metadata.get(crate::namespace::FERRY_HEADER) {
            Some(ferry) => *ferry == self.ferry(attempt.ino, attempt.attempt) && !crate::namespace::is_rewritten(meta),
            None => {
                attempt.kind != AttemptKind::Copy
                    && !attempt.key.as_str().ends_with('/')
                    && meta.size == attempt.size
                    && meta.crc64.is_some()
                    && meta.crc64 == attempt.crc64
            }
        }
    }

    pub(super) fn fly(&self, job: &Job, total: u64) {
        if job.kind != FileKind::File {
            return;
        }
        let flight = Flight { path: job.path.clone(), key: job.key.to_string(), sent: 0, total };
        self.book().flights.insert(job.ino, flight);
        self.tick();
    }

    pub(super) fn land(&self, ino: Ino) {
        self.book().flights.remove(&ino);
    }
}

struct Ended {
    removals: Vec<crate::types::Key>,
    ticket: Option<crate::outbox::Ticket>,
    clean: Option<crate::types::BackingNo>,
}
