//! A large object that is served while it arrives.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::download::digests::Digests;
use crate::download::error::{Error, Result, Shared};
use crate::download::extents::Extents;
use crate::download::readahead::ReadAhead;
use crate::download::transfer::{Arrived, Source, Target, Urgency};
use crate::download::written::{Kept, Written};
use crate::types::Crc64;

/// An object being filled into its file; cheap to clone. When the last clone is dropped, what is
/// under way stops; only [`Fill::cancel`] tells when it has.
#[derive(Clone)]
pub struct Fill {
    pub(super) handle: Arc<Handle>,
}

/// Its drop orders the stop: receivers take a lost sender for one.
pub(super) struct Handle {
    pub(super) inner: Arc<Inner>,
    stop: watch::Sender<bool>,
}

pub(super) struct Inner {
    pub(super) source: Source,
    pub(super) file: Arc<File>,
    /// What programs put into the file (C7).
    pub(super) written: Arc<Written>,
    stop: watch::Receiver<bool>,
    /// Guards all below. Taken alone and briefly; never held across an await.
    state: Mutex<State>,
    /// Told of every change of `state` that somebody may wait for.
    progress: Notify,
}

pub(super) struct State {
    /// Written to the file.
    pub(super) present: Extents,
    /// Under way: disjoint from one another, and from `present` but for what has arrived of each.
    flights: Vec<Arc<Flight>>,
    pub(super) digests: Digests,
    /// The sums can still become that of the whole.
    pub(super) verifiable: bool,
    readahead: ReadAhead,
    pub(super) verdict: Option<Verdict>,
}

/// What is known of the object for good.
pub(super) enum Verdict {
    /// Whole; `verified`: compared with the store's sum.
    Whole { crc64: Crc64, verified: bool },
    /// Nothing more can be had, but what is present is good.
    Lost(Shared),
    /// Nothing of it may be used.
    Corrupt(Shared),
}

/// A range that is being fetched.
struct Flight {
    range: Range<u64>,
    /// Why it failed, told to those who waited for it.
    error: OnceLock<Shared>,
}

impl Fill {
    pub(super) fn new(source: Source, file: Arc<File>, kept: Kept) -> Self {
        let readahead = ReadAhead::new(source.options.read_ahead_min_bytes, source.options.read_ahead_max_bytes);
        let state = State {
            verifiable: kept.fetched == Extents::new(),
            present: kept.fetched.clone(),
            flights: Vec::new(),
            digests: Digests::default(),
            readahead,
            verdict: None,
        };
        let (stop, stopped) = watch::channel(false);
        let written = Arc::new(Written::new(&kept));
        let inner = Inner { source, file, written, stop: stopped, state: Mutex::new(state), progress: Notify::new() };
        Fill { handle: Arc::new(Handle { inner: Arc::new(inner), stop }) }
    }

