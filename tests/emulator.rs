//! The emulator on the wire: faults, limits, framing, its log. Requests are written by hand, so
//! that nothing between test and emulator repairs what it sees.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferryfs::emulator::Emulator;
use ferryfs::emulator::Options;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use md5::Md5;
use serde_json::Value;
use sha1::Digest;
use sha1::Sha1;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const BUCKET: &str = "examplebucket-1250000000";
const HOST: &str = "examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com";

fn options(root: &Path) -> Options {
    Options {
        listen: "127.0.0.1:0".parse().expect("an address"),
        root: root.to_owned(),
        buckets: vec![BUCKET.to_owned()],
        credentials: vec![("AKIDtest".to_owned(), "secret".to_owned())],
        oms_credentials: Some(("HWAK".to_owned(), "hw-secret".to_owned())),
        latency: Duration::ZERO,
        bandwidth: None,
    }
}

async fn start() -> (tempfile::TempDir, Emulator) {
    let root = tempfile::tempdir().expect("a directory");
    let emulator = Emulator::start(options(root.path())).await.expect("start the emulator");
    (root, emulator)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac_hex(key: &str, message: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("any length");
    mac.update(message.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn content_md5(body: &[u8]) -> String {
    STANDARD.encode(Md5::digest(body))
}

/// Signs the host alone; `path` is plain ASCII without escapes.
fn authorization(method: &str, path: &str, secret: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let time = format!("{};{}", now - 60, now + 600);
    let text = format!("{}\n{path}\n\nhost={HOST}\n", method.to_lowercase());
    let to_sign = format!("sha1\n{time}\n{}\n", hex(&Sha1::digest(text.as_bytes())));
    let signature = hmac_hex(&hmac_hex(secret, &time), &to_sign);
    format!(
        "q-sign-algorithm=sha1&q-ak=AKIDtest&q-sign-time={time}&q-key-time={time}&q-header-list=host\
         &q-url-param-list=&q-signature={signature}"
    )
}

/// What came back; `status` is 0 if nothing did.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn parse(bytes: &[u8]) -> Answer {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            assert!(bytes.is_empty(), "half a head: {}", String::from_utf8_lossy(bytes));
            return Answer { status: 0, head: String::new(), body: Vec::new() };
        };
        let head = String::from_utf8(bytes[..end].to_vec()).expect("ASCII");
        let status = head[9..12].parse().expect("a status");
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }
}

/// One request on a connection of its own; a broken connection ends the answer.
async fn exchange(emulator: &Emulator, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(emulator.addr()).await.expect("connect");
    stream.write_all(head.as_bytes()).await.expect("send the head");
    // The emulator may cut meanwhile: that is what comes back then.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let read = async {
        let mut chunk = vec![0; 65536];
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..length]);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read).await.expect("an answer in time");
    Answer::parse(&bytes)
}

fn head(method: &str, target: &str, headers: &[(&str, &str)], length: usize) -> String {
    let path = target.split('?').next().expect("a path");
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n");
    head += &format!("Authorization: {}\r\nContent-Length: {length}\r\n", authorization(method, path, "secret"));
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head
}

async fn send(emulator: &Emulator, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let head = head(method, target, headers, body.len()) + "Connection: close\r\n\r\n";
    exchange(emulator, &head, body).await
}

async fn put(emulator: &Emulator, key: &str, body: &[u8]) -> Answer {
    send(emulator, "PUT", &format!("/{key}"), &[], body).await
}

