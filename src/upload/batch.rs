//! Deleting many keys by one request (R1, R4). Durable steps, and what a crash before each leaves:
//!
//! 1. The removals' rows are on disk (J2): they are owed, and looked at again.
//! 2. A page of a listing shows the versions that are meant: nothing has happened.
//! 3. The delete of all of them: some or all are gone, or may still go (R1). The next start looks at
//!    each, and once more, later, at what comes to stand at one of the keys.
//! 4. The rows go, in one transaction.
//!
//! What does not fit a batch (another version is there, or none; the store refused the key) is looked
//! at by itself, in `removal.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::failpoint;
use crate::journal::{Durability, Op, RemovalRow};
use crate::namespace::Mapping;
use crate::store::{ListOptions, ListPage, Outcome};
use crate::types::{ETag, Key, TargetId};

use super::error::{Fatal, StepError, StepResult};
use super::locks::KeyGuard;
use super::queue::{Next, Work};
use super::removal::{Removal, judge};
use super::worker::Ended;
use super::{NO_ATTEMPT, Uploader};

/// Removals that one step takes together: what one page of a listing shows, and one request deletes.
pub(super) const BATCH: usize = 1000;
/// Keys of a page, at least: others may have keys between ours.
const PAGE: usize = 100;
/// Removals judged under one lock, which every call of a program needs.
const JUDGED: usize = 128;
/// Sorts behind whatever keys hold, and may stand in XML.
const LAST: char = '\u{10fffd}';

/// A removal whose key is held until its batch has ended (R1).
struct Held {
    row: RemovalRow,
    _guard: KeyGuard,
}

impl Uploader {
    /// Looks at removals of one target, at most [`BATCH`].
    ///
    /// # Errors
    /// The journal or the outbox failed: the mount stops.
    pub(super) async fn remove_together(&self, target: TargetId, keys: Vec<Key>) -> Result<Vec<Ended>, Fatal> {
        let mut ends = Vec::with_capacity(keys.len());
        let mut held = self.hold(target, keys, &mut ends).await?;
        let Some(mapping) = self.inner.namespace.read(|tree| tree.mapping(target).cloned()) else {
            ends.extend(held.iter().map(|held| (held.work(), Next::Done)));
            return Ok(ends);
        };
        // J2: what justifies the requests is on disk.
        self.inner.namespace.barrier().await?;
        while held.len() > 1 {
            match self.remove_page(&mapping, &mut held).await {
                Ok(ended) => ends.extend(ended),
                // What the store refuses for many keys it may still do for each.
                Err(StepError::Store(error)) if !error.is_transient() => {
                    tracing::debug!(%error, "removals go one by one");
                    break;
                }
                Err(error) => {
                    ends.extend(self.postpone(&held, error)?);
                    return Ok(ends);
                }
            }
        }
        ends.extend(held.iter().map(|held| (held.work(), Next::Alone)));
        Ok(ends)
    }

    /// Holds the keys that may go, as far as we know, in order. The others' looks end without a request.
    async fn hold(&self, target: TargetId, keys: Vec<Key>, ends: &mut Vec<Ended>) -> Result<Vec<Held>, Fatal> {
        let mut free = self.free(target, &keys);
        {
            let book = self.book();
            for attempt in book.unsettled().filter(|attempt| attempt.target == target) {
                free.remove(&attempt.key);
            }
        }
        let mut held = Vec::with_capacity(free.len());
        for key in keys {
            let guard = free.remove(&key).and_then(|row| Some((row, self.inner.locks.try_lock(target, &[&key])?)));
            match guard {
                Some((row, guard)) => held.push(Held { row, _guard: guard }),
                None => {
                    let work = Work::Removal(target, key);
                    let next = self.look(&work).await?;
                    ends.push((work, next));
                }
            }
        }
        held.sort_by(|one, other| one.row.key.cmp(&other.row.key));
        Ok(held)
    }

