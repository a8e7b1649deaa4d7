//! CRC-64/XZ (`x-cos-hash-crc64ecma`, `x-oss-hash-crc64ecma`).

use std::fmt;

use crc_fast::CrcAlgorithm;
use crc_fast::Digest;

use crate::types::Crc64;

/// Sums bytes as they come.
#[derive(Clone)]
pub struct Crc64Hasher {
    digest: Digest,
}

impl Crc64Hasher {
    /// A sum of nothing yet.
    pub fn new() -> Self {
        Crc64Hasher { digest: Digest::new(CrcAlgorithm::Crc64Xz) }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// The sum of all bytes added so far; more may be added after.
    pub fn finish(&self) -> Crc64 {
        Crc64(self.digest.finalize())
    }
}

impl Default for Crc64Hasher {
    fn default() -> Self {
        Crc64Hasher::new()
    }
}

impl fmt::Debug for Crc64Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Crc64Hasher").field(&self.finish().0).finish()
    }
}

/// The sum of some bytes at once.
pub fn crc64(bytes: &[u8]) -> Crc64 {
    Crc64(crc_fast::checksum(CrcAlgorithm::Crc64Xz, bytes))
}

/// The sum of A followed by B from the sum of each and the length of B in bytes.
pub fn combine(a: Crc64, b: Crc64, len_b: u64) -> Crc64 {
    if len_b == 0 {
        return a;
    }
    Crc64(crc_fast::checksum_combine(CrcAlgorithm::Crc64Xz, a.0, b.0, len_b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::md5::vectors;

    #[test]
    fn vectors_of_whole_contents() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/crc64.json")).unwrap();
        let list = file["vectors"].as_array().unwrap();
        assert_eq!(list.len(), 12);
        for vector in list {
            let bytes = vectors::content(vector);
            let expected: u64 = vector["crc64_decimal"].as_str().unwrap().parse().unwrap();
            assert_eq!(crc64(&bytes), Crc64(expected), "{}", vector["name"]);
            let mut hasher = Crc64Hasher::new();
            for piece in bytes.chunks(7_919) {
                hasher.update(piece);
            }
            assert_eq!(hasher.finish(), Crc64(expected), "{} in pieces", vector["name"]);
        }
    }

    #[test]
    fn vectors_of_combined_contents() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/crc64.json")).unwrap();
        let number = |value: &serde_json::Value| Crc64(value.as_str().unwrap().parse().unwrap());
        let list = file["combine"].as_array().unwrap();
        assert_eq!(list.len(), 8);
        for vector in list {
            let sum = combine(number(&vector["crc_a"]), number(&vector["crc_b"]), vector["len_b"].as_u64().unwrap());
            assert_eq!(sum, number(&vector["crc_combined"]), "{}", vector["name"]);
        }
        let mut whole = Crc64(0);
        for part in file["multipart"]["parts"].as_array().unwrap() {
            whole = combine(whole, number(&part["crc64"]), part["length"].as_u64().unwrap());
        }
        assert_eq!(whole, number(&file["multipart"]["whole_crc64"]));
    }

    #[test]
    fn combining_agrees_with_summing_at_every_cut() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(combine(crc64(a), crc64(b), b.len() as u64), crc64(&bytes), "cut at {cut}");
        }
    }
}
