//! flush, release, and the end of sessions: marks, and who can still write (C2, C3, C4, C6).

use std::fs::File;
use std::time::Duration;

use crate::cache::{TagState, mark, same_mark};
use crate::disk;
use crate::failpoint;
use crate::journal::{Content, Durability, Hold, Mark};
use crate::namespace::Inode;
use crate::types::{BackingNo, Ino};

use super::error::{Error, Result};
use super::locks::Locked;
use super::push::Why;
use super::session::{Mode, Prior, Session, Verdict, judge};
use super::{ClosePolicy, KilledWriter, Vfs};

/// Pauses before the lease of a session without writers is asked for again: the kernel lets go of
/// the backing file a moment after RELEASE; a mapping may live for days.
const LEASE_PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// Below this many free bytes the disk counts as full: a writer may have got ENOSPC unseen (C6).
const DISK_FULL: u64 = 4 << 20;

impl Vfs {
    pub(super) async fn do_flush(&self, ino: Ino, fh: u64, pid: u32) -> Result<()> {
        let handle = self.inner.handles.get(fh).ok_or(Error::BadHandle)?;
        if !handle.write {
            return Ok(());
        }
        self.may_change()?;
        let mut state = self.inner.locks.lock(ino).await;
        let flushed = self.flush_locked(ino, fh, pid, &mut state).await;
        state.flushed = self.inner.handles.are_flushed(ino).then(|| self.monotonic());
        self.inner.locks.release(ino, state);
        let marked = flushed?;
        let remote = self.inner.options.close == ClosePolicy::Remote && self.is_close_of(handle.opener, pid);
        // RELEASE waits for the answer: only then may the mark be doubted.
        let pushed = if remote { self.push_for_caller(ino, Why::Close).await } else { Ok(()) };
        if let Some(marked) = marked {
            self.doubt_later(ino, marked);
        }
        pushed
    }

    /// The provisional mark, if one was made.
    async fn flush_locked(&self, ino: Ino, fh: u64, pid: u32, state: &mut Locked) -> Result<Option<Mark>> {
        let Some(session) = state.session.as_mut() else { return Ok(None) };
        if self.inner.options.killed_writer == KilledWriter::Hold && is_fatal(disk::killed_by_signal(pid)) {
            session.hold = Some(Hold::KilledWriter);
        }
        if self.disk_is_full() {
            session.hold = session.hold.or(Some(Hold::DiskFull));
        }
        // Another handle that was never closed is still being written through: no mark (C2). One
        // that was closed is on its way out: its RELEASE comes after the answer to its close.
        let all_flushed = self.inner.handles.mark_flushed(ino, fh);
        let (backing, file) = self.inner.backing_file(ino)?;
        // Of a file that is not wholly here a session begins with its first change.
        let partial = self.is_partial(ino);
        let now = self.mark_now(ino, &file)?;
        let changed = partial || !same_mark(&now, &session.base);
        if let Some(hold) = session.hold {
            // A mark that an earlier close left would be uploaded if the daemon ended now.
            return self.take_mark_back(ino, Some(hold)).await.map(|()| None);
        }
        if !changed || !all_flushed {
            return Ok(None);
        }
        let disk = self.inner.options.close == ClosePolicy::Disk;
        let now = if disk {
            match self.sync_backing(file, now).await {
                Ok(now) => now,
                Err(error) => {
                    // The kernel tells of that once: what is read of the file from now on may be anything.
                    session.hold = Some(Hold::DiskFailed);
                    self.take_mark_back(ino, session.hold).await?;
                    return Err(error);
                }
            }
        } else {
            self.with_synced(ino, now)?
        };
        let durability = if disk { Durability::Disk } else { Durability::Buffered };
        let ((), commit) = self.inner.namespace.update(durability, |tree, ops| {
            let Some(inode) = tree.get_mut(ino) else { return };
            let marked = inode.row.content == Content::Flushed && inode.row.mark == Some(now);
            if !matches!(inode.row.content, Content::Open | Content::Flushed) || marked {
                return;
            }
            inode.row.content = Content::Flushed;
            // What is not wholly here is not in this file alone.
            inode.row.told |= disk && !partial;
            inode.row.mark = Some(now);
            take_times(inode, &now);
            if inode.row.linked {
                tree.persist(ino, ops);
            }
        });
        self.inner.cache.tell(backing, now.size, false);
        commit.durable().await?;
        Ok(Some(now))
    }