    /// Bytes of the object, fewer only at its end. Fetches what is missing, reads ahead of
    /// sequential readers, and returns as soon as the bytes asked for are there.
    ///
    /// # Errors
    /// As [`Error`]; after `Store` and `Io` the next read tries again. After `Changed` and `Gone` what
    /// is present can still be read, and nothing more is asked for.
    pub async fn read(&self, offset: u64, size: u32) -> Result<Bytes> {
        let inner = &self.handle.inner;
        let end = offset.saturating_add(u64::from(size)).min(inner.written.length());
        if offset >= end {
            return Ok(Bytes::new());
        }
        let window = inner.lock().readahead.read(&(offset..end));
        inner.wait_for(&(offset..end), window).await?;
        let file = inner.file.clone();
        // On a blocking thread: what arrived long ago may have to come from the disk.
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(end - offset).map_err(io::Error::other)?];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset + filled as u64) {
                    // Cut meanwhile.
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(filled);
            Ok(Bytes::from(bytes))
        });
        let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        read.map_err(|source| Error::Io { key: inner.source.key().clone(), source })
    }

    /// A read of these bytes waits for no store.
    pub fn is_here(&self, offset: u64, size: u32) -> bool {
        let inner = &self.handle.inner;
        let end = offset.saturating_add(u64::from(size)).min(inner.written.length());
        offset >= end || inner.missing(&inner.lock(), &(offset..end)).is_empty()
    }

    /// Fetches the rest and compares the sum of all. When it returns `Ok`, the file is the object.
    ///
    /// # Errors
    /// As [`Error`]; after `Store` and `Io` it may be called again, and goes on where it stopped.
    /// `Corrupt` is for good: the file is to be thrown away and every later read fails.
    pub async fn complete(&self) -> Result<Crc64> {
        self.handle.inner.complete().await
    }

    /// Fetches what the file still lacks besides what programs have written; compares the sum of the
    /// whole object too, where that costs little more. When it returns `Ok`, the file is whole.
    ///
    /// # Errors
    /// As [`Fill::complete`].
    pub async fn fill_up(&self) -> Result<()> {
        self.handle.inner.fill_up().await
    }

    /// The whole object is in the file, its sum compared.
    pub fn is_complete(&self) -> bool {
        matches!(self.handle.inner.lock().verdict, Some(Verdict::Whole { .. }))
    }

    /// Every byte is in the file, and [`Fill::complete`] can tell whether they are right: it asks for nothing more.
    pub fn has_arrived(&self) -> bool {
        let inner = &self.handle.inner;
        let state = inner.lock();
        state.verifiable && state.present.covers(&(0..inner.source.remote.size))
    }

    /// The store told a sum and it was compared; false before all has arrived, and where the store
    /// has none.
    pub fn is_verified(&self) -> bool {
        matches!(self.handle.inner.lock().verdict, Some(Verdict::Whole { verified: true, .. }))
    }

    /// What is in the file by now.
    pub fn extents(&self) -> Extents {
        self.handle.inner.lock().present.clone()
    }

    /// Stops all that is under way and returns when nothing writes to the file any more. Readers
    /// that wait, and later ones of what is not there, get `Cancelled`.
    pub async fn cancel(&self) {
        self.handle.stop.send_replace(true);
        let inner = &self.handle.inner;
        loop {
            let mut changed = pin!(inner.progress.notified());
            changed.as_mut().enable();
            if inner.lock().flights.is_empty() {
                return;
            }
            changed.await;
        }
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a range is present; sees to it that it comes, and `window` bytes after it.
    async fn wait_for(self: &Arc<Self>, range: &Range<u64>, window: u64) -> Result<()> {
        let mut awaited = Vec::new();
        loop {
            // Before the look at the state, or a change in between would be missed.
            let mut changed = pin!(self.progress.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(Verdict::Corrupt(error)) = &state.verdict {
                    return Err(error.error());
                }
                let missing = self.missing(&state, range);
                if missing.is_empty() {
                    self.read_ahead(&mut state, range.end, window);
                    return Ok(());
                }
                self.check(&state, &awaited)?;
                let block = self.source.options.block_bytes.max(1);
                let ahead = range.end.saturating_add(window);
                let wanted = range.start - range.start % block..ahead.div_ceil(block).saturating_mul(block);
                for gap in self.gaps(&state, wanted) {
                    // Read-ahead has its own rule; what the reader waits for has none. What only lies in
                    // a block with it comes along.
                    let awaited = |missing: &Range<u64>| gap.start < missing.end && missing.start < gap.end;
                    if missing.iter().any(awaited) {
                        self.start(&mut state, gap, Urgency::Demand);
                    }
                }
                self.read_ahead(&mut state, range.end, window);
                awaited = overlapping(&state, range);
            }
            changed.await;
        }
    }

    /// Fetches beyond what a reader waits for: not for less than half a window, lest each read send
    /// a small request, and not with more requests than one file may have.
    fn read_ahead(self: &Arc<Self>, state: &mut State, from: u64, window: u64) {
        if window == 0 || self.check(state, &[]).is_err() {
            return;
        }
        for gap in self.gaps(state, from..from.saturating_add(window)) {
            let worth = gap.end - gap.start >= window / 2 || gap.end == self.source.remote.size;
            if state.flights.len() >= self.source.options.parallel {
                return;
            }
            if worth {
                self.start(state, gap, Urgency::Bulk);
            }
        }
    }

    async fn complete(self: &Arc<Self>) -> Result<Crc64> {
        let size = self.source.remote.size;
        let mut awaited = Vec::new();
        loop {
            let mut changed = pin!(self.progress.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                match &state.verdict {
                    Some(Verdict::Whole { crc64, .. }) => return Ok(*crc64),
                    Some(Verdict::Corrupt(error)) => return Err(error.error()),
                    Some(Verdict::Lost(_)) | None => {}
                }
                let whole = if state.flights.is_empty() { state.digests.whole(size) } else { None };
                if let Some(crc64) = whole {
                    return self.settle(&mut state, crc64);
                }
                self.check(&state, &awaited)?;
                for gap in self.gaps(&state, 0..size) {
                    if state.flights.len() >= self.source.options.parallel.max(1) {
                        break;
                    }
                    self.start(&mut state, gap, Urgency::Bulk);
                }
                awaited = overlapping(&state, &(0..size));
            }
            changed.await;
        }
    }

    /// Compares the sum of the whole, once.
    fn settle(&self, state: &mut State, crc64: Crc64) -> Result<Crc64> {
        let (verdict, result) = match self.source.verify(crc64) {
            Ok(verified) => (Verdict::Whole { crc64, verified }, Ok(crc64)),
            Err(error) => {
                tracing::error!(key = %self.source.key(), %error, "the object is corrupt");
                let shared = Shared::new(error);
                let error = shared.error();
                (Verdict::Corrupt(shared), Err(error))
            }
        };
        state.verdict = Some(verdict);
        self.progress.notify_waiters();
        result
    }

    /// What of a range must still be fetched.
    pub(super) fn missing(&self, state: &State, range: &Range<u64>) -> Vec<Range<u64>> {
        let base = self.written.base(range.clone());
        base.into_iter().flat_map(|range| state.present.gaps(&range)).collect()
    }

    /// The sum of the whole can be had for at most as many bytes again as the file needs.
    fn is_worth_verifying(&self, state: &State) -> bool {
        let size = self.source.remote.size;
        state.verifiable && self.written.end() == size && self.written.bytes() <= size / 2
    }

    async fn fill_up(self: &Arc<Self>) -> Result<()> {
        let size = self.source.remote.size;
        let mut awaited = Vec::new();
        loop {
            let mut changed = pin!(self.progress.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                match &state.verdict {
                    Some(Verdict::Whole { .. }) => return Ok(()),
                    Some(Verdict::Corrupt(error)) => return Err(error.error()),
                    Some(Verdict::Lost(_)) | None => {}
                }
                let idle = state.flights.is_empty();
                if idle && let Some(crc64) = state.digests.whole(size).filter(|_| state.verifiable) {
                    return self.settle(&mut state, crc64).map(drop);
                }
                let verify = self.is_worth_verifying(&state) && state.verdict.is_none();
                let missing = self.missing(&state, &(0..size));
                if idle && missing.is_empty() && !verify {
                    return Ok(());
                }
                self.check(&state, &awaited)?;
                let wanted = if verify { std::iter::once(0..size).collect() } else { missing };
                for gap in wanted.into_iter().flat_map(|range| self.gaps(&state, range)).collect::<Vec<_>>() {
                    if state.flights.len() >= self.source.options.parallel.max(1) {
                        break;
                    }
                    self.start(&mut state, gap, Urgency::Bulk);
                }
                awaited.clone_from(&state.flights);
            }
            changed.await;
        }
    }

    /// Why a range that is not present will not come.
    fn check(&self, state: &State, awaited: &[Arc<Flight>]) -> Result<()> {
        match &state.verdict {
            Some(Verdict::Lost(error) | Verdict::Corrupt(error)) => return Err(error.error()),
            Some(Verdict::Whole { .. }) | None => {}
        }
        if let Some(error) = awaited.iter().find_map(|flight| flight.error.get()) {
            return Err(error.error());
        }
        // An error: the last handle is gone, and with it whoever would wait.
        if *self.stop.borrow() || self.stop.has_changed().is_err() {
            return Err(self.source.cancelled());
        }
        Ok(())
    }

    /// What is neither present nor under way, in pieces of at most one request.
    fn gaps(&self, state: &State, range: Range<u64>) -> Vec<Range<u64>> {
        let range = range.start..range.end.min(self.source.remote.size);
        let mut taken = state.present.clone();
        for flight in &state.flights {
            taken.insert(flight.range.clone());
        }
        let part = self.source.options.part_bytes.max(1);
        let mut pieces = Vec::new();
        for gap in taken.gaps(&range) {
            let mut at = gap.start;
            while at < gap.end {
                let end = gap.end.min(at.saturating_add(part));
                pieces.push(at..end);
                at = end;
            }
        }
        pieces
    }

    /// Begins to fetch a range that nobody fetches.
    fn start(self: &Arc<Self>, state: &mut State, range: Range<u64>, urgency: Urgency) {
        let flight = Arc::new(Flight { range: range.clone(), error: OnceLock::new() });
        state.flights.push(flight.clone());
        let landing = Landing { inner: self.clone(), flight, arrived: None };
        // The task's owner is `flights`: `cancel` waits for it, and the landing reports a panic.
        tokio::spawn(async move {
            let mut landing = landing;
            let inner = landing.inner.clone();
            let target = Target { file: inner.file.clone(), written: Some(inner.written.clone()) };
            let arrived = inner
                .source
                .transfer(range, urgency, target, inner.stop.clone(), |piece| {
                    inner.lock().present.insert(piece);
                    inner.progress.notify_waiters();
                })
                .await;
            landing.arrived = Some(arrived);
        });
    }
}

