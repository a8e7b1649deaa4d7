//! What runs on the machine until its power goes: each in a directory of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::ledger::{Ledger, State};
use super::platter::BLOCK;
use crate::harness::pattern;

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % end
    }
}

/// A program that does one thing after another until an error stops it.
pub struct Program {
    pub ledger: Arc<Ledger>,
    /// The mount.
    pub root: PathBuf,
    /// Its directory in the mount.
    pub dir: String,
    pub random: Random,
    /// Names and contents are told apart by it.
    pub number: u64,
}

impl Program {
    /// Returns how many things it has done, and why it did no more.
    pub fn run(&mut self) -> (usize, io::Error) {
        let mut done = 0;
        loop {
            match self.step() {
                Ok(()) => done += 1,
                Err(error) => return (done, error),
            }
        }
    }

    fn step(&mut self) -> io::Result<()> {
        match self.random.below(13) {
            0 | 1 => self.create(),
            2 => self.create_with_o_sync(),
            3 | 4 => self.save(),
            5 => self.save_carelessly(),
            6 => self.write_within(),
            7 => self.rewrite(),
            8 => self.remove(),
            9 => self.rename(),
            10 => self.change_mode(),
            11 => self.read(),
            _ => self.create_plainly(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn new_name(&mut self) -> String {
        self.number += 1;
        format!("{}/f{}", self.dir, self.number)
    }

    /// Content unlike any other.
    fn content(&mut self) -> Arc<Vec<u8>> {
        let size = match self.random.below(20) {
            0 => 1_500_000 + self.random.below(1_000_000),
            1..4 => 100_000 + self.random.below(300_000),
            _ => 100 + self.random.below(20_000),
        };
        Arc::new(pattern(self.random.below(1 << 30) as u64, size))
    }

    /// A file of ours that is there, and its content.
    fn some_file(&mut self) -> Option<(String, Arc<Vec<u8>>)> {
        let ours = format!("{}/f", self.dir);
        let entries = self.ledger.entries();
        let there: Vec<(&String, &State)> = entries
            .iter()
            .filter(|(path, entry)| path.starts_with(&ours) && !entry.given_up)
            .map(|(path, entry)| (path, entry.states.last().unwrap()))
            .filter(|(_, state)| state.is_some())
            .collect();
        if there.is_empty() {
            return None;
        }
        let (path, state) = there[self.random.below(there.len())];
        Some((path.clone(), state.clone()?))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(self.path(&self.dir))?.sync_all()
    }

    /// fsync, then close.
    fn create(&mut self) -> io::Result<()> {
        let (name, bytes) = (self.new_name(), self.content());
        let state = self.ledger.begin(&name, Some(bytes.clone()));
        let mut file = File::create(self.path(&name))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        self.ledger.told(&name, state);
        self.ledger.may_go_up(&name, &bytes);
        Ok(())
    }

    /// Record by record. A record is a block: a cut leaves it or not.
    fn create_with_o_sync(&mut self) -> io::Result<()> {
        let name = self.new_name();
        let state = self.ledger.begin(&name, Some(Arc::default()));
        let mut file = OpenOptions::new();
        let mut file = file.write(true).create_new(true).custom_flags(libc::O_SYNC).open(self.path(&name))?;
        self.ledger.told(&name, state);
        let mut bytes = Vec::new();
        for _ in 0..4 {
            let from = bytes.len();
            bytes.extend(pattern(self.random.below(1 << 30) as u64, BLOCK));
            let state = self.ledger.begin_within(&name, bytes.clone());
            file.write_all(&bytes[from..])?;
            self.ledger.told(&name, state);
        }
        self.ledger.may_go_up(&name, &bytes);
        Ok(())
    }

    /// As an editor: beside it, fsync, rename, fsync of the directory.
    fn save(&mut self) -> io::Result<()> {
        let name = self.some_file().map_or_else(|| self.new_name(), |(name, _)| name);
        let bytes = self.content();
        let temporary = format!("{name}.tmp");
        let state = self.ledger.begin(&temporary, Some(bytes.clone()));
        let mut file = File::create(self.path(&temporary))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        self.ledger.told(&temporary, state);
        self.ledger.may_go_up(&temporary, &bytes);
        drop(file);
        let gone = self.ledger.begin(&temporary, None);
        let state = self.ledger.begin(&name, Some(bytes.clone()));
        self.ledger.may_go_up(&name, &bytes);
        fs::rename(self.path(&temporary), self.path(&name))?;
        self.sync_dir()?;
        self.ledger.told(&name, state);
        self.ledger.told(&temporary, gone);
        Ok(())
    }

    /// The same without any fsync.
    fn save_carelessly(&mut self) -> io::Result<()> {
        let Some((name, _)) = self.some_file() else { return Ok(()) };
        let bytes = self.content();
        let temporary = format!("{name}.tmp");
        self.ledger.begin(&temporary, Some(bytes.clone()));
        self.ledger.may_go_up(&temporary, &bytes);
        fs::write(self.path(&temporary), &**bytes)?;
        self.ledger.begin(&temporary, None);
        self.ledger.replace(&name);
        self.ledger.begin(&name, Some(bytes.clone()));
        self.ledger.may_go_up(&name, &bytes);
        fs::rename(self.path(&temporary), self.path(&name))
    }

    /// One block, in place, then fsync: as a database.
    fn write_within(&mut self) -> io::Result<()> {
        let Some((name, bytes)) = self.some_file() else { return Ok(()) };
        if bytes.len() < BLOCK {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).open(self.path(&name))?;
        let mut bytes = (*bytes).clone();
        for _ in 0..2 {
            let at = self.random.below(bytes.len() / BLOCK) * BLOCK;
            bytes[at..at + BLOCK].copy_from_slice(&pattern(self.random.below(1 << 30) as u64, BLOCK));
            let state = self.ledger.begin_within(&name, bytes.clone());
            file.write_all_at(&bytes[at..at + BLOCK], at as u64)?;
            file.sync_data()?;
            self.ledger.told(&name, state);
        }
        self.ledger.may_go_up(&name, &bytes);
        Ok(())
    }

    /// O_TRUNC and no fsync.
    fn rewrite(&mut self) -> io::Result<()> {
        let Some((name, _)) = self.some_file() else { return Ok(()) };
        let bytes = self.content();
        self.ledger.give_up(&name);
        self.ledger.begin(&name, Some(bytes.clone()));
        self.ledger.may_go_up(&name, &bytes);
        fs::write(self.path(&name), &**bytes)
    }

    fn remove(&mut self) -> io::Result<()> {
        let Some((name, _)) = self.some_file() else { return Ok(()) };
        let state = self.ledger.begin(&name, None);
        fs::remove_file(self.path(&name))?;
        if self.random.below(2) == 0 {
            self.sync_dir()?;
            self.ledger.told(&name, state);
        }
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        let Some((from, bytes)) = self.some_file() else { return Ok(()) };
        let to = self.new_name();
        let on_disk = self.ledger.entries()[&from].is_told();
        let gone = self.ledger.begin(&from, None);
        let state = self.ledger.begin(&to, Some(bytes.clone()));
        if on_disk {
            self.ledger.begin_rename(&from, &to);
        }
        self.ledger.may_go_up(&to, &bytes);
        fs::rename(self.path(&from), self.path(&to))?;
        self.sync_dir()?;
        self.ledger.told(&from, gone);
        if on_disk {
            self.ledger.told(&to, state);
        }
        Ok(())
    }

    fn change_mode(&mut self) -> io::Result<()> {
        let Some((name, _)) = self.some_file() else { return Ok(()) };
        let mode = [0o600, 0o640, 0o644, 0o700][self.random.below(4)];
        self.ledger.begin_mode(&name, mode);
        fs::set_permissions(self.path(&name), fs::Permissions::from_mode(mode))?;
        File::open(self.path(&name))?.sync_all()?;
        self.ledger.told_mode(&name, mode);
        Ok(())
    }

    fn create_plainly(&mut self) -> io::Result<()> {
        let (name, bytes) = (self.new_name(), self.content());
        self.ledger.begin(&name, Some(bytes.clone()));
        self.ledger.may_go_up(&name, &bytes);
        fs::write(self.path(&name), &**bytes)
    }

    /// What is in the bucket, and by that in the cache.
    fn read(&mut self) -> io::Result<()> {
        let (name, bytes) = theirs(self.random.below(THEIRS));
        assert!(fs::read(self.path(&name))? == bytes, "{name}");
        Ok(())
    }
}

/// Objects of another client, which nobody changes.
pub const THEIRS: usize = 40;

/// Name and content of one.
pub fn theirs(number: usize) -> (String, Vec<u8>) {
    (format!("theirs/{number}"), pattern(number as u64, 5000 + number * 1000))
}
