//! What was decided, from whoever knows it, and what follows from that.

use driftless_proto::membership::Record;
use driftless_ring::NodeId;

use super::chain::Fit;
use super::letter::{DecidedRecord, Letter};
use super::{Membership, Output, files, is_known};
use crate::configurations::Configurations;
use crate::time::Instant;

impl Membership {
    /// Asks for the records that this node lacks.
    pub(super) fn want(&mut self, now: Instant, peer: NodeId) {
        if self.peers.may_want(now, peer) {
            let after = self.lacks_after();
            self.send(peer, Letter::Want { after });
        }
    }

    /// Who has no record and has bound itself to nothing takes the chain as it is now; all others must follow it from where they are.
    fn lacks_after(&self) -> u64 {
        if self.is_free() { 0 } else { self.chain.version() }
    }

    /// Whether this node has never taken part in a decision.
    fn is_free(&self) -> bool {
        self.chain.newest().is_none() && self.standing.slot == 0
    }

    pub(super) fn tell_records(&mut self, to: NodeId, after: u64) {
        let records = self.chain.after(after);
        if !records.is_empty() {
            let settled = self.chain.settled();
            self.send(to, Letter::Records { settled, records });
        }
    }

    /// Anybody with a certificate may ask; who is no member, not too often.
    pub(super) fn answer_want(&mut self, now: Instant, from: NodeId, after: u64) {
        if is_known(&self.chain, from) || self.peers.may_push(now, from) {
            self.tell_records(from, after);
        }
    }

    /// Takes records, as far as they follow each other.
    pub(super) fn learn(&mut self, now: Instant, from: NodeId, settled: u64, records: Vec<DecidedRecord>) {
        let me = self.me.member.id;
        let names_me = |record: &Record| record.topology.ring().member(me).is_some();
        // A founder joins another chain than its file's only if that counts on it: then the file was changed since, or the node has lost
        // its disk. A node of two files must not fall out of the one because it hears the other.
        let is_taken = !self.chain.is_founder() || records.last().is_some_and(|last| names_me(&last.record));
        // Who begins with the newest version alone would take those before it, which are not done with, for done with.
        let begins = self.chain.newest().is_none();
        let first = records.first().map_or(0, |first| first.record.version());
        let is_whole = first <= settled;
        if begins && is_taken && self.is_free() && !is_whole && first > 2 {
            return self.want(now, from);
        }
        let mut learned = false;
        for decided in records {
            match self.chain.fit(&decided.record, is_taken && self.is_free() && is_whole) {
                Fit::Old => {}
                Fit::Next if !self.chain.is_decided(&decided) => {
                    let version = decided.record.version();
                    tracing::error!(%from, version, "a version that no majority of the voters before it has accepted: it is not taken");
                    break;
                }
                Fit::Next => {
                    self.adopt(decided);
                    self.set_apart(from, None);
                    learned = true;
                }
                Fit::Gap => {
                    self.want(now, from);
                    break;
                }
                Fit::Foreign => {
                    self.set_apart(from, Some(self.chain.why_foreign(&decided.record)));
                    break;
                }
            }
        }
        if learned && begins {
            self.chain.settle(settled);
        }
        if learned {
            self.after_learning(now);
        }
    }

    /// Writes down the next record.
    pub(super) fn adopt(&mut self, decided: DecidedRecord) {
        let name = files::record(decided.record.version());
        self.write(name, files::encode(&decided));
        let (version, reason) = (decided.record.version(), &decided.record.reason);
        match decided.record.forced_on {
            None => tracing::info!(version, reason, "a version of the cluster was decided"),
            Some(forced_on) => tracing::warn!(version, forced_on, reason, "a version of the cluster was forced"),
        }
        self.chain.push(decided);
    }

    /// Lets everything follow from new records.
    pub(super) fn after_learning(&mut self, now: Instant) {
        let version = self.chain.version();
        self.staging.advance(version);
        if self.standing.slot <= version {
            self.finish_at = None;
        }
        self.rework(now);
        self.conclude(now);
        self.news.hurry(now);
    }

    /// Works out anew which versions count, and tells the shards if that has changed.
    pub(super) fn rework(&mut self, now: Instant) {
        let Some(mut configurations) = self.worked_out() else { return };
        let version = configurations.version();
        let knows_those_before = self.chain.unsettled().len() > 1 || self.chain.founding_that_counts().is_some();
        if configurations.is_settled() && knows_those_before && self.chain.settle(version) {
            self.after_settling();
            self.news.hurry(now);
            configurations = self.worked_out().unwrap_or(configurations);
        }
        if configurations != *self.configurations {
            self.configurations = std::sync::Arc::new(configurations);
            self.outputs.push_back(Output::Configurations(self.configurations.clone()));
        }
    }

    /// What the records and marks make; nothing while there are none.
    pub(super) fn worked_out(&self) -> Option<Configurations> {
        self.chain.newest()?;
        let (me, shards, store) = (self.me.member.id, self.me.member.shards, self.me.store);
        let marks = self.marks.of_all(self.chain.store_of(me));
        let founding = self.chain.founding_that_counts();
        let configurations = Configurations::of_records(me, store, &self.chain.unsettled(), founding, &marks);
        Some(configurations.of_process(me, shards))
    }

    /// Older versions count no more.
    pub(super) fn after_settling(&mut self) {
        let chain = &self.chain;
        self.marks.retain(|node| is_known(chain, node));
        self.write_marks();
        for version in self.chain.prune() {
            self.outputs.push_back(Output::Write { name: files::record(version), bytes: None });
        }
    }

    pub(super) fn write_marks(&mut self) {
        let bytes = self.marks.written(self.chain.settled());
        self.write(files::MARKS, bytes);
    }
}
