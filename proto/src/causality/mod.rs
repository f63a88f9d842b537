//! Which write has seen which: dots, version vectors, siblings, and the context that a reader hands back.
//!
//! ```text
//! Dot            one write: (actor, counter)
//! VersionVector  a set of dots without gaps per actor: "everything up to here"
//! Siblings       what a replica holds of one key: a vector of all it has seen, and the dots still live
//! ContextToken   a sealed VersionVector: what a client has read, and may therefore replace
//! ```
//! No clock decides between live values; [`Hlc`] exists for people to look at and for buckets that opted into
//! last-writer-wins.

mod context;
mod dot;
mod hlc;
mod siblings;
mod version_vector;
mod write_id;

pub use context::{Context, ContextError, ContextKey, ContextKeys, ContextToken};
pub use dot::{ActorId, Dot};
pub use hlc::Hlc;
pub use siblings::{Header, MalformedSiblings, Outline, Payload, Siblings, Version};
pub use version_vector::{MalformedVector, VersionVector};
pub use write_id::{MalformedWriteId, WriteId};
