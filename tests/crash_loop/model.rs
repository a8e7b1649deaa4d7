//! What the tree must be: operations, and what each makes of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::harness::pattern;

/// Bytes of the stream `id` from `from` on; of stream 0 all are zeros.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Piece {
    id: u64,
    from: u64,
    len: u64,
}

/// A file's bytes, by where they came from: no two writes write the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Content(Vec<Piece>);

fn us(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

impl Content {
    pub fn new(id: u64, len: u64) -> Content {
        Content::default().written(0, id, len)
    }

    pub fn size(&self) -> u64 {
        self.0.iter().map(|piece| piece.len).sum()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.0 {
            if piece.id == 0 {
                bytes.resize(bytes.len() + us(piece.len), 0);
            } else {
                let stream = pattern(piece.id, us(piece.from + piece.len));
                bytes.extend_from_slice(&stream[us(piece.from)..]);
            }
        }
        bytes
    }

    /// Cut, or lengthened by zeros.
    pub fn cut(&self, size: u64) -> Content {
        let mut pieces = Vec::new();
        let mut left = size;
        for piece in &self.0 {
            let len = piece.len.min(left);
            if len > 0 {
                pieces.push(Piece { len, ..piece.clone() });
            }
            left -= len;
        }
        if left > 0 {
            pieces.push(Piece { id: 0, from: 0, len: left });
        }
        Content(pieces)
    }

    fn without_first(&self, bytes: u64) -> Content {
        let mut pieces = Vec::new();
        let mut left = bytes;
        for piece in &self.0 {
            let gone = piece.len.min(left);
            if gone < piece.len {
                pieces.push(Piece { from: piece.from + gone, len: piece.len - gone, ..piece.clone() });
            }
            left -= gone;
        }
        Content(pieces)
    }

    /// With the first `len` bytes of stream `id` at `at`.
    pub fn written(&self, at: u64, id: u64, len: u64) -> Content {
        let mut content = self.cut(at);
        if len > 0 {
            content.0.push(Piece { id, from: 0, len });
        }
        content.0.extend(self.without_first(at + len).0);
        content
    }
}

/// What a writer does. Each is acknowledged as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Mkdir {
        path: String,
    },
    Rmdir {
        path: String,
    },
    /// Makes or rewrites.
    Write {
        path: String,
        id: u64,
        len: u64,
        sync: bool,
    },
    /// At its end, or in the middle.
    Patch {
        path: String,
        at: u64,
        id: u64,
        len: u64,
        append: bool,
    },
    Truncate {
        path: String,
        size: u64,
    },
    /// Of a file, link or directory.
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    Chmod {
        path: String,
        mode: u32,
    },
}

impl Op {
    /// Where what it does can be seen.
    pub fn path(&self) -> &str {
        match self {
            Op::Mkdir { path }
            | Op::Rmdir { path }
            | Op::Write { path, .. }
            | Op::Patch { path, .. }
            | Op::Truncate { path, .. }
            | Op::Rename { to: path, .. }
            | Op::Unlink { path }
            | Op::Symlink { path, .. }
            | Op::Chmod { path, .. } => path,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub content: Content,
    pub mode: u32,
    /// It is held (C5): `content` is what it shows, and not to be uploaded.
    pub torn: bool,
    /// Every version of this very file that a program closed.
    pub closed: Vec<Content>,
    /// Every mode that it had.
    pub modes: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    Dir { mode: u32 },
    File(File),
    Link { target: String },
}

/// Modes of what is made, under the umask of the writers.
pub const FILE_MODE: u32 = 0o644;
pub const DIR_MODE: u32 = 0o755;

/// Every path below the mount's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    pub nodes: BTreeMap<String, Node>,
}

/// The part before the last slash.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Model {
    pub fn file(&self, path: &str) -> Option<&File> {
        match self.nodes.get(path) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub fn file_mut(&mut self, path: &str) -> &mut File {
        match self.nodes.get_mut(path) {
            Some(Node::File(file)) => file,
            other => panic!("{path} is no file: {other:?}"),
        }
    }

    /// All that lies in a directory, at any depth.
    pub fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a String, &'a Node)> {
        let prefix = format!("{dir}/");
        let from = prefix.clone();
        self.nodes.range(from..).take_while(move |(path, _)| path.starts_with(&prefix))
    }

    pub fn torn(&self) -> impl Iterator<Item = &String> {
        self.nodes.iter().filter(|(_, node)| matches!(node, Node::File(file) if file.torn)).map(|(path, _)| path)
    }

    /// What a version that was closed is from now on.
    fn close(&mut self, path: &str, content: Content) {
        match self.nodes.get_mut(path) {
            Some(Node::File(file)) => {
                file.closed.push(content.clone());
                file.torn = false;
                file.content = content;
            }
            _ => {
                let closed = vec![content.clone()];
                let file = File { content, mode: FILE_MODE, torn: false, closed, modes: vec![FILE_MODE] };
                self.nodes.insert(path.to_owned(), Node::File(file));
            }
        }
    }

    /// The whole of an operation.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Mkdir { path } => {
                self.nodes.insert(path.clone(), Node::Dir { mode: DIR_MODE });
            }
            Op::Rmdir { path } | Op::Unlink { path } => {
                self.nodes.remove(path).unwrap();
            }
            Op::Write { path, id, len, .. } => self.close(path, Content::new(*id, *len)),
            Op::Patch { path, at, id, len, .. } => {
                let content = self.file_mut(path).content.written(*at, *id, *len);
                self.close(path, content);
            }
            Op::Truncate { path, size } => {
                let content = self.file_mut(path).content.cut(*size);
                self.close(path, content);
            }
            Op::Rename { from, to } => {
                let moved: Vec<String> = self.below(from).map(|(path, _)| path.clone()).collect();
                for path in moved {
                    let node = self.nodes.remove(&path).unwrap();
                    self.nodes.insert(format!("{to}{}", &path[from.len()..]), node);
                }
                let node = self.nodes.remove(from).unwrap();
                self.nodes.insert(to.clone(), node);
            }
            Op::Symlink { path, target } => {
                self.nodes.insert(path.clone(), Node::Link { target: target.clone() });
            }
            Op::Chmod { path, mode } => match self.nodes.get_mut(path) {
                Some(Node::Dir { mode: held }) => *held = *mode,
                Some(Node::File(file)) => {
                    file.mode = *mode;
                    file.modes.push(*mode);
                }
                other => panic!("chmod of {other:?}"),
            },
        }
    }

    /// A write that was cut off, as it shows: after `done` bytes, or before its first.
    pub fn tear(&mut self, op: &Op, content: Content) {
        let path = op.path();
        let (closed, modes) = (Vec::new(), vec![FILE_MODE]);
        let held = File { content: content.clone(), mode: FILE_MODE, torn: true, closed, modes };
        match self.nodes.get_mut(path) {
            Some(Node::File(file)) => (file.content, file.torn) = (content, true),
            _ => {
                self.nodes.insert(path.to_owned(), Node::File(held));
            }
        }
    }

    /// What a file may show whose `op` was cut off, if `size` bytes are there and `done` were written.
    pub fn cut_off(&self, op: &Op, size: u64, done: u64) -> Content {
        let old = self.file(op.path()).map(|file| file.content.clone()).unwrap_or_default();
        match op {
            Op::Write { id, len, .. } => Content::new(*id, size.min(*len)),
            Op::Patch { at, id, len, .. } => old.written(*at, *id, done.min(*len)),
            _ => old.cut(size),
        }
    }
}
