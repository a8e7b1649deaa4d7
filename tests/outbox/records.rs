//! Log records, and comparing a bucket with them (O2, O4).

use std::collections::BTreeSet;

use ferryfs::clock::{Clock, SystemClock};
use ferryfs::oms::Outcome;
use ferryfs::store::{ErrorKind, ObjectStore};
use ferryfs::types::Key;

use crate::world::{Bucket, Oms, World, failed, failure, success};

#[tokio::test]
async fn a_log_bucket_that_refuses_is_retried_and_nothing_is_lost() {
    for kind in [ErrorKind::AccessDenied, ErrorKind::Network, ErrorKind::Rejected] {
        let world = World::new(Oms::accepting());
        world.log.refuse(Some(kind));
        let start = world.start();
        for key in ["a", "b", "c"] {
            start.owe(key).await;
        }
        start.until("told", |outbox| outbox.left(None, "").announcements == 0).await;
        let refused = world.log.refused();
        crate::world::eventually("retried", || world.log.refused() > refused + 3).await;
        let status = &start.outbox.status().targets[0];
        assert_eq!(status.records_owed + status.records_in_flight, 3);
        assert!(status.record_error.as_deref().is_some_and(|error| error.contains("AccessDenied")), "{status:?}");
        assert!(!start.outbox.is_idle_for(start.sync, &Key::from("a")));

        // Owed still after a restart.
        start.stop().await;
        assert_eq!(world.snapshot().records.len(), 3);
        let start = world.start();
        world.log.refuse(None);
        start.until_nothing_is_left().await;
        assert_eq!(world.log.keys(), ["a", "b", "c"].into_iter().map(success).collect());
        assert_eq!(world.oms.calls().iter().flatten().count(), 3, "told once each");
        assert_eq!(start.outbox.status().targets[0].record_error, None);
        start.stop().await;
        assert!(world.snapshot().records.is_empty());
    }
}

#[tokio::test]
async fn a_later_outcome_cancels_a_record_still_owed() {
    let world = World::new(Oms::new(|_| Outcome::Rejected(failure(400))));
    world.log.refuse(Some(ErrorKind::AccessDenied));
    let start = world.start();
    start.owe("a").await;
    start
        .until("refused, record owed", |outbox| {
            let left = outbox.left(None, "");
            (left.failed, left.records) == (1, 1)
        })
        .await;
    world.oms.set(|_| Outcome::Accepted);
    assert_eq!(start.outbox.retry_failed(None, "").await.unwrap(), 1);
    start
        .until("told, record owed", |outbox| {
            let left = outbox.left(None, "");
            (left.announcements, left.failed) == (0, 0)
        })
        .await;
    world.log.refuse(None);
    start.until_nothing_is_left().await;
    assert_eq!(world.log.keys(), BTreeSet::from([success("a")]));
    assert!(!world.log.log().contains(&format!("PUT {}", failed("a"))), "{:?}", world.log.log());
    start.stop().await;
    assert!(world.snapshot().records.is_empty());
}

#[tokio::test]
async fn the_twin_is_deleted_after_the_record_is_put() {
    let world = World::new(Oms::accepting());
    world.log.plant(&failed("a"), 1);
    let start = world.start();
    start.owe("a").await;
    start.until_nothing_is_left().await;
    assert_eq!(world.log.log(), [format!("PUT {}", success("a")), format!("DELETE {}", failed("a"))]);
    start.stop().await;
}

#[tokio::test]
async fn a_key_too_long_for_a_record_is_its_body() {
    let world = World::new(Oms::accepting());
    let start = world.start();
    let key = "\u{4e2d}".repeat(280);
    start.owe(&key).await;
    start.until_nothing_is_left().await;
    let keys = world.log.keys();
    let record = keys.first().unwrap();
    assert_eq!(keys.len(), 1);
    assert!(record.starts_with(&success("long/")) && record.len() <= 850, "{record}");
    assert_eq!(world.log.body(record).unwrap(), key.as_bytes());
    start.stop().await;
}

#[tokio::test]
async fn reconcile_owes_what_is_missing_or_newer_than_its_record() {
    let now = SystemClock.now().sec();
    let world = World::new(Oms::accepting());
    let start = world.start();
    // Small pages, so that the merge crosses their ends.
    let source = Bucket::with_page(3);
    let long = format!("data/{}", "x".repeat(840));
    for n in 0..20 {
        source.plant(&format!("data/{n:02}"), now - 1000);
        world.log.plant(&success(&format!("data/{n:02}")), now - 900);
    }
    source.plant("other/outside", now - 1000);
    source.plant("data/05", now - 500); // changed after its record
    source.plant("data/06", now - 901); // too close to its record to be sure
    source.plant("data/077", now - 1000); // never recorded, between two that are
    source.plant("data/99", now - 1000); // never recorded, after all records
    source.plant(&long, now - 1000); // never recorded, in the long form
    world.log.plant(&success("data/00-deleted"), now - 900);

    let found = start.outbox.reconcile(start.sync, &*source, "data/", |_| false).await.unwrap();
    assert_eq!((found.objects, found.owed, found.pending), (23, 5, 0));
    start.until_nothing_is_left().await;
    let told: BTreeSet<String> = world.oms.calls().into_iter().flatten().collect();
    let expected = ["data/05", "data/06", "data/077", "data/99", long.as_str()];
    assert_eq!(told, expected.into_iter().map(str::to_owned).collect());

    let again = start.outbox.reconcile(start.sync, &*source, "data/", |_| false).await.unwrap();
    assert_eq!((again.objects, again.owed), (23, 0), "what was told now is recorded now");
    assert!(world.log.name().starts_with("cos://"));
    start.stop().await;
}
