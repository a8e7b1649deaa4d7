//! What the database holds, row by row. Rows are written whole: a row in memory and its row on disk
//! never differ by a forgotten column.

use crate::types::{Attrs, BackingNo, Crc64, ETag, FileKind, Ino, Key, TargetId, TimeNs};

/// What a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// A mapping's `provider://bucket/prefix`.
    Mapping,
    /// An OMS sync task's URL.
    Sync,
    /// A log bucket's `provider://bucket/prefix`.
    Record,
}

/// A target that rows refer to (J4). `identity` names provider, bucket and prefix, or host, project
/// and task: never credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRow {
    /// Its number.
    pub id: TargetId,
    /// What it is.
    pub kind: TargetKind,
    /// Unique with `kind`.
    pub identity: String,
}

/// State of an inode's local content (C2 to C7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// No local content: the bucket has it (or the inode is of a kind that has none).
    Absent,
    /// The backing file, in the cache directory, equals the remote version.
    Clean,
    /// The backing file, in the state directory, may be changing: a writer has it open.
    Open,
    /// As `Open`, with a provisional mark from a flush.
    Flushed,
    /// The final mark: nobody can change it any more. To be uploaded.
    Closed,
    /// Held: visible at its path, not uploaded; `hold` says why.
    Torn,
}

/// Why content is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// The daemon ended while a writer had it open.
    Crash,
    /// The machine lost power, or its content did not reach the disk.
    Power,
    /// Its writer was killed by a signal (C6).
    KilledWriter,
    /// There was no room, on the disk or in the cache, while it was being written (C6).
    DiskFull,
    /// The journal was lost, and nothing else proves that it is whole and newer than the bucket's
    /// version (J5).
    Journal,
    /// Parts of it were never fetched, and the version that they belong to is gone (C7).
    Incomplete,
    /// The disk refused to take what was written, or to bring it to where it lasts.
    DiskFailed,
}

/// What a backing file looked like at a moment (C3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Inode number of the backing file on its own filesystem.
    pub backing_ino: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time of the backing file.
    pub mtime: TimeNs,
    /// Change time of the backing file.
    pub ctime: TimeNs,
    /// `fdatasync` of the content preceded this mark: it also counts after a power cut.
    pub synced: bool,
}

/// The version of an inode that the bucket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where.
    pub key: Key,
    /// Which.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// Of the whole object, if known.
    pub crc64: Option<Crc64>,
    /// On versioned buckets.
    pub version_id: Option<String>,
    /// The store's time, if known.
    pub last_modified: Option<TimeNs>,
}

/// An inode whose wanted and remote version differ, or whose content is cached, or an ancestor
/// directory of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRow {
    /// Its number.
    pub ino: Ino,
    /// Its mapping.
    pub target: TargetId,
    /// What it is.
    pub kind: FileKind,
    /// Directory that holds it. The top directory of a mapping has parent [`Ino::ROOT`] and an
    /// empty name.
    pub parent: Ino,
    /// Name in the parent.
    pub name: String,
    /// It has a name (false: unlinked while open, or while its removal is owed).
    pub linked: bool,
    /// Wanted attributes.
    pub attrs: Attrs,
    /// The attributes are the true ones, not defaults.
    pub attrs_known: bool,
    /// Change time for stat(2).
    pub ctime: TimeNs,
    /// Raised at each change of attributes.
    pub attr_generation: u64,
    /// The `attr_generation` that the remote version carries.
    pub remote_attr_generation: u64,
    /// Logical size of the content as last known, bytes.
    pub size: u64,
    /// Target of a symbolic link.
    pub symlink: Option<String>,
    /// State of the local content.
    pub content: Content,
    /// Raised at each opening for writing and each change of content.
    pub generation: u64,
    /// The `generation` that the remote version holds (meaningful if `remote` is some).
    pub remote_generation: u64,
    /// The backing file.
    pub backing: Option<BackingNo>,
    /// Of `Flushed`, `Closed` and `Clean` content; of `Open` content as a program last heard that it is on
    /// the disk.
    pub mark: Option<Mark>,
    /// A program has heard (fsync, O_SYNC, `close = "disk"`) that local content which the bucket may not have is
    /// on the disk: after a power cut what is here keeps its name, whatever was written later.
    pub told: bool,
    /// Of `Torn` content.
    pub hold: Option<Hold>,
    /// What the bucket has of it.
    pub remote: Option<Remote>,
    /// R1: look at the remote version again at this time, before content may be evicted.
    pub recheck_at: Option<TimeNs>,
    /// Directories: a marker object `key/` is wanted.
    pub marker_wanted: bool,
    /// Extended attributes, as the object's header carries them; `None`: none.
    pub xattrs: Option<String>,
    /// The key's last segment where it is not the name (N2).
    pub segment: Option<String>,
}

