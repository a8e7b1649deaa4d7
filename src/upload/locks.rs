//! One mutation per key at a time (R1).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::types::{Key, TargetId};

/// The keys that a request is changing or reading right now.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyLocks {
    /// Short sections only; no other lock is taken under it.
    held: Arc<Mutex<HashSet<(TargetId, Key)>>>,
}

/// Holds keys until dropped.
#[derive(Debug)]
pub(super) struct KeyGuard {
    keys: Vec<(TargetId, Key)>,
    held: Arc<Mutex<HashSet<(TargetId, Key)>>>,
}

impl KeyLocks {
    /// Takes all of the keys, or none.
    pub(super) fn try_lock(&self, target: TargetId, keys: &[&Key]) -> Option<KeyGuard> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<(TargetId, Key)> = keys.iter().map(|key| (target, (*key).clone())).collect();
        keys.dedup();
        if keys.iter().any(|key| held.contains(key)) {
            return None;
        }
        held.extend(keys.iter().cloned());
        drop(held);
        Some(KeyGuard { keys, held: self.held.clone() })
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_or_none() {
        let locks = KeyLocks::default();
        let (a, b, c) = (Key::from("a"), Key::from("b"), Key::from("c"));
        let first = locks.try_lock(TargetId(1), &[&a, &b]).unwrap();
        assert!(locks.try_lock(TargetId(1), &[&c, &b]).is_none());
        assert!(locks.try_lock(TargetId(1), &[&c]).is_some(), "a refused request holds nothing");
        assert!(locks.try_lock(TargetId(2), &[&b]).is_some(), "another bucket");
        drop(first);
        assert!(locks.try_lock(TargetId(1), &[&a, &a]).is_some(), "a copy onto itself");
    }
}
