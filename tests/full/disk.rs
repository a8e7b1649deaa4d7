//! The disk below is full: of blocks, of inodes.

use std::fs::{self, File, OpenOptions};
use std::io::Read;

use super::harness::{Cloud, Mount, Options, SmallDisk, errno, pattern, until};
use super::{both, fill, held, with_room};

fn on(disk: &SmallDisk, passthrough: bool) -> Options {
    Options { passthrough, data: Some(disk.dir().to_owned()), ..Options::default() }
}

#[test]
fn a_full_disk_is_enospc_and_what_was_closed_before_goes_up() {
    both(|passthrough| {
        let disk = SmallDisk::new(64, &[]);
        let mut cloud = Cloud::start();
        let mut mount = Mount::new(&cloud, on(&disk, passthrough));
        let good = pattern(1, 100_000);
        fs::write(mount.path("report"), &good).unwrap();
        mount.wait_all();
        let reserve = disk.free() - disk.available();
        assert!(reserve > 4 << 20, "mkfs leaves a reserve: {reserve}");

        cloud.stop();
        let before = pattern(2, 3 << 20);
        fs::write(mount.path("before"), &before).unwrap();
        // Programs fill the disk: one a new file, one while it rewrites a good one.
        let mut filler = File::create(mount.path("filler")).unwrap();
        let (written, error) = fill(&mut filler, 64 << 20);
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert!(written > 16 << 20, "{written}");
        let mut report = OpenOptions::new().write(true).truncate(true).open(mount.path("report")).unwrap();
        let (_, error) = fill(&mut report, 8 << 20);
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        drop(report);
        drop(filler);
        assert!(disk.free() > reserve / 2, "the reserve was taken: {} of {reserve} bytes are left", disk.free());

        // The journal goes on: names are made and removed, and what happened is told.
        fs::create_dir(mount.path("dir")).unwrap();
        until("both are held", || held(&mount).len() == 2);
        let status = mount.status();
        assert_eq!(status.journal_failure, None);
        assert!(status.cache.disk_full, "{:?}", status.cache);
        for (_, reason) in held(&mount) {
            assert!(reason.contains("no room left"), "{reason}");
        }

        // With the disk still full, what was closed before goes up, and nothing else.
        cloud.restart();
        mount.wait("before");
        cloud.holds("data/before", &before);
        cloud.holds("data/report", &good);
        assert!(cloud.object("data/filler").is_none());

        // Space returns: the one is removed, the other rewritten.
        fs::remove_file(mount.path("filler")).unwrap();
        until("space returns", || disk.available() > 24 << 20);
        let better = pattern(3, 2 << 20);
        fs::write(mount.path("report"), &better).unwrap();
        fs::write(mount.path("after"), &better).unwrap();
        mount.wait_all();
        cloud.holds("data/report", &better);
        cloud.holds("data/after", &better);
        let announced = cloud.announced();
        assert!(announced.contains(&"data/before".to_owned()), "{announced:?}");
        assert_eq!(held(&mount), []);
        assert!(!mount.status().cache.disk_full);

        // And everything is on record.
        mount.kill9();
        mount.remount();
        assert!(fs::read(mount.path("before")).unwrap() == before);
        mount.umount();
    });
}

#[test]
fn what_is_cached_makes_room_on_a_full_disk() {
    both(|passthrough| {
        let disk = SmallDisk::new(64, &[]);
        let cloud = Cloud::start();
        // The limit is no help: the disk is smaller.
        let mut mount = Mount::new(&cloud, on(&disk, passthrough));
        let content = |n: u64| pattern(n, 4 << 20);
        for n in 0..16 {
            let path = mount.path(&format!("f{n}"));
            with_room(|| fs::write(&path, content(n)));
            mount.wait(&format!("f{n}"));
        }
        for n in 0..16 {
            cloud.holds(&format!("data/f{n}"), &content(n));
        }
        assert!(fs::read(mount.path("f0")).unwrap() == content(0), "fetched again");
        mount.umount();
    });
}

#[test]
fn without_inodes_a_create_fails_and_nothing_else() {
    both(|passthrough| {
        let disk = SmallDisk::new(48, &["-N", "160"]);
        let mut cloud = Cloud::start();
        let mut mount = Mount::new(&cloud, on(&disk, passthrough));
        fs::write(mount.path("old"), "old").unwrap();
        mount.wait_all();
        cloud.stop();
        let mut made = Vec::new();
        let refused = loop {
            let name = format!("n{}", made.len());
            match fs::write(mount.path(&name), &name) {
                Ok(()) => made.push(name),
                Err(error) => break error,
            }
            assert!(made.len() < 200);
        };
        assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC));
        assert!(made.len() > 20, "{made:?}");
        assert_eq!(disk.inodes(), 0);
        assert_eq!(mount.status().cache.disk_inodes, Some(0));
        // No name without a file, and what needs no inode works.
        assert!(!mount.path(&format!("n{}", made.len())).exists());
        fs::create_dir(mount.path("dir")).unwrap();
        fs::rename(mount.path("n0"), mount.path("dir/n0")).unwrap();
        assert_eq!(fs::read(mount.path("n1")).unwrap(), b"n1");
        let appended = OpenOptions::new().append(true).open(mount.path("n1"));
        std::io::Write::write_all(&mut appended.unwrap(), b" and more").unwrap();
        cloud.restart();
        mount.wait_all();
        cloud.holds("data/dir/n0", b"n0");
        cloud.holds("data/n1", b"n1 and more");
        for name in made.iter().skip(2) {
            cloud.holds(&format!("data/{name}"), name.as_bytes());
        }
        assert_eq!(held(&mount), []);
        // What is in the bucket is let go by itself.
        with_room(|| fs::write(mount.path("new"), "new"));
        mount.wait_all();
        cloud.holds("data/new", b"new");
        mount.umount();
    });
}

#[test]
fn a_download_into_a_full_disk_fails_and_a_later_one_works() {
    both(|passthrough| {
        let disk = SmallDisk::new(64, &[]);
        let cloud = Cloud::start();
        let (small, large) = (pattern(1, 6 << 20), pattern(2, 20 << 20));
        cloud.put("data/small", &small);
        cloud.put("data/large", &large);
        let mut mount = Mount::new(&cloud, on(&disk, passthrough));
        let mut filler = File::create(mount.path("filler")).unwrap();
        let (_, error) = fill(&mut filler, 64 << 20);
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(errno(fs::read(mount.path("small"))), Some(libc::ENOSPC));
        // It is served while it arrives, so that the end of the room may be met in the middle of it.
        let mut read = Vec::new();
        let failed = File::open(mount.path("large")).and_then(|mut file| file.read_to_end(&mut read)).unwrap_err();
        assert!(matches!(failed.raw_os_error(), Some(libc::ENOSPC | libc::EIO)), "{failed}");
        assert!(large.starts_with(&read), "what was read before is right");
        assert_eq!(mount.status().journal_failure, None);

        filler.set_len(0).unwrap();
        until("space returns", || disk.available() > 32 << 20);
        assert!(fs::read(mount.path("small")).unwrap() == small);
        assert!(fs::read(mount.path("large")).unwrap() == large);
        // Begun anew by its program: the session is whole again.
        std::os::unix::fs::FileExt::write_all_at(&filler, b"whole", 0).unwrap();
        drop(filler);
        mount.wait_all();
        cloud.holds("data/filler", b"whole");
        mount.umount();
    });
}
