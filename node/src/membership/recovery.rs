//! Going on when most of the voters are gone for ever: one member that is left decides alone that they are lost.
//!
//! ```text
//!  … 7 ──decided by those who are declared lost, if they are not──▶ 8      no member that is left has heard of it
//!    └──────────────forced by one that is left───────────────▶ 1000 ──decided by the voters that it names──▶ 1001 …
//! ```
//! A forced record changes nobody's share. It declares stores lost and names other voters, so that the rest goes the ordinary way: the
//! lost are still members, each until another takes its place, or it leaves, or its node comes back with an empty directory and is filled.
//!
//! Rules:
//! - whoever is not declared lost, and has not left, is heard, with the store that is named as its own, and knows no later version: so nobody who is left
//!   follows what the lost may have decided meanwhile;
//! - the record follows from the version before and from who is lost: forced at two nodes, it is the same one;
//! - a node that knows what came after the version before does not take it, and says so ([`super::chain::Chain::why_foreign`]).
//!
//! What this node has accepted for the next version, and nobody brought to an end, is given up. Those who are lost may have decided it; but
//! nobody who is left follows it, and a version retires the one before only once all of that one's members that are not lost have closed: unless
//! it declares those lost who are left here, no write rests on it alone but on disks that are lost. If it does, they are turned away by whoever of
//! it still runs, which speaks against the order (`NodeContext::contradicts`). To take it up would be no surer: of a majority that is gone, those who are left may
//! have accepted another value, or none.

use std::collections::BTreeMap;
use std::time::Duration;

use driftless_proto::membership::{ClusterAnswer, Record, Recovery, StoreId};
use driftless_ring::NodeId;

use super::chain::Known;
use super::letter::{Ballot, DecidedRecord};
use super::peers::HEARD_FOR;
use super::plan::are_unfinished;
use super::{Membership, said_of, voters};
use crate::planted::Bug;
use crate::time::Instant;

/// Who is declared lost, with the stores that are named as theirs.
type Lost = BTreeMap<NodeId, StoreId>;

impl Membership {
    /// Decides that these are lost; or only says what that would mean.
    pub(super) fn recover(&mut self, now: Instant, names: &[String], force: bool) -> Result<ClusterAnswer, String> {
        self.check_member(now)?;
        let newest = self.chain.newest().ok_or("the members of this cluster are not agreed on yet")?;
        let lost = self.named(names)?;
        // An answer that was lost on the way: it is the same record at every node.
        let is_done = |(node, store): (&NodeId, &StoreId)| newest.record.is_lost(*node, *store);
        if force && newest.record.forced_on.is_some() && lost.iter().all(is_done) {
            return Ok(self.as_decided(newest));
        }
        self.check_recovery(now, &newest.record, &lost)?;
        let record = self.forced(newest, &lost)?;
        if !force {
            return Ok(ClusterAnswer::Recovery(Recovery {
                base: newest.record.version(),
                version: record.version(),
                lost: self.names_of(lost.keys().copied()),
                voters: self.names_of(record.voters.iter().copied()),
                warnings: self.dangers(&lost),
            }));
        }
        let accepted_by = vec![self.me.member.id];
        self.make_known(now, DecidedRecord { record, ballot: Ballot::default(), accepted_by });
        let newest = self.chain.newest().expect("one has just been made known");
        Ok(self.as_decided(newest))
    }

    /// Whom the operator means.
    fn named(&self, names: &[String]) -> Result<Lost, String> {
        if names.is_empty() {
            return Err("nobody is named who is lost".to_owned());
        }
        let members = self.configurations.members();
        let named = names.iter().map(|name| {
            let member = members.iter().find(|member| member.name == *name);
            let node = member.ok_or_else(|| format!("{name} is no member"))?.id;
            if node == self.me.member.id {
                return Err(format!("{name} is this node: it is not lost"));
            }
            let store = self.chain.store_of(node).ok_or_else(|| format!("the data of {name} is not known"))?;
            Ok((node, store))
        });
        named.collect()
    }

