//! Keys that have no path of their own (N2): shown, read, rewritten, renamed, removed, and told of.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;

use ferryfs::emulator::Action;

use super::both;
use super::harness::{Cloud, Mount, names, shown};

/// (key below the prefix, path in the mount)
fn odd() -> Vec<(String, String)> {
    let long = "l".repeat(300);
    let pairs = [
        ("a//b", "a/ferryfs-key=/b"),
        ("/leading", "ferryfs-key=/leading"),
        ("a/./dot", "a/ferryfs-key=./dot"),
        ("a/../dotdot", "a/ferryfs-key=../dotdot"),
        ("a/.", "a/ferryfs-key=ferryfs-key=."),
        ("both", "ferryfs-key=both"),
        // The directory has the shorter name.
        ("content/", "content/ferryfs-key=ferryfs-key="),
        ("content//", "content/ferryfs-key=/ferryfs-key="),
        ("content//x", "content/ferryfs-key=/x"),
        ("control\u{1}\n\t\u{7f}", "control\u{1}\n\t\u{7f}"),
        ("both/inside", "both/inside"),
    ];
    let mut pairs: Vec<(String, String)> = pairs.map(|(key, path)| (key.to_owned(), path.to_owned())).to_vec();
    // 255 less what stands before it and behind it.
    let cut = format!("ferryfs-key={}~", "l".repeat(255 - 12 - 17));
    pairs.push((format!("{long}/{long}"), cut));
    pairs
}

fn fill(cloud: &Cloud) {
    for (key, _) in odd() {
        cloud.put(&format!("data/{key}"), key.as_bytes());
    }
}

/// The file of a pair; of a name with a hash, what is below the only name that begins so.
fn find(mount: &Mount, path: &str) -> std::path::PathBuf {
    if !path.ends_with('~') {
        return mount.path(path);
    }
    let only = |dir: &std::path::Path| {
        let found: Vec<String> = names(dir).into_iter().filter(|name| name.starts_with(path)).collect();
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert!(found[0].len() <= 255, "{found:?}");
        dir.join(&found[0])
    };
    only(&only(mount.dir()))
}

#[test]
fn every_key_has_a_path_and_what_is_done_there_is_done_to_it() {
    both(
        |_| {},
        |cloud, mount| {
            fill(cloud);
            let before = cloud.keys();
            let mut top = names(mount.dir());
            top.retain(|name| name.len() < 200);
            assert_eq!(
                top,
                ["a", "both", "content", "control\u{1}\n\t\u{7f}", "ferryfs-key=", "ferryfs-key=both"],
                "{:?}",
                names(mount.dir())
            );
            for (key, path) in odd() {
                let file = find(mount, &path);
                assert_eq!(fs::read(&file).ok().as_deref(), Some(key.as_bytes()), "{}", file.display());
                // In place, and as programs save: a temporary file renamed over it.
                let mut handle = fs::OpenOptions::new().append(true).open(&file).unwrap();
                handle.write_all(b" and more").unwrap();
                drop(handle);
                mount.wait_all();
                cloud.holds(&format!("data/{key}"), format!("{key} and more").as_bytes());
                let temporary = file.with_file_name("temporary");
                fs::write(&temporary, "saved").unwrap();
                fs::rename(&temporary, &file).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
            }
            mount.wait_all();
            assert_eq!(cloud.keys(), before, "no key but those");
            mount.forget_all();
            for (key, path) in odd() {
                let file = find(mount, &path);
                cloud.holds(&format!("data/{key}"), b"saved");
                assert_eq!(fs::read(&file).unwrap(), b"saved", "{}", file.display());
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
            }
            // Another name makes it another key, and the directory has its own again.
            fs::rename(mount.path("ferryfs-key=both"), mount.path("renamed")).unwrap();
            mount.wait_all();
            assert!(cloud.object("data/both").is_none());
            cloud.holds("data/renamed", b"saved");
            fs::remove_file(mount.path("renamed")).unwrap();
            for name in names(mount.dir()) {
                let path = mount.path(&name);
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
            }
            mount.wait_all();
            assert_eq!(cloud.keys(), [] as [&str; 0]);
            assert_eq!(names(mount.dir()), [] as [&str; 0]);
        },
    );
}

