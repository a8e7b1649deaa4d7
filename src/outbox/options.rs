//! Settings, and what an outbox serves.

use std::sync::Arc;
use std::time::Duration;

use crate::oms::Announcer;
use crate::store::ObjectStore;
use crate::types::TargetId;

/// Settings of an outbox. No limits of OMS are published (PROTOCOL section 11): the defaults are
/// what one careful client does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests to one sync task at once.
    pub concurrency: usize,
    /// Requests a second to one sync task, each of up to ten keys.
    pub requests_per_second: u32,
    /// Records written at once to one log bucket.
    pub record_concurrency: usize,
    /// Wait after a first failure.
    pub first_backoff: Duration,
    /// Longest wait between two attempts.
    pub max_backoff: Duration,
    /// First wait of a paused target (401, 403, 404) before it is probed.
    pub first_probe: Duration,
    /// Longest wait between two probes of a paused target.
    pub max_probe: Duration,
    /// An announcement that fails for so long, while its target was reachable and not paused, is
    /// declared failed.
    pub give_up_after: Duration,
    /// Requests under way at shutdown may take so long to be settled; later they are sent again at
    /// the next start.
    pub shutdown_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            concurrency: 2,
            requests_per_second: 10,
            record_concurrency: 4,
            first_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(300),
            first_probe: Duration::from_secs(60),
            max_probe: Duration::from_secs(900),
            give_up_after: Duration::from_secs(24 * 3600),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// A sync task and its log bucket.
#[derive(Clone)]
pub struct Target {
    /// The sync task's number in the journal.
    pub sync: TargetId,
    /// The log bucket's number in the journal, if records are kept.
    pub record: Option<TargetId>,
    /// Speaks to the sync task.
    pub announcer: Arc<dyn Announcer>,
    /// The log bucket; there if and only if `record` is.
    pub record_store: Option<Arc<dyn ObjectStore>>,
    /// What all record keys begin with: empty, or ending in `/`.
    pub record_prefix: String,
    /// The sync task's id, part of record keys.
    pub task: String,
}

impl Target {
    /// The log bucket, if records are kept.
    pub(super) fn log(&self) -> Option<(TargetId, &Arc<dyn ObjectStore>)> {
        self.record.zip(self.record_store.as_ref())
    }
}
