//! Two names change places (RENAME_EXCHANGE).

use std::ffi::OsStr;

use crate::journal::Durability;
use crate::namespace::Lookup;
use crate::types::Ino;

use super::Vfs;
use super::error::{Error, Result};
use super::names::text;

impl Vfs {
    /// RENAME_EXCHANGE: both wanted places in one commit; the bucket follows by a reserved key (R3).
    pub(super) async fn do_exchange(&self, one: (Ino, &OsStr), other: (Ino, &OsStr)) -> Result<()> {
        let one = (one.0, text(one.1).map_err(|_| Error::NotFound)?);
        let other = (other.0, text(other.1).map_err(|_| Error::NotFound)?);
        let mut found = Vec::with_capacity(2);
        for (parent, name) in [one, other] {
            match self.inner.namespace.lookup(parent, name).await? {
                Lookup::Found(ino) => found.push(ino),
                Lookup::Absent => return Err(Error::NotFound),
            }
        }
        self.inner.namespace.read(|tree| tree.check_exchange(one, other))?;
        for ino in &found {
            self.inner.namespace.ensure_attributes(*ino).await?;
        }
        let wall = self.now();
        let (moved, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if [tree.child(one.0, one.1), tree.child(other.0, other.1)]
                != [found.first().copied(), found.get(1).copied()]
            {
                return Err(crate::namespace::Error::NotFound);
            }
            tree.exchange(one, other, wall, ops)
        });
        let moved = moved?;
        commit.durable().await?;
        for ino in &found {
            self.inner.uploader.changed(*ino);
        }
        self.inner.uploader.carry(moved.moved);
        for ino in moved.waiting.into_iter().chain(found) {
            self.tag_moved(ino)?;
        }
        Ok(())
    }
}
