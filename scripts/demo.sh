#!/bin/sh
# Builds ferryfs and shows all of it against its own emulator; needs no account. Options are those of
# `ferryfs demo` (--keep).
set -eu

cd "$(dirname "$0")/.."
scripts/deps.sh build
cargo build --release --locked
exec "${CARGO_TARGET_DIR:-target}/release/ferryfs" demo "$@"
