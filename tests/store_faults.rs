//! The COS client against a server that misbehaves by script: what is repeated, what is not, and
//! what the caller is told.

mod scripted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferryfs::checksum::{md5, md5_base64};
use ferryfs::http::format_date;
use ferryfs::store::{
    Addressing, CopyOptions, CopySource, CosOptions, Credentials, CredentialsSource, Error, ErrorKind, GetOptions,
    HeadOptions, ListOptions, ObjectHeaders, ObjectStore, Outcome, Part, PutOptions, RetryOptions, check, cos,
};
use ferryfs::types::{Crc64, ETag, Key, TimeNs};
use futures::StreamExt;
use scripted::{Seen, Server, Step, error, error_body, reply};

const BUCKET: &str = "examplebucket-1250000000";

fn options(server: &Server, source: CredentialsSource) -> CosOptions {
    let mut options = CosOptions::new(BUCKET, "ap-guangzhou", source);
    options.endpoint = Some(format!("http://{}", server.address));
    options.addressing = Addressing::Path;
    options.retry = RetryOptions {
        attempts: 4,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(5),
        throttled_base: Duration::from_millis(2),
        total: Duration::from_secs(60),
    };
    options
}

fn source() -> CredentialsSource {
    Credentials::new("AKIDtest", "hush-secret", Some("hush-token")).into()
}

async fn scripted(steps: Vec<Step>) -> (Server, Arc<dyn ObjectStore>) {
    let server = Server::start(steps).await;
    let store = cos(options(&server, source())).unwrap();
    (server, store)
}

fn stored() -> Step {
    let headers = [("ETag", "\"e1\""), ("x-cos-hash-crc64ecma", "18446744073709551615")];
    Step::Reply(reply(200, "OK", &headers, b""))
}

fn gone() -> Step {
    Step::Reply(reply(204, "No Content", &[], b""))
}

fn refused(status: u16, code: &str) -> Step {
    Step::Reply(error(status, code))
}

fn ok_xml(body: &str) -> Step {
    Step::Reply(reply(200, "OK", &[], body.as_bytes()))
}

fn part(number: u32) -> Part {
    Part { number, etag: ETag(format!("p{number}")), size: 1 << 20, crc64: None }
}

fn assert_no_secret(error: &Error) {
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hush") && !text.contains("q-signature"), "{text}");
}

const KEY: &str = "dir/a b.txt";

fn key() -> Key {
    Key::from(KEY)
}

#[tokio::test]
async fn a_put_is_repeated_whole_until_it_is_taken() {
    let (server, store) =
        scripted(vec![refused(503, "SlowDown"), refused(400, "BadDigest"), refused(400, "RequestTimeout"), stored()])
            .await;
    let body = Bytes::from(vec![7; 300_000]);
    let sum = md5(&body);
    let options = PutOptions { content_md5: Some(sum), ..PutOptions::default() };
    let result = store.put(&key(), body.clone(), options).await.unwrap();
    assert_eq!((result.etag.0.as_str(), result.crc64), ("e1", Some(Crc64(u64::MAX))));
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    for request in seen {
        assert_eq!(request.line, format!("PUT /{BUCKET}/dir/a%20b.txt"));
        assert_eq!(request.body, body);
        assert_eq!(request.header("content-md5"), Some(md5_base64(&sum).as_str()));
        assert_eq!(request.header("host"), Some(server.address.as_str()));
        let authorization = request.header("authorization").unwrap();
        assert!(authorization.contains("q-header-list=content-length;content-md5;host;x-cos-security-token&"));
    }
}

