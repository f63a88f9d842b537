//! A scan lists what is there. Each key with a value that was acknowledged, by strict quorums that overlap the scan's,
//! before the scan began is listed, unless somebody may have deleted it since; what is listed was written, and not deleted
//! before the scan began; and in the calm phase every scan comes to its end.

use driftless_proto::Dot;

use super::super::history::{Ending, Kind, OpId, Operation, Slot, Walk, slot_text};
use super::super::observer::Stamp;
use super::{Evidence, Violation};

/// Looks at every walk through a bucket that came to its end.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let slots = evidence.slots();
    for (number, walk) in evidence.history.walks.iter().enumerate() {
        if walk.ending != Ending::Ok {
            if walk.calm {
                let text = format!(
                    "scan {number} of bucket {} ended as {:?} when nothing was wrong",
                    walk.bucket.0, walk.ending
                );
                violations.push(Violation::general("liveness", text));
            }
            continue;
        }
        for slot in slots.iter().filter(|slot| slot.0 == walk.bucket) {
            let is_listed = walk.keys.contains(&slot.1);
            let wrong = if is_listed { invented(evidence, slot, walk) } else { missed(evidence, slot, walk) };
            violations.extend(
                wrong.map(|text| Violation::of("scans list what is there", slot, format!("scan {number} {text}"))),
            );
        }
        if let Some(key) = walk.keys.iter().find(|key| !slots.contains(&(walk.bucket, (*key).clone()))) {
            let text = format!("scan {number} lists {}, which nobody wrote", slot_text(&(walk.bucket, key.clone())));
            violations.push(Violation::general("scans list what is there", text));
        }
    }
    violations
}

/// Whether the scan's replicas have met those that acknowledged this write before.
fn has_met(evidence: &Evidence<'_>, id: OpId, op: &Operation, walk: &Walk) -> bool {
    let n = evidence.topology.bucket(walk.bucket).map_or(0, |bucket| bucket.quorum.n());
    op.ending == Ending::Ok
        && op.strict
        && op.returned < walk.invoked
        && op.w + walk.r > n
        && evidence.quorums_met_until(id, op, walk.returned)
        && !evidence.may_be_forgotten(&op.slot)
        && evidence.must_last(id, op)
}

/// A value that must be listed: it was acknowledged, and no delete can have taken it. Where the last writer wins, by the clocks of the
/// nodes, a delete that had ended before may be the later one, if it was stamped.
fn missed(evidence: &Evidence<'_>, slot: &Slot, walk: &Walk) -> Option<String> {
    let keeps_siblings = evidence.keeps_siblings(slot);
    let may_delete = |put: &Operation| {
        evidence.history.of(slot).any(|(_, op)| {
            let ended = matches!(op.ending, Ending::Ok | Ending::Refused)
                && op.returned < put.invoked
                && (keeps_siblings || !may_win(evidence, op, put));
            op.kind == Kind::Delete && op.ending != Ending::Refused && op.invoked <= walk.returned && !ended
        })
    };
    let is_due = |id: OpId, op: &Operation| op.kind == Kind::Put && has_met(evidence, id, op, walk) && !may_delete(op);
    let (id, _) = evidence.history.of(slot).find(|(id, op)| is_due(*id, op) && !evidence.past.is_exempt(*id))?;
    Some(format!("does not list it, though put {id} was acknowledged before it began"))
}

/// Whether a delete may be the later write by the nodes' clocks. A stamp that has lost at once to a third write does not tell its time.
fn may_win(evidence: &Evidence<'_>, delete: &Operation, put: &Operation) -> bool {
    let time = |(dot, stamp): (Dot, &Stamp)| stamp.after.get(dot).map(|outline| (outline.written_at, dot));
    let is_later = |deleted| {
        evidence.observer.dots_of(put).map(time).any(|written| match (deleted, written) {
            (Some(deleted), Some(written)) => deleted > written,
            (None, _) | (_, None) => true,
        })
    };
    evidence.observer.dots_of(delete).map(time).any(is_later)
}

/// What can be listed: something was written, and not all of it replaced by deletes that the scan must have met.
fn invented(evidence: &Evidence<'_>, slot: &Slot, walk: &Walk) -> Option<String> {
    let ended: Vec<OpId> =
        evidence.acknowledged(slot).filter(|(id, op)| has_met(evidence, *id, op, walk)).map(|(id, _)| id).collect();
    let may_be_there = |id: OpId, op: &Operation| {
        (op.kind, op.ending != Ending::Refused) == (Kind::Put, true)
            && op.invoked <= walk.returned
            && (evidence.past.is_exempt(id) || !ended.iter().any(|later| evidence.past.of(*later).contains(&id)))
    };
    let is_there = evidence.history.of(slot).any(|(id, op)| may_be_there(id, op));
    (!is_there).then(|| "lists it, though nothing but deleted values was ever written".to_owned())
}
