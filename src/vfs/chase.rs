//! A copy of a file that never stands still.
//!
//! Marks cannot say when such a file was quiet, so bytes must: what was read once before a moment and
//! once after it, and was the same, is what the file held at that moment. That fails only for a byte
//! that was changed and changed back in between.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::disk;

/// Bytes compared at once.
const CHUNK: usize = 1 << 20;
/// Times that the whole file is compared; one that is changed in place all the time is given up.
const PASSES: u32 = 6;
/// Times that what was appended meanwhile is copied before another pass.
const TAILS: u32 = 100;

/// Copies `src` to `dst` as it was at one moment, between two writes. `false`: no such moment was
/// found, and `dst` holds nothing of use.
///
/// # Errors
/// The disk's.
pub(super) fn chase(src: &File, dst: &File) -> io::Result<bool> {
    let mut end = match disk::copy_contents(src, dst) {
        Ok(end) => end,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    for _ in 0..PASSES {
        // The moment: nobody is in the middle of a write, and all bytes have been read.
        if !catch_up(src, dst, &mut end)? {
            return Ok(false);
        }
        if !mend(src, dst, end)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies what was appended until there is no more.
fn catch_up(src: &File, dst: &File, end: &mut u64) -> io::Result<bool> {
    for _ in 0..TAILS {
        match size_between_writes(src)? {
            Some(size) if size == *end => return Ok(true),
            Some(size) if size < *end => return Ok(false),
            Some(_) | None => {}
        }
        let size = disk::fstat(src)?.size;
        while *end < size {
            let length = CHUNK.min(usize::try_from(size - *end).unwrap_or(CHUNK));
            let mut bytes = vec![0; length];
            let read = src.read_at(&mut bytes, *end)?;
            if read == 0 {
                return Ok(false);
            }
            dst.write_all_at(bytes.get(..read).unwrap_or_default(), *end)?;
            *end += read as u64;
        }
    }
    Ok(false)
}

/// The size while no write(2) is under way, which moves it by pages: a seek for a hole waits for the
/// lock that a write holds, and finds the one behind the last byte. `None`: it moved at once.
fn size_between_writes(file: &File) -> io::Result<Option<u64>> {
    let size = disk::fstat(file)?.size;
    let Some(last) = size.checked_sub(1) else { return Ok(Some(0)) };
    let last = i64::try_from(last).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    disk::seek(file, last, libc::SEEK_HOLE)?;
    // A hole at the end is found before it: the size itself says whether a write came between.
    Ok((disk::fstat(file)?.size == size).then_some(size))
}

/// Makes the copy equal again; whether anything had to be changed.
fn mend(src: &File, dst: &File, end: u64) -> io::Result<bool> {
    let (mut now, mut then) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut at, mut changed) = (0, false);
    while at < end {
        let length = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
        let (Some(now), Some(then)) = (now.get_mut(..length), then.get_mut(..length)) else { return Ok(true) };
        match src.read_exact_at(now, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
            read => read?,
        }
        dst.read_exact_at(then, at)?;
        if now != then {
            dst.write_all_at(now, at)?;
            changed = true;
        }
        at += length as u64;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Several pages: the size moves while such a write is under way.
    const RECORD: usize = 20_000;

    fn record(number: usize) -> Vec<u8> {
        vec![u8::try_from(number % 251).unwrap(); RECORD]
    }

    #[test]
    fn a_growing_file_is_copied_between_two_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = File::create(&path).unwrap();
        (0..50).for_each(|number| log.write_all(&record(number)).unwrap());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 50..20_000 {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    log.write_all(&record(number)).unwrap();
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
            });
            let mut found = 0;
            for round in 0..20 {
                let src = File::open(&path).unwrap();
                let to = dir.path().join(format!("copy{round}"));
                let dst = disk::create_exclusive(&to, 0o600).unwrap();
                if chase(&src, &dst).unwrap() {
                    let bytes = std::fs::read(&to).unwrap();
                    assert_eq!(bytes.len() % RECORD, 0, "in the middle of a write");
                    assert!(bytes.chunks(RECORD).enumerate().all(|(number, bytes)| bytes == record(number)));
                    found += 1;
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(found > 0, "no moment was found");
        });
    }

    #[test]
    fn a_change_behind_the_reader_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let src = disk::create_exclusive(&dir.path().join("src"), 0o600).unwrap();
        let dst = disk::create_exclusive(&dir.path().join("dst"), 0o600).unwrap();
        src.write_all_at(&vec![1; 3 << 20], 0).unwrap();
        assert!(chase(&src, &dst).unwrap());
        src.write_all_at(b"changed", 2 << 20).unwrap();
        assert!(mend(&src, &dst, 3 << 20).unwrap());
        assert!(!mend(&src, &dst, 3 << 20).unwrap());
        src.set_len(5).unwrap();
        assert!(mend(&src, &dst, 3 << 20).unwrap(), "cut");
        assert!(chase(&src, &dst).unwrap());
        assert_eq!(disk::fstat(&dst).unwrap().size, 5);
    }
}
