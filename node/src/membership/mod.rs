//! Agreement on members and buckets: one machine for each node.

mod letter;

use std::collections::VecDeque;
use std::sync::Arc;

use driftless_proto::membership::{ClusterAnswer, ClusterCommand, Moving, StoreId};
use driftless_proto::{Refusal, Topology};
use driftless_ring::NodeId;

use crate::configurations::Configurations;
use crate::time::Instant;

pub use letter::{Ballot, Candidate, DecidedRecord, Letter, News, StagedChanges};

/// What the machine is made from.
pub struct MembershipConfig {
    /// Who this node is, as it would be a member.
    pub candidate: Candidate,
    /// The cluster as its file has it: version 1.
    pub founding: Arc<Topology>,
    /// What an earlier process has written down, each file by its name.
    pub files: Vec<(String, Vec<u8>)>,
    /// Fresh random bits.
    pub seed: [u8; 32],
}

/// What the shell has to do, in this order and one after another.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Write this file, and make it durable before anything else is done; `None` removes it.
    Write {
        /// A plain name within the directory of the agreement.
        name: String,
        /// What it holds.
        bytes: Option<Vec<u8>>,
    },
    /// Send to another node, if there is a connection.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        letter: Letter,
    },
    /// Tell every shard, and the shell.
    Configurations(Arc<Configurations>),
    /// Answer a command.
    Answer {
        /// Which.
        tag: u64,
        /// What to say.
        answer: Result<ClusterAnswer, Refusal>,
    },
}

/// How far all shards of this node have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// All run on this version.
    pub version: u64,
    /// All refuse reads that count for less.
    pub closed: u64,
    /// All hold what they must in this version, durably.
    pub ready: u64,
    /// All have handed over what they do not own in this version.
    pub left: u64,
    /// For people.
    pub moving: Moving,
    /// Bytes and keys that this node holds, and in how many replicas of partitions.
    pub held_bytes: u64,
    /// Replicas of partitions that it holds.
    pub held_slots: u64,
}

/// Agreement, on one node.
pub struct Membership {
    outputs: VecDeque<Output>,
    configurations: Arc<Configurations>,
}

impl Membership {
    /// A node that has just started, with what it wrote down before.
    ///
    /// # Errors
    /// In words, if a file is not what was written: the node must not start.
    pub fn new(config: MembershipConfig, _now: Instant) -> Result<Membership, String> {
        let configurations = Arc::new(Configurations::of_file(config.founding));
        Ok(Membership { outputs: VecDeque::new(), configurations })
    }

    /// The versions that count now.
    pub fn configurations(&self) -> &Arc<Configurations> {
        &self.configurations
    }

    /// The nodes to keep up connections to, beside the members: none that are only candidates.
    pub fn store_of(&self, _node: NodeId) -> Option<StoreId> {
        None
    }

    /// There is a connection to this node.
    pub fn handle_connected(&mut self, _now: Instant, _peer: NodeId) {}

    /// There is none any more.
    pub fn handle_disconnected(&mut self, _now: Instant, _peer: NodeId) {}

    /// A node says something.
    pub fn handle_letter(&mut self, _now: Instant, _from: NodeId, _letter: Letter) {}

    /// This node knows an older version than that one: records are to be asked for.
    pub fn handle_behind(&mut self, _now: Instant, _peer: NodeId) {}

    /// An operator says something.
    pub fn handle_command(&mut self, _now: Instant, tag: u64, _command: ClusterCommand) {
        let answer = Err(Refusal::Membership("not yet".to_owned()));
        self.outputs.push_back(Output::Answer { tag, answer });
    }

    /// The shards have come so far.
    pub fn handle_progress(&mut self, _now: Instant, _progress: Progress) {}

    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Membership::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Instant {
        Instant(u64::MAX)
    }
}
