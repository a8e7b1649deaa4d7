//! A set of byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges that do not touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// Start to end (exclusive).
    ranges: BTreeMap<u64, u64>,
}

impl Extents {
    /// Nothing.
    pub fn new() -> Self {
        Extents::default()
    }

    /// Adds a range; what it overlaps or touches becomes one with it.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // Candidates are those that start at or before the new end; walking back they end when one
        // ends before the new start.
        while let Some((&before, &until)) = self.ranges.range(..=end).next_back() {
            if until < start {
                break;
            }
            start = start.min(before);
            end = end.max(until);
            self.ranges.remove(&before);
        }
        self.ranges.insert(start, end);
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.range(..range.start).next_back().map_or(range.start, |(&start, _)| start);
        let touched: Vec<Range<u64>> = self.ranges.range(first..range.end).map(|(&start, &end)| start..end).collect();
        for Range { start, end } in touched.into_iter().filter(|touched| touched.end > range.start) {
            self.ranges.remove(&start);
            if start < range.start {
                self.ranges.insert(start, range.start);
            }
            if end > range.end {
                self.ranges.insert(range.end, end);
            }
        }
    }

    /// The range of the set that holds this byte.
    pub fn around(&self, byte: u64) -> Option<Range<u64>> {
        self.ranges.range(..=byte).next_back().map(|(&start, &end)| start..end).filter(|range| range.contains(&byte))
    }

    /// All of `range` is in the set.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.ranges.range(..=range.start).next_back().is_some_and(|(_, &end)| end >= range.end)
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let first = self.ranges.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        for (&start, &end) in self.ranges.range(first..range.end.max(first)) {
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(end);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Bytes in the set.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn neighbours_become_one() {
        let mut set = Extents::new();
        set.insert(10..20);
        set.insert(30..40);
        set.insert(5..5);
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![10..20, 30..40]);
        set.insert(20..30);
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![10..40]);
        assert!(set.covers(&(10..40)) && set.covers(&(12..12)) && !set.covers(&(9..11)) && !set.covers(&(39..41)));
        assert_eq!(set.gaps(&(0..50)), vec![0..10, 40..50]);
        assert_eq!(set.gaps(&(15..25)), Vec::new());
        assert_eq!(set.bytes(), 30);
    }

    proptest! {
        #[test]
        fn as_a_set_of_numbers(
            inserts in prop::collection::vec((0_u64..64, 0_u64..16, prop::bool::weighted(0.8)), 0..24),
            asked in (0_u64..80, 0_u64..32),
        ) {
            let mut set = Extents::new();
            let mut model = [false; 128];
            for (start, len, insert) in inserts {
                if insert {
                    set.insert(start..start + len);
                } else {
                    set.remove(start..start + len);
                }
                for byte in start..start + len {
                    model[byte as usize] = insert;
                }
            }
            for byte in 0..128 {
                let around = set.around(byte);
                prop_assert_eq!(around.is_some(), model[byte as usize]);
                prop_assert!(around.is_none_or(|range| range.contains(&byte) && set.covers(&range)));
            }
            let asked = asked.0..asked.0 + asked.1;
            prop_assert_eq!(set.covers(&asked), asked.clone().all(|byte| model[byte as usize]));
            let gaps = set.gaps(&asked);
            for byte in asked.clone() {
                let in_gap = gaps.iter().any(|gap| gap.contains(&byte));
                prop_assert_eq!(in_gap, !model[byte as usize]);
            }
            prop_assert!(gaps.iter().all(|gap| gap.start >= asked.start && gap.end <= asked.end && !gap.is_empty()));
            let ranges: Vec<_> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(set.bytes(), model.iter().filter(|set| **set).count() as u64);
        }
    }
}
