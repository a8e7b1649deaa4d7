//! Files that hold bytes. Written once, then never changed; gone with the last who reads them.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use bytes::BytesMut;
use crc_fast::CrcAlgorithm;
use md5::Digest;
use md5::Md5;

use crate::emulator::error::Error;
use crate::emulator::error::Result;

/// One content file. A blob that nothing on disk refers to is `doomed`: its file goes when the
/// last reader lets go of it, so that a reader of a replaced object still gets all of it.
#[derive(Debug)]
pub(in crate::emulator) struct Blob {
    path: PathBuf,
    bytes: u64,
    doomed: AtomicBool,
}

impl Blob {
    /// A file that a metadata record names.
    pub(super) fn kept(path: PathBuf, bytes: u64) -> Arc<Blob> {
        Arc::new(Blob { path, bytes, doomed: AtomicBool::new(false) })
    }

    fn fresh(path: PathBuf, bytes: u64) -> Arc<Blob> {
        Arc::new(Blob { path, bytes, doomed: AtomicBool::new(true) })
    }

    pub(super) fn keep(&self) {
        self.doomed.store(false, Ordering::SeqCst);
    }

    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::SeqCst);
    }

    pub(in crate::emulator) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// File name within the bucket's content directory.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Another name for the same bytes; doomed until a record names it.
    pub(super) fn link(&self, dir: &Path) -> Result<Arc<Blob>> {
        let path = dir.join(fresh_name());
        // Filesystems without hard links, or with all links of a file used up, get a copy.
        if std::fs::hard_link(&self.path, &path).is_err() {
            std::fs::copy(&self.path, &path).map_err(Error::disk("copy", &self.path))?;
        }
        Ok(Blob::fresh(path, self.bytes))
    }

    fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(Error::disk("open", &self.path))
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::SeqCst) {
            // Best effort: what stays behind is unreferenced and removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn fresh_name() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Receives bytes into a new blob and sums them on the way.
pub(in crate::emulator) struct BlobWriter {
    file: File,
    blob_path: PathBuf,
    md5: Md5,
    crc64: crc_fast::Digest,
    bytes: u64,
    finished: bool,
}

/// A blob that was received, and its sums.
#[derive(Clone, Debug)]
pub(in crate::emulator) struct Received {
    pub(in crate::emulator) blob: Arc<Blob>,
    pub(in crate::emulator) md5: [u8; 16],
    pub(in crate::emulator) crc64: u64,
}

impl BlobWriter {
    pub(super) fn create(dir: &Path) -> Result<BlobWriter> {
        let blob_path = dir.join(fresh_name());
        let file = File::create_new(&blob_path).map_err(Error::disk("create", &blob_path))?;
        let crc64 = crc_fast::Digest::new(CrcAlgorithm::Crc64Xz);
        Ok(BlobWriter { file, blob_path, md5: Md5::new(), crc64, bytes: 0, finished: false })
    }

    pub(in crate::emulator) fn write(&mut self, chunk: &[u8]) -> Result<()> {
        self.file.write_all(chunk).map_err(Error::disk("write", &self.blob_path))?;
        self.md5.update(chunk);
        self.crc64.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    pub(in crate::emulator) fn finish(mut self) -> Received {
        self.finished = true;
        let blob = Blob::fresh(std::mem::take(&mut self.blob_path), self.bytes);
        let md5 = std::mem::take(&mut self.md5).finalize().into();
        Received { blob, md5, crc64: self.crc64.finalize() }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort, as for doomed blobs.
            let _ = std::fs::remove_file(&self.blob_path);
        }
    }
}

/// Reads a range of a row of blobs, chunk by chunk.
pub(in crate::emulator) struct Reader {
    blobs: std::vec::IntoIter<Arc<Blob>>,
    current: Option<(File, Arc<Blob>, u64)>,
    skip: u64,
    left: u64,
}

impl Reader {
    /// Of `length` bytes from `offset`; the caller has checked that they exist.
    pub(in crate::emulator) fn new(blobs: Vec<Arc<Blob>>, offset: u64, length: u64) -> Reader {
        Reader { blobs: blobs.into_iter(), current: None, skip: offset, left: length }
    }

    /// Up to `most` bytes; empty at the end. Blocks on the disk.
    pub(in crate::emulator) fn next(&mut self, most: usize) -> Result<Bytes> {
        while self.left > 0 {
            let (file, blob, at) = match &mut self.current {
                Some(current) => current,
                None => {
                    let Some(blob) = self.blobs.next() else { break };
                    if blob.bytes() <= self.skip {
                        self.skip -= blob.bytes();
                        continue;
                    }
                    let file = blob.open()?;
                    let at = std::mem::take(&mut self.skip);
                    self.current.insert((file, blob, at))
                }
            };
            let here = (blob.bytes() - *at).min(self.left).min(most as u64);
            if here == 0 {
                self.current = None;
                continue;
            }
            let length = usize::try_from(here).expect("invariant: at most `most`, a usize");
            let mut chunk = BytesMut::zeroed(length);
            file.read_exact_at(&mut chunk, *at).map_err(Error::disk("read", &blob.path))?;
            *at += here;
            self.left -= here;
            return Ok(chunk.freeze());
        }
        Ok(Bytes::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(dir: &Path, text: &str) -> Received {
        let mut writer = BlobWriter::create(dir).unwrap();
        writer.write(text.as_bytes()).unwrap();
        writer.finish()
    }

    fn read(blobs: &[&Received], offset: u64, length: u64, most: usize) -> String {
        let mut reader = Reader::new(blobs.iter().map(|it| it.blob.clone()).collect(), offset, length);
        let mut out = Vec::new();
        loop {
            let chunk = reader.next(most).unwrap();
            if chunk.is_empty() {
                return String::from_utf8(out).unwrap();
            }
            assert!(chunk.len() <= most);
            out.extend_from_slice(&chunk);
        }
    }

    #[test]
    fn ranges_cross_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (blob(dir.path(), "0123"), blob(dir.path(), ""), blob(dir.path(), "456789"));
        let all = [&a, &b, &c];
        for offset in 0..=10usize {
            for length in 0..=10 - offset {
                for most in [1, 3, 100] {
                    let expected = &"0123456789"[offset..offset + length];
                    assert_eq!(read(&all, offset as u64, length as u64, most), expected);
                }
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let received = blob(dir.path(), "123456789");
        assert_eq!(received.crc64, 11_051_210_869_376_104_954);
        assert_eq!(crate::emulator::encoding::hex(&received.md5), "25f9e794323b453885f5181f1b624d0b");
    }

    #[test]
    fn files_go_with_their_last_reader_unless_kept() {
        let dir = tempfile::tempdir().unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        let dropped = blob(dir.path(), "x");
        let second = dropped.clone();
        drop(dropped);
        assert_eq!(files(), 1);
        drop(second);
        assert_eq!(files(), 0);
        let kept = blob(dir.path(), "y");
        kept.blob.keep();
        let linked = kept.blob.link(dir.path()).unwrap();
        drop(kept);
        drop(linked);
        assert_eq!(files(), 1);
        drop(BlobWriter::create(dir.path()).unwrap());
        assert_eq!(files(), 1);
    }
}
