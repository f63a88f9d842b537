//! Nodes that join, and nodes that leave for good: the ring changes while nobody runs.
//!
//! A stand-in for membership as an operator without a protocol would do it: everybody stops, everybody is given the next
//! ring, everybody starts. Anti-entropy then brings to new owners what they lack.

use super::super::schedule::Micros;
use super::World;

impl World {
    /// One node more becomes a member, with an empty disk. Answers its number.
    pub fn join(&mut self, sync: (Micros, Micros)) -> usize {
        let node = self.cluster.add(sync);
        self.say(format_args!("n{node} joins"));
        self.restart_with_all();
        node
    }

    /// A node stops being a member, and is gone with its disk.
    pub fn leave(&mut self, node: usize) {
        self.say(format_args!("n{node} leaves for good"));
        self.kill(node, false);
        self.cluster.remove(node);
        self.judges.disk_losses.set_back(node, self.schedule.now());
        self.restart_with_all();
    }

    /// Every process stops, and starts with a ring of all nodes that there are.
    fn restart_with_all(&mut self) {
        let members: Vec<usize> = self.cluster.numbers().collect();
        members.iter().for_each(|node| self.kill(*node, false));
        self.cluster.change_ring(&members);
        members.into_iter().for_each(|node| self.start(node));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use driftless_node::liveness::Liveness;
    use driftless_node::planted::Planted;

    use super::super::super::history::{Ending, Slot};
    use super::super::super::profile::{Healing, Profile};
    use super::super::super::run::{converged, read_everything, wait_for_rest, wait_until};
    use super::*;

    /// A world that has had its troubles, and whose replicas agree. Nothing in it is kept by one node alone: a node that
    /// leaves would take that along.
    fn settled(seed: u64) -> World {
        let mut world = World::new(seed, Planted::default(), false);
        let mut bucket_weights = world.profile.bucket_weights;
        bucket_weights[SINGLE] = 0;
        world.profile =
            Profile { healing: Healing::Both, aae_interval: 300_000, bucket_weights, ..world.profile.clone() };
        world.run_until(world.profile.active, |_| false);
        world.make_calm();
        wait_for_rest(&mut world);
        agree(&mut world);
        world
    }

    /// Lets nodes find each other, replicas come to agree, and hints get to where they belong.
    fn agree(world: &mut World) {
        let is_met = |world: &World, node: usize, peer: usize| {
            node == peer
                || (world.cluster.network.connection(node, peer).is_some()
                    && world.cluster[node].liveness(world.cluster[peer].id) == Some(Liveness::Alive))
        };
        let all_meet =
            |world: &World| world.cluster.numbers().all(|a| world.cluster.numbers().all(|b| is_met(world, a, b)));
        let has_hints = |world: &World| world.cluster.iter().any(|(_, node)| node.store.hints() > 0);
        let is_done = |world: &World| all_meet(world) && converged(world) && !has_hints(world);
        wait_until(world, is_done);
        assert!(is_done(world), "nodes do not come to agree: {}", world.profile);
    }

    /// What the first owner of each key holds of it.
    fn records(world: &World) -> BTreeMap<Slot, Bytes> {
        let record =
            |slot: &Slot| world.cluster[world.cluster.owners(slot)[0]].store.record(&world.cluster.record_of(slot));
        let replicated = world.workload.history.slots().filter(|slot| world.cluster.owners(slot).len() > 1);
        replicated.filter_map(|slot| Some((slot.clone(), record(slot)?))).collect()
    }

    /// Every key is read from all its owners, and nobody has objected to anything.
    fn nothing_is_lost(world: &mut World) {
        let before = world.workload.history.len();
        read_everything(world);
        wait_for_rest(world);
        let reads: Vec<Ending> = world.workload.history.iter().skip(before).map(|(_, op)| op.ending).collect();
        assert!(
            !reads.is_empty() && reads.iter().all(|ending| *ending == Ending::Ok),
            "{reads:?} in {}",
            world.profile
        );
        world.judge("after the ring has changed");
        let judges = &world.judges;
        assert_eq!((&judges.violations[..], &judges.oracle.violations[..]), (&[][..], &[][..]));
        assert!(judges.observer.wrong.is_empty(), "{:?}", judges.observer.wrong);
    }

    #[test]
    fn a_node_that_joins_late_comes_to_hold_what_the_ring_gives_it() {
        for seed in seeds() {
            let mut world = settled(seed);
            let (before, nodes) = (records(&world), world.cluster.len());
            let node = world.join((200, 2_000));
            assert_eq!((node, world.cluster.len()), (nodes, nodes + 1));
            let its_own: Vec<Slot> =
                before.keys().filter(|slot| world.cluster.owners(slot).contains(&node)).cloned().collect();
            assert!(!its_own.is_empty(), "seed {seed} gives it nothing: another seed shows more");
            assert!(its_own.iter().all(|slot| !world.cluster.agrees_on(slot)), "its disk is empty");
            agree(&mut world);
            assert_eq!(records(&world), before, "seed {seed}");
            nothing_is_lost(&mut world);
        }
    }

    #[test]
    fn a_node_that_leaves_for_good_is_not_missed_and_its_number_is_not_given_again() {
        for seed in seeds() {
            let mut world = settled(seed);
            let last = world.join((200, 2_000));
            agree(&mut world);
            let before = records(&world);
            assert!(before.keys().any(|slot| world.cluster.owners(slot).contains(&LEAVES)), "seed {seed}");
            world.leave(LEAVES);
            assert!(before.keys().all(|slot| !world.cluster.owners(slot).contains(&LEAVES)), "seed {seed}");
            agree(&mut world);
            assert_eq!(records(&world), before, "seed {seed}");
            nothing_is_lost(&mut world);
            assert_eq!(world.join((200, 2_000)), last + 1);
            assert!(!world.cluster[LEAVES].runs() && world.cluster.numbers().all(|node| node != LEAVES));
            agree(&mut world);
            nothing_is_lost(&mut world);
        }
    }

    /// Some of each regime, in which nobody else changes the members.
    fn seeds() -> impl Iterator<Item = u64> {
        (3..).filter(|seed| World::new(*seed, Planted::default(), false).operator.is_none()).take(3)
    }

    const LEAVES: usize = 1;

    /// The place of the bucket whose keys have one owner.
    const SINGLE: usize = 3;
}
