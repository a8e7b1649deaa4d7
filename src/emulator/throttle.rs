//! A line of limited bandwidth that all transfers of one direction share.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// One direction.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_s: Option<u64>,
    /// When the line is free again.
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// `None` is unlimited.
    pub(super) fn new(bytes_per_s: Option<u64>) -> Throttle {
        Throttle { bytes_per_s: bytes_per_s.filter(|rate| *rate > 0), free_at: Mutex::new(None) }
    }

    /// Returns when so many bytes have passed.
    pub(super) async fn pass(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_s else { return };
        let until = {
            let mut free_at = self.free_at.lock().expect("invariant: nothing panics while it holds this lock");
            let now = Instant::now();
            let until = free_at.map_or(now, |free| free.max(now)) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free_at = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}
