//! Holes, O_DIRECT, and what installers ask of a filesystem.

use std::fs;

use super::{both, python, settles, sh};

/// Sparse files by every way that makes and finds holes. Prints what a disk must answer too.
const SPARSE: &str = r#"
import errno, os
MIB = 1 << 20

def spans(path):
    """Where data is, as SEEK_DATA and SEEK_HOLE tell."""
    fd = os.open(path, os.O_RDONLY)
    size, at, found = os.fstat(fd).st_size, 0, []
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO
            break
        at = os.lseek(fd, data, os.SEEK_HOLE)
        found.append((data, at))
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        try:
            os.lseek(fd, size, whence)
            found.append("no error")
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    os.close(fd)
    return found

fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 16 * MIB)
os.pwrite(fd, b"a" * 8192, 4 * MIB)
os.pwrite(fd, b"b" * 100, 9 * MIB)
os.fsync(fd)
print(spans("sparse"), os.fstat(fd).st_size, os.fstat(fd).st_blocks < 100)
os.close(fd)
os.system("cp --sparse=always sparse copied; tar cSf archive.tar sparse; mkdir out; tar xSf archive.tar -C out")
for name in ["copied", "out/sparse"]:
    with open(name, "rb") as f, open("sparse", "rb") as g:
        assert f.read() == g.read(), name
    print(name, os.stat(name).st_size, spans(name) if name == "copied" else "")
"#;

#[test]
fn sparse_files_have_their_holes_and_come_back_as_zeros() {
    both(
        |_| {},
        |cloud, mount| {
            let below = mount.outside("below");
            fs::create_dir(&below).unwrap();
            let wanted = python(&below, SPARSE);
            assert!(
                wanted.starts_with("[(4194304, 4202496), (9437184, 9441280), 'ENXIO', 'ENXIO'] 16777216 True\ncopied 16777216 [(4194304, "),
                "{wanted}"
            );
            assert_eq!(python(mount.dir(), SPARSE), wanted, "as on the disk below");
            settles(cloud, mount);
            assert!(fs::read(mount.path("sparse")).unwrap() == fs::read(below.join("sparse")).unwrap());
            // Fetched from the bucket it may be all data, or have holes: what is told must be true.
            python(
                mount.dir(),
                "import os\n\
                 fd = os.open('sparse', os.O_RDONLY)\n\
                 at = os.lseek(fd, 0, os.SEEK_DATA)\n\
                 assert at <= 4 << 20, at\n\
                 assert os.lseek(fd, (9 << 20) + 50, os.SEEK_DATA) == (9 << 20) + 50\n",
            );
        },
    );
}

/// Whole pages past the page cache, read and written, mixed with calls that use it.
const DIRECT: &str = r#"
import mmap, os
page = mmap.mmap(-1, 4096)
fd = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
for n in range(40):
    page[:] = bytes([n]) * 4096
    assert os.pwrite(fd, page, n * 4096) == 4096
plain = os.open("direct", os.O_RDWR)
assert os.pread(plain, 10, 7 * 4096 - 5) == bytes([6] * 5 + [7] * 5)
os.pwrite(plain, b"plain", 100)
os.fsync(plain)
assert os.preadv(fd, [page], 0) == 4096
assert page[98:107] == b"\0\0plain\0\0"
page[:] = b"last" * 1024
assert os.pwrite(fd, page, 40 * 4096) == 4096
assert os.fstat(plain).st_size == 41 * 4096
assert os.pread(plain, 4, 40 * 4096) == b"last"
assert os.preadv(fd, [page], 41 * 4096) == 0
"#;

#[test]
fn direct_and_cached_calls_see_each_other() {
    both(
        |_| {},
        |cloud, mount| {
            python(mount.dir(), DIRECT);
            let mut wanted: Vec<u8> = (0..40).flat_map(|n: u8| [n; 4096]).collect();
            wanted[100..105].copy_from_slice(b"plain");
            wanted.extend(b"last".repeat(1024));
            assert!(fs::read(mount.path("direct")).unwrap() == wanted);
            settles(cloud, mount);
            python(
                mount.dir(),
                "import mmap, os\n\
                 page = mmap.mmap(-1, 4096)\n\
                 fd = os.open('direct', os.O_RDONLY | os.O_DIRECT)\n\
                 assert os.preadv(fd, [page], 40 * 4096) == 4096 and page[:4] == b'last'\n",
            );
        },
    );
}

/// What installers, databases and mail servers look at before they write.
const FREE: &str = r#"
import os
found = os.statvfs(".")
assert found.f_namemax == 255, found
assert found.f_bsize >= 512 and found.f_frsize >= 512, found
assert 0 < found.f_bavail <= found.f_bfree <= found.f_blocks, found
assert 0 < found.f_ffree <= found.f_files and 0 < found.f_favail, found
free = found.f_bavail * found.f_frsize
assert free > 1 << 30, free
name = "n" * 255
open(name, "w").close()
os.unlink(name)
"#;

#[test]
fn free_space_and_name_lengths_are_what_installers_accept() {
    both(
        |_| {},
        |_, mount| {
            python(mount.dir(), FREE);
            let df = sh(mount.dir(), "df -P -B1 . | tail -n 1");
            let fields: Vec<&str> = df.split_whitespace().collect();
            let number = |at: usize| fields[at].parse::<u64>().unwrap();
            assert!(number(1) > 0 && number(3) > 0 && number(1) >= number(3), "{df}");
            assert!(df.trim_end().ends_with(mount.dir().to_str().unwrap()), "{df}");
            assert_eq!(sh(mount.dir(), "stat -f -c '%l %T' ."), "255 fuseblk\n");
            let inodes = sh(mount.dir(), "df -P -i . | tail -n 1");
            assert!(inodes.split_whitespace().nth(3).unwrap().parse::<u64>().unwrap() > 1000, "{inodes}");
        },
    );
}
