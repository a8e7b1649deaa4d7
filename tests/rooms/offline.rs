//! The network goes, by refusals or in silence, and comes back (P7).

use std::future::Future;
use std::time::{Duration, Instant};

use ferryfs::clock::{Clock, ManualClock, SystemClock};
use ferryfs::emulator::{Action, Fault, Match, Side};
use ferryfs::store::{CosOptions, Credentials, RetryOptions};
use ferryfs::vfs::{Error, Result, SetAttr, Vfs};

use crate::moves::dir;
use crate::world::{BUCKET, CALLER, Options, PREFIX, ROOT, World};

/// Larger than what is fetched whole.
const LARGE: usize = 3 << 20;
/// What a busy machine may add to a time.
const SLACK: Duration = Duration::from_secs(3);

/// A client that gives up as the usual one does, some four hundred times as soon.
fn hasty() -> Options {
    let retry = RetryOptions { base: Duration::from_millis(1), total: Duration::from_millis(300), ..usual().retry };
    Options { retry, request_timeout: Duration::from_millis(150), ..Options::default() }
}

fn usual() -> CosOptions {
    CosOptions::new(BUCKET, "ap-guangzhou", Credentials::new("id", "key", None).into())
}

/// Every request to the bucket meets it.
fn all_meet(world: &World, action: Action) {
    world.emulator.add_fault(Fault { count: u32::MAX, ..Fault::new(Match::default(), action) });
}

/// Requests of programs: probes of the bucket itself are not.
fn asked(world: &World) -> usize {
    world.emulator.requests().iter().filter(|one| !one.sub_resource.contains(&"bucket".to_owned())).count()
}

