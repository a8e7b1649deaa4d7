//! `fsync = "remote"` of directories, whose calls wait for the bucket (P1).

use std::future::Future;
use std::time::Duration;

use ferryfs::clock::{Clock, ManualClock, SystemClock};
use ferryfs::types::Ino;
use ferryfs::upload::{Cause, NotUploaded};
use ferryfs::vfs::{Error, FsyncPolicy, Result};

use crate::moves::dir;
use crate::world::{Options, ROOT, World};

/// What does not wait has returned by then; what waits would wait for ever.
const SOON: Duration = Duration::from_millis(300);
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing goes up by itself.
fn remote() -> Options {
    Options { delay: Duration::from_secs(43_200), fsync: FsyncPolicy::Remote, ..Options::default() }
}

fn sync(world: &World, dir: Ino) -> impl Future<Output = Result<()>> + Send + 'static {
    let vfs = world.rooms.vfs.clone();
    async move { vfs.fsyncdir(dir, false).await }
}

async fn synced(world: &World, dir: Ino) -> Result<()> {
    tokio::time::timeout(PATIENCE, sync(world, dir)).await.expect("it waits for ever")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_fsync_of_a_directory_waits_for_the_end_of_a_closed_file() {
    let clock = ManualClock::new(SystemClock.now());
    let world = World::new(Options { clock: Some(clock.clone()), ..remote() }).await;
    for (name, bytes) in [("file", &b"content"[..]), ("empty", b"")] {
        let (ino, fh) = world.rooms.create(ROOT, name).await;
        if !bytes.is_empty() {
            world.rooms.append((ino, fh), 0, bytes).await;
        }
        // close(2) returns with the answer to this; the kernel sends the rest when it likes.
        world.rooms.vfs.flush(ino, fh, 0).await.unwrap();
        let mut waiting = tokio::spawn(sync(&world, ROOT));
        assert!(tokio::time::timeout(SOON, &mut waiting).await.is_err(), "{name} still counts as open");
        world.rooms.vfs.release(ino, fh).await;
        waiting.await.unwrap().unwrap();
        assert_eq!(world.object(name).unwrap(), bytes);
    }
    // What nobody has closed keeps nobody waiting, and neither does, after a second, a duplicate that was.
    let (ino, fh) = world.rooms.create(ROOT, "open").await;
    world.rooms.append((ino, fh), 0, b"half").await;
    synced(&world, ROOT).await.unwrap();
    world.rooms.vfs.flush(ino, fh, 0).await.unwrap();
    let mut waiting = tokio::spawn(sync(&world, ROOT));
    assert!(tokio::time::timeout(SOON, &mut waiting).await.is_err(), "the descriptor may have been the last");
    clock.advance(Duration::from_secs(1));
    waiting.await.unwrap().unwrap();
    assert_eq!(world.keys(), ["empty", "file"]);
    world.rooms.vfs.release(ino, fh).await;
    synced(&world, ROOT).await.unwrap();
    assert_eq!(world.object("open").unwrap(), b"half");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_fsync_of_a_directory_waits_for_what_was_renamed_into_it_and_away() {
    let objects: &[(&str, &[u8])] = &[("from/left", b"l"), ("from/old/a", b"a"), ("from/old/sub/b", b"b")];
    let world = World::with_objects(remote(), objects).await;
    let (from, to) = (dir(&world, "from").await, world.rooms.mkdir(ROOT, "to").await);
    world.rooms.rename((from, "old"), (to, "new")).await;
    synced(&world, to).await.unwrap();
    assert_eq!(world.keys(), ["from/left", "to/", "to/new/a", "to/new/sub/b"]);
    world.rooms.rename((to, "new"), (from, "back")).await;
    synced(&world, to).await.unwrap();
    assert_eq!(world.keys(), ["from/back/a", "from/back/sub/b", "from/left", "to/"]);
    // It tells why what it waits for is not there. A directory above the two has nothing to do with it.
    world.refuse("PUT", "to/again/*", 403, "AccessDenied");
    world.rooms.rename((from, "back"), (to, "again")).await;
    for concerned in [from, to] {
        let error = synced(&world, concerned).await.unwrap_err();
        assert!(matches!(&error, Error::NotUploaded(NotUploaded::Failed(Cause::Denied, _))), "{error:?}");
    }
    synced(&world, ROOT).await.unwrap();
    assert_eq!(world.keys(), ["from/back/a", "from/back/sub/b", "from/left", "to/"]);
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    synced(&world, from).await.unwrap();
    assert_eq!(world.keys(), ["from/left", "to/", "to/again/a", "to/again/sub/b"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_open_keeps_nothing_else_of_a_renamed_directory_waiting() {
    let world = World::with_objects(remote(), &[("old/open", b"one"), ("old/sub/b", b"b"), ("old/unseen", b"u")]).await;
    let old = dir(&world, "old").await;
    let open = world.rooms.open_file(old, "open", libc::O_RDWR).await;
    world.rooms.append(open, 0, b"two").await;
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    synced(&world, ROOT).await.unwrap();
    assert_eq!(world.keys(), ["new/sub/b", "new/unseen", "old/open"]);
    assert_eq!(world.object("old/open").unwrap(), b"one");
    world.rooms.close_file(open).await;
    synced(&world, ROOT).await.unwrap();
    assert_eq!(world.keys(), ["new/open", "new/sub/b", "new/unseen"]);
    assert_eq!(world.object("new/open").unwrap(), b"two");
    world.close().await;
}
