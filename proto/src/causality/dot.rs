//! One write, named.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who stamped a write: a random number drawn by one partition of one store at one start.
///
/// An actor never forgets: the store retires it the moment it may have lost or removed anything that the actor
/// stamped, so that a dot is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorId(pub u64);

/// The name of one write: its actor, and the how-manieth write of that actor it was (from 1, without gaps, over all
/// keys of the actor's partition).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who stamped it.
    pub actor: ActorId,
    /// Position among that actor's writes, from 1.
    pub counter: u64,
}

impl Dot {
    /// The `counter`-th write of `actor`.
    pub const fn new(actor: ActorId, counter: u64) -> Dot {
        Dot { actor, counter }
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