async fn control(emulator: &Emulator, method: &str, what: &str, body: &str) -> Answer {
    let address = emulator.addr();
    let length = body.len();
    let head = format!(
        "{method} /_emulator/{what} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    exchange(emulator, &head, body.as_bytes()).await
}

async fn fault(emulator: &Emulator, json: &str) {
    assert_eq!(control(emulator, "POST", "faults", json).await.status, 204, "{json}");
}

fn stored(emulator: &Emulator, key: &str) -> Option<Vec<u8>> {
    emulator.object(BUCKET, key).map(|object| object.bytes().expect("read the object"))
}

async fn initiate(emulator: &Emulator, key: &str) -> String {
    let text = send(emulator, "POST", &format!("/{key}?uploads"), &[], b"").await.text();
    let id = text.split("<UploadId>").nth(1).and_then(|rest| rest.split('<').next());
    id.unwrap_or_else(|| panic!("an upload id in {text}")).to_owned()
}

/// An upload with one part, ready to complete: its target and the body to send.
async fn upload(emulator: &Emulator, key: &str, content: &[u8]) -> (String, String) {
    let id = initiate(emulator, key).await;
    let part = send(emulator, "PUT", &format!("/{key}?partNumber=1&uploadId={id}"), &[], content).await;
    let etag = part.header("ETag").expect("an ETag").to_owned();
    let part = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
    let body = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
    (format!("/{key}?uploadId={id}"), body)
}

#[tokio::test]
async fn a_status_is_answered_and_nothing_applied() {
    let (_root, emulator) = start().await;
    fault(
        &emulator,
        r#"{"match":{"method":"PUT","key":"data/*"},"action":{"status":503,"code":"SlowDown","retry_after":2},"count":2}"#,
    )
    .await;
    assert_eq!(put(&emulator, "other", b"x").await.status, 200);
    for _ in 0..2 {
        let refused = put(&emulator, "data/k", b"x").await;
        assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("2")));
        assert!(refused.text().contains("<Code>SlowDown</Code>"), "{refused:?}");
        assert!(refused.header("x-cos-request-id").is_some());
        assert_eq!(stored(&emulator, "data/k"), None);
    }
    assert_eq!(put(&emulator, "data/k", b"x").await.status, 200);
    assert_eq!(stored(&emulator, "data/k").as_deref(), Some(&b"x"[..]));
    let faults: Vec<_> = emulator.requests().into_iter().map(|request| request.fault.is_some()).collect();
    assert_eq!(faults, [false, true, true, false]);
}

