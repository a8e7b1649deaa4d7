//! What programs were told, and what they have begun: the states in which a cut may leave a path.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use ferryfs::checksum::crc64;

/// Content; none: no such file.
pub type State = Option<Arc<Vec<u8>>>;

/// One path.
#[derive(Clone, Debug)]
pub struct Entry {
    /// In order. The first is that of the last cut; of a later one the program knows that it has begun.
    pub states: Vec<State>,
    /// The oldest that a cut may leave: a program was told that it is on the disk, or it was there at the last cut.
    pub told: usize,
    /// A program has begun to rewrite in place what is there: what it was told of that, it has given up.
    pub given_up: bool,
    /// By a rename over it: once an upload of the new content has begun, that may be what is shown, held.
    pub replaced: bool,
    /// Of the file that is there: on the disk as a program was told, and begun since.
    pub modes: Vec<u32>,
}

impl Entry {
    /// A program was told of what is there.
    pub fn is_told(&self) -> bool {
        !self.given_up && self.told + 1 == self.states.len()
    }
}

/// Of all paths below the mount.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    /// (path, size, CRC64) of the versions that a program has closed, or renamed to where they are.
    closed: BTreeSet<(String, u64, u64)>,
    /// Renames of what was on the disk: one of both names has it.
    renames: Vec<(String, String)>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Another file is about to be at the path, or none; returns which state that is.
    pub fn begin(&self, path: &str, state: State) -> usize {
        let mut inner = self.lock();
        let fresh = || Entry { states: vec![None], told: 0, given_up: false, replaced: false, modes: Vec::new() };
        let entry = inner.entries.entry(path.to_owned()).or_insert_with(fresh);
        entry.states.push(state);
        entry.modes.clear();
        entry.states.len() - 1
    }

    /// The file is about to be changed in place; returns which state that is.
    pub fn begin_within(&self, path: &str, bytes: Vec<u8>) -> usize {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(path).unwrap();
        entry.states.push(Some(Arc::new(bytes)));
        entry.states.len() - 1
    }

    /// A program was told that this state, or a later one, is on the disk.
    pub fn told(&self, path: &str, state: usize) {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(path).unwrap();
        entry.told = entry.told.max(state);
        (entry.given_up, entry.replaced) = (false, false);
    }

    /// The content is about to be overwritten without a net.
    pub fn give_up(&self, path: &str) {
        self.lock().entries.get_mut(path).unwrap().given_up = true;
    }

    /// The same, by a rename of what was never synced.
    pub fn replace(&self, path: &str) {
        self.give_up(path);
        self.lock().entries.get_mut(path).unwrap().replaced = true;
    }

    /// The mode is about to be another.
    pub fn begin_mode(&self, path: &str, mode: u32) {
        let mut inner = self.lock();
        let modes = &mut inner.entries.get_mut(path).unwrap().modes;
        // Before the first fsync after it anything may be there.
        if !modes.is_empty() {
            modes.push(mode);
        }
    }

    /// A program was told that this mode is on the disk.
    pub fn told_mode(&self, path: &str, mode: u32) {
        self.lock().entries.get_mut(path).unwrap().modes = vec![mode];
    }

    /// This content may be in the bucket under this path from now on.
    pub fn may_go_up(&self, path: &str, bytes: &[u8]) {
        self.lock().closed.insert((path.to_owned(), bytes.len() as u64, crc64(bytes).0));
    }

    /// What `from` has is about to be renamed to `to`.
    pub fn begin_rename(&self, from: &str, to: &str) {
        self.lock().renames.push((from.to_owned(), to.to_owned()));
    }

    /// As it is now.
    pub fn entries(&self) -> BTreeMap<String, Entry> {
        self.lock().entries.clone()
    }

    pub fn was_closed(&self, path: &str, size: u64, crc64: u64) -> bool {
        self.lock().closed.contains(&(path.to_owned(), size, crc64))
    }

    pub fn renames(&self) -> Vec<(String, String)> {
        self.lock().renames.clone()
    }

    /// The cut has left this; whoever goes on begins from there.
    pub fn left(&self, path: &str, state: State) {
        let entry = Entry { states: vec![state], told: 0, given_up: false, replaced: false, modes: Vec::new() };
        self.lock().entries.insert(path.to_owned(), entry);
    }

    /// Nothing is known of its content: it is held, and was never promised.
    pub fn forget(&self, path: &str) {
        self.lock().entries.remove(path);
    }

    /// All renames are settled.
    pub fn end_renames(&self) {
        self.lock().renames.clear();
    }
}
