//! Databases: what they committed is there, and what they check of themselves is whole.

use std::fs;
use std::path::Path;

use super::harness::Options;
use super::{both, one, output, program, python, settles, sh};

/// Two processes that commit by turns as they get the lock; then one that is killed in a transaction.
const WRITERS: &str = r#"
import os, signal, sqlite3, sys, time
mode = sys.argv[1]
EACH = 60

def connect():
    db = sqlite3.connect("data.db", timeout=120, isolation_level=None)
    db.execute(f"PRAGMA journal_mode={mode}")
    db.execute("PRAGMA synchronous=FULL")
    return db

db = connect()
db.execute("CREATE TABLE t (writer INT, n INT, filler BLOB)")
db.close()
children = []
for writer in range(2):
    pid = os.fork()
    if pid == 0:
        db = connect()
        for n in range(EACH):
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO t VALUES (?, ?, randomblob(3000))", (writer, n))
            db.execute("UPDATE t SET filler = randomblob(2000) WHERE n = ?", (n // 2,))
            db.execute("COMMIT")
        db.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0

# One that commits a row, then is killed with a half-written transaction on the disk: its cache is too
# small for it, so that pages spill into the file itself.
ready, told = os.pipe()
pid = os.fork()
if pid == 0:
    db = connect()
    db.execute("PRAGMA cache_size=5")
    db.execute("INSERT INTO t VALUES (2, 0, 'committed')")
    db.execute("BEGIN IMMEDIATE")
    for n in range(1, 400):
        db.execute("INSERT INTO t VALUES (3, ?, randomblob(3000))", (n,))
    db.execute("UPDATE t SET filler = 'lost'")
    os.write(told, b"x")
    time.sleep(600)
assert os.read(ready, 1) == b"x"
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)

db = connect()
assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
db.execute("INSERT INTO t VALUES (4, 0, 'after')")
db.close()
"#;

const CHECK: &str = r#"
import sqlite3
db = sqlite3.connect("file:data.db?mode=ro", uri=True)
assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
for writer, count in db.execute("SELECT writer, count(*) FROM t GROUP BY writer ORDER BY writer"):
    print(writer, count)
print(db.execute("SELECT count(*) FROM t WHERE filler = 'lost'").fetchone()[0])
"#;

const COMMITTED: &str = "0 60\n1 60\n2 1\n4 1\n0\n";

#[test]
fn sqlite_keeps_what_was_committed_through_two_writers_and_a_kill() {
    for journal in ["delete", "wal"] {
        eprintln!("journal_mode {journal}");
        // A killed writer's file is a database that repairs itself.
        both(
            |options| options.mount = "killed_writer = \"upload\"\n".to_owned(),
            |cloud, mount| {
                output(&mut program(mount.dir(), &["python3", "-c", WRITERS, journal]));
                assert_eq!(python(mount.dir(), CHECK), COMMITTED);
                // Whoever closes last takes the journal away.
                sh(mount.dir(), "rm -f data.db-shm data.db-wal; test ! -e data.db-journal");
                let tree = settles(cloud, mount);
                assert_eq!(tree.keys().collect::<Vec<_>>(), ["data.db"]);
                assert_eq!(python(mount.dir(), CHECK), COMMITTED);
                let copy = mount.outside("copy");
                fs::create_dir(&copy).unwrap();
                fs::write(copy.join("data.db"), cloud.bytes("data/data.db").unwrap()).unwrap();
                assert_eq!(python(&copy, CHECK), COMMITTED, "the object itself is the database");
            },
        );
    }
}

/// In mount and process namespaces of its own: the server's user reaches the mount wherever it lies, its
/// sockets are nobody else's, and whatever runs ends with the first process.
const SERVER: &str = r#"
mount --bind "$PWD" /mnt
mount -t tmpfs none /media; chmod 1777 /media
cd /mnt
export HOME=/media
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
exec setpriv --reuid postgres --regid postgres --clear-groups sh -euc '
    PATH=$1:$PATH; export PATH PGHOST=/media PGDATABASE=postgres PGDATA=/mnt/data
    up() { pg_ctl start -w -t 100 -s -l /media/log -o "-k /media -c listen_addresses= -c max_connections=20 $1" || { cat /media/log; exit 1; }; }
    sums() {
        psql -XAtqc "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = sum(delta),
                            (SELECT sum(bbalance) FROM pgbench_branches) = sum(delta),
                            (SELECT sum(tbalance) FROM pgbench_tellers) = sum(delta), count(*) > 0 FROM pgbench_history"
        psql -XAtqc "SELECT count(*), sum(delta), md5(string_agg(aid || chr(44) || delta, chr(59) ORDER BY aid, delta, mtime)) FROM pgbench_history"
    }
    eval "$2"
' sh "$bin" "$SCRIPT"
"#;

/// Starts, as its own user, what `script` wants of PostgreSQL; returns what it prints.
#[track_caller]
fn postgres(mounted: &Path, script: &str) -> String {
    let isolated =
        ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"];
    output(program(mounted, &[&isolated[..], &["sh", "-euc", SERVER]].concat()).env("SCRIPT", script))
}

#[test]
fn postgresql_runs_restarts_and_comes_back_from_the_bucket() {
    let options = Options { delay: "1s", mount: "allow_other = true\n".to_owned(), ..Options::default() };
    one(options, |cloud, mount| {
        sh(mount.dir(), "install -d -o postgres -g postgres -m 700 data");
        let ran = postgres(
            mount.dir(),
            r#"
            initdb -k -A trust -E UTF8 --locale=C >/dev/null
            up "-c max_wal_size=64MB"
            pgbench -i -q -s 2 2>/dev/null
            pgbench -c 4 -j 2 -T 20 | grep "number of transactions actually processed" >&2
            sums
            pg_ctl stop -m immediate -s; up ""
            sums
            psql -XAtq -c CHECKPOINT -c "VACUUM FULL"
            pg_ctl restart -m fast -w -s -l /media/log
            sums
            pg_ctl stop -m fast -w -s
            pg_checksums --check | grep "Bad checksums"
            "#,
        );
        let lines: Vec<&str> = ran.lines().collect();
        let [balanced, history, .., checksums] = lines[..] else { panic!("{ran}") };
        assert_eq!(balanced, "t|t|t|t");
        // After the crash, after the restart.
        assert_eq!(lines[2..6], [balanced, history, balanced, history]);
        assert!(checksums.ends_with(" 0"), "{checksums}");

        settles(cloud, mount);
        let again = postgres(
            mount.dir(),
            r#"
            pg_checksums --check | grep "Bad checksums"
            up ""
            sums
            psql -XAtqc "SELECT count(*) FROM pgbench_accounts"
            pg_ctl stop -m fast -w -s
            "#,
        );
        assert_eq!(again.lines().collect::<Vec<_>>(), [checksums, balanced, history, "200000"]);
        mount.wait_all();
    });
}
