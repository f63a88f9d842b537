//! The whole conversation between a client and a node.
//!
//! ```text
//! client                                   node
//!   │── greeting ────────────────────────────▶│   the versions that either speaks (`greeting`)
//!   │◀──────────────────────────── greeting ──│
//!   │── RequestFrame {id, deadline, …} ──────▶│   any number under way, answered in any order
//!   │◀───────── ResponseFrame {id, …} ────────│
//! ```
//! Every answer carries the node's ring version: a client that is behind asks for the [`Topology`] again.

use bytes::Bytes;
use driftless_ring::{ArcIndex, PartitionId, Token};
use serde::{Deserialize, Serialize};

use crate::causality::{ContextToken, Dot, Hlc, Siblings, Version, VersionVector, WriteId};
use crate::error::Failure;
use crate::figures::Figures;
use crate::greeting::{self, ProtocolVersion, ProtocolVersions};
use crate::key::{BucketId, Key};
use crate::membership::{Change, ClusterAnswer, ClusterCommand};
use crate::observed::{Explained, Observed, ObservedRequest};
use crate::top::{Top, TopCommand};
use crate::topology::Topology;

/// A request on the wire.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Chosen by the client, unique among its requests under way on this connection.
    pub id: u64,
    /// Ring version that the client routed by; 0 if it has none yet.
    pub ring_version: u64,
    /// Milliseconds that the client will still wait. Work is dropped when they have passed.
    pub deadline_ms: u32,
    /// What is asked.
    pub request: Request,
}

/// An answer on the wire.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ResponseFrame {
    /// The request's id.
    pub id: u64,
    /// The node's ring version.
    pub ring_version: u64,
    /// The answer.
    pub response: Response,
}

/// What a client can ask.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// The ring and the buckets.
    Topology,
    /// Read a key.
    Get(Get),
    /// Write a value.
    Put(Put),
    /// Write a tombstone.
    Delete(Delete),
    /// List keys of a bucket within one arc.
    Scan(Scan),
    /// What the node knows of itself.
    Status,
    /// What the node holds for others.
    Hints,
    /// Anti-entropy: how it stands, or what it shall do.
    Aae(AaeCommand),
    /// The keys whose records are damaged on the node.
    Damaged,
    /// Put what the other owners hold in place of a record that is damaged on the node.
    Restore(Restore),
    /// The members and buckets: how they stand, or what shall become of them.
    Cluster(ClusterCommand),
    /// Whether the node takes requests of clients, or whether it shall.
    Drain(DrainCommand),
    /// Read all that is known of a key, so that it can be merged again one day.
    GetState(GetState),
    /// Take in what was known of a key once.
    MergeState(MergeState),
    /// What the node measures; since [`FIGURES`](crate::greeting::FIGURES). Nodes ask each other as well, passing it on like a client's.
    Figures,
    /// One of these, of which its client wants to know more than the answer; since [`OBSERVED`](crate::greeting::OBSERVED).
    Observed(Observed),
    /// Which keys are asked for most, are large, or have many siblings, as far as the node counts; since [`TOP`](crate::greeting::TOP).
    Top(TopCommand),
}

/// Read a key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// Replicas that must answer; the bucket's r if absent.
    pub r: Option<u8>,
    /// Overrides the bucket's `sloppy`. Strict reads (`false`) write back what differs before they answer.
    pub sloppy: Option<bool>,
    /// Ask all replicas, wait for them a little, and tell what each said. Since [`OBSERVED`](crate::greeting::OBSERVED) that is asked
    /// for by the [`Profile`](crate::observed::Profile) of any request.
    pub explain: bool,
    /// What earlier answers to this read have shown, of a key that does not fit into one: see [`ReadPage`].
    pub shown: Vec<Dot>,
}

/// Write a value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Put {
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// Value.
    pub value: Bytes,
    /// What the writer has read and means to replace; without it the value becomes a sibling of what is there.
    pub context: Option<ContextToken>,
    /// Replicas that must acknowledge; the bucket's w if absent.
    pub w: Option<u8>,
    /// Overrides the bucket's `sloppy`.
    pub sloppy: Option<bool>,
    /// Names this write; the same in every retry of it.
    pub write_id: WriteId,
}

/// Write a tombstone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Delete {
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// What the writer has read and means to remove; without it the node reads first and removes what it saw.
    pub context: Option<ContextToken>,
    /// Replicas that must answer the read, where there is one; the bucket's r if absent.
    pub r: Option<u8>,
    /// Replicas that must acknowledge; the bucket's w if absent.
    pub w: Option<u8>,
    /// Overrides the bucket's `sloppy`.
    pub sloppy: Option<bool>,
    /// Names this write; the same in every retry of it. A retry is the same delete, also if its read finds more than the
    /// first one's did.
    pub write_id: WriteId,
}

