//! `ferryfs recover`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Failure;
use super::args::{RecoverArgs, RecoverCommand, RecoverDiscardArgs, RecoverListArgs, RecoverSaveArgs, RecoverWhich};
use super::output::{columns, count, print, print_json, shown, span};
use super::save;
use super::wait::within;
use crate::config::Config;
use crate::control::{BucketVersion, Client, HeldEntry};
use crate::daemon;
use crate::types::ByteSize;

pub(super) fn run(args: RecoverArgs) -> Result<(), Failure> {
    match (args.command, args.config) {
        (Some(RecoverCommand::List(args)), _) => list(&args),
        (Some(RecoverCommand::Accept(args)), _) => {
            let client = Client::find(&args.dir)?;
            let chosen = choose(client.held()?, &args.which, Some(&args.dir), &client.address().mount)?;
            settle(&client, &chosen, true)
        }
        (Some(RecoverCommand::Discard(args)), _) => discard(&args),
        (Some(RecoverCommand::Save(args)), _) => save_all(args),
        (None, Some(config)) if args.scan => super::scan::run(&config, args.dry_run, args.force),
        (None, _) => Err(Failure::refused(
            "say what: ferryfs recover list|accept|discard|save DIR, or ferryfs recover --scan --config FILE \
             (see ferryfs help recover)",
        )),
    }
}

fn list(args: &RecoverListArgs) -> Result<(), Failure> {
    let held = held(args.dir.as_deref(), args.config.as_deref())?;
    if args.json {
        return print_json(&held);
    }
    if held.is_empty() {
        return print("nothing is held\n");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    print(&table(&held, now))
}

/// What is held on a mount, or on one that is not mounted now.
fn held(dir: Option<&Path>, config: Option<&Path>) -> Result<Vec<HeldEntry>, Failure> {
    match (dir, config) {
        (_, Some(config)) => Ok(daemon::held_unmounted(&Config::load(config)?)?),
        (Some(dir), None) => Ok(Client::find(dir)?.held()?),
        (None, None) => Err(Failure::refused("of which mount? name its directory, or --config FILE")),
    }
}

fn table(held: &[HeldEntry], now: Duration) -> String {
    let ago = |time_ns: i64| {
        let then = Duration::from_nanos(u64::try_from(time_ns).unwrap_or(0));
        format!("{} ago", span(now.saturating_sub(then)))
    };
    let header = ["ID", "HELD", "SIZE", "CHANGED", "IN THE BUCKET", "PATH", "WHY"];
    let mut rows: Vec<Vec<String>> = vec![header.map(str::to_owned).to_vec()];
    rows.extend(held.iter().map(|entry| {
        let bucket = match entry.bucket {
            BucketVersion { size: Some(size), time_ns: Some(time), .. } => format!("{}, {}", ByteSize(size), ago(time)),
            BucketVersion { size: Some(size), asked: true, .. } => ByteSize(size).to_string(),
            BucketVersion { size: Some(size), asked: false, .. } => format!("{}?", ByteSize(size)),
            BucketVersion { size: None, asked: true, .. } => "nothing".to_owned(),
            BucketVersion { size: None, asked: false, .. } => "?".to_owned(),
        };
        let aside = if entry.in_place { "" } else { "; kept aside, the path shows what the bucket has" };
        vec![
            entry.id.to_string(),
            if entry.since_ns == 0 { "-".to_owned() } else { ago(entry.since_ns) },
            ByteSize(entry.size).to_string(),
            ago(entry.mtime_ns),
            bucket,
            shown(&entry.path),
            format!("{}{aside}", shown(&entry.reason)),
        ]
    }));
    columns(&rows)
}

/// The held files that the command line means. `spelt`: the mount as the user wrote it.
fn choose(
    held: Vec<HeldEntry>,
    which: &RecoverWhich,
    spelt: Option<&Path>,
    mount: &Path,
) -> Result<Vec<HeldEntry>, Failure> {
    if which.all {
        return Ok(held);
    }
    if which.paths.is_empty() && which.id.is_empty() {
        return Err(Failure::refused("which? name held files, or --all"));
    }
    let mut chosen: Vec<HeldEntry> = Vec::new();
    for path in &which.paths {
        let path = within(mount, spelt.unwrap_or(mount), path)?;
        let found: Vec<&HeldEntry> = held.iter().filter(|entry| entry.path == path).collect();
        match found.as_slice() {
            [one] => chosen.push((*one).clone()),
            [] => return Err(nothing_at(&path)),
            several => {
                let ids: Vec<String> = several.iter().map(|entry| entry.id.to_string()).collect();
                return Err(Failure::failed(format!(
                    "several files are held of {}: choose by --id among {}",
                    shown(&path),
                    ids.join(", ")
                )));
            }
        }
    }
    for id in &which.id {
        let found = held.iter().find(|entry| entry.id == *id);
        chosen.push(found.cloned().ok_or_else(|| nothing_at(&format!("number {id}")))?);
    }
    chosen.sort_by_key(|entry| entry.id);
    chosen.dedup_by_key(|entry| entry.id);
    Ok(chosen)
}

fn nothing_at(what: &str) -> Failure {
    Failure::failed(format!("nothing is held at {}: ferryfs recover list shows what is", shown(what)))
}

/// Accepts or discards one after the other; what fails is told, the others go on.
fn settle(client: &Client, chosen: &[HeldEntry], accept: bool) -> Result<(), Failure> {
    let mut failed = 0;
    for entry in chosen {
        match client.settle_held(entry, accept) {
            Ok(()) if accept => print(&format!("{}: accepted, it goes up now\n", shown(&entry.path)))?,
            Ok(()) => print(&format!("{}: discarded\n", shown(&entry.path)))?,
            Err(error) => {
                failed += 1;
                tell(&format!("{}: {error}", shown(&entry.path)));
            }
        }
    }
    left(failed)
}

fn discard(args: &RecoverDiscardArgs) -> Result<(), Failure> {
    let client = Client::find(&args.dir)?;
    let chosen = choose(client.held()?, &args.which, Some(&args.dir), &client.address().mount)?;
    if !args.yes && !chosen.is_empty() && !confirmed(&chosen)? {
        return Err(Failure::failed("nothing was discarded"));
    }
    settle(&client, &chosen, false)
}

/// The held content is nowhere else: a person is asked, a script must say so.
fn confirmed(chosen: &[HeldEntry]) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::refused("discarded content cannot be had back: say --yes (or save it first)"));
    }
    for entry in chosen {
        tell(&format!("{} ({}): {}", shown(&entry.path), ByteSize(entry.size), shown(&entry.reason)));
    }
    let files = count(u64::try_from(chosen.len()).unwrap_or(u64::MAX), "file", "files");
    let mut err = std::io::stderr().lock();
    let asked = write!(err, "Discard the held content of {files}? It cannot be had back. [y/N] ");
    asked.and_then(|()| err.flush()).map_err(|error| Failure::failed(format!("cannot ask: {error}")))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| Failure::failed(format!("no answer: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn save_all(mut args: RecoverSaveArgs) -> Result<(), Failure> {
    if args.config.is_some() {
        // Without a directory the first word is a path like the others.
        args.which.paths.splice(0..0, args.dir.take());
        if args.which.all && !args.which.paths.is_empty() {
            return Err(Failure::refused("--all and a path exclude each other"));
        }
    }
    let mount = match &args.dir {
        Some(dir) => Client::find(dir)?.address().mount.clone(),
        None => PathBuf::from("/"),
    };
    let held = held(args.dir.as_deref(), args.config.as_deref())?;
    let chosen = choose(held, &args.which, args.dir.as_deref(), &mount)?;
    let mut failed = 0;
    for (entry, target) in save::targets(&chosen, &args.to)? {
        match save::copy(entry, &target, args.force) {
            Ok(()) => print(&format!(
                "{}: saved to {}, and still held\n",
                shown(&entry.path),
                shown(&target.display().to_string())
            ))?,
            Err(error) => {
                failed += 1;
                tell(&format!("{}: {error}", shown(&entry.path)));
            }
        }
    }
    left(failed)
}

fn left(failed: u64) -> Result<(), Failure> {
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!("{} left as before", count(failed, "file is", "files are"))))
}

