//! Local content: fetched, verified, made anew, let go.

use std::fs::File;
use std::sync::Arc;

use crate::cache::{Cache, Tag, TagState};
use crate::checksum::Crc64Hasher;
use crate::download;
use crate::journal::{Content, Durability, Remote};
use crate::namespace::{Mapping, Tree};
use crate::types::{Attrs, BackingNo, Ino};

use super::error::{Error, Result};
use super::{Inner, Vfs};

/// Bytes read at once when content is summed.
const SUM_CHUNK: usize = 1 << 20;

impl Vfs {
    /// The whole content is here, in a backing file, when this returns.
    pub(super) async fn ensure_local(&self, ino: Ino) -> Result<()> {
        let (content, unverified) = self.inner.namespace.read(|tree| {
            let inode = tree.get(ino).ok_or(Error::NotFound)?;
            Ok::<_, Error>((inode.row.content, inode.unverified))
        })?;
        match content {
            Content::Absent => self.fetch(ino).await,
            Content::Clean if unverified => {
                if self.verify(ino).await? {
                    Ok(())
                } else {
                    self.fetch(ino).await
                }
            }
            Content::Clean | Content::Open | Content::Flushed | Content::Closed | Content::Torn => Ok(()),
        }
    }

    pub(super) fn remote(&self, ino: Ino) -> Result<(Arc<Mapping>, Remote)> {
        self.inner.namespace.read(|tree| {
            let inode = tree.get(ino).ok_or(Error::NotFound)?;
            let mapping = tree.mapping_of(ino).cloned().ok_or(Error::NotFound)?;
            match inode.origin() {
                Some(remote) => Ok((mapping, remote.clone())),
                None => {
                    let path = tree.shown_path(ino);
                    tracing::error!(path, "neither the bucket nor the cache has the content");
                    Err(Error::Corrupt)
                }
            }
        })
    }

    /// What is small is here before its inode is locked: others who want it wait for the same fetch, and not
    /// for whoever came first.
    pub(super) async fn bring(&self, ino: Ino) -> Result<()> {
        let most = self.inner.options.whole_below;
        let missing = self.with_inode(ino, |inode| inode.row.content == Content::Absent && inode.row.size <= most)?;
        if missing { self.fetch(ino).await } else { Ok(()) }
    }

    /// As [`Vfs::fetch`], once. May be dropped at any time.
    pub(super) async fn fetch_whole(&self, ino: Ino) -> Result<()> {
        let (mapping, remote) = self.remote(ino)?;
        if mapping.is_offline() {
            return Err(Error::Offline);
        }
        self.make_room(remote.size).await?;
        let cache = &self.inner.cache;
        let (backing, file) = cache.create_clean(remote.size)?;
        let unowned = Unowned { cache, backing: Some(backing) };
        let file = Arc::new(file);
        let fetched = self.inner.downloader.fetch(&mapping.store, &remote, &file).await;
        drop(file);
        match fetched {
            Ok(fetched) => {
                unowned.keep();
                self.adopt(ino, backing, Some(fetched.crc64)).await
            }
            Err(error) => Err(self.download_error(ino, error)),
        }
    }

