//! The fewest moves from a table to the quotas.
//!
//! Some members hold too many slots, some slots are empty (their owner left, or its zone had too many),
//! and some members hold too few. A slot moves from `a` to `b` through row `p` if `a` owns `p`, `b` does
//! not, and `b`'s zone has room in `p` (or is the zone of `a`). Mostly one move does:
//!
//! ```text
//! too many                         too few
//!    a ──────────── p7 ──────────▶ x        direct: one slot moves
//!    b ──── p3 ───▶ c ──── p9 ───▶ x        x is already in every row of b, so c stands between
//!    □ ──── p5 ───▶ c ──── p9 ───▶ x        the same for an empty slot
//! ```
//!
//! First all direct moves, then shortest augmenting paths. The length of a path is not its number of
//! steps but the number of slots that it adds to the bill: a step into a row costs 1 unless its new owner
//! owned that row before, and 1 comes back if the one who goes had been brought in by an earlier move.
//! That makes the whole a minimum-cost flow found by successive shortest paths (Ahuja, Magnanti, Orlin,
//! *Network Flows*, 9.7), so no table with these quotas moves fewer slots (`tests/placement.rs` compares
//! with a plain minimum-cost flow):
//!
//! - Direct moves only bring in what is missing and only take away what is too much, so at their end
//!   the cost is the lower bound `sum of max(0, held - kept)` and there is no cheaper table with the same
//!   numbers held, hence no cycle of negative cost. Shortest paths keep it so.
//! - A shortest path does not spoil its own steps. If two steps `a -> b`, `c -> d` went through the same
//!   row for room in the same zone, then `a -> d` would be a step too, with fewer steps and at no higher
//!   cost, and it would have been taken. Hence ties in cost are broken by the number of steps.
//!
//! One case is outside the proof. Where a row has more owners in a zone than it may have now (a member was
//! moved to another zone, or a new zone lowered the cap), some are evicted first, by a rule of thumb, and
//! evicting others might have saved a slot or two.

use std::cmp::{Ordering, Reverse};

use super::{Slot, Topology};

/// Moves slots until every member holds its quota. `rows` is the previous table; an owner keeps its
/// place in the list, and who replaces it takes that place.
pub(super) fn move_to_quotas(topology: &Topology, quota: &[u32], rows: Vec<Slot>) -> Vec<Slot> {
    let mut movement = Movement::new(topology, quota, rows);
    movement.fill_empty_slots();
    movement.unload();
    while movement.unsettled() {
        movement.augment();
    }
    movement.rows
}

struct Movement<'a> {
    topology: &'a Topology,
    quota: &'a [u32],
    rows: Vec<Slot>,
    /// The rows as they were before the first move: owners in here stay for free.
    kept: Vec<Slot>,
    held: Vec<u32>,
}

