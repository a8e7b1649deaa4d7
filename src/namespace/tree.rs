//! The tree: inodes, names, and the two indexes that the upload rules ask (R3, R7).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::journal::{Content, Counter, InodeRow, Journal, Numbers, Op, PartialRow, Remote, RemovalRow, Snapshot};
use crate::types::{Attrs, FileKind, Ino, Key, TargetId, TimeNs};

use super::error::Result;
use super::inode::{DirState, Inode};
use super::mapping::{Mapping, RESERVED_NAME};

/// Own operations override what the bucket says for this long after they settled (R7): listings of
/// an eventually consistent store lag.
pub(crate) const OWN_OVERRIDES: Duration = Duration::from_secs(60);

/// The tree of a mount. Reached through [`super::Namespace`].
pub struct Tree {
    pub(crate) inodes: HashMap<Ino, Inode>,
    /// In order of key, as the next three, so that what lies below a prefix is one range.
    pub(crate) by_remote: BTreeMap<(TargetId, Key), Vec<Ino>>,
    pub(super) by_copied: BTreeMap<(TargetId, Key), Vec<Ino>>,
    pub(crate) removals: BTreeMap<(TargetId, Key), RemovalRow>,
    /// Keys that we deleted, and when (monotonic): a lagging listing still shows them.
    pub(crate) deleted: BTreeMap<(TargetId, Key), Duration>,
    /// Whose children lie at a prefix, in the order of the renames (R5).
    pub(crate) claims: BTreeMap<(TargetId, String), Vec<(TimeNs, Ino)>>,
    /// Keys that an attempt may have changed whose end is not recorded yet: what stands there is ours.
    pub(crate) attempts: HashMap<u64, (TargetId, Key)>,
    pub(crate) attempted: BTreeMap<(TargetId, Key), Vec<Sending>>,
    pub(crate) mappings: Vec<Arc<Mapping>>,
    /// Top directory of each mapping.
    tops: HashMap<TargetId, Ino>,
    numbers: Numbers,
}

/// An attempt whose end is not recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) attempt: u64,
    pub(crate) ino: Ino,
    /// It did not arrive, but may still (R1): what stands at its key meanwhile is another host's.
    pub(crate) late: bool,
}

/// The entries of an index that lie below a prefix.
pub(crate) fn below_prefix<'a, V>(
    index: &'a BTreeMap<(TargetId, Key), V>,
    target: TargetId,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a Key, &'a V)> {
    index
        .range((target, Key(prefix.to_owned()))..)
        .take_while(move |((of, key), _)| *of == target && key.as_str().starts_with(prefix))
        .map(|((_, key), value)| (key, value))
}

/// The row's target of the synthetic root directory that several mappings hang under.
const NO_TARGET: TargetId = TargetId(0);

impl Tree {
    pub(crate) fn build(
        journal: Journal,
        mappings: Vec<Arc<Mapping>>,
        snapshot: &Snapshot,
        now: TimeNs,
        ops: &mut Vec<Op>,
    ) -> Result<Tree> {
        let mut tree = Tree {
            inodes: HashMap::with_capacity(snapshot.inodes.len() + 16),
            by_remote: BTreeMap::new(),
            by_copied: BTreeMap::new(),
            removals: BTreeMap::new(),
            deleted: BTreeMap::new(),
            claims: BTreeMap::new(),
            attempts: HashMap::new(),
            attempted: BTreeMap::new(),
            mappings,
            tops: HashMap::new(),
            numbers: Numbers::new(journal, Counter::Ino),
        };
        for row in &snapshot.inodes {
            tree.adopt(row.clone());
        }
        for partial in &snapshot.partials {
            if let Some(inode) = tree.inodes.get_mut(&partial.ino) {
                inode.partial = Some(partial.clone());
            }
        }
        for copy in &snapshot.copies {
            tree.adopt_copy(copy);
        }
        for removal in &snapshot.removals {
            tree.removals.insert((removal.target, removal.key.clone()), removal.clone());
        }
        tree.adopt_sources(&snapshot.sources);
        for attempt in &snapshot.attempts {
            tree.note_attempt(attempt);
        }
        tree.plant(now, ops)?;
        tree.link_children();
        Ok(tree)
    }

