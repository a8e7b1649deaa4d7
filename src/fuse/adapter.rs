//! One FUSE request, one call of the vfs room.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::fuse::answer;
use crate::fuse::decode::{caller, ino, set_time};
use crate::fuse::directory;
use crate::fuse::init::{Negotiated, negotiate};
use crate::fuse::opened::{reply_create, reply_open};
use crate::fuse::requests::{NOBODY, Requests};
use crate::types::DeviceNo;
use crate::vfs::{Place, SetAttr, Vfs};

/// What fuser calls.
pub(super) struct Adapter {
    vfs: Vfs,
    requests: Requests,
    want_passthrough: bool,
    negotiated: Arc<OnceLock<Negotiated>>,
}

impl Adapter {
    /// Serves `vfs`; what came of INIT appears in `negotiated`.
    pub(super) fn new(
        vfs: Vfs,
        requests: Requests,
        want_passthrough: bool,
        negotiated: Arc<OnceLock<Negotiated>>,
    ) -> Self {
        Adapter { vfs, requests, want_passthrough, negotiated }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // INIT comes once; if it came again the first answer would stand.
        let negotiated = negotiate(config, self.want_passthrough);
        self.negotiated.get_or_init(|| negotiated);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (vfs, name, caller) = (self.vfs.clone(), name.to_owned(), caller(request));
        self.requests.serve("lookup", request.pid(), async move {
            answer::entry("lookup", parent, vfs.lookup(ino(parent), &name, caller).await, reply);
        });
    }

    fn forget(&self, _request: &Request, number: INodeNo, count: u64) {
        self.requests.call("forget", || self.vfs.forget(ino(number), count));
    }