impl<'a> Movement<'a> {
    fn new(topology: &'a Topology, quota: &'a [u32], mut rows: Vec<Slot>) -> Movement<'a> {
        let mut held = topology.held(&rows);
        for row in rows.chunks_mut(topology.n) {
            evict_from_crowded_zones(topology, quota, row, &mut held);
        }
        Movement { topology, quota, kept: rows.clone(), rows, held }
    }

    /// Gives every empty slot to the member whose turn it is.
    fn fill_empty_slots(&mut self) {
        let mut room = Room::new(self.topology);
        for row in 0..self.topology.q {
            room.enter(self.row(row));
            for slot in row * self.topology.n..(row + 1) * self.topology.n {
                if self.rows[slot].is_some() {
                    continue;
                }
                let next = (0..self.topology.len())
                    .filter(|&node| self.deficit(node) > 0 && room.admits(node, None))
                    .min_by(|&a, &b| self.turn(a).cmp(&self.turn(b)));
                if let Some(node) = next {
                    self.rows[slot] = Some(node as u16);
                    self.held[node] += 1;
                    room.enter(self.row(row));
                }
            }
        }
    }

    /// Moves slots from members that hold too many straight to members that hold too few, one from
    /// each in turn.
    fn unload(&mut self) {
        let mut owned = self.rows_of_each();
        let mut room = Room::new(self.topology);
        let mut givers: Vec<usize> = (0..self.topology.len()).filter(|&node| self.excess(node) > 0).collect();
        while !givers.is_empty() {
            givers.retain(|&from| {
                let mut takers: Vec<usize> = (0..self.topology.len()).filter(|&node| self.deficit(node) > 0).collect();
                takers.sort_by_key(|&node| self.turn(node));
                for to in takers {
                    let through = owned[from]
                        .iter()
                        .copied()
                        .filter(|&row| {
                            room.enter(self.row(row));
                            room.admits(to, Some(from))
                        })
                        .max_by_key(|&row| self.topology.draw(row, to));
                    if let Some(row) = through {
                        self.step(row, Some(from), to);
                        self.held[from] -= 1;
                        self.held[to] += 1;
                        owned[from].retain(|&other| other != row);
                        return self.excess(from) > 0;
                    }
                }
                false
            });
        }
    }

    /// One shortest path from a member with too many slots, or from an empty slot, to one with too few.
    fn augment(&mut self) {
        let steps = self.shortest_path();
        for (row, from, to) in &steps {
            self.step(*row, *from, *to);
        }
        // Only the two ends hold more or less than before; those between gave one and took one.
        if let Some(&(_, Some(from), _)) = steps.first() {
            self.held[from] -= 1;
        }
        if let Some(&(_, _, to)) = steps.last() {
            self.held[to] += 1;
        }
    }

    /// Puts `to` in the place of `from` (or in an empty place) of a row.
    fn step(&mut self, row: usize, from: Option<usize>, to: usize) {
        let from = from.map(|node| node as u16);
        let slots = &mut self.rows[row * self.topology.n..(row + 1) * self.topology.n];
        assert!(!slots.contains(&Some(to as u16)), "no member twice in a row");
        let slot =
            slots.iter_mut().find(|slot| **slot == from).expect("a path leads through slots that its steps hold");
        *slot = Some(to as u16);
    }

    /// Bellman and Ford over the graph of members, as rows of (row, from, to).
    fn shortest_path(&self) -> Vec<(usize, Option<usize>, usize)> {
        let count = self.topology.len();
        let graph = self.graph();
        let mut best: Vec<Option<Reached>> = (0..count)
            .map(|node| match graph.from_empty[node] {
                _ if self.excess(node) > 0 => Some(Reached { cost: 0, steps: 0, by: None }),
                Some(edge) => Some(Reached { cost: edge.cost, steps: 1, by: Some((edge.row, None)) }),
                None => None,
            })
            .collect();
        let mut changed = true;
        let mut rounds = 0;
        while changed {
            assert!(rounds <= count, "no cycle has negative cost");
            rounds += 1;
            changed = false;
            for from in 0..count {
                let Some(Reached { cost, steps, .. }) = best[from] else {
                    continue;
                };
                for (to, best) in best.iter_mut().enumerate() {
                    let Some(edge) = graph.edges[from * count + to] else {
                        continue;
                    };
                    let found = Reached { cost: cost + edge.cost, steps: steps + 1, by: Some((edge.row, Some(from))) };
                    if best.is_none_or(|known| (found.cost, found.steps) < (known.cost, known.steps)) {
                        *best = Some(found);
                        changed = true;
                    }
                }
            }
        }

        let mut at = (0..count)
            .filter(|&node| self.deficit(node) > 0)
            .filter_map(|node| best[node].map(|reached| (reached.cost, reached.steps, node)))
            .min()
            .expect("the quotas can be met, so a path exists while they are not (see placement.rs)")
            .2;
        let mut path = vec![];
        while let Some(Reached { by: Some((row, from)), .. }) = best[at] {
            path.push((row, from, at));
            match from {
                Some(node) => at = node,
                None => break,
            }
        }
        path.reverse();
        path
    }

    /// The cheapest step between every two members, and into an empty slot for every member.
    fn graph(&self) -> Graph {
        let count = self.topology.len();
        let mut graph = Graph { edges: vec![None; count * count], from_empty: vec![None; count] };
        let mut room = Room::new(self.topology);
        for row in 0..self.topology.q {
            room.enter(self.row(row));
            let kept = &self.kept[row * self.topology.n..(row + 1) * self.topology.n];
            let brought_in = |node: usize| i32::from(!kept.contains(&Some(node as u16)));
            for to in (0..count).filter(|&node| !room.holds(node)) {
                let price = brought_in(to);
                for &slot in self.row(row) {
                    let from = slot.map(usize::from);
                    if !room.admits(to, from) {
                        continue;
                    }
                    let edge = Edge { cost: price - from.map_or(0, brought_in), row };
                    let known = match from {
                        Some(from) => &mut graph.edges[from * count + to],
                        None => &mut graph.from_empty[to],
                    };
                    if known.is_none_or(|known| edge.cost < known.cost) {
                        *known = Some(edge);
                    }
                }
            }
        }
        graph
    }

    fn rows_of_each(&self) -> Vec<Vec<usize>> {
        let mut owned = vec![vec![]; self.topology.len()];
        for row in 0..self.topology.q {
            for &node in self.row(row).iter().flatten() {
                owned[usize::from(node)].push(row);
            }
        }
        owned
    }

    fn row(&self, row: usize) -> &[Slot] {
        &self.rows[row * self.topology.n..(row + 1) * self.topology.n]
    }

    fn unsettled(&self) -> bool {
        self.held != self.quota
    }

    fn excess(&self, node: usize) -> u32 {
        self.held[node].saturating_sub(self.quota[node])
    }

    fn deficit(&self, node: usize) -> u32 {
        self.quota[node].saturating_sub(self.held[node])
    }

    /// When a member that lacks slots gets its next one; the smallest is next.
    ///
    /// If all slots were dealt out between the times 0 and 1, a member with quota 4 would get one in each
    /// quarter, at a random moment of it. So members of any weight fill up together, and none is left to
    /// take the last rows alone. The random moment matters: in a strict order, two members that are a
    /// little smaller than the others would come last in every round, hence always into the same rows.
    fn turn(&self, node: usize) -> Turn {
        let moment = self.topology.draw(self.held[node] as usize, node) >> (64 - MOMENT_BITS);
        Turn { elapsed: u64::from(self.held[node]) << MOMENT_BITS | moment, quota: u64::from(self.quota[node]) }
    }
}

