//! Programs that know nothing of buckets, unmodified, on a mount. What counts is what they leave: in the
//! mount, in the bucket, and for a host that never saw the files.

#[path = "../harness/mod.rs"]
mod harness;

mod builds;
mod databases;
mod durable;
mod editors;
mod job;
mod locks;
mod peers;
mod spaces;
mod streams;
mod trees;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ferryfs::checksum::crc64;

use harness::{Cloud, Mount, Options, PREFIX, shown, until};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(400);

/// A test as it is with and without passthrough.
fn both(change: impl Fn(&mut Options), test: impl Fn(&Cloud, &mut Mount)) {
    for passthrough in [true, false] {
        eprintln!("passthrough: {passthrough}");
        let mut options = Options { passthrough, ..Options::default() };
        change(&mut options);
        one(options, &test);
    }
}

/// A test with these options.
fn one(options: Options, test: impl Fn(&Cloud, &mut Mount)) {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, options);
    test(&cloud, &mut mount);
    assert_eq!(mount.status().journal_failure, None);
    mount.umount();
}

/// A program that is ended if it hangs, in a directory, without what the machine's user has configured.
fn program(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=5").arg("300").args(words).current_dir(dir);
    command.env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "A").env(format!("GIT_{role}_EMAIL"), "a@example.com");
    }
    command.stdin(std::process::Stdio::null());
    command
}

/// What a command that must succeed prints.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What a script for sh(1) prints, each of whose commands must succeed.
#[track_caller]
fn sh(dir: &Path, script: &str) -> String {
    output(&mut program(dir, &["sh", "-euc", script]))
}

/// What a Python program prints.
#[track_caller]
fn python(dir: &Path, script: &str) -> String {
    output(&mut program(dir, &["python3", "-c", script]))
}

/// What a path holds, as far as a bucket can keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    Dir { mode: u32 },
    File { mode: u32, uid: u32, size: u64, crc64: u64, mtime: (i64, i64) },
    Link(String),
}

/// Everything below a directory, by path.
type Tree = BTreeMap<String, Shown>;

fn shown_at(path: &Path) -> Shown {
    let stat = fs::symlink_metadata(path).unwrap();
    let mode = stat.mode() & 0o7777;
    if stat.is_symlink() {
        return Shown::Link(fs::read_link(path).unwrap().to_str().unwrap().to_owned());
    }
    if stat.is_dir() {
        return Shown::Dir { mode };
    }
    let bytes = fs::read(path).unwrap();
    let size = bytes.len() as u64;
    assert_eq!(stat.len(), size, "size of {}", path.display());
    Shown::File { mode, uid: stat.uid(), size, crc64: crc64(&bytes).0, mtime: (stat.mtime(), stat.mtime_nsec()) }
}

fn tree(dir: &Path) -> Tree {
    fn walk(top: &Path, dir: &Path, found: &mut Tree) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let shown = shown_at(&path);
            let is_dir = matches!(shown, Shown::Dir { .. });
            found.insert(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned(), shown);
            if is_dir {
                walk(top, &path, found);
            }
        }
    }
    let mut found = Tree::new();
    walk(dir, dir, &mut found);
    found
}

/// What the mount shows is what the bucket holds, no more and no less, all of it announced; and what a
/// mount without cache and journal shows. Returns it.
#[track_caller]
fn settles(cloud: &Cloud, mount: &mut Mount) -> Tree {
    let before = tree(mount.dir());
    let waited = mount.try_wait("", LONG);
    assert!(waited.status.success(), "wait: {}", shown(&waited));
    let mut wanted = BTreeSet::new();
    for (path, shown) in &before {
        let key = format!("{PREFIX}{path}");
        match shown {
            Shown::Dir { .. } => wanted.insert(format!("{key}/")),
            Shown::Link(target) => {
                cloud.holds(&key, target.as_bytes());
                wanted.insert(key)
            }
            Shown::File { size, crc64: sum, .. } => {
                let bytes = cloud.bytes(&key).unwrap_or_else(|| panic!("{key} is not in the bucket"));
                assert_eq!((bytes.len() as u64, crc64(&bytes).0), (*size, *sum), "{key}");
                wanted.insert(key)
            }
        };
    }
    assert_eq!(cloud.keys().into_iter().collect::<BTreeSet<_>>(), wanted, "keys of the bucket");
    let told: BTreeSet<String> = cloud.announced().into_iter().collect();
    let untold: Vec<_> = wanted.difference(&told).collect();
    assert!(untold.is_empty(), "never announced: {untold:?}");

    mount.forget_all();
    for (path, shown) in &before {
        let path = mount.path(path);
        // Attributes arrive after the names.
        until(&format!("{} as it was: {shown:?}", path.display()), || {
            fs::symlink_metadata(&path).is_ok() && shown_at(&path) == *shown
        });
    }
    let after: BTreeSet<String> = tree(mount.dir()).into_keys().collect();
    assert_eq!(after, before.keys().cloned().collect::<BTreeSet<_>>(), "names for a host that never saw them");
    before
}
