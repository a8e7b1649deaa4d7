//! What all connections share.

use std::sync::Mutex;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use axum::http::Extensions;
use tokio::task::JoinSet;

use super::fault::Faults;
use super::log::Log;
use super::shelf::Shelf;
use super::throttle::Throttle;

/// What all connections share. No `Debug`: it holds secrets.
pub(super) struct State {
    pub(super) shelf: Shelf,
    pub(super) log: Log,
    pub(super) faults: Faults,
    /// (id, key) pairs of the stores' dialects.
    pub(super) credentials: Vec<(String, String)>,
    /// (access key, secret key) of OMS; `None` refuses all of its requests.
    pub(super) oms_credentials: Option<(String, String)>,
    pub(super) latency: Duration,
    /// From clients.
    pub(super) upstream: Throttle,
    /// To clients.
    pub(super) downstream: Throttle,
    /// Seconds that the emulator's clock is ahead of the machine's.
    pub(super) clock_offset_s: AtomicI64,
    /// Requests applied after they were answered; aborted with the emulator.
    pub(super) late: Mutex<JoinSet<()>>,
    /// How answers spell the names of their headers.
    pub(super) letter_case: Extensions,
}

impl State {
    /// The emulator's clock: nanoseconds since the epoch.
    pub(super) fn now_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset_ns = self.clock_offset_s.load(Ordering::SeqCst).saturating_mul(1_000_000_000);
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX).saturating_add(offset_ns)
    }

    /// The emulator's clock: seconds since the epoch.
    pub(super) fn now_s(&self) -> i64 {
        self.now_ns().div_euclid(1_000_000_000)
    }

    /// Runs a task that outlives its request.
    pub(super) fn run_late(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut late = self.late.lock().expect("invariant: nothing panics while it holds this lock");
        while late.try_join_next().is_some() {}
        late.spawn(task);
    }
}

/// Names a request in replies.
pub(super) fn request_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
