//! Programs that wait for a store that does not answer: what ends them, and what does not.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferryfs::emulator::{Action, Fault, Match};
use rustix::process::{Pid, Signal, kill_process};

use super::both;
use super::harness::{Cloud, Guarded, Mount, names, pattern, until};
use super::remote::{clean_files, stored};

/// A killed program is gone within this time.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Fetched whole when it is opened.
const SMALL: usize = 50_000;
/// Served while it arrives.
const LARGE: usize = 20 << 20;

fn start(dir: &Path, script: &str) -> Guarded {
    let mut command = Command::new("/bin/sh");
    // Without exec it would be the shell that is signalled.
    command.args(["-c", &format!("exec {script}")]).current_dir(dir);
    Guarded(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
}

fn signal(program: &Guarded, signal: Signal) {
    kill_process(Pid::from_child(&program.0), signal).unwrap();
}

/// It ends by this signal, soon.
#[track_caller]
fn dies(program: &mut Guarded, by: Signal, what: &str) {
    use std::os::unix::process::ExitStatusExt;
    let began = Instant::now();
    signal(program, by);
    let status = loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < AT_ONCE, "{what} still waits {:?} after {by:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.signal(), Some(by.as_raw()), "{what}: {status}");
}

/// `script` asks a store that does not answer, until it is killed.
#[track_caller]
fn blocks_and_dies(cloud: &Cloud, mount: &Mount, script: &str, by: Signal) {
    let before = cloud.hung();
    let mut program = start(mount.dir(), script);
    until(&format!("{script} asks the store"), || cloud.hung() > before);
    // Longer than anybody waits unwatched.
    std::thread::sleep(Duration::from_millis(250));
    assert!(program.0.try_wait().unwrap().is_none(), "{script} does not wait");
    dies(&mut program, by, script);
}

fn read_to_end(mut program: Guarded) -> Vec<u8> {
    let mut bytes = Vec::new();
    program.0.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(program.0.wait().unwrap().success());
    bytes
}

#[test]
fn a_program_that_waits_for_the_store_dies_at_once_when_it_is_killed() {
    both(
        |options| options.attr_ttl = "1h",
        |cloud, mount| {
            let (small, large) = (pattern(1, SMALL), pattern(2, LARGE));
            for dir in ["listed", "unlisted", "other"] {
                cloud.put(&format!("data/{dir}/small"), &small);
                cloud.put(&format!("data/{dir}/large"), &large);
            }
            for name in ["small", "large"] {
                fs::metadata(mount.path("listed").join(name)).unwrap();
            }
            cloud.emulator().clear_log();
            cloud.hang();
            let scripts = [
                "ls unlisted",
                "stat unlisted/small",
                "cat unlisted/small",
                "cat listed/small",
                "cat listed/large",
                "cp listed/small listed/copy",
                "cp listed/large ../large",
                "truncate -s 7 listed/small",
                "mkdir unlisted/new",
                "touch other/new",
                "rm other/small",
                "mv other/small listed/moved",
                "rmdir other",
            ];
            for (round, script) in scripts.into_iter().enumerate() {
                let by = [Signal::INT, Signal::KILL, Signal::TERM, Signal::QUIT][round % 4];
                blocks_and_dies(cloud, mount, script, by);
            }
            let asked = cloud.hung();
            assert_eq!(cloud.emulator().stores(), [], "nothing was made of what was given up");
            cloud.emulator().clear_faults();
            // At once: nobody waits for what those have asked for.
            let began = Instant::now();
            assert_eq!(names(&mount.path("unlisted")), ["large", "small"], "after {asked} requests in vain");
            assert_eq!(names(&mount.path("other")), ["large", "small"]);
            for dir in ["listed", "unlisted", "other"] {
                assert!(fs::read(mount.path(dir).join("small")).unwrap() == small);
                assert!(fs::read(mount.path(dir).join("large")).unwrap() == large);
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
            mount.wait_all();
            until("what nobody wants is let go", || clean_files(mount) == 6);
            let status = mount.status();
            assert_eq!((status.uploads_files, &status.torn, &status.failed), (0, &Vec::new(), &Vec::new()));
            assert!(status.mappings.iter().all(|mapping| mapping.online), "{:?}", status.mappings);
        },
    );
}

#[test]
fn who_waits_for_the_same_is_not_disturbed() {
    both(
        |_| {},
        |cloud, mount| {
            let small = pattern(3, SMALL);
            cloud.put("data/small", &small);
            cloud.put("data/dir/name", b"content");
            fs::metadata(mount.path("small")).unwrap();
            cloud.emulator().clear_log();
            cloud.fault("GET", "object", "data/small", Action::Delay(3_000), 1);
            let mut first = start(mount.dir(), "cat small");
            until("it is asked for", || cloud.emulator().faults().is_empty());
            let opens = mount.status().requests.get("open").copied().unwrap_or_default();
            let second = start(mount.dir(), "cat small");
            until("another one waits for it", || mount.status().requests["open"] > opens);
            dies(&mut first, Signal::INT, "the first reader");
            assert!(read_to_end(second) == small);
            assert_eq!(cloud.count("GET", "data/small"), 1, "it was fetched once");
            // The same of a listing: who still waits asks anew.
            let list = Match { sub_resource: Some("list".to_owned()), ..Match::default() };
            cloud.emulator().add_fault(Fault::new(list, Action::Delay(600_000)));
            let mut first = start(mount.dir(), "ls dir");
            until("it is asked for", || cloud.emulator().faults().is_empty());
            let lists = mount.status().requests["opendir"];
            let second = start(mount.dir(), "ls dir");
            until("another one waits for it", || mount.status().requests["opendir"] > lists);
            dies(&mut first, Signal::KILL, "the first to list");
            assert_eq!(read_to_end(second), b"name\n");
        },
    );
}

/// Opens and reads a file whole, with a SIGALRM every 20 ms that interrupts whatever can be. It is handled
/// when the call is over.
const ALARMED: &str = r#"
    use Time::HiRes qw(setitimer ITIMER_REAL);
    use Fcntl;
    $SIG{ALRM} = sub { $alarms++ };
    setitimer(ITIMER_REAL, 0.02, 0.02);
    sysopen(my $file, $ARGV[0], O_RDONLY) or die "open: $!";
    my ($all, $part) = ('', '');
    while (my $read = sysread($file, $part, 1 << 20) // die "read: $!") { $all .= $part }
    close($file) or die "close: $!";
    setitimer(ITIMER_REAL, 0);
    print length($all), ' ', unpack('%32C*', $all), ' ', ($alarms ? 'alarmed' : 'never alarmed');
"#;

#[test]
fn a_signal_that_a_program_handles_does_not_end_its_wait() {
    both(
        |_| {},
        |cloud, mount| {
            let files = [("small", pattern(4, SMALL)), ("large", pattern(4, LARGE))];
            files.iter().for_each(|(name, bytes)| cloud.put(&format!("data/{name}"), bytes));
            for (name, bytes) in files {
                let size = bytes.len();
                cloud.fault("GET", "object", &format!("data/{name}"), Action::Delay(1_500), 1);
                let output = Command::new("perl").args(["-e", ALARMED]).arg(mount.path(name)).output().unwrap();
                let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
                let said = String::from_utf8(output.stdout).unwrap();
                assert_eq!(said, format!("{size} {sum} alarmed"), "{}", String::from_utf8_lossy(&output.stderr));
                cloud.all_faults_met();
            }
        },
    );
}

/// Writes `file` and waits for the bucket by close(2) or fsync(2).
fn writer(call: &str) -> String {
    format!(
        "perl -MIO::Handle -e 'open(my $f, \">\", \"file\") or die; $f->autoflush(1); print $f \"content\" or die; \
         {call} or die'"
    )
}

#[test]
fn a_killed_program_waits_for_no_upload_and_the_upload_goes_on() {
    for (setting, call) in [("close", "close($f)"), ("fsync", "$f->sync")] {
        both(
            |options| options.write_back = format!("{setting} = \"remote\""),
            |cloud, mount| {
                cloud.fault("PUT", "object", "data/file", Action::Delay(4_000), 1);
                let mut program = start(mount.dir(), &writer(call));
                until("it is sent", || cloud.emulator().faults().is_empty());
                std::thread::sleep(Duration::from_millis(250));
                assert!(program.0.try_wait().unwrap().is_none(), "{call} does not wait");
                dies(&mut program, Signal::INT, call);
                assert_eq!(cloud.object("data/file").map(|_| ()), None, "the store was quicker than the signal");
                mount.wait_all();
                stored(cloud, "data/file", &[b"content"]);
                assert_eq!(fs::read(mount.path("file")).unwrap(), b"content");
            },
        );
    }
}
