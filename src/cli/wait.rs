//! `ferryfs wait`

use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Instant;

use super::Failure;
use super::args::WaitArgs;
use super::output::{print_json, shown};
use super::progress::{POLL, Progress, left};
use crate::control::{Client, Pending};

pub(super) fn run(args: &WaitArgs) -> Result<(), Failure> {
    let client = Client::find(&args.dir)?;
    let path = args.path.as_deref().map(|path| within(&client.address().mount, &args.dir, path)).transpose()?;
    let start = Instant::now();
    let mut progress = Progress::new();
    let pending = loop {
        let pending = client.pending(path.as_deref())?;
        let late = start.elapsed() >= args.timeout;
        if pending.is_settled() || pending.is_stuck() || late {
            break pending;
        }
        progress.show(&pending);
        thread::sleep(POLL.min(args.timeout.saturating_sub(start.elapsed())));
    };
    progress.finish();
    if args.json {
        print_json(&pending)?;
    }
    if pending.is_settled() {
        return Ok(());
    }
    if args.json {
        return Err(Failure::reported());
    }
    Err(Failure::failed(told(&pending)))
}

/// What is left, in lines.
fn told(pending: &Pending) -> String {
    let mut text = format!("not settled: {}", left(pending));
    for waiting in &pending.first {
        text.push_str(&format!("\n  {} waits for its {}", shown(&waiting.path), shown(&waiting.what)));
    }
    for problem in &pending.stuck {
        text.push_str(&format!("\n  {}: {}", shown(&problem.path), shown(&problem.reason)));
    }
    text
}

/// A path as the daemon knows it: absolute within the mount. `path` is relative to the mount, or
/// absolute and below it, by its canonical name or as the user spelt it.
pub(super) fn within(mount: &Path, spelt: &Path, path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(spelt).unwrap_or_else(|_| spelt.to_owned());
    let inner = match [mount, absolute.as_path(), spelt].iter().find_map(|root| path.strip_prefix(root).ok()) {
        Some(inner) => inner,
        None if path.is_relative() => path,
        None => {
            return Err(Failure::refused(format!("{} is not below {}", path.display(), mount.display())));
        }
    };
    let mut plain = PathBuf::from("/");
    for component in inner.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return Err(Failure::refused(format!("{}: write the path without `..`", path.display()))),
        }
    }
    match plain.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Failure::refused(format!("{} is not UTF-8, and so is no object", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Problem, Waiting};

    #[test]
    fn paths_are_taken_into_the_mount() {
        let mount = Path::new("/mnt/demo");
        for (spelt, path) in [
            ("/mnt/demo", "a/b"),
            ("/mnt/demo", "/mnt/demo/a/b"),
            ("/link/demo", "/link/demo/a/b"),
            ("mnt", "mnt/a/b"),
            ("/mnt/demo", "./a/b/"),
        ] {
            assert_eq!(within(mount, Path::new(spelt), Path::new(path)).unwrap(), "/a/b", "{spelt} {path}");
        }
        assert_eq!(within(mount, mount, mount).unwrap(), "/");
        assert_eq!(within(mount, mount, Path::new("/etc/x")).unwrap_err().code(), 2);
        assert_eq!(within(mount, mount, Path::new("a/../b")).unwrap_err().code(), 2);
    }

    #[test]
    fn what_is_left_is_listed() {
        let pending = Pending {
            files: 1,
            bytes: 5,
            first: vec![Waiting { path: "/a".into(), what: "upload".into() }],
            stuck: vec![Problem { path: "/b".into(), reason: "torn".into() }],
            stuck_count: 1,
            ..Default::default()
        };
        let text = told(&pending);
        assert_eq!(text, "not settled: 1 file (5 B) to upload, 1 stuck\n  /a waits for its upload\n  /b: torn");
    }
}
