//! What an outbox tells of itself.

use serde::Serialize;

/// Everything at a glance.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// One a sync task, in the order given at opening.
    pub targets: Vec<TargetStatus>,
}

/// One sync task and its log bucket.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TargetStatus {
    /// The sync task's number in the journal.
    pub sync: u32,
    /// The sync task: `https://host/v2/<project>/sync-tasks/<task>/events`.
    pub name: String,
    /// The log bucket, if records are kept.
    pub record: Option<String>,
    /// Announcements owed and not under way.
    pub owed: usize,
    /// Announcements under way.
    pub in_flight: usize,
    /// Announcements declared failed and kept.
    pub failed: usize,
    /// The first of them, in order of key; [`super::Outbox::list`] has all.
    pub failures: Vec<Item>,
    /// Why nothing but a probe is sent (401, 403, 404).
    pub paused: Option<String>,
    /// Failures in a row that are not one key's fault; 0 while all is well.
    pub failing: u32,
    /// What the last failure said, until the next success.
    pub last_error: Option<String>,
    /// Records owed and not under way.
    pub records_owed: usize,
    /// Records under way.
    pub records_in_flight: usize,
    /// What the last failure to write a record said, until the next success.
    pub record_error: Option<String>,
    /// Since the start.
    pub counters: Counters,
}

/// Events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Announcements accepted.
    pub announced: u64,
    /// Announcements that ended unsent, because their key was gone.
    pub gone: u64,
    /// Announcements declared failed.
    pub failed: u64,
    /// Requests made to OMS.
    pub requests: u64,
    /// Records written.
    pub recorded: u64,
}

/// State of an [`Item`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemState {
    /// To be announced.
    Owed,
    /// Being announced.
    InFlight,
    /// Refused by OMS.
    Failed,
    /// Out of time; owed again at the next acceptance.
    GaveUp,
    /// Accepted; its success record is owed.
    RecordSuccess,
    /// Declared failed; its failed record is owed.
    RecordFailed,
}

/// One announcement or record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// The sync task's number in the journal.
    pub sync: u32,
    /// The announcement's number.
    pub seq: u64,
    /// The whole key.
    pub key: String,
    /// State.
    pub state: ItemState,
    /// Times it was sent (a record: times it could not be written).
    pub attempts: u32,
    /// What the last failure said.
    pub error: Option<String>,
    /// When it became owed, nanoseconds since the epoch; absent for records.
    pub owed_ns: Option<i64>,
}

/// What is left to do for some keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Announcements owed or under way.
    pub announcements: usize,
    /// Announcements declared failed: nothing more happens to them until somebody retries.
    pub failed: usize,
    /// Records owed or under way.
    pub records: usize,
}

impl Left {
    /// Announced and recorded, nothing failed.
    pub fn is_nothing(self) -> bool {
        self == Left::default()
    }

    /// The sum of two.
    pub fn plus(self, other: Left) -> Left {
        Left {
            announcements: self.announcements + other.announcements,
            failed: self.failed + other.failed,
            records: self.records + other.records,
        }
    }
}
