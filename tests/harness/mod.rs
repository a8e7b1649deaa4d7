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
mod mapping;
mod mount;
mod venv;

use std::fs;
use std::io;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

pub use cloud::{ACCESS_KEY, ACCESS_SECRET, Cloud, SECRET_ID, SECRET_KEY};
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
