//! Reads and writes that come to us, and what the kernel leaves to us on passthrough files too:
//! fsync, fallocate, SEEK_HOLE and SEEK_DATA (C8). Copies from file to file are in `copy`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk;
use crate::download;
use crate::journal::{Content, Durability};
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
        let mut handle = self.inner.handles.get(fh).ok_or(Error::BadHandle)?;
        let sync = handle.sync && handle.direct;
        while let Source::Fill(_) = handle.source {
            if let Some(written) = self.write_partly(ino, offset, data.clone()).await? {
                if sync {
                    self.do_fsync(ino).await?;
                }
                return Ok(written);
            }
            // It has become whole meanwhile.
            handle = self.inner.handles.get(fh).ok_or(Error::BadHandle)?;
        }
        let file = match handle.source {
            Source::File(file) if handle.write => file,
            // A request after a mode was refused, or written back from a mapping through another
            // handle of the same inode.
            Source::Kernel | Source::File(_) | Source::Fill(_) => {
                let (backing, _) = self.inner.backing_file(ino)?;
                Arc::new(self.inner.cache.open_write(backing)?)
            }
        };
        let length = u32::try_from(data.len()).map_err(|_| Error::Invalid)?;
        if data.len() <= INLINE {
            file.write_all_at(&data, offset)?;
        } else {
            off_thread(move || file.write_all_at(&data, offset)).await?;
        }
        if sync {
            self.do_fsync(ino).await?;
        }
        Ok(length)
    }

    pub(super) async fn do_fsync(&self, ino: Ino) -> Result<()> {
        // The name must be as durable as the content: one barrier carries every row so far.
        if self.with_inode(ino, |inode| inode.row.backing)?.is_some() {
            let (_, file) = self.inner.backing_file(ino)?;
            off_thread(move || disk::sync_file(&file)).await?;
        }
        self.inner.namespace.barrier().await?;
        match self.inner.options.fsync {
            FsyncPolicy::Disk => Ok(()),
            FsyncPolicy::Remote => self.push_for_caller(ino, Why::Fsync).await,
        }
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
        off_thread(move || disk::fallocate(&file, mode, offset, length)).await?;
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
