//! What became of operations that a kill cut, and whether mount and bucket are what they must be.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ferryfs::journal::Journal;

use super::findings::Findings;
use super::findings::Wrong;
use super::model::Content;
use super::model::Model;
use super::model::Node;
use super::model::Op;
use super::world::World;
use super::world::is_there;
use super::world::kind;
use super::world::read;
use crate::harness::Mount;
use crate::harness::Options;
use crate::harness::PATIENCE;
use crate::harness::PREFIX;

/// How long the kernel may show what was discarded: as long as it believes any name.
const INVALIDATED: Duration = Duration::from_secs(10);

/// What became of an operation.
enum Became {
    Nothing,
    All,
    /// The file is held and shows this.
    Torn(Content),
}

/// After a start: which of the operations that were cut have happened, wholly or not at all; files that were
/// being written may be held instead.
pub fn settle(world: &mut World) {
    let torn = world.torn_shown();
    for op in std::mem::take(&mut world.unknown) {
        match became(world, &op, &torn) {
            Ok(Became::Nothing) => {}
            Ok(Became::All) => {
                world.model.apply(&op);
                world.history.note(&op, &world.model);
            }
            Ok(Became::Torn(content)) => world.model.tear(&op, content),
            Err(text) => world.findings.add(Wrong::Torn, format!("{op:?}: {text}")),
        }
    }
    for path in std::mem::take(&mut world.emptied) {
        if torn.contains(&path) && world.model.file(&path).is_some_and(|file| file.content.size() == 0) {
            world.model.file_mut(&path).torn = true;
        }
    }
    let expected: BTreeSet<String> = world.model.torn().cloned().collect();
    for path in torn.difference(&expected) {
        world.findings.add(Wrong::Lost, format!("{path} is held although its close returned"));
    }
    for path in expected.difference(&torn) {
        world.findings.add(Wrong::Torn, format!("{path} was held and is not any more"));
    }
}

fn one(all: bool) -> Became {
    if all { Became::All } else { Became::Nothing }
}

fn became(world: &World, op: &Op, torn: &BTreeSet<String>) -> Result<Became, String> {
    let at = world.path(op.path());
    match op {
        Op::Mkdir { .. } | Op::Symlink { .. } => Ok(one(is_there(&at))),
        Op::Rmdir { .. } | Op::Unlink { .. } => Ok(one(!is_there(&at))),
        Op::Rename { from, .. } => Ok(one(!is_there(&world.path(from)))),
        Op::Chmod { mode, .. } => {
            let shown = fs::symlink_metadata(&at).map_err(|error| error.to_string())?.permissions().mode() & 0o7777;
            Ok(one(shown == *mode))
        }
        Op::Write { path, .. } | Op::Patch { path, .. } | Op::Truncate { path, .. } => {
            let old = world.model.file(path).map(|file| file.content.clone());
            if !is_there(&at) {
                return if old.is_none() { Ok(Became::Nothing) } else { Err("it is gone".to_owned()) };
            }
            let shown = read(&at);
            if torn.contains(path) {
                return held(&world.model, op, old, &shown).map(Became::Torn);
            }
            if old.is_some_and(|old| old.bytes() == shown) {
                return Ok(Became::Nothing);
            }
            let mut after = world.model.clone();
            after.apply(op);
            if after.file(path).is_some_and(|file| file.content.bytes() == shown) {
                return Ok(Became::All);
            }
            Err(format!("{} bytes that are neither before nor after", shown.len()))
        }
    }
}

/// What a held file shows is what its writer had written up to some moment.
fn held(model: &Model, op: &Op, old: Option<Content>, shown: &[u8]) -> Result<Content, String> {
    let size = shown.len() as u64;
    let mut possible: Vec<Content> = old.into_iter().collect();
    match op {
        Op::Patch { at, id, len, .. } => {
            let new = Content::new(*id, *len).bytes();
            let from = usize::try_from(*at).unwrap().min(shown.len());
            let done = shown[from..].iter().zip(&new).take_while(|(shown, new)| shown == new).count() as u64;
            possible.push(model.cut_off(op, size, done));
        }
        _ => possible.push(model.cut_off(op, size, 0)),
    }
    let found = possible.into_iter().find(|content| content.bytes() == shown);
    found.ok_or_else(|| format!("held with {size} bytes that nobody wrote"))
}