/// List keys of a bucket within one arc, in token order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scan {
    /// Bucket.
    pub bucket: BucketId,
    /// Arc of the ring.
    pub arc: ArcIndex,
    /// Continue after this position; from the arc's start if absent.
    pub after: Option<Cursor>,
    /// Most keys in the answer, at least 1.
    pub limit: u32,
    /// Replicas that must answer; the bucket's r if absent.
    pub r: Option<u8>,
    /// Only keys that begin with this; all if it is empty. The others are walked over, and left out of the answer.
    pub prefix: Bytes,
    /// The ring version by which the arc is meant: the frame's, and not in here on the wire. Whoever takes the frame fills it in. Another
    /// version may have other arcs, and a page of one of these would leave out keys without a word.
    #[serde(skip)]
    pub ring_version: u64,
}

/// A position within a scan. Positions are in the order of the keys that come behind them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// The token at which it is.
    pub token: Token,
    /// The key that it is behind; `None` is before all keys of the token.
    pub key: Option<Key>,
}

/// What a node answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Topology`].
    Topology(Box<Topology>),
    /// To [`Request::Get`].
    Read(Read),
    /// To [`Request::Put`].
    Stored(Stored),
    /// To [`Request::Delete`].
    Deleted(Deleted),
    /// To [`Request::Scan`].
    Page(Page),
    /// To [`Request::Status`].
    Status(Box<NodeStatus>),
    /// To [`Request::Hints`]: one entry for each node that something is or was held for.
    Hints(Vec<HintsFor>),
    /// To [`Request::Aae`], whatever was told.
    Aae(Box<AaeStatus>),
    /// To [`Request::Damaged`].
    Damaged(DamagedKeys),
    /// To [`Request::Restore`].
    Restored(Restored),
    /// The request did not succeed.
    Failed(Failure),
    /// To [`Request::Cluster`].
    Cluster(ClusterAnswer),
    /// To [`Request::Drain`], whatever was told.
    Drain(DrainStatus),
    /// To [`Request::GetState`].
    State(StatePage),
    /// To [`Request::MergeState`].
    Merged(Merged),
    /// To [`Request::Figures`].
    Figures(Box<Figures>),
    /// To [`Request::Observed`], if an explanation was asked for.
    Explained(Explained),
    /// To [`Request::Top`].
    Top(Box<Top>),
}

/// What was read.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Read {
    /// The siblings that are values; none if the key does not exist or was deleted.
    pub siblings: Vec<Sibling>,
    /// What this read has seen, tombstones included; `None` if the key was never written, or if this is not all of it.
    pub context: Option<ContextToken>,
    /// Whose answers it rests on.
    pub basis: Basis,
    /// `None` if the key fits into one answer.
    pub page: Option<ReadPage>,
    /// What each replica said, if asked for.
    pub explanation: Option<ReadExplanation>,
}

/// Whose answers a read rests on. A fallback knows only what it was given while a primary was away; so a key of which nothing
/// was found may exist all the same, unless as many primaries as must answer have said so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Basis {
    /// Answers that were needed.
    pub needed: u8,
    /// How many of those that decided came from primaries.
    pub primaries: u8,
}

/// One of several answers that together are one read.
///
/// ```text
/// client                                                       node
///   │── Get {shown: []} ────────────────────────────────────────▶│ reads a quorum: M1
///   │◀── some of M1, their dots, more, no context ───────────────│
///   │── Get {shown: [dots so far]} ─────────────────────────────▶│ reads a quorum again: M2
///   │◀── what of M2 was not shown, its context, gone ────────────│ nothing left: this was the last
/// ```
/// Any node may answer any of them, from whatever replicas it reads, and the key may change in between: nothing is remembered
/// at a node. What makes them one read is that **the state of the last answer is shown whole**. Only that one has a context,
/// and it goes out only when every live value of its state has been shown, now or before. So no later write with that context
/// can replace a value that its writer was not given. What was shown before and is not in that state, overwritten since or never
/// heard of by the replicas that were asked last, the reader drops: it has exactly that state, as if it had been asked for once.
///
/// It must be the dots that are compared. An answer that left out as many values as were shown would leave out one that has come
/// in between, and cover it by its context.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReadPage {
    /// Of the siblings in this answer, in their order.
    pub dots: Vec<Dot>,
    /// There are values left that were not shown: ask again.
    pub more: bool,
    /// In the last answer: what was shown before and is not in its state.
    pub gone: Vec<Dot>,
}

