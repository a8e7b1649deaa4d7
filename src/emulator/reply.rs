//! What a request is answered with, and how that reaches the wire.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Frame;

use super::error::Error;
use super::exchange::blocking;
use super::log::Entry;
use super::shelf::Reader;
use super::state::State;

/// Bytes read from disk and handed to the connection at a time.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// Steps in which white space drips before a late result.
const DRIP_STEPS: u32 = 5;

pub(super) type ReplyBody = UnsyncBoxBody<Bytes, io::Error>;

/// A refusal in a provider's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    /// Header Retry-After, seconds.
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal { status, code: code.into(), message: message.into(), retry_after: None }
    }
}

/// Why there is no good answer.
#[derive(Debug)]
pub(super) enum Stop {
    /// Say so.
    Refused(Refusal),
    /// The connection is broken, or is to break: nothing can be said.
    Broken,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        // The text of an error of ours holds paths under the root, no secrets; its cause is the
        // system's.
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        tracing::error!("the emulator failed to {error}{cause}");
        Stop::Refused(Refusal::new(500, "InternalError", format!("failed to {error}{cause}")))
    }
}

/// The body of an answer.
pub(super) enum Content {
    Empty,
    Text(Bytes),
    /// The lead, white space at once and for so long, then the text; chunked.
    Drip {
        lead: Bytes,
        pause: Duration,
        text: Bytes,
    },
    /// Of this length in all.
    File(Reader, u64),
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
}

impl Reply {
    pub(super) fn empty(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), content: Content::Empty }
    }

    pub(super) fn text(status: u16, content_type: &str, text: impl Into<Bytes>) -> Reply {
        Reply { status, headers: Vec::new(), content: Content::Text(text.into()) }.with("Content-Type", content_type)
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn with_all(mut self, headers: impl IntoIterator<Item = (String, String)>) -> Reply {
        self.headers.extend(headers);
        self
    }
}

/// What a fault does to an answer on its way out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flaws {
    pub(super) cut_after: Option<u64>,
    pub(super) corrupt: bool,
    pub(super) wrong_crc: bool,
}

/// Puts an answer on the wire. `None` if nothing is to be sent at all.
pub(super) fn respond(
    reply: Reply,
    is_head: bool,
    flaws: Flaws,
    state: Arc<State>,
    entry: Option<Arc<Entry>>,
) -> Option<Response<ReplyBody>> {
    let mut builder = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        if flaws.wrong_crc && name == "x-cos-hash-crc64ecma" {
            let wrong = value.parse::<u64>().map_or(1, |crc| crc ^ 1);
            builder = builder.header(name, wrong.to_string());
        } else {
            builder = builder.header(name, value.as_bytes());
        }
    }
    let bodiless = is_head || matches!(reply.content, Content::Empty);
    if bodiless && flaws.cut_after.is_some() {
        return None;
    }
    let told = reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let may_have_length = reply.status >= 200 && reply.status != 204 && reply.status != 304;
    let length = match &reply.content {
        Content::Empty => Some(0),
        Content::Text(_) if is_head => Some(0),
        Content::Text(text) => Some(text.len() as u64),
        Content::File(_, length) => Some(*length),
        Content::Drip { .. } => None,
    };
    if let Some(length) = length.filter(|_| !told && may_have_length) {
        builder = builder.header("Content-Length", length);
    }
    let source = match reply.content {
        Content::Empty => Source::Text(None),
        Content::Text(text) => Source::Text(Some(text)),
        Content::Drip { lead, pause, text } => {
            Source::Drip { lead: Some(lead), steps: DRIP_STEPS, pause: pause / DRIP_STEPS, text: Some(text) }
        }
        Content::File(reader, _) => Source::File(Some(reader)),
    };
    if let Some(entry) = &entry {
        entry.answered(reply.status);
    }
    let letter_case = state.letter_case.clone();
    let flow = Flow { source, state, entry, left: flaws.cut_after, corrupt: flaws.corrupt };
    let empty = || Empty::new().map_err(|never| match never {}).boxed_unsync();
    // HEAD and 304 carry headers of a body that is not there; hyper must know that.
    let body = match bodiless {
        true => empty(),
        false => StreamBody::new(futures::stream::try_unfold(flow, Flow::step)).boxed_unsync(),
    };
    let refused = |_| {
        tracing::error!("the emulator made a header that HTTP does not allow");
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    };
    let mut response = builder.body(body).unwrap_or_else(refused);
    *response.extensions_mut() = letter_case;
    Some(response)
}

enum Source {
    Text(Option<Bytes>),
    Drip { lead: Option<Bytes>, steps: u32, pause: Duration, text: Option<Bytes> },
    File(Option<Reader>),
}

impl Source {
    /// `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Source::Text(text) => Ok(text.take()),
            Source::Drip { lead, steps, pause, text } => {
                if let Some(lead) = lead.take() {
                    return Ok(Some([&lead[..], b"\n"].concat().into()));
                }
                if *steps == 0 {
                    return Ok(text.take());
                }
                *steps -= 1;
                tokio::time::sleep(*pause).await;
                Ok(Some(Bytes::from_static(b"\n")))
            }
            Source::File(slot) => {
                let Some(mut reader) = slot.take() else { return Ok(None) };
                let (chunk, reader) = blocking(move || reader.next(CHUNK_BYTES).map(|chunk| (chunk, reader)))
                    .await
                    .map_err(io::Error::other)?;
                *slot = Some(reader);
                Ok((!chunk.is_empty()).then_some(chunk))
            }
        }
    }
}

struct Flow {
    source: Source,
    state: Arc<State>,
    entry: Option<Arc<Entry>>,
    left: Option<u64>,
    corrupt: bool,
}

impl Flow {
    async fn step(mut self) -> io::Result<Option<(Frame<Bytes>, Flow)>> {
        if self.left == Some(0) {
            // Lets the connection write out what it has before it is dropped.
            tokio::time::sleep(Duration::from_millis(5)).await;
            return Err(io::Error::other("cut by a fault"));
        }
        let Some(mut chunk) = self.source.next().await? else { return Ok(None) };
        if let Some(left) = &mut self.left {
            chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= chunk.len() as u64;
        }
        if self.corrupt {
            chunk = flip_a_byte(chunk, &mut self.corrupt);
        }
        self.state.downstream.pass(chunk.len()).await;
        if let Some(entry) = &self.entry {
            entry.sent(chunk.len());
        }
        Ok(Some((Frame::data(chunk), self)))
    }
}

/// Changes the middle byte, if there is one; then clears the wish.
pub(super) fn flip_a_byte(chunk: Bytes, wanted: &mut bool) -> Bytes {
    let mut bytes = BytesMut::from(chunk);
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x01;
        *wanted = false;
    }
    bytes.freeze()
}
