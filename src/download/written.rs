//! What programs have put into a file that is still being filled (C7).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::download::extents::Extents;

/// What a file that is to be filled holds already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Ranges that programs have written.
    pub written: Extents,
    /// Ranges of the object that were fetched.
    pub fetched: Extents,
    /// Bytes of the object from here on do not belong to the file.
    pub end: u64,
    /// Bytes of the file.
    pub length: u64,
}

impl Kept {
    /// Of a file that is to become the object of this size.
    pub fn nothing(size: u64) -> Kept {
        Kept { written: Extents::new(), fetched: Extents::new(), end: size, length: size }
    }

    /// What the file holds in these ranges is nobody's: the object's bytes are fetched again.
    pub fn disclaim(&mut self, ranges: &[Range<u64>]) {
        for range in ranges {
            self.written.remove(range.clone());
            self.fetched.remove(range.clone());
        }
    }
}

/// Which bytes of the file are the programs'. Locked after [`super::fill`]'s state where both are
/// needed, and held while bytes of the object are written to the file: a claim waits for them, and
/// what is claimed is spared from then on.
#[derive(Debug)]
pub(super) struct Written {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ranges: Extents,
    end: u64,
    length: u64,
}

impl Written {
    pub(super) fn new(kept: &Kept) -> Written {
        let state = State { ranges: kept.written.clone(), end: kept.end, length: kept.length };
        Written { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes bytes of the object where they still belong.
    pub(super) fn write_base(&self, file: &File, chunk: &[u8], at: u64) -> io::Result<()> {
        let state = self.lock();
        let end = (at + chunk.len() as u64).min(state.end);
        for gap in state.ranges.gaps(&(at..end.max(at))) {
            let within = |offset: u64| usize::try_from(offset - at).map_err(io::Error::other);
            let piece = chunk.get(within(gap.start)?..within(gap.end)?).unwrap_or_default();
            file.write_all_at(piece, gap.start)?;
        }
        Ok(())
    }

    /// A program is about to write a range. Returns what of it was not a program's before.
    pub(super) fn claim(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut state = self.lock();
        state.length = state.length.max(range.end);
        let range = range.start..range.end.min(state.end).max(range.start);
        let new = state.ranges.gaps(&range);
        state.ranges.insert(range);
        new
    }

    /// The file gets another length; what is cut off does not come back.
    pub(super) fn set_length(&self, file: &File, length: u64) -> io::Result<()> {
        let mut state = self.lock();
        file.set_len(length)?;
        state.length = length;
        state.end = state.end.min(length);
        let end = state.end;
        state.ranges.remove(end..u64::MAX);
        Ok(())
    }

    /// The parts of a range whose bytes are the object's.
    pub(super) fn base(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let state = self.lock();
        state.ranges.gaps(&(range.start..range.end.min(state.end).max(range.start)))
    }

    /// What is a program's, where it holds this byte.
    pub(super) fn around(&self, byte: u64) -> Option<Range<u64>> {
        self.lock().ranges.around(byte)
    }

    /// What is the programs', unless that is more than so many ranges.
    pub(super) fn list(&self, at_most: usize) -> Option<Vec<Range<u64>>> {
        let state = self.lock();
        let first: Vec<_> = state.ranges.iter().take(at_most.saturating_add(1)).collect();
        (first.len() <= at_most).then_some(first)
    }

    /// Bytes of the object that still belong to the file end here.
    pub(super) fn end(&self) -> u64 {
        self.lock().end
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.lock().length
    }

    /// Bytes that are the programs', below the end.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().ranges.bytes()
    }

    /// All of it, as rows have it.
    pub(super) fn kept(&self, fetched: Extents) -> Kept {
        let state = self.lock();
        Kept { written: state.ranges.clone(), fetched, end: state.end, length: state.length }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_arrives_spares_what_was_written_and_what_was_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = Written::new(&Kept::nothing(100));
        file.as_file().set_len(100).unwrap();
        assert_eq!(written.claim(10..20).first(), Some(&(10..20)));
        file.as_file().write_all_at(&[b'p'; 10], 10).unwrap();
        assert_eq!(written.claim(15..30).first(), Some(&(20..30)));
        let mut kept = written.kept(Extents::new());
        kept.disclaim(std::slice::from_ref(&(20..30)));
        let written = Written::new(&kept);
        written.set_length(file.as_file(), 60).unwrap();
        written.set_length(file.as_file(), 80).unwrap();
        assert_eq!(written.base(0..100), vec![0..10, 20..60]);
        written.write_base(file.as_file(), &[b'b'; 100], 0).unwrap();
        let mut bytes = Vec::new();
        file.reopen().unwrap().read_to_end(&mut bytes).unwrap();
        let expected: Vec<u8> = [(b'b', 10), (b'p', 10), (b'b', 40), (0, 20)]
            .into_iter()
            .flat_map(|(byte, count)| std::iter::repeat_n(byte, count))
            .collect();
        assert_eq!(bytes, expected);
        assert_eq!((written.length(), written.end(), written.bytes()), (80, 60, 10));
        let (one, none) = (written.list(1).unwrap(), written.list(0));
        assert_eq!((one.as_slice(), none), (std::slice::from_ref(&(10..20)), None));
        assert_eq!(written.around(12), Some(10..20));
    }
}
