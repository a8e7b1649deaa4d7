//! What every [`ObjectStore`] must do, run against each backend there is. A backend is a function
//! that gives a store of an empty bucket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferryfs::checksum::{combine, crc64, hex, md5};
use ferryfs::emulator::{Action, Emulator, Fault, Match, Options, Side};
use ferryfs::store::{
    Addressing, CopyOptions, CopySource, CosOptions, Credentials, Encryption, Error, ErrorKind, GetOptions, GetResult,
    HeadOptions, ListOptions, ObjectHeaders, ObjectStore, Outcome, PutOptions, RetryOptions, Terms, check, cos,
};
use ferryfs::types::{Crc64, ETag, Key};
use futures::StreamExt;

const BUCKET: &str = "examplebucket-1250000000";
const MIB: usize = 1 << 20;

type Store = Arc<dyn ObjectStore>;

async fn emulator() -> (Emulator, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        root: root.path().to_owned(),
        buckets: vec![BUCKET.to_owned()],
        credentials: vec![("AKIDtest".to_owned(), "test-key".to_owned())],
        oms_credentials: None,
        latency: Duration::ZERO,
        bandwidth: None,
    };
    (Emulator::start(options).await.unwrap(), root)
}

fn cos_options(emulator: &Emulator, addressing: Addressing) -> CosOptions {
    let credentials = Credentials::new("AKIDtest", "test-key", None);
    let mut options = CosOptions::new(BUCKET, "ap-guangzhou", credentials.into());
    options.endpoint = Some(emulator.store_url());
    options.addressing = addressing;
    options.retry = RetryOptions {
        base: Duration::from_millis(1),
        cap: Duration::from_millis(5),
        throttled_base: Duration::from_millis(2),
        ..RetryOptions::default()
    };
    options
}

/// Bytes that differ from place to place, so that a shifted or repeated piece shows.
fn content(len: usize, seed: u32) -> Bytes {
    (0..len as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

async fn bytes_of(mut result: GetResult) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = result.body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

async fn whole(store: &Store, key: &Key) -> Vec<u8> {
    bytes_of(store.get(key, GetOptions::default()).await.unwrap()).await.unwrap()
}

async fn put(store: &Store, key: &str, body: &Bytes) -> ETag {
    let options = PutOptions { content_md5: Some(md5(body)), ..PutOptions::default() };
    store.put(&Key::from(key), body.clone(), options).await.unwrap().etag
}

fn source(key: &str) -> CopySource {
    CopySource { key: Key::from(key), if_match: None, version_id: None }
}

/// All there is, by pages of `max_keys`.
async fn listed(store: &Store, prefix: &str, delimiter: Option<char>, max_keys: u32) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut prefixes, mut marker) = (Vec::new(), Vec::new(), None);
    loop {
        let options = ListOptions { prefix: prefix.to_owned(), delimiter, marker, max_keys };
        let page = store.list(options).await.unwrap();
        if max_keys > 0 {
            assert!(page.objects.len() + page.prefixes.len() <= max_keys as usize);
        }
        keys.extend(page.objects.into_iter().map(|object| object.key.0));
        prefixes.extend(page.prefixes);
        marker = page.next_marker;
        if marker.is_none() {
            return (keys, prefixes);
        }
    }
}

/// Keys with everything that encodings trip over.
const KEYS: [&str; 14] = [
    "plain.txt",
    "a b",
    "a+b",
    "100%",
    "%41%2F",
    "~*()!'$&,;=:@",
    "\u{4e2d}\u{6587}/\u{5b57}.txt",
    "q?x=y#z",
    "<&>\"'",
    "tab\tnewline\nreturn\r.",
    "control\u{1}\u{7f}",
    "a/./b/../c",
    "//double//slash//",
    "back\\slash",
];

