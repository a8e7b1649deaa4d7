//! Copies on the server of what is too large for one call. Durable steps, and what a crash before
//! each leaves:
//!
//! 1. The attempt's row, on disk: nothing in the bucket.
//! 2. Initiate, then the upload's id in the row, on disk: a crash between the two leaves an upload
//!    without parts, which the next start finds by listing and aborts.
//! 3. Part copies, each only of the version that is meant; each one whose CRC64 is told is a row:
//!    after a crash the parts that the store lists and our rows agree on are not copied again.
//! 4. The parts' CRC64 against the source's, HEAD of the key (R4), Complete: the object may be there
//!    under this attempt's name; settled by HEAD.
//! 5. Verify, then the one transaction.

use std::collections::BTreeMap;

use crate::checksum::combine;
use crate::failpoint;
use crate::journal::{AttemptKind, AttemptRow, PartRow, Remote};
use crate::store::{CopySource, ErrorKind, ObjectMeta, Part, PutOptions};
use crate::types::Crc64;

use super::Uploader;
use super::commit::Sent;
use super::copy::terms;
use super::error::{StepError, StepResult};
use super::parts::PartPlan;
use super::plan::{Expected, Job};
use super::queue::Next;

/// A copy under way.
struct Copying<'a> {
    job: &'a Job,
    attempt: &'a AttemptRow,
    upload_id: &'a str,
    plan: &'a PartPlan,
    from: CopySource,
}

impl Uploader {
    /// Bytes of the largest object that one call copies.
    pub(super) fn copied_in_one(&self, job: &Job) -> u64 {
        self.inner.options.copy_in_one.min(job.mapping.store.capabilities().max_part_bytes)
    }

    /// As [`Uploader::copy`], which holds both keys and has looked at the source.
    pub(super) async fn copy_parts(&self, job: &Job, source: &Remote, meta: &ObjectMeta) -> StepResult<Next> {
        self.fly(job, source.size);
        let result = self.copy_parts_in_flight(job, source, meta).await;
        self.land(job.ino);
        result
    }

