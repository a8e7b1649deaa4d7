//! Asking the bucket for the attributes of one object (N3): listings carry none.

use futures::stream::StreamExt;

use crate::journal::{AttributeRow, Durability, Op};
use crate::store::{self, ErrorKind, GetOptions, HeadOptions, ObjectMeta};
use crate::task::interruptible;
use crate::types::{FileKind, Ino};

use super::Namespace;
use super::error::{Error, Result};
use super::headers::{attributes_of, xattrs_of};
use super::mapping::Mapping;
use super::merge::{Moment, remote_of};

/// Longest target of a symbolic link (PATH_MAX).
const LINK_MAX: u64 = 4096;

impl Namespace {
    /// The inode's attributes are the true ones when this returns; the inode that now stands at the
    /// path, if the bucket has another version or kind there than was thought.
    ///
    /// # Errors
    /// The store failed or is offline; the object is gone ([`Error::NotFound`]).
    pub async fn ensure_attributes(&self, ino: Ino) -> Result<Ino> {
        loop {
            let asked = self.read(|tree| {
                let inode = tree.get(ino).ok_or(Error::NotFound)?;
                if inode.row.attrs_known || tree.is_top(ino) || !inode.row.linked {
                    return Ok(None);
                }
                let mapping = tree.mapping_of(ino).cloned().ok_or(Error::NotFound)?;
                let key = tree.place(ino).ok_or(Error::NotFound)?;
                Ok::<_, Error>(Some((mapping, key, inode.row.kind)))
            })?;
            let Some((mapping, key, kind)) = asked else { return Ok(ino) };
            if mapping.is_offline() {
                return Err(Error::Offline(mapping.store.name().to_owned()));
            }
            let head = interruptible(mapping.store.head(&key, HeadOptions::default())).await?;
            mapping.observe(&head);
            // Copied to another name while the store was asked: the answer is of a key that it has left.
            // Each turn is one move of the object.
            if self.read(|tree| tree.get(ino).is_some() && tree.place(ino).as_ref() != Some(&key)) {
                continue;
            }
            let taken = match head {
                // Content under the marker's key is a file's (N2): the directory has no marker.
                Ok(meta) if kind == FileKind::Dir && meta.size > 0 => {
                    self.without_marker(ino);
                    Ok(Some(ino))
                }
                Ok(meta) => interruptible(self.take_attributes(ino, &mapping, meta)).await?,
                Err(error) if error.kind == ErrorKind::NotFound && kind == FileKind::Dir => {
                    self.without_marker(ino);
                    Ok(Some(ino))
                }
                Err(error) if error.kind == ErrorKind::NotFound => {
                    interruptible(self.confirm(ino)).await?;
                    Err(Error::NotFound)
                }
                Err(error) => Err(error.into()),
            };
            if let Some(current) = taken? {
                return Ok(current);
            }
        }
    }

    /// A prefix without a marker: the defaults are its attributes.
    fn without_marker(&self, ino: Ino) {
        self.touch(|tree| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.row.attrs_known = true;
            }
        });
    }

    /// `None`: the object has left the key that was asked.
    async fn take_attributes(&self, ino: Ino, mapping: &Mapping, meta: ObjectMeta) -> Result<Option<Ino>> {
        let (kind, attrs) = attributes_of(&meta, &mapping.defaults);
        let symlink = match kind {
            FileKind::Symlink if meta.size <= LINK_MAX => Some(read_link(mapping, &meta).await?),
            _ => None,
        };
        let kind = if symlink.is_none() && kind == FileKind::Symlink { FileKind::File } else { kind };
        let row = AttributeRow {
            target: mapping.target,
            key: meta.key.clone(),
            etag: meta.etag.clone(),
            kind,
            attrs,
            symlink: symlink.clone(),
            crc64: meta.crc64,
            xattrs: xattrs_of(&meta),
        };
        let moment = Moment { began: self.clock().monotonic(), now: self.clock().now() };
        let ((current, replaced), commit) = self.update(Durability::Buffered, |tree, ops| {
            let Some(inode) = tree.get(ino) else { return (Err(Error::NotFound), Vec::new()) };
            if inode.row.attrs_known {
                return (Ok(Some(ino)), Vec::new());
            }
            if inode.row.linked && tree.place(ino).as_ref() != Some(&meta.key) {
                // Its old key, taken back as its version's, would be copied once more or, removed by
                // then, cost it its name.
                return (Ok(None), Vec::new());
            }
            ops.push(Op::PutAttribute(row.clone()));
            let same_version =
                inode.row.remote.as_ref().is_none_or(|remote| remote.etag == meta.etag || inode.is_dir());
            if tree.is_pending(ino) {
                // Renamed here: the version that was listed moves on, and it may prove to be a link.
                // Whatever else waits here wins over what the bucket says (R7).
                let changed = inode.row.attr_generation != inode.row.remote_attr_generation || inode.is_dirty();
                let moved = inode.row.remote.as_ref().is_some_and(|remote| remote.key == meta.key);
                if moved
                    && same_version
                    && !changed
                    && inode.is_dir() == (kind == FileKind::Dir)
                    && let Some(inode) = tree.get_mut(ino)
                {
                    inode.row.kind = kind;
                    inode.row.attrs = attrs;
                    inode.row.attrs_known = true;
                    inode.row.symlink = symlink;
                    inode.row.xattrs = row.xattrs;
                    tree.persist(ino, ops);
                }
                return (Ok(Some(ino)), Vec::new());
            }
            if !(inode.row.kind == kind && same_version) {
                let (dir, name) = (inode.row.parent, inode.row.name.clone());
                let replaced = tree.obsolete(dir, &name, moment.now, ops);
                let current = tree.discover(dir, &name, &meta, Some(&row), moment).ok_or(Error::NotFound);
                return (current.map(Some), replaced);
            }
            tree.set_remote(ino, Some(remote_of(&meta)));
            if let Some(inode) = tree.get_mut(ino) {
                inode.row.attrs = attrs;
                inode.row.attrs_known = true;
                inode.row.symlink = symlink;
                inode.row.xattrs = row.xattrs;
                inode.row.ctime = meta.last_modified.unwrap_or(moment.now);
                inode.checked = Some(moment.began);
            }
            (Ok(Some(ino)), Vec::new())
        });
        commit.in_background();
        self.announce(replaced);
        current
    }
}

async fn read_link(mapping: &Mapping, meta: &ObjectMeta) -> Result<String> {
    let options = GetOptions { if_match: Some(meta.etag.clone()), ..GetOptions::default() };
    let mut got = mapping.store.get(&meta.key, options).await?;
    let mut target = Vec::new();
    while let Some(chunk) = got.body.next().await {
        target.extend_from_slice(&chunk?);
    }
    String::from_utf8(target).map_err(|_| {
        Error::Store(store::Error {
            kind: ErrorKind::BadReply,
            outcome: store::Outcome::NotApplied,
            what: format!("GET {}/{}", mapping.store.name(), meta.key),
            status: None,
            code: None,
            message: Some("the target of the symbolic link is not UTF-8".to_owned()),
            request_id: None,
            attempts: 1,
            retry_after_s: None,
            source: None,
        })
    })
}
