//! Changes of the tree that programs make: names come, go and move. Each queues the rows that make
//! it survive; nothing here waits.

use std::time::Duration;

use crate::journal::{Content, Op, Remote, RemovalRow};
use crate::types::{Attrs, BackingNo, FileKind, Ino, Key, TargetId, TimeNs};

use super::error::{Error, Result};
use super::inode::Inode;
use super::tree::{OWN_OVERRIDES, Tree};

/// Keys deleted between two looks at which of them are old enough to be forgotten.
const PRUNE_EVERY: usize = 1024;

/// Longest name, bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// What lost its name.
#[derive(Clone, Debug)]
pub struct Unlinked {
    /// The inode.
    pub ino: Ino,
    /// Its backing file, if nobody uses it any more: unlink it once the queued rows are on disk.
    pub trash: Option<BackingNo>,
    /// Its directory, if that must now get a marker to stay (N1).
    pub marker: Option<Ino>,
    /// The key that must leave the bucket.
    pub removal: Option<(TargetId, Key)>,
}

/// What a rename did.
#[derive(Clone, Debug)]
pub struct Renamed {
    /// The moved inode.
    pub ino: Ino,
    /// What was replaced.
    pub replaced: Option<Unlinked>,
    /// The old directory, if it must now get a marker to stay (N1).
    pub marker: Option<Ino>,
    /// Directories that have children at old names now.
    pub moved: Vec<Ino>,
    /// Files below it whose content waits for its upload, to another key now.
    pub waiting: Vec<Ino>,
}

impl Tree {
    /// Checks that `name` can be made in `parent`; gives the key it would have.
    ///
    /// # Errors
    /// A name or key too long, characters that the store refuses, a directory that takes no names.
    pub fn check_name(&self, parent: Ino, name: &str, kind: FileKind) -> Result<Key> {
        let dir = self.get(parent).ok_or(Error::NotFound)?;
        if !dir.is_dir() {
            return Err(Error::NotDirectory);
        }
        if !dir.row.linked {
            return Err(Error::NotFound);
        }
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if name.is_empty() || name == "." || name == ".." || name.contains('/') || self.is_reserved(parent, name) {
            return Err(Error::IllegalName);
        }
        let mapping = self.mapping_of(parent).ok_or(Error::ReadOnly)?;
        let prefix = self.prefix(parent).ok_or(Error::NotFound)?;
        let slash = if kind == FileKind::Dir { "/" } else { "" };
        let key = format!("{prefix}{name}{slash}");
        let capabilities = mapping.store.capabilities();
        // PROTOCOL section 5: COS refuses these control characters in keys.
        if capabilities.provider == "cos" && name.bytes().any(|byte| (0x18..=0x1b).contains(&byte)) {
            return Err(Error::IllegalName);
        }
        if key.len() > capabilities.max_key_bytes {
            return Err(Error::NameTooLong);
        }
        Ok(Key(key))
    }

    /// Makes a new inode under a free name and queues its row.
    ///
    /// # Errors
    /// As [`Tree::check_name`]; the name is taken; no numbers left.
    pub fn make(
        &mut self,
        place: (Ino, &str),
        kind: FileKind,
        attrs: Attrs,
        now: TimeNs,
        ops: &mut Vec<Op>,
        finish: impl FnOnce(&mut Inode),
    ) -> Result<Ino> {
        let (parent, name) = place;
        self.check_name(parent, name, kind)?;
        if self.child(parent, name).is_some() {
            return Err(Error::Exists);
        }
        let target = self.get(parent).ok_or(Error::NotFound)?.row.target;
        let ino = self.next_ino()?;
        let mut inode = Inode::new(Inode::blank(ino, target, kind, (parent, name.to_owned()), attrs, now));
        finish(&mut inode);
        self.inodes.insert(ino, inode);
        self.attach(parent, name, ino, now);
        self.persist(ino, ops);
        Ok(ino)
    }

    /// Puts an inode under a name; its row's place must say so already.
    pub(crate) fn attach(&mut self, parent: Ino, name: &str, ino: Ino, now: TimeNs) {
        let is_dir = self.get(ino).is_some_and(Inode::is_dir);
        if let Some(dir) = self.inodes.get_mut(&parent) {
            dir.row.ctime = now;
            dir.row.attrs.mtime = now;
            if let Some(state) = dir.dir.as_mut() {
                state.put(name, ino, is_dir);
            }
        }
    }

    /// Takes a name out of a directory.
    pub(crate) fn detach(&mut self, parent: Ino, name: &str, now: TimeNs) {
        let is_dir = self.child(parent, name).and_then(|ino| self.get(ino)).is_some_and(Inode::is_dir);
        if let Some(dir) = self.inodes.get_mut(&parent) {
            dir.row.ctime = now;
            dir.row.attrs.mtime = now;
            if let Some(state) = dir.dir.as_mut() {
                state.take(name, is_dir);
            }
        }
    }

