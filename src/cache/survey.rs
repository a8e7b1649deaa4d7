//! All backing files there are, for a journal that is to be rebuilt (J5). No room is open meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::types::{BackingNo, TimeNs};

use super::Options;
use super::error::Result;
use super::layout::{Layout, Place};
use super::tag::{self, Tagged};

/// Directory, in the state directory, of content that no mapping of the configuration wants: the
/// cleaner of orphans does not look there, the next survey does.
const UNPLACED: &str = "unplaced";

/// A backing file.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number.
    pub number: BackingNo,
    /// Where it lies.
    pub path: PathBuf,
    /// It lies where content lies that the bucket lacks.
    pub dirty: bool,
    /// What it tells of itself.
    pub tagged: Option<Tagged>,
    /// Bytes.
    pub size: u64,
    /// Last change of content.
    pub mtime: TimeNs,
    /// It looks as it did when it was tagged.
    pub as_tagged: bool,
    /// Nobody can change it any more (C4).
    pub quiet: bool,
}

/// Every backing file, by number. One that lies in two places (across filesystems, after a crash) is
/// told once, from where it would be dirty.
///
/// # Errors
/// The directories or files cannot be read: what is not seen would be taken for gone.
pub fn survey(options: &Options) -> Result<Vec<Found>> {
    let layout = Layout::at(&options.state_dir, &options.cache_dir);
    let mut found = BTreeMap::new();
    for (place, dirty) in [(Place::Clean, false), (Place::Dirty, true)] {
        for shard in entries(layout.root(place))? {
            look_in(&shard, dirty, &mut found)?;
        }
    }
    look_in(&unplaced(options), true, &mut found)?;
    Ok(found.into_values().collect())
}

/// The highest number of a file whose content the bucket may lack, without looking at the files.
///
/// # Errors
/// The directories cannot be read.
pub fn highest_dirty(options: &Options) -> Result<Option<BackingNo>> {
    let layout = Layout::at(&options.state_dir, &options.cache_dir);
    let mut highest = None;
    for dir in entries(layout.root(Place::Dirty))?.into_iter().chain([unplaced(options)]) {
        for path in entries(&dir)? {
            highest = highest.max(number(&path));
        }
    }
    Ok(highest)
}

/// Puts a file that was out of the way where dirty content lies; returns where it is then. Others stay
/// where they are.
///
/// # Errors
/// The disk's.
pub fn place_dirty(options: &Options, found: &Found) -> Result<PathBuf> {
    if !found.path.starts_with(unplaced(options)) {
        return Ok(found.path.clone());
    }
    let layout = Layout::at(&options.state_dir, &options.cache_dir);
    let to = layout.place(Place::Dirty, found.number)?;
    disk::rename(&found.path, &to)?;
    disk::sync_dir(to.parent().unwrap_or(&options.state_dir))?;
    Ok(to)
}

/// Puts a file out of the way of the cleaner of orphans; returns where it is then.
///
/// # Errors
/// The disk's.
pub fn put_away(options: &Options, found: &Found) -> Result<PathBuf> {
    let dir = unplaced(options);
    let to = dir.join(format!("{:016x}", found.number.0));
    if found.path != to {
        disk::make_dir_private(&dir)?;
        disk::rename(&found.path, &to)?;
        disk::sync_dir(&dir)?;
    }
    Ok(to)
}

fn unplaced(options: &Options) -> PathBuf {
    options.state_dir.join(UNPLACED)
}

fn number(path: &Path) -> Option<BackingNo> {
    path.file_name().and_then(|name| name.to_str()).and_then(Layout::parse)
}

/// What a directory holds; nothing if it is not there.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(read) => read.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn look_in(dir: &Path, dirty: bool, found: &mut BTreeMap<BackingNo, Found>) -> Result<()> {
    for path in entries(dir)? {
        let Some(number) = number(&path) else { continue };
        let file = disk::open_read(&path)?;
        let stat = disk::fstat(&file)?;
        let tagged = tag::get(&file)?;
        let as_tagged = tagged.as_ref().is_some_and(|tagged| tagged.looked == (stat.ino, stat.size, stat.mtime.0));
        let quiet = disk::read_lease_grantable(&file)?;
        found.insert(
            number,
            Found { number, path, dirty, tagged, size: stat.size, mtime: stat.mtime, as_tagged, quiet },
        );
    }
    Ok(())
}
