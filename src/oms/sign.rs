//! SDK-HMAC-SHA256 (PROTOCOL section 11), pure.
//!
//! Follows the vendor's SDK where it and the older published signer differ: headers with `_` in
//! their name are not signed, and an empty body counts as empty whatever `x-sdk-content-sha256` says.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::checksum::hex;
use crate::http::encode;
use crate::types::TimeNs;

/// Name of the scheme, first word of the Authorization header.
const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// What is signed of a request. Header names may have any case; `host` and `x-sdk-date` must be there.
pub(super) struct Request<'a> {
    /// Upper case.
    pub(super) method: &'a str,
    /// As sent, percent-encoded.
    pub(super) path: &'a str,
    /// As sent, without `?`.
    pub(super) query: &'a str,
    /// Every header to sign.
    pub(super) headers: &'a [(String, String)],
    /// As sent.
    pub(super) body: &'a [u8],
}

/// The value of `X-Sdk-Date` for a time: `YYYYMMDDTHHMMSSZ`.
pub(super) fn sdk_date(time: TimeNs) -> String {
    let stamp = jiff::Timestamp::from_second(time.sec()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The Authorization header of a request.
pub(super) fn authorization(request: &Request<'_>, access_key: &str, secret_key: &str) -> String {
    let headers = signed_headers(request.headers);
    let text = string_to_sign(request, &headers);
    let signature = hex(&hmac_sha256(secret_key.as_bytes(), text.as_bytes()));
    format!("{ALGORITHM} Access={access_key}, SignedHeaders={}, Signature={signature}", names(&headers))
}

/// Name in lower case and trimmed value, by name.
fn signed_headers(headers: &[(String, String)]) -> Vec<(String, String)> {
    let mut signed: Vec<(String, String)> = headers
        .iter()
        .filter(|(name, _)| !name.contains('_'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    signed.sort();
    signed
}

fn names(headers: &[(String, String)]) -> String {
    headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";")
}

fn value_of<'a>(headers: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

fn string_to_sign(request: &Request<'_>, headers: &[(String, String)]) -> String {
    let canonical = canonical_request(request, headers);
    let date = value_of(headers, "x-sdk-date").unwrap_or_default();
    format!("{ALGORITHM}\n{date}\n{}", hex(&Sha256::digest(canonical.as_bytes())))
}

fn canonical_request(request: &Request<'_>, headers: &[(String, String)]) -> String {
    let block: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let body = match value_of(headers, "x-sdk-content-sha256") {
        Some(given) if !request.body.is_empty() => given.to_owned(),
        _ => hex(&Sha256::digest(request.body)),
    };
    format!(
        "{}\n{}\n{}\n{block}\n{}\n{body}",
        request.method,
        canonical_path(request.path),
        canonical_query(request.query),
        names(headers)
    )
}

/// Every segment decoded and encoded again; ends with `/`, though the request does not.
fn canonical_path(path: &str) -> String {
    let decoded = decode(path);
    let mut canonical = decoded.split('/').map(encode).collect::<Vec<_>>().join("/");
    if !canonical.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

/// Names and values decoded, sorted, encoded again; `=` always there.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}

fn decode(text: &str) -> String {
    String::from_utf8_lossy(&crate::http::decode(text)).into_owned()
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("invariant: HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> Vec<serde_json::Value> {
        let text = include_str!("../../tests/vectors/huawei_sdk_hmac_sha256.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        file["vectors"].as_array().unwrap().clone()
    }

    /// Path and query of a URL, and the host header it implies.
    fn split(url: &str) -> (String, String, String) {
        let rest = url.split_once("://").unwrap().1;
        let (authority, target) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        (authority.to_owned(), path.to_owned(), query.to_owned())
    }

    #[test]
    fn agrees_with_every_vector_of_the_vendor() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 15);
        for vector in &vectors {
            let name = vector["name"].as_str().unwrap();
            let input = &vector["input"];
            let expected = &vector["expected"];
            let (host, path, query) = split(input["url"].as_str().unwrap());
            let mut headers: Vec<(String, String)> = input["headers"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
                .collect();
            headers.push(("host".to_owned(), host));
            if name == "non_json_content_type" {
                // The SDK adds this header before it signs; a caller of ours would, too.
                headers.push(("X-Sdk-Content-Sha256".to_owned(), "UNSIGNED-PAYLOAD".to_owned()));
            }
            let request = Request {
                method: input["method"].as_str().unwrap(),
                path: &path,
                query: &query,
                headers: &headers,
                body: input["body"].as_str().unwrap().as_bytes(),
            };
            let signed = signed_headers(&headers);
            assert_eq!(canonical_request(&request, &signed), expected["canonical_request"].as_str().unwrap(), "{name}");
            assert_eq!(string_to_sign(&request, &signed), expected["string_to_sign"].as_str().unwrap(), "{name}");
            assert_eq!(
                authorization(&request, input["ak"].as_str().unwrap(), input["sk"].as_str().unwrap()),
                expected["authorization"].as_str().unwrap(),
                "{name}"
            );
        }
    }

    #[test]
    fn an_empty_body_counts_as_empty_whatever_the_header_says() {
        let header = |value: &str| {
            vec![
                ("host".to_owned(), "h".to_owned()),
                ("x-sdk-content-sha256".to_owned(), value.to_owned()),
                ("x-sdk-date".to_owned(), "20231114T221320Z".to_owned()),
            ]
        };
        let headers = header("feed");
        let request = Request { method: "GET", path: "/", query: "", headers: &headers, body: b"" };
        assert!(canonical_request(&request, &signed_headers(&headers)).ends_with(&hex(&Sha256::digest(b""))));
    }

    #[test]
    fn dates_are_written_as_the_gateway_reads_them() {
        assert_eq!(sdk_date(TimeNs::new(1_700_000_000, 999)), "20231114T221320Z");
    }
}
