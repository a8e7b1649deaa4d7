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
    /// A renamed directory with children at old names.
    Move(Ino),
    /// A key that is to leave the bucket.
    Removal(TargetId, Key),
}

/// What a look ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing more to do, until told.
    Done,
    /// Look again after this long, whoever hurries.
    After(Duration),
    /// Nothing to do before that, unless told: a second look (R1).
    Later(Duration),
    /// Look again when something else has ended.
    Blocked,
    /// Look again when a look at this inode has ended.
    Behind(Ino),
    /// Look again at once, and not together with others.
    Alone,
}

/// When work is due that a program waits for: before all other, and beyond the number of steps that
/// run at once.
pub(super) const URGENT: Duration = Duration::ZERO;

/// Work that waits for other work is looked at again after this long all the same: what it waits
/// for may end in ways that nobody tells the queue of.
const STALLED_LOOK: Duration = Duration::from_secs(5);

/// So many ends of inodes are remembered; of those before, work in hand is looked at once more.
const ENDS_KEPT: usize = 1024;

/// Removals wait for others to go with, but not longer than this.
const LONGEST_GATHERING: Duration = Duration::from_millis(250);

/// When work is due that should be at `at` and may wait up to `grid` more for others like it: all that fall
/// into one stretch of time are due at its end, in order of their keys, however fast requests are.
pub(super) fn in_company(at: Duration, grid: Duration) -> Duration {
    let grid = grid.min(LONGEST_GATHERING).as_nanos();
    let past = at.as_nanos().checked_rem(grid).filter(|past| *past > 0);
    let wait = past.map_or(0, |past| grid - past);
    at + Duration::from_nanos(u64::try_from(wait).unwrap_or(0))
}

/// When work is due, and why then.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Duration,
    why: Why,
}

/// Why work is not due at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// More changes may come. A drain does not wait for that.
    Delay,
    /// A pause after a failure, or a stall: a drain does not shorten it, or it would turn into a
    /// storm of repeats.
    Pause,
    /// A second look, which nobody waits for: a drain leaves it where it is, but what there is to do
    /// meanwhile does not stand behind it.
    Idle,
}

/// Work in hand that is told of.
#[derive(Clone, Copy, Debug)]
struct Again {
    at: Duration,
    /// Also if it waits for something by itself; see [`Queue::ensure`].
    firm: bool,
}

/// Work by due time. Work that is told of while it is in hand is looked at again afterwards.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeSet<(Duration, Work)>,
    at: HashMap<Work, Due>,
    /// With how many ends there had been when each was taken.
    in_hand: HashMap<Work, u64>,
    again: HashMap<Work, Again>,
    /// Ends so far that blocked work may have waited for.
    ends: u64,
    /// Which of them was the last of an inode, since this many of all.
    ended: (u64, HashMap<Ino, u64>),
    /// Woken by the end of any look.
    blocked: HashSet<Work>,
    /// Woken by the end of a look at one inode: waking all of a large tree's files at the end of
    /// each of them would cost the square of their number.
    behind: HashMap<Ino, HashSet<Work>>,
    stalled: HashMap<Work, Ino>,
    /// To be looked at by itself.
    alone: HashSet<Work>,
}

impl Queue {
    /// Looks at `work` at `at`; a later call moves the time.
    pub(super) fn put(&mut self, work: Work, at: Duration) {
        self.schedule(work, Due { at, why: Why::Delay });
    }

    fn schedule(&mut self, work: Work, due: Due) {
        if self.in_hand.contains_key(&work) {
            self.again.insert(work, Again { at: due.at, firm: true });
            return;
        }
        self.unstall(&work);
        if let Some(old) = self.at.insert(work.clone(), due) {
            self.due.remove(&(old.at, work.clone()));
        }
        self.due.insert((due.at, work));
    }

    fn unstall(&mut self, work: &Work) {
        self.blocked.remove(work);
        if let Some(ino) = self.stalled.remove(work)
            && let Some(behind) = self.behind.get_mut(&ino)
        {
            behind.remove(work);
            if behind.is_empty() {
                self.behind.remove(&ino);
            }
        }
    }

