//! Comparing a bucket with its success records (O4).
//!
//! Both listings are in byte order and a plain record's key is a fixed prefix and the object's key,
//! so they are merged page by page. Records of keys too long for that are asked for one by one.

use std::collections::VecDeque;

use crate::journal::RecordOutcome;
use crate::store;
use crate::store::{ErrorKind, HeadOptions, ListOptions, ObjectMeta, ObjectStore};
use crate::types::{Key, TargetId, TimeNs};

use super::error::{Error, Result};
use super::ledger::Ledger;
use super::queue::Name;
use super::record_key::RecordKeys;

/// A record that is younger than its object by less than this may tell of the version before: the
/// clocks of two buckets differ, and times are whole seconds (O4).
const SLACK_NS: i64 = 2_000_000_000;

/// Owed announcements above which comparing waits: it is faster than OMS, and what is owed is held
/// in memory.
const OWED_AT_MOST: usize = 10_000;

/// Missing keys owed in one go.
const CHUNK: usize = 500;

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reconciled {
    /// Objects looked at.
    pub objects: u64,
    /// Objects that were missing among the records, or newer, and are owed now.
    pub owed: u64,
    /// Objects that were owed, under way or failed already.
    pub pending: u64,
}

pub(super) async fn reconcile(
    ledger: &Ledger,
    sync: TargetId,
    source: &dyn ObjectStore,
    prefix: &str,
    is_private: impl Fn(&Key) -> bool + Send,
) -> Result<Reconciled> {
    let (log, keys) = {
        let state = ledger.state();
        let lane = state.lanes.iter().find(|lane| lane.target.sync == sync).ok_or(Error::UnknownTarget(sync))?;
        let log = lane.target.log().map(|(_, store)| store.clone());
        log.zip(lane.record_keys().cloned()).ok_or(Error::NoRecords(sync))?
    };
    let folder = keys.folder(RecordOutcome::Success);
    let mut objects = Listing::new(source, prefix.to_owned());
    let mut records = Listing::new(&*log, format!("{folder}{prefix}"));
    let mut found = Reconciled::default();
    let mut missing: Vec<Name> = Vec::new();
    while let Some(object) = objects.next().await? {
        if is_private(&object.key) {
            continue;
        }
        found.objects += 1;
        let key = object.key.as_str();
        if !ledger.is_idle_for(sync, &object.key) {
            found.pending += 1;
            continue;
        }
        let recorded = match keys.is_plain(RecordOutcome::Success, key) {
            true => plain_record(&mut records, &folder, key).await?,
            false => long_record(&*log, &keys, key).await?,
        };
        if is_told(object.last_modified, recorded) {
            continue;
        }
        missing.push(key.into());
        found.owed += 1;
        if missing.len() >= CHUNK {
            owe(ledger, sync, &mut missing).await?;
        }
    }
    owe(ledger, sync, &mut missing).await?;
    Ok(found)
}

/// Whether a record of this time tells of an object of that time.
fn is_told(object: Option<TimeNs>, recorded: Option<TimeNs>) -> bool {
    // A store that tells no time leaves only one safe answer.
    object.zip(recorded).is_some_and(|(object, recorded)| recorded.0.saturating_sub(object.0) >= SLACK_NS)
}

async fn owe(ledger: &Ledger, sync: TargetId, missing: &mut Vec<Name>) -> Result<()> {
    let mut changes = ledger.subscribe();
    while ledger.left(Some(sync), "").announcements > OWED_AT_MOST {
        // The sender lives in the ledger: this cannot fail while it is borrowed.
        if changes.changed().await.is_err() {
            break;
        }
    }
    ledger.owe_all(sync, missing).await?;
    missing.clear();
    Ok(())
}

/// The time of a key's record, from the listing that is merged; keys come in rising order.
async fn plain_record(records: &mut Listing<'_>, folder: &str, key: &str) -> Result<Option<TimeNs>> {
    while let Some(record) = records.peek().await? {
        let recorded = record.key.as_str().strip_prefix(folder).unwrap_or_default();
        if recorded > key {
            break;
        }
        let hit = recorded == key;
        let time = record.last_modified;
        records.skip();
        if hit {
            return Ok(time);
        }
    }
    Ok(None)
}

async fn long_record(log: &dyn ObjectStore, keys: &RecordKeys, key: &str) -> Result<Option<TimeNs>> {
    let record = keys.object(RecordOutcome::Success, key);
    match log.head(&Key(record.key), HeadOptions::default()).await {
        Ok(meta) => Ok(meta.last_modified),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All objects under a prefix, in byte order, a page at a time.
struct Listing<'a> {
    store: &'a dyn ObjectStore,
    options: ListOptions,
    page: VecDeque<ObjectMeta>,
    ended: bool,
}

impl<'a> Listing<'a> {
    fn new(store: &'a dyn ObjectStore, prefix: String) -> Self {
        let options = ListOptions { prefix, ..ListOptions::default() };
        Listing { store, options, page: VecDeque::new(), ended: false }
    }

    async fn fill(&mut self) -> store::Result<()> {
        while self.page.is_empty() && !self.ended {
            let page = self.store.list(self.options.clone()).await?;
            self.page.extend(page.objects);
            self.ended = page.next_marker.is_none();
            self.options.marker = page.next_marker;
        }
        Ok(())
    }

    async fn peek(&mut self) -> store::Result<Option<&ObjectMeta>> {
        self.fill().await?;
        Ok(self.page.front())
    }

    async fn next(&mut self) -> store::Result<Option<ObjectMeta>> {
        self.fill().await?;
        Ok(self.page.pop_front())
    }

    fn skip(&mut self) {
        self.page.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_of_an_object_that_is_two_seconds_older() {
        let at = |seconds| Some(TimeNs::new(seconds, 0));
        assert!(is_told(at(100), at(102)));
        assert!(!is_told(at(100), at(101)), "it may tell of the version before");
        assert!(!is_told(at(100), at(99)));
        assert!(!is_told(at(100), None));
        assert!(!is_told(None, at(100)));
    }
}
