//! A clock that a test sets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Clock;
use crate::types::TimeNs;

/// A clock that stands still until it is told otherwise. Clones share their hands.
#[derive(Clone, Debug)]
pub struct ManualClock {
    hands: Arc<Mutex<Hands>>,
}

#[derive(Clone, Copy, Debug)]
struct Hands {
    now: TimeNs,
    monotonic: Duration,
    boottime: Duration,
}

impl ManualClock {
    /// A clock that shows `now`; the other two start at one hour, so that a test may subtract.
    pub fn new(now: TimeNs) -> Self {
        let hour = Duration::from_secs(3600);
        ManualClock { hands: Arc::new(Mutex::new(Hands { now, monotonic: hour, boottime: hour })) }
    }

    /// Moves all three forward.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.hands();
        let ns = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        hands.now = TimeNs(hands.now.0.saturating_add(ns));
        hands.monotonic += by;
        hands.boottime += by;
    }

    /// Moves wall time and boot time forward as a suspension does: monotonic time stands still.
    pub fn suspend(&self, by: Duration) {
        let monotonic = self.monotonic();
        self.advance(by);
        self.hands().monotonic = monotonic;
    }

    /// Sets wall time alone, as an operator or NTP does.
    pub fn set_now(&self, now: TimeNs) {
        self.hands().now = now;
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        // Plain values: a panic elsewhere cannot have left them half set.
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> TimeNs {
        self.hands().now
    }

    fn monotonic(&self) -> Duration {
        self.hands().monotonic
    }

    fn boottime(&self) -> Duration {
        self.hands().boottime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advance_moves_all_and_suspend_spares_monotonic() {
        let clock = ManualClock::new(TimeNs::new(100, 0));
        let shared = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(shared.now(), TimeNs::new(105, 0));
        let (monotonic, boottime) = (shared.monotonic(), shared.boottime());
        clock.suspend(Duration::from_secs(60));
        assert_eq!(shared.monotonic(), monotonic);
        assert_eq!(shared.boottime(), boottime + Duration::from_secs(60));
        assert_eq!(shared.now(), TimeNs::new(165, 0));
        clock.set_now(TimeNs::new(1, 0));
        assert_eq!(shared.now(), TimeNs::new(1, 0));
        assert_eq!(shared.boottime(), boottime + Duration::from_secs(60));
    }
}
