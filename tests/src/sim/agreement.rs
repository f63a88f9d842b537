//! A node's part in agreeing on members: the machine, the files that outlive its process, and what its shards say of how far they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftless_node::configurations::Configurations;
use driftless_node::membership::{Candidate, Letter, Membership, MembershipConfig, Output, Progress};
use driftless_node::time::Instant;
use driftless_proto::membership::{ClusterAnswer, ClusterCommand, StoreId};
use driftless_proto::{Failure, ProtocolVersions, Topology};
use driftless_ring::{Member, NodeId};

/// What outlives the process, and what does not.
pub struct Agreement {
    /// Names its disk.
    pub store: StoreId,
    /// Durable as soon as they are written.
    pub files: BTreeMap<String, Vec<u8>>,
    member: Member,
    machine: Option<Membership>,
    progress: Vec<Progress>,
    told: Option<Progress>,
}

/// What came of a turn.
#[derive(Default)]
pub struct Agreed {
    /// Other versions count from now on.
    pub configurations: Option<Arc<Configurations>>,
    /// To be sent.
    pub letters: Vec<(NodeId, Letter)>,
    /// To operators.
    pub answers: Vec<(u64, Result<ClusterAnswer, Failure>)>,
    /// A shard beside the first has something to say to it.
    pub is_for_the_first: bool,
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A node says something.
    Letter(NodeId, Letter),
    /// There is a connection.
    Up(NodeId),
    /// There is none any more.
    Lost(NodeId),
    /// A shard has met who knows more.
    Behind(NodeId),
    /// An operator says something.
    Command(u64, ClusterCommand),
}

impl Agreement {
    /// Of a node that would be such a member, with an empty disk.
    pub fn new(store: StoreId, member: Member) -> Agreement {
        Agreement { store, files: BTreeMap::new(), member, machine: None, progress: Vec::new(), told: None }
    }

    /// Its disk is lost, and an empty one is in its place.
    pub fn wipe(&mut self, store: StoreId) {
        self.store = store;
        self.files.clear();
    }

    /// A process starts with what the one before has written down. Answers the versions that count.
    pub fn start(&mut self, now: Instant, founding: &Arc<Topology>, seed: [u8; 32]) -> Arc<Configurations> {
        let (member, shards) = (self.member.clone(), usize::from(self.member.shards));
        let config = MembershipConfig {
            candidate: Candidate { member, store: self.store },
            founding: founding.clone(),
            files: self.files.clone().into_iter().collect(),
            seed,
        };
        let machine = Membership::new(config, now).expect("its files are what it wrote");
        let configurations = machine.configurations().clone();
        self.machine = Some(machine);
        self.progress = vec![Progress::default(); shards];
        self.told = None;
        configurations
    }

    /// The process is gone.
    pub fn stop(&mut self) {
        self.machine = None;
    }

    /// How far its shards are.
    pub fn progress(&self) -> &[Progress] {
        &self.progress
    }

    /// A shard has come so far. Whether that is news.
    pub fn note(&mut self, shard: usize, progress: Progress) -> bool {
        std::mem::replace(&mut self.progress[shard], progress) != progress
    }

    /// Tells the machine what was heard, and how far the shards are, and carries out what it wants.
    pub fn turn(&mut self, now: Instant, heard: Vec<Heard>) -> Agreed {
        let mut agreed = Agreed::default();
        let Some(machine) = &mut self.machine else { return agreed };
        for heard in heard {
            match heard {
                Heard::Letter(from, letter) => machine.handle_letter(now, from, letter),
                Heard::Up(peer) => machine.handle_connected(now, peer, ProtocolVersions::OURS.highest()),
                Heard::Lost(peer) => machine.handle_disconnected(now, peer),
                Heard::Behind(peer) => machine.handle_behind(now, peer),
                Heard::Command(tag, command) => machine.handle_command(now, tag, command),
            }
        }
        let progress = self.progress.iter().copied().reduce(Progress::together).unwrap_or_default();
        if self.told.replace(progress) != Some(progress) {
            machine.handle_progress(now, progress);
        }
        if machine.poll_timeout() <= now {
            machine.handle_timeout(now);
        }
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Write { name, bytes: Some(bytes) } => drop(self.files.insert(name, bytes)),
                Output::Write { name, bytes: None } => drop(self.files.remove(&name)),
                Output::Send { to, letter } => agreed.letters.push((to, letter)),
                Output::Configurations(configurations) => agreed.configurations = Some(configurations),
                // Nobody forces anything here.
                Output::Apart(_) => {}
                Output::Answer { tag, answer } => agreed.answers.push((tag, answer)),
            }
        }
        agreed
    }

    /// When it wants to be woken.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.as_ref().map(Membership::poll_timeout)
    }
}
