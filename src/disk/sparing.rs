//! What takes blocks leaves the reserve of root alone.

use std::fs::File;
use std::io;

use super::unprivileged::Spared;

/// Above this much more than is asked for, nobody can come near the reserve between the look and the act.
const PLENTY: u64 = 64 << 20;

/// Does `act`, which takes up to `bytes` of the filesystem of `file`, as a user without a right to the
/// blocks that it reserves for root: ENOSPC comes while the journal still has some. It must work on
/// descriptors that are open: nobody's rights open no file.
///
/// # Errors
/// As `act`.
pub fn sparing<T>(file: &File, bytes: u64, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // Who cannot tell takes the careful way.
    let available = rustix::fs::fstatvfs(file).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    // Credentials are six system calls; they matter only where it is tight.
    let _spared = if available >= bytes.saturating_add(PLENTY) { None } else { Spared::begin() };
    act()
}
