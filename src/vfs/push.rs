//! Versions of files that are still open, brought to the bucket because somebody waits for it: close
//! and fsync in the remote modes, `upload_open` (P1, P2).
//!
//! RELEASE comes after the answer to the last FLUSH, and the lease (C4) is refused until then: what
//! is closed here is formally open. So marks take the lease's place. A version is what the backing
//! file holds while its mark stands still: synced first, so that a store through a mapping moves it
//! too, then sent from the file itself, and nothing is committed in the bucket unless the mark is
//! still the same after the last byte was read. Where somebody else goes on writing, a private copy
//! is taken between two equal marks and sent instead; where there are no such two, see `chase`.
//!
//! Each version has a generation of its own, which is on record before a request goes; the row moves
//! on to the next one. So what an attempt sent is never taken for what was written after it, neither
//! now nor after a crash. If the file is closed as that version left it, it takes the generation back
//! and is clean without another PUT.
//!
//! A crash leaves: before the attempt's row a generation that nothing used; after it an attempt that
//! the next start settles as any other (R2); of a copy a file that no row knows (J6). The content is
//! dirty throughout, with the marks that close(2) and writes gave it (C2, C5).

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cache::{mark, same_mark};
use crate::disk;
use crate::journal::{Content, Durability, Hold, Mark};
use crate::namespace::Offered;
use crate::task::{Shutdown, interruptible};
use crate::types::{BackingNo, Ino};
use crate::upload::{NotUploaded, Scope};

use super::Vfs;
use super::chase::chase;
use super::close::take_times;
use super::error::{Error, Result};
use super::session::{OpenState, Verdict, Version, judge};

/// Pauses between versions that did not stand still; then the wait fails. Only other writers make
/// them happen, so they give such a writer time to pause.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];
/// From this try on no quiet moment is hoped for.
const CHASED: usize = 3;
/// Times that a mark is compared before and after a sync.
const ARM_TRIES: u32 = 3;

/// How often open files are looked at, by an interval's eighth, within these bounds.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// Open files that go up at once: copies of them lie beside the originals.
const PUSHES_AT_ONCE: usize = 4;

/// How often a file that is being made whole is looked at, and how long without another byte.
const FILL_LOOK: Duration = Duration::from_millis(20);
const FILL_PATIENCE: Duration = Duration::from_secs(60);

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// close(2) of a file in which something was written.
    Close,
    /// fsync(2).
    Fsync,
    /// Nobody: the interval of `upload_open` is over.
    Interval,
}

/// What a session offers now.
enum Now {
    /// The bucket has it already, or there is nothing to be uploaded.
    Nothing,
    /// Nobody has it open for writing any more.
    Ended,
    /// This backing file.
    Open(BackingNo),
    /// Parts of it are in the bucket only (C7).
    Partial,
}

/// How a version is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It is sent from the open file.
    AsItIs,
    /// A copy, if it is too large to be read at once, taken while nobody writes.
    Quiet,
    /// A copy, taken from under a writer.
    Chased,
}

/// A mark that can be relied on.
#[derive(Clone, Copy)]
struct Still {
    mark: Mark,
    /// Every later change moves the mark, also one through a mapping.
    exact: bool,
}

impl Vfs {
    /// Returns when the content that `ino` had at the call is in the bucket, verified, and on record.
    pub(super) async fn push(&self, ino: Ino, why: Why) -> Result<()> {
        // One at a time: the next one finds its version there, or offers its own.
        let turn = self.inner.turns.lock(ino).await;
        let pushed = self.push_in_turn(ino, why).await;
        self.inner.turns.release(ino, turn);
        pushed
    }

    /// As [`Vfs::push`], for a program. If that is killed it waits no more, and its version goes up all the
    /// same: what a push has begun, only its end puts in order.
    pub(super) async fn push_for_caller(&self, ino: Ino, why: Why) -> Result<()> {
        let (tell, told) = oneshot::channel();
        let vfs = self.clone();
        self.inner.guardian.spawn("push", async move {
            // Nobody listens to it if its program was killed.
            let _gone = tell.send(vfs.push(ino, why).await);
        });
        let told = interruptible(told).await?;
        told.unwrap_or_else(|_| Err(Error::Io(io::Error::other("the upload of the open file has failed"))))
    }

