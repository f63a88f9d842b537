//! What peers begin: their rounds are answered, and their exchanges followed.

use driftless_antientropy::message::{Answer, Ask};
use driftless_antientropy::{self as antientropy, ExchangeId, Held, Local, Refused, Responder, ResponderOutput, Sums};
use driftless_ring::{NodeId, PartitionId};

use crate::peer::{Exchanged, Reply, RequestId};
use crate::planted::Bug;
use crate::shard::Shard;

use super::repair::JobId;
use super::{Holdings, Output, Reconciler, View, micros};

/// An exchange that a peer began.
pub(super) struct Answering {
    pub(super) responder: Responder,
    /// The request to be answered next.
    pub(super) reply_to: RequestId,
}

impl Reconciler {
    pub(super) fn answer_sums<H: Holdings>(&mut self, view: &View<'_, H>, from: NodeId, id: RequestId, sums: &Sums) {
        let View { shard, now, .. } = *view;
        let configurations = &shard.configurations;
        let unequal = sums.answer(shard.ring().partitions(), |partition| match view.holdings.tree(partition) {
            _ if !configurations.keeps(from, partition) => Held::Nothing,
            // A store that may have forgotten something is nobody's measure.
            _ if !configurations.is_whole() && !shard.planted.is(Bug::LostStoreFeeds) => Held::Rebuilding,
            // Nor is what cannot read all that it holds: who asks may be filling a store that was lost.
            _ if view.holdings.is_damaged(shard, partition) => Held::Rebuilding,
            held => held,
        });
        let mut named = unequal.partitions.iter().map(|(partition, _)| *partition).peekable();
        for line in &sums.lines {
            self.note_lack(line.partition, view.holdings.tree(line.partition), line.count);
            if named.next_if_eq(&line.partition).is_none() {
                self.rounds.equal(now.instant, from, line.partition);
            }
        }
        self.spend(shard, unequal.encoded_len());
        self.outputs.push_back(Output::Reply { to: from, id, reply: Reply::Exchanged(Exchanged::Unequal(unequal)) });
    }

    pub(super) fn answer_step<H: Holdings>(
        &mut self,
        view: &View<'_, H>,
        from: NodeId,
        id: RequestId,
        partition: PartitionId,
        request: antientropy::Request,
    ) {
        let View { shard, now, .. } = *view;
        if let Err(refusal) = shard.assert_mine(partition) {
            return self.outputs.push_back(Output::Reply { to: from, id, reply: Reply::Refused(refusal) });
        }
        let exchange = request.exchange;
        let (done, over) = (request.ask == Ask::Done, request.ask == Ask::Over);
        let ours = matches!(view.holdings.tree(partition), Held::Tree(_) | Held::Rebuilding);
        let known = self.answering.get(&(from, exchange));
        let other = known.is_some_and(|answering| answering.responder.partition() != partition)
            || matches!(&request.ask, Ask::Start(start) if start.partition != partition);
        let is_lost = !shard.configurations.is_whole() && !shard.planted.is(Bug::LostStoreFeeds);
        let refusal = if !ours || !shard.configurations.keeps(from, partition) {
            Some(Refused::NotOwner)
        } else if view.holdings.is_damaged(shard, partition) || is_lost {
            Some(Refused::Rebuilding)
        } else if other {
            Some(Refused::Malformed)
        } else if known.is_none() && self.may_not_answer(shard, from, &request.ask, view.recipients.contains(&from)) {
            Some(Refused::Busy)
        } else {
            None
        };
        if let Some(reason) = refusal {
            // Who is refused does not go on.
            self.end_answering(from, exchange);
            return self.reply_step(shard, from, id, request.refuse(reason));
        }
        match self.answering.get_mut(&(from, exchange)) {
            Some(answering) => {
                answering.reply_to = id;
                self.with_responder(view, from, exchange, |responder, local| {
                    responder.handle_request(micros(now), local, request);
                });
                if done {
                    self.rounds.equal(now.instant, from, partition);
                }
            }
            // An exchange that is over here: nobody waits for an answer.
            None if done || over => {}
            None => {
                let settings = self.settings(shard, shard.limits.aae.confirm);
                let started =
                    self.with_local(view, partition, |local| Responder::start(micros(now), settings, local, request));
                match started {
                    Ok(responder) => {
                        self.answering.insert((from, exchange), Answering { responder, reply_to: id });
                    }
                    Err(refused) => return self.reply_step(shard, from, id, refused),
                }
            }
        }
        self.drain_answering(shard, from, exchange);
    }

    /// A peer whose request came by another shard's connection, before there is one to this shard, could be sent no repairs.
    fn may_not_answer(&self, shard: &Shard, from: NodeId, ask: &Ask, receives: bool) -> bool {
        let is_full = self.answering.len() >= shard.limits.aae.exchanges_max;
        matches!(ask, Ask::Start(_)) && (self.paused || receives || is_full || !self.rounds.is_up(from))
    }

    pub(super) fn drain_answering(&mut self, shard: &Shard, from: NodeId, exchange: ExchangeId) {
        while let Some(answering) = self.answering.get_mut(&(from, exchange))
            && let Some(output) = answering.responder.poll_output()
        {
            let (partition, reply_to) = (answering.responder.partition(), answering.reply_to);
            match output {
                ResponderOutput::Send(reply) => {
                    if let Answer::Listed(listing) = &reply.answer
                        && let Some(shared) = self.rounds.shared(from, partition)
                    {
                        shared.compared += listing.entries() as u64;
                    }
                    self.reply_step(shard, from, reply_to, reply);
                }
                ResponderOutput::Repair(tokens) => {
                    if let Some(shared) = self.rounds.shared(from, partition) {
                        shared.repaired += tokens.len() as u64;
                    }
                    self.repairs.begin(JobId::Answering(from, exchange), from, partition, tokens.into());
                }
                ResponderOutput::Ended => self.end_answering(from, exchange),
            }
        }
    }

    fn reply_step(&mut self, shard: &Shard, to: NodeId, id: RequestId, reply: antientropy::Reply) {
        self.spend(shard, reply.encoded_len());
        self.outputs.push_back(Output::Reply { to, id, reply: Reply::Exchanged(Exchanged::Step(reply)) });
    }

    /// Ends an exchange that a peer began, and tells it if it waits.
    pub(super) fn call_off_answering(&mut self, shard: &Shard, from: NodeId, exchange: ExchangeId) {
        if shard.planted.is(Bug::ExchangeForgotten) {
            return self.end_answering(from, exchange);
        }
        if let Some(answering) = self.answering.get_mut(&(from, exchange)) {
            answering.responder.give_up(Refused::NoSuchExchange);
        }
        self.drain_answering(shard, from, exchange);
    }

    pub(super) fn end_answering(&mut self, from: NodeId, exchange: ExchangeId) {
        self.answering.remove(&(from, exchange));
        self.repairs.drop_job(JobId::Answering(from, exchange));
    }

    fn with_responder<H: Holdings>(
        &mut self,
        view: &View<'_, H>,
        from: NodeId,
        exchange: ExchangeId,
        call: impl FnOnce(&mut Responder, Local<'_>),
    ) {
        let Some(mut answering) = self.answering.remove(&(from, exchange)) else { return };
        let partition = answering.responder.partition();
        self.with_local(view, partition, |local| call(&mut answering.responder, local));
        self.answering.insert((from, exchange), answering);
    }
}
