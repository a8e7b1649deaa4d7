//! Bodies, both ways, with the clock that notices when nothing moves.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::poll_fn;
use futures::{FutureExt, Stream};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::error::{Error, Kind, is_tls};

/// Bytes handed to the connection at a time: small enough that a slow link shows progress well
/// within any timeout, large enough that the per-chunk cost does not matter.
const CHUNK_BYTES: usize = 64 * 1024;

/// When a request last made progress.
#[derive(Clone)]
pub(super) struct Progress {
    /// Guards the time only; never held across another lock or a wait.
    last: Arc<Mutex<Instant>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Progress { last: Arc::new(Mutex::new(Instant::now())) }
    }

    pub(super) fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request body: bytes in memory, handed out in chunks that are noted as progress.
pub(super) struct Outgoing {
    rest: Bytes,
    progress: Progress,
}

impl Outgoing {
    pub(super) fn new(bytes: Bytes, progress: Progress) -> Self {
        Outgoing { rest: bytes, progress }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(CHUNK_BYTES);
        let chunk = self.rest.split_to(len);
        self.progress.touch();
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A response body: a stream of bytes that fails if it ends early, or if nothing comes for the
/// request's timeout while somebody waits for it.
pub struct Body {
    incoming: Incoming,
    timeout: Duration,
    /// Runs only while the stream is waited for, so that a slow reader is not blamed on the server.
    idle: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Body {
    pub(super) fn new(incoming: Incoming, timeout: Duration) -> Self {
        Body { incoming, timeout, idle: None, ended: false }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As the stream, and [`Kind::TooLarge`] if it is longer than `limit_bytes`.
    pub async fn collect(mut self, limit_bytes: usize) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = poll_fn(|cx| Pin::new(&mut self).poll_next(cx)).await {
            let chunk = chunk?;
            if whole.len() + chunk.len() > limit_bytes {
                return Err(Error::new(Kind::TooLarge, true, format!("more than {limit_bytes} bytes")));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle = None;
                    // Trailers carry no bytes; nothing here needs them.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    let kind = if is_tls(&error) { Kind::Tls } else { Kind::Io };
                    return Poll::Ready(Some(Err(Error::new(kind, true, error))));
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => {
                    let timeout = self.timeout;
                    let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(timeout)));
                    ready!(idle.poll_unpin(cx));
                    self.ended = true;
                    let text = format!("no byte of the response for {} s", timeout.as_secs());
                    return Poll::Ready(Some(Err(Error::new(Kind::Timeout, true, text))));
                }
            }
        }
        Poll::Ready(None)
    }
}
