//! What a replica holds of one key, and the algebra that keeps replicas equal.
//!
//! This is the dotted version vector set of Almeida et al. 2014 with explicit dots, so that the counters of a key may
//! have gaps (they count the writes of a partition, not of a key).
//!
//! ```text
//! a dot covered by `vv` and absent from `live` has been overwritten
//!
//! event(S, ctx, dot, v):  live = { values x in S.live : dot(x) not covered by ctx } + (dot, v)    vv = S.vv ⊔ ctx ⊔ {dot}
//! merge(A, B):            live = (A ∩ B) ∪ { A's not covered by B.vv } ∪ { B's not covered by A.vv }   vv = A.vv ⊔ B.vv
//! ```
//! A new write also takes the place of every tombstone here, seen or not: a tombstone holds nothing that could be lost, what
//! it removed stays covered by `vv`, and so no state ever holds two tombstones of one actor, however often a key is deleted.
//!
//! Laws, each a property test below: merge is commutative, associative and idempotent; a context removes exactly the values
//! it has seen; no merge loses a sibling that the other side has not seen.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::dot::Dot;
use super::hlc::Hlc;
use super::version_vector::VersionVector;
use super::write_id::WriteId;

/// Everything a replica knows of one key. `P` is what it keeps of each live write: the [`Version`] itself, or only
/// its [`Outline`] (then the whole is a [`Header`]).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawSiblings<P>", bound(deserialize = "P: Payload + Deserialize<'de>", serialize = "P: Serialize"))]
pub struct Siblings<P = Version> {
    vv: VersionVector,
    live: Vec<(Dot, P)>,
}

/// Siblings without their values: what a digest read answers, a header cache keeps, and a digest covers.
pub type Header = Siblings<Outline>;

/// One write: a value, or a tombstone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The bytes written; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Names the client's attempt, so that a retry is recognised.
    pub write_id: WriteId,
    /// When, by hybrid logical clock.
    pub written_at: Hlc,
}

/// A version without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outline {
    /// Names the client's attempt.
    pub write_id: WriteId,
    /// When, by hybrid logical clock.
    pub written_at: Hlc,
    /// Length of the value in bytes; `None` is a tombstone.
    pub len: Option<u32>,
    /// xxh3-64 of the value, 0 for a tombstone: makes a reused dot visible, and equal retries recognisable.
    pub value_hash: u64,
}

/// What [`Siblings`] need to know of the things they hold.
pub trait Payload: Clone {
    /// Whether this write was a delete.
    fn is_tombstone(&self) -> bool;
    /// When it was written.
    fn written_at(&self) -> Hlc;
    /// Names the client's attempt.
    fn write_id(&self) -> WriteId;
    /// The same without its value.
    fn outline(&self) -> Outline;
}

/// Siblings that break an invariant: live dots must be sorted, distinct and covered by the vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a sibling set: live dots must be sorted, distinct and covered by the vector")]
pub struct MalformedSiblings;

impl<P> Default for Siblings<P> {
    fn default() -> Self {
        Siblings { vv: VersionVector::new(), live: Vec::new() }
    }
}

impl<P: Payload> Siblings<P> {
    /// The state of a key that was never written.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a vector and live writes together.
    ///
    /// # Errors
    /// [`MalformedSiblings`] unless the dots are sorted, distinct and covered by `vv`.
    pub fn from_parts(vv: VersionVector, live: Vec<(Dot, P)>) -> Result<Self, MalformedSiblings> {
        let sorted = live.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let covered = live.iter().all(|(dot, _)| dot.counter > 0 && vv.covers(*dot));
        if sorted && covered { Ok(Siblings { vv, live }) } else { Err(MalformedSiblings) }
    }