#[tokio::test]
async fn attempts_are_bounded_and_the_outcome_stays_unknown() {
    let (server, store) = scripted(vec![refused(500, "InternalError"); 9]).await;
    let error = store.delete(&key()).await.unwrap_err();
    assert_eq!((error.kind, error.outcome, error.attempts), (ErrorKind::Server, Outcome::Unknown, 4));
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_put_or_copy_of_unknown_outcome_is_never_repeated() {
    let half = reply(200, "OK", &[("Content-Length", "200")], b"  <CopyObject");
    let copied = ok_xml("<CopyObjectResult><ETag>\"c1\"</ETag></CopyObjectResult>");
    for step in [Step::Cut(Vec::new()), Step::Cut(half), refused(500, "InternalError"), ok_xml("")] {
        // A refusal that may be repeated comes first: it changes nothing of what follows.
        let (server, store) = scripted(vec![refused(503, "SlowDown"), step.clone(), stored()]).await;
        let error = store.put(&key(), Bytes::from_static(b"x"), PutOptions::default()).await.unwrap_err();
        assert_eq!((error.outcome, server.seen().len()), (Outcome::Unknown, 2), "{error}");
        assert!(error.is_transient());
        assert!(!store.may_arrive_late(&key()), "its caller knows");
        let (server, store) = scripted(vec![refused(503, "SlowDown"), step, copied.clone()]).await;
        let error = store.copy(copy_source(), &key(), CopyOptions::default()).await.unwrap_err();
        assert_eq!((error.outcome, server.seen().len()), (Outcome::Unknown, 2), "{error}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn what_may_arrive_late_is_told_although_the_call_succeeded() {
    let (_server, store) = scripted(vec![
        refused(503, "SlowDown"),
        gone(),
        Step::Cut(Vec::new()),
        gone(),
        Step::Cut(Vec::new()),
        refused(503, "SlowDown"),
        ok_xml("<DeleteResult/>"),
    ])
    .await;
    store.delete(&key()).await.unwrap();
    assert!(!store.may_arrive_late(&key()));
    store.delete(&key()).await.unwrap();
    assert!(store.may_arrive_late(&key()));
    let batch = [Key::from("x"), Key::from("y")];
    let error = store.delete_many(&batch).await.unwrap_err();
    assert_eq!((error.outcome, error.attempts), (Outcome::Unknown, 1), "its caller looks first");
    assert!(batch.iter().all(|key| !store.may_arrive_late(key)), "its caller knows");
    store.delete_many(&batch).await.unwrap();
    assert!(batch.iter().all(|key| !store.may_arrive_late(key)));
}

#[tokio::test]
async fn refusals_are_told_in_full_and_without_secrets() {
    for (status, code, kind) in [
        (403, "SignatureDoesNotMatch", ErrorKind::Credentials),
        (403, "AccessDenied", ErrorKind::AccessDenied),
        (404, "NoSuchBucket", ErrorKind::NoSuchBucket),
        (400, "KeyTooLong", ErrorKind::Rejected),
        (409, "SomethingElse", ErrorKind::Rejected),
    ] {
        let (server, store) = scripted(vec![refused(status, code)]).await;
        let error = store.put(&key(), Bytes::from_static(b"x"), PutOptions::default()).await.unwrap_err();
        assert_eq!((error.kind, error.outcome, server.seen().len()), (kind, Outcome::NotApplied, 1), "{code}");
        let text = error.to_string();
        for part in ["PUT cos://examplebucket-1250000000/dir/a b.txt", code, "scripted", &format!("req-{status}")] {
            assert!(text.contains(part), "`{part}` is missing in: {text}");
        }
        assert_no_secret(&error);
    }
}

#[tokio::test]
async fn a_refused_connection_is_told_as_offline_and_not_applied() {
    let (server, _) = scripted(Vec::new()).await;
    let mut options = options(&server, source());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    options.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    let store = cos(options).unwrap();
    let error = store.put(&key(), Bytes::new(), PutOptions::default()).await.unwrap_err();
    assert!(error.is_offline());
    assert_eq!((error.outcome, error.attempts), (Outcome::NotApplied, 4));
    assert_no_secret(&error);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let throttled = reply(503, "Slow", &[("Retry-After", "1")], error_body("SlowDown").as_bytes());
    let (server, store) = scripted(vec![Step::Reply(throttled), stored()]).await;
    let began = Instant::now();
    store.put(&key(), Bytes::new(), PutOptions::default()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.seen().len(), 2);
}

/// Start of the signature's time, seconds since the epoch.
fn signed_since(seen: &Seen) -> i64 {
    let authorization = seen.header("authorization").unwrap();
    let time = authorization.split("q-sign-time=").nth(1).unwrap();
    time.split(';').next().unwrap().parse().unwrap()
}

fn now_s() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_once_and_remembered() {
    let store_time = now_s() + 7_200;
    let date = format_date(TimeNs::new(store_time, 0));
    for (code, head) in [("RequestTimeTooSkewed", false), ("Request has expired", false), ("", true)] {
        let body = if head { String::new() } else { error_body(code) };
        let skewed = reply(403, "Forbidden", &[("Date", &date)], body.as_bytes());
        let found = [("ETag", "\"e\""), ("Content-Length", "5")];
        let fine = || if head { Step::Reply(reply(200, "OK", &found, b"")) } else { stored() };
        let (server, store) = scripted(vec![Step::Reply(skewed), fine(), fine()]).await;
        for _ in 0..2 {
            if head {
                assert_eq!(store.head(&key(), HeadOptions::default()).await.unwrap().size, 5);
            } else {
                store.put(&key(), Bytes::new(), PutOptions::default()).await.unwrap();
            }
        }
        let seen = server.seen();
        assert_eq!(seen.len(), 3, "{code}");
        assert!(signed_since(&seen[0]) < now_s());
        for later in &seen[1..] {
            assert!((signed_since(later) - (store_time - 60)).abs() < 30, "{code}");
        }
    }
}

#[tokio::test]
async fn a_clock_that_stays_wrong_is_an_error_of_its_own() {
    let date = format_date(TimeNs::new(now_s() + 7_200, 0));
    let skewed = reply(403, "Forbidden", &[("Date", &date)], error_body("RequestTimeTooSkewed").as_bytes());
    let (server, store) = scripted(vec![Step::Reply(skewed.clone()), Step::Reply(skewed.clone()), stored()]).await;
    let error = store.put(&key(), Bytes::new(), PutOptions::default()).await.unwrap_err();
    assert_eq!((error.kind, server.seen().len()), (ErrorKind::ClockSkew, 2));
}

#[tokio::test]
async fn replaced_credentials_are_used_for_the_repeat() {
    let source = source();
    let renewed = source.clone();
    let renew = Step::Call(Arc::new(move |_: &Seen| {
        renewed.replace(Credentials::new("AKIDnew", "hush-new", None));
        error(400, "ExpiredToken")
    }));
    let server = Server::start(vec![renew, stored(), refused(403, "InvalidAccessKeyId")]).await;
    let store = cos(options(&server, source)).unwrap();
    store.put(&key(), Bytes::new(), PutOptions::default()).await.unwrap();
    let seen = server.seen();
    assert!(seen[0].header("authorization").unwrap().contains("q-ak=AKIDtest&"));
    assert!(seen[1].header("authorization").unwrap().contains("q-ak=AKIDnew&"));
    assert_eq!(seen[1].header("x-cos-security-token"), None);
    let error = store.put(&key(), Bytes::new(), PutOptions::default()).await.unwrap_err();
    assert_eq!((error.kind, server.seen().len()), (ErrorKind::Credentials, 3));
}

#[tokio::test]
async fn a_forbidden_overwrite_is_no_echo_of_the_call_itself() {
    let (server, store) = scripted(vec![Step::Cut(Vec::new()), refused(409, "FileAlreadyExists")]).await;
    let options = PutOptions { forbid_overwrite: true, ..PutOptions::default() };
    let error = store.put(&key(), Bytes::new(), options.clone()).await.unwrap_err();
    assert_eq!((error.kind, error.outcome, server.left()), (ErrorKind::Network, Outcome::Unknown, 1));
    assert!(server.seen().iter().all(|seen| seen.header("x-cos-forbid-overwrite") == Some("true")));
    let (_server, store) = scripted(vec![refused(409, "FileAlreadyExists")]).await;
    let error = store.put(&key(), Bytes::new(), options).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::AlreadyExists, Outcome::NotApplied));
}

fn copy_source() -> CopySource {
    CopySource { key: Key::from("src key/\u{4e2d}.bin"), if_match: Some(ETag("e0".to_owned())), version_id: None }
}

#[tokio::test]
async fn a_copy_succeeds_only_if_its_body_says_so() {
    let copied = "\n<CopyObjectResult><ETag>&quot;c1&quot;</ETag><CRC64>42</CRC64>\
                  <LastModified>2024-01-01T00:00:00Z</LastModified></CopyObjectResult>";
    let (server, store) =
        scripted(vec![ok_xml(&error_body("SlowDown")), ok_xml(copied), ok_xml(&error_body("NoSuchKey"))]).await;
    let headers = ObjectHeaders {
        content_type: Some("text/plain".to_owned()),
        metadata: [("name".to_owned(), "\u{6587}".to_owned())].into(),
        ..ObjectHeaders::default()
    };
    let options = CopyOptions {
        replace_headers: Some(headers),
        storage_class: Some("STANDARD_IA".to_owned()),
        ..Default::default()
    };
    let result = store.copy(copy_source(), &key(), options.clone()).await.unwrap();
    assert_eq!((result.etag.0.as_str(), result.crc64), ("c1", Some(Crc64(42))));
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for (name, value) in [
        ("x-cos-copy-source", "examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com/src%20key/%E4%B8%AD.bin"),
        ("x-cos-copy-source-if-match", "\"e0\""),
        ("x-cos-metadata-directive", "Replaced"),
        ("x-cos-meta-name", "%E6%96%87"),
        ("x-cos-storage-class", "STANDARD_IA"),
        ("content-type", "text/plain"),
        ("content-length", "0"),
    ] {
        assert_eq!(seen[0].header(name), Some(value), "{name}");
    }
    let error = store.copy(copy_source(), &key(), options).await.unwrap_err();
    assert_eq!(
        (error.kind, error.outcome, error.code.as_deref()),
        (ErrorKind::NotFound, Outcome::NotApplied, Some("NoSuchKey"))
    );
}

#[tokio::test]
async fn a_part_copy_is_judged_by_its_body_too() {
    let (server, store) =
        scripted(vec![ok_xml(&error_body("SlowDown")), ok_xml("<CopyPartResult><ETag>\"p2\"</ETag></CopyPartResult>")])
            .await;
    let copied = store.copy_part(&key(), "u+/1", 2, copy_source(), 10..20).await.unwrap();
    assert_eq!(copied, Part { number: 2, etag: ETag("p2".to_owned()), size: 10, crc64: None });
    let seen = server.seen();
    assert_eq!(seen[1].line, format!("PUT /{BUCKET}/dir/a%20b.txt?partNumber=2&uploadId=u%2B%2F1"));
    assert_eq!(seen[1].header("x-cos-copy-source-range"), Some("bytes=10-19"));
}

#[tokio::test]
async fn a_slow_complete_is_waited_for_beyond_the_ordinary_timeout() {
    let done = "<?xml version=\"1.0\"?><CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                <ETag>&quot;e-2&quot;</ETag></CompleteMultipartUploadResult>";
    let mut pieces =
        vec![b"HTTP/1.1 200 OK\r\nx-cos-hash-crc64ecma: 99\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()];
    pieces.extend(vec![b"1\r\n \r\n".to_vec(); 4]);
    pieces.push(format!("{:x}\r\n{done}\r\n0\r\n\r\n", done.len()).into_bytes());
    let server = Server::start(vec![Step::Drip(pieces, Duration::from_millis(200))]).await;
    let mut options = options(&server, source());
    options.request_timeout = Duration::from_millis(50);
    options.slow_timeout = Duration::from_secs(20);
    let store = cos(options).unwrap();
    let result = store.complete_multipart(&key(), "u1", &[part(1), part(2)], true).await.unwrap();
    assert_eq!((result.etag.0.as_str(), result.crc64), ("e-2", Some(Crc64(99))));
    let seen = server.seen();
    assert_eq!(seen[0].header("x-cos-forbid-overwrite"), Some("true"));
    let body = String::from_utf8(seen[0].body.clone()).unwrap();
    assert!(body.contains("<Part><PartNumber>2</PartNumber><ETag>&quot;p2&quot;</ETag></Part>"), "{body}");
}

#[tokio::test]
async fn a_complete_of_unknown_outcome_is_never_repeated() {
    let half = reply(200, "OK", &[("Content-Length", "200")], b"   <CompleteMultipart");
    for step in [
        Step::Cut(Vec::new()),
        Step::Cut(half),
        refused(500, "InternalError"),
        ok_xml(&error_body("InternalError")),
        ok_xml("<CompleteMultipartUploadResult><Key>k</Key></CompleteMultipartUploadResult>"),
        ok_xml(""),
    ] {
        let (server, store) = scripted(vec![step, refused(404, "NoSuchUpload")]).await;
        let error = store.complete_multipart(&key(), "u1", &[part(1)], false).await.unwrap_err();
        assert_eq!((error.outcome, server.seen().len()), (Outcome::Unknown, 1), "{error}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_complete_that_was_refused_is_repeated_or_told() {
    let done = "<CompleteMultipartUploadResult><ETag>\"e-1\"</ETag></CompleteMultipartUploadResult>";
    let (server, store) = scripted(vec![refused(503, "SlowDown"), ok_xml(done)]).await;
    store.complete_multipart(&key(), "u1", &[part(1)], false).await.unwrap();
    assert_eq!(server.left(), 0);
    for (status, code, kind) in
        [(404, "NoSuchUpload", ErrorKind::NoSuchUpload), (400, "InvalidPart", ErrorKind::InvalidPart)]
    {
        let (server, store) = scripted(vec![refused(status, code)]).await;
        let error = store.complete_multipart(&key(), "u1", &[part(1)], false).await.unwrap_err();
        assert_eq!((error.kind, error.outcome, server.seen().len()), (kind, Outcome::NotApplied, 1));
    }
}

#[tokio::test]
async fn an_initiate_of_unknown_outcome_is_not_repeated_and_an_abort_of_nothing_succeeds() {
    let (server, store) = scripted(vec![Step::Cut(Vec::new()), refused(404, "NoSuchUpload")]).await;
    let error = store.create_multipart(&key(), PutOptions::default()).await.unwrap_err();
    assert_eq!((error.outcome, server.seen().len()), (Outcome::Unknown, 1));
    store.abort_multipart(&key(), "u1").await.unwrap();
}

fn object(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    reply(status, "OK", &[headers, &[("ETag", "\"e\"")]].concat(), body)
}

async fn read(store: &Arc<dyn ObjectStore>, options: GetOptions) -> Result<Vec<u8>, Error> {
    let mut result = store.get(&key(), options).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = result.body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_body_shorter_than_announced_ends_with_an_error() {
    let cut = object(200, &[("Content-Length", "10")], b"half");
    let (server, store) = scripted(vec![refused(500, "InternalError"), Step::Cut(cut)]).await;
    let error = read(&store, GetOptions::default()).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::Network, Outcome::NotApplied));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_chunked_body_must_fill_its_range_too() {
    for (chunk, words) in [("3\r\n567", "3 of 4"), ("5\r\n56789", "longer")] {
        let head = "HTTP/1.1 206 Partial Content\r\nETag: \"e\"\r\nContent-Range: bytes 5-8/20\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        let whole = format!("{head}{chunk}\r\n0\r\n\r\n").into_bytes();
        let (_server, store) = scripted(vec![Step::Reply(whole)]).await;
        let wanted = GetOptions { range: Some(5..9), ..GetOptions::default() };
        let error = read(&store, wanted).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadReply);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn not_found_is_believed_of_the_store_only() {
    let portal = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno".to_vec();
    let cut = reply(404, "Not Found", &[("Content-Length", "300")], b"<Error><Code>NoSu");
    let (server, store) =
        scripted(vec![Step::Reply(portal.clone()), Step::Cut(cut), refused(404, "NoSuchKey"), Step::Reply(portal)])
            .await;
    let error = store.get(&key(), GetOptions::default()).await.err().unwrap();
    assert_eq!((error.kind, server.seen().len()), (ErrorKind::NotFound, 3));
    let error = store.head(&key(), HeadOptions::default()).await.unwrap_err();
    assert_ne!(error.kind, ErrorKind::NotFound);
    let silent = Step::Reply(reply(404, "Not Found", &[], b""));
    let (_server, store) = scripted(vec![silent.clone(), silent, refused(404, "NoSuchKey")]).await;
    assert_eq!(store.head(&key(), HeadOptions::default()).await.unwrap_err().kind, ErrorKind::NotFound);
    assert!(store.delete(&key()).await.is_err());
    store.delete(&key()).await.unwrap();
}

#[tokio::test]
async fn a_range_is_guarded_by_etag_and_checked() {
    let wanted = GetOptions { range: Some(5..9), if_match: Some(ETag("e".to_owned())), version_id: None };
    let good = object(206, &[("Content-Range", "bytes 5-8/20"), ("x-cos-hash-crc64ecma", "7")], b"5678");
    let (server, store) = scripted(vec![Step::Reply(good), refused(412, "PreconditionFailed")]).await;
    let result = store.get(&key(), wanted.clone()).await.unwrap();
    assert_eq!((result.range, result.meta.size, result.meta.crc64), (5..9, 20, Some(Crc64(7))));
    let seen = server.seen();
    assert_eq!((seen[0].header("range"), seen[0].header("if-match")), (Some("bytes=5-8"), Some("\"e\"")));
    assert_eq!(read(&store, wanted.clone()).await.unwrap_err().kind, ErrorKind::Precondition);
    let other = object(206, &[("Content-Range", "bytes 6-9/20")], b"6789");
    let (server, store) = scripted(vec![Step::Reply(other); 9]).await;
    assert_eq!(read(&store, wanted).await.unwrap_err().kind, ErrorKind::BadReply);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_a_timeout() {
    let server = Server::start(vec![Step::Hang, Step::Hang, Step::Hang]).await;
    let mut options = options(&server, source());
    options.request_timeout = Duration::from_millis(50);
    options.retry.attempts = 2;
    let store = cos(options).unwrap();
    let error = store.put(&key(), Bytes::from_static(b"x"), PutOptions::default()).await.unwrap_err();
    assert_eq!((error.kind, error.outcome, error.attempts), (ErrorKind::Timeout, Outcome::Unknown, 1));
    let error = store.head(&key(), HeadOptions::default()).await.unwrap_err();
    assert_eq!((error.kind, error.outcome, error.attempts), (ErrorKind::Timeout, Outcome::NotApplied, 2));
}

#[tokio::test]
async fn listings_that_make_no_sense_are_not_empty_listings() {
    for body in ["", "<html>proxy</html>", "<ListBucketResult><Contents>"] {
        let (server, store) = scripted(vec![ok_xml(body); 9]).await;
        let error = store.list(ListOptions::default()).await.unwrap_err();
        assert_eq!((error.kind, server.seen().len()), (ErrorKind::BadReply, 4), "{body}");
    }
    let (server, store) = scripted(vec![ok_xml("<ListBucketResult/>")]).await;
    let options =
        ListOptions { prefix: "a b/".into(), delimiter: Some('/'), marker: Some("a b/+".into()), max_keys: 7 };
    assert!(store.list(options).await.unwrap().objects.is_empty());
    let line = "prefix=a%20b%2F&delimiter=%2F&marker=a%20b%2F%2B&max-keys=7&encoding-type=url";
    assert_eq!(server.seen()[0].line, format!("GET /{BUCKET}/?{line}"));
}

#[tokio::test]
async fn many_keys_are_deleted_by_name_whatever_is_in_them() {
    let result =
        "<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>m</Message></Error></DeleteResult>";
    let (server, store) = scripted(vec![gone(), ok_xml(result)]).await;
    let keys = ["a<&>\"\r\n.txt", "b", "control\u{1}"].map(Key::from);
    let failures = store.delete_many(&keys).await.unwrap();
    assert_eq!((failures.len(), failures[0].key.as_str(), failures[0].code.as_str()), (1, "b", "AccessDenied"));
    let seen = server.seen();
    assert_eq!(seen[0].line, format!("DELETE /{BUCKET}/control%01"));
    assert_eq!(seen[1].line, format!("POST /{BUCKET}/?delete="));
    assert_eq!(seen[1].header("content-md5"), Some(md5_base64(&md5(&seen[1].body)).as_str()));
    let body = String::from_utf8(seen[1].body.clone()).unwrap();
    assert!(body.contains("<Key>a&lt;&amp;&gt;&quot;&#13;&#10;.txt</Key>") && !body.contains("control"), "{body}");
    assert!(store.delete_many(&[]).await.unwrap().is_empty());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn what_cos_does_not_allow_is_refused_without_a_request() {
    let (server, store) = scripted(Vec::new()).await;
    let long = Key("k".repeat(851));
    let error = store.put(&long, Bytes::new(), PutOptions::default()).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::Rejected, Outcome::NotApplied));
    assert_eq!(store.get(&Key::from("a/.."), GetOptions::default()).await.err().unwrap().kind, ErrorKind::Rejected);
    let big = ObjectHeaders { metadata: [("a".to_owned(), "x".repeat(3000))].into(), ..ObjectHeaders::default() };
    let options = PutOptions { headers: big, ..PutOptions::default() };
    assert_eq!(store.put(&key(), Bytes::new(), options).await.unwrap_err().kind, ErrorKind::Rejected);
    let gap = store.complete_multipart(&key(), "u", &[part(1), part(3)], false).await.unwrap_err();
    assert_eq!(gap.kind, ErrorKind::Rejected);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn virtual_hosts_name_the_bucket_and_sign_the_key_alone() {
    let server = Server::start(vec![stored()]).await;
    let mut options = options(&server, source());
    options.addressing = Addressing::Virtual;
    let store = cos(options).unwrap();
    store.put(&Key::from("/a/./b"), Bytes::new(), PutOptions::default()).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].line, "PUT //a/.%2Fb");
    assert_eq!(seen[0].header("host"), Some("examplebucket-1250000000.cos.ap-guangzhou.myqcloud.com"));
}

#[tokio::test]
async fn a_check_names_what_is_wrong() {
    let silent = |status| Step::Reply(reply(status, "No", &[], b""));
    for (status, code, kind, words) in [
        (403, "InvalidAccessKeyId", ErrorKind::Credentials, "secret_id"),
        (403, "SignatureDoesNotMatch", ErrorKind::Credentials, "secret_key"),
        (404, "NoSuchBucket", ErrorKind::NoSuchBucket, "region"),
        (403, "AccessDenied", ErrorKind::AccessDenied, "bucket"),
    ] {
        let (_server, store) = scripted(vec![silent(status), refused(status, code)]).await;
        let error = check(store.as_ref()).await.unwrap_err();
        assert_eq!(error.kind, kind);
        let text = error.to_string();
        for word in [words, code, &status.to_string(), &format!("req-{status}"), "cos://examplebucket-1250000000"] {
            assert!(text.contains(word), "`{word}` is missing in: {text}");
        }
        assert_no_secret(&error);
    }
    let (_server, store) = scripted(vec![silent(403), ok_xml("<ListBucketResult/>")]).await;
    check(store.as_ref()).await.unwrap();
    let (server, store) = scripted(vec![silent(200)]).await;
    check(store.as_ref()).await.unwrap();
    assert_eq!(server.seen()[0].line, format!("HEAD /{BUCKET}/"));
}
