//! What the demo stands on: a temporary directory, an emulator, a mount; and taking them away again,
//! whatever happened.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::cli::{Failure, process};
use crate::disk;

pub(super) const BUCKET: &str = "examplebucket-1250000000";
pub(super) const PREFIX: &str = "data/";
pub(super) const LOG_BUCKET: &str = "logs-1250000000";
pub(super) const REGION: &str = "ap-guangzhou";
pub(super) const SECRET_ID: &str = "AKIDdemo";
pub(super) const SECRET_KEY: &str = "demo-secret-key";
const ACCESS_KEY: &str = "AKdemo";
const OMS_SECRET_KEY: &str = "demo-oms-secret-key";

/// The last lines of a log that tell why something failed.
const LOG_LINES: usize = 15;

/// What the emulator prints when it is ready.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Emulator {
    /// `http://127.0.0.1:port`
    pub(super) store: String,
    /// The events URL.
    pub(super) oms: String,
}

/// The parts that must be taken away.
pub(super) struct Stage {
    dir: PathBuf,
    emulator: Mutex<Option<Child>>,
}

impl Stage {
    pub(super) fn new() -> Result<Stage, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot make a temporary directory: {error}"));
        let dir = tempfile::Builder::new().prefix("ferryfs-demo-").tempdir().map_err(failed)?.keep();
        let dir = dir.canonicalize().map_err(failed)?;
        for name in ["mnt", "sources"] {
            fs::create_dir(dir.join(name)).map_err(failed)?;
        }
        Ok(Stage { dir, emulator: Mutex::new(None) })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn mount_dir(&self) -> PathBuf {
        self.path("mnt")
    }

    /// Runs this program, its output where ours goes.
    pub(super) fn ferryfs(&self, words: &[&OsStr]) -> Result<(), Failure> {
        let status = Command::new("/proc/self/exe")
            .args(words)
            .stdin(Stdio::null())
            .status()
            .map_err(|error| Failure::failed(format!("cannot run ferryfs: {error}")))?;
        let verb = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        if status.success() { Ok(()) } else { Err(Failure::failed(format!("ferryfs {verb} failed: {status}"))) }
    }

    /// Starts the emulator and waits until it is ready.
    pub(super) fn start_emulator(&self) -> Result<Emulator, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot start the emulator: {error}"));
        let log = File::create(self.path("emulator.log")).map_err(failed)?;
        let mut child = Command::new("/proc/self/exe")
            .args(["emulator", "--listen", "127.0.0.1:0", "--root"])
            .arg(self.path("objects"))
            .args(["--bucket", BUCKET, "--bucket", LOG_BUCKET])
            .args(["--credentials", &format!("{SECRET_ID}:{SECRET_KEY}")])
            .args(["--oms-credentials", &format!("{ACCESS_KEY}:{OMS_SECRET_KEY}")])
            // A group of its own: it must outlive a Ctrl-C until the uploads are drained.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take();
        *self.lock() = Some(child);
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        serde_json::from_str(&line).map_err(|_| Failure::failed("the emulator did not start"))
    }

    /// Writes the configuration and mounts.
    pub(super) fn mount(&self, emulator: &Emulator) -> Result<(), Failure> {
        let file = self.path("demo.toml");
        let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", file.display()));
        // Paths of the temporary directory could hold anything; the form of a JSON string is TOML's too.
        let quoted = |path: PathBuf| serde_json::Value::from(path.to_string_lossy()).to_string();
        let text = format!(
            "[[mapping]]\n\
             path = \"/\"\n\
             url = \"cos://{BUCKET}/{PREFIX}\"\n\
             region = \"{REGION}\"\n\
             endpoint = \"{store}\"\n\
             addressing = \"path\"\n\
             secret_id = \"{SECRET_ID}\"\n\
             secret_key = \"{SECRET_KEY}\"\n\
             [mapping.sync]\n\
             url = \"{oms}\"\n\
             access_key = \"{ACCESS_KEY}\"\n\
             secret_key = \"{OMS_SECRET_KEY}\"\n\
             record = \"cos://{LOG_BUCKET}/\"\n\
             [cache]\n\
             dir = {cache}\n\
             size = \"1GiB\"\n\
             [state]\n\
             dir = {state}\n",
            store = emulator.store,
            oms = emulator.oms,
            cache = quoted(self.path("cache")),
            state = quoted(self.path("state")),
        );
        let mut options = OpenOptions::new();
        let mut out = options.create_new(true).write(true).mode(0o600).open(&file).map_err(failed)?;
        out.write_all(text.as_bytes()).map_err(failed)?;
        let mount = self.mount_dir();
        self.ferryfs(&["mount".as_ref(), "--config".as_ref(), file.as_os_str(), mount.as_os_str()])
    }

    pub(super) fn unmount(&self) -> Result<(), Failure> {
        let mount = self.mount_dir();
        self.ferryfs(&["umount".as_ref(), mount.as_os_str()])
    }

    /// What to do with a demo that goes on.
    pub(super) fn how_to_go_on(&self) -> String {
        let pid = self.lock().as_ref().map_or(0, Child::id);
        let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ferryfs"));
        let (exe, mount, dir) = (exe.display(), self.mount_dir(), self.dir.display());
        let mount = mount.display();
        format!(
            "\nIt goes on. Look at it:\n  \
             ls -lR {mount}\n  \
             {exe} status {mount}\n  \
             {exe} outbox list {mount}\n  \
             less {dir}/demo.toml {dir}/state/ferryfs.log\n\
             Stop it:\n  \
             {exe} umount {mount} && kill {pid} && rm -r {dir}\n"
        )
    }

    /// Lets the emulator live on.
    pub(super) fn keep(&self) {
        *self.lock() = None;
    }

    /// Shows the ends of the logs, before they are taken away.
    pub(super) fn tell_logs(&self) {
        for name in ["emulator.log", "state/ferryfs.log"] {
            let Ok(text) = fs::read_to_string(self.path(name)) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            if lines.is_empty() {
                continue;
            }
            eprintln!("the end of {name}:");
            for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
                eprintln!("  {line}");
            }
        }
    }

    /// Takes everything away; says what it could not.
    pub(super) fn clear(&self) {
        let mount = self.mount_dir();
        if is_mounted(&mount)
            && self.ferryfs(&["umount".as_ref(), mount.as_os_str(), "--timeout".as_ref(), "5s".as_ref()]).is_err()
        {
            eprintln!("ferryfs: taking the mount away without its daemon");
        }
        // The last resort: what the daemon would not unmount.
        if is_mounted(&mount)
            && let Err(error) = disk::unmount(&mount, true)
        {
            eprintln!("ferryfs: {error}; run: umount -l {}", mount.display());
        }
        if let Some(mut child) = self.lock().take()
            && let Err(error) = stop(&mut child)
        {
            eprintln!("ferryfs: cannot stop the emulator (pid {}): {error}", child.id());
        }
        if is_mounted(&mount) {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("ferryfs: cannot remove {}: {error}", self.dir.display());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.emulator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_mounted(dir: &Path) -> bool {
    // A table that cannot be read may hold a mount: removing files through it would delete objects.
    disk::mount_info(dir).map_or(true, |mount| mount.is_some())
}

/// SIGTERM, and SIGKILL if that does not help.
fn stop(child: &mut Child) -> std::io::Result<()> {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)?;
    }
    if !process::wait_for_end(child.id(), Duration::from_secs(5)) {
        child.kill()?;
    }
    child.wait().map(drop)
}