    /// Deletes what the next page of a listing shows of the keys held; what it tells of is held no more.
    async fn remove_page(&self, mapping: &Mapping, held: &mut Vec<Held>) -> StepResult<Vec<Ended>> {
        let limit = mapping.store.capabilities().max_delete_keys.min(BATCH);
        let page = mapping.store.list(range_of(held, limit)).await;
        mapping.observe(&page);
        let page = page.map_err(StepError::Store)?;
        let covered = covered_by(&page, held);
        // R4: the version that is meant still stands there. What is not shown, or is another, is looked
        // at by itself: a listing may lag, and does not tell whose version it shows.
        let found: HashMap<&Key, &ETag> = page.objects.iter().map(|object| (&object.key, &object.etag)).collect();
        let shown = |row: &RemovalRow| !row.etag.0.is_empty() && found.get(&row.key) == Some(&&row.etag);
        let meant: Vec<&RemovalRow> =
            held.iter().take(covered).map(|held| &held.row).filter(|row| shown(row)).collect();
        let asked: Vec<Key> = meant.iter().map(|row| row.key.clone()).collect();
        let still = self.free(mapping.target, &asked);
        // Not what has changed since the barrier: its row may not be on disk.
        let same = meant.into_iter().filter(|row| still.get(&row.key) == Some(*row));
        let keys: Vec<Key> = same.map(|row| row.key.clone()).collect();
        let gone = if keys.is_empty() { HashSet::new() } else { self.delete_many(mapping, keys).await? };
        let ended = held.drain(..covered).map(|held| {
            let next = if gone.contains(&held.row.key) { Next::Done } else { Next::Alone };
            (held.work(), next)
        });
        Ok(ended.collect())
    }

    /// Returns the keys that are gone; the store has refused the others.
    async fn delete_many(&self, mapping: &Mapping, keys: Vec<Key>) -> StepResult<HashSet<Key>> {
        failpoint::hit(failpoint::REMOVAL_BEFORE_DELETE);
        let deleted = mapping.store.delete_many(&keys).await;
        mapping.observe(&deleted);
        let refused = match deleted {
            Ok(refused) => refused,
            Err(error) => {
                if error.outcome() == Outcome::Unknown {
                    for key in &keys {
                        self.suspect(mapping.target, key, NO_ATTEMPT);
                    }
                }
                return Err(StepError::Store(error));
            }
        };
        failpoint::hit(failpoint::REMOVAL_AFTER_DELETE);
        let refused: HashSet<Key> = refused.into_iter().map(|refused| refused.key).collect();
        let gone: HashSet<Key> = keys.into_iter().filter(|key| !refused.contains(key)).collect();
        self.count(|counters| counters.removals += gone.len() as u64);
        for key in &gone {
            // Before anybody is told that nothing is left.
            self.note_success(&Work::Removal(mapping.target, key.clone()));
        }
        self.settled_together(mapping, &gone).await?;
        Ok(gone)
    }

    async fn settled_together(&self, mapping: &Mapping, gone: &HashSet<Key>) -> StepResult<()> {
        let deleted_at = Some(self.now());
        let unsent: Vec<Op> = mapping
            .sync
            .map(|sync| gone.iter().flat_map(|key| self.inner.outbox.gone(sync, key)).collect())
            .unwrap_or_default();
        let ((), commit) = self.inner.namespace.update(Durability::Buffered, |tree, ops| {
            for key in gone {
                tree.settle_removal(mapping.target, key, deleted_at, ops);
                ops.push(Op::DeleteAttribute(mapping.target, key.clone()));
            }
            ops.extend(unsent);
        });
        Ok(commit.durable().await?)
    }

    /// The keys that may go as far as we know, each with what is owed.
    fn free(&self, target: TargetId, keys: &[Key]) -> HashMap<Key, RemovalRow> {
        let mut free = HashMap::with_capacity(keys.len());
        for some in keys.chunks(JUDGED) {
            self.inner.namespace.read(|tree| {
                for key in some {
                    if let Removal::Free(row) = judge(tree, target, key) {
                        free.insert(key.clone(), row);
                    }
                }
            });
        }
        free
    }

