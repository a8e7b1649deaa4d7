#!/bin/sh
# Runs pjdfstest, a suite of POSIX cases, on a mount of the emulator's bucket: once with the kernel's
# passthrough and once without. Right is: at least 340 cases pass, and exactly those fail that
# tests/pjdfstest.expected lists with their reasons.
#   pjdfstest.sh [passthrough|fallback]... [-- PATTERN...]    PATTERN: only cases whose name has it; shows all
# stage.sh has what can be set. Needs root: cases act as other users and make devices.
set -eu

least=340

cd "$(dirname "$0")/.."
expected=tests/pjdfstest.expected
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

. scripts/stage.sh
build debug
install_tool pjdfstest 0.2.2
set_stage examplebucket-1250000000
# The cases act as other users, who must come as far as the mount.
chmod 755 "$work"

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

run() { # mode
    mode=$1
    passthrough=auto
    [ "$mode" = passthrough ] || passthrough=off
    # Cases that want a slow bucket to show through would be hidden by a longer delay.
    mount_prefix "$mode/" "$passthrough" 50ms
    log=$work/$mode.log
    # Its exit code says only that some case failed.
    # shellcheck disable=SC2086 # one word per pattern
    NO_COLOR=1 "$tool/bin/pjdfstest" -c "$work/pjdfstest.toml" -p "$mount" $patterns >"$log" 2>&1 || true
    # In a process of their own: earlier cases leave removed files open, and then no filesystem can be
    # remounted read-only (on ext4 six of these fail together with the others).
    remounting=$(sed -n 's/^\([^ ]*erofs[^ ]*\)  *skipped$/pjdfstest::tests::\1/p' "$log")
    if [ -n "$remounting" ]; then
        sed -i '/^[^ ]*erofs[^ ]*  *skipped$/,+1d' "$log"
        # Where libfuse is installed, its mount helper remounts by the command `ferryfs` from a fixed path.
        # There it is, for these cases alone, as where ferryfs is installed.
        # shellcheck disable=SC2016,SC2086 # the inner shell expands; one word per case
        NO_COLOR=1 unshare --mount sh -c 'mount -t tmpfs none /usr/local/sbin && ln -s "$0" /usr/local/sbin/ferryfs && exec "$@"' \
            "$ferryfs" "$tool/bin/pjdfstest" -c "$work/remount.toml" -p "$mount" --exact $remounting >>"$log" 2>&1 || true
    fi
    # The cases clean up after themselves, and the bucket must follow: a mount that has never seen it
    # shows nothing.
    forget
    mount_prefix "$mode/" "$passthrough"
    left=$(ls -A "$mount")
    forget

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
