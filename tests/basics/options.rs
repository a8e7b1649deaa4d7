//! Options of the mount: defaults for what carries no attributes, other users, read-only.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Output};

use rustix::fs::{AtFlags, CWD, Timestamps, UTIME_NOW, utimensat};

use super::both;
use super::harness::{Mount, Options, errno, shown};

/// Who is neither root nor the owner of anything here.
const OTHER: &str = "54321";

/// A shell command as another user, without any capability. It finds the mount where everybody may look, in a mount
/// namespace of its own: on the way to the test's directory there may be one like /root.
fn as_other(mount: &Mount, script: &str) -> Output {
    const ENTER: &str = "mount --bind \"$1\" /mnt && exec setpriv --reuid \"$2\" --regid \"$2\" --clear-groups \
        --inh-caps=-all --bounding-set=-all sh -c \"$3\" sh /mnt";
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"])
        .arg(mount.dir())
        .args([OTHER, script])
        .output()
        .unwrap()
}

#[test]
fn without_allow_other_nobody_else_gets_in() {
    both(
        |options| options.mount = "umask = \"000\"".to_owned(),
        |cloud, mount| {
            cloud.put("data/file", b"content");
            let output = as_other(mount, "cat \"$1/file\"");
            assert!(!output.status.success() && shown(&output).contains("Permission denied"), "{}", shown(&output));
            assert_eq!(fs::read(mount.path("file")).unwrap(), b"content");
        },
    );
}

#[test]
fn with_allow_other_modes_and_owners_decide() {
    both(
        |options| options.mount = "allow_other = true\nuid = 54321\numask = \"027\"".to_owned(),
        |cloud, mount| {
            cloud.put("data/default", b"theirs");
            cloud.put("data/d/below", b"below");
            cloud.put_with("data/private", b"secret", &[("mode", "33152"), ("uid", "0"), ("gid", "0")]);
            cloud.put_with("data/public", b"all", &[("mode", "33188"), ("uid", "0"), ("gid", "0")]);
            let good = |script: &str| {
                let output = as_other(mount, script);
                assert!(output.status.success(), "{script}: {}", shown(&output));
                String::from_utf8(output.stdout).unwrap()
            };
            let refused = |script: &str, why: &str| {
                let output = as_other(mount, script);
                assert!(!output.status.success() && shown(&output).contains(why), "{script}: {}", shown(&output));
            };
            assert_eq!(good("cat \"$1/default\" \"$1/public\""), "theirsall");
            refused("cat \"$1/private\"", "Permission denied");
            refused("echo x > \"$1/public\"", "Permission denied");
            refused("chown 0 \"$1/default\"", "Operation not permitted");
            refused("chmod 777 \"$1/public\"", "Operation not permitted");
            good("echo mine > \"$1/d/mine\" && chmod 600 \"$1/d/mine\" && ln -s mine \"$1/d/link\"");
            mount.wait_all();
            assert_eq!(cloud.metadata("data/d/mine", "uid").as_deref(), Some(OTHER));
            assert_eq!(cloud.metadata("data/d/mine", "mode").as_deref(), Some("33152"));
            assert_eq!(cloud.metadata("data/d/link", "gid").as_deref(), Some(OTHER));
        },
    );
}

