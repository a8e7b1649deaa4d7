//! Accounting of the space that backing files take, and which of them may go.

use std::collections::HashMap;
use std::ops::Range;

use lru::LruCache;

use crate::disk::SpaceStat;
use crate::types::BackingNo;

/// Share of the limit, in percent, that eviction makes free up to.
const EVICT_TO: u64 = 90;
/// Share of the limit, in percent, above which what cannot be evicted makes it tight.
const TIGHT_ABOVE: u64 = 80;
/// Share of a disk, in percent, that is kept free while there is something to evict.
const DISK_FREE: u64 = 5;
/// Bounds of that, in bytes: writers whom nobody sees fill the lower one in a moment, and who has more
/// than the upper one free is not short of it.
const DISK_FREE_BETWEEN: (u64, u64) = (8 << 20, 1 << 30);
/// The same of inodes, where a filesystem counts them: one percent, within bounds.
const INODES_FREE: u64 = 1;
/// As above.
const INODES_FREE_BETWEEN: (u64, u64) = (16, 1000);

/// Space taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all files.
    pub used: u64,
    /// Bytes of those that may be evicted.
    pub evictable: u64,
    /// Files.
    pub files: u64,
    /// Bytes allowed.
    pub limit: u64,
}

impl Usage {
    /// Bytes that cannot be evicted: not yet in the bucket, or in use.
    pub fn pinned(&self) -> u64 {
        self.used.saturating_sub(self.evictable)
    }

    /// More than 80 % of the limit cannot be evicted.
    pub fn is_tight(&self) -> bool {
        self.pinned() > self.limit / 100 * TIGHT_ABOVE
    }
}

/// What the disk lacks of what is to be free on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes.
    pub bytes: u64,
    /// Inodes, each a file.
    pub files: u64,
}

impl Shortage {
    /// Nothing is lacking.
    pub fn is_none(&self) -> bool {
        *self == Shortage::default()
    }

    /// Of a disk on which `wanted` more bytes are to be written.
    pub(super) fn of(disk: &SpaceStat, wanted: u64) -> Shortage {
        let (low, high) = DISK_FREE_BETWEEN;
        let available = disk.available.saturating_mul(disk.block_size);
        let spare = (disk.blocks.saturating_mul(disk.block_size) / 100 * DISK_FREE).clamp(low, high);
        let (few, many) = INODES_FREE_BETWEEN;
        let inodes = if disk.files == 0 { 0 } else { (disk.files / 100 * INODES_FREE).clamp(few, many) };
        Shortage {
            bytes: wanted.saturating_add(spare).saturating_sub(available),
            files: inodes.saturating_sub(disk.files_free),
        }
    }
}

#[derive(Debug)]
pub(super) struct Space {
    limit: u64,
    used: u64,
    evictable: u64,
    sizes: HashMap<BackingNo, u64>,
    /// Evictable files, least recently used first to go.
    clean: LruCache<BackingNo, ()>,
}

impl Space {
    pub(super) fn new(limit: u64) -> Space {
        Space { limit, used: 0, evictable: 0, sizes: HashMap::new(), clean: LruCache::unbounded() }
    }

    pub(super) fn tell(&mut self, no: BackingNo, bytes: u64, evictable: bool) {
        self.forget(no);
        self.sizes.insert(no, bytes);
        self.used += bytes;
        if evictable {
            self.clean.put(no, ());
            self.evictable += bytes;
        }
    }

    /// A range of a file is to be written, if what that adds fits below the limit; otherwise how much does
    /// not. What lies before it may be a hole, and does not count.
    pub(super) fn grow(&mut self, no: BackingNo, range: &Range<u64>) -> Result<(), u64> {
        let told = self.sizes.get(&no).copied().unwrap_or(0);
        let more = range.end.saturating_sub(told.max(range.start));
        let excess = self.used.saturating_add(more).saturating_sub(self.limit);
        match (more, excess) {
            (0, _) => Ok(()),
            (_, 0) => {
                self.tell(no, told + more, false);
                Ok(())
            }
            _ => Err(more),
        }
    }

    /// A file that may not be evicted has at least so many bytes by now.
    pub(super) fn grown(&mut self, no: BackingNo, bytes: u64) {
        if self.sizes.get(&no).is_some_and(|told| *told < bytes) && !self.clean.contains(&no) {
            self.tell(no, bytes, false);
        }
    }

