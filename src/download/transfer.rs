//! One range of an object, from the store to the file, over as many requests as it takes.

use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::checksum::Crc64Hasher;
use crate::disk;
use crate::download::Options;
use crate::download::error::{Error, Result};
use crate::download::written::Written;
use crate::journal::Remote;
use crate::store;
use crate::store::{ErrorKind, GetOptions, ObjectMeta, ObjectStore, Outcome};
use crate::types::{Crc64, Key};

/// Chunks of a body that are written together when they have arrived together. A chunk is what the
/// connection had in its buffer, some 8 KiB to 400 KiB.
const CHUNKS: usize = 16;

/// Requests that one range may take however much progress each makes: 8 MiB in pieces of 64 KiB.
const MAX_REQUESTS: u32 = 128;

/// Where what arrives is written.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) file: Arc<File>,
    /// What programs have put there instead; `None`: nobody writes to it.
    pub(super) written: Option<Arc<Written>>,
}

impl Target {
    fn write(&self, chunk: &[u8], at: u64) -> io::Result<()> {
        disk::sparing(&self.file, chunk.len() as u64, || match &self.written {
            Some(written) => written.write_base(&self.file, chunk, at),
            None => self.file.write_all_at(chunk, at),
        })
    }
}

/// What waits for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A reader, now.
    Demand,
    /// Nobody yet, or one who waits for much more than this.
    Bulk,
}

/// Bounds of requests in flight, over all files.
#[derive(Debug)]
pub(super) struct Bounds {
    all: Semaphore,
    /// Taken before `all` by what is not urgent, so that some of `all` are always left to readers.
    bulk: Semaphore,
}

impl Bounds {
    pub(super) fn new(total: usize) -> Self {
        let total = total.max(1);
        Bounds { all: Semaphore::new(total), bulk: Semaphore::new((total - total / 4).max(1)) }
    }

    /// Waits for room. `None` never comes: the semaphores are not closed.
    async fn acquire(&self, urgency: Urgency) -> Option<(SemaphorePermit<'_>, Option<SemaphorePermit<'_>>)> {
        let bulk = match urgency {
            Urgency::Demand => None,
            Urgency::Bulk => Some(self.bulk.acquire().await.ok()?),
        };
        Some((self.all.acquire().await.ok()?, bulk))
    }
}

/// One version of one object, and what is needed to read it.
#[derive(Debug)]
pub(super) struct Source {
    store: Arc<dyn ObjectStore>,
    pub(super) remote: Remote,
    pub(super) options: Arc<Options>,
    bounds: Arc<Bounds>,
    /// What the store last said of the object. Nothing else is locked under it.
    meta: Mutex<Option<ObjectMeta>>,
}

/// How far a range came.
pub(super) struct Arrived {
    /// End of what was written; the range's end if `result` is `Ok`.
    pub(super) end: u64,
    /// Sum of what was written, from the range's start; `None` if it was lost by a panic.
    pub(super) crc: Option<Crc64>,
    /// Why it ended.
    pub(super) result: Result<()>,
}

