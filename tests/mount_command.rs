//! The life of a mount by its commands alone, against the emulator. Needs root and /dev/fuse; fails
//! without, rather than passing unseen.

mod harness;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use ferryfs::disk;
use ferryfs::emulator::{Action, Fault, Match};
use harness::{Answer, BINARY, BUCKET, Cloud, LOGS, Mount, Options, SECRET_KEY};

/// A cloud, and a mount that is prepared and not made: its commands are what is tested.
struct Stage {
    cloud: Cloud,
    mount: Mount,
}

impl Stage {
    fn new() -> Stage {
        let cloud = Cloud::start();
        let mount = Mount::prepare(&cloud, &Options::default());
        let stage = Stage { cloud, mount };
        // For the commands that leave the directory to the configuration.
        stage.config("demo.toml", |text| text.replace("[mount]\n", "[mount]\ndir = \"mnt\"\n"));
        stage
    }

    /// Writes a configuration beside the mount's own, changed by `change`.
    fn config(&self, name: &str, change: impl FnOnce(String) -> String) {
        self.mount.write_config(name, &change(self.mount.config_text()));
    }

    fn run(&self, program: &Path, words: &[&str]) -> Answer {
        let mut command = self.mount.command_of(program, words.iter().copied());
        Answer::of(command.current_dir(self.mount.outside("")).output().unwrap())
    }

    fn ferryfs(&self, words: &[&str]) -> Answer {
        self.run(Path::new(BINARY), words)
    }

    fn holds(&self, key: &str, bytes: &[u8]) {
        self.cloud.holds(key, bytes);
    }

    /// SIGKILL of the daemon that the commands started.
    fn kill_daemon(&mut self) {
        self.mount.adopt();
        self.mount.kill9();
    }
}

#[test]
fn a_mount_answers_waits_refuses_while_busy_and_goes() {
    let stage = Stage::new();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    // It answers at once, and is found by other spellings too.
    fs::create_dir(stage.mount.outside("mnt/sub")).unwrap();
    fs::write(stage.mount.outside("mnt/sub/file"), "content").unwrap();
    stage.ferryfs(&["wait", "mnt/", "sub/file"]).is(0, "");
    stage.holds("data/sub/file", b"content");
    stage.ferryfs(&["wait", "./mnt"]).is(0, "");
    assert!(stage.cloud.emulator().oms_events().iter().any(|event| event.key == "data/sub/file"));
    stage.ferryfs(&["wait", "mnt", "sub/absent"]).is(1, "sub/absent");
    let status = stage.mount.status();
    assert_eq!(status.mount, stage.mount.dir().canonicalize().unwrap());
    assert_eq!((status.uploads_files, status.announcements_owed, status.records_owed), (0, 0, 0));
    let shown = stage.ferryfs(&["status", "mnt"]);
    shown.is(0, "");
    assert!(shown.out.contains("running") && shown.out.contains("online"), "{shown:?}");
    assert!(stage.ferryfs(&["outbox", "list", "mnt"]).out.contains("nothing owed"));

    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(1, "is mounted on");
    let open = fs::File::open(stage.mount.outside("mnt/sub/file")).unwrap();
    stage.ferryfs(&["umount", "mnt", "--timeout", "20s"]).is(1, "busy");
    assert_eq!(fs::read(stage.mount.outside("mnt/sub/file")).unwrap(), b"content");
    drop(open);
    stage.ferryfs(&["umount", "mnt", "--timeout", "20s"]).is(0, "");
    assert!(disk::mount_info(stage.mount.dir()).unwrap().is_none());
    stage.ferryfs(&["status", "mnt"]).is(1, "no ferryfs is mounted");

    // At once again: whoever unmounted has waited for the locks. The directory comes from the file.
    stage.ferryfs(&["mount", "--config", "demo.toml"]).is(0, "");
    assert_eq!(fs::read(stage.mount.outside("mnt/sub/file")).unwrap(), b"content");
    stage.ferryfs(&["umount", "mnt"]).is(0, "");
}

#[test]
fn umount_uploads_what_is_left() {
    let stage = Stage::new();
    stage.config("slow.toml", |text| text.replace("delay = \"20ms\"", "delay = \"1h\""));
    stage.ferryfs(&["mount", "--config", "slow.toml", "mnt"]).is(0, "");
    fs::write(stage.mount.outside("mnt/late"), "not yet").unwrap();
    stage.ferryfs(&["umount", "mnt", "--timeout", "60s"]).is(0, "");
    stage.holds("data/late", b"not yet");
    assert!(stage.cloud.emulator().oms_events().iter().any(|event| event.key == "data/late"));
}

