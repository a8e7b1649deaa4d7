//! Can somebody still change this file? (C4)

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

/// Tells whether nobody can change the file through a descriptor or a shared mapping.
///
/// Takes a read lease and gives it back at once. `file` must be open for reading only: a writing
/// descriptor of our own counts as a writer. Somebody who opens the file for writing in between
/// waits for those few microseconds.
///
/// # Errors
/// As fcntl(2) F_SETLEASE: EACCES if the file is another user's and CAP_LEASE is missing, EINVAL
/// where the filesystem has no leases. No answer is not "yes": treat the file as open.
pub fn read_lease_grantable(file: &File) -> io::Result<bool> {
    ignore_sigio()?;
    match set_lease(file, libc::F_RDLCK) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(false),
        Err(error) => return Err(error),
    }
    match set_lease(file, libc::F_UNLCK) {
        Ok(()) => Ok(true),
        // Another thread that asked through the same descriptor has given it back already.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        Err(error) => Err(error),
    }
}

fn set_lease(file: &File, kind: i32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe wrapper offers F_SETLEASE")]
    // SAFETY: the descriptor is open for the length of the call; F_SETLEASE takes an integer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An open that conflicts with a lease signals its holder with SIGIO, whose default action is to
/// end the process. We give every lease back at once, so there is nothing to learn from it.
fn ignore_sigio() -> io::Result<()> {
    static IGNORED: OnceLock<Option<i32>> = OnceLock::new();
    let failure = IGNORED.get_or_init(|| {
        #[expect(unsafe_code, reason = "no safe wrapper sets a signal's disposition")]
        // SAFETY: SIG_IGN installs no handler, and nothing else in the process uses SIGIO.
        let previous = unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
        if previous == libc::SIG_ERR {
            Some(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
        } else {
            None
        }
    });
    failure.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::disk::{create_exclusive, open_read, open_write};

    /// Waits until the lease is granted: a child that another test is starting has a copy of our
    /// descriptors until its exec.
    fn wait_granted(reader: &File) {
        let begun = std::time::Instant::now();
        while !read_lease_grantable(reader).unwrap() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(20), "the lease is never granted");
            std::thread::yield_now();
        }
    }

    #[test]
    fn refused_while_a_writer_lives_and_granted_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer = create_exclusive(&path, 0o600).unwrap();
        let reader = open_read(&path).unwrap();
        assert!(!read_lease_grantable(&reader).unwrap());
        drop(writer);
        wait_granted(&reader);
        // The lease was given back: a writer opens without waiting for lease-break-time.
        let begun = std::time::Instant::now();
        let writer = open_write(&path).unwrap();
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
        assert!(!read_lease_grantable(&reader).unwrap());
        drop(writer);
        // Other readers do not matter.
        let _other = open_read(&path).unwrap();
        wait_granted(&reader);
    }

    #[test]
    fn refused_while_a_shared_mapping_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer = create_exclusive(&path, 0o600).unwrap();
        writer.set_len(4096).unwrap();
        let reader = open_read(&path).unwrap();
        #[expect(unsafe_code, reason = "a mapping is what is tested")]
        // SAFETY: a new mapping at an address the kernel chooses; nothing dereferences it.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                writer.as_raw_fd(),
                0,
            )
        };
        assert_ne!(mapping, libc::MAP_FAILED);
        drop(writer);
        assert!(!read_lease_grantable(&reader).unwrap());
        #[expect(unsafe_code, reason = "a mapping is what is tested")]
        // SAFETY: exactly the mapping made above, which nobody uses.
        let unmapped = unsafe { libc::munmap(mapping, 4096) };
        assert_eq!(unmapped, 0);
        wait_granted(&reader);
    }

    #[test]
    fn asking_while_others_open_for_writing_ends_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        drop(create_exclusive(&path, 0o600).unwrap());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let reader = open_read(&path).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        read_lease_grantable(&reader).unwrap();
                    }
                });
            }
            for _ in 0..5_000 {
                drop(open_write(&path).unwrap());
            }
            stop.store(true, Ordering::Relaxed);
        });
        wait_granted(&open_read(&path).unwrap());
    }
}
