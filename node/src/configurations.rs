//! The versions of the ring that count at one moment, and what follows from them for a partition.
//!
//! ```text
//! settled ──a version is decided──▶ joint: written to the old owners and to the new ones, read from the old ones
//!    ▲                                │ every member of the new version holds what it must, and says so (ready)
//!    │                              closing: read from the new owners; who has closed answers no read that counts the old ones
//!    │                                │ every member of the old version has closed
//!    └──every one has left────────  leaving: the old owners hand over what only they may hold, and drop it
//! ```
//! A version that was overtaken before it was done with is one more configuration: writes then need a quorum in each.
//!
//! Source: Dynamo has no such thing; joint quorums are those of Raft's membership changes (Ongaro, Ousterhout, 2014, section 6), here without a
//! leader and for each partition's owners. The phases are the whole cluster's, not a partition's: simpler to see through, at the price that
//! the slowest pass ends the joint phase.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftless_proto::membership::{Record, StoreId};
use driftless_proto::{AgreedAccess, BucketDefinition, BucketId, Topology};
use driftless_ring::{Member, NodeId, PartitionId, Ring};

mod marks;

pub use marks::{Marks, Ready};

/// The versions that count, and who is how far.
#[derive(Clone, PartialEq, Debug)]
pub struct Configurations {
    topology: Arc<Topology>,
    /// Versions before it that are not done with, the oldest first.
    older: Vec<Older>,
    /// In which reads count.
    read: u64,
    /// The newest version of which every member is ready, or was, or 0: reads that count for less are refused.
    closes: u64,
    /// The own store is the one that the newest record which names this node names.
    is_whole: bool,
    /// Members of any version whose store that is named as theirs will never answer.
    lost: BTreeSet<NodeId>,
    /// Stores that were declared lost, in whatever version.
    lost_stores: Vec<(NodeId, StoreId)>,
    /// The newest version that was forced, after the one that it follows on, if that is not done with.
    forced: Option<(u64, u64)>,
    /// Who may do what, as the newest version says.
    access: Arc<AgreedAccess>,
    /// Buckets were dropped: what was in them may still be stored.
    has_dropped: bool,
    /// Decided by voters, and not read from a file.
    is_agreed: bool,
    /// The node whose process this is about, and its shards, whether or not it is a member.
    own: Option<(NodeId, u16)>,
    /// Members that are known to go by the file too, this one included, where fewer are known to than have to be.
    company: Option<u8>,
}

/// A version that is not done with, in the arcs of the newest: whatever is asked of a partition is asked of all versions by one name, also
/// where the partitions have been doubled since.
#[derive(Clone, PartialEq, Debug)]
struct Older {
    topology: Arc<Topology>,
    /// Writes need a quorum in it.
    is_active: bool,
}

impl Configurations {
    /// One version that nobody has agreed on: read from a file.
    pub fn of_file(topology: Arc<Topology>) -> Configurations {
        let read = topology.ring().version().0;
        Configurations {
            topology,
            older: Vec::new(),
            read,
            closes: 0,
            is_whole: true,
            lost: BTreeSet::new(),
            lost_stores: Vec::new(),
            forced: None,
            access: Arc::default(),
            has_dropped: false,
            is_agreed: false,
            own: None,
            company: None,
        }
    }

    /// The same for the process of a node with so many shards: what it begins before it is a member, or does after it was one, is done by
    /// the shard that does it while it is one.
    #[must_use]
    pub fn of_process(self, node: NodeId, shards: u16) -> Configurations {
        Configurations { own: Some((node, shards)), ..self }
    }

    /// The same where so many members are known to go by the file, this one included: see [`Configurations::in_want_of_company`].
    #[must_use]
    pub fn in_company_of(self, members: usize) -> Configurations {
        let company = u8::try_from(members).unwrap_or(u8::MAX);
        Configurations { company: Some(company).filter(|company| *company < self.company_needed()), ..self }
    }

    /// How many members have to go by the file before this node does anything by it for clients, and how many are known to, where these
    /// are fewer. A disk that was lost leaves a file that may be of long ago, by which this node alone would own keys that others own
    /// today. That most members go by it shows that there is nothing later: what is agreed on first is on the disks of all.
    pub fn in_want_of_company(&self) -> Option<(u8, u8)> {
        Some((self.company_needed(), self.company?))
    }

