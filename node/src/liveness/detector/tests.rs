use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::liveness::Liveness::{Alive, Down, Suspect};

/// Nodes, and a network between them that takes a millisecond and loses what it is told to.
struct Net {
    nodes: BTreeMap<NodeId, Node>,
    now: Instant,
    under_way: BTreeMap<(Instant, u64), (NodeId, NodeId, Bytes)>,
    sent: u64,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(NodeId, NodeId)>,
    loss: f64,
    rng: StdRng,
}

struct Node {
    detector: Detector,
    /// Runs; a paused one keeps what arrives.
    runs: bool,
    waiting: VecDeque<(NodeId, Bytes)>,
    /// Every change, and when.
    changes: Vec<(Instant, NodeId, Liveness)>,
    metrics: Arc<Metrics>,
}

fn id(node: u64) -> NodeId {
    NodeId(node)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A wall clock that was never set.
fn in_1970(instant: Instant) -> Now {
    Now { instant, wall: Hlc::default() }
}

fn detector(node: u64, nodes: u64, starts: u64, now: Instant) -> Node {
    let metrics = Arc::new(Metrics::default());
    let config = DetectorConfig {
        node: id(node),
        incarnation: Incarnation { starts, nonce: 0 },
        members: (1..=nodes).map(id).collect(),
        settings: DetectorSettings::default(),
        seed: [(node + 50 * starts) as u8; 32],
        metrics: metrics.clone(),
    };
    let detector = Detector::new(config, now);
    Node { detector, runs: true, waiting: VecDeque::new(), changes: Vec::new(), metrics }
}

impl Net {
    /// All have met each other.
    fn new(nodes: u64) -> Net {
        let now = Instant(7_000_000);
        let mut net = Net {
            nodes: (1..=nodes).map(|node| (id(node), detector(node, nodes, 1, now))).collect(),
            now,
            under_way: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
            loss: 0.0,
            rng: StdRng::seed_from_u64(1),
        };
        net.run(ms(3_000));
        for node in net.nodes.values_mut() {
            assert_eq!(node.changes, [], "nobody is suspected while all meet");
            assert!(node.detector.peers.values().all(|peer| peer.life.is_known()));
        }
        net
    }

    fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.get_mut(&id(node)).expect("is a node")
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.run_until(until, |_| false);
    }

    /// Goes on until something holds, which must be within this time. How long it took.
    fn wait(&mut self, at_most: Duration, holds: impl Fn(&Net) -> bool) -> Duration {
        let began = self.now;
        self.run_until(began + at_most, &holds);
        let text: Vec<String> = self.nodes.values().map(|node| format!("{:?}", node.changes)).collect();
        assert!(holds(self), "in vain, after {at_most:?}: {text:#?}");
        self.now.since(began)
    }

    fn run_until(&mut self, until: Instant, holds: impl Fn(&Net) -> bool) {
        while !holds(self) {
            self.drain();
            let timeouts = self.nodes.values().filter(|node| node.runs).map(|node| node.detector.poll_timeout());
            let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let next = timeouts.chain(arrival).min().expect("time goes on").max(self.now);
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
            while self.under_way.first_key_value().is_some_and(|((at, _), _)| *at <= next) {
                let (_, (from, to, bytes)) = self.under_way.pop_first().expect("there is one");
                self.nodes.get_mut(&to).expect("is a node").waiting.push_back((from, bytes));
            }
            for node in self.nodes.values_mut().filter(|node| node.runs) {
                node.turn(next);
            }
        }
    }

    fn drain(&mut self) {
        for (from, node) in &mut self.nodes {
            while let Some(output) = node.detector.poll_output() {
                match output {
                    Output::Changed { peer, liveness } => node.changes.push((self.now, peer, liveness)),
                    Output::Send { to, bytes } => {
                        assert!(to != *from && bytes.len() <= 1_100);
                        self.sent += 1;
                        if !self.cut.contains(&(*from, to)) && !self.rng.random_bool(self.loss) {
                            self.under_way.insert((self.now + ms(1), self.sent), (*from, to, bytes));
                        }
                    }
                }
            }
        }
    }

    fn stop(&mut self, node: u64) {
        self.node(node).runs = false;
    }

    fn resume(&mut self, node: u64) {
        self.node(node).runs = true;
    }

    /// What arrived while the process was gone never reaches the next one.
    fn restart(&mut self, node: u64, starts: u64) {
        let fresh = detector(node, self.nodes.len() as u64, starts, self.now);
        self.nodes.insert(id(node), fresh);
    }

    fn cut_between(&mut self, one: &[u64], other: &[u64]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (id(*a), id(*b)))) {
            self.cut.extend([(a, b), (b, a)]);
        }
    }

    /// Whether all nodes that run, except it, think so of a node.
    fn all_think(&self, node: u64, liveness: Liveness) -> bool {
        let others = self.nodes.iter().filter(|(other, it)| **other != id(node) && it.runs);
        others.into_iter().all(|(_, it)| it.detector.liveness(id(node)) == Some(liveness))
    }

    fn all_agree(&self) -> bool {
        (1..=self.nodes.len() as u64).all(|node| self.all_think(node, Alive))
    }

    fn violations(&self) -> u64 {
        self.nodes.values().map(|node| node.metrics.protocol_violations.get()).sum()
    }

    fn changes(&self) -> usize {
        self.nodes.values().map(|node| node.changes.len()).sum()
    }
}

