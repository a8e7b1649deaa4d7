//! Checksums of content: CRC-64/XZ, which the stores report, and MD5, which they check.
//!
//! # Promise
//! The sums are those that the stores compute (the vendors' own SDKs computed the test vectors).
//!
//! # Invariants
//! 1. [`crc64`] of nothing is 0, and [`combine`] folds parts left to right starting from that 0.
//! 2. Every function here is pure: the same bytes give the same sum on every machine.

mod crc;
mod md5;

pub use crc::{Crc64Hasher, combine, crc64};
pub use md5::{Md5, md5, md5_base64, md5_parse};

/// Lower-case hexadecimal digits of some bytes, two a byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_lower_case_and_two_digits_a_byte() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa5, 0xff]), "000fa5ff");
        assert_eq!(hex(&[]), "");
    }
}