    /// Whether this node may decide it: it hears all who are not lost, nobody knows more, and they are no majority.
    fn check_recovery(&self, now: Instant, record: &Record, lost: &Lost) -> Result<(), String> {
        let me = self.me.member.id;
        if record.store_of(me) != Some(self.me.store) {
            return Err("the data of this node is not what the members have agreed on: ask another node".to_owned());
        }
        if now.since(self.started) < LISTEN_FIRST {
            let seconds = LISTEN_FIRST.as_secs();
            return Err(format!(
                "this node has only just started, and may not hear everybody yet: ask again in {seconds} s"
            ));
        }
        let up = self.names_of(lost.keys().copied().filter(|node| self.is_up(now, *node)));
        if !up.is_empty() && !self.planted.is(Bug::LivingDeclaredLost) {
            let one = "is up, with all data, and not lost: do not name it";
            let several = "are up, with all data, and not lost: do not name them";
            return Err(said_of(&up, one, several));
        }
        let is_left = |node: &NodeId| *node != me && !lost.contains_key(node) && !record.is_vacant(*node);
        // Also members that are leaving: they may follow a version that nobody else knows any more.
        let members = self.configurations.members();
        let left: Vec<NodeId> = members.iter().map(|member| member.id).filter(is_left).collect();
        self.check_knows_most(now, &left)?;
        self.check_no_majority(now, record)?;
        self.check_all_up(now, &left)
    }

    /// The voters that answer are no majority: else there is the ordinary way.
    fn check_no_majority(&self, now: Instant, record: &Record) -> Result<(), String> {
        let answering: Vec<NodeId> = record.voters.iter().copied().filter(|voter| self.is_up(now, *voter)).collect();
        if answering.len() <= record.voters.len() / 2 {
            return Ok(());
        }
        let (voters, answer) = match answering.len() {
            1 => ("voter", "answers"),
            _ => ("voters", "answer"),
        };
        Err(format!(
            "not needed: {voters} {} {answer}: use `leave NAME --lost` or `replace`, then plan and commit",
            self.names_of(answering).join(", ")
        ))
    }

    /// Those who are left are there, with their data.
    fn check_all_up(&self, now: Instant, left: &[NodeId]) -> Result<(), String> {
        let missing = left.iter().copied().filter(|node| !self.is_up(now, *node));
        let (emptied, silent): (Vec<NodeId>, Vec<NodeId>) =
            missing.partition(|node| self.store_there(now, *node).is_some());
        if !silent.is_empty() {
            let one = "is neither heard nor declared lost: start it, or name it too";
            let several = "are neither heard nor declared lost: start them, or name them too";
            return Err(said_of(&self.names_of(silent), one, several));
        }
        if !emptied.is_empty() {
            let one = "has lost the data agreed on: name it too";
            let several = "have lost the data agreed on: name them too";
            return Err(said_of(&self.names_of(emptied), one, several));
        }
        Ok(())
    }

    /// Those who are left go by the same history, and nobody who is there knows more of it than this node: also who has another disk by now
    /// may be named with that by a later version.
    fn check_knows_most(&self, now: Instant, left: &[NodeId]) -> Result<(), String> {
        let own = self.chain.version();
        let apart: BTreeMap<NodeId, &str> = self.peers.apart().collect();
        if let Some((node, what)) = left.iter().find_map(|node| apart.get_key_value(node)) {
            return Err(format!("{} goes by another history ({what}): see `driftless status`", self.name_of(*node)));
        }
        let ahead = self.peers.there(now).filter(|(node, heard)| heard.version > own && !apart.contains_key(node));
        // A node that is no member may be told, and is not asked.
        let is_no_member = |node: NodeId| !self.chain.is_member(node);
        let Some((node, heard)) = ahead.min_by_key(|(node, _)| (is_no_member(*node), *node)) else { return Ok(()) };
        let (name, version) = (self.name_of(node), heard.version);
        let what = match is_no_member(node) {
            true => "ask again in a moment".to_owned(),
            false => format!("ask {name} (`--node {name}`)"),
        };
        Err(format!("{name} knows version {version}, and this node version {own}: {what}"))
    }

