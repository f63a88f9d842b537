//! From the moment of its acknowledgement, a write with `durability = sync` is on as many disks as acknowledged it,
//! for ever: that many nodes' durable state covers its dot.
//!
//! One fewer if a disk was lost since the write began: that is the loss which w ≥ 2 is for.
//!
//! This looks at the moment itself, so it needs no crash at the right time to notice an acknowledgement that came
//! before the sync.

use driftless_node::replica::record::RecordKey;
use driftless_proto::{Conflict, Durability, Topology};

use super::super::history::{History, OpId};
use super::super::observer::Observer;
use super::super::schedule::Micros;
use super::super::store::SimStore;
use super::{Violation, primaries};

const PROMISE: &str = "durability";

/// The writes acknowledged so far, with the number of disks each was promised.
#[derive(Debug, Default)]
pub struct DurabilityOracle {
    promised: Vec<(OpId, u8)>,
    disk_losses: Vec<Micros>,
    /// What was found missing.
    pub violations: Vec<Violation>,
}

impl DurabilityOracle {
    /// A disk was set back: of what was promised until now, one copy may be gone.
    pub fn disk_lost(&mut self, at: Micros) {
        self.disk_losses.push(at);
    }

    /// A node has just acknowledged a write.
    pub fn acknowledged(
        &mut self,
        id: OpId,
        acks: u8,
        topology: &Topology,
        history: &History,
        observer: &Observer,
        disks: &[SimStore],
    ) {
        let bucket = topology.bucket(history.get(id).slot.0).expect("slots are drawn from the buckets");
        if bucket.durability == Durability::Sync {
            self.promised.push((id, acks));
            self.check(self.promised.len() - 1, "when it was acknowledged", topology, history, observer, disks);
        }
    }

    /// Looks at all acknowledged writes again.
    pub fn again(
        &mut self,
        when: &str,
        topology: &Topology,
        history: &History,
        observer: &Observer,
        disks: &[SimStore],
    ) {
        for at in 0..self.promised.len() {
            self.check(at, when, topology, history, observer, disks);
        }
    }

    fn check(
        &mut self,
        at: usize,
        when: &str,
        topology: &Topology,
        history: &History,
        observer: &Observer,
        disks: &[SimStore],
    ) {
        let (id, acks) = self.promised[at];
        let op = history.get(id);
        let lost = self.disk_losses.iter().filter(|at| **at >= op.invoked).count();
        let bucket = topology.bucket(op.slot.0).expect("slots are drawn from the buckets");
        let place = topology.place(bucket, &op.slot.1);
        let record = RecordKey::new(bucket.quorum.n(), place.token, bucket.id, &op.slot.1);
        let states: Vec<_> = primaries(topology, &op.slot)
            .into_iter()
            .filter_map(|node| disks[node].durable_record(record.as_bytes()))
            .collect();
        // A write that two coordinators stamped was acknowledged under one of its dots.
        let covered = |dot| states.iter().filter(|state| state.covers(dot)).count();
        let most = observer.dots_of(op.write_id).map(|(dot, _)| covered(dot)).max();
        // Where the last writer wins, a write may lose within the batch that stamps it: then no disk ever holds it.
        if most.is_none() && bucket.conflict == Conflict::Lww {
            return;
        }
        if most.is_none_or(|most| most + lost < usize::from(acks)) {
            let text = match most {
                None => format!("{:?} {id} was acknowledged and never stamped", op.kind),
                Some(most) => format!("{:?} {id} was acknowledged by {acks}, on {most} disks {when}", op.kind),
            };
            self.violations.push(Violation::of(PROMISE, &op.slot, text));
        }
    }
}
