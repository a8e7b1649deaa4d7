//! What cosfs and s3fs leave in a bucket that this mount writes to as well: the headers that cosfs 1.0.25 and
//! s3fs 1.90 were seen to send (tests/vendor/PEERS.md), and what they make of ours. The programs themselves
//! run in tests/programs/peers.rs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, getxattr, utimensat};

use super::both;
use super::harness::{BUCKET, Cloud, Mount, names, until};

/// (mode, uid, gid, mtime)
fn look(mount: &Mount, name: &str) -> (u32, u32, u32, (i64, i64)) {
    let meta = fs::symlink_metadata(mount.path(name)).unwrap();
    (meta.mode(), meta.uid(), meta.gid(), (meta.mtime(), meta.mtime_nsec()))
}

#[test]
fn what_cosfs_was_seen_to_send_shows_as_it_shows_it() {
    both(
        |_| {},
        |cloud, mount| {
            let at = |seconds: i64| (seconds, 0);
            let seen: [(&str, &[u8], [&str; 4]); 7] = [
                ("file", b"content", ["35304", "1000", "100", "1700000001"]),
                // mkdir sends the bits of the permissions alone; chmod those of the type too.
                ("made/", b"", ["488", "0", "0", "1795316221"]),
                ("dir/", b"", ["18424", "7", "8", "1795316221"]),
                ("link", b"some/where", ["41471", "0", "0", "1795316221"]),
                ("fifo", b"", ["4512", "0", "0", "1795316221"]),
                ("chr", b"", ["8576", "0", "0", "1795316221"]),
                ("sock", b"", ["49568", "0", "0", "1795316221"]),
            ];
            for (name, body, [mode, uid, gid, mtime]) in seen {
                let xattr = ("xattr", "%7B%22user.colour%22%3A%22cmVk%22%7D");
                let mut sent = vec![("mode", mode), ("uid", uid), ("gid", gid), ("mtime", mtime)];
                sent.extend((name == "file").then_some(xattr));
                cloud.put_with(&format!("data/{name}"), body, &sent);
            }
            assert_eq!(look(mount, "file"), (0o104_750, 1000, 100, at(1_700_000_001)));
            let mut value = [0; 8];
            let length = getxattr(mount.path("file"), "user.colour", &mut value).unwrap();
            assert_eq!(&value[..length], b"red");
            assert_eq!(look(mount, "made"), (0o040_750, 0, 0, at(1_795_316_221)));
            assert_eq!(look(mount, "dir"), (0o043_770, 7, 8, at(1_795_316_221)));
            assert_eq!(look(mount, "link"), (0o120_777, 0, 0, at(1_795_316_221)));
            assert_eq!(fs::read_link(mount.path("link")).unwrap(), Path::new("some/where"));
            assert_eq!(look(mount, "fifo"), (0o010_640, 0, 0, at(1_795_316_221)));
            assert!(fs::symlink_metadata(mount.path("chr")).unwrap().file_type().is_char_device());
            assert!(fs::symlink_metadata(mount.path("sock")).unwrap().file_type().is_socket());
        },
    );
}

#[test]
fn what_s3fs_was_seen_to_send_shows_as_it_shows_it() {
    both(
        |_| {},
        |cloud, mount| {
            let seen: [(&str, &[u8], &str, &str, &str); 4] = [
                // A time that it took itself is whole, one that a program set is not.
                ("new", b"t", "33188", "1795316284", "1795316284"),
                ("set", b"t", "33188", "1000000000.000000005", "1234567890.123456789"),
                ("made/", b"", "488", "1795316285", "1795316285"),
                ("dir/", b"", "18424", "1795316285", "1795316285"),
            ];
            for (name, body, mode, changed, mtime) in seen {
                let key = format!("data/{name}");
                let sent = [
                    ("mode", mode),
                    ("uid", "7"),
                    ("gid", "8"),
                    ("atime", changed),
                    ("ctime", changed),
                    ("mtime", mtime),
                ];
                cloud.put_with(&key, body, &sent);
            }
            assert_eq!(look(mount, "new"), (0o100_644, 7, 8, (1_795_316_284, 0)));
            assert_eq!(look(mount, "set"), (0o100_644, 7, 8, (1_234_567_890, 123_456_789)));
            assert_eq!(look(mount, "made"), (0o040_750, 7, 8, (1_795_316_285, 0)));
            assert_eq!(look(mount, "dir"), (0o043_770, 7, 8, (1_795_316_285, 0)));
        },
    );
}

/// As cosfs and s3fs write into a file: other content and another time, every other header as it was.
fn rewrite(cloud: &Cloud, key: &str, content: &[u8], mtime: Option<&str>) {
    let mut metadata = cloud.object(key).unwrap().metadata().clone();
    assert!(metadata.contains_key("ferry"), "{metadata:?}");
    if let Some(mtime) = mtime {
        metadata.insert("mtime".to_owned(), mtime.to_owned());
    }
    cloud.emulator().put_object_with(BUCKET, key, content, metadata).unwrap();
}

#[test]
fn what_another_tool_writes_under_our_headers_is_not_taken_for_ours() {
    both(
        |options| options.attr_ttl = "1s",
        |cloud, mount| {
            for name in ["open", "removed", "timed"] {
                fs::write(mount.path(name), "ours").unwrap();
            }
            let time = Timespec { tv_sec: 1_234_567_890, tv_nsec: 123_456_789 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, mount.path("timed"), &times, AtFlags::empty()).unwrap();
            mount.wait_all();

            // Written here and there: in the same second as far as the headers tell, and as long as ours.
            let mut file = OpenOptions::new().append(true).open(mount.path("open")).unwrap();
            file.write_all(b", more").unwrap();
            rewrite(cloud, "data/open", b"them", None);
            drop(file);
            mount.wait_all();
            cloud.holds("data/open", b"ours, more");
            let kept: Vec<String> =
                cloud.keys().into_iter().filter(|key| key.starts_with("data/open.conflict-")).collect();
            assert_eq!(kept.len(), 1, "{:?}", cloud.keys());
            cloud.holds(&kept[0], b"them");

            // Removed here as it was, written there meanwhile.
            rewrite(cloud, "data/removed", b"them", None);
            fs::remove_file(mount.path("removed")).unwrap();
            mount.wait_all();
            cloud.holds("data/removed", b"them");
            until("the name comes back", || names(mount.dir()).contains(&"removed".to_owned()));

            // Another time: our fraction of a second is not of it, nor our digest of its content.
            assert!(cloud.metadata("data/timed", "md5").is_some());
            rewrite(cloud, "data/timed", b"they wrote", Some("1300000000"));
            until("the new time", || look(mount, "timed").3 == (1_300_000_000, 0));
            assert_eq!(fs::read(mount.path("timed")).unwrap(), b"they wrote");
            fs::set_permissions(mount.path("timed"), fs::Permissions::from_mode(0o600)).unwrap();
            mount.wait_all();
            cloud.holds("data/timed", b"they wrote");
            assert_eq!(cloud.metadata("data/timed", "md5"), None);
            assert_eq!(cloud.metadata("data/timed", "mtime").as_deref(), Some("1300000000"));
        },
    );
}
