//! A node's part in agreeing on members: the machine, the files that outlive its process, and what its shards say of how far they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftless_node::configurations::Configurations;
use driftless_node::membership::{Candidate, Letter, Membership, MembershipConfig, Output, Progress};
use driftless_node::planted::Planted;
use driftless_node::time::Instant;
use driftless_proto::membership::{ClusterAnswer, ClusterCommand, ClusterState, MemberState, StoreId};
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
    /// Somebody was declared lost by force who was there.
    pub is_forced_wrongly: bool,
    /// A node that is connected goes by another history.
    pub is_apart: bool,
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
    /// An operator forces that these are lost, of whom some are not; only where that is known here: what it would mean, is asked else.
    ForceUnlessThere(u64, Vec<String>),
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
    pub fn start(
        &mut self,
        now: Instant,
        founding: &Arc<Topology>,
        planted: Planted,
        seed: [u8; 32],
    ) -> Arc<Configurations> {
        let (member, shards) = (self.member.clone(), usize::from(self.member.shards));
        let config = MembershipConfig {
            candidate: Candidate { member, store: self.store },
            founding: founding.clone(),
            files: self.files.clone().into_iter().collect(),
            seed,
            planted,
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
        let mut to_be_refused = BTreeSet::new();
        for heard in heard {
            let Some(machine) = &mut self.machine else { return agreed };
            match heard {
                Heard::Letter(from, letter) => machine.handle_letter(now, from, letter),
                Heard::Up(peer) => machine.handle_connected(now, peer, ProtocolVersions::OURS.highest()),
                Heard::Lost(peer) => machine.handle_disconnected(now, peer),
                Heard::Behind(peer) => machine.handle_behind(now, peer),
                Heard::Command(tag, command) => machine.handle_command(now, tag, command),
                Heard::ForceUnlessThere(tag, lost) => {
                    self.carry_out(&mut agreed);
                    let members = self.state(now).map_or(Vec::new(), |state| state.members);
                    let is_there =
                        |member: &MemberState| member.is_heard && member.is_whole && lost.contains(&member.name);
                    let force = members.iter().any(is_there);
                    to_be_refused.extend(force.then_some(tag));
                    let Some(machine) = &mut self.machine else { return agreed };
                    machine.handle_command(now, tag, ClusterCommand::Recover { lost, force });
                }
            }
        }
        let progress = self.progress.iter().copied().reduce(Progress::together).unwrap_or_default();
        let Some(machine) = &mut self.machine else { return agreed };
        if self.told.replace(progress) != Some(progress) {
            machine.handle_progress(now, progress);
        }
        if machine.poll_timeout() <= now {
            machine.handle_timeout(now);
        }
        self.carry_out(&mut agreed);
        agreed.is_forced_wrongly =
            agreed.answers.iter().any(|(tag, answer)| to_be_refused.contains(tag) && answer.is_ok());
        agreed
    }

    /// What a status page would show of the members, between two turns.
    pub fn state(&mut self, now: Instant) -> Option<ClusterState> {
        let machine = self.machine.as_mut()?;
        machine.handle_command(now, 0, ClusterCommand::State);
        match machine.poll_output() {
            Some(Output::Answer { answer: Ok(ClusterAnswer::State(state)), .. }) => Some(*state),
            other => panic!("asked how things stand, and nothing else was to be done: {other:?}"),
        }
    }

    fn carry_out(&mut self, agreed: &mut Agreed) {
        while let Some(output) = self.machine.as_mut().and_then(Membership::poll_output) {
            match output {
                Output::Write { name, bytes: Some(bytes) } => drop(self.files.insert(name, bytes)),
                Output::Write { name, bytes: None } => drop(self.files.remove(&name)),
                Output::Send { to, letter } => agreed.letters.push((to, letter)),
                Output::Configurations(configurations) => agreed.configurations = Some(configurations),
                Output::Apart(apart) => agreed.is_apart |= !apart.is_empty(),
                Output::Answer { tag, answer } => agreed.answers.push((tag, answer)),
            }
        }
    }

    /// When it wants to be woken.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.as_ref().map(Membership::poll_timeout)
    }
}
