//! Which number an error gets.

use std::io;

use fuser::Errno;

use crate::disk;
use crate::journal::Hold;
use crate::store;
use crate::upload::{Cause, NotUploaded};
use crate::vfs;

/// Largest errno that the kernel takes in a reply; a larger one would leave the caller waiting
/// (fuse_dev_do_write refuses replies with error <= -512).
const LARGEST: i32 = 511;

/// The number that programs see.
#[deny(clippy::wildcard_enum_match_arm)]
pub(super) fn errno(error: &vfs::Error) -> Errno {
    use vfs::Error;
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::IsDirectory => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        // What ext4 with casefold and APFS answer for names that are not UTF-8.
        Error::IllegalName => Errno::EILSEQ,
        Error::CrossDevice => Errno::EXDEV,
        Error::Invalid => Errno::EINVAL,
        // Never ENOSYS: the kernel would stop asking.
        Error::NotSupported => Errno::EOPNOTSUPP,
        Error::ReadOnly => Errno::EROFS,
        Error::PermissionDenied => Errno::EACCES,
        Error::NotPermitted => Errno::EPERM,
        Error::NoSpace => Errno::ENOSPC,
        Error::TooLarge => Errno::EFBIG,
        Error::NoAttribute => Errno::ENODATA,
        Error::BadHandle => Errno::EBADF,
        Error::NoOffset => Errno::ENXIO,
        // The caller never sees it: it is being killed.
        Error::Interrupted(_) => Errno::EINTR,
        Error::Shared(error) => self::errno(error),
        // Network errnos (ENETUNREACH, ETIMEDOUT) would say more, but read(2) and open(2) of a file
        // are not documented to give them, and programs retry or ignore what they do not know.
        Error::Offline => Errno::EIO,
        // Distinct from every other failure, so that a program or a person can tell "restore it
        // first" from "broken" and from "may not"; s3fs gives the same.
        Error::Archived => Errno::EREMOTE,
        Error::Store(error) => store_errno(error.kind),
        // Latched or closed: nothing is written any more, whoever asks.
        Error::Journal(_) => Errno::EIO,
        Error::Io(error) => local_errno(error),
        // Written while the disk was full: what a write would have said had it been seen (C6).
        Error::Held(Hold::DiskFull) => Errno::ENOSPC,
        Error::Held(
            Hold::Crash | Hold::Power | Hold::KilledWriter | Hold::Journal | Hold::Incomplete | Hold::DiskFailed,
        ) => Errno::EIO,
        Error::NotUploaded(NotUploaded::Changed) => Errno::EIO,
        Error::NotUploaded(NotUploaded::Failed(cause, _)) => not_uploaded_errno(cause),
        Error::Stale => Errno::ESTALE,
        Error::Corrupt => Errno::EIO,
    }
}

/// What the store refused. The log has its message and request id.
#[deny(clippy::wildcard_enum_match_arm)]
fn store_errno(kind: store::ErrorKind) -> Errno {
    use store::ErrorKind;
    match kind {
        ErrorKind::NotFound => Errno::ENOENT,
        // Another version is there: open(2) walks the path again on ESTALE and finds it.
        ErrorKind::Precondition => Errno::ESTALE,
        ErrorKind::Archived => Errno::EREMOTE,
        // The store's "may not" is the caller's too, whoever holds the credentials.
        ErrorKind::Credentials | ErrorKind::AccessDenied => Errno::EACCES,
        // A matter of configuration or of the other end, nothing that this caller did.
        ErrorKind::NoSuchBucket
        | ErrorKind::NoSuchUpload
        | ErrorKind::AlreadyExists
        | ErrorKind::Region
        | ErrorKind::Throttled
        | ErrorKind::BadDigest
        | ErrorKind::InvalidPart
        | ErrorKind::InvalidRange
        | ErrorKind::Rejected
        | ErrorKind::ClockSkew
        | ErrorKind::Network
        | ErrorKind::Timeout
        | ErrorKind::Server
        | ErrorKind::BadReply => Errno::EIO,
    }
}

/// Why what a close or fsync waits for is not in the bucket.
#[deny(clippy::wildcard_enum_match_arm)]
fn not_uploaded_errno(cause: &Cause) -> Errno {
    match cause {
        Cause::Denied => Errno::EACCES,
        Cause::Quota => Errno::EDQUOT,
        Cause::Full => Errno::ENOSPC,
        Cause::Local(Some(raw)) => local_errno(&io::Error::from_raw_os_error(*raw)),
        Cause::Local(None) | Cause::Offline | Cause::Mismatch | Cause::Store | Cause::Stuck => Errno::EIO,
        Cause::Unsettled(_, cause) => not_uploaded_errno(cause),
    }
}

