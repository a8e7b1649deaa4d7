//! The moments. "Before" stands right before the step, "after" right after it and before anything
//! else is done.

/// All names, for messages.
pub const ALL: &[&str] = &[
    JOURNAL_BEFORE_COMMIT,
    JOURNAL_AFTER_COMMIT,
    UPLOAD_BEFORE_PUT,
    UPLOAD_AFTER_PUT,
    UPLOAD_AFTER_INITIATE,
    UPLOAD_AFTER_PART,
    UPLOAD_BEFORE_COMPLETE,
    UPLOAD_AFTER_COMPLETE,
    UPLOAD_BEFORE_CLEAN_OWED,
    UPLOAD_AFTER_CLEAN_OWED,
    REMOVAL_BEFORE_DELETE,
    REMOVAL_AFTER_DELETE,
    OMS_BEFORE_SEND,
    OMS_AFTER_SEND,
    RECORD_BEFORE_PUT,
    RECORD_AFTER_PUT,
    MOVE_BEFORE_PAGE,
    MOVE_AFTER_PAGE,
    EVICTION_BEFORE_UNLINK,
    EVICTION_AFTER_UNLINK,
    ACCEPT_BEFORE_ROW,
    ACCEPT_AFTER_ROW,
    DISCARD_BEFORE_ROW,
    DISCARD_AFTER_ROW,
    CLOSE_AFTER_TAG,
    RENAME_AFTER_TAG,
    SCAN_JOURNAL_MADE,
    SCAN_JOURNAL_ASIDE,
];

/// The transaction is applied, not committed: none of its batches may show after a restart, and
/// nobody was told that they are durable.
pub const JOURNAL_BEFORE_COMMIT: &str = "journal-before-commit";

/// The transaction is committed, its receipts are not resolved: all of its batches show.
pub const JOURNAL_AFTER_COMMIT: &str = "journal-after-commit";

/// The attempt's row is on disk, its PUT or Copy is not sent: the bucket is unchanged, the attempt
/// is settled as "not applied" and repeated.
pub const UPLOAD_BEFORE_PUT: &str = "upload-before-put";

/// The store has answered a PUT or Copy, nothing is recorded: the attempt is settled by HEAD as
/// applied, the content is not sent again, and OMS is told.
pub const UPLOAD_AFTER_PUT: &str = "upload-after-put";

/// The store has given an upload id that no row holds: the upload is found by listing and aborted,
/// or used.
pub const UPLOAD_AFTER_INITIATE: &str = "upload-after-initiate";

/// The store has answered a part, its row is not written: the part is found by ListParts or sent
/// again.
pub const UPLOAD_AFTER_PART: &str = "upload-after-part";

/// All parts are there, Complete is not sent: the upload is completed after the restart.
pub const UPLOAD_BEFORE_COMPLETE: &str = "upload-before-complete";

/// The store has answered Complete, nothing is recorded: settled by HEAD as applied.
pub const UPLOAD_AFTER_COMPLETE: &str = "upload-after-complete";

/// The object is verified, "clean + owed" is not submitted: as after the request.
pub const UPLOAD_BEFORE_CLEAN_OWED: &str = "upload-before-clean-owed";

/// "Clean + owed" is on disk, the outbox does not know: the announcement is sent after the restart,
/// the content is not sent again (P4).
pub const UPLOAD_AFTER_CLEAN_OWED: &str = "upload-after-clean-owed";

/// Before a key is deleted, or a batch of keys: the removals are on disk and still owed; the objects are
/// there.
pub const REMOVAL_BEFORE_DELETE: &str = "removal-before-delete";

/// A key, or a batch of keys, is deleted; the removals are still owed, and settled after the restart.
pub const REMOVAL_AFTER_DELETE: &str = "removal-after-delete";

/// Announcements are owed on disk, their request is not sent: they are sent after the restart.
pub const OMS_BEFORE_SEND: &str = "oms-before-send";

/// OMS has accepted, that is not recorded: they are sent once more, which OMS allows.
pub const OMS_AFTER_SEND: &str = "oms-after-send";

/// The record is owed on disk, not written: it is written after the restart (O2).
pub const RECORD_BEFORE_PUT: &str = "record-before-put";

/// The record is written, still owed on disk: it is written once more, with the same name.
pub const RECORD_AFTER_PUT: &str = "record-after-put";

/// A renamed directory's row and its sources are there, nothing of it was listed: the next start
/// lists its old name.
pub const MOVE_BEFORE_PAGE: &str = "move-before-page";

/// What a page of the old name showed has its rows, no copy has begun: each is copied after the
/// restart.
pub const MOVE_AFTER_PAGE: &str = "move-after-page";

/// The row that says "content absent" is on disk, the backing file is still there: it is an orphan
/// that the cleaner takes (J2, J6).
pub const EVICTION_BEFORE_UNLINK: &str = "eviction-before-unlink";

/// The backing file is gone: the content comes from the bucket at the next open.
pub const EVICTION_AFTER_UNLINK: &str = "eviction-after-unlink";

/// Accepted content is on the disk, its row still says held: it is held after the restart.
pub const ACCEPT_BEFORE_ROW: &str = "accept-before-row";

/// The row of accepted content says closed, on disk, nobody was told: it goes up after the restart.
pub const ACCEPT_AFTER_ROW: &str = "accept-after-row";

/// Nothing has happened to what is to be discarded: it is held after the restart.
pub const DISCARD_BEFORE_ROW: &str = "discard-before-row";

/// Discarded content has no name any more, on disk, its backing file is still there: it is an orphan
/// that the cleaner takes, and the remote version is shown.
pub const DISCARD_AFTER_ROW: &str = "discard-after-row";

/// The rebuilt journal is whole, beside the damaged one: mounting is refused as before, and the scan can
/// be repeated.
pub const SCAN_JOURNAL_MADE: &str = "scan-journal-made";

/// The damaged journal is aside, the rebuilt one not in its place: mounting is refused, and the scan can
/// be repeated.
pub const SCAN_JOURNAL_ASIDE: &str = "scan-journal-aside";

/// A closed file is tagged as such, which moves its times; its final mark is not in its row: the tag
/// proves that it was closed, and it goes up after the restart.
pub const CLOSE_AFTER_TAG: &str = "close-after-tag";

/// A closed file that was renamed is tagged anew, the mark in its row is the old one: as above, under its
/// new name.
pub const RENAME_AFTER_TAG: &str = "rename-after-tag";
