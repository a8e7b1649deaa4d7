//! Asking the bucket at once, whatever is believed (`ferryfs refresh`).

use tokio::sync::mpsc::unbounded_channel;

use crate::types::Ino;

use super::Vfs;
use super::error::Result;
use super::reply::Invalidation;

impl Vfs {
    /// Asks the bucket for the entries of a directory and of all below it that are known here. What programs
    /// ask after the return is answered by what was found; how many directories were listed.
    ///
    /// # Errors
    /// The first directory that could not be asked; the others were, all the same.
    pub async fn refresh(&self, top: Ino) -> Result<usize> {
        let before: Vec<(Ino, String, Ino)> = self.inner.namespace.read(|tree| {
            let below = tree.below(top).into_iter().filter_map(|ino| tree.get(ino));
            let seen = below.filter(|inode| inode.lookups > 0);
            seen.map(|inode| (inode.row.parent, inode.row.name.clone(), inode.ino())).collect()
        });
        let listed = self.inner.namespace.recheck_below(top).await;
        for (parent, name, ino) in before {
            if self.inner.namespace.read(|tree| tree.child(parent, &name)) != Some(ino) {
                self.invalidate(Invalidation::Entry(parent, name));
                self.invalidate(Invalidation::Inode(ino));
            }
        }
        self.forgotten().await;
        Ok(listed?)
    }

    /// The same for one name; what it means now.
    ///
    /// # Errors
    /// The store failed or is offline.
    pub async fn refresh_name(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        let child = |vfs: &Vfs| vfs.inner.namespace.read(|tree| tree.child(parent, name));
        let before = child(self);
        let now = self.inner.namespace.recheck_name(parent, name).await?;
        if let Some(ino) = before.filter(|ino| now != Some(*ino)) {
            self.invalidate(Invalidation::Entry(parent, name.to_owned()));
            self.invalidate(Invalidation::Inode(ino));
            self.forgotten().await;
        }
        Ok(now)
    }

    /// The kernel has been told of every invalidation that was ordered before; at once if there is no
    /// mount to be told.
    async fn forgotten(&self) {
        let (told, mut heard) = unbounded_channel();
        self.invalidate(Invalidation::Told(told));
        // `None`: the thread that sends them has ended, and the kernel's caches with the mount.
        let _ended = heard.recv().await;
    }
}
