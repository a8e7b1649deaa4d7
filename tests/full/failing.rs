//! The disk fails: below the content, below the journal.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use super::harness::{Answer, Cloud, Mount, Options, SmallDisk, errno, pattern, until};
use super::{both, close, held};

#[test]
fn a_failing_disk_is_told_to_programs_and_nothing_of_it_goes_up() {
    both(|passthrough| {
        let mut disk = SmallDisk::new(64, &[]);
        let cloud = Cloud::start();
        let mut mount = Mount::prepare(&cloud, &Options { passthrough, ..Options::default() });
        // The journal is elsewhere: only what programs write fails.
        disk.move_to(&mount.state_dir().join("dirty"));
        mount.remount();
        fs::write(mount.path("report"), "good").unwrap();
        fs::write(mount.path("log"), "good").unwrap();
        mount.wait_all();
        let report = OpenOptions::new().write(true).truncate(true).open(mount.path("report")).unwrap();
        report.write_all_at(&pattern(1, 1 << 20), 0).unwrap();
        let log = OpenOptions::new().append(true).open(mount.path("log")).unwrap();
        log.write_all_at(b" and more", 4).unwrap();

        disk.fail();
        assert_eq!(errno(report.write_all_at(&pattern(2, 1 << 20), 1 << 20)), Some(libc::EIO));
        assert_eq!(errno(log.sync_all()), Some(libc::EIO));
        assert_eq!(errno(File::create(mount.path("new"))), Some(libc::EIO));
        // What close(2) says of a file whose disk is gone is the disk's affair.
        let _ = (close(report), close(log));
        assert_eq!(mount.status().journal_failure, None);
        fs::create_dir(mount.path("dir")).unwrap();
        mount.wait("dir");
        cloud.holds("data/report", b"good");
        cloud.holds("data/log", b"good");
        assert!(cloud.object("data/new").is_none());

        mount.kill9();
        disk.repair();
        mount.remount();
        // What was being written is held, not uploaded: somebody decides, or a program writes it anew.
        let held: Vec<String> = held(&mount).into_iter().map(|(path, _)| path).collect();
        assert_eq!(held, ["/log", "/report"]);
        cloud.holds("data/report", b"good");
        fs::write(mount.path("report"), "better").unwrap();
        fs::write(mount.path("log"), "better").unwrap();
        mount.wait_all();
        cloud.holds("data/report", b"better");
        cloud.holds("data/log", b"better");
        mount.umount();
    });
}

#[test]
fn a_failed_journal_stops_every_change_and_says_so() {
    both(|passthrough| {
        let disk = SmallDisk::new(64, &[]);
        let mut cloud = Cloud::start();
        let mut mount = Mount::new(
            &cloud,
            Options {
                passthrough,
                data: Some(disk.dir().to_owned()),
                write_back: "close = \"disk\"".to_owned(),
                ..Options::default()
            },
        );
        fs::write(mount.path("good"), "good").unwrap();
        mount.wait_all();
        cloud.stop();
        let content = |n: u64| pattern(n, 100_000);
        for n in 0..5 {
            fs::write(mount.path(&format!("f{n}")), content(n)).unwrap();
        }
        fs::create_dir(mount.path("dir")).unwrap();
        fs::rename(mount.path("f4"), mount.path("dir/f4")).unwrap();
        File::open(mount.path("dir")).unwrap().sync_all().unwrap();
        let open = OpenOptions::new().write(true).open(mount.path("good")).unwrap();
        open.write_all_at(b"half", 0).unwrap();

        disk.fail();
        assert_eq!(errno(fs::create_dir(mount.path("lost"))), Some(libc::EIO));
        until("it is told", || mount.status().journal_failure.is_some());
        // Every kind of change; the mount stays where it is, so that nobody writes below it.
        let eio = Some(libc::EIO);
        assert_eq!(errno(fs::write(mount.path("new"), "new")), eio);
        assert_eq!(errno(fs::remove_file(mount.path("f0"))), eio);
        assert_eq!(errno(fs::rename(mount.path("f1"), mount.path("g1"))), eio);
        assert_eq!(errno(OpenOptions::new().write(true).open(mount.path("f2"))), eio);
        assert_eq!(
            errno(fs::set_permissions(mount.path("f2"), std::os::unix::fs::PermissionsExt::from_mode(0o600))),
            eio
        );
        assert_eq!(errno(open.sync_all()), eio);
        assert_eq!(errno(open.write_all_at(b"more", 4)), eio);
        assert_eq!(errno(close(open)), eio, "no close is acknowledged");
        let names = super::harness::names(mount.dir());
        assert_eq!(names.iter().filter(|name| name.starts_with('f')).count(), 4, "{names:?}");
        let shown = Answer::of(mount.run(&["status"], &[]));
        shown.is(0, "");
        assert!(shown.out.contains("JOURNAL") && shown.out.contains("mount again"), "{}", shown.out);
        assert_eq!(Answer::of(mount.run(&["doctor"], &[])).code, Some(1));

        // Nothing goes up that is not on record, also when the store is there again.
        cloud.restart();
        let asked = Answer::of(mount.try_wait("f0", std::time::Duration::from_secs(3)));
        assert_ne!(asked.code, Some(0), "{asked:?}");
        assert_eq!(cloud.keys(), ["data/good"]);
        cloud.holds("data/good", b"good");

        let left = mount.run(&["umount"], &["--timeout", "60s"]);
        mount.wait_for_death();
        assert!(ferryfs::disk::mount_info(mount.dir()).unwrap().is_none(), "{left:?}");
        disk.repair();
        mount.remount();
        for n in 0..4 {
            mount.wait(&format!("f{n}"));
            cloud.holds(&format!("data/f{n}"), &content(n));
        }
        mount.wait("dir");
        cloud.holds("data/dir/f4", &content(4));
        cloud.holds("data/good", b"good");
        let held = held(&mount);
        assert_eq!(held.len(), 1, "{held:?}");
        fs::write(mount.path("good"), "better").unwrap();
        mount.wait_all();
        cloud.holds("data/good", b"better");
        mount.umount();
    });
}