    /// A look at this work is under way.
    pub(super) fn is_in_hand(&self, work: &Work) -> bool {
        self.in_hand.contains_key(work)
    }

    /// As [`Queue::put`], but never later than it was. What is waited for wakes it all the same.
    pub(super) fn put_sooner(&mut self, work: Work, at: Duration) {
        if self.at.get(&work).is_none_or(|old| at < old.at) {
            self.put(work, at);
        }
    }

    /// Looks at `work` at `at`, unless it has an earlier time, or waits for something: a pause after a
    /// failure stays. A look that is under way may have been decided before there was something to do.
    pub(super) fn ensure(&mut self, work: Work, at: Duration) {
        if self.in_hand.contains_key(&work) {
            self.again.entry(work).or_insert(Again { at, firm: false });
        } else if self.at.get(&work).is_none_or(|due| due.why == Why::Idle && at < due.at) {
            self.put(work, at);
        }
    }

    /// Looks at `work` at `at`, without the delay: somebody waits for it. A pause after a failure stays.
    pub(super) fn expedite(&mut self, work: Work, at: Duration) {
        if self.at.get(&work).is_some_and(|due| due.why == Why::Delay) {
            self.put_sooner(work, at);
        } else {
            self.ensure(work, at);
        }
    }

    /// Takes the first work that is due.
    pub(super) fn take(&mut self, now: Duration) -> Option<Work> {
        let (at, work) = self.due.first()?.clone();
        if at > now {
            return None;
        }
        self.take_due(at, &work);
        Some(work)
    }

    fn take_due(&mut self, at: Duration, work: &Work) {
        self.due.remove(&(at, work.clone()));
        self.at.remove(work);
        self.unstall(work);
        self.in_hand.insert(work.clone(), self.ends);
    }

    /// Takes the keys of more removals that are due, of the same target as `work`, if that is a removal that
    /// has just been taken; at most so many.
    pub(super) fn take_company(&mut self, work: &Work, now: Duration, most: usize) -> Vec<Key> {
        let Work::Removal(target, _) = work else { return Vec::new() };
        if self.alone.contains(work) {
            return Vec::new();
        }
        // Looking past other work has its end: it may be much.
        let due = self.due.iter().take_while(|(at, _)| *at <= now).take(4 * most);
        let like = due.filter(|(_, work)| matches!(work, Work::Removal(of, _) if of == target));
        let found = like.filter(|(_, work)| !self.alone.contains(work)).take(most);
        let found: Vec<(Duration, Work)> = found.cloned().collect();
        let mut keys = Vec::with_capacity(found.len());
        for (at, work) in found {
            self.take_due(at, &work);
            if let Work::Removal(_, key) = work {
                keys.push(key);
            }
        }
        keys
    }

    /// When the next work is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A look has ended. What waited for it is due again.
    pub(super) fn ended(&mut self, work: Work, next: Next, now: Duration) {
        let began = self.in_hand.remove(&work).unwrap_or(self.ends);
        self.alone.remove(&work);
        if matches!(next, Next::Done | Next::After(_) | Next::Later(_)) {
            self.wake_blocked(now);
            if let Work::Inode(ino) = &work {
                self.wake_behind(*ino, now);
            }
        }
        let waits = !matches!(next, Next::Done | Next::Later(_));
        let again = self.again.remove(&work).filter(|again| again.firm || !waits).map(|again| again.at);
        // Told of at a later time it still waits for what it waits for.
        let again = again.filter(|at| !matches!(next, Next::Blocked | Next::Behind(_)) || *at < now + STALLED_LOOK);
        match (again, next) {
            (Some(at), Next::After(wait) | Next::Later(wait)) => self.put(work, at.max(now).min(now + wait)),
            (Some(at), Next::Done | Next::Blocked | Next::Behind(_)) => self.put(work, at),
            (None, Next::After(wait)) => self.schedule(work, Due { at: now + wait, why: Why::Pause }),
            (None, Next::Later(wait)) => self.schedule(work, Due { at: now + wait, why: Why::Idle }),
            (None, Next::Done) => {}
            (_, Next::Alone) => {
                self.alone.insert(work.clone());
                self.put(work, now);
            }
            // What it waits for has ended since it looked: nobody else will wake it.
            (None, Next::Blocked) if self.ends > began => self.put(work, now),
            (None, Next::Behind(ino)) if self.has_ended_since(ino, began) => self.put(work, now),
            (None, Next::Blocked) => {
                self.schedule(work.clone(), Due { at: now + STALLED_LOOK, why: Why::Pause });
                self.blocked.insert(work);
            }
            (None, Next::Behind(ino)) => {
                self.schedule(work.clone(), Due { at: now + STALLED_LOOK, why: Why::Pause });
                self.behind.entry(ino).or_default().insert(work.clone());
                self.stalled.insert(work, ino);
            }
        }
    }

