//! Two mounts of one prefix: what one host does, as the other sees it.

use std::fs::{self, File};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::inotify;

use super::both;
use super::harness::{Answer, BUCKET, Cloud, Mount, Options, names, pattern, until};

/// `attr_ttl` of the tests that measure it.
const TTL: Duration = Duration::from_secs(2);
/// For requests, on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// A test of two hosts, with and without passthrough. The second one's own changes do not matter to it.
fn two(change: impl Fn(&mut Options), test: impl Fn(&Cloud, &Mount, &Mount)) {
    for passthrough in [true, false] {
        eprintln!("passthrough: {passthrough}");
        let cloud = Cloud::start();
        let mut options = Options { passthrough, attr_ttl: "2s", ..Options::default() };
        let mut theirs = Mount::new(&cloud, options.clone());
        change(&mut options);
        let mut ours = Mount::new(&cloud, options);
        test(&cloud, &ours, &theirs);
        ours.umount();
        theirs.umount();
    }
}

/// `is_so` within the TTL from now.
#[track_caller]
fn soon(what: &str, is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    until(what, is_so);
    assert!(start.elapsed() <= TTL + SLACK, "{what}: after {:?}", start.elapsed());
}

#[test]
fn what_another_host_does_is_seen_within_attr_ttl() {
    two(
        |_| {},
        |_, ours, theirs| {
            // Made and looked at here a moment ago: nothing of it may be believed for longer.
            fs::create_dir(ours.path("dir")).unwrap();
            fs::create_dir(ours.path("empty")).unwrap();
            for name in ["changed", "deleted", "renamed", "dir/inner", "mode"] {
                fs::write(ours.path(name), "ours").unwrap();
            }
            fs::create_dir_all(ours.path("tree/deep/deeper")).unwrap();
            fs::write(ours.path("tree/deep/deeper/file"), "ours").unwrap();
            ours.wait_all();
            // The store's times are whole seconds.
            let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let made = second();
            until("the next second", || second() > made);
            soon("all that was made there", || names(theirs.dir()).len() == 7);
            assert!(!ours.path("new").exists() && !ours.path("new dir").exists());
            assert_eq!(names(&ours.path("dir")), ["inner"]);

            fs::write(theirs.path("new"), "new").unwrap();
            fs::create_dir(theirs.path("new dir")).unwrap();
            fs::write(theirs.path("new dir/file"), "deep").unwrap();
            fs::write(theirs.path("changed"), "theirs, longer").unwrap();
            fs::set_permissions(theirs.path("mode"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::remove_file(theirs.path("deleted")).unwrap();
            fs::rename(theirs.path("renamed"), theirs.path("moved")).unwrap();
            fs::rename(theirs.path("dir"), theirs.path("moved dir")).unwrap();
            fs::remove_dir(theirs.path("empty")).unwrap();
            // Nothing below it is looked at here: its absence is its own.
            fs::rename(theirs.path("tree"), theirs.path("moved tree")).unwrap();
            theirs.wait_all();

            let start = Instant::now();
            let read = |name: &str| fs::read_to_string(ours.path(name)).ok();
            until("new files", || read("new").as_deref() == Some("new"));
            until("new directories", || read("new dir/file").as_deref() == Some("deep"));
            until("content", || read("changed").as_deref() == Some("theirs, longer"));
            assert_eq!(fs::metadata(ours.path("changed")).unwrap().len(), 14);
            until("modes", || fs::metadata(ours.path("mode")).unwrap().permissions().mode() & 0o777 == 0o600);
            until("removals", || !ours.path("deleted").exists());
            until("renames", || read("moved").as_deref() == Some("ours") && !ours.path("renamed").exists());
            until("renamed directories", || {
                read("moved dir/inner").as_deref() == Some("ours") && !ours.path("dir/inner").exists()
            });
            until("removed directories", || !ours.path("empty").exists());
            let all = ["changed", "mode", "moved", "moved dir", "moved tree", "new", "new dir"];
            until("the listing", || names(ours.dir()) == all);
            assert!(start.elapsed() <= TTL + SLACK, "after {:?}", start.elapsed());
        },
    );
}

#[test]
fn a_reader_of_what_another_host_replaces_gets_one_version() {
    two(
        |_| {},
        |_, ours, theirs| {
            let (old, new) = (pattern(1, 300_000), pattern(2, 200_000));
            fs::write(theirs.path("file"), &old).unwrap();
            theirs.wait_all();
            soon("the file", || ours.path("file").exists());
            let mut reader = File::open(ours.path("file")).unwrap();
            let mut got = vec![0; 1000];
            reader.read_exact(&mut got).unwrap();
            fs::write(theirs.path("file"), &new).unwrap();
            theirs.wait_all();
            soon("the new version", || fs::read(ours.path("file")).unwrap() == new);
            reader.read_to_end(&mut got).unwrap();
            assert!(got == old, "the handle reads what it opened");
            // At once after an open has seen it.
            assert_eq!(fs::metadata(ours.path("file")).unwrap().len(), 200_000);
        },
    );
}

#[test]
fn two_hosts_that_write_one_file_keep_both_versions() {
    two(
        // Goes up when it is waited for.
        |options| {
            options.delay = "10m";
            options.write_back = "max_delay = \"10m\"".to_owned();
        },
        |cloud, ours, theirs| {
            fs::write(theirs.path("report"), "base").unwrap();
            theirs.wait_all();
            soon("the file", || ours.path("report").exists());
            fs::write(ours.path("report"), "ours").unwrap();
            fs::write(theirs.path("report"), "theirs").unwrap();
            theirs.wait_all();
            cloud.holds("data/report", b"theirs");
            ours.wait_all();
            cloud.holds("data/report", b"ours");
            let seen = names(ours.dir());
            let [_, conflict] = &seen[..] else { panic!("{seen:?}") };
            assert!(conflict.starts_with("report.conflict-20"), "{conflict}");
            cloud.holds(&format!("data/{conflict}"), b"theirs");
            assert!(cloud.announced().contains(&format!("data/{conflict}")), "{:?}", cloud.announced());
            assert_eq!(ours.status().counters.conflicts, 1);
            soon("both there", || names(theirs.dir()) == seen);
            for mount in [ours, theirs] {
                soon("the content", || {
                    let read = |name: &str| fs::read_to_string(mount.path(name)).unwrap();
                    (read("report").as_str(), read(conflict).as_str()) == ("ours", "theirs")
                });
            }
        },
    );
}

#[test]
fn refresh_asks_the_bucket_at_once() {
    both(
        |options| options.attr_ttl = "10m",
        |cloud, mount| {
            for key in ["data/changed", "data/gone", "data/dir/inner", "data/other/inner"] {
                cloud.put(key, b"old");
            }
            let read = |name: &str| fs::read_to_string(mount.path(name)).unwrap();
            let look = || {
                for dir in ["", "dir", "other"] {
                    names(&mount.path(dir));
                }
                (read("changed"), mount.path("gone").exists(), read("dir/inner"), read("other/inner"))
            };
            let old = ("old".to_owned(), true, "old".to_owned(), "old".to_owned());
            assert_eq!(look(), old);
            for key in ["data/changed", "data/dir/inner", "data/other/inner", "data/new"] {
                cloud.put(key, b"new content");
            }
            cloud.emulator().delete_object(BUCKET, "data/gone").unwrap();
            assert_eq!(look(), old, "believed for ten minutes");

            let refresh = |words: &[&str]| Answer::of(mount.run(&["refresh"], words));
            // A file, and nothing else.
            refresh(&["dir/inner"]).is(0, "");
            assert_eq!((read("dir/inner").as_str(), read("other/inner").as_str()), ("new content", "old"));
            refresh(&["gone"]).is(0, "");
            assert!(!mount.path("gone").exists() && read("changed") == "old");
            refresh(&["gone"]).is(1, "there is no /gone");
            // A directory.
            refresh(&["other"]).is(0, "");
            assert_eq!((read("other/inner").as_str(), read("changed").as_str()), ("new content", "old"));
            // Everything.
            let all = refresh(&[]);
            all.is(0, "");
            assert_eq!(all.out, "3 directories listed anew\n");
            assert_eq!((read("changed").as_str(), read("new").as_str()), ("new content", "new content"));
            assert_eq!(names(mount.dir()), ["changed", "dir", "new", "other"]);
            refresh(&["/somewhere/else"]).is(2, "is not below");
        },
    );
}

#[test]
fn refresh_says_when_the_bucket_cannot_be_asked() {
    let mut cloud = Cloud::start();
    cloud.put("data/file", b"here");
    let mut mount = Mount::new(&cloud, Options::default());
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"here");
    cloud.stop();
    Answer::of(mount.run(&["refresh"], &[])).is(1, "the bucket could not be asked");
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"here", "what is cached stays usable");
    cloud.restart();
    mount.umount();
}

