//! Delivery of hints: what is held for a node goes to it once it is back, and goes away here once it is there.
//!
//! ```text
//!            a new hint                 up, and stable for a while            nothing left
//!   idle ───────────────────▶ waiting ─────────────────────────────▶ walking ─────────────▶ idle
//!                                ▲ lost; or some were not taken, or came to be meanwhile │
//!                                └───────────────────────────────────────────────────────┘
//!   a walk:  page of hints in key order ── Merge ──▶ target ── Acked (durable) ──▶ remove, if unchanged
//! ```
//! A walk holds a page and what is under way, never a list of keys. It may send the same hint twice, and what it sends may
//! not be synced here: merging is idempotent, and a merge leaves nothing behind that depends on this node. What a walk
//! could not deliver stays, and the next walk begins anew.
//!
//! No key holds up another. A key that is not taken, or not answered in time, is passed over and *put off*: walks leave it alone
//! for a while, and for longer each time. A state larger than the window travels beside it. Only if several keys in a row
//! are not taken is it the target that takes nothing, and the walk ends.
//!
//! Owners are looked up when a hint is sent: what is held for a node that no longer owns the key, or is gone, becomes hints
//! for the nodes that do.

mod figures;
mod precedence;
mod put_off;
mod rate;
mod walk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use driftless_antientropy::Digest;
use driftless_proto::Refusal;
use driftless_ring::{NodeId, Ring};
use rand::Rng;
use rand::rngs::StdRng;

use crate::config::Limits;
use crate::meter::Meter;
use crate::peer::{Lane, Merge, Purpose, ReplicaRequest, Reply, Request, RequestId, RequestIds, time_to_carry};
use crate::planted::Bug;
use crate::replica::record::RecordKey;
use crate::replica::{Hint, HintPage};
use crate::shard::Shard;
use crate::time::Instant;

pub use figures::HintFigures;
use precedence::Precedence;
use put_off::PutOff;
use rate::DeliveryRate;
use walk::{Sent, Walk};

/// The delivery of all that one shard holds for others.
pub(crate) struct Handoff {
    /// How long a target must have been up.
    delay: Duration,
    /// What a coordinator's attempt may take.
    attempt_timeout: Duration,
    /// Bytes under way to one target.
    window: usize,
    ids: RequestIds,
    rng: StdRng,
    /// Peers that can be counted on, each with the moment from which it is taken to be stable.
    up: BTreeMap<NodeId, Instant>,
    /// Peers that are connected and cannot be counted on.
    unresponsive: BTreeSet<NodeId>,
    targets: BTreeMap<NodeId, Target>,
    outputs: VecDeque<Output>,
}

/// What it wants its engine to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// Answer with the next of what is held for this target.
    Look { target: NodeId, from: Option<Vec<u8>> },
    /// Ask a peer.
    Send { to: NodeId, id: RequestId, deadline: Instant, request: Request },
    /// The target holds this, durably: the hint may go, if it is still this.
    Delivered { target: NodeId, record: RecordKey, digest: Digest },
    /// The target does not own this key (any more).
    Readdress { target: NodeId, record: RecordKey },
}

struct Target {
    stage: Stage,
    /// There is something that no walk has met yet.
    has_new: bool,
    /// Keys that it did not take.
    put_off: PutOff,
    rate: DeliveryRate,
    precedence: Precedence,
    /// How long to wait after a walk that the target did not go along with.
    patience: Duration,
    delivered: u64,
    meter: Meter,
}

enum Stage {
    /// Nothing to deliver but what is put off.
    Idle,
    /// Until then, or while it is not up.
    Waiting(Instant),
    Walking(Walk),
}

