//! What the membership machines of nodes say to each other. Letters have no answers of their own: what answers one is another letter,
//! which may be lost like any.

use driftless_proto::membership::{Change, Moving, Record};
use driftless_proto::{ProtocolVersion, ProtocolVersions, greeting};
use driftless_ring::NodeId;
use serde::{Deserialize, Serialize};

use crate::configurations::Marks;

/// One letter.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Letter {
    /// How things stand with the sender, each second, and as soon as that changes.
    News(Box<News>),
    /// The receiver knows records that the sender does not: it asks for those after this version.
    Want {
        /// The newest version that the sender has.
        after: u64,
    },
    /// Records that were decided, in order, each the child of the one before.
    Records {
        /// The newest version of which the sender knows that those before it are done with: who has none begins no later.
        settled: u64,
        /// The records.
        records: Vec<DecidedRecord>,
    },
    /// The proposer of this ballot wants to decide on a version.
    Prepare {
        /// The version to be decided.
        slot: u64,
        /// Digest of the record that the slot comes after; of a founding topology, its digest.
        parent: u128,
        /// Above all that the proposer has seen.
        ballot: Ballot,
    },
    /// Nothing below that ballot will be accepted any more; and what was accepted before.
    Promise {
        /// The version to be decided.
        slot: u64,
        /// The ballot that is promised.
        ballot: Ballot,
        /// What was accepted last, and with which ballot.
        accepted: Option<(Ballot, Box<Record>)>,
        /// The store that promises.
        store: driftless_proto::membership::StoreId,
    },
    /// A higher ballot was promised.
    Nack {
        /// The version to be decided.
        slot: u64,
        /// The ballot that was promised.
        promised: Ballot,
    },
    /// Accept this.
    Accept {
        /// The proposer's ballot.
        ballot: Ballot,
        /// Its version is the slot.
        record: Box<Record>,
    },
    /// Accepted, and durable.
    Accepted {
        /// The version.
        slot: u64,
        /// The ballot.
        ballot: Ballot,
        /// The store that has accepted.
        store: driftless_proto::membership::StoreId,
    },
}

impl Letter {
    /// The lowest version of the protocol in which it can be said.
    pub(super) fn spoken_from(&self) -> ProtocolVersion {
        let spoken_from = match self {
            Letter::News(news) => {
                news.staged.iter().flat_map(|staged| &staged.changes).filter_map(change_spoken_from).max()
            }
            Letter::Records { records, .. } => {
                records.iter().filter_map(|decided| record_spoken_from(&decided.record)).max()
            }
            Letter::Promise { accepted, .. } => accepted.as_ref().and_then(|(_, record)| record_spoken_from(record)),
            Letter::Accept { record, .. } => record_spoken_from(record),
            Letter::Want { .. } | Letter::Prepare { .. } | Letter::Nack { .. } | Letter::Accepted { .. } => None,
        };
        spoken_from.unwrap_or(ProtocolVersions::OURS.lowest())
    }
}

fn change_spoken_from(change: &Change) -> Option<ProtocolVersion> {
    match change {
        Change::DoublePartitions => Some(greeting::DOUBLING),
        Change::SetAccess(_) => Some(greeting::AGREED_ACCESS),
        _ => None,
    }
}

pub(super) fn record_spoken_from(record: &Record) -> Option<ProtocolVersion> {
    let access = (!record.access().is_empty()).then_some(greeting::AGREED_ACCESS);
    let doubled = record.topology.ring().partitions().is_doubled().then_some(greeting::DOUBLING);
    access.max(doubled)
}

/// How things stand with a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct News {
    /// The newest version that it knows.
    pub version: u64,
    /// Digest of its record; of a founding topology, that one's digest.
    pub digest: u128,
    /// The newest version that it knows to be done with: nothing before it counts. A node that was away, or has only just come, cannot
    /// find that out by marks, as those who left have none to tell any more.
    pub settled: u64,
    /// What is staged, as far as it knows.
    pub staged: Option<StagedChanges>,
    /// The marks of all members that it knows of, its own among them.
    pub marks: Vec<(NodeId, Marks)>,
    /// What it takes in and hands over.
    pub moving: Moving,
    /// Who it is: a node that is no member is known by this.
    pub sender: Candidate,
}

/// A node as it describes itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// As a member; `weight`, `zone` and `address` are what it was configured with.
    pub member: driftless_ring::Member,
    /// Its data.
    pub store: driftless_proto::membership::StoreId,
}

/// What operators want to change, as a whole: the newest one is the one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StagedChanges {
    /// The version that they would change.
    pub base: u64,
    /// Orders them: one more than the one that was known when it was made.
    pub serial: u64,
    /// Breaks ties of serials.
    pub by: NodeId,
    /// In order.
    pub changes: Vec<Change>,
}

/// The number of an attempt to decide: higher ones win. No two attempts have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// One above all that were seen.
    pub round: u64,
    /// Whose it is.
    pub node: u64,
    /// Random: a node that was restarted from an old copy must not repeat one.
    pub nonce: u64,
}

/// A record with what shows that it was decided.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DecidedRecord {
    /// What was decided.
    pub record: Record,
    /// The ballot with which it was.
    pub ballot: Ballot,
    /// The voters that had accepted it when that was noticed.
    pub accepted_by: Vec<NodeId>,
}
