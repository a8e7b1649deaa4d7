//! What a disk with a volatile cache holds: what was flushed for certain, of the rest whatever it likes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes that are written as one: the filesystems' blocks.
pub const BLOCK: usize = 4096;

/// A block; those of the past share what did not change.
type Block = Arc<[u8; BLOCK]>;

/// What stays of the writes that no flush has followed.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// All of them: a disk whose cache outlives the cut, or that has none.
    KeepAll,
    /// None of them.
    KeepNone,
    /// Those that this seed chooses, whatever their order was.
    Keep(u64),
}

/// Blocks by number; what is not there is zero.
#[derive(Clone, Debug, Default)]
pub struct Image(HashMap<u64, Block>);

impl Image {
    fn block(&self, number: u64) -> Option<&Block> {
        self.0.get(&number)
    }

    fn put(&mut self, number: u64, block: Block) {
        self.0.insert(number, block);
    }
}

/// The disk. Its lock is held for copies of memory only.
#[derive(Debug)]
pub struct Platter {
    bytes: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What reads see.
    now: Image,
    /// What a flush has covered.
    durable: Image,
    /// In order, since the last flush.
    unflushed: Vec<(u64, Block)>,
    flushes: u64,
}

impl Platter {
    /// A disk that holds this.
    pub fn new(bytes: u64, image: Image) -> Platter {
        let inner = Inner { now: image.clone(), durable: image, ..Inner::default() };
        Platter { bytes, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let size = size.min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap());
        let mut out = vec![0; size];
        let inner = self.lock();
        for (number, within, range) in pieces(offset, size) {
            if let Some(block) = inner.now.block(number) {
                let length = range.len();
                out[range].copy_from_slice(&block[within..within + length]);
            }
        }
        out
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let mut inner = self.lock();
        for (number, within, range) in pieces(offset, bytes.len()) {
            let mut block = inner.now.block(number).map_or([0; BLOCK], |block| **block);
            block[within..within + range.len()].copy_from_slice(&bytes[range]);
            let block = Arc::new(block);
            inner.now.put(number, block.clone());
            inner.unflushed.push((number, block));
        }
    }

    /// All that was written before is durable.
    pub fn flush(&self) {
        let inner = &mut *self.lock();
        for (number, block) in inner.unflushed.drain(..) {
            inner.durable.put(number, block);
        }
        inner.flushes += 1;
    }

    /// How often.
    pub fn flushes(&self) -> u64 {
        self.lock().flushes
    }

    /// What the disk holds if the power goes now, and how many writes it has lost.
    pub fn cut(&self, cut: Cut) -> (Image, usize) {
        let inner = self.lock();
        let mut image = inner.durable.clone();
        let mut state = if let Cut::Keep(seed) = cut { seed | 1 } else { 1 };
        let mut lost = 0;
        for (number, block) in &inner.unflushed {
            let kept = match cut {
                Cut::KeepAll => true,
                Cut::KeepNone => false,
                Cut::Keep(_) => {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 0
                }
            };
            if kept {
                image.put(*number, block.clone());
            } else {
                lost += 1;
            }
        }
        (image, lost)
    }
}

/// (block, offset in it, range of the bytes) of a run of bytes.
fn pieces(offset: u64, size: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let block = BLOCK as u64;
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == size {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % block).unwrap();
        let range = done..size.min(done + BLOCK - within);
        done = range.end;
        Some((at / block, within, range))
    })
}

#[test]
fn what_was_flushed_stays_and_the_rest_is_up_to_the_cut() {
    let disk = Platter::new(1 << 20, Image::default());
    disk.write(4000, &[1; 5000]);
    disk.flush();
    disk.write(4000, &[2; 200]);
    disk.write(500_000, &[3; 10]);
    assert_eq!(disk.read(3999, 3), [0, 2, 2]);
    assert_eq!(disk.read((1 << 20) - 2, 10), [0, 0], "its end");
    let after = |cut| {
        let (image, lost) = disk.cut(cut);
        let disk = Platter::new(1 << 20, image);
        let bytes = [(4000, 1), (4199, 1), (4200, 1), (8999, 1), (500_000, 1)].map(|(at, n)| disk.read(at, n)[0]);
        (bytes, lost)
    };
    assert_eq!(after(Cut::KeepNone), ([1, 1, 1, 1, 0], 3));
    assert_eq!(after(Cut::KeepAll), ([2, 2, 1, 1, 3], 0));
    let some: std::collections::BTreeSet<_> = (0..64).map(|seed| after(Cut::Keep(seed * 77))).collect();
    assert_eq!(some.len(), 8, "each of the three blocks may be lost or not");
}