impl Handoff {
    pub(crate) fn new(limits: &Limits, mut rng: StdRng) -> Handoff {
        Handoff {
            delay: limits.handoff_delay,
            attempt_timeout: limits.attempt_timeout,
            window: limits.window_bytes,
            ids: RequestIds::new(Lane::Handoff, rng.random()),
            rng,
            up: BTreeMap::new(),
            unresponsive: BTreeSet::new(),
            targets: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// There is something for this node that was not there before.
    pub(crate) fn handle_new_hint(&mut self, shard: &Shard, now: Instant, id: NodeId) {
        let pause = self.delay / 4;
        let target = self.targets.entry(id).or_insert_with(|| {
            if shard.ring().member(id).is_none() {
                tracing::warn!(target = %id, "something is held for a node that is no member any more; \
                    it goes to those who own it now");
            }
            Target {
                stage: Stage::Idle,
                has_new: false,
                put_off: PutOff::new(pause, self.delay * PUT_OFF_DELAYS),
                rate: DeliveryRate::new(),
                precedence: Precedence::new(self.delay),
                patience: pause,
                delivered: 0,
                meter: Meter::over(METER_TIME),
            }
        });
        target.has_new = true;
        if let Stage::Idle = target.stage {
            target.stage = Stage::Waiting(now + pause);
            self.put_off_until_stable(id);
        }
    }

    /// A peer may be counted on. A peer that was only late has not missed much, and may be late often.
    pub(crate) fn handle_up(&mut self, now: Instant, peer: NodeId) {
        let wait = match self.unresponsive.remove(&peer) {
            true => self.delay / 4,
            false => self.delay + self.delay.mul_f64(self.rng.random_range(0.0..0.5)),
        };
        self.up.insert(peer, now + wait);
        if let Some(target) = self.targets.get_mut(&peer) {
            // What it did not take before it may take now.
            target.put_off.bring_forward(now + wait);
        }
        self.put_off_until_stable(peer);
    }

    /// It is too late with its answers.
    pub(crate) fn handle_unresponsive(&mut self, now: Instant, peer: NodeId) {
        self.handle_lost(now, peer);
        self.unresponsive.insert(peer);
    }

    /// It is gone: what is under way to it is lost, or nobody will know.
    pub(crate) fn handle_lost(&mut self, now: Instant, peer: NodeId) {
        self.up.remove(&peer);
        self.unresponsive.remove(&peer);
        let pause = self.delay / 4;
        if let Some(target) = self.targets.get_mut(&peer)
            && let Stage::Walking(_) = target.stage
        {
            target.stage = Stage::Waiting(now + pause);
            target.has_new = true;
            target.patience = pause;
        }
    }

    /// What was asked for with [`Output::Look`].
    pub(crate) fn handle_page(&mut self, shard: &Shard, now: Instant, id: NodeId, page: HintPage) {
        if let Some(walk) = self.targets.get_mut(&id).and_then(Target::walk) {
            walk.found(page);
        }
        self.advance(shard, now, id);
    }

    /// A target has answered.
    pub(crate) fn handle_reply(&mut self, shard: &Shard, now: Instant, from: NodeId, id: RequestId, reply: Reply) {
        let Some(target) = self.targets.get_mut(&from) else { return };
        let Some(walk) = target.stage.walk() else { return };
        let Some(sent) = walk.answered(id) else { return };
        match reply {
            reply if reply == Reply::Acked || shard.planted.is(Bug::RefusedHintRemoved) => {
                if sent.bytes <= self.window {
                    target.rate.acked(now, now.since(sent.at).saturating_sub(time_to_carry(sent.bytes)));
                }
                walk.was_taken();
                target.put_off.remove(&sent.record);
                target.delivered += 1;
                target.meter.count(now, 1);
                target.patience = self.delay / 4;
                shard.metrics.hints_delivered.inc();
                let Sent { record, digest, .. } = sent;
                self.outputs.push_back(Output::Delivered { target: from, record, digest });
            }
            Reply::Refused(Refusal::NotOwner { .. }) => {
                // Its ring may be the older one: then the replica sees that the target is right, and the hint stays.
                walk.failed = true;
                self.outputs.push_back(Output::Readdress { target: from, record: sent.record });
            }
            Reply::Refused(Refusal::Overloaded { retry_after_ms }) if sent.bytes <= self.window => {
                walk.failed = true;
                target.rate.overloaded(now, Duration::from_millis(retry_after_ms.into()));
            }
            _ => {
                walk.was_refused();
                walk.failed |= !target.put_off.add(now, sent.record);
                shard.metrics.hints_put_off.inc();
            }
        }
        self.advance(shard, now, from);
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, shard: &Shard, now: Instant) {
        for id in self.due(shard, now) {
            let up = self.is_up(shard, id);
            let Some(target) = self.targets.get_mut(&id) else { continue };
            match &mut target.stage {
                Stage::Walking(walk) => {
                    for record in walk.expire(now) {
                        walk.failed |= !target.put_off.add(now, record);
                        shard.metrics.hints_put_off.inc();
                    }
                }
                Stage::Waiting(at) if *at <= now && up => target.begin(now, self.window),
                Stage::Idle if up && target.put_off.due_at().is_some_and(|at| at <= now) => {
                    target.begin(now, self.window);
                }
                Stage::Idle | Stage::Waiting(_) => {}
            }
            self.advance(shard, now, id);
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Handoff::handle_timeout`].
    pub(crate) fn poll_timeout(&self, shard: &Shard) -> Option<Instant> {
        self.targets.iter().filter_map(|(id, target)| self.wakes_at(shard, *id, target)).min()
    }

    /// Keys delivered to a target since the start, and per second lately.
    pub(crate) fn figures(&self, now: Instant, id: NodeId) -> (u64, f64) {
        self.targets.get(&id).map_or((0, 0.0), |target| {
            let rate = if let Stage::Walking(_) = target.stage { target.meter.rate(now) } else { 0.0 };
            (target.delivered, rate)
        })
    }

    /// Targets that are being given their hints, or soon will be, and are left alone for that. Not a target that could not
    /// take it lately: what is held for it may reach it in other ways. And none for long: see [`Precedence`].
    pub(crate) fn recipients(&mut self, shard: &Shard, now: Instant) -> Vec<NodeId> {
        let pause = self.delay / 4;
        let (me, up, ring, planted) = (shard.node, &self.up, shard.ring(), &shard.planted);
        let mut recipients = Vec::new();
        for (&id, target) in &mut self.targets {
            let receives = match target.stage {
                Stage::Idle => false,
                Stage::Waiting(_) => target.patience <= pause && is_up(me, up, ring, id),
                Stage::Walking(_) => true,
            };
            if receives && (target.precedence.holds(now) || planted.is(Bug::HintsFirstWithoutBound)) {
                recipients.push(id);
            }
        }
        recipients
    }

    /// Goes on with a walk as far as the window and the pace allow.
    fn advance(&mut self, shard: &Shard, now: Instant, id: NodeId) {
        while let Some(target) = self.targets.get_mut(&id)
            && let Stage::Walking(walk) = &mut target.stage
        {
            walk.sort(now, &target.put_off);
            if walk.has_next() {
                if !target.rate.may_send(now) {
                    return;
                }
                let Some(hint) = walk.next() else { return };
                target.rate.sent(now);
                self.deliver(shard, now, id, hint);
            } else if let Some(from) = walk.ask_page() {
                return self.outputs.push_back(Output::Look { target: id, from });
            } else if walk.is_over() {
                return self.finish(now, id);
            } else {
                return;
            }
        }
    }

    fn deliver(&mut self, shard: &Shard, now: Instant, id: NodeId, hint: Hint) {
        let Hint { record, bucket, key, digest, siblings } = hint;
        let (n, token) = record.position();
        let ring = shard.ring();
        if id == shard.node || !ring.owns(id, ring.partition(n, token)) {
            return self.outputs.push_back(Output::Readdress { target: id, record });
        }
        if siblings.is_empty() {
            return self.outputs.push_back(Output::Delivered { target: id, record, digest });
        }
        if shard.planted.is(Bug::HintDroppedOnSend) {
            self.outputs.push_back(Output::Delivered { target: id, record: record.clone(), digest });
        }
        debug_assert_ne!(id, shard.node, "what is kept for this node itself is not sent");
        debug_assert!(self.up.contains_key(&id), "a walk ends when its target is lost");
        let Some(walk) = self.targets.get_mut(&id).and_then(Target::walk) else { return };
        let request_id = self.ids.draw();
        let bytes = siblings.value_bytes();
        let deadline = now + (self.attempt_timeout + time_to_carry(bytes)) * TIMEOUT_ATTEMPTS;
        walk.sent(request_id, Sent { record, digest, bytes, at: now, deadline });
        let merge = Merge { bucket, key, siblings, hint_for: None, purpose: Purpose::Handoff };
        self.outputs.push_back(Output::Send {
            to: id,
            id: request_id,
            deadline,
            request: Request::Replica(ReplicaRequest::Merge(merge)),
        });
    }

    fn finish(&mut self, now: Instant, id: NodeId) {
        let (pause, patience_max) = (self.delay / 4, self.delay * 4);
        let Some(target) = self.targets.get_mut(&id) else { return };
        let failed = target.walk().is_some_and(|walk| walk.failed);
        if let Stage::Walking(walk) = &target.stage
            && !failed
        {
            // What was due when the walk began, and is not there any more.
            target.put_off.forget(walk.since);
        }
        target.stage = if failed {
            target.has_new = true;
            let wait = target.patience;
            target.patience = (wait * 2).min(patience_max);
            Stage::Waiting(now + wait)
        } else if target.has_new {
            Stage::Waiting(now + pause)
        } else {
            Stage::Idle
        };
    }

    /// A walk does not begin before its target has been up for a while.
    fn put_off_until_stable(&mut self, id: NodeId) {
        if let Some(target) = self.targets.get_mut(&id)
            && let Stage::Waiting(at) = &mut target.stage
            && let Some(stable) = self.up.get(&id)
        {
            *at = (*at).max(*stable);
        }
    }

    /// Whether a walk for it makes sense: what is held for nobody is readdressed without asking anybody.
    fn is_up(&self, shard: &Shard, id: NodeId) -> bool {
        is_up(shard.node, &self.up, shard.ring(), id)
    }

    fn wakes_at(&self, shard: &Shard, id: NodeId, target: &Target) -> Option<Instant> {
        match &target.stage {
            Stage::Idle => target.put_off.due_at().filter(|_| self.is_up(shard, id)),
            Stage::Waiting(at) => self.is_up(shard, id).then_some(*at),
            Stage::Walking(walk) => {
                let sends = walk.has_next().then(|| target.rate.ready_at());
                [walk.expires_at(), sends].into_iter().flatten().min()
            }
        }
    }

    fn due(&self, shard: &Shard, now: Instant) -> Vec<NodeId> {
        let is_due = |(id, target): &(&NodeId, &Target)| self.wakes_at(shard, **id, target).is_some_and(|at| at <= now);
        self.targets.iter().filter(is_due).map(|(id, _)| *id).collect()
    }
}

fn is_up(me: NodeId, up: &BTreeMap<NodeId, Instant>, ring: &Ring, id: NodeId) -> bool {
    up.contains_key(&id) || id == me || ring.member(id).is_none()
}

impl Target {
    fn begin(&mut self, now: Instant, window: usize) {
        self.has_new = false;
        self.meter = Meter::over(METER_TIME);
        self.stage = Stage::Walking(Walk::new(now, window));
    }

    fn walk(&mut self) -> Option<&mut Walk> {
        self.stage.walk()
    }
}

impl Stage {
    fn walk(&mut self) -> Option<&mut Walk> {
        match self {
            Stage::Walking(walk) => Some(walk),
            Stage::Idle | Stage::Waiting(_) => None,
        }
    }
}

/// A delivery may take as long as so many attempts of a coordinator: no client waits for it.
const TIMEOUT_ATTEMPTS: u32 = 8;

/// A key that is never taken is tried again after so many times [`Limits::handoff_delay`], a minute as a rule: often enough for
/// an operator who makes room, seldom enough for something of many megabytes.
const PUT_OFF_DELAYS: u32 = 20;

/// Over what time deliveries are counted.
const METER_TIME: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
