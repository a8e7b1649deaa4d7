//! Children that a renamed directory still has at old names (R5): found, shown, and made inodes whose
//! next step is the copy to where they belong.

use std::collections::HashMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::journal::{AttributeRow, Durability, Op};
use crate::store::{ErrorKind, HeadOptions, ListOptions, ListPage, ObjectMeta};
use crate::types::{Ino, Key, TargetId};

use super::Namespace;
use super::aside::conflict_name;
use super::error::{Error, Result};
use super::inode::{Inode, Source};
use super::listing::{HEADS, collect};
use super::mapping::Mapping;
use super::merge::{Listed, Moment, remote_of};
use super::tree::Tree;

/// Entries of a directory looked at under one lock.
const SCAN: usize = 4096;

/// What a page of a source showed.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    /// Inodes whose rows are queued and that wait for their copy.
    pub work: Vec<Ino>,
    /// How many of them had no row before, and directories that had no source before.
    pub fresh: usize,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// What lies directly at a source and belongs under its directory.
pub(crate) struct AtSource {
    pub(crate) source: Source,
    pub(crate) listed: Listed,
    pub(crate) known: HashMap<Key, AttributeRow>,
}

impl Namespace {
    /// Lists all sources of a directory.
    pub(super) async fn list_sources(&self, dir: Ino, mapping: &Mapping) -> Result<Vec<AtSource>> {
        let sources = self.read(|tree| tree.sources(dir).to_vec());
        let mut found = Vec::new();
        for source in sources {
            let mut listed = Listed::default();
            let mut marker = None;
            loop {
                let page = self.page(mapping, &source.prefix, marker.take(), 0).await?;
                let subdirs = self.unsettled_dirs(dir, &source.prefix, mapping, page.prefixes).await?;
                collect(&mut listed, &source.prefix, page.objects, subdirs);
                marker = page.next_marker;
                if marker.is_none() {
                    break;
                }
            }
            let known = self.known_attributes(mapping, &source.prefix).await?;
            found.push(AtSource { source, listed, known });
        }
        Ok(found)
    }

    async fn page(&self, mapping: &Mapping, prefix: &str, marker: Option<String>, max_keys: u32) -> Result<ListPage> {
        let options = ListOptions { prefix: prefix.to_owned(), delimiter: Some('/'), marker, max_keys };
        let page = mapping.store.list(options).await;
        mapping.observe(&page);
        Ok(page?)
    }

