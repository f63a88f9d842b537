//! What operators say, and what they are told.

use driftless_proto::membership::{
    AccessState, CandidateState, Change, ClusterAnswer, ClusterCommand, ClusterState, MemberState, Past, Record,
    Staged, StoreId,
};
use driftless_proto::{AccessChange, AgreedAccess, Topology, greeting};
use driftless_ring::{Member, NodeId};

use super::deciding::{Purpose, is_same_change};
use super::plan::{Basis, Planned, are_unfinished};
use super::{Membership, is_known, letter, said_of, staging, voters};
use crate::time::Instant;

impl Membership {
    /// What to answer at once; nothing if the answer follows from a decision.
    pub(super) fn command(
        &mut self,
        now: Instant,
        tag: u64,
        command: ClusterCommand,
    ) -> Result<Option<ClusterAnswer>, String> {
        match command {
            ClusterCommand::State => Ok(Some(ClusterAnswer::State(Box::new(self.state(now))))),
            ClusterCommand::History => Ok(Some(ClusterAnswer::History(self.history()))),
            ClusterCommand::Stage(change) => self.stage(now, change).map(Some),
            ClusterCommand::Clear => {
                self.check_member(now)?;
                self.staging.replace(self.chain.version(), self.me.member.id, Vec::new());
                self.news.hurry(now);
                Ok(Some(ClusterAnswer::Staged(self.staged())))
            }
            ClusterCommand::Plan => {
                let planned = self.plan_staged(now)?;
                Ok(Some(ClusterAnswer::Plan(Box::new(planned.plan))))
            }
            ClusterCommand::Commit { plan } => self.commit(now, tag, &plan),
            ClusterCommand::Cancel => self.cancel(now, tag),
            ClusterCommand::Apply(change) => self.apply(now, tag, change),
            ClusterCommand::Recover { lost, force } => self.recover(now, &lost, force).map(Some),
            ClusterCommand::Access => Ok(Some(ClusterAnswer::Access(Box::new(self.access())))),
            ClusterCommand::Found { without, yes } => self.found(now, tag, &without, yes),
        }
    }

    fn stage(&mut self, now: Instant, change: Change) -> Result<ClusterAnswer, String> {
        self.check_member(now)?;
        self.check_absent(now, &change)?;
        self.check_understood(&change)?;
        let version = self.chain.version();
        let changes = staging::with(self.staging.changes(version), change);
        if changes.len() > staging::CHANGES_MAX {
            return Err(format!("{} changes are staged already: commit them first", staging::CHANGES_MAX));
        }
        self.plan(now, &changes)?;
        self.staging.replace(version, self.me.member.id, changes);
        self.news.hurry(now);
        Ok(ClusterAnswer::Staged(self.staged()))
    }

    fn commit(&mut self, now: Instant, tag: u64, name: &str) -> Result<Option<ClusterAnswer>, String> {
        self.check_member(now)?;
        if let Some(answer) = self.decided_before(name) {
            return Ok(Some(answer));
        }
        let (version, changes) = (self.chain.version(), self.staging.changes(self.chain.version()).to_vec());
        // Who was away when it was staged may be back.
        changes.iter().try_for_each(|change| self.check_absent(now, change))?;
        changes.iter().try_for_each(|change| self.check_understood(change))?;
        let planned = self.plan_staged(now)?;
        if planned.plan.name != name {
            return Err(format!(
                "plan {name} is not the present one: the cluster is at version {version} and {} is staged: plan again",
                planned.plan.name
            ));
        }
        let declares_lost =
            |change: &Change| matches!(change, Change::Leave { lost: true, .. } | Change::Replace { .. });
        if !changes.iter().all(declares_lost) {
            self.check_settled()?;
        }
        self.propose_for(now, tag, planned.record)
    }

    fn apply(&mut self, now: Instant, tag: u64, change: Change) -> Result<Option<ClusterAnswer>, String> {
        self.check_member(now)?;
        let is_about_members = matches!(change, Change::Join { .. } | Change::Leave { .. } | Change::Replace { .. });
        if is_about_members {
            return Err("this moves data: stage it, and look at the plan".to_owned());
        }
        if let Change::DoublePartitions = change {
            return Err("this cannot be taken back: stage it, and look at the plan".to_owned());
        }
        let changes = [change];
        if let Some(parent) = self.chain.newest().map(|newest| newest.record.parent)
            && let Some(answer) = self.decided_before(&super::plan::name(parent, &changes, &[]))
        {
            return Ok(Some(answer));
        }
        self.check_understood(&changes[0])?;
        match &changes[0] {
            // Whoever is to be kept out is not let in for as long as data moves; what is denied is nobody's who takes part in that.
            // Nor does whoever was kept out by mistake wait for that.
            Change::SetAccess(AccessChange::Deny(_) | AccessChange::Allow(_)) => self.check_few_unfinished()?,
            _ => self.check_settled()?,
        }
        let planned = self.plan(now, &changes)?;
        if planned.plan.slots_moved > 0 {
            let moved = planned.plan.slots_moved;
            return Err(format!("this moves {moved} replicas of partitions: stage it, and look at the plan"));
        }
        self.propose_for(now, tag, planned.record)
    }

