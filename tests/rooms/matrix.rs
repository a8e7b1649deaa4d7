//! Every fault of the store and of OMS, at every call that meets one, at the first, a middle and the last attempt
//! that the client makes: what comes of it is in the tables.

use std::future::Future;
use std::time::{Duration, Instant};

use ferryfs::checksum::crc64;
use ferryfs::emulator::{Action, Fault, Match, Side};
use ferryfs::store::{ErrorKind, RetryOptions};
use ferryfs::types::Ino;
use ferryfs::vfs::{Error, Result};

use crate::world::{BUCKET, CALLER, LOGS, Options, PREFIX, ROOT, World};

/// Larger than one part.
const LARGE: usize = (1 << 20) + 70_001;
/// Attempts of one call (the store's client).
const ATTEMPTS: u32 = 5;
/// Refused attempts that go before the one that meets the fault.
const PLACES: [u32; 3] = [0, 2, ATTEMPTS - 1];
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than the client waits for an answer.
const STALL: Duration = Duration::from_millis(2_500);

/// What may meet a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Put,
    Initiate,
    Part,
    Complete,
    CopyWhole,
    PartCopy,
    Delete,
    DeleteMany,
    Sync,
    Record,
    Head,
    Get,
    RangedGet,
    List,
}

/// What it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Internal,
    Busy,
    Denied,
    CutBefore,
    CutAfter,
    /// In the middle of an answer.
    CutBody,
    CorruptUp,
    CorruptDown,
    WrongCrc,
    ErrorIn200,
    /// An error is answered, and the request is applied later all the same.
    Late,
    Stall,
}

use Call::{
    Complete, CopyWhole, Delete, DeleteMany, Get, Head, Initiate, List, Part, PartCopy, Put, RangedGet, Record, Sync,
};
use Flaw::{
    Busy, CorruptDown, CorruptUp, CutAfter, CutBefore, CutBody, Denied, ErrorIn200, Internal, Late, Stall, WrongCrc,
};

/// Uploads and what follows them. All of it is repeated until it has succeeded; the number is how often the object
/// may have been stored: where the first time proved wrong, or was applied behind the next.
const CHANGES: &[(Call, &[(Flaw, usize)])] = &[
    (
        Put,
        &[
            (Internal, 1),
            (Busy, 1),
            (Denied, 1),
            (CutBefore, 1),
            (CutAfter, 1),
            (CorruptUp, 1),
            (WrongCrc, 2),
            (Late, 2),
            (Stall, 2),
        ],
    ),
    (Initiate, &[(Internal, 1), (Busy, 1), (Denied, 1), (CutBefore, 1), (CutAfter, 1), (Stall, 1)]),
    (
        Part,
        &[
            (Internal, 1),
            (Busy, 1),
            (Denied, 1),
            (CutBefore, 1),
            (CutAfter, 1),
            (CorruptUp, 1),
            (WrongCrc, 1),
            (Stall, 1),
        ],
    ),
    (
        Complete,
        &[
            (Internal, 1),
            (Busy, 1),
            (Denied, 1),
            (CutBefore, 1),
            (CutAfter, 1),
            (ErrorIn200, 1),
            (WrongCrc, 2),
            (Late, 2),
        ],
    ),
    (
        CopyWhole,
        &[
            (Internal, 1),
            (Busy, 1),
            (Denied, 1),
            (CutBefore, 1),
            (CutAfter, 1),
            (ErrorIn200, 1),
            (WrongCrc, 2),
            (Late, 2),
        ],
    ),
    (PartCopy, &[(Internal, 1), (Busy, 1), (Denied, 1), (CutBefore, 1), (CutAfter, 1), (ErrorIn200, 1)]),
    (Delete, &[(Internal, 1), (Busy, 1), (Denied, 1), (CutBefore, 1), (CutAfter, 1), (Stall, 1)]),
    (DeleteMany, &[(Internal, 1), (Busy, 1), (Denied, 1), (CutBefore, 1), (CutAfter, 1), (Stall, 1)]),
    (Sync, &[(Internal, 1), (Busy, 1), (Denied, 1), (CutBefore, 1), (CutAfter, 1)]),
    (Record, &[(Internal, 1), (Busy, 1), (Denied, 1), (CutBefore, 1), (CutAfter, 1), (Stall, 1)]),
];

/// What a program sees of a read that fails; the next one succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// What it asked for: the client has repeated its request.
    Right,
    /// EIO, and the mapping is offline until a probe succeeds.
    Offline,
    /// EIO or EACCES.
    Refused(ErrorKind),
}