/// The fraction `elapsed / quota`.
struct Turn {
    elapsed: u64,
    quota: u64,
}

impl Ord for Turn {
    fn cmp(&self, other: &Turn) -> Ordering {
        (self.elapsed * other.quota).cmp(&(other.elapsed * self.quota))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Turn) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Turn) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

/// Binary places of a moment. The products of two turns stay within 64 bits: 16 of what is held, 16 of
/// these, 17 of the quota.
const MOMENT_BITS: u32 = 16;

/// Empties slots of a row whose zone has too many in it: it was lawful under other zones, or the member
/// has moved. Those go first who hold most above their quota, for they have to give slots away anyhow.
fn evict_from_crowded_zones(topology: &Topology, quota: &[u32], row: &mut [Slot], held: &mut [u32]) {
    let mut room = Room::new(topology);
    room.enter(row);
    for zone in 0..topology.zone_count {
        for _ in topology.zone_cap..room.in_zone[zone] {
            let worst = (0..row.len())
                .filter_map(|at| Some((at, usize::from(row[at]?))))
                .filter(|&(_, node)| topology.zones[node] == zone)
                .max_by_key(|&(at, node)| (i64::from(held[node]) - i64::from(quota[node]), Reverse(at)));
            if let Some((at, node)) = worst {
                row[at] = None;
                held[node] -= 1;
            }
        }
    }
}

/// Who can still enter a row.
struct Room<'a> {
    topology: &'a Topology,
    /// How many of the row are in each zone.
    in_zone: Vec<u32>,
    row: Vec<Slot>,
}

