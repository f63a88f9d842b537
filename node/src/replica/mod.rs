//! One shard's replica: what it holds of the keys it owns, and for nodes that it stands in for, and the only place where
//! that changes.
//!
//! ```text
//!            Write (own coordinator)      Merge (anybody)       Read · Scan
//!                     │                        │                   │
//!                 stamp a dot                  │                   │      all read through the turn's batch
//!                     └────── new state ───────┘                   │
//!                                 │                                │
//!                 commit():  one atomic batch  ── Stamped, State ──┤      nothing with a dot leaves earlier
//!                                 │                                │
//!             handle_synced():  Acked, once the newest batch queued before it is durable
//! ```
//! What is held for other nodes (`hints`) is read, written and removed in the same turns and batches.
//!
//! If a batch cannot be applied for lack of room, nothing of it has happened: its writes and merges are refused, its
//! counters return to what they were, its reads are read again.

mod commit;
mod damage;
mod errors;
mod headers;
mod hints;
mod holdings;
pub(crate) mod local;
mod located;
mod merge;
mod metered;
#[cfg(feature = "planted-bugs")]
mod mistakes;
mod moving;
#[cfg(feature = "planted-bugs")]
mod observed;
mod read;
pub mod record;
mod scan;
mod stamp;
pub mod store;
mod stored;
mod syncs;
mod trees;
mod turn;
mod write;

use std::collections::VecDeque;
use std::time::Duration;

use driftless_proto::{ActorId, BucketId, Key, Refusal};
use driftless_ring::NodeId;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::peer::{ReplicaRequest, Reply, RequestId, Scan};
use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::{Instant, Now};

use damage::Damage;
use headers::HeaderCache;
use hints::HintCounts;
pub(crate) use hints::{Hint, HintPage};
use local::{LocalRequest, Made};
use metered::Metered;
use moving::Moving;
#[cfg(feature = "planted-bugs")]
pub(crate) use observed::Stamp;
use record::RecordError;
use stamp::{Actors, WriteIds};
use store::{BatchSeq, Store};
use syncs::Syncs;
use trees::Trees;
use turn::Turn;

/// What the replica wants its engine to do.
#[derive(Debug)]
pub(crate) enum Output {
    /// Answer a request.
    Reply { to: NodeId, id: RequestId, reply: Reply },
    /// Tell the own coordinator what has become of its write.
    Made { id: RequestId, made: Made },
    /// Sync everything up to this batch.
    Sync(BatchSeq),
    /// The record of this key is damaged: it is to be restored from the other replicas, within this time.
    Damaged { bucket: BucketId, key: Key, patience: Duration },
    /// What the others still answer of the damaged record of this key is of no use: it has been restored, or more than that is lost by now.
    EndRestoring { bucket: BucketId, key: Key },
    /// An actor must not be trusted any more: no put stamped by it may be acknowledged.
    Retired(ActorId),
    /// There is something to be delivered to this node that was not there before.
    NewHint(NodeId),
    /// The store cannot be trusted any more.
    Halt(String),
}

/// One shard's share of the node's keys.
pub(crate) struct Replica<S> {
    store: Metered<S>,
    actors: Actors,
    write_ids: WriteIds,
    headers: HeaderCache,
    trees: Trees,
    hints: HintCounts,
    damage: Damage,
    /// Scans that wait for a page, and who asked.
    scans: VecDeque<(NodeId, RequestId, Scan)>,
    /// What the first of them reads is being fetched.
    scans_wait: bool,
    /// What changes hands.
    moving: Moving,
    turn: Turn,
    syncs: Syncs,
    /// A batch was refused for lack of room, and its reads are read again.
    is_reading_again: bool,
    /// The store cannot be trusted any more: nothing is applied, and the process stops.
    has_failed: bool,
    outputs: VecDeque<Output>,
    #[cfg(feature = "planted-bugs")]
    stamps: Vec<Stamp>,
}

impl<S: Store> Replica<S> {
    /// A replica that has just started: every actor is new.
    pub(crate) fn new(shard: &Shard, store: S, write_ids_seed: u64, mut rng: StdRng, now: Now) -> Replica<S> {
        let Shard { limits, metrics, planted, .. } = shard;
        let kept = shard.kept().into_iter();
        let (partitions, scrub) = (shard.ring().partitions(), limits.aae.scrub_interval);
        let trees_rng = StdRng::from_rng(&mut rng);
        let trees = Trees::new(partitions, kept, limits.turn, scrub, now.instant, trees_rng, metrics);
        let (hints, unreadable) = match HintCounts::new(shard, &store, now.instant) {
            Ok(hints) => (hints, None),
            Err(error) => (HintCounts::none(now.instant), Some(Output::Halt(error.to_string()))),
        };
        let new_hints = hints.hint_counts().map(|(target, _)| Output::NewHint(target));
        let new_hints = new_hints.filter(|_| !planted.is(Bug::HintsForgottenAtStart));
        let outputs = [Output::Sync(BatchSeq(0))].into_iter().chain(new_hints).chain(unreadable).collect();
        Replica {
            #[cfg(not(feature = "planted-bugs"))]
            actors: Actors::new(rng),
            #[cfg(feature = "planted-bugs")]
            actors: mistakes::actors(planted, &store, rng),
            write_ids: WriteIds::new(limits.write_ids_max, limits.write_ids_age, write_ids_seed),
            headers: HeaderCache::new(limits.header_cache_bytes),
            trees,
            hints,
            damage: Damage::new(limits.attempt_timeout),
            scans: VecDeque::new(),
            scans_wait: false,
            moving: Moving::new(shard),
            turn: Turn::default(),
            syncs: Syncs::new(planted.is(Bug::FirstSyncNotAwaited).then_some(BatchSeq(0))),
            is_reading_again: false,
            has_failed: false,
            outputs,
            #[cfg(feature = "planted-bugs")]
            stamps: Vec::new(),
            store: Metered::new(store),
        }
    }