const SERVER: Seen = Seen::Refused(ErrorKind::Server);
const BUSY: Seen = Seen::Refused(ErrorKind::Throttled);
const DENIED: Seen = Seen::Refused(ErrorKind::AccessDenied);

/// Reads, with what is seen if the first, a middle, the last attempt meets the fault. Where the name or the
/// attributes are known already, a look-up is answered from what is known while the store is offline.
const READS: &[(Call, Flaw, [Seen; 3])] = &[
    (Head, Internal, [Seen::Right, Seen::Right, SERVER]),
    // Without a body there is no code that would tell it from other failures.
    (Head, Busy, [Seen::Right, Seen::Right, SERVER]),
    (Head, Denied, [DENIED, DENIED, DENIED]),
    (Head, CutBefore, [Seen::Right, Seen::Right, Seen::Right]),
    (Head, Stall, [Seen::Right, Seen::Right, Seen::Right]),
    (Get, Internal, [Seen::Right, Seen::Right, SERVER]),
    (Get, Busy, [Seen::Right, Seen::Right, BUSY]),
    (Get, Denied, [DENIED, DENIED, DENIED]),
    (Get, CutBefore, [Seen::Right, Seen::Right, Seen::Offline]),
    (Get, CutBody, [Seen::Right, Seen::Right, Seen::Right]),
    (Get, CorruptDown, [Seen::Right, Seen::Right, Seen::Right]),
    (Get, Stall, [Seen::Right, Seen::Right, Seen::Offline]),
    (RangedGet, Internal, [Seen::Right, Seen::Right, SERVER]),
    (RangedGet, Busy, [Seen::Right, Seen::Right, BUSY]),
    (RangedGet, Denied, [DENIED, DENIED, DENIED]),
    (RangedGet, CutBefore, [Seen::Right, Seen::Right, Seen::Offline]),
    (RangedGet, CutBody, [Seen::Right, Seen::Right, Seen::Right]),
    (RangedGet, Stall, [Seen::Right, Seen::Right, Seen::Offline]),
    (List, Internal, [Seen::Right, Seen::Right, SERVER]),
    (List, Busy, [Seen::Right, Seen::Right, BUSY]),
    (List, Denied, [DENIED, DENIED, DENIED]),
    (List, CutBefore, [Seen::Right, Seen::Right, Seen::Offline]),
    (List, Stall, [Seen::Right, Seen::Right, Seen::Offline]),
];

fn action(flaw: Flaw) -> Action {
    let refused = |status, code: &str| Action::Status { status, code: code.to_owned(), retry_after: None };
    match flaw {
        Internal | Late => refused(500, "InternalError"),
        Busy => refused(503, "SlowDown"),
        Denied => refused(403, "AccessDenied"),
        CutBefore => Action::Cut { after: 0, side: Side::Request },
        CutAfter => Action::ApplyThenCut,
        CutBody => Action::Cut { after: 500, side: Side::Response },
        CorruptUp => Action::Corrupt(Side::Request),
        CorruptDown => Action::Corrupt(Side::Response),
        WrongCrc => Action::WrongCrc,
        ErrorIn200 => Action::ErrorIn200("InternalError".to_owned()),
        Stall => Action::Delay(u64::try_from(STALL.as_millis()).unwrap()),
    }
}

fn matching(call: Call, name: &str) -> Match {
    let (bucket, method, sub, key) = match call {
        Put => (BUCKET, "PUT", "object", format!("{PREFIX}{name}")),
        Initiate => (BUCKET, "POST", "uploads", format!("{PREFIX}{name}")),
        Part => (BUCKET, "PUT", "partNumber", format!("{PREFIX}{name}")),
        Complete => (BUCKET, "POST", "uploadId", format!("{PREFIX}{name}")),
        CopyWhole => (BUCKET, "PUT", "copy", format!("{PREFIX}{name}.to")),
        PartCopy => (BUCKET, "PUT", "partNumber", format!("{PREFIX}{name}.to")),
        Delete => (BUCKET, "DELETE", "object", format!("{PREFIX}{name}")),
        DeleteMany => (BUCKET, "POST", "delete", String::new()),
        Sync => ("", "POST", "oms", format!("{PREFIX}{name}")),
        Record => (LOGS, "PUT", "object", format!("*/success_object/{PREFIX}{name}")),
        Head => (BUCKET, "HEAD", "object", format!("{PREFIX}{name}")),
        Get | RangedGet => (BUCKET, "GET", "object", format!("{PREFIX}{name}")),
        List => (BUCKET, "GET", "list", String::new()),
    };
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Match { bucket: given(bucket), method: given(method), sub_resource: given(sub), key: given(&key) }
}

