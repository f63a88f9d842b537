//! Real values of everything that crosses the wire, one of every variant at least (`tests/decoders.rs` counts them).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_antientropy::message::{Answer, Ask};
use driftless_antientropy::{
    Bits, Digest, ExchangeId, Initiator, InitiatorOutput, LeafMap, Line, Local, Micros, Records, Refused, Responder,
    ResponderOutput, Settings, Standing, Sums, Tree, Unequal, Unreadable,
};
use driftless_node::peer::{
    Body, Exchange, Exchanged, Merge, Message, Page, Purpose, Read, ReplicaRequest, Reply, Request, RequestId, Scan,
    State, Want, WireMessage,
};
use driftless_node::time::Instant;
use driftless_proto::client::{self, AaeCommand, Liveness, Response};
use driftless_proto::figures::{Answered, Disk, ExchangesWith, Figures, RoundTrip};
use driftless_proto::membership::Moving;
use driftless_proto::top::{BucketTop, HotKey, Seen, SeenKey, Top, TopCommand, TopKey};
use driftless_proto::{
    ActorId, BucketDefinition, BucketId, Conflict, ContextError, ContextToken, Dot, Durability, Failure, Hlc, Key,
    Missing, QuorumError, Refusal, Role, Siblings, Topology, TraceContext, Unknown, Version, VersionVector, WriteId,
};
use driftless_ring::{ArcIndex, Member, NodeId, PartitionId, Partitions, Token, TokenRange};
use driftless_testkit::TopologyBuilder;

use super::{members, observed};

/// Four nodes in two zones, and buckets of every kind.
pub fn topology() -> Arc<Topology> {
    static SHARED: std::sync::LazyLock<Arc<Topology>> = std::sync::LazyLock::new(|| {
        let mut members = ["a", "b", "c", "d"].map(|name| Member::new(name, format!("{name}.test:7400")));
        members[3].zone = "far".to_owned();
        let buckets = [
            BucketDefinition::built_in(3),
            BucketDefinition { conflict: Conflict::Lww, ..driftless_testkit::bucket(1, "lww", 3) },
            BucketDefinition { sloppy: false, ..driftless_testkit::bucket(2, "strict", 3) },
            BucketDefinition { durability: Durability::Buffered, ..driftless_testkit::bucket(3, "buffered", 3) },
            driftless_testkit::bucket(4, "single", 1),
        ];
        let quiet = |bucket| BucketDefinition { read_all: 0, ..bucket };
        TopologyBuilder::of_members(members).buckets(buckets.map(quiet)).shared()
    });
    SHARED.clone()
}

/// The next version, with twice the partitions.
fn doubled() -> Topology {
    let topology = topology();
    topology.with_ring(topology.ring().doubled().expect("there may be more")).expect("fits")
}

/// The members of a topology. The first has neither the smallest nor the greatest id: it begins exchanges with some, and
/// answers others.
pub fn members(topology: &Topology) -> Vec<NodeId> {
    let mut members: Vec<NodeId> = topology.ring().members().iter().map(|member| member.id).collect();
    members.rotate_left(1);
    members
}

pub(super) fn bucket() -> BucketId {
    BucketId(0)
}

pub(super) fn key() -> Key {
    Key::new("bat").expect("valid")
}

/// Vectors, values, a tombstone and siblings: from nothing to everything.
pub fn states() -> Vec<Siblings> {
    let version = |value: Option<&'static [u8]>, id| Version {
        value: value.map(Bytes::from_static),
        write_id: WriteId(id),
        written_at: Hlc::from_millis(1_700_000_000_000),
    };
    let write = |state: &Siblings, context: &VersionVector, actor, counter, version| {
        let mut out = state.clone();
        out.event(context, Dot::new(ActorId(actor), counter), version);
        out
    };
    let none = Siblings::new();
    let one = write(&none, none.vv(), 0xa, 1, version(Some(b"one"), 1));
    let empty = write(&none, none.vv(), 0xb, 9, version(Some(b""), 2));
    let two = write(&one, none.vv(), 0xb, 300, version(Some(b"two"), u128::MAX));
    let deleted = write(&two, two.vv(), u64::MAX, u64::MAX, version(None, 4));
    let mixed = write(&deleted, none.vv(), 0xc, 2, version(Some(&[0xff; 40]), 5));
    vec![none, one, empty, two, deleted, mixed]
}

