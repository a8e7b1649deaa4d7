//! Why content does not arrive.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::store;
use crate::types::{Crc64, Key};

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can act on.
#[derive(Debug)]
pub enum Error {
    /// The bucket holds another version by now.
    Changed(Key),
    /// The object is not there any more.
    Gone(Key),
    /// The content that arrived is not what the store announced.
    Corrupt {
        /// The object.
        key: Key,
        /// The store's sum.
        expected: Crc64,
        /// The content's.
        found: Crc64,
    },
    /// [`super::Fill::cancel`] was called, or the last handle dropped.
    Cancelled(Key),
    /// The store failed for longer than the retries, or refused.
    Store(Box<store::Error>),
    /// The local file failed.
    Io {
        /// The object.
        key: Key,
        /// What the disk said.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Changed(key) => write!(f, "download {key}: the object changed meanwhile"),
            Error::Gone(key) => write!(f, "download {key}: the object is gone"),
            Error::Corrupt { key, expected, found } => {
                write!(f, "download {key}: its CRC64 is {found}, the store announced {expected}")
            }
            Error::Cancelled(key) => write!(f, "download {key}: cancelled"),
            Error::Store(error) => error.fmt(f),
            Error::Io { key, source } => write!(f, "write {key} to its file: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Store(error) => Some(error.as_ref()),
            Error::Io { source, .. } => Some(source),
            Error::Changed(_) | Error::Gone(_) | Error::Corrupt { .. } | Error::Cancelled(_) => None,
        }
    }
}

/// One failure for all who waited for the same range.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Error>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Shared {
    pub(super) fn new(error: Error) -> Self {
        Shared(Arc::new(error))
    }

    /// The same error again; where it cannot be copied, the first stands behind it as its source.
    pub(super) fn error(&self) -> Error {
        match &*self.0 {
            Error::Changed(key) => Error::Changed(key.clone()),
            Error::Gone(key) => Error::Gone(key.clone()),
            Error::Corrupt { key, expected, found } => {
                Error::Corrupt { key: key.clone(), expected: *expected, found: *found }
            }
            Error::Cancelled(key) => Error::Cancelled(key.clone()),
            Error::Store(error) => Error::Store(Box::new(store::Error {
                kind: error.kind,
                outcome: error.outcome,
                what: error.what.clone(),
                status: error.status,
                code: error.code.clone(),
                message: error.message.clone(),
                request_id: error.request_id.clone(),
                attempts: error.attempts,
                retry_after_s: error.retry_after_s,
                source: Some(Box::new(self.clone())),
            })),
            Error::Io { key, source } => {
                // A plain system error keeps its number, any other its kind and the first behind it.
                let source = match source.raw_os_error() {
                    Some(raw) => io::Error::from_raw_os_error(raw),
                    None => io::Error::new(source.kind(), self.clone()),
                };
                Error::Io { key: key.clone(), source }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_error_keeps_kind_and_number() {
        let key = Key::from("a/b");
        let io = Error::Io { key: key.clone(), source: io::Error::from_raw_os_error(libc::ENOSPC) };
        match Shared::new(io).error() {
            Error::Io { source, .. } => assert_eq!(source.raw_os_error(), Some(libc::ENOSPC)),
            other => panic!("{other:?}"),
        }
        let store = store::Error {
            kind: store::ErrorKind::Archived,
            outcome: store::Outcome::NotApplied,
            what: "GET cos://bucket/a/b".to_owned(),
            status: Some(403),
            code: Some("InvalidObjectState".to_owned()),
            message: None,
            request_id: Some("id".to_owned()),
            attempts: 1,
            retry_after_s: None,
            source: None,
        };
        let text = store.to_string();
        match Shared::new(Error::Store(Box::new(store))).error() {
            Error::Store(copy) => {
                assert_eq!(copy.kind, store::ErrorKind::Archived);
                assert_eq!(copy.to_string(), text);
            }
            other => panic!("{other:?}"),
        }
    }
}
