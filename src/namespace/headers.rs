//! Attributes in object headers, in the form of cosfs and s3fs (N3, PROTOCOL section 13).
//!
//! `mode` is decimal with the type bits, `uid` and `gid` decimal, `mtime` whole seconds (cosfs reads
//! a fraction as 1970), the whole time again in `mtime-nsec`. Which device a device is: `rdev`, decimal,
//! as geesefs writes it; cosfs and s3fs keep the type of devices but not which one. `xattr`: see `xattrs.rs`.
//!
//! Those tools keep headers that they do not know, also when they write other content or set another time.
//! So what is said in headers of ours says of what: `mtime-nsec` holds the seconds too, and `ferry-sum` the
//! size and CRC64 of what was stored. Where they no longer fit, another tool made the version
//! ([`is_rewritten`]), whatever `ferry` says.

use std::collections::BTreeMap;

use crate::http::encode;
use crate::store::{ObjectHeaders, ObjectMeta};
use crate::types::{Attrs, Crc64, DeviceNo, FileKind, TimeNs};

use super::mapping::Defaults;

/// Metadata name of the attempt that made a version (R2).
pub const FERRY_HEADER: &str = "ferry";
/// Metadata name of the size and, where it was known before, the CRC64 of what the attempt stored: `size[.crc64]`.
const SUM_HEADER: &str = "ferry-sum";
/// Metadata name of the time in full, `seconds.nanoseconds` with nine digits.
const TIME_HEADER: &str = "mtime-nsec";
/// Metadata name of the hex MD5 of the whole content.
pub const MD5_HEADER: &str = "md5";
/// Metadata name of the number of a device.
const DEVICE_HEADER: &str = "rdev";
/// Metadata name of the extended attributes (s3fs and cosfs).
const XATTR_HEADER: &str = "xattr";
/// Our own headers at their longest, with what the store puts before their names: what is kept free for
/// them when extended attributes are set. mode 6 digits, uid and gid 10, mtime 20, mtime-nsec 30, rdev 10,
/// ferry 32 + 20 + 20 and two dots, ferry-sum 20 + 20 and a dot, md5 32; ten names of 49 bytes in all,
/// `x-cos-meta-` before each.
const OWN_BYTES: usize = 233 + 49 + 10 * META_PREFIX;
/// Length of `x-cos-meta-`; that of other stores is no longer. Whether stores count it is not documented.
const META_PREFIX: usize = 11;
/// What we write ourselves.
const OWN: [&str; 10] =
    ["mode", "uid", "gid", "mtime", TIME_HEADER, FERRY_HEADER, SUM_HEADER, MD5_HEADER, DEVICE_HEADER, XATTR_HEADER];
/// Content-Type of directory markers (s3fs and cosfs).
const DIRECTORY_TYPE: &str = "application/x-directory";
const FILE_TYPE: &str = "application/octet-stream";

/// What an attempt stores, and its name.
#[derive(Clone, Debug)]
pub struct Made {
    /// R2: mount, inode and attempt.
    pub ferry: String,
    /// Bytes of the object.
    pub size: u64,
    /// Of the object, if it is known before it is stored.
    pub crc64: Option<Crc64>,
}

/// The headers of a version of ours; what the source of a copy (`kept`) carries besides is kept (R6).
pub fn headers_for(
    kind: FileKind,
    attrs: &Attrs,
    xattrs: Option<&str>,
    made: &Made,
    kept: Option<&ObjectMeta>,
) -> ObjectHeaders {
    let mut headers = kept.map(|source| source.headers.clone()).unwrap_or_default();
    if kept.is_some_and(is_rewritten) {
        // It is of other content, for all that anybody knows.
        headers.metadata.remove(MD5_HEADER);
    }
    if headers.content_type.is_none() {
        headers.content_type = Some(if kind == FileKind::Dir { DIRECTORY_TYPE } else { FILE_TYPE }.to_owned());
    }
    let mut set = |name: &str, value: String| {
        headers.metadata.insert(name.to_owned(), value);
    };
    set("mode", (attrs.mode | kind.type_bits()).to_string());
    set("uid", attrs.uid.to_string());
    set("gid", attrs.gid.to_string());
    set("mtime", attrs.mtime.sec().to_string());
    set(TIME_HEADER, format!("{}.{:09}", attrs.mtime.sec(), attrs.mtime.nsec()));
    set(FERRY_HEADER, made.ferry.clone());
    set(SUM_HEADER, made.crc64.map_or_else(|| made.size.to_string(), |crc| format!("{}.{crc}", made.size)));
    if let Some(device) = kind.device() {
        set(DEVICE_HEADER, device.0.to_string());
    }
    match xattrs {
        Some(xattrs) => set(XATTR_HEADER, xattrs.to_owned()),
        None => {
            headers.metadata.remove(XATTR_HEADER);
        }
    }
    headers
}

/// The header of an object's extended attributes, if it has any.
pub fn xattrs_of(meta: &ObjectMeta) -> Option<String> {
    meta.headers.metadata.get(XATTR_HEADER).cloned()
}