    fn getattr(&self, request: &Request, number: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let vfs = self.vfs.clone();
        self.requests.serve("getattr", request.pid(), async move {
            answer::attr("getattr", number, vfs.getattr(ino(number), fh.map(|fh| fh.0)).await, reply);
        });
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        // The kernel sends a ctime only with the write-back cache, the others only on macOS.
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (vfs, caller) = (self.vfs.clone(), caller(request));
        let change = SetAttr { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        self.requests.serve("setattr", request.pid(), async move {
            let result = vfs.setattr(ino(number), fh.map(|fh| fh.0), change, caller).await;
            answer::attr("setattr", number, result, reply);
        });
    }

    fn readlink(&self, request: &Request, number: INodeNo, reply: ReplyData) {
        let vfs = self.vfs.clone();
        self.requests.serve("readlink", request.pid(), async move {
            answer::data("readlink", number, vfs.readlink(ino(number)).await, reply);
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (vfs, name, caller) = (self.vfs.clone(), name.to_owned(), caller(request));
        self.requests.serve("mknod", request.pid(), async move {
            let made = vfs.mknod(ino(parent), &name, mode & !umask, DeviceNo(rdev), caller).await;
            answer::entry("mknod", parent, made, reply);
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (vfs, name, caller) = (self.vfs.clone(), name.to_owned(), caller(request));
        self.requests.serve("mkdir", request.pid(), async move {
            answer::entry("mkdir", parent, vfs.mkdir(ino(parent), &name, mode, umask, caller).await, reply);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name, caller) = (self.vfs.clone(), name.to_owned(), caller(request));
        self.requests.serve("unlink", request.pid(), async move {
            answer::empty("unlink", parent, vfs.unlink(ino(parent), &name, caller).await, reply);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name, caller) = (self.vfs.clone(), name.to_owned(), caller(request));
        self.requests.serve("rmdir", request.pid(), async move {
            answer::empty("rmdir", parent, vfs.rmdir(ino(parent), &name, caller).await, reply);
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (vfs, name, target, caller) = (self.vfs.clone(), name.to_owned(), target.to_owned(), caller(request));
        self.requests.serve("symlink", request.pid(), async move {
            let result = vfs.symlink(ino(parent), &name, target.as_os_str(), caller).await;
            answer::entry("symlink", parent, result, reply);
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (vfs, name, new_name, caller) = (self.vfs.clone(), name.to_owned(), new_name.to_owned(), caller(request));
        self.requests.serve("rename", request.pid(), async move {
            let result = vfs.rename(ino(parent), &name, ino(new_parent), &new_name, flags.bits(), caller).await;
            answer::empty("rename", parent, result, reply);
        });
    }

    fn link(&self, _request: &Request, _number: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        // link(2): "the filesystem does not support the creation of hard links".
        reply.error(Errno::EPERM);
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (vfs, caller) = (self.vfs.clone(), caller(request));
        self.requests.serve("open", request.pid(), async move {
            match vfs.open(ino(number), flags.0, caller).await {
                Ok(opened) => reply_open(reply, &opened),
                Err(error) => reply.error(answer::refuse("open", number, &error)),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (vfs, name, caller) = (self.vfs.clone(), name.to_owned(), caller(request));
        self.requests.serve("create", request.pid(), async move {
            match vfs.create(ino(parent), &name, mode, umask, flags, caller).await {
                Ok((entry, opened)) => reply_create(reply, &entry, &opened),
                Err(error) => reply.error(answer::refuse("create", parent, &error)),
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let vfs = self.vfs.clone();
        self.requests.serve("read", request.pid(), async move {
            answer::data("read", number, vfs.read(ino(number), fh.0, offset, size).await, reply);
        });
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (vfs, data) = (self.vfs.clone(), Bytes::copy_from_slice(data));
        let kill_suid = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        self.requests.serve("write", request.pid(), async move {
            match vfs.write(ino(number), fh.0, offset, data, kill_suid).await {
                Ok(written) => reply.written(written),
                Err(error) => reply.error(answer::refuse("write", number, &error)),
            }
        });
    }

    fn flush(&self, request: &Request, number: INodeNo, fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let (vfs, pid) = (self.vfs.clone(), request.pid());
        self.requests.serve("flush", request.pid(), async move {
            answer::empty("flush", number, vfs.flush(ino(number), fh.0, pid).await, reply);
        });
    }

    fn release(
        &self,
        _request: &Request,
        number: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let vfs = self.vfs.clone();
        // The program does not wait for it, and what it ends must end.
        self.requests.serve("release", NOBODY, async move {
            vfs.release(ino(number), fh.0).await;
            reply.ok();
        });
    }

    fn fsync(&self, request: &Request, number: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let vfs = self.vfs.clone();
        self.requests.serve("fsync", request.pid(), async move {
            answer::empty("fsync", number, vfs.fsync(ino(number), fh.0, datasync).await, reply);
        });
    }

    fn opendir(&self, request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (vfs, caller) = (self.vfs.clone(), caller(request));
        self.requests.serve("opendir", request.pid(), async move {
            match vfs.opendir(ino(number), caller).await {
                Ok(fh) => reply.opened(FileHandle(fh), FopenFlags::empty()),
                Err(error) => reply.error(answer::refuse("opendir", number, &error)),
            }
        });
    }

    fn readdir(&self, request: &Request, number: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let vfs = self.vfs.clone();
        self.requests.serve("readdir", request.pid(), async move {
            match directory::fill(&vfs, ino(number), fh.0, offset, &mut reply).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(answer::refuse("readdir", number, &error)),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let vfs = self.vfs.clone();
        self.requests.serve("readdirplus", request.pid(), async move {
            match directory::fill_plus(&vfs, ino(number), fh.0, offset, &mut reply).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(answer::refuse("readdirplus", number, &error)),
            }
        });
    }

    fn releasedir(&self, _request: &Request, _number: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.requests.call("releasedir", || self.vfs.releasedir(fh.0));
        reply.ok();
    }

    fn fsyncdir(&self, request: &Request, number: INodeNo, _fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let vfs = self.vfs.clone();
        self.requests.serve("fsyncdir", request.pid(), async move {
            answer::empty("fsyncdir", number, vfs.fsyncdir(ino(number), datasync).await, reply);
        });
    }

    fn statfs(&self, request: &Request, number: INodeNo, reply: ReplyStatfs) {
        let vfs = self.vfs.clone();
        self.requests.serve("statfs", request.pid(), async move {
            match vfs.statfs().await {
                Ok(s) => reply.statfs(
                    s.blocks,
                    s.free,
                    s.available,
                    s.files,
                    s.files_free,
                    s.block_size,
                    s.name_max,
                    s.block_size,
                ),
                Err(error) => reply.error(answer::refuse("statfs", number, &error)),
            }
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        // Only macOS writes into the middle of a value.
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (vfs, name, value) = (self.vfs.clone(), name.to_owned(), value.to_vec());
        self.requests.serve("setxattr", request.pid(), async move {
            answer::empty("setxattr", number, vfs.setxattr(ino(number), &name, &value, flags).await, reply);
        });
    }

    fn getxattr(&self, request: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (vfs, name) = (self.vfs.clone(), name.to_owned());
        self.requests.serve("getxattr", request.pid(), async move {
            answer::xattr("getxattr", number, size, vfs.getxattr(ino(number), &name).await, reply);
        });
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let vfs = self.vfs.clone();
        self.requests.serve("listxattr", request.pid(), async move {
            answer::xattr("listxattr", number, size, vfs.listxattr(ino(number)).await, reply);
        });
    }

    fn removexattr(&self, request: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (self.vfs.clone(), name.to_owned());
        self.requests.serve("removexattr", request.pid(), async move {
            answer::empty("removexattr", number, vfs.removexattr(ino(number), &name).await, reply);
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let vfs = self.vfs.clone();
        self.requests.serve("fallocate", request.pid(), async move {
            let result = vfs.fallocate(ino(number), fh.0, offset, length, mode).await;
            answer::empty("fallocate", number, result, reply);
        });
    }

    fn lseek(&self, request: &Request, number: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let vfs = self.vfs.clone();
        self.requests.serve("lseek", request.pid(), async move {
            match vfs.lseek(ino(number), fh.0, offset, whence).await {
                Ok(offset) => reply.offset(offset),
                Err(error) => reply.error(answer::refuse("lseek", number, &error)),
            }
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        from_fh: FileHandle,
        from_offset: u64,
        to: INodeNo,
        to_fh: FileHandle,
        to_offset: u64,
        length: u64,
        // None is defined.
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let vfs = self.vfs.clone();
        let from = Place { ino: ino(from), fh: from_fh.0, offset: from_offset };
        let to = Place { ino: ino(to), fh: to_fh.0, offset: to_offset };
        self.requests.serve("copy_file_range", request.pid(), async move {
            match vfs.copy_file_range(from, to, length).await {
                Ok(copied) => reply.written(copied),
                Err(error) => reply.error(answer::refuse("copy_file_range", INodeNo(to.ino.0), &error)),
            }
        });
    }

    fn ioctl(
        &self,
        _request: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // isatty(3) and many an open(2) ask; no ioctl has a meaning here.
        reply.error(Errno::ENOTTY);
    }

    // ENOSYS below tells the kernel to do without us from now on, which is what is wanted.

    /// Not sent with `default_permissions`; without it, ENOSYS lets every access(2) pass.
    fn access(&self, _request: &Request, _number: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    /// The kernel then takes every file for ready, as local disks do.
    fn poll(
        &self,
        _request: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
