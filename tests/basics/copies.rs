//! copy_file_range(2): from file to file without passing through the program.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::copy_file_range;

use super::both;
use super::harness::{Mount, errno, pattern, shown};

const MIB: usize = 1 << 20;

fn open_rw(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// copy_file_range(2) once.
fn copy(from: &File, mut at: u64, to: &File, mut put: u64, length: usize) -> io::Result<usize> {
    Ok(copy_file_range(from, Some(&mut at), to, Some(&mut put), length)?)
}

/// Until all of it is copied; the daemon was asked for it, not the kernel's splice.
#[track_caller]
fn copy_all(mount: &Mount, from: &File, at: u64, to: &File, put: u64, length: usize) {
    let (mut done, before) = (0, asked(mount));
    while done < length {
        let copied = copy(from, at + done as u64, to, put + done as u64, length - done).unwrap();
        assert!(copied > 0, "the source ended after {done} bytes of {length}");
        done += copied;
    }
    let after = asked(mount);
    assert!(after.0 > before.0, "the daemon was not asked");
    assert_eq!(after.1, before.1, "the kernel wrote itself");
}

/// Requests to copy, and to write, that have reached the daemon.
fn asked(mount: &Mount) -> (u64, u64) {
    let requests = mount.status().requests;
    let count = |name: &str| requests.get(name).copied().unwrap_or_default();
    (count("copy_file_range"), count("write"))
}

#[test]
fn ranges_are_copied_from_file_to_file() {
    both(
        |_| {},
        |cloud, mount| {
            let model = pattern(31, 3 * MIB + 77);
            fs::write(mount.path("from"), &model).unwrap();
            // One source that is clean, one that is being written.
            mount.wait("from");
            let from = open_rw(&mount.path("from"));
            let to = File::create_new(mount.path("to")).unwrap();
            copy_all(mount, &from, 0, &to, 0, model.len());
            // At its end there is nothing, and nothing changes.
            assert_eq!(copy(&from, model.len() as u64, &to, 0, 100).unwrap(), 0);
            assert_eq!(to.metadata().unwrap().len(), model.len() as u64);
            // Beyond the end of the target, not on a page's border.
            copy_all(mount, &from, 12_345, &to, 4 * MIB as u64 + 1, 54_321);
            let mut expected = model.clone();
            expected.resize(4 * MIB + 1, 0);
            expected.extend_from_slice(&model[12_345..12_345 + 54_321]);
            assert!(fs::read(mount.path("to")).unwrap() == expected);

            // Within one file.
            from.write_all_at(b"changed", 5).unwrap();
            copy_all(mount, &from, 0, &from, 2 * MIB as u64, 10_000);
            let mut changed = model.clone();
            changed[5..12].copy_from_slice(b"changed");
            changed.copy_within(..10_000, 2 * MIB);
            assert!(fs::read(mount.path("from")).unwrap() == changed);
            drop((from, to));
            mount.wait_all();
            cloud.holds("data/to", &expected);
            cloud.holds("data/from", &changed);
            mount.forget_all();
            assert!(fs::read(mount.path("to")).unwrap() == expected);
        },
    );
}

#[test]
fn a_copy_that_cannot_be_says_why_and_changes_nothing() {
    both(
        |_| {},
        |cloud, mount| {
            fs::write(mount.path("from"), pattern(32, 50_000)).unwrap();
            fs::write(mount.path("to"), "as it was").unwrap();
            let from = open_rw(&mount.path("from"));
            let read_only = File::open(mount.path("to")).unwrap();
            assert_eq!(errno(copy(&from, 0, &read_only, 0, 100)), Some(libc::EBADF));
            let append = OpenOptions::new().append(true).open(mount.path("to")).unwrap();
            assert_eq!(errno(copy(&from, 0, &append, 0, 100)), Some(libc::EBADF));
            let write_only = OpenOptions::new().write(true).open(mount.path("to")).unwrap();
            assert_eq!(errno(copy(&write_only, 0, &from, 0, 100)), Some(libc::EBADF));
            assert_eq!(errno(copy(&from, 0, &from, 99, 100)), Some(libc::EINVAL), "overlapping");
            assert_eq!(errno(copy(&from, 0, &write_only, i64::MAX as u64 - 5, 100)), Some(libc::EFBIG));
            let dir = File::open(mount.dir()).unwrap();
            assert_eq!(errno(copy(&dir, 0, &write_only, 0, 100)), Some(libc::EISDIR));
            let outside = fs::write(mount.outside("elsewhere"), "outside").map(|()| mount.outside("elsewhere"));
            let outside = File::open(outside.unwrap()).unwrap();
            // Another mount: the kernel copies by itself, or says EXDEV.
            match copy(&outside, 0, &write_only, 0, 0) {
                Ok(copied) => assert_eq!(copied, 0),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EXDEV)),
            }
            drop((from, read_only, append, write_only));
            assert_eq!(fs::read(mount.path("to")).unwrap(), b"as it was");
            mount.wait_all();
            cloud.holds("data/to", b"as it was");
        },
    );
}

