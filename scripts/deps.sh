#!/bin/sh
# Installs what a build, the tests or the benchmark lack on Debian (12 and later). Does nothing, and
# needs no root and no network, where all is there.
#   deps.sh build | test | bench
set -eu

what=${1:-build}
packages=

need() { # command, package
    command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}

# SQLite and the TLS library are compiled from their C sources.
need cc gcc
need make make
[ -e /usr/include/stdio.h ] || packages="$packages libc6-dev"
case $what in
build) ;;
test)
    need python3 python3
    # Debian ships venv, and the ensurepip it needs, in a package of its own.
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages="$packages python3-venv"
    # What tests/programs runs on mounts.
    for program in git vim rsync curl logrotate strace s3fs; do
        need "$program" "$program"
    done
    # What tests/power cuts the power of.
    need mkfs.ext4 e2fsprogs
    need mkfs.xfs xfsprogs
    need mkfs.btrfs btrfs-progs
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
    ;;
bench)
    need python3 python3
    need fio fio
    ;;
*)
    echo "usage: deps.sh build|test|bench" >&2
    exit 2
    ;;
esac
# Only who mounts without being root needs the helper.
if [ "$(id -u)" != 0 ]; then
    need fusermount3 fuse3
fi

if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
        echo "deps.sh: please install:$packages" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    # shellcheck disable=SC2086 # one word per package
    apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $packages >&2
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "deps.sh: a Rust toolchain is needed: https://rustup.rs" >&2
    exit 1
fi

if [ "$what" = test ]; then
    # rustup's minimal profile has neither.
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt >&2
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy >&2
    if ! cargo nextest --version >/dev/null 2>&1; then
        cargo install --locked cargo-nextest >&2 ||
            echo "deps.sh: cargo-nextest cannot be had; the tests run under cargo test" >&2
    fi
fi

if [ ! -c /dev/fuse ]; then
    modprobe fuse 2>/dev/null || true
    if [ ! -c /dev/fuse ]; then
        echo "deps.sh: /dev/fuse is missing: nothing can be mounted here" >&2
        [ "$what" = build ] || exit 1
    fi
fi
