//! A compiler under make(1), and what Python's library does with archives and trees.

use super::{both, python, settles, sh};

const PROJECT: &str = r#"
mkdir project; cd project
for n in $(seq 12); do
    echo "int f$n(int x) { return x + $n; }" > f$n.c
    echo "int f$n(int);" >> all.h
done
{
    echo '#include <stdio.h>'; echo '#include "all.h"'
    echo 'int main(void) { int x = 0;'
    for n in $(seq 12); do echo "x = f$n(x);"; done
    printf '%s\n' 'printf("%d\n", x); return 0; }'
} > main.c
cat > Makefile <<'END'
OBJECTS = main.o $(patsubst %,f%.o,1 2 3 4 5 6 7 8 9 10 11 12)
total: $(OBJECTS) libf.a
	$(CC) -o $@ main.o libf.a
libf.a: $(OBJECTS)
	ar rcs $@ $(filter f%.o,$(OBJECTS))
main.o: all.h
END
make -s -j2
"#;

#[test]
fn a_project_is_built_and_what_is_newer_is_built_again() {
    both(
        |_| {},
        |cloud, mount| {
            sh(mount.dir(), PROJECT);
            let project = mount.path("project");
            assert_eq!(sh(&project, "./total"), "78\n");
            assert!(sh(&project, "make -j2").contains("up to date"), "times are in order");
            let again = sh(&project, "echo 'int f12(int x) { return x + 100; }' > f12.c; make -j2; ./total");
            assert!(again.contains("f12.o") && !again.contains("f11.c"), "{again}");
            assert!(again.ends_with("\n166\n"), "{again}");
            settles(cloud, mount);
            assert_eq!(sh(&project, "./total"), "166\n");
            assert!(sh(&project, "make -j2").contains("up to date"), "times came back as they were");
        },
    );
}

const ARCHIVES: &str = r#"
import hashlib, os, shutil, tempfile, zipfile
os.makedirs("tree/a/b")
for n in range(40):
    with open(f"tree/a/b/{n}.bin", "wb") as f:
        f.write(hashlib.sha256(str(n).encode()).digest() * (n * 40))
os.utime("tree/a/b/7.bin", ns=(10**18, 10**18 + 123456789))
shutil.copytree("tree", "copied")
assert os.stat("copied/a/b/7.bin").st_mtime_ns == 10**18 + 123456789
with zipfile.ZipFile("tree.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for name in sorted(os.listdir("tree/a/b")):
        z.write("tree/a/b/" + name)
# Appending rewrites the directory at the end of the archive, in place.
with zipfile.ZipFile("tree.zip", "a") as z:
    z.writestr("added", "later")
with zipfile.ZipFile("tree.zip") as z:
    assert z.testzip() is None
    assert len(z.namelist()) == 41
    z.extractall("unzipped")
shutil.make_archive("tree", "gztar", "tree")
shutil.unpack_archive("tree.tar.gz", "untarred")
shutil.move("copied", "moved")
shutil.copy2("tree/a/b/7.bin", "single")
for name in os.listdir("tree/a/b"):
    with open("tree/a/b/" + name, "rb") as f:
        content = f.read()
    for other in ["moved/a/b/", "unzipped/tree/a/b/", "untarred/a/b/"]:
        with open(other + name, "rb") as f:
            assert f.read() == content, other + name
assert not os.path.exists("copied")
shutil.rmtree("unzipped")
with tempfile.NamedTemporaryFile(dir=".") as f:
    f.write(b"gone"); f.flush()
with tempfile.TemporaryFile(dir=".") as f:
    f.write(b"never there"); f.seek(0); assert f.read() == b"never there"
"#;

#[test]
fn archives_and_trees_of_python_are_as_they_were_written() {
    both(
        |_| {},
        |cloud, mount| {
            python(mount.dir(), ARCHIVES);
            let tree = settles(cloud, mount);
            let top: Vec<&String> = tree.keys().filter(|path| !path.contains('/')).collect();
            assert_eq!(top, ["moved", "single", "tree", "tree.tar.gz", "tree.zip", "untarred"]);
            python(
                mount.dir(),
                "import zipfile; z = zipfile.ZipFile('tree.zip'); assert z.testzip() is None; \
                 assert z.read('added') == b'later' and len(z.namelist()) == 41",
            );
            assert_eq!(
                sh(mount.dir(), "diff -r tree moved; diff -r tree untarred; stat -c %.9Y single"),
                "1000000000.123456789\n"
            );
        },
    );
}