/// A token as a node would have sealed it.
pub fn token() -> ContextToken {
    Bytes::from_static(&[1, 1, 1, 10, 1, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]).into()
}

fn partition() -> PartitionId {
    PartitionId { n: 3, arc: ArcIndex(5) }
}

fn cursor() -> client::Cursor {
    client::Cursor { token: Token(u64::MAX / 3), key: Some(key()) }
}

/// What an operator tells a node before it is stopped.
pub fn drain_commands() -> Vec<client::DrainCommand> {
    vec![client::DrainCommand::Status, client::DrainCommand::Begin, client::DrainCommand::Undo]
}

/// What an operator tells anti-entropy.
pub fn aae_commands() -> Vec<AaeCommand> {
    vec![
        AaeCommand::Status,
        AaeCommand::Run { partition: None },
        AaeCommand::Run { partition: Some(partition()) },
        AaeCommand::Pause,
        AaeCommand::Resume,
    ]
}

/// What clients ask.
pub fn client_requests() -> Vec<client::Request> {
    let (bucket, key) = (bucket(), key());
    let get = client::Get { bucket, key: key.clone(), r: None, sloppy: None, explain: false, shown: Vec::new() };
    let put = client::Put {
        bucket,
        key: key.clone(),
        value: Bytes::from_static(b"a value"),
        context: None,
        w: None,
        sloppy: None,
        write_id: WriteId(77),
    };
    let delete =
        client::Delete { bucket, key, context: None, r: None, w: None, sloppy: None, write_id: WriteId(u128::MAX) };
    let scan = client::Scan {
        bucket,
        arc: ArcIndex(3),
        after: None,
        limit: 10,
        r: None,
        prefix: Bytes::new(),
        ring_version: 0,
    };
    let mut all = vec![
        client::Request::Topology,
        client::Request::Get(get.clone()),
        client::Request::Get(client::Get { r: Some(3), sloppy: Some(false), explain: true, ..get.clone() }),
        client::Request::Get(client::Get { shown: vec![Dot::new(ActorId(0xa), 1), Dot::new(ActorId(0xb), 7)], ..get }),
        client::Request::Put(put.clone()),
        client::Request::Put(client::Put { context: Some(token()), w: Some(3), sloppy: Some(true), ..put }),
        client::Request::Delete(delete.clone()),
        client::Request::Delete(client::Delete { context: Some(token()), r: Some(1), ..delete }),
        client::Request::Scan(scan.clone()),
        client::Request::Scan(client::Scan {
            after: Some(cursor()),
            limit: u32::MAX,
            r: Some(2),
            prefix: Bytes::from_static(b"user/"),
            ..scan
        }),
        client::Request::Status,
        client::Request::Hints,
        client::Request::Damaged,
        client::Request::Restore(client::Restore { bucket, key: self::key(), accept_loss: false }),
        client::Request::Restore(client::Restore { bucket, key: self::key(), accept_loss: true }),
    ];
    all.extend(aae_commands().into_iter().map(client::Request::Aae));
    all.extend(members::commands().into_iter().map(client::Request::Cluster));
    all.extend(drain_commands().into_iter().map(client::Request::Drain));
    let shown = vec![Dot::new(ActorId(0xa), 1)];
    all.push(client::Request::GetState(client::GetState { bucket, key: self::key(), r: None, shown: Vec::new() }));
    all.push(client::Request::GetState(client::GetState { bucket, key: self::key(), r: Some(2), shown }));
    for (state, w) in states().into_iter().zip([None, Some(3)].into_iter().cycle()) {
        all.push(client::Request::MergeState(client::MergeState { bucket, key: self::key(), state, w }));
    }
    all.push(client::Request::Figures);
    let in_envelopes = observed::requests(&all);
    all.extend(in_envelopes);
    all.push(client::Request::Top(TopCommand { bucket: Some(bucket), most: 20 }));
    all
}

