//! Which daemon serves a directory: one small file per mount, named by the mount's path.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where a daemon is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Its process.
    pub pid: u32,
    /// Its control socket.
    pub socket: PathBuf,
    /// Its mount, as [`mount_path`] spells it.
    pub mount: PathBuf,
}

/// Symbolic links that are followed in a mount's path before it is called a loop, as the kernel does.
const MAX_LINKS: usize = 40;

/// The canonical path of a mount directory, found without touching what is mounted there: only the
/// directories above are resolved, and readlink(2) does not ask a filesystem about its root.
///
/// # Errors
/// As realpath(3) of the directory above.
pub fn mount_path(dir: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(dir)?;
    for _ in 0..MAX_LINKS {
        let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back()) else {
            return path.canonicalize();
        };
        let parent = parent.canonicalize()?;
        path = parent.join(name);
        match fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other(format!("too many symbolic links at {}", dir.display())))
}

/// The directories that may hold entries, best first. `FERRYFS_RUN_DIR` replaces them.
fn directories() -> Vec<PathBuf> {
    if let Some(dir) = std::env::var_os("FERRYFS_RUN_DIR").filter(|dir| !dir.is_empty()) {
        return vec![PathBuf::from(dir)];
    }
    let mut directories = vec![PathBuf::from("/run/ferryfs")];
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        directories.push(PathBuf::from(dir).join("ferryfs"));
    }
    directories.push(PathBuf::from(format!("/tmp/ferryfs-{}", rustix::process::geteuid().as_raw())));
    directories
}

/// Whether entries in `dir` can be believed: only root or this user can have written them.
fn is_trusted(dir: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(dir)
        .is_ok_and(|meta| meta.is_dir() && (meta.uid() == 0 || meta.uid() == me) && meta.mode() & 0o022 == 0)
}

fn entry_name(mount: &Path) -> String {
    let hash = Sha256::digest(mount.as_os_str().as_bytes());
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.json")
}

/// An entry; dropping it takes it away.
#[derive(Debug)]
pub struct Registration {
    entry: PathBuf,
    address: Address,
}

/// Tells others where the daemon of `mount` (as [`mount_path`] spells it) listens. An entry left over by
/// a daemon that is gone is replaced.
///
/// # Errors
/// If no directory for entries can be written.
pub fn register(mount: &Path, socket: &Path) -> io::Result<Registration> {
    register_in(&directories(), mount, socket)
}

fn register_in(directories: &[PathBuf], mount: &Path, socket: &Path) -> io::Result<Registration> {
    let address = Address { pid: std::process::id(), socket: socket.to_owned(), mount: mount.to_owned() };
    let text = serde_json::to_vec(&address)?;
    let mut last = io::Error::other("no directory for control entries");
    for dir in directories {
        // Anybody may read which mounts there are, as in /proc/mounts; the socket itself is closed.
        match fs::DirBuilder::new().recursive(true).mode(0o755).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                last = error;
                continue;
            }
            _ => {}
        }
        if !is_trusted(dir) {
            last = io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} can be written by others: remove it", dir.display()),
            );
            continue;
        }
        let entry = dir.join(entry_name(mount));
        let new = dir.join(format!("{}.{}", entry_name(mount), address.pid));
        match fs::write(&new, &text).and_then(|()| fs::rename(&new, &entry)) {
            Ok(()) => return Ok(Registration { entry, address }),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Only if it is still ours: a later daemon may have replaced it.
        if read(&self.entry).is_some_and(|address| address == self.address)
            && let Err(error) = fs::remove_file(&self.entry)
        {
            tracing::warn!(entry = %self.entry.display(), %error, "cannot remove the control entry");
        }
    }
}

/// Takes away the entry that a daemon which is gone has left.
///
/// # Errors
/// As unlink(2).
pub fn forget(address: &Address) -> io::Result<()> {
    for dir in directories() {
        let entry = dir.join(entry_name(&address.mount));
        if is_trusted(&dir) && read(&entry).is_some_and(|found| found == *address) {
            fs::remove_file(&entry)?;
        }
    }
    Ok(())
}

fn read(entry: &Path) -> Option<Address> {
    serde_json::from_slice(&fs::read(entry).ok()?).ok()
}

/// The daemon of a mount (as [`mount_path`] spells it), alive or not.
pub fn find(mount: &Path) -> Option<Address> {
    find_in(&directories(), mount)
}

fn find_in(directories: &[PathBuf], mount: &Path) -> Option<Address> {
    directories
        .iter()
        .filter(|dir| is_trusted(dir))
        .find_map(|dir| read(&dir.join(entry_name(mount))))
        .filter(|address| address.mount == mount)
}

/// What a process serves, as far as it has told: nothing before its mount answers, and nothing once it is
/// about to end.
pub fn of_process(pid: u32) -> Vec<Address> {
    of_process_in(&directories(), pid)
}

fn of_process_in(directories: &[PathBuf], pid: u32) -> Vec<Address> {
    let trusted = directories.iter().filter(|dir| is_trusted(dir));
    let entries = trusted.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    entries.filter_map(|entry| read(&entry.path())).filter(|address| address.pid == pid).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_mount_is_found_by_any_spelling_of_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("mnt")).unwrap();
        std::os::unix::fs::symlink("mnt", root.join("link")).unwrap();
        std::os::unix::fs::symlink(&root, root.join("up")).unwrap();
        let wanted = root.join("mnt");
        for spelling in ["mnt", "mnt/", "mnt/.", "./mnt", "link", "up/mnt", "up/link", "mnt/../mnt"] {
            assert_eq!(mount_path(&root.join(spelling)).unwrap(), wanted, "{spelling}");
        }
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert!(mount_path(&root.join("loop")).is_err());
    }

    #[test]
    fn entries_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let good = vec![PathBuf::from("/proc/none"), dir.path().join("run")];
        let mount = Path::new("/mnt/a");
        assert_eq!(find_in(&good, mount), None);
        let registration = register_in(&good, mount, Path::new("/s")).unwrap();
        assert_eq!(find_in(&good, mount).unwrap().socket, Path::new("/s"));
        assert_eq!(find_in(&good, Path::new("/mnt/b")), None);
        assert_eq!(of_process_in(&good, std::process::id()).len(), 1);
        assert_eq!(of_process_in(&good, 1), []);
        drop(registration);
        assert_eq!(find_in(&good, mount), None);
    }

    #[test]
    fn a_later_daemons_entry_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let directories = vec![dir.path().to_owned()];
        let mount = Path::new("/mnt/a");
        let first = register_in(&directories, mount, Path::new("/old")).unwrap();
        let second = register_in(&directories, mount, Path::new("/new")).unwrap();
        drop(first);
        assert_eq!(find_in(&directories, mount).unwrap().socket, Path::new("/new"));
        drop(second);
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let directories = vec![dir.path().to_owned()];
        let mount = Path::new("/mnt/a");
        let _registration = register_in(&directories, mount, Path::new("/s")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(find_in(&directories, mount), None);
        assert!(register_in(&directories, mount, Path::new("/s")).is_err());
    }
}
