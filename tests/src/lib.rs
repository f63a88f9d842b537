//! The rigs that decide whether Driftless keeps its promises.
//!
//! [`sim`] runs the real machines of many nodes in one thread under a seeded world: network, clocks, disks, crashes
//! and clients all follow from one number, and that number replays them.

pub mod damage;
pub mod sim;
