//! Asking the bucket: listings of directories, probes of names, attributes of objects.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt};

use crate::journal::{AttributeRow, Durability};
use crate::store::{ErrorKind, HeadOptions, ListOptions, ObjectMeta};
use crate::task::interruptible;
use crate::types::{Ino, Key};

use super::error::{Error, Result};
use super::escape::{ESCAPE, is_plain};
use super::mapping::{Mapping, RESERVED_NAME};
use super::merge::{Listed, Moment, Replaced};
use super::{Namespace, Tree};

/// HEADs of one directory at a time.
pub(super) const HEADS: usize = 16;
/// Keys that a probe of a name looks at, at most: the longest page of a listing.
const PROBE_KEYS: u32 = 1000;
/// Pages that such a look takes where a renamed directory has left children to be moved: what is
/// newer behind all of these is found by the move.
const CONTESTED_PAGES: usize = 3;

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This inode.
    Found(Ino),
    /// Nothing.
    Absent,
}

enum Need {
    Answer(Lookup),
    List,
    Probe,
}

impl Namespace {
    /// What `name` in `parent` means, asking the bucket if what is known is older than `attr_ttl`.
    ///
    /// # Errors
    /// Not a directory; the store failed or is offline and the answer is not known here.
    pub async fn lookup(&self, parent: Ino, name: &str) -> Result<Lookup> {
        let need = self.need(parent, name)?;
        if let Need::Answer(answer) = need {
            return Ok(answer);
        }
        if self.online(parent)? {
            match interruptible(self.ask(parent, name, need)).await? {
                // The network has just gone: what was known goes on being believed (P7).
                Err(Error::Store(error)) if error.is_offline() => {}
                other => other?,
            }
        }
        self.read(|tree| match tree.child(parent, name) {
            Some(ino) => Ok(Lookup::Found(ino)),
            // Of a directory that was never listed nothing can be said: "not there" could make a
            // program put something new in the place of what is there.
            None if tree.mapping_of(parent).is_some_and(|mapping| mapping.is_offline())
                && tree.get(parent).and_then(|dir| dir.dir.as_ref()).is_none_or(|dir| dir.listed.is_none()) =>
            {
                Err(Error::Offline(self.mapping_name(tree, parent)))
            }
            None => Ok(Lookup::Absent),
        })
    }

    async fn ask(&self, parent: Ino, name: &str, need: Need) -> Result<()> {
        let whole = match need {
            Need::Answer(_) => true,
            Need::List => self.list_dir(parent, true).await?,
            Need::Probe => false,
        };
        if whole {
            return Ok(());
        }
        if name.starts_with(ESCAPE) {
            // Which key it means depends on the others.
            return self.list_dir(parent, false).await.map(drop);
        }
        self.probe(parent, name).await
    }

    fn mapping_name(&self, tree: &Tree, ino: Ino) -> String {
        tree.mapping_of(ino).map_or_else(String::new, |mapping| mapping.store.name().to_owned())
    }

    fn online(&self, ino: Ino) -> Result<bool> {
        self.read(|tree| Ok(tree.mapping_of(ino).is_some_and(|mapping| !mapping.is_offline())))
    }

    fn need(&self, parent: Ino, name: &str) -> Result<Need> {
        let now = self.clock().monotonic();
        let ttl = self.attr_ttl();
        let exclusive = self.read(|tree| tree.mapping_of(parent).is_some_and(|mapping| mapping.exclusive));
        let fresh = |at: Option<Duration>| at.is_some_and(|at| exclusive || now < at + ttl);
        self.read(|tree| {
            let dir = tree.get(parent).ok_or(Error::NotFound)?;
            let state = dir.dir.as_ref().ok_or(Error::NotDirectory)?;
            let child = state.children().get(name).copied();
            if let Some(inode) = child.and_then(|ino| tree.get(ino)) {
                if fresh(inode.checked) || tree.is_top(inode.ino()) || inode.attempting {
                    return Ok(Need::Answer(Lookup::Found(inode.ino())));
                }
                if tree.is_pending(inode.ino()) {
                    return Ok(Need::Answer(Lookup::Found(inode.ino())));
                }
            }
            if tree.mapping_of(parent).is_none() || !dir.row.linked {
                // The synthetic root knows its entries; an unlinked directory has none.
                return Ok(Need::Answer(child.map_or(Lookup::Absent, Lookup::Found)));
            }
            if fresh(state.listed) {
                return Ok(Need::Answer(child.map_or(Lookup::Absent, Lookup::Found)));
            }
            Ok(if state.large { Need::Probe } else { Need::List })
        })
    }

