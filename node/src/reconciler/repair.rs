//! Sending what this node holds of keys that differ, a few at a time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use driftless_antientropy::ExchangeId;
use driftless_proto::{BucketId, Key, Siblings};
use driftless_ring::{NodeId, PartitionId, Token};

use crate::peer::{Merge, Purpose, ReplicaRequest, Request};
use crate::replica::record::RecordError;
use crate::time::Instant;

use super::{Asked, Holdings, Reconciler, View};

/// Which exchange a repair belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum JobId {
    /// An exchange that this node began.
    Begun(ExchangeId),
    /// An exchange that this peer began.
    Answering(NodeId, ExchangeId),
}

/// All repairs under way on one shard.
#[derive(Debug)]
pub(super) struct Repairs {
    jobs: BTreeMap<JobId, Job>,
    /// The exchange that sent last: the next is the first after it.
    last: Option<JobId>,
    /// Peers that have too much to do, and until when.
    held: BTreeMap<NodeId, Instant>,
    /// Bytes that may be under way, one state beyond that apart.
    window: usize,
    /// Under way, of what fits into the window.
    keys: usize,
    bytes: usize,
    /// A state larger than the window is under way.
    oversized: bool,
}

/// A portion of keys to be sent to one peer.
#[derive(Debug)]
struct Job {
    to: NodeId,
    partition: PartitionId,
    tokens: VecDeque<Token>,
    /// Of the token before: keys not yet sent.
    ready: VecDeque<(Token, (BucketId, Key, Siblings))>,
    /// Tokens at which there is a state larger than the window, while another such was under way: read again when it is not.
    oversized: VecDeque<Token>,
    /// Of those at the first of these tokens, so many were sent: keys seldom share one.
    large_sent: usize,
    in_flight: usize,
    /// Since the peer had no room for something.
    put_off: Option<PutOff>,
    /// Whether all that was sent so far was taken.
    taken: bool,
}

/// What a peer had no room for is sent again, at longer and longer intervals.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    until: Instant,
    wait: Duration,
}

/// A job that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Done {
    pub(super) job_id: JobId,
    /// Whether all of it was taken.
    pub(super) taken: bool,
}

/// One state on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) job_id: JobId,
    pub(super) to: NodeId,
    pub(super) token: Token,
    pub(super) bucket: BucketId,
    pub(super) key: Key,
    pub(super) siblings: Siblings,
    pub(super) size: ParcelSize,
}

/// What became of a state on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Landed {
    /// The peer holds it.
    Taken,
    /// The peer had too much to do for what is held at this token, and asks to be left alone for so long.
    PutOff { token: Token, now: Instant, wait: Duration },
    /// The peer refused it, or did not answer.
    NotTaken,
}

/// What a state weighs on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ParcelSize {
    /// All that its message takes, about.
    pub(super) bytes: usize,
    /// It is larger than the window, and travels beside it.
    is_oversized: bool,
}

impl Repairs {
    /// None yet. So many bytes may be under way at once.
    pub(super) fn new(window: usize) -> Repairs {
        Repairs {
            jobs: BTreeMap::new(),
            last: None,
            held: BTreeMap::new(),
            window,
            keys: 0,
            bytes: 0,
            oversized: false,
        }
    }

    /// Begins to send what is held at these tokens.
    pub(super) fn begin(&mut self, job_id: JobId, to: NodeId, partition: PartitionId, tokens: VecDeque<Token>) {
        let job = Job {
            to,
            partition,
            tokens,
            ready: VecDeque::new(),
            oversized: VecDeque::new(),
            large_sent: 0,
            in_flight: 0,
            put_off: None,
            taken: true,
        };
        self.jobs.insert(job_id, job);
    }

    /// The exchange is over: what was not sent will not be.
    pub(super) fn drop_job(&mut self, job_id: JobId) {
        self.jobs.remove(&job_id);
    }