    fn adopt(&mut self, row: InodeRow) {
        if let Some(remote) = &row.remote {
            self.by_remote.entry((row.target, remote.key.clone())).or_default().push(row.ino);
        }
        let dir = (row.kind == FileKind::Dir).then(DirState::default);
        let inode = Inode { persisted: true, dir, ..Inode::new(row) };
        self.inodes.insert(inode.ino(), inode);
    }

    /// The root, and one top directory a mapping.
    fn plant(&mut self, now: TimeNs, ops: &mut Vec<Op>) -> Result<()> {
        let single = self.mappings.iter().find(|mapping| mapping.is_root()).cloned();
        let root_target = single.as_ref().map_or(NO_TARGET, |mapping| mapping.target);
        let defaults = self.mappings.first().map(|mapping| mapping.defaults);
        let attrs = defaults.map_or(Attrs { mode: 0o755, uid: 0, gid: 0, mtime: now }, |d| d.attrs(FileKind::Dir, now));
        if self.inodes.get(&Ino::ROOT).is_none_or(|root| root.row.target != root_target) {
            self.inodes.insert(Ino::ROOT, Inode::new_dir(Ino::ROOT, root_target, Ino::ROOT, String::new(), attrs, now));
        }
        for mapping in self.mappings.clone() {
            if mapping.is_root() {
                self.tops.insert(mapping.target, Ino::ROOT);
                continue;
            }
            let found = self.inodes.values().find(|inode| {
                inode.row.parent == Ino::ROOT
                    && inode.ino() != Ino::ROOT
                    && inode.row.name == mapping.name
                    && inode.row.target == mapping.target
            });
            let ino = match found {
                Some(inode) => inode.ino(),
                None => {
                    let ino = self.next_ino()?;
                    let attrs = mapping.defaults.attrs(FileKind::Dir, now);
                    let inode = Inode::new_dir(ino, mapping.target, Ino::ROOT, mapping.name.clone(), attrs, now);
                    self.inodes.insert(ino, inode);
                    self.persist(ino, ops);
                    ino
                }
            };
            self.tops.insert(mapping.target, ino);
        }
        Ok(())
    }

    fn link_children(&mut self) {
        let links: Vec<(Ino, String, Ino, bool)> = self
            .inodes
            .values()
            .filter(|inode| inode.row.linked && inode.ino() != Ino::ROOT)
            .map(|inode| (inode.row.parent, inode.row.name.clone(), inode.ino(), inode.is_dir()))
            .collect();
        for (parent, name, ino, is_dir) in links {
            match self.inodes.get_mut(&parent).and_then(|inode| inode.dir.as_mut()) {
                Some(dir) => dir.put(&name, ino, is_dir),
                None => tracing::error!(%ino, %parent, name, "the journal has an inode without its directory"),
            }
        }
    }

    pub(crate) fn next_ino(&mut self) -> Result<Ino> {
        Ok(Ino(self.numbers.next()?))
    }

    /// The mappings.
    pub fn mappings(&self) -> &[Arc<Mapping>] {
        &self.mappings
    }

