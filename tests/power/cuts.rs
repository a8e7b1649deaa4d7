//! Programs work, the power goes, the machine starts again: what they were told holds, and they go on.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferryfs::checksum::crc64;
use ferryfs::control::{HeldEntry, Status};

use super::device::Format;
use super::ledger::{Entry, Ledger, State};
use super::machine::Machine;
use super::platter::Cut;
use super::programs::{Program, Random, THEIRS, theirs};
use crate::harness::{BUCKET, Cloud, Mount, Options, PATIENCE, PREFIX, shown};

/// Programs at once.
const PROGRAMS: usize = 3;
/// Unless `FERRYFS_CUTS` says how often.
const CUTS: usize = 12;
/// The power goes within so many milliseconds.
const LONGEST: usize = 1200;

struct World {
    cloud: Cloud,
    machine: Machine,
    ledger: Arc<Ledger>,
    random: Random,
}

impl World {
    fn new(format: Format, seed: u64) -> World {
        let cloud = Cloud::start();
        for number in 0..THEIRS {
            let (name, bytes) = theirs(number);
            cloud.put(&key(&name), &bytes);
        }
        let options = Options { write_back: "threshold = \"1MiB\"".to_owned(), ..Options::default() };
        let machine = Machine::start(&cloud, format, options);
        for program in 0..PROGRAMS {
            fs::create_dir(machine.mount.path(&format!("p{program}"))).unwrap();
        }
        fs::File::open(machine.mount.dir()).unwrap().sync_all().unwrap();
        World { cloud, machine, ledger: Arc::default(), random: Random(seed | 1) }
    }

    /// Lets programs work, cuts the power and looks at what is left. Returns how much was lost of what
    /// was written and not flushed.
    fn round(&mut self, number: u64, cut: Cut) -> usize {
        let programs: Vec<_> = (0..PROGRAMS)
            .map(|program| {
                let mut program = Program {
                    ledger: self.ledger.clone(),
                    root: self.machine.mount.dir().to_owned(),
                    dir: format!("p{program}"),
                    random: Random(self.random.below(1 << 30) as u64 | 1),
                    number: number * 1_000_000,
                };
                thread::spawn(move || program.run())
            })
            .collect();
        thread::sleep(Duration::from_millis(u64::try_from(self.random.below(LONGEST)).unwrap()));
        self.machine.halt();
        // What they are told from now on is theirs to lose.
        let told = self.ledger.entries();
        let renames = self.ledger.renames();
        let (left, lost) = self.machine.cut(cut);
        let mut steps = 0;
        for program in programs {
            let (done, error) = program.join().unwrap();
            assert!(is_cut(&error), "a program was told: {error}");
            steps += done;
        }
        // An object that is there now was there at the cut, or is of a request that was under way.
        let stored: BTreeSet<String> = self.cloud.keys().into_iter().collect();
        self.machine.restart(left);
        let mount = &self.machine.mount;
        let held = held(mount, &mount.status());
        println!("cut {number} ({cut:?}): {steps} steps, {lost} writes lost, {} paths held", held.len());
        let mut begun = self.ledger.entries();
        for (path, entry) in &mut begun {
            let told = told.get(path).cloned().unwrap_or(Entry {
                told: 0,
                given_up: false,
                replaced: false,
                modes: vec![],
                ..entry.clone()
            });
            // Begun after the look, and so perhaps before the cut.
            let entry = Entry {
                states: entry.states.clone(),
                given_up: told.given_up || entry.given_up,
                replaced: told.replaced || entry.replaced,
                ..told
            };
            self.check(path, &entry, held.contains(path), stored.contains(&key(path)));
        }
        for (from, to) in renames.into_iter().filter(|(_, to)| begun[to].states.len() == 2) {
            let there = |path: &str| mount.path(path).exists();
            assert!(there(&from) || there(&to), "neither {from} nor {to} is there");
        }
        self.ledger.end_renames();
        for number in 0..THEIRS {
            let (name, bytes) = theirs(number);
            assert!(fs::read(mount.path(&name)).unwrap() == bytes, "{name}, of the bucket only");
        }
        self.check_bucket();
        lost
    }

