//! What can go wrong with names.

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed call on the namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such inode or name.
    #[error("no such name")]
    NotFound,
    /// The name is taken.
    #[error("the name exists")]
    Exists,
    /// Not a directory.
    #[error("not a directory")]
    NotDirectory,
    /// A directory.
    #[error("a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// Across mappings.
    #[error("across mappings")]
    CrossDevice,
    /// A directory cannot move below itself.
    #[error("a directory cannot move below itself")]
    Loop,
    /// The name or the key it makes is too long.
    #[error("name too long")]
    NameTooLong,
    /// The name cannot be part of a key.
    #[error("the name cannot be part of an object key")]
    IllegalName,
    /// Not in this part of the tree (the synthetic root of several mappings).
    #[error("read-only directory")]
    ReadOnly,
    /// Whoever asked is gone, and the store has not answered.
    #[error(transparent)]
    Interrupted(#[from] crate::task::Interrupted),
    /// The store is offline and the answer is not known here.
    #[error("{0} is offline")]
    Offline(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
}
