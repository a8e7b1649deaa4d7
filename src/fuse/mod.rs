//! The kernel's side: decodes FUSE requests, calls [`crate::vfs::Vfs`], encodes its answers.
//!
//! The only room that names fuser and errno. It decides nothing: what a call means is the vfs
//! room's affair, which number an error gets is `errno.rs`'s.
//!
//! # Promise
//! Every request of the kernel reaches the vfs room as it was sent, and is answered once.
//!
//! # Invariants
//! 1. A dispatch thread never waits. Each request becomes a future that owns all it needs and its
//!    reply; the dispatch thread polls it once, which is enough for what is cached, and what is
//!    then pending goes on as a task. Order between dependent requests is kept because the kernel
//!    waits for the reply of the first.
//! 2. Each request is answered exactly once: a future that is dropped or panics answers EIO, and a
//!    panic also ends the mount, loudly.
//! 3. Lookup counts are raised before the reply that hands them to the kernel.
//! 4. ENOSYS is answered only by the calls listed in `adapter.rs`: the kernel would never send
//!    FLUSH, FSYNC or FSYNCDIR again.
//! 5. Invalidations are sent by a thread of their own that no request waits for: the kernel may
//!    hold locks for them that a request in flight holds.
//! 6. A session that ends for any other reason than an unmount aborts the connection first, so that
//!    no program waits for an answer that nobody will give.
//! 7. A request whose program is being killed ends as soon as the vfs room allows it; no other signal
//!    ends one.

mod adapter;
mod answer;
mod callers;
mod decode;
mod directory;
mod errno;
mod init;
mod invalidate;
mod mount;
mod opened;
mod registrar;
mod requests;

pub use mount::{Ended, FSTYPE, MountOptions, Mounted, mount};
