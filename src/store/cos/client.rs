//! One call: signed, sent, judged, repeated.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::fault::{About, Fault, kind_of, outcome_of};
use super::meta::header;
use super::options::{CosOptions, Place, encode_object_path};
use super::sign::Signed;
use crate::http::{self, Body, Client, HeaderMap, HeaderName, HeaderValue, Method, Options, Request, encode};
use crate::store::credentials::{Credentials, CredentialsSource};
use crate::store::error::{Error, ErrorKind, Outcome, Result};
use crate::store::late::Late;
use crate::store::retry::{Next, Policy, Repeat};
use crate::store::skew::{StoreClock, local_ns};
use crate::store::xml;
use crate::types::{Key, TimeNs};

/// Error bodies are a few hundred bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// A page of 1000 keys of 850 bytes, percent-encoded thrice over, with all its markup, stays below.
const MAX_REPLY_BYTES: usize = 16 * 1024 * 1024;

/// Signatures begin in the past by what clocks may differ before it shows (the SDK's figure), and
/// last long enough for a request that waits for its turn.
const SIGNED_SINCE_S: i64 = 60;
const SIGNED_FOR_S: i64 = 3_600;

/// A request of one operation.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// `None` for the bucket itself.
    pub(super) key: Option<&'a Key>,
    /// Parameters, decoded.
    pub(super) query: Vec<(&'static str, String)>,
    /// Headers by lower-case name.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) repeat: Repeat,
    /// The store may think before it answers.
    pub(super) slow: bool,
    /// The whole body is wanted in [`Reply::bytes`]; otherwise it is left in [`Reply::body`].
    pub(super) collect: bool,
    pub(super) forbid_overwrite: bool,
}

impl<'a> Call<'a> {
    /// A call that reads its whole reply, with nothing set.
    pub(super) fn new(method: Method, key: Option<&'a Key>, repeat: Repeat) -> Self {
        Call {
            method,
            key,
            query: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            repeat,
            slow: false,
            collect: true,
            forbid_overwrite: false,
        }
    }
}

/// A success.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
    /// `None` where it was collected.
    pub(super) body: Option<Body>,
}

impl Reply {
    /// The body as XML with this root, or the error that stands there instead.
    pub(super) fn xml(&self, root: &str) -> std::result::Result<xml::Element, Wrong> {
        let element = xml::parse(&self.bytes).map_err(Wrong::Reply)?;
        if let Some(fault) = Fault::of(&element) {
            return Err(Wrong::Fault(fault));
        }
        if element.name != root {
            return Err(Wrong::Reply(format!("the reply is a {} where {root} was expected", element.name)));
        }
        Ok(element)
    }
}

/// Why a reply of status 2xx is no success.
pub(super) enum Wrong {
    /// It holds an error.
    Fault(Fault),
    /// It is not what the protocol says.
    Reply(String),
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Wrong::Reply(text)
    }
}

/// A failed attempt, with what the error itself does not tell.
struct Failure {
    error: Error,
    /// The reply's `Date`, seconds since the epoch.
    date_s: Option<i64>,
    /// No repeat within this call can help.
    hopeless: bool,
}

/// Signs, sends and repeats.
pub(super) struct CosClient {
    name: String,
    place: Place,
    http: Client,
    credentials: CredentialsSource,
    clock: StoreClock,
    policy: Policy,
    late: Late,
    request_timeout: Duration,
    slow_timeout: Duration,
}

impl CosClient {
    /// # Errors
    /// [`ErrorKind::Rejected`] with the setting that is wrong.
    pub(super) fn new(options: CosOptions) -> Result<Self> {
        let name = format!("cos://{}", options.bucket);
        let place = Place::of(&options).map_err(|text| local(&name, ErrorKind::Rejected, text))?;
        let http = Client::new(&Options { connect_timeout: options.connect_timeout, ..Options::default() })
            .map_err(|error| local(&name, ErrorKind::Rejected, error.to_string()))?;
        Ok(CosClient {
            name,
            place,
            http,
            credentials: options.credentials,
            clock: StoreClock::default(),
            policy: Policy::new(options.retry),
            late: Late::default(),
            request_timeout: options.request_timeout,
            slow_timeout: options.slow_timeout,
        })
    }

    /// `cos://bucket`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the requests go.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// See [`ObjectStore::may_arrive_late`](crate::store::ObjectStore::may_arrive_late).
    pub(super) fn may_arrive_late(&self, key: &Key) -> bool {
        self.late.concerns(key)
    }

    /// See [`ObjectStore::time`](crate::store::ObjectStore::time).
    pub(super) fn time(&self, local: TimeNs) -> TimeNs {
        TimeNs(self.clock.at_ns(local.0))
    }

