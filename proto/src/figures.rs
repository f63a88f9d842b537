//! What a node measures of itself, for who looks at a whole cluster: the status page asks every node for it once a second, and only
//! while somebody looks.
//!
//! Counters count from the start of the process and never fall while that lasts; who wants a rate takes the difference of two answers over
//! that of their `uptime_ms`. An answer is as long as there are members, however many partitions there are.

use serde::{Deserialize, Serialize};

use crate::client::{HintsFor, NodeStatus};
use crate::membership::Moving;

/// All of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// What it knows of itself.
    pub status: NodeStatus,
    /// The versions of the members before the newest that are not done with.
    pub unfinished: Vec<u64>,
    /// What it takes in and hands over for the newest.
    pub moving: Moving,
    /// What it holds for others, one entry for each node that something is or was held for.
    pub hints: Vec<HintsFor>,
    /// How it compares itself with those peers with which there is something to compare or repair.
    pub exchanges: Vec<ExchangesWith>,
    /// Milliseconds since the comparison that is longest ago, of all partitions and peers; `None` if there was none.
    pub compared_ms: Option<u64>,
    /// Round trips to the peers that it is connected to.
    pub round_trips: Vec<RoundTrip>,
    /// Client requests answered, by operation.
    pub requests: Vec<Answered>,
    /// Client requests not answered yet.
    pub under_way: u64,
    /// Client connections.
    pub client_connections: u64,
    /// Reads that found a value, and the siblings that they found.
    pub reads_found: u64,
    /// See there.
    pub siblings_read: u64,
    /// Concurrent writes discarded because the last writer wins: an upper bound.
    pub writes_discarded: u64,
    /// Writes stamped by a fallback.
    pub fallback_coordinated: u64,
    /// Keys delivered to those that they were held for.
    pub hints_delivered: u64,
    /// Keys of this node that changed by what a peer sent when replicas were compared.
    pub keys_repaired: u64,
    /// What is on the disk of the data; `None` if there is none, or it was not looked at yet.
    pub disk: Option<Disk>,
    /// Partitions whose records are still to be read after the start.
    pub partitions_uncounted: u64,
    /// Leaves of trees that the scrub has looked at.
    pub leaves_scrubbed: u64,
    /// Records that are damaged and not restored yet.
    pub damaged: u64,
    /// Anti-entropy is stopped by an operator.
    pub aae_paused: bool,
}

/// How a node compares itself with one peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExchangesWith {
    /// Name of the peer.
    pub peer: String,
    /// Partitions that both hold.
    pub shared: u64,
    /// Of those: not compared since the start.
    pub never: u64,
    /// Of those: known to differ.
    pub unequal: u64,
    /// Of those: being compared or repaired now.
    pub in_progress: u64,
    /// Keys still to be repaired, at least.
    pub behind: u64,
    /// Keys repaired at that peer per second lately.
    pub rate: f64,
}

/// To one peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Name of the peer.
    pub peer: String,
    /// As QUIC measures it.
    pub microseconds: u64,
}

/// Client requests answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// `get`, `put`, `delete`, `scan` or `other`.
    pub operation: String,
    /// As asked.
    pub ok: u64,
    /// Nothing happened.
    pub refused: u64,
    /// It may have happened.
    pub unknown: u64,
    /// How long they took: so many up to 50 µs, so many up to 100 µs, and so on, doubling; the last one has all that took longer. Those at
    /// the end in which there are none are left out.
    pub took: Vec<u64>,
}

/// How full the disk of the data is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes of the store's files.
    pub store: u64,
}
