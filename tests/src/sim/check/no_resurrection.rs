//! What an acknowledged write has overwritten never becomes live again.
//!
//! For every acknowledged `u`: `final ∩ past(u) = ∅`; and for strict quorums that overlap, also for every strict read
//! that began after `u` was acknowledged. An acknowledged delete without a context, even one that found nothing, ends
//! all that was acknowledged before it began, where strict quorums make its reads meet those writes. Writes that were
//! stamped twice are exempt.

use super::super::history::{Ending, Kind, OpId, Operation, Slot};
use super::{Evidence, Violation, is_acknowledged};

const PROMISE: &str = "no resurrection";

/// Looks for values that were overwritten and are back.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for slot in evidence.lasting_slots() {
        let last = evidence.final_of(&slot);
        let n = evidence.topology.bucket(slot.0).map_or(0, |bucket| bucket.quorum.n());
        let reads: Vec<_> = evidence
            .history
            .of(&slot)
            .filter(|(_, op)| op.kind == Kind::Get && op.ending == Ending::Ok && op.strict)
            .collect();
        violations.extend(deleted_and_back(evidence, &slot, n, &last));
        for (id, op) in evidence.acknowledged(&slot) {
            let past = evidence.past.of(id);
            // A delete that had nothing to remove lets the tombstones be.
            let is_meant = |value: OpId| is_acknowledged(op) || evidence.history.get(value).kind == Kind::Put;
            let back = |value: &&usize| past.contains(value) && is_meant(**value) && !evidence.past.is_exempt(**value);
            for value in last.iter().filter(back) {
                let text =
                    format!("{value} is live at the end, though acknowledged {:?} {id} had replaced it", op.kind);
                violations.push(Violation::of(PROMISE, &slot, text));
            }
            if !op.strict || evidence.past.is_exempt(id) {
                continue;
            }
            for (read, shown) in &reads {
                if shown.invoked > op.returned && shown.r + op.w > n && evidence.quorums_met(id, op, shown) {
                    for value in shown.values.iter().filter(back) {
                        let text = format!(
                            "strict get {read} shows {value}, which acknowledged {:?} {id} had replaced",
                            op.kind
                        );
                        violations.push(Violation::of(PROMISE, &slot, text));
                    }
                }
            }
        }
    }
    violations
}

fn deleted_and_back(evidence: &Evidence<'_>, slot: &Slot, n: u8, last: &[OpId]) -> Vec<Violation> {
    let of_slot = || evidence.history.of(slot).filter(|(_, op)| op.ending == Ending::Ok);
    let mut violations = Vec::new();
    let ends_all = |(id, op): &(OpId, &Operation)| {
        op.kind == Kind::Delete && op.strict && op.seen.is_none() && evidence.must_last(*id, op)
    };
    for (id, delete) in of_slot().filter(ends_all) {
        let meant = |value: &&OpId| {
            let put = evidence.history.get(**value);
            put.kind == Kind::Put
                && put.strict
                && put.ending == Ending::Ok
                && put.returned < delete.invoked
                // What was lost with its only disk no delete can know of, and a state that somebody had kept brings it back.
                && evidence.must_last(**value, put)
                && put.w + delete.r > n
                && evidence.quorums_met(**value, put, delete)
        };
        for value in last.iter().filter(meant).filter(|value| !evidence.past.is_exempt(**value)) {
            let text = format!("{value} is live at the end, though delete {id} was acknowledged after it");
            violations.push(Violation::of(PROMISE, slot, text));
        }
    }
    violations
}
