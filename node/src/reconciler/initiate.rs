//! What this node begins: rounds with a peer, and exchanges of partitions that turn out to differ.

use std::collections::BTreeMap;
use std::time::Duration;

use driftless_antientropy::message::Ask;
use driftless_antientropy::{
    Digest, ExchangeId, Held, Holder, Initiator, InitiatorOutput, Line, Local, Outcome, Refused, Report, Standing,
    Sums, Unequal,
};
use driftless_proto::{BucketId, Key, Siblings};
use driftless_ring::{NodeId, PartitionId, Token};
use rand::Rng;

use crate::peer::{Exchange, Read, ReplicaRequest, Request, RequestId, Want};
use crate::planted::Bug;
use crate::shard::Shard;
use crate::time::Now;

use super::repair::JobId;
use super::{Asked, Holdings, Output, Reconciler, View, count, micros};

/// An exchange that this node began.
pub(super) struct Begun {
    pub(super) peer: NodeId,
    pub(super) initiator: Initiator,
    /// The last one sent.
    pub(super) request: RequestId,
    /// Tokens at which something differed.
    pub(super) found: Vec<Token>,
    /// Whether the peer has taken all that was sent to it.
    pub(super) taken: bool,
}

impl Reconciler {
    pub(super) fn begin_round<H: Holdings>(&mut self, view: &View<'_, H>, peer: NodeId, partitions: Vec<PartitionId>) {
        let View { shard, now, .. } = *view;
        // A peer may have another number of shards; one message goes to one of them.
        let mut lines: BTreeMap<u16, Vec<Line>> = BTreeMap::new();
        for &partition in &partitions {
            match view.holdings.tree(partition) {
                Held::Tree(tree) => {
                    let shard = shard.configurations.shard_of(peer, partition);
                    lines.entry(shard).or_default().push(Line::of(partition, tree));
                }
                Held::Rebuilding => return self.rounds.defer_round(now.instant, peer, partitions),
                Held::Nothing => {}
            }
        }
        shard.metrics.aae_rounds.inc();
        let q = shard.ring().partitions();
        let messages: Vec<Sums> = lines.values().flat_map(|lines| Sums::of(q, lines)).collect();
        self.rounds.opened(now.instant, peer, messages.len());
        for sums in messages {
            self.spend(shard, sums.encoded_len());
            let partitions = sums.lines.iter().map(|line| line.partition).collect();
            let request = Request::Exchange(Exchange::Sums(sums));
            self.ask(shard, now, peer, request, Asked::Sums { of: peer, partitions });
        }
    }

    pub(super) fn begin_exchanges<H: Holdings>(&mut self, view: &View<'_, H>) {
        let View { shard, now, .. } = *view;
        while self.begun.len() < shard.limits.aae.exchanges_max
            && self.budget.is_open(now.instant, view.pressed)
            && let Some((peer, partition, unequal)) =
                self.rounds.next(now.instant, |peer, partition| self.is_busy(peer, partition))
        {
            if view.recipients.contains(&peer) {
                self.rounds.back_off_peer(now.instant, peer);
                continue;
            }
            let mine = count(view.holdings.tree(partition));
            let known = now.instant.since(unequal.since);
            let confirm =
                if may_be_under_way(mine, unequal.peer_count) { shard.limits.aae.confirm } else { Duration::ZERO };
            let settings = self.settings(shard, confirm.saturating_sub(known));
            let exchange = ExchangeId(self.rng.random());
            let bits = unequal.peer_bits;
            let initiator = self.with_local(view, partition, |local| {
                Initiator::start(micros(now), settings, exchange, partition, bits, local)
            });
            match initiator {
                Some(initiator) => {
                    let begun = Begun { peer, initiator, request: RequestId(0), found: Vec::new(), taken: true };
                    self.begun.insert(exchange, begun);
                    self.drain_begun(view, exchange);
                }
                None => self.rounds.retry_soon(now.instant, peer, partition),
            }
        }
    }

