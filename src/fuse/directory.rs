//! Replies to READDIR and READDIRPLUS.

use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use crate::fuse::decode::{file_attr, file_type};
use crate::fuse::opened::GENERATION;
use crate::types::{Ino, TimeNs};
use crate::vfs;
use crate::vfs::{DirEntry, Entry, Stat, Vfs};

/// Entries asked for at once. The kernel's buffer (a page, or more) takes an unknown number of
/// them: plus entries are 152 bytes and their name, so this fills a page about once.
const BATCH: usize = 32;

/// Fills a READDIR reply.
///
/// # Errors
/// The vfs room's, if not even one entry could be given; an error later is met again, at its
/// offset, by the next request.
pub(super) async fn fill(vfs: &Vfs, ino: Ino, fh: u64, offset: u64, reply: &mut ReplyDirectory) -> vfs::Result<()> {
    stream(vfs, ino, fh, offset, false, |entry| {
        reply.add(INodeNo(entry.ino.0), entry.next_offset, file_type(entry.kind), &entry.name)
    })
    .await
}

/// Fills a READDIRPLUS reply. The lookup count of each entry in it is raised before it is sent.
///
/// # Errors
/// As [`fill`].
pub(super) async fn fill_plus(
    vfs: &Vfs,
    ino: Ino,
    fh: u64,
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> vfs::Result<()> {
    stream(vfs, ino, fh, offset, true, |entry| {
        let full = |known: &Entry, reply: &mut ReplyDirectoryPlus| {
            // One number for both lives here: the shorter is right for both.
            let ttl = known.ttl.min(known.stat.ttl);
            let attr = file_attr(&known.stat);
            reply.add(attr.ino, entry.next_offset, &entry.name, &ttl, &attr, GENERATION)
        };
        match &entry.entry {
            Some(known) => {
                let full = full(known, reply);
                if !full {
                    vfs.remember(entry.ino);
                }
                full
            }
            // `.` and `..`: the kernel takes their number and kind and counts no lookup.
            None => full(&bare(entry), reply),
        }
    })
    .await
}

/// Gives entries to `add` until it is full or the directory ends.
async fn stream(
    vfs: &Vfs,
    ino: Ino,
    fh: u64,
    mut offset: u64,
    plus: bool,
    mut add: impl FnMut(&DirEntry) -> bool,
) -> vfs::Result<()> {
    let mut added = false;
    loop {
        let entries = match vfs.readdir(ino, fh, offset, BATCH, plus).await {
            Ok(entries) => entries,
            Err(_) if added => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(last) = entries.last() else { return Ok(()) };
        offset = last.next_offset;
        for entry in &entries {
            if plus && entry.entry.is_none() && !matches!(entry.name.as_str(), "." | "..") {
                // Its inode number would count as a lookup that nobody recorded.
                tracing::error!(ino = ino.0, name = entry.name, "an entry of readdirplus has no attributes");
                return if added { Ok(()) } else { Err(vfs::Error::Invalid) };
            }
            if add(entry) {
                return Ok(());
            }
            added = true;
        }
    }
}

/// `.` or `..` as an entry whose attributes the kernel ignores.
fn bare(entry: &DirEntry) -> Entry {
    let stat = Stat {
        ino: entry.ino,
        kind: entry.kind,
        mode: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        atime: TimeNs(0),
        mtime: TimeNs(0),
        ctime: TimeNs(0),
        ttl: std::time::Duration::ZERO,
    };
    Entry { stat, ttl: std::time::Duration::ZERO }
}
