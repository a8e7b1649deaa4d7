#!/bin/sh
# Runs fsx (crate fsx) on mounts of the emulator: random reads and writes, by call and by mapping, cuts,
# allocations and punched holes, each compared with a model in memory. With the kernel's passthrough,
# without it, and on a file that starts in the bucket with only the parts here that fsx has asked for.
# What is in the bucket afterwards must be what the mount showed.
#   fsx.sh [OPERATIONS]     of each of the three; 100000 unless given
# FERRYFS_FSX_SEED repeats a run. FERRYFS_FSX_DIR (default /var/tmp) must take passthrough (not overlayfs);
# FERRYFS_BINARY runs another build than this one.
set -eu

operations=${1:-100000}
seed=${FERRYFS_FSX_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
version=0.3.2
cd "$(dirname "$0")/.."
scripts/deps.sh test
no_proxy="127.0.0.1,::1,localhost${no_proxy:+,$no_proxy}"
NO_PROXY=$no_proxy
export no_proxy NO_PROXY

target=${CARGO_TARGET_DIR:-target}
ferryfs=${FERRYFS_BINARY:-}
if [ -z "$ferryfs" ]; then
    cargo build --locked
    ferryfs=$target/debug/ferryfs
fi
ferryfs=$(realpath "$ferryfs")

# Once, for all runs; a second process waits for the first.
tools=$(realpath -m "$target/fsx-$version")
mkdir -p "$tools"
(
    flock 9
    if [ ! -x "$tools/bin/fsx" ]; then
        echo "fsx.sh: installing fsx $version in $tools" >&2
        # Away from the repository, whose settings and lock file are not its own.
        (cd / && CARGO_TARGET_DIR="$tools/build" cargo install --quiet --debug --locked --root "$tools" "fsx@$version") >&2
        rm -rf "$tools/build"
    fi
    # fsx can keep a file that is there only by zeroing it first, by one write(2) of the whole. With this the
    # write sends nothing, and the model starts from what the file has instead.
    if [ ! -e "$tools/start.so" ]; then
        cat >"$tools/start.c" <<'C'
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
        cc -O1 -shared -fPIC -o "$tools/start.so.new" "$tools/start.c" -ldl
        mv "$tools/start.so.new" "$tools/start.so"
    fi
) 9>"$tools/lock"

work=$(mktemp -d "${FERRYFS_FSX_DIR:-/var/tmp}/ferryfs-fsx-XXXXXX")
FERRYFS_RUN_DIR=$work/run
export FERRYFS_RUN_DIR
emulator=

cleanup() {
    if grep -q " $work/mnt " /proc/self/mountinfo; then
        "$ferryfs" umount "$work/mnt" --timeout 10s >/dev/null 2>&1 || umount -l "$work/mnt" 2>/dev/null || true
    fi
    [ -z "$emulator" ] || kill "$emulator" 2>/dev/null || true
    # Never through a mount that would not go.
    if grep -q " $work/mnt " /proc/self/mountinfo; then
        echo "fsx.sh: $work/mnt is still mounted; left as it is" >&2
    elif [ -e "$work/failed" ]; then
        echo "fsx.sh: $work has the logs" >&2
    else
        rm -rf "$work"
    fi
}
trap cleanup EXIT
trap 'exit 130' HUP INT PIPE TERM

mkdir "$work/mnt" "$work/artifacts"
"$ferryfs" emulator --root "$work/objects" --bucket fsx-1250000000 --credentials id:key \
    >"$work/emulator.json" 2>"$work/emulator.log" &
emulator=$!
tries=0
until [ -s "$work/emulator.json" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 100 ] || { echo "fsx.sh: the emulator does not start" >&2; exit 1; }
    sleep 0.1
done
store=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["store"])' "$work/emulator.json")

mount_it() { # passthrough: auto or off
    (
        umask 077
        cat >"$work/fsx.toml" <<EOF
[[mapping]]
path = "/"
url = "cos://fsx-1250000000/"
region = "ap-guangzhou"
endpoint = "$store"
addressing = "path"
secret_id = "id"
secret_key = "key"
[cache]
dir = "$work/cache"
size = "8GiB"
[state]
dir = "$work/state"
[mount]
passthrough = "$1"
EOF
    )
    "$ferryfs" mount --config "$work/fsx.toml" "$work/mnt"
    # A fallback unseen would try the fallback twice.
    if [ "$1" = auto ] && ! "$ferryfs" status "$work/mnt" | grep -q '^passthrough  *on'; then
        "$ferryfs" status "$work/mnt" >&2
        echo "fsx.sh: no passthrough in $work: see FERRYFS_FSX_DIR" >&2
        exit 1
    fi
}

forget() {
    "$ferryfs" umount "$work/mnt" --timeout 300s >"$work/umount.log" 2>&1 || fail "umount: $(cat "$work/umount.log")"
    rm -rf "$work/cache" "$work/state"
}

fail() {
    touch "$work/failed"
    tail -n 40 "$work/fsx.log" >&2
    echo "fsx.sh: $* (seed $seed)" >&2
    exit 1
}

exercise() { # name, configuration, operations, seed; size if it starts from what is there
    env FSX_START="$work/start" FSX_SIZE="${5:-0}" LD_PRELOAD="$tools/start.so" "$tools/bin/fsx" -vv -f "$work/$2" -N "$3" -S "$4" -P "$work/artifacts" "$work/mnt/$1" >"$work/fsx.log" 2>&1 ||
        fail "$1: fsx found a difference"
}

# What the mount shows now is what any host finds in the bucket.
compare() { # name, passthrough
    shown=$(sha256sum <"$work/mnt/$1")
    forget
    mount_it "$2"
    [ "$(sha256sum <"$work/mnt/$1")" = "$shown" ] || fail "$1: the bucket has another content than the mount showed"
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
    mount_it "$passthrough"
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
mount_it auto
done=0
while [ "$done" -lt "$operations" ]; do
    cp "$work/start" "$work/mnt/remote"
    forget
    mount_it auto
    now=$((operations - done))
    [ "$now" -le "$each" ] || now=$each
    exercise remote remote.toml "$now" "$((seed + done))" "$size"
    compare remote auto
    done=$((done + now))
done
forget
echo "starting in the bucket: $operations operations in pieces of $each, seed $seed, $(($(date +%s) - started)) s"
