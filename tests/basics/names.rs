//! Names: renames, directories, links, limits.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use ferryfs::emulator::{Action, Fault, Match};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::both;
use super::harness::{BUCKET, Cloud, Mount, Options, errno, names, pattern, until};

#[test]
fn a_rename_moves_the_object_whether_it_was_there_yet_or_not() {
    both(
        |_| {},
        |cloud, mount| {
            // Not yet uploaded, over nothing and over something that is.
            fs::write(mount.path("target"), "old target").unwrap();
            mount.wait("target");
            fs::write(mount.path("new"), "new").unwrap();
            fs::rename(mount.path("new"), mount.path("target")).unwrap();
            assert_eq!(fs::read(mount.path("target")).unwrap(), b"new");
            mount.wait_all();
            assert_eq!(cloud.keys(), ["data/target"]);
            cloud.holds("data/target", b"new");

            // Uploaded: copied by the server.
            let large = pattern(1, 3_000_000);
            fs::write(mount.path("a"), &large).unwrap();
            mount.wait("a");
            fs::rename(mount.path("a"), mount.path("b")).unwrap();
            assert_eq!(errno(fs::metadata(mount.path("a"))), Some(libc::ENOENT));
            mount.wait_all();
            assert_eq!(cloud.keys(), ["data/b", "data/target"]);
            cloud.holds("data/b", &large);
            let sent: u64 = cloud.requests("PUT", "data/b").iter().map(|request| request.request_bytes).sum();
            assert_eq!(sent, 0, "bytes that the bucket had");

            // While it is open for writing: the handle follows.
            let mut file = fs::OpenOptions::new().append(true).open(mount.path("b")).unwrap();
            fs::rename(mount.path("b"), mount.path("c")).unwrap();
            std::io::Write::write_all(&mut file, b"more").unwrap();
            drop(file);
            mount.wait_all();
            let longer = [&large[..], b"more"].concat();
            cloud.holds("data/c", &longer);
            assert_eq!(cloud.keys(), ["data/c", "data/target"]);
            assert_eq!(names(mount.dir()), ["c", "target"]);
            mount.forget_all();
            assert!(fs::read(mount.path("c")).unwrap() == longer);
            let announced = cloud.announced();
            for key in ["data/target", "data/b", "data/c"] {
                assert!(announced.iter().any(|told| told == key), "{key}: {announced:?}");
            }
        },
    );
}

#[test]
fn noreplace_replaces_nothing() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/theirs", b"theirs");
            fs::write(mount.path("a"), "a").unwrap();
            fs::write(mount.path("b"), "b").unwrap();
            let rename = |from: &str, to: &str, flags| renameat_with(CWD, mount.path(from), CWD, mount.path(to), flags);
            for taken in ["b", "theirs"] {
                assert_eq!(rename("a", taken, RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST), "{taken}");
            }
            rename("a", "c", RenameFlags::NOREPLACE).unwrap();
            assert_eq!(rename("b", "none", RenameFlags::EXCHANGE), Err(rustix::io::Errno::NOENT));
            assert_eq!(rename("b", "c", RenameFlags::WHITEOUT), Err(rustix::io::Errno::INVAL));
            mount.wait_all();
            assert_eq!(cloud.keys(), ["data/b", "data/c", "data/theirs"]);
            cloud.holds("data/theirs", b"theirs");
        },
    );
}

#[test]
fn a_directory_moves_with_all_that_is_in_it() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/dir/theirs", b"theirs");
            cloud.put("data/dir/deep/er/theirs", b"deep");
            fs::write(mount.path("dir/stored"), "stored").unwrap();
            fs::create_dir(mount.path("dir/empty")).unwrap();
            mount.wait_all();
            fs::write(mount.path("dir/fresh"), "fresh").unwrap();
            let writer = fs::File::create(mount.path("dir/deep/open")).unwrap();
            fs::rename(mount.path("dir"), mount.path("moved")).unwrap();
            assert_eq!(names(&mount.path("moved")), ["deep", "empty", "fresh", "stored", "theirs"]);
            assert_eq!(errno(fs::metadata(mount.path("dir"))), Some(libc::ENOENT));
            assert_eq!(errno(fs::metadata(mount.path("dir/stored"))), Some(libc::ENOENT));
            std::io::Write::write_all(&mut &writer, b"written after the move").unwrap();
            drop(writer);
            assert_eq!(fs::read(mount.path("moved/deep/er/theirs")).unwrap(), b"deep");
            mount.wait_all();
            let objects: Vec<String> = cloud.keys().into_iter().filter(|key| !key.ends_with('/')).collect();
            assert_eq!(
                objects,
                [
                    "data/moved/deep/er/theirs",
                    "data/moved/deep/open",
                    "data/moved/fresh",
                    "data/moved/stored",
                    "data/moved/theirs"
                ]
            );
            assert!(!cloud.keys().iter().any(|key| key.starts_with("data/dir/")), "{:?}", cloud.keys());
            cloud.holds("data/moved/fresh", b"fresh");
            cloud.holds("data/moved/deep/open", b"written after the move");
            assert!(cloud.object("data/moved/empty/").is_some());

            // Over an empty directory, not over a full one, not into itself, not over a file.
            fs::create_dir(mount.path("empty")).unwrap();
            fs::rename(mount.path("moved"), mount.path("empty")).unwrap();
            fs::create_dir(mount.path("again")).unwrap();
            assert_eq!(errno(fs::rename(mount.path("again"), mount.path("empty"))), Some(libc::ENOTEMPTY));
            assert_eq!(errno(fs::rename(mount.path("empty"), mount.path("empty/deep/x"))), Some(libc::EINVAL));
            fs::write(mount.path("file"), "").unwrap();
            assert_eq!(errno(fs::rename(mount.path("again"), mount.path("file"))), Some(libc::ENOTDIR));
            assert_eq!(errno(fs::rename(mount.path("file"), mount.path("again"))), Some(libc::EISDIR));
            mount.wait_all();
            mount.forget_all();
            assert_eq!(names(&mount.path("empty")), ["deep", "empty", "fresh", "stored", "theirs"]);
            assert_eq!(fs::read(mount.path("empty/deep/open")).unwrap(), b"written after the move");
        },
    );
}

