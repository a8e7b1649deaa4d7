//! How a file is cut into parts. Pure.

use std::ops::Range;

use crate::store::Capabilities;

/// The cut of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartPlan {
    size: u64,
    part_bytes: u64,
}

impl PartPlan {
    /// Parts of about `wanted` bytes, larger where the store's limit on their number asks for it.
    /// `None`: larger than the store can hold.
    pub(super) fn new(size: u64, wanted: u64, capabilities: &Capabilities) -> Option<PartPlan> {
        let least = size.div_ceil(u64::from(capabilities.max_parts)).max(capabilities.min_part_bytes);
        let part_bytes = wanted.max(least);
        (part_bytes <= capabilities.max_part_bytes).then_some(PartPlan { size, part_bytes })
    }

    /// The cut that an earlier attempt made.
    pub(super) fn resumed(size: u64, part_bytes: u64) -> PartPlan {
        PartPlan { size, part_bytes: part_bytes.max(1) }
    }

    pub(super) fn part_bytes(&self) -> u64 {
        self.part_bytes
    }

    /// Number of parts; an empty file has one empty part.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.size.div_ceil(self.part_bytes).max(1)).unwrap_or(u32::MAX)
    }

    /// Bytes of part `number`, from 1.
    pub(super) fn range(&self, number: u32) -> Range<u64> {
        let start = u64::from(number - 1) * self.part_bytes;
        start.min(self.size)..(start + self.part_bytes).min(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capabilities() -> Capabilities {
        Capabilities {
            provider: "cos",
            min_part_bytes: 1 << 20,
            max_part_bytes: 5 << 30,
            max_parts: 10_000,
            consecutive_parts: true,
            max_key_bytes: 850,
            max_metadata_bytes: 2048,
            max_delete_keys: 1000,
            crc64: true,
        }
    }

    proptest! {
        #[test]
        fn parts_cover_the_file_once(size in 1u64..100 << 40, wanted in 1u64..64 << 20) {
            let Some(plan) = PartPlan::new(size, wanted, &capabilities()) else {
                prop_assert!(size > 10_000 * (5 << 30));
                return Ok(());
            };
            prop_assert!(plan.count() <= 10_000);
            prop_assert!(plan.part_bytes() >= 1 << 20);
            prop_assert_eq!(plan.range(1).start, 0);
            prop_assert_eq!(plan.range(plan.count()).end, size);
            let middle = plan.count() / 2 + 1;
            if middle > 1 {
                prop_assert_eq!(plan.range(middle - 1).end, plan.range(middle).start);
            }
            prop_assert!(!plan.range(plan.count()).is_empty());
        }
    }

    #[test]
    fn too_large_is_refused() {
        assert!(PartPlan::new(60 << 40, 16 << 20, &capabilities()).is_none());
        assert_eq!(PartPlan::new(0, 16 << 20, &capabilities()).unwrap().count(), 1);
    }
}
