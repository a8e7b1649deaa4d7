#!/bin/sh
# Compares a mount with the filesystem below it, by fio, in turns: sequential writes, reads of 1 GiB,
# and 4 KiB random reads and writes of a cached 1 GiB file. Prints the medians of all rounds, their
# ratio, and how far the ratios of single rounds were apart.
#   bench.sh [--quick]     --quick: 5 rounds instead of 11
#
# Sequential writes are measured twice. "write 1M" writes over a file small enough that the kernel
# does not begin to write back while it is measured, and syncs outside of the measured time: it tells
# what the way through the mount costs. "write+sync" makes a new file and includes its fsync: it tells
# what a program sees that waits for the disk, and varies as the disk does.
# FERRYFS_WORK_DIR (default /var/tmp) should be on ext4; about 8 GiB are used. FERRYFS_BINARY compares
# another build than this one.
set -eu

rounds=11
case ${1:-} in
--quick) rounds=5 ;;
"") ;;
*)
    echo "usage: bench.sh [--quick]" >&2
    exit 2
    ;;
esac

cd "$(dirname "$0")/.."
scripts/deps.sh bench
. scripts/stage.sh
build release
set_stage bench-1250000000
mkdir "$work/plain"
mount_prefix "" auto
"$ferryfs" status "$work/mnt" | grep passthrough
echo "below: $(stat -f -c %T "$work/plain") on $(uname -r), $(nproc) cores"

for dir in plain mnt; do
    dd if=/dev/urandom of="$work/$dir/cached" bs=1M count=1024 status=none
done

# Half of what may be dirty before the kernel writes back by itself (the background limit), so that no
# write-back falls into the measured time; 256 MiB at most.
background=$(awk '$1 == "nr_dirty_background_threshold" { print $2 }' /proc/vmstat)
page=$(getconf PAGESIZE)
small=$((background * page / 2 / 1048576))
[ "$small" -le 256 ] || small=256
[ "$small" -ge 16 ] || { echo "bench.sh: too little memory to tell writes from write-back" >&2; exit 1; }
echo "sequential writes of ${small} MiB, $rounds rounds"
for dir in plain mnt; do
    dd if=/dev/zero of="$work/$dir/small" bs=1M count="$small" status=none
done

run() { # name, directory, round, fio options
    name=$1 dir=$2 round=$3
    shift 3
    # Nothing travels, and nothing is left to write back, while either side is measured.
    "$ferryfs" wait "$work/mnt" --timeout 10m >/dev/null 2>&1
    sync
    # Both sides read from the page cache: dropping it through FUSE would not drop the pages below.
    fio --name="$name" --ioengine=psync --invalidate=0 --fallocate=none \
        --output-format=json --output="$work/$name.$dir.$round.json" "$@"
}

round=1
while [ "$round" -le "$rounds" ]; do
    # In turns, so that neither side always runs on what the other left behind.
    if [ $((round % 2)) = 1 ]; then sides="plain mnt"; else sides="mnt plain"; fi
    for dir in $sides; do
        run seqwrite $dir $round --rw=write --bs=1M --overwrite=1 --size="${small}M" --loops=4 \
            --filename="$work/$dir/small"
    done
    for dir in $sides; do
        rm -f "$work/$dir/new"
        run syncwrite $dir $round --rw=write --bs=1M --size=256M --end_fsync=1 --filename="$work/$dir/new"
    done
    for dir in $sides; do
        run seqread $dir $round --rw=read --bs=1M --size=1G --loops=4 --filename="$work/$dir/cached"
    done
    for dir in $sides; do
        run randread $dir $round --rw=randread --bs=4k --size=1G --runtime=3 --time_based \
            --filename="$work/$dir/cached"
    done
    for dir in $sides; do
        run randwrite $dir $round --rw=randwrite --bs=4k --size=1G --overwrite=1 --runtime=3 --time_based \
            --filename="$work/$dir/cached"
    done
    round=$((round + 1))
done

python3 - "$work" "$rounds" <<'END'
import json, statistics, sys

work, rounds = sys.argv[1], int(sys.argv[2])

def speeds(name, where):
    side = "write" if "write" in name else "read"
    runs = [json.load(open(f"{work}/{name}.{where}.{n}.json"))["jobs"][0] for n in range(1, rounds + 1)]
    assert all(run["error"] == 0 and run[side]["io_bytes"] for run in runs), name
    return [run[side]["bw_bytes"] for run in runs]

print(f"{'':<12}{'below':>14}{'mount':>14}{'ratio':>8}   of single rounds")
for name, label in [("seqwrite", "write 1M"), ("syncwrite", "write+sync"), ("seqread", "read 1M"),
                    ("randread", "read 4k"), ("randwrite", "write 4k")]:
    below, mount = speeds(name, "plain"), speeds(name, "mnt")
    ratios = [m / b for m, b in zip(mount, below)]
    below, mount = statistics.median(below), statistics.median(mount)
    print(f"{label:<12}{below / 2**20:>8.0f} MiB/s{mount / 2**20:>8.0f} MiB/s{mount / below:>8.2f}"
          f"   {min(ratios):.2f} to {max(ratios):.2f}, median {statistics.median(ratios):.2f}")
END
