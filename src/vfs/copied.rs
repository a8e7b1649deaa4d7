//! Copies that the store makes: copy_file_range(2) of what is in the bucket only fetches nothing.
//!
//! The new file becomes one that is partly here (C7), with the other's object as its base, up to where it was
//! copied. If it is closed as that object is, it has no content of its own, and the uploader has the store copy
//! the object to its key (R2, R4); until then it is read from the other's. Steps, and what a crash before each
//! leaves:
//!
//! 1. The row: what it is a copy of, and how much of it. Before: an empty file, open, hence torn.
//! 2. The file's own tag (J5). Before: torn; without the journal, an empty file that was open.
//! 3. The file's length. Before: torn, and cut to the length that it has.
//! 4. The close. Before: torn, with the base's bytes.
//! 5. The row: nothing of it is here. Before: closed and partly here; the next start takes this step.
//! 6. Its backing file goes. Before: swept up.

use std::sync::Arc;
use std::time::Duration;

use crate::disk;
use crate::download::{Fill, Kept};
use crate::journal::{Content, Durability, Hold, PartialRow, Remote};
use crate::namespace::{Inode, Tree};
use crate::store::{HeadOptions, ObjectMeta};
use crate::task::interruptible;
use crate::types::{BackingNo, Ino};
use crate::upload::{Cause, NotUploaded};

use super::error::{Error, Result};
use super::filler::FILL_AFTER;
use super::io::off_thread;
use super::locks::Locked;
use super::reply::{Caller, Place};
use super::session::Mode;
use super::{ClosePolicy, Vfs};

/// The most that one request can say it has copied, whole pages of 32 bits.
const LARGEST: u64 = 0xffff_f000;

/// Pauses before a copy is waited for again that the store has failed to make; then the wait fails.
const REPEATS: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

impl Vfs {
    /// Who reads a file that is not wholly here, and makes another, may be about to copy it. The kernel must not get
    /// that one's backing file then: it would serve what the store is to copy from where it is not.
    pub(super) fn may_copy(&self, caller: Caller) -> bool {
        self.inner.handles.is_reading(None)
            && disk::process_of(caller.pid).is_some_and(|process| self.inner.handles.is_reading(Some(process)))
    }

