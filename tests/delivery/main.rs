//! From a program's close to the record in the log bucket, by the real binary: many files, a large
//! file, a file saved again and again, a store that fails in every way that stores fail.

#[path = "../harness/mod.rs"]
mod harness;

mod bulk;
mod faults;
