//! One version of what a cluster agrees on: decided once, by a majority of the voters that the version before names, and never changed.
//!
//! ```text
//! cluster.toml ──founds──▶ version 1 ──▶ version 2: the same tables, and whose stores they are ──▶ version 3 ──▶ …
//!                                          ◀── parent ──                               ◀── parent ──
//! ```

use std::fmt;

use driftless_ring::{NodeId, RingVersion};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::access::AgreedAccess;
use crate::key::BucketId;
use crate::topology::Topology;

/// Names one data directory for as long as it lives. A member is a store, not a name: an empty disk under an old name has
/// forgotten what it promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StoreId(pub u128);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One version of what all nodes agree on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawRecord")]
pub struct Record {
    format: u8,
    /// Drawn when the cluster was founded.
    pub cluster_id: u128,
    /// Digest of the record before; 0 if it was founded by a file.
    pub parent: u128,
    /// The version that it follows on by force, decided by no majority: then its number is [`RingVersion::forced`] of that one.
    pub forced_on: Option<u64>,
    /// What clients get of it: ring and buckets. Its ring's version is the record's.
    pub topology: Topology,
    /// The store of each member, by member.
    pub stores: Vec<(NodeId, StoreId)>,
    /// Who decides on the next version, in order; at most [`VOTERS_MAX`].
    pub voters: Vec<NodeId>,
    /// Stores that were declared lost: they are refused for ever. One that is still named as a member's was by force, or is none but a number
    /// that was drawn for a member who never came when the cluster was founded: that member is yet to be replaced, to leave, or to come
    /// with another store.
    pub lost: Vec<(NodeId, StoreId)>,
    /// Buckets that were dropped: their numbers are never used again.
    pub dropped: Vec<BucketId>,
    /// The node at which this was committed; of a forced one its voters, as it is the same at whichever node it was forced.
    pub by: String,
    /// What was changed, in words.
    pub reason: String,
    /// Who may do what. Nothing is written where it is empty: such a record has the bytes, and the digest, that releases give it which do
    /// not know of this.
    #[serde(skip_serializing_if = "AgreedAccess::is_empty")]
    access: AgreedAccess,
}

/// Why a record does not hold together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a release that knows more.
    #[error("format {0} of records is not known to this release: update it")]
    Format(u8),
    /// Members and stores do not go together.
    #[error("it does not name one store for each member")]
    Stores,
    /// No voters, too many, or some that are no members or were declared lost.
    #[error("its voters are not 1 to {VOTERS_MAX} of its members, with stores that are not lost")]
    Voters,
    /// Its number is not that of one that follows on that version by force.
    #[error("its number does not follow by force on version {0}")]
    Forced(u64),
    /// A bucket that was dropped is there.
    #[error("it has a bucket of a number that was dropped")]
    Dropped,
    /// There are two forms for one content.
    #[error("it is of the format with access, and has none")]
    Access,
}

impl Record {
    /// Puts a record together. Stores and voters are kept sorted.
    ///
    /// # Errors
    /// [`RecordError`] if its parts do not go together.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        cluster_id: u128,
        parent: u128,
        topology: Topology,
        stores: Vec<(NodeId, StoreId)>,
        voters: Vec<NodeId>,
        lost: Vec<(NodeId, StoreId)>,
        dropped: Vec<BucketId>,
        by: String,
        reason: String,
    ) -> Result<Record, RecordError> {
        let (format, forced_on) = (FORMAT, None);
        let body =
            RawBody { format, cluster_id, parent, forced_on, topology, stores, voters, lost, dropped, by, reason };
        RawRecord { body, access: AgreedAccess::default() }.try_into()
    }

    /// One that follows on this one: of the same cluster, and with the same access.
    ///
    /// # Errors
    /// [`RecordError`] if its parts do not go together.
    #[allow(clippy::too_many_arguments)]
    pub fn followed_by(
        &self,
        digest: u128,
        topology: Topology,
        stores: Vec<(NodeId, StoreId)>,
        voters: Vec<NodeId>,
        lost: Vec<(NodeId, StoreId)>,
        dropped: Vec<BucketId>,
        by: String,
        reason: String,
    ) -> Result<Record, RecordError> {
        let next = Record::new(self.cluster_id, digest, topology, stores, voters, lost, dropped, by, reason)?;
        Ok(next.with_access(self.access.clone()))
    }

    /// The same, with other access.
    #[must_use]
    pub fn with_access(self, access: AgreedAccess) -> Record {
        Record { format: format_of(&access), access, ..self }
    }

    /// Who may do what, as far as that is agreed on.
    pub fn access(&self) -> &AgreedAccess {
        &self.access
    }

    /// The same, as one that follows on that version by force.
    ///
    /// # Errors
    /// [`RecordError::Forced`] if its number is another.
    pub fn forced(self, on: u64) -> Result<Record, RecordError> {
        check_forced(self.version(), on)?;
        Ok(Record { forced_on: Some(on), ..self })
    }

    /// The number of this version: its ring's.
    pub fn version(&self) -> u64 {
        self.topology.ring().version().0
    }

    /// The number of the version before.
    pub fn follows_on(&self) -> u64 {
        self.forced_on.unwrap_or_else(|| self.version().saturating_sub(1))
    }

    /// A fingerprint of everything in here and, through the parent's, of its whole history.
    pub fn digest(&self) -> u128 {
        let bytes = postcard::to_stdvec(self).expect("a record has no type that postcard cannot write");
        xxh3_128(&bytes)
    }

    /// The store of a member.
    pub fn store_of(&self, node: NodeId) -> Option<StoreId> {
        self.stores.binary_search_by_key(&node, |(member, _)| *member).ok().map(|at| self.stores[at].1)
    }

    /// Whether a store was declared lost.
    pub fn is_lost(&self, node: NodeId, store: StoreId) -> bool {
        self.lost.contains(&(node, store))
    }

    /// The stores that were declared lost, and these, each once: one that was declared lost by force is among them already.
    pub fn lost_with(&self, more: impl IntoIterator<Item = (NodeId, StoreId)>) -> Vec<(NodeId, StoreId)> {
        let mut lost = self.lost.clone();
        for store in more {
            if !lost.contains(&store) {
                lost.push(store);
            }
        }
        lost
    }

    /// Whether the store that is named as this member's was declared lost: then there is nobody who is that member.
    pub fn is_vacant(&self, node: NodeId) -> bool {
        self.store_of(node).is_some_and(|store| self.is_lost(node, store))
    }
}

