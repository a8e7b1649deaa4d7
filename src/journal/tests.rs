//! The room against its promise.

mod round_trip;

use std::sync::Barrier;

use super::{
    AnnouncementRow, AnnouncementState, AttributeRow, Counter, Durability, Error, Journal, Op, RecordOutcome,
    RecordRow, TargetKind, TargetRow,
};
use crate::types::{Attrs, ETag, FileKind, Key, TargetId, TimeNs};

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    (dir, journal)
}

fn put(journal: &Journal, ops: Vec<Op>) {
    journal.submit(ops, Durability::Buffered).wait().unwrap();
}

fn owed(seq: u64, key: &str) -> AnnouncementRow {
    AnnouncementRow {
        seq,
        sync: TargetId(1),
        key: Key::from(key),
        state: AnnouncementState::Owed,
        attempts: 0,
        error: None,
        owed: TimeNs(0),
    }
}

fn attribute_of(key: &str) -> AttributeRow {
    AttributeRow {
        target: TargetId(1),
        key: Key::from(key),
        etag: ETag("e".to_owned()),
        kind: FileKind::File,
        attrs: Attrs { mode: 0o644, uid: 0, gid: 0, mtime: TimeNs(0) },
        symlink: None,
        crc64: None,
        xattrs: None,
    }
}

#[test]
fn later_batches_win_and_rows_are_ordered_by_number() {
    let (_dir, journal) = journal();
    let receipts: Vec<_> = (0..100)
        .map(|n| {
            let ops = vec![Op::PutAnnouncement(owed(7, &format!("key{n}"))), Op::PutAnnouncement(owed(1000 - n, "k"))];
            journal.submit(ops, Durability::Buffered)
        })
        .collect();
    receipts.into_iter().for_each(|receipt| receipt.wait().unwrap());
    put(&journal, vec![Op::PutAnnouncement(owed(u64::MAX, "last")), Op::PutAnnouncement(owed(0, "first"))]);
    let rows = journal.load().unwrap().announcements;
    let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
    let expected: Vec<u64> = [0, 7].into_iter().chain(901..=1000).chain([u64::MAX]).collect();
    assert_eq!(seqs, expected);
    assert_eq!(rows[1].key, Key::from("key99"));
}

#[test]
fn batches_that_wait_together_commit_together() {
    let (_dir, journal) = journal();
    let before = journal.commits();
    let (threads, each) = (8, 50);
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (journal, start) = (&journal, &start);
            scope.spawn(move || {
                start.wait();
                let receipts: Vec<_> = (0..each)
                    .map(|n| {
                        let seq = (thread * each + n) as u64;
                        journal.submit(vec![Op::PutAnnouncement(owed(seq, "key"))], Durability::Disk)
                    })
                    .collect();
                receipts.into_iter().for_each(|receipt| receipt.wait().unwrap());
            });
        }
    });
    let commits = journal.commits() - before;
    assert_eq!(journal.load().unwrap().announcements.len(), threads * each);
    assert!(commits < (threads * each) as u64 / 2, "{commits} transactions");
}

#[test]
fn an_empty_batch_is_a_barrier() {
    let (_dir, journal) = journal();
    journal.submit(Vec::new(), Durability::Disk).wait().unwrap();
    journal.submit(Vec::new(), Durability::Buffered).wait().unwrap();
    assert_eq!(journal.commits(), 2);
}

#[tokio::test]
async fn receipts_resolve_in_tasks_and_may_be_dropped() {
    let (_dir, journal) = journal();
    drop(journal.submit(vec![Op::PutAnnouncement(owed(1, "dropped"))], Durability::Buffered));
    let receipt = journal.submit(vec![Op::PutAnnouncement(owed(2, "awaited"))], Durability::Disk);
    tokio::spawn(receipt).await.unwrap().unwrap();
    assert_eq!(journal.load().unwrap().announcements.len(), 2);
}

