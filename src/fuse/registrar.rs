//! Registers backing files with the kernel (PASSTHROUGH sections 7 and 9).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fuser::BackingId;

use crate::disk;
use crate::disk::UnprivilegedThread;
use crate::vfs::BackingRegistrar;

/// Registers on the session's connection. The ids belong to the connection and end with it.
pub(super) struct Registrar {
    device: Arc<OwnedFd>,
    /// The kernel writes with the credentials of whoever registered: on this thread those of
    /// nobody, so that writers leave root's reserve of blocks alone.
    thread: UnprivilegedThread,
}

impl Registrar {
    /// Works on a descriptor of /dev/fuse whose INIT is done.
    ///
    /// # Errors
    /// No thread could be made.
    pub(super) fn new(device: OwnedFd) -> io::Result<Self> {
        Ok(Registrar { device: Arc::new(device), thread: UnprivilegedThread::spawn("ferryfs-register")? })
    }

    /// Tries one file of the directory whose files are to be registered; `Err` says why not.
    pub(super) fn probe(&self, dir: &Path) -> Result<(), String> {
        let probed = tempfile::tempfile_in(dir).and_then(|file| self.register(file.as_fd()));
        match probed {
            Ok(id) => {
                self.unregister(id);
                Ok(())
            }
            Err(error) => Err(refusal(dir, &error)),
        }
    }
}

impl BackingRegistrar for Registrar {
    fn register(&self, file: BorrowedFd<'_>) -> io::Result<u32> {
        let file = file.try_clone_to_owned()?;
        let device = self.device.clone();
        self.thread.run(move || BackingId::create_raw(&*device, file))
    }

    fn unregister(&self, id: u32) {
        // Nothing can be done about a failure but to say so: the id ends with the connection.
        if let Err(error) = disk::close_backing(self.device.as_fd(), id) {
            tracing::warn!(id, %error, "the kernel did not take a backing id back");
        }
    }
}

/// What a refusal means and what to do.
fn refusal(dir: &Path, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "the kernel refuses it to this process (CAP_SYS_ADMIN is needed)".to_owned(),
        Some(libc::ENOTTY | libc::EINVAL | libc::EOPNOTSUPP) => {
            "the kernel has no FUSE passthrough (Linux 6.9 and later have, with CONFIG_FUSE_PASSTHROUGH)".to_owned()
        }
        Some(libc::ELOOP) => {
            let dir = dir.display();
            format!("the filesystem of {dir} is itself stacked (overlay, FUSE): put the cache on ext4, xfs or btrfs")
        }
        _ => format!("a file in {} could not be registered: {error}", dir.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_fuse_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let device = OwnedFd::from(tempfile::tempfile().unwrap());
        let registrar = Registrar::new(device).unwrap();
        let why = registrar.probe(dir.path()).unwrap_err();
        assert!(why.contains("no FUSE passthrough"), "{why}");
        // Reported, not fatal.
        registrar.unregister(1);
    }

    #[test]
    fn refusals_say_what_to_do() {
        let dir = Path::new("/cache");
        let say = |number| refusal(dir, &io::Error::from_raw_os_error(number));
        assert!(say(libc::EPERM).contains("CAP_SYS_ADMIN"));
        assert!(say(libc::ELOOP).contains("/cache is itself stacked"));
        assert!(say(libc::EMFILE).contains("/cache could not be registered"));
    }
}
