//! What can go wrong, and whether anything may have happened.
//!
//! There are two kinds and no third. *Refused*: nothing was applied anywhere and nothing will be. *Unknown*: the
//! request may have taken effect on some replicas and may spread; repeating it with the same write id is safe.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::apart::Apart;
use crate::bucket::QuorumError;
use crate::causality::ContextError;
use crate::role::Role;

/// Why a request did not succeed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Failure {
    /// Nothing happened.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may have happened.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

/// Whether a failed request may have changed anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing happened.
    Refused,
    /// It may have happened.
    Unknown,
}

/// Of what a refusal speaks, and so who may still take the request: see [`Refusal::scope`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Of the node that refused, as it is now. Another one may take the request, or this one later.
    Node,
    /// Of the request. Any node would refuse it, until something else is asked.
    Request,
}

/// Nothing was applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// Fewer replicas can be reached than the request asks for.
    #[error("not enough replicas: {needed} needed, {available} can be reached; start the missing nodes{}", Fewer(*needed))]
    NotEnoughReplicas {
        /// r or w of the request.
        needed: u8,
        /// How many of the key's replicas could be reached.
        available: u8,
    },
    /// The node has more to do than its queues hold.
    #[error("overloaded; try again in {retry_after_ms} ms")]
    Overloaded {
        /// How long to wait before trying again, in milliseconds.
        retry_after_ms: u32,
    },
    /// The key would hold more siblings than are allowed.
    #[error(
        "with this write the key would have {siblings} siblings of {bytes} bytes, which is over the limit; read it and write a merged value with the context of that read"
    )]
    TooManySiblings {
        /// Live siblings that the write would have left.
        siblings: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// The value is longer than the node accepts.
    #[error("the value has {bytes} bytes, the limit is {max}; split it over several keys")]
    ValueTooLarge {
        /// Length of the value.
        bytes: u64,
        /// The node's limit.
        max: u64,
    },
    /// The context token cannot be used.
    #[error("bad context: {0}")]
    BadContext(#[from] ContextError),
    /// The cluster has no such bucket.
    #[error("no such bucket; `driftless bucket list` shows those that exist")]
    NoSuchBucket,
    /// r or w does not fit the bucket's n.
    #[error("bad quorum: {0}")]
    BadQuorum(#[from] QuorumError),
    /// A forwarded request reached a node that may not coordinate it.
    #[error("the node does not store this key and was asked not to forward; try another node")]
    NotCoordinator,
    /// The replica does not own the key's partition.
    #[error("the node does not own the key's partition in its ring version {ring_version}; fetch the ring again")]
    NotOwner {
        /// Version of the node that refused.
        ring_version: u64,
    },
    /// The sender goes by an older ring than the node, where an answer would count by owners.
    #[error("the request was made with ring version {theirs}, the node has {ours}; fetch the ring again")]
    StaleRing {
        /// Version the request carried.
        theirs: u64,
        /// Version of the node.
        ours: u64,
    },
    /// The write id was used before with another value or context.
    #[error("this write id was used before for another value or context; draw a new one for each write")]
    WriteIdReused,
    /// The clock of the node that was to stamp the write is far from those of most nodes that it hears: it stamps nothing until
    /// it is right again. That is not the node that was asked if that one has passed the write on.
    #[error(
        "the clock of the node that was to stamp this is {} those of most others, so it takes no puts and deletes until it is \
         right again; `driftless status` names it: set its clock (NTP), and ask another node meanwhile", Apart::of(*ahead_ms)
    )]
    ClockOff {
        /// By how many milliseconds it is ahead of them; below zero if it is behind.
        ahead_ms: i64,
    },
    /// The replica's disk has no room.
    #[error("the disk of a replica is full; free some space or add nodes")]
    StorageFull,
    /// The node is going away, or an operator has told it to take no requests.
    #[error("the node takes no requests: it is being drained, or is shutting down; try another node")]
    Stopping,
    /// The request makes no sense to this node.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// The node holds as much for unreachable nodes as it may, and stands in for no more of them.
    #[error("the node holds as much for unreachable nodes as it may; bring those nodes back, or raise its limits")]
    HintsFull,
    /// The replica's copy of the key is damaged.
    #[error("the replica's copy of the key is damaged and is being restored from the others; try another node")]
    Damaged,
    /// The certificate that the client has shown does not allow the request.
    #[error(
        "not allowed: {certificate} has the role {role}{missing}, and this takes the role {needed}; roles are given by the nodes' access files and by `driftless cert client --role`"
    )]
    NotAllowed {
        /// Whom the client's certificate names.
        certificate: String,
        /// What it may do.
        role: Role,
        /// What the request takes.
        needed: Role,
        /// In what the certificate falls short of that.
        missing: Missing,
    },
    /// The replica's store has lost what it held, or does not hold all yet that it must: it takes writes and answers no reads.
    #[error(
        "the node does not hold yet what it must, and answers no reads until it does; `driftless status` says what is missing; try another node"
    )]
    Unready,
    /// A change of members or buckets that cannot be made.
    #[error("{0}")]
    Membership(String),
}