    /// When something may be sent, as far as there is room and peers can take it; `None` if there is nothing, or no room.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.jobs.values().filter(|job| self.has_room_for(job)).map(|job| self.held_until(job.to)).min()
    }

    /// A peer has too much to do until then. What several refusals ask for at once is not a sum, and does not concern other
    /// peers.
    fn hold(&mut self, now: Instant, peer: NodeId, until: Instant) {
        self.held.retain(|_, until| *until > now);
        let held = self.held.entry(peer).or_default();
        *held = (*held).max(until);
    }

    /// The next state to send, which is under way from now on. Exchanges take turns. A state larger than the window waits for
    /// another such, and everything else passes it by.
    pub(super) fn next<H: Holdings>(&mut self, now: Instant, holdings: &H) -> Result<Option<Parcel>, RecordError> {
        let may_send = |job: &Job| self.has_room_for(job) && self.held_until(job.to) <= now;
        let after = |last| self.jobs.iter().find(|(job_id, job)| Some(**job_id) > last && may_send(job));
        let Some(job_id) = after(self.last).or_else(|| after(None)).map(|(job_id, _)| *job_id) else {
            return Ok(None);
        };
        self.last = Some(job_id);
        let Some(job) = self.jobs.get_mut(&job_id) else { return Ok(None) };
        let next = match job.oversized.front() {
            Some(&token) if !self.oversized => {
                let states = holdings.states_at(job.partition.n, token).inspect_err(|_| job.taken = false)?;
                let mut large =
                    states.into_iter().filter(|state| state.2.value_bytes() > self.window).skip(job.large_sent);
                let (next, more) = (large.next(), large.next().is_some());
                job.large_sent += 1;
                if !more {
                    job.oversized.pop_front();
                    job.large_sent = 0;
                }
                next.map(|state| (token, state))
            }
            _ => {
                while job.ready.is_empty()
                    && let Some(token) = job.tokens.pop_front()
                {
                    let (large, ordinary): (Vec<_>, Vec<_>) = holdings
                        .states_at(job.partition.n, token)
                        .inspect_err(|_| job.taken = false)?
                        .into_iter()
                        .partition(|state| state.2.value_bytes() > self.window);
                    job.oversized.extend((!large.is_empty()).then_some(token));
                    job.ready.extend(ordinary.into_iter().map(|state| (token, state)));
                }
                job.ready.pop_front()
            }
        };
        let Some((token, (bucket, key, siblings))) = next else { return Ok(None) };
        let bytes = siblings.value_bytes() + siblings.vv().len() * 16 + key.as_bytes().len() + FRAME_BYTES;
        let is_oversized = siblings.value_bytes() > self.window;
        job.in_flight += 1;
        match is_oversized {
            true => self.oversized = true,
            false => {
                self.keys += 1;
                self.bytes += bytes;
            }
        }
        Ok(Some(Parcel { job_id, to: job.to, token, bucket, key, siblings, size: ParcelSize { bytes, is_oversized } }))
    }

    /// A state is not under way any more.
    pub(super) fn landed(&mut self, job_id: JobId, size: ParcelSize, landed: Landed) {
        match size.is_oversized {
            true => self.oversized = false,
            false => {
                self.keys -= 1;
                self.bytes -= size.bytes;
            }
        }
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        job.in_flight = job.in_flight.saturating_sub(1);
        match landed {
            Landed::Taken => {}
            Landed::PutOff { token, now, wait } => {
                let (until, wait) = (now + PUT_OFF_MAX, wait.max(WAIT_MIN));
                let put_off = job.put_off.get_or_insert(PutOff { until, wait });
                // What is too large for the window would be carried whole each time.
                let is_sent_again = now < put_off.until && !size.is_oversized;
                // Of all that was refused at once, the first doubles the wait.
                let (to, wait, is_held) =
                    (job.to, put_off.wait, self.held.get(&job.to).is_some_and(|until| *until > now));
                if !is_held {
                    put_off.wait = wait * 2;
                }
                if !is_sent_again {
                    job.taken = false;
                } else if !job.tokens.contains(&token) {
                    job.tokens.push_back(token);
                }
                if !is_held {
                    self.hold(now, to, now + wait);
                }
            }
            Landed::NotTaken => job.taken = false,
        }
    }

    /// Whether a peer has had no room for something that is to be sent to it.
    pub(super) fn are_put_off(&self, peer: NodeId) -> bool {
        self.jobs.values().any(|job| job.to == peer && job.put_off.is_some())
    }

    fn held_until(&self, peer: NodeId) -> Instant {
        self.held.get(&peer).copied().unwrap_or_default()
    }

    fn has_room_for(&self, job: &Job) -> bool {
        let room = self.keys < KEYS_MAX && self.bytes < self.window;
        (room && job.has_ordinary()) || (!self.oversized && !job.oversized.is_empty())
    }

    /// Takes out a repair that is done.
    pub(super) fn take_done(&mut self) -> Option<Done> {
        let (&job_id, job) = self.jobs.iter().find(|(_, job)| !job.has_more() && job.in_flight == 0)?;
        let done = Done { job_id, taken: job.taken };
        self.jobs.remove(&job_id);
        Some(done)
    }
}

