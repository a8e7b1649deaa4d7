//! Percent-encoding (PROTOCOL sections 1, 2 and 11).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// Everything but `A-Z a-z 0-9 - _ . ~`: RFC 3986's unreserved characters, the only ones that all
/// signature schemes leave alone.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// As [`COMPONENT`], with `/` left as the separator it is.
const PATH: &AsciiSet = &COMPONENT.remove(b'/');

/// Encodes a name or value: every byte but the unreserved ones, upper-case hex, space as `%20`.
pub fn encode(text: &str) -> String {
    percent_encode(text.as_bytes(), COMPONENT).to_string()
}

/// Encodes a path: as [`encode`], but `/` stays.
pub fn encode_path(text: &str) -> String {
    percent_encode(text.as_bytes(), PATH).to_string()
}

/// Decodes `%XX`; `+` stays `+` and a `%` that begins no escape stays as it is.
pub fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// As [`decode`], with `+` meaning a space, which some clients write in query strings.
pub fn decode_form(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_bytes_stay() {
        assert_eq!(encode("a b+c%d*(e)/f~g"), "a%20b%2Bc%25d%2A%28e%29%2Ff~g");
        assert_eq!(encode("\u{4e2d}.txt"), "%E4%B8%AD.txt");
        assert_eq!(encode_path("/a b/../c"), "/a%20b/../c");
    }

    #[test]
    fn decoding_inverts_encoding() {
        let text: String = (0u32..0x250).filter_map(char::from_u32).collect();
        assert_eq!(decode(&encode(&text)), text.as_bytes());
        assert_eq!(decode_form(&encode(&text)), text.as_bytes());
        assert_eq!(decode("a+b%2B%zz%"), b"a+b+%zz%");
        assert_eq!(decode_form("a+b%2B"), b"a b+");
    }
}
