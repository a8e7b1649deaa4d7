//! The daemon: puts the rooms together, mounts, serves until told to stop, drains.
//!
//! # Promise
//! It starts without the network. SIGTERM and SIGINT drain with progress and then unmount; what is
//! left stays in the journal and goes on at the next start. A worker that dies or a journal that
//! fails stops the mount loudly.
//!
//! # Invariants
//! 1. Both directories are locked before anything in them is read (J6).
//! 2. Recovery is over before the uploader looks at anything, and before programs can (C5).
//! 3. Rooms are stopped top-down: kernel, vfs workers, uploads, outbox, journal.

mod actions;
mod build;
mod drain;
mod error;
mod held;
mod notify;
mod odd;
mod owed;
mod reconcile;
mod scan;
mod signals;

pub use error::Error;
pub use held::held_unmounted;
pub use scan::{Scanned, scan};

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::config::{Config, Passthrough};
use crate::control;
use crate::control::Pending;
use crate::disk;
use crate::disk::DirLock;
use crate::failpoint;
use crate::fuse::{self, MountOptions, Mounted};
use crate::task::Shutdown;

use actions::Daemon;
use build::Rooms;
use drain::Drained;
use notify::Notify;
use signals::{Signals, Told};

/// How long the drain of a SIGTERM may take before what is left is left to the next start. The
/// service manager is told to wait as long.
const DRAIN_LIMIT: Duration = Duration::from_secs(600);
/// How long a new mount waits for the drain of the one before it: less than systemd gives a mount (90 s).
const HANDOVER_LIMIT: Duration = Duration::from_secs(60);
/// How long it waits for a process that holds the locks and serves nothing that is known: as long as the
/// thread between a daemon's last two steps may be kept from running.
const NAMELESS_LIMIT: Duration = Duration::from_secs(5);
/// How often it looks.
const HANDOVER_LOOK: Duration = Duration::from_millis(20);
/// How long the rooms may take to stop, once the mount is gone.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The same when something is left anyway: requests under way are settled at the next start.
const HURRY_LIMIT: Duration = Duration::from_secs(3);

