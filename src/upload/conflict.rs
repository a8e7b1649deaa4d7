//! Another host's version where ours goes (design section 7). Durable steps, and what a crash before each
//! leaves:
//!
//! 1. What is to be kept becomes an inode with its row, on disk, whose version is still at the key: the
//!    next start finds the same version there, and gives it the same name.
//! 2. Its copy, a step as any other (R2): verified, then "remote + owed + the old key may go" in one
//!    transaction. Until then nothing goes over the key (R3).
//! 3. Ours goes to the key, if the version there is still the one that was copied (R4).

use std::io;

use crate::journal::{AttemptRow, Durability, Remote};
use crate::namespace::{self, Conflict, Kept, Mapping};
use crate::store::{self, ErrorKind, ObjectMeta};
use crate::types::Ino;

use super::Uploader;
use super::error::{StepError, StepResult};
use super::mover::of_namespace;
use super::plan::Job;
use super::queue::{Next, Work};

impl Uploader {
    /// Another host's version stands where a version of this inode goes. On return ours may go over it;
    /// otherwise the next look knows what to do ([`StepError::Again`]).
    pub(super) async fn meet(&self, ino: Ino, mapping: &Mapping, theirs: &ObjectMeta) -> StepResult<()> {
        let (path, is_file) = self
            .inner
            .namespace
            .read(|tree| (tree.shown_path(ino), tree.get(ino).is_some_and(|inode| !inode.is_dir())));
        self.count(|counters| counters.conflicts += 1);
        let (key, etag) = (&theirs.key, &theirs.etag);
        // A marker is nothing to be kept; one with content is.
        let policy = if is_file || theirs.size > 0 { mapping.conflict } else { Conflict::Ours };
        match policy {
            Conflict::Ours => {
                tracing::warn!(path, %key, %etag, "conflict: another host's version is replaced by ours");
                return Ok(());
            }
            Conflict::KeepBoth => self.keep_theirs(ino, &path, mapping, theirs).await?,
            Conflict::Theirs => match self.inner.namespace.stand_aside(ino, theirs).await {
                Ok(Some(name)) => {
                    tracing::warn!(path, %key, %etag, ours = name, "conflict: another host's version keeps the name");
                    self.changed(ino);
                }
                Ok(None) => {}
                Err(error) => return Err(unkept(&path, error)),
            },
        }
        Err(StepError::Again)
    }

    async fn keep_theirs(&self, ino: Ino, path: &str, mapping: &Mapping, theirs: &ObjectMeta) -> StepResult<()> {
        let (key, etag) = (&theirs.key, &theirs.etag);
        match self.inner.namespace.keep_theirs(ino, theirs).await {
            Ok(Kept::By(other, name)) => {
                tracing::warn!(path, %key, %etag, kept = name, "conflict: another host's version is kept beside ours");
                let now = self.now();
                self.queue().put_sooner(Work::Inode(other), now);
                self.inner.wake.notify_one();
            }
            Ok(Kept::Already(name)) => {
                tracing::warn!(path, %key, %etag, kept = name, "conflict: another host's version has been kept before");
                self.removal_owed(mapping.target, key.clone());
            }
            Ok(Kept::Unneeded) => {}
            Err(error) => return Err(unkept(path, error)),
        }
        Ok(())
    }

    /// A server-side copy. A version that is to be kept and that the store will not copy gets its own name,
    /// and ours the other.
    pub(super) async fn copy_or_swap(&self, job: &Job, source: &Remote) -> StepResult<Next> {
        let copied = self.copy(job, source).await;
        match copied {
            Err(StepError::Store(error)) if is_final(&error) => {
                if !self.inner.namespace.swap_kept(job.ino).await.map_err(of_namespace)? {
                    return Err(StepError::Store(error));
                }
                tracing::warn!(path = job.path, %error, "another host's version cannot be copied: it keeps its name, ours gets this one");
                let ours = self.inner.namespace.read(|tree| tree.wanting(job.mapping.target, &job.key));
                if let Some(ours) = ours {
                    self.changed(ours);
                }
                Err(StepError::Again)
            }
            copied => copied,
        }
    }

    /// Something stands where a kept version is to be copied: the same content is taken as the copy,
    /// another leaves its name to it. `false`: the inode keeps nothing.
    pub(super) async fn meet_copy(&self, attempt: &AttemptRow, found: &ObjectMeta) -> StepResult<bool> {
        let ino = attempt.ino;
        if !self.inner.namespace.read(|tree| tree.is_keeping(ino)) {
            return Ok(false);
        }
        let mapping = self.inner.namespace.read(|tree| tree.mapping(attempt.target).cloned());
        // Whoever made it may not have told OMS.
        let owed = match mapping.and_then(|mapping| mapping.sync) {
            Some(sync) => Some(self.inner.outbox.owe(sync, &attempt.key)?),
            None => None,
        };
        let wall = self.inner.namespace.clock().now();
        let ((left, ticket), commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            let left = tree.adopt_kept(ino, found, wall, ops);
            let ticket = owed.filter(|_| left.is_some()).map(|(ticket, rows)| {
                ops.extend(rows);
                ticket
            });
            (left, ticket)
        });
        commit.durable().await?;
        if let Some(ticket) = ticket {
            self.inner.outbox.committed(ticket);
        }
        match left {
            Some(key) => self.removal_owed(attempt.target, key),
            None => {
                let named = self.inner.namespace.name_kept_anew(ino).await;
                named.map_err(|error| unkept(attempt.key.as_str(), error))?;
                self.changed(ino);
            }
        }
        Ok(true)
    }
}

/// The store will not do it, however often it is asked.
fn is_final(error: &store::Error) -> bool {
    matches!(error.kind, ErrorKind::Archived | ErrorKind::AccessDenied | ErrorKind::Rejected)
}

/// Neither name is free: ours stays here, and is shown as what fails.
fn unkept(path: &str, error: namespace::Error) -> StepError {
    use namespace::Error;
    match error {
        Error::NameTooLong | Error::Exists | Error::IllegalName => StepError::Io(io::Error::other(format!(
            "another host's version stands at {path} and no name is left to keep it under ({error}): \
             rename or remove one of the two"
        ))),
        other => of_namespace(other),
    }
}
