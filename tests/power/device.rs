//! A filesystem on a [`Platter`]: the platter is the one file of a FUSE mount of this process, which sees every
//! write and flush of the loop device on it before they are done, and in their order.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ferryfs::disk::{self, FuseMountFlags};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, Session, SessionACL, WriteFlags,
};

use super::platter::Platter;
use crate::harness::{PATIENCE, shown};

const ROOT: INodeNo = INodeNo(1);
const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk";
/// Nothing but the kernel's own loop driver asks.
const TTL: Duration = Duration::from_secs(3600);

/// What is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ext4,
    Xfs,
    Btrfs,
}

impl Format {
    /// Xfs makes no smaller one.
    pub const BYTES: u64 = 320 << 20;

    fn mkfs(self, path: &Path) {
        let words: &[&str] = match self {
            Format::Ext4 => &["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
            Format::Xfs => &["mkfs.xfs", "-q", "-f", "-K"],
            Format::Btrfs => &["mkfs.btrfs", "-q", "-f", "-K"],
        };
        run(Command::new(words[0]).args(&words[1..]).arg(path));
    }

    fn options(self) -> &'static str {
        match self {
            // Without its guess that a rename over a file wants its content to be there.
            Format::Ext4 => "loop,noatime,noauto_da_alloc",
            Format::Xfs => "loop,noatime",
            Format::Btrfs => "loop,noatime,noflushoncommit",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Ext4 => "ext4",
            Format::Xfs => "xfs",
            Format::Btrfs => "btrfs",
        }
    }
}

/// A platter in use.
pub struct Device {
    pub platter: Arc<Platter>,
    /// Where its filesystem is mounted.
    dir: PathBuf,
    served: tempfile::TempDir,
    session: Option<BackgroundSession>,
}

impl Device {
    /// Mounts what is on the platter, made first if it is `fresh`, on `dir`.
    pub fn attach(platter: Platter, format: Format, fresh: bool, dir: &Path) -> Device {
        let platter = Arc::new(platter);
        let served = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let fuse = disk::mount_fuse(served.path(), "platter", "platter", FuseMountFlags::default()).unwrap();
        let file = File { platter: platter.clone() };
        let mut device = Device { platter, dir: dir.to_owned(), served, session: None };
        let session = Session::from_fd(file, fuse, SessionACL::Owner, Config::default()).unwrap();
        device.session = Some(session.spawn().unwrap());
        let path = device.served.path().join(NAME);
        if fresh {
            format.mkfs(&path);
        } else if format == Format::Ext4 {
            // Replays its journal, and finds a platter that lost what it should have kept.
            let checked = Command::new("e2fsck").args(["-f", "-p"]).arg(&path).output().unwrap();
            assert!(matches!(checked.status.code(), Some(0 | 1)), "{}", shown(&checked));
        }
        let mut mount = Command::new("mount");
        run(mount.args(["-t", format.name(), "-o", format.options()]).arg(&path).arg(dir));
        device
    }

    /// Takes the filesystem, its loop device and the platter's mount away.
    fn detach(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for dir in [self.dir.clone(), self.served.path().to_owned()] {
            while disk::mount_info(&dir)?.is_some() {
                // What the killed daemon had open, and the loop device, go a moment after their last user.
                let patient = Instant::now() < deadline;
                match disk::unmount(&dir, !patient) {
                    Ok(()) => {}
                    Err(error) if !patient => return Err(error),
                    Err(_busy) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        }
        // Its thread ends with the mount.
        self.session.take().map_or(Ok(()), BackgroundSession::join)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            eprintln!("{} or {} stays mounted: {error}", self.dir.display(), self.served.path().display());
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", shown(&output));
}

struct File {
    platter: Arc<Platter>,
}

impl File {
    fn attr(&self, number: INodeNo) -> FileAttr {
        let is_root = number == ROOT;
        FileAttr {
            ino: number,
            size: if is_root { 0 } else { self.platter.bytes() },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_root { FileType::Directory } else { FileType::RegularFile },
            perm: if is_root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for File {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without, a write of the loop device is as good, only in smaller pieces.
        for flag in [InitFlags::FUSE_BIG_WRITES, InitFlags::FUSE_MAX_PAGES, InitFlags::FUSE_ASYNC_DIO] {
            let _not_offered = config.add_capabilities(flag);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME { reply.entry(&TTL, &self.attr(FILE), Generation(0)) } else { reply.error(Errno::ENOENT) }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(number));
    }

    fn open(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // No page cache in between: it would take writes that we have not seen.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&self.platter.read(offset, usize::try_from(size).unwrap()));
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.platter.write(offset, data);
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&self, _request: &Request, _number: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.platter.flush();
        reply.ok();
    }

    fn fallocate(
        &self,
        _request: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        // The loop driver then writes zeros itself.
        reply.error(Errno::EOPNOTSUPP);
    }
}

#[test]
fn a_filesystem_on_it_keeps_what_was_synced() {
    use super::platter::{Cut, Image};
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for format in [Format::Ext4, Format::Xfs, Format::Btrfs] {
        let platter = Platter::new(Format::BYTES, Image::default());
        let device = Device::attach(platter, format, true, dir.path());
        fs::write(dir.path().join("synced"), "synced").unwrap();
        fs::File::open(dir.path().join("synced")).unwrap().sync_all().unwrap();
        fs::File::open(dir.path()).unwrap().sync_all().unwrap();
        assert!(device.platter.flushes() > 0);
        fs::write(dir.path().join("not"), vec![7; 100_000]).unwrap();
        let image = device.platter.cut(Cut::KeepNone).0;
        drop(device);
        let device = Device::attach(Platter::new(Format::BYTES, image), format, false, dir.path());
        assert_eq!(fs::read_to_string(dir.path().join("synced")).unwrap(), "synced", "{format:?}");
        assert!(fs::read(dir.path().join("not")).map_or(true, |bytes| bytes.is_empty()), "{format:?}");
        drop(device);
    }
}
