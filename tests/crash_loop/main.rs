//! SIGKILL of the daemon at random moments of its life while several programs work on the mount: of its run,
//! its start, its drain, its recovery. `scripts/crash-loop.sh` runs as many rounds as it is told.
//!
//! Each writer writes down what it begins and what was acknowledged. After a kill what was acknowledged is
//! there, what was begun has happened wholly or not at all or is held, and nothing else is there; what it is
//! that happened is then part of what must be there from now on.

#[path = "../harness/mod.rs"]
mod harness;

mod check;
mod cloud;
mod findings;
mod history;
mod model;
mod world;
mod writer;

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use harness::Options;
use harness::Random;
use world::World;

const TEST: &str = "nothing_is_lost_torn_duplicated_or_unannounced_by_random_kills";
/// Rounds unless told otherwise.
const ROUNDS: u64 = 5;
/// Rounds of one mount and one store; then others take their place.
const ROUNDS_OF_A_WORLD: u64 = 50;
/// So often all must get into the bucket.
const CHECKPOINT: u64 = 8;

/// When the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Run,
    Start,
    Drain,
    Recovery,
}

#[derive(Default)]
struct Tally {
    rounds: u64,
    kills: [u64; 4],
    acknowledged: u64,
    cut: u64,
    objects: u64,
    checkpoints: u64,
    slowest_wait: Duration,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Up to so many milliseconds pass.
fn pass(random: &mut Random, most_ms: u64) {
    thread::sleep(Duration::from_micros(random.below(most_ms * 1000)));
}

/// Kills the daemon at such a moment, and starts another.
fn kill(world: &mut World, moment: Moment, tally: &mut Tally) {
    let mut killed = |moment: Moment, was_running: bool| tally.kills[moment as usize] += u64::from(was_running);
    match moment {
        Moment::Run => {
            world.write();
            pass(&mut world.random, 700);
            killed(moment, world.kill());
            world.gather();
        }
        Moment::Drain => {
            world.write();
            world.warm();
            pass(&mut world.random, 300);
            if world.random.percent(50) {
                world.gather();
            }
            world.terminate();
            pass(&mut world.random, 400);
            killed(moment, world.kill());
            world.gather();
        }
        Moment::Start | Moment::Recovery => {
            world.write();
            pass(&mut world.random, 400);
            killed(Moment::Run, world.kill());
            world.gather();
            for _ in 0..=world.random.below(3) {
                world.start();
                if matches!(moment, Moment::Recovery) {
                    world.ready();
                }
                pass(&mut world.random, 200);
                killed(moment, world.kill());
            }
        }
    }
    world.start();
    world.ready();
    check::settle(world);
}

fn round(world: &mut World, tally: &mut Tally) {
    // Several kills one after the other without anybody having looked at the whole tree between them.
    for _ in 0..=world.random.below(2) {
        let moments =
            [Moment::Run, Moment::Run, Moment::Run, Moment::Run, Moment::Start, Moment::Drain, Moment::Recovery];
        let moment = *world.random.pick(&moments);
        kill(world, moment, tally);
    }
    check::round(world);
    tally.rounds += 1;
}

/// How a world's mount is configured.
fn options(random: &mut Random) -> Options {
    let close = *random.pick(&["process", "process", "process", "disk"]);
    Options {
        passthrough: random.percent(75),
        delay: random.pick::<&str>(&["20ms", "20ms", "200ms", "1s"]),
        cache_size: random.pick::<&str>(&["4GiB", "4GiB", "24MiB"]),
        attr_ttl: random.pick::<&str>(&["10s", "1s"]),
        write_back: format!("threshold = \"1MiB\"\nclose = \"{close}\""),
        ..Options::default()
    }
}

/// A new mount of a new store, until its end.
fn rounds(seed: u64, count: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let options = options(&mut random);
    let latency = Duration::from_millis(*random.pick(&[0, 0, 3, 15]));
    println!("seed {seed}: {count} rounds, latency {latency:?}, {options:?}");
    let mut world = World::new(TEST, seed, &options, latency);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        for done in 1..=count {
            round(&mut world, tally);
            if done == count || done % CHECKPOINT == 0 {
                tally.objects += check::checkpoint(&mut world);
                tally.checkpoints += 1;
            }
            if done % CHECKPOINT == 0 && world.random.percent(50) {
                // From here on all is in the bucket only.
                world.umount();
                std::fs::remove_dir_all(world.mount.cache_dir()).unwrap();
                world.start();
                world.ready();
            }
            if !world.findings.is_empty() {
                return;
            }
        }
        check::elsewhere(&mut world, &options);
        world.umount();
        check::journal(&mut world);
    }));
    tally.acknowledged += world.acknowledged;
    tally.cut += world.cut;
    tally.slowest_wait = tally.slowest_wait.max(world.slowest_wait);
    if ended.is_ok() && world.findings.is_empty() {
        return;
    }
    let (evidence, round) = (world.keep(), tally.rounds);
    eprint!("{}", world.findings);
    println!("{}", world.findings.sum());
    panic!("seed {seed}, round {round}: evidence in {}", evidence.display());
}

#[test]
fn nothing_is_lost_torn_duplicated_or_unannounced_by_random_kills() {
    if let Ok(task) = std::env::var(writer::VARIABLE) {
        return writer::run(&task);
    }
    let count = number("FERRYFS_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_micros();
    let seed = number("FERRYFS_SEED").unwrap_or_else(|| now().into());
    println!("FERRYFS_SEED={seed}");
    let (started, mut tally) = (Instant::now(), Tally::default());
    while tally.rounds < count {
        let next = ROUNDS_OF_A_WORLD.min(count - tally.rounds);
        rounds(seed + tally.rounds / ROUNDS_OF_A_WORLD, next, &mut tally);
    }
    let [run, start, drain, recovery] = tally.kills;
    println!(
        "{} rounds in {:.0?}: killed {run} times while running, {start} while starting, {drain} while draining, \
         {recovery} while recovering; {} operations acknowledged, {} cut; {} objects compared at {} checkpoints, of \
         which the longest took {:.1?} to be reached",
        tally.rounds,
        started.elapsed(),
        tally.acknowledged,
        tally.cut,
        tally.objects,
        tally.checkpoints,
        tally.slowest_wait
    );
    println!("{}", findings::Findings::default().sum());
    assert!(tally.acknowledged > 10 * tally.rounds, "the writers did next to nothing");
}
