//! Attributes: stat, chmod, chown, utimensat, truncate.

use std::time::Duration;

use crate::cache::{mark, same_mark};
use crate::disk;
use crate::journal::{Content, Durability, Mark};
use crate::namespace::Inode;
use crate::task::interruptible;
use crate::types::{FileKind, Ino, TimeNs};

use super::Vfs;
use super::error::{Error, Result};
use super::locks::Locked;
use super::reply::{Caller, Entry, SetAttr, SetTime, Stat};

/// Longest life of attributes that change without our hearing of it: stores through a mapping move
/// the times of a backing file unseen (C8, PASSTHROUGH section 4).
const LIVE_TTL: Duration = Duration::from_secs(1);

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// suid goes; sgid goes if the group may execute (otherwise it means mandatory locking, chmod(2)).
fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !S_ISUID;
    if mode & S_IXGRP == 0 { mode } else { mode & !S_ISGID }
}

impl Vfs {
    /// stat of an inode as it is now.
    pub(super) fn stat(&self, ino: Ino) -> Result<Stat> {
        let attr_ttl = self.inner.namespace.attributes_ttl(ino);
        let mut stat = self.with_inode(ino, |inode| stat_of(inode, attr_ttl))?;
        if let Some(file) = self.inner.live.get(ino) {
            let live = disk::fstat(&file)?;
            stat.size = live.size;
            // The disk's own count has holes left out, and a block for our extended attributes in.
            stat.blocks = live.blocks.min(blocks(live.size));
            stat.mtime = live.mtime;
            stat.ctime = stat.ctime.max(live.ctime);
            stat.ttl = stat.ttl.min(LIVE_TTL);
        }
        if self.is_partial(ino) {
            stat.ttl = stat.ttl.min(LIVE_TTL);
        }
        Ok(stat)
    }

    pub(super) fn entry(&self, ino: Ino) -> Result<Entry> {
        let stat = self.stat(ino)?;
        Ok(Entry { stat, ttl: self.inner.namespace.name_ttl(ino) })
    }

    pub(super) async fn do_getattr(&self, ino: Ino) -> Result<Stat> {
        // Defaults, if the bucket cannot be asked now: the name is there.
        match self.inner.namespace.ensure_attributes(ino).await {
            Ok(current) if current != ino => return Err(Error::Stale),
            Ok(_) | Err(crate::namespace::Error::Offline(_) | crate::namespace::Error::NotFound) => {}
            Err(crate::namespace::Error::Store(error)) if error.is_offline() => {}
            Err(error) => return Err(error.into()),
        }
        self.stat(ino)
    }

    pub(super) async fn do_setattr(&self, ino: Ino, change: SetAttr, caller: Caller) -> Result<Stat> {
        let ino = match self.inner.namespace.ensure_attributes(ino).await? {
            current if current == ino => ino,
            _ => return Err(Error::Stale),
        };
        let mut state = interruptible(self.inner.locks.lock(ino)).await?;
        let changed = self.setattr_locked(ino, change, caller, &mut state).await;
        self.inner.locks.release(ino, state);
        changed?;
        self.stat(ino)
    }

