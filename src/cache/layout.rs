//! Names of backing files on the disk: the only place that builds and parses them.
//!
//! `<state>/dirty/<low byte>/<number>` and `<cache>/clean/<low byte>/<number>`, hexadecimal.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::types::BackingNo;

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Under the state directory.
    Dirty,
    /// Under the cache directory.
    Clean,
}

#[derive(Debug)]
pub(super) struct Layout {
    dirty: PathBuf,
    clean: PathBuf,
}

impl Layout {
    pub(super) fn open(state_dir: &Path, cache_dir: &Path) -> io::Result<Layout> {
        let layout = Layout { dirty: state_dir.join("dirty"), clean: cache_dir.join("clean") };
        for root in [&layout.dirty, &layout.clean] {
            disk::make_dir_private(root)?;
            for shard in 0..=u8::MAX {
                disk::make_dir_private(&root.join(format!("{shard:02x}")))?;
            }
        }
        Ok(layout)
    }

    pub(super) fn root(&self, place: Place) -> &Path {
        match place {
            Place::Dirty => &self.dirty,
            Place::Clean => &self.clean,
        }
    }

    pub(super) fn path(&self, place: Place, no: BackingNo) -> PathBuf {
        self.root(place).join(format!("{:02x}", no.0 & 0xff)).join(format!("{:016x}", no.0))
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
        match disk::rename(&self.path(from, no), &self.path(to, no)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path(to, no).exists() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(()),
            other => other,
        }
    }
}
