//! What the bucket said, merged into the tree (R7, C1).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::journal::{AttributeRow, Op, Remote};
use crate::store::ObjectMeta;
use crate::types::{BackingNo, FileKind, Ino, Key, TargetId, TimeNs};

use super::escape::{segment_of, shows};
use super::inode::Inode;
use super::tree::{OWN_OVERRIDES, Tree, below_prefix};

/// An inode that the bucket made obsolete at its path.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The inode that lost its name.
    pub ino: Ino,
    /// Its directory.
    pub parent: Ino,
    /// The name.
    pub name: String,
    /// Its backing file, if nobody uses it any more: unlink it once the queued rows are on disk.
    pub trash: Option<BackingNo>,
}

/// A directory as listed.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// Objects by name.
    pub(crate) files: BTreeMap<String, ObjectMeta>,
    /// Names of common prefixes.
    pub(crate) dirs: BTreeSet<String>,
    /// The directory's own marker.
    pub(crate) marker: Option<ObjectMeta>,
    /// Segments that cannot be names; [`Tree::name_odd`] finds names for them (N2).
    pub(crate) odd_files: BTreeMap<String, ObjectMeta>,
    /// The same of common prefixes.
    pub(crate) odd_dirs: BTreeSet<String>,
    /// Segments of directories that are shown under other names, by name.
    pub(crate) segments: BTreeMap<String, String>,
}

/// When a listing was made (monotonic), and the wall clock for new inodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) began: Duration,
    pub(crate) now: TimeNs,
}

/// What a merge could not decide by the listing alone.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// Own objects that the listing does not show, or shows as others: HEAD them before they are dropped (R7).
    pub(crate) missing: Vec<Ino>,
    /// Names that we deleted lately, or of which we deleted something, and that the listing still
    /// shows: probe them before showing.
    pub(crate) risen: Vec<String>,
}

/// The remote version that a listing or a HEAD tells of.
pub fn remote_of(meta: &ObjectMeta) -> Remote {
    Remote {
        key: meta.key.clone(),
        etag: meta.etag.clone(),
        size: meta.size,
        crc64: meta.crc64,
        version_id: meta.version_id.clone(),
        last_modified: meta.last_modified,
    }
}

impl Tree {
    /// An own operation settled so lately that a listing begun at `began` may not show it (R7).
    pub(crate) fn overrides(&self, ino: Ino, began: Duration) -> bool {
        self.get(ino).and_then(|inode| inode.settled).is_some_and(|settled| began < settled + OWN_OVERRIDES)
    }

    /// The key is an own version on its way out: owed for removal, waiting to be copied to another name, or
    /// being sent for an inode that was removed or renamed meanwhile (R2).
    pub(crate) fn is_leaving(&self, target: TargetId, key: &Key) -> bool {
        self.removals.contains_key(&(target, key.clone()))
            || self.is_sent_in_vain(target, key)
            || self
                .at_remote(target, key)
                .iter()
                .any(|ino| self.get(*ino).is_some_and(|inode| inode.row.linked) && self.key(*ino).as_ref() != Some(key))
    }

    /// Merges a complete listing of a directory.
    pub(crate) fn merge_dir(
        &mut self,
        dir: Ino,
        listed: &mut Listed,
        known: &HashMap<Key, AttributeRow>,
        moment: Moment,
        ops: &mut Vec<Op>,
    ) -> (Vec<Replaced>, Doubts) {
        let mut replaced = Vec::new();
        let mut doubts = Doubts::default();
        let began = moment.began;
        self.deleted.retain(|_, at| began < *at + OWN_OVERRIDES);
        if listed.odd_files.contains_key("") && self.get(dir).is_some_and(|inode| inode.row.remote.is_some()) {
            if self.is_pending(dir) {
                // Ours replaces it, as any other version of another host.
                listed.odd_files.remove("");
            } else {
                // Another host put content under the marker's key: that is a file by now.
                self.set_remote(dir, None);
                if self.get(dir).is_some_and(|inode| inode.persisted) {
                    self.persist(dir, ops);
                }
            }
        }
        if let Some(marker) = &listed.marker {
            let unknown = self.get(dir).is_some_and(|inode| inode.row.remote.is_none() && !self.is_top(dir));
            let target = self.get(dir).map(|inode| inode.row.target);
            let same = self
                .get(dir)
                .and_then(|inode| inode.row.remote.as_ref())
                .is_some_and(|remote| remote.key == marker.key && remote.etag == marker.etag);
            if same {
                let checked = self.get(dir).and_then(|inode| inode.checked);
                self.seen_again(dir, marker, moment);
                // Whether the name still means it, its parent tells.
                if let Some(inode) = self.get_mut(dir) {
                    inode.checked = checked;
                }
            }
            let elsewhere = target.is_some_and(|target| self.is_elsewhere(target, marker));
            if unknown && !elsewhere && !self.is_leaving_at(dir, &marker.key) {
                self.set_remote(dir, Some(remote_of(marker)));
            }
        }
        self.name_odd(dir, listed, began);
        for (name, meta) in &listed.files {
            self.merge_file(dir, name, meta, known.get(&meta.key), moment, &mut replaced, &mut doubts, ops);
        }
        for name in &listed.dirs {
            let segment = listed.segments.get(name).map(String::as_str);
            self.merge_subdir((dir, name, segment), moment, &mut replaced, &mut doubts, ops);
        }
        let present: Vec<(String, Ino)> =
            self.children(dir).into_iter().flatten().map(|(name, ino)| (name.clone(), *ino)).collect();
        for (name, ino) in present {
            let shown = if self.get(ino).is_some_and(Inode::is_dir) {
                listed.dirs.contains(&name)
            } else {
                listed.files.contains_key(&name)
            };
            if shown || self.holds_pending(ino) || self.is_top(ino) {
                continue;
            }
            if self.overrides(ino, began)
                || self.get(ino).is_some_and(|inode| inode.persisted || inode.row.remote.is_some() && inode.is_dir())
            {
                doubts.missing.push(ino);
            } else {
                replaced.extend(self.obsolete(dir, &name, moment.now, ops));
            }
        }
        if let Some(state) = self.get_mut(dir).and_then(|inode| inode.dir.as_mut()) {
            state.listed = Some(began);
        }
        (replaced, doubts)
    }