    /// Of the prefixes below a source those that hold something of the directory's that no directory
    /// known here sees to: a listing does not tell how old what lies below them is.
    async fn unsettled_dirs(
        &self,
        dir: Ino,
        prefix: &str,
        mapping: &Mapping,
        below: Vec<String>,
    ) -> Result<Vec<String>> {
        let looks = below.into_iter().filter(|below| {
            let name = below.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('/'));
            let child = |tree: &Tree| tree.child_at(dir, name?, true);
            !self.read(|tree| {
                child(tree).is_some_and(|child| tree.sources(child).iter().any(|source| source.prefix == *below))
            })
        });
        let looks = looks.map(|below| async move {
            Ok::<_, Error>(self.is_unsettled_prefix(dir, prefix, mapping, &below).await?.then_some(below))
        });
        let found: Vec<Option<String>> = stream::iter(looks).buffered(HEADS).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn is_unsettled_prefix(&self, dir: Ino, prefix: &str, mapping: &Mapping, below: &str) -> Result<bool> {
        let mut marker = None;
        loop {
            let options = ListOptions { prefix: below.to_owned(), marker, ..ListOptions::default() };
            let page = mapping.store.list(options).await;
            mapping.observe(&page);
            let page = page?;
            if self.read(|tree| page.objects.iter().any(|meta| tree.is_unsettled(dir, prefix, meta))) {
                return Ok(true);
            }
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(false);
            }
        }
    }

    /// Asks the sources of a directory for one name, as [`Namespace::lookup`] asks its own prefix.
    pub(super) async fn probe_sources(&self, dir: Ino, name: &str, mapping: &Mapping, moment: Moment) -> Result<()> {
        for source in self.read(|tree| tree.sources(dir).to_vec()) {
            let key = Key(format!("{}{name}", source.prefix));
            let below = format!("{key}/");
            let (object, is_dir) = futures::join!(
                mapping.store.head(&key, HeadOptions::default()),
                self.unsettled_dirs(dir, &source.prefix, mapping, vec![below])
            );
            mapping.observe(&object);
            let mut listed = Listed::default();
            match object {
                Ok(meta) => {
                    listed.files.insert(name.to_owned(), meta);
                }
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            if !is_dir?.is_empty() {
                listed.dirs.insert(name.to_owned());
            }
            let mut at = AtSource { source, listed, known: HashMap::new() };
            let ((), commit) =
                self.update(Durability::Buffered, |tree, ops| tree.merge_source(dir, &mut at, moment, ops));
            commit.in_background();
        }
        Ok(())
    }

    /// Makes inodes of what a page of a source shows: each has its row, with the old key as its remote
    /// version, before anything of it moves. What proves newer than the rename becomes visible under the
    /// old name.
    ///
    /// # Errors
    /// The store failed; the directory is gone.
    pub async fn adopt_page(&self, dir: Ino, prefix: &str, marker: Option<String>, max_keys: u32) -> Result<Adopted> {
        let mapping = self.read(|tree| tree.mapping_of(dir).cloned()).ok_or(Error::NotFound)?;
        let page = self.page(&mapping, prefix, marker, max_keys).await?;
        let next = page.next_marker;
        let subdirs = self.unsettled_dirs(dir, prefix, &mapping, page.prefixes).await?;
        let mut listed = Listed::default();
        collect(&mut listed, prefix, page.objects, subdirs);
        let moment = Moment { began: self.clock().monotonic(), now: self.clock().now() };
        let (mut adopted, commit) = self.update(Durability::Buffered, |tree, ops| {
            tree.show_old_name(mapping.target, prefix, &listed, moment);
            tree.name_odd(dir, &mut listed, moment.began);
            tree.adopt_listed(dir, prefix, listed, moment, ops)
        });
        commit.durable().await?;
        adopted.next = next;
        Ok(adopted)
    }

    /// Known children of a renamed directory that are still at old keys, `limit` at most, after a name:
    /// they get rows. The second value is where to go on; `None` at the end.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn adopt_known(&self, dir: Ino, after: &str, limit: usize) -> Result<(Vec<Ino>, Option<String>)> {
        let (found, commit) = self.update(Durability::Buffered, |tree, ops| {
            use std::ops::Bound::{Excluded, Unbounded};
            let (mut work, mut seen) = (Vec::new(), 0);
            let mut last = None;
            for (name, ino) in
                tree.children(dir).into_iter().flat_map(|c| c.range::<str, _>((Excluded(after), Unbounded)))
            {
                seen += 1;
                if tree.is_pending(*ino) && tree.get(*ino).is_some_and(|inode| inode.row.remote.is_some()) {
                    work.push(*ino);
                }
                if work.len() >= limit || seen >= SCAN {
                    last = Some(name.clone());
                    break;
                }
            }
            for ino in &work {
                if tree.get(*ino).is_some_and(|inode| !inode.persisted) {
                    tree.persist(*ino, ops);
                }
            }
            (work, last)
        });
        commit.durable().await?;
        Ok(found)
    }

    /// A listing long enough after the last copy showed nothing more at a source.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn end_source(&self, dir: Ino, prefix: &str) -> Result<()> {
        let ((), commit) = self.update(Durability::Buffered, |tree, ops| tree.drop_source(dir, prefix, ops));
        Ok(commit.durable().await?)
    }

    /// Before a key is changed: an object there that belongs under a renamed directory, and that nobody
    /// has asked for yet, becomes an inode of that directory, with its row. Whether there was one.
    ///
    /// # Errors
    /// The store failed.
    pub async fn settle_key(&self, target: TargetId, key: &Key) -> Result<bool> {
        let Some(mapping) =
            self.read(|tree| tree.is_contested(target, key.as_str()).then(|| tree.mapping(target).cloned()))
        else {
            return Ok(false);
        };
        let mapping = mapping.ok_or(Error::NotFound)?;
        let found = mapping.store.head(key, HeadOptions::default()).await;
        mapping.observe(&found);
        let meta = match found {
            Ok(meta) => meta,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let claim = self.read(|tree| {
            tree.claim(target, key, meta.last_modified)
                .filter(|_| !tree.is_home(target, key) && !tree.is_gone(target, key))
        });
        let Some(claim) = claim else { return Ok(false) };
        let moment = Moment { began: self.clock().monotonic(), now: self.clock().now() };
        let ((), commit) =
            self.update(Durability::Buffered, |tree, ops| tree.settle(&claim.dir, &claim.prefix, &meta, moment, ops));
        commit.durable().await?;
        Ok(true)
    }

    /// The moved inode's place is taken by another host's object: it stays here, under a name that tells
    /// so (a move never overwrites). Whether it was still at an old key.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn give_way(&self, ino: Ino) -> Result<Option<String>> {
        let now = self.clock().now();
        let (given, commit) = self.update(Durability::Buffered, |tree, ops| tree.give_way(ino, now, ops));
        commit.durable().await?;
        Ok(given)
    }

    /// Whether an inode's version is at a key that its directory was renamed away from.
    pub fn is_carried(&self, ino: Ino) -> bool {
        self.read(|tree| tree.is_carried(ino))
    }

    /// Forgets a file that was moved by the bucket's listing alone, if nobody uses it: the next look
    /// finds it by name again. `false`: not yet.
    pub fn forget_moved(&self, ino: Ino) -> bool {
        let now = self.clock().monotonic();
        let (gone, commit) = self.update(Durability::Buffered, |tree, ops| tree.forget_moved(ino, now, ops));
        commit.in_background();
        gone
    }

    /// Whether an object belongs to the old name of a directory that was renamed: it is newer.
    pub fn is_newer_than_moves(&self, target: TargetId, remote: &crate::journal::Remote) -> bool {
        self.read(|tree| {
            tree.is_contested(target, remote.key.as_str())
                && tree.claim(target, &remote.key, remote.last_modified).is_none()
        })
    }
}