/// What can be wrong with a context.
pub fn context_errors() -> Vec<ContextError> {
    vec![
        ContextError::Malformed,
        ContextError::Format(2),
        ContextError::UnknownKey(9),
        ContextError::Seal,
        ContextError::Implausible,
    ]
}

/// What can be wrong with quorums.
pub fn quorum_errors() -> Vec<QuorumError> {
    vec![QuorumError::Replicas(17), QuorumError::Read { r: 4, n: 3 }, QuorumError::Write { w: 0, n: 3 }]
}

/// Why nothing was done.
pub fn refusals() -> Vec<Refusal> {
    let mut all = vec![
        Refusal::NotEnoughReplicas { needed: 2, available: 1 },
        Refusal::Overloaded { retry_after_ms: 50 },
        Refusal::TooManySiblings { siblings: 65, bytes: 1 << 24 },
        Refusal::ValueTooLarge { bytes: u64::MAX, max: 1 << 22 },
        Refusal::NoSuchBucket,
        Refusal::NotCoordinator,
        Refusal::NotOwner { ring_version: 1 },
        Refusal::StaleRing { theirs: 1, ours: 2 },
        Refusal::WriteIdReused,
        Refusal::ClockOff { ahead_ms: -70_000 },
        Refusal::StorageFull,
        Refusal::Stopping,
        Refusal::BadRequest("limit 0".to_owned()),
        Refusal::HintsFull,
        Refusal::Unready,
        Refusal::Membership("nothing is staged".to_owned()),
        Refusal::Damaged,
        Refusal::NotAllowed {
            certificate: "driftless://shop/client/web".to_owned(),
            role: Role::Reader,
            needed: Role::Operator,
            missing: Missing::Bucket("carts".to_owned()),
        },
    ];
    all.extend(context_errors().into_iter().map(Refusal::BadContext));
    all.extend(quorum_errors().into_iter().map(Refusal::BadQuorum));
    all
}

/// Why it is not known what was done.
pub fn unknowns() -> Vec<Unknown> {
    vec![Unknown::Timeout { acks: 1, needed: 2 }, Unknown::Interrupted("the connection was lost".to_owned())]
}

/// Whatever did not succeed.
pub fn failures() -> Vec<Failure> {
    refusals().into_iter().map(Failure::Refused).chain(unknowns().into_iter().map(Failure::Unknown)).collect()
}

/// What one node thinks of another.
pub fn livenesses() -> Vec<Liveness> {
    vec![Liveness::Alive, Liveness::Suspect, Liveness::Down]
}

