//! Verifies COS request signatures (`q-sign-algorithm=sha1`), in headers and in presigned URLs.
//!
//! Written from the protocol's description, apart from the client's signer: two implementations
//! that agree are the point.

use std::collections::BTreeMap;

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use hyper::header::HeaderMap;
use sha1::Digest;
use sha1::Sha1;

use crate::emulator::encoding::encode;
use crate::emulator::encoding::hex;
use crate::emulator::encoding::parse_http_date;
use crate::emulator::reply::Refusal;
use crate::emulator::wire::Call;

/// How far clocks may differ, seconds (PROTOCOL 2).
const MOST_SKEW_S: i64 = 15 * 60;

/// The seven fields of a signature.
#[derive(Debug, PartialEq, Eq)]
struct Fields {
    access_key: String,
    sign_time: String,
    key_time: String,
    headers: Vec<String>,
    params: Vec<String>,
    signature: String,
}

/// Accepts the request or says why not.
pub(super) fn verify(call: &Call, credentials: &[(String, String)], now_s: i64) -> Result<(), Refusal> {
    let fields = fields(call)?;
    check_times(call, &fields, now_s)?;
    let known = credentials.iter().find(|(id, _)| *id == fields.access_key);
    let (_, secret) = known.ok_or_else(|| {
        Refusal::new(403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records.")
    })?;
    let sign_key = hmac_hex(secret.as_bytes(), fields.key_time.as_bytes());
    let params = listed_params(call, &fields.params)?;
    for host in host_forms(&call.host) {
        let headers = listed_headers(&call.headers, &fields.headers, &host)?;
        for path in &call.signed_paths {
            let text = http_string(call.method.as_str(), path, &params, &headers);
            if same(&signature(&sign_key, &fields.sign_time, &text), &fields.signature) {
                return Ok(());
            }
        }
    }
    Err(mismatch())
}

fn mismatch() -> Refusal {
    let message = "The Signature you specified is invalid.";
    Refusal::new(403, "SignatureDoesNotMatch", message)
}

/// Takes no longer for a nearly right signature than for a wrong one.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |wrong, (x, y)| wrong | (x ^ y)) == 0
}

fn fields(call: &Call) -> Result<Fields, Refusal> {
    let header = call.header("authorization").unwrap_or_default();
    let found: BTreeMap<&str, &str> = if !header.is_empty() {
        header.split('&').filter_map(|pair| pair.split_once('=')).collect()
    } else if call.has("q-signature") {
        call.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    } else {
        return Err(Refusal::new(403, "AccessDenied", "Access Denied."));
    };
    let field = |name: &str| {
        let missing = || Refusal::new(403, "AccessDenied", format!("the signature has no {name}"));
        found.get(name).map(|value| (*value).to_owned()).ok_or_else(missing)
    };
    if field("q-sign-algorithm")? != "sha1" {
        return Err(Refusal::new(403, "AccessDenied", "the signature's algorithm is not sha1"));
    }
    let list = |text: String| text.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(Fields {
        access_key: field("q-ak")?,
        sign_time: field("q-sign-time")?,
        key_time: field("q-key-time")?,
        headers: list(field("q-header-list")?),
        params: list(field("q-url-param-list")?),
        signature: field("q-signature")?,
    })
}

fn check_times(call: &Call, fields: &Fields, now_s: i64) -> Result<(), Refusal> {
    let skewed = || {
        let message = "The difference between the request time and the server's time is too large.";
        Refusal::new(403, "RequestTimeTooSkewed", message)
    };
    for time in [&fields.sign_time, &fields.key_time] {
        let bounds = time.split_once(';').and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
        let (start, end): (i64, i64) = bounds.filter(|(start, end)| start < end).ok_or_else(mismatch)?;
        if start.saturating_sub(now_s) > MOST_SKEW_S {
            return Err(skewed());
        }
        if now_s < start || now_s > end {
            return Err(Refusal::new(403, "Request has expired", "Request has expired"));
        }
    }
    let date = call.header("date").and_then(parse_http_date);
    if date.is_some_and(|date| date.abs_diff(now_s) > MOST_SKEW_S.unsigned_abs()) {
        return Err(skewed());
    }
    Ok(())
}