/// How long the header of extended attributes may be, bytes, on a store that takes `most` bytes of
/// metadata: all but our own headers and what a copy must keep of others' (`kept`).
pub fn xattr_room(most: usize, kept: Option<&ObjectHeaders>) -> usize {
    let foreign = kept.into_iter().flat_map(|headers| &headers.metadata);
    let foreign = foreign.filter(|(name, _)| !OWN.contains(&name.as_str()));
    let foreign: usize = foreign.map(|(name, value)| META_PREFIX + name.len() + encode(value).len()).sum();
    most.saturating_sub(OWN_BYTES + foreign)
}

/// What a HEAD tells of an object: its kind and attributes. Tolerates what other tools write:
/// absent values, fractions in `mtime`, octal modes.
pub fn attributes_of(meta: &ObjectMeta, defaults: &Defaults) -> (FileKind, Attrs) {
    let metadata = &meta.headers.metadata;
    let number = |name: &str| metadata.get(name).and_then(|text| integer(text));
    // The second names are s3sync's; s3fs and cosfs read them too.
    let mode = number("mode").or_else(|| number("permissions")).and_then(|mode| u32::try_from(mode).ok());
    let marker = meta.key.as_str().ends_with('/') && meta.size == 0;
    let kind = if marker {
        FileKind::Dir
    } else {
        let device = number(DEVICE_HEADER).and_then(|device| u32::try_from(device).ok()).map(DeviceNo);
        match mode.and_then(|mode| FileKind::from_mode(mode, device.unwrap_or_default())) {
            Some(FileKind::Symlink) => FileKind::Symlink,
            // Content that somebody stored under such a mode must stay within reach.
            Some(kind) if kind.is_special() && meta.size == 0 => kind,
            _ => FileKind::File,
        }
    };
    let fallback = defaults.attrs(kind, meta.last_modified.unwrap_or_default());
    let attrs = Attrs {
        mode: mode.map_or(fallback.mode, |mode| mode & 0o7777),
        uid: number("uid").or_else(|| number("owner")).and_then(|id| u32::try_from(id).ok()).unwrap_or(fallback.uid),
        gid: number("gid").or_else(|| number("group")).and_then(|id| u32::try_from(id).ok()).unwrap_or(fallback.gid),
        mtime: mtime(metadata).unwrap_or(fallback.mtime),
    };
    (kind, attrs)
}

fn mtime(metadata: &BTreeMap<String, String>) -> Option<TimeNs> {
    let text = metadata.get("mtime")?;
    let own = own_time(metadata);
    let (whole, fraction) = own.filter(|(whole, _)| whole == text).or(text.split_once('.')).unwrap_or((text, ""));
    let sec: i64 = whole.parse().ok()?;
    let nsec = format!("{fraction:0<9}").get(..9).and_then(|nsec| nsec.parse().ok()).unwrap_or(0);
    Some(TimeNs::new(sec, nsec))
}

/// Seconds and nanoseconds as we wrote them.
fn own_time(metadata: &BTreeMap<String, String>) -> Option<(&str, &str)> {
    metadata.get(TIME_HEADER)?.split_once('.')
}

/// Another tool has written the object since we stored it, and kept our headers: its content or its time
/// is not what they tell of.
pub fn is_rewritten(meta: &ObjectMeta) -> bool {
    let metadata = &meta.headers.metadata;
    let other_time =
        own_time(metadata).is_some_and(|(whole, _)| metadata.get("mtime").is_none_or(|text| text != whole));
    let other_content = metadata.get(SUM_HEADER).is_some_and(|sum| {
        let (size, crc) = sum.split_once('.').map_or((sum.as_str(), None), |(size, crc)| (size, Some(crc)));
        let other_crc = |there: Crc64| crc.is_some_and(|crc| crc != there.to_string());
        size != meta.size.to_string() || meta.crc64.is_some_and(other_crc)
    });
    other_time || other_content
}

