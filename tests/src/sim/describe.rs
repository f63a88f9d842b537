//! Messages in words, for the trace of a failing seed.

use bytes::Bytes;
use driftless_node::membership::Letter;
use driftless_node::peer::{Body, Exchange, Message, ReplicaRequest, Reply, Request, State, Traced};
use driftless_proto::causality::Payload;
use driftless_proto::client::{self, Class, Response};
use driftless_proto::{BucketId, Dot, Header, Key, Siblings, Topology, VersionVector, WriteId};
use driftless_ring::NodeId;

use super::history::{History, OpId, Slot, id_of, slot_text};
use super::{check, shape};

/// Which key a message is about, if it says.
pub fn slot_of_message(message: &Message) -> Option<Slot> {
    match &message.body {
        Body::Request { request, .. } => match request {
            Request::Replica(request) | Request::Traced(Traced { request, .. }) => match request {
                ReplicaRequest::Merge(merge) => Some((merge.bucket, merge.key.clone())),
                ReplicaRequest::Read(read) => Some((read.bucket, read.key.clone())),
                ReplicaRequest::Scan(_) => None,
            },
            Request::Forward(request) => slot_of_request(request),
            Request::Ping | Request::Exchange(_) | Request::Membership(_) => None,
        },
        Body::Reply(_) => None,
    }
}

/// Which key a client's request is about.
pub fn slot_of_request(request: &client::Request) -> Option<Slot> {
    match request.class() {
        Class::Key { bucket, key, .. } => Some((bucket, key.clone())),
        Class::Arc { .. } | Class::Node => None,
    }
}

/// A message between nodes.
pub fn message(message: &Message, history: &History) -> String {
    let id = message.id.0 & 0xffff;
    match &message.body {
        Body::Request { request, .. } => match request {
            Request::Replica(request) | Request::Traced(Traced { request, .. }) => match request {
                ReplicaRequest::Merge(merge) => {
                    let hint =
                        merge.hint_for.map_or(String::new(), |target| format!(", as a hint for {}", node(target)));
                    format!("#{id:04x} Merge ({:?}) {}{hint}", merge.purpose, siblings(&merge.siblings, history))
                }
                ReplicaRequest::Read(read) => {
                    format!("#{id:04x} Read {}", slot_text(&(read.bucket, read.key.clone())))
                }
                ReplicaRequest::Scan(_) => format!("#{id:04x} Scan"),
            },
            Request::Exchange(Exchange::Sums(sums)) => format!("#{id:04x} Sums of {}", sums.lines.len()),
            Request::Exchange(Exchange::Step { partition, request }) => {
                format!("#{id:04x} exchange {:04x} of {partition}: {:?}", request.exchange.0 & 0xffff, request.ask)
            }
            Request::Ping => format!("#{id:04x} Ping"),
            Request::Membership(letter) => format!("#{id:04x} {}", letter_text(letter)),
            Request::Forward(inner) => format!("#{id:04x} Forward {}", request_text(inner, history)),
        },
        Body::Reply(reply) => match reply {
            Reply::State(State::Full(state)) => format!("#{id:04x} State {}", siblings(state, history)),
            Reply::State(State::Header(state)) => format!("#{id:04x} Header {}", header(state, history)),
            Reply::Forwarded(response) => format!("#{id:04x} Forwarded {}", response_text(response)),
            other => format!("#{id:04x} {other:?}"),
        },
    }
}

/// A client's request.
pub fn request_text(request: &client::Request, history: &History) -> String {
    let context = |context: bool| if context { "with context" } else { "blind" };
    match request {
        client::Request::Get(get) => {
            let slot = slot_text(&(get.bucket, get.key.clone()));
            let further = if get.shown.is_empty() { String::new() } else { format!(", shown {}", get.shown.len()) };
            format!("get {slot}{}{further}", options(get.r, None, get.sloppy))
        }
        client::Request::Put(put) => format!(
            "put {} as {}, {}{}",
            slot_text(&(put.bucket, put.key.clone())),
            op(history.written(&(put.bucket, put.key.clone()), &put.value)),
            context(put.context.is_some()),
            options(None, put.w, put.sloppy)
        ),
        client::Request::Delete(delete) => format!(
            "delete {} as {}, {}{}",
            slot_text(&(delete.bucket, delete.key.clone())),
            op(asked_by(delete.bucket, &delete.key, None, delete.write_id, history)),
            context(delete.context.is_some()),
            options(delete.r, delete.w, delete.sloppy)
        ),
        client::Request::MergeState(merge) => {
            let slot = slot_text(&(merge.bucket, merge.key.clone()));
            format!("merge {slot}: {}{}", siblings(&merge.state, history), options(None, merge.w, None))
        }
        client::Request::Observed(observed) => {
            let further = if observed.profile.explain { ", to be explained" } else { "" };
            format!("{}{further}", request_text(&observed.clone().into_plain(), history))
        }
        other => format!("{other:?}"),
    }
}

