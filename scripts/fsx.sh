#!/bin/sh
# Runs fsx (crate fsx) on mounts of the emulator: random reads and writes, by call and by mapping, cuts,
# allocations and punched holes, each compared with a model in memory. With the kernel's passthrough,
# without it, and on a file that starts in the bucket with only the parts here that fsx has asked for.
# What is in the bucket afterwards must be what the mount showed.
#   fsx.sh [OPERATIONS]     of each of the three; 100000 unless given
# FERRYFS_FSX_SEED repeats a run; stage.sh has what else can be set.
set -eu

operations=${1:-100000}
seed=${FERRYFS_FSX_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
cd "$(dirname "$0")/.."
scripts/deps.sh test
. scripts/stage.sh
build debug
install_tool fsx 0.3.2

set_stage fsx-1250000000
mkdir "$work/artifacts"

# fsx can keep a file that is there only by zeroing it first, by one write(2) of the whole. With this the
# write sends nothing, and the model starts from what the file has instead.
cat >"$work/start.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

ssize_t write(int fd, const void *bytes, size_t count) {
    static int started;
    const char *start = getenv("FSX_START"), *size = getenv("FSX_SIZE");
    if (!started && start && size && count == strtoul(size, NULL, 10)) {
        started = 1;
        int from = open(start, O_RDONLY | O_CLOEXEC);
        if (from < 0 || read(from, (void *)bytes, count) != (ssize_t)count) abort();
        close(from);
        return (ssize_t)count;
    }
    ssize_t (*next)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return next(fd, bytes, count);
}
C
cc -O1 -shared -fPIC -o "$work/start.so" "$work/start.c" -ldl

fail() {
    touch "$work/failed"
    tail -n 40 "$work/fsx.log" >&2
    complain "$* (seed $seed)"
    exit 1
}

exercise() { # name, configuration, operations, seed; size if it starts from what is there
    env FSX_START="$work/start" FSX_SIZE="${5:-0}" LD_PRELOAD="$work/start.so" "$tool/bin/fsx" -vv -f "$work/$2" -N "$3" -S "$4" -P "$work/artifacts" "$mount/$1" >"$work/fsx.log" 2>&1 ||
        fail "$1: fsx found a difference"
}

# What the mount shows now is what any host finds in the bucket.
compare() { # name, passthrough
    shown=$(sha256sum <"$mount/$1")
    forget
    mount_prefix "" "$2"
    [ "$(sha256sum <"$mount/$1")" = "$shown" ] || fail "$1: the bucket has another content than the mount showed"
}

cat >"$work/local.toml" <<'EOF'
flen = 1048576
[weights]
close_open = 0.5
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 1
punch_hole = 2
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
EOF
for passthrough in auto off; do
    started=$(date +%s)
    mount_prefix "" "$passthrough"
    exercise "local-$passthrough" local.toml "$operations" "$seed"
    compare "local-$passthrough" "$passthrough"
    forget
    echo "passthrough $passthrough: $operations operations, seed $seed, $(($(date +%s) - started)) s"
done

# Larger than what is fetched whole. Each file is filled 10 s after its first write, or once fsx has asked for
# all of it: so the operations are shared out among many.
size=134217728
each=4000
cat >"$work/remote.toml" <<EOF
blockmode = true
flen = $size
[weights]
close_open = 0
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 0
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 0
punch_hole = 2
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
EOF
started=$(date +%s)
openssl rand -out "$work/start" "$size" 2>/dev/null || head -c "$size" /dev/urandom >"$work/start"
mount_prefix "" auto
done=0
while [ "$done" -lt "$operations" ]; do
    cp "$work/start" "$mount/remote"
    forget
    mount_prefix "" auto
    now=$((operations - done))
    [ "$now" -le "$each" ] || now=$each
    exercise remote remote.toml "$now" "$((seed + done))" "$size"
    compare remote auto
    done=$((done + now))
done
forget
echo "starting in the bucket: $operations operations in pieces of $each, seed $seed, $(($(date +%s) - started)) s"
