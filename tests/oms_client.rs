//! The OMS client against a server that answers from a script.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferryfs::clock::{Clock, ManualClock};
use ferryfs::http::{Client, Options as HttpOptions, format_date};
use ferryfs::oms::{Announcer, Error, Options, Outcome, SyncTask, TransientKind};
use ferryfs::types::{Key, TimeNs};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// 2023-11-14T22:13:20Z, the time of the signature vectors.
const NOW: TimeNs = TimeNs(1_700_000_000_000_000_000);

const SECRET: &str = "FakeHuaweiSecretKeyForTestsOnly000000000";

/// A request as it came over the wire.
#[derive(Debug)]
struct Seen {
    head: String,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).unwrap_or_default()
    }
}

/// What the server does with a request.
enum Answer {
    Send(String),
    /// Says nothing, and keeps the connection.
    Hang,
    /// Closes the connection.
    Cut,
}

fn answer(status: &str, headers: &str, body: &str) -> Answer {
    Answer::Send(format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
}

/// Answers one request a connection, in order; ends after the last.
async fn server(script: Vec<Answer>) -> (String, JoinHandle<Vec<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in script {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let (head, length) = loop {
                let mut chunk = [0; 4096];
                let n = stream.read(&mut chunk).await.unwrap();
                assert!(n > 0, "the client hung up");
                bytes.extend_from_slice(&chunk[..n]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some(at) = text.find("\r\n\r\n") {
                    let head = text[..at].to_owned();
                    let length = Seen { head: head.clone(), body: String::new() }.header("content-length").parse();
                    break (head, at + 4 + length.unwrap_or(0_usize));
                }
            };
            while bytes.len() < length {
                let mut chunk = [0; 4096];
                let n = stream.read(&mut chunk).await.unwrap();
                assert!(n > 0, "the body ended early");
                bytes.extend_from_slice(&chunk[..n]);
            }
            let body = String::from_utf8(bytes.split_off(head.len() + 4)).unwrap();
            seen.push(Seen { head, body });
            match answer {
                Answer::Send(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                Answer::Cut => {}
                Answer::Hang => {
                    // Until the client gives up.
                    let _ = stream.read(&mut [0; 16]).await;
                }
            }
        }
        seen
    });
    (format!("http://{address}/v2/p/sync-tasks/t1/events"), task)
}

fn options(url: &str) -> Options {
    Options::new(url.parse().unwrap(), "FAKEHWAK00000000TEST".to_owned(), SecretString::from(SECRET))
}

fn task_with(options: Options) -> (SyncTask, ManualClock) {
    let clock = ManualClock::new(NOW);
    let client = Client::new(&HttpOptions::default()).unwrap();
    (SyncTask::new(options, client, Arc::new(clock.clone())).unwrap(), clock)
}

async fn announce(url: &str, keys: &[&str]) -> Outcome {
    let keys: Vec<Key> = keys.iter().map(|key| Key::from(*key)).collect();
    task_with(options(url)).0.announce(&keys).await
}

#[tokio::test]
async fn a_request_is_what_the_gateway_expects() {
    let (url, seen) = server(vec![answer("200 OK", "", "")]).await;
    assert_eq!(announce(&url, &["data/a b+c.txt", "\u{4e2d}"]).await, Outcome::Accepted);
    let seen = seen.await.unwrap().remove(0);
    assert!(seen.head.starts_with("POST /v2/p/sync-tasks/t1/events HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.body, r#"{"object_keys":["data%2Fa%20b%2Bc.txt","%E4%B8%AD"]}"#);
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("x-sdk-date"), "20231114T221320Z");
    assert_eq!(seen.header("host"), &url["http://".len()..url.find("/v2").unwrap()]);
    let authorization = seen.header("authorization");
    let lead = "SDK-HMAC-SHA256 Access=FAKEHWAK00000000TEST, SignedHeaders=content-type;host;x-sdk-date, Signature=";
    let signature = authorization.strip_prefix(lead).unwrap_or_else(|| panic!("{authorization}"));
    assert_eq!(signature.len(), 64);
}

#[tokio::test]
async fn a_token_of_temporary_keys_is_sent_and_signed() {
    let (url, seen) = server(vec![answer("200 OK", "", "{}")]).await;
    let mut options = options(&url);
    options.security_token = Some(SecretString::from("FakeStsToken=="));
    assert_eq!(task_with(options).0.announce(&[Key::from("a")]).await, Outcome::Accepted);
    let seen = seen.await.unwrap().remove(0);
    assert_eq!(seen.header("x-security-token"), "FakeStsToken==");
    assert!(seen.header("authorization").contains("host;x-sdk-date;x-security-token"));
}

#[tokio::test]
async fn a_refused_clock_is_corrected_once_and_remembered() {
    let later = TimeNs::new(NOW.sec() + 3600, 0);
    let date = format!("Date: {}\r\n", format_date(later));
    let skew = r#"{"error_msg":"x-sdk-date expired","error_code":"APIGW.0303","request_id":"r"}"#;
    let script = vec![
        answer("401 Unauthorized", &date, skew),
        answer("200 OK", "", ""),
        answer("200 OK", "", ""),
        answer("401 Unauthorized", &date, r#"{"error_code":"APIGW.0301","error_msg":"wrong"}"#),
    ];
    let (url, seen) = server(script).await;
    let (task, clock) = task_with(options(&url));
    assert_eq!(task.announce(&[Key::from("a")]).await, Outcome::Accepted);
    assert_eq!(task.announce(&[Key::from("b")]).await, Outcome::Accepted);
    // A 401 that is not about time is final, and costs one request.
    let outcome = task.announce(&[Key::from("c")]).await;
    assert!(matches!(outcome, Outcome::Unauthorized(failure) if failure.code.as_deref() == Some("APIGW.0301")));
    let dates: Vec<String> = seen.await.unwrap().iter().map(|seen| seen.header("x-sdk-date").to_owned()).collect();
    assert_eq!(dates, ["20231114T221320Z", "20231114T231320Z", "20231114T231320Z", "20231114T231320Z"]);
    assert_eq!(clock.now(), NOW);
}

#[tokio::test]
async fn a_clock_that_stays_refused_ends_after_one_repeat() {
    let date = format!("Date: {}\r\n", format_date(TimeNs::new(NOW.sec() - 86_400, 0)));
    let skew = || answer("401 Unauthorized", &date, r#"{"error_code":"APIGW.0303","error_msg":"expired"}"#);
    let (url, seen) = server(vec![skew(), skew()]).await;
    assert!(matches!(announce(&url, &["a"]).await, Outcome::Unauthorized(_)));
    assert_eq!(seen.await.unwrap().len(), 2);
}

#[tokio::test]
async fn refusals_tell_status_code_message_and_request_id() {
    let body = r#"{"error_code":"OMS.0062","error_msg":"object_keys is invalid"}"#;
    let script = vec![
        answer("400 Bad Request", "X-Request-Id: r-1\r\n", body),
        answer("404 Not Found", "", body),
        answer("403 Forbidden", "", body),
    ];
    let (url, seen) = server(script).await;
    match announce(&url, &["a"]).await {
        Outcome::Rejected(failure) => {
            assert_eq!(failure.to_string(), "HTTP 400, code OMS.0062, object_keys is invalid, request id r-1");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(announce(&url, &["a"]).await, Outcome::NoSuchTask(_)));
    assert!(matches!(announce(&url, &["a"]).await, Outcome::Unauthorized(_)));
    assert_eq!(seen.await.unwrap().len(), 3, "nothing is repeated");
}

#[tokio::test]
async fn trouble_that_passes_is_told_by_kind() {
    let script = vec![
        answer("429 Too Many Requests", "Retry-After: 7\r\n", r#"{"error_code":"APIGW.0308"}"#),
        answer("503 Service Unavailable", "", "<html>busy</html>"),
        answer("302 Found", "Location: http://portal.example.com/\r\n", ""),
        Answer::Cut,
    ];
    let (url, seen) = server(script).await;
    let wait = Some(Duration::from_secs(7));
    for (wanted, asked) in [
        (TransientKind::Throttled, wait),
        (TransientKind::Server, None),
        (TransientKind::Server, None),
        (TransientKind::Network, None),
    ] {
        match announce(&url, &["a"]).await {
            Outcome::Transient { kind, retry_after, .. } => assert_eq!((kind, retry_after), (wanted, asked)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen.await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_server_that_hangs_or_is_not_there_does_not_hold_the_caller() {
    let (url, _server) = server(vec![Answer::Hang]).await;
    let mut options = options(&url);
    options.timeout = Duration::from_millis(200);
    let begun = Instant::now();
    let outcome = task_with(options).0.announce(&[Key::from("a")]).await;
    assert!(matches!(outcome, Outcome::Transient { kind: TransientKind::Timeout, .. }), "{outcome:?}");
    assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < Duration::from_secs(10));

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v2/p/sync-tasks/t1/events", closed.local_addr().unwrap());
    drop(closed);
    let outcome = announce(&url, &["a"]).await;
    assert!(matches!(outcome, Outcome::Transient { kind: TransientKind::Network, .. }), "{outcome:?}");
}

#[tokio::test]
async fn secrets_show_nowhere() {
    let (url, _seen) = server(vec![answer("401 Unauthorized", "", "{}")]).await;
    let options = options(&url);
    let text = format!("{options:?}");
    let (task, _) = task_with(options);
    let outcome = task.announce(&[Key::from("a")]).await;
    for text in [text, format!("{task:?}"), format!("{outcome:?}"), task.identity().to_owned()] {
        assert!(!text.contains(SECRET) && !text.contains("Signature="), "{text}");
    }
}

#[test]
fn a_credential_that_cannot_be_one_is_refused_at_once() {
    let client = || Client::new(&HttpOptions::default()).unwrap();
    let url = "http://127.0.0.1:1/v2/p/sync-tasks/t1/events";
    for (access, secret) in [("ak\n", SECRET), ("", SECRET), ("ak", "geheim\n"), ("ak", "")] {
        let options = Options::new(url.parse().unwrap(), access.to_owned(), SecretString::from(secret));
        let error = SyncTask::new(options, client(), Arc::new(ManualClock::new(NOW))).unwrap_err();
        assert!(matches!(error, Error::Credential(_)));
        assert!(!error.to_string().contains(SECRET) && !error.to_string().contains("geheim"), "{error}");
    }
}