/// Decimal; with a leading zero octal, as other tools write modes.
fn integer(text: &str) -> Option<u64> {
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, Key};

    const DEFAULTS: Defaults = Defaults { uid: 7, gid: 8, file_mode: 0o640, dir_mode: 0o750 };

    const ATTRS: Attrs = Attrs { mode: 0o644, uid: 0, gid: 0, mtime: TimeNs(1_000_000_002) };

    fn made() -> Made {
        Made { ferry: "m.1.3".to_owned(), size: 7, crc64: Some(Crc64(9)) }
    }

    fn meta(key: &str, pairs: &[(&str, &str)]) -> ObjectMeta {
        let metadata = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ObjectMeta {
            key: Key::from(key),
            size: 0,
            etag: ETag("e".to_owned()),
            last_modified: Some(TimeNs::new(5, 0)),
            crc64: None,
            version_id: None,
            storage_class: None,
            encryption: None,
            tag_count: 0,
            headers: ObjectHeaders { metadata, ..ObjectHeaders::default() },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let attrs = Attrs { mode: 0o4751, uid: 1000, gid: 100, mtime: TimeNs::new(1_700_000_000, 123_456_789) };
        let device = DeviceNo(0x0012_3405);
        for kind in [
            FileKind::File,
            FileKind::Symlink,
            FileKind::Fifo,
            FileKind::Socket,
            FileKind::CharDevice(device),
            FileKind::BlockDevice(device),
        ] {
            let mut object = meta("a", &[]);
            object.headers = headers_for(kind, &attrs, None, &made(), None);
            assert_eq!(attributes_of(&object, &DEFAULTS), (kind, attrs));
        }
    }

    #[test]
    fn other_tools_forms_are_read() {
        let (kind, attrs) = attributes_of(
            &meta("a", &[("mode", "33188"), ("uid", "1"), ("gid", "2"), ("mtime", "1700000000.5")]),
            &DEFAULTS,
        );
        assert_eq!((kind, attrs.mode, attrs.uid, attrs.gid), (FileKind::File, 0o644, 1, 2));
        assert_eq!(attrs.mtime, TimeNs::new(1_700_000_000, 500_000_000));
        let (_, attrs) = attributes_of(&meta("a", &[("mode", "0100600"), ("mtime", "rubbish")]), &DEFAULTS);
        assert_eq!((attrs.mode, attrs.mtime), (0o600, TimeNs::new(5, 0)));
        // A device as s3fs stores it; and what can be none, because it has content.
        let mut device = meta("a", &[("mode", "8612")]);
        assert_eq!(attributes_of(&device, &DEFAULTS).0, FileKind::CharDevice(DeviceNo(0)));
        device.size = 1;
        assert_eq!(attributes_of(&device, &DEFAULTS).0, FileKind::File);
        let (kind, attrs) = attributes_of(&meta("d/", &[]), &DEFAULTS);
        assert_eq!((kind, attrs.mode, attrs.uid), (FileKind::Dir, 0o750, 7));
    }

    #[test]
    fn foreign_headers_are_kept() {
        let mut kept = meta("a", &[("colour", "red"), ("md5", "0")]);
        kept.headers.content_type = Some("text/plain".to_owned());
        let headers = headers_for(FileKind::File, &ATTRS, Some("%7B%7D"), &made(), Some(&kept));
        assert_eq!(headers.content_type.as_deref(), Some("text/plain"));
        assert_eq!(headers.metadata.get("colour").map(String::as_str), Some("red"));
        assert_eq!(headers.metadata.get("md5").map(String::as_str), Some("0"));
        assert_eq!(headers.metadata.get("ferry").map(String::as_str), Some("m.1.3"));
    }

    #[test]
    fn what_another_tool_wrote_under_our_headers_is_known_for_its_own() {
        let mut own = meta("a", &[]);
        own.size = 7;
        own.crc64 = Some(Crc64(9));
        let mut stored = headers_for(FileKind::File, &ATTRS, None, &made(), None);
        stored.metadata.insert("md5".to_owned(), "0".to_owned());
        own.headers = stored.clone();
        assert!(!is_rewritten(&own));
        assert!(!is_rewritten(&meta("a", &[("mtime", "5")])), "none of ours");
        let mut without = own.clone();
        without.crc64 = None;
        assert!(!is_rewritten(&without), "a store that tells no CRC64");
        let with = |change: &dyn Fn(&mut ObjectMeta)| {
            let mut other = own.clone();
            change(&mut other);
            other
        };
        let longer = with(&|other| other.size = 8);
        let other_bytes = with(&|other| other.crc64 = Some(Crc64(10)));
        // cosfs and s3fs set the time of what they write.
        let set_time = |text: &str| {
            with(&|other| {
                other.headers.metadata.insert("mtime".to_owned(), text.to_owned());
            })
        };
        let (later, in_the_same_second) = (set_time("2"), set_time("1.000000005"));
        for other in [&longer, &other_bytes, &later, &in_the_same_second] {
            assert!(is_rewritten(other), "{other:?}");
            let copied = headers_for(FileKind::File, &ATTRS, None, &made(), Some(other));
            assert_eq!(copied.metadata.get("md5"), None, "it was of our content");
        }
        assert_eq!(attributes_of(&own, &DEFAULTS).1.mtime, TimeNs::new(1, 2));
        assert_eq!(attributes_of(&later, &DEFAULTS).1.mtime, TimeNs::new(2, 0), "no nanoseconds of another second");
        assert_eq!(attributes_of(&in_the_same_second, &DEFAULTS).1.mtime, TimeNs::new(1, 5));

        // Nothing is lost by a chmod, nor by an unknown CRC64.
        let chmod = with(&|other| {
            other.headers.metadata.insert("mode".to_owned(), "33188".to_owned());
        });
        assert!(!is_rewritten(&chmod));
        let by_parts = Made { crc64: None, ..made() };
        let by_parts = headers_for(FileKind::File, &ATTRS, None, &by_parts, None);
        assert!(!is_rewritten(&with(&|other| other.headers = by_parts.clone())));
        assert!(is_rewritten(&with(&|other| {
            other.headers = by_parts.clone();
            other.size = 6;
        })));
    }
}
