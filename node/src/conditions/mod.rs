//! What is the matter with a node: the one place where that is found out, and the only words for it.
//!
//! ```text
//! what the shards publish, certificates, the directory ──▶ present ──▶ standing: since when, said in the log
//!                                                                        └──▶ /ready  /status  metrics  `driftless status`
//! ```
//! A matter is present or not; whoever shows them shows the same ones. A node with a critical one is not ready.

#[cfg(feature = "net")]
mod matter;
#[cfg(feature = "net")]
mod present;
#[cfg(feature = "net")]
mod quorum;
#[cfg(feature = "net")]
mod standing;
pub mod verdict;

#[cfg(feature = "net")]
pub(crate) use matter::{Matter, NO_ANSWER, Problem, TWO_HISTORIES};
#[cfg(feature = "net")]
pub use present::ends_soon;
#[cfg(feature = "net")]
pub(crate) use present::present;
#[cfg(feature = "net")]
pub(crate) use standing::Standings;

/// The name of the condition of a node some of whose partitions have no quorum within reach.
pub const NO_QUORUM: &str = "no_quorum";

/// The name of the condition of a node whose store may have forgotten something, and that answers no reads.
pub const STORE_REPLACED: &str = "store_replaced";

/// The name of the condition of a node whose members have agreed on others, and hand over.
pub const MEMBERS_CHANGING: &str = "members_changing";

/// How far a data directory that was made anew has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filling {
    /// Nothing shows that there was another before it.
    New,
    /// Other nodes have known a life of this node before it: what that one held is to come from them.
    Lost,
}

/// How full the disk of the data is, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskRoom {
    /// What this process may still write.
    pub free: u64,
    /// What the file system has in all.
    pub total: u64,
}

impl DiskRoom {
    /// Whether somebody should see to it. One that was low before is until a quarter more is free: what a store removes and writes
    /// anew goes up and down.
    pub fn is_low(self, was_low: bool) -> bool {
        let threshold = (self.total / 20).min(LOW_BYTES);
        self.free < if was_low { threshold + threshold / 4 } else { threshold }
    }
}

/// Enough on a disk of any size, for the time that somebody takes to see to it.
const LOW_BYTES: u64 = 20 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_a_twentieth_or_twenty_gibibytes() {
        let low = |free: u64, total: u64, was_low| DiskRoom { free: free << 30, total: total << 30 }.is_low(was_low);
        assert!(low(4, 100, false) && !low(6, 100, false) && low(6, 100, true) && !low(7, 100, true));
        assert!(low(19, 10_240, false) && !low(21, 10_240, false) && low(21, 10_240, true));
    }
}
