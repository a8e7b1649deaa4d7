//! Bucket to local file, against a store in memory that cuts, corrupts and changes its objects.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ferryfs::checksum::crc64;
use ferryfs::download::{Downloader, Error, Options};
use ferryfs::journal::Remote;
use ferryfs::store::{
    Capabilities, CopyOptions, CopySource, DeleteFailure, ErrorKind, GetOptions, GetResult, HeadOptions, ListOptions,
    ListPage, ObjectHeaders, ObjectMeta, ObjectStore, Outcome, Part, PartsPage, PutOptions, PutResult, UploadsPage,
};
use ferryfs::types::{Crc64, ETag, Key};
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

const CHUNK: usize = 10_000;

/// What one GET does instead of what it should.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The body breaks after so many bytes.
    Cut(usize),
    /// The body ends after so many bytes as if that were all.
    EndEarly(usize),
    /// One bit of the byte at this place of the body is wrong.
    Flip(usize),
    /// Refused, so.
    Refuse(ErrorKind),
    /// The body stands still after so many bytes.
    Stall(usize),
}

/// One object, in memory.
#[derive(Debug)]
struct Memory {
    body: Bytes,
    etag: Mutex<String>,
    crc: Option<Crc64>,
    faults: Mutex<VecDeque<Fault>>,
    asked: Mutex<Vec<Range<u64>>>,
    /// If some: each chunk of a body takes one permit.
    gate: Option<Arc<Semaphore>>,
    capabilities: Capabilities,
}

fn error(kind: ErrorKind) -> ferryfs::store::Error {
    ferryfs::store::Error {
        kind,
        outcome: Outcome::NotApplied,
        what: "GET mem://bucket/key".to_owned(),
        status: None,
        code: None,
        message: None,
        request_id: None,
        attempts: 1,
        retry_after_s: None,
        source: None,
    }
}

impl Memory {
    fn new(size: usize) -> Memory {
        // No period that a shifted or repeated part would hide in.
        let mut state = 0x9e37_79b9_u32;
        let body: Vec<u8> = (0..size)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as u8
            })
            .collect();
        let crc = Some(crc64(&body));
        Memory {
            body: body.into(),
            etag: Mutex::new("one".to_owned()),
            crc,
            faults: Mutex::default(),
            asked: Mutex::default(),
            gate: None,
            capabilities: Capabilities {
                provider: "mem",
                min_part_bytes: 1,
                max_part_bytes: 1 << 30,
                max_parts: 10_000,
                consecutive_parts: false,
                max_key_bytes: 850,
                max_metadata_bytes: 2048,
                max_delete_keys: 1000,
                crc64: true,
            },
        }
    }

    fn with_faults(self, faults: impl IntoIterator<Item = Fault>) -> Memory {
        self.faults.lock().unwrap().extend(faults);
        self
    }

    fn remote(&self) -> Remote {
        Remote {
            key: Key::from("dir/object"),
            etag: ETag("one".to_owned()),
            size: self.body.len() as u64,
            crc64: self.crc,
            version_id: None,
            last_modified: None,
        }
    }

    fn asked(&self) -> Vec<Range<u64>> {
        self.asked.lock().unwrap().clone()
    }

    /// Bytes that were asked for more than once.
    fn asked_twice(&self) -> u64 {
        let mut asked = self.asked();
        asked.sort_by_key(|range| range.start);
        let mut end = 0;
        let mut twice = 0;
        for range in asked {
            twice += end.min(range.end).saturating_sub(range.start);
            end = end.max(range.end);
        }
        twice
    }

    async fn answer(&self, options: GetOptions) -> ferryfs::store::Result<GetResult> {
        let size = self.body.len() as u64;
        let range = options.range.unwrap_or(0..size);
        self.asked.lock().unwrap().push(range.clone());
        let fault = self.faults.lock().unwrap().pop_front();
        if let Some(Fault::Refuse(kind)) = fault {
            return Err(error(kind));
        }
        let etag = ETag(self.etag.lock().unwrap().clone());
        if options.if_match.is_some_and(|wanted| wanted != etag) {
            return Err(error(ErrorKind::Precondition));
        }
        if size > 0 && range.start >= size {
            return Err(error(ErrorKind::InvalidRange));
        }
        let mut bytes = self.body[range.start as usize..range.end as usize].to_vec();
        let mut tail: Option<Option<ferryfs::store::Error>> = None;
        match fault {
            Some(Fault::Cut(after)) => {
                bytes.truncate(after);
                tail = Some(Some(error(ErrorKind::Network)));
            }
            Some(Fault::EndEarly(after)) => bytes.truncate(after),
            Some(Fault::Stall(after)) => {
                bytes.truncate(after);
                tail = Some(None);
            }
            Some(Fault::Flip(at)) => bytes[at] ^= 4,
            Some(Fault::Refuse(_)) | None => {}
        }
        let gate = self.gate.clone();
        let chunks: Vec<Bytes> = bytes.chunks(CHUNK).map(Bytes::copy_from_slice).collect();
        let body = futures::stream::iter(chunks.into_iter().map(Ok)).then(move |chunk| {
            let gate = gate.clone();
            async move {
                if let Some(gate) = gate {
                    gate.acquire().await.unwrap().forget();
                }
                chunk
            }
        });
        let end = futures::stream::iter(tail).then(|tail| async move {
            match tail {
                Some(error) => Err(error),
                None => std::future::pending().await,
            }
        });
        let meta = ObjectMeta {
            key: Key::from("dir/object"),
            size,
            etag,
            last_modified: None,
            crc64: self.crc,
            version_id: None,
            storage_class: None,
            encryption: None,
            tag_count: 0,
            headers: ObjectHeaders::default(),
        };
        Ok(GetResult { meta, range, body: body.chain(end).boxed() })
    }
}

