//! Every version that every path ever had, for judging what the bucket was given.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use ferryfs::checksum::crc64;

use super::cloud::Cloud;
use super::cloud::Stored;
use super::findings::Findings;
use super::findings::Wrong;
use super::model::Content;
use super::model::Model;
use super::model::Node;
use super::model::Op;
use crate::harness::PREFIX;

/// Where versions lie that a cycle of renames moved out of the way (R3).
const RESERVED: &str = ".ferryfs-moving/";

/// Bytes and CRC-64.
pub type Sum = (u64, u64);

/// When a daemon was killed: from before kill(2) until it was gone, nanoseconds since the epoch.
pub struct Kill {
    pub begun_ns: i64,
    pub gone_ns: i64,
}

#[derive(Default)]
pub struct History {
    sums: BTreeMap<Content, Sum>,
    /// How often a path came to this version.
    tenures: HashMap<(String, Sum), usize>,
    dirs: HashSet<String>,
    pub kills: Vec<Kill>,
    /// Versions stored, and how many of them were judged.
    stores: HashMap<(String, Sum), Vec<Stored>>,
    judged: usize,
}

impl History {
    pub fn sum(&mut self, node: &Node) -> Option<Sum> {
        match node {
            Node::Dir { .. } => None,
            Node::Link { target } => Some((target.len() as u64, crc64(target.as_bytes()).0)),
            Node::File(file) => Some(*self.sums.entry(file.content.clone()).or_insert_with(|| {
                let bytes = file.content.bytes();
                (bytes.len() as u64, crc64(&bytes).0)
            })),
        }
    }

    /// A path has what it has by an operation that was acknowledged or is known to have happened.
    pub fn came(&mut self, path: &str, node: &Node) {
        match self.sum(node) {
            None => {
                self.dirs.insert(path.to_owned());
            }
            // What is held is no version.
            Some(_) if matches!(node, Node::File(file) if file.torn) => {}
            Some(sum) => *self.tenures.entry((path.to_owned(), sum)).or_default() += 1,
        }
    }

    /// The operation has made of the tree what it is.
    pub fn note(&mut self, op: &Op, model: &Model) {
        let path = op.path();
        if matches!(op, Op::Chmod { .. } | Op::Unlink { .. } | Op::Rmdir { .. }) {
            return;
        }
        let here = model.nodes.get_key_value(path);
        for (path, node) in here.into_iter().chain(model.below(path)) {
            self.came(path, node);
        }
    }

    /// P2: every version that the bucket was given is one that a program closed there; and it was given each
    /// once for each time that the path came to it, but for what a kill left unknown (R1).
    pub fn judge_stores(&mut self, cloud: &Cloud, findings: &mut Findings) {
        let stores = cloud.stores();
        for store in &stores[self.judged..] {
            let Some(path) = store.key.strip_prefix(PREFIX) else {
                findings.add(Wrong::Other, format!("outside the prefix: {store:?}"));
                continue;
            };
            if path.starts_with(RESERVED) {
                continue;
            }
            if let Some(dir) = path.strip_suffix('/') {
                if store.size != 0 || !self.dirs.contains(dir) {
                    findings.add(Wrong::Torn, format!("a marker of no directory: {store:?}"));
                }
                continue;
            }
            let version = (path.to_owned(), (store.size, store.crc64));
            let Some(tenures) = self.tenures.get(&version).copied() else {
                findings.add(Wrong::Torn, format!("no closed version of {path}: {store:?}"));
                continue;
            };
            if store.how == "copy" {
                continue;
            }
            let same = self.stores.entry(version).or_default();
            same.push(store.clone());
            if same.len() > tenures {
                let requests = cloud.requests();
                // The daemon that sent it was killed before the store had done it: the next one may have looked
                // for it too early.
                let unknown = same.iter().filter(|store| {
                    let sent = requests.iter().find(|request| request.seq == store.request);
                    sent.is_none_or(|sent| {
                        let mut kills = self.kills.iter();
                        kills.any(|kill| sent.time_ns <= kill.gone_ns && store.time_ns >= kill.begun_ns)
                    })
                });
                if same.len() > tenures + unknown.count() {
                    findings.add(Wrong::Duplicated, format!("{path} was this {tenures} times: {same:?}"));
                }
            }
        }
        self.judged = stores.len();
    }
}
