//! Attributes in the bucket: extended ones, those of cosfs and s3fs, and what changing them costs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};

use super::both;
use super::harness::{Cloud, Mount, errno, names, pattern};

fn get(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 65_536];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn list(path: &Path) -> Vec<String> {
    let mut text = vec![0; 65_536];
    let length = listxattr(path, &mut text[..]).unwrap();
    text[..length]
        .split(|byte| *byte == 0)
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .filter(|name| !name.is_empty())
        .collect()
}

fn set(path: &Path, name: &str, value: &[u8], flags: XattrFlags) -> io::Result<()> {
    Ok(setxattr(path, name, value, flags)?)
}

const ANY: XattrFlags = XattrFlags::empty();

#[test]
fn extended_attributes_are_kept_and_seen_by_every_host() {
    both(
        |_| {},
        |cloud, mount| {
            let file = mount.path("file");
            fs::write(&file, "content").unwrap();
            fs::create_dir(mount.path("dir")).unwrap();
            // Before the upload and after; on a directory, whose marker carries them.
            set(&file, "user.early", b"1", ANY).unwrap();
            mount.wait_all();
            set(&file, "user.late", b"\x00binary\xff", ANY).unwrap();
            set(&file, "user.\u{6587} %41", b"", ANY).unwrap();
            set(&mount.path("dir"), "user.of dir", b"d", ANY).unwrap();
            mount.wait_all();
            let look = |mount: &Mount| {
                let file = mount.path("file");
                assert_eq!(list(&file), ["user.early", "user.late", "user.\u{6587} %41"]);
                assert_eq!(get(&file, "user.early").unwrap(), b"1");
                assert_eq!(get(&file, "user.late").unwrap(), b"\x00binary\xff");
                assert_eq!(get(&file, "user.\u{6587} %41").unwrap(), b"");
                assert_eq!(get(&mount.path("dir"), "user.of dir").unwrap(), b"d");
                assert_eq!(errno(get(&file, "user.none")), Some(libc::ENODATA));
            };
            look(mount);
            mount.kill9();
            mount.remount();
            look(mount);
            mount.forget_cache();
            look(mount);
            mount.forget_all();
            look(mount);

            // They travel with a rename, and a rewrite keeps them.
            fs::rename(mount.path("file"), mount.path("moved")).unwrap();
            mount.wait_all();
            let moved = mount.path("moved");
            fs::write(&moved, "rewritten").unwrap();
            mount.wait_all();
            mount.forget_all();
            assert_eq!(get(&moved, "user.early").unwrap(), b"1");
            cloud.holds("data/moved", b"rewritten");

            // The flags of setxattr(2), and removal.
            assert_eq!(errno(set(&moved, "user.early", b"2", XattrFlags::CREATE)), Some(libc::EEXIST));
            assert_eq!(errno(set(&moved, "user.new", b"2", XattrFlags::REPLACE)), Some(libc::ENODATA));
            set(&moved, "user.early", b"2", XattrFlags::REPLACE).unwrap();
            removexattr(&moved, "user.late").unwrap();
            assert_eq!(errno(removexattr(&moved, "user.late").map_err(io::Error::from)), Some(libc::ENODATA));
            removexattr(&moved, "user.\u{6587} %41").unwrap();
            mount.wait_all();
            assert_eq!(theirs(cloud, "data/moved"), [("user.early".to_owned(), b"2".to_vec())].into());
            removexattr(&moved, "user.early").unwrap();
            mount.wait_all();
            assert_eq!(cloud.metadata("data/moved", "xattr"), None);
            mount.forget_all();
            assert_eq!(list(&moved), [] as [&str; 0]);
            assert_eq!(fs::read(&moved).unwrap(), b"rewritten");
        },
    );
}

