//! What can go wrong with the journal.

use std::path::PathBuf;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed journal call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be opened.
    #[error("cannot open the journal {path}: {reason}")]
    Open {
        /// The database.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The database was made by a newer ferryfs.
    #[error("the journal {path} has schema {found}, this ferryfs knows {known}: use the newer ferryfs")]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Reading failed.
    #[error("cannot read the journal: {0}")]
    Read(String),
    /// A commit or a sync failed earlier, or now; nothing is written any more (J3).
    #[error("the journal has failed and takes no more writes: {0}")]
    Latched(String),
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}
