//! How this node takes part in decisions: as a voter, as a proposer, and on its own initiative.
//!
//! What it proposes by itself: version 2 ([`super::founding`]); a record
//! that names its new store, once that holds what it must; and again whatever it has accepted and nobody brought to an end: a value that is
//! forgotten half way could otherwise win weeks later.

use std::time::Duration;

use driftless_proto::membership::{ClusterAnswer, Decided, Record, StoreId};
use driftless_proto::{Failure, Refusal, Unknown};
use driftless_ring::NodeId;
use rand::Rng;

use super::chain::Known;
use super::founding::is_same_founding;
use super::letter::{Ballot, DecidedRecord, Letter};
use super::paxos::{Proposal, Step};
use super::{Membership, Output, files, said_of, voters};
use crate::time::Instant;

/// A proposal under way, and for whom.
pub(super) struct Deciding {
    proposal: Proposal,
    purpose: Purpose,
    /// The commands to answer.
    tags: Vec<u64>,
    /// When it is given up.
    until: Instant,
    /// When voters that have not answered are asked again, or the next round begins.
    next: Instant,
}

/// Why something is proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// An operator wants it.
    Command,
    /// This node has accepted it, and nobody brought it to an end.
    Finish,
    /// This node wants it.
    Initiative,
}

/// When this node may propose by itself again.
pub(super) struct Initiative {
    from: Instant,
    pause: Duration,
}

/// How the slot of a letter goes with what this node knows.
enum Bearing {
    /// It is the next one.
    Next,
    /// This node does not know the one before.
    Behind,
    /// It was decided.
    Decided,
    /// It would follow on something else.
    Foreign,
}

impl Deciding {
    pub(super) fn timeout(&self) -> Instant {
        self.next.min(self.until)
    }
}

impl Initiative {
    pub(super) fn new(now: Instant) -> Initiative {
        Initiative { from: now, pause: INITIATIVE_PAUSE_MIN }
    }

    /// It did not succeed: less and less often.
    fn put_off(&mut self, now: Instant, chance: f64) {
        self.from = now + self.pause.mul_f64(0.5 + chance);
        self.pause = (self.pause * 2).min(INITIATIVE_PAUSE_MAX);
    }
}

/// As a voter.
impl Membership {
    pub(super) fn hear_prepare(&mut self, now: Instant, from: NodeId, slot: u64, parent: u128, ballot: Ballot) {
        if !self.is_to_vote(now, from, slot, parent) {
            return;
        }
        match self.standing.promise(slot, ballot) {
            Ok(()) => {
                let accepted = self.standing.accepted.clone();
                self.write(files::BALLOT, files::encode(&self.standing));
                self.send(from, Letter::Promise { slot, ballot, accepted, store: self.me.store });
            }
            Err(promised) => self.send(from, Letter::Nack { slot, promised }),
        }
    }

    pub(super) fn hear_accept(&mut self, now: Instant, from: NodeId, ballot: Ballot, record: &Record) {
        let slot = record.version();
        if !self.is_to_vote(now, from, slot, record.parent) || !self.chain.may_follow(record) {
            return;
        }
        match self.standing.accept(ballot, record) {
            Ok(()) => {
                self.write(files::BALLOT, files::encode(&self.standing));
                self.send(from, Letter::Accepted { slot, ballot, store: self.me.store });
                self.watch_over_accepted(now);
            }
            Err(promised) => self.send(from, Letter::Nack { slot, promised }),
        }
    }

    /// Whether this node votes on what the letter is about; if not, it says what the sender, or it itself, should know.
    fn is_to_vote(&mut self, now: Instant, from: NodeId, slot: u64, parent: u128) -> bool {
        match self.bearing(slot, parent) {
            Bearing::Next => self.may_vote() && self.chain.is_member(from),
            Bearing::Behind => {
                self.want(now, from);
                false
            }
            Bearing::Decided => {
                self.tell_records(from, slot.saturating_sub(1).max(1));
                false
            }
            Bearing::Foreign => {
                tracing::error!(%from, slot, "a proposal that would follow on another history than the own one");
                false
            }
        }
    }

    /// Nobody votes on a version before it knows the one before, whose voters are the ones.
    fn bearing(&self, slot: u64, parent: u128) -> Bearing {
        let next = self.chain.version().saturating_add(1);
        match slot.cmp(&next) {
            std::cmp::Ordering::Less => Bearing::Decided,
            std::cmp::Ordering::Greater => Bearing::Behind,
            std::cmp::Ordering::Equal if parent == self.chain.digest() => Bearing::Next,
            std::cmp::Ordering::Equal => Bearing::Foreign,
        }
    }

