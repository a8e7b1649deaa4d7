//! What can go wrong with backing files.

use std::io;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed call on the cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed.
    #[error("cache: {0}")]
    Io(#[from] io::Error),
    /// The journal could not reserve numbers.
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
}
