//! Agreement on members and buckets: one machine for each node.
//!
//! ```text
//!  operator ─command─▶ staging ──▶ plan ──▶ proposal ─Prepare, Accept─▶ voters         (commands, staging, plan, deciding, paxos)
//!                                              │ decided
//!  file NUMBER.record ◀── chain ◀── Records ───┴───────────▶ everybody                 (learning, chain, files)
//!                           │
//!  shards ─progress─▶ marks ┴─▶ Configurations ──▶ shards                              (marks, configurations)
//!            └──────── News, each second, to all that are connected ◀──▶               (news, peers)
//! ```
//! Without most of the voters, an operator has one node decide alone who is lost (recovery). The first version that is agreed on is that of the
//! file, with all whom it names or without some who never come (founding).
//!
//! Rules, each kept where it is named:
//! - what a voter promises or accepts is durable before it says so ([`Output`]s are carried out in order, one after another);
//! - a store that the newest record does not name does not vote: it has forgotten what it promised (`deciding::may_vote`);
//! - nobody votes on a version before it knows the one before (`deciding::bearing`);
//! - a record is durable here before anything follows from it, and before anybody else learns it from this node;
//! - marks are durable before anybody is told of them.
//!
//! Nothing here knows time or chance but by its arguments, and no letter, whatever is in it, makes it panic.

mod chain;
mod commands;
mod deciding;
mod files;
mod founding;
mod learning;
mod letter;
mod marks;
mod news;
mod paxos;
mod peers;
mod plan;
mod recovery;
mod staging;
mod voters;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use driftless_proto::membership::{ClusterAnswer, ClusterCommand, Moving, StoreId};
use driftless_proto::{Failure, ProtocolVersion, Refusal, Topology};
use driftless_ring::{Member, NodeId};
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::chain::Chain;
use self::deciding::{Deciding, Initiative};
use self::marks::Everybody;
use self::paxos::Standing;
use self::peers::Peers;
use self::staging::Staging;
use crate::configurations::Configurations;
use crate::planted::Planted;
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
    /// A mistake that a test wants it to make.
    pub planted: Planted,
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
    /// Show people these, and no others.
    Apart(Vec<Apart>),
    /// Answer a command.
    Answer {
        /// Which.
        tag: u64,
        /// What to say.
        answer: Result<ClusterAnswer, Failure>,
    },
}

/// A connected node that goes by another history than this one: only one of the two can go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Apart {
    /// What people call it.
    pub name: String,
    /// What shows it, in words.
    pub what: String,
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

impl Progress {
    /// How far two shards have come together: as far as the one that is behind. Who is ready for a later version is not for the one before:
    /// they are ready for none before both are for the same.
    #[must_use]
    pub fn together(self, other: Progress) -> Progress {
        let mut moving = self.moving;
        moving += other.moving;
        Progress {
            version: self.version.min(other.version),
            closed: self.closed.min(other.closed),
            ready: if self.ready == other.ready { self.ready } else { 0 },
            left: self.left.min(other.left),
            moving,
            held_bytes: self.held_bytes + other.held_bytes,
            held_slots: self.held_slots + other.held_slots,
        }
    }
}

/// Agreement, on one node.
pub struct Membership {
    me: Candidate,
    /// When it began to listen.
    started: Instant,
    rng: StdRng,
    chain: Chain,
    marks: Everybody,
    /// As a voter on the next version.
    standing: Standing,
    staging: Staging,
    peers: Peers,
    /// What this node proposes now.
    deciding: Option<Deciding>,
    /// When a value that this node has accepted has been undecided for too long.
    finish_at: Option<Instant>,
    initiative: Initiative,
    progress: Progress,
    news: news::Schedule,
    /// Other members that have said, since this process started, that they go by the file alone.
    company: BTreeSet<NodeId>,
    configurations: Arc<Configurations>,
    outputs: VecDeque<Output>,
    planted: Planted,
}

