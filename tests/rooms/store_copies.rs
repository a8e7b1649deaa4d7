//! Copies that the store makes (copy_file_range), where the order of calls and steps decides.

use std::time::Duration;

use ferryfs::emulator::{Action, Fault, Match};
use ferryfs::types::Ino;
use ferryfs::vfs::{FsyncPolicy, Place};

use crate::world::{BUCKET, Options, PREFIX, ROOT, World};

/// Beyond what is fetched whole when it is opened.
const SIZE: usize = 2 << 20;

fn content(seed: usize) -> Vec<u8> {
    (0..SIZE).map(|at| ((at * 7 + at / 251 + seed) % 253) as u8).collect()
}

async fn with_source(options: Options) -> World {
    let world = World::with_objects(options, &[("from", &content(1))]).await;
    world.rooms.names(ROOT).await;
    world
}

/// What `cp` does before it closes the new file.
async fn begin_copy(world: &World, from: &str, to: &str) -> (Ino, u64) {
    let source = world.rooms.open_file(ROOT, from, libc::O_RDONLY).await;
    let target = match world.rooms.lookup(ROOT, to).await {
        Some(_) => world.rooms.open_file(ROOT, to, libc::O_WRONLY | libc::O_TRUNC).await,
        None => world.rooms.create(ROOT, to).await,
    };
    let place = |(ino, fh): (Ino, u64)| Place { ino, fh, offset: 0 };
    let copied = world.rooms.vfs.copy_file_range(place(source), place(target), SIZE as u64).await.unwrap();
    assert_eq!(copied as usize, SIZE);
    world.rooms.vfs.release(source.0, source.1).await;
    target
}

async fn cp(world: &World, from: &str, to: &str) -> Ino {
    let target = begin_copy(world, from, to).await;
    world.rooms.close_file(target).await;
    target.0
}

/// Copies to this key are refused until the faults are cleared.
fn hold(world: &World, name: &str) {
    let matching = Match {
        method: Some("PUT".to_owned()),
        key: Some(format!("{PREFIX}{name}")),
        sub_resource: Some("copy".to_owned()),
        ..Match::default()
    };
    let refused = Action::Status { status: 503, code: "SlowDown".to_owned(), retry_after: None };
    world.emulator.add_fault(Fault { count: u32::MAX, ..Fault::new(matching, refused) });
}

fn fetched(world: &World) -> u64 {
    let requests = world.emulator.requests();
    let of_objects = requests.iter().filter(|one| one.method == "GET" && !one.key.is_empty());
    of_objects.map(|one| one.response_bytes).sum()
}

fn replaced_elsewhere(world: &World) {
    world.emulator.put_object(BUCKET, &format!("{PREFIX}from"), &content(9)).unwrap();
}

