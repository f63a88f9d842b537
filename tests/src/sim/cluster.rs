//! The part of a world that owns its nodes: who they are, what the ring says of them, and what joins them.
//!
//! Nodes are numbered in the order in which they came, and a number is never given again. A node that has left for good
//! keeps its place in the list, so that what was seen of it can still be told, and is in no walk over all nodes.
//!
//! The newest ring is asked for here: nobody else keeps one but a process, which knows the versions that it goes by. Those may be several
//! while members change, and older than this one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use driftless_node::planted::Planted;
use driftless_node::replica::record::RecordKey;
use driftless_proto::membership::{ClusterState, StoreId};
use driftless_proto::{ContextKeys, Topology};
use driftless_ring::{Member, NodeId};
use rand::Rng;
use rand::rngs::StdRng;

use super::agreement::Agreement;
use super::check;
use super::history::Slot;
use super::network::Network;
use super::node::Node;
use super::profile::Profile;
use super::schedule::Micros;
use super::shape;
use super::store::SimStore;

/// Nodes, their ring, and the network between them.
pub struct Cluster {
    /// What is between the nodes.
    pub network: Network,
    /// All nodes that there ever were, by number.
    nodes: Vec<Node>,
    /// The nodes that have left for good.
    left: BTreeSet<usize>,
    numbers: BTreeMap<NodeId, usize>,
    topology: Arc<Topology>,
    /// The file that all nodes are started with, where members come and go while they run.
    founding: Option<Arc<Topology>>,
    context_keys: ContextKeys,
    planted: Planted,
}

impl Cluster {
    /// The nodes that a profile asks for, none of which runs yet.
    pub fn new(profile: &Profile, planted: Planted, network_rng: StdRng) -> Cluster {
        let id = |number| NodeId::of_name(&shape::name_of(number));
        let nodes: Vec<Node> = (0..profile.nodes).map(|number| Node::new(id(number), profile.sync[number])).collect();
        Cluster {
            network: Network::new(profile.nodes, profile.latency, profile.faults.clone(), network_rng),
            numbers: nodes.iter().enumerate().map(|(number, node)| (node.id, number)).collect(),
            nodes,
            left: BTreeSet::new(),
            topology: Arc::new(shape::topology(&profile.shards)),
            founding: None,
            context_keys: driftless_testkit::context_keys(),
            planted,
        }
    }

    /// One node more, with an empty disk whose syncs take so long. It does not run yet. Answers its number.
    pub fn add(&mut self, sync: (Micros, Micros)) -> usize {
        let number = self.nodes.len();
        let node = Node::new(NodeId::of_name(&shape::name_of(number)), sync);
        self.numbers.insert(node.id, number);
        self.nodes.push(node);
        if self.founding.is_some() {
            let shards = 1 + (number % SHARDS_OF_NEWCOMERS) as u16;
            let agreement = Agreement::new(StoreId(number as u128 + 1), shape::member(number, shards));
            self.nodes[number].agreement = Some(agreement);
        }
        self.network.add();
        number
    }

    /// A node that does not run leaves for good, and takes its disk along.
    pub fn remove(&mut self, node: usize) {
        assert!(!self.nodes[node].runs(), "a process that runs leaves nothing");
        self.left.insert(node);
    }

    /// From now on the ring is another one: the next version, of these nodes. Processes learn of it when they start.
    pub fn change_ring(&mut self, members: &[usize]) {
        let ring = self.topology.ring();
        let known = |node: usize| ring.member(self.nodes[node].id).cloned();
        let member = |node: &usize| known(*node).unwrap_or_else(|| shape::member(*node, 1));
        let mut spec = ring.spec();
        spec.members = members.iter().map(member).collect::<Vec<Member>>();
        let next = ring.next(spec).expect("nothing but the members changes, and there are three or more");
        self.topology = Arc::new(self.topology.with_ring(next).expect("its buckets fitted the ring before"));
    }

