//! The store's time, as far as its `Date` headers tell it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A difference below this is not a reason for a refusal: signatures begin 60 s in the past, and
/// `Date` has whole seconds and is as old as the reply's way here.
const SIGNIFICANT_S: i64 = 30;

/// `Date` has whole seconds.
const SECOND_NS: i64 = 1_000_000_000;

/// This machine's clock with the correction that a store's replies asked for.
#[derive(Debug, Default)]
pub(super) struct StoreClock {
    /// Seconds to add to the local clock.
    offset_s: AtomicI64,
    /// Nanoseconds by which the store's clock is ahead, as far as all replies agree.
    ahead_ns: AtomicI64,
}

impl StoreClock {
    /// The store's time in seconds since the epoch.
    pub(super) fn now_s(&self) -> i64 {
        local_s() + self.offset_s.load(Ordering::Relaxed)
    }

    /// Learns from any reply: the store's clock showed its `Date` between the request and the reply.
    /// Times are this machine's, nanoseconds since the epoch.
    pub(super) fn observe(&self, date_s: i64, sent_ns: i64, received_ns: i64) {
        let date_ns = date_s.saturating_mul(SECOND_NS);
        let least = date_ns.saturating_sub(received_ns);
        let most = date_ns.saturating_add(SECOND_NS).saturating_sub(sent_ns).max(least);
        // Two replies at once: either is right.
        let ahead_ns = self.ahead_ns.load(Ordering::Relaxed).clamp(least, most);
        self.ahead_ns.store(ahead_ns, Ordering::Relaxed);
    }

    /// The store's time at a moment of this machine's clock, nanoseconds since the epoch.
    pub(super) fn at_ns(&self, local_ns: i64) -> i64 {
        local_ns.saturating_add(self.ahead_ns.load(Ordering::Relaxed))
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

/// This machine's clock, nanoseconds since the epoch.
pub(super) fn local_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
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

    #[test]
    fn the_stores_time_is_what_all_replies_agree_on() {
        let clock = StoreClock::default();
        let s = SECOND_NS;
        // Synchronous clocks are left alone.
        clock.observe(100, 100 * s, 100 * s + s / 10);
        assert_eq!(clock.at_ns(7 * s), 7 * s);
        // The store is 60 to 61 seconds ahead, says the first; 60.5 at least, says the second.
        clock.observe(160, 100 * s, 100 * s);
        assert_eq!(clock.at_ns(0), 60 * s);
        clock.observe(161, 100 * s + s / 2, 100 * s + s / 2);
        assert_eq!(clock.at_ns(0), 60 * s + s / 2);
        clock.observe(160, 99 * s + s * 9 / 10, 100 * s);
        assert_eq!(clock.at_ns(0), 60 * s + s / 2);
        // This machine's clock was set.
        clock.observe(165, 200 * s, 200 * s);
        assert_eq!(clock.at_ns(0), -34 * s);
    }
}
