//! The signature of COS requests, `q-sign-algorithm=sha1` (PROTOCOL section 2). Pure.

use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};

use crate::checksum::hex;
use crate::http::encode;

/// The headers that are signed when present, besides `x-cos-*` and `x-ci-*`: the vendor's list.
const SIGNED: [&str; 17] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-length",
    "content-md5",
    "content-type",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "origin",
    "pic-operations",
    "range",
    "transfer-encoding",
];

/// What a signature covers.
pub(super) struct Signed<'a> {
    /// Method, any case.
    pub(super) method: &'a str,
    /// Path, decoded, beginning with `/`.
    pub(super) path: &'a str,
    /// Query parameters, decoded, in any order.
    pub(super) query: &'a [(&'a str, String)],
    /// Headers as sent, in any order; those that are not to be signed are left out here.
    pub(super) headers: &'a [(String, String)],
    /// `start;end` in seconds since the epoch.
    pub(super) key_time: &'a str,
}

/// The two texts that a signature is made of, and the lists that say what they hold.
pub(super) struct Canonical {
    pub(super) http_string: String,
    pub(super) header_list: String,
    pub(super) param_list: String,
}

impl Signed<'_> {
    /// Writes what is signed in the one form that both sides agree on.
    pub(super) fn canonical(&self) -> Canonical {
        let headers =
            self.headers.iter().filter(|(name, _)| is_signed(name)).map(|(name, value)| (name.as_str(), value));
        let (header_list, headers) = pairs(headers);
        let (param_list, params) = pairs(self.query.iter().map(|(name, value)| (*name, value)));
        let http_string = format!("{}\n{}\n{params}\n{headers}\n", self.method.to_lowercase(), self.path);
        Canonical { http_string, header_list, param_list }
    }

    /// The value of the Authorization header.
    pub(super) fn authorization(&self, secret_id: &str, secret_key: &str) -> String {
        let canonical = self.canonical();
        let key_time = self.key_time;
        let signature = signature(&sign_key(secret_key, key_time), key_time, &canonical.http_string);
        format!(
            "q-sign-algorithm=sha1&q-ak={secret_id}&q-sign-time={key_time}&q-key-time={key_time}\
             &q-header-list={}&q-url-param-list={}&q-signature={signature}",
            canonical.header_list, canonical.param_list
        )
    }
}

/// Whether a header is signed when present.
pub(super) fn is_signed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SIGNED.contains(&name.as_str()) || name.starts_with("x-cos-") || name.starts_with("x-ci-")
}

/// The key that signs during `key_time`: lower-case hex text, itself the next HMAC's key.
pub(super) fn sign_key(secret_key: &str, key_time: &str) -> String {
    hmac_hex(secret_key.as_bytes(), key_time.as_bytes())
}

/// What is signed of a request.
pub(super) fn string_to_sign(key_time: &str, http_string: &str) -> String {
    format!("sha1\n{key_time}\n{}\n", hex(&Sha1::digest(http_string.as_bytes())))
}

/// The signature.
pub(super) fn signature(sign_key: &str, key_time: &str, http_string: &str) -> String {
    hmac_hex(sign_key.as_bytes(), string_to_sign(key_time, http_string).as_bytes())
}

fn hmac_hex(key: &[u8], message: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("invariant: HMAC takes keys of any length");
    mac.update(message);
    hex(&mac.finalize().into_bytes())
}

