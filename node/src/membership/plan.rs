//! From staged changes to the record that they would make, and to what an operator is shown of it. A pure function: the same plan at two
//! nodes makes the same record, but for the name of the node.

use std::collections::{BTreeMap, BTreeSet};

use driftless_proto::membership::{Change, Plan, PlannedNode, Record, StoreId};
use driftless_proto::{AgreedAccess, BucketDefinition, BucketId, Topology};
use driftless_ring::{Member, NodeId, Ring, RingDiff};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::letter::Candidate;
use super::voters;
use crate::config::member::{WEIGHT_MAX, ZONE, is_zone};

/// What a plan is made from.
pub(super) struct Basis<'a> {
    /// The newest record.
    pub(super) record: &'a Record,
    /// Its digest.
    pub(super) digest: u128,
    /// Nodes that have called and are no members of the newest version.
    pub(super) candidates: Vec<&'a Candidate>,
    /// Members of versions that are not done with, and none of the newest one, with their stores.
    pub(super) leaving: Vec<(Member, Option<StoreId>)>,
    /// The versions before it that are not done with.
    pub(super) unfinished: Vec<u64>,
    /// Bytes in one replica of a partition, about.
    pub(super) slot_bytes: u64,
}

/// A plan and the record that it makes.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) record: Record,
}

