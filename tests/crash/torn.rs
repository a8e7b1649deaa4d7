//! Half a file never replaces a good one; it is held, shown, and settled by writing it anew.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Cloud, Mapping, Mount, Options, PATIENCE, close, truncate, until};

/// A program and its children, killed if the test ends first.
pub struct Program(Child);

impl Program {
    pub fn shell(mount: &Mount, script: &str) -> Program {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(mount.dir()).process_group(0);
        // A pipe that nobody writes to: what reads it waits.
        shell.stdin(Stdio::piped()).stderr(Stdio::null());
        Program(shell.spawn().unwrap())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        // ESRCH: they have ended already. Not waited for, the number is still theirs.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}

pub fn torn(mount: &Mount) -> Vec<String> {
    mount.status().torn.into_iter().map(|torn| torn.path).collect()
}

/// The good version stays in the bucket while the held one is shown; a rewrite settles it.
fn held_until_rewritten(cloud: &Cloud, mount: &Mount, held: &str) {
    assert_eq!(torn(mount), ["/report"]);
    assert_eq!(fs::read_to_string(mount.path("report")).unwrap(), held);
    let waited = mount.try_wait("", Duration::from_secs(5));
    assert_eq!(waited.status.code(), Some(1), "a held file is something left");
    cloud.holds("data/report", b"good\n");
    assert_eq!(cloud.count("PUT", "data/report"), 1);
    fs::write(mount.path("report"), "anew\n").unwrap();
    mount.wait_all();
    assert_eq!(torn(mount), [""; 0]);
    cloud.holds("data/report", b"anew\n");
}

pub fn good_report(cloud: &Cloud) -> Mount {
    let mount = Mount::new(cloud, Options::default());
    fs::write(mount.path("report"), "good\n").unwrap();
    mount.wait_all();
    mount
}

#[test]
fn a_report_cut_short_leaves_the_good_one_in_the_bucket() {
    for held in ["", "half\n"] {
        let cloud = Cloud::start();
        let mut mount = good_report(&cloud);
        let _writer = Program::shell(&mount, "{ sleep 2; echo half; sleep 60; } > report");
        until("the pause is reached", || fs::read_to_string(mount.path("report")).unwrap() == held);
        mount.kill9();
        mount.remount();
        held_until_rewritten(&cloud, &mount, held);
    }
}

/// The FLUSH of a child that inherited the descriptor looks like that of a close.
#[test]
fn a_child_that_ends_does_not_close_the_file_of_its_parent() {
    let cloud = Cloud::start();
    let mut mount = good_report(&cloud);
    let mut writer = Program::shell(&mount, "{ /bin/echo half; sleep 60; } > report");
    until("the child has written", || fs::read_to_string(mount.path("report")).unwrap() == "half\n");
    until("the child's close is taken back", || mount.status().counters.marks_taken_back == 1);
    mount.kill9();
    writer.kill();
    mount.remount();
    held_until_rewritten(&cloud, &mount, "half\n");
}

#[test]
fn a_new_file_that_was_open_is_shown_and_not_uploaded() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    let mut file = File::create(mount.path("new")).unwrap();
    file.write_all(b"the first half").unwrap();
    mount.kill9();
    mount.remount();
    assert_eq!(torn(&mount), ["/new"]);
    assert_eq!(fs::read(mount.path("new")).unwrap(), b"the first half");
    mount.kill9();
    mount.remount();
    assert_eq!(torn(&mount), ["/new"], "after another start");
    fs::remove_file(mount.path("new")).unwrap();
    mount.wait_all();
    assert_eq!(cloud.keys(), [""; 0]);
    assert_eq!(cloud.announced(), [""; 0]);
}

#[test]
fn a_writer_of_the_dead_mount_changes_nothing_that_is_uploaded() {
    let cloud = Cloud::start();
    let mut mount = good_report(&cloud);
    fs::write(mount.path("closed"), "closed before").unwrap();
    let mut zombie = OpenOptions::new().write(true).open(mount.path("report")).unwrap();
    zombie.write_all(b"half\n").unwrap();
    mount.kill9();
    zombie.write_all(b"and more, unseen\n").unwrap();
    mount.remount();
    let held = fs::read_to_string(mount.path("report")).unwrap();
    assert_eq!(held, "half\nand more, unseen\n");
    zombie.write_all(b"and more, under the new mount\n").unwrap();
    assert_eq!(fs::read_to_string(mount.path("report")).unwrap(), held);
    held_until_rewritten(&cloud, &mount, &held);
    zombie.seek(SeekFrom::Start(0)).unwrap();
    zombie.write_all(b"ghost of a writer").unwrap();
    drop(zombie);
    fs::write(mount.path("after"), "x").unwrap();
    mount.wait_all();
    cloud.holds("data/report", b"anew\n");
    cloud.holds("data/closed", b"closed before");
    mount.forget_cache();
    assert_eq!(fs::read(mount.path("report")).unwrap(), b"anew\n");
}

#[test]
fn a_file_whose_writer_was_killed_is_held() {
    let cloud = Cloud::start();
    let mut mount = good_report(&cloud);
    let mut writer = Program::shell(&mount, "exec 3> report; printf 'half\\n' >&3; read -r never");
    until("half is written", || fs::read_to_string(mount.path("report")).unwrap() == "half\n");
    writer.kill();
    until("it is held", || torn(&mount) == ["/report"]);
    mount.kill9();
    mount.remount();
    held_until_rewritten(&cloud, &mount, "half\n");
}

/// The kernel closes descriptors in the middle of execve, and whoever looks at that thread in /proc
/// then waits for the end of the execve, which waits for the answer to the FLUSH.
#[test]
fn a_program_that_starts_another_with_a_file_open_is_not_stopped() {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options::default());
    // Close-on-exec, as all files of std.
    let mut file = File::create(mount.path("file")).unwrap();
    file.write_all(b"one ").unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    thread::spawn(move || ended.send(Command::new("true").status().unwrap().success()));
    assert_eq!(end.recv_timeout(PATIENCE), Ok(true), "execve hangs");
    file.write_all(b"two").unwrap();
    drop(file);
    mount.wait_all();
    cloud.holds("data/file", b"one two");
}

