//! rsync and tar.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::harness::{Options, pattern, shown, until};
use super::{LONG, both, one, program, settles, sh};

/// `count` files in directories of a hundred, with modes, times and links.
fn sow(dir: &Path, count: usize) {
    for n in 0..count {
        let sub = dir.join(format!("dir {}", n / 100));
        if n % 100 == 0 {
            fs::create_dir_all(&sub).unwrap();
            symlink("file 1", sub.join("link")).unwrap();
        }
        let path = sub.join(format!("file {n}"));
        fs::write(&path, pattern(n as u64, n * 7919 % 3000)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode([0o644, 0o600, 0o755][n % 3])).unwrap();
    }
    sh(dir, "find . -type f -name '*7' -exec touch -d '2001-02-03 04:05:06.789012345' {} +");
}

/// What rsync would still change, its checksums compared.
fn differences(source: &Path, target: &Path) -> String {
    let (source, target) = (format!("{}/", source.display()), format!("{}/", target.display()));
    let found = program(Path::new("/"), &["rsync", "-anci", "--delete", &source, &target]).output().unwrap();
    assert!(found.status.success(), "{}", shown(&found));
    String::from_utf8(found.stdout).unwrap()
}

#[test]
fn rsync_copies_and_brings_up_to_date_both_ways() {
    both(
        |_| {},
        |cloud, mount| {
            let source = mount.outside("source");
            fs::create_dir(&source).unwrap();
            sow(&source, 150);
            fs::write(source.join("large"), pattern(9, 3 << 20)).unwrap();
            for how in ["", "--inplace", "--inplace --no-whole-file"] {
                eprintln!("rsync -a {how}");
                let target = mount.path("target");
                sh(&source, &format!("rsync -a --delete {how} ./ '{}'", target.display()));
                assert_eq!(differences(&source, &target), "", "after rsync {how}");
                // For the next round: longer, shorter, changed within, gone, moved, of another kind.
                let old = fs::read(source.join("large")).unwrap();
                fs::write(source.join("large"), [&old[..1 << 20], b"changed", &old[1 << 20..]].concat()).unwrap();
                fs::write(source.join("dir 0/file 3"), "short").unwrap();
                sh(
                    &source,
                    "rm -f 'dir 0/file 4'; [ ! -e 'dir 1' ] || mv 'dir 1' moved; rm -rf 'dir 0/link'; mkdir -p 'dir 0/link'",
                );
            }
            let target = mount.path("target");
            sh(&source, &format!("rsync -a --delete --inplace --no-whole-file ./ '{}'", target.display()));
            settles(cloud, mount);
            until("a host that never saw them has nothing to copy", || differences(&source, &target).is_empty());
        },
    );
}

#[test]
fn a_tree_of_five_thousand_files_comes_back_from_tar_and_bucket() {
    one(Options { delay: "1s", ..Options::default() }, |cloud, mount| {
        let source = mount.outside("source");
        fs::create_dir(&source).unwrap();
        sow(&source, 5000);
        let target = mount.path("target");
        fs::create_dir(&target).unwrap();
        sh(&source, &format!("tar cf '{}' --format=posix .", mount.path("tree.tar").display()));
        sh(&target, "tar xpf ../tree.tar");
        let waited = mount.try_wait("", LONG);
        assert!(waited.status.success(), "{}", shown(&waited));
        assert_eq!(cloud.keys().len(), 5000 + 50 + 50 + 1 + 1, "files, links, directories, the tree and its archive");
        mount.forget_all();
        sh(mount.dir(), "diff -r --no-dereference ../source target; tar df tree.tar -C ../source");
        // Owners, modes, links and times as well.
        let copy = mount.outside("copy");
        fs::create_dir(&copy).unwrap();
        sh(&target, &format!("tar cf - --format=posix . | tar xpf - -C '{}'", copy.display()));
        let list = "find . -printf '%p %m %U %G %T@ %l\\n' | grep -v '^\\. ' | sort";
        assert_eq!(sh(&copy, list), sh(&source, list));
    });
}
