//! What several processes append, what calls that sync really sync.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::harness::{Mount, Options, pattern};
use super::{both, one, output, program, python};

/// Processes that append records of their own lengths to one file, each by one write(2).
const APPENDERS: &str = r#"
import os, sys
path, writers, records = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
children = []
for writer in range(writers):
    pid = os.fork()
    if pid == 0:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for n in range(records):
            record = f"<{writer}:{n}:{'x' * ((n * 37 + writer) % 700)}>\n".encode()
            assert os.write(fd, record) == len(record)
            if n % 100 == 99:
                # Closed and opened again, while others append.
                os.close(fd)
                fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"#;

fn append(dir: &Path, path: &str, writers: usize, records: usize) {
    output(&mut program(dir, &["python3", "-c", APPENDERS, path, &writers.to_string(), &records.to_string()]));
}

/// Every record is there once, whole, and each process' in order.
#[track_caller]
fn all_appended(text: &[u8], writers: usize, records: usize) {
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    for line in std::str::from_utf8(text).unwrap().lines() {
        let inner =
            line.strip_prefix('<').and_then(|line| line.strip_suffix('>')).unwrap_or_else(|| panic!("torn: {line}"));
        let [writer, n, filler] = inner.split(':').collect::<Vec<_>>()[..] else { panic!("torn: {line}") };
        let (writer, n): (usize, usize) = (writer.parse().unwrap(), n.parse().unwrap());
        let expected = next.entry(writer).or_default();
        assert_eq!(n, *expected, "record of {writer}");
        assert!(filler.len() == (n * 37 + writer) % 700 && filler.bytes().all(|byte| byte == b'x'), "torn: {line}");
        *expected += 1;
    }
    assert_eq!(next, (0..writers).map(|writer| (writer, records)).collect());
}

#[test]
fn no_record_is_lost_or_torn_that_processes_append() {
    both(
        |_| {},
        |cloud, mount| {
            append(mount.dir(), "log", 4, 1500);
            let text = fs::read(mount.path("log")).unwrap();
            all_appended(&text, 4, 1500);
            mount.wait("log");
            cloud.holds("data/log", &text);
            mount.forget_all();
            assert!(fs::read(mount.path("log")).unwrap() == text);
        },
    );
}

#[test]
fn records_are_appended_to_a_large_file_that_is_in_the_bucket_only() {
    both(
        |_| {},
        |cloud, mount| {
            let begin = pattern(5, 20 << 20);
            cloud.put("data/large", &begin);
            append(mount.dir(), "large", 3, 300);
            let all = fs::read(mount.path("large")).unwrap();
            assert!(all.starts_with(&begin));
            all_appended(&all[begin.len()..], 3, 300);
            mount.wait("large");
            cloud.holds("data/large", &all);
        },
    );
}

/// The files that a daemon has synced, as strace(1) sees it.
struct Synced {
    strace: Child,
    log: PathBuf,
}

impl Synced {
    fn watch(mount: &Mount) -> Synced {
        let log = mount.outside("strace");
        let mut strace = Command::new("strace")
            .args(["-f", "-y", "-s", "0", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs", "-o"])
            .arg(&log)
            .args(["-p", &mount.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stderr = strace.stderr.take().unwrap();
        let mut stderr = BufReader::new(stderr);
        stderr.read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "{said}");
        // Nobody reads on: it must not wait for us.
        std::thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = stderr.read_to_end(&mut rest);
        });
        Synced { strace, log }
    }

    fn seen(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        // PID fdatasync(12</path/of/file>) = 0
        log.lines().filter(|line| line.contains(" = 0")).map(str::to_owned).collect()
    }

    /// What was synced from before `act` until it had returned, by the names of files.
    #[track_caller]
    fn during(&self, act: impl FnOnce()) -> Vec<String> {
        let before = self.seen().len();
        act();
        // The call was answered, so its lines are written, or about to be by the tracer.
        let path = |line: &String| {
            line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.to_owned())
        };
        self.seen().iter().skip(before).filter_map(path).collect()
    }
}

