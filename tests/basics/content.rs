//! Bytes: written anywhere, cut, grown, mapped, and the same in the bucket afterwards.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps, UTIME_NOW, fallocate, utimensat};

use super::both;
use super::harness::{Mapping, errno, pattern};

#[test]
fn a_file_is_stored_announced_and_read_back() {
    both(
        |_| {},
        |cloud, mount| {
            fs::write(mount.path("a"), "hello").unwrap();
            mount.wait("a");
            cloud.holds("data/a", b"hello");
            assert_eq!(cloud.announced(), ["data/a"]);
            assert_eq!(cloud.recorded("success_object"), ["data/a"]);
            assert_eq!(cloud.recorded("failed_object"), [] as [String; 0]);
            mount.kill9();
            mount.remount();
            assert_eq!(fs::read(mount.path("a")).unwrap(), b"hello");
            mount.forget_all();
            assert_eq!(fs::read(mount.path("a")).unwrap(), b"hello");
        },
    );
}

#[test]
fn writes_anywhere_end_in_the_bucket_as_they_were_made() {
    both(
        |_| {},
        |cloud, mount| {
            let path = mount.path("file");
            let mut model = pattern(1, 300_000);
            fs::write(&path, &model).unwrap();

            // Into the middle, overlapping, beyond the end; some through one handle, some through another.
            let noise = pattern(2, 400_000);
            let (mut one, mut other) = (open_rw(&path), open_rw(&path));
            for round in 0..200_usize {
                let at = usize::from(noise[3 * round]) * 1500 + usize::from(noise[3 * round + 1]);
                let piece = &noise[round * 37..round * 37 + 1 + usize::from(noise[3 * round + 2]) * 40];
                let file = if round % 3 == 0 { &mut other } else { &mut one };
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(piece).unwrap();
                model.resize(model.len().max(at + piece.len()), 0);
                model[at..at + piece.len()].copy_from_slice(piece);
                if round % 20 == 0 {
                    let mut back = vec![0; piece.len()];
                    one.read_exact_at(&mut back, at as u64).unwrap();
                    assert!(back == piece, "round {round}: one handle does not see the other's write");
                }
            }
            drop((one, other));
            assert!(fs::read(&path).unwrap() == model);
            mount.wait("file");
            cloud.holds("data/file", &model);

            let mut appended = fs::OpenOptions::new().append(true).open(&path).unwrap();
            for round in 0..50_u8 {
                appended.write_all(&[round; 100]).unwrap();
                model.extend_from_slice(&[round; 100]);
            }
            assert_eq!(appended.metadata().unwrap().len(), model.len() as u64);
            drop(appended);
            mount.wait("file");
            cloud.holds("data/file", &model);
            mount.forget_all();
            assert!(fs::read(&path).unwrap() == model);
        },
    );
}

#[test]
fn sizes_change_by_every_call_that_changes_sizes() {
    both(
        |_| {},
        |cloud, mount| {
            let path = mount.path("file");
            let mut model = pattern(3, 200_000);
            fs::write(&path, &model).unwrap();
            mount.wait("file");

            // truncate(2), no handle open: smaller, then larger than it ever was.
            for size in [150_000, 250_000] {
                rustix::fs::ftruncate(open_rw(&path), size).unwrap();
                model.resize(size as usize, 0);
                assert_eq!(fs::metadata(&path).unwrap().len(), size);
                assert!(fs::read(&path).unwrap() == model, "{size}");
                mount.wait("file");
                cloud.holds("data/file", &model);
            }
            // By path, with nothing cached.
            mount.forget_cache();
            let status = std::process::Command::new("truncate").args(["-s", "90000"]).arg(&path).status().unwrap();
            assert!(status.success());
            model.resize(90_000, 0);
            mount.wait("file");
            cloud.holds("data/file", &model);

            // O_TRUNC, with another handle open that then sees the new content.
            let reader = File::open(&path).unwrap();
            let mut writer = fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
            assert_eq!(reader.metadata().unwrap().len(), 0);
            writer.write_all(b"anew").unwrap();
            let mut seen = [0; 10];
            assert_eq!(reader.read_at(&mut seen, 0).unwrap(), 4);
            assert_eq!(&seen[..4], b"anew");
            drop((reader, writer));
            mount.wait("file");
            cloud.holds("data/file", b"anew");

            // To nothing, and O_TRUNC without a write.
            fs::write(&path, "").unwrap();
            mount.wait("file");
            cloud.holds("data/file", b"");
            mount.forget_all();
            assert_eq!(fs::read(&path).unwrap(), b"");
        },
    );
}

