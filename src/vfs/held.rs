//! What is held (C5, C6), and what becomes of it: `ferryfs recover`. Durable steps, and what a crash
//! before each leaves:
//!
//! * accept: 1. the content goes to the disk: it is still held. 2. One batch, on disk before anybody
//!   is told: closed, with its final mark, at its path. After it the file goes up as any other.
//! * discard: 1. One batch, on disk: the name is the remote version's again, or gone. 2. The backing
//!   file goes (J2): without this step it is an orphan that the next start takes.

use std::path::PathBuf;
use std::time::Duration;

use futures::stream::{self, StreamExt};

use crate::cache::mark;
use crate::disk;
use crate::failpoint;
use crate::journal::{Content, Durability, Hold, Mark};
use crate::namespace::{self, Inode, Lookup, Unlinked};
use crate::store::{ErrorKind, HeadOptions};
use crate::types::{Ino, TimeNs};

use super::Vfs;
use super::close::take_times;
use super::error::Error;
use super::locks::Locked;
use super::reply::Invalidation;

/// How long the store may take to tell what it has, for all files of a list together.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// Requests of such a look under way at once.
const LOOKS: usize = 16;

/// A held file.
#[derive(Clone, Debug)]
pub struct HeldFile {
    /// Its inode.
    pub ino: Ino,
    /// Which content it is: another one has another.
    pub generation: u64,
    /// Where it is or was, from the mount's root.
    pub path: String,
    /// It is shown at its path; otherwise the path shows the bucket's version, or nothing.
    pub in_place: bool,
    /// Why.
    pub hold: Hold,
    /// Bytes.
    pub size: u64,
    /// When its content was last changed.
    pub mtime: TimeNs,
    /// Since when it is held.
    pub since: TimeNs,
    /// Permission bits.
    pub mode: u32,
    /// Parts of it are not here (C7): its file has holes there.
    pub incomplete: bool,
    /// The file that has the content.
    pub file: PathBuf,
    /// What the bucket has at its path.
    pub bucket: InBucket,
}

/// What the bucket has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InBucket {
    /// No object.
    Nothing,
    /// An object of this size, stored then.
    Version(u64, Option<TimeNs>),
    /// The store does not answer; if it had an object when it last did, its size.
    Unknown(Option<u64>),
}

/// Why held content stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// It was settled, or is another content by now.
    #[error("it is not held any more: it was written anew, removed or settled meanwhile")]
    Gone,
    /// C4.
    #[error("somebody can still write to it: end the program that has it open or mapped (fuser shows it), then repeat")]
    Writable,
    /// C7.
    #[error("parts of it are not here: it can be accepted once they are fetched or written, if they are not gone")]
    Incomplete,
    /// The directory that it was in.
    #[error("its directory is not there any more: make it first, or save the content elsewhere")]
    NoDirectory,
    /// Something newer has its name.
    #[error(
        "its name was taken meanwhile by a directory or by content that is not in the bucket yet: save it elsewhere"
    )]
    Taken,
    /// R2: what an earlier close left is on its way to the bucket.
    #[error("an earlier version of it is on its way to the bucket: repeat when that has arrived")]
    Uploading,
    /// It failed.
    #[error("{0}")]
    Failed(#[from] Error),
}

impl From<namespace::Error> for HeldError {
    fn from(error: namespace::Error) -> HeldError {
        HeldError::Failed(error.into())
    }
}

impl From<crate::journal::Error> for HeldError {
    fn from(error: crate::journal::Error) -> HeldError {
        HeldError::Failed(error.into())
    }
}