#[test]
fn names_that_look_like_others_are_files_of_their_own() {
    both(
        |options| options.attr_ttl = "0s",
        |cloud, mount| {
            // A program's own file first; then another host makes the key whose name that would be.
            for name in ["ferryfs-key=", "ferryfs-key=x", "ferryfs-key=ferryfs-key=", "ferryfs-key=%00"] {
                fs::write(mount.path(name), name).unwrap();
            }
            mount.wait_all();
            cloud.put("data/x", b"odd");
            cloud.put("data/x/y", b"y");
            let mut own = vec!["ferryfs-key=", "ferryfs-key=%00", "ferryfs-key=ferryfs-key=", "ferryfs-key=x"];
            own.extend(["ferryfs-key=ferryfs-key=x", "x"]);
            own.sort_unstable();
            for _ in 0..2 {
                assert_eq!(names(mount.dir()), own);
                assert_eq!(fs::read(mount.path("ferryfs-key=ferryfs-key=x")).unwrap(), b"odd");
                for name in ["ferryfs-key=", "ferryfs-key=x", "ferryfs-key=ferryfs-key=", "ferryfs-key=%00"] {
                    assert_eq!(fs::read(mount.path(name)).unwrap(), name.as_bytes());
                    cloud.holds(&format!("data/{name}"), name.as_bytes());
                }
                mount.forget_all();
            }
            // When the directory goes, its object has its own name again.
            fs::remove_dir_all(mount.path("x")).unwrap();
            mount.wait_all();
            mount.forget_all();
            assert_eq!(fs::metadata(mount.path("x")).unwrap().is_dir(), cloud.object("data/x/").is_some());
            cloud.holds("data/x", b"odd");
        },
    );
}

#[test]
fn odd_keys_move_with_their_directory_and_outlive_a_kill() {
    both(
        |_| {},
        |cloud, mount| {
            for key in ["d//b", "d/./c", "d/both", "d/both/x", "d/", "d/plain"] {
                cloud.put(&format!("data/{key}"), key.as_bytes());
            }
            assert_eq!(fs::read(mount.path("d/ferryfs-key=both")).unwrap(), b"d/both");
            let file = "ferryfs-key=ferryfs-key=";
            fs::write(mount.path("d").join(file), "rewritten").unwrap();
            mount.kill9();
            mount.remount();
            assert_eq!(fs::read(mount.path("d").join(file)).unwrap(), b"rewritten");
            mount.wait_all();
            cloud.holds("data/d/", b"rewritten");
            fs::rename(mount.path("d"), mount.path("e")).unwrap();
            assert_eq!(fs::read(mount.path("e/ferryfs-key=/b")).unwrap(), b"d//b");
            mount.wait_all();
            for (key, content) in [
                ("e//b", "d//b"),
                ("e/./c", "d/./c"),
                ("e/both", "d/both"),
                ("e/both/x", "d/both/x"),
                ("e/", "rewritten"),
                ("e/plain", "d/plain"),
            ] {
                cloud.holds(&format!("data/{key}"), content.as_bytes());
            }
            assert!(cloud.keys().iter().all(|key| !key.starts_with("data/d/")), "{:?}", cloud.keys());
            // Attributes of a directory whose marker's place is taken last as long as this host's memory.
            fs::set_permissions(mount.path("e"), fs::Permissions::from_mode(0o700)).unwrap();
            mount.wait_all();
            cloud.holds("data/e/", b"rewritten");
        },
    );
}

