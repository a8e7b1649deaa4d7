//! Errors that say what was attempted on which path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a path; travels inside [`io::Error`], whose kind is the cause's.
#[derive(Debug)]
struct PathError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl std::error::Error for PathError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds operation and path to an error.
pub(super) fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |source| io::Error::new(source.kind(), PathError { operation, path: path.to_owned(), source })
}

/// The same for an error of rustix.
pub(super) fn at_errno(operation: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> io::Error {
    move |source| at(operation, path)(source.into())
}

/// The error number of the system below an error of this room, or of std.
///
/// An [`io::Error`] that names its path answers `None` to `raw_os_error`; this finds the number
/// that it wraps.
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let wrapped = error.get_ref()?.downcast_ref::<PathError>()?;
        wrapped.source.raw_os_error()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_number_kind_and_path() {
        let error = at("read", Path::new("/some/where"))(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(errno(&error), Some(libc::ENOSPC));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("cannot read /some/where: "), "{error}");
        assert_eq!(errno(&io::Error::from_raw_os_error(libc::EIO)), Some(libc::EIO));
        assert_eq!(errno(&io::Error::other("none")), None);
    }
}