/// One value read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sibling {
    /// The bytes.
    pub value: Bytes,
    /// When it was written, by hybrid logical clock.
    pub written_at: Hlc,
}

/// Read all that is known of a key: its values with what names them, and what they have replaced. Always a strict read.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GetState {
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// Replicas that must answer; the bucket's r if absent.
    pub r: Option<u8>,
    /// What earlier answers to this read have shown, as in [`Get`].
    pub shown: Vec<Dot>,
}

/// One of the answers that together are the state of a key: as [`ReadPage`]s, the last one completes what the others have shown.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatePage {
    /// Live writes that were not shown before, tombstones among them, sorted by dot.
    pub live: Vec<(Dot, Version)>,
    /// All that was seen of the key; `None` if there are live writes left that were not shown: ask again.
    pub vv: Option<VersionVector>,
    /// In the last answer: what was shown before and is not in its state.
    pub gone: Vec<Dot>,
}

/// Take in what was known of a key once, as replicas take in what others know: what has been overwritten or deleted since stays so, what
/// nobody has heard of comes to be, and the same again changes nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MergeState {
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// What was known, or a part of it that can stand alone: see [`Siblings::by_actor`].
    pub state: Siblings,
    /// Owners that must acknowledge; the bucket's w if absent. Nobody stands in for them.
    pub w: Option<u8>,
}

/// Owners have taken in a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Merged {
    /// Owners that had acknowledged when this was sent.
    pub acks: u8,
}

/// A put was acknowledged by w replicas.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// Given only if the written value is now the only one: using it elsewhere would overwrite siblings unseen. It may cover
    /// deletes that the writer has not seen: they hold nothing.
    pub context: Option<ContextToken>,
    /// Replicas that had acknowledged when this was sent.
    pub acks: u8,
    /// How many of them were primaries.
    pub primaries: u8,
    /// Values the key has now.
    pub siblings: u32,
    /// Whether the value written is one of them. Not if the write was recognised as one that had been made before, and has been
    /// replaced or deleted since; and not if the last writer wins and the key holds something of a later time.
    pub live: bool,
}

/// A delete was acknowledged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Deleted {
    /// Whether it removed a value, as far as its coordinator can tell: one that has not seen all that is in the context takes
    /// the rest for values. False if all was gone already; no tombstone was written then, and what `acks` counts are replicas
    /// that are sure of it: none if nobody has ever heard of the key.
    pub existed: bool,
    /// Replicas that had acknowledged when this was sent.
    pub acks: u8,
    /// How many of them were primaries.
    pub primaries: u8,
    /// Values the key still has: writes that the delete had not seen.
    pub siblings: u32,
    /// Whose answers its read rests on; `None` if it came with a context, or nothing was read for another reason.
    pub basis: Option<Basis>,
}

/// Some keys of an arc.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Page {
    /// Keys that have a value, in token order. Often fewer than asked for, or none: a page ends where the node has walked
    /// far enough.
    pub keys: Vec<Key>,
    /// Where to go on; `None` at the end of the arc.
    pub next: Option<Cursor>,
}

/// What each replica said to a get, in the form that all releases know: see [`Explanation`](crate::observed::Explanation).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReadExplanation {
    /// Who put the answer together.
    pub coordinator: String,
    /// Ring version it used.
    pub ring_version: u64,
    /// The key's partition, as `n3/17`.
    pub partition: String,
    /// Answers that were needed.
    pub r: u8,
    /// One entry per replica asked.
    pub replicas: Vec<ReplicaAnswer>,
}

/// What one replica said to a get.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReplicaAnswer {
    /// Name of the node.
    pub node: String,
    /// Name of the primary that it stood in for; `None` if it is a primary itself.
    pub stands_in_for: Option<String>,
    /// Its vector and live dots as text; `None` if it did not answer.
    pub state: Option<String>,
    /// Microseconds until its answer.
    pub latency_us: Option<u64>,
    /// Whether it was among the r answers that decided.
    pub counted: bool,
    /// Whether the merged state was sent to it because it lacked something.
    pub repaired: bool,
}

