//! The binary as scripts and people meet it: exit codes, messages, the helper's personality.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferryfs::control;
use harness::{Answer, BINARY, Guarded};

struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Room {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Room { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("FERRYFS_RUN_DIR", self.path("run"));
        for variable in ["COS_SECRET_ID", "COS_SECRET_KEY", "COS_SESSION_TOKEN"] {
            command.env_remove(variable);
        }
        command
    }

    fn ferryfs(&self, words: &[&str]) -> Answer {
        Answer::of(self.command(Path::new(BINARY)).args(words).output().unwrap())
    }
}

const GOOD: &str = "[[mapping]]\npath = \"/\"\nurl = \"cos://a-1/x/\"\nregion = \"ap-guangzhou\"\n\
    secret_id = \"id\"\nsecret_key = \"hush\"\n";

#[test]
fn a_good_configuration_is_shown_without_its_secrets() {
    let room = Room::new();
    room.config("demo.toml", GOOD, 0o600);
    let answer = room.ferryfs(&["config", "check", "demo.toml"]);
    answer.is(0, "");
    assert!(answer.out.contains("demo.toml is good") && answer.out.contains("cos://a-1/x/"), "{answer:?}");
    assert!(!answer.out.contains("hush"), "{answer:?}");
}

#[test]
fn a_bad_configuration_exits_2_with_file_line_and_remedy() {
    let room = Room::new();
    let log_bucket = "[mapping.sync]\nurl = \"https://h/v2/p/sync-tasks/t/events\"\naccess_key = \"a\"\n\
        secret_key = \"hush\"\nrecord = \"cos://a-1/logs/\"\n";
    let second =
        "[[mapping]]\npath = \"/\"\nurl = \"cos://b-1/\"\nregion = \"r\"\nsecret_id = \"i\"\nsecret_key = \"k\"\n";
    for (text, mode, place, remedy) in [
        (format!("{GOOD}colour = 1\n"), 0o600, "bad.toml:7: unknown field `colour`", "expected one of"),
        (format!("{GOOD}[cache]\nsize = \"big\"\n"), 0o600, "bad.toml:8: `big` is not a size", "write it as"),
        (format!("{GOOD}{second}"), 0o600, "bad.toml:8: mapping `/` overlaps", "directory of its own"),
        (format!("{GOOD}{log_bucket}"), 0o600, "bad.toml:11: log bucket `a-1` is a mapped bucket", "bucket of its own"),
        (GOOD.to_owned(), 0o644, "bad.toml:6: bad.toml holds a secret", "chmod 600"),
    ] {
        room.config("bad.toml", &text, mode);
        for words in [&["config", "check", "bad.toml"][..], &["mount", "--config", "bad.toml", "mnt"]] {
            let answer = room.ferryfs(words);
            answer.is(2, place);
            answer.is(2, remedy);
            assert!(!answer.err.contains("hush"), "{answer:?}");
        }
    }
}

#[test]
fn usage_errors_exit_2_and_help_exits_0() {
    let room = Room::new();
    room.ferryfs(&[]).is(2, "Usage");
    room.ferryfs(&["unmount", "mnt"]).is(2, "unrecognized subcommand");
    room.ferryfs(&["mount", "cos://a-1/"]).is(2, "region");
    room.ferryfs(&["mount", "-o", "secret_key=hush", "cos://a-1/", "mnt"]).is(2, "visible to every user");
    room.ferryfs(&["wait", "mnt", "--timeout", "soon"]).is(2, "500ms");
    assert_eq!(room.ferryfs(&["--help"]).code, Some(0));
    assert_eq!(room.ferryfs(&["--version"]).code, Some(0));
}

#[test]
fn a_mount_directory_must_be_one() {
    let room = Room::new();
    room.config("demo.toml", GOOD, 0o600);
    room.ferryfs(&["mount", "--config", "demo.toml", "absent"]).is(1, "mkdir -p");
    room.ferryfs(&["mount", "--config", "demo.toml", "demo.toml"]).is(1, "not a directory");
    room.ferryfs(&["mount", "--config", "demo.toml"]).is(2, "set `dir` in [mount]");
    let inside = format!("{GOOD}[state]\ndir = \"{}\"\n", room.path("mnt/state").display());
    room.config("inside.toml", &inside, 0o600);
    room.ferryfs(&["mount", "--config", "inside.toml", "mnt"]).is(2, "outside the mount");
}

