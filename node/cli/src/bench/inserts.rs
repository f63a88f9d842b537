//! Keys that a run inserts: they go on from the last key that an earlier run has left, and are read once they are acknowledged.
//!
//! ```text
//! position   0 … keys-1             keys …
//! number     0 … keys-1   (earlier  first …
//!                          inserts)
//! ```
//! What earlier runs inserted is skipped: of their keys some may have failed.

use std::collections::BTreeSet;

use crate::exit::Result;

/// Inserts of this run, and what can be read.
pub(super) struct Inserts {
    keys: u64,
    first: u64,
    begun: u64,
    /// So many have ended, without a gap.
    settled: u64,
    ended: BTreeSet<u64>,
    /// Those of them that may not exist.
    lost: BTreeSet<u64>,
}

impl Inserts {
    /// After so many keys; the first insert has this number.
    pub(super) fn new(keys: u64, first: u64) -> Inserts {
        Inserts { keys, first, begun: 0, settled: 0, ended: BTreeSet::new(), lost: BTreeSet::new() }
    }

    /// The next insert.
    pub(super) fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.first + self.begun - 1
    }

    /// The insert of this number is over.
    pub(super) fn end(&mut self, number: u64, stored: bool) {
        let insert = number - self.first;
        self.ended.insert(insert);
        if !stored {
            self.lost.insert(insert);
        }
        while self.ended.remove(&self.settled) {
            self.settled += 1;
        }
    }

    /// How many keys can be read.
    pub(super) fn readable(&self) -> u64 {
        self.keys + self.settled
    }

    /// The number of the key at a position below that; the one before it, if it may not exist.
    pub(super) fn number(&self, position: u64) -> u64 {
        let Some(mut insert) = position.checked_sub(self.keys) else { return position };
        while self.lost.contains(&insert) {
            match insert.checked_sub(1) {
                Some(before) => insert = before,
                None => return self.keys - 1,
            }
        }
        self.first + insert
    }
}

/// The first number from `keys` on behind all that exist, in steps that grow by themselves and shrink again: O(log n) questions.
/// `exists` tells whether a key exists among a window of them; a gap as long as that is taken for the end.
pub(super) async fn first_free(keys: u64, window: u64, exists: impl AsyncFn(u64) -> Result<bool>) -> Result<u64> {
    if !exists(keys).await? {
        return Ok(keys);
    }
    let (mut there, mut step) = (keys, window);
    let mut free = there + step;
    while exists(free).await? {
        there = free;
        step *= 2;
        free += step;
    }
    while free - there > window {
        let middle = there + (free - there) / 2;
        if exists(middle).await? {
            there = middle;
        } else {
            free = middle;
        }
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_key_is_read_once_it_and_all_before_it_are_settled() {
        let mut inserts = Inserts::new(10, 25);
        assert_eq!((inserts.readable(), inserts.number(9)), (10, 9));
        assert_eq!([(); 3].map(|()| inserts.begin()), [25, 26, 27]);
        inserts.end(26, true);
        assert_eq!(inserts.readable(), 10, "25 is under way");
        inserts.end(25, false);
        assert_eq!((inserts.readable(), inserts.number(11), inserts.number(10)), (12, 26, 9), "25 may not exist");
        inserts.end(27, false);
        assert_eq!((inserts.readable(), inserts.number(12)), (13, 26));
    }

    #[test]
    fn inserts_go_on_behind_the_last_key() {
        for (keys, there) in [(100, 100), (100, 101), (100, 163), (100, 164), (100, 165), (100, 100_000), (5, 7)] {
            let window = 64;
            let asked = Cell::new(0);
            // Every tenth insert has failed.
            let exists = async |from: u64| {
                asked.set(asked.get() + 1);
                Ok((from..from + window).any(|key| key < there && (key == there - 1 || key % 10 != 0)))
            };
            let free = first_free(keys, window, exists).now_or_never().expect("waits for nothing").expect("succeeds");
            assert!(free >= there && free < there + 2 * window, "{keys} {there}: {free}");
            assert!(asked.get() < 40, "{}", asked.get());
        }
    }
}
