//! What a shard was asked for, counted one by one beside the sketch of its engine: the two must come to the same.

use std::collections::VecDeque;

use driftless_node::time::Instant;
use driftless_node::top::WINDOW;
use driftless_proto::client::Request;
use driftless_proto::observed::{Observed, ObservedRequest};
use driftless_proto::top::{BucketTop, KEYS_MAX, Top, TopCommand};
use driftless_proto::{BucketId, Topology};
use driftless_ring::NodeId;

/// Of one shard of a process.
pub struct Counts {
    me: NodeId,
    is_member: bool,
    asked: VecDeque<(Instant, BucketId)>,
}

/// Asks for everything.
pub(super) const ALL: TopCommand = TopCommand { bucket: None, most: KEYS_MAX as u32 };

impl Counts {
    /// A shard of this node, which has just started.
    pub(super) fn of(me: NodeId, topology: &Topology) -> Counts {
        Counts { me, is_member: topology.ring().member(me).is_some(), asked: VecDeque::new() }
    }

    /// A node that becomes a member, or is none any more, begins anew.
    pub(super) fn handle_topology(&mut self, topology: &Topology) {
        let is_member = topology.ring().member(self.me).is_some();
        if is_member != self.is_member {
            self.is_member = is_member;
            self.asked.clear();
        }
    }

    /// A client asks.
    pub(super) fn asked(&mut self, now: Instant, deadline: Instant, request: &Request) {
        let counts = match request {
            Request::Get(get) => get.shown.is_empty(),
            Request::Observed(Observed { request: ObservedRequest::Get(get), .. }) => get.shown.is_empty(),
            Request::Put(_) | Request::Delete(_) | Request::Observed(_) => true,
            _ => false,
        };
        if let Some(bucket) = request.bucket().filter(|_| counts && now < deadline) {
            self.asked.push_back((now, bucket));
        }
        // Two windows are as much as anybody tells of.
        while self.asked.front().is_some_and(|(at, _)| now.since(*at) > WINDOW * 2) {
            self.asked.pop_front();
        }
    }

    /// What is wrong with what the engine has counted, and how many requests that was.
    pub(super) fn check(&self, now: Instant, told: &Top) -> Result<u64, String> {
        let window = now.0 / WINDOW.as_micros() as u64;
        let begin = window.saturating_sub(1) * WINDOW.as_micros() as u64;
        let asked = |bucket: &BucketTop| {
            self.asked.iter().filter(|(at, of)| *of == bucket.bucket && at.0 >= begin).count() as u64
        };
        for bucket in &told.buckets {
            let sure: u64 = bucket.hot.iter().map(|key| key.reads + key.writes).sum();
            let (requests, expected) = (bucket.requests, asked(bucket));
            if requests != expected {
                return Err(format!("{:?}: {requests} requests counted of {expected}", bucket.bucket));
            }
            // A simulated cluster has fewer keys than a sketch has places.
            if sure != requests || bucket.floor > 0 {
                return Err(format!("{:?}: {sure} requests by key, {requests} in all", bucket.bucket));
            }
        }
        let told_of = |id: &BucketId| told.buckets.iter().any(|bucket| bucket.bucket == *id);
        match self.asked.iter().find(|(at, id)| at.0 >= begin && !told_of(id)) {
            Some((_, id)) => Err(format!("nothing is told of {id:?}")),
            None => Ok(told.buckets.iter().map(|bucket| bucket.requests).sum()),
        }
    }
}
