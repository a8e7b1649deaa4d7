//! The outbox against a scripted OMS, a log bucket in memory and a real journal.

mod failing;
mod records;
mod restart;
mod sending;
mod world;
