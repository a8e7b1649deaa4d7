//! One request being worked on: its call, its body, and what a fault wants of it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use md5::Digest;
use md5::Md5;
use tokio::sync::oneshot;

use super::log::Entry;
use super::log::StoreRecord;
use super::reply::CHUNK_BYTES;
use super::reply::Refusal;
use super::reply::Stop;
use super::reply::flip_a_byte;
use super::shelf::Bucket;
use super::shelf::Object;
use super::shelf::Received;
use super::state::State;
use super::wire::Call;

/// Of a body that is refused, so much is read to keep the connection; beyond it is closed.
const MOST_DRAINED: u64 = 64 * 1024 * 1024;

/// Makes a request wait, once received and before it is applied.
pub(super) struct Gate {
    /// Told when the request has been received.
    pub(super) received: oneshot::Sender<()>,
    /// From then until it is applied.
    pub(super) after: Duration,
}

/// One request being worked on.
pub(super) struct Exchange {
    pub(super) state: Arc<State>,
    pub(super) call: Call,
    pub(super) entry: Arc<Entry>,
    /// `None` when it has been read.
    pub(super) body: Option<Incoming>,
    /// A body that had to be read before its request was worked on.
    pub(super) preread: Option<Bytes>,
    /// A byte of the body is to change.
    pub(super) corrupt: bool,
    pub(super) gate: Option<Gate>,
    /// How long Complete lets white space drip.
    pub(super) drip: Duration,
}

impl Exchange {
    /// The next piece of the body; `None` at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        if let Some(bytes) = self.preread.take() {
            return Ok(Some(bytes));
        }
        let Some(body) = self.body.as_mut() else { return Ok(None) };
        loop {
            match body.frame().await {
                None => {
                    self.body = None;
                    return Ok(None);
                }
                Some(Err(_)) => {
                    self.body = None;
                    return Err(Stop::Broken);
                }
                Some(Ok(frame)) => {
                    let Ok(mut chunk) = frame.into_data() else { continue };
                    self.entry.received(chunk.len());
                    self.state.upstream.pass(chunk.len()).await;
                    if self.corrupt {
                        chunk = flip_a_byte(chunk, &mut self.corrupt);
                    }
                    return Ok(Some(chunk));
                }
            }
        }
    }

    /// Reads what is left of the body, for the connection's sake. A client that waits for
    /// 100-continue has sent nothing and gets its answer at once.
    pub(super) async fn drain(&mut self) {
        if self.call.headers.contains_key("expect") {
            return;
        }
        let mut bytes = 0;
        while let Ok(Some(chunk)) = self.next().await {
            bytes += chunk.len() as u64;
            if bytes > MOST_DRAINED {
                return;
            }
        }
    }

    /// The whole body, if it is of at most so many bytes, checked against Content-MD5.
    pub(super) async fn text(&mut self, most: usize) -> Result<Bytes, Stop> {
        let wanted = self.content_md5()?;
        let mut text = BytesMut::new();
        while let Some(chunk) = self.next().await? {
            if text.len() + chunk.len() > most {
                return Err(Refusal::new(400, "XMLSizeLimit", "the body is too large").into());
            }
            text.extend_from_slice(&chunk);
        }
        check_md5(wanted, &Md5::digest(&text).into())?;
        Ok(text.freeze())
    }

    /// The whole body as a blob, checked against Content-MD5.
    pub(super) async fn blob(&mut self, bucket: &Arc<Bucket>) -> Result<Received, Stop> {
        let wanted = self.content_md5()?;
        let opened = bucket.clone();
        let mut writer = blocking(move || opened.writer()).await?;
        let mut gathered = BytesMut::new();
        loop {
            let chunk = self.next().await?;
            let ended = chunk.is_none();
            gathered.extend_from_slice(&chunk.unwrap_or_default());
            if gathered.len() >= CHUNK_BYTES || ended {
                let piece = gathered.split();
                writer = blocking(move || writer.write(&piece).map(|()| writer)).await?;
            }
            if ended {
                break;
            }
        }
        let received = writer.finish();
        check_md5(wanted, &received.md5)?;
        Ok(received)
    }

    fn content_md5(&self) -> Result<Option<[u8; 16]>, Refusal> {
        let Some(text) = self.call.headers.get("content-md5") else { return Ok(None) };
        let decoded = STANDARD.decode(text.as_bytes()).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        let invalid = || Refusal::new(400, "InvalidDigest", "Content-MD5 is not the base64 of 16 bytes");
        decoded.map(Some).ok_or_else(invalid)
    }

    /// Called by all that change something, when they have received all and checked the request
    /// by itself, right before they look at the store and change it.
    pub(super) async fn applying(&mut self) {
        if let Some(gate) = self.gate.take() {
            // The connection may have gone meanwhile; the request is applied all the same.
            let _ = gate.received.send(());
            tokio::time::sleep(gate.after).await;
        }
    }

    /// Logs the object version that this request stores. To be called by the work that stores it: the
    /// request itself ends unseen where its client has gone.
    pub(super) fn note_of(&self, how: &'static str) -> impl FnOnce(&Object) + Send + 'static {
        let (state, request, bucket) = (self.state.clone(), self.entry.seq(), self.call.bucket().to_owned());
        move |object| {
            state.log.stored(StoreRecord {
                request,
                time_ns: object.modified_ns,
                how: how.to_owned(),
                bucket,
                key: object.key.clone(),
                etag: object.etag.clone(),
                size: object.size,
                crc64: object.crc64,
            });
        }
    }
}

fn check_md5(wanted: Option<[u8; 16]>, got: &[u8; 16]) -> Result<(), Refusal> {
    if wanted.is_some_and(|wanted| wanted != *got) {
        let message = "The Content-MD5 you specified did not match what we received.";
        return Err(Refusal::new(400, "BadDigest", message));
    }
    Ok(())
}

/// Runs what blocks on the disk.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    tokio::task::spawn_blocking(work).await.expect("invariant: disk work neither panics nor is aborted")
}
