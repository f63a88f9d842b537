//! From members to a table: who owns which partition.
//!
//! The table of a class is made from the one before it, so that as few slots as possible change hands:
//!
//! ```text
//! previous rows ──▶ restrict ──▶ move ─────────────▶ balance ──▶ rows of Q x n owners
//!                   to members   by shortest paths    list positions
//!                   and zones    to exact quotas
//!                                ▲
//! weights, zones ──▶ quota ──────┘
//! ```
//!
//! Promises, each with a test of that name in `tests/placement.rs`: every member holds exactly its
//! quota; no member holds two replicas of a partition; no zone holds more than [`zone_cap`] of them;
//! no other table with these quotas moves fewer slots (see `movement`); every position of the list, above all the first,
//! is spread over the members like the partitions themselves.
//!
//! A table that keeps all of them always exists: giving every member `quota / Q` of every row meets
//! every bound in fractions, the bounds are nested (node in zone in row) and whole, and such a flow has
//! a whole-numbered solution where it has a fractional one.
//!
//! Everything is whole numbers and sorted vectors: all machines compute the same table.

mod movement;
mod positions;
mod quota;

use xxhash_rust::xxh3::xxh3_64;

use crate::{Member, NodeId};

/// A place in the table: a member, by its index in the sorted list of members, or nobody yet.
pub(crate) type Slot = Option<u16>;

/// The table of class `n`: `q` rows of `n` member indexes, one after another.
///
/// `members` are sorted by id and at least `n` of them; `previous` is the table before it in the
/// same shape, with `None` where the owner is no longer a member (or, for a new class, everywhere).
pub(crate) fn place(n: u8, q: u32, members: &[Member], previous: Vec<Slot>) -> Vec<u16> {
    let topology = Topology::new(n, q, members);
    assert_eq!(previous.len(), topology.q * topology.n, "the previous table has the shape of the new one");

    let held = topology.held(&previous);
    let quota = quota::quotas(&topology, &held);
    let rows = movement::move_to_quotas(&topology, &quota, previous.clone());
    assert_eq!(topology.held(&rows), quota, "movement ends at exact quotas");

    let touched: Vec<bool> =
        rows.chunks(topology.n).zip(previous.chunks(topology.n)).map(|(new, old)| new != old).collect();
    let mut rows: Vec<u16> = rows.into_iter().flatten().collect();
    positions::balance(&topology, &touched, &mut rows);
    rows
}

/// The most replicas of one partition that a zone may hold.
///
/// `ceil(n / min(n, zones))`, which is an even spread; more where zones are so unequal in size that the
/// smaller ones have not enough members for that (one zone of three members and one of one, n = 4: the
/// larger one must hold three).
pub(crate) fn zone_cap(n: u8, members: &[Member]) -> u32 {
    Topology::new(n, 1, members).zone_cap
}

/// What placement needs to know of the members.
struct Topology {
    /// Replicas of a partition.
    n: usize,
    /// Rows.
    q: usize,
    ids: Vec<NodeId>,
    weights: Vec<u32>,
    /// The zone of each member, numbered from 0 in the order of names.
    zones: Vec<usize>,
    zone_count: usize,
    zone_cap: u32,
}

impl Topology {
    fn new(n: u8, q: u32, members: &[Member]) -> Topology {
        let mut names: Vec<&str> = members.iter().map(|member| member.zone.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let zones: Vec<usize> =
            members.iter().map(|member| names.partition_point(|name| *name < member.zone.as_str())).collect();

        let mut sizes = vec![0u32; names.len()];
        for &zone in &zones {
            sizes[zone] += 1;
        }
        let n = u32::from(n);
        let even = n.div_ceil((names.len() as u32).clamp(1, n.max(1)));
        let fits = |cap: u32| sizes.iter().map(|&size| size.min(cap)).sum::<u32>() >= n;
        let zone_cap = (even..n).find(|&cap| fits(cap)).unwrap_or(n);

        Topology {
            n: n as usize,
            q: q as usize,
            ids: members.iter().map(|member| member.id).collect(),
            weights: members.iter().map(|member| member.weight).collect(),
            zones,
            zone_count: names.len(),
            zone_cap,
        }
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    /// How many slots each member holds.
    fn held(&self, rows: &[Slot]) -> Vec<u32> {
        let mut held = vec![0; self.len()];
        for &node in rows.iter().flatten() {
            held[usize::from(node)] += 1;
        }
        held
    }

    /// A number that looks random, for choices that are free. Without it members would always be taken in
    /// the same order, neighbours in that order would share all their partitions, and the load of one
    /// that dies would fall on those few.
    fn draw(&self, number: usize, node: usize) -> u64 {
        let mut bytes = [0; 17];
        bytes[0] = self.n as u8;
        bytes[1..9].copy_from_slice(&(number as u64).to_be_bytes());
        bytes[9..].copy_from_slice(&self.ids[node].0.to_be_bytes());
        xxh3_64(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(zones: &[&str]) -> Vec<Member> {
        zones.iter().enumerate().map(|(i, zone)| Member::new(format!("m{i}"), "h:1").in_zone(*zone)).collect()
    }

    #[test]
    fn zone_cap_is_an_even_spread() {
        assert_eq!(zone_cap(3, &members(&["", "", ""])), 3, "one zone: no constraint");
        assert_eq!(zone_cap(3, &members(&["a", "b", "c", "c"])), 1);
        assert_eq!(zone_cap(3, &members(&["a", "a", "b", "b"])), 2);
        assert_eq!(zone_cap(5, &members(&["a", "a", "b", "b", "c"])), 2);
        assert_eq!(zone_cap(1, &members(&["a"])), 1);
    }

    #[test]
    fn zone_cap_gives_way_where_zones_are_too_small() {
        assert_eq!(zone_cap(4, &members(&["a", "a", "a", "b"])), 3);
        assert_eq!(zone_cap(5, &members(&["a", "a", "a", "b", "c"])), 3);
    }
}
