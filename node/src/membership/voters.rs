//! Who decides on the next version.

use std::collections::BTreeSet;

use driftless_proto::membership::{StoreId, VOTERS_MAX};
use driftless_ring::{Member, NodeId};

/// The voters of a version with these members, but for those whose stores were declared lost: those that were voters before, then members of
/// zones that have none, then those with the smallest ids. An odd number, as one more would make a majority larger and nothing safer; with
/// two members one, for both together are needed less often.
pub(super) fn next(
    before: &[NodeId],
    members: &[Member],
    stores: &[(NodeId, StoreId)],
    lost: &[(NodeId, StoreId)],
) -> Vec<NodeId> {
    let is_vacant = |node: NodeId| stores.iter().any(|store| store.0 == node && lost.contains(store));
    let there: Vec<&Member> = members.iter().filter(|member| !is_vacant(member.id)).collect();
    let wanted = match there.len().min(VOTERS_MAX) {
        0 => return Vec::new(),
        count if count % 2 == 0 => count - 1,
        count => count,
    };
    let mut chosen: Vec<&Member> = Vec::with_capacity(wanted);
    let mut zones: BTreeSet<&str> = BTreeSet::new();
    while chosen.len() < wanted {
        let left = there.iter().copied().filter(|member| !chosen.iter().any(|other| other.id == member.id));
        let first = left.min_by_key(|member| {
            let (stays, has_voter) = (before.contains(&member.id), zones.contains(member.zone.as_str()));
            (!stays, has_voter, member.id)
        });
        let Some(first) = first else { break };
        zones.insert(&first.zone);
        chosen.push(first);
    }
    let mut voters: Vec<NodeId> = chosen.into_iter().map(|member| member.id).collect();
    voters.sort_unstable();
    voters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(zones: &[&str]) -> Vec<Member> {
        let member = |(number, zone): (usize, &&str)| {
            let mut member = Member::new(format!("n{number}"), "h:1").in_zone(*zone);
            member.id = NodeId(number as u64);
            member
        };
        zones.iter().enumerate().map(member).collect()
    }

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn of_all(before: &[NodeId], members: &[Member]) -> Vec<NodeId> {
        next(before, members, &[], &[])
    }

    #[test]
    fn zones_come_first_and_then_small_ids() {
        assert_eq!(of_all(&[], &members(&["a", "a", "a", "b"])), ids(&[0, 1, 3]));
        assert_eq!(of_all(&[], &members(&["a"; 9])), ids(&[0, 1, 2, 3, 4, 5, 6]));
        assert_eq!(of_all(&[], &members(&["a", "b"])), ids(&[0]));
        assert_eq!(of_all(&[], &[]), ids(&[]));
    }

    #[test]
    fn voters_stay_as_long_as_they_are_members() {
        assert_eq!(of_all(&ids(&[2, 3, 9]), &members(&["a"; 4])), ids(&[0, 2, 3]));
        assert_eq!(of_all(&ids(&[0, 1, 2, 3, 4]), &members(&["a"; 4])), ids(&[0, 1, 2]));
    }

    #[test]
    fn who_is_lost_does_not_vote() {
        let (members, store) = (members(&["a"; 4]), |node: u64| (NodeId(node), StoreId(1)));
        let stores: Vec<_> = (0..4).map(store).collect();
        let lost = |lost: &[u64]| {
            let lost: Vec<_> = lost.iter().copied().map(store).collect();
            next(&ids(&[0, 1, 2]), &members, &stores, &lost)
        };
        assert_eq!(lost(&[0]), ids(&[1, 2, 3]));
        assert_eq!(lost(&[0, 1]), ids(&[2]), "two are left, and one who voted before decides for both");
        assert_eq!(lost(&[0, 1, 2, 3]), ids(&[]));
    }
}
