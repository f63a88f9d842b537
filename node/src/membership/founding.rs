//! How version 2, the first that is agreed on, comes to be: the tables of the cluster file, and whose stores they are.
//!
//! By itself a node proposes it that has the smallest id of those whom the file names, and has heard all of them. Nothing names stores before,
//! by which a voter that has forgotten everything could be told: so all of them have to accept it.
//!
//! Where some never come, an operator has any of the others propose it without them. In the place of their stores it names numbers that were
//! drawn, and declares these lost: so they are members that nobody is, as those who were declared lost by force, until others take their
//! places, or they leave, or they come after all. The store with which one comes then is another than the record names: it is filled and
//! named without a command, and what it held is merged.
//!
//! Rules:
//! - all the others are heard, go by the same file, and accept it; they are more than half of those whom the file names. So two such
//!   proposals have a voter in common, and so has each with one that nobody is left out of: at most one of them is decided, unless
//!   those in common have forgotten what they accepted, or somebody comes who was said never to;
//! - nobody is left out who is heard, or has been heard with something later than the file.

use std::collections::BTreeSet;

use driftless_proto::membership::{ClusterAnswer, Founding, Record, StoreId};
use driftless_ring::NodeId;
use rand::Rng;

use super::commands::WAITING_MAX;
use super::deciding::Purpose;
use super::recovery::LISTEN_FIRST;
use super::{Membership, said_of, voters};
use crate::time::Instant;

/// Who is left out.
type LeftOut = BTreeSet<NodeId>;

impl Membership {
    /// Who of those that the file names stands against founding, in words; nobody if all are there and know nothing newer.
    pub(super) fn not_founding(&self, now: Instant) -> Vec<String> {
        self.not_founding_without(now, &LeftOut::new())
    }

    /// What to say of a cluster that was not founded yet.
    pub(super) fn why_not_founded(&self, now: Instant) -> String {
        let why = self.not_founding(now);
        if why.is_empty() {
            return "the members of this cluster are not agreed on yet: it is being decided: try again in a moment"
                .to_owned();
        }
        let me = self.me.member.id;
        let members = self.chain.founding().ring().members().iter().map(|member| member.id);
        let silent = self.names_of(members.filter(|node| *node != me && !self.peers.is_heard(now, *node)));
        let way = match silent.is_empty() {
            true => String::new(),
            false => format!("; who never comes can be left out: `cluster found --without {}`", silent.join(",")),
        };
        format!("the members of this cluster are not agreed on yet: {}{way}", why.join("; "))
    }

    fn not_founding_without(&self, now: Instant, left_out: &LeftOut) -> Vec<String> {
        let (me, digest) = (self.me.member.id, self.chain.founding_digest());
        let members = self.chain.founding().ring().members().iter();
        let others = members.filter(|member| member.id != me && !left_out.contains(&member.id));
        others
            .filter_map(|member| {
                let name = &member.name;
                let Some(heard) = self.peers.heard(member.id) else {
                    return Some(format!("{name} has not been heard since this node started"));
                };
                if heard.version <= 1 && heard.digest != digest {
                    return Some(format!("{name} has another cluster file"));
                }
                if !self.peers.is_heard(now, member.id) {
                    return Some(format!("{name} is not heard any more"));
                }
                (heard.version != 1).then(|| format!("{name} knows more than this node, which is asking"))
            })
            .collect()
    }

    /// The same tables as the file's, and whose stores they are, as this node wants it by itself.
    pub(super) fn second_version(&mut self, now: Instant) -> Option<Record> {
        let is_first =
            self.chain.founding().ring().members().first().is_some_and(|first| first.id == self.me.member.id);
        if !is_first || !self.not_founding(now).is_empty() {
            return None;
        }
        self.founded_without(&LeftOut::new())
    }

    fn founded_without(&mut self, left_out: &LeftOut) -> Option<Record> {
        let founding = self.chain.founding().clone();
        let members = founding.ring().members();
        let mut stores = Vec::with_capacity(members.len());
        for member in members {
            let store = match member.id {
                node if left_out.contains(&node) => StoreId(self.rng.random()),
                node if node == self.me.member.id => self.me.store,
                node => self.peers.heard(node)?.candidate.store,
            };
            stores.push((member.id, store));
        }
        let lost: Vec<(NodeId, StoreId)> = stores.iter().filter(|(node, _)| left_out.contains(node)).copied().collect();
        let ring = founding.ring().again(founding.ring()).ok()?;
        let voters = voters::next(&[], ring.members(), &stores, &lost);
        let topology = founding.with_ring(ring).ok()?;
        let mut reason = "founded by its file".to_owned();
        if !left_out.is_empty() {
            reason += &format!(", without {}", self.names_of(left_out.iter().copied()).join(", "));
        }
        let by = self.me.member.name.clone();
        let (cluster, parent) = (self.rng.random(), self.chain.founding_digest());
        Record::new(cluster, parent, topology, stores, voters, lost, Vec::new(), by, reason).ok()
    }

