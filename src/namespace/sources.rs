//! Which directory an object belongs to while renamed directories have not been moved in the bucket
//! (R5). Pure bookkeeping: nothing here asks the bucket.

use crate::journal::{AttemptRow, Content, Op, SourceRow};
use crate::store::ObjectMeta;
use crate::types::{Ino, Key, TargetId, TimeNs};

use super::inode::Source;
use super::tree::{Sending, Tree};

/// The store's times are whole seconds.
const SECOND_NS: i64 = 1_000_000_000;

/// Who an object belongs to that lies under a renamed directory's old name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The directory.
    pub(crate) dir: Ino,
    /// Its source that the key lies under.
    pub(crate) prefix: String,
}

/// A directory and those below it that are known here, before a rename.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Each with its prefix.
    pub(crate) dirs: Vec<(Ino, String)>,
    /// Files in them whose content waits for its upload.
    pub(crate) waiting: Vec<Ino>,
}

impl Tree {
    /// The prefixes that still hold children of a directory.
    pub fn sources(&self, dir: Ino) -> &[Source] {
        self.get(dir).and_then(|inode| inode.dir.as_ref()).map_or(&[], |state| &state.sources)
    }

    /// Directories that still have children at old names, each with its sources.
    pub fn moving(&self) -> impl Iterator<Item = (Ino, &Source)> {
        let dirs = self.claims.values().flatten().map(|(_, ino)| *ino);
        let dirs: std::collections::BTreeSet<Ino> = dirs.collect();
        dirs.into_iter().flat_map(|ino| self.sources(ino).iter().map(move |source| (ino, source)))
    }

    /// It, or a directory below it that is known here, still has children at old names.
    pub(crate) fn is_moving(&self, ino: Ino) -> bool {
        !self.claims.is_empty()
            && (!self.sources(ino).is_empty() || self.below(ino).iter().any(|below| !self.sources(*below).is_empty()))
    }

    /// What the journal knows of sources.
    pub(crate) fn adopt_sources(&mut self, rows: &[SourceRow]) {
        for row in rows {
            let source = Source { prefix: row.prefix.clone(), at: row.at };
            match self.inodes.get_mut(&row.ino).and_then(|inode| inode.dir.as_mut()) {
                Some(state) => state.sources.push(source),
                None => {
                    tracing::error!(ino = %row.ino, prefix = row.prefix, "the journal has a source without its directory")
                }
            }
            self.claims.entry((row.target, row.prefix.clone())).or_default().push((row.at, row.ino));
        }
    }

    /// A directory has children at a prefix that are not newer than `at`. Its row is written too.
    pub(crate) fn add_source(&mut self, dir: Ino, source: Source, ops: &mut Vec<Op>) {
        let own = self.prefix(dir);
        let Some(inode) = self.get_mut(dir) else { return };
        let target = inode.row.target;
        let Some(state) = inode.dir.as_mut() else { return };
        if own.as_ref() == Some(&source.prefix) || state.sources.iter().any(|known| known.prefix == source.prefix) {
            return;
        }
        state.sources.push(source.clone());
        // What is at the source may be asked for at once.
        state.listed = None;
        let claims = self.claims.entry((target, source.prefix.clone())).or_default();
        let place = claims.partition_point(|(at, _)| *at <= source.at);
        claims.insert(place, (source.at, dir));
        self.persist(dir, ops);
        ops.push(Op::PutSource(SourceRow { ino: dir, target, prefix: source.prefix, at: source.at }));
    }

    /// Nothing is left at a source of a directory.
    pub(crate) fn drop_source(&mut self, dir: Ino, prefix: &str, ops: &mut Vec<Op>) {
        let Some(inode) = self.get_mut(dir) else { return };
        let target = inode.row.target;
        let Some(state) = inode.dir.as_mut() else { return };
        let before = state.sources.len();
        state.sources.retain(|source| source.prefix != prefix);
        if state.sources.len() == before {
            return;
        }
        let slot = (target, prefix.to_owned());
        if let Some(claims) = self.claims.get_mut(&slot) {
            claims.retain(|(_, ino)| *ino != dir);
            if claims.is_empty() {
                self.claims.remove(&slot);
            }
        }
        ops.push(Op::DeleteSource(dir, prefix.to_owned()));
    }