/// What clients are answered.
pub fn client_responses() -> Vec<Response> {
    let sibling =
        client::Sibling { value: Bytes::from_static(b"one"), written_at: Hlc::from_millis(1_700_000_000_000) };
    let replica = |at: u64| client::ReplicaAnswer {
        node: format!("n{at}"),
        stands_in_for: (at == 1).then(|| "n9".to_owned()),
        state: (at > 0).then(|| "{a: 1}".to_owned()),
        latency_us: at.checked_sub(1),
        counted: at == 1,
        repaired: at == 2,
    };
    let explanation = client::ReadExplanation {
        coordinator: "n1".to_owned(),
        ring_version: 1,
        partition: "n3/5".to_owned(),
        r: 2,
        replicas: (0..3).map(replica).collect(),
    };
    let status = client::NodeStatus {
        name: "n1".to_owned(),
        version: "0.1.0".to_owned(),
        ring_version: 1,
        uptime_ms: 86_400_000,
        keys: Some(1000),
        bytes: Some(1 << 30),
        hints: None,
        clock_offset_ms: Some(-3),
        takes_writes: true,
        conditions: vec![client::Condition {
            name: "peer_unreachable".to_owned(),
            peer: Some("n3".to_owned()),
            severity: client::Severity::Warning,
            explained: false,
            for_ms: 7,
            what: "no connection to n3".to_owned(),
            remedy: "see whether it runs".to_owned(),
        }],
        peers: livenesses()
            .into_iter()
            .map(|liveness| client::PeerStatus { name: format!("{liveness:?}"), connected: true, liveness })
            .collect(),
    };
    let hints = client::HintsFor {
        target: "n2".to_owned(),
        keys: 3,
        bytes: 900,
        oldest_ms: Some(61_000),
        delivered: 7,
        rate: 0.5,
        eta_ms: None,
    };
    let aae = client::AaeStatus {
        paused: false,
        drift: 0,
        building: 1,
        partitions: vec![client::AaePartition {
            peer: "n2".to_owned(),
            partition: partition(),
            last_full_round_ms: Some(59_000),
            compared: 1000,
            repaired: 3,
            unequal: true,
            in_progress: false,
            behind: 12,
            rate: f64::NAN,
        }],
    };
    let basis = client::Basis { needed: 2, primaries: 1 };
    let figures = figures(status.clone(), hints.clone());
    let mut all = vec![
        Response::Topology(Box::new(Topology::clone(&topology()))),
        Response::Topology(Box::new(doubled())),
        Response::Read(client::Read { siblings: Vec::new(), context: None, basis, page: None, explanation: None }),
        Response::Read(client::Read {
            siblings: vec![sibling.clone()],
            context: None,
            basis,
            page: Some(client::ReadPage {
                dots: vec![Dot::new(ActorId(0xa), 1)],
                more: true,
                gone: vec![Dot::new(ActorId(0xb), 2)],
            }),
            explanation: None,
        }),
        Response::Read(client::Read {
            siblings: vec![sibling.clone(), sibling],
            context: Some(token()),
            basis,
            page: None,
            explanation: Some(explanation),
        }),
        Response::Stored(client::Stored { context: Some(token()), acks: 2, primaries: 2, siblings: 1, live: true }),
        Response::Deleted(client::Deleted { existed: true, acks: 3, primaries: 2, siblings: 0, basis: Some(basis) }),
        Response::Page(client::Page { keys: vec![key(), key()], next: Some(cursor()) }),
        Response::Status(Box::new(status)),
        Response::Hints(vec![hints.clone(), hints]),
        Response::Aae(Box::new(aae)),
        Response::Damaged(client::DamagedKeys {
            keys: vec![client::DamagedKey { bucket: bucket(), key: key() }],
            count: 2,
        }),
        Response::Restored(client::Restored { was_damaged: true, answered: 1 }),
    ];
    all.extend(failures().into_iter().map(Response::Failed));
    all.extend(members::answers().into_iter().map(Response::Cluster));
    all.push(Response::Drain(client::DrainStatus { draining: true, under_way: 3, hints: Some(17) }));
    all.push(Response::Drain(client::DrainStatus { draining: false, under_way: 0, hints: None }));
    for state in states() {
        let (live, vv) = (state.live().to_vec(), state.vv().clone());
        let gone = vec![Dot::new(ActorId(0xb), 2)];
        all.push(Response::State(client::StatePage { live: live.clone(), vv: None, gone: Vec::new() }));
        all.push(Response::State(client::StatePage { live, vv: Some(vv), gone }));
    }
    all.push(Response::Merged(client::Merged { acks: 2 }));
    all.push(Response::Figures(Box::new(figures)));
    let explained = observed::responses(&all);
    all.extend(explained);
    all.push(Response::Top(Box::new(top())));
    all
}