    async fn copy_parts_in_flight(&self, job: &Job, source: &Remote, meta: &ObjectMeta) -> StepResult<Next> {
        let known = source.crc64.or(meta.crc64);
        let (attempt, upload_id, plan) = match self.resumable_copy(job, source, known).await? {
            Some(resumed) => resumed,
            None => self.initiate_copy(job, source, meta).await?,
        };
        let have = self.parts_there(job, &attempt, &upload_id, &plan).await?;
        self.progress(job, have.values().map(|(part, _)| part.size).sum());
        let from = CopySource {
            key: source.key.clone(),
            if_match: Some(source.etag.clone()),
            version_id: source.version_id.clone(),
        };
        let copying = Copying { job, attempt: &attempt, upload_id: &upload_id, plan: &plan, from };
        let missing: Vec<u32> = (1..=plan.count()).filter(|number| !have.contains_key(number)).collect();
        let copied = match self.all_parts(missing, |number| self.copy_one_part(&copying, number)).await {
            Ok(copied) => copied,
            Err(StepError::Store(error)) if matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound) => {
                // The source changed under the copy: the next look sees to what it is now.
                self.abort(job, &attempt, &upload_id).await?;
                return Err(StepError::Store(error));
            }
            Err(error) => return Err(error),
        };
        let mut parts: BTreeMap<u32, (Part, Option<Crc64>)> =
            have.into_iter().map(|(number, (part, crc))| (number, (part, Some(crc)))).collect();
        parts.extend(copied.into_iter().map(|part| (part.number, (part.clone(), part.crc64))));
        // Where the store tells it: of a wrong part no object is made.
        let sum = parts.values().try_fold(Crc64::default(), |sum, (part, crc)| Some(combine(sum, (*crc)?, part.size)));
        if let (Some(sum), Some(known)) = (sum, known)
            && sum != known
        {
            self.abort(job, &attempt, &upload_id).await?;
            tracing::error!(key = %job.key, source = %known, parts = %sum, "the parts of a copy are not its source");
            return Err(StepError::Mismatch(format!(
                "the parts of the copy to {} have CRC64 {sum}, its source {known}; they are copied again",
                job.key
            )));
        }
        let parts: Vec<Part> = parts.into_values().map(|(part, _)| part).collect();
        let found = self.expect(job).await?;
        let onto_itself = source.key == job.key;
        if onto_itself && found != Expected::Version(source.etag.clone()) {
            // Another version than was copied stands there by now.
            self.abort(job, &attempt, &upload_id).await?;
            return Ok(Next::After(std::time::Duration::ZERO));
        }
        let forbid_overwrite = found == Expected::Absent;
        let stored = self.complete(job, &attempt, &upload_id, &parts, forbid_overwrite).await?;
        let there = self.crc_there(&attempt, job, stored.crc64).await?;
        if let (Some(there), Some(known)) = (there, known)
            && there != known
        {
            return Err(self.mismatch(&attempt, Some(there)).await?);
        }
        let remote = Remote {
            key: job.key.clone(),
            etag: stored.etag,
            size: source.size,
            crc64: there.or(known),
            version_id: stored.version_id,
            last_modified: None,
        };
        self.count(|counters| counters.copies += 1);
        self.commit(Sent { attempt: &attempt, remote, content: false }).await
    }

    /// A copy of the same content with the same attributes that an earlier look began. Equal size and
    /// CRC64 are the same content; a source whose CRC64 is unknown is copied from its beginning.
    async fn resumable_copy(
        &self,
        job: &Job,
        source: &Remote,
        known: Option<Crc64>,
    ) -> StepResult<Option<(AttemptRow, String, PartPlan)>> {
        let mut found = None;
        for (attempt, upload_id) in self.uploads_of(job) {
            let same = attempt.kind == AttemptKind::Copy
                && attempt.key == job.key
                && attempt.source.as_ref() == Some(&source.key)
                && (attempt.size, attempt.generation) == (source.size, job.generation)
                && (attempt.attr_generation, attempt.attrs) == (job.attr_generation, job.attrs)
                && attempt.crc64.is_some()
                && attempt.crc64 == known;
            if same && found.is_none() {
                let plan = PartPlan::resumed(source.size, attempt.part_bytes);
                found = Some((attempt, upload_id, plan));
            } else {
                self.abort(job, &attempt, &upload_id).await?;
            }
        }
        Ok(found)
    }

    async fn initiate_copy(
        &self,
        job: &Job,
        source: &Remote,
        meta: &ObjectMeta,
    ) -> StepResult<(AttemptRow, String, PartPlan)> {
        let store = &job.mapping.store;
        let wanted = self.inner.options.copy_part_bytes;
        let Some(plan) = PartPlan::new(source.size, wanted, store.capabilities()) else {
            return Err(StepError::Io(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
        };
        let mut terms = terms(job, meta);
        if meta.tag_count > 0 {
            // Copies in one call keep them by themselves.
            terms.tags = store.tags(&source.key).await.map_err(StepError::Store)?;
        } else {
            terms.tags.clear();
        }
        let crc = source.crc64.or(meta.crc64);
        let mut attempt = self.new_attempt(job, AttemptKind::Copy, source.size, crc, Some(&source.key))?;
        attempt.part_bytes = plan.part_bytes();
        self.record(job, &attempt).await?;
        let options = PutOptions {
            headers: self.headers(job, &attempt, Some(meta)),
            storage_class: meta.storage_class.clone(),
            terms,
            ..PutOptions::default()
        };
        let upload_id = self.open_upload(job, &mut attempt, options).await?;
        Ok((attempt, upload_id, plan))
    }

    async fn copy_one_part(&self, copying: &Copying<'_>, number: u32) -> StepResult<Part> {
        let Copying { job, attempt, upload_id, plan, from } = copying;
        let range = plan.range(number);
        let size = range.end - range.start;
        let part = job.mapping.store.copy_part(&job.key, upload_id, number, from.clone(), range).await;
        job.mapping.observe(&part);
        let part = match part {
            Ok(part) => Part { number, size, ..part },
            Err(error) if error.kind == ErrorKind::NoSuchUpload => {
                self.drop_attempt(attempt).await?;
                return Err(StepError::Store(error));
            }
            Err(error) => return Err(StepError::Store(error)),
        };
        failpoint::hit(failpoint::UPLOAD_AFTER_PART);
        match part.crc64 {
            Some(crc64) => {
                let row = PartRow { attempt: attempt.attempt, number, size, etag: part.etag.clone(), crc64 };
                self.keep_part(job, attempt, row);
            }
            // Without its CRC64 a part is no row: after a restart it is copied again.
            None => self.progress(job, size),
        }
        Ok(part)
    }

    /// Copies by parts that the inode's earlier looks began are of no use: their source changed.
    pub(super) async fn abort_copies(&self, job: &Job) -> StepResult<()> {
        for (attempt, upload_id) in self.uploads_of(job) {
            if attempt.kind == AttemptKind::Copy {
                self.abort(job, &attempt, &upload_id).await?;
            }
        }
        Ok(())
    }
}
