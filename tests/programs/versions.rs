//! git.

use super::{both, settles, sh};

/// Work that changes, packs and copies a repository; what it prints afterwards.
const WORK: &str = r#"
git init -q -b main repo
cd repo
mkdir -p src/deep doc
for n in $(seq 60); do echo "file $n" > src/deep/f$n.txt; done
ln -s ../src/deep/f1.txt doc/link
printf '#!/bin/sh\necho run\n' > run.sh; chmod +x run.sh
git add .; git commit -qm first
git checkout -q -b topic
for n in $(seq 20); do echo more >> src/deep/f$n.txt; done
git mv src/deep/f60.txt doc/moved.txt; git rm -q src/deep/f59.txt
git commit -qam second
git checkout -q main
echo main >> src/deep/f50.txt; git commit -qam third
git merge -q -m merged topic
git stash list; echo dirty >> run.sh; git stash -q; git stash pop -q; git checkout -q run.sh
git gc -q --prune=now
cd ..
git clone -q repo copy
cd copy; git checkout -q -b work; echo copy > new; git add new; git commit -qm fourth; git push -q origin work
"#;

const LOOK: &str = r#"
for repo in repo copy; do
    git -C $repo fsck --full --strict 2>&1
    git -C $repo status --porcelain
    git -C $repo diff --exit-code
    git -C $repo log --all --format=%T%s | sort
    git -C $repo ls-files -s | sha1sum
done
test "$(sh repo/run.sh)" = run; test "$(cat repo/doc/link)" = "$(printf 'file 1\nmore')"
"#;

#[test]
fn git_works_and_finds_its_objects_again() {
    both(
        |_| {},
        |cloud, mount| {
            let below = mount.outside("below");
            std::fs::create_dir(&below).unwrap();
            sh(&below, WORK);
            let wanted = sh(&below, LOOK);
            assert!(wanted.lines().count() > 10, "{wanted}");
            sh(mount.dir(), WORK);
            assert_eq!(sh(mount.dir(), LOOK), wanted, "as on the disk below");
            let tree = settles(cloud, mount);
            assert!(tree.keys().any(|path| path.ends_with(".pack")), "gc packed nothing");
            assert_eq!(sh(mount.dir(), LOOK), wanted, "by a host that never saw it");
        },
    );
}
