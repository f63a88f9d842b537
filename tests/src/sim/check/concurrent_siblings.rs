//! Siblings are concurrent: of two values shown together, or live together at the end, neither has overwritten the
//! other. Nothing is invented: what is read was written, and what was refused is never seen. A read shows a write
//! once, however often it was stamped.

use super::super::history::{Ending, Kind, OpId};
use super::{Evidence, Violation};

const PROMISE: &str = "siblings are concurrent";

/// Looks at every read, and at what is left.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (id, op) in evidence.history.iter().filter(|(_, op)| op.kind == Kind::Get && op.ending == Ending::Ok) {
        let mut wrong = together(evidence, &op.values);
        let mut sorted = op.values.clone();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            wrong.push(format!("a write is shown twice in {:?}", op.values));
        }
        if !evidence.keeps_siblings(&op.slot) && op.values.len() > 1 {
            wrong.push(format!("the last writer should have won over {:?}", op.values));
        }
        wrong.extend(refused(evidence, &op.values));
        violations.extend(wrong.into_iter().map(|text| Violation::of(PROMISE, &op.slot, format!("get {id}: {text}"))));
    }
    for slot in evidence.slots() {
        let last = evidence.final_of(&slot);
        let mut wrong = together(evidence, &last);
        wrong.extend(refused(evidence, &last));
        if evidence.merged(&slot).live().len() != last.len() {
            wrong.push("a live write is nobody's".to_owned());
        }
        violations.extend(wrong.into_iter().map(|text| Violation::of(PROMISE, &slot, format!("at the end: {text}"))));
    }
    let odd = evidence.history.oddities.iter();
    violations.extend(odd.map(|(slot, text)| Violation {
        promise: "answers make sense",
        slot: slot.clone(),
        text: text.clone(),
    }));
    violations
}

fn together(evidence: &Evidence<'_>, values: &[OpId]) -> Vec<String> {
    let mut wrong = Vec::new();
    for b in values {
        let past = evidence.past.of(*b);
        for a in values.iter().filter(|a| past.contains(a) && !evidence.past.is_exempt(**a)) {
            wrong.push(format!("{a} beside {b}, whose author had read it"));
        }
    }
    wrong
}

fn refused(evidence: &Evidence<'_>, values: &[OpId]) -> Vec<String> {
    let was_refused = |id: &&OpId| evidence.history.get(**id).ending == Ending::Refused;
    values.iter().filter(was_refused).map(|id| format!("{id} was refused, so nothing of it should exist")).collect()
}