/// Clients sign the host with or without its port, as typed or in lower case.
fn host_forms(host: &str) -> Vec<String> {
    let bare = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let mut forms = vec![host.to_owned(), host.to_ascii_lowercase()];
    if let Some((name, _)) = bare {
        forms.push(name.to_owned());
        forms.push(name.to_ascii_lowercase());
    }
    forms.dedup();
    forms
}

/// Sorted pairs of encoded lower-case name and encoded value.
type Pairs = Vec<(String, String)>;

fn pair(name: &str, value: &[u8]) -> (String, String) {
    (encode(name.as_bytes()).to_ascii_lowercase(), encode(value))
}

fn listed_headers(headers: &HeaderMap, listed: &[String], host: &str) -> Result<Pairs, Refusal> {
    let mut pairs = Vec::new();
    for name in listed {
        let name = String::from_utf8(crate::emulator::encoding::decode_path(name)).map_err(|_| mismatch())?;
        if name == "host" {
            pairs.push(pair("host", host.as_bytes()));
            continue;
        }
        let absent = || Refusal::new(403, "SignatureDoesNotMatch", format!("the signed header {name} is absent"));
        let value = headers.get(&name).ok_or_else(absent)?;
        pairs.push(pair(&name, value.as_bytes()));
    }
    pairs.sort();
    Ok(pairs)
}

fn listed_params(call: &Call, listed: &[String]) -> Result<Pairs, Refusal> {
    let mut pairs = Vec::new();
    for wanted in listed {
        let sent = call.query.iter().map(|(name, value)| pair(name, value.as_bytes()));
        let absent = || Refusal::new(403, "SignatureDoesNotMatch", format!("the signed parameter {wanted} is absent"));
        pairs.push(sent.into_iter().find(|(name, _)| name == wanted).ok_or_else(absent)?);
    }
    pairs.sort();
    Ok(pairs)
}

fn http_string(method: &str, path: &[u8], params: &Pairs, headers: &Pairs) -> Vec<u8> {
    let join =
        |pairs: &Pairs| pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    let mut text = format!("{}\n", method.to_ascii_lowercase()).into_bytes();
    text.extend_from_slice(path);
    text.extend_from_slice(format!("\n{}\n{}\n", join(params), join(headers)).as_bytes());
    text
}

fn signature(sign_key: &str, sign_time: &str, http_string: &[u8]) -> String {
    let string_to_sign = format!("sha1\n{sign_time}\n{}\n", hex(&Sha1::digest(http_string)));
    hmac_hex(sign_key.as_bytes(), string_to_sign.as_bytes())
}

