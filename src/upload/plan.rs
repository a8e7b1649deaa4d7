//! What step brings an inode's remote version to what is wanted. Looks at the tree, changes nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::journal::{Content, Mark, Remote};
use crate::namespace::{Inode, Mapping, Tree};
use crate::types::{Attrs, BackingNo, ETag, FileKind, Ino, Key, TimeNs};

/// What must stand at a key right before it is changed (R4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nothing.
    Absent,
    /// This version.
    Version(ETag),
}

/// What a step is about.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) ino: Ino,
    pub(super) mapping: Arc<Mapping>,
    pub(super) kind: FileKind,
    /// The key that is to be changed.
    pub(super) key: Key,
    pub(super) expected: Expected,
    pub(super) attrs: Attrs,
    /// Extended attributes, as their header carries them.
    pub(super) xattrs: Option<String>,
    pub(super) attr_generation: u64,
    pub(super) generation: u64,
    /// For people.
    pub(super) path: String,
}

/// Content that can be sent.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Known whole: a marker, the target of a link, the nothing of a special file.
    Bytes(String),
    /// A backing file, and what it looks like while it holds what is to be sent.
    File { backing: BackingNo, mark: Mark, source: Source },
}

/// What a backing file is, and so what must hold when its content has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The inode's, closed: the mark is final, and the lease says so (C4).
    Closed,
    /// The inode's, open for writing: the mark must not have moved.
    Open,
    /// A private copy of an open file.
    Copy,
}

/// The next step for an inode.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Remote is as wanted, or nothing may be done until a program acts.
    Nothing,
    /// Look again at this time.
    At(TimeNs),
    /// Something else under way must end first.
    Blocked,
    /// These inodes must be settled first.
    Behind(Vec<Ino>),
    /// Send content to the wanted key.
    Send(Job, Body),
    /// Copy the remote version to the wanted key, with the wanted attributes.
    Copy(Job, Remote),
    /// Move the remote version of an inode out of the way, to a reserved key (R3).
    Displace(Job, Remote),
    /// R1: look at the remote version again.
    Recheck(Job, Remote),
}

impl Step {
    /// What the step is about, if it asks the store.
    pub(super) fn job(&self) -> Option<&Job> {
        match self {
            Step::Send(job, _) | Step::Copy(job, _) | Step::Displace(job, _) | Step::Recheck(job, _) => Some(job),
            Step::Nothing | Step::At(_) | Step::Blocked | Step::Behind(_) => None,
        }
    }
}

