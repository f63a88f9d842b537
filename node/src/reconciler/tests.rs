//! Two machines that face each other, with replicas that are lists of keys.

use std::sync::Arc;

use bytes::Bytes;
use driftless_antientropy::{Bits, Digest, LeafMap, Records, Tree, Unreadable};
use driftless_proto::{
    ActorId, BucketDefinition, BucketId, Dot, Hlc, Key, Siblings, Topology, Version, VersionVector, WriteId,
};
use driftless_ring::{ArcIndex, Token, TokenRange};
use driftless_testkit::TopologyBuilder;

use super::*;
use crate::config::{AaeLimits, Limits};
use crate::configurations::Configurations;
use crate::peer::{Merge, ReplicaRequest};
use crate::planted::Planted;

/// What a replica holds, by token.
struct Held {
    trees: BTreeMap<PartitionId, Tree>,
    states: BTreeMap<(u8, Token), KeyState>,
    /// A record that cannot be read.
    damaged: Option<Token>,
    /// It is known that something cannot be read.
    is_damaged: bool,
}

/// One side: a shard, its machine, and what it holds.
struct Side {
    shard: Shard,
    reconciler: Reconciler,
    held: Held,
    /// To whom this shard is delivering hints.
    recipients: Vec<NodeId>,
    failures: Vec<RecordError>,
    merges: usize,
}

/// Both sides, and their clock.
struct Pair {
    sides: [Side; 2],
    now: Now,
    loses_merges: bool,
    /// So many merges are refused for want of room.
    refuses: usize,
}

impl Held {
    /// The trees of a node that owns these, and holds nothing.
    fn no_keys(topology: &Topology, node: NodeId) -> BTreeMap<PartitionId, Tree> {
        let tree = |partition: PartitionId| {
            (partition, Tree::new(LeafMap::new(topology.ring().partitions(), partition.arc), Bits::MIN))
        };
        topology.ring().owned(node).map(tree).collect()
    }

    fn put(&mut self, topology: &Topology, (bucket, key, siblings): KeyState) {
        let place = topology.place(topology.bucket(bucket).expect("it exists"), &key);
        let before = self.states.get(&(place.partition.n, place.token));
        let before = before.map(|(_, _, siblings)| Digest::of(bucket, &key, &siblings.header()));
        let after = Digest::of(bucket, &key, &siblings.header());
        if let Some(tree) = self.trees.get_mut(&place.partition) {
            tree.update(place.token, before, Some(after));
        }
        self.states.insert((place.partition.n, place.token), (bucket, key, siblings));
    }
}

impl Records for Held {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> std::ops::ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        for ((_, token), (bucket, key, siblings)) in &self.states {
            if tokens.contains(*token) && visit(*token, Digest::of(*bucket, key, &siblings.header())).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Holdings for Held {
    fn is_damaged(&self, _: &Shard, _: PartitionId) -> bool {
        self.is_damaged
    }

    fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.trees.keys().copied()
    }

    fn tree(&self, partition: PartitionId) -> driftless_antientropy::Held<'_> {
        self.trees.get(&partition).map_or(driftless_antientropy::Held::Nothing, driftless_antientropy::Held::Tree)
    }

    fn with_records<T>(&self, _: &Shard, _: u8, show: impl FnOnce(&dyn Records) -> T) -> (T, Vec<RecordError>) {
        (show(self), Vec::new())
    }

    fn states_at(&self, n: u8, token: Token) -> Result<Vec<KeyState>, RecordError> {
        if self.damaged == Some(token) {
            return Err(RecordError::Damaged { record: Bytes::new(), reason: "a bit flipped".to_owned() });
        }
        Ok(self.states.get(&(n, token)).cloned().into_iter().collect())
    }

    fn bytes_read(&self) -> usize {
        0
    }
}

