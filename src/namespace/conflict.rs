//! Another host's version where something here waits for the bucket: both are kept (design section 7).
//!
//! The version that is to be kept becomes an inode of its own under a name that tells where it is from,
//! and is still at the key that ours wants: to the uploader a file that was renamed and waits for its copy.
//! So nothing may be put over it before that copy is verified (R3), a crash only looks again, and the copy is
//! announced as any other.

use crate::journal::{Durability, Op, Remote};
use crate::store::ObjectMeta;
use crate::types::{FileKind, Ino, Key, TargetId, TimeNs};

use super::Namespace;
use super::aside::{NAMES, numbered_name};
use super::error::{Error, Result};
use super::headers::attributes_of;
use super::inode::Inode;
use super::merge::{Moment, Replaced, remote_of};
use super::tree::Tree;

/// Where another host's version is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// By this inode, under this name; its copy comes before anything else happens at the key.
    By(Ino, String),
    /// An earlier copy under this name holds the same: what stands at the key may go.
    Already(String),
    /// Nothing of the kind is needed any more: the inode has lost its name, or wants another key.
    Unneeded,
}

impl Namespace {
    /// Another host's version stands at the key that an inode wants: it is kept under a name of its own.
    /// Durable on return.
    ///
    /// # Errors
    /// No name can be given to it ([`Error::NameTooLong`], [`Error::Exists`]): ours must not go over it.
    /// The journal failed.
    pub async fn keep_theirs(&self, ino: Ino, meta: &ObjectMeta) -> Result<Kept> {
        let now = self.clock().now();
        let (kept, commit) = self.update(Durability::Disk, |tree, ops| tree.keep_theirs(ino, meta, now, ops));
        commit.durable().await?;
        kept
    }

    /// The same, the other way round: the other host's version has the name, and ours, with its handles,
    /// goes on under the other. `None`: not needed any more.
    ///
    /// # Errors
    /// As [`Namespace::keep_theirs`].
    pub async fn stand_aside(&self, ino: Ino, meta: &ObjectMeta) -> Result<Option<String>> {
        let moment = Moment { began: self.clock().monotonic(), now: self.clock().now() };
        let (aside, commit) = self.update(Durability::Disk, |tree, ops| tree.stand_aside(ino, meta, moment, ops));
        commit.durable().await?;
        let aside = aside?;
        self.announce(aside.iter().flat_map(|(_, replaced)| replaced.clone()));
        Ok(aside.map(|(name, _)| name))
    }

    /// A version that was to be kept under another name cannot be copied: it gets its name, and ours the
    /// other. `false`: the inode is none of those.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn swap_kept(&self, ino: Ino) -> Result<bool> {
        let now = self.clock().now();
        let (swapped, commit) = self.update(Durability::Disk, |tree, ops| tree.swap_kept(ino, now, ops));
        commit.durable().await?;
        let Some(replaced) = swapped else { return Ok(false) };
        self.announce(replaced);
        Ok(true)
    }

    /// Something stands where the copy of a version that is to be kept goes: takes another name, and says
    /// so, unless it is that very content.
    ///
    /// # Errors
    /// No name is left; the journal failed.
    pub async fn name_kept_anew(&self, ino: Ino) -> Result<Option<String>> {
        let now = self.clock().now();
        let (named, commit) = self.update(Durability::Disk, |tree, ops| {
            let Some((base, theirs)) = tree.kept_version(ino) else { return Ok(None) };
            let inode = tree.get(ino).ok_or(Error::NotFound)?;
            let (dir, old) = (inode.row.parent, inode.row.name.clone());
            let (name, taken) = tree.free_name(dir, &base, &theirs, Some(&old))?;
            if taken {
                return Err(Error::Exists);
            }
            tree.rename((dir, &old), (dir, &name), now, ops)?;
            Ok::<_, Error>(Some((dir, old, name)))
        });
        commit.durable().await?;
        let Some((parent, old, name)) = named? else { return Ok(None) };
        self.announce(vec![Replaced { ino, parent, name: old, trash: None }]);
        Ok(Some(name))
    }

    /// Only attributes were changed here, the content is not here, and another host has replaced it: the
    /// inode takes over that version and still wants its attributes.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn rebase(&self, ino: Ino, meta: &ObjectMeta) -> Result<()> {
        let began = self.clock().monotonic();
        let (place, commit) = self.update(Durability::Buffered, |tree, ops| {
            let defaults = tree.mapping_of(ino)?.defaults;
            let theirs = attributes_of(meta, &defaults).1;
            let inode = tree.get_mut(ino)?;
            if !inode.is_dir() {
                inode.row.size = meta.size;
            }
            // Whoever compares times must see that the content is another.
            inode.row.attrs.mtime = inode.row.attrs.mtime.max(theirs.mtime);
            inode.checked = Some(began);
            let place = (inode.row.parent, inode.row.name.clone());
            tree.set_remote(ino, Some(remote_of(meta)));
            tree.persist(ino, ops);
            Some(place)
        });
        commit.durable().await?;
        if let Some((parent, name)) = place {
            self.announce(vec![Replaced { ino, parent, name, trash: None }]);
        }
        Ok(())
    }

    /// What was changed here is let go: the name shows the other host's version. Only of attributes.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn take_theirs(&self, ino: Ino, meta: &ObjectMeta) -> Result<()> {
        let moment = Moment { began: self.clock().monotonic(), now: self.clock().now() };
        let (replaced, commit) = self.update(Durability::Buffered, |tree, ops| {
            let Some(inode) = tree.get(ino).filter(|inode| !inode.is_dirty() && inode.row.linked) else {
                return Vec::new();
            };
            let (dir, name) = (inode.row.parent, inode.row.name.clone());
            let replaced = tree.obsolete(dir, &name, moment.now, ops);
            tree.discover(dir, &name, meta, None, moment);
            replaced
        });
        commit.durable().await?;
        self.announce(replaced);
        Ok(())
    }
}

