#!/bin/sh
# Compares a mount with the filesystem below it, by fio, in turns: sequential write and read of 1 GiB,
# and 4 KiB random read and write of a cached 1 GiB file. Prints the medians and their ratio.
#   bench.sh [--quick]     --quick: 3 rounds instead of 7
# FERRYFS_BENCH_DIR (default /var/tmp) should be on ext4; about 8 GiB are used. FERRYFS_BINARY compares
# another build than this one.
set -eu

rounds=7
case ${1:-} in
--quick) rounds=3 ;;
"") ;;
*)
    echo "usage: bench.sh [--quick]" >&2
    exit 2
    ;;
esac

cd "$(dirname "$0")/.."
scripts/deps.sh bench
ferryfs=${FERRYFS_BINARY:-}
if [ -z "$ferryfs" ]; then
    cargo build --release --locked
    ferryfs=${CARGO_TARGET_DIR:-target}/release/ferryfs
fi
work=$(mktemp -d "${FERRYFS_BENCH_DIR:-/var/tmp}/ferryfs-bench-XXXXXX")
emulator=

cleanup() {
    if [ -d "$work/mnt" ]; then
        "$ferryfs" umount "$work/mnt" --timeout 60s 2>/dev/null || umount -l "$work/mnt" 2>/dev/null || true
    fi
    [ -z "$emulator" ] || kill "$emulator" 2>/dev/null || true
    # Never through a mount that would not go.
    if grep -q " $work/mnt " /proc/self/mountinfo; then
        echo "bench.sh: $work/mnt is still mounted; left as it is" >&2
    else
        rm -rf "$work"
    fi
}
trap cleanup EXIT
trap 'exit 1' INT TERM

mkdir "$work/mnt" "$work/plain"
"$ferryfs" emulator --root "$work/objects" --bucket bench-1250000000 --credentials id:key >"$work/emulator.json" &
emulator=$!
tries=0
until [ -s "$work/emulator.json" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 100 ] || { echo "bench.sh: the emulator does not start" >&2; exit 1; }
    sleep 0.1
done
store=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["store"])' "$work/emulator.json")
(
    umask 077
    cat >"$work/bench.toml" <<END
[[mapping]]
path = "/"
url = "cos://bench-1250000000/"
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
END
)
"$ferryfs" mount --config "$work/bench.toml" "$work/mnt"
"$ferryfs" status "$work/mnt" | grep passthrough
echo "below: $(stat -f -c %T "$work/plain") on $(uname -r), $(nproc) cores"

for dir in plain mnt; do
    dd if=/dev/urandom of="$work/$dir/cached" bs=1M count=1024 status=none
done

run() { # name, directory, round, fio options
    name=$1 dir=$2 round=$3
    shift 3
    # Nothing travels while the other side is measured.
    "$ferryfs" wait "$work/mnt" --timeout 10m 2>/dev/null
    # What an earlier run left to upload would slow down whichever side comes next.
    "$ferryfs" wait "$work/mnt" --timeout 300s >/dev/null 2>&1
    sync
    # Both sides read from the page cache: dropping it through FUSE would not drop the pages below.
    fio --name="$name" --size=1G --ioengine=psync --invalidate=0 --fallocate=none \
        --output-format=json --output="$work/$name.$dir.$round.json" "$@"
}

round=1
while [ "$round" -le "$rounds" ]; do
    # In turns, so that neither side always runs on what the other left behind.
    if [ $((round % 2)) = 1 ]; then sides="plain mnt"; else sides="mnt plain"; fi
    for dir in $sides; do
        rm -f "$work/$dir/new"
        run seqwrite $dir $round --rw=write --bs=1M --filename="$work/$dir/new"
    done
    for dir in $sides; do
        run seqread $dir $round --rw=read --bs=1M --filename="$work/$dir/cached"
    done
    for dir in $sides; do
        run randread $dir $round --rw=randread --bs=4k --runtime=5 --time_based --filename="$work/$dir/cached"
    done
    for dir in $sides; do
        run randwrite $dir $round --rw=randwrite --bs=4k --overwrite=1 --runtime=5 --time_based \
            --filename="$work/$dir/cached"
    done
    round=$((round + 1))
done

python3 - "$work" "$rounds" <<'END'
import json, statistics, sys

work, rounds = sys.argv[1], int(sys.argv[2])

def median(name, where):
    side = "write" if "write" in name else "read"
    runs = [json.load(open(f"{work}/{name}.{where}.{n}.json"))["jobs"][0][side] for n in range(1, rounds + 1)]
    return statistics.median(run["bw_bytes"] for run in runs)

print(f"{'':<12}{'below':>14}{'mount':>14}{'ratio':>8}")
for name, label in [("seqwrite", "write 1M"), ("seqread", "read 1M"),
                    ("randread", "read 4k"), ("randwrite", "write 4k")]:
    below, mount = median(name, "plain"), median(name, "mnt")
    print(f"{label:<12}{below / 2**20:>8.0f} MiB/s{mount / 2**20:>8.0f} MiB/s{mount / below:>8.2f}")
END
