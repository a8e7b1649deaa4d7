//! What tests and curious users ask of the emulator itself, under `/_emulator/`. Unsigned: it
//! listens on loopback and holds nothing but test data.
//!
//! ```text
//! GET    requests       every request in order            DELETE requests   forget all logs
//! GET    stores         every object version stored
//! GET    oms            every key announced
//! GET    oms-requests   every OMS request as it arrived: headers, with the signature, and body
//! GET    faults         those still to come               DELETE faults     forget them
//! POST   faults         one, or an array of them (`fault::Fault`)
//! PUT    clock          {"offset_s": n}: sets the emulator's clock wrong
//! ```

use std::sync::atomic::Ordering;

use http_body_util::BodyExt;
use http_body_util::Limited;
use hyper::Method;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::Serialize;

use super::fault::Fault;
use super::reply::Reply;
use super::state::State;
use super::wire::Call;

/// More than anybody sends.
const MOST_BODY_BYTES: usize = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    offset_s: i64,
}

pub(super) async fn answer(state: &State, call: &Call, what: &str, body: Incoming) -> Reply {
    let body = match Limited::new(body, MOST_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return bad(&format!("the body cannot be read: {error}")),
    };
    match (&call.method, what) {
        (&Method::GET, "requests") => json(&state.log.requests()),
        (&Method::GET, "stores") => json(&state.log.stores()),
        (&Method::GET, "oms") => json(&state.log.oms_events()),
        (&Method::GET, "oms-requests") => json(&state.log.oms_requests()),
        (&Method::GET, "faults") => json(&state.faults.list()),
        (&Method::DELETE, "requests") => {
            state.log.clear();
            Reply::empty(204)
        }
        (&Method::DELETE, "faults") => {
            state.faults.clear();
            Reply::empty(204)
        }
        (&Method::POST, "faults") => {
            // One at a time, for a message that says what is wrong with it.
            let faults = match body.trim_ascii_start().first() {
                Some(b'[') => serde_json::from_slice::<Vec<Fault>>(&body),
                _ => serde_json::from_slice::<Fault>(&body).map(|fault| vec![fault]),
            };
            match faults {
                Ok(faults) => {
                    faults.into_iter().for_each(|fault| state.faults.add(fault));
                    Reply::empty(204)
                }
                Err(error) => bad(&format!("this is no fault: {error}")),
            }
        }
        (&Method::PUT, "clock") => match serde_json::from_slice::<Clock>(&body) {
            Ok(clock) => {
                state.clock_offset_s.store(clock.offset_s, Ordering::SeqCst);
                Reply::empty(204)
            }
            Err(error) => bad(&format!("this is no clock: {error}")),
        },
        _ => Reply::text(404, "text/plain", "requests, stores, oms, oms-requests, faults, clock\n"),
    }
}

fn bad(message: &str) -> Reply {
    Reply::text(400, "text/plain", format!("{message}\n"))
}

fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(text) => Reply::text(200, "application/json", text),
        Err(error) => Reply::text(500, "text/plain", format!("{error}\n")),
    }
}
