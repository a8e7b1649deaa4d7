//! What a start makes of the content that the last one left (C5).

use std::collections::HashSet;
use std::fs::File;

use crate::cache::{Cache, TagState, mark, same_mark};
use crate::journal::{Content, Durability, Hold, InodeRow, Mark, Op};
use crate::namespace::{Namespace, Tree};
use crate::types::{BackingNo, FileKind, Ino};

use super::error::Result;

/// Name of the boot in the journal.
pub(super) const BOOT_ID: &str = "boot_id";

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Files that wait for the bucket.
    pub to_upload: usize,
    /// Files held as torn, old and new.
    pub torn: usize,
    /// Files of which nothing was left.
    pub lost: usize,
    /// Backing files without a row.
    pub orphans: usize,
}

/// What this start knows of the last one.
#[derive(Clone, Copy)]
struct Start<'a> {
    /// The machine went down since.
    rebooted: bool,
    /// Of this boot.
    boot_id: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// As the row says.
    Keep,
    /// Closed by its writer: upload.
    Upload,
    /// Somebody may still write to the backing file, or was writing when the daemon ended: held,
    /// under a backing file that no old descriptor reaches.
    Torn(Hold),
    /// The backing file is not there.
    Missing,
}

/// Looks at every inode with dirty content. `boot_id`: of this boot.
///
/// # Errors
/// The journal or the disk failed.
pub(super) fn recover(namespace: &Namespace, cache: &Cache, boot_id: &str) -> Result<Recovered> {
    let last_boot = namespace.journal().meta(BOOT_ID)?;
    let start = Start { rebooted: last_boot.as_deref() != Some(boot_id), boot_id };
    let first_new = cache.reserve()?;
    let mut recovered = Recovered::default();
    let rows: Vec<InodeRow> =
        namespace.read(|tree| tree.inodes().filter(|inode| inode.persisted).map(|inode| inode.row.clone()).collect());
    for row in &rows {
        if !row.linked && row.content != Content::Torn {
            forget_unlinked(namespace, row);
            continue;
        }
        if row.kind != FileKind::File {
            continue;
        }
        settle(namespace, cache, row, start, &mut recovered)?;
    }
    let boot = Op::SetMeta(BOOT_ID, boot_id.to_owned());
    let ((), commit) = namespace.update(Durability::Disk, |_, ops| ops.push(boot));
    futures::executor::block_on(commit.durable())?;
    let known: HashSet<BackingNo> =
        namespace.read(|tree| tree.inodes().filter_map(|inode| inode.row.backing).collect());
    recovered.orphans = cache.remove_orphans(&known, first_new)?;
    Ok(recovered)
}

/// Its handles died with the last daemon; its removal, if any, is a row of its own.
fn forget_unlinked(namespace: &Namespace, row: &InodeRow) {
    let (_, commit) = namespace.update(Durability::Buffered, |tree, ops| tree.reap(row.ino, ops));
    // The barrier at the end of recovery carries it; the orphan cleaner takes the file.
    commit.in_background();
}

fn settle(
    namespace: &Namespace,
    cache: &Cache,
    row: &InodeRow,
    start: Start<'_>,
    recovered: &mut Recovered,
) -> Result<()> {
    let rebooted = start.rebooted;
    if row.content == Content::Absent {
        return Ok(());
    }
    if row.content == Content::Clean {
        // A cache directory may be emptied between starts: what is missing is fetched again.
        let mut missing = true;
        if let Some(backing) = row.backing {
            missing = cache.open_read(backing).is_err();
            cache.tell(backing, row.size, true);
        }
        if rebooted || missing {
            namespace.touch(|tree| {
                if let Some(inode) = tree.get_mut(row.ino) {
                    inode.unverified = true;
                }
            });
        }
        return Ok(());
    }
    let partial = namespace.read(|tree| tree.get(row.ino).is_some_and(|inode| inode.partial.is_some()));
    let file = row.backing.map(|backing| cache.open_read(backing));
    let verdict = match &file {
        Some(Ok(_)) if partial => judge_partial(row, start.rebooted),
        Some(Ok(file)) => judge(cache, row, file, start)?,
        Some(Err(crate::cache::Error::Io(error))) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(super::Error::Io(std::io::Error::other(error.to_string())));
        }
        Some(Err(_)) | None => Verdict::Missing,
    };
    match verdict {
        Verdict::Keep => recovered.torn += 1,
        Verdict::Upload => recovered.to_upload += 1,
        Verdict::Torn(_) => recovered.torn += 1,
        Verdict::Missing => recovered.lost += 1,
    }
    let file = match file {
        Some(Ok(file)) => Some(file),
        _ => None,
    };
    apply(namespace, cache, row, verdict, file, start)
}