    async fn push_in_turn(&self, ino: Ino, why: Why) -> Result<()> {
        for (round, pause) in PAUSES.into_iter().enumerate() {
            let backing = match self.offer_now(ino, why).await? {
                Now::Nothing => return Ok(()),
                Now::Ended if why == Why::Interval => return Ok(()),
                Now::Ended => return self.push_closed(ino).await,
                Now::Partial => {
                    self.make_whole(ino).await?;
                    continue;
                }
                Now::Open(backing) => backing,
            };
            let how = match round {
                0 if why != Why::Interval => How::AsItIs,
                // A large file that others write to would be sent in vain again and again.
                0..CHASED => How::Quiet,
                _ => How::Chased,
            };
            let pushed = match self.version(ino, backing, how).await? {
                Some((offered, copy)) => {
                    let uploaded = self.inner.uploader.upload_version(ino, offered).await;
                    // No row names the copy, so nothing has to be on disk before it goes.
                    copy.into_iter().for_each(|copy| self.inner.cache.discard(copy));
                    uploaded
                }
                None => Err(NotUploaded::Changed),
            };
            match pushed {
                Ok(()) => return Ok(()),
                Err(NotUploaded::Changed) => tokio::time::sleep(pause).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(NotUploaded::Changed.into())
    }

    /// What is closed goes up as always, but now.
    async fn push_closed(&self, ino: Ino) -> Result<()> {
        let held = self.inner.namespace.read(|tree| {
            tree.get(ino)
                .filter(|inode| inode.row.content == Content::Torn && inode.row.linked)
                .map(|inode| inode.row.hold)
        });
        match held {
            Some(hold) => Err(Error::Held(hold.unwrap_or(Hold::Crash))),
            None if self.is_partial(ino) => {
                self.make_whole(ino).await?;
                Ok(self.inner.uploader.upload_now(Scope::Inode(ino)).await?)
            }
            None => Ok(self.inner.uploader.upload_now(Scope::Inode(ino)).await?),
        }
    }

    /// C7: nothing goes up before all of it is here.
    pub(super) async fn make_whole(&self, ino: Ino) -> Result<()> {
        let mut state = self.inner.locks.lock(ino).await;
        self.fill_later(ino, &mut state, Duration::ZERO);
        self.inner.locks.release(ino, state);
        let (mut seen, mut moved) = (None, self.monotonic());
        while self.is_partial(ino) {
            let (linked, hold, offline) = self.inner.namespace.read(|tree| {
                let (linked, hold) = tree.get(ino).map_or((false, None), |inode| (inode.row.linked, inode.row.hold));
                (linked, hold, tree.mapping_of(ino).is_some_and(|mapping| mapping.is_offline()))
            });
            if !linked {
                // Nobody fills it any more, and the bucket is to have nothing of it.
                return Ok(());
            }
            if let Some(hold @ Hold::Incomplete) = hold {
                return Err(Error::Held(hold));
            }
            // Not the space that the file takes: what fallocate(2) has given it does not grow.
            let state = self.inner.locks.lock(ino).await;
            let present = state.fill.as_ref().map(|(fill, _)| fill.extents().bytes());
            self.inner.locks.release(ino, state);
            let now = self.monotonic();
            if seen != Some(present) {
                (seen, moved) = (Some(present), now);
            }
            if offline || now.saturating_sub(moved) >= FILL_PATIENCE {
                return Err(Error::Offline);
            }
            tokio::time::sleep(FILL_LOOK).await;
        }
        Ok(())
    }

    async fn offer_now(&self, ino: Ino, why: Why) -> Result<Now> {
        let state = self.inner.locks.lock(ino).await;
        let now = self.offer_locked(ino, why, &state);
        self.inner.locks.release(ino, state);
        now
    }

    fn offer_locked(&self, ino: Ino, why: Why, state: &OpenState) -> Result<Now> {
        let Some(session) = &state.session else { return Ok(Now::Ended) };
        let there = self.inner.namespace.read(|tree| {
            tree.get(ino).filter(|inode| inode.row.linked).map(|inode| {
                session.version.is_some_and(|version| {
                    inode.row.remote.is_some() && inode.row.remote_generation == version.generation
                })
            })
        });
        // Without a name there is no key.
        let Some(there) = there else { return Ok(Now::Nothing) };
        if self.is_partial(ino) {
            return match session.hold {
                None => Ok(Now::Partial),
                Some(_) if why == Why::Interval => Ok(Now::Nothing),
                Some(hold) => Err(Error::Held(hold)),
            };
        }
        let (backing, file) = self.inner.backing_file(ino)?;
        let now = mark(&file)?;
        if there && session.version.is_some_and(|version| version.exact && same_mark(&version.mark, &now)) {
            return Ok(Now::Nothing);
        }
        let changed = !same_mark(&now, &session.base);
        match judge(session, changed) {
            // C6: neither its writer nor we know what the rest would have been. Whoever waits for the bucket
            // must hear that it does not go there.
            Verdict::Held(_) if why == Why::Interval => Ok(Now::Nothing),
            Verdict::Held(hold) => Err(Error::Held(hold)),
            // C2: a shell's redirection closes a descriptor before the program writes its first byte.
            Verdict::Closed if !changed && why != Why::Fsync => Ok(Now::Nothing),
            Verdict::Closed => Ok(Now::Open(backing)),
            Verdict::Unchanged => match session.prior.content {
                // Closed before, and not uploaded yet.
                Content::Closed => Ok(Now::Open(backing)),
                Content::Torn if why == Why::Fsync => Err(Error::Held(session.prior.hold.unwrap_or(Hold::Crash))),
                _ => Ok(Now::Nothing),
            },
        }
    }

    /// A version of the open file, on record as the session's; the backing number of its copy, if it is
    /// one. `None`: it did not stand still.
    async fn version(&self, ino: Ino, backing: BackingNo, how: How) -> Result<Option<(Offered, Option<BackingNo>)>> {
        let file = self.inner.cache.open_read(backing)?;
        let (file, still) = blocking(move || arm(&file).map(|still| (file, still))).await?;
        // What goes up by one PUT is read at once: that is a copy already.
        let copied = match how {
            How::AsItIs => false,
            How::Quiet => still.mark.size > self.inner.uploader.whole_up_to(),
            How::Chased => true,
        };
        let copy = match copied {
            true => match self.copy_of(backing, how).await? {
                None => return Ok(None),
                copy => copy,
            },
            false => None,
        };
        // What was taken from under a writer is one version whatever has become of the file since.
        let chased = how == How::Chased;
        let still = Still { exact: still.exact && !chased, ..still };
        let recorded = match self.record(ino, backing, (!chased).then_some(&file), still).await {
            Ok(Some(generation)) => generation,
            ended => {
                copy.into_iter().for_each(|(copy, _)| self.inner.cache.discard(copy));
                return ended.map(|_| None);
            }
        };
        Ok(Some(match copy {
            Some((copy, mark)) => (Offered { generation: recorded, backing: copy, mark, copied: true }, Some(copy)),
            None => (Offered { generation: recorded, backing, mark: still.mark, copied: false }, None),
        }))
    }

    /// A private copy. Unless it was chased, only the mark of the original tells whether it is one
    /// version. `None`: it certainly is not.
    async fn copy_of(&self, backing: BackingNo, how: How) -> Result<Option<(BackingNo, Mark)>> {
        let from = self.inner.cache.open_read(backing)?;
        // Without a tag: should the journal be lost, nothing may take it for the file (J5).
        let size = disk::fstat(&from)?.size;
        let (copy, to) = self.inner.cache.create_clean(size)?;
        let copied = blocking(move || {
            let copied = disk::sparing(&to, size, || match how {
                How::Chased => chase(&from, &to),
                How::AsItIs | How::Quiet => match disk::copy_contents(&from, &to) {
                    // Cut while it was copied.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                    copied => copied.map(|_| true),
                },
            })?;
            copied.then(|| mark(&to)).transpose()
        });
        let copied = copied.await;
        match &copied {
            Ok(Some(mark)) => self.inner.cache.tell(copy, mark.size, false),
            Ok(None) | Err(_) => self.inner.cache.discard(copy),
        }
        Ok(copied?.map(|mark| (copy, mark)))
    }

    /// Gives the version its generation, if `file`, where one is given, still is what `still` says. The
    /// attempt's row follows it to the disk before any request (J2).
    async fn record(&self, ino: Ino, backing: BackingNo, file: Option<&File>, still: Still) -> Result<Option<u64>> {
        let mut state = self.inner.locks.lock(ino).await;
        let recorded = self.record_locked(ino, backing, file, still, &mut state);
        self.inner.locks.release(ino, state);
        let Some((generation, commit)) = recorded? else { return Ok(None) };
        commit.durable().await?;
        Ok(Some(generation))
    }

    fn record_locked(
        &self,
        ino: Ino,
        backing: BackingNo,
        file: Option<&File>,
        still: Still,
        state: &mut OpenState,
    ) -> Result<Option<(u64, crate::namespace::Commit)>> {
        let direct = state.direct;
        let Some(session) = state.session.as_mut() else { return Ok(None) };
        if let Some(file) = file
            && !same_mark(&mark(file)?, &still.mark)
        {
            return Ok(None);
        }
        let unchanged = !session.fresh && same_mark(&still.mark, &session.base);
        let prior = session.prior.generation;
        let (generation, commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            let inode = tree.get_mut(ino).filter(|inode| inode.row.backing == Some(backing))?;
            let generation = if unchanged {
                // The version that waited when the file was opened again.
                prior
            } else {
                inode.row.generation += 1;
                inode.row.generation - 1
            };
            take_times(inode, &still.mark);
            if inode.row.content == Content::Flushed && inode.row.mark.is_some_and(|mark| same_mark(&mark, &still.mark))
            {
                inode.row.mark = Some(still.mark);
            }
            if inode.row.linked {
                tree.persist(ino, ops);
            }
            Some(generation)
        });
        let Some(generation) = generation else { return Ok(None) };
        // No mark tells when a write with O_DIRECT ends: it moves the times at its begin, holds no lock that a
        // seek would wait for, and no sync waits for it.
        let exact = still.exact && !direct;
        session.version = Some(Version { generation, mark: still.mark, exact });
        Ok(Some((generation, commit)))
    }

    /// A FLUSH of a descriptor that was inherited or sent does not close the file for the program that
    /// opened it: while that one lives, half a file may be all there is (P2, C2).
    pub(super) fn is_close_of(&self, opener: Option<u32>, flusher: u32) -> bool {
        let (Some(opener), Some(process)) = (opener, disk::process_of(flusher)) else { return true };
        process == opener || !disk::is_running(opener)
    }
}

/// The mark of an open file, such that every later change moves it. A write that is under way may have
/// moved the times before the mark and its bytes come after it: one that holds the file's lock has
/// ended when a seek for data returns, which takes that lock (a read, on XFS), and one that began
/// meanwhile has moved the mark. A page that a mapping has dirtied can be stored to unseen until it is
/// written back, so that comes between two equal marks, too. Without equal marks somebody is writing
/// all the time, and the last mark tells of write(2) only.
fn arm(file: &File) -> io::Result<Still> {
    let mut before = mark(file)?;
    for _ in 0..ARM_TRIES {
        wait_for_writes(file)?;
        // Not fdatasync, which may leave the times on the disk behind, and they are part of the mark.
        disk::sync_file(file)?;
        let after = mark(file)?;
        if same_mark(&before, &after) {
            return Ok(Still { mark: Mark { synced: true, ..after }, exact: !disk::is_in_memory(file)? });
        }
        before = after;
    }
    Ok(Still { mark: before, exact: false })
}

fn wait_for_writes(file: &File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    match disk::seek(file, 0, libc::SEEK_DATA) {
        Ok(_) => {}
        // Nothing but holes, or a filesystem that knows none.
        Err(error) if matches!(disk::errno(&error), Some(libc::ENXIO | libc::EINVAL)) => {}
        Err(error) => return Err(error),
    }
    file.read_at(&mut [0], 0).map(|_| ())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Error::Io(io::Error::other(error.to_string())))??)
}