/// Which keys are hot, one of them with its name.
fn top() -> Top {
    let named = TopKey { token: Token(1 << 63), name: Some(Bytes::from_static(b"cart/4")), cut: true };
    let seen = Seen { bytes: 300, siblings: 2, ago_ms: 1_500 };
    let hot = |token, seen| HotKey {
        key: TopKey { token: Token(token), name: None, cut: false },
        reads: 900,
        writes: 40,
        over: 7,
        seen,
    };
    let bucket = BucketTop {
        bucket: BucketId(1),
        requests: 1_300,
        hot: vec![hot(7, Some(seen)), hot(8, None)],
        floor: 12,
        large: vec![SeenKey { key: named.clone(), seen }],
        siblings: vec![SeenKey { key: named, seen }],
    };
    Top { watches: true, names: true, span_ms: 71_000, buckets: vec![bucket], uncounted: 3 }
}

/// What a node measures.
fn figures(status: client::NodeStatus, hints: client::HintsFor) -> Figures {
    Figures {
        status,
        unfinished: vec![7],
        moving: Moving { taking: 64, taken: 12, rate: 1 << 20, ..Moving::default() },
        hints: vec![hints],
        exchanges: vec![ExchangesWith {
            peer: "n2".to_owned(),
            shared: 64,
            never: 1,
            unequal: 2,
            in_progress: 1,
            behind: 30,
            rate: 0.5,
        }],
        compared_ms: Some(59_000),
        round_trips: vec![RoundTrip { peer: "n2".to_owned(), microseconds: 310 }],
        requests: vec![Answered { operation: "get".to_owned(), ok: 7, refused: 1, unknown: 0, took: vec![0, 3, 5] }],
        under_way: 2,
        client_connections: 3,
        reads_found: 7,
        siblings_read: 9,
        writes_discarded: 0,
        fallback_coordinated: 1,
        hints_delivered: 70,
        keys_repaired: 4,
        disk: Some(Disk { free: 1 << 30, total: 1 << 40, store: 1 << 20 }),
        partitions_uncounted: 0,
        leaves_scrubbed: 600,
        damaged: 1,
        aae_paused: false,
    }
}

/// Why a state is sent.
pub fn purposes() -> Vec<Purpose> {
    vec![Purpose::Write, Purpose::ReadRepair, Purpose::Handoff, Purpose::AntiEntropy, Purpose::Transfer]
}

/// How much a read wants.
pub fn wants() -> Vec<Want> {
    vec![Want::Full, Want::Header]
}

/// How partitions stand.
pub fn standings() -> Vec<Standing> {
    vec![Standing::Differs { bits: Bits::MIN, count: 1_000_000 }, Standing::Rebuilding, Standing::NotComparable]
}

/// Why a responder does not go on.
pub fn exchange_refusals() -> Vec<Refused> {
    vec![
        Refused::Rebuilding,
        Refused::Coarser(Bits::MAX),
        Refused::Busy,
        Refused::NoSuchExchange,
        Refused::NotOwner,
        Refused::OtherFormat,
        Refused::Unreadable,
        Refused::Malformed,
        Refused::NotTaken,
    ]
}

/// Comparisons of partitions.
pub fn exchanges() -> Vec<Exchange> {
    let partitions = Partitions::new(8).expect("a power of two");
    let tree = Side::new(40, 1).tree;
    let lines = [Line::of(partition(), &tree)];
    let sums = Sums::of(partitions, &lines).map(Exchange::Sums);
    let steps = conversation().0.into_iter().map(|request| Exchange::Step { partition: partition(), request });
    sums.chain(steps).collect()
}