/// Plans for one inode. `now` is wall time; `mount_uuid` sets our reserved keys apart from those of
/// other hosts.
pub(super) fn plan(tree: &Tree, ino: Ino, now: TimeNs, mount_uuid: &str) -> Step {
    let Some(inode) = tree.get(ino) else { return Step::Nothing };
    if !inode.row.linked {
        return Step::Nothing;
    }
    if inode.attempting {
        return Step::Blocked;
    }
    let (Some(mapping), Some(key)) = (tree.mapping_of(ino), tree.key(ino)) else { return Step::Nothing };
    let row = &inode.row;
    let job = |key: &Key, expected: Expected| Job {
        ino,
        mapping: mapping.clone(),
        kind: row.kind,
        key: key.clone(),
        expected,
        attrs: row.attrs,
        xattrs: row.xattrs.clone(),
        attr_generation: row.attr_generation,
        generation: row.generation,
        path: tree.shown_path(ino),
    };
    let second_look = match (row.recheck_at, &row.remote) {
        (Some(at), Some(remote)) if !inode.is_dirty() && inode.copied.is_none() && remote.key == key => {
            Some((at, remote))
        }
        _ => None,
    };
    if let Some((_, remote)) = second_look.filter(|(at, _)| now >= *at) {
        return Step::Recheck(job(&key, Expected::Version(remote.etag.clone())), remote.clone());
    }
    let step = match (wanted_step(inode, &key), second_look) {
        (None, None) => return Step::Nothing,
        // R1: other attributes go onto a version that is not here only once no late request can replace it.
        (None, Some((at, _))) => return Step::At(at),
        (Some(Wanted::Copy(_)), Some((at, _))) if row.content == Content::Absent => return Step::At(at),
        // What can be sent again from here looks at the key itself, and hands the second look on.
        (Some(step), _) => step,
    };
    if is_read_from(tree, inode, &key, &step) {
        return Step::Blocked;
    }
    let copies: Vec<Ino> = tree.copies_of(row.target, &key).filter(|other| *other != ino).collect();
    if !copies.is_empty() {
        // The version at the key is the content of others that the store has not copied yet. One that is being
        // made whole, or is only read any more, has no step of its own that could be waited for.
        let waits = |other: &Ino| tree.get(*other).is_some_and(|other| other.row.linked && other.partial.is_none());
        let copying: Vec<Ino> = copies.into_iter().filter(waits).collect();
        return if copying.is_empty() { Step::Blocked } else { Step::Behind(copying) };
    }
    let expected = match occupants(tree, inode, &key) {
        Occupied::Free(expected) => expected,
        Occupied::By(others) => {
            if others.iter().any(|other| is_filling(tree, *other)) {
                // Out of the way it cannot go before it has what it still needs.
                return Step::Blocked;
            }
            if let Some(stuck) = others.iter().find(|other| needs_displacing(tree, **other, ino)) {
                return displace(tree, *stuck, mount_uuid).unwrap_or(Step::Blocked);
            }
            // An unlinked inode never moves: its last reader's close is waited for.
            let moving: Vec<Ino> =
                others.into_iter().filter(|other| tree.get(*other).is_some_and(|other| other.row.linked)).collect();
            return if moving.is_empty() { Step::Blocked } else { Step::Behind(moving) };
        }
    };
    match step {
        Wanted::Send(body) => {
            let mut job = job(&key, expected);
            if let (Body::File { source: Source::Open | Source::Copy, .. }, Some(offered)) = (&body, inode.offered) {
                job.generation = offered.generation;
            }
            Step::Send(job, body)
        }
        Wanted::Copy(remote) => Step::Copy(job(&key, expected), remote),
    }
}

/// C7: the step would replace a version of which a handle, here or of an inode that was moved away,
/// still fetches ranges. Its release, or the end of its fill, unblocks.
fn is_read_from(tree: &Tree, inode: &Inode, key: &Key, step: &Wanted) -> bool {
    let onto_itself = matches!(step, Wanted::Copy(remote) if remote.key == *key) && inode.needs_remote();
    let moved_away = tree
        .removal(inode.row.target, key)
        .and_then(|removal| tree.get(removal.ino))
        .is_some_and(|other| other.ino() != inode.ino() && other.needs_remote());
    onto_itself || moved_away
}

/// C7: dirty, and still being made whole from its remote version.
fn is_filling(tree: &Tree, ino: Ino) -> bool {
    tree.get(ino).is_some_and(|inode| inode.partial.is_some() && inode.needs_remote())
}

enum Wanted {
    Send(Body),
    Copy(Remote),
}

fn wanted_step(inode: &Inode, key: &Key) -> Option<Wanted> {
    let row = &inode.row;
    let moved = row.remote.as_ref().is_some_and(|remote| remote.key != *key);
    let attrs_differ = row.attr_generation != row.remote_attr_generation;
    match row.kind {
        FileKind::Dir => {
            let wanted = match &row.remote {
                None => row.marker_wanted,
                Some(_) => moved || attrs_differ,
            };
            wanted.then(|| Wanted::Send(Body::Bytes(String::new())))
        }
        FileKind::Symlink | FileKind::Fifo | FileKind::Socket | FileKind::CharDevice(_) | FileKind::BlockDevice(_) => {
            if row.remote.is_some() && !moved && !attrs_differ {
                return None;
            }
            let body = if row.kind.is_special() { String::new() } else { row.symlink.clone()? };
            Some(Wanted::Send(Body::Bytes(body)))
        }
        FileKind::File => match row.content {
            // R3: what is open, torn or held keeps its old key until a program has closed it, unless
            // somebody waits for this very version to be in the bucket (P2).
            Content::Open | Content::Flushed => {
                let sent = |generation| row.remote.is_some() && row.remote_generation == generation;
                let offered = inode.offered.filter(|offered| !sent(offered.generation))?;
                let source = if offered.copied { Source::Copy } else { Source::Open };
                Some(Wanted::Send(Body::File { backing: offered.backing, mark: offered.mark, source }))
            }
            Content::Torn => None,
            // C7: not before all of it is here.
            Content::Closed if inode.partial.is_some() => None,
            Content::Closed => match (row.backing, row.mark) {
                (Some(backing), Some(mark)) => Some(Wanted::Send(Body::File { backing, mark, source: Source::Closed })),
                _ => None,
            },
            Content::Clean | Content::Absent if inode.copied.is_some() => inode.copied.clone().map(Wanted::Copy),
            Content::Clean | Content::Absent => match &row.remote {
                Some(remote) if moved || attrs_differ => Some(Wanted::Copy(remote.clone())),
                _ => None,
            },
        },
    }
}