    fn is_leaving_at(&self, ino: Ino, key: &Key) -> bool {
        self.get(ino).is_none_or(|inode| self.is_leaving(inode.row.target, key))
    }

    /// It, or anything below it, waits for the bucket or is in use here.
    pub(crate) fn holds_pending(&self, ino: Ino) -> bool {
        self.is_pending(ino)
            || self.is_moving(ino)
            || self.get(ino).is_some_and(|inode| inode.attempting)
            || self.below(ino).iter().any(|below| self.is_pending(*below))
    }

    #[expect(clippy::too_many_arguments, reason = "one object of a merge and the merge's outputs")]
    fn merge_file(
        &mut self,
        dir: Ino,
        name: &str,
        meta: &ObjectMeta,
        known: Option<&AttributeRow>,
        moment: Moment,
        replaced: &mut Vec<Replaced>,
        doubts: &mut Doubts,
        ops: &mut Vec<Op>,
    ) {
        if self.is_leaving_at(dir, &meta.key) {
            return;
        }
        let Some(target) = self.get(dir).map(|inode| inode.row.target) else { return };
        if self.is_elsewhere(target, meta) {
            return;
        }
        match self.child(dir, name) {
            None => {
                if self.deleted.contains_key(&(target, meta.key.clone())) {
                    doubts.risen.push(name.to_owned());
                } else {
                    self.discover(dir, name, meta, known, moment);
                }
            }
            Some(ino) => {
                let same = self.get(ino).is_some_and(|inode| {
                    !inode.is_dir() && inode.row.remote.as_ref().is_some_and(|remote| remote.etag == meta.etag)
                });
                if same {
                    self.seen_again(ino, meta, moment);
                } else if !self.holds_pending(ino) {
                    if self.overrides(ino, moment.began) {
                        // Older than our own version, or newer: a HEAD tells.
                        doubts.missing.push(ino);
                    } else {
                        replaced.extend(self.obsolete(dir, name, moment.now, ops));
                        self.discover(dir, name, meta, known, moment);
                    }
                }
            }
        }
    }

    fn merge_subdir(
        &mut self,
        place: (Ino, &str, Option<&str>),
        moment: Moment,
        replaced: &mut Vec<Replaced>,
        doubts: &mut Doubts,
        ops: &mut Vec<Op>,
    ) {
        let (dir, name, _) = place;
        match self.child(dir, name) {
            Some(ino) if self.get(ino).is_some_and(Inode::is_dir) => {
                if let Some(inode) = self.get_mut(ino) {
                    inode.checked = Some(moment.began);
                }
            }
            Some(ino) => {
                if !self.holds_pending(ino) && !self.overrides(ino, moment.began) {
                    replaced.extend(self.obsolete(dir, name, moment.now, ops));
                    self.discover_dir(place, moment, doubts);
                }
            }
            None => self.discover_dir(place, moment, doubts),
        }
    }

    /// A prefix of which nothing is known yet. It is not shown before a look below it when what makes
    /// it visible may be on its way out.
    fn discover_dir(&mut self, place: (Ino, &str, Option<&str>), moment: Moment, doubts: &mut Doubts) {
        let (dir, name, segment) = place;
        if self.is_doubtful(dir, segment.unwrap_or(name)) {
            doubts.risen.push(name.to_owned());
        } else {
            self.insert_dir(dir, name, segment, moment);
        }
    }

    /// What makes a prefix visible may be on its way out, or belong to a renamed directory.
    pub(super) fn is_doubtful(&self, dir: Ino, segment: &str) -> bool {
        let (Some(prefix), Some(inode)) = (self.prefix(dir), self.get(dir)) else { return true };
        let (target, below) = (inode.row.target, format!("{prefix}{segment}/"));
        self.is_contested(target, &below) || self.leaving_below(target, &below) > 0
    }

