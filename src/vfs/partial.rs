//! Writing into large files of which most is in the bucket only (C7).
//!
//! Such a file is served by us (DIRECT_IO) from a sparse backing file. What a program writes is marked
//! as its own, byte for byte, so that nothing has to be fetched for a write; everything else is the
//! base's: the remote version that was there when the first program wrote. The steps of a write, and
//! what a crash after each leaves:
//!
//! 1. The row says `open`, with what the file lacks: torn, with the base's bytes.
//! 2. The bytes are in the backing file: the same, since no row calls them a program's. The write was
//!    never acknowledged.
//! 3. The file's own tag (J5): the same, and without the journal torn, with the write.
//! 4. The extent's row: torn, with the write.
//! 5. The answer.
//!
//! Only the daemon can write to such a backing file: the kernel never gets it. So neither the lease nor
//! the file's times tell anything (the fill moves them): the inode's own row has size and times.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{PARTLY_RANGES, Partly, Tag, TagState, mark};
use crate::disk;
use crate::download::{Extents, Fill, Kept};
use crate::journal::{Content, Durability, ExtentRow, Mark, Op, PartialRow, Remote};
use crate::namespace::{Inode, Mapping};
use crate::task::interruptible;
use crate::types::{BackingNo, Ino, TimeNs};

use super::Vfs;
use super::error::{Error, Result};
use super::filler::FILL_AFTER;
use super::io::off_thread;
use super::locks::Locked;
use super::session::{Prior, Session};

impl Vfs {
    /// Its content is too large to be fetched before somebody is served, or is still arriving.
    pub(super) fn is_partly_here(&self, ino: Ino, state: &Locked) -> Result<bool> {
        let large = self.with_inode(ino, |inode| {
            inode.partial.is_some()
                || (inode.row.content == Content::Absent && inode.row.size > self.inner.options.whole_below)
        })?;
        Ok(large || state.fill.is_some())
    }

    /// What serves such a file, begun or taken up again if nobody has it open.
    pub(super) async fn ensure_fill(&self, ino: Ino, state: &mut Locked) -> Result<(Fill, BackingNo)> {
        if let Some(fill) = &state.fill {
            return Ok(fill.clone());
        }
        let held = self.with_inode(ino, |inode| inode.partial.clone().zip(inode.row.backing))?;
        let fill = match held {
            Some((partial, backing)) => (self.resume_fill(ino, &partial, backing).await?, backing),
            None => self.begin_fill(ino).await?,
        };
        state.fill = Some(fill.clone());
        Ok(fill)
    }

    async fn begin_fill(&self, ino: Ino) -> Result<(Fill, BackingNo)> {
        let (mapping, remote) = self.remote(ino)?;
        if mapping.is_offline() {
            return Err(Error::Offline);
        }
        self.make_room(remote.size).await?;
        let (backing, file) = self.inner.cache.create_clean(remote.size)?;
        // Its length is the logical one from the start: no row names it yet, later ones rely on it.
        if let Err(error) = disk::truncate(&file, remote.size) {
            self.inner.cache.discard(backing);
            return Err(error.into());
        }
        Ok((self.inner.downloader.fill(&mapping.store, remote, Arc::new(file)), backing))
    }

    async fn resume_fill(&self, ino: Ino, partial: &PartialRow, backing: BackingNo) -> Result<Fill> {
        let mapping = self.mapping(ino)?;
        let remote = self.inner.namespace.read(|tree| {
            let gone = |key| Remote {
                key,
                etag: partial.etag.clone(),
                size: partial.size,
                crc64: None,
                version_id: None,
                last_modified: None,
            };
            // After a scan it may be that the bucket has nothing there any more.
            tree.get(ino).and_then(|inode| inode.origin().cloned()).or_else(|| tree.held_key(ino).map(gone))
        });
        let remote = remote.ok_or(Error::NotFound)?;
        let journal = self.inner.namespace.journal().clone();
        let rows = tokio::task::spawn_blocking(move || journal.extents(ino)).await;
        let rows = rows.map_err(|error| Error::Io(std::io::Error::other(error.to_string())))??;
        let file = self.inner.cache.open_write(backing)?;
        let length = disk::fstat(&file)?.size;
        // Cut, and the row of the cut did not come to be: the cut was never acknowledged, but it was
        // made.
        let mut kept = Kept { end: partial.end.min(length), length, ..Kept::nothing(partial.size) };
        for row in rows {
            let extents: &mut Extents = if row.fetched { &mut kept.fetched } else { &mut kept.written };
            extents.insert(row.start..row.end.min(kept.end).max(row.start));
        }
        // Asked for by the base's ETag: should the row mean another version by now, the store says so.
        let crc64 = remote.crc64.filter(|_| remote.etag == partial.etag);
        let base = Remote { etag: partial.etag.clone(), size: partial.size, crc64, ..remote };
        Ok(self.inner.downloader.resume(&mapping.store, base, Arc::new(file), kept))
    }