#[test]
fn doctor_lists_what_has_no_path_of_its_own() {
    both(
        |_| {},
        |cloud, mount| {
            let doctor = |mount: &Mount| {
                let output = mount.run(&["doctor"], &["--json"]);
                assert!(output.status.success(), "{}", shown(&output));
                serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
            };
            cloud.put("data/plain", b"x");
            cloud.put("data/dir/", b"");
            cloud.put("data/dir-1/x", b"x");
            cloud.put("data/a", b"x");
            let report = doctor(mount);
            assert_eq!(report["odd_keys"]["objects"], 4);
            assert_eq!(report["odd_keys"]["count"], 0, "{report}");
            // `data/a` becomes a directory too, with other keys between the two.
            cloud.put("data/a!", b"x");
            cloud.put("data/a-b/c", b"x");
            cloud.put("data/dir", b"x");
            fill(cloud);
            mount.forget_all();
            let report = doctor(mount);
            let keys = report["odd_keys"]["keys"].as_array().unwrap();
            let mut told: Vec<(&str, &str)> =
                keys.iter().map(|odd| (odd["key"].as_str().unwrap(), odd["path"].as_str().unwrap())).collect();
            told.sort_unstable();
            let mut wanted: Vec<String> = odd().into_iter().map(|(key, _)| format!("data/{key}")).collect();
            // These two have paths of their own.
            wanted.retain(|key| key != "data/both/inside" && !key.starts_with("data/control"));
            wanted.extend(["data/a".to_owned(), "data/dir".to_owned()]);
            wanted.sort_unstable();
            assert_eq!(told.iter().map(|(key, _)| *key).collect::<Vec<_>>(), wanted);
            assert_eq!(report["odd_keys"]["count"], wanted.len());
            for (key, path) in told {
                let content = fs::read(mount.path(path.trim_start_matches('/'))).unwrap();
                assert!(cloud.bytes(key).unwrap() == content, "{key} is not at {path}");
            }
            let notes = report["findings"].as_array().unwrap();
            assert!(notes.iter().all(|note| note["problem"] == false), "{report}");
            let output = mount.run(&["doctor"], &[]);
            assert!(
                shown(&output).contains("/ferryfs-key=both  (an object and a directory have this name)"),
                "{}",
                shown(&output)
            );

            // What cannot be asked is a problem, and the command says so by its code.
            let refused = Action::Status { status: 403, code: "AccessDenied".to_owned(), retry_after: None };
            cloud.fault("GET", "list", "*", refused, 100);
            let output = mount.run(&["doctor"], &[]);
            assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
            assert!(shown(&output).contains("PROBLEM: / could not be looked through"), "{}", shown(&output));
            cloud.emulator().clear_faults();
        },
    );
}

#[test]
fn held_content_of_an_odd_key_is_settled_there() {
    both(
        |_| {},
        |cloud, mount| {
            cloud.put("data/both", b"good");
            cloud.put("data/both/inside", b"inside");
            let keys = cloud.keys();
            let path = mount.path("ferryfs-key=both");
            for (verb, wanted) in [("discard", &b"good"[..]), ("accept", b"good, and cut short")] {
                assert_eq!(fs::read(&path).unwrap(), b"good");
                let mut handle = fs::OpenOptions::new().append(true).open(&path).unwrap();
                handle.write_all(b", and cut short").unwrap();
                mount.kill9();
                drop(handle);
                mount.remount();
                assert_eq!(fs::read(&path).unwrap(), b"good, and cut short");
                assert_eq!(mount.status().torn.len(), 1);
                let sure: &[&str] =
                    if verb == "discard" { &["ferryfs-key=both", "--yes"] } else { &["ferryfs-key=both"] };
                let output = mount.run(&["recover", verb], sure);
                assert!(output.status.success(), "{verb}: {}", shown(&output));
                mount.wait_all();
                assert_eq!(fs::read(&path).unwrap(), wanted, "{verb}");
                cloud.holds("data/both", wanted);
                assert_eq!(cloud.keys(), keys, "{verb}");
            }
        },
    );
}
