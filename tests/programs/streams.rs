//! Directory streams while entries come and go, and the removal of many files.

use std::fs;
use std::time::Instant;

use super::harness::{Cloud, Mount, Options, names, shown};
use super::{LONG, both, python, sh};

/// readdir(3), telldir(3) and seekdir(3) by themselves; Python's own functions hide them.
const STREAMS: &str = r#"
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)

class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16),
                ("kind", ctypes.c_uint8), ("name", ctypes.c_char * 256)]

libc.opendir.restype = ctypes.c_void_p
libc.readdir64.restype = ctypes.POINTER(Dirent)
libc.telldir.restype = ctypes.c_long
for call, more in [("readdir64", []), ("telldir", []), ("rewinddir", []), ("closedir", []), ("seekdir", [ctypes.c_long])]:
    getattr(libc, call).argtypes = [ctypes.c_void_p] + more

def entry(stream):
    found = libc.readdir64(stream)
    return found.contents.name.decode() if found else None

def rest(stream, each=lambda n: None):
    found = []
    while (name := entry(stream)) is not None:
        found.append(name)
        each(len(found))
    return found

os.mkdir("d")
stays = {f"stays {n}" for n in range(1500)}
goes = {f"goes {n}" for n in range(500)}
for name in stays | goes:
    open("d/" + name, "w").close()

# Entries come, go, are renamed and replaced while the stream is read.
stream = libc.opendir(b"d")
removed, made = sorted(goes), []
def change(n):
    if n % 4 == 0 and removed:
        os.unlink("d/" + removed.pop())
    if n % 5 == 0:
        open(f"d/comes {n}", "w").close()
        made.append(f"comes {n}")
    if n % 7 == 0 and len(made) > 3:
        os.rename("d/" + made.pop(), f"d/renamed {n}")
    if n % 11 == 0:
        open("d/replacing", "w").close()
        os.rename("d/replacing", f"d/stays {n % 1500}")
found = rest(stream, change)
assert len(found) == len(set(found)), "an entry was given twice"
assert stays <= set(found), f"skipped: {sorted(stays - set(found))[:5]}"
# A rewound stream shows the directory as it is now; the stat of every entry answers.
libc.rewinddir(stream)
now = rest(stream)
assert sorted(now) == sorted(os.listdir("d") + [".", ".."])
assert set(now) >= stays and not set(now) & {"replacing"}
for name in now:
    os.lstat("d/" + name)

# Every place that telldir told is found again, in any order.
libc.rewinddir(stream)
places = []
while True:
    place = libc.telldir(stream)
    name = entry(stream)
    if name is None:
        break
    places.append((place, name))
assert [name for _, name in places] == now
for at in list(range(0, len(places), 37))[::-1] + [5, 1999, 0]:
    if at < len(places):
        libc.seekdir(stream, places[at][0])
        assert entry(stream) == places[at][1], at
libc.seekdir(stream, places[700][0])
assert rest(stream) == now[700:]
libc.closedir(stream)

# A directory that is removed while it is read.
os.mkdir("gone")
open("gone/a", "w").close()
stream = libc.opendir(b"gone")
os.unlink("gone/a"); os.rmdir("gone")
assert set(rest(stream)) <= {".", "..", "a"}
libc.closedir(stream)

# rm in the middle of a stream, as find -delete and rm -r do it, ends with nothing.
stream = libc.opendir(b"d")
while (name := entry(stream)) is not None:
    if name not in (".", ".."):
        try:
            os.unlink("d/" + name)
        except FileNotFoundError:
            pass
libc.closedir(stream)
os.rmdir("d")
"#;

#[test]
fn streams_give_no_entry_twice_and_skip_none_that_stays() {
    both(
        |options| options.delay = "60s",
        |cloud, mount| {
            python(mount.dir(), STREAMS);
            mount.wait_all();
            assert_eq!(cloud.keys(), [] as [&str; 0]);
        },
    );
}

#[test]
fn streams_of_a_directory_that_only_the_bucket_knows_are_right() {
    both(
        |_| {},
        |cloud, mount| {
            for n in 0..700 {
                cloud.put(&format!("data/d/stays {n:03}"), b"x");
            }
            // Attributes are unknown to the first listing.
            python(
                mount.dir(),
                "import os\n\
                 found = []\n\
                 with os.scandir('d') as entries:\n\
                 \x20   for n, entry in enumerate(entries):\n\
                 \x20       found.append(entry.name)\n\
                 \x20       entry.stat()\n\
                 \x20       if n % 50 == 0: open(f'd/comes {n}', 'w').close()\n\
                 \x20       if n % 90 == 0: os.unlink('d/' + entry.name)\n\
                 assert len(found) == len(set(found))\n\
                 assert {f'stays {n:03}' for n in range(700)} <= set(found), len(found)\n",
            );
            assert_eq!(names(&mount.path("d")).len(), 700 - 8 + 14);
            mount.wait_all();
            assert_eq!(cloud.keys().len(), 700 - 8 + 14);
        },
    );
}

#[test]
fn a_tree_of_three_thousand_files_is_removed_in_batches() {
    const FILES: usize = 3000;
    const DIRS: usize = 30;
    let cloud = Cloud::start();
    let mut mount = Mount::new(&cloud, Options { delay: "1s", ..Options::default() });
    fs::create_dir(mount.path("tree")).unwrap();
    for dir in 0..DIRS {
        fs::create_dir(mount.path(&format!("tree/{dir}"))).unwrap();
        for n in 0..FILES / DIRS {
            fs::write(mount.path(&format!("tree/{dir}/file {n}")), "x").unwrap();
        }
    }
    fs::write(mount.path("stays"), "x").unwrap();
    let waited = mount.try_wait("", LONG);
    assert!(waited.status.success(), "{}", shown(&waited));
    assert_eq!(cloud.keys().len(), FILES + DIRS + 1 + 1, "files, directories, the tree, what stays");
    let before = cloud.count_by(|_| true);
    let begin = Instant::now();
    sh(mount.dir(), "rm -rf tree");
    let removed = begin.elapsed();
    // Whether it comes before the batch or after it, another host's version is not what was removed.
    cloud.put("data/tree/29/file 7", b"another host's");
    let waited = mount.try_wait("", LONG);
    assert!(waited.status.success(), "{}", shown(&waited));
    assert_eq!(cloud.keys(), ["data/stays", "data/tree/29/file 7"]);
    cloud.holds("data/tree/29/file 7", b"another host's");
    let by = |method: &str| cloud.count_by(|request| request.method == method);
    eprintln!(
        "{FILES} files: rm -rf took {removed:?}, done after {:?}; since the start {} GET, {} HEAD, {} DELETE, {} POST",
        begin.elapsed(),
        by("GET"),
        by("HEAD"),
        by("DELETE"),
        by("POST")
    );
    let requests = cloud.count_by(|_| true) - before;
    assert!(requests < FILES / 10, "{requests} requests");
    mount.forget_all();
    assert_eq!(names(mount.dir()), ["stays", "tree"]);
    assert_eq!(names(&mount.path("tree/29")), ["file 7"]);
    mount.umount();
}
