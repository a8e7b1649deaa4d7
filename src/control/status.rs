//! The answers, as JSON carries them. Fields are only ever added: scripts read this.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the daemon is doing as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not yet mounted.
    #[default]
    Starting,
    /// Mounted.
    Running,
    /// Uploading what is left before it unmounts.
    Draining,
    /// Drained, unmounting.
    Unmounting,
}

/// `GET /status`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Of the daemon's package.
    pub version: String,
    /// Of the daemon.
    pub pid: u32,
    /// Mount directory.
    pub mount: PathBuf,
    /// The configuration's name.
    pub name: String,
    /// What the daemon is doing.
    pub phase: Phase,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// In the order of the configuration.
    pub mappings: Vec<MappingStatus>,
    /// Files closed but not yet in the bucket.
    pub uploads_files: u64,
    /// Their bytes.
    pub uploads_bytes: u64,
    /// Uploads that travel now; at most [`super::MAX_LISTED`].
    pub in_flight: Vec<InFlight>,
    /// Keys to delete.
    pub removals_owed: u64,
    /// Server-side copies to make (renames, attributes).
    pub copies_owed: u64,
    /// Renamed directories of which objects are still at their old keys; at most
    /// [`super::MAX_LISTED`].
    pub moves: Vec<MoveStatus>,
    /// Announcements not yet accepted.
    pub announcements_owed: u64,
    /// Announcements declared failed.
    pub announcements_failed: u64,
    /// Log records not yet written.
    pub records_owed: u64,
    /// Files that were being written when the daemon or the machine died (C5).
    pub torn: Vec<Problem>,
    /// Files held back for another reason (C6).
    pub held: Vec<Problem>,
    /// Files whose upload the store refuses; they are tried again.
    pub failed: Vec<Problem>,
    /// Problems of the three lists above that were left out of them.
    pub problems_left_out: u64,
    /// Local space.
    pub cache: CacheStatus,
    /// How programs' reads and writes are served.
    pub passthrough: PassthroughStatus,
    /// Since the daemon started.
    pub counters: Counters,
    /// What the kernel has asked for since the mount, by operation: reads and writes are not among it where it
    /// serves them itself.
    pub requests: BTreeMap<String, u64>,
    /// Why the journal takes no more writes, if so (J3): the mount refuses all changes.
    pub journal_failure: Option<String>,
}

/// One mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MappingStatus {
    /// Directory of the mount.
    pub path: String,
    /// `provider://bucket/prefix`.
    pub url: String,
    /// The last contact with the store succeeded (or none was needed yet).
    pub online: bool,
    /// Why it is offline: the store's or the network's message.
    pub error: Option<String>,
    /// Its sync task.
    pub sync: Option<SyncStatus>,
}

/// One sync task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncStatus {
    /// The events URL.
    pub url: String,
    /// `provider://bucket/prefix` of the log bucket.
    pub record: Option<String>,
    /// Why nothing is sent to it (O3: 401, 403, 404), if so.
    pub paused: Option<String>,
    /// What the last failed announcement was answered, until the next success.
    pub error: Option<String>,
    /// What the last failed write of a record was answered, until the next success.
    pub record_error: Option<String>,
}

/// An upload under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InFlight {
    /// Path within the mount.
    pub path: String,
    /// Where it goes.
    pub key: String,
    /// Bytes that the store has taken.
    pub bytes_sent: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

/// A renamed directory whose objects are being moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MoveStatus {
    /// Path within the mount.
    pub path: String,
    /// Where its objects come from: prefixes of keys.
    pub from: Vec<String>,
    /// Objects moved since the daemon started.
    pub done: u64,
    /// Objects found that are still to be moved.
    pub left: u64,
    /// Nothing more was found; it is listed once more a minute after the last copy.
    pub quiet: bool,
}

/// Something that does not go on by itself, or goes on failing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// Path within the mount, or a key.
    pub path: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// Local space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStatus {
    /// Bytes kept locally, all of them.
    pub used_bytes: u64,
    /// The configuration's `cache.size`.
    pub limit_bytes: u64,
    /// Files kept locally.
    pub files: u64,
    /// Bytes of these that cannot be let go: not yet in the bucket, or in use.
    pub pinned_bytes: u64,
    /// These are more than 80 % of the limit: files that are opened for writing now are served by requests,
    /// and their writes wait until uploads make room.
    pub tight: bool,
    /// Calls that wait for room now.
    pub waiting: u64,
    /// Calls that were refused with ENOSPC, since the daemon started, because the limit was reached.
    pub refused: u64,
    /// Bytes free on the disk, less what it reserves for root.
    pub disk_available_bytes: u64,
    /// So few that what is written now is held when it is closed.
    pub disk_full: bool,
    /// Inodes free on the disk, where it counts them.
    pub disk_inodes: Option<u64>,
}

/// How programs' reads and writes are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassthroughStatus {
    /// By the kernel itself, from the backing files.
    pub enabled: bool,
    /// Why so.
    pub why: String,
}

/// Counters since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Objects stored by one PUT.
    pub puts: u64,
    /// Objects stored by parts.
    pub multiparts: u64,
    /// Parts stored.
    pub parts: u64,
    /// Bytes stored.
    pub uploaded_bytes: u64,
    /// Server-side copies.
    pub copies: u64,
    /// Keys deleted.
    pub removals: u64,
    /// Requests of an upload that were made again.
    pub retries: u64,
    /// Bytes fetched.
    pub downloaded_bytes: u64,
    /// Keys that OMS accepted.
    pub announced: u64,
    /// Keys that were gone before they could be announced.
    pub gone: u64,
    /// Records written.
    pub records: u64,
    /// Changes by others of what was dirty here.
    pub conflicts: u64,
    /// Closes of files that somebody went on writing (C2), or whose writer was killed (C6).
    pub marks_taken_back: u64,
    /// Whole-object checksums that did not match what the store said.
    pub corrupt: u64,
}

