//! A node is shown writes of its own actor that it has never stamped. Its disk may have been set back under it, or be somebody
//! else's as well: the actor must not be trusted any more, and nothing that it has stamped and that is not acknowledged yet
//! ever is.
//!
//! Nothing of the kind happens by itself here, where every start draws its actors anew. So a peer claims it, of a key that
//! nobody else uses: what the claim would overwrite is nobody's.

use std::collections::{BTreeMap, BTreeSet};

use driftless_node::peer::{Body, Merge, Message, Purpose, ReplicaRequest, Request, RequestId};
use driftless_proto::{ActorId, BucketDefinition, Conflict, Dot, Key, Siblings, VersionVector};
use driftless_ring::PartitionId;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use super::super::check::Violation;
use super::super::history::{OpId, Slot};
use super::super::node::Input;
use super::World;

/// What was claimed, and believed.
pub(in crate::sim) struct Claims {
    /// Whom each node was told of, and how often its alarm had gone off by then: one at a time, or it would not be known whom an
    /// alarm is about.
    open: BTreeMap<usize, (ActorId, u64)>,
    made: BTreeMap<usize, u64>,
    /// Keys that nobody uses, and that claims were about.
    slots: BTreeSet<Slot>,
    /// Actors that must not be trusted any more.
    retired: BTreeSet<ActorId>,
    rng: StdRng,
}

impl Claims {
    pub(super) fn new(rng: StdRng) -> Claims {
        Claims { open: BTreeMap::new(), made: BTreeMap::new(), slots: BTreeSet::new(), retired: BTreeSet::new(), rng }
    }

    /// The dice that say when something is claimed, and what.
    pub(in crate::sim) fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// A turn is over in which this actor was retired: what it has said may have been said before.
    pub(super) fn retired(&mut self, actor: Option<ActorId>) {
        self.retired.extend(actor);
    }
}

impl World {
    /// How often something was claimed to a node.
    pub fn claims_made(&self, node: usize) -> u64 {
        self.nemesis.claims.made.get(&node).copied().unwrap_or(0)
    }

    /// The keys that claims were about: no operation is of them, and they spread like others.
    pub fn slots_claimed(&self) -> impl Iterator<Item = &Slot> {
        self.nemesis.claims.slots.iter()
    }

    /// A peer, owner or not, claims to know writes of an actor of this node that the node has never stamped.
    pub(super) fn claim(&mut self, node: usize) {
        let life = (node, self.cluster[node].life);
        let is_live = |actor| self.judges.observer.actors_of(life).any(|(live, ..)| live == actor);
        if self.nemesis.claims.open.get(&node).is_some_and(|(actor, _)| is_live(*actor)) {
            return;
        }
        let id = self.cluster[node].id;
        let owned = |partition: PartitionId| self.cluster.topology().ring().owns(id, partition);
        let mine = self.judges.observer.actors_of(life).filter(|(_, partition, _)| owned(*partition));
        let Some((actor, partition, counter)) = mine.choose(&mut self.nemesis.claims.rng) else { return };
        let Some(slot) = self.key_of_nobody(partition) else { return };
        self.nemesis.claims.slots.insert(slot.clone());
        let (bucket, key) = slot;
        let peer = self.cluster.any_but(node, &mut self.nemesis.claims.rng);
        let vv: VersionVector = [Dot::new(actor, counter + STAMPS_CLAIMED)].into_iter().collect();
        let siblings = Siblings::from_parts(vv, Vec::new()).expect("nothing is live");
        let merge = Merge { bucket, key, siblings, hint_for: None, purpose: Purpose::ReadRepair };
        let deadline = self.instant(node) + std::time::Duration::from_secs(1);
        let body = Body::Request { deadline, request: Request::Replica(ReplicaRequest::Merge(merge)) };
        let ring_version = self.cluster.topology().ring().version().0;
        let message = Message { id: RequestId(self.nemesis.claims.rng.random()), ring_version, body };
        self.judges.observer.claimed(actor);
        self.nemesis.claims.open.insert(node, (actor, self.cluster[node].metrics.actor_alarms.get()));
        *self.nemesis.claims.made.entry(node).or_default() += 1;
        self.give(node, Input::Peer { from: self.cluster[peer].id, shard: 0, message });
    }

    /// The actor that a node has given up in the turn just done.
    pub(super) fn take_retired(&mut self, node: usize) -> Option<ActorId> {
        let alarms = self.cluster[node].metrics.actor_alarms.get();
        let (actor, _) = self.nemesis.claims.open.remove(&node).filter(|(_, before)| alarms > *before)?;
        self.judges.coverage.add("actors retired by claims", 1);
        Some(actor)
    }

    /// A put is acknowledged: not by a process that must not trust what it has stamped. The next one of the node does not know of
    /// that: it takes a retry for stamped if the record on its disk holds it.
    pub(super) fn check_trusted(&mut self, node: usize, op: OpId) {
        let (write, life) = (self.workload.history.get(op), (node, self.cluster[node].life));
        let mut stamps = self.judges.observer.dots_of(write).peekable();
        let all_retired = stamps.peek().is_some()
            && stamps.all(|(dot, stamp)| stamp.by == life && self.nemesis.claims.retired.contains(&dot.actor));
        if all_retired {
            let text = format!("n{node} acknowledges {:?} {op} by an actor that it has retired", write.kind);
            self.judges.violations.push(Violation::of("retired actors are silent", &write.slot.clone(), text));
        }
    }

    fn key_of_nobody(&self, partition: PartitionId) -> Option<Slot> {
        let keeps =
            |bucket: &&BucketDefinition| bucket.conflict == Conflict::Siblings && bucket.quorum.n() == partition.n;
        let bucket = self.cluster.topology().buckets().iter().find(keeps)?;
        let keys = (0..KEYS_TRIED).filter_map(|number| Key::new(format!("claimed-{number}")).ok());
        keys.into_iter()
            .find(|key| self.cluster.topology().place(bucket, key).partition == partition)
            .map(|key| (bucket.id, key))
    }
}

/// Far more than an actor stamps in a world.
const STAMPS_CLAIMED: u64 = 1_000_000;

/// There are eight partitions or so.
const KEYS_TRIED: usize = 200;