#[test]
fn numbers_are_never_given_out_twice() {
    let (dir, journal) = journal();
    assert_eq!(journal.reserve(Counter::Ino, 10).unwrap(), 2..12);
    assert_eq!(journal.reserve(Counter::Ino, 1).unwrap(), 12..13);
    for counter in [Counter::Backing, Counter::Attempt, Counter::Seq] {
        assert_eq!(journal.reserve(counter, 5).unwrap(), 1..6);
    }
    assert!(journal.reserve(Counter::Seq, u64::MAX).is_err());
    drop(journal);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.reserve(Counter::Ino, 3).unwrap(), 13..16);
    assert_eq!(journal.reserve(Counter::Seq, 1).unwrap(), 6..7);
}

#[test]
fn targets_keep_their_numbers() {
    let (dir, journal) = journal();
    let mapping = journal.target(TargetKind::Mapping, "cos://b-1/p/").unwrap();
    let record = journal.target(TargetKind::Record, "cos://b-1/p/").unwrap();
    assert_ne!(mapping, record);
    journal.close().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.target(TargetKind::Mapping, "cos://b-1/p/").unwrap(), mapping);
    let rows = journal.load().unwrap().targets;
    let identity = "cos://b-1/p/".to_owned();
    let expected = [
        TargetRow { id: mapping, kind: TargetKind::Mapping, identity: identity.clone() },
        TargetRow { id: record, kind: TargetKind::Record, identity },
    ];
    assert_eq!(rows, expected);
}

#[test]
fn attributes_under_a_prefix_are_those_of_its_children() {
    let (_dir, journal) = journal();
    let keys = [
        "d",
        "d/",
        "d/a",
        "d/a!",
        "d/a/",
        "d/a/x",
        "d/a/y/z",
        "d/a0",
        "d/b/x",
        "d/b/y",
        "d/c",
        "d/\u{10ffff}",
        "d/\u{10ffff}/x",
        "d0",
        "e/x",
        "top",
    ];
    let mut ops: Vec<Op> = keys.iter().map(|key| Op::PutAttribute(attribute_of(key))).collect();
    ops.push(Op::PutAttribute(AttributeRow { target: TargetId(2), ..attribute_of("d/other") }));
    put(&journal, ops);
    let under = |prefix: &str| -> Vec<String> {
        let rows = journal.attributes_under(TargetId(1), prefix).unwrap();
        rows.into_iter().map(|row| row.key.0).collect()
    };
    assert_eq!(under("d/"), ["d/", "d/a", "d/a!", "d/a/", "d/a0", "d/c", "d/\u{10ffff}"]);
    assert_eq!(under(""), ["d", "d/", "d0", "top"]);
    assert_eq!(under("d/a/"), ["d/a/", "d/a/x"]);
    assert_eq!(under("none/"), Vec::<String>::new());
}

#[test]
fn a_failed_commit_is_final() {
    let (dir, journal) = journal();
    put(&journal, vec![Op::PutAnnouncement(owed(1, "before"))]);
    assert_eq!(journal.failure(), None);
    let other = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    other.execute_batch("ALTER TABLE record RENAME TO hidden").unwrap();
    let row = RecordRow {
        seq: 1,
        record: TargetId(1),
        sync: TargetId(1),
        key: Key::from("k"),
        outcome: RecordOutcome::Success,
        attempts: 0,
    };
    // The batch is atomic: its good half must not show.
    let batch = vec![Op::PutAnnouncement(owed(2, "with it")), Op::PutRecord(row)];
    assert!(matches!(journal.submit(batch, Durability::Buffered).wait(), Err(Error::Latched(_))));
    other.execute_batch("ALTER TABLE hidden RENAME TO record").unwrap();
    // The cause is gone; the failure stays.
    let later = journal.submit(vec![Op::PutAnnouncement(owed(3, "later"))], Durability::Disk);
    assert!(matches!(later.wait(), Err(Error::Latched(_))));
    assert!(matches!(journal.reserve(Counter::Ino, 1), Err(Error::Latched(_))));
    assert!(matches!(journal.target(TargetKind::Sync, "x"), Err(Error::Latched(_))));
    let reason = journal.failure().unwrap();
    assert_eq!(futures::executor::block_on(journal.failed()), reason);
    assert!(reason.contains("record"), "{reason}");
    let seqs: Vec<u64> = journal.load().unwrap().announcements.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, [1]);
    assert!(matches!(journal.close(), Err(Error::Latched(_))));
    assert!(matches!(journal.submit(Vec::new(), Durability::Disk).wait(), Err(Error::Latched(_))));
    drop(journal);
    // The next start has all that was promised and goes on.
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.load().unwrap().announcements.len(), 1);
    put(&journal, vec![Op::PutAnnouncement(owed(4, "after"))]);
}

