//! Directories that are renamed while most of what lies in them has never been seen here (R5).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use ferryfs::emulator::Action;
use ferryfs::types::Ino;
use ferryfs::vfs::Error;

use crate::world::{BUCKET, CALLER, Options, PREFIX, ROOT, World};

/// Of other hosts' clocks: longer than the store's seconds and what two of them can hide.
const LATER_S: i64 = 30;

pub fn options() -> Options {
    Options { move_quiet: Duration::from_millis(300), ..Options::default() }
}

pub type Tree<'a> = &'a [(&'a str, &'a [u8])];

/// Every copy below a name is refused until the faults are cleared.
pub fn hold(world: &World, name: &str) {
    world.refuse("PUT", &format!("{name}*"), 403, "AccessDenied");
}

pub async fn go_on(world: &World) {
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
}

/// Until no directory has anything at an old name any more.
pub async fn ended(world: &World) {
    world.settled().await;
    world.until("the move ends", |world| world.rooms.uploader.moves().is_empty()).await;
    let on_disk = |world: &World| world.rooms.journal.load().unwrap().sources.is_empty();
    world.until("its rows are gone", on_disk).await;
}

/// Puts an object as another host, with a clock that is so far ahead.
fn put_at(world: &World, name: &str, bytes: &[u8], ahead_s: i64) {
    world.emulator.set_clock_offset(ahead_s);
    world.emulator.put_object(BUCKET, &format!("{PREFIX}{name}"), bytes).unwrap();
    world.emulator.set_clock_offset(0);
}

/// Everything in the bucket but markers.
pub fn bucket(world: &World) -> BTreeMap<String, String> {
    let keys = world.keys().into_iter().filter(|key| !key.ends_with('/'));
    keys.map(|key| (key.clone(), String::from_utf8(world.object(&key).unwrap()).unwrap())).collect()
}

pub fn tree(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, bytes)| ((*key).to_owned(), (*bytes).to_owned())).collect()
}

pub async fn dir(world: &World, path: &str) -> Ino {
    let mut at = ROOT;
    for name in path.split('/') {
        at = world.rooms.lookup(at, name).await.unwrap_or_else(|| panic!("no {name} of {path}"));
    }
    at
}

/// Nothing moves before it is hurried.
fn idle() -> Options {
    Options { delay: Duration::from_secs(43_200), ..options() }
}