/// What one pending file waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Path within the mount, or a key.
    pub path: String,
    /// `upload`, `copy`, `removal`, `announcement` or `record`.
    pub what: String,
}

/// `GET /pending`: what is not yet uploaded, announced and recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// Files to upload.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, bytes that the store has taken.
    pub bytes_sent: u64,
    /// Copies to make.
    pub copies: u64,
    /// Keys to delete.
    pub removals: u64,
    /// Announcements to send.
    pub announcements: u64,
    /// Records to write.
    pub records: u64,
    /// The first of them; at most [`super::MAX_LISTED`].
    pub first: Vec<Waiting>,
    /// What will not get there by itself: torn, held, announcements that failed.
    pub stuck: Vec<Problem>,
    /// The number of those.
    pub stuck_count: u64,
}

impl Pending {
    /// Steps still to be taken.
    pub fn steps(&self) -> u64 {
        [self.files, self.copies, self.removals, self.announcements, self.records]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Uploaded, announced and recorded.
    pub fn is_settled(&self) -> bool {
        self.steps() == 0 && self.stuck_count == 0
    }

    /// Whether waiting longer cannot help.
    pub fn is_stuck(&self) -> bool {
        self.steps() == 0 && self.stuck_count > 0
    }
}

/// `POST /umount`: the mount is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unmounted {
    /// What is kept in the state directory and goes on at the next start.
    pub left: Pending,
}

/// What becomes of an announcement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboxState {
    /// Not yet accepted; tried again.
    #[default]
    Owed,
    /// Being sent.
    Sending,
    /// Settled; its record in the log bucket is not written yet.
    Recording,
    /// Given up; `ferryfs outbox retry` sends it again.
    Failed,
}

/// One line of `GET /outbox`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboxEntry {
    /// Object key.
    pub key: String,
    /// The sync task's id.
    pub task: String,
    /// What becomes of it.
    pub state: OutboxState,
    /// Times it was sent.
    pub attempts: u32,
    /// Seconds since it became owed.
    pub age_s: u64,
    /// The last refusal.
    pub error: Option<String>,
}

/// What the bucket has at the path of a held file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketVersion {
    /// The store was asked just now. Otherwise this is what it had when it last answered.
    pub asked: bool,
    /// Bytes; `None`: there is no object.
    pub size: Option<u64>,
    /// When it was stored, nanoseconds since the epoch, if known.
    pub time_ns: Option<i64>,
}

/// `GET /held`: a list of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldEntry {
    /// Tells files of one path apart.
    pub id: u64,
    /// Which content it is.
    pub generation: u64,
    /// From the mount's root.
    pub path: String,
    /// The path shows the held content; otherwise what the bucket has, or nothing.
    pub in_place: bool,
    /// `crash`, `power`, `killed_writer`, `disk_full`, `disk_failed`, `incomplete`, `journal_lost`, or `undecided` without a daemon.
    pub why: String,
    /// The same in words.
    pub reason: String,
    /// Bytes held.
    pub size: u64,
    /// When the content was last changed, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Since when it is held, nanoseconds since the epoch; 0: the daemon has not yet looked at it.
    pub since_ns: i64,
    /// Permission bits.
    pub mode: u32,
    /// Parts of it are not here: its file has zeros there.
    pub incomplete: bool,
    /// The local file that has the content. To be read only.
    pub file: PathBuf,
    /// What the bucket has.
    pub bucket: BucketVersion,
}

/// `POST /held/accept`, `POST /held/discard`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settled {}

/// `POST /refresh`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refreshed {
    /// Directories that were listed.
    pub directories: u64,
}

/// `POST /cache/prune`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachePruned {
    /// Files that went.
    pub files: u64,
    /// Bytes that are free now.
    pub bytes: u64,
}

/// `POST /cache/verify`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheVerified {
    /// Files that were read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that were not read: the bucket tells no CRC64 of them.
    pub unknown: u64,
    /// Files that are not what the bucket has.
    pub rotten: Vec<RottenFile>,
}

/// A cached file that the disk has spoiled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RottenFile {
    /// Its path in the mount.
    pub path: String,
    /// Whether it was dropped; otherwise a program has it open.
    pub dropped: bool,
}

/// `POST /outbox/reconcile`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboxReconciled {
    /// Objects that were compared with their records.
    pub objects: u64,
    /// Objects that had no record or an older one: they are announced now.
    pub owed: u64,
    /// Objects whose announcement was owed, under way or had failed already.
    pub pending: u64,
}

/// `POST /outbox/retry`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retried {
    /// Announcements that are sent again.
    pub count: u64,
}

/// A key that is shown under a name that is not its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OddKeyEntry {
    /// The whole key.
    pub key: String,
    /// Path within the mount; `None`: it cannot be reached there.
    pub path: Option<String>,
    /// Why its own name will not do.
    pub reason: String,
}

/// What a walk through all keys of a mount found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OddKeyList {
    /// Objects that were looked at.
    pub objects: u64,
    /// How many of them have no path of their own.
    pub count: u64,
    /// The first of those.
    pub keys: Vec<OddKeyEntry>,
    /// Mappings that could not be looked through: path and reason.
    pub failed: Vec<Problem>,
}
