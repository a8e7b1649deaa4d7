//! Open files and directory streams by their handle numbers.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::download::Fill;
use crate::types::{FileKind, Ino};

/// What serves a handle's reads and writes.
#[derive(Clone)]
pub(super) enum Source {
    /// The kernel.
    Kernel,
    /// We, from the backing file; opened for writing if the handle may write.
    File(Arc<File>),
    /// We, from content that is still arriving.
    Fill(Fill),
}

/// An open file.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) ino: Ino,
    /// It may write.
    pub(super) write: bool,
    /// The process that opened it, where that is asked for.
    pub(super) opener: Option<u32>,
    /// A descriptor of it was closed.
    pub(super) flushed: bool,
    /// Each change is on the disk before it returns: opened with O_DSYNC or O_SYNC.
    pub(super) sync: bool,
    /// Served directly: the kernel does not ask by FSYNC for what `sync` wants of a write.
    pub(super) direct: bool,
    /// The process that opened it for reading, where its content was not wholly here.
    pub(super) reader: Option<u32>,
    pub(super) source: Source,
}

/// Open files. Locked alone, in short sections.
#[derive(Default)]
pub(super) struct Handles {
    next: AtomicU64,
    table: Mutex<HashMap<u64, Handle>>,
    /// How many handles have each `reader`. Locked alone, in short sections.
    readers: Mutex<HashMap<u32, u32>>,
}

impl Handles {
    fn readers(&self) -> MutexGuard<'_, HashMap<u32, u32>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody reads a file that is not wholly here; `process`, if it is given.
    pub(super) fn is_reading(&self, process: Option<u32>) -> bool {
        let readers = self.readers();
        process.map_or(!readers.is_empty(), |process| readers.contains_key(&process))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Handle>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, handle: Handle) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(reader) = handle.reader {
            *self.readers().entry(reader).or_default() += 1;
        }
        self.table().insert(fh, handle);
        fh
    }

    pub(super) fn get(&self, fh: u64) -> Option<Handle> {
        self.table().get(&fh).cloned()
    }

    pub(super) fn remove(&self, fh: u64) -> Option<Handle> {
        let handle = self.table().remove(&fh)?;
        if let Some(reader) = handle.reader {
            let mut readers = self.readers();
            if let Some(count) = readers.get_mut(&reader) {
                *count -= 1;
                if *count == 0 {
                    readers.remove(&reader);
                }
            }
        }
        Some(handle)
    }

    /// Notes that a descriptor of `fh` was closed. Whether that holds of every handle of the inode
    /// that may write.
    pub(super) fn mark_flushed(&self, ino: Ino, fh: u64) -> bool {
        if let Some(handle) = self.table().get_mut(&fh) {
            handle.flushed = true;
        }
        self.are_flushed(ino)
    }

    /// Of each handle of the inode that may write a descriptor was closed.
    pub(super) fn are_flushed(&self, ino: Ino) -> bool {
        self.table().values().filter(|handle| handle.ino == ino && handle.write).all(|handle| handle.flushed)
    }

    /// The content of an inode has arrived whole: its handles go on from the file.
    pub(super) fn replace_sources(&self, ino: Ino, read: &Arc<File>, write: &Arc<File>) {
        for handle in self.table().values_mut().filter(|handle| handle.ino == ino) {
            handle.source = Source::File(if handle.write { write.clone() } else { read.clone() });
        }
    }

    /// The content of an inode arrives by another way: its handles follow.
    pub(super) fn replace_fill(&self, ino: Ino, fill: &Fill) {
        for handle in self.table().values_mut().filter(|handle| handle.ino == ino) {
            handle.source = Source::Fill(fill.clone());
        }
    }

    /// Handles whose program has closed them, as far as FLUSH tells, or could not write anyway.
    pub(super) fn closed(&self) -> Vec<(Ino, u64)> {
        let table = self.table();
        table
            .iter()
            .filter(|(_, handle)| handle.flushed || !handle.write)
            .map(|(fh, handle)| (handle.ino, *fh))
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.table().len()
    }
}

/// One entry as a directory stream remembers it.
#[derive(Clone, Debug)]
pub(super) struct StreamEntry {
    pub(super) ino: Ino,
    pub(super) kind: FileKind,
    pub(super) name: String,
}

/// Open directory streams: what each directory held when it was opened or rewound, so that no
/// entry is seen twice or skipped while others come and go.
#[derive(Default)]
pub(super) struct Streams {
    next: AtomicU64,
    table: Mutex<HashMap<u64, Arc<Vec<StreamEntry>>>>,
}

impl Streams {
    fn table(&self) -> MutexGuard<'_, HashMap<u64, Arc<Vec<StreamEntry>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, entries: Vec<StreamEntry>) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.table().insert(fh, Arc::new(entries));
        fh
    }

    pub(super) fn get(&self, fh: u64) -> Option<Arc<Vec<StreamEntry>>> {
        self.table().get(&fh).cloned()
    }

    pub(super) fn replace(&self, fh: u64, entries: Vec<StreamEntry>) {
        self.table().insert(fh, Arc::new(entries));
    }

    pub(super) fn remove(&self, fh: u64) {
        self.table().remove(&fh);
    }
}

/// Read-only descriptors of backing files in a session, for stat: cheaper than a path walk a call,
/// and no writer for the lease.
#[derive(Default)]
pub(super) struct Live {
    table: Mutex<HashMap<Ino, Arc<File>>>,
}

impl Live {
    fn table(&self) -> MutexGuard<'_, HashMap<Ino, Arc<File>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, ino: Ino, file: File) {
        self.table().insert(ino, Arc::new(file));
    }

    pub(super) fn get(&self, ino: Ino) -> Option<Arc<File>> {
        self.table().get(&ino).cloned()
    }

    pub(super) fn remove(&self, ino: Ino) {
        self.table().remove(&ino);
    }

    /// The inodes in a session.
    pub(super) fn inodes(&self) -> Vec<Ino> {
        self.table().keys().copied().collect()
    }
}
