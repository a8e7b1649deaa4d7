//! Attributes of what carries none, when the configuration gives others than at the last start.

use std::fmt::Write as _;

use crate::journal::{Journal, Op};
use crate::types::{FileKind, Ino};

use super::error::Result;
use super::tree::Tree;

/// Row of the journal's `meta`: the defaults that the rows were made with.
const DEFAULTS: &str = "defaults";

impl Tree {
    /// What rows say of objects may be the defaults of then, and no row tells which: if they are others
    /// now, everything that the bucket can be asked again for is asked again.
    pub(super) fn renew_defaults(&mut self, journal: &Journal, ops: &mut Vec<Op>) -> Result<()> {
        let mut now = String::new();
        for mapping in &self.mappings {
            let d = &mapping.defaults;
            // Writing to a String cannot fail.
            let _ = write!(now, "{}:{}:{}:{:o}:{:o} ", mapping.target.0, d.uid, d.gid, d.file_mode, d.dir_mode);
        }
        let before = journal.meta(DEFAULTS)?;
        if before.as_ref() == Some(&now) {
            return Ok(());
        }
        ops.push(Op::SetMeta(DEFAULTS, now));
        if before.is_none() {
            return Ok(());
        }
        ops.push(Op::ForgetAttributes);
        let inos: Vec<Ino> = self.inodes.keys().copied().collect();
        for ino in inos {
            let top = self.is_top(ino);
            let defaults = match self.mapping_of(ino) {
                Some(mapping) => mapping.defaults,
                // The root that several mappings hang under has the first one's.
                None => match self.mappings.first() {
                    Some(mapping) if ino == Ino::ROOT => mapping.defaults,
                    _ => continue,
                },
            };
            let Some(inode) = self.get_mut(ino) else { continue };
            let row = &mut inode.row;
            let sent = row.remote.is_some() && row.attr_generation == row.remote_attr_generation;
            let bare = row.kind == FileKind::Dir && row.remote.is_none() && !row.marker_wanted;
            if top || bare {
                row.attrs = defaults.attrs(FileKind::Dir, row.attrs.mtime);
            } else if sent && row.linked {
                row.attrs_known = false;
            } else {
                continue;
            }
            if inode.persisted {
                self.persist(ino, ops);
            }
        }
        Ok(())
    }
}
