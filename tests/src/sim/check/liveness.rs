//! A store that refuses everything keeps every other promise. In the calm phase most operations succeed, and every
//! one is answered.

use super::super::history::Ending;
use super::{Evidence, Violation};

const PROMISE: &str = "liveness";

/// Counts how the operations of the calm phase ended.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let calm: Vec<_> = evidence.history.iter().filter(|(_, op)| op.calm).collect();
    // That a key is full is no want of life.
    let failed: Vec<_> = calm.iter().filter(|(_, op)| op.ending != Ending::Ok && !op.crowded).collect();
    let mut violations = Vec::new();
    if calm.is_empty() {
        violations.push(Violation::general(PROMISE, "the calm phase never came".to_owned()));
    }
    // Nothing is wrong any more; a tenth is for what clients still ask of queues that are draining.
    if failed.len() * 10 > calm.len() {
        let some: Vec<_> =
            failed.iter().take(5).map(|(id, op)| format!("{:?} {id} {:?}", op.kind, op.ending)).collect();
        let text = format!(
            "{} of {} operations of the calm phase failed, such as {}",
            failed.len(),
            calm.len(),
            some.join(", ")
        );
        violations.push(Violation::general(PROMISE, text));
    }
    violations
}
