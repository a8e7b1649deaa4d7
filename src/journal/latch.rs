//! The first failure, which is also the last (J3).

use std::sync::OnceLock;

use tokio::sync::watch;

/// Remembers why writing has stopped for good.
#[derive(Debug)]
pub(super) struct Latch {
    reason: OnceLock<String>,
    failed: watch::Sender<bool>,
}

impl Latch {
    pub(super) fn new() -> Self {
        Latch { reason: OnceLock::new(), failed: watch::Sender::new(false) }
    }

    /// Stops writing for good and says so, once and loudly.
    pub(super) fn set(&self, reason: String) {
        if self.reason.set(reason).is_ok() {
            tracing::error!(
                reason = self.reason(),
                "the journal has failed: nothing is written any more until a restart"
            );
            self.failed.send_replace(true);
        }
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Resolves when writing has stopped.
    pub(super) async fn wait(&self) -> String {
        let mut failed = self.failed.subscribe();
        // The sender lives in self: waiting cannot fail.
        let _seen = failed.wait_for(|failed| *failed).await;
        self.reason().unwrap_or_default().to_owned()
    }
}