/// The tree of a mount is the model's.
pub fn tree(mount: &Mount, model: &Model, findings: &mut Findings) {
    let mut left: BTreeMap<&str, &Node> = model.nodes.iter().map(|(path, node)| (path.as_str(), node)).collect();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        let entries = match fs::read_dir(mount.path(&dir)).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => {
                findings.add(Wrong::Lost, format!("{dir}/ cannot be listed: {error}"));
                continue;
            }
        };
        for entry in entries {
            let name = entry.file_name().into_string().unwrap();
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            match left.remove(path.as_str()) {
                None => findings.add(Wrong::Duplicated, format!("{path} is there and should not be")),
                Some(node) => {
                    if let Err((wrong, text)) = node_is(&entry.path(), node) {
                        findings.add(wrong, format!("{path}: {text}"));
                    }
                    if matches!(node, Node::Dir { .. }) {
                        dirs.push(path);
                    }
                }
            }
        }
    }
    for (path, node) in left {
        findings.add(Wrong::Lost, format!("{path} ({}) is not listed", kind(node)));
    }
}

fn node_is(path: &Path, node: &Node) -> Result<(), (Wrong, String)> {
    let failed = |error: std::io::Error| (Wrong::Lost, error.to_string());
    let meta = fs::symlink_metadata(path).map_err(failed)?;
    let mode = meta.permissions().mode() & 0o7777;
    let wanted = match node {
        Node::Link { target } if meta.is_symlink() => {
            let shown = fs::read_link(path).map_err(failed)?;
            return if shown == Path::new(target) {
                Ok(())
            } else {
                Err((Wrong::Torn, format!("it leads to {}", shown.display())))
            };
        }
        Node::Dir { mode } if meta.is_dir() => *mode,
        Node::File(file) if meta.is_file() => {
            let bytes = fs::read(path).map_err(failed)?;
            if bytes != file.content.bytes() {
                let older = file.closed.iter().rev().skip(1).any(|older| older.bytes() == bytes);
                let wrong = if older { Wrong::Lost } else { Wrong::Torn };
                let sizes = (bytes.len(), file.content.size());
                return Err((wrong, format!("other content (bytes shown, wanted: {sizes:?}; an older: {older})")));
            }
            file.mode
        }
        _ => return Err((Wrong::Torn, format!("it is no {}", kind(node)))),
    };
    if mode == wanted { Ok(()) } else { Err((Wrong::Lost, format!("mode {mode:o} instead of {wanted:o}"))) }
}

/// At the end of a round: the mount, and what the bucket was given so far.
pub fn round(world: &mut World) {
    tree(&world.mount, &world.model, &mut world.findings);
    world.history.judge_stores(&world.cloud, &mut world.findings);
    let status = world.status();
    if status.counters.conflicts + status.counters.corrupt > 0 || status.announcements_failed > 0 {
        world.findings.add(Wrong::Other, format!("nobody else writes, nothing fails: {status:?}"));
    }
}

/// Settles what is held, each in one of the ways there are.
fn settle_held(world: &mut World) {
    let held: Vec<String> = world.model.torn().cloned().collect();
    for path in held {
        match world.random.below(3) {
            0 => {
                fs::remove_file(world.path(&path)).unwrap();
                world.model.nodes.remove(&path);
            }
            1 => {
                world.recover("accept", &path);
                let file = world.model.file_mut(&path);
                file.torn = false;
                file.closed.push(file.content.clone());
                world.settled(&path);
            }
            _ => {
                world.recover("discard", &path);
                // The kernel is told after the command has ended.
                let deadline = Instant::now() + INVALIDATED;
                let older = loop {
                    let at = world.path(&path);
                    if !is_there(&at) {
                        break None;
                    }
                    let shown = fs::read(&at).unwrap_or_default();
                    let closed = &world.model.file_mut(&path).closed;
                    if let Some(older) = closed.iter().rev().find(|older| older.bytes() == shown) {
                        break Some(older.clone());
                    }
                    if Instant::now() > deadline {
                        world.findings.add(Wrong::Torn, format!("{path}: discarded, it shows what it never was"));
                        break None;
                    }
                    thread::sleep(Duration::from_millis(5));
                };
                let Some(older) = older else {
                    world.model.nodes.remove(&path);
                    continue;
                };
                // The bucket's version comes back with the attributes that it has there.
                let mode = fs::metadata(world.path(&path)).unwrap().permissions().mode() & 0o7777;
                let file = world.model.file_mut(&path);
                if file.modes.contains(&mode) {
                    file.mode = mode;
                }
                (file.content, file.torn) = (older, false);
                world.settled(&path);
            }
        }
    }
}

/// Everything is in the bucket, announced and recorded; nothing is left over. Returns the number of objects.
pub fn checkpoint(world: &mut World) -> u64 {
    settle_held(world);
    world.wait();
    let failed = world.status().failed;
    if !failed.is_empty() {
        world.findings.add(Wrong::Other, format!("everything is done, and yet: {failed:?}"));
    }
    let objects = bucket(world);
    space(world);
    round(world);
    objects
}

