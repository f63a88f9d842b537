//! One decision by majority: the voter's part and the proposer's, each for one version.
//!
//! ```text
//! proposer                          voter
//!   ── Prepare(slot, ballot) ──▶      promises to accept nothing below the ballot; durable before it says so
//!   ◀── Promise(accepted?) ────       a majority: the value accepted with the highest ballot is the one to propose, or else one's own
//!   ── Accept(ballot, record) ─▶      accepts, unless it has promised a higher one; durable before it says so
//!   ◀── Accepted ──────────────       a majority: decided
//!   ◀── Nack(promised) ────────       a higher ballot is about: wait a little, and begin again above it
//! ```
//! Source: Lamport, *Paxos Made Simple*, 2001. Versions follow each other, and the voters of each are named by the one before, as in
//! Lamport, Malkhi, Zhou, *Reconfiguring a State Machine*, 2010, with a window of one.

use std::collections::{BTreeMap, BTreeSet};

use driftless_proto::membership::{Record, StoreId};
use driftless_ring::NodeId;
use serde::{Deserialize, Serialize};

use super::letter::Ballot;

/// What a voter has bound itself to, for one version. It must be durable before anybody is told.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The version.
    pub(super) slot: u64,
    /// Nothing below is accepted.
    pub(super) promised: Ballot,
    /// What was accepted last.
    pub(super) accepted: Option<(Ballot, Box<Record>)>,
}

impl Standing {
    /// Promises, if nothing above was promised; otherwise what was.
    pub(super) fn promise(&mut self, slot: u64, ballot: Ballot) -> Result<(), Ballot> {
        self.turn_to(slot);
        if ballot < self.promised {
            return Err(self.promised);
        }
        self.promised = ballot;
        Ok(())
    }

    /// Accepts, if nothing above was promised; otherwise what was.
    pub(super) fn accept(&mut self, ballot: Ballot, record: &Record) -> Result<(), Ballot> {
        self.turn_to(record.version());
        if ballot < self.promised {
            return Err(self.promised);
        }
        self.promised = ballot;
        self.accepted = Some((ballot, Box::new(record.clone())));
        Ok(())
    }

    /// What was accepted for a version.
    pub(super) fn accepted_for(&self, slot: u64) -> Option<&(Ballot, Box<Record>)> {
        self.accepted.as_ref().filter(|_| self.slot == slot)
    }

    /// A version is voted on only once the one before it is known, so whatever there is of another one is of an earlier one.
    fn turn_to(&mut self, slot: u64) {
        if self.slot != slot {
            *self = Standing { slot, ..Standing::default() };
        }
    }
}

/// Who votes on a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Electorate {
    /// The voters, each with the store that the record before names; without one while nothing names stores.
    pub(super) voters: BTreeMap<NodeId, Option<StoreId>>,
    /// How many must accept.
    pub(super) needed: usize,
}

impl Electorate {
    fn counts(&self, voter: NodeId, store: StoreId) -> bool {
        self.voters.get(&voter).is_some_and(|named| named.is_none_or(|named| named == store))
    }
}

/// One attempt after another to decide on one version.
#[derive(Debug)]
pub(super) struct Proposal {
    slot: u64,
    electorate: Electorate,
    /// What is proposed if nothing was accepted yet; a finisher has nothing of its own.
    own: Option<Box<Record>>,
    ballot: Ballot,
    phase: Phase,
    /// The highest ballot that was heard of.
    seen: Ballot,
    /// Voters that have said anything.
    answered: BTreeSet<NodeId>,
    /// How often it began again.
    pub(super) rounds: u32,
    /// Voters were asked to accept something, or had accepted something before: then that may be decided whatever becomes of this proposal.
    pub(super) may_be_decided: bool,
}

#[derive(Debug)]
enum Phase {
    Preparing {
        promises: BTreeMap<NodeId, Option<(Ballot, Box<Record>)>>,
    },
    Accepting {
        record: Box<Record>,
        accepted: BTreeSet<NodeId>,
    },
    /// Another one was faster.
    Beaten,
}

/// What an answer has led to.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Step {
    /// Nothing new.
    Wait,
    /// Now all voters are to accept.
    Accept,
    /// It is decided.
    Decided { record: Box<Record>, by: Vec<NodeId> },
    /// Begin again, after a pause.
    Beaten,
}