/// Mounts `config` on `dir` (absolute) and serves until it is unmounted. `ready` is called when the
/// mount answers.
///
/// # Errors
/// Says what failed, and whether the configuration is at fault.
pub fn run(config: Config, dir: PathBuf, ready: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
    failpoint::check().map_err(Error::Refused)?;
    disk::raise_nofile_limit().map_err(Error::io("raise the limit of open files"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(4)
        .thread_name("ferryfs")
        .build()
        .map_err(Error::io("start the runtime"))?;
    let served = serve(&config, &dir, ready, &runtime);
    // Blocking work that hangs (a dead disk) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    served
}

fn serve(config: &Config, dir: &Path, ready: Box<dyn FnOnce() + Send>, runtime: &Runtime) -> Result<(), Error> {
    let locks = lock(config, dir)?;
    let server = control::Server::bind(&config.state.dir).map_err(Error::io("open the control socket"))?;
    let rooms = build::rooms(config, runtime)?;
    runtime.block_on(rooms.check_stores())?;
    // Before there is a mount that the default action of a signal would leave behind.
    let mut signals = runtime.block_on(async { Signals::new() }).map_err(Error::io("listen to signals"))?;
    let mounted = Arc::new(mount(config, dir, &rooms, runtime)?);
    let stop = Shutdown::new();
    let daemon = Daemon::new(config, rooms.clone(), mounted.clone(), stop.clone());
    let registration = control::register(dir, server.path()).map_err(Error::io("register the control socket"))?;
    let control_end = Shutdown::new();
    let control = {
        let (daemon, end) = (daemon.clone(), control_end.clone());
        runtime.spawn(async move { server.serve(Arc::new(daemon), async move { end.triggered().await }).await })
    };
    let notify = Notify::from_environment();
    answer_ourselves(dir)?;
    ready();
    notify.ready();
    let result = runtime.block_on(until_stopped(&daemon, &mounted, &stop, &notify, &mut signals));
    notify.stopping(&ended_text(&daemon.pending_all(), &result));
    runtime.block_on(async {
        control_end.trigger();
        let served = tokio::time::timeout(STOP_LIMIT, control).await;
        if let Ok(Ok(Err(error))) = served {
            tracing::warn!(%error, "the control socket ended");
        }
    });
    let limit = if daemon.pending_all().steps() == 0 { STOP_LIMIT } else { HURRY_LIMIT };
    let stopped = runtime.block_on(rooms.stop(limit));
    // The session of a mount that was taken away under programs lasts as long as their handles do.
    if mounted.watch().borrow().is_some() {
        mounted.join();
    }
    drop(registration);
    drop(locks);
    result.and(stopped)
}

/// J6. What umount(8) left of an earlier mount on `dir` still uploads: it is waited for.
fn lock(config: &Config, dir: &Path) -> Result<Vec<DirLock>, Error> {
    let begun = Instant::now();
    let mut nameless = None;
    let mut told = false;
    loop {
        let refused = match build::lock(config) {
            Ok(locks) => return Ok(locks),
            Err(error) => error,
        };
        let mut holders = [&config.state.dir, &config.cache.dir].into_iter().filter_map(|dir| DirLock::holder(dir));
        let holder = holders.find(|pid| *pid != std::process::id());
        let waits = match holder.map(control::of_process).unwrap_or_default().as_slice() {
            // It has not told yet what it serves, or ends: its locks are the last that a daemon gives back,
            // after its entry. Either takes a moment, which may be long on a busy machine.
            [] => nameless.get_or_insert_with(Instant::now).elapsed() < NAMELESS_LIMIT,
            serves => {
                nameless = None;
                let is_leaving = serves.iter().any(|there| there.mount == dir) && !is_mounted(dir)?;
                if is_leaving && !told {
                    told = true;
                    tracing::info!(%refused, "it was unmounted and uploads what is left: waiting for its end");
                }
                is_leaving
            }
        };
        if !waits || begun.elapsed() >= HANDOVER_LIMIT {
            return Err(refused);
        }
        std::thread::sleep(HANDOVER_LOOK);
    }
}

/// Whether a mount of ours is on `dir`.
fn is_mounted(dir: &Path) -> Result<bool, Error> {
    let mounted = disk::mount_info(dir).map_err(Error::io("look at the mount directory"))?;
    Ok(mounted.is_some_and(|there| there.fstype == fuse::FSTYPE))
}

fn mount(config: &Config, dir: &Path, rooms: &Rooms, runtime: &Runtime) -> Result<Mounted, Error> {
    let name = match (&config.source, config.mappings.as_slice()) {
        (Some(source), _) => source.clone(),
        (None, [one]) => one.place.identity(),
        (None, _) => format!("ferryfs:{}", config.name),
    };
    let options = MountOptions {
        allow_other: config.mount.allow_other,
        read_only: config.mount.read_only,
        no_dev: config.mount.no_dev,
        no_suid: config.mount.no_suid,
        no_exec: config.mount.no_exec,
        passthrough: config.mount.passthrough == Passthrough::Auto,
        ..MountOptions::new(dir.to_owned(), name, config.cache.dir.clone())
    };
    fuse::mount(rooms.vfs.clone(), runtime.handle().clone(), options).map_err(Error::io("mount"))
}

/// READY means that a statfs of ours was answered through the kernel.
fn answer_ourselves(dir: &Path) -> Result<(), Error> {
    disk::statvfs(dir).map(|_| ()).map_err(Error::io("use the new mount"))
}

async fn until_stopped(
    daemon: &Daemon,
    mounted: &Mounted,
    stop: &Shutdown,
    notify: &Notify,
    signals: &mut Signals,
) -> Result<(), Error> {
    let rooms = daemon.rooms();
    loop {
        // J3: with a failed journal the mount stays, for reading. Were it taken away, programs would write
        // below it, unseen. The workers that end with the journal are no failures of their own.
        let whole = rooms.journal.failure().is_none();
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => break,
                Told::Reload => reload(daemon, notify),
            },
            // `ferryfs umount` has drained and unmounted already.
            () = stop.triggered() => return Ok(()),
            ended = mounted.ended() => {
                if let fuse::Ended::Failed(why) = ended {
                    return Err(Error::Failed(format!("the mount could not go on: {why}")));
                }
                tracing::info!("unmounted: uploading what is left");
                return drain(daemon, mounted, stop, notify, signals, false).await;
            }
            reason = rooms.guardian.poisoned(), if whole => {
                match rooms.journal.failure() {
                    None => return give_up(mounted, reason),
                    Some(reason) => only_reading(notify, &reason),
                }
            }
            reason = rooms.journal.failed(), if whole => only_reading(notify, &reason),
        }
    }
    tracing::info!("told to stop: uploading what is left");
    drain(daemon, mounted, stop, notify, signals, true).await?;
    unmount(mounted).await
}

