//! Directory streams.

use std::time::Duration;

use crate::namespace::Tree;
use crate::types::{FileKind, Ino};

use super::Vfs;
use super::error::{Error, Result};
use super::handles::StreamEntry;
use super::reply::{DirEntry, Entry};

fn snapshot(tree: &Tree, dir: Ino) -> Result<Vec<StreamEntry>> {
    let inode = tree.get(dir).ok_or(Error::NotFound)?;
    let children = tree.children(dir).ok_or(Error::NotDirectory)?;
    let parent = if tree.is_top(dir) { Ino::ROOT } else { inode.row.parent };
    let mut entries = Vec::with_capacity(children.len() + 2);
    entries.push(StreamEntry { ino: dir, kind: FileKind::Dir, name: ".".to_owned() });
    entries.push(StreamEntry { ino: parent, kind: FileKind::Dir, name: "..".to_owned() });
    for (name, ino) in children {
        if let Some(child) = tree.get(*ino)
            && !tree.is_reserved(dir, name)
        {
            entries.push(StreamEntry { ino: *ino, kind: child.row.kind, name: name.clone() });
        }
    }
    Ok(entries)
}

impl Vfs {
    pub(super) async fn do_opendir(&self, dir: Ino) -> Result<u64> {
        self.inner.namespace.refresh(dir).await?;
        let entries = self.inner.namespace.read(|tree| snapshot(tree, dir))?;
        Ok(self.inner.streams.insert(entries))
    }

    pub(super) async fn do_readdir(
        &self,
        dir: Ino,
        fh: u64,
        offset: u64,
        max: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>> {
        let mut entries = self.inner.streams.get(fh).ok_or(Error::BadHandle)?;
        if offset == 0 {
            // Opened a moment ago, or rewound: rewinddir(3) shows the directory as it is now.
            self.inner.namespace.refresh(dir).await?;
            let fresh = self.inner.namespace.read(|tree| snapshot(tree, dir))?;
            self.inner.streams.replace(fh, fresh);
            entries = self.inner.streams.get(fh).ok_or(Error::BadHandle)?;
        }
        let skip = usize::try_from(offset).map_err(|_| Error::Invalid)?;
        let mut page = Vec::new();
        for (index, entry) in entries.iter().enumerate().skip(skip) {
            if page.len() == max {
                break;
            }
            let dots = index < 2;
            // Removed since: left out. Replaced since: the name is another inode's.
            let Some(ino) = (if dots { Some(entry.ino) } else { self.now_at(dir, &entry.name) }) else { continue };
            let entry_stat = if plus && !dots { Some(self.entry_of(ino)) } else { None };
            let entry_stat = match entry_stat {
                Some(Err(_)) => continue,
                Some(Ok(entry)) => Some(entry),
                None => None,
            };
            page.push(DirEntry {
                ino,
                next_offset: index as u64 + 1,
                kind: entry_stat.map_or(entry.kind, |entry| entry.stat.kind),
                name: entry.name.clone(),
                entry: entry_stat,
            });
        }
        Ok(page)
    }

    fn now_at(&self, dir: Ino, name: &str) -> Option<Ino> {
        self.inner.namespace.read(|tree| tree.child(dir, name))
    }

    /// The entry with its stat. The kernel must not remember one whose attributes are not known: it
    /// asks by a lookup when a program wants them.
    fn entry_of(&self, ino: Ino) -> Result<Entry> {
        let mut entry = self.entry(ino)?;
        let known = self.inner.namespace.read(|tree| tree.get(ino).is_some_and(|inode| inode.row.attrs_known));
        if !known {
            entry.ttl = Duration::ZERO;
            entry.stat.ttl = Duration::ZERO;
        }
        Ok(entry)
    }
}
