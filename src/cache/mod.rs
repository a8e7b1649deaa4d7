//! Backing files and the space they take.
//!
//! # Promise
//! A backing file is one inode on the local disk for as long as any handle of ours or of a program
//! refers to it (C1). Content that the bucket lacks lies under the state directory, content that it
//! has under the cache directory (J5).
//!
//! # Invariants
//! 1. (J6) Files are created exclusively, under numbers never given out before.
//! 2. No write descriptor is kept here: the lease test (C4) would lie.
//! 3. Rows come first: this room unlinks and moves only what its caller's rows, already durable
//!    enough, have let go (J2).
//! 4. `used` counts every backing file once, by the size last told; clean files are evicted least
//!    recently used first.
//!
//! Lock: the space table, taken last and never held across I/O.

mod error;
mod layout;
mod mark;
mod orphans;
mod space;
mod survey;
mod tag;

pub use error::{Error, Result};
pub use mark::{mark, same_mark};
pub use space::{Shortage, Usage};
pub use survey::{Found, highest_dirty, place_dirty, put_away, survey};
pub use tag::{PARTLY_RANGES, Partly, Tag, TagState, Tagged};

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk;
use crate::failpoint;
use crate::journal::{Counter, Journal, Numbers};
use crate::types::{BackingNo, TimeNs};

use layout::{Layout, Place};
use space::Space;

/// How the room behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of dirty content (below the state directory).
    pub state_dir: PathBuf,
    /// Directory of clean content.
    pub cache_dir: PathBuf,
    /// Bytes that all backing files together may take.
    pub limit: u64,
}

/// Handle of the room; cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    options: Options,
    numbers: Mutex<Numbers>,
    space: Mutex<Space>,
    /// Nameless and empty; tells the time of the filesystem.
    stamped: File,
}

