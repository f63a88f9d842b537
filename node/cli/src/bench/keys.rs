//! Which key a request is about.
//!
//! ```text
//! uniform   all alike
//! zipfian   the rank-th most popular of n is asked for in proportion to 1 / rank^0.99; which key has which rank a hash decides
//! latest    the same ranks counted back from the key that was inserted last
//! ```
//! As in YCSB (Cooper and others 2010), whose way of drawing is that of Gray and others, *Quickly generating billion-record
//! synthetic databases*, 1994.
//!
//! Keys have numbers. A client writes only the keys of its own slice: those whose number leaves its remainder. A key drawn for
//! a write is moved to the one beside it that is the client's, so the popularity of a key is shared, for writes, by as many keys
//! as there are clients, and no two clients write one key at the same time.

use serde::{Deserialize, Serialize};

use super::random::{Random, mixed};

/// How popular keys are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Distribution {
    /// All alike
    Uniform,
    /// A few are asked for most of the time (theta 0.99); they are scattered over all keys
    Zipfian,
    /// The later a key was inserted, the more it is asked for
    Latest,
}

/// Draws keys.
pub(super) struct Chooser {
    distribution: Distribution,
    zipfian: Zipfian,
}

impl Chooser {
    /// Over so many keys, at least one.
    pub(super) fn new(distribution: Distribution, keys: u64) -> Chooser {
        let zipfian = Zipfian::new(if distribution == Distribution::Uniform { 1 } else { keys.max(1) });
        Chooser { distribution, zipfian }
    }

    /// The number of a key below `keys`: of those that exist now, which may be more than at the beginning.
    pub(super) fn draw(&self, keys: u64, random: &mut Random) -> u64 {
        let keys = keys.max(1);
        match self.distribution {
            Distribution::Uniform => random.next() % keys,
            // Of those at the beginning: were it of all, each insert would make other keys popular.
            Distribution::Zipfian => mixed(self.zipfian.rank(random.unit()) + 1) % (self.zipfian.items as u64),
            Distribution::Latest => keys - 1 - self.zipfian.rank(random.unit()).min(keys - 1),
        }
    }
}

/// The key beside this one that belongs to a client. With more clients than keys some share one.
pub(super) fn owned(key: u64, client: u64, clients: u64, keys: u64) -> u64 {
    let own = key - key % clients + client;
    if own < keys {
        own
    } else if own >= clients {
        // The last of its slice.
        own - clients
    } else {
        client % keys
    }
}

/// Ranks from 0, the most popular first.
struct Zipfian {
    items: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipfian {
    fn new(items: u64) -> Zipfian {
        let zeta = zeta(items);
        let n = items as f64;
        Zipfian {
            items: n,
            zeta,
            alpha: 1.0 / (1.0 - THETA),
            // Not used with one or two items, for which it would be infinite.
            eta: (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - self::zeta(2) / zeta),
        }
    }

    /// The rank for a number from 0 to 1.
    fn rank(&self, unit: f64) -> u64 {
        let uz = unit * self.zeta;
        if uz < 1.0 || self.items < 2.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(THETA) || self.items < 3.0 {
            return 1;
        }
        let rank = self.items * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items as u64 - 1)
    }
}

/// The sum of 1 / i^theta for i from 1 to n: the first terms one by one, the others by the formula of Euler and Maclaurin, which is
/// exact to more digits than a float has. Constant time.
fn zeta(n: u64) -> f64 {
    let exact = n.min(ZETA_TERMS);
    let sum: f64 = (1..=exact).map(|i| (i as f64).powf(-THETA)).sum();
    if n == exact {
        return sum;
    }
    let (from, to) = (exact as f64, n as f64);
    let integral = (to.powf(1.0 - THETA) - from.powf(1.0 - THETA)) / (1.0 - THETA);
    sum + integral + (to.powf(-THETA) - from.powf(-THETA)) / 2.0
}

/// As YCSB has it.
const THETA: f64 = 0.99;