/// What a node knows of itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name.
    pub name: String,
    /// Release of the software.
    pub version: String,
    /// Ring version.
    pub ring_version: u64,
    /// Milliseconds since start.
    pub uptime_ms: u64,
    /// Copies held of partitions it owns, tombstones not counted; `None` while they are being counted after a start.
    pub keys: Option<u64>,
    /// Bytes of the values of those copies.
    pub bytes: Option<u64>,
    /// Keys held for other nodes that could not be reached; `None` while they are being counted after a start.
    pub hints: Option<u64>,
    /// By how many milliseconds its clock is ahead of the median of those of the other nodes that it hears, below zero if
    /// behind; `None` if it hears none.
    pub clock_offset_ms: Option<i64>,
    /// Whether it takes puts and deletes; not while its clock is far from those of most others, nor while its store is short.
    pub takes_writes: bool,
    /// Which other members this node can reach.
    pub peers: Vec<PeerStatus>,
    /// What is the matter with it, the worst first; nothing if all is well.
    pub conditions: Vec<Condition>,
}

impl NodeStatus {
    /// Whether it can serve what it should: nothing critical is the matter with it.
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().all(|condition| condition.severity != Severity::Critical)
    }
}

/// Something that is the matter with a node, as long as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// Its kind, in the word that metrics, logs and documents have for it.
    pub name: String,
    /// The member that it is about, if it is about another.
    pub peer: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// Milliseconds since this process noticed it.
    pub for_ms: u64,
    /// Whether it says why, so that it is the cause of others.
    pub explained: bool,
    /// What is the matter, and why: a sentence without its subject's name, "this node" being the one that says it.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// How bad a [`Condition`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It passes by itself, and takes nothing from anybody meanwhile.
    Note,
    /// Something should be done, or may go wrong before long.
    Warning,
    /// The node does not serve what it should.
    Critical,
}

/// One node's view of another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Name.
    pub name: String,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// What this node thinks of it. An opinion for routing: nothing rests on its being right.
    pub liveness: Liveness,
}

/// Whether a node is thought to be up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It answers, itself or to others.
    Alive,
    /// It has not answered lately: not counted on, and soon thought down unless it speaks up.
    Suspect,
    /// Nobody hears from it.
    Down,
}

/// What one node holds for another that could not be reached.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HintsFor {
    /// Name of the node that is to have them.
    pub target: String,
    /// Keys held for it.
    pub keys: u64,
    /// Bytes held for it. Keys that the holder owns itself take none.
    pub bytes: u64,
    /// Milliseconds since the oldest was made, or since this node started if that is later; `None` without hints.
    pub oldest_ms: Option<u64>,
    /// Keys delivered to it since this node started.
    pub delivered: u64,
    /// Keys delivered per second lately; 0 while none are under way.
    pub rate: f64,
    /// Milliseconds until all are delivered, at that rate; `None` while none are under way.
    pub eta_ms: Option<u64>,
}

/// What an operator tells anti-entropy on one node. Nothing of it outlives the node's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AaeCommand {
    /// Say how it stands.
    Status,
    /// Compare with all peers now.
    Run {
        /// Only this partition.
        partition: Option<PartitionId>,
    },
    /// Begin nothing, repair nothing, and refuse peers that want to.
    Pause,
    /// Go on.
    Resume,
}

/// What an operator tells a node before it is stopped. Nothing of it outlives the node's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DrainCommand {
    /// Say how it stands.
    Status,
    /// Refuse requests that are to be coordinated, as a node that stops does, and do everything else: finish what is under way, serve
    /// peers, deliver hints, compare replicas.
    Begin,
    /// Take requests again.
    Undo,
}

/// How far a node is drained.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Whether it refuses requests: it is drained, or stops.
    pub draining: bool,
    /// Requests of clients that it has not answered yet; the one that asks for this is not among them.
    pub under_way: u64,
    /// Keys that it holds for other nodes; `None` while they are being counted after a start.
    pub hints: Option<u64>,
}

/// The records that are damaged on one node and not restored yet; up to a second old.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DamagedKeys {
    /// Some of them, in the order of bucket and key.
    pub keys: Vec<DamagedKey>,
    /// How many there are.
    pub count: u64,
}

/// A record that is not what was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DamagedKey {
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: Key,
}

/// Put what the other owners hold of a key, perhaps nothing, in place of its record on the node that is asked, if that is
/// damaged. What only the damaged record held is lost, acknowledged writes and deletes among it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restore {
    /// Bucket.
    pub bucket: BucketId,
    /// Key.
    pub key: Key,
    /// That this is known; refused without.
    pub accept_loss: bool,
}

/// What became of that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// Whether the record was damaged; if not, nothing was done.
    pub was_damaged: bool,
    /// How many other owners have said what they hold.
    pub answered: u8,
}

/// How anti-entropy stands on one node; up to a second old.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AaeStatus {
    /// Stopped by an operator.
    pub paused: bool,
    /// Leaves of trees that were not what their records come to, since the start. Anything above 0 is a bug or damage.
    pub drift: u64,
    /// Partitions whose tree is still being built after the start.
    pub building: u64,
    /// One entry for each partition and peer that shares it.
    pub partitions: Vec<AaePartition>,
}