fn mapped(mount: &Mount, name: &str) -> Mapping {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(mount.path(name)).unwrap();
    file.write_all(&[b'.'; 8192]).unwrap();
    Mapping::new(&file, 8192)
}

#[test]
fn stores_through_a_mapping_after_close_go_up_as_they_end() {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options::default());
    let mapping = mapped(&mount, "mapped");
    let mut expected = vec![b'.'; 8192];
    let started = Instant::now();
    let mut stored = 0;
    // Into one page again and again: of most of these stores no time of the file tells.
    while started.elapsed() < Duration::from_secs(2) {
        let text = format!("store {stored:08}");
        mapping.store(100, text.as_bytes());
        expected[100..100 + text.len()].copy_from_slice(text.as_bytes());
        stored += 1;
        thread::sleep(Duration::from_millis(1));
    }
    assert!(stored > 100);
    assert_eq!(cloud.keys(), [""; 0], "nothing goes up while it can change");
    drop(mapping);
    mount.wait_all();
    cloud.holds("data/mapped", &expected);
    assert_eq!(cloud.count("PUT", "data/mapped"), 1);
    assert_eq!(cloud.announced(), ["data/mapped"]);
}

#[test]
fn a_mapping_of_the_dead_mount_changes_nothing_that_is_uploaded() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options::default());
    let mapping = mapped(&mount, "mapped");
    mapping.store(0, b"before");
    mount.kill9();
    mount.remount();
    assert_eq!(torn(&mount), ["/mapped"], "it could still be changed when the daemon ended");
    mapping.store(0, b"beyond");
    let mut shown = Vec::new();
    File::open(mount.path("mapped")).unwrap().read_to_end(&mut shown).unwrap();
    assert_eq!(&shown[..8], b"before..");
    // Written anew from what is shown, as `recover` would say: the mapping reaches none of it.
    fs::write(mount.path("mapped"), &shown).unwrap();
    mapping.store(0, b"beyond all");
    mount.wait_all();
    cloud.holds("data/mapped", &shown);
}

/// P1: truncate(2) opens, cuts and closes, and so what it acknowledged is closed. Also while the end of an earlier
/// close is still on its way.
#[test]
fn a_file_that_was_cut_by_its_path_is_not_held() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options { delay: "1h", ..Options::default() });
    let mut cut = 0;
    // Each falls between other steps of a file: its making, its close, its cut.
    for commit in 60..72 {
        mount.kill9();
        mount.env = vec![("FERRYFS_FAILPOINT", format!("journal-before-commit:{commit}"))];
        mount.remount();
        let started = Instant::now();
        let mut acknowledged = Vec::new();
        let failed = loop {
            assert!(started.elapsed() < PATIENCE, "the failpoint is never met");
            let name = format!("{commit}-{}", acknowledged.len());
            let path = mount.path(&name);
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(&[7; 5000])?;
                close(file)
            });
            if written.and_then(|()| truncate(&path, 3000)).is_err() {
                break name;
            }
            acknowledged.push(name);
        };
        mount.wait_for_death();
        mount.env.clear();
        mount.remount();
        let held = torn(&mount);
        let expected = format!("/{failed}");
        assert!(held.iter().all(|path| *path == expected), "{held:?} after {acknowledged:?}");
        for name in &acknowledged {
            assert_eq!(fs::read(mount.path(name)).unwrap(), [7; 3000], "{name}");
        }
        if !held.is_empty() {
            fs::remove_file(mount.path(&failed)).unwrap();
        }
        cut += acknowledged.len();
    }
    assert!(cut > 12, "{cut} files are few");
}
