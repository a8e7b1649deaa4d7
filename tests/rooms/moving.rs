//! What happens to renamed directories while the store is asked about them (R5).

use std::ffi::OsStr;
use std::time::Duration;

use ferryfs::emulator::{Action, Side};

use crate::moves::{SMALL, Tree, bucket, dir, ended, go_on, hold, options, tree};
use crate::world::{CALLER, Options, PREFIX, ROOT, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_page_shows_while_a_key_is_looked_at_is_no_conflict() {
    let objects: Tree = &[("a/same", b"of a"), ("b/same", b"of b")];
    let world = World::with_objects(options(), objects).await;
    // Whichever of the two is the first to look at the other's key: the other becomes known meanwhile.
    for name in ["a/same", "b/same"] {
        world.fault("HEAD", name, Action::Delay(700), 1);
    }
    let exchange = libc::RENAME_EXCHANGE;
    world.rooms.vfs.rename(ROOT, OsStr::new("a"), ROOT, OsStr::new("b"), exchange, CALLER).await.unwrap();
    ended(&world).await;
    assert!(world.emulator.faults().is_empty(), "both keys were looked at");
    assert_eq!(bucket(&world), tree(&[("a/same", "of b"), ("b/same", "of a")]));
    assert_eq!(world.rooms.uploader.status().counters.conflicts, 0);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_waits_for_its_second_look_moves_with_its_directory() {
    let world = World::new(Options { late: Duration::from_secs(3_600), ..options() }).await;
    let old = world.rooms.mkdir(ROOT, "old").await;
    // Nobody answers whether it arrived: what stands there in the end is looked at again (R1).
    world.fault("PUT", "old/f", Action::Cut { after: 0, side: Side::Request }, 1);
    let file = world.rooms.write(old, "f", b"content").await;
    world.settled().await;
    let looked_at_again =
        |world: &World| world.rooms.namespace.read(|tree| tree.get(file).unwrap().row.recheck_at.is_some());
    assert!(looked_at_again(&world), "too late to show anything");
    // Due later than the look that found nothing to do before the second one.
    world.rooms.write(ROOT, "later", b"x").await;
    world.settled().await;
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    world.settled().await;
    assert_eq!(bucket(&world), tree(&[("later", "x"), ("new/f", "content")]));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_look_for_what_moves_keeps_no_file_waiting() {
    let world = World::with_objects(options(), &[("old/a", b"a")]).await;
    hold(&world, "new/");
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    let old = world.rooms.mkdir(ROOT, "old").await;
    let file = world.rooms.create(old, "z").await;
    world.rooms.append(file, 0, b"z").await;
    // Something of the renamed directory may be at the key of the new file: that is what is asked for.
    let denied = Action::Status { status: 403, code: "AccessDenied".to_owned(), retry_after: None };
    world.fault("HEAD", "old/z", denied, 1);
    world.rooms.close_file(file).await;
    let fails = |world: &World| world.rooms.uploader.status().failures.iter().any(|one| one.path == "/old/z");
    world.until("the look fails", fails).await;
    world.rooms.uploader.retry();
    world.until("it goes up all the same", |world| world.object("old/z").is_some()).await;
    go_on(&world).await;
    ended(&world).await;
    assert_eq!(bucket(&world), tree(&[("new/a", "a"), ("old/z", "z")]));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_renamed_while_it_is_listed_is_listed_again() {
    let world = World::with_objects(options(), SMALL).await;
    hold(&world, "new/");
    let old = dir(&world, "old").await;
    let matching = ferryfs::emulator::Match { method: Some("GET".to_owned()), ..Default::default() };
    world.emulator.add_fault(ferryfs::emulator::Fault::new(matching, Action::Delay(700)));
    let vfs = world.rooms.vfs.clone();
    let listed = tokio::spawn(async move { vfs.opendir(old, CALLER).await.map(|fh| vfs.releasedir(fh)) });
    world.until("it is listed", |world| world.emulator.faults().len() == 1).await;
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    listed.await.unwrap().unwrap();
    assert_eq!(world.rooms.names(old).await, ["a", "b", "sub"]);
    go_on(&world).await;
    ended(&world).await;
    assert_eq!(bucket(&world), tree(&[("new/a", "a"), ("new/b", "b"), ("new/sub/c", "c"), ("new/sub/deep/d", "d")]));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_while_its_attributes_are_asked_for_stays_found() {
    let world = World::with_objects(options(), &[]).await;
    let mut headers = ferryfs::store::ObjectHeaders::default();
    headers.metadata.insert("mode".to_owned(), 0o100_640.to_string());
    let put = ferryfs::store::PutOptions { headers, ..Default::default() };
    world.store.put(&ferryfs::types::Key(format!("{PREFIX}old/a")), b"a".as_slice().into(), put).await.unwrap();
    hold(&world, "new/");
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    let new = dir(&world, "new").await;
    assert_eq!(world.rooms.names(new).await, ["a"]);
    world.until("its copy is refused", |world| !world.rooms.uploader.status().failures.is_empty()).await;
    // Answered when the object has left that key.
    world.fault("HEAD", "old/a", Action::Delay(2_000), 1);
    let vfs = world.rooms.vfs.clone();
    let looked = tokio::spawn(async move { vfs.lookup(new, OsStr::new("a"), CALLER).await });
    world.until("it is asked for", |world| world.emulator.faults().len() == 1).await;
    go_on(&world).await;
    world.until("it has moved", |world| world.keys() == ["new/a"]).await;
    assert_eq!(looked.await.unwrap().unwrap().stat.mode, 0o640);
    ended(&world).await;
    assert_eq!(world.rooms.names(new).await, ["a"]);
    assert_eq!(world.rooms.uploader.status().counters.copies, 1);
    assert_eq!(bucket(&world), tree(&[("new/a", "a")]));
    world.close().await;
}
