//! Between fuser's types and the vfs room's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};

use crate::types::{FileKind, Ino, TimeNs};
use crate::vfs::{Caller, SetTime, Stat};

/// st_blksize: what programs take for the size of their buffers. The page's size; a larger one
/// makes each stdio stream of each program allocate that much.
const BLOCK_BYTES: u32 = 4096;

/// Who sent a request.
pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

/// An inode number.
pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

/// A kind of inode.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Dir => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice(_) => FileType::CharDevice,
        FileKind::BlockDevice(_) => FileType::BlockDevice,
    }
}

/// The attributes that a reply carries.
pub(super) fn file_attr(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.ino.0),
        size: stat.size,
        blocks: stat.blocks,
        atime: system_time(stat.atime),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        // Only macOS asks for the time of birth.
        crtime: UNIX_EPOCH,
        kind: file_type(stat.kind),
        perm: u16::try_from(stat.mode & 0o7777).unwrap_or(0),
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.kind.device().unwrap_or_default().0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// A time as fuser sends it to the kernel.
fn system_time(time: TimeNs) -> SystemTime {
    let distance = Duration::from_nanos(time.0.unsigned_abs());
    // 64 bits of nanoseconds are 292 years either way; a SystemTime holds more.
    let time = if time.0 < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// A time to set.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(time_ns(time)),
    }
}

/// A time as fuser decoded it from the kernel. Before 1970 the kernel sends whole seconds towards
/// the past and nanoseconds towards the future (-1 s + 999,999,999 ns); fuser 0.18 takes both
/// towards the past (system_time_from_time in its time.rs), so its distance from the epoch holds
/// the kernel's two numbers as they came.
fn time_ns(time: SystemTime) -> TimeNs {
    let seconds = |distance: Duration| i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => TimeNs::new(seconds(after), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            TimeNs::new(seconds(before).saturating_neg(), before.subsec_nanos())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat() -> Stat {
        Stat {
            ino: Ino(7),
            kind: FileKind::File,
            mode: 0o4755,
            nlink: 1,
            uid: 1000,
            gid: 100,
            size: 5,
            blocks: 8,
            atime: TimeNs(1),
            mtime: TimeNs(-1),
            ctime: TimeNs(1_700_000_000_123_456_789),
            ttl: Duration::from_secs(1),
        }
    }

    #[test]
    fn attributes_keep_mode_bits_and_nanoseconds() {
        let attr = file_attr(&stat());
        assert_eq!(attr.perm, 0o4755);
        assert_eq!(attr.kind, FileType::RegularFile);
        assert_eq!(attr.atime.duration_since(UNIX_EPOCH).unwrap(), Duration::from_nanos(1));
        assert_eq!(attr.ctime.duration_since(UNIX_EPOCH).unwrap(), Duration::from_nanos(1_700_000_000_123_456_789));
        assert_eq!(UNIX_EPOCH.duration_since(attr.mtime).unwrap(), Duration::from_nanos(1));
    }

    #[test]
    fn a_time_before_1970_survives_fusers_decoding() {
        // The kernel sends -1.5 s as (-2 s, 500,000,000 ns); fuser makes of it 2.5 s before.
        let decoded = UNIX_EPOCH - Duration::new(2, 500_000_000);
        assert_eq!(set_time(TimeOrNow::SpecificTime(decoded)), SetTime::At(TimeNs(-1_500_000_000)));
        let whole = UNIX_EPOCH - Duration::new(3, 0);
        assert_eq!(set_time(TimeOrNow::SpecificTime(whole)), SetTime::At(TimeNs(-3_000_000_000)));
        let after = UNIX_EPOCH + Duration::new(3, 4);
        assert_eq!(set_time(TimeOrNow::SpecificTime(after)), SetTime::At(TimeNs(3_000_000_004)));
        assert_eq!(set_time(TimeOrNow::Now), SetTime::Now);
    }

    #[test]
    fn the_extremes_do_not_panic() {
        let mut stat = stat();
        stat.mtime = TimeNs(i64::MIN);
        stat.ctime = TimeNs(i64::MAX);
        let attr = file_attr(&stat);
        assert!(attr.mtime < UNIX_EPOCH && attr.ctime > UNIX_EPOCH);
        let far = UNIX_EPOCH + Duration::from_secs(i64::MAX as u64);
        assert_eq!(set_time(TimeOrNow::SpecificTime(far)), SetTime::At(TimeNs(i64::MAX)));
    }
}