impl Node {
    /// As the shell has it: what has arrived first.
    fn turn(&mut self, now: Instant) {
        while let Some((from, bytes)) = self.waiting.pop_front() {
            self.detector.handle_datagram(in_1970(now), from, &bytes);
        }
        if self.detector.poll_timeout() <= now {
            self.detector.handle_timeout(now);
        }
    }
}

#[test]
fn a_dead_node_is_suspected_soon_and_called_down_and_comes_back() {
    for nodes in [2, 3, 5, 20, 40] {
        let mut net = Net::new(nodes);
        net.stop(2);
        let suspected = net.wait(ms(2_200), |net| !net.all_think(2, Alive) && !any_thinks(net, 2, Alive));
        let down = net.wait(ms(5_000), |net| net.all_think(2, Down));
        assert!(suspected + down <= ms(5_500), "{nodes} nodes: {suspected:?} and {down:?}");
        assert!((1..=nodes).filter(|node| *node != 2).all(|node| net.all_think_but(node, 2)), "nobody else is blamed");
        net.restart(2, 2);
        let back = net.wait(ms(1_100), Net::all_agree);
        net.run(ms(10_000));
        assert!(net.all_agree() && net.violations() == 0, "{nodes} nodes, {back:?}");
    }
}

fn any_thinks(net: &Net, node: u64, liveness: Liveness) -> bool {
    net.nodes
        .iter()
        .any(|(other, it)| *other != id(node) && it.runs && it.detector.liveness(id(node)) == Some(liveness))
}

impl Net {
    fn all_think_but(&self, node: u64, except: u64) -> bool {
        let others = self.nodes.iter().filter(|(other, _)| **other != id(node) && **other != id(except));
        others.into_iter().all(|(_, it)| it.detector.liveness(id(node)) == Some(Alive))
    }
}

#[test]
fn quiet_nodes_say_little_and_blame_nobody() {
    let mut net = Net::new(10);
    net.run(ms(1_000));
    let before = net.sent;
    net.run(ms(10_000));
    assert_eq!(net.changes(), 0);
    // A probe and its answer for each node in each period.
    assert!(net.sent - before <= 10 * 2 * 10_000 / 400 + 20, "{}", net.sent - before);
}

#[test]
fn a_lossy_network_makes_nobody_down() {
    let mut net = Net::new(5);
    net.loss = 0.1;
    net.run(ms(60_000));
    let down = net.nodes.values().flat_map(|node| &node.changes).filter(|(_, _, liveness)| *liveness == Down).count();
    assert_eq!(down, 0);
    net.loss = 0.0;
    net.wait(ms(3_000), Net::all_agree);
}

/// Found by the simulator: what everybody had passed on often enough stayed, and its subject never heard of it.
#[test]
fn a_suspicion_that_nobody_passes_on_any_more_is_contradicted() {
    for seed in 0..60 {
        let mut net = Net::new(3);
        net.rng = StdRng::seed_from_u64(seed);
        net.loss = 0.6;
        net.run(ms(3_000));
        net.loss = 0.0;
        net.wait(ms(1_500), Net::all_agree);
        net.run(ms(3_000));
        assert!(net.all_agree(), "seed {seed}");
    }
}

#[test]
fn a_paused_node_is_missed_and_blames_nobody_when_it_goes_on() {
    // Short: what it has to say is believed. Long: it was called down meanwhile.
    for pause in [ms(1_900), ms(3_000), ms(20_000)] {
        for started in 0..8 {
            let mut net = Net::new(4);
            net.run(ms(started * 50));
            net.stop(3);
            net.run(pause);
            assert!(!any_thinks(&net, 3, Alive), "{pause:?}");
            net.resume(3);
            net.wait(ms(1_000), Net::all_agree);
            net.run(ms(5_000));
            assert!(net.all_agree());
            assert_eq!(net.node(3).changes, [], "it was late itself ({pause:?} after {started})");
        }
    }
}

