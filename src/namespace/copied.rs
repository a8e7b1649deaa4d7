//! Files that are copies of another's object, until the store has copied it (copy_file_range).

use crate::journal::{CopyRow, Op, Remote};
use crate::types::{Ino, Key, TargetId};

use super::inode::Inode;
use super::tree::Tree;

impl Tree {
    /// At the start.
    pub(super) fn adopt_copy(&mut self, row: &CopyRow) {
        if let Some(inode) = self.get_mut(row.ino) {
            inode.copied = Some(row.origin.clone());
            let slot = (inode.row.target, row.origin.key.clone());
            self.by_copied.entry(slot).or_default().push(row.ino);
        }
    }

    /// Says what an inode is a copy of, or that it has its own content by now, and queues that.
    pub fn set_copied(&mut self, ino: Ino, origin: Option<Remote>, ops: &mut Vec<Op>) {
        let Some(inode) = self.get_mut(ino) else { return };
        let target = inode.row.target;
        let old = std::mem::replace(&mut inode.copied, origin.clone());
        if let Some(old) = &old {
            let slot = (target, old.key.clone());
            if let Some(inos) = self.by_copied.get_mut(&slot) {
                inos.retain(|other| *other != ino);
                if inos.is_empty() {
                    self.by_copied.remove(&slot);
                }
            }
        }
        match origin {
            Some(origin) => {
                self.by_copied.entry((target, origin.key.clone())).or_default().push(ino);
                ops.push(Op::PutCopy(CopyRow { ino, origin }));
            }
            None if old.is_some() => ops.push(Op::DeleteCopy(ino)),
            None => {}
        }
    }

    /// Inodes that still need the version at this key as the one that they are copies of: it may neither be replaced
    /// nor removed (R3).
    pub fn copies_of(&self, target: TargetId, key: &Key) -> impl Iterator<Item = Ino> {
        let inos = self.by_copied.get(&(target, key.clone())).map_or(&[][..], Vec::as_slice);
        inos.iter().copied().filter(|ino| self.get(*ino).is_some_and(Inode::needs_copied))
    }
}
