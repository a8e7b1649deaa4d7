//! `ferryfs demo`: all of it against the emulator, by ordinary programs.

mod stage;
mod table;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::args::DemoArgs;
use super::output::print;
use stage::Stage;

/// Bytes of the file that goes up in parts, as dd counts them.
const LARGE_MIB: u32 = 64;

/// How long the uploads of the demo may take on a slow machine.
const WAIT: &str = "150s";

pub(super) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let stage = Arc::new(Stage::new()?);
    let failed = |error: std::io::Error| Failure::failed(format!("cannot run the demo: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (done, is_done) = tokio::sync::oneshot::channel();
    thread::spawn({
        let stage = Arc::clone(&stage);
        // Nobody listens any more once a signal has come.
        move || drop(done.send(play(&stage)))
    });
    let played = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            played = is_done => played.unwrap_or(Err(Failure::reported())),
            _ = interrupt.recv() => Err(Failure::failed("interrupted")),
            _ = terminate.recv() => Err(Failure::failed("terminated")),
        }
    });
    match played {
        Ok(()) if args.keep => {
            let told = stage.how_to_go_on();
            stage.keep();
            print(&told)
        }
        Ok(()) => {
            stage.unmount()?;
            stage.clear();
            print("unmounted, and everything taken away\n")
        }
        Err(failure) => {
            stage.tell_logs();
            stage.clear();
            Err(failure)
        }
    }
}

/// The play itself: mount, write, wait, look.
fn play(stage: &Stage) -> Result<(), Failure> {
    let emulator = stage.start_emulator()?;
    print(&format!("emulator: {}\n", emulator.store))?;
    stage.mount(&emulator)?;
    let mount = stage.mount_dir();
    print(&format!("mounted:  cos://{}/{} on {}\n\n", stage::BUCKET, stage::PREFIX, mount.display()))?;
    write(stage)?;
    print(&format!("\n$ ferryfs wait {}\n", mount.display()))?;
    stage.ferryfs(&["wait".as_ref(), mount.as_os_str(), "--timeout".as_ref(), WAIT.as_ref()])?;
    print("uploaded, verified, announced and recorded:\n\n")?;
    table::show(stage, &emulator)
}

/// Writes a small file, one that goes up in parts and a tree, and moves a new version over the first.
fn write(stage: &Stage) -> Result<(), Failure> {
    let sources = stage.path("sources");
    let make = |name: &str, text: &str| -> Result<(), Failure> {
        let path = sources.join(name);
        let parent = path.parent().unwrap_or(&sources);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
    };
    make("hello.txt", "Hello from the first version.\n")?;
    make("hello-again.txt", "Hello from the second version, moved over the first.\n")?;
    for number in 1..=3 {
        make(&format!("tree/branch-{number}/leaf.txt"), &format!("leaf {number}\n"))?;
    }
    make("tree/\u{6587}\u{6863} 1+1=2.txt", "any name that is a key\n")?;

    let mount = stage.mount_dir();
    run_program("cp", &[&sources.join("hello.txt"), &mount.join("hello.txt")], &[])?;
    run_program("cp", &[&sources.join("tree"), &mount.join("tree")], &["-r"])?;
    let large = format!("of={}", mount.join("large.bin").display());
    let count = format!("count={LARGE_MIB}");
    run_program("dd", &[], &["if=/dev/urandom", &large, "bs=1M", &count, "status=none"])?;
    run_program("cp", &[&sources.join("hello-again.txt"), &mount.join(".hello.txt.tmp")], &[])?;
    run_program("mv", &[&mount.join(".hello.txt.tmp"), &mount.join("hello.txt")], &["-f"])
}

fn run_program(program: &str, paths: &[&Path], flags: &[&str]) -> Result<(), Failure> {
    let shown: Vec<String> = flags
        .iter()
        .map(|flag| (*flag).to_owned())
        .chain(paths.iter().map(|path| path.display().to_string()))
        .collect();
    print(&format!("$ {program} {}\n", shown.join(" ")))?;
    let status = Command::new(program)
        .args(flags)
        .args(paths)
        .status()
        .map_err(|error| Failure::failed(format!("cannot run {program}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::failed(format!("{program} failed: {status}"))) }
}
