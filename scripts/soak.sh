#!/bin/sh
# What takes too long for every change (scripts/test.sh runs the short of it): before a release, and after
# changes of how files are written, cached or recovered. CI does not run it.
set -eu

cd "$(dirname "$0")/.."

step() {
    echo "== $*" >&2
    "$@"
}

step scripts/fsx.sh 100000
# A directory of 100,000 objects is renamed and moved: about ten minutes.
FERRYFS_MOVE_OBJECTS=100000
export FERRYFS_MOVE_OBJECTS
step cargo test --locked --test rooms moves::a_large_directory -- --nocapture
step scripts/crash-loop.sh 300
# Random power cuts.
FERRYFS_CUTS=300
export FERRYFS_CUTS
step cargo test --locked --test power cuts:: -- --ignored --nocapture
