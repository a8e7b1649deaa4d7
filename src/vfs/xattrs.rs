//! Extended attributes. The `user.` ones are kept in the object's header; no others are: `security.` and
//! `trusted.` would let whoever writes the bucket give rights on this host, and ACLs have no place there.

use std::ffi::OsStr;

use bytes::Bytes;

use crate::journal::Durability;
use crate::namespace::{Xattrs, xattr_room};
use crate::store::{ErrorKind, HeadOptions};
use crate::task::interruptible;
use crate::types::{FileKind, Ino};

use super::Vfs;
use super::error::{Error, Result};

/// The only names that are kept.
const USER: &str = "user.";

/// A name that can be kept.
fn user(name: &OsStr) -> Option<&str> {
    name.to_str().filter(|name| name.starts_with(USER))
}

impl Vfs {
    /// The kernel asks for `security.capability` at every first write and for ACLs at every `ls -l`: names
    /// that are never kept are answered without a look at anything.
    pub(super) async fn do_getxattr(&self, ino: Ino, name: &OsStr) -> Result<Bytes> {
        if name.as_encoded_bytes().starts_with(b"system.") {
            return Err(Error::NotSupported);
        }
        let name = user(name).ok_or(Error::NoAttribute)?;
        let mut xattrs = self.xattrs(ino).await?;
        xattrs.0.remove(name).map(Bytes::from).ok_or(Error::NoAttribute)
    }

    pub(super) async fn do_listxattr(&self, ino: Ino) -> Result<Bytes> {
        let xattrs = self.xattrs(ino).await?;
        let shown = xattrs.0.keys().filter(|name| user(OsStr::new(name)).is_some());
        Ok(shown.flat_map(|name| name.bytes().chain([0])).collect())
    }

    async fn xattrs(&self, ino: Ino) -> Result<Xattrs> {
        if self.inner.namespace.ensure_attributes(ino).await? != ino {
            return Err(Error::Stale);
        }
        let header = self.with_inode(ino, |inode| inode.row.xattrs.clone())?;
        Ok(header.as_deref().map(Xattrs::parse).unwrap_or_default())
    }

    /// Sets an attribute, or with `None` removes it.
    pub(super) async fn do_setxattr(&self, ino: Ino, name: &OsStr, value: Option<&[u8]>, flags: i32) -> Result<()> {
        if !name.as_encoded_bytes().starts_with(USER.as_bytes()) {
            let absent = value.is_none() && !name.as_encoded_bytes().starts_with(b"system.");
            return Err(if absent { Error::NoAttribute } else { Error::NotSupported });
        }
        let name = user(name).ok_or(Error::IllegalName)?;
        if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
            return Err(Error::Invalid);
        }
        if self.inner.namespace.ensure_attributes(ino).await? != ino {
            return Err(Error::Stale);
        }
        let room = if value.is_some() { self.xattr_room(ino).await? } else { usize::MAX };
        let wall = self.inner.namespace.clock().now();
        // Looked at and changed under one lock: two programs that set different names both succeed.
        let (changed, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            // Neither a mapping's top has an object for them, nor what has a file in the marker's place.
            let top = tree.is_top(ino) || tree.has_nameless_file(ino);
            let inode = tree.get_mut(ino).ok_or(Error::NotFound)?;
            let mut xattrs = inode.row.xattrs.as_deref().map(Xattrs::parse).unwrap_or_default();
            match (xattrs.0.contains_key(name), flags) {
                (true, flags) if flags & libc::XATTR_CREATE != 0 => return Err(Error::Exists),
                (false, flags) if flags & libc::XATTR_REPLACE != 0 => return Err(Error::NoAttribute),
                _ => {}
            }
            match value {
                Some(value) => xattrs.0.insert(name.to_owned(), value.to_vec()),
                None => xattrs.0.remove(name),
            };
            let header = xattrs.to_header();
            if header.as_ref().is_some_and(|header| header.len() > room) {
                return Err(Error::NoSpace);
            }
            inode.row.ctime = wall;
            if header == inode.row.xattrs {
                return Ok(false);
            }
            inode.row.xattrs = header;
            inode.row.attr_generation += 1;
            if inode.row.kind == FileKind::Dir && inode.row.remote.is_none() {
                // As its other attributes: they need an object that carries them; a top has none.
                inode.row.marker_wanted = !top;
            }
            if inode.row.linked {
                tree.persist(ino, ops);
            }
            Ok(true)
        });
        let changed = changed?;
        commit.durable().await?;
        if changed {
            self.inner.uploader.changed(ino);
        }
        Ok(())
    }

    /// How long the header may be. A copy keeps what others gave the object, so that counts, and only
    /// a look at the object tells: whatever is accepted here must not fail when it goes up.
    async fn xattr_room(&self, ino: Ino) -> Result<usize> {
        let found = self.inner.namespace.read(|tree| {
            let inode = tree.get(ino).ok_or(Error::NotFound)?;
            let mapping = tree.mapping_of(ino).cloned().ok_or(Error::NotPermitted)?;
            let key = inode.row.remote.as_ref().map(|remote| remote.key.clone());
            Ok::<_, Error>((mapping, key.filter(|_| inode.row.linked)))
        })?;
        let (mapping, key) = found;
        let most = mapping.store.capabilities().max_metadata_bytes;
        let Some(key) = key else { return Ok(xattr_room(most, None)) };
        if mapping.is_offline() {
            return Err(Error::Offline);
        }
        let head = interruptible(mapping.store.head(&key, HeadOptions::default())).await?;
        mapping.observe(&head);
        match head {
            Ok(meta) => Ok(xattr_room(most, Some(&meta.headers))),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(xattr_room(most, None)),
            Err(error) => Err(crate::namespace::Error::Store(error).into()),
        }
    }
}
