//! What the service manager is told (sd_notify(3)); nothing, without one.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if there is one.
pub(super) struct Notify {
    there: bool,
}

impl Notify {
    pub(super) fn from_environment() -> Notify {
        Notify { there: std::env::var_os("NOTIFY_SOCKET").is_some() }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if self.there
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }

    pub(super) fn ready(&self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("mounted")]);
    }

    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    pub(super) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Progress of the drain; the manager waits `more` from now on before it kills.
    pub(super) fn progress(&self, text: &str, more: Duration) {
        let micros = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::Status(text), NotifyState::ExtendTimeoutUsec(micros)]);
    }
}