    /// The directory goes: whatever may still be at its sources has no place there any more.
    pub(crate) fn drop_sources(&mut self, dir: Ino, ops: &mut Vec<Op>) {
        let prefixes: Vec<String> = self.sources(dir).iter().map(|source| source.prefix.clone()).collect();
        for prefix in prefixes {
            self.drop_source(dir, &prefix, ops);
        }
    }

    /// What [`Tree::record_move`] must be told after the rename of an inode: nothing of a file.
    pub(crate) fn places(&self, ino: Ino) -> Places {
        let mut places = Places::default();
        let mut open = vec![ino];
        while let Some(at) = open.pop() {
            let (Some(state), Some(prefix)) = (self.get(at).and_then(|inode| inode.dir.as_ref()), self.prefix(at))
            else {
                continue;
            };
            places.dirs.push((at, prefix));
            for child in state.children().values().filter_map(|child| self.get(*child)) {
                if child.is_dir() {
                    open.push(child.ino());
                } else if child.row.content == Content::Closed {
                    places.waiting.push(child.ino());
                }
            }
        }
        places
    }

    /// A directory was renamed: it, and each directory below it that is known here, still has children
    /// at its old prefix; what came back to where it was has them at home.
    pub(crate) fn record_move(&mut self, places: &Places, now: TimeNs, ops: &mut Vec<Op>) {
        let Some(store) = places.dirs.first().and_then(|(dir, _)| self.mapping_of(*dir)).map(|m| m.store.clone())
        else {
            return;
        };
        let second = store.time(now).sec().saturating_mul(SECOND_NS);
        for (dir, old) in &places.dirs {
            let (dir, old) = (*dir, old.clone());
            let Some(target) = self.get(dir).map(|inode| inode.row.target) else { continue };
            if let Some(own) = self.prefix(dir) {
                self.drop_source(dir, &own, ops);
            }
            // Two renames within a second: what was there at the first goes with the first.
            let last = self.claims.get(&(target, old.clone())).and_then(|claims| claims.last()).map(|(at, _)| *at);
            let at = last.filter(|last| last.0 >= second).map_or(TimeNs(second), |last| TimeNs(last.0 + 1));
            // What is known of its entries stays as fresh as it was.
            let listed = self.get(dir).and_then(|inode| inode.dir.as_ref()).and_then(|state| state.listed);
            self.add_source(dir, Source { prefix: old, at }, ops);
            if let Some(state) = self.get_mut(dir).and_then(|inode| inode.dir.as_mut()) {
                state.listed = listed;
            }
        }
    }

    /// Whether something may be claimed at or below a prefix, or above it.
    pub(crate) fn is_contested(&self, target: TargetId, prefix: &str) -> bool {
        if self.claims.is_empty() {
            return false;
        }
        let below = self.claims.range((target, prefix.to_owned())..).next();
        below.is_some_and(|((of, at), _)| *of == target && at.starts_with(prefix))
            || prefix.match_indices('/').any(|(at, _)| {
                prefix.get(..=at).is_some_and(|above| self.claims.contains_key(&(target, above.to_owned())))
            })
    }

    /// The renamed directory that an object of this age belongs under, whatever inode it is the
    /// version of: the nearest renamed directory above the key decides, the earliest rename first.
    pub(crate) fn claim(&self, target: TargetId, key: &Key, modified: Option<TimeNs>) -> Option<Claim> {
        if self.claims.is_empty() {
            return None;
        }
        let modified = modified.map_or(i64::MIN, |time| time.sec().saturating_mul(SECOND_NS));
        key.as_str().rmatch_indices('/').find_map(|(at, _)| {
            let prefix = key.as_str().get(..=at)?.to_owned();
            let slot = (target, prefix);
            let (_, dir) = self.claims.get(&slot)?.iter().find(|(until, _)| until.0 >= modified)?;
            Some(Claim { dir: *dir, prefix: slot.1 })
        })
    }

