//! Why a request got no whole response.

use std::error::Error as StdError;
use std::fmt;

/// What a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No connection was made (name resolution, refusal, no route).
    Connect,
    /// No progress for the time allowed.
    Timeout,
    /// The connection broke, or what came over it is not HTTP.
    Io,
    /// TLS failed: a certificate that does not verify, or a server that speaks no TLS.
    Tls,
    /// The request cannot be written as HTTP (a header value with a control character).
    Invalid,
    /// The response body is longer than the caller allowed.
    TooLarge,
}

/// A request that got no whole response.
#[derive(Debug)]
pub struct Error {
    /// What to act on.
    pub kind: Kind,
    /// Whether the server can have seen the request; false means that no byte of it was written.
    pub sent: bool,
    /// The cause.
    pub source: Box<dyn StdError + Send + Sync>,
}

impl Error {
    /// An error of this kind with a cause or a text as its source.
    pub fn new(kind: Kind, sent: bool, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error { kind, sent, source: source.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Kind::Connect => "no connection",
            Kind::Timeout => "timed out",
            Kind::Io => "the connection broke",
            Kind::Tls => "TLS failed",
            Kind::Invalid => "the request is not valid HTTP",
            Kind::TooLarge => "the response is too large",
        };
        f.write_str(what)?;
        // The outer layers only say "client error (Connect)"; the last cause is what helps.
        let mut cause: &dyn StdError = self.source.as_ref();
        while let Some(next) = cause.source() {
            cause = next;
        }
        write!(f, ": {cause}")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Whether a TLS error lies anywhere below. An [`std::io::Error`] hides what it wraps from
/// `source()` chains (it hands out the inner error's own source), so it is opened as well.
pub(super) fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(current) = next {
        if current.is::<rustls::Error>() {
            return true;
        }
        if let Some(inner) = current.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
            let inner: &(dyn StdError + 'static) = inner;
            return is_tls(inner);
        }
        next = current.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn tls_errors_are_found_below_io_errors() {
        let tls = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError));
        assert!(is_tls(&tls));
        assert!(!is_tls(&io::Error::other("reset")));
        assert!(!is_tls(&io::Error::from(io::ErrorKind::ConnectionReset)));
    }

    #[test]
    fn the_message_ends_with_the_root_cause() {
        let error = Error::new(Kind::Connect, false, io::Error::other(io::Error::other("refused by test")));
        assert_eq!(error.to_string(), "no connection: refused by test");
    }
}
