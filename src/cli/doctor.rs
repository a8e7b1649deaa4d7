//! `ferryfs doctor`

use std::fs;

use serde::Serialize;

use super::Failure;
use super::args::StatusArgs;
use super::output::{count, print, print_json, shown};
use crate::control::{Client, OddKeyList, Status};

/// Which filesystems updatedb(8) leaves out, as Debian and Fedora have it.
const UPDATEDB: &str = "/etc/updatedb.conf";
/// What mount(8) calls ours.
const FS_TYPE: &str = "fuse.ferryfs";

/// Something that a person should know.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// It needs somebody; otherwise it is good to know.
    problem: bool,
    what: String,
    remedy: String,
}

#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
    odd_keys: OddKeyList,
}

/// Exit 0 if nothing needs anybody, else 1.
pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let client = Client::find(&args.dir)?;
    let status = client.status()?;
    let odd_keys = client.odd_keys()?;
    // Without the file there is no updatedb.
    let updatedb = fs::read_to_string(UPDATEDB).ok();
    let findings = findings(&status, &odd_keys, updatedb.as_deref());
    let problems = findings.iter().filter(|finding| finding.problem).count() as u64;
    let report = Report { findings, odd_keys };
    if args.json {
        print_json(&report)?
    } else {
        print(&text(&report))?
    }
    if problems == 0 { Ok(()) } else { Err(Failure::reported()) }
}

fn findings(status: &Status, odd: &OddKeyList, updatedb: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |problem: bool, what: String, remedy: &str| {
        findings.push(Finding { problem, what, remedy: remedy.to_owned() });
    };
    if let Some(why) = &status.journal_failure {
        add(
            true,
            format!("the journal failed, the mount takes no more changes: {why}"),
            "see to the disk, mount again",
        );
    }
    if status.cache.disk_full {
        let remedy = "make room on it; what was held meanwhile is written anew, or see `ferryfs recover`";
        add(true, "the disk of the cache is full: programs get ENOSPC".to_owned(), remedy);
    }
    if status.cache.disk_inodes == Some(0) {
        add(true, "the disk of the cache has no free inode: no file can be made".to_owned(), "make room on it");
    }
    if status.cache.tight {
        let remedy = "it ends by itself when uploads go on; a larger cache.size takes longer to fill";
        add(false, "the cache is tight: new writers go at the speed of the uploads".to_owned(), remedy);
    }
    for mapping in &status.mappings {
        if !mapping.online {
            let why = mapping.error.as_deref().unwrap_or("no answer");
            let remedy = "it goes on by itself when the store answers; see to network, endpoint and keys";
            add(true, format!("{} ({}) is offline: {why}", mapping.path, mapping.url), remedy);
        }
        let Some(sync) = &mapping.sync else { continue };
        if let Some(why) = &sync.paused {
            let remedy = "see to the task's URL and keys, then `ferryfs outbox retry`";
            add(true, format!("announcements to {} are paused: {why}", sync.url), remedy);
        } else if let Some(why) = &sync.error {
            add(true, format!("announcements to {} fail: {why}", sync.url), "they are tried again by themselves");
        }
        if let (Some(record), Some(why)) = (&sync.record, &sync.record_error) {
            add(true, format!("records in {record} fail: {why}"), "see to the log bucket; they are tried again");
        }
    }
    for failed in &status.failed {
        add(true, format!("{} cannot be uploaded: {}", failed.path, failed.reason), "it is tried again by itself");
    }
    for held in status.torn.iter().chain(&status.held) {
        add(true, format!("{} is held: {}", held.path, held.reason), "write it anew, or see `ferryfs recover list`");
    }
    if status.problems_left_out > 0 {
        add(true, format!("{} more such files", status.problems_left_out), "see `ferryfs recover list`");
    }
    for failed in &odd.failed {
        add(true, format!("{} could not be looked through: {}", failed.path, failed.reason), "ask again later");
    }
    if !status.passthrough.enabled {
        let remedy = "files are right but slower; Linux 6.9 and a mount by root give it";
        add(false, format!("no passthrough: {}", status.passthrough.why), remedy);
    }
    if odd.count > 0 {
        let what = count(odd.count, "key has", "keys have");
        let remedy = "use the names shown, or copy the objects to keys without such segments";
        add(false, format!("{what} no path of their own"), remedy);
    }
    if updatedb.is_some_and(walks_us) {
        let remedy = format!("add {FS_TYPE} to PRUNEFS in {UPDATEDB}");
        add(false, "updatedb lists the whole bucket, every day".to_owned(), &remedy);
    }
    findings
}

/// updatedb(8) goes into our mounts: types are matched by their whole name.
fn walks_us(conf: &str) -> bool {
    let line = conf.lines().rev().find_map(|line| line.trim().strip_prefix("PRUNEFS"));
    let types = line.and_then(|rest| rest.trim_start().strip_prefix('=')).unwrap_or_default();
    !types.trim().trim_matches('"').split_whitespace().any(|kind| kind.eq_ignore_ascii_case(FS_TYPE))
}

fn text(report: &Report) -> String {
    let mut lines = String::new();
    for finding in &report.findings {
        let level = if finding.problem { "PROBLEM" } else { "note" };
        lines += &format!("{level}: {}\n    {}\n", shown(&finding.what), shown(&finding.remedy));
    }
    if report.findings.is_empty() {
        lines += "nothing to see to\n";
    }
    for odd in &report.odd_keys.keys {
        let path = odd.path.as_deref().map_or_else(|| "(cannot be reached)".to_owned(), shown);
        lines += &format!("{}\n    {path}  ({})\n", shown(&odd.key), odd.reason);
    }
    let left_out = report.odd_keys.count.saturating_sub(report.odd_keys.keys.len() as u64);
    if left_out > 0 {
        lines += &format!("and {left_out} more\n");
    }
    lines + &format!("{} looked at\n", count(report.odd_keys.objects, "object", "objects"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{MappingStatus, PassthroughStatus, Problem};

    #[test]
    fn updatedb_must_know_the_type_by_its_whole_name() {
        assert!(walks_us("PRUNEFS=\"NFS afs fuse fuse.s3fs\"\n"));
        assert!(walks_us("PRUNEPATHS=\"/tmp fuse.ferryfs\"\n"));
        assert!(!walks_us("PRUNE_BIND_MOUNTS=\"yes\"\nPRUNEFS = \"nfs FUSE.ferryfs\"\n"));
    }

    #[test]
    fn what_needs_somebody_comes_first_with_its_remedy() {
        let mut status =
            Status { passthrough: PassthroughStatus { enabled: true, why: String::new() }, ..Status::default() };
        status.mappings.push(MappingStatus { path: "/".into(), online: true, ..Default::default() });
        assert_eq!(findings(&status, &OddKeyList::default(), None), []);
        status.torn.push(Problem { path: "/a".into(), reason: "open when the daemon ended".into() });
        status.mappings[0].online = false;
        status.passthrough.enabled = false;
        let odd = OddKeyList { objects: 5, count: 2, ..OddKeyList::default() };
        let found = findings(&status, &odd, Some(""));
        let problems: Vec<bool> = found.iter().map(|finding| finding.problem).collect();
        assert_eq!(problems, [true, true, false, false, false]);
        assert!(found.iter().all(|finding| !finding.remedy.is_empty()));
        assert!(found[0].what.contains("offline") && found[1].what.contains("/a is held"));
        let text = text(&Report { findings: found, odd_keys: odd });
        assert!(
            text.starts_with("PROBLEM: / () is offline") && text.ends_with("and 2 more\n5 objects looked at\n"),
            "{text}"
        );
    }
}