    fn company_needed(&self) -> u8 {
        u8::try_from(self.topology.ring().members().len() / 2 + 1).unwrap_or(u8::MAX)
    }

    /// What follows from the records that are not done with, the newest last, and from everybody's marks, for the node with this store.
    /// Of a file, the first record may be a founding topology: then it is given as `founding`.
    ///
    /// # Panics
    /// Without any record.
    pub fn of_records(
        me: NodeId,
        store: StoreId,
        records: &[Arc<Record>],
        founding: Option<&Arc<Topology>>,
        marks: &BTreeMap<NodeId, Marks>,
    ) -> Configurations {
        let newest = records.last().expect("there is a newest record");
        let (version, partitions) = (newest.version(), newest.topology.ring().partitions());
        // The store that counts as a member's, also of one that is leaving: as the newest version that has it as a member says.
        let named = |node: NodeId| records.iter().rev().find_map(|record| record.store_of(node));
        // Not who has lost a store once, and has been named with another one since: what that holds is waited for.
        let is_gone = |node: &NodeId| named(*node).is_none_or(|store| newest.is_lost(*node, store));
        let lost: BTreeSet<NodeId> = newest.lost.iter().map(|(node, _)| *node).filter(is_gone).collect();
        let marks_of = |node: NodeId| marks.get(&node).copied().unwrap_or_default();
        // What an unnamed store says counts for nothing, but what it has closed stays closed.
        let has_left = |node: NodeId| {
            let marks = marks_of(node);
            marks.left >= version && named(node).is_none_or(|named| marks.store == Some(named))
        };
        // Nobody is left out here who was declared lost since: a version that nobody but the lost could have filled was never ready,
        // and what the version before it holds must not be given up for it.
        let is_ready = |record: &Record| {
            record.stores.iter().all(|(node, store)| {
                let marks = marks_of(*node);
                let counts = marks.store == Some(*store) || marks.store == named(*node);
                marks.ready.contains(record.version()) && counts && !record.is_vacant(*node)
            })
        };
        // Whoever has closed up to a version has seen that it was ready: that one of its stores was replaced since does not make it unready,
        // or what it has retired would come back.
        let was_ready = |record: &Record| marks.values().any(|marks| marks.closed == record.version());
        let ready = records.iter().filter(|record| is_ready(record) || was_ready(record));
        let ready: Vec<u64> = ready.map(|record| record.version()).collect();
        let all_ready = is_ready(newest);
        let before = records[..records.len() - 1].iter().map(|record| Arc::new(record.topology.clone()));
        let mut older = Vec::new();
        let mut settled = all_ready;
        for topology in founding.cloned().into_iter().chain(before) {
            let own = topology.ring().version().0;
            let stragglers: Vec<NodeId> =
                topology.ring().members().iter().map(|member| member.id).filter(|node| !lost.contains(node)).collect();
            let all_closed = |version: u64| stragglers.iter().all(|node| marks_of(*node).closed >= version);
            // Any later version that is ready retires it, not only the newest: once it is retired, writes pass it by, and it must not be
            // read from again because one more version was decided.
            let retired = ready.iter().any(|later| *later > own && all_closed(*later));
            settled &= all_closed(version) && stragglers.iter().all(|node| has_left(*node));
            let topology = match topology.ring().partitions() == partitions {
                true => topology,
                false => Arc::new(topology.cut_into(partitions)),
            };
            older.push(Older { topology, is_active: !retired });
        }
        if settled {
            older.clear();
        }
        let oldest_active = older.iter().find(|older| older.is_active).map(|older| older.topology.ring().version().0);
        let newest_ready = ready.last().copied();
        Configurations {
            topology: Arc::new(newest.topology.clone()),
            read: newest_ready.or(oldest_active).unwrap_or(version),
            closes: newest_ready.unwrap_or(0),
            older,
            is_whole: named(me).is_none_or(|named| named == store),
            lost,
            lost_stores: newest.lost.clone(),
            forced: records.iter().rev().find_map(|record| Some((record.forced_on?, record.version()))),
            access: Arc::new(newest.access().clone()),
            has_dropped: !newest.dropped.is_empty(),
            is_agreed: true,
            own: None,
            company: None,
        }
    }