    pub(super) fn drain_begun<H: Holdings>(&mut self, view: &View<'_, H>, exchange: ExchangeId) {
        let View { shard, now, .. } = *view;
        while let Some(begun) = self.begun.get_mut(&exchange)
            && let Some(output) = begun.initiator.poll_output()
        {
            let (peer, partition) = (begun.peer, begun.initiator.partition());
            match output {
                InitiatorOutput::Send(mut request) => {
                    if request.ask == Ask::Done && !begun.taken {
                        request.ask = Ask::Over;
                    }
                    let id = self.ids.draw();
                    begun.request = id;
                    let repairs =
                        if matches!(request.ask, Ask::Differ(_)) { shard.limits.aae.repair } else { Duration::ZERO };
                    let deadline = now.instant + shard.limits.aae.patience + repairs;
                    self.spend(shard, request.encoded_len());
                    let request = Request::Exchange(Exchange::Step { partition, request });
                    self.outputs.push_back(Output::Send { to: peer, id, deadline, request });
                }
                InitiatorOutput::Repair(differences) => {
                    let room = UNREPAIRED_MAX.saturating_sub(begun.found.len());
                    begun.found.extend(differences.iter().take(room).map(|difference| difference.token));
                    if let Some(shared) = self.rounds.shared(peer, partition) {
                        shared.repaired += differences.len() as u64;
                    }
                    let held = differences.iter().filter(|difference| difference.holder != Holder::Peer);
                    let tokens = held.map(|difference| difference.token).collect();
                    self.repairs.begin(JobId::Begun(exchange), peer, partition, tokens);
                }
                InitiatorOutput::Ended(report) => {
                    let (found, taken) = (std::mem::take(&mut begun.found), begun.taken);
                    self.begun.remove(&exchange);
                    self.repairs.drop_job(JobId::Begun(exchange));
                    if taken {
                        self.ended(view, peer, partition, &report, &found);
                    } else {
                        self.not_taken(shard, now, peer, partition);
                    }
                }
            }
        }
    }

    fn ended<H: Holdings>(
        &mut self,
        view: &View<'_, H>,
        peer: NodeId,
        partition: PartitionId,
        report: &Report,
        found: &[Token],
    ) {
        let View { shard, now, .. } = *view;
        shard.metrics.aae_keys_compared.inc_by(report.keys_compared);
        if let Some(shared) = self.rounds.shared(peer, partition) {
            shared.compared += report.keys_compared;
        }
        if report.outcome == Outcome::Complete && view.holdings.is_damaged(shard, partition) {
            // What could not be read was not compared.
            return self.not_taken(shard, now, peer, partition);
        }
        if report.outcome != Outcome::Complete {
            tracing::debug!(%peer, %partition, outcome = ?report.outcome, "an exchange ended early");
            match report.outcome {
                Outcome::Refused(Refused::NotTaken) => return self.not_taken(shard, now, peer, partition),
                Outcome::Refused(Refused::Busy) => self.rounds.back_off_peer(now.instant, peer),
                _ => {}
            }
            shard.metrics.aae_exchanges_failed.inc();
            return self.rounds.retry_soon(now.instant, peer, partition);
        }
        shard.metrics.aae_exchanges.inc();
        shard.metrics.aae_exchanges_different.inc_by(u64::from(report.keys_differing > 0));
        self.rounds.equal(now.instant, peer, partition);
        self.passed(peer, partition);
        let (mut reported, read_before) = (0, view.holdings.bytes_read());
        for token in self.rounds.differed(peer, partition, found).into_iter().take(UNREPAIRED_LOOKED_AT_MAX) {
            if view.holdings.bytes_read() - read_before >= self.step_bytes {
                break;
            }
            let states = match view.holdings.states_at(partition.n, token) {
                Ok(states) => states,
                Err(error) => return self.fail(error),
            };
            let held = states.iter().map(|(bucket, key, held)| Digest::of(*bucket, key, &held.header())).collect();
            if self.rounds.is_unrepaired(peer, partition, token, held) && reported < UNREPAIRED_LOGGED_MAX {
                reported += 1;
                self.report_unrepaired(shard, now, peer, partition, token, states);
            }
        }
    }

    /// One side did not take all that it was sent, most likely for want of room. The partition still differs, and that is
    /// no sign of a bug.
    fn not_taken(&mut self, shard: &Shard, now: Now, peer: NodeId, partition: PartitionId) {
        shard.metrics.aae_exchanges_failed.inc();
        self.rounds.retry_next_round(now.instant, peer, partition);
    }