impl Side {
    fn new(name: &str, topology: &Arc<Topology>, now: Now) -> Side {
        let aae = AaeLimits { interval: Duration::from_secs(2), confirm: Duration::ZERO, ..AaeLimits::default() };
        let limits = Limits { aae, ..Limits::default() };
        let node = NodeId::of_name(name);
        let trees = Held::no_keys(topology, node);
        let held = Held { trees, states: BTreeMap::new(), damaged: None, is_damaged: false };
        let shard = Shard {
            node,
            number: 0,
            configurations: Arc::new(Configurations::of_file(topology.clone())),
            topology: topology.clone(),
            limits,
            metrics: Arc::default(),
            planted: Planted::default(),
        };
        let reconciler = Reconciler::new(&shard, &held, now, StdRng::seed_from_u64(node.0));
        Side { shard, reconciler, held, recipients: Vec::new(), failures: Vec::new(), merges: 0 }
    }

    fn call<T>(&mut self, now: Now, call: impl FnOnce(&mut Reconciler, &View<'_, Held>) -> T) -> T {
        let shard = &self.shard;
        let view = View { shard, now, holdings: &self.held, pressed: false, recipients: self.recipients.clone() };
        call(&mut self.reconciler, &view)
    }

    fn merge(&mut self, merge: Merge) -> Reply {
        let topology = self.shard.topology.clone();
        let place = topology.place(topology.bucket(merge.bucket).expect("it exists"), &merge.key);
        let mut siblings = merge.siblings;
        if let Some((_, _, mine)) = self.held.states.get(&(place.partition.n, place.token)) {
            siblings.merge(mine);
        }
        self.held.put(&topology, (merge.bucket, merge.key, siblings));
        self.merges += 1;
        Reply::Acked
    }
}

impl Pair {
    fn new() -> Pair {
        let bucket = BucketDefinition::built_in(2);
        let topology = TopologyBuilder::of(["a", "b"]).bucket(bucket).shared();
        let now = Now { instant: Instant(1_000_000), wall: Hlc(9) };
        let mut pair = Pair {
            sides: ["a", "b"].map(|name| Side::new(name, &topology, now)),
            now,
            loses_merges: false,
            refuses: 0,
        };
        for i in 0..2 {
            let peer = pair.id(1 - i);
            pair.sides[i].reconciler.handle_peer_up(now, peer);
        }
        pair
    }

    fn id(&self, i: usize) -> NodeId {
        self.sides[i].shard.node
    }

    /// The side that begins rounds.
    fn begins(&self) -> usize {
        usize::from(self.id(1) < self.id(0))
    }

    /// One side has these keys, each written once.
    fn hold(&mut self, i: usize, keys: impl IntoIterator<Item = u64>) {
        let topology = self.sides[i].shard.topology.clone();
        for number in keys {
            let mut siblings = Siblings::new();
            let value = Some(Bytes::from(number.to_string()));
            let version = Version { value, write_id: WriteId(number.into()), written_at: Hlc(9) };
            siblings.event(&VersionVector::new(), Dot::new(ActorId(1), number + 1), version);
            let key = Key::new(number.to_be_bytes().to_vec()).expect("valid");
            self.sides[i].held.put(&topology, (BucketId::DEFAULT, key, siblings));
        }
    }

