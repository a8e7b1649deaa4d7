//! Names: lookup, make, remove, move.

use std::ffi::OsStr;

use crate::cache::{TagState, mark, same_mark};
use crate::failpoint;
use crate::journal::{Content, Durability};
use crate::namespace::{Lookup, Unlinked};
use crate::types::{Attrs, FileKind, Ino};

use super::Vfs;
use super::error::{Error, Result};
use super::open::inherited_gid;
use super::reply::{Caller, Entry};

/// Longest target of a symbolic link, bytes (PATH_MAX).
const LINK_MAX: usize = 4096;

/// A name as a key can hold it.
pub(super) fn text(name: &OsStr) -> Result<&str> {
    name.to_str().ok_or(Error::IllegalName)
}

impl Vfs {
    pub(super) async fn do_lookup(&self, parent: Ino, name: &OsStr) -> Result<Entry> {
        // A name that is not UTF-8 cannot exist here.
        let name = name.to_str().ok_or(Error::NotFound)?;
        if name.len() > 255 {
            return Err(Error::NameTooLong);
        }
        let Lookup::Found(ino) = self.inner.namespace.lookup(parent, name).await? else {
            return Err(Error::NotFound);
        };
        // Attributes that cannot be had now are defaults, not an error: the name is there.
        let ino = match self.inner.namespace.ensure_attributes(ino).await {
            Ok(current) => current,
            Err(crate::namespace::Error::Offline(_)) => ino,
            Err(crate::namespace::Error::Store(error)) if error.is_offline() => ino,
            Err(error) => return Err(error.into()),
        };
        self.remember(ino);
        match self.entry(ino) {
            Ok(entry) => Ok(entry),
            Err(error) => {
                self.forget(ino, 1);
                Err(error)
            }
        }
    }

    pub(super) async fn do_mknod(&self, parent: Ino, name: &OsStr, mode: u32, caller: Caller) -> Result<Entry> {
        let name = text(name)?;
        self.absent(parent, name).await?;
        self.make_room(0).await?;
        let (ino, _, commit) = self.make_file((parent, name), mode, caller, Content::Closed, Durability::Buffered)?;
        commit.durable().await?;
        self.inner.uploader.changed(ino);
        self.sync_soon(ino);
        self.entry(ino)
    }

