//! What of a directory's names the bucket does not show yet (P1, `fsync = "remote"`). Looks at the tree,
//! changes nothing.

use crate::journal::Content;
use crate::namespace::Tree;
use crate::types::{Ino, TargetId};

use super::queue::Work;

/// What somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Before all other work.
    pub(super) urgent: Vec<Work>,
    /// Among other work, but without delay: there may be very many.
    pub(super) soon: Vec<Work>,
}

impl Left {
    pub(super) fn of(work: Work) -> Left {
        Left { urgent: vec![work], soon: Vec::new() }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Work> {
        self.urgent.iter().chain(&self.soon)
    }
}

/// What of a directory's names the bucket does not show yet.
pub(super) fn directory(tree: &Tree, dir: Ino) -> Left {
    let children = tree.children(dir).into_iter().flat_map(|children| children.values().copied());
    let mut urgent: Vec<Work> = children.chain([dir]).filter(|ino| waits(tree, *ino)).map(Work::Inode).collect();
    let mut soon = Vec::new();
    let (Some(prefix), Some(inode)) = (tree.prefix(dir), tree.get(dir)) else { return Left { urgent, soon } };
    let target = inode.row.target;
    let mut names = Names::new(tree, dir, &prefix);
    for (key, ino) in tree.remotes_below(target, &prefix) {
        match names.part_of(key.as_str()) {
            Part::Entry if waits(tree, ino) => urgent.push(Work::Inode(ino)),
            // The move does not wait for those that fail.
            Part::Gone if waits(tree, ino) => soon.push(Work::Inode(ino)),
            Part::Entry | Part::Gone | Part::Below => {}
        }
    }
    for row in tree.removals_below(target, &prefix) {
        // What a program makes anew is replaced when that is closed.
        let anew = tree.wanting(target, &row.key).is_some_and(|ino| is_open(tree, ino));
        match names.part_of(row.key.as_str()) {
            Part::Entry if !anew => urgent.push(Work::Removal(row.target, row.key.clone())),
            Part::Gone if !anew => soon.push(Work::Removal(row.target, row.key.clone())),
            Part::Entry | Part::Gone | Part::Below => {}
        }
    }
    for (moving, source) in tree.moving().filter(|(moving, _)| is_of(tree, *moving, target)) {
        let arrives = arrives(tree, dir, moving);
        if arrives {
            let carried = tree.remotes_below(target, &source.prefix).map(|(_, ino)| ino);
            soon.extend(carried.filter(|ino| waits(tree, *ino)).map(Work::Inode));
            let owed = tree.removals_below(target, &source.prefix);
            soon.extend(owed.map(|row| Work::Removal(row.target, row.key.clone())));
        }
        let leaves = source.prefix.starts_with(&prefix) && names.part_of(&source.prefix) != Part::Below;
        if arrives || leaves {
            urgent.push(Work::Move(moving));
        }
    }
    for works in [&mut urgent, &mut soon] {
        works.sort();
        works.dedup();
    }
    Left { urgent, soon }
}

fn is_of(tree: &Tree, ino: Ino, target: TargetId) -> bool {
    tree.get(ino).is_some_and(|inode| inode.row.target == target)
}

/// What a key below a directory's prefix is to that directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// One of its names, or the marker of one.
    Entry,
    /// Below a directory that is no name of it any more.
    Gone,
    /// Below one that is.
    Below,
}

/// Tells [`Part`]s; keys that come in order are told quickly.
struct Names<'a> {
    tree: &'a Tree,
    dir: Ino,
    prefix: &'a str,
    /// The last directory that was asked for, and whether it is there.
    last: (String, bool),
}

impl<'a> Names<'a> {
    fn new(tree: &'a Tree, dir: Ino, prefix: &'a str) -> Names<'a> {
        // No directory has an empty name.
        Names { tree, dir, prefix, last: (String::new(), false) }
    }

    fn part_of(&mut self, key: &str) -> Part {
        let Some(rest) = key.strip_prefix(self.prefix).filter(|rest| !rest.is_empty()) else { return Part::Below };
        let Some((name, below)) = rest.split_once('/') else { return Part::Entry };
        if below.is_empty() {
            return Part::Entry;
        }
        if self.last.0 != name {
            self.last = (name.to_owned(), self.tree.has_directory(self.dir, name));
        }
        if self.last.1 { Part::Below } else { Part::Gone }
    }
}

/// It is pending, and no program has to close it first.
pub(super) fn waits(tree: &Tree, ino: Ino) -> bool {
    tree.is_pending(ino) && !is_open(tree, ino)
}

/// Only a program, or somebody who decides on held content, moves it on.
fn is_open(tree: &Tree, ino: Ino) -> bool {
    tree.get(ino).is_some_and(|inode| matches!(inode.row.content, Content::Open | Content::Flushed | Content::Torn))
}

/// A renamed directory that is `dir` itself, or a name in it, still has children elsewhere; `moving` is
/// that one or below it.
fn arrives(tree: &Tree, dir: Ino, moving: Ino) -> bool {
    let mut at = moving;
    while let Some(inode) = tree.get(at).filter(|_| !tree.is_top(at)) {
        if !tree.sources(at).is_empty() && (at == dir || inode.row.parent == dir) {
            return true;
        }
        at = inode.row.parent;
    }
    false
}
