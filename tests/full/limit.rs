//! The limit of the cache (P7).

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::harness::{Cloud, Mount, Options, errno, pattern, until};
use super::{both, fill, held, with_room, writes};

const MIB: usize = 1 << 20;
const LIMIT: u64 = 16 << 20;

fn small(passthrough: bool) -> Options {
    Options { passthrough, cache_size: "16MiB", ..Options::default() }
}

#[test]
fn above_the_limit_programs_get_enospc_and_what_is_closed_goes_up() {
    both(|passthrough| {
        let mut cloud = Cloud::start();
        let mut mount = Mount::new(&cloud, small(passthrough));
        fs::write(mount.path("good"), "good").unwrap();
        mount.wait_all();
        cloud.stop();
        until("it is known to be gone", || {
            // The first upload that fails tells.
            fs::write(mount.path("probe"), "probe").unwrap();
            !mount.status().mappings[0].online
        });
        let content = |n: u64| pattern(n, 2 * MIB);
        for n in 0..6 {
            assert!(!mount.status().cache.tight);
            let before = writes(&mount);
            fs::write(mount.path(&format!("f{n}")), content(n)).unwrap();
            assert_eq!(writes(&mount) == before, passthrough, "below the limit the kernel writes");
        }
        fs::write(mount.path("f6"), content(6)).unwrap();
        let status = mount.status();
        assert!(status.cache.tight && status.cache.pinned_bytes > LIMIT / 100 * 80, "{:?}", status.cache);

        // A writer that comes now is ours, however files are served, and ends at the limit.
        let before = writes(&mount);
        let begun = Instant::now();
        let mut last = File::create(mount.path("last")).unwrap();
        let (written, error) = fill(&mut last, 2 * MIB);
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert!(writes(&mount) > before, "its writes come to us");
        assert!(written > 0);
        // Nothing can go up: nobody is kept waiting for it.
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        let status = mount.status();
        assert!(status.cache.used_bytes <= LIMIT && status.cache.refused > 0, "{:?}", status.cache);
        drop(last);
        until("it is held", || held(&mount).len() == 1);
        let (path, reason) = held(&mount).remove(0);
        assert!(path == "/last" && reason.contains("no room left"), "{path}: {reason}");
        // A rewrite of a good file that does not fit leaves the good version.
        let mut good = File::create(mount.path("good")).unwrap();
        let (_, error) = fill(&mut good, 2 * MIB);
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        drop(good);

        cloud.restart();
        for n in 0..7 {
            mount.wait(&format!("f{n}"));
            cloud.holds(&format!("data/f{n}"), &content(n));
        }
        cloud.holds("data/good", b"good");
        assert!(cloud.object("data/last").is_none());

        // Space returns, and with it the kernel's own writing.
        let big = pattern(9, 12 * MIB);
        with_room(|| fs::write(mount.path("last"), &big));
        fs::write(mount.path("good"), "better").unwrap();
        mount.wait_all();
        cloud.holds("data/last", &big);
        cloud.holds("data/good", b"better");
        until("it is tight no more", || !mount.status().cache.tight);
        let before = writes(&mount);
        fs::write(mount.path("small"), "small").unwrap();
        assert_eq!(writes(&mount) == before, passthrough);
        mount.wait_all();
        assert_eq!(held(&mount), []);
        mount.umount();
    });
}

#[test]
fn writers_go_at_the_speed_of_the_uploads_and_lose_nothing() {
    both(|passthrough| {
        let cloud = Cloud::with(Duration::ZERO, Some(12 * MIB as u64));
        let mut mount = Mount::new(&cloud, small(passthrough));
        let content = |n: u64| pattern(n, 3 * MIB);
        let mut most = 0;
        for n in 0..14 {
            let mut file = File::create(mount.path(&format!("f{n}"))).unwrap();
            for piece in content(n).chunks(MIB / 2) {
                file.write_all(piece).unwrap();
            }
            drop(file);
            most = most.max(mount.status().cache.used_bytes);
        }
        // Files that the kernel writes to may exceed it by what each wrote before anybody looked.
        assert!(most <= LIMIT + if passthrough { 3 << 20 } else { 0 }, "{most}");
        assert_eq!(mount.status().cache.refused, 0);
        mount.wait_all();
        for n in 0..14 {
            cloud.holds(&format!("data/f{n}"), &content(n));
        }
        mount.umount();
    });
}

#[test]
fn open_files_count_as_they_grow() {
    both(|passthrough| {
        let cloud = Cloud::start();
        let mut mount = Mount::new(&cloud, small(passthrough));
        let mut big = File::create(mount.path("big")).unwrap();
        big.write_all(&pattern(1, 14 * MIB)).unwrap();
        until("it is noticed", || mount.status().cache.tight);
        let before = writes(&mount);
        let other = File::create(mount.path("other")).unwrap();
        other.write_all_at(&pattern(2, MIB), 0).unwrap();
        assert!(writes(&mount) > before, "a second writer comes to us");
        assert_eq!(errno(other.write_all_at(&pattern(2, 4 * MIB), MIB as u64)), Some(libc::ENOSPC));
        // One mode for all handles of a file: who opens the first one too writes as it does.
        drop((big, other));
        mount.wait("big");
        cloud.holds("data/big", &pattern(1, 14 * MIB));
        assert!(cloud.object("data/other").is_none());
        fs::remove_file(mount.path("other")).unwrap();
        mount.wait_all();
        mount.umount();
    });
}
