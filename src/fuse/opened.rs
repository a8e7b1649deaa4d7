//! Replies to OPEN and CREATE.

use fuser::{FileHandle, FopenFlags, Generation, ReplyCreate, ReplyOpen};

use crate::fuse::decode::file_attr;
use crate::vfs::{Entry, OpenMode, Opened};

/// Inode numbers are never reused (J6), so no generation is needed to tell two inodes apart.
pub(super) const GENERATION: Generation = Generation(0);

/// The flags of a handle.
fn flags(opened: &Opened) -> FopenFlags {
    let mut flags = match opened.mode {
        // fuser adds FOPEN_PASSTHROUGH itself; KEEP_CACHE beside it would be EIO.
        OpenMode::Passthrough(_) | OpenMode::Cached { keep: false } => FopenFlags::empty(),
        OpenMode::Direct => FopenFlags::FOPEN_DIRECT_IO,
        OpenMode::Cached { keep: true } => FopenFlags::FOPEN_KEEP_CACHE,
    };
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags
}

/// Answers OPEN.
pub(super) fn reply_open(reply: ReplyOpen, opened: &Opened) {
    let fh = FileHandle(opened.fh);
    let OpenMode::Passthrough(id) = opened.mode else {
        return reply.opened(fh, flags(opened));
    };
    // SAFETY: vfs hands out only ids that this session's registrar registered, and gives one back
    // only after the last handle of its inode is released, hence not before this reply (C1). The
    // wrapper is turned back into the number below, so that it closes nothing.
    #[expect(unsafe_code, reason = "fuser takes no plain id")]
    let backing = unsafe { reply.wrap_backing(id) };
    reply.opened_passthrough(fh, flags(opened), &backing);
    backing.into_raw();
}

/// Answers CREATE.
pub(super) fn reply_create(reply: ReplyCreate, entry: &Entry, opened: &Opened) {
    let fh = FileHandle(opened.fh);
    let attr = file_attr(&entry.stat);
    // One number for both lives here: the shorter is right for both.
    let ttl = entry.ttl.min(entry.stat.ttl);
    let OpenMode::Passthrough(id) = opened.mode else {
        return reply.created(&ttl, &attr, GENERATION, fh, flags(opened));
    };
    // SAFETY: as in `reply_open`.
    #[expect(unsafe_code, reason = "fuser takes no plain id")]
    let backing = unsafe { reply.wrap_backing(id) };
    reply.created_passthrough(&ttl, &attr, GENERATION, fh, flags(opened), &backing);
    backing.into_raw();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(mode: OpenMode, no_flush: bool) -> Opened {
        Opened { fh: 1, mode, no_flush }
    }

    #[test]
    fn modes_have_their_flags() {
        assert_eq!(flags(&opened(OpenMode::Passthrough(3), false)), FopenFlags::empty());
        assert_eq!(flags(&opened(OpenMode::Passthrough(3), true)), FopenFlags::FOPEN_NOFLUSH);
        assert_eq!(flags(&opened(OpenMode::Direct, false)), FopenFlags::FOPEN_DIRECT_IO);
        assert_eq!(flags(&opened(OpenMode::Cached { keep: false }, false)), FopenFlags::empty());
        let kept = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        assert_eq!(flags(&opened(OpenMode::Cached { keep: true }, true)), kept);
    }
}
