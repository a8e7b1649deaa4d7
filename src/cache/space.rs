//! Accounting of the space that backing files take, and which of them may go.

use std::collections::HashMap;

use lru::LruCache;

use crate::types::BackingNo;

/// Share of the limit, in percent, that eviction makes free up to.
const EVICT_TO: u64 = 90;

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

    pub(super) fn victims(&self, wanted: u64) -> Vec<BackingNo> {
        let target = (self.limit / 100 * EVICT_TO).saturating_sub(wanted);
        let mut excess = self.used.saturating_sub(target);
        let mut victims = Vec::new();
        for (no, ()) in self.clean.iter().rev() {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(self.sizes.get(no).copied().unwrap_or(0));
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
        assert_eq!(space.victims(0), vec![]);
        space.touch(BackingNo(1));
        assert_eq!(space.victims(100), vec![BackingNo(2)]);
        assert_eq!(space.victims(400), vec![BackingNo(2), BackingNo(1)]);
        assert_eq!(space.victims(5000), vec![BackingNo(2), BackingNo(1)]);
        space.protect(BackingNo(2));
        assert_eq!(space.victims(5000), vec![BackingNo(1)]);
        space.forget(BackingNo(1));
        assert_eq!(space.usage(), Usage { used: 600, evictable: 0, files: 2, limit: 1000 });
    }
}
