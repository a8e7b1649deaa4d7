//! What is written beside the bytes: metadata of objects, uploads and parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use super::blob::Blob;
use super::blob::Reader;
use crate::emulator::error::Result;

/// Headers that are stored with an object and come back with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::emulator) struct Kept {
    /// Content-Type, Cache-Control and the like, and encryption, by lower-case name.
    pub(in crate::emulator) headers: BTreeMap<String, String>,
    /// User metadata by lower-case name without the dialect's prefix.
    pub(in crate::emulator) metadata: BTreeMap<String, String>,
    /// `None` is STANDARD.
    pub(in crate::emulator) storage_class: Option<String>,
    /// `None` is the bucket's.
    #[serde(default)]
    pub(in crate::emulator) acl: Option<String>,
    #[serde(default)]
    pub(in crate::emulator) tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Segment {
    pub(super) file: String,
    pub(super) bytes: u64,
}

/// The metadata file of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ObjectRecord {
    pub(super) key: String,
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) crc64: u64,
    pub(super) modified_ns: i64,
    pub(super) parts: u32,
    pub(super) kept: Kept,
    pub(super) segments: Vec<Segment>,
}

/// One version of an object.
#[derive(Clone, Debug)]
pub(in crate::emulator) struct Object {
    pub(in crate::emulator) key: String,
    /// Without quotes.
    pub(in crate::emulator) etag: String,
    pub(in crate::emulator) size: u64,
    pub(in crate::emulator) crc64: u64,
    pub(in crate::emulator) modified_ns: i64,
    /// 0 for what came in one PUT.
    pub(in crate::emulator) parts: u32,
    pub(in crate::emulator) kept: Kept,
    pub(in crate::emulator) blobs: Vec<Arc<Blob>>,
}

impl Object {
    pub(super) fn record(&self) -> ObjectRecord {
        let segment = |blob: &Arc<Blob>| Segment { file: blob.name(), bytes: blob.bytes() };
        ObjectRecord {
            key: self.key.clone(),
            etag: self.etag.clone(),
            size: self.size,
            crc64: self.crc64,
            modified_ns: self.modified_ns,
            parts: self.parts,
            kept: self.kept.clone(),
            segments: self.blobs.iter().map(segment).collect(),
        }
    }

    pub(in crate::emulator) fn reader(&self, offset: u64, length: u64) -> Reader {
        Reader::new(self.blobs.clone(), offset, length)
    }

    /// All its bytes, in memory.
    pub(in crate::emulator) fn read(&self) -> Result<Vec<u8>> {
        let mut reader = self.reader(0, self.size);
        let mut out = Vec::new();
        loop {
            let chunk = reader.next(1 << 20)?;
            if chunk.is_empty() {
                return Ok(out);
            }
            out.extend_from_slice(&chunk);
        }
    }
}

/// The metadata file of a multipart upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UploadRecord {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) initiated_ns: i64,
    pub(super) kept: Kept,
}

/// The metadata file of a part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PartRecord {
    pub(super) upload: String,
    pub(super) number: u32,
    pub(super) etag: String,
    pub(super) crc64: u64,
    pub(super) modified_ns: i64,
    pub(super) segment: Segment,
}

/// One part of an upload.
#[derive(Clone, Debug)]
pub(in crate::emulator) struct Part {
    pub(in crate::emulator) number: u32,
    /// Without quotes: lower-case hex MD5.
    pub(in crate::emulator) etag: String,
    pub(in crate::emulator) crc64: u64,
    pub(in crate::emulator) modified_ns: i64,
    pub(in crate::emulator) blob: Arc<Blob>,
}

impl Part {
    pub(super) fn record(&self, upload: &str) -> PartRecord {
        PartRecord {
            upload: upload.to_owned(),
            number: self.number,
            etag: self.etag.clone(),
            crc64: self.crc64,
            modified_ns: self.modified_ns,
            segment: Segment { file: self.blob.name(), bytes: self.blob.bytes() },
        }
    }
}

/// A multipart upload in progress.
#[derive(Clone, Debug)]
pub(in crate::emulator) struct Upload {
    pub(in crate::emulator) key: String,
    pub(in crate::emulator) id: String,
    pub(in crate::emulator) initiated_ns: i64,
    pub(in crate::emulator) kept: Kept,
    pub(in crate::emulator) parts: BTreeMap<u32, Part>,
}

impl Upload {
    pub(super) fn record(&self) -> UploadRecord {
        UploadRecord {
            key: self.key.clone(),
            id: self.id.clone(),
            initiated_ns: self.initiated_ns,
            kept: self.kept.clone(),
        }
    }
}
