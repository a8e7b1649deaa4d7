//! What can go wrong with a question to a daemon.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the daemon did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionError {
    /// Nothing of that name.
    NotFound(String),
    /// In use, or not now; nothing was changed.
    Busy(String),
    /// It was tried and failed.
    Failed(String),
}

impl ActionError {
    /// What to tell people.
    pub fn message(&self) -> &str {
        match self {
            ActionError::NotFound(message) | ActionError::Busy(message) | ActionError::Failed(message) => message,
        }
    }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for ActionError {}

/// A question that got no answer, or a refusal.
#[derive(Debug)]
pub enum Error {
    /// No ferryfs is known at this directory.
    NotMounted(PathBuf),
    /// A daemon was there and is gone.
    Dead {
        /// Its mount.
        mount: PathBuf,
        /// Its process, as it was.
        pid: u32,
    },
    /// The socket cannot be used by this user.
    Denied(PathBuf),
    /// Talking to the daemon failed.
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The daemon's answer makes no sense.
    BadReply(String),
    /// The daemon refused.
    Refused(ActionError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotMounted(path) => write!(f, "no ferryfs is mounted on {}", path.display()),
            Error::Dead { mount, pid } => write!(
                f,
                "the daemon of {mount} (pid {pid}) is gone; run `ferryfs umount {mount}` and mount again: what was \
                 closed is kept and goes up then",
                mount = mount.display()
            ),
            Error::Denied(socket) => {
                write!(f, "only the user who mounted may use {}: run it as that user or as root", socket.display())
            }
            Error::Io { what, source } => write!(f, "cannot {what}: {source}"),
            Error::BadReply(reason) => write!(f, "the daemon's answer makes no sense: {reason}"),
            Error::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Refused(error) => Some(error),
            Error::NotMounted(_) | Error::Dead { .. } | Error::Denied(_) | Error::BadReply(_) => None,
        }
    }
}
