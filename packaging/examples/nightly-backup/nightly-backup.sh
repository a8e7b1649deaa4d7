#!/bin/sh
# Fetches a database backup from a URL into a directory, checks it, keeps the newest and removes older ones.
# The directory may be any; on a ferryfs mount it also waits until the backup is in the bucket, verified and
# announced, before anything older is removed.
#
#   nightly-backup.sh [CONFIGURATION]      default: /etc/nightly-backup.conf; see the one beside this file
#
# Exit codes: 0 the new backup is safe; 1 it is not, and nothing older was removed; 2 wrong configuration.
set -eu
umask 077

config=${1:-/etc/nightly-backup.conf}
die() { # exit code, message
    echo "nightly-backup: $2" >&2
    exit "$1"
}
[ -r "$config" ] || die 2 "cannot read $config"
case $config in */*) ;; *) config=./$config ;; esac
# shellcheck source=nightly-backup.conf
. "$config"
: "${BACKUP_URL:?set it in $config}" "${BACKUP_DIR:?set it in $config}" "${BACKUP_NAME:?set it in $config}"
keep=${BACKUP_KEEP:-14}
suffix=${BACKUP_SUFFIX:-.sql.gz}
date=${BACKUP_DATE:-$(date +%Y-%m-%d)}
wait=${BACKUP_WAIT:-1h}
case $keep in '' | *[!0-9]* | 0) die 2 "BACKUP_KEEP must be a number above 0, not '$keep'" ;; esac
[ -d "$BACKUP_DIR" ] || die 1 "$BACKUP_DIR is missing: not mounted?"
if [ "${BACKUP_MOUNTED:-no}" = yes ] && ! findmnt -n -t fuse.ferryfs -T "$BACKUP_DIR" >/dev/null; then
    # Written below the mount point it would fill the local disk and reach no bucket.
    die 1 "$BACKUP_DIR is not on a ferryfs mount"
fi

file=$BACKUP_NAME-$date$suffix
part=$BACKUP_DIR/.$file.part
trap 'rm -f "$part" "$part.sum"' EXIT
trap 'exit 1' HUP INT TERM

# -f: an error page is no backup. A transfer that is cut short fails, too. The URL may hold a signature:
# it is not in the arguments, which every user can see.
printf 'url = "%s"\n' "$BACKUP_URL" |
    curl -fsSL --retry "${BACKUP_RETRY:-3}" --connect-timeout 20 --config - -o "$part" ||
    die 1 "the download failed"
[ -s "$part" ] || die 1 "the backup is empty"
if [ -n "${BACKUP_SHA256_URL:-}" ]; then
    printf 'url = "%s"\n' "$BACKUP_SHA256_URL" |
        curl -fsSL --retry "${BACKUP_RETRY:-3}" --connect-timeout 20 --config - -o "$part.sum" ||
        die 1 "the checksum cannot be fetched"
    wanted=$(cut -c1-64 "$part.sum" | head -n 1)
    [ "$(sha256sum <"$part" | cut -c1-64)" = "$wanted" ] || die 1 "the backup is not what its checksum says"
fi
case $suffix in
*.gz) gzip -t "$part" 2>/dev/null || die 1 "the backup is no whole gzip file" ;;
esac
sync "$part"
# Under its name it is whole, or not there.
mv -f "$part" "$BACKUP_DIR/$file"

if mounted=$(findmnt -n -o TARGET -t fuse.ferryfs -T "$BACKUP_DIR"); then
    there=$(realpath "$BACKUP_DIR/$file")
    inside=${there#"${mounted%/}"/}
    ferryfs wait --timeout "$wait" "$mounted" "$inside" || die 1 "$file is not in the bucket yet; older backups stay"
fi

# Names sort by date. What only looks like one of ours is left alone.
number=0
for old in $(cd "$BACKUP_DIR" && ls -1 | grep -E "^$BACKUP_NAME-[0-9]{4}-[0-9]{2}-[0-9]{2}" | grep -F -- "$suffix" | sort -r); do
    number=$((number + 1))
    if [ "$number" -gt "$keep" ]; then
        rm -f -- "$BACKUP_DIR/$old"
        echo "removed $old"
    fi
done
echo "$file: $(stat -c %s "$BACKUP_DIR/$file") bytes"
