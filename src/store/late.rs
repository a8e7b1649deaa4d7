//! Keys on which a mutation of unknown outcome may still arrive (DESIGN R1).
//!
//! A call that repeats an attempt whose reply was lost, and succeeds, hides that the first attempt
//! may be lying in some queue and be applied after the next version. Here it is remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::types::Key;

/// How long a lost request is expected to turn up: R1's figure.
const WINDOW: Duration = Duration::from_secs(120);

/// Keys remembered at once, some 10 MB of them. More unknown outcomes within the window are those
/// of an outage, and then every key counts as concerned.
const MOST_KEYS: usize = 50_000;

/// The keys concerned, and since when.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Guards the table only; last in every order of locks.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    since: HashMap<Key, Instant>,
    /// When a key was last left out for want of room.
    overflowed: Option<Instant>,
}

impl Late {
    /// Remembers an attempt of unknown outcome.
    pub(super) fn note<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        self.note_at(keys, Instant::now());
    }

    fn note_at<'a>(&self, keys: impl Iterator<Item = &'a Key>, now: Instant) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            if table.since.len() >= MOST_KEYS && !table.since.contains_key(key) {
                table.since.retain(|_, since| now.duration_since(*since) < WINDOW);
                if table.since.len() >= MOST_KEYS {
                    table.overflowed = Some(now);
                    continue;
                }
            }
            table.since.insert(key.clone(), now);
        }
    }

    /// Whether one was made on this key within the window.
    pub(super) fn concerns(&self, key: &Key) -> bool {
        self.concerns_at(key, Instant::now())
    }

    fn concerns_at(&self, key: &Key, now: Instant) -> bool {
        let recent = |since: Instant| now.duration_since(since) < WINDOW;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.overflowed.is_some_and(recent) {
            return true;
        }
        let concerned = table.since.get(key).copied().is_some_and(recent);
        if !concerned {
            table.since.remove(key);
        }
        concerned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_the_window() {
        let (late, start) = (Late::default(), Instant::now());
        let (a, b) = (Key::from("a"), Key::from("b"));
        assert!(!late.concerns(&a));
        late.note_at([&a].into_iter(), start);
        assert!(late.concerns_at(&a, start) && !late.concerns_at(&b, start));
        assert!(late.concerns_at(&a, start + WINDOW - Duration::from_millis(1)));
        assert!(!late.concerns_at(&a, start + WINDOW));
        assert!(late.table.lock().unwrap().since.is_empty());
    }

    #[test]
    fn beyond_the_room_every_key_is_concerned() {
        let (late, start) = (Late::default(), Instant::now());
        let keys: Vec<Key> = (0..=MOST_KEYS).map(|i| Key(format!("k{i}"))).collect();
        late.note_at(keys.iter(), start);
        assert_eq!(late.table.lock().unwrap().since.len(), MOST_KEYS);
        assert!(late.concerns_at(&Key::from("never noted"), start));
        assert!(!late.concerns_at(&Key::from("never noted"), start + WINDOW));
        late.note_at([&Key::from("new")].into_iter(), start + WINDOW);
        assert_eq!(late.table.lock().unwrap().since.len(), 1);
    }
}
