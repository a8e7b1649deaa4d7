//! What is known of an inode while programs have it open. Pure.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::cache::Tag;
use crate::download::Fill;
use crate::journal::{Content, Hold, Mark};
use crate::types::BackingNo;

/// How all handles of an inode are served while any is open (C1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// By the kernel, from the backing file registered under this id.
    Passthrough(u32),
    /// By us, through the kernel's page cache.
    Cached,
    /// By us, while the content arrives.
    Direct,
}

/// What the inode was before programs began to write (to be restored if they wrote nothing).
#[derive(Clone, Copy, Debug)]
pub(super) struct Prior {
    pub(super) content: Content,
    pub(super) generation: u64,
    pub(super) mark: Option<Mark>,
    pub(super) hold: Option<Hold>,
}

/// From the first opening for writing until nobody can write any more (C2, C4).
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The backing file when the session began.
    pub(super) base: Mark,
    /// Created or truncated: it counts as changed even if nothing is written.
    pub(super) fresh: bool,
    pub(super) prior: Prior,
    /// C6: why its content must be held.
    pub(super) hold: Option<Hold>,
    /// The last version that was offered to the bucket while it was open.
    pub(super) version: Option<Version>,
    /// Monotonic time of the last upload by interval; at first, of the session's begin.
    pub(super) pushed: Duration,
}

/// A version of a file that is open (P2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    /// What stands for it in attempts and rows.
    pub(super) generation: u64,
    /// The backing file while it held it.
    pub(super) mark: Mark,
    /// No change can leave the mark as it is; otherwise only write(2) is sure to move it.
    pub(super) exact: bool,
}

impl Session {
    /// Begun at the monotonic time `now`.
    pub(super) fn new(base: Mark, fresh: bool, prior: Prior, now: Duration) -> Session {
        Session { base, fresh, prior, hold: None, version: None, pushed: now }
    }

    /// Cut to nothing by a program: what the disk did not take before is nobody's any more.
    pub(super) fn forgive(&mut self) {
        self.hold = self.hold.filter(|hold| !matches!(hold, Hold::DiskFull | Hold::DiskFailed));
    }
}

/// The open state of an inode, behind its lock.
#[derive(Default)]
pub(super) struct OpenState {
    pub(super) mode: Option<Mode>,
    /// Handles whose RELEASE has not come.
    pub(super) count: u32,
    /// Those of them that may write.
    pub(super) writers: u32,
    pub(super) session: Option<Session>,
    /// Monotonic time of the last FLUSH after which each handle that may write had had one.
    pub(super) flushed: Option<Duration>,
    /// One of the handles of the session was opened with O_DIRECT.
    pub(super) direct: bool,
    /// Content that is still arriving, and its backing file.
    pub(super) fill: Option<(Fill, BackingNo)>,
    /// What the backing file told last of what is here of it (C7, J5), in this session.
    pub(super) told: Option<Tag>,
    /// Makes the file whole (C7); told to begin at once.
    pub(super) filler: Option<Arc<Notify>>,
    /// Somebody already asks for the lease of a session without writers.
    pub(super) polled: bool,
}

impl OpenState {
    pub(super) fn is_idle(&self) -> bool {
        self.count == 0 && self.session.is_none() && self.fill.is_none() && self.filler.is_none()
    }
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was written: as before.
    Unchanged,
    /// The final mark.
    Closed,
    /// Changed, but not to be trusted (C6), or it was torn before and this session did not settle it.
    Held(Hold),
}

/// Judges a session whose content can no longer change. `changed`: the mark moved.
pub(super) fn judge(session: &Session, changed: bool) -> Verdict {
    if !changed && !session.fresh {
        return Verdict::Unchanged;
    }
    match (session.hold, session.prior.hold) {
        (Some(hold), _) => Verdict::Held(hold),
        // After a power cut, without a journal, or where the disk failed, bytes may be missing that no later session knows of: only a program
        // that writes all of it anew settles it.
        (None, Some(hold @ (Hold::Power | Hold::Journal | Hold::DiskFailed))) if !session.fresh => Verdict::Held(hold),
        // Bytes are missing that are nowhere any more.
        (None, Some(Hold::Incomplete)) if !session.fresh => Verdict::Held(Hold::Incomplete),
        (None, _) => Verdict::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TimeNs;

    fn session(fresh: bool, hold: Option<Hold>, prior: Option<Hold>) -> Session {
        let base = Mark { backing_ino: 1, size: 0, mtime: TimeNs(0), ctime: TimeNs(0), synced: false };
        let prior = Prior { content: Content::Torn, generation: 1, mark: None, hold: prior };
        Session { hold, ..Session::new(base, fresh, prior, Duration::ZERO) }
    }

    #[test]
    fn who_begins_anew_is_forgiven_what_the_disk_did_not_take() {
        let after = |hold| {
            let mut session = session(true, Some(hold), None);
            session.forgive();
            judge(&session, true)
        };
        assert_eq!(after(Hold::DiskFull), Verdict::Closed);
        assert_eq!(after(Hold::DiskFailed), Verdict::Closed);
        assert_eq!(after(Hold::KilledWriter), Verdict::Held(Hold::KilledWriter));
    }

    #[test]
    fn what_a_session_settles() {
        assert_eq!(judge(&session(false, None, None), false), Verdict::Unchanged);
        assert_eq!(judge(&session(true, None, None), false), Verdict::Closed, "created and left empty");
        assert_eq!(judge(&session(false, None, Some(Hold::Crash)), true), Verdict::Closed);
        assert_eq!(judge(&session(false, None, Some(Hold::Crash)), false), Verdict::Unchanged);
        assert_eq!(judge(&session(false, None, Some(Hold::Power)), true), Verdict::Held(Hold::Power));
        assert_eq!(judge(&session(true, None, Some(Hold::Power)), true), Verdict::Closed);
        assert_eq!(judge(&session(false, None, Some(Hold::Incomplete)), true), Verdict::Held(Hold::Incomplete));
        assert_eq!(judge(&session(true, None, Some(Hold::Incomplete)), true), Verdict::Closed);
        let killed = Some(Hold::KilledWriter);
        assert_eq!(judge(&session(true, killed, None), true), Verdict::Held(Hold::KilledWriter));
        assert_eq!(judge(&session(false, killed, None), false), Verdict::Unchanged, "it wrote nothing");
    }
}
