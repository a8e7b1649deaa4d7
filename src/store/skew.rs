//! The store's time, as far as its `Date` headers tell it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A difference below this is not a reason for a refusal: signatures begin 60 s in the past, and
/// `Date` has whole seconds and is as old as the reply's way here.
const SIGNIFICANT_S: i64 = 30;

/// This machine's clock with the correction that a store's replies asked for.
#[derive(Debug, Default)]
pub(super) struct StoreClock {
    /// Seconds to add to the local clock.
    offset_s: AtomicI64,
}

impl StoreClock {
    /// The store's time in seconds since the epoch.
    pub(super) fn now_s(&self) -> i64 {
        local_s() + self.offset_s.load(Ordering::Relaxed)
    }

    /// Learns from a reply that complained of the time, or may have (a HEAD says no reason). Returns
    /// whether this changed anything worth signing again for.
    pub(super) fn correct(&self, store_s: i64) -> bool {
        self.correct_at(store_s, local_s())
    }

    fn correct_at(&self, store_s: i64, local_s: i64) -> bool {
        let offset = store_s - local_s;
        if (offset - self.offset_s.load(Ordering::Relaxed)).abs() < SIGNIFICANT_S {
            return false;
        }
        self.offset_s.store(offset, Ordering::Relaxed);
        true
    }
}

fn local_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_is_made_once_and_kept() {
        let clock = StoreClock::default();
        assert!(!clock.correct_at(1_000_010, 1_000_000));
        assert!(clock.correct_at(1_003_600, 1_000_000));
        assert!(!clock.correct_at(1_003_605, 1_000_000));
        assert!((clock.now_s() - local_s() - 3_600).abs() <= 1);
        assert!(clock.correct_at(1_000_000, 1_000_000));
    }
}
