//! What the bucket, OMS and the log bucket have, asked from them and compared with the mount.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::stage::{BUCKET, Emulator, LOG_BUCKET, PREFIX, REGION, SECRET_ID, SECRET_KEY, Stage};
use crate::checksum::Crc64Hasher;
use crate::cli::Failure;
use crate::cli::output::{columns, count, print, shown};
use crate::http;
use crate::oms::SyncUrl;
use crate::store::{Addressing, CosOptions, Credentials, HeadOptions, ListOptions, ObjectStore, cos};
use crate::types::{ByteSize, Crc64};

/// Longest list of announcements that is read.
const MAX_LIST_BYTES: usize = 16 << 20;

/// How long the emulator may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// One entry of the emulator's `GET /_emulator/oms`.
#[derive(Deserialize)]
struct Announced {
    key: String,
}

/// Prints the table; fails if anything is not as promised.
pub(super) fn show(stage: &Stage, emulator: &Emulator) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("cannot look into the bucket: {error}"));
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(&error))?;
    let (rows, wrong) = runtime.block_on(rows(stage, emulator))?;
    print(&columns(&rows))?;
    if wrong == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!("{} not as promised", count(wrong, "object is", "objects are"))))
}

async fn rows(stage: &Stage, emulator: &Emulator) -> Result<(Vec<Vec<String>>, u64), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("cannot look into the bucket: {error}"));
    let bucket = open(BUCKET, emulator).map_err(|error| failed(&error))?;
    let log_bucket = open(LOG_BUCKET, emulator).map_err(|error| failed(&error))?;
    let task: SyncUrl = emulator.oms.parse().map_err(|error: crate::oms::Error| failed(&error))?;
    let announced = announced(emulator).await?;
    let record_prefix = format!("oms_source_record/{}/success_object/", task.task());
    let records: BTreeSet<String> = keys(&*log_bucket, &record_prefix)
        .await?
        .into_iter()
        .filter_map(|key| key.strip_prefix(&record_prefix).map(str::to_owned))
        .collect();

    let mut missing = files(&stage.mount_dir())?;
    let head = ["PATH", "SIZE", "KEY", "ETAG", "CRC64", "PARTS", "OMS", "RECORD"];
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    let mut wrong = 0;
    for key in keys(&*bucket, PREFIX).await? {
        let meta = bucket.head(&key.as_str().into(), HeadOptions::default()).await.map_err(|error| failed(&error))?;
        let path = key.strip_prefix(PREFIX).unwrap_or(&key);
        missing.remove(path);
        let told = announced.contains(&key);
        let recorded = records.contains(&key);
        let same = path.is_empty() || path.ends_with('/') || local_crc(&stage.mount_dir().join(path))? == meta.crc64;
        if !(told && recorded && same) {
            wrong += 1;
        }
        // An ETag of a multipart object ends in `-` and the number of its parts.
        let parts = meta.etag.0.rsplit_once('-').map_or("1", |(_, parts)| parts);
        let crc = match (meta.crc64, same) {
            (Some(crc), true) => crc.to_string(),
            (Some(crc), false) => format!("{crc} (DIFFERS)"),
            (None, _) => "NONE".to_owned(),
        };
        rows.push(vec![
            format!("/{}", shown(path)),
            ByteSize(meta.size).to_string(),
            shown(&key),
            meta.etag.to_string(),
            crc,
            parts.to_owned(),
            if told { "announced" } else { "NOT TOLD" }.to_owned(),
            if recorded { "success" } else { "MISSING" }.to_owned(),
        ]);
    }
    for path in missing {
        wrong += 1;
        rows.push(vec![format!("/{}", shown(&path)), "NOT IN THE BUCKET".to_owned()]);
    }
    Ok((rows, wrong))
}

/// Regular files of the mount, relative to it.
fn files(mount: &Path) -> Result<BTreeSet<String>, Failure> {
    let mut files = BTreeSet::new();
    let mut directories = vec![mount.to_owned()];
    while let Some(directory) = directories.pop() {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot list {}: {error}", directory.display()));
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                directories.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(mount) {
                files.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(files)
}

fn open(bucket: &str, emulator: &Emulator) -> crate::store::Result<Arc<dyn ObjectStore>> {
    let credentials = Credentials::new(SECRET_ID, SECRET_KEY, None).into();
    let endpoint = Some(emulator.store.clone());
    cos(CosOptions { endpoint, addressing: Addressing::Path, ..CosOptions::new(bucket, REGION, credentials) })
}

async fn keys(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    let mut marker = None;
    loop {
        let options = ListOptions { prefix: prefix.to_owned(), marker, ..ListOptions::default() };
        let page = store.list(options).await.map_err(Failure::failed)?;
        keys.extend(page.objects.into_iter().map(|object| object.key.0));
        match page.next_marker {
            Some(next) => marker = Some(next),
            None => return Ok(keys),
        }
    }
}

/// The keys that OMS was told.
async fn announced(emulator: &Emulator) -> Result<BTreeSet<String>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("cannot ask what OMS was told: {error}"));
    let endpoint: http::Endpoint = emulator.store.parse().map_err(|error: http::EndpointError| failed(&error))?;
    let client = http::Client::new(&http::Options::default()).map_err(|error| failed(&error))?;
    let request = http::Request {
        method: http::Method::GET,
        scheme: endpoint.scheme,
        authority: endpoint.authority,
        target: "/_emulator/oms".to_owned(),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
        timeout: ANSWER_TIME,
    };
    let reply = client.send(request).await.map_err(|error| failed(&error))?;
    let body = reply.body.collect(MAX_LIST_BYTES).await.map_err(|error| failed(&error))?;
    let list: Vec<Announced> = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
    Ok(list.into_iter().map(|entry| entry.key).collect())
}

/// CRC-64 of a file as programs read it through the mount.
fn local_crc(path: &Path) -> Result<Option<Crc64>, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot read {}: {error}", path.display()));
    let mut file = match File::open(path) {
        // In the bucket and not in the mount: the caller shows it as different.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut hasher = Crc64Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(Some(hasher.finish())),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}
