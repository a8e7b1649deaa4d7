//! Content that is here and that the bucket has: let go, and read again against rot.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::both;
use super::harness::{Answer, Mount, pattern};

/// The cached file that has this content.
fn cached(mount: &Mount, content: &[u8]) -> PathBuf {
    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    files(&mount.cache_dir(), &mut found);
    let one = found.into_iter().find(|path| fs::read(path).unwrap() == content);
    one.expect("one cached file has the content")
}

fn ask(mount: &Mount, what: &str) -> Answer {
    Answer::of(mount.run(&["cache", what], &[]))
}

#[test]
fn cached_content_goes_when_asked_and_what_is_not_uploaded_stays() {
    both(
        |_| {},
        |cloud, mount| {
            let content = pattern(1, 3 << 20);
            fs::write(mount.path("a"), &content).unwrap();
            fs::write(mount.path("held open"), "b").unwrap();
            mount.wait_all();
            let open = File::open(mount.path("held open")).unwrap();
            let growing = File::create(mount.path("growing")).unwrap();
            growing.write_all_at(b"half", 0).unwrap();

            let answer = ask(mount, "prune");
            answer.is(0, "");
            assert_eq!(answer.out, "1 file, 3 MiB let go\n");
            assert_eq!(mount.status().cache.files, 2, "the open one and the growing one");

            let asked = cloud.emulator().requests().len();
            let mut byte = [0];
            open.read_exact_at(&mut byte, 0).unwrap();
            growing.write_all_at(b"whole", 0).unwrap();
            assert_eq!(&byte, b"b");
            assert_eq!(cloud.emulator().requests().len(), asked, "what was in use is still here");
            drop(growing);
            assert!(fs::read(mount.path("a")).unwrap() == content);
            mount.wait_all();
            cloud.holds("data/growing", b"whole");
        },
    );
}

#[test]
fn what_rotted_on_the_disk_is_found_dropped_and_fetched_again() {
    both(
        |_| {},
        |cloud, mount| {
            let contents: Vec<Vec<u8>> = (0..4).map(|seed| pattern(seed, 100_000 + seed as usize)).collect();
            for (n, content) in contents.iter().enumerate() {
                fs::write(mount.path(&format!("f{n}")), content).unwrap();
            }
            mount.wait_all();
            let answer = ask(mount, "verify");
            answer.is(0, "");
            assert_eq!(answer.out, "4 files, 390.6 KiB read\n");

            // A flipped bit; a file that is cut; one that is gone.
            let rotten = cached(mount, &contents[1]);
            let mut byte = contents[1][5000];
            byte ^= 1;
            File::options().write(true).open(&rotten).unwrap().write_all_at(&[byte], 5000).unwrap();
            File::options().write(true).open(cached(mount, &contents[2])).unwrap().set_len(99_999).unwrap();
            fs::remove_file(cached(mount, &contents[3])).unwrap();
            let open = File::open(mount.path("f1")).unwrap();
            let answer = ask(mount, "verify");
            answer.is(1, "3 cached files had changed on the disk below the cache");
            for line in
                ["/f1: rotten, in use: close it, then verify again", "/f2: rotten, dropped", "/f3: rotten, dropped"]
            {
                assert!(answer.out.contains(line), "{answer:?}");
            }
            drop(open);
            // The close is not the last step: the kernel releases the handle a moment after it.
            super::harness::until("the file is let go", || {
                let answer = ask(mount, "verify");
                answer.is(1, "1 cached file had changed");
                answer.out.contains("/f1: rotten, dropped")
            });
            ask(mount, "verify").is(0, "");
            for (n, content) in contents.iter().enumerate() {
                assert!(fs::read(mount.path(&format!("f{n}"))).unwrap() == *content, "f{n}");
                cloud.holds(&format!("data/f{n}"), content);
            }
            let answer = Answer::of(mount.run(&["cache", "verify"], &["--json"]));
            answer.is(0, "");
            let told: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
            assert_eq!((told["files"].as_u64(), told["rotten"].as_array().map(Vec::len)), (Some(4), Some(0)), "{told}");
        },
    );
}