    fn has_ended_since(&self, ino: Ino, began: u64) -> bool {
        let (since, ended) = &self.ended;
        began < *since || ended.get(&ino).is_some_and(|end| *end > began)
    }

    /// Blocked work is looked at again: what it waits for may have changed without a look ending.
    pub(super) fn wake_blocked(&mut self, now: Duration) {
        self.ends += 1;
        for blocked in std::mem::take(&mut self.blocked) {
            self.put(blocked, now);
        }
    }

    /// What waits for an inode is looked at again.
    pub(super) fn wake_behind(&mut self, ino: Ino, now: Duration) {
        self.ends += 1;
        if self.ended.1.len() >= ENDS_KEPT {
            self.ended = (self.ends, HashMap::new());
        }
        self.ended.1.insert(ino, self.ends);
        for behind in self.behind.remove(&ino).into_iter().flatten() {
            self.put(behind, now);
        }
    }

    /// Every delay is over (a drain). Pauses after failures stay.
    pub(super) fn hurry(&mut self, now: Duration) {
        let delayed = self.at.iter().filter(|(_, due)| due.why == Why::Delay && due.at > now);
        let delayed: Vec<Work> = delayed.map(|(work, _)| work.clone()).collect();
        for work in delayed {
            self.put(work, now);
        }
    }

    /// Everything is due now, pauses after failures too: what failed has been mended.
    pub(super) fn retry(&mut self, now: Duration) {
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
        assert_eq!(queue.next_due(), Some(S(1) + STALLED_LOOK), "it is not forgotten if no end comes");
        queue.ended(b, Next::Done, S(2));
        assert_eq!(queue.take(S(2)), Some(a));
    }

    #[test]
    fn work_behind_an_inode_waits_for_its_end_only() {
        let mut queue = Queue::default();
        let (a, b, c) = (Work::Inode(Ino(2)), Work::Inode(Ino(3)), Work::Inode(Ino(4)));
        queue.put(a.clone(), S(0));
        assert_eq!(queue.take(S(0)), Some(a.clone()));
        queue.put(b.clone(), S(0));
        queue.put(c.clone(), S(0));
        queue.ended(a.clone(), Next::Behind(Ino(3)), S(0));
        assert_eq!((queue.take(S(0)), queue.take(S(0))), (Some(b.clone()), Some(c.clone())));
        queue.ended(c, Next::Done, S(1));
        assert_eq!(queue.take(S(1)), None, "another end does not wake it");
        queue.ended(b.clone(), Next::After(S(9)), S(2));
        assert_eq!(queue.take(S(2)), Some(a.clone()));
        queue.ensure(b, S(2));
        assert_eq!(queue.take(S(2)), None, "the pause of what it waits for stays");
        queue.ended(a.clone(), Next::Behind(Ino(3)), S(2));
        assert_eq!(queue.next_due(), Some(S(2) + STALLED_LOOK));
        assert_eq!(queue.take(S(2) + STALLED_LOOK), Some(a));
    }

