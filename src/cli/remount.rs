//! `mount -o remount`: changes what the kernel itself enforces of a mount that is there.

use std::path::Path;

use rustix::mount::{MountFlags, mount_remount};

use super::Failure;
use crate::control;
use crate::disk;
use crate::fuse::FSTYPE;

/// Options of mount(8) and what each sets; the last of a kind wins, and what is not named is off, as
/// mount(2) has it. mount(8) names all that the mount has.
const FLAGS: [(&str, MountFlags, bool); 13] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("noatime", MountFlags::NOATIME, true),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("relatime", MountFlags::RELATIME, true),
];

/// Whether these options ask for a remount.
pub(super) fn is_asked(options: &[String]) -> bool {
    words(options).any(|word| word == "remount")
}

/// Changes the flags of the mount at `dir`. Options of ferryfs itself come along, since mount(8) joins
/// those of fstab to what it was asked for; they take a reload or a new mount, and are left alone.
pub(super) fn run(dir: &Path, options: &[String]) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("cannot remount {}: {error}", dir.display()));
    let dir = control::mount_path(dir).map_err(|error| failed(&error))?;
    let mounted = disk::mount_info(&dir).map_err(|error| failed(&error))?;
    if mounted.is_none_or(|there| there.fstype != FSTYPE) {
        return Err(failed(&"no ferryfs is mounted there"));
    }
    mount_remount(&dir, flags(options), c"").map_err(|error| failed(&error))
}

fn flags(options: &[String]) -> MountFlags {
    let mut flags = MountFlags::empty();
    for word in words(options) {
        for (name, flag, on) in FLAGS {
            if word == name {
                flags.set(flag, on);
            }
        }
    }
    flags
}

fn words(options: &[String]) -> impl Iterator<Item = &str> {
    options.iter().flat_map(|group| group.split(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_kind_wins_and_what_is_ours_is_left_alone() {
        let of = |text: &str| flags(&[text.to_owned()]);
        assert_eq!(
            of("rw,nosuid,relatime,user_id=0,remount,ro"),
            MountFlags::NOSUID | MountFlags::RELATIME | MountFlags::RDONLY
        );
        assert_eq!(of("remount,ro,rw,delay=1s"), MountFlags::empty());
        assert!(is_asked(&["rw".to_owned(), "noatime,remount".to_owned()]) && !is_asked(&["rw,remounted".to_owned()]));
    }
}