    /// The tables of the oldest version that counts, as one more version.
    fn cancel(&mut self, now: Instant, tag: u64) -> Result<Option<ClusterAnswer>, String> {
        self.check_member(now)?;
        let newest = self.chain.newest().ok_or("there is nothing to go back from")?;
        let unsettled = self.chain.unsettled();
        let nothing = "the newest version is done with: there is nothing to cancel".to_owned();
        if self.configurations.is_settled() {
            return Err(nothing);
        }
        let (record, oldest) = (&newest.record, unsettled.first().ok_or(nothing)?);
        let (ring, earlier) = (record.topology.ring(), oldest.topology.ring());
        if ring.members() == earlier.members() {
            return Err(format!(
                "version {} has the members of version {}: there is nothing to go back to",
                record.version(),
                oldest.version()
            ));
        }
        let stores: Option<Vec<(NodeId, StoreId)>> = earlier
            .members()
            .iter()
            .map(|member| Some((member.id, record.store_of(member.id).or_else(|| oldest.store_of(member.id))?)))
            .collect();
        let stores = stores.ok_or("the stores of the earlier members are not known")?;
        if let Some((node, _)) = stores.iter().find(|(node, store)| record.is_lost(*node, *store)) {
            let name = self.name_of(*node);
            return Err(format!(
                "{name} was declared lost, and cannot be gone back to: let another node join, or replace it"
            ));
        }
        if let Some(member) =
            earlier.members().iter().find(|member| record.access().denied().nodes.contains(&member.name))
        {
            return Err(super::plan::denied_newcomer(&member.name));
        }
        let ring = ring.again(earlier).map_err(|error| error.to_string())?;
        let voters = voters::next(&record.voters, ring.members(), &stores, &record.lost);
        let topology = record.topology.with_ring(ring).map_err(|error| error.to_string())?;
        let reason = format!("version {} is cancelled: back to version {}", record.version(), oldest.version());
        let (by, lost, dropped) = (self.me.member.name.clone(), record.lost.clone(), record.dropped.clone());
        // Members are gone back to, and nobody who was denied meanwhile is let in by that.
        let cancelled = record.followed_by(newest.digest, topology, stores, voters, lost, dropped, by, reason);
        self.propose_for(now, tag, cancelled.map_err(|error| error.to_string())?)
    }

    /// Proposes for an operator. What this node does by itself gives way; the same change again waits for the same end.
    fn propose_for(&mut self, now: Instant, tag: u64, record: Record) -> Result<Option<ClusterAnswer>, String> {
        if let Some((present, tags)) = self.commanded() {
            if !is_same_change(present, &record) || tags.len() >= WAITING_MAX {
                return Err("this node has another change decided right now: run it again in a moment".to_owned());
            }
            tags.push(tag);
            return Ok(None);
        }
        self.propose(now, Purpose::Command, Some(record), vec![tag]);
        Ok(None)
    }

    /// The newest version, if it was made by the plan of this name: a commit whose answer was lost is repeated.
    fn decided_before(&self, plan: &str) -> Option<ClusterAnswer> {
        let newest = self.chain.newest()?;
        newest.record.reason.ends_with(&format!(", plan {plan}")).then(|| self.as_decided(newest))
    }

    fn plan_staged(&self, now: Instant) -> Result<Planned, String> {
        self.check_member(now)?;
        let changes = self.staging.changes(self.chain.version());
        if changes.is_empty() {
            return Err("nothing is staged: say what is to change, then plan".to_owned());
        }
        self.plan(now, changes)
    }

    fn plan(&self, now: Instant, changes: &[Change]) -> Result<Planned, String> {
        let newest = self.chain.newest().ok_or("the members of this cluster are not agreed on yet")?;
        let candidates = self.peers.candidates(now, |node| self.chain.is_member(node));
        let basis = Basis {
            record: &newest.record,
            digest: newest.digest,
            candidates,
            leaving: self.leaving(),
            unfinished: self.configurations.unfinished().collect(),
            slot_bytes: self.progress.held_bytes / self.progress.held_slots.max(1),
        };
        let planned = basis.plan(changes, &self.me.member.name)?;
        self.check_newcomers(&planned.record)?;
        Ok(planned)
    }