    /// The record itself: the same at whichever node it is forced.
    fn forced(&self, newest: &Known, lost: &Lost) -> Result<Record, String> {
        let record = &newest.record;
        let version = record.version();
        let ring = record.topology.ring().forced().map_err(|error| error.to_string())?;
        let lost_stores = record.lost_with(lost.iter().map(|(node, store)| (*node, *store)));
        let voters = voters::next(&record.voters, ring.members(), &record.stores, &lost_stores);
        let topology = record.topology.with_ring(ring).map_err(|error| error.to_string())?;
        let names = self.names_of(lost.keys().copied());
        let reason = format!("{}: forced on version {version}", said_of(&names, "is lost", "are lost"));
        let by = self.names_of(voters.iter().copied()).join(", ");
        let (stores, dropped) = (record.stores.clone(), record.dropped.clone());
        record
            .followed_by(newest.digest, topology, stores, voters, lost_stores, dropped, by, reason)
            .and_then(|record| record.forced(version))
            .map_err(|error| error.to_string())
    }

    /// What may come of it, in words.
    fn dangers(&self, lost: &Lost) -> Vec<String> {
        let names = self.names_of(lost.keys().copied());
        let (they, hold, are) = match names.len() {
            1 => ("it", "holds", "is"),
            _ => ("they", "hold", "are"),
        };
        let names = names.join(", ");
        let mut dangers = vec![
            format!(
                "what only {they} {hold} is given up for ever, also writes that were acknowledged: the data of {names} is refused from then on"
            ),
            format!(
                "if {names} {are} only out of reach, {they} and this node would go on as two clusters, each with writes that the other lacks: \
                 make sure that no process of {names} runs, or ever starts again on its old data"
            ),
        ];
        let own = self.chain.version();
        if let Some((_, accepted)) = self.standing.accepted_for(own.saturating_add(1)) {
            dangers.push(format!(
                "version {} may have been decided by those who are lost ({}): it is given up, as no member that is left follows it",
                accepted.version(),
                accepted.reason
            ));
        }
        let later =
            |node: &NodeId| self.peers.heard(*node).filter(|heard| heard.version > own).map(|heard| heard.version);
        for (node, version) in lost.keys().filter_map(|node| Some((*node, later(node)?))) {
            dangers.push(format!(
                "{} went by version {version}, of which this node has only heard: it is given up; if the disk of {} can be read, start that \
                 one instead",
                self.name_of(node),
                self.name_of(node)
            ));
        }
        let unfinished: Vec<u64> = self.configurations.unfinished().collect();
        if !unfinished.is_empty() {
            dangers.push(format!("{} not done with yet", are_unfinished(&unfinished)));
        }
        dangers
    }
}

/// Whether a record may have been forced on that one: nothing but who is lost and who votes is another, and those who are not lost are no
/// majority of the voters. Who votes is not worked out again, as releases may choose otherwise.
pub(super) fn may_be_forced(before: &Record, record: &Record) -> bool {
    let same_tables = before.topology.ring().forced().is_ok_and(|ring| {
        let same_ring = ring.digest() == record.topology.ring().digest();
        same_ring && record.topology.buckets() == before.topology.buckets()
    });
    let left = before.voters.iter().filter(|voter| !record.is_vacant(**voter)).count();
    same_tables
        && record.stores == before.stores
        && record.dropped == before.dropped
        && record.access() == before.access()
        && record.lost.starts_with(&before.lost)
        && left <= before.voters.len() / 2
}

/// For so long a node listens before it says who is not there: connections are dialled again within seconds, and then each says that it is
/// there every second.
pub(super) const LISTEN_FIRST: Duration = Duration::from_secs(10);

const _: () = assert!(LISTEN_FIRST.as_millis() > 2 * HEARD_FOR.as_millis());
