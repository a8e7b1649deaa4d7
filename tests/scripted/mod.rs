//! A server on loopback that answers each request by the next step of a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Makes an answer of a request.
pub type Answer = Arc<dyn Fn(&Seen) -> Vec<u8> + Send + Sync>;

/// What to do about one request.
#[derive(Clone)]
pub enum Step {
    /// Answer with these bytes.
    Reply(Vec<u8>),
    /// Write these pieces with a pause before each.
    Drip(Vec<Vec<u8>>, Duration),
    /// Write this, then hang up.
    Cut(Vec<u8>),
    /// Say nothing and keep the connection open.
    Hang,
    /// Make the answer of the request.
    Call(Answer),
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `PUT /key?x=y`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The running server; stops when dropped.
pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    steps: Arc<Mutex<VecDeque<Step>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(steps: Vec<Step>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let steps = Arc::new(Mutex::new(VecDeque::from(steps)));
        let (log, script) = (seen.clone(), steps.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone(), script.clone()));
            }
        });
        Server { address, seen, steps, task }
    }

    /// The requests that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Steps not used yet.
    pub fn left(&self) -> usize {
        self.steps.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, steps: Arc<Mutex<VecDeque<Step>>>) {
    while let Some(request) = read(&mut stream).await {
        seen.lock().unwrap().push(request.clone());
        let step = steps.lock().unwrap().pop_front();
        match step {
            Some(Step::Reply(bytes)) => stream.write_all(&bytes).await.unwrap(),
            Some(Step::Call(make)) => stream.write_all(&make(&request)).await.unwrap(),
            Some(Step::Drip(pieces, pause)) => {
                for piece in pieces {
                    tokio::time::sleep(pause).await;
                    if stream.write_all(&piece).await.is_err() {
                        return;
                    }
                }
            }
            Some(Step::Cut(bytes)) => return stream.write_all(&bytes).await.unwrap(),
            Some(Step::Hang) => std::future::pending().await,
            None => stream.write_all(&reply(599, "Script Is Over", &[], b"")).await.unwrap(),
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut chunk = [0; 8192];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut seen = Seen { line, headers, body: bytes[head + 4..].to_vec() };
    let length: usize = seen.header("content-length").map_or(0, |text| text.parse().unwrap());
    while seen.body.len() < length {
        let mut chunk = [0; 8192];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => seen.body.extend_from_slice(&chunk[..count]),
        }
    }
    Some(seen)
}

/// A whole response.
pub fn reply(status: u16, reason: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} {reason}\r\nx-cos-request-id: req-{status}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    [text.as_bytes(), b"\r\n", body].concat()
}

/// An error response with the XML that COS puts there.
pub fn error(status: u16, code: &str) -> Vec<u8> {
    reply(status, "Error", &[], error_body(code).as_bytes())
}

/// The XML of an error.
pub fn error_body(code: &str) -> String {
    format!(
        "<?xml version='1.0' encoding='utf-8' ?><Error><Code>{code}</Code><Message>scripted {code}</Message>\
         <Resource>r</Resource><RequestId>body-id</RequestId><TraceId>t</TraceId></Error>"
    )
}
