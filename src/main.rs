//! The `ferryfs` binary.

use std::process::ExitCode;

use ferryfs::cli;
use ferryfs::daemon;

fn main() -> ExitCode {
    cli::main(|config, dir, ready| Ok(daemon::run(config, dir, ready)?))
}
