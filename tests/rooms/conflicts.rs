//! Another host's changes to what waits here for the bucket: no byte of either is lost.

use std::time::Duration;

use ferryfs::emulator::{Action, Side};
use ferryfs::namespace::Conflict;
use ferryfs::vfs::SetAttr;

use crate::world::{BUCKET, CALLER, Options, PREFIX, ROOT, World};

fn with(conflict: Conflict) -> Options {
    Options { conflict, ..Options::default() }
}

/// Another host stores an object.
fn put(world: &World, name: &str, bytes: &[u8]) {
    world.emulator.put_object(BUCKET, &format!("{PREFIX}{name}"), bytes).unwrap();
}

fn conflicts(world: &World) -> u64 {
    world.rooms.uploader.status().counters.conflicts
}

/// No upload to this name succeeds before [`release`]; one has been tried when this returns.
async fn hold_up(world: &World, name: &str) {
    let before = world.count("PUT", name);
    world
        .until("an upload is refused", |world| {
            world.rooms.uploader.hurry();
            world.count("PUT", name) > before
        })
        .await;
}

fn release(world: &World) {
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
}

/// The bucket, but for `name`, as sorted contents; every key is a conflict name of `name`.
fn kept(world: &World, name: &str) -> Vec<Vec<u8>> {
    let mut kept = Vec::new();
    for key in world.keys().iter().filter(|key| *key != name) {
        assert!(key.starts_with(&format!("{name}.conflict-")), "{key}");
        kept.push(world.object(key).unwrap());
    }
    kept.sort();
    kept
}

