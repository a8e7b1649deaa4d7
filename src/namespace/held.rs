//! Held content (C5, C6): at its path, or aside, without a name, when the name went back to the
//! version that the bucket has.
//!
//! The row of what is aside has the top of its mapping as parent and its whole path there as name:
//! directories may be renamed or removed meanwhile without its place being forgotten.

use crate::journal::{Content, Hold, Op, Remote};
use crate::types::{Ino, Key, TargetId, TimeNs};

use super::change::Unlinked;
use super::error::{Error, Result};
use super::escape::shows;
use super::inode::Inode;
use super::merge::Replaced;
use super::tree::Tree;

/// What became of a name whose held content was let go.
#[derive(Clone, Debug)]
pub struct Discarded {
    /// Directory and name that the kernel must look up anew; none for what was aside.
    pub entry: Option<(Ino, String)>,
    /// The inode that has the name now, if its object must still be brought there.
    pub moved: Option<Ino>,
    /// The name went: nothing in the bucket has it.
    pub unlinked: Option<Unlinked>,
    /// The held content, if nobody uses it any more: unlink it once the queued rows are on disk.
    pub trash: Option<crate::types::BackingNo>,
}

impl Tree {
    /// The path of held content within its mapping, without slashes at the ends: where it is, or was
    /// before it was set aside.
    pub fn held_path(&self, ino: Ino) -> Option<String> {
        let row = &self.get(ino)?.row;
        if row.linked { self.path(ino) } else { Some(row.name.clone()) }
    }

    /// The same below the mount's root, beginning with `/`, for people.
    pub fn shown_held_path(&self, ino: Ino) -> String {
        let path = self.held_path(ino).unwrap_or_default();
        match self.mapping_of(ino) {
            Some(mapping) if !mapping.is_root() => format!("/{}/{path}", mapping.name),
            _ => format!("/{path}"),
        }
    }

    /// The key of its path: where its content would go up.
    pub fn held_key(&self, ino: Ino) -> Option<Key> {
        let there = self.key(ino);
        there.or_else(|| Some(Key(format!("{}{}", self.mapping_of(ino)?.prefix, self.held_path(ino)?))))
    }

    /// After a power cut (C5): gives the name of held content back to the version of it that the bucket has, its
    /// own or, where it had replaced another file, that one's. The old inode lives on nameless with its local
    /// content. Not if a program has heard that the content is on the disk; of none at all nobody relies on
    /// anything.
    pub fn set_aside_if_doubtful(&mut self, ino: Ino, ops: &mut Vec<Op>) -> Option<Replaced> {
        let row = &self.get(ino)?.row;
        let doubtful = row.content == Content::Torn && row.hold == Some(Hold::Power) && !(row.told && row.size > 0);
        let key = self.key(ino)?;
        // A request whose outcome nobody knows yet may have brought a better version.
        let mut sent = self.attempted.values().flatten();
        if !doubtful || !row.linked || sent.any(|one| one.ino == ino && !one.late) {
            return None;
        }
        let (target, parent, name, ctime) = (row.target, row.parent, row.name.clone(), row.ctime);
        let path = self.path(ino)?;
        if row.remote.as_ref().is_some_and(|there| there.key == key) {
            if let Err(error) = self.give_name_back(ino, ops) {
                tracing::error!(%error, path, "the remote version cannot take its name back");
                return None;
            }
        } else if row.remote.is_none() && self.removal(target, &key).is_some() && !self.is_attempted(target, &key) {
            // Its removal has waited for what was to replace it. Of it no more is known than its ETag: a listing
            // shows it again. Not while a late request may arrive there: nothing would hold its undoing off.
            self.settle_removal(target, &key, None, ops);
            self.detach(parent, &name, ctime);
            if let Some(inode) = self.get_mut(ino) {
                inode.row.linked = false;
            }
        } else {
            return None;
        }
        self.put_aside(ino, path);
        self.persist(ino, ops);
        Some(Replaced { ino, parent, name, trash: None })
    }

    fn is_attempted(&self, target: TargetId, key: &Key) -> bool {
        self.attempted.contains_key(&(target, key.clone()))
    }

    /// A row that has no name remembers its path.
    pub(super) fn put_aside(&mut self, ino: Ino, path: String) {
        let top = self.get(ino).and_then(|inode| self.top_of(inode.row.target));
        if let (Some(top), Some(inode)) = (top, self.get_mut(ino)) {
            inode.row.parent = top;
            inode.row.name = path;
        }
    }

    /// The top directory of a mapping.
    pub fn top_of(&self, target: TargetId) -> Option<Ino> {
        let mut found = self.inodes().filter(|inode| inode.row.target == target && self.is_top(inode.ino()));
        found.next().map(Inode::ino)
    }

