//! What the bucket ends up with.

use std::time::{Duration, Instant};

use ferryfs::emulator::{Action, Fault, Match};
use ferryfs::journal::Content;
use ferryfs::store::{ObjectHeaders, PutOptions};
use ferryfs::types::{FileKind, Key};

use crate::world::{BUCKET, Options, PREFIX, ROOT, World};

/// Attributes as another host writes them.
fn headers(mode: u32, uid: u32) -> ObjectHeaders {
    let mut headers = ObjectHeaders::default();
    for (name, value) in [("mode", mode.to_string()), ("uid", uid.to_string()), ("mtime", "1700000000".to_owned())] {
        headers.metadata.insert(name.to_owned(), value);
    }
    headers
}

async fn put_with(world: &World, name: &str, bytes: &'static [u8], headers: ObjectHeaders) {
    let options = PutOptions { headers, ..PutOptions::default() };
    world.store.put(&Key(format!("{PREFIX}{name}")), bytes.into(), options).await.unwrap();
}

fn metadata(world: &World, name: &str, header: &str) -> Option<String> {
    world.emulator.object(BUCKET, &format!("{PREFIX}{name}")).unwrap().metadata().get(header).cloned()
}

/// Looks that ended while `span` passed: a queue that spins shows thousands.
async fn looks(world: &World, span: Duration) -> u64 {
    let watch = world.rooms.uploader.watch();
    let before = *watch.borrow();
    tokio::time::sleep(span).await;
    *watch.borrow() - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_upload_keeps_its_pause_whoever_hurries() {
    let world = World::new(Options::default()).await;
    world.refuse("PUT", "a", 403, "AccessDenied");
    world.rooms.write(ROOT, "a", b"content").await;
    world
        .until("a second try", |world| {
            world.rooms.uploader.hurry();
            world.count("PUT", "a") >= 2
        })
        .await;
    let tries: Vec<i64> =
        world.emulator.requests().iter().filter(|one| one.method == "PUT").map(|one| one.time_ns).collect();
    let pause = Duration::from_nanos(u64::try_from(tries[1] - tries[0]).unwrap());
    assert!(pause >= Duration::from_millis(400), "tried again after {pause:?}");
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.object("a").unwrap(), b"content");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_renamed_while_it_is_open_moves_when_it_is_closed_unchanged() {
    let world = World::new(Options::default()).await;
    world.rooms.write(ROOT, "old", b"content").await;
    world.settled().await;
    let open = world.rooms.open_file(ROOT, "old", libc::O_RDWR).await;
    let mut watch = world.rooms.uploader.watch();
    watch.mark_unchanged();
    world.rooms.rename((ROOT, "old"), (ROOT, "new")).await;
    // The uploader has looked, and found it open.
    tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.unwrap().unwrap();
    assert_eq!(world.keys(), ["old"]);
    world.rooms.close_file(open).await;
    world.settled().await;
    assert_eq!(world.keys(), ["new"]);
    assert_eq!(world.object("new").unwrap(), b"content");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_replaced_version_does_not_keep_its_successors_old_key() {
    let world = World::new(Options::default()).await;
    world.rooms.write(ROOT, "doc", b"one").await;
    world.settled().await;
    let (ino, fh) = world.rooms.open_file(ROOT, "doc", libc::O_RDONLY).await;
    world.rooms.write(ROOT, "doc.tmp", b"two").await;
    world.rooms.rename((ROOT, "doc.tmp"), (ROOT, "doc")).await;
    world.settled().await;
    world.rooms.rename((ROOT, "doc"), (ROOT, "doc.bak")).await;
    world.settled().await;
    assert_eq!(world.keys(), ["doc.bak"], "the old name would come back");
    assert_eq!(&world.rooms.vfs.read(ino, fh, 0, 10).await.unwrap()[..], b"one");
    world.rooms.vfs.release(ino, fh).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_whose_old_version_is_being_read_waits_for_the_reader_without_spinning() {
    // Everything is served while it arrives, so the reader needs the key to the end.
    let options = Options { whole_below: 0, ..Options::default() };
    let world = World::with_objects(options, &[("large", &[7; 300_000])]).await;
    let (ino, fh) = world.rooms.open_file(ROOT, "large", libc::O_RDONLY).await;
    world.rooms.unlink(ROOT, "large").await;
    world.rooms.write(ROOT, "large", b"new").await;
    let looks = looks(&world, Duration::from_millis(500)).await;
    assert!(looks < 50, "{looks} looks in half a second");
    assert_eq!(world.object("large").unwrap().len(), 300_000);
    assert_eq!(world.rooms.vfs.read(ino, fh, 299_990, 100).await.unwrap().len(), 10);
    world.rooms.vfs.release(ino, fh).await;
    world.settled().await;
    assert_eq!(world.object("large").unwrap(), b"new");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_failing_inode_does_not_hurry_it() {
    let world = World::new(Options::default()).await;
    world.rooms.write(ROOT, "a", b"first").await;
    world.settled().await;
    world.refuse("PUT", "b", 403, "AccessDenied");
    world.rooms.rename((ROOT, "a"), (ROOT, "b")).await;
    world.rooms.write(ROOT, "a", b"second").await;
    world.until("the copy is refused", |world| world.count("PUT", "b") > 0).await;
    let looks = looks(&world, Duration::from_millis(500)).await;
    assert!(looks < 50, "{looks} looks in half a second");
    assert_eq!(world.object("a").unwrap(), b"first", "the only copy of b");
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!((world.object("a").unwrap(), world.object("b").unwrap()), (b"second".to_vec(), b"first".to_vec()));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_names_are_swapped_in_the_bucket() {
    let world = World::new(Options { delay: Duration::from_millis(200), ..Options::default() }).await;
    world.rooms.write(ROOT, "a", b"one").await;
    world.rooms.write(ROOT, "b", b"two").await;
    world.settled().await;
    for round in 0..3 {
        world.rooms.rename((ROOT, "a"), (ROOT, "c")).await;
        world.rooms.rename((ROOT, "b"), (ROOT, "a")).await;
        world.rooms.rename((ROOT, "c"), (ROOT, "b")).await;
        world.settled().await;
        assert_eq!(world.keys(), ["a", "b"], "round {round}");
    }
    assert_eq!((world.object("a").unwrap(), world.object("b").unwrap()), (b"two".to_vec(), b"one".to_vec()));
    assert_eq!(world.rooms.names(ROOT).await, ["a", "b"]);
    world.close().await;
}

/// A multipart upload whose parts are refused.
async fn refused_in_parts(world: &World) {
    let matching = Match { sub_resource: Some("partNumber".to_owned()), ..Match::default() };
    let action = Action::Status { status: 403, code: "AccessDenied".to_owned(), retry_after: None };
    world.emulator.add_fault(Fault { count: u32::MAX, ..Fault::new(matching, action) });
    world.rooms.write(ROOT, "big", &vec![1; 5 << 20]).await;
    world.until("a part is refused", |world| !world.rooms.uploader.status().failures.is_empty()).await;
    assert_eq!(world.emulator.uploads(BUCKET).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_parts_that_nothing_continues_is_aborted() {
    let world = World::new(Options::default()).await;
    refused_in_parts(&world).await;
    world.rooms.write(ROOT, "big", b"small now").await;
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), b"small now");
    assert!(world.emulator.uploads(BUCKET).is_empty(), "its parts would be paid for until the next start");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_parts_of_a_removed_file_is_aborted() {
    let world = World::new(Options::default()).await;
    refused_in_parts(&world).await;
    world.rooms.unlink(ROOT, "big").await;
    world.until("the upload is aborted", |world| world.emulator.uploads(BUCKET).is_empty()).await;
    world.settled().await;
    assert!(world.keys().is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_that_nobody_has_looked_at_move_with_their_directory() {
    let world = World::new(Options { delay: Duration::from_millis(300), ..Options::default() }).await;
    put_with(&world, "d/file", b"content", headers(0o100_600, 1000)).await;
    put_with(&world, "d/link", b"file", headers(0o120_777, 1000)).await;
    put_with(&world, "d/unseen", b"x", headers(0o100_711, 1001)).await;
    world.rooms.rename((ROOT, "d"), (ROOT, "e")).await;
    let dir = world.rooms.lookup(ROOT, "e").await.unwrap();
    assert_eq!(world.rooms.names(dir).await, ["file", "link", "unseen"]);
    // Before anything is copied: what is looked at shows what the bucket says, at the old keys.
    assert_eq!(world.keys(), ["d/file", "d/link", "d/unseen"]);
    let file = world.rooms.lookup(dir, "file").await.expect("renamed and not copied yet, it is there");
    let stat = world.rooms.vfs.getattr(file, None).await.unwrap();
    assert_eq!((stat.mode, stat.uid, stat.mtime.sec()), (0o600, 1000, 1_700_000_000));
    let link = world.rooms.lookup(dir, "link").await.unwrap();
    assert_eq!(world.rooms.vfs.getattr(link, None).await.unwrap().kind, FileKind::Symlink);
    assert_eq!(&world.rooms.vfs.readlink(link).await.unwrap()[..], b"file");
    world.settled().await;
    assert_eq!(world.keys(), ["e/file", "e/link", "e/unseen"]);
    for (name, mode, uid) in
        [("e/file", 0o100_600, "1000"), ("e/link", 0o120_777, "1000"), ("e/unseen", 0o100_711, "1001")]
    {
        assert_eq!(metadata(&world, name, "mode"), Some(u32::to_string(&mode)), "{name}");
        assert_eq!(metadata(&world, name, "uid").as_deref(), Some(uid), "{name}");
        assert_eq!(metadata(&world, name, "mtime").as_deref(), Some("1700000000"), "{name}");
    }
    let unseen = world.rooms.lookup(dir, "unseen").await.unwrap();
    assert_eq!(world.rooms.vfs.getattr(unseen, None).await.unwrap().mode, 0o711);
    assert_eq!(world.rooms.read(dir, "file").await, b"content");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_written_anew_while_its_copy_fails_keeps_its_name() {
    let world = World::with_objects(Options::default(), &[("f", b"theirs")]).await;
    let ino = world.rooms.lookup(ROOT, "f").await.unwrap();
    // The copy's look at its source takes long enough for a program to open the file meanwhile.
    world.fault("HEAD", "f", Action::Delay(1000), 1);
    world.rooms.rename((ROOT, "f"), (ROOT, "g")).await;
    world.emulator.delete_object(BUCKET, &format!("{PREFIX}f")).unwrap();
    let attempting = |world: &World| world.rooms.namespace.read(|tree| tree.get(ino).unwrap().attempting);
    world.until("the copy begins", attempting).await;
    let file = world.rooms.open_file(ROOT, "g", libc::O_WRONLY | libc::O_TRUNC).await;
    assert!(attempting(&world), "too late to show anything");
    world.until("the copy fails", |world| !attempting(world)).await;
    world.rooms.append(file, 0, b"ours").await;
    world.rooms.close_file(file).await;
    world.settled().await;
    assert_eq!(world.keys(), ["g"]);
    assert_eq!(world.object("g").unwrap(), b"ours");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_of_another_host_is_not_overwritten() {
    let world = World::new(Options { delay: Duration::from_millis(300), ..Options::default() }).await;
    world.rooms.mkdir(ROOT, "d").await;
    put_with(&world, "d/", b"", headers(0o040_700, 1000)).await;
    world.settled().await;
    assert_eq!(metadata(&world, "d/", "uid").as_deref(), Some("1000"));
    assert_eq!(metadata(&world, "d/", "ferry"), None);
    let dir = world.rooms.lookup(ROOT, "d").await.unwrap();
    let stat = world.rooms.vfs.getattr(dir, None).await.unwrap();
    assert_eq!((stat.mode, stat.uid), (0o700, 1000));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_marker_comes_before_the_last_removal() {
    let world = World::with_objects(Options::default(), &[("d/x", b"x")]).await;
    world.fault("PUT", "d/", Action::Delay(300), 1);
    let dir = world.rooms.lookup(ROOT, "d").await.unwrap();
    world.rooms.unlink(dir, "x").await;
    world.settled().await;
    assert_eq!(world.keys(), ["d/"]);
    let sent: Vec<String> = world
        .emulator
        .requests()
        .into_iter()
        .filter(|one| ["PUT", "DELETE"].contains(&one.method.as_str()))
        .map(|one| format!("{} {}", one.method, one.key))
        .collect();
    assert_eq!(sent, ["PUT data/d/", "DELETE data/d/x"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_goes_on_when_the_file_that_would_replace_it_is_removed_too() {
    let world = World::new(Options::default()).await;
    world.rooms.write(ROOT, "a", b"one").await;
    world.settled().await;
    let mut watch = world.rooms.uploader.watch();
    world.rooms.unlink(ROOT, "a").await;
    let open = world.rooms.create(ROOT, "a").await;
    watch.mark_unchanged();
    tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.unwrap().unwrap();
    assert_eq!(world.object("a").unwrap(), b"one", "the only good version while the new one is open (P2)");
    let removed = Instant::now();
    world.rooms.unlink(ROOT, "a").await;
    world.settled().await;
    assert!(removed.elapsed() < Duration::from_secs(4), "it was found by chance");
    assert!(world.keys().is_empty());
    world.rooms.close_file(open).await;
    world.settled().await;
    assert!(world.keys().is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_request_is_found_and_undone() {
    let world = World::new(Options { late: Duration::from_secs(3), ..Options::default() }).await;
    world.rooms.write(ROOT, "f", b"zero").await;
    world.settled().await;
    // The first try to send `one` gets no answer, lies in some queue, and is applied after `two`.
    let matching = Match { method: Some("PUT".to_owned()), ..Match::default() };
    let late = Fault { apply_after_ms: Some(2000), ..Fault::new(matching, Action::ApplyThenCut) };
    world.emulator.add_fault(late);
    world.rooms.write(ROOT, "f", b"one").await;
    world.settled().await;
    world.rooms.write(ROOT, "f", b"two").await;
    world.settled().await;
    assert_eq!(world.object("f").unwrap(), b"two");
    world.until("the late request arrives", |world| world.object("f").unwrap() == b"one").await;
    world.rooms.vfs.drop_clean().await.unwrap();
    world.until("it is undone", |world| world.object("f").unwrap() == b"two").await;
    world.settled().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_parts_goes_on_after_a_restart() {
    let world = World::new(Options::default()).await;
    let matching = Match { sub_resource: Some("partNumber".to_owned()), ..Match::default() };
    let action = Action::Status { status: 403, code: "AccessDenied".to_owned(), retry_after: None };
    world.emulator.add_fault(Fault { count: u32::MAX, skip: 4, ..Fault::new(matching, action) });
    let content: Vec<u8> = (0..7 << 20).map(|n: u32| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    world.rooms.write(ROOT, "big", &content).await;
    world.until("parts are sent and refused", |world| !world.rooms.uploader.status().failures.is_empty()).await;
    let world = world.restart().await;
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert!(world.emulator.uploads(BUCKET).is_empty());
    let requests = world.emulator.requests();
    let sent = |name: &str, status: u16| {
        requests.iter().filter(|one| one.status == status && one.sub_resource.iter().any(|sub| sub == name)).count()
    };
    // Four of seven had arrived; those of them that were in flight when another was refused (at
    // most three) had no row yet.
    assert!((7..=10).contains(&sent("partNumber", 200)), "parts that were there are sent again");
    assert_eq!(sent("uploads", 200), 1, "one upload");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_parts_that_somebody_aborted_begins_anew() {
    let world = World::new(Options::default()).await;
    refused_in_parts(&world).await;
    let (key, id) = world.emulator.uploads(BUCKET).pop().unwrap();
    world.store.abort_multipart(&Key(key), &id).await.unwrap();
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), vec![1; 5 << 20]);
    assert!(world.emulator.uploads(BUCKET).is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_or_renamed_while_it_goes_up_leaves_nothing_behind() {
    let world = World::new(Options::default()).await;
    for name in ["removed", "renamed"] {
        world.fault("PUT", name, Action::Delay(700), 1);
        let ino = world.rooms.write(ROOT, name, name.as_bytes()).await;
        let attempting =
            move |world: &World| world.rooms.namespace.read(|tree| tree.get(ino).is_some_and(|inode| inode.attempting));
        world.until("it goes up", attempting).await;
        if name == "removed" {
            world.rooms.unlink(ROOT, name).await;
        } else {
            world.rooms.rename((ROOT, name), (ROOT, "elsewhere")).await;
        }
        assert!(attempting(&world), "too late to show anything");
    }
    world.settled().await;
    world.until("the leftovers are gone", |world| world.keys() == ["elsewhere"]).await;
    assert_eq!(world.object("elsewhere").unwrap(), b"renamed");
    world.settled().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_after_the_attempts_for_removed_files() {
    let world = World::new(Options::default()).await;
    // One is under way, of the other nobody knows whether it has arrived.
    world.fault("PUT", "slow", Action::Delay(2_000), 1);
    world.fault("PUT", "lost", Action::ApplyThenCut, 1);
    world.refuse("HEAD", "lost", 403, "AccessDenied");
    for name in ["slow", "lost"] {
        world.rooms.write(ROOT, name, b"content").await;
    }
    world.until("one is under way", |world| world.count("PUT", "slow") > 0).await;
    world.until("the other is asked for", |world| world.count("HEAD", "lost") > 0).await;
    for name in ["slow", "lost"] {
        world.rooms.unlink(ROOT, name).await;
    }
    assert!(world.object("slow").is_none(), "too late to show anything");
    assert_eq!(world.rooms.uploader.outstanding(None).removals, 2);
    let slow_is_settled = |world: &World| world.rooms.uploader.outstanding(None).removals == 1;
    world.until("one end is known", slow_is_settled).await;
    assert_eq!(world.keys(), ["lost"], "what was sent in vain is gone");
    // Nothing but the attempt's row is left of it.
    let world = world.restart().await;
    assert_eq!(world.rooms.uploader.outstanding(None).removals, 1);
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert!(world.keys().is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_costs_one_commit_and_is_on_record_in_server_mode_too() {
    let world = World::new(Options { delay: Duration::from_secs(30), ..Options::default() }).await;
    let (ino, fh) = world.rooms.create(ROOT, "f").await;
    world.rooms.append((ino, fh), 0, b"content").await;
    let before = world.rooms.journal.commits();
    world.rooms.vfs.flush(ino, fh, 0).await.unwrap();
    assert_eq!(world.rooms.journal.commits() - before, 1);
    let rows = world.rooms.journal.load().unwrap().inodes;
    let row = rows.iter().find(|row| row.ino == ino).unwrap();
    assert_eq!((row.content, row.size), (Content::Flushed, 7));
    assert!(row.mark.is_some());
    world.rooms.vfs.release(ino, fh).await;
    world.settled().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_request_for_a_removed_file_does_not_bring_it_back() {
    let world = World::new(Options { late: Duration::from_secs(7), ..Options::default() }).await;
    // No try is answered; the first is applied when nobody thinks of it any more.
    let matching = Match { method: Some("PUT".to_owned()), ..Match::default() };
    let action = Action::Status { status: 500, code: "InternalError".to_owned(), retry_after: None };
    let late = Fault { count: u32::MAX, apply_after_ms: Some(5500), ..Fault::new(matching, action) };
    world.emulator.add_fault(late);
    world.rooms.write(ROOT, "f", b"content").await;
    world.until("a PUT is lost", |world| world.count("PUT", "f") > 0).await;
    world.rooms.unlink(ROOT, "f").await;
    world.until("its outcome is asked for", |world| world.count("HEAD", "f") > 0).await;
    world.settled().await;
    assert!(world.object("f").is_none(), "too early to show anything");
    world.until("the late request arrives", |world| world.object("f").is_some()).await;
    world.until("its object is removed", |world| world.object("f").is_none()).await;
    world.settled().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_request_at_a_name_that_was_left_does_not_bring_it_back() {
    let world = World::new(Options { late: Duration::from_secs(5), ..Options::default() }).await;
    // The first try is looked for, not found and repeated; it is applied when its file is elsewhere.
    let matching = Match { method: Some("PUT".to_owned()), ..Match::default() };
    let late = Fault { apply_after_ms: Some(3000), ..Fault::new(matching, Action::ApplyThenCut) };
    world.emulator.add_fault(late);
    world.rooms.write(ROOT, "f", b"content").await;
    world.settled().await;
    world.rooms.rename((ROOT, "f"), (ROOT, "g")).await;
    world.settled().await;
    assert_eq!(world.keys(), ["g"], "too late to show anything");
    world.until("the late request arrives", |world| world.object("f").is_some()).await;
    world.until("its object is removed", |world| world.object("f").is_none()).await;
    world.settled().await;
    assert_eq!(world.keys(), ["g"]);
    assert_eq!(world.object("g").unwrap(), b"content");
    world.close().await;
}