macro_rules! unused {
    ($($name:ident ( $($arg:ident : $type:ty),* ) -> $output:ty;)*) => {
        $(fn $name<'a>(&'a self, $($arg: $type),*) -> BoxFuture<'a, ferryfs::store::Result<$output>> {
            $(let _ = $arg;)*
            unreachable!("a download only reads")
        })*
    };
}

impl ObjectStore for Memory {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    fn name(&self) -> &str {
        "mem://bucket"
    }
    fn head_bucket(&self) -> BoxFuture<'_, ferryfs::store::Result<()>> {
        unreachable!("a download only reads")
    }
    fn list(&self, _options: ListOptions) -> BoxFuture<'_, ferryfs::store::Result<ListPage>> {
        unreachable!("a download only reads")
    }
    fn get<'a>(&'a self, _key: &'a Key, options: GetOptions) -> BoxFuture<'a, ferryfs::store::Result<GetResult>> {
        Box::pin(self.answer(options))
    }
    unused! {
        head(key: &'a Key, options: HeadOptions) -> ObjectMeta;
        put(key: &'a Key, body: Bytes, options: PutOptions) -> PutResult;
        copy(source: CopySource, key: &'a Key, options: CopyOptions) -> PutResult;
        delete(key: &'a Key) -> ();
        delete_many(keys: &'a [Key]) -> Vec<DeleteFailure>;
        create_multipart(key: &'a Key, options: PutOptions) -> String;
        put_part(key: &'a Key, upload_id: &'a str, number: u32, body: Bytes, content_md5: [u8; 16]) -> Part;
        copy_part(key: &'a Key, upload_id: &'a str, number: u32, source: CopySource, range: Range<u64>) -> Part;
        list_parts(key: &'a Key, upload_id: &'a str, marker: Option<u32>) -> PartsPage;
        complete_multipart(key: &'a Key, upload_id: &'a str, parts: &'a [Part], forbid_overwrite: bool) -> PutResult;
        abort_multipart(key: &'a Key, upload_id: &'a str) -> ();
        list_uploads(prefix: &'a str, marker: Option<(String, String)>) -> UploadsPage;
    }
}

fn options() -> Options {
    Options {
        part_bytes: 100_000,
        parallel: 4,
        total: 6,
        block_bytes: 4096,
        read_ahead_min_bytes: 64 << 10,
        read_ahead_max_bytes: 512 << 10,
        retries: 3,
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        stall: Duration::from_secs(20),
    }
}

fn setup(memory: Memory) -> (Arc<Memory>, Arc<dyn ObjectStore>, Arc<File>) {
    let memory = Arc::new(memory);
    (memory.clone(), memory, Arc::new(tempfile::tempfile().unwrap()))
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_object_arrives_in_parallel_parts() {
    let (memory, store, file) = setup(Memory::new(1_234_567));
    let fetched = Downloader::new(options()).fetch(&store, &memory.remote(), &file).await.unwrap();
    assert!(content(&file) == memory.body);
    assert_eq!(fetched.crc64, crc64(&memory.body));
    assert!(fetched.verified);
    assert_eq!(fetched.meta.size, 1_234_567);
    assert_eq!(memory.asked().len(), 13);
    assert_eq!(memory.asked_twice(), 0);
}

#[tokio::test]
async fn an_empty_object_is_asked_for_and_verified() {
    let (memory, store, file) = setup(Memory::new(0));
    let downloader = Downloader::new(options());
    let fetched = downloader.fetch(&store, &memory.remote(), &file).await.unwrap();
    assert_eq!((fetched.crc64, fetched.verified), (Crc64(0), true));
    assert_eq!(memory.asked().len(), 1);
    *memory.etag.lock().unwrap() = "two".to_owned();
    let error = downloader.fetch(&store, &memory.remote(), &file).await.unwrap_err();
    assert!(matches!(error, Error::Changed(_)), "{error}");
    let fill = downloader.fill(&store, memory.remote(), file);
    assert!(fill.read(0, 10).await.unwrap().is_empty());
    assert_eq!(fill.complete().await.unwrap(), Crc64(0));
}

#[tokio::test]
async fn a_cut_body_goes_on_where_it_stopped() {
    let faults = [Fault::Cut(25_000), Fault::EndEarly(10_000), Fault::Cut(0), Fault::Cut(1)];
    let (memory, store, file) = setup(Memory::new(90_000).with_faults(faults));
    let fetched = Downloader::new(options()).fetch(&store, &memory.remote(), &file).await.unwrap();
    assert!(content(&file) == memory.body);
    assert!(fetched.verified);
    let starts: Vec<u64> = memory.asked().iter().map(|range| range.start).collect();
    assert_eq!(starts, [0, 25_000, 35_000, 35_000, 35_001]);
}

#[tokio::test]
async fn a_store_that_brings_nothing_is_given_up() {
    let (memory, store, file) = setup(Memory::new(50_000).with_faults([Fault::Cut(0); 20]));
    let error = Downloader::new(options()).fetch(&store, &memory.remote(), &file).await.unwrap_err();
    assert!(matches!(&error, Error::Store(store) if store.kind == ErrorKind::Network), "{error}");
    assert_eq!(memory.asked().len(), 1 + options().retries as usize);
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    for (refusal, check) in [
        (ErrorKind::NotFound, (|error| matches!(error, Error::Gone(_))) as fn(&Error) -> bool),
        (ErrorKind::Precondition, |error| matches!(error, Error::Changed(_))),
        (ErrorKind::InvalidRange, |error| matches!(error, Error::Changed(_))),
        (ErrorKind::Archived, |error| matches!(error, Error::Store(store) if store.kind == ErrorKind::Archived)),
        (ErrorKind::AccessDenied, |error| matches!(error, Error::Store(_))),
        // The store's client has repeated it as often as it is worth.
        (ErrorKind::Network, |error| matches!(error, Error::Store(store) if store.is_offline())),
    ] {
        let (memory, store, file) = setup(Memory::new(50_000).with_faults([Fault::Refuse(refusal)]));
        let error = Downloader::new(options()).fetch(&store, &memory.remote(), &file).await.unwrap_err();
        assert!(check(&error), "{refusal:?}: {error}");
        assert_eq!(memory.asked().len(), 1, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_broken_off() {
    let (memory, store, file) = setup(Memory::new(50_000).with_faults([Fault::Stall(20_000)]));
    let options = Options { stall: Duration::from_millis(50), ..options() };
    Downloader::new(options).fetch(&store, &memory.remote(), &file).await.unwrap();
    assert!(content(&file) == memory.body);
    assert_eq!(memory.asked().len(), 2);
}

#[tokio::test]
async fn corruption_on_the_way_is_cured_by_one_more_fetch() {
    let (memory, store, file) = setup(Memory::new(50_000).with_faults([Fault::Flip(777)]));
    let fetched = Downloader::new(options()).fetch(&store, &memory.remote(), &file).await.unwrap();
    assert!(fetched.verified);
    assert!(content(&file) == memory.body);
    assert_eq!(memory.asked().len(), 2);
}

#[tokio::test]
async fn corruption_in_the_bucket_is_told() {
    let mut memory = Memory::new(250_000);
    let true_crc = memory.crc;
    memory.crc = Some(Crc64(1));
    let (memory, store, file) = setup(memory);
    let downloader = Downloader::new(options());
    let error = downloader.fetch(&store, &memory.remote(), &file).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { expected: Crc64(1), found, .. } if Some(found) == true_crc), "{error}");
    assert_eq!(memory.asked().len(), 6);
    // The sum that we remember counts as much as the one that comes with the content.
    let remote = Remote { crc64: None, ..memory.remote() };
    assert!(matches!(downloader.fetch(&store, &remote, &file).await, Err(Error::Corrupt { .. })));
}

#[tokio::test]
async fn an_object_without_a_sum_is_length_checked_only() {
    let mut memory = Memory::new(50_000);
    memory.crc = None;
    let (memory, store, file) = setup(memory);
    let fetched = Downloader::new(options()).fetch(&store, &memory.remote(), &file).await.unwrap();
    assert!(!fetched.verified);
    assert_eq!(fetched.crc64, crc64(&memory.body));
    // A remembered size that is not the object's is another version, whatever its ETag.
    let remote = Remote { size: 49_999, ..memory.remote() };
    let error = Downloader::new(options()).fetch(&store, &remote, &file).await.unwrap_err();
    assert!(matches!(error, Error::Changed(_)), "{error}");
}

#[tokio::test]
async fn a_file_that_was_not_empty_is_refused() {
    let (memory, store, file) = setup(Memory::new(1000));
    file.set_len(1001).unwrap();
    let error = Downloader::new(options()).fetch(&store, &memory.remote(), &file).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_are_bounded_over_all_files() {
    let gate = Arc::new(Semaphore::new(0));
    let mut memory = Memory::new(1_000_000);
    memory.gate = Some(gate.clone());
    let (memory, store, _) = setup(memory);
    let downloader = Downloader::new(options());
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (downloader, store, remote) = (downloader.clone(), store.clone(), memory.remote());
            tokio::spawn(async move {
                let file = Arc::new(tempfile::tempfile().unwrap());
                downloader.fetch(&store, &remote, &file).await
            })
        })
        .collect();
    // Of the six, five may be whole objects' parts, and while no chunk arrives no more are asked for.
    while memory.asked().len() < 5 {
        tokio::task::yield_now().await;
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(memory.asked().len(), 5);
    // The sixth is left to a reader.
    let fill = downloader.fill(&store, memory.remote(), Arc::new(tempfile::tempfile().unwrap()));
    let reader = tokio::spawn(async move { fill.read(900_000, 10).await });
    while memory.asked().len() < 6 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(10_000);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(reader.await.unwrap().unwrap() == memory.body[900_000..900_010]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_readers_fetch_no_range_twice() {
    let (memory, store, file) = setup(Memory::new(3_000_000));
    let fill = Downloader::new(options()).fill(&store, memory.remote(), file.clone());
    let readers: Vec<_> = (0..8_u64)
        .map(|reader| {
            let (fill, body) = (fill.clone(), memory.body.clone());
            tokio::spawn(async move {
                // Four in sequence from the start, four that jump.
                for n in 0..60_u64 {
                    let offset = if reader < 4 { n * 50_000 } else { (n * 7919 + reader * 104_729) * 997 % 3_000_000 };
                    let bytes = fill.read(offset, 50_000).await.unwrap();
                    let end = (offset + 50_000).min(3_000_000);
                    assert!(bytes == body[offset as usize..end as usize], "at {offset}");
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(fill.complete().await.unwrap(), crc64(&memory.body));
    assert!(fill.is_complete() && fill.is_verified());
    assert!(content(&file) == memory.body);
    assert_eq!(memory.asked_twice(), 0);
    let asked: u64 = memory.asked().iter().map(|range| range.end - range.start).sum();
    assert_eq!(asked, 3_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_answered_from_arriving_bytes() {
    let gate = Arc::new(Semaphore::new(1));
    let mut memory = Memory::new(1_000_000);
    memory.gate = Some(gate.clone());
    let (memory, store, file) = setup(memory);
    let fill = Downloader::new(options()).fill(&store, memory.remote(), file);
    // The request is for far more than the one chunk that is let through.
    assert!(fill.read(0, 5000).await.unwrap() == memory.body[..5000]);
    let first = &memory.asked()[0];
    assert!(first.end - first.start > 2 * CHUNK as u64, "{first:?}");
    assert!(fill.extents().bytes() <= CHUNK as u64);
    fill.cancel().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_reads_fetch_blocks_and_no_more() {
    let (memory, store, file) = setup(Memory::new(64 << 20));
    let fill = Downloader::new(options()).fill(&store, memory.remote(), file);
    for n in 1..30_u64 {
        let offset = n * 2_100_000;
        let bytes = fill.read(offset, 100).await.unwrap();
        assert!(bytes == memory.body[offset as usize..offset as usize + 100]);
    }
    let asked: u64 = memory.asked().iter().map(|range| range.end - range.start).sum();
    assert!(asked <= 29 * 2 * options().block_bytes, "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequential_reader_causes_few_requests() {
    let (memory, store, file) = setup(Memory::new(4_000_000));
    let fill = Downloader::new(options()).fill(&store, memory.remote(), file);
    for n in 0..1000_u64 {
        let bytes = fill.read(n * 4000, 4000).await.unwrap();
        assert!(bytes == memory.body[n as usize * 4000..(n as usize + 1) * 4000]);
    }
    // 100,000 bytes a request at most are 40; the growing window makes some smaller.
    assert!(memory.asked().len() <= 80, "{}", memory.asked().len());
    assert_eq!(memory.asked_twice(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_object_leaves_what_is_there_readable() {
    let (memory, store, file) = setup(Memory::new(1_000_000));
    let options = Options { read_ahead_min_bytes: 0, read_ahead_max_bytes: 0, ..options() };
    let fill = Downloader::new(options).fill(&store, memory.remote(), file);
    fill.read(500_000, 100).await.unwrap();
    *memory.etag.lock().unwrap() = "two".to_owned();
    assert!(matches!(fill.read(700_000, 100).await, Err(Error::Changed(_))));
    assert!(matches!(fill.complete().await, Err(Error::Changed(_))));
    let asked = memory.asked().len();
    assert!(matches!(fill.read(800_000, 100).await, Err(Error::Changed(_))));
    assert_eq!(memory.asked().len(), asked, "the store is not asked again");
    assert!(fill.read(500_000, 100).await.unwrap() == memory.body[500_000..500_100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_sum_at_the_end_fails_every_later_read() {
    let (memory, store, file) = setup(Memory::new(300_000).with_faults([Fault::Flip(9)]));
    let fill = Downloader::new(options()).fill(&store, memory.remote(), file);
    // Handed out before anybody could know.
    fill.read(0, 100).await.unwrap();
    assert!(matches!(fill.complete().await, Err(Error::Corrupt { .. })));
    assert!(matches!(fill.read(200_000, 100).await, Err(Error::Corrupt { .. })));
    assert!(!fill.is_complete());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_goes_on_after_the_store_failed() {
    let (memory, store, file) = setup(Memory::new(300_000).with_faults([Fault::Cut(30_000)]));
    memory.faults.lock().unwrap().push_back(Fault::Refuse(ErrorKind::Server));
    let options = Options { parallel: 1, ..options() };
    let fill = Downloader::new(options).fill(&store, memory.remote(), file.clone());
    let error = fill.complete().await.unwrap_err();
    assert!(matches!(&error, Error::Store(store) if store.kind == ErrorKind::Server), "{error}");
    assert_eq!(fill.extents().iter().collect::<Vec<_>>(), std::iter::once(0..30_000).collect::<Vec<_>>());
    assert_eq!(fill.complete().await.unwrap(), crc64(&memory.body));
    assert!(content(&file) == memory.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_ends_waiting_readers_and_all_writes() {
    let gate = Arc::new(Semaphore::new(3));
    let mut memory = Memory::new(2_000_000);
    memory.gate = Some(gate.clone());
    let (memory, store, file) = setup(memory);
    let fill = Downloader::new(options()).fill(&store, memory.remote(), file.clone());
    let waiting = tokio::spawn({
        let fill = fill.clone();
        async move { fill.read(1_500_000, 400_000).await }
    });
    while memory.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    fill.cancel().await;
    assert!(matches!(waiting.await.unwrap(), Err(Error::Cancelled(_))));
    assert!(matches!(fill.read(0, 10).await, Err(Error::Cancelled(_))));
    assert!(matches!(fill.complete().await, Err(Error::Cancelled(_))));
    // The file is the caller's again: whatever may arrive now is not written.
    file.set_len(0).unwrap();
    gate.add_permits(1000);
    drop(fill);
    while Arc::strong_count(&file) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(file.metadata().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_tried_again() {
    let (memory, store, _) = setup(Memory::new(50_000));
    // Nothing can be written through a read-only descriptor.
    let named = tempfile::NamedTempFile::new().unwrap();
    let file = Arc::new(File::open(named.path()).unwrap());
    let fill = Downloader::new(options()).fill(&store, memory.remote(), file.clone());
    for _ in 0..2 {
        let error = fill.read(0, 10).await.unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. } if source.raw_os_error() == Some(libc::EBADF)), "{error}");
    }
    assert_eq!(memory.asked().len(), 2);
    let error = Downloader::new(options()).fetch(&store, &memory.remote(), &file).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