    /// An inode.
    pub fn get(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino)
    }

    /// An inode, to change what no row holds, or to change its row and then [`Tree::persist`] it.
    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.inodes.get_mut(&ino)
    }

    /// All inodes, in no order.
    pub fn inodes(&self) -> impl Iterator<Item = &Inode> {
        self.inodes.values()
    }

    /// All removals owed.
    pub fn removals(&self) -> impl Iterator<Item = &RemovalRow> {
        self.removals.values()
    }

    /// The removal that is owed for a key.
    pub fn removal(&self, target: TargetId, key: &Key) -> Option<&RemovalRow> {
        self.removals.get(&(target, key.clone()))
    }

    /// The mapping with this number.
    pub fn mapping(&self, target: TargetId) -> Option<&Arc<Mapping>> {
        self.mappings.iter().find(|mapping| mapping.target == target)
    }

    /// The mapping of an inode; none for the synthetic root.
    pub fn mapping_of(&self, ino: Ino) -> Option<&Arc<Mapping>> {
        self.mapping(self.get(ino)?.row.target)
    }

    /// It is the top directory of a mapping (or the synthetic root): it has no key of its own, cannot
    /// be removed or moved.
    pub fn is_top(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || self.tops.values().any(|top| *top == ino)
    }

    /// Path below its mapping's top, without slashes at the ends; `None` if it or an ancestor has
    /// no name.
    pub fn path(&self, ino: Ino) -> Option<String> {
        let mut names = Vec::new();
        let mut at = ino;
        while !self.is_top(at) {
            let inode = self.get(at)?;
            if !inode.row.linked {
                return None;
            }
            names.push(inode.row.name.as_str());
            at = inode.row.parent;
        }
        names.reverse();
        Some(names.join("/"))
    }

    /// What its names are in keys: as [`Tree::path`], with the segments where they are not the names (N2).
    fn key_path(&self, ino: Ino) -> Option<String> {
        let mut segments = Vec::new();
        let mut at = ino;
        while !self.is_top(at) {
            let row = &self.get(at)?.row;
            if !row.linked {
                return None;
            }
            segments.push(row.segment.as_deref().unwrap_or(&row.name));
            at = row.parent;
        }
        segments.reverse();
        Some(segments.join("/"))
    }

    /// Path below the mount's root, beginning with `/`, for people.
    pub fn shown_path(&self, ino: Ino) -> String {
        let Some(path) = self.path(ino) else { return format!("(unlinked inode {ino})") };
        match self.mapping_of(ino) {
            Some(mapping) if !mapping.is_root() => format!("/{}/{path}", mapping.name),
            _ => format!("/{path}"),
        }
    }

    /// The key that an inode wants; directories end with `/`. `None` for tops and what has no name.
    pub fn key(&self, ino: Ino) -> Option<Key> {
        if self.is_top(ino) {
            return None;
        }
        let prefix = &self.mapping_of(ino)?.prefix;
        let slash = if self.get(ino)?.is_dir() { "/" } else { "" };
        Some(Key(format!("{prefix}{}{slash}", self.key_path(ino)?)))
    }

    /// The key of the object that an inode is about: that of its version, which a rename leaves behind
    /// until it is copied, or else the wanted one.
    pub(crate) fn place(&self, ino: Ino) -> Option<Key> {
        let remote = self.get(ino)?.row.remote.as_ref();
        remote.map(|remote| remote.key.clone()).or_else(|| self.key(ino))
    }

    /// The prefix of the keys of a directory's entries: empty or ending with `/`.
    pub fn prefix(&self, dir: Ino) -> Option<String> {
        match self.key(dir) {
            Some(key) => Some(key.0),
            None if self.is_top(dir) => self.mapping_of(dir).map(|mapping| mapping.prefix.clone()),
            None => None,
        }
    }

    /// A name in a directory.
    pub fn child(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.get(parent)?.dir.as_ref()?.children().get(name).copied()
    }

    /// The entries of a directory that are known here.
    pub fn children(&self, dir: Ino) -> Option<&BTreeMap<String, Ino>> {
        Some(self.get(dir)?.dir.as_ref()?.children())
    }

    /// Inodes whose remote version lives at this key.
    pub fn at_remote(&self, target: TargetId, key: &Key) -> &[Ino] {
        self.by_remote.get(&(target, key.clone())).map_or(&[], Vec::as_slice)
    }

    /// Inodes whose remote version lies below this prefix, by key.
    pub fn remotes_below<'a>(&'a self, target: TargetId, prefix: &'a str) -> impl Iterator<Item = (&'a Key, Ino)> + 'a {
        below_prefix(&self.by_remote, target, prefix).flat_map(|(key, inos)| inos.iter().map(move |ino| (key, *ino)))
    }

    /// Removals owed of keys below this prefix.
    pub fn removals_below<'a>(&'a self, target: TargetId, prefix: &'a str) -> impl Iterator<Item = &'a RemovalRow> {
        below_prefix(&self.removals, target, prefix).map(|(_, row)| row)
    }

    /// The inode that wants this key, if it has a name here.
    pub fn wanting(&self, target: TargetId, key: &Key) -> Option<Ino> {
        let mapping = self.mapping(target)?;
        let path = key.as_str().strip_prefix(&mapping.prefix)?;
        let mut at = *self.tops.get(&target)?;
        let (path, is_dir) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            at = self.child_at(at, segment, is_dir || segments.peek().is_some())?;
        }
        Some(at)
    }

    /// The directory whose entries have this prefix, if it is known here.
    pub(crate) fn wanting_prefix(&self, target: TargetId, prefix: &str) -> Option<Ino> {
        if self.mapping(target)?.prefix == prefix {
            return self.tops.get(&target).copied();
        }
        self.wanting(target, &Key(prefix.to_owned()))
    }

    /// Whether an inode waits for the bucket.
    pub fn is_pending(&self, ino: Ino) -> bool {
        let Some(inode) = self.get(ino) else { return false };
        match self.key(ino) {
            Some(key) => inode.is_pending(key.as_str()),
            None => false,
        }
    }

    /// A name that no program may see or make: it holds versions on the move.
    pub fn is_reserved(&self, parent: Ino, name: &str) -> bool {
        name == RESERVED_NAME && self.is_top(parent)
    }

    /// Takes over a remote version (or none), keeping the index right.
    pub fn set_remote(&mut self, ino: Ino, remote: Option<Remote>) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let target = inode.row.target;
        if let Some(old) = inode.row.remote.take() {
            let slot = (target, old.key);
            if let Some(inos) = self.by_remote.get_mut(&slot) {
                inos.retain(|other| *other != ino);
                if inos.is_empty() {
                    self.by_remote.remove(&slot);
                }
            }
        }
        if let Some(new) = &remote {
            self.by_remote.entry((target, new.key.clone())).or_default().push(ino);
        }
        inode.row.remote = remote;
    }

    /// Takes over what a dirty file lacks (C7), and queues it; `None`: nothing.
    pub fn set_partial(&mut self, ino: Ino, partial: Option<PartialRow>, ops: &mut Vec<Op>) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        if inode.partial == partial {
            return;
        }
        ops.push(partial.clone().map_or(Op::DeletePartial(ino), Op::PutPartial));
        inode.partial = partial;
    }

    /// Queues the row of an inode, and those of ancestors that have none yet.
    pub fn persist(&mut self, ino: Ino, ops: &mut Vec<Op>) {
        let mut missing = Vec::new();
        let mut at = ino;
        while let Some(inode) = self.inodes.get_mut(&at) {
            if at != ino && inode.persisted {
                break;
            }
            inode.persisted = true;
            missing.push(Op::PutInode(Box::new(inode.row.clone())));
            if at == Ino::ROOT {
                break;
            }
            at = inode.row.parent;
        }
        ops.extend(missing.into_iter().rev());
    }

    /// Forgets an inode that has no name and no user, and its row. Its backing file, if any, is
    /// returned: it may be unlinked once the queued rows are on disk (J2).
    pub fn reap(&mut self, ino: Ino, ops: &mut Vec<Op>) -> Option<crate::types::BackingNo> {
        let inode = self.inodes.get(&ino)?;
        if inode.row.linked || !inode.is_unused() || inode.row.content == Content::Torn {
            return None;
        }
        let backing = inode.row.backing;
        let persisted = inode.persisted;
        self.set_remote(ino, None);
        self.set_copied(ino, None, ops);
        self.drop_sources(ino, ops);
        self.inodes.remove(&ino);
        if persisted {
            ops.push(Op::DeleteInode(ino));
        }
        backing
    }
}

