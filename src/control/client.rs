//! The command line's side of the socket: blocking, one request per connection.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::error::{ActionError, Error, Result};
use super::registry::{self, Address};
use super::server::Refusal;
use super::socket;
use super::status::{
    CachePruned, CacheVerified, HeldEntry, OddKeyList, OutboxEntry, OutboxReconciled, Pending, Refreshed, Retried,
    Settled, Status, Unmounted,
};

/// How long a listing of every key may take: a thousand objects a request, at ten requests a second some
/// thirty million objects.
/// 10 TB from a slow disk.
const READING_TIME: Duration = Duration::from_secs(24 * 3600);
const LISTING_TIME: Duration = Duration::from_secs(3600);
/// How long the daemon may take for an answer that it has in memory.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// How long a file may take to reach the disk: tens of gigabytes on a slow one.
const SYNC_TIME: Duration = Duration::from_secs(600);

/// Longest answer: a thousand times a usual one.
const MAX_REPLY_BYTES: u64 = 64 << 20;

/// A daemon that can be asked.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
}

impl Client {
    /// The daemon of a mount directory.
    ///
    /// # Errors
    /// [`Error::NotMounted`] if none was ever there; whether it is alive shows when it is asked.
    pub fn find(dir: &Path) -> Result<Client> {
        let mount = registry::mount_path(dir)
            .map_err(|source| Error::Io { what: format!("resolve {}", dir.display()), source })?;
        match registry::find(&mount) {
            Some(address) => Ok(Client { address }),
            None => Err(Error::NotMounted(mount)),
        }
    }

    /// A daemon whose address is known.
    pub fn new(address: Address) -> Client {
        Client { address }
    }

    /// Where the daemon is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `GET /status`
    ///
    /// # Errors
    /// See [`Error`].
    pub fn status(&self) -> Result<Status> {
        self.ask("GET", "/status", ANSWER_TIME)
    }

    /// `GET /pending`; `path` is absolute within the mount.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] if nothing of that name is known.
    pub fn pending(&self, path: Option<&str>) -> Result<Pending> {
        self.ask("GET", &about("/pending", path), ANSWER_TIME)
    }

    /// `POST /refresh`; `path` is absolute within the mount. How many directories were listed.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] if there is no such path and was none, [`ActionError::Failed`] if the bucket
    /// could not be asked.
    pub fn refresh(&self, path: Option<&str>) -> Result<u64> {
        // A tree of a million names is listed whole.
        self.ask("POST", &about("/refresh", path), SYNC_TIME).map(|refreshed: Refreshed| refreshed.directories)
    }

    /// `POST /cache/prune`
    ///
    /// # Errors
    /// [`ActionError::Failed`] if the journal failed.
    pub fn cache_prune(&self) -> Result<CachePruned> {
        self.ask("POST", "/cache/prune", SYNC_TIME)
    }

    /// `POST /cache/verify`: takes as long as the disk takes for all of the cache.
    ///
    /// # Errors
    /// [`ActionError::Failed`] if the journal failed.
    pub fn cache_verify(&self) -> Result<CacheVerified> {
        self.ask("POST", "/cache/verify", READING_TIME)
    }

    /// `POST /umount`: returns when the mount is gone.
    ///
    /// # Errors
    /// [`ActionError::Busy`] if programs use the mount.
    pub fn umount(&self, timeout: Duration) -> Result<Unmounted> {
        let path = format!("/umount?timeout_ms={}", timeout.as_millis());
        // The daemon may drain twice: what was open at unmount makes its last uploads after it.
        self.ask("POST", &path, timeout.saturating_mul(2).saturating_add(ANSWER_TIME))
    }

    /// `GET /outbox`
    ///
    /// # Errors
    /// See [`Error`].
    pub fn outbox_list(&self, limit: usize) -> Result<Vec<OutboxEntry>> {
        self.ask("GET", &format!("/outbox?limit={limit}"), ANSWER_TIME)
    }

