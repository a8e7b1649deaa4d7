//! What is asked of the kernel at INIT (DESIGN C8).

use fuser::{InitFlags, KernelConfig};

/// Largest write and read request, bytes: measured up to a quarter faster in server mode than the
/// kernel's 128 KiB, and the most that FUSE_MAX_PAGES allows without a sysctl.
const MAX_REQUEST_BYTES: u32 = 1 << 20;

/// Requests that the kernel queues in the background: read-ahead, direct I/O of AIO, and every
/// RELEASE. Its own 12 are soon taken by reads that wait for the store, and all closes behind them.
const MAX_BACKGROUND: u16 = 128;

/// Wanted, each where the kernel offers it.
const WANTED: [InitFlags; 10] = [
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// What came of INIT.
#[derive(Clone, Debug)]
pub(super) struct Negotiated {
    /// The kernel will take backing files, as far as INIT tells.
    pub(super) passthrough: Result<(), &'static str>,
}

/// Asks for what is wanted; what the kernel does not offer is done without. WRITEBACK_CACHE is not
/// among it (it turns passthrough off and hides mtimes), nor NO_OPEN_SUPPORT (no open, no backing
/// id), nor POSIX_ACL (object headers have no place for them), nor remote locks (locks are local).
pub(super) fn negotiate(config: &mut KernelConfig, want_passthrough: bool) -> Negotiated {
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(capability = ?flag, "the kernel does not offer a capability; going on without");
        }
    }
    if let Err(nearest) = config.set_max_write(MAX_REQUEST_BYTES) {
        tracing::debug!(nearest, "the kernel refuses this size of write requests");
    }
    // The kernel takes the smaller of this and its own limit (128 KiB unless raised by sysfs),
    // which is what it offers.
    if let Err(offered) = config.set_max_readahead(MAX_REQUEST_BYTES)
        && let Err(nearest) = config.set_max_readahead(offered)
    {
        tracing::debug!(nearest, "the kernel refuses its own read-ahead");
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        tracing::debug!(nearest, "the kernel refuses this number of background requests");
    }
    Negotiated { passthrough: passthrough(config, want_passthrough) }
}

/// Depth 1: with 2 no overlay filesystem (a container's) could be mounted above ours.
fn passthrough(config: &mut KernelConfig, wanted: bool) -> Result<(), &'static str> {
    if !wanted {
        return Err("switched off by configuration");
    }
    if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_err() {
        return Err("the kernel does not offer it (Linux 6.9 and later do)");
    }
    config.set_max_stack_depth(1).map(|_| ()).map_err(|_| "the kernel allows no stacked filesystem")
}
