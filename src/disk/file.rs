//! Making, opening, changing and syncing files.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW, futimens};
use rustix::io::retry_on_intr;

use super::error::at;
use super::fstat;
use crate::types::TimeNs;

/// Makes a file that must not exist and opens it for reading and writing. `mode` is subject to the
/// umask. The descriptor is not inherited by programs that the process starts.
///
/// # Errors
/// `AlreadyExists`, and as open(2).
pub fn create_exclusive(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path).map_err(at("create", path))
}

/// Opens a file for reading only.
///
/// # Errors
/// As open(2).
pub fn open_read(path: &Path) -> io::Result<File> {
    File::open(path).map_err(at("open", path))
}

/// Opens an existing file for reading and writing.
///
/// # Errors
/// As open(2).
pub fn open_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path).map_err(at("open for writing", path))
}

/// Renames, replacing what is there. Durable only after [`sync_dir`] of both directories.
///
/// # Errors
/// As rename(2), naming the new path.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to).map_err(at("rename a file to", to))
}

/// Removes a name of a file.
///
/// # Errors
/// As unlink(2).
pub fn unlink(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path).map_err(at("remove", path))
}

/// Sets the permission bits of a file or directory.
///
/// # Errors
/// As chmod(2).
pub fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("change the mode of", path))
}

/// Makes a directory and the missing ones above it, each with mode 0700 and durable on return.
/// Directories that exist keep their mode: the operator's choice.
///
/// # Errors
/// As mkdir(2); `NotADirectory` if something else has the name.
pub fn make_dir_private(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if parent != path {
        make_dir_private(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_dir(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(at("make the directory", path)(error)),
    }
}

/// Forgets what the kernel remembers of a file's content and has no need to write: the next read asks the
/// disk. Pages that a program has mapped stay.
///
/// # Errors
/// As posix_fadvise(2).
pub fn forget_pages(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Brings content and size to the disk (fdatasync). An error is final: the kernel may have dropped
/// the pages, and a second call would wrongly succeed.
///
/// # Errors
/// As fdatasync(2).
pub fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Brings content and all attributes to the disk (fsync). An error is final.
///
/// # Errors
/// As fsync(2).
pub fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Brings the names in a directory to the disk.
///
/// # Errors
/// As open(2) and fsync(2).
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at("sync the directory", path))
}

/// Sets the size; what is added reads as zeros.
///
/// # Errors
/// As ftruncate(2).
pub fn truncate(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)
}

/// fallocate(2) with the system call's own mode bits.
///
/// # Errors
/// As fallocate(2): `Unsupported` where the filesystem cannot.
pub fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    // The same bits, seen unsigned; unknown ones go to the kernel, which refuses them.
    let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
    Ok(retry_on_intr(|| rustix::fs::fallocate(file, flags, offset, len))?)
}

/// Gives the blocks of a range back; it reads as zeros and the size stays.
///
/// # Errors
/// As fallocate(2).
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len)
}

/// lseek(2) with the system call's own `whence`, SEEK_DATA and SEEK_HOLE included.
///
/// # Errors
/// ENXIO beyond the end, EINVAL for an unknown `whence` or a negative offset.
pub fn seek(file: &File, offset: i64, whence: i32) -> io::Result<u64> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let unsigned = || u64::try_from(offset).map_err(|_| invalid());
    let position = match whence {
        libc::SEEK_SET => SeekFrom::Start(unsigned()?),
        libc::SEEK_CUR => SeekFrom::Current(offset),
        libc::SEEK_END => SeekFrom::End(offset),
        // lseek(2): a negative offset is beyond no data and no hole.
        libc::SEEK_DATA => SeekFrom::Data(unsigned().map_err(|_| io::Error::from_raw_os_error(libc::ENXIO))?),
        libc::SEEK_HOLE => SeekFrom::Hole(unsigned().map_err(|_| io::Error::from_raw_os_error(libc::ENXIO))?),
        _ => return Err(invalid()),
    };
    Ok(rustix::fs::seek(file, position)?)
}

