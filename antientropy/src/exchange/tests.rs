//! Two machines, two sets of keys, and a network in between that is as bad as a seed makes it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use driftless_ring::{ArcIndex, PartitionId, Partitions, Token, TokenRange};
use proptest::prelude::*;

use super::*;
use crate::message::{Answer, Ask, Leaf, Listing, Refused, Reply, Request};
use crate::wire::Rising;
use crate::{Bits, Digest, LeafMap, Unreadable};

/// A replica of one partition. What it holds of a key is a number; merging takes the larger one.
#[derive(Clone)]
struct Side {
    tree: Option<Tree>,
    keys: Vec<(Token, Digest)>,
    /// How many records one call of a machine may read, and how many it has.
    step: usize,
    read: Cell<usize>,
}

impl Records for Side {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let first = self.keys.partition_point(|key| key.0 < tokens.first);
        for &(token, digest) in self.keys[first..].iter().take_while(|key| key.0 <= tokens.last) {
            self.read.set(self.read.get() + 1);
            if visit(token, digest).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn is_enough(&self) -> bool {
        self.read.get() >= self.step
    }
}

impl Side {
    /// Keys in the order of tokens.
    fn new(keys: Vec<(Token, Digest)>, bits: Bits) -> Side {
        let mut tree = Tree::new(map(), bits);
        for (token, digest) in &keys {
            tree.update(*token, None, Some(*digest));
        }
        Side { tree: Some(tree), keys, step: usize::MAX, read: Cell::new(0) }
    }

    fn local(&self) -> Local<'_> {
        let read = self.read.replace(0);
        assert!(read <= self.step.saturating_add(READ_TWICE_MAX), "{read} records in one call");
        Local { tree: self.tree.as_ref(), records: self }
    }

    fn get(&self, token: Token) -> Option<Digest> {
        self.keys.binary_search_by_key(&token, |key| key.0).ok().map(|at| self.keys[at].1)
    }

    fn merge(&mut self, token: Token, digest: Digest) {
        let tree = self.tree.as_mut().unwrap();
        match self.keys.binary_search_by_key(&token, |key| key.0) {
            Ok(at) if self.keys[at].1.0 >= digest.0 => {}
            Ok(at) => {
                tree.update(token, Some(self.keys[at].1), Some(digest));
                self.keys[at].1 = digest;
            }
            Err(at) => {
                tree.update(token, None, Some(digest));
                self.keys.insert(at, (token, digest));
            }
        }
    }
}

enum Event {
    ToInitiator(Reply),
    ToResponder(Request),
    InitiatorRepaired(Vec<Difference>),
    ResponderRepaired(Vec<Token>),
    Write { at_initiator: bool, token: Token, digest: Digest },
}

/// A bad day, repeatable by its seed. Chances are out of 256.
#[derive(Clone, Copy, Default, Debug)]
struct Weather {
    seed: u64,
    lost: u64,
    twice: u64,
    /// A message takes 1 ms, and up to so much more.
    delay: u64,
}

struct Run {
    now: Micros,
    weather: Weather,
    initiator: Option<Initiator>,
    responder: Option<Responder>,
    mine: Side,
    theirs: Side,
    events: BTreeMap<(Micros, u64), Event>,
    count: u64,
    found: Vec<Difference>,
    report: Option<Report>,
    responder_ended: bool,
}

impl Run {
    fn new(mine: &Side, theirs: &Side, weather: Weather) -> Run {
        Run::with_peer_bits(mine, theirs, weather, theirs.tree.as_ref().map_or(Bits::MAX, Tree::bits))
    }

