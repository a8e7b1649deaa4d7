//! Objects that are being fetched whole. Whoever wants one that is under way waits for it with the others; it
//! goes on while anybody does, and stops when the last of them has gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::task::{Interrupt, interruptible};
use crate::types::Ino;

use super::Vfs;
use super::error::{Error, Result};

/// What all who wait for it learn.
type Brought = std::result::Result<(), Arc<Error>>;
type Fetch = BoxFuture<'static, Brought>;

/// The fetches under way.
#[derive(Default)]
pub(super) struct Fetches {
    /// By inode, each with its number. Taken alone and briefly; no fetch is dropped under it.
    under_way: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    begun: u64,
    fetches: HashMap<Ino, (u64, WeakShared<Fetch>)>,
}

/// Takes a fetch off the table when it has ended or is dropped: who comes later begins another.
struct Listed {
    vfs: Vfs,
    ino: Ino,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut table = self.vfs.inner.fetches.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if table.fetches.get(&self.ino).is_some_and(|(number, _)| *number == self.number) {
            table.fetches.remove(&self.ino);
        }
    }
}

impl Vfs {
    /// Fetches the whole object, with whoever else waits for it.
    pub(super) async fn fetch(&self, ino: Ino) -> Result<()> {
        let brought = interruptible(self.fetch_under_way(ino)).await?;
        brought.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(Error::Shared))
    }

    fn fetch_under_way(&self, ino: Ino) -> Shared<Fetch> {
        let mut table = self.inner.fetches.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetch) = table.fetches.get(&ino).and_then(|(_, fetch)| fetch.upgrade()) {
            return fetch;
        }
        table.begun += 1;
        let number = table.begun;
        let listed = Listed { vfs: self.clone(), ino, number };
        let fetch = async move {
            let brought = listed.vfs.fetch_whole(ino).await.map_err(Arc::new);
            drop(listed);
            brought
        };
        // It is everybody's: it must not end with the one of them that happens to drive it.
        let fetch = Interrupt::new().scope(fetch).boxed().shared();
        if let Some(weak) = fetch.downgrade() {
            table.fetches.insert(ino, (number, weak));
        }
        fetch
    }
}
