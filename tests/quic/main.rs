//! The real shell of nodes, with QUIC, on a simulated network in simulated time: one bad day per test.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "what runs here is the shell, not a machine")]

mod links;
mod packets;
mod pressure;
mod restarts;
mod rig;
mod strangers;
mod trace;
