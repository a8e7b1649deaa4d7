//! Making files whole that were written to while most of them was in the bucket only (C7).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::cache::{TagState, mark};
use crate::disk;
use crate::download::{self, Fill, Kept};
use crate::journal::{Content, Durability, Hold, Mark};
use crate::types::{BackingNo, Ino};

use super::Vfs;
use super::error::{Error, Result};
use super::io::off_thread;
use super::locks::Locked;
use super::partial::extent_row;

/// A file that stays open is filled this long after the first write to it: the base may go at any time,
/// but a program that writes a little and closes is not slowed down by it. After the close at once.
pub(super) const FILL_AFTER: Duration = Duration::from_secs(10);
/// First and longest pause after a failure of the store or the disk.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What came of an attempt.
enum Filled {
    /// Nothing is left to be done, or can be.
    Done,
    /// At once, from elsewhere or from the start.
    Again,
    /// After a pause.
    Later,
}

impl Vfs {
    /// Sees to it that the file becomes whole: `after` this long, or sooner if that was said before.
    pub(super) fn fill_later(&self, ino: Ino, state: &mut Locked, after: Duration) {
        if let Some(filler) = &state.filler {
            if after.is_zero() {
                filler.notify_one();
            }
            return;
        }
        let wake = Arc::new(Notify::new());
        state.filler = Some(wake.clone());
        self.inner.guardian.spawn("fill", self.clone().keep_filling(ino, wake, after));
    }

    /// After a start: files that the last daemon left partly here.
    pub(super) async fn fill_all(self) -> Result<()> {
        let partials: Vec<Ino> = self.inner.namespace.read(|tree| {
            let linked =
                tree.inodes().filter(|inode| inode.partial.is_some() && (inode.needs_remote() || inode.needs_copied()));
            linked.map(crate::namespace::Inode::ino).collect()
        });
        for ino in partials {
            let mut state = self.inner.locks.lock(ino).await;
            self.fill_later(ino, &mut state, Duration::ZERO);
            self.inner.locks.release(ino, state);
        }
        Ok(())
    }

    async fn keep_filling(self, ino: Ino, wake: Arc<Notify>, after: Duration) -> Result<()> {
        let shutdown = self.inner.shutdown.clone();
        let (mut pause, mut corrupt) = (after, false);
        let mut failures = 0;
        loop {
            tokio::select! {
                () = shutdown.triggered() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                () = wake.notified() => {}
            }
            let mut state = self.inner.locks.lock(ino).await;
            let fill = if self.is_partial(ino) { self.ensure_fill(ino, &mut state).await.map(Some) } else { Ok(None) };
            let copy = match &fill {
                Ok(Some((fill, backing))) => self.settle_copy(ino, fill, *backing, &mut state).await,
                _ => Ok(false),
            };
            let fill = copy.and_then(|settled| if settled { Ok(None) } else { fill });
            self.inner.locks.release(ino, state);
            let filled = match fill {
                Ok(Some((fill, backing))) => {
                    let result = tokio::select! {
                        () = shutdown.triggered() => return Ok(()),
                        result = fill.fill_up() => result,
                    };
                    let mut state = self.inner.locks.lock(ino).await;
                    let current = state.fill.as_ref().is_some_and(|(current, _)| current.is(&fill));
                    let filled = if current {
                        match self.take_filled(ino, &fill, backing, result, &mut corrupt, &mut state).await {
                            Ok(filled) => filled,
                            Err(Error::Journal(error)) => return Err(error.into()),
                            Err(error) => {
                                tracing::error!(%ino, %error, "a file cannot be made whole now; tried again");
                                Filled::Later
                            }
                        }
                    } else {
                        Filled::Again
                    };
                    if matches!(filled, Filled::Done) {
                        state.filler = None;
                    }
                    self.inner.locks.release(ino, state);
                    filled
                }
                Ok(None) => {
                    let mut state = self.inner.locks.lock(ino).await;
                    state.filler = None;
                    self.inner.locks.release(ino, state);
                    Filled::Done
                }
                Err(error) => {
                    tracing::warn!(%ino, %error, "a file cannot be made whole now; tried again");
                    Filled::Later
                }
            };
            match filled {
                Filled::Done => {
                    self.inner.uploader.unblocked();
                    self.reap(ino);
                    return Ok(());
                }
                Filled::Again => pause = Duration::ZERO,
                Filled::Later => {
                    failures += 1;
                    pause = PAUSES.0.saturating_mul(1 << failures.min(16)).min(PAUSES.1);
                }
            }
        }
    }

    async fn take_filled(
        &self,
        ino: Ino,
        fill: &Fill,
        backing: BackingNo,
        result: download::Result<()>,
        corrupt: &mut bool,
        state: &mut Locked,
    ) -> Result<Filled> {
        let linked = self.with_inode(ino, |inode| inode.row.linked).unwrap_or(false);
        if !linked {
            // Whoever still has it open is served; nobody waits for the whole.
            if state.count == 0 {
                fill.cancel().await;
                state.fill = None;
            }
            return Ok(Filled::Done);
        }
        let error = match result {
            Ok(()) if fill.is_full() => {
                self.take_whole(ino, fill, backing, state).await?;
                return Ok(Filled::Done);
            }
            Ok(()) => return Ok(Filled::Again),
            Err(error) => error,
        };
        let path = self.inner.namespace.read(|tree| tree.shown_path(ino));
        match error {
            download::Error::Changed(_) | download::Error::Gone(_) => {
                tracing::error!(path, %error, "held: its base is gone before all of it was here");
                self.hold_incomplete(ino, fill, state).await?;
                Ok(Filled::Done)
            }
            download::Error::Corrupt { .. } if *corrupt => {
                tracing::error!(path, %error, "held: its base is not what the store announced");
                self.hold_incomplete(ino, fill, state).await?;
                Ok(Filled::Done)
            }
            download::Error::Corrupt { .. } => {
                // Bits that fell on the way are right the second time; what is wrong in the bucket is not.
                *corrupt = true;
                fill.cancel().await;
                let kept = Kept { fetched: download::Extents::new(), ..fill.kept() };
                self.replace_fill(ino, fill, backing, kept, state)?;
                Ok(Filled::Again)
            }
            download::Error::Store(_) | download::Error::Io { .. } | download::Error::Cancelled(_) => {
                tracing::warn!(path, %error, "a file cannot be made whole now; tried again");
                if matches!(error, download::Error::Cancelled(_)) {
                    let kept = fill.kept();
                    self.replace_fill(ino, fill, backing, kept, state)?;
                }
                Ok(Filled::Later)
            }
        }
    }

