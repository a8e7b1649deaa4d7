//! Why an emulator could not start or could not read what it stores.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// As asked for.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A file or directory under the root.
    #[error("{doing} {path}")]
    Disk {
        /// What was tried: `read`, `write`, ...
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A metadata file under the root is not one of ours.
    #[error("understand {path}")]
    Record {
        /// Which one.
        path: PathBuf,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// Bucket names: 3 to 63 lower-case letters, digits and dashes, not beginning or ending with a
    /// dash.
    #[error("use {name:?} as a bucket's name")]
    BucketName {
        /// As asked for.
        name: String,
    },
    /// No such bucket.
    #[error("find bucket {name:?}")]
    NoBucket {
        /// As asked for.
        name: String,
    },
}

impl Error {
    /// For `map_err` of file operations.
    pub(super) fn disk(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Disk { doing, path, source }
    }
}
