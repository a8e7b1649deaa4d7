//! One sync task, spoken to over HTTP.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};

use crate::clock::Clock;
use crate::http::{Client, HeaderMap, HeaderName, HeaderValue, Kind, Method, Request, Response, parse_date};
use crate::types::{Key, TimeNs};

use super::Announcer;
use super::encode::{ErrorBody, event_body};
use super::error::{Error, Result};
use super::outcome::{Failure, Outcome, TransientKind};
use super::sign;
use super::url::SyncUrl;

/// Longest error body read, bytes; documented ones are below 1 KiB.
const REPLY_BYTES: usize = 64 * 1024;

/// The gateway's code for a date that is too far off (PROTOCOL section 11).
const SKEW_CODE: &str = "APIGW.0303";

/// The gateway tolerates 15 minutes; a 401 with a difference well within that has another cause,
/// and one beyond is skew whatever its code.
const SKEW_SECONDS: i64 = 600;

/// Settings of a [`SyncTask`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Where.
    pub url: SyncUrl,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: SecretString,
    /// Token of temporary keys.
    pub security_token: Option<SecretString>,
    /// Percent-encode keys, as the API reference asks (default). Off, keys go out raw, as the older
    /// notifier functions sent them.
    pub encode_keys: bool,
    /// Longest time for one request, from connecting to the last byte of the answer.
    pub timeout: Duration,
}

