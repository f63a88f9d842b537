//! No dot is stamped twice or seen before its batch was applied, no actor serves two lives of a node, a live actor's
//! counters have no gap, and what is live under a write id is not stamped again. Only tests can see this, which makes
//! it the earliest sign of most mistakes. And a stamp is later than all that its writer had read, whatever the clocks
//! say: else replicas where the last writer wins could discard each other's only value.

use super::super::history::{Ending, Kind, Operation};
use super::{Evidence, Violation};

/// Repeats what the observer noticed on the way.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = early_stamps(evidence);
    violations.extend(repeated_stamps(evidence));
    violations.extend(refused_stamps(evidence));
    let wrong = evidence.observer.wrong.iter();
    violations.extend(wrong.map(|(slot, text)| Violation { promise: "dots", slot: slot.clone(), text: text.clone() }));
    violations
}

/// Each attempt of a client is stamped once at most: nobody passes it on twice, or passes it on and stamps it as well. One that meets
/// another version of the ring is begun again by the node that has stamped it, which knows of that unless it remembers few writes.
fn repeated_stamps(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (id, op) in evidence.history.iter() {
        let stamps = evidence.observer.dots_of(op).count();
        let is_forgotten = evidence.members_change && evidence.forgetful;
        let beginnings = op.attempts as usize * if is_forgotten { BEGINNINGS_MAX } else { 1 };
        if op.kind != Kind::Get && stamps > beginnings {
            let text = format!("{:?} {id} was stamped {stamps} times in {} attempts", op.kind, op.attempts);
            violations.push(Violation::of("one stamp per attempt", &op.slot, text));
        }
    }
    violations
}

/// What was refused has not happened: no attempt of it was stamped by anybody.
fn refused_stamps(evidence: &Evidence<'_>) -> Vec<Violation> {
    let is_refused = |op: &Operation| op.kind != Kind::Get && op.ending == Ending::Refused;
    let refused = evidence.history.iter().filter(|(_, op)| is_refused(op));
    let stamped = refused.filter(|(_, op)| evidence.observer.dots_of(op).next().is_some());
    let told = |(id, op): (_, &Operation)| {
        Violation::of("refused means not done", &op.slot, format!("{:?} {id} was refused, and stamped", op.kind))
    };
    stamped.map(told).collect()
}

fn early_stamps(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (id, op) in evidence.history.iter() {
        let Some(seen) = &op.seen else { continue };
        for (dot, stamp) in evidence.observer.dots_of(op) {
            if stamp.after.get(dot).is_some_and(|outline| outline.written_at <= seen.inside.written_at) {
                let text = format!("{:?} {id} was stamped no later than what its writer had read", op.kind);
                violations.push(Violation::of("stamps follow reads", &op.slot, text));
            }
        }
    }
    violations
}

/// How often one attempt may be begun where members change: a version counts in three steps, and an attempt may live through two.
const BEGINNINGS_MAX: usize = 6;