    /// Whoever becomes a member can read the record that makes it one.
    fn check_newcomers(&self, record: &Record) -> Result<(), String> {
        let Some(needed) = letter::record_spoken_from(record) else { return Ok(()) };
        let members = record.topology.ring().members().iter();
        let mut newcomers = members.filter(|member| !self.chain.is_member(member.id));
        let is_old = |member: &&Member| self.peers.speaks(member.id).is_some_and(|speaks| speaks < needed);
        match newcomers.find(is_old) {
            None => Ok(()),
            Some(old) => {
                Err(format!("{} is of a release that cannot read what the members agree on: update it first", old.name))
            }
        }
    }

    /// Members of versions that count that the newest one does not have, but for those who were declared lost.
    fn leaving(&self) -> Vec<(Member, Option<StoreId>)> {
        let members = self.configurations.members().into_iter();
        let leaving = members.filter(|member| !self.chain.is_member(member.id));
        leaving.map(|member| (member.clone(), self.chain.store_of(member.id))).collect()
    }

    /// Only members of an agreed cluster change it.
    pub(super) fn check_member(&self, now: Instant) -> Result<(), String> {
        let me = &self.me.member;
        if self.chain.newest().is_none() && self.chain.is_founder() {
            return Err(self.why_not_founded(now));
        }
        if !self.chain.is_member(me.id) {
            return Err(format!("{} is no member: ask one that is", me.name));
        }
        if self.is_lost(me.id, self.me.store) {
            return Err(format!("the data of {} was declared lost: ask another node", me.name));
        }
        Ok(())
    }

    /// Whoever is declared lost is not there, or has lost its disk.
    fn check_absent(&self, now: Instant, change: &Change) -> Result<(), String> {
        let (name, way) = match change {
            Change::Replace { name, force: false, .. } => (name, "use leave, or --force"),
            Change::Leave { name, lost: true } => (name, "let it leave without being lost"),
            _ => return Ok(()),
        };
        let members = self.configurations.members();
        let member = members.iter().find(|member| member.name == *name);
        let is_up = |node| {
            let store = self.store_there(now, node);
            store.is_some_and(|store| self.chain.store_of(node) == Some(store) && !self.is_lost(node, store))
        };
        if member.is_some_and(|member| is_up(member.id)) {
            return Err(format!("{name} is up: {way}"));
        }
        Ok(())
    }

    /// Every member is there and can read what it would have to go by. Whoever could not would be cut off until it is updated.
    fn check_understood(&self, change: &Change) -> Result<(), String> {
        let (needed, what, subject) = match change {
            Change::DoublePartitions => (greeting::DOUBLING, "double partitions", "a doubling"),
            // Once there is something agreed on, all members have been found to understand it.
            Change::SetAccess(_) if self.chain.access().is_none_or(AgreedAccess::is_empty) => {
                (greeting::AGREED_ACCESS, "agree on who may do what", "what is agreed on")
            }
            _ => return Ok(()),
        };
        let others = self.configurations.members().into_iter().filter(|member| member.id != self.me.member.id);
        let (mut silent, mut old) = (Vec::new(), Vec::new());
        for member in others {
            match self.peers.speaks(member.id) {
                None => silent.push(member.name),
                Some(speaks) if speaks < needed => old.push(member.name),
                Some(_) => {}
            }
        }
        if !old.is_empty() {
            let (are, them) = if old.len() == 1 { ("is", "it") } else { ("are", "them") };
            return Err(format!("{} {are} of a release that cannot {what}: update {them} first", old.join(", ")));
        }
        if !silent.is_empty() {
            let silent = said_of(&silent, "does not answer", "do not answer");
            return Err(format!("{silent}: every member must be there, so that it is known to understand {subject}"));
        }
        Ok(())
    }

    /// Each costs memory and a round of comparing, until members settle.
    fn check_few_unfinished(&self) -> Result<(), String> {
        if self.configurations.unfinished().count() < UNFINISHED_MAX {
            return Ok(());
        }
        self.check_settled()
    }

    fn check_settled(&self) -> Result<(), String> {
        let unfinished: Vec<u64> = self.configurations.unfinished().collect();
        let vacant = self.names_of(self.chain.vacant());
        // The founding moves nothing: nobody has to wait for it, unless nobody is some member.
        if vacant.is_empty() && unfinished.iter().all(|version| *version == 1) {
            return Ok(());
        }
        let unfinished = are_unfinished(&unfinished);
        if !vacant.is_empty() {
            let (are, them) = if vacant.len() == 1 { ("is", "it") } else { ("are", "them") };
            let vacant = vacant.join(", ");
            return Err(format!(
                "{unfinished} unfinished ({vacant} {are} declared lost, and still named as members): replace {them}, let {them} `leave NAME --lost`, \
                 or start {them} with an empty directory"
            ));
        }
        let why = self.waiting_for();
        let newest = self.chain.topology().ring().members();
        let changes_members =
            self.chain.unsettled().first().is_some_and(|oldest| oldest.topology.ring().members() != newest);
        let way = if changes_members { "wait, or cancel" } else { "wait" };
        Err(format!("{unfinished} unfinished ({why}): {way}"))
    }

