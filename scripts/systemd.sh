#!/bin/sh
# Boots a Debian 12 with a systemd of its own and looks at the unit and at fstab there: start at boot,
# reload, a drain at stop and at reboot, SIGKILL, a refused configuration, mount -a, an automount.
#   systemd.sh
# Needs root, FUSE, debootstrap and systemd-container; not part of CI. FERRYFS_SYSTEMD_ROOT (default
# target/systemd-root) is made once, by debootstrap, and used again. FERRYFS_BINARY: another build.
set -eu

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
root=${FERRYFS_SYSTEMD_ROOT:-$target/systemd-root}
ferryfs=${FERRYFS_BINARY:-}
if [ -z "$ferryfs" ]; then
    cargo build --locked
    ferryfs=$target/debug/ferryfs
fi
if [ ! -e "$root/ready" ]; then
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl bookworm "$root" >&2
    touch "$root/ready"
fi
work=$(mktemp -d)
nspawn=

cleanup() {
    # The container ends with its first process, and its mounts with it.
    if [ -n "$nspawn" ]; then
        for pid in $(ps -o pid= --ppid "$nspawn") "$nspawn"; do
            kill -KILL "$pid" 2>/dev/null || true
        done
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# The service manager of the container: the child of systemd-nspawn.
inside() {
    nsenter -t "$(ps -o pid= --ppid "$nspawn" | tr -d ' ')" -a /bin/sh -euc "$1"
}

boot() {
    # Dies with its last process; nothing of it is mounted outside.
    unshare -m --propagation private systemd-nspawn -q -D "$root" --boot --register=no --keep-unit \
        --machine="ferryfs-$$" --bind=/dev/fuse --bind=/dev/autofs --console=read-only --resolv-conf=off \
        --timezone=off >"$work/console" 2>&1 </dev/null &
    nspawn=$!
    tries=0
    until state=$(inside 'systemctl is-system-running' 2>/dev/null); do
        tries=$((tries + 1))
        if [ "$tries" -gt 120 ]; then
            cat "$work/console" >&2
            echo "systemd.sh: does not boot: $state" >&2
            exit 1
        fi
        sleep 0.5
    done
}

power_off() {
    inside 'systemctl --no-block poweroff'
    wait "$nspawn" || true
    nspawn=
}

check() { # what, command inside
    if inside "$2" >"$work/out" 2>&1; then
        echo "ok: $1"
    else
        echo "FAILED: $1" >&2
        cat "$work/out" >&2
        inside 'journalctl -b -n 60 --no-pager' >&2 || true
        exit 1
    fi
}

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
install -m 755 "$ferryfs" "$root/usr/bin/ferryfs"
ln -sf /usr/bin/ferryfs "$root/sbin/mount.ferryfs"
install -m 644 packaging/systemd/ferryfs@.service "$root/etc/systemd/system/"
rm -rf "$root/var/lib/ferryfs" "$root/var/cache/ferryfs" "$root/var/lib/emulator" "$root/etc/ferryfs"
mkdir -p "$root/etc/ferryfs" "$root/var/log/journal" "$root/mnt/service" "$root/mnt/line" "$root/mnt/auto"
: >"$root/etc/machine-id"
cat >"$root/etc/systemd/system/emulator.service" <<END
[Unit]
Before=ferryfs@service.service remote-fs-pre.target
[Service]
ExecStart=/usr/bin/ferryfs emulator --listen 127.0.0.1:$port --root /var/lib/emulator --bucket data-1250000000 --bucket logs-1250000000 --credentials id:key --oms-credentials ak:sk
[Install]
WantedBy=multi-user.target
END
for name in service line auto; do
    (
        umask 077
        cat >"$root/etc/ferryfs/$name.toml" <<END
[[mapping]]
path = "/"
url = "cos://data-1250000000/$name/"
region = "ap-guangzhou"
endpoint = "http://127.0.0.1:$port"
addressing = "path"
secret_id = "id"
secret_key = "key"
[mapping.sync]
url = "http://127.0.0.1:$port/v2/project/sync-tasks/6f1c1a52-8d0e-4b3a-9c55-0e7a3f3b9d21/events"
access_key = "ak"
secret_key = "sk"
record = "cos://logs-1250000000/"
[mount]
dir = "/mnt/$name"
END
    )
done
cat >"$root/etc/fstab" <<END
line  /mnt/line  ferryfs  _netdev,nofail,noatime,x-systemd.requires=emulator.service             0 0
auto  /mnt/auto  ferryfs  _netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=3s           0 0
END

boot
inside 'systemctl enable -q --now emulator; systemctl enable -q --now ferryfs@service'
check "READY when mounted" 'mountpoint -q /mnt/service; systemctl is-active ferryfs@service'
check "reload" 'systemctl reload ferryfs@service
    until journalctl -b -u ferryfs@service | grep -q "reloaded: credentials"; do sleep 0.1; done'
check "a reload that is refused is in STATUS" 'cp -p /etc/ferryfs/service.toml /root/keep
    sed -i "s#0/service/#0/other/#" /etc/ferryfs/service.toml; systemctl reload ferryfs@service
    until systemctl show ferryfs@service -p StatusText | grep "not reloaded"; do sleep 0.1; done
    cp -p /root/keep /etc/ferryfs/service.toml'
check "SIGKILL: started again over the dead mount, nothing lost" 'echo kept > /mnt/service/kept
    kill -KILL $(systemctl show ferryfs@service -p MainPID --value)
    until systemctl show ferryfs@service -p NRestarts | grep -q =1 && systemctl -q is-active ferryfs@service; do sleep 0.2; done
    grep kept /mnt/service/kept; [ $(findmnt -n /mnt/service | wc -l) = 1 ]; ferryfs wait /mnt/service'
slow='curl -sf http://127.0.0.1:'$port'/_emulator/faults -d '\''{"match":{"method":"PUT","key":"service/slow*"},"action":{"delay_ms":1000},"count":1000}'\'
check "stop drains, and STATUS says so" "$slow"'
    for i in $(seq 20); do echo $i > /mnt/service/slow$i; done; systemctl stop ferryfs@service
    systemctl show ferryfs@service -p StatusText | grep "everything is in the bucket"
    ! mountpoint -q /mnt/service; systemctl start ferryfs@service'
check "a refused configuration is not tried again" 'echo "colour = 1" >> /etc/ferryfs/service.toml
    ! systemctl restart ferryfs@service; systemctl show ferryfs@service -p ExecMainStatus | grep -x ExecMainStatus=2
    cp -p /root/keep /etc/ferryfs/service.toml; systemctl start ferryfs@service'
check "mount and umount by fstab" 'umount /mnt/line; mount /mnt/line; echo fstab > /mnt/line/file; findmnt -n -o SOURCE /mnt/line | grep -x line
    mount -a; umount /mnt/line; mount /mnt/line; grep fstab /mnt/line/file'
check "automount, idle unmount, automount" 'timeout 30 sh -c "echo auto > /mnt/auto/file"
    # Whoever asks for the path keeps it in use.
    timeout 60 sh -c "while grep \"/mnt/auto fuse.ferryfs\" /proc/mounts; do sleep 0.5; done"
    timeout 30 grep auto /mnt/auto/file'
check "written just before the reboot" 'for i in $(seq 20); do echo again $i > /mnt/service/slow$i; done'
power_off
boot
check "the shutdown drained" 'journalctl -b -1 -u ferryfs@service | grep -q "everything is in the bucket"'
check "everything is mounted at boot" 'mountpoint -q /mnt/service; findmnt -n -t fuse.ferryfs /mnt/line
    findmnt -n -t autofs /mnt/auto; grep "again 7" /mnt/service/slow7; ferryfs wait /mnt/service'
check "it starts without the store" 'systemctl stop ferryfs@service emulator; systemctl start ferryfs@service
    grep "again 7" /mnt/service/slow7; systemctl start emulator; ferryfs wait /mnt/service'
power_off
echo "systemd.sh: all is well"