    pub(super) fn protect(&mut self, no: BackingNo) {
        if let Some(bytes) = self.sizes.get(&no).copied() {
            self.tell(no, bytes, false);
        }
    }

    pub(super) fn touch(&mut self, no: BackingNo) {
        self.clean.promote(&no);
    }

    pub(super) fn forget(&mut self, no: BackingNo) {
        if let Some(bytes) = self.sizes.remove(&no) {
            self.used -= bytes;
            if self.clean.pop(&no).is_some() {
                self.evictable -= bytes;
            }
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage { used: self.used, evictable: self.evictable, files: self.sizes.len() as u64, limit: self.limit }
    }

    pub(super) fn victims(&self, wanted: u64, short: Shortage) -> Vec<BackingNo> {
        let target = (self.limit / 100 * EVICT_TO).saturating_sub(wanted);
        let mut excess = self.used.saturating_sub(target).max(short.bytes);
        let mut files = short.files;
        let mut victims = Vec::new();
        for (no, ()) in self.clean.iter().rev() {
            if excess == 0 && files == 0 {
                break;
            }
            excess = excess.saturating_sub(self.sizes.get(no).copied().unwrap_or(0));
            files = files.saturating_sub(1);
            victims.push(*no);
        }
        victims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_first_and_dirty_never() {
        let mut space = Space::new(1000);
        space.tell(BackingNo(1), 300, true);
        space.tell(BackingNo(2), 300, true);
        space.tell(BackingNo(3), 300, false);
        assert_eq!(space.victims(0, Shortage::default()), vec![]);
        space.touch(BackingNo(1));
        assert_eq!(space.victims(100, Shortage::default()), vec![BackingNo(2)]);
        assert_eq!(space.victims(400, Shortage::default()), vec![BackingNo(2), BackingNo(1)]);
        assert_eq!(space.victims(5000, Shortage::default()), vec![BackingNo(2), BackingNo(1)]);
        space.protect(BackingNo(2));
        assert_eq!(space.victims(5000, Shortage::default()), vec![BackingNo(1)]);
        space.forget(BackingNo(1));
        assert_eq!(space.usage(), Usage { used: 600, evictable: 0, files: 2, limit: 1000 });
    }

    #[test]
    fn what_the_disk_lacks_goes_too() {
        let mut space = Space::new(1000);
        (1..=3).for_each(|no| space.tell(BackingNo(no), 100, true));
        assert_eq!(space.victims(0, Shortage { bytes: 150, files: 0 }), vec![BackingNo(1), BackingNo(2)]);
        assert_eq!(space.victims(0, Shortage { bytes: 0, files: 1 }), vec![BackingNo(1)]);
        let disk =
            SpaceStat { block_size: 4096, blocks: 12_800, free: 4000, available: 3000, files: 300, files_free: 20 };
        assert!(Shortage::of(&disk, 0).is_none());
        assert_eq!(Shortage::of(&disk, 8 << 20), Shortage { bytes: (16 << 20) - 3000 * 4096, files: 0 });
        assert_eq!(Shortage::of(&SpaceStat { files_free: 3, ..disk }, 0), Shortage { bytes: 0, files: 13 });
        assert!(Shortage::of(&SpaceStat { files: 0, files_free: 0, ..disk }, 0).is_none(), "made as needed");
    }

    #[test]
    fn nothing_grows_beyond_the_limit_and_what_must_stay_makes_it_tight() {
        let mut space = Space::new(1000);
        space.tell(BackingNo(1), 500, true);
        space.tell(BackingNo(2), 0, false);
        assert_eq!(space.grow(BackingNo(2), &(0..500)), Ok(()));
        assert_eq!(space.grow(BackingNo(2), &(100..400)), Ok(()), "it has them");
        assert_eq!(space.grow(BackingNo(2), &(500..900)), Err(400));
        assert_eq!((space.usage().used, space.usage().pinned()), (1000, 500));
        assert!(!space.usage().is_tight());
        space.forget(BackingNo(1));
        assert_eq!(space.grow(BackingNo(2), &(1 << 40..(1 << 40) + 301)), Ok(()), "behind a hole");
        assert!(space.usage().is_tight());
    }
}
