//! Whether what is said of a request agrees with its answer.

use driftless_proto::client::{Deleted, Response, Stored};
use driftless_proto::observed::{Explanation, Fate, Made, Phase};
use driftless_proto::{Failure, Refusal};

/// What is odd about an explanation of this answer, for which so many replicas had to be read or had to acknowledge.
pub fn oddity(response: &Response, told: &Explanation, r: u8, w: u8) -> Option<String> {
    let phases = [("read", &told.read), ("write", &told.write)];
    let known = phases.into_iter().filter_map(|(what, phase)| Some((what, phase.as_ref()?)));
    let odd = known.into_iter().find_map(|(what, phase)| Some(format!("its {what}: {}", of_phase(phase)?)));
    odd.or_else(|| {
        let enough = |phase: &Option<Phase>, least: u8| {
            phase.as_ref().is_some_and(|phase| phase.needed >= least && phase.counted >= phase.needed)
        };
        // Who passes it on to a node that is lost knows no more.
        let unexplained = told.passed_on.as_ref().is_some_and(|passed_on| !passed_on.explained);
        let what = match response {
            Response::Read(_) if !enough(&told.read, r) => "a read that too few count for",
            Response::Stored(_) | Response::Deleted(Deleted { existed: true, .. }) if !enough(&told.write, w) => {
                "acknowledged though too few count"
            }
            Response::Stored(Stored { acks, .. }) | Response::Deleted(Deleted { existed: true, acks, .. })
                if told.write.as_ref().is_some_and(|write| write.counted != *acks) =>
            {
                "another number of acknowledgements than was answered"
            }
            Response::Stored(_) if !matches!(&told.stamp, Some(stamp) if stamp.made != Made::Nothing) => {
                "stored, and not stamped"
            }
            Response::Failed(Failure::Refused(Refusal::NotEnoughReplicas { .. }))
                if told.begun_again == 0
                    && (enough(&told.write, w) || (told.write.is_none() && enough(&told.read, r))) =>
            {
                "refused for want of replicas that count"
            }
            Response::Read(_) | Response::Stored(_) | Response::Deleted(_) if unexplained => {
                "not explained by a node that could"
            }
            _ => return None,
        };
        Some(what.to_owned())
    })
}

fn of_phase(phase: &Phase) -> Option<String> {
    for replica in phase.replicas.iter().filter(|replica| replica.counted) {
        if !matches!(replica.fate, Fate::Read(_) | Fate::Stamped | Fate::Merged) {
            return Some(format!("{} counts and has {:?}", replica.node, replica.fate));
        }
        if replica.latency_us.is_none() || replica.asked_us > replica.latency_us {
            return Some(format!("{} counts, and was answered before it was asked", replica.node));
        }
    }
    let counted = phase.replicas.iter().filter(|replica| replica.counted);
    let mut slots: Vec<&String> =
        counted.map(|replica| replica.stands_in_for.as_ref().unwrap_or(&replica.node)).collect();
    slots.sort_unstable();
    if slots.windows(2).any(|two| two[0] == two[1]) {
        return Some(format!("one slot counts twice: {slots:?}"));
    }
    (slots.len() != usize::from(phase.counted)).then(|| format!("{} count, and {slots:?} are said to", phase.counted))
}

#[cfg(test)]
mod tests {
    use driftless_proto::observed::{ReplicaPart, Stamp};

    use super::*;

    fn part(node: &str, stands_in_for: Option<&str>, fate: Fate, counted: bool) -> ReplicaPart {
        let latency_us = (fate != Fate::Silent).then_some(7);
        let stands_in_for = stands_in_for.map(str::to_owned);
        ReplicaPart {
            node: node.to_owned(),
            stands_in_for,
            fate,
            asked_us: Some(1),
            latency_us,
            counted,
            repaired: false,
        }
    }

    fn told(counted: u8, replicas: Vec<ReplicaPart>) -> Explanation {
        let stamp = Stamp { made: Made::New("a:1".to_owned()), after_us: 1, siblings: 1 };
        let write = Phase { needed: 2, counted, since_us: 0, replicas };
        Explanation { write: Some(write), stamp: Some(stamp), ..Explanation::by("a".to_owned(), 1) }
    }

    #[test]
    fn what_does_not_agree_with_the_answer_is_odd() {
        let stored = |acks| Response::Stored(Stored { context: None, acks, primaries: acks, siblings: 1, live: true });
        let own = || part("a", None, Fate::Stamped, true);
        let other = |counted| part("b", None, Fate::Merged, counted);
        let odd = |response: &Response, told: &Explanation| oddity(response, told, 2, 2).unwrap_or_default();
        assert_eq!(odd(&stored(2), &told(2, vec![own(), other(true)])), "");
        assert!(odd(&stored(2), &told(1, vec![own(), other(false)])).contains("too few"));
        assert!(odd(&stored(3), &told(2, vec![own(), other(true)])).contains("another number"));
        let silent = part("c", None, Fate::Silent, true);
        assert!(odd(&stored(2), &told(2, vec![own(), silent])).contains("counts and has"));
        let twice = vec![own(), other(true), part("d", Some("b"), Fate::Merged, true)];
        assert!(odd(&stored(3), &told(3, twice)).contains("twice"));
        let unstamped = Explanation { stamp: None, ..told(2, vec![own(), other(true)]) };
        assert!(odd(&stored(2), &unstamped).contains("not stamped"));
        let refused = Response::Failed(Refusal::NotEnoughReplicas { needed: 2, available: 2 }.into());
        assert!(odd(&refused, &told(2, vec![own(), other(true)])).contains("want of replicas"));
    }
}
