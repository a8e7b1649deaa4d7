//! What is left when the machine loses its power at any moment (P1, P2, C5, J2): state and cache lie on a disk
//! that this process serves, and that forgets what was not flushed to it.

#[path = "../harness/mod.rs"]
mod harness;

mod cuts;
mod device;
mod ledger;
mod machine;
mod platter;
mod programs;
mod told;
