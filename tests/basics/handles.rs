//! Open files: several handles, unlinked files, exclusive creation, versions.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::time::{Duration, Instant};

use super::both;
use super::harness::{Cloud, Mount, Options, errno, pattern, until};

#[test]
fn an_unlinked_file_lives_until_its_last_close_and_never_reaches_the_bucket() {
    both(
        |_| {},
        |cloud, mount| {
            let path = mount.path("gone");
            fs::write(mount.path("stays"), "x").unwrap();
            let mut file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
            file.write_all(b"one").unwrap();
            fs::remove_file(&path).unwrap();
            assert_eq!(errno(fs::metadata(&path)), Some(libc::ENOENT));
            file.write_all(b" two").unwrap();
            assert_eq!(file.metadata().unwrap().nlink(), 0);
            assert_eq!(file.metadata().unwrap().len(), 7);
            let mut all = [0; 7];
            file.read_exact_at(&mut all, 0).unwrap();
            assert_eq!(&all, b"one two");
            drop(file);

            // One that the bucket has: its object goes, the handle goes on.
            fs::write(&path, "stored").unwrap();
            mount.wait_all();
            cloud.holds("data/gone", b"stored");
            let mut file = File::open(&path).unwrap();
            fs::remove_file(&path).unwrap();
            until("the object is deleted", || cloud.object("data/gone").is_none());
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "stored");
            drop(file);
            mount.wait_all();
            assert_eq!(cloud.keys(), ["data/stays"]);
            assert_eq!(cloud.count("PUT", "data/gone"), 1, "the first was never closed under a name");
        },
    );
}

#[test]
fn exclusive_creation_is_exclusive() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/theirs", b"theirs");
            let new = |name: &str| fs::OpenOptions::new().write(true).create_new(true).open(mount.path(name));
            drop(new("ours").unwrap());
            assert_eq!(errno(new("ours")), Some(libc::EEXIST));
            assert_eq!(errno(new("theirs")), Some(libc::EEXIST));
            assert_eq!(fs::read(mount.path("theirs")).unwrap(), b"theirs");
            mount.wait_all();
            cloud.holds("data/theirs", b"theirs");
            cloud.holds("data/ours", b"");
        },
    );
}

#[test]
fn nothing_goes_up_before_the_last_writer_closed() {
    both(
        |_| {},
        |cloud, mount| {
            let path = mount.path("file");
            fs::write(&path, "good").unwrap();
            mount.wait("file");

            let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let mut reader = File::open(&path).unwrap();
            writer.write_all(b"half").unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "half", "a reader sees the writer's bytes");
            // A second writer comes and goes; the first is still at it.
            let mut second = fs::OpenOptions::new().append(true).open(&path).unwrap();
            second.write_all(b" and").unwrap();
            drop(second);
            drop(reader);
            // Whatever comes after in the queue is through: time enough for a wrong upload.
            fs::write(mount.path("other"), "x").unwrap();
            mount.wait("other");
            cloud.holds("data/file", b"good");
            assert_eq!(cloud.count("PUT", "data/file"), 1);
            writer.write_all_at(b" half", 8).unwrap();
            drop(writer);
            mount.wait("file");
            cloud.holds("data/file", b"half and half");
            assert_eq!(cloud.count("PUT", "data/file"), 2);
        },
    );
}

#[test]
fn a_program_may_start_others_while_it_writes() {
    both(
        |_| {},
        |cloud, mount| {
            let mut file = File::create(mount.path("file")).unwrap();
            for word in ["one ", "two ", "three"] {
                file.write_all(word.as_bytes()).unwrap();
                // Its execve closes the inherited descriptor and waits for the answer.
                assert!(Command::new("true").status().unwrap().success());
            }
            drop(file);
            mount.wait("file");
            cloud.holds("data/file", b"one two three");
            assert_eq!(cloud.count("PUT", "data/file"), 1);
        },
    );
}