/// What is read: what follows the body depends on the format that it begins with.
struct RawRecord {
    body: RawBody,
    access: AgreedAccess,
}

#[derive(Deserialize)]
struct RawBody {
    format: u8,
    cluster_id: u128,
    parent: u128,
    forced_on: Option<u64>,
    topology: Topology,
    stores: Vec<(NodeId, StoreId)>,
    voters: Vec<NodeId>,
    lost: Vec<(NodeId, StoreId)>,
    dropped: Vec<BucketId>,
    by: String,
    reason: String,
}

impl<'de> Deserialize<'de> for RawRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawRecord, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = RawRecord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<RawRecord, A::Error> {
                let missing = || A::Error::custom("it ends too early");
                let body: RawBody = parts.next_element()?.ok_or_else(missing)?;
                let access = match body.format {
                    FORMAT_WITH_ACCESS => parts.next_element()?.ok_or_else(missing)?,
                    _ => AgreedAccess::default(),
                };
                Ok(RawRecord { body, access })
            }
        }

        deserializer.deserialize_tuple(2, Parts)
    }
}

impl TryFrom<RawRecord> for Record {
    type Error = RecordError;

    fn try_from(RawRecord { body, access }: RawRecord) -> Result<Record, RecordError> {
        let RawBody {
            format,
            cluster_id,
            parent,
            forced_on,
            topology,
            mut stores,
            mut voters,
            lost,
            dropped,
            by,
            reason,
        } = body;
        if ![FORMAT, FORMAT_WITH_ACCESS].contains(&format) {
            return Err(RecordError::Format(format));
        }
        if format != format_of(&access) {
            return Err(RecordError::Access);
        }
        stores.sort_unstable();
        voters.sort_unstable();
        let members = topology.ring().members();
        if !members.iter().map(|member| member.id).eq(stores.iter().map(|(member, _)| *member)) {
            return Err(RecordError::Stores);
        }
        let known = |voter: &NodeId| stores.iter().any(|store| store.0 == *voter && !lost.contains(store));
        if voters.is_empty()
            || voters.len() > VOTERS_MAX
            || !voters.iter().all(known)
            || !voters.is_sorted_by(|a, b| a < b)
        {
            return Err(RecordError::Voters);
        }
        if topology.buckets().iter().any(|bucket| dropped.contains(&bucket.id)) {
            return Err(RecordError::Dropped);
        }
        if let Some(on) = forced_on {
            check_forced(topology.ring().version().0, on)?;
        }
        Ok(Record {
            format,
            cluster_id,
            parent,
            forced_on,
            topology,
            stores,
            voters,
            lost,
            dropped,
            by,
            reason,
            access,
        })
    }
}

fn format_of(access: &AgreedAccess) -> u8 {
    if access.is_empty() { FORMAT } else { FORMAT_WITH_ACCESS }
}

fn check_forced(version: u64, on: u64) -> Result<(), RecordError> {
    let fits = RingVersion(on).forced() == Some(RingVersion(version));
    fits.then_some(()).ok_or(RecordError::Forced(on))
}

/// Most voters: more would make deciding slower and nothing safer.
pub const VOTERS_MAX: usize = 7;

/// Format of a [`Record`] that says nothing of access.
const FORMAT: u8 = 1;

/// Format of a [`Record`] that does. Releases before it know neither.
const FORMAT_WITH_ACCESS: u8 = 2;

#[cfg(test)]
mod tests {
    use driftless_ring::{Member, Partitions, Ring, RingSpec};

    use super::*;
    use crate::access::AccessChange;
    use crate::bucket::BucketDefinition;

    fn store(node: NodeId) -> StoreId {
        StoreId(node.0.into())
    }

