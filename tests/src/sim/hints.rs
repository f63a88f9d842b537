//! What becomes of hints, as batches and messages show it: for the coverage, and to know when to judge.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use driftless_node::peer::{Body, Message, Purpose, ReplicaRequest, Reply, Request, RequestId};
use driftless_node::replica::record::{self, HintKey};
use driftless_node::replica::store::Batch;
use driftless_proto::client::{self, Put};
use driftless_proto::observed::{Observed, ObservedRequest};
use driftless_proto::{Dot, Version, WriteId};
use driftless_ring::NodeId;

use super::coverage::Coverage;
use super::history::Slot;
use super::node::Input;
use super::shard::Shard;

/// The hints that are on their way, and the markers among them.
#[derive(Debug, Default)]
pub struct HintWatch {
    markers: BTreeSet<(usize, Bytes)>,
    under_way: BTreeSet<(usize, NodeId, Slot)>,
    deliveries: BTreeMap<(usize, RequestId), Slot>,
}

/// What has come to a node of one key within a turn.
#[derive(Clone, Debug, Default)]
pub struct Come {
    dots: BTreeSet<Dot>,
    writes: BTreeSet<WriteId>,
    /// What has come since: of a write that was asked for here in vain, the stamp of another node may be among it.
    since: BTreeSet<Dot>,
}

impl Come {
    /// Whether this is of it.
    pub fn includes(&self, dot: Dot, version: &Version) -> bool {
        self.dots.contains(&dot) || (self.writes.contains(&version.write_id) && !self.since.contains(&dot))
    }

    fn take_in(&mut self, other: &Come) {
        self.dots.extend(&other.dots);
        self.writes.extend(&other.writes);
    }

    fn without(&mut self, other: &Come) {
        self.dots.retain(|dot| !other.dots.contains(dot));
        self.writes.retain(|write| !other.writes.contains(write));
        self.since.extend(&other.dots);
    }
}

/// What an input says of hints and of what they are for.
#[derive(Debug)]
pub struct News {
    acked: Option<RequestId>,
    brought: Option<(Slot, Come)>,
}

impl News {
    fn of(input: &Input) -> News {
        let acked = match input {
            Input::Peer { message: Message { id, body: Body::Reply(Reply::Acked), .. }, .. } => Some(*id),
            _ => None,
        };
        News { acked, brought: brought(input) }
    }
}

impl HintWatch {
    /// A message is about to travel.
    pub fn sent(&mut self, from: usize, to: NodeId, message: &Message) {
        if let Body::Request { request, .. } = &message.body
            && let Some(ReplicaRequest::Merge(merge)) = request.asks_replica()
            && merge.purpose == Purpose::Handoff
        {
            let slot = (merge.bucket, merge.key.clone());
            self.deliveries.insert((from, message.id), slot.clone());
            self.under_way.insert((from, to, slot));
        }
    }

    /// What waits for the next turn of a shard, input by input.
    pub fn news(shard: &Shard) -> Vec<News> {
        shard.inbox().map(News::of).collect()
    }

    /// What has come to a node in a turn before it heard that a hint was delivered, by the key of the hint: none of it is what
    /// was delivered.
    pub fn before_acks(&mut self, node: usize, news: Vec<News>) -> BTreeMap<Slot, Come> {
        let (mut come, mut before) = (BTreeMap::<Slot, Come>::new(), BTreeMap::<Slot, Come>::new());
        for News { acked, brought } in news {
            if let Some(slot) = acked.and_then(|id| self.deliveries.remove(&(node, id))) {
                // One that comes again, or late, changes nothing.
                before.entry(slot).or_insert_with_key(|slot| come.get(slot).cloned().unwrap_or_default());
            }
            let Some((slot, new)) = brought else { continue };
            if let Some(before) = before.get_mut(&slot) {
                before.without(&new);
            }
            come.entry(slot).or_default().take_in(&new);
        }
        before
    }

    /// A batch was applied. Answers the keys whose hints it has removed.
    pub fn applied(&mut self, node: usize, batch: &Batch, coverage: &mut Coverage) -> BTreeSet<Slot> {
        let mut removed = BTreeSet::new();
        for (key, value) in batch.changes.iter().filter(|(key, _)| record::is_hint(key)) {
            let hint = HintKey::from_stored(key).expect("a store holds what its node wrote");
            let slot = hint.record().bucket_and_key().expect("a store holds what its node wrote");
            let was_under_way = self.under_way.remove(&(node, hint.target(), slot.clone()));
            match value {
                None => {
                    let was_marker = self.markers.remove(&(node, key.clone()));
                    coverage.add("markers delivered", u64::from(was_marker));
                    removed.insert(slot);
                }
                Some(value) => {
                    coverage.add("hints changed while under way", u64::from(was_under_way));
                    if record::is_marker(value) {
                        self.markers.insert((node, key.clone()));
                    }
                }
            }
        }
        removed
    }
}

/// What an input writes at once.
fn brought(input: &Input) -> Option<(Slot, Come)> {
    let put = |Put { bucket, key, write_id, .. }: &Put| {
        let come = Come { writes: [*write_id].into(), ..Come::default() };
        Some(((*bucket, key.clone()), come))
    };
    match input {
        Input::Client {
            request:
                client::Request::Put(request)
                | client::Request::Observed(Observed { request: ObservedRequest::Put(request), .. }),
            ..
        } => put(request),
        Input::Peer { message: Message { body: Body::Request { request, .. }, .. }, .. } => match request {
            Request::Forward(
                client::Request::Put(request)
                | client::Request::Observed(Observed { request: ObservedRequest::Put(request), .. }),
            ) => put(request),
            request => match request.asks_replica() {
                Some(ReplicaRequest::Merge(merge)) => {
                    let dots = merge.siblings.live().iter().map(|(dot, _)| *dot).collect();
                    Some(((merge.bucket, merge.key.clone()), Come { dots, ..Come::default() }))
                }
                _ => None,
            },
        },
        _ => None,
    }
}
