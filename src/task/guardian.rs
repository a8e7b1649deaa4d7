//! The owner of workers that must not fail.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::outcome::{Outcome, panic_text};

/// Starts workers, and tells when the first of them fails. Clones are the same guardian.
#[derive(Clone, Debug)]
pub struct Guardian {
    /// Why the mount must stop, once it must.
    reason: Arc<watch::Sender<Option<String>>>,
}

impl Guardian {
    /// Nothing has failed.
    pub fn new() -> Self {
        Guardian { reason: Arc::new(watch::Sender::new(None)) }
    }

    /// Starts a task on the current runtime. If it panics or ends with an error, this guardian is
    /// poisoned. The handle never has a panic; aborting the task is its owner's right and no failure.
    pub fn spawn<O: Outcome + Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = O> + Send + 'static,
    ) -> JoinHandle<()> {
        let guardian = self.clone();
        tokio::spawn(async move {
            let ended = AssertUnwindSafe(future).catch_unwind().await;
            guardian.judge(name, ended);
        })
    }

    /// The same for a thread.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn spawn_thread<O: Outcome>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> O + Send + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        let guardian = self.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(work));
            guardian.judge(name, ended);
        })
    }

    fn judge<O: Outcome>(&self, name: &'static str, ended: thread::Result<O>) {
        match ended {
            Ok(outcome) => {
                if let Some(failure) = outcome.failure() {
                    self.poison(format!("{name} failed: {failure}"));
                }
            }
            Err(panic) => self.poison(format!("{name} panicked: {}", panic_text(&*panic))),
        }
    }

    /// Says that the mount must stop, and why: also for what failed without being started here.
    pub fn poison(&self, reason: String) {
        tracing::error!(reason, "a worker has failed: the mount stops");
        self.reason.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(reason);
            }
            is_first
        });
    }

    /// Why the mount must stop, if it must.
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Resolves to the reason once there is one, at once if there was.
    pub async fn poisoned(&self) -> String {
        let mut watcher = self.reason.subscribe();
        // The sender lives in self: waiting cannot fail.
        let reason = watcher.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or_default()
    }
}

impl Default for Guardian {
    fn default() -> Self {
        Guardian::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::spawn_named;

    #[tokio::test]
    async fn a_panic_in_a_task_poisons() {
        let guardian = Guardian::new();
        guardian.spawn("good", async {}).await.unwrap();
        guardian.spawn("better", async { Ok::<(), io::Error>(()) }).await.unwrap();
        assert_eq!(guardian.reason(), None);
        let number = 7;
        let bad = async move { assert_eq!(number, 8, "at part {number}") };
        guardian.spawn("uploader", bad).await.unwrap();
        let reason = guardian.poisoned().await;
        assert!(reason.starts_with("uploader panicked: ") && reason.contains("at part 7"), "{reason}");
    }

    #[tokio::test]
    async fn an_error_poisons_and_the_first_reason_stays() {
        let guardian = Guardian::new();
        let waiting = tokio::spawn({
            let guardian = guardian.clone();
            async move { guardian.poisoned().await }
        });
        guardian.spawn("outbox", async { Err(io::Error::other("no store")) }).await.unwrap();
        assert_eq!(waiting.await.unwrap(), "outbox failed: no store");
        guardian.poison("later".to_owned());
        assert_eq!(guardian.reason().as_deref(), Some("outbox failed: no store"));
    }

    #[tokio::test]
    async fn an_aborted_task_poisons_nobody() {
        let guardian = Guardian::new();
        let task = guardian.spawn("endless", std::future::pending::<()>());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(guardian.reason(), None);
    }

    #[test]
    fn a_panic_in_a_thread_poisons() {
        let guardian = Guardian::new();
        guardian.spawn_thread("good", || {}).unwrap().join().unwrap();
        assert_eq!(guardian.reason(), None);
        let name = guardian.spawn_thread("walker", || -> () { panic!("lost") }).unwrap();
        assert_eq!(name.thread().name(), Some("walker"));
        name.join().unwrap();
        assert_eq!(guardian.reason().as_deref(), Some("walker panicked: lost"));
    }

    #[tokio::test]
    async fn a_named_task_gives_its_value_or_its_panic() {
        assert_eq!(spawn_named("six", async { 6 }).await.unwrap(), 6);
        assert!(spawn_named("bad", async { panic!("bad") }).await.unwrap_err().is_panic());
    }
}
