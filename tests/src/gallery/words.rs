//! Messages in short words. Dots get the name of the node that stamped them: `a1` is the first write that node A stamped,
//! `a′1` the first of its next actor. A value is shown with its dot, `red@a1`; of what a state has seen beyond that, only
//! the newest dots are named.

use std::collections::{BTreeMap, BTreeSet};

use driftless_node::peer::{
    Body, Exchange, Exchanged, Message, Purpose, ReplicaRequest, Reply, Request, RequestId, State, Want,
};
use driftless_proto::causality::Payload;
use driftless_proto::client::{self, Response};
use driftless_proto::{ActorId, Dot, Failure, Outcome, Refusal, Siblings, Unknown, VersionVector};
use driftless_ring::NodeId;

use super::story::NODES;

/// The names of everything that has been stamped so far.
#[derive(Debug, Default)]
pub struct Names {
    actors: BTreeMap<ActorId, (usize, String)>,
    values: BTreeMap<Dot, String>,
    nodes: BTreeMap<NodeId, usize>,
    /// Requests that began by reading: what they merge is a write-back.
    reads: BTreeSet<RequestId>,
}

impl Names {
    /// Nodes by number.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Names {
        Names { nodes: nodes.into_iter().zip(0..).collect(), ..Names::default() }
    }

    /// A batch of this node holds this state: what nobody has seen before, it has stamped.
    pub fn learn(&mut self, node: usize, siblings: &Siblings) {
        for (dot, version) in siblings.live() {
            let known = self.actors.values().filter(|(owner, _)| *owner == node).count();
            self.actors
                .entry(dot.actor)
                .or_insert_with(|| (node, format!("{}{}", NODES[node].to_lowercase(), "′".repeat(known))));
            let value = version.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
            self.values.entry(*dot).or_insert_with(|| value.unwrap_or_else(|| "deleted".to_owned()));
        }
    }

    /// A message leaves: later ones are understood by it.
    pub fn note(&mut self, message: &Message) {
        if let Body::Request { request: Request::Replica(ReplicaRequest::Read(_)), .. } = &message.body {
            self.reads.insert(message.id);
        }
    }

    /// What a replica holds.
    pub fn state<P: Payload>(&self, siblings: &Siblings<P>) -> String {
        if siblings.is_empty() {
            return "nothing".to_owned();
        }
        let mut live: Vec<String> = siblings.live().iter().map(|(dot, _)| self.value(*dot)).collect();
        live.sort();
        let is_live = |dot: Dot| siblings.get(dot).is_some();
        let beyond = siblings.vv().iter().map(|(actor, counter)| Dot::new(actor, counter));
        let mut beyond: Vec<String> = beyond.filter(|dot| !is_live(*dot)).map(|dot| self.dot(dot)).collect();
        beyond.sort();
        if beyond.is_empty() {
            live.join(" + ")
        } else {
            format!("{}, has seen {}", live.join(" + "), beyond.join(" "))
        }
    }

    /// What a client has read.
    pub fn vector(&self, vv: &VersionVector) -> String {
        let mut dots: Vec<String> = vv.iter().map(|(actor, counter)| self.dot(Dot::new(actor, counter))).collect();
        dots.sort();
        dots.join(" ")
    }

    /// What nodes say to each other.
    pub fn message(&self, message: &Message) -> Said {
        Said::Words(match &message.body {
            Body::Request { request, .. } => match request {
                Request::Replica(ReplicaRequest::Merge(merge)) => {
                    let state = self.state(&merge.siblings);
                    match (merge.hint_for.map(|target| self.node(target)), merge.purpose) {
                        (Some(target), _) => format!("merge {state}; hint for {target}"),
                        (None, Purpose::ReadRepair) => format!("merge {state}; read repair"),
                        (None, Purpose::Handoff) => format!("merge {state}; handed off"),
                        (None, Purpose::AntiEntropy) => format!("merge {state}; anti-entropy"),
                        (None, Purpose::Transfer) => format!("merge {state}; handed over"),
                        (None, Purpose::Write) if self.reads.contains(&message.id) => {
                            format!("merge {state}; write-back")
                        }
                        (None, Purpose::Write) => format!("merge {state}"),
                    }
                }
                Request::Replica(ReplicaRequest::Read(read)) if read.want == Want::Header => "read a digest".to_owned(),
                Request::Replica(ReplicaRequest::Read(_)) => "read".to_owned(),
                Request::Forward(_) => "forwarded".to_owned(),
                Request::Exchange(Exchange::Step { .. }) => return Said::Comparing,
                Request::Exchange(Exchange::Sums(_))
                | Request::Ping
                | Request::Membership(_)
                // No client of a story traces its requests.
                | Request::Traced(_)
                | Request::Replica(ReplicaRequest::Scan(_)) => {
                    return Said::Nothing;
                }
            },
            Body::Reply(reply) => match reply {
                Reply::Acked => "on disk".to_owned(),
                Reply::State(State::Full(siblings)) => format!("has {}", self.state(siblings)),
                Reply::State(State::Header(header)) => format!("digest: {}", self.state(header)),
                Reply::Forwarded(response) => response_text(response),
                Reply::Refused(refusal) => format!("refused: {refusal}"),
                Reply::Coming { bytes } => format!("{bytes} bytes follow"),
                Reply::Lost => "cannot say".to_owned(),
                Reply::Exchanged(Exchanged::Step(_)) => return Said::Comparing,
                Reply::Exchanged(Exchanged::Unequal(_)) | Reply::Pong | Reply::Page(_) => return Said::Nothing,
            },
        })
    }

    fn value(&self, dot: Dot) -> String {
        format!("{}@{}", self.values.get(&dot).map_or("?", String::as_str), self.dot(dot))
    }

    fn dot(&self, dot: Dot) -> String {
        format!("{}{}", self.actors.get(&dot.actor).map_or("?", |(_, name)| name), dot.counter)
    }

    fn node(&self, id: NodeId) -> &'static str {
        self.nodes.get(&id).map_or("?", |node| NODES[*node])
    }
}