    /// How many keys below a prefix are on their way out, or were deleted lately.
    pub(crate) fn leaving_below(&self, target: TargetId, prefix: &str) -> usize {
        below_prefix(&self.removals, target, prefix).count()
            + below_prefix(&self.deleted, target, prefix).count()
            + below_prefix(&self.attempted, target, prefix).filter(|(key, _)| self.is_sent_in_vain(target, key)).count()
            + below_prefix(&self.by_remote, target, prefix)
                .filter(|(key, inos)| inos.iter().any(|ino| self.key(*ino).as_ref() != Some(key)))
                .count()
    }

    /// The key is on its way out, or was deleted so lately that a listing may still show it.
    pub(crate) fn is_gone(&self, target: TargetId, key: &Key) -> bool {
        self.is_leaving(target, key) || self.deleted.contains_key(&(target, key.clone()))
    }

    /// A directory that the bucket has and that is not known here. `segment`: what it is called in keys,
    /// where that is not its name.
    pub(crate) fn insert_dir(&mut self, dir: Ino, name: &str, segment: Option<&str>, moment: Moment) -> Option<Ino> {
        let mapping = self.mapping_of(dir)?.clone();
        let attrs = mapping.defaults.attrs(FileKind::Dir, moment.now);
        let ino = self.next_ino_or_log()?;
        let mut row = Inode::blank(ino, mapping.target, FileKind::Dir, (dir, name.to_owned()), attrs, moment.now);
        row.attrs_known = false;
        row.segment = segment.map(str::to_owned);
        row.remote_attr_generation = row.attr_generation;
        let mut inode = Inode::new(row);
        inode.checked = Some(moment.began);
        self.inodes.insert(ino, inode);
        self.enter(dir, name, ino);
        Some(ino)
    }

    /// An object that the bucket has and that is not known here.
    pub(crate) fn discover(
        &mut self,
        dir: Ino,
        name: &str,
        meta: &ObjectMeta,
        known: Option<&AttributeRow>,
        moment: Moment,
    ) -> Option<Ino> {
        let mapping = self.mapping_of(dir)?.clone();
        let known = known.filter(|row| row.etag == meta.etag && row.kind != FileKind::Dir);
        let kind = known.map_or(FileKind::File, |row| row.kind);
        let mtime = meta.last_modified.unwrap_or(moment.now);
        let attrs = known.map_or_else(|| mapping.defaults.attrs(kind, mtime), |row| row.attrs);
        let ino = self.next_ino_or_log()?;
        let mut row = Inode::blank(ino, mapping.target, kind, (dir, name.to_owned()), attrs, mtime);
        row.attrs_known = known.is_some();
        row.remote_attr_generation = row.attr_generation;
        row.remote_generation = row.generation;
        row.size = meta.size;
        let segment = segment_of(meta.key.as_str());
        row.segment = shows(name, segment).then(|| segment.to_owned());
        row.symlink = known.and_then(|row| row.symlink.clone());
        row.xattrs = known.and_then(|row| row.xattrs.clone());
        let mut inode = Inode::new(row);
        inode.checked = Some(moment.began);
        self.inodes.insert(ino, inode);
        let mut remote = remote_of(meta);
        remote.crc64 = remote.crc64.or(known.and_then(|row| row.crc64));
        self.set_remote(ino, Some(remote));
        self.enter(dir, name, ino);
        Some(ino)
    }

    /// A name that was in the bucket all along: the directory's times stay.
    fn enter(&mut self, dir: Ino, name: &str, ino: Ino) {
        let is_dir = self.get(ino).is_some_and(Inode::is_dir);
        if let Some(state) = self.get_mut(dir).and_then(|inode| inode.dir.as_mut()) {
            state.put(name, ino, is_dir);
        }
    }

    fn next_ino_or_log(&mut self) -> Option<Ino> {
        match self.next_ino() {
            Ok(ino) => Some(ino),
            Err(error) => {
                tracing::error!(%error, "no inode numbers: an object is not shown");
                None
            }
        }
    }

    /// Another host changed or removed what a name shows: the inode loses its name, nothing is owed.
    pub(crate) fn obsolete(&mut self, dir: Ino, name: &str, now: TimeNs, ops: &mut Vec<Op>) -> Vec<Replaced> {
        let Some(ino) = self.child(dir, name) else { return Vec::new() };
        let mut gone = Vec::new();
        for below in self.below(ino).into_iter().rev().chain([ino]) {
            let Some(inode) = self.get_mut(below) else { continue };
            let (parent, name) = (inode.row.parent, inode.row.name.clone());
            inode.row.linked = false;
            inode.row.ctime = now;
            let (persisted, is_dir) = (inode.persisted, inode.is_dir());
            if let Some(state) = self.get_mut(parent).and_then(|inode| inode.dir.as_mut()) {
                state.take(&name, is_dir);
            }
            let unused = self.get(below).is_some_and(Inode::is_unused);
            let trash = if unused { self.reap(below, ops) } else { None };
            if !unused && persisted {
                self.persist(below, ops);
            }
            gone.push(Replaced { ino: below, parent, name, trash });
        }
        gone
    }
}
