//! `ferryfs status`

use std::time::Duration;

use super::Failure;
use super::args::StatusArgs;
use super::output::{columns, count, print, print_json, shown, span};
use crate::control::{Client, Phase, Problem, Status};
use crate::types::ByteSize;

pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let status = Client::find(&args.dir)?.status()?;
    if args.json { print_json(&status) } else { print(&text(&status)) }
}

/// What people read: what is wrong first, then the queues, then the rest.
fn text(status: &Status) -> String {
    let phase = match status.phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Unmounting => "unmounting",
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    if let Some(failure) = &status.journal_failure {
        row(
            "JOURNAL",
            format!(
                "failed, the mount takes no more changes: {}; see to the disk, then unmount and mount again",
                shown(failure)
            ),
        );
    }
    for mapping in &status.mappings {
        let state = match (&mapping.error, mapping.online) {
            (_, true) => "online".to_owned(),
            (Some(error), false) => format!("OFFLINE: {}", shown(error)),
            (None, false) => "OFFLINE".to_owned(),
        };
        row("mapping", format!("{} -> {}  {state}", shown(&mapping.path), shown(&mapping.url)));
        if let Some(sync) = &mapping.sync {
            let state = match (&sync.paused, &sync.error) {
                (Some(why), _) => format!("PAUSED: {}", shown(why)),
                (None, Some(why)) => format!("FAILING, tried again: {}", shown(why)),
                (None, None) => "sending".to_owned(),
            };
            row("sync", format!("{}  {state}", shown(&sync.url)));
            if let Some(record) = &sync.record {
                let state = sync.record_error.as_ref();
                let state = state.map_or(String::new(), |why| format!("  FAILING, tried again: {}", shown(why)));
                row("records", format!("{}{state}", shown(record)));
            }
        }
    }
    row(
        "uploads",
        format!("{}, {} to go", count(status.uploads_files, "file", "files"), ByteSize(status.uploads_bytes)),
    );
    for upload in &status.in_flight {
        let percent = upload.bytes_sent.saturating_mul(100).checked_div(upload.bytes_total).unwrap_or(100);
        row("", format!("{percent:>3}% of {}  {}", ByteSize(upload.bytes_total), shown(&upload.path)));
    }
    row(
        "owed",
        format!(
            "{}, {}, {}, {}",
            count(status.copies_owed, "copy", "copies"),
            count(status.removals_owed, "removal", "removals"),
            count(status.announcements_owed, "announcement", "announcements"),
            count(status.records_owed, "record", "records")
        ),
    );
    for one in &status.moves {
        let from = one.from.join(", ");
        let more = if one.quiet { "nothing more found" } else { "more may be found" };
        row(
            "moving",
            format!("{} from {}: {} done, {} left, {more}", shown(&one.path), shown(&from), one.done, one.left),
        );
    }
    if status.announcements_failed > 0 {
        let failed = count(status.announcements_failed, "announcement", "announcements");
        row("FAILED", format!("{failed}: see `ferryfs outbox list`"));
    }
    for (name, problems) in [("TORN", &status.torn), ("HELD", &status.held), ("FAILED", &status.failed)] {
        for Problem { path, reason } in problems {
            row(name, format!("{}: {}", shown(path), shown(reason)));
        }
    }
    if status.problems_left_out > 0 {
        row("", format!("and {} more", status.problems_left_out));
    }
    row(
        "cache",
        format!(
            "{} of {}, {}",
            ByteSize(status.cache.used_bytes),
            ByteSize(status.cache.limit_bytes),
            count(status.cache.files, "file", "files")
        ),
    );
    let cache = &status.cache;
    if cache.tight || cache.waiting > 0 {
        row(
            "TIGHT",
            format!(
                "{} cannot be let go yet; new writers go at the speed of the uploads, {} for room",
                ByteSize(cache.pinned_bytes),
                count(cache.waiting, "call waits", "calls wait")
            ),
        );
    }
    if cache.disk_full {
        row(
            "DISK",
            format!(
                "full, {} free: what is written now is held; make room on it",
                ByteSize(cache.disk_available_bytes)
            ),
        );
    }
    if cache.disk_inodes == Some(0) {
        row("DISK", "no inode is free: nothing new can be written; make room on it".to_owned());
    }
    if cache.refused > 0 {
        let refused = count(cache.refused, "call was", "calls were");
        row("", format!("{refused} refused with ENOSPC since the start: cache.size is too small for what is written"));
    }
    let how = if status.passthrough.enabled { "on" } else { "off" };
    let why = shown(&status.passthrough.why);
    row("passthrough", if why.is_empty() { how.to_owned() } else { format!("{how}: {why}") });
    let counters = &status.counters;
    row(
        "so far",
        format!(
            "{} uploaded ({} PUT, {} multipart), {} announced, {} recorded, {} conflicts",
            ByteSize(counters.uploaded_bytes),
            counters.puts,
            counters.multiparts,
            counters.announced,
            counters.records,
            counters.conflicts
        ),
    );
    format!(
        "{}: {phase}, pid {}, up {}\n{}",
        shown(&status.mount.display().to_string()),
        status.pid,
        span(Duration::from_secs(status.uptime_s)),
        columns(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{CacheStatus, InFlight, MappingStatus, MoveStatus, SyncStatus};

    #[test]
    fn troubles_are_shown() {
        let status = Status {
            mount: "/mnt/demo".into(),
            pid: 7,
            phase: Phase::Running,
            mappings: vec![MappingStatus {
                path: "/".into(),
                url: "cos://a-1/".into(),
                error: Some("no route".into()),
                sync: Some(SyncStatus {
                    paused: Some("HTTP 401".into()),
                    record: Some("cos://logs-1/".into()),
                    record_error: Some("HTTP 403 AccessDenied".into()),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            uploads_files: 1,
            in_flight: vec![InFlight { path: "/big".into(), bytes_sent: 1, bytes_total: 4, ..Default::default() }],
            torn: vec![Problem { path: "/report".into(), reason: "its writer was killed".into() }],
            moves: vec![MoveStatus {
                path: "/new".into(),
                from: vec!["data/old/".into()],
                done: 3,
                left: 2,
                ..Default::default()
            }],
            announcements_failed: 2,
            cache: CacheStatus {
                pinned_bytes: 4096,
                tight: true,
                waiting: 2,
                refused: 1,
                disk_full: true,
                disk_inodes: Some(0),
                ..Default::default()
            },
            journal_failure: Some("disk full".into()),
            ..Default::default()
        };
        let text = text(&status);
        for wanted in [
            "/mnt/demo: running, pid 7, up 0s\n",
            "OFFLINE: no route",
            "PAUSED: HTTP 401",
            "cos://logs-1/  FAILING, tried again: HTTP 403 AccessDenied",
            "25% of 4 B  /big",
            "TORN         /report: its writer was killed",
            "/new from data/old/: 3 done, 2 left, more may be found",
            "4 KiB cannot be let go yet; new writers go at the speed of the uploads, 2 calls wait for room",
            "full, 0 B free: what is written now is held",
            "no inode is free",
            "1 call was refused with ENOSPC",
            "2 announcements: see `ferryfs outbox list`",
            "takes no more changes: disk full",
        ] {
            assert!(text.contains(wanted), "{wanted}:\n{text}");
        }
    }
}
