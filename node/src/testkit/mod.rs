//! What this crate's tests drive engines with. It is compiled for tests alone.

mod engines;
mod shared_store;

pub(crate) use engines::EngineCluster;
pub(crate) use shared_store::SharedStore;