impl Membership {
    /// A node that has just started, with what it wrote down before.
    ///
    /// # Errors
    /// In words, if a file is not what was written: the node must not start.
    pub fn new(config: MembershipConfig, now: Instant) -> Result<Membership, String> {
        let MembershipConfig { candidate, founding, files, seed, planted } = config;
        let me = candidate.member.id;
        let (mut records, mut standing, mut marks) = (BTreeMap::new(), Standing::default(), None);
        for (name, bytes) in &files {
            if let Some(version) = files::version_of(name) {
                records.insert(version, files::decode(name, bytes)?);
            } else if name == files::BALLOT {
                standing = files::decode(name, bytes)?;
            } else if name == files::MARKS {
                marks = Some(bytes.as_slice());
            }
        }
        let (marks, settled) = Everybody::new(me, candidate.store, marks)?;
        let chain = Chain::new(founding.clone(), me, records, settled)?;
        let Member { id, shards, .. } = candidate.member;
        let configurations = Configurations::of_file(founding).of_process(id, shards).in_company_of(1);
        let mut membership = Membership {
            me: candidate,
            started: now,
            rng: StdRng::from_seed(seed),
            chain,
            marks,
            standing,
            staging: Staging::default(),
            peers: Peers::default(),
            deciding: None,
            finish_at: None,
            initiative: Initiative::new(now),
            progress: Progress::default(),
            news: news::Schedule::new(now),
            company: BTreeSet::new(),
            configurations: Arc::new(configurations),
            outputs: VecDeque::new(),
            planted,
        };
        if let Some(configurations) = membership.worked_out() {
            membership.configurations = Arc::new(configurations);
        }
        membership.watch_over_accepted(now);
        Ok(membership)
    }

    /// The versions that count now.
    pub fn configurations(&self) -> &Arc<Configurations> {
        &self.configurations
    }

    /// The store of a member, as the newest version says that counts and has it as one.
    pub fn store_of(&self, node: NodeId) -> Option<StoreId> {
        self.chain.store_of(node)
    }

    /// Whether a store was declared lost: a node that has it is refused for ever.
    pub fn is_lost(&self, node: NodeId, store: StoreId) -> bool {
        self.chain.newest().is_some_and(|newest| newest.record.is_lost(node, store))
    }

    /// There is a connection to this node, which goes by that version of the protocol.
    pub fn handle_connected(&mut self, now: Instant, peer: NodeId, speaks: ProtocolVersion) {
        let chain = &self.chain;
        self.peers.set_connected(peer, |node| is_known(chain, node), Some(speaks));
        self.tell_news(now, peer);
    }

    /// There is none any more.
    pub fn handle_disconnected(&mut self, _now: Instant, peer: NodeId) {
        let chain = &self.chain;
        self.peers.set_connected(peer, |node| is_known(chain, node), None);
        self.set_apart(peer, None);
    }

    /// A node says something.
    pub fn handle_letter(&mut self, now: Instant, from: NodeId, letter: Letter) {
        if from == self.me.member.id {
            return;
        }
        match letter {
            Letter::News(news) => self.hear_news(now, from, *news),
            Letter::Want { after } => self.answer_want(now, from, after),
            Letter::Records { settled, records } => self.learn(now, from, settled, records),
            Letter::Prepare { slot, parent, ballot } => self.hear_prepare(now, from, slot, parent, ballot),
            Letter::Promise { slot, ballot, accepted, store } => {
                self.hear_promise(now, from, slot, ballot, accepted, store);
            }
            Letter::Nack { slot, promised } => self.hear_nack(now, from, slot, promised),
            Letter::Accept { ballot, record } => self.hear_accept(now, from, ballot, &record),
            Letter::Accepted { slot, ballot, store } => self.hear_accepted(now, from, slot, ballot, store),
        }
        self.take_initiative(now);
    }

    /// This node knows an older version than that one: records are to be asked for.
    pub fn handle_behind(&mut self, now: Instant, peer: NodeId) {
        self.want(now, peer);
    }

