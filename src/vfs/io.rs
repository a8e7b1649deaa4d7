//! Reads and writes that come to us, and what the kernel leaves to us on passthrough files too:
//! fsync, fallocate, SEEK_HOLE and SEEK_DATA (C8). Copies from file to file are in `copy`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::same_mark;
use crate::disk;
use crate::download;
use crate::journal::{Content, Durability, Hold};
use crate::task::interruptible;
use crate::types::{BackingNo, Ino};
use crate::upload::Scope;

use super::error::{Error, Result};
use super::handles::Source;
use super::push::Why;
use super::reply::SetAttr;
use super::{FsyncPolicy, Vfs};

/// Larger transfers leave the async threads: they take longer than a thread switch.
const INLINE: usize = 128 << 10;

pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Error::Io(io::Error::other(error.to_string())))??)
}

fn read_at(file: &File, offset: u64, size: u32) -> io::Result<Bytes> {
    let mut buffer = vec![0; size as usize];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(Bytes::from(buffer))
}

async fn write_at(file: &Arc<File>, data: &Bytes, offset: u64) -> Result<()> {
    let write =
        move |file: &File, data: &[u8]| disk::sparing(file, data.len() as u64, || file.write_all_at(data, offset));
    if data.len() <= INLINE {
        return Ok(write(file, data)?);
    }
    let (file, data) = (file.clone(), data.clone());
    off_thread(move || write(&file, &data)).await
}

/// What such an error of the disk makes of the content.
pub(super) fn failure(error: &Error) -> Option<Hold> {
    match error {
        error if is_full(error) => Some(Hold::DiskFull),
        Error::Io(error) if matches!(disk::errno(error), Some(libc::EIO | libc::EROFS)) => Some(Hold::DiskFailed),
        _ => None,
    }
}

/// There was no room, in the cache or on the disk.
fn is_full(error: &Error) -> bool {
    match error {
        Error::NoSpace => true,
        Error::Io(error) => matches!(disk::errno(error), Some(libc::ENOSPC | libc::EDQUOT)),
        _ => false,
    }
}

impl Vfs {
    pub(super) async fn do_read(&self, fh: u64, offset: u64, size: u32) -> Result<Bytes> {
        let handle = self.inner.handles.get(fh).ok_or(Error::BadHandle)?;
        match handle.source {
            Source::File(file) if size as usize <= INLINE => Ok(read_at(&file, offset, size)?),
            Source::File(file) => off_thread(move || read_at(&file, offset, size)).await,
            Source::Fill(mut fill) => loop {
                if !fill.is_here(offset, size) && self.mapping(handle.ino)?.is_offline() {
                    return Err(Error::Offline);
                }
                let error = match interruptible(fill.read(offset, size)).await? {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => error,
                };
                use download::Error::{Cancelled, Changed, Gone};
                if matches!(error, Changed(_) | Gone(_) | Cancelled(_))
                    && let Some(other) = self.follow(handle.ino, &fill).await?
                {
                    fill = other;
                    continue;
                }
                return Err(match self.download_error(handle.ino, error) {
                    // The open file's version is gone: this handle can read no more of it (P8).
                    Error::Stale => Error::Corrupt,
                    other => other,
                });
            },
            // A program reads through the kernel; a request can still come after a mode was refused.
            Source::Kernel => {
                let (_, file) = self.inner.backing_file(handle.ino)?;
                Ok(read_at(&file, offset, size)?)
            }
        }
    }

    pub(super) async fn do_write(&self, ino: Ino, fh: u64, offset: u64, data: Bytes, kill_suid: bool) -> Result<u32> {
        if kill_suid {
            let nobody = super::reply::Caller { uid: u32::MAX, gid: u32::MAX, pid: 0 };
            self.do_setattr(ino, SetAttr::default(), nobody).await?;
        }
        let written = self.write_here(ino, fh, offset, data).await;
        if let Err(error) = &written {
            self.hold_failed(ino, error).await;
        }
        written
    }

    async fn write_here(&self, ino: Ino, fh: u64, offset: u64, data: Bytes) -> Result<u32> {
        let mut handle = self.inner.handles.get(fh).ok_or(Error::BadHandle)?;
        let sync = handle.sync && handle.direct;
        let length = u32::try_from(data.len()).map_err(|_| Error::Invalid)?;
        let end = offset.checked_add(u64::from(length)).ok_or(Error::TooLarge)?;
        while let Source::Fill(fill) = &handle.source {
            if end > fill.length() {
                self.make_room((end - fill.length()).min(u64::from(length))).await?;
            }
            if let Some(written) = self.write_partly(ino, offset, data.clone()).await? {
                if sync {
                    self.do_fsync(ino).await?;
                }
                return Ok(written);
            }
            // It has become whole meanwhile.
            handle = self.inner.handles.get(fh).ok_or(Error::BadHandle)?;
        }
        let backing = self.with_inode(ino, |inode| inode.row.backing)?.ok_or(Error::NotFound)?;
        let file = match handle.source {
            Source::File(file) if handle.write => file,
            // A request after a mode was refused, or written back from a mapping through another
            // handle of the same inode.
            Source::Kernel | Source::File(_) | Source::Fill(_) => Arc::new(self.inner.cache.open_write(backing)?),
        };
        self.make_room_to_grow(backing, offset..end).await?;
        if let Err(error) = write_at(&file, &data, offset).await {
            // What is cached must not keep programs from writing, however little the limit minds.
            if !is_full(&error) || self.evict(u64::from(length)).await? == 0 {
                return Err(error);
            }
            write_at(&file, &data, offset).await?;
        }
        if sync {
            self.do_fsync(ino).await?;
        }
        Ok(length)
    }