/// Why a request did not bring the rest of its range.
enum Failure {
    /// Final: a refusal, the disk, a stop, or a store that cannot be reached. The store's client has
    /// made all the repeats that such a call is worth.
    Final(Error),
    /// The body broke; it is to be continued.
    Broken(Box<store::Error>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

/// A writer's state, that travels to the blocking thread and back.
struct Sink {
    file: Target,
    hasher: Crc64Hasher,
}

impl Source {
    pub(super) fn new(store: Arc<dyn ObjectStore>, remote: Remote, options: Arc<Options>, bounds: Arc<Bounds>) -> Self {
        Source { store, remote, options, bounds, meta: Mutex::new(None) }
    }

    pub(super) fn key(&self) -> &Key {
        &self.remote.key
    }

    /// What the store last said of the object, if it was asked yet.
    pub(super) fn meta(&self) -> Option<ObjectMeta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks a sum against all that is known of the object's; whether anything was.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(super) fn verify(&self, found: Crc64) -> Result<bool> {
        let told = self.meta().and_then(|meta| meta.crc64);
        for expected in [self.remote.crc64, told].into_iter().flatten() {
            if expected != found {
                return Err(Error::Corrupt { key: self.key().clone(), expected, found });
            }
        }
        Ok(self.remote.crc64.is_some() || told.is_some())
    }

    /// Writes a range of the object to the same place of the file. `arrived` hears of each piece
    /// after it was written. An empty range is asked for once if the object itself is empty. A stop
    /// ends it between two writes, never during one.
    pub(super) async fn transfer(
        &self,
        range: Range<u64>,
        urgency: Urgency,
        file: Target,
        mut stop: watch::Receiver<bool>,
        mut arrived: impl FnMut(Range<u64>) + Send,
    ) -> Arrived {
        let mut end = range.start;
        let mut sink = Some(Sink { file, hasher: Crc64Hasher::new() });
        let mut failures = 0;
        let mut requests = 0;
        let result = loop {
            let before = end;
            requests += 1;
            let permit = match self.permit(urgency, &mut stop).await {
                Ok(permit) => permit,
                Err(error) => break Err(error),
            };
            let attempt = self.attempt(end..range.end, &mut end, &mut sink, &mut stop, &mut arrived).await;
            // Nobody is kept waiting during a pause.
            drop(permit);
            match attempt {
                Ok(()) => break Ok(()),
                Err(Failure::Broken(error)) => {
                    failures = if end > before { 1 } else { failures + 1 };
                    if failures > self.options.retries || requests >= MAX_REQUESTS {
                        break Err(Error::Store(error));
                    }
                    tracing::debug!(key = %self.key(), at = end, %error, "a range goes on after a failure");
                    if !until_stop(&mut stop, tokio::time::sleep(self.pause(failures, &error))).await {
                        break Err(self.cancelled());
                    }
                }
                Err(Failure::Final(error)) => break Err(error),
            }
        };
        let crc = sink.map(|sink| sink.hasher.finish());
        Arrived { end, crc, result }
    }

    /// Room for one request.
    async fn permit(&self, urgency: Urgency, stop: &mut watch::Receiver<bool>) -> Result<impl Sized + '_> {
        let mut permit = None;
        let acquired = async { permit = self.bounds.acquire(urgency).await };
        if !until_stop(stop, acquired).await {
            return Err(self.cancelled());
        }
        permit.ok_or_else(|| self.cancelled())
    }

    /// One request for the rest of a range.
    async fn attempt(
        &self,
        range: Range<u64>,
        at: &mut u64,
        sink: &mut Option<Sink>,
        stop: &mut watch::Receiver<bool>,
        arrived: &mut (impl FnMut(Range<u64>) + Send),
    ) -> std::result::Result<(), Failure> {
        // A range of an empty object is not satisfiable; it is asked for as a whole.
        let wanted = if range.is_empty() { None } else { Some(range.clone()) };
        let options = GetOptions {
            range: wanted,
            if_match: Some(self.remote.etag.clone()),
            version_id: self.remote.version_id.clone(),
        };
        let mut answer = None;
        let asked = async { answer = Some(self.store.get(self.key(), options).await) };
        if !until_stop(stop, asked).await {
            return Err(self.cancelled().into());
        }
        let Some(answer) = answer else { return Err(self.cancelled().into()) };
        let answer = answer.map_err(|error| self.classify(error))?;
        if answer.meta.etag != self.remote.etag || answer.meta.size != self.remote.size {
            return Err(Error::Changed(self.key().clone()).into());
        }
        if answer.range != range {
            return Err(self.broken(ErrorKind::BadReply, "another range than asked for"));
        }
        *self.meta.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer.meta);

