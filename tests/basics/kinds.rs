//! What is neither file nor link: pipes, sockets, devices, and what stat(2) says of directories.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};

use super::both;
use super::harness::{Cloud, Mount, errno, names};

const KINDS: [(&str, FileType, u32, u64); 4] = [
    ("fifo", FileType::Fifo, 0o010_640, 0),
    ("socket", FileType::Socket, 0o140_640, 0),
    // Beyond eight bits each: 2,748 is 0xabc.
    ("char", FileType::CharacterDevice, 0o020_640, makedev_const(2748, 70_000)),
    ("block", FileType::BlockDevice, 0o060_640, makedev_const(7, 3)),
];

/// glibc's encoding of device numbers in 64 bits (gnu_dev_makedev).
const fn makedev_const(major: u64, minor: u64) -> u64 {
    ((major & 0xffff_f000) << 32) | ((major & 0xfff) << 8) | ((minor & 0xffff_ff00) << 12) | (minor & 0xff)
}

fn set_mtime(path: &std::path::Path) {
    let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn look(mount: &Mount, dir: &str) {
    for (name, _, mode, device) in KINDS {
        let meta = fs::symlink_metadata(mount.path(&format!("{dir}{name}"))).unwrap();
        let found = (meta.mode(), meta.rdev(), meta.uid(), meta.gid(), meta.len(), meta.nlink());
        assert_eq!(found, (mode, device, 1234, 5678, 0, 1), "{name}");
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        assert_eq!(meta.modified().unwrap(), time, "{name}");
    }
    let link = fs::symlink_metadata(mount.path(&format!("{dir}link"))).unwrap();
    assert!(link.is_symlink());
    assert_eq!((link.uid(), link.gid(), link.mtime_nsec()), (1234, 5678, 123_456_789));
}

fn make(mount: &Mount) {
    for (name, kind, mode, device) in KINDS {
        let path = mount.path(name);
        mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777)).unwrap();
        chown(&path, Some(1234), Some(5678)).unwrap();
        set_mtime(&path);
        assert_eq!(
            mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device),
            Err(rustix::io::Errno::EXIST),
            "{name}"
        );
    }
    symlink("nowhere", mount.path("link")).unwrap();
    lchown(mount.path("link"), Some(1234), Some(5678)).unwrap();
    set_mtime(&mount.path("link"));
}

fn stored(cloud: &Cloud, dir: &str) {
    for (name, _, mode, _) in KINDS {
        let key = format!("data/{dir}{name}");
        cloud.holds(&key, b"");
        assert_eq!(cloud.metadata(&key, "mode"), Some(mode.to_string()), "{key}");
        assert_eq!(cloud.metadata(&key, "uid").as_deref(), Some("1234"), "{key}");
        assert_eq!(cloud.metadata(&key, "mtime").as_deref(), Some("1700000000"), "{key}");
    }
    // The kernel's 32-bit form, as geesefs keeps it.
    let device = (70_000 & 0xff) | (2748 << 8) | ((70_000 & !0xff) << 12);
    assert_eq!(cloud.metadata(&format!("data/{dir}char"), "rdev"), Some(device.to_string()));
    assert_eq!(cloud.metadata(&format!("data/{dir}fifo"), "rdev"), None);
}

#[test]
fn special_files_and_links_are_kept_with_their_attributes() {
    assert_eq!(makedev(2748, 70_000), makedev_const(2748, 70_000));
    both(
        |_| {},
        |cloud, mount| {
            make(mount);
            look(mount, "");
            // Nothing of it is in the bucket for certain; the journal has it.
            mount.kill9();
            mount.remount();
            look(mount, "");
            mount.wait_all();
            stored(cloud, "");
            mount.forget_cache();
            look(mount, "");
            mount.forget_all();
            look(mount, "");
            let kinds: Vec<bool> = fs::read_dir(mount.dir())
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| entry.file_name() == "fifo" && entry.file_type().unwrap().is_fifo())
                .collect();
            assert!(kinds.contains(&true), "readdir tells the kind once it is known");

            // Renamed with and without their directory, removed, made anew as another kind.
            fs::create_dir(mount.path("d")).unwrap();
            for name in KINDS.map(|kind| kind.0).into_iter().chain(["link"]) {
                fs::rename(mount.path(name), mount.path("d").join(name)).unwrap();
            }
            fs::rename(mount.path("d"), mount.path("e")).unwrap();
            mount.wait_all();
            stored(cloud, "e/");
            mount.forget_all();
            look(mount, "e/");
            fs::remove_file(mount.path("e/fifo")).unwrap();
            fs::write(mount.path("e/fifo"), "").unwrap();
            fs::remove_file(mount.path("e/char")).unwrap();
            mount.wait_all();
            assert_eq!(cloud.metadata("data/e/fifo", "mode").as_deref(), Some("33188"));
            assert_eq!(cloud.object("data/e/char").map(|object| object.size()), None);
            assert!(fs::metadata(mount.path("e/fifo")).unwrap().is_file());
            fs::remove_dir_all(mount.path("e")).unwrap();
            mount.wait_all();
            assert_eq!(cloud.keys(), [] as [&str; 0]);
        },
    );
}

