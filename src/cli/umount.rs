//! `ferryfs umount`

use std::thread;
use std::time::Duration;

use super::args::UmountArgs;
use super::output::print;
use super::progress::{POLL, Progress, left};
use super::{Failure, process};
use crate::control::{self, Address, Client};
use crate::disk;

/// The daemon has nothing left to do but to close its journal.
const END_TIME: Duration = Duration::from_secs(30);

pub(super) fn run(args: &UmountArgs) -> Result<(), Failure> {
    let client = Client::find(&args.dir)?;
    let address = client.address().clone();
    let asked = thread::spawn({
        let client = client.clone();
        let timeout = args.timeout;
        move || client.umount(timeout)
    });
    let mut progress = Progress::new();
    while !asked.is_finished() {
        // The answer to the question itself tells what went wrong; this is for show.
        if let Ok(pending) = client.pending(None) {
            progress.show(&pending);
        }
        thread::sleep(POLL);
    }
    progress.finish();
    let Ok(result) = asked.join() else { return Err(Failure::reported()) };
    match result {
        Ok(unmounted) => {
            // Until it has ended it holds its directories' locks, and a mount right after would be refused.
            if !process::wait_for_end(address.pid, END_TIME) {
                return Err(Failure::failed(format!("unmounted, but the daemon (pid {}) does not end", address.pid)));
            }
            if unmounted.left.is_settled() {
                return Ok(());
            }
            Err(Failure::failed(format!("unmounted; kept for the next mount: {}", left(&unmounted.left))))
        }
        Err(control::Error::Dead { .. }) => take_away(&address),
        Err(error) => Err(error.into()),
    }
}

/// The daemon is gone: what is left of its mount answers nobody.
fn take_away(address: &Address) -> Result<(), Failure> {
    let failed = |error| Failure::failed(format!("cannot take away the dead mount: {error}"));
    if disk::mount_info(&address.mount).map_err(failed)?.is_some_and(|mount| mount.fstype == crate::fuse::FSTYPE) {
        disk::unmount(&address.mount, true).map_err(failed)?;
    }
    control::forget(address).map_err(failed)?;
    print(&format!(
        "its daemon (pid {}) was gone: the mount is taken away; what was closed is kept and goes up at the next mount\n",
        address.pid
    ))
}
