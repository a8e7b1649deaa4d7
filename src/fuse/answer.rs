//! Replies that many requests share.

use bytes::Bytes;
use fuser::{Errno, INodeNo, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyXattr};

use crate::fuse::decode::file_attr;
use crate::fuse::errno::errno;
use crate::fuse::opened::GENERATION;
use crate::vfs;
use crate::vfs::{Entry, Stat};

/// The number for an error; one whose number hides its cause is logged here, once.
pub(super) fn refuse(operation: &'static str, number: INodeNo, error: &vfs::Error) -> Errno {
    let errno = errno(error);
    // Offline fails every call for a while, and the mapping's state is logged where it changes.
    if errno.code() == libc::EIO && !matches!(error.first(), vfs::Error::Offline) {
        tracing::warn!(operation, ino = number.0, %error, "a request failed");
    } else {
        tracing::debug!(operation, ino = number.0, %error, errno = errno.code(), "a request was refused");
    }
    errno
}

/// Answers with a name's inode.
pub(super) fn entry(operation: &'static str, number: INodeNo, result: vfs::Result<Entry>, reply: ReplyEntry) {
    match result {
        Ok(entry) => reply.entry_with_ttls(&entry.stat.ttl, &entry.ttl, &file_attr(&entry.stat), GENERATION),
        Err(error) => reply.error(refuse(operation, number, &error)),
    }
}

/// Answers with attributes.
pub(super) fn attr(operation: &'static str, number: INodeNo, result: vfs::Result<Stat>, reply: ReplyAttr) {
    match result {
        Ok(stat) => reply.attr(&stat.ttl, &file_attr(&stat)),
        Err(error) => reply.error(refuse(operation, number, &error)),
    }
}

/// Answers with success alone.
pub(super) fn empty(operation: &'static str, number: INodeNo, result: vfs::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refuse(operation, number, &error)),
    }
}

/// Answers with bytes.
pub(super) fn data(operation: &'static str, number: INodeNo, result: vfs::Result<Bytes>, reply: ReplyData) {
    match result {
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(refuse(operation, number, &error)),
    }
}

/// Answers with an attribute's bytes; `room` 0 asks for their number alone (getxattr(2)).
pub(super) fn xattr(
    operation: &'static str,
    number: INodeNo,
    room: u32,
    result: vfs::Result<Bytes>,
    reply: ReplyXattr,
) {
    match result {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(size) if room == 0 => reply.size(size),
            Ok(size) if size <= room => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(refuse(operation, number, &error)),
    }
}
