//! The loop that sends. It owns the requests under way; what they are about is in the ledger.
//!
//! # One announcement, step by step
//! 1. The owner's batch puts "clean + owed" on disk. A crash before: the upload is done again.
//! 2. The request goes. A crash after 1, before or after the request: it goes (again) at the next
//!    start. OMS may hear of a key twice, never not at all.
//! 3. One batch on disk deletes the announcement and inserts the success record. A crash before: as
//!    in 2. After: the record is owed.
//! 4. The record is PUT. A crash after: it is PUT again, over an equal one.
//! 5. The stale `failed_object` twin is deleted; deleting is idempotent as well.
//! 6. The record's row is deleted, without waiting for the disk: a power cut brings 4 and 5 again.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::checksum::md5;
use crate::failpoint;
use crate::journal::Durability;
use crate::oms::Announcer;
use crate::store;
use crate::store::{ObjectStore, PutOptions};
use crate::types::Key;

use super::error::{Error, Result};
use super::lane::RecordJob;
use super::ledger::Ledger;
use super::queue::Name;

type Job = BoxFuture<'static, Result<()>>;

/// Sends until `shutdown` resolves, then settles what is under way.
pub(super) async fn run(ledger: Arc<Ledger>, shutdown: impl Future<Output = ()>) -> Result<()> {
    if std::mem::replace(&mut ledger.state().running, true) {
        return Err(Error::AlreadyRunning);
    }
    // J2: rows that survived a SIGKILL may have been read from memory that the disk never saw.
    ledger.journal.submit(Vec::new(), Durability::Disk).await?;
    let mut jobs: FuturesUnordered<Job> = FuturesUnordered::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let pause = start_jobs(&ledger, &jobs);
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(done) = jobs.next(), if !jobs.is_empty() => done?,
            () = ledger.wake.notified() => {}
            () = sleep(pause) => {}
        }
    }
    let settle = async {
        while let Some(done) = jobs.next().await {
            done?;
        }
        Ok(())
    };
    match tokio::time::timeout(ledger.options.shutdown_grace, settle).await {
        Ok(result) => result,
        Err(_) => {
            // Their rows stay: they are sent again at the next start.
            tracing::info!("requests of the outbox were still under way at shutdown");
            Ok(())
        }
    }
}

/// Waits; for ever without a time.
async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Starts all that may go now. Returns the time until something else may.
fn start_jobs(ledger: &Arc<Ledger>, jobs: &FuturesUnordered<Job>) -> Option<Duration> {
    let now = ledger.now();
    let mut state = ledger.state();
    let mut next: Option<Duration> = None;
    for (index, lane) in state.lanes.iter_mut().enumerate() {
        while let Some(names) = lane.next_request(now) {
            let announcer = lane.target.announcer.clone();
            jobs.push(Box::pin(announce(ledger.clone(), index, announcer, names)));
        }
        if let Some((_, store)) = lane.target.log() {
            let store = store.clone();
            while let Some(job) = lane.next_record(now) {
                jobs.push(Box::pin(record(ledger.clone(), index, store.clone(), job)));
            }
        }
        for at in [lane.next_request_at(now), lane.next_record_at()].into_iter().flatten() {
            next = Some(next.map_or(at, |earlier| earlier.min(at)));
        }
    }
    next.map(|at| at.saturating_sub(now.monotonic))
}

/// Steps 2 and 3.
async fn announce(ledger: Arc<Ledger>, lane: usize, announcer: Arc<dyn Announcer>, names: Vec<Name>) -> Result<()> {
    let keys: Vec<Key> = names.iter().map(|name| Key::from(&**name)).collect();
    failpoint::hit(failpoint::OMS_BEFORE_SEND);
    let outcome = announcer.announce(&keys).await;
    failpoint::hit(failpoint::OMS_AFTER_SEND);
    let (receipt, landings, claims) = {
        let now = ledger.now();
        let mut state = ledger.state();
        let Some(at) = state.lanes.get_mut(lane) else { return Ok(()) };
        let mut settlement = at.settle(&names, &outcome, now, rand::random());
        let mut claims = Vec::with_capacity(settlement.revive.len());
        for name in &settlement.revive {
            let (claim, rows) = state.owe(lane, name, now)?;
            claims.push(claim);
            settlement.ops.extend(rows);
        }
        let durability = if claims.is_empty() { settlement.durability } else { Durability::Disk };
        (ledger.journal.submit(settlement.ops, durability), settlement.landings, claims)
    };
    receipt.await?;
    let receipt = {
        let now = ledger.now();
        let mut state = ledger.state();
        let ops = state.lanes.get_mut(lane).map(|at| at.land(landings, now)).unwrap_or_default();
        for claim in &claims {
            state.committed(claim, now);
        }
        (!ops.is_empty()).then(|| ledger.journal.submit(ops, Durability::Buffered))
    };
    ledger.changed();
    match receipt {
        Some(receipt) => Ok(receipt.await?),
        None => Ok(()),
    }
}

/// Steps 4 to 6.
async fn record(ledger: Arc<Ledger>, lane: usize, store: Arc<dyn ObjectStore>, job: RecordJob) -> Result<()> {
    let result = write_record(&*store, &job).await;
    let receipt = {
        let now = ledger.now();
        let mut state = ledger.state();
        let Some(at) = state.lanes.get_mut(lane) else { return Ok(()) };
        let ops = at.record_done(&job.name, result, now, rand::random());
        ledger.journal.submit(ops, Durability::Buffered)
    };
    ledger.changed();
    Ok(receipt.await?)
}

async fn write_record(store: &dyn ObjectStore, job: &RecordJob) -> store::Result<()> {
    let body = Bytes::from(job.object.body.clone());
    let options = PutOptions { content_md5: Some(md5(&body)), ..PutOptions::default() };
    failpoint::hit(failpoint::RECORD_BEFORE_PUT);
    store.put(&Key(job.object.key.clone()), body, options).await?;
    failpoint::hit(failpoint::RECORD_AFTER_PUT);
    if let Some(stale) = &job.stale {
        // IMPORTANT: after the PUT. A crash between the two leaves a stale failure beside the
        // success; the other way round it could leave neither.
        store.delete(&Key(stale.clone())).await?;
    }
    Ok(())
}