async fn objects_are_kept_as_they_are(store: &Store) {
    for (i, name) in KEYS.iter().enumerate() {
        let key = Key::from(*name);
        let body = content(1000 + i, i as u32);
        let headers = ObjectHeaders {
            content_type: Some("text/x-test".to_owned()),
            standard: BTreeMap::from([("cache-control".to_owned(), "max-age=5".to_owned())]),
            metadata: BTreeMap::from([
                ("mode".to_owned(), "33188".to_owned()),
                ("name".to_owned(), format!(" {name}%E4")),
            ]),
        };
        let options = PutOptions { headers: headers.clone(), content_md5: Some(md5(&body)), ..PutOptions::default() };
        let result = store.put(&key, body.clone(), options).await.unwrap();
        assert_eq!(result.etag.0, hex(&md5(&body)));
        let meta = store.head(&key, HeadOptions::default()).await.unwrap();
        assert_eq!((meta.size, &meta.etag, &meta.headers), (body.len() as u64, &result.etag, &headers), "{name:?}");
        assert!(meta.last_modified.is_some());
        if store.capabilities().crc64 {
            assert_eq!((result.crc64, meta.crc64), (Some(crc64(&body)), Some(crc64(&body))));
        }
        assert_eq!(whole(store, &key).await, body, "{name:?}");
    }
    let mut expected: Vec<String> = KEYS.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(listed(store, "", None, 0).await.0, expected);
    let keys: Vec<Key> = KEYS.iter().map(|name| Key::from(*name)).chain([Key::from("never there")]).collect();
    assert!(store.delete_many(&keys).await.unwrap().is_empty());
    assert_eq!(listed(store, "", None, 0).await, (Vec::new(), Vec::new()));
}

async fn ranges_are_exact_and_guarded(store: &Store) {
    let body = content(100_000, 3);
    let etag = put(store, "r", &body).await;
    let key = Key::from("r");
    let get = |range, if_match| store.get(&key, GetOptions { range: Some(range), if_match, version_id: None });
    for range in [0..1, 0..100_000, 5..6, 99_999..100_000, 777..65_000, 0..500_000, 99_000..u64::MAX] {
        let result = get(range.clone(), Some(etag.clone())).await.unwrap();
        assert_eq!((result.meta.size, result.range.clone()), (100_000, range.start..range.end.min(100_000)));
        let (start, end) = (result.range.start as usize, result.range.end as usize);
        assert_eq!(bytes_of(result).await.unwrap(), body[start..end]);
    }
    assert_eq!(get(100_000..100_001, None).await.err().unwrap().kind, ErrorKind::InvalidRange);
    let other = Some(ETag("0123456789abcdef0123456789abcdef".to_owned()));
    assert_eq!(get(0..1, other).await.err().unwrap().kind, ErrorKind::Precondition);
    put(store, "empty", &Bytes::new()).await;
    assert_eq!(whole(store, &Key::from("empty")).await, b"");
}

