//! copy_file_range(2) (C8): what is here is copied from backing file to backing file; whole files that are in the
//! bucket only, by the store (see `copied`).

use crate::disk;
use crate::journal::Content;
use crate::task::interruptible;
use crate::types::Ino;

use super::Vfs;
use super::error::{Error, Result};
use super::handles::Source;
use super::io::off_thread;
use super::reply::Place;

/// Bytes copied by one request: nothing interrupts it, and a program repeats it at once.
const AT_ONCE: u64 = 64 << 20;

impl Vfs {
    /// copy_file_range(2): bytes copied, fewer than `length` where the source ends or it takes long.
    ///
    /// # Errors
    /// [`Error::NotSupported`]: the kernel copies by reading and writing.
    pub async fn copy_file_range(&self, from: Place, to: Place, length: u64) -> Result<u32> {
        self.may_change()?;
        let source = self.inner.handles.get(from.fh).ok_or(Error::BadHandle)?;
        let target = self.inner.handles.get(to.fh).ok_or(Error::BadHandle)?;
        if !target.write {
            return Err(Error::BadHandle);
        }
        if let Source::Fill(fill) = &source.source {
            let mut state = interruptible(self.inner.locks.lock(to.ino)).await?;
            let copied = self.copy_by_store(from, to, length, target.sync, fill, &mut state).await;
            self.inner.locks.release(to.ino, state);
            return copied;
        }
        let length = length.min(AT_ONCE);
        // Beyond the largest offset neither file has a byte; the kernel has cut the length to the source's size.
        let (Some(from_end), Some(to_end)) = (from.offset.checked_add(length), to.offset.checked_add(length)) else {
            return Err(Error::TooLarge);
        };
        if from.ino == to.ino && from.offset < to_end && to.offset < from_end {
            return Err(Error::Invalid);
        }
        if !matches!(target.source, Source::Fill(_)) {
            let (_, from_file) = self.inner.backing_file(from.ino)?;
            let there = disk::fstat(&from_file)?.size.saturating_sub(from.offset).min(length);
            let (backing, _) = self.inner.backing_file(to.ino)?;
            self.make_room_to_grow(backing, to.offset..to.offset + there).await?;
        }
        let state = interruptible(self.inner.locks.lock(to.ino)).await?;
        let copied = if state.fill.is_some() {
            // By write requests, which mark what they write (C7).
            Err(Error::NotSupported)
        } else {
            self.copy_here(from, to, length).await
        };
        self.inner.locks.release(to.ino, state);
        let copied = copied?;
        if target.sync {
            self.do_fsync(to.ino).await?;
        }
        u32::try_from(copied).map_err(|_| Error::TooLarge)
    }

    /// From one backing file to another. A crash in between leaves a torn file, as in the middle of writes.
    async fn copy_here(&self, from: Place, to: Place, length: u64) -> Result<u64> {
        self.unmark(to.ino).await?;
        let (_, source) = self.inner.backing_file(from.ino)?;
        let (backing, _) = self.inner.backing_file(to.ino)?;
        let target = self.inner.cache.open_write(backing)?;
        let copied = off_thread(move || {
            disk::sparing(&target, length, || disk::copy_range(&source, from.offset, &target, to.offset, length))
        })
        .await;
        self.note_size(to.ino, backing).await?;
        copied.map_err(|error| match error {
            // Two filesystems, or one that cannot: the kernel copies through its memory.
            Error::Io(error) if matches!(disk::errno(&error), Some(libc::EXDEV | libc::EOPNOTSUPP | libc::ENOSYS)) => {
                Error::NotSupported
            }
            other => other,
        })
    }

    /// C2, J2: before a change of which we hear, a provisional mark goes; one that counts after a power cut goes from
    /// the disk too.
    pub(super) async fn unmark(&self, ino: Ino) -> Result<()> {
        let (content, synced) =
            self.with_inode(ino, |inode| (inode.row.content, inode.row.mark.is_some_and(|mark| mark.synced)))?;
        if content == Content::Flushed {
            self.take_mark_back(ino, None).await?;
            if synced {
                self.inner.namespace.barrier().await?;
            }
        }
        Ok(())
    }
}