    /// C6: a write that failed, of which we know. What is closed after it is not what the program meant it
    /// to be, whether it minds or not.
    async fn hold_failed(&self, ino: Ino, error: &Error) {
        let Some(hold) = failure(error) else { return };
        let mut state = self.inner.locks.lock(ino).await;
        if let Some(session) = state.session.as_mut() {
            session.hold = session.hold.or(Some(hold));
        }
        self.inner.locks.release(ino, state);
    }

    pub(super) async fn do_fsync(&self, ino: Ino) -> Result<()> {
        if self.inner.options.fsync == FsyncPolicy::Disk {
            interruptible(self.own_content(ino)).await??;
        }
        if let Err(error) = self.sync_to_disk(ino).await {
            self.hold_failed(ino, &error).await;
            return Err(error);
        }
        match self.inner.options.fsync {
            FsyncPolicy::Disk => Ok(()),
            FsyncPolicy::Remote => self.push_for_caller(ino, Why::Fsync).await,
        }
    }

    /// Content and name are on the disk, and so is that a program hears of it (C5): after a power cut it finds
    /// its content under its name.
    pub(super) async fn sync_to_disk(&self, ino: Ino) -> Result<()> {
        let (backing, generation) = self.with_inode(ino, |inode| (inode.row.backing, inode.row.generation))?;
        if backing.is_none() {
            return Ok(self.inner.namespace.barrier().await?);
        }
        let (_, file) = self.inner.backing_file(ino)?;
        // Before the sync: what is written meanwhile is not meant, and moves the times.
        let now = self.mark_now(ino, &file)?;
        let synced = self.sync_backing(file, now).await?;
        // The name must be as durable as the content: on disk, this row carries every one so far.
        let ((), commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            let Some(inode) = tree.get_mut(ino) else { return };
            let row = &mut inode.row;
            let same = row.backing == backing && row.generation == generation && inode.partial.is_none();
            if !same || matches!(row.content, Content::Clean | Content::Absent) {
                return;
            }
            let marked = match row.mark {
                Some(marked) if same_mark(&marked, &synced) => Some(synced),
                _ if row.content == Content::Open => Some(synced),
                other => other,
            };
            if row.told && row.mark == marked {
                return;
            }
            row.told = true;
            row.mark = marked;
            if row.linked {
                tree.persist(ino, ops);
            }
        });
        Ok(commit.durable().await?)
    }

    pub(super) async fn do_fsyncdir(&self, ino: Ino) -> Result<()> {
        if self.inner.options.fsync == FsyncPolicy::Remote {
            interruptible(self.await_releases(ino)).await?;
        }
        self.inner.namespace.barrier().await?;
        match self.inner.options.fsync {
            FsyncPolicy::Disk => Ok(()),
            FsyncPolicy::Remote => Ok(interruptible(self.inner.uploader.upload_now(Scope::Directory(ino))).await??),
        }
    }

    pub(super) async fn do_fallocate(&self, ino: Ino, fh: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        let handle = self.inner.handles.get(fh).ok_or(Error::BadHandle)?;
        if !handle.write {
            return Err(Error::BadHandle);
        }
        let grows = mode & (libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE) == 0;
        if grows && !matches!(handle.source, Source::Fill(_)) {
            let end = offset.checked_add(length).ok_or(Error::TooLarge)?;
            let (backing, _) = self.inner.backing_file(ino)?;
            self.make_room_to_grow(backing, offset..end).await?;
        }
        let mut state = interruptible(self.inner.locks.lock(ino)).await?;
        let done = if state.fill.is_some() {
            let end = offset.checked_add(length).ok_or(Error::TooLarge);
            match end {
                Ok(end) => self.fallocate_partly(ino, offset..end, mode, &mut state).await,
                Err(error) => Err(error),
            }
        } else {
            self.fallocate_locked(ino, offset, length, mode).await
        };
        self.inner.locks.release(ino, state);
        done
    }

    async fn fallocate_locked(&self, ino: Ino, offset: u64, length: u64, mode: i32) -> Result<()> {
        let (backing, _) = self.inner.backing_file(ino)?;
        // J2: a punched hole is a cut; the row of the session is on disk first.
        if mode & libc::FALLOC_FL_PUNCH_HOLE != 0 {
            self.inner.namespace.barrier().await?;
        }
        let file = self.inner.cache.open_write(backing)?;
        off_thread(move || disk::sparing(&file, length, || disk::fallocate(&file, mode, offset, length))).await?;
        self.note_size(ino, backing).await
    }

    pub(super) async fn note_size(&self, ino: Ino, backing: BackingNo) -> Result<()> {
        let (_, file) = self.inner.backing_file(ino)?;
        let size = disk::fstat(&file)?.size;
        self.inner.cache.tell(backing, size, false);
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.row.size = size;
                if inode.row.content == Content::Flushed {
                    inode.row.content = Content::Open;
                    inode.row.mark = None;
                }
                tree.persist(ino, ops);
            }
        });
        Ok(commit.durable().await?)
    }

    pub(super) async fn do_lseek(&self, ino: Ino, fh: u64, offset: i64, whence: i32) -> Result<i64> {
        let handle = self.inner.handles.get(fh).ok_or(Error::BadHandle)?;
        let size = i64::try_from(self.stat(ino)?.size).map_err(|_| Error::TooLarge)?;
        if offset < 0 || offset >= size {
            return Err(Error::NoOffset);
        }
        if let Source::Fill(_) = handle.source {
            // Holes of a file that is still arriving mean nothing: it is all data.
            return Ok(if whence == libc::SEEK_DATA { offset } else { size });
        }
        let (_, file) = self.inner.backing_file(ino)?;
        let found = disk::seek(&file, offset, whence)?;
        i64::try_from(found).map_err(|_| Error::TooLarge)
    }
}
