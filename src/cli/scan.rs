//! `ferryfs recover --scan`

use std::path::Path;

use super::Failure;
use super::output::{columns, count, print, shown};
use crate::config::Config;
use crate::daemon::{self, Scanned};
use crate::types::ByteSize;
use crate::vfs::{Fate, Finding};

pub(super) fn run(config: &Path, dry_run: bool, force: bool) -> Result<(), Failure> {
    let scanned = daemon::scan(&Config::load(config)?, dry_run, force)?;
    print(&text(&scanned, dry_run))
}

fn verb(fate: Fate) -> &'static str {
    match fate {
        Fate::Upload => "upload",
        Fate::Held => "hold",
        Fate::Aside => "aside",
        Fate::Clean => "cached",
        Fate::Dropped => "drop",
        Fate::Unplaced => "left",
    }
}

/// What no file tells of itself (J5).
const UNKNOWN: &str = "not known without the journal, if it had not reached the bucket: renames (a file may be found \
                       under its old name), removals (a file may come back), new directories, links, changes of \
                       attributes, extended attributes; and what was still to be announced\n";

/// What needs somebody's decision, file by file; what does not, in numbers.
fn text(scanned: &Scanned, dry_run: bool) -> String {
    let told = |fate: Fate| !matches!(fate, Fate::Clean | Fate::Dropped);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for finding in scanned.findings.iter().filter(|finding| told(finding.fate)) {
        let Finding { found, path, fate, why, .. } = finding;
        let place = match fate {
            Fate::Unplaced => format!("{} ({})", shown(path), found.path.display()),
            _ => shown(path),
        };
        rows.push(vec![verb(*fate).to_owned(), ByteSize(found.size).to_string(), place, (*why).to_owned()]);
    }
    let number = |fate: Fate| {
        let files = scanned.findings.iter().filter(|finding| finding.fate == fate).count();
        u64::try_from(files).unwrap_or(u64::MAX)
    };
    let mut text = columns(&rows);
    text.push_str(&format!(
        "{} to upload, {} held, {} cached, {} dropped, {} left\n",
        count(number(Fate::Upload), "file", "files"),
        number(Fate::Held) + number(Fate::Aside),
        number(Fate::Clean),
        number(Fate::Dropped),
        number(Fate::Unplaced),
    ));
    text.push_str(UNKNOWN);
    if dry_run {
        text.push_str("dry run: nothing was changed\n");
        return text;
    }
    match &scanned.aside {
        Some(aside) => text.push_str(&format!("the old journal is {}\n", aside.display())),
        None => text.push_str("there was no old journal\n"),
    }
    if number(Fate::Held) + number(Fate::Aside) > 0 {
        text.push_str("mount, then decide what becomes of what is held: ferryfs recover list DIR\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_scan_says_so() {
        let scanned = Scanned { findings: Vec::new(), aside: None };
        let text = text(&scanned, true);
        let counts = "0 files to upload, 0 held, 0 cached, 0 dropped, 0 left\n";
        assert_eq!(text, format!("{counts}{UNKNOWN}dry run: nothing was changed\n"));
    }
}