    pub(super) fn mapping(&self, ino: Ino) -> Result<Arc<Mapping>> {
        self.inner.namespace.read(|tree| tree.mapping_of(ino).cloned()).ok_or(Error::NotFound)
    }

    /// Step 1: nothing of the file changes before its row says so (C2, J2).
    pub(super) async fn begin_partly(&self, ino: Ino, state: &mut Locked) -> Result<Fill> {
        let (fill, backing) = self.ensure_fill(ino, state).await?;
        if state.session.is_some() {
            self.unmark(ino).await?;
            return Ok(fill);
        }
        let synced = self.with_inode(ino, |inode| inode.row.mark.is_some_and(|mark| mark.synced))?;
        // Before its row: an orphan in either place is swept up.
        self.inner.cache.to_dirty(backing)?;
        state.told = None;
        self.tag_partly(ino, &fill, state)?;
        let base = mark(&self.inner.cache.open_read(backing)?)?;
        let durability = if synced { Durability::Disk } else { Durability::Buffered };
        let remote = fill.remote().clone();
        let (begun, commit) = self.inner.namespace.update(durability, |tree, ops| {
            let inode = tree.get_mut(ino).ok_or(Error::NotFound)?;
            let row = &inode.row;
            let prior = Prior { content: row.content, generation: row.generation, mark: row.mark, hold: row.hold };
            inode.row.content = Content::Open;
            inode.row.generation += 1;
            inode.row.mark = None;
            inode.row.backing = Some(backing);
            let lacks = inode.partial.is_some();
            tree.persist(ino, ops);
            if !lacks {
                let at = |origin: &Remote| (&origin.key, &origin.etag) == (&remote.key, &remote.etag);
                if !tree.get(ino).and_then(Inode::origin).is_some_and(at) {
                    // Renamed or copied meanwhile by the store: the base is where it was fetched from.
                    tree.set_copied(ino, Some(remote.clone()), ops);
                }
                let (etag, size) = (remote.etag, remote.size);
                tree.set_partial(ino, Some(PartialRow { ino, etag, size, end: size }), ops);
            }
            Ok::<_, Error>(prior)
        });
        let prior = begun?;
        commit.durable().await?;
        state.session = Some(Session::new(base, false, prior, self.monotonic()));
        self.fill_later(ino, state, FILL_AFTER);
        Ok(fill)
    }

    /// A write to a file that is not wholly here; `None`: it is by now.
    pub(super) async fn write_partly(&self, ino: Ino, offset: u64, data: Bytes) -> Result<Option<u32>> {
        let length = u32::try_from(data.len()).map_err(|_| Error::Invalid)?;
        let end = offset.checked_add(u64::from(length)).ok_or(Error::TooLarge)?;
        let mut state = interruptible(self.inner.locks.lock(ino)).await?;
        let written = if state.fill.is_some() {
            self.change_partly(ino, offset..end, &mut state, move |file| {
                disk::sparing(file, u64::from(length), || std::os::unix::fs::FileExt::write_all_at(file, &data, offset))
            })
            .await
            .map(|()| Some(length))
        } else {
            Ok(None)
        };
        self.inner.locks.release(ino, state);
        written
    }