/// `f` is `base` in the bucket, rewritten here as `ours`, and `theirs` comes to stand there before ours does.
async fn contested(options: Options) -> World {
    let world = World::with_objects(options, &[("f", b"base")]).await;
    assert_eq!(world.rooms.read(ROOT, "f").await, b"base");
    world.refuse("PUT", "f", 403, "AccessDenied");
    world.rooms.write(ROOT, "f", b"ours").await;
    hold_up(&world, "f").await;
    put(&world, "f", b"theirs");
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_are_kept_and_ours_has_the_name() {
    let world = contested(Options::default()).await;
    release(&world);
    world.settled().await;
    assert_eq!(world.object("f").unwrap(), b"ours");
    assert_eq!(kept(&world, "f"), [b"theirs"]);
    assert_eq!(conflicts(&world), 1);
    // Programs here see both, at once.
    let names = world.rooms.names(ROOT).await;
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(world.rooms.read(ROOT, &names[1]).await, b"theirs");
    assert_eq!(world.rooms.read(ROOT, "f").await, b"ours");
    let world = world.restart().await;
    assert_eq!(world.rooms.names(ROOT).await, names);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_two_hosts_make_are_both_kept() {
    let world = World::new(Options::default()).await;
    world.refuse("PUT", "f", 403, "AccessDenied");
    world.rooms.write(ROOT, "f", b"ours").await;
    hold_up(&world, "f").await;
    put(&world, "f", b"theirs");
    release(&world);
    world.settled().await;
    assert_eq!(world.object("f").unwrap(), b"ours");
    assert_eq!((kept(&world, "f"), conflicts(&world)), (vec![b"theirs".to_vec()], 1));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_goes_up_in_parts_meets_the_other_version_before_it_is_completed() {
    let ours = vec![7; 5 << 20];
    let world = World::with_objects(Options::default(), &[("f", b"base")]).await;
    world.fault("POST", "f", Action::Status { status: 503, code: "ServiceUnavailable".into(), retry_after: None }, 0);
    world.rooms.write(ROOT, "f", &ours).await;
    put(&world, "f", b"theirs");
    release(&world);
    world.settled().await;
    assert!(world.object("f").unwrap() == ours);
    assert_eq!(kept(&world, "f"), [b"theirs"]);
    assert!(world.emulator.uploads(BUCKET).is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_the_steps_keeps_both_once() {
    // Before the copy, after a copy that nobody heard of, and before ours goes.
    for held in ["f.conflict-*", "cut", "f"] {
        let world = contested(Options::default()).await;
        world.emulator.clear_faults();
        match held {
            "cut" => {
                world.fault("PUT", "f.conflict-*", Action::ApplyThenCut, 1);
                // The look that would settle it fails as well.
                world.fault("HEAD", "f.conflict-*", Action::Cut { after: 0, side: Side::Response }, 0);
            }
            held => world.refuse("PUT", held, 403, "AccessDenied"),
        }
        if held == "f.conflict-*" {
            // Refused for now only: not what makes the names change places.
            world.emulator.clear_faults();
            let busy = Action::Status { status: 503, code: "ServiceUnavailable".into(), retry_after: None };
            world.fault("PUT", held, busy, 0);
        }
        world.rooms.uploader.retry();
        world
            .until("the other version is on its way", |world| {
                world.rooms.uploader.hurry();
                let tried = world
                    .emulator
                    .requests()
                    .iter()
                    .any(|one| one.method == "PUT" && one.key.starts_with(&format!("{PREFIX}f.conflict-")));
                tried && (held != "f" || world.keys().len() == 2)
            })
            .await;
        assert_eq!(world.object("f").unwrap(), b"theirs", "{held}: not before it is kept");
        let world = world.restart().await;
        release(&world);
        world.settled().await;
        assert_eq!(world.object("f").unwrap(), b"ours", "{held}");
        assert_eq!(kept(&world, "f"), [b"theirs"], "{held}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_comes_after_the_copy_is_kept_too() {
    let world = contested(Options::default()).await;
    world.rooms.uploader.retry();
    world.until("the first is kept", |world| world.keys().len() == 2).await;
    hold_up(&world, "f").await;
    put(&world, "f", b"later");
    release(&world);
    world.settled().await;
    assert_eq!(world.object("f").unwrap(), b"ours");
    assert_eq!(kept(&world, "f"), [b"later".to_vec(), b"theirs".to_vec()]);
    assert_eq!(conflicts(&world), 2);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_copied_keeps_its_name() {
    let world = contested(Options::default()).await;
    world.emulator.clear_faults();
    let refused = Action::Status { status: 403, code: "AccessDenied".into(), retry_after: None };
    world.fault("PUT", "f.conflict-*", refused, 1);
    world.rooms.uploader.retry();
    world.settled().await;
    assert!(world.emulator.faults().is_empty());
    assert_eq!(world.object("f").unwrap(), b"theirs");
    assert_eq!(kept(&world, "f"), [b"ours"]);
    assert_eq!(world.rooms.read(ROOT, "f").await, b"theirs");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_copy_is_made_once_and_another_file_of_its_name_is_left_alone() {
    // What the name will be.
    let world = contested(Options::default()).await;
    let theirs = world.emulator.object(BUCKET, &format!("{PREFIX}f")).unwrap();
    let second = jiff::Timestamp::from_second(theirs.modified_ns() / 1_000_000_000).unwrap();
    let etag: String = ferryfs::checksum::hex(&ferryfs::checksum::md5(b"theirs"))[..16].to_owned();
    let name = format!("f.conflict-{}-{etag}", second.strftime("%Y%m%dT%H%M%SZ"));
    put(&world, &name, b"something else");
    put(&world, &format!("{name}-2"), b"theirs");
    release(&world);
    world.settled().await;
    assert_eq!(world.keys(), ["f".to_owned(), name.clone(), format!("{name}-2")]);
    assert_eq!(world.object("f").unwrap(), b"ours");
    assert_eq!(world.object(&name).unwrap(), b"something else");
    assert_eq!(world.object(&format!("{name}-2")).unwrap(), b"theirs");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_goes_over_theirs_where_it_was_asked_for() {
    let world = contested(with(Conflict::Ours)).await;
    release(&world);
    world.settled().await;
    assert_eq!((world.keys(), world.object("f").unwrap()), (vec!["f".to_owned()], b"ours".to_vec()));
    assert!(conflicts(&world) >= 1);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn theirs_keeps_the_name_where_it_was_asked_for_and_ours_is_not_lost() {
    let world = contested(with(Conflict::Theirs)).await;
    release(&world);
    world.settled().await;
    assert_eq!(world.object("f").unwrap(), b"theirs");
    assert_eq!((kept(&world, "f"), conflicts(&world)), (vec![b"ours".to_vec()], 1));
    assert_eq!(world.rooms.read(ROOT, "f").await, b"theirs");
    world.close().await;
}

async fn chmod(world: &World, name: &str, mode: u32) {
    let ino = world.rooms.lookup(ROOT, name).await.unwrap();
    let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
    world.rooms.vfs.setattr(ino, None, change, CALLER).await.unwrap();
}

fn mode(world: &World, name: &str) -> Option<String> {
    world.emulator.object(BUCKET, &format!("{PREFIX}{name}"))?.metadata().get("mode").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_changed_here_and_content_elsewhere() {
    for (policy, cached) in [(Conflict::KeepBoth, true), (Conflict::KeepBoth, false), (Conflict::Theirs, true)] {
        let world = World::with_objects(with(policy), &[("f", b"base")]).await;
        if cached {
            world.rooms.read(ROOT, "f").await;
        }
        world.refuse("PUT", "f", 403, "AccessDenied");
        chmod(&world, "f", 0o600).await;
        hold_up(&world, "f").await;
        put(&world, "f", b"theirs");
        release(&world);
        world.settled().await;
        let (content, others): (&[u8], Vec<Vec<u8>>) = match (policy, cached) {
            (Conflict::KeepBoth, true) => (b"base", vec![b"theirs".to_vec()]),
            // Nothing of the old version is left anywhere: ours is the mode alone.
            _ => (b"theirs", Vec::new()),
        };
        assert_eq!(world.object("f").unwrap(), content, "{policy:?} {cached}");
        assert_eq!(kept(&world, "f"), others, "{policy:?} {cached}");
        assert_eq!(world.rooms.read(ROOT, "f").await, content, "{policy:?} {cached}");
        let expected = (policy == Conflict::KeepBoth).then(|| 0o100_600.to_string());
        assert_eq!(mode(&world, "f"), expected, "{policy:?} {cached}");
        assert_eq!(conflicts(&world), 1, "{policy:?} {cached}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_elsewhere_while_it_was_written_here_is_made_anew() {
    let world = World::with_objects(Options::default(), &[("f", b"base")]).await;
    world.refuse("PUT", "f", 403, "AccessDenied");
    world.rooms.write(ROOT, "f", b"ours").await;
    hold_up(&world, "f").await;
    world.emulator.delete_object(BUCKET, &format!("{PREFIX}f")).unwrap();
    release(&world);
    world.settled().await;
    assert_eq!((world.keys(), world.object("f").unwrap()), (vec!["f".to_owned()], b"ours".to_vec()));
    assert_eq!(conflicts(&world), 1);
    world.close().await;
}

/// As [`put`], some seconds from now: the store tells times in whole seconds.
fn put_later(world: &World, name: &str, bytes: &[u8]) {
    world.emulator.set_clock_offset(5);
    put(world, name, bytes);
    world.emulator.set_clock_offset(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_here_of_what_is_rewritten_elsewhere_moves_no_other_version() {
    for cached in [true, false] {
        let world = World::with_objects(Options::default(), &[("a", b"base")]).await;
        if cached {
            world.rooms.read(ROOT, "a").await;
        }
        world.refuse("PUT", "b", 403, "AccessDenied");
        world.rooms.rename((ROOT, "a"), (ROOT, "b")).await;
        hold_up(&world, "b").await;
        put_later(&world, "a", b"theirs");
        release(&world);
        world.settled().await;
        assert_eq!(world.object("a").unwrap(), b"theirs", "{cached}");
        // What was not here is nowhere any more; it is not made up of another version.
        assert_eq!(world.object("b"), cached.then(|| b"base".to_vec()), "{cached}");
        assert!(conflicts(&world) >= 1, "{cached}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_over_what_is_rewritten_elsewhere_keeps_both() {
    let world = World::with_objects(Options::default(), &[("new", b"ours"), ("f", b"base")]).await;
    world.refuse("PUT", "f", 403, "AccessDenied");
    world.rooms.rename((ROOT, "new"), (ROOT, "f")).await;
    hold_up(&world, "f").await;
    put(&world, "f", b"theirs");
    release(&world);
    world.settled().await;
    assert_eq!(world.object("f").unwrap(), b"ours");
    assert_eq!(kept(&world, "f"), [b"theirs"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rewritten_elsewhere_is_not_removed_here() {
    let world =
        World::with_objects(Options { attr_ttl: Duration::ZERO, ..Options::default() }, &[("f", b"base")]).await;
    world.rooms.read(ROOT, "f").await;
    world.refuse("HEAD", "f", 503, "ServiceUnavailable");
    world.rooms.unlink(ROOT, "f").await;
    put(&world, "f", b"theirs");
    release(&world);
    world.settled().await;
    assert_eq!((world.keys(), conflicts(&world)), (vec!["f".to_owned()], 1));
    assert_eq!(world.rooms.read(ROOT, "f").await, b"theirs", "and it is shown again");
    world.close().await;
}
