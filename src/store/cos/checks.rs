//! What COS would refuse, refused before it is sent. Pure.

use crate::types::Key;

/// Longest key, bytes of UTF-8 (PROTOCOL section 5).
pub(super) const MAX_KEY_BYTES: usize = 850;

/// Whether a key may be sent.
///
/// # Errors
/// Why not.
pub(super) fn key(key: &Key) -> Result<(), String> {
    let text = key.as_str();
    if text.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if text.len() > MAX_KEY_BYTES {
        return Err(format!("the key has {} bytes, more than the {MAX_KEY_BYTES} allowed", text.len()));
    }
    if let Some(bad) = text.bytes().find(|b| (0x18..=0x1b).contains(b)) {
        return Err(format!("the key holds the control character 0x{bad:02X}, which COS does not allow"));
    }
    if is_root(text) {
        return Err("the key stands for the bucket itself once its dots are taken for directories".to_owned());
    }
    Ok(())
}

/// Whether a server that normalises dot segments would take `/key` for `/`: a GET would list the
/// bucket and a DELETE aim at it (the vendor's SDK refuses these keys too).
fn is_root(key: &str) -> bool {
    let mut depth = 0usize;
    for segment in key.split('/') {
        match segment {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    depth == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_be() {
        for bad in ["", ".", "..", "/", "a/..", "a/b/../..", "./.", "x\u{18}y", "x\u{1b}"] {
            assert!(key(&Key::from(bad)).is_err(), "{bad:?}");
        }
        assert!(key(&Key("x".repeat(851))).unwrap_err().contains("851"));
        assert!(key(&Key("\u{4e2d}".repeat(284))).is_err());
    }

    #[test]
    fn keys_that_can() {
        for good in ["a", "a/", "/a", "a/../b", "..a", "a b", "\u{4e2d}\n\u{1}", "a//b"] {
            assert!(key(&Key::from(good)).is_ok(), "{good:?}");
        }
        assert!(key(&Key("x".repeat(850))).is_ok());
    }
}