/// An answer to a client.
pub fn response_text(response: &Response) -> String {
    match response {
        Response::Read(read) => {
            let values = read.siblings.iter().map(|sibling| match id_of(&sibling.value) {
                Some(id) => format!("op {id}"),
                None => format!("{:?}", sibling.value),
            });
            let values: Vec<_> = values.collect();
            let values = if values.is_empty() { "no value".to_owned() } else { values.join(", ") };
            format!("{values}, {}", if read.context.is_some() { "with context" } else { "never written" })
        }
        Response::Stored(stored) => format!(
            "stored, {} acks, {} siblings, {}",
            stored.acks,
            stored.siblings,
            if stored.context.is_some() { "with context" } else { "no context" }
        ),
        Response::Deleted(deleted) => format!("deleted, existed {}, {} acks", deleted.existed, deleted.acks),
        Response::Explained(explained) => {
            let told = &explained.explanation;
            let response = response_text(&explained.response.clone().into());
            format!("{response}, explained by {}", told.coordinator)
        }
        Response::Failed(failure) => format!("failed {:?}: {failure}", failure.outcome()),
        other => format!("{other:?}"),
    }
}

/// A key's state: its vector, and its live writes as operation numbers.
pub fn siblings(siblings: &Siblings, history: &History) -> String {
    header(&siblings.header(), history)
}

/// The same without values.
pub fn header(header: &Header, history: &History) -> String {
    if header.vv().is_empty() {
        return "nothing".to_owned();
    }
    let live: Vec<String> = header
        .live()
        .iter()
        .map(|(dot, outline)| {
            let mark = if outline.is_tombstone() { "x" } else { "" };
            let named = history.named(outline.write_id).find(|(_, op)| op.value_hash == outline.value_hash);
            let id = named.map_or("?".into(), |(id, _)| id.to_string());
            format!("{mark}{id}@{}", self::dot(*dot))
        })
        .collect();
    format!("{{{} | {}}}", vector(header.vv()), live.join(" "))
}

/// A dot with its actor shortened to four digits.
pub fn dot(dot: Dot) -> String {
    format!("{:04x}:{}", dot.actor.0 >> 48, dot.counter)
}

/// A write by the number of its operation.
pub fn op(id: Option<OpId>) -> String {
    id.map_or("a write that nobody made".to_owned(), |id| format!("op {id}"))
}

/// The operation that asks for this write.
fn asked_by(bucket: BucketId, key: &Key, value: Option<&Bytes>, write: WriteId, history: &History) -> Option<OpId> {
    match value {
        Some(value) => history.written(&(bucket, key.clone()), value),
        None => history.write(&(bucket, key.clone()), write, 0),
    }
}

/// A node by its number.
pub fn node(id: NodeId) -> String {
    let name = (0..NODES_MAX).map(shape::name_of).find(|name| NodeId::of_name(name) == id);
    name.unwrap_or_else(|| id.to_string())
}

/// Where a key belongs, and what its bucket asks for.
pub fn place(slot: &Slot, topology: &Topology) -> String {
    let owners: Vec<_> = check::primaries(topology, slot).into_iter().map(shape::name_of).collect();
    let bucket = topology.bucket(slot.0).expect("slots are drawn from the buckets");
    format!(
        "{} belongs to {}; unless a request says otherwise, n = {}, r = {}, w = {}, {}, {:?}, {:?}",
        slot_text(slot),
        owners.join(", "),
        bucket.quorum.n(),
        bucket.quorum.r(),
        bucket.quorum.w(),
        if bucket.sloppy { "sloppy" } else { "strict" },
        bucket.conflict,
        bucket.durability
    )
    .to_lowercase()
}

/// What a request asks for beside its bucket's numbers.
fn options(r: Option<u8>, w: Option<u8>, sloppy: Option<bool>) -> String {
    let number = |name: &str, number: Option<u8>| number.map(|number| format!(", {name} = {number}"));
    let mode = sloppy.map(|sloppy| if sloppy { ", sloppy" } else { ", strict" }.to_owned());
    [number("r", r), number("w", w), mode].into_iter().flatten().collect()
}

/// A vector with actors shortened to four digits.
pub fn vector(vv: &VersionVector) -> String {
    let entries: Vec<String> = vv.iter().map(|(actor, counter)| format!("{:04x}:{counter}", actor.0 >> 48)).collect();
    entries.join(" ")
}

/// No simulated cluster has more.
const NODES_MAX: usize = 16;

/// What the machines of the members say to each other.
fn letter_text(letter: &Letter) -> String {
    match letter {
        Letter::News(news) => {
            let marks: Vec<String> = news
                .marks
                .iter()
                .map(|(of, marks)| format!("{} {}/{}/{}", node(*of), marks.ready.newest(), marks.closed, marks.left))
                .collect();
            format!("News of version {}: {}", news.version, marks.join(", "))
        }
        Letter::Records { records, .. } => {
            let versions: Vec<String> = records.iter().map(|decided| decided.record.version().to_string()).collect();
            format!("Records {}", versions.join(", "))
        }
        Letter::Want { after } => format!("Want after {after}"),
        Letter::Prepare { slot, ballot, .. } => format!("Prepare {slot} in round {}", ballot.round),
        Letter::Promise { slot, ballot, accepted, .. } => {
            let accepted =
                accepted.as_ref().map_or(String::new(), |(with, _)| format!(", has one of round {}", with.round));
            format!("Promise {slot} in round {}{accepted}", ballot.round)
        }
        Letter::Nack { slot, promised } => format!("Nack {slot}, promised round {}", promised.round),
        Letter::Accept { ballot, record } => format!("Accept {} in round {}", record.version(), ballot.round),
        Letter::Accepted { slot, ballot, .. } => format!("Accepted {slot} in round {}", ballot.round),
    }
}
