//! The `ferryfs` binary.

use std::process::ExitCode;

use ferryfs::cli::{self, Failure};
use ferryfs::daemon;

fn main() -> ExitCode {
    cli::main(|config, dir, ready| {
        daemon::run(config, dir, ready).map_err(|error| match error {
            daemon::Error::Refused(message) => Failure::refused(message),
            daemon::Error::Failed(message) => Failure::failed(message),
        })
    })
}