    /// A verified backing file becomes the inode's clean content.
    pub(super) async fn adopt(&self, ino: Ino, backing: BackingNo, crc: Option<crate::types::Crc64>) -> Result<()> {
        let tag = self.inner.namespace.read(|tree| {
            let remote = tree.get(ino)?.origin()?;
            let clean = TagState::Clean(remote.etag.clone(), remote.crc64.or(crc));
            Vfs::tag(tree, ino, clean).map(|tag| Tag { key: remote.key.0.clone(), ..tag })
        });
        if let Some(tag) = tag {
            self.inner.cache.retag(&self.inner.cache.open_read(backing)?, &tag)?;
        }
        let (adopted, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let inode = tree.get_mut(ino)?;
            if inode.row.content != Content::Absent {
                return None;
            }
            inode.row.content = Content::Clean;
            inode.row.backing = Some(backing);
            inode.unverified = false;
            if let Some(remote) = inode.row.remote.as_mut().filter(|_| inode.copied.is_none()) {
                remote.crc64 = remote.crc64.or(crc);
            }
            let size = inode.row.size;
            tree.persist(ino, ops);
            Some(size)
        });
        match adopted {
            Some(size) => {
                self.inner.cache.tell(backing, size, true);
                commit.durable().await?;
            }
            None => {
                commit.in_background();
                self.inner.cache.discard(backing);
            }
        }
        Ok(())
    }

    /// C5: clean content from before a reboot counts only if its CRC says so. `false`: it was
    /// dropped.
    async fn verify(&self, ino: Ino) -> Result<bool> {
        let (backing, remote) = self.inner.namespace.read(|tree| {
            let inode = tree.get(ino).ok_or(Error::NotFound)?;
            Ok::<_, Error>((inode.row.backing, inode.origin().cloned()))
        })?;
        let (Some(backing), Some(remote)) = (backing, remote) else { return Err(Error::Corrupt) };
        let file = self.inner.cache.open_read(backing);
        let good = match (file, remote.crc64) {
            (Ok(file), Some(crc)) => {
                let summed = tokio::task::spawn_blocking(move || sum(&file)).await;
                summed.is_ok_and(|sum| sum.is_ok_and(|(size, sum)| size == remote.size && sum == crc))
            }
            _ => false,
        };
        if good {
            self.inner.namespace.touch(|tree| {
                if let Some(inode) = tree.get_mut(ino) {
                    inode.unverified = false;
                }
            });
            return Ok(true);
        }
        tracing::warn!(%ino, "cached content did not survive the reboot; it is fetched again");
        let ((), commit) = self.inner.namespace.update(Durability::Disk, |tree, ops| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.row.content = Content::Absent;
                inode.row.backing = None;
                inode.unverified = false;
                tree.persist(ino, ops);
            }
        });
        commit.durable().await?;
        self.inner.cache.discard(backing);
        Ok(false)
    }

    /// Unlinks backing files once the rows that let them go are on disk (J2).
    pub(super) fn trash(&self, backing: Option<BackingNo>) {
        let Some(backing) = backing else { return };
        let vfs = self.clone();
        self.inner.guardian.spawn("trash", async move {
            vfs.inner.namespace.barrier().await?;
            vfs.inner.cache.discard(backing);
            Ok::<(), Error>(())
        });
    }

    /// What the backing file of an inode tells of itself (J5): its row, in short.
    pub(super) fn tag(tree: &Tree, ino: Ino, state: TagState) -> Option<Tag> {
        let row = &tree.get(ino)?.row;
        let key = tree.held_key(ino)?;
        // As the uploader expects it there (R4): its own version, or the one that it was renamed over.
        let own = row.remote.as_ref().filter(|remote| remote.key == key).map(|remote| &remote.etag);
        let base = own.or_else(|| tree.removal(row.target, &key).map(|removal| &removal.etag)).cloned();
        Some(Tag {
            mapping: tree.mapping_of(ino)?.identity(),
            key: key.0,
            ino,
            generation: row.generation,
            attrs: row.attrs,
            base,
            state,
        })
    }

    /// What content is tagged as that programs may be changing.
    pub(super) fn open_now(&self) -> TagState {
        TagState::Open(self.inner.options.boot_id.clone())
    }

    /// The tag of a file that is to be made in `dir`.
    pub(super) fn tag_of_new(tree: &Tree, dir: Ino, key: String, attrs: Attrs, state: TagState) -> Tag {
        let mapping = tree.mapping_of(dir).map_or_else(String::new, |mapping| mapping.identity());
        Tag { mapping, key, ino: Ino(0), generation: 1, attrs, base: None, state }
    }

    pub(super) fn download_error(&self, ino: Ino, error: download::Error) -> Error {
        let path = self.inner.namespace.read(|tree| tree.shown_path(ino));
        match error {
            download::Error::Changed(_) | download::Error::Gone(_) => {
                self.inner
                    .namespace
                    .read(|tree| tree.get(ino).map(|inode| inode.row.parent))
                    .into_iter()
                    .for_each(|parent| self.inner.namespace.expire(parent));
                self.inner.namespace.touch(|tree| {
                    if let Some(inode) = tree.get_mut(ino) {
                        inode.checked = None;
                        inode.settled = None;
                    }
                });
                tracing::info!(path, %error, "the object changed elsewhere");
                Error::Stale
            }
            download::Error::Corrupt { .. } => Error::Corrupt,
            download::Error::Store(error) => {
                tracing::warn!(path, %error, "not readable now");
                if let Ok(mapping) = self.mapping(ino) {
                    mapping.observe_failure(&error);
                }
                if error.is_offline() {
                    Error::Offline
                } else if error.kind == crate::store::ErrorKind::Archived {
                    Error::Archived
                } else {
                    Error::Store(*error)
                }
            }
            download::Error::Io { source, .. } => {
                tracing::error!(path, error = %source, "there is no file to read it into");
                Error::Io(source)
            }
            other @ download::Error::Cancelled(_) => {
                tracing::error!(path, error = %other, "not readable now");
                Error::Io(std::io::Error::other(other.to_string()))
            }
        }
    }
}

/// A backing file that no row names: nothing has to be on disk before it goes (J2), and it goes unless kept.
struct Unowned<'a> {
    cache: &'a Cache,
    backing: Option<BackingNo>,
}

impl Unowned<'_> {
    fn keep(mut self) {
        self.backing = None;
    }
}

impl Drop for Unowned<'_> {
    fn drop(&mut self) {
        if let Some(backing) = self.backing {
            self.cache.discard(backing);
        }
    }
}

impl Inner {
    /// The backing file of an inode, for looking at it.
    pub(super) fn backing_file(&self, ino: Ino) -> Result<(BackingNo, File)> {
        let backing =
            self.namespace.read(|tree| tree.get(ino).and_then(|inode| inode.row.backing)).ok_or(Error::NotFound)?;
        Ok((backing, self.cache.open_read(backing)?))
    }
}

/// Bytes and CRC64 of a file.
pub(super) fn sum(file: &File) -> std::io::Result<(u64, crate::types::Crc64)> {
    use std::os::unix::fs::FileExt;
    let mut hasher = Crc64Hasher::new();
    let mut buffer = vec![0; SUM_CHUNK];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
            return Ok((offset, hasher.finish()));
        };
        hasher.update(chunk);
        offset += read as u64;
    }
}