impl Options {
    /// Settings with the defaults: encoded keys, 30 s (OMS answers within one; a gateway may take
    /// longer to say 503).
    pub fn new(url: SyncUrl, access_key: String, secret_key: SecretString) -> Self {
        Options {
            url,
            access_key,
            secret_key,
            security_token: None,
            encode_keys: true,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What requests are signed with.
struct Keys {
    access_key: String,
    secret_key: SecretString,
    security_token: Option<SecretString>,
}

impl Keys {
    /// Those of `options`, if they can stand in a header.
    fn of(options: &Options) -> Result<Keys> {
        let fits = |text: &str| !text.is_empty() && HeaderValue::from_str(text).is_ok();
        if !fits(&options.access_key) {
            return Err(Error::Credential("access key"));
        }
        if !fits(options.secret_key.expose_secret()) {
            return Err(Error::Credential("secret key"));
        }
        if options.security_token.as_ref().is_some_and(|token| !fits(token.expose_secret())) {
            return Err(Error::Credential("security token"));
        }
        Ok(Keys {
            access_key: options.access_key.clone(),
            secret_key: options.secret_key.clone(),
            security_token: options.security_token.clone(),
        })
    }
}

/// The client of one sync task.
pub struct SyncTask {
    options: Options,
    /// Held only to copy the pointer; last in every order of locks.
    keys: RwLock<Arc<Keys>>,
    identity: String,
    client: Client,
    clock: Arc<dyn Clock>,
    /// Seconds to add to this machine's time, learned from the gateway's Date header.
    skew_s: AtomicI64,
}

impl fmt::Debug for SyncTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncTask").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl SyncTask {
    /// A client; connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Credential`] if a key cannot stand in a header.
    pub fn new(options: Options, client: Client, clock: Arc<dyn Clock>) -> Result<Self> {
        let keys = RwLock::new(Arc::new(Keys::of(&options)?));
        Ok(SyncTask { identity: options.url.to_string(), options, keys, client, clock, skew_s: AtomicI64::new(0) })
    }

    /// Signs with the keys of `options` from now on.
    ///
    /// # Errors
    /// [`Error::Credential`] as [`SyncTask::new`]; the old keys then stay in force.
    pub fn replace_keys(&self, options: &Options) -> Result<()> {
        let keys = Arc::new(Keys::of(options)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The address.
    pub fn url(&self) -> &SyncUrl {
        &self.options.url
    }

    /// The gateway's time, as far as known.
    fn now(&self) -> TimeNs {
        let skew_s = self.skew_s.load(Ordering::Relaxed);
        TimeNs(self.clock.now().0.saturating_add(skew_s.saturating_mul(1_000_000_000)))
    }

    /// What is in force now.
    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn request(&self, body: &Bytes, keys: &Keys) -> Request {
        let url = &self.options.url;
        let path = url.path();
        let mut signed = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("host".to_owned(), url.endpoint().authority.clone()),
            ("x-sdk-date".to_owned(), sign::sdk_date(self.now())),
        ];
        if let Some(token) = &keys.security_token {
            signed.push(("x-security-token".to_owned(), token.expose_secret().to_owned()));
        }
        let authorization = sign::authorization(
            &sign::Request { method: "POST", path: &path, query: "", headers: &signed, body },
            &keys.access_key,
            keys.secret_key.expose_secret(),
        );
        signed.push(("authorization".to_owned(), authorization));
        let mut headers = HeaderMap::new();
        for (name, value) in &signed {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("invariant: the names above are header names");
            let mut value =
                HeaderValue::from_str(value).expect("invariant: `Keys::of` and the parser of URLs refuse other text");
            value.set_sensitive(name == "authorization" || name == "x-security-token");
            headers.insert(name, value);
        }
        Request {
            method: Method::POST,
            scheme: url.endpoint().scheme,
            authority: url.endpoint().authority.clone(),
            target: path,
            headers,
            body: body.clone(),
            timeout: self.options.timeout,
        }
    }

    /// One request, within its time.
    async fn send(&self, body: &Bytes, keys: &Keys) -> Reply {
        let exchange = async {
            match self.client.send(self.request(body, keys)).await {
                Ok(response) => Reply::read(response).await,
                Err(error) => Reply::broken(error.kind, error.to_string()),
            }
        };
        match tokio::time::timeout(self.options.timeout, exchange).await {
            Ok(reply) => reply,
            Err(_) => Reply::broken(Kind::Timeout, format!("no answer in {} s", self.options.timeout.as_secs_f32())),
        }
    }

    /// Adopts the gateway's time if a refusal is due to ours. True if a repeat can help.
    fn correct_skew(&self, reply: &Reply) -> bool {
        if reply.failure.status != Some(401) {
            return false;
        }
        let Some(date) = reply.date else { return false };
        let difference_s = date.sec().saturating_sub(self.now().sec());
        let told = reply.failure.code.as_deref() == Some(SKEW_CODE) && difference_s != 0;
        if !told && difference_s.abs() < SKEW_SECONDS {
            return false;
        }
        let skew_s = date.sec().saturating_sub(self.clock.now().sec());
        self.skew_s.store(skew_s, Ordering::Relaxed);
        tracing::warn!(sync_task = %self.identity, skew_s, "this machine's clock differs from the one of OMS; corrected for");
        true
    }

    async fn announce_keys(&self, keys: &[Key]) -> Outcome {
        let body = Bytes::from(event_body(keys, self.options.encode_keys));
        let mut keys = self.keys();
        let mut reply = self.send(&body, &keys).await;
        let now_in_force = self.keys();
        let is_stale = reply.failure.status == Some(401) && !Arc::ptr_eq(&keys, &now_in_force);
        if is_stale {
            // Replaced while it was under way: the refusal says nothing of the new keys.
            keys = now_in_force;
        }
        if self.correct_skew(&reply) || is_stale {
            reply = self.send(&body, &keys).await;
        }
        reply.outcome()
    }
}

impl Announcer for SyncTask {
    fn announce<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Outcome> {
        Box::pin(self.announce_keys(keys))
    }

    fn identity(&self) -> &str {
        &self.identity
    }
}

/// An answer, read whole, or the lack of one.
struct Reply {
    failure: Failure,
    /// Why there is no answer.
    broken: Option<Kind>,
    /// The gateway's time.
    date: Option<TimeNs>,
    retry_after: Option<Duration>,
}

impl Reply {
    async fn read(response: Response) -> Reply {
        let status = response.status.as_u16();
        let date = response.header("date").and_then(parse_date);
        let retry_after = response.header("retry-after").and_then(|text| parse_retry_after(text, date));
        let request_id = response.header("x-request-id").map(str::to_owned);
        let body = match response.body.collect(REPLY_BYTES).await {
            Ok(body) => ErrorBody::parse(&body),
            // The status stands, whatever became of the body.
            Err(error) => ErrorBody { message: Some(error.to_string()), ..ErrorBody::default() },
        };
        let failure = Failure {
            status: Some(status),
            code: body.code,
            message: body.message,
            request_id: request_id.or(body.request_id),
        };
        Reply { failure, broken: None, date, retry_after }
    }

    fn broken(kind: Kind, message: String) -> Reply {
        let failure = Failure { message: Some(message), ..Failure::default() };
        Reply { failure, broken: Some(kind), date: None, retry_after: None }
    }

    fn outcome(self) -> Outcome {
        let Reply { failure, broken, retry_after, .. } = self;
        let transient = |kind| Outcome::Transient { kind, failure: failure.clone(), retry_after };
        match (failure.status, broken) {
            (Some(200), _) => Outcome::Accepted,
            (Some(429), _) => transient(TransientKind::Throttled),
            (Some(408), _) | (None, Some(Kind::Timeout)) => transient(TransientKind::Timeout),
            (Some(401 | 403), _) => Outcome::Unauthorized(failure),
            (Some(404), _) => Outcome::NoSuchTask(failure),
            (Some(400..=499), _) => Outcome::Rejected(failure),
            (Some(_), _) => transient(TransientKind::Server),
            (None, _) => transient(TransientKind::Network),
        }
    }
}

/// `Retry-After` in either form: seconds, or a date (counted from the answer's own date).
fn parse_retry_after(text: &str, date: Option<TimeNs>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = parse_date(text)?;
    Some(Duration::from_secs(u64::try_from(until.sec().saturating_sub(date?.sec())).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let date = Some(TimeNs::new(784_111_777, 0));
        assert_eq!(parse_retry_after(" 7 ", None), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:47 GMT", date), Some(Duration::from_secs(10)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:27 GMT", date), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon", date), None);
    }

    #[test]
    fn every_status_has_its_outcome() {
        let outcome = |status: u16| {
            let failure = Failure { status: Some(status), ..Failure::default() };
            Reply { failure, broken: None, date: None, retry_after: None }.outcome()
        };
        assert_eq!(outcome(200), Outcome::Accepted);
        for status in [400, 405, 409, 413, 422] {
            assert!(matches!(outcome(status), Outcome::Rejected(_)), "{status}");
        }
        for status in [401, 403] {
            assert!(matches!(outcome(status), Outcome::Unauthorized(_)), "{status}");
        }
        assert!(matches!(outcome(404), Outcome::NoSuchTask(_)));
        for (status, wanted) in [
            (201, TransientKind::Server),
            (204, TransientKind::Server),
            (302, TransientKind::Server),
            (408, TransientKind::Timeout),
            (429, TransientKind::Throttled),
            (500, TransientKind::Server),
            (503, TransientKind::Server),
        ] {
            assert!(matches!(outcome(status), Outcome::Transient { kind, .. } if kind == wanted), "{status}");
        }
        let broken = |kind| Reply::broken(kind, "x".to_owned()).outcome();
        assert!(matches!(broken(Kind::Timeout), Outcome::Transient { kind: TransientKind::Timeout, .. }));
        for kind in [Kind::Connect, Kind::Io, Kind::Tls] {
            assert!(matches!(broken(kind), Outcome::Transient { kind: TransientKind::Network, .. }));
        }
    }
}
