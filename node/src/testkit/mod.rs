//! What this crate's tests drive engines with. It is compiled for tests alone.

mod engines;
mod shared_store;
#[cfg(feature = "disk")]
mod small_disk;

pub(crate) use engines::EngineCluster;
pub(crate) use shared_store::{SharedStore, Syncs};
#[cfg(feature = "disk")]
pub(crate) use small_disk::SmallDisk;