    /// A pipe, socket or device: a name, attributes, and an empty object.
    pub(super) async fn make_special(
        &self,
        parent: Ino,
        name: &OsStr,
        kind: FileKind,
        mode: u32,
        caller: Caller,
    ) -> Result<Entry> {
        let name = text(name)?;
        self.absent(parent, name).await?;
        let wall = self.now();
        let (made, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let gid = inherited_gid(tree.get(parent), caller);
            let attrs = Attrs { mode: mode & 0o7777, uid: caller.uid, gid, mtime: wall };
            tree.make((parent, name), kind, attrs, wall, ops, |inode| inode.lookups = 1)
        });
        let ino = made?;
        commit.durable().await?;
        self.inner.uploader.changed(ino);
        self.entry(ino)
    }

    pub(super) async fn do_mkdir(&self, parent: Ino, name: &OsStr, mode: u32, caller: Caller) -> Result<Entry> {
        let name = text(name)?;
        self.absent(parent, name).await?;
        let (wall, now) = (self.now(), self.inner.namespace.clock().monotonic());
        let (made, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let above = tree.get(parent);
            let setgid = above.map_or(0, |above| above.row.attrs.mode & 0o2000);
            let gid = inherited_gid(above, caller);
            let attrs = Attrs { mode: (mode & 0o7777) | setgid, uid: caller.uid, gid, mtime: wall };
            tree.make((parent, name), FileKind::Dir, attrs, wall, ops, |inode| {
                inode.row.marker_wanted = true;
                inode.lookups = 1;
                if let Some(state) = inode.dir.as_mut() {
                    // It was not there a moment ago: it is empty.
                    state.listed = Some(now);
                }
            })
        });
        let ino = made?;
        commit.durable().await?;
        self.inner.uploader.changed(ino);
        self.entry(ino)
    }

    pub(super) async fn do_symlink(&self, parent: Ino, name: &OsStr, target: &OsStr, caller: Caller) -> Result<Entry> {
        let (name, target) = (text(name)?, text(target)?);
        if target.len() >= LINK_MAX {
            return Err(Error::NameTooLong);
        }
        if target.is_empty() {
            return Err(Error::NotFound);
        }
        self.absent(parent, name).await?;
        let wall = self.now();
        let (made, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let gid = inherited_gid(tree.get(parent), caller);
            let attrs = Attrs { mode: 0o777, uid: caller.uid, gid, mtime: wall };
            tree.make((parent, name), FileKind::Symlink, attrs, wall, ops, |inode| {
                inode.row.symlink = Some(target.to_owned());
                inode.row.size = target.len() as u64;
                inode.lookups = 1;
            })
        });
        let ino = made?;
        commit.durable().await?;
        self.inner.uploader.changed(ino);
        self.entry(ino)
    }

    async fn absent(&self, parent: Ino, name: &str) -> Result<()> {
        match self.inner.namespace.lookup(parent, name).await? {
            Lookup::Found(_) => Err(Error::Exists),
            Lookup::Absent => Ok(()),
        }
    }

    pub(super) async fn do_unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let name = text(name).map_err(|_| Error::NotFound)?;
        let Lookup::Found(ino) = self.inner.namespace.lookup(parent, name).await? else {
            return Err(Error::NotFound);
        };
        if self.with_inode(ino, crate::namespace::Inode::is_dir)? {
            return Err(Error::IsDirectory);
        }
        self.take_name(parent, name, ino).await
    }

    pub(super) async fn do_rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let name = text(name).map_err(|_| Error::NotFound)?;
        let Lookup::Found(ino) = self.inner.namespace.lookup(parent, name).await? else {
            return Err(Error::NotFound);
        };
        if !self.with_inode(ino, crate::namespace::Inode::is_dir)? {
            return Err(Error::NotDirectory);
        }
        if self.inner.namespace.read(|tree| tree.is_top(ino)) {
            return Err(Error::NotPermitted);
        }
        self.prove_empty(ino).await?;
        // A marker that nobody has looked for yet is part of what goes.
        self.inner.namespace.ensure_attributes(ino).await?;
        self.take_name(parent, name, ino).await
    }

    /// N1: the store is asked; what is owed for removal does not count.
    async fn prove_empty(&self, dir: Ino) -> Result<()> {
        if !self.inner.namespace.read(|tree| tree.is_empty(dir)) {
            return Err(Error::NotEmpty);
        }
        if self.inner.namespace.read(|tree| tree.mapping_of(dir).is_some_and(|mapping| mapping.is_offline())) {
            return Err(Error::Offline);
        }
        self.inner.namespace.expire(dir);
        self.inner.namespace.refresh(dir).await?;
        if self.inner.namespace.read(|tree| tree.is_empty(dir)) { Ok(()) } else { Err(Error::NotEmpty) }
    }

    async fn take_name(&self, parent: Ino, name: &str, expected: Ino) -> Result<()> {
        let wall = self.now();
        let (unlinked, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if tree.child(parent, name) != Some(expected) {
                return Err(crate::namespace::Error::NotFound);
            }
            if !tree.is_empty(expected) {
                return Err(crate::namespace::Error::NotEmpty);
            }
            tree.unlink(parent, name, wall, ops)
        });
        let unlinked = unlinked?;
        commit.durable().await?;
        self.after_unlink(unlinked);
        Ok(())
    }

    pub(super) fn after_unlink(&self, unlinked: Unlinked) {
        self.trash(unlinked.trash);
        self.abandon_fill(unlinked.ino);
        self.inner.uploader.let_go(unlinked.ino);
        if let Some((target, key)) = unlinked.removal {
            self.inner.uploader.removal_owed(target, key);
        }
        if let Some(dir) = unlinked.marker {
            self.inner.uploader.changed(dir);
        }
    }

    pub(super) async fn do_rename(&self, from: (Ino, &OsStr), to: (Ino, &OsStr), flags: u32) -> Result<()> {
        if flags == libc::RENAME_EXCHANGE {
            return self.do_exchange(from, to).await;
        }
        if flags & !libc::RENAME_NOREPLACE != 0 {
            return Err(Error::Invalid);
        }
        let from = (from.0, text(from.1).map_err(|_| Error::NotFound)?);
        let to = (to.0, text(to.1)?);
        let Lookup::Found(ino) = self.inner.namespace.lookup(from.0, from.1).await? else {
            return Err(Error::NotFound);
        };
        let existing = match self.inner.namespace.lookup(to.0, to.1).await? {
            Lookup::Found(existing) => Some(existing),
            Lookup::Absent => None,
        };
        if flags & libc::RENAME_NOREPLACE != 0 && existing.is_some() {
            return Err(Error::Exists);
        }
        self.inner.namespace.read(|tree| tree.check_rename(from, to))?;
        if existing == Some(ino) {
            return Ok(());
        }
        let is_dir = self.with_inode(ino, crate::namespace::Inode::is_dir)?;
        if is_dir {
            self.inner.namespace.ensure_attributes(ino).await?;
            if let Some(existing) = existing {
                self.prove_empty(existing).await?;
                self.inner.namespace.ensure_attributes(existing).await?;
            }
        } else {
            // Its attributes travel with it.
            self.inner.namespace.ensure_attributes(ino).await?;
        }
        let wall = self.now();
        let (renamed, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if tree.child(from.0, from.1) != Some(ino) {
                return Err(crate::namespace::Error::NotFound);
            }
            if flags & libc::RENAME_NOREPLACE != 0 && tree.child(to.0, to.1).is_some() {
                return Err(crate::namespace::Error::Exists);
            }
            tree.rename(from, to, wall, ops)
        });
        let renamed = renamed?;
        commit.durable().await?;
        self.inner.uploader.changed(ino);
        // What lies below it moves with it; the directory itself carries where from (R5).
        self.inner.uploader.carry(renamed.moved);
        if let Some(replaced) = renamed.replaced {
            self.after_unlink(replaced);
        }
        if let Some(dir) = renamed.marker {
            self.inner.uploader.changed(dir);
        }
        for waiting in renamed.waiting.into_iter().chain((!is_dir).then_some(ino)) {
            self.tag_moved(waiting)?;
        }
        Ok(())
    }

    /// J5: closed content that waits for its upload tells its new key, unless an attempt is reading it
    /// right now, or its mark is on the disk as it is: a start without a journal finds those under their
    /// old name.
    pub(super) fn tag_moved(&self, ino: Ino) -> Result<()> {
        if self.is_partial(ino) {
            // Its file alone is not its content (C7).
            return Ok(());
        }
        let closed = TagState::Closed(self.inner.options.boot_id.clone());
        let (tagged, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let Some(inode) = tree.get(ino) else { return Ok(false) };
            let waits = inode.row.content == Content::Closed && !inode.attempting && inode.writers == 0;
            let (Some(backing), Some(marked)) = (inode.row.backing, inode.row.mark) else { return Ok(false) };
            let Some(tag) = Vfs::tag(tree, ino, closed).filter(|_| waits && !marked.synced) else { return Ok(false) };
            let file = self.inner.cache.open_read(backing)?;
            if !same_mark(&mark(&file)?, &marked) {
                return Ok(false);
            }
            self.inner.cache.retag(&file, &tag)?;
            failpoint::hit(failpoint::RENAME_AFTER_TAG);
            if let Some(inode) = tree.get_mut(ino) {
                // C3: our own change of the file.
                inode.row.mark = Some(mark(&file)?);
            }
            tree.persist(ino, ops);
            Ok::<_, Error>(true)
        });
        commit.in_background();
        if tagged? {
            self.sync_soon(ino);
        }
        Ok(())
    }
}
