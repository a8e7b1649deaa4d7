//! How a command ends if not well.

use std::fmt;
use std::io::Write;

use crate::config;
use crate::control;
use crate::daemon;

/// mount(8): incorrect invocation or permissions; mount failure.
const HELPER_USAGE: u8 = 1;
const HELPER_MOUNT_FAILED: u8 = 32;

/// An exit code and one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    /// `None`: the message has been told.
    message: Option<String>,
}

impl Failure {
    /// It failed, or something is left: exit 1.
    pub fn failed(message: impl fmt::Display) -> Failure {
        Failure { code: 1, message: Some(message.to_string()) }
    }

    /// The command line or the configuration is wrong: exit 2.
    pub fn refused(message: impl fmt::Display) -> Failure {
        Failure { code: 2, message: Some(message.to_string()) }
    }

    /// It failed, and what there was to say has been said.
    pub(super) fn reported() -> Failure {
        Failure { code: 1, message: None }
    }

    /// A failure as another process reported it.
    pub(super) fn with_code(code: u8, message: String) -> Failure {
        Failure { code, message: Some(message) }
    }

    /// Clap's own answer: help and version succeed, usage fails.
    pub(super) fn from_clap(error: &clap::Error) -> Result<(), Failure> {
        // Nobody is left to tell if this cannot be printed.
        let _ = error.print();
        if error.exit_code() == 0 { Ok(()) } else { Err(Failure { code: 2, message: None }) }
    }

    /// The exit code of `ferryfs`.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The exit code of `mount.ferryfs`.
    pub(super) fn helper_code(&self) -> u8 {
        if self.code == 2 { HELPER_USAGE } else { HELPER_MOUNT_FAILED }
    }

    /// What to tell people, if it has not been told.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Tells it on stderr.
    pub(super) fn report(&self) {
        if let Some(message) = &self.message {
            // A closed stderr leaves the exit code to speak.
            let _ = writeln!(std::io::stderr(), "ferryfs: {message}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("failed"))
    }
}

impl std::error::Error for Failure {}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Failure::refused(error)
    }
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        match error {
            daemon::Error::Refused(message) => Failure::refused(message),
            daemon::Error::Failed(message) => Failure::failed(message),
        }
    }
}

impl From<control::Error> for Failure {
    fn from(error: control::Error) -> Self {
        Failure::failed(error)
    }
}

/// One line instead of a backtrace: what it says, and where, is what a report of the fault needs.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message").replace('\n', " ");
        let place = info.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
        // A closed stderr must not panic within the hook.
        let _ = writeln!(
            std::io::stderr(),
            "ferryfs: internal error{place}: {message}; please report this, what was closed is safe"
        );
    }));
}
