//! What a cluster agrees on beyond the topology that clients get, and how an operator changes it.
//!
//! A [`Change`] is staged, planned and committed, and makes a [`Record`]; the plan is named by a digest, so that nobody commits what nobody has
//! seen.

mod record;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::{AccessChange, AgreedAccess};
use crate::bucket::BucketDefinition;

pub use record::{Record, RecordError, StoreId, VOTERS_MAX};

/// What an operator may change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A node that has called becomes a member.
    Join {
        /// Its name.
        name: String,
        /// Other than it says itself.
        zone: Option<String>,
        /// Other than it says itself.
        weight: Option<u32>,
    },
    /// A member hands over what it holds, and is none any more.
    Leave {
        /// Its name.
        name: String,
        /// It will never come back, and nothing is waited for that it holds.
        lost: bool,
    },
    /// A member is lost, and a node that has called takes exactly its place.
    Replace {
        /// The name of the member.
        name: String,
        /// The name of the node.
        with: String,
        /// Also if the member is up.
        force: bool,
    },
    /// A member takes another share, or is in another zone.
    Set {
        /// Its name.
        name: String,
        /// Its share, relative to the others.
        weight: Option<u32>,
        /// Its zone.
        zone: Option<String>,
    },
    /// A bucket comes to be. Its number is drawn; what is given is not looked at.
    CreateBucket(BucketDefinition),
    /// A bucket's r, w, sloppy, durability or share of reads that ask all replicas are others.
    SetBucket(BucketDefinition),
    /// A bucket goes, with all that is in it.
    DropBucket {
        /// Its name.
        name: String,
    },
    /// Each partition becomes two, of the same owners; since [`DOUBLING`](crate::greeting::DOUBLING).
    DoublePartitions,
    /// Somebody may do something else from now on, or is not let in; since [`AGREED_ACCESS`](crate::greeting::AGREED_ACCESS).
    SetAccess(AccessChange),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Join { name, .. } => write!(f, "{name} joins"),
            Change::Leave { name, lost: false } => write!(f, "{name} leaves"),
            Change::Leave { name, lost: true } => write!(f, "{name} is lost"),
            Change::Replace { name, with, .. } => write!(f, "{with} replaces {name}"),
            Change::Set { name, weight, zone } => {
                write!(f, "{name} gets")?;
                weight.iter().try_for_each(|weight| write!(f, " weight {weight}"))?;
                zone.iter().try_for_each(|zone| write!(f, " zone {zone}"))
            }
            Change::CreateBucket(bucket) => write!(f, "bucket {} comes to be", bucket.name),
            Change::SetBucket(bucket) => write!(f, "bucket {} is set", bucket.name),
            Change::DropBucket { name } => write!(f, "bucket {name} goes"),
            Change::DoublePartitions => f.write_str("partitions are doubled"),
            Change::SetAccess(change) => change.fmt(f),
        }
    }
}

/// What an operator says of the members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClusterCommand {
    /// Say how things stand.
    State,
    /// Put this beside what is staged already.
    Stage(Change),
    /// Forget what is staged.
    Clear,
    /// Say what the staged changes would cost.
    Plan,
    /// Decide on the plan of this name.
    Commit {
        /// As [`Plan::name`].
        plan: String,
    },
    /// Go back to the members before the last change, as a version of its own.
    Cancel,
    /// Which versions there were.
    History,
    /// Stage and decide on one change at once; for changes that move nothing.
    Apply(Change),
    /// Go on without most of the voters: the node that is asked decides alone that these are lost.
    Recover {
        /// The names of all members that are lost.
        lost: Vec<String>,
        /// Do it, instead of only saying what it would mean.
        force: bool,
    },
    /// Say who may do what, as far as that is agreed on.
    Access,
    /// Found the cluster though some whom its file names never come; since [`FOUNDING_WITHOUT`](crate::greeting::FOUNDING_WITHOUT).
    Found {
        /// Their names.
        without: Vec<String>,
        /// Do it, instead of only saying what it would mean.
        yes: bool,
    },
}

/// What is answered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ClusterAnswer {
    /// To [`ClusterCommand::State`].
    State(Box<ClusterState>),
    /// To [`ClusterCommand::Stage`] and [`ClusterCommand::Clear`].
    Staged(Staged),
    /// To [`ClusterCommand::Plan`].
    Plan(Box<Plan>),
    /// To [`ClusterCommand::Commit`], [`ClusterCommand::Cancel`], [`ClusterCommand::Apply`], [`ClusterCommand::Recover`] with force, and
    /// [`ClusterCommand::Found`] with a yes.
    Decided(Decided),
    /// To [`ClusterCommand::History`], the newest last.
    History(Vec<Past>),
    /// To [`ClusterCommand::Recover`] without force.
    Recovery(Recovery),
    /// To [`ClusterCommand::Access`].
    Access(Box<AccessState>),
    /// To [`ClusterCommand::Found`] without a yes.
    Founding(Founding),
}

/// Who may do what, as far as that is agreed on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessState {
    /// The version that says so.
    pub version: u64,
    /// What it says.
    pub access: AgreedAccess,
}

