//! Programs' writes into a file that is being filled (C7).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::download::fill::{Fill, Verdict};
use crate::download::transfer::Source;
use crate::download::written::Kept;
use crate::journal::Remote;

impl Fill {
    /// Nothing that belongs to the file is missing.
    pub fn is_full(&self) -> bool {
        let inner = &self.handle.inner;
        let state = inner.lock();
        !matches!(state.verdict, Some(Verdict::Corrupt(_)))
            && inner.missing(&state, &(0..inner.source.remote.size)).is_empty()
    }

    /// A program is about to write a range: what arrives from now on spares it. Returns what of it was
    /// not a program's before, for [`Kept::disclaim`] should the write fail.
    pub fn claim(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.handle.inner.written.claim(range)
    }

    /// What programs have written, where it holds this byte.
    pub fn written_around(&self, byte: u64) -> Option<Range<u64>> {
        self.handle.inner.written.around(byte)
    }

    /// What programs have written; `None` if that is more than so many ranges.
    pub fn written(&self, at_most: usize) -> Option<Vec<Range<u64>>> {
        self.handle.inner.written.list(at_most)
    }

    /// Gives the file another length. What is cut off does not come back.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_length(&self, length: u64) -> io::Result<()> {
        self.handle.inner.written.set_length(&self.handle.inner.file, length)
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.handle.inner.written.length()
    }

    /// What the file holds by now.
    pub fn kept(&self) -> Kept {
        let inner = &self.handle.inner;
        let present = inner.lock().present.clone();
        inner.written.kept(present)
    }

    /// Bytes of the object from here on do not belong to the file.
    pub fn end(&self) -> u64 {
        self.handle.inner.written.end()
    }

    /// The file, which may be written to where that was claimed.
    pub fn file(&self) -> &Arc<File> {
        &self.handle.inner.file
    }

    /// Goes on from where the same bytes are by now, after [`Fill::cancel`]; their sum goes on too.
    pub(super) fn moved(&self, source: Source) -> Fill {
        let inner = &self.handle.inner;
        let (kept, digests, verifiable) = {
            let state = inner.lock();
            (inner.written.kept(state.present.clone()), state.digests.clone(), state.verifiable)
        };
        let fill = Fill::new(source, inner.file.clone(), kept);
        let mut state = fill.handle.inner.lock();
        state.digests = digests;
        state.verifiable = verifiable;
        drop(state);
        fill
    }

    /// It is a clone of that one.
    pub fn is(&self, other: &Fill) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    /// The version that is being fetched.
    pub fn remote(&self) -> &Remote {
        &self.handle.inner.source.remote
    }
}