/// In a world whose store has just fallen silent, `call` fails within the bound, and at once when it is
/// repeated: nothing is asked again before a probe succeeds.
async fn gives_up<T: std::fmt::Debug, F: Future<Output = Result<T>>>(
    what: &str,
    prepare: impl AsyncFnOnce(&World) -> (ferryfs::types::Ino, u64),
    call: impl Fn(Vfs, ferryfs::types::Ino, u64) -> F,
) {
    let large = vec![7; LARGE];
    let objects: &[(&str, &[u8])] = &[("small", b"small"), ("large", &large), ("dir/x", b"x"), ("dir/y", b"y")];
    let options = hasty();
    let bound = options.retry.total + options.request_timeout;
    let world = World::with_objects(options, objects).await;
    let (ino, fh) = prepare(&world).await;
    all_meet(&world, Action::Delay(600_000));
    let began = Instant::now();
    let error = call(world.rooms.vfs.clone(), ino, fh).await.unwrap_err();
    assert!(matches!(error.first(), Error::Offline), "{what}: {error:?}");
    assert!(began.elapsed() <= bound + SLACK, "{what} failed after {:?}", began.elapsed());
    let before = asked(&world);
    let error = call(world.rooms.vfs.clone(), ino, fh).await.unwrap_err();
    assert!(matches!(error.first(), Error::Offline), "{what}: {error:?}");
    assert_eq!(asked(&world), before, "{what} asks a store that is known to be silent");
    world.emulator.clear_faults();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = call(world.rooms.vfs.clone(), ino, fh).await {
        assert!(matches!(error.first(), Error::Offline), "{what}: {error:?}");
        assert!(Instant::now() < deadline, "{what} still fails");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.close().await;
}

/// The figure of SEMANTICS.md is the usual client's: no attempt begins later than `total` after the first, and none
/// lasts longer than `request_timeout` without an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_need_a_silent_store_fail_within_a_bound_and_then_at_once() {
    assert_eq!(usual().retry.total + usual().request_timeout, Duration::from_secs(180));
    let unlisted = async |world: &World| (dir(world, "dir").await, 0);
    let small = async |world: &World| (world.rooms.lookup(ROOT, "small").await.unwrap(), 0);
    let large = async |world: &World| world.rooms.open_file(ROOT, "large", libc::O_RDONLY).await;
    tokio::join!(
        gives_up("a look-up", unlisted, async |vfs: Vfs, dir, _| vfs.lookup(dir, "x".as_ref(), CALLER).await),
        gives_up("a listing", unlisted, async |vfs: Vfs, dir, _| vfs.opendir(dir, CALLER).await),
        gives_up("an open", small, async |vfs: Vfs, ino, _| vfs.open(ino, libc::O_RDONLY, CALLER).await),
        gives_up("a read", large, async |vfs: Vfs, ino, fh| vfs.read(ino, fh, 2 << 20, 4096).await),
        gives_up("a truncation", small, async |vfs: Vfs, ino, _| {
            vfs.setattr(ino, None, SetAttr { size: Some(2), ..SetAttr::default() }, CALLER).await
        }),
        gives_up("an attribute", small, async |vfs: Vfs, ino, _| {
            vfs.setxattr(ino, "user.name".as_ref(), b"value", 0).await
        }),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_network_what_is_here_is_usable_and_all_catches_up() {
    const FILE: usize = 1 << 20;
    const LIMIT: usize = 8 * FILE;
    let clock = ManualClock::new(SystemClock.now());
    let options =
        Options { clock: Some(clock.clone()), limit: LIMIT as u64, attr_ttl: Duration::from_secs(10), ..hasty() };
    let objects: &[(&str, &[u8])] = &[("there", b"there"), ("unseen/x", b"x")];
    let world = World::with_objects(options, objects).await;
    let rooms = &world.rooms;
    for name in ["cached", "moved", "removed"] {
        rooms.write(ROOT, name, name.as_bytes()).await;
    }
    world.settled().await;
    assert_eq!(rooms.names(ROOT).await, ["cached", "moved", "removed", "there", "unseen"]);
    let there = rooms.lookup(ROOT, "there").await.unwrap();
    let unseen = dir(&world, "unseen").await;

    all_meet(&world, Action::Cut { after: 0, side: Side::Request });
    world.emulator.clear_log();
    // Whatever was believed is so no longer.
    clock.advance(Duration::from_secs(11));
    assert_eq!(rooms.read(ROOT, "cached").await, b"cached");
    assert!(matches!(rooms.vfs.open(there, libc::O_RDONLY, CALLER).await.unwrap_err().first(), Error::Offline));
    assert!(matches!(rooms.vfs.opendir(unseen, CALLER).await, Err(Error::Offline)));
    assert!(matches!(rooms.vfs.lookup(unseen, "y".as_ref(), CALLER).await, Err(Error::Offline)), "it may be there");
    assert_eq!(rooms.names(ROOT).await, ["cached", "moved", "removed", "there", "unseen"]);
    rooms.write(ROOT, "cached", b"written anew").await;
    assert_eq!(rooms.read(ROOT, "cached").await, b"written anew");
    rooms.rename((ROOT, "moved"), (ROOT, "elsewhere")).await;
    rooms.unlink(ROOT, "removed").await;
    let made = rooms.mkdir(ROOT, "made").await;
    // Who wants room is held back while some may be made; here nothing makes it but time.
    let passing = tokio::spawn({
        let clock = clock.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                clock.advance(Duration::from_secs(1));
            }
        }
    });
    let mut written = Vec::new();
    loop {
        let name = format!("file{}", written.len());
        let (entry, opened) = match rooms.vfs.create(made, name.as_ref(), 0o644, 0, libc::O_WRONLY, CALLER).await {
            Ok(made) => made,
            Err(Error::NoSpace) => break,
            Err(error) => panic!("{name}: {error}"),
        };
        let bytes = vec![written.len() as u8; FILE];
        let taken = rooms.vfs.write(entry.stat.ino, opened.fh, 0, bytes.clone().into(), false).await;
        rooms.close_file((entry.stat.ino, opened.fh)).await;
        match taken {
            Ok(_) => written.push((format!("made/{name}"), bytes)),
            Err(Error::NoSpace) => {
                rooms.unlink(made, &name).await;
                break;
            }
            Err(error) => panic!("{name}: {error}"),
        }
        assert!(written.len() < 20, "nothing stops it");
    }
    // The small files take a little of it.
    assert_eq!(written.len(), LIMIT / FILE - 1, "accepted up to the limit");
    assert_eq!(rooms.read(ROOT, "cached").await, b"written anew", "what is in no bucket stays");
    assert_eq!(world.emulator.stores(), []);

    world.emulator.clear_faults();
    let online =
        |world: &World| world.rooms.namespace.read(|tree| tree.mappings().iter().all(|mapping| !mapping.is_offline()));
    world.until("a probe finds the store", online).await;
    world.settled().await;
    let mut wanted: Vec<(String, Vec<u8>)> = written;
    wanted.push(("cached".to_owned(), b"written anew".to_vec()));
    wanted.push(("elsewhere".to_owned(), b"moved".to_vec()));
    wanted.push(("made/".to_owned(), Vec::new()));
    for (name, bytes) in &wanted {
        assert!(world.object(name).unwrap() == *bytes, "{name}");
        let key = format!("{PREFIX}{name}");
        assert_eq!(world.emulator.stores().iter().filter(|store| store.key == key).count(), 1, "{name} once");
    }
    assert_eq!(world.emulator.stores().len(), wanted.len(), "nothing else: {:?}", world.emulator.stores());
    wanted.extend([("there".to_owned(), Vec::new()), ("unseen/x".to_owned(), Vec::new())]);
    let mut keys: Vec<String> = wanted.into_iter().map(|(name, _)| name).collect();
    keys.sort();
    assert_eq!(world.keys(), keys);
    let looked = |world: &World| {
        // The worker sleeps by the system's clock.
        world.rooms.uploader.hurry();
        world.rooms.namespace.read(|tree| tree.inodes().all(|inode| inode.row.recheck_at.is_none()))
    };
    // What may have arrived late is looked at again before it is evicted (R1).
    world.until("what was cut off has had its second look", looked).await;
    assert_eq!(rooms.read(ROOT, "there").await, b"there");
    rooms.write(ROOT, "after", b"room again").await;
    passing.abort();
    world.close().await;
}
