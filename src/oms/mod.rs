//! One client for Huawei OMS sync events.
//!
//! # Promise
//! [`Announcer::announce`] tells one sync task of at most [`MAX_KEYS`] keys, in one request, and says
//! what came of it in terms a caller can act on. Nothing is retried here (the outbox does that), but
//! for one repeat with a corrected time where the gateway refuses this machine's clock.
//!
//! # Invariants
//! 1. [`Outcome::Accepted`] means status 200 and nothing else.
//! 2. The bytes that are hashed are the bytes that are sent.
//! 3. Keys go out percent-encoded with unreserved characters only (unless `encode_keys` is off).
//! 4. The secret key and the signature appear in no message, no log line and no `Debug` form.
//! 5. Every call ends within twice `Options::timeout`.

mod client;
mod encode;
mod error;
mod outcome;
mod sign;
mod url;

pub use client::{Options, SyncTask};
pub use error::{Error, Result};
pub use outcome::{Failure, Outcome, TransientKind};
pub use url::SyncUrl;

use futures::future::BoxFuture;

use crate::types::Key;

/// Keys in one request, at most (the API reference's text; its schema's 100 is generic).
pub const MAX_KEYS: usize = 10;

/// Tells a sync task of keys. The seam at which tests put a script in place of OMS.
pub trait Announcer: Send + Sync {
    /// Announces 1 to [`MAX_KEYS`] keys in one request.
    fn announce<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Outcome>;

    /// Host, project and task: `https://host/v2/<project>/sync-tasks/<task>/events`.
    fn identity(&self) -> &str;
}