    #[test]
    fn what_waits_for_its_second_look_alone_does_not_keep_other_steps_waiting() {
        let mut queue = Queue::default();
        let file = Work::Inode(Ino(2));
        queue.put(file.clone(), S(0));
        assert_eq!(queue.take(S(0)), Some(file.clone()));
        queue.ended(file.clone(), Next::Later(S(120)), S(0));
        queue.hurry(S(1));
        assert_eq!(queue.take(S(119)), None, "nobody waits for it");
        queue.ensure(file.clone(), S(130));
        assert_eq!(queue.next_due(), Some(S(120)), "it is not put off");
        queue.ensure(file.clone(), S(2));
        assert_eq!(queue.take(S(2)), Some(file), "its directory was renamed");
    }

    #[test]
    fn a_look_under_way_does_not_swallow_what_there_is_to_do() {
        let file = Work::Inode(Ino(2));
        let ends = [
            (Next::Done, Some(S(3))),
            (Next::Later(S(120)), Some(S(3))),
            (Next::After(S(60)), Some(S(61))),
            (Next::Blocked, Some(S(1) + STALLED_LOOK)),
            (Next::Behind(Ino(9)), Some(S(1) + STALLED_LOOK)),
        ];
        for (next, due) in ends {
            let mut queue = Queue::default();
            queue.put(file.clone(), S(0));
            assert_eq!(queue.take(S(0)), Some(file.clone()));
            queue.ensure(file.clone(), S(3));
            queue.ended(file.clone(), next, S(1));
            assert_eq!(queue.next_due(), due, "{next:?}");
        }
    }

    #[test]
    fn removals_of_one_target_are_taken_together_when_they_are_due() {
        let mut queue = Queue::default();
        let removal = |target, key: &str| Work::Removal(TargetId(target), Key::from(key));
        let keys = |keys: &[&str]| keys.iter().map(|key| Key::from(*key)).collect::<Vec<_>>();
        for (work, at) in [
            (removal(1, "b"), 1),
            (removal(1, "a"), 1),
            (Work::Inode(Ino(5)), 2),
            (removal(2, "c"), 2),
            (removal(1, "d"), 2),
            (removal(1, "e"), 3),
        ] {
            queue.put(work, S(at));
        }
        assert_eq!(queue.take(S(2)), Some(removal(1, "a")));
        assert_eq!(queue.take_company(&removal(1, "a"), S(2), 10), keys(&["b", "d"]), "neither another's nor early");
        assert!(queue.is_in_hand(&removal(1, "d")));
        queue.ended(removal(1, "a"), Next::After(S(1)), S(2));
        queue.ended(removal(1, "b"), Next::Alone, S(2));
        queue.ended(removal(1, "d"), Next::Done, S(2));
        assert_eq!(queue.take(S(3)), Some(Work::Inode(Ino(5))));
        assert_eq!(queue.take_company(&Work::Inode(Ino(5)), S(3), 10), []);
        assert_eq!(queue.take(S(3)), Some(removal(1, "b")));
        assert_eq!(queue.take_company(&removal(1, "b"), S(3), 10), [], "by itself");
        queue.ended(removal(1, "b"), Next::After(S(0)), S(3));
        assert_eq!(queue.take(S(3)), Some(removal(2, "c")));
        assert_eq!(queue.take(S(3)), Some(removal(1, "a")));
        assert_eq!(queue.take_company(&removal(1, "a"), S(3), 1), keys(&["b"]), "that is over");
        assert_eq!(queue.take_company(&removal(1, "a"), S(3), 9), keys(&["e"]));
    }

    #[test]
    fn what_may_wait_for_company_is_due_at_the_end_of_a_stretch_of_time() {
        let ms = Duration::from_millis;
        assert_eq!((in_company(ms(1001), ms(250)), in_company(ms(1250), ms(250))), (ms(1250), ms(1250)));
        assert_eq!(in_company(ms(1001), S(10)), ms(1250), "the wait has its end");
        assert_eq!(in_company(ms(1001), S(0)), ms(1001));
    }

