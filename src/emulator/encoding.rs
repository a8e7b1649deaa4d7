//! Percent encoding, hex and times as the protocols write them. Pure.

use jiff::Timestamp;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::percent_encode;

/// Everything but `A-Z a-z 0-9 - _ . ~` (COS signatures and listings, SDK-HMAC-SHA256).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Everything but the above and `/`: how `encoding-type=url` writes keys.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Encodes all but the unreserved characters.
pub(super) fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

/// Encodes all but the unreserved characters and the slash.
pub(super) fn encode_key(key: &str) -> String {
    percent_encode(key.as_bytes(), RESERVED_IN_PATH).to_string()
}

/// Decodes `%XX` and leaves `+` alone (paths, header values).
pub(super) fn decode_path(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

/// Decodes `%XX`, and `+` as a space (queries, OMS keys). `None` if a `%` is not followed by two
/// hex digits or the outcome is not UTF-8.
pub(super) fn decode_form(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("invariant: writing to a string does not fail");
    }
    text
}

fn timestamp(time_ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(time_ns)).expect("invariant: every i64 of nanoseconds is a time jiff knows")
}

/// RFC 1123, as headers want it.
pub(super) fn http_date(time_ns: i64) -> String {
    timestamp(time_ns).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// ISO 8601 with `.000Z`, as COS lists it: whole seconds.
pub(super) fn iso_date(time_ns: i64) -> String {
    timestamp(time_ns).strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// Seconds since the epoch of an RFC 1123 date; `None` if it is none.
pub(super) fn parse_http_date(text: &str) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim());
    parsed.ok().map(|time| time.as_second())
}

/// Seconds since the epoch of `YYYYMMDDTHHMMSSZ`; `None` if it is not of that form.
pub(super) fn parse_sdk_date(text: &str) -> Option<i64> {
    let parsed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    Some(parsed.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip() {
        let time_ns = 1_700_000_000_123_456_789;
        assert_eq!(http_date(time_ns), "Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(parse_http_date("Tue, 14 Nov 2023 22:13:20 GMT"), Some(1_700_000_000));
        assert_eq!(iso_date(time_ns), "2023-11-14T22:13:20.000Z");
        assert_eq!(parse_sdk_date("20231114T221320Z"), Some(1_700_000_000));
        assert_eq!(parse_sdk_date("2023-11-14T22:13:20Z"), None);
        assert_eq!(parse_http_date("yesterday"), None);
    }

    #[test]
    fn plus_is_a_space_in_forms_only() {
        assert_eq!(decode_form("a+b%2B%20c").as_deref(), Some("a b+ c"));
        assert_eq!(decode_path("a+b%2B"), b"a+b+");
        assert_eq!(decode_form("50%"), None);
        assert_eq!(decode_form("%zz"), None);
        assert_eq!(decode_form("%ff"), None, "not UTF-8");
    }

    #[test]
    fn encoding_keeps_the_unreserved_only() {
        assert_eq!(encode("a b/c*(~)".as_bytes()), "a%20b%2Fc%2A%28~%29");
        assert_eq!(encode_key("a b/c+%"), "a%20b/c%2B%25");
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }
}
