//! SIGKILL loses nothing that the journal confirmed, and shows no half of a batch (P1, J1).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use ferryfs::failpoint;
use ferryfs::journal::{AnnouncementRow, AnnouncementState, AttributeRow, Durability, Error, Journal, Op};
use ferryfs::types::{Attrs, ETag, FileKind, Key, TargetId, TimeNs};

/// Set for the child: where its journal is.
const CHILD_DIR: &str = "FERRYFS_TEST_JOURNAL_DIR";

/// One batch, of two tables.
fn batch(seq: u64) -> Vec<Op> {
    let key = Key(format!("key/{seq}"));
    vec![
        Op::PutAnnouncement(AnnouncementRow {
            seq,
            sync: TargetId(1),
            key: key.clone(),
            state: AnnouncementState::Owed,
            attempts: 0,
            error: None,
            owed: TimeNs(0),
        }),
        Op::PutAttribute(AttributeRow {
            target: TargetId(1),
            key,
            etag: ETag(String::new()),
            kind: FileKind::File,
            attrs: Attrs { mode: 0, uid: 0, gid: 0, mtime: TimeNs(0) },
            symlink: None,
            crc64: None,
            xattrs: None,
        }),
    ]
}

/// Writes until it is killed, and prints the number of each batch once it is confirmed.
fn child(dir: &str) -> ! {
    let journal = Journal::open(Path::new(dir)).unwrap();
    let first = journal.load().unwrap().announcements.last().map_or(1, |row| row.seq + 1);
    let mut out = std::io::stdout();
    for seq in first.. {
        // Both kinds of commit.
        let durability = if seq % 50 == 0 { Durability::Disk } else { Durability::Buffered };
        journal.submit(batch(seq), durability).wait().unwrap();
        writeln!(out, "confirmed {seq}").unwrap();
        out.flush().unwrap();
    }
    unreachable!("the numbers do not end");
}

/// A child that runs `test`, which finds [`CHILD_DIR`] set.
fn command(dir: &Path, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(CHILD_DIR, dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// The number that a line of a child's output confirms.
fn confirmed(line: &str) -> Option<u64> {
    line.split_once("confirmed ")?.1.parse().ok()
}

/// Runs a child in `dir`, kills it after `lines` confirmations; returns the last one that it made.
fn run_and_kill(dir: &Path, test: &str, lines: usize) -> u64 {
    let mut child = command(dir, test).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut confirmed = output.lines().map_while(Result::ok).filter_map(|line| confirmed(&line));
    let seen = confirmed.by_ref().take(lines).last();
    child.kill().unwrap();
    // What it confirmed between our decision and its end counts as well.
    let last = confirmed.last().or(seen).expect("the child confirmed something");
    assert!(!child.wait().unwrap().success());
    last
}

#[test]
fn sigkill_loses_nothing_confirmed() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        child(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for lines in [1, 7, 300, 1000, 2500] {
        let confirmed = run_and_kill(dir.path(), "sigkill_loses_nothing_confirmed", lines);
        let journal = Journal::open(dir.path()).unwrap();
        let rows = journal.load().unwrap().announcements;
        let kept = rows.last().unwrap().seq;
        assert!(kept >= confirmed, "confirmed {confirmed}, kept {kept}");
        // One at a time was submitted: at most one more than was confirmed can be there.
        assert!(kept <= confirmed + 1, "confirmed {confirmed}, kept {kept}");
        assert!(confirmed > total, "the child went on where the last one ended");
        let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, (1..=kept).collect::<Vec<_>>());
        let attributes = journal.attributes_under(TargetId(1), "key/").unwrap();
        assert_eq!(attributes.len(), seqs.len(), "half of a batch");
        total = kept;
        journal.close().unwrap();
    }
}

/// Runs a child that ends itself at the 20th hit of a failpoint; returns what it confirmed, and what
/// is there afterwards.
fn run_to(point: &str, test: &str) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path(), test).env("FERRYFS_FAILPOINT", format!("{point}:20")).output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let told = text.lines().filter_map(confirmed).next_back().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    (told, journal.load().unwrap().announcements.last().unwrap().seq)
}

#[test]
fn a_crash_before_or_after_a_commit_shows_none_or_all_of_it() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        child(&dir);
    }
    let test = "a_crash_before_or_after_a_commit_shows_none_or_all_of_it";
    assert_eq!(run_to(failpoint::JOURNAL_BEFORE_COMMIT, test), (19, 19));
    assert_eq!(run_to(failpoint::JOURNAL_AFTER_COMMIT, test), (19, 20));
}

/// Writes until a commit fails for lack of room, then tries what must not work any more.
fn child_until_full(dir: &str) {
    let journal = Journal::open(Path::new(dir)).unwrap();
    let write = |seq| journal.submit(batch(seq), Durability::Buffered).wait();
    let failed = (1..1_000_000).find(|seq| match write(*seq) {
        Ok(()) => {
            println!("confirmed {seq}");
            false
        }
        Err(error) => {
            assert!(matches!(error, Error::Latched(_)), "{error}");
            true
        }
    });
    assert!(matches!(write(failed.unwrap() + 1), Err(Error::Latched(_))));
    assert!(matches!(journal.submit(Vec::new(), Durability::Disk).wait(), Err(Error::Latched(_))));
    assert!(journal.failure().is_some());
    assert!(matches!(journal.close(), Err(Error::Latched(_))));
    println!("latched");
}

#[test]
fn a_full_disk_is_final_and_loses_nothing_confirmed() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        return child_until_full(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "a_full_disk_is_final_and_loses_nothing_confirmed";
    // A limit on the size of files stands in for a full disk: the WAL cannot grow beyond it.
    let inner = command(dir.path(), test);
    let output = Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(CHILD_DIR, dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("latched"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let told = text.lines().filter_map(confirmed).next_back().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let seqs: Vec<u64> = journal.load().unwrap().announcements.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, (1..=told).collect::<Vec<_>>());
    // There is room again: writing goes on.
    journal.submit(batch(told + 1), Durability::Disk).wait().unwrap();
}