async fn what_is_not_there_is_not_found(store: &Store) {
    let key = Key::from("not/there");
    assert_eq!(store.head(&key, HeadOptions::default()).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(store.get(&key, GetOptions::default()).await.err().unwrap().kind, ErrorKind::NotFound);
    let error = store.copy(source("not/there"), &Key::from("x"), CopyOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    store.delete(&key).await.unwrap();
    let upload = store.list_parts(&key, "no-such-upload", None).await.unwrap_err();
    assert_eq!(upload.kind, ErrorKind::NoSuchUpload);
    store.abort_multipart(&key, "no-such-upload").await.unwrap();
}

async fn overwriting_can_be_forbidden(store: &Store) {
    let (old, new) = (content(10, 1), content(10, 2));
    put(store, "w", &old).await;
    put(store, "w other", &new).await;
    let key = Key::from("w");
    let options = PutOptions { forbid_overwrite: true, ..PutOptions::default() };
    let error = store.put(&key, new.clone(), options.clone()).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::AlreadyExists, Outcome::NotApplied));
    let copy = CopyOptions { forbid_overwrite: true, ..CopyOptions::default() };
    assert_eq!(store.copy(source("w other"), &key, copy.clone()).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    let upload = store.create_multipart(&key, PutOptions::default()).await.unwrap();
    let part = store.put_part(&key, &upload, 1, new.clone(), md5(&new)).await.unwrap();
    let error = store.complete_multipart(&key, &upload, &[part], true).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    store.abort_multipart(&key, &upload).await.unwrap();
    assert_eq!(whole(store, &key).await, old);
    store.put(&Key::from("w2"), new.clone(), options).await.unwrap();
    store.copy(source("w"), &Key::from("w3"), copy).await.unwrap();
    assert_eq!(whole(store, &Key::from("w3")).await, old);
    put(store, "w", &new).await;
    assert_eq!(whole(store, &key).await, new);
}

async fn copies_keep_or_replace_headers(store: &Store) {
    let body = content(5000, 9);
    let headers = |mode: &str| ObjectHeaders {
        content_type: Some("text/plain".to_owned()),
        metadata: BTreeMap::from([("mode".to_owned(), mode.to_owned())]),
        ..ObjectHeaders::default()
    };
    let from = "src \u{4e2d}+%41.bin";
    let options = PutOptions { headers: headers("1"), ..PutOptions::default() };
    let etag = store.put(&Key::from(from), body.clone(), options).await.unwrap().etag;
    let guarded = |etag: &ETag| CopySource { if_match: Some(etag.clone()), ..source(from) };
    let to = Key::from("dst");
    let kept = store.copy(guarded(&etag), &to, CopyOptions::default()).await.unwrap();
    let meta = store.head(&to, HeadOptions::default()).await.unwrap();
    assert_eq!((meta.headers, &meta.etag), (headers("1"), &kept.etag));
    let replace = CopyOptions { replace_headers: Some(headers("2")), ..CopyOptions::default() };
    store.copy(guarded(&etag), &to, replace.clone()).await.unwrap();
    let meta = store.head(&to, HeadOptions::default()).await.unwrap();
    assert_eq!((meta.headers, meta.size), (headers("2"), 5000));
    if store.capabilities().crc64 {
        assert_eq!((kept.crc64, meta.crc64), (Some(crc64(&body)), Some(crc64(&body))));
    }
    // Onto itself: how attributes change.
    store.copy(source(from), &Key::from(from), replace).await.unwrap();
    assert_eq!(store.head(&Key::from(from), HeadOptions::default()).await.unwrap().headers, headers("2"));
    assert_eq!(whole(store, &Key::from(from)).await, body);
    let stale = ETag("0123456789abcdef0123456789abcdef".to_owned());
    let error = store.copy(guarded(&stale), &to, CopyOptions::default()).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::Precondition, Outcome::NotApplied));
}

async fn listings_page_in_byte_order(store: &Store) {
    let mut names: Vec<String> = (0..25).map(|i| format!("l/f{i:02}")).collect();
    names.extend((0..5).flat_map(|d| (0..3).map(move |i| format!("l/d{d} \u{4e2d}/{i}"))));
    names.extend(["l/".to_owned(), "l.txt".to_owned(), "l/a+b%20c".to_owned(), "l/\u{7}bell".to_owned()]);
    for name in &names {
        put(store, name, &Bytes::from_static(b"x")).await;
    }
    names.retain(|name| name.starts_with("l/"));
    names.sort();
    let deep = |name: &String| name["l/".len()..].contains('/');
    let files: Vec<String> = names.iter().filter(|name| !deep(name)).cloned().collect();
    let dirs: Vec<String> = (0..5).map(|d| format!("l/d{d} \u{4e2d}/")).collect();
    for max_keys in [0, 1, 2, 7, 31] {
        assert_eq!(listed(store, "l/", None, max_keys).await, (names.clone(), Vec::new()), "{max_keys}");
        assert_eq!(listed(store, "l/", Some('/'), max_keys).await, (files.clone(), dirs.clone()), "{max_keys}");
    }
    let page = store.list(ListOptions { prefix: "l/".into(), max_keys: 1, ..Default::default() }).await.unwrap();
    let object = &page.objects[0];
    assert_eq!((object.key.as_str(), object.size, object.etag.0.len()), ("l/", 1, 32));
    assert!(object.last_modified.is_some());
    let keys: Vec<Key> = names.into_iter().map(Key).chain([Key::from("l.txt")]).collect();
    assert!(store.delete_many(&keys).await.unwrap().is_empty());
}