    /// All of it is here: from now on it is like any other dirty file.
    ///
    /// 1. Length and time of the file, and its bytes, are on the disk. A crash now: filled again.
    /// 2. The row lacks nothing any more. A crash now: as any other.
    async fn take_whole(&self, ino: Ino, fill: &Fill, backing: BackingNo, state: &mut Locked) -> Result<()> {
        let mtime = self.with_inode(ino, |inode| inode.row.attrs.mtime)?;
        let (file, length) = (fill.file().clone(), fill.length());
        let cache = self.inner.cache.clone();
        let closed = TagState::Closed(self.inner.options.boot_id.clone());
        let tag = self.inner.namespace.read(|tree| {
            let is_closed = tree.get(ino)?.row.content == Content::Closed;
            Vfs::tag(tree, ino, if is_closed { closed } else { self.open_now() })
        });
        let now = off_thread(move || {
            let stat = disk::fstat(&file)?;
            if stat.size != length {
                disk::truncate(&file, length)?;
            }
            disk::set_times(&file, stat.atime, mtime)?;
            if let Some(tag) = tag {
                // J5: from here on the file itself tells that it is whole, and whether it is closed: not
                // before all of it is on the disk.
                disk::sync_data(&file)?;
                cache.retag(&file, &tag).map_err(std::io::Error::other)?;
            }
            let now = mark(&file)?;
            // The times are part of the mark: not fdatasync.
            disk::sync_file(&file)?;
            Ok(Mark { synced: true, ..now })
        })
        .await?;
        let (content, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let Some(inode) = tree.get_mut(ino) else { return Content::Absent };
            let row = &mut inode.row;
            if row.hold == Some(Hold::Incomplete) && row.content == Content::Torn {
                if row.mark.is_some() {
                    row.content = Content::Closed;
                    row.hold = None;
                } else {
                    // It was never closed: whole it is, finished it may not be (P2).
                    row.hold = Some(Hold::Crash);
                }
            }
            if row.mark.is_some() || row.content == Content::Closed {
                row.mark = Some(now);
            }
            row.size = now.size;
            let content = row.content;
            tree.persist(ino, ops);
            tree.set_partial(ino, None, ops);
            tree.set_copied(ino, None, ops);
            content
        });
        commit.durable().await?;
        state.fill = None;
        state.told = None;
        self.inner.cache.tell(backing, now.size, false);
        if state.session.is_some() {
            self.inner.live.insert(ino, self.inner.cache.open_read(backing)?);
        } else if state.writers > 0 {
            self.begin_session(ino, Durability::Buffered, state).await?;
        }
        self.serve_from_file(ino, backing)?;
        if content == Content::Flushed {
            // The mark that was to be doubted is another now.
            self.doubt_later(ino, now);
        }
        if content == Content::Closed && state.session.is_none() {
            self.inner.uploader.changed(ino);
        }
        Ok(())
    }

    /// What belongs to the file and was never fetched is nowhere any more. What is here is kept and
    /// shown; nothing is put together from two versions.
    async fn hold_incomplete(&self, ino: Ino, fill: &Fill, state: &mut Locked) -> Result<()> {
        let file = fill.file().clone();
        let fetched = fill.kept().fetched;
        // Before the rows that call it fetched: after a power cut they must be true.
        off_thread(move || disk::sync_data(&file)).await?;
        let ((), commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            let Some(inode) = tree.get_mut(ino) else { return };
            let row = &mut inode.row;
            if row.content == Content::Torn && row.hold != Some(Hold::Incomplete) {
                // Held before, for a reason that its bytes will not settle should they come after all.
                row.mark = None;
            }
            row.hold = Some(Hold::Incomplete);
            if row.content == Content::Flushed {
                row.content = Content::Open;
                row.mark = None;
            }
            if row.content == Content::Closed {
                row.content = Content::Torn;
            }
            row.mark = row.mark.map(|mark| Mark { synced: true, ..mark });
            tree.persist(ino, ops);
            ops.extend(fetched.iter().map(|range| extent_row(ino, range, true)));
        });
        commit.durable().await?;
        if let Some(session) = state.session.as_mut() {
            session.hold = session.hold.or(Some(Hold::Incomplete));
        }
        self.inner.uploader.changed(ino);
        Ok(())
    }

    /// Nobody will read an unlinked file that nobody has open: what still arrives is stopped.
    pub(super) fn abandon_fill(&self, ino: Ino) {
        let vfs = self.clone();
        self.inner.guardian.spawn("abandon", async move {
            let mut state = vfs.inner.locks.lock(ino).await;
            if state.count == 0
                && let Some((fill, _)) = state.fill.take()
            {
                fill.cancel().await;
            }
            vfs.inner.locks.release(ino, state);
            Ok::<(), super::Error>(())
        });
    }
}
