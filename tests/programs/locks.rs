//! Locks between processes of one host. The same program runs on the disk below first: what it prints
//! there is what it must print on the mount.

use super::{both, python};

const LOCKS: &str = r#"
import errno, fcntl, os, signal, struct

F_OFD_SETLK, F_OFD_SETLKW = 37, 38

def attempt(call):
    try:
        call()
        return "got"
    except OSError as error:
        return errno.errorcode[error.errno]

def in_child(call):
    """What another process gets."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, attempt(call).encode())
        os._exit(0)
    os.close(write)
    answer = os.read(read, 100).decode()
    os.close(read)
    os.waitpid(pid, 0)
    return answer

class Holder:
    """A process that takes a lock and keeps it until it is told to end, or killed."""
    def __init__(self, call):
        ready, tell = os.pipe()
        wait, self.end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.end)
            os.write(tell, attempt(call).encode())
            os.read(wait, 1)
            os._exit(0)
        os.close(wait); os.close(tell)
        self.answer = os.read(ready, 100).decode()
        os.close(ready)
    def release(self):
        os.write(self.end, b"x")
        os.waitpid(self.pid, 0)
    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

def flock(how):
    fd = os.open("locked", os.O_RDWR)
    fcntl.flock(fd, how)
    return fd

def posix(how, start, length, fd=None):
    fcntl.lockf(os.open("locked", os.O_RDWR) if fd is None else fd, how | fcntl.LOCK_NB, length, start)

def ofd(fd, kind, start, length, command=F_OFD_SETLK):
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))

EX, SH, NB = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB
with open("locked", "w") as f:
    f.write("x" * 100)

# flock(2): of an open file, shared or exclusive, gone with its last descriptor.
holder = Holder(lambda: flock(EX))
print("flock", holder.answer, in_child(lambda: flock(EX | NB)), in_child(lambda: flock(SH | NB)))
holder.release()
print("flock, ended", in_child(lambda: flock(EX | NB)))
holder = Holder(lambda: flock(EX))
holder.kill()
print("flock, killed", in_child(lambda: flock(EX | NB)))
fd = flock(SH)
print("flock, shared", in_child(lambda: flock(SH | NB)), in_child(lambda: flock(EX | NB)))
copy = os.dup(fd)
os.close(fd)
print("flock, one of two descriptors closed", in_child(lambda: flock(EX | NB)))
os.close(copy)
print("flock, both closed", in_child(lambda: flock(EX | NB)))
fd = flock(EX)
print("flock, within a process", attempt(lambda: flock(EX | NB)))
fcntl.flock(fd, fcntl.LOCK_UN)
print("flock, unlocked", in_child(lambda: flock(EX | NB)))
os.close(fd)

# fcntl(2): of a process, by ranges, gone when it closes any descriptor of the file.
holder = Holder(lambda: posix(EX, 10, 10))
print("posix", holder.answer, in_child(lambda: posix(EX, 0, 10)), in_child(lambda: posix(EX, 20, 0)),
      in_child(lambda: posix(EX, 15, 1)), in_child(lambda: posix(SH, 0, 0)))
probe = os.open("locked", os.O_RDWR)
found = fcntl.fcntl(probe, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
kind, _, start, length, pid = struct.unpack("hhqqi4x", found)
print("posix, asked", kind == fcntl.F_WRLCK, start, length, pid == holder.pid)
holder.kill()
print("posix, killed", in_child(lambda: posix(EX, 0, 0)))
posix(EX, 0, 50, probe)
print("posix, held", in_child(lambda: posix(EX, 0, 10)), in_child(lambda: posix(EX, 50, 10)))
fcntl.lockf(probe, fcntl.LOCK_UN, 25, 0)
print("posix, half of it", in_child(lambda: posix(EX, 0, 25)), in_child(lambda: posix(EX, 25, 1)))
os.close(os.open("locked", os.O_RDONLY))
print("posix, another descriptor closed", in_child(lambda: posix(EX, 0, 0)))
os.close(probe)

# Open file description locks: of an open file, by ranges; they meet posix locks.
one, two = os.open("locked", os.O_RDWR), os.open("locked", os.O_RDWR)
ofd(one, fcntl.F_WRLCK, 0, 10)
print("ofd", attempt(lambda: ofd(two, fcntl.F_WRLCK, 5, 10)), attempt(lambda: ofd(two, fcntl.F_WRLCK, 10, 10)),
      in_child(lambda: posix(EX, 0, 1)), in_child(lambda: ofd(one, fcntl.F_WRLCK, 0, 10)))
os.close(os.open("locked", os.O_RDONLY))
print("ofd, another descriptor closed", in_child(lambda: posix(EX, 0, 1)))
os.close(one)
print("ofd, closed", in_child(lambda: posix(EX, 0, 1)), in_child(lambda: posix(EX, 10, 1)))
os.close(two)

# Who waits for a lock gets it when it is released, in every kind.
def waiting(take, again):
    holder = Holder(take)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        again()
        os.write(write, b"after" if os.path.exists("released") else b"before")
        os._exit(0)
    # It cannot come through before the release whether it waits already or not.
    open("released", "w").close()
    holder.release()
    answer = os.read(read, 100).decode()
    os.waitpid(pid, 0)
    os.unlink("released")
    return answer

def open_ofd(command):
    ofd(os.open("locked", os.O_RDWR), fcntl.F_WRLCK, 0, 10, command)

print("waits", waiting(lambda: flock(EX), lambda: flock(EX)),
      waiting(lambda: posix(EX, 0, 10), lambda: fcntl.lockf(os.open("locked", os.O_RDWR), EX, 10, 0)),
      waiting(lambda: open_ofd(F_OFD_SETLK), lambda: open_ofd(F_OFD_SETLKW)))

# Under locks nothing is lost: several processes count in one file.
with open("counter", "w") as f:
    f.write("0")
children = []
for n in range(4):
    pid = os.fork()
    if pid == 0:
        for turn in range(50):
            with open("counter", "r+") as f:
                fcntl.flock(f, EX)
                value = int(f.read())
                f.seek(0)
                f.write(str(value + 1))
                f.flush()
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
print("counted", open("counter").read())
"#;

#[test]
fn locks_of_every_kind_hold_between_processes() {
    both(
        |_| {},
        |cloud, mount| {
            let below = mount.outside("below");
            std::fs::create_dir(&below).unwrap();
            let wanted = python(&below, LOCKS);
            assert!(wanted.ends_with("counted 200\n"), "{wanted}");
            assert_eq!(wanted.matches("EAGAIN").count(), 13, "{wanted}");
            assert_eq!(python(mount.dir(), LOCKS), wanted, "as on the disk below");
            mount.wait_all();
            cloud.holds("data/counter", b"200");
        },
    );
}