impl Tree {
    /// Shows what lies at a source, as far as it belongs here and its name is free.
    pub(crate) fn merge_source(&mut self, dir: Ino, at: &mut AtSource, moment: Moment, ops: &mut Vec<Op>) {
        self.name_odd(dir, &mut at.listed, moment.began);
        for (name, meta) in &at.listed.files {
            if self.is_unsettled(dir, &at.source.prefix, meta) {
                self.discover_moved(dir, name, meta, at.known.get(&meta.key), moment);
            }
        }
        for name in &at.listed.dirs {
            let segment = at.listed.segments.get(name).map(String::as_str);
            self.discover_moved_dir((dir, name, segment), &at.source.prefix, moment, ops);
        }
        if let Some(marker) = &at.listed.marker {
            self.take_old_marker(dir, &at.source.prefix, marker, moment, ops);
        }
    }

    /// A free name is taken as it is. If another host has made the name meanwhile, the moved object gets
    /// one that tells so: a move never overwrites (the same object always gets the same name).
    fn discover_moved(
        &mut self,
        dir: Ino,
        name: &str,
        meta: &ObjectMeta,
        known: Option<&AttributeRow>,
        moment: Moment,
    ) -> Option<Ino> {
        if self.child(dir, name).is_none() {
            return self.discover(dir, name, meta, known, moment);
        }
        let other = conflict_name(name, meta.last_modified, &meta.etag);
        if self.child(dir, &other).is_some() {
            return None;
        }
        tracing::warn!(key = %meta.key, name = other, "conflict: another host made the name that this object moves to");
        self.discover(dir, &other, meta, known, moment)
    }

