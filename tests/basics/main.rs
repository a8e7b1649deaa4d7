//! What programs do with files, through the real binary; every test once with the kernel's
//! passthrough and once without.

#[path = "../harness/mod.rs"]
mod harness;

mod attributes;
mod cache;
mod content;
mod copies;
mod exchange;
mod handles;
mod hosts;
mod interrupts;
mod kinds;
mod names;
mod odd_keys;
mod options;
mod others;
mod partly;
mod peers;
mod remote;
mod snapshots;
mod store_copies;
mod ttls;

use harness::{Cloud, Mount, Options};

/// A test as it is with and without passthrough.
fn both(change: impl Fn(&mut Options), test: impl Fn(&Cloud, &mut Mount)) {
    for passthrough in [true, false] {
        eprintln!("passthrough: {passthrough}");
        let cloud = Cloud::start();
        let mut options = Options { passthrough, ..Options::default() };
        change(&mut options);
        let mut mount = Mount::new(&cloud, options);
        test(&cloud, &mut mount);
        assert_eq!(mount.status().journal_failure, None);
        mount.umount();
    }
}
