//! One journal in the place of another.

use std::io;
use std::path::{Path, PathBuf};

use super::schema::FILE_NAME;
use crate::disk;
use crate::failpoint;
use crate::types::TimeNs;

/// What SQLite adds to the database's name, the database itself last: without it the others are
/// refused, not read.
const PARTS: [&str; 3] = ["-wal", "-shm", ""];

/// Steps, and what a crash before each leaves: 1. the old database goes aside (the old journal), 2. what
/// belongs to it (no journal, which every start refuses while there is content), 3. the new one comes,
/// its database last (the same). Every name is on disk on return.
pub(super) fn replace(dir: &Path, new: &Path, now: TimeNs) -> io::Result<Option<PathBuf>> {
    let mut at = now.sec();
    let aside = loop {
        let aside = dir.join(format!("{FILE_NAME}.lost-{at}"));
        if !aside.exists() {
            break aside;
        }
        at += 1;
    };
    let mut moved = None;
    for part in PARTS.iter().rev() {
        let mut to = aside.clone().into_os_string();
        to.push(part);
        if rename_if_there(&dir.join(format!("{FILE_NAME}{part}")), Path::new(&to))? {
            moved = Some(aside.clone());
        }
    }
    disk::sync_dir(dir)?;
    failpoint::hit(failpoint::SCAN_JOURNAL_ASIDE);
    for part in PARTS {
        let name = format!("{FILE_NAME}{part}");
        rename_if_there(&new.join(&name), &dir.join(&name))?;
    }
    disk::sync_dir(dir)?;
    Ok(moved)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match disk::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