/// Sets access and modification time; ctime moves to now.
///
/// # Errors
/// As futimens(3).
pub fn set_times(file: &File, atime: TimeNs, mtime: TimeNs) -> io::Result<()> {
    let timespec = |time: TimeNs| Timespec { tv_sec: time.sec(), tv_nsec: time.nsec().into() };
    Ok(futimens(file, &Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) })?)
}

/// The present time as the kernel stamps files on the filesystem of `file`, whose own times move for it.
/// No stamp that the kernel gave before is later, and none that it gives from now on is earlier. The
/// system's clock keeps no such order: stamps are of the last tick, up to 10 ms ago.
///
/// # Errors
/// As futimens(3) and fstat(2).
pub fn stamp_now(file: &File) -> io::Result<TimeNs> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    futimens(file, &Timestamps { last_access: now, last_modification: now })?;
    Ok(fstat(file)?.ctime)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::disk::{errno, fstat, lstat};

    #[test]
    fn create_exclusive_never_opens_what_exists() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = create_exclusive(&path, 0o600).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        assert_eq!(fstat(&file).unwrap().mode & 0o7777, 0o600);
        let error = create_exclusive(&path, 0o600).unwrap_err();
        assert_eq!((error.kind(), errno(&error)), (io::ErrorKind::AlreadyExists, Some(libc::EEXIST)));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn names_sizes_and_times_change() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = create_exclusive(&from, 0o600).unwrap();
        truncate(&file, 10_000).unwrap();
        set_times(&file, TimeNs::new(-1, 5), TimeNs::new(7, 999_999_999)).unwrap();
        sync_data(&file).unwrap();
        sync_file(&file).unwrap();
        rename(&from, &to).unwrap();
        sync_dir(dir.path()).unwrap();
        let stat = lstat(&to).unwrap();
        assert_eq!((stat.size, stat.mtime, stat.atime), (10_000, TimeNs::new(7, 999_999_999), TimeNs::new(-1, 5)));
        chmod(&to, 0o640).unwrap();
        assert_eq!(lstat(&to).unwrap().mode & 0o7777, 0o640);
        assert_eq!(open_write(&to).unwrap().metadata().unwrap().len(), 10_000);
        assert!(open_read(&to).unwrap().write_at(b"x", 0).is_err(), "a reading descriptor writes");
        unlink(&to).unwrap();
        assert_eq!(unlink(&to).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn holes_are_punched_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = create_exclusive(&dir.path().join("file"), 0o600).unwrap();
        file.write_all_at(&vec![7; 3 << 20], 0).unwrap();
        punch_hole(&file, 1 << 20, 1 << 20).unwrap();
        assert_eq!(seek(&file, 0, libc::SEEK_HOLE).unwrap(), 1 << 20);
        assert_eq!(seek(&file, 1 << 20, libc::SEEK_DATA).unwrap(), 2 << 20);
        assert_eq!(fstat(&file).unwrap().size, 3 << 20);
        assert_eq!(seek(&file, 4 << 20, libc::SEEK_DATA).unwrap_err().raw_os_error(), Some(libc::ENXIO));
        assert_eq!(seek(&file, -1, libc::SEEK_HOLE).unwrap_err().raw_os_error(), Some(libc::ENXIO));
        assert_eq!(seek(&file, 0, 99).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        fallocate(&file, 0, 3 << 20, 4096).unwrap();
        assert_eq!(fstat(&file).unwrap().size, (3 << 20) + 4096);
        assert!(fallocate(&file, 1 << 30, 0, 4096).is_err(), "an unknown mode passes");
    }

    #[test]
    fn private_directories_are_made_all_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_dir_private(&path).unwrap();
        make_dir_private(&path).unwrap();
        assert_eq!(lstat(&path).unwrap().mode & 0o7777, 0o700);
        assert_eq!(lstat(&dir.path().join("a")).unwrap().mode & 0o7777, 0o700);
        create_exclusive(&path.join("file"), 0o600).unwrap();
        assert!(make_dir_private(&path.join("file")).is_err());
    }
}