fn hmac_hex(key: &[u8], message: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("invariant: HMAC takes keys of any length");
    mac.update(message);
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const AK: &str = "AKIDEXAMPLEnotARealSecretId0000000000";

    fn vectors(text: &str) -> Vec<Value> {
        let file: Value = serde_json::from_str(text).unwrap();
        let vectors = file["vectors"].as_array().unwrap().clone();
        assert!(!vectors.is_empty());
        vectors
    }

    /// The request of a vector as it would arrive.
    fn arrive(input: &Value, authorization: &str) -> Call {
        let url = input["url"].as_str().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in input["headers"].as_object().unwrap() {
            let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            let value = hyper::header::HeaderValue::from_bytes(value.as_str().unwrap().as_bytes()).unwrap();
            headers.insert(name, value);
        }
        let target = url.split_once("://").unwrap().1;
        let (host, _) = target.split_once('/').unwrap();
        if !headers.contains_key("host") {
            headers.insert("host", host.parse().unwrap());
        }
        headers.insert("authorization", authorization.parse().unwrap());
        let mut path = target[host.len()..].to_owned();
        if !path.contains('?') {
            let mut lead = '?';
            for (name, value) in input["params"].as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                path.push_str(&format!("{lead}{}={}", encode(name.as_bytes()), encode(value.as_bytes())));
                lead = '&';
            }
        }
        let method = input["method"].as_str().unwrap().parse().unwrap();
        Call::parse(method, &path.parse().unwrap(), headers).unwrap()
    }

    #[test]
    fn the_sdk_s_signatures_are_accepted() {
        for vector in vectors(include_str!("../../../tests/vectors/cos_signature.json")) {
            let (input, expected) = (&vector["input"], &vector["expected"]);
            let call = arrive(input, expected["authorization"].as_str().unwrap());
            let pair = |name: &str| input[name].as_str().unwrap().to_owned();
            let credentials = [(pair("secret_id"), pair("secret_key"))];
            let now = input["now"].as_i64().unwrap();
            assert_eq!(verify(&call, &credentials, now), Ok(()), "{}", vector["name"]);
            let wrong = [(pair("secret_id"), "another".to_owned())];
            assert_eq!(verify(&call, &wrong, now).unwrap_err().code, "SignatureDoesNotMatch");
            assert_eq!(verify(&call, &[], now).unwrap_err().code, "InvalidAccessKeyId");
            assert_eq!(verify(&call, &credentials, now + 1_000_000).unwrap_err().code, "Request has expired");
            assert_eq!(verify(&call, &credentials, now - 100).unwrap_err().code, "Request has expired");
            assert_eq!(verify(&call, &credentials, now - 2000).unwrap_err().code, "RequestTimeTooSkewed");
        }
    }

    #[test]
    fn the_published_examples_agree() {
        for vector in vectors(include_str!("../../../tests/vectors/cos_official_examples.json")) {
            let text = |part: &str, name: &str| vector[part][name].as_str().unwrap().to_owned();
            let http_string = text("input", "http_string");
            assert_eq!(hex(&Sha1::digest(http_string.as_bytes())), text("expected", "http_string_sha1"));
            let got = signature(&text("input", "sign_key"), &text("input", "key_time"), http_string.as_bytes());
            assert_eq!(got, text("expected", "signature"));
        }
    }

    #[test]
    fn presigned_urls_are_accepted() {
        for vector in vectors(include_str!("../../../tests/vectors/cos_presigned.json")) {
            let input = &vector["input"];
            let url = vector["expected"]["url"].as_str().unwrap();
            let (host, path) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().unwrap());
            if let Some(md5) = input["Headers"]["Content-MD5"].as_str() {
                headers.insert("content-md5", md5.parse().unwrap());
            }
            let method = input["Method"].as_str().unwrap().parse().unwrap();
            let call = Call::parse(method, &format!("/{path}").parse().unwrap(), headers).unwrap();
            let credentials = [(AK.to_owned(), input["secret_key"].as_str().unwrap().to_owned())];
            assert_eq!(verify(&call, &credentials, 1_700_000_000), Ok(()), "{}", vector["name"]);
        }
    }

    #[test]
    fn what_is_signed_may_not_change() {
        let vector = vectors(include_str!("../../../tests/vectors/cos_signature.json"))
            .into_iter()
            .find(|vector| vector["name"] == "put_simple_md5")
            .unwrap();
        let authorization = vector["expected"]["authorization"].as_str().unwrap();
        let credentials = [(AK.to_owned(), vector["input"]["secret_key"].as_str().unwrap().to_owned())];
        let code = |change: fn(&mut Call)| {
            let mut call = arrive(&vector["input"], authorization);
            change(&mut call);
            verify(&call, &credentials, 1_700_000_000).map_err(|refusal| refusal.code)
        };
        let mismatch = Err("SignatureDoesNotMatch".to_owned());
        assert_eq!(code(|_| {}), Ok(()));
        assert_eq!(code(|call| call.host.push_str(":9000")), Ok(()), "the port need not be signed");
        assert_eq!(code(|call| call.method = hyper::Method::POST), mismatch);
        assert_eq!(code(|call| call.signed_paths[0].push(b'x')), mismatch);
        assert_eq!(code(|call| call.host = "other.x".to_owned()), mismatch);
        assert_eq!(code(|call| drop(call.headers.remove("content-md5"))), mismatch);
        assert_eq!(code(|call| drop(call.headers.insert("content-length", 10.into()))), mismatch);
        assert_eq!(code(|call| drop(call.headers.remove("authorization"))), Err("AccessDenied".to_owned()));
        let skewed =
            |call: &mut Call| drop(call.headers.insert("date", "Tue, 14 Nov 2023 22:33:20 GMT".parse().unwrap()));
        assert_eq!(code(skewed), Err("RequestTimeTooSkewed".to_owned()));
    }
}
