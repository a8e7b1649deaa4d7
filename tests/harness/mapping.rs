//! A file mapped into memory.

use std::fs::File;
use std::os::fd::AsRawFd;

/// A shared, writable mapping of a file's beginning. Stores are made one by one, in their order.
pub struct Mapping {
    start: *mut u8,
    length: usize,
}

#[expect(unsafe_code, reason = "mmap has no safe form")]
impl Mapping {
    pub fn new(file: &File, length: usize) -> Mapping {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the descriptor is open.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { start: start.cast(), length }
    }

    pub fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.length);
        for (n, byte) in bytes.iter().enumerate() {
            // SAFETY: within the mapping, which nothing in this process has a reference into.
            unsafe { self.start.add(at + n).write_volatile(*byte) };
        }
    }

    pub fn load(&self, at: usize, length: usize) -> Vec<u8> {
        assert!(at + length <= self.length);
        let mut bytes = vec![0; length];
        // SAFETY: as in `store`; the buffer is as long.
        unsafe { std::ptr::copy_nonoverlapping(self.start.add(at), bytes.as_mut_ptr(), length) };
        bytes
    }

    /// msync(2) of all of it.
    pub fn sync(&self) {
        // SAFETY: the whole mapping, as mmap returned it.
        assert_eq!(unsafe { libc::msync(self.start.cast(), self.length, libc::MS_SYNC) }, 0);
    }
}

#[expect(unsafe_code, reason = "mmap has no safe form")]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole mapping; nobody uses it after this.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}