/// The flights that a reader of `range` waits for.
fn overlapping(state: &State, range: &Range<u64>) -> Vec<Arc<Flight>> {
    let overlap = |flight: &&Arc<Flight>| flight.range.start < range.end && range.start < flight.range.end;
    state.flights.iter().filter(overlap).cloned().collect()
}

/// Ends a flight whatever ends its task: the end of the transfer, a panic, the runtime's shutdown.
struct Landing {
    inner: Arc<Inner>,
    flight: Arc<Flight>,
    arrived: Option<Arrived>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.flights.retain(|flight| !Arc::ptr_eq(flight, &self.flight));
        let mut summed = false;
        let error = match self.arrived.take() {
            Some(arrived) => {
                if let Some(crc) = arrived.crc {
                    state.digests.insert(self.flight.range.start, arrived.end, crc);
                    summed = true;
                }
                arrived.result.err()
            }
            None => {
                let source = io::Error::other("the task of a range ended before the range did");
                Some(Error::Io { key: self.inner.source.key().clone(), source })
            }
        };
        if let Some(error) = error {
            // Without the sum of what was written the whole can never be verified.
            let lost = !summed || matches!(error, Error::Changed(_) | Error::Gone(_));
            let shared = Shared::new(error);
            if lost && state.verdict.is_none() {
                state.verdict = Some(Verdict::Lost(shared.clone()));
            }
            self.flight.error.get_or_init(|| shared);
        }
        // The last range: whoever still reads must hear if the whole is not what the store announced (P3).
        if state.flights.is_empty()
            && state.verdict.is_none()
            && state.verifiable
            && let Some(crc64) = state.digests.whole(self.inner.source.remote.size)
        {
            // The verdict tells every reader; nobody waits for this result.
            let _told = self.inner.settle(&mut state, crc64);
        }
        drop(state);
        self.inner.progress.notify_waiters();
    }
}