    pub(super) async fn do_release(&self, ino: Ino, fh: u64) {
        let Some(handle) = self.inner.handles.remove(fh) else { return };
        let mut state = self.inner.locks.lock(ino).await;
        state.count = state.count.saturating_sub(1);
        state.writers = state.writers.saturating_sub(u32::from(handle.write));
        // A server-mode descriptor that may write would refuse the lease.
        drop(handle.source);
        if state.count == 0 {
            if let Some(Mode::Passthrough(id)) = state.mode.take()
                && let Some(registrar) = self.registrar()
            {
                registrar.unregister(id);
            }
            let (partial, linked, held) = self
                .with_inode(ino, |inode| {
                    (inode.partial.is_some(), inode.row.linked, inode.row.hold == Some(Hold::Incomplete))
                })
                .unwrap_or_default();
            if partial && linked {
                // What is gone for good is not asked for after each reader.
                if !held {
                    self.fill_later(ino, &mut state, Duration::ZERO);
                }
            } else if let Some((fill, backing)) = state.fill.take() {
                if partial {
                    fill.cancel().await;
                } else {
                    self.end_fill(ino, fill, backing).await;
                }
            }
        }
        self.inner.namespace.touch(|tree| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.handles = inode.handles.saturating_sub(1);
                inode.writers = inode.writers.saturating_sub(u32::from(handle.write));
            }
        });
        if state.writers == 0 && state.session.is_some() {
            self.try_end_session(ino, &mut state).await;
        }
        let unused = state.count == 0;
        self.inner.locks.release(ino, state);
        if unused {
            self.reap(ino);
            self.inner.uploader.unblocked();
        }
    }

    async fn end_fill(&self, ino: Ino, fill: crate::download::Fill, backing: BackingNo) {
        // What readers have fetched to the last byte is kept, whoever of them was the last.
        if fill.has_arrived() {
            match fill.complete().await {
                Ok(crc) => {
                    if let Err(error) = self.adopt(ino, backing, Some(crc)).await {
                        tracing::error!(%ino, %error, "fetched content could not be kept");
                    }
                    return;
                }
                Err(error) => tracing::error!(%ino, %error, "fetched content is not what the store announced"),
            }
        } else {
            fill.cancel().await;
        }
        self.inner.cache.discard(backing);
    }

    /// C4: ends a session that nobody can write through any more; asks again later otherwise.
    pub(super) async fn try_end_session(&self, ino: Ino, state: &mut Locked) {
        match self.end_session(ino, state).await {
            Ok(true) => {}
            Ok(false) => self.poll_lease(ino, state),
            Err(error) => {
                tracing::error!(%ino, %error, "a closed file could not be marked; asked again");
                self.poll_lease(ino, state);
            }
        }
    }

    fn poll_lease(&self, ino: Ino, state: &mut Locked) {
        if std::mem::replace(&mut state.polled, true) {
            return;
        }
        let vfs = self.clone();
        self.inner.guardian.spawn("lease", async move {
            let mut pauses = LEASE_PAUSES.iter();
            let mut pause = Duration::from_millis(1);
            loop {
                pause = pauses.next().copied().unwrap_or(pause);
                tokio::time::sleep(pause).await;
                let mut state = vfs.inner.locks.lock(ino).await;
                let over = match vfs.end_session(ino, &mut state).await {
                    // Somebody opened it again: that session's end asks anew.
                    _ if state.writers > 0 => true,
                    Ok(ended) => ended,
                    Err(error) => {
                        tracing::error!(%ino, %error, "a closed file could not be marked; asked again");
                        false
                    }
                };
                if over {
                    state.polled = false;
                }
                vfs.inner.locks.release(ino, state);
                if over {
                    vfs.reap(ino);
                    return Ok::<(), Error>(());
                }
            }
        });
    }

    /// Takes the final mark if the lease is granted. `false`: somebody can still write.
    pub(super) async fn end_session(&self, ino: Ino, state: &mut Locked) -> Result<bool> {
        if state.writers > 0 {
            return Ok(false);
        }
        let Some(session) = state.session.clone() else { return Ok(true) };
        let (backing, file) = match self.inner.backing_file(ino) {
            Ok(found) => found,
            Err(Error::NotFound) => {
                // Unlinked and forgotten: nothing is left to be marked.
                self.inner.live.remove(ino);
                state.session = None;
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let partial = self.is_partial(ino);
        // The kernel never had a file that is not wholly here; we have it open for writing ourselves.
        if !partial && !self.inner.cache.is_quiescent(&file)? {
            return Ok(false);
        }
        let now = self.with_synced(ino, self.mark_now(ino, &file)?)?;
        // As a version left it that somebody waited for: that one's attempts are this content's.
        let version = session.version.filter(|version| !partial && version.exact && same_mark(&version.mark, &now));
        let session = settled_by_writes(session, state);
        let verdict = judge(&session, partial || !same_mark(&now, &session.base));
        // As its last close found it, when there was room: nobody can have met a full disk since.
        let closed_so = self.with_inode(ino, |inode| inode.row.mark)?.is_some_and(|marked| same_mark(&marked, &now));
        let full = verdict == Verdict::Closed && !closed_so && self.disk_is_full();
        let verdict = if full { Verdict::Held(Hold::DiskFull) } else { verdict };
        let key = || self.inner.namespace.read(|tree| tree.held_key(ino));
        let tagged_as = key();
        let now = version.map_or(now, |version| version.mark);
        // Programs see the times of before: to them nothing changes when a closed file is tagged.
        let seen = now;
        let now = if verdict == Verdict::Closed && !partial { self.tag_closed(ino, &file, now)? } else { now };
        let ((linked, clean), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let Some(inode) = tree.get_mut(ino) else { return (false, false) };
            inode.offered = None;
            let there =
                |inode: &Inode, generation| inode.row.remote.is_some() && inode.row.remote_generation == generation;
            match (verdict, version) {
                // What the bucket has already is not held back from it.
                (verdict, Some(version))
                    if !matches!(verdict, Verdict::Held(_)) || there(inode, version.generation) =>
                {
                    inode.row.content = Content::Closed;
                    inode.row.generation = version.generation;
                    inode.row.mark = Some(now);
                    inode.row.hold = None;
                    take_times(inode, &seen);
                }
                (Verdict::Unchanged, _) => restore(inode, &session.prior),
                (Verdict::Closed, _) => {
                    inode.row.content = Content::Closed;
                    inode.row.mark = Some(now);
                    inode.row.hold = None;
                    take_times(inode, &seen);
                }
                (Verdict::Held(hold), _) => {
                    inode.row.content = Content::Torn;
                    inode.row.mark = Some(now);
                    inode.row.hold = Some(hold);
                    take_times(inode, &now);
                }
            }
            if inode.row.content == Content::Closed && there(inode, inode.row.generation) {
                inode.row.content = Content::Clean;
                inode.row.mark = None;
            }
            let (linked, content) = (inode.row.linked, inode.row.content);
            if linked {
                tree.persist(ino, ops);
            }
            if !partial && verdict != Verdict::Unchanged && content != Content::Torn {
                // What was written is no copy: the store must not put the other's content in its place.
                tree.set_copied(ino, None, ops);
            }
            (linked, content == Content::Clean)
        });
        commit.in_background();
        self.inner.live.remove(ino);
        state.session = None;
        if key() != tagged_as {
            // Renamed in between, before its row said that a tag was there to be changed.
            self.tag_moved(ino)?;
        }
        if clean {
            self.inner.cache.to_clean(backing, now.size)?;
        } else {
            self.inner.cache.tell(backing, now.size, false);
        }
        if let (Verdict::Held(hold), false) = (verdict, clean) {
            let path = self.inner.namespace.read(|tree| tree.shown_path(ino));
            tracing::warn!(path, ?hold, "held: not uploaded until a program writes it anew");
        }
        if linked {
            // Clean too: what was renamed or had its mode changed while it was open has waited.
            self.inner.uploader.changed(ino);
            if !clean {
                if session.version.is_some() {
                    self.inner.uploader.overdue(ino);
                }
                self.sync_soon(ino);
            }
            if partial {
                self.fill_later(ino, state, Duration::ZERO);
            }
        }
        Ok(true)
    }

    /// J5: should the journal be lost, the file itself says that it was closed. That moves the file's
    /// ctime, hence the mark; one that counts after a power cut stays as it is on the disk.
    pub(super) fn tag_closed(&self, ino: Ino, file: &File, marked: Mark) -> Result<Mark> {
        if marked.synced {
            return Ok(marked);
        }
        let closed = TagState::Closed(self.inner.options.boot_id.clone());
        let Some(tag) = self.inner.namespace.read(|tree| Vfs::tag(tree, ino, closed)) else { return Ok(marked) };
        self.inner.cache.retag(file, &tag)?;
        failpoint::hit(failpoint::CLOSE_AFTER_TAG);
        Ok(mark(file)?)
    }

    /// A mark that a flush or an fsync has synced stays so while nothing has moved since.
    fn with_synced(&self, ino: Ino, now: Mark) -> Result<Mark> {
        let marked = self.with_inode(ino, |inode| inode.row.mark)?;
        let synced = marked.is_some_and(|marked| marked.synced && same_mark(&marked, &now));
        Ok(Mark { synced, ..now })
    }

    /// fsync off the async threads; the mark then counts after a power cut too (C5). Not fdatasync,
    /// which may leave the times on the disk behind, and they are part of the mark.
    pub(super) async fn sync_backing(&self, file: File, marked: Mark) -> Result<Mark> {
        let synced = tokio::task::spawn_blocking(move || disk::sync_file(&file))
            .await
            .map_err(|error| Error::Io(std::io::Error::other(error.to_string())))?;
        synced?;
        Ok(Mark { synced: true, ..marked })
    }

    pub(super) fn disk_is_full(&self) -> bool {
        self.inner.cache.disk_space().is_ok_and(|space| space.available.saturating_mul(space.block_size) < DISK_FULL)
    }
}

