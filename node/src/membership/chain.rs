//! The records that a node knows: one for each version, each the child of the one before.
//!
//! ```text
//! founding ◀─parent─ 2 ◀─ … ◀─ settled ◀─ unsettled … ◀─ newest
//!          └ may be removed ┘└ count now                    ┘
//! ```
//! Versions before the newest one that is settled count for nothing; they are kept for those who were away. Their numbers follow each other,
//! but for a gap before one that was forced ([`Record::follows_on`]).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use driftless_proto::membership::{Record, StoreId};
use driftless_proto::{AgreedAccess, Topology};
use driftless_ring::NodeId;

use super::founding::are_most;
use super::letter::{Ballot, DecidedRecord};
use super::paxos::Electorate;
use super::recovery;

/// What a node knows to have been decided.
pub(super) struct Chain {
    founding: Arc<Topology>,
    founding_digest: u128,
    /// Whether this node is named by the file.
    is_founder: bool,
    records: BTreeMap<u64, Known>,
    /// The newest version that is known to be done with; 0 if none is.
    settled: u64,
}

/// A record with what was worked out of it once.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) record: Arc<Record>,
    pub(super) digest: u128,
    pub(super) ballot: Ballot,
    pub(super) accepted_by: Vec<NodeId>,
    /// About, encoded.
    bytes: usize,
}

/// How a record that was decided goes with those that are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// It is the next one.
    Next,
    /// It is no news.
    Old,
    /// There are some between.
    Gap,
    /// It is no child of the newest one, but of another history, or of another cluster.
    Foreign,
}

impl Chain {
    /// # Errors
    /// In words, if the records do not follow each other.
    pub(super) fn new(
        founding: Arc<Topology>,
        me: NodeId,
        records: BTreeMap<u64, DecidedRecord>,
        settled: u64,
    ) -> Result<Chain, String> {
        let is_founder = founding.ring().member(me).is_some();
        let founding_digest = founding.digest();
        let mut chain = Chain { founding, founding_digest, is_founder, records: BTreeMap::new(), settled };
        for (version, decided) in records {
            let known = Known::new(decided);
            if known.record.version() != version {
                return Err(format!("the file {version}.record holds another version: {}", known.record.version()));
            }
            if known.record.topology.cluster() != chain.founding.cluster() {
                return Err(format!(
                    "version {version} is of the cluster {:?}, and the cluster file of {:?}: this is the data of another cluster",
                    known.record.topology.cluster(),
                    chain.founding.cluster()
                ));
            }
            if let Some((before, newest)) = chain.records.last_key_value()
                && (*before != known.record.follows_on() || newest.digest != known.record.parent)
            {
                return Err(format!(
                    "version {version} does not follow version {before}: a record is missing or foreign"
                ));
            }
            chain.records.insert(version, known);
        }
        chain.settled = if chain.records.contains_key(&settled) { settled } else { 0 };
        Ok(chain)
    }

    /// The newest version; 1 is the file's, and 0 that of a node which has only just come.
    pub(super) fn version(&self) -> u64 {
        self.records.last_key_value().map_or(u64::from(self.is_founder), |(version, _)| *version)
    }

    /// Of the newest record, or of the founding topology.
    pub(super) fn digest(&self) -> u128 {
        match self.newest() {
            Some(newest) => newest.digest,
            None if self.is_founder => self.founding_digest,
            None => 0,
        }
    }

    pub(super) fn founding(&self) -> &Arc<Topology> {
        &self.founding
    }

    pub(super) fn founding_digest(&self) -> u128 {
        self.founding_digest
    }

    pub(super) fn is_founder(&self) -> bool {
        self.is_founder
    }

    pub(super) fn newest(&self) -> Option<&Known> {
        self.records.last_key_value().map(|(_, known)| known)
    }

    pub(super) fn record(&self, version: u64) -> Option<&Known> {
        self.records.get(&version)
    }

