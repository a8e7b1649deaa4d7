//! Named moments at which a test may end the process, as SIGKILL or a power cut would.
//!
//! # Promise
//! With the environment variable `FERRYFS_FAILPOINT` unset, [`hit`] costs one load. Set to
//! `name` it ends the process at the first hit of that name, set to `name:N` at the N-th.
//!
//! # Invariants
//! 1. The process ends by SIGKILL: no destructor runs, nothing is flushed.
//! 2. Each name stands at one step of the code, and its doc says what must still hold.
//! 3. A variable that names no failpoint is an error ([`check`]), not a run without one.

mod names;
mod trigger;

pub use names::{
    ACCEPT_AFTER_ROW, ACCEPT_BEFORE_ROW, ALL, CLOSE_AFTER_TAG, DISCARD_AFTER_ROW, DISCARD_BEFORE_ROW,
    EVICTION_AFTER_UNLINK, EVICTION_BEFORE_UNLINK, JOURNAL_AFTER_COMMIT, JOURNAL_BEFORE_COMMIT, MOVE_AFTER_PAGE,
    MOVE_BEFORE_PAGE, OMS_AFTER_SEND, OMS_BEFORE_SEND, RECORD_AFTER_PUT, RECORD_BEFORE_PUT, REMOVAL_AFTER_DELETE,
    REMOVAL_BEFORE_DELETE, RENAME_AFTER_TAG, SCAN_JOURNAL_ASIDE, SCAN_JOURNAL_MADE, UPLOAD_AFTER_CLEAN_OWED,
    UPLOAD_AFTER_COMPLETE, UPLOAD_AFTER_INITIATE, UPLOAD_AFTER_PART, UPLOAD_AFTER_PUT, UPLOAD_BEFORE_CLEAN_OWED,
    UPLOAD_BEFORE_COMPLETE, UPLOAD_BEFORE_PUT,
};

use std::sync::OnceLock;

use self::trigger::{Setting, Trigger};

/// The variable that arms a failpoint.
const VARIABLE: &str = "FERRYFS_FAILPOINT";

static SETTING: OnceLock<Setting> = OnceLock::new();

fn setting() -> &'static Setting {
    SETTING.get_or_init(|| trigger::parse(std::env::var(VARIABLE).ok().as_deref()))
}

/// Ends the process if this is the moment that was asked for.
pub fn hit(name: &'static str) {
    if let Setting::Armed(trigger) = setting()
        && Trigger::is_due(trigger, name)
    {
        trigger::end_process();
    }
}

/// To be asked at the start of a process.
///
/// # Errors
/// A message: the variable is set, and is not `name` or `name:N` of a known name.
pub fn check() -> Result<(), String> {
    match setting() {
        Setting::Unset | Setting::Armed(_) => Ok(()),
        Setting::Wrong(text) => Err(format!("{VARIABLE}={text} names no failpoint; known are: {}", ALL.join(", "))),
    }
}
