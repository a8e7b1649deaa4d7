//! Copying one file's content to another, cheaply and with its holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone};
use rustix::io::{Errno, retry_on_intr};

use super::stat::fstat;

/// Bytes that the last resort moves at a time: large enough for streaming, small enough for a
/// thread's memory.
const BUFFER_BYTES: usize = 256 << 10;

/// Makes the content of `dst` equal to that of `src`; returns its size in bytes.
///
/// Shares the blocks where the filesystem can (FICLONE), else copies inside the kernel, else through
/// memory. Holes stay holes. After an error the content of `dst` is undefined.
///
/// # Errors
/// As the system calls; `UnexpectedEof` if `src` shrinks meanwhile.
pub fn copy_contents(src: &File, dst: &File) -> io::Result<u64> {
    // FICLONE leaves what lies beyond the source's end.
    dst.set_len(0)?;
    match ioctl_ficlone(dst, src) {
        Ok(()) => return Ok(fstat(dst)?.size),
        // Every "cannot here" (another filesystem, no reflinks, alignment) means: copy.
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::TXTBSY) => {}
        Err(error) => return Err(error.into()),
    }
    let size = fstat(src)?.size;
    dst.set_len(size)?;
    let mut copier = Copier { src, dst, in_kernel: true, buffer: Vec::new() };
    let mut position = 0;
    while position < size {
        let start = match rustix::fs::seek(src, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break, // only a hole is left
            Err(error) => return Err(error.into()),
        };
        if start >= size {
            break;
        }
        let end = rustix::fs::seek(src, SeekFrom::Hole(start))?.min(size);
        copier.range(start, end)?;
        position = end;
    }
    // A file that shrank while it was copied looks like one that ends in a hole.
    if fstat(src)?.size < size {
        return Err(shrank());
    }
    Ok(size)
}

/// Copies bytes inside the kernel, which shares blocks where the filesystem can; returns how many, fewer only
/// where `src` ends or an error came after the first.
///
/// # Errors
/// As copy_file_range(2), before anything was copied.
pub fn copy_range(src: &File, from: u64, dst: &File, to: u64, length: u64) -> io::Result<u64> {
    let mut copied = 0;
    while copied < length {
        let (mut reads, mut writes) = (from + copied, to + copied);
        let left = usize::try_from(length - copied).unwrap_or(usize::MAX);
        match retry_on_intr(|| copy_file_range(src, Some(&mut reads), dst, Some(&mut writes), left)) {
            Ok(0) => break,
            Ok(some) => copied += some as u64,
            // It will come again, and then be told.
            Err(_) if copied > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(copied)
}

struct Copier<'a> {
    src: &'a File,
    dst: &'a File,
    /// copy_file_range has not refused yet.
    in_kernel: bool,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    fn range(&mut self, start: u64, end: u64) -> io::Result<()> {
        let mut position = start;
        while position < end {
            position += self.step(position, end - position)?;
        }
        Ok(())
    }

    /// Copies some bytes, at least one.
    fn step(&mut self, position: u64, left: u64) -> io::Result<u64> {
        if self.in_kernel {
            let (mut from, mut to) = (position, position);
            let len = usize::try_from(left).unwrap_or(usize::MAX);
            match retry_on_intr(|| copy_file_range(self.src, Some(&mut from), self.dst, Some(&mut to), len)) {
                // 0 is the end of the file, or a filesystem that does not know better: reading tells.
                Ok(0) => {}
                Ok(copied) => return Ok(copied as u64),
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.in_kernel = false,
                Err(error) => return Err(error.into()),
            }
        }
        self.buffer.resize(BUFFER_BYTES, 0);
        let len = BUFFER_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX));
        let chunk = self.buffer.get_mut(..len).unwrap_or_default();
        let read = self.src.read_at(chunk, position)?;
        if read == 0 {
            return Err(shrank());
        }
        self.dst.write_all_at(chunk.get(..read).unwrap_or_default(), position)?;
        Ok(read as u64)
    }
}

fn shrank() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was copied")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{create_exclusive, truncate};

    /// 8 MiB with data at both ends of a hole, an odd length and a hole at the end.
    fn sparse(file: &File) {
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        file.write_all_at(&vec![2; (1 << 20) + 77], 6 << 20).unwrap();
        truncate(file, (8 << 20) + 5).unwrap();
    }

    fn check(src_dir: &tempfile::TempDir, dst_dir: &tempfile::TempDir) {
        let src = create_exclusive(&src_dir.path().join("src"), 0o600).unwrap();
        let dst = create_exclusive(&dst_dir.path().join("dst"), 0o600).unwrap();
        sparse(&src);
        dst.write_all_at(&vec![9; 10 << 20], 0).unwrap();
        assert_eq!(copy_contents(&src, &dst).unwrap(), (8 << 20) + 5);
        assert_eq!(
            std::fs::read(src_dir.path().join("src")).unwrap(),
            std::fs::read(dst_dir.path().join("dst")).unwrap()
        );
        let allocated = fstat(&dst).unwrap().blocks * 512;
        assert!(allocated < 4 << 20, "holes were filled: {allocated} bytes for 2 MiB of data");
    }

    #[test]
    fn a_copy_is_equal_and_keeps_holes() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        check(&dir, &other);
    }

    #[test]
    fn a_copy_across_filesystems_is_equal_and_keeps_holes() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(memory) = tempfile::tempdir_in("/dev/shm") else { return };
        check(&dir, &memory);
    }

    #[test]
    fn copying_through_memory_is_equal() {
        let dir = tempfile::tempdir().unwrap();
        let src = create_exclusive(&dir.path().join("src"), 0o600).unwrap();
        let dst = create_exclusive(&dir.path().join("dst"), 0o600).unwrap();
        let content: Vec<u8> = (0..700_001_u32).map(|n| (n % 251) as u8).collect();
        src.write_all_at(&content, 0).unwrap();
        let mut copier = Copier { src: &src, dst: &dst, in_kernel: false, buffer: Vec::new() };
        copier.range(0, content.len() as u64).unwrap();
        assert_eq!(std::fs::read(dir.path().join("dst")).unwrap(), content);
        let beyond = copier.range(content.len() as u64, content.len() as u64 + 1).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_range_is_copied_up_to_the_end_of_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let src = create_exclusive(&dir.path().join("src"), 0o600).unwrap();
        let dst = create_exclusive(&dir.path().join("dst"), 0o600).unwrap();
        src.write_all_at(b"0123456789", 0).unwrap();
        dst.write_all_at(b"abc", 0).unwrap();
        assert_eq!(copy_range(&src, 6, &dst, 2, 100).unwrap(), 4);
        assert_eq!(copy_range(&src, 10, &dst, 0, 100).unwrap(), 0);
        assert_eq!(std::fs::read(dir.path().join("dst")).unwrap(), b"ab6789");
    }

    #[test]
    fn an_empty_file_empties_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let src = create_exclusive(&dir.path().join("src"), 0o600).unwrap();
        let dst = create_exclusive(&dir.path().join("dst"), 0o600).unwrap();
        dst.write_all_at(b"old", 0).unwrap();
        assert_eq!(copy_contents(&src, &dst).unwrap(), 0);
        assert_eq!(fstat(&dst).unwrap().size, 0);
    }
}