    fn with_peer_bits(mine: &Side, theirs: &Side, weather: Weather, peer_bits: Bits) -> Run {
        let (mine, theirs) = (mine.clone(), theirs.clone());
        let exchange = ExchangeId(mix(weather.seed));
        let now = Micros::seconds(1_000);
        let initiator = Initiator::start(now, Settings::default(), exchange, partition(), peer_bits, mine.local());
        Run {
            now,
            weather,
            initiator,
            responder: None,
            mine,
            theirs,
            events: BTreeMap::new(),
            count: 0,
            found: Vec::new(),
            report: None,
            responder_ended: false,
        }
    }

    fn random(&mut self) -> u64 {
        self.count += 1;
        mix(self.weather.seed ^ self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn at(&mut self, after: u64, event: Event) {
        self.count += 1;
        self.events.insert((Micros(self.now.0 + after), self.count), event);
    }

    fn write(&mut self, after: u64, flight: u64, at_initiator: bool, token: Token, digest: Digest) {
        let write = |at_initiator| Event::Write { at_initiator, token, digest };
        self.at(after, write(at_initiator));
        self.at(after + flight, write(!at_initiator));
    }

    fn send(&mut self, event: impl Fn() -> Event) {
        let copies = match self.random() % 256 {
            chance if chance < self.weather.lost => 0,
            chance if chance < self.weather.lost + self.weather.twice => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = self.random() % (self.weather.delay + 1);
            self.at(1_000 + late, event());
        }
    }

    /// Carries out what the machines say.
    fn drain(&mut self) {
        while let Some(output) = self.initiator.as_mut().and_then(Initiator::poll_output) {
            match output {
                InitiatorOutput::Send(request) => self.send(|| Event::ToResponder(request.clone())),
                InitiatorOutput::Repair(differences) => {
                    assert!((1..=1000).contains(&differences.len()));
                    self.found.extend(&differences);
                    self.at(5_000, Event::InitiatorRepaired(differences));
                }
                InitiatorOutput::Ended(report) => {
                    assert!(self.initiator.as_ref().unwrap().poll_timeout().is_none());
                    self.report = Some(report);
                }
            }
        }
        while let Some(output) = self.responder.as_mut().and_then(Responder::poll_output) {
            match output {
                ResponderOutput::Send(reply) => self.send(|| Event::ToInitiator(reply.clone())),
                ResponderOutput::Repair(tokens) => self.at(7_000, Event::ResponderRepaired(tokens)),
                ResponderOutput::Ended => {
                    self.responder_ended = true;
                    self.responder = None;
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::ToInitiator(reply) => {
                let reply = through_the_wire(&reply);
                self.initiator.as_mut().unwrap().handle_reply(now, self.mine.local(), reply);
            }
            Event::ToResponder(request) => {
                let request = through_the_wire(&request);
                match &mut self.responder {
                    Some(responder) => responder.handle_request(now, self.theirs.local(), request),
                    None if request.ask == Ask::Done => {}
                    None => match Responder::start(now, Settings::default(), self.theirs.local(), request) {
                        Ok(responder) => self.responder = Some(responder),
                        Err(refusal) => self.send(|| Event::ToInitiator(refusal.clone())),
                    },
                }
            }
            Event::InitiatorRepaired(differences) => {
                for difference in differences {
                    if difference.holder != Holder::Peer {
                        self.theirs.merge(difference.token, self.mine.get(difference.token).unwrap());
                    }
                }
                self.initiator.as_mut().unwrap().resume(now, self.mine.local());
            }
            Event::ResponderRepaired(tokens) => {
                for token in tokens {
                    self.mine.merge(token, self.theirs.get(token).unwrap());
                }
                if let Some(responder) = &mut self.responder {
                    responder.resume(now);
                }
            }
            Event::Write { at_initiator, token, digest } => {
                let side = if at_initiator { &mut self.mine } else { &mut self.theirs };
                side.merge(token, digest);
            }
        }
    }

    /// Until nothing is left to happen.
    fn run(mut self) -> Run {
        for _ in 0..100_000 {
            self.drain();
            let event = self.events.keys().next().map(|key| key.0);
            let timeouts = [
                self.initiator.as_ref().and_then(Initiator::poll_timeout),
                self.responder.as_ref().and_then(Responder::poll_timeout),
            ];
            let timeout = timeouts.into_iter().flatten().min();
            let Some(next) = event.into_iter().chain(timeout).min() else {
                return self;
            };
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, event) = self.events.pop_first().unwrap();
                self.handle(event);
            } else {
                self.initiator.as_mut().unwrap().handle_timeout(self.now, self.mine.local());
                if let Some(responder) = &mut self.responder {
                    responder.handle_timeout(self.now);
                }
            }
        }
        panic!("it never ends");
    }

    fn report(&self) -> Report {
        self.report.expect("an exchange reports when it ends")
    }
}

fn through_the_wire<M: serde::Serialize + serde::de::DeserializeOwned>(message: &M) -> M {
    postcard::from_bytes(&postcard::to_stdvec(message).unwrap()).unwrap()
}

fn map() -> LeafMap {
    LeafMap::new(Partitions::new(256).unwrap(), ArcIndex(77))
}

fn partition() -> PartitionId {
    PartitionId { n: 3, arc: ArcIndex(77) }
}

fn mix(number: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes())
}

fn token(number: u64) -> Token {
    Token(77 << 56 | mix(number) >> 8)
}

fn digest(number: u64) -> Digest {
    Digest(xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes()))
}

