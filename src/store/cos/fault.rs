//! What COS says when it says no, in terms of [`ErrorKind`] (PROTOCOL section 6).

use crate::store::error::{ErrorKind, Outcome};
use crate::store::xml::Element;

/// An `<Error>` body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) request_id: Option<String>,
}

impl Fault {
    /// Reads an `<Error>` element; `None` if this is another one.
    pub(super) fn of(root: &Element) -> Option<Fault> {
        if root.name != "Error" {
            return None;
        }
        let word = |name| root.word(name).map(str::to_owned);
        Some(Fault { code: word("Code"), message: word("Message"), request_id: word("RequestId") })
    }
}

/// What is known of the request, where the answer alone is ambiguous.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About {
    /// It names an object, not only the bucket.
    pub(super) object: bool,
    /// It asked not to overwrite.
    pub(super) forbid_overwrite: bool,
}

/// The kind of a refusal: by its code where there is one that is known, else by its status. A
/// status of 200 is that of an error inside a success (copy, complete).
pub(super) fn kind_of(status: u16, code: Option<&str>, about: About) -> ErrorKind {
    code.and_then(|code| kind_of_code(code, about)).unwrap_or_else(|| kind_of_status(status, about))
}

fn kind_of_code(code: &str, about: About) -> Option<ErrorKind> {
    Some(match code {
        "NoSuchKey" | "NoSuchVersion" | "NoSuchCopySource" => ErrorKind::NotFound,
        "NoSuchBucket" => ErrorKind::NoSuchBucket,
        "NoSuchUpload" => ErrorKind::NoSuchUpload,
        // If-None-Match is not sent on COS; a store behind the same dialect may answer a forbidden
        // overwrite with 412, and only If-Match on a copy's source means the other thing.
        "PreconditionFailed" => ErrorKind::Precondition,
        "FileAlreadyExists" | "ObjectAlreadyExists" => ErrorKind::AlreadyExists,
        "InvalidObjectState" => ErrorKind::Archived,
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "InvalidSecurityToken" => {
            ErrorKind::Credentials
        }
        "AccessDenied" | "AccessForbidden" | "DownloadForbidden" | "PaymentRequired" => ErrorKind::AccessDenied,
        "RequestTimeTooSkewed" | "Request has expired" | "RequestIsExpired" => ErrorKind::ClockSkew,
        "SlowDown" | "KmsFreqControl" | "TooManyRequests" => ErrorKind::Throttled,
        "BadDigest" | "IncompleteBody" | "EntitySizeNotMatch" => ErrorKind::BadDigest,
        "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" => ErrorKind::InvalidPart,
        "InvalidRange" => ErrorKind::InvalidRange,
        "RequestTimeout" | "UserNetworkTooSlow" => ErrorKind::Timeout,
        "InternalError" | "ServiceUnavailable" | "KmsInternalException" | "UploadConflict" => ErrorKind::Server,
        "BucketAccelerateNotEnabled" | "PermanentRedirect" | "TemporaryRedirect" => ErrorKind::Region,
        "PathConflict" | "ObjectLocked" | "BucketLocked" if about.forbid_overwrite => ErrorKind::Rejected,
        _ => return None,
    })
}

fn kind_of_status(status: u16, about: About) -> ErrorKind {
    match status {
        // A redirection would need another signature for another host: the endpoint is wrong.
        300..=399 => ErrorKind::Region,
        401 => ErrorKind::Credentials,
        402 | 403 => ErrorKind::AccessDenied,
        404 if about.object => ErrorKind::NotFound,
        404 => ErrorKind::NoSuchBucket,
        408 => ErrorKind::Timeout,
        // The code of a forbidden overwrite is not established; the status is.
        409 if about.forbid_overwrite => ErrorKind::AlreadyExists,
        412 => ErrorKind::Precondition,
        416 => ErrorKind::InvalidRange,
        429 => ErrorKind::Throttled,
        400..=499 | 501 => ErrorKind::Rejected,
        // Also an error of an unknown code inside a 200: it began well and broke in the middle.
        200 | 500.. => ErrorKind::Server,
        _ => ErrorKind::BadReply,
    }
}

