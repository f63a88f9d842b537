//! Who is struck in the middle of a change: one that gives and one that takes, once something moves, and one that hands over, near its
//! end. What is done to them is the rig's.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use driftless_proto::membership::{Plan, PlannedNode};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::change::{Look, handed_over, moving_of};

/// Who is to be struck in a change, in order.
#[derive(Debug)]
pub(crate) struct Strikes<H> {
    victims: VecDeque<Victim<H>>,
    version: u64,
    takers: Vec<String>,
}

/// One who is to be struck.
#[derive(Clone, Debug)]
pub(crate) struct Victim<H> {
    pub(crate) name: String,
    role: Role,
    /// What is done to it, or for how long.
    pub(crate) how: H,
}

/// What it does in the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Others take from it: struck while they do.
    Gives,
    /// Struck while it takes.
    Takes,
    /// It gives as well: struck once everything is taken, while it makes sure that it was.
    HandsOver,
}

/// A strike, and what it met.
#[derive(Clone, Debug)]
pub(crate) struct Struck<H> {
    victim: Victim<H>,
    /// Partitions taken in by all takers then, of so many. Who was started again counts anew.
    taken: (u32, u32),
    /// Bytes likewise.
    bytes: u64,
    /// Partitions handed over by the victim then, of so many.
    given: (u32, u32),
    /// Whether partitions moved from or to it.
    pub(crate) in_the_middle: bool,
}

impl Strikes<Duration> {
    /// Draws one who gives and another one who takes, which of them is first, who hands over, and for how long each is down.
    pub(crate) fn draw(plan: &Plan, rng: &mut StdRng) -> Strikes<Duration> {
        let mut order = [Role::Gives, Role::Takes];
        if rng.random_bool(0.5) {
            order.reverse();
        }
        let down = |role| (role, Duration::from_millis(rng.random_range(200..1_200)));
        let wanted = order.into_iter().chain([Role::HandsOver]).map(down).collect();
        Strikes::of(plan, wanted, &[], rng)
    }
}

impl<H> Strikes<H> {
    /// Draws who is struck in these roles; nobody of those who are away.
    pub(crate) fn of(plan: &Plan, wanted: Vec<(Role, H)>, away: &[String], rng: &mut StdRng) -> Strikes<H> {
        let of = |moves: fn(&PlannedNode) -> u64| -> Vec<String> {
            let there = plan.nodes.iter().filter(|node| moves(node) > 0 && !away.contains(&node.name));
            there.map(|node| node.name.clone()).collect()
        };
        let (givers, takers) = (of(|node| node.loses), of(|node| node.gains));
        let taker = takers.choose(rng).cloned();
        let others: Vec<String> = givers.iter().filter(|name| taker.as_ref() != Some(name)).cloned().collect();
        let mut victims = VecDeque::new();
        for (role, how) in wanted {
            let name = match role {
                Role::Gives => others.choose(rng).cloned(),
                Role::Takes => taker.clone(),
                Role::HandsOver => givers.choose(rng).cloned(),
            };
            if let Some(name) = name {
                victims.push_back(Victim { name, role, how });
            }
        }
        Strikes { victims, version: plan.version, takers }
    }

    /// Nobody is struck.
    pub(crate) fn none() -> Strikes<H> {
        Strikes { victims: VecDeque::new(), version: 0, takers: Vec::new() }
    }

    /// The next one, if it is time: something has been taken in, and not all of it.
    pub(crate) fn next(&mut self, look: &Look) -> Option<Struck<H>> {
        let victim = self.victims.front()?;
        let (mut taken, mut taking, mut bytes, mut answer) = (0, 0, 0, 0);
        for moving in self.takers.iter().filter_map(|name| moving_of(look, name, self.version)) {
            (taken, taking, bytes) = (taken + moving.taken, taking + moving.taking, bytes + moving.bytes);
            answer += usize::from(moving.taking > 0);
        }
        let own = moving_of(look, &victim.name, self.version).unwrap_or_default();
        let (given, giving) = handed_over(look, &victim.name, self.version);
        let (has_begun, all_taken) = (bytes > 0 || taken > 0, taken == taking && answer == self.takers.len());
        let is_time = match victim.role {
            Role::Gives | Role::Takes => has_begun,
            Role::HandsOver => has_begun && all_taken,
        };
        if taking == 0 || !is_time {
            return None;
        }
        let in_the_middle = match victim.role {
            Role::Gives => !all_taken,
            Role::Takes => own.taken < own.taking,
            Role::HandsOver => given < giving,
        };
        let victim = self.victims.pop_front()?;
        Some(Struck { victim, taken: (taken, taking), bytes, given: (given, giving), in_the_middle })
    }

