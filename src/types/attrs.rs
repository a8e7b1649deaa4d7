//! POSIX attributes of an inode.

use super::TimeNs;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link; its object's body is the target.
    Symlink,
    /// Named pipe. What follows from here on is special: a name and attributes, an empty object.
    Fifo,
    /// Socket of the unix domain.
    Socket,
    /// Character device.
    CharDevice(DeviceNo),
    /// Block device.
    BlockDevice(DeviceNo),
}

/// Which device, in the kernel's 32-bit form (`new_encode_dev`: minor 0xff, major 0xfff00, minor
/// 0xfff00000), as FUSE carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceNo(pub u32);

/// `S_IFMT` and the type bits of st_mode (inode(7)).
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

impl FileKind {
    /// The type bits of st_mode.
    pub fn type_bits(self) -> u32 {
        match self {
            FileKind::File => S_IFREG,
            FileKind::Dir => S_IFDIR,
            FileKind::Symlink => S_IFLNK,
            FileKind::Fifo => S_IFIFO,
            FileKind::Socket => S_IFSOCK,
            FileKind::CharDevice(_) => S_IFCHR,
            FileKind::BlockDevice(_) => S_IFBLK,
        }
    }

    /// Pipes, sockets and devices: the kernel opens them itself, their objects are empty.
    pub fn is_special(self) -> bool {
        matches!(self, FileKind::Fifo | FileKind::Socket | FileKind::CharDevice(_) | FileKind::BlockDevice(_))
    }

    /// Which device; `None` for all that is none.
    pub fn device(self) -> Option<DeviceNo> {
        match self {
            FileKind::CharDevice(device) | FileKind::BlockDevice(device) => Some(device),
            FileKind::File | FileKind::Dir | FileKind::Symlink | FileKind::Fifo | FileKind::Socket => None,
        }
    }

    /// The kind that type bits name; `device` counts for devices only. `None` for bits that name none.
    pub fn from_mode(mode: u32, device: DeviceNo) -> Option<Self> {
        match mode & S_IFMT {
            S_IFREG => Some(FileKind::File),
            S_IFDIR => Some(FileKind::Dir),
            S_IFLNK => Some(FileKind::Symlink),
            S_IFIFO => Some(FileKind::Fifo),
            S_IFSOCK => Some(FileKind::Socket),
            S_IFCHR => Some(FileKind::CharDevice(device)),
            S_IFBLK => Some(FileKind::BlockDevice(device)),
            _ => None,
        }
    }
}

/// Attributes that travel in object headers (DESIGN N3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attrs {
    /// Permission bits, 0 to 0o7777, without the type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The program's modification time.
    pub mtime: TimeNs,
}
