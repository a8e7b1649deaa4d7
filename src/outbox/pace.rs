//! When to send: backoff, a token bucket, and the gate that an outage closes. Pure.

use std::time::Duration;

/// Longest `Retry-After` that is believed; a longer one is a mistake more often than a wish.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Jittered exponential backoff.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// Wait after the first failure, before jitter.
    pub(super) first: Duration,
    /// Longest wait.
    pub(super) max: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row: doubled each time, then between one and one and a
    /// half times that (`jitter` 0 to 1), so that many hosts do not come back in step.
    pub(super) fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1_u32 << doublings);
        whole.min(self.max).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0).min(self.max)
    }
}

/// Requests a second, with a small burst.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Duration,
}

impl TokenBucket {
    pub(super) fn new(per_second: u32, burst: usize, now: Duration) -> Self {
        let burst = burst.max(1) as f64;
        TokenBucket { per_second: f64::from(per_second.max(1)), burst, tokens: burst, filled: now }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.filled = self.filled.max(now);
    }

    /// When the next request may go.
    pub(super) fn ready_at(&mut self, now: Duration) -> Duration {
        self.fill(now);
        if self.tokens >= 1.0 {
            return now;
        }
        // A nanosecond more, so that rounding cannot leave a bucket that is never quite full.
        now + Duration::from_secs_f64((1.0 - self.tokens) / self.per_second) + Duration::from_nanos(1)
    }

    /// Takes a token that [`TokenBucket::ready_at`] said is there.
    pub(super) fn take(&mut self, now: Duration) {
        self.fill(now);
        self.tokens -= 1.0;
    }
}

/// Closed by a failure that is not one key's fault; opens after the backoff for one request at a
/// time, and wholly at the first success.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    failures: u32,
    opens: Duration,
}

impl Gate {
    /// Requests that may be under way at once.
    pub(super) fn limit(&self, concurrency: usize) -> usize {
        if self.failures == 0 { concurrency.max(1) } else { 1 }
    }

    /// When the next request may go.
    pub(super) fn opens(&self) -> Duration {
        self.opens
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// A request failed. A gate that is still closed only stays closed longer: requests that were
    /// under way together fail together, and that is one failure.
    pub(super) fn close(&mut self, now: Duration, backoff: Backoff, jitter: f64, retry_after: Option<Duration>) {
        if self.failures == 0 || now >= self.opens {
            self.failures = self.failures.saturating_add(1);
        }
        self.opens = self.opens.max(now + wait(backoff.delay(self.failures, jitter), retry_after));
    }

    /// A request succeeded, or the operator wants no waiting.
    pub(super) fn open(&mut self) {
        *self = Gate::default();
    }
}

/// The longer of the backoff and of what the server asked for.
pub(super) fn wait(backoff: Duration, retry_after: Option<Duration>) -> Duration {
    backoff.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// How long a target has been reachable and not paused (O3): the time that counts towards giving
/// up. Measured in CLOCK_BOOTTIME, so that a suspended laptop counts as it would awake.
#[derive(Clone, Debug)]
pub(super) struct Served {
    total: Duration,
    counting: bool,
    seen: Duration,
}

impl Served {
    pub(super) fn new(boottime: Duration) -> Self {
        // Nothing is known of the target before its first answer: not counted.
        Served { total: Duration::ZERO, counting: false, seen: boottime }
    }

    /// The total now.
    pub(super) fn total(&mut self, boottime: Duration) -> Duration {
        if self.counting {
            self.total += boottime.saturating_sub(self.seen);
        }
        self.seen = boottime;
        self.total
    }

    /// The total now; from here on, time counts or does not.
    pub(super) fn mark(&mut self, boottime: Duration, counting: bool) -> Duration {
        let total = self.total(boottime);
        self.counting = counting;
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn backoff_doubles_from_the_first_to_the_longest_wait() {
        let backoff = Backoff { first: S, max: 300 * S };
        let plain: Vec<u64> = (1..=11).map(|failures| backoff.delay(failures, 0.0).as_secs()).collect();
        assert_eq!(plain, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(1500));
        assert_eq!(backoff.delay(u32::MAX, 1.0), 300 * S);
    }

    #[test]
    fn the_bucket_lets_a_burst_through_and_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 2, S);
        for _ in 0..2 {
            assert_eq!(bucket.ready_at(S), S);
            bucket.take(S);
        }
        let ready = bucket.ready_at(S);
        assert!(ready > S + Duration::from_millis(99) && ready < S + Duration::from_millis(101), "{ready:?}");
        assert_eq!(bucket.ready_at(ready), ready, "when it is due it is there");
        bucket.take(ready);
        assert_eq!(bucket.ready_at(100 * S), 100 * S);
        assert!(bucket.tokens <= 2.0, "idle time fills no more than the burst");
    }

    #[test]
    fn a_closed_gate_lets_one_through_and_counts_an_outage_once() {
        let backoff = Backoff { first: S, max: 300 * S };
        let mut gate = Gate::default();
        assert_eq!(gate.limit(2), 2);
        gate.close(10 * S, backoff, 0.0, None);
        gate.close(10 * S, backoff, 0.0, None);
        assert_eq!((gate.failures(), gate.opens(), gate.limit(2)), (1, 11 * S, 1));
        gate.close(11 * S, backoff, 0.0, Some(60 * S));
        assert_eq!((gate.failures(), gate.opens()), (2, 71 * S));
        gate.close(72 * S, backoff, 0.0, Some(1_000_000 * S));
        assert_eq!(gate.opens(), 72 * S + MAX_RETRY_AFTER);
        gate.open();
        assert_eq!((gate.failures(), gate.limit(2)), (0, 2));
    }

    #[test]
    fn only_time_in_reach_counts() {
        let mut served = Served::new(100 * S);
        assert_eq!(served.mark(200 * S, true), Duration::ZERO);
        assert_eq!(served.mark(250 * S, false), 50 * S);
        assert_eq!(served.mark(900 * S, true), 50 * S);
        assert_eq!(served.mark(901 * S, true), 51 * S);
        assert_eq!(served.total(903 * S), 53 * S);
    }
}
