//! Directories that were renamed: what they still have at old names is paged through, made inodes,
//! and copied by the ordinary steps (R5). Durable steps, and what a crash before each leaves:
//!
//! 1. The rename's rows, with the sources: nothing has happened.
//! 2. A page's inodes, each with its old key as its remote version: the next start finds the sources
//!    and pages through them again.
//! 3. Each inode's copy, verified, then one transaction: remote is the new key, the old one is owed
//!    for removal: an attempt as any other (R2).
//! 4. The removal, with the ETag that it means (R4).
//! 5. The source's row goes when a listing late enough after the last copy showed nothing: it is
//!    listed once more.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::failpoint;
use crate::namespace::Adopted;
use crate::types::Ino;

use super::Uploader;
use super::awaited::{Left, waits};
use super::error::{StepError, StepResult};
use super::plan::{Expected, Step, is_vacant};
use super::queue::{Next, Work};

/// Children of one directory that wait for their copies at once: what bounds memory, and how long a
/// file that a program has just closed waits behind them.
const ROOM: usize = 256;
/// A listing is not asked for before so many of them are through.
const LOW: usize = 64;
/// Keys of a page.
const PAGE: u32 = 200;
/// Moved children looked at at once whether they may be forgotten.
const FORGET: usize = 64;
/// Pause between looks at children under way.
const POLL: Duration = Duration::from_millis(50);

/// A directory's move.
#[derive(Debug, Default)]
pub(super) struct Carry {
    /// Where the look through what is known goes on; `None` when it is through.
    known_from: Option<String>,
    begun: bool,
    /// Children that wait for their copies.
    handed: Vec<Ino>,
    /// Passes through the sources, by prefix.
    passes: HashMap<String, Pass>,
    /// Children moved since the start.
    done: u64,
    /// Looks for more of them since the start.
    looks: u64,
    /// Moved children that may be forgotten after a while.
    moved: VecDeque<Ino>,
}

/// A listing of a source under way, or between two.
#[derive(Clone, Debug, Default)]
struct Pass {
    /// Where the next page begins, if it is not the first.
    marker: Option<String>,
    /// When this listing began, monotonic; `None`: the next one has not begun.
    began: Option<Duration>,
    /// It has shown something new.
    found: bool,
    /// When something was last found or copied, monotonic.
    active: Option<Duration>,
    /// The last listing showed nothing new.
    quiet: bool,
}

/// A directory's move, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where the directory is now, in the mount.
    pub path: String,
    /// The prefixes that it is moved from.
    pub prefixes: Vec<String>,
    /// Objects moved since the start.
    pub done: u64,
    /// Objects known that are still to be moved; there may be more that no listing has shown yet.
    pub left: u64,
    /// The last listing showed nothing more; another one is waited for.
    pub quiet: bool,
}

impl Uploader {
    /// Directories were renamed: what they have at old names moves after the delay.
    pub fn carry(&self, dirs: impl IntoIterator<Item = Ino>) {
        let at = self.now() + self.inner.options.delay;
        for dir in dirs {
            if let Some(carry) = self.book().moves.get_mut(&dir) {
                // Renamed again: what is known is looked through again.
                carry.begun = false;
                for pass in carry.passes.values_mut() {
                    pass.quiet = false;
                }
            }
            self.queue().put_sooner(Work::Move(dir), at);
        }
        self.inner.wake.notify_one();
    }

    /// Directories that were found below renamed ones, by a listing that a program asked for or by a
    /// page: nobody else sees to them.
    fn carry_found(&self) {
        let dirs: Vec<Ino> = self.inner.namespace.read(|tree| tree.moving().map(|(dir, _)| dir).collect());
        let now = self.now();
        let found: Vec<Ino> = {
            let mut book = self.book();
            let mut new =
                |dir: &Ino| !book.moves.contains_key(dir) && book.moves.insert(*dir, Carry::default()).is_none();
            dirs.into_iter().filter(|dir| new(dir)).collect()
        };
        let mut queue = self.queue();
        for dir in found {
            queue.put_sooner(Work::Move(dir), now);
        }
        drop(queue);
        self.inner.wake.notify_one();
    }

