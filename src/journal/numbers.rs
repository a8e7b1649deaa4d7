//! Numbers in blocks.

use std::ops::Range;

use super::{Counter, Journal, Result};

/// Gives out numbers of one counter; one disk commit serves a block (J6).
pub struct Numbers {
    journal: Journal,
    counter: Counter,
    left: Range<u64>,
}

impl Numbers {
    /// Numbers a block: at 20,000 creates a second one disk commit every half second.
    const BLOCK: u64 = 10_000;

    /// Numbers of this counter.
    pub fn new(journal: Journal, counter: Counter) -> Numbers {
        Numbers { journal, counter, left: 0..0 }
    }

    /// The next number.
    ///
    /// # Errors
    /// A new block could not be reserved.
    #[expect(clippy::should_implement_trait, reason = "numbers do not end, and each may fail")]
    pub fn next(&mut self) -> Result<u64> {
        if self.left.is_empty() {
            self.left = self.journal.reserve(self.counter, Self::BLOCK)?;
        }
        let number = self.left.start;
        self.left.start += 1;
        Ok(number)
    }
}
