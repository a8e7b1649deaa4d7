//! Uploads that a program waits for (P1, the remote modes): the same steps as all others, at once, and
//! somebody is told how they ended.
//!
//! What is waited for is a state of the tree, not a request: whoever brings it about, and after
//! however many steps, the waiter sees it. A failure of one of the steps ends the wait, but not the
//! work: it is repeated in the background as every other.

use std::collections::HashSet;
use std::time::Duration;

use crate::journal::Content;
use crate::namespace::{Inode, Mapping, Offered, Tree};
use crate::store::{self, ErrorKind};
use crate::types::Ino;

use super::Uploader;
use super::awaited::{Left, directory};
use super::mover::Carry;
use super::queue::{URGENT, Work};

/// Without any progress for this long, and no request under way, the wait is given up. A request
/// under way is bounded by the store's client: some two minutes and one attempt.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time between two looks at what is waited for: not everything that matters ticks.
const LOOK: Duration = Duration::from_millis(500);
/// Pause before the next look for each piece of work that is left: few pieces are told at once.
const WALK: Duration = Duration::from_micros(50);
/// What a store does not keep as it was sent is sent so often before the waiter is told.
const MISMATCHES: u32 = 3;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A file's closed content, name and attributes.
    Inode(Ino),
    /// A directory's own marker, and the names directly in it: what was made, renamed (to it or away,
    /// directories with all that they hold) or removed. Not what is still open for writing.
    Directory(Ino),
}

/// Why something is not in the bucket, as far as a program can act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The store cannot be reached.
    Offline,
    /// The credentials may not.
    Denied,
    /// A quota of the bucket or the account.
    Quota,
    /// The store has no space left.
    Full,
    /// The store keeps another content than was sent.
    Mismatch,
    /// Another failure of the store.
    Store,
    /// The local file; with the system's number.
    Local(Option<i32>),
    /// Nothing moved for as long as was waited for it.
    Stuck,
    /// Nobody knows yet whether this attempt was applied; the cause, if it was not.
    Unsettled(u64, Box<Cause>),
}

/// How a wait ended without success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUploaded {
    /// The open file was changed before it was sent: nothing was committed.
    #[error("it was changed while it was uploaded")]
    Changed,
    /// It stays here, and is tried again.
    #[error("not in the bucket: {1}")]
    Failed(Cause, String),
}

impl Cause {
    pub(super) fn of(error: &store::Error) -> Cause {
        // The documents name no code of a full quota; these are what stores of the family answer.
        if error.code.as_deref().is_some_and(|code| code.contains("Quota") && code != "QuotaConflict") {
            return Cause::Quota;
        }
        match (error.kind, error.status) {
            (_, Some(507)) => Cause::Full,
            (ErrorKind::AccessDenied | ErrorKind::Credentials, _) => Cause::Denied,
            (ErrorKind::Network | ErrorKind::Timeout, _) => Cause::Offline,
            _ => Cause::Store,
        }
    }
}

