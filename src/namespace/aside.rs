//! Names for what must stand aside.

use jiff::Timestamp;

use crate::store::ObjectMeta;
use crate::types::TimeNs;

/// Longest name, bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// `name.conflict-<its time>-<its ETag>`, cut to what a name may be.
pub(super) fn conflict_name(name: &str, meta: &ObjectMeta) -> String {
    conflict_name_of(name, meta.last_modified, &meta.etag.0)
}

/// As [`conflict_name`], of what is known of a version.
pub(super) fn conflict_name_of(name: &str, modified: Option<TimeNs>, etag: &str) -> String {
    let time = modified.and_then(|time| Timestamp::from_second(time.sec()).ok());
    let time = time.map_or_else(|| "unknown".to_owned(), |time| time.strftime("%Y%m%dT%H%M%SZ").to_string());
    let etag: String = etag.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    let suffix = format!(".conflict-{time}-{etag}");
    let mut end = name.len().min(NAME_MAX - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", name.get(..end).unwrap_or_default())
}
