//! What a store says of how far it has come. Whatever is said once holds: so it may be told in any order, and by anybody.

use driftless_proto::membership::StoreId;
use serde::{Deserialize, Serialize};

/// How far a store has come, in versions of the ring. What is said once holds, so that it may be told in any order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Marks {
    /// Whose marks they are.
    pub store: Option<StoreId>,
    /// In these versions it held what it must.
    pub ready: Ready,
    /// It answers no read that counts in an older version.
    pub closed: u64,
    /// What it does not own in this version it has handed over.
    pub left: u64,
}

/// The versions in which a store held what it must, while each was its newest. One that came later says nothing of those before it: who
/// is to take in nothing for it may not have taken in what the one before demanded. Of the newest it is known, and of the 64 before that: a
/// version that was forced leaves a greater gap, and those before it are not known to have been ready any more. Nothing rests on
/// that: who has closed up to one shows that it was, and where nobody has, the one before it still takes writes and may be read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ready {
    newest: u64,
    /// The lowest bit is for the version before the newest.
    before: u64,
}

impl Ready {
    /// In one version.
    pub fn of(version: u64) -> Ready {
        Ready { newest: version, before: 0 }
    }

    /// The newest of them, or 0.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The newest of them up to this version, or 0.
    pub fn up_to(&self, version: u64) -> u64 {
        let known = self.newest.saturating_sub(64)..=self.newest.min(version);
        known.rev().find(|version| self.contains(*version)).unwrap_or(0)
    }

    /// Whether it held what it must in this version.
    pub fn contains(&self, version: u64) -> bool {
        match self.newest.checked_sub(version) {
            None => false,
            Some(0) => true,
            Some(age) => {
                u32::try_from(age - 1).is_ok_and(|age| self.before.checked_shr(age).is_some_and(|bit| bit & 1 == 1))
            }
        }
    }

    /// In these versions, and in those.
    #[must_use]
    pub fn and(self, other: Ready) -> Ready {
        let (newer, older) = if self.newest >= other.newest { (self, other) } else { (other, self) };
        let age = u32::try_from(newer.newest - older.newest).unwrap_or(u32::MAX);
        let shifted = |bits: u64, by: u32| bits.checked_shl(by).unwrap_or(0);
        let itself = if age > 0 && older.newest > 0 { shifted(1, age - 1) } else { 0 };
        Ready { newest: newer.newest, before: newer.before | shifted(older.before, age) | itself }
    }
}

impl Marks {
    /// Takes in what is told of the same member, of which `named` is the store. What another store has closed counts on: a store that
    /// was lost must not open again what it had closed. Whether anything changed.
    pub fn take_in(&mut self, told: Marks, named: Option<StoreId>) -> bool {
        let before = *self;
        let closed = self.closed.max(told.closed);
        if told.store == self.store {
            self.ready = self.ready.and(told.ready);
            self.left = self.left.max(told.left);
        } else if self.store.is_none() || (told.store == named && self.store != named) {
            *self = told;
        }
        self.closed = closed;
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_were_ready_are_remembered_in_whatever_order_they_are_told() {
        let versions = [1, 3, 4, 60, 64, 65, 130];
        let mut told: Vec<Ready> = versions.map(Ready::of).to_vec();
        let forwards = told.iter().copied().fold(Ready::default(), Ready::and);
        told.rotate_left(3);
        let backwards = told.iter().rev().copied().fold(Ready::default(), Ready::and);
        assert_eq!(forwards, backwards);
        let known = (0..=140).filter(|version| forwards.contains(*version)).collect::<Vec<_>>();
        assert_eq!((known, forwards.newest()), (vec![130], 130), "the others are more than 64 versions ago");
        let known = |of: &[u64]| {
            let all = of.iter().copied().map(Ready::of).fold(Ready::default(), Ready::and);
            (0..=140).filter(|version| all.contains(*version)).collect::<Vec<_>>()
        };
        assert_eq!(known(&[1, 3, 4, 60, 64, 65]), [1, 3, 4, 60, 64, 65]);
        assert_eq!(known(&[]), [0], "version 0 is that of a node that has only come");
        let told = [2, 3, 5].map(Ready::of).into_iter().fold(Ready::default(), Ready::and);
        assert_eq!([1, 2, 3, 4, 5, 9].map(|version| told.up_to(version)), [0, 2, 3, 3, 5, 5]);
    }
}
