//! ferryfs mounts directories that are bucket prefixes.
//!
//! A room (a module below) imports only from rows below its own; neighbours in a row do not
//! import each other (`tests/layering.rs`):
//!
//! ```text
//! 6  main  cli  config  daemon  control  emulator   composition, command line, control socket, test double
//! 5  fuse                              the only room that names fuser and errno
//! 4  vfs                               what POSIX calls mean here
//! 3  upload   download                 local -> bucket      bucket -> local
//! 2  namespace  cache  outbox          inodes and listings, backing files, announcements
//! 1  journal  store  oms               one SQLite database, one client for buckets, one for OMS
//! 0  types  clock  disk  checksum  http  task  failpoint
//! ```
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod cache;
pub mod checksum;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod disk;
pub mod download;
pub mod emulator;
pub mod failpoint;
pub mod fuse;
pub mod http;
pub mod journal;
pub mod namespace;
pub mod oms;
pub mod outbox;
pub mod store;
pub mod task;
pub mod types;
pub mod upload;
pub mod vfs;
