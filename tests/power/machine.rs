//! A machine with one disk, on which a daemon keeps state and cache; its power can be cut.

use std::fs;
use std::path::PathBuf;

use ferryfs::disk;
use rustix::process::{Pid, Signal, kill_process};

use super::device::{Device, Format};
use super::platter::{Cut, Image, Platter};
use crate::harness::{Cloud, Mount, Options};

/// The machine, on.
pub struct Machine {
    // In this order they go: the daemon, its disk, what it stood on.
    pub mount: Mount,
    device: Option<Device>,
    dir: tempfile::TempDir,
    format: Format,
    boots: u32,
}

/// What a cut has left.
pub struct Left(Image);

impl Machine {
    /// With a new disk.
    pub fn start(cloud: &Cloud, format: Format, options: Options) -> Machine {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let device = Device::attach(Platter::new(Format::BYTES, Image::default()), format, true, &disk);
        let mut mount = Mount::prepare(cloud, &Options { data: Some(disk), ..options });
        mount.env.push(("FERRYFS_BOOT_ID_FILE", boot_file(&dir).to_str().unwrap().to_owned()));
        let mut machine = Machine { mount, device: Some(device), dir, format, boots: 0 };
        machine.boot();
        machine
    }

    fn boot(&mut self) {
        self.boots += 1;
        fs::write(boot_file(&self.dir), format!("boot {}\n", self.boots)).unwrap();
        self.mount.remount();
    }

    /// The daemon does nothing more, in particular it sends no request. Programs may go on.
    pub fn halt(&self) {
        let pid = i32::try_from(self.mount.pid()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
    }

    /// Cuts the power of a halted machine. Every program on it gets an error, or its end, before long.
    pub fn cut(&mut self, cut: Cut) -> (Left, usize) {
        let (image, lost) = self.device.as_ref().unwrap().platter.cut(cut);
        self.mount.kill9();
        (Left(image), lost)
    }

    /// Starts it again, once all programs have ended.
    pub fn restart(&mut self, left: Left) {
        // The kernel keeps the backing files of the dead mount, and by that their disk.
        disk::unmount(self.mount.dir(), true).unwrap();
        self.device = None;
        let platter = Platter::new(Format::BYTES, left.0);
        self.device = Some(Device::attach(platter, self.format, false, &self.dir.path().join("disk")));
        self.boot();
    }
}

fn boot_file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("boot-id")
}
