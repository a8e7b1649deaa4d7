//! Many files, one large file, one file many times.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::harness::{Cloud, Mount, Options, names, pattern};

/// Most keys of an OMS request.
const OMS_KEYS: usize = 10;

/// What the daemon may use while a large file travels.
const MEMORY_KIB: u64 = 300 << 10;

#[test]
fn a_tree_of_a_thousand_files_is_delivered_file_by_file() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options { delay: "1s", ..Options::default() });
    let source = mount.outside("source");
    let mut files = Vec::new();
    for n in 0..1000_usize {
        let dir = format!("dir {}/\u{4e2d}{}", n % 10, n % 3);
        fs::create_dir_all(source.join(&dir)).unwrap();
        let name = format!("{dir}/file+{n:04}%");
        let bytes = pattern(n as u64, (n * 7919) % 40_000);
        fs::write(source.join(&name), &bytes).unwrap();
        files.push((format!("data/tree/{name}"), bytes));
    }
    let begin = Instant::now();
    let status = Command::new("cp").arg("-r").arg(&source).arg(mount.path("tree")).status().unwrap();
    assert!(status.success());
    let copied = begin.elapsed();
    mount.wait_all();
    eprintln!("1,000 files: copied in {copied:?}, delivered after {:?}", begin.elapsed());

    let keys: BTreeSet<String> = cloud.keys().into_iter().collect();
    let markers: BTreeSet<String> = keys.iter().filter(|key| key.ends_with('/')).cloned().collect();
    assert_eq!(markers.len(), 1 + 10 + 30, "the tree, its directories and theirs");
    assert_eq!(keys.len(), 1000 + markers.len());
    for (key, bytes) in &files {
        cloud.holds(key, bytes);
        assert_eq!(cloud.metadata(key, "md5").unwrap(), ferryfs::checksum::hex(&ferryfs::checksum::md5(bytes)));
    }
    let requests = cloud.emulator().requests();
    for key in &keys {
        let puts = requests.iter().filter(|request| request.method == "PUT" && request.key == *key).count();
        // A directory's attributes may follow its marker.
        let most = if markers.contains(key) { 2 } else { 1 };
        assert!((1..=most).contains(&puts), "{puts} PUTs of {key}");
    }
    let told: Vec<_> =
        requests.iter().filter(|request| request.sub_resource.iter().any(|name| name == "oms")).collect();
    assert!(told.iter().all(|request| (1..=OMS_KEYS).contains(&request.oms_keys.len()) && request.status == 200));
    let announced: BTreeSet<String> = cloud.announced().into_iter().collect();
    assert_eq!(announced, keys);
    assert_eq!(cloud.recorded("success_object").into_iter().collect::<BTreeSet<_>>(), keys);
    assert_eq!(cloud.recorded("failed_object"), [] as [&str; 0]);
    let status = mount.status();
    assert_eq!((status.announcements_owed, status.records_owed, status.uploads_files), (0, 0, 0));
    eprintln!("{} OMS requests for {} keys", told.len(), keys.len());

    mount.forget_all();
    let status = Command::new("diff").arg("-r").arg(&source).arg(mount.path("tree")).status().unwrap();
    assert!(status.success(), "a host that never saw them reads the same");
    mount.umount();
}

const BLOCK: usize = 1 << 20;
const BLOCKS: u64 = 1024;

/// Block `n` of the large file.
fn stamp(block: &mut [u8], n: u64) {
    for (at, chunk) in block.chunks_mut(4096).enumerate() {
        chunk[..8].copy_from_slice(&(n << 20 | at as u64).to_le_bytes());
    }
}

fn read_and_compare(path: &Path) {
    let mut file = File::open(path).unwrap();
    let (mut wanted, mut found) = (pattern(7, BLOCK), vec![0; BLOCK]);
    for n in 0..BLOCKS {
        stamp(&mut wanted, n);
        file.read_exact(&mut found).unwrap();
        assert!(found == wanted, "block {n}");
    }
    assert_eq!(file.read(&mut found).unwrap(), 0);
}

#[test]
fn a_gibibyte_goes_up_in_parts_and_comes_back_in_little_memory() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options { part_size: "16MiB", ..Options::default() });
    let path = mount.path("large");
    let begin = Instant::now();
    let mut file = File::create(&path).unwrap();
    let mut block = pattern(7, BLOCK);
    for n in 0..BLOCKS {
        stamp(&mut block, n);
        file.write_all(&block).unwrap();
    }
    drop(file);
    let written = begin.elapsed();
    let waited = mount.try_wait("large", Duration::from_secs(120));
    assert!(waited.status.success(), "{}", super::harness::shown(&waited));
    let stored = begin.elapsed();
    let object = cloud.object("data/large").unwrap();
    assert_eq!((object.size(), object.parts()), (BLOCKS * BLOCK as u64, 64));
    assert_eq!(cloud.count_by(|request| request.method == "PUT" && request.key == "data/large"), 64, "a part each");
    assert_eq!(cloud.announced(), ["data/large"]);
    let up = mount.memory_kib("VmHWM");
    assert!(up < MEMORY_KIB, "{up} KiB while it went up");

    mount.forget_cache();
    read_and_compare(&path);
    let down = mount.memory_kib("VmHWM");
    eprintln!(
        "1 GiB: written in {written:?}, delivered after {stored:?}, read back after {:?}; VmHWM {up} and {down} KiB",
        begin.elapsed()
    );
    assert!(down < MEMORY_KIB, "{down} KiB while it came back");
    let received: u64 = cloud.requests("GET", "data/large").iter().map(|request| request.response_bytes).sum();
    assert!(received >= BLOCKS * BLOCK as u64, "read from the bucket, not from a cache");
    mount.umount();
}

fn save(mount: &Mount, n: u64) -> Vec<u8> {
    let bytes = pattern(n, 10_000 + n as usize);
    fs::write(mount.path(".doc.tmp"), &bytes).unwrap();
    fs::rename(mount.path(".doc.tmp"), mount.path("doc")).unwrap();
    bytes
}

#[test]
fn a_document_saved_a_hundred_times_is_stored_at_most_so_often() {
    for (passthrough, delay) in [(true, "20ms"), (false, "20ms"), (true, "60s"), (false, "60s")] {
        let cloud = Cloud::start();
        let mut mount = Mount::new(&cloud, Options { passthrough, delay, ..Options::default() });
        cloud.put("data/doc", b"the bucket's");
        let mut last = Vec::new();
        for n in 0..100 {
            last = save(&mount, n);
        }
        mount.wait_all();
        cloud.holds("data/doc", &last);
        assert_eq!(fs::read(mount.path("doc")).unwrap(), last);
        assert_eq!(names(mount.dir()), ["doc"]);
        assert_eq!(cloud.keys(), ["data/doc"]);
        let puts = cloud.count("PUT", "data/doc");
        eprintln!("passthrough {passthrough}, delay {delay}: {puts} PUTs of the document");
        assert!(puts <= 100, "{puts} PUTs");
        if delay == "60s" {
            assert_eq!(puts, 1);
            assert_eq!(cloud.count_by(|request| request.key.contains(".tmp") && request.method != "HEAD"), 0);
            assert_eq!(cloud.announced(), ["data/doc"]);
        }
        mount.umount();
    }
}
