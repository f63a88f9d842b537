//! What arrives over the network.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use driftless_node::liveness::clocks::{ClockSettings, Clocks, Stance};
use driftless_node::liveness::detector::{Detector, DetectorConfig, DetectorSettings, Output};
use driftless_node::peer::{
    Body, Exchange, Exchanged, Hello, Incarnation, Message, Page, ReplicaRequest, Reply, Request, State, Traced,
    WireMessage,
};
use driftless_node::probe;
use driftless_node::time::{Instant, Now};
use driftless_proto::causality::ContextKey;
use driftless_proto::client::{RequestFrame, Response, ResponseFrame};
use driftless_proto::frame::{self, FRAME_PEER_MAX, FRAME_SHARED_MAX, FrameReader, LENGTH_BYTES};
use driftless_proto::{Context, ContextKeys, ContextToken, Hlc, ProtocolVersions, Siblings, greeting};
use driftless_ring::NodeId;

use super::laws;
use super::samples;

/// A stream cut into pieces. The first byte says how long the pieces are.
pub fn frames(bytes: &[u8]) {
    let [piece, stream @ ..] = bytes else { return };
    let whole = bodies(stream.chunks(stream.len().max(1)));
    let pieces = bodies(stream.chunks(usize::from(*piece).max(1)));
    assert_eq!(whole, pieces, "the pieces in which a stream arrives change nothing");
    let (bodies, ended) = whole;
    let mut written = Vec::new();
    for body in &bodies {
        written.extend((body.len() as u32).to_le_bytes());
        written.extend(body);
    }
    assert!(stream.starts_with(&written));
    assert_eq!(ended.as_deref() == Ok("whole"), stream == written);
}

/// The frames of a stream, and how it ended: "whole", "cut off", or why it cannot be read on.
fn bodies<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Bytes>, Result<String, String>) {
    let mut reader = FrameReader::new(FRAME_SHARED_MAX);
    let mut bodies = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        loop {
            match reader.next_frame() {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => break,
                Err(error) => return (bodies, Err(error.to_string())),
            }
        }
    }
    let end = if reader.finish().is_ok() { "whole" } else { "cut off" };
    (bodies, Ok(end.to_owned()))
}

/// The body of a frame from a client.
pub fn client_requests(bytes: &[u8]) {
    let Some(frame) = laws::arrives::<RequestFrame>(bytes) else { return };
    let _ = (frame.request.is_read(), format!("{:?}", frame.request));
}

/// The body of a frame from a node to a client.
pub fn client_responses(bytes: &[u8]) {
    let Some(frame) = laws::arrives::<ResponseFrame>(bytes) else { return };
    match &frame.response {
        Response::Topology(topology) => laws::of_topology(topology),
        Response::Failed(failure) => drop((failure.to_string(), failure.outcome())),
        _ => {}
    }
}

/// The body of a frame from a peer, after the hello.
pub fn peer_messages(bytes: &[u8]) {
    let Some(wire) = laws::arrives::<WireMessage>(bytes) else { return };
    let now = Instant(1_000_000);
    let message = Message::from_wire(wire.clone(), now);
    let again = laws::encoded(&message.clone().to_wire(now));
    assert_eq!(again, laws::encoded(&wire), "deadlines are whole milliseconds: {message:?}");
    let pieces = frame::encode_in_pieces(&wire, &message.large_values(), FRAME_PEER_MAX).expect("fits: it has arrived");
    assert_eq!(pieces.concat()[LENGTH_BYTES..], again, "a frame in pieces is the same frame");
    match &message.body {
        Body::Request { request, .. } => of_request(request),
        Body::Reply(reply) => of_reply(reply),
    }
}

// No arm for "the others": a variant that is new has to be thought of here.
fn of_request(request: &Request) {
    match request {
        Request::Replica(ReplicaRequest::Merge(merge))
        | Request::Traced(Traced { request: ReplicaRequest::Merge(merge), .. }) => laws::of_siblings(&merge.siblings),
        Request::Exchange(Exchange::Step { request, .. }) => {
            assert_eq!(request.encoded_len(), laws::encoded(request).len());
        }
        Request::Exchange(Exchange::Sums(sums)) => assert_eq!(sums.encoded_len(), laws::encoded(sums).len()),
        Request::Replica(ReplicaRequest::Read(_) | ReplicaRequest::Scan(_))
        | Request::Traced(Traced { request: ReplicaRequest::Read(_) | ReplicaRequest::Scan(_), .. })
        | Request::Forward(_)
        | Request::Membership(_)
        | Request::Ping => {}
    }
}

fn of_reply(reply: &Reply) {
    match reply {
        Reply::State(State::Full(siblings)) => laws::of_siblings(siblings),
        Reply::State(State::Header(header)) => laws::of_header(header),
        Reply::Page(Page { entries, .. }) => {
            for pair in entries.windows(2) {
                laws::of_header(&pair[0].1);
                laws::of_two(&pair[0].1, &pair[1].1);
            }
        }
        Reply::Exchanged(Exchanged::Step(reply)) => assert_eq!(reply.encoded_len(), laws::encoded(reply).len()),
        Reply::Exchanged(Exchanged::Unequal(unequal)) => {
            assert_eq!(unequal.encoded_len(), laws::encoded(unequal).len());
        }
        Reply::Refused(refusal) => drop(refusal.to_string()),
        Reply::Acked | Reply::Coming { .. } | Reply::Forwarded(_) | Reply::Lost | Reply::Pong => {}
    }
}

