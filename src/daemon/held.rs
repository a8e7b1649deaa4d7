//! Held content as the control socket tells of it, and without a daemon.

use crate::cache;
use crate::config::Config;
use crate::control::{ActionError, BucketVersion, HeldEntry};
use crate::disk;
use crate::journal::{Content, Hold, InodeRow, Journal, Snapshot};
use crate::vfs::{HeldError, HeldFile, InBucket};

use super::error::Error;
use super::{build, owed};

/// What is held in the state directory of a mount that is not mounted now. Nothing is changed: what
/// was open when the daemon ended is told as such, and the next mount decides what it is.
///
/// # Errors
/// The mount is mounted; the journal cannot be read.
pub fn held_unmounted(config: &Config) -> Result<Vec<HeldEntry>, Error> {
    let _locks = build::lock(config).map_err(|error| {
        Error::Failed(format!("{error}: it is mounted, so name its directory instead of its configuration"))
    })?;
    if !Journal::exists(&config.state.dir) {
        return Err(Error::Failed(format!("there is no journal in {}", config.state.dir.display())));
    }
    let journal = Journal::open(&config.state.dir)?;
    let snapshot = journal.load()?;
    journal.close()?;
    let options = build::cache_options(config);
    let mut entries: Vec<HeldEntry> = snapshot
        .inodes
        .iter()
        .filter(|row| matches!(row.content, Content::Torn | Content::Open | Content::Flushed))
        .filter(|row| row.linked || row.content == Content::Torn)
        .filter_map(|row| unmounted(row, &snapshot, &options))
        .collect();
    entries.sort_by(|a, b| (&a.path, a.id).cmp(&(&b.path, b.id)));
    Ok(entries)
}

fn unmounted(row: &InodeRow, snapshot: &Snapshot, options: &cache::Options) -> Option<HeldEntry> {
    let file = cache::find(options, row.backing?)?;
    let stat = disk::lstat(&file).ok()?;
    let held = row.hold.filter(|_| row.content == Content::Torn);
    Some(HeldEntry {
        id: row.ino.0,
        generation: row.generation,
        path: owed::path(row, snapshot).unwrap_or_else(|| format!("/?/{}", row.name)),
        in_place: row.linked,
        why: held.map_or("undecided", why).to_owned(),
        reason: held
            .map_or("it was open when the daemon ended: the next mount decides whether it is whole", reason)
            .to_owned(),
        size: stat.size,
        mtime_ns: stat.mtime.0,
        since_ns: if held.is_some() { stat.ctime.0 } else { 0 },
        mode: row.attrs.mode,
        incomplete: snapshot.partials.iter().any(|partial| partial.ino == row.ino),
        file,
        bucket: BucketVersion {
            asked: false,
            size: row.remote.as_ref().map(|remote| remote.size),
            time_ns: row.remote.as_ref().and_then(|remote| remote.last_modified).map(|time| time.0),
        },
    })
}

/// Why, and what to do.
pub(super) fn hold_text(hold: Hold) -> String {
    format!("{}; write it anew, or see `ferryfs recover`", reason(hold))
}

pub(super) fn reason(hold: Hold) -> &'static str {
    match hold {
        Hold::Crash => "torn: it was being written when the daemon ended",
        Hold::Power => "torn: the machine went down before its content was on the disk",
        Hold::KilledWriter => "held: its writer was killed in the middle",
        Hold::DiskFull => "held: there was no room left, on the disk or in the cache, while it was written",
        Hold::DiskFailed => "held: the disk failed to take what was written",
        Hold::Journal => "held: the journal was lost, and nothing proves that this is whole and the newest",
        Hold::Incomplete => {
            "held: parts of it were in the bucket only when another host replaced or removed the object"
        }
    }
}

/// The same for programs.
pub(super) fn why(hold: Hold) -> &'static str {
    match hold {
        Hold::Crash => "crash",
        Hold::Power => "power",
        Hold::KilledWriter => "killed_writer",
        Hold::DiskFull => "disk_full",
        Hold::DiskFailed => "disk_failed",
        Hold::Journal => "journal_lost",
        Hold::Incomplete => "incomplete",
    }
}

pub(super) fn entry(held: HeldFile) -> HeldEntry {
    HeldEntry {
        id: held.ino.0,
        generation: held.generation,
        path: held.path,
        in_place: held.in_place,
        why: why(held.hold).to_owned(),
        reason: reason(held.hold).to_owned(),
        size: held.size,
        mtime_ns: held.mtime.0,
        since_ns: held.since.0,
        mode: held.mode,
        incomplete: held.incomplete,
        file: held.file,
        bucket: match held.bucket {
            InBucket::Nothing => BucketVersion { asked: true, size: None, time_ns: None },
            InBucket::Version(size, time) => {
                BucketVersion { asked: true, size: Some(size), time_ns: time.map(|time| time.0) }
            }
            InBucket::Unknown(size) => BucketVersion { asked: false, size, time_ns: None },
        },
    }
}

pub(super) fn refusal(error: HeldError) -> ActionError {
    let message = error.to_string();
    match error {
        HeldError::Gone => ActionError::NotFound(message),
        HeldError::Writable
        | HeldError::Incomplete
        | HeldError::NoDirectory
        | HeldError::Taken
        | HeldError::Uploading => ActionError::Busy(message),
        HeldError::Failed(_) => ActionError::Failed(message),
    }
}
