//! What programs do with files, through the real binary, with the kernel's passthrough and without.

mod harness;

use std::fs;

use harness::{Cloud, Mount, Options};

fn both(test: impl Fn(&Cloud, Mount)) {
    for passthrough in [true, false] {
        let cloud = Cloud::start();
        let mount = Mount::new(&cloud, Options { passthrough, ..Options::default() });
        test(&cloud, mount);
    }
}

#[test]
fn a_file_is_stored_announced_and_read_back() {
    both(|cloud, mut mount| {
        fs::write(mount.path("a"), "hello").unwrap();
        mount.wait("a");
        cloud.holds("data/a", b"hello");
        assert_eq!(cloud.announced(), ["data/a"]);
        assert_eq!(cloud.recorded("success_object"), ["data/a"]);
        assert_eq!(cloud.recorded("failed_object"), [] as [String; 0]);
        mount.kill9();
        mount.remount();
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"hello");
        mount.forget_all();
        assert_eq!(fs::read(mount.path("a")).unwrap(), b"hello");
        mount.umount();
    });
}