/// A dirty file of which parts are still in the bucket only (C7). What programs have written, and what
/// lies at or beyond `end`, is in its backing file; everything else is the base's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialRow {
    /// Its inode.
    pub ino: Ino,
    /// The version that the rest belongs to: its base.
    pub etag: ETag,
    /// Bytes of the base.
    pub size: u64,
    /// Bytes of the base from here on do not belong to the file any more: it was cut here.
    pub end: u64,
}

/// A range of such a file that its backing file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentRow {
    /// Its inode.
    pub ino: Ino,
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// The base's bytes, fetched and synced to the disk; otherwise a program's.
    pub fetched: bool,
}

/// A file that a program made as a copy of another's object, and that is to be copied by the store: until
/// then its content, or what it lacks (C7), is that object's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRow {
    /// Its inode.
    pub ino: Ino,
    /// The version that it is a copy of, at another inode's key.
    pub origin: Remote,
}

/// Attributes of an object that we wrote or looked at; outlives its cached content (N3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeRow {
    /// Its mapping.
    pub target: TargetId,
    /// Its key.
    pub key: Key,
    /// The version that these attributes belong to.
    pub etag: ETag,
    /// Kind of inode that the object stands for.
    pub kind: FileKind,
    /// Attributes.
    pub attrs: Attrs,
    /// Target of a symbolic link.
    pub symlink: Option<String>,
    /// Of the whole object, if known.
    pub crc64: Option<Crc64>,
    /// Extended attributes, as the object's header carries them; `None`: none.
    pub xattrs: Option<String>,
}

/// What an attempt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptKind {
    /// One PUT.
    Put,
    /// A multipart upload.
    Multipart,
    /// A server-side copy (rename, attributes).
    Copy,
}

/// A named attempt to change a key (R2); on disk before its request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// Its number; with mount and ino it makes the `ferry` metadata value.
    pub attempt: u64,
    /// What it does.
    pub kind: AttemptKind,
    /// The inode it is for.
    pub ino: Ino,
    /// Mapping.
    pub target: TargetId,
    /// The key that it changes.
    pub key: Key,
    /// Copy: the key that it reads.
    pub source: Option<Key>,
    /// Generation of the content that it sends.
    pub generation: u64,
    /// Generation of the attributes that it sends.
    pub attr_generation: u64,
    /// Attributes that it sends.
    pub attrs: Attrs,
    /// Bytes of the whole object.
    pub size: u64,
    /// CRC64 of the whole object, where known when the row was written.
    pub crc64: Option<Crc64>,
    /// Multipart: the upload's id, once known.
    pub upload_id: Option<String>,
    /// Multipart: bytes a part.
    pub part_bytes: u64,
    /// When it was begun.
    pub started: TimeNs,
}

/// A part that the store acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// The attempt.
    pub attempt: u64,
    /// From 1.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// The store's ETag of the part.
    pub etag: ETag,
    /// Ours.
    pub crc64: Crc64,
}

/// A key that is to be deleted (unlinked, renamed away, result of an attempt nobody wants).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalRow {
    /// Mapping.
    pub target: TargetId,
    /// The key; one removal a key.
    pub key: Key,
    /// The version that is meant (R4); another one there is not deleted.
    pub etag: ETag,
    /// The inode whose version it was; while it is open and not wholly local, the key stays.
    pub ino: Ino,
    /// When it became owed.
    pub owed: TimeNs,
}

