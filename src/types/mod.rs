//! Values that several rooms share: identifiers, keys, attributes, times.
//!
//! # Promise
//! A value that is parsed and printed again means the same.
//!
//! # Invariants
//! 1. No logic beyond parsing and formatting; nothing of the crate is imported.
//! 2. An identifier of one kind cannot be taken for another: each has a type of its own.

mod attrs;
mod size;

pub use attrs::{Attrs, DeviceNo, FileKind};
pub use size::ByteSize;

use std::fmt;

/// Number of an inode; never reused within one state directory (J6). The root is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The mount's root directory (FUSE_ROOT_ID).
    pub const ROOT: Ino = Ino(1);
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a target (a mapping's bucket and prefix, a sync task, a log bucket) in the journal's
/// `target` table. The table holds its full identity (J4); the number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u32);

/// Number of a backing file: its file name in the state or cache directory (J6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackingNo(pub u64);

/// A whole object key as the bucket knows it (prefix included), UTF-8, not percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub String);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key(text.to_owned())
    }
}

/// An ETag, opaque, kept without its surrounding quotes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

impl ETag {
    /// Takes an ETag as a header or an XML body carries it, with or without quotes.
    pub fn parse(text: &str) -> Self {
        ETag(text.trim().trim_matches('"').to_owned())
    }

    /// The form that goes into headers and XML bodies: in quotes.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// CRC-64/XZ of some bytes, the checksum COS and OSS report (PROTOCOL: decimal text on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Crc64(pub u64);

impl fmt::Display for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since the Unix epoch (1677 to 2262).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeNs(pub i64);

impl TimeNs {
    /// Builds a time from seconds and nanoseconds, clamped to what 64 bits of nanoseconds hold.
    pub fn new(sec: i64, nsec: u32) -> Self {
        TimeNs(sec.saturating_mul(1_000_000_000).saturating_add(i64::from(nsec)))
    }

    /// Whole seconds, rounded towards the past.
    pub fn sec(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Nanoseconds within the second, 0 to 999,999,999.
    pub fn nsec(self) -> u32 {
        u32::try_from(self.0.rem_euclid(1_000_000_000)).unwrap_or(0)
    }
}
