//! RENAME_EXCHANGE: two names change places, here at once and then in the bucket.

use std::fs;
use std::io::Write;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::both;
use super::harness::{Mount, errno, names, pattern};

fn exchange(mount: &Mount, one: &str, other: &str) -> rustix::io::Result<()> {
    renameat_with(CWD, mount.path(one), CWD, mount.path(other), RenameFlags::EXCHANGE)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn files_change_places_whatever_the_bucket_has_of_them() {
    both(
        |_| {},
        |cloud, mount| {
            let large = pattern(1, 2_500_000);
            fs::write(mount.path("a"), &large).unwrap();
            fs::write(mount.path("b"), "b").unwrap();
            mount.wait_all();
            // Both are there: nothing travels but copies by the server.
            let sent = |cloud: &super::Cloud| cloud.count_by(|request| request.request_bytes > 0);
            let before = sent(cloud);
            exchange(mount, "a", "b").unwrap();
            assert_eq!(read(&mount.path("a")), "b");
            assert!(fs::read(mount.path("b")).unwrap() == large);
            mount.wait_all();
            cloud.holds("data/a", b"b");
            cloud.holds("data/b", &large);
            assert_eq!(cloud.keys(), ["data/a", "data/b"], "the reserved key is left by the last copy");
            assert_eq!(sent(cloud), before);

            // One is there, one is new; one is there, one is open.
            fs::write(mount.path("new"), "new").unwrap();
            exchange(mount, "new", "a").unwrap();
            let mut open = fs::OpenOptions::new().append(true).open(mount.path("a")).unwrap();
            open.write_all(b", and more").unwrap();
            exchange(mount, "a", "b").unwrap();
            drop(open);
            mount.wait_all();
            cloud.holds("data/a", &large);
            cloud.holds("data/b", b"new, and more");
            cloud.holds("data/new", b"b");
            assert_eq!(cloud.keys(), ["data/a", "data/b", "data/new"]);

            // With itself: nothing. With nothing, or with what it lies in: refused.
            exchange(mount, "a", "a").unwrap();
            assert_eq!(exchange(mount, "a", "none"), Err(Errno::NOENT));
            fs::create_dir_all(mount.path("d/e")).unwrap();
            assert_eq!(exchange(mount, "d", "d/e"), Err(Errno::INVAL));
            assert_eq!(exchange(mount, "d/e", "d"), Err(Errno::INVAL));
            mount.forget_all();
            assert_eq!(read(&mount.path("b")), "new, and more");
            assert!(fs::read(mount.path("a")).unwrap() == large);
        },
    );
}

#[test]
fn directories_change_places_with_all_that_is_in_them() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/one/theirs", b"theirs");
            for (path, content) in [("one/same", "1"), ("one/deep/only", "only"), ("two/same", "2")] {
                fs::create_dir_all(mount.path(path).parent().unwrap()).unwrap();
                fs::write(mount.path(path), content).unwrap();
            }
            fs::write(mount.path("file"), "file").unwrap();
            mount.wait_all();
            fs::write(mount.path("two/fresh"), "fresh").unwrap();
            exchange(mount, "one", "two").unwrap();
            // A directory and a file: kinds need not be equal.
            exchange(mount, "file", "one").unwrap();
            let look = |mount: &Mount| {
                assert_eq!(names(mount.dir()), ["file", "one", "two"]);
                assert_eq!(names(&mount.path("file")), ["fresh", "same"]);
                assert_eq!(names(&mount.path("two")), ["deep", "same", "theirs"]);
                assert_eq!(read(&mount.path("one")), "file");
                assert_eq!(read(&mount.path("file/same")), "2");
                assert_eq!(read(&mount.path("two/same")), "1");
                assert_eq!(read(&mount.path("two/deep/only")), "only");
                assert_eq!(errno(fs::metadata(mount.path("one/same"))), Some(libc::ENOTDIR));
            };
            look(mount);
            // Killed on the way, it goes on.
            mount.kill9();
            mount.remount();
            look(mount);
            mount.wait_all();
            let objects: Vec<String> = cloud.keys().into_iter().filter(|key| !key.ends_with('/')).collect();
            let wanted = ["file/fresh", "file/same", "one", "two/deep/only", "two/same", "two/theirs"];
            assert_eq!(objects, wanted.map(|name| format!("data/{name}")));
            mount.forget_all();
            look(mount);
        },
    );
}
