//! Waits that end when whoever is waited for is gone.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

tokio::task_local! {
    /// Of the work under way on this task, if it is done for somebody.
    static CALLER: Interrupt;
}

/// Nobody waits for this work any more. Clones are the same request to stop waiting.
#[derive(Clone, Debug)]
pub struct Interrupt {
    raised: Arc<watch::Sender<bool>>,
}

/// A wait was given up because the caller is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupt {
    /// Not raised.
    pub fn new() -> Self {
        Interrupt { raised: Arc::new(watch::Sender::new(false)) }
    }

    /// The caller is gone; again is nothing.
    pub fn raise(&self) {
        self.raised.send_replace(true);
    }

    /// It was raised.
    pub fn is_raised(&self) -> bool {
        *self.raised.borrow()
    }

    /// Does work for this caller: [`interruptible`] waits in it end when this is raised. Tasks that the
    /// work spawns are nobody's.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CALLER.scope(self, work).await
    }

    async fn raised(&self) {
        let mut watcher = self.raised.subscribe();
        // The sender lives in self: waiting cannot fail.
        let _seen = watcher.wait_for(|raised| *raised).await;
    }
}

impl Default for Interrupt {
    fn default() -> Self {
        Interrupt::new()
    }
}

/// Waits for something that may be dropped in the middle, unless the caller goes first. What is done for
/// nobody waits to the end.
///
/// # Errors
/// [`Interrupted`]; the wait was dropped.
pub async fn interruptible<T>(wait: impl Future<Output = T>) -> Result<T, Interrupted> {
    let Ok(caller) = CALLER.try_with(Interrupt::clone) else { return Ok(wait.await) };
    tokio::select! {
        // What is there already is had, whoever goes.
        biased;
        value = wait => Ok(value),
        () = caller.raised() => Err(Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_its_caller() {
        let interrupt = Interrupt::new();
        let waiting = tokio::spawn(interrupt.clone().scope(interruptible(pending::<()>())));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && !interrupt.is_raised());
        interrupt.raise();
        interrupt.raise();
        assert_eq!(waiting.await.unwrap(), Err(Interrupted));
        assert!(interrupt.is_raised());
        let had = interrupt.clone().scope(interruptible(ready(7))).await;
        assert_eq!(had, Ok(7), "what is there is not thrown away");
        assert_eq!(interrupt.scope(interruptible(pending::<()>())).await, Err(Interrupted), "later waits too");
    }

    #[tokio::test]
    async fn what_is_done_for_nobody_waits_to_the_end() {
        assert_eq!(interruptible(tokio::task::yield_now()).await, Ok(()));
        let interrupt = Interrupt::new();
        interrupt.raise();
        let spawned = async { tokio::spawn(interruptible(tokio::task::yield_now())).await.unwrap() };
        assert_eq!(interrupt.scope(spawned).await, Ok(()), "a task that it started is nobody's");
    }
}
