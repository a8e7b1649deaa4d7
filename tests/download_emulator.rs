//! Bucket to local file through the COS client, against the emulator.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use ferryfs::checksum::crc64;
use ferryfs::download::{Downloader, Error, Options};
use ferryfs::emulator::{Action, Emulator, Fault, Match, Side};
use ferryfs::journal::Remote;
use ferryfs::store::{Addressing, CosOptions, Credentials, ObjectStore, cos};
use ferryfs::types::{Crc64, ETag, Key};

const BUCKET: &str = "examplebucket-1250000000";
const NAME: &str = "data/a b+%\u{4e2d}.bin";
const SIZE: usize = 5_000_001;

struct Setup {
    emulator: Emulator,
    store: Arc<dyn ObjectStore>,
    content: Vec<u8>,
    _root: tempfile::TempDir,
}

impl Setup {
    async fn new() -> Setup {
        let root = tempfile::tempdir().unwrap();
        let emulator = Emulator::start(ferryfs::emulator::Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            root: root.path().to_owned(),
            buckets: vec![BUCKET.to_owned()],
            credentials: vec![("AKIDtest".to_owned(), "secret".to_owned())],
            oms_credentials: None,
            latency: Duration::ZERO,
            bandwidth: None,
        })
        .await
        .unwrap();
        let mut options = CosOptions::new(BUCKET, "ap-guangzhou", Credentials::new("AKIDtest", "secret", None).into());
        options.endpoint = Some(emulator.store_url());
        options.addressing = Addressing::Path;
        let content: Vec<u8> = (0..SIZE as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        emulator.put_object(BUCKET, NAME, &content).unwrap();
        Setup { emulator, store: cos(options).unwrap(), content, _root: root }
    }

    fn remote(&self) -> Remote {
        let object = self.emulator.object(BUCKET, NAME).unwrap();
        Remote {
            key: Key::from(NAME),
            etag: ETag(object.etag().to_owned()),
            size: object.size(),
            crc64: Some(Crc64(object.crc64())),
            version_id: None,
            last_modified: None,
        }
    }

    fn fault(&self, action: Action, count: u32) {
        let matching = Match { method: Some("GET".to_owned()), ..Match::default() };
        self.emulator.add_fault(Fault { count, ..Fault::new(matching, action) });
    }

    fn gets(&self) -> usize {
        self.emulator.requests().iter().filter(|request| request.method == "GET").count()
    }
}

fn downloader() -> Downloader {
    let options = Options { part_bytes: 1 << 20, backoff: Duration::from_millis(1), ..Options::default() };
    Downloader::new(options)
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn scratch() -> Arc<File> {
    Arc::new(tempfile::tempfile().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_object_comes_by_ranges_and_is_verified() {
    let setup = Setup::new().await;
    let file = scratch();
    let fetched = downloader().fetch(&setup.store, &setup.remote(), &file).await.unwrap();
    assert!(content(&file) == setup.content);
    assert_eq!(fetched.crc64, crc64(&setup.content));
    assert!(fetched.verified);
    assert_eq!(setup.gets(), 5);
    setup.emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_and_a_corrupt_byte_are_survived() {
    let setup = Setup::new().await;
    setup.fault(Action::Cut { after: 300_000, side: Side::Response }, 2);
    setup.fault(Action::Corrupt(Side::Response), 1);
    let file = scratch();
    let fetched = downloader().fetch(&setup.store, &setup.remote(), &file).await.unwrap();
    assert!(content(&file) == setup.content);
    assert!(fetched.verified);
    // Five ranges, two of them in two pieces, and all once more for the corrupt byte.
    assert_eq!(setup.gets(), 12);
    setup.emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_sum_is_never_believed() {
    let setup = Setup::new().await;
    setup.fault(Action::WrongCrc, 100);
    let error = downloader().fetch(&setup.store, &setup.remote(), &scratch()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    setup.emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overwritten_and_a_deleted_object_are_told_apart() {
    let setup = Setup::new().await;
    let remote = setup.remote();
    let options = Options { read_ahead_min_bytes: 0, read_ahead_max_bytes: 0, ..Options::default() };
    let fill = Downloader::new(options).fill(&setup.store, remote.clone(), scratch());
    assert!(fill.read(1_000_000, 1000).await.unwrap() == setup.content[1_000_000..1_001_000]);
    setup.emulator.put_object(BUCKET, NAME, b"another").unwrap();
    assert!(matches!(fill.read(4_000_000, 1000).await, Err(Error::Changed(_))));
    assert!(matches!(downloader().fetch(&setup.store, &remote, &scratch()).await, Err(Error::Changed(_))));
    assert!(setup.emulator.delete_object(BUCKET, NAME).unwrap());
    assert!(matches!(downloader().fetch(&setup.store, &remote, &scratch()).await, Err(Error::Gone(_))));
    setup.emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_read_while_it_fills() {
    let setup = Setup::new().await;
    setup.fault(Action::Cut { after: 100_000, side: Side::Response }, 1);
    let file = scratch();
    let fill = downloader().fill(&setup.store, setup.remote(), file.clone());
    for offset in (0..SIZE).step_by(131_072) {
        let bytes = fill.read(offset as u64, 131_072).await.unwrap();
        assert!(bytes == setup.content[offset..(offset + 131_072).min(SIZE)], "at {offset}");
    }
    assert_eq!(fill.complete().await.unwrap(), crc64(&setup.content));
    assert!(fill.is_verified());
    assert!(content(&file) == setup.content);
    let sent: u64 = setup.emulator.requests().iter().map(|request| request.response_bytes).sum();
    assert!(sent < SIZE as u64 + 1_100_000, "{sent}: only what the cut lost is sent again");
    setup.emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_object_comes_too() {
    let setup = Setup::new().await;
    setup.emulator.put_object(BUCKET, NAME, b"").unwrap();
    let file = scratch();
    let fetched = downloader().fetch(&setup.store, &setup.remote(), &file).await.unwrap();
    assert!(fetched.verified);
    assert_eq!(file.metadata().unwrap().len(), 0);
    setup.emulator.shutdown().await;
}
