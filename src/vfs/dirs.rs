//! Directory streams.

use crate::namespace::Tree;
use crate::types::{FileKind, Ino};

use super::Vfs;
use super::error::{Error, Result};
use super::handles::StreamEntry;
use super::reply::DirEntry;

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
        for (index, entry) in entries.iter().enumerate().skip(skip).take(max) {
            let dots = index < 2;
            let entry_stat = if plus && !dots { self.entry_of(dir, entry) } else { None };
            page.push(DirEntry {
                ino: entry.ino,
                next_offset: index as u64 + 1,
                kind: entry_stat.map_or(entry.kind, |entry: super::reply::Entry| entry.stat.kind),
                name: entry.name.clone(),
                entry: entry_stat,
            });
        }
        Ok(page)
    }

    /// The entry's stat, if the name still means the same inode and its attributes are known: what
    /// is not known is asked for by a lookup when a program wants it.
    fn entry_of(&self, dir: Ino, entry: &StreamEntry) -> Option<super::reply::Entry> {
        let same = self.inner.namespace.read(|tree| {
            tree.child(dir, &entry.name) == Some(entry.ino)
                && tree.get(entry.ino).is_some_and(|inode| inode.row.attrs_known)
        });
        if same { self.entry(entry.ino).ok() } else { None }
    }
}
