//! What two replicas say to find which keys of one partition differ. The sums that begin a round are in `round`.
//!
//! ```text
//! initiator                                               responder
//!     │ Start    k, fingerprints of layer 4 ───────────────▶ │   compares with its own
//!     │ ◀──────────────── Compared   those that differ, and the fingerprints of their descendants
//!     │ Compare  fingerprints one step further down ───────▶ │   … until the leaves are reached, one step a message
//!     │                                                      │
//!     │ a second passes: what was only in flight arrives     │
//!     │ List     leaves that differed, as they are now ────▶ │
//!     │ ◀──────────────── Listed     of those that still differ: every key's token and fingerprint
//!     │ Differ   tokens, at most 1000 ─────────────────────▶ │   both sides send what they hold of them, as Merge
//!     │ ◀──────────────── Noted      once the responder's Merges are done
//!     │ Done ──────────────────────────────────────────────▶ │
//! ```
//! Every request but `Done` and `Over` has one answer with its step; `Refused` may be the answer to any. A message lost ends the
//! exchange after a while; one that comes twice or late is recognised by its step.
//!
//! Keys are named by their token, which is a hash of bucket and key, and by which every replica finds them. Where two
//! keys share a token, both are meant.
//!
//! No message exceeds 64 KiB, so exchanges share a stream with small requests without holding them up.

use driftless_ring::{PartitionId, Partitions, Token};
use serde::{Deserialize, Serialize};

use crate::wire::{Fingerprint, Fingerprints, Rising, at_most};
use crate::{Bits, Digest};

/// Names an exchange, and seeds its fingerprints: 64 random bits that the initiator's owner draws.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ExchangeId(#[serde(with = "postcard::fixint::le")] pub u64);

/// From the initiator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Which exchange.
    pub exchange: ExchangeId,
    /// Counts the requests of the exchange, from 1.
    pub step: u32,
    /// What is asked.
    pub ask: Ask,
}

/// From the responder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Which exchange.
    pub exchange: ExchangeId,
    /// That of the request.
    pub step: u32,
    /// What is answered.
    pub answer: Answer,
}

/// What an initiator asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Begin. Answered with [`Compared`].
    Start(Start),
    /// These of your nodes against mine. Answered with [`Compared`].
    Compare(Nodes),
    /// The keys of leaves that still differ. Answered with [`Listing`].
    List(List),
    /// Send what you hold of the keys at these tokens, as Merge; I send what I hold. Answered with `Noted`.
    Differ(Rising<DIFFER_MAX>),
    /// This was all. Not answered.
    Done,
    /// This was all, and some of what I sent was not taken: we are not equal. Not answered.
    Over,
}

/// What a responder answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Start`] and [`Ask::Compare`].
    Compared(Compared),
    /// To [`Ask::List`].
    Listed(Listing),
    /// To [`Ask::Differ`]: what was to be sent has been sent, and taken.
    Noted,
    /// To any: no effect here, and this exchange is over unless the reason says how to go on.
    Refused(Refused),
}

/// Why a responder does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refused {
    /// It has no tree of the partition yet.
    Rebuilding,
    /// Its tree has only 2^k leaves: start again with these.
    Coarser(Bits),
    /// It takes part in as many exchanges as it can bear.
    Busy,
    /// It knows of no such exchange: it was restarted, or gave up.
    NoSuchExchange,
    /// It does not own the partition, or counts partitions in another way.
    NotOwner,
    /// It speaks another version of this conversation, or of digests.
    OtherFormat,
    /// It cannot read its records.
    Unreadable,
    /// What was asked makes no sense.
    Malformed,
    /// Some of what it sent to repair the initiator was not taken.
    NotTaken,
}

/// Begins an exchange.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Start {
    /// [`FORMAT`] of the initiator. First, so that every release can read it.
    pub format: u8,
    /// Which partition.
    pub partition: PartitionId,
    /// Q.
    pub partitions: Partitions,
    /// Trees are compared at this size.
    pub bits: Bits,
    /// The first layer to compare: descendants of the root.
    pub nodes: Nodes,
}

/// Fingerprints of nodes: for each of some parents, all its descendants `down` layers below.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawNodes")]
pub struct Nodes {
    layer: u8,
    down: u8,
    parents: Rising<NODES_MAX>,
    fingerprints: Fingerprints<NODES_MAX>,
}