    /// The newest version.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Its number.
    pub fn version(&self) -> u64 {
        self.topology.ring().version().0
    }

    /// Whether the newest version is the only one that counts.
    pub fn is_settled(&self) -> bool {
        self.older.is_empty()
    }

    /// Whether anything changes hands: members change, or the own store is not what it was.
    pub fn is_moving(&self) -> bool {
        !self.older.is_empty() || !self.is_whole
    }

    /// Who may do what, as far as that is agreed on.
    pub fn access(&self) -> &Arc<AgreedAccess> {
        &self.access
    }

    /// Whether there were buckets that are no more.
    pub fn has_dropped(&self) -> bool {
        self.has_dropped
    }

    /// A bucket as it is in each version that takes writes.
    pub fn definitions(&self, bucket: BucketId) -> impl Iterator<Item = &BucketDefinition> + '_ {
        let older = self.older.iter().filter(|older| older.is_active).map(|older| &older.topology);
        [&self.topology].into_iter().chain(older).filter_map(move |topology| topology.bucket(bucket))
    }

    /// Whether it was decided by voters.
    pub fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// Whether the own store is the one that the newest version names.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Reads that count for less than this are refused.
    pub fn closes(&self) -> u64 {
        self.closes
    }

    /// The version in which reads count.
    pub fn read_version(&self) -> u64 {
        self.read
    }

    /// The versions before the newest that are not done with.
    pub fn unfinished(&self) -> impl Iterator<Item = u64> + '_ {
        self.older.iter().map(|older| older.topology.ring().version().0)
    }

    /// Whether an older version still takes writes.
    pub fn has_active_before(&self) -> bool {
        self.older.iter().any(|older| older.is_active)
    }

    /// The newest version that was forced, after the one that it follows on, if that is not done with.
    pub fn forced(&self) -> Option<(u64, u64)> {
        self.forced
    }

    /// Whether this store was declared lost, in the newest version or one before it: it is refused for ever.
    pub fn is_lost_store(&self, node: NodeId, store: StoreId) -> bool {
        self.lost_stores.contains(&(node, store))
    }

    /// Members of any version that is not done with, each once, by id, as its newest version has it.
    pub fn members(&self) -> Vec<Member> {
        let mut members: BTreeMap<NodeId, Member> = BTreeMap::new();
        for ring in self.rings() {
            // Of the newest version also who was declared lost by force: it may come back with another store.
            let counts = |id: NodeId| !self.lost.contains(&id) || self.topology.ring().member(id).is_some();
            for member in ring.members().iter().filter(|member| counts(member.id)) {
                members.insert(member.id, member.clone());
            }
        }
        members.into_values().collect()
    }

    /// A member of any version that is not done with.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let newest = self.topology.ring().member(node);
        newest.or_else(|| self.older.iter().rev().find_map(|older| older.topology.ring().member(node)))
    }

    /// How many shards a node has, as a member or as the process that this is about; `None` of any other.
    pub fn shards_of(&self, node: NodeId) -> Option<u16> {
        let own = || self.own.filter(|(own, _)| *own == node).map(|(_, shards)| shards);
        self.member(node).map(|member| member.shards).or_else(own).map(|shards| shards.max(1))
    }

    /// The shard of a node that serves a partition.
    pub fn shard_of(&self, node: NodeId, partition: PartitionId) -> u16 {
        self.topology.ring().partitions().shard_of(partition.arc, self.shards_of(node).unwrap_or(1))
    }

    /// Why the process that this is about cannot be the member that it is, in words: the members have agreed on another number of shards.
    pub fn other_shards(&self) -> Option<String> {
        let (node, own) = self.own?;
        let agreed = self.member(node)?.shards.max(1);
        (agreed != own.max(1)).then(|| {
            format!(
                "this process has {own} shards, and the members have agreed on {agreed} for it: start it again, it goes by that then; and \
                 set `shards` right where its cluster.toml or node.toml says otherwise"
            )
        })
    }

    /// The owners of a partition in the newest version.
    pub fn newest_owners(&self, partition: PartitionId) -> &[NodeId] {
        self.topology.ring().owners(partition)
    }

    /// The owners of a partition in each version that takes writes, the newest first.
    pub fn active(&self, partition: PartitionId) -> impl Iterator<Item = (u64, &[NodeId])> + '_ {
        let older = self.older.iter().rev().filter(|older| older.is_active).map(|older| &older.topology);
        [&self.topology].into_iter().chain(older).filter_map(move |topology| {
            let owners = topology.ring().owners(partition);
            (!owners.is_empty()).then(|| (topology.ring().version().0, owners))
        })
    }

    /// Everybody who owns a partition in a version that takes writes: the owners of the newest first, in its order.
    pub fn owners(&self, partition: PartitionId) -> Vec<NodeId> {
        let mut owners = self.newest_owners(partition).to_vec();
        if !self.older.is_empty() {
            for node in self.active(partition).flat_map(|(_, owners)| owners) {
                if !owners.contains(node) {
                    owners.push(*node);
                }
            }
        }
        owners
    }

    /// Whether a node owns a partition in a version that takes writes.
    pub fn owns(&self, node: NodeId, partition: PartitionId) -> bool {
        self.newest_owners(partition).contains(&node)
            || (!self.older.is_empty() && self.active(partition).any(|(_, owners)| owners.contains(&node)))
    }

    /// Whether a node owns a partition in any version that is not done with: then it may hold what nobody else does.
    pub fn keeps(&self, node: NodeId, partition: PartitionId) -> bool {
        self.rings().any(|ring| ring.owns(node, partition))
    }

    /// The partitions that a node keeps, in order.
    pub fn kept(&self, node: NodeId) -> BTreeSet<PartitionId> {
        self.rings().flat_map(|ring| ring.owned(node)).collect()
    }

    /// The owners of a partition whose answers to a read count.
    pub fn read_owners(&self, partition: PartitionId) -> &[NodeId] {
        if self.read == self.version() {
            return self.newest_owners(partition);
        }
        let older = self.older.iter().find(|older| older.topology.ring().version().0 == self.read);
        let owners = older.map_or(&[][..], |older| older.topology.ring().owners(partition));
        // A class that the older version does not have is new, and nothing was ever written to it before.
        if owners.is_empty() { self.newest_owners(partition) } else { owners }
    }

    /// With whose stores a node must have compared what it holds of a partition, before it may say that it holds what it must: of each of
    /// these groups so many. Nothing where it has taken part in every write that counts. What it owns in the newest version; with another store
    /// than the one that is named, also what it owns in an older one that counts, and may be read from.
    pub fn passes(&self, node: NodeId, partition: PartitionId) -> Vec<Pass> {
        let newest = self.newest_owners(partition);
        let owns_newest = newest.contains(&node);
        if self.is_whole && (self.older.is_empty() || !owns_newest) {
            return Vec::new();
        }
        // No version will name the store of a node that leaves: nobody reads from it, and nobody compares with it.
        if self.topology.ring().member(node).is_none() {
            return Vec::new();
        }
        let (w_min, r_max) = (self.w_min(partition.n), self.r_max(partition.n));
        let pass = |owners: &[NodeId]| {
            let others: Vec<NodeId> =
                owners.iter().copied().filter(|owner| *owner != node && !self.lost.contains(owner)).collect();
            // So many have met whatever w have acknowledged, and whatever a strict read has shown, which n - r + 1 hold.
            let needed = (owners.len().saturating_sub(usize::from(w_min)) + 1).max(usize::from(r_max));
            Pass { needed: needed.min(others.len()), of: others }
        };
        let older = self.older.iter().filter(|older| older.is_active).map(|older| older.topology.ring());
        let mut passes: Vec<Pass> = older
            .map(|ring| ring.owners(partition))
            .filter(|owners| match self.is_whole {
                true => !owners.is_empty() && !owners.contains(&node),
                false => !owners.is_empty() && (owns_newest || owners.contains(&node)),
            })
            .map(pass)
            .collect();
        if !self.is_whole && owns_newest {
            passes.push(pass(newest));
        }
        passes.retain(|pass| pass.needed > 0);
        passes
    }

    /// The fewest replicas that acknowledge a write, of all buckets of a class.
    fn w_min(&self, n: u8) -> u8 {
        let all = self.rings_with_buckets().filter(|bucket| bucket.0 == n).map(|bucket| bucket.1);
        all.min().unwrap_or(1)
    }

    /// The most replicas that answer a read, of all buckets of a class.
    fn r_max(&self, n: u8) -> u8 {
        let older = self.older.iter().map(|older| &older.topology);
        let buckets = [&self.topology].into_iter().chain(older).flat_map(|topology| topology.buckets());
        buckets.filter(|bucket| bucket.quorum.n() == n).map(|bucket| bucket.quorum.r()).max().unwrap_or(1)
    }

    fn rings_with_buckets(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        let older = self.older.iter().map(|older| &older.topology);
        [&self.topology]
            .into_iter()
            .chain(older)
            .flat_map(|topology| topology.buckets().iter().map(|bucket| (bucket.quorum.n(), bucket.quorum.w())))
    }

    /// The oldest first, so that what a newer one says comes last.
    fn rings(&self) -> impl Iterator<Item = &Arc<Ring>> + '_ {
        self.older.iter().map(|older| older.topology.ring()).chain([self.topology.ring()])
    }
}

