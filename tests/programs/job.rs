//! The example of packaging/examples/nightly-backup, as it is shipped: on a plain directory, then on a mount.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use ferryfs::emulator::Action;

use super::harness::{BINARY, Cloud, Mount, Options, names, pattern, shown};
use super::{both, program, sh};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/examples/nightly-backup/nightly-backup.sh");

/// What the backup service says.
#[derive(Clone)]
enum Says {
    Backup(Vec<u8>),
    Refuses,
    /// Announces all of it, sends half.
    CutShort(Vec<u8>),
}

/// The backup service: one answer for every GET until it is changed. Ends with the process.
struct Service {
    says: Arc<Mutex<Says>>,
    url: String,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/production/latest.sql.gz?sign=a%2Bb", listener.local_addr().unwrap());
        let says = Arc::new(Mutex::new(Says::Refuses));
        let answers = says.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    request.push(byte[0]);
                }
                assert!(request.starts_with(b"GET /production/latest.sql.gz?sign=a%2Bb "), "{request:?}");
                let (status, length, body) = match answers.lock().unwrap().clone() {
                    Says::Backup(bytes) => ("200 OK", bytes.len(), bytes),
                    Says::Refuses => ("403 Forbidden", 6, b"denied".to_vec()),
                    Says::CutShort(bytes) => ("200 OK", bytes.len(), bytes[..bytes.len() / 2].to_vec()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                // curl may have gone.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        Service { says, url }
    }

    fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }
}

/// Compressed by gzip(1): what `seed` stands for.
fn backup(outside: &Path, seed: u64) -> Vec<u8> {
    let path = outside.join("dump.sql");
    fs::write(&path, pattern(seed, 300_000)).unwrap();
    sh(outside, "gzip -nf dump.sql");
    fs::read(outside.join("dump.sql.gz")).unwrap()
}

/// One place where the job runs.
struct Job<'a> {
    dir: PathBuf,
    service: &'a Service,
    mount: &'a Mount,
    mounted: bool,
    wait: &'static str,
}

impl Job<'_> {
    /// A run in the night of `date`.
    fn run(&self, date: &str) -> Output {
        let config = self.mount.outside("job.conf");
        let mounted = if self.mounted { "yes" } else { "no" };
        let text = format!(
            "BACKUP_URL='{}'\nBACKUP_DIR='{}'\nBACKUP_NAME=production\nBACKUP_KEEP=3\nBACKUP_RETRY=0\nBACKUP_WAIT={}\n\
             BACKUP_MOUNTED={mounted}\n",
            self.service.url,
            self.dir.display(),
            self.wait
        );
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command: Command = program(Path::new("/"), &[SCRIPT, config.to_str().unwrap()]);
        let path = format!("{}:{}", Path::new(BINARY).parent().unwrap().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("BACKUP_DATE", date);
        // As `ferryfs` of this mount is called.
        command.env("FERRYFS_RUN_DIR", self.mount.outside("run"));
        command.output().unwrap()
    }

    #[track_caller]
    fn fails(&self, date: &str, why: &str, kept: &[&str]) {
        let output = self.run(date);
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        assert!(shown(&output).contains(why), "{why}: {}", shown(&output));
        assert_eq!(names(&self.dir), kept, "nothing half, nothing removed");
    }

    /// Six nights, two of which fail. Returns what must be there at the end, by name.
    fn nights(&self) -> Vec<(String, Vec<u8>)> {
        let mut good = Vec::new();
        for (night, date) in ["2026-01-30", "2026-01-31", "2026-02-01"].into_iter().enumerate() {
            let bytes = backup(&self.mount.outside(""), night as u64);
            self.service.says(Says::Backup(bytes.clone()));
            let output = self.run(date);
            assert!(output.status.success(), "{}", shown(&output));
            good.push((format!("production-{date}.sql.gz"), bytes));
        }
        let others = ["notes-2020-01-01.sql.gz", "production-old.sql.gz"];
        for name in others {
            fs::write(self.dir.join(name), "somebody else's").unwrap();
        }
        let kept: Vec<&str> =
            [others[0]].into_iter().chain(good.iter().map(|(name, _)| &**name)).chain([others[1]]).collect();
        self.service.says(Says::Refuses);
        self.fails("2026-02-02", "the download failed", &kept);
        self.service.says(Says::CutShort(good[0].1.clone()));
        self.fails("2026-02-02", "the download failed", &kept);
        self.service.says(Says::Backup(good[0].1[..1000].to_vec()));
        self.fails("2026-02-02", "no whole gzip file", &kept);
        self.service.says(Says::Backup(Vec::new()));
        self.fails("2026-02-02", "empty", &kept);

        // The third of February, twice: the second run replaces the first one's.
        for seed in [10, 11] {
            let bytes = backup(&self.mount.outside(""), seed);
            self.service.says(Says::Backup(bytes.clone()));
            let output = self.run("2026-02-03");
            assert!(output.status.success(), "{}", shown(&output));
            if seed == 10 {
                assert!(shown(&output).contains("removed production-2026-01-30.sql.gz"), "{}", shown(&output));
            } else {
                good.push(("production-2026-02-03.sql.gz".to_owned(), bytes));
            }
        }
        good.remove(0);
        for name in others {
            good.push((name.to_owned(), b"somebody else's".to_vec()));
        }
        good.sort();
        assert_eq!(names(&self.dir), good.iter().map(|(name, _)| &**name).collect::<Vec<_>>());
        for (name, bytes) in &good {
            assert!(fs::read(self.dir.join(name)).unwrap() == *bytes, "{name}");
        }
        good
    }
}

