//! One bucket: its objects and its multipart uploads.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

use crc_fast::CrcAlgorithm;
use md5::Digest;
use md5::Md5;

use super::blob::Blob;
use super::blob::BlobWriter;
use super::blob::Received;
use super::disk::Dirs;
use super::record::Kept;
use super::record::Object;
use super::record::Part;
use super::record::Upload;
use crate::emulator::encoding::hex;
use crate::emulator::error::Error;
use crate::emulator::error::Result;

/// One bucket.
#[derive(Debug)]
pub(in crate::emulator) struct Bucket {
    name: String,
    created_ns: i64,
    dirs: Dirs,
    /// Guards the index and, while it changes, the metadata files: both always agree.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By bytes of the key: the order of listings.
    objects: BTreeMap<Vec<u8>, Arc<Object>>,
    uploads: BTreeMap<(Vec<u8>, String), Upload>,
}

/// An object about to be stored.
pub(in crate::emulator) struct NewObject {
    pub(in crate::emulator) key: String,
    pub(in crate::emulator) etag: String,
    pub(in crate::emulator) crc64: u64,
    pub(in crate::emulator) modified_ns: i64,
    pub(in crate::emulator) parts: u32,
    pub(in crate::emulator) kept: Kept,
    pub(in crate::emulator) blobs: Vec<Arc<Blob>>,
}

/// Why an object was not stored.
#[derive(Debug)]
pub(in crate::emulator) enum PutError {
    /// Overwriting was forbidden and there is one.
    Exists,
    /// The disk.
    Failed(Error),
}

impl From<Error> for PutError {
    fn from(error: Error) -> Self {
        PutError::Failed(error)
    }
}

/// Why parts did not become an object.
#[derive(Debug)]
pub(in crate::emulator) enum CompleteError {
    /// Never begun, aborted or completed.
    NoUpload,
    /// This part is not there, has another ETag, or leaves a gap.
    Part(u32),
    /// This part comes after a later one.
    Order(u32),
    /// This part is too small and not the last.
    Small(u32),
    /// No parts are named.
    Empty,
    /// As for a PUT.
    Put(PutError),
}

impl Bucket {
    pub(super) fn open(dir: PathBuf, name: String, now_ns: i64) -> Result<Bucket> {
        let dirs = Dirs::make(&dir)?;
        let found = dirs.load()?;
        let objects = found.objects.into_iter().map(|(key, object)| (key, Arc::new(object))).collect();
        let inner = Inner { objects, uploads: found.uploads };
        Ok(Bucket { name, created_ns: now_ns, dirs, inner: Mutex::new(inner) })
    }

