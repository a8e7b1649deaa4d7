//! Uploading what is left before the end.

use std::time::Duration;

use crate::control::Pending;

use super::actions::Daemon;
use super::notify::Notify;

/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);
/// What the service manager grants beyond each progress message.
const GRANT: Duration = Duration::from_secs(30);
/// Without any progress for this long the rest is left to the next start: the store is not there.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same when all that is left is open for writing: programs that end close what they have open.
const WRITERS_PATIENCE: Duration = Duration::from_secs(5);

/// Paths and failures that the log names when something is left.
const TOLD: usize = 10;

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// Nothing is left.
    Whole,
    /// Time ran out, or nothing moved any more.
    TimedOut,
    /// Somebody told us twice.
    Hurried,
}

impl Drained {
    /// Says what is left, if anything.
    pub(super) fn tell(self, daemon: &Daemon) {
        let left = daemon.pending_all();
        if left.is_settled() {
            tracing::info!("everything is in the bucket and announced");
            return;
        }
        let why = match self {
            Drained::Whole => "held",
            Drained::TimedOut => "no time left",
            Drained::Hurried => "told to hurry",
        };
        // Which, and what is known of why: the counts alone help nobody.
        let paths: Vec<&str> = left.first.iter().take(TOLD).map(|one| one.path.as_str()).collect();
        let status = daemon.rooms().uploader.status();
        for failure in status.failures.iter().take(TOLD) {
            tracing::warn!(path = failure.path, error = failure.error, tried = failure.attempts, "not uploaded");
        }
        tracing::warn!(
            ?paths,
            files = left.files,
            bytes = left.bytes,
            copies = left.copies,
            removals = left.removals,
            announcements = left.announcements,
            records = left.records,
            held = left.stuck_count,
            why,
            "left for the next start"
        );
    }
}

impl Daemon {
    /// Hurries everything up and waits until it is settled, stuck, or the limit is reached.
    pub(super) async fn drain(&self, limit: Duration, notify: &Notify) -> Drained {
        self.begin_drain();
        let started = tokio::time::Instant::now();
        let (mut last, mut moved) = (Pending::default(), started);
        let mut uploads = self.rooms().uploader.watch();
        let mut announcements = self.rooms().outbox.subscribe();
        let mut tell = tokio::time::interval(TELL);
        loop {
            self.rooms().uploader.hurry();
            let left = self.pending_all();
            if left.steps() == 0 {
                return Drained::Whole;
            }
            let now = tokio::time::Instant::now();
            if left != last {
                (last, moved) = (left.clone(), now);
            }
            let told_all = left.announcements == 0 && left.records == 0;
            let only_writers = told_all && self.rooms().uploader.waits_for_writers();
            let patience = if only_writers { WRITERS_PATIENCE } else { PATIENCE };
            if now >= started + limit || now >= moved + patience {
                return Drained::TimedOut;
            }
            tokio::select! {
                _ = uploads.changed() => {}
                _ = announcements.changed() => {}
                _ = tell.tick() => {
                    let text = format!(
                        "uploading {} files, {} left; {} announcements, {} records",
                        left.files,
                        crate::types::ByteSize(left.bytes.saturating_sub(left.bytes_sent)),
                        left.announcements,
                        left.records
                    );
                    tracing::info!("{text}");
                    notify.progress(&text, GRANT);
                }
            }
        }
    }
}
