//! Proves that key, bucket and region of a store are right, or says which is not.

use super::error::{Error, ErrorKind, Result};
use super::{ListOptions, ObjectStore};

/// Asks for the bucket itself. A HEAD's refusal names no reason, so it is followed by a listing of
/// one key, whose refusal does.
///
/// # Errors
/// What is wrong, with HTTP status, code and request id. A key that may list but not HEAD the
/// bucket passes.
pub async fn check(store: &dyn ObjectStore) -> Result<()> {
    let Err(refusal) = store.head_bucket().await else {
        return Ok(());
    };
    if refusal.is_transient() || refusal.status.is_none() {
        return Err(refusal);
    }
    match store.list(ListOptions { max_keys: 1, ..ListOptions::default() }).await {
        Ok(_) => Ok(()),
        Err(error) => Err(explain(error)),
    }
}

/// Puts into words what a code means for whoever wrote the configuration.
fn explain(mut error: Error) -> Error {
    let meaning = match (error.kind, error.code.as_deref()) {
        (ErrorKind::Credentials, Some("InvalidAccessKeyId")) => "the secret_id is unknown",
        (ErrorKind::Credentials, Some("SignatureDoesNotMatch")) => "the secret_key does not belong to the secret_id",
        (ErrorKind::Credentials, Some("ExpiredToken")) => "the temporary key has expired",
        (ErrorKind::NoSuchBucket, _) => "no bucket of this name in this region",
        (ErrorKind::AccessDenied, _) => "the key is good, but may not list this bucket: is it the right bucket?",
        _ => return error,
    };
    error.message = Some(match error.message {
        Some(message) => format!("{meaning}: {message}"),
        None => meaning.to_owned(),
    });
    error
}