impl Inode {
    /// An inode that nobody uses yet and that has no row yet.
    pub fn new(row: InodeRow) -> Inode {
        let dir = (row.kind == FileKind::Dir).then(DirState::default);
        Inode {
            row,
            persisted: false,
            partial: None,
            copied: None,
            dir,
            lookups: 0,
            handles: 0,
            writers: 0,
            settled: None,
            checked: None,
            attempting: false,
            displaced: false,
            offered: None,
            unverified: false,
            atime: None,
            dirty_since: None,
        }
    }

    fn new_dir(ino: Ino, target: TargetId, parent: Ino, name: String, attrs: Attrs, now: TimeNs) -> Inode {
        Inode::new(Inode::blank(ino, target, FileKind::Dir, (parent, name), attrs, now))
    }

    /// The row of a new, linked inode without content or remote version.
    pub fn blank(
        ino: Ino,
        target: TargetId,
        kind: FileKind,
        place: (Ino, String),
        attrs: Attrs,
        now: TimeNs,
    ) -> InodeRow {
        InodeRow {
            ino,
            target,
            kind,
            parent: place.0,
            name: place.1,
            linked: true,
            attrs,
            attrs_known: true,
            ctime: now,
            attr_generation: 1,
            remote_attr_generation: 0,
            size: 0,
            symlink: None,
            content: Content::Absent,
            generation: 1,
            remote_generation: 0,
            backing: None,
            mark: None,
            told: false,
            hold: None,
            remote: None,
            recheck_at: None,
            marker_wanted: false,
            xattrs: None,
            segment: None,
        }
    }
}