    pub(in crate::emulator) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::emulator) fn created_ns(&self) -> i64 {
        self.created_ns
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("invariant: nothing panics while it holds this lock")
    }

    pub(in crate::emulator) fn object(&self, key: &str) -> Option<Arc<Object>> {
        self.lock().objects.get(key.as_bytes()).cloned()
    }

    /// The first object whose key is not below `from` (or, if `after`, is above it).
    pub(in crate::emulator) fn next_object(&self, from: &[u8], after: bool) -> Option<Arc<Object>> {
        use std::ops::Bound;
        let start = if after { Bound::Excluded(from) } else { Bound::Included(from) };
        let inner = self.lock();
        inner.objects.range::<[u8], _>((start, Bound::Unbounded)).next().map(|(_, object)| object.clone())
    }

    pub(in crate::emulator) fn keys(&self) -> Vec<String> {
        self.lock().objects.values().map(|object| object.key.clone()).collect()
    }

    pub(in crate::emulator) fn uploads(&self) -> Vec<Upload> {
        self.lock().uploads.values().cloned().collect()
    }

    pub(in crate::emulator) fn has_upload(&self, key: &str, id: &str) -> bool {
        self.lock().uploads.contains_key(&(key.as_bytes().to_vec(), id.to_owned()))
    }

    pub(in crate::emulator) fn upload(&self, key: &str, id: &str) -> Option<Upload> {
        self.lock().uploads.get(&(key.as_bytes().to_vec(), id.to_owned())).cloned()
    }

    pub(in crate::emulator) fn writer(&self) -> Result<BlobWriter> {
        BlobWriter::create(&self.dirs.content)
    }

    /// Links of all blobs of an object of any bucket of this shelf.
    pub(in crate::emulator) fn link(&self, object: &Object) -> Result<Vec<Arc<Blob>>> {
        object.blobs.iter().map(|blob| blob.link(&self.dirs.content)).collect()
    }

    /// Stores or replaces.
    pub(in crate::emulator) fn put(&self, new: NewObject, forbid_overwrite: bool) -> Result<Arc<Object>, PutError> {
        self.put_locked(&mut self.lock(), new, forbid_overwrite)
    }

    fn put_locked(&self, inner: &mut Inner, new: NewObject, forbid: bool) -> Result<Arc<Object>, PutError> {
        let key = new.key.clone().into_bytes();
        if forbid && inner.objects.contains_key(&key) {
            return Err(PutError::Exists);
        }
        let object = Arc::new(Object {
            size: new.blobs.iter().map(|blob| blob.bytes()).sum(),
            key: new.key,
            etag: new.etag,
            crc64: new.crc64,
            modified_ns: new.modified_ns,
            parts: new.parts,
            kept: new.kept,
            blobs: new.blobs,
        });
        self.dirs.write_object(&object)?;
        object.blobs.iter().for_each(|blob| blob.keep());
        if let Some(old) = inner.objects.insert(key, object.clone()) {
            old.blobs.iter().for_each(|blob| blob.doom());
        }
        Ok(object)
    }

    /// Whether there was one.
    pub(in crate::emulator) fn delete(&self, key: &str) -> Result<bool> {
        let mut inner = self.lock();
        if !inner.objects.contains_key(key.as_bytes()) {
            return Ok(false);
        }
        self.dirs.remove_object(key)?;
        if let Some(old) = inner.objects.remove(key.as_bytes()) {
            old.blobs.iter().for_each(|blob| blob.doom());
        }
        Ok(true)
    }

    pub(in crate::emulator) fn begin_upload(&self, key: String, kept: Kept, now_ns: i64) -> Result<String> {
        // Time first, as COS does it; letters and digits only, for it becomes a file name.
        let id = format!("{}{}", now_ns / 1_000_000_000, uuid::Uuid::new_v4().simple());
        let upload = Upload { key, id: id.clone(), initiated_ns: now_ns, kept, parts: BTreeMap::new() };
        let mut inner = self.lock();
        self.dirs.write_upload(&upload)?;
        inner.uploads.insert((upload.key.clone().into_bytes(), id.clone()), upload);
        Ok(id)
    }

    /// `None` if there is no such upload (any more).
    pub(in crate::emulator) fn put_part(
        &self,
        key: &str,
        id: &str,
        number: u32,
        received: Received,
        now_ns: i64,
    ) -> Result<Option<Part>> {
        let mut inner = self.lock();
        let Some(upload) = inner.uploads.get_mut(&(key.as_bytes().to_vec(), id.to_owned())) else {
            return Ok(None);
        };
        let part =
            Part { number, etag: hex(&received.md5), crc64: received.crc64, modified_ns: now_ns, blob: received.blob };
        self.dirs.write_part(id, &part)?;
        part.blob.keep();
        if let Some(old) = upload.parts.insert(number, part.clone()) {
            old.blob.doom();
        }
        Ok(Some(part))
    }

    /// Whether there was one.
    pub(in crate::emulator) fn abort(&self, key: &str, id: &str) -> Result<bool> {
        let mut inner = self.lock();
        let name = (key.as_bytes().to_vec(), id.to_owned());
        let Some(upload) = inner.uploads.get(&name) else { return Ok(false) };
        self.dirs.remove_upload(upload)?;
        if let Some(upload) = inner.uploads.remove(&name) {
            upload.parts.values().for_each(|part| part.blob.doom());
        }
        Ok(true)
    }

    /// Makes the object. The record of the object comes first: a kill before the upload is
    /// removed leaves both, and the next start finishes the removal.
    pub(in crate::emulator) fn complete(
        &self,
        key: &str,
        id: &str,
        listed: &[(u32, String)],
        min_part: u64,
        forbid_overwrite: bool,
        now_ns: i64,
    ) -> Result<Arc<Object>, CompleteError> {
        let mut inner = self.lock();
        let name = (key.as_bytes().to_vec(), id.to_owned());
        let upload = inner.uploads.get(&name).cloned().ok_or(CompleteError::NoUpload)?;
        let plan = plan(&upload, listed, min_part)?;
        let new = NewObject {
            key: key.to_owned(),
            etag: plan.etag,
            crc64: plan.crc64,
            modified_ns: now_ns,
            parts: plan.parts,
            kept: upload.kept.clone(),
            blobs: plan.blobs,
        };
        let object = self.put_locked(&mut inner, new, forbid_overwrite).map_err(CompleteError::Put)?;
        self.dirs.remove_upload(&upload).map_err(|error| CompleteError::Put(error.into()))?;
        inner.uploads.remove(&name);
        let numbers: BTreeSet<u32> = listed.iter().map(|(number, _)| *number).collect();
        let used = |part: &Part| numbers.contains(&part.number);
        upload.parts.values().filter(|part| !used(part)).for_each(|part| part.blob.doom());
        Ok(object)
    }
}

