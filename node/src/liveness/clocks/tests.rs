use driftless_proto::Hlc;
use proptest::prelude::*;

use super::*;

const OFF_MAX: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

/// Nodes that tell each other the time, each with a monotonic clock of its own origin and a wall clock that is off.
struct World {
    nodes: Vec<Node>,
    /// The true time, in microseconds.
    at: u64,
}

struct Node {
    clocks: Clocks,
    origin: u64,
    off_ms: i64,
    bounds: Option<ClockBounds>,
    changes: Vec<Stance>,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

impl World {
    fn new(off_ms: &[i64]) -> World {
        let count = off_ms.len();
        let node = |(i, off_ms): (usize, &i64)| Node {
            clocks: Clocks::new(id(i), (0..count).map(id), ClockSettings { off_max: OFF_MAX }),
            origin: 7_000_000 * i as u64,
            off_ms: *off_ms,
            bounds: None,
            changes: Vec::new(),
        };
        World { nodes: off_ms.iter().enumerate().map(node).collect(), at: 1_000_000 }
    }

    fn now(&self, node: usize) -> Now {
        let Node { origin, off_ms, .. } = self.nodes[node];
        let wall = 1_700_000_000_000_u64.saturating_add_signed(off_ms) + self.at / 1000;
        Now { instant: Instant(origin + self.at), wall: Hlc::from_millis(wall) }
    }

    /// One datagram, so long under way.
    fn tell(&mut self, from: usize, to: usize, takes: Duration) {
        let bytes = self.nodes[from].clocks.seal(self.now(from), id(to), b"said");
        self.at += micros(takes);
        let now = self.now(to);
        assert_eq!(self.nodes[to].clocks.open(now, id(from), &bytes), Some(&b"said"[..]));
        self.look(to);
    }

    fn look(&mut self, node: usize) {
        let now = self.now(node);
        let node = &mut self.nodes[node];
        node.clocks.look(now);
        while let Some(output) = node.clocks.poll_output() {
            match output {
                Output::Bounds(bounds) => node.bounds = bounds,
                Output::Changed(standing) => node.changes.push(standing.stance),
            }
        }
    }

    /// All of these talk to each other, a millisecond each way, and look once more.
    fn talk(&mut self, nodes: &[usize]) {
        for _ in 0..3 {
            for &from in nodes {
                for &to in nodes.iter().filter(|to| **to != from) {
                    self.tell(from, to, Duration::from_millis(1));
                }
            }
        }
        (0..self.nodes.len()).for_each(|node| self.look(node));
    }

    fn stance(&self, node: usize) -> Stance {
        self.nodes[node].clocks.standing().stance
    }

    fn stances(&self) -> Vec<Stance> {
        (0..self.nodes.len()).map(|node| self.stance(node)).collect()
    }

