//! What can go wrong with the outbox itself. What goes wrong with a request is no error here: it is
//! retried or declared failed, and shown in the status.

use crate::journal;
use crate::store;
use crate::types::TargetId;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Announcements or records are owed to a target that is not configured (J4).
    #[error(
        "{owed} announcements or records are owed to target {} that the configuration no longer has: \
         configure it again until they are sent", target.0
    )]
    Unconfigured {
        /// The sync task or log bucket.
        target: TargetId,
        /// Rows owed.
        owed: usize,
    },
    /// A call names a sync task that this outbox was not opened with.
    #[error("no sync task has the number {}", .0.0)]
    UnknownTarget(TargetId),
    /// Two of the given targets are the same, or one has a log bucket without a client.
    #[error("the sync task {} is configured twice, or its log bucket only in part", .0.0)]
    BadTarget(TargetId),
    /// The dispatcher runs already, or has ended.
    #[error("the outbox's dispatcher was started before")]
    AlreadyRunning,
    /// The journal takes no more writes, or cannot be read.
    #[error("the outbox cannot go on: {0}")]
    Journal(#[from] journal::Error),
    /// Reconciling could not list a bucket.
    #[error("cannot compare the bucket with its records: {0}")]
    Store(#[from] store::Error),
    /// Reconciling needs success records.
    #[error("the sync task {} has no log bucket: there are no records to compare with", .0.0)]
    NoRecords(TargetId),
}