    /// A store that the newest record does not name does not vote, even if its node has the name of a voter: the disk that has promised was
    /// another one. Nothing names stores when the second version is decided, so that takes all votes.
    fn may_vote(&self) -> bool {
        let me = self.me.member.id;
        match self.chain.newest() {
            None => self.chain.is_founder(),
            Some(newest) => newest.record.voters.contains(&me) && newest.record.store_of(me) == Some(self.me.store),
        }
    }

    /// Something was accepted: whoever proposed it should come to an end before long.
    pub(super) fn watch_over_accepted(&mut self, now: Instant) {
        if self.finish_at.is_none() && self.has_accepted() {
            self.finish_at = Some(now + FINISH_AFTER + self.draw(FINISH_SPREAD));
        }
    }

    fn has_accepted(&self) -> bool {
        self.standing.accepted_for(self.chain.version().saturating_add(1)).is_some()
    }
}

/// As a proposer.
impl Membership {
    /// Has a record decided on as the next version, or what others have accepted already.
    pub(super) fn propose(&mut self, now: Instant, purpose: Purpose, own: Option<Record>, tags: Vec<u64>) {
        let slot = self.chain.version().saturating_add(1);
        // Who has accepted a founding without some brings it to an end without them.
        let accepted = self.standing.accepted_for(slot).map(|(_, record)| &**record);
        let electorate = self.chain.electorate_on(own.as_ref().or(accepted));
        let proposal = Proposal::new(slot, electorate, own);
        self.deciding = Some(Deciding { proposal, purpose, tags, until: now + GIVE_UP_AFTER, next: now });
        self.begin_round(now);
    }

    /// A proposal under way that an operator waits for, if there is one.
    pub(super) fn commanded(&mut self) -> Option<(&Record, &mut Vec<u64>)> {
        let deciding = self.deciding.as_mut().filter(|deciding| deciding.purpose == Purpose::Command)?;
        Some((deciding.proposal.own()?, &mut deciding.tags))
    }

    pub(super) fn hear_promise(
        &mut self,
        now: Instant,
        from: NodeId,
        slot: u64,
        ballot: Ballot,
        accepted: Option<(Ballot, Box<Record>)>,
        store: StoreId,
    ) {
        // What a voter has accepted for the slot it has checked as this node would.
        let accepted = accepted.filter(|(_, record)| self.chain.may_follow(record));
        if let Some(deciding) = self.deciding_on(slot) {
            let step = deciding.proposal.promised(from, store, ballot, accepted);
            self.go_on(now, step);
        }
    }

    pub(super) fn hear_accepted(&mut self, now: Instant, from: NodeId, slot: u64, ballot: Ballot, store: StoreId) {
        if let Some(deciding) = self.deciding_on(slot) {
            let step = deciding.proposal.accepted(from, store, ballot);
            self.go_on(now, step);
        }
    }

    pub(super) fn hear_nack(&mut self, now: Instant, from: NodeId, slot: u64, promised: Ballot) {
        if let Some(deciding) = self.deciding_on(slot) {
            let step = deciding.proposal.refused(from, promised);
            self.go_on(now, step);
        }
    }

    /// Asks again, begins again, or gives up, as it is time.
    pub(super) fn go_on_deciding(&mut self, now: Instant) {
        let Some(deciding) = &self.deciding else { return };
        if now >= deciding.until {
            self.give_up(now);
        } else if now >= deciding.next {
            if deciding.proposal.is_beaten() { self.begin_round(now) } else { self.ask(now) }
        }
    }

    /// Answers those who wait, if what was proposed is decided by now, one way or the other.
    pub(super) fn conclude(&mut self, now: Instant) {
        let version = self.chain.version();
        let Some(deciding) = self.deciding.take_if(|deciding| deciding.proposal.slot() <= version) else { return };
        self.initiative = Initiative::new(now);
        let slot = deciding.proposal.slot();
        let Some(decided) = self.chain.record(slot).cloned() else {
            // A node that has come back after very long may have been given later versions only; or one was forced.
            let why = format!("there is a version {version} by now, and never was this version {slot}: plan again");
            deciding.tags.into_iter().for_each(|tag| self.answer(tag, Err(why.clone())));
            return;
        };
        let is_same = |own: &Record| is_same_change(own, &decided.record) || is_same_founding(own, &decided.record);
        let is_own = deciding.proposal.own().is_some_and(is_same);
        for tag in deciding.tags {
            let answer = if is_own {
                Ok(self.as_decided(&decided))
            } else {
                let Record { by, reason, .. } = &*decided.record;
                Err(format!("version {slot} was decided otherwise ({by}: {reason}): plan again"))
            };
            self.answer(tag, answer);
        }
    }