/// The fault, behind as many refusals that certainly changed nothing.
fn add(world: &World, call: Call, flaw: Flaw, before: u32, name: &str) {
    if before > 0 {
        let busy = Fault::new(matching(call, name), action(Busy));
        world.emulator.add_fault(Fault { count: before, ..busy });
    }
    let apply_after_ms = (flaw == Late).then_some(300);
    world.emulator.add_fault(Fault { apply_after_ms, ..Fault::new(matching(call, name), action(flaw)) });
}

fn options() -> Options {
    Options {
        retry: RetryOptions {
            attempts: ATTEMPTS,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(5),
            throttled_base: Duration::from_millis(2),
            total: PATIENCE,
        },
        request_timeout: STALL / 2,
        multipart_above: 1 << 20,
        copy_in_one: 1 << 20,
        late: Duration::from_millis(1_500),
        sync: true,
        ..Options::default()
    }
}

fn content(case: usize, call: Call) -> Vec<u8> {
    let large = matches!(call, Initiate | Part | Complete | PartCopy | RangedGet);
    let size = if large { LARGE } else { 1_000 };
    (0..size).map(|at| (at % 251) as u8 ^ case as u8).collect()
}

/// Uploaded, announced and recorded.
async fn delivered(world: &World, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        world.rooms.uploader.hurry();
        let (left, owed) = (world.rooms.uploader.outstanding(None), world.rooms.outbox.left(None, ""));
        if left.is_empty() && owed == Default::default() {
            return;
        }
        let faults = world.emulator.faults();
        assert!(Instant::now() < deadline, "{what}: {left:?} {owed:?} {faults:?} {:?}", world.rooms.uploader.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The object is there, was nothing else at any time, and is announced and recorded.
fn right(world: &World, what: &str, name: &str, bytes: &[u8], most: usize) {
    let key = format!("{PREFIX}{name}");
    assert!(world.object(name).unwrap_or_else(|| panic!("{what}: nothing is there")) == bytes, "{what}");
    let stores: Vec<_> = world.emulator.stores().into_iter().filter(|one| one.key == key).collect();
    assert!(stores.iter().all(|one| one.crc64 == crc64(bytes).0), "{what}: {stores:?}");
    assert!((1..=most).contains(&stores.len()), "{what}: stored {} times", stores.len());
    let first = stores.iter().map(|one| one.time_ns).min().unwrap();
    let events: Vec<_> = world.emulator.oms_events().into_iter().filter(|event| event.key == key).collect();
    assert!(!events.is_empty() && events.iter().all(|event| event.time_ns >= first), "{what}: {events:?}");
    let recorded = world.emulator.keys(LOGS).iter().any(|log| log.ends_with(&format!("/success_object/{key}")));
    assert!(recorded, "{what}: not recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_change_meets_it_is_delivered_once_and_right() {
    let world = World::new(options()).await;
    let mut cases = Vec::new();
    for (call, flaws) in CHANGES.iter().filter(|(call, _)| !matches!(call, Delete | DeleteMany)) {
        for (flaw, most) in *flaws {
            for before in PLACES {
                let number = cases.len();
                let name = format!("case{number:03}");
                cases.push((
                    format!("{call:?} {flaw:?} after {before}: {name}"),
                    *call,
                    *flaw,
                    before,
                    *most,
                    name,
                    number,
                ));
            }
        }
    }
    for (_, call, _, _, _, name, number) in cases.iter().filter(|case| matches!(case.1, CopyWhole | PartCopy)) {
        world.rooms.write(ROOT, name, &content(*number, *call)).await;
    }
    delivered(&world, "what is to be renamed").await;
    for (_, call, flaw, before, _, name, number) in &cases {
        add(&world, *call, *flaw, *before, name);
        match call {
            CopyWhole | PartCopy => world.rooms.rename((ROOT, name), (ROOT, &format!("{name}.to"))).await,
            _ => drop(world.rooms.write(ROOT, name, &content(*number, *call)).await),
        }
    }
    delivered(&world, "all changes").await;
    assert_eq!(world.emulator.faults(), [], "faults that nothing met");
    // What was applied behind its own repeat has been looked for by now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    delivered(&world, "late ones").await;
    let mut names = Vec::new();
    for (what, call, _, _, most, name, number) in &cases {
        let moved = matches!(call, CopyWhole | PartCopy);
        let name = if moved { format!("{name}.to") } else { name.clone() };
        right(&world, what, &name, &content(*number, *call), *most);
        names.push(name);
    }
    assert_eq!(world.keys(), names, "nothing else is there");
    assert_eq!(world.emulator.uploads(BUCKET), [], "an upload was left behind");
    assert!(world.emulator.keys(LOGS).iter().all(|key| !key.contains("failed_object")), "all was accepted in the end");
    assert!(world.rooms.uploader.status().failures.is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_removal_meets_the_key_goes_and_nothing_else() {
    let world = World::with_objects(options(), &[("kept", b"kept")]).await;
    for (call, flaws) in CHANGES.iter().filter(|(call, _)| matches!(call, Delete | DeleteMany)) {
        for ((flaw, _), before) in flaws.iter().flat_map(|flaw| PLACES.map(|before| (flaw, before))) {
            let what = format!("{call:?} {flaw:?} after {before}");
            let names: &[&str] = if *call == Delete { &["one"] } else { &["one", "two", "three"] };
            for name in names {
                world.rooms.write(ROOT, name, name.as_bytes()).await;
            }
            delivered(&world, &what).await;
            add(&world, *call, *flaw, before, names[0]);
            for name in names {
                world.rooms.unlink(ROOT, name).await;
            }
            delivered(&world, &what).await;
            assert_eq!(world.keys(), ["kept"], "{what}");
            assert_eq!(world.rooms.names(ROOT).await, ["kept"], "{what}");
            assert_eq!(world.emulator.faults(), [], "{what}: nothing met it");
        }
    }
    world.close().await;
}

/// What a program reads in a case, whole.
async fn read(world: &World, call: Call, dir: Ino, bytes: &[u8]) -> Result<bool> {
    let vfs = &world.rooms.vfs;
    match call {
        List => {
            let fh = vfs.opendir(dir, CALLER).await?;
            let found = vfs.readdir(dir, fh, 0, usize::MAX, false).await;
            vfs.releasedir(fh);
            Ok(found?.iter().filter(|entry| entry.name == "x").count() == 1)
        }
        _ => {
            let entry = vfs.lookup(dir, "x".as_ref(), CALLER).await?;
            let ino = entry.stat.ino;
            if call == Head {
                return Ok(entry.stat.size == bytes.len() as u64);
            }
            let opened = vfs.open(ino, libc::O_RDONLY, CALLER).await?;
            let got = vfs.read(ino, opened.fh, 0, u32::try_from(bytes.len()).unwrap()).await;
            vfs.release(ino, opened.fh).await;
            Ok(got? == bytes)
        }
    }
}

async fn online(world: &World) {
    let is_online =
        |world: &World| world.rooms.namespace.read(|tree| tree.mappings().iter().all(|mapping| !mapping.is_offline()));
    world.until("online again", is_online).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_read_meets_it_is_right_or_fails_and_then_right() {
    let cases: Vec<_> = READS
        .iter()
        .flat_map(|(call, flaw, seen)| PLACES.into_iter().zip(seen).map(|(before, seen)| (*call, *flaw, before, *seen)))
        .enumerate()
        .collect();
    let objects: Vec<(String, Vec<u8>)> =
        cases.iter().map(|(number, case)| (format!("dir{number:03}/x"), content(*number, case.0))).collect();
    let given: Vec<(&str, &[u8])> = objects.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let world = World::with_objects(Options { attr_ttl: Duration::from_secs(600), ..options() }, &given).await;
    for (number, (call, flaw, before, seen)) in cases {
        let what = format!("{call:?} {flaw:?} after {before}");
        let bytes = content(number, call);
        let dir = world.rooms.lookup(ROOT, &format!("dir{number:03}")).await.unwrap();
        if call != List {
            world.rooms.names(dir).await;
        }
        if matches!(call, Get | RangedGet) {
            world.rooms.lookup(dir, "x").await.unwrap();
        }
        add(&world, call, flaw, before, &format!("dir{number:03}/x"));
        let first = bounded(&what, read(&world, call, dir, &bytes)).await;
        match (seen, &first) {
            (Seen::Right, Ok(true)) => {}
            (Seen::Offline, Err(error)) if matches!(error.first(), Error::Offline) => {}
            (Seen::Refused(kind), Err(error)) if matches!(error.first(), Error::Store(error) if error.kind == kind) => {
            }
            _ => panic!("{what}: {seen:?} was expected, {first:?} seen"),
        }
        assert_eq!(world.emulator.faults(), [], "{what}: nothing met it");
        online(&world).await;
        assert!(bounded(&what, read(&world, call, dir, &bytes)).await.unwrap(), "{what}: wrong at the second time");
    }
    assert_eq!(world.emulator.stores(), [], "reads change nothing");
    world.close().await;
}

async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} takes for ever"))
}
