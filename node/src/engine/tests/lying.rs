//! A node with a certificate of the cluster that says what no honest one says.

use driftless_proto::causality::ContextKey;
use driftless_proto::{ActorId, Context, ContextError, Dot};

use super::*;
use crate::peer::{Body, Purpose, RequestId, Traced};

/// What a clock may be ahead of another, at the most.
const TEN_YEARS_MS: u64 = 10 * 365 * 86_400_000;

/// So many siblings, each of an actor of its own.
fn state(siblings: u64, written_at: Hlc) -> Siblings {
    let version = |i| Version { value: Some(Bytes::from_static(b"lie")), write_id: WriteId(i), written_at };
    let live: Vec<_> = (1..=siblings).map(|i| (Dot::new(ActorId(i), 1), version(i.into()))).collect();
    let vv = live.iter().map(|(dot, _)| *dot).collect();
    Siblings::from_parts(vv, live).expect("well formed")
}

fn merge(siblings: Siblings, purpose: Purpose) -> Request {
    let merge = Merge { bucket: SIBLINGS, key: key(), siblings, hint_for: None, purpose };
    Request::Replica(ReplicaRequest::Merge(merge))
}

impl Trio {
    /// What an engine answers to a request of another, which is not an engine that asked for anything.
    fn answer_to(&mut self, from: usize, to: usize, request: Request) -> Reply {
        let id = 4711 * 4;
        self.tell(from, to, id, request);
        self.sync(to);
        let (to, from) = (self.id(to), self.id(from));
        let answers = self.wire.iter().filter(|(sender, receiver, _)| (*sender, *receiver) == (to, from));
        let answers: Vec<_> = answers.filter(|(_, _, message)| message.id == RequestId(id)).collect();
        let [(_, _, Message { body: Body::Reply(reply), .. })] = answers.as_slice() else { panic!("{answers:?}") };
        let reply = reply.clone();
        self.wire.clear();
        reply
    }

