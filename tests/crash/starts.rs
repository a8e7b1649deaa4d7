//! Starts: without the network, twice on one state directory, with another mapping.

use std::fs;

use crate::harness::{Cloud, Mount, Options, pattern, shown, until};

/// What is known of directories stays known while the network is away.
fn options() -> Options {
    Options { attr_ttl: "60s", ..Options::default() }
}

#[test]
fn what_was_closed_offline_goes_up_after_a_restart_offline() {
    let mut cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, options());
    fs::write(mount.path("before"), "before").unwrap();
    fs::create_dir(mount.path("dir")).unwrap();
    mount.wait_all();
    cloud.stop();
    let large = pattern(1, 1_500_000);
    fs::write(mount.path("dir/large"), &large).unwrap();
    fs::write(mount.path("before"), "and after").unwrap();
    fs::rename(mount.path("dir/large"), mount.path("dir/renamed")).unwrap();
    mount.kill9();
    mount.remount();
    assert_eq!(fs::read(mount.path("before")).unwrap(), b"and after");
    assert!(fs::read(mount.path("dir/renamed")).unwrap() == large);
    let status = mount.status();
    assert!(status.torn.is_empty(), "{:?}", status.torn);
    assert_eq!(status.uploads_files, 2);
    mount.kill9();
    mount.remount();
    cloud.restart();
    mount.wait_all();
    cloud.holds("data/before", b"and after");
    cloud.holds("data/dir/renamed", &large);
    assert_eq!(cloud.keys(), ["data/before", "data/dir/", "data/dir/renamed"]);
    let announced = cloud.announced();
    assert!(announced.contains(&"data/before".to_owned()) && announced.contains(&"data/dir/renamed".to_owned()));
}

#[test]
fn a_second_daemon_on_one_state_directory_is_refused() {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, options());
    let other = mount.outside("other");
    fs::create_dir(&other).unwrap();
    let mut command = mount.command(["mount", "--config"]);
    let output = command.arg(mount.outside("test.toml")).arg(&other).output().unwrap();
    assert!(!output.status.success(), "{}", shown(&output));
    assert!(ferryfs::disk::mount_info(&other).unwrap().is_none());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("state") && said.contains("ferryfs"), "{said}");
    fs::write(mount.path("file"), "the first goes on").unwrap();
    mount.wait_all();
    cloud.holds("data/file", b"the first goes on");
}

/// What is owed when the daemon ends, and must not be forgotten by a start with another mapping.
fn owing(name: &str, owe: impl FnOnce(&mut Cloud, &Mount)) {
    let mut cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, options());
    fs::write(mount.path("kept"), "kept").unwrap();
    mount.wait_all();
    owe(&mut cloud, &mount);
    mount.kill9();
    mount.configure(&cloud, &Options { mappings: vec![("/", "elsewhere/")], ..options() });
    let output = mount.try_mount();
    assert_eq!(output.status.code(), Some(2), "{name}: {}", shown(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("examplebucket-1250000000/data/") && said.contains("drain"), "{name}: {said}");
    mount.configure(&cloud, &options());
    cloud.stop();
    cloud.restart();
    mount.remount();
    mount.wait_all();
    mount.umount();
    mount.configure(&cloud, &Options { mappings: vec![("/", "elsewhere/")], ..options() });
    mount.remount();
    fs::write(mount.path("new"), "elsewhere").unwrap();
    mount.wait_all();
    cloud.holds("elsewhere/new", b"elsewhere");
}

#[test]
fn another_mapping_is_refused_while_something_is_owed() {
    owing("an upload", |cloud, mount| {
        cloud.stop();
        fs::write(mount.path("kept"), "anew").unwrap();
    });
    owing("a removal", |cloud, mount| {
        cloud.stop();
        fs::remove_file(mount.path("kept")).unwrap();
    });
    owing("a rename", |cloud, mount| {
        cloud.stop();
        fs::rename(mount.path("kept"), mount.path("renamed")).unwrap();
    });
    owing("a link", |cloud, mount| {
        cloud.stop();
        std::os::unix::fs::symlink("kept", mount.path("link")).unwrap();
    });
    owing("a directory", |cloud, mount| {
        cloud.stop();
        fs::create_dir(mount.path("dir")).unwrap();
    });
}

#[test]
fn an_unmount_that_drains_leaves_nothing_owed() {
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options { delay: "10s", ..options() });
    fs::write(mount.path("file"), "drained").unwrap();
    mount.umount();
    cloud.holds("data/file", b"drained");
    until("announced", || cloud.announced() == ["data/file"]);
}
