//! After the calm phase all primaries of a key hold the same bytes, and nobody else holds any.

use super::{Evidence, Violation};

const PROMISE: &str = "convergence";

/// Whether all primaries of every key hold equal bytes.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for slot in evidence.slots() {
        let primaries = evidence.primaries(&slot);
        let bytes: Vec<_> =
            primaries.iter().map(|node| evidence.held[node].get(&slot).map(|held| &held.bytes)).collect();
        if bytes.windows(2).any(|pair| pair[0] != pair[1]) {
            let states: Vec<_> = primaries
                .iter()
                .map(|node| {
                    let state = evidence.held[node].get(&slot).map(|held| held.siblings.header());
                    let state = state
                        .map_or("nothing".into(), |header| super::super::describe::header(&header, evidence.history));
                    format!("n{node} {state}")
                })
                .collect();
            violations.push(Violation::of(PROMISE, &slot, format!("replicas differ: {}", states.join(", "))));
        }
        for (node, held) in evidence.held {
            if !primaries.contains(node) && held.contains_key(&slot) {
                violations.push(Violation::of(PROMISE, &slot, format!("n{node} holds a key that it does not own")));
            }
        }
    }
    violations
}
