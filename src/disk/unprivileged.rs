//! A thread that may not eat the reserve of root.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// The fsuid of the thread: no user's (`nobody` is 65534), hence neither root nor the owner of a
/// filesystem's reserve (ext4's `resuid`).
const FSUID: libc::uid_t = 65_533;

type Job = Box<dyn FnOnce() + Send>;

/// A thread with a non-root fsuid and without CAP_SYS_RESOURCE, that runs what it is given.
///
/// The kernel writes to a registered backing file with the credentials of the thread that
/// registered it: root's may use the blocks that ext4 reserves, and then the journal dies next.
/// CAP_SYS_ADMIN, which the registration itself needs, stays. It opens files as nobody does:
/// give it descriptors, not paths.
#[derive(Debug)]
pub struct UnprivilegedThread {
    jobs: mpsc::Sender<Job>,
    restricted: bool,
}

impl UnprivilegedThread {
    /// Starts the thread; it ends when the handle is dropped. Where credentials cannot be changed
    /// (not root) it runs with those it has, which have no reserve to eat.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn spawn(name: &str) -> io::Result<UnprivilegedThread> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, restricted) = mpsc::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // The spawner waits for the answer; it is there.
            let _gone = ready.send(restrict().is_ok());
            while let Ok(job) = queue.recv() {
                job();
            }
        })?;
        let restricted = restricted.recv().map_err(|_| io::Error::other("the thread ended at once"))?;
        Ok(UnprivilegedThread { jobs, restricted })
    }

    /// The thread has given up the reserve of root.
    pub fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// Runs `f` on the thread and waits for its value; a panic in `f` continues here.
    ///
    /// Waits for what others run before: give it system calls, not work.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, value) = mpsc::channel::<Result<T, Box<dyn Any + Send>>>();
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(f));
            // The caller waits below.
            let _gone = reply.send(outcome);
        });
        self.jobs.send(job).expect("invariant: the thread lives as long as its handle");
        match value.recv().expect("invariant: every job replies, also one that panics") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Gives up what lets this thread, and only this one, use reserved blocks.
fn restrict() -> io::Result<()> {
    // IMPORTANT: capabilities after the fsuid, which itself takes those over files from the
    // effective set but leaves CAP_SYS_RESOURCE.
    set_fsuid(FSUID)?;
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_RESOURCE);
    Ok(set_capabilities(None, sets)?)
}

/// While it lives, the thread that made it has no right to the reserve; then it has what it had before.
pub(super) struct Spared {
    before: CapabilitySets,
    /// It belongs to the thread.
    _thread: PhantomData<*const ()>,
}

impl Spared {
    /// `None` where credentials cannot be changed (not root): there is no right to give up.
    pub(super) fn begin() -> Option<Spared> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let before = capabilities(None).ok()?;
        let spared = Spared { before, _thread: PhantomData };
        // Half done counts as done: the drop takes back either half.
        restrict().is_ok().then_some(spared)
    }
}

impl Drop for Spared {
    fn drop(&mut self) {
        // IMPORTANT: the fsuid first, which itself gives capabilities back; the set as it was is right
        // whatever it gave.
        if let Err(error) = set_fsuid(0).and_then(|()| Ok(set_capabilities(None, self.before)?)) {
            tracing::error!(%error, "a thread could not take its rights back");
        }
    }
}

fn set_fsuid(uid: libc::uid_t) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe wrapper offers setfsuid")]
    // SAFETY: takes and returns integers; glibc and musl apply it to the calling thread alone.
    unsafe {
        libc::setfsuid(uid);
    }
    // setfsuid reports no errors: it returns the previous fsuid. An invalid one changes nothing.
    #[expect(unsafe_code, reason = "no safe wrapper offers setfsuid")]
    // SAFETY: as above.
    let current = unsafe { libc::setfsuid(libc::uid_t::MAX) };
    if u32::try_from(current) == Ok(uid) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of this thread's status, proc_pid_status(5).
    fn status(name: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    }

    #[test]
    fn only_that_thread_gives_up_the_reserve() {
        let before = (status("Uid:"), status("CapEff:"));
        let thread = UnprivilegedThread::spawn("registrar").unwrap();
        let (uid, effective) = thread.run(|| (status("Uid:"), capabilities(None).unwrap().effective));
        assert_eq!((status("Uid:"), status("CapEff:")), before);
        let own = capabilities(None).unwrap().effective;
        if thread.is_restricted() {
            assert!(uid.ends_with("\t65533"), "{uid}");
            assert!(!effective.contains(CapabilitySet::SYS_RESOURCE));
            assert_eq!(effective.contains(CapabilitySet::SYS_ADMIN), own.contains(CapabilitySet::SYS_ADMIN));
        } else {
            assert!(!own.contains(CapabilitySet::SETUID), "root must be restricted");
        }
    }

    #[test]
    fn rights_come_back() {
        let before = (status("Uid:"), status("CapEff:"));
        match Spared::begin() {
            Some(spared) => {
                assert!(status("Uid:").ends_with("\t65533"));
                assert!(!capabilities(None).unwrap().effective.contains(CapabilitySet::SYS_RESOURCE));
                drop(spared);
            }
            None => assert!(!rustix::process::geteuid().is_root(), "root has a right to give up"),
        }
        assert_eq!((status("Uid:"), status("CapEff:")), before);
    }

    #[test]
    fn values_come_back_and_panics_do_not_end_the_thread() {
        let thread = UnprivilegedThread::spawn("registrar").unwrap();
        assert_eq!(thread.run(|| 6 * 7), 42);
        let panicked = catch_unwind(AssertUnwindSafe(|| thread.run(|| panic!("in the job"))));
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"in the job"));
        assert_eq!(thread.run(|| 43), 43);
    }
}
