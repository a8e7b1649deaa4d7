//! `ferryfs recover save`: held content copied to another place.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Failure;
use super::output::shown;
use crate::cache::{mark, same_mark};
use crate::control::HeldEntry;
use crate::disk;
use crate::types::TimeNs;

/// Where each file goes: `to` itself, or a name in it if it is a directory.
pub(super) fn targets<'a>(chosen: &'a [HeldEntry], to: &Path) -> Result<Vec<(&'a HeldEntry, PathBuf)>, Failure> {
    let is_dir = to.is_dir();
    if !is_dir && to.as_os_str().to_string_lossy().ends_with('/') {
        return Err(Failure::failed(format!("{} is not a directory: make it first", to.display())));
    }
    if !is_dir && chosen.len() > 1 {
        return Err(Failure::refused("several files need a directory: --to DIR"));
    }
    let mut targets: Vec<(&HeldEntry, PathBuf)> = Vec::new();
    for entry in chosen {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        let target = if is_dir { to.join(name) } else { to.to_owned() };
        if targets.iter().any(|(_, taken)| *taken == target) {
            return Err(Failure::refused(format!(
                "two held files are named {}: save them one by one, each by its --id to a file of its own",
                shown(name)
            )));
        }
        targets.push((entry, target));
    }
    Ok(targets)
}

/// Copies held content to `target`, which appears whole and durable or not at all.
pub(super) fn copy(entry: &HeldEntry, target: &Path, force: bool) -> Result<(), String> {
    if entry.incomplete {
        // Its file has zeros where the rest would be: a copy would look whole.
        let there = entry.file.display();
        return Err(match entry.in_place {
            true => {
                "parts of it are not here, and a copy would not show it: read what is here through the mount".into()
            }
            false => {
                format!("parts of it are not here, and a copy would not show it: {there} has zeros in their place")
            }
        });
    }
    let shown = target.display();
    let failed = |what: &'static str| move |error: std::io::Error| format!("cannot {what}: {error}");
    if !force && target.symlink_metadata().is_ok() {
        return Err(format!("{shown} is there already: choose another name, or say --force"));
    }
    let dir = match target.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let held = disk::open_read(&entry.file)
        .map_err(|error| format!("cannot read the held content, it may have been settled meanwhile: {error}"))?;
    let before = mark(&held).map_err(failed("read the held content"))?;
    let new = tempfile::Builder::new().prefix(".ferryfs-save-").tempfile_in(dir).map_err(failed("save"))?;
    disk::copy_contents(&held, new.as_file()).map_err(failed("copy"))?;
    if !same_mark(&before, &mark(&held).map_err(failed("read the held content"))?) {
        return Err("somebody wrote to it while it was copied: repeat".to_owned());
    }
    new.as_file().set_permissions(Permissions::from_mode(entry.mode & 0o777)).map_err(failed("save"))?;
    let mtime = TimeNs(entry.mtime_ns);
    disk::set_times(new.as_file(), mtime, mtime).map_err(failed("save"))?;
    disk::sync_file(new.as_file()).map_err(failed("save"))?;
    let put = if force { new.persist(target) } else { new.persist_noclobber(target) };
    put.map_err(|error| format!("cannot save to {shown}: {}", error.error))?;
    disk::sync_dir(dir).map_err(failed("save"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> HeldEntry {
        HeldEntry { path: path.to_owned(), ..Default::default() }
    }

    #[test]
    fn targets_are_files_or_names_in_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, other_a] = [entry("/x/a"), entry("/b"), entry("/y/a")];
        let paths = |chosen: &[HeldEntry], to: &Path| -> Result<Vec<PathBuf>, u8> {
            let targets = targets(chosen, to).map_err(|failure| failure.code())?;
            Ok(targets.into_iter().map(|(_, path)| path).collect())
        };
        let file = dir.path().join("file");
        assert_eq!(paths(std::slice::from_ref(&a), &file), Ok(vec![file.clone()]));
        assert_eq!(paths(&[a.clone(), b.clone()], dir.path()), Ok(vec![dir.path().join("a"), dir.path().join("b")]));
        assert_eq!(paths(&[a.clone(), b], &file), Err(2));
        assert_eq!(paths(&[a.clone(), other_a], dir.path()), Err(2));
        assert_eq!(paths(&[a], &dir.path().join("missing/")), Err(1));
    }

    #[test]
    fn a_copy_is_whole_and_replaces_nothing_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, "held").unwrap();
        let held = HeldEntry { file: from, mode: 0o640, mtime_ns: 1_000_000_000, ..entry("/a") };
        copy(&held, &to, false).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"held");
        let meta = std::fs::metadata(&to).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o640);
        assert_eq!(disk::lstat(&to).unwrap().mtime, TimeNs(1_000_000_000));
        std::fs::write(&to, "precious").unwrap();
        assert!(copy(&held, &to, false).is_err());
        assert_eq!(std::fs::read(&to).unwrap(), b"precious");
        assert!(copy(&HeldEntry { incomplete: true, ..held.clone() }, &to, true).is_err());
        assert_eq!(std::fs::read(&to).unwrap(), b"precious");
        copy(&held, &to, true).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"held");
        assert!(copy(&held, &dir.path().join("none/to"), false).is_err());
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