        let mut body = answer.body.ready_chunks(CHUNKS);
        loop {
            let mut next = None;
            let waited = async { next = Some(tokio::time::timeout(self.options.stall, body.next()).await) };
            if !until_stop(stop, waited).await {
                return Err(self.cancelled().into());
            }
            let chunks = match next {
                Some(Ok(Some(chunks))) => chunks,
                Some(Ok(None)) if *at == range.end => return Ok(()),
                Some(Ok(None)) => return Err(self.broken(ErrorKind::Network, "the body ended early")),
                Some(Err(_)) => return Err(self.broken(ErrorKind::Timeout, "the body stalled")),
                None => return Err(self.cancelled().into()),
            };
            let mut good = Vec::with_capacity(chunks.len());
            let mut failed = None;
            for chunk in chunks {
                match chunk {
                    Ok(bytes) => good.push(bytes),
                    Err(error) => {
                        failed = Some(self.body_failure(error));
                        break;
                    }
                }
            }
            let length: u64 = good.iter().map(|bytes| bytes.len() as u64).sum();
            if length > range.end - *at {
                return Err(self.broken(ErrorKind::BadReply, "the body is longer than announced"));
            }
            if length > 0 {
                self.write(sink, *at, good).await?;
                let from = *at;
                *at += length;
                arrived(from..*at);
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    /// Sums and writes on a blocking thread: a write may wait for the disk.
    async fn write(&self, sink: &mut Option<Sink>, at: u64, chunks: Vec<Bytes>) -> Result<()> {
        let Some(mut writing) = sink.take() else {
            return Err(self.disk(io::Error::other("an earlier write did not come back")));
        };
        let written = tokio::task::spawn_blocking(move || {
            let mut at = at;
            for chunk in &chunks {
                if let Err(error) = writing.file.write(chunk, at) {
                    return (writing, Err(error));
                }
                at += chunk.len() as u64;
            }
            // Only what was written is summed, so that the sum always belongs to `at`.
            for chunk in &chunks {
                writing.hasher.update(chunk);
            }
            (writing, Ok(()))
        });
        let (back, result) = written.await.map_err(|error| self.disk(io::Error::other(error)))?;
        *sink = Some(back);
        result.map_err(|error| self.disk(error))
    }

    /// What a refusal of the store means for a version that was there.
    fn classify(&self, error: store::Error) -> Error {
        match error.kind {
            // The object is shorter than the version was.
            ErrorKind::Precondition | ErrorKind::InvalidRange => Error::Changed(self.key().clone()),
            ErrorKind::NotFound => Error::Gone(self.key().clone()),
            _ => Error::Store(Box::new(error)),
        }
    }

    /// What an error in the middle of a body means.
    fn body_failure(&self, error: store::Error) -> Failure {
        if error.is_transient() { Failure::Broken(Box::new(error)) } else { self.classify(error).into() }
    }

    fn broken(&self, kind: ErrorKind, message: &str) -> Failure {
        Failure::Broken(Box::new(store::Error {
            kind,
            outcome: Outcome::NotApplied,
            what: format!("GET {}/{}", self.store.name(), self.key()),
            status: None,
            code: None,
            message: Some(message.to_owned()),
            request_id: None,
            attempts: 1,
            retry_after_s: None,
            source: None,
        }))
    }

    fn disk(&self, source: io::Error) -> Error {
        Error::Io { key: self.key().clone(), source }
    }

    pub(super) fn cancelled(&self) -> Error {
        Error::Cancelled(self.key().clone())
    }

    /// Doubled with each failure, half of it random so that many ranges do not come back at once;
    /// at least what the store asked for, and never beyond the limit.
    fn pause(&self, failures: u32, error: &store::Error) -> Duration {
        let doubled = self.options.backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let jittered = doubled.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        let asked = error.retry_after_s.map(Duration::from_secs).unwrap_or_default();
        jittered.max(asked).min(self.options.backoff_max)
    }
}

/// Runs a future unless a stop is ordered first; whether it ended.
async fn until_stop(stop: &mut watch::Receiver<bool>, future: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        // An error: whoever could stop it is gone, which is an order to stop too.
        _ = stop.wait_for(|stop| *stop) => false,
        () = future => true,
    }
}