    /// A directory below a source that holds something of this directory's. It has its own source from
    /// now on, whichever way either of them goes.
    fn discover_moved_dir(
        &mut self,
        place: (Ino, &str, Option<&str>),
        prefix: &str,
        moment: Moment,
        ops: &mut Vec<Op>,
    ) -> Option<Ino> {
        let (dir, name, segment) = place;
        let at = self.sources(dir).iter().find(|source| source.prefix == prefix)?.at;
        let source = Source { prefix: format!("{prefix}{}/", segment.unwrap_or(name)), at };
        let child = match self.child(dir, name) {
            None => self.insert_dir(dir, name, segment, moment)?,
            Some(child) if self.get(child).is_some_and(Inode::is_dir) => child,
            // N2: the directory wins.
            Some(file) => {
                if self.holds_pending(file) || self.get(file).is_some_and(|inode| !inode.is_unused()) {
                    tracing::warn!(
                        prefix = source.prefix,
                        "a file stands where this prefix moves to; it stays where it is"
                    );
                    return None;
                }
                self.obsolete(dir, name, moment.now, ops);
                self.insert_dir(dir, name, segment, moment)?
            }
        };
        if self.sources(child).iter().any(|known| known.prefix == source.prefix) {
            return None;
        }
        self.add_source(child, source, ops);
        Some(child)
    }

    /// The marker at a source is the directory's, unless it has one by now.
    fn take_old_marker(
        &mut self,
        dir: Ino,
        prefix: &str,
        meta: &ObjectMeta,
        moment: Moment,
        ops: &mut Vec<Op>,
    ) -> bool {
        if !self.is_unsettled(dir, prefix, meta) {
            return false;
        }
        let Some(inode) = self.get(dir) else { return false };
        let target = inode.row.target;
        if inode.row.remote.is_some() {
            self.owe_removal(target, &remote_of(meta), dir, moment.now, ops);
            return false;
        }
        self.set_remote(dir, Some(remote_of(meta)));
        self.persist(dir, ops);
        true
    }

    /// Gives rows to all of a page that belongs here.
    fn adopt_listed(&mut self, dir: Ino, prefix: &str, listed: Listed, moment: Moment, ops: &mut Vec<Op>) -> Adopted {
        let mut adopted = Adopted::default();
        let Some(target) = self.get(dir).map(|inode| inode.row.target) else { return adopted };
        if let Some(marker) = &listed.marker
            && self.take_old_marker(dir, prefix, marker, moment, ops)
        {
            adopted.work.push(dir);
            adopted.fresh += 1;
        }
        for (name, meta) in &listed.files {
            if self.is_unsettled(dir, prefix, meta) {
                self.discover_moved(dir, name, meta, None, moment);
            }
            let waiting: Vec<Ino> = self.at_remote(target, &meta.key).to_vec();
            for ino in waiting {
                if !self.is_pending(ino) {
                    continue;
                }
                if self.get(ino).is_some_and(|inode| !inode.persisted) {
                    self.persist(ino, ops);
                    adopted.fresh += 1;
                }
                adopted.work.push(ino);
            }
        }
        for name in &listed.dirs {
            let segment = listed.segments.get(name).map(String::as_str);
            if self.discover_moved_dir((dir, name, segment), prefix, moment, ops).is_some() {
                adopted.fresh += 1;
            }
        }
        adopted
    }