/// Bytes that were missing for good do not count once programs have written all of them.
fn settled_by_writes(mut session: Session, state: &Locked) -> Session {
    if state.fill.as_ref().is_none_or(|(fill, _)| fill.is_full()) {
        session.hold = session.hold.filter(|hold| *hold != Hold::Incomplete);
        session.prior.hold = session.prior.hold.filter(|hold| *hold != Hold::Incomplete);
    }
    session
}

/// C6: signals that end a program in the middle of what it was doing.
fn is_fatal(signal: Option<i32>) -> bool {
    matches!(signal, Some(libc::SIGKILL | libc::SIGSEGV | libc::SIGBUS | libc::SIGABRT | libc::SIGXFSZ))
}

/// Nothing was written: as it was.
pub(super) fn restore(inode: &mut Inode, prior: &Prior) {
    inode.row.content = prior.content;
    inode.row.generation = prior.generation;
    inode.row.mark = prior.mark;
    inode.row.hold = prior.hold;
}

/// The inode's size and times from its backing file.
pub(super) fn take_times(inode: &mut Inode, now: &Mark) {
    inode.row.size = now.size;
    if inode.row.attrs.mtime != now.mtime {
        inode.row.attrs.mtime = now.mtime;
        inode.row.attr_generation += 1;
    }
    inode.row.ctime = inode.row.ctime.max(now.ctime);
}
