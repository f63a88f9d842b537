//! What operations give back: values with the context to replace them, and how far a write got.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use driftless_proto::client::{self, Basis, Sibling};
use driftless_proto::observed::Explanation;
use driftless_proto::{ContextError, ContextToken};
use serde::{Deserialize, Serialize};

use crate::told::{Told, Tried};

/// What a reader saw of a key. Given to a put or delete, it makes it replace exactly that.
///
/// It is opaque, belongs to one key of one bucket, and can be kept as text ([`Display`](fmt::Display) and [`FromStr`])
/// for as long as the cluster exists.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
#[must_use = "a context is what lets the next put replace what was read"]
pub struct Context(pub(crate) ContextToken);

/// What a get found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[must_use = "a read may hold siblings, and the context that a write needs to replace them"]
pub struct Read {
    siblings: Vec<Sibling>,
    context: Option<Context>,
    primaries: u8,
    needed: u8,
    #[serde(default)]
    told: Told,
}

/// A key has several values where one was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the key has {siblings} siblings; read them, merge them, and write the result with the context of that read")]
pub struct Conflict {
    /// How many: at least two.
    pub siblings: usize,
}

/// A read whose siblings were made one value.
#[derive(Clone, PartialEq, Debug)]
#[must_use = "write the value back with the context, or the siblings remain"]
pub struct Resolved<T> {
    /// The value.
    pub value: T,
    /// How many siblings it was made of.
    pub siblings: usize,
    pub(crate) context: Option<Context>,
}

/// A put that was acknowledged.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    stored: client::Stored,
    told: Told,
}

/// A delete that was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deleted {
    existed: bool,
    acks: u8,
    primaries: u8,
    siblings: u32,
    told: Told,
}

/// An update that was carried out.
#[derive(Clone, PartialEq, Debug)]
pub struct Updated<T = Bytes> {
    pub(crate) context: Option<Context>,
    pub(crate) siblings: u32,
    pub(crate) rounds: u32,
    pub(crate) written: bool,
    pub(crate) value: Option<T>,
}

/// Things that can be given as a context: a context, a reference to one, or an option of either. `None` makes the
/// write blind.
pub trait IntoContext {
    /// The context, if there is one.
    fn into_context(self) -> Option<Context>;
}

impl Context {
    /// The context's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Read {
    pub(crate) fn new(read: client::Read, told: Told) -> Read {
        let client::Read { siblings, context, basis: Basis { primaries, needed }, .. } = read;
        Read { siblings, context: context.map(Context), primaries, needed, told }
    }

    /// The values: none if the key does not exist, several if they were written concurrently.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Bytes> + DoubleEndedIterator {
        self.siblings.iter().map(|sibling| &sibling.value)
    }

    /// The one value of the key, or `None` if it has none. Whoever goes on to write after this writes with the
    /// [`context`](Read::context), also if nothing was found.
    ///
    /// ```no_run
    /// # async fn example(carts: driftless_client::Bucket) -> Result<(), Box<dyn std::error::Error>> {
    /// let cart = carts.get("alice").await?.one()?.cloned();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Conflict`] if there are several, none of which is more right than the others: merge all [`values`](Read::values), or
    /// read with a [resolver](crate::Get::resolve). They must not be taken for nothing, and overwritten or ignored.
    pub fn one(&self) -> Result<Option<&Bytes>, Conflict> {
        match &*self.siblings {
            [] => Ok(None),
            [only] => Ok(Some(&only.value)),
            several => Err(Conflict { siblings: several.len() }),
        }
    }

    /// The values with the times of their writing.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Whether the key has any value.
    pub fn exists(&self) -> bool {
        !self.siblings.is_empty()
    }

    /// What this read saw; give it to the write that is to replace it. `None` if the key was never written.
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// How many of the answers that it rests on came from the key's own replicas; the other answers came from nodes that stand
    /// in for a replica, and know only what they were given since it went away.
    pub fn primaries(&self) -> u8 {
        self.primaries
    }

    /// How many answers were needed.
    pub fn needed(&self) -> u8 {
        self.needed
    }

    /// Whether this can be relied on as far as existence goes: a value was found, or as many of the key's own replicas as must
    /// answer say that there is none. A [`get`](crate::Bucket::get) that is not certain is an error,
    /// [`GetError::NotCertain`](crate::GetError::NotCertain), which holds the read.
    pub fn is_certain(&self) -> bool {
        self.exists() || self.primaries >= self.needed
    }

    /// What each replica said, if the read was made with [`explain`](crate::Get::explain).
    pub fn explanation(&self) -> Option<&Explanation> {
        self.told.explanation.as_deref()
    }

    /// What was tried besides, if the read was made with [`explain`](crate::Get::explain).
    pub fn tried(&self) -> &[Tried] {
        &self.told.tried
    }

    /// The values and the context, without a copy.
    pub fn into_parts(self) -> (Vec<Sibling>, Option<Context>) {
        (self.siblings, self.context)
    }
}