impl Cache {
    /// Makes the directories. Locking them against a second daemon is the caller's.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn open(options: Options, journal: Journal) -> Result<Cache> {
        let layout = Layout::open(&options.state_dir, &options.cache_dir)?;
        let numbers = Mutex::new(Numbers::new(journal, Counter::Backing));
        let space = Mutex::new(Space::new(options.limit));
        let stamped = tempfile::tempfile_in(layout.root(Place::Dirty))?;
        Ok(Cache { inner: Arc::new(Inner { layout, options, numbers, space, stamped }) })
    }

    /// The present time as the kernel stamps backing files: what it gave them before is not later, what it
    /// will give them not earlier. Times of what has no backing file come from here, so that `find -newer`
    /// and make(1) see all in the order in which it happened.
    ///
    /// # Errors
    /// The disk's.
    pub fn now(&self) -> Result<TimeNs> {
        Ok(disk::stamp_now(&self.inner.stamped)?)
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.inner.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no file has and none will get again.
    ///
    /// # Errors
    /// The journal cannot reserve numbers.
    pub fn reserve(&self) -> Result<BackingNo> {
        let mut numbers = self.inner.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(BackingNo(numbers.next()?))
    }

    /// A file that a lost journal left in the cache directory has its number for good.
    fn create(&self, place: Place) -> Result<(BackingNo, File)> {
        loop {
            let no = self.reserve()?;
            match disk::create_exclusive(&self.inner.layout.place(place, no)?, 0o600) {
                Ok(file) => return Ok((no, file)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    tracing::debug!(number = no.0, "a backing file of this number is there already");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells what a file is now (J5). Moves its ctime.
    ///
    /// # Errors
    /// The disk's; a filesystem that keeps no tags is none.
    pub fn retag(&self, file: &File, tag: &Tag) -> Result<()> {
        Ok(tag::set(file, tag)?)
    }

    /// Whether a file tells that this content was closed under this boot, and looks as it did then (J5).
    ///
    /// # Errors
    /// The disk's.
    pub fn tells_closed(&self, file: &File, generation: u64, boot_id: &str) -> Result<bool> {
        let Some(Tagged { tag, looked }) = tag::get(file)? else { return Ok(false) };
        let stat = disk::fstat(file)?;
        let closed = matches!(&tag.state, TagState::Closed(boot) if boot == boot_id);
        Ok(closed && tag.generation == generation && looked == (stat.ino, stat.size, stat.mtime.0))
    }

    /// A new, empty file for content that programs will write. The descriptor may write: drop it
    /// before the lease is asked for.
    ///
    /// # Errors
    /// The disk's.
    pub fn create_dirty(&self, tag: &Tag) -> Result<(BackingNo, File)> {
        let (no, file) = self.create(Place::Dirty)?;
        tag::set(&file, tag)?;
        self.space().tell(no, 0, false);
        Ok((no, file))
    }

    /// A new, empty file for content that is being fetched. Without a row of its own it is an
    /// orphan after a crash.
    ///
    /// # Errors
    /// The disk's.
    pub fn create_clean(&self, expected_bytes: u64) -> Result<(BackingNo, File)> {
        let (no, file) = self.create(Place::Clean)?;
        self.space().tell(no, expected_bytes, false);
        Ok((no, file))
    }

    /// Opens for reading.
    ///
    /// # Errors
    /// The disk's; NotFound if the file is in neither place.
    pub fn open_read(&self, no: BackingNo) -> Result<File> {
        Ok(self.inner.layout.find(no, disk::open_read)?)
    }

    /// Where a file lies now.
    ///
    /// # Errors
    /// As [`Cache::open_read`].
    pub fn path(&self, no: BackingNo) -> Result<PathBuf> {
        Ok(self.inner.layout.find(no, |path| disk::lstat(path).map(|_| path.to_owned()))?)
    }

    /// Opens for reading and writing. Drop it before the lease is asked for (C4).
    ///
    /// # Errors
    /// As [`Cache::open_read`].
    pub fn open_write(&self, no: BackingNo) -> Result<File> {
        Ok(self.inner.layout.find(no, disk::open_write)?)
    }

    /// The content now equals the bucket's: moves it under the cache directory, where it may be
    /// evicted. On a disk that has no room for the name it stays where it is, and is found there: a full disk
    /// is when it must be known to be evictable.
    ///
    /// # Errors
    /// The disk's, other than that. The file then stays where it is, too.
    pub fn to_clean(&self, no: BackingNo, bytes: u64) -> Result<()> {
        match self.inner.layout.transfer(no, Place::Dirty, Place::Clean) {
            Err(error) if matches!(disk::errno(&error), Some(libc::ENOSPC | libc::EDQUOT)) => {
                tracing::debug!(%error, number = no.0, "a clean backing file stays with the dirty ones");
            }
            moved => moved?,
        }
        self.space().tell(no, bytes, true);
        Ok(())
    }

    /// The content is about to change: moves it under the state directory.
    ///
    /// # Errors
    /// The disk's; the file then stays where it is.
    pub fn to_dirty(&self, no: BackingNo) -> Result<()> {
        self.inner.layout.transfer(no, Place::Clean, Place::Dirty)?;
        self.space().protect(no);
        Ok(())
    }

    /// Whether nobody can change the file any more: no descriptor, mapping or handle of a dead
    /// mount may write to it (C4).
    ///
    /// # Errors
    /// The disk's.
    pub fn is_quiescent(&self, file: &File) -> Result<bool> {
        Ok(disk::read_lease_grantable(file)?)
    }

    /// Unlinks a file whose rows have let it go, durably (J2).
    pub fn discard(&self, no: BackingNo) {
        failpoint::hit(failpoint::EVICTION_BEFORE_UNLINK);
        match self.inner.layout.find(no, disk::unlink) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // The orphan cleaner of the next start takes it.
            Err(error) => tracing::error!(%error, number = no.0, "a backing file could not be removed"),
        }
        failpoint::hit(failpoint::EVICTION_AFTER_UNLINK);
        self.space().forget(no);
    }

    /// Gives a file's content a new backing file that no old descriptor or mapping reaches (C5).
    ///
    /// # Errors
    /// The disk's; the old file is untouched.
    pub fn duplicate(&self, no: BackingNo, tag: &Tag) -> Result<BackingNo> {
        let old = self.open_read(no)?;
        let stat = disk::fstat(&old)?;
        let (new, file) = self.create_dirty(tag)?;
        disk::sparing(&file, stat.size, || disk::copy_contents(&old, &file))?;
        disk::set_times(&file, stat.atime, stat.mtime)?;
        disk::sync_data(&file)?;
        self.space().tell(new, stat.size, false);
        Ok(new)
    }

    /// Takes note of a file's size; `evictable`: it equals the bucket's version.
    pub fn tell(&self, no: BackingNo, bytes: u64, evictable: bool) {
        self.space().tell(no, bytes, evictable);
    }

    /// A file that programs write to has at least so many bytes by now.
    pub fn grown(&self, no: BackingNo, bytes: u64) {
        self.space().grown(no, bytes);
    }

    /// The file was used.
    pub fn used_now(&self, no: BackingNo) {
        self.space().touch(no);
    }

    /// Space taken and allowed.
    pub fn usage(&self) -> Usage {
        self.space().usage()
    }

    /// A range of a file is to be written; what that adds is counted at once if it fits below the limit.
    ///
    /// # Errors
    /// How many bytes more that would be, if they do not fit.
    pub fn grow(&self, no: BackingNo, range: &Range<u64>) -> std::result::Result<(), u64> {
        self.space().grow(no, range)
    }

    /// The least recently used clean files that make room so that `wanted` more bytes fit below
    /// 90 % of the limit, and on the disk with something to spare.
    pub fn victims(&self, wanted: u64) -> Vec<BackingNo> {
        let short = self.shortage(wanted);
        self.space().victims(wanted, short)
    }

    /// What the disk lacks for `wanted` more bytes and something to spare. A disk that does not tell lacks
    /// nothing: the write will say so.
    pub fn shortage(&self, wanted: u64) -> Shortage {
        self.disk_space().map_or(Shortage::default(), |disk| Shortage::of(&disk, wanted))
    }

    /// Removes files that no row knows and that were made before this start (J6). Returns how many.
    ///
    /// # Errors
    /// The directories cannot be read.
    pub fn remove_orphans(&self, known: &HashSet<BackingNo>, below: BackingNo) -> Result<usize> {
        orphans::remove(&self.inner.layout, known, below)
    }

    /// The filesystem of the cache directory.
    ///
    /// # Errors
    /// The disk's.
    pub fn disk_space(&self) -> Result<disk::SpaceStat> {
        Ok(disk::statvfs(&self.inner.options.cache_dir)?)
    }

    /// Where dirty content lies.
    pub fn state_dir(&self) -> &Path {
        &self.inner.options.state_dir
    }
}

/// Where a file lies, without opening the room; `None` if it is in neither place.
pub fn find(options: &Options, no: BackingNo) -> Option<PathBuf> {
    let layout = Layout::at(&options.state_dir, &options.cache_dir);
    layout.find(no, |path| disk::lstat(path).map(|_| path.to_owned())).ok()
}