/// A prefix whose objects belong under a directory that was renamed, and have not all been moved
/// yet (R5). One row a directory and prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// The directory that they belong under.
    pub ino: Ino,
    /// Mapping.
    pub target: TargetId,
    /// Of their keys; ends with `/`.
    pub prefix: String,
    /// The store's time of the rename: what is newer there belongs to the old name.
    pub at: TimeNs,
}

/// State of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnnouncementState {
    /// To be sent.
    Owed,
    /// Declared failed; kept and shown.
    Failed,
    /// Declared failed by time alone: kept and shown, and owed again at the first acceptance (O3).
    GaveUp,
}

/// A key that OMS must be told of (O1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncementRow {
    /// Its number, rising.
    pub seq: u64,
    /// The sync task.
    pub sync: TargetId,
    /// The whole key.
    pub key: Key,
    /// State.
    pub state: AnnouncementState,
    /// Times it was sent.
    pub attempts: u32,
    /// What the last failure said.
    pub error: Option<String>,
    /// When it became owed.
    pub owed: TimeNs,
}

/// Outcome that a log record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordOutcome {
    /// `success_object`.
    Success,
    /// `failed_object`.
    Failed,
}

/// A record that is owed to the log bucket (O2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRow {
    /// The announcement's number; records of one key are written in this order.
    pub seq: u64,
    /// The log bucket.
    pub record: TargetId,
    /// The sync task.
    pub sync: TargetId,
    /// The announced key.
    pub key: Key,
    /// What to record.
    pub outcome: RecordOutcome,
    /// Failed attempts to write it.
    pub attempts: u32,
}

/// One change of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Inserts or replaces by `ino`.
    PutInode(Box<InodeRow>),
    /// Forgets an inode, and what it lacked.
    DeleteInode(Ino),
    /// Inserts or replaces by `ino`.
    PutPartial(PartialRow),
    /// The file is whole: forgets what it lacked, and its extents.
    DeletePartial(Ino),
    /// Inserts or replaces by `ino`.
    PutCopy(CopyRow),
    /// It has an object of its own, or its content is here.
    DeleteCopy(Ino),
    /// Inserts a range; those of its kind that begin in it or at its end are replaced by it.
    PutExtent(ExtentRow),
    /// Inserts or replaces by target and key.
    PutAttribute(AttributeRow),
    /// Forgets attributes.
    DeleteAttribute(TargetId, Key),
    /// Forgets all attribute rows.
    ForgetAttributes,
    /// Inserts or replaces by `attempt`.
    PutAttempt(AttemptRow),
    /// Forgets an attempt and its parts.
    DeleteAttempt(u64),
    /// Inserts or replaces by attempt and number.
    PutPart(PartRow),
    /// Inserts or replaces by target and key.
    PutRemoval(RemovalRow),
    /// The removal is done or dropped.
    DeleteRemoval(TargetId, Key),
    /// Inserts or replaces by directory and prefix.
    PutSource(SourceRow),
    /// Nothing is left to move from the prefix to the directory.
    DeleteSource(Ino, String),
    /// Inserts or replaces by `seq`.
    PutAnnouncement(AnnouncementRow),
    /// The announcement is settled.
    DeleteAnnouncement(u64),
    /// Inserts or replaces by `seq`.
    PutRecord(RecordRow),
    /// The record is written or cancelled.
    DeleteRecord(u64),
    /// Sets a named value (mount uuid, boot id).
    SetMeta(&'static str, String),
}

/// Everything that a start needs.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All targets ever named.
    pub targets: Vec<TargetRow>,
    /// All inodes, by number.
    pub inodes: Vec<InodeRow>,
    /// All files that are not wholly local, by number.
    pub partials: Vec<PartialRow>,
    /// All files that the store is to copy, by number.
    pub copies: Vec<CopyRow>,
    /// All attempts, by number.
    pub attempts: Vec<AttemptRow>,
    /// All parts, by attempt and number.
    pub parts: Vec<PartRow>,
    /// All removals.
    pub removals: Vec<RemovalRow>,
    /// All sources of renamed directories, in the order of their times.
    pub sources: Vec<SourceRow>,
    /// All announcements, by number.
    pub announcements: Vec<AnnouncementRow>,
    /// All records, by number.
    pub records: Vec<RecordRow>,
}