#[test]
fn pipes_and_sockets_carry_what_programs_send() {
    both(
        |_| {},
        |cloud, mount| {
            mknodat(CWD, mount.path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
            let path = mount.path("fifo");
            let reader = std::thread::spawn(move || {
                let mut text = String::new();
                File::open(path).unwrap().read_to_string(&mut text).unwrap();
                text
            });
            let mut writer = fs::OpenOptions::new().write(true).open(mount.path("fifo")).unwrap();
            writer.write_all(b"through the pipe").unwrap();
            drop(writer);
            assert_eq!(reader.join().unwrap(), "through the pipe");

            let listener = UnixListener::bind(mount.path("socket")).unwrap();
            assert!(fs::metadata(mount.path("socket")).unwrap().file_type().is_socket());
            mount.wait_all();
            let mut client = UnixStream::connect(mount.path("socket")).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"through the socket").unwrap();
            drop(client);
            let mut text = String::new();
            server.read_to_string(&mut text).unwrap();
            assert_eq!(text, "through the socket");
            drop((server, listener));
            // A mount is nodev unless it is told otherwise.
            mknodat(CWD, mount.path("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3))
                .unwrap();
            assert_eq!(errno(File::open(mount.path("null"))), Some(libc::EACCES));
            mount.wait_all();
            cloud.holds("data/fifo", b"");
        },
    );
}

#[test]
fn a_pipe_that_another_client_overwrites_is_a_file() {
    both(
        |_| {},
        |cloud, mount| {
            mknodat(CWD, mount.path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
            mount.wait_all();
            mount.forget_all();
            assert!(fs::metadata(mount.path("fifo")).unwrap().file_type().is_fifo());
            mount.umount();
            cloud.put("data/fifo", b"content");
            mount.remount();
            assert_eq!(fs::read(mount.path("fifo")).unwrap(), b"content");
        },
    );
}

#[test]
fn directories_count_their_directories() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/there/a/x", b"x");
            cloud.put("data/there/file", b"x");
            let links = |name: &str| fs::metadata(mount.path(name)).unwrap().nlink();
            assert_eq!(links("there"), 1, "not counted before it was listed");
            assert_eq!(names(&mount.path("there")), ["a", "file"]);
            fs::create_dir(mount.path("there/b")).unwrap();
            assert_eq!(links("there"), 4);
            fs::create_dir(mount.path("other")).unwrap();
            assert_eq!(links("other"), 2);
            fs::rename(mount.path("there/a"), mount.path("other/a")).unwrap();
            fs::rename(mount.path("there/file"), mount.path("other/file")).unwrap();
            assert_eq!((links("there"), links("other")), (3, 3));
            fs::create_dir(mount.path("over")).unwrap();
            fs::rename(mount.path("over"), mount.path("there/b")).unwrap();
            assert_eq!(links("there"), 3);
            fs::remove_dir(mount.path("there/b")).unwrap();
            assert_eq!(links("there"), 2);
            mount.wait_all();
        },
    );
}

#[test]
fn changed_owners_lose_special_rights() {
    both(
        |_| {},
        |_, mount| {
            for (name, kind) in [("file", FileType::RegularFile), ("fifo", FileType::Fifo)] {
                let path = mount.path(name);
                mknodat(CWD, &path, kind, Mode::from_raw_mode(0o755), 0).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o6755);
                chown(&path, Some(1234), None).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755, "{name}");
            }
            fs::create_dir(mount.path("dir")).unwrap();
            fs::set_permissions(mount.path("dir"), fs::Permissions::from_mode(0o7755)).unwrap();
            chown(mount.path("dir"), Some(1234), Some(1234)).unwrap();
            assert_eq!(fs::metadata(mount.path("dir")).unwrap().mode() & 0o7777, 0o7755);
            // A setgid directory gives its group, and to directories its bit.
            for (name, kind) in [("dir/file", FileType::RegularFile), ("dir/fifo", FileType::Fifo)] {
                mknodat(CWD, mount.path(name), kind, Mode::from_raw_mode(0o755), 0).unwrap();
                assert_eq!(fs::metadata(mount.path(name)).unwrap().gid(), 1234, "{name}");
            }
            fs::create_dir(mount.path("dir/sub")).unwrap();
            let sub = fs::metadata(mount.path("dir/sub")).unwrap();
            assert_eq!((sub.gid(), sub.mode() & 0o2000), (1234, 0o2000));
            assert_eq!(fs::metadata(mount.path("file")).unwrap().blocks(), 0, "an empty file takes no space");
        },
    );
}
