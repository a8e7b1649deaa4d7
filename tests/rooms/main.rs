//! The rooms of a mount in orders of events that a kernel and a network give only by chance.

mod conflicts;
mod copies;
mod matrix;
mod moves;
mod moving;
mod offline;
mod remote;
mod removals;
mod store_copies;
mod upload;
mod view;
mod world;
