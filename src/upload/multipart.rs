//! Sending content in parts. Durable steps, and what a crash before each leaves:
//!
//! 1. The attempt's row, on disk: nothing in the bucket.
//! 2. Initiate, then the upload's id in the row, on disk: a crash between the two leaves an upload
//!    without parts, which the next start finds by listing and aborts.
//! 3. Parts; each one acknowledged is a row: after a crash the parts that the store lists and our
//!    rows agree on are not sent again.
//! 4. Mark and lease once more, HEAD of the key (R4), Complete: the object may be there under this
//!    attempt's name; settled by HEAD.
//! 5. Verify, then the one transaction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{self, StreamExt};

use crate::checksum::{combine, crc64, hex, md5};
use crate::failpoint;
use crate::journal::{AttemptKind, AttemptRow, Durability, Mark, Op, PartRow, Remote};
use crate::store::{Error, ErrorKind, Outcome, Part, PutOptions, PutResult};
use crate::types::{BackingNo, Crc64};

use super::Uploader;
use super::commit::Sent;
use super::error::{StepError, StepResult};
use super::parts::PartPlan;
use super::plan::{Expected, Job, Source};
use super::queue::Next;
use super::send::read_range;

/// Times that a part is sent when the store holds another content than was sent.
const PART_TRIES: u32 = 3;

