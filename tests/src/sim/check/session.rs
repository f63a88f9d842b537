//! Strict quorums that overlap: a read that begins after an acknowledged write knows it, and one that begins after
//! another read knows what that one showed. Both hold for all clients together, not only for each by itself.
//!
//! To know a write is to show it, or to have seen something that overwrote it. That holds over power cuts too: a strict
//! read shows only what enough disks have, acknowledged or not.

use super::super::history::{Ending, Kind, OpId, Operation};
use super::{Evidence, Violation};

/// Compares every strict read with what came before it.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for slot in evidence.lasting_slots().filter(|slot| evidence.keeps_siblings(slot)) {
        let quorum = evidence.topology.bucket(slot.0).expect("slots are drawn from the buckets").quorum;
        let reads: Vec<(OpId, &Operation)> = evidence
            .history
            .of(&slot)
            .filter(|(_, op)| op.kind == Kind::Get && op.ending == Ending::Ok && op.strict)
            .collect();
        for (id, read) in &reads {
            let known = evidence.past.known_to_read(read, evidence.history, evidence.observer);
            for (write, op) in evidence.acknowledged_stamps(&slot).filter(|(_, op)| op.strict) {
                let due =
                    op.returned < read.invoked && op.w + read.r > quorum.n() && evidence.quorums_met(write, op, read);
                if due && !known.contains(&write) && !evidence.past.is_exempt(write) {
                    let text =
                        format!("strict get {id} does not know {:?} {write}, acknowledged before it began", op.kind);
                    violations.push(Violation::of("reads see acknowledged writes", &slot, text));
                }
            }
            let overlaps = |read: &Operation| read.r + quorum.w() > quorum.n();
            let held_by = quorum.n() - quorum.r() + 1;
            let counts = |before: &Operation| {
                before.returned < read.invoked
                    && usize::from(held_by) > evidence.disk_losses.lacking(before, held_by, read.returned)
            };
            for (earlier, before) in reads.iter().filter(|(_, before)| counts(before)) {
                let met = |value: &&OpId| evidence.quorums_met(**value, before, read);
                for value in before.values.iter().filter(|value| !known.contains(value)).filter(met) {
                    if overlaps(read) && overlaps(before) && !evidence.past.is_exempt(*value) {
                        let text = format!("strict get {id} does not know {value}, which get {earlier} had shown");
                        violations.push(Violation::of("monotonic reads", &slot, text));
                    }
                }
            }
        }
    }
    violations
}
