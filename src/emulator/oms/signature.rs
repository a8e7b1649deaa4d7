//! Verifies SDK-HMAC-SHA256 signatures. Written from the protocol's description, apart from the
//! client's signer.

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha2::Digest;
use sha2::Sha256;

use crate::emulator::encoding::decode_path;
use crate::emulator::encoding::encode;
use crate::emulator::encoding::hex;
use crate::emulator::encoding::parse_sdk_date;
use crate::emulator::reply::Refusal;
use crate::emulator::wire::Call;

/// How far clocks may differ, seconds (PROTOCOL 11).
const MOST_SKEW_S: u64 = 15 * 60;

/// Accepts the request or says why not.
pub(super) fn verify(
    call: &Call,
    body: &[u8],
    credentials: Option<&(String, String)>,
    now_s: i64,
) -> Result<(), Refusal> {
    let wrong = |why: &str| Refusal::new(401, "APIGW.0301", format!("Incorrect IAM authentication information: {why}"));
    let authorization = call.header("authorization").ok_or_else(|| wrong("no Authorization header"))?;
    let fields = authorization.strip_prefix("SDK-HMAC-SHA256 ").ok_or_else(|| wrong("not SDK-HMAC-SHA256"))?;
    let field = |name: &str| {
        let mut pairs = fields.split(',').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value).ok_or_else(|| wrong(&format!("no {name}")))
    };
    let (access, signed, signature) = (field("Access")?, field("SignedHeaders")?, field("Signature")?);
    let date = call.header("x-sdk-date").ok_or_else(|| wrong("no x-sdk-date"))?;
    let time = parse_sdk_date(date).ok_or_else(|| wrong("x-sdk-date cannot be read"))?;
    if time.abs_diff(now_s) > MOST_SKEW_S {
        let message = "Incorrect IAM authentication information: x-sdk-date expired";
        return Err(Refusal::new(401, "APIGW.0303", message));
    }
    let signed: Vec<&str> = signed.split(';').collect();
    if !signed.contains(&"x-sdk-date") {
        return Err(wrong("x-sdk-date is not signed"));
    }
    let (_, secret) = credentials.filter(|(id, _)| id == access).ok_or_else(|| wrong("unknown access key"))?;
    let request = canonical_request(call, &signed, body).map_err(|why| wrong(&why))?;
    let text = format!("SDK-HMAC-SHA256\n{date}\n{}", hex(&Sha256::digest(request)));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("invariant: HMAC takes keys of any length");
    mac.update(text.as_bytes());
    if hex(&mac.finalize().into_bytes()) != signature {
        return Err(wrong("verify aksk signature fail"));
    }
    Ok(())
}

fn canonical_request(call: &Call, signed: &[&str], body: &[u8]) -> Result<Vec<u8>, String> {
    let mut out =
        format!("{}\n{}\n{}\n", call.method, canonical_path(&call.raw_path), canonical_query(call)).into_bytes();
    for name in signed {
        let value = match *name {
            "host" => call.host.as_bytes(),
            name => call.headers.get(name).ok_or_else(|| format!("the signed header {name} is absent"))?.as_bytes(),
        };
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend_from_slice(value.trim_ascii());
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed.join(";").as_bytes());
    out.push(b'\n');
    match call.headers.get("x-sdk-content-sha256") {
        // The SDK takes the hash of an empty body whatever is told.
        Some(told) if !body.is_empty() => out.extend_from_slice(told.as_bytes()),
        _ => out.extend_from_slice(hex(&Sha256::digest(body)).as_bytes()),
    }
    Ok(out)
}

/// Decoded, split, encoded again, with a slash at the end.
fn canonical_path(raw: &str) -> String {
    let decoded = decode_path(raw);
    let mut path = decoded.split(|byte| *byte == b'/').map(encode).collect::<Vec<_>>().join("/");
    if !path.ends_with('/') {
        path.push('/');
    }
    path
}

fn canonical_query(call: &Call) -> String {
    let mut pairs: Vec<_> = call.query.clone();
    pairs.sort();
    let encoded = pairs.iter().map(|(name, value)| format!("{}={}", encode(name.as_bytes()), encode(value.as_bytes())));
    encoded.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;
    use serde_json::Value;

    /// The request of a vector as it would arrive; `None` for what HTTP cannot carry that way.
    fn arrive(input: &Value, authorization: &str) -> Option<Call> {
        let url = input["url"].as_str().unwrap();
        let target = url.split_once("://").unwrap().1;
        let at = target.find(['/', '?']).unwrap_or(target.len());
        let (host, path) = target.split_at(at);
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        headers.insert("x-sdk-date", input["x_sdk_date"].as_str().unwrap().parse().unwrap());
        for (name, value) in input["headers"].as_object().unwrap() {
            let name: hyper::header::HeaderName = name.parse().unwrap();
            headers.insert(name, hyper::header::HeaderValue::from_bytes(value.as_str().unwrap().as_bytes()).unwrap());
        }
        // The SDK's signer adds this to what it was given.
        if authorization.contains("x-sdk-content-sha256") && !headers.contains_key("x-sdk-content-sha256") {
            headers.insert("x-sdk-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
        }
        headers.insert("authorization", authorization.parse().unwrap());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let method = input["method"].as_str().unwrap().parse().unwrap();
        Call::parse(method, &path.parse().ok()?, headers).ok()
    }

    #[test]
    fn the_sdk_s_signatures_are_accepted() {
        let file: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/huawei_sdk_hmac_sha256.json")).unwrap();
        let mut seen = 0;
        for vector in file["vectors"].as_array().unwrap() {
            let input = &vector["input"];
            let authorization = vector["expected"]["authorization"].as_str().unwrap();
            let Some(call) = arrive(input, authorization) else { continue };
            seen += 1;
            let body = input["body"].as_str().unwrap_or_default().as_bytes();
            let text = |name: &str| input[name].as_str().unwrap().to_owned();
            let credentials = (text("ak"), text("sk"));
            let now = parse_sdk_date(&text("x_sdk_date")).unwrap();
            let check = |body: &[u8], credentials: &(String, String), now| {
                verify(&call, body, Some(credentials), now).map_err(|refusal| refusal.code)
            };
            assert_eq!(check(body, &credentials, now), Ok(()), "{}", vector["name"]);
            let wrong_key = (text("ak"), "another".to_owned());
            assert_eq!(check(body, &wrong_key, now), Err("APIGW.0301".to_owned()));
            let wrong_id = ("another".to_owned(), text("sk"));
            assert_eq!(check(body, &wrong_id, now), Err("APIGW.0301".to_owned()));
            assert_eq!(check(body, &credentials, now + 901), Err("APIGW.0303".to_owned()));
            assert_eq!(check(body, &credentials, now - 901), Err("APIGW.0303".to_owned()));
            if !call.headers.contains_key("x-sdk-content-sha256") {
                assert_eq!(check(b"other", &credentials, now), Err("APIGW.0301".to_owned()));
            }
        }
        assert!(seen >= 10, "only {seen} vectors could be sent");
    }
}
