//! The body of an event request and the text of its errors.

use serde::Deserialize;

use crate::http::encode;
use crate::types::Key;

/// The body that announces keys. Encoded, nothing but unreserved characters is left of a key
/// (PROTOCOL section 11: `/` is `%2F`, and a raw `+` would be read as a space).
pub(super) fn event_body(keys: &[Key], encode_keys: bool) -> Vec<u8> {
    let keys: Vec<String> =
        keys.iter().map(|key| if encode_keys { encode(key.as_str()) } else { key.as_str().to_owned() }).collect();
    serde_json::json!({ "object_keys": keys }).to_string().into_bytes()
}

/// What an error body says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) request_id: Option<String>,
}

/// The three spellings that the vendor's SDK accepts.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(alias = "errorCode", alias = "code")]
    error_code: Option<String>,
    #[serde(alias = "errorMsg", alias = "message")]
    error_msg: Option<String>,
    request_id: Option<String>,
}

/// Longest message kept of an error body, characters: it is journaled with each announcement that
/// failed and shown in one line.
const MESSAGE_CHARS: usize = 300;

impl ErrorBody {
    /// Reads an error body, also one level down; a body that is no JSON is kept as the message,
    /// because a proxy's error page is often the only hint there is.
    pub(super) fn parse(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
            let text = String::from_utf8_lossy(body);
            return ErrorBody { message: shorten(&text), ..ErrorBody::default() };
        };
        let candidates = std::iter::once(&value).chain(value.as_object().into_iter().flat_map(|map| map.values()));
        for candidate in candidates.filter(|candidate| candidate.is_object()) {
            // A field of an unexpected type makes this level unreadable, not the error unknown.
            let wire: Wire = serde_json::from_value(candidate.clone()).unwrap_or_default();
            if wire.error_code.is_some() || wire.error_msg.is_some() {
                return ErrorBody {
                    code: wire.error_code.as_deref().and_then(shorten),
                    message: wire.error_msg.as_deref().and_then(shorten),
                    request_id: wire.request_id.as_deref().and_then(shorten),
                };
            }
        }
        ErrorBody::default()
    }
}

/// One line, bounded; `None` if nothing is left.
fn shorten(text: &str) -> Option<String> {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS).collect();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_with_the_unreserved_set_only() {
        let keys = [Key::from("test/001.txt"), Key::from("a+b%c d~*(\u{4e2d}")];
        assert_eq!(
            String::from_utf8(event_body(&keys, true)).unwrap(),
            r#"{"object_keys":["test%2F001.txt","a%2Bb%25c%20d~%2A%28%E4%B8%AD"]}"#
        );
        assert_eq!(
            String::from_utf8(event_body(&keys, false)).unwrap(),
            "{\"object_keys\":[\"test/001.txt\",\"a+b%c d~*(\u{4e2d}\"]}"
        );
    }

    #[test]
    fn error_bodies_are_read_in_every_known_spelling() {
        let parse = |text: &str| ErrorBody::parse(text.as_bytes());
        let expected = ErrorBody { code: Some("OMS.0001".into()), message: Some("no".into()), request_id: None };
        assert_eq!(parse(r#"{"error_code":"OMS.0001","error_msg":"no"}"#), expected);
        assert_eq!(parse(r#"{"errorCode":"OMS.0001","errorMsg":"no"}"#), expected);
        assert_eq!(parse(r#"{"code":"OMS.0001","message":"no"}"#), expected);
        assert_eq!(parse(r#"{"error":{"code":"OMS.0001","message":"no"}}"#), expected);
        let gateway = parse(r#"{"error_msg":"m","error_code":"APIGW.0301","request_id":"r1"}"#);
        assert_eq!(gateway.request_id.as_deref(), Some("r1"));
        assert_eq!(parse(""), ErrorBody::default());
        assert_eq!(parse("{}"), ErrorBody::default());
        assert_eq!(parse("<html>\n bad  gateway</html>").message.as_deref(), Some("<html> bad gateway</html>"));
        assert_eq!(parse(&"x".repeat(5000)).message.unwrap().len(), MESSAGE_CHARS);
    }
}