    /// Takes the next step of a directory's move.
    pub(super) async fn step_move(&self, dir: Ino) -> StepResult<Next> {
        let sources = self.inner.namespace.read(|tree| tree.sources(dir).to_vec());
        self.count_done(dir);
        if sources.is_empty() {
            return Ok(self.end_move(dir));
        }
        if self.inner.namespace.read(|tree| tree.mapping_of(dir).is_none_or(|mapping| mapping.is_offline())) {
            return Ok(Next::After(super::worker::OFFLINE_PAUSE));
        }
        let under_way = {
            let mut book = self.book();
            let carry = book.moves.entry(dir).or_default();
            // One pass a source, of those that there are now: all of them must be quiet.
            carry.passes.retain(|prefix, _| sources.iter().any(|source| source.prefix == *prefix));
            for source in &sources {
                carry.passes.entry(source.prefix.clone()).or_default();
            }
            carry.handed.len()
        };
        if under_way > LOW {
            return Ok(Next::After(POLL));
        }
        if let Some(from) = self.known_from(dir) {
            return self.hand_known(dir, &from).await;
        }
        let mut wait = Duration::MAX;
        for source in &sources {
            match self.due(dir, &source.prefix) {
                None => return self.hand_page(dir, &source.prefix).await,
                Some(later) => wait = wait.min(later),
            }
        }
        Ok(Next::After(wait))
    }

    /// How long the next page of a source waits; `None`: not at all.
    fn due(&self, dir: Ino, prefix: &str) -> Option<Duration> {
        let now = self.now();
        let mut book = self.book();
        let carry = book.moves.entry(dir).or_default();
        let under_way = !carry.handed.is_empty();
        let pass = carry.passes.entry(prefix.to_owned()).or_default();
        if pass.began.is_some() {
            return None;
        }
        if under_way {
            // What is under way would be listed again.
            pass.active = Some(now);
            return Some(POLL);
        }
        let active = *pass.active.get_or_insert(now);
        let at = active + self.inner.options.move_quiet;
        (pass.quiet && now < at).then(|| at - now)
    }

    fn known_from(&self, dir: Ino) -> Option<String> {
        let mut book = self.book();
        let carry = book.moves.entry(dir).or_default();
        if !carry.begun {
            carry.begun = true;
            carry.known_from = Some(String::new());
        }
        carry.known_from.clone()
    }

    /// Children that are known here need no listing.
    async fn hand_known(&self, dir: Ino, from: &str) -> StepResult<Next> {
        let (work, next) = self.inner.namespace.adopt_known(dir, from, ROOM).await.map_err(of_namespace)?;
        self.hand(dir, &work);
        if let Some(carry) = self.book().moves.get_mut(&dir) {
            carry.known_from = next;
            carry.looks += 1;
        }
        Ok(Next::After(Duration::ZERO))
    }

