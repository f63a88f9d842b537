//! Spreads the places in the list, without moving any data.
//!
//! The first owner of a row is the first choice as coordinator, so it does more work than the others; if
//! it is down that falls to the second. So every member should stand at every position about as often:
//! at position k, between the two whole numbers next to `(slots at k and behind) / (n - k)`. Such an order
//! always exists (a row shared evenly among those who may stand there meets the bounds in fractions).
//!
//! ```text
//! a leads too often, c too seldom          row 4   a b d        row 4   b a d
//!   a ── row 4 ──▶ b ── row 9 ──▶ c        row 9   b c a   ──▶  row 9   c b a
//! ```
//!
//! Again shortest paths, and if possible only through rows that the change has touched anyhow: a row that
//! kept its owners should keep its coordinator too, for its connections are warm and its actor is known.

use std::collections::VecDeque;

use super::Topology;

/// Reorders rows, position by position. `touched` says which rows have other owners than before.
pub(super) fn balance(topology: &Topology, touched: &[bool], rows: &mut [u16]) {
    let mut touched = touched.to_vec();
    for position in 0..topology.n.saturating_sub(1) {
        let mut order = Order::new(topology, position, rows, &touched);
        while order.improve(rows, &mut touched, true) {}
        while order.improve(rows, &mut touched, false) {}
        assert!(order.is_balanced(), "an even spread of list positions always exists");
    }
}

/// Who stands at one position.
struct Order {
    n: usize,
    position: usize,
    /// The rows in which a member stands at the position; touched ones last, because they are tried
    /// from the end.
    rows_led: Vec<Vec<usize>>,
    /// The fewest and the most rows that it should lead.
    bounds: Vec<(usize, usize)>,
}

impl Order {
    fn new(topology: &Topology, position: usize, rows: &[u16], touched: &[bool]) -> Order {
        let n = topology.n;
        let mut available = vec![0usize; topology.len()];
        let mut rows_led = vec![vec![]; topology.len()];
        for row in rows.chunks(n) {
            for &node in &row[position..] {
                available[usize::from(node)] += 1;
            }
        }
        for wanted in [false, true] {
            for (index, row) in rows.chunks(n).enumerate().filter(|(index, _)| touched[*index] == wanted) {
                rows_led[usize::from(row[position])].push(index);
            }
        }
        let places = n - position;
        let bounds = available.iter().map(|&slots| (slots / places, slots.div_ceil(places))).collect();
        Order { n, position, rows_led, bounds }
    }

    fn leads(&self, node: usize) -> usize {
        self.rows_led[node].len()
    }

    fn is_balanced(&self) -> bool {
        (0..self.bounds.len()).all(|node| (self.bounds[node].0..=self.bounds[node].1).contains(&self.leads(node)))
    }

    fn leading_more_than(&self, bound: fn((usize, usize)) -> usize) -> Vec<usize> {
        (0..self.bounds.len()).filter(|&node| self.leads(node) > bound(self.bounds[node])).collect()
    }

    /// Takes one lead from a member that has too many, or gives one to a member that has too few. False if
    /// there is nothing to do, or no way through touched rows only.
    fn improve(&mut self, rows: &mut [u16], touched: &mut [bool], only_touched: bool) -> bool {
        let too_many = self.leading_more_than(|(_, most)| most);
        let path = if too_many.is_empty() {
            let to_spare = self.leading_more_than(|(fewest, _)| fewest);
            self.path(rows, touched, only_touched, &to_spare, |order, node| order.leads(node) < order.bounds[node].0)
        } else {
            self.path(rows, touched, only_touched, &too_many, |order, node| order.leads(node) < order.bounds[node].1)
        };
        let Some(path) = path else { return false };
        for (row, to) in path {
            let slots = &mut rows[row * self.n..(row + 1) * self.n];
            let from = usize::from(slots[self.position]);
            let other =
                slots.iter().position(|&node| usize::from(node) == to).expect("a path leads through rows of both");
            slots.swap(self.position, other);
            self.rows_led[from].retain(|&led| led != row);
            self.rows_led[to].push(row);
            touched[row] = true;
        }
        true
    }

    /// Breadth first from `sources` to the first member for which `is_goal` holds: (row, who leads it then).
    fn path(
        &self,
        rows: &[u16],
        touched: &[bool],
        only_touched: bool,
        sources: &[usize],
        is_goal: impl Fn(&Order, usize) -> bool,
    ) -> Option<Vec<(usize, usize)>> {
        let mut reached: Vec<bool> = vec![false; self.bounds.len()];
        let mut by: Vec<Option<(usize, usize)>> = vec![None; self.bounds.len()];
        let mut queue: VecDeque<usize> = sources.iter().copied().collect();
        for &source in sources {
            reached[source] = true;
        }
        while let Some(from) = queue.pop_front() {
            for &row in self.rows_led[from].iter().rev().filter(|&&row| touched[row] || !only_touched) {
                for &node in &rows[row * self.n + self.position + 1..(row + 1) * self.n] {
                    let to = usize::from(node);
                    if reached[to] {
                        continue;
                    }
                    reached[to] = true;
                    by[to] = Some((row, from));
                    if is_goal(self, to) {
                        let mut path = vec![];
                        let mut at = to;
                        while let Some((row, from)) = by[at] {
                            path.push((row, at));
                            at = from;
                        }
                        return Some(path);
                    }
                    queue.push_back(to);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Member;

    fn topology(n: u8, q: u32, count: usize) -> Topology {
        let members: Vec<Member> = (0..count).map(|i| Member::new(format!("m{i}"), "h:1")).collect();
        Topology::new(n, q, &members)
    }

    #[test]
    fn every_position_is_spread_over_the_members() {
        let mut rows = [0, 1, 2].repeat(6);
        balance(&topology(3, 6, 3), &[true; 6], &mut rows);
        for position in 0..3 {
            for node in 0..3 {
                assert_eq!(rows.chunks(3).filter(|row| row[position] == node).count(), 2);
            }
        }
    }

    #[test]
    fn a_balanced_order_stays_as_it_is() {
        let mut rows = vec![0, 1, 2, 1, 2, 0, 2, 0, 1];
        balance(&topology(3, 3, 3), &[true; 3], &mut rows);
        assert_eq!(rows, [0, 1, 2, 1, 2, 0, 2, 0, 1]);
    }

    #[test]
    fn rows_that_kept_their_owners_keep_their_order_if_possible() {
        let mut rows = vec![0, 1, 0, 1, 0, 1, 0, 1];
        balance(&topology(2, 4, 2), &[false, true, true, false], &mut rows);
        assert_eq!(rows, [0, 1, 1, 0, 1, 0, 0, 1]);
    }
}