/// Requests to the store and commits of a rename of what was looked at before, until it returns.
async fn costs(world: &World, from: &str, to: &str) -> (Vec<String>, u64) {
    world.rooms.lookup(ROOT, from).await;
    // What is committed in the background is through.
    world.rooms.namespace.barrier().await.unwrap();
    let (asked, commits) = (world.emulator.requests().len(), world.rooms.journal.commits());
    world.rooms.rename((ROOT, from), (ROOT, to)).await;
    let commits = world.rooms.journal.commits() - commits;
    (world.emulator.requests()[asked..].iter().map(|one| format!("{} {}", one.method, one.query)).collect(), commits)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_directory_is_renamed_at_once_and_moved_whole() {
    // scripts/soak.sh asks for 100,000.
    let count: usize = std::env::var("FERRYFS_MOVE_OBJECTS").map_or(2_000, |text| text.parse().unwrap());
    let patience = Duration::from_secs(60) + Duration::from_millis(20) * u32::try_from(count).unwrap();
    let world = World::with_objects(idle(), &[("file", b"x")]).await;
    let name =
        |n: usize| if n.is_multiple_of(10) { format!("sub-{:02}/f{n:06}", n / 10 % 20) } else { format!("f{n:06}") };
    for n in 0..count {
        world.emulator.put_object(BUCKET, &format!("{PREFIX}old/{}", name(n)), n.to_string().as_bytes()).unwrap();
    }
    world.emulator.put_object(BUCKET, &format!("{PREFIX}old/sub-00/"), b"").unwrap();
    assert_eq!(world.rooms.names(ROOT).await, ["file", "old"]);
    dir(&world, "old").await;
    let began = Instant::now();
    assert_eq!(costs(&world, "old", "new").await, costs(&world, "file", "renamed").await);
    println!("both renames: {:?}", began.elapsed());
    assert_eq!(world.rooms.names(ROOT).await, ["new", "renamed"]);
    let new = dir(&world, "new").await;
    assert_eq!(world.rooms.read(new, &name(1)).await, b"1");
    let deadline = Instant::now() + patience;
    let mut shown = false;
    loop {
        world.rooms.uploader.hurry();
        // A look at all that is known holds the tree: most of the time is the move's.
        let asked = Instant::now();
        if world.rooms.uploader.outstanding(None).is_empty() {
            break;
        }
        let pause = Duration::from_millis(20).max(asked.elapsed() * 20);
        let moves = world.rooms.uploader.moves();
        shown |=
            moves.iter().any(|one| one.path == "/new" && one.prefixes == ["data/old/"] && one.done > 0 && !one.quiet);
        assert!(Instant::now() < deadline, "{moves:?} {:?}", world.rooms.uploader.status());
        tokio::time::sleep(pause).await;
    }
    println!("moved after {:?}", began.elapsed());
    assert!(shown, "status showed no progress");
    while !world.rooms.uploader.moves().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", world.rooms.uploader.moves());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut wanted: Vec<String> = (0..count).map(|n| format!("new/{}", name(n))).collect();
    wanted.extend(["new/sub-00/".to_owned(), "renamed".to_owned()]);
    wanted.sort();
    assert_eq!(world.keys(), wanted);
    for n in (0..count).step_by(count / 100) {
        assert_eq!(world.object(&format!("new/{}", name(n))).unwrap(), n.to_string().as_bytes());
    }
    let copies = world.rooms.uploader.status().counters.copies;
    assert_eq!(copies, count as u64 + 1, "each object once, and the file");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_listed_before_the_rename_costs_it_nothing_and_moves() {
    let objects: Vec<(String, Vec<u8>)> = (0..3_000).map(|n| (format!("old/{n:05}"), vec![b'x'])).collect();
    let objects = objects.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let objects: Vec<(&str, &[u8])> = objects.chain([("file", &b"x"[..])]).collect();
    let world = World::with_objects(idle(), &objects).await;
    let old = dir(&world, "old").await;
    assert_eq!(world.rooms.names(old).await.len(), 3_000);
    assert_eq!(costs(&world, "old", "new").await, costs(&world, "file", "renamed").await);
    assert_eq!(dir(&world, "new").await, old);
    assert_eq!(world.rooms.names(old).await.len(), 3_000);
    let deadline = Instant::now() + Duration::from_secs(120);
    while !world.rooms.uploader.outstanding(None).is_empty() {
        world.rooms.uploader.hurry();
        assert!(Instant::now() < deadline, "{:?}", world.rooms.uploader.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let wanted: Vec<String> = (0..3_000).map(|n| format!("new/{n:05}")).chain(["renamed".to_owned()]).collect();
    assert_eq!(world.keys(), wanted);
    world.close().await;
}

pub const SMALL: Tree<'static> = &[("old/a", b"a"), ("old/b", b"b"), ("old/sub/c", b"c"), ("old/sub/deep/d", b"d")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unmoved_children_are_served_from_their_old_keys_also_after_a_restart() {
    let world = World::with_objects(options(), SMALL).await;
    hold(&world, "new/");
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    let world = world.restart().await;
    assert_eq!(world.rooms.names(ROOT).await, ["new"]);
    let new = dir(&world, "new").await;
    assert_eq!(world.rooms.names(new).await, ["a", "b", "sub"]);
    assert_eq!(world.rooms.lookup(ROOT, "old").await, None);
    assert_eq!(world.rooms.read(dir(&world, "new/sub/deep").await, "d").await, b"d");
    assert_eq!(world.keys(), ["old/a", "old/b", "old/sub/c", "old/sub/deep/d"], "too late to show anything");
    let world = world.restart().await;
    go_on(&world).await;
    ended(&world).await;
    assert_eq!(bucket(&world), tree(&[("new/a", "a"), ("new/b", "b"), ("new/sub/c", "c"), ("new/sub/deep/d", "d")]));
    let world = world.restart().await;
    assert_eq!(world.rooms.names(dir(&world, "new").await).await, ["a", "b", "sub"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_name_made_again_is_empty_and_is_filled_while_its_children_still_move() {
    let world = World::with_objects(options(), SMALL).await;
    hold(&world, "new/");
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    let old = world.rooms.mkdir(ROOT, "old").await;
    assert_eq!(world.rooms.names(old).await, [""; 0]);
    world.rooms.namespace.expire(old);
    assert_eq!(world.rooms.names(old).await, [""; 0], "what the bucket has there belongs to the new name");
    world.rooms.write(old, "a", b"another a").await;
    world.rooms.write(old, "z", b"z").await;
    let sub = world.rooms.mkdir(old, "sub").await;
    assert_eq!(world.rooms.names(sub).await, [""; 0]);
    world.rooms.write(sub, "c", b"another c").await;
    world.until("a file of a free key goes up", |world| world.object("old/z").is_some()).await;
    assert_eq!(world.object("old/a").unwrap(), b"a", "the only copy of new/a (R3)");
    assert_eq!(world.object("old/sub/c").unwrap(), b"c", "the only copy of new/sub/c");
    let world = world.restart().await;
    assert_eq!(world.rooms.names(dir(&world, "old").await).await, ["a", "sub", "z"]);
    assert_eq!(world.rooms.read(dir(&world, "old").await, "a").await, b"another a");
    go_on(&world).await;
    ended(&world).await;
    let wanted = [
        ("new/a", "a"),
        ("new/b", "b"),
        ("new/sub/c", "c"),
        ("new/sub/deep/d", "d"),
        ("old/a", "another a"),
        ("old/sub/c", "another c"),
        ("old/z", "z"),
    ];
    assert_eq!(bucket(&world), tree(&wanted));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_are_rewritten_removed_and_renamed_on_before_they_are_moved() {
    let objects: Tree = &[("old/cut", b"cut"), ("old/gone", b"x"), ("old/on", b"on"), ("old/stays", b"stays")];
    let world = World::with_objects(options(), objects).await;
    hold(&world, "new/");
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    let new = dir(&world, "new").await;
    world.rooms.unlink(new, "gone").await;
    world.rooms.rename((new, "on"), (ROOT, "elsewhere")).await;
    let file = world.rooms.open_file(new, "cut", libc::O_RDWR).await;
    world.rooms.append(file, 3, b" and more").await;
    world.rooms.close_file(file).await;
    world.until("a removal is owed for the source", |world| world.object("old/gone").is_none()).await;
    world.until("it goes straight to its last name", |world| world.object("elsewhere").is_some()).await;
    assert_eq!(world.rooms.names(new).await, ["cut", "stays"]);
    let world = world.restart().await;
    assert_eq!(world.rooms.read(dir(&world, "new").await, "cut").await, b"cut and more");
    go_on(&world).await;
    ended(&world).await;
    assert_eq!(bucket(&world), tree(&[("elsewhere", "on"), ("new/cut", "cut and more"), ("new/stays", "stays")]));
    let stored = world.emulator.stores().into_iter().any(|one| one.key == "data/new/on");
    assert!(!stored, "it went straight to its last name");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_host_writes_belongs_to_the_name_that_it_wrote() {
    // A move whose copies are all refused ends too: not before they are let through.
    let (attr_ttl, move_quiet) = (Duration::from_millis(20), Duration::from_secs(4));
    let world = World::with_objects(Options { attr_ttl, move_quiet, ..options() }, SMALL).await;
    hold(&world, "new/");
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    // Under the old name: new, and over what has not been moved; under the new name likewise.
    put_at(&world, "old/theirs", b"theirs", LATER_S);
    put_at(&world, "old/b", b"their b", LATER_S);
    put_at(&world, "new/theirs", b"theirs too", LATER_S);
    put_at(&world, "new/sub/c", b"their c", LATER_S);
    world
        .until("the old name is back", |world| world.rooms.namespace.read(|tree| tree.child(ROOT, "old").is_some()))
        .await;
    let old = dir(&world, "old").await;
    assert_eq!(world.rooms.names(old).await, ["b", "theirs"]);
    assert_eq!(world.rooms.read(old, "b").await, b"their b");
    go_on(&world).await;
    ended(&world).await;
    let found = bucket(&world);
    let conflict = found.keys().find(|key| key.starts_with("new/sub/c.conflict-")).expect("both are kept").clone();
    // What moves stands aside, unless the directory's move had ended before the refused copy went through.
    let moved_aside = found.get("new/sub/c").is_some_and(|content| content == "their c");
    let (named, aside) = if moved_aside { ("their c", "c") } else { ("c", "their c") };
    let wanted = [
        ("new/a", "a"),
        ("new/sub/c", named),
        (conflict.as_str(), aside),
        ("new/sub/deep/d", "d"),
        ("new/theirs", "theirs too"),
        ("old/b", "their b"),
        ("old/theirs", "theirs"),
    ];
    assert_eq!(found, tree(&wanted));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_never_overwrites_what_another_host_put_at_its_destination() {
    let world = World::with_objects(options(), SMALL).await;
    // Seen here already, and about to be copied, when the other host is quicker.
    world.fault("HEAD", "old/a", Action::Delay(700), 1);
    let old = dir(&world, "old").await;
    world.rooms.names(old).await;
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    put_at(&world, "new/a", b"their a", LATER_S);
    world.settled().await;
    ended(&world).await;
    assert_eq!(world.object("new/a").unwrap(), b"their a");
    let found = bucket(&world);
    let aside: Vec<&String> =
        found.iter().filter(|(key, _)| key.starts_with("new/a.conflict-")).map(|(_, v)| v).collect();
    assert_eq!(aside, ["a"]);
    assert!(found.keys().all(|key| !key.starts_with("old/")), "{found:?}");
    assert_eq!(world.rooms.read(dir(&world, "new").await, "a").await, b"their a");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_copied_stays_at_its_old_key_and_is_shown() {
    let world = World::with_objects(options(), SMALL).await;
    world.refuse("PUT", "new/a", 403, "InvalidObjectState");
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    world
        .until("the others are moved", |world| world.keys() == ["new/b", "new/sub/c", "new/sub/deep/d", "old/a"])
        .await;
    world.until("the move ends", |world| world.rooms.uploader.moves().is_empty()).await;
    let failures = world.rooms.uploader.status().failures;
    assert_eq!(failures.len(), 1);
    assert!(failures[0].path == "/new/a" && failures[0].error.contains("InvalidObjectState"), "{failures:?}");
    let world = world.restart().await;
    assert_eq!(world.rooms.names(ROOT).await, ["new"]);
    assert_eq!(world.rooms.read(dir(&world, "new").await, "a").await, b"a", "served from the old key");
    go_on(&world).await;
    assert_eq!(world.keys(), ["new/a", "new/b", "new/sub/c", "new/sub/deep/d"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_lags_is_made_up_for_before_the_move_ends() {
    let world = World::with_objects(Options { move_quiet: Duration::from_secs(2), ..options() }, SMALL).await;
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    world.settled().await;
    assert_eq!(world.rooms.uploader.moves().len(), 1, "it is listed once more");
    // Older than the rename, shown only now.
    put_at(&world, "old/late", b"late", -LATER_S);
    put_at(&world, "old/sub/deep/late", b"late", -LATER_S);
    ended(&world).await;
    let wanted = ["new/a", "new/b", "new/late", "new/sub/c", "new/sub/deep/d", "new/sub/deep/late"];
    assert_eq!(world.keys(), wanted);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_directories_are_renamed_on_and_back_and_taken_apart() {
    let objects: Tree = &[("a/1", b"1"), ("a/s/2", b"2"), ("a/t/3", b"3"), ("b/4", b"4")];
    for restarts in [false, true] {
        let mut world = World::with_objects(options(), objects).await;
        world.refuse("PUT", "*", 403, "AccessDenied");
        // a -> b/a, b -> c, a child of the moving one out, the rest on, and c back to b.
        let steps: [(&str, &str, &str, &str); 6] = [
            ("", "a", "b", "a"),
            ("", "b", "", "c"),
            ("c/a", "s", "", "s"),
            ("c", "a", "", "a2"),
            ("", "c", "", "b"),
            ("", "a2", "b", "a"),
        ];
        for (from, name, to, new) in steps {
            let at = |path: &'static str| if path.is_empty() { None } else { Some(path) };
            let from = match at(from) {
                Some(path) => dir(&world, path).await,
                None => ROOT,
            };
            let to = match at(to) {
                Some(path) => dir(&world, path).await,
                None => ROOT,
            };
            world.rooms.rename((from, name), (to, new)).await;
            if restarts {
                world = world.restart().await;
            }
        }
        assert_eq!(world.rooms.names(ROOT).await, ["b", "s"]);
        assert_eq!(world.rooms.names(dir(&world, "b").await).await, ["4", "a"]);
        assert_eq!(world.rooms.names(dir(&world, "b/a").await).await, ["1", "t"]);
        assert_eq!(world.rooms.read(dir(&world, "b/a/t").await, "3").await, b"3");
        assert_eq!(world.keys(), ["a/1", "a/s/2", "a/t/3", "b/4"], "too late to show anything");
        go_on(&world).await;
        ended(&world).await;
        assert_eq!(bucket(&world), tree(&[("b/4", "4"), ("b/a/1", "1"), ("b/a/t/3", "3"), ("s/2", "2")]));
        assert_eq!(world.count("DELETE", "b/4"), 0, "what came back was there all along");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moving_directory_is_renamed_on_in_the_middle() {
    let objects: Vec<(String, Vec<u8>)> =
        (0..300).map(|n| (format!("old/{n:03}"), n.to_string().into_bytes())).collect();
    let objects: Vec<(&str, &[u8])> = objects.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let mut world = World::with_objects(options(), &objects).await;
    let names = ["old", "one", "two", "old", "three"];
    for (round, pair) in names.windows(2).enumerate() {
        let copies = world.rooms.uploader.status().counters.copies;
        world.rooms.rename((ROOT, pair[0]), (ROOT, pair[1])).await;
        world.until("some are copied", |world| world.rooms.uploader.status().counters.copies >= copies + 20).await;
        if round % 2 == 1 {
            world = world.restart().await;
        }
        let found = world.rooms.names(dir(&world, pair[1]).await).await;
        assert_eq!(found.len(), 300, "round {round}");
        assert_eq!(world.rooms.names(ROOT).await, [pair[1]], "round {round}");
    }
    ended(&world).await;
    let wanted: BTreeMap<String, String> = (0..300).map(|n| (format!("three/{n:03}"), n.to_string())).collect();
    assert_eq!(bucket(&world), wanted);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moving_directory_is_emptied_removed_and_replaced() {
    let world = World::with_objects(options(), &[("old/a", b"a"), ("old/s/b", b"b"), ("other/c", b"c")]).await;
    hold(&world, "new/");
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    let rmdir = async |parent: Ino, name: &str| world.rooms.vfs.rmdir(parent, OsStr::new(name), CALLER).await;
    assert!(matches!(rmdir(ROOT, "new").await, Err(Error::NotEmpty)), "its children are at the old name");
    let over = world.rooms.vfs.rename(ROOT, OsStr::new("other"), ROOT, OsStr::new("new"), 0, CALLER).await;
    assert!(matches!(over, Err(Error::NotEmpty)));
    let new = dir(&world, "new").await;
    let sub = dir(&world, "new/s").await;
    world.rooms.unlink(sub, "b").await;
    rmdir(new, "s").await.unwrap();
    world.rooms.unlink(new, "a").await;
    world.rooms.rename((ROOT, "other"), (ROOT, "new")).await;
    assert_eq!(world.rooms.names(dir(&world, "new").await).await, ["c"]);
    go_on(&world).await;
    ended(&world).await;
    assert_eq!(bucket(&world), tree(&[("new/c", "c")]));
    assert_eq!(world.rooms.names(ROOT).await, ["new"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_change_places_bring_what_was_never_listed() {
    let objects: Tree = &[("a/same", b"of a"), ("a/s/1", b"1"), ("b/same", b"of b"), ("b/t/2", b"2")];
    let world = World::with_objects(options(), objects).await;
    let exchange = libc::RENAME_EXCHANGE;
    world.rooms.vfs.rename(ROOT, OsStr::new("a"), ROOT, OsStr::new("b"), exchange, CALLER).await.unwrap();
    assert_eq!(world.rooms.names(dir(&world, "a").await).await, ["same", "t"]);
    assert_eq!(world.rooms.names(dir(&world, "b").await).await, ["s", "same"]);
    assert_eq!(world.rooms.read(dir(&world, "a").await, "same").await, b"of b");
    let world = world.restart().await;
    ended(&world).await;
    assert_eq!(bucket(&world), tree(&[("a/same", "of b"), ("a/t/2", "2"), ("b/s/1", "1"), ("b/same", "of a")]));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_and_markers_move_with_what_nobody_has_seen() {
    let world = World::with_objects(options(), &[]).await;
    let put = async |name: &str, mode: u32, bytes: &'static [u8]| {
        let mut headers = ferryfs::store::ObjectHeaders::default();
        headers.metadata.insert("mode".to_owned(), mode.to_string());
        headers.metadata.insert("uid".to_owned(), "1000".to_owned());
        headers.metadata.insert("theirs".to_owned(), "kept".to_owned());
        let options = ferryfs::store::PutOptions { headers, ..Default::default() };
        world.store.put(&ferryfs::types::Key(format!("{PREFIX}{name}")), bytes.into(), options).await.unwrap();
    };
    put("old/", 0o040_710, b"").await;
    put("old/sub/", 0o040_711, b"").await;
    put("old/sub/file", 0o100_640, b"content").await;
    put("old/sub/link", 0o120_777, b"file").await;
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    ended(&world).await;
    assert_eq!(world.keys(), ["new/", "new/sub/", "new/sub/file", "new/sub/link"]);
    for (name, mode) in
        [("new/", 0o040_710), ("new/sub/", 0o040_711), ("new/sub/file", 0o100_640), ("new/sub/link", 0o120_777)]
    {
        let object = world.emulator.object(BUCKET, &format!("{PREFIX}{name}")).unwrap();
        assert_eq!(object.metadata()["mode"], u32::to_string(&mode), "{name}");
        assert_eq!(object.metadata()["uid"], "1000", "{name}");
    }
    let world = world.restart().await;
    let sub = world.rooms.lookup(dir(&world, "new").await, "sub").await.unwrap();
    assert_eq!(world.rooms.vfs.getattr(sub, None).await.unwrap().mode, 0o711);
    assert_eq!(world.rooms.read(sub, "file").await, b"content");
    world.close().await;
}
