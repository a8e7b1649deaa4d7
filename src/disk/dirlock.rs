//! One daemon a directory (J6).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::at;

/// The lock's file in the directory.
const FILE_NAME: &str = "lock";

/// An exclusive flock(2) on `dir/lock`; given back when dropped, or when the process ends in any way.
#[derive(Debug)]
pub struct DirLock {
    /// Holds the lock; also across fork(2), until the last copy is closed.
    file: File,
}

impl DirLock {
    /// Takes the lock, or tells who has it.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it, naming its pid; otherwise as open(2) and flock(2).
    pub fn acquire(dir: &Path) -> io::Result<DirLock> {
        let path = dir.join(FILE_NAME);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(at("open the lock", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                let reason = format!("another ferryfs uses {} ({holder})", dir.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, reason));
            }
            Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
        }
        let lock = DirLock { file };
        lock.write_holder().map_err(at("write the lock", &path))?;
        Ok(lock)
    }

    /// The process that holds the lock of a directory, or held it last, as its file tells. A lock that was
    /// taken a moment ago may still tell of the holder before.
    pub fn holder(dir: &Path) -> Option<u32> {
        std::fs::read_to_string(dir.join(FILE_NAME)).ok()?.trim().parse().ok()
    }

    /// Writes this process's pid into the file: to be repeated after a fork, whose child keeps the
    /// lock but has another pid.
    ///
    /// # Errors
    /// As write(2).
    pub fn write_holder(&self) -> io::Result<()> {
        let mut file = &self.file;
        io::Seek::rewind(&mut file)?;
        self.file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    }
}

/// Who holds a lock, as its file tells; for a message only.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("pid {}", text.trim()),
        _ => "its pid is unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let error = DirLock::acquire(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        assert_eq!(DirLock::holder(dir.path()), Some(std::process::id()));
        drop(lock);
        // A child that another test is starting has a copy of the descriptor until its exec.
        let begun = std::time::Instant::now();
        let again = loop {
            match DirLock::acquire(dir.path()) {
                Ok(lock) => break lock,
                Err(error) => assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{error}"),
            }
            std::thread::yield_now();
        };
        let text = std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(again);
    }
}
