//! One mapping: a directory of the mount and the bucket prefix it shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::{ObjectStore, Outcome, Terms};
use crate::types::{Attrs, FileKind, Ino, Key, TargetId, TimeNs};

/// Attributes of objects that carry none.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of directories.
    pub dir_mode: u32,
}

impl Defaults {
    /// The attributes of an object of which only the kind and the store's time are known.
    pub fn attrs(&self, kind: FileKind, mtime: TimeNs) -> Attrs {
        let mode = match kind {
            FileKind::File | FileKind::Fifo | FileKind::Socket | FileKind::CharDevice(_) | FileKind::BlockDevice(_) => {
                self.file_mode
            }
            FileKind::Dir => self.dir_mode,
            FileKind::Symlink => 0o777,
        };
        Attrs { mode, uid: self.uid, gid: self.gid, mtime }
    }
}

/// What becomes of another host's version where something here waits for the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflict {
    /// It is copied to a name of its own, then ours goes to the name.
    #[default]
    KeepBoth,
    /// Ours goes over it.
    Ours,
    /// It keeps the name; ours goes up under a name of its own.
    Theirs,
}

/// A directory of the mount and what it shows.
#[derive(Debug)]
pub struct Mapping {
    /// Its number in the journal.
    pub target: TargetId,
    /// The directory below the mount's root; empty for a mapping at `/`.
    pub name: String,
    /// Begins every key; empty or ending with `/`.
    pub prefix: String,
    /// The bucket.
    pub store: Arc<dyn ObjectStore>,
    /// The sync task that hears of its objects.
    pub sync: Option<TargetId>,
    /// Of objects that carry none.
    pub defaults: Defaults,
    /// Storage class of new objects; `None`: the bucket's standard.
    pub storage_class: Option<String>,
    /// ACL, encryption and tags of what is written here.
    pub terms: Terms,
    /// What becomes of another host's version where something here waits for the bucket.
    pub conflict: Conflict,
    /// Nobody else writes there: what was seen once is believed for good.
    pub exclusive: bool,
    offline: AtomicBool,
}

/// Keys below `<prefix>` + this hold versions that a rename cycle moved out of the way (R3); they
/// are never shown and never announced.
pub(crate) const RESERVED_NAME: &str = ".ferryfs-moving";

impl Mapping {
    /// A mapping that is online until a call fails.
    pub fn new(
        target: TargetId,
        name: String,
        prefix: String,
        store: Arc<dyn ObjectStore>,
        sync: Option<TargetId>,
        defaults: Defaults,
    ) -> Mapping {
        Mapping {
            target,
            name,
            prefix,
            store,
            sync,
            defaults,
            storage_class: None,
            terms: Terms::default(),
            conflict: Conflict::default(),
            exclusive: false,
            offline: AtomicBool::new(false),
        }
    }

    /// `provider://bucket/prefix`: its name in the journal (J4) and in tags of backing files (J5).
    pub fn identity(&self) -> String {
        format!("{}/{}", self.store.name(), self.prefix)
    }

    /// The inode of its directory, if it is the mount's root.
    pub fn is_root(&self) -> bool {
        self.name.is_empty()
    }

    /// P7: calls that need the store fail fast until a probe succeeds.
    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// Takes note of how a call on the store ended; says so once on each change.
    pub fn observe<T>(&self, result: &crate::store::Result<T>) {
        match result {
            Ok(_) => self.answered(),
            Err(error) => self.observe_failure(error),
        }
    }

    /// The same of a call that failed.
    pub fn observe_failure(&self, error: &crate::store::Error) {
        if !error.is_offline() {
            return self.answered();
        }
        // It was on its way when the connection broke, and was not tried again: the look that
        // settles it tells whether the store is there.
        if error.outcome() == Outcome::Unknown && error.attempts <= 1 {
            return;
        }
        if !self.offline.swap(true, Ordering::Relaxed) {
            tracing::warn!(store = self.store.name(), %error, "mapping is offline");
        }
    }

    fn answered(&self) {
        if self.offline.swap(false, Ordering::Relaxed) {
            tracing::info!(store = self.store.name(), "mapping is online again");
        }
    }

    /// The store gave no answer in the time that there was.
    pub fn went_offline(&self) {
        self.offline.store(true, Ordering::Relaxed);
    }

    /// Whether a key is one that is never shown and never announced.
    pub fn is_reserved(&self, key: &Key) -> bool {
        let below = key.as_str().strip_prefix(self.prefix.as_str()).and_then(|path| path.strip_prefix(RESERVED_NAME));
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The reserved key of a version of an inode of this mount (R3): inode numbers are every
    /// host's own.
    pub fn reserved_key(&self, mount_uuid: &str, ino: Ino, generation: u64) -> Key {
        Key(format!("{}{RESERVED_NAME}/{mount_uuid}.{ino}.{generation}", self.prefix))
    }
}
