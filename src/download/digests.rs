//! Sums of ranges that arrive in any order, joined to the sum of the whole.

use std::collections::BTreeMap;

use crate::checksum::combine;
use crate::types::Crc64;

/// Sums of disjoint ranges; neighbours are joined as they meet.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests {
    /// Start to end (exclusive) and sum.
    pieces: BTreeMap<u64, (u64, Crc64)>,
}

impl Digests {
    /// Adds the sum of a range that no earlier one overlaps.
    pub(super) fn insert(&mut self, start: u64, end: u64, crc: Crc64) {
        if start >= end {
            return;
        }
        let (mut start, mut end, mut crc) = (start, end, crc);
        if let Some((&before, &(until, sum))) = self.pieces.range(..start).next_back()
            && until == start
        {
            self.pieces.remove(&before);
            crc = combine(sum, crc, end - start);
            start = before;
        }
        if let Some((until, sum)) = self.pieces.remove(&end) {
            crc = combine(crc, sum, until - end);
            end = until;
        }
        self.pieces.insert(start, (end, crc));
    }

    /// The sum of the first `size` bytes, if exactly they are known.
    pub(super) fn whole(&self, size: u64) -> Option<Crc64> {
        if size == 0 {
            return self.pieces.is_empty().then_some(Crc64(0));
        }
        self.pieces.get(&0).filter(|(end, _)| *end == size).map(|(_, crc)| *crc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::crc64;

    #[test]
    fn pieces_in_any_order_make_the_whole() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * 7 % 251) as u8).collect();
        let cuts = [0, 1, 17, 400, 401, 999, 1000];
        for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 4, 3]] {
            let mut digests = Digests::default();
            for (nth, piece) in order.into_iter().enumerate() {
                assert_eq!(digests.whole(1000), None, "after {nth} pieces");
                let (start, end) = (cuts[piece], cuts[piece + 1]);
                digests.insert(start as u64, end as u64, crc64(&bytes[start..end]));
            }
            assert_eq!(digests.whole(1000), Some(crc64(&bytes)));
            assert_eq!(digests.whole(999), None);
        }
        assert_eq!(Digests::default().whole(0), Some(Crc64(0)));
    }
}