    /// Founds the cluster without these, or only says what that would mean.
    pub(super) fn found(
        &mut self,
        now: Instant,
        tag: u64,
        names: &[String],
        yes: bool,
    ) -> Result<Option<ClusterAnswer>, String> {
        if !self.chain.is_founder() {
            return Err(format!("{} is not named by the cluster file: ask one that is", self.me.member.name));
        }
        let left_out = self.left_out(names)?;
        if let Some(newest) = self.chain.newest() {
            // An answer that was lost on the way.
            let second = self.chain.record(2).filter(|known| yes && is_without(&known.record, &left_out));
            return match second {
                Some(second) => Ok(Some(self.as_decided(second))),
                None => Err(format!(
                    "the members are agreed on, at version {}: who never comes is replaced, or leaves as lost (`cluster replace`, `cluster \
                     leave --lost`)",
                    newest.record.version()
                )),
            };
        }
        self.check_founding_without(now, &left_out)?;
        if yes && let Some((present, tags)) = self.commanded() {
            if !is_without(present, &left_out) || tags.len() >= WAITING_MAX {
                return Err(
                    "this node has the cluster founded otherwise right now: run it again in a moment".to_owned()
                );
            }
            tags.push(tag);
            return Ok(None);
        }
        let record = self.founded_without(&left_out).ok_or("the file's tables do not make a version")?;
        if !yes {
            let others = record.stores.iter().map(|(node, _)| *node).filter(|node| !left_out.contains(node));
            return Ok(Some(ClusterAnswer::Founding(Founding {
                without: self.names_of(left_out.iter().copied()),
                by: self.names_of(others),
                voters: self.names_of(record.voters.iter().copied()),
                warnings: self.dangers_of_founding_without(&left_out),
            })));
        }
        self.propose(now, Purpose::Command, Some(record), vec![tag]);
        Ok(None)
    }

    fn left_out(&self, names: &[String]) -> Result<LeftOut, String> {
        if names.is_empty() {
            return Err("nobody is named who never comes".to_owned());
        }
        let members = self.chain.founding().ring().members();
        let named = names.iter().map(|name| {
            let member = members.iter().find(|member| member.name == *name);
            let node = member.ok_or_else(|| format!("{name} is not named by the cluster file"))?.id;
            if node == self.me.member.id {
                return Err(format!("{name} is this node: it is there"));
            }
            Ok(node)
        });
        named.collect()
    }

    fn check_founding_without(&self, now: Instant, left_out: &LeftOut) -> Result<(), String> {
        if now.since(self.started) < LISTEN_FIRST {
            let seconds = LISTEN_FIRST.as_secs();
            return Err(format!(
                "this node has only just started, and may not hear everybody yet: ask again in {seconds} s"
            ));
        }
        let there = self.names_of(left_out.iter().copied().filter(|node| self.peers.is_heard(now, *node)));
        if !there.is_empty() {
            return Err(said_of(&there, "is there: do not name it", "are there: do not name them"));
        }
        let knew_more = left_out.iter().filter_map(|node| Some((*node, self.peers.heard(*node)?)));
        let knew_more = knew_more.filter(|(_, heard)| heard.version > 1);
        let know_more = self.peers.there(now).filter(|(_, heard)| heard.version > 1);
        if let Some((node, heard)) = knew_more.chain(know_more).next() {
            let (name, version) = (self.name_of(node), heard.version);
            return Err(format!("{name} knows version {version}, so the cluster was founded: ask {name}, or start it"));
        }
        let members = self.chain.founding().ring().members().len();
        if !are_most(members - left_out.len(), members) {
            let names = self.names_of(left_out.iter().copied()).join(", ");
            return Err(format!(
                "without {names} {} of {members} would be left: more than half of those whom the cluster file names must be there",
                members - left_out.len()
            ));
        }
        let against = self.not_founding_without(now, left_out);
        if !against.is_empty() {
            return Err(format!("{}: all who are not left out must be there", against.join("; ")));
        }
        Ok(())
    }

    fn dangers_of_founding_without(&self, left_out: &LeftOut) -> Vec<String> {
        let names = self.names_of(left_out.iter().copied());
        let (they, hold, do_not, are) = match names.len() {
            1 => ("it", "holds", "does not", "is"),
            _ => ("they", "hold", "do not", "are"),
        };
        let names = names.join(", ");
        vec![
            format!(
                "what only {they} {hold} is missing for good if {they} {do_not} come, also writes that were acknowledged"
            ),
            format!(
                "if {names} {are} only out of reach, and the members are agreed on there, {they} and this node would go on as two clusters: make sure \
                 that nobody founds it with {names} elsewhere"
            ),
        ]
    }
}

/// Whether they are more than half.
pub(super) fn are_most(some: usize, all: usize) -> bool {
    some > all / 2
}

/// Whether a second version leaves these out, and nobody else.
fn is_without(record: &Record, left_out: &LeftOut) -> bool {
    let vacant = record.stores.iter().map(|(node, _)| *node).filter(|node| record.is_vacant(*node));
    record.version() == 2 && vacant.eq(left_out.iter().copied())
}

/// Whether two second versions are of the same members, whatever was drawn for them.
pub(super) fn is_same_founding(a: &Record, b: &Record) -> bool {
    let left_out = a.stores.iter().map(|(node, _)| *node).filter(|node| a.is_vacant(*node)).collect();
    a.version() == 2 && a.parent == b.parent && is_without(b, &left_out)
}
