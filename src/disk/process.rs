//! This process, other processes, and the kernel.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::at;

/// A random number that the kernel draws at each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Bit of a task's flags: it is in do_exit() (include/linux/sched.h).
const PF_EXITING: u64 = 0x4;

/// Signals that end a process with a core dump unless it handles them (signal(7)).
const DUMPING: [i32; 10] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGSYS,
];

/// The low bits of a wait status: the signal that ended the process (wait(2)).
const TERM_SIGNAL: i64 = 0x7f;

/// The variable that names another file than [`BOOT_ID`]: tests that cut the power play a reboot with it.
const BOOT_ID_VARIABLE: &str = "FERRYFS_BOOT_ID_FILE";

/// The identity of this boot: differs after a reboot, and only then.
///
/// # Errors
/// As reading a file.
pub fn boot_id() -> io::Result<String> {
    match std::env::var_os(BOOT_ID_VARIABLE) {
        Some(path) => boot_id_from(Path::new(&path)),
        None => boot_id_from(Path::new(BOOT_ID)),
    }
}

/// The same from another file, for tests that play a reboot.
///
/// # Errors
/// As reading a file; `InvalidData` if it is empty.
pub fn boot_id_from(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path).map_err(at("read", path))?;
    match text.trim() {
        "" => Err(at("read", path)(io::Error::new(io::ErrorKind::InvalidData, "no boot id in it"))),
        id => Ok(id.to_owned()),
    }
}

/// Version of the running kernel, as (6, 13).
///
/// # Errors
/// As reading a file; `InvalidData` if it says no version.
pub fn kernel_version() -> io::Result<(u32, u32)> {
    let path = Path::new("/proc/sys/kernel/osrelease");
    let text = fs::read_to_string(path).map_err(at("read", path))?;
    parse_version(&text)
        .ok_or_else(|| at("read", path)(io::Error::new(io::ErrorKind::InvalidData, "no kernel version in it")))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The signal that is ending a thread's process, if it is exiting because of one (C6).
///
/// Meant for a thread that is closing its files, and waits for us in that close: it cannot go away
/// meanwhile. `None` also if there is no such thread (0: the kernel did not say) or it may not be
/// asked; then nothing is known of a signal.
///
/// IMPORTANT: `stat` is only read of a thread that has given its memory up, as exit does before it
/// closes files. In execve a thread closes files, too, and reading its `stat` then waits for the end
/// of the execve, which waits for us.
pub fn killed_by_signal(tid: u32) -> Option<i32> {
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    if has_memory(&status) {
        return None;
    }
    // Text after the name may hold any byte of a program's choice; the numbers are ASCII.
    let stat = fs::read(format!("/proc/{tid}/stat")).ok()?;
    parse_killed(&String::from_utf8_lossy(&stat))
}

/// Whether a thread is ending, or will as soon as it is back from the kernel, because of a signal. One that
/// its program handles or ignores ends nothing. `false` too if nothing is known of the thread (0: the kernel
/// did not say).
///
/// As [`killed_by_signal`] it reads nothing that an execve holds up.
pub fn is_being_killed(tid: u32) -> bool {
    let Ok(status) = fs::read(format!("/proc/{tid}/status")) else { return false };
    has_fatal_signal(&status) || killed_by_signal(tid).is_some()
}

/// The kernel turns a signal that ends the process into a SIGKILL for each of its threads, unless it also
/// asks for a core dump: such a one stays what it is until it is delivered.
fn has_fatal_signal(status: &[u8]) -> bool {
    let signals = |name: &str| number_of(status, name, 16).unwrap_or(0);
    let pending = signals("SigPnd:") | signals("ShdPnd:");
    if pending & bit(libc::SIGKILL) != 0 {
        return true;
    }
    // A debugger may take it away again.
    let traced = number_of(status, "TracerPid:", 10) != Some(0);
    let kept = signals("SigBlk:") | signals("SigIgn:") | signals("SigCgt:");
    let dumping = DUMPING.iter().fold(0, |all, signal| all | bit(*signal));
    !traced && pending & dumping & !kept != 0
}

/// A signal's place in the masks of `/proc/PID/status`.
fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The process that a thread belongs to. `None`: there is no such thread (0: the kernel did not say).
///
/// As [`killed_by_signal`] it reads nothing that an execve holds up.
pub fn process_of(tid: u32) -> Option<u32> {
    parse_process(&fs::read(format!("/proc/{tid}/status")).ok()?)
}

/// Whether a process runs: it has memory, and so may have files open.
pub fn is_running(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/status")).is_ok_and(|status| has_memory(&status))
}

/// The thread group's number in `/proc/PID/status`.
fn parse_process(status: &[u8]) -> Option<u32> {
    u32::try_from(number_of(status, "Tgid:", 10)?).ok()
}

/// The number of a line of `/proc/PID/status`; a name in it cannot hold a line's end.
fn number_of(status: &[u8], name: &str, radix: u32) -> Option<u64> {
    let number = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
    u64::from_str_radix(std::str::from_utf8(number).ok()?.trim(), radix).ok()
}

/// Whether `/proc/PID/status` tells of memory; a name in it cannot hold a line's end.
fn has_memory(status: &[u8]) -> bool {
    status.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"VmSize:"))
}

