//! Reading cached content again, against what the disk may have made of it (`ferryfs cache verify`).

use std::collections::HashSet;
use std::fs::File;
use std::io;

use crate::disk;
use crate::journal::Content;
use crate::types::{BackingNo, Crc64, Ino};

use super::Vfs;
use super::content::sum;
use super::error::Result;

/// What reading the cached content again has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files that were read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Clean files whose CRC64 nobody knows, so that reading them would show nothing.
    pub unknown: u64,
    /// Those that differ from what the bucket has.
    pub rotten: Vec<Rotten>,
}

/// A cached file that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotten {
    /// Its path in the mount.
    pub path: String,
    /// Whether it was dropped, so that the next open fetches it; otherwise a program has it open.
    pub dropped: bool,
}

/// A clean file as it was when it was chosen.
struct Candidate {
    ino: Ino,
    backing: BackingNo,
    generation: u64,
    size: u64,
    crc: Crc64,
}

impl Vfs {
    /// Reads all clean content from the disk and compares it with the CRC64 of the object; what differs is
    /// dropped. Content that the bucket does not have yet has no other copy to be compared with.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn verify_cache(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        let candidates: Vec<Candidate> = self.inner.namespace.read(|tree| {
            let clean = tree.inodes().filter(|inode| inode.row.content == Content::Clean);
            clean
                .filter_map(|inode| {
                    let (backing, remote) = (inode.row.backing?, inode.origin()?);
                    let Some(crc) = remote.crc64 else {
                        verified.unknown += 1;
                        return None;
                    };
                    Some(Candidate {
                        ino: inode.ino(),
                        backing,
                        generation: inode.row.generation,
                        size: remote.size,
                        crc,
                    })
                })
                .collect()
        });
        for candidate in candidates {
            let read = match self.inner.cache.open_read(candidate.backing) {
                Ok(file) => tokio::task::spawn_blocking(move || sum_of_disk(&file)).await.map_err(io::Error::from),
                Err(error) => Ok(Err(io::Error::other(error))),
            };
            if !self.is_still(&candidate) {
                continue;
            }
            verified.files += 1;
            verified.bytes += candidate.size;
            match read.flatten() {
                Ok(found) if found == (candidate.size, candidate.crc) => continue,
                Ok(_) => tracing::error!(ino = %candidate.ino, "cached content has rotted on the disk"),
                Err(error) => tracing::error!(ino = %candidate.ino, %error, "cached content cannot be read"),
            }
            let path = self.inner.namespace.read(|tree| tree.shown_path(candidate.ino));
            let dropped = !self.let_go(&HashSet::from([candidate.backing])).await?.is_empty();
            verified.rotten.push(Rotten { path, dropped });
        }
        Ok(verified)
    }

    /// Whether the file was neither changed nor let go while it was being read.
    fn is_still(&self, candidate: &Candidate) -> bool {
        self.inner.namespace.read(|tree| {
            tree.get(candidate.ino).is_some_and(|inode| {
                inode.row.content == Content::Clean
                    && inode.row.backing == Some(candidate.backing)
                    && inode.row.generation == candidate.generation
                    && inode.origin().and_then(|remote| remote.crc64) == Some(candidate.crc)
            })
        })
    }
}

/// Bytes and CRC64 of a file as the disk has it, not as it is remembered in memory.
fn sum_of_disk(file: &File) -> io::Result<(u64, Crc64)> {
    disk::forget_pages(file)?;
    let summed = sum(file);
    disk::forget_pages(file)?;
    summed
}
