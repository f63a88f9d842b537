//! Everything that nodes say to each other, in one enum each way.
//!
//! ```text
//! coordinator                                   replica
//!   Put:  │── Merge ───────────────────────────▶ every replica but its own, which stamps (`replica::local`)
//!         │◀── Acked ── once what the merge left is synced
//!   Get:  │── Read ────────────────────────────▶ ◀── State       before a large one: Coming
//!   Scan: │── Scan ────────────────────────────▶ ◀── Page
//! node that does not store a key                coordinator
//!         │── Forward ─────────────────────────▶ ◀── Forwarded
//!   Put:  │── Merge, hint_for ─────────────────▶ fallback: keeps it for the primary it stands in for
//! handoff │── Merge ───────────────────────────▶ that primary, once it is back   ◀── Acked: the hint may go
//! any     │── Exchange ──────────────────────▶ ◀── Exchanged: which keys of a partition differ is found in several
//! any     │── Membership ────────────────────────▶ agreement on members and buckets (`membership`)
//! any     │── Ping ────────────────────────────▶ a peer that has not answered lately  ◀── Pong
//! ```
//! A node's own replica is asked in the same words ([`ReplicaRequest`]). `Merge` is the one verb by which a replica takes in what
//! others know: it is commutative, associative and idempotent, so that order, loss and repetition of `Merge` do not
//! matter, nor do they of `Read` and `Scan`. A repeated `Forward` would matter (a write refused once could be
//! stamped by the copy): it relies on streams, which deliver once. Any request may be answered with `Refused`: then it had no effect on that replica.
//!
//! On the wire each side first says [`Hello`] and closes the connection if the other's does not fit.

use std::time::Duration;

use bytes::Bytes;
use driftless_antientropy::{Sums, Unequal};
use driftless_proto::client;
use driftless_proto::frame::{FRAME_SHARED_MAX, SHARED_FROM};
use driftless_proto::membership::StoreId;
use driftless_proto::observed::{Explained, ExplainedResponse, Observed, ObservedRequest};
use driftless_proto::{BucketId, Header, Key, ProtocolVersion, Refusal, Siblings, TraceContext, Version, greeting};
use driftless_ring::{ArcIndex, NodeId, PartitionId};
use serde::{Deserialize, Serialize};

use crate::membership::Letter;
use crate::time::Instant;

/// What either side says of itself in the first frame on a peer connection, behind the versions that it speaks
/// ([`driftless_proto::greeting`]). A field is added at the end, and only there: older releases read on so far as they know, and
/// whoever knows it does without it where a hello ends before it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Name of the speaker's cluster.
    pub cluster: String,
    /// Who speaks; the certificate must say the same.
    pub node: NodeId,
    /// Which life of that node this is.
    pub incarnation: Incarnation,
    /// The newest life of the receiver that the speaker has seen.
    pub knows: Option<Incarnation>,
    /// Ring version of the speaker.
    pub ring_version: u64,
    /// Fingerprint of its topology: equal versions must have equal ones.
    pub topology_digest: u128,
    /// Which of the speaker's shards this connection belongs to.
    pub shard: u16,
    /// The speaker's store.
    pub store: StoreId,
}

/// One life of a store: of two processes that claim to be the same node, the one with the smaller number is an old
/// copy and is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Incarnation {
    /// How often the store was opened, counted on from the moment in which its directory was made: a directory
    /// made because its predecessor was lost is newer than that, not an old copy of it. Where the clock has it otherwise, what
    /// others know of the predecessor puts it right.
    pub starts: u64,
    /// Random at each start: tells two copies of one directory apart.
    pub nonce: u64,
}

impl Incarnation {
    /// Whether a node that is this one and says that it is `other` is taken for a copy of itself.
    #[cfg(feature = "net")]
    pub(crate) fn is_newer_than(self, other: Incarnation) -> bool {
        self.starts > other.starts || (self.starts == other.starts && self.nonce != other.nonce)
    }
}

/// Pairs a reply with its request. Unique within a shard over all its lives: counted on from a random number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl RequestId {
    /// Which of its sender's machines waits for the reply.
    pub fn lane(self) -> Lane {
        match self.0 % LANES {
            0 => Lane::Coordinator,
            1 => Lane::Handoff,
            2 => Lane::AntiEntropy,
            _ => Lane::Reachability,
        }
    }
}