/// Fields 9 (flags) and 52 (exit_code) of /proc/PID/stat, proc_pid_stat(5).
fn parse_killed(stat: &str) -> Option<i32> {
    // Field 2, the name, is in parentheses and may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace(); // begins with field 3
    let flags: u64 = fields.nth(9 - 3)?.parse().ok()?;
    let exit_code: i64 = fields.nth(52 - 9 - 1)?.parse().ok()?;
    // A process that is merely stopped shows its stop signal in exit_code.
    if flags & PF_EXITING == 0 {
        return None;
    }
    match i32::try_from(exit_code & TERM_SIGNAL) {
        Ok(0) | Err(_) => None,
        Ok(signal) => Some(signal),
    }
}

/// Raises the number of files that the process may have open to what the system allows; returns it.
///
/// # Errors
/// As setrlimit(2).
pub fn raise_nofile_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    // No maximum reads as none.
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Sets the mask of permission bits that new files do not get; returns the previous one.
pub fn umask(mask: u32) -> u32 {
    rustix::process::umask(Mode::from_bits_truncate(mask)).bits()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const KILLED: &str = "123 (a) b (c) Z 1 2 3 0 -1 4212740 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 1 0 0 0 0 0 0 0 0 0 \
                          0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 9\n";

    #[test]
    fn exit_status_is_found_behind_any_name() {
        assert_eq!(4_212_740 & PF_EXITING, PF_EXITING);
        assert_eq!(parse_killed(KILLED), Some(9));
        assert_eq!(parse_killed(&KILLED.replace(" 9\n", " 139\n")), Some(11), "with a core dump");
        assert_eq!(parse_killed(&KILLED.replace(" 9\n", " 256\n")), None, "exit(1)");
        assert_eq!(parse_killed(&KILLED.replace(" 9\n", " 0\n")), None, "exit(0)");
        let stopped = KILLED.replace("4212740", "4194304").replace(" 9\n", " 19\n");
        assert_eq!(parse_killed(&stopped), None, "stopped, not exiting");
        assert_eq!(parse_killed("123 (cut"), None);
        assert_eq!(parse_killed("123 (cut) Z 1 2"), None);
    }

    #[test]
    fn memory_is_seen_of_the_living_only() {
        assert!(has_memory(&fs::read("/proc/self/status").unwrap()));
        assert!(!has_memory(b"Name:\tVmSize:\nState:\tZ (zombie)\n"));
    }

    /// A child that ended and was not waited for: what a thread in its last close looks like.
    fn zombie(script: &str) -> Option<i32> {
        let mut child = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        let signal = killed_by_signal(child.id());
        child.wait().unwrap();
        signal
    }

    #[test]
    fn a_killed_child_tells_its_signal() {
        assert_eq!(zombie("kill -KILL $$"), Some(libc::SIGKILL));
        assert_eq!(zombie("kill -TERM $$"), Some(libc::SIGTERM));
        assert_eq!(zombie("exit 9"), None);
        assert_eq!(killed_by_signal(std::process::id()), None);
        assert_eq!(killed_by_signal(0), None);
    }

    #[test]
    fn only_signals_that_end_a_program_count() {
        let status = |pending: i32, shared: i32, rest: &str| {
            let (pending, shared) = (1_u64 << (pending - 1), 1_u64 << (shared - 1));
            format!("Name:\tShdPnd:\nTracerPid:\t0\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\n{rest}")
        };
        let fatal = |text: String| has_fatal_signal(text.as_bytes());
        let (alarm, quit, kill) = (libc::SIGALRM, libc::SIGQUIT, libc::SIGKILL);
        assert!(!fatal(status(alarm, alarm, "")));
        assert!(fatal(status(kill, alarm, "")) && fatal(status(alarm, kill, "")));
        assert!(fatal(status(alarm, quit, "SigBlk:\t0000000000000000\n")), "a core dump is to come");
        for kept in ["SigBlk", "SigIgn", "SigCgt"] {
            let rest = format!("{kept}:\t{:016x}\n", 1 << (quit - 1));
            assert!(!fatal(status(alarm, quit, &rest)), "{kept}");
        }
        let traced = status(alarm, quit, "").replace("TracerPid:\t0", "TracerPid:\t7");
        assert!(!fatal(traced.clone()) && fatal(traced.replace("0000000000002000", "0000000000000100")));
        assert!(!has_fatal_signal(b""));
        assert!(!is_being_killed(std::process::id()) && !is_being_killed(0));
    }

    #[test]
    fn threads_tell_their_process() {
        let own = std::process::id();
        assert_eq!(process_of(own), Some(own));
        assert!(is_running(own));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let tid = rustix::thread::gettid().as_raw_nonzero().get();
                assert_eq!(process_of(u32::try_from(tid).unwrap()), Some(own));
            });
        });
        assert_eq!(process_of(0), None);
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        while is_running(pid) {
            std::thread::yield_now();
        }
        assert_eq!(process_of(pid), Some(pid), "it ended and was not waited for");
        child.wait().unwrap();
    }

    #[test]
    fn the_kernel_names_itself() {
        assert_eq!(parse_version("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(parse_version("5.10\n"), Some((5, 10)));
        assert_eq!(parse_version("linux"), None);
        assert!(kernel_version().unwrap() >= (3, 0));
        assert_eq!(boot_id().unwrap().len(), 36);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot_id");
        fs::write(&path, "another boot\n").unwrap();
        assert_eq!(boot_id_from(&path).unwrap(), "another boot");
        fs::write(&path, "\n").unwrap();
        assert_eq!(boot_id_from(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_limit_of_files_is_raised() {
        let raised = raise_nofile_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raised);
    }
}