    /// N1: a directory that has just lost its last entry, and has no marker, needs one to stay.
    fn needs_marker(&mut self, dir: Ino, ops: &mut Vec<Op>) -> Option<Ino> {
        if self.is_top(dir) {
            return None;
        }
        let inode = self.inodes.get_mut(&dir)?;
        let empty = inode.dir.as_ref().is_some_and(|state| state.children().is_empty());
        if !empty || !inode.row.linked || inode.row.marker_wanted || inode.row.remote.is_some() {
            return None;
        }
        inode.row.marker_wanted = true;
        self.persist(dir, ops);
        Some(dir)
    }

    /// Queues that a version must leave the bucket (R3, R4).
    pub fn owe_removal(&mut self, target: TargetId, remote: &Remote, ino: Ino, now: TimeNs, ops: &mut Vec<Op>) {
        let row = RemovalRow { target, key: remote.key.clone(), etag: remote.etag.clone(), ino, owed: now };
        self.removals.insert((target, remote.key.clone()), row.clone());
        ops.push(Op::PutRemoval(row));
    }

    /// The removal of a key is done, or nobody wants it any more.
    pub fn settle_removal(&mut self, target: TargetId, key: &Key, deleted_at: Option<Duration>, ops: &mut Vec<Op>) {
        if self.removals.remove(&(target, key.clone())).is_some() {
            ops.push(Op::DeleteRemoval(target, key.clone()));
        }
        if let Some(at) = deleted_at {
            self.deleted.insert((target, key.clone()), at);
            // Listings prune it too; a large removal may go on for long without one.
            if self.deleted.len().is_multiple_of(PRUNE_EVERY) {
                self.deleted.retain(|_, deleted| at < *deleted + OWN_OVERRIDES);
            }
        }
    }

    /// Takes the name of an inode away: unlink and rmdir. Emptiness of directories is the caller's to
    /// prove.
    ///
    /// # Errors
    /// No such name.
    pub fn unlink(&mut self, parent: Ino, name: &str, now: TimeNs, ops: &mut Vec<Op>) -> Result<Unlinked> {
        let unlinked = self.drop_name(parent, name, now, ops)?;
        let marker = self.needs_marker(parent, ops);
        Ok(Unlinked { marker, ..unlinked })
    }

    pub(super) fn drop_name(&mut self, parent: Ino, name: &str, now: TimeNs, ops: &mut Vec<Op>) -> Result<Unlinked> {
        let ino = self.child(parent, name).ok_or(Error::NotFound)?;
        self.detach(parent, name, now);
        let inode = self.inodes.get_mut(&ino).ok_or(Error::NotFound)?;
        inode.row.linked = false;
        inode.row.ctime = now;
        inode.row.hold = None;
        if inode.row.content == Content::Torn {
            // Unlinking settles a torn file: nobody will look for its content any more.
            inode.row.content = Content::Open;
        }
        let target = inode.row.target;
        let persisted = inode.persisted;
        let remote = inode.row.remote.clone();
        self.drop_sources(ino, ops);
        if let Some(remote) = &remote {
            self.owe_removal(target, remote, ino, now, ops);
        }
        let trash = if self.inodes.get(&ino).is_some_and(Inode::is_unused) {
            self.reap(ino, ops)
        } else {
            if persisted {
                self.persist(ino, ops);
            }
            None
        };
        Ok(Unlinked { ino, trash, marker: None, removal: remote.map(|remote| (target, remote.key)) })
    }

