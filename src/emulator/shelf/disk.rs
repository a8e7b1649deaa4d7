//! Reads and writes the metadata files of one bucket.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Digest;
use sha2::Sha256;

use super::blob::Blob;
use super::record::Object;
use super::record::ObjectRecord;
use super::record::Part;
use super::record::PartRecord;
use super::record::Segment;
use super::record::Upload;
use super::record::UploadRecord;
use crate::emulator::encoding::hex;
use crate::emulator::error::Error;
use crate::emulator::error::Result;

/// The directories of one bucket.
#[derive(Debug)]
pub(super) struct Dirs {
    pub(super) content: PathBuf,
    objects: PathBuf,
    uploads: PathBuf,
}

/// What was found at start.
pub(super) struct Found {
    pub(super) objects: BTreeMap<Vec<u8>, Object>,
    pub(super) uploads: BTreeMap<(Vec<u8>, String), Upload>,
}

impl Dirs {
    pub(super) fn make(bucket: &Path) -> Result<Dirs> {
        let dirs =
            Dirs { content: bucket.join("content"), objects: bucket.join("objects"), uploads: bucket.join("uploads") };
        for dir in [&dirs.content, &dirs.objects, &dirs.uploads] {
            std::fs::create_dir_all(dir).map_err(Error::disk("make", dir))?;
        }
        Ok(dirs)
    }

    fn object_path(&self, key: &str) -> PathBuf {
        self.objects.join(format!("{}.json", hex(&Sha256::digest(key.as_bytes()))))
    }

    fn upload_path(&self, id: &str) -> PathBuf {
        self.uploads.join(format!("{id}.json"))
    }

    fn part_path(&self, id: &str, number: u32) -> PathBuf {
        self.uploads.join(format!("{id}.{number}.json"))
    }

    pub(super) fn write_object(&self, object: &Object) -> Result<()> {
        write(&self.object_path(&object.key), &object.record())
    }

    pub(super) fn remove_object(&self, key: &str) -> Result<()> {
        remove(&self.object_path(key))
    }

    pub(super) fn write_upload(&self, upload: &Upload) -> Result<()> {
        write(&self.upload_path(&upload.id), &upload.record())
    }

    pub(super) fn write_part(&self, upload: &str, part: &Part) -> Result<()> {
        write(&self.part_path(upload, part.number), &part.record(upload))
    }

    /// The upload's own file goes first: parts without an upload are swept at the next start.
    pub(super) fn remove_upload(&self, upload: &Upload) -> Result<()> {
        remove(&self.upload_path(&upload.id))?;
        for number in upload.parts.keys() {
            remove(&self.part_path(&upload.id, *number))?;
        }
        Ok(())
    }

    /// Reads all of it and removes what a kill left behind.
    pub(super) fn load(&self) -> Result<Found> {
        let mut named = HashSet::new();
        let mut blob = |segment: &Segment| {
            named.insert(segment.file.clone());
            Blob::kept(self.content.join(&segment.file), segment.bytes)
        };
        let mut objects = BTreeMap::new();
        for path in files(&self.objects)? {
            let Some(record) = read::<ObjectRecord>(&path)? else { continue };
            let object = Object {
                blobs: record.segments.iter().map(&mut blob).collect(),
                key: record.key,
                etag: record.etag,
                size: record.size,
                crc64: record.crc64,
                modified_ns: record.modified_ns,
                parts: record.parts,
                kept: record.kept,
            };
            objects.insert(object.key.clone().into_bytes(), object);
        }
        let (uploads, parts) = self.load_uploads()?;
        let mut found: BTreeMap<(Vec<u8>, String), Upload> = BTreeMap::new();
        for upload in uploads {
            found.insert((upload.key.clone().into_bytes(), upload.id.clone()), upload);
        }
        for record in parts {
            let upload = found.values_mut().find(|upload| upload.id == record.upload);
            let completed = named.contains(&record.segment.file);
            let Some(upload) = upload.filter(|_| !completed) else {
                remove(&self.part_path(&record.upload, record.number))?;
                // A part that an object has taken over: the kill came between the object's
                // record and the removal of the upload, which is done now.
                if completed {
                    remove(&self.upload_path(&record.upload))?;
                    found.retain(|(_, id), _| *id != record.upload);
                }
                continue;
            };
            let part = Part {
                number: record.number,
                etag: record.etag,
                crc64: record.crc64,
                modified_ns: record.modified_ns,
                blob: Blob::kept(self.content.join(&record.segment.file), record.segment.bytes),
            };
            upload.parts.insert(part.number, part);
        }
        for part in found.values().flat_map(|upload| upload.parts.values()) {
            named.insert(part.blob.name());
        }
        for path in files(&self.content)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if name.is_none_or(|name| !named.contains(&name)) {
                remove(&path)?;
            }
        }
        Ok(Found { objects, uploads: found })
    }

    fn load_uploads(&self) -> Result<(Vec<Upload>, Vec<PartRecord>)> {
        let (mut uploads, mut parts) = (Vec::new(), Vec::new());
        for path in files(&self.uploads)? {
            // `<id>.json` is an upload, `<id>.<number>.json` a part; ids hold no dots.
            let dots = path.file_name().map_or(0, |name| name.to_string_lossy().matches('.').count());
            if dots == 1 {
                let Some(record) = read::<UploadRecord>(&path)? else { continue };
                uploads.push(Upload {
                    key: record.key,
                    id: record.id,
                    initiated_ns: record.initiated_ns,
                    kept: record.kept,
                    parts: BTreeMap::new(),
                });
            } else if let Some(record) = read::<PartRecord>(&path)? {
                parts.push(record);
            }
        }
        Ok((uploads, parts))
    }
}

fn write<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let text = serde_json::to_vec(record).map_err(|source| Error::Record { path: path.to_owned(), source })?;
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).map_err(Error::disk("write", &draft))?;
    std::fs::rename(&draft, path).map_err(Error::disk("rename to", path))
}

/// `None`, and the file goes, if it is a draft that a kill left.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if path.extension().is_none_or(|extension| extension != "json") {
        remove(path)?;
        return Ok(None);
    }
    let text = std::fs::read(path).map_err(Error::disk("read", path))?;
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|source| Error::Record { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::disk("remove", path)(error)),
        _ => Ok(()),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::disk("read", dir))? {
        paths.push(entry.map_err(Error::disk("read", dir))?.path());
    }
    Ok(paths)
}
