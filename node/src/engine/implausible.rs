//! What no honest peer says. A node with a certificate of the cluster is believed in what it says of a key, but not in everything: its
//! states are within bounds that no honest cluster reaches, and were not written in the next century. This is seen before a state is
//! merged, hashed or stored.
//!
//! Who may send one cannot be told. Any member may be a fallback for any key and stamp writes of it, keep hints and deliver them, and any
//! member coordinates reads and repairs what it has found. Only an exchange is between owners, and that is looked at only as long as the
//! members have agreed on nothing: later its sender may have handed the key over, and not know yet that this is done.

use std::time::Duration;

use driftless_proto::Siblings;
use driftless_proto::causality::Payload;
use driftless_proto::client::{self, Access, Class};
use driftless_proto::key::{SIBLING_BYTES_MAX, SIBLINGS_MAX};
use driftless_ring::NodeId;

use crate::peer::{Merge, Purpose, ReplicaRequest, Reply, State};
use crate::plausible;
use crate::shard::Shard;
use crate::time::{Instant, Now};

/// Says what is wrong with a request, if anything is.
pub(super) fn in_request(shard: &Shard, now: Now, from: NodeId, request: &ReplicaRequest) -> Option<&'static str> {
    match request {
        ReplicaRequest::Merge(merge) => in_sender(shard, from, merge).or_else(|| in_state(shard, now, &merge.siblings)),
        ReplicaRequest::Read(_) | ReplicaRequest::Scan(_) => None,
    }
}

/// Likewise with what a peer passes on: what is stamped, and only at an owner. Everything else any node does itself.
pub(super) fn in_forwarded(request: &client::Request) -> Option<&'static str> {
    let is_stamped = matches!(request.class(), Class::Key { access: Access::Write, .. })
        && !matches!(request, client::Request::MergeState(_));
    (!is_stamped).then_some("a request passed on that no node passes on")
}

/// Likewise with an answer.
pub(super) fn in_reply(shard: &Shard, now: Now, reply: &Reply) -> Option<&'static str> {
    match reply {
        Reply::State(State::Full(siblings)) => in_state(shard, now, siblings),
        Reply::State(State::Header(header)) => in_shape(shard, now, header),
        Reply::Acked
        | Reply::Coming { .. }
        | Reply::Page(_)
        | Reply::Forwarded(_)
        | Reply::Refused(_)
        | Reply::Lost
        | Reply::Pong
        | Reply::Exchanged(_) => None,
    }
}

fn in_sender(shard: &Shard, from: NodeId, merge: &Merge) -> Option<&'static str> {
    // Where members come and go, who has just handed a key over may not have heard yet that this is done.
    if !matches!(merge.purpose, Purpose::AntiEntropy | Purpose::Transfer) || shard.configurations.is_agreed() {
        return None;
    }
    let bucket = shard.topology.bucket(merge.bucket)?;
    let partition = shard.topology.place(bucket, &merge.key).partition;
    (!shard.configurations.keeps(from, partition)).then_some("an exchange with a node that does not own the key")
}

/// Likewise with a state, whoever brings it.
pub(super) fn in_state(shard: &Shard, now: Now, siblings: &Siblings) -> Option<&'static str> {
    if siblings.values().filter_map(|version| version.value.as_ref()).any(|value| value.len() > SIBLING_BYTES_MAX) {
        return Some("a value that is longer than any node takes");
    }
    in_shape(shard, now, siblings)
}

fn in_shape<P: Payload>(shard: &Shard, now: Now, siblings: &Siblings<P>) -> Option<&'static str> {
    let live = siblings.live();
    if siblings.vv().len() > plausible::ACTORS_MAX_OF_OTHERS {
        return Some("a state with more actors than a cluster can have");
    }
    if live.len() > live_max(shard) {
        return Some("a state with more siblings than its members can have taken");
    }
    (siblings.written_at() > plausible::latest_stamp_of_others(now.wall)).then_some("a write of the far future")
}

/// Each member that takes a write leaves at most so many siblings of those that it knows of. What others have taken meanwhile comes on
/// top, by merges: as many for each member, and for each time that one has begun again beside what it had left with others, since it
/// has lost its disk, or was a fallback whose copy was delivered and forgotten. Tombstones are one for each that has taken a delete.
fn live_max(shard: &Shard) -> usize {
    let members = shard.configurations.members().len();
    (shard.limits.siblings_max.max(SIBLINGS_MAX) + 1) * members * BEGINNINGS
}

/// Times that each member may have begun again while nobody resolved the siblings of a key.
const BEGINNINGS: usize = 16;

/// Tells of them, and not too often: whoever lies may do so a thousand times a second.
#[derive(Default)]
pub(super) struct ImplausibleLog {
    silent_until: Instant,
    unsaid: u64,
}

impl ImplausibleLog {
    pub(super) fn note(&mut self, shard: &Shard, now: Instant, from: NodeId, what: &'static str) {
        shard.metrics.protocol_violations.inc();
        if now < self.silent_until {
            self.unsaid += 1;
            return;
        }
        let peer = shard.ring().member(from).map_or("", |member| member.name.as_str());
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::error!(
            peer,
            what,
            unsaid,
            "a peer says what no honest node says, and is refused: its key may be in wrong hands"
        );
        self.silent_until = now + SAID_EVERY;
    }

    /// How many the log does not have yet.
    #[cfg(test)]
    pub(super) fn unsaid(&self) -> u64 {
        self.unsaid
    }
}

const SAID_EVERY: Duration = Duration::from_secs(10);
