//! Mounts, serves until the mount is taken away, and tells when that was.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use fuser::{Config, MountOption, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::disk;
use crate::disk::FuseMountFlags;
use crate::fuse::adapter::Adapter;
use crate::fuse::init::Negotiated;
use crate::fuse::invalidate;
use crate::fuse::registrar::Registrar;
use crate::fuse::requests::{Requests, panic_text};
use crate::vfs::Vfs;

/// `fuse.SUBTYPE` is the type that mount(8) and /proc/mounts show.
const SUBTYPE: &str = "ferryfs";

/// The type under which the kernel lists our mounts.
pub const FSTYPE: &str = "fuse.ferryfs";

/// Read-ahead of the page cache for files in server mode, KiB: one request of the largest size
/// (`init.rs`) instead of eight of the kernel's 128 KiB.
const READ_AHEAD_KIB: u32 = 1024;

/// What to mount, and how.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Directory to mount on; must exist.
    pub dir: PathBuf,
    /// Source that mount(8) and df(1) show (`cos://bucket/prefix`).
    pub fs_name: String,
    /// Users other than the one that mounts may use it.
    pub allow_other: bool,
    /// The kernel checks permissions by mode, owner and group.
    pub default_permissions: bool,
    /// `ro`.
    pub read_only: bool,
    /// `nodev`.
    pub no_dev: bool,
    /// `nosuid`.
    pub no_suid: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// Dispatch threads; beyond 1 each has its own descriptor. On 2 cores 1 served as many requests
    /// as 2, and more did not help (PASSTHROUGH section 10).
    pub threads: usize,
    /// Let the kernel read and write backing files itself, where it can.
    pub passthrough: bool,
    /// Directory on the backing files' filesystem, for one scratch file that tries passthrough.
    pub scratch_dir: PathBuf,
}

