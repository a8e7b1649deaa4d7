//! What the service manager is told (sd_notify(3)); nothing, without one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// How long a manager may leave its socket full: what it does not read must not stop the daemon.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
pub(super) struct Notify {
    socket: Option<OsString>,
}

impl Notify {
    pub(super) fn from_environment() -> Notify {
        Notify { socket: std::env::var_os("NOTIFY_SOCKET") }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = send(socket, &text) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }

    pub(super) fn ready(&self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("mounted")]);
    }

    /// Why the secrets in force are the old ones.
    pub(super) fn not_reloaded(&self, why: &str) {
        // One line, or it would be several assignments.
        let text = format!("mounted; not reloaded: {}", why.replace('\n', " "));
        self.tell(&[NotifyState::Ready, NotifyState::Status(&text)]);
    }

    /// What no longer works, and why.
    pub(super) fn failed(&self, why: &str) {
        let text = format!("read-only, the journal has failed: {}", why.replace('\n', " "));
        self.tell(&[NotifyState::Status(&text)]);
    }

    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// What came of it.
    pub(super) fn stopping(&self, text: &str) {
        // One line, or it would be several assignments.
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&text.replace('\n', " "))]);
    }

    /// Progress of the drain; the manager waits `more` from now on before it kills.
    pub(super) fn progress(&self, text: &str, more: Duration) {
        let micros = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::Status(text), NotifyState::ExtendTimeoutUsec(micros)]);
    }
}

/// One datagram. Unlike `sd_notify::notify`, this does not wait for ever.
fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(PATIENCE))?;
    datagram.connect_addr(&address)?;
    datagram.send(text.as_bytes()).map(|_| ())
}