    /// Who was not struck, since it was over before.
    pub(crate) fn left(&self) -> impl Iterator<Item = &str> {
        self.victims.iter().map(|victim| victim.name.as_str())
    }
}

impl<H> Struck<H> {
    pub(crate) fn role(&self) -> Role {
        self.victim.role
    }

    pub(crate) fn victim(&self) -> &Victim<H> {
        &self.victim
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Gives => "gives",
            Role::Takes => "takes",
            Role::HandsOver => "hands over",
        })
    }
}

impl<H> fmt::Display for Struck<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((taken, taking), (given, giving)) = (self.taken, self.given);
        let (name, role, kib) = (&self.victim.name, self.victim.role, self.bytes >> 10);
        write!(f, "{name}, which {role}, with {kib} KiB and {taken} of {taking} partitions taken in")?;
        if giving > 0 {
            write!(f, " and {given} of its {giving} handed over")?;
        }
        f.write_str(if self.in_the_middle { "" } else { "; it had done its part" })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use driftless_client::{ClusterState, MemberState, Moving};
    use driftless_proto::membership::PlannedNode;
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn who_is_away_is_not_struck() {
        for seed in 0..20 {
            let wanted = vec![(Role::Gives, ()), (Role::HandsOver, ())];
            let mut strikes = Strikes::of(&plan(), wanted, &["n1".to_owned()], &mut StdRng::seed_from_u64(seed));
            let names = std::iter::from_fn(|| strikes.next(&look(128))).map(|struck| struck.victim().name.clone());
            assert_eq!(names.collect::<Vec<_>>(), ["n2", "n2"]);
        }
    }

    fn plan() -> Plan {
        let node = |(name, gains, loses): (&str, u64, u64)| PlannedNode {
            name: name.to_owned(),
            zone: "default".to_owned(),
            now: 0,
            then: 0,
            gains,
            loses,
            bytes_in: 0,
            bytes_out: 0,
        };
        Plan {
            name: "a".to_owned(),
            base: 2,
            version: 3,
            changes: Vec::new(),
            nodes: [("n1", 0, 64), ("n2", 0, 64), ("n4", 128, 0)].map(node).into(),
            slots_moved: 128,
            slots_minimum: 128,
            slots: 768,
            spread: (1, 1),
            zones: (1, 1),
            warnings: Vec::new(),
        }
    }

    fn look(taken: u32) -> Look {
        let moving = Moving { taking: 128, taken, ..Moving::default() };
        let member = MemberState {
            name: "n4".to_owned(),
            address: String::new(),
            zone: String::new(),
            weight: 1,
            stays: true,
            is_heard: true,
            is_whole: true,
            is_lost: false,
            ready: 2,
            closed: 2,
            left: 2,
            moving,
        };
        let state = ClusterState {
            version: 3,
            digest: 1,
            is_agreed: true,
            forced_on: None,
            unfinished: vec![2],
            read_version: 2,
            staged: driftless_proto::membership::Staged::default(),
            voters: Vec::new(),
            members: vec![member],
            candidates: Vec::new(),
        };
        BTreeMap::from([("n4".to_owned(), state)])
    }

    #[test]
    fn one_who_gives_and_one_who_takes_are_struck_once_something_moves_and_one_who_hands_over_in_the_end() {
        for seed in 0..20 {
            let mut strikes = Strikes::draw(&plan(), &mut StdRng::seed_from_u64(seed));
            assert!(strikes.next(&look(0)).is_none(), "nothing has moved yet");
            let struck: Vec<Struck<Duration>> = std::iter::from_fn(|| strikes.next(&look(5))).collect();
            assert!(struck.iter().all(|struck| struck.in_the_middle));
            let mut names: Vec<&str> = struck.iter().map(|struck| struck.victim().name.as_str()).collect();
            names.sort_unstable();
            assert!(names == ["n1", "n4"] || names == ["n2", "n4"], "{names:?}");
            let last = strikes.next(&look(128)).expect("everything is taken");
            assert!(matches!(last.victim().name.as_str(), "n1" | "n2") && strikes.next(&look(128)).is_none());
        }
    }

    #[test]
    fn who_has_done_its_part_is_not_struck_in_the_middle() {
        let mut strikes = Strikes::draw(&plan(), &mut StdRng::seed_from_u64(1));
        assert!(!strikes.next(&look(128)).expect("it is time").in_the_middle);
        assert_eq!(strikes.left().count(), 2);
    }
}
