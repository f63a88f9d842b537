//! The ring: an immutable, versioned table from partitions to their owners.
//!
//! Each version is made from the one before it and names it by digest, so two rings with equal digests
//! are the same ring with the same history:
//!
//! ```text
//! Ring::first(spec) ──▶ version 1 ──next(spec)──▶ version 2 ──next(spec)──▶ version 3
//!                       parent 0      ◀── digest ── parent      ◀── digest ── parent
//! ```
//!
//! A ring that arrives from outside is checked in full before it becomes a [`Ring`], so no lookup can
//! panic on one. What is *not* checked is whether its table is a good one: that is for those who decided
//! on it, and every member must accept what was decided.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::placement::{self, Slot};
use crate::{ArcIndex, Member, NodeId, PartitionId, Partitions, PreferenceList, Token};

/// One version of the table that says who owns which partition. It never changes.
///
/// Share it (`std::sync::Arc<Ring>`) instead of cloning: at Q = 1024 and three replicas the table has
/// 24 KiB.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RingRecord", into = "RingRecord")]
pub struct Ring {
    version: RingVersion,
    parent_digest: u128,
    partitions: Partitions,
    hash_seed: u64,
    /// Sorted by id.
    members: Vec<Member>,
    /// Sorted by n.
    tables: Vec<Table>,
    /// Over everything above.
    digest: u128,
}

/// What an operator decides; the ring follows from it and from the ring before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RingSpec {
    /// The number of arcs. May grow from version to version (by doubling), never shrink.
    pub partitions: Partitions,
    /// The seed of [`Token::of`]. Chosen once for a cluster: another one would move every key.
    pub hash_seed: u64,
    /// Who takes part, in any order.
    pub members: Vec<Member>,
    /// The replication factors in use; each has its own table.
    pub classes: BTreeSet<u8>,
}

impl Ring {
    /// The first ring of a cluster: version 1, without a parent.
    pub fn first(spec: RingSpec) -> Result<Ring, RingError> {
        let RingSpec { partitions, hash_seed, members, classes } = spec;
        let members = checked_members(members)?;
        check_classes(&classes, &members)?;
        let tables = classes
            .into_iter()
            .map(|n| Table::place(n, partitions, &members, vec![None; slots(n, partitions)]))
            .collect();
        Ok(Ring::sealed(RingVersion(1), 0, partitions, hash_seed, members, tables))
    }

    /// The next version, with as few slots as possible changing hands. A class that is new gets a fresh
    /// table, one that is no longer in the spec is dropped.
    pub fn next(&self, spec: RingSpec) -> Result<Ring, RingError> {
        let RingSpec { partitions, hash_seed, members, classes } = spec;
        if hash_seed != self.hash_seed {
            return Err(RingError::SeedChanged { old: self.hash_seed, new: hash_seed });
        }
        let (old, new) = (self.partitions.get(), partitions.get());
        let partitions = self.partitions.doubled_to(new).ok_or(RingError::PartitionsShrank { old, new })?;
        let members = checked_members(members)?;
        check_classes(&classes, &members)?;
        let tables = classes
            .into_iter()
            .map(|n| {
                let previous = match self.table(n) {
                    Some(table) => table.carried_over(self.partitions, partitions, &members),
                    None => vec![None; slots(n, partitions)],
                };
                Table::place(n, partitions, &members, previous)
            })
            .collect();
        Ok(Ring::sealed(self.version.next()?, self.digest, partitions, hash_seed, members, tables))
    }

    /// The next version with twice as many arcs, each half owned as the whole was. No data moves.
    ///
    /// Members that held one partition more than others hold two more now; the next [`Ring::next`] makes
    /// that good again, by moving these.
    pub fn doubled(&self) -> Result<Ring, RingError> {
        let old = self.partitions;
        let new = old.doubled().ok_or(RingError::BadPartitions { q: old.get().saturating_mul(2) })?;
        let (members, tables) = (self.members.clone(), self.tables_cut_into(new));
        Ok(Ring::sealed(self.version.next()?, self.digest, new, self.hash_seed, members, tables))
    }

    /// This version in the smaller arcs of a later one, so that owners of either are found by the same partition: the same number, the same
    /// digest, and the same owners of every key. The same ring if there are no more arcs.
    #[must_use]
    pub fn cut_into(&self, later: Partitions) -> Ring {
        if later.get() <= self.partitions.get() {
            return self.clone();
        }
        Ring { partitions: later, tables: self.tables_cut_into(later), members: self.members.clone(), ..*self }
    }

