//! Messages in words, for the trace of a failing seed.

use driftless_node::peer::{Body, Exchange, Message, Reply, Request, State};
use driftless_proto::causality::Payload;
use driftless_proto::client::{self, Response};
use driftless_proto::{Header, Siblings, VersionVector};

use super::history::{History, Slot, slot_text};

/// Which key a message is about, if it says.
pub fn slot_of_message(message: &Message) -> Option<Slot> {
    match &message.body {
        Body::Request { request, .. } => match request {
            Request::Write(write) => Some((write.bucket, write.key.clone())),
            Request::Merge(merge) => Some((merge.bucket, merge.key.clone())),
            Request::Read(read) => Some((read.bucket, read.key.clone())),
            Request::Forward(request) => slot_of_request(request),
            Request::Owe(owe) => Some((owe.bucket, owe.key.clone())),
            Request::Scan(_) | Request::Ping | Request::Exchange(_) => None,
        },
        Body::Reply(_) => None,
    }
}

/// Which key a client's request is about.
pub fn slot_of_request(request: &client::Request) -> Option<Slot> {
    match request {
        client::Request::Get(get) => Some((get.bucket, get.key.clone())),
        client::Request::Put(put) => Some((put.bucket, put.key.clone())),
        client::Request::Delete(delete) => Some((delete.bucket, delete.key.clone())),
        _ => None,
    }
}

/// A message between nodes.
pub fn message(message: &Message, history: &History) -> String {
    let id = message.id.0 & 0xffff;
    match &message.body {
        Body::Request { request, .. } => match request {
            Request::Write(write) => format!("#{id:04x} Write {:?}", history.with_write_id(write.write_id)),
            Request::Merge(merge) => format!("#{id:04x} Merge {}", siblings(&merge.siblings, history)),
            Request::Read(read) => format!("#{id:04x} Read {}", slot_text(&(read.bucket, read.key.clone()))),
            Request::Scan(_) => format!("#{id:04x} Scan"),
            Request::Owe(owe) => format!("#{id:04x} Owe {} to {}", slot_text(&(owe.bucket, owe.key.clone())), owe.to),
            Request::Exchange(Exchange::Sums(sums)) => format!("#{id:04x} Sums of {}", sums.lines.len()),
            Request::Exchange(Exchange::Step { partition, request }) => {
                format!("#{id:04x} exchange {:04x} of {partition}: {:?}", request.exchange.0 & 0xffff, request.ask)
            }
            Request::Ping => format!("#{id:04x} Ping"),
            Request::Forward(inner) => format!("#{id:04x} Forward {}", request_text(inner, history)),
        },
        Body::Reply(reply) => match reply {
            Reply::Stamped(stamped) => format!("#{id:04x} Stamped {}", siblings(&stamped.siblings, history)),
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
            format!("get {} r={:?} sloppy={:?}", slot_text(&(get.bucket, get.key.clone())), get.r, get.sloppy)
        }
        client::Request::Put(put) => format!(
            "put {} op {:?} {} w={:?} sloppy={:?}",
            slot_text(&(put.bucket, put.key.clone())),
            history.with_write_id(put.write_id),
            context(put.context.is_some()),
            put.w,
            put.sloppy
        ),
        client::Request::Delete(delete) => format!(
            "delete {} op {:?} {} r={:?} w={:?} sloppy={:?}",
            slot_text(&(delete.bucket, delete.key.clone())),
            history.with_write_id(delete.write_id),
            context(delete.context.is_some()),
            delete.r,
            delete.w,
            delete.sloppy
        ),
        other => format!("{other:?}"),
    }
}

/// An answer to a client.
pub fn response_text(response: &Response) -> String {
    match response {
        Response::Read(read) => {
            let values: Vec<_> = read.siblings.iter().map(|sibling| super::history::id_of(&sibling.value)).collect();
            format!("read {values:?}, {}", if read.context.is_some() { "with context" } else { "never written" })
        }
        Response::Stored(stored) => format!(
            "stored, {} acks, {} siblings, {}",
            stored.acks,
            stored.siblings,
            if stored.context.is_some() { "with context" } else { "no context" }
        ),
        Response::Deleted(deleted) => format!("deleted, existed {}, {} acks", deleted.existed, deleted.acks),
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
    let live: Vec<String> = header
        .live()
        .iter()
        .map(|(dot, outline)| {
            let mark = if outline.is_tombstone() { "x" } else { "" };
            let id = history.with_write_id(outline.write_id).map_or("?".into(), |id| id.to_string());
            format!("{mark}{id}@{:04x}:{}", dot.actor.0 >> 48, dot.counter)
        })
        .collect();
    format!("{{{} | {}}}", vector(header.vv()), live.join(" "))
}

/// A vector with actors shortened to four digits.
pub fn vector(vv: &VersionVector) -> String {
    let entries: Vec<String> = vv.iter().map(|(actor, counter)| format!("{:04x}:{counter}", actor.0 >> 48)).collect();
    entries.join(" ")
}
