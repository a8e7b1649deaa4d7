//! Where the daemon's log goes.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Logs to stderr: `FERRYFS_LOG` in the form of tracing's filters, else `info` (`debug` if asked for).
pub(super) fn init(debug: bool) {
    let level = if debug { "ferryfs=debug" } else { "ferryfs=info" };
    let filter = std::env::var("FERRYFS_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(level)))
        .with_writer(std::io::stderr)
        // It would tell of a log that cannot be written by a print to the same, which then panics: a full or
        // failing disk must not end the daemon.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // systemd's journal has its own times; sd-daemon(3) says how to know that stderr leads there. An
    // error means that a subscriber is set already, which serves as well.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
}
