//! Real nodes in this process, on real threads, sockets and clocks. One program, since each would be built with all of a node once more;
//! tests that look at what nodes log have their own (`refusals`, `renewal`).
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Time and chance of the system: real nodes run here.

#[path = "../common/mod.rs"]
mod common;

mod bounds;
mod draining;
mod healing;
mod lives;
mod members;
mod remote;
mod rights;
mod serving;
