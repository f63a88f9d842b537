//! `docs/wire-format.md`, held against the code: what each message of clients consists of stands there as this test writes it
//! (`DRIFTLESS_BLESS=1`), and so do the bytes of the examples, and the numbers of what nodes say to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use driftless_node::liveness::clocks::{ClockSettings, Clocks};
use driftless_node::peer::{Body, Hello, Incarnation, Message, Request, RequestId};
use driftless_node::time::{Instant, Now};
use driftless_proto::client::{self, RequestFrame, Response, ResponseFrame, Severity};
use driftless_proto::frame;
use driftless_proto::membership::{Change, ClusterAnswer, ClusterCommand, StoreId};
use driftless_proto::{
    ActorId, BucketId, Context, ContextToken, Dot, Failure, Hlc, Key, Missing, ProtocolVersions, Refusal, Role,
    VersionVector, WriteId, greeting,
};
use driftless_ring::{NodeId, Partitions, Token};
use driftless_testkit::{context_keys, pages};
use driftless_tests::decoders::{samples, variants};
use serde::Serialize;
use serde_reflection::{ContainerFormat, Format, Named, Registry, Samples, Tracer, TracerConfig, VariantFormat};

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire-format.md"))
}

fn page() -> String {
    std::fs::read_to_string(path()).expect("the page can be read")
}

#[test]
fn what_clients_and_nodes_say_stands_in_the_page() {
    let (page, types) = (page(), types());
    let place = pages::block(&page, "types").expect("the page has a block of types");
    if std::env::var_os("DRIFTLESS_BLESS").is_some() {
        let renewed = [&page[..place.start], &types, &page[place.end..]].concat();
        std::fs::write(path(), renewed).expect("the page can be written");
    } else {
        assert!(
            page[place] == types,
            "the types in docs/wire-format.md are not those of the code: run this with DRIFTLESS_BLESS=1"
        );
    }
}

/// Every type that a frame of either side may hold, each once, in the order in which they are met.
fn types() -> String {
    let (mut tracer, mut values) = (Tracer::new(TracerConfig::default()), Samples::new());
    let ring_version = 1;
    for request in samples::client_requests().into_iter().chain(other_requests()) {
        let frame = RequestFrame { id: 1, ring_version, deadline_ms: 1, request };
        tracer.trace_value(&mut values, &frame).expect("a request has a form");
    }
    for response in samples::client_responses().into_iter().chain(other_responses()) {
        let frame = ResponseFrame { id: 1, ring_version, response };
        tracer.trace_value(&mut values, &frame).expect("an answer has a form");
    }
    let registry = tracer.registry().expect("the samples have something of every type");
    assert_eq!(variants::missing(&ROLES), [""; 0]);
    assert_eq!(variants::missing(&missings()), [""; 0]);
    assert_eq!(variants::missing(&SEVERITIES), [""; 0]);
    let mut seen = BTreeSet::new();
    let mut all = String::new();
    for first in ["RequestFrame", "ResponseFrame"] {
        write_type(&registry, first, &mut seen, &mut all);
    }
    assert_eq!(seen.len(), registry.len(), "a type is used by no other");
    all
}

/// With values that no sample has, so that the form of each field is known.
fn other_requests() -> [client::Request; 2] {
    let delete = client::Delete {
        bucket: BucketId::DEFAULT,
        key: bat(),
        context: None,
        r: None,
        w: Some(2),
        sloppy: Some(true),
        write_id: WriteId(1),
    };
    let set = Change::Set { name: "n1".to_owned(), weight: None, zone: Some("far".to_owned()) };
    [client::Request::Delete(delete), client::Request::Cluster(ClusterCommand::Stage(set))]
}

