//! The `ferryfs` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ferryfs::cli::main(|_, _, _| Err(ferryfs::cli::Failure::failed("mounting is not built in yet")))
}