/// How one partition stands between a node and a peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AaePartition {
    /// Name of the peer.
    pub peer: String,
    /// The partition.
    pub partition: PartitionId,
    /// Milliseconds since everything was last equal, or made so; `None` if it never was since the start.
    pub last_full_round_ms: Option<u64>,
    /// Keys compared one by one.
    pub compared: u64,
    /// Keys that differed and were repaired, on either side.
    pub repaired: u64,
    /// Whether it is known to differ.
    pub unequal: bool,
    /// Whether its keys are being compared or repaired now.
    pub in_progress: bool,
    /// Keys still to be repaired, at least.
    pub behind: u64,
    /// Keys repaired at that peer per second lately, of all partitions.
    pub rate: f64,
}

impl Basis {
    /// Whether enough primaries have answered to say that a key does not exist.
    pub fn is_enough(self) -> bool {
        self.primaries >= self.needed
    }
}

/// What a request is about: where it goes, what it is counted as, and whether its time says something about the next one's
/// follow from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class<'a> {
    /// One key, at its owners.
    Key {
        /// Bucket.
        bucket: BucketId,
        /// Key.
        key: &'a Key,
        /// What is done with it.
        access: Access,
    },
    /// The keys of an arc, at its owners.
    Arc {
        /// Bucket.
        bucket: BucketId,
        /// Arc.
        arc: ArcIndex,
    },
    /// The node that is asked.
    Node,
}

/// What is done with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written or deleted.
    Write,
    /// One replica's record of it is replaced.
    Restore,
}

impl Request {
    /// What it is about.
    pub fn class(&self) -> Class<'_> {
        match self {
            Request::Get(get) => Class::Key { bucket: get.bucket, key: &get.key, access: Access::Read },
            Request::Put(put) => Class::Key { bucket: put.bucket, key: &put.key, access: Access::Write },
            Request::Delete(delete) => Class::Key { bucket: delete.bucket, key: &delete.key, access: Access::Write },
            Request::Restore(restore) => {
                Class::Key { bucket: restore.bucket, key: &restore.key, access: Access::Restore }
            }
            Request::GetState(get) => Class::Key { bucket: get.bucket, key: &get.key, access: Access::Read },
            Request::MergeState(merge) => Class::Key { bucket: merge.bucket, key: &merge.key, access: Access::Write },
            Request::Observed(observed) => observed.request.class(),
            Request::Scan(scan) => Class::Arc { bucket: scan.bucket, arc: scan.arc },
            Request::Topology
            | Request::Status
            | Request::Hints
            | Request::Aae(_)
            | Request::Damaged
            | Request::Cluster(_)
            | Request::Drain(_)
            | Request::Figures
            | Request::Top(_) => Class::Node,
        }
    }

    /// Whether repeating the request can never change anything.
    pub fn is_read(&self) -> bool {
        !matches!(self.class(), Class::Key { access: Access::Write | Access::Restore, .. })
    }

    /// The lowest version of the protocol in which it can be said.
    pub fn spoken_from(&self) -> ProtocolVersion {
        match self {
            Request::GetState(_) | Request::MergeState(_) | Request::Figures => greeting::FIGURES,
            Request::Cluster(
                ClusterCommand::Stage(Change::DoublePartitions) | ClusterCommand::Apply(Change::DoublePartitions),
            ) => greeting::DOUBLING,
            Request::Cluster(
                ClusterCommand::Stage(Change::SetAccess(_))
                | ClusterCommand::Apply(Change::SetAccess(_))
                | ClusterCommand::Access,
            ) => greeting::AGREED_ACCESS,
            Request::Cluster(ClusterCommand::Found { .. }) => greeting::FOUNDING_WITHOUT,
            Request::Observed(_) => greeting::OBSERVED,
            Request::Top(_) => greeting::TOP,
            _ => ProtocolVersions::OURS.lowest(),
        }
    }

    /// Bytes of the values that it carries, which are nearly all of a long request.
    pub fn value_bytes(&self) -> usize {
        match self {
            Request::Put(put) | Request::Observed(Observed { request: ObservedRequest::Put(put), .. }) => {
                put.value.len()
            }
            Request::MergeState(merge) => merge.state.value_bytes(),
            _ => 0,
        }
    }

    /// The bucket that it speaks of, if of one.
    pub fn bucket(&self) -> Option<BucketId> {
        match self.class() {
            Class::Key { bucket, .. } | Class::Arc { bucket, .. } => Some(bucket),
            Class::Node => None,
        }
    }
}
