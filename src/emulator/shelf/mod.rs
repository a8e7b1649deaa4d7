//! Where the emulator keeps objects: content files and metadata files under one directory.
//!
//! ```text
//! <root>/<bucket>/content/<random>             bytes, written once
//! <root>/<bucket>/objects/<sha256(key)>.json   an object: key, sums, headers, content files in order
//! <root>/<bucket>/uploads/<id>.json            a multipart upload
//! <root>/<bucket>/uploads/<id>.<part>.json     a part of it
//! ```
//!
//! # Invariants
//! 1. A metadata file appears by rename, so it is whole or not there; it is written before the
//!    change is answered. What was answered survives a kill of the process (not a power loss:
//!    nothing is synced, this is a test double).
//! 2. A content file is named by one metadata file at most; copies are links of their own.
//! 3. Keys never become file names.
//! 4. All calls block on the disk: they are made from blocking threads.

mod blob;
mod bucket;
mod disk;
mod record;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

pub(super) use blob::Reader;
pub(super) use blob::Received;
pub(super) use bucket::Bucket;
pub(super) use bucket::CompleteError;
pub(super) use bucket::NewObject;
pub(super) use bucket::PutError;
pub(super) use record::Kept;
pub(super) use record::Object;

use super::error::Error;
use super::error::Result;

/// All buckets.
#[derive(Debug)]
pub(super) struct Shelf {
    buckets: Mutex<BTreeMap<String, Arc<Bucket>>>,
}

impl Shelf {
    /// Loads what is under `root` (made if absent) and makes the buckets of `names` that are new.
    pub(super) fn open(root: PathBuf, names: &[String], now_ns: i64) -> Result<Shelf> {
        std::fs::create_dir_all(&root).map_err(Error::disk("make", &root))?;
        let mut wanted = names.to_vec();
        for entry in std::fs::read_dir(&root).map_err(Error::disk("read", &root))? {
            let entry = entry.map_err(Error::disk("read", &root))?;
            if let Some(name) = entry.file_name().to_str()
                && is_bucket_name(name)
                && entry.path().join("objects").is_dir()
            {
                wanted.push(name.to_owned());
            }
        }
        let mut buckets = BTreeMap::new();
        for name in wanted {
            if !is_bucket_name(&name) {
                return Err(Error::BucketName { name });
            }
            let dir = root.join(&name);
            if let Entry::Vacant(slot) = buckets.entry(name.clone()) {
                slot.insert(Arc::new(Bucket::open(dir, name, now_ns)?));
            }
        }
        Ok(Shelf { buckets: Mutex::new(buckets) })
    }

    /// The bucket of that name.
    pub(super) fn bucket(&self, name: &str) -> Option<Arc<Bucket>> {
        self.lock().get(name).cloned()
    }

    /// All of them by name.
    pub(super) fn buckets(&self) -> Vec<Arc<Bucket>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Bucket>>> {
        self.buckets.lock().expect("invariant: nothing panics while it holds this lock")
    }
}

/// 3 to 63 lower-case letters, digits and dashes, no dash at either end. So a bucket can be called
/// neither `v2` nor `_emulator`, and path addressing cannot reach either.
pub(super) fn is_bucket_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=63).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_shadow_nothing() {
        assert!(is_bucket_name("examplebucket-1250000000"));
        for bad in ["v2", "_emulator", "", "Ab-1", "a.b-1", "-abc", "abc-", "a/b"] {
            assert!(!is_bucket_name(bad), "{bad}");
        }
    }
}
