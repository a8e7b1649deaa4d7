//! Where time comes from: the system, or a test that turns the hands itself.
//!
//! # Promise
//! Every other room asks a [`Clock`] and never the system, so that a test decides what time it is.
//!
//! # Invariants
//! 1. [`Clock::monotonic`] and [`Clock::boottime`] never go back within one boot.
//! 2. [`Clock::now`] may jump either way (NTP, an operator): nothing may measure a wait with it.

mod manual;
mod system;

pub use manual::ManualClock;
pub use system::SystemClock;

use std::fmt::Debug;
use std::time::Duration;

use crate::types::TimeNs;

/// Tells the time.
pub trait Clock: Send + Sync + Debug {
    /// Wall-clock time, for what is stored or sent.
    fn now(&self) -> TimeNs;

    /// Time since an arbitrary start (CLOCK_MONOTONIC), for time-outs; stands still while the
    /// machine is suspended.
    fn monotonic(&self) -> Duration;

    /// Time since boot, suspension included (CLOCK_BOOTTIME), for deadlines of hours (O3).
    fn boottime(&self) -> Duration;
}