fn bucket(world: &mut World) -> u64 {
    let objects = world.cloud.objects();
    let mut stored = BTreeMap::new();
    for store in world.cloud.stores() {
        stored.insert((store.key.clone(), store.etag.clone()), store);
    }
    let told = world.cloud.told();
    let recorded: BTreeSet<String> = world.cloud.recorded("success_object").into_iter().collect();
    let World { model, history, findings, .. } = world;
    let mut left: BTreeMap<String, &Node> = BTreeMap::new();
    for (path, node) in &model.nodes {
        let slash = if matches!(node, Node::Dir { .. }) { "/" } else { "" };
        left.insert(format!("{PREFIX}{path}{slash}"), node);
    }
    for object in &objects {
        let key = &object.key.0;
        let Some(node) = left.remove(key) else {
            findings.add(Wrong::Duplicated, format!("{key} is in the bucket and should not be"));
            continue;
        };
        let Some(store) = stored.get(&(key.clone(), object.etag.0.clone())) else {
            findings.add(Wrong::Other, format!("nobody stored {object:?}"));
            continue;
        };
        if history.sum(node).is_some_and(|sum| sum != (store.size, store.crc64)) {
            findings.add(Wrong::Lost, format!("{key} is another version: {store:?}"));
        }
        if !told.iter().any(|told| told.key == *key && told.time_ns >= store.time_ns) {
            findings.add(Wrong::Unannounced, format!("{key}: {store:?}"));
        }
        if !recorded.contains(key) {
            findings.add(Wrong::Unannounced, format!("{key} has no record"));
        }
    }
    for key in left.keys() {
        findings.add(Wrong::Lost, format!("{key} is not in the bucket"));
    }
    for key in world.cloud.recorded("failed_object") {
        world.findings.add(Wrong::Unannounced, format!("{key} is recorded as failed"));
    }
    for key in world.cloud.uploads() {
        world.findings.add(Wrong::Other, format!("an upload of {key} that nobody will complete"));
    }
    objects.len() as u64
}

/// Backing files: number and bytes.
fn backing_files(mount: &Mount) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for place in [mount.state_dir().join("dirty"), mount.cache_dir().join("clean")] {
        for shard in fs::read_dir(place).unwrap() {
            for file in fs::read_dir(shard.unwrap().path()).unwrap().map(Result::unwrap) {
                files.push((file.file_name().into_string().unwrap(), file.metadata().unwrap().len()));
            }
        }
    }
    files.sort();
    files
}

/// What `status` says is kept is what lies on the disk, and no more than the tree has.
fn space(world: &mut World) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The kernel tells of the end of handles after close(2) has returned.
        let files = backing_files(&world.mount);
        let used: u64 = files.iter().map(|(_, size)| size).sum();
        let cache = world.status().cache;
        let most = world.model.nodes.values().filter(|node| matches!(node, Node::File(_))).count();
        if (cache.files, cache.used_bytes) == (files.len() as u64, used) && files.len() <= most {
            return;
        }
        if Instant::now() > deadline {
            let there = (files.len(), used);
            let text = format!("space: {cache:?}, on the disk {there:?} (files, bytes), {most} files in the tree");
            world.findings.add(Wrong::Other, text);
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A host that has never seen the bucket finds the same there.
pub fn elsewhere(world: &mut World, options: &Options) {
    let options = Options { mount: "ro = true".to_owned(), ..options.clone() };
    let mut other = Mount::prepare_for(&world.cloud.service, &options);
    other.remount();
    tree(&other, &world.model, &mut world.findings);
    other.umount();
}

/// Nothing is mounted: every backing file has its row, and every row its file.
pub fn journal(world: &mut World) {
    let journal = Journal::open(&world.mount.state_dir()).unwrap();
    let rows = journal.load().unwrap();
    journal.close().unwrap();
    let mut named: Vec<String> =
        rows.inodes.iter().filter_map(|row| row.backing).map(|backing| format!("{:016x}", backing.0)).collect();
    named.sort();
    let files: Vec<String> = backing_files(&world.mount).into_iter().map(|(name, _)| name).collect();
    if named != files {
        world.findings.add(Wrong::Other, format!("backing files {files:?}, rows name {named:?}"));
    }
    // Attempts of unknown outcome stay for as long as they may arrive late (R1).
    let owed = (rows.removals.len(), rows.announcements.len(), rows.records.len());
    if owed != (0, 0, 0) {
        world.findings.add(Wrong::Other, format!("removals, announcements, records left: {owed:?}"));
    }
}
