//! Nothing acknowledged is lost, torn or forgotten, whatever is killed when (P1, P2, P4, C2 to C6).

#[path = "../harness/mod.rs"]
mod harness;

mod failpoints;
mod moments;
mod names;
mod partly;
mod recover;
mod removals;
mod scan;
mod scan_partly;
mod starts;
mod torn;
