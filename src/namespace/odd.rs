//! Keys that have no path of their own: finding names for them, and telling of them (N2).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::store::ListOptions;
use crate::types::{Ino, TargetId};

use super::Namespace;
use super::error::{Error, Result};
use super::escape::{free_name, is_plain, reasons};
use super::inode::Inode;
use super::merge::Listed;
use super::tree::Tree;

/// A key that is shown under a name that is not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddKey {
    /// The whole key.
    pub key: String,
    /// Path below the mount's root, if one can be had now.
    pub path: Option<String>,
    /// Why its own name will not do.
    pub reason: String,
}

/// What a walk through a mapping found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OddKeys {
    /// Objects that were looked at.
    pub objects: u64,
    /// How many of them have no path of their own.
    pub count: u64,
    /// The first of those.
    pub keys: Vec<OddKey>,
}

impl Tree {
    /// A directory with this segment in its key is known in another one.
    pub fn has_directory(&self, dir: Ino, segment: &str) -> bool {
        self.child_at(dir, segment, true).is_some()
    }

    /// The child of a directory that has this segment in its key.
    pub(crate) fn child_at(&self, dir: Ino, segment: &str, is_dir: bool) -> Option<Ino> {
        let is = |ino: &Ino, odd: bool| {
            self.get(*ino).is_some_and(|inode| {
                inode.is_dir() == is_dir && inode.row.segment.as_deref().map_or(!odd, |of| odd && of == segment)
            })
        };
        let plain = self.child(dir, segment).filter(|ino| is(ino, false));
        plain.or_else(|| {
            use super::escape::ESCAPE;
            let from = self.children(dir)?.range(ESCAPE.to_owned()..);
            let mut odd = from.take_while(|(name, _)| name.starts_with(ESCAPE)).map(|(_, ino)| *ino);
            odd.find(|ino| is(ino, true))
        })
    }

    /// A file of this directory has the key that the directory's marker would have.
    pub fn has_nameless_file(&self, dir: Ino) -> bool {
        self.child_at(dir, "", false).is_some()
    }

    /// The name that a segment has here, or can have.
    pub(crate) fn name_for(&self, dir: Ino, segment: &str, is_dir: bool) -> Option<String> {
        if let Some(there) = self.child_at(dir, segment, is_dir) {
            return Some(self.get(there)?.row.name.clone());
        }
        let blocked = !is_dir && self.child_at(dir, segment, true).is_some();
        if is_plain(segment) && !blocked {
            return Some(segment.to_owned());
        }
        free_name(segment, |name| self.child(dir, name).is_some())
    }

    /// Finds names for what a listing shows that has none of its own; afterwards `files` and `dirs` hold
    /// everything, and no name twice.
    pub(crate) fn name_odd(&self, dir: Ino, listed: &mut Listed, began: Duration) {
        let mut both = Vec::new();
        for name in listed.files.keys().filter(|name| listed.dirs.contains(*name)).cloned().collect::<Vec<_>>() {
            let there = self.child(dir, &name).and_then(|ino| self.get(ino));
            match there {
                Some(child) if child.is_dir() => both.push(name),
                // Ours: what lies below its name is on its way out, or waits until ours is settled.
                Some(child) if self.holds_pending(child.ino()) || self.overrides(child.ino(), began) => {}
                // It is not certain that the directory stays; a look below it will tell.
                _ if self.is_doubtful(dir, &name) => {
                    listed.files.remove(&name);
                }
                _ => both.push(name),
            }
        }
        // An odd file that still waits for its upload keeps its name, though its own would be free by now.
        let waiting = self.children(dir).into_iter().flatten().filter_map(|(_, ino)| {
            let inode = self.get(*ino)?;
            let segment = inode.row.segment.as_ref()?;
            (!inode.is_dir() && self.holds_pending(*ino)).then(|| segment.clone())
        });
        let moved: BTreeSet<String> = waiting.chain(both).collect();
        for segment in moved {
            if let Some(meta) = listed.files.remove(&segment) {
                listed.odd_files.insert(segment, meta);
            }
        }
        for segment in std::mem::take(&mut listed.odd_dirs) {
            let Some(name) = self.odd_name(dir, &segment, true, listed) else { continue };
            listed.segments.insert(name.clone(), segment);
            listed.dirs.insert(name);
        }
        for (segment, meta) in std::mem::take(&mut listed.odd_files) {
            let Some(name) = self.odd_name(dir, &segment, false, listed) else { continue };
            listed.files.insert(name, meta);
        }
    }

