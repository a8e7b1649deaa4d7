//! Tells the kernel what to forget.

use std::ffi::OsStr;
use std::io;

use fuser::{INodeNo, Notifier};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use crate::fuse::mount::Ended;
use crate::vfs::Invalidation;

/// Sends invalidations until the session has ended or nobody can order one. To be run on a thread
/// of its own: the kernel may make each wait for a request that is under way.
pub(super) fn run(
    runtime: &Handle,
    notifier: &Notifier,
    mut orders: UnboundedReceiver<Invalidation>,
    mut ended: watch::Receiver<Option<Ended>>,
) {
    loop {
        let order = runtime.block_on(async {
            tokio::select! {
                order = orders.recv() => order,
                // An error: the session's thread is gone, which is an end too.
                _ = ended.wait_for(Option::is_some) => None,
            }
        });
        let Some(order) = order else { return };
        if let Err(error) = send(notifier, &order) {
            if disconnected(&error) {
                return;
            }
            // The kernel believes what it has until its time to live is over, not longer.
            tracing::warn!(?order, %error, "the kernel did not take an invalidation");
        }
    }
}

fn send(notifier: &Notifier, order: &Invalidation) -> io::Result<()> {
    match order {
        // From offset 0, length 0: all pages, and the attributes.
        Invalidation::Inode(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        Invalidation::Entry(parent, name) => notifier.inval_entry(INodeNo(parent.0), OsStr::new(name)),
        Invalidation::Told(told) => {
            // Nobody waits any more.
            let _gone = told.send(());
            Ok(())
        }
    }
}

/// The connection is over.
fn disconnected(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ECONNABORTED))
}