impl Vfs {
    /// Uploads what stays open, every `interval`, if it changed.
    pub(super) async fn upload_open(self, interval: Duration, shutdown: Shutdown) -> Result<()> {
        let mut pushes: JoinSet<Ino> = JoinSet::new();
        let mut under_way = HashSet::new();
        let look = (interval / 8).clamp(SHORTEST_LOOK, LONGEST_LOOK);
        loop {
            tokio::select! {
                () = shutdown.triggered() => return Ok(()),
                () = tokio::time::sleep(look) => {}
                Some(ended) = pushes.join_next() => {
                    match ended {
                        Ok(ino) => under_way.remove(&ino),
                        Err(error) => return Err(Error::Io(io::Error::other(error.to_string()))),
                    };
                    continue;
                }
            }
            for ino in self.inner.live.inodes() {
                if pushes.len() < PUSHES_AT_ONCE && !under_way.contains(&ino) && self.is_due(ino, interval).await {
                    under_way.insert(ino);
                    let vfs = self.clone();
                    pushes.spawn(async move {
                        vfs.push_open(ino).await;
                        ino
                    });
                }
            }
        }
    }

    async fn is_due(&self, ino: Ino, interval: Duration) -> bool {
        let state = self.inner.locks.lock(ino).await;
        let now = self.monotonic();
        let due = state.session.as_ref().is_some_and(|session| now.saturating_sub(session.pushed) >= interval);
        self.inner.locks.release(ino, state);
        due
    }

    async fn push_open(&self, ino: Ino) {
        let pushed = self.push(ino, Why::Interval).await;
        // The next try is an interval away, whatever came of this one.
        let mut state = self.inner.locks.lock(ino).await;
        let now = self.monotonic();
        if let Some(session) = state.session.as_mut() {
            session.pushed = now;
        }
        self.inner.locks.release(ino, state);
        if let Err(error) = pushed {
            self.inner.uploader.not_uploaded(ino, &format!("{error}; it is still open, and is tried again"));
        }
    }
}