/// A line about one file of several.
fn tell(line: &str) {
    // A closed stderr leaves the exit code to speak.
    let _ = writeln!(std::io::stderr(), "ferryfs: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, path: &str) -> HeldEntry {
        HeldEntry { id, path: path.to_owned(), in_place: true, ..Default::default() }
    }

    fn which(paths: &[&str], id: &[u64], all: bool) -> RecoverWhich {
        RecoverWhich { paths: paths.iter().map(PathBuf::from).collect(), id: id.to_vec(), all }
    }

    #[test]
    fn files_are_chosen_by_path_number_or_all() {
        let held = || vec![entry(5, "/a"), entry(6, "/b"), entry(7, "/b")];
        let mount = Path::new("/mnt/demo");
        let chosen = |which| -> Result<Vec<u64>, u8> {
            let chosen = choose(held(), &which, Some(mount), mount).map_err(|failure| failure.code())?;
            Ok(chosen.iter().map(|entry| entry.id).collect())
        };
        assert_eq!(chosen(which(&["a"], &[], false)), Ok(vec![5]));
        assert_eq!(chosen(which(&["/mnt/demo/a", "a"], &[7], false)), Ok(vec![5, 7]));
        assert_eq!(chosen(which(&[], &[], true)), Ok(vec![5, 6, 7]));
        assert_eq!(chosen(which(&["b"], &[], false)), Err(1), "which of the two?");
        assert_eq!(chosen(which(&["c"], &[], false)), Err(1));
        assert_eq!(chosen(which(&[], &[9], false)), Err(1));
        assert_eq!(chosen(which(&[], &[], false)), Err(2));
    }

    #[test]
    fn the_list_says_what_there_is_to_choose_from() {
        let held = HeldEntry {
            id: 5,
            path: "/report".into(),
            reason: "torn".into(),
            size: 5,
            mtime_ns: 40_000_000_000,
            since_ns: 70_000_000_000,
            bucket: BucketVersion { asked: true, size: Some(7), time_ns: Some(10_000_000_000) },
            ..Default::default()
        };
        let text = table(&[held], Duration::from_secs(100));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ID  HELD     SIZE  CHANGED  IN THE BUCKET  PATH     WHY");
        assert_eq!(
            lines[1],
            "5   30s ago  5 B   1m ago   7 B, 1m ago    /report  torn; kept aside, the path shows what the bucket has"
        );
    }
}