    pub(super) fn records(&self) -> impl DoubleEndedIterator<Item = &Known> {
        self.records.values()
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// The newest topology.
    pub(super) fn topology(&self) -> &Topology {
        self.newest().map_or(&self.founding, |newest| &newest.record.topology)
    }

    /// Who may do what, as the newest record says; a file says nothing of it.
    pub(super) fn access(&self) -> Option<&AgreedAccess> {
        self.newest().map(|newest| newest.record.access())
    }

    /// Whether a node is a member in the newest version.
    pub(super) fn is_member(&self, node: NodeId) -> bool {
        self.topology().ring().member(node).is_some()
    }

    /// Members of the newest version whose stores were declared lost by force.
    pub(super) fn vacant(&self) -> Vec<NodeId> {
        let Some(Known { record, .. }) = self.newest() else { return Vec::new() };
        record.stores.iter().map(|(node, _)| *node).filter(|node| record.is_vacant(*node)).collect()
    }

    /// The records that count, the newest last.
    pub(super) fn unsettled(&self) -> Vec<Arc<Record>> {
        self.records.range(self.settled..).map(|(_, known)| known.record.clone()).collect()
    }

    /// The founding topology, while it counts. Where the file was changed since, it is not the one that was founded on; version 2 has the
    /// same tables.
    pub(super) fn founding_that_counts(&self) -> Option<&Arc<Topology>> {
        let second = self.records.get(&2)?;
        (self.settled < 2 && second.record.parent == self.founding_digest).then_some(&self.founding)
    }

    /// The store of a node, as the newest version has it that counts and has the node as a member.
    pub(super) fn store_of(&self, node: NodeId) -> Option<StoreId> {
        self.records.range(self.settled..).rev().find_map(|(_, known)| known.record.store_of(node))
    }

    /// Who decides on the next version.
    pub(super) fn electorate(&self) -> Electorate {
        self.electorate_on(None)
    }

    /// Who decides on this as the next version: all that the file names on the second, but for those whom it leaves out
    /// ([`super::founding`]), as nothing names stores before by which a voter that has forgotten everything could be told; then a majority of the
    /// voters that the newest version names.
    pub(super) fn electorate_on(&self, record: Option<&Record>) -> Electorate {
        match self.newest() {
            None => {
                let is_left_out = |node: NodeId| record.is_some_and(|record| record.is_vacant(node));
                let members = self.founding.ring().members().iter().map(|member| member.id);
                let voters: BTreeMap<_, _> =
                    members.filter(|node| !is_left_out(*node)).map(|node| (node, None)).collect();
                Electorate { needed: voters.len(), voters }
            }
            Some(newest) => {
                let record = &newest.record;
                let voters: BTreeMap<_, _> =
                    record.voters.iter().map(|voter| (*voter, record.store_of(*voter))).collect();
                Electorate { needed: voters.len() / 2 + 1, voters }
            }
        }
    }

    /// How a decided record goes with this chain. One who has none and has promised nothing takes any chain of a cluster of this name:
    /// `may_begin`.
    pub(super) fn fit(&self, record: &Record, may_begin: bool) -> Fit {
        // Nothing could follow the last number there is: nobody has decided on it.
        if record.topology.cluster() != self.founding.cluster() || record.version() == u64::MAX {
            return Fit::Foreign;
        }
        let Some(newest) = self.newest() else {
            let is_founded = record.version() == 2 && record.parent == self.founding_digest;
            return if is_founded || may_begin { Fit::Next } else { Fit::Foreign };
        };
        match record.follows_on().cmp(&newest.record.version()) {
            Ordering::Equal if is_child(newest, record) => Fit::Next,
            Ordering::Equal => Fit::Foreign,
            Ordering::Greater => Fit::Gap,
            Ordering::Less if self.is_of_past(record) => Fit::Old,
            Ordering::Less => Fit::Foreign,
        }
    }

    /// Whether a record is one of this chain, or older than those that are kept.
    fn is_of_past(&self, record: &Record) -> bool {
        let kept = self.records.get(&record.version());
        kept.map_or(record.version() < self.oldest(), |known| known.digest == record.digest())
    }

    /// The oldest version that is kept.
    fn oldest(&self) -> u64 {
        self.records.first_key_value().map_or(u64::MAX, |(version, _)| *version)
    }

    /// That a node which goes by this version has another history, in words; nothing if that does not show.
    pub(super) fn apart(&self, version: u64, digest: u128) -> Option<String> {
        let is_own = version == self.version() && digest == self.digest();
        if is_own || version == 0 || version > self.version() {
            return None;
        }
        if let Some(known) = self.records.get(&version) {
            let forced =
                known.record.forced_on.map_or(String::new(), |on| format!(", which was forced on version {on}"));
            return (known.digest != digest).then(|| format!("its version {version} is not that of this node{forced}"));
        }
        if self.version() == version {
            return Some(format!("its version {version} was founded by another file"));
        }
        if version < self.oldest() {
            return None;
        }
        let (forced, known) = self.records.range(version..).next()?;
        let on = known.record.follows_on();
        Some(format!("it is at version {version}, and version {forced} of this node was forced on version {on}"))
    }

    /// Why a record that is foreign is not taken, in words.
    pub(super) fn why_foreign(&self, record: &Record) -> String {
        let (version, own) = (record.version(), self.version());
        let Some(on) = record.forced_on else {
            return format!("its version {version} does not follow on version {own} of this node");
        };
        match self.records.range(on.saturating_add(1)..).next() {
            Some((later, known)) if known.record.forced_on == Some(on) => {
                format!("its version {version} was forced on version {on}, and version {later} of this node otherwise")
            }
            Some((later, known)) => format!(
                "its version {version} was forced on version {on}, but this node knows that version {later} was decided ({})",
                known.record.reason
            ),
            None => format!("its version {version} was forced on another version {on} than that of this node"),
        }
    }

    /// Whether the next record shows that enough of the voters that the newest one names have accepted it, or that it was rightly forced. Of the
    /// founding nothing is known.
    pub(super) fn is_decided(&self, decided: &DecidedRecord) -> bool {
        let Some(newest) = self.newest() else { return true };
        if decided.record.forced_on.is_some() {
            return recovery::may_be_forced(&newest.record, &decided.record);
        }
        let voters = &newest.record.voters;
        voters.iter().filter(|voter| decided.accepted_by.contains(voter)).count() > voters.len() / 2
    }

    /// Whether a record may be proposed as the next one.
    pub(super) fn may_follow(&self, record: &Record) -> bool {
        let fits = self.fit(record, false) == Fit::Next;
        let founders = self.founding.ring().members().len();
        let leaves_most = || record.stores.iter().filter(|(node, _)| !record.is_vacant(*node)).count();
        let is_fair = self.newest().is_some() || are_most(leaves_most(), founders);
        fits && is_fair
            && record.parent == self.digest()
            && record.topology.ring().parent_digest() == self.topology().ring().digest()
    }

    /// Takes the next record.
    pub(super) fn push(&mut self, decided: DecidedRecord) {
        let known = Known::new(decided);
        self.records.insert(known.record.version(), known);
    }

    /// Nothing before this version counts any more. Whether that is news.
    pub(super) fn settle(&mut self, version: u64) -> bool {
        let is_news = version > self.settled && self.records.contains_key(&version);
        if is_news {
            self.settled = version;
        }
        is_news
    }

    /// Forgets versions that neither count nor are kept for others: their numbers.
    pub(super) fn prune(&mut self) -> Vec<u64> {
        // Counted, as their numbers may have gaps.
        let keep = self.records.keys().nth_back(KEPT).map_or(0, |version| *version).min(self.settled);
        let old: Vec<u64> = self.records.range(..keep).map(|(version, _)| *version).collect();
        self.records.retain(|version, _| *version >= keep);
        old
    }

    /// The records after a version, as many as one letter takes. Who has none needs only those that count.
    pub(super) fn after(&self, version: u64) -> Vec<DecidedRecord> {
        let first = if version == 0 { self.settled } else { version.saturating_add(1) };
        let mut bytes = 0;
        let fitting = self.records.range(first..).take(LETTER_RECORDS_MAX).take_while(|(_, known)| {
            let is_first = bytes == 0;
            bytes += known.bytes;
            is_first || bytes <= LETTER_BYTES_MAX
        });
        fitting.map(|(_, known)| known.decided()).collect()
    }
}

impl Known {
    fn new(decided: DecidedRecord) -> Known {
        let DecidedRecord { record, ballot, accepted_by } = decided;
        let (ring, digest) = (record.topology.ring(), record.digest());
        let bytes = ring.all_partitions().count() * 4 * 2 + ring.members().len() * 128 + record.access().bytes();
        Known { digest, record: Arc::new(record), ballot, accepted_by, bytes }
    }

    pub(super) fn decided(&self) -> DecidedRecord {
        let (ballot, accepted_by) = (self.ballot, self.accepted_by.clone());
        DecidedRecord { record: Record::clone(&self.record), ballot, accepted_by }
    }
}

fn is_child(parent: &Known, record: &Record) -> bool {
    record.parent == parent.digest && record.cluster_id == parent.record.cluster_id
}

/// Versions that are kept for those who were away, beside those that count.
const KEPT: usize = 64;

/// Most records in one letter.
const LETTER_RECORDS_MAX: usize = 10;

/// Bytes after which no further record is put into a letter; one always is.
const LETTER_BYTES_MAX: usize = 2 * 1024 * 1024;