struct Plan {
    crc64: u64,
    etag: String,
    parts: u32,
    blobs: Vec<Arc<Blob>>,
}

fn plan(upload: &Upload, listed: &[(u32, String)], min_part: u64) -> Result<Plan, CompleteError> {
    let mut md5 = Md5::new();
    let mut out = Plan { crc64: 0, etag: String::new(), parts: 0, blobs: Vec::new() };
    for (before, after) in listed.iter().zip(listed.iter().skip(1)) {
        if after.0 <= before.0 {
            return Err(CompleteError::Order(after.0));
        }
    }
    for (number, etag) in listed {
        let part = upload.parts.get(number).filter(|part| part.etag == *etag).ok_or(CompleteError::Part(*number))?;
        if *number != out.parts + 1 {
            return Err(CompleteError::Part(*number));
        }
        if out.blobs.last().is_some_and(|before| before.bytes() < min_part) {
            return Err(CompleteError::Small(out.parts));
        }
        out.parts = *number;
        out.crc64 = crc_fast::checksum_combine(CrcAlgorithm::Crc64Xz, out.crc64, part.crc64, part.blob.bytes());
        out.blobs.push(part.blob.clone());
        md5.update(part.etag.as_bytes());
    }
    if out.blobs.is_empty() {
        return Err(CompleteError::Empty);
    }
    // COS does not tell how it makes the hex part; all that counts is that it is no MD5.
    out.etag = format!("{}-{}", hex(&md5.finalize()), out.parts);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(bucket: &Bucket, text: &str) -> Received {
        let mut writer = bucket.writer().unwrap();
        writer.write(text.as_bytes()).unwrap();
        writer.finish()
    }

    fn new_object(bucket: &Bucket, key: &str, text: &str) -> NewObject {
        let received = receive(bucket, text);
        NewObject {
            key: key.to_owned(),
            etag: hex(&received.md5),
            crc64: received.crc64,
            modified_ns: 1,
            parts: 0,
            kept: Kept::default(),
            blobs: vec![received.blob],
        }
    }

    fn open(dir: &tempfile::TempDir) -> Bucket {
        Bucket::open(dir.path().join("b"), "b".to_owned(), 0).unwrap()
    }

    fn content_files(dir: &tempfile::TempDir) -> usize {
        std::fs::read_dir(dir.path().join("b/content")).unwrap().count()
    }

    #[test]
    fn any_key_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(&dir);
        let keys = ["a", "../../etc/passwd", "a//b", "/", ".", "%2F", "\u{4e2d}", "x\ny"];
        for key in keys {
            bucket.put(new_object(&bucket, key, key), false).unwrap();
        }
        drop(bucket);
        let bucket = open(&dir);
        for key in keys {
            assert_eq!(bucket.object(key).unwrap().read().unwrap(), key.as_bytes());
        }
        let mut sorted = keys.map(String::from);
        sorted.sort();
        assert_eq!(bucket.keys(), sorted);
    }

    #[test]
    fn readers_of_a_replaced_object_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(&dir);
        let old = bucket.put(new_object(&bucket, "k", "old"), false).unwrap();
        bucket.put(new_object(&bucket, "k", "new"), false).unwrap();
        assert_eq!(old.read().unwrap(), b"old");
        assert_eq!(content_files(&dir), 2);
        drop(old);
        assert_eq!(content_files(&dir), 1);
        assert!(matches!(bucket.put(new_object(&bucket, "k", "no"), true), Err(PutError::Exists)));
        assert_eq!(content_files(&dir), 1);
        assert!(bucket.delete("k").unwrap());
        assert!(!bucket.delete("k").unwrap());
        assert_eq!(content_files(&dir), 0);
    }

    #[test]
    fn parts_become_an_object_across_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(&dir);
        let id = bucket.begin_upload("k".to_owned(), Kept::default(), 5).unwrap();
        let mut listed = Vec::new();
        for (number, text) in [(1, "12345"), (2, "6789"), (3, "unused")] {
            let part = bucket.put_part("k", &id, number, receive(&bucket, text), 6).unwrap().unwrap();
            listed.push((number, part.etag));
        }
        drop(bucket);
        let bucket = open(&dir);
        listed.pop();
        let complete = |listed: &[(u32, String)], min| bucket.complete("k", &id, listed, min, false, 7);
        assert!(matches!(complete(&[], 1), Err(CompleteError::Empty)));
        assert!(matches!(complete(&listed[1..], 1), Err(CompleteError::Part(2))), "a gap");
        assert!(matches!(complete(&[listed[1].clone(), listed[0].clone()], 1), Err(CompleteError::Order(1))));
        let twice = [listed[0].clone(), listed[0].clone()];
        assert!(matches!(complete(&twice, 1), Err(CompleteError::Order(1))));
        assert!(matches!(complete(&listed, 6), Err(CompleteError::Small(1))));
        let wrong = [listed[0].clone(), (2, "beef".to_owned())];
        assert!(matches!(complete(&wrong, 1), Err(CompleteError::Part(2))));
        let object = complete(&listed, 5).unwrap();
        assert_eq!(object.read().unwrap(), b"123456789");
        assert_eq!(object.crc64, 11_051_210_869_376_104_954);
        assert!(object.etag.ends_with("-2"));
        assert!(matches!(complete(&listed, 5), Err(CompleteError::NoUpload)));
        assert_eq!(content_files(&dir), 2, "the unused part is gone");
        drop((object, bucket));
        assert_eq!(open(&dir).object("k").unwrap().read().unwrap(), b"123456789");
    }

    #[test]
    fn a_kill_between_object_and_removal_is_finished_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(&dir);
        let id = bucket.begin_upload("k".to_owned(), Kept::default(), 5).unwrap();
        let part = bucket.put_part("k", &id, 1, receive(&bucket, "text"), 6).unwrap().unwrap();
        let uploads = dir.path().join("b/uploads");
        let saved: Vec<_> = std::fs::read_dir(&uploads)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        bucket.complete("k", &id, &[(1, part.etag)], 1, false, 7).unwrap();
        drop(bucket);
        for (path, text) in saved {
            std::fs::write(path, text).unwrap();
        }
        std::fs::write(dir.path().join("b/content/stray"), "x").unwrap();
        std::fs::write(dir.path().join("b/objects/half.draft"), "{").unwrap();
        let bucket = open(&dir);
        assert!(bucket.uploads().is_empty());
        assert_eq!(bucket.object("k").unwrap().read().unwrap(), b"text");
        assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0);
        assert_eq!(content_files(&dir), 1);
    }

    #[test]
    fn copies_do_not_share_their_fate() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = open(&dir);
        let old = bucket.put(new_object(&bucket, "a", "text"), false).unwrap();
        let copy = NewObject { key: "b".to_owned(), blobs: bucket.link(&old).unwrap(), ..new_object(&bucket, "b", "") };
        bucket.put(copy, false).unwrap();
        drop(old);
        bucket.delete("a").unwrap();
        assert_eq!(bucket.object("b").unwrap().read().unwrap(), b"text");
    }
}
