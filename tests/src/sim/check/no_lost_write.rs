//! An acknowledged value stays until a write whose author had read it replaces it.
//!
//! For every acknowledged put `v` of a key: `v ∈ final`, or `v ∈ past(w)` for some `w ∈ final`. A tombstone may have made place
//! for a write that had not seen it: a delete counts like those in `final` as long as its dot is covered. A delete that found its
//! work done has no dot, and makes it known all the same: what it found replaced stays gone, though what had replaced it, never
//! acknowledged, may be lost. In buckets where the last writer wins, a value may lose against a later one, but something must be left: exactly one live write.

use super::{Evidence, Violation, past};

const PROMISE: &str = "no lost write";

/// Looks for acknowledged writes that nobody overwrote and nobody holds.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for slot in evidence.lasting_slots() {
        let last = evidence.final_of(&slot);
        let mut written = evidence.acknowledged_stamps(&slot);
        if !evidence.keeps_siblings(&slot) {
            if written.next().is_some() && last.len() != 1 {
                let text = format!("the last writer should have won, but {} writes are left: {last:?}", last.len());
                violations.push(Violation::of(PROMISE, &slot, text));
            }
            continue;
        }
        let merged = evidence.merged(&slot);
        let mut known = last.clone();
        known.extend(past::tombstones(&slot, merged.vv(), evidence.history, evidence.observer));
        for (id, op) in written {
            let overwritten = known.iter().any(|w| evidence.past.at_most(*w).contains(&id));
            let deleted = || evidence.past.may_be_gone(id, evidence.history, evidence.observer);
            if !known.contains(&id) && !overwritten && !deleted() {
                let text = format!(
                    "{:?} {id} of client {} was acknowledged by {} at {} µs and is gone; left are {last:?}",
                    op.kind, op.client, op.acks, op.returned
                );
                violations.push(Violation::of(PROMISE, &slot, text));
            }
        }
    }
    violations
}