/// In what a certificate falls short of what a request takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Missing {
    /// It has another role.
    Role,
    /// Its role is not for this bucket.
    Bucket(String),
    /// Its role is not for all buckets, and the request concerns the whole node.
    Buckets,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Role => Ok(()),
            Missing::Bucket(bucket) => write!(f, ", but not in bucket {bucket}"),
            Missing::Buckets => f.write_str(" in some buckets only"),
        }
    }
}

/// What else can be done if so many replicas are needed: nobody can ask for fewer than one.
struct Fewer(u8);

impl fmt::Display for Fewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { f.write_str(", or ask for fewer with a smaller r or w") } else { Ok(()) }
    }
}

/// It may have been applied somewhere, and may spread.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unknown {
    /// Too few answers before the deadline.
    #[error("timed out with {acks} of {needed} answers")]
    Timeout {
        /// Answers that came.
        acks: u8,
        /// Answers needed.
        needed: u8,
    },
    /// The node that coordinated it stopped or lost its way in the middle.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

impl Failure {
    /// Whether anything may have happened.
    pub fn outcome(&self) -> Outcome {
        match self {
            Failure::Refused(_) => Outcome::Refused,
            Failure::Unknown(_) => Outcome::Unknown,
        }
    }
}

impl Refusal {
    /// It in a word or two, for tables and lines.
    pub fn word(&self) -> &'static str {
        match self {
            Refusal::NotEnoughReplicas { .. } => "too few replicas",
            Refusal::Overloaded { .. } => "overloaded",
            Refusal::TooManySiblings { .. } => "too many siblings",
            Refusal::ValueTooLarge { .. } => "value too large",
            Refusal::BadContext(_) => "bad context",
            Refusal::NoSuchBucket => "no such bucket",
            Refusal::BadQuorum(_) => "bad quorum",
            Refusal::NotCoordinator => "not an owner",
            Refusal::NotOwner { .. } => "not an owner",
            Refusal::StaleRing { .. } => "older ring",
            Refusal::WriteIdReused => "write id reused",
            Refusal::ClockOff { .. } => "clock off",
            Refusal::StorageFull => "disk full",
            Refusal::Stopping => "stopping",
            Refusal::BadRequest(_) => "bad request",
            Refusal::HintsFull => "hints full",
            Refusal::Damaged => "damaged",
            Refusal::NotAllowed { .. } => "not allowed",
            Refusal::Unready => "not ready",
            Refusal::Membership(_) => "members",
        }
    }

    /// Whether it is one node's or the request's. The one place where this is said: who adds a refusal decides it here,
    /// and clients that retry, rigs that expect success after healing, and documents follow.
    pub fn scope(&self) -> Scope {
        match self {
            // How a node stands: its view of the others, its load, its disk, its clock, its ring, its copy of the key.
            Refusal::NotEnoughReplicas { .. }
            | Refusal::Overloaded { .. }
            | Refusal::NotCoordinator
            | Refusal::NotOwner { .. }
            | Refusal::StaleRing { .. }
            | Refusal::ClockOff { .. }
            | Refusal::StorageFull
            | Refusal::Stopping
            | Refusal::HintsFull
            | Refusal::Unready
            | Refusal::Damaged => Scope::Node,
            // What was asked, and by whom: its value, its names, its quorum, its asker's role, and what the key holds already.
            Refusal::TooManySiblings { .. }
            | Refusal::ValueTooLarge { .. }
            | Refusal::BadContext(_)
            | Refusal::NoSuchBucket
            | Refusal::BadQuorum(_)
            | Refusal::WriteIdReused
            | Refusal::NotAllowed { .. }
            | Refusal::Membership(_)
            | Refusal::BadRequest(_) => Scope::Request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_ask_for_fewer_replicas_than_one() {
        let said = |needed| Refusal::NotEnoughReplicas { needed, available: 0 }.to_string();
        assert!(said(2).ends_with("start the missing nodes, or ask for fewer with a smaller r or w"), "{}", said(2));
        assert!(said(1).ends_with("start the missing nodes"), "{}", said(1));
    }

    #[test]
    fn a_refusal_says_whose_clock_whose_role_and_which_number_it_means() {
        // Who passes it on to a client is named by the client, and may have a clock that is right.
        let clock = Refusal::ClockOff { ahead_ms: 86_400_000 }.to_string();
        assert!(clock.starts_with("the clock of the node that was to stamp this is 1day ahead of those of"), "{clock}");
        let refused = |needed, missing| {
            let certificate = "driftless://shop/client/web".to_owned();
            Refusal::NotAllowed { certificate, role: Role::Reader, needed, missing }.to_string()
        };
        let role = refused(Role::Writer, Missing::Role);
        let expected = "not allowed: driftless://shop/client/web has the role reader, and this takes the role writer; ";
        assert!(role.starts_with(expected), "{role}");
        let bucket = refused(Role::Reader, Missing::Bucket("carts".to_owned()));
        assert!(
            bucket.contains("the role reader, but not in bucket carts, and this takes the role reader"),
            "{bucket}"
        );
        // 64 are there, and 65 would be.
        let full = Refusal::TooManySiblings { siblings: 65, bytes: 65 }.to_string();
        assert!(full.starts_with("with this write the key would have 65 siblings of 65 bytes"), "{full}");
    }
}