/// C7: of a file that is not wholly here neither times nor lease tell anything, but the daemon alone
/// wrote to it, and took its mark back before each change.
fn judge_partial(row: &InodeRow, rebooted: bool) -> Verdict {
    let synced = row.mark.is_some_and(|marked| marked.synced);
    match row.content {
        Content::Closed | Content::Flushed if !rebooted || synced => Verdict::Upload,
        Content::Closed | Content::Flushed => Verdict::Torn(Hold::Power),
        Content::Open => Verdict::Torn(row.hold.unwrap_or(if rebooted { Hold::Power } else { Hold::Crash })),
        // Not on the disk, it must not hide the good version.
        Content::Torn if rebooted && row.linked && row.mark.is_some() && !synced => Verdict::Torn(Hold::Power),
        Content::Torn | Content::Absent | Content::Clean => Verdict::Keep,
    }
}

fn judge(cache: &Cache, row: &InodeRow, file: &File, start: Start<'_>) -> Result<Verdict> {
    let rebooted = start.rebooted;
    if row.content == Content::Torn && rebooted {
        // Its descriptors are gone; its content, if it was not on the disk, too: it must not hide the
        // good version.
        let now = mark(file)?;
        let lost = row.mark.is_some_and(|marked| !(marked.synced && same_mark(&marked, &now)));
        return Ok(if lost && row.linked { Verdict::Torn(Hold::Power) } else { Verdict::Keep });
    }
    let quiet = cache.is_quiescent(file)?;
    let now = mark(file)?;
    let holds = |marked: &Option<Mark>| marked.as_ref().is_some_and(|marked| same_mark(marked, &now));
    let synced = row.mark.is_some_and(|marked| marked.synced);
    Ok(match row.content {
        Content::Torn if quiet => Verdict::Keep,
        Content::Torn => Verdict::Torn(row.hold.unwrap_or(Hold::Crash)),
        Content::Closed | Content::Flushed if rebooted => {
            // A mark can match old or empty content unless fdatasync came before it.
            if synced && holds(&row.mark) { Verdict::Upload } else { Verdict::Torn(Hold::Power) }
        }
        Content::Closed | Content::Flushed => {
            // The end of a session tags the file before its row has the mark, which that moves.
            if quiet && (holds(&row.mark) || cache.tells_closed(file, row.generation, start.boot_id)?) {
                Verdict::Upload
            } else {
                Verdict::Torn(Hold::Crash)
            }
        }
        // As a program left it at its last fsync: nothing is missing.
        Content::Open if synced && holds(&row.mark) && now.size > 0 => Verdict::Torn(row.hold.unwrap_or(Hold::Crash)),
        Content::Open => Verdict::Torn(row.hold.unwrap_or(if rebooted { Hold::Power } else { Hold::Crash })),
        Content::Absent | Content::Clean => Verdict::Keep,
    })
}