#[test]
fn a_killed_daemons_mount_is_told_taken_away_and_mounted_over() {
    let mut stage = Stage::new();
    stage.config("slow.toml", |text| text.replace("delay = \"20ms\"", "delay = \"1h\""));
    stage.ferryfs(&["mount", "--config", "slow.toml", "mnt"]).is(0, "");
    fs::write(stage.mount.outside("mnt/kept"), "kept").unwrap();
    stage.kill_daemon();
    stage.ferryfs(&["status", "mnt"]).is(1, "is gone; run `ferryfs umount");

    // Mounted over the dead one.
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "a daemon that is gone");
    stage.ferryfs(&["wait", "mnt"]).is(0, "");
    stage.holds("data/kept", b"kept");

    stage.kill_daemon();
    let answer = stage.ferryfs(&["umount", "mnt"]);
    answer.is(0, "");
    assert!(answer.out.contains("what was closed is kept"), "{answer:?}");
    assert!(disk::mount_info(stage.mount.dir()).unwrap().is_none());
}

#[test]
fn a_wrong_key_or_bucket_is_told_by_the_command_that_mounts() {
    let stage = Stage::new();
    stage.config("key.toml", |text| text.replace(SECRET_KEY, "x"));
    let answer = stage.ferryfs(&["mount", "--config", "key.toml", "mnt"]);
    for wanted in ["secret_key", "HTTP 403", "SignatureDoesNotMatch", "request id"] {
        answer.is(1, wanted);
    }
    stage.config("bucket.toml", |text| text.replace(BUCKET, "other-1250000000"));
    let answer = stage.ferryfs(&["mount", "--config", "bucket.toml", "mnt"]);
    for wanted in ["other-1250000000", "HTTP 404", "NoSuchBucket", "request id"] {
        answer.is(1, wanted);
    }
    assert!(disk::mount_info(stage.mount.dir()).unwrap().is_none());
}

#[test]
fn a_wrong_region_or_log_bucket_is_told_too() {
    let stage = Stage::new();
    let matching = Match { bucket: Some(BUCKET.to_owned()), ..Match::default() };
    let action = Action::Status { status: 301, code: "PermanentRedirect".to_owned(), retry_after: None };
    stage.cloud.emulator().add_fault(Fault { count: u32::MAX, ..Fault::new(matching, action) });
    let answer = stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]);
    for wanted in [BUCKET, "region", "HTTP 301", "PermanentRedirect", "request id"] {
        answer.is(1, wanted);
    }
    stage.cloud.emulator().clear_faults();

    stage.config("logs.toml", |text| text.replace(LOGS, "elsewhere-1250000000"));
    let answer = stage.ferryfs(&["mount", "--config", "logs.toml", "mnt"]);
    for wanted in ["elsewhere-1250000000", "HTTP 404", "NoSuchBucket", "request id"] {
        answer.is(1, wanted);
    }
    assert!(!answer.err.contains(SECRET_KEY), "{answer:?}");
    assert!(disk::mount_info(stage.mount.dir()).unwrap().is_none());
}

