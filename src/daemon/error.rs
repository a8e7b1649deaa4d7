//! Why a daemon ends other than well.

use std::io;

/// Ends the process: exit code 2 if the configuration is at fault, 1 otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration must be changed.
    #[error("{0}")]
    Refused(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Says what could not be done.
    pub(super) fn io(what: &'static str) -> impl Fn(io::Error) -> Error {
        move |error| Error::Failed(format!("cannot {what}: {error}"))
    }
}

impl From<crate::journal::Error> for Error {
    fn from(error: crate::journal::Error) -> Self {
        Error::Failed(error.to_string())
    }
}
