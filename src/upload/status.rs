//! What people and waiters are told.

use std::collections::HashSet;
use std::sync::Arc;

use crate::journal::Content;
use crate::namespace::Tree;
use crate::types::{Ino, Key, TargetId, TimeNs};

use super::Uploader;
use super::mover::Move;
use super::queue::Work;
use super::urgent::Cause;

/// A transfer under way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// Path in the mount.
    pub path: String,
    /// Key.
    pub key: String,
    /// Bytes acknowledged.
    pub sent: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A step that fails and is repeated.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Path in the mount, or key.
    pub path: String,
    /// What the last repeat said.
    pub error: String,
    /// Repeats so far.
    pub attempts: u32,
    /// When it last failed.
    pub at: TimeNs,
    /// What whoever waits for it is told.
    pub(super) cause: Cause,
    /// Its number among all failures.
    pub(super) seq: u64,
    /// What failed together with it, by the same request, and is not told of by itself.
    pub(super) company: Arc<HashSet<Work>>,
}

/// Events since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Objects stored by one PUT and verified.
    pub puts: u64,
    /// Objects stored in parts and verified.
    pub multiparts: u64,
    /// Parts acknowledged.
    pub parts: u64,
    /// Server-side copies verified.
    pub copies: u64,
    /// Keys deleted.
    pub removals: u64,
    /// Removals dropped because another version stands there.
    pub removals_dropped: u64,
    /// Changes of other hosts to what was changed here: their versions found where ours went, or in place
    /// of what was to be moved or removed, and removals of what was to be replaced.
    pub conflicts: u64,
    /// Bytes of content stored and verified.
    pub bytes: u64,
    /// Objects that the store holds other than sent, and that were sent again.
    pub mismatches: u64,
}

/// The room at a glance.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Files and directories that wait for the bucket.
    pub pending: u64,
    /// Bytes of them.
    pub pending_bytes: u64,
    /// Waiting for a server-side copy.
    pub copies_owed: u64,
    /// Keys that are to be deleted.
    pub removals_owed: u64,
    /// Transfers under way.
    pub flights: Vec<Flight>,
    /// Renamed directories under way.
    pub moves: Vec<Move>,
    /// Steps that fail.
    pub failures: Vec<Failure>,
    /// Since the start.
    pub counters: Counters,
}

/// What a waiter for (a part of) the tree still waits for.
#[derive(Clone, Debug, Default)]
pub struct Outstanding {
    /// Paths not yet in the bucket as wanted.
    pub paths: Vec<String>,
    /// Bytes of their content.
    pub bytes: u64,
    /// Paths held as torn: they will not go up by themselves.
    pub held: Vec<String>,
    /// Keys not yet deleted, with those that an attempt for a removed file has yet to reach.
    pub removals: u64,
    /// Renamed directories of which more may be found at old names.
    pub moves: u64,
}

impl Outstanding {
    /// Nothing is left to wait for.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.held.is_empty() && self.removals == 0 && self.moves == 0
    }
}

impl Uploader {
    /// The room at a glance.
    pub fn status(&self) -> Status {
        let mut status = Status::default();
        self.inner.namespace.read(|tree| {
            for inode in tree.inodes().filter(|inode| tree.is_pending(inode.ino())) {
                status.pending += 1;
                if inode.is_dirty() {
                    status.pending_bytes += inode.row.size;
                } else if inode.origin().is_some() {
                    status.copies_owed += 1;
                }
            }
            status.removals_owed = tree.removals().count() as u64;
        });
        let flights = self.flights();
        let moves = self.moves();
        let book = self.book();
        status.flights = flights;
        status.moves = moves;
        status.failures = book.failures.values().cloned().collect();
        status.counters = book.counters;
        status
    }

    /// The transfers under way.
    pub fn flights(&self) -> Vec<Flight> {
        self.book().flights.values().cloned().collect()
    }

    /// What is not yet in the bucket at or below an inode (`None`: anywhere).
    pub fn outstanding(&self, below: Option<Ino>) -> Outstanding {
        let mut outstanding = Outstanding { moves: self.still_moving(below), ..Outstanding::default() };
        let attempts: Vec<Ino> = {
            let book = self.book();
            book.unsettled().map(|attempt| attempt.ino).collect()
        };
        self.inner.namespace.read(|tree| {
            let mut look = |ino: Ino| {
                let Some(inode) = tree.get(ino) else { return };
                if inode.row.content == Content::Torn {
                    outstanding.held.push(tree.shown_held_path(ino));
                } else if tree.is_pending(ino) || attempts.contains(&ino) || (inode.attempting && inode.row.linked) {
                    outstanding.paths.push(tree.shown_path(ino));
                    outstanding.bytes += if inode.is_dirty() { inode.row.size } else { 0 };
                }
            };
            match below {
                Some(top) => {
                    look(top);
                    tree.below(top).into_iter().for_each(look);
                    if let (Some(prefix), Some(inode)) = (tree.prefix(top), tree.get(top)) {
                        let (of, is_dir) = (inode.row.target, inode.is_dir());
                        outstanding.removals = removals(tree, |target, key| {
                            let key = key.as_str();
                            target == of && if is_dir { key.starts_with(&prefix) } else { key == prefix }
                        });
                    }
                }
                None => {
                    tree.inodes().map(crate::namespace::Inode::ino).for_each(look);
                    outstanding.removals = removals(tree, |_, _| true);
                }
            }
        });
        outstanding
    }

    /// Whether all that is not in the bucket is still open for writing: only programs can move it on.
    pub fn waits_for_writers(&self) -> bool {
        let settled = self.book().unsettled().next().is_none() && self.still_moving(None) == 0;
        settled
            && self.inner.namespace.read(|tree| {
                let is_open = |content| matches!(content, Content::Open | Content::Flushed);
                let mut pending = tree.inodes().filter(|inode| tree.is_pending(inode.ino()));
                tree.removals().next().is_none() && pending.all(|inode| is_open(inode.row.content))
            })
    }

    pub(super) fn note_failure(&self, work: &Work, path: String, error: String, cause: Cause) -> u32 {
        let at = self.inner.namespace.clock().now();
        let mut book = self.book();
        book.failed += 1;
        let seq = book.failed;
        let failure = book.failures.entry(work.clone()).or_insert_with(|| Failure {
            path: path.clone(),
            error: String::new(),
            attempts: 0,
            at,
            cause: cause.clone(),
            seq,
            company: Arc::default(),
        });
        let news = failure.error != error;
        failure.path = path;
        failure.error = error;
        failure.attempts += 1;
        failure.at = at;
        failure.cause = cause;
        failure.seq = seq;
        failure.company = Arc::default();
        let (attempts, shown) = (failure.attempts, failure.clone());
        drop(book);
        if news {
            tracing::warn!(path = shown.path, error = shown.error, attempts, "not in the bucket yet; will be repeated");
        }
        attempts
    }

    pub(super) fn note_success(&self, work: &Work) {
        if let Some(failure) = self.book().failures.remove(work) {
            tracing::info!(path = failure.path, attempts = failure.attempts, "succeeded after failures");
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.book().counters);
    }
}

/// Keys not yet deleted, those among them where an object that nobody wants any more may still come to
/// stand: its attempt has no end yet.
fn removals(tree: &Tree, is_asked_for: impl Fn(TargetId, &Key) -> bool) -> u64 {
    let owed = tree.removals().filter(|row| is_asked_for(row.target, &row.key)).count();
    (owed + tree.sent_in_vain(is_asked_for)) as u64
}
