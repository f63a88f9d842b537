//! How many slots each member gets: whole shares of Q * n by weight, under caps.
//!
//! No member can use more than Q slots (one replica of each partition) and no zone more than Q * cap.
//! What a capped one leaves over goes to the others by weight, as water that stands level in vessels of
//! which some are full:
//!
//! ```text
//!    level = left / weight ─ ─┐        ┌─────┐ cap
//!        ┌───┐┌───┐           ▼ ┌───┐ │█████│
//!        │███││███│┌─────────┐  │███│ │█████│      the level only ever rises while vessels fill up,
//!        │███││███││█████████│  │███│ │█████│      so one that is full stays full
//!        └───┘└───┘└─────────┘  └───┘ └─────┘
//! ```
//!
//! Fractions are kept exact until the end. Then everyone gets the whole part and the largest remainders
//! get one more; among equal remainders those who hold most today, so that rounding moves nothing.

use std::cmp::Reverse;

use super::Topology;

/// The exact number of slots for each member, given what it holds now. Their sum is Q * n.
pub(super) fn quotas(topology: &Topology, held: &[u32]) -> Vec<u32> {
    let node_cap = topology.q as u64;
    let zone_cap = node_cap * u64::from(topology.zone_cap);

    let mut quotas = vec![0; topology.len()];
    let mut open: Vec<usize> = (0..topology.len()).collect();
    let mut amount = node_cap * topology.n as u64;
    loop {
        let level = Level::find(topology, &open, amount);
        let full: Vec<usize> =
            (0..topology.zone_count).filter(|&zone| level.exceeds(topology, zone, zone_cap)).collect();
        if full.is_empty() {
            level.round(topology, held, zone_cap, &mut quotas);
            break;
        }
        // A zone that would overflow gets exactly its cap and is shared out within itself. It leaves more
        // to the others, so the level rises and no earlier decision is wrong.
        for zone in full {
            let (inside, outside): (Vec<usize>, Vec<usize>) =
                open.iter().partition(|&&node| topology.zones[node] == zone);
            Level::find(topology, &inside, zone_cap).round(topology, held, zone_cap, &mut quotas);
            open = outside;
            amount -= zone_cap;
        }
    }
    assert_eq!(
        quotas.iter().map(|&quota| u64::from(quota)).sum::<u64>(),
        node_cap * topology.n as u64,
        "every slot has an owner"
    );
    quotas
}

/// Where the water stands: some members are full, the others get `weight * left / total_weight`.
struct Level {
    full: Vec<usize>,
    partial: Vec<usize>,
    left: u64,
    total_weight: u64,
}

impl Level {
    /// Shares `amount` among `nodes`, none above Q. There is room for it all.
    fn find(topology: &Topology, nodes: &[usize], amount: u64) -> Level {
        let node_cap = topology.q as u64;
        let weight = |node: usize| u64::from(topology.weights[node]);
        let mut partial = nodes.to_vec();
        partial.sort_by_key(|&node| (Reverse(weight(node)), node));

        let mut level = Level { full: vec![], partial: vec![], left: amount, total_weight: 0 };
        level.total_weight = partial.iter().map(|&node| weight(node)).sum();
        let mut rest = partial.into_iter();
        // By falling weight: where one is not full, none after it is.
        for node in rest.by_ref() {
            let (left, total) = (u128::from(level.left), u128::from(level.total_weight));
            if u128::from(weight(node)) * left < u128::from(node_cap) * total {
                level.partial.push(node);
                break;
            }
            level.full.push(node);
            level.left -= node_cap;
            level.total_weight -= weight(node);
        }
        level.partial.extend(rest);
        level
    }

    /// Whether the zone stands above `zone_cap`.
    fn exceeds(&self, topology: &Topology, zone: usize, zone_cap: u64) -> bool {
        let inside = |nodes: &[usize]| nodes.iter().copied().filter(|&n| topology.zones[n] == zone).collect::<Vec<_>>();
        let full = topology.q as u128 * inside(&self.full).len() as u128;
        let weight: u128 = inside(&self.partial).iter().map(|&node| u128::from(topology.weights[node])).sum();
        // Without partial members nothing is left, and the fraction is 0 / 1.
        let (left, total) = (u128::from(self.left), u128::from(self.total_weight.max(1)));
        full * total + weight * left > u128::from(zone_cap) * total
    }

