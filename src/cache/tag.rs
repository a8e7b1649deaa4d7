//! Tags (J5): what a backing file tells of itself, should the journal be lost.
//!
//! A tag is written where the file's row is written anyway: when the file is made, when its last writer
//! has closed it, when the bucket has it. Between those moments it may be behind: a file that was written
//! to since does not look as its tag says, and counts as open.
//! IMPORTANT: setting a tag moves the file's ctime. Of a file with a mark it comes before the mark (C3),
//! and a mark that counts after a power cut stays as it is.

use std::fs::File;
use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::types::{Attrs, Crc64, ETag, Ino};

/// The extended attribute.
const NAME: &str = "user.ferryfs";

/// What a backing file tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// `provider://bucket/prefix` of its mapping.
    pub mapping: String,
    /// The key that its content was for.
    pub key: String,
    /// Its inode; 0: it had none yet.
    pub ino: Ino,
    /// Generation of its content.
    pub generation: u64,
    /// Permission bits and owners of its inode.
    pub attrs: Attrs,
    /// The version that the bucket had under it, if any.
    pub base: Option<ETag>,
    /// What the content is.
    pub state: TagState,
}

/// What the content of a tagged file is, if the file still looks as it did then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagState {
    /// Nobody knows; under this boot id, empty if not even that is known.
    Open(String),
    /// Its last writer closed it, under this boot id.
    Closed(String),
    /// An object of this ETag.
    Clean(ETag, Option<Crc64>),
    /// Its file alone is not its content (C7); under this boot id. How the file looks tells nothing.
    Partly(String, Partly),
}

/// What a file holds of its content while the rest is in the bucket only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partly {
    /// The version that the rest belongs to.
    pub base: ETag,
    /// Bytes of that version.
    pub size: u64,
    /// Bytes of that version from here on do not belong to the file.
    pub end: u64,
    /// What programs wrote and were told is safe; `None`: too much for a tag.
    pub written: Option<Vec<Range<u64>>>,
}

/// Ranges that a tag may list: about 3 KiB, of the 4 KiB that ext4 has for all attributes of a file.
pub const PARTLY_RANGES: usize = 120;

/// A tag, and how the file looked when it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The tag.
    pub tag: Tag,
    /// Inode number, bytes and modification time of the file then.
    pub looked: (u64, u64, i64),
}

