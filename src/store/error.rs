//! What can go wrong with a store, in terms a caller can act on.

use std::fmt;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such object (or version).
    NotFound,
    /// No such bucket.
    NoSuchBucket,
    /// No such multipart upload: never begun, aborted, or already completed.
    NoSuchUpload,
    /// If-Match did not match.
    Precondition,
    /// Forbidden overwrite: the key exists.
    AlreadyExists,
    /// The key is archived and must be restored first.
    Archived,
    /// The credentials are not accepted (unknown id, wrong key, expired token, wrong signature).
    Credentials,
    /// The credentials are good but may not do this.
    AccessDenied,
    /// Wrong region or endpoint for this bucket.
    Region,
    /// Slow down.
    Throttled,
    /// The body did not arrive as it was sent (Content-MD5, length).
    BadDigest,
    /// A multipart upload is not complete-able as asked (InvalidPart, EntityTooSmall...).
    InvalidPart,
    /// The range lies beyond the object.
    InvalidRange,
    /// The request is not acceptable and never will be (bad key, too large, unknown parameter).
    Rejected,
    /// The clocks differ too much, also after correction.
    ClockSkew,
    /// No connection, or it broke.
    Network,
    /// No answer in time.
    Timeout,
    /// The store failed (5xx).
    Server,
    /// The answer is not what the protocol says.
    BadReply,
}

/// Whether a mutation that failed may nevertheless have been applied, now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store refused it: it was not applied.
    NotApplied,
    /// Nobody can say (time-out, cut, 5xx): look.
    Unknown,
}

/// A failed call.
#[derive(Debug)]
pub struct Error {
    /// What to act on.
    pub kind: ErrorKind,
    /// Whether it may have been applied.
    pub outcome: Outcome,
    /// The operation and what it was about: `PUT cos://bucket/key`.
    pub what: String,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The provider's code (`NoSuchKey`).
    pub code: Option<String>,
    /// The provider's message, or what was wrong with the reply.
    pub message: Option<String>,
    /// The provider's request id.
    pub request_id: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// Seconds the store asked to wait (Retry-After).
    pub retry_after_s: Option<u64>,
    /// The cause below, if any.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Whether the mutation may have been applied.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether a later repeat can succeed without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Throttled
                | ErrorKind::Network
                | ErrorKind::Timeout
                | ErrorKind::Server
                | ErrorKind::BadReply
                | ErrorKind::BadDigest
        )
    }

    /// Whether the store could not be reached at all.
    pub fn is_offline(&self) -> bool {
        matches!(self.kind, ErrorKind::Network | ErrorKind::Timeout)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.kind {
            ErrorKind::NotFound => "the object does not exist",
            ErrorKind::NoSuchBucket => {
                "the bucket does not exist (check the bucket's name, with its appid, and the region)"
            }
            ErrorKind::NoSuchUpload => "the multipart upload does not exist",
            ErrorKind::Precondition => "the object changed meanwhile",
            ErrorKind::AlreadyExists => "the key exists already",
            ErrorKind::Archived => "the object is archived and must be restored first",
            ErrorKind::Credentials => "the credentials are not accepted (check secret_id, secret_key and token)",
            ErrorKind::AccessDenied => "access is denied to these credentials",
            ErrorKind::Region => "the bucket is not in this region (check region and endpoint)",
            ErrorKind::Throttled => "the store asks to slow down",
            ErrorKind::BadDigest => "the content did not arrive as sent",
            ErrorKind::InvalidPart => "the parts are not accepted",
            ErrorKind::InvalidRange => "the range lies beyond the object",
            ErrorKind::Rejected => "the request is not accepted",
            ErrorKind::ClockSkew => "the clocks of this machine and the store differ too much",
            ErrorKind::Network => "the store cannot be reached",
            ErrorKind::Timeout => "the store did not answer in time",
            ErrorKind::Server => "the store failed",
            ErrorKind::BadReply => "the store's reply makes no sense",
        };
        write!(f, "{}: {advice}", self.what)?;
        let mut open = false;
        let mut detail = |f: &mut fmt::Formatter<'_>, name: &str, value: &str| {
            let lead = if open { ", " } else { " (" };
            open = true;
            write!(f, "{lead}{name}{value}")
        };
        if let Some(status) = self.status {
            detail(f, "HTTP ", &status.to_string())?;
        }
        if let Some(code) = &self.code {
            detail(f, "code ", code)?;
        }
        if let Some(message) = &self.message {
            detail(f, "", message)?;
        }
        if let Some(id) = &self.request_id {
            detail(f, "request id ", id)?;
        }
        if self.attempts > 1 {
            detail(f, "attempts ", &self.attempts.to_string())?;
        }
        if open {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}