async fn objects_of_parts(store: &Store) {
    let key = Key::from("m/big \u{4e2d}.bin");
    let size = store.capabilities().min_part_bytes as usize;
    let pieces = [content(size, 1), content(size + 17, 2), content(3, 3)];
    let whole_content = pieces.concat();
    let headers = ObjectHeaders {
        metadata: BTreeMap::from([("md5".to_owned(), hex(&md5(&whole_content)))]),
        ..ObjectHeaders::default()
    };
    let options = PutOptions { headers: headers.clone(), ..PutOptions::default() };
    let upload = store.create_multipart(&key, options).await.unwrap();
    let listed = store.list_uploads("m/", None).await.unwrap();
    assert_eq!((&listed.uploads[0].key, &listed.uploads[0].upload_id), (&key, &upload));
    assert!(listed.uploads[0].initiated.is_some() && listed.next_marker.is_none());
    let mut parts = Vec::new();
    store.put_part(&key, &upload, 2, content(size, 99), md5(&content(size, 99))).await.unwrap();
    for (piece, number) in pieces.iter().zip(1..) {
        let part = store.put_part(&key, &upload, number, piece.clone(), md5(piece)).await.unwrap();
        assert_eq!((part.number, part.size, &part.etag.0), (number, piece.len() as u64, &hex(&md5(piece))));
        assert!(!store.capabilities().crc64 || part.crc64 == Some(crc64(piece)));
        parts.push(part);
    }
    let page = store.list_parts(&key, &upload, None).await.unwrap();
    let brief = |parts: &[ferryfs::store::Part]| -> Vec<(u32, u64, ETag)> {
        parts.iter().map(|part| (part.number, part.size, part.etag.clone())).collect()
    };
    assert_eq!((brief(&page.parts), page.next_marker), (brief(&parts), None));
    assert_eq!(brief(&store.list_parts(&key, &upload, Some(2)).await.unwrap().parts), brief(&parts[2..]));
    assert_eq!(store.head(&key, HeadOptions::default()).await.unwrap_err().kind, ErrorKind::NotFound);
    let result = store.complete_multipart(&key, &upload, &parts, true).await.unwrap();
    let meta = store.head(&key, HeadOptions::default()).await.unwrap();
    assert_eq!(
        (&meta.etag, meta.size, &meta.headers.metadata),
        (&result.etag, whole_content.len() as u64, &headers.metadata)
    );
    if store.capabilities().crc64 {
        let folded = pieces.iter().fold(Crc64(0), |sum, piece| combine(sum, crc64(piece), piece.len() as u64));
        assert_eq!((result.crc64, meta.crc64, crc64(&whole_content)), (Some(folded), Some(folded), folded));
    }
    assert_eq!(whole(store, &key).await, whole_content);
    let again = store.complete_multipart(&key, &upload, &parts, false).await.unwrap_err();
    assert_eq!((again.kind, again.outcome), (ErrorKind::NoSuchUpload, Outcome::NotApplied));
    changed_in_one_part(store, &key, &pieces, &meta.etag).await;
}

/// A modified object whose unchanged part is copied on the server.
async fn changed_in_one_part(store: &Store, key: &Key, pieces: &[Bytes; 3], etag: &ETag) {
    let upload = store.create_multipart(key, PutOptions::default()).await.unwrap();
    let first = pieces[0].len() as u64;
    let from = CopySource { key: key.clone(), if_match: Some(etag.clone()), version_id: None };
    let copied = store.copy_part(key, &upload, 1, from.clone(), 0..first).await.unwrap();
    assert_eq!((copied.size, copied.number), (first, 1));
    assert!(copied.crc64.is_none_or(|sum| sum == crc64(&pieces[0])));
    let stale = CopySource { if_match: Some(ETag("0123456789abcdef0123456789abcdef-9".to_owned())), ..from };
    let error = store.copy_part(key, &upload, 2, stale, 0..first).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Precondition);
    let tail = content(100, 7);
    let second = store.put_part(key, &upload, 2, tail.clone(), md5(&tail)).await.unwrap();
    store.complete_multipart(key, &upload, &[copied, second], false).await.unwrap();
    assert_eq!(whole(store, key).await, [&pieces[0][..], &tail].concat());
}