    fn odd_name(&self, dir: Ino, segment: &str, is_dir: bool, listed: &Listed) -> Option<String> {
        let there = self.child_at(dir, segment, is_dir).and_then(|ino| self.get(ino));
        let kept = there.filter(|inode| inode.row.segment.is_some()).map(|inode| inode.row.name.clone());
        let listed_as = |name: &str| listed.files.contains_key(name) || listed.dirs.contains(name);
        if let Some(kept) = kept.filter(|name| !listed_as(name)) {
            return Some(kept);
        }
        let name = free_name(segment, |name| listed_as(name) || self.child(dir, name).is_some());
        if name.is_none() {
            tracing::error!(%dir, segment, "no name is left for a key");
        }
        name
    }
}

impl Namespace {
    /// Walks through all of a mapping's keys and tells which have no path of their own, the first `most` of
    /// them by key and path. Asks the store for every thousand objects.
    ///
    /// # Errors
    /// The store failed or is offline.
    pub async fn odd_keys(&self, target: TargetId, most: usize) -> Result<OddKeys> {
        let mapping = self.read(|tree| tree.mapping(target).cloned()).ok_or(Error::NotFound)?;
        if mapping.is_offline() {
            return Err(Error::Offline(mapping.store.name().to_owned()));
        }
        let mut found = OddKeys::default();
        // Objects that the listing is still below: each begins with the one before.
        let mut above: Vec<(String, bool)> = Vec::new();
        let mut marker = None;
        loop {
            let options = ListOptions { prefix: mapping.prefix.clone(), marker, ..ListOptions::default() };
            let page = mapping.store.list(options).await;
            mapping.observe(&page);
            let page = page?;
            for meta in page.objects {
                if mapping.is_reserved(&meta.key) {
                    continue;
                }
                let key = meta.key.0;
                let Some(path) = key.strip_prefix(&mapping.prefix) else { continue };
                found.objects += 1;
                above.retain(|(before, _)| key.starts_with(before.as_str()));
                for (before, told) in &mut above {
                    if !*told && key.as_bytes().get(before.len()) == Some(&b'/') {
                        *told = true;
                        let reason = "an object and a directory have this name".to_owned();
                        tell(&mut found, most, before.clone(), reason);
                    }
                }
                let why: Vec<&str> = reasons(path, meta.size).into_iter().collect();
                if !why.is_empty() {
                    tell(&mut found, most, key.clone(), why.join(", "));
                }
                let told = !why.is_empty();
                if !key.ends_with('/') {
                    above.push((key, told));
                }
            }
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
        }
        for odd in &mut found.keys {
            odd.path = self.path_of(target, &odd.key).await?;
        }
        Ok(found)
    }

    /// The path of a key, found by listing the directories that lead to it.
    async fn path_of(&self, target: TargetId, key: &str) -> Result<Option<String>> {
        let top = self.read(|tree| {
            let mapping = tree.mapping(target)?;
            Some((tree.top_of(target)?, key.strip_prefix(&mapping.prefix)?.to_owned()))
        });
        let Some((mut at, path)) = top else { return Ok(None) };
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            self.refresh(at).await?;
            let marker = segments.peek().is_none() && segment.is_empty();
            if marker && self.read(|tree| !tree.has_nameless_file(at)) {
                // The directory itself.
                break;
            }
            match self.read(|tree| tree.child_at(at, segment, segments.peek().is_some())) {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(self.read(|tree| tree.get(at).map(Inode::ino).map(|ino| tree.shown_path(ino))))
    }
}

fn tell(found: &mut OddKeys, most: usize, key: String, reason: String) {
    found.count += 1;
    if found.keys.len() < most {
        found.keys.push(OddKey { key, path: None, reason });
    }
}