#[test]
fn connections_lost_in_a_pause_have_time_to_come_back() {
    for offset in 0..410 {
        // With two nobody else can be asked to try: a lost answer would be enough to blame.
        let mut net = Net::new(2);
        net.run(ms(offset));
        // At each moment of a round: also between a probe and its answer.
        net.stop(2);
        net.drain();
        net.run(ms(10_000));
        // What waited is lost with its connection, which is back in a moment.
        net.node(2).waiting.clear();
        net.cut_between(&[1], &[2]);
        net.resume(2);
        net.run(ms(1_200));
        net.cut.clear();
        for (node, peer) in [(2, 1), (1, 2)] {
            let now = net.now;
            net.node(node).detector.handle_connected(now, id(peer));
        }
        net.wait(ms(200), Net::all_agree);
        net.run(ms(5_000));
        assert_eq!(net.node(2).changes, [], "after {offset}");
    }
}

#[test]
fn what_was_lost_in_a_pause_blames_nobody() {
    for offset in 0..410 {
        let mut net = Net::new(2);
        net.run(ms(offset));
        net.stop(2);
        net.drain();
        net.run(ms(1_000));
        net.node(2).waiting.clear();
        net.resume(2);
        net.run(ms(4_000));
        assert_eq!(net.node(2).changes, [], "after {offset}");
    }
}

#[test]
fn a_late_loop_suspects_nobody() {
    // Alone with its own turns: nothing that arrives is read before its timers are seen to, as if readers were tasks
    // that have to wait for their turn.
    let mut net = Net::new(3);
    let late = net.node(1);
    let began = late.detector.poll_timeout();
    let mut at = began;
    for _ in 0..40 {
        at = late.detector.poll_timeout().max(at) + ms(700);
        late.detector.handle_timeout(at);
        let sent: Vec<Output> = std::iter::from_fn(|| late.detector.poll_output()).collect();
        assert!(sent.iter().all(|output| matches!(output, Output::Send { .. })), "{sent:?}");
    }
}

#[test]
fn nodes_apart_call_each_other_down_and_find_together_again() {
    for (one, other) in [(&[1][..], &[2][..]), (&[1, 2], &[3, 4]), (&[1], &[2, 3, 4, 5])] {
        let mut net = Net::new((one.len() + other.len()) as u64);
        net.cut_between(one, other);
        net.wait(ms(12_000), |net| {
            let apart = |a: &[u64], b: &[u64]| {
                a.iter().all(|a| b.iter().all(|b| net.nodes[&id(*a)].detector.liveness(id(*b)) == Some(Down)))
            };
            apart(one, other) && apart(other, one)
        });
        net.run(ms(5_000));
        net.cut.clear();
        let before = net.sent;
        net.wait(ms(1_010), Net::all_agree);
        assert!(net.sent - before < 500, "they do not shout at each other: {}", net.sent - before);
        net.run(ms(10_000));
        assert!(net.all_agree());
    }
}

#[test]
fn who_can_be_reached_through_others_is_alive() {
    let mut net = Net::new(3);
    net.cut.insert((id(1), id(2)));
    net.run(ms(20_000));
    assert_eq!(net.changes(), 0);
}

#[test]
fn who_speaks_is_not_called_dead_for_a_while() {
    let mut net = Net::new(2);
    net.cut_between(&[1], &[2]);
    for _ in 0..100 {
        let now = net.now;
        net.node(1).detector.handle_heard(now, id(2));
        net.run(ms(100));
    }
    assert_eq!(net.node(1).changes, []);
    net.wait(ms(1_000), |net| net.all_think(2, Down));
    // And its first word counts again.
    let now = net.now;
    net.node(1).detector.handle_heard(now, id(2));
    net.wait(ms(1_000), |net| net.nodes[&id(1)].detector.liveness(id(2)) == Some(Alive));
    net.wait(ms(1_100), |net| net.nodes[&id(1)].detector.liveness(id(2)) == Some(Down));
}

