//! The `ferryfs` binary.

fn main() {}
