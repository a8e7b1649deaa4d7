//! The calls on /dev/fuse and the mount table that the fuse room needs.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl;
use rustix::mount::{MountFlags, UnmountFlags};

use super::error::{at, at_errno};

/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, uint32_t)` in linux/fuse.h.
const BACKING_CLOSE: ioctl::Opcode = ioctl::opcode::write::<u32>(229, 2);

/// How a mount is to behave; see mount(8).
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseMountFlags {
    /// Users other than the one that mounts may use it.
    pub allow_other: bool,
    /// The kernel checks permissions by mode, owner and group.
    pub default_permissions: bool,
    /// `ro`.
    pub read_only: bool,
    /// `nodev`.
    pub no_dev: bool,
    /// `nosuid`.
    pub no_suid: bool,
    /// `noexec`.
    pub no_exec: bool,
}

/// Mounts a FUSE filesystem of type `fuse.SUBTYPE` on the directory `dir`; the descriptor is the
/// connection, whose first request is INIT.
///
/// # Errors
/// EPERM and EACCES without the right to mount; ENOENT and ENODEV without FUSE in the kernel.
pub fn mount_fuse(dir: &Path, source: &str, subtype: &str, flags: FuseMountFlags) -> io::Result<OwnedFd> {
    let path = Path::new("/dev/fuse");
    let device: File = OpenOptions::new().read(true).write(true).open(path).map_err(at("open", path))?;
    // Of rootmode the kernel only uses the type bits.
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    if flags.default_permissions {
        data.push_str(",default_permissions");
    }
    if flags.allow_other {
        data.push_str(",allow_other");
    }
    let mut bits = MountFlags::empty();
    bits.set(MountFlags::RDONLY, flags.read_only);
    bits.set(MountFlags::NODEV, flags.no_dev);
    bits.set(MountFlags::NOSUID, flags.no_suid);
    bits.set(MountFlags::NOEXEC, flags.no_exec);
    data.push('\0');
    let data = CStr::from_bytes_with_nul(data.as_bytes()).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(source, dir, format!("fuse.{subtype}"), bits, data).map_err(at_errno("mount on", dir))?;
    Ok(device.into())
}

/// Ends the connection of the FUSE mount on `dir` and takes the mount away, in use or not: requests
/// without an answer fail, and so do all later ones.
///
/// # Errors
/// `InvalidInput`: nothing is mounted there; EPERM.
pub fn abort_fuse(dir: &Path) -> io::Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::FORCE | UnmountFlags::NOFOLLOW;
    rustix::mount::unmount(dir, flags).map_err(at_errno("abort the mount on", dir))
}

/// Gives a backing id back to the connection that it was registered with.
///
/// # Errors
/// ENOENT: no such id; EPERM: the connection has no passthrough, or no CAP_SYS_ADMIN.
pub fn close_backing(device: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    // SAFETY: the opcode is linux/fuse.h's for this device, whose argument is a pointer to a u32
    // that the kernel only reads; any other descriptor refuses it with ENOTTY.
    #[expect(unsafe_code, reason = "an ioctl without a safe wrapper")]
    let answer = unsafe { ioctl::ioctl(device, ioctl::Setter::<BACKING_CLOSE, u32>::new(id)) };
    Ok(answer?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_opcode_is_the_headers_and_other_files_refuse_it() {
        // _IOW(229, 2, uint32_t) as the C compiler computes it on x86-64 and aarch64.
        assert_eq!(BACKING_CLOSE, 0x4004_e502);
        let file = tempfile::tempfile().unwrap();
        let error = close_backing(file.as_fd(), 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOTTY.raw_os_error()));
    }
}