/// Extended attributes as s3fs reads them: urlDecode, then pairs cut at `,` and `:`, names and base64
/// between double quotes (metaheader and fdcache of s3fs-fuse, parse_xattrs).
fn theirs(cloud: &Cloud, key: &str) -> BTreeMap<String, Vec<u8>> {
    let header = cloud.metadata(key, "xattr").unwrap();
    let json = String::from_utf8(ferryfs::http::decode(&header)).unwrap();
    let inner = json.strip_prefix('{').and_then(|json| json.strip_suffix('}')).unwrap();
    let between = |text: &str| text.trim().trim_matches('"').to_owned();
    inner
        .split(',')
        .map(|pair| {
            let (name, value) = pair.split_once(':').unwrap();
            (between(name), STANDARD.decode(between(value)).unwrap())
        })
        .collect()
}

#[test]
fn extended_attributes_beyond_the_headers_are_refused_at_once() {
    both(
        |_| {},
        |cloud, mount| {
            // What another tool gave an object stays, and leaves less room.
            let note = "n".repeat(1_000);
            cloud.put_with("data/foreign", b"theirs", &[("note", &note), ("mode", "33188")]);
            fs::write(mount.path("own"), "ours").unwrap();
            mount.wait_all();
            let mut kept = BTreeMap::new();
            for (name, least) in [("own", 8), ("foreign", 1)] {
                let path = mount.path(name);
                let mut count = 0;
                let refused = loop {
                    match set(&path, &format!("user.{count:03}"), &[b'v'; 60], ANY) {
                        Ok(()) => count += 1,
                        Err(error) => break error,
                    }
                };
                assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC), "{name}");
                assert!(count >= least, "{name} takes {count}");
                assert_eq!(list(&path).len(), count);
                kept.insert(name, count);
                assert_eq!(errno(set(&path, "user.huge", &[1; 4_000], ANY)), Some(libc::ENOSPC));
                // The longest values that our own headers can have still go up with them.
                std::os::unix::fs::chown(&path, Some(u32::MAX - 2), Some(u32::MAX - 2)).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o7777)).unwrap();
            }
            mount.wait_all();
            assert_eq!(mount.status().failed.len(), 0);
            assert_eq!(cloud.metadata("data/foreign", "note"), Some(note));
            mount.forget_all();
            for (name, count) in kept {
                assert_eq!(list(&mount.path(name)).len(), count, "{name}");
                assert_eq!(get(&mount.path(name), "user.000").unwrap(), [b'v'; 60]);
            }
        },
    );
}

#[test]
fn names_that_are_not_kept_are_refused_and_cost_nothing() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/file", b"x");
            let path = mount.path("file");
            fs::metadata(&path).unwrap();
            let before = cloud.count_by(|_| true);
            for name in ["security.capability", "security.selinux", "trusted.overlay.opaque"] {
                assert_eq!(errno(get(&path, name)), Some(libc::ENODATA), "{name}");
            }
            for name in ["system.posix_acl_access", "system.posix_acl_default"] {
                assert_eq!(errno(get(&path, name)), Some(libc::EOPNOTSUPP), "{name}");
            }
            // acl(5): version 2; then tag, permissions, id of the owner, the group and all others.
            let mut acl = vec![2, 0, 0, 0];
            for tag in [1, 4, 0x20] {
                acl.extend([tag, 0, 6, 0, 0xff, 0xff, 0xff, 0xff]);
            }
            for (name, value) in
                [("security.selinux", &b"x"[..]), ("trusted.a", b"x"), ("system.posix_acl_access", &acl)]
            {
                assert_eq!(errno(set(&path, name, value, ANY)), Some(libc::EOPNOTSUPP), "{name}");
            }
            assert_eq!(errno(removexattr(&path, "trusted.a").map_err(io::Error::from)), Some(libc::ENODATA));
            assert_eq!(list(&path), [] as [&str; 0]);
            assert_eq!(cloud.count_by(|_| true), before, "requests to the store");
            // user(7): only files and directories have attributes of users.
            symlink("file", mount.path("link")).unwrap();
            let own = rustix::fs::lsetxattr(mount.path("link"), "user.a", b"x", ANY).map_err(io::Error::from);
            assert_eq!(errno(own), Some(libc::EPERM));
            mount.wait_all();
        },
    );
}

/// cosfs' own reading of a number (string_util.cpp): 0 as soon as anything is no digit.
fn cosfs_number(text: &str) -> i64 {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { 0 } else { text.parse().unwrap() }
}