    /// Of the members a and b, in this ring, of which one votes and one is lost.
    fn record(ring: Ring, voter: &str, lost: &str) -> Result<Record, RecordError> {
        let stores = ring.members().iter().map(|member| (member.id, store(member.id))).collect();
        let topology = Topology::new("test", ring, vec![BucketDefinition::built_in(2)]).expect("it fits");
        let (voters, lost) = (vec![NodeId::of_name(voter)], NodeId::of_name(lost));
        let words = String::new();
        Record::new(7, 1, topology, stores, voters, vec![(lost, store(lost))], Vec::new(), words.clone(), words)
    }

    fn second() -> Ring {
        let members = ["a", "b"].map(|name| Member::new(name, "h:1")).to_vec();
        let partitions = Partitions::new(4).expect("a power of two");
        let first = Ring::first(RingSpec { partitions, hash_seed: 0, members, classes: [2].into() }).expect("it fits");
        first.again(&first).expect("there is a next version")
    }

    #[test]
    fn a_forced_record_says_on_what_and_its_number_must_fit() {
        let normal = record(second(), "a", "b").expect("it fits");
        assert_eq!((normal.follows_on(), normal.forced_on), (1, None));
        assert_eq!(normal.forced(1), Err(RecordError::Forced(1)), "its number is 2");
        let forced = record(second().forced().expect("there is one"), "a", "b").and_then(|record| record.forced(2));
        let forced = forced.expect("1000 follows on 2 by force");
        assert_eq!((forced.version(), forced.follows_on()), (1000, 2));
        assert_eq!([forced.is_vacant(NodeId::of_name("a")), forced.is_vacant(NodeId::of_name("b"))], [false, true]);
        assert_eq!(forced.clone().forced(600), Err(RecordError::Forced(600)));
        let bytes = postcard::to_stdvec(&forced).expect("can be written");
        assert_eq!(postcard::from_bytes::<Record>(&bytes), Ok(forced.clone()));
        let damaged = postcard::to_stdvec(&Record { forced_on: Some(700), ..forced }).expect("can be written");
        assert!(postcard::from_bytes::<Record>(&damaged).is_err());
    }

    /// Written by the releases before access was agreed on: they must read it, and come to the same digest.
    #[test]
    fn a_record_without_access_has_the_bytes_that_it_always_had() {
        let record = record(second(), "a", "b").expect("it fits");
        let body =
            (record.format, record.cluster_id, record.parent, record.forced_on, &record.topology, &record.stores);
        let rest = (&record.voters, &record.lost, &record.dropped, &record.by, &record.reason);
        let bytes = postcard::to_stdvec(&record).expect("can be written");
        assert_eq!(bytes, postcard::to_stdvec(&(body, rest)).expect("can be written"));
        assert_eq!((bytes[0], format!("{:032x}", record.digest()).as_str()), (1, "16399af8fe41669afbe0b19cde6584fc"));
    }

    #[test]
    fn a_record_with_access_is_of_another_format_and_reads_as_it_was_written_among_others() {
        let before = record(second(), "a", "b").expect("it fits");
        let deny = AccessChange::Deny(crate::access::Denial::Client("mallory".to_owned()));
        let access = before.access().with(&deny).expect("it is news");
        let with = before.clone().with_access(access);
        assert_eq!((before.format, with.format), (FORMAT, FORMAT_WITH_ACCESS));
        assert_ne!(before.digest(), with.digest());
        let several = vec![with.clone(), before.clone(), with.clone()];
        let bytes = postcard::to_stdvec(&several).expect("can be written");
        assert_eq!(postcard::from_bytes::<Vec<Record>>(&bytes), Ok(several));
        assert_eq!(with.with_access(AgreedAccess::default()), before, "nothing is left of it");

        let mut bytes = postcard::to_stdvec(&before).expect("can be written");
        bytes[0] = FORMAT_WITH_ACCESS;
        bytes.extend([0, 0, 0, 0, 0]);
        assert!(postcard::from_bytes::<Record>(&bytes).is_err(), "one content has one form");
        bytes[0] = 3;
        assert!(postcard::from_bytes::<Record>(&bytes).is_err());
    }

    #[test]
    fn access_goes_on_from_version_to_version() {
        let first = record(second(), "a", "b").expect("it fits");
        let access = AccessChange::Default(Some(crate::Role::Reader));
        let first = first.clone().with_access(first.access().with(&access).expect("it is news"));
        let (ring, words) = (second().again(&second()).expect("there is a next version"), String::new());
        let topology = first.topology.with_ring(ring).expect("it fits");
        let Record { stores, voters, lost, .. } = first.clone();
        let next =
            first.followed_by(5, topology, stores, voters, lost, Vec::new(), words.clone(), words).expect("it fits");
        assert_eq!((next.access(), next.format, next.cluster_id), (first.access(), FORMAT_WITH_ACCESS, 7));
    }

    #[test]
    fn who_is_lost_does_not_vote() {
        assert_eq!(record(second(), "b", "b"), Err(RecordError::Voters));
    }
}