    /// What an engine would refuse a write for.
    fn refuses(&self, node: usize) -> Option<i64> {
        self.nodes[node].bounds.and_then(|bounds| bounds.ahead_ms(self.now(node)))
    }
}

#[test]
fn of_three_the_one_that_is_off_finds_it_out_and_the_others_go_on() {
    for off in [DAY_MS, -DAY_MS, 61_000, -61_000] {
        let mut world = World::new(&[0, off, 0]);
        world.talk(&[0, 1, 2]);
        assert_eq!(world.stances(), [Stance::Agrees, Stance::Off, Stance::Agrees]);
        let ahead = world.refuses(1).expect("refuses");
        assert!(ahead.abs_diff(off) <= 2, "{ahead} is not {off}");
        assert_eq!((world.refuses(0), world.refuses(2)), (None, None));
        assert_eq!(world.nodes[1].clocks.standing().ahead_ms, Some(ahead));
        assert_eq!(world.nodes[1].clocks.standing().heard, 2);
    }
    let mut near = World::new(&[0, 40_000, -40_000]);
    near.talk(&[0, 1, 2]);
    assert_eq!(near.stances(), [Stance::Agrees; 3]);
}

#[test]
fn two_nodes_that_differ_cannot_know_who_is_wrong() {
    let mut world = World::new(&[0, DAY_MS]);
    world.talk(&[0, 1]);
    assert_eq!(world.stances(), [Stance::Disputed; 2], "both say so");
    assert_eq!((world.refuses(0), world.refuses(1)), (None, None), "neither refuses");
    assert!(world.nodes[0].clocks.standing().ahead_ms.is_some_and(|ahead| ahead < -DAY_MS + 10));
    // The same with two against two, and with a node that hears only the wrong one of three.
    let mut even = World::new(&[0, DAY_MS, 0, DAY_MS]);
    even.talk(&[0, 1, 2, 3]);
    assert_eq!(even.stances(), [Stance::Disputed; 4]);
    assert!((0..4).all(|node| even.refuses(node).is_none()));
    let mut parted = World::new(&[0, DAY_MS, 0]);
    parted.talk(&[0, 1]);
    assert_eq!(parted.stances(), [Stance::Disputed, Stance::Disputed, Stance::Unheard]);
}

#[test]
fn of_five_two_that_are_off_find_it_out_also_if_each_in_its_own_way() {
    for wrong in [[DAY_MS, DAY_MS], [DAY_MS, -DAY_MS]] {
        let mut world = World::new(&[wrong[0], 0, 10, wrong[1], -10]);
        world.talk(&[0, 1, 2, 3, 4]);
        use Stance::{Agrees, Off};
        assert_eq!(world.stances(), [Off, Agrees, Agrees, Off, Agrees]);
    }
}

#[test]
fn a_node_that_hears_nobody_has_no_opinion() {
    let mut world = World::new(&[DAY_MS, 0, 0]);
    world.look(0);
    assert_eq!((world.stance(0), world.refuses(0)), (Stance::Unheard, None));
    world.talk(&[0, 1, 2]);
    assert_eq!(world.stance(0), Stance::Off);
    // What is known of the others' clocks lasts for a while after they are gone, and then no more.
    world.at += 119_000_000;
    world.look(0);
    assert_eq!(world.stance(0), Stance::Off);
    world.at += 2_000_000;
    world.look(0);
    assert_eq!((world.stance(0), world.refuses(0)), (Stance::Unheard, None));
    assert_eq!(world.nodes[0].clocks.standing().ahead_ms, None);
}

#[test]
fn a_jump_of_the_own_clock_is_noticed_before_anything_more_is_heard() {
    let mut world = World::new(&[0, 0, 0]);
    world.talk(&[0, 1, 2]);
    assert_eq!(world.refuses(0), None);
    world.nodes[0].off_ms = DAY_MS;
    assert!(world.refuses(0).is_some(), "an engine sees it by itself");
    world.look(0);
    assert_eq!(world.stance(0), Stance::Off);
    world.nodes[0].off_ms = 0;
    assert_eq!(world.refuses(0), None, "and that it is over");
    world.look(0);
    assert_eq!(world.stance(0), Stance::Agrees);
    assert_eq!(world.nodes[0].changes.last_chunk(), Some(&[Stance::Agrees, Stance::Off, Stance::Agrees]));
}

#[test]
fn a_jump_of_another_clock_is_noticed_with_its_next_word() {
    let mut world = World::new(&[0, 0, 0]);
    world.talk(&[0, 1, 2]);
    for off in [DAY_MS, 0] {
        world.nodes[1].off_ms = off;
        world.nodes[2].off_ms = off;
        world.tell(1, 0, Duration::from_millis(1));
        world.tell(2, 0, Duration::from_millis(1));
        assert_eq!(world.stance(0), if off == 0 { Stance::Agrees } else { Stance::Off });
    }
}

/// A process that stood still reads at once what has waited for it.
#[test]
fn what_was_long_under_way_tells_no_time() {
    let mut world = World::new(&[0, 0, 0]);
    world.talk(&[0, 1, 2]);
    let before = world.nodes[0].clocks.standing();
    for peer in [1, 2] {
        world.tell(0, peer, Duration::from_millis(1));
        world.tell(peer, 0, Duration::from_secs(50));
    }
    let after = world.nodes[0].clocks.standing();
    assert_eq!((before.stance, after.stance), (Stance::Agrees, Stance::Agrees));
    assert!(after.ahead_ms.is_some_and(|ahead| ahead.abs() <= 2), "{after:?}");
    // And what was short under way is right to half of that.
    world.tell(0, 1, Duration::from_secs(2));
    world.tell(1, 0, Duration::from_secs(4));
    world.tell(0, 2, Duration::from_secs(2));
    world.tell(2, 0, Duration::from_secs(4));
    assert!(world.nodes[0].clocks.standing().ahead_ms.is_some_and(|ahead| ahead.abs() <= 1_002));
}

#[test]
fn an_echo_of_an_earlier_life_tells_nothing() {
    let mut world = World::new(&[0, 0, 0]);
    world.talk(&[0, 1, 2]);
    let late = world.nodes[1].clocks.seal(world.now(1), id(0), b"");
    // A new process: its monotonic clock begins anew.
    world.nodes[0].clocks = Clocks::new(id(0), (0..3).map(id), ClockSettings { off_max: OFF_MAX });
    world.nodes[0].origin = 0;
    let now = Now { instant: Instant(5), ..world.now(0) };
    assert!(world.nodes[0].clocks.open(now, id(1), &late).is_some());
    assert_eq!(world.nodes[0].clocks.standing().heard, 0);
}

#[test]
fn who_is_near_the_edge_does_not_change_its_mind_all_the_time() {
    let mut world = World::new(&[0, 59_990, 0]);
    world.talk(&[0, 1, 2]);
    world.nodes[1].changes.clear();
    for turn in 0..100 {
        world.nodes[1].off_ms = if turn % 2 == 0 { 60_050 } else { 59_950 };
        world.talk(&[0, 1, 2]);
    }
    assert_eq!(world.nodes[1].changes, [Stance::Off], "once");
    world.nodes[1].off_ms = 44_000;
    world.talk(&[0, 1, 2]);
    assert_eq!(world.stance(1), Stance::Agrees);
}

#[test]
fn what_is_no_stamp_is_refused_and_what_is_none_of_the_members_is_no_vote() {
    let mut world = World::new(&[0, 0, 0]);
    let now = world.now(0);
    assert_eq!(world.nodes[0].clocks.open(now, id(1), &[0x80; 3]), None);
    let bytes = world.nodes[1].clocks.seal(world.now(1), id(0), b"x");
    assert_eq!(world.nodes[0].clocks.open(now, NodeId(99), &bytes), Some(&b"x"[..]));
    assert_eq!(world.nodes[0].clocks.standing().heard, 0);
}

#[test]
fn who_is_a_member_no_more_has_no_vote_and_who_becomes_one_has() {
    let mut world = World::new(&[0, 0, 0]);
    world.talk(&[0, 1, 2]);
    assert_eq!(world.nodes[0].clocks.standing().heard, 2);
    let now = world.now(0);
    world.nodes[0].clocks.handle_members(now, id(0), &[id(0), id(1)]);
    assert_eq!(world.nodes[0].clocks.standing().heard, 1);
    world.nodes[0].clocks.handle_members(now, id(0), &[id(0), id(1), id(2)]);
    assert_eq!(world.nodes[0].clocks.standing().heard, 1, "it has not said anything since");
    world.talk(&[0, 1, 2]);
    assert_eq!(world.nodes[0].clocks.standing().heard, 2);
}

proptest! {
    /// By the definition: with the own clock among them sorted, it is further than allowed from both in the middle.
    #[test]
    fn bounds_say_what_the_median_of_all_says(mut others in proptest::collection::vec(-50..50_i64, 0..7), own in -60..60_i64) {
        others.sort_unstable();
        let slack = 10;
        let mut all = others.clone();
        all.push(own);
        all.sort_unstable();
        let (lower, upper) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        let off = own < lower - slack || own > upper + slack;
        let now = Now { instant: Instant(0), wall: Hlc::from_millis((own + 100) as u64) };
        let shifted: Vec<i64> = others.iter().map(|other| other + 100).collect();
        let found = bounds(&shifted, slack).and_then(|bounds| bounds.ahead_ms(now));
        prop_assert_eq!(found.is_some(), off);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), instant in any::<u64>(), wall in any::<u64>()) {
        let mut clocks = Clocks::new(id(0), (0..3).map(id), ClockSettings { off_max: OFF_MAX });
        let now = Now { instant: Instant(instant), wall: Hlc(wall) };
        for _ in 0..2 {
            for from in 1..3 {
                let _ = clocks.open(now, id(from), &bytes);
            }
            let _ = clocks.seal(now, id(1), &bytes);
            clocks.look(now);
            if let Some(bounds) = clocks.bounds {
                let _ = bounds.ahead_ms(Now { instant: Instant(0), wall: Hlc(u64::MAX) });
            }
        }
    }
}
