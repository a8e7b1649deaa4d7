//! The machine's clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::Clock;
use crate::types::TimeNs;

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> TimeNs {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => TimeNs(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
            Err(before) => TimeNs(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns)),
        }
    }

    fn monotonic(&self) -> Duration {
        reading(ClockId::Monotonic)
    }

    fn boottime(&self) -> Duration {
        reading(ClockId::Boottime)
    }
}

/// A reading of a clock that starts at zero, hence is never negative.
fn reading(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance_and_boottime_includes_monotonic() {
        let clock = SystemClock;
        let (first, boot) = (clock.monotonic(), clock.boottime());
        assert!(clock.monotonic() >= first);
        assert!(boot >= first, "boottime counts suspension on top of monotonic");
        // 2020-01-01: any machine that builds this has a later clock.
        assert!(clock.now() > TimeNs::new(1_577_836_800, 0));
    }
}
