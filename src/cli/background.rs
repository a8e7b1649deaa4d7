//! A daemon in the background: the parent returns when the child's mount answers, with the child's
//! message and exit code if it does not.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Failure, Ready};
use crate::config::Config;

/// The one line that the child writes to its stdout.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Ready,
    Failed { code: u8, message: String },
}

/// Longest report that is read.
const MAX_REPORT_BYTES: u64 = 64 << 10;

/// A log longer than this is set aside at the next mount.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// Starts the child with `words` and waits for its report.
pub(super) fn parent(words: &[OsString], config: &Config) -> Result<(), Failure> {
    let (log, log_path) = open_log(&config.state.dir)
        .map_err(|error| Failure::failed(format!("cannot write the log in {}: {error}", config.state.dir.display())))?;
    let failed = |error: io::Error| Failure::failed(format!("cannot start the daemon: {error}"));
    // Not by name: mount(8) may run us without PATH.
    let mut child = Command::new("/proc/self/exe")
        .arg0("ferryfs")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout.take(MAX_REPORT_BYTES)).read_line(&mut line).map_err(failed)?;
    }
    match serde_json::from_str(&line) {
        Ok(Report::Ready) => Ok(()),
        Ok(Report::Failed { code, message }) => {
            child.wait().map_err(failed)?;
            Err(Failure::with_code(code, message))
        }
        Err(_) => {
            let status = child.wait().map_err(failed)?;
            Err(Failure::failed(format!(
                "the daemon ended before the mount answered ({status}); its log: {}",
                log_path.display()
            )))
        }
    }
}

/// Runs the daemon as the child of [`parent`]: once mounted in a session of its own, in no directory
/// that anybody might want to unmount, reporting on stdout.
pub(super) fn child(run: impl FnOnce(Ready) -> Result<(), Failure>) -> Result<(), Failure> {
    // As "exe" nobody would find it in a list of processes.
    if let Err(error) = rustix::thread::set_name(c"ferryfs") {
        eprintln!("ferryfs: cannot set the process's name: {error}");
    }
    let (told, is_told) = std::sync::mpsc::channel::<()>();
    let ready: Ready = Box::new(move || {
        // IMPORTANT: not before the mount answers. On an autofs directory (x-systemd.automount) only the
        // process group of who was asked to mount gets through; anybody else waits for the mount.
        // Fails only for the leader of a process group, which is no reason not to serve.
        if let Err(error) = rustix::process::setsid() {
            tracing::warn!(%error, "cannot leave the terminal's session");
        }
        if let Err(error) = std::env::set_current_dir("/") {
            tracing::warn!(%error, "cannot leave the working directory");
        }
        tell(&Report::Ready);
        // The receiver lives as long as the daemon.
        let _ = told.send(());
    });
    let result = run(ready);
    if let Err(failure) = &result
        && is_told.try_recv().is_err()
    {
        let message = failure.message().unwrap_or("failed").to_owned();
        tell(&Report::Failed { code: failure.code(), message });
    }
    result
}

fn tell(report: &Report) {
    let told = serde_json::to_string(report)
        .map_err(io::Error::from)
        .and_then(|line| writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush()));
    if let Err(error) = told {
        // Whoever started us is gone; the mount is not.
        tracing::warn!(%error, "cannot report to the command that mounted");
    }
}

/// `ferryfs.log` in the state directory, which is made if it is not there.
fn open_log(state_dir: &Path) -> io::Result<(File, PathBuf)> {
    if let Some(parent) = state_dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(state_dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let path = state_dir.join("ferryfs.log");
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
        fs::rename(&path, state_dir.join("ferryfs.log.1"))?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
    Ok((file, path))
}
