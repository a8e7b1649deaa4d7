//! How a step can end without success.

use crate::types::Key;

/// A step that did not succeed.
#[derive(Debug)]
pub(super) enum StepError {
    /// The store failed; to be repeated.
    Store(crate::store::Error),
    /// What the store holds is not what was sent; to be repeated.
    Mismatch(String),
    /// What was to be copied was changed or removed elsewhere before it was: shown, and looked for again.
    Lost(Key),
    /// The outcome is unknown: the attempt must be settled before anything else.
    Unknown(u64, crate::store::Error),
    /// The content changed under the step: its own change brings the next look.
    Changed,
    /// What was planned cannot be done any more: plan again at once.
    Again,
    /// Somebody may still write to the content (C4): ask again.
    Busy,
    /// The local file failed; to be repeated, and shown.
    Io(std::io::Error),
    /// The journal failed: the mount stops.
    Journal(crate::journal::Error),
    /// The outbox cannot take an announcement: the mount stops.
    Outbox(crate::outbox::Error),
}

/// Why the room cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The journal takes no more writes.
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
    /// The outbox cannot take an announcement.
    #[error(transparent)]
    Outbox(#[from] crate::outbox::Error),
    /// A step panicked.
    #[error("an upload step died: {0}")]
    Step(#[from] tokio::task::JoinError),
}

impl From<crate::outbox::Error> for StepError {
    fn from(error: crate::outbox::Error) -> Self {
        StepError::Outbox(error)
    }
}

impl From<crate::journal::Error> for StepError {
    fn from(error: crate::journal::Error) -> Self {
        StepError::Journal(error)
    }
}

impl From<std::io::Error> for StepError {
    fn from(error: std::io::Error) -> Self {
        StepError::Io(error)
    }
}

impl From<crate::cache::Error> for StepError {
    fn from(error: crate::cache::Error) -> Self {
        match error {
            crate::cache::Error::Io(error) => StepError::Io(error),
            crate::cache::Error::Journal(error) => StepError::Journal(error),
        }
    }
}

/// Shorthand.
pub(super) type StepResult<T> = Result<T, StepError>;
