//! The keys that were largest, by one measure, when they were last read or written here.
//!
//! What is seen of a key that is in it replaces what was seen before, larger or smaller. Another key takes the place of the smallest if it
//! is larger. What was not seen for [`KEPT_FOR`] goes: nobody has looked whether it is still so.

use std::time::Duration;

use driftless_proto::top::SeenKey;
use driftless_ring::Token;

use super::hot::Sight;
use super::name::Name;
use super::ranked::Ranked;
use crate::time::Instant;

/// Of one bucket.
pub(super) struct Largest {
    keys: Ranked<(Sight, Name)>,
    /// What is smaller is not worth a line.
    least: u64,
}

impl Largest {
    pub(super) fn new(most: usize, least: u64) -> Largest {
        Largest { keys: Ranked::new(most), least }
    }

    /// A key was read or written, and measured so much.
    pub(super) fn saw(&mut self, token: Token, measure: u64, sight: Sight, name: Option<&[u8]>) {
        if measure < self.least {
            return self.keys.remove(token);
        }
        if let Some((kept, known)) = self.keys.renumber(token, |_| measure) {
            *kept = sight;
            known.fill(name);
        } else if !self.keys.is_full() {
            self.keys.insert(token, measure, (sight, Name::default())).1.set(name);
        } else if self.keys.least().is_some_and(|least| least < measure)
            && let Some((kept, known)) = self.keys.replace_least(token, measure)
        {
            *kept = sight;
            known.set(name);
        }
    }

    /// Forgets what was seen too long ago.
    pub(super) fn age(&mut self, now: Instant) {
        let old =
            |(token, _, (sight, _)): (Token, u64, &(Sight, Name))| (now.since(sight.at) >= KEPT_FOR).then_some(token);
        let old: Vec<Token> = self.keys.iter().filter_map(old).collect();
        old.into_iter().for_each(|token| self.keys.remove(token));
    }

    pub(super) fn forget_names(&mut self) {
        self.keys.iter_mut().for_each(|(_, name)| name.forget());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.least().is_none()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes(|(_, name)| name.bytes())
    }

    pub(super) fn told(&self, now: Instant) -> impl Iterator<Item = SeenKey> {
        self.keys.iter().map(move |(token, _, (sight, name))| SeenKey { key: name.of(token), seen: sight.seen(now) })
    }
}

/// Long enough that a key which is seldom touched is found, and short enough that what is shown was so today.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(bytes: u64, at: u64) -> Sight {
        Sight { bytes, siblings: 1, at: Instant::default() + Duration::from_secs(at) }
    }

    fn keys(largest: &Largest) -> Vec<(u64, u64)> {
        let mut keys: Vec<_> = largest.told(Instant::default()).map(|key| (key.key.token.0, key.seen.bytes)).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_largest_stay_and_what_shrinks_or_goes_makes_room() {
        let mut largest = Largest::new(3, 1);
        let see = |largest: &mut Largest, token, bytes| largest.saw(Token(token), bytes, sight(bytes, 0), None);
        for token in 1..=9 {
            see(&mut largest, token, token * 10);
        }
        assert_eq!(keys(&largest), [(7, 70), (8, 80), (9, 90)]);
        see(&mut largest, 5, 50);
        assert_eq!(keys(&largest), [(7, 70), (8, 80), (9, 90)], "it is smaller than all");
        see(&mut largest, 9, 5);
        see(&mut largest, 5, 50);
        assert_eq!(keys(&largest), [(5, 50), (7, 70), (8, 80)], "the smallest made room");
        see(&mut largest, 8, 0);
        assert_eq!(keys(&largest), [(5, 50), (7, 70)], "it was deleted");
    }

    #[test]
    fn what_nobody_has_looked_at_for_long_is_forgotten() {
        let mut largest = Largest::new(3, 1);
        largest.saw(Token(1), 10, sight(10, 0), None);
        largest.saw(Token(2), 20, sight(20, 0), None);
        largest.saw(Token(1), 11, sight(11, 1_000), None);
        largest.age(Instant::default() + KEPT_FOR);
        assert_eq!(keys(&largest), [(1, 11)]);
    }
}