impl<T> Resolved<T> {
    /// What was read; give it to the write that is to replace it. `None` if the key was never written.
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }
}

impl Stored {
    pub(crate) fn new(stored: client::Stored, told: Told) -> Stored {
        Stored { stored, told }
    }

    /// The context of the value written, if it is now the only one. With siblings there is none: using it would
    /// overwrite them unseen. Read the key first.
    pub fn context(&self) -> Option<Context> {
        self.stored.context.clone().map(Context)
    }

    /// Replicas that had acknowledged when the coordinator answered.
    pub fn acks(&self) -> u8 {
        self.stored.acks
    }

    /// How many of them were primaries; the others are fallbacks, each in place of one.
    pub fn primaries(&self) -> u8 {
        self.stored.primaries
    }

    /// Values that the key has now.
    pub fn siblings(&self) -> u32 {
        self.stored.siblings
    }

    /// Whether the value written is one of them. Not if this was a put made before under the same
    /// [write id](crate::Put::write_id) that has been replaced or deleted since: it is the same put, and is not made again. And
    /// not in a bucket where the last writer wins if the key holds something of a later time.
    pub fn is_live(&self) -> bool {
        self.stored.live
    }

    /// What each replica did, if the put was made with [`explain`](crate::Put::explain).
    pub fn explanation(&self) -> Option<&Explanation> {
        self.told.explanation.as_deref()
    }

    /// What was tried besides, if it was.
    pub fn tried(&self) -> &[Tried] {
        &self.told.tried
    }
}

impl Deleted {
    pub(crate) fn new(deleted: &client::Deleted, told: Told) -> Deleted {
        let &client::Deleted { existed, acks, primaries, siblings, basis: _ } = deleted;
        Deleted { existed, acks, primaries, siblings, told }
    }

    /// Whether it removed a value. If not, all that it had seen was gone already, and no tombstone was written.
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// Replicas that had acknowledged when the coordinator answered.
    pub fn acks(&self) -> u8 {
        self.acks
    }

    /// How many of them were primaries; the others are fallbacks, each in place of one.
    pub fn primaries(&self) -> u8 {
        self.primaries
    }

    /// Values that the key still has: concurrent writes survive a delete.
    pub fn siblings(&self) -> u32 {
        self.siblings
    }

    /// What each replica did, if the delete was made with [`explain`](crate::Delete::explain).
    pub fn explanation(&self) -> Option<&Explanation> {
        self.told.explanation.as_deref()
    }

    /// What was tried besides, if it was.
    pub fn tried(&self) -> &[Tried] {
        &self.told.tried
    }
}

impl<T> Updated<T> {
    /// The value that was written, as the change made it in the last round that wrote; `None` if it removed the key or kept
    /// what was there. Others may have replaced it since.
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The same without a copy.
    pub fn into_value(self) -> Option<T> {
        self.value
    }

    /// The context of the value written, if it is now the only one.
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// Values that the key has now. More than one if others kept writing through all rounds: nothing is lost, and
    /// the next update merges them.
    pub fn siblings(&self) -> u32 {
        self.siblings
    }

    /// How often the key was read and the closure called.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Whether anything was written or removed.
    pub fn written(&self) -> bool {
        self.written
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Context {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Context, ContextError> {
        text.parse().map(Context)
    }
}

impl IntoContext for Context {
    fn into_context(self) -> Option<Context> {
        Some(self)
    }
}

impl IntoContext for &Context {
    fn into_context(self) -> Option<Context> {
        Some(self.clone())
    }
}

impl IntoContext for Option<Context> {
    fn into_context(self) -> Option<Context> {
        self
    }
}

impl IntoContext for Option<&Context> {
    fn into_context(self) -> Option<Context> {
        self.cloned()
    }
}