/// What is answered to them.
pub fn exchanged() -> Vec<Exchanged> {
    let unequal = Unequal { partitions: standings().into_iter().map(|standing| (partition(), standing)).collect() };
    let request = conversation().0.remove(0);
    let refused = exchange_refusals().into_iter().map(|reason| request.refuse(reason));
    let steps = conversation().1.into_iter().chain(refused).map(Exchanged::Step);
    std::iter::once(Exchanged::Unequal(unequal)).chain(steps).collect()
}

/// What nodes ask each other.
pub fn peer_requests() -> Vec<Request> {
    let (bucket, key) = (bucket(), key());
    let mut all = vec![
        Request::Replica(ReplicaRequest::Scan(Scan {
            bucket,
            arc: ArcIndex(1),
            after: Some(cursor()),
            limit: 3,
            counted_for: 1,
        })),
        Request::Ping,
    ];
    for (at, want) in wants().into_iter().enumerate() {
        all.push(Request::Replica(ReplicaRequest::Read(Read {
            bucket,
            key: key.clone(),
            want,
            durable: at == 0,
            counted_for: None,
        })));
    }
    for (purpose, siblings) in purposes().into_iter().zip(states()) {
        let hint_for = (purpose == Purpose::Write).then(|| NodeId::of_name("b"));
        all.push(Request::Replica(ReplicaRequest::Merge(Merge {
            bucket,
            key: key.clone(),
            siblings,
            hint_for,
            purpose,
        })));
    }
    all.extend(client_requests().into_iter().map(Request::Forward));
    all.extend(exchanges().into_iter().map(Request::Exchange));
    all.extend(members::letters().into_iter().map(|letter| Request::Membership(Box::new(letter))));
    let trace = TraceContext { trace_id: [7; 16], parent_id: [9; 8], sampled: true };
    let asked: Vec<ReplicaRequest> = all.iter().filter_map(of_replica).collect();
    all.extend(asked.into_iter().map(|request| Request::of_replica(Some(trace), request)));
    all
}

fn of_replica(request: &Request) -> Option<ReplicaRequest> {
    match request {
        Request::Replica(request) => Some(request.clone()),
        _ => None,
    }
}

/// What a replica knows, in both ways of saying it.
pub fn replica_states() -> Vec<State> {
    states().into_iter().flat_map(|state| [State::Header(state.header()), State::Full(state)]).collect()
}

/// What nodes answer each other.
pub fn peer_replies() -> Vec<Reply> {
    let entries: Vec<_> = states().iter().map(|state| (cursor(), state.header())).collect();
    let mut all = vec![
        Reply::Acked,
        Reply::Coming { bytes: 5 << 20 },
        Reply::Page(Page { entries: entries.clone(), next: None }),
        Reply::Page(Page { entries, next: Some(client::Cursor { token: Token(9), key: None }) }),
        Reply::Lost,
        Reply::Pong,
    ];
    all.extend(replica_states().into_iter().map(Reply::State));
    all.extend(client_responses().into_iter().map(Reply::Forwarded));
    all.extend(refusals().into_iter().map(Reply::Refused));
    all.extend(exchanged().into_iter().map(Reply::Exchanged));
    all
}

/// A request as a peer would send it.
pub fn as_message(id: u64, body: Body) -> WireMessage {
    Message { id: RequestId(id), ring_version: 1, body }.to_wire(Instant(0))
}

/// All messages between nodes.
pub fn peer_messages() -> Vec<WireMessage> {
    let deadline = Instant(0) + Duration::from_secs(2);
    let requests = peer_requests().into_iter().map(|request| Body::Request { deadline, request });
    let replies = peer_replies().into_iter().map(Body::Reply);
    requests.chain(replies).zip(1_000..).map(|(body, id)| as_message(id, body)).collect()
}

/// A replica of one partition, for exchanges.
pub struct Side {
    /// In the order of tokens.
    keys: Vec<(Token, Digest)>,
    tree: Tree,
}

