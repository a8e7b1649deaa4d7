//! An inode in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::journal::{Content, InodeRow};
use crate::types::{FileKind, Ino, TimeNs};

/// What is known of a directory's entries.
#[derive(Clone, Debug, Default)]
pub struct DirState {
    /// Name to inode.
    pub children: BTreeMap<String, Ino>,
    /// Monotonic time at which the last complete listing began; `None`: never listed.
    pub listed: Option<Duration>,
    /// The last listing took more than one page.
    pub large: bool,
}

/// An inode in memory: its row and what no row holds.
#[derive(Clone, Debug)]
pub struct Inode {
    /// What the journal holds of it, or would hold.
    pub row: InodeRow,
    /// The journal has its row.
    pub persisted: bool,
    /// Of directories.
    pub dir: Option<DirState>,
    /// The kernel's references.
    pub lookups: u64,
    /// Open handles.
    pub handles: u32,
    /// Open handles that may write.
    pub writers: u32,
    /// Monotonic time at which an own operation on it last settled (R7).
    pub settled: Option<Duration>,
    /// Monotonic time at which the bucket last confirmed its remote version.
    pub checked: Option<Duration>,
    /// An attempt for it is under way; its row must stay.
    pub attempting: bool,
    /// Clean content from before a reboot: compare its CRC before use (C5).
    pub unverified: bool,
    /// Access time, as a program set it; not kept in the bucket.
    pub atime: Option<TimeNs>,
    /// Monotonic time of the first change since the last upload began (the delay's upper bound).
    pub dirty_since: Option<Duration>,
}

impl Inode {
    /// Its number.
    pub fn ino(&self) -> Ino {
        self.row.ino
    }

    /// It is a directory.
    pub fn is_dir(&self) -> bool {
        self.row.kind == FileKind::Dir
    }

    /// Local content differs from the bucket, or may.
    pub fn is_dirty(&self) -> bool {
        matches!(self.row.content, Content::Open | Content::Flushed | Content::Closed | Content::Torn)
    }

    /// Something here has no equal in the bucket yet; `key` is its wanted key.
    pub fn is_pending(&self, key: &str) -> bool {
        if !self.row.linked {
            return false;
        }
        if self.is_dirty() {
            return true;
        }
        match (&self.row.remote, self.row.kind) {
            (None, FileKind::Dir) => self.row.marker_wanted,
            (None, FileKind::File | FileKind::Symlink) => true,
            (Some(remote), _) => {
                remote.key.as_str() != key || self.row.attr_generation != self.row.remote_attr_generation
            }
        }
    }

    /// Nobody in the kernel or in a program refers to it.
    pub fn is_unused(&self) -> bool {
        self.lookups == 0 && self.handles == 0 && !self.attempting
    }
}