    async fn hand_page(&self, dir: Ino, prefix: &str) -> StepResult<Next> {
        let now = self.now();
        let (marker, began) = {
            let mut book = self.book();
            let pass = book.moves.entry(dir).or_default().passes.entry(prefix.to_owned()).or_default();
            (pass.marker.clone(), *pass.began.get_or_insert(now))
        };
        failpoint::hit(failpoint::MOVE_BEFORE_PAGE);
        let page = self.inner.namespace.adopt_page(dir, prefix, marker, PAGE).await.map_err(of_namespace)?;
        let Adopted { work, fresh, next } = page;
        failpoint::hit(failpoint::MOVE_AFTER_PAGE);
        self.hand(dir, &work);
        let over = {
            let mut book = self.book();
            let carry = book.moves.entry(dir).or_default();
            carry.looks += 1;
            let pass = carry.passes.entry(prefix.to_owned()).or_default();
            pass.found |= fresh > 0;
            pass.marker = next;
            let whole = pass.marker.is_none();
            let quiet_since = pass.active.unwrap_or(began);
            let over = whole && !pass.found && began >= quiet_since + self.inner.options.move_quiet;
            if whole {
                if pass.found {
                    pass.active = Some(self.inner.namespace.clock().monotonic());
                }
                *pass = Pass { active: pass.active, quiet: !pass.found, ..Pass::default() };
            }
            over
        };
        if over {
            self.inner.namespace.end_source(dir, prefix).await.map_err(of_namespace)?;
            if let Some(carry) = self.book().moves.get_mut(&dir) {
                carry.passes.remove(prefix);
            }
            tracing::info!(prefix, "a renamed directory has nothing left at its old name");
        }
        self.carry_found();
        self.tick();
        Ok(Next::After(Duration::ZERO))
    }

    fn hand(&self, dir: Ino, work: &[Ino]) {
        let now = self.now();
        {
            let mut queue = self.queue();
            for ino in work {
                queue.ensure(Work::Inode(*ino), now);
            }
        }
        self.book().moves.entry(dir).or_default().handed.extend(work);
        self.inner.wake.notify_one();
    }

    /// Which of the children handed on are through. One that fails is not waited for: it is shown, and
    /// tried again by itself. Nor is one that a program has open: it moves when it is closed.
    fn count_done(&self, dir: Ino) {
        let Some(mut handed) = self.book().moves.get_mut(&dir).map(|carry| std::mem::take(&mut carry.handed)) else {
            return;
        };
        let waiting: Vec<Ino> = self.inner.namespace.read(|tree| {
            handed.retain(|ino| !tree.is_pending(*ino) || waits(tree, *ino));
            handed.iter().copied().filter(|ino| tree.is_pending(*ino)).collect()
        });
        let forgettable = {
            let mut book = self.book();
            let failing = |ino: &Ino| book.failures.contains_key(&Work::Inode(*ino));
            let waiting: Vec<Ino> = waiting.into_iter().filter(|ino| !failing(ino)).collect();
            let through: Vec<Ino> = handed.into_iter().filter(|ino| !waiting.contains(ino) && !failing(ino)).collect();
            let Some(carry) = book.moves.get_mut(&dir) else { return };
            carry.done += through.len() as u64;
            carry.handed.extend(waiting);
            carry.moved.extend(through);
            let some = carry.moved.len().min(FORGET);
            carry.moved.drain(..some).collect::<Vec<_>>()
        };
        let kept: Vec<Ino> = forgettable.into_iter().filter(|ino| !self.inner.namespace.forget_moved(*ino)).collect();
        if let Some(carry) = self.book().moves.get_mut(&dir) {
            carry.moved.extend(kept);
        }
    }

    /// Nothing is left; what was moved counts for the directory above that still moves.
    fn end_move(&self, dir: Ino) -> Next {
        let above = self.inner.namespace.read(|tree| {
            let mut at = tree.get(dir)?.row.parent;
            while !tree.is_top(at) {
                if !tree.sources(at).is_empty() {
                    return Some(at);
                }
                at = tree.get(at)?.row.parent;
            }
            None
        });
        let mut book = self.book();
        let Some(carry) = book.moves.remove(&dir) else { return Next::Done };
        if let Some(above) = above {
            let above = book.moves.entry(above).or_default();
            above.done += carry.done;
            above.moved.extend(carry.moved);
        }
        Next::Done
    }