/// Whether a mutation that was answered so may have been applied.
pub(super) fn outcome_of(status: u16, kind: ErrorKind) -> Outcome {
    match (status, kind) {
        // Refused before anything was done, whatever the status.
        (_, ErrorKind::Throttled) | (300..=499 | 501, _) => Outcome::NotApplied,
        (200..=299, ErrorKind::Server | ErrorKind::BadReply | ErrorKind::Timeout) => Outcome::Unknown,
        (200..=299, _) => Outcome::NotApplied,
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::xml::parse;

    const OBJECT: About = About { object: true, forbid_overwrite: false };
    const BUCKET: About = About { object: false, forbid_overwrite: false };

    #[test]
    fn codes_decide_before_statuses() {
        for (status, code, expected) in [
            (404, "NoSuchUpload", ErrorKind::NoSuchUpload),
            (404, "NoSuchBucket", ErrorKind::NoSuchBucket),
            (403, "InvalidObjectState", ErrorKind::Archived),
            (409, "InvalidObjectState", ErrorKind::Archived),
            (403, "Request has expired", ErrorKind::ClockSkew),
            (403, "SignatureDoesNotMatch", ErrorKind::Credentials),
            (403, "SomethingNew", ErrorKind::AccessDenied),
            (503, "SlowDown", ErrorKind::Throttled),
            (503, "ServiceUnavailable", ErrorKind::Server),
            (400, "BadDigest", ErrorKind::BadDigest),
            (400, "RequestTimeout", ErrorKind::Timeout),
            (400, "KeyTooLong", ErrorKind::Rejected),
            (409, "UploadConflict", ErrorKind::Server),
            (200, "InternalError", ErrorKind::Server),
            (200, "NoSuchKey", ErrorKind::NotFound),
            (200, "SomethingNew", ErrorKind::Server),
        ] {
            assert_eq!(kind_of(status, Some(code), OBJECT), expected, "{status} {code}");
        }
    }

    #[test]
    fn statuses_decide_where_there_is_no_body() {
        assert_eq!(kind_of(404, None, OBJECT), ErrorKind::NotFound);
        assert_eq!(kind_of(404, None, BUCKET), ErrorKind::NoSuchBucket);
        assert_eq!(kind_of(403, None, OBJECT), ErrorKind::AccessDenied);
        assert_eq!(kind_of(412, None, OBJECT), ErrorKind::Precondition);
        assert_eq!(kind_of(301, None, BUCKET), ErrorKind::Region);
        assert_eq!(kind_of(502, None, OBJECT), ErrorKind::Server);
        assert_eq!(kind_of(501, None, OBJECT), ErrorKind::Rejected);
        assert_eq!(kind_of(103, None, OBJECT), ErrorKind::BadReply);
        let forbid = About { object: true, forbid_overwrite: true };
        assert_eq!(kind_of(409, Some("NobodyKnows"), forbid), ErrorKind::AlreadyExists);
        assert_eq!(kind_of(409, Some("PathConflict"), forbid), ErrorKind::Rejected);
        assert_eq!(kind_of(409, Some("NobodyKnows"), OBJECT), ErrorKind::Rejected);
    }

    #[test]
    fn only_what_was_surely_refused_was_not_applied() {
        for (status, kind, expected) in [
            (403, ErrorKind::AccessDenied, Outcome::NotApplied),
            (503, ErrorKind::Throttled, Outcome::NotApplied),
            (503, ErrorKind::Server, Outcome::Unknown),
            (500, ErrorKind::Server, Outcome::Unknown),
            (501, ErrorKind::Rejected, Outcome::NotApplied),
            (200, ErrorKind::Server, Outcome::Unknown),
            (200, ErrorKind::NoSuchUpload, Outcome::NotApplied),
        ] {
            assert_eq!(outcome_of(status, kind), expected, "{status} {kind:?}");
        }
    }

    #[test]
    fn error_bodies_are_read_and_others_are_not_errors() {
        let root = parse(b"<Error><Code>NoSuchKey</Code><Message>gone</Message><RequestId>r1</RequestId></Error>");
        let fault = Fault::of(&root.unwrap()).unwrap();
        assert_eq!((fault.code.as_deref(), fault.request_id.as_deref()), (Some("NoSuchKey"), Some("r1")));
        assert_eq!(Fault::of(&parse(b"<CopyObjectResult/>").unwrap()), None);
    }
}
