//! Sending content by one PUT. Durable steps, and what a crash before each leaves:
//!
//! 1. Read, hash, check mark and lease (of an open file the mark alone): nothing has happened.
//! 2. HEAD of what stands there (R4), then the attempt's row, on disk (J2): nothing has happened; the
//!    next start finds no object of this attempt and drops it.
//! 3. PUT: the object may be there under this attempt's name; the
//!    next start adopts it, or looks again after 120 s (R1).
//! 4. Verify, then one transaction: remote is the new version, OMS is owed, the attempt is over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::cache::{mark, same_mark};
use crate::checksum::{crc64, hex, md5};
use crate::failpoint;
use crate::journal::{AttemptKind, AttemptRow, Content, Durability, Mark, Op, Remote};
use crate::namespace::{MD5_HEADER, Made, headers_for, is_rewritten};
use crate::store::{ErrorKind, HeadOptions, ObjectHeaders, ObjectMeta, PutOptions};
use crate::types::{BackingNo, Crc64, FileKind, Ino, Key};

use super::commit::Sent;
use super::error::{StepError, StepResult};
use super::plan::{Body, Expected, Job, Source};
use super::queue::Next;
use super::{MEMORY_UNIT, Uploader};

impl Uploader {
    pub(super) async fn send(&self, job: &Job, body: &Body) -> StepResult<Next> {
        match body {
            Body::File { backing, mark, source } if mark.size > self.inner.options.multipart_above => {
                self.send_parts(job, *backing, mark, *source).await
            }
            Body::File { backing, mark, source } => {
                let _memory = self.memory(mark.size).await;
                let (file, content) = match self.read_whole(*backing, mark.size).await {
                    Err(StepError::Io(error))
                        if *source == Source::Open && error.kind() == io::ErrorKind::UnexpectedEof =>
                    {
                        return Err(StepError::Changed);
                    }
                    read => read?,
                };
                self.still(job, &file, mark, *source)?;
                drop(file);
                self.put(job, content).await
            }
            Body::Bytes(text) => self.put(job, Bytes::from(text.clone())).await,
        }
    }