    /// A new inode takes the name and the remote version.
    fn give_name_back(&mut self, ino: Ino, ops: &mut Vec<Op>) -> Result<Ino> {
        let new = self.next_ino()?;
        let inode = self.get(ino).ok_or(Error::NotFound)?;
        let remote = inode.row.remote.clone().ok_or(Error::NotFound)?;
        let (parent, name) = (inode.row.parent, inode.row.name.clone());
        let (attrs, ctime, target, kind) = (inode.row.attrs, inode.row.ctime, inode.row.target, inode.row.kind);
        let segment = inode.row.segment.clone();
        let moves = self.key(ino).as_ref() != Some(&remote.key);
        self.set_remote(ino, None);
        if let Some(inode) = self.get_mut(ino) {
            inode.row.linked = false;
        }
        self.persist(ino, ops);
        let mut row = Inode::blank(new, target, kind, (parent, name.clone()), attrs, ctime);
        row.attrs_known = false;
        row.segment = segment;
        row.size = remote.size;
        row.remote_attr_generation = row.attr_generation;
        row.remote_generation = row.generation;
        self.inodes.insert(new, Inode::new(row));
        self.set_remote(new, Some(remote));
        self.detach(parent, &name, ctime);
        self.attach(parent, &name, new, ctime);
        if moves {
            self.persist(new, ops);
        }
        Ok(new)
    }

    /// Lets held content go: the remote version has its name again; if there is none, the name goes.
    /// Programs that have the content open keep it until they close it (C1).
    ///
    /// # Errors
    /// No such inode, or it is not held; no numbers left.
    pub fn discard_held(&mut self, ino: Ino, now: TimeNs, ops: &mut Vec<Op>) -> Result<Discarded> {
        let row = self.get(ino).map(|inode| inode.row.clone()).filter(|row| row.content == Content::Torn);
        let row = row.ok_or(Error::NotFound)?;
        let mut discarded = Discarded { entry: None, moved: None, unlinked: None, trash: None };
        if row.linked {
            discarded.entry = Some((row.parent, row.name.clone()));
        }
        if row.linked && row.remote.is_none() {
            let unlinked = self.unlink(row.parent, &row.name, now, ops)?;
            discarded.trash = unlinked.trash;
            discarded.unlinked = Some(unlinked);
            return Ok(discarded);
        }
        if row.linked {
            let new = self.give_name_back(ino, ops)?;
            discarded.moved = self.is_pending(new).then_some(new);
        }
        if let Some(inode) = self.get_mut(ino) {
            // As what is unlinked while it is open: a start forgets it.
            inode.row.content = Content::Open;
            inode.row.hold = None;
            inode.displaced = true;
        }
        if self.get(ino).is_some_and(Inode::is_unused) {
            discarded.trash = self.reap(ino, ops);
        } else {
            self.persist(ino, ops);
        }
        Ok(discarded)
    }

    /// Puts content that is aside under a name, in the place of the version that is there.
    ///
    /// # Errors
    /// As [`Tree::check_name`]; [`Error::Exists`] if what has the name is no file, or has content
    /// that the bucket lacks.
    pub fn put_back(
        &mut self,
        ino: Ino,
        place: (Ino, &str),
        now: TimeNs,
        ops: &mut Vec<Op>,
    ) -> Result<Option<Unlinked>> {
        let (parent, name) = place;
        let kind = self.get(ino).ok_or(Error::NotFound)?.row.kind;
        self.check_name(parent, name, kind)?;
        // The key is that of what has the name now, or the one that it had.
        let there = self.child(parent, name).and_then(|there| self.get(there));
        let own = || self.get(ino)?.row.segment.clone().filter(|segment| shows(name, segment));
        let segment = there.map_or_else(own, |there| there.row.segment.clone());
        let replaced = match self.child(parent, name) {
            Some(other)
                if self.get(other).is_some_and(|other| {
                    other.is_dir() || other.is_dirty() || other.copied.is_some() || other.writers > 0
                }) =>
            {
                return Err(Error::Exists);
            }
            Some(_) => Some(self.drop_name(parent, name, now, ops)?),
            None => None,
        };
        if let Some(inode) = self.get_mut(ino) {
            inode.row.parent = parent;
            inode.row.name = name.to_owned();
            inode.row.segment = segment;
            inode.row.linked = true;
        }
        self.attach(parent, name, ino, now);
        self.persist(ino, ops);
        Ok(replaced)
    }

    /// The version that the bucket is known to have at the path of held content.
    pub fn remote_of_held(&self, ino: Ino) -> Option<Remote> {
        let inode = self.get(ino)?;
        if inode.row.linked {
            return inode.row.remote.clone();
        }
        let there = self.wanting(inode.row.target, &self.held_key(ino)?)?;
        self.get(there)?.row.remote.clone()
    }
}
