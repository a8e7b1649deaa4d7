//! Connections, and what each request passes: the log, latency, faults, its dialect, the wire.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::control;
use super::cos;
use super::dialect;
use super::encoding::http_date;
use super::exchange::Exchange;
use super::exchange::Gate;
use super::fault::Action;
use super::fault::Fault;
use super::fault::Side;
use super::fault::Subject;
use super::oms;
use super::reply::Flaws;
use super::reply::Refusal;
use super::reply::Reply;
use super::reply::ReplyBody;
use super::reply::Stop;
use super::reply::respond;
use super::state::State;
use super::wire::Call;
use super::wire::Place;

/// A failed accept (descriptors used up) is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Ends the connection without an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

/// Accepts until `stop` changes, then drops all connections.
pub(super) async fn run(listener: TcpListener, state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Also when the sender is gone.
            _ = stop.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, state.clone()));
                }
                Err(error) => {
                    tracing::warn!("the emulator cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("the emulator cannot set TCP_NODELAY: {error}");
    }
    let service = service_fn(move |request| answer(request, state.clone()));
    // Broken connections are the clients' business, and cuts are wanted.
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("a connection to the emulator ended: {error}");
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<ReplyBody>, Cut> {
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let call = match Call::parse(head.method, &head.uri, head.headers) {
        Ok(call) => call,
        Err(refusal) => {
            let reply = cos::common(cos::refusal(refusal, "", head.uri.path(), is_head));
            return respond(dated(reply, &state), is_head, Flaws::default(), state, None).ok_or(Cut);
        }
    };
    if let Place::Control(what) = &call.place {
        let reply = control::answer(&state, &call, what, body).await;
        return respond(dated(reply, &state), is_head, Flaws::default(), state, None).ok_or(Cut);
    }
    let entry = state.log.begin(&call, state.now_ns());
    if !state.latency.is_zero() {
        tokio::time::sleep(state.latency).await;
    }
    let mut exchange = Exchange {
        state: state.clone(),
        call: call.clone(),
        entry: entry.clone(),
        body: Some(body),
        preread: None,
        corrupt: false,
        gate: None,
        drip: Duration::ZERO,
    };
    let mut keys = vec![call.key().to_owned()];
    let is_oms = matches!(call.place, Place::Oms { .. });
    if is_oms {
        match oms::read(&mut exchange).await {
            Ok(announced) => keys = announced,
            Err(Stop::Broken) => return Err(Cut),
            Err(Stop::Refused(refusal)) => {
                let reply = dated(oms::common(oms::refusal(refusal)), &state);
                return respond(reply, is_head, Flaws::default(), state, Some(entry)).ok_or(Cut);
            }
        }
    }
    let fault = state.faults.take(&Subject {
        method: call.method.as_str(),
        bucket: call.bucket(),
        keys: &keys,
        sub_resources: &call.sub_resources(),
    });
    let mut flaws = Flaws::default();
    let outcome = match fault {
        None => work(&mut exchange).await,
        Some(fault) => {
            entry.met(serde_json::to_string(&fault.action).unwrap_or_default());
            suffer(exchange, fault, &mut flaws).await
        }
    };
    let reply = match outcome {
        Ok(reply) => reply,
        Err(Stop::Broken) => return Err(Cut),
        Err(Stop::Refused(refusal)) if is_oms => oms::refusal(refusal),
        Err(Stop::Refused(refusal)) => cos::refusal(refusal, &call.host, &call.raw_path, is_head),
    };
    let reply = if is_oms { oms::common(reply) } else { cos::common(reply) };
    respond(dated(reply, &state), is_head, flaws, state, Some(entry)).ok_or(Cut)
}

/// The emulator's clock, which tests may set wrong.
fn dated(reply: Reply, state: &State) -> Reply {
    let now = http_date(state.now_ns());
    reply.with("Date", now)
}

/// Works on a request; the body of a refused one is read to its end.
async fn work(exchange: &mut Exchange) -> Result<Reply, Stop> {
    let outcome = match exchange.call.place {
        Place::Oms { .. } => oms::answer(exchange).await,
        _ => dialect::answer(exchange).await,
    };
    if matches!(outcome, Err(Stop::Refused(_))) {
        exchange.drain().await;
    }
    outcome
}

/// Works on a request that meets a fault.
async fn suffer(mut exchange: Exchange, fault: Fault, flaws: &mut Flaws) -> Result<Reply, Stop> {
    let late = fault.apply_after_ms.map(Duration::from_millis);
    match fault.action {
        Action::Status { status, code, retry_after } => {
            receive(exchange, late).await;
            let message = "injected by a fault";
            Err(Refusal { retry_after, ..Refusal::new(status, code, message) }.into())
        }
        Action::ErrorIn200(code) => {
            let is_oms = matches!(exchange.call.place, Place::Oms { .. });
            receive(exchange, late).await;
            let refusal = Refusal::new(200, code, "injected by a fault");
            Ok(if is_oms { oms::refusal(refusal) } else { cos::late_refusal(refusal) })
        }
        Action::ApplyThenCut if late.is_some() => {
            receive(exchange, late).await;
            Err(Stop::Broken)
        }
        Action::ApplyThenCut => {
            work(&mut exchange).await?;
            Err(Stop::Broken)
        }
        Action::Cut { after, side: Side::Request } => {
            let mut bytes = 0;
            while bytes < after {
                let Some(chunk) = exchange.next().await? else { break };
                bytes += chunk.len() as u64;
            }
            Err(Stop::Broken)
        }
        Action::Cut { after, side: Side::Response } => {
            flaws.cut_after = Some(after);
            work(&mut exchange).await
        }
        Action::Corrupt(Side::Request) => {
            exchange.corrupt = true;
            work(&mut exchange).await
        }
        Action::Corrupt(Side::Response) => {
            flaws.corrupt = true;
            work(&mut exchange).await
        }
        Action::WrongCrc => {
            flaws.wrong_crc = true;
            work(&mut exchange).await
        }
        Action::Delay(ms) => {
            let delay = Duration::from_millis(ms);
            if exchange.call.method == Method::POST && exchange.call.has("uploadId") {
                exchange.drip = delay;
            } else {
                tokio::time::sleep(delay).await;
            }
            work(&mut exchange).await
        }
    }
}

/// Reads a request's body; applies it `late`, behind the answer, or not at all.
async fn receive(mut exchange: Exchange, late: Option<Duration>) {
    let Some(after) = late else { return exchange.drain().await };
    let (received, heard) = oneshot::channel();
    exchange.gate = Some(Gate { received, after });
    let state = exchange.state.clone();
    state.run_late(async move {
        let seq = exchange.entry.seq();
        if let Err(stop) = work(&mut exchange).await {
            tracing::info!("request {seq} was applied late, and refused: {stop:?}");
        }
    });
    // An error says that it was refused before it came to be applied.
    let _ = heard.await;
}