/// s3fs' reading of times: seconds, and behind a point an integer of nanoseconds.
fn s3fs_time(text: &str) -> (i64, i64) {
    match text.split_once('.') {
        Some((sec, nsec)) => (cosfs_number(sec), cosfs_number(nsec)),
        None => (cosfs_number(text), 0),
    }
}

#[test]
fn what_cosfs_and_s3fs_wrote_shows_as_they_show_it() {
    both(
        |options| options.mount = "uid = 41\ngid = 42\numask = \"077\"".to_owned(),
        |cloud, mount| {
            // create_file_object and the like of cosfs: decimal with the type bits, whole seconds.
            let cosfs = |mode: &'static str| [("mode", mode), ("uid", "1000"), ("gid", "100"), ("mtime", "1700000001")];
            cloud.put_with("data/file", b"content", &cosfs("33184"));
            cloud.put_with("data/dir/", b"", &cosfs("17901"));
            cloud.put_with("data/link", b"some/where", &cosfs("41471"));
            cloud.put_with("data/fifo", b"", &cosfs("4516"));
            // s3fs: nine digits of nanoseconds, three times, extended attributes.
            cloud.put_with(
                "data/s3fs",
                b"content",
                &[
                    ("mode", "35309"),
                    ("uid", "7"),
                    ("gid", "8"),
                    ("atime", "1700000004.000000004"),
                    ("ctime", "1700000003.000000003"),
                    ("mtime", "1700000002.000000005"),
                    ("xattr", "%7B%22user.colour%22%3A%22cmVk%22%2C%22user.empty%22%3A%22%22%7D"),
                ],
            );
            // s3sync's names, which both tools read.
            cloud.put_with("data/s3sync", b"x", &[("permissions", "33152"), ("owner", "5"), ("group", "6")]);
            cloud.put_with("data/bare", b"x", &[]);
            let look = |name: &str| {
                let meta = fs::symlink_metadata(mount.path(name)).unwrap();
                (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec())
            };
            assert_eq!(look("file"), (0o100_640, 1000, 100, 1_700_000_001, 0));
            assert_eq!(look("dir"), (0o042_755, 1000, 100, 1_700_000_001, 0));
            assert_eq!(look("link"), (0o120_777, 1000, 100, 1_700_000_001, 0));
            assert_eq!(fs::read_link(mount.path("link")).unwrap(), Path::new("some/where"));
            assert!(fs::symlink_metadata(mount.path("fifo")).unwrap().file_type().is_fifo());
            assert_eq!(look("s3fs"), (0o104_755, 7, 8, 1_700_000_002, 5));
            assert_eq!(get(&mount.path("s3fs"), "user.colour").unwrap(), b"red");
            assert_eq!(list(&mount.path("s3fs")), ["user.colour", "user.empty"]);
            let s3sync = look("s3sync");
            assert_eq!((s3sync.0, s3sync.1, s3sync.2), (0o100_600, 5, 6));
            let bare = look("bare");
            assert_eq!((bare.0, bare.1, bare.2), (0o100_600, 41, 42), "what carries nothing has the mount's defaults");
            // A change of ours keeps what we do not understand.
            fs::set_permissions(mount.path("s3fs"), fs::Permissions::from_mode(0o600)).unwrap();
            mount.wait_all();
            assert_eq!(cloud.metadata("data/s3fs", "ctime").as_deref(), Some("1700000003.000000003"));
            assert_eq!(theirs(cloud, "data/s3fs").len(), 2);
        },
    );
}