    /// Moves a name. What stands at the new name is replaced; that it may be replaced (kinds,
    /// emptiness) is the caller's to prove by [`Tree::check_rename`].
    ///
    /// # Errors
    /// As [`Tree::check_rename`].
    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), now: TimeNs, ops: &mut Vec<Op>) -> Result<Renamed> {
        let ino = self.check_rename(from, to)?;
        if self.child(to.0, to.1) == Some(ino) {
            return Ok(Renamed { ino, replaced: None, marker: None, moved: Vec::new(), waiting: Vec::new() });
        }
        // What takes the place of something that is not called as its key takes the key: a program that
        // saves by renaming over it means that object.
        let segment = self.child(to.0, to.1).and_then(|there| self.get(there)?.row.segment.clone());
        let replaced = match self.child(to.0, to.1) {
            Some(_) => Some(self.drop_name(to.0, to.1, now, ops)?),
            None => None,
        };
        let places = self.places(ino);
        self.detach(from.0, from.1, now);
        let inode = self.inodes.get_mut(&ino).ok_or(Error::NotFound)?;
        inode.row.parent = to.0;
        inode.row.name = to.1.to_owned();
        inode.row.segment = segment;
        inode.row.ctime = now;
        self.attach(to.0, to.1, ino, now);
        self.persist(ino, ops);
        self.record_move(&places, now, ops);
        let marker = self.needs_marker(from.0, ops);
        let moved = places.dirs.into_iter().map(|(dir, _)| dir).collect();
        Ok(Renamed { ino, replaced, marker, moved, waiting: places.waiting })
    }

    /// Lets two names change places. Both directories keep as many entries as they had.
    ///
    /// # Errors
    /// As [`Tree::check_exchange`].
    pub fn exchange(
        &mut self,
        one: (Ino, &str),
        other: (Ino, &str),
        now: TimeNs,
        ops: &mut Vec<Op>,
    ) -> Result<Renamed> {
        let (first, second) = self.check_exchange(one, other)?;
        let mut renamed = Renamed { ino: first, replaced: None, marker: None, moved: Vec::new(), waiting: Vec::new() };
        if first == second {
            return Ok(renamed);
        }
        let places = [self.places(first), self.places(second)];
        self.detach(one.0, one.1, now);
        self.detach(other.0, other.1, now);
        let segments = [second, first].map(|ino| self.get(ino).and_then(|inode| inode.row.segment.clone()));
        for ((ino, to), segment) in [(first, other), (second, one)].into_iter().zip(segments) {
            let inode = self.inodes.get_mut(&ino).ok_or(Error::NotFound)?;
            inode.row.parent = to.0;
            inode.row.name = to.1.to_owned();
            inode.row.segment = segment;
            inode.row.ctime = now;
            self.attach(to.0, to.1, ino, now);
        }
        self.persist(first, ops);
        self.persist(second, ops);
        for places in places {
            self.record_move(&places, now, ops);
            renamed.moved.extend(places.dirs.into_iter().map(|(dir, _)| dir));
            renamed.waiting.extend(places.waiting);
        }
        Ok(renamed)
    }

    /// Whether two names may change places: both exist, neither lies in the other, each may stand where
    /// the other does, one mapping. Gives the two inodes.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn check_exchange(&self, one: (Ino, &str), other: (Ino, &str)) -> Result<(Ino, Ino)> {
        let first = self.check_move(one, other)?;
        let second = self.check_move(other, one)?;
        Ok((first, second))
    }

    /// Whether a rename may be: both names, kinds, no loop, one mapping.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn check_rename(&self, from: (Ino, &str), to: (Ino, &str)) -> Result<Ino> {
        let ino = self.check_move(from, to)?;
        let inode = self.get(ino).ok_or(Error::NotFound)?;
        if let Some(existing) = self.child(to.0, to.1).and_then(|existing| self.get(existing)) {
            match (inode.is_dir(), existing.is_dir()) {
                (true, false) => return Err(Error::NotDirectory),
                (false, true) => return Err(Error::IsDirectory),
                (true, true) if existing.ino() != ino && !self.is_empty(existing.ino()) => {
                    return Err(Error::NotEmpty);
                }
                _ => {}
            }
        }
        Ok(ino)
    }

    /// Whether what stands at `from` may stand at `to`, whatever stands there now.
    fn check_move(&self, from: (Ino, &str), to: (Ino, &str)) -> Result<Ino> {
        let ino = self.child(from.0, from.1).ok_or(Error::NotFound)?;
        let inode = self.get(ino).ok_or(Error::NotFound)?;
        if self.is_top(ino) {
            return Err(Error::ReadOnly);
        }
        let to_dir = self.get(to.0).ok_or(Error::NotFound)?;
        if to_dir.row.target != inode.row.target {
            return Err(Error::CrossDevice);
        }
        self.check_name(to.0, to.1, inode.row.kind)?;
        let mut at = to.0;
        while !self.is_top(at) {
            if at == ino {
                return Err(Error::Loop);
            }
            at = self.get(at).ok_or(Error::NotFound)?.row.parent;
        }
        Ok(ino)
    }

    /// No entry is known here (the bucket may know more).
    pub fn is_empty(&self, dir: Ino) -> bool {
        self.children(dir).is_none_or(std::collections::BTreeMap::is_empty)
    }

    /// All inodes below a directory that are known here, parents before children.
    pub fn below(&self, dir: Ino) -> Vec<Ino> {
        let mut found = Vec::new();
        let mut open = vec![dir];
        while let Some(at) = open.pop() {
            for child in self.children(at).into_iter().flat_map(|children| children.values()) {
                found.push(*child);
                if self.get(*child).is_some_and(Inode::is_dir) {
                    open.push(*child);
                }
            }
        }
        found
    }
}
