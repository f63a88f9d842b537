//! One shard between two versions of the ring.
//!
//! A message says by which version its sender goes. A coordinator that goes by an older one than this shard counts owners that may not
//! be owners any more: it is refused, hears of the newer version, and begins again. One that goes by a newer one is heard once this
//! shard has caught up, which is a matter of milliseconds: until then its message waits here. What a read repairs, and what was held for
//! this node, is taken at any version: a merge adds what its sender knows, to whom it may concern.

use std::collections::VecDeque;
use std::sync::Arc;

use driftless_proto::Refusal;
use driftless_ring::NodeId;

use super::taking::Taking;
use super::{ASK_AGAIN_SOON, Engine, Output, view};
use crate::configurations::Configurations;
use crate::membership::Progress;
use crate::peer::{Body, Message, Purpose, ReplicaRequest, Reply, Request, Traced};
use crate::planted::Bug;
use crate::replica::store::Store;
use crate::route;
use crate::time::{Instant, Now};

/// Messages that go by a version which this shard has not heard of yet.
#[derive(Default)]
pub(super) struct Early {
    waiting: VecDeque<(NodeId, Message)>,
}

impl Early {
    fn forget_expired(&mut self, now: Instant) {
        self.waiting.retain(|(_, message)| !message.body.has_expired(now));
    }

    fn bytes(&self) -> usize {
        self.waiting.iter().map(|(_, message)| message.body.value_bytes()).sum()
    }
}

impl<S: Store> Engine<S> {
    /// Other versions of the ring count from now on, or count otherwise.
    pub fn handle_configurations(&mut self, now: Now, configurations: Arc<Configurations>) {
        if configurations.version() < self.shard.configurations.version() {
            return;
        }
        // What was begun goes by one version: nothing of a turn may be left for the next.
        self.commit(now);
        if configurations.version() > self.shard.configurations.version() {
            self.taken_at = None;
            self.taking = Taking::new();
        }
        self.shard.run_on(configurations);
        self.replica.handle_configurations(&self.shard, now);
        let view = view(&self.shard, &self.replica, &mut self.pressure, &mut self.handoff, now);
        self.reconciler.handle_configurations(&view);
        self.coordinator.handle_configurations(&self.shard, now);
        self.route(now);
        let Early { waiting } = std::mem::take(&mut self.early);
        for (from, message) in waiting {
            if self.is_of_another_shard(&message) {
                self.send(from, message.id, Body::Reply(Reply::Refused(ASK_AGAIN_SOON)));
            } else {
                self.handle_peer(now, from, message);
            }
        }
    }

    /// Whether it came to this shard because nobody here knew yet whose it is: it may be of a bucket that was made by the version it
    /// goes by. Its sender asks again, and it comes to the right one.
    fn is_of_another_shard(&self, message: &Message) -> bool {
        let Body::Request { request, .. } = &message.body else { return false };
        let shard = route::of_peer(&self.shard.configurations, self.shard.node, request);
        shard.is_some_and(|shard| shard != self.shard.number)
    }

    /// Whether it was given to this shard by the number of an arc, when the shell went by other arcs than this shard does now. A key is the same
    /// shard's in all versions; an arc of that number need not be.
    pub(super) fn was_routed_by_another_version(&self, message: &Message) -> bool {
        let Body::Request { request, .. } = &message.body else { return false };
        let names_arc = matches!(request, Request::Replica(ReplicaRequest::Scan(_)) | Request::Exchange(_));
        names_arc && self.shard.ring().partitions().is_doubled() && self.is_of_another_shard(message)
    }

    /// How far this shard has come on the newest version.
    pub fn progress(&mut self) -> Progress {
        let configurations = &self.shard.configurations;
        let version = configurations.version();
        let mut moving = self.reconciler.moving(&self.shard);
        (moving.keys, moving.bytes) = self.replica.taken_in();
        (moving.rate, moving.keys_left) = (self.taking.rate, self.taking.keys_left);
        let has_taken = moving.taking == moving.taken;
        if !has_taken {
            self.taken_at = None;
        }
        // What a pass has found equal may not be on the disk yet.
        let at = (has_taken && moving.taking > 0).then(|| *self.taken_at.get_or_insert(self.replica.applied()));
        let is_durable = at.is_none_or(|at| self.replica.is_durable_up_to(at));
        let has_given = moving.given == moving.giving && !configurations.has_active_before();
        let is_member = self.shard.ring().member(self.shard.node).is_some();
        if !is_durable {
            self.outputs.extend(self.replica.sync_wish().map(Output::Sync));
        }
        Progress {
            version,
            closed: self.shard.configurations.closes(),
            ready: if has_taken && is_durable { version } else { 0 },
            left: if has_given && (is_member || self.replica.holds_no_hints()) { version } else { 0 },
            moving,
            ..Progress::default()
        }
    }

    /// Whether a mistake makes this shard take what goes by an older version.
    fn takes_stale(&self, request: &Request) -> bool {
        let planted = &self.shard.planted;
        match request {
            Request::Replica(ReplicaRequest::Merge(_)) => planted.is(Bug::StaleWriteTaken),
            _ => false,
        }
    }

    /// The message, if it is to be looked at now.
    pub(super) fn of_this_version(&mut self, now: Instant, from: NodeId, message: Message) -> Option<Message> {
        let (theirs, ours) = (message.ring_version, self.shard.ring().version().0);
        let Body::Request { request, .. } = &message.body else { return Some(message) };
        if theirs == ours || !goes_by_version(request) {
            return Some(message);
        }
        if theirs < ours && self.takes_stale(request) {
            return Some(message);
        }
        if theirs < ours {
            self.shard.metrics.stale_requests.inc();
            let refusal = Refusal::StaleRing { theirs, ours };
            self.send(from, message.id, Body::Reply(Reply::Refused(refusal)));
            return None;
        }
        self.outputs.push_back(Output::Behind(from));
        self.early.forget_expired(now);
        let bytes = request.value_bytes();
        if self.early.waiting.len() >= EARLY_MAX || self.early.bytes() + bytes > EARLY_BYTES_MAX {
            self.send(from, message.id, Body::Reply(Reply::Refused(ASK_AGAIN_SOON)));
        } else {
            self.early.waiting.push_back((from, message));
        }
        None
    }
}

/// Whether the answer to a request rests on who owns what.
fn goes_by_version(request: &Request) -> bool {
    match request {
        Request::Replica(request) | Request::Traced(Traced { request, .. }) => match request {
            ReplicaRequest::Merge(merge) => !matches!(merge.purpose, Purpose::ReadRepair | Purpose::Handoff),
            ReplicaRequest::Read(read) => read.counted_for.is_some(),
            ReplicaRequest::Scan(_) => true,
        },
        Request::Exchange(_) => true,
        Request::Forward(_) | Request::Ping | Request::Membership(_) => false,
    }
}

/// Messages that may wait for a newer version, and bytes of their values.
const EARLY_MAX: usize = 256;
const EARLY_BYTES_MAX: usize = 8 << 20;
