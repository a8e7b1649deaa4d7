//! The control socket: what people and scripts ask a running daemon, and its answers.
//!
//! # Promise
//! One HTTP/JSON socket (unix, 0600, in the state directory) serves status, what is pending, the
//! outbox, unmounting and Prometheus metrics. The daemon of a directory is found without touching the
//! mount, so that asking works while the mount hangs or is dead.
//!
//! # Invariants
//! 1. The socket is never open to others, not even for the moment between bind and chmod.
//! 2. Nothing here follows, stats or opens the mount directory itself.
//! 3. Replies are bounded: lists of files are cut, with the number of what is left out.

mod client;
mod error;
mod metrics;
mod registry;
mod server;
mod socket;
mod status;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::{ActionError, Error, Result};
pub use registry::{Address, Registration, find, forget, mount_path, of_process, register};
pub use server::Server;
pub use status::{
    BucketVersion, CachePruned, CacheStatus, CacheVerified, Counters, HeldEntry, InFlight, MappingStatus, MoveStatus,
    OddKeyEntry, OddKeyList, OutboxEntry, OutboxReconciled, OutboxState, PassthroughStatus, Pending, Phase, Problem,
    Refreshed, Retried, RottenFile, Status, SyncStatus, Unmounted, Waiting,
};

use std::time::Duration;

use futures::future::BoxFuture;

/// Most items that a list of [`Status`] or [`Pending`] holds; the counts beside it are whole.
pub const MAX_LISTED: usize = 100;

/// What the socket can ask of the daemon.
pub trait Actions: Send + Sync {
    /// Everything `ferryfs status` shows.
    fn status(&self) -> BoxFuture<'_, Status>;

    /// What is not yet uploaded, announced and recorded: of `path` (absolute within the mount,
    /// `/a/b`; a directory means all below it), or of the whole mount.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] if nothing of that name is known or owed.
    fn pending(&self, path: Option<String>) -> BoxFuture<'_, std::result::Result<Pending, ActionError>>;

    /// Hurries all uploads, waits for them up to `timeout`, then unmounts, and returns what is left
    /// for the next start. The daemon ends after the reply.
    ///
    /// # Errors
    /// [`ActionError::Busy`] if programs use the mount: nothing is changed then.
    fn umount(&self, timeout: Duration) -> BoxFuture<'_, std::result::Result<Pending, ActionError>>;

    /// Announcements that are owed or failed, oldest first, at most `limit`.
    fn outbox_list(&self, limit: usize) -> BoxFuture<'_, std::result::Result<Vec<OutboxEntry>, ActionError>>;

    /// What is held, by path.
    fn held(&self) -> BoxFuture<'_, std::result::Result<Vec<HeldEntry>, ActionError>>;

    /// Settles the held content that a [`HeldEntry`] tells of: `accept` uploads it, otherwise it goes.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] if it is not held any more, [`ActionError::Busy`] if somebody can
    /// still write to it or its name is taken; nothing is changed then.
    fn settle_held(
        &self,
        id: u64,
        generation: u64,
        accept: bool,
    ) -> BoxFuture<'_, std::result::Result<(), ActionError>>;

    /// Walks through the keys of all mappings and tells which have no path of their own (N2).
    fn odd_keys(&self) -> BoxFuture<'_, OddKeyList>;

    /// Asks the bucket, whatever is believed, for `path` (absolute within the mount) and all below it that is
    /// known, or for all of the mount; returns how many directories were listed.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] if there is no such path and was none, [`ActionError::Failed`] if the bucket
    /// could not be asked.
    fn refresh(&self, path: Option<String>) -> BoxFuture<'_, std::result::Result<u64, ActionError>>;

    /// Lets all cached content go that the bucket has and nobody uses.
    ///
    /// # Errors
    /// [`ActionError::Failed`] if the journal failed.
    fn cache_prune(&self) -> BoxFuture<'_, std::result::Result<CachePruned, ActionError>>;

    /// Reads all cached content that the bucket has, and lets go what is not what the bucket has.
    ///
    /// # Errors
    /// [`ActionError::Failed`] if the journal failed.
    fn cache_verify(&self) -> BoxFuture<'_, std::result::Result<CacheVerified, ActionError>>;

    /// Compares the objects below `path` (a directory, absolute within the mount), or of all mappings, with the
    /// success records in the log bucket, and announces what has none or an older one.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] if there is no such directory, [`ActionError::Failed`] if there is nothing to
    /// compare with, or a bucket could not be listed.
    fn outbox_reconcile(
        &self,
        path: Option<String>,
    ) -> BoxFuture<'_, std::result::Result<OutboxReconciled, ActionError>>;

    /// Sends failed announcements again; returns how many.
    fn outbox_retry(&self) -> BoxFuture<'_, std::result::Result<u64, ActionError>>;
}