impl Proposal {
    /// Nothing is sent before [`Proposal::begin`].
    pub(super) fn new(slot: u64, electorate: Electorate, own: Option<Record>) -> Proposal {
        let (own, phase) = (own.map(Box::new), Phase::Beaten);
        let (ballot, seen) = (Ballot::default(), Ballot::default());
        let answered = BTreeSet::new();
        Proposal { slot, electorate, own, ballot, phase, seen, answered, rounds: 0, may_be_decided: false }
    }

    /// The next round, above all that was heard of.
    pub(super) fn begin(&mut self, me: NodeId, nonce: u64, promised: Ballot) {
        let round = self.seen.max(promised).max(self.ballot).round.saturating_add(1);
        self.ballot = Ballot { round, node: me.0, nonce };
        self.phase = Phase::Preparing { promises: BTreeMap::new() };
        self.rounds += 1;
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    pub(super) fn ballot(&self) -> Ballot {
        self.ballot
    }

    pub(super) fn own(&self) -> Option<&Record> {
        self.own.as_deref()
    }

    /// Whether it waits for its next round.
    pub(super) fn is_beaten(&self) -> bool {
        matches!(self.phase, Phase::Beaten)
    }

    /// What the voters are to accept; nothing while they are asked to promise.
    pub(super) fn accepting(&self) -> Option<&Record> {
        match &self.phase {
            Phase::Accepting { record, .. } => Some(record),
            Phase::Preparing { .. } | Phase::Beaten => None,
        }
    }

    /// The voters that have not answered in this phase.
    pub(super) fn missing(&self) -> Vec<NodeId> {
        let has = |voter: &NodeId| match &self.phase {
            Phase::Preparing { promises } => promises.contains_key(voter),
            Phase::Accepting { accepted, .. } => accepted.contains(voter),
            Phase::Beaten => true,
        };
        self.electorate.voters.keys().copied().filter(|voter| !has(voter)).collect()
    }

    /// The voters that have said nothing at all, and how many are needed of how many.
    pub(super) fn silent(&self) -> (Vec<NodeId>, usize, usize) {
        let silent = self.electorate.voters.keys().copied().filter(|voter| !self.answered.contains(voter)).collect();
        (silent, self.electorate.needed, self.electorate.voters.len())
    }

    pub(super) fn promised(
        &mut self,
        from: NodeId,
        store: StoreId,
        ballot: Ballot,
        before: Option<(Ballot, Box<Record>)>,
    ) -> Step {
        if ballot != self.ballot || !self.electorate.counts(from, store) {
            return Step::Wait;
        }
        self.answered.insert(from);
        let Phase::Preparing { promises } = &mut self.phase else { return Step::Wait };
        let before = before.filter(|(_, record)| record.version() == self.slot);
        self.may_be_decided |= before.is_some();
        promises.insert(from, before);
        if promises.len() < self.electorate.needed {
            return Step::Wait;
        }
        let found = promises.values_mut().filter_map(Option::take).max_by_key(|(ballot, _)| *ballot);
        let Some(record) = found.map(|(_, record)| record).or_else(|| self.own.clone()) else {
            // A finisher begins because it has accepted something, and promises that itself.
            return self.beaten(self.ballot);
        };
        self.phase = Phase::Accepting { record, accepted: BTreeSet::new() };
        self.may_be_decided = true;
        Step::Accept
    }

    pub(super) fn accepted(&mut self, from: NodeId, store: StoreId, ballot: Ballot) -> Step {
        if ballot != self.ballot || !self.electorate.counts(from, store) {
            return Step::Wait;
        }
        self.answered.insert(from);
        let Phase::Accepting { record, accepted } = &mut self.phase else { return Step::Wait };
        accepted.insert(from);
        if accepted.len() < self.electorate.needed {
            return Step::Wait;
        }
        Step::Decided { record: record.clone(), by: accepted.iter().copied().collect() }
    }

    pub(super) fn refused(&mut self, from: NodeId, promised: Ballot) -> Step {
        if !self.electorate.voters.contains_key(&from) {
            return Step::Wait;
        }
        self.answered.insert(from);
        if promised <= self.ballot || self.is_beaten() {
            self.seen = self.seen.max(promised);
            return Step::Wait;
        }
        self.beaten(promised)
    }

    fn beaten(&mut self, by: Ballot) -> Step {
        self.seen = self.seen.max(by);
        self.phase = Phase::Beaten;
        Step::Beaten
    }
}

#[cfg(test)]
mod tests;
