//! When to look at what: a queue of due times. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::types::{Ino, Key, TargetId};

/// Something to reconcile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Work {
    /// An attempt whose outcome is unknown.
    Settle(u64),
    /// An inode.
    Inode(Ino),
    /// A key that is to leave the bucket.
    Removal(TargetId, Key),
}

/// What a look ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing more to do, until told.
    Done,
    /// Look again after this long.
    After(Duration),
    /// Look again when something else has ended.
    Blocked,
}

/// Work by due time. Work that is told of while it is in hand is looked at again afterwards.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeSet<(Duration, Work)>,
    at: HashMap<Work, Duration>,
    in_hand: HashSet<Work>,
    again: HashMap<Work, Duration>,
    blocked: HashSet<Work>,
}

impl Queue {
    /// Looks at `work` at `at`; a later call moves the time.
    pub(super) fn put(&mut self, work: Work, at: Duration) {
        if self.in_hand.contains(&work) {
            self.again.insert(work, at);
            return;
        }
        self.blocked.remove(&work);
        if let Some(old) = self.at.insert(work.clone(), at) {
            self.due.remove(&(old, work.clone()));
        }
        self.due.insert((at, work));
    }

    /// As [`Queue::put`], but never later than it was.
    pub(super) fn put_sooner(&mut self, work: Work, at: Duration) {
        let at = self.at.get(&work).map_or(at, |old| at.min(*old));
        self.put(work, at);
    }

    /// Takes the first work that is due.
    pub(super) fn take(&mut self, now: Duration) -> Option<Work> {
        let (at, work) = self.due.first()?.clone();
        if at > now {
            return None;
        }
        self.due.remove(&(at, work.clone()));
        self.at.remove(&work);
        self.in_hand.insert(work.clone());
        Some(work)
    }

    /// When the next work is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A look has ended. Whatever was blocked is due again.
    pub(super) fn ended(&mut self, work: Work, next: Next, now: Duration) {
        self.in_hand.remove(&work);
        if next != Next::Blocked {
            for blocked in std::mem::take(&mut self.blocked) {
                self.put(blocked, now);
            }
        }
        let again = self.again.remove(&work);
        match (again, next) {
            (Some(at), Next::After(wait)) => self.put(work, at.max(now).min(now + wait)),
            (Some(at), Next::Done | Next::Blocked) => self.put(work, at),
            (None, Next::After(wait)) => self.put(work, now + wait),
            (None, Next::Blocked) => {
                self.blocked.insert(work);
            }
            (None, Next::Done) => {}
        }
    }

    /// Blocked work is looked at again: what it waits for may have changed without a look ending.
    pub(super) fn wake_blocked(&mut self, now: Duration) {
        for blocked in std::mem::take(&mut self.blocked) {
            self.put(blocked, now);
        }
    }

    /// Everything that waits is due now (a drain).
    pub(super) fn hurry(&mut self, now: Duration) {
        let all: Vec<Work> = self.at.keys().cloned().collect();
        for work in all {
            self.put_sooner(work, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn changes_move_the_time_and_work_in_hand_comes_again() {
        let mut queue = Queue::default();
        let file = Work::Inode(Ino(5));
        queue.put(file.clone(), S(1));
        queue.put(file.clone(), S(2));
        assert_eq!(queue.take(S(1)), None);
        assert_eq!(queue.take(S(2)), Some(file.clone()));
        queue.put(file.clone(), S(4));
        assert_eq!(queue.take(S(9)), None, "in hand");
        queue.ended(file.clone(), Next::Done, S(3));
        assert_eq!(queue.next_due(), Some(S(4)));
        queue.put_sooner(file.clone(), S(6));
        assert_eq!(queue.next_due(), Some(S(4)));
        assert_eq!(queue.take(S(4)), Some(file));
    }

    #[test]
    fn blocked_work_waits_for_an_end() {
        let mut queue = Queue::default();
        let (a, b) = (Work::Inode(Ino(2)), Work::Inode(Ino(3)));
        queue.put(a.clone(), S(0));
        queue.put(b.clone(), S(0));
        assert_eq!(queue.take(S(0)), Some(a.clone()));
        assert_eq!(queue.take(S(0)), Some(b.clone()));
        queue.ended(a.clone(), Next::Blocked, S(1));
        assert_eq!(queue.next_due(), None);
        queue.ended(b, Next::Done, S(2));
        assert_eq!(queue.take(S(2)), Some(a));
    }
}