/// What copy_file_range(2) and write(2) do to a file beside its bytes is the same.
#[test]
fn a_copy_changes_times_and_privileges_as_a_write_does() {
    both(
        |options| options.mount = "allow_other = true".to_owned(),
        |cloud, mount| {
            fs::write(mount.path("from"), pattern(33, 10_000)).unwrap();
            fs::write(mount.path("to"), "old").unwrap();
            mount.wait_all();
            let from = File::open(mount.path("from")).unwrap();
            let to = open_rw(&mount.path("to"));
            to.set_permissions(fs::Permissions::from_mode(0o6777)).unwrap();
            let before = to.metadata().unwrap();
            copy_all(mount, &from, 0, &to, 0, 10_000);
            let after = to.metadata().unwrap();
            assert_eq!((after.len(), after.ino()), (10_000, before.ino()));
            assert!(after.modified().unwrap() > before.modified().unwrap());
            assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
            // As root, who keeps them; as anybody else they go.
            assert_eq!(after.mode() & 0o7777, 0o6777);
            drop(to);
            let script = "import os,sys; s=os.open(sys.argv[1],os.O_RDONLY); d=os.open(sys.argv[2],os.O_WRONLY)\n\
                          os.setgid(12345); os.setuid(12345); assert os.copy_file_range(s,d,100)==100";
            let paths = [mount.path("from"), mount.path("to")];
            let output = Command::new("python3").args(["-c", script]).args(paths).output().unwrap();
            assert!(output.status.success(), "{}", shown(&output));
            assert_eq!(fs::metadata(mount.path("to")).unwrap().mode() & 0o7777, 0o777);
            mount.wait_all();
            cloud.holds("data/to", &pattern(33, 10_000));
        },
    );
}

#[test]
fn what_was_copied_and_closed_survives_a_kill() {
    both(
        |_| {},
        |cloud, mount| {
            let model = pattern(34, MIB);
            fs::write(mount.path("from"), &model).unwrap();
            let from = File::open(mount.path("from")).unwrap();
            let (closed, open) = (File::create(mount.path("closed")), File::create(mount.path("open")));
            let (closed, open) = (closed.unwrap(), open.unwrap());
            copy_all(mount, &from, 0, &closed, 0, model.len());
            drop(closed);
            // Last of all: a child that is started closes what it inherits, which looks like a close.
            assert_eq!(copy(&from, 0, &open, 0, model.len() / 2).unwrap(), model.len() / 2);
            mount.kill9();
            drop((from, open));
            mount.remount();
            assert!(fs::read(mount.path("closed")).unwrap() == model);
            mount.wait("closed");
            cloud.holds("data/closed", &model);
            // Half a copy is half a file: held (P2).
            assert_eq!(mount.status().torn.iter().map(|torn| torn.path.as_str()).collect::<Vec<_>>(), ["/open"]);
            assert!(cloud.object("data/open").is_none());
            fs::write(mount.path("open"), "anew").unwrap();
        },
    );
}