impl Uploader {
    pub(super) async fn send_parts(
        &self,
        job: &Job,
        backing: BackingNo,
        marked: &Mark,
        source: Source,
    ) -> StepResult<Next> {
        let Some(_keys) = self.inner.locks.try_lock(job.mapping.target, &[&job.key]) else {
            return Ok(Next::Blocked);
        };
        self.still(job, &self.inner.cache.open_read(backing)?, marked, source)?;
        self.fly(job, marked.size);
        let result = self.send_parts_in_flight(job, backing, marked, source).await;
        self.land(job.ino);
        match result {
            // Cut short while it was read: the next look aborts the upload.
            Err(StepError::Io(error))
                if source == Source::Open && error.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                Err(StepError::Changed)
            }
            result => result,
        }
    }

    async fn send_parts_in_flight(
        &self,
        job: &Job,
        backing: BackingNo,
        marked: &Mark,
        source: Source,
    ) -> StepResult<Next> {
        let (mut attempt, upload_id, plan) = match self.resumable(job, marked.size).await? {
            Some(resumed) => resumed,
            None => self.initiate(job, marked.size).await?,
        };
        let have = self.parts_there(job, &attempt, &upload_id, &plan).await?;
        let already: u64 = have.values().map(|(part, _)| part.size).sum();
        self.progress(job, already);
        let missing: Vec<u32> = (1..=plan.count()).filter(|number| !have.contains_key(number)).collect();
        let sent =
            self.all_parts(missing, |number| self.send_part(job, &attempt, &upload_id, backing, &plan, number)).await?;
        let mut parts = have;
        for (number, part, crc) in sent {
            parts.insert(number, (part, crc));
        }
        let crc = (1..=plan.count()).fold(Crc64::default(), |sum, number| {
            let range = plan.range(number);
            parts.get(&number).map_or(sum, |(_, crc)| combine(sum, *crc, range.end - range.start))
        });
        attempt.crc64 = Some(crc);
        if let Err(changed) = self.still(job, &self.inner.cache.open_read(backing)?, marked, source) {
            if matches!(changed, StepError::Changed) {
                self.abort(job, &attempt, &upload_id).await?;
            }
            return Err(changed);
        }
        let parts: Vec<Part> = parts.into_values().map(|(part, _)| part).collect();
        let forbid_overwrite = self.expect(job).await? == Expected::Absent;
        let stored = self.complete(job, &attempt, &upload_id, &parts, forbid_overwrite).await?;
        let there = self.crc_there(&attempt, job, stored.crc64).await?;
        // Every part was verified by MD5; a store that tells no CRC64 of the whole leaves it at that.
        if there.is_some_and(|there| there != crc) {
            return Err(self.mismatch(&attempt, there).await?);
        }
        let remote = Remote {
            key: job.key.clone(),
            etag: stored.etag,
            size: marked.size,
            crc64: Some(crc),
            version_id: stored.version_id,
            last_modified: None,
        };
        self.count(|counters| {
            counters.multiparts += 1;
            counters.bytes += marked.size;
        });
        self.commit(Sent { attempt: &attempt, remote, content: true }).await
    }

    /// Makes the object; what stands at the key has been looked at.
    pub(super) async fn complete(
        &self,
        job: &Job,
        attempt: &AttemptRow,
        upload_id: &str,
        parts: &[Part],
        forbid_overwrite: bool,
    ) -> StepResult<PutResult> {
        failpoint::hit(failpoint::UPLOAD_BEFORE_COMPLETE);
        let stored = job.mapping.store.complete_multipart(&job.key, upload_id, parts, forbid_overwrite).await;
        job.mapping.observe(&stored);
        let stored = match stored {
            Ok(stored) => stored,
            // Lost reply of an earlier Complete: the HEAD tells.
            Err(error) if error.kind == ErrorKind::NoSuchUpload => {
                let unknown = Error { outcome: Outcome::Unknown, ..error };
                return Err(self.give_up(attempt, unknown).await?);
            }
            Err(error) if error.outcome() == Outcome::NotApplied && error.is_transient() => {
                // The upload is still there: the next look completes it.
                return Err(StepError::Store(error));
            }
            Err(error) => {
                if error.outcome() == Outcome::NotApplied {
                    self.abort(job, attempt, upload_id).await?;
                }
                return Err(self.give_up(attempt, error).await?);
            }
        };
        failpoint::hit(failpoint::UPLOAD_AFTER_COMPLETE);
        Ok(stored)
    }

    /// Uploads in parts that earlier looks at the job's inode began.
    pub(super) fn uploads_of(&self, job: &Job) -> Vec<(AttemptRow, String)> {
        let book = self.book();
        let of_inode = book.attempts.values().filter(|attempt| attempt.ino == job.ino);
        of_inode.filter_map(|attempt| Some((attempt.clone(), attempt.upload_id.clone()?))).collect()
    }

    /// An upload of the same content to the same key that an earlier look began.
    async fn resumable(&self, job: &Job, size: u64) -> StepResult<Option<(AttemptRow, String, PartPlan)>> {
        let mut found = None;
        for (attempt, upload_id) in self.uploads_of(job) {
            let same = attempt.kind == AttemptKind::Multipart
                && attempt.key == job.key
                && attempt.generation == job.generation
                && attempt.size == size;
            if same && found.is_none() {
                let plan = PartPlan::resumed(size, attempt.part_bytes);
                found = Some((attempt, upload_id, plan));
            } else {
                self.abort(job, &attempt, &upload_id).await?;
            }
        }
        Ok(found)
    }

    async fn initiate(&self, job: &Job, size: u64) -> StepResult<(AttemptRow, String, PartPlan)> {
        let capabilities = job.mapping.store.capabilities();
        let Some(plan) = PartPlan::new(size, self.inner.options.part_bytes, capabilities) else {
            return Err(StepError::Io(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
        };
        let mut attempt = self.begin(job, AttemptKind::Multipart, size, None, None).await?;
        let options = PutOptions {
            headers: self.headers(job, &attempt, None),
            storage_class: job.mapping.storage_class.clone(),
            terms: job.mapping.terms.clone(),
            ..PutOptions::default()
        };
        attempt.part_bytes = plan.part_bytes();
        let upload_id = self.open_upload(job, &mut attempt, options).await?;
        Ok((attempt, upload_id, plan))
    }

    /// Step 2: Initiate, then the id in the attempt's row.
    pub(super) async fn open_upload(
        &self,
        job: &Job,
        attempt: &mut AttemptRow,
        options: PutOptions,
    ) -> StepResult<String> {
        let upload_id = match job.mapping.store.create_multipart(&job.key, options).await {
            Ok(upload_id) => upload_id,
            // It changes no object, but an upload of which nobody knows would be paid for.
            Err(error) => return Err(self.give_up(attempt, error).await?),
        };
        failpoint::hit(failpoint::UPLOAD_AFTER_INITIATE);
        attempt.upload_id = Some(upload_id.clone());
        let row = Op::PutAttempt(attempt.clone());
        let ((), commit) = self.inner.namespace.update(Durability::Disk, |_, ops| ops.push(row));
        commit.durable().await?;
        self.book().attempts.insert(attempt.attempt, attempt.clone());
        Ok(upload_id)
    }

    /// Some parts side by side. After a failure no further one begins; those under way are awaited: cut
    /// short they might have arrived without their rows, and would travel once more.
    ///
    /// # Errors
    /// The first failure.
    pub(super) async fn all_parts<T, F: Future<Output = StepResult<T>>>(
        &self,
        numbers: Vec<u32>,
        part: impl Fn(u32) -> F,
    ) -> StepResult<Vec<T>> {
        let failed = AtomicBool::new(false);
        let begin = |number| {
            let begun = (!failed.load(Ordering::Relaxed)).then(|| part(number));
            let failed = &failed;
            async move {
                let ended = begun?.await;
                failed.fetch_or(ended.is_err(), Ordering::Relaxed);
                Some(ended)
            }
        };
        let parallel = self.inner.options.parallel_parts;
        let ended: Vec<StepResult<T>> =
            stream::iter(numbers).map(begin).buffer_unordered(parallel).filter_map(std::future::ready).collect().await;
        ended.into_iter().collect()
    }

    /// The parts that need not be sent again: the store lists them, and our rows agree.
    pub(super) async fn parts_there(
        &self,
        job: &Job,
        attempt: &AttemptRow,
        upload_id: &str,
        plan: &PartPlan,
    ) -> StepResult<BTreeMap<u32, (Part, Crc64)>> {
        let ours: BTreeMap<u32, PartRow> = self
            .book()
            .parts
            .get(&attempt.attempt)
            .into_iter()
            .flatten()
            .map(|part| (part.number, part.clone()))
            .collect();
        let mut there = BTreeMap::new();
        if ours.is_empty() {
            return Ok(there);
        }
        let mut marker = None;
        loop {
            let page = match job.mapping.store.list_parts(&job.key, upload_id, marker).await {
                Ok(page) => page,
                Err(error) if error.kind == ErrorKind::NoSuchUpload => {
                    // Aborted by somebody, or completed: the HEAD of settling tells.
                    let unknown = Error { outcome: Outcome::Unknown, ..error };
                    return Err(self.give_up(&AttemptRow { upload_id: None, ..attempt.clone() }, unknown).await?);
                }
                Err(error) => return Err(StepError::Store(error)),
            };
            for part in page.parts {
                let range = plan.range(part.number.max(1));
                if let Some(own) = ours.get(&part.number)
                    && own.etag == part.etag
                    && part.size == range.end - range.start
                {
                    there.insert(part.number, (part, own.crc64));
                }
            }
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(there);
            }
        }
    }

    async fn send_part(
        &self,
        job: &Job,
        attempt: &AttemptRow,
        upload_id: &str,
        backing: BackingNo,
        plan: &PartPlan,
        number: u32,
    ) -> StepResult<(u32, Part, Crc64)> {
        let range = plan.range(number);
        let size = range.end - range.start;
        let _memory = self.memory(size).await;
        for attempt_of_part in 1.. {
            let (_, content) = read_range(self.inner.cache.open_read(backing)?, range.start, size).await?;
            let hashed = content.clone();
            let (sum, crc) = tokio::task::spawn_blocking(move || (md5(&hashed), crc64(&hashed)))
                .await
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            let part = job.mapping.store.put_part(&job.key, upload_id, number, content, sum).await;
            job.mapping.observe(&part);
            let part = match part {
                Ok(part) => part,
                Err(error) if error.kind == ErrorKind::NoSuchUpload => {
                    self.drop_attempt(attempt).await?;
                    return Err(StepError::Store(error));
                }
                Err(error) => return Err(StepError::Store(error)),
            };
            let same = match part.crc64 {
                Some(there) => there == crc,
                None => part.etag.0.eq_ignore_ascii_case(&hex(&sum)),
            };
            if same {
                failpoint::hit(failpoint::UPLOAD_AFTER_PART);
                self.keep_part(
                    job,
                    attempt,
                    PartRow { attempt: attempt.attempt, number, size, etag: part.etag.clone(), crc64: crc },
                );
                return Ok((number, Part { number, size, ..part }, crc));
            }
            self.count(|counters| counters.mismatches += 1);
            tracing::error!(key = %job.key, number, sent = %crc, "the store holds another part than was sent");
            if attempt_of_part == PART_TRIES {
                break;
            }
        }
        Err(StepError::Mismatch(format!("part {number} of {} does not arrive as it is sent", job.key)))
    }

    pub(super) fn keep_part(&self, job: &Job, attempt: &AttemptRow, row: PartRow) {
        let size = row.size;
        let op = Op::PutPart(row.clone());
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |_, ops| ops.push(op));
        commit.in_background();
        {
            let mut book = self.book();
            book.counters.parts += 1;
            book.parts.entry(attempt.attempt).or_default().push(row);
        }
        self.progress(job, size);
    }

    pub(super) fn progress(&self, job: &Job, more: u64) {
        if let Some(flight) = self.book().flights.get_mut(&job.ino) {
            flight.sent += more;
        }
        self.tick();
    }

    /// The content changed: the parts are of no use.
    pub(super) async fn abort(&self, job: &Job, attempt: &AttemptRow, upload_id: &str) -> StepResult<()> {
        if let Err(error) = job.mapping.store.abort_multipart(&attempt.key, upload_id).await {
            tracing::warn!(%error, key = %attempt.key, "a multipart upload could not be aborted; it will be tried again");
            return Err(StepError::Store(error));
        }
        self.drop_attempt(attempt).await
    }
}
