//! The client of Driftless, a leaderless key-value store.
//!
//! Any node can take a write, also while others cannot be reached. Writes that did not see each other are both kept,
//! as *siblings*, until a write that has seen them replaces them. So a read may find several values, and hands out a
//! *context* that says what it saw.
//!
//! ```no_run
//! use driftless_client::{Client, Identity};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder()
//!     .seeds(["127.0.0.1:7400", "127.0.0.1:7410"])
//!     .identity(Identity::from_pem_files("ca.pem", "client.pem", "client.key")?)
//!     .connect()
//!     .await?;
//! let carts = client.bucket("carts");
//!
//! // One value, none, or an error that says that there are several.
//! let read = carts.get("alice").await?;
//! if let Some(cart) = read.one()? {
//!     println!("{} bytes", cart.len());
//! }
//!
//! // A put with the context of a read replaces exactly what was read.
//! let done = carts.put("alice", "apples").context(read.context()).w(3).await?;
//! println!("{} acknowledgements, {} values now", done.acks(), done.siblings());
//!
//! // Both at once, and again if somebody else wrote meanwhile. All siblings are there to be merged.
//! carts
//!     .update("alice", |siblings| {
//!         let mut items: Vec<_> = siblings.iter().flat_map(|sibling| sibling.value.split(|c| *c == b' ')).collect();
//!         items.push(b"pears");
//!         items.sort_unstable();
//!         items.dedup();
//!         items.join(&b' ')
//!     })
//!     .await?;
//!
//! carts.delete("alice").await?;
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Requests
//!
//! [`Client`] and [`Bucket`] are cheap to clone and can be shared by all tasks; many requests share one connection
//! per node. A request is a builder ([`Get`], [`Put`], [`Delete`], [`Update`], [`MultiPut`], …) that is
//! awaited, or sent with `.send()`, which saves a box. [`Bucket::scan`] gives a stream of keys. Keys and values are
//! bytes; [`Bucket::typed`] is a bucket whose values are of one type, by serde or by a [`Codec`] of your own.
//!
//! A write is *blind* if it has no context: it overwrites nothing, and becomes a sibling of what is there. That is
//! [`Bucket::put`] alone; [`Bucket::update`], [`Bucket::create`] and [`Bucket::put_replacing`] read first. **None of them is a
//! compare-and-set**: where two clients write at the same time, both writes are kept.
//!
//! How many replicas must answer, how long a request may take, and when to try again are options of a request; their
//! defaults can be set for a bucket ([`Bucket::with_profile`]) and for the client
//! ([`ClientBuilder::profile`]) with a [`Profile`].
//!
//! # Siblings
//!
//! Deciding what several values mean together is the application's. [`Bucket::update`] is the way to do it when
//! writing; when reading, [`Get::resolve`] takes a resolver: [`Union`], [`Max`], [`LastWriter`], [`Fail`], a closure,
//! or any [`Resolve`]. The siblings stay in the cluster until the result is written back with the context.
//!
//! # Failures
//!
//! Every error answers `outcome()`: [`Outcome::Refused`] means that nothing happened, [`Outcome::Unknown`] that it
//! may have. The client repeats only what is safe to repeat, as its [`RetryPolicy`] decides: requests that
//! were refused, and requests whose outcome is unknown, writes under the same [`WriteId`], which replicas recognise. The id that
//! was drawn is in the error ([`PutError::write_id`]), so that the caller can go on repeating where the client gave up.
//!
//! A refusal is either the node's, and then another one may take the request, or the request's, and then none will.
//! [`Refusal::scope`] says which; there is no other place that does.
//!
//! | [`Scope::Node`]: goes to the next owner | [`Scope::Request`]: reported at once |
//! |---|---|
//! | too few replicas within its reach; overloaded; drained or shutting down | too many siblings; value too large |
//! | disk full; clock off; copy of the key damaged; hints full | no such bucket; r or w does not fit it |
//! | holds not yet what it must | a change of members or buckets that cannot be made |
//! | not the coordinator, not an owner, another ring | bad context; write id used for another write; no such request |
//!
//! [`RequestError`] keeps why each attempt did not succeed ([`RequestError::causes`]), and knows whether any node gave a sign of
//! life at all ([`RequestError::nobody_answered`]). A request that cannot be sent is not waited for: after [`Client::close`], or
//! when the runtime of its connections is gone, every request fails at once and says so ([`Cause::ClientClosed`],
//! [`Cause::RuntimeGone`]), and so does a request that is allowed no time ([`Cause::OutOfTime`]).
//!
//! It does not wait long for a node that may be gone. It measures how long the answers of each node take; when one is
//! overdue, the request is made at another node as well, and the first answer counts. That is limited: to a tenth of
//! the requests where a node is merely slow. A node that says nothing at all is left by all requests at once, and asked
//! last until it gives a sign of life, for which the client asks by itself.
//!
//! One thing follows for puts: two coordinators may stamp the same one. Reads show the two as one value. But if
//! somebody replaces or deletes it who has seen only one of the two, be it with the context of the put's own answer, the other
//! stays, as a concurrent write would. A policy that makes no second attempt, as [`NoRetry`], avoids that, and waits for
//! [`Profile::attempt_timeout`].
//!
//! # Routing
//!
//! The client knows the ring and sends each request to the first owner of its key that it can reach, to one of the
//! other members when it can reach no owner. All clients prefer the same owner: it puts their writes in an order, where
//! two would make siblings of them. Only an owner that has long been three times as slow as the others (and slow enough
//! to matter) comes after them. A newer ring is learned from any answer; lost connections are made anew by themselves.
//!
//! # Runtime
//!
//! A tokio runtime must drive the requests; elsewhere they fail ([`Cause::NoRuntime`]). It must have time enabled
//! (`Builder::enable_time` or `enable_all`): without it tokio panics when a request is made. Sockets live on a few
//! threads that the clients of a process share, unless [`IoRuntime`] says otherwise.
//!
//! [`ClientBuilder::connect`] asks the seeds, once or [for a while](ClientBuilder::wait_for_cluster);
//! [`ClientBuilder::connect_lazy`] leaves that to the first request, so a client can be made before its cluster is up. A name with
//! several addresses is tried at all of them, and resolved anew for every connection.
//!
//! # Looking on
//!
//! Each request is a span of the crate `tracing`, with one below it for each attempt; keys and values are in none. With the feature
//! `metrics` what requests do is counted through the crate of that name. A request may have a place in a [trace](Profile::trace), under
//! which nodes record what they do for it; with the feature `otel` it has the one that OpenTelemetry knows.
//!
//! # What it is not
//!
//! There are no transactions over several keys, no compare-and-set, no locks, no ordered scans, and no sessions: to read your own
//! writes, use strict quorums with r + w > n (`Profile::new().sloppy(false)`).

