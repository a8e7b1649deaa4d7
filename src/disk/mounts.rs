//! Mount points, seen and undone without touching what may hang.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::UnmountFlags;

use super::error::{at, at_errno};

/// STATX_MNT_ID_UNIQUE (linux/stat.h, since 6.8): an id that is not used again before a reboot.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// A mounted filesystem as /proc/self/mountinfo tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Minor number of its device: for FUSE the connection's number in /sys/fs/fuse/connections.
    pub minor: u32,
    /// Type, as `fuse.ferryfs` or `ext4`.
    pub fstype: String,
    /// Source, as the mounter named it.
    pub source: String,
}

/// What is mounted at `path`, if it is a mount point. The path itself is not touched: a stat of a
/// mount whose daemon is gone fails or hangs.
///
/// # Errors
/// As reading a file and as realpath(3) of the directory above.
pub fn mount_info(path: &Path) -> io::Result<Option<MountInfo>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).map_err(at("read", table))?;
    Ok(find(&text, &resolved(path)?))
}

/// The absolute path, with links in the directories above it followed.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(at("resolve", path))?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize().map_err(at("resolve", parent))?.join(name)),
        _ => Ok(absolute),
    }
}

/// The topmost of the mounts at `path`: later lines cover earlier ones.
fn find(mountinfo: &[u8], path: &Path) -> Option<MountInfo> {
    mountinfo.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let (point, info) = parse(line)?;
        (point == path).then_some(info)
    })
}

/// `36 35 98:0 /root /point options [tags...] - fstype source super-options`, proc_pid_mountinfo(5).
fn parse(line: &[u8]) -> Option<(PathBuf, MountInfo)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let minor = device.split_once(':')?.1.parse().ok()?;
    let point = unescape(fields.nth(1)?);
    fields.find(|field| field == b"-")?;
    let fstype = String::from_utf8_lossy(unescape(fields.next()?).as_bytes()).into_owned();
    let source = String::from_utf8_lossy(unescape(fields.next()?).as_bytes()).into_owned();
    Some((PathBuf::from(point), MountInfo { minor, fstype, source }))
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// Takes the topmost mount at `path` away; `lazy`: from the tree at once, wholly when its last
/// user is gone. A symbolic link at `path` is not followed.
///
/// # Errors
/// `ResourceBusy` if it is in use and not `lazy`; `InvalidInput` if nothing is mounted there.
pub fn unmount(path: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW).map_err(at_errno("unmount", path))
}

/// Identity of the mount that holds `path`: it changes when the filesystem is mounted anew, at the
/// latest with the boot.
///
/// # Errors
/// As statx(2).
pub fn mount_id(path: &Path) -> io::Result<u64> {
    // Kernels before 6.8 do not know the unique id and answer with the reusable one.
    let mask = StatxFlags::MNT_ID | MNT_ID_UNIQUE;
    Ok(statx(CWD, path, AtFlags::empty(), mask).map_err(at_errno("stat", path))?.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        40 22 0:33 / /mnt/a\\040b\\134c rw - fuse.ferryfs cos://b/p\\040q rw,user_id=0\n\
        41 22 0:34 / /mnt/over rw shared:5 master:2 - tmpfs none rw\n\
        42 41 0:35 / /mnt/over rw - fuse.ferryfs other rw\n";

    #[test]
    fn the_table_is_read_with_its_escapes() {
        let info = find(TABLE, Path::new("/mnt/a b\\c")).unwrap();
        let expected = MountInfo { minor: 33, fstype: "fuse.ferryfs".into(), source: "cos://b/p q".into() };
        assert_eq!(info, expected);
        assert_eq!(find(TABLE, Path::new("/mnt/over")).unwrap().minor, 35, "the topmost counts");
        assert_eq!(find(TABLE, Path::new("/")).unwrap().fstype, "ext4");
        assert_eq!(find(TABLE, Path::new("/mnt")), None);
        assert_eq!(unescape(b"\\04 \\999 \\"), OsString::from("\\04 \\999 \\"));
    }

    #[test]
    fn proc_is_a_mount_and_a_fresh_directory_is_not() {
        assert_eq!(mount_info(Path::new("/proc")).unwrap().unwrap().fstype, "proc");
        assert_eq!(mount_info(Path::new("/proc/")).unwrap().unwrap().fstype, "proc");
        assert!(mount_info(Path::new("/")).unwrap().is_some());
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(mount_info(dir.path()).unwrap(), None);
        assert!(unmount(dir.path(), false).is_err());
        assert_eq!(mount_id(dir.path()).unwrap(), mount_id(dir.path().parent().unwrap()).unwrap());
        assert_ne!(mount_id(dir.path()).unwrap(), mount_id(Path::new("/proc")).unwrap());
    }
}