impl MountOptions {
    /// For `dir`, with the defaults: all users, permissions checked by the kernel, nodev, nosuid,
    /// one thread, passthrough.
    pub fn new(dir: PathBuf, fs_name: String, scratch_dir: PathBuf) -> Self {
        MountOptions {
            dir,
            fs_name,
            allow_other: true,
            default_permissions: true,
            read_only: false,
            no_dev: true,
            no_suid: true,
            no_exec: false,
            threads: 1,
            passthrough: true,
            scratch_dir,
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.n_threads = Some(self.threads.max(1));
        config.clone_fd = self.threads > 1;
        config.acl = if self.allow_other { SessionACL::All } else { SessionACL::Owner };
        config
    }

    /// What fusermount3 takes, for users who may not mount themselves.
    fn helper_config(&self) -> Config {
        let mut config = self.config();
        let mut options = vec![MountOption::FSName(self.fs_name.clone()), MountOption::Subtype(SUBTYPE.to_owned())];
        let flags = [
            (self.default_permissions, MountOption::DefaultPermissions),
            (self.read_only, MountOption::RO),
            (self.no_dev, MountOption::NoDev),
            (self.no_suid, MountOption::NoSuid),
            (self.no_exec, MountOption::NoExec),
        ];
        options.extend(flags.into_iter().filter(|(wanted, _)| *wanted).map(|(_, option)| option));
        config.mount_options = options;
        config
    }
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody took the mount away, we or umount(8).
    Unmounted,
    /// It could not go on; the mount was taken away. Says why.
    Failed(String),
}

/// A mount that is being served. Dropping it takes the mount away lazily.
pub struct Mounted {
    dir: PathBuf,
    /// Minor number of the mount's device: tells it from another that was mounted there later.
    minor: Option<u32>,
    passthrough: Result<(), String>,
    requests: Requests,
    ended: watch::Receiver<Option<Ended>>,
    /// The session's thread and the invalidations' thread, until joined. Nothing is locked under it.
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// Mounts and begins to serve. Returns as soon as the kernel and we agreed on INIT; programs that
/// come before this returns wait. Blocks: call it outside of the runtime's threads.
///
/// # Errors
/// The directory is missing or not usable, FUSE is, or the right to mount; no thread could be made.
pub fn mount(vfs: Vfs, runtime: Handle, options: MountOptions) -> io::Result<Mounted> {
    let dir = options.dir.canonicalize().map_err(|error| named("use", &options.dir, &error))?;
    let stop = {
        let dir = dir.clone();
        move || abort(&dir)
    };
    let requests = Requests::new(runtime.clone(), Box::new(stop));
    let negotiated = Arc::new(OnceLock::new());
    let adapter = Adapter::new(vfs.clone(), requests.clone(), options.passthrough, negotiated.clone());
    let session = connect(adapter, &dir, &options)?;
    let mounted = offer_passthrough(&vfs, &session, &negotiated, &options.scratch_dir)
        .and_then(|passthrough| serve(&vfs, runtime, dir.clone(), session, requests, passthrough));
    mounted.inspect_err(|_| abort(&dir))
}

/// Mounts and answers INIT. Mounts by itself, so that nothing but [`Mounted::unmount`] ever takes a
/// mount away: fuser, after an umount(8), would unmount again whatever is there by then.
fn connect(adapter: Adapter, dir: &Path, options: &MountOptions) -> io::Result<Session<Adapter>> {
    let flags = FuseMountFlags {
        allow_other: options.allow_other,
        default_permissions: options.default_permissions,
        read_only: options.read_only,
        no_dev: options.no_dev,
        no_suid: options.no_suid,
        no_exec: options.no_exec,
    };
    let config = options.config();
    match disk::mount_fuse(dir, &options.fs_name, SUBTYPE, flags) {
        Ok(device) => Session::from_fd(adapter, device, config.acl, config).inspect_err(|_| abort(dir)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::debug!(%error, "mounting by the setuid helper");
            Session::new(adapter, dir, &options.helper_config())
        }
        Err(error) => Err(error),
    }
}

/// Starts the room's threads.
fn serve(
    vfs: &Vfs,
    runtime: Handle,
    dir: PathBuf,
    session: Session<Adapter>,
    requests: Requests,
    passthrough: Result<(), String>,
) -> io::Result<Mounted> {
    let minor = minor(&dir)?;
    if let Some(minor) = minor {
        raise_read_ahead(minor);
    }
    let notifier = session.notifier();
    let finish = runtime.clone();
    let (tell, ended) = watch::channel(None);
    let mut threads = Vec::new();
    if let Some(orders) = vfs.take_invalidations() {
        let ended = ended.clone();
        let run = move || invalidate::run(&runtime, &notifier, orders, ended);
        threads.push(thread::Builder::new().name("ferryfs-forget".to_owned()).spawn(run)?);
    }
    let (session_dir, released, counted) = (dir.clone(), vfs.clone(), requests.clone());
    let run = move || {
        let end = run_session(session, &requests, &session_dir, minor);
        if end == Ended::Unmounted {
            // The kernel drops requests that it has not delivered when the last user is gone, and
            // RELEASE is among them: nobody waits for it.
            finish.block_on(released.disconnected());
        }
        tell.send_replace(Some(end));
    };
    threads.push(thread::Builder::new().name("ferryfs-session".to_owned()).spawn(run)?);
    Ok(Mounted { dir, minor, passthrough, requests: counted, ended, threads: Mutex::new(threads) })
}

/// Serves until the connection is over and every request has ended.
fn run_session(session: Session<Adapter>, requests: &Requests, dir: &Path, ours: Option<u32>) -> Ended {
    let failure = match catch_unwind(AssertUnwindSafe(|| session.run())) {
        // Left in the tree it would answer "Transport endpoint is not connected" to everybody.
        Ok(Ok(())) if still_mounted(dir, ours) => Some("the connection was aborted from outside".to_owned()),
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("the FUSE session failed: {error}")),
        Err(panic) => Some(format!("the FUSE session panicked: {}", panic_text(panic.as_ref()))),
    };
    if let Some(why) = &failure {
        tracing::error!(dir = %dir.display(), why, "the mount is taken away");
        abort(dir);
    }
    requests.wait_idle();
    match requests.failure().map(str::to_owned).or(failure) {
        Some(why) => Ended::Failed(why),
        None => Ended::Unmounted,
    }
}

/// Tells vfs whether the kernel takes backing files.
fn offer_passthrough(
    vfs: &Vfs,
    session: &Session<Adapter>,
    negotiated: &OnceLock<Negotiated>,
    scratch_dir: &Path,
) -> io::Result<Result<(), String>> {
    let offered = match negotiated.get().map(|negotiated| negotiated.passthrough) {
        Some(Ok(())) => {
            // IMPORTANT: after INIT, which `Session` has answered, and before the first request.
            let registrar = Registrar::new(session.as_fd().try_clone_to_owned()?)?;
            registrar.probe(scratch_dir).map(|()| registrar)
        }
        Some(Err(why)) => Err(why.to_owned()),
        None => Err("the kernel has not asked".to_owned()),
    };
    Ok(match offered {
        Ok(registrar) => {
            vfs.set_registrar(Some(Arc::new(registrar)), "");
            Ok(())
        }
        Err(why) => {
            tracing::warn!(why, "no passthrough: reads and writes go through ferryfs");
            vfs.set_registrar(None, &why);
            Err(why)
        }
    })
}

/// Minor number of the device of what is mounted on `dir`.
fn minor(dir: &Path) -> io::Result<Option<u32>> {
    Ok(disk::mount_info(dir)?.map(|info| info.minor))
}

/// What is mounted on `dir` is ours; another mount that has come there since is not ours to take
/// away. If the table of mounts cannot be read, it is taken for ours: the worst is an EINVAL.
fn still_mounted(dir: &Path, ours: Option<u32>) -> bool {
    minor(dir).map_or(true, |there| there.is_some() && there == ours)
}

/// Best effort: without it large sequential reads in server mode are slower.
fn raise_read_ahead(minor: u32) {
    // FUSE devices are anonymous: major 0.
    let path = format!("/sys/class/bdi/0:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(path, %error, "the kernel's read-ahead stays at its default");
    }
}

/// Best effort: what it cannot take away, it says.
fn abort(dir: &Path) {
    match disk::abort_fuse(dir) {
        Ok(()) => {}
        // Nothing is mounted there: somebody was faster.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if let Err(error) = unmount_by_helper(dir, true) {
                tracing::error!(%error, "the mount could not be taken away");
            }
        }
        Err(error) => tracing::error!(%error, "the mount could not be taken away"),
    }
}