    /// What an operation is called in errors: `PUT cos://bucket/key`.
    pub(super) fn what(&self, method: &Method, key: Option<&Key>) -> String {
        match key {
            Some(key) => format!("{method} {}/{}", self.name, key.as_str().escape_debug()),
            None => format!("{method} {}", self.name),
        }
    }

    /// A refusal of our own: nothing was sent.
    pub(super) fn refuse(&self, method: &Method, key: Option<&Key>, text: String) -> Error {
        local(&self.what(method, key), ErrorKind::Rejected, text)
    }

    /// Makes a call until it succeeds or may not be repeated; `read` makes a result of a reply.
    pub(super) async fn call<T>(
        &self,
        call: Call<'_>,
        read: impl Fn(Reply) -> std::result::Result<T, Wrong>,
    ) -> Result<T> {
        let mut attempts = self.policy.begin(call.repeat);
        let mut resigned = false;
        let mut renewed = false;
        loop {
            let credentials = self.credentials.current();
            let failure = match self.attempt(&call, &credentials, &read).await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if !resigned && self.clock_was_wrong(&call, &failure) {
                tracing::warn!(what = %failure.error.what, "the store's clock differs from this machine's: signing by the store's");
                resigned = true;
                continue;
            }
            let refused = matches!(failure.error.kind, ErrorKind::Credentials | ErrorKind::AccessDenied);
            if refused && !renewed && !credentials.same_as(&self.credentials.current()) {
                renewed = true;
                continue;
            }
            // What is not repeated after an unknown outcome hides none from its caller.
            if call.repeat == Repeat::Idempotent && failure.error.outcome == Outcome::Unknown {
                self.late.note(call.key.into_iter());
            }
            match attempts.failed(failure.error, failure.hopeless) {
                Next::Again(delay) => sleep(delay).await,
                Next::Fail(error) => return Err(error),
            }
        }
    }

    /// Whether the time explains a refusal and has been corrected. A HEAD's refusal names no reason,
    /// so there the difference of the clocks alone must do.
    fn clock_was_wrong(&self, call: &Call<'_>, failure: &Failure) -> bool {
        let silent = call.method == Method::HEAD && failure.error.status == Some(403);
        let complains = failure.error.kind == ErrorKind::ClockSkew;
        (silent || complains) && failure.date_s.is_some_and(|date_s| self.clock.correct(date_s))
    }

    async fn attempt<T>(
        &self,
        call: &Call<'_>,
        credentials: &Credentials,
        read: impl Fn(Reply) -> std::result::Result<T, Wrong>,
    ) -> std::result::Result<T, Failure> {
        let request = self.request(call, credentials).map_err(|error| self.broken(call, error))?;
        let sent_ns = local_ns();
        let response = self.http.send(request).await.map_err(|error| self.broken(call, error))?;
        if let Some(date) = header(&response.headers, "date").and_then(http::parse_date) {
            self.clock.observe(date.sec(), sent_ns, local_ns());
        }
        let status = response.status.as_u16();
        let headers = response.headers;
        if !response.status.is_success() {
            let bytes = match response.body.collect(MAX_ERROR_BYTES).await {
                Ok(bytes) => bytes,
                // Not one of COS's; the status has to do.
                Err(error) if error.kind == http::Kind::TooLarge => Bytes::new(),
                // The status alone could be misread: a 404 is a key, a bucket or an upload.
                Err(error) => return Err(self.broken(call, error)),
            };
            let fault = xml::parse(&bytes).ok().and_then(|root| Fault::of(&root)).unwrap_or_default();
            return Err(self.refused(call, status, &headers, fault));
        }
        let reply = if call.collect {
            let bytes = response.body.collect(MAX_REPLY_BYTES).await.map_err(|error| self.broken(call, error))?;
            Reply { status, headers, bytes, body: None }
        } else {
            Reply { status, headers, bytes: Bytes::new(), body: Some(response.body) }
        };
        let headers = reply.headers.clone();
        read(reply).map_err(|wrong| match wrong {
            Wrong::Fault(fault) => self.refused(call, status, &headers, fault),
            Wrong::Reply(text) => {
                let mut failure = self.refused(call, status, &headers, Fault::default());
                failure.error.kind = ErrorKind::BadReply;
                failure.error.message = Some(text);
                failure
            }
        })
    }

