//! How far an unfinished version has come, summed up from what the members say of themselves.

use std::time::Duration;

use driftless_client::{ClusterState, MemberState, Moving};
use serde_json::{Value, json};

use crate::output::size;

/// Of one member, or of all together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    /// Partitions to take in, and how many of them are.
    pub(crate) taking: u64,
    pub(crate) taken: u64,
    /// Partitions to hand over, and how many of them are.
    pub(crate) giving: u64,
    pub(crate) given: u64,
    pub(crate) keys: u64,
    pub(crate) keys_left: u64,
    pub(crate) bytes: u64,
    /// About.
    pub(crate) bytes_left: u64,
    /// Bytes a second.
    pub(crate) rate: u64,
    /// Until all is there; `None` if that cannot be said.
    pub(crate) left: Option<Duration>,
}

impl Progress {
    /// Of one member.
    pub(crate) fn of(member: &MemberState) -> Progress {
        let Moving { taking, taken, giving, given, keys, bytes, rate, keys_left } = member.moving;
        let bytes_left = bytes_of(keys_left, keys, bytes);
        let left = match taken >= taking {
            true => Some(Duration::ZERO),
            false => (rate > 0 && bytes_left > 0).then(|| Duration::from_secs(bytes_left.div_ceil(rate))),
        };
        let (taking, taken, giving, given) = (taking.into(), taken.into(), giving.into(), given.into());
        Progress { taking, taken, giving, given, keys, keys_left, bytes, bytes_left, rate, left }
    }

    /// Of all members together.
    pub(crate) fn of_all(state: &ClusterState) -> Progress {
        let mut sum = Progress { left: Some(Duration::ZERO), ..Progress::default() };
        for one in state.members.iter().map(Progress::of) {
            sum.taking += one.taking;
            sum.taken += one.taken;
            sum.giving += one.giving;
            sum.given += one.given;
            sum.keys += one.keys;
            sum.keys_left += one.keys_left;
            sum.bytes += one.bytes;
            sum.rate += one.rate;
            // All of them take at the same time: the slowest one is the last.
            sum.left = sum.left.zip(one.left).map(|(longest, one)| longest.max(one));
        }
        // A member that has taken in nothing yet has values as large as the others'.
        sum.bytes_left = bytes_of(sum.keys_left, sum.keys, sum.bytes);
        sum
    }

    /// `61 of 192 partitions taken in, 1.8 GiB of about 5.6 GiB, 48.0 MiB/s, 1m 20s left`, or that there is nothing to move.
    pub(crate) fn words(&self) -> String {
        let mut words = match (self.taking, self.giving) {
            (0, 0) => return "no partitions are to be moved".to_owned(),
            (0, giving) => format!("{} of {giving} partitions handed over", self.given),
            (taking, 0) => format!("{} of {taking} partitions taken in", self.taken),
            (taking, giving) => {
                format!("{} of {taking} partitions taken in, {} of {giving} handed over", self.taken, self.given)
            }
        };
        words += &match self.bytes_left {
            0 => format!(", {}", size(self.bytes)),
            left => format!(", {} of about {}", size(self.bytes), size(self.bytes + left)),
        };
        if self.rate > 0 {
            words += &format!(", {}/s", size(self.rate));
        }
        if let Some(left) = self.left.filter(|left| !left.is_zero()) {
            words += &format!(", {} left", time(left));
        }
        words
    }

    /// For programs.
    pub(crate) fn as_json(self) -> Value {
        json!({
            "taking": self.taking,
            "taken": self.taken,
            "giving": self.giving,
            "given": self.given,
            "keys": self.keys,
            "keys_left": self.keys_left,
            "bytes": self.bytes,
            "bytes_left": self.bytes_left,
            "rate": self.rate,
            "eta_ms": self.left.map(|left| left.as_millis() as u64),
        })
    }
}

/// Whether a version before the newest is not done with.
pub(crate) fn is_unfinished(state: &ClusterState) -> bool {
    !state.unfinished.is_empty()
}

/// `taking in 12 of 64, handing over 3 of 16`, as far as either is to be done still.
pub(crate) fn words(moving: &Moving) -> Option<String> {
    let mut words = Vec::new();
    if moving.taken < moving.taking {
        words.push(format!("taking in {} of {}", moving.taken, moving.taking));
    }
    if moving.given < moving.giving {
        words.push(format!("handing over {} of {}", moving.given, moving.giving));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

/// Bytes still to be taken in, about: as large as those that were.
fn bytes_of(keys_left: u64, keys: u64, bytes: u64) -> u64 {
    if keys == 0 {
        return 0;
    }
    let about = u128::from(keys_left) * u128::from(bytes) / u128::from(keys);
    u64::try_from(about).unwrap_or(u64::MAX)
}

/// A time for people, to the second.
pub(crate) fn time(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_millis().div_ceil(1000) as u64)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::standing::tests::{member, state};

    const MIB: u64 = 1 << 20;

    fn takes(taken: u32, keys: u64, bytes: u64, rate: u64, keys_left: u64) -> Moving {
        Moving { taking: 100, taken, keys, bytes, rate, keys_left, ..Moving::default() }
    }

    #[test]
    fn what_is_left_is_as_large_as_what_has_come_and_ends_with_the_slowest() {
        let mut state = state();
        state.members = vec![member("n4"), member("n5"), member("n6")];
        state.members[0].moving = takes(60, 1_000, 100 * MIB, 10 * MIB, 400);
        state.members[1].moving = takes(50, 1_000, 100 * MIB, 5 * MIB, 1_000);
        state.members[2].moving = Moving { giving: 10, given: 3, ..Moving::default() };
        let sum = Progress::of_all(&state);
        assert_eq!(sum.bytes_left, 140 * MIB);
        assert_eq!(sum.left, Some(Duration::from_secs(20)), "4 s and 20 s");
        assert_eq!(
            sum.words(),
            "110 of 200 partitions taken in, 3 of 10 handed over, 200.0 MiB of about 340.0 MiB, 15.0 MiB/s, 20s left"
        );
        assert_eq!(sum.as_json()["eta_ms"], json!(20_000));
    }

    #[test]
    fn where_nothing_can_be_said_nothing_is() {
        let mut state = state();
        state.members[0].moving = takes(0, 0, 0, 0, 500);
        let sum = Progress::of_all(&state);
        assert_eq!((sum.left, sum.bytes_left), (None, 0));
        assert_eq!(sum.words(), "0 of 100 partitions taken in, 0 B");
        assert_eq!(words(&state.members[0].moving).as_deref(), Some("taking in 0 of 100"));
        assert_eq!(words(&Moving::default()), None);
    }

    /// "0 of 0 partitions taken in, 0 B" stood there.
    #[test]
    fn where_nothing_is_to_be_moved_it_says_so() {
        assert_eq!(Progress::default().words(), "no partitions are to be moved");
        let gives = Progress { giving: 16, given: 3, bytes: 300, ..Progress::default() };
        assert_eq!(gives.words(), "3 of 16 partitions handed over, 300 B");
    }
}