/// So many keys that both sides hold, and what differs: missing on either side, or another digest, in turn.
fn sides(keys: u64, differences: u64) -> (Side, Side, BTreeSet<Difference>) {
    sides_of(&in_order(keys), differences)
}

/// The first so many keys in the order of their tokens, which says nothing of their numbers.
fn in_order(keys: u64) -> Vec<(Token, u64)> {
    let mut keys: Vec<_> = (0..keys).map(|number| (token(number), number)).collect();
    keys.sort_unstable();
    keys
}

fn sides_of(keys: &[(Token, u64)], differences: u64) -> (Side, Side, BTreeSet<Difference>) {
    let (mut mine, mut theirs, mut differ) = (Vec::new(), Vec::new(), BTreeSet::new());
    for &(token, number) in keys {
        let holder = match (number < differences, number % 3) {
            (false, _) => None,
            (true, 0) => Some(Holder::Both),
            (true, 1) => Some(Holder::Me),
            (true, _) => Some(Holder::Peer),
        };
        if holder != Some(Holder::Peer) {
            mine.push((token, digest(number)));
        }
        match holder {
            Some(Holder::Me) => {}
            Some(Holder::Both) => theirs.push((token, digest(!number))),
            _ => theirs.push((token, digest(number))),
        }
        differ.extend(holder.map(|holder| Difference { token, holder }));
    }
    let side = |keys: Vec<(Token, Digest)>| {
        let bits = Bits::for_keys(keys.len() as u64);
        Side::new(keys, bits)
    };
    (side(mine), side(theirs), differ)
}

fn assert_complete(run: &Run, expected: &BTreeSet<Difference>) {
    assert_eq!(run.report().outcome, Outcome::Complete);
    assert_eq!(run.found.iter().copied().collect::<BTreeSet<_>>(), *expected);
    assert_eq!(run.found.len(), expected.len(), "each once");
    assert_eq!(run.report().keys_differing, expected.len() as u64);
    assert!(run.mine.keys == run.theirs.keys, "repaired");
    assert!(run.responder_ended);
}

