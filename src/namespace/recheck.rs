//! How long answers may be believed, and asking the bucket again on demand.

use std::time::Duration;

use futures::stream::{self, StreamExt};

use crate::store::ObjectMeta;
use crate::types::{Ino, TimeNs};

use super::Namespace;
use super::error::{Error, Result};
use super::listing::HEADS;
use super::merge::Moment;
use super::tree::Tree;

/// How long the kernel believes names and attributes of a mapping that nobody else writes to.
const EXCLUSIVE_TTL: Duration = Duration::from_secs(3600);

impl Namespace {
    /// How long the kernel may believe that the name of an inode means it: what is left of `attr_ttl`
    /// since the bucket was asked, so that nothing is believed for longer than that.
    pub fn name_ttl(&self, ino: Ino) -> Duration {
        let ttl = self.attr_ttl();
        let now = self.clock().monotonic();
        self.read(|tree| {
            let Some(inode) = tree.get(ino) else { return Duration::ZERO };
            if tree.mapping_of(ino).is_some_and(|mapping| mapping.exclusive) {
                return EXCLUSIVE_TTL;
            }
            if tree.is_top(ino) || tree.is_pending(ino) || inode.attempting {
                // No longer: a reply that is under way when the change reaches the bucket is believed from its arrival
                // on, whatever the kernel was told to forget before, and would hide another host's change. A look at
                // what is pending asks nobody, so that once in `attr_ttl` costs nothing that would be seen.
                return ttl;
            }
            let listed = tree.get(inode.row.parent).and_then(|dir| dir.dir.as_ref()).and_then(|state| state.listed);
            match inode.checked.max(listed) {
                // Offline, or asked for under another name: the next look asks.
                None => Duration::ZERO,
                Some(at) => (at + ttl).saturating_sub(now).min(ttl),
            }
        })
    }

    /// The longest time that the kernel may believe attributes of an inode.
    pub fn attributes_ttl(&self, ino: Ino) -> Duration {
        let exclusive = self.read(|tree| tree.mapping_of(ino).is_some_and(|mapping| mapping.exclusive));
        if exclusive { EXCLUSIVE_TTL } else { self.attr_ttl() }
    }

    /// Asks the bucket, whatever is believed, for one name. What it means now.
    ///
    /// # Errors
    /// The store failed or is offline.
    pub async fn recheck_name(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        let real = self.read(|tree| tree.mapping_of(parent).map(|mapping| mapping.is_offline()));
        match real {
            // The mount's own directory of several mappings.
            None => {}
            Some(true) => {
                let name = |tree: &Tree| tree.mapping_of(parent).map(|m| m.store.name().to_owned());
                return Err(Error::Offline(self.read(name).unwrap_or_default()));
            }
            Some(false) => self.probe(parent, name).await?,
        }
        Ok(self.read(|tree| tree.child(parent, name)))
    }

    /// Asks the bucket, whatever is believed, for the entries of a directory and of all below it that are
    /// known here. How many directories were listed.
    ///
    /// # Errors
    /// The first one that could not be asked; the others were, all the same.
    pub async fn recheck_below(&self, top: Ino) -> Result<usize> {
        let dirs: Vec<Ino> = self.touch(|tree| {
            let below = tree.below(top);
            let known = |ino: &Ino| {
                let listed =
                    tree.get(*ino).and_then(|inode| inode.dir.as_ref()).is_some_and(|dir| dir.listed.is_some());
                (listed || *ino == top) && tree.mapping_of(*ino).is_some()
            };
            let dirs: Vec<Ino> = [top]
                .into_iter()
                .chain(below)
                .filter(|ino| tree.get(*ino).is_some_and(super::Inode::is_dir))
                .filter(known)
                .collect();
            for dir in &dirs {
                let children: Vec<Ino> = tree.children(*dir).into_iter().flatten().map(|(_, ino)| *ino).collect();
                for ino in children {
                    if let Some(inode) = tree.get_mut(ino) {
                        inode.checked = None;
                    }
                }
                if let Some(state) = tree.get_mut(*dir).and_then(|inode| inode.dir.as_mut()) {
                    state.listed = None;
                }
            }
            dirs
        });
        let count = dirs.len();
        let listed = stream::iter(dirs).map(|dir| async move {
            match self.list_dir(dir, false).await {
                // It went away meanwhile, with its parent's listing.
                Err(Error::NotFound) => Ok(()),
                other => other.map(|_| ()),
            }
        });
        let mut failed = Ok(());
        let mut ended = listed.buffer_unordered(HEADS);
        while let Some(one) = ended.next().await {
            failed = failed.and(one);
        }
        failed.map(|()| count)
    }
}

impl Tree {
    /// The bucket shows the version that is known. Copied onto itself by another host, as for other
    /// attributes, it keeps its ETag and only its time tells: the attributes are then asked for anew. (What
    /// happens within the second in which our own version settled, does not show.)
    pub(crate) fn seen_again(&mut self, ino: Ino, meta: &ObjectMeta, moment: Moment) {
        let pending = self.is_pending(ino);
        let store = self.mapping_of(ino).map(|mapping| mapping.store.clone());
        let Some(inode) = self.get_mut(ino) else { return };
        inode.checked = Some(moment.began);
        let settled = inode.settled;
        let (Some(remote), Some(modified), Some(store)) = (inode.row.remote.as_mut(), meta.last_modified, store) else {
            return;
        };
        if pending || inode.attempting {
            return;
        }
        let newer = match (remote.last_modified, settled) {
            (Some(known), _) => known.sec() != modified.sec(),
            // Our own version, of which nobody has told the time.
            (None, Some(settled)) => {
                let ago = i64::try_from(moment.began.saturating_sub(settled).as_nanos()).unwrap_or(i64::MAX);
                modified.sec() > store.time(TimeNs(moment.now.0.saturating_sub(ago))).sec()
            }
            // It may have been changed since the last start.
            (None, None) => true,
        };
        remote.last_modified = Some(modified);
        if newer {
            inode.row.attrs_known = false;
        }
    }
}