    /// `POST /outbox/retry`
    ///
    /// # Errors
    /// See [`Error`].
    pub fn outbox_retry(&self) -> Result<u64> {
        self.ask("POST", "/outbox/retry", ANSWER_TIME).map(|retried: Retried| retried.count)
    }

    /// `POST /outbox/reconcile`; `path` is absolute within the mount. Takes as long as listing both buckets, and as
    /// announcing takes where much is missing.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] if there is no such directory, [`ActionError::Failed`] if there is nothing to
    /// compare with, or a bucket could not be listed.
    pub fn outbox_reconcile(&self, path: Option<&str>) -> Result<OutboxReconciled> {
        self.ask("POST", &about("/outbox/reconcile", path), READING_TIME)
    }

    /// `GET /held`
    ///
    /// # Errors
    /// See [`Error`].
    pub fn held(&self) -> Result<Vec<HeldEntry>> {
        self.ask("GET", "/held", ANSWER_TIME)
    }

    /// `GET /odd-keys`: takes as long as a listing of everything.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn odd_keys(&self) -> Result<OddKeyList> {
        self.ask("GET", "/odd-keys", LISTING_TIME)
    }

    /// `POST /held/accept` or `POST /held/discard`: durable on return.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] if it is not held any more, [`ActionError::Busy`] if it cannot be
    /// settled now.
    pub fn settle_held(&self, held: &HeldEntry, accept: bool) -> Result<()> {
        let verb = if accept { "accept" } else { "discard" };
        let target = format!("/held/{verb}?id={}&generation={}", held.id, held.generation);
        // Accepted content is synced to the disk first.
        self.ask("POST", &target, SYNC_TIME).map(|_: Settled| ())
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, target: &str, timeout: Duration) -> Result<T> {
        let reply = self.exchange(method, target, timeout)?;
        let (status, body) = parse(&reply)?;
        if status == 200 {
            return serde_json::from_slice(body).map_err(|error| Error::BadReply(error.to_string()));
        }
        let message = match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => refusal.error,
            Err(_) => format!("status {status}"),
        };
        Err(match status {
            404 => Error::Refused(ActionError::NotFound(message)),
            409 => Error::Refused(ActionError::Busy(message)),
            500 => Error::Refused(ActionError::Failed(message)),
            _ => Error::BadReply(format!("status {status}")),
        })
    }

    fn exchange(&self, method: &str, target: &str, timeout: Duration) -> Result<Vec<u8>> {
        let failed = |source: io::Error| Error::Io {
            what: format!("talk to the daemon of {}", self.address.mount.display()),
            source,
        };
        let mut stream = socket::connect(&self.address.socket).map_err(|error| match error.kind() {
            // Nobody listens, or the state directory is gone altogether.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                Error::Dead { mount: self.address.mount.clone(), pid: self.address.pid }
            }
            io::ErrorKind::PermissionDenied => Error::Denied(self.address.socket.clone()),
            _ => failed(error),
        })?;
        stream.set_read_timeout(Some(timeout)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_TIME)).map_err(failed)?;
        // HTTP/1.0: the answer ends with the connection and never comes in chunks.
        let request = format!("{method} {target} HTTP/1.0\r\nHost: ferryfs\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut reply = Vec::new();
        stream.take(MAX_REPLY_BYTES).read_to_end(&mut reply).map_err(failed)?;
        Ok(reply)
    }
}

/// A request's target that names a path.
fn about(target: &str, path: Option<&str>) -> String {
    match path {
        None => target.to_owned(),
        Some(path) => {
            let path = percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
            format!("{target}?path={path}")
        }
    }
}

/// Status and body of an HTTP/1 answer.
fn parse(reply: &[u8]) -> Result<(u16, &[u8])> {
    let bad = |what: &str| Error::BadReply(what.to_owned());
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(|| bad("it was cut off"))?;
    let (head, body) = reply.split_at(end);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let body = body.get(4..).unwrap_or_default();
    if length.is_some_and(|length| length != body.len()) {
        return Err(bad("it was cut off"));
    }
    Ok((status.ok_or_else(|| bad("it is not HTTP"))?, body))
}
