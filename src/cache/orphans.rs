//! Files that a crash left without a row.

use std::collections::HashSet;
use std::fs;

use crate::disk;
use crate::types::BackingNo;

use super::error::Result;
use super::layout::{Layout, Place};

/// Removes files that no row knows. IMPORTANT: only numbers below this start's first: a younger file
/// may be one whose row is still on its way.
pub(super) fn remove(layout: &Layout, known: &HashSet<BackingNo>, below: BackingNo) -> Result<usize> {
    let mut removed = 0;
    for place in [Place::Dirty, Place::Clean] {
        for shard in fs::read_dir(layout.root(place))? {
            let shard = shard?;
            if !shard.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let Some(no) = entry.file_name().to_str().and_then(Layout::parse) else { continue };
                if no < below && !known.contains(&no) {
                    disk::unlink(&entry.path())?;
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unknown_and_old_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("state"), &dir.path().join("cache")).unwrap();
        for (place, no) in [(Place::Dirty, 1), (Place::Dirty, 2), (Place::Clean, 3), (Place::Clean, 9)] {
            disk::create_exclusive(&layout.place(place, BackingNo(no)).unwrap(), 0o600).unwrap();
        }
        let known = HashSet::from([BackingNo(2)]);
        assert_eq!(remove(&layout, &known, BackingNo(9)).unwrap(), 2);
        let left = |place, no| layout.path(place, BackingNo(no)).exists();
        assert!(!left(Place::Dirty, 1) && left(Place::Dirty, 2) && !left(Place::Clean, 3) && left(Place::Clean, 9));
    }

    #[test]
    fn a_file_is_found_in_either_place() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("state"), &dir.path().join("cache")).unwrap();
        let no = BackingNo(0x1234);
        disk::create_exclusive(&layout.place(Place::Dirty, no).unwrap(), 0o600).unwrap();
        layout.transfer(no, Place::Dirty, Place::Clean).unwrap();
        layout.transfer(no, Place::Dirty, Place::Clean).unwrap();
        assert!(layout.path(Place::Clean, no).exists());
        layout.find(no, disk::open_read).unwrap();
        layout.transfer(no, Place::Clean, Place::Dirty).unwrap();
        layout.find(no, disk::open_read).unwrap();
        assert!(layout.transfer(BackingNo(7), Place::Dirty, Place::Clean).is_err());
    }
}