#[test]
fn directories_are_markers_or_prefixes() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/implicit/deep/file", b"x");
            cloud.put("data/marked/", b"");
            assert_eq!(names(mount.dir()), ["implicit", "marked"]);
            assert_eq!(names(&mount.path("implicit")), ["deep"]);
            assert_eq!(names(&mount.path("marked")), [] as [&str; 0]);
            assert!(fs::metadata(mount.path("marked")).unwrap().is_dir());
            assert_eq!(errno(fs::remove_dir(mount.path("implicit"))), Some(libc::ENOTEMPTY));

            fs::create_dir(mount.path("made")).unwrap();
            assert_eq!(errno(fs::create_dir(mount.path("implicit"))), Some(libc::EEXIST));
            mount.wait_all();
            let marker = cloud.object("data/made/").expect("mkdir puts a marker (N1)");
            assert_eq!((marker.size(), marker.metadata()["mode"].as_str()), (0, "16877"));
            assert!(cloud.announced().contains(&"data/made/".to_owned()));

            // Its last child gone, a directory without a marker stays all the same.
            fs::remove_file(mount.path("implicit/deep/file")).unwrap();
            assert_eq!(names(&mount.path("implicit")), ["deep"]);
            mount.wait_all();
            assert_eq!(cloud.keys(), ["data/implicit/deep/", "data/made/", "data/marked/"]);
            mount.forget_all();
            assert_eq!(names(&mount.path("implicit/deep")), [] as [&str; 0]);

            // rmdir asks the store: what another client put there meanwhile keeps it.
            assert_eq!(names(&mount.path("made")), [] as [&str; 0]);
            cloud.put("data/made/theirs", b"x");
            assert_eq!(errno(fs::remove_dir(mount.path("made"))), Some(libc::ENOTEMPTY));
            fs::remove_file(mount.path("made/theirs")).unwrap();
            fs::remove_dir(mount.path("made")).unwrap();
            fs::remove_dir(mount.path("marked")).unwrap();
            fs::remove_dir_all(mount.path("implicit")).unwrap();
            mount.wait_all();
            assert_eq!(cloud.keys(), [] as [&str; 0]);
        },
    );
}

/// The marker, or file, arrives between the looks at its directory and at the one above; that it did is not
/// known yet when that one goes.
#[test]
fn what_is_still_on_its_way_keeps_no_directory() {
    let cloud = Cloud::start();
    let mount = Mount::new(&cloud, Options { attr_ttl: "100ms", ..Options::default() });
    for (name, key) in [("marked", "data/marked/b/"), ("filled", "data/filled/b")] {
        let is_dir = key.ends_with('/');
        fs::create_dir(mount.path(name)).unwrap();
        mount.wait_all();
        let object = |method: &str| Match {
            method: Some(method.to_owned()),
            bucket: Some(BUCKET.to_owned()),
            key: Some(key.to_owned()),
            sub_resource: Some("object".to_owned()),
        };
        let late = Fault { apply_after_ms: Some(1_000), ..Fault::new(object("PUT"), Action::ApplyThenCut) };
        cloud.emulator().add_fault(late);
        cloud.emulator().add_fault(Fault { count: 4, ..Fault::new(object("HEAD"), Action::Delay(2_500)) });
        let child = mount.path(name).join("b");
        if is_dir {
            fs::create_dir(&child).unwrap();
        } else {
            fs::write(&child, "removed").unwrap();
        }
        until("it is on its way", || cloud.emulator().faults().iter().all(|fault| fault.matching != object("PUT")));
        if is_dir {
            fs::remove_dir(&child).unwrap()
        } else {
            fs::remove_file(&child).unwrap()
        }
        until("it has arrived", || cloud.keys().contains(&key.to_owned()));
        fs::remove_dir(mount.path(name)).unwrap();
        cloud.emulator().clear_faults();
        until("what arrived in vain is deleted", || cloud.keys().is_empty());
    }
}