impl Side {
    /// So many keys in the partition of the samples. A few of them are not as they are on a side with another salt.
    pub fn new(keys: u64, salt: u64) -> Side {
        let map = LeafMap::new(Partitions::new(8).expect("a power of two"), partition().arc);
        let TokenRange { first, last } = map.tokens();
        let mut tree = Tree::new(map, Bits::for_keys(keys));
        let step = (last.0 - first.0) / keys.max(1);
        let keys: Vec<_> = (0..keys)
            .map(|at| {
                let known = if at % DIFFERS_EVERY == 0 { salt } else { 0 };
                (Token(first.0 + at * step), Digest(u128::from(at + 1) << 64 | u128::from(known + 1)))
            })
            .collect();
        keys.iter().for_each(|(token, digest)| tree.update(*token, None, Some(*digest)));
        Side { keys, tree }
    }

    /// As an exchange sees it.
    pub fn local(&self) -> Local<'_> {
        Local { tree: Some(&self.tree), records: self }
    }
}

impl Records for Side {
    fn visit(
        &self,
        tokens: TokenRange,
        visit: &mut dyn FnMut(Token, Digest) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let first = self.keys.partition_point(|key| key.0 < tokens.first);
        let mut within = self.keys[first..].iter().take_while(|key| key.0 <= tokens.last);
        let _ = within.try_for_each(|(token, digest)| visit(*token, *digest));
        Ok(())
    }
}

/// The exchange of the samples, just begun by a side.
pub fn initiator(side: &Side) -> Initiator {
    let bits = side.tree.bits();
    Initiator::start(Micros(0), Settings::default(), ExchangeId(4), partition(), bits, side.local())
        .expect("there is a tree")
}

/// All that two sides say to each other until they are through. A few keys differ in a partition of hundreds.
pub fn conversation() -> (Vec<driftless_antientropy::Request>, Vec<driftless_antientropy::Reply>) {
    let (here, there) = (Side::new(SIDE_KEYS, 0), Side::new(SIDE_KEYS, 1));
    let mut initiator = initiator(&here);
    let (settings, mut now) = (Settings::default(), Micros(0));
    let mut responder: Option<Responder> = None;
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        match initiator.poll_output() {
            Some(InitiatorOutput::Send(request)) => {
                requests.push(request.clone());
                match &mut responder {
                    Some(responder) => responder.handle_request(now, there.local(), request),
                    none => *none = Responder::start(now, settings, there.local(), request).ok(),
                }
            }
            Some(InitiatorOutput::Repair(_)) => initiator.resume(now, here.local()),
            Some(InitiatorOutput::Ended(_)) => break,
            None => match responder.as_mut().and_then(Responder::poll_output) {
                Some(ResponderOutput::Send(reply)) => {
                    replies.push(reply.clone());
                    initiator.handle_reply(now, here.local(), reply);
                }
                Some(ResponderOutput::Repair(_)) => responder.iter_mut().for_each(|responder| responder.resume(now)),
                Some(ResponderOutput::Ended) => responder = None,
                None => {
                    now = initiator.poll_timeout().expect("it waits for something");
                    initiator.handle_timeout(now, here.local());
                }
            },
        }
    }
    // How it would have ended had not all been taken.
    let over = requests.last().map(|done| driftless_antientropy::Request { ask: Ask::Over, ..done.clone() });
    requests.extend(over);
    (requests, replies)
}

/// What the initiators of the samples asked, and the responders answered.
pub fn asks_and_answers() -> (Vec<Ask>, Vec<Answer>) {
    let (requests, replies) = conversation();
    let refused = exchange_refusals().into_iter().map(Answer::Refused);
    let answers = replies.into_iter().map(|reply| reply.answer).chain(refused);
    (requests.into_iter().map(|request| request.ask).collect(), answers.collect())
}

/// Enough for a tree in which more than one step down is needed.
pub const SIDE_KEYS: u64 = 30_000;

/// Few enough differences for small messages.
const DIFFERS_EVERY: u64 = 7_919;
