//! Every kind of row, with every extreme, comes back as it was written.

use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof, proptest};

use super::{journal, put};
use crate::journal::{
    AnnouncementRow, AnnouncementState, AttemptKind, AttemptRow, AttributeRow, Content, CopyRow, ExtentRow, Hold,
    InodeRow, Journal, Mark, Op, PartRow, PartialRow, RecordOutcome, RecordRow, Remote, RemovalRow, SourceRow,
};
use crate::types::{Attrs, BackingNo, Crc64, ETag, FileKind, Ino, Key, TargetId, TimeNs};

fn number() -> BoxedStrategy<u64> {
    prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(1 << 63), Just((1 << 63) - 1)].boxed()
}

fn time() -> BoxedStrategy<TimeNs> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX)].prop_map(TimeNs).boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![any::<String>(), Just(String::new()), Just("a\0b'\"/\u{4e2d}\u{1f600}%_".to_owned())].boxed()
}

fn maybe<T: std::fmt::Debug + 'static>(inner: BoxedStrategy<T>) -> BoxedStrategy<Option<T>> {
    proptest::option::of(inner).boxed()
}

fn attrs() -> BoxedStrategy<Attrs> {
    (any::<u32>(), any::<u32>(), any::<u32>(), time())
        .prop_map(|(mode, uid, gid, mtime)| Attrs { mode, uid, gid, mtime })
        .boxed()
}

fn kind() -> BoxedStrategy<FileKind> {
    prop_oneof![Just(FileKind::File), Just(FileKind::Dir), Just(FileKind::Symlink)].boxed()
}

fn content() -> BoxedStrategy<Content> {
    prop_oneof![
        Just(Content::Absent),
        Just(Content::Clean),
        Just(Content::Open),
        Just(Content::Flushed),
        Just(Content::Closed),
        Just(Content::Torn)
    ]
    .boxed()
}

fn hold() -> BoxedStrategy<Hold> {
    prop_oneof![
        Just(Hold::Crash),
        Just(Hold::Power),
        Just(Hold::KilledWriter),
        Just(Hold::DiskFull),
        Just(Hold::DiskFailed),
        Just(Hold::Incomplete)
    ]
    .boxed()
}

fn mark() -> BoxedStrategy<Mark> {
    (number(), number(), time(), time(), any::<bool>())
        .prop_map(|(backing_ino, size, mtime, ctime, synced)| Mark { backing_ino, size, mtime, ctime, synced })
        .boxed()
}

fn remote() -> BoxedStrategy<Remote> {
    (text(), text(), number(), maybe(number()), maybe(text()), maybe(time()))
        .prop_map(|(key, etag, size, crc64, version_id, last_modified)| Remote {
            key: Key(key),
            etag: ETag(etag),
            size,
            crc64: crc64.map(Crc64),
            version_id,
            last_modified,
        })
        .boxed()
}

fn inode() -> BoxedStrategy<InodeRow> {
    let names = (number(), any::<u32>(), kind(), number(), text(), any::<bool>(), maybe(text()), any::<bool>());
    let wanted = (attrs(), any::<bool>(), time(), number(), number(), number());
    let local = (content(), number(), number(), maybe(number()), maybe(mark()), maybe(hold()));
    let texts = (maybe(text()), maybe(text()));
    (names, wanted, local, maybe(remote()), maybe(time()), texts)
        .prop_map(|(names, wanted, local, remote, recheck_at, texts)| InodeRow {
            ino: Ino(names.0),
            target: TargetId(names.1),
            kind: names.2,
            parent: Ino(names.3),
            name: names.4,
            linked: names.5,
            symlink: names.6,
            marker_wanted: names.7,
            attrs: wanted.0,
            attrs_known: wanted.1,
            ctime: wanted.2,
            attr_generation: wanted.3,
            remote_attr_generation: wanted.4,
            size: wanted.5,
            content: local.0,
            generation: local.1,
            remote_generation: local.2,
            backing: local.3.map(BackingNo),
            mark: local.4,
            hold: local.5,
            remote,
            recheck_at,
            xattrs: texts.0,
            segment: texts.1,
            told: local.1 % 2 == 1,
        })
        .boxed()
}

fn attribute() -> BoxedStrategy<AttributeRow> {
    (any::<u32>(), text(), text(), kind(), attrs(), maybe(text()), maybe(number()), maybe(text()))
        .prop_map(|(target, key, etag, kind, attrs, symlink, crc64, xattrs)| AttributeRow {
            target: TargetId(target),
            key: Key(key),
            etag: ETag(etag),
            kind,
            attrs,
            symlink,
            crc64: crc64.map(Crc64),
            xattrs,
        })
        .boxed()
}

fn attempt() -> BoxedStrategy<AttemptRow> {
    let kinds = prop_oneof![Just(AttemptKind::Put), Just(AttemptKind::Multipart), Just(AttemptKind::Copy)];
    let what = (number(), kinds, number(), any::<u32>(), text(), maybe(text()));
    let sent = (number(), number(), attrs(), number(), maybe(number()), maybe(text()), number(), time());
    (what, sent)
        .prop_map(|(what, sent)| AttemptRow {
            attempt: what.0,
            kind: what.1,
            ino: Ino(what.2),
            target: TargetId(what.3),
            key: Key(what.4),
            source: what.5.map(Key),
            generation: sent.0,
            attr_generation: sent.1,
            attrs: sent.2,
            size: sent.3,
            crc64: sent.4.map(Crc64),
            upload_id: sent.5,
            part_bytes: sent.6,
            started: sent.7,
        })
        .boxed()
}