#[test]
fn what_nobody_else_writes_to_is_asked_for_once() {
    both(
        |options| {
            options.attr_ttl = "10ms";
            options.mapping = "exclusive = true".to_owned();
        },
        |cloud, mount| {
            cloud.put("data/file", b"old");
            let look = || (names(mount.dir()), fs::read_to_string(mount.path("file")).unwrap());
            let old = (vec!["file".to_owned()], "old".to_owned());
            assert_eq!(look(), old);
            let asked = cloud.count_by(|_| true);
            cloud.put("data/file", b"new");
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(300) {
                assert_eq!(look(), old);
                assert!(!mount.path("absent").exists());
            }
            assert_eq!(cloud.count_by(|_| true), asked, "no request");
            fs::write(mount.path("made"), "here").unwrap();
            fs::rename(mount.path("made"), mount.path("named")).unwrap();
            assert_eq!(names(mount.dir()), ["file", "named"]);
            fs::remove_file(mount.path("named")).unwrap();
            // A mistaken promise costs no byte either.
            fs::write(mount.path("file"), "ours").unwrap();
            mount.wait_all();
            let kept = names(mount.dir());
            assert!(kept.len() == 2 && kept[1].starts_with("file.conflict-"), "{kept:?}");
            cloud.holds("data/file", b"ours");
            cloud.holds(&format!("data/{}", kept[1]), b"new");
        },
    );
}

