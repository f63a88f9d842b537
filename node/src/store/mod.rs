//! Stores: memory for the simulator and tests, disk for everything else.

#[cfg(feature = "disk")]
pub mod disk;
pub mod memory;