/// Summed in a few milliseconds; beyond them the formula is off by less than 1e-14.
const ZETA_TERMS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const DRAWS: u64 = 400_000;

    fn frequencies(distribution: Distribution, keys: u64) -> BTreeMap<u64, f64> {
        let chooser = Chooser::new(distribution, keys);
        let mut random = Random::new(42);
        let mut counts = BTreeMap::new();
        for _ in 0..DRAWS {
            let key = chooser.draw(keys, &mut random);
            assert!(key < keys);
            *counts.entry(key).or_insert(0.0) += 1.0 / DRAWS as f64;
        }
        counts
    }

    /// The shares of the most popular keys, as the formula has them.
    fn expected(rank: u64, keys: u64) -> f64 {
        let zeta: f64 = (1..=keys).map(|i| (i as f64).powf(-0.99)).sum();
        ((rank + 1) as f64).powf(-0.99) / zeta
    }

    #[test]
    fn the_first_keys_of_a_zipfian_draw_are_as_frequent_as_the_formula_says() {
        let keys = 10_000;
        let zipfian = Zipfian::new(keys);
        let mut random = Random::new(7);
        let mut counts = vec![0_u64; keys as usize];
        for _ in 0..DRAWS {
            counts[zipfian.rank(random.unit()) as usize] += 1;
        }
        for (rank, &count) in (0..2).zip(&counts) {
            let share = count as f64 / DRAWS as f64;
            assert!((share / expected(rank, keys) - 1.0).abs() < 0.03, "rank {rank}: {share}");
        }
        // Beyond the second the drawing is an approximation of the formula: ranks by the hundred are what it is good at.
        let sum = |ranks: std::ops::Range<usize>| -> (f64, f64) {
            let drawn = counts[ranks.clone()].iter().sum::<u64>() as f64 / DRAWS as f64;
            (drawn, ranks.map(|rank| expected(rank as u64, keys)).sum())
        };
        for ranks in [0..10, 0..100, 100..1000, 1000..10_000] {
            let (drawn, formula) = sum(ranks.clone());
            assert!((drawn / formula - 1.0).abs() < 0.1, "{ranks:?}: {drawn} for {formula}");
        }
    }

    #[test]
    fn popular_keys_are_scattered_and_the_same_in_every_run() {
        let keys = 10_000;
        let drawn = frequencies(Distribution::Zipfian, keys);
        let mut popular: Vec<(u64, f64)> = drawn.clone().into_iter().collect();
        popular.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert!(popular[..4].iter().filter(|(key, _)| *key > 100).count() >= 3, "{:?}", &popular[..4]);
        assert!((popular[0].1 / expected(0, keys) - 1.0).abs() < 0.05, "{:?}", popular[0]);
        assert_eq!(drawn, frequencies(Distribution::Zipfian, keys));
    }

    #[test]
    fn latest_prefers_what_was_inserted_last_and_uniform_nothing() {
        let keys = 1_000;
        let latest = frequencies(Distribution::Latest, keys);
        assert!((latest[&999] / expected(0, keys) - 1.0).abs() < 0.03, "{}", latest[&999]);
        assert!(latest[&998] > latest[&900] && latest[&900] > latest.get(&100).copied().unwrap_or(0.0));
        let chooser = Chooser::new(Distribution::Latest, keys);
        let mut random = Random::new(1);
        assert!((0..DRAWS).any(|_| chooser.draw(keys + 50, &mut random) == keys + 49), "the newest of more keys");
        let uniform = frequencies(Distribution::Uniform, 100);
        assert!(uniform.len() == 100 && uniform.values().all(|share| (share * 100.0 - 1.0).abs() < 0.1));
    }

    #[test]
    fn a_single_key_and_two_can_be_drawn() {
        for distribution in [Distribution::Uniform, Distribution::Zipfian, Distribution::Latest] {
            assert_eq!(frequencies(distribution, 1).len(), 1);
            assert_eq!(frequencies(distribution, 2).len(), 2, "{distribution:?}");
        }
    }

    #[test]
    fn no_two_clients_write_the_same_key() {
        for (clients, keys) in [(3, 10), (4, 4), (64, 1000), (1, 7)] {
            for client in 0..clients {
                for key in 0..keys {
                    let own = owned(key, client, clients, keys);
                    assert!(own < keys && own % clients == client, "{key} of client {client} of {clients}: {own}");
                }
            }
        }
        assert_eq!((owned(1, 5, 8, 3), owned(2, 0, 8, 3)), (2, 0), "more clients than keys share them");
    }

    #[test]
    fn the_sum_of_many_terms_is_that_of_each() {
        let n = 3_000_000;
        let each: f64 = (1..=n).map(|i| (i as f64).powf(-THETA)).sum();
        assert!((zeta(n) - each).abs() < 1e-8, "{} {each}", zeta(n));
    }
}
