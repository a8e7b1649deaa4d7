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
}

/// `S_IFMT` and the type bits of st_mode (inode(7)).
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

impl FileKind {
    /// The type bits of st_mode.
    pub fn type_bits(self) -> u32 {
        match self {
            FileKind::File => S_IFREG,
            FileKind::Dir => S_IFDIR,
            FileKind::Symlink => S_IFLNK,
        }
    }

    /// The kind that type bits name; `None` for a kind that is not kept here (devices, sockets).
    pub fn from_mode(mode: u32) -> Option<Self> {
        match mode & S_IFMT {
            S_IFREG => Some(FileKind::File),
            S_IFDIR => Some(FileKind::Dir),
            S_IFLNK => Some(FileKind::Symlink),
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
