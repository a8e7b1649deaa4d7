#!/bin/sh
# Runs pjdfstest, a suite of POSIX cases, on a mount of the emulator's bucket: once with the kernel's
# passthrough and once without. Right is: at least 340 cases pass, and exactly those fail that
# tests/pjdfstest.expected lists with their reasons.
#   pjdfstest.sh [passthrough|fallback]... [-- PATTERN...]    PATTERN: only cases whose name has it; shows all
# $FERRYFS_BIN: the binary; default: built here. $PJDFSTEST_ROOT: where the suite is installed; default: the
# user's cache directory. Needs root: cases act as other users and make devices.
set -eu

version=0.2.2
least=340

here=$(cd "$(dirname "$0")/.." && pwd)
expected=$here/tests/pjdfstest.expected
root=${PJDFSTEST_ROOT:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/ferryfs/pjdfstest-$version}
modes=
patterns=
while [ $# -gt 0 ]; do
    case $1 in
    passthrough | fallback) modes="$modes $1" ;;
    --)
        shift
        patterns=$*
        break
        ;;
    *)
        echo "usage: pjdfstest.sh [passthrough|fallback]... [-- PATTERN...]" >&2
        exit 2
        ;;
    esac
    shift
done
modes=${modes:-passthrough fallback}

if [ "$(id -u)" != 0 ]; then
    echo "pjdfstest.sh: needs root" >&2
    exit 1
fi
# Users that every system has: none must be made.
for user in nobody daemon; do
    if ! id "$user" >/dev/null 2>&1; then
        echo "pjdfstest.sh: the user $user is missing" >&2
        exit 1
    fi
done

if [ ! -x "$root/bin/pjdfstest" ]; then
    echo "pjdfstest.sh: installing pjdfstest $version in $root" >&2
    # Away from the repository, whose settings and lock file are not its own.
    (cd / && CARGO_TARGET_DIR="$root/build" cargo install --quiet --debug --locked --root "$root" "pjdfstest@$version") >&2
    rm -rf "$root/build"
fi
if [ -z "${FERRYFS_BIN:-}" ]; then
    (cd "$here" && cargo build --locked --quiet) >&2
    FERRYFS_BIN=${CARGO_TARGET_DIR:-$here/target}/debug/ferryfs
fi