impl Basis<'_> {
    /// What these changes make of the newest version, committed at the node of this name.
    ///
    /// # Errors
    /// In words, if they cannot be made.
    pub(super) fn plan(&self, changes: &[Change], by: &str) -> Result<Planned, String> {
        let (old, name) = (self.record.topology.ring(), name(self.digest, changes, &self.callers(changes)));
        let draft = self.draft(changes)?;
        let new = draft.ring(old)?;
        let words: Vec<String> = changes.iter().map(Change::to_string).collect();
        let warnings = self.warnings(&draft, &new);
        // As many replicas of partitions as there will be, on both sides.
        let old = &old.cut_into(new.partitions());
        let moves = Moves::between(old, &new);
        let plan = Plan {
            name: name.clone(),
            base: self.record.version(),
            version: new.version().0,
            changes: words.clone(),
            nodes: self.nodes(old, &new),
            slots_moved: moves.moved,
            slots_minimum: moves.minimum,
            slots: new.all_partitions().map(|partition| new.owners(partition).len() as u64).sum(),
            spread: spread(&new),
            zones: zones(&new),
            warnings,
        };
        let reason = format!("{}, plan {name}", words.join(", "));
        let record = draft.record(self, new, by, reason)?;
        Ok(Planned { plan, record })
    }

    fn draft(&self, changes: &[Change]) -> Result<Draft, String> {
        let record = self.record;
        let mut draft = Draft {
            version: record.version().saturating_add(1),
            members: record.topology.ring().members().to_vec(),
            stores: record.stores.iter().copied().collect(),
            lost: Vec::new(),
            buckets: record.topology.buckets().to_vec(),
            dropped: record.dropped.clone(),
            access: record.access().clone(),
            replaced: None,
            doubles: false,
        };
        let alone = changes.iter().find_map(|change| match change {
            Change::Replace { .. } => Some("a replacement goes by itself, so that nothing else moves"),
            Change::DoublePartitions => Some("a doubling of the partitions goes by itself, so that nothing moves"),
            _ => None,
        });
        if let Some(why) = alone.filter(|_| changes.len() > 1) {
            return Err(format!("{why}: commit the one, then the other, or clear what is staged"));
        }
        for change in changes {
            self.make(&mut draft, change)?;
        }
        draft.check_classes()?;
        self.check_denied(&draft)?;
        Ok(draft)
    }

    fn make(&self, draft: &mut Draft, change: &Change) -> Result<(), String> {
        match change {
            Change::Join { name, zone, weight } => {
                let mut candidate = self.candidate(name)?.clone();
                check_share(*weight, zone.as_deref())?;
                candidate.member.weight = weight.unwrap_or(candidate.member.weight);
                candidate.member.zone = zone.clone().unwrap_or(candidate.member.zone);
                draft.stores.insert(candidate.member.id, candidate.store);
                draft.members.push(candidate.member);
            }
            Change::Leave { name, lost } => self.leave(draft, name, *lost)?,
            Change::Replace { name, with, .. } => {
                let old = draft.member(name)?.id;
                let Candidate { member, store } = self.candidate(with)?.clone();
                draft.lose(old);
                draft.stores.insert(member.id, store);
                draft.replaced = Some((old, member.clone()));
                draft.members.push(member);
            }
            Change::Set { name, weight, zone } => {
                check_share(*weight, zone.as_deref())?;
                let member = draft.member(name)?;
                member.weight = weight.unwrap_or(member.weight);
                member.zone = zone.clone().unwrap_or(std::mem::take(&mut member.zone));
            }
            Change::CreateBucket(bucket) => draft.create(bucket)?,
            Change::SetBucket(bucket) => draft.set(bucket)?,
            Change::DropBucket { name } => draft.drop(name)?,
            Change::DoublePartitions => draft.doubles = true,
            Change::SetAccess(change) => draft.access = draft.access.with(change).map_err(|error| error.to_string())?,
        }
        Ok(())
    }

    fn leave(&self, draft: &mut Draft, name: &str, lost: bool) -> Result<(), String> {
        let straggler = self.leaving.iter().find(|(member, _)| member.name == name);
        if let (true, Some((member, Some(store)))) = (lost, straggler) {
            if !self.record.is_lost(member.id, *store) {
                draft.lost.push((member.id, *store));
            }
            return Ok(());
        }
        let node = draft.member(name)?.id;
        if lost {
            draft.lose(node);
        } else {
            draft.remove(node);
        }
        Ok(())
    }

    /// Nobody denies a node that takes part: the others would not let it in, and wait for it for ever.
    fn check_denied(&self, draft: &Draft) -> Result<(), String> {
        let is_denied = |member: &&Member| draft.access.denied().nodes.contains(&member.name);
        let ring = self.record.topology.ring();
        if let Some(member) = draft.members.iter().find(is_denied) {
            let name = &member.name;
            return Err(match ring.member(member.id) {
                None => denied_newcomer(name),
                Some(_) => format!(
                    "{name} is a member: let another node take its place (`cluster replace {name} --with NAME`), or let it leave (`cluster leave \
                     {name}`), then deny it; to refuse a certificate of it that was stolen, give it another and deny the serial number"
                ),
            });
        }
        let mut leaving = self.leaving.iter().map(|(member, _)| member);
        match leaving.find(is_denied) {
            None => Ok(()),
            Some(member) => Err(format!("{} is still leaving: deny it once that is done", member.name)),
        }
    }

    /// Those who have called and are to come.
    fn callers(&self, changes: &[Change]) -> Vec<&Candidate> {
        let name = |change: &Change| match change {
            Change::Join { name, .. } | Change::Replace { with: name, .. } => Some(name.clone()),
            _ => None,
        };
        let called = |name: String| self.candidates.iter().copied().find(|candidate| candidate.member.name == name);
        changes.iter().filter_map(name).filter_map(called).collect()
    }

    /// Who has called under this name and may become a member.
    fn candidate(&self, name: &str) -> Result<&Candidate, String> {
        if self.record.topology.ring().member_by_name(name).is_some() {
            return Err(format!("{name} is a member already"));
        }
        // It cannot call as long as that is so.
        if self.record.access().denied().nodes.contains(name) {
            return Err(denied_newcomer(name));
        }
        let called = self.candidates.iter().find(|candidate| candidate.member.name == name);
        let candidate = called.ok_or_else(|| {
            format!(
                "{name} has not called: start it with a cluster.toml that names this cluster's members, then join it (with an empty \
                 directory, if `driftless status` says that it goes by another history)"
            )
        })?;
        // With another disk it would count as one that has taken part in the versions that it is leaving.
        let is_other = |(member, store): &&(Member, Option<StoreId>)| {
            member.id == candidate.member.id && *store != Some(candidate.store)
        };
        if self.leaving.iter().any(|leaving| is_other(&leaving)) {
            return Err(format!("{name} is still leaving, and has lost its data: declare it lost, then join it"));
        }
        if self.record.is_lost(candidate.member.id, candidate.store) {
            return Err(format!(
                "the data of {name} was declared lost: start it with an empty data directory, then join it"
            ));
        }
        Ok(candidate)
    }

    fn nodes(&self, old: &Ring, new: &Ring) -> Vec<PlannedNode> {
        let diff = RingDiff::between(old, new);
        let taken = gained(old, new);
        let mut nodes: Vec<PlannedNode> = diff
            .nodes()
            .iter()
            .filter_map(|(id, change)| {
                let member = new.member(*id).or_else(|| old.member(*id))?;
                let (gains, loses) = (taken.get(id).copied().unwrap_or(0), u64::from(change.lost));
                Some(PlannedNode {
                    name: member.name.clone(),
                    zone: member.zone.clone(),
                    now: u64::from(change.held_before),
                    then: u64::from(change.held_after),
                    gains,
                    loses,
                    bytes_in: gains.saturating_mul(self.slot_bytes),
                    bytes_out: loses.saturating_mul(self.slot_bytes),
                })
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    fn warnings(&self, draft: &Draft, new: &Ring) -> Vec<String> {
        let mut warnings = Vec::new();
        let (spread, zones) = zones(new);
        let n = new.classes().max().unwrap_or(1);
        if zones > 1 && spread < u32::from(n) {
            warnings.push(format!("n = {n}, and there are {zones} zones: partitions have several replicas in one"));
        }
        let members = new.members();
        if members.len() > MEMBERS_COMFORTABLE {
            let count = members.len();
            warnings.push(format!(
                "{count} members: each keeps a connection to each, and above {MEMBERS_COMFORTABLE} that tells"
            ));
        }
        let weights = members.iter().map(|member| member.weight);
        if let (Some(least), Some(most)) = (weights.clone().min(), weights.max())
            && most / least.max(1) >= WEIGHTS_APART
        {
            warnings.push(format!("weights from {least} to {most}: the heaviest hold a replica of nearly everything"));
        }
        for (node, _) in &draft.lost {
            let leaving = self.leaving.iter().map(|(member, _)| member);
            let name = self.record.topology.ring().members().iter().chain(leaving).find(|member| member.id == *node);
            let name = name.map_or_else(|| node.to_string(), |member| member.name.clone());
            warnings.push(format!(
                "{name} is declared lost: what only it holds is given up, and its data is refused for ever"
            ));
        }
        let (before, partitions) = (self.record.topology.ring().partitions(), new.partitions());
        if draft.doubles {
            warnings.push(format!(
                "there will be {partitions} partitions instead of {before}, for ever; each node reads through what it holds once, and compares \
                 nothing with the others until then"
            ));
            if partitions.get() / members.len() as u32 > PARTITIONS_ENOUGH {
                warnings.push(format!(
                    "{} partitions for each member are more than balance needs: each costs memory, and a line in each round of comparing",
                    partitions.get() / members.len() as u32
                ));
            }
        }
        if !self.unfinished.is_empty() {
            warnings.push(format!("{} not done with yet", are_unfinished(&self.unfinished)));
        }
        warnings
    }
}

/// The name of the plan of these changes to the record with this digest: what it would make follows from both, and from what those say of
/// themselves who are to come.
pub(super) fn name(base: u128, changes: &[Change], callers: &[&Candidate]) -> String {
    let bytes =
        postcard::to_stdvec(&(base, changes, callers)).expect("changes have no type that postcard cannot write");
    format!("{:08x}", (xxh3_128(&bytes) >> 96) as u32)
}

/// How many replicas somebody has to receive, and the fewest that could be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Moves {
    moved: u64,
    minimum: u64,
}

impl Moves {
    /// A class that is new is empty: nobody receives anything.
    fn between(old: &Ring, new: &Ring) -> Moves {
        let mut minimum = 0;
        for class in new.classes().filter(|class| old.classes().any(|other| other == *class)) {
            let (held, then) = (held(old, class), held(new, class));
            let short = then.iter().map(|(node, then)| then.saturating_sub(held.get(node).copied().unwrap_or(0)));
            minimum += short.sum::<u64>();
        }
        Moves { moved: gained(old, new).values().sum(), minimum }
    }
}

/// How many replicas each node has to receive.
fn gained(old: &Ring, new: &Ring) -> BTreeMap<NodeId, u64> {
    let mut gained = BTreeMap::new();
    let diff = RingDiff::between(old, new);
    for change in diff.changes().iter().filter(|change| old.classes().any(|class| class == change.partition.n)) {
        for node in &change.gained {
            *gained.entry(*node).or_default() += 1;
        }
    }
    gained
}

fn held(ring: &Ring, class: u8) -> BTreeMap<NodeId, u64> {
    let mut held = BTreeMap::new();
    for partition in ring.all_partitions().filter(|partition| partition.n == class) {
        for owner in ring.owners(partition) {
            *held.entry(*owner).or_default() += 1;
        }
    }
    held
}

/// In how many zones replicas are at best, of how many there are.
fn zones(ring: &Ring) -> (u32, u32) {
    let zones: BTreeSet<&str> = ring.members().iter().map(|member| member.zone.as_str()).collect();
    let n = ring.classes().max().unwrap_or(1);
    let count = zones.len() as u32;
    (count.min(u32::from(n)), count)
}

/// Partitions whose replicas are in as many zones as can be, of all.
fn spread(ring: &Ring) -> (u64, u64) {
    let zones = zones(ring).1 as usize;
    let zone_of: BTreeMap<NodeId, &str> =
        ring.members().iter().map(|member| (member.id, member.zone.as_str())).collect();
    let (mut spread, mut all) = (0, 0);
    for partition in ring.all_partitions() {
        let of: BTreeSet<_> = ring.owners(partition).iter().filter_map(|owner| zone_of.get(owner)).collect();
        spread += u64::from(of.len() >= zones.min(usize::from(partition.n)));
        all += 1;
    }
    (spread, all)
}

/// What becomes of a record while changes are made to it.
struct Draft {
    version: u64,
    members: Vec<Member>,
    stores: BTreeMap<NodeId, StoreId>,
    /// Stores that are declared lost by this.
    lost: Vec<(NodeId, StoreId)>,
    buckets: Vec<BucketDefinition>,
    dropped: Vec<BucketId>,
    access: AgreedAccess,
    replaced: Option<(NodeId, Member)>,
    doubles: bool,
}

impl Draft {
    fn member(&mut self, name: &str) -> Result<&mut Member, String> {
        let member = self.members.iter_mut().find(|member| member.name == name);
        member.ok_or_else(|| format!("{name} is no member"))
    }

    fn remove(&mut self, node: NodeId) -> Option<StoreId> {
        self.members.retain(|member| member.id != node);
        self.stores.remove(&node)
    }

    fn lose(&mut self, node: NodeId) {
        let store = self.remove(node);
        self.lost.extend(store.map(|store| (node, store)));
    }

    fn create(&mut self, bucket: &BucketDefinition) -> Result<(), String> {
        check_bucket(bucket)?;
        if self.buckets.iter().any(|other| other.name == bucket.name) {
            return Err(format!("there is a bucket {} already", bucket.name));
        }
        let is_free = |id: &BucketId| {
            *id != BucketId::DEFAULT && !self.dropped.contains(id) && self.buckets.iter().all(|other| other.id != *id)
        };
        // Drawn from name and version: a bucket that takes the name of one that was dropped must not take its number, and all who plan
        // this must come to the same.
        let draws = (0_u32..).map(|attempt| {
            let bytes = format!("{}/{}/{attempt}", bucket.name, self.version);
            BucketId(xxh3_64(bytes.as_bytes()) as u32)
        });
        let id = draws.into_iter().find(is_free).ok_or("all numbers of buckets are taken")?;
        self.buckets.push(BucketDefinition { id, ..bucket.clone() });
        Ok(())
    }

    fn set(&mut self, bucket: &BucketDefinition) -> Result<(), String> {
        check_bucket(bucket)?;
        let present = self.buckets.iter_mut().find(|other| other.name == bucket.name);
        let present = present.ok_or_else(|| format!("there is no bucket {}", bucket.name))?;
        if present.quorum.n() != bucket.quorum.n() {
            return Err(format!("n of the bucket {} is {} and never changes", bucket.name, present.quorum.n()));
        }
        if present.conflict != bucket.conflict {
            return Err(format!("what becomes of concurrent writes in the bucket {} never changes", bucket.name));
        }
        let (before, after) = (present.quorum, bucket.quorum);
        // Writes have been acknowledged by w as it was then, now or at any time before: reads of r meet those, whatever w becomes.
        if after.r() < before.r() {
            return Err(format!(
                "r of the bucket {} is {} and is never lowered: reads of fewer could miss what has been acknowledged; to ask fewer, \
                say so with the request (`get -r {}`)",
                bucket.name,
                before.r(),
                after.r()
            ));
        }
        *present = BucketDefinition { id: present.id, ..bucket.clone() };
        Ok(())
    }

    fn drop(&mut self, name: &str) -> Result<(), String> {
        let present = self.buckets.iter().find(|bucket| bucket.name.as_str() == name);
        let id = present.ok_or_else(|| format!("there is no bucket {name}"))?.id;
        if id == BucketId::DEFAULT {
            return Err("the bucket \"default\" is built in and cannot be dropped".to_owned());
        }
        self.buckets.retain(|bucket| bucket.id != id);
        self.dropped.push(id);
        Ok(())
    }

    fn classes(&self) -> BTreeSet<u8> {
        self.buckets.iter().map(|bucket| bucket.quorum.n()).collect()
    }

    fn check_classes(&self) -> Result<(), String> {
        let count = self.members.len();
        match self.classes().into_iter().rfind(|n| usize::from(*n) > count) {
            None => Ok(()),
            Some(n) => {
                let of = |bucket: &&BucketDefinition| bucket.quorum.n() == n;
                let buckets: Vec<&str> = self.buckets.iter().filter(of).map(|bucket| bucket.name.as_str()).collect();
                Err(format!("n = {n} needs {n} members: there would be {count} (bucket {})", buckets.join(", ")))
            }
        }
    }

    /// The next ring. Where members and classes stay, so does each slot, whatever placement would make of them today.
    fn ring(&self, old: &Ring) -> Result<Ring, String> {
        let ring = match &self.replaced {
            Some((gone, taker)) => old.replaced(*gone, taker.clone()),
            None if self.doubles => old.doubled(),
            None => {
                let mut members = self.members.clone();
                members.sort_by_key(|member| member.id);
                let classes = self.classes();
                if members == old.members() && old.classes().eq(classes.iter().copied()) {
                    old.again(old)
                } else {
                    let mut spec = old.spec();
                    (spec.members, spec.classes) = (members, classes);
                    old.next(spec)
                }
            }
        };
        ring.map_err(|error| error.to_string())
    }

    fn record(self, basis: &Basis<'_>, ring: Ring, by: &str, reason: String) -> Result<Record, String> {
        let base = basis.record;
        let lost = base.lost_with(self.lost);
        let stores: Vec<(NodeId, StoreId)> = self.stores.into_iter().collect();
        let voters = voters::next(&base.voters, ring.members(), &stores, &lost);
        let topology = Topology::new(base.topology.cluster(), ring, self.buckets).map_err(|error| error.to_string())?;
        base.followed_by(basis.digest, topology, stores, voters, lost, self.dropped, by.to_owned(), reason)
            .map(|record| record.with_access(self.access))
            .map_err(|error| error.to_string())
    }
}

/// Why a node that is denied does not become a member.
pub(super) fn denied_newcomer(name: &str) -> String {
    format!("{name} is denied: take that back first (`access allow node {name}`), or give the node another name")
}

fn check_share(weight: Option<u32>, zone: Option<&str>) -> Result<(), String> {
    if weight == Some(0) {
        return Err("a weight is 1 or more: let a member leave that is to hold nothing".to_owned());
    }
    if weight.is_some_and(|weight| weight > WEIGHT_MAX) {
        return Err(format!("a weight is {WEIGHT_MAX} at most"));
    }
    match zone {
        Some(zone) if !is_zone(zone) => Err(format!("{zone:?} is no zone: one is {ZONE}")),
        _ => Ok(()),
    }
}

fn check_bucket(bucket: &BucketDefinition) -> Result<(), String> {
    if bucket.read_all > 100 {
        return Err(format!("read_all = {} is no percentage", bucket.read_all));
    }
    Ok(())
}

/// "version 7 is" or "versions 7 and 8 are", for the sentence that goes on with what they are.
pub(super) fn are_unfinished(versions: &[u64]) -> String {
    match versions {
        [] => "no version is".to_owned(),
        [one] => format!("version {one} is"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(u64::to_string).collect();
            format!("versions {} and {last} are", first.join(", "))
        }
    }
}

/// From here on plans warn of the number of members.
const MEMBERS_COMFORTABLE: usize = 200;

/// So many partitions for each member balance better than anybody notices.
const PARTITIONS_ENOUGH: u32 = 512;

/// From here on plans warn of unequal weights: a member never holds more than one replica of a partition.
const WEIGHTS_APART: u32 = 8;

#[cfg(test)]
mod tests;
