//! Programs that save, rewrite and rotate files.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::harness::{Mount, pattern};
use super::{Shown, both, python, settles, sh};

#[test]
fn editors_save_in_place_and_leave_nothing_behind() {
    both(
        |_| {},
        |cloud, mount| {
            let lines: String = (0..500).map(|n| format!("line {n} old\n")).collect();
            for name in ["vim", "vim copies", "sed", "perl"] {
                let path = mount.path(name);
                fs::write(&path, &lines).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            }
            mount.wait_all();
            sh(
                mount.dir(),
                r#"
                vim -es -N -u NONE -i NONE -c 'set writebackup backupcopy=no' -c '%s/old/new/' -c 'wq' vim
                vim -es -N -u NONE -i NONE -c 'set writebackup backupcopy=yes' -c '%s/old/new/' -c 'wq' 'vim copies'
                sed -i 's/old/new/' sed
                perl -i -pe 's/old/new/' perl
                "#,
            );
            let wanted = lines.replace("old", "new");
            for name in ["vim", "vim copies", "sed", "perl"] {
                assert_eq!(fs::read_to_string(mount.path(name)).unwrap(), wanted, "{name}");
            }
            let tree = settles(cloud, mount);
            assert_eq!(tree.keys().collect::<Vec<_>>(), ["perl", "sed", "vim", "vim copies"], "no swap, no backup");
            for (name, shown) in &tree {
                assert!(matches!(shown, Shown::File { mode: 0o640, .. }), "{name}: {shown:?}");
            }
        },
    );
}

/// Rotates by renaming and making anew, and by copying and cutting what a program keeps open.
const ROTATION: &str = r#"
cat > ../rotate.conf <<END
$PWD/made.log { su root root
    rotate 3
    create 0640
    compress
    delaycompress
}
$PWD/kept.log { su root root
    rotate 3
    copytruncate
    compress
}
END
chmod 644 ../rotate.conf
exec 9>>kept.log
for round in 1 2 3; do
    for n in $(seq 200); do echo "made $round $n" >> made.log; echo "kept $round $n" >&9; done
    logrotate -f -s ../rotate.state ../rotate.conf
done
echo last >> made.log; echo last >&9
"#;

#[test]
fn logs_are_rotated_and_no_line_is_lost() {
    both(
        |_| {},
        |cloud, mount| {
            sh(mount.dir(), ROTATION);
            let look = |mount: &Mount| {
                for (log, plain) in [("made", 1), ("kept", 0)] {
                    assert_eq!(fs::read_to_string(mount.path(&format!("{log}.log"))).unwrap(), "last\n", "{log}");
                    for age in 1..=3 {
                        let zip = if age > plain { ".gz" } else { "" };
                        let found = sh(mount.dir(), &format!("zcat -f {log}.log.{age}{zip}"));
                        let wanted: String = (1..=200).map(|n| format!("{log} {} {n}\n", 4 - age)).collect();
                        assert_eq!(found, wanted, "{log}.log.{age}");
                    }
                }
            };
            look(mount);
            let tree = settles(cloud, mount);
            assert_eq!(tree.len(), 8, "{tree:?}");
            look(mount);
        },
    );
}

#[test]
fn dd_writes_into_the_middle_and_cuts_nothing() {
    both(
        |_| {},
        |cloud, mount| {
            let (mut wanted, patch) = (pattern(1, 300_000), pattern(2, 20_480));
            fs::write(mount.path("file"), &wanted).unwrap();
            fs::write(mount.outside("patch"), &patch).unwrap();
            mount.wait("file");
            for seek in [0_usize, 7, 60] {
                sh(mount.dir(), &format!("dd if=../patch of=file bs=4096 seek={seek} conv=notrunc status=none"));
                wanted[seek * 4096..][..patch.len()].copy_from_slice(&patch);
            }
            // Beyond the end, with what it skips as a hole; synced, and through the page cache's back.
            sh(mount.dir(), "dd if=../patch of=file bs=4096 seek=100 conv=notrunc,fsync status=none");
            wanted.resize(100 * 4096, 0);
            wanted.extend(&patch);
            sh(mount.dir(), "dd if=../patch of=file bs=4096 seek=20 conv=notrunc oflag=direct status=none");
            wanted[20 * 4096..][..patch.len()].copy_from_slice(&patch);
            sh(mount.dir(), "dd if=../patch of=file bs=100 count=3 seek=5 conv=notrunc oflag=append,sync status=none");
            wanted.extend(&patch[..300]);
            assert!(fs::read(mount.path("file")).unwrap() == wanted);
            settles(cloud, mount);
            assert!(fs::read(mount.path("file")).unwrap() == wanted);
            sh(mount.dir(), "dd if=file of=../direct bs=4096 iflag=direct status=none");
            assert!(fs::read(mount.outside("direct")).unwrap() == wanted, "read with O_DIRECT");
        },
    );
}

/// Several processes store through mappings of one file, each into its own bytes of every page.
const MAPPINGS: &str = r#"
import mmap, os
PAGES, WRITERS = 64, 4
with open("mapped", "wb") as f:
    f.truncate(PAGES * 4096)
children = []
for writer in range(WRITERS):
    pid = os.fork()
    if pid == 0:
        fd = os.open("mapped", os.O_RDWR)
        memory = mmap.mmap(fd, PAGES * 4096)
        # The mapping outlives its descriptor.
        os.close(fd)
        for page in range(PAGES):
            at = page * 4096 + writer * 1024
            memory[at:at + 1024] = bytes([65 + writer]) * 1024
            if writer == 0:
                memory.flush(page * 4096, 4096)
        if writer != 1:
            memory.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"#;

#[test]
fn stores_through_mappings_of_several_processes_are_all_kept() {
    both(
        |_| {},
        |cloud, mount| {
            python(mount.dir(), MAPPINGS);
            let page: Vec<u8> = (0..4096_usize).map(|at| b'A' + u8::try_from(at / 1024).unwrap()).collect();
            let wanted = page.repeat(64);
            assert!(fs::read(mount.path("mapped")).unwrap() == wanted);
            settles(cloud, mount);
            let mut last = [0; 4096];
            let file = fs::File::open(mount.path("mapped")).unwrap();
            file.read_exact_at(&mut last, 63 * 4096).unwrap();
            assert_eq!(last[..], page[..]);
            cloud.holds("data/mapped", &wanted);
        },
    );
}