    fn request(&self, call: &Call<'_>, credentials: &Credentials) -> std::result::Result<Request, http::Error> {
        let invalid = |error: http::header::InvalidHeaderValue| http::Error::new(http::Kind::Invalid, false, error);
        let now = self.clock.now_s();
        let path = self.place.path(call.key.map_or("", Key::as_str));
        let mut headers = call.headers.clone();
        if call.method == Method::PUT || call.method == Method::POST {
            headers.push(("content-length".to_owned(), call.body.len().to_string()));
        }
        if let Some(token) = credentials.token() {
            headers.push(("x-cos-security-token".to_owned(), token.to_owned()));
        }
        headers.push(("host".to_owned(), self.place.signed_host.clone()));
        let key_time = format!("{};{}", now - SIGNED_SINCE_S, now + SIGNED_FOR_S);
        let authorization = Signed {
            method: call.method.as_str(),
            path: &path,
            query: &call.query,
            headers: &headers,
            key_time: &key_time,
        }
        .authorization(credentials.secret_id(), credentials.secret_key());
        let mut wire = HeaderMap::with_capacity(headers.len() + 1);
        for (name, value) in &headers {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|error| http::Error::new(http::Kind::Invalid, false, error))?;
            wire.insert(name, HeaderValue::from_str(value).map_err(invalid)?);
        }
        wire.insert(http::header::HOST, HeaderValue::from_str(&self.place.host).map_err(invalid)?);
        let mut authorization = HeaderValue::from_str(&authorization).map_err(invalid)?;
        authorization.set_sensitive(true);
        wire.insert(http::header::AUTHORIZATION, authorization);
        let query: Vec<String> =
            call.query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        Ok(Request {
            method: call.method.clone(),
            scheme: self.place.server.scheme,
            authority: self.place.server.authority.clone(),
            target: format!("{}{mark}{}", encode_object_path(&path), query.join("&")),
            headers: wire,
            body: call.body.clone(),
            timeout: if call.slow { self.slow_timeout } else { self.request_timeout },
        })
    }

    /// An attempt that got no whole answer.
    fn broken(&self, call: &Call<'_>, error: http::Error) -> Failure {
        let mut failed = transport(self.what(&call.method, call.key), error);
        let hopeless = matches!(failed.1, http::Kind::Tls | http::Kind::Invalid);
        if call.repeat == Repeat::Read {
            failed.0.outcome = Outcome::NotApplied;
        }
        Failure { error: failed.0, date_s: None, hopeless }
    }

    /// An attempt that was answered with an error.
    fn refused(&self, call: &Call<'_>, status: u16, headers: &HeaderMap, fault: Fault) -> Failure {
        let about = About { object: call.key.is_some(), forbid_overwrite: call.forbid_overwrite };
        let code = fault.code.or_else(|| header(headers, "x-cos-error-code").map(str::to_owned));
        let request_id = header(headers, "x-cos-request-id").map(str::to_owned).or(fault.request_id);
        let kind = match kind_of(status, code.as_deref(), about) {
            // "Not found" makes files disappear, so it must come from the store, which always gives a
            // request id, and not from something on the way to it.
            ErrorKind::NotFound if code.is_none() && request_id.is_none() => ErrorKind::BadReply,
            kind => kind,
        };
        let error = Error {
            kind,
            outcome: outcome_of(status, kind),
            what: self.what(&call.method, call.key),
            status: Some(status),
            code,
            message: fault.message,
            request_id,
            attempts: 1,
            retry_after_s: header(headers, "retry-after").and_then(|text| text.trim().parse().ok()),
            source: None,
        };
        let date_s = header(headers, "date").and_then(http::parse_date).map(|time| time.sec());
        Failure { error, date_s, hopeless: false }
    }
}

/// An error of the connection in the store's terms, and the kind it was of.
pub(super) fn transport(what: String, error: http::Error) -> (Error, http::Kind) {
    let kind = match error.kind {
        http::Kind::Connect | http::Kind::Io | http::Kind::Tls => ErrorKind::Network,
        http::Kind::Timeout => ErrorKind::Timeout,
        http::Kind::Invalid => ErrorKind::Rejected,
        http::Kind::TooLarge => ErrorKind::BadReply,
    };
    let cause = error.kind;
    let failed = Error {
        kind,
        outcome: if error.sent { Outcome::Unknown } else { Outcome::NotApplied },
        what,
        status: None,
        code: None,
        message: Some(error.to_string()),
        request_id: None,
        attempts: 1,
        retry_after_s: None,
        source: Some(Box::new(error)),
    };
    (failed, cause)
}

/// An error found here: nothing was sent.
pub(super) fn local(what: &str, kind: ErrorKind, text: String) -> Error {
    Error {
        kind,
        outcome: Outcome::NotApplied,
        what: what.to_owned(),
        status: None,
        code: None,
        message: Some(text),
        request_id: None,
        attempts: 0,
        retry_after_s: None,
        source: None,
    }
}
