//! A disk of its own for a mount's cache and state, that can be full and can fail.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use ferryfs::disk;

/// EXT4_IOC_SHUTDOWN, ext4(5): `_IOR('X', 125, __u32)`.
const EXT4_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// EXT4_GOING_FLAGS_DEFAULT: what was written before is on the disk; nothing is from now on.
const GOING_DOWN: u32 = 0;

/// An ext4 in a file, mounted; dropping it takes it away. To be made before the mount that uses it.
pub struct SmallDisk {
    dir: PathBuf,
    image: PathBuf,
    _root: tempfile::TempDir,
}

#[track_caller]
fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl SmallDisk {
    /// So many MiB, of which a tenth is root's, with more words for mkfs.ext4.
    #[track_caller]
    pub fn new(mib: u64, mkfs: &[&str]) -> SmallDisk {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (dir, image) = (root.path().join("disk"), root.path().join("image"));
        fs::create_dir(&dir).unwrap();
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let mut words = vec!["-q", "-F", "-m", "10", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        words.extend(mkfs);
        words.push(image.to_str().unwrap());
        run("mkfs.ext4", &words);
        let disk = SmallDisk { dir, image, _root: root };
        disk.attach(&disk.dir);
        disk
    }

    /// The loop device goes with the last mount.
    #[track_caller]
    fn attach(&self, dir: &Path) {
        run("mount", &["-o", "loop", self.image.to_str().unwrap(), dir.to_str().unwrap()]);
    }

    /// Moves it to another directory, which is made.
    #[track_caller]
    pub fn move_to(&mut self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        disk::unmount(&self.dir, false).unwrap();
        self.dir = dir.to_owned();
        self.attach(dir);
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes free for others than root.
    pub fn available(&self) -> u64 {
        let space = disk::statvfs(&self.dir).unwrap();
        space.available * space.block_size
    }

    /// Bytes free for root.
    pub fn free(&self) -> u64 {
        let space = disk::statvfs(&self.dir).unwrap();
        space.free * space.block_size
    }

    /// Inodes free.
    pub fn inodes(&self) -> u64 {
        disk::statvfs(&self.dir).unwrap().files_free
    }

    /// Every read and write of it fails with EIO from now on.
    #[track_caller]
    pub fn fail(&self) {
        let dir = File::open(&self.dir).unwrap();
        #[expect(unsafe_code, reason = "no safe wrapper offers this ioctl")]
        // SAFETY: the descriptor is open, and the argument is a u32 that the kernel only reads.
        let done = unsafe { libc::ioctl(dir.as_raw_fd(), EXT4_IOC_SHUTDOWN, &GOING_DOWN) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// Works again, with what was on it. Nobody may have anything open there.
    #[track_caller]
    pub fn repair(&self) {
        disk::unmount(&self.dir, false).unwrap();
        self.attach(&self.dir);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        while matches!(disk::mount_info(&self.dir), Ok(Some(_))) {
            if let Err(error) = disk::unmount(&self.dir, true) {
                eprintln!("{} stays mounted: {error}", self.dir.display());
                break;
            }
        }
    }
}
