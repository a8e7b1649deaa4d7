//! Attributes in object headers, in the form of cosfs and s3fs (N3, PROTOCOL section 13).
//!
//! `mode` is decimal with the type bits, `uid` and `gid` decimal, `mtime` whole seconds (cosfs reads
//! a fraction as 1970), the nanoseconds apart in `mtime-nsec`. Which device a device is: `rdev`, decimal,
//! as geesefs writes it; cosfs and s3fs keep the type of devices but not which one. `xattr`: see `xattrs.rs`.

use std::collections::BTreeMap;

use crate::http::encode;
use crate::store::{ObjectHeaders, ObjectMeta};
use crate::types::{Attrs, DeviceNo, FileKind, TimeNs};

use super::mapping::Defaults;

/// Metadata name of the attempt that made a version (R2).
pub const FERRY_HEADER: &str = "ferry";
/// Metadata name of the hex MD5 of the whole content.
pub const MD5_HEADER: &str = "md5";
/// Metadata name of the number of a device.
const DEVICE_HEADER: &str = "rdev";
/// Metadata name of the extended attributes (s3fs and cosfs).
const XATTR_HEADER: &str = "xattr";
/// Our own headers at their longest, with what the store puts before their names: what is kept free for
/// them when extended attributes are set. mode 6 digits, uid and gid 10, mtime 20, mtime-nsec 9, rdev 10,
/// ferry 32 + 20 + 20 and two dots, md5 32; nine names of 40 bytes in all, `x-cos-meta-` before each.
const OWN_BYTES: usize = 191 + 40 + 9 * META_PREFIX;
/// Length of `x-cos-meta-`; that of other stores is no longer. Whether stores count it is not documented.
const META_PREFIX: usize = 11;
/// What we write ourselves.
const OWN: [&str; 9] =
    ["mode", "uid", "gid", "mtime", "mtime-nsec", FERRY_HEADER, MD5_HEADER, DEVICE_HEADER, XATTR_HEADER];
/// Content-Type of directory markers (s3fs and cosfs).
const DIRECTORY_TYPE: &str = "application/x-directory";
const FILE_TYPE: &str = "application/octet-stream";

/// The headers of a version of ours; what `kept` carries besides is kept (R6).
pub fn headers_for(
    kind: FileKind,
    attrs: &Attrs,
    xattrs: Option<&str>,
    ferry: &str,
    kept: Option<&ObjectHeaders>,
) -> ObjectHeaders {
    let mut headers = kept.cloned().unwrap_or_default();
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
    set("mtime-nsec", attrs.mtime.nsec().to_string());
    set(FERRY_HEADER, ferry.to_owned());
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
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let sec: i64 = whole.parse().ok()?;
    let own = metadata.get("mtime-nsec").and_then(|nsec| nsec.parse().ok());
    let nsec = own.or_else(|| format!("{fraction:0<9}").get(..9)?.parse().ok()).unwrap_or(0);
    Some(TimeNs::new(sec, nsec))
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
            let headers = headers_for(kind, &attrs, None, "m.1.2", None);
            let mut object = meta("a", &[]);
            object.headers = headers;
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
        let mut kept = ObjectHeaders { content_type: Some("text/plain".to_owned()), ..ObjectHeaders::default() };
        kept.metadata.insert("colour".to_owned(), "red".to_owned());
        let attrs = Attrs { mode: 0o644, uid: 0, gid: 0, mtime: TimeNs::new(1, 2) };
        let headers = headers_for(FileKind::File, &attrs, Some("%7B%7D"), "m.1.3", Some(&kept));
        assert_eq!(headers.content_type.as_deref(), Some("text/plain"));
        assert_eq!(headers.metadata.get("colour").map(String::as_str), Some("red"));
        assert_eq!(headers.metadata.get("ferry").map(String::as_str), Some("m.1.3"));
    }
}
