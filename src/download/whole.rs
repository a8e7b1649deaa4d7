//! A whole object into an empty file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use tokio::sync::watch;

use crate::download::Fetched;
use crate::download::digests::Digests;
use crate::download::error::{Error, Result};
use crate::download::transfer::{Source, Target, Urgency};
use crate::types::Crc64;

/// As [`super::Downloader::fetch`].
pub(super) async fn fetch(source: &Source, file: &Arc<File>) -> Result<Fetched> {
    let mut crc64 = once(source, file).await?;
    let verified = match source.verify(crc64) {
        Ok(verified) => verified,
        Err(error) => {
            // Bits that fell on the way are right the second time; what is wrong in the bucket is not.
            tracing::warn!(key = %source.key(), %error, "the object is fetched once more");
            crc64 = once(source, file).await?;
            source.verify(crc64).inspect_err(|error| {
                tracing::error!(key = %source.key(), %error, "the object is corrupt");
            })?
        }
    };
    check_length(source, file).await?;
    let meta = source.meta().ok_or_else(|| source.cancelled())?;
    Ok(Fetched { crc64, verified, meta })
}

/// Fetches every byte; returns their sum.
async fn once(source: &Source, file: &Arc<File>) -> Result<Crc64> {
    let size = source.remote.size;
    let (stop, stopped) = watch::channel(false);
    let mut transfers = stream::iter(parts(size, source.options.part_bytes))
        .map(|range| {
            let stopped = stopped.clone();
            async move {
                let start = range.start;
                let target = Target { file: file.clone(), written: None };
                (start, source.transfer(range, Urgency::Bulk, target, stopped, |_| {}).await)
            }
        })
        .buffer_unordered(source.options.parallel.max(1));
    let mut digests = Digests::default();
    let mut failed = None;
    while let Some((start, arrived)) = transfers.next().await {
        if let Some(crc) = arrived.crc {
            digests.insert(start, arrived.end, crc);
        }
        if let Err(error) = arrived.result {
            // The others are waited for: none may still write when the caller takes the file back.
            stop.send_replace(true);
            failed.get_or_insert(error);
        }
    }
    match failed {
        Some(error) => Err(error),
        None => digests.whole(size).ok_or_else(|| source.cancelled()),
    }
}

/// The ranges of an object; one, empty, of an empty object, which must be asked for all the same.
fn parts(size: u64, part_bytes: u64) -> Vec<Range<u64>> {
    if size == 0 {
        return std::iter::once(0..0).collect();
    }
    let part = part_bytes.max(1);
    (0..size.div_ceil(part)).map(|n| n * part..((n + 1) * part).min(size)).collect()
}

/// A file that was not empty before could be longer than the object.
async fn check_length(source: &Source, file: &Arc<File>) -> Result<()> {
    let measured = file.clone();
    let length = tokio::task::spawn_blocking(move || measured.metadata().map(|data| data.len())).await;
    let error = match length {
        Ok(Ok(length)) if length == source.remote.size => return Ok(()),
        Ok(Ok(length)) => io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the file has {length} bytes, the object {}", source.remote.size),
        ),
        Ok(Err(error)) => error,
        Err(error) => io::Error::other(error),
    };
    Err(Error::Io { key: source.key().clone(), source: error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_object_once() {
        assert_eq!(parts(0, 8), std::iter::once(0..0).collect::<Vec<_>>());
        assert_eq!(parts(8, 8), std::iter::once(0..8).collect::<Vec<_>>());
        assert_eq!(parts(17, 8), vec![0..8, 8..16, 16..17]);
    }
}
