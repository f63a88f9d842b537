//! The shell of a node: threads, sockets, TLS. The only code that awaits, reads the clock and spawns.
//!
//! ```text
//! accept.rs   connections that others open        ┐
//! dial.rs     connections that we open            ├─▶ clients.rs, peers.rs   one conversation each
//! hello.rs    what both speak; does a peer fit    ┘        │ frames: inbound.rs ▼ ▲ outbound.rs
//! tls.rs, subject.rs, verified.rs, certificates.rs   driver.rs   inbox ─▶ Engine ─▶ outputs
//! accounts.rs, budget.rs   what clients may take up, and each certificate of that
//! shard.rs, coalesced.rs   one thread: socket, endpoint, tasks
//!                                                          │
//! sync.rs     one thread for all shards' syncs  ◀──────────┘
//! agreement.rs        the machine that agrees on members, on shard 0; keeper.rs: where that is written down
//! detection.rs        the detector, on shard 0, and its datagrams
//! lives.rs            which life of its data this node says it is
//! credentials.rs      what can be changed while it runs: own certificate, authorities, who may do what
//! allowed.rs          who may do what: what the cluster agrees on, and the own access file
//! rights.rs           what a client may ask; admitted.rs: until when a connection may stay
//! audit.rs            who connected, was refused, gave orders
//! environment.rs      what the system gives, and tests replace
//! figures.rs          what nodes measure, and tell each other while somebody looks
//! top.rs              which keys are hot, gathered from all shards
//! traces.rs           what is recorded of requests that carry a trace context
//! under_way.rs        requests of clients that are not answered yet
//! reply_routes.rs     the way back of what arrived at the wrong shard (which is right: `crate::route`)
//! shard_context.rs    what the tasks of a shard share; node_context.rs what the threads of a node share
//! ```
//! [`crate::node`] puts it together and runs it.

// The machines are told the time, draw from a seed and iterate in order; the shell around them is where clocks, threads
// and randomness of the system come in, and no order of a map in here reaches an output.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod accept;
mod accounts;
mod admitted;
pub(crate) mod agreement;
pub(crate) mod allowed;
pub mod audit;
mod budget;
pub mod certificates;
mod clients;
mod clock;
mod coalesced;
pub(crate) mod credentials;
mod detection;
mod dial;
mod driver;
mod endpoint;
#[doc(hidden)]
pub mod environment;
pub(crate) mod family;
mod figures;
mod findings;
mod handshakes;
pub(crate) mod hello;
mod inbound;
mod inputs;
pub mod keeper;
pub mod limits;
pub mod lives;
pub(crate) mod look;
pub(crate) mod node_context;
mod outbound;
mod peers;
mod problem;
mod refusal;
mod reply_routes;
mod requests;
pub(crate) mod rights;
pub mod settings;
pub(crate) mod shard;
mod shard_context;
mod signal;
pub mod subject;
pub mod sync;
pub mod tls;
mod top;
pub mod traces;
pub mod udp_probe;
mod under_way;
pub mod verified;