    /// What this node's own coordinator asks.
    pub(crate) fn handle_local(&mut self, shard: &Shard, now: Now, id: RequestId, request: LocalRequest) {
        let outcome = match request {
            LocalRequest::Write(write) => self.write(shard, now, id, write),
            LocalRequest::AddHint(add) => {
                // Nobody waits for an answer.
                return match self.add_hint(shard, &add) {
                    Ok(()) | Err(RequestError::Refused(_)) => {}
                    Err(RequestError::Record(error)) => self.fail(shard, error),
                };
            }
            LocalRequest::Restore(restore) => self.restore(shard, id, restore),
            LocalRequest::Replica(request) => return self.handle_request(shard, shard.node, id, request),
        };
        self.conclude(shard, shard.node, id, outcome);
    }

    /// What a coordinator asks, this node's own or another's.
    pub(crate) fn handle_request(&mut self, shard: &Shard, from: NodeId, id: RequestId, request: ReplicaRequest) {
        let outcome = match request {
            ReplicaRequest::Merge(merge) => self.merge(shard, from, id, merge),
            ReplicaRequest::Read(read) => self.read(shard, from, id, read),
            ReplicaRequest::Scan(scan) => self.line_up(shard, from, id, scan),
        };
        self.conclude(shard, from, id, outcome);
    }

    /// Answers a request that could not be done.
    fn conclude(&mut self, shard: &Shard, from: NodeId, id: RequestId, outcome: Result<(), RequestError>) {
        match outcome {
            Ok(()) => {}
            Err(RequestError::Refused(refusal)) => self.reply(from, id, Reply::Refused(refusal)),
            Err(RequestError::Record(error)) => {
                let damaged = error.is_damage();
                self.fail(shard, error);
                if damaged {
                    self.reply(from, id, Reply::Refused(Refusal::Damaged));
                }
            }
        }
    }

    /// Syncs what is due though nobody waits for it, and looks after the trees.
    pub(crate) fn handle_timeout(&mut self, shard: &Shard, now: Now) {
        if self.syncs.poll_timeout().is_some_and(|due| due <= now.instant) {
            self.ask_sync();
        }
        match self.trees.handle_timeout(now.instant, &self.store, &shard.metrics) {
            Ok(met) => {
                if met.drift {
                    // Headers in memory may be of what is no longer there, and a merge would take them at their word.
                    self.headers = HeaderCache::new(shard.limits.header_cache_bytes);
                }
                met.damage.into_iter().for_each(|error| self.fail(shard, error));
            }
            Err(error) => self.fail(shard, error),
        }
        if let Err(error) = self.hints.step(shard, now.instant, &self.store) {
            self.fail(shard, error);
        }
        self.ask_for_restoring(now.instant);
        self.move_on(shard, now.instant);
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Replica::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [
            self.syncs.poll_timeout(),
            self.trees.poll_timeout(),
            self.hints.poll_timeout(),
            self.damage.poll_timeout(),
            self.moving.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The store underneath.
    pub(crate) fn store(&self) -> &S {
        self.store.inner()
    }

    /// The store underneath.
    pub(crate) fn store_mut(&mut self) -> &mut S {
        self.store.inner_mut()
    }

    /// Bytes read from it since the turn began.
    pub(crate) fn bytes_read(&self) -> usize {
        self.store.read()
    }

    /// The next turn begins.
    pub(crate) fn begin_turn(&self) {
        self.store.begin_turn();
    }

    pub(super) fn reply(&mut self, to: NodeId, id: RequestId, reply: Reply) {
        self.outputs.push_back(Output::Reply { to, id, reply });
    }
}

/// Why a request ends early.
pub(super) enum RequestError {
    Refused(Refusal),
    Record(RecordError),
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> RequestError {
        RequestError::Refused(refusal)
    }
}

impl<E: Into<RecordError>> From<E> for RequestError {
    fn from(error: E) -> RequestError {
        RequestError::Record(error.into())
    }
}