/// The machines of one shard that ask peers, each with numbers of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Requests of clients.
    Coordinator,
    /// Delivery of hints.
    Handoff,
    /// Exchanges.
    AntiEntropy,
    /// Pings.
    Reachability,
}

const LANES: u64 = 4;

/// Draws the ids of one lane: a random number first, then counting on.
#[derive(Debug)]
pub struct RequestIds {
    next: u64,
}

impl RequestIds {
    /// The ids of a lane, from a random number on.
    pub fn new(lane: Lane, random: u64) -> RequestIds {
        RequestIds { next: (random / LANES * LANES) | lane as u64 }
    }

    /// An id that was not drawn before.
    pub fn draw(&mut self) -> RequestId {
        let id = RequestId(self.next);
        self.next = self.next.wrapping_add(LANES);
        id
    }
}

/// One message between nodes, as the machines see it.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// Pairs reply and request.
    pub id: RequestId,
    /// Ring version of the sender.
    pub ring_version: u64,
    /// What it says.
    pub body: Body,
}

/// Either way.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// To a replica, or to a node that may coordinate.
    Request {
        /// When the sender stops waiting; work is dropped after that.
        deadline: Instant,
        /// What is asked.
        request: Request,
    },
    /// The answer.
    Reply(Reply),
}

/// What a node asks of another.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Something of its replica.
    Replica(ReplicaRequest),
    /// Coordinate this for a client; do not forward it again.
    Forward(client::Request),
    /// Answer, so that the sender knows that messages go both ways.
    Ping,
    /// Compare what both own.
    Exchange(Exchange),
    /// About members and buckets. Not answered: what answers it is another one.
    Membership(Box<Letter>),
    /// Something of its replica, for a request that carries a trace context; since [`OBSERVED`](driftless_proto::greeting::OBSERVED).
    Traced(Traced),
}

/// What a replica is asked, and where that belongs in a trace. **An envelope never holds another**: it holds no [`Request`], which would
/// be read by itself, and a frame of nothing but envelopes would overflow the stack of whoever reads it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Traced {
    /// The place in the trace.
    pub trace: TraceContext,
    /// What is asked.
    pub request: ReplicaRequest,
}

/// What any coordinator may ask of a replica.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ReplicaRequest {
    /// Take in what the sender knows of a key.
    Merge(Merge),
    /// Say what you know of a key.
    Read(Read),
    /// List keys of an arc.
    Scan(Scan),
}

/// What a node answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Merge`], and to a write of this node's own: as durable as the bucket asks.
    Acked,
    /// To [`Read`].
    State(State),
    /// To [`Read`]: a large state follows, on a stream of its own. It lets the reader wait as long as that takes; nothing else
    /// rests on it.
    Coming {
        /// Of its values.
        bytes: u64,
    },
    /// To [`Scan`].
    Page(Page),
    /// To [`Request::Forward`].
    Forwarded(client::Response),
    /// Not done, and without effect here.
    Refused(Refusal),
    /// Not done, and perhaps with effect: the put must not be acknowledged with this replica.
    Lost,
    /// To [`Request::Ping`].
    Pong,
    /// To [`Exchange`].
    Exchanged(Exchanged),
}

/// Compare what both own. What differs then travels as [`Merge`], both ways.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Exchange {
    /// The sums of partitions, all of one shard of the receiver.
    Sums(Sums),
    /// One step of an exchange.
    Step {
        /// Which partition it is about.
        partition: PartitionId,
        /// What the initiator says.
        request: driftless_antientropy::Request,
    },
}

/// What the other says to that.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Exchanged {
    /// To [`Exchange::Sums`].
    Unequal(Unequal),
    /// To [`Exchange::Step`].
    Step(driftless_antientropy::Reply),
}

/// Take in what the sender knows of a key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Merge {
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// What the sender knows: the whole state, so that it helps whatever the receiver has missed.
    pub siblings: Siblings,
    /// The primary that the receiver stands in for, if it does.
    pub hint_for: Option<NodeId>,
    /// Why it is sent.
    pub purpose: Purpose,
}