async fn parts_that_do_not_fit_are_refused(store: &Store) {
    let key = Key::from("m/bad");
    let upload = store.create_multipart(&key, PutOptions::default()).await.unwrap();
    let small = content(10, 1);
    let wrong = md5(b"something else");
    let error = store.put_part(&key, &upload, 1, small.clone(), wrong).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadDigest);
    let one = store.put_part(&key, &upload, 1, small.clone(), md5(&small)).await.unwrap();
    let two = store.put_part(&key, &upload, 2, small.clone(), md5(&small)).await.unwrap();
    let error = store.complete_multipart(&key, &upload, &[one.clone(), two.clone()], false).await.unwrap_err();
    assert_eq!((error.kind, error.outcome), (ErrorKind::InvalidPart, Outcome::NotApplied));
    let mut altered = one.clone();
    altered.etag = two.etag.clone();
    altered.etag.0.replace_range(0..4, "zzzz");
    let error = store.complete_multipart(&key, &upload, &[altered], false).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidPart);
    store.abort_multipart(&key, &upload).await.unwrap();
    assert!(store.list_uploads("m/bad", None).await.unwrap().uploads.is_empty());
    let error = store.put_part(&key, &upload, 1, small.clone(), md5(&small)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchUpload);
    let options = PutOptions { content_md5: Some(wrong), ..PutOptions::default() };
    let error = store.put(&key, small, options).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadDigest);
    assert_eq!(store.head(&key, HeadOptions::default()).await.unwrap_err().kind, ErrorKind::NotFound);
}