    /// What an operator is told of a version.
    pub(super) fn as_decided(&self, known: &Known) -> ClusterAnswer {
        let by = self.names_of(known.accepted_by.iter().copied());
        ClusterAnswer::Decided(Decided { version: known.record.version(), by, reason: known.record.reason.clone() })
    }

    fn deciding_on(&mut self, slot: u64) -> Option<&mut Deciding> {
        self.deciding.as_mut().filter(|deciding| deciding.proposal.slot() == slot)
    }

    fn begin_round(&mut self, now: Instant) {
        let (me, nonce) = (self.me.member.id, self.rng.random());
        let Some(deciding) = &mut self.deciding else { return };
        let slot = deciding.proposal.slot();
        let promised = if self.standing.slot == slot { self.standing.promised } else { Ballot::default() };
        deciding.proposal.begin(me, nonce, promised);
        self.ask(now);
    }

    /// Asks those who have not answered, itself last: its own vote may be the one that decides.
    fn ask(&mut self, now: Instant) {
        let (me, parent, next) = (self.me.member.id, self.chain.digest(), now + ASK_AGAIN_AFTER);
        let Some(deciding) = &mut self.deciding else { return };
        deciding.next = next;
        let proposal = &deciding.proposal;
        let (slot, ballot, missing) = (proposal.slot(), proposal.ballot(), proposal.missing());
        let letter = match proposal.accepting() {
            Some(record) => Letter::Accept { ballot, record: Box::new(record.clone()) },
            None => Letter::Prepare { slot, parent, ballot },
        };
        for voter in missing.iter().filter(|voter| **voter != me) {
            self.send(*voter, letter.clone());
        }
        if missing.contains(&me) && self.may_vote() {
            self.vote_itself(now, letter);
        }
    }

    fn vote_itself(&mut self, now: Instant, letter: Letter) {
        let (me, store) = (self.me.member.id, self.me.store);
        let Some(deciding) = &mut self.deciding else { return };
        let slot = deciding.proposal.slot();
        let proposal = &mut deciding.proposal;
        let (step, has_voted) = match letter {
            Letter::Prepare { ballot, .. } => match self.standing.promise(slot, ballot) {
                Ok(()) => (proposal.promised(me, store, ballot, self.standing.accepted.clone()), true),
                Err(promised) => (proposal.refused(me, promised), false),
            },
            Letter::Accept { ballot, record } => match self.standing.accept(ballot, &record) {
                Ok(()) => (proposal.accepted(me, store, ballot), true),
                Err(promised) => (proposal.refused(me, promised), false),
            },
            _ => return,
        };
        if has_voted {
            // Before whatever follows from this vote: outputs are carried out in order.
            self.write(files::BALLOT, files::encode(&self.standing));
            self.watch_over_accepted(now);
        }
        self.go_on(now, step);
    }

    fn go_on(&mut self, now: Instant, step: Step) {
        match step {
            Step::Wait => {}
            Step::Accept => self.ask(now),
            Step::Beaten => {
                let rounds = self.deciding.as_ref().map_or(0, |deciding| deciding.proposal.rounds);
                let pause = self.draw(DUEL_PAUSE * rounds.clamp(1, DUEL_PAUSES_MAX));
                if let Some(deciding) = &mut self.deciding {
                    deciding.next = now + DUEL_PAUSE / 4 + pause;
                }
            }
            Step::Decided { record, by } => self.decided(now, *record, by),
        }
    }

    fn decided(&mut self, now: Instant, record: Record, accepted_by: Vec<NodeId>) {
        let ballot = self.deciding.as_ref().map_or_else(Ballot::default, |deciding| deciding.proposal.ballot());
        self.make_known(now, DecidedRecord { record, ballot, accepted_by });
    }

    /// Written down here, followed here, told to everybody, and only then answered.
    pub(super) fn make_known(&mut self, now: Instant, decided: DecidedRecord) {
        self.adopt(decided.clone());
        self.rework(now);
        for peer in self.peers.connected() {
            let (settled, records) = (self.chain.settled(), vec![decided.clone()]);
            self.send(peer, Letter::Records { settled, records });
        }
        self.after_learning(now);
    }

