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