    /// Steps 1 to 3 of a copy, or of its continuation. `fill` serves the file that is copied; `is_sync`: the
    /// other's handle is synchronous.
    ///
    /// # Errors
    /// [`Error::NotSupported`]: not so; the kernel then copies by reads, which fetch, and writes.
    pub(super) async fn copy_by_store(
        &self,
        from: Place,
        to: Place,
        length: u64,
        is_sync: bool,
        fill: &Fill,
        state: &mut Locked,
    ) -> Result<u32> {
        let origin = fill.remote().clone();
        let length = length.min(LARGEST).min(origin.size.saturating_sub(to.offset));
        let served_by_us = !matches!(state.mode, Some(Mode::Passthrough(_)));
        // A close that waits for the disk or the bucket waits for content of its own, and so does each request
        // through a synchronous handle (P1).
        let waits = self.inner.options.close != ClosePolicy::Process || is_sync;
        let may = served_by_us && !waits && from.offset == to.offset;
        let Some(place) = self.place_of_copy(to, &origin, length, state)?.filter(|_| may && length > 0) else {
            return Err(Error::NotSupported);
        };
        // What is believed of it may be old; reading would tell.
        let mapping = self.mapping(from.ino)?;
        let found = interruptible(mapping.store.head(&origin.key, HeadOptions::default())).await?;
        mapping.observe(&found);
        let same = |found: &ObjectMeta| found.etag == origin.etag && found.size == origin.size;
        if !found.is_ok_and(|found| same(&found) && !is_archived(&found)) {
            return Err(Error::NotSupported);
        }
        self.unmark(to.ino).await?;
        let kept = match &state.fill {
            Some((old, _)) => {
                old.cancel().await;
                old.kept()
            }
            None => Kept::nothing(origin.size),
        };
        let end = to.offset + length;
        let kept = Kept { end, length: end, ..kept };
        let wall = self.now();
        let (begun, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if !can_be_copied(tree, from.ino, to.ino, &origin) {
                return false;
            }
            let Some(inode) = tree.get_mut(to.ino) else { return false };
            inode.row.content = Content::Open;
            inode.row.generation += 1;
            inode.row.size = end;
            inode.row.attrs.mtime = wall;
            inode.row.attr_generation += 1;
            inode.row.ctime = wall;
            tree.persist(to.ino, ops);
            let (etag, size) = (origin.etag.clone(), origin.size);
            tree.set_copied(to.ino, Some(origin.clone()), ops);
            tree.set_partial(to.ino, Some(PartialRow { ino: to.ino, etag, size, end }), ops);
            true
        });
        commit.durable().await?;
        let file = match &state.fill {
            Some((old, _)) => old.file().clone(),
            None => Arc::new(self.inner.cache.open_write(place)?),
        };
        if !begun {
            if let Some((old, backing)) = state.fill.clone() {
                // Its fetches were stopped.
                self.replace_fill(to.ino, &old, backing, old.kept(), state)?;
            }
            return Err(Error::NotSupported);
        }
        self.refill(to.ino, origin, file.clone(), place, kept, state)?;
        self.inner.live.remove(to.ino);
        if let Some((fill, _)) = state.fill.clone() {
            self.tag_partly(to.ino, &fill, state)?;
        }
        off_thread(move || disk::truncate(&file, end)).await?;
        self.fill_later(to.ino, state, FILL_AFTER);
        u32::try_from(length).map_err(|_| Error::TooLarge)
    }

    /// The backing file of what is to become a copy, or a longer one: empty so far, or with nothing but the copy of
    /// the same version up to this very place. Small beginnings are not worth it: they may be all that is copied.
    fn place_of_copy(&self, to: Place, origin: &Remote, length: u64, state: &Locked) -> Result<Option<BackingNo>> {
        let same = |other: &Remote| (&other.key, &other.etag) == (&origin.key, &origin.etag);
        if let Some((fill, backing)) = &state.fill {
            let copied = self.with_inode(to.ino, |inode| inode.copied.as_ref().is_some_and(same))?;
            let kept = fill.kept();
            let so_far = is_untouched(&kept) && (kept.end, kept.length) == (to.offset, to.offset);
            return Ok((copied && so_far && same(fill.remote())).then_some(*backing));
        }
        let fresh = state.session.as_ref().is_some_and(|session| session.fresh);
        if !fresh || to.offset > 0 || length < origin.size.min(self.inner.options.whole_below) {
            return Ok(None);
        }
        let (backing, file) = self.inner.backing_file(to.ino)?;
        Ok((disk::fstat(&file)?.size == 0).then_some(backing))
    }

    /// Steps 5 and 6, if a file is closed and nothing but a copy of its whole base. `false`: it is not.
    pub(super) async fn settle_copy(
        &self,
        ino: Ino,
        fill: &Fill,
        backing: BackingNo,
        state: &mut Locked,
    ) -> Result<bool> {
        let kept = fill.kept();
        let size = fill.remote().size;
        if state.session.is_some() || !is_untouched(&kept) || (kept.end, kept.length) != (size, size) {
            return Ok(false);
        }
        let (settled, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let Some(inode) = tree.get_mut(ino) else { return false };
            let row = &mut inode.row;
            if inode.copied.is_none() || row.content != Content::Closed || !row.linked {
                return false;
            }
            row.content = Content::Absent;
            row.backing = None;
            row.mark = None;
            row.size = size;
            tree.persist(ino, ops);
            tree.set_partial(ino, None, ops);
            true
        });
        if !settled {
            commit.in_background();
            return Ok(false);
        }
        commit.durable().await?;
        state.told = None;
        if state.count == 0 {
            fill.cancel().await;
            state.fill = None;
            self.trash(Some(backing));
        } else {
            // Whoever reads it goes on, from what is a cached object's beginning now.
            self.inner.namespace.barrier().await?;
            self.inner.cache.to_clean(backing, size)?;
        }
        self.inner.uploader.changed(ino);
        // Until it is made another host can take its content away.
        self.inner.uploader.overdue(ino);
        Ok(true)
    }

    /// P1: returns when a copy has content of its own, here whole or in the bucket: what stands at another's key
    /// only is not as safe as on a local disk, since another host may replace it.
    pub(super) async fn own_content(&self, ino: Ino) -> Result<()> {
        let mut pauses = REPEATS.into_iter();
        while self.with_inode(ino, Inode::is_borrowed)? {
            if self.is_partial(ino) {
                self.make_whole(ino).await?;
                continue;
            }
            let failed = match self.inner.uploader.copy_now(ino).await {
                Ok(()) => continue,
                Err(failed) => failed,
            };
            let pause = pauses.next().filter(|_| matches!(failed, NotUploaded::Failed(Cause::Store, _)));
            tokio::time::sleep(pause.ok_or(failed)?).await;
        }
        Ok(())
    }

    /// What serves an open file whose object has moved: the same bytes under another key or ETag (R6).
    pub(super) async fn follow(&self, ino: Ino, fill: &Fill) -> Result<Option<Fill>> {
        let mut state = interruptible(self.inner.locks.lock(ino)).await?;
        let followed = self.follow_locked(ino, fill, &mut state).await;
        let now = state.fill.as_ref().map(|(now, _)| now.clone());
        self.inner.locks.release(ino, state);
        followed?;
        Ok(now.filter(|now| !now.is(fill)))
    }

    async fn follow_locked(&self, ino: Ino, fill: &Fill, state: &mut Locked) -> Result<()> {
        let Some((_, backing)) = state.fill.as_ref().filter(|(current, _)| current.is(fill)) else { return Ok(()) };
        let backing = *backing;
        let old = fill.remote();
        let moved = self.with_inode(ino, |inode| {
            let origin = inode.origin().filter(|_| inode.row.content == Content::Absent)?;
            let same = (origin.size, origin.crc64) == (old.size, old.crc64) && old.crc64.is_some();
            (same && (&origin.key, &origin.etag) != (&old.key, &old.etag)).then(|| origin.clone())
        })?;
        let Some(origin) = moved else { return Ok(()) };
        fill.cancel().await;
        let mapping = self.mapping(ino)?;
        let moved = self.inner.downloader.moved(&mapping.store, origin, fill);
        state.fill = Some((moved.clone(), backing));
        self.inner.handles.replace_fill(ino, &moved);
        Ok(())
    }
}

/// It may have to be restored before it can be copied, which the program is to hear: by its read.
fn is_archived(found: &ObjectMeta) -> bool {
    let class = found.storage_class.as_deref().unwrap_or_default();
    class.contains("ARCHIVE") || class.contains("GLACIER")
}

/// No program has written to it.
fn is_untouched(kept: &Kept) -> bool {
    kept.written.iter().next().is_none()
}

/// The store can be asked for a copy of this version: no step that changes its key is under way or waits, and from
/// now on none begins.
fn can_be_copied(tree: &Tree, from: Ino, to: Ino, origin: &Remote) -> bool {
    let (Some(source), Some(target)) = (tree.get(from), tree.get(to)) else { return false };
    let current = source.origin().is_some_and(|now| (&now.key, &now.etag) == (&origin.key, &origin.etag));
    let settled = source.copied.is_some() || !(tree.is_pending(from) || source.attempting);
    current
        && settled
        && source.row.linked
        && source.row.content == Content::Absent
        && source.row.target == target.row.target
        && target.row.hold != Some(Hold::Incomplete)
        && tree.removal(source.row.target, &origin.key).is_none()
}
