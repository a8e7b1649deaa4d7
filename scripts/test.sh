#!/bin/sh
# Everything that CI runs: formatting, lints, documentation, all tests, POSIX cases, a short fsx. Arguments
# go to the test runner, as in `scripts/test.sh outbox`; with any the last two are left out.
set -eu

cd "$(dirname "$0")/.."
scripts/deps.sh test

# Everything that the tests talk to is on loopback; no proxy knows it.
no_proxy="127.0.0.1,::1,localhost${no_proxy:+,$no_proxy}"
NO_PROXY=$no_proxy
export no_proxy NO_PROXY
# Thousands of files are open at once in some tests.
ulimit -n "$(ulimit -Hn)"

step() {
    echo "== $*" >&2
    "$@"
}

step cargo fmt --check
step cargo clippy --locked --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings"
export RUSTDOCFLAGS
step cargo doc --locked --no-deps --document-private-items
# Made once here, so that no test's time is spent on it.
step scripts/venv.sh
# The same binary is what the demo shows; a broken build should not wait for the tests.
step cargo build --locked
if cargo nextest --version >/dev/null 2>&1; then
    step cargo nextest run --locked "$@"
    # nextest runs no documentation tests.
    step cargo test --locked --doc
else
    step cargo test --locked "$@"
fi
if [ $# = 0 ]; then
    step scripts/pjdfstest.sh
    step scripts/fsx.sh 3000
fi