async fn fsync(world: &World, (ino, fh): (Ino, u64)) -> Result<(), ferryfs::vfs::Error> {
    tokio::time::timeout(Duration::from_secs(60), world.rooms.vfs.fsync(ino, fh, false)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_fsync_of_a_copy_leaves_nothing_at_anothers_key_only() {
    // Open: what it is a copy of is fetched.
    let world = with_source(Options::default()).await;
    hold(&world, "open");
    let open = begin_copy(&world, "from", "open").await;
    assert_eq!(fetched(&world), 0);
    fsync(&world, open).await.unwrap();
    replaced_elsewhere(&world);
    world.rooms.close_file(open).await;
    world.settled().await;
    assert!(world.object("open").unwrap() == content(1), "another host's version");
    world.close().await;

    // Closed: the store has made the copy, whatever the delay, and after it has failed at first.
    let world = with_source(Options { delay: Duration::from_secs(3600), ..Options::default() }).await;
    hold(&world, "closed");
    cp(&world, "from", "closed").await;
    world.until("the store refuses", |world| world.count("PUT", "closed") > 0).await;
    let closed = world.rooms.open_file(ROOT, "closed", libc::O_RDONLY).await;
    let (answer, ()) = tokio::join!(fsync(&world, closed), async {
        let refused = world.count("PUT", "closed");
        world.until("it is asked again", |world| world.count("PUT", "closed") > refused).await;
        world.emulator.clear_faults();
    });
    answer.unwrap();
    assert!(world.object("closed").unwrap() == content(1));
    replaced_elsewhere(&world);
    assert_eq!(fetched(&world), 0);
    world.rooms.vfs.release(closed.0, closed.1).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_fsync_of_a_copy_fails_if_its_content_is_gone() {
    let world = with_source(Options::default()).await;
    for name in ["closed", "open"] {
        hold(&world, name);
    }
    cp(&world, "from", "closed").await;
    let open = begin_copy(&world, "from", "open").await;
    replaced_elsewhere(&world);
    let closed = world.rooms.open_file(ROOT, "closed", libc::O_RDONLY).await;
    for handle in [open, closed] {
        let error = fsync(&world, handle).await.unwrap_err();
        eprintln!("{error}");
        world.rooms.vfs.release(handle.0, handle.1).await;
    }
    assert!(world.object("open").is_none() && world.object("closed").is_none());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_made_without_the_delay_of_writes() {
    let world = with_source(Options { delay: Duration::from_secs(3600), ..Options::default() }).await;
    cp(&world, "from", "copy").await;
    world.until("the copy is made", |world| world.object("copy").is_some_and(|bytes| bytes == content(1))).await;
    assert_eq!(fetched(&world), 0);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_into_a_copy_is_not_undone_by_the_copy() {
    let world = with_source(Options { fsync: FsyncPolicy::Remote, ..Options::default() }).await;
    hold(&world, "copy");
    let ino = cp(&world, "from", "copy").await;
    // All of it is here, and the store has not made the copy.
    let (reader, fh) = world.rooms.open_file(ROOT, "copy", libc::O_RDONLY).await;
    for at in [0, 1 << 20] {
        let bytes = world.rooms.vfs.read(reader, fh, at, 1 << 20).await.unwrap();
        assert!(bytes[..] == content(1)[at as usize..][..1 << 20]);
    }
    world.rooms.vfs.release(reader, fh).await;
    let is_clean = |world: &World| {
        let clean = ferryfs::journal::Content::Clean;
        world.rooms.namespace.read(|tree| tree.get(ino).unwrap().row.content == clean)
    };
    world.until("it is cached", is_clean).await;
    let writer = world.rooms.open_file(ROOT, "copy", libc::O_WRONLY).await;
    world.emulator.clear_faults();
    world.rooms.append(writer, 0, b"written").await;
    // It goes up while it is open.
    fsync(&world, writer).await.unwrap();
    let mut written = content(1);
    written[..7].copy_from_slice(b"written");
    assert!(world.object("copy").unwrap() == written);
    world.rooms.close_file(writer).await;
    world.settled().await;
    assert!(world.object("copy").unwrap() == written, "the old content came back");
    let world = world.restart().await;
    world.settled().await;
    assert!(world.object("copy").unwrap() == written, "the old content came back at the start");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_over_a_file_whose_upload_arrives_late_is_not_lost() {
    let world = with_source(Options { late: Duration::from_secs(5), ..Options::default() }).await;
    // Of a first version the late request would be refused.
    world.rooms.write(ROOT, "to", b"first").await;
    world.settled().await;
    let puts = world.count("PUT", "to");
    let matching = Match { method: Some("PUT".to_owned()), key: Some(format!("{PREFIX}to")), ..Match::default() };
    world.emulator.add_fault(Fault { apply_after_ms: Some(3000), ..Fault::new(matching, Action::ApplyThenCut) });
    // Its upload is under way, unheard of.
    world.rooms.write(ROOT, "to", b"old").await;
    world.until("the upload is lost", |world| world.count("PUT", "to") > puts).await;
    let arrived = std::time::Instant::now() + Duration::from_secs(3);
    cp(&world, "from", "to").await;
    // Nobody needs it any more, as far as is known.
    world.rooms.unlink(ROOT, "from").await;
    world.until("the late upload has arrived", |_| std::time::Instant::now() > arrived).await;
    world.until("the copy stands there", |world| world.object("to").is_some_and(|there| there == content(1))).await;
    world.settled().await;
    assert!(world.object("to").unwrap() == content(1), "the late upload is what is left");
    assert_eq!(world.keys(), ["to"]);
    world.close().await;
}
