//! What came of an announcement.

use std::fmt;
use std::time::Duration;

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Status 200: OMS has taken the keys (which does not mean that it has copied them).
    Accepted,
    /// The same request may succeed later.
    Transient {
        /// What kind of trouble.
        kind: TransientKind,
        /// Details.
        failure: Failure,
        /// The time that OMS asked to wait.
        retry_after: Option<Duration>,
    },
    /// 400 and every other 4xx that has no variant here: something in this request is not
    /// acceptable.
    Rejected(Failure),
    /// 401 or 403: the keys of the account, or what they may do.
    Unauthorized(Failure),
    /// 404: there is no such project or sync task.
    NoSuchTask(Failure),
}

/// Kinds of trouble that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransientKind {
    /// 429.
    Throttled,
    /// 5xx, or an answer that the protocol does not know (a redirect of a captive portal).
    Server,
    /// No connection, a broken one, or TLS that does not verify.
    Network,
    /// No answer in time, or 408.
    Timeout,
}

impl TransientKind {
    /// Whether OMS (or its gateway) answered at all.
    pub fn is_reachable(self) -> bool {
        matches!(self, TransientKind::Throttled | TransientKind::Server)
    }
}

/// Details of a request that was not accepted, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// OMS's or the gateway's code (`OMS.0001`, `APIGW.0301`).
    pub code: Option<String>,
    /// Their message, or what went wrong on the way.
    pub message: Option<String>,
    /// Their request id.
    pub request_id: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lead = "";
        let mut part = |f: &mut fmt::Formatter<'_>, name: &str, value: &str| {
            write!(f, "{lead}{name}{value}")?;
            lead = ", ";
            Ok(())
        };
        if let Some(status) = self.status {
            part(f, "HTTP ", &status.to_string())?;
        }
        if let Some(code) = &self.code {
            part(f, "code ", code)?;
        }
        if let Some(message) = &self.message {
            part(f, "", message)?;
        }
        if let Some(id) = &self.request_id {
            part(f, "request id ", id)?;
        }
        if lead.is_empty() {
            f.write_str("no details")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_as_one_line() {
        assert_eq!(Failure::default().to_string(), "no details");
        let failure = Failure {
            status: Some(401),
            code: Some("APIGW.0301".into()),
            message: Some("Incorrect IAM authentication information".into()),
            request_id: Some("r1".into()),
        };
        assert_eq!(
            failure.to_string(),
            "HTTP 401, code APIGW.0301, Incorrect IAM authentication information, request id r1"
        );
    }
}
