#!/bin/sh
# Kills the daemon by SIGKILL at random moments of its run, start, drain and recovery, while several programs
# write to its mount, and compares mount, bucket and announcements with what those programs were told
# (tests/crash_loop). Builds what it runs.
#   crash-loop.sh [--seed N] [ROUNDS]     30 rounds unless given; a round is one or two kills, about 2 s
# --seed repeats a run, as far as timing allows. A round that fails leaves all evidence (the daemon's and the
# emulator's logs, requests, journals, directories) where it says, and ends this with 1.
set -eu

usage() {
    echo "usage: crash-loop.sh [--seed NUMBER] [ROUNDS]" >&2
    exit 2
}

is_number() {
    case $1 in
    '' | *[!0-9]*) usage ;;
    esac
}

rounds=30
seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
while [ $# -gt 0 ]; do
    case $1 in
    --seed)
        [ $# -ge 2 ] || usage
        is_number "$2"
        seed=$2
        shift 2
        ;;
    *)
        is_number "$1"
        rounds=$1
        shift
        ;;
    esac
done

cd "$(dirname "$0")/.."
scripts/deps.sh build
no_proxy="127.0.0.1,::1,localhost${no_proxy:+,$no_proxy}"
NO_PROXY=$no_proxy
FERRYFS_SEED=$seed
FERRYFS_CRASH_ROUNDS=$rounds
export no_proxy NO_PROXY FERRYFS_SEED FERRYFS_CRASH_ROUNDS
ulimit -n "$(ulimit -Hn)"

status=0
cargo test --locked --test crash_loop -- --nocapture || status=1
[ "$status" = 0 ] || echo "crash-loop.sh: to repeat it: scripts/crash-loop.sh --seed $seed $rounds" >&2
exit "$status"
