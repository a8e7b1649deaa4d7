//! The request to end.

use std::sync::Arc;

use tokio::sync::watch;

/// Asks workers to end. Clones are the same request.
#[derive(Clone, Debug)]
pub struct Shutdown {
    triggered: Arc<watch::Sender<bool>>,
}

impl Shutdown {
    /// Not triggered.
    pub fn new() -> Self {
        Shutdown { triggered: Arc::new(watch::Sender::new(false)) }
    }

    /// Triggers it; again is nothing.
    pub fn trigger(&self) {
        self.triggered.send_replace(true);
    }

    /// It was triggered.
    pub fn is_triggered(&self) -> bool {
        *self.triggered.borrow()
    }

    /// Resolves once it is triggered, at once if it was. May be dropped and asked again.
    pub async fn triggered(&self) {
        let mut watcher = self.triggered.subscribe();
        // The sender lives in self: waiting cannot fail.
        let _seen = watcher.wait_for(|triggered| *triggered).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_clones_learn_of_it_and_it_stays() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.triggered().await }
        });
        assert!(!shutdown.is_triggered());
        assert!(futures::FutureExt::now_or_never(shutdown.triggered()).is_none());
        shutdown.trigger();
        shutdown.trigger();
        waiting.await.unwrap();
        assert!(shutdown.is_triggered());
        assert!(futures::FutureExt::now_or_never(shutdown.clone().triggered()).is_some());
    }
}
