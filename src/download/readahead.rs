//! How far to read ahead of a reader.

use std::ops::Range;

/// Readers of one file that are told apart: several programs, or several streams of one.
const STREAMS: usize = 8;

/// A read this near to where a stream stands belongs to it, bytes: the kernel sends the requests of
/// one stream out of order, and each is at most 1 MiB.
const SLACK: u64 = 1 << 20;

/// Bytes in sequence after which a stream that did not begin at 0 counts as sequential. Below it,
/// reads at random places that happen to be near would fetch much that nobody wants.
const TRIGGER: u64 = 256 << 10;

/// Tells sequential readers from random ones. The window of a stream is what it has read so far, so
/// at most as much is fetched in vain as was wanted.
#[derive(Debug)]
pub(super) struct ReadAhead {
    min: u64,
    max: u64,
    /// The most recently used last.
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    /// End of what it has read.
    next: u64,
    /// Bytes read in sequence.
    run: u64,
    /// It began at the start of the file, as whoever reads all of it does.
    from_start: bool,
}

impl ReadAhead {
    /// Windows from `min` to `max` bytes.
    pub(super) fn new(min: u64, max: u64) -> Self {
        ReadAhead { min, max: max.max(min), streams: Vec::with_capacity(STREAMS) }
    }

    /// Takes note of a read; returns how many bytes beyond its end are worth fetching.
    pub(super) fn read(&mut self, range: &Range<u64>) -> u64 {
        let known = self.streams.iter().position(|stream| stream.next.abs_diff(range.start) <= SLACK);
        let stream = match known {
            Some(index) => {
                let mut stream = self.streams.remove(index);
                // What is read again is no progress.
                stream.run += range.end.saturating_sub(stream.next.max(range.start));
                stream.next = stream.next.max(range.end);
                stream
            }
            None => {
                if self.streams.len() >= STREAMS {
                    self.streams.remove(0);
                }
                Stream { next: range.end, run: range.end - range.start, from_start: range.start == 0 }
            }
        };
        let window = if stream.from_start || stream.run >= TRIGGER { stream.run.clamp(self.min, self.max) } else { 0 };
        self.streams.push(stream);
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn policy() -> ReadAhead {
        ReadAhead::new(MIB, 8 * MIB)
    }

    #[test]
    fn a_sequential_reader_gets_a_window_that_grows_to_the_limit() {
        let mut policy = policy();
        let windows: Vec<u64> = (0..20).map(|n| policy.read(&(n * MIB..(n + 1) * MIB))).collect();
        assert_eq!(windows[0], MIB);
        assert_eq!(windows[3], 4 * MIB);
        assert!(windows.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(*windows.last().unwrap(), 8 * MIB);
    }

    #[test]
    fn a_stream_from_the_middle_must_prove_itself() {
        let mut policy = policy();
        let start = 100 * MIB;
        assert_eq!(policy.read(&(start..start + 128 * KIB)), 0);
        assert_eq!(policy.read(&(start + 128 * KIB..start + 256 * KIB)), MIB);
    }

    #[test]
    fn random_reads_get_nothing() {
        let mut policy = policy();
        for n in 1..200_u64 {
            let start = (n * 7919 % 4096) * 4 * MIB + 64 * MIB;
            assert_eq!(policy.read(&(start..start + 4 * KIB)), 0, "read {n}");
        }
    }

    #[test]
    fn out_of_order_requests_of_one_stream_are_one_stream() {
        let mut policy = policy();
        policy.read(&(0..128 * KIB));
        policy.read(&(256 * KIB..384 * KIB));
        assert_eq!(policy.read(&(128 * KIB..256 * KIB)), MIB);
        assert_eq!(policy.streams.len(), 1);
    }

    #[test]
    fn two_streams_do_not_disturb_each_other() {
        let mut policy = policy();
        for n in 0..8_u64 {
            policy.read(&(n * MIB..(n + 1) * MIB));
            policy.read(&((1000 + n) * MIB..(1001 + n) * MIB));
        }
        assert_eq!(policy.read(&(8 * MIB..9 * MIB)), 8 * MIB);
        assert_eq!(policy.read(&(1008 * MIB..1009 * MIB)), 8 * MIB);
    }

    #[test]
    fn reading_the_same_again_is_no_progress() {
        let mut policy = policy();
        let start = 100 * MIB;
        for _ in 0..1000 {
            assert_eq!(policy.read(&(start..start + 4 * KIB)), 0);
        }
    }
}
