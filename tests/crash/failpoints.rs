//! The daemon ends at every named moment in turn; the next one goes on from there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Write as _;

use ferryfs::disk;
use ferryfs::failpoint;

use crate::harness::{BUCKET, Cloud, Mount, Options, close, pattern, until};

/// Something a program does. Done again after a restart it ends the same.
enum Act {
    Write(&'static str, Vec<u8>),
    Mkdir(&'static str),
    Rename(&'static str, &'static str),
    Unlink(&'static str),
    /// Until the bucket has it.
    Await(&'static str),
}

impl Act {
    fn run(&self, mount: &Mount, cloud: &Cloud, key: impl Fn(&str) -> String) -> io::Result<()> {
        match self {
            Act::Write(name, bytes) => write(mount, name, bytes),
            Act::Mkdir(name) => fs::create_dir(mount.path(name)).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            }),
            Act::Rename(from, to) => fs::rename(mount.path(from), mount.path(to)).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound if mount.path(to).exists() => Ok(()),
                _ => Err(error),
            }),
            Act::Unlink(name) => fs::remove_file(mount.path(name)).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
            Act::Await(name) => {
                let mut alive = Ok(());
                until("it is in the bucket, or the daemon has ended", || {
                    alive = disk::statvfs(mount.dir()).map(|_| ());
                    alive.is_err() || cloud.object(&key(name)).is_some()
                });
                alive
            }
        }
    }
}

/// Not `fs::write`, which does not tell of an error of close(2).
fn write(mount: &Mount, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(mount.path(name))?;
    file.write_all(bytes)?;
    close(file)
}

fn acts() -> Vec<Act> {
    let small = |seed| pattern(seed, 5000);
    vec![
        Act::Mkdir("dir"),
        Act::Write("dir/large", pattern(1, 2_600_000)),
        Act::Write("rewritten", small(2)),
        Act::Write("moved", small(3)),
        Act::Write("unlinked", small(4)),
        Act::Write("once", small(5)),
        Act::Await("rewritten"),
        Act::Await("moved"),
        Act::Await("unlinked"),
        Act::Await("once"),
        Act::Await("dir/large"),
        Act::Write("tree/ours", small(8)),
        Act::Await("tree/ours"),
        Act::Write("rewritten", small(6)),
        Act::Rename("moved", "dir/moved"),
        Act::Rename("tree", "grown"),
        Act::Unlink("unlinked"),
        Act::Write("dir/last", small(7)),
    ]
}

fn end() -> BTreeMap<&'static str, Vec<u8>> {
    let small = |seed| pattern(seed, 5000);
    let large = pattern(1, 2_600_000);
    [("dir/", vec![]), ("dir/large", large), ("rewritten", small(6)), ("dir/moved", small(3)), ("once", small(5))]
        .into_iter()
        .chain([("dir/last", small(7)), ("grown/ours", small(8))])
        .chain(THEIRS.iter().map(|name| (*name, b"theirs".to_vec())))
        .collect()
}

/// What the renamed directory brings along that the mount has never seen, by its names afterwards.
const THEIRS: [&str; 3] = ["grown/deep/one", "grown/deep/two", "grown/three"];

/// Runs the acts with the daemon ending at `point`, goes on with another daemon, and looks.
fn survives(cloud: &Cloud, point: &str) {
    let prefix: &'static str = Box::leak(format!("{}/", point.replace(':', "-")).into_boxed_str());
    let key = |name: &str| format!("{prefix}{name}");
    let write_back = "threshold = \"1MiB\"".to_owned();
    let options = Options { mappings: vec![("/", prefix)], write_back, ..Options::default() };
    for name in THEIRS {
        cloud.put(&key(&name.replace("grown", "tree")), b"theirs");
    }
    let mut mount = Mount::prepare(cloud, &options);
    mount.env.push(("FERRYFS_FAILPOINT", point.to_owned()));
    mount.remount();
    let acts = acts();
    let done = acts.iter().take_while(|act| act.run(&mount, cloud, key).is_ok()).count();
    mount.wait_for_death();
    mount.env.clear();
    mount.remount();
    for act in &acts[done..] {
        act.run(&mount, cloud, key).unwrap();
    }
    mount.wait_all();
    let status = mount.status();
    assert!(status.torn.is_empty() && status.failed.is_empty(), "{point}: {status:?}");
    let end = end();
    let mut keys = cloud.keys();
    keys.retain(|key| key.starts_with(prefix));
    let mut wanted: Vec<String> = end.keys().map(|name| key(name)).collect();
    wanted.sort();
    assert_eq!(keys, wanted, "{point}");
    let events = cloud.emulator().oms_events();
    let mut requests = cloud.emulator().requests();
    requests.retain(|request| request.bucket == BUCKET && ["PUT", "POST"].contains(&request.method.as_str()));
    let recorded = cloud.recorded("success_object");
    for (name, bytes) in &end {
        cloud.holds(&key(name), bytes);
        let stored = cloud.object(&key(name)).unwrap().modified_ns();
        let told = events.iter().any(|event| event.key == key(name) && event.time_ns >= stored);
        assert!(told, "{point}: {name} is not announced");
        assert!(recorded.contains(&key(name)), "{point}: {name} has no record");
    }
    for event in events.iter().filter(|event| event.key.starts_with(prefix)) {
        let there = requests.iter().any(|sent| sent.key == event.key && sent.time_ns < event.time_ns);
        assert!(there, "{point}: {} was announced before it was there", event.key);
    }
    assert!(!recorded.contains(&key(".ferryfs-moving")), "{point}");
    let uploads = cloud.emulator().uploads(BUCKET);
    assert_eq!(uploads, [], "{point}: uploads that nobody will complete");
    // What arrived is found and not sent again. Only a request that the kill cut, and that the store still
    // worked on when the next daemon looked for it, may be stored beside its successor (R1).
    let mut stores = cloud.emulator().stores();
    stores.retain(|store| store.bucket == BUCKET && store.key == key("once"));
    let log = cloud.requests("PUT", &key("once"));
    let cut = log.iter().filter(|request| request.status == 0).count();
    // Its closed content was on record, and the program, which was not told, wrote it once more.
    let rewritten = usize::from(matches!(acts.get(done), Some(Act::Write("once", _))));
    assert!((1..=1 + cut + rewritten).contains(&stores.len()), "{point}: stored {} times: {log:?}", stores.len());
    mount.umount();
}

#[test]
fn every_named_moment_is_survived() {
    let cloud = Cloud::start();
    let points: Vec<String> = failpoint::ALL
        .iter()
        // Those of `ferryfs recover` have tests of their own in recover.rs and scan.rs.
        .filter(|name| !["accept-", "discard-", "rename-", "scan-"].iter().any(|verb| name.starts_with(verb)))
        .flat_map(|name| match *name {
            // The first commits are those of the mount itself.
            failpoint::JOURNAL_BEFORE_COMMIT | failpoint::JOURNAL_AFTER_COMMIT => {
                vec![format!("{name}:20"), format!("{name}:33"), format!("{name}:46")]
            }
            failpoint::UPLOAD_BEFORE_PUT | failpoint::UPLOAD_AFTER_PUT => vec![name.to_string(), format!("{name}:4")],
            failpoint::UPLOAD_AFTER_PART => vec![format!("{name}:2")],
            _ => vec![name.to_string()],
        })
        .collect();
    for point in &points {
        println!("{point}");
        survives(&cloud, point);
    }
    assert_eq!(cloud.recorded("failed_object"), [""; 0]);
}