#[test]
fn close_drains_and_is_final() {
    let (dir, journal) = journal();
    let receipts: Vec<_> =
        (0..500).map(|seq| journal.submit(vec![Op::PutAnnouncement(owed(seq, "key"))], Durability::Buffered)).collect();
    let clone = journal.clone();
    journal.close().unwrap();
    receipts.into_iter().for_each(|receipt| receipt.wait().unwrap());
    assert!(matches!(clone.submit(Vec::new(), Durability::Buffered).wait(), Err(Error::Closed)));
    assert!(matches!(clone.reserve(Counter::Ino, 1), Err(Error::Closed)));
    assert!(matches!(clone.close(), Err(Error::Closed)));
    assert_eq!(clone.load().unwrap().announcements.len(), 500);
    assert_eq!(std::fs::metadata(dir.path().join("journal.db-wal")).unwrap().len(), 0);
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, journal) = journal();
    put(&journal, vec![Op::SetMeta("a", "b".to_owned())]);
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_mount_has_one_name_for_ever() {
    let (dir, journal) = journal();
    let name = journal.mount_uuid().to_owned();
    assert!(name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    drop(journal);
    assert_eq!(Journal::open(dir.path()).unwrap().mount_uuid(), name);
    let (_other_dir, other) = self::journal();
    assert_ne!(other.mount_uuid(), name);
}

#[test]
fn a_wal_without_its_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal.db-wal"), b"committed pages").unwrap();
    let error = Journal::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("journal.db-wal is there"), "{error}");
    assert!(!dir.path().join("journal.db").exists());
}

#[test]
fn a_newer_schema_is_refused() {
    let (dir, journal) = journal();
    drop(journal);
    let path = dir.path().join("journal.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 77").unwrap();
    match Journal::open(dir.path()) {
        Err(Error::NewerSchema { found, known, .. }) => assert!(found == 77 && known < 77),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn another_programs_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    other.execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1").unwrap();
    drop(other);
    let error = Journal::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("another program"), "{error}");
}

#[test]
fn a_damaged_database_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal.db"), vec![0x5a; 8192]).unwrap();
    let error = Journal::open(dir.path()).err().unwrap();
    assert!(matches!(error, Error::Open { .. }));
    assert!(error.to_string().contains("ferryfs recover --scan"), "{error}");
}

#[test]
fn a_damaged_page_is_an_error_and_never_an_empty_result() {
    let (dir, journal) = journal();
    let rows = (0..2_000).map(|seq| Op::PutAnnouncement(owed(seq, &format!("a/rather/long/key/{seq:050}"))));
    put(&journal, rows.collect());
    drop(journal);
    let path = dir.path().join("journal.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let error = journal.load().unwrap_err();
    assert!(error.to_string().contains("ferryfs recover --scan"), "{error}");
}

#[test]
fn a_value_without_meaning_is_an_error() {
    let (dir, journal) = journal();
    put(&journal, vec![Op::PutAnnouncement(owed(1, "key"))]);
    let other = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    other.execute_batch("UPDATE announcement SET state = 99").unwrap();
    assert!(matches!(journal.load(), Err(Error::Read(_))));
}

#[test]
fn the_wal_is_checkpointed_while_writing_goes_on() {
    let (dir, journal) = journal();
    let path = dir.path().join("journal.db");
    let before = std::fs::metadata(&path).unwrap().len();
    let begun = std::time::Instant::now();
    let mut seq = 0;
    while std::fs::metadata(&path).unwrap().len() < before + (1 << 20) {
        let rows = (seq..seq + 256).map(|seq| Op::PutAnnouncement(owed(seq, &format!("some/key/{seq:0100}"))));
        put(&journal, rows.collect());
        seq += 256;
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "no checkpoint after {seq} rows");
    }
    assert_eq!(journal.load().unwrap().announcements.len() as u64, seq);
    assert_eq!(journal.failure(), None);
}
