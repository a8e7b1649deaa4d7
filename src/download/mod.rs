//! Bucket to local file: whole objects, and large ones that are served while they arrive.
//!
//! # Promise
//! Bytes that are handed out come from one version of the object (If-Match on every request), and
//! a file is called whole only after its CRC64 equals what the store says of the object (P3, P8).
//!
//! # Invariants
//! 1. No byte is fetched twice: a range that somebody fetches is waited for by all others.
//! 2. A range is called present only after it was written to the file.
//! 3. A body that breaks goes on by a new request from where it stopped, a bounded number of times.
//! 4. Another version (412, another ETag or size) is [`Error::Changed`], a missing one
//!    [`Error::Gone`], and neither is asked for again.
//! 5. A wrong sum is [`Error::Corrupt`], is logged with the key, and fails every later read.
//! 6. (C7) Bytes of the object never replace what a program has written to the file, nor appear where
//!    it was cut, however requests and writes interleave.
//! 7. Requests in flight are bounded, over all files, by [`Options::total`]; each holds some chunks
//!    of its body in memory until they are written, so memory is bounded too.
//!
//! The file is the caller's, and so are the journal's rows about it (J2). A future of this room
//! that is dropped may leave a write under way: the file is then to be thrown away, not reused,
//! unless [`Fill::cancel`] was awaited.

mod digests;
mod error;
mod extents;
mod fill;
mod local;
mod readahead;
mod transfer;
mod whole;
mod written;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::Remote;
use crate::store::{ObjectMeta, ObjectStore};
use crate::types::Crc64;

pub use error::{Error, Result};
pub use extents::Extents;
pub use fill::Fill;
pub use written::Kept;

/// Settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Largest range of one request, bytes.
    pub part_bytes: u64,
    /// Requests at a time for one file, not counting those that a reader waits for.
    pub parallel: usize,
    /// Requests at a time in all; a quarter of them is kept for what readers wait for.
    pub total: usize,
    /// Smallest range that a read fetches, bytes: a round trip costs more than this many.
    pub block_bytes: u64,
    /// Read-ahead of a stream that has just been found sequential, bytes.
    pub read_ahead_min_bytes: u64,
    /// Read-ahead of a stream that has been sequential for long, bytes.
    pub read_ahead_max_bytes: u64,
    /// Broken bodies in a row, without a byte in between, that a range survives. A request that gets
    /// no answer at all is not repeated here: the store's client has done that.
    pub retries: u32,
    /// Pause before the first repeat; doubled each time, half of it random.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// A body that brings nothing for this long is broken off.
    pub stall: Duration,
}

impl Default for Options {
    /// Part sizes and numbers as the vendors' own tools use for one fast link; the pauses add up to
    /// about 3 s, after which a caller is better told (P7).
    fn default() -> Self {
        Options {
            part_bytes: 8 << 20,
            parallel: 4,
            total: 16,
            block_bytes: 128 << 10,
            read_ahead_min_bytes: 1 << 20,
            read_ahead_max_bytes: 32 << 20,
            retries: 4,
            backoff: Duration::from_millis(200),
            backoff_max: Duration::from_secs(5),
            stall: Duration::from_secs(30),
        }
    }
}

/// An object that arrived whole.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Of its content, summed while it arrived.
    pub crc64: Crc64,
    /// The sum was compared with the store's; false: the store has none (an old object), and only
    /// the length was checked.
    pub verified: bool,
    /// As the store told it with the content.
    pub meta: ObjectMeta,
}

/// Fetches objects; cheap to clone. All clones share one bound of requests in flight.
#[derive(Clone, Debug)]
pub struct Downloader {
    options: Arc<Options>,
    bounds: Arc<transfer::Bounds>,
}

impl Downloader {
    /// A downloader with its own bound of requests.
    pub fn new(options: Options) -> Self {
        let bounds = transfer::Bounds::new(options.total);
        Downloader { options: Arc::new(options), bounds: Arc::new(bounds) }
    }

    /// Fetches a whole object into an empty file. The file's content means nothing until this
    /// returns `Ok`, and after a failure or a drop the file is to be thrown away.
    ///
    /// # Errors
    /// As [`Error`]; `Corrupt` only after the object was fetched a second time.
    pub async fn fetch(&self, store: &Arc<dyn ObjectStore>, remote: &Remote, file: &Arc<File>) -> Result<Fetched> {
        whole::fetch(&self.source(store, remote), file).await
    }

    /// Serves an object from a file that is sparse at first and fills as it is read. Sends nothing
    /// until it is asked for bytes.
    pub fn fill(&self, store: &Arc<dyn ObjectStore>, remote: Remote, file: Arc<File>) -> Fill {
        let kept = Kept::nothing(remote.size);
        Fill::new(self.source(store, &remote), file, kept)
    }

    /// As [`Downloader::fill`], for a file that has some of it already: programs' bytes, or ours.
    pub fn resume(&self, store: &Arc<dyn ObjectStore>, remote: Remote, file: Arc<File>, kept: Kept) -> Fill {
        Fill::new(self.source(store, &remote), file, kept)
    }

    /// Goes on with a fill that was cancelled from another object of the same size and sum: its bytes have moved.
    pub fn moved(&self, store: &Arc<dyn ObjectStore>, remote: Remote, fill: &Fill) -> Fill {
        fill.moved(self.source(store, &remote))
    }

    fn source(&self, store: &Arc<dyn ObjectStore>, remote: &Remote) -> transfer::Source {
        transfer::Source::new(store.clone(), remote.clone(), self.options.clone(), self.bounds.clone())
    }
}
