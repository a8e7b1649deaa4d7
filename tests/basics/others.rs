//! Attributes that outlive this host's memory, and several mappings in one mount.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::both;
use super::harness::{errno, names, until};

#[test]
fn mode_owner_and_times_are_seen_by_a_host_that_never_saw_them() {
    both(
        |_| {},
        |cloud, mount| {
            let path = mount.path("file");
            fs::write(&path, "content").unwrap();
            fs::create_dir(mount.path("dir")).unwrap();
            mount.wait_all();
            // After the upload: only the headers change, by a copy of the object onto itself.
            let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
            for path in [&path, &mount.path("dir")] {
                fs::set_permissions(path, fs::Permissions::from_mode(0o2750)).unwrap();
                chown(path, Some(1234), Some(2345)).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o2750)).unwrap();
                set_mtime(path, time);
            }
            mount.wait_all();
            for key in ["data/file", "data/dir/"] {
                let get = |name: &str| cloud.metadata(key, name).unwrap();
                assert_eq!((get("uid").as_str(), get("gid").as_str()), ("1234", "2345"), "{key}");
                assert_eq!(
                    (get("mtime").as_str(), get("mtime-nsec").as_str()),
                    ("1234567890", "1234567890.123456789"),
                    "{key}"
                );
            }
            assert_eq!(cloud.metadata("data/file", "mode").unwrap(), (0o102_750).to_string());
            assert_eq!(cloud.metadata("data/dir/", "mode").unwrap(), (0o042_750).to_string());
            cloud.holds("data/file", b"content");
            let sent: u64 = cloud.requests("PUT", "data/file").iter().map(|request| request.request_bytes).sum();
            assert_eq!(sent, 7, "content went up once");

            mount.forget_all();
            for (path, kind) in [(&path, 0o100_000), (&mount.path("dir"), 0o040_000)] {
                let meta = fs::metadata(path).unwrap();
                assert_eq!(meta.mode(), kind | 0o2750, "{}", path.display());
                assert_eq!((meta.uid(), meta.gid()), (1234, 2345));
                assert_eq!(meta.modified().unwrap(), time);
            }

            // With the content: one object, no copy.
            let before = cloud.emulator().stores().len();
            fs::write(mount.path("both"), "x").unwrap();
            set_mtime(&mount.path("both"), time);
            mount.wait("both");
            mount.wait_all();
            let stores = cloud.emulator().stores().len() - before;
            assert!(stores <= 4, "{stores} objects stored for one file and its two log records");
            assert_eq!(cloud.metadata("data/both", "mtime").unwrap(), "1234567890");
            let status = Command::new("cp").arg("-p").arg(&path).arg(mount.path("copy")).status().unwrap();
            assert!(status.success());
            mount.wait_all();
            mount.forget_all();
            let copied = fs::metadata(mount.path("copy")).unwrap();
            assert_eq!((copied.modified().unwrap(), copied.mode(), copied.uid()), (time, 0o102_750, 1234));
        },
    );
}

fn set_mtime(path: &std::path::Path, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap();
    let time = Timespec { tv_sec: since.as_secs().try_into().unwrap(), tv_nsec: since.subsec_nanos().into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

#[test]
fn attributes_of_other_clients_objects_become_known() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/plain", b"12345");
            let meta = fs::metadata(mount.path("plain")).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.len()), (0o644, 5));
            let written = cloud.object("data/plain").unwrap().modified_ns();
            assert_eq!(meta.mtime(), written / 1_000_000_000);
            assert_eq!(meta.nlink(), 1);
            let listed = fs::read_dir(mount.dir()).unwrap().next().unwrap().unwrap();
            assert_eq!(listed.metadata().unwrap().ino(), meta.ino());
        },
    );
}

#[test]
fn several_mappings_are_directories_of_one_mount() {
    both(
        |options| options.mappings = vec![("/left", "one/"), ("/right", "two/")],
        |cloud, mount| {
            assert_eq!(names(mount.dir()), ["left", "right"]);
            cloud.put("two/theirs", b"theirs");
            fs::write(mount.path("left/file"), "file").unwrap();
            assert_eq!(fs::read(mount.path("right/theirs")).unwrap(), b"theirs");
            assert_eq!(errno(fs::rename(mount.path("left/file"), mount.path("right/file"))), Some(libc::EXDEV));
            fs::create_dir(mount.path("left/dir")).unwrap();
            assert_eq!(errno(fs::rename(mount.path("left/dir"), mount.path("right/dir"))), Some(libc::EXDEV));
            fs::remove_dir(mount.path("left/dir")).unwrap();
            let status = Command::new("mv").arg(mount.path("left/file")).arg(mount.path("right/")).status().unwrap();
            assert!(status.success(), "mv copies across mappings");
            mount.wait_all();
            assert_eq!(cloud.keys(), ["two/file", "two/theirs"]);
            cloud.holds("two/file", b"file");

            // The mount's own directory holds mappings and nothing else.
            assert!(fs::write(mount.path("file"), "").is_err());
            assert!(fs::create_dir(mount.path("dir")).is_err());
            assert!(fs::remove_dir(mount.path("left")).is_err());
            assert!(fs::rename(mount.path("left"), mount.path("other")).is_err());
            assert_eq!(names(mount.dir()), ["left", "right"]);
            mount.forget_all();
            assert_eq!(fs::read(mount.path("right/file")).unwrap(), b"file");
            assert_eq!(names(&mount.path("left")), [] as [&str; 0]);
            fs::remove_file(mount.path("right/theirs")).unwrap();
            until("the object is deleted", || cloud.object("two/theirs").is_none());
        },
    );
}