    fn tables_cut_into(&self, later: Partitions) -> Vec<Table> {
        let pieces = (later.get() / self.partitions.get()) as usize;
        let cut = |table: &Table| {
            let rows = table.owners.chunks(usize::from(table.n));
            Table { n: table.n, owners: rows.flat_map(|row| row.repeat(pieces)).collect() }
        };
        self.tables.iter().map(cut).collect()
    }

    /// The next version, in which `new` has exactly the slots of the member `old`, which is none any more. No other slot changes hands.
    ///
    /// # Errors
    /// [`RingError`] if there is no such member, or if the new one cannot be a member beside the others.
    pub fn replaced(&self, old: NodeId, new: Member) -> Result<Ring, RingError> {
        if self.member(old).is_none() {
            return Err(RingError::NoSuchMember { id: old });
        }
        let taker = new.id;
        let members = self.members.iter().filter(|member| member.id != old).cloned().chain([new]).collect();
        let members = checked_members(members)?;
        let exchanged = |owner: &NodeId| if *owner == old { taker } else { *owner };
        let tables = self
            .tables
            .iter()
            .map(|table| Table { n: table.n, owners: table.owners.iter().map(exchanged).collect() })
            .collect();
        Ok(Ring::sealed(self.version.next()?, self.digest, self.partitions, self.hash_seed, members, tables))
    }

    /// The next version, with the members and the tables of an earlier one of the same cluster, or of this one.
    ///
    /// # Errors
    /// [`RingError`] if the earlier one has more arcs or another hash seed. If it has fewer, they are cut: what was doubled stays so.
    pub fn again(&self, earlier: &Ring) -> Result<Ring, RingError> {
        if earlier.hash_seed != self.hash_seed {
            return Err(RingError::SeedChanged { old: self.hash_seed, new: earlier.hash_seed });
        }
        let (old, new) = (earlier.partitions.get(), self.partitions.get());
        if earlier.partitions.doubled_to(new) != Some(self.partitions) {
            return Err(RingError::PartitionsShrank { old, new });
        }
        let (members, tables) = (earlier.members.clone(), earlier.tables_cut_into(self.partitions));
        Ok(Ring::sealed(self.version.next()?, self.digest, self.partitions, self.hash_seed, members, tables))
    }

    /// The same members and tables, as a version that follows on this one by force: its number leaves a gap
    /// ([`RingVersion::forced`]).
    ///
    /// # Errors
    /// [`RingError::VersionsExhausted`] if there is no such number.
    pub fn forced(&self) -> Result<Ring, RingError> {
        let version = self.version.forced().ok_or(RingError::VersionsExhausted)?;
        let (members, tables) = (self.members.clone(), self.tables.clone());
        Ok(Ring::sealed(version, self.digest, self.partitions, self.hash_seed, members, tables))
    }

    /// The number of this version, from 1.
    pub fn version(&self) -> RingVersion {
        self.version
    }

    /// A hash over everything in this ring and, through the parent's digest, over its whole history.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The digest of the version before this one; 0 for the first.
    pub fn parent_digest(&self) -> u128 {
        self.parent_digest
    }

    /// The number of arcs.
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// The seed of the cluster's tokens.
    pub fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// The members, sorted by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        let index = self.members.binary_search_by_key(&id, |member| member.id).ok()?;
        self.members.get(index)
    }

    /// The member with this name.
    pub fn member_by_name(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The replication factors that have a table, in order.
    pub fn classes(&self) -> impl Iterator<Item = u8> + '_ {
        self.tables.iter().map(|table| table.n)
    }

    /// What this ring was made of; change it and give it to [`Ring::next`].
    pub fn spec(&self) -> RingSpec {
        RingSpec {
            partitions: self.partitions,
            hash_seed: self.hash_seed,
            members: self.members.clone(),
            classes: self.classes().collect(),
        }
    }

    /// The token of a key in a bucket.
    pub fn token(&self, bucket: u32, key: &[u8]) -> Token {
        Token::of(self.hash_seed, bucket, key)
    }

    /// The partition of a token in class `n` (whether or not that class has a table).
    pub fn partition(&self, n: u8, token: Token) -> PartitionId {
        PartitionId { n, arc: self.partitions.arc_of(token) }
    }

    /// All partitions of all classes, in order.
    pub fn all_partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.classes().flat_map(|n| self.partitions.arcs().map(move |arc| PartitionId { n, arc }))
    }

    /// The primaries of a partition in the order of the list, first choice as coordinator first. Empty
    /// for a class or an arc that this ring does not have. Costs an array lookup.
    pub fn owners(&self, partition: PartitionId) -> &[NodeId] {
        self.table(partition.n).map_or(&[], |table| table.row(partition.arc))
    }

    /// Whether the node is a primary of the partition.
    pub fn owns(&self, node: NodeId, partition: PartitionId) -> bool {
        self.owners(partition).contains(&node)
    }

    /// The partitions of which the node is a primary, in order. Looks through the whole table.
    pub fn owned(&self, node: NodeId) -> impl Iterator<Item = PartitionId> + '_ {
        self.all_partitions().filter(move |&partition| self.owns(node, partition))
    }

    /// The primaries of a partition, and who stands in for them.
    pub fn preference(&self, partition: PartitionId) -> PreferenceList<'_> {
        PreferenceList::new(self, partition)
    }

    /// The most replicas of a partition of class `n` that placement puts into one zone: an even spread,
    /// `ceil(n / min(n, zones))`, or more if zones are too unequal in size for that.
    pub fn zone_cap(&self, n: u8) -> u32 {
        placement::zone_cap(n, &self.members)
    }

    fn table(&self, n: u8) -> Option<&Table> {
        self.tables.iter().find(|table| table.n == n)
    }

    fn sealed(
        version: RingVersion,
        parent_digest: u128,
        partitions: Partitions,
        hash_seed: u64,
        members: Vec<Member>,
        tables: Vec<Table>,
    ) -> Ring {
        let mut ring = Ring { version, parent_digest, partitions, hash_seed, members, tables, digest: 0 };
        ring.digest = digest(&ring);
        ring
    }
}