#[test]
fn defaults_are_of_the_mount_also_when_they_change() {
    both(
        |options| options.mount = "uid = 71\ngid = 72\nfile_mode = \"0604\"\ndir_mode = \"0711\"".to_owned(),
        |cloud, mount| {
            cloud.put("data/file", b"x");
            cloud.put("data/dir/below", b"x");
            fs::write(mount.path("own"), "own").unwrap();
            fs::set_permissions(mount.path("own"), fs::Permissions::from_mode(0o751)).unwrap();
            let look = |mount: &Mount, name: &str| {
                let meta = fs::metadata(mount.path(name)).unwrap();
                (meta.mode() & 0o7777, meta.uid(), meta.gid())
            };
            assert_eq!(look(mount, "file"), (0o604, 71, 72));
            assert_eq!(look(mount, "dir"), (0o711, 71, 72));
            assert_eq!(look(mount, ""), (0o711, 71, 72));
            assert_eq!(fs::read(mount.path("file")).unwrap(), b"x");
            mount.wait_all();
            mount.umount();
            let passthrough = mount.config_text().contains("passthrough = \"auto\"");
            let mut options = Options { passthrough, ..Options::default() };
            options.mount = "uid = 81\ngid = 82\numask = \"077\"".to_owned();
            mount.configure(cloud, &options);
            mount.remount();
            assert_eq!(look(mount, "file"), (0o600, 81, 82));
            assert_eq!(look(mount, "dir"), (0o700, 81, 82));
            assert_eq!(look(mount, "dir/below"), (0o600, 81, 82));
            assert_eq!(look(mount, ""), (0o700, 81, 82));
            assert_eq!(look(mount, "own"), (0o751, 0, 0), "what carries its own keeps it");
            assert_eq!(fs::read(mount.path("own")).unwrap(), b"own");
            assert!(cloud.metadata("data/file", "uid").is_none(), "defaults are not written to the bucket");
        },
    );
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    both(
        |options| options.mount = "ro = true".to_owned(),
        |cloud, mount| {
            cloud.put("data/file", b"content");
            cloud.put("data/dir/below", b"x");
            let (file, new, dir) = (mount.path("file"), mount.path("new"), mount.path("dir"));
            assert_eq!(fs::read(&file).unwrap(), b"content");
            let refused = Some(libc::EROFS);
            assert_eq!(errno(fs::write(&file, "x")), refused);
            assert_eq!(errno(fs::OpenOptions::new().append(true).open(&file)), refused);
            assert_eq!(errno(fs::write(&new, "x")), refused);
            assert_eq!(errno(fs::create_dir(&new)), refused);
            assert_eq!(errno(symlink("a", &new)), refused);
            assert_eq!(errno(fs::hard_link(&file, &new)), refused);
            assert_eq!(errno(fs::remove_file(&file)), refused);
            assert_eq!(errno(fs::remove_dir(&dir)), refused);
            assert_eq!(errno(fs::rename(&file, &new)), refused);
            assert_eq!(errno(fs::set_permissions(&file, fs::Permissions::from_mode(0o600))), refused);
            assert_eq!(errno(std::os::unix::fs::chown(&file, Some(1), None)), refused);
            assert_eq!(errno(fs::OpenOptions::new().write(true).open(&file)), refused);
            let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let times = Timestamps { last_access: now, last_modification: now };
            let touched = utimensat(CWD, &file, &times, AtFlags::empty()).map_err(std::io::Error::from);
            assert_eq!(errno(touched), refused);
            let attribute = rustix::fs::setxattr(&file, "user.a", b"x", rustix::fs::XattrFlags::empty());
            assert_eq!(errno(attribute.map_err(std::io::Error::from)), refused);
            let changes = cloud.count_by(|request| request.method != "GET" && request.method != "HEAD");
            assert_eq!(changes, 0, "requests that change something");
            assert_eq!(cloud.keys(), ["data/dir/below", "data/file"]);
        },
    );
}

#[test]
fn options_of_mount_reach_the_kernel() {
    both(
        |options| options.mount = "exec = false\nsuid = true\ndev = true\nallow_other = true".to_owned(),
        |_, mount| {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            let line = mounts.lines().find(|line| line.contains(mount.dir().to_str().unwrap())).unwrap();
            let options: Vec<&str> = line.split(' ').nth(3).unwrap().split(',').collect();
            for wanted in ["noexec", "allow_other", "default_permissions", "rw"] {
                assert!(options.contains(&wanted), "{wanted}: {line}");
            }
            assert!(!options.contains(&"nosuid") && !options.contains(&"nodev"), "{line}");
            fs::copy("/bin/true", mount.path("true")).unwrap();
            assert_eq!(errno(Command::new(mount.path("true")).status()), Some(libc::EACCES));
            mount.wait_all();
        },
    );
}
