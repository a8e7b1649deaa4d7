//! An inode in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::journal::{Content, Hold, InodeRow, Mark, PartialRow, Remote};
use crate::types::{BackingNo, FileKind, Ino, TimeNs};

/// A prefix that still holds children of a renamed directory (R5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Ends with `/`.
    pub prefix: String,
    /// The store's time of the rename, whole seconds in nanoseconds (a few nanoseconds more where two
    /// renames share a second): what is newer there belongs to the old name.
    pub at: TimeNs,
}

/// What is known of a directory's entries.
#[derive(Clone, Debug, Default)]
pub struct DirState {
    /// Name to inode; changed by [`DirState::put`] and [`DirState::take`] only.
    children: BTreeMap<String, Ino>,
    /// How many of them are directories: stat(2) must not count a million entries.
    dirs: u32,
    /// Monotonic time at which the last complete listing began; `None`: never listed.
    pub listed: Option<Duration>,
    /// Prefixes that still hold children of it, in the order of its renames (R5).
    pub sources: Vec<Source>,
    /// The last listing took more than one page.
    pub large: bool,
}

impl DirState {
    /// Name to inode.
    pub fn children(&self) -> &BTreeMap<String, Ino> {
        &self.children
    }

    /// How many of the entries are directories.
    pub fn dirs(&self) -> u32 {
        self.dirs
    }

    /// Enters an inode under a name that is free here.
    pub(super) fn put(&mut self, name: &str, ino: Ino, is_dir: bool) {
        self.children.insert(name.to_owned(), ino);
        self.dirs += u32::from(is_dir);
    }

    /// Takes a name out; `is_dir`: of what it means.
    pub(super) fn take(&mut self, name: &str, is_dir: bool) {
        if self.children.remove(name).is_some() {
            self.dirs = self.dirs.saturating_sub(u32::from(is_dir));
        }
    }
}

/// A version of a file that is open for writing, to be uploaded all the same: somebody asked for it
/// (a close or fsync that waits for the bucket, `upload_open`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Generation that stands for exactly this version; the row's is another one by now, or will be
    /// as soon as something is written.
    pub generation: u64,
    /// Where its bytes are.
    pub backing: BackingNo,
    /// What that file looks like while it holds the version.
    pub mark: Mark,
    /// `backing` is a private copy that nobody writes to; otherwise it is the open file itself.
    pub copied: bool,
}

/// An inode in memory: its row and what no row holds.
#[derive(Clone, Debug)]
pub struct Inode {
    /// What the journal holds of it, or would hold.
    pub row: InodeRow,
    /// The journal has its row.
    pub persisted: bool,
    /// What its dirty content still lacks (C7); has a row of its own.
    pub partial: Option<PartialRow>,
    /// Another inode's version that it is a copy of, and that the store is to copy to its key; has a row of its
    /// own. Means something as long as the content is that version's: absent, clean, or partial with it as base.
    pub copied: Option<Remote>,
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
    /// Another version was given its name on demand: who opens it must look the name up again.
    pub displaced: bool,
    /// A version that goes up although the file is open.
    pub offered: Option<Offered>,
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

    /// Ranges of its remote version that are not here are still needed: by an open handle, or to make
    /// its dirty content whole (C7). Neither that version nor its key may go meanwhile.
    pub fn needs_remote(&self) -> bool {
        self.copied.is_none() && self.needs_origin()
    }

    /// The version that it is a copy of is still needed: to be copied by the store, or for ranges of it.
    pub fn needs_copied(&self) -> bool {
        self.copied.is_some()
            && match (&self.partial, self.row.content) {
                (None, Content::Absent) => self.handles > 0 || self.row.linked,
                _ => self.needs_origin(),
            }
    }

    /// Its content is another's version, of which the store has not made it a copy yet; what of it is here may be
    /// evicted, or is not all.
    pub fn is_borrowed(&self) -> bool {
        self.copied.is_some()
            && self.row.linked
            && (self.partial.is_some() || matches!(self.row.content, Content::Absent | Content::Clean))
    }

    /// The version whose bytes its content is, as far as they are not here.
    pub fn origin(&self) -> Option<&Remote> {
        self.copied.as_ref().or(self.row.remote.as_ref())
    }

    fn needs_origin(&self) -> bool {
        let open = self.handles > 0;
        match (&self.partial, self.row.content) {
            // Its base is gone: there is nothing left to be kept.
            (Some(_), _) if self.row.hold == Some(Hold::Incomplete) => false,
            (Some(_), _) => open || self.row.linked,
            (None, content) => open && content == Content::Absent,
        }
    }

    /// Something here has no equal in the bucket yet; `key` is its wanted key.
    pub fn is_pending(&self, key: &str) -> bool {
        if !self.row.linked {
            return false;
        }
        if self.is_dirty() || self.copied.is_some() {
            return true;
        }
        match (&self.row.remote, self.row.kind) {
            (None, FileKind::Dir) => self.row.marker_wanted,
            (None, _) => true,
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
