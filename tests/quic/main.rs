//! The real shell of nodes, with QUIC, on a simulated network in simulated time: one bad day per test.

mod clocks;
mod large;
mod links;
mod packets;
mod pressure;
mod restarts;
mod rig;
mod strangers;
mod trace;