impl Vfs {
    /// What is held, by path, with what the bucket has there now.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn held(&self) -> Result<Vec<HeldFile>, Error> {
        let rows: Vec<_> = self.inner.namespace.read(|tree| {
            let held = tree.inodes().filter(|inode| inode.row.content == Content::Torn);
            let told = |inode: &Inode| (inode.row.clone(), inode.partial.is_some(), tree.shown_held_path(inode.ino()));
            held.map(told).collect()
        });
        let mut files = Vec::with_capacity(rows.len());
        for (row, incomplete, path) in rows {
            let (Some(hold), Some(backing)) = (row.hold, row.backing) else { continue };
            let looked = self.inner.cache.path(backing).and_then(|file| Ok((disk::lstat(&file)?, file)));
            let (stat, file) = match looked {
                Ok(found) => found,
                // Settled since the look at the rows.
                Err(_) if self.still_held(row.ino, row.generation).is_err() => continue,
                Err(error) => return Err(error.into()),
            };
            files.push(HeldFile {
                ino: row.ino,
                generation: row.generation,
                path,
                in_place: row.linked,
                hold,
                size: stat.size,
                mtime: stat.mtime,
                // Recovery made the file then, or its writer wrote to it last; nobody has since.
                since: stat.ctime,
                mode: row.attrs.mode,
                incomplete,
                file,
                bucket: InBucket::Unknown(None),
            });
        }
        files.sort_by(|a, b| (&a.path, a.ino).cmp(&(&b.path, b.ino)));
        self.look_in_bucket(&mut files).await;
        Ok(files)
    }

    async fn look_in_bucket(&self, files: &mut [HeldFile]) {
        let deadline = tokio::time::Instant::now() + LOOK_LIMIT;
        let looks = stream::iter(files.iter_mut()).for_each_concurrent(LOOKS, |file| async move {
            let asked = self.inner.namespace.read(|tree| {
                let known = tree.remote_of_held(file.ino);
                let key = known.as_ref().map(|remote| remote.key.clone()).or_else(|| tree.held_key(file.ino))?;
                Some((tree.mapping_of(file.ino)?.clone(), key, known))
            });
            let Some((mapping, key, known)) = asked else { return };
            file.bucket = InBucket::Unknown(known.map(|remote| remote.size));
            if mapping.is_offline() {
                return;
            }
            let head = mapping.store.head(&key, HeadOptions::default());
            let Ok(head) = tokio::time::timeout_at(deadline, head).await else { return };
            mapping.observe(&head);
            match head {
                Ok(meta) => file.bucket = InBucket::Version(meta.size, meta.last_modified),
                Err(error) if error.kind == ErrorKind::NotFound => file.bucket = InBucket::Nothing,
                Err(error) => tracing::warn!(%error, path = file.path, "the store does not tell what it has"),
            }
        });
        looks.await;
    }

    /// Held content counts as closed: it is uploaded from its path.
    ///
    /// # Errors
    /// See [`HeldError`]; it is still held then.
    pub async fn accept_held(&self, ino: Ino, generation: u64) -> Result<(), HeldError> {
        let state = self.inner.locks.lock(ino).await;
        let accepted = self.accept_locked(ino, generation, &state).await;
        self.inner.locks.release(ino, state);
        accepted
    }

    async fn accept_locked(&self, ino: Ino, generation: u64, state: &Locked) -> Result<(), HeldError> {
        self.still_held(ino, generation)?;
        if state.writers > 0 || state.session.is_some() {
            return Err(HeldError::Writable);
        }
        if self.is_partial(ino) {
            return Err(HeldError::Incomplete);
        }
        let (backing, file) = self.inner.backing_file(ino)?;
        if !self.quiet(&file)? {
            return Err(HeldError::Writable);
        }
        let before = self.tag_closed(ino, &file, mark(&file).map_err(Error::from)?)?;
        let synced = self.sync_backing(file, before).await?;
        failpoint::hit(failpoint::ACCEPT_BEFORE_ROW);
        let linked = self.with_inode(ino, |inode| inode.row.linked).map_err(|_| HeldError::Gone)?;
        let unlinked = if linked {
            let (closed, commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
                // An unlink or a rename over it does not wait for the inode's lock.
                let inode = tree.get_mut(ino).filter(|inode| inode.row.linked && is_held(inode, generation))?;
                close(inode, &synced);
                tree.persist(ino, ops);
                Some(())
            });
            commit.durable().await?;
            closed.ok_or(HeldError::Gone)?;
            None
        } else {
            self.put_back(ino, &synced).await?
        };
        failpoint::hit(failpoint::ACCEPT_AFTER_ROW);
        self.inner.cache.tell(backing, synced.size, false);
        if let Some(unlinked) = unlinked {
            let replaced = unlinked.ino;
            self.after_unlink(unlinked);
            self.invalidate(Invalidation::Inode(replaced));
        }
        self.invalidate(Invalidation::Inode(ino));
        self.inner.uploader.changed(ino);
        Ok(())
    }

    /// Content that was aside gets its name back, over the version that has it.
    async fn put_back(&self, ino: Ino, synced: &Mark) -> Result<Option<Unlinked>, HeldError> {
        let (top, path) = self
            .inner
            .namespace
            .read(|tree| {
                let target = tree.get(ino).map(|inode| inode.row.target)?;
                Some((tree.top_of(target)?, tree.held_path(ino)?))
            })
            .ok_or(HeldError::Gone)?;
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let mut dir = top;
        for above in dirs.split('/').filter(|above| !above.is_empty()) {
            dir = match self.inner.namespace.lookup(dir, above).await {
                Ok(Lookup::Found(found)) => found,
                Ok(Lookup::Absent) | Err(namespace::Error::NotDirectory) => return Err(HeldError::NoDirectory),
                Err(error) => return Err(error.into()),
            };
        }
        // What the bucket has there is known when it is replaced (R4).
        self.inner.namespace.lookup(dir, name).await?;
        let wall = self.inner.namespace.clock().now();
        let (put, commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            let replaced = tree.put_back(ino, (dir, name), wall, ops)?;
            if let Some(inode) = tree.get_mut(ino) {
                close(inode, synced);
            }
            tree.persist(ino, ops);
            Ok::<_, namespace::Error>(replaced)
        });
        let replaced = put.map_err(|error| match error {
            namespace::Error::Exists => HeldError::Taken,
            namespace::Error::NotFound | namespace::Error::NotDirectory => HeldError::NoDirectory,
            error => error.into(),
        })?;
        commit.durable().await?;
        self.invalidate(Invalidation::Entry(dir, name.to_owned()));
        Ok(replaced)
    }

    /// Held content goes; the remote version has its name again, or the name goes too.
    ///
    /// # Errors
    /// See [`HeldError`]; it is still held then.
    pub async fn discard_held(&self, ino: Ino, generation: u64) -> Result<(), HeldError> {
        let state = self.inner.locks.lock(ino).await;
        let discarded = self.discard_locked(ino, generation, &state).await;
        self.inner.locks.release(ino, state);
        discarded
    }

    async fn discard_locked(&self, ino: Ino, generation: u64, state: &Locked) -> Result<(), HeldError> {
        self.still_held(ino, generation)?;
        if state.writers > 0 || state.session.is_some() {
            return Err(HeldError::Writable);
        }
        if self.inner.namespace.read(|tree| tree.is_sent_for(ino)) {
            // What arrives is the version that its name goes back to; without the name it would be removed.
            return Err(HeldError::Uploading);
        }
        let wall = self.inner.namespace.clock().now();
        failpoint::hit(failpoint::DISCARD_BEFORE_ROW);
        let (discarded, commit) =
            self.inner.namespace.update(Durability::Disk, |tree, ops| tree.discard_held(ino, wall, ops));
        let discarded = discarded.map_err(|error| match error {
            namespace::Error::NotFound => HeldError::Gone,
            error => error.into(),
        })?;
        commit.durable().await?;
        failpoint::hit(failpoint::DISCARD_AFTER_ROW);
        if let Some((dir, name)) = discarded.entry {
            self.invalidate(Invalidation::Entry(dir, name));
            self.invalidate(Invalidation::Inode(ino));
        }
        match discarded.unlinked {
            Some(unlinked) => self.after_unlink(unlinked),
            None => {
                self.trash(discarded.trash);
                self.abandon_fill(ino);
            }
        }
        self.inner.uploader.let_go(ino);
        if let Some(moved) = discarded.moved {
            self.inner.uploader.changed(moved);
        }
        Ok(())
    }

    fn still_held(&self, ino: Ino, generation: u64) -> Result<(), HeldError> {
        let held = self.inner.namespace.read(|tree| tree.get(ino).is_some_and(|inode| is_held(inode, generation)));
        if held { Ok(()) } else { Err(HeldError::Gone) }
    }

    fn quiet(&self, file: &std::fs::File) -> Result<bool, Error> {
        Ok(self.inner.cache.is_quiescent(file)?)
    }
}

fn is_held(inode: &Inode, generation: u64) -> bool {
    inode.row.content == Content::Torn && inode.row.generation == generation
}

/// What its owner says is whole.
fn close(inode: &mut Inode, synced: &Mark) {
    inode.row.content = Content::Closed;
    // Not the content of any attempt that is still on its way.
    inode.row.generation += 1;
    inode.row.hold = None;
    inode.row.mark = Some(*synced);
    take_times(inode, synced);
}
