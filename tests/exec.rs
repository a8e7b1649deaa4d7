//! Programs that start programs while they write. Needs root and /dev/fuse; fails without, rather than
//! passing unseen.

mod harness;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Cloud, Guarded, Mount, Options, PATIENCE};

/// execve(2) closes what is marked close-on-exec, and waits for our answer to each close while the
/// kernel lets nobody look at some of the process's files in /proc: the daemon must not look at those.
#[test]
fn a_program_can_be_started_while_files_are_being_written() {
    let cloud = Cloud::start();
    // Declared first: the mount's end, whatever happens, comes before anything here waits for it.
    let mut children = Vec::new();
    let mut files = Vec::new();
    let mount = Mount::new(&cloud, Options::default());
    files.extend((0..4).map(|n| fs::File::create(mount.path(&format!("log-{n}"))).unwrap()));
    for round in 0..20 {
        for file in &mut files {
            writeln!(file, "round {round}").unwrap();
        }
        // It inherits all four files until it is a shell.
        let child = Command::new("/bin/sh").args(["-c", "exec true"]).stdin(Stdio::null()).spawn().unwrap();
        children.push(Guarded(child));
        let child = &mut children.last_mut().unwrap().0;
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the program hangs in execve");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    drop(files);
    mount.wait_all();
    let text: String = (0..20).map(|round| format!("round {round}\n")).collect();
    for n in 0..4 {
        cloud.holds(&format!("data/log-{n}"), text.as_bytes());
    }
}
