//! Whether a process that was asked to end has ended.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Whether `pid` still runs. A zombie has ended: its files and locks are gone.
fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // `pid (name) state ...`, proc_pid_stat(5); the name may hold anything, also `)`.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// Waits until `pid` has ended; whether it has.
pub(super) fn wait_for_end(pid: u32, timeout: Duration) -> bool {
    let start = Instant::now();
    while is_running(pid) {
        if start.elapsed() >= timeout {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // Not reaped yet: it stays in /proc as a zombie.
        assert!(wait_for_end(child.id(), Duration::from_secs(20)));
        child.wait().unwrap();
        assert!(!wait_for_end(std::process::id(), Duration::ZERO));
    }
}
