//! Inodes and listings: what names mean, what is wanted, what the bucket has.
//!
//! # Promise
//! One tree in memory, one lock, one journal: a change of the tree and its rows are queued under
//! the same lock, so the order on disk is the order in memory.
//!
//! # Invariants
//! 1. Every inode whose wanted and remote version differ, or that has local content, has a row (or a
//!    directory above it has a source that shows it again, R5), and
//!    so have all its ancestor directories.
//! 2. `by_remote` holds exactly the inodes whose `remote` is at that key (R3), `by_copied` those whose `copied` is.
//! 3. (R7) Local changes win over listings; own operations override listings begun before they
//!    settled and for 60 s after; an own object missing from a listing is HEADed before it is
//!    dropped.
//! 4. A new remote version gets a new inode number; the old inode lives on nameless while it is
//!    used (C1).
//! 5. (R5) A directory's children are what lies at its prefix and, until they are moved, what lies at
//!    its sources; an object has one place: the home of the inode whose version it is, else the first
//!    rename of (a directory above) its key that is not older than it, else its key.
//! 6. The tree lock is never held across an await, and no other lock is taken under it but the
//!    journal's queue.

mod aside;
mod attributes;
mod change;
mod conflict;
mod copied;
mod defaults;
mod error;
mod escape;
mod headers;
mod held;
mod inode;
mod listing;
mod mapping;
mod merge;
mod moves;
mod odd;
mod recheck;
mod restore;
mod sources;
mod tree;
mod xattrs;

pub use change::{Renamed, Unlinked};
pub use conflict::Kept;
pub use error::{Error, Result};
pub use headers::{FERRY_HEADER, MD5_HEADER, Made, attributes_of, headers_for, is_rewritten, xattr_room, xattrs_of};
pub use held::Discarded;
pub use inode::{DirState, Inode, Offered, Source};
pub use listing::Lookup;
pub use mapping::{Conflict, Defaults, Mapping};
pub use merge::{Replaced, remote_of};
pub use moves::Adopted;
pub use odd::{OddKey, OddKeys};
pub use tree::Tree;
pub use xattrs::Xattrs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::journal::{self, Durability, Journal, Op, Receipt, Snapshot};
use crate::types::Ino;

/// How the room behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long what the bucket said is believed.
    pub attr_ttl: Duration,
}

/// Handle of the room; cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

struct Inner {
    /// First and only lock of the room; see invariant 6.
    tree: Mutex<Tree>,
    journal: Journal,
    clock: Arc<dyn Clock>,
    options: Options,
    /// One listing of a directory at a time; who comes meanwhile waits for it.
    listing: Mutex<HashMap<Ino, Arc<tokio::sync::Mutex<()>>>>,
    /// Inodes that were replaced or dropped by what the bucket said; the kernel must forget them.
    replaced: tokio::sync::mpsc::UnboundedSender<Replaced>,
}

/// A queued change of the journal.
#[must_use = "a change is durable only when its commit is awaited"]
pub struct Commit(Option<Receipt>);

impl Commit {
    /// Waits until the change is as durable as it was asked to be.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn durable(self) -> journal::Result<()> {
        match self.0 {
            Some(receipt) => receipt.await,
            None => Ok(()),
        }
    }

    /// For changes that nobody waits for: a later barrier or the next commit carries them, and a
    /// failed journal stops the mount by itself.
    pub fn in_background(self) {}
}

impl Namespace {
    /// Builds the tree from the mappings and the journal's rows. The receiver gets what the bucket
    /// made obsolete.
    ///
    /// # Errors
    /// The journal cannot reserve numbers.
    pub fn open(
        journal: Journal,
        clock: Arc<dyn Clock>,
        options: Options,
        mappings: Vec<Arc<Mapping>>,
        snapshot: &Snapshot,
    ) -> Result<(Namespace, tokio::sync::mpsc::UnboundedReceiver<Replaced>)> {
        let (replaced, receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut ops = Vec::new();
        let mut tree = Tree::build(journal.clone(), mappings, snapshot, clock.now(), &mut ops)?;
        tree.renew_defaults(&journal, &mut ops)?;
        journal.submit(ops, Durability::Buffered).wait()?;
        let inner =
            Inner { tree: Mutex::new(tree), journal, clock, options, listing: Mutex::new(HashMap::new()), replaced };
        Ok((Namespace { inner: Arc::new(inner) }, receiver))
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        // A panic under the lock stops the mount loudly (task room); until then reads stay possible.
        self.inner.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the tree.
    pub fn read<T>(&self, look: impl FnOnce(&Tree) -> T) -> T {
        look(&self.lock())
    }

    /// Changes what no row holds (lookup counts, handles).
    pub fn touch<T>(&self, change: impl FnOnce(&mut Tree) -> T) -> T {
        change(&mut self.lock())
    }

    /// Changes the tree and queues the rows that the change asks for, in one batch.
    pub fn update<T>(&self, durability: Durability, change: impl FnOnce(&mut Tree, &mut Vec<Op>) -> T) -> (T, Commit) {
        let mut tree = self.lock();
        let mut ops = Vec::new();
        let value = change(&mut tree, &mut ops);
        tree.note_attempts(&ops);
        let commit = if ops.is_empty() && durability == Durability::Buffered {
            Commit(None)
        } else {
            Commit(Some(self.inner.journal.submit(ops, durability)))
        };
        drop(tree);
        (value, commit)
    }

    /// Everything queued so far is on disk when this resolves.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn barrier(&self) -> journal::Result<()> {
        self.inner.journal.submit(Vec::new(), Durability::Disk).await
    }

    /// Everything queued so far survives the daemon when this resolves.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn committed(&self) -> journal::Result<()> {
        self.inner.journal.submit(Vec::new(), Durability::Buffered).await
    }

    /// The journal below.
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// How long what the bucket said is believed, at most.
    pub fn attr_ttl(&self) -> Duration {
        self.inner.options.attr_ttl
    }
}
