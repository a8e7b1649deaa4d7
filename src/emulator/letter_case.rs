//! Header names as COS spells them.
//!
//! HTTP does not care, but the vendors' own Python clients do: they look headers up as `ETag` and
//! `Content-Length`. hyper writes lower case unless an answer carries the spellings that one of
//! its own connections has read; so one such connection reads them, in memory, at start.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;

use axum::http::Extensions;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

/// All that COS does not spell in lower case.
const SPELLINGS: [&str; 16] = [
    "Accept-Ranges",
    "Cache-Control",
    "Connection",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Date",
    "ETag",
    "Expires",
    "Last-Modified",
    "Retry-After",
    "Server",
    "X-Request-Id",
];

/// What an answer carries for its headers to be spelt like that.
pub(super) async fn learn() -> Extensions {
    let learnt = Arc::new(Mutex::new(Extensions::new()));
    let slot = learnt.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        *slot.lock().expect("invariant: nothing panics while it holds this lock") = request.extensions().clone();
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let mut lesson = "GET / HTTP/1.1\r\nHost: x\r\n".to_owned();
    for name in SPELLINGS {
        // A value that suits those that mean something to a server.
        let value = match name {
            "Content-Length" => "0",
            "Connection" => "close",
            _ => "x",
        };
        lesson.push_str(&format!("{name}: {value}\r\n"));
    }
    lesson.push_str("\r\n");
    let (mut near, far) = tokio::io::duplex(4096);
    // The pipe takes the whole lesson at once, and its far end outlives this.
    near.write_all(lesson.as_bytes()).await.expect("invariant: the lesson fits into the pipe");
    let served = http1::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(far), service).await;
    served.expect("invariant: the lesson is a request and the pipe does not break");
    let learnt = learnt.lock().expect("invariant: nothing panics while it holds this lock");
    learnt.clone()
}