impl Drop for Synced {
    fn drop(&mut self) {
        // It lets go of the daemon when it ends; killed outright it would, too.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

const JOURNAL: &str = "-wal";

#[test]
fn fsync_and_synchronous_handles_reach_the_disk_before_they_return() {
    for passthrough in [true, false] {
        eprintln!("passthrough: {passthrough}");
        let options = Options { passthrough, delay: "60s", ..Options::default() };
        one(options, |_, mount| {
            fs::create_dir(mount.path("dir")).unwrap();
            let synced = Synced::watch(mount);
            let of_journal = |paths: &[String]| paths.iter().any(|path| path.ends_with(JOURNAL));
            let of_content = |paths: &[String]| paths.iter().any(|path| !path.contains("journal"));

            let mut file = fs::File::create(mount.path("dir/file")).unwrap();
            file.write_all(b"content").unwrap();
            let paths = synced.during(|| file.sync_all().unwrap());
            assert!(of_content(&paths) && of_journal(&paths), "fsync: {paths:?}");
            file.write_all(b" and more").unwrap();
            let paths = synced.during(|| file.sync_data().unwrap());
            assert!(of_content(&paths), "fdatasync: {paths:?}");

            let dir = fs::File::open(mount.path("dir")).unwrap();
            fs::rename(mount.path("dir/file"), mount.path("dir/renamed")).unwrap();
            let paths = synced.during(|| dir.sync_all().unwrap());
            assert!(of_journal(&paths), "fsync of a directory: {paths:?}");

            for (name, flag) in [("O_SYNC", libc::O_SYNC), ("O_DSYNC", libc::O_DSYNC)] {
                let mut made = None;
                let open = || {
                    fs::OpenOptions::new().write(true).create(true).custom_flags(flag).open(mount.path(name)).unwrap()
                };
                let paths = synced.during(|| made = Some(open()));
                assert!(of_journal(&paths), "the name of what is created with {name}: {paths:?}");
                if !passthrough {
                    // With passthrough the kernel writes and syncs without us.
                    let mut file = made.take().unwrap();
                    let paths = synced.during(|| file.write_all(b"synchronous").unwrap());
                    assert!(of_content(&paths), "a write with {name}: {paths:?}");
                }
            }
            drop(synced);
            drop(file);
        });
    }
}

#[test]
fn synchronous_writes_into_a_file_that_is_partly_here_reach_the_disk_before_they_return() {
    one(Options { delay: "60s", ..Options::default() }, |cloud, mount| {
        cloud.put("data/large", &pattern(6, 40 << 20));
        let mut file =
            fs::OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(mount.path("large")).unwrap();
        let synced = Synced::watch(mount);
        let paths = synced.during(|| file.write_all(&[1; 5000]).unwrap());
        assert!(paths.iter().any(|path| !path.contains("journal")), "content: {paths:?}");
        assert!(paths.iter().any(|path| path.ends_with(JOURNAL)), "what is whose: {paths:?}");
        drop(synced);
        drop(file);
    });
}

#[test]
fn fsync_of_a_name_survives_the_daemon_at_once() {
    both(
        |options| options.delay = "60s",
        |cloud, mount| {
            let names: Vec<String> = (0..5).map(|n| format!("synced {n}")).collect();
            for name in &names {
                let mut file = fs::File::create(mount.path("part")).unwrap();
                file.write_all(name.as_bytes()).unwrap();
                file.sync_all().unwrap();
                drop(file);
                fs::rename(mount.path("part"), mount.path(name)).unwrap();
                fs::File::open(mount.dir()).unwrap().sync_all().unwrap();
            }
            mount.kill9();
            mount.remount();
            for name in &names {
                assert_eq!(fs::read_to_string(mount.path(name)).unwrap(), *name);
            }
            mount.wait_all();
            for name in &names {
                cloud.holds(&format!("data/{name}"), name.as_bytes());
            }
        },
    );
}

#[test]
fn a_nameless_file_is_refused_clearly_and_programs_do_without() {
    both(
        |_| {},
        |cloud, mount| {
            let nameless = fs::OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(mount.dir());
            assert_eq!(super::harness::errno(nameless), Some(libc::EOPNOTSUPP));
            // Python asks for O_TMPFILE first, then makes a name and removes it.
            python(
                mount.dir(),
                "import os, tempfile\n\
                 with tempfile.TemporaryFile(dir='.') as f:\n\
                 \x20   f.write(b'x' * 100000); f.seek(0); assert f.read() == b'x' * 100000\n\
                 \x20   assert os.fstat(f.fileno()).st_nlink == 0\n",
            );
            fs::write(mount.path("other"), "x").unwrap();
            mount.wait_all();
            assert_eq!(cloud.keys(), ["data/other"]);
            assert_eq!(fs::metadata(mount.path("other")).unwrap().nlink(), 1);
        },
    );
}