impl Tree {
    fn keep_theirs(&mut self, ino: Ino, meta: &ObjectMeta, now: TimeNs, ops: &mut Vec<Op>) -> Result<Kept> {
        let Some((dir, name, target)) = self.contested(ino, meta) else { return Ok(Kept::Unneeded) };
        let theirs = remote_of(meta);
        if let Some(other) = self.keeper(target, &theirs) {
            let name = self.get(other).map(|other| other.row.name.clone()).unwrap_or_default();
            return Ok(Kept::By(other, name));
        }
        let (other, taken) = self.free_name(dir, &name, &theirs, None)?;
        if !taken {
            self.check_name(dir, &other, FileKind::File)?;
        }
        let number = if taken { None } else { Some(self.next_ino()?) };
        // What ours was made from is not in the bucket any more.
        if self.get(ino).and_then(|inode| inode.row.remote.as_ref()).is_some_and(|remote| remote.key == meta.key) {
            self.set_remote(ino, None);
            self.persist(ino, ops);
        }
        let Some(new) = number else {
            self.owe_removal(target, &theirs, ino, now, ops);
            return Ok(Kept::Already(other));
        };
        let mapping = self.mapping_of(dir).cloned().ok_or(Error::NotFound)?;
        let attrs = mapping.defaults.attrs(FileKind::File, meta.last_modified.unwrap_or(now));
        let mut row = Inode::blank(new, target, FileKind::File, (dir, other.clone()), attrs, now);
        // The copy carries what its headers tell.
        row.attrs_known = false;
        row.remote_attr_generation = row.attr_generation;
        row.remote_generation = row.generation;
        row.size = meta.size;
        self.inodes.insert(new, Inode::new(row));
        self.set_remote(new, Some(theirs));
        self.attach(dir, &other, new, now);
        self.persist(new, ops);
        Ok(Kept::By(new, other))
    }

    fn stand_aside(
        &mut self,
        ino: Ino,
        meta: &ObjectMeta,
        moment: Moment,
        ops: &mut Vec<Op>,
    ) -> Result<Option<(String, Vec<Replaced>)>> {
        let Some((dir, name, _)) = self.contested(ino, meta) else { return Ok(None) };
        let (mut other, mut taken) = self.free_name(dir, &name, &remote_of(meta), None)?;
        if taken {
            // An earlier copy of theirs has the first name.
            (other, taken) = self.free_name(dir, &name, &remote_of(meta), Some(&other))?;
        }
        if taken {
            return Err(Error::Exists);
        }
        self.rename((dir, &name), (dir, &other), moment.now, ops)?;
        if self.get(ino).and_then(|inode| inode.row.remote.as_ref()).is_some_and(|remote| remote.key == meta.key) {
            self.set_remote(ino, None);
            self.persist(ino, ops);
        }
        self.discover(dir, &name, meta, None, moment);
        Ok(Some((other, vec![Replaced { ino, parent: dir, name, trash: None }])))
    }

