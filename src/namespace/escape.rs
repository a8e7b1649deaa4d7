//! Names for keys that have no path of their own (N2). Pure.
//!
//! A key is cut at its slashes into segments; a directory's entries are the segments below its prefix.
//! A segment is shown under itself wherever it can be. Where it cannot (empty, as in `a//b` and in the
//! content of an object `a/`; `.` and `..`; longer than 255 bytes; with a NUL; or an object whose name is
//! also a directory) it is shown as `ferryfs-key=` and the segment:
//!
//! 1. `%`, NUL are written `%25`, `%00`.
//! 2. What is too long is cut, and ends in `~` and 16 hex digits of the segment's SHA-256.
//! 3. If that name is another object's own, `ferryfs-key=` is put before it once more, until it is free.
//!
//! Names that are shown under themselves come first, so what a program calls its file is what it finds,
//! whatever it looks like. The inode's row keeps the segment (`InodeRow::segment`): whatever is done to
//! such a name is done to that very key.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

/// What a name that is not its key's begins with.
pub(crate) const ESCAPE: &str = "ferryfs-key=";
/// Longest name, bytes (NAME_MAX).
const NAME_MAX: usize = 255;
/// How often [`ESCAPE`] can stand before a name, and leave room for a hash.
const MOST: usize = 18;
/// Hex digits of a hash that tell long segments of one directory apart.
const HASH_DIGITS: usize = 16;

/// The segment can be a name as it is.
pub(crate) fn is_plain(segment: &str) -> bool {
    !segment.is_empty()
        && segment != "."
        && segment != ".."
        && segment.len() <= NAME_MAX
        && !segment.contains(['\0', '/'])
}