    /// Says what this node holds of a key that does not become equal, and asks the peer for its state.
    fn report_unrepaired(
        &mut self,
        shard: &Shard,
        now: Now,
        peer: NodeId,
        partition: PartitionId,
        token: Token,
        states: Vec<(BucketId, Key, Siblings)>,
    ) {
        shard.metrics.aae_keys_unrepaired.inc();
        if states.is_empty() {
            tracing::error!(%peer, %partition, token = token.0, "a key differed in three successive rounds; this node \
                holds nothing at its token, the peer does");
        }
        for (bucket, key, siblings) in states {
            let mine = format!("bucket {}, token {:016x}: {:?}", bucket.0, token.0, siblings.header());
            let request = Request::Replica(ReplicaRequest::Read(Read {
                bucket,
                key,
                want: Want::Header,
                durable: false,
                counted_for: None,
            }));
            self.ask(shard, now, peer, request, Asked::State { of: peer, mine });
        }
    }

    /// The answer is whether something could not be compared yet.
    pub(super) fn take_unequal(
        &mut self,
        shard: &Shard,
        now: Now,
        peer: NodeId,
        asked: &[PartitionId],
        unequal: &Unequal,
    ) -> bool {
        let named: BTreeMap<PartitionId, Standing> = unequal.partitions.iter().copied().collect();
        let mut again = false;
        for &partition in asked {
            match named.get(&partition) {
                None => {
                    self.rounds.equal(now.instant, peer, partition);
                    self.passed(peer, partition);
                    self.rounds.forgive(peer, partition);
                }
                Some(Standing::Differs { bits, count }) => {
                    self.rounds.unequal(now.instant, peer, partition, *bits, *count);
                }
                Some(Standing::Rebuilding) => again = true,
                // The peer has heard before this node, or this node since it asked, that older versions are done with: it was dropped.
                Some(Standing::NotComparable)
                    if shard.configurations.is_moving() || self.rounds.shared(peer, partition).is_none() => {}
                Some(Standing::NotComparable) => {
                    tracing::warn!(%peer, %partition, "the peer compares this partition in another way, or does not \
                        own it: is it of another release?");
                }
            }
        }
        again
    }

    /// Ends an exchange that this node began, tells the peer, and will try again.
    pub(super) fn call_off_begun(&mut self, shard: &Shard, now: Now, exchange: ExchangeId) {
        let Some(mut begun) = self.begun.remove(&exchange) else { return };
        let (to, partition) = (begun.peer, begun.initiator.partition());
        shard.metrics.aae_exchanges_failed.inc();
        self.repairs.drop_job(JobId::Begun(exchange));
        self.rounds.retry_soon(now.instant, to, partition);
        if let Some(request) = begun.initiator.give_up()
            && !shard.planted.is(Bug::ExchangeForgotten)
        {
            let (id, deadline) = (self.ids.draw(), now.instant + shard.limits.aae.patience);
            self.spend(shard, request.encoded_len());
            let request = Request::Exchange(Exchange::Step { partition, request });
            self.outputs.push_back(Output::Send { to, id, deadline, request });
        }
    }

    /// Two exchanges of a partition at once would find the same.
    pub(super) fn is_busy(&self, peer: NodeId, partition: PartitionId) -> bool {
        self.begun.values().any(|begun| begun.initiator.partition() == partition) || self.repairs.are_put_off(peer)
    }

    pub(super) fn with_initiator<H: Holdings>(
        &mut self,
        view: &View<'_, H>,
        exchange: ExchangeId,
        call: impl FnOnce(&mut Initiator, Local<'_>),
    ) {
        let Some(mut begun) = self.begun.remove(&exchange) else { return };
        let partition = begun.initiator.partition();
        self.with_local(view, partition, |local| call(&mut begun.initiator, local));
        self.begun.insert(exchange, begun);
    }
}

/// Whether a difference may be writes that are only under way, which become equal by themselves. Not if one side lacks
/// more than that: a node that has lost its data should not wait a second for each partition.
fn may_be_under_way(mine: u64, theirs: u64) -> bool {
    mine.min(theirs) > 0 && mine.abs_diff(theirs) <= UNDER_WAY_MAX
}

/// Keys that one side of a partition may have more than the other just because writes are under way.
const UNDER_WAY_MAX: u64 = 64;

/// Keys of a partition that are watched for becoming equal.
const UNREPAIRED_MAX: usize = 1000;

/// Keys of an exchange that are read to see whether they have changed since they differed last; fewer if they are large.
const UNREPAIRED_LOOKED_AT_MAX: usize = 64;

/// Keys that do not become equal are reported a few at a time: what ails one ails all.
const UNREPAIRED_LOGGED_MAX: usize = 4;