    fn read(&self, path: &str) -> State {
        match fs::read(self.machine.mount.path(path)) {
            Ok(bytes) => Some(Arc::new(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("{path}: {error}\n{}", self.machine.mount.log()),
        }
    }

    /// A path holds what a cut may leave there.
    fn check(&self, path: &str, entry: &Entry, held: bool, stored: bool) {
        let promised = entry.states[entry.told].is_some() && !entry.given_up;
        let is_good = |shown: &State| {
            entry.states[entry.told..].contains(shown)
                || match shown {
                    // What was overwritten without a net is what the bucket still has of it, or held.
                    Some(bytes) if entry.given_up => {
                        self.ledger.was_closed(path, bytes.len() as u64, crc64(bytes).0)
                            || held && (!stored || entry.replaced)
                    }
                    // A program did not get to its fsync; nothing is hidden by what is left of it.
                    // Or what it had removed is shown again, which the bucket still has.
                    Some(bytes) => {
                        let closed = self.ledger.was_closed(path, bytes.len() as u64, crc64(bytes).0);
                        !promised && held && (!stored || closed || path.ends_with(".tmp"))
                    }
                    None => entry.given_up && !stored,
                }
        };
        let mut shown = self.read(path);
        let deadline = Instant::now() + PATIENCE;
        // That an upload had arrived may be known to the bucket alone, which is asked after the start.
        while !is_good(&shown) && stored && !promised && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
            shown = self.read(path);
        }
        let described = |state: &State| {
            state.as_ref().map_or("nothing".to_owned(), |bytes| {
                format!("{} bytes {:08x}", bytes.len(), crc64(bytes).0 & 0xffff_ffff)
            })
        };
        assert!(
            is_good(&shown),
            "{path} (held: {held}, stored: {stored}, given up: {}): {} after {:?}, told of {}\n{}",
            entry.given_up,
            described(&shown),
            entry.states.iter().map(described).collect::<Vec<_>>(),
            entry.told,
            self.machine.mount.log(),
        );
        let whole = entry.states[entry.told..].contains(&shown);
        if whole && promised && !entry.modes.is_empty() {
            let mode = fs::metadata(self.machine.mount.path(path)).unwrap().permissions().mode() & 0o7777;
            assert!(entry.modes.contains(&mode), "{path}: mode {mode:o}, of {:?}", entry.modes);
        }
        if held && !whole { self.ledger.forget(path) } else { self.ledger.left(path, shown) }
    }

    /// The bucket never had a version that no program had closed (P2, J2).
    fn check_bucket(&self) {
        for store in self.cloud.emulator().stores().iter().filter(|store| store.bucket == BUCKET) {
            let Some(path) = store.key.strip_prefix(PREFIX) else { continue };
            if path.ends_with('/') {
                continue;
            }
            assert!(self.ledger.was_closed(path, store.size, store.crc64), "no program closed it: {store:?}");
        }
    }

    /// The bucket has what programs left, but for what is held.
    fn is_up(&self, status: &Status) -> bool {
        let held = held(&self.machine.mount, status);
        self.ledger.entries().iter().filter(|(path, _)| !held.contains(*path)).all(|(path, entry)| {
            let stored = self.cloud.object(&key(path)).map(|object| object.crc64());
            stored == entry.states.last().unwrap().as_ref().map(|bytes| crc64(bytes).0)
        })
    }

    /// In the end the bucket has what the mount shows, but for what is held.
    fn check_end(&self) {
        let mount = &self.machine.mount;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            let status = mount.status();
            // What is held holds back more than itself: the removal of what it will replace, its rename.
            if status.announcements_owed + status.records_owed == 0 && self.is_up(&status) {
                break status;
            }
            assert!(Instant::now() < deadline, "never all is up: {status:?}\n{}", mount.log());
            thread::sleep(Duration::from_millis(20));
        };
        assert!(status.failed.is_empty(), "{status:?}");
        let held = held(mount, &status);
        for (path, entry) in self.ledger.entries() {
            if held.contains(&path) {
                continue;
            }
            match entry.states.last().unwrap() {
                Some(bytes) => self.cloud.holds(&key(&path), bytes),
                None => assert!(self.cloud.object(&key(&path)).is_none(), "{path} is gone, its object is not"),
            }
        }
        let recorded: BTreeSet<String> = self.cloud.recorded("success_object").into_iter().collect();
        let events = self.cloud.emulator().oms_events();
        for key in self.cloud.keys() {
            if key.starts_with(&self::key("theirs/")) {
                continue;
            }
            let stored = self.cloud.object(&key).unwrap().modified_ns();
            assert!(events.iter().any(|event| event.key == key && event.time_ns >= stored), "{key} is not announced");
            assert!(recorded.contains(&key), "{key} has no record");
        }
        self.check_bucket();
    }
}

/// Paths of held content: all of them, where `status` names a hundred.
fn held(mount: &Mount, status: &Status) -> BTreeSet<String> {
    let output = mount.run(&["recover", "list"], &["--json"]);
    assert!(output.status.success(), "{}", shown(&output));
    let torn: Vec<HeldEntry> = serde_json::from_slice(&output.stdout).unwrap();
    let paths = torn.into_iter().map(|torn| torn.path).chain(status.held.iter().map(|held| held.path.clone()));
    paths.map(|path| path.trim_start_matches('/').to_owned()).collect()
}

fn key(path: &str) -> String {
    format!("{PREFIX}{path}")
}

/// What the end of the daemon looks like to programs.
fn is_cut(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO))
}

fn survives(format: Format) {
    let given = std::env::var("FERRYFS_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into());
    let cuts = std::env::var("FERRYFS_CUTS").map_or(CUTS, |cuts| cuts.parse().unwrap());
    println!("FERRYFS_SEED={seed}");
    let mut world = World::new(format, seed);
    let mut lost = 0;
    for number in 1..=cuts {
        let cut = match number % 3 {
            0 => Cut::KeepAll,
            1 => Cut::KeepNone,
            _ => Cut::Keep(world.random.below(1 << 30) as u64),
        };
        lost += world.round(number as u64, cut);
    }
    println!("{lost} writes lost in all");
    world.check_end();
}

#[test]
#[ignore = "minutes long: see scripts/soak.sh"]
fn what_programs_were_told_outlives_power_cuts() {
    survives(Format::Ext4);
}