    /// Keeps the keys of attempts that have begun and not ended, under the lock that queues their rows.
    pub(crate) fn note_attempts(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::PutAttempt(attempt) => self.note_attempt(attempt),
                Op::DeleteAttempt(attempt) => {
                    let Some(slot) = self.attempts.remove(attempt) else { continue };
                    if let Some(there) = self.attempted.get_mut(&slot) {
                        there.retain(|sending| sending.attempt != *attempt);
                        if there.is_empty() {
                            self.attempted.remove(&slot);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn note_attempt(&mut self, attempt: &AttemptRow) {
        let slot = (attempt.target, attempt.key.clone());
        // Its row is written anew when more is known of it.
        if self.attempts.insert(attempt.attempt, slot.clone()).is_none() {
            let sending = Sending { attempt: attempt.attempt, ino: attempt.ino, late: false };
            self.attempted.entry(slot).or_default().push(sending);
        }
    }

    /// An attempt did not arrive, but may still (R1).
    pub fn note_late(&mut self, attempt: u64) {
        let there = self.attempts.get(&attempt).and_then(|slot| self.attempted.get_mut(slot));
        for sending in there.into_iter().flatten().filter(|sending| sending.attempt == attempt) {
            sending.late = true;
        }
    }

    /// A request for the inode is under way, or its outcome is not known.
    pub fn is_sent_for(&self, ino: Ino) -> bool {
        let mut sending = self.attempted.values().flatten();
        self.get(ino).is_some_and(|inode| inode.attempting) || sending.any(|one| one.ino == ino && !one.late)
    }

    /// What is being sent there will be a removal owed (R2): its inode has lost its name, or has another.
    pub(crate) fn is_sent_in_vain(&self, target: TargetId, key: &Key) -> bool {
        let there = self.attempted.get(&(target, key.clone()));
        there.into_iter().flatten().any(|sending| {
            let linked = self.get(sending.ino).is_some_and(|inode| inode.row.linked);
            let is_wanted = linked && self.key(sending.ino).as_ref() == Some(key);
            !sending.late && !is_wanted
        })
    }

    /// Keys, among those that are asked for, where what is being sent will be a removal owed.
    pub fn sent_in_vain(&self, is_asked_for: impl Fn(TargetId, &Key) -> bool) -> usize {
        let keys = self.attempted.keys().filter(|(target, key)| is_asked_for(*target, key));
        keys.filter(|(target, key)| self.is_sent_in_vain(*target, key)).count()
    }

    /// The object is the version of an inode that wants this very key, or may be that of an attempt
    /// whose end is not recorded: what belonged to a renamed directory there was settled before it
    /// began.
    pub(crate) fn is_home(&self, target: TargetId, key: &Key) -> bool {
        if self.attempted.contains_key(&(target, key.clone())) {
            return true;
        }
        self.at_remote(target, key)
            .iter()
            .any(|ino| self.get(*ino).is_some_and(|inode| inode.row.linked) && self.key(*ino).as_ref() == Some(key))
    }

    /// The object belongs to another name than its key says.
    pub(crate) fn is_elsewhere(&self, target: TargetId, meta: &ObjectMeta) -> bool {
        self.claim(target, &meta.key, meta.last_modified).is_some() && !self.is_home(target, &meta.key)
    }

    /// The object belongs under this directory, from this source, and no inode is known for it.
    pub(crate) fn is_unsettled(&self, dir: Ino, prefix: &str, meta: &ObjectMeta) -> bool {
        let Some(target) = self.get(dir).map(|inode| inode.row.target) else { return false };
        let claim = self.claim(target, &meta.key, meta.last_modified);
        claim.is_some_and(|claim| claim.dir == dir && claim.prefix == prefix)
            && !self.is_home(target, &meta.key)
            && !self.is_gone(target, &meta.key)
    }
}
