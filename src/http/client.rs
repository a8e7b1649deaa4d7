//! The client: one pool of connections, shared by cloning.

use std::error::Error as StdError;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::http::uri::Uri;
use hyper::{Method, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, sleep_until};

use super::body::{Body, Outgoing, Progress};
use super::endpoint::Scheme;
use super::error::{Error, Kind, is_tls};

/// Idle connections are dropped before servers drop them (nginx and most gateways: 60 s or more;
/// some load balancers 30 s): a request sent into a connection that is just being closed fails
/// with an outcome that nobody knows.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// Sent bytes that stay unacknowledged this long mean a dead peer (TCP_USER_TIMEOUT).
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// A peer that is silent this long is asked whether it still lives, so that a reply that may take
/// minutes is not waited for from a host that is gone.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// After its last chunk was handed over, a body may still sit in the socket's send buffer (tcp_wmem
/// allows 4 MiB by default). The reply is waited for longer by the time that these bytes need at
/// [`SLOWEST_BYTES_PER_S`].
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// The slowest link on which a full send buffer is not taken for a dead server.
const SLOWEST_BYTES_PER_S: usize = 64 << 10;

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest wait for a connection, name resolution and TLS handshake included.
    pub connect_timeout: Duration,
    /// Idle connections kept to one server.
    pub idle_connections: usize,
    /// Value of the User-Agent header.
    pub user_agent: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connect_timeout: Duration::from_secs(10),
            idle_connections: 64,
            user_agent: concat!("ferryfs/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// A request, complete but for Host, Content-Length and User-Agent, which are added where absent.
#[derive(Clone)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// How to speak to the server.
    pub scheme: Scheme,
    /// `host[:port]` to connect to; also the Host header unless `headers` has one.
    pub authority: String,
    /// Path and query exactly as they go over the wire, percent-encoded, beginning with `/`.
    pub target: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body; empty for none.
    pub body: Bytes,
    /// Longest time without progress: a chunk of the body taken, the response's head, a chunk of the
    /// response's body. The whole request may take longer.
    pub timeout: Duration,
}

impl fmt::Debug for Request {
    /// Without headers, which hold signatures and tokens, and without the query, which may.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{} {}://{}{path}", self.method, self.scheme.as_str(), self.authority)
    }
}

/// The head of a response, and its body still to come.
#[derive(Debug)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Body,
}

impl Response {
    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A pool of connections; clones share it.
#[derive(Clone)]
pub struct Client {
    inner: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Outgoing>,
    user_agent: hyper::header::HeaderValue,
    connect_timeout: Duration,
    roots: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("connect_timeout", &self.connect_timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that trusts the system's root certificates (or those of SSL_CERT_FILE and
    /// SSL_CERT_DIR). Connects to nothing yet.
    ///
    /// # Errors
    /// [`Kind::Tls`] if TLS cannot be set up, [`Kind::Invalid`] if the user agent is no header value.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        // A machine without root certificates can still speak http to loopback; https then fails
        // with a message that says so.
        let (roots_found, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Kind::Tls, false, error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(options.connect_timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let inner = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(options.idle_connections)
            .build(connector);
        let user_agent = options
            .user_agent
            .parse()
            .map_err(|error: hyper::header::InvalidHeaderValue| Error::new(Kind::Invalid, false, error))?;
        Ok(Client { inner, user_agent, connect_timeout: options.connect_timeout, roots: roots_found })
    }

    /// Sends one request, once, and waits for the response's head.
    ///
    /// # Errors
    /// See [`Kind`]; any status is a success here.
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        let progress = Progress::new();
        let patience = request.timeout + drain_time(request.body.len());
        let timeout = request.timeout;
        let mut message = self.message(request, &progress)?;
        let mut connection = capture_connection(&mut message);
        let connect_by = Instant::now() + self.connect_timeout;
        let mut reply = pin!(self.inner.request(message));
        let mut connected = false;
        let outcome = loop {
            let deadline = if connected { progress.last() + patience } else { connect_by };
            tokio::select! {
                biased;
                outcome = &mut reply => break outcome,
                _ = connection.wait_for_connection_metadata(), if !connected => {
                    connected = true;
                    progress.touch();
                }
                () = sleep_until(deadline) => {
                    // The body may have moved on while this slept.
                    let moved = connected && progress.last() + patience > Instant::now();
                    if !moved {
                        // The arm above comes first and is told before anything is written.
                        let what = if connected { "no progress" } else { "no connection" };
                        let waited = if connected { patience } else { self.connect_timeout };
                        return Err(Error::new(Kind::Timeout, connected, format!("{what} for {} s", waited.as_secs())));
                    }
                }
            }
        };
        let response = outcome.map_err(|error| self.failed(error))?;
        let (head, incoming) = response.into_parts();
        Ok(Response { status: head.status, headers: head.headers, body: Body::new(incoming, timeout) })
    }

    fn message(&self, request: Request, progress: &Progress) -> Result<hyper::Request<Outgoing>, Error> {
        let invalid = |error: hyper::http::Error| Error::new(Kind::Invalid, false, error);
        let uri = Uri::builder()
            .scheme(request.scheme.as_str())
            .authority(request.authority)
            .path_and_query(request.target)
            .build()
            .map_err(invalid)?;
        let mut message = hyper::Request::builder()
            .method(request.method)
            .uri(uri)
            .body(Outgoing::new(request.body, progress.clone()))
            .map_err(invalid)?;
        *message.headers_mut() = request.headers;
        message.headers_mut().entry(hyper::header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        Ok(message)
    }

    fn failed(&self, error: hyper_util::client::legacy::Error) -> Error {
        let source = error.source();
        // hyper cancels only what it has not begun to write.
        let canceled = source.and_then(|s| s.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_canceled);
        let connecting = error.is_connect();
        let sent = !connecting && !canceled;
        if is_tls(&error) {
            if self.roots == 0 {
                let text = format!("{}: this machine has no root certificates (package ca-certificates)", root(&error));
                return Error::new(Kind::Tls, sent, text);
            }
            return Error::new(Kind::Tls, sent, error);
        }
        let kind = match root(&error).downcast_ref::<std::io::Error>() {
            Some(io) if io.kind() == std::io::ErrorKind::TimedOut => Kind::Timeout,
            _ if connecting => Kind::Connect,
            _ => Kind::Io,
        };
        Error::new(kind, sent, error)
    }
}

/// How long a body's last bytes may need to leave the send buffer.
fn drain_time(body_bytes: usize) -> Duration {
    Duration::from_millis((body_bytes.min(SEND_BUFFER_BYTES) * 1000 / SLOWEST_BYTES_PER_S) as u64)
}

/// The innermost cause.
fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause
}
