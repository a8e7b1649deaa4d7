//! SIGKILL of the daemon at random moments while files are being copied.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferryfs::checksum::crc64;

use crate::harness::{Cloud, Mount, Options, PATIENCE, PREFIX, Random, pattern};

const FILES: usize = 200;
const KILLS: usize = 50;
/// Jobs that the copier is given at once: more than it can do before it is cut off.
const BATCH: usize = 40;
/// The daemon is killed within so many milliseconds.
const LONGEST: u64 = 300;

/// What a program that copies files does: `cp`, `cp -p`, and the save of an editor. A job counts once
/// the program that did it has ended well, which tells that close(2) returned without an error.
const COPIER: &str = r#"
while read -r job how name; do
    case $how in
    copy) cp "$SRC/$job" "$DIR/$name" </dev/null ;;
    keep) cp -p "$SRC/$job" "$DIR/$name" </dev/null ;;
    save) cp "$SRC/$job" "$DIR/$name.tmp" </dev/null && mv -f "$DIR/$name.tmp" "$DIR/$name" </dev/null ;;
    esac || exit 1
    echo "$job" >> "$DONE"
done
"#;

/// One copy of one version of one file.
struct Job {
    name: String,
    how: &'static str,
    bytes: Vec<u8>,
}

struct World {
    cloud: Cloud,
    mount: Mount,
    random: Random,
    blob: Vec<u8>,
    /// All that were ever begun.
    jobs: Vec<Job>,
    /// Of those the first so many are done.
    done: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let cloud = Cloud::start();
        let threshold = "threshold = \"1MiB\"".to_owned();
        let mount = Mount::new(&cloud, Options { write_back: threshold, ..Options::default() });
        fs::create_dir(mount.outside("src")).unwrap();
        let blob = pattern(seed, 8 << 20);
        World { cloud, mount, random: Random::new(seed), blob, jobs: Vec::new(), done: 0 }
    }

    /// The next job's content, unlike that of any other.
    fn plan(&mut self) {
        let number = self.jobs.len();
        let size = match self.random.below(10) {
            0 => (1 << 20) + self.random.below(2 << 20),
            1..4 => (64 << 10) + self.random.below(960 << 10),
            _ => 1024 + self.random.below(63 << 10),
        };
        let from = usize::try_from(self.random.below(5 << 20)).unwrap();
        let mut bytes = format!("{number:016}").into_bytes();
        bytes.extend_from_slice(&self.blob[from..from + usize::try_from(size).unwrap() - 16]);
        let how = ["copy", "keep", "save"][usize::try_from(self.random.below(3)).unwrap()];
        fs::write(self.source(number), &bytes).unwrap();
        self.jobs.push(Job { name: format!("file-{:03}", number % FILES), how, bytes });
    }

    fn source(&self, number: usize) -> PathBuf {
        self.mount.outside("src").join(number.to_string())
    }

    /// Starts the copier where it was cut off.
    fn copy(&mut self, batch: usize) -> Child {
        while self.jobs.len() < self.done + batch {
            self.plan();
        }
        let mut list = String::new();
        for (number, job) in self.jobs.iter().enumerate().skip(self.done) {
            writeln!(list, "{number} {} {}", job.how, job.name).unwrap();
        }
        let path = self.mount.outside("jobs");
        fs::write(&path, list).unwrap();
        Command::new("sh")
            .args(["-c", COPIER])
            .env("SRC", self.mount.outside("src"))
            .env("DIR", self.mount.dir())
            .env("DONE", self.mount.outside("done"))
            .stdin(fs::File::open(path).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Takes note of what the copier got done.
    fn count(&mut self) {
        let text = fs::read_to_string(self.mount.outside("done")).unwrap_or_default();
        let done: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(done.iter().copied().eq(0..done.len()), "each job once, in order: {done:?}");
        for number in self.done..done.len() {
            fs::remove_file(self.source(number)).unwrap();
        }
        self.done = done.len();
    }

    /// After a restart: what was acknowledged is there, and only what was being written is held.
    fn check_mount(&self) {
        let allowed: BTreeSet<String> = match self.jobs.get(self.done) {
            Some(cut) => [format!("/{}", cut.name), format!("/{}.tmp", cut.name)].into(),
            None => BTreeSet::new(),
        };
        for torn in self.mount.status().torn {
            assert!(allowed.contains(&torn.path), "held although its close returned: {torn:?}, cut was {allowed:?}");
        }
        for job in self.jobs[..self.done].iter().rev().take(3) {
            if allowed.contains(&format!("/{}", job.name)) {
                continue;
            }
            assert!(fs::read(self.mount.path(&job.name)).unwrap() == job.bytes, "{} after a restart", job.name);
        }
    }

    /// Every version that the bucket ever held was one that a program had closed.
    fn check_versions(&self) {
        let mut closed: HashMap<String, BTreeSet<(u64, u64)>> = HashMap::new();
        for job in &self.jobs {
            let version = (job.bytes.len() as u64, crc64(&job.bytes).0);
            for name in [job.name.clone(), format!("{}.tmp", job.name)] {
                closed.entry(format!("{PREFIX}{name}")).or_default().insert(version);
            }
        }
        let stores = self.cloud.emulator().stores();
        for store in stores.iter().filter(|store| store.key.starts_with(PREFIX)) {
            let good = closed.get(&store.key).is_some_and(|good| good.contains(&(store.size, store.crc64)));
            assert!(good, "torn, and in the bucket: {store:?}");
        }
    }

    fn check_bucket(&self) {
        let mut last: BTreeMap<String, &Job> = BTreeMap::new();
        for job in &self.jobs[..self.done] {
            last.insert(format!("{PREFIX}{}", job.name), job);
        }
        assert_eq!(last.len(), FILES);
        assert_eq!(self.cloud.keys(), last.keys().cloned().collect::<Vec<_>>());
        for (key, job) in &last {
            self.cloud.holds(key, &job.bytes);
        }
        // Each version that is there now was announced after it had come.
        let events = self.cloud.emulator().oms_events();
        let recorded: BTreeSet<String> = self.cloud.recorded("success_object").into_iter().collect();
        for key in last.keys() {
            let stored = self.cloud.object(key).unwrap().modified_ns();
            assert!(events.iter().any(|event| event.key == *key && event.time_ns >= stored), "{key} is not announced");
            assert!(recorded.contains(key), "{key} has no record");
        }
        assert_eq!(self.cloud.recorded("failed_object"), [""; 0]);
        assert_eq!(self.cloud.emulator().uploads(crate::harness::BUCKET), [], "uploads that nobody will complete");
    }
}

fn join(mut copier: Child) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = copier.try_wait().unwrap() {
            return status.success();
        }
        if Instant::now() > deadline {
            copier.kill().unwrap();
            copier.wait().unwrap();
            panic!("the copier hangs");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn no_acknowledged_file_is_lost_and_none_is_torn_by_fifty_kills() {
    let given = std::env::var("FERRYFS_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into());
    println!("FERRYFS_SEED={seed}");
    let mut world = World::new(seed);
    let mut cut = 0;
    for _ in 0..KILLS {
        let copier = world.copy(BATCH);
        thread::sleep(Duration::from_micros(world.random.below(LONGEST * 1000)));
        world.mount.kill9();
        cut += usize::from(!join(copier));
        world.count();
        world.mount.remount();
        world.check_mount();
    }
    println!("{} copies, {cut} of {KILLS} kills in the middle of one", world.done);
    assert!(cut > KILLS / 2, "the kills missed the copier: {cut}");
    // What is left of 200 files, and the one that was cut.
    let rest = FILES.saturating_sub(world.done).max(1);
    let copier = world.copy(rest);
    assert!(join(copier));
    world.count();
    world.mount.wait_all();
    world.check_versions();
    world.check_bucket();
}