/// `name;name` and `name=value&name=value`, names lower-case, sorted by encoded name.
fn pairs<'a>(list: impl Iterator<Item = (&'a str, &'a String)>) -> (String, String) {
    let mut encoded: Vec<(String, String)> =
        list.map(|(name, value)| (encode(name).to_lowercase(), encode(value))).collect();
    encoded.sort();
    let names: Vec<&str> = encoded.iter().map(|(name, _)| name.as_str()).collect();
    let texts: Vec<String> = encoded.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (names.join(";"), texts.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn text(value: &Value) -> String {
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    fn query(params: &Value) -> Vec<(&str, String)> {
        params.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), text(value))).collect()
    }

    fn headers(input: &Value) -> Vec<(String, String)> {
        let mut list: Vec<(String, String)> =
            input["headers"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect();
        if !list.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            list.push(("host".to_owned(), text(&input["host"])));
        }
        list
    }

    #[test]
    fn every_vector_of_the_vendors_sdk() {
        let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/cos_signature.json")).unwrap();
        let list = file["vectors"].as_array().unwrap();
        assert_eq!(list.len(), 38);
        for vector in list {
            let (name, input, expected) = (text(&vector["name"]), &vector["input"], &vector["expected"]);
            let key = input["key"].as_str().unwrap_or("");
            let path = format!("/{}", key.strip_prefix('/').unwrap_or(key));
            let mut headers = headers(input);
            if input["sign_host"] == false {
                headers.retain(|(name, _)| name != "host");
            }
            let unsigned = ["params_not_signed", "get_service_unsigned_params"].contains(&name.as_str());
            let query = if unsigned { Vec::new() } else { query(&input["params_signed"]) };
            let key_time = text(&input["key_time"]);
            let method = text(&input["method"]);
            let signed = Signed { method: &method, path: &path, query: &query, headers: &headers, key_time: &key_time };
            let http_string = signed.canonical().http_string;
            assert_eq!(http_string, text(&expected["http_string"]), "{name}");
            assert_eq!(string_to_sign(&key_time, &http_string), text(&expected["string_to_sign"]), "{name}");
            let secret_key = text(&input["secret_key"]);
            assert_eq!(sign_key(&secret_key, &key_time), text(&expected["sign_key"]), "{name}");
            let authorization = signed.authorization(&text(&input["secret_id"]), &secret_key);
            assert_eq!(authorization, text(&expected["authorization"]), "{name}");
        }
    }

    #[test]
    fn presigned_vectors_carry_the_same_seven_fields() {
        let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/cos_presigned.json")).unwrap();
        for vector in file["vectors"].as_array().unwrap() {
            let (input, expected) = (&vector["input"], text(&vector["expected"]["url"]));
            let host = format!("{}.cos.{}.myqcloud.com", text(&input["bucket"]), text(&input["region"]));
            let now = input["now"].as_i64().unwrap();
            let key_time = format!("{};{}", now - 60, now + input["Expired"].as_i64().unwrap());
            let path = format!("/{}", text(&input["Key"]));
            let no_params = Value::Object(serde_json::Map::new());
            let query = query(input.get("Params").unwrap_or(&no_params));
            let mut headers = vec![("host".to_owned(), host.clone())];
            for (name, value) in input.get("Headers").and_then(Value::as_object).into_iter().flatten() {
                headers.push((name.clone(), text(value)));
            }
            let method = text(&input["Method"]);
            let authorization =
                Signed { method: &method, path: &path, query: &query, headers: &headers, key_time: &key_time }
                    .authorization(&text(&input["secret_id"]), &text(&input["secret_key"]));
            let fields: Vec<String> = authorization
                .split('&')
                .map(|field| field.split_once('=').unwrap())
                .map(|(name, value)| format!("{name}={}", encode(value)))
                .collect();
            let params: String = query.iter().map(|(name, value)| format!("&{name}={}", encode(value))).collect();
            let url = format!("https://{host}{}?{}{params}", crate::http::encode_path(&path), fields.join("&"));
            assert_eq!(url, expected, "{}", vector["name"]);
        }
    }

    #[test]
    fn the_two_published_examples() {
        let file: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/cos_official_examples.json")).unwrap();
        let list = file["vectors"].as_array().unwrap();
        assert_eq!(list.len(), 2);
        for vector in list {
            let (input, expected) = (&vector["input"], &vector["expected"]);
            let (key_time, http_string) = (text(&input["key_time"]), text(&input["http_string"]));
            assert_eq!(string_to_sign(&key_time, &http_string), text(&expected["string_to_sign"]));
            let signature = signature(&text(&input["sign_key"]), &key_time, &http_string);
            assert_eq!(signature, text(&expected["signature"]));
        }
    }
}