    /// A new write: drops the values that `context` has seen, and all tombstones, and adds this one.
    ///
    /// The dot must be fresh: neither covered by this state nor by the context.
    pub fn event(&mut self, context: &VersionVector, dot: Dot, payload: P) {
        assert!(!self.vv.covers(dot), "dot {dot} was stamped before");
        self.live.retain(|(seen, payload)| survives(context, *seen, payload));
        let at = self.live.partition_point(|(other, _)| *other < dot);
        self.live.insert(at, (dot, payload));
        self.vv.join(context);
        self.vv.add(dot);
    }

    /// Those live values that a write with this context would leave beside it.
    pub fn survivors<'a>(&'a self, context: &'a VersionVector) -> impl Iterator<Item = &'a (Dot, P)> + 'a {
        self.live.iter().filter(|(seen, payload)| survives(context, *seen, payload))
    }

    /// Takes in what another replica knows. A sibling survives unless the other side has seen it and no longer holds
    /// it. Equal dots are taken to be equal writes.
    pub fn merge(&mut self, other: &Self) {
        if self.vv == other.vv && self.same_dots(other) {
            return;
        }
        let mut live = Vec::with_capacity(self.live.len() + other.live.len());
        let (mut mine, mut theirs) = (self.live.drain(..).peekable(), other.live.iter().peekable());
        loop {
            match (mine.peek(), theirs.peek()) {
                (Some((a, _)), Some((b, _))) if a == b => {
                    live.extend(mine.next());
                    theirs.next();
                }
                (Some((a, _)), b) if b.is_none_or(|(b, _)| a < b) => {
                    live.extend(mine.next().filter(|(dot, _)| !other.vv.covers(*dot)));
                }
                (_, Some(_)) => live.extend(theirs.next().filter(|(dot, _)| !self.vv.covers(*dot)).cloned()),
                (_, None) => break,
            }
        }
        drop(mine);
        self.live = live;
        self.vv.join(&other.vv);
    }

    /// Keeps only the largest (written_at, dot): the last-writer-wins policy. Returns how many concurrent writes were
    /// discarded.
    pub fn keep_last(&mut self) -> usize {
        let Some(last) = self.live.iter().map(|(dot, payload)| (payload.written_at(), *dot)).max() else {
            return 0;
        };
        let before = self.live.len();
        self.live.retain(|(dot, _)| *dot == last.1);
        before - self.live.len()
    }

    /// Everything seen of this key. Handed to a reader, it is the context that replaces exactly what was read.
    pub fn vv(&self) -> &VersionVector {
        &self.vv
    }

    /// The writes not overwritten, sorted by dot, tombstones included.
    pub fn live(&self) -> &[(Dot, P)] {
        &self.live
    }

    /// The live writes that are values.
    pub fn values(&self) -> impl Iterator<Item = &P> + '_ {
        self.live.iter().map(|(_, payload)| payload).filter(|payload| !payload.is_tombstone())
    }

    /// Whether any live write is a value.
    pub fn has_values(&self) -> bool {
        self.values().next().is_some()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.vv.is_empty()
    }

    /// The largest time of any live write.
    pub fn written_at(&self) -> Hlc {
        self.live.iter().map(|(_, payload)| payload.written_at()).max().unwrap_or_default()
    }

    /// The live write with this attempt's id.
    pub fn with_write_id(&self, id: WriteId) -> Option<&(Dot, P)> {
        self.live.iter().find(|(_, payload)| payload.write_id() == id)
    }

    /// The live write with this dot.
    pub fn get(&self, dot: Dot) -> Option<&P> {
        self.live.binary_search_by_key(&dot, |entry| entry.0).ok().map(|at| &self.live[at].1)
    }

    /// Whether the write named by `dot` has arrived here: it is live, or was overwritten.
    pub fn covers(&self, dot: Dot) -> bool {
        self.vv.covers(dot)
    }

    /// Whether merging `other` would change nothing.
    pub fn includes<Q: Payload>(&self, other: &Siblings<Q>) -> bool {
        self.vv.covers_all(&other.vv)
            && other.live.iter().all(|(dot, _)| self.get(*dot).is_some() || self.vv.covers(*dot))
            && self.live.iter().all(|(dot, _)| other.get(*dot).is_some() || !other.vv.covers(*dot))
    }

    /// The same without values.
    pub fn header(&self) -> Header {
        Siblings {
            vv: self.vv.clone(),
            live: self.live.iter().map(|(dot, payload)| (*dot, payload.outline())).collect(),
        }
    }

    /// The same in parts, whose merge it is, in whatever order they are merged and whatever else: each is about one actor, whose dots no
    /// other part covers. Those with values come first: the others only remove.
    pub fn by_actor(&self) -> Vec<Self> {
        let part = |(actor, counter)| {
            let live: Vec<_> = self.live.iter().filter(|(dot, _)| dot.actor == actor).cloned().collect();
            Siblings { vv: VersionVector::from_iter([Dot::new(actor, counter)]), live }
        };
        let (mut parts, others): (Vec<_>, Vec<_>) =
            self.vv.iter().map(part).partition(|part| part.live.iter().any(|(_, payload)| !payload.is_tombstone()));
        let mut rest = Siblings::default();
        others.iter().for_each(|part| rest.merge(part));
        parts.extend((!rest.vv.is_empty()).then_some(rest));
        parts
    }

    fn same_dots(&self, other: &Self) -> bool {
        self.live.len() == other.live.len() && self.live.iter().zip(&other.live).all(|(a, b)| a.0 == b.0)
    }
}

