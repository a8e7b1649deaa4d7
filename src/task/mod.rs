//! Tasks and threads that have a name, an owner, and a loud end.
//!
//! # Promise
//! No worker ends by a panic or an error in silence: what a [`Guardian`] started and what then
//! failed is logged and told to whoever waits in [`Guardian::poisoned`], so that the mount stops
//! instead of going on with a part of itself missing.
//!
//! # Invariants
//! 1. The first failure is kept; later ones are only logged.
//! 2. A [`Shutdown`] that was triggered stays so: whoever asks later learns it at once.
//! 3. Ending is asked for, never forced: a worker that is told to stop finishes its step.
//! 4. Only a wait that says so by [`interruptible`] ends with the caller that it is made for; everything
//!    else is done to its end.

mod guardian;
mod interrupt;
mod outcome;
mod shutdown;

pub use guardian::Guardian;
pub use interrupt::{Interrupt, Interrupted, interruptible};
pub use outcome::Outcome;
pub use shutdown::Shutdown;

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use tokio::task::JoinHandle;

/// Starts a task on the current runtime. A panic in it is logged under its name, and is the
/// [`JoinHandle`]'s error: for tasks whose owner awaits them. Others belong to a [`Guardian`].
pub fn spawn_named<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(async move {
        match AssertUnwindSafe(future).catch_unwind().await {
            Ok(value) => value,
            Err(panic) => {
                tracing::error!(task = name, panic = outcome::panic_text(&*panic), "a task panicked");
                resume_unwind(panic)
            }
        }
    })
}
