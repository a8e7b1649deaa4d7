//! `ferryfs mount`

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::args::MountArgs;
use super::{Failure, Serve, background, log};
use crate::config::{Config, Options};
use crate::control::{self, Client};
use crate::disk;
use crate::fuse::FSTYPE;

/// Where configurations live that are called by name.
const CONFIG_DIR: &str = "/etc/ferryfs";

/// Dead mounts that may lie on top of each other before somebody should look.
const MAX_STALE: usize = 16;

/// How long a killed daemon may take to let go of its socket.
const DYING: Duration = Duration::from_secs(2);

pub(super) fn run(args: MountArgs, serve: Serve) -> Result<(), Failure> {
    run_as(args, false, serve)
}

/// `fake`: check only.
pub(super) fn run_as(args: MountArgs, fake: bool, serve: Serve) -> Result<(), Failure> {
    if args.report {
        return background::child(|ready| {
            log::init(args.debug);
            let (config, dir) = prepare(&args)?;
            serve(config, dir, ready)
        });
    }
    let (config, dir) = prepare(&args)?;
    if fake || was_automounted(&args, &dir)? {
        return Ok(());
    }
    if args.foreground {
        log::init(args.debug);
        return serve(config, dir, Box::new(|| tracing::info!("mounted")));
    }
    // The child reads the configuration itself; what could be refused has been refused here, where a
    // terminal sees it.
    let mut words: Vec<OsString> = vec!["mount".into(), "--report".into()];
    if let Some(file) = &config.file {
        words.extend(["--config".into(), file.into()]);
    }
    for (flag, given) in [("--debug", args.debug), ("--sloppy", args.sloppy)] {
        if given {
            words.push(flag.into());
        }
    }
    for options in &args.options {
        words.extend(["-o".into(), options.into()]);
    }
    if let Some(source) = &args.source {
        words.extend(["--source".into(), source.into()]);
    }
    // After `--`, a directory that begins with `-` is still a directory.
    words.push("--".into());
    if config.file.is_none() {
        words.extend(args.positional.first().map(Into::into));
    }
    words.push(dir.into());
    background::parent(&words, &config)
}

/// Whether looking at the directory has mounted there what mount(8) asks for: an automount unit does
/// that for everybody who looks. What was mounted before has been refused by then.
fn was_automounted(args: &MountArgs, dir: &Path) -> Result<bool, Failure> {
    let mounted = disk::mount_info(dir).map_err(|error| Failure::failed(format!("cannot mount: {error}")))?;
    Ok(mounted.is_some_and(|there| there.fstype == FSTYPE && Some(&there.source) == args.source.as_ref()))
}

/// The checked configuration and the canonical mount directory, free to be mounted on.
fn prepare(args: &MountArgs) -> Result<(Config, PathBuf), Failure> {
    let options = Options::parse(&args.options, args.sloppy)?;
    let (mut config, dir) = match (&args.config, args.positional.as_slice()) {
        (Some(file), rest @ ([] | [_])) => (Config::load_with(file, &options)?, rest.first()),
        (None, [spec]) => (load_spec(spec, &options)?, None),
        (None, [spec, dir]) => (load_spec(spec, &options)?, Some(dir)),
        _ => return Err(Failure::refused("usage: ferryfs mount [--config FILE | URL] [-o options] [-f] DIR")),
    };
    let dir = match dir.or(config.mount.dir.as_ref()) {
        Some(dir) => control::mount_path(dir)
            .map_err(|error| Failure::failed(format!("cannot mount on {}: {error}", dir.display())))?,
        None => return Err(Failure::refused("where to? name a directory, or set `dir` in [mount]")),
    };
    config.check_mount_dir(&dir)?;
    config.source.clone_from(&args.source);
    clear_stale(&dir)?;
    let kind = std::fs::metadata(&dir);
    match kind {
        Ok(meta) if meta.is_dir() => Ok((config, dir)),
        Ok(_) => Err(Failure::failed(format!("cannot mount on {}: it is not a directory", dir.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::failed(format!("cannot mount on {dir}: make it first: mkdir -p {dir}", dir = dir.display())))
        }
        Err(error) => Err(Failure::failed(format!("cannot mount on {}: {error}", dir.display()))),
    }
}

/// A bucket URL, a configuration file, or the name of one.
fn load_spec(spec: &Path, options: &Options) -> Result<Config, Failure> {
    if let Some(url) = spec.to_str().filter(|text| text.contains("://")) {
        return Ok(Config::from_url(url, options)?);
    }
    let is_name = spec.components().count() == 1 && spec.extension().is_none();
    // mount(8) makes a path of a name where a file or directory of that name happens to be: of `data`
    // in fstab `/data`. No directory is a configuration.
    let named =
        if spec.is_dir() { spec.file_name().map(Path::new) } else { Some(spec).filter(|_| is_name && !spec.exists()) };
    if let Some(name) = named {
        let file = Path::new(CONFIG_DIR).join(name).with_extension("toml");
        return Ok(Config::load_with(&file, options)?);
    }
    Ok(Config::load_with(spec, options)?)
}

/// Asks the daemon of `dir`. One that was killed a moment ago may still take the connection and then
/// drop it: that is no answer yet.
fn ask(dir: &Path) -> control::Result<control::Status> {
    let deadline = Instant::now() + DYING;
    loop {
        match Client::find(dir).and_then(|client| client.status()) {
            Err(control::Error::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
                    && Instant::now() < deadline => {}
            Err(control::Error::BadReply(_)) if Instant::now() < deadline => {}
            answer => return answer,
        }
        thread::sleep(DYING / 100);
    }
}

/// Takes away mounts of ours at `dir` whose daemon is gone; refuses if one is alive.
fn clear_stale(dir: &Path) -> Result<(), Failure> {
    for _ in 0..MAX_STALE {
        let mounted = disk::mount_info(dir).map_err(|error| Failure::failed(format!("cannot mount: {error}")))?;
        if mounted.is_none_or(|mounted| mounted.fstype != FSTYPE) {
            return Ok(());
        }
        match ask(dir) {
            Err(control::Error::Dead { pid, .. }) => {
                // The message stands before the log is set up, too.
                eprintln!("ferryfs: taking away the mount of a daemon that is gone (pid {pid})");
                disk::unmount(dir, true)
                    .map_err(|error| Failure::failed(format!("cannot take the dead mount away: {error}")))?;
            }
            Err(control::Error::NotMounted(_)) => {
                return Err(Failure::failed(format!(
                    "a ferryfs whose daemon is not known is mounted on {dir}; if it is dead, run: umount -l {dir}",
                    dir = dir.display()
                )));
            }
            Ok(status) => {
                return Err(Failure::failed(format!(
                    "ferryfs is mounted on {} already (pid {})",
                    dir.display(),
                    status.pid
                )));
            }
            Err(error) => {
                return Err(Failure::failed(format!("ferryfs is mounted on {} already: {error}", dir.display())));
            }
        }
    }
    Err(Failure::failed(format!("many dead mounts lie on {dir}: run umount -l {dir}", dir = dir.display())))
}