    async fn put(&self, job: &Job, content: Bytes) -> StepResult<Next> {
        let Some(_keys) = self.inner.locks.try_lock(job.mapping.target, &[&job.key]) else {
            return Ok(Next::Blocked);
        };
        let hashed = content.clone();
        let (sum, crc) = tokio::task::spawn_blocking(move || (md5(&hashed), crc64(&hashed)))
            .await
            .map_err(|error| io::Error::other(error.to_string()))?;
        let forbid_overwrite = self.expect(job).await? == Expected::Absent;
        let attempt = self.begin(job, AttemptKind::Put, content.len() as u64, Some(crc), None).await?;
        let mut headers = self.headers(job, &attempt, None);
        if job.kind == FileKind::File {
            headers.metadata.insert(MD5_HEADER.to_owned(), hex(&sum));
        }
        let options = PutOptions {
            headers,
            content_md5: Some(sum),
            forbid_overwrite,
            storage_class: job.mapping.storage_class.clone(),
            terms: job.mapping.terms.clone(),
        };
        let size = content.len() as u64;
        self.fly(job, size);
        failpoint::hit(failpoint::UPLOAD_BEFORE_PUT);
        let stored = job.mapping.store.put(&job.key, content, options).await;
        job.mapping.observe(&stored);
        self.land(job.ino);
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => return Err(self.give_up(&attempt, error).await?),
        };
        failpoint::hit(failpoint::UPLOAD_AFTER_PUT);
        let crc_there = self.crc_there(&attempt, job, stored.crc64).await?;
        let md5_there = stored.etag.0.eq_ignore_ascii_case(&hex(&sum));
        if crc_there.map_or(!md5_there, |there| there != crc) {
            return Err(self.mismatch(&attempt, crc_there).await?);
        }
        let remote = Remote {
            key: job.key.clone(),
            etag: stored.etag,
            size,
            crc64: Some(crc),
            version_id: stored.version_id,
            last_modified: None,
        };
        self.count(|counters| {
            counters.puts += 1;
            counters.bytes += size;
        });
        self.commit(Sent { attempt: &attempt, remote, content: job.kind == FileKind::File }).await
    }

    /// R2: the attempt is a row on disk before its request goes.
    pub(super) async fn begin(
        &self,
        job: &Job,
        kind: AttemptKind,
        size: u64,
        crc: Option<Crc64>,
        source: Option<&Key>,
    ) -> StepResult<AttemptRow> {
        let row = self.new_attempt(job, kind, size, crc, source)?;
        self.record(job, &row).await?;
        Ok(row)
    }

    /// An attempt that is no row yet.
    pub(super) fn new_attempt(
        &self,
        job: &Job,
        kind: AttemptKind,
        size: u64,
        crc: Option<Crc64>,
        source: Option<&Key>,
    ) -> StepResult<AttemptRow> {
        let number = self.inner.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next()?;
        Ok(AttemptRow {
            attempt: number,
            kind,
            ino: job.ino,
            target: job.mapping.target,
            key: job.key.clone(),
            source: source.cloned(),
            generation: job.generation,
            attr_generation: job.attr_generation,
            attrs: job.attrs,
            size,
            crc64: crc,
            upload_id: None,
            part_bytes: 0,
            started: self.inner.namespace.clock().now(),
        })
    }

    /// The attempt's row is on disk when this returns.
    pub(super) async fn record(&self, job: &Job, row: &AttemptRow) -> StepResult<()> {
        let put = Op::PutAttempt(row.clone());
        let ((), commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            // The inode's row must be there for the attempt to mean anything after a crash.
            tree.persist(job.ino, ops);
            ops.push(put);
        });
        commit.durable().await?;
        Ok(())
    }

    /// The attempt's name in the object's metadata (R2).
    pub(super) fn ferry(&self, ino: Ino, attempt: u64) -> String {
        format!("{}.{ino}.{attempt}", self.inner.options.mount_uuid)
    }

    pub(super) fn headers(&self, job: &Job, attempt: &AttemptRow, kept: Option<&ObjectMeta>) -> ObjectHeaders {
        let ferry = self.ferry(job.ino, attempt.attempt);
        let made = Made { ferry, size: attempt.size, crc64: attempt.crc64 };
        headers_for(job.kind, &job.attrs, job.xattrs.as_deref(), &made, kept)
    }

    /// R4: what really stands at the key right now, compared with what is expected. Another host's
    /// version is a conflict; see [`Uploader::meet`].
    pub(super) async fn expect(&self, job: &Job) -> StepResult<Expected> {
        let Expected::Version(etag) = &job.expected else { return Ok(Expected::Absent) };
        let found = job.mapping.store.head(&job.key, HeadOptions::default()).await;
        job.mapping.observe(&found);
        match found {
            Ok(meta) => {
                if meta.etag != *etag && !self.is_ours(&meta) {
                    self.meet(job.ino, &job.mapping, &meta).await?;
                }
                Ok(Expected::Version(meta.etag))
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                // Ours is made anew.
                self.count(|counters| counters.conflicts += 1);
                tracing::warn!(path = job.path, key = %job.key, "conflict: the version that ours replaces was removed elsewhere");
                Ok(Expected::Absent)
            }
            Err(error) => Err(StepError::Store(error)),
        }
    }

    /// The object was made by this mount, and no other tool has written it since.
    pub(super) fn is_ours(&self, meta: &ObjectMeta) -> bool {
        let ferry = meta.headers.metadata.get(crate::namespace::FERRY_HEADER);
        let by_us = ferry.is_some_and(|ferry| ferry.split('.').next() == Some(&self.inner.options.mount_uuid));
        by_us && !is_rewritten(meta)
    }

    /// The content is still what the mark says, and what was read of it is one version: nobody can
    /// change it (C4), or, if the file is open, nobody has.
    pub(super) fn still(&self, job: &Job, file: &File, marked: &Mark, source: Source) -> StepResult<()> {
        let unchanged = self.inner.namespace.read(|tree| {
            let Some(inode) = tree.get(job.ino) else { return false };
            let closed = inode.row.generation == job.generation && inode.row.content == Content::Closed;
            let offered = inode.offered.is_some_and(|offered| offered.generation == job.generation);
            // An open file that was closed meanwhile, unchanged, is what was offered.
            closed || (source != Source::Closed && offered)
        });
        if !unchanged {
            return Err(StepError::Changed);
        }
        if source != Source::Closed {
            return if same_mark(&mark(file)?, marked) { Ok(()) } else { Err(StepError::Changed) };
        }
        if !self.inner.cache.is_quiescent(file)? {
            return Err(StepError::Busy);
        }
        let now = mark(file)?;
        if same_mark(&now, marked) {
            return Ok(());
        }
        // Nobody has it open and yet it moved: a writer of a dead mount. What it is now is final.
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if let Some(inode) = tree.get_mut(job.ino) {
                inode.row.mark = Some(now);
                inode.row.size = now.size;
                inode.row.generation += 1;
                tree.persist(job.ino, ops);
            }
        });
        commit.in_background();
        self.changed(job.ino);
        Err(StepError::Changed)
    }

    async fn read_whole(&self, backing: BackingNo, size: u64) -> StepResult<(File, Bytes)> {
        let file = self.inner.cache.open_read(backing)?;
        let (file, content) = read_range(file, 0, size).await?;
        Ok((file, content))
    }

    /// Waits for room in the memory budget; one item larger than all of it takes all of it.
    pub(super) async fn memory(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let all = self.inner.options.memory / MEMORY_UNIT;
        let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT).clamp(1, all.max(1))).unwrap_or(u32::MAX);
        // Closed never: the semaphore lives as long as the room.
        self.inner.memory.clone().acquire_many_owned(units).await.ok()
    }
}

/// Reads a range of a file off the async threads.
pub(super) async fn read_range(file: File, offset: u64, size: u64) -> io::Result<(File, Bytes)> {
    let length = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    tokio::task::spawn_blocking(move || {
        let mut content = vec![0; length];
        file.read_exact_at(&mut content, offset)?;
        Ok((file, Bytes::from(content)))
    })
    .await
    .map_err(|error| io::Error::other(error.to_string()))?
}
