//! The members of a cluster, as the ring sees them: names, where they are, how much they take.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The identity of a member.
///
/// It is a pure function of the member's name, so that all nodes which read the same cluster file
/// agree without asking each other. Prints as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The id of the member with this name.
    pub fn of_name(name: &str) -> NodeId {
        NodeId(xxh3_64(name.as_bytes()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One member of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The id, normally [`NodeId::of_name`] of the name.
    pub id: NodeId,
    /// The name that people use. Unique in the cluster.
    pub name: String,
    /// `host:port` of the UDP socket of shard 0.
    pub address: String,
    /// What fails together: a rack, a room, a data centre. Replicas are spread over zones. Members
    /// without a zone (the empty string) are all in the same one.
    pub zone: String,
    /// The share of the data and of the load, relative to the other members. At least 1. A member
    /// never holds more than one replica of a partition, whatever its weight.
    pub weight: u32,
    /// How many shards (threads, each with a socket) the member runs. At least 1.
    pub shards: u16,
}

impl Member {
    /// A member of ordinary weight, with one shard and no zone; its id follows from its name.
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> Member {
        let name = name.into();
        Member {
            id: NodeId::of_name(&name),
            name,
            address: address.into(),
            zone: String::new(),
            weight: WEIGHT_DEFAULT,
            shards: 1,
        }
    }

    /// The same member in a zone.
    pub fn in_zone(mut self, zone: impl Into<String>) -> Member {
        self.zone = zone.into();
        self
    }

    /// The same member with another weight.
    pub fn with_weight(mut self, weight: u32) -> Member {
        self.weight = weight;
        self
    }
}

/// The weight of a member of which nothing special is known: one ordinary machine.
const WEIGHT_DEFAULT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change() {
        assert_eq!(NodeId::of_name("ada").to_string(), KAT);
        assert_eq!(Member::new("ada", "ada:7400").id, NodeId::of_name("ada"));
    }

    #[test]
    fn an_id_prints_all_its_digits() {
        assert_eq!(NodeId(0xa).to_string(), "000000000000000a");
    }

    const KAT: &str = "691d4463952c802f";
}