/// So many of these must have been compared with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pass {
    /// Owners of the partition in one version.
    pub of: Vec<NodeId>,
    /// How many of them.
    pub needed: usize,
}

#[cfg(test)]
mod tests {
    use driftless_proto::BucketDefinition;
    use driftless_ring::{Partitions, RingSpec};

    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::of_name(name)
    }

    /// The store that a node began with.
    fn store(name: &str) -> StoreId {
        StoreId(u128::from(id(name).0))
    }

    /// Versions 2 and on, each with these members; the lost ones are those of the newest.
    fn records(versions: &[&[&str]], lost: &[&str]) -> Vec<Arc<Record>> {
        let spec = |names: &[&str]| RingSpec {
            partitions: Partitions::new(4).unwrap(),
            hash_seed: 0,
            members: names.iter().map(|name| Member::new(*name, "h:1")).collect(),
            classes: [3].into(),
        };
        let mut ring = Ring::first(spec(versions[0])).unwrap();
        let mut records: Vec<Arc<Record>> = Vec::new();
        for (number, names) in versions.iter().enumerate() {
            ring = ring.next(spec(names)).unwrap();
            let topology = Topology::new("test", ring.clone(), vec![BucketDefinition::built_in(3)]).unwrap();
            let stores = names.iter().map(|name| (id(name), store(name))).collect();
            let is_newest = number + 1 == versions.len();
            let lost = lost.iter().filter(|_| is_newest).map(|name| (id(name), store(name))).collect();
            let parent = records.last().map_or(0, |record| record.digest());
            let (voters, by, reason) = (vec![id(names[0])], String::new(), String::new());
            let record = Record::new(7, parent, topology, stores, voters, lost, vec![], by, reason).unwrap();
            records.push(Arc::new(record));
        }
        records
    }

    /// (ready, closed, left) by name.
    fn marks(of: &[(&str, u64, u64, u64)]) -> BTreeMap<NodeId, Marks> {
        let marks = |(name, ready, closed, left): &(&str, u64, u64, u64)| {
            let ready = (2..=*ready).map(Ready::of).fold(Ready::default(), Ready::and);
            (id(name), Marks { store: Some(store(name)), ready, closed: *closed, left: *left })
        };
        of.iter().map(marks).collect()
    }

    fn seen(records: &[Arc<Record>], marks: &BTreeMap<NodeId, Marks>) -> Configurations {
        Configurations::of_records(id("a"), store("a"), records, None, marks)
    }

    fn active(configurations: &Configurations) -> Vec<u64> {
        let partition = configurations.topology().ring().all_partitions().next().unwrap();
        configurations.active(partition).map(|(version, _)| version).collect()
    }

    const ABC: &[&str] = &["a", "b", "c"];
    const ABD: &[&str] = &["a", "b", "d"];

    /// Its disk was lost and healed long ago, and it has been named with another one: what that holds may be nowhere else.
    #[test]
    fn who_has_lost_a_store_once_hands_over_what_the_next_one_holds_when_it_leaves() {
        let mut records = records(&[ABC, ABD], &[]);
        let mut newest = Record::clone(&records[1]);
        newest.lost.push((id("c"), StoreId(99)));
        records[1] = Arc::new(newest);
        let none = BTreeMap::new();
        let joins = Configurations::of_records(id("d"), store("d"), &records, None, &none);
        let partition = joins.topology().ring().all_partitions().next().expect("has some");
        let passes = joins.passes(id("d"), partition);
        assert!(passes.iter().any(|pass| pass.of.contains(&id("c"))), "{passes:?}");
        assert!(joins.member(id("c")).is_some() && joins.members().iter().any(|member| member.name == "c"));
        let all_but_c = marks(&[("a", 3, 3, 3), ("b", 3, 3, 3), ("c", 2, 2, 2), ("d", 3, 3, 3)]);
        assert!(!seen(&records, &all_but_c).is_settled(), "c has not handed over what it holds");
        // The store that it has now is declared lost as well.
        let mut newest = Record::clone(&records[1]);
        newest.lost.push((id("c"), store("c")));
        records[1] = Arc::new(newest);
        assert!(seen(&records, &all_but_c).is_settled());
    }

    #[test]
    fn a_version_goes_from_joint_to_closing_to_leaving_to_settled() {
        let records = records(&[ABC, ABD], &[]);
        let phase = |of: &[(&str, u64, u64, u64)]| {
            let seen = seen(&records, &marks(of));
            (seen.read_version(), seen.closes(), active(&seen), seen.is_settled())
        };
        let joint = phase(&[("a", 3, 2, 2), ("b", 3, 2, 2), ("c", 2, 2, 2), ("d", 0, 0, 0)]);
        assert_eq!(joint, (2, 2, vec![3, 2], false));
        let closing = phase(&[("a", 3, 2, 2), ("b", 3, 3, 2), ("c", 2, 2, 2), ("d", 3, 0, 0)]);
        assert_eq!(closing, (3, 3, vec![3, 2], false));
        let leaving = phase(&[("a", 3, 3, 3), ("b", 3, 3, 3), ("c", 2, 3, 2), ("d", 3, 3, 3)]);
        assert_eq!(leaving, (3, 3, vec![3], false));
        let settled = phase(&[("a", 3, 3, 3), ("b", 3, 3, 3), ("c", 3, 3, 3), ("d", 3, 3, 3)]);
        assert_eq!(settled, (3, 3, vec![3], true));
    }

    #[test]
    fn a_process_has_its_shards_also_while_it_is_no_member() {
        let records = records(&[ABC], &[]);
        let of = |node: &str| {
            let configurations = seen(&records, &BTreeMap::new()).of_process(id("d"), 3);
            let all: Vec<PartitionId> = configurations.topology().ring().all_partitions().collect();
            all.into_iter().map(|partition| configurations.shard_of(id(node), partition)).collect::<Vec<_>>()
        };
        assert_eq!((of("d"), of("a"), of("e")), (vec![0, 1, 2, 0], vec![0; 4], vec![0; 4]));
    }

    #[test]
    fn a_process_with_other_shards_than_were_agreed_on_is_told() {
        let records = records(&[ABC], &[]);
        let told = |node: &str, shards| {
            let configurations = seen(&records, &BTreeMap::new()).of_process(id(node), shards);
            configurations
                .other_shards()
                .is_some_and(|why| why.starts_with("this process has 3 shards, and the members have agreed on 1"))
        };
        assert!(told("a", 3) && !told("a", 1));
        assert!(!told("d", 3), "it is no member");
    }

    #[test]
    fn what_is_retired_does_not_come_back_when_another_version_is_decided() {
        let records = records(&[ABC, ABD, &["a", "b", "e"]], &[]);
        let marks = marks(&[("a", 3, 3, 3), ("b", 3, 3, 3), ("c", 2, 3, 2), ("d", 3, 3, 3)]);
        let seen = seen(&records, &marks);
        assert_eq!((seen.read_version(), seen.closes(), active(&seen)), (3, 3, vec![4, 3]));
        assert_eq!(seen.unfinished().collect::<Vec<_>>(), [2, 3]);
    }

    /// Version 4 takes back what version 3 has changed: nobody has anything to take in for it, and nobody has for version 3.
    #[test]
    fn who_is_ready_for_a_later_version_is_not_for_the_one_before() {
        let records = records(&[ABC, ABD, ABC], &[]);
        let all_in = |ready: [Ready; 4]| {
            let of = ["a", "b", "c", "d"]
                .iter()
                .zip(ready)
                .map(|(name, ready)| (id(name), Marks { store: Some(store(name)), ready, closed: 2, left: 2 }));
            let seen = seen(&records, &of.collect());
            (seen.read_version(), seen.closes())
        };
        let (two, later) = (Ready::of(2), Ready::of(2).and(Ready::of(4)));
        assert_eq!(all_in([later, later, two, later]), (2, 2), "d has taken in nothing as a member of version 3");
        let both = later.and(Ready::of(3));
        assert_eq!(all_in([both, both, two, both]), (3, 3));
        assert_eq!(all_in([both, later, later, both]), (4, 4));
    }

    /// Version 3 was ready, and version 2 is retired by it. Then c has lost its disk, and version 4 is decided; whether the new store is named
    /// by version 5 or not, version 2 must not be written to or read from again.
    #[test]
    fn a_version_that_was_ready_is_not_unready_because_a_store_was_replaced() {
        let mut records = records(&[ABC, &["a", "b", "c", "d"], ABC], &[]);
        let later =
            |name: &str| (id(name), Marks { store: Some(store(name)), ready: Ready::of(3), closed: 3, left: 3 });
        let mut marks: BTreeMap<NodeId, Marks> = ["a", "b", "c", "d"].into_iter().map(later).collect();
        let before = seen(&records, &marks);
        assert_eq!((before.read_version(), before.closes(), active(&before)), (3, 3, vec![4, 3]));
        let new = Marks { store: Some(StoreId(99)), ready: Ready::of(4), closed: 3, left: 0 };
        marks.insert(id("c"), new);
        let unnamed = seen(&records, &marks);
        assert_eq!((unnamed.read_version(), unnamed.closes(), active(&unnamed)), (3, 3, vec![4, 3]));
        let last = records.last().unwrap().clone();
        let ring = last.topology.ring();
        let topology = last.topology.with_ring(ring.again(ring).unwrap()).unwrap();
        let stores = ABC.iter().map(|name| (id(name), if *name == "c" { StoreId(99) } else { store(name) })).collect();
        let (voters, lost) = (vec![id("a")], vec![(id("c"), store("c"))]);
        let named = Record::new(7, last.digest(), topology, stores, voters, lost, vec![], String::new(), String::new());
        records.push(Arc::new(named.unwrap()));
        let named = seen(&records, &marks);
        assert_eq!((named.read_version(), named.closes(), active(&named)), (3, 3, vec![5, 4, 3]));
    }

    /// Reads count in version 2 while 3 is joint: what c owns in that alone it may be asked for, unless it leaves.
    #[test]
    fn another_store_takes_in_also_what_it_owns_in_the_version_that_is_read() {
        let marks = marks(&[("a", 2, 2, 2), ("b", 2, 2, 2), ("c", 2, 2, 2)]);
        let stays = records(&[ABC, &["a", "b", "c", "d", "e"]], &[]);
        let of =
            |records: &[Arc<Record>], store: StoreId| Configurations::of_records(id("c"), store, records, None, &marks);
        let (ring, lost) = (stays[1].topology.ring(), of(&stays, StoreId(99)));
        let given_up = ring.all_partitions().find(|partition| !ring.owners(*partition).contains(&id("c")));
        let partition = given_up.expect("five members share what three had");
        assert_eq!(of(&stays, store("c")).passes(id("c"), partition), []);
        let passes = lost.passes(id("c"), partition);
        let from: BTreeSet<NodeId> = passes[0].of.iter().copied().collect();
        assert_eq!((passes.len(), passes[0].needed, from), (1, 2, [id("a"), id("b")].into()));
        assert_eq!(of(&records(&[ABC, ABD], &[]), StoreId(99)).passes(id("c"), partition), [], "it leaves");
    }

    /// A partition of the older version has the number of another one, or none in the newer.
    #[test]
    fn an_older_version_is_seen_in_the_arcs_of_the_newest() {
        let mut records = records(&[ABC, &["a", "b", "c", "d", "e"]], &[]);
        let before = records[1].clone();
        let (old, doubled) = (before.topology.ring(), before.topology.ring().doubled().unwrap());
        let topology = before.topology.with_ring(doubled.clone()).unwrap();
        let (stores, voters) = (before.stores.clone(), before.voters.clone());
        let (none, by) = (Vec::new(), String::new());
        let next = Record::new(7, before.digest(), topology, stores, voters, none, vec![], by.clone(), by).unwrap();
        records.push(Arc::new(next));
        let seen =
            seen(&records, &marks(&[("a", 3, 3, 3), ("b", 3, 3, 3), ("c", 3, 3, 3), ("d", 3, 3, 3), ("e", 3, 3, 3)]));
        assert_eq!((active(&seen), seen.read_version()), (vec![4, 3], 3));
        for partition in doubled.all_partitions() {
            let was = doubled.partitions().cut_from(old.partitions(), partition);
            let owners: Vec<_> = seen.active(partition).collect();
            assert_eq!(owners, [(4, doubled.owners(partition)), (3, old.owners(was))]);
            assert_eq!(seen.read_owners(partition), old.owners(was));
            assert_eq!(seen.passes(id("a"), partition), [], "nothing is to be taken in");
        }
        assert_eq!(
            seen.kept(id("a")),
            doubled.all_partitions().collect(),
            "it had all in version 2, which is not done with"
        );
    }

    /// c was declared lost by force, and is still named as a member.
    #[test]
    fn a_member_that_was_declared_lost_by_force_is_not_ready_and_nothing_is_taken_from_it() {
        let mut records = records(&[ABC], &[]);
        let before = records[0].clone();
        let topology = before.topology.with_ring(before.topology.ring().forced().unwrap()).unwrap();
        let (stores, lost) = (before.stores.clone(), vec![(id("c"), store("c"))]);
        let (voters, by) = (vec![id("a")], String::new());
        let forced = Record::new(7, before.digest(), topology, stores, voters, lost, vec![], by.clone(), by);
        records.push(Arc::new(forced.unwrap().forced(2).unwrap()));
        let marks = marks(&[("a", 1_000, 2, 2), ("b", 1_000, 2, 2), ("c", 1_000, 2, 2)]);
        let of = |node: &str, own: StoreId| Configurations::of_records(id(node), own, &records, None, &marks);
        let seen = of("a", store("a"));
        assert_eq!((seen.read_version(), active(&seen), seen.is_settled()), (2, vec![1_000, 2], false));
        assert_eq!(seen.members().len(), 3, "it may come back with another store, and is called until then");
        let partition = seen.topology().ring().all_partitions().next().unwrap();
        let passes = of("b", StoreId(99)).passes(id("b"), partition);
        assert!(passes.iter().all(|pass| (&pass.of[..], pass.needed) == (&[id("a")][..], 1)), "{passes:?}");
    }

    #[test]
    fn a_version_whose_members_were_lost_before_they_were_ready_retires_nothing() {
        let records = records(&[ABC, ABD, ABC], &["d"]);
        let marks = marks(&[("a", 3, 2, 3), ("b", 3, 2, 3), ("c", 3, 2, 3)]);
        let seen = seen(&records, &marks);
        assert_eq!((seen.read_version(), active(&seen)), (2, vec![4, 3, 2]));
    }

    #[test]
    fn a_store_that_is_not_named_is_neither_ready_nor_gone() {
        let records = records(&[ABC, ABD], &[]);
        let all = [("a", 3, 3, 3), ("b", 3, 3, 3), ("c", 3, 3, 3), ("d", 3, 3, 3)];
        for name in ["c", "d"] {
            let mut marks = marks(&all);
            marks.get_mut(&id(name)).unwrap().store = Some(StoreId(1));
            assert!(!seen(&records, &marks).is_settled(), "{name}");
        }
        let other = Configurations::of_records(id("c"), StoreId(1), &records, None, &marks(&all));
        assert!(other.is_settled() && !other.is_whole(), "a member of the version before that has lost its disk");
    }
}
