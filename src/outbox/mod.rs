//! What OMS must be told, until it has been told and the log bucket says so.
//!
//! # Promise
//! Every announcement whose rows a caller committed is sent until OMS accepts it or it is declared
//! failed; its outcome is recorded in the log bucket. Nothing is swallowed: whatever is left, failed
//! or paused shows in [`Outbox::status`] and [`Outbox::list`], also after a crash. OMS may be told
//! twice, never not at all.
//!
//! # Invariants
//! 1. (J2) No request goes before the rows that justify it are on disk.
//! 2. (O1) A reply settles only what was sent: a key owed again meanwhile is sent again.
//! 3. (O1) A key has at most one announcement and one record under way.
//! 4. (O2) "Told" and "record owed" are one batch of the journal.
//! 5. (O2) Records of a key are written in sequence; a later outcome cancels one still owed.
//! 6. (O3) Only a 4xx to a single key, or time, declares a key failed; 401, 403 and 404 pause the
//!    sync task instead.
//! 7. Memory holds one entry for each key owed, however often it changes; requests under way are
//!    bounded by [`Options`].

mod dispatcher;
mod error;
mod lane;
mod ledger;
mod options;
mod pace;
mod queue;
mod reconcile;
mod record_key;
mod records;
mod status;

pub use error::{Error, Result};
pub use options::{Options, Target};
pub use reconcile::Reconciled;
pub use status::{Counters, Item, ItemState, Left, Status, TargetStatus};

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::clock::Clock;
use crate::journal::{AnnouncementRow, Journal, Op, RecordRow};
use crate::store::ObjectStore;
use crate::types::{Key, TargetId};

use ledger::{Claim, Ledger};

/// Handle of the outbox; cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    ledger: Arc<Ledger>,
}

/// An announcement whose rows are not on disk yet. Dropping it forgets the announcement: right if
/// the batch that was to hold its rows is never submitted.
#[must_use = "hand it to `Outbox::committed` once its rows are on disk"]
pub struct Ticket {
    ledger: Weak<Ledger>,
    claim: Option<Claim>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.claim).finish()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let (Some(ledger), Some(claim)) = (self.ledger.upgrade(), self.claim.take()) {
            ledger.release(&claim);
        }
    }
}

impl Outbox {
    /// Takes over what the journal holds (`snapshot`: announcements and records). Nothing is sent
    /// before [`Outbox::run`].
    ///
    /// # Errors
    /// [`Error::Unconfigured`] if something is owed to a target that is not among `targets` (J4),
    /// [`Error::BadTarget`] if a target is given twice or its log bucket only in part.
    pub fn open(
        journal: Journal,
        clock: Arc<dyn Clock>,
        options: Options,
        targets: Vec<Target>,
        snapshot: (&[AnnouncementRow], &[RecordRow]),
    ) -> Result<Outbox> {
        Ok(Outbox { ledger: Arc::new(Ledger::open(journal, clock, options, targets, snapshot)?) })
    }

    /// The rows by which a key becomes owed, for the caller's own batch, and the ticket to hand to
    /// [`Outbox::committed`] afterwards. What of the key waits already is coalesced with it; what is
    /// under way is not. Changes of one key must not overlap (R1).
    ///
    /// # Errors
    /// [`Error::UnknownTarget`]; [`Error::Journal`] if no numbers can be reserved.
    pub fn owe(&self, sync: TargetId, key: &Key) -> Result<(Ticket, Vec<Op>)> {
        let (claim, ops) = self.ledger.owe(sync, key)?;
        Ok((Ticket { ledger: Arc::downgrade(&self.ledger), claim: Some(claim) }, ops))
    }

    /// The caller's batch with the rows of this ticket is on disk (`Durability::Disk`): the
    /// announcement may now be sent (J2). Call it before telling anybody that the key is settled, so
    /// that who waits for the key never sees a moment with nothing owed.
    pub fn committed(&self, mut ticket: Ticket) {
        if let Some(claim) = ticket.claim.take() {
            self.ledger.committed(claim);
        }
    }

    /// The key is gone from the bucket: what waits of it, or has failed, ends as `gone`. Returns the
    /// rows for the caller's batch; if that is never committed, the key is announced after the next
    /// start for nothing.
    #[must_use = "the rows belong into the caller's batch"]
    pub fn gone(&self, sync: TargetId, key: &Key) -> Vec<Op> {
        self.ledger.gone(sync, key)
    }

    /// Sends until `shutdown` resolves, then waits `Options::shutdown_grace` for requests under way.
    /// Run it once; its owner awaits it.
    ///
    /// # Errors
    /// [`Error::Journal`] if the journal fails: nothing is sent any more, and the mount must stop.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> Result<()> {
        dispatcher::run(self.ledger.clone(), shutdown).await
    }

    /// Everything at a glance.
    pub fn status(&self) -> Status {
        self.ledger.status()
    }

    /// At most `limit` announcements and records that are left, failed ones first.
    pub fn list(&self, limit: usize) -> Vec<Item> {
        self.ledger.list(limit)
    }

    /// Owes again what has failed, of one sync task or of all, of keys that begin with `prefix`
    /// (empty: all), and lets nothing else of these sync tasks wait for its backoff or for the next
    /// probe. Returns how many had failed.
    ///
    /// # Errors
    /// [`Error::UnknownTarget`], [`Error::Journal`].
    pub async fn retry_failed(&self, sync: Option<TargetId>, prefix: &str) -> Result<usize> {
        self.ledger.retry_failed(sync, prefix).await
    }

    /// Nothing waits for its backoff or for the next probe: what was wrong may have been mended.
    pub fn hurry(&self) {
        self.ledger.hurry();
    }

    /// Whether nothing of the key is owed, under way or failed: it is announced and recorded.
    pub fn is_idle_for(&self, sync: TargetId, key: &Key) -> bool {
        self.ledger.is_idle_for(sync, key)
    }

    /// What is left of this key alone.
    pub fn left_of(&self, sync: TargetId, key: &Key) -> Left {
        self.ledger.left_of(sync, key)
    }

    /// What is left of keys that begin with `prefix` (empty: all), of one sync task or of all.
    pub fn left(&self, sync: Option<TargetId>, prefix: &str) -> Left {
        self.ledger.left(sync, prefix)
    }

    /// Changes whenever an answer of the calls above may have: for who waits.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.ledger.subscribe()
    }

    /// Compares the objects under `prefix` with the success records, and owes what has no record or
    /// one older than itself (O4): OMS does not promise delivery either. Memory stays bounded: it
    /// waits while much is owed already. Private keys are never announced.
    ///
    /// # Errors
    /// [`Error::NoRecords`] without a log bucket, [`Error::Store`] if either bucket cannot be listed
    /// (what was found until then is owed), [`Error::UnknownTarget`], [`Error::Journal`].
    pub async fn reconcile(
        &self,
        sync: TargetId,
        source: &dyn ObjectStore,
        prefix: &str,
        is_private: impl Fn(&Key) -> bool + Send,
    ) -> Result<Reconciled> {
        reconcile::reconcile(&self.ledger, sync, source, prefix, is_private).await
    }
}