/// Why a state is sent. It changes nothing in what a merge does; what is not a client's write gives way when the
/// receiver has too much to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Purpose {
    /// A client's write, or the write-back of a strict read, which a client waits for.
    Write,
    /// A read found that the receiver lacks something.
    ReadRepair,
    /// A hint is delivered.
    Handoff,
    /// An exchange found that the receiver lacks something.
    AntiEntropy,
    /// The same, of a partition that changes hands: acknowledged once it is durable, whatever the bucket asks.
    Transfer,
}

impl Purpose {
    /// Whether a client waits for it.
    pub fn is_urgent(self) -> bool {
        self == Purpose::Write
    }
}

/// Say what you know of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Read {
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// How much of it.
    pub want: Want,
    /// Answer only with what a power cut cannot take: wait for the sync of everything applied. Strict reads need it;
    /// what they have shown must stay.
    pub durable: bool,
    /// The version of the ring whose owners this read counts; `None` if it counts nothing.
    pub counted_for: Option<u64>,
}

/// How much of a key's state a read asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Want {
    /// Values and all.
    Full,
    /// Vector and dots: enough, if a full state in hand covers them.
    Header,
}

/// What a replica knows of a key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum State {
    /// Values and all.
    Full(Siblings<Version>),
    /// Vector and dots only.
    Header(Header),
}

/// List keys of an arc, in token order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scan {
    /// Bucket.
    pub bucket: BucketId,
    /// Arc.
    pub arc: ArcIndex,
    /// Continue after this position.
    pub after: Option<client::Cursor>,
    /// Most entries to answer with.
    pub limit: u32,
    /// The version of the ring whose owners this scan counts.
    pub counted_for: u64,
}

/// Some keys of an arc as one replica knows them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Page {
    /// Keys in token order, each with what is known of it, tombstones included.
    pub entries: Vec<(client::Cursor, Header)>,
    /// How far the replica has walked: nothing of the bucket up to here is missing. `None` at the end of the arc.
    pub next: Option<client::Cursor>,
}

impl Message {
    /// The same without an envelope that says where it belongs in a trace.
    pub fn into_plain(self) -> Message {
        let body = match self.body {
            Body::Request { deadline, request } => Body::Request { deadline, request: request.into_plain() },
            reply => reply,
        };
        Message { body, ..self }
    }

    /// The values that it carries, in their order, if they are what makes it large; else none.
    pub fn large_values(&self) -> Vec<Bytes> {
        let of = |bytes: usize| bytes >= SHARED_FROM;
        match &self.body {
            Body::Request { request, .. } if of(request.value_bytes()) => request.values().cloned().collect(),
            Body::Reply(Reply::State(State::Full(siblings))) if of(siblings.value_bytes()) => {
                values(siblings).cloned().collect()
            }
            Body::Request { .. } | Body::Reply(_) => Vec::new(),
        }
    }
}

impl Request {
    /// What a replica is asked, in an envelope if that belongs to a trace.
    pub fn of_replica(trace: Option<TraceContext>, request: ReplicaRequest) -> Request {
        match trace {
            Some(trace) => Request::Traced(Traced { trace, request }),
            None => Request::Replica(request),
        }
    }

    /// What a replica is asked, in an envelope or not.
    pub fn asks_replica(&self) -> Option<&ReplicaRequest> {
        match self {
            Request::Replica(request) | Request::Traced(Traced { request, .. }) => Some(request),
            Request::Forward(_) | Request::Ping | Request::Exchange(_) | Request::Membership(_) => None,
        }
    }

    /// The same without its envelope, if it has one: what is done is the same.
    pub fn into_plain(self) -> Request {
        match self {
            Request::Traced(Traced { request, .. }) => Request::Replica(request),
            plain => plain,
        }
    }

    /// Bytes of the values that it carries.
    pub fn value_bytes(&self) -> usize {
        self.values().map(Bytes::len).sum()
    }

