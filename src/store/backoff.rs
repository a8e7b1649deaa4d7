//! How long to wait before a repeat.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Source of numbers in 0..1, replaced in tests.
type Random = Box<dyn FnMut() -> f64 + Send>;

/// Exponential delays with jitter: half of each delay is certain, half is random, so that many
/// clients that failed together do not return together and none returns at once.
pub(super) struct Backoff {
    base: Duration,
    cap: Duration,
    /// Guards the generator only; last in every order of locks.
    random: Mutex<Random>,
}

impl Backoff {
    /// Delays that begin at `base`, double, and end at `cap`.
    pub(super) fn new(base: Duration, cap: Duration) -> Self {
        Backoff::with_random(base, cap, Box::new(rand::random::<f64>))
    }

    /// As [`Backoff::new`] with a generator of one's own.
    pub(super) fn with_random(base: Duration, cap: Duration, random: Random) -> Self {
        Backoff { base, cap, random: Mutex::new(random) }
    }

    /// The delay after the `failures`th failure in a row (from 1).
    pub(super) fn delay(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.base.saturating_mul(factor).min(self.cap);
        let random = (self.random.lock().unwrap_or_else(PoisonError::into_inner))();
        full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff").field("base", &self.base).field("cap", &self.cap).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(random: f64) -> Vec<u64> {
        let backoff =
            Backoff::with_random(Duration::from_millis(100), Duration::from_secs(1), Box::new(move || random));
        [1, 2, 3, 4, 5, 6, 40, u32::MAX].iter().map(|&n| backoff.delay(n).as_millis() as u64).collect()
    }

    #[test]
    fn delays_double_up_to_the_cap_and_jitter_by_half() {
        assert_eq!(delays(1.0), [100, 200, 400, 800, 1000, 1000, 1000, 1000]);
        assert_eq!(delays(0.0), [50, 100, 200, 400, 500, 500, 500, 500]);
    }
}