    /// An operator says something.
    pub fn handle_command(&mut self, now: Instant, tag: u64, command: ClusterCommand) {
        match self.command(now, tag, command) {
            Ok(None) => {}
            Ok(Some(answer)) => self.answer(tag, Ok(answer)),
            Err(why) => self.answer(tag, Err(why)),
        }
    }

    /// The shards have come so far.
    pub fn handle_progress(&mut self, now: Instant, progress: Progress) {
        self.progress = progress;
        if self.marks.raise(&progress) {
            self.write_marks();
            self.rework(now);
            self.news.hurry(now);
        }
        self.take_initiative(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.go_on_deciding(now);
        self.take_initiative(now);
        self.spread_news(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Membership::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Instant {
        let deciding = self.deciding.as_ref().map(Deciding::timeout);
        let finish = self.finish_at.filter(|_| self.deciding.is_none());
        [Some(self.news.at()), deciding, finish].into_iter().flatten().min().unwrap_or(Instant(u64::MAX))
    }

    /// To one who can read it: that a member cannot is seen before it comes to that (`commands`). What is staged is left out of the news for others.
    fn send(&mut self, to: NodeId, letter: Letter) {
        let can_read = self.peers.speaks(to).is_none_or(|speaks| speaks >= letter.spoken_from());
        let letter = match letter {
            letter if can_read => letter,
            Letter::News(news) => Letter::News(Box::new(letter::News { staged: None, ..*news })),
            _ => return,
        };
        self.outputs.push_back(Output::Send { to, letter });
    }

    fn write(&mut self, name: impl Into<String>, bytes: Vec<u8>) {
        self.outputs.push_back(Output::Write { name: name.into(), bytes: Some(bytes) });
    }

    fn answer(&mut self, tag: u64, answer: Result<ClusterAnswer, String>) {
        self.outputs.push_back(Output::Answer { tag, answer: answer.map_err(|why| Refusal::Membership(why).into()) });
    }

    /// What is found of the history of another node. Who is not connected says nothing of it any more.
    fn set_apart(&mut self, peer: NodeId, what: Option<String>) {
        if self.peers.set_apart(peer, what) {
            let apart =
                self.peers.apart().map(|(node, what)| Apart { name: self.name_of(node), what: what.to_owned() });
            self.outputs.push_back(Output::Apart(apart.collect()));
        }
    }

    /// The store with which a node is there now.
    fn store_there(&self, now: Instant, node: NodeId) -> Option<StoreId> {
        if node == self.me.member.id {
            return Some(self.me.store);
        }
        self.peers.heard(node).filter(|_| self.peers.is_heard(now, node)).map(|heard| heard.candidate.store)
    }

    /// Whether a member is there now, with the store that is named as its own.
    fn is_up(&self, now: Instant, node: NodeId) -> bool {
        self.chain.store_of(node).is_some_and(|named| self.store_there(now, node) == Some(named))
    }

    /// What people call a node.
    fn name_of(&self, node: NodeId) -> String {
        let rings = self.chain.records().rev().map(|known| known.record.topology.ring());
        let member = rings.chain([self.chain.founding().ring()]).find_map(|ring| ring.member(node));
        let heard = self.peers.heard(node).map(|heard| &heard.candidate.member);
        member.or(heard).map_or_else(|| node.to_string(), |member| member.name.clone())
    }

    /// In the order of their names.
    fn names_of(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<String> {
        let mut names: Vec<String> = nodes.into_iter().map(|node| self.name_of(node)).collect();
        names.sort_unstable();
        names
    }
}

/// Whether a node is a member of any version that counts.
fn is_known(chain: &Chain, node: NodeId) -> bool {
    chain.is_member(node) || chain.unsettled().iter().any(|record| record.topology.ring().member(node).is_some())
}

/// Names, and what is said of one or of several.
fn said_of(names: &[String], one: &str, several: &str) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { one } else { several })
}

#[cfg(test)]
mod tests;
