# Sourced, from the repository's root, by scripts that need an emulator and mounts of it: a binary, a
# directory for the work, the emulator in it, a configuration, and an end that leaves nothing behind.
# Sets $ferryfs, $work, $mount, $bucket, $store.
#   FERRYFS_BINARY      a build to run instead of the one made here
#   FERRYFS_WORK_DIR    where the work is done (default /var/tmp); overlayfs and tmpfs take no passthrough
#   FERRYFS_TOOLS_DIR   where suites are installed (default: the user's cache directory)
# shellcheck shell=sh

script=$(basename "$0")
emulator=

# Everything is on loopback; no proxy knows it.
no_proxy="127.0.0.1,::1,localhost${no_proxy:+,$no_proxy}"
NO_PROXY=$no_proxy
export no_proxy NO_PROXY

complain() {
    echo "$script: $*" >&2
}

# Sets $ferryfs to a binary of this profile, debug or release.
build() {
    ferryfs=${FERRYFS_BINARY:-}
    if [ -z "$ferryfs" ]; then
        if [ "$1" = release ]; then cargo build --locked --release >&2; else cargo build --locked >&2; fi
        ferryfs=${CARGO_TARGET_DIR:-target}/$1/ferryfs
    fi
    ferryfs=$(realpath "$ferryfs")
}

# Installs a program of a crate once, for all runs, and sets $tool to its directory.
install_tool() { # crate, version
    tool=$(realpath -m "${FERRYFS_TOOLS_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/ferryfs}/$1-$2")
    mkdir -p "$tool"
    (
        # A second process waits for the first.
        flock 9
        if [ ! -x "$tool/bin/$1" ]; then
            complain "installing $1 $2 in $tool"
            # Away from the repository, whose settings and lock file are not its own.
            (cd / && CARGO_TARGET_DIR="$tool/build" cargo install --quiet --debug --locked --root "$tool" "$1@$2") >&2
            rm -rf "$tool/build"
        fi
    ) 9>"$tool/lock"
}

# Makes $work, which the script's end removes, and starts the emulator in it.
set_stage() { # bucket
    bucket=$1
    work=$(mktemp -d "${FERRYFS_WORK_DIR:-/var/tmp}/ferryfs-${script%.sh}-XXXXXX")
    mount=$work/mnt
    FERRYFS_RUN_DIR=$work/run
    export FERRYFS_RUN_DIR
    trap clear_stage EXIT
    trap 'exit 130' HUP INT PIPE TERM
    mkdir "$mount"
    "$ferryfs" emulator --root "$work/objects" --bucket "$bucket" --credentials id:key \
        >"$work/emulator.json" 2>"$work/emulator.log" &
    emulator=$!
    tries=0
    until [ -s "$work/emulator.json" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ]; then
            cat "$work/emulator.log" >&2
            complain "the emulator does not start"
            exit 1
        fi
        sleep 0.1
    done
    store=$(sed -n 's/.*"store": *"\([^"]*\)".*/\1/p' "$work/emulator.json")
}

is_mounted() {
    grep -q " $mount " /proc/self/mountinfo
}

# At the script's end. With a file $work/failed the work stays, for its logs.
clear_stage() {
    if is_mounted; then
        "$ferryfs" umount "$mount" --timeout 60s >/dev/null 2>&1 || umount -l "$mount" 2>/dev/null || true
    fi
    [ -z "$emulator" ] || kill "$emulator" 2>/dev/null || true
    # Never through a mount that would not go.
    if is_mounted; then
        complain "$mount is still mounted; left as it is"
    elif [ -e "$work/failed" ]; then
        complain "$work has the logs"
    else
        rm -rf --one-file-system "$work"
    fi
}

# Mounts a prefix of the bucket, with a cache and a state of its own.
mount_prefix() { # prefix, passthrough (auto or off), delay of uploads
    (
        umask 077
        cat >"$work/mount.toml" <<END
[[mapping]]
path = "/"
url = "cos://$bucket/$1"
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
[write_back]
delay = "${3:-1s}"
[mount]
passthrough = "$2"
allow_other = true
END
    )
    "$ferryfs" mount --config "$work/mount.toml" "$mount"
    # A fallback unseen would be taken for passthrough.
    if [ "$2" = auto ] && ! "$ferryfs" status "$mount" | grep -q '^passthrough  *on'; then
        "$ferryfs" status "$mount" >&2
        complain "no passthrough in $work: see FERRYFS_WORK_DIR"
        exit 1
    fi
}

# Unmounts, with all of it in the bucket, and drops what is here.
forget() {
    if ! "$ferryfs" umount "$mount" --timeout 300s >"$work/umount.log" 2>&1; then
        cat "$work/umount.log" >&2
        touch "$work/failed"
        exit 1
    fi
    rm -rf "$work/cache" "$work/state"
}