# Not in /tmp, which may be a filesystem that takes no passthrough.
work=$(mktemp -d /var/tmp/ferryfs-pjdfstest.XXXXXX)
# The cases act as other users, who must come as far as the mount.
chmod 755 "$work"
emulator=
mounted=
finish() {
    if [ -n "$mounted" ] && mountpoint -q "$mounted"; then
        "$FERRYFS_BIN" umount "$mounted" --timeout 10s >/dev/null 2>&1 || umount -l "$mounted" || true
    fi
    [ -z "$emulator" ] || kill "$emulator" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' HUP INT PIPE TERM

no_proxy="127.0.0.1,::1,localhost${no_proxy:+,$no_proxy}"
NO_PROXY=$no_proxy
export no_proxy NO_PROXY

mkdir "$work/objects"
bucket=examplebucket-1250000000
"$FERRYFS_BIN" emulator --listen 127.0.0.1:0 --root "$work/objects" --bucket "$bucket" \
    --credentials AKIDFAKE:FakeSecret >"$work/emulator.json" 2>"$work/emulator.log" &
emulator=$!
tries=0
until [ -s "$work/emulator.json" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 200 ]; then
        cat "$work/emulator.log" >&2
        echo "pjdfstest.sh: the emulator does not start" >&2
        exit 1
    fi
    sleep 0.1
done
store=$(sed -n 's/.*"store": *"\([^"]*\)".*/\1/p' "$work/emulator.json")

group() { # the name of a user's first group
    id -gn "$1"
}
mkdir "$work/elsewhere"
cat >"$work/pjdfstest.toml" <<END
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
secondary_fs = "$work/elsewhere"
[dummy_auth]
entries = [["nobody", "$(group nobody)"], ["daemon", "$(group daemon)"]]
[settings]
# The kernel's clock ticks every 10 ms at least.
naptime = 0.02
END
sed '$a allow_remount = true' "$work/pjdfstest.toml" >"$work/remount.toml"

drain() { # unmounts what is mounted, with all of it in the bucket
    if ! "$FERRYFS_BIN" umount "$mounted" --timeout 60s >"$work/umount.log" 2>&1; then
        cat "$work/umount.log" >&2
        exit 1
    fi
}

run() { # mode
    mode=$1
    passthrough=auto
    [ "$mode" = passthrough ] || passthrough=off
    mounted=$work/$mode
    mkdir "$mounted"
    cat >"$work/$mode.toml" <<END
[[mapping]]
path = "/"
url = "cos://$bucket/$mode/"
region = "ap-guangzhou"
endpoint = "$store"
addressing = "path"
secret_id = "AKIDFAKE"
secret_key = "FakeSecret"
[cache]
dir = "$work/$mode.cache"
size = "1GiB"
[state]
dir = "$work/$mode.state"
[write_back]
# Cases that want a slow bucket to show through would be hidden by a delay.
delay = "50ms"
[mount]
passthrough = "$passthrough"
allow_other = true
END
    chmod 600 "$work/$mode.toml"
    "$FERRYFS_BIN" mount --config "$work/$mode.toml" "$mounted"
    log=$work/$mode.log
    # Its exit code says only that some case failed.
    # shellcheck disable=SC2086 # one word per pattern
    NO_COLOR=1 "$root/bin/pjdfstest" -c "$work/pjdfstest.toml" -p "$mounted" $patterns >"$log" 2>&1 || true
    # In a process of their own: earlier cases leave removed files open, and then no filesystem can be
    # remounted read-only (on ext4 six of these fail together with the others).
    remounting=$(sed -n 's/^\([^ ]*erofs[^ ]*\)  *skipped$/pjdfstest::tests::\1/p' "$log")
    if [ -n "$remounting" ]; then
        sed -i '/^[^ ]*erofs[^ ]*  *skipped$/,+1d' "$log"
        # shellcheck disable=SC2086 # one word per case
        NO_COLOR=1 "$root/bin/pjdfstest" -c "$work/remount.toml" -p "$mounted" --exact $remounting >>"$log" 2>&1 || true
    fi
    # The cases clean up after themselves, and the bucket must follow: a mount that has never seen it
    # shows nothing.
    drain
    rm -rf "$work/$mode.state" "$work/$mode.cache"
    "$FERRYFS_BIN" mount --config "$work/$mode.toml" "$mounted"
    left=$(ls -A "$mounted")
    drain
    mounted=

    if [ -n "$patterns" ]; then
        cat "$log"
        return 0
    fi
    passed=$(grep -c ' ok$' "$log" || true)
    skipped=$(grep -c ' skipped$' "$log" || true)
    sed -n 's/ *FAILED$//p' "$log" | sort >"$work/$mode.failed"
    echo "pjdfstest, $mode: $passed passed, $(wc -l <"$work/$mode.failed") failed, $skipped skipped"
    good=true
    sed -n 's/^\([^#: ][^ ]*\) .*/\1/p' "$expected" | sort >"$work/expected"
    for case in $(comm -23 "$work/$mode.failed" "$work/expected"); do
        echo "fails, and $expected does not say why: $case"
        grep -A1 "^$case " "$log" | tail -n +2
        good=false
    done
    for case in $(comm -13 "$work/$mode.failed" "$work/expected"); do
        echo "passes by now, or is gone: $case; take it out of $expected"
        good=false
    done
    if [ -n "$left" ]; then
        echo "left in the bucket:" "$left"
        good=false
    fi
    if [ "$passed" -lt "$least" ]; then
        echo "at least $least must pass"
        good=false
    fi
    $good
}

failed=
for mode in $modes; do
    run "$mode" || failed=1
done
[ -z "$failed" ]