    /// One object becomes an inode of the directory that it belongs under, at whatever depth.
    fn settle(&mut self, dir: &Ino, prefix: &str, meta: &ObjectMeta, moment: Moment, ops: &mut Vec<Op>) {
        let Some(rest) = meta.key.as_str().strip_prefix(prefix) else { return };
        let (mut at, mut prefix, mut rest) = (*dir, prefix.to_owned(), rest);
        while let Some((segment, below)) = rest.split_once('/') {
            let Some(name) = self.name_for(at, segment, true) else { return };
            let other = (name != segment).then_some(segment);
            self.discover_moved_dir((at, &name, other), &prefix, moment, ops);
            let Some(child) = self.child(at, &name) else { return };
            (at, prefix, rest) = (child, format!("{prefix}{segment}/"), below);
        }
        if rest.is_empty() && meta.size == 0 {
            self.take_old_marker(at, &prefix, meta, moment, ops);
        } else if let Some(name) = self.name_for(at, rest, false)
            && let Some(ino) = self.discover_moved(at, &name, meta, None, moment)
        {
            self.persist(ino, ops);
        }
    }

    /// Objects newer than the rename make the old name a directory again.
    fn show_old_name(&mut self, target: TargetId, prefix: &str, listed: &Listed, moment: Moment) {
        let newer = listed.marker.iter().chain(listed.files.values()).any(|meta| {
            self.claim(target, &meta.key, meta.last_modified).is_none() && !self.is_gone(target, &meta.key)
        });
        if !newer {
            return;
        }
        let Some((above, name)) = prefix.trim_end_matches('/').rsplit_once('/').map_or_else(
            || Some((String::new(), prefix.trim_end_matches('/'))),
            |(above, name)| Some((format!("{above}/"), name)),
        ) else {
            return;
        };
        // A parent that is not known here shows it when it is listed.
        let Some(parent) = self.wanting_prefix(target, &above) else { return };
        if self.child(parent, name).is_none() {
            self.insert_dir(parent, name, None, moment);
        }
    }

    /// The inode's version is at a key that its directory was renamed away from.
    fn is_carried(&self, ino: Ino) -> bool {
        let Some(inode) = self.get(ino) else { return false };
        let Some(remote) = &inode.row.remote else { return false };
        self.sources(inode.row.parent)
            .iter()
            .any(|source| remote.key.as_str().strip_prefix(&source.prefix).is_some_and(|rest| !rest.contains('/')))
    }

    fn give_way(&mut self, ino: Ino, now: crate::types::TimeNs, ops: &mut Vec<Op>) -> Option<String> {
        let inode = self.get(ino)?;
        let remote = inode.row.remote.clone()?;
        let (dir, name) = (inode.row.parent, inode.row.name.clone());
        if !self.is_carried(ino) || self.child(dir, &name) != Some(ino) {
            return None;
        }
        let other = conflict_name(&name, remote.last_modified, &remote.etag);
        self.rename((dir, &name), (dir, &other), now, ops).ok()?;
        if let Some(state) = self.get_mut(dir).and_then(|inode| inode.dir.as_mut()) {
            // The other host's object is to be seen under the name.
            state.listed = None;
        }
        Some(other)
    }

    fn forget_moved(&mut self, ino: Ino, now: std::time::Duration, ops: &mut Vec<Op>) -> bool {
        let Some(inode) = self.get(ino) else { return true };
        let row = &inode.row;
        let quiet = inode.settled.is_some_and(|settled| now >= settled + super::tree::OWN_OVERRIDES);
        let plain = row.linked
            && row.kind == crate::types::FileKind::File
            && row.content == crate::journal::Content::Absent
            && row.recheck_at.is_none();
        if !plain || !quiet || !inode.is_unused() || self.is_pending(ino) {
            return !plain;
        }
        let (dir, name, target) = (row.parent, row.name.clone(), row.target);
        // Only its row tells it from what another rename has still to move.
        if self.key(ino).is_none_or(|key| self.is_contested(target, key.as_str())) {
            return false;
        }
        self.set_remote(ino, None);
        self.inodes.remove(&ino);
        ops.push(Op::DeleteInode(ino));
        if let Some(state) = self.get_mut(dir).and_then(|inode| inode.dir.as_mut()) {
            state.take(&name, false);
            state.listed = None;
        }
        true
    }
}
