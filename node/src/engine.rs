//! One shard's machines behind the seam: typed inputs and the time go in, outputs and the next deadline come out.
//!
//! A turn of the shell: feed everything that has arrived to the `handle_*` methods, call [`Engine::commit`] once, carry
//! out every [`Output`], and sleep until the next input or [`Engine::poll_timeout`].

use std::sync::Arc;

use driftless_proto::client::{Request, Response};
use driftless_proto::{ContextKeys, Topology};
use driftless_ring::NodeId;

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::peer::Message;
use crate::replica::store::{BatchSeq, Store};
use crate::time::{Instant, Now};

/// Names a client request within the shell, which finds the way back by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTag {
    /// Connection, as the shell numbers them.
    pub connection: u64,
    /// The request's id on that connection.
    pub request: u64,
}

/// What the shell has to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send to another node.
    Send {
        /// Never this node itself.
        to: NodeId,
        /// What to say.
        message: Message,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        to: ClientTag,
        /// What to say.
        response: Response,
    },
    /// Sync the store, then call [`Engine::handle_synced`] with the newest batch applied before the sync began.
    Sync(BatchSeq),
    /// The store cannot be trusted any more: stop this process at once, non-zero, with this reason.
    Halt(String),
}

/// Everything an engine is made from.
pub struct EngineConfig {
    /// This node.
    pub node: NodeId,
    /// Which of its shards.
    pub shard: u16,
    /// The agreed shape of the cluster.
    pub topology: Arc<Topology>,
    /// Seals and opens context tokens.
    pub context_keys: ContextKeys,
    /// Bounds and times.
    pub limits: Limits,
    /// What to count.
    pub metrics: Arc<Metrics>,
    /// Fresh random bits at every start: actors and request ids come from them.
    pub seed: [u8; 32],
}

/// One shard: its replica, and the requests it coordinates.
pub struct Engine<S: Store> {
    store: S,
}

impl<S: Store> Engine<S> {
    /// A shard that has just started.
    pub fn new(config: EngineConfig, store: S, now: Now) -> Engine<S> {
        let _ = (config, now);
        Engine { store }
    }

    /// A client asks. `deadline` is when it stops waiting.
    pub fn handle_client(&mut self, now: Now, from: ClientTag, deadline: Instant, request: Request) {}

    /// The client of a connection is gone: its answers are not wanted any more.
    pub fn handle_client_gone(&mut self, now: Now, connection: u64) {}

    /// A peer speaks. Also takes what another shard received for this one.
    pub fn handle_peer(&mut self, now: Now, from: NodeId, message: Message) {}

    /// There is a connection to this peer.
    pub fn handle_peer_up(&mut self, now: Now, peer: NodeId) {}

    /// There is none any more: what was under way on it is lost.
    pub fn handle_peer_lost(&mut self, now: Now, peer: NodeId) {}

    /// A sync covers everything up to this batch.
    pub fn handle_synced(&mut self, now: Now, up_to: BatchSeq) {}

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {}

    /// Ends a turn: applies the batch that the turn has built and releases what waited for that.
    pub fn commit(&mut self, now: Now) {}

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When to call [`Engine::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The store, for tests and the shell's own needs.
    pub fn store(&self) -> &S {
        &self.store
    }
}
