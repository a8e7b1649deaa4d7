//! Which programs wait for an answer, and whether one of them is being killed meanwhile.
//!
//! fuser tells nothing of FUSE_INTERRUPT, and it would say too much: it is sent for every signal, and no
//! filesystem on a local disk lets a SIGALRM end a call. What may is a signal that ends the program: the
//! kernel shows it in /proc, and that is looked at, for those who wait long alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::disk;
use crate::task::Interrupt;

/// Nobody is looked at sooner, and then as often: a person does not notice it, and what is answered from
/// here never takes so long.
const LOOK: Duration = Duration::from_millis(200);

/// The callers of requests that are pending; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Callers(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    waiting: BTreeMap<u64, Waiting>,
    entered: u64,
    /// Somebody looks at them.
    watched: bool,
}

struct Waiting {
    /// The thread, as the kernel counts in the namespace of whoever mounted.
    tid: u32,
    since: Instant,
    interrupt: Interrupt,
}

/// A caller that waits, until dropped.
pub(super) struct Entered {
    callers: Callers,
    number: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.callers.lock().waiting.remove(&self.number);
    }
}

impl Callers {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A caller begins to wait. `true`: [`Callers::watch`] must run from now on.
    pub(super) fn enter(&self, tid: u32, interrupt: Interrupt) -> (Entered, bool) {
        let mut table = self.lock();
        let number = table.entered;
        table.entered += 1;
        table.waiting.insert(number, Waiting { tid, since: Instant::now(), interrupt });
        let first = !std::mem::replace(&mut table.watched, true);
        (Entered { callers: self.clone(), number }, first)
    }

    /// Looks at those who wait, until nobody does.
    pub(super) async fn watch(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(due) = self.due() else { return };
            for (tid, interrupts) in due {
                if disk::is_being_killed(tid) {
                    interrupts.iter().for_each(Interrupt::raise);
                }
            }
        }
    }

    /// Who has waited long and does not know yet that it is in vain. `None`: nobody waits.
    fn due(&self) -> Option<HashMap<u32, Vec<Interrupt>>> {
        let mut table = self.lock();
        if table.waiting.is_empty() {
            table.watched = false;
            return None;
        }
        let mut due: HashMap<u32, Vec<Interrupt>> = HashMap::new();
        for one in table.waiting.values() {
            if one.since.elapsed() >= LOOK && !one.interrupt.is_raised() {
                due.entry(one.tid).or_default().push(one.interrupt.clone());
            }
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn who_is_killed_is_told_and_nobody_else() {
        let callers = Callers::default();
        // Ended and not waited for: what a killed thread in its last close looks like.
        let mut child = Command::new("/bin/sh").args(["-c", "kill -KILL $$"]).stdin(Stdio::null()).spawn().unwrap();
        let interrupts = [Interrupt::new(), Interrupt::new(), Interrupt::new()];
        let tids = [child.id(), std::process::id(), 0];
        let entered: Vec<_> = tids.iter().zip(&interrupts).map(|(tid, one)| callers.enter(*tid, one.clone())).collect();
        assert_eq!(entered.iter().map(|(_, first)| *first).collect::<Vec<_>>(), [true, false, false]);
        let watching = tokio::spawn(callers.clone().watch());
        while !interrupts[0].is_raised() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!interrupts[1].is_raised() && !interrupts[2].is_raised());
        drop(entered);
        watching.await.unwrap();
        child.wait().unwrap();
        assert!(callers.enter(0, Interrupt::new()).1, "it is watched anew");
    }
}
