//! What programs see.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferryfs::emulator::{Action, Side};
use ferryfs::journal::Content;
use ferryfs::types::TimeNs;
use ferryfs::vfs::{SetAttr, SetTime};

use crate::world::{BUCKET, CALLER, Options, PREFIX, ROOT, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_hosts_change_is_seen_at_the_next_open_whoever_reads_the_old_version() {
    let options = Options { attr_ttl: Duration::from_millis(50), ..Options::default() };
    let world = World::with_objects(options, &[("f", b"one")]).await;
    let (old, fh) = world.rooms.open_file(ROOT, "f", libc::O_RDONLY).await;
    world.emulator.put_object(BUCKET, &format!("{PREFIX}f"), b"two!").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.rooms.read(ROOT, "f").await != b"two!" {
        assert!(Instant::now() < deadline, "the change is never seen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_ne!(world.rooms.lookup(ROOT, "f").await, Some(old), "one inode, one version (C1)");
    assert_eq!(&world.rooms.vfs.read(old, fh, 0, 10).await.unwrap()[..], b"one", "old or new, never mixed (P8)");
    world.rooms.vfs.release(old, fh).await;
    world.settled().await;
    assert_eq!(world.object("f").unwrap(), b"two!");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_believes_a_name_no_longer_than_what_is_left_of_the_ttl() {
    let ttl = Duration::from_secs(600);
    let world = World::with_objects(Options { attr_ttl: ttl, ..Options::default() }, &[("f", b"one")]).await;
    let left = async |world: &World| world.rooms.vfs.lookup(ROOT, "f".as_ref(), CALLER).await.unwrap().ttl;
    let asked = Instant::now();
    let first = left(&world).await;
    assert!(first <= ttl && first >= ttl - asked.elapsed(), "{first:?}");
    world.until("time passes", |_| asked.elapsed() > Duration::from_millis(50)).await;
    let later = left(&world).await;
    assert!(later <= first - Duration::from_millis(20), "{first:?} {later:?}");
    assert_eq!(world.emulator.requests().iter().filter(|one| one.method == "GET").count(), 1, "one listing for both");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_hosts_change_right_after_our_own_is_seen() {
    let options = Options { attr_ttl: Duration::from_millis(50), ..Options::default() };
    let world = World::new(options).await;
    for (name, gone) in [("f", false), ("g", true)] {
        world.rooms.write(ROOT, name, b"ours").await;
        world.settled().await;
        let key = format!("{PREFIX}{name}");
        if gone {
            world.emulator.delete_object(BUCKET, &key).unwrap();
        } else {
            world.emulator.put_object(BUCKET, &key, b"theirs").unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let seen = match world.rooms.lookup(ROOT, name).await {
                Some(_) if gone => false,
                Some(_) => world.rooms.read(ROOT, name).await == b"theirs",
                None => gone,
            };
            if seen {
                break;
            }
            assert!(Instant::now() < deadline, "{name}: the change is never seen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_below_which_a_removal_is_owed_is_shown_after_a_restart() {
    let objects: &[(&str, &[u8])] = &[("d/x", b"x"), ("d/y", b"y"), ("e/f/only", b"z")];
    let world = World::with_objects(Options::default(), objects).await;
    world.refuse("DELETE", "d/x", 403, "AccessDenied");
    let dir = world.rooms.lookup(ROOT, "d").await.unwrap();
    world.rooms.unlink(dir, "x").await;
    world.until("the removal is refused", |world| world.count("DELETE", "d/x") > 0).await;
    let world = world.restart().await;
    assert_eq!(world.rooms.names(ROOT).await, ["d", "e"]);
    let dir = world.rooms.lookup(ROOT, "d").await.unwrap();
    assert_eq!(world.rooms.names(dir).await, ["y"]);
    assert_eq!(world.rooms.read(dir, "y").await, b"y");
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.keys(), ["d/y", "e/f/only"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_directory_is_not_shown_at_its_old_name_while_it_moves() {
    let options =
        Options { attr_ttl: Duration::from_millis(1), delay: Duration::from_millis(200), ..Options::default() };
    let objects: Vec<(String, Vec<u8>)> = (0..40).map(|n| (format!("old/{n:02}"), vec![n])).collect();
    let objects: Vec<(&str, &[u8])> = objects.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let world = World::with_objects(options, &objects).await;
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    while !world.rooms.uploader.outstanding(None).is_empty() {
        assert_eq!(world.rooms.names(ROOT).await, ["new"]);
        assert_eq!(world.rooms.lookup(ROOT, "old").await, None);
    }
    assert_eq!(world.rooms.names(ROOT).await, ["new"]);
    assert_eq!(world.keys().len(), 40);
    // Another host's object under the old name is seen.
    world.emulator.set_clock_offset(30);
    world.emulator.put_object(BUCKET, &format!("{PREFIX}old/theirs"), b"theirs").unwrap();
    world.emulator.set_clock_offset(0);
    world.settled().await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(world.rooms.names(ROOT).await, ["new", "old"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_was_emptied_between_starts_is_fetched_again() {
    let world = World::new(Options::default()).await;
    world.rooms.write(ROOT, "f", b"content").await;
    world.settled().await;
    let world = world
        .restart_after(|root| {
            std::fs::remove_dir_all(root.join("cache")).unwrap();
            std::fs::create_dir(root.join("cache")).unwrap();
        })
        .await;
    assert_eq!(world.rooms.read(ROOT, "f").await, b"content");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_and_eviction_do_not_meet() {
    let world = World::with_objects(Options::default(), &[("f", b"content")]).await;
    let vfs = world.rooms.vfs.clone();
    let (stop, stopped) = tokio::sync::watch::channel(());
    let evicted = Arc::new(AtomicUsize::new(0));
    let count = evicted.clone();
    let evictor = tokio::spawn(async move {
        // Until told, or until the test has failed.
        while stopped.has_changed().is_ok_and(|told| !told) {
            count.fetch_add(vfs.drop_clean().await.unwrap().0, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut rounds = 0;
    // How often the two meet is the scheduler's to say.
    while rounds < 200 || evicted.load(Ordering::Relaxed) <= 10 {
        rounds += 1;
        assert!(Instant::now() < deadline, "nothing is evicted meanwhile");
        assert_eq!(world.rooms.read(ROOT, "f").await, b"content");
        let (ino, fh) = world.rooms.open_file(ROOT, "f", libc::O_RDWR).await;
        world.rooms.close_file((ino, fh)).await;
    }
    stop.send(()).unwrap();
    evictor.await.unwrap();
    world.settled().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setting_times_between_close_and_release_keeps_the_mark() {
    let world = World::new(Options { delay: Duration::from_secs(30), ..Options::default() }).await;
    let (ino, fh) = world.rooms.create(ROOT, "f").await;
    world.rooms.append((ino, fh), 0, b"content").await;
    world.rooms.vfs.flush(ino, fh, 0).await.unwrap();
    let row = |world: &World| {
        let rows = world.rooms.journal.load().unwrap().inodes;
        rows.into_iter().find(|row| row.ino == ino).unwrap()
    };
    let flushed = row(&world).mark.unwrap();
    // As cp -p, tar and rsync do by path, before the kernel has released the file.
    let mtime = Some(SetTime::At(TimeNs::new(1_000_000_000, 5)));
    world.rooms.vfs.setattr(ino, None, SetAttr { mtime, ..SetAttr::default() }, CALLER).await.unwrap();
    let after = row(&world);
    assert_eq!((after.content, after.mark.unwrap().mtime), (Content::Flushed, TimeNs::new(1_000_000_000, 5)));
    assert_ne!(after.mark.unwrap().ctime, flushed.ctime);
    assert_eq!(after.attrs.mtime, TimeNs::new(1_000_000_000, 5));
    world.rooms.vfs.release(ino, fh).await;
    world.settled().await;
    assert_eq!(world.object("f").unwrap(), b"content");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_stay_when_the_network_goes_between_listing_and_attributes() {
    let world = World::with_objects(Options::default(), &[("f", b"content")]).await;
    assert_eq!(world.rooms.names(ROOT).await, ["f"]);
    world.fault("HEAD", "f", Action::Cut { after: 0, side: Side::Request }, 0);
    let ino = world.rooms.lookup(ROOT, "f").await.expect("the listing showed it");
    assert_eq!(world.rooms.vfs.getattr(ino, None).await.unwrap().size, 7);
    world.emulator.clear_faults();
    world.close().await;
}