/// As a user who may not unmount.
fn unmount_by_helper(dir: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(dir).output().map_err(|error| named("unmount with fusermount3", dir, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("cannot unmount {}: {}", dir.display(), said.trim())))
}

fn named(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {operation} {}: {error}", path.display()))
}

impl Mounted {
    /// The directory, absolute and without links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the kernel reads and writes backing files itself; `Err` says why not.
    pub fn passthrough(&self) -> Result<(), &str> {
        self.passthrough.as_ref().copied().map_err(String::as_str)
    }

    /// Requests of the kernel since the mount, by operation.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.requests.served()
    }

    /// Takes the mount away; one that is away already is not an error. `lazy`: at once for new
    /// callers, while what is open goes on until it is closed, and only then the session ends.
    ///
    /// # Errors
    /// `ResourceBusy` if something in it is in use and not `lazy`.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        if self.ended.borrow().is_some() || !still_mounted(&self.dir, self.minor) {
            return Ok(());
        }
        match disk::unmount(&self.dir, lazy) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unmount_by_helper(&self.dir, lazy),
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result,
        }
    }

    /// Becomes `Some` when the session is over and all its requests have ended.
    pub fn watch(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.clone()
    }

    /// Waits until the session is over and all its requests have ended.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            // Its thread is gone without a word.
            Err(_) => None,
        };
        end.unwrap_or_else(|| Ended::Failed("the session's thread is gone".to_owned()))
    }

    /// Blocks as [`Mounted::ended`] waits, then until the room's threads are gone. Call it outside
    /// of the runtime's threads.
    pub fn join(&self) -> Ended {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let mut panicked = None;
        for thread in threads {
            if let Err(panic) = thread.join() {
                panicked = Some(Ended::Failed(panic_text(panic.as_ref()).to_owned()));
            }
        }
        let said = self.ended.borrow().clone();
        panicked.or(said).unwrap_or_else(|| Ended::Failed("the session's thread is gone".to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.unmount(true) {
            tracing::error!(dir = %self.dir.display(), %error, "the mount could not be taken away");
        }
    }
}