#[test]
fn the_mount_helper_has_the_exit_codes_of_mount() {
    let room = Room::new();
    let helper = room.path("mount.ferryfs");
    std::os::unix::fs::symlink(BINARY, &helper).unwrap();
    room.config("demo.toml", GOOD, 0o600);
    let mount = |words: &[&str]| Answer::of(room.command(&helper).args(words).output().unwrap());
    mount(&["demo.toml"]).is(1, "usage: mount.ferryfs SPEC DIR");
    mount(&["demo.toml", "mnt", "-o", "cashe_size=1"]).is(1, "cache_size");
    mount(&["nowhere", "mnt"]).is(1, "/etc/ferryfs/nowhere.toml");
    mount(&["demo.toml", "absent"]).is(32, "mkdir -p");
    // -f: checked, not mounted; -s: unknown options are somebody else's.
    mount(&["demo.toml", "mnt", "-f", "-s", "-o", "rw,_netdev,nofail,x-systemd.automount,cashe_size=1"]).is(0, "");
}

#[test]
fn where_nothing_is_mounted_every_question_says_so() {
    let room = Room::new();
    for words in [&["status", "mnt"][..], &["wait", "mnt"], &["umount", "mnt"], &["outbox", "list", "mnt"]] {
        room.ferryfs(words).is(1, "no ferryfs is mounted on");
    }
}

#[test]
fn a_daemon_that_is_gone_is_told_and_its_entry_taken_away() {
    let room = Room::new();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let mount = control::mount_path(&room.path("mnt")).unwrap();
    // As a daemon leaves it that was killed: an entry by the name that a live one would use, a socket
    // that nobody answers.
    let state = room.path("state");
    fs::create_dir(&state).unwrap();
    let socket = control::Server::bind(&state).unwrap().path().to_owned();
    fs::create_dir(room.path("run")).unwrap();
    fs::set_permissions(room.path("run"), fs::Permissions::from_mode(0o755)).unwrap();
    let entry = serde_json::json!({ "pid": gone.id(), "socket": socket, "mount": mount });
    let entry_path = room.path("run").join(entry_name(&mount));
    fs::write(&entry_path, entry.to_string()).unwrap();

    room.ferryfs(&["status", "mnt"]).is(1, "is gone; run `ferryfs umount");
    let answer = room.ferryfs(&["umount", "mnt"]);
    answer.is(0, "");
    assert!(answer.out.contains("what was closed is kept"), "{answer:?}");
    assert!(!entry_path.exists());
    room.ferryfs(&["umount", "mnt"]).is(1, "no ferryfs is mounted on");
}

/// The name under which the registry keeps a mount's entry.
fn entry_name(mount: &Path) -> String {
    use sha2::Digest;
    use std::os::unix::ffi::OsStrExt;
    let hash = sha2::Sha256::digest(mount.as_os_str().as_bytes());
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.json")
}

#[test]
fn the_emulator_tells_where_it_is_and_ends_when_asked() {
    let room = Room::new();
    let mut child = Guarded(
        room.command(Path::new(BINARY))
            .args(["emulator", "--root", "objects", "--bucket", "a-1", "--bucket", "logs-1"])
            .args([
                "--credentials",
                "id:key",
                "--oms-credentials",
                "ak:sk",
                "--latency",
                "1ms",
                "--bandwidth",
                "100MiB",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let store = told["store"].as_str().unwrap();
    assert!(store.starts_with("http://127.0.0.1:"), "{line}");
    let oms = told["oms"].as_str().unwrap();
    assert!(oms.starts_with(&format!("{store}/v2/")) && oms.ends_with("/events"), "{line}");
    assert!(oms.parse::<ferryfs::oms::SyncUrl>().is_ok(), "{line}");

    let pid = rustix::process::Pid::from_raw(child.0.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let start = Instant::now();
    let status = loop {
        match child.0.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > Duration::from_secs(30) => panic!("the emulator does not end"),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert!(status.success(), "{status}");
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