#[test]
fn the_nightly_backup_runs_on_a_directory_and_unchanged_on_a_mount() {
    let test = |cloud: &Cloud, mount: &mut Mount| {
        let service = Service::start();
        let plain = mount.outside("plain");
        fs::create_dir(&plain).unwrap();
        let wanted = Job { dir: plain.clone(), service: &service, mount, mounted: false, wait: "60s" }.nights();

        // A mount point without its mount is no place for backups.
        let bare = Job { dir: plain, service: &service, mount, mounted: true, wait: "60s" };
        let output = bare.run("2026-02-04");
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        assert!(shown(&output).contains("is not on a ferryfs mount"), "{}", shown(&output));

        let dir = mount.path("backups");
        fs::create_dir(&dir).unwrap();
        let job = Job { dir: dir.clone(), service: &service, mount, mounted: true, wait: "60s" };
        assert_eq!(job.nights(), wanted);
        // The last run has returned, so its backup is safe already.
        cloud.holds(
            "data/backups/production-2026-02-03.sql.gz",
            &wanted.iter().find(|(name, _)| name.contains("02-03")).unwrap().1,
        );
        assert!(cloud.announced().iter().any(|key| key == "data/backups/production-2026-02-03.sql.gz"));

        mount.wait_all();
        let keys: Vec<String> = wanted.iter().map(|(name, _)| format!("data/backups/{name}")).collect();
        let stored: Vec<String> = cloud.keys().into_iter().filter(|key| key != "data/backups/").collect();
        assert_eq!(stored, keys, "old ones are pruned, and nothing half was ever stored");
        for (name, bytes) in &wanted {
            cloud.holds(&format!("data/backups/{name}"), bytes);
        }
        let told = cloud.announced();
        for date in ["01-30", "01-31", "02-01", "02-03"] {
            let key = format!("data/backups/production-2026-{date}.sql.gz");
            assert!(told.contains(&key), "{key} was never announced: {told:?}");
            assert!(cloud.recorded("success_object").contains(&key), "no record of {key}");
        }
        assert_eq!(cloud.count_by(|request| request.method == "PUT" && request.key.contains(".part")), 0);

        // While the bucket refuses, nothing older is removed, and the job says so; later it succeeds.
        let refused = Action::Status { status: 503, code: "ServiceUnavailable".to_owned(), retry_after: None };
        cloud.fault("PUT", "object", "data/backups/production-2026-02-05*", refused, u32::MAX);
        let last = wanted[1].1.clone();
        service.says(Says::Backup(last.clone()));
        let job = Job { wait: "1s", ..job };
        let output = job.run("2026-02-05");
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        assert!(shown(&output).contains("is not in the bucket yet"), "{}", shown(&output));
        assert_eq!(names(&dir).len(), wanted.len() + 1);
        cloud.emulator().clear_faults();
        let output = Job { wait: "60s", ..job }.run("2026-02-05");
        assert!(output.status.success(), "{}", shown(&output));
        let mut wanted = wanted;
        let oldest = wanted.iter().position(|(name, _)| name.starts_with("production-2026")).unwrap();
        wanted.remove(oldest);
        wanted.push(("production-2026-02-05.sql.gz".to_owned(), last));
        wanted.sort();
        mount.wait_all();

        mount.forget_all();
        for (name, bytes) in &wanted {
            assert!(fs::read(dir.join(name)).unwrap() == *bytes, "{name}");
        }
        assert_eq!(names(&dir).len(), wanted.len());
    };
    both(|options: &mut Options| options.delay = "200ms", test);
}