/// The nodes asked about that differ, each in one of two lists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// Some of them with the responder's fingerprints one step further down; none once the leaves are reached.
    pub deeper: Option<Nodes>,
    /// The others.
    pub rest: Rising<NODES_MAX>,
}

/// Leaves as they are now, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawList")]
pub struct List {
    leaves: Rising<LEAVES_MAX>,
    fingerprints: Fingerprints<LEAVES_MAX>,
    /// Of the first leaf, everything up to this token is known already.
    pub after: Option<Token>,
}

/// The keys of leaves that still differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawListing")]
pub struct Listing {
    leaves: Vec<Leaf>,
    /// The asked leaves are answered up to this token, including it. One that is not listed is equal by now.
    pub through: Token,
}

/// The keys of one leaf, in the order of tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawLeaf")]
pub struct Leaf {
    index: u32,
    tokens: Rising<ENTRIES_MAX>,
    fingerprints: Fingerprints<ENTRIES_MAX>,
}

/// A message that contradicts itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a message of an exchange: its lists do not fit together")]
pub struct Malformed;

impl Request {
    /// Its bytes on the wire. *O(size)*.
    pub fn encoded_len(&self) -> usize {
        encoded_len(self)
    }

    /// The answer of a node that does not take part.
    pub fn refuse(&self, reason: Refused) -> Reply {
        Reply { exchange: self.exchange, step: self.step, answer: Answer::Refused(reason) }
    }
}

impl Reply {
    /// Its bytes on the wire. *O(size)*.
    pub fn encoded_len(&self) -> usize {
        encoded_len(self)
    }
}

impl Nodes {
    pub(crate) fn new(layer: u8, down: u8, parents: &[u32], fingerprints: Vec<Fingerprint>) -> Nodes {
        RawNodes {
            layer,
            down,
            parents: Rising::new(parents.iter().copied().map(u64::from)),
            fingerprints: Fingerprints::new(fingerprints),
        }
        .try_into()
        .expect("this side's lists fit together")
    }

    /// The layer of the parents; 0 is the root.
    pub fn layer(&self) -> u8 {
        self.layer
    }

    /// The layer of the nodes.
    pub fn node_layer(&self) -> u8 {
        self.layer + self.down
    }

    /// How many layers the nodes are below their parents.
    pub fn down(&self) -> u8 {
        self.down
    }

    /// The parents, in order.
    pub fn parents(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.parents.as_slice().iter().map(|&parent| parent as u32) // below 2^18, checked when made
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (u32, Fingerprint)> + '_ {
        let indices = self.parents().flat_map(|parent| (parent << self.down)..((parent + 1) << self.down));
        indices.zip(self.fingerprints.as_slice().iter().copied())
    }
}

impl List {
    pub(crate) fn new(leaves: Vec<(u32, Fingerprint)>, after: Option<Token>) -> List {
        List {
            leaves: Rising::new(leaves.iter().map(|leaf| leaf.0.into())),
            fingerprints: Fingerprints::new(leaves.into_iter().map(|leaf| leaf.1).collect()),
            after,
        }
    }

    /// The leaves, in order; never none.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = (u32, Fingerprint)> + '_ {
        let indices = self.leaves.as_slice().iter().map(|&leaf| leaf as u32); // below 2^18, checked when made
        indices.zip(self.fingerprints.as_slice().iter().copied())
    }
}

impl Listing {
    pub(crate) fn new(leaves: Vec<Leaf>, through: Token) -> Listing {
        RawListing { leaves, through }.try_into().expect("this side's lists fit together")
    }

    /// Those that still differ, in order.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Keys listed.
    pub fn entries(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.tokens.as_slice().len()).sum()
    }
}

impl Leaf {
    pub(crate) fn new(index: u32, exchange: ExchangeId, entries: &[(Token, Digest)]) -> Leaf {
        let print = |entry: &(Token, Digest)| Fingerprint::of(exchange, entry.1);
        Leaf {
            index,
            tokens: Rising::new(entries.iter().map(|entry| entry.0.0)),
            fingerprints: Fingerprints::new(entries.iter().map(print).collect()),
        }
    }