async fn storage_classes_are_kept(store: &Store, class: &str) {
    let key = Key::from("class");
    let options = PutOptions { storage_class: Some(class.to_owned()), ..PutOptions::default() };
    store.put(&key, content(5, 5), options).await.unwrap();
    assert_eq!(store.head(&key, HeadOptions::default()).await.unwrap().storage_class.as_deref(), Some(class));
    store
        .copy(
            source("class"),
            &key,
            CopyOptions {
                storage_class: None,
                replace_headers: Some(ObjectHeaders::default()),
                ..CopyOptions::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(store.head(&key, HeadOptions::default()).await.unwrap().storage_class, None);
}

/// What a copy does not ask for it does not get, but for the tags.
async fn terms_are_kept_and_asked_for_anew(store: &Store) {
    let (key, copy) = (Key::from("terms"), Key::from("terms copy"));
    let terms = Terms {
        acl: Some("private".to_owned()),
        encryption: Some(Encryption::Kms { key_id: Some("k-1".to_owned()) }),
        tags: [("a b".to_owned(), "\u{4e2d}".to_owned()), ("c".to_owned(), String::new())].into(),
    };
    let options = PutOptions { terms: terms.clone(), ..PutOptions::default() };
    store.put(&key, content(5, 5), options).await.unwrap();
    let meta = store.head(&key, HeadOptions::default()).await.unwrap();
    assert_eq!((&meta.encryption, meta.tag_count), (&terms.encryption, 2));
    assert_eq!(store.tags(&key).await.unwrap(), terms.tags);
    store.copy(source("terms"), &copy, CopyOptions::default()).await.unwrap();
    let meta = store.head(&copy, HeadOptions::default()).await.unwrap();
    assert_eq!((meta.encryption, meta.tag_count), (None, 2));
    let other =
        Terms { acl: None, encryption: Some(Encryption::Aes256), tags: [("d".to_owned(), "1".to_owned())].into() };
    store.copy(source("terms"), &copy, CopyOptions { terms: other.clone(), ..CopyOptions::default() }).await.unwrap();
    assert_eq!(store.head(&copy, HeadOptions::default()).await.unwrap().encryption, other.encryption);
    assert_eq!(store.tags(&copy).await.unwrap(), other.tags);
}

async fn contract(store: &Store) {
    check(store.as_ref()).await.unwrap();
    objects_are_kept_as_they_are(store).await;
    ranges_are_exact_and_guarded(store).await;
    what_is_not_there_is_not_found(store).await;
    overwriting_can_be_forbidden(store).await;
    copies_keep_or_replace_headers(store).await;
    listings_page_in_byte_order(store).await;
    objects_of_parts(store).await;
    parts_that_do_not_fit_are_refused(store).await;
}

#[tokio::test]
async fn cos_by_path() {
    let (emulator, _root) = emulator().await;
    let store = cos(cos_options(&emulator, Addressing::Path)).unwrap();
    contract(&store).await;
    storage_classes_are_kept(&store, "STANDARD_IA").await;
    terms_are_kept_and_asked_for_anew(&store).await;
}

#[tokio::test]
async fn cos_by_virtual_host() {
    let (emulator, _root) = emulator().await;
    let store = cos(cos_options(&emulator, Addressing::Virtual)).unwrap();
    contract(&store).await;
}

fn fault(sub_resource: &str, action: Action) -> Fault {
    let matching = Match { sub_resource: Some(sub_resource.to_owned()), ..Match::default() };
    Fault { matching, action, count: 1, skip: 0, apply_after_ms: None }
}

#[tokio::test]
async fn a_complete_that_was_applied_and_cut_is_settled_by_head() {
    let (emulator, _root) = emulator().await;
    let store = cos(cos_options(&emulator, Addressing::Path)).unwrap();
    let key = Key::from("big");
    let body = content(2 * MIB, 1);
    let upload = store.create_multipart(&key, PutOptions::default()).await.unwrap();
    let part = store.put_part(&key, &upload, 1, body.clone(), md5(&body)).await.unwrap();
    emulator.add_fault(fault("uploadId", Action::ApplyThenCut));
    let error = store.complete_multipart(&key, &upload, &[part], true).await.unwrap_err();
    assert_eq!((error.kind, error.outcome, error.attempts), (ErrorKind::Network, Outcome::Unknown, 1));
    let meta = store.head(&key, HeadOptions::default()).await.unwrap();
    assert_eq!((meta.size, meta.crc64), (2 * MIB as u64, Some(crc64(&body))));
}

#[tokio::test]
async fn content_that_was_corrupted_on_the_way_is_sent_again() {
    let (emulator, _root) = emulator().await;
    let store = cos(cos_options(&emulator, Addressing::Path)).unwrap();
    emulator.add_fault(fault("object", Action::Corrupt(Side::Request)));
    let body = content(100_000, 1);
    put(&store, "k", &body).await;
    assert_eq!(emulator.object(BUCKET, "k").unwrap().bytes().unwrap(), body);
    assert_eq!(emulator.requests().len(), 2);
    emulator.add_fault(fault("object", Action::WrongCrc));
    let told = store.head(&Key::from("k"), HeadOptions::default()).await.unwrap().crc64;
    assert!(told.is_some() && told != Some(crc64(&body)));
    emulator.add_fault(fault("object", Action::Cut { after: 50_000, side: Side::Response }));
    let cut = bytes_of(store.get(&Key::from("k"), GetOptions::default()).await.unwrap()).await.unwrap_err();
    assert_eq!(cut.kind, ErrorKind::Network);
}

#[tokio::test]
async fn a_clock_that_differs_is_made_good() {
    for offset_s in [-7_200, 7_200] {
        let (emulator, _root) = emulator().await;
        emulator.set_clock_offset(offset_s);
        let store = cos(cos_options(&emulator, Addressing::Path)).unwrap();
        put(&store, "k", &content(10, 1)).await;
        assert_eq!(emulator.requests().len(), 2, "{offset_s}");
        assert_eq!(whole(&store, &Key::from("k")).await, content(10, 1));
        assert_eq!(emulator.requests().len(), 3, "{offset_s}");
    }
}

#[tokio::test]
async fn a_check_says_which_setting_is_wrong() {
    let (emulator, _root) = emulator().await;
    let with = |change: fn(&mut CosOptions)| {
        let mut options = cos_options(&emulator, Addressing::Path);
        change(&mut options);
        cos(options).unwrap()
    };
    let unknown = with(|o| o.credentials = Credentials::new("AKIDother", "test-key", None).into());
    let error = check(unknown.as_ref()).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Credentials, Some("InvalidAccessKeyId")));
    let wrong = with(|o| o.credentials = Credentials::new("AKIDtest", "other-key", None).into());
    let error = check(wrong.as_ref()).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Credentials, Some("SignatureDoesNotMatch")));
    assert!(!format!("{error} {error:?}").contains("other-key"));
    let elsewhere = with(|o| o.bucket = "elsewhere-1250000000".to_owned());
    let error = check(elsewhere.as_ref()).await.unwrap_err();
    assert_eq!((error.kind, error.status), (ErrorKind::NoSuchBucket, Some(404)));
    assert!(error.request_id.is_some());
}