#[test]
fn what_we_write_is_read_by_the_rules_of_cosfs_and_s3fs() {
    both(
        |_| {},
        |cloud, mount| {
            fs::write(mount.path("file"), "content").unwrap();
            fs::create_dir(mount.path("dir")).unwrap();
            symlink("file", mount.path("link")).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                mount.path("fifo"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o640),
                0,
            )
            .unwrap();
            set(&mount.path("file"), "user.colour", b"red", ANY).unwrap();
            mount.wait_all();
            for (name, key) in
                [("file", "data/file"), ("dir", "data/dir/"), ("link", "data/link"), ("fifo", "data/fifo")]
            {
                let meta = fs::symlink_metadata(mount.path(name)).unwrap();
                let text = |header: &str| cloud.metadata(key, header).unwrap();
                assert_eq!(cosfs_number(&text("mode")), i64::from(meta.mode()), "{name}");
                assert_eq!(cosfs_number(&text("uid")), i64::from(meta.uid()), "{name}");
                assert_eq!(cosfs_number(&text("gid")), i64::from(meta.gid()), "{name}");
                // To both an integer: a fraction would be 1970 to cosfs.
                assert_eq!(cosfs_number(&text("mtime")), meta.mtime(), "{name}");
                assert_eq!(s3fs_time(&text("mtime")), (meta.mtime(), 0), "{name}");
                assert_eq!(text("mtime-nsec"), format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()));
            }
            // A link is an object whose body is the target; a directory's is empty and says what it is.
            cloud.holds("data/link", b"file");
            cloud.holds("data/dir/", b"");
            let kind = cloud.object("data/dir/").unwrap().headers().get("content-type").cloned();
            assert_eq!(kind.as_deref(), Some("application/x-directory"));
            assert_eq!(theirs(cloud, "data/file"), [("user.colour".to_owned(), b"red".to_vec())].into());
        },
    );
}

fn run(program: &str, arguments: &[PathBuf], flags: &[&str]) {
    let output = Command::new(program).args(flags).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {flags:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// (requests that store this key, bytes of content that they carried)
fn stored(cloud: &Cloud, key: &str) -> (usize, u64) {
    let puts = cloud.requests("PUT", key);
    (puts.len(), puts.iter().map(|request| request.request_bytes).sum())
}

#[test]
fn tools_that_change_attributes_send_no_content() {
    both(
        // Long enough that a program's calls fall into one delay, also on a busy machine.
        |options| options.delay = "2s",
        |cloud, mount| {
            let content = pattern(7, 300_000);
            let path = mount.path("file");
            fs::write(&path, &content).unwrap();
            mount.wait("file");
            assert_eq!(stored(cloud, "data/file"), (1, 300_000));
            let file = [path.clone()];
            run("touch", &file, &["-d", "2020-01-02 03:04:05.678901234 UTC"]);
            run("chmod", &file, &["0640"]);
            run("chown", &file, &["1234:2345"]);
            mount.wait("file");
            assert_eq!(stored(cloud, "data/file"), (2, 300_000), "one copy by the server for three tools");
            cloud.holds("data/file", &content);
            assert_eq!(cloud.metadata("data/file", "mtime").as_deref(), Some("1577934245"));
            assert_eq!(cloud.metadata("data/file", "mtime-nsec").as_deref(), Some("1577934245.678901234"));

            // New files whose attributes follow their content within the delay: one upload each.
            run("cp", &[path.clone(), mount.path("copy")], &["-p"]);
            let outside = tempfile::tempdir().unwrap();
            let archive = outside.path().join("a.tar");
            run("tar", &[], &["-C", mount.dir().to_str().unwrap(), "-cf", archive.to_str().unwrap(), "file"]);
            fs::create_dir(mount.path("out")).unwrap();
            run("tar", &[], &["-C", mount.path("out").to_str().unwrap(), "-xpf", archive.to_str().unwrap()]);
            mount.wait_all();
            for key in ["data/copy", "data/out/file"] {
                assert_eq!(stored(cloud, key), (1, 300_000), "{key}");
            }
            mount.forget_all();
            let want = fs::metadata(&path).unwrap();
            assert_eq!((want.mode(), want.uid(), want.gid()), (0o100_640, 1234, 2345));
            for name in ["copy", "out/file"] {
                let meta = fs::metadata(mount.path(name)).unwrap();
                assert_eq!((meta.mode(), meta.uid(), meta.gid()), (want.mode(), 1234, 2345), "{name}");
                // What tar and cp keep: tar whole seconds in its plain format, cp all of it.
                assert_eq!(meta.mtime(), want.mtime(), "{name}");
                assert!(fs::read(mount.path(name)).unwrap() == content, "{name}");
            }
            assert_eq!(names(mount.dir()), ["copy", "file", "out"]);
        },
    );
}
