//! The HTTP client against scripted servers on loopback.

use std::time::Duration;

use bytes::Bytes;
use ferryfs::http::{Client, HeaderMap, Kind, Method, Options, Request, Scheme};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn client() -> Client {
    Client::new(&Options { connect_timeout: Duration::from_secs(5), ..Options::default() }).unwrap()
}

fn request(listener: &TcpListener, method: Method, target: &str, body: &'static [u8]) -> Request {
    Request {
        method,
        scheme: Scheme::Http,
        authority: listener.local_addr().unwrap().to_string(),
        target: target.to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body),
        timeout: Duration::from_secs(10),
    }
}

/// Reads a request's head, and a body of `body` bytes behind it.
async fn read_request(stream: &mut TcpStream, body: usize) -> String {
    let mut seen = Vec::new();
    loop {
        if let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n")
            && seen.len() >= end + 4 + body
        {
            return String::from_utf8(seen).unwrap();
        }
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        assert_ne!(count, 0, "the client hung up after {seen:?}");
        seen.extend_from_slice(&chunk[..count]);
    }
}

#[tokio::test]
async fn targets_are_sent_verbatim_over_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let targets = ["/", "/a/../b/./c", "//a//b", "/a%2Fb%2e%2e/%E4%B8%AD", "/?prefix=a%20b&uploads=", "/.%2F.%2F~()*"];
    let client = client();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for target in targets {
            let seen = read_request(&mut stream, 0).await;
            assert!(seen.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{target}: {seen}");
            assert!(seen.contains("\r\nhost: 127.0.0.1:"), "{seen}");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    };
    let calls = async {
        for target in targets {
            let response = client.send(request(&listener, Method::GET, target, b"")).await.unwrap();
            assert_eq!(response.status, 200);
            assert_eq!(response.body.collect(2).await.unwrap(), "ok");
        }
    };
    tokio::join!(server, calls);
}

#[tokio::test]
async fn bodies_carry_their_length_and_the_host_header_can_differ() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let seen = read_request(&mut stream, 5).await;
        assert!(seen.contains("\r\ncontent-length: 5\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
        assert!(seen.contains("\r\nhost: bucket.example\r\n") && !seen.contains("127.0.0.1"), "{seen}");
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let seen = read_request(&mut stream, 0).await;
        assert!(seen.contains("\r\ncontent-length: 0\r\n"), "{seen}");
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    };
    let calls = async {
        let mut first = request(&listener, Method::PUT, "/k", b"hello");
        first.headers.insert("host", "bucket.example".parse().unwrap());
        assert_eq!(client.send(first).await.unwrap().status, 204);
        let mut second = request(&listener, Method::PUT, "/k", b"");
        second.headers.insert("content-length", "0".parse().unwrap());
        assert_eq!(client.send(second).await.unwrap().status, 204);
    };
    tokio::join!(server, calls);
}

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = request(&listener, Method::GET, "/", b"");
    drop(listener);
    let error = client().send(request).await.unwrap_err();
    assert_eq!((error.kind, error.sent), (Kind::Connect, false));
}

#[tokio::test]
async fn a_connection_cut_before_the_reply_may_have_been_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream, 0).await;
    };
    let (error, ()) = tokio::join!(client.send(request(&listener, Method::GET, "/", b"")), server);
    let error = error.unwrap_err();
    assert_eq!((error.kind, error.sent), (Kind::Io, true));
}

#[tokio::test]
async fn silence_times_out_and_counts_as_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut request = request(&listener, Method::GET, "/", b"");
    request.timeout = Duration::from_millis(50);
    let (error, _held) = tokio::join!(async { client().send(request).await.unwrap_err() }, listener.accept());
    assert_eq!((error.kind, error.sent), (Kind::Timeout, true));
}

#[tokio::test]
async fn a_body_that_ends_early_or_stops_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client();
    for (cut, expected) in [(true, Kind::Io), (false, Kind::Timeout)] {
        let mut request = request(&listener, Method::GET, "/", b"");
        request.timeout = Duration::from_millis(300);
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream, 0).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
            if cut { None } else { Some(stream) }
        };
        let (response, _held) = tokio::join!(client.send(request), server);
        let mut body = response.unwrap().body;
        let mut bytes = Vec::new();
        let error = loop {
            match body.next().await.unwrap() {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) => break error,
            }
        };
        assert_eq!(bytes, b"half");
        assert_eq!(error.kind, expected);
        assert!(body.next().await.is_none());
    }
}

#[tokio::test]
async fn a_slow_body_that_keeps_moving_outlives_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client();
    let mut request = request(&listener, Method::GET, "/", b"");
    request.timeout = Duration::from_secs(1);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream, 0).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..12 {
            stream.write_all(b"1\r\n \r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stream.write_all(b"3\r\nend\r\n0\r\n\r\n").await.unwrap();
    };
    let call = async { client.send(request).await.unwrap().body.collect(100).await.unwrap() };
    let (body, ()) = tokio::join!(call, server);
    assert_eq!(body, format!("{:12}end", ""));
}

#[tokio::test]
async fn responses_larger_than_allowed_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream, 0).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world").await.unwrap();
    };
    let call = async { client.send(request(&listener, Method::GET, "/", b"")).await.unwrap().body.collect(10).await };
    let (body, ()) = tokio::join!(call, server);
    assert_eq!(body.unwrap_err().kind, Kind::TooLarge);
}

#[tokio::test]
async fn https_to_a_server_that_speaks_http_is_a_tls_error_and_nothing_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client();
    let mut request = request(&listener, Method::GET, "/secret", b"");
    request.scheme = Scheme::Https;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = [0; 4096];
        let count = stream.read(&mut seen).await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert!(!seen[..count].windows(7).any(|w| w == b"/secret"));
    };
    let (error, ()) = tokio::join!(client.send(request), server);
    let error = error.unwrap_err();
    assert_eq!((error.kind, error.sent), (Kind::Tls, false));
}

#[tokio::test]
async fn requests_never_print_their_secrets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut request = request(&listener, Method::GET, "/k?q-signature=abc", b"");
    request.headers.insert("authorization", "hush".parse().unwrap());
    let text = format!("{request:?}");
    assert!(text.starts_with("GET http://127.0.0.1:") && text.ends_with("/k"), "{text}");
}