#[tokio::test]
async fn requests_are_cut_before_they_are_applied() {
    let (_root, emulator) = start().await;
    fault(&emulator, r#"{"action":{"cut_after":1000,"side":"request"}}"#).await;
    assert_eq!(put(&emulator, "k", &vec![1; 5_000_000]).await.status, 0);
    assert_eq!(stored(&emulator, "k"), None);
    let request = emulator.requests().pop().expect("it is logged");
    assert_eq!(request.status, 0);
    assert!(request.request_bytes >= 1000);
    fault(&emulator, r#"{"match":{"method":"DELETE"},"action":{"cut_after":0,"side":"request"}}"#).await;
    put(&emulator, "k", b"stays").await;
    assert_eq!(send(&emulator, "DELETE", "/k", &[], b"").await.status, 0);
    assert!(stored(&emulator, "k").is_some());
}

#[tokio::test]
async fn responses_are_cut_after_they_are_applied() {
    let (_root, emulator) = start().await;
    let content: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
    put(&emulator, "k", &content).await;
    fault(&emulator, r#"{"match":{"method":"GET"},"action":{"cut_after":100000}}"#).await;
    let cut = send(&emulator, "GET", "/k", &[], b"").await;
    assert_eq!((cut.status, cut.header("Content-Length")), (200, Some("2000000")));
    assert!(cut.body.len() <= 100_000 && content.starts_with(&cut.body), "{}", cut.body.len());
    assert_eq!(send(&emulator, "GET", "/k", &[], b"").await.body, content);
    fault(&emulator, r#"{"match":{"method":"PUT"},"action":{"cut_after":0}}"#).await;
    assert_eq!(put(&emulator, "new", b"x").await.status, 0, "no body to cut: no answer at all");
    assert!(stored(&emulator, "new").is_some());
}

#[tokio::test]
async fn bytes_are_corrupted_on_either_way() {
    let (_root, emulator) = start().await;
    let content = vec![7; 600_000];
    let corrupt = r#"{"match":{"method":"PUT"},"action":{"corrupt":"request"}}"#;
    fault(&emulator, corrupt).await;
    let refused = send(&emulator, "PUT", "/k", &[("Content-MD5", &content_md5(&content))], &content).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("<Code>BadDigest</Code>"));
    assert_eq!(stored(&emulator, "k"), None);
    fault(&emulator, corrupt).await;
    let taken = put(&emulator, "k", &content).await;
    assert_eq!(taken.status, 200);
    assert_ne!(taken.header("x-cos-hash-crc64ecma"), Some(crc64(&content).as_str()), "the CRC gives it away");
    let differ = |other: &[u8]| content.iter().zip(other).filter(|(a, b)| a != b).count();
    assert_eq!(differ(&stored(&emulator, "k").expect("stored")), 1);
    put(&emulator, "k", &content).await;
    fault(&emulator, r#"{"match":{"method":"GET"},"action":{"corrupt":"response"}}"#).await;
    let corrupted = send(&emulator, "GET", "/k", &[], b"").await;
    assert_eq!((corrupted.body.len(), differ(&corrupted.body)), (content.len(), 1));
    assert_eq!(corrupted.header("x-cos-hash-crc64ecma"), Some(crc64(&content).as_str()));
}

fn crc64(bytes: &[u8]) -> String {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Xz, bytes).to_string()
}

#[tokio::test]
async fn a_crc_can_be_told_wrong() {
    let (_root, emulator) = start().await;
    fault(&emulator, r#"{"action":{"wrong_crc":true},"count":2}"#).await;
    let right = crc64(b"text");
    assert_ne!(put(&emulator, "k", b"text").await.header("x-cos-hash-crc64ecma"), Some(right.as_str()));
    let head = send(&emulator, "HEAD", "/k", &[], b"").await;
    assert!(head.header("x-cos-hash-crc64ecma").is_some_and(|told| told != right));
    let head = send(&emulator, "HEAD", "/k", &[], b"").await;
    assert_eq!(head.header("x-cos-hash-crc64ecma"), Some(right.as_str()));
    assert_eq!((head.header("Content-Length"), head.body.len()), (Some("4"), 0));
}

#[tokio::test]
async fn complete_can_fail_in_a_200_or_be_applied_unanswered() {
    let (_root, emulator) = start().await;
    let (target, body) = upload(&emulator, "k", b"content").await;
    fault(&emulator, r#"{"match":{"sub_resource":"uploadId"},"action":{"error_in_200":"InternalError"}}"#).await;
    let failed = send(&emulator, "POST", &target, &[], body.as_bytes()).await;
    assert_eq!(failed.status, 200);
    assert!(failed.text().contains("<Error><Code>InternalError</Code>"), "{failed:?}");
    assert_eq!((stored(&emulator, "k"), emulator.uploads(BUCKET).len()), (None, 1));
    fault(&emulator, r#"{"match":{"sub_resource":"uploadId"},"action":{"apply_then_cut":true}}"#).await;
    assert_eq!(send(&emulator, "POST", &target, &[], body.as_bytes()).await.status, 0);
    assert_eq!(stored(&emulator, "k").as_deref(), Some(&b"content"[..]));
    let again = send(&emulator, "POST", &target, &[], body.as_bytes()).await;
    assert_eq!(again.status, 404);
    assert!(again.text().contains("NoSuchUpload"));
    assert_eq!(emulator.stores().iter().map(|store| store.how.as_str()).collect::<Vec<_>>(), ["complete"]);
}

#[tokio::test]
async fn a_slow_complete_drips_white_space_behind_a_200() {
    let (_root, emulator) = start().await;
    let (target, body) = upload(&emulator, "k", b"content").await;
    fault(&emulator, r#"{"match":{"sub_resource":"uploadId"},"action":{"delay_ms":500}}"#).await;
    let begun = Instant::now();
    let mut stream = TcpStream::connect(emulator.addr()).await.expect("connect");
    let head = head("POST", &target, &[], body.len()) + "\r\n";
    stream.write_all((head + &body).as_bytes()).await.expect("send");
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"0\r\n\r") {
        let length = stream.read_buf(&mut bytes).await.expect("read");
        assert_ne!(length, 0, "the connection ended early");
        if !String::from_utf8_lossy(&bytes).contains("Complete") {
            assert!(bytes.starts_with(b"HTTP/1.1 200"), "the status comes before the result");
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(500));
    let answer = Answer::parse(&bytes);
    assert_eq!(answer.header("x-cos-hash-crc64ecma"), Some(crc64(b"content").as_str()));
    let text = answer.text();
    let (lead, _) = text.split_once("<?xml").expect("a declaration behind the white space");
    assert!(lead.contains("\n\r\n1\r\n\n"), "white space in chunks of its own: {lead:?}");
}

#[tokio::test]
async fn requests_are_applied_late() {
    let (_root, emulator) = start().await;
    put(&emulator, "gone", b"x").await;
    let late = r#"{"action":{"status":503,"code":"ServiceUnavailable"},"apply_after_ms":300}"#;
    let late_cut = r#"{"action":{"apply_then_cut":true},"apply_after_ms":300}"#;
    fault(&emulator, &format!("[{late},{late_cut}]")).await;
    assert_eq!(send(&emulator, "DELETE", "/gone", &[], b"").await.status, 503);
    assert!(stored(&emulator, "gone").is_some(), "not yet");
    assert_eq!(put(&emulator, "late", b"late").await.status, 0);
    assert_eq!(stored(&emulator, "late"), None, "not yet");
    let applied = async {
        while stored(&emulator, "late").is_none() || stored(&emulator, "gone").is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), applied).await.expect("applied in the end");
    assert_eq!(stored(&emulator, "late").as_deref(), Some(&b"late"[..]));
}

#[tokio::test]
async fn faults_are_listed_cleared_and_checked() {
    let (_root, emulator) = start().await;
    fault(&emulator, r#"{"action":{"status":500},"count":5}"#).await;
    let listed: Value = serde_json::from_slice(&control(&emulator, "GET", "faults", "").await.body).expect("JSON");
    assert_eq!(listed[0]["count"], 5);
    assert_eq!(control(&emulator, "DELETE", "faults", "").await.status, 204);
    assert_eq!(put(&emulator, "k", b"x").await.status, 200);
    let wrong = control(&emulator, "POST", "faults", r#"{"action":{"explode":true}}"#).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("explode"), "{}", wrong.text());
    assert_eq!(control(&emulator, "GET", "nothing", "").await.status, 404);
}

#[tokio::test]
async fn requests_are_logged_in_order_with_their_bytes() {
    let (_root, emulator) = start().await;
    put(&emulator, "a/b", b"12345").await;
    send(&emulator, "GET", "/a/b", &[("Range", "bytes=1-2")], b"").await;
    send(&emulator, "GET", "/?prefix=a%2F&delimiter=%2F", &[], b"").await;
    send(&emulator, "GET", "/absent", &[], b"").await;
    let log: Value = serde_json::from_slice(&control(&emulator, "GET", "requests", "").await.body).expect("JSON");
    let row = |index: usize| {
        let entry = &log[index];
        (entry["method"].clone(), entry["key"].clone(), entry["status"].clone(), entry["sub_resource"][0].clone())
    };
    let is = |method: &str, key: &str, status: u16, name: &str| (method.into(), key.into(), status.into(), name.into());
    assert_eq!(row(0), is("PUT", "a/b", 200, "object"));
    assert_eq!(row(1), is("GET", "a/b", 206, "object"));
    assert_eq!(row(2), is("GET", "", 200, "list"));
    assert_eq!(row(3), is("GET", "absent", 404, "object"));
    assert_eq!((&log[0]["request_bytes"], &log[1]["response_bytes"]), (&5.into(), &2.into()));
    assert_eq!((&log[2]["query"], &log[0]["bucket"]), (&"prefix=a%2F&delimiter=%2F".into(), &BUCKET.into()));
    assert_eq!(log.as_array().map(Vec::len), Some(4), "the control is not logged");
    assert!(!control(&emulator, "GET", "requests", "").await.text().contains("q-signature"));
    control(&emulator, "DELETE", "requests", "").await;
    assert!(emulator.requests().is_empty());
}

#[tokio::test]
async fn keys_shadow_neither_oms_nor_control() {
    let (_root, emulator) = start().await;
    for key in ["_emulator/faults", "v2/p/sync-tasks/t/events"] {
        assert_eq!(put(&emulator, key, b"x").await.status, 200);
        assert!(stored(&emulator, key).is_some());
    }
    let root = tempfile::tempdir().expect("a directory");
    let bad = Options { buckets: vec!["_emulator".to_owned()], ..options(root.path()) };
    assert!(Emulator::start(bad).await.is_err());
}

#[tokio::test]
async fn expect_100_continue_and_keep_alive() {
    let (_root, emulator) = start().await;
    let mut stream = TcpStream::connect(emulator.addr()).await.expect("connect");
    let mut bytes = Vec::new();
    let mut until = async |stream: &mut TcpStream, wanted: &[u8]| {
        bytes.clear();
        while !bytes.windows(wanted.len()).any(|window| window == wanted) {
            assert_ne!(stream.read_buf(&mut bytes).await.expect("read"), 0, "the connection ended early");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    // A body that is refused is read all the same: the connection goes on.
    let refused = head("PUT", "/k", &[("Content-MD5", "nonsense")], 100_000) + "\r\n";
    stream.write_all(refused.as_bytes()).await.expect("send");
    stream.write_all(&vec![0; 100_000]).await.expect("send");
    assert!(until(&mut stream, b"</Error>").await.contains("InvalidDigest"));
    let waiting = head("PUT", "/k", &[("Expect", "100-continue")], 4) + "\r\n";
    stream.write_all(waiting.as_bytes()).await.expect("send");
    assert!(until(&mut stream, b"\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    stream.write_all(b"text").await.expect("send");
    assert!(until(&mut stream, b"\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert_eq!(stored(&emulator, "k").as_deref(), Some(&b"text"[..]));
    // Refused before the body is asked for.
    let other = head("PUT", "/other", &[("Expect", "100-continue")], 4);
    let wrong = other.replace("q-signature=", "q-signature=0") + "\r\n";
    stream.write_all(wrong.as_bytes()).await.expect("send");
    assert!(until(&mut stream, b"</Error>").await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn bodies_need_a_length_or_chunks() {
    let (_root, emulator) = start().await;
    let bare = head("PUT", "/k", &[], 0).replace("Content-Length: 0\r\n", "") + "Connection: close\r\n";
    assert_eq!(exchange(&emulator, &(bare.clone() + "\r\n"), b"").await.status, 411);
    let chunked = bare + "Transfer-Encoding: chunked\r\n\r\n";
    assert_eq!(exchange(&emulator, &chunked, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await.status, 200);
    assert_eq!(stored(&emulator, "k").as_deref(), Some(&b"abcde"[..]));
    // A client that dies in the middle leaves nothing.
    let mut stream = TcpStream::connect(emulator.addr()).await.expect("connect");
    let half = head("PUT", "/half", &[], 1000) + "\r\nonly this";
    stream.write_all(half.as_bytes()).await.expect("send");
    drop(stream);
    let logged = async {
        while emulator.requests().iter().all(|request| request.key != "half" || request.request_bytes == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), logged).await.expect("it arrived");
    assert_eq!(stored(&emulator, "half"), None);
}

#[tokio::test]
async fn what_is_not_done_is_refused_not_mistaken() {
    let (_root, emulator) = start().await;
    put(&emulator, "k", b"good").await;
    for target in ["/k?acl", "/k?tagging", "/k?symlink", "/k?append&position=0"] {
        assert_eq!(send(&emulator, "PUT", target, &[], b"bad").await.status, 501, "{target}");
    }
    assert_eq!(send(&emulator, "PUT", "/k?partNumber=1", &[], b"bad").await.status, 400);
    assert_eq!(send(&emulator, "POST", "/k", &[], b"bad").await.status, 405);
    assert_eq!(send(&emulator, "GET", "/k?versionId=7", &[], b"").await.status, 404);
    assert_eq!(stored(&emulator, "k").as_deref(), Some(&b"good"[..]));
    let other =
        format!("GET /k HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: AWS4-HMAC-SHA256 x\r\nConnection: close\r\n\r\n");
    assert_eq!(exchange(&emulator, &other, b"").await.status, 501);
    let anonymous = format!("GET /k HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    assert!(exchange(&emulator, &anonymous, b"").await.text().contains("<Code>AccessDenied</Code>"));
}

#[tokio::test]
async fn the_clock_can_be_wrong() {
    let (_root, emulator) = start().await;
    assert_eq!(control(&emulator, "PUT", "clock", r#"{"offset_s":7200}"#).await.status, 204);
    let refused = put(&emulator, "k", b"x").await;
    assert!(refused.text().contains("<Code>Request has expired</Code>"), "{refused:?}");
    let date = refused.header("Date").expect("a Date").to_owned();
    emulator.set_clock_offset(-7200);
    let refused = put(&emulator, "k", b"x").await;
    assert!(refused.text().contains("<Code>RequestTimeTooSkewed</Code>"), "{refused:?}");
    assert_ne!(refused.header("Date"), Some(date.as_str()));
    emulator.set_clock_offset(0);
    assert_eq!(put(&emulator, "k", b"x").await.status, 200);
}

#[tokio::test]
async fn latency_and_bandwidth_slow_things_down() {
    let root = tempfile::tempdir().expect("a directory");
    let slow = Options { latency: Duration::from_millis(50), bandwidth: Some(2_000_000), ..options(root.path()) };
    let emulator = Emulator::start(slow).await.expect("start the emulator");
    let begun = Instant::now();
    assert_eq!(put(&emulator, "k", &vec![0; 1_000_000]).await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(550), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(send(&emulator, "GET", "/k", &[], b"").await.body.len(), 1_000_000);
    assert!(begun.elapsed() >= Duration::from_millis(550), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_shut_down_emulator_is_gone_and_its_objects_are_not() {
    let (root, emulator) = start().await;
    put(&emulator, "k", b"text").await;
    let (first, oms) = (emulator.object(BUCKET, "k").expect("stored"), emulator.oms_url());
    let address = emulator.addr();
    emulator.shutdown().await;
    assert!(TcpStream::connect(address).await.is_err());
    let emulator = Emulator::start(Options { buckets: Vec::new(), ..options(root.path()) }).await.expect("start again");
    let second = emulator.object(BUCKET, "k").expect("still there");
    assert_eq!((second.etag(), second.modified_ns()), (first.etag(), first.modified_ns()));
    assert_eq!(second.bytes().expect("read"), b"text");
    let path = |url: &str| url.splitn(4, '/').last().map(str::to_owned);
    assert_eq!(path(&emulator.oms_url()), path(&oms), "the same task at every start");
}
