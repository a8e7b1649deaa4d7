//! Provisional marks taken back (C2, C6), and ends of sessions that are on their way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::same_mark;
use crate::journal::{Content, Durability, Hold, Mark};
use crate::types::Ino;

use super::Vfs;
use super::error::{Error, Result};
use super::session::OpenState;

/// RELEASE follows the answer to the last close at once. Where it has not come after this long,
/// another descriptor of the handle lives: the FLUSH came from a child that inherited one, or from
/// the close of a duplicate.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);
/// Pause between two looks whether it has come.
const RELEASE_LOOK: Duration = Duration::from_millis(2);

impl Vfs {
    /// P2: takes a provisional mark back if its handle turns out to live on. Otherwise daemon and
    /// writer, ended one after the other, would leave half a file that looks closed.
    pub(super) fn doubt_later(&self, ino: Ino, marked: Mark) {
        let vfs = self.clone();
        self.inner.guardian.spawn("doubt", async move {
            tokio::time::sleep(RELEASE_WITHIN).await;
            let stands = vfs.with_inode(ino, |inode| {
                inode.row.content == Content::Flushed && inode.row.mark.is_some_and(|mark| same_mark(&mark, &marked))
            });
            if !stands.unwrap_or(false) {
                return Ok::<(), Error>(());
            }
            let state = vfs.inner.locks.lock(ino).await;
            let taken = if state.writers > 0 { vfs.take_mark_back(ino, None).await } else { Ok(()) };
            vfs.inner.locks.release(ino, state);
            taken
        });
    }

    /// The daemon ends while programs still have files open: no RELEASE will come, so no provisional
    /// mark of theirs may stand.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn doubt_all(&self) -> Result<()> {
        let flushed: Vec<Ino> = self.inner.namespace.read(|tree| {
            let flushed = tree.inodes().filter(|inode| inode.row.content == Content::Flushed);
            flushed.map(crate::namespace::Inode::ino).collect()
        });
        for ino in flushed {
            let state = self.inner.locks.lock(ino).await;
            let taken = if state.writers > 0 { self.take_mark_back(ino, None).await } else { Ok(()) };
            self.inner.locks.release(ino, state);
            taken?;
        }
        Ok(())
    }

    /// The file is as good as open again; `hold` (C6) is what a crash before the session's end makes
    /// of it.
    pub(super) async fn take_mark_back(&self, ino: Ino, hold: Option<Hold>) -> Result<()> {
        let (taken, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let Some(inode) = tree.get_mut(ino) else { return false };
            let row = &mut inode.row;
            let as_wanted = row.content == Content::Open && (hold.is_none() || row.hold == hold);
            if as_wanted || !matches!(row.content, Content::Open | Content::Flushed) {
                return false;
            }
            let taken = row.content == Content::Flushed;
            row.content = Content::Open;
            row.mark = None;
            row.hold = hold.or(row.hold);
            if row.linked {
                tree.persist(ino, ops);
            }
            taken
        });
        commit.durable().await?;
        self.inner.marks_taken_back.fetch_add(u64::from(taken), Ordering::Relaxed);
        Ok(())
    }
}

impl Vfs {
    /// Waits for the ends of the files directly in a directory that programs have closed: RELEASE, and
    /// the lease (C4), which the kernel grants a moment after it. A FLUSH alone does not tell a close from
    /// that of a duplicate, so nobody is waited for longer than RELEASE may take; then the file counts as
    /// open.
    pub(super) async fn await_releases(&self, dir: Ino) {
        let until = self.monotonic() + RELEASE_WITHIN;
        let open: Vec<Ino> = self.inner.namespace.read(|tree| {
            let children = tree.children(dir).into_iter().flat_map(|children| children.values().copied());
            let is_open = |ino: &Ino| {
                tree.get(*ino).is_some_and(|inode| matches!(inode.row.content, Content::Open | Content::Flushed))
            };
            children.filter(is_open).collect()
        });
        for ino in open {
            while self.is_closing(ino).await && self.monotonic() < until {
                tokio::time::sleep(RELEASE_LOOK).await;
            }
        }
    }

    async fn is_closing(&self, ino: Ino) -> bool {
        let state = self.inner.locks.lock(ino).await;
        let closing = state.is_closing(self.monotonic());
        self.inner.locks.release(ino, state);
        closing
    }
}

impl OpenState {
    /// Each handle that may write has had its FLUSH, so lately that its RELEASE may be on its way.
    fn is_closing(&self, now: Duration) -> bool {
        self.session.is_some() && self.flushed.is_some_and(|flushed| now.saturating_sub(flushed) < RELEASE_WITHIN)
    }
}
