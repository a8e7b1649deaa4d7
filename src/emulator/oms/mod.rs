//! The OMS endpoint (PROTOCOL section 11): takes announced keys and remembers them.
//!
//! # Invariants
//! 1. A key is remembered when its whole request was accepted, not otherwise.
//! 2. Refusals look like the gateway's (401) or the service's (400, 404).

mod signature;

use serde::Deserialize;

use super::encoding::decode_form;
use super::exchange::Exchange;
use super::log::OmsEvent;
use super::log::OmsRequest;
use super::reply::Refusal;
use super::reply::Reply;
use super::reply::Stop;
use super::state::request_id;
use super::wire::Place;

/// Project of the URL that is told at start; any is accepted.
pub(super) const PROJECT: &str = "0123456789abcdef0123456789abcdef";
/// Task of the URL that is told at start; any of its form is accepted. The same at every start, so
/// that what a mount still owes finds its task again.
pub(super) const TASK: &str = "6f1c1a52-8d0e-4b3a-9c55-0e7a3f3b9d21";

/// Keys of one request.
const MOST_KEYS: usize = 10;
/// Longest key as sent, characters.
const LONGEST_KEY: usize = 16_384;
/// Larger than ten of the longest keys with every character escaped by JSON.
const MOST_BODY_BYTES: usize = 2 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    object_keys: Vec<String>,
}

/// Reads the body, so that faults can match its keys: those that it announces, as far as it can
/// be understood.
pub(super) async fn read(exchange: &mut Exchange) -> Result<Vec<String>, Stop> {
    let text = exchange.text(MOST_BODY_BYTES).await?;
    let parsed = serde_json::from_slice::<Body>(&text);
    let keys = parsed.map_or_else(|_| Vec::new(), |body| body.object_keys);
    let decoded: Vec<_> = keys.iter().filter_map(|key| decode_form(key)).collect();
    exchange.entry.announced(decoded.clone());
    exchange.state.log.oms_request(as_arrived(exchange, &text));
    exchange.preread = Some(text);
    Ok(decoded)
}

fn as_arrived(exchange: &Exchange, body: &[u8]) -> OmsRequest {
    let call = &exchange.call;
    let query = if call.raw_query.is_empty() { String::new() } else { format!("?{}", call.raw_query) };
    let value = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    OmsRequest {
        request: exchange.entry.seq(),
        method: call.method.to_string(),
        url: format!("http://{}{}{query}", call.host, call.raw_path),
        headers: call.headers.iter().map(|(name, held)| (name.to_string(), value(held.as_bytes()))).collect(),
        body: value(body),
    }
}

/// Works on one request.
pub(super) async fn answer(exchange: &mut Exchange) -> Result<Reply, Stop> {
    let body = exchange.text(MOST_BODY_BYTES).await?;
    let Place::Oms { project, task } = exchange.call.place.clone() else {
        return Err(Refusal::new(404, "APIGW.0101", "The API does not exist or has not been published").into());
    };
    if exchange.call.method != hyper::Method::POST {
        return Err(Refusal::new(405, "APIGW.0101", "The method is not allowed").into());
    }
    signature::verify(&exchange.call, &body, exchange.state.oms_credentials.as_ref(), exchange.state.now_s())?;
    if uuid::Uuid::try_parse(&task).is_err() || task.len() != TASK.len() {
        return Err(Refusal::new(404, "OMS.0404", "The synchronization task does not exist").into());
    }
    let bad = |message: String| Refusal::new(400, "OMS.0001", message);
    let json = exchange.call.header("content-type").is_some_and(|value| value.starts_with("application/json"));
    if !json {
        return Err(bad("the Content-Type is not application/json".to_owned()).into());
    }
    let parsed: Body = serde_json::from_slice(&body).map_err(|error| bad(format!("the body is wrong: {error}")))?;
    if parsed.object_keys.is_empty() || parsed.object_keys.len() > MOST_KEYS {
        return Err(bad(format!("{} keys, from 1 to {MOST_KEYS} are allowed", parsed.object_keys.len())).into());
    }
    exchange.applying().await;
    let (time_ns, request) = (exchange.state.now_ns(), exchange.entry.seq());
    let mut events = Vec::new();
    for raw in parsed.object_keys {
        if raw.is_empty() || raw.chars().count() > LONGEST_KEY {
            return Err(bad(format!("a key has from 1 to {LONGEST_KEY} characters")).into());
        }
        let key = decode_form(&raw).ok_or_else(|| bad("a key is not URL-encoded".to_owned()))?;
        let (project, task) = (project.clone(), task.clone());
        events.push(OmsEvent { key, raw, time_ns, request, project, task });
    }
    exchange.state.log.oms(events);
    Ok(Reply::empty(200))
}

/// A refusal as OMS and its gateway write it.
pub(super) fn refusal(refusal: Refusal) -> Reply {
    let body = serde_json::json!({
        "error_code": refusal.code,
        "error_msg": refusal.message,
        "request_id": request_id(),
    });
    let reply = Reply::text(refusal.status, "application/json", body.to_string());
    match refusal.retry_after {
        Some(seconds) => reply.with("Retry-After", seconds.to_string()),
        None => reply,
    }
}

/// What every answer carries.
pub(super) fn common(reply: Reply) -> Reply {
    reply.with("Server", "api-gateway").with("X-Request-Id", request_id())
}