impl<'a> Room<'a> {
    fn new(topology: &'a Topology) -> Room<'a> {
        Room { topology, in_zone: vec![0; topology.zone_count], row: Vec::with_capacity(topology.n) }
    }

    /// Looks at another row, or at the same one again after it has changed.
    fn enter(&mut self, row: &[Slot]) {
        for &node in self.row.iter().flatten() {
            self.in_zone[self.topology.zones[usize::from(node)]] = 0;
        }
        self.row.clear();
        self.row.extend_from_slice(row);
        for &node in row.iter().flatten() {
            self.in_zone[self.topology.zones[usize::from(node)]] += 1;
        }
    }

    fn holds(&self, node: usize) -> bool {
        self.row.contains(&Some(node as u16))
    }

    /// Whether `to` may enter the row, in the place of `from` if there is one.
    fn admits(&self, to: usize, from: Option<usize>) -> bool {
        let zone = self.topology.zones[to];
        !self.holds(to)
            && (self.in_zone[zone] < self.topology.zone_cap
                || from.is_some_and(|from| self.topology.zones[from] == zone))
    }
}

/// One step for every two members: `edges[from * members + to]`.
struct Graph {
    edges: Vec<Option<Edge>>,
    from_empty: Vec<Option<Edge>>,
}

#[derive(Clone, Copy)]
struct Edge {
    cost: i32,
    row: usize,
}

/// The shortest way known to a member: its cost, its steps, and the last of them (row, from).
#[derive(Clone, Copy)]
struct Reached {
    cost: i32,
    steps: u32,
    by: Option<(usize, Option<usize>)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Member;

    fn topology(n: u8, q: u32, zones: &[&str]) -> Topology {
        let members: Vec<Member> =
            zones.iter().enumerate().map(|(i, zone)| Member::new(format!("m{i}"), "h:1").in_zone(*zone)).collect();
        Topology::new(n, q, &members)
    }

    fn table(rows: &[&[i32]]) -> Vec<Slot> {
        rows.concat().into_iter().map(|node| u16::try_from(node).ok()).collect()
    }

    #[test]
    fn a_table_at_its_quotas_stays_as_it_is() {
        let topology = topology(2, 3, &["", "", ""]);
        let rows = table(&[&[0, 1], &[1, 2], &[2, 0]]);
        assert_eq!(move_to_quotas(&topology, &[2, 2, 2], rows.clone()), rows);
    }

    #[test]
    fn a_member_between_helps_out() {
        // 0 has one too many and 2 lacks one, but both own row 0, and that is all 0 has. So 0 gives row 0
        // to 1, and 1 gives one of its rows to 2.
        let topology = topology(2, 3, &["", "", ""]);
        let rows = table(&[&[0, 2], &[1, 2], &[1, 2]]);
        let moved = move_to_quotas(&topology, &[0, 3, 3], rows);
        assert_eq!(moved, table(&[&[1, 2], &[1, 2], &[1, 2]]));

        let rows = table(&[&[0, 2], &[1, 0], &[1, 0]]);
        let moved = move_to_quotas(&topology, &[2, 1, 3], rows);
        assert_eq!(topology.held(&moved), [2, 1, 3]);
    }

    #[test]
    fn who_replaces_an_owner_takes_its_place_in_the_list() {
        let topology = topology(3, 1, &["", "", "", ""]);
        assert_eq!(move_to_quotas(&topology, &[1, 0, 1, 1], table(&[&[0, 1, 2]])), table(&[&[0, 3, 2]]));
        assert_eq!(move_to_quotas(&topology, &[1, 0, 1, 1], table(&[&[-1, 3, 2]])), table(&[&[0, 3, 2]]));
    }

    #[test]
    fn a_crowded_zone_gives_way() {
        let topology = topology(2, 2, &["a", "a", "b", "b"]);
        let moved = move_to_quotas(&topology, &[1, 1, 1, 1], table(&[&[0, 1], &[2, 3]]));
        for row in moved.chunks(2) {
            assert_ne!(topology.zones[usize::from(row[0].unwrap())], topology.zones[usize::from(row[1].unwrap())]);
        }
        assert_eq!(topology.held(&moved), [1; 4]);
    }
}