fn part() -> BoxedStrategy<PartRow> {
    (number(), any::<u32>(), number(), text(), number())
        .prop_map(|(attempt, number, size, etag, crc64)| PartRow {
            attempt,
            number,
            size,
            etag: ETag(etag),
            crc64: Crc64(crc64),
        })
        .boxed()
}

fn removal() -> BoxedStrategy<RemovalRow> {
    (any::<u32>(), text(), text(), number(), time())
        .prop_map(|(target, key, etag, ino, owed)| RemovalRow {
            target: TargetId(target),
            key: Key(key),
            etag: ETag(etag),
            ino: Ino(ino),
            owed,
        })
        .boxed()
}

fn source() -> BoxedStrategy<SourceRow> {
    (number(), any::<u32>(), text(), time())
        .prop_map(|(ino, target, prefix, at)| SourceRow { ino: Ino(ino), target: TargetId(target), prefix, at })
        .boxed()
}

fn announcement() -> BoxedStrategy<AnnouncementRow> {
    let states =
        prop_oneof![Just(AnnouncementState::Owed), Just(AnnouncementState::Failed), Just(AnnouncementState::GaveUp)];
    (number(), any::<u32>(), text(), states, any::<u32>(), maybe(text()), time())
        .prop_map(|(seq, sync, key, state, attempts, error, owed)| AnnouncementRow {
            seq,
            sync: TargetId(sync),
            key: Key(key),
            state,
            attempts,
            error,
            owed,
        })
        .boxed()
}

fn record() -> BoxedStrategy<RecordRow> {
    let outcomes = prop_oneof![Just(RecordOutcome::Success), Just(RecordOutcome::Failed)];
    (number(), any::<u32>(), any::<u32>(), text(), outcomes, any::<u32>())
        .prop_map(|(seq, record, sync, key, outcome, attempts)| RecordRow {
            seq,
            record: TargetId(record),
            sync: TargetId(sync),
            key: Key(key),
            outcome,
            attempts,
        })
        .boxed()
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Every kind of row, with every extreme, comes back as it was; after its deletion it is gone.
    #[test]
    fn rows_come_back_as_they_were_written(
        inode in inode(), attribute in attribute(), attempt in attempt(), part in part(), removal in removal(),
        announcement in announcement(), record in record(), value in text(), base in (text(), number(), number()), source in source(),
        remote in remote(),
    ) {
        let (dir, journal) = journal();
        let part = PartRow { attempt: attempt.attempt, ..part };
        let partial = PartialRow { ino: inode.ino, etag: ETag(base.0), size: base.1, end: base.2 };
        let origin = Remote { last_modified: None, ..remote.clone() };
        let copy = CopyRow { ino: inode.ino, origin };
        let extent = |start, end, fetched| ExtentRow { ino: inode.ino, start, end, fetched };
        put(&journal, vec![
            Op::PutPartial(partial.clone()), Op::PutExtent(extent(4, 8, false)), Op::PutExtent(extent(20, 24, false)),
            Op::PutExtent(extent(6, 30, true)), Op::PutExtent(extent(4, 20, false)), Op::PutExtent(extent(4, 24, false)),
            Op::PutInode(Box::new(inode.clone())), Op::PutAttribute(attribute.clone()), Op::PutAttempt(attempt.clone()),
            Op::PutPart(part.clone()), Op::PutRemoval(removal.clone()), Op::PutAnnouncement(announcement.clone()),
            Op::PutRecord(record.clone()), Op::SetMeta("boot-id", value.clone()),
            Op::PutSource(source.clone()), Op::PutCopy(copy.clone()),
        ]);
        journal.close().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let all = journal.load().unwrap();
        assert_eq!(all.inodes, std::slice::from_ref(&inode));
        assert_eq!(all.partials, std::slice::from_ref(&partial));
        assert_eq!(all.copies, std::slice::from_ref(&copy));
        assert_eq!(journal.extents(inode.ino).unwrap(), [extent(4, 24, false), extent(6, 30, true)]);
        assert_eq!(all.attempts, std::slice::from_ref(&attempt));
        assert_eq!(all.parts, [part]);
        assert_eq!(all.removals, std::slice::from_ref(&removal));
        assert_eq!(all.sources, std::slice::from_ref(&source));
        assert_eq!(all.announcements, std::slice::from_ref(&announcement));
        assert_eq!(all.records, std::slice::from_ref(&record));
        assert_eq!(journal.attribute(attribute.target, &attribute.key).unwrap(), Some(attribute.clone()));
        assert_eq!(journal.meta("boot-id").unwrap(), Some(value));
        assert_eq!(journal.meta("never-set").unwrap(), None);
        put(&journal, vec![
            Op::DeleteInode(inode.ino), Op::DeleteAttribute(attribute.target, attribute.key.clone()),
            Op::DeleteAttempt(attempt.attempt), Op::DeleteRemoval(removal.target, removal.key),
            Op::DeleteAnnouncement(announcement.seq), Op::DeleteRecord(record.seq),
            Op::DeleteSource(source.ino, source.prefix),
        ]);
        assert_eq!(journal.extents(inode.ino).unwrap(), []);
        let all = journal.load().unwrap();
        assert!(all.partials.is_empty() && all.copies.is_empty());
        assert!(all.inodes.is_empty() && all.attempts.is_empty() && all.parts.is_empty());
        assert!(all.sources.is_empty());
        assert!(all.removals.is_empty() && all.announcements.is_empty() && all.records.is_empty());
        assert_eq!(journal.attribute(attribute.target, &attribute.key).unwrap(), None);
    }
}