    fn swap_kept(&mut self, ino: Ino, now: TimeNs, ops: &mut Vec<Op>) -> Option<Vec<Replaced>> {
        let (_, theirs) = self.kept_version(ino)?;
        let inode = self.get(ino)?;
        let (dir, other, target) = (inode.row.parent, inode.row.name.clone(), inode.row.target);
        let name = file_name(&theirs.key).to_owned();
        match self.wanting(target, &theirs.key) {
            Some(ours) => {
                self.exchange((dir, &name), (dir, &other), now, ops).ok()?;
                Some(vec![
                    Replaced { ino: ours, parent: dir, name, trash: None },
                    Replaced { ino, parent: dir, name: other, trash: None },
                ])
            }
            None => {
                self.rename((dir, &other), (dir, &name), now, ops).ok()?;
                Some(vec![Replaced { ino, parent: dir, name: other, trash: None }])
            }
        }
    }

    /// Directory, name and mapping of an inode that still wants the key of this version.
    fn contested(&self, ino: Ino, meta: &ObjectMeta) -> Option<(Ino, String, TargetId)> {
        let inode = self.get(ino)?;
        let wants = inode.row.linked && self.key(ino).as_ref() == Some(&meta.key);
        wants.then(|| (inode.row.parent, inode.row.name.clone(), inode.row.target))
    }

    /// The inode that waits to copy this very version away from its key.
    fn keeper(&self, target: TargetId, theirs: &Remote) -> Option<Ino> {
        let here = self.at_remote(target, &theirs.key).iter().copied();
        let same = |ino: &Ino| {
            self.get(*ino).is_some_and(|inode| {
                inode.row.linked && inode.row.remote.as_ref().is_some_and(|remote| remote.etag == theirs.etag)
            })
        };
        here.filter(same).find(|ino| self.key(*ino).as_ref() != Some(&theirs.key))
    }

    /// A name for a version; whether what has it is that very content already. `but`: not this one.
    fn free_name(&self, dir: Ino, name: &str, theirs: &Remote, but: Option<&str>) -> Result<(String, bool)> {
        for number in 1..=NAMES {
            let other = numbered_name(name, theirs.last_modified, &theirs.etag, number);
            if but.is_some_and(|but| but == other) {
                continue;
            }
            let Some(there) = self.child(dir, &other) else { return Ok((other, false)) };
            let same = self
                .get(there)
                .and_then(|there| there.row.remote.as_ref())
                .is_some_and(|there| there.crc64.is_some() && there.crc64 == theirs.crc64 && there.size == theirs.size);
            if same && !self.is_pending(there) {
                return Ok((other, true));
            }
        }
        Err(Error::Exists)
    }

    /// The name and the version of an inode that keeps another host's version and has not copied it yet.
    pub(crate) fn kept_version(&self, ino: Ino) -> Option<(String, Remote)> {
        let inode = self.get(ino).filter(|inode| inode.row.linked && !inode.is_dir())?;
        let remote = inode.row.remote.clone()?;
        let name = file_name(&remote.key).to_owned();
        let named = (1..=NAMES).any(|n| numbered_name(&name, remote.last_modified, &remote.etag, n) == inode.row.name);
        let beside =
            self.prefix(inode.row.parent).is_some_and(|prefix| remote.key.as_str() == format!("{prefix}{name}"));
        (named && beside).then_some((name, remote))
    }

    /// The inode keeps another host's version and has not copied it yet.
    pub fn is_keeping(&self, ino: Ino) -> bool {
        self.kept_version(ino).is_some()
    }

    /// What stands where a kept version is to be copied is that very content: it is taken as the copy.
    /// The key that the version may now leave; `None`: it is another content.
    pub fn adopt_kept(&mut self, ino: Ino, found: &ObjectMeta, now: TimeNs, ops: &mut Vec<Op>) -> Option<Key> {
        let (_, theirs) = self.kept_version(ino)?;
        if found.crc64.is_none() || found.crc64 != theirs.crc64 || found.size != theirs.size {
            return None;
        }
        let target = self.get(ino)?.row.target;
        self.set_remote(ino, Some(remote_of(found)));
        self.persist(ino, ops);
        self.owe_removal(target, &theirs, ino, now, ops);
        Some(theirs.key)
    }
}

/// The last part of a key.
fn file_name(key: &Key) -> &str {
    let path = key.as_str();
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