    #[test]
    fn what_ends_while_work_looks_at_it_wakes_it() {
        let (a, b) = (Work::Inode(Ino(2)), Work::Inode(Ino(3)));
        for next in [Next::Blocked, Next::Behind(Ino(3))] {
            let mut queue = Queue::default();
            queue.put(a.clone(), S(0));
            queue.put(b.clone(), S(0));
            assert_eq!((queue.take(S(0)), queue.take(S(0))), (Some(a.clone()), Some(b.clone())));
            queue.ended(b.clone(), Next::Done, S(1));
            queue.ended(a.clone(), next, S(1));
            assert_eq!(queue.take(S(1)), Some(a.clone()), "{next:?}: it looked before the end");
            queue.ended(a.clone(), next, S(2));
            assert_eq!(queue.next_due(), Some(S(2) + STALLED_LOOK), "{next:?}: it looked after it");
        }
    }

    #[test]
    fn what_is_to_be_looked_at_later_is_woken_all_the_same() {
        let mut queue = Queue::default();
        let (removal, copy) = (Work::Removal(TargetId(1), Key::from("k")), Work::Inode(Ino(3)));
        for next in [Next::Blocked, Next::Behind(Ino(3))] {
            queue.put(copy.clone(), S(0));
            queue.put(removal.clone(), S(0));
            assert_eq!((queue.take(S(0)), queue.take(S(0))), (Some(copy.clone()), Some(removal.clone())));
            queue.ended(removal.clone(), next, S(1));
            queue.put_sooner(removal.clone(), S(60));
            queue.ended(copy.clone(), Next::Done, S(2));
            assert_eq!(queue.take(S(2)), Some(removal.clone()), "{next:?}");
            queue.ended(removal.clone(), Next::Done, S(2));
            queue.put(removal.clone(), S(3));
            assert_eq!(queue.take(S(3)), Some(removal.clone()));
            queue.put_sooner(removal.clone(), S(60));
            queue.ended(removal.clone(), next, S(3));
            assert_eq!(queue.next_due(), Some(S(3) + STALLED_LOOK), "{next:?}, told of in hand");
            queue.wake_blocked(S(4));
            queue.wake_behind(Ino(3), S(4));
            assert_eq!(queue.take(S(4)), Some(removal.clone()), "{next:?}, told of in hand");
            queue.ended(removal.clone(), Next::Done, S(4));
        }
    }

    #[test]
    fn no_end_is_missed_among_many() {
        let mut queue = Queue::default();
        let work = Work::Inode(Ino(1));
        queue.put(work.clone(), S(0));
        assert_eq!(queue.take(S(0)), Some(work.clone()));
        for ino in 2..3 * ENDS_KEPT as u64 {
            queue.wake_behind(Ino(ino), S(0));
        }
        queue.ended(work.clone(), Next::Behind(Ino(2)), S(1));
        assert_eq!(queue.take(S(1)), Some(work.clone()));
        queue.ended(work, Next::Behind(Ino(2)), S(1));
        assert_eq!(queue.next_due(), Some(S(1) + STALLED_LOOK));
        assert!(queue.ended.1.len() <= ENDS_KEPT);
    }

    #[test]
    fn hurry_ends_delays_and_no_pauses() {
        let mut queue = Queue::default();
        let (failing, delayed) = (Work::Inode(Ino(2)), Work::Inode(Ino(3)));
        queue.put(failing.clone(), S(0));
        assert_eq!(queue.take(S(0)), Some(failing.clone()));
        queue.ended(failing.clone(), Next::After(S(60)), S(0));
        queue.put(delayed.clone(), S(30));
        queue.hurry(S(1));
        assert_eq!((queue.take(S(1)), queue.take(S(1))), (Some(delayed), None));
        queue.retry(S(1));
        assert_eq!(queue.take(S(1)), Some(failing));
    }
}
