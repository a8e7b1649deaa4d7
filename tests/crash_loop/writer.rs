//! A program that works on the mount, as a process of its own. It writes down each operation before it
//! begins and again once it is acknowledged, and ends with the first that fails.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use super::model::Model;
use super::model::Node;
use super::model::Op;
use super::model::parent;
use crate::harness::Random;
use crate::harness::close;
use crate::harness::die_together;
use crate::harness::truncate;

/// Makes this binary a writer: the file of its [`Task`].
pub const VARIABLE: &str = "FERRYFS_CRASH_WRITER";

/// Files that a writer keeps at most, and of these above the size that goes up in parts.
const MOST_FILES: usize = 22;
const MOST_LARGE: usize = 2;
/// From here on a file goes up in parts (`write_back.threshold` of the mount).
pub const LARGE: u64 = 1 << 20;
/// Bytes that one write(2) writes.
const CHUNK: usize = 48 << 10;

/// What a writer must know.
#[derive(Serialize, Deserialize)]
pub struct Task {
    pub writer: u64,
    pub seed: u64,
    /// The mount.
    pub root: PathBuf,
    /// What it begins and what is acknowledged.
    pub journal: PathBuf,
    /// It ends once this exists.
    pub stop: PathBuf,
    /// The tree as it is.
    pub model: Model,
    /// No two writes of a run have the same.
    pub next_id: u64,
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
pub enum Line {
    Begun(Op),
    Done,
    /// errno
    Failed(i32),
}

/// Starts this binary as a writer.
pub fn spawn(task: &Task, file: &Path, test: &str) -> Child {
    fs::write(file, serde_json::to_vec(task).unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(VARIABLE, file);
    let said = File::create(file.with_extension("out")).unwrap();
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    die_together(&mut command);
    command.spawn().unwrap()
}

/// What a writer has written down.
pub fn read_journal(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The writer itself.
pub fn run(file: &str) {
    let task: Task = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // From within: after the mount is taken away nothing may be written below it.
    let device = |path| fs::metadata(path).map(|meta| meta.dev());
    let entered = std::env::set_current_dir(&task.root).and_then(|()| Ok(device(".")? != device("..")?));
    if !matches!(entered, Ok(true)) {
        println!("no mount: {entered:?}");
        return;
    }
    let journal = OpenOptions::new().append(true).create(true).open(&task.journal).unwrap();
    let mut writer = Writer {
        random: Random::new(task.seed),
        number: task.writer,
        model: task.model,
        journal,
        next_id: task.next_id,
    };
    while !task.stop.exists() && writer.act() {
        if writer.random.percent(20) {
            thread::sleep(Duration::from_micros(writer.random.below(4000)));
        }
    }
}

struct Writer {
    random: Random,
    number: u64,
    model: Model,
    journal: File,
    next_id: u64,
}

impl Writer {
    fn note(&mut self, line: &Line) {
        let mut text = serde_json::to_vec(line).unwrap();
        text.push(b'\n');
        self.journal.write_all(&text).unwrap();
    }

    /// Whether all went well.
    fn act(&mut self) -> bool {
        self.choose().into_iter().all(|op| {
            self.note(&Line::Begun(op.clone()));
            match perform(&op) {
                Ok(()) => {
                    self.note(&Line::Done);
                    self.model.apply(&op);
                    true
                }
                Err(error) => {
                    self.note(&Line::Failed(error.raw_os_error().unwrap_or(-1)));
                    false
                }
            }
        })
    }

    /// Whether a path is this writer's: its own directory, and its names in the shared one.
    fn is_ours(&self, path: &str) -> bool {
        let home = format!("w{}/", self.number);
        path.starts_with(&home) || path.starts_with(&format!("shared/w{}-", self.number))
    }

    fn paths(&self, wanted: impl Fn(&str, &Node) -> bool) -> Vec<String> {
        let ours = self.model.nodes.iter().filter(|(path, node)| self.is_ours(path) && wanted(path, node));
        ours.map(|(path, _)| path.clone()).collect()
    }

    fn one_of(&mut self, paths: &[String]) -> Option<String> {
        if paths.is_empty() { None } else { Some(self.random.pick(paths).clone()) }
    }

    /// A file that is not held, and meets `wanted`.
    fn file(&mut self, wanted: impl Fn(u64) -> bool) -> Option<String> {
        let paths = self.paths(|_, node| matches!(node, Node::File(file) if !file.torn && wanted(file.content.size())));
        self.one_of(&paths)
    }

    fn dirs(&self) -> Vec<String> {
        self.paths(|_, node| matches!(node, Node::Dir { .. }))
    }

    /// A place for a file or link: nothing, or one that may be replaced, is there.
    fn place(&mut self) -> String {
        if self.random.percent(20) {
            return format!("shared/w{}-{}", self.number, self.random.below(8));
        }
        let mut dirs = self.dirs();
        dirs.push(format!("w{}", self.number));
        let dir = self.random.pick(&dirs).clone();
        format!("{dir}/f{}", self.random.below(10))
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn length(&mut self) -> u64 {
        let large = self.paths(|_, node| matches!(node, Node::File(file) if file.content.size() >= LARGE)).len();
        match self.random.below(20) {
            0 if large < MOST_LARGE => LARGE + self.random.below(2 << 20),
            0..2 => 0,
            2..5 => self.random.below(300 << 10),
            _ => 1 + self.random.below(20 << 10),
        }
    }

    fn write(&mut self, path: String) -> Op {
        Op::Write { path, id: self.fresh(), len: self.length(), sync: self.random.percent(5) }
    }

    /// What to do next; mostly one operation.
    fn choose(&mut self) -> Vec<Op> {
        loop {
            let files = self.paths(|_, node| !matches!(node, Node::Dir { .. }));
            let roll = self.random.below(100);
            let roll = if files.len() > MOST_FILES && roll < 30 { 70 } else { roll };
            let ops = match roll {
                0..30 => {
                    let path = self.place();
                    // Not through a link.
                    if matches!(self.model.nodes.get(&path), Some(Node::Link { .. })) { None } else { Some(path) }
                        .map(|path| vec![self.write(path)])
                }
                30..38 => self.file(|_| true).map(|path| {
                    let (at, id) = (self.model.file(&path).unwrap().content.size(), self.fresh());
                    vec![Op::Patch { path, at, id, len: 1 + self.random.below(90 << 10), append: true }]
                }),
                38..45 => self.file(|size| size > 0).map(|path| {
                    let size = self.model.file(&path).unwrap().content.size();
                    let (at, id) = (self.random.below(size), self.fresh());
                    vec![Op::Patch { path, at, id, len: 1 + self.random.below(90 << 10), append: false }]
                }),
                45..55 => {
                    let to = self.place();
                    let from = format!("{to}.tmp{}", self.fresh());
                    Some(vec![self.write(from.clone()), Op::Rename { from, to }])
                }
                55..65 => {
                    let movable = |node: &Node| match node {
                        Node::File(file) => !file.torn,
                        Node::Link { .. } => true,
                        Node::Dir { .. } => false,
                    };
                    let from = self.paths(|_, node| movable(node));
                    let to = self.place();
                    self.one_of(&from).filter(|from| *from != to).map(|from| vec![Op::Rename { from, to }])
                }
                65..70 => self.rename_dir(),
                70..79 => self.one_of(&files).map(|path| vec![Op::Unlink { path }]),
                79..84 => self.new_dir().map(|path| vec![Op::Mkdir { path }]),
                84..87 => {
                    let model = &self.model;
                    let empty =
                        self.paths(|path, node| matches!(node, Node::Dir { .. }) && model.below(path).next().is_none());
                    self.one_of(&empty).map(|path| vec![Op::Rmdir { path }])
                }
                87..91 => {
                    let path = self.place();
                    let is_free = !self.model.nodes.contains_key(&path);
                    is_free.then(|| vec![Op::Symlink { path, target: format!("nowhere-{}", self.fresh()) }])
                }
                91..96 => {
                    let paths = self.paths(|_, node| !matches!(node, Node::Link { .. }));
                    let mode = *self.random.pick(&[0o600, 0o640, 0o700, 0o755, 0o777]);
                    self.one_of(&paths).map(|path| vec![Op::Chmod { path, mode }])
                }
                _ => self.file(|_| true).map(|path| {
                    let size = self.model.file(&path).unwrap().content.size();
                    let size = if self.random.percent(30) { size + 5000 } else { self.random.below(size + 1) };
                    vec![Op::Truncate { path, size }]
                }),
            };
            if let Some(ops) = ops {
                return ops;
            }
        }
    }

    /// A place for a directory, if there is one left where chance has it; sometimes one that was there before.
    fn new_dir(&mut self) -> Option<String> {
        let mut dirs = self.dirs();
        dirs.retain(|dir| dir.split('/').count() < 3);
        dirs.push(format!("w{}", self.number));
        let dir = self.random.pick(&dirs).clone();
        let path = format!("{dir}/d{}", self.random.below(12));
        (!self.model.nodes.contains_key(&path)).then_some(path)
    }

    fn rename_dir(&mut self) -> Option<Vec<Op>> {
        let dirs = self.dirs();
        let from = self.one_of(&dirs)?;
        let to = self.new_dir()?;
        // Not into itself.
        let inside = to == from || parent(&to) == from || to.starts_with(&format!("{from}/"));
        (!inside).then(|| vec![Op::Rename { from, to }])
    }
}

fn write_pieces(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(CHUNK).try_for_each(|chunk| file.write_all(chunk))
}

/// Does it, on paths relative to the mount.
fn perform(op: &Op) -> io::Result<()> {
    let bytes = |id, len| super::model::Content::new(id, len).bytes();
    match op {
        Op::Mkdir { path } => fs::create_dir(path),
        Op::Rmdir { path } => fs::remove_dir(path),
        Op::Write { path, id, len, sync } => {
            let mut file = File::create(path)?;
            write_pieces(&mut file, &bytes(*id, *len))?;
            if *sync {
                file.sync_all()?;
            }
            close(file)
        }
        Op::Patch { path, id, len, append: true, .. } => {
            let mut file = OpenOptions::new().append(true).open(path)?;
            write_pieces(&mut file, &bytes(*id, *len))?;
            close(file)
        }
        Op::Patch { path, at, id, len, append: false } => {
            let file = OpenOptions::new().write(true).open(path)?;
            let mut at = *at;
            for chunk in bytes(*id, *len).chunks(CHUNK) {
                file.write_all_at(chunk, at)?;
                at += chunk.len() as u64;
            }
            close(file)
        }
        Op::Truncate { path, size } => truncate(Path::new(path), *size),
        Op::Rename { from, to } => fs::rename(from, to),
        Op::Unlink { path } => fs::remove_file(path),
        Op::Symlink { path, target } => std::os::unix::fs::symlink(target, path),
        Op::Chmod { path, mode } => fs::set_permissions(path, Permissions::from_mode(*mode)),
    }
}