/// The names that a segment can be shown under when its own will not do, best first.
pub(crate) fn candidates(segment: &str) -> impl Iterator<Item = String> {
    let text = segment.replace('%', "%25").replace('\0', "%00");
    let hash: String = Sha256::digest(segment.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    (1..=MOST).map(move |times| {
        let begin = ESCAPE.repeat(times);
        let room = NAME_MAX - begin.len();
        if text.len() <= room {
            return begin + &text;
        }
        let mut end = room - HASH_DIGITS - 1;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        format!("{begin}{}~{}", text.get(..end).unwrap_or_default(), hash.get(..HASH_DIGITS).unwrap_or_default())
    })
}

/// The first candidate that nothing else is called.
pub(crate) fn free_name(segment: &str, is_taken: impl Fn(&str) -> bool) -> Option<String> {
    candidates(segment).find(|name| !is_taken(name))
}

/// Whether the name is one of the segment's that are not itself.
pub(crate) fn shows(name: &str, segment: &str) -> bool {
    name.starts_with(ESCAPE) && candidates(segment).any(|candidate| candidate == name)
}

/// The segment of an object's key: what follows its last slash.
pub(crate) fn segment_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// Why a key below a prefix has no plain path, if a look at it alone tells.
pub(crate) fn reasons(path: &str, size: u64) -> BTreeSet<&'static str> {
    let mut why = BTreeSet::new();
    let (dirs, last) = path.rsplit_once('/').map_or((None, path), |(dirs, last)| (Some(dirs), last));
    let segments = dirs.into_iter().flat_map(|dirs| dirs.split('/')).chain(Some(last).filter(|last| !last.is_empty()));
    for segment in segments {
        why.extend(match segment {
            "" => Some("empty segment"),
            "." | ".." => Some("dot segment"),
            long if long.len() > NAME_MAX => Some("segment longer than 255 bytes"),
            odd if odd.contains('\0') => Some("NUL character"),
            lost if lost.contains('\u{fffd}') => Some("perhaps not UTF-8: if so, it cannot be opened"),
            _ => None,
        });
    }
    if last.is_empty() && size > 0 {
        why.insert("content under a directory's key");
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Name to (segment, directory) of all entries of a directory, as a listing gives them.
    fn shown(files: &BTreeSet<String>, dirs: &BTreeSet<String>) -> BTreeMap<String, (String, bool)> {
        let mut names = BTreeMap::new();
        let mut odd = Vec::new();
        for (segment, is_dir) in dirs.iter().map(|s| (s, true)).chain(files.iter().map(|s| (s, false))) {
            if is_plain(segment) && !names.contains_key(segment) {
                names.insert(segment.clone(), (segment.clone(), is_dir));
            } else {
                odd.push((segment.clone(), is_dir));
            }
        }
        for (segment, is_dir) in odd {
            let name = free_name(&segment, |name| names.contains_key(name)).unwrap();
            names.insert(name, (segment, is_dir));
        }
        names
    }

    #[test]
    fn odd_segments_have_readable_names() {
        let first = |segment: &str| candidates(segment).next().unwrap();
        assert_eq!(first(""), "ferryfs-key=");
        assert_eq!(first(".."), "ferryfs-key=..");
        assert_eq!(first("a"), "ferryfs-key=a");
        assert_eq!(first("a\0%"), "ferryfs-key=a%00%25");
        let long = first(&"\u{4e2d}".repeat(200));
        assert!(long.len() <= 255 && long.starts_with("ferryfs-key=\u{4e2d}") && long.contains('~'), "{long}");
        assert_ne!(long, first(&"\u{4e2d}".repeat(201)));
        assert_eq!(candidates("a").nth(1).unwrap(), "ferryfs-key=ferryfs-key=a");
    }

    #[test]
    fn what_has_no_path_is_told_with_its_reason() {
        for (path, size, why) in [
            ("a/b", 1, None),
            ("a/", 0, None),
            ("a/", 1, Some("content under a directory's key")),
            ("a//b", 1, Some("empty segment")),
            ("/a", 1, Some("empty segment")),
            ("a//", 0, Some("empty segment")),
            ("a/../b", 1, Some("dot segment")),
            ("./", 0, Some("dot segment")),
            ("a/\0", 1, Some("NUL character")),
        ] {
            assert_eq!(reasons(path, size).into_iter().next(), why, "{path:?}");
        }
        assert_eq!(reasons(&"x".repeat(256), 1).len(), 1);
        assert!(reasons(&"x".repeat(255), 1).is_empty());
    }

    fn segment() -> impl Strategy<Value = String> {
        let begin = prop_oneof![Just(""), Just("ferryfs-key="), Just("ferryfs-key=ferryfs-key=")];
        let end = prop_oneof![
            "[ab.%\0]{0,3}",
            "(ferryfs-key=)?[a.]{0,2}",
            "\\PC{0,4}",
            proptest::string::string_regex("[a\u{4e2d}]{250,300}").unwrap(),
        ];
        (begin, end).prop_map(|(begin, end)| format!("{begin}{end}").replace('/', "_"))
    }

    proptest! {
        #[test]
        fn every_key_has_one_name_and_every_name_one_key(
            files in proptest::collection::btree_set(segment(), 0..12),
            dirs in proptest::collection::btree_set(segment(), 0..12),
        ) {
            let names = shown(&files, &dirs);
            prop_assert_eq!(names.len(), files.len() + dirs.len());
            for (name, (segment, is_dir)) in &names {
                // Key -> name: a name that every filesystem takes, and whose segment the row tells.
                prop_assert!(is_plain(name), "{name:?}");
                prop_assert!(name == segment || shows(name, segment));
                let list = if *is_dir { &dirs } else { &files };
                prop_assert!(list.contains(segment));
                // A name that a program could have chosen is its own key's, unless a directory has it.
                if is_plain(segment) && name != segment {
                    prop_assert!(!is_dir && dirs.contains(segment), "{segment:?} is shown as {name:?}");
                }
            }
            for segment in dirs.iter().chain(&files).filter(|segment| is_plain(segment)) {
                prop_assert_eq!(&names[segment].0, segment);
            }
        }
    }
}