    fn give_up(&mut self, now: Instant) {
        let Some(deciding) = self.deciding.take() else { return };
        let chance = self.rng.random();
        match deciding.purpose {
            Purpose::Command => {}
            Purpose::Initiative => self.initiative.put_off(now, chance),
            Purpose::Finish => self.finish_at = None,
        }
        self.watch_over_accepted(now);
        let (silent, needed, count) = deciding.proposal.silent();
        let is_contended = count - silent.len() >= needed;
        let why = if is_contended {
            "voters answer, but others propose at the same time".to_owned()
        } else {
            let silent = self.names_of(silent);
            let silent = said_of(&silent, "does not answer", "do not answer");
            format!("no majority of voters: {silent}, {needed} of {count} are needed")
        };
        // What was proposed to one voter may be decided by others, later.
        let may_be_decided = is_contended || deciding.proposal.may_be_decided || self.has_accepted();
        let failure = match may_be_decided {
            true => Failure::Unknown(Unknown::Interrupted(format!("{why}; it may be decided yet"))),
            false => Refusal::Membership(format!("{why}; this attempt has changed nothing")).into(),
        };
        for tag in deciding.tags {
            self.outputs.push_back(Output::Answer { tag, answer: Err(failure.clone()) });
        }
    }

    /// A random time up to this.
    fn draw(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random::<f64>())
    }
}

/// On its own initiative.
impl Membership {
    pub(super) fn take_initiative(&mut self, now: Instant) {
        if self.deciding.is_some() {
            return;
        }
        if self.finish_at.is_some_and(|at| at <= now) {
            self.finish_at = None;
            if self.has_accepted() && self.may_vote() {
                self.propose(now, Purpose::Finish, None, Vec::new());
                return;
            }
        }
        if now < self.initiative.from {
            return;
        }
        let record = if self.chain.newest().is_none() { self.second_version(now) } else { self.with_new_store() };
        if let Some(record) = record {
            self.propose(now, Purpose::Initiative, Some(record), Vec::new());
        }
    }

    /// The same tables with the own store, once that holds what it must: the one that they name is gone.
    fn with_new_store(&self) -> Option<Record> {
        let (newest, me, store) = (self.chain.newest()?, self.me.member.id, self.me.store);
        let record = &newest.record;
        let gone = record.store_of(me).filter(|named| *named != store)?;
        let version = record.version();
        if self.progress.version < version || self.progress.ready < version || record.is_lost(me, store) {
            return None;
        }
        let ring = record.topology.ring();
        let ring = ring.again(ring).ok()?;
        let topology = record.topology.with_ring(ring).ok()?;
        let named = |(node, named): &(NodeId, StoreId)| (*node, if *node == me { store } else { *named });
        let stores: Vec<(NodeId, StoreId)> = record.stores.iter().map(named).collect();
        let lost = record.lost_with([(me, gone)]);
        let name = &self.me.member.name;
        let voters = voters::next(&record.voters, topology.ring().members(), &stores, &lost);
        let (dropped, reason) = (record.dropped.clone(), format!("{name} has a new store"));
        record.followed_by(newest.digest, topology, stores, voters, lost, dropped, name.clone(), reason).ok()
    }
}

/// Whether two records make the same of the version before, at whichever node they were committed.
pub(super) fn is_same_change(a: &Record, b: &Record) -> bool {
    let mut other = b.clone();
    other.by.clone_from(&a.by);
    *a == other
}

/// Operators wait for it, and a majority that is there answers in milliseconds.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// A voter syncs once before it answers; above that, letters are taken to be lost.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// After being beaten, up to so long and more with each round: the winner needs two journeys and two syncs.
const DUEL_PAUSE: Duration = Duration::from_millis(100);

/// The pause grows up to so many times [`DUEL_PAUSE`].
const DUEL_PAUSES_MAX: u32 = 8;

/// The proposer itself gives up after [`GIVE_UP_AFTER`].
const FINISH_AFTER: Duration = Duration::from_secs(5);

/// So that not all voters begin at once.
const FINISH_SPREAD: Duration = Duration::from_secs(2);

/// Between the first attempts on the own initiative.
const INITIATIVE_PAUSE_MIN: Duration = Duration::from_secs(1);

/// And between the later ones.
const INITIATIVE_PAUSE_MAX: Duration = Duration::from_secs(16);
