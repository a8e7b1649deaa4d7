//! The lock of an inode's open state. Order: ascending inode -> the tree -> the cache's space ->
//! the journal's queue. No call waits for a second inode lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::types::Ino;

use super::session::OpenState;

/// One async lock an inode in use; made on first use, dropped when idle.
#[derive(Default)]
pub(super) struct InodeLocks {
    table: Mutex<HashMap<Ino, Arc<tokio::sync::Mutex<OpenState>>>>,
}

/// An inode's open state, locked.
pub(super) type Locked = OwnedMutexGuard<OpenState>;

impl InodeLocks {
    pub(super) async fn lock(&self, ino: Ino) -> Locked {
        let slot = {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.entry(ino).or_default().clone()
        };
        // Dropped after the wait: who goes before it is his turn leaves no slot behind.
        let waited = Waited(self, ino);
        let state = slot.lock_owned().await;
        std::mem::forget(waited);
        state
    }

    /// The state, if nobody has it locked. May be asked with other inodes locked: it never waits.
    pub(super) fn try_lock(&self, ino: Ino) -> Option<Locked> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entry(ino).or_default().clone().try_lock_owned().ok()
    }

    /// Forgets a state that says nothing: no handle, no session. Called with the state locked.
    pub(super) fn release(&self, ino: Ino, state: Locked) {
        let idle = state.is_idle();
        drop(state);
        if idle {
            self.forget_idle(ino);
        }
    }

    fn forget_idle(&self, ino: Ino) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // The table's is the only reference: nobody waits for it, and it is idle.
        if table
            .get(&ino)
            .is_some_and(|slot| Arc::strong_count(slot) == 1 && slot.try_lock().is_ok_and(|state| state.is_idle()))
        {
            table.remove(&ino);
        }
    }
}

/// Waits for its turn; who got it has something to release.
struct Waited<'a>(&'a InodeLocks, Ino);

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.0.forget_idle(self.1);
    }
}