fn apply(
    namespace: &Namespace,
    cache: &Cache,
    row: &InodeRow,
    verdict: Verdict,
    file: Option<File>,
    start: Start<'_>,
) -> Result<()> {
    let now = file.as_ref().map(mark).transpose()?;
    let size = now.map_or(0, |now| now.size);
    drop(file);
    let shown = namespace.read(|tree| tree.shown_held_path(row.ino));
    let durability = Durability::Buffered;
    match verdict {
        Verdict::Keep => {
            if let Some(backing) = row.backing {
                cache.tell(backing, size, false);
            }
            // What the last start could not know may be known by now.
            let (_unseen, commit) = namespace.update(durability, |tree, ops| tree.set_aside_if_doubtful(row.ino, ops));
            commit.in_background();
        }
        Verdict::Upload => {
            if let Some(backing) = row.backing {
                cache.tell(backing, size, false);
            }
            let ((), commit) = namespace.update(durability, |tree, ops| {
                if let Some(inode) = tree.get_mut(row.ino) {
                    inode.row.content = Content::Closed;
                    if let Some(now) = now {
                        let synced = row.mark.is_some_and(|marked| marked.synced && same_mark(&marked, &now));
                        inode.row.mark = Some(Mark { synced, ..now });
                        inode.row.size = size;
                    }
                    tree.persist(row.ino, ops);
                }
            });
            commit.in_background();
        }
        Verdict::Torn(hold) => {
            tracing::warn!(
                path = shown,
                ?hold,
                "torn: kept here, not uploaded; the bucket keeps the last good version"
            );
            // Descriptors and mappings of the dead mount go on writing to the old backing inode.
            let lacking = namespace.read(|tree| tree.get(row.ino).is_some_and(|inode| inode.partial.is_some()));
            let fresh = match row.backing {
                // The kernel never had it.
                Some(backing) if lacking => {
                    cache.tell(backing, size, false);
                    Some(backing)
                }
                Some(backing) => {
                    let tag =
                        namespace.read(|tree| super::Vfs::tag(tree, row.ino, TagState::Open(start.boot_id.to_owned())));
                    let Some(tag) = tag else { return Err(super::Error::NotFound) };
                    Some(cache.duplicate(backing, &tag)?)
                }
                None => None,
            };
            let ((), commit) =
                namespace.update(Durability::Disk, |tree, ops| hold_torn(tree, row.ino, hold, fresh, size, ops));
            futures::executor::block_on(commit.durable())?;
            if let Some(old) = row.backing.filter(|old| Some(*old) != fresh) {
                cache.discard(old);
            }
        }
        Verdict::Missing => {
            tracing::error!(
                path = shown,
                "the local content is not there any more; the bucket's last version, if any, is shown"
            );
            let (_, commit) = namespace.update(durability, |tree, ops| {
                let has_remote = tree.get(row.ino).is_some_and(|inode| inode.row.remote.is_some());
                if let Some(inode) = tree.get_mut(row.ino) {
                    inode.row.backing = None;
                    inode.row.mark = None;
                    inode.row.hold = None;
                    inode.row.content = Content::Absent;
                    inode.row.size = inode.row.remote.as_ref().map_or(0, |remote| remote.size);
                    inode.row.generation = inode.row.remote_generation;
                    tree.persist(row.ino, ops);
                    tree.set_partial(row.ino, None, ops);
                    tree.set_copied(row.ino, None, ops);
                }
                if !row.linked {
                    // Held aside: nothing is left to hold.
                    tree.reap(row.ino, ops);
                } else if !has_remote && let Err(error) = tree.unlink(row.parent, &row.name, row.ctime, ops) {
                    tracing::error!(%error, name = row.name, "a name without content could not be removed");
                }
            });
            commit.in_background();
        }
    }
    Ok(())
}

/// After a power cut the name goes back to the remote version, if one exists, and the torn content
/// lives on nameless (for `recover`); otherwise, or if a program was told that it is on the disk, the
/// torn content is visible at its path.
fn hold_torn(tree: &mut Tree, ino: Ino, hold: Hold, fresh: Option<BackingNo>, size: u64, ops: &mut Vec<Op>) {
    let Some(inode) = tree.get_mut(ino) else { return };
    inode.row.content = Content::Torn;
    inode.row.hold = Some(hold);
    inode.row.backing = fresh;
    inode.row.mark = None;
    inode.row.size = size;
    tree.persist(ino, ops);
    // Nothing is mounted yet that would have to forget the name.
    let _unseen = tree.set_aside_if_doubtful(ino, ops);
}