enum Occupied {
    Free(Expected),
    By(Vec<Ino>),
}

/// R3: who else's version stands at the key. R4: what we expect there.
fn occupants(tree: &Tree, inode: &Inode, key: &Key) -> Occupied {
    let target = inode.row.target;
    let needing: Vec<Ino> = tree
        .at_remote(target, key)
        .iter()
        .copied()
        .filter(|other| *other != inode.ino())
        .filter(|other| {
            // An unlinked inode needs its key while a handle still fetches from it.
            tree.get(*other).is_some_and(|other| other.row.linked || other.needs_remote())
        })
        .collect();
    if !needing.is_empty() {
        return Occupied::By(needing);
    }
    let own = inode.row.remote.as_ref().filter(|remote| remote.key == *key).map(|remote| remote.etag.clone());
    let removed = tree.removal(target, key).map(|removal| removal.etag.clone());
    Occupied::Free(own.or(removed).map_or(Expected::Absent, Expected::Version))
}

/// As far as is known, nothing stands at the key that an inode's step would change.
pub(super) fn is_vacant(tree: &Tree, ino: Ino, key: &Key) -> bool {
    tree.get(ino).is_some_and(|inode| matches!(occupants(tree, inode, key), Occupied::Free(Expected::Absent)))
}

/// `other` stands in the way of `ino` and will not leave by itself: it is held by a program, or it
/// waits, in a circle, for `ino`.
fn needs_displacing(tree: &Tree, other: Ino, ino: Ino) -> bool {
    let Some(inode) = tree.get(other) else { return false };
    if !inode.row.linked || inode.attempting {
        return false;
    }
    if matches!(inode.row.content, Content::Open | Content::Flushed | Content::Torn) {
        return true;
    }
    let mut seen = vec![other];
    let mut at = other;
    loop {
        let Some(key) = tree.key(at) else { return false };
        let Some(inode) = tree.get(at) else { return false };
        let there =
            tree.at_remote(inode.row.target, &key).iter().copied().chain(tree.copies_of(inode.row.target, &key));
        let waited_for: Vec<Ino> = there.filter(|next| *next != at).collect();
        if waited_for.contains(&ino) {
            return true;
        }
        let Some(next) = waited_for.first().copied() else { return false };
        if seen.contains(&next) {
            return false;
        }
        seen.push(next);
        at = next;
    }
}

fn displace(tree: &Tree, ino: Ino, mount_uuid: &str) -> Option<Step> {
    let inode = tree.get(ino)?;
    let remote = inode.row.remote.clone()?;
    let mapping = tree.mapping_of(ino)?.clone();
    let key = mapping.reserved_key(mount_uuid, ino, inode.row.generation);
    Some(Step::Displace(
        Job {
            ino,
            mapping,
            kind: inode.row.kind,
            key,
            expected: Expected::Absent,
            attrs: inode.row.attrs,
            xattrs: inode.row.xattrs.clone(),
            attr_generation: inode.row.attr_generation,
            generation: inode.row.generation,
            path: tree.shown_path(ino),
        },
        remote,
    ))
}

/// When a change is due: after the delay, but at most `max_delay` after the first of a run of
/// changes.
pub(super) fn due(now: Duration, dirty_since: Duration, delay: Duration, max_delay: Duration) -> Duration {
    (now + delay).min(dirty_since + max_delay).max(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_keeps_changing_goes_up_after_the_longest_delay() {
        let s = Duration::from_secs;
        assert_eq!(due(s(10), s(10), s(1), s(30)), s(11));
        assert_eq!(due(s(39), s(10), s(5), s(30)), s(40));
        assert_eq!(due(s(50), s(10), s(5), s(30)), s(50));
    }
}