    /// Carries messages until nobody says anything.
    fn carry(&mut self) {
        let now = self.now;
        loop {
            let mut is_quiet = true;
            for i in 0..2 {
                let (from, other) = (self.id(i), 1 - i);
                while let Some(output) = self.sides[i].reconciler.poll_output() {
                    is_quiet = false;
                    match output {
                        Output::Send { id, request: Request::Exchange(exchange), .. } => {
                            let side = &mut self.sides[other];
                            side.call(now, |machine, view| {
                                machine.handle_request(view, from, id, exchange);
                            });
                        }
                        Output::Send { request: Request::Replica(ReplicaRequest::Merge(_)), .. }
                            if self.loses_merges => {}
                        Output::Send { id, request: Request::Replica(ReplicaRequest::Merge(merge)), .. } => {
                            let reply = match self.refuses.checked_sub(1) {
                                Some(left) => {
                                    self.refuses = left;
                                    Reply::Refused(Refusal::Overloaded { retry_after_ms: 50 })
                                }
                                None => self.sides[other].merge(merge),
                            };
                            let to = self.id(other);
                            self.sides[i].call(now, |machine, view| {
                                machine.handle_reply(view, to, id, reply);
                            });
                        }
                        Output::Send { request, .. } => panic!("nothing else is asked: {request:?}"),
                        Output::Reply { id, reply, .. } => {
                            self.sides[other].call(now, |machine, view| {
                                machine.handle_reply(view, from, id, reply);
                            });
                        }
                        Output::Failed(error) => self.sides[i].failures.push(error),
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Lets time pass, as the machines ask for it.
    fn pass(&mut self, time: Duration) {
        let until = self.now.instant + time;
        loop {
            self.carry();
            let due = self.sides.iter().filter_map(|side| side.reconciler.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now.instant = self.now.instant.max(due);
            let now = self.now;
            for side in &mut self.sides {
                side.reconciler.begin_turn();
                side.call(now, |machine, view| machine.handle_timeout(view));
            }
        }
        self.now.instant = until;
    }

    /// Partitions are doubled, and both sides know and have numbered theirs anew.
    fn double(&mut self) {
        let (before, now) = (self.sides[0].shard.topology.clone(), self.now);
        let ring = before.ring().doubled().expect("there may be more");
        let topology = Arc::new(before.with_ring(ring).expect("fits"));
        for side in &mut self.sides {
            side.shard.topology = topology.clone();
            side.shard.configurations = Arc::new(Configurations::of_file(topology.clone()));
            side.held.trees = Held::no_keys(&topology, side.shard.node);
            let states = std::mem::take(&mut side.held.states);
            states.into_values().for_each(|state| side.held.put(&topology, state));
            side.call(now, |machine, view| machine.handle_configurations(view));
        }
    }

    fn tell(&mut self, i: usize, command: AaeCommand) {
        self.sides[i].call(self.now, |machine, view| machine.handle_command(view, command));
    }

    fn is_equal(&self) -> bool {
        let states = |i: usize| self.sides[i].held.states.iter().map(|(at, (.., siblings))| (at, siblings));
        states(0).eq(states(1))
    }

    fn figures(&self, i: usize) -> Figures {
        self.sides[i].reconciler.figures(self.now.instant, &self.sides[i].held)
    }
}

#[test]
fn what_either_side_lacks_is_sent_and_afterwards_nothing_is() {
    let mut pair = Pair::new();
    pair.hold(0, 0..60);
    pair.hold(1, 40..100);
    pair.pass(Duration::from_secs(10));
    assert!(pair.is_equal());
    assert_eq!([pair.sides[0].merges, pair.sides[1].merges], [40, 40], "each key that was lacking, once");
    for i in 0..2 {
        let lines = pair.figures(i).partitions;
        assert!(!lines.is_empty() && lines.iter().all(|line| line.last_full_round.is_some() && !line.unequal));
        assert!(lines.iter().map(|line| line.repaired).sum::<u64>() >= 40);
    }
    pair.pass(Duration::from_secs(60));
    assert_eq!([pair.sides[0].merges, pair.sides[1].merges], [40, 40]);
}

#[test]
fn what_a_peer_has_no_room_for_is_sent_again_in_the_same_exchange() {
    let mut pair = Pair::new();
    let (now, interval) = (pair.now, Duration::from_secs(86_400));
    let limits = AaeLimits { interval, ..AaeLimits::default() };
    pair.sides.iter_mut().for_each(|side| side.reconciler.handle_limits(now, &limits));
    pair.hold(0, 0..60);
    pair.hold(1, 40..100);
    pair.refuses = 50;
    pair.pass(Duration::from_secs(20));
    assert!(pair.is_equal(), "the next round is a day off");
    assert_eq!((pair.refuses, [pair.sides[0].merges, pair.sides[1].merges]), (0, [40, 40]));
}

#[test]
fn a_peer_that_never_has_room_keeps_an_exchange_for_some_seconds_only() {
    let mut pair = Pair::new();
    let (now, interval) = (pair.now, Duration::from_secs(86_400));
    let limits = AaeLimits { interval, ..AaeLimits::default() };
    pair.sides.iter_mut().for_each(|side| side.reconciler.handle_limits(now, &limits));
    pair.hold(pair.begins(), 0..20);
    pair.refuses = usize::MAX;
    // Eight partitions, two at a time.
    pair.pass(Duration::from_secs(120));
    let under_way = pair.sides.iter().map(|side| side.reconciler.begun.len() + side.reconciler.answering.len());
    assert_eq!(under_way.sum::<usize>(), 0, "others wait for their turn");
    let refused = usize::MAX - pair.refuses;
    assert!(refused < 20 * 10, "it is asked at longer and longer intervals: {refused} times for 20 keys");
    assert!(pair.figures(pair.begins()).partitions.iter().any(|line| line.unequal), "it is not forgotten");
}

#[test]
fn an_interval_that_becomes_shorter_counts_for_the_round_that_is_waited_for() {
    let mut pair = Pair::new();
    let [day, minute] = [86_400, 60].map(Duration::from_secs);
    let every = |pair: &mut Pair, interval: Duration| {
        let limits = AaeLimits { interval, ..AaeLimits::default() };
        let now = pair.now;
        pair.sides.iter_mut().for_each(|side| side.reconciler.handle_limits(now, &limits));
    };
    every(&mut pair, day);
    pair.pass(minute);
    pair.hold(0, 0..20);
    pair.pass(minute * 10);
    assert!(!pair.is_equal(), "the next round is a day off");
    every(&mut pair, minute);
    pair.pass(minute * 5);
    assert!(pair.is_equal(), "it is no longer");
    // As long as can be written, and nothing overflows.
    every(&mut pair, Duration::MAX);
    pair.pass(minute * 5);
}

#[test]
fn a_pause_on_either_side_leaves_everything_as_it_is_until_it_ends() {
    for paused in 0..2 {
        let mut pair = Pair::new();
        pair.hold(0, 0..20);
        let now = pair.now;
        pair.sides[paused].call(now, |machine, view| machine.handle_command(view, AaeCommand::Pause));
        pair.pass(Duration::from_secs(30));
        assert!(pair.sides[1].held.states.is_empty() && pair.figures(paused).paused);
        let now = pair.now;
        pair.sides[paused].call(now, |machine, view| machine.handle_command(view, AaeCommand::Resume));
        pair.pass(Duration::from_secs(30));
        assert!(pair.is_equal(), "side {paused} was paused");
    }
}

#[test]
fn a_peer_that_is_being_given_its_hints_is_left_to_that() {
    for delivering in 0..2 {
        let mut pair = Pair::new();
        pair.hold(delivering, 0..20);
        pair.sides[delivering].recipients = vec![pair.id(1 - delivering)];
        pair.pass(Duration::from_secs(20));
        assert_eq!(pair.sides[1 - delivering].merges, 0);
        let known = pair.figures(pair.begins());
        assert!(known.partitions.iter().any(|line| line.unequal), "it is known all the same");
        pair.sides[delivering].recipients.clear();
        pair.pass(Duration::from_secs(20));
        assert!(pair.is_equal());
    }
}

#[test]
fn a_record_that_cannot_be_read_is_reported_and_holds_up_no_other_partition() {
    let mut pair = Pair::new();
    pair.hold(0, 0..40);
    let damaged = *pair.sides[0].held.states.keys().next().expect("there are some");
    pair.sides[0].held.damaged = Some(damaged.1);
    pair.pass(Duration::from_secs(60));
    assert!(matches!(pair.sides[0].failures[..], [RecordError::Damaged { .. }, ..]));
    let ring = pair.sides[0].shard.topology.ring();
    let partition = |(n, token): &(u8, Token)| ring.partition(*n, *token);
    let elsewhere = pair.sides[0].held.states.keys().filter(|at| partition(at) != partition(&damaged));
    let lacking: Vec<_> = elsewhere.filter(|at| !pair.sides[1].held.states.contains_key(at)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    assert!(!pair.sides[1].held.states.contains_key(&damaged));
}

#[test]
fn what_was_under_way_with_a_peer_ends_when_it_is_lost_and_begins_anew_when_it_is_back() {
    let mut pair = Pair::new();
    pair.hold(0, 0..20);
    let begins = pair.begins();
    let (now, peer) = (pair.now, pair.id(1 - begins));
    // Up to where the first exchange has been asked for, and nobody answers.
    while pair.sides[begins].reconciler.begun.is_empty() {
        let due = pair.sides[begins].reconciler.poll_timeout().expect("a round is due");
        pair.now.instant = pair.now.instant.max(due);
        let now = pair.now;
        pair.sides[begins].call(now, |machine, view| machine.handle_timeout(view));
        while let Some(output) = pair.sides[begins].reconciler.poll_output() {
            if let Output::Send { id, request: Request::Exchange(exchange @ Exchange::Sums(_)), .. } = output {
                let from = pair.id(begins);
                pair.sides[1 - begins].call(now, |machine, view| {
                    machine.handle_request(view, from, id, exchange);
                });
                while let Some(Output::Reply { id, reply, .. }) = pair.sides[1 - begins].reconciler.poll_output() {
                    pair.sides[begins].call(now, |machine, view| {
                        machine.handle_reply(view, peer, id, reply);
                    });
                }
            }
        }
    }
    assert!(pair.now.instant > now.instant);
    let now = pair.now;
    pair.sides[begins].call(now, |machine, view| machine.handle_peer_lost(view, peer));
    assert!(pair.sides[begins].reconciler.begun.is_empty());
    assert!(pair.figures(begins).partitions.iter().all(|line| !line.in_progress));
    while pair.sides[begins].reconciler.poll_output().is_some() {}
    pair.sides[begins].reconciler.handle_peer_up(now, peer);
    pair.pass(Duration::from_secs(30));
    assert!(pair.is_equal());
}

fn arcs(arcs: impl IntoIterator<Item = u32>) -> BTreeSet<PartitionId> {
    arcs.into_iter().map(|arc| PartitionId { n: 2, arc: ArcIndex(arc) }).collect()
}

/// It is paused, so nothing is compared before the partitions are others.
#[test]
fn what_an_operator_wants_compared_now_is_so_in_each_half_once_partitions_are_doubled() {
    let mut pair = Pair::new();
    pair.hold(0, 0..100);
    pair.pass(Duration::from_secs(30));
    // The other side begins the usual rounds: this one compares what it is told to, and nothing else.
    let told = 1 - pair.begins();
    pair.tell(told, AaeCommand::Pause);
    pair.tell(told, AaeCommand::Run(arcs([5]).first().copied()));
    pair.double();
    pair.tell(told, AaeCommand::Resume);
    let mut compared = BTreeSet::new();
    while let Some(output) = pair.sides[told].reconciler.poll_output() {
        if let Output::Send { request: Request::Exchange(Exchange::Sums(sums)), .. } = output {
            compared.extend(sums.lines.iter().map(|line| line.partition));
        }
    }
    assert_eq!(compared, arcs([10, 11]));
}

/// Else a node that has lost its disk would be taken for one that holds half of it, and say that it is whole.
#[test]
fn what_a_side_has_lacked_it_has_lacked_in_each_half_once_partitions_are_doubled() {
    let mut pair = Pair::new();
    let topology = pair.sides[0].shard.topology.clone();
    let bucket = topology.bucket(BucketId::DEFAULT).expect("it exists");
    let arc = |number: &u64| {
        let key = Key::new(number.to_be_bytes().to_vec()).expect("valid");
        topology.place(bucket, &key).partition.arc.0
    };
    pair.hold(0, (0..400).filter(|number| arc(number) < 3));
    pair.pass(Duration::from_secs(30));
    assert!(pair.is_equal());
    assert_eq!(pair.sides[1].reconciler.lacking, arcs(0..3));
    pair.double();
    assert_eq!(pair.sides[1].reconciler.lacking, arcs(0..6));
    assert_eq!((pair.figures(0).lacking, pair.figures(1).lacking), (0, 6));
}

/// It pauses; or has lost the connection, of which the other side has one more.
#[test]
fn what_one_side_calls_off_the_other_does_not_wait_for() {
    call_off(Planted::default());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn who_forgets_an_exchange_without_a_word_is_noticed() {
    crate::planted::assert_noticed(crate::planted::Bug::ExchangeForgotten, call_off);
}

fn call_off(planted: Planted) {
    for (calls_off, pauses) in [(0, true), (1, true), (0, false), (1, false)] {
        let mut pair = Pair::new();
        pair.sides.iter_mut().for_each(|side| side.shard.planted = planted.clone());
        let answers = 1 - pair.begins();
        pair.hold(answers, 0..20);
        pair.loses_merges = true;
        let under_way = |pair: &Pair| {
            let [begun, answering] = [1 - answers, answers].map(|i| &pair.sides[i].reconciler);
            [begun.begun.len(), answering.answering.len()]
        };
        pair.pass(Duration::from_secs(3));
        assert!(under_way(&pair).iter().all(|count| *count > 0), "repairs are waited for: {:?}", under_way(&pair));
        let now = pair.now;
        let peer = pair.id(1 - calls_off);
        pair.sides[calls_off].call(now, |machine, view| match pauses {
            true => machine.handle_command(view, AaeCommand::Pause),
            false => machine.handle_peer_lost(view, peer),
        });
        pair.carry();
        assert_eq!(under_way(&pair), [0, 0], "side {calls_off} has called them off");
        pair.loses_merges = false;
        pair.sides[calls_off].call(now, |machine, view| match pauses {
            true => machine.handle_command(view, AaeCommand::Resume),
            false => machine.handle_peer_up(view.now, peer),
        });
        pair.pass(Duration::from_secs(3));
        assert!(pair.is_equal(), "side {calls_off} had called off what it did");
    }
}

#[test]
fn no_exchange_is_followed_with_a_peer_to_which_no_repair_could_be_sent() {
    let mut pair = Pair::new();
    let answers = 1 - pair.begins();
    pair.hold(answers, 0..20);
    let (now, peer) = (pair.now, pair.id(1 - answers));
    pair.sides[answers].call(now, |machine, view| machine.handle_peer_lost(view, peer));
    pair.loses_merges = true;
    pair.pass(Duration::from_secs(3));
    assert!(pair.sides[answers].reconciler.answering.is_empty());
    pair.loses_merges = false;
    pair.sides[answers].reconciler.handle_peer_up(now, peer);
    pair.pass(Duration::from_secs(3));
    assert!(pair.is_equal(), "nobody waits for what was sent in vain");
}

/// What the last words of an exchange say does not rest on what can be read.
#[test]
fn who_has_found_damage_meanwhile_keeps_no_room_for_an_exchange_that_is_called_off() {
    let mut pair = Pair::new();
    let (begins, answers) = (pair.begins(), 1 - pair.begins());
    pair.hold(answers, 0..20);
    pair.loses_merges = true;
    pair.pass(Duration::from_secs(3));
    assert!(!pair.sides[answers].reconciler.answering.is_empty());
    pair.sides[answers].held.is_damaged = true;
    let now = pair.now;
    pair.sides[begins].call(now, |machine, view| machine.handle_command(view, AaeCommand::Pause));
    pair.carry();
    assert!(pair.sides[answers].reconciler.answering.is_empty());
}