/// What a new write with this context leaves.
fn survives(context: &VersionVector, dot: Dot, payload: &impl Payload) -> bool {
    !payload.is_tombstone() && !context.covers(dot)
}

impl Siblings<Version> {
    /// Bytes of all live values together.
    pub fn value_bytes(&self) -> usize {
        self.values().map(|version| version.value.as_ref().map_or(0, Bytes::len)).sum()
    }

    /// Merges what another replica knows from its header alone. Possible exactly when every value that survives is at
    /// hand; otherwise nothing changes, the answer is false, and the full state has to be asked for.
    #[must_use]
    pub fn merge_header(&mut self, header: &Header) -> bool {
        if !header.live.iter().all(|(dot, _)| self.get(*dot).is_some() || self.vv.covers(*dot)) {
            return false;
        }
        self.live.retain(|(dot, _)| header.get(*dot).is_some() || !header.vv.covers(*dot));
        self.vv.join(&header.vv);
        true
    }
}

impl Siblings<Outline> {
    /// Bytes of all live values together.
    pub fn value_bytes(&self) -> usize {
        self.live.iter().filter_map(|(_, outline)| outline.len).map(|len| len as usize).sum()
    }
}

impl Payload for Version {
    fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    fn written_at(&self) -> Hlc {
        self.written_at
    }

    fn write_id(&self) -> WriteId {
        self.write_id
    }

    fn outline(&self) -> Outline {
        Outline {
            write_id: self.write_id,
            written_at: self.written_at,
            len: self.value.as_ref().map(|value| value.len() as u32),
            value_hash: self.value.as_ref().map_or(0, |value| xxh3_64(value)),
        }
    }
}

impl Payload for Outline {
    fn is_tombstone(&self) -> bool {
        self.len.is_none()
    }

    fn written_at(&self) -> Hlc {
        self.written_at
    }

    fn write_id(&self) -> WriteId {
        self.write_id
    }

    fn outline(&self) -> Outline {
        *self
    }
}

#[derive(Deserialize)]
struct RawSiblings<P> {
    vv: VersionVector,
    live: Vec<(Dot, P)>,
}

impl<P: Payload> TryFrom<RawSiblings<P>> for Siblings<P> {
    type Error = MalformedSiblings;

    fn try_from(raw: RawSiblings<P>) -> Result<Self, MalformedSiblings> {
        Siblings::from_parts(raw.vv, raw.live)
    }
}

#[cfg(test)]
mod tests;