#[test]
fn members_that_were_never_there_are_missed() {
    let mut lonely = detector(1, 3, 1, Instant(5));
    while lonely.detector.poll_timeout() < Instant(8_000_000) {
        let now = lonely.detector.poll_timeout();
        lonely.detector.handle_timeout(now);
    }
    assert_eq!([2, 3].map(|peer| lonely.detector.liveness(id(peer))), [Some(Down); 2]);
    let changed: Vec<Output> = std::iter::from_fn(|| lonely.detector.poll_output()).collect();
    assert!(changed.len() > 4, "and they were called: {changed:?}");
    assert_eq!(lonely.detector.liveness(id(1)), None);
}

#[test]
fn a_node_that_lost_its_disk_is_believed_again() {
    let mut net = Net::new(3);
    net.stop(2);
    net.run(ms(1_000));
    net.restart(2, 9);
    net.wait(ms(3_000), Net::all_agree);
    net.stop(2);
    net.run(ms(10_000));
    // Its starts are counted from one again.
    net.restart(2, 1);
    let before = net.sent;
    net.wait(ms(2_000), Net::all_agree);
    net.run(ms(5_000));
    assert!(net.all_agree() && net.sent - before < 300, "{}", net.sent - before);
}

#[test]
fn the_same_seeds_say_the_same() {
    let run = || {
        let mut net = Net::new(5);
        net.loss = 0.3;
        net.run(ms(20_000));
        (net.sent, net.nodes.values().map(|node| node.changes.clone()).collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}

impl Net {
    /// These nodes are told of these members.
    fn tell(&mut self, nodes: &[u64], members: &[u64]) {
        let (now, members) = (self.now, members.iter().copied().map(id).collect::<Vec<_>>());
        for node in nodes {
            self.node(*node).detector.handle_members(now, &members);
        }
    }
}

#[test]
fn who_becomes_a_member_is_heard_also_while_some_do_not_know_it_yet() {
    let mut net = Net::new(3);
    net.nodes.insert(id(4), detector(4, 4, 1, net.now));
    // No connection leads there before it is known.
    net.cut_between(&[3], &[4]);
    net.tell(&[1, 2], &[1, 2, 3, 4]);
    net.run(ms(1_000));
    assert_eq!(net.node(3).detector.liveness(id(4)), None);
    assert!(net.all_think_but(4, 3) && net.all_think_but(3, 4));
    net.cut.clear();
    net.tell(&[3], &[1, 2, 3, 4]);
    net.wait(ms(2_000), Net::all_agree);
    net.run(ms(10_000));
    assert!(net.all_agree() && net.violations() == 0, "what was said of a stranger was no nonsense");
    net.stop(4);
    net.wait(ms(8_000), |net| net.all_think(4, Down));
}

#[test]
fn who_is_a_member_no_more_is_forgotten_and_comes_back_as_any_other() {
    let mut net = Net::new(4);
    net.tell(&[1, 2], &[1, 2, 3]);
    net.run(ms(2_000));
    assert_eq!(net.node(1).detector.liveness(id(4)), None);
    net.tell(&[3], &[1, 2, 3]);
    net.stop(4);
    net.run(ms(10_000));
    let all_three = |net: &Net| (1..=3).all(|node| net.all_think(node, Alive));
    assert!(all_three(&net), "what the one that has left says of those that hear it no more stays with nobody");
    net.restart(4, 2);
    net.tell(&[1, 2, 3], &[1, 2, 3, 4]);
    net.wait(ms(2_000), Net::all_agree);
    net.run(ms(10_000));
    assert!(net.all_agree());
}

#[test]
fn nobody_joins_who_is_no_member() {
    let mut net = Net::new(2);
    let mut stranger = detector(9, 2, 1, net.now);
    let now = net.now;
    let said: Vec<Bytes> = std::iter::from_fn(|| match stranger.detector.poll_output()? {
        Output::Send { to, bytes } if to == id(1) => Some(Some(bytes)),
        _ => Some(None),
    })
    .flatten()
    .collect();
    assert!(!said.is_empty());
    for bytes in &said {
        net.node(1).detector.handle_datagram(in_1970(now), id(9), bytes);
        // Nor does anybody speak in the name of another.
        net.node(1).detector.handle_datagram(in_1970(now), id(2), bytes);
    }
    assert_eq!(net.violations(), 2 * said.len() as u64);
    assert_eq!(net.node(1).detector.liveness(id(9)), None);
    assert_eq!(net.node(1).detector.poll_output(), None);
    assert_eq!(net.node(1).detector.liveness(id(2)), Some(Alive));
    assert!(!any_thinks(&net, 2, Suspect));
}

/// News that a node spreads of others, as if it had heard them.
fn lie(net: &mut Net, from: u64, to: u64, dst: Life, news: &[Member<Life>]) {
    let src = *net.node(from).detector.swim.identity();
    let bytes = gossip(src, dst, news);
    let now = net.now;
    net.node(to).detector.handle_datagram(in_1970(now), id(from), &bytes);
}

fn gossip(src: Life, dst: Life, news: &[Member<Life>]) -> Bytes {
    let header = Header { src, src_incarnation: 0, dst, message: Message::Gossip };
    let mut head = bytes::BytesMut::new();
    PostcardCodec.encode_header(&header, &mut head).expect("encodes");
    swim::with_news(&head, news).expect("encodes")
}

/// Two nodes that were told of a life which their peer cannot come to thought it down until they were started again, whatever it said,
/// and however often it was started again.
#[test]
fn nobody_raises_the_life_of_another() {
    let mut net = Net::new(4);
    for generation in [2, 5_000_000_000, u64::MAX] {
        for (state, to) in [(State::Down, 2), (State::Suspect, 3), (State::Alive, 3)] {
            let dst = *net.node(to).detector.swim.identity();
            lie(&mut net, 4, to, dst, &[Member::new(Life::begun(id(1), generation), 7, state)]);
            assert_eq!(net.node(to).detector.peers[&id(1)].life, Life::begun(id(1), 1));
        }
    }
    net.run(ms(5_000));
    assert!(net.all_agree(), "what was said of lives to come concerns nobody");
    net.restart(1, 2);
    net.wait(ms(5_000), Net::all_agree);
    assert_eq!(net.violations(), 0, "it may have been true, and told too early");
}

#[test]
fn nobody_drives_a_node_to_a_life_that_leaves_none_above_it() {
    let mut net = Net::new(3);
    for generation in [5_000_000_000, u64::MAX] {
        lie(&mut net, 3, 1, Life::begun(id(1), generation), &[]);
        lie(&mut net, 3, 1, Life::begun(id(1), 1), &[Member::new(Life::begun(id(1), generation), 0, State::Down)]);
    }
    assert_eq!(*net.node(1).detector.swim.identity(), Life::begun(id(1), 1));
    // As far as a life can honestly have got it follows, and is believed in the next as well.
    lie(&mut net, 3, 1, Life::begun(id(1), 300_000_000), &[]);
    net.wait(ms(5_000), Net::all_agree);
    net.restart(1, 2);
    net.wait(ms(8_000), Net::all_agree);
}

/// A thief of a node's key.
#[test]
fn nobody_speaks_as_a_life_that_leaves_none_above_it() {
    let mut net = Net::new(3);
    for generation in [5_000_000_000, u64::MAX] {
        let now = net.now;
        let dst = *net.node(1).detector.swim.identity();
        let bytes = gossip(Life::begun(id(3), generation), dst, &[]);
        net.node(1).detector.handle_datagram(in_1970(now), id(3), &bytes);
        assert_eq!(net.node(1).detector.peers[&id(3)].told, Life::begun(id(3), 1).generation);
    }
    assert_eq!(net.violations(), 2);
    net.restart(3, 2);
    net.wait(ms(5_000), Net::all_agree);
}

/// Datagrams as nodes send them.
fn datagrams() -> Vec<Bytes> {
    let mut net = Net::new(4);
    net.loss = 0.3;
    net.cut_between(&[1], &[2]);
    let mut seen = Vec::new();
    for _ in 0..200 {
        net.run(ms(20));
        seen.extend(net.under_way.values().filter(|(_, to, _)| *to == id(1)).map(|(_, _, bytes)| bytes.clone()));
        seen.extend(net.nodes[&id(1)].waiting.iter().map(|(_, bytes)| bytes.clone()));
        net.run(Duration::from_micros(700));
    }
    seen
}

proptest! {
    #[test]
    fn hostile_bytes_do_no_harm(
        noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1_300), 0..20),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..60),
    ) {
        let mut net = Net::new(4);
        let real = datagrams();
        prop_assert!(!real.is_empty());
        let now = net.now;
        for bytes in &noise {
            net.node(1).detector.handle_datagram(in_1970(now), id(2), bytes);
        }
        for (which, place, value) in flips {
            let mut bytes = which.get(&real).to_vec();
            let place = place.index(bytes.len());
            bytes[place] ^= value;
            for from in 2..=4 {
                net.node(1).detector.handle_datagram(in_1970(now), id(from), &bytes);
            }
        }
        // Whatever was claimed, the truth gets through.
        net.wait(ms(10_000), Net::all_agree);
    }
}
