//! The local machine: files, leases, locks, mounts, processes. Every system call that std does not
//! offer is made here, and with it the crate's unsafe code (fuse has one unsafe call of fuser).
//!
//! # Promise
//! Each function does one thing to the disk or asks it one question, and its error names the
//! operation and the path. Nothing here retries, caches or decides.
//!
//! # Invariants
//! 1. Errors keep the system's number: [`errno`] finds it below the words that were added.
//! 2. (C3) [`fstat`] and [`lstat`] ask for both mtime and ctime: the kernel arms its fine-grained
//!    time stamps only for a reader that asked.
//! 3. (C4) A lease is never held beyond [`read_lease_grantable`], and SIGIO, which would end the
//!    process when somebody opens the file at that moment, is ignored before the first.
//! 4. (J6) [`create_exclusive`] never opens what exists.

mod copy;
mod dirlock;
mod error;
mod file;
mod fuse_device;
mod lease;
mod mounts;
mod process;
mod space;
mod sparing;
mod stat;
mod unprivileged;
mod xattr;

pub use copy::{copy_contents, copy_range};
pub use dirlock::DirLock;
pub use error::errno;
pub use file::{
    chmod, create_exclusive, fallocate, forget_pages, make_dir_private, open_read, open_write, punch_hole, rename,
    seek, set_times, stamp_now, sync_data, sync_dir, sync_file, truncate, unlink,
};
pub use fuse_device::{FuseMountFlags, abort_fuse, close_backing, mount_fuse};
pub use lease::read_lease_grantable;
pub use mounts::{MountInfo, mount_id, mount_info, unmount};
pub use process::{
    boot_id, boot_id_from, is_being_killed, is_running, kernel_version, killed_by_signal, process_of,
    raise_nofile_limit, umask,
};
pub use space::{SpaceStat, is_in_memory, statvfs};
pub use sparing::sparing;
pub use stat::{FileStat, fstat, lstat};
pub use unprivileged::UnprivilegedThread;
pub use xattr::{XattrSource, get_xattr, remove_xattr, set_xattr};