/// A failed call on our own files. Its number is passed on where it tells of space, limits, sizes
/// and offsets; one about names, descriptors and permissions tells of a file that the caller never
/// named (ENOENT for a lost backing file would make programs create the file anew), so it is EIO.
fn local_errno(error: &io::Error) -> Errno {
    let Some(raw) = disk::errno(error) else {
        return if error.kind() == io::ErrorKind::StorageFull { Errno::ENOSPC } else { Errno::EIO };
    };
    match raw {
        libc::ENOENT
        | libc::ENOTDIR
        | libc::EISDIR
        | libc::EEXIST
        | libc::ENOTEMPTY
        | libc::EACCES
        | libc::EPERM
        | libc::ELOOP
        | libc::EXDEV
        | libc::ENAMETOOLONG
        | libc::EBADF
        | libc::ESTALE => Errno::EIO,
        // See NotSupported above.
        libc::ENOSYS => Errno::EOPNOTSUPP,
        1..=LARGEST => Errno::from_i32(raw),
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_errno(error: io::Error) -> i32 {
        errno(&vfs::Error::Io(error)).code()
    }

    fn store_error(kind: store::ErrorKind) -> vfs::Error {
        vfs::Error::Store(store::Error {
            kind,
            outcome: store::Outcome::NotApplied,
            what: "GET cos://bucket/key".to_owned(),
            status: None,
            code: None,
            message: None,
            request_id: None,
            attempts: 1,
            retry_after_s: None,
            source: None,
        })
    }

    #[test]
    fn errors_of_posix_have_their_posix_number() {
        assert_eq!(errno(&vfs::Error::NotFound).code(), libc::ENOENT);
        assert_eq!(errno(&vfs::Error::NotEmpty).code(), libc::ENOTEMPTY);
        assert_eq!(errno(&vfs::Error::CrossDevice).code(), libc::EXDEV);
        assert_eq!(errno(&vfs::Error::IllegalName).code(), libc::EILSEQ);
        assert_eq!(errno(&vfs::Error::NoAttribute).code(), libc::ENODATA);
        assert_eq!(errno(&vfs::Error::NoOffset).code(), libc::ENXIO);
        assert_eq!(errno(&vfs::Error::NotSupported).code(), libc::EOPNOTSUPP);
    }

    #[test]
    fn an_archived_object_is_told_from_all_else() {
        assert_eq!(errno(&vfs::Error::Archived).code(), libc::EREMOTE);
        assert_eq!(errno(&store_error(store::ErrorKind::Archived)).code(), libc::EREMOTE);
        assert_eq!(errno(&store_error(store::ErrorKind::AccessDenied)).code(), libc::EACCES);
        assert_eq!(errno(&store_error(store::ErrorKind::Precondition)).code(), libc::ESTALE);
        assert_eq!(errno(&store_error(store::ErrorKind::Network)).code(), libc::EIO);
        assert_eq!(errno(&vfs::Error::Offline).code(), libc::EIO);
    }

    #[test]
    fn what_is_not_in_the_bucket_says_why() {
        let number = |cause| errno(&vfs::Error::NotUploaded(NotUploaded::Failed(cause, String::new()))).code();
        assert_eq!(number(Cause::Denied), libc::EACCES);
        assert_eq!(number(Cause::Quota), libc::EDQUOT);
        assert_eq!(number(Cause::Full), libc::ENOSPC);
        assert_eq!(number(Cause::Offline), libc::EIO);
        assert_eq!(number(Cause::Local(Some(libc::EFBIG))), libc::EFBIG);
        assert_eq!(number(Cause::Unsettled(1, Box::new(Cause::Quota))), libc::EDQUOT);
        assert_eq!(errno(&vfs::Error::NotUploaded(NotUploaded::Changed)).code(), libc::EIO);
        assert_eq!(errno(&vfs::Error::Held(Hold::DiskFull)).code(), libc::ENOSPC);
    }

    #[test]
    fn local_errors_keep_what_tells_of_the_callers_request() {
        assert_eq!(io_errno(io::Error::from_raw_os_error(libc::ENOSPC)), libc::ENOSPC);
        assert_eq!(io_errno(io::Error::from_raw_os_error(libc::EDQUOT)), libc::EDQUOT);
        assert_eq!(io_errno(io::Error::from_raw_os_error(libc::EFBIG)), libc::EFBIG);
        assert_eq!(io_errno(io::Error::from_raw_os_error(libc::ENOENT)), libc::EIO);
        assert_eq!(io_errno(io::Error::from_raw_os_error(libc::EACCES)), libc::EIO);
        assert_eq!(io_errno(io::Error::from_raw_os_error(libc::ENOSYS)), libc::EOPNOTSUPP);
        assert_eq!(io_errno(io::Error::from_raw_os_error(600)), libc::EIO);
        assert_eq!(io_errno(io::Error::other("no number")), libc::EIO);
        assert_eq!(io_errno(io::ErrorKind::StorageFull.into()), libc::ENOSPC);
    }

    #[test]
    fn an_error_that_names_its_path_keeps_its_number() {
        let dir = tempfile::tempdir().unwrap();
        // A directory into itself: EINVAL.
        let error = disk::rename(dir.path(), &dir.path().join("inside")).unwrap_err();
        assert_eq!(error.raw_os_error(), None);
        assert_eq!(io_errno(error), libc::EINVAL);
    }
}
