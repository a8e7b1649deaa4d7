//! What tests of the whole stand on: a bucket and OMS ([`Cloud`], the emulator in this process) and
//! mounts by the real binary ([`Mount`]). Every pair has its own directories and ports, so tests run
//! side by side. Needs root and /dev/fuse; without, tests fail rather than pass unseen.
//!
//! ```ignore
//! let cloud = Cloud::start();
//! let mount = Mount::new(&cloud, Options::default());
//! fs::write(mount.path("a"), "hello").unwrap();
//! mount.wait("a");
//! assert_eq!(cloud.bytes("data/a").unwrap(), b"hello");
//! ```
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod cloud;
mod disk;
mod mapping;
mod mount;
mod venv;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub use cloud::{ACCESS_KEY, ACCESS_SECRET, Cloud, SECRET_ID, SECRET_KEY, Service};
pub use disk::SmallDisk;
pub use mapping::Mapping;
pub use mount::{Answer, BINARY, Mount, Options, shown};
pub use venv::{source_dir, vendor_python};

/// Where mappings lie.
pub const BUCKET: &str = "examplebucket-1250000000";
/// Where records lie.
pub const LOGS: &str = "logs-1250000000";
/// What the mapping at `/` maps unless a test says otherwise.
pub const PREFIX: &str = "data/";
/// Longer than anything here takes on a busy machine; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `is_so`.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Numbers that a seed repeats.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Seeds that are close to each other give numbers that are not.
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }

    /// Of a hundred times that many times.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// close(2), with its result, which dropping a file does not tell.
pub fn close(file: fs::File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "close(2), with its result")]
    // SAFETY: the descriptor is given up by its owner just now.
    let closed = unsafe { libc::close(file.into_raw_fd()) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// truncate(2), not open and ftruncate(2).
pub fn truncate(path: &Path, size: u64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    #[expect(unsafe_code, reason = "truncate(2) has no safe form")]
    // SAFETY: the string ends with NUL and outlives the call.
    let done = unsafe { libc::truncate(path.as_ptr(), size.try_into().unwrap()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The child is killed with this process, also if that is killed itself.
pub fn die_together(command: &mut Command) {
    let die = || Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?);
    #[expect(unsafe_code, reason = "nothing safe runs between fork and exec")]
    // SAFETY: one system call, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(die);
    }
}

/// A child that is killed and waited for, if the test does not get to its end.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes without a short period, others for every seed.
pub fn pattern(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The number of the error that must have come.
#[track_caller]
pub fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

/// Names in a directory, sorted.
#[track_caller]
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
