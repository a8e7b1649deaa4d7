//! Whether a failed attempt is made again, and when (PROTOCOL section 6).

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::error::{Error, ErrorKind, Outcome};

/// Bounds of the repeats within one call.
#[derive(Clone, Debug)]
pub struct RetryOptions {
    /// Attempts in all; 1 for none again.
    pub attempts: u32,
    /// First delay.
    pub base: Duration,
    /// Longest delay that is chosen here; Retry-After may ask for a longer one.
    pub cap: Duration,
    /// First delay after the store asked to slow down.
    pub throttled_base: Duration,
    /// No attempt begins later than this after the first one did.
    pub total: Duration,
}

impl Default for RetryOptions {
    /// Five attempts within two minutes: what outlasts that is an outage, which the callers' own
    /// queues sit out. A throttled caller begins at 1 s, since the SDKs' habit of coming back after
    /// 200 ms is what keeps a bucket throttled.
    fn default() -> Self {
        RetryOptions {
            attempts: 5,
            base: Duration::from_millis(200),
            cap: Duration::from_secs(10),
            throttled_base: Duration::from_secs(1),
            total: Duration::from_secs(120),
        }
    }
}

/// What a repeat of a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing is changed by it.
    Read,
    /// It changes the store, and twice is as good as once.
    Idempotent,
    /// It changes the store, and is repeated only if it certainly was not applied.
    Once,
}

/// The policy of one client.
#[derive(Debug)]
pub(super) struct Policy {
    options: RetryOptions,
    ordinary: Backoff,
    throttled: Backoff,
}

impl Policy {
    pub(super) fn new(options: RetryOptions) -> Self {
        let ordinary = Backoff::new(options.base, options.cap);
        let throttled = Backoff::new(options.throttled_base, options.cap.max(options.throttled_base));
        Policy { options, ordinary, throttled }
    }

    /// Begins a call.
    pub(super) fn begin(&self, repeat: Repeat) -> Attempts<'_> {
        Attempts { policy: self, repeat, began: Instant::now(), failures: 0, unknown: false }
    }
}

/// The attempts of one call.
pub(super) struct Attempts<'a> {
    policy: &'a Policy,
    repeat: Repeat,
    began: Instant,
    failures: u32,
    /// An earlier attempt may have been applied, so whatever a later one says, nobody knows.
    unknown: bool,
}

/// What follows a failed attempt.
#[derive(Debug)]
pub(super) enum Next {
    /// Wait, then try again.
    Again(Duration),
    /// Return this.
    Fail(Error),
}

impl Attempts<'_> {
    /// Judges a failed attempt; `hopeless` is for errors that no repeat within a call can cure
    /// although their kind could be cured (a certificate that does not verify).
    pub(super) fn failed(&mut self, mut error: Error, hopeless: bool) -> Next {
        self.failures += 1;
        match self.repeat {
            Repeat::Read => error.outcome = Outcome::NotApplied,
            Repeat::Idempotent | Repeat::Once => self.unknown |= error.outcome == Outcome::Unknown,
        }
        let repeatable = match self.repeat {
            Repeat::Read | Repeat::Idempotent => true,
            Repeat::Once => !self.unknown,
        };
        let delay = self.delay(&error);
        let in_time = self.began.elapsed().saturating_add(delay) <= self.policy.options.total;
        if error.is_transient() && repeatable && !hopeless && self.failures < self.policy.options.attempts && in_time {
            return Next::Again(delay);
        }
        error.attempts = self.failures;
        if self.unknown {
            error.outcome = Outcome::Unknown;
        }
        Next::Fail(error)
    }

    /// The delay after the failure just counted: ours, or the store's wish if that is longer.
    fn delay(&self, error: &Error) -> Duration {
        let backoff = if error.kind == ErrorKind::Throttled { &self.policy.throttled } else { &self.policy.ordinary };
        let own = backoff.delay(self.failures);
        error.retry_after_s.map_or(own, |asked| own.max(Duration::from_secs(asked)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind, outcome: Outcome) -> Error {
        Error {
            kind,
            outcome,
            what: "PUT cos://b/k".to_owned(),
            status: None,
            code: None,
            message: None,
            request_id: None,
            attempts: 1,
            retry_after_s: None,
            source: None,
        }
    }

    fn policy() -> Policy {
        Policy::new(RetryOptions { attempts: 3, ..RetryOptions::default() })
    }

    fn again(next: Next) -> Duration {
        match next {
            Next::Again(delay) => delay,
            Next::Fail(error) => panic!("failed: {error}"),
        }
    }

    fn fail(next: Next) -> Error {
        match next {
            Next::Again(_) => panic!("would try again"),
            Next::Fail(error) => error,
        }
    }

    #[test]
    fn attempts_are_bounded_and_counted() {
        let policy = policy();
        let mut attempts = policy.begin(Repeat::Read);
        again(attempts.failed(error(ErrorKind::Server, Outcome::Unknown), false));
        again(attempts.failed(error(ErrorKind::Network, Outcome::Unknown), false));
        let last = fail(attempts.failed(error(ErrorKind::Timeout, Outcome::Unknown), false));
        assert_eq!((last.attempts, last.outcome), (3, Outcome::NotApplied));
    }

    #[test]
    fn refusals_are_final() {
        for kind in [ErrorKind::NotFound, ErrorKind::Credentials, ErrorKind::Rejected, ErrorKind::Precondition] {
            let policy = policy();
            fail(policy.begin(Repeat::Idempotent).failed(error(kind, Outcome::NotApplied), false));
        }
        let policy = policy();
        fail(policy.begin(Repeat::Read).failed(error(ErrorKind::Network, Outcome::NotApplied), true));
    }

    #[test]
    fn what_may_have_been_applied_is_not_repeated_blindly() {
        let policy = policy();
        let mut attempts = policy.begin(Repeat::Once);
        again(attempts.failed(error(ErrorKind::Throttled, Outcome::NotApplied), false));
        let last = fail(attempts.failed(error(ErrorKind::Timeout, Outcome::Unknown), false));
        assert_eq!((last.attempts, last.outcome), (2, Outcome::Unknown));
    }

    #[test]
    fn an_unknown_outcome_is_not_forgotten_over_a_later_refusal() {
        let policy = policy();
        let mut attempts = policy.begin(Repeat::Idempotent);
        again(attempts.failed(error(ErrorKind::Timeout, Outcome::Unknown), false));
        let last = fail(attempts.failed(error(ErrorKind::AlreadyExists, Outcome::NotApplied), false));
        assert_eq!((last.kind, last.outcome), (ErrorKind::AlreadyExists, Outcome::Unknown));
    }

    #[test]
    fn throttling_waits_longer_and_retry_after_is_honoured_within_the_total() {
        let policy = policy();
        let mut attempts = policy.begin(Repeat::Idempotent);
        assert!(again(attempts.failed(error(ErrorKind::Throttled, Outcome::NotApplied), false)).as_millis() >= 500);
        let mut asked = error(ErrorKind::Throttled, Outcome::NotApplied);
        asked.retry_after_s = Some(30);
        assert!(again(attempts.failed(asked, false)).as_secs() >= 30);
        let mut too_long = error(ErrorKind::Throttled, Outcome::NotApplied);
        too_long.retry_after_s = Some(3_600);
        let policy = self::policy();
        assert_eq!(fail(policy.begin(Repeat::Read).failed(too_long, false)).retry_after_s, Some(3_600));
    }
}