    /// Which leaf.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its keys.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (Token, Fingerprint)> + ExactSizeIterator + '_ {
        let tokens = self.tokens.as_slice().iter().map(|&token| Token(token));
        tokens.zip(self.fingerprints.as_slice().iter().copied())
    }
}

#[derive(Deserialize)]
struct RawNodes {
    layer: u8,
    down: u8,
    parents: Rising<NODES_MAX>,
    fingerprints: Fingerprints<NODES_MAX>,
}

impl TryFrom<RawNodes> for Nodes {
    type Error = Malformed;

    fn try_from(raw: RawNodes) -> Result<Nodes, Malformed> {
        let RawNodes { layer, down, parents, fingerprints } = raw;
        let deep = layer.checked_add(down).is_some_and(|below| below <= Bits::MAX.get()) && down > 0;
        let within = |parent: &u64| deep && *parent < 1 << layer;
        let fits = deep && fingerprints.as_slice().len() == parents.as_slice().len() << down;
        if fits && parents.as_slice().last().is_some_and(within) {
            Ok(Nodes { layer, down, parents, fingerprints })
        } else {
            Err(Malformed)
        }
    }
}

#[derive(Deserialize)]
struct RawList {
    leaves: Rising<LEAVES_MAX>,
    fingerprints: Fingerprints<LEAVES_MAX>,
    after: Option<Token>,
}

impl TryFrom<RawList> for List {
    type Error = Malformed;

    fn try_from(raw: RawList) -> Result<List, Malformed> {
        let RawList { leaves, fingerprints, after } = raw;
        let (indices, prints) = (leaves.as_slice(), fingerprints.as_slice());
        let within = indices.last().is_some_and(|last| *last < Bits::MAX.leaves().into());
        if within && indices.len() == prints.len() { Ok(List { leaves, fingerprints, after }) } else { Err(Malformed) }
    }
}

#[derive(Deserialize)]
struct RawListing {
    #[serde(deserialize_with = "at_most::<_, _, LEAVES_MAX>")]
    leaves: Vec<Leaf>,
    through: Token,
}

impl TryFrom<RawListing> for Listing {
    type Error = Malformed;

    fn try_from(raw: RawListing) -> Result<Listing, Malformed> {
        let rising = raw.leaves.windows(2).all(|pair| pair[0].index < pair[1].index);
        let entries: usize = raw.leaves.iter().map(|leaf| leaf.tokens.as_slice().len()).sum();
        if rising && entries <= ENTRIES_MAX {
            Ok(Listing { leaves: raw.leaves, through: raw.through })
        } else {
            Err(Malformed)
        }
    }
}

#[derive(Deserialize)]
struct RawLeaf {
    index: u32,
    tokens: Rising<ENTRIES_MAX>,
    fingerprints: Fingerprints<ENTRIES_MAX>,
}

impl TryFrom<RawLeaf> for Leaf {
    type Error = Malformed;

    fn try_from(raw: RawLeaf) -> Result<Leaf, Malformed> {
        let RawLeaf { index, tokens, fingerprints } = raw;
        if tokens.as_slice().len() == fingerprints.as_slice().len() {
            Ok(Leaf { index, tokens, fingerprints })
        } else {
            Err(Malformed)
        }
    }
}

pub(crate) fn encoded_len(message: &impl Serialize) -> usize {
    postcard::experimental::serialized_size(message).expect("messages hold no type that postcard cannot write")
}

/// Version of this conversation together with that of [`Digest`]: replicas that digest in different ways would take
/// every key to differ.
pub const FORMAT: u8 = 1;

/// Most nodes in one message: 32 KiB of fingerprints.
pub const NODES_MAX: usize = 4096;

/// Most leaves asked for in one message: 10 KiB.
pub const LEAVES_MAX: usize = 1024;

/// Most keys listed in one message: about 14 bytes each, at most 19, which stays within 64 KiB. It also bounds the
/// records read in one call of a machine, a few milliseconds.
pub const ENTRIES_MAX: usize = 3072;

/// Most differing keys named at a time, so that repairs go out in portions which their owner can hold back.
pub const DIFFER_MAX: usize = 1000;

#[cfg(test)]
mod tests;
