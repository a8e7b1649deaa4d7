//! The command line.
//!
//! # Promise
//! Exit codes are part of the interface: 0 done, 1 it failed or something is left, 2 the command line
//! or the configuration is wrong. As mount helper those of mount(8): 0, 1 usage, 32 mount failed.
//! Every failure is one message on stderr that says what to do; never a backtrace.
//!
//! # Invariants
//! 1. Nothing here touches a mount that may hang, but for the programs of `demo`.
//! 2. What people read goes to stderr where it is progress, to stdout where it is the answer.
//! 3. Names are printed with their control characters escaped.

mod args;
mod background;
mod cache;
mod check;
mod demo;
mod doctor;
mod emulator;
mod failure;
mod helper;
mod log;
mod mount;
mod outbox;
mod output;
mod process;
mod progress;
mod recover;
mod refresh;
mod remount;
mod save;
mod scan;
mod status;
mod umount;
mod wait;

pub use failure::Failure;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::config::Config;
use args::{Args, CacheCommand, Command, ConfigCommand, OutboxCommand};

/// Called once, when the mount answers.
pub type Ready = Box<dyn FnOnce() + Send>;

/// The daemon: mounts on the directory (absolute, as `control::mount_path` spells it), calls back when
/// the mount answers, returns when it is unmounted.
pub type Serve = fn(Config, PathBuf, Ready) -> Result<(), Failure>;

/// Runs the command line of this process.
pub fn main(serve: Serve) -> ExitCode {
    failure::install_panic_hook();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let is_helper = helper::is_called(&arguments);
    let run = || if is_helper { helper::run(&arguments, serve) } else { run(&arguments, serve) };
    // A panic has had its one line by the hook; the exit code must still be ours.
    let result = std::panic::catch_unwind(run).unwrap_or(Err(Failure::reported()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(if is_helper { failure.helper_code() } else { failure.code() })
        }
    }
}

fn run(arguments: &[OsString], serve: Serve) -> Result<(), Failure> {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => return Failure::from_clap(&error),
    };
    match args.command {
        Command::Mount(args) => mount::run(args, serve),
        Command::Umount(args) => umount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Wait(args) => wait::run(&args),
        Command::Refresh(args) => refresh::run(&args),
        Command::Cache { command: CacheCommand::Prune(args) } => cache::prune(&args),
        Command::Cache { command: CacheCommand::Verify(args) } => cache::verify(&args),
        Command::Outbox { command: OutboxCommand::List(args) } => outbox::list(&args),
        Command::Outbox { command: OutboxCommand::Retry(args) } => outbox::retry(&args),
        Command::Outbox { command: OutboxCommand::Reconcile(args) } => outbox::reconcile(&args),
        Command::Recover(args) => recover::run(args),
        Command::Emulator(args) => emulator::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Config { command: ConfigCommand::Check { file } } => check::run(&file),
    }
}