/// A message as far as a reader cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Worth a line.
    Words(String),
    /// Part of an exchange of anti-entropy.
    Comparing,
    /// Not worth one.
    Nothing,
}

/// What a client is told.
pub fn response_text(response: &Response) -> String {
    match response {
        Response::Read(read) => match &values(read)[..] {
            [] => "nothing".to_owned(),
            [one] => one.clone(),
            several => format!("{} ({} siblings)", several.join(" + "), several.len()),
        },
        Response::Stored(stored) => {
            let siblings = match stored.siblings {
                0 | 1 => String::new(),
                several => format!("; {several} siblings, so no context"),
            };
            format!("stored: {}{siblings}", acks(stored.acks, stored.primaries))
        }
        Response::Deleted(deleted) if !deleted.existed => "there was nothing to delete".to_owned(),
        Response::Deleted(deleted) => {
            let left = match deleted.siblings {
                0 => String::new(),
                some => format!("; {some} left that it had not seen"),
            };
            format!("deleted: {}{left}", acks(deleted.acks, deleted.primaries))
        }
        Response::Failed(failure) => match failure.outcome() {
            Outcome::Refused => format!("refused: {}", brief(failure)),
            Outcome::Unknown => format!("unknown: {}", brief(failure)),
        },
        _ => "?".to_owned(),
    }
}

/// The values that a read shows.
pub fn values(read: &client::Read) -> Vec<String> {
    let mut values: Vec<String> =
        read.siblings.iter().map(|sibling| String::from_utf8_lossy(&sibling.value).into_owned()).collect();
    values.sort();
    values
}

fn acks(acks: u8, primaries: u8) -> String {
    let noun = if acks == 1 { "ack" } else { "acks" };
    match primaries {
        _ if acks == primaries => format!("{acks} {noun}"),
        0 => format!("{acks} {noun}, none by a primary"),
        some => format!("{acks} {noun}, {some} by a primary"),
    }
}

/// The first half of a message to people: the second says what to do about it.
fn brief(failure: &Failure) -> String {
    match failure {
        Failure::Refused(Refusal::NotEnoughReplicas { needed, available }) => {
            format!("{needed} replicas needed, {available} within reach")
        }
        Failure::Unknown(Unknown::Timeout { acks, needed }) => format!("{acks} of {needed} answers"),
        other => other.to_string(),
    }
}