    /// Members come and go while nodes run: every node takes part in agreeing on them.
    pub fn agree_on_members(&mut self) {
        self.founding = Some(self.topology.clone());
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let member = self.topology.ring().member(node.id).cloned().expect("founds the cluster");
            node.agreement = Some(Agreement::new(StoreId(number as u128 + 1), member));
        }
    }

    /// The disk of a node that does not run is lost, and an empty one is in its place.
    pub fn wipe(&mut self, node: usize, store: StoreId) {
        assert!(!self.nodes[node].runs(), "a process that runs holds on to its disk");
        self.nodes[node].store = SimStore::default();
        if let Some(agreement) = &mut self.nodes[node].agreement {
            agreement.wipe(store);
        }
    }

    /// What a node that runs says of the members.
    pub fn state_of(&mut self, node: usize, at: Micros) -> Option<ClusterState> {
        let node = &mut self.nodes[node];
        let now = node.clock.now(at).instant;
        node.agreement.as_mut()?.state(now)
    }

    /// Whether they do.
    pub fn agrees_on_members(&self) -> bool {
        self.founding.is_some()
    }

    /// Some node goes by this: the newest version that any of them has is the one.
    pub fn learn(&mut self, topology: &Arc<Topology>) {
        if topology.ring().version() > self.topology.ring().version() {
            self.topology = topology.clone();
        }
    }

    /// A node starts, with the ring as it is now.
    pub fn start(&mut self, node: usize, now: Micros, profile: &Profile, rng: &mut StdRng) {
        let limits = shape::limits(profile);
        let topology = self.founding.as_ref().unwrap_or(&self.topology).clone();
        self.nodes[node].start(now, &topology, &self.context_keys, limits, &self.planted, rng);
    }

    /// Ring and buckets, as they are now.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// What the nodes seal contexts with.
    pub fn context_keys(&self) -> &ContextKeys {
        &self.context_keys
    }

    /// The mistake that the engines make.
    pub fn planted(&self) -> &Planted {
        &self.planted
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.left.len()
    }

    /// Whether all have left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of all nodes that there are, in order.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        let left = self.left.clone();
        (0..self.nodes.len()).filter(move |node| !left.contains(node))
    }

    /// All nodes that there are, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(node, _)| !self.left.contains(node))
    }

    /// Whether a node has left for good.
    pub fn has_left(&self, node: usize) -> bool {
        self.left.contains(&node)
    }

    /// The number of a node.
    pub fn number_of(&self, id: NodeId) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    /// Any node.
    pub fn any(&self, rng: &mut StdRng) -> usize {
        self.nth(rng.random_range(0..self.len()))
    }

    /// Any node but this one.
    pub fn any_but(&self, node: usize, rng: &mut StdRng) -> usize {
        let place = self.numbers().position(|number| number == node).expect("it has not left");
        self.nth((place + rng.random_range(1..self.len())) % self.len())
    }

    /// The numbers of the nodes that own a key.
    pub fn owners(&self, slot: &Slot) -> Vec<usize> {
        check::primaries(&self.topology, slot)
    }

    /// The key's record in a store.
    pub fn record_of(&self, slot: &Slot) -> RecordKey {
        check::record_of(&self.topology, slot)
    }

    /// Whether all owners of a key hold equal bytes.
    pub fn agrees_on(&self, slot: &Slot) -> bool {
        let record = self.record_of(slot);
        let mut bytes = self.owners(slot).into_iter().map(|node| self[node].store.record(&record));
        let first = bytes.next();
        bytes.all(|bytes| Some(bytes) == first)
    }

    fn nth(&self, place: usize) -> usize {
        self.numbers().nth(place).expect("there are as many")
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, node: usize) -> &Node {
        &self.nodes[node]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }
}

/// Those who come while members change have up to so many shards.
const SHARDS_OF_NEWCOMERS: usize = 3;