    async fn setattr_locked(&self, ino: Ino, change: SetAttr, caller: Caller, state: &mut Locked) -> Result<()> {
        if let Some(size) = change.size {
            self.truncate(ino, size, state).await?;
        }
        let wall = self.now();
        let at = |time: Option<SetTime>| {
            time.map(|time| match time {
                SetTime::Now => wall,
                SetTime::At(time) => time,
            })
        };
        let (atime, mtime) = (at(change.atime), at(change.mtime));
        if let Some(mtime) = mtime {
            self.set_backing_mtime(ino, mtime, state)?;
        }
        let strip = nothing_set(&change) || (change.size.is_some() && caller.uid != 0);
        let (altered, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            // Neither a mapping's top has an object for them, nor what has a file in the marker's place.
            let top = tree.is_top(ino) || tree.has_nameless_file(ino);
            let inode = tree.get_mut(ino).ok_or(Error::NotFound)?;
            let before = inode.row.attrs;
            let attrs = &mut inode.row.attrs;
            if let Some(uid) = change.uid {
                attrs.uid = uid;
            }
            if let Some(gid) = change.gid {
                attrs.gid = gid;
            }
            let chowned = change.uid.is_some() || change.gid.is_some();
            if inode.row.kind != FileKind::Dir && (strip || chowned) {
                attrs.mode = without_privileges(attrs.mode);
            }
            if let Some(mode) = change.mode {
                attrs.mode = mode & 0o7777;
            }
            if let Some(mtime) = mtime {
                attrs.mtime = mtime;
            }
            if let Some(atime) = atime {
                inode.atime = Some(atime);
            }
            if !nothing_set(&change) || inode.row.attrs != before {
                inode.row.ctime = wall;
            }
            let altered = inode.row.attrs != before;
            if altered {
                inode.row.attr_generation += 1;
                if inode.row.kind == FileKind::Dir && inode.row.remote.is_none() {
                    // Attributes of a directory need an object that carries them; a top has none.
                    inode.row.marker_wanted = !top;
                }
                if tree.get(ino).is_some_and(|inode| inode.row.linked) {
                    tree.persist(ino, ops);
                }
            }
            Ok::<_, Error>(altered)
        });
        let altered = altered?;
        commit.durable().await?;
        if altered {
            self.inner.uploader.changed(ino);
        }
        Ok(())
    }

    /// The backing file of a session carries the program's time, so that the final mark takes it
    /// over; a file that was not written to meanwhile still counts as unchanged.
    fn set_backing_mtime(&self, ino: Ino, mtime: TimeNs, state: &mut Locked) -> Result<()> {
        let Some(session) = state.session.as_mut() else { return Ok(()) };
        if self.is_partial(ino) {
            // Its row tells the time, and the file gets it when it is whole.
            return Ok(());
        }
        let (backing, file) = self.inner.backing_file(ino)?;
        let now = mark(&file)?;
        let untouched = same_mark(&now, &session.base);
        let stat = disk::fstat(&file)?;
        // J5: a time set back could make a file that was written to since look as it was closed.
        if let Some(tag) = self.inner.namespace.read(|tree| Vfs::tag(tree, ino, self.open_now())) {
            self.inner.cache.retag(&file, &tag)?;
        }
        // As its owner: set_times needs no descriptor that may write, but the lease asks for none.
        disk::set_times(&self.inner.cache.open_write(backing)?, stat.atime, mtime)?;
        let then = mark(&file)?;
        if untouched {
            session.base = then;
        }
        // The content is still the one that was offered; only its time is another.
        if let Some(version) = session.version.as_mut().filter(|version| same_mark(&version.mark, &now)) {
            version.mark = Mark { synced: version.mark.synced, ..then };
        }
        // C3: our own change of the file moves the provisional mark too, or what was closed a
        // moment ago would count as torn after a crash. The caller's commit waits for this row. The new times are
        // not on the disk: the end of the session has that done.
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            if let Some(inode) = tree.get_mut(ino)
                && inode.row.content == Content::Flushed
                && inode.row.mark.is_some_and(|marked| same_mark(&marked, &now))
            {
                inode.row.mark = Some(then);
                tree.persist(ino, ops);
            }
        });
        commit.in_background();
        Ok(())
    }

    async fn truncate(&self, ino: Ino, size: u64, state: &mut Locked) -> Result<()> {
        match self.with_inode(ino, |inode| inode.row.kind)? {
            FileKind::Dir => return Err(Error::IsDirectory),
            FileKind::File => {}
            _ => return Err(Error::Invalid),
        }
        if size > i64::MAX as u64 {
            return Err(Error::TooLarge);
        }
        if size == 0 {
            self.begin_truncated(ino, Durability::Buffered, state).await?;
        } else if self.is_partly_here(ino, state)? {
            self.truncate_partly(ino, size, state).await?;
        } else {
            self.ensure_local(ino).await?;
            self.begin_session(ino, Durability::Buffered, state).await?;
            // J2: the row is on disk before the file is cut.
            self.inner.namespace.barrier().await?;
            let (backing, file) = self.inner.backing_file(ino)?;
            let before = mark(&file)?;
            disk::truncate(&self.inner.cache.open_write(backing)?, size)?;
            let after = mark(&file)?;
            let (marked, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
                let Some(inode) = tree.get_mut(ino) else { return false };
                inode.row.size = size;
                let is_flushed = inode.row.content == Content::Flushed;
                // C3: our own change moves the mark of a close whose RELEASE is on its way; one that means other
                // content goes.
                let marked = is_flushed && inode.row.mark.is_some_and(|marked| same_mark(&marked, &before));
                if marked {
                    inode.row.mark = Some(Mark { synced: false, ..after });
                } else if is_flushed {
                    inode.row.content = Content::Open;
                    inode.row.mark = None;
                }
                tree.persist(ino, ops);
                marked
            });
            commit.durable().await?;
            if marked {
                self.doubt_later(ino, after);
            }
        }
        if state.writers == 0 {
            // Nobody has it open for writing: truncate(2) is a session of its own, and so also its close (P1).
            self.try_end_session(ino, state).await;
            self.inner.namespace.committed().await?;
        }
        Ok(())
    }
}

fn nothing_set(change: &SetAttr) -> bool {
    change.mode.is_none()
        && change.uid.is_none()
        && change.gid.is_none()
        && change.size.is_none()
        && change.atime.is_none()
        && change.mtime.is_none()
}

/// Blocks of 512 bytes that so many bytes take, in pages as a local disk counts.
fn blocks(size: u64) -> u64 {
    size.div_ceil(4096).saturating_mul(8)
}

fn stat_of(inode: &Inode, attr_ttl: Duration) -> Stat {
    let row = &inode.row;
    let nlink = match (row.linked, row.kind) {
        (false, _) => 0,
        (true, FileKind::Dir) => match &inode.dir {
            Some(state) if state.listed.is_some() => 2 + state.dirs(),
            // As other filesystems say that they do not count: find(1) then counts on nothing.
            _ => 1,
        },
        (true, _) => 1,
    };
    Stat {
        ino: row.ino,
        kind: row.kind,
        mode: row.attrs.mode,
        nlink,
        uid: row.attrs.uid,
        gid: row.attrs.gid,
        size: row.size,
        blocks: if row.kind == FileKind::File { blocks(row.size) } else { 0 },
        atime: inode.atime.unwrap_or(row.attrs.mtime),
        mtime: row.attrs.mtime,
        ctime: row.ctime,
        ttl: if row.attrs_known { attr_ttl } else { attr_ttl.min(LIVE_TTL) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_stripped_as_chmod_says() {
        assert_eq!(without_privileges(0o6777), 0o777);
        assert_eq!(without_privileges(0o2644), 0o2644, "mandatory locking stays");
        assert_eq!(without_privileges(0o4755), 0o755);
    }
}
