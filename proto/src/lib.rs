//! The words every Driftless party shares.
//!
//! Nodes, clients, tests and benchmarks import this crate and mean the same things by the same names:
//!
//! ```text
//! key.rs        BucketId, BucketName, Key          what is stored, and its limits
//! bucket.rs     Quorum, BucketDefinition           how a bucket behaves: n, r, w, conflict policy, durability
//! topology.rs   Topology                           ring + buckets: all a client must know to route
//! causality/    Dot, VersionVector, Siblings       which write has seen which; the algebra of merge
//!               ContextToken                       what a reader saw, sealed so that it cannot be forged
//!               Hlc                                a hybrid logical clock, for display and LWW buckets only
//! client.rs     Request, Response                  the whole conversation between a client and a node
//! observed.rs   Observed, Explained                a request that is explained or traced, and its explanation
//! figures.rs    Figures                        what a node measures of itself, for who looks at a whole cluster
//! top.rs        Top                            which keys are hot, large or have many siblings; how answers of several become one
//! error.rs      Failure: Refused | Unknown         what went wrong, and whether anything may have happened
//! apart.rs      Apart                            how far two clocks are apart, in words
//! membership.rs Record, Change                     what a cluster agrees on, and how an operator changes it
//! role.rs       Role                               what a client may do
//! trace.rs      TraceContext                       the name under which one request is found at several nodes
//! latency.rs    LatencyEstimate                    how long something usually takes (RFC 6298)
//! frame.rs      frames                             length-prefixed messages on a byte stream
//! greeting.rs   ProtocolVersions                   the first frame, and the version that a connection goes by
//! ```
//!
//! Nothing here performs I/O, reads a clock or draws a random number.

pub mod access;
pub mod apart;
pub mod bucket;
pub mod causality;
pub mod client;
pub mod error;
pub mod figures;
pub mod frame;
pub mod greeting;
pub mod key;
pub mod latency;
pub mod membership;
pub mod observed;
pub mod role;
pub mod state_pages;
pub mod top;
pub mod topology;
pub mod trace;

pub use access::{AccessChange, AgreedAccess, Denial, Grant, Serial};
pub use apart::Apart;
pub use bucket::{BucketDefinition, Conflict, Durability, Quorum, QuorumError};
pub use causality::{
    ActorId, Context, ContextError, ContextKeys, ContextToken, Dot, Header, Hlc, MalformedWriteId, Outline, Siblings,
    Version, VersionVector, WriteId,
};
pub use error::{Failure, Missing, Outcome, Refusal, Scope, Unknown};
pub use greeting::{ProtocolVersion, ProtocolVersions};
pub use key::{BucketId, BucketName, Key, KeyError};
pub use latency::LatencyEstimate;
pub use role::Role;
pub use state_pages::StatePages;
pub use topology::Topology;
pub use trace::{MalformedTraceContext, TraceContext};