    fn assert_refused(&mut self, request: Request, what: &str) {
        let violations = self.violations(0);
        match self.answer_to(1, 0, request) {
            Reply::Refused(Refusal::BadRequest(reason)) => assert!(reason.contains(what), "{reason}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(self.violations(0), violations + 1);
        assert!(self.holds(0, SIBLINGS).is_empty(), "nothing is stored of it");
    }

    fn violations(&self, i: usize) -> u64 {
        self.engines[i].shard.metrics.protocol_violations.get()
    }
}

#[test]
fn a_state_beyond_what_an_honest_cluster_can_reach_is_refused_as_malformed() {
    let mut trio = Trio::new();
    let now = trio.now.wall;
    for purpose in [Purpose::Write, Purpose::ReadRepair, Purpose::Handoff, Purpose::AntiEntropy] {
        trio.assert_refused(merge(state(100_000, now), purpose), "more siblings");
        let actors: VersionVector = (1..=600_000).map(|i| Dot::new(ActorId(i), 1)).collect();
        let vector = Siblings::from_parts(actors, Vec::new()).expect("well formed");
        trio.assert_refused(merge(vector, purpose), "more actors");
        let mut long = Siblings::new();
        let value = Some(Bytes::from(vec![0; (16 << 20) + 1]));
        let version = Version { value, write_id: WriteId(1), written_at: now };
        long.event(&VersionVector::new(), Dot::new(ActorId(1), 1), version);
        trio.assert_refused(merge(long, purpose), "longer than any node takes");
        trio.assert_refused(merge(state(1, Hlc(u64::MAX)), purpose), "far future");
    }
}

/// Who has the keys of contexts makes up what was read: nothing is stamped on top of it that the others would refuse.
#[test]
fn a_context_that_no_honest_node_has_sealed_is_refused() {
    let mut trio = Trio::new();
    let keys = ContextKeys::new(vec![ContextKey { id: 7, secret: [7; 32] }]).expect("one key");
    trio.engines.iter_mut().for_each(|engine| engine.handle_context_keys(keys.clone()));
    let actors = |actors: std::ops::Range<u64>| actors.map(|i| Dot::new(ActorId(i), 1)).collect::<VersionVector>();
    let token = |vv, written_at| Some(keys.seal(SIBLINGS, &key(), &Context { vv, written_at }));
    let now = trio.now.wall;
    let later = Hlc::from_millis(now.millis().max(1_793_491_200_000) + TEN_YEARS_MS + 1_000);
    let refused = Failure::Refused(Refusal::BadContext(ContextError::Implausible));
    for token in [token(actors(0..0), later), token(actors(0..0), Hlc(u64::MAX)), token(actors(1..300_000), now)] {
        let asked = trio.ask(0, put(SIBLINGS, "lie", token.clone()));
        assert_eq!(trio.failure(asked), refused);
        let asked = trio.ask(0, delete(SIBLINGS, token));
        assert_eq!(trio.failure(asked), refused);
    }
    // The latest that is stamped upon is believed by the others.
    let latest = token(actors(1..200_000), Hlc::from_millis(later.millis() - 1_000));
    trio.put_and_settle(0, put(SIBLINGS, "believed", latest));
    assert_eq!((0..3).map(|i| trio.holds(i, SIBLINGS).live().len()).collect::<Vec<_>>(), [1; 3]);
    // One after the other they would name more than is believed.
    trio.put_and_settle(0, put(SIBLINGS, "as well", token(actors(200_000..400_000), now)));
    let asked = trio.ask(0, put(SIBLINGS, "lie", token(actors(400_000..600_000), now)));
    assert_eq!(trio.failure(asked), refused);
    assert_eq!((0..3).map(|i| trio.violations(i)).sum::<u64>(), 0);
}

/// Each of three owners has taken as many as it may while it knew of none of the others' writes, and so had two more nodes before
/// them whose disks were lost.
#[test]
fn a_state_that_an_honest_cluster_can_reach_is_taken_in() {
    let mut trio = Trio::new();
    let most = driftless_proto::key::SIBLINGS_MAX as u64 * 5;
    let almost = Hlc::from_millis(trio.now.wall.millis() + TEN_YEARS_MS);
    assert_eq!(trio.answer_to(1, 0, merge(state(most, almost), Purpose::AntiEntropy)), Reply::Acked);
    assert_eq!(trio.holds(0, SIBLINGS).live().len() as u64, most);
    assert_eq!(trio.violations(0), 0);
}

#[test]
fn an_answer_that_no_honest_replica_gives_is_not_merged_and_the_others_decide() {
    let mut trio = Trio::new();
    trio.put_and_settle(0, put(SIBLINGS, "true", None));
    let request = trio.ask(0, get(SIBLINGS, Some(2)));
    let liar = trio.id(1);
    // Whatever it is asked, it answers with a lie.
    while let Some(at) = trio.wire.iter().position(|(_, to, _)| *to == liar) {
        let (_, _, message) = trio.wire.remove(at).expect("is there");
        let lie = Body::Reply(Reply::State(State::Full(state(100_000, Hlc(u64::MAX)))));
        trio.hand_over(1, 0, Message { body: lie, ..message });
    }
    trio.settle();
    let Some(Response::Read(read)) = trio.reply(request) else { panic!("{:?}", trio.reply(request)) };
    assert_eq!(values(read), ["true"]);
    assert_eq!(trio.holds(0, SIBLINGS).live().len(), 1);
}

/// Anybody may coordinate, stand in, and repair what it has read; but who compares what it owns owns it.
#[test]
fn an_exchange_with_a_node_that_does_not_own_the_key_is_refused() {
    let mut five = Trio::of(5, Limits::default());
    let bucket = five.topology.bucket(SIBLINGS).expect("exists");
    let partition = five.topology.place(bucket, &key()).partition;
    let owns: Vec<bool> = (0..5).map(|i| five.topology.ring().owns(five.id(i), partition)).collect();
    let stranger = owns.iter().position(|owns| !owns).expect("five nodes, three owners");
    let (owner, other) = (owns.iter().position(|owns| *owns), owns.iter().rposition(|owns| *owns));
    let (owner, other) = (owner.expect("has owners"), other.expect("has owners"));
    let lie = state(1, five.now.wall);
    let refused = five.answer_to(stranger, owner, merge(lie.clone(), Purpose::AntiEntropy));
    assert!(matches!(refused, Reply::Refused(Refusal::BadRequest(_))), "{refused:?}");
    assert_eq!(five.answer_to(other, owner, merge(lie.clone(), Purpose::AntiEntropy)), Reply::Acked);
    for purpose in [Purpose::Write, Purpose::ReadRepair, Purpose::Handoff] {
        assert_eq!(five.answer_to(stranger, owner, merge(lie.clone(), purpose)), Reply::Acked);
    }
}

/// What only a node itself may ask of its replica: to stamp, to keep a hint, to restore.
#[test]
fn no_peer_can_ask_for_what_a_node_asks_only_of_itself() {
    let forms = |request: &Request| match request {
        Request::Replica(request) | Request::Traced(Traced { request, .. }) => match request {
            ReplicaRequest::Merge(_) | ReplicaRequest::Read(_) | ReplicaRequest::Scan(_) => "of a replica",
        },
        Request::Forward(_) => "for a client",
        Request::Ping => "for a sign of life",
        Request::Exchange(_) => "to compare",
        Request::Membership(_) => "about members",
    };
    assert_eq!(forms(&merge(Siblings::new(), Purpose::Write)), "of a replica");
    // The next number of either enum is none.
    for bytes in [&[4_u8][..], &[0, 3]] {
        assert!(postcard::from_bytes::<Request>(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(postcard::to_stdvec(&Request::Ping).expect("encodes"), [2], "as the numbers above suppose");
}

#[test]
fn lies_are_told_of_once_in_a_while_and_all_are_counted() {
    let mut trio = Trio::new();
    for _ in 0..1_000 {
        trio.tell(1, 0, 4, merge(state(1, Hlc(u64::MAX)), Purpose::Write));
    }
    assert_eq!(trio.violations(0), 1_000);
    assert_eq!(trio.engines[0].implausible.unsaid(), 999);
}