    /// The directory's entries are at most `attr_ttl` old when this returns.
    ///
    /// # Errors
    /// The store failed, or is offline and the directory was never listed.
    pub async fn refresh(&self, dir: Ino) -> Result<()> {
        let now = self.clock().monotonic();
        let (fresh, listed, online) = self.read(|tree| {
            let inode = tree.get(dir).ok_or(Error::NotFound)?;
            let state = inode.dir.as_ref().ok_or(Error::NotDirectory)?;
            let online = match tree.mapping_of(dir) {
                None => return Ok((true, true, true)),
                Some(mapping) => !mapping.is_offline(),
            };
            let exclusive = tree.mapping_of(dir).is_some_and(|mapping| mapping.exclusive);
            let known = |at| exclusive || now < at + self.attr_ttl();
            let fresh = !inode.row.linked || state.listed.is_some_and(known);
            Ok::<_, Error>((fresh, state.listed.is_some(), online))
        })?;
        if fresh || (listed && !online) {
            return Ok(());
        }
        if !online {
            return Err(Error::Offline(self.read(|tree| self.mapping_name(tree, dir))));
        }
        match interruptible(self.list_dir(dir, false)).await? {
            // Old entries beat no entries when the network has just gone.
            Err(Error::Store(error)) if error.is_offline() && listed => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Forgets how fresh a directory's entries are: the next look asks the bucket.
    pub fn expire(&self, dir: Ino) {
        self.touch(|tree| {
            if let Some(state) = tree.get_mut(dir).and_then(|inode| inode.dir.as_mut()) {
                state.listed = None;
            }
        });
    }

    /// Lists a directory. With `first_page_only`, gives up and answers `false` when there is more
    /// than one page.
    pub(super) async fn list_dir(&self, dir: Ino, first_page_only: bool) -> Result<bool> {
        let gate = {
            let mut gates = self.inner.listing.lock().unwrap_or_else(PoisonError::into_inner);
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            gates.entry(dir).or_default().clone()
        };
        let asked = self.clock().monotonic();
        let _one_at_a_time = gate.lock().await;
        loop {
            if let Some(whole) = self.list_once(dir, first_page_only, asked).await? {
                return Ok(whole);
            }
        }
    }

    /// As [`Namespace::list_dir`], which keeps others away. `None`: the directory was renamed meanwhile.
    async fn list_once(&self, dir: Ino, first_page_only: bool, asked: Duration) -> Result<Option<bool>> {
        let (mapping, prefix, since) = self.read(|tree| {
            let mapping = tree.mapping_of(dir).cloned().ok_or(Error::NotFound)?;
            let prefix = tree.prefix(dir).ok_or(Error::NotFound)?;
            let since = tree.get(dir).and_then(|inode| inode.dir.as_ref()).and_then(|state| state.listed);
            Ok::<_, Error>((mapping, prefix, since))
        })?;
        if since.is_some_and(|at| at >= asked) {
            return Ok(Some(true));
        }
        let moment = Moment { began: self.clock().monotonic(), now: self.clock().now() };
        let mut listed = Listed::default();
        let mut marker = None;
        loop {
            let options =
                ListOptions { prefix: prefix.clone(), delimiter: Some('/'), marker: marker.take(), max_keys: 0 };
            let page = mapping.store.list(options).await;
            mapping.observe(&page);
            let page = page?;
            collect(&mut listed, &prefix, page.objects, page.prefixes);
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
            self.touch(|tree| {
                if let Some(state) = tree.get_mut(dir).and_then(|inode| inode.dir.as_mut()) {
                    state.large = true;
                }
            });
            if first_page_only {
                return Ok(Some(false));
            }
        }
        let known = self.known_attributes(&mapping, &prefix).await?;
        let mut sources = self.list_sources(dir, &mapping).await?;
        let (merged, commit) = self.update(Durability::Buffered, |tree, ops| {
            // What was listed at its old name belongs to it by way of a source that nobody has asked:
            // merged as it is, the directory would pass for empty.
            let renamed = tree.prefix(dir).is_some_and(|own| own != prefix);
            let listed_all = |tree: &Tree| {
                tree.sources(dir).iter().all(|own| sources.iter().any(|at| at.source.prefix == own.prefix))
            };
            if renamed || !listed_all(tree) {
                return None;
            }
            let merged = tree.merge_dir(dir, &mut listed, &known, moment, ops);
            for at in &mut sources {
                tree.merge_source(dir, at, moment, ops);
            }
            Some(merged)
        });
        commit.in_background();
        let Some((replaced, doubts)) = merged else { return Ok(None) };
        self.announce(replaced);
        let mut doubtful = Doubtful { namespace: self, dir, settled: false };
        stream::iter(doubts.missing).for_each_concurrent(HEADS, |ino| self.confirm(ino)).await;
        stream::iter(doubts.risen)
            // Of a name that is not its key's only a listing tells, and the next one will.
            .filter(|name| std::future::ready(!name.starts_with(ESCAPE)))
            .for_each_concurrent(HEADS, |name| async move {
                if let Err(error) = self.probe(dir, &name).await {
                    tracing::debug!(%error, name, "a name deleted lately could not be checked");
                }
            })
            .await;
        doubtful.settled = true;
        Ok(Some(true))
    }

    pub(super) async fn known_attributes(&self, mapping: &Mapping, prefix: &str) -> Result<HashMap<Key, AttributeRow>> {
        let journal = self.journal().clone();
        let (target, prefix) = (mapping.target, prefix.to_owned());
        let rows = tokio::task::spawn_blocking(move || journal.attributes_under(target, &prefix))
            .await
            .map_err(|_| crate::journal::Error::Closed)??;
        Ok(rows.into_iter().map(|row| (row.key.clone(), row)).collect())
    }

    /// The kernel forgets these names.
    pub(crate) fn announce(&self, replaced: impl IntoIterator<Item = Replaced>) {
        for one in replaced {
            // Nobody listens during shutdown only.
            let _gone = self.inner.replaced.send(one);
        }
    }

    /// R7: an own object that a listing does not show is dropped only if a HEAD agrees.
    pub(super) async fn confirm(&self, ino: Ino) {
        let found = self.read(|tree| Some((tree.mapping_of(ino)?.clone(), tree.place(ino)?)));
        let Some((mapping, key)) = found else { return };
        let began = self.clock().monotonic();
        // What was stored or copied meanwhile is not what the HEAD told of: the next look sees to it.
        let outdated = |tree: &Tree| {
            let settled = tree.get(ino).and_then(|inode| inode.settled);
            settled.is_some_and(|settled| settled >= began) || tree.place(ino).as_ref() != Some(&key)
        };
        match mapping.store.head(&key, HeadOptions::default()).await {
            Ok(meta) => {
                self.take_version(ino, &meta, began, outdated);
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                if let Err(error) = self.confirm_children(ino, &mapping, &key).await {
                    tracing::debug!(%error, %key, "what is known below a directory without marker could not be checked");
                }
                let now = self.clock().now();
                let (replaced, commit) = self.update(Durability::Buffered, |tree, ops| {
                    let Some(inode) = tree.get(ino) else { return Vec::new() };
                    let (dir, name) = (inode.row.parent, inode.row.name.clone());
                    let implicit = inode.is_dir() && !tree.is_empty(ino);
                    if outdated(tree) || tree.holds_pending(ino) || implicit || tree.child(dir, &name) != Some(ino) {
                        return Vec::new();
                    }
                    tree.obsolete(dir, &name, now, ops)
                });
                commit.in_background();
                self.announce(replaced);
            }
            Err(error) => tracing::debug!(%error, %key, "an own object that a listing lacks could not be checked"),
        }
    }

    /// A directory whose marker is gone lives on in its children. If the bucket shows nothing below it either
    /// (another host renamed or removed it), those are confirmed one by one, so that it goes with them.
    async fn confirm_children(&self, dir: Ino, mapping: &Mapping, key: &Key) -> Result<()> {
        let lives = self.read(|tree| {
            tree.get(dir).is_some_and(super::Inode::is_dir) && !tree.is_empty(dir) && !tree.holds_pending(dir)
        });
        if lives && !self.is_prefix(mapping, key.to_string()).await? {
            // Its own directories lead here again, as deep as they are known.
            Box::pin(self.list_dir(dir, false)).await?;
        }
        Ok(())
    }

    /// Takes over what a HEAD begun at `began` says of an inode's key: nothing if it is the version that
    /// is known, or the answer is outdated.
    fn take_version(&self, ino: Ino, meta: &ObjectMeta, began: Duration, outdated: impl Fn(&Tree) -> bool) {
        let moment = Moment { began, now: self.clock().now() };
        let (replaced, commit) = self.update(Durability::Buffered, |tree, ops| {
            if outdated(tree) {
                return Vec::new();
            }
            let Some(inode) = tree.get(ino) else { return Vec::new() };
            if inode.row.remote.as_ref().is_some_and(|remote| remote.etag == meta.etag) {
                tree.seen_again(ino, meta, moment);
                return Vec::new();
            }
            let (dir, name) = (inode.row.parent, inode.row.name.clone());
            if tree.holds_pending(ino) || !tree.get(ino).is_some_and(|inode| inode.row.linked) {
                return Vec::new();
            }
            let replaced = tree.obsolete(dir, &name, moment.now, ops);
            tree.discover(dir, &name, meta, None, moment);
            replaced
        });
        commit.in_background();
        self.announce(replaced);
    }

    /// Whether anything lies below a prefix that is not on its way out.
    async fn is_prefix(&self, mapping: &Mapping, prefix: String) -> Result<bool> {
        // As many as must be seen to find one that stays.
        let contested = self.read(|tree| tree.is_contested(mapping.target, &prefix));
        let leaving = if contested { 0 } else { self.read(|tree| tree.leaving_below(mapping.target, &prefix)) };
        let enough = u32::try_from(leaving + 1).unwrap_or(PROBE_KEYS).min(PROBE_KEYS);
        let (max_keys, pages) = if contested { (PROBE_KEYS, CONTESTED_PAGES) } else { (enough, usize::MAX) };
        let mut marker = None;
        for _ in 0..pages {
            let options = ListOptions { prefix: prefix.clone(), max_keys, marker, ..ListOptions::default() };
            let page = mapping.store.list(options).await;
            mapping.observe(&page);
            let page = page?;
            let stays = |tree: &Tree, meta: &ObjectMeta| {
                !tree.is_gone(mapping.target, &meta.key) && !tree.is_elsewhere(mapping.target, meta)
            };
            if self.read(|tree| page.objects.iter().any(|meta| stays(tree, meta))) {
                return Ok(true);
            }
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
        }
        Ok(false)
    }

    /// Asks the bucket for one name: as a directory (anything below it) and as an object.
    pub(super) async fn probe(&self, parent: Ino, name: &str) -> Result<()> {
        let (mapping, prefix) = self.read(|tree| {
            let mapping = tree.mapping_of(parent).cloned().ok_or(Error::NotFound)?;
            Ok::<_, Error>((mapping, tree.prefix(parent).ok_or(Error::NotFound)?))
        })?;
        let moment = Moment { began: self.clock().monotonic(), now: self.clock().now() };
        let key = Key(format!("{prefix}{name}"));
        let (object, is_dir) = futures::join!(
            mapping.store.head(&key, HeadOptions::default()),
            self.is_prefix(&mapping, format!("{key}/"))
        );
        let is_dir = is_dir?;
        let object = match object {
            Ok(meta) => Some(meta).filter(|meta| !self.read(|tree| tree.is_elsewhere(mapping.target, meta))),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let (replaced, commit) = self.update(Durability::Buffered, |tree, ops| {
            let known = tree.child(parent, name);
            if let Some(ino) = known {
                // A HEAD does not lag as listings do (R7).
                let inode = tree.get(ino);
                let own = inode.is_some_and(|inode| match inode.is_dir() {
                    true => tree.overrides(ino, moment.began),
                    false => inode.settled.is_some_and(|settled| settled >= moment.began),
                });
                if tree.holds_pending(ino) || own {
                    return Vec::new();
                }
                let same = tree.get(ino).is_some_and(|inode| {
                    if inode.is_dir() {
                        return is_dir;
                    }
                    let etag = inode.row.remote.as_ref().map(|remote| &remote.etag);
                    !is_dir && etag.is_some() && etag == object.as_ref().map(|meta| &meta.etag)
                });
                if same {
                    match &object {
                        Some(meta) if !is_dir => tree.seen_again(ino, meta, moment),
                        _ => {
                            if let Some(inode) = tree.get_mut(ino) {
                                inode.checked = Some(moment.began);
                            }
                        }
                    }
                    return Vec::new();
                }
            }
            let target = mapping.target;
            let replaced = tree.obsolete(parent, name, moment.now, ops);
            if is_dir {
                tree.insert_dir(parent, name, None, moment);
            } else if let Some(meta) = &object
                && !tree.is_leaving(target, &meta.key)
            {
                tree.discover(parent, name, meta, None, moment);
            }
            replaced
        });
        commit.in_background();
        self.announce(replaced);
        self.probe_sources(parent, name, &mapping, moment).await
    }
}

/// A listing was taken over, but not yet looked at closely. If whoever waits for it goes meanwhile, it counts
/// for nobody: the next look lists again.
struct Doubtful<'a> {
    namespace: &'a Namespace,
    dir: Ino,
    settled: bool,
}

impl Drop for Doubtful<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.namespace.expire(self.dir);
        }
    }
}

/// Sorts a page into segments.
pub(super) fn collect(listed: &mut Listed, prefix: &str, objects: Vec<ObjectMeta>, prefixes: Vec<String>) {
    for meta in objects {
        match meta.key.as_str().strip_prefix(prefix) {
            // A marker is empty: what has content is a file without a name.
            Some("") if meta.size == 0 => listed.marker = Some(meta),
            Some(segment) if is_plain(segment) => {
                listed.files.insert(segment.to_owned(), meta);
            }
            Some(segment) => {
                listed.odd_files.insert(segment.to_owned(), meta);
            }
            // Not what was asked for.
            None => {}
        }
    }
    for common in prefixes {
        match common.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('/')) {
            Some(RESERVED_NAME) | None => {}
            Some(segment) if is_plain(segment) => {
                listed.dirs.insert(segment.to_owned());
            }
            Some(segment) => {
                listed.odd_dirs.insert(segment.to_owned());
            }
        }
    }
}
