//! Names for what must stand aside.

use jiff::Timestamp;

use crate::types::{ETag, TimeNs};

/// Longest name, bytes (NAME_MAX).
const NAME_MAX: usize = 255;
/// Names that are tried for one version before it is given up: all but the first are taken by files
/// that happen to be called so.
pub(super) const NAMES: u32 = 9;

/// `name.conflict-<its time>-<its ETag>`, cut to what a name may be: a repeat gives the same name.
pub(super) fn conflict_name(name: &str, modified: Option<TimeNs>, etag: &ETag) -> String {
    numbered_name(name, modified, etag, 1)
}

/// The same with a number, but for the first.
pub(super) fn numbered_name(name: &str, modified: Option<TimeNs>, etag: &ETag, number: u32) -> String {
    let time = modified.and_then(|time| Timestamp::from_second(time.sec()).ok());
    let time = time.map_or_else(|| "unknown".to_owned(), |time| time.strftime("%Y%m%dT%H%M%SZ").to_string());
    let etag: String = etag.0.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    let number = if number == 1 { String::new() } else { format!("-{number}") };
    let suffix = format!(".conflict-{time}-{etag}{number}");
    let mut end = name.len().min(NAME_MAX - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", name.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_time_and_version_and_fit() {
        let (time, etag) = (TimeNs::new(1_700_000_000, 5), ETag("0123456789abcdef0123".to_owned()));
        let name = conflict_name("report", Some(time), &etag);
        assert_eq!(name, "report.conflict-20231114T221320Z-0123456789abcdef");
        assert_eq!(numbered_name("report", Some(time), &etag, 2), format!("{name}-2"));
        let long = "ü".repeat(127);
        for number in [1, NAMES] {
            let name = numbered_name(&long, Some(time), &etag, number);
            assert!(name.len() <= NAME_MAX && name.starts_with('ü'), "{name}");
        }
        assert_eq!(conflict_name("a", None, &ETag(String::new())), "a.conflict-unknown-");
    }
}
