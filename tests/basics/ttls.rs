//! How long the kernel believes what it was told: counted by the requests that reach the daemon.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use ferryfs::emulator::Action;

use super::both;
use super::harness::{Mount, until};

/// Requests for names and attributes so far.
fn asked(mount: &Mount) -> u64 {
    let requests = mount.status().requests;
    ["lookup", "getattr"].iter().filter_map(|name| requests.get(*name)).sum()
}

/// Looks again and again for so long; requests that this cost, and how many looks it was.
fn look(mount: &Mount, name: &str, during: Duration) -> (u64, u64) {
    let path = mount.path(name);
    fs::metadata(&path).unwrap();
    let before = asked(mount);
    let (start, mut looks) = (Instant::now(), 0);
    while start.elapsed() < during {
        for _ in 0..100 {
            fs::metadata(&path).unwrap();
        }
        looks += 100;
    }
    (asked(mount) - before, looks)
}

/// What a look may cost in so many seconds: a name and its attributes, each time that they are no longer believed; and
/// what the question itself costs, which looks at the mount's directory.
fn allowed(during: Duration, ttl: Duration) -> u64 {
    2 * (1 + during.as_millis().div_ceil(ttl.as_millis()) as u64) + 2
}

#[test]
fn the_kernel_asks_once_in_attr_ttl_for_what_it_was_told() {
    const TTL: Duration = Duration::from_secs(1);
    const DURING: Duration = Duration::from_millis(2500);
    both(
        |options| options.attr_ttl = "1s",
        |cloud, mount| {
            let refused = Action::Status { status: 503, code: "SlowDown".to_owned(), retry_after: None };
            cloud.fault("PUT", "object", "data/pending", refused, u32::MAX);
            fs::write(mount.path("clean"), "clean").unwrap();
            mount.wait("clean");
            fs::write(mount.path("pending"), "pending").unwrap();
            let mut open = File::create(mount.path("open")).unwrap();
            open.write_all(b"open").unwrap();
            for name in ["clean", "pending", "open"] {
                let (requests, looks) = look(mount, name, DURING);
                eprintln!("{name}: {requests} requests for {looks} looks");
                assert!(looks > 1000, "{looks} looks");
                assert!(
                    (1..=allowed(DURING, TTL)).contains(&requests),
                    "{name}: {requests} requests for {looks} looks"
                );
            }
            assert!(cloud.object("data/pending").is_none());
            drop(open);
            cloud.emulator().clear_faults();
            mount.wait_all();
        },
    );
    both(
        |options| {
            options.attr_ttl = "1s";
            options.mapping = "exclusive = true".to_owned();
        },
        |_, mount| {
            fs::write(mount.path("clean"), "clean").unwrap();
            mount.wait("clean");
            let (requests, looks) = look(mount, "clean", DURING);
            eprintln!("exclusive: {requests} requests for {looks} looks");
            // The question's own.
            assert!(requests <= 2, "{requests} requests for {looks} looks");
        },
    );
}

#[test]
fn what_settles_under_constant_looks_shows_another_hosts_change_within_attr_ttl() {
    const TTL: Duration = Duration::from_secs(2);
    /// For a busy machine.
    const SLACK: Duration = Duration::from_secs(2);
    both(
        |options| options.attr_ttl = "2s",
        |cloud, mount| {
            for round in 0..3 {
                let (name, theirs) = (format!("file{round}"), format!("theirs, longer than ours: {round}"));
                fs::write(mount.path(&name), "ours").unwrap();
                // Believed while it is pending, and looked at without a pause from then on.
                let key = format!("data/{name}");
                until("it is in the bucket", || {
                    fs::metadata(mount.path(&name)).unwrap();
                    cloud.object(&key).is_some()
                });
                mount.wait(&name);
                cloud.put(&key, theirs.as_bytes());
                let start = Instant::now();
                until("the change is seen", || fs::metadata(mount.path(&name)).unwrap().len() == theirs.len() as u64);
                assert!(start.elapsed() <= TTL + SLACK, "after {:?}", start.elapsed());
                assert_eq!(fs::read(mount.path(&name)).unwrap(), theirs.as_bytes());
            }
        },
    );
}
