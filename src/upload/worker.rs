//! The loop: takes what is due, runs steps side by side, puts back what is not done.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::journal::Content;
use crate::store::ErrorKind;
use crate::task::Shutdown;
use crate::types::{Ino, Key};

use super::Uploader;
use super::batch::BATCH;
use super::error::{Fatal, StepError, StepResult};
use super::mover::of_namespace;
use super::plan::{Body, Step, plan};
use super::queue::{Next, URGENT, Work};
use super::urgent::Cause;

/// Pause before a lease is asked for again (C4).
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Pause before the next step of an inode that has just had one.
const SOON: Duration = Duration::from_millis(50);
/// Pause between looks while a mapping is offline; its own probe ends that state.
pub(super) const OFFLINE_PAUSE: Duration = Duration::from_secs(2);

/// A look, and how it ended.
pub(super) type Ended = (Work, Next);

impl Uploader {
    /// Runs until `shutdown`; steps under way are then awaited. An error stops the mount: the
    /// journal failed or a step panicked.
    ///
    /// # Errors
    /// Says what failed.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Fatal> {
        let mut steps: JoinSet<Result<Vec<Ended>, Fatal>> = JoinSet::new();
        loop {
            let now = self.now();
            loop {
                // What programs wait for does not stand behind the uploads of others.
                let upto = if steps.len() < self.inner.options.parallel { now } else { URGENT };
                let Some(work) = self.queue().take(upto) else { break };
                let company = self.queue().take_company(&work, upto, BATCH - 1);
                let uploader = self.clone();
                steps.spawn(async move { uploader.look_at(work, company).await });
            }
            let full = steps.len() >= self.inner.options.parallel;
            let pause = self.queue().next_due().map(|at| at.saturating_sub(now));
            tokio::select! {
                () = shutdown.triggered() => break,
                Some(ended) = steps.join_next() => self.take_end(ended)?,
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX / 4)), if !full && pause.is_some() => {}
            }
        }
        while let Some(ended) = steps.join_next().await {
            self.take_end(ended)?;
        }
        Ok(())
    }

    fn take_end(&self, ended: Result<Result<Vec<Ended>, Fatal>, tokio::task::JoinError>) -> Result<(), Fatal> {
        let ended = ended??;
        let now = self.now();
        for (work, next) in ended {
            self.queue().ended(work, next, now);
        }
        self.tick();
        Ok(())
    }

    async fn look_at(&self, work: Work, company: Vec<Key>) -> Result<Vec<Ended>, Fatal> {
        match work {
            Work::Removal(target, key) if !company.is_empty() => {
                self.remove_together(target, [key].into_iter().chain(company).collect()).await
            }
            work => {
                let next = self.look(&work).await?;
                Ok(vec![(work, next)])
            }
        }
    }

    pub(super) async fn look(&self, work: &Work) -> Result<Next, Fatal> {
        let (path, result) = match work {
            Work::Inode(ino) => (self.inner.namespace.read(|tree| tree.shown_path(*ino)), self.reconcile(*ino).await),
            Work::Move(dir) => (self.inner.namespace.read(|tree| tree.shown_path(*dir)), self.step_move(*dir).await),
            Work::Removal(target, key) => (key.to_string(), self.remove(*target, key.clone()).await),
            Work::Settle(attempt) => {
                let key = self.book().attempts.get(attempt).map(|row| row.key.to_string());
                (key.unwrap_or_default(), self.settle(*attempt).await)
            }
        };
        self.judge_end(work, path, result)
    }

    /// When to look at work again after a look that ended so; `path` is what people are told.
    pub(super) fn judge_end(&self, work: &Work, path: String, result: StepResult<Next>) -> Result<Next, Fatal> {
        match result {
            Ok(next) => {
                let over = matches!(next, Next::Done | Next::Later(_)) && !self.is_open(work);
                if over || matches!(work, Work::Move(_)) {
                    self.note_success(work);
                }
                Ok(next)
            }
            Err(StepError::Journal(error)) => Err(error.into()),
            Err(StepError::Outbox(error)) => Err(error.into()),
            Err(StepError::Changed) => {
                if let Work::Inode(ino) = work {
                    self.withdraw(*ino);
                }
                Ok(Next::Done)
            }
            Err(StepError::Again) => Ok(Next::After(Duration::ZERO)),
            Err(StepError::Busy) => Ok(Next::After(BUSY_PAUSE)),
            Err(StepError::Unknown(attempt, error)) => {
                let cause = Cause::Unsettled(attempt, Box::new(Cause::of(&error)));
                let attempts = self.note_failure(work, path, error.to_string(), cause);
                let now = self.now();
                self.queue().put_sooner(Work::Settle(attempt), now);
                self.inner.wake.notify_one();
                // Settled at once; should it not have arrived, a store that fails is left its pause.
                Ok(Next::After(self.backoff(attempts)))
            }
            Err(StepError::Mismatch(what)) => {
                self.count(|counters| counters.mismatches += 1);
                let attempts = self.note_failure(work, path, what, Cause::Mismatch);
                Ok(Next::After(self.backoff(attempts)))
            }
            Err(StepError::Lost(key)) => {
                let what = format!(
                    "{key}, of which it is a copy, was changed or removed elsewhere before the store had copied it: \
                     remove it, or copy it again"
                );
                let attempts = self.note_failure(work, path, what, Cause::Mismatch);
                Ok(Next::After(self.backoff(attempts)))
            }
            Err(StepError::Io(error)) => {
                let cause = Cause::Local(crate::disk::errno(&error));
                let attempts = self.note_failure(work, path, error.to_string(), cause);
                Ok(Next::After(self.backoff(attempts)))
            }
            Err(StepError::Store(error)) => {
                let attempts = self.note_failure(work, path, error.to_string(), Cause::of(&error));
                let wait = match error.kind {
                    ErrorKind::Network | ErrorKind::Timeout => self.backoff(attempts).min(OFFLINE_PAUSE),
                    _ if error.is_transient() => self.backoff(attempts),
                    // Nothing here changes by itself, but somebody may mend it in the store.
                    _ => self.backoff(attempts + 2),
                };
                let asked = error.retry_after_s.map_or(Duration::ZERO, Duration::from_secs);
                Ok(Next::After(wait.max(asked.min(self.inner.options.retry_longest))))
            }
        }
    }

    /// The inode is open for writing: a look that had nothing to do settles no earlier failure.
    fn is_open(&self, work: &Work) -> bool {
        let Work::Inode(ino) = work else { return false };
        self.inner.namespace.read(|tree| {
            let is_open = |content| matches!(content, Content::Open | Content::Flushed);
            tree.get(*ino).is_some_and(|inode| inode.row.linked && is_open(inode.row.content))
        })
    }

    /// Exponential, with jitter, bounded.
    fn backoff(&self, attempts: u32) -> Duration {
        let options = &self.inner.options;
        let doubled = options.retry_first.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let bound = doubled.min(options.retry_longest);
        bound.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    async fn reconcile(&self, ino: Ino) -> Result<Next, StepError> {
        if self.book().unsettled().any(|attempt| attempt.ino == ino && attempt.upload_id.is_none()) {
            // Its last attempt must be settled first (R2); multipart uploads are continued.
            return Ok(Next::Blocked);
        }
        // The marker of a renamed directory travels with the attributes that it has there.
        let unseen = self.inner.namespace.read(|tree| {
            tree.get(ino).is_some_and(|inode| inode.is_dir() && !inode.row.attrs_known && inode.row.remote.is_some())
        });
        if unseen {
            self.inner.namespace.ensure_attributes(ino).await.map_err(of_namespace)?;
        }
        let wall = self.inner.namespace.clock().now();
        let step = self.inner.namespace.touch(|tree| {
            let step = plan(tree, ino, wall, &self.inner.options.mount_uuid);
            let Some(job) = step.job() else { return step };
            // The inode's row stays while its attempt is under way, whatever programs do meanwhile.
            if let Some(inode) = tree.get_mut(job.ino) {
                inode.attempting = true;
                if job.ino == ino {
                    inode.dirty_since = None;
                }
            }
            step
        });
        self.settle_stale(ino, &step);
        match &step {
            Step::Nothing => return Ok(Next::Done),
            Step::At(at) => {
                let wait = at.0.saturating_sub(wall.0);
                return Ok(Next::Later(Duration::from_nanos(u64::try_from(wait).unwrap_or(0))));
            }
            Step::Blocked => return Ok(Next::Blocked),
            Step::Behind(others) => {
                let now = self.now();
                let mut queue = self.queue();
                for other in others {
                    queue.ensure(Work::Inode(*other), now);
                }
                return Ok(others.first().map_or(Next::Blocked, |other| Next::Behind(*other)));
            }
            Step::Send(..) | Step::Copy(..) | Step::Displace(..) | Step::Recheck(..) => {}
        }
        let result = self.take_step(&step).await;
        let Some(job) = step.job() else { return Ok(Next::Done) };
        let pending = self.end_attempt(job.ino).await?;
        // A failed step keeps its pause: what changes meanwhile says so itself.
        if pending && (job.ino != ino || matches!(result, Ok(Next::Done))) {
            self.look_again(job.ino);
        }
        result
    }

    /// Asks the store. However it ends, the caller ends the attempt.
    async fn take_step(&self, step: &Step) -> Result<Next, StepError> {
        match step {
            Step::Nothing | Step::At(_) | Step::Blocked | Step::Behind(_) => Ok(Next::Done),
            Step::Send(..) | Step::Copy(..) if self.settle_there(step).await? => Ok(Next::After(Duration::ZERO)),
            Step::Send(job, body) => self.send(job, body).await,
            Step::Copy(job, remote) => match self.undone_until(job) {
                Some(wait) => Ok(Next::After(wait)),
                None => self.copy_or_swap(job, remote).await,
            },
            Step::Displace(job, remote) => self.copy(job, remote).await.map(|next| match next {
                Next::Done => Next::After(Duration::ZERO),
                other => other,
            }),
            Step::Recheck(job, remote) => self.recheck(job, remote).await,
        }
    }

    /// Multipart uploads of the inode that no step will continue are looked at: completed after
    /// all, or aborted.
    fn settle_stale(&self, ino: Ino, step: &Step) {
        let attempts: Vec<u64> = {
            let book = self.book();
            let of_inode = book.unsettled().filter(|attempt| attempt.ino == ino);
            of_inode.map(|attempt| attempt.attempt).collect()
        };
        if attempts.is_empty() {
            return;
        }
        let continued = match step {
            Step::Send(_, Body::File { mark, .. }) => mark.size > self.inner.options.multipart_above,
            Step::Copy(job, remote) => remote.size > self.copied_in_one(job),
            Step::Send(..) | Step::Displace(..) | Step::Recheck(..) => false,
            Step::Blocked | Step::Behind(_) => true,
            Step::Nothing | Step::At(_) => self.inner.namespace.read(|tree| {
                tree.get(ino).is_some_and(|inode| {
                    let row = &inode.row;
                    // Reopened: if nothing is written, the upload goes on.
                    row.linked && matches!(row.content, Content::Open | Content::Flushed | Content::Closed)
                })
            }),
        };
        if continued {
            return;
        }
        let now = self.now();
        let mut queue = self.queue();
        for attempt in attempts {
            queue.ensure(Work::Settle(attempt), now);
        }
    }

    /// The next look at an inode that is not as wanted yet.
    pub(super) fn look_again(&self, ino: Ino) {
        let at = self.now() + self.inner.options.delay.min(SOON);
        self.queue().put_sooner(Work::Inode(ino), at);
        self.inner.wake.notify_one();
    }
}