#[test]
fn space_is_allocated_and_punched() {
    both(
        |_| {},
        |cloud, mount| {
            let mut model = pattern(4, 100_000);
            fs::write(mount.path("file"), &model).unwrap();
            let file = open_rw(&mount.path("file"));
            fallocate(&file, FallocateFlags::empty(), 90_000, 40_000).unwrap();
            model.resize(130_000, 0);
            assert_eq!(file.metadata().unwrap().len(), 130_000);
            fallocate(&file, FallocateFlags::KEEP_SIZE, 130_000, 50_000).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 130_000);
            fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 20_000, 30_000).unwrap();
            model[20_000..50_000].fill(0);
            let mut back = vec![0; 130_000];
            file.read_exact_at(&mut back, 0).unwrap();
            assert!(back == model);
            let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
            assert!((20_000..=24_576).contains(&hole), "the hole begins at {hole}");
            let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole)).unwrap();
            assert!((45_056..=50_000).contains(&data), "and ends at {data}");
            drop(file);
            mount.wait("file");
            cloud.holds("data/file", &model);
        },
    );
}

#[test]
fn stores_through_a_mapping_are_uploaded() {
    both(
        |_| {},
        |cloud, mount| {
            let mut model = pattern(5, 20_000);
            fs::write(mount.path("file"), &model).unwrap();
            mount.wait("file");
            let file = open_rw(&mount.path("file"));
            let map = Mapping::new(&file, model.len());
            map.store(5000, b"through the mapping");
            model[5000..5019].copy_from_slice(b"through the mapping");
            map.sync();
            let mut back = vec![0; 19];
            file.read_exact_at(&mut back, 5000).unwrap();
            assert_eq!(back, b"through the mapping");
            drop(map);
            drop(file);
            mount.wait("file");
            cloud.holds("data/file", &model);

            // After close, while the mapping lives: what goes up is the last content (C4).
            let file = open_rw(&mount.path("file"));
            let map = Mapping::new(&file, model.len());
            map.store(0, b"first");
            drop(file);
            map.store(10_000, b"later");
            model[..5].copy_from_slice(b"first");
            model[10_000..10_005].copy_from_slice(b"later");
            // Whatever was closed after it is through: time enough for a wrong upload.
            fs::write(mount.path("other"), "x").unwrap();
            mount.wait("other");
            let puts = cloud.count("PUT", "data/file");
            assert_eq!(puts, 2, "uploaded while a mapping can still change it");
            drop(map);
            mount.wait("file");
            cloud.holds("data/file", &model);
            assert_eq!(cloud.count("PUT", "data/file"), 3);
        },
    );
}

#[test]
fn times_and_blocks_follow_the_content() {
    both(
        |_| {},
        |_, mount| {
            fs::write(mount.path("file"), pattern(6, 50_000)).unwrap();
            mount.wait("file");
            let before = fs::metadata(mount.path("file")).unwrap();
            assert!(before.blocks() >= 50_000 / 512);
            let mut file = open_rw(&mount.path("file"));
            file.write_all(b"x").unwrap();
            let after = file.metadata().unwrap();
            assert!(after.modified().unwrap() > before.modified().unwrap());
            assert_eq!((after.len(), after.ino()), (before.len(), before.ino()));
            drop(file);
            let mut text = String::new();
            let read_only = File::open(mount.path("file")).unwrap();
            assert_eq!(errno((&read_only).write(b"x")), Some(libc::EBADF));
            assert_eq!(
                errno((&File::create(mount.path("other")).unwrap()).read_to_string(&mut text)),
                Some(libc::EBADF)
            );
        },
    );
}

/// Times that the daemon gives and times that the kernel gives to backing files are of one clock:
/// `find -newer` misses nothing, make(1) makes nothing twice.
#[test]
fn times_are_in_the_order_of_what_happened() {
    both(
        |_| {},
        |_, mount| {
            fs::write(mount.path("stamp"), "").unwrap();
            let time = |name: &str| fs::metadata(mount.path(name)).unwrap().modified().unwrap();
            for n in 0..300 {
                let names = ["file", "dir", "later", "link"].map(|name| format!("{name}{n}"));
                let [file, dir, later, link] = &names;
                let now = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
                    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
                };
                utimensat(CWD, mount.path("stamp"), &now, AtFlags::empty()).unwrap();
                fs::write(mount.path(file), "x").unwrap();
                // Not looked at before the next is made: looking makes the kernel's times finer.
                fs::create_dir(mount.path(dir)).unwrap();
                fs::write(mount.path(later), "x").unwrap();
                std::os::unix::fs::symlink("x", mount.path(link)).unwrap();
                let link = fs::symlink_metadata(mount.path(link)).unwrap().modified().unwrap();
                let times = [time("stamp"), time(file), time(dir), time(later), link];
                assert!(times.is_sorted(), "round {n}: {times:?}");
            }
        },
    );
}

fn open_rw(path: &std::path::Path) -> File {
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}
