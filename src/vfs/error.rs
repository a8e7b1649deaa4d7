//! What a call can answer besides success.

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in POSIX terms; `fuse/errno.rs` gives each its number.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such name or inode.
    #[error("no such file or directory")]
    NotFound,
    /// The name exists.
    #[error("file exists")]
    Exists,
    /// Not a directory.
    #[error("not a directory")]
    NotDirectory,
    /// Is a directory.
    #[error("is a directory")]
    IsDirectory,
    /// Directory not empty.
    #[error("directory not empty")]
    NotEmpty,
    /// Name or key too long.
    #[error("name too long")]
    NameTooLong,
    /// The name cannot be part of a key (not UTF-8, forbidden control character).
    #[error("name cannot be an object key")]
    IllegalName,
    /// Rename or link across mappings.
    #[error("across mappings")]
    CrossDevice,
    /// The arguments make no sense.
    #[error("invalid argument")]
    Invalid,
    /// Not implemented here.
    #[error("operation not supported")]
    NotSupported,
    /// The mount or mapping is read-only.
    #[error("read-only file system")]
    ReadOnly,
    /// The caller may not.
    #[error("permission denied")]
    PermissionDenied,
    /// Not the owner.
    #[error("operation not permitted")]
    NotPermitted,
    /// No space in the cache.
    #[error("no space left")]
    NoSpace,
    /// Beyond the largest size.
    #[error("file too large")]
    TooLarge,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// No such handle.
    #[error("bad file handle")]
    BadHandle,
    /// SEEK_DATA or SEEK_HOLE beyond the end.
    #[error("no such offset")]
    NoOffset,
    /// The caller is gone, and the store has not answered.
    #[error(transparent)]
    Interrupted(#[from] crate::task::Interrupted),
    /// What somebody else's call has met that this one waited for.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// The mapping is offline and the answer is not known here.
    #[error("the store cannot be reached")]
    Offline,
    /// The object is archived.
    #[error("the object is archived")]
    Archived,
    /// The store refused; the log has its message.
    #[error("the store failed: {0}")]
    Store(#[from] crate::store::Error),
    /// The journal failed; the mount takes no more writes.
    #[error("{0}")]
    Journal(#[from] crate::journal::Error),
    /// A local file failed.
    #[error("local i/o: {0}")]
    Io(#[from] std::io::Error),
    /// Held: not uploaded until a program writes it anew (C5, C6).
    #[error("held here, not uploaded: {0:?}")]
    Held(crate::journal::Hold),
    /// Somebody waits for the bucket, and it is not there.
    #[error(transparent)]
    NotUploaded(#[from] crate::upload::NotUploaded),
    /// The inode is not what the path names any more: look it up again.
    #[error("stale file handle")]
    Stale,
    /// Content is not what its checksum says, or changed under the reader.
    #[error("content is not what the store announced")]
    Corrupt,
}

impl Error {
    /// The error itself, whoever met it first.
    pub fn first(&self) -> &Error {
        match self {
            Error::Shared(error) => error.first(),
            error => error,
        }
    }
}

impl From<crate::namespace::Error> for Error {
    fn from(error: crate::namespace::Error) -> Self {
        use crate::namespace::Error as Name;
        match error {
            Name::NotFound => Error::NotFound,
            Name::Exists => Error::Exists,
            Name::NotDirectory => Error::NotDirectory,
            Name::IsDirectory => Error::IsDirectory,
            Name::NotEmpty => Error::NotEmpty,
            Name::CrossDevice => Error::CrossDevice,
            Name::Loop => Error::Invalid,
            Name::NameTooLong => Error::NameTooLong,
            Name::IllegalName => Error::IllegalName,
            Name::ReadOnly => Error::NotPermitted,
            Name::Interrupted(interrupted) => Error::Interrupted(interrupted),
            Name::Offline(_) => Error::Offline,
            Name::Store(error) if error.is_offline() => Error::Offline,
            Name::Store(error) => Error::Store(error),
            Name::Journal(error) => Error::Journal(error),
        }
    }
}

impl From<crate::cache::Error> for Error {
    fn from(error: crate::cache::Error) -> Self {
        match error {
            crate::cache::Error::Io(error) => Error::Io(error),
            crate::cache::Error::Journal(error) => Error::Journal(error),
        }
    }
}
