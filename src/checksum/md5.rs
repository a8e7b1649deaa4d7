//! MD5 (`Content-MD5`, `x-cos-meta-md5`, ETags of single PUTs).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Digest;

/// Sums bytes as they come.
#[derive(Clone)]
pub struct Md5 {
    digest: md5::Md5,
}

impl Md5 {
    /// A sum of nothing yet.
    pub fn new() -> Self {
        Md5 { digest: md5::Md5::new() }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// The sum of all bytes added.
    pub fn finish(self) -> [u8; 16] {
        self.digest.finalize().into()
    }
}

impl Default for Md5 {
    fn default() -> Self {
        Md5::new()
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5")
    }
}

/// The sum of some bytes at once.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    md5::Md5::digest(bytes).into()
}

/// The value of a Content-MD5 header: base64 of the 16 raw bytes, 24 characters.
pub fn md5_base64(sum: &[u8; 16]) -> String {
    STANDARD.encode(sum)
}

/// Reads the value of a Content-MD5 header; `None` if it is not base64 of 16 bytes.
pub fn md5_parse(text: &str) -> Option<[u8; 16]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// The contents that the vector files describe.
#[cfg(test)]
pub(super) mod vectors {
    /// The bytes of one vector: given as hex, or by name where they are too many to write out.
    pub(crate) fn content(vector: &serde_json::Value) -> Vec<u8> {
        const MIB: usize = 1 << 20;
        let counting = |len: usize| (0..len).map(|i| i as u8).collect::<Vec<u8>>();
        let bytes = match vector["name"].as_str().unwrap() {
            "zeros_1MiB" => vec![0; MIB],
            "ff_1MiB" => vec![0xff; MIB],
            "inc_1MiB" => counting(MIB),
            "inc_5MiB_plus_3" => [counting(5 * MIB), b"abc".to_vec()].concat(),
            "zeros_4096" => vec![0; 4096],
            _ => {
                let digits = vector["data_hex"].as_str().unwrap();
                (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
            }
        };
        assert_eq!(bytes.len() as u64, vector["length"].as_u64().unwrap());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::hex;

    #[test]
    fn vectors_of_content_md5() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/content_md5.json")).unwrap();
        let list = file["vectors"].as_array().unwrap();
        assert_eq!(list.len(), 12);
        for vector in list {
            let bytes = vectors::content(vector);
            let sum = md5(&bytes);
            assert_eq!(hex(&sum), vector["md5_hex"].as_str().unwrap(), "{}", vector["name"]);
            assert_eq!(md5_base64(&sum), vector["content_md5_base64"].as_str().unwrap(), "{}", vector["name"]);
            assert_eq!(md5_parse(&md5_base64(&sum)), Some(sum));
            let mut hasher = Md5::new();
            for piece in bytes.chunks(4_093) {
                hasher.update(piece);
            }
            assert_eq!(hasher.finish(), sum, "{} in pieces", vector["name"]);
        }
    }

    #[test]
    fn what_is_not_sixteen_bytes_is_no_md5() {
        assert_eq!(md5_parse("not base64"), None);
        assert_eq!(md5_parse("aGVsbG8="), None);
    }
}