fn weather() -> impl Strategy<Value = Weather> {
    (any::<u64>(), 0..40_u64, 0..100_u64, 0..3_000_000_u64).prop_map(|(seed, lost, twice, delay)| Weather {
        seed,
        lost,
        twice,
        delay,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_exchange_finds_exactly_the_keys_that_differ(
        keys in 0..6_000_u64,
        some in 0..200_u64,
        all in any::<bool>(),
        bits in (6..=14_u8, 6..=14_u8),
        seed in any::<u64>(),
    ) {
        let differences = if all { keys } else { some.min(keys) };
        let (mine, theirs, expected) = sides(keys, differences);
        let sized = |side: Side, bits| Side::new(side.keys, Bits::new(bits).unwrap());
        let (mine, theirs) = (sized(mine, bits.0), sized(theirs, bits.1));
        let run = Run::new(&mine, &theirs, Weather { seed, ..Weather::default() }).run();
        assert_complete(&run, &expected);
    }

    #[test]
    fn messages_that_come_twice_or_out_of_order_change_nothing(seed in any::<u64>(), differences in 1..1_500_u64) {
        let (mine, theirs, expected) = sides(3_000, differences);
        let run = Run::new(&mine, &theirs, Weather { seed, lost: 0, twice: 200, delay: 900_000 }).run();
        assert_complete(&run, &expected);
    }

    #[test]
    fn a_bad_network_finds_no_wrong_key_and_ends(weather in weather(), differences in 0..1_500_u64) {
        let (mine, theirs, expected) = sides(3_000, differences);
        let run = Run::new(&mine, &theirs, weather).run();
        prop_assert!(run.found.iter().all(|difference| expected.contains(difference)));
        match run.report().outcome {
            Outcome::Complete => prop_assert_eq!(run.found.len(), expected.len()),
            Outcome::TimedOut | Outcome::Refused(Refused::NoSuchExchange) => {}
            other => prop_assert!(false, "{:?}", other),
        }
        // The next exchange on a good day finishes the work.
        let rest = Run::new(&run.mine, &run.theirs, Weather { seed: !weather.seed, ..Weather::default() }).run();
        prop_assert_eq!(rest.report().outcome, Outcome::Complete);
        prop_assert!(rest.mine.keys == rest.theirs.keys);
    }

    #[test]
    fn writes_in_flight_while_trees_are_compared_are_not_taken_for_differences(
        seed in any::<u64>(),
        differences in 0..300_u64,
    ) {
        let (mut mine, mut theirs, expected) = sides(3_000, differences);
        let written = |number: u64| (token(2_000 + number * 5), Digest(u128::MAX - u128::from(number)));
        // Half of them have reached one side at the start, and the other only after the trees were compared.
        for number in 0..100 {
            let (key, digest) = written(number);
            let side = if number % 2 == 0 { &mut mine } else { &mut theirs };
            side.merge(key, digest);
        }
        let mut run = Run::new(&mine, &theirs, Weather { seed, ..Weather::default() });
        for number in 0..200 {
            let (key, digest) = written(number);
            let (after, flight) = match number {
                0..100 => (0, 100_000 + run.random() % 800_000),
                _ => (run.random() % 5_000, run.random() % 800_000),
            };
            run.write(after, flight, number % 2 == 0, key, digest);
        }
        let run = run.run();
        prop_assert!(run.report().leaves > 50, "they did look different");
        prop_assert_eq!(run.found.iter().copied().collect::<BTreeSet<_>>(), expected);
        prop_assert!(run.mine.keys == run.theirs.keys);
    }

    #[test]
    fn writes_at_any_time_hide_no_difference(seed in any::<u64>(), differences in 0..1_500_u64) {
        let (mine, theirs, expected) = sides(3_000, differences);
        let mut run = Run::new(&mine, &theirs, Weather { seed, ..Weather::default() });
        let mut written = BTreeSet::new();
        for number in 0..300 {
            // Keys that exist, and new ones.
            let key = token(2_500 + number * 4);
            let (after, flight) = (run.random() % 2_000_000, run.random() % 800_000);
            run.write(after, flight, number % 2 == 0, key, Digest(u128::MAX - u128::from(number)));
            written.insert(key);
        }
        let run = run.run();
        prop_assert_eq!(run.report().outcome, Outcome::Complete);
        let found: BTreeSet<Difference> = run.found.iter().copied().collect();
        prop_assert!(expected.is_subset(&found));
        prop_assert!(found.difference(&expected).all(|extra| written.contains(&extra.token)));
        prop_assert!(run.mine.keys == run.theirs.keys);
    }
}

#[test]
fn an_empty_replica_is_filled_a_thousand_keys_at_a_time() {
    let (mine, _, _) = sides(20_000, 0);
    let empty = Side::new(Vec::new(), Bits::MIN);
    let holds = |holder| mine.keys.iter().map(|key| Difference { token: key.0, holder }).collect();
    assert_complete(&Run::new(&mine, &empty, Weather::default()).run(), &holds(Holder::Me));
    assert_complete(&Run::new(&empty, &mine, Weather::default()).run(), &holds(Holder::Peer));
}

#[test]
fn a_leaf_of_more_keys_than_a_message_is_listed_in_parts() {
    // All in one leaf, on both sides, with differences everywhere in it.
    let key = |number: u64| (Token(77 << 56 | number << 20), digest(number));
    let mine: Vec<_> = (0..12_000).filter(|number| number % 7 != 0).map(key).collect();
    let theirs: Vec<_> = (0..12_000).filter(|number| number % 5 != 0).map(key).collect();
    let expected = (0..12_000_u64).filter_map(|number| {
        let holder = match (number % 7 == 0, number % 5 == 0) {
            (true, false) => Holder::Peer,
            (false, true) => Holder::Me,
            _ => return None,
        };
        Some(Difference { token: key(number).0, holder })
    });
    let expected: BTreeSet<Difference> = expected.collect();
    let run = Run::new(&Side::new(mine, Bits::MIN), &Side::new(theirs, Bits::MIN), Weather::default()).run();
    assert_eq!(run.report().leaves, 1);
    assert_complete(&run, &expected);
}

#[test]
fn a_leaf_that_only_one_side_has_filled_is_listed_in_parts() {
    let crowded = |number: u64| (Token(77 << 56 | number << 20), digest(number));
    let full = Side::new((0..15_000).map(crowded).collect(), Bits::MIN);
    let empty = Side::new(Vec::new(), Bits::MIN);
    let holds = |holder| {
        let tokens = full.keys.iter().map(|key| key.0);
        tokens.map(|token| Difference { token, holder }).collect()
    };
    assert_complete(&Run::new(&full, &empty, Weather::default()).run(), &holds(Holder::Me));
    assert_complete(&Run::new(&empty, &full, Weather::default()).run(), &holds(Holder::Peer));
}

/// Records of which three are as much as a call may read, whatever their digests take on the wire.
#[test]
fn what_is_too_much_to_read_at_once_is_listed_a_few_keys_at_a_time() {
    for (mine_step, theirs_step) in [(3, usize::MAX), (usize::MAX, 3), (3, 3), (1, 1)] {
        let key = |number: u64| (Token(77 << 56 | (number % 3) << 54 | number << 20), digest(number));
        let keys = |missing: u64| {
            let mut keys: Vec<_> = (0..200).filter(|number| number % missing != 0).map(key).collect();
            keys.sort_unstable_by_key(|key| key.0);
            keys
        };
        let expected = (0..200_u64).filter_map(|number| {
            let holder = match (number % 7 == 0, number % 5 == 0) {
                (true, false) => Holder::Peer,
                (false, true) => Holder::Me,
                _ => return None,
            };
            Some(Difference { token: key(number).0, holder })
        });
        let mine = Side { step: mine_step, ..Side::new(keys(7), Bits::MIN) };
        let theirs = Side { step: theirs_step, ..Side::new(keys(5), Bits::MIN) };
        assert_complete(&Run::new(&mine, &theirs, Weather::default()).run(), &expected.collect());
    }
}

#[test]
fn a_difference_among_keys_that_share_a_token_is_found() {
    let shared = token(1);
    let (a, b, c) = ((shared, Digest(1)), (shared, Digest(2)), (token(2), Digest(4)));
    let side = |mut keys: Vec<(Token, Digest)>| {
        keys.sort_unstable_by_key(|key| key.0);
        Side::new(keys, Bits::MIN)
    };
    let mut run = Run::new(&side(vec![a, b, c]), &side(vec![a, c]), Weather::default());
    run.mine.keys.sort_unstable_by_key(|key| (key.0, key.1.0));
    while run.found.is_empty() {
        run.drain();
        match run.events.pop_first() {
            Some(((now, _), event)) => {
                run.now = now;
                run.handle(event);
            }
            None => {
                run.now = Micros(run.now.0 + 1_000_000);
                run.initiator.as_mut().unwrap().handle_timeout(run.now, run.mine.local());
            }
        }
    }
    assert_eq!(run.found, [Difference { token: shared, holder: Holder::Both }]);
}

#[test]
fn a_peer_whose_tree_shrank_is_compared_at_its_size() {
    let (mine, theirs, expected) = sides(5_000, 20);
    let theirs = Side::new(theirs.keys, Bits::new(6).unwrap());
    let run = Run::with_peer_bits(&mine, &theirs, Weather::default(), Bits::MAX).run();
    assert_complete(&run, &expected);
}

#[test]
fn a_side_without_a_tree_says_so() {
    let (mine, mut theirs, _) = sides(100, 1);
    theirs.tree = None;
    let run = Run::new(&mine, &theirs, Weather::default()).run();
    assert_eq!(run.report().outcome, Outcome::Refused(Refused::Rebuilding));
    let start = Initiator::start(Micros(0), Settings::default(), ExchangeId(1), partition(), Bits::MIN, theirs.local());
    assert!(start.is_none());
}

#[test]
fn a_peer_that_vanishes_ends_both_sides() {
    let (mine, theirs, _) = sides(1_000, 10);
    // Each message in turn is the last one that arrives; the seventh is the first that may be lost without harm.
    for last in 0..6 {
        let mut run = Run::new(&mine, &theirs, Weather::default());
        let mut delivered = 0;
        for _ in 0..100 {
            run.drain();
            match run.events.pop_first() {
                Some((_, Event::ToInitiator(_) | Event::ToResponder(_))) if delivered >= last => {}
                Some(((now, _), event)) => {
                    delivered += u32::from(matches!(event, Event::ToInitiator(_) | Event::ToResponder(_)));
                    run.now = now;
                    run.handle(event);
                }
                None => {
                    let timeouts = [
                        run.initiator.as_ref().and_then(Initiator::poll_timeout),
                        run.responder.as_ref().and_then(Responder::poll_timeout),
                    ];
                    let Some(next) = timeouts.into_iter().flatten().min() else {
                        break;
                    };
                    run.now = next;
                    run.initiator.as_mut().unwrap().handle_timeout(next, run.mine.local());
                    if let Some(responder) = &mut run.responder {
                        responder.handle_timeout(next);
                    }
                }
            }
        }
        run.drain();
        assert_eq!(run.report().outcome, Outcome::TimedOut, "after {last} messages");
        assert!(run.responder.is_none(), "after {last} messages");
    }
}

#[test]
fn who_gives_up_waiting_tells_the_responder() {
    let (mine, _, _) = sides(1_000, 10);
    let start = |now| Initiator::start(now, Settings::default(), ExchangeId(1), partition(), Bits::MIN, mine.local());
    let mut initiator = start(Micros(0)).unwrap();
    let Some(InitiatorOutput::Send(first)) = initiator.poll_output() else { panic!("it asks") };
    let deadline = initiator.poll_timeout().unwrap();
    initiator.handle_timeout(deadline, mine.local());
    let Some(InitiatorOutput::Send(last)) = initiator.poll_output() else { panic!("it says so") };
    assert_eq!((last.ask, last.step), (Ask::Over, first.step + 1));
    assert!(matches!(initiator.poll_output(), Some(InitiatorOutput::Ended(Report { outcome: Outcome::TimedOut, .. }))));
    assert_eq!(initiator.give_up(), None, "it is over already");
    let mut other = start(deadline).unwrap();
    assert!(other.give_up().is_some_and(|request| request.ask == Ask::Over));
    assert_eq!(other.poll_timeout(), None);
}

/// Bytes and round trips of finding differences among a million keys, repairs held to be instant, sums included.
fn cost(keys: &[(Token, u64)], differences: u64) -> (u64, u32) {
    let (mine, theirs, expected) = sides_of(keys, differences);
    assert_eq!(mine.tree.as_ref().unwrap().bits().get(), 16);
    let line = crate::Line::of(partition(), mine.tree.as_ref().unwrap());
    let sums = crate::Sums::of(map().partitions(), &[line]).next().unwrap();
    let unequal = sums.answer(map().partitions(), |_| crate::Held::Tree(theirs.tree.as_ref().unwrap()));
    let round = (sums.encoded_len() + unequal.encoded_len()) as u64;
    if unequal.partitions.is_empty() {
        return (round, 1);
    }
    let run = Run::new(&mine, &theirs, Weather::default()).run();
    assert_complete(&run, &expected);
    let report = run.report();
    (round + report.bytes_sent + report.bytes_received, 1 + report.round_trips)
}

#[test]
fn differences_among_a_million_keys_cost_what_was_promised() {
    let promised = [(0, 40, 1), (1, 1_100, 5), (100, 60_000, 5), (10_000, 3_000_000, 80)];
    let keys = in_order(1_000_000);
    for (differences, bytes_max, round_trips_max) in promised {
        let (bytes, round_trips) = cost(&keys, differences);
        assert!(
            bytes <= bytes_max && round_trips <= round_trips_max,
            "{differences} differences: {bytes} bytes, {round_trips} round trips"
        );
    }
}

/// Starts an exchange, and answers its request with what `answer` makes of it.
fn answered(answer: impl Fn(&Request) -> Answer) -> Outcome {
    let (mine, ..) = sides(1_000, 0);
    let local = mine.local();
    let now = Micros(0);
    let mut initiator =
        Initiator::start(now, Settings::default(), ExchangeId(1), partition(), Bits::MAX, local).unwrap();
    for second in 0..1_000 {
        match initiator.poll_output() {
            Some(InitiatorOutput::Send(request)) => {
                let reply = Reply { exchange: request.exchange, step: request.step, answer: answer(&request) };
                initiator.handle_reply(now, local, reply);
            }
            Some(InitiatorOutput::Repair(_)) => initiator.resume(now, local),
            Some(InitiatorOutput::Ended(report)) => return report.outcome,
            None => initiator.handle_timeout(Micros::seconds(second), local),
        }
    }
    panic!("it never ends");
}

#[test]
fn a_responder_that_answers_nonsense_is_left() {
    use crate::message::Compared;
    use crate::wire::Fingerprint;

    let compared = |deeper, rest: Vec<u64>| Answer::Compared(Compared { deeper, rest: Rising::new(rest) });
    let nodes = |layer, down, parent| {
        let fingerprints = (0..1_u64 << down).map(Fingerprint).collect();
        Some(Nodes::new(layer, down, &[parent], fingerprints))
    };
    assert_eq!(answered(|_| Answer::Noted), Outcome::Misbehaved);
    assert_eq!(answered(|_| compared(None, vec![u64::MAX])), Outcome::Misbehaved, "no such node");
    assert_eq!(answered(|_| compared(None, vec![16])), Outcome::Misbehaved, "not asked about");
    assert_eq!(answered(|_| compared(nodes(5, 2, 1), vec![])), Outcome::Misbehaved, "another layer");
    assert_eq!(answered(|_| compared(nodes(3, 4, 1), vec![])), Outcome::Misbehaved, "below the leaves");
    assert_eq!(answered(|_| compared(nodes(3, 3, 1), vec![1])), Outcome::Misbehaved, "the same twice");
    // Everything differs, always, and nothing is ever listed to its end.
    let endless = |request: &Request| match &request.ask {
        Ask::Start(start) => compared(None, start.nodes.nodes().map(|node| node.0.into()).collect()),
        Ask::Compare(nodes) => compared(None, nodes.nodes().map(|node| node.0.into()).collect()),
        Ask::List(list) => {
            let first = list.leaves().next().unwrap().0;
            let leaf = Leaf::new(first, request.exchange, &[]);
            Answer::Listed(Listing::new(vec![leaf], map().tokens().first))
        }
        _ => Answer::Noted,
    };
    assert_eq!(answered(endless), Outcome::Misbehaved);
    // Coarser, and coarser, and then not any more.
    assert_eq!(
        answered(|_| Answer::Refused(Refused::Coarser(Bits::MIN))),
        Outcome::Refused(Refused::Coarser(Bits::MIN))
    );
}

#[test]
fn an_initiator_that_asks_nonsense_is_refused() {
    let (mine, ..) = sides(1_000, 0);
    let other = |change: fn(&mut crate::message::Start)| {
        let initiator =
            Initiator::start(Micros(0), Settings::default(), ExchangeId(1), partition(), Bits::MAX, mine.local());
        let Some(InitiatorOutput::Send(mut request)) = initiator.unwrap().poll_output() else { panic!("it asks") };
        let Ask::Start(start) = &mut request.ask else { panic!("it starts") };
        change(start);
        let answer = match Responder::start(Micros(0), Settings::default(), mine.local(), request) {
            Err(refusal) => refusal.answer,
            Ok(mut responder) => match responder.poll_output() {
                Some(ResponderOutput::Send(reply)) => reply.answer,
                other => panic!("{other:?}"),
            },
        };
        match answer {
            Answer::Refused(reason) => Some(reason),
            _ => None,
        }
    };
    let bits = Bits::for_keys(1_000);
    assert_eq!(other(|_| {}), None);
    assert_eq!(other(|start| start.format = 2), Some(Refused::OtherFormat));
    assert_eq!(other(|start| start.partition.arc = ArcIndex(78)), Some(Refused::NotOwner));
    assert_eq!(other(|start| start.partitions = Partitions::new(512).unwrap()), Some(Refused::NotOwner));
    assert_eq!(other(|start| start.bits = Bits::MAX), Some(Refused::Coarser(bits)));
    let deep = |start: &mut crate::message::Start| start.nodes = Nodes::new(17, 1, &[0], vec![Fingerprint(0); 2]);
    assert_eq!(other(deep), Some(Refused::Malformed));

    let start = |ask| {
        let (exchange, step) = (ExchangeId(1), 1);
        let request = Request { exchange, step, ask };
        Responder::start(Micros(0), Settings::default(), mine.local(), request).map(|_| ()).unwrap_err().answer
    };
    assert_eq!(start(Ask::Differ(Rising::new([1]))), Answer::Refused(Refused::NoSuchExchange));
}

#[test]
fn small_steps_for_few_differences_and_large_ones_for_many() {
    assert_eq!(step_down(16, 0, 1), 4);
    assert_eq!(step_down(16, 4, 1), 4);
    assert_eq!(step_down(16, 4, 16), 6, "every node differs");
    assert_eq!(step_down(16, 10, 90), 3, "6 layers left: two steps of 3 rather than 4 and 2");
    assert_eq!(step_down(6, 0, 1), 3);
    assert_eq!(step_down(18, 17, 1), 1);
}

/// What a call reads beyond its share: the record at which it stops, and once more the one that it goes on by.
const READ_TWICE_MAX: usize = 2;