#[test]
fn inotify_tells_of_local_changes() {
    both(
        |_| {},
        |_, mount| {
            use inotify::{ReadFlags as Seen, WatchFlags as Wanted};
            let wanted =
                Wanted::CREATE | Wanted::CLOSE_WRITE | Wanted::MODIFY | Wanted::ATTRIB | Wanted::MOVE | Wanted::DELETE;
            let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
            inotify::add_watch(&watch, mount.dir(), wanted).unwrap();
            fs::write(mount.path("file"), "content").unwrap();
            fs::set_permissions(mount.path("file"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(mount.path("file"), mount.path("moved")).unwrap();
            fs::remove_file(mount.path("moved")).unwrap();
            fs::create_dir(mount.path("dir")).unwrap();
            let expected = [
                (Seen::CREATE, "file"),
                (Seen::MODIFY, "file"),
                (Seen::CLOSE_WRITE, "file"),
                (Seen::ATTRIB, "file"),
                (Seen::MOVED_FROM, "file"),
                (Seen::MOVED_TO, "moved"),
                (Seen::DELETE, "moved"),
                (Seen::CREATE, "dir"),
            ];
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(&watch, &mut buffer);
            let mut events: Vec<(Seen, String)> = Vec::new();
            until("the last event", || {
                while let Ok(event) = reader.next() {
                    let name = event.file_name().map(|name| name.to_str().unwrap().to_owned());
                    events.push((event.events() - Seen::ISDIR, name.unwrap_or_default()));
                }
                events.last().is_some_and(|(_, name)| name == "dir")
            });
            let mut seen = events.iter();
            for (kind, name) in expected {
                assert!(seen.any(|(events, of)| events.contains(kind) && of == name), "{kind:?} {name}: {events:?}");
            }
        },
    );
}
