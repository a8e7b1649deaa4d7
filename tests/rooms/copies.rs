//! Copies on the server: what they carry, and those too large for one call.

use std::collections::BTreeMap;
use std::time::Duration;

use ferryfs::emulator::{Action, Fault, Match, Side, StoredObject};
use ferryfs::store::{Encryption, ObjectHeaders, PutOptions, Terms};
use ferryfs::types::Key;
use ferryfs::vfs::SetAttr;

use crate::world::{BUCKET, CALLER, Options, PREFIX, ROOT, World};

fn object(world: &World, name: &str) -> StoredObject {
    world.emulator.object(BUCKET, &format!("{PREFIX}{name}")).unwrap_or_else(|| panic!("no {name}"))
}

async fn chmod(world: &World, name: &str, mode: u32) {
    let ino = world.rooms.lookup(ROOT, name).await.unwrap();
    let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
    world.rooms.vfs.setattr(ino, None, change, CALLER).await.unwrap();
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What mappings of these tests ask for.
fn configured() -> Terms {
    Terms {
        acl: Some("private".to_owned()),
        encryption: Some(Encryption::Aes256),
        tags: tags(&[("team", "a b"), ("keep", "7&y")]),
    }
}

/// Another tool's object with everything that an object can have.
async fn put_foreign(world: &World, name: &str, bytes: Vec<u8>) {
    let mut headers = ObjectHeaders::default();
    headers.metadata.insert("mode".to_owned(), 0o100_644.to_string());
    headers.content_type = Some("text/html".to_owned());
    headers.standard.insert("cache-control".to_owned(), "no-cache".to_owned());
    headers.standard.insert("content-language".to_owned(), "zh".to_owned());
    headers.metadata.insert("colour".to_owned(), "\u{7ea2}".to_owned());
    let options = PutOptions {
        headers,
        storage_class: Some("STANDARD_IA".to_owned()),
        terms: Terms {
            acl: None,
            encryption: Some(Encryption::Kms { key_id: Some("k-1".to_owned()) }),
            tags: tags(&[("theirs", "1")]),
        },
        ..PutOptions::default()
    };
    world.store.put(&Key(format!("{PREFIX}{name}")), bytes.into(), options).await.unwrap();
}

/// It has all of that still, and the ACL that is configured.
#[track_caller]
fn is_foreign(object: &StoredObject) {
    let header = |name: &str| object.headers().get(name).map(String::as_str);
    assert_eq!(header("content-type"), Some("text/html"));
    assert_eq!(header("cache-control"), Some("no-cache"));
    assert_eq!(header("content-language"), Some("zh"));
    assert_eq!(header("x-cos-server-side-encryption"), Some("cos/kms"));
    assert_eq!(header("x-cos-server-side-encryption-cos-kms-key-id"), Some("k-1"));
    assert_eq!(object.metadata()["colour"], "%E7%BA%A2");
    assert_eq!(object.storage_class(), Some("STANDARD_IA"));
    assert_eq!(object.tags(), &tags(&[("theirs", "1")]));
    assert_eq!(object.acl(), Some("private"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_has_the_configured_acl_encryption_and_tags() {
    let world = World::new(Options { terms: configured(), ..Options::default() }).await;
    world.rooms.write(ROOT, "small", b"content").await;
    world.rooms.write(ROOT, "large", &vec![3; 5 << 20]).await;
    world.rooms.mkdir(ROOT, "dir").await;
    world.settled().await;
    world.rooms.rename((ROOT, "small"), (ROOT, "moved")).await;
    world.settled().await;
    for name in ["moved", "large", "dir/"] {
        let object = object(&world, name);
        assert_eq!(object.acl(), Some("private"), "{name}");
        assert_eq!(object.headers()["x-cos-server-side-encryption"], "AES256", "{name}");
        assert_eq!(object.tags(), &configured().tags, "{name}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_keeps_all_that_another_tool_gave_its_object() {
    let world = World::new(Options { terms: configured(), ..Options::default() }).await;
    put_foreign(&world, "f", b"content".to_vec()).await;
    world.rooms.rename((ROOT, "f"), (ROOT, "g")).await;
    world.settled().await;
    is_foreign(&object(&world, "g"));
    chmod(&world, "g", 0o600).await;
    world.settled().await;
    let object = object(&world, "g");
    assert_eq!(object.metadata()["mode"], 0o100_600.to_string());
    is_foreign(&object);
    assert_eq!(world.object("g").unwrap(), b"content");
    world.close().await;
}

/// R1: a version that follows a request of unknown outcome is looked at again two minutes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_do_not_wait_for_the_second_look_that_a_version_is_owed() {
    let world = World::new(Options { late: Duration::from_secs(120), ..Options::default() }).await;
    // Each is sent twice: the first request is lost, and its outcome unknown.
    for name in ["f", "d/"] {
        world.fault("PUT", name, Action::Cut { after: 0, side: Side::Request }, 1);
    }
    world.rooms.write(ROOT, "f", b"content").await;
    world.rooms.mkdir(ROOT, "d").await;
    world.settled().await;
    assert_eq!((world.count("PUT", "f"), world.count("PUT", "d/")), (2, 2));
    for name in ["f", "d"] {
        chmod(&world, name, 0o700).await;
    }
    world.settled().await;
    assert_eq!(object(&world, "f").metadata()["mode"], 0o100_700.to_string());
    assert_eq!(object(&world, "d/").metadata()["mode"], 0o040_700.to_string());
    assert_eq!(world.object("f").unwrap(), b"content");
    // The second look is still owed: the content is not let go before.
    assert_eq!(world.rooms.vfs.drop_clean().await.unwrap().0, 0);
    world.close().await;
}

/// Of [`MANY_PARTS`] parts.
fn large(seed: u32) -> Vec<u8> {
    (0..(4 << 20) + 7).map(|n: u32| (n.wrapping_add(seed).wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

const MANY_PARTS: usize = 5;

fn by_parts() -> Options {
    Options { copy_in_one: 2 << 20, terms: configured(), ..Options::default() }
}

/// Answered requests of one sub-resource and status on a key.
fn answered(world: &World, name: &str, sub_resource: &str, status: u16) -> usize {
    let key = format!("{PREFIX}{name}");
    let requests = world.emulator.requests();
    let wanted = |one: &&ferryfs::emulator::RequestRecord| {
        one.key == key && one.status == status && one.sub_resource.iter().any(|own| own == sub_resource)
    };
    requests.iter().filter(wanted).count()
}

/// Requests on parts meet a fault: `skip` of them pass first, `count` of them do not.
fn parts_meet(world: &World, action: Action, skip: u32, count: u32) {
    let matching = Match { sub_resource: Some("partNumber".to_owned()), ..Match::default() };
    world.emulator.add_fault(Fault { skip, count, ..Fault::new(matching, action) });
}

fn denied() -> Action {
    Action::Status { status: 403, code: "AccessDenied".to_owned(), retry_after: None }
}

/// A large foreign object `f` is to be `g`; its part copies after the second are refused.
async fn half_copied() -> World {
    let world = World::new(by_parts()).await;
    put_foreign(&world, "f", large(1)).await;
    parts_meet(&world, denied(), 2, u32::MAX);
    world.rooms.rename((ROOT, "f"), (ROOT, "g")).await;
    world.until("parts are refused", |world| !world.rooms.uploader.status().failures.is_empty()).await;
    assert_eq!(world.emulator.uploads(BUCKET).len(), 1);
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_one_copy_is_copied_in_parts() {
    let world = World::new(by_parts()).await;
    put_foreign(&world, "f", large(1)).await;
    world.rooms.rename((ROOT, "f"), (ROOT, "g")).await;
    world.settled().await;
    assert_eq!(world.keys(), ["g"]);
    assert_eq!(world.object("g").unwrap(), large(1));
    assert_eq!(object(&world, "g").parts() as usize, MANY_PARTS);
    is_foreign(&object(&world, "g"));
    assert_eq!(answered(&world, "g", "partNumber", 200), MANY_PARTS);
    assert_eq!(world.count("GET", "f"), 1, "its tags; no content travels");
    // Onto itself.
    chmod(&world, "g", 0o600).await;
    world.settled().await;
    assert_eq!(object(&world, "g").metadata()["mode"], 0o100_600.to_string());
    is_foreign(&object(&world, "g"));
    assert_eq!(world.object("g").unwrap(), large(1));
    assert_eq!(answered(&world, "g", "partNumber", 200), 2 * MANY_PARTS);
    assert_eq!(world.rooms.uploader.status().counters.copies, 2);
    assert!(world.emulator.uploads(BUCKET).is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_parts_goes_on_after_a_restart() {
    let world = half_copied().await.restart().await;
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.keys(), ["g"]);
    assert_eq!(world.object("g").unwrap(), large(1));
    is_foreign(&object(&world, "g"));
    assert_eq!(answered(&world, "g", "partNumber", 200), MANY_PARTS, "no part is copied twice");
    assert_eq!(answered(&world, "g", "uploads", 200), 1);
    assert!(world.emulator.uploads(BUCKET).is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_under_way_when_another_one_fails_are_not_lost() {
    let world = World::new(by_parts()).await;
    put_foreign(&world, "f", large(1)).await;
    parts_meet(&world, Action::Delay(500), 0, 2);
    parts_meet(&world, denied(), 0, 1);
    world.rooms.rename((ROOT, "f"), (ROOT, "g")).await;
    world.until("a part is refused", |world| !world.rooms.uploader.status().failures.is_empty()).await;
    world.rooms.uploader.retry();
    world.settled().await;
    assert!(world.emulator.faults().is_empty());
    assert!(world.object("g").unwrap() == large(1));
    let asked =
        world.emulator.requests().iter().filter(|one| one.sub_resource.iter().any(|own| own == "partNumber")).count();
    assert_eq!(asked, MANY_PARTS + 1, "only the refused one twice");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_parts_that_nothing_wants_any_more_is_aborted() {
    for removed in [true, false] {
        let world = half_copied().await;
        if removed {
            world.rooms.unlink(ROOT, "g").await;
        } else {
            world.rooms.rename((ROOT, "g"), (ROOT, "h")).await;
        }
        world
            .until("the upload to g is aborted", |world| {
                world.emulator.uploads(BUCKET).iter().all(|(key, _)| !key.ends_with("/g"))
            })
            .await;
        world.emulator.clear_faults();
        world.rooms.uploader.retry();
        world.settled().await;
        assert_eq!(world.keys(), if removed { &[][..] } else { &["h"] });
        assert!(world.emulator.uploads(BUCKET).is_empty());
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_parts_is_of_one_version() {
    let world = half_copied().await;
    // Newer than the rename: it belongs to the old name.
    world.emulator.set_clock_offset(5);
    world.emulator.put_object(BUCKET, &format!("{PREFIX}f"), &large(2)).unwrap();
    world.emulator.set_clock_offset(0);
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.keys(), ["f"]);
    assert!(world.object("f").unwrap() == large(2), "the other host's, whole");
    assert!(world.emulator.uploads(BUCKET).is_empty());
    let made: Vec<_> = world.emulator.stores().into_iter().filter(|store| store.key.ends_with("/g")).collect();
    assert_eq!(made.len(), 0, "{made:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_part_of_a_copy_becomes_no_object() {
    let world = World::new(by_parts()).await;
    put_foreign(&world, "f", large(1)).await;
    parts_meet(&world, Action::WrongCrc, 1, 1);
    world.rooms.rename((ROOT, "f"), (ROOT, "g")).await;
    world.settled().await;
    assert!(world.emulator.faults().is_empty());
    assert_eq!(world.rooms.uploader.status().counters.mismatches, 1);
    assert_eq!(answered(&world, "g", "uploads", 200), 2);
    assert_eq!(world.emulator.stores().iter().filter(|store| store.key.ends_with("/g")).count(), 1);
    assert_eq!((world.keys(), world.object("g").unwrap() == large(1)), (vec!["g".to_owned()], true));
    assert!(world.emulator.uploads(BUCKET).is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_parts_whose_answers_are_lost_is_made_once() {
    for (method, sub_resource) in [("POST", "uploads"), ("PUT", "partNumber"), ("POST", "uploadId")] {
        let world = World::new(by_parts()).await;
        put_foreign(&world, "f", large(1)).await;
        let matching =
            Match { method: Some(method.to_owned()), sub_resource: Some(sub_resource.to_owned()), ..Match::default() };
        world.emulator.add_fault(Fault::new(matching, Action::ApplyThenCut));
        world.rooms.rename((ROOT, "f"), (ROOT, "g")).await;
        world.settled().await;
        assert!(world.emulator.faults().is_empty(), "{sub_resource}");
        assert_eq!(world.keys(), ["g"], "{sub_resource}");
        assert!(world.object("g").unwrap() == large(1), "{sub_resource}");
        let made = world.emulator.stores().iter().filter(|store| store.key.ends_with("/g")).count();
        assert_eq!(made, 1, "{sub_resource}");
        assert!(world.emulator.uploads(BUCKET).is_empty(), "{sub_resource}: an upload was left behind");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_hosts_object_is_found_before_a_copy_in_parts_replaces_it() {
    let world = half_copied().await;
    // It comes to stand where nothing was, while the parts are copied.
    world.emulator.put_object(BUCKET, &format!("{PREFIX}g"), b"theirs").unwrap();
    world.emulator.clear_faults();
    world.rooms.uploader.retry();
    world.settled().await;
    assert_eq!(world.rooms.uploader.status().counters.conflicts, 1, "counted, and both are kept");
    let keys = world.keys();
    assert!(keys.len() == 2 && keys[0] == "g" && keys[1].starts_with("g.conflict-"), "{keys:?}");
    assert!(world.object("g").unwrap() == large(1) && world.object(&keys[1]).unwrap() == b"theirs");
    assert!(world.emulator.uploads(BUCKET).is_empty());
    world.close().await;
}
