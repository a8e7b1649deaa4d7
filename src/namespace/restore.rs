//! Inodes made anew for content whose rows are lost (J5). No kernel and no program knows the tree yet.

use crate::journal::{InodeRow, Op, Remote};
use crate::types::{Attrs, FileKind, Ino, TargetId};

use super::error::{Error, Result};
use super::inode::Inode;
use super::merge::Moment;
use super::tree::Tree;

impl Tree {
    /// Makes a file at a path of a mapping, and the directories that it takes; the bucket tells what
    /// else is in them.
    ///
    /// # Errors
    /// [`Error::Exists`] or [`Error::NotDirectory`] if the path is taken; as [`Tree::check_name`].
    pub fn restore(
        &mut self,
        target: TargetId,
        path: &str,
        attrs: Attrs,
        remote: Option<Remote>,
        ops: &mut Vec<Op>,
        fill: impl FnOnce(&mut InodeRow),
    ) -> Result<Ino> {
        let top = self.top_of(target).ok_or(Error::NotFound)?;
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = top;
        for above in dirs.split('/').filter(|_| !dirs.is_empty()) {
            dir = match self.child(dir, above) {
                Some(found) if self.get(found).is_some_and(Inode::is_dir) => found,
                Some(_) => return Err(Error::NotDirectory),
                None => {
                    self.check_name(dir, above, FileKind::Dir)?;
                    let moment = Moment { began: std::time::Duration::ZERO, now: attrs.mtime };
                    self.insert_dir(dir, above, None, moment).ok_or(Error::NotFound)?
                }
            };
        }
        self.check_name(dir, name, FileKind::File)?;
        if self.child(dir, name).is_some() {
            return Err(Error::Exists);
        }
        let ino = self.next_ino()?;
        let mut row = Inode::blank(ino, target, FileKind::File, (dir, name.to_owned()), attrs, attrs.mtime);
        fill(&mut row);
        self.inodes.insert(ino, Inode::new(row));
        self.set_remote(ino, remote);
        self.attach(dir, name, ino, attrs.mtime);
        self.persist(ino, ops);
        Ok(ino)
    }

    /// Makes a file without a name that remembers a path: held content that is aside.
    ///
    /// # Errors
    /// No such mapping; no numbers left.
    pub fn restore_aside(
        &mut self,
        target: TargetId,
        path: &str,
        attrs: Attrs,
        ops: &mut Vec<Op>,
        fill: impl FnOnce(&mut InodeRow),
    ) -> Result<Ino> {
        let top = self.top_of(target).ok_or(Error::NotFound)?;
        let ino = self.next_ino()?;
        let mut row = Inode::blank(ino, target, FileKind::File, (top, path.to_owned()), attrs, attrs.mtime);
        fill(&mut row);
        row.linked = false;
        self.inodes.insert(ino, Inode::new(row));
        self.persist(ino, ops);
        Ok(ino)
    }
}