    /// Who keeps the newest version from being the only one that counts.
    fn waiting_for(&self) -> String {
        let version = self.chain.version();
        let marks = self.marks.of_all(self.chain.store_of(self.me.member.id));
        let behind = |is_behind: &dyn Fn(NodeId) -> bool, of: &[Member]| {
            self.names_of(of.iter().map(|member| member.id).filter(|node| is_behind(*node)))
        };
        let (all, present) = (self.configurations.members(), self.chain.topology().ring().members());
        let marks_of = |node: NodeId| marks.get(&node).copied().unwrap_or_default();
        let is_whole = |node: NodeId| marks_of(node).store == self.chain.store_of(node);
        let unready = behind(&|node| !marks_of(node).ready.contains(version) || !is_whole(node), present);
        let open = behind(&|node| marks_of(node).closed < version, &all);
        let holding = behind(&|node| marks_of(node).left < version || !is_whole(node), &all);
        if !unready.is_empty() {
            said_of(&unready, "is not ready", "are not ready")
        } else if !open.is_empty() {
            said_of(&open, "still answers reads of an older one", "still answer reads of an older one")
        } else {
            said_of(&holding, "has not handed over everything", "have not handed over everything")
        }
    }

    fn staged(&self) -> Staged {
        let version = self.chain.version();
        Staged { version, changes: self.staging.changes(version).iter().map(Change::to_string).collect() }
    }

    fn state(&self, now: Instant) -> ClusterState {
        let configurations = &self.configurations;
        let candidates = self.peers.candidates(now, |node| is_known(&self.chain, node)).into_iter();
        ClusterState {
            version: configurations.version(),
            digest: self.chain.newest().map_or(0, |newest| newest.digest),
            is_agreed: configurations.is_agreed(),
            forced_on: self.chain.newest().and_then(|newest| newest.record.forced_on),
            unfinished: configurations.unfinished().collect(),
            read_version: configurations.read_version(),
            staged: self.staged(),
            voters: self.names_of(self.chain.electorate().voters.into_keys()),
            members: self.member_states(now),
            candidates: candidates
                .map(|candidate| {
                    let Member { name, address, zone, weight, .. } = candidate.member.clone();
                    CandidateState { name, address, zone, weight }
                })
                .collect(),
        }
    }

    fn member_states(&self, now: Instant) -> Vec<MemberState> {
        let me = self.me.member.id;
        let all = self.marks.of_all(self.chain.store_of(me));
        let state = |member: Member| {
            let (node, heard) = (member.id, self.peers.heard(member.id));
            let (named, marks) = (self.chain.store_of(node), all.get(&node).copied().unwrap_or_default());
            let store = if node == me { Some(self.me.store) } else { heard.map(|heard| heard.candidate.store) };
            let moving = if node == me { Some(self.progress.moving) } else { heard.map(|heard| heard.moving) };
            MemberState {
                name: member.name,
                address: member.address,
                zone: member.zone,
                weight: member.weight,
                stays: self.configurations.topology().ring().member(node).is_some(),
                is_heard: node == me || self.peers.is_heard(now, node),
                is_whole: named.is_none() || store.or(marks.store).is_none_or(|store| Some(store) == named),
                is_lost: named.is_some_and(|named| self.is_lost(node, named)),
                ready: marks.ready.up_to(self.chain.version()),
                closed: marks.closed,
                left: marks.left,
                moving: moving.unwrap_or_default(),
            }
        };
        let mut members: Vec<MemberState> = self.configurations.members().into_iter().map(state).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    fn access(&self) -> AccessState {
        AccessState { version: self.chain.version(), access: self.chain.access().cloned().unwrap_or_default() }
    }

    fn history(&self) -> Vec<Past> {
        let past = |topology: &Topology, digest, forced_on, by: &str, reason: &str| Past {
            version: topology.ring().version().0,
            digest,
            forced_on,
            members: topology.ring().members().iter().map(|member| member.name.clone()).collect(),
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        let founding = self.chain.founding();
        let is_first = self.chain.record(2).is_some_and(|second| second.record.parent == self.chain.founding_digest());
        let first = (is_first || self.chain.newest().is_none())
            .then(|| past(founding, self.chain.founding_digest(), None, "", "read from the cluster file"));
        let records = self.chain.records().map(|known| {
            let record = &known.record;
            past(&record.topology, known.digest, record.forced_on, &record.by, &record.reason)
        });
        first.into_iter().chain(records).collect()
    }
}

/// So many versions may be unfinished beside one more denial.
const UNFINISHED_MAX: usize = 16;

/// Most commands that wait for the end of one change.
pub(super) const WAITING_MAX: usize = 64;