/// As it is stored. Fields are only ever added; an unknown one is of a newer ferryfs.
#[derive(Serialize, Deserialize)]
struct Stored {
    mapping: String,
    key: String,
    #[serde(default)]
    ino: u64,
    #[serde(default)]
    generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attrs: Option<(u32, u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc64: Option<u64>,
    /// ETag, bytes and end of the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partly: Option<(String, u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Vec<(u64, u64)>>,
    #[serde(default)]
    looked: (u64, u64, i64),
}

/// What a file of an older ferryfs, whose tag has no attributes, gets.
const PLAIN: (u32, u32, u32) = (0o600, 0, 0);

/// Tags a file as it looks now. Needs no descriptor that may write.
pub(super) fn set(file: &File, tag: &Tag) -> io::Result<()> {
    // The tag serves a lost journal only: a filesystem without user attributes, or without room for one,
    // still works.
    if put(file, tag)? {
        return Ok(());
    }
    let TagState::Partly(boot, partly) = &tag.state else { return Ok(()) };
    // An earlier tag would tell of less than programs were told is safe, and the rest would be taken from
    // the bucket: that it is not known, or nothing at all, keeps what is there.
    let unknown = Partly { written: None, ..partly.clone() };
    if partly.written.is_some() && put(file, &Tag { state: TagState::Partly(boot.clone(), unknown), ..tag.clone() })? {
        return Ok(());
    }
    match disk::remove_xattr(file, NAME) {
        Err(error) if disk::errno(&error) != Some(libc::EOPNOTSUPP) => Err(error),
        _ => Ok(()),
    }
}

/// `false`: the filesystem has no room for it, or keeps none; what was there before is still there.
fn put(file: &File, tag: &Tag) -> io::Result<bool> {
    let stat = disk::fstat(file)?;
    let (mut partly, mut written) = (None, None);
    let (mut open, mut closed, mut etag, mut crc64) = (None, None, None, None);
    match &tag.state {
        TagState::Open(boot) => open = Some(boot.clone()),
        TagState::Closed(boot) => closed = Some(boot.clone()),
        TagState::Clean(of, crc) => (etag, crc64) = (Some(of.0.clone()), crc.map(|crc| crc.0)),
        TagState::Partly(boot, here) => {
            open = Some(boot.clone());
            partly = Some((here.base.0.clone(), here.size, here.end));
            written = here.written.as_ref().map(|all| all.iter().map(|range| (range.start, range.end)).collect());
        }
    }
    let stored = Stored {
        mapping: tag.mapping.clone(),
        key: tag.key.clone(),
        ino: tag.ino.0,
        generation: tag.generation,
        attrs: Some((tag.attrs.mode, tag.attrs.uid, tag.attrs.gid)),
        base: tag.base.as_ref().map(|etag| etag.0.clone()),
        open,
        closed,
        etag,
        crc64,
        partly,
        written,
        looked: (stat.ino, stat.size, stat.mtime.0),
    };
    let text = serde_json::to_vec(&stored)?;
    match disk::set_xattr(file, NAME, &text) {
        Err(error)
            if matches!(
                disk::errno(&error),
                Some(libc::EOPNOTSUPP | libc::ENOSPC | libc::EDQUOT | libc::E2BIG | libc::ERANGE)
            ) =>
        {
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

/// The tag of a file, if it has one that can be read.
pub(super) fn get(file: &File) -> io::Result<Option<Tagged>> {
    let Some(text) = disk::get_xattr(file, NAME)? else { return Ok(None) };
    let Ok(stored) = serde_json::from_slice::<Stored>(&text) else { return Ok(None) };
    let (mode, uid, gid) = stored.attrs.unwrap_or(PLAIN);
    let mtime = disk::fstat(file)?.mtime;
    let ranges = |all: Vec<(u64, u64)>| all.into_iter().map(|(start, end)| start..end).collect();
    let partly = stored.partly.map(|(etag, size, end)| {
        let written = stored.written.map(ranges);
        Partly { base: ETag(etag), size, end, written }
    });
    let state = match (partly, stored.closed, stored.etag) {
        (Some(partly), ..) => TagState::Partly(stored.open.unwrap_or_default(), partly),
        (None, _, Some(etag)) => TagState::Clean(ETag(etag), stored.crc64.map(Crc64)),
        (None, Some(boot), None) => TagState::Closed(boot),
        (None, None, None) => TagState::Open(stored.open.unwrap_or_default()),
    };
    let tag = Tag {
        mapping: stored.mapping,
        key: stored.key,
        ino: Ino(stored.ino),
        generation: stored.generation,
        attrs: Attrs { mode, uid, gid, mtime },
        base: stored.base.map(ETag),
        state,
    };
    Ok(Some(Tagged { tag, looked: stored.looked }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn tags_come_back_and_tell_how_the_file_looked() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = disk::create_exclusive(&dir.path().join("file"), 0o600).unwrap();
        assert_eq!(get(&file).unwrap(), None);
        file.write_all(b"four").unwrap();
        let stat = disk::fstat(&file).unwrap();
        let tag = |state| Tag {
            mapping: "cos://b-1/p/".into(),
            key: "p/\u{4e2d} \"x\"".into(),
            ino: Ino(u64::MAX),
            generation: 7,
            attrs: Attrs { mode: 0o640, uid: 1, gid: 2, mtime: stat.mtime },
            base: Some(ETag("e".into())),
            state,
        };
        let clean = TagState::Clean(ETag("abc".into()), Some(Crc64(u64::MAX)));
        let partly = |written| {
            let base = ETag("of the base".into());
            TagState::Partly("boot".into(), Partly { base, size: u64::MAX, end: 7, written })
        };
        let most = (0..PARTLY_RANGES as u64).map(|n| n << 33..(n << 33) + 1000).collect();
        for state in [
            TagState::Open("boot".into()),
            partly(None),
            TagState::Closed("boot".into()),
            partly(Some(Vec::new())),
            clean,
            partly(Some(most)),
        ] {
            set(&file, &tag(state.clone())).unwrap();
            let found = get(&file).unwrap().unwrap();
            assert_eq!(found, Tagged { tag: tag(state), looked: (stat.ino, 4, stat.mtime.0) });
        }
        // More than any filesystem takes: rather that nobody knows than what was known before.
        let endless = (0..100_000).map(|n| 2 * n..2 * n + 1).collect();
        set(&file, &tag(partly(Some(endless)))).unwrap();
        assert_eq!(get(&file).unwrap().unwrap().tag, tag(partly(None)));
        set(&file, &Tag { key: "k".repeat(70_000), ..tag(partly(Some(Vec::new()))) }).unwrap();
        assert_eq!(get(&file).unwrap(), None);
        disk::set_xattr(&file, NAME, br#"{"mapping":"cos://b-1/","key":"k","ino":3,"generation":2}"#).unwrap();
        let old = get(&file).unwrap().unwrap();
        assert_eq!((old.tag.state, old.tag.ino, old.looked), (TagState::Open(String::new()), Ino(3), (0, 0, 0)));
        disk::set_xattr(&file, NAME, b"{").unwrap();
        assert_eq!(get(&file).unwrap(), None, "not readable is not there");
    }
}
