//! Extended attributes of backing files (J5).

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr, lgetxattr};
use rustix::io::Errno;

use super::error::at_errno;

/// What most values fit in; a larger one costs a second call.
const VALUE_USUAL: usize = 512;

/// The largest value that Linux allows (XATTR_SIZE_MAX, limits.h).
const VALUE_MAX: usize = 64 << 10;

/// What has extended attributes: an open file, or a path (a symbolic link is not followed).
pub trait XattrSource {
    /// As [`get_xattr`].
    ///
    /// # Errors
    /// As getxattr(2), but for "has none".
    fn xattr(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
}

impl XattrSource for File {
    fn xattr(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(value(|buffer| fgetxattr(self, name, buffer))?)
    }
}

impl XattrSource for Path {
    fn xattr(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        value(|buffer| lgetxattr(self, name, buffer)).map_err(at_errno("read an extended attribute of", self))
    }
}

/// The value of an extended attribute (`user.` included in its name), or `None` if there is none.
///
/// # Errors
/// As getxattr(2), but for "has none".
pub fn get_xattr<S: XattrSource + ?Sized>(source: &S, name: &str) -> io::Result<Option<Vec<u8>>> {
    source.xattr(name)
}

/// Sets an extended attribute (`user.` included in its name). Moves the file's ctime.
///
/// # Errors
/// As fsetxattr(2).
pub fn set_xattr(file: &File, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// Removes an extended attribute; one that is not there is removed already.
///
/// # Errors
/// As fremovexattr(2).
pub fn remove_xattr(file: &File, name: &str) -> io::Result<()> {
    match fremovexattr(file, name) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn value(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Option<Vec<u8>>, Errno> {
    for size in [VALUE_USUAL, VALUE_MAX] {
        let mut buffer = vec![0; size];
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(Some(buffer));
            }
            Err(Errno::NODATA) => return Ok(None),
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::create_exclusive;

    #[test]
    fn values_are_set_read_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = create_exclusive(&path, 0o600).unwrap();
        assert_eq!(get_xattr(&file, "user.ferryfs").unwrap(), None);
        assert_eq!(get_xattr(path.as_path(), "user.ferryfs").unwrap(), None);
        for value in [&b""[..], b"1:a key/with \xe4\xb8\xad", &[7; VALUE_USUAL], &[8; VALUE_USUAL + 1]] {
            set_xattr(&file, "user.ferryfs", value).unwrap();
            assert_eq!(get_xattr(&file, "user.ferryfs").unwrap().as_deref(), Some(value));
            assert_eq!(get_xattr(path.as_path(), "user.ferryfs").unwrap().as_deref(), Some(value));
        }
        remove_xattr(&file, "user.ferryfs").unwrap();
        remove_xattr(&file, "user.ferryfs").unwrap();
        assert_eq!(get_xattr(&file, "user.ferryfs").unwrap(), None);
        let error = get_xattr(dir.path().join("missing").as_path(), "user.ferryfs").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
