//! Names of backing files on the disk: the only place that builds and parses them.
//!
//! `<state>/dirty/<low byte>/<number>` and `<cache>/clean/<low byte>/<number>`, hexadecimal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk;
use crate::types::BackingNo;

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Under the state directory.
    Dirty = 0,
    /// Under the cache directory.
    Clean = 1,
}

/// Directories that the files of one place are spread over, by the low byte of their number.
const SHARDS: usize = 256;

#[derive(Debug)]
pub(super) struct Layout {
    dirty: PathBuf,
    clean: PathBuf,
    /// Which shard directories are known to exist, of both places: they are made on first use.
    made: [[AtomicBool; SHARDS]; 2],
}

impl Layout {
    /// Where the directories are; whether they are there is the caller's to know.
    pub(super) fn at(state_dir: &Path, cache_dir: &Path) -> Layout {
        let made = [const { [const { AtomicBool::new(false) }; SHARDS] }; 2];
        Layout { dirty: state_dir.join("dirty"), clean: cache_dir.join("clean"), made }
    }

    pub(super) fn open(state_dir: &Path, cache_dir: &Path) -> io::Result<Layout> {
        let layout = Layout::at(state_dir, cache_dir);
        for root in [&layout.dirty, &layout.clean] {
            disk::make_dir_private(root)?;
        }
        Ok(layout)
    }

    fn shard(&self, place: Place, no: BackingNo) -> PathBuf {
        self.root(place).join(format!("{:02x}", no.0 & 0xff))
    }

    /// Where the file goes; its directory exists on return.
    pub(super) fn place(&self, place: Place, no: BackingNo) -> io::Result<PathBuf> {
        let known = usize::try_from(no.0 & 0xff).ok().and_then(|shard| self.made.get(place as usize)?.get(shard));
        if known.is_none_or(|known| !known.load(Ordering::Acquire)) {
            disk::make_dir_private(&self.shard(place, no))?;
            if let Some(known) = known {
                known.store(true, Ordering::Release);
            }
        }
        Ok(self.path(place, no))
    }

    pub(super) fn root(&self, place: Place) -> &Path {
        match place {
            Place::Dirty => &self.dirty,
            Place::Clean => &self.clean,
        }
    }

    pub(super) fn path(&self, place: Place, no: BackingNo) -> PathBuf {
        self.shard(place, no).join(format!("{:016x}", no.0))
    }

    /// The number that a file name stands for.
    pub(super) fn parse(name: &str) -> Option<BackingNo> {
        (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok().map(BackingNo)).flatten()
    }

    /// Does something with the file wherever it lies: a move is not atomic with its row, so a crash
    /// may leave it in either place.
    pub(super) fn find<T>(&self, no: BackingNo, act: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
        match act(&self.path(Place::Dirty, no)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => act(&self.path(Place::Clean, no)),
            other => other,
        }
    }

    /// Moves a file; nothing to do if it is there already. Across filesystems it stays where it is:
    /// it would need a new inode (C1).
    pub(super) fn transfer(&self, no: BackingNo, from: Place, to: Place) -> io::Result<()> {
        match disk::rename(&self.path(from, no), &self.place(to, no)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path(to, no).exists() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(()),
            other => other,
        }
    }
}