#[test]
fn waiting_ends_in_time_and_says_what_is_left() {
    let stage = Stage::new();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    fs::write(stage.mount.outside("mnt/done"), "done").unwrap();
    stage.ferryfs(&["wait", "mnt", "done"]).is(0, "");
    let matching = Match { method: Some("PUT".to_owned()), bucket: Some(BUCKET.to_owned()), ..Match::default() };
    stage.cloud.emulator().add_fault(Fault { count: u32::MAX, ..Fault::new(matching, Action::Delay(600_000)) });
    fs::write(stage.mount.outside("mnt/slow"), "slow").unwrap();
    for words in [&["wait", "mnt", "--timeout", "300ms"][..], &["wait", "mnt", "slow", "--timeout", "300ms"]] {
        let start = Instant::now();
        let answer = stage.ferryfs(words);
        answer.is(1, "not settled: 1 file (4 B) to upload");
        answer.is(1, "/slow waits for its upload");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
    // What it does not wait for does not keep it.
    stage.ferryfs(&["wait", "mnt", "done", "--timeout", "30s"]).is(0, "");
    // An unmount that runs out of time says what is kept, and keeps it.
    let answer = stage.ferryfs(&["umount", "mnt", "--timeout", "1s"]);
    answer.is(1, "unmounted; kept for the next mount: 1 file (4 B) to upload");
    assert!(disk::mount_info(stage.mount.dir()).unwrap().is_none());
    stage.cloud.emulator().clear_faults();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    stage.ferryfs(&["wait", "mnt"]).is(0, "");
    stage.holds("data/slow", b"slow");
}

/// What nobody has looked at since the start is in the bucket all the same.
#[test]
fn waiting_for_what_another_client_stored_asks_the_bucket() {
    let stage = Stage::new();
    stage.cloud.emulator().put_object(BUCKET, "data/theirs/file", b"theirs").unwrap();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    stage.ferryfs(&["wait", "mnt", "theirs/file"]).is(0, "");
    stage.ferryfs(&["wait", "mnt", "theirs"]).is(0, "");
    stage.ferryfs(&["wait", "mnt", "theirs/other"]).is(1, "there is no /theirs/other here or in the bucket");
    stage.ferryfs(&["wait", "mnt", "theirs/file/below"]).is(1, "there is no /theirs/file/below");
}

#[test]
fn waiting_for_a_torn_file_ends_at_once_and_says_so() {
    // Closed last: a close waits for its daemon or for its end.
    let mut open;
    let mut stage = Stage::new();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    open = fs::File::create(stage.mount.outside("mnt/report")).unwrap();
    open.write_all(b"half").unwrap();
    stage.kill_daemon();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
    // Only now, so that it certainly was being written when the next daemon looked.
    drop(open);
    for words in [&["wait", "mnt"][..], &["wait", "mnt", "report"]] {
        let answer = stage.ferryfs(words);
        answer.is(1, "not settled: 1 stuck");
        answer.is(1, "/report: held");
    }
    let shown = stage.ferryfs(&["status", "mnt"]);
    assert!(shown.out.contains("TORN") && shown.out.contains("/report"), "{shown:?}");
    // Written anew, it is a file like others.
    fs::write(stage.mount.outside("mnt/report"), "whole").unwrap();
    stage.ferryfs(&["wait", "mnt", "report"]).is(0, "");
    stage.holds("data/report", b"whole");
}

#[test]
fn the_helper_mounts_in_the_background() {
    let stage = Stage::new();
    let helper = stage.mount.outside("mount.ferryfs");
    std::os::unix::fs::symlink(BINARY, &helper).unwrap();
    stage.run(&helper, &["demo.toml", "mnt", "-o", "rw,_netdev,nofail,noatime,ro"]).is(0, "");
    let error = fs::write(stage.mount.outside("mnt/x"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    stage.run(&helper, &["demo.toml", "mnt"]).is(32, "is mounted on");
    stage.ferryfs(&["umount", "mnt"]).is(0, "");
    // As mount(8) calls it, and what fails for want of a good bucket is no usage error.
    stage.run(&helper, &["demo.toml", "mnt", "-s", "-v", "-n", "-o", "rw,noauto,user=nobody,x-y=z"]).is(0, "");
    stage.config("bucket.toml", |text| {
        text.replace(BUCKET, "other-1250000000").replace("/state\"", "/state2\"").replace("/cache\"", "/cache2\"")
    });
    fs::create_dir(stage.mount.outside("mnt2")).unwrap();
    let other = stage.run(&helper, &["bucket.toml", "mnt2", "-o", "cache_size=64MiB"]);
    assert!(matches!(other.code, Some(32)) && other.err.contains("NoSuchBucket"), "{other:?}");
    stage.ferryfs(&["umount", "mnt"]).is(0, "");
}

/// mount(8) looks for its helpers in /sbin only: here a /sbin of its own, in a mount namespace that
/// ends with the last process in it.
const BY_MOUNT_8: &str = r#"set -eu
export PATH=/usr/bin:/bin
mount -t tmpfs none /sbin
ln -s "$FERRYFS" /sbin/mount.ferryfs
mount -t ferryfs "$CONFIG" "$DIR" -o rw,_netdev,nofail,x-systemd.automount
echo direct > "$DIR/direct"
findmnt -nr -o SOURCE,FSTYPE "$DIR"
code=0
mount -t ferryfs "$CONFIG" "$DIR" 2>/dev/null || code=$?
echo "again $code"
umount "$DIR"
echo "$CONFIG $DIR ferryfs _netdev,nofail,noatime,delay=10ms,x-systemd.requires=network.target 0 0" > "$FSTAB"
mount -T "$FSTAB" "$DIR"
cat "$DIR/direct"
echo fstab > "$DIR/fstab"
umount "$DIR"
mount -T "$FSTAB" "$DIR"
mount -a -T "$FSTAB"
findmnt -nr -o SOURCE,FSTYPE "$DIR"
"$FERRYFS" umount "$DIR"
mount -a -T "$FSTAB"
cat "$DIR/fstab"
"$FERRYFS" umount "$DIR"
"#;

#[test]
fn mount_8_and_fstab_mount_and_know_what_is_mounted() {
    let stage = Stage::new();
    let config = stage.mount.outside("demo.toml");
    let mut command = stage.mount.command_of(Path::new("unshare"), ["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(BY_MOUNT_8).env("FERRYFS", BINARY).env("CONFIG", &config);
    command.env("DIR", stage.mount.dir()).env("FSTAB", stage.mount.outside("fstab"));
    // The daemon that umount(8) leaves behind is still uploading when the next mount begins.
    let matching = Match { method: Some("PUT".to_owned()), key: Some("data/fstab".to_owned()), ..Match::default() };
    stage.cloud.emulator().add_fault(Fault::new(matching, Action::Delay(2_000)));
    let answer = Answer::of(command.output().unwrap());
    answer.is(0, "");
    stage.cloud.all_faults_met();
    let mounted = format!("{} fuse.ferryfs", config.display());
    let lines = [mounted.as_str(), "again 32", "direct", mounted.as_str(), "fstab"];
    assert_eq!(answer.out.lines().filter(|line| !line.contains("umount")).collect::<Vec<_>>(), lines, "{answer:?}");
    stage.holds("data/direct", b"direct\n");
    stage.holds("data/fstab", b"fstab\n");
}

/// A remount goes by the type that the kernel shows. With libfuse installed mount(8) then runs its
/// `mount.fuse SPEC DIR -o options -t type`, and that `ferryfs SPEC DIR -o options`; without it, the call itself.
const REMOUNTS: &str = r#"set -eu
mount -t tmpfs none /sbin
case $HELPER in
mount.fuse) printf '#!/bin/sh\nexec "%s" "$1" "$2" -o "$4"\n' "$FERRYFS" > /sbin/mount.fuse; chmod 755 /sbin/mount.fuse ;;
mount.fuse.ferryfs) ln -s "$FERRYFS" /sbin/mount.fuse.ferryfs ;;
esac
mount -o remount,ro,noexec "$DIR"
findmnt -nr -o VFS-OPTIONS "$DIR"
mount -o remount,rw "$DIR"
findmnt -nr -o VFS-OPTIONS "$DIR"
echo again > "$DIR/again"
"#;

#[test]
fn mount_8_remounts_whichever_helper_it_finds() {
    for helper in ["none", "mount.fuse", "mount.fuse.ferryfs"] {
        let stage = Stage::new();
        stage.ferryfs(&["mount", "--config", "demo.toml", "mnt"]).is(0, "");
        let mut command =
            stage.mount.command_of(Path::new("unshare"), ["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(REMOUNTS).env("FERRYFS", BINARY).env("DIR", stage.mount.dir()).env("HELPER", helper);
        let answer = Answer::of(command.output().unwrap());
        answer.is(0, "");
        let shown: Vec<_> = answer.out.lines().map(|line| line.split(',').collect::<Vec<_>>()).collect();
        assert_eq!(shown.len(), 2, "{helper}: {answer:?}");
        assert!(shown[0].contains(&"ro") && shown[0].contains(&"noexec"), "{helper}: {answer:?}");
        assert!(shown[1].contains(&"rw"), "{helper}: {answer:?}");
        stage.ferryfs(&["umount", "mnt"]).is(0, "");
        stage.holds("data/again", b"again\n");
    }
    // Not what is no mount of ours.
    let stage = Stage::new();
    stage.ferryfs(&["demo.toml", "mnt", "-o", "remount,ro"]).is(32, "no ferryfs is mounted there");
}

/// A daemon's locks are the last that it gives back: on a busy machine a moment after all else of it is gone.
#[test]
fn a_mount_waits_for_locks_that_are_being_given_back() {
    let stage = Stage::new();
    stage.ferryfs(&["mount", "--config", "demo.toml"]).is(0, "");
    stage.ferryfs(&["umount", "mnt"]).is(0, "");
    let lock = disk::DirLock::acquire(&stage.mount.state_dir()).unwrap();
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| stage.ferryfs(&["mount", "--config", "demo.toml"]));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!mounting.is_finished(), "refused");
        drop(lock);
        mounting.join().unwrap().is(0, "");
    });
    // One that serves another directory is not waited for.
    fs::create_dir(stage.mount.outside("mnt2")).unwrap();
    let begun = Instant::now();
    stage.ferryfs(&["mount", "--config", "demo.toml", "mnt2"]).is(1, "another ferryfs uses");
    assert!(begun.elapsed() < Duration::from_secs(4));
    stage.ferryfs(&["umount", "mnt"]).is(0, "");
}

#[test]
fn the_demo_passes() {
    let stage = Stage::new();
    let answer = stage.ferryfs(&["demo"]);
    answer.is(0, "");
    for wanted in ["/hello.txt", "/large.bin", "/tree/branch-3/leaf.txt", "announced  success", "taken away"] {
        assert!(answer.out.contains(wanted), "{wanted}: {answer:?}");
    }
}
