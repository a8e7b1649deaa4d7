//! Server-side copies: renames, attributes, and versions moved out of the way (R3, R4, R6).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::failpoint;
use crate::journal::{AttemptKind, AttemptRow, Content, Durability, Remote};
use crate::namespace::{Conflict, attributes_of, remote_of, xattrs_of};
use crate::store::{CopyOptions, CopySource, ErrorKind, HeadOptions, ObjectMeta, Terms};
use crate::types::FileKind;

use super::Uploader;
use super::commit::Sent;
use super::error::{StepError, StepResult};
use super::mover::of_namespace;
use super::plan::{Expected, Job};
use super::queue::Next;

impl Uploader {
    pub(super) async fn copy(&self, job: &Job, source: &Remote) -> StepResult<Next> {
        let Some(_keys) = self.inner.locks.try_lock(job.mapping.target, &[&source.key, &job.key]) else {
            return Ok(Next::Blocked);
        };
        let store = &job.mapping.store;
        let meta = store.head(&source.key, HeadOptions::default()).await;
        job.mapping.observe(&meta);
        let meta = match meta {
            Ok(meta) if meta.etag == source.etag => meta,
            Ok(meta) => return self.source_changed(job, source, Some(meta)).await,
            Err(error) if error.kind == ErrorKind::NotFound => return self.source_changed(job, source, None).await,
            Err(error) => return Err(StepError::Store(error)),
        };
        // What nobody has looked at here keeps the attributes that it has there (N3).
        let known = self.inner.namespace.read(|tree| tree.get(job.ino).is_some_and(|inode| inode.row.attrs_known));
        let job = &if known { job.clone() } else { carrying(job, &meta) };
        if source.size > self.copied_in_one(job) {
            return self.copy_parts(job, source, &meta).await;
        }
        let onto_itself = source.key == job.key;
        let forbid_overwrite = if onto_itself { false } else { self.expect(job).await? == Expected::Absent };
        let attempt = self.begin(job, AttemptKind::Copy, source.size, source.crc64, Some(&source.key)).await?;
        let options = CopyOptions {
            replace_headers: Some(self.headers(job, &attempt, Some(&meta))),
            forbid_overwrite,
            storage_class: meta.storage_class.clone(),
            // The server keeps the source's tags.
            terms: Terms { tags: BTreeMap::new(), ..terms(job, &meta) },
        };
        let from = CopySource {
            key: source.key.clone(),
            if_match: Some(source.etag.clone()),
            version_id: source.version_id.clone(),
        };
        failpoint::hit(failpoint::UPLOAD_BEFORE_PUT);
        let stored = store.copy(from, &job.key, options).await;
        job.mapping.observe(&stored);
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => return Err(self.give_up(&attempt, error).await?),
        };
        failpoint::hit(failpoint::UPLOAD_AFTER_PUT);
        let there = self.crc_there(&attempt, job, stored.crc64).await?;
        let known = source.crc64.or(meta.crc64);
        if let (Some(there), Some(known)) = (there, known)
            && there != known
        {
            return Err(self.mismatch(&attempt, Some(there)).await?);
        }
        let remote = Remote {
            key: job.key.clone(),
            etag: stored.etag,
            size: source.size,
            crc64: there.or(known),
            version_id: stored.version_id,
            last_modified: None,
        };
        self.count(|counters| counters.copies += 1);
        self.commit(Sent { attempt: &attempt, remote, content: false }).await
    }

    /// R1: how long an earlier request to the key may still arrive and undo a copy of another's object. Its content
    /// is nowhere else once it is made, so that nothing could be sent again: it is not made before that.
    pub(super) fn undone_until(&self, job: &Job) -> Option<Duration> {
        let clock = self.inner.namespace.clock();
        let (now, wall) = (clock.monotonic(), clock.now());
        let recheck_at = self.inner.namespace.read(|tree| {
            let inode = tree.get(job.ino)?;
            (inode.copied.is_some() && inode.row.content == Content::Absent).then_some(inode.row.recheck_at)
        })?;
        let recheck =
            recheck_at.and_then(|at| u64::try_from(at.0.saturating_sub(wall.0)).ok()).map(Duration::from_nanos);
        let book = self.book();
        let suspicion = book.suspicious.get(&(job.mapping.target, job.key.clone())).filter(|suspicion| {
            // What it copied itself is the same content.
            let same = |first: &AttemptRow| {
                (first.ino, first.generation, first.kind) == (job.ino, job.generation, AttemptKind::Copy)
            };
            !book.attempts.get(&suspicion.first).is_some_and(same)
        });
        let suspected = suspicion.map(|suspicion| (suspicion.since + self.inner.options.late).saturating_sub(now));
        recheck.max(suspected).filter(|wait| !wait.is_zero())
    }

    /// The version to copy is not there any more: another host's change. Content that is here goes up. Of
    /// what is not here, attributes go onto the other host's version, and a rename takes it along; but what
    /// is newer than the rename belongs to the old name, and so does what was found in place of a version
    /// that was to be kept.
    async fn source_changed(&self, job: &Job, source: &Remote, found: Option<ObjectMeta>) -> StepResult<Next> {
        self.abort_copies(job).await?;
        let here = self
            .inner
            .namespace
            .read(|tree| tree.get(job.ino).map(|inode| (inode.row.content, inode.row.ctime, tree.is_keeping(job.ino))));
        let Some((content, changed, keeping)) = here else { return Err(StepError::Changed) };
        if self.inner.namespace.read(|tree| tree.get(job.ino).is_some_and(|inode| inode.copied.is_some())) {
            return match content {
                Content::Clean => self.send_instead(job).await,
                // Its bytes are nowhere any more. It keeps its name, tells readers so, and is shown.
                Content::Absent => Err(StepError::Lost(source.key.clone())),
                Content::Open | Content::Flushed | Content::Closed | Content::Torn => Err(StepError::Changed),
            };
        }
        let onto_itself = source.key == job.key;
        let is_here = match content {
            Content::Absent => !matches!(job.kind, FileKind::File | FileKind::Dir),
            Content::Clean => true,
            // Opened for writing meanwhile: what the program closes goes up, whatever stood there.
            Content::Open | Content::Flushed | Content::Closed | Content::Torn => return Err(StepError::Changed),
        };
        if let Some(theirs) = found.as_ref().filter(|_| onto_itself) {
            if job.mapping.conflict == Conflict::Theirs && job.kind != FileKind::Dir && !self.is_ours(theirs) {
                self.count(|counters| counters.conflicts += 1);
                tracing::warn!(path = job.path, "conflict: replaced elsewhere; its attributes of here are dropped");
                self.inner.namespace.take_theirs(job.ino, theirs).await.map_err(of_namespace)?;
                return Ok(Next::Done);
            }
            if is_here {
                // The step that sends it meets the other host's version.
                return self.send_instead(job).await;
            }
            self.count(|counters| counters.conflicts += 1);
            tracing::warn!(
                path = job.path,
                "conflict: replaced elsewhere; its attributes of here go onto that version"
            );
            self.inner.namespace.rebase(job.ino, theirs).await.map_err(of_namespace)?;
            return Ok(Next::After(std::time::Duration::ZERO));
        }
        self.count(|counters| counters.conflicts += 1);
        tracing::warn!(
            path = job.path,
            "conflict: the object was changed or removed elsewhere before it was copied here"
        );
        if is_here {
            return self.send_instead(job).await;
        }
        let renamed = job.mapping.store.time(changed);
        let found = found.filter(|found| {
            let newer = found.last_modified.is_some_and(|modified| modified.sec() > renamed.sec());
            !keeping && (!newer || job.kind == FileKind::Dir)
        });
        let found = found.as_ref().map(remote_of);
        // What is newer than the rename of its directory belongs to the old name (R5).
        let found = found.filter(|found| !self.inner.namespace.is_newer_than_moves(job.mapping.target, found));
        let mut marker = None;
        let (known, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if tree.get(job.ino).is_none_or(|inode| inode.row.content != Content::Absent) {
                return true;
            }
            match found {
                Some(remote) => {
                    if let Some(inode) = tree.get_mut(job.ino) {
                        inode.row.size = remote.size;
                        inode.row.attrs_known = false;
                    }
                    tree.set_remote(job.ino, Some(remote));
                    tree.persist(job.ino, ops);
                    true
                }
                None => {
                    let Some(inode) = tree.get(job.ino) else { return false };
                    let (parent, name) = (inode.row.parent, inode.row.name.clone());
                    // Nothing of it is left anywhere: the name goes too, if it has not gone already
                    // or means another inode by now.
                    if tree.child(parent, &name) == Some(job.ino) {
                        tree.set_remote(job.ino, None);
                        match tree.unlink(parent, &name, job.attrs.mtime, ops) {
                            Ok(unlinked) => marker = unlinked.marker,
                            Err(error) => tracing::debug!(%error, path = job.path, "the name was gone already"),
                        }
                    }
                    false
                }
            }
        });
        commit.durable().await?;
        if let Some(dir) = marker {
            self.changed(dir);
        }
        Ok(if known { Next::After(std::time::Duration::ZERO) } else { Next::Done })
    }

    /// Makes the content that is here the version to send.
    async fn send_instead(&self, job: &Job) -> StepResult<Next> {
        let backing = self.inner.namespace.read(|tree| {
            tree.get(job.ino).filter(|inode| inode.row.content == Content::Clean).and_then(|inode| inode.row.backing)
        });
        let Some(backing) = backing else {
            if job.kind != FileKind::File {
                let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
                    tree.set_remote(job.ino, None);
                    if let Some(inode) = tree.get_mut(job.ino) {
                        inode.row.marker_wanted |= inode.is_dir();
                    }
                    tree.persist(job.ino, ops);
                });
                commit.durable().await?;
                return Ok(Next::After(std::time::Duration::ZERO));
            }
            return Err(StepError::Mismatch(format!("the content of {} is not here to be sent again", job.path)));
        };
        self.inner.cache.to_dirty(backing)?;
        let mark = crate::cache::mark(&self.inner.cache.open_read(backing)?)?;
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if let Some(inode) = tree.get_mut(job.ino)
                && inode.row.content == Content::Clean
            {
                inode.row.content = Content::Closed;
                inode.row.mark = Some(mark);
                inode.row.generation += 1;
                tree.persist(job.ino, ops);
                tree.set_copied(job.ino, None, ops);
            }
        });
        commit.durable().await?;
        Ok(Next::After(std::time::Duration::ZERO))
    }

    /// R1: a late request may have changed the key after its own verification.
    pub(super) async fn recheck(&self, job: &Job, remote: &Remote) -> StepResult<Next> {
        let found = job.mapping.store.head(&job.key, HeadOptions::default()).await;
        job.mapping.observe(&found);
        let (same, ours) = match found {
            Ok(meta) => (meta.etag == remote.etag, self.is_ours(&meta)),
            Err(error) if error.kind == ErrorKind::NotFound => (false, true),
            Err(error) => return Err(StepError::Store(error)),
        };
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if let Some(inode) = tree.get_mut(job.ino) {
                inode.row.recheck_at = None;
                tree.persist(job.ino, ops);
            }
        });
        commit.durable().await?;
        if same || !ours {
            return Ok(Next::After(std::time::Duration::ZERO));
        }
        tracing::warn!(path = job.path, key = %job.key, "a late request undid the version in the bucket; it is sent again");
        self.send_instead(job).await
    }
}

/// What a copy must ask for anew (R6): the store carries none of it over. The source's encryption, or
/// else the configured one; its ACL is not known, so it is the configured one.
pub(super) fn terms(job: &Job, source: &ObjectMeta) -> Terms {
    let configured = job.mapping.terms.clone();
    Terms { encryption: source.encryption.clone().or(configured.encryption), ..configured }
}

/// The job with the kind and the attributes that the source's headers tell.
fn carrying(job: &Job, source: &ObjectMeta) -> Job {
    let (kind, attrs) = attributes_of(source, &job.mapping.defaults);
    Job { kind, attrs, xattrs: xattrs_of(source), ..job.clone() }
}