impl Uploader {
    /// Uploads a version of a file that is open for writing; returns when the bucket has it,
    /// verified, and "remote + owed" is on disk.
    ///
    /// # Errors
    /// [`NotUploaded::Changed`]: offer another version. Otherwise the failure; the offer is then
    /// withdrawn, and the file goes up when it is closed.
    pub async fn upload_version(&self, ino: Ino, offered: Offered) -> Result<(), NotUploaded> {
        let generation = offered.generation;
        self.inner.namespace.touch(|tree| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.offered = Some(offered);
            }
        });
        let waited = self.wait_for(|tree| match tree.get(ino) {
            Some(inode) if inode.row.linked && is_offered(inode, generation) => Left::of(Work::Inode(ino)),
            _ => Left::default(),
        });
        let waited = waited.await;
        let (sent, linked) = self.inner.namespace.touch(|tree| match tree.get_mut(ino) {
            Some(inode) => {
                inode.offered = inode.offered.filter(|offered| offered.generation != generation);
                let sent = inode.row.remote.is_some() && inode.row.remote_generation == generation;
                (sent, inode.row.linked)
            }
            None => (false, false),
        });
        match waited {
            // Unlinked meanwhile: nothing of it is wanted in the bucket any more.
            _ if sent || !linked => Ok(()),
            Ok(()) => Err(NotUploaded::Changed),
            Err(error) => Err(error),
        }
    }

    /// Brings what is closed to the bucket at once; returns when it is there.
    ///
    /// # Errors
    /// The first failure of one of the steps; they are repeated in the background.
    pub async fn upload_now(&self, scope: Scope) -> Result<(), NotUploaded> {
        self.wait_for(|tree| match scope {
            Scope::Inode(ino) if tree.is_pending(ino) => Left::of(Work::Inode(ino)),
            Scope::Inode(_) => Left::default(),
            Scope::Directory(dir) => directory(tree, dir),
        })
        .await
    }

    /// Has the store make a copy at once; returns when it is there, or the file has become another.
    ///
    /// # Errors
    /// As [`Uploader::upload_now`].
    pub async fn copy_now(&self, ino: Ino) -> Result<(), NotUploaded> {
        self.wait_for(|tree| match tree.get(ino) {
            Some(inode) if inode.partial.is_none() && inode.is_borrowed() => Left::of(Work::Inode(ino)),
            _ => Left::default(),
        })
        .await
    }

    /// What was waited for in vain goes up without the delay, now that it is closed.
    pub fn overdue(&self, ino: Ino) {
        self.look_again(ino);
    }

    /// Content up to this size goes up by one request and is read whole before it, bytes.
    pub fn whole_up_to(&self) -> u64 {
        self.inner.options.multipart_above
    }

    /// Something else than a step kept a file out of the bucket; shown until it is there.
    pub fn not_uploaded(&self, ino: Ino, error: &str) {
        let path = self.inner.namespace.read(|tree| tree.shown_path(ino));
        self.note_failure(&Work::Inode(ino), path, error.to_owned(), Cause::Local(None));
    }

    /// The version that was offered is not there any more.
    pub(super) fn withdraw(&self, ino: Ino) {
        self.inner.namespace.touch(|tree| {
            if let Some(inode) = tree.get_mut(ino) {
                inode.offered = None;
            }
        });
    }

    async fn wait_for(&self, left: impl Fn(&Tree) -> Left) -> Result<(), NotUploaded> {
        let mut ticks = self.watch();
        let before = self.book().failed;
        let (mut seen, mut moved) = (None, self.now());
        let mut asked: HashSet<Work> = HashSet::new();
        loop {
            ticks.mark_unchanged();
            let mut left = self.inner.namespace.read(&left);
            self.leave_out_quiet(&mut left);
            let works: Vec<Work> = left.all().cloned().collect();
            if works.is_empty() {
                return Ok(());
            }
            if let Some(failed) = self.failed_since(&works, before) {
                return Err(failed);
            }
            if works.iter().any(|work| self.is_offline(work)) {
                return Err(NotUploaded::Failed(Cause::Offline, "the store cannot be reached".to_owned()));
            }
            let now = self.now();
            let under_way = {
                let mut queue = self.queue();
                // Once: what then fails or waits keeps its pauses.
                for work in &left.urgent {
                    if asked.insert(work.clone()) {
                        queue.put(work.clone(), URGENT);
                    }
                }
                for work in &left.soon {
                    if asked.insert(work.clone()) {
                        queue.expedite(work.clone(), now);
                    }
                }
                // A move is looked after all the time, whether it gets on or not.
                works.iter().any(|work| !matches!(work, Work::Move(_)) && queue.is_in_hand(work))
            };
            self.inner.wake.notify_one();
            let progress = self.progress_of(&works);
            if under_way || seen.as_ref() != Some(&progress) {
                (seen, moved) = (Some(progress), now);
            }
            if now.saturating_sub(moved) >= PATIENCE {
                return Err(NotUploaded::Failed(Cause::Stuck, "it waits for other work that does not end".to_owned()));
            }
            // A large directory is not walked at every tick, under the lock that all calls need.
            let pause = WALK.saturating_mul(u32::try_from(works.len()).unwrap_or(u32::MAX)).min(LOOK);
            tokio::time::sleep(pause).await;
            // An error would mean that the room is gone, and this call is one of its own.
            let _ = tokio::time::timeout(LOOK, ticks.changed()).await;
        }
    }

    /// The first failure of this work after the `before`-th of all.
    fn failed_since(&self, works: &[Work], before: u64) -> Option<NotUploaded> {
        let book = self.book();
        let inodes: Vec<Ino> =
            works.iter().filter_map(|work| if let Work::Inode(ino) = work { Some(*ino) } else { None }).collect();
        let settles =
            book.attempts.values().filter(|one| inodes.contains(&one.ino) && !book.parked.contains_key(&one.attempt));
        let settles: Vec<Work> = settles.map(|attempt| Work::Settle(attempt.attempt)).collect();
        let failures = works.iter().chain(&settles).filter_map(|work| book.failures.get(work));
        let with_others =
            book.failures.values().filter(|failure| works.iter().any(|work| failure.company.contains(work)));
        let failures = failures.chain(with_others);
        let mut failures = failures.filter(|failure| failure.seq > before);
        failures.find_map(|failure| {
            let cause = match &failure.cause {
                // It may have arrived: the HEAD tells.
                Cause::Unsettled(attempt, _)
                    if book.attempts.contains_key(attempt) && !book.parked.contains_key(attempt) =>
                {
                    return None;
                }
                Cause::Unsettled(_, cause) => (**cause).clone(),
                Cause::Mismatch if failure.attempts < MISMATCHES => return None,
                cause => cause.clone(),
            };
            Some(NotUploaded::Failed(cause, failure.error.clone()))
        })
    }

    fn is_offline(&self, work: &Work) -> bool {
        self.inner.namespace.read(|tree| {
            let mapping = match work {
                Work::Inode(ino) | Work::Move(ino) => tree.mapping_of(*ino),
                Work::Removal(target, _) => tree.mapping(*target),
                Work::Settle(_) => None,
            };
            mapping.is_some_and(|mapping| Mapping::is_offline(mapping))
        })
    }

    /// Changes whenever something of this work has moved on.
    fn progress_of(&self, works: &[Work]) -> (usize, u64, u64) {
        let book = self.book();
        let sent = works.iter().filter_map(|work| match work {
            Work::Inode(ino) => book.flights.get(ino).map(|flight| flight.sent),
            Work::Move(dir) => book.moves.get(dir).map(Carry::progress),
            Work::Removal(..) | Work::Settle(_) => None,
        });
        (works.len(), sent.sum(), book.failed)
    }
}

fn is_offered(inode: &Inode, generation: u64) -> bool {
    inode.offered.is_some_and(|offered| offered.generation == generation)
        // Closed meanwhile, unchanged: the same version goes up as any other.
        || (inode.row.content == Content::Closed && inode.row.generation == generation)
}
