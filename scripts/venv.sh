#!/bin/sh
# Makes the virtual environment of the vendors' clients (tests/vendor/requirements.txt), once.
# Prints its directory: $FERRYFS_VENV, or target/venv. Run again after a change of the
# requirements it brings the environment up to date; otherwise it does nothing.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
venv=${FERRYFS_VENV:-$here/target/venv}
wanted=$here/tests/vendor/requirements.txt
done=$venv/requirements.done

if [ -f "$done" ] && cmp -s "$wanted" "$done"; then
    echo "$venv"
    exit 0
fi

# Two test processes may start this at once: the second waits, then finds the work done.
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9
if [ -f "$done" ] && cmp -s "$wanted" "$done"; then
    echo "$venv"
    exit 0
fi

# Debian and Ubuntu ship venv, and the ensurepip it needs, in a package of its own.
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
        echo "venv.sh: python3 with the venv module is needed (Debian: apt-get install python3-venv)" >&2
        exit 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 \
        python3 python3-venv >&2
fi

# Half an environment from an interrupted run is not repaired but made anew.
rm -rf "$venv"
python3 -m venv "$venv" >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" >&2
cp "$wanted" "$done"
echo "$venv"