fn only_reading(notify: &Notify, reason: &str) {
    tracing::error!(reason, "the mount is for reading only: every change fails with EIO, nothing is uploaded");
    notify.failed(reason);
}

fn reload(daemon: &Daemon, notify: &Notify) {
    notify.reloading();
    match daemon.reload() {
        Ok(()) => notify.ready(),
        Err(why) => {
            tracing::error!(why, "not reloaded");
            notify.not_reloaded(&why);
        }
    }
}

/// Uploads what is left. `told`: somebody has told us to stop; whoever tells us again is in a hurry.
async fn drain(
    daemon: &Daemon,
    mounted: &Mounted,
    stop: &Shutdown,
    notify: &Notify,
    signals: &mut Signals,
    mut told: bool,
) -> Result<(), Error> {
    let rooms = daemon.rooms();
    let mut draining = pin!(daemon.drain(DRAIN_LIMIT, notify));
    let drained = loop {
        tokio::select! {
            drained = &mut draining => break drained,
            // `ferryfs umount` it was that unmounted, and its time is over.
            () = stop.triggered() => return Ok(()),
            signal = signals.next() => match signal {
                Told::Stop if told => break Drained::Hurried,
                Told::Stop => told = true,
                // New keys may be what the uploads wait for. The manager is not told: it is stopping us.
                Told::Reload => {
                    if let Err(why) = daemon.reload() {
                        tracing::error!(why, "not reloaded");
                    }
                }
            },
            reason = rooms.guardian.poisoned() => return give_up(mounted, reason),
            reason = rooms.journal.failed() => return give_up(mounted, reason),
        }
    };
    drained.tell(daemon);
    Ok(())
}

/// Programs that still use the mount keep what they have open; the mount is gone for all others.
async fn unmount(mounted: &Mounted) -> Result<(), Error> {
    match mounted.unmount(false) {
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(%error, "programs still use the mount: it is taken away under them");
            mounted.unmount(true).map_err(Error::io("unmount"))?;
            // Their handles would keep the session: the process ends without it.
            return Ok(());
        }
    }
    // The kernel's last requests (RELEASE of what was just closed) are answered before we go.
    if tokio::time::timeout(STOP_LIMIT, mounted.ended()).await.is_err() {
        tracing::warn!("the mount is gone, but its session did not end");
    }
    Ok(())
}

/// What the service manager shows of a daemon that has ended.
fn ended_text(left: &Pending, result: &Result<(), Error>) -> String {
    match result {
        Err(error) => error.to_string(),
        Ok(()) if left.is_settled() => "everything is in the bucket and announced".to_owned(),
        Ok(()) => format!(
            "left for the next start: {} files to upload, {} copies, {} removals, {} announcements, {} records, {} held",
            left.files, left.copies, left.removals, left.announcements, left.records, left.stuck_count
        ),
    }
}

fn give_up(mounted: &Mounted, reason: String) -> Result<(), Error> {
    tracing::error!(reason, "stopping: the mount cannot keep its promises any more");
    if let Err(error) = mounted.unmount(true) {
        tracing::error!(%error, "the mount could not be taken away");
    }
    Err(Error::Failed(reason))
}