fn other_responses() -> Vec<Response> {
    let mut all = samples::client_responses();
    for response in &mut all {
        match response {
            Response::Status(status) => {
                let of =
                    |severity| status.conditions.iter().cloned().map(move |it| client::Condition { severity, ..it });
                status.conditions = SEVERITIES.into_iter().flat_map(of).collect();
                status.hints = Some(1);
            }
            Response::Hints(hints) => hints.iter_mut().for_each(|hints| hints.eta_ms = Some(1)),
            Response::Cluster(ClusterAnswer::State(state)) => state.forced_on = Some(1),
            _ => {}
        }
    }
    let refusals = ROLES.into_iter().cycle().zip(missings()).chain(ROLES.map(|role| (role, Missing::Role)));
    all.extend(refusals.map(|(role, missing)| {
        let certificate = "driftless://shop/client/web".to_owned();
        Response::Failed(Failure::Refused(Refusal::NotAllowed { certificate, role, needed: role, missing }))
    }));
    all
}

const ROLES: [Role; 4] = [Role::None, Role::Reader, Role::Writer, Role::Operator];

const SEVERITIES: [Severity; 3] = [Severity::Note, Severity::Warning, Severity::Critical];

fn missings() -> [Missing; 3] {
    [Missing::Role, Missing::Bucket("carts".to_owned()), Missing::Buckets]
}

fn write_type(registry: &Registry, name: &str, seen: &mut BTreeSet<String>, all: &mut String) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    let (parts, between) = match &registry[name] {
        ContainerFormat::UnitStruct => (vec!["nothing".to_owned()], ""),
        ContainerFormat::NewTypeStruct(inner) => (vec![written(inner)], ""),
        ContainerFormat::TupleStruct(inner) => (inner.iter().map(written).collect(), ", "),
        ContainerFormat::Struct(parts) => (fields(parts), ", "),
        ContainerFormat::Enum(variants) => {
            assert!(variants.keys().copied().eq(0..variants.len() as u32), "a variant of {name} is in no sample");
            let variant = |(number, variant): (&u32, &Named<VariantFormat>)| {
                let held = match &variant.value {
                    VariantFormat::Unit | VariantFormat::Variable(_) => String::new(),
                    VariantFormat::NewType(inner) => format!(" ({})", written(inner)),
                    VariantFormat::Tuple(inner) => {
                        format!(" ({})", inner.iter().map(written).collect::<Vec<_>>().join(", "))
                    }
                    VariantFormat::Struct(parts) => format!(" ({})", fields(parts).join(", ")),
                };
                format!("{number} {}{held}", variant.name)
            };
            (variants.iter().map(variant).collect(), " | ")
        }
    };
    all.push_str(&wrapped(&format!("{name:<WIDTH$} "), &parts, between));
    let mut inner = Vec::new();
    registry[name].visit_names(&mut inner);
    inner.iter().for_each(|inner| write_type(registry, inner, seen, all));
}

/// What other types one is made of.
trait Names {
    fn visit_names(&self, names: &mut Vec<String>);
}

impl Names for ContainerFormat {
    fn visit_names(&self, names: &mut Vec<String>) {
        use serde_reflection::FormatHolder;
        self.visit(&mut |format| {
            if let Format::TypeName(name) = format {
                names.push(name.clone());
            }
            Ok(())
        })
        .expect("all of it is known");
    }
}

fn fields(parts: &[Named<Format>]) -> Vec<String> {
    parts.iter().map(|part| format!("{}: {}", part.name, written(&part.value))).collect()
}

fn written(format: &Format) -> String {
    match format {
        Format::TypeName(name) => name.clone(),
        Format::Str => "text".to_owned(),
        Format::Option(inner) => format!("{}?", written(inner)),
        Format::Seq(inner) => format!("[{}]", written(inner)),
        Format::Map { key, value } => format!("[({}, {})]", written(key), written(value)),
        Format::Tuple(inner) => format!("({})", inner.iter().map(written).collect::<Vec<_>>().join(", ")),
        Format::TupleArray { content, size } => format!("({})", vec![written(content); *size].join(", ")),
        plain => format!("{plain:?}").to_lowercase(),
    }
}