    /// The moves under way: one for each directory whose parent has none, with those below it.
    pub fn moves(&self) -> Vec<Move> {
        let found = self.inner.namespace.read(|tree| {
            let mut found: HashMap<Ino, (String, Vec<String>, Vec<Ino>)> = HashMap::new();
            for (dir, source) in tree.moving() {
                let mut top = dir;
                let mut at = dir;
                while let Some(inode) = tree.get(at).filter(|_| !tree.is_top(at)) {
                    if !tree.sources(at).is_empty() {
                        top = at;
                    }
                    at = inode.row.parent;
                }
                let entry = found.entry(top).or_insert_with(|| (tree.shown_path(top), Vec::new(), Vec::new()));
                if top == dir {
                    entry.1.push(source.prefix.clone());
                }
                entry.2.push(dir);
            }
            found
        });
        let book = self.book();
        let mut moves: Vec<Move> = found
            .into_values()
            .map(|(path, prefixes, mut dirs)| {
                dirs.dedup();
                let carries = || dirs.iter().filter_map(|dir| book.moves.get(dir));
                let quiet = carries().count() == dirs.len() && carries().all(Carry::is_quiet);
                let done = carries().map(|carry| carry.done).sum();
                let left = carries().map(|carry| carry.handed.len() as u64).sum();
                Move { path, prefixes, done, left, quiet }
            })
            .collect();
        moves.sort_by(|a, b| a.path.cmp(&b.path));
        moves
    }

    /// Before a key is changed where nothing of ours stands: what belongs to a renamed directory there
    /// is settled first. Whether there was something.
    pub(super) async fn settle_there(&self, step: &Step) -> StepResult<bool> {
        let (Step::Send(job, _) | Step::Copy(job, _)) = step else { return Ok(false) };
        if job.expected != Expected::Absent {
            return Ok(false);
        }
        let settled = self.inner.namespace.settle_key(job.mapping.target, &job.key).await;
        // A page of the mover may have been quicker: the step was planned before anybody knew.
        Ok(settled.map_err(of_namespace)? || self.inner.namespace.read(|tree| !is_vacant(tree, job.ino, &job.key)))
    }

    /// A move whose last listing showed nothing more has nothing left that can be waited for.
    pub(super) fn leave_out_quiet(&self, left: &mut Left) {
        let book = self.book();
        let quiet = |dir: &Ino| book.moves.get(dir).is_some_and(Carry::is_quiet);
        left.urgent.retain(|work| !matches!(work, Work::Move(dir) if quiet(dir)));
    }

    /// Directories, at or below one (`None`: anywhere), that may still have something to move.
    pub(super) fn still_moving(&self, below: Option<Ino>) -> u64 {
        let dirs: Vec<Ino> = self.inner.namespace.read(|tree| {
            let within = |mut at: Ino| loop {
                if below.is_none_or(|below| below == at) {
                    return true;
                }
                match tree.get(at).filter(|_| !tree.is_top(at)) {
                    Some(inode) => at = inode.row.parent,
                    None => return false,
                }
            };
            let mut dirs: Vec<Ino> = tree.moving().map(|(dir, _)| dir).filter(|dir| within(*dir)).collect();
            dirs.dedup();
            dirs
        });
        let book = self.book();
        dirs.iter().filter(|dir| !book.moves.get(dir).is_some_and(Carry::is_quiet)).count() as u64
    }
}

impl Carry {
    /// Grows with each child that is through and each look for more.
    pub(super) fn progress(&self) -> u64 {
        self.done + self.looks
    }

    fn is_quiet(&self) -> bool {
        self.begun
            && self.known_from.is_none()
            && self.passes.values().all(|pass| pass.quiet)
            && !self.passes.is_empty()
    }
}

pub(super) fn of_namespace(error: crate::namespace::Error) -> StepError {
    match error {
        crate::namespace::Error::Store(error) => StepError::Store(error),
        crate::namespace::Error::Journal(error) => StepError::Journal(error),
        // Asked again when the store answers.
        crate::namespace::Error::Offline(_) => StepError::Busy,
        // The directory went meanwhile, and its sources with it.
        _ => StepError::Changed,
    }
}