/// The number of a ring version. There is only ever one decided ring with a given number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RingVersion(pub u64);

impl RingVersion {
    /// The number of a version that follows on this one by force: the first multiple of 1000 that is at least
    /// 500 above. Whatever those who are not asked may decide meanwhile has a smaller number, and who
    /// reads the number sees that it was forced. `None` if there is none.
    ///
    /// ```
    /// use driftless_ring::RingVersion;
    /// let forced = |version| RingVersion(version).forced().map(|forced| forced.0);
    /// assert_eq!([7, 500, 501, 1000].map(forced), [1000, 1000, 2000, 2000].map(Some));
    /// assert_eq!(forced(u64::MAX), None);
    /// ```
    pub fn forced(self) -> Option<RingVersion> {
        self.0.checked_add(GAP)?.checked_next_multiple_of(FORCED_STEP).map(RingVersion)
    }

    fn next(self) -> Result<RingVersion, RingError> {
        self.0.checked_add(1).map(RingVersion).ok_or(RingError::VersionsExhausted)
    }
}

impl fmt::Display for RingVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there is no such ring. Nothing has happened.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum RingError {
    /// A ring without members.
    #[error("the ring has no members: name at least one")]
    NoMembers,
    /// More members than [`MEMBERS_MAX`].
    #[error("{count} members are more than a ring can hold: use at most {MEMBERS_MAX}, with greater weights")]
    TooManyMembers {
        /// How many there are.
        count: usize,
    },
    /// A member without a name.
    #[error("the member at {address:?} has no name: give it one")]
    EmptyName {
        /// The address of that member.
        address: String,
    },
    /// Two members with one name.
    #[error("two members are called {name:?}: give each its own name")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Two members with one id.
    #[error("members {first:?} and {second:?} have the same id {id}: rename one of them")]
    DuplicateId {
        /// The id.
        id: NodeId,
        /// The name of the one.
        first: String,
        /// The name of the other.
        second: String,
    },
    /// A member without an address.
    #[error("member {name:?} has no address: set it to the host:port where its peers reach it")]
    EmptyAddress {
        /// The name of the member.
        name: String,
    },
    /// Nobody of this id is a member.
    #[error("there is no member with the id {id}: name one of the ring's")]
    NoSuchMember {
        /// The id.
        id: NodeId,
    },
    /// A weight of zero.
    #[error("member {name:?} has weight 0: set it to 1 or more, or leave the member out to remove it")]
    ZeroWeight {
        /// The name of the member.
        name: String,
    },
    /// A member without shards.
    #[error("member {name:?} has 0 shards: set it to 1 or more")]
    NoShards {
        /// The name of the member.
        name: String,
    },
    /// No replication factor at all.
    #[error("the ring has no replication factor in use: name at least one")]
    NoClasses,
    /// A replication factor of zero.
    #[error("replication factor 0 keeps nothing: use 1 or more")]
    ZeroReplicas,
    /// A replication factor greater than the number of members.
    #[error("{n} replicas need {n} members, and there are {members}: add members or use a smaller n")]
    NotEnoughMembers {
        /// The replication factor.
        n: u8,
        /// The number of members.
        members: usize,
    },
    /// A number of partitions that is not a power of two, or too great.
    #[error("{q} partitions are not possible: use a power of two from 1 to {}", Partitions::MAX)]
    BadPartitions {
        /// The number asked for.
        q: u32,
    },
    /// Fewer partitions than in the ring before.
    #[error("partitions can be doubled but not reduced: keep at least {old} (asked for {new})")]
    PartitionsShrank {
        /// The number in the ring before.
        old: u32,
        /// The number asked for.
        new: u32,
    },
    /// Another hash seed than in the ring before.
    #[error("the hash seed of a cluster never changes: keep {old} (asked for {new})")]
    SeedChanged {
        /// The seed of the ring before.
        old: u64,
        /// The seed asked for.
        new: u64,
    },
    /// There is no number left for the next version.
    #[error("there is no ring version after {}: this ring cannot be genuine", u64::MAX)]
    VersionsExhausted,
    /// A stored or received ring in a format that this program does not know.
    #[error("ring record format {found} is unknown (this program reads {FORMAT}): upgrade this program")]
    UnknownFormat {
        /// The format of the record.
        found: u8,
    },
    /// A stored or received ring that contradicts itself.
    #[error("the ring record is damaged: {what}; fetch the ring from another member")]
    Damaged {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The table of one class.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Table {
    n: u8,
    /// Row after row, n owners each.
    owners: Vec<NodeId>,
}

impl Table {
    fn place(n: u8, partitions: Partitions, members: &[Member], previous: Vec<Slot>) -> Table {
        let owners = placement::place(n, partitions.get(), members, previous);
        Table { n, owners: owners.into_iter().map(|index| members[usize::from(index)].id).collect() }
    }

    fn row(&self, arc: ArcIndex) -> &[NodeId] {
        self.owners.chunks_exact(usize::from(self.n)).nth(arc.0 as usize).unwrap_or(&[])
    }

    /// The table as the start of the next one: rows split if there are more arcs now, owners as indexes
    /// into the new members.
    fn carried_over(&self, old: Partitions, new: Partitions, members: &[Member]) -> Vec<Slot> {
        let slot = |id: &NodeId| members.binary_search_by_key(id, |member| member.id).ok().map(|index| index as u16);
        new.arcs().flat_map(|arc| self.row(old.arc_of(new.range(arc).first)).iter().map(slot)).collect()
    }
}

/// The form in which a ring is stored and sent. Owners are indexes into the members: one or two bytes
/// instead of ten. The digest is not in it; who reads it computes it.
#[derive(Serialize, Deserialize)]
struct RingRecord {
    format: u8,
    version: RingVersion,
    parent_digest: u128,
    partitions: Partitions,
    hash_seed: u64,
    members: Vec<Member>,
    tables: Vec<(u8, Vec<u16>)>,
}

impl From<Ring> for RingRecord {
    fn from(ring: Ring) -> RingRecord {
        let index = |id: &NodeId| {
            let index = ring.members.binary_search_by_key(id, |member| member.id);
            index.expect("a ring's owners are its members: placement and validation see to it") as u16
        };
        let tables = ring.tables.iter().map(|table| (table.n, table.owners.iter().map(index).collect())).collect();
        RingRecord {
            format: FORMAT,
            version: ring.version,
            parent_digest: ring.parent_digest,
            partitions: ring.partitions,
            hash_seed: ring.hash_seed,
            members: ring.members,
            tables,
        }
    }
}

impl TryFrom<RingRecord> for Ring {
    type Error = RingError;

    fn try_from(record: RingRecord) -> Result<Ring, RingError> {
        let damaged = |what| RingError::Damaged { what };
        if record.format != FORMAT {
            return Err(RingError::UnknownFormat { found: record.format });
        }
        if record.version.0 == 0 {
            return Err(damaged("versions start at 1"));
        }
        if !record.members.is_sorted_by(|a, b| a.id < b.id) {
            return Err(damaged("its members are not sorted by id"));
        }
        if !record.tables.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(damaged("its tables are not sorted by replication factor"));
        }
        let members = checked_members(record.members)?;
        check_classes(&record.tables.iter().map(|(n, _)| *n).collect(), &members)?;
        let mut tables = Vec::with_capacity(record.tables.len());
        for (n, indexes) in record.tables {
            if indexes.len() != slots(n, record.partitions) {
                return Err(damaged("a table has not Q rows of n owners"));
            }
            let owner = |&index: &u16| members.get(usize::from(index)).map(|member| member.id);
            let owners: Option<Vec<NodeId>> = indexes.iter().map(owner).collect();
            let owners = owners.ok_or(damaged("a partition is owned by somebody who is not a member"))?;
            let mut sorted = vec![];
            for row in owners.chunks(usize::from(n)) {
                sorted.clear();
                sorted.extend_from_slice(row);
                sorted.sort_unstable();
                if !sorted.is_sorted_by(|a, b| a < b) {
                    return Err(damaged("a member holds two replicas of one partition"));
                }
            }
            tables.push(Table { n, owners });
        }
        let RingRecord { version, parent_digest, partitions, hash_seed, .. } = record;
        Ok(Ring::sealed(version, parent_digest, partitions, hash_seed, members, tables))
    }
}

/// How many slots a table has.
fn slots(n: u8, partitions: Partitions) -> usize {
    usize::from(n) * partitions.get() as usize
}

/// The members sorted by id, if they can be members of one ring.
fn checked_members(mut members: Vec<Member>) -> Result<Vec<Member>, RingError> {
    if members.is_empty() {
        return Err(RingError::NoMembers);
    }
    if members.len() > MEMBERS_MAX {
        return Err(RingError::TooManyMembers { count: members.len() });
    }
    members.sort_by(|a, b| (a.id, &a.name).cmp(&(b.id, &b.name)));
    let mut names = BTreeSet::new();
    for Member { name, address, weight, shards, .. } in &members {
        if name.is_empty() {
            return Err(RingError::EmptyName { address: address.clone() });
        }
        if !names.insert(name) {
            return Err(RingError::DuplicateName { name: name.clone() });
        }
        if address.is_empty() {
            return Err(RingError::EmptyAddress { name: name.clone() });
        }
        if *weight == 0 {
            return Err(RingError::ZeroWeight { name: name.clone() });
        }
        if *shards == 0 {
            return Err(RingError::NoShards { name: name.clone() });
        }
    }
    match members.windows(2).find(|pair| pair[0].id == pair[1].id) {
        Some([a, b, ..]) => Err(RingError::DuplicateId { id: a.id, first: a.name.clone(), second: b.name.clone() }),
        _ => Ok(members),
    }
}

fn check_classes(classes: &BTreeSet<u8>, members: &[Member]) -> Result<(), RingError> {
    if classes.is_empty() {
        return Err(RingError::NoClasses);
    }
    for &n in classes {
        if n == 0 {
            return Err(RingError::ZeroReplicas);
        }
        if usize::from(n) > members.len() {
            return Err(RingError::NotEnoughMembers { n, members: members.len() });
        }
    }
    Ok(())
}

/// xxh3_128 over a form of its own, so that the digest does not depend on how rings are encoded: numbers
/// big endian in full width, texts and lists with their length (8 bytes) in front, fields in the order of
/// [`Ring`] with tables as (n, owners).
fn digest(ring: &Ring) -> u128 {
    let mut hasher = Xxh3::new();
    let length = |hasher: &mut Xxh3, length: usize| hasher.update(&(length as u64).to_be_bytes());
    hasher.update(b"driftless ring 1");
    hasher.update(&ring.version.0.to_be_bytes());
    hasher.update(&ring.parent_digest.to_be_bytes());
    hasher.update(&u32::from(ring.partitions).to_be_bytes());
    hasher.update(&ring.hash_seed.to_be_bytes());
    length(&mut hasher, ring.members.len());
    for Member { id, name, address, zone, weight, shards } in &ring.members {
        hasher.update(&id.0.to_be_bytes());
        for text in [name, address, zone] {
            length(&mut hasher, text.len());
            hasher.update(text.as_bytes());
        }
        hasher.update(&weight.to_be_bytes());
        hasher.update(&shards.to_be_bytes());
    }
    length(&mut hasher, ring.tables.len());
    for Table { n, owners } in &ring.tables {
        hasher.update(&[*n]);
        length(&mut hasher, owners.len());
        for owner in owners {
            hasher.update(&owner.0.to_be_bytes());
        }
    }
    hasher.digest128()
}

/// The most members of a ring. Everyone keeps a connection to everyone, so a cluster becomes hard to run
/// long before; and placement, which is quadratic in the members, stays within seconds.
pub const MEMBERS_MAX: usize = 1024;

/// The numbers of forced versions are multiples of this: a person sees it at once.
const FORCED_STEP: u64 = 1000;

/// At least so far below a forced version is the one that it follows on: more changes of members than anybody decides on while most
/// voters are thought to be gone, and few enough that the next forced one is nearly always the next multiple.
const GAP: u64 = 500;

/// The format of [`RingRecord`].
const FORMAT: u8 = 1;

#[cfg(test)]
mod tests;