/// In lines that a page takes.
fn wrapped(head: &str, parts: &[String], between: &str) -> String {
    let (mut all, mut line) = (String::new(), head.to_owned());
    for (at, part) in parts.iter().enumerate() {
        let part = if at + 1 < parts.len() { format!("{part}{between}") } else { part.clone() };
        if line.len() + part.trim_end().len() > LINE_MAX && line.len() > WIDTH + 1 {
            all.push_str(line.trim_end());
            all.push('\n');
            line = " ".repeat(WIDTH + 1);
        }
        line.push_str(&part);
    }
    all + line.trim_end() + "\n"
}

const WIDTH: usize = 16;
const LINE_MAX: usize = 120;

/// The name and number of each variant that the samples have.
fn numbered<T: Serialize + std::fmt::Debug>(all: impl IntoIterator<Item = T>) -> BTreeMap<String, u8> {
    let name =
        |value: &T| format!("{value:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    all.into_iter().map(|value| (name(&value), postcard::to_stdvec(&value).expect("encodes")[0])).collect()
}

#[test]
fn what_nodes_say_to_each_other_has_the_numbers_that_the_page_says() {
    let page = page();
    let letters = samples::peer_requests().into_iter().filter_map(|request| match request {
        Request::Membership(letter) => Some(*letter),
        _ => None,
    });
    let replicas = samples::peer_requests().into_iter().filter_map(|request| match request {
        Request::Replica(request) => Some(request),
        _ => None,
    });
    let (asks, answers) = samples::asks_and_answers();
    for (kind, numbers) in [
        ("request", numbered(samples::peer_requests())),
        ("replica", numbered(replicas)),
        ("reply", numbered(samples::peer_replies())),
        ("letter", numbered(letters)),
        ("ask", numbered(asks)),
        ("answer", numbered(answers)),
    ] {
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let (of, number, name) = (cells.next()?, cells.next()?, cells.next()?);
            (of == kind).then(|| (name.trim_matches('`').to_owned(), number.parse().expect("a number")))
        };
        let documented: BTreeMap<String, u8> = page.lines().filter_map(row).collect();
        assert_eq!(documented, numbers, "{kind}");
    }
}

fn bat() -> Key {
    Key::new("bat").expect("a key")
}

/// What a reader has seen who has seen so many writes of one actor.
fn token(writes: u64) -> ContextToken {
    let vv = VersionVector::from_iter([Dot::new(ActorId(10), writes)]);
    let context = Context { vv, written_at: Hlc::from_millis(1_700_000_000_000) };
    context_keys().seal(BucketId::DEFAULT, &bat(), &context)
}

fn framed<M: Serialize>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(message, &mut bytes).expect("short");
    bytes
}

#[test]
fn the_examples_of_a_client_are_what_the_code_says() {
    let page = page();
    let greeting = greeting::encode(ProtocolVersions::OURS, &()).expect("short");
    pages::assert_bytes(&page, "greeting", &greeting);
    let request = |id, ring_version, request| framed(&RequestFrame { id, ring_version, deadline_ms: 2_000, request });
    pages::assert_bytes(&page, "topology", &request(1, 0, client::Request::Topology));
    let get =
        client::Get { bucket: BucketId::DEFAULT, key: bat(), r: None, sloppy: None, explain: false, shown: Vec::new() };
    pages::assert_bytes(&page, "get", &request(2, 1, client::Request::Get(get)));
    let answer = |id, response| framed(&ResponseFrame { id, ring_version: 1, response });
    let sibling =
        client::Sibling { value: Bytes::from_static(b"one"), written_at: Hlc::from_millis(1_700_000_000_000) };
    let basis = client::Basis { needed: 2, primaries: 2 };
    let read = client::Read { siblings: vec![sibling], context: Some(token(1)), basis, page: None, explanation: None };
    pages::assert_bytes(&page, "read", &answer(2, Response::Read(read)));
    let put = client::Put {
        bucket: BucketId::DEFAULT,
        key: bat(),
        value: Bytes::from_static(b"two"),
        context: Some(token(1)),
        w: Some(3),
        sloppy: None,
        write_id: WriteId(300),
    };
    pages::assert_bytes(&page, "put", &request(3, 1, client::Request::Put(put)));
    let stored = client::Stored { context: Some(token(2)), acks: 3, primaries: 3, siblings: 1, live: true };
    pages::assert_bytes(&page, "stored", &answer(3, Response::Stored(stored)));
    let refused = Response::Failed(Failure::Refused(Refusal::Overloaded { retry_after_ms: 50 }));
    pages::assert_bytes(&page, "refused", &answer(4, refused));
}

