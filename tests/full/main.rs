//! Full disks, a full cache, a failing disk (P7, C6, J3); every test with the kernel's passthrough and without.

#[path = "../harness/mod.rs"]
mod harness;

mod disk;
mod failing;
mod limit;

use std::fs::File;
use std::io;
use std::io::Write as _;
use std::os::fd::IntoRawFd;
use std::time::{Duration, Instant};

use harness::{Mount, PATIENCE};

/// What a program writes at once.
const CHUNK: usize = 256 << 10;

/// A test as it is with and without passthrough.
fn both(test: impl Fn(bool)) {
    for passthrough in [true, false] {
        eprintln!("passthrough: {passthrough}");
        test(passthrough);
    }
}

/// Writes until nothing more is taken; how much was, and what write(2) said then. `most`: what is more than
/// can ever be taken.
#[track_caller]
fn fill(file: &mut File, most: usize) -> (usize, io::Error) {
    let chunk = harness::pattern(7, CHUNK);
    let mut written = 0;
    loop {
        match file.write(&chunk) {
            Ok(some) => written += some,
            Err(error) => return (written, error),
        }
        assert!(written <= most, "{written} bytes were taken where {most} fit");
    }
}

/// close(2), with its result.
fn close(file: File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std's files swallow the result of close(2)")]
    // SAFETY: the descriptor is the caller's own and is given up by this.
    let closed = unsafe { libc::close(file.into_raw_fd()) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Repeats what fails for want of room until there is some.
#[track_caller]
fn with_room<T>(mut act: impl FnMut() -> io::Result<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match act() {
            Ok(done) => return done,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                assert!(Instant::now() < deadline, "there is never room again");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Files that are held, path and reason, sorted.
fn held(mount: &Mount) -> Vec<(String, String)> {
    let mut held: Vec<_> = mount.status().torn.into_iter().map(|problem| (problem.path, problem.reason)).collect();
    held.sort();
    held
}

/// WRITE requests so far: none of a file that the kernel writes to.
fn writes(mount: &Mount) -> u64 {
    mount.status().requests.get("write").copied().unwrap_or(0)
}