/// The first frame of a peer connection.
pub fn hello(bytes: &[u8]) {
    let Some(hello) = probe::read_hello(bytes) else { return };
    let (versions, rest) = greeting::read(bytes).expect("was read");
    assert!(versions.in_common_with(ProtocolVersions::OURS).is_ok(), "read no further otherwise: {versions}");
    let known = laws::encoded(&hello);
    assert!(known.len() <= rest.len(), "what follows it is left: {hello:?}");
    assert_eq!(laws::arrives::<Hello>(&known).as_ref(), Some(&hello));
    let topology = samples::topology();
    let [me, peer, ..] = samples::members(&topology)[..] else { return };
    let ours = probe::our_hello(me, Incarnation { starts: 1, nonce: 1 }, &topology);
    if probe::hello_fits(&ours, &hello, peer, &topology) {
        assert_eq!((&hello.cluster, hello.node), (&ours.cluster, peer));
        assert!(hello.ring_version != ours.ring_version || hello.topology_digest == ours.topology_digest);
    }
}

/// Datagrams of a peer to the clocks, and what is in them to the detector, each after two bytes: how much time passes before it (in steps of 10 ms), and its
/// length.
pub fn datagrams(bytes: &[u8]) {
    let members: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let config = DetectorConfig {
        node: members[0],
        incarnation: Incarnation { starts: 3, nonce: 0 },
        members: members.clone(),
        settings: DetectorSettings::default(),
        seed: [1; 32],
        metrics: Arc::default(),
    };
    let mut now = Instant(7_000_000);
    let mut detector = Detector::new(config, now);
    let mut clocks = Clocks::new(members[0], members.clone(), ClockSettings { off_max: Duration::from_secs(60) });
    let mut rest = bytes;
    for _ in 0..DATAGRAMS_MAX {
        let [passes, length, after @ ..] = rest else { break };
        now = now + Duration::from_millis(u64::from(*passes) * 10);
        let (datagram, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        let (mut outputs, mut reported) = (0, BTreeMap::new());
        if detector.poll_timeout() <= now {
            detector.handle_timeout(now);
        }
        let both = Now { instant: now, wall: Hlc::from_millis(1_700_000_000_000 + now.0 / 1000) };
        if let Some(said) = clocks.open(both, members[1], datagram) {
            detector.handle_datagram(both, members[1], said);
        }
        let standing = clocks.standing();
        assert!(standing.heard <= 1 && standing.stance != Stance::Off, "one voice is no majority");
        while let Some(output) = detector.poll_output() {
            outputs += 1;
            match output {
                Output::Send { to, bytes } => {
                    assert!(to != members[0] && members.contains(&to), "sent to {to}");
                    assert!(bytes.len() <= 1_100, "{} bytes in a datagram", bytes.len());
                }
                Output::Changed { peer, liveness } => drop(reported.insert(peer, liveness)),
            }
        }
        for (peer, liveness) in reported {
            assert_eq!(detector.liveness(peer), Some(liveness), "the last that was reported of {peer}");
        }
        assert!(outputs <= 100, "one datagram set off {outputs} outputs");
    }
    assert!(detector.poll_timeout() <= now + Duration::from_secs(10), "it goes on probing");
}

/// A context token as bytes, as text, and what is in it once the seal is right.
pub fn context_tokens(bytes: &[u8]) {
    static KEYS: LazyLock<ContextKeys> =
        LazyLock::new(|| ContextKeys::new(vec![ContextKey { id: 1, secret: SECRET }]).expect("one key"));
    let (bucket, key) = (samples::bucket(), samples::key());
    let open = |bytes: &[u8]| {
        let token = ContextToken::from(Bytes::copy_from_slice(bytes));
        assert_eq!(token.to_string().parse().as_ref(), Ok(&token), "text is as good as bytes");
        if let Ok(context) = KEYS.open(bucket, &key, &token) {
            let again = KEYS.seal(bucket, &key, &context);
            assert_eq!(KEYS.open(bucket, &key, &again).as_ref(), Ok(&context));
            assert!(Siblings::<driftless_proto::Version>::from_parts(context.vv, Vec::new()).is_ok());
            assert!(again.as_bytes().len() <= bytes.len(), "sealed anew it is no longer");
        }
    };
    open(bytes);
    open(&sealed(bytes));
    if let Ok(token) = std::str::from_utf8(bytes).unwrap_or_default().parse::<ContextToken>() {
        open(token.as_bytes());
    }
    if let Some(context) = laws::arrives::<Context>(bytes) {
        let token = KEYS.seal(bucket, &key, &context);
        assert_eq!(KEYS.open(bucket, &key, &token), Ok(context));
    }
}

/// Any bytes with the seal that a cluster with our key would give them.
fn sealed(body: &[u8]) -> Vec<u8> {
    let (bucket, key) = (samples::bucket(), samples::key());
    let mut hasher = blake3::Hasher::new_keyed(&SECRET);
    hasher.update(&bucket.0.to_be_bytes());
    hasher.update(&(key.as_bytes().len() as u32).to_be_bytes());
    hasher.update(key.as_bytes());
    hasher.update(body);
    let mut seal = [0; 16];
    hasher.finalize_xof().fill(&mut seal);
    [body, &seal].concat()
}

/// The ids of the nodes that a stream of datagrams is between: from the second to the first.
pub(super) fn datagram_sender() -> (NodeId, Vec<NodeId>) {
    (NodeId(2), (1..=3).map(NodeId).collect())
}

pub(super) const SECRET: [u8; 32] = [9; 32];

const DATAGRAMS_MAX: usize = 16;