    fn values(&self) -> impl Iterator<Item = &Bytes> + '_ {
        let (siblings, alone) = match self {
            Request::Replica(ReplicaRequest::Merge(merge))
            | Request::Traced(Traced { request: ReplicaRequest::Merge(merge), .. }) => (Some(&merge.siblings), None),
            Request::Forward(
                client::Request::Put(put)
                | client::Request::Observed(Observed { request: ObservedRequest::Put(put), .. }),
            ) => (None, Some(&put.value)),
            Request::Replica(_)
            | Request::Traced(_)
            | Request::Forward(_)
            | Request::Ping
            | Request::Exchange(_)
            | Request::Membership(_) => (None, None),
        };
        siblings.into_iter().flat_map(values).chain(alone)
    }
}

fn values(siblings: &Siblings) -> impl Iterator<Item = &Bytes> + '_ {
    siblings.values().filter_map(|version| version.value.as_ref())
}

/// How long so many bytes may take beyond what a message usually takes: on the way, to be copied, and onto a disk. What is
/// small takes no time of its own.
pub fn time_to_carry(bytes: usize) -> Duration {
    match bytes.checked_sub(FRAME_SHARED_MAX) {
        None | Some(0) => Duration::ZERO,
        Some(beyond) => Duration::from_micros(beyond as u64 / CARRIED_PER_MICROSECOND),
    }
}

/// Bytes: a tenth of a gigabit network, as clients reckon too.
const CARRIED_PER_MICROSECOND: u64 = 12;

/// A message on the wire: deadlines travel as what remains of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WireMessage {
    id: RequestId,
    ring_version: u64,
    body: WireBody,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum WireBody {
    Request { remaining_ms: u32, request: Request },
    Reply(Reply),
}

impl Body {
    /// Whether it is a request for whose answer nobody waits any more.
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        matches!(self, Body::Request { deadline, .. } if *deadline <= now)
    }

    /// Bytes of the values in it: what makes some messages larger than others by orders of magnitude.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Body::Request { request, .. } => request.value_bytes(),
            Body::Reply(reply) => reply.value_bytes(),
        }
    }
}

impl Reply {
    /// Bytes of the values that it carries.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Reply::State(State::Full(siblings)) => siblings.value_bytes(),
            Reply::Forwarded(
                client::Response::Read(read)
                | client::Response::Explained(Explained { response: ExplainedResponse::Read(read), .. }),
            ) => read.siblings.iter().map(|sibling| sibling.value.len()).sum(),
            _ => 0,
        }
    }
}

impl Message {
    /// For a peer whose connection goes by this version: of what an older one cannot read, what it can.
    pub fn in_version(self, version: ProtocolVersion) -> Message {
        match self.body {
            Body::Request { deadline, request: Request::Forward(client::Request::Observed(observed)) }
                if version < greeting::OBSERVED =>
            {
                let request = Request::Forward(observed.into_older());
                Message { body: Body::Request { deadline, request }, ..self }
            }
            Body::Request { deadline, request: Request::Traced(traced) } if version < greeting::OBSERVED => {
                Message { body: Body::Request { deadline, request: Request::Replica(traced.request) }, ..self }
            }
            // Asked for on an earlier connection, before its peer was set back to an older release.
            Body::Reply(Reply::Forwarded(client::Response::Explained(explained))) if version < greeting::OBSERVED => {
                Message { body: Body::Reply(Reply::Forwarded(explained.response.into())), ..self }
            }
            body => Message { body, ..self },
        }
    }

    /// For the wire: what remains of the deadline now, in whole milliseconds, rounded up so that it never arrives
    /// as zero while time is left.
    pub fn to_wire(self, now: Instant) -> WireMessage {
        let body = match self.body {
            Body::Request { deadline, request } => {
                let remaining_ms = deadline.since(now).as_micros().div_ceil(1000).try_into().unwrap_or(u32::MAX);
                WireBody::Request { remaining_ms, request }
            }
            Body::Reply(reply) => WireBody::Reply(reply),
        };
        WireMessage { id: self.id, ring_version: self.ring_version, body }
    }

    /// From the wire.
    pub fn from_wire(wire: WireMessage, now: Instant) -> Message {
        let body = match wire.body {
            WireBody::Request { remaining_ms, request } => {
                Body::Request { deadline: now + Duration::from_millis(remaining_ms.into()), request }
            }
            WireBody::Reply(reply) => Body::Reply(reply),
        };
        Message { id: wire.id, ring_version: wire.ring_version, body }
    }
}