impl Reconciler {
    pub(super) fn send_repairs<H: Holdings>(&mut self, view: &View<'_, H>) {
        let View { shard, now, .. } = *view;
        while self.bytes_left > 0
            && self.repairs.ready_at().is_some_and(|at| at <= now.instant)
            && self.budget.is_open(now.instant, view.pressed)
        {
            let parcel = match self.repairs.next(now.instant, view.holdings) {
                Ok(Some(parcel)) => parcel,
                // Nothing is held at that token any more.
                Ok(None) => continue,
                Err(error) => return self.fail(error),
            };
            let Parcel { job_id, to, token, bucket, key, siblings, size } = parcel;
            let bytes = size.bytes;
            shard.metrics.aae_keys_sent.inc();
            shard.metrics.aae_bytes.inc_by(bytes as u64);
            self.budget.spend(bytes.max(KEY_COST));
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            let purpose = if shard.configurations.is_moving() { Purpose::Transfer } else { Purpose::AntiEntropy };
            let merge = Merge { bucket, key, siblings, hint_for: None, purpose };
            self.ask(
                shard,
                now,
                to,
                Request::Replica(ReplicaRequest::Merge(merge)),
                Asked::Merge { of: to, job_id, token, size },
            );
        }
    }
}

impl Job {
    fn has_more(&self) -> bool {
        self.has_ordinary() || !self.oversized.is_empty()
    }

    /// Whether there is something that may fit into the window.
    fn has_ordinary(&self) -> bool {
        !self.tokens.is_empty() || !self.ready.is_empty()
    }
}

/// What a repaired key counts for at least: small ones cost time, not bytes.
const KEY_COST: usize = 2 << 10;

/// Keys under way at once: enough to keep a peer busy between two syncs.
const KEYS_MAX: usize = 128;

/// For how long a job sends again what was refused for want of room: others wait for its place.
const PUT_OFF_MAX: Duration = Duration::from_secs(2);

/// Whatever a peer asks for, it is left alone for so long.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// What a message takes beside key, vector and values, about.
const FRAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use driftless_ring::ArcIndex;

    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const WINDOW: usize = 1_000;
    const NOW: Instant = Instant(1_000);

    /// Repairs of one key each, to both peers.
    fn repairs() -> Repairs {
        let mut repairs = Repairs::new(WINDOW);
        for (number, to) in [A, B].into_iter().enumerate() {
            let job_id = JobId::Begun(ExchangeId(number as u64));
            repairs.begin(job_id, to, PartitionId { n: 3, arc: ArcIndex(0) }, [Token(7)].into());
        }
        repairs
    }

    #[test]
    fn what_one_peer_refuses_is_no_reason_not_to_send_to_another() {
        let mut repairs = repairs();
        let later = Instant(9_000);
        repairs.hold(NOW, A, later);
        assert!(repairs.ready_at().is_some_and(|at| at <= NOW), "the other one takes them now");
        repairs.hold(NOW, B, Instant(5_000));
        assert_eq!(repairs.ready_at(), Some(Instant(5_000)));
        repairs.hold(NOW, B, Instant(4_000));
        assert_eq!(repairs.ready_at(), Some(Instant(5_000)), "the longer of two waits, not their sum");
    }

    #[test]
    fn a_state_beyond_the_window_goes_beside_the_others_and_neither_waits_for_the_other_kind() {
        let mut repairs = repairs();
        let job = repairs.jobs.values_mut().next().expect("one was begun");
        job.oversized.push_back(Token(8));
        repairs.oversized = true;
        assert!(repairs.ready_at().is_some(), "one such is under way, and what fits goes on");
        repairs.bytes = WINDOW;
        assert_eq!(repairs.ready_at(), None, "the window is full as well");
        repairs.oversized = false;
        assert!(repairs.ready_at().is_some(), "the window is full, and one such may go");
        repairs.jobs.values_mut().for_each(|job| job.oversized.clear());
        assert_eq!(repairs.ready_at(), None);
    }
}