    /// fallocate(2) of a file that is not wholly here.
    pub(super) async fn fallocate_partly(
        &self,
        ino: Ino,
        range: Range<u64>,
        mode: i32,
        state: &mut Locked,
    ) -> Result<()> {
        let (offset, length) = (range.start, range.end - range.start);
        let allocate =
            move |file: &std::fs::File| disk::sparing(file, length, || disk::fallocate(file, mode, offset, length));
        let fill = self.begin_partly(ino, state).await?;
        // What is below the end and only kept stays as it is.
        let keeps = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let changed = if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
            // J2: a punched hole is a cut; the row of the session is on disk first.
            self.inner.namespace.barrier().await?;
            let end = if keeps { range.end.min(fill.length()) } else { range.end };
            range.start.min(end)..end
        } else if keeps {
            0..0
        } else {
            range.end..range.end
        };
        self.change_partly(ino, changed, state, allocate).await
    }

    /// Steps 1 to 4 of any change that makes a range the program's.
    async fn change_partly(
        &self,
        ino: Ino,
        range: Range<u64>,
        state: &mut Locked,
        change: impl FnOnce(&std::fs::File) -> std::io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let fill = self.begin_partly(ino, state).await?;
        let claimed = fill.claim(range);
        let file = fill.file().clone();
        if let Err(error) = off_thread(move || change(&file)).await {
            self.disclaim(ino, &fill, &claimed, state).await?;
            return Err(error);
        }
        let extent = claimed.first().and_then(|first| fill.written_around(first.start));
        self.tag_partly(ino, &fill, state)?;
        self.note_change(ino, &fill, extent).await
    }

    /// A failed change may have left anything where it was to be: the base's bytes are fetched again.
    async fn disclaim(&self, ino: Ino, fill: &Fill, claimed: &[Range<u64>], state: &mut Locked) -> Result<()> {
        let Some((_, backing)) = &state.fill else { return Ok(()) };
        let backing = *backing;
        fill.cancel().await;
        let mut kept = fill.kept();
        kept.disclaim(claimed);
        kept.length = disk::fstat(fill.file())?.size;
        self.replace_fill(ino, fill, backing, kept, state)
    }

    /// Goes on with what is kept, from where the base is now.
    pub(super) fn replace_fill(
        &self,
        ino: Ino,
        old: &Fill,
        backing: BackingNo,
        kept: Kept,
        state: &mut Locked,
    ) -> Result<()> {
        self.refill(ino, old.remote().clone(), old.file().clone(), backing, kept, state)
    }

    /// Serves a file from what is kept of it, and from the object that the rest is of.
    pub(super) fn refill(
        &self,
        ino: Ino,
        origin: Remote,
        file: Arc<std::fs::File>,
        backing: BackingNo,
        kept: Kept,
        state: &mut Locked,
    ) -> Result<()> {
        let mapping = self.mapping(ino)?;
        let fill = self.inner.downloader.resume(&mapping.store, origin, file, kept);
        state.fill = Some((fill.clone(), backing));
        self.inner.handles.replace_fill(ino, &fill);
        Ok(())
    }

    /// ftruncate(2), truncate(2) and O_TRUNC of a file that is not wholly here.
    pub(super) async fn truncate_partly(&self, ino: Ino, size: u64, state: &mut Locked) -> Result<()> {
        let fill = self.begin_partly(ino, state).await?;
        // J2: the row is on disk before the file is cut.
        self.inner.namespace.barrier().await?;
        let cut = fill.clone();
        off_thread(move || cut.set_length(size)).await?;
        self.tag_partly(ino, &fill, state)?;
        self.note_change(ino, &fill, None).await
    }

    /// Step 4; the answer waits for it.
    async fn note_change(&self, ino: Ino, fill: &Fill, extent: Option<Range<u64>>) -> Result<()> {
        let wall = self.now();
        let (length, end) = (fill.length(), fill.end());
        let (backing, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let inode = tree.get_mut(ino)?;
            inode.row.size = length;
            inode.row.attrs.mtime = wall;
            inode.row.attr_generation += 1;
            inode.row.ctime = wall;
            let (backing, partial) = (inode.row.backing, inode.partial.clone());
            // Memory and row alike: the row follows with the next mark.
            ops.extend(extent.map(|range| extent_row(ino, range, false)));
            tree.set_partial(ino, partial.map(|partial| PartialRow { end, ..partial }), ops);
            backing
        });
        if let Some(backing) = backing {
            self.inner.cache.tell(backing, length, false);
        }
        Ok(commit.durable().await?)
    }

    /// J5: should the journal be lost, the file itself tells that it is not its whole content, and what
    /// programs wrote of it. Before the row of a change, as that row is before the answer: what a program
    /// was told is safe, both tell.
    pub(super) fn tag_partly(&self, ino: Ino, fill: &Fill, state: &mut Locked) -> Result<()> {
        let base = fill.remote();
        let written = fill.written(PARTLY_RANGES);
        let here = Partly { base: base.etag.clone(), size: base.size, end: fill.end(), written };
        let now = TagState::Partly(self.inner.options.boot_id.clone(), here);
        let Some(tag) = self.inner.namespace.read(|tree| Vfs::tag(tree, ino, now)) else { return Ok(()) };
        let same = |told: &Tag| (&told.key, &told.state) == (&tag.key, &tag.state);
        if !state.told.as_ref().is_some_and(same) {
            // A failure in between leaves nothing to compare with.
            state.told = None;
            self.inner.cache.retag(fill.file(), &tag)?;
            state.told = Some(tag);
        }
        Ok(())
    }

    /// How an inode's backing file looks now. Of one that is not wholly here the row tells the times.
    pub(super) fn mark_now(&self, ino: Ino, file: &std::fs::File) -> Result<Mark> {
        let found = mark(file)?;
        let told: Option<(TimeNs, TimeNs)> =
            self.with_inode(ino, |inode| inode.partial.as_ref().map(|_| (inode.row.attrs.mtime, inode.row.ctime)))?;
        Ok(told.map_or(found, |(mtime, ctime)| Mark { mtime, ctime, ..found }))
    }

    /// Parts of its dirty content are in the bucket only.
    pub(super) fn is_partial(&self, ino: Ino) -> bool {
        self.with_inode(ino, |inode| inode.partial.is_some()).unwrap_or(false)
    }
}

/// The row of an extent.
pub(super) fn extent_row(ino: Ino, range: Range<u64>, fetched: bool) -> Op {
    Op::PutExtent(ExtentRow { ino, start: range.start, end: range.end, fetched })
}