#[test]
fn a_handle_opened_for_writing_that_wrote_nothing_costs_nothing() {
    both(
        |_| {},
        |cloud, mount| {
            fs::write(mount.path("file"), "content").unwrap();
            mount.wait("file");
            drop(fs::OpenOptions::new().write(true).open(mount.path("file")).unwrap());
            drop(fs::OpenOptions::new().append(true).open(mount.path("file")).unwrap());
            mount.wait_all();
            assert_eq!(cloud.count("PUT", "data/file"), 1);
            assert_eq!(cloud.announced(), ["data/file"]);
        },
    );
}

#[test]
fn another_clients_version_is_seen_and_never_mixed() {
    both(
        |options| options.attr_ttl = "50ms",
        |cloud, mount| {
            let path = mount.path("file");
            let (old, new) = (pattern(1, 100_000), pattern(2, 90_000));
            cloud.put("data/file", &old);
            let mut reader = File::open(&path).unwrap();
            let mut begin = vec![0; 1000];
            reader.read_exact(&mut begin).unwrap();
            let ino = reader.metadata().unwrap().ino();

            cloud.put("data/file", &new);
            until("the new version is seen", || fs::metadata(&path).unwrap().len() == 90_000);
            assert!(fs::read(&path).unwrap() == new);
            assert_ne!(fs::metadata(&path).unwrap().ino(), ino, "an inode is one version's while it is open");
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            begin.extend(rest);
            assert!(begin == old, "the handle reads what it opened");
            assert_eq!(reader.metadata().unwrap().len(), 100_000);

            // And its removal.
            cloud.emulator().delete_object(super::harness::BUCKET, "data/file").unwrap();
            until("the removal is seen", || errno_of(fs::metadata(&path)) == Some(libc::ENOENT));
            mount.wait_all();
        },
    );
}

fn errno_of<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Above what is fetched whole at open.
const LARGE: usize = 40 << 20;

#[test]
fn a_large_object_is_read_while_it_arrives() {
    let bytes = pattern(3, LARGE);
    for passthrough in [true, false] {
        // Two seconds for all of it.
        let cloud = Cloud::with(Duration::ZERO, Some(20 << 20));
        cloud.put("data/large", &bytes);
        let mut mount = Mount::new(&cloud, Options { passthrough, ..Options::default() });
        let sent = |cloud: &Cloud| {
            let requests = cloud.requests("GET", "data/large");
            requests.iter().map(|request| request.response_bytes).sum::<u64>()
        };
        let begin = Instant::now();
        let mut file = File::open(mount.path("large")).unwrap();
        let mut first = vec![0; 4096];
        file.read_exact(&mut first).unwrap();
        assert!(first == bytes[..4096]);
        assert!(sent(&cloud) < LARGE as u64 / 2, "{} bytes before the first were read", sent(&cloud));
        // Backwards and forwards, across whatever boundaries the requests have.
        let noise = pattern(4, 400);
        for place in noise.chunks_exact(4).take(20) {
            let at = u32::from_le_bytes([place[0], place[1], place[2], 0]) as usize * 2;
            let mut piece = vec![0; 70_001];
            file.read_exact_at(&mut piece, at as u64).unwrap();
            assert!(piece == bytes[at..at + 70_001], "at {at}");
        }
        let other = fs::read(mount.path("large")).unwrap();
        assert!(other == bytes);
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert!(rest == bytes[4096..]);
        eprintln!("passthrough {passthrough}: read in {:?}, {} bytes sent for {LARGE}", begin.elapsed(), sent(&cloud));
        assert!(sent(&cloud) < LARGE as u64 * 5 / 4, "fetched more than once: {}", sent(&cloud));
        drop(file);
        // Verified by then: the next open is served here.
        let before = sent(&cloud);
        assert!(fs::read(mount.path("large")).unwrap() == bytes);
        assert_eq!(sent(&cloud), before);
        mount.umount();
    }
}