#[test]
fn a_long_listing_is_whole() {
    both(
        |_| {},
        |cloud, mount| {
            let mut wanted: Vec<String> = (0..2500).map(|n| format!("object-{n:05}")).collect();
            for name in &wanted {
                cloud.put(&format!("data/many/{name}"), name.as_bytes());
            }
            cloud.put("data/many/object-00100/below", b"x");
            // N2: the directory has the name, the object another one.
            wanted.insert(0, "ferryfs-key=object-00100".to_owned());
            assert_eq!(names(&mount.path("many")), wanted);
            assert_eq!(fs::read(mount.path("many/ferryfs-key=object-00100")).unwrap(), b"object-00100");
            assert!(fs::metadata(mount.path("many/object-00100")).unwrap().is_dir());
            assert_eq!(fs::read(mount.path("many/object-02499")).unwrap(), b"object-02499");
            assert_eq!(errno(fs::metadata(mount.path("many/object-02500"))), Some(libc::ENOENT));
            fs::write(mount.path("many/object-01000a"), "ours").unwrap();
            fs::remove_file(mount.path("many/object-02000")).unwrap();
            wanted.insert(1002, "object-01000a".to_owned());
            wanted.retain(|name| name != "object-02000");
            assert_eq!(names(&mount.path("many")), wanted);
            mount.wait_all();
            assert_eq!(names(&mount.path("many")), wanted);
            let lists = cloud.count_by(|request| request.sub_resource.iter().any(|name| name == "list"));
            assert!(lists >= 3, "three pages at 1,000 keys each, {lists} requests");
            mount.forget_all();
            assert_eq!(names(&mount.path("many")), wanted);
        },
    );
}

#[test]
fn links_and_odd_names() {
    both(
        |_| {},
        |cloud, mount| {
            fs::write(mount.path("file"), "content").unwrap();
            symlink("file", mount.path("link")).unwrap();
            symlink("nowhere/at all", mount.path("broken")).unwrap();
            for name in ["a b+c%20~*(", "\u{4e2d}\u{6587}", "new\nline", "-dash", "\"quoted\"", "back\\slash", "dot."] {
                fs::write(mount.path(name), name).unwrap();
                mount.wait(name);
                cloud.holds(&format!("data/{name}"), name.as_bytes());
            }
            mount.wait_all();
            mount.forget_all();
            assert_eq!(fs::read_link(mount.path("link")).unwrap(), Path::new("file"));
            assert_eq!(fs::read_link(mount.path("broken")).unwrap(), Path::new("nowhere/at all"));
            assert!(fs::symlink_metadata(mount.path("link")).unwrap().is_symlink());
            assert_eq!(fs::read(mount.path("link")).unwrap(), b"content");
            assert_eq!(fs::read(mount.path("\u{4e2d}\u{6587}")).unwrap(), "\u{4e2d}\u{6587}".as_bytes());

            // Names that cannot be keys are refused here, not at the upload.
            let long = "n".repeat(255);
            fs::write(mount.path(&long), "").unwrap();
            assert_eq!(errno(fs::write(mount.path(&format!("{long}n")), "")), Some(libc::ENAMETOOLONG));
            let deep = mount.path(&format!("{}d/{long}/{long}", &long[1..]));
            fs::create_dir_all(&deep).unwrap();
            assert_eq!(errno(fs::write(deep.join(&long), "")), Some(libc::ENAMETOOLONG), "a key of 1,028 bytes");
            assert_eq!(errno(fs::create_dir(deep.join(&long))), Some(libc::ENAMETOOLONG));
            let latin = mount.dir().join(OsStr::from_bytes(b"caf\xe9"));
            assert_eq!(errno(fs::write(&latin, "")), Some(libc::EILSEQ));
            assert_eq!(errno(fs::create_dir(&latin)), Some(libc::EILSEQ));
            assert_eq!(errno(fs::metadata(&latin)), Some(libc::ENOENT));

            assert_eq!(errno(fs::hard_link(mount.path("file"), mount.path("hard"))), Some(libc::EPERM));
            assert_eq!(errno(fs::read_dir(mount.path("file"))), Some(libc::ENOTDIR));
            assert_eq!(errno(fs::remove_dir(mount.path("file"))), Some(libc::ENOTDIR));
            assert_eq!(errno(fs::remove_file(&deep)), Some(libc::EISDIR));
            assert_eq!(errno(fs::write(mount.path("file/x"), "")), Some(libc::ENOTDIR));
            mount.wait_all();
            assert!(!mount.status().failed.iter().any(|problem| !problem.path.is_empty()));
        },
    );
}

#[test]
fn space_looks_unlimited() {
    both(
        |_| {},
        |_, mount| {
            let space = rustix::fs::statvfs(mount.dir()).unwrap();
            assert!(space.f_bavail * space.f_frsize >= 1 << 40, "installers ask before they write");
            assert_eq!(space.f_namemax, 255);
            assert!(space.f_ffree > 1 << 30);
        },
    );
}