    /// It failed for all of them: that is told of one, and they are tried together again.
    fn postpone(&self, held: &[Held], error: StepError) -> Result<Vec<Ended>, Fatal> {
        let Some(first) = held.first() else { return Ok(Vec::new()) };
        let next = self.judge_end(&first.work(), first.row.key.to_string(), Err(error))?;
        if let Some(failure) = self.book().failures.get_mut(&first.work()) {
            // Whoever waits for one of them is told too.
            failure.company = Arc::new(held.iter().map(Held::work).collect());
        }
        Ok(held.iter().map(|held| (held.work(), next)).collect())
    }
}

impl Held {
    fn work(&self) -> Work {
        Work::Removal(self.row.target, self.row.key.clone())
    }
}

/// A page that begins right before the first of the sorted keys, of what begins as they all do.
fn range_of(held: &[Held], limit: usize) -> ListOptions {
    let (Some(first), Some(last)) = (held.first(), held.last()) else { return ListOptions::default() };
    let (first, last) = (first.row.key.as_str(), last.row.key.as_str());
    let max_keys = u32::try_from(held.len().max(PAGE).min(limit)).unwrap_or(u32::MAX);
    ListOptions { prefix: shared(first, last), delimiter: None, marker: right_before(first), max_keys }
}

/// How many of the sorted keys a page tells of: at least one, which ends as not shown if it is not there.
fn covered_by(page: &ListPage, held: &[Held]) -> usize {
    if page.next_marker.is_none() {
        return held.len();
    }
    let last = page.objects.last().map(|object| &object.key);
    held.partition_point(|held| last.is_some_and(|last| held.row.key <= *last)).max(1)
}

/// What two keys begin with.
fn shared(one: &str, other: &str) -> String {
    one.chars().zip(other.chars()).take_while(|(one, other)| one == other).map(|(letter, _)| letter).collect()
}

/// A marker that a key follows closely: a page shows what is greater than its marker.
fn right_before(key: &str) -> Option<String> {
    let mut letters = key.chars();
    let last = letters.next_back()?;
    let mut before = letters.as_str().to_owned();
    // Markers are better without control characters. The beginning of a key sorts before it too.
    if let Some(lesser) = char::from_u32(u32::from(last) - 1).filter(|lesser| *lesser > ' ' && last != '\u{7f}') {
        before.push(lesser);
        before.push(LAST);
    }
    Some(before).filter(|before| !before.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_begins_right_before_the_first_key() {
        let before = |key: &str| right_before(key).unwrap_or_default();
        assert_eq!(before("d/b"), format!("d/a{LAST}"));
        assert_eq!(before("d/"), format!("d.{LAST}"));
        assert_eq!(before("d\u{e000}"), "d", "no letter stands right before");
        assert_eq!(before("d!"), "d", "nor one that a marker should hold");
        assert_eq!(right_before("!"), None);
        assert_eq!(shared("d/a1", "d/a2"), "d/a");
        assert_eq!(shared("d/\u{4e2d}", "d/\u{4e2d}x"), "d/\u{4e2d}");
        assert_eq!(shared("a", "b"), "");
    }

    proptest! {
        #[test]
        fn a_marker_sorts_before_its_key_and_behind_all_that_are_less(key in "\\PC{1,6}", other in "\\PC{0,6}") {
            let marker = right_before(&key).unwrap_or_default();
            prop_assert!(marker < key);
            let last = key.chars().next_back().unwrap();
            // Where the last letter has one before it, nothing but what begins with the key's own
            // beginning and a letter beyond the last of all stands between.
            if last > '"' && marker.ends_with(LAST) && other < key && !other.contains(|letter| letter >= LAST) {
                prop_assert!(other <= marker, "{other:?} between {marker:?} and {key:?}");
            }
        }
    }
}