mod addresses;
mod answer;
mod attempt;
mod attempts;
mod bucket;
mod builder;
mod change;
mod client;
mod clock;
mod cluster;
mod codec;
mod connection;
mod counts;
mod create;
mod delete;
mod entry;
mod environment;
mod error;
mod get;
mod greeted;
mod hedge_budget;
mod identity;
mod inner;
mod into_bytes;
mod io;
mod io_thread;
mod latency;
mod link;
mod multi;
mod options;
mod pages;
mod put;
mod replace;
mod request;
mod resolve;
mod retry;
mod router;
mod scan;
mod state;
mod tls;
mod told;
mod turns;
mod typed;
mod update;
mod watched;
mod write;

pub use answer::{Conflict, Context, Deleted, IntoContext, Read, Resolved, Stored, Updated};
pub use bucket::Bucket;
pub use change::Change;
pub use client::{Client, ClientBuilder};
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Codec, CodecError, DecodeError, EncodeError, Postcard};
pub use create::Create;
pub use delete::Delete;
#[doc(hidden)]
pub use environment::{Environment, Resolver};
pub use error::{
    Cause, ClusterError, ConnectError, ConnectFailure, CreateError, DeleteError, GetError, PutError, RequestError,
    ScanError, StatusError, TryUpdateError, UpdateError,
};
pub use get::{Get, GetResolved};
pub use identity::{Identity, IdentityError};
pub use into_bytes::IntoBytes;
pub use multi::{DeleteEntry, MultiDelete, MultiGet, MultiPut, PutEntry};
pub use options::{IoRuntime, Profile};
pub use put::Put;
pub use replace::PutReplacing;
pub use resolve::{Fail, LastWriter, Max, Resolve, ResolveError, Union};
pub use retry::{Decision, DefaultRetry, FailedAttempt, NoRetry, RetryAt, RetryPolicy};
pub use scan::{Keys, Scan, ScanPosition};
pub use state::State;
pub use told::Tried;
pub use typed::{
    ResolvingBucket, TypedBucket, TypedGet, TypedGetResolved, TypedMultiGet, TypedRead, TypedTryUpdate, TypedUpdate,
};
pub use update::{TryUpdate, Update};

/// What the README shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

pub use bytes::Bytes;
pub use driftless_proto::access::{AccessChange, AgreedAccess, Denial, DenyList, Grant, Serial};
pub use driftless_proto::client::{
    AaeCommand, AaePartition, AaeStatus, Condition, DamagedKey, DamagedKeys, DrainCommand, DrainStatus, HintsFor,
    Liveness, NodeStatus, PeerStatus, Restored, Severity, Sibling,
};
pub use driftless_proto::figures::{Answered, Disk, ExchangesWith, Figures, RoundTrip};
pub use driftless_proto::key::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use driftless_proto::membership::{
    AccessState, CandidateState, Change as ClusterChange, ClusterAnswer, ClusterCommand, ClusterState, Decided,
    Founding, MemberState, Moving, Past, Plan, PlannedNode, Recovery, Staged,
};
pub use driftless_proto::observed::{Explanation, Fate, KeptHint, Made, PassedOn, Phase, ReplicaPart, Stamp};
pub use driftless_proto::top::{BucketTop, HotKey, Seen, SeenKey, Top, TopCommand, TopKey};
pub use driftless_proto::{
    BucketDefinition, BucketId, BucketName, Conflict as ConflictPolicy, ContextError, Durability, Hlc, Key, KeyError,
    MalformedTraceContext, MalformedWriteId, Outcome, Quorum, Refusal, Role, Scope, Topology, TraceContext, Unknown,
    WriteId,
};
pub use driftless_ring::ArcIndex;