/// What it would mean to go on by force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// The version that it would follow on.
    pub base: u64,
    /// The version that it would make.
    pub version: u64,
    /// Names of the members that would be lost.
    pub lost: Vec<String>,
    /// Names of those who would decide from then on.
    pub voters: Vec<String>,
    /// What should be known before it is done.
    pub warnings: Vec<String>,
}

/// What it would mean to found a cluster without some whom its file names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Founding {
    /// Names of those who would be members that nobody is.
    pub without: Vec<String>,
    /// Names of those who have to agree: all the others.
    pub by: Vec<String>,
    /// Names of those who would decide from then on.
    pub voters: Vec<String>,
    /// What should be known before it is done.
    pub warnings: Vec<String>,
}

/// What is staged.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Staged {
    /// The version that it would change.
    pub version: u64,
    /// In words, in order.
    pub changes: Vec<String>,
}

/// A version that was decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decided {
    /// Its number.
    pub version: u64,
    /// Names of the voters that are known to have accepted it.
    pub by: Vec<String>,
    /// What it changed.
    pub reason: String,
}

/// A version of the past, or the present one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Past {
    /// Its number.
    pub version: u64,
    /// Digest of the record.
    pub digest: u128,
    /// The version that it follows on by force, if it does.
    pub forced_on: Option<u64>,
    /// Names of its members.
    pub members: Vec<String>,
    /// At which node it was committed, of a forced one its voters; empty if a file founded it.
    pub by: String,
    /// What it changed.
    pub reason: String,
}

/// What staged changes would cost.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Names it: the first digits of a digest over base and changes.
    pub name: String,
    /// The version that it changes.
    pub base: u64,
    /// The version that it would make.
    pub version: u64,
    /// In words, in order.
    pub changes: Vec<String>,
    /// What it means for each member of either version.
    pub nodes: Vec<PlannedNode>,
    /// Replicas of partitions that somebody has to receive.
    pub slots_moved: u64,
    /// The fewest that must be, given who holds how much.
    pub slots_minimum: u64,
    /// Replicas of partitions that there are.
    pub slots: u64,
    /// Partitions whose replicas are in as many zones as can be, of all partitions.
    pub spread: (u64, u64),
    /// In how many zones that is, of how many there are.
    pub zones: (u32, u32),
    /// What should be known before it is committed.
    pub warnings: Vec<String>,
}

/// What a plan means for one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedNode {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Replicas of partitions now.
    pub now: u64,
    /// And then.
    pub then: u64,
    /// Replicas to receive.
    pub gains: u64,
    /// Replicas to hand over.
    pub loses: u64,
    /// Bytes to receive, about.
    pub bytes_in: u64,
    /// Bytes to hand over, about.
    pub bytes_out: u64,
}

/// How the members stand.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClusterState {
    /// The newest version.
    pub version: u64,
    /// Digest of its record; 0 while only a file founds it.
    pub digest: u128,
    /// Whether the version is agreed on, and not only read from a file.
    pub is_agreed: bool,
    /// The version that the newest one follows on by force, if it does.
    pub forced_on: Option<u64>,
    /// The versions before it that are not done with.
    pub unfinished: Vec<u64>,
    /// The version in which reads count.
    pub read_version: u64,
    /// What is staged.
    pub staged: Staged,
    /// Names of those who decide on the next version.
    pub voters: Vec<String>,
    /// One entry for each member of an unfinished version.
    pub members: Vec<MemberState>,
    /// Nodes that have called and are no members.
    pub candidates: Vec<CandidateState>,
}

/// How one member stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberState {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// Its share.
    pub weight: u32,
    /// Whether it is one in the newest version.
    pub stays: bool,
    /// Whether this node hears it.
    pub is_heard: bool,
    /// Whether its store is the one that the record names.
    pub is_whole: bool,
    /// Whether the store that the record names was declared lost.
    pub is_lost: bool,
    /// The newest version for which it holds what it must.
    pub ready: u64,
    /// The newest version such that it refuses reads that count in older ones.
    pub closed: u64,
    /// The newest version for which it has handed over what it owns no more.
    pub left: u64,
    /// What it takes in and hands over.
    pub moving: Moving,
}

/// What a node takes in and hands over for the newest version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Moving {
    /// Partitions to take in.
    pub taking: u32,
    /// Of those: taken in, and compared with as many owners as it takes.
    pub taken: u32,
    /// Partitions to hand over.
    pub giving: u32,
    /// Of those: handed over to every owner.
    pub given: u32,
    /// Keys taken in since the change.
    pub keys: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes a second, lately.
    pub rate: u64,
    /// Keys still to be taken in, as far as is known.
    pub keys_left: u64,
}

/// Of two parts together.
impl std::ops::AddAssign for Moving {
    fn add_assign(&mut self, other: Moving) {
        let Moving { taking, taken, giving, given, keys, bytes, rate, keys_left } = other;
        self.taking += taking;
        self.taken += taken;
        self.giving += giving;
        self.given += given;
        self.keys += keys;
        self.bytes += bytes;
        self.rate += rate;
        self.keys_left += keys_left;
    }
}

/// A node that has called and is no member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CandidateState {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// Its share.
    pub weight: u32,
}