#[test]
fn the_examples_of_a_node_are_what_the_code_says() {
    let page = page();
    let hello = Hello {
        cluster: "shop".to_owned(),
        node: NodeId(7),
        incarnation: Incarnation { starts: 3, nonce: 9 },
        knows: None,
        ring_version: 1,
        topology_digest: 5,
        shard: 0,
        store: StoreId(6),
    };
    pages::assert_bytes(&page, "hello", &greeting::encode(ProtocolVersions::OURS, &hello).expect("short"));
    let deadline = Instant(0) + Duration::from_secs(2);
    let ping = Message { id: RequestId(7), ring_version: 1, body: Body::Request { deadline, request: Request::Ping } };
    pages::assert_bytes(&page, "ping", &framed(&ping.to_wire(Instant(0))));
    let clocks = Clocks::new(NodeId(1), [NodeId(2)], ClockSettings { off_max: Duration::from_secs(5) });
    let now = Now { instant: Instant(1_000), wall: Hlc::from_millis(1_700_000_000_000) };
    pages::assert_bytes(&page, "stamp", &clocks.seal(now, NodeId(2), &[]));
}

#[test]
fn the_place_of_a_key_is_the_one_that_the_page_works_out() {
    let token = Token::of(7, 0, b"bat");
    let arc = Partitions::new(8).expect("a power of two").arc_of(token);
    let said = format!("`{:016x}`, which is in arc {arc} of 8", token.0);
    assert!(page().contains(&said), "the page does not say {said}");
}

#[test]
fn the_limits_in_the_page_are_those_of_the_code() {
    use driftless_antientropy::{LINES_MAX, message};
    use driftless_proto::{bucket::Quorum, key, membership};
    let page = page();
    let spoken = format!("speaks protocol versions {}", ProtocolVersions::OURS);
    assert!(page.contains(&spoken), "the page does not say {spoken}");
    let code = [
        ("LENGTH_BYTES", frame::LENGTH_BYTES),
        ("FRAME_SHARED_MAX", frame::FRAME_SHARED_MAX),
        ("FRAME_MAX", frame::FRAME_MAX),
        ("FRAME_PEER_MAX", frame::FRAME_PEER_MAX),
        ("PACKET_MAX", frame::PACKET_MAX.into()),
        ("KEY_BYTES_MAX", key::KEY_BYTES_MAX),
        ("VALUE_BYTES_MAX", key::VALUE_BYTES_MAX),
        ("SIBLINGS_MAX", key::SIBLINGS_MAX),
        ("SIBLING_BYTES_MAX", key::SIBLING_BYTES_MAX),
        ("STATE_BYTES_MAX", key::STATE_BYTES_MAX),
        ("N_MAX", Quorum::N_MAX.into()),
        ("VOTERS_MAX", membership::VOTERS_MAX),
    ];
    pages::assert_constants(&page, "proto/", &code.map(|(name, number)| (name, number as u64)));
    let ring = [("MEMBERS_MAX", driftless_ring::MEMBERS_MAX as u64), ("MAX", Partitions::MAX.into())];
    pages::assert_constants(&page, "ring/", &ring);
    let exchanges = [
        ("FORMAT", message::FORMAT.into()),
        ("NODES_MAX", message::NODES_MAX),
        ("LEAVES_MAX", message::LEAVES_MAX),
        ("ENTRIES_MAX", message::ENTRIES_MAX),
        ("DIFFER_MAX", message::DIFFER_MAX),
        ("LINES_MAX", LINES_MAX),
    ];
    pages::assert_constants(&page, "antientropy/", &exchanges.map(|(name, number)| (name, number as u64)));
}