    /// Turns the shares into whole numbers of the same sum, with no zone above `zone_cap`.
    fn round(&self, topology: &Topology, held: &[u32], zone_cap: u64, quotas: &mut [u32]) {
        let mut zone_sum = vec![0u64; topology.zone_count];
        for &node in &self.full {
            quotas[node] = topology.q as u32;
            zone_sum[topology.zones[node]] += topology.q as u64;
        }
        let mut remainders = Vec::with_capacity(self.partial.len());
        let mut spare = self.left;
        for &node in &self.partial {
            let share = u128::from(topology.weights[node]) * u128::from(self.left);
            let total = u128::from(self.total_weight);
            let whole = share / total; // partial members have a weight, and are below Q
            quotas[node] = whole as u32;
            zone_sum[topology.zones[node]] += whole as u64;
            spare -= whole as u64;
            remainders.push((Reverse(share % total), Reverse(held[node]), topology.draw(0, node), node));
        }
        remainders.sort_unstable();
        for (Reverse(remainder), _, _, node) in remainders {
            let zone = topology.zones[node];
            if spare > 0 && remainder > 0 && zone_sum[zone] < zone_cap {
                quotas[node] += 1;
                zone_sum[zone] += 1;
                spare -= 1;
            }
        }
        assert_eq!(spare, 0, "a zone below its cap has room for the next whole number");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Member;

    fn quotas_of(n: u8, q: u32, members: &[(u32, &str)], held: &[u32]) -> Vec<u32> {
        let members: Vec<Member> = members
            .iter()
            .enumerate()
            .map(|(i, (weight, zone))| Member::new(format!("m{i}"), "h:1").with_weight(*weight).in_zone(*zone))
            .collect();
        quotas(&Topology::new(n, q, &members), held)
    }

    #[test]
    fn shares_follow_weights() {
        assert_eq!(quotas_of(1, 64, &[(1, ""), (2, ""), (1, "")], &[0; 3]), [16, 32, 16]);
    }

    #[test]
    fn no_member_is_above_q_and_the_rest_share_what_it_leaves() {
        assert_eq!(quotas_of(2, 64, &[(1000, ""), (1, ""), (3, "")], &[0; 3]), [64, 16, 48]);
        assert_eq!(quotas_of(3, 64, &[(1, ""), (u32::MAX, ""), (7, "")], &[0; 3]), [64, 64, 64]);
    }

    #[test]
    fn no_zone_is_above_its_cap() {
        // n = 3 in three zones: each zone gets one replica of everything, whatever its weight.
        let zones = [(1, "a"), (1, "b"), (1, "b"), (9, "c"), (9, "c"), (9, "c")];
        assert_eq!(quotas_of(3, 60, &zones, &[0; 6]), [60, 30, 30, 20, 20, 20]);
    }

    #[test]
    fn equal_remainders_go_to_those_who_hold_most() {
        assert_eq!(quotas_of(1, 8, &[(1, ""), (1, ""), (1, "")], &[2, 3, 3]), [2, 3, 3]);
        assert_eq!(quotas_of(1, 8, &[(1, ""), (1, ""), (1, "")], &[3, 2, 3]), [3, 2, 3]);
    }

    #[test]
    fn rounding_keeps_zone_caps() {
        // Zone "a" stands exactly at its cap of one replica of everything; its two remainders of a half
        // cannot both be rounded up.
        let quotas = quotas_of(2, 1, &[(1, "a"), (1, "a"), (1, "b"), (1, "b")], &[0; 4]);
        assert_eq!(quotas[0] + quotas[1], 1);
        assert_eq!(quotas[2] + quotas[3], 1);
    }
}
