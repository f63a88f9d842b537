//! A node whose shards are tasks of one thread: for tests that run many nodes in simulated time.
//!
//! What a shard does is the same; only who drives it differs. Sockets, clock and chance come from the test.

use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::NodeStatus;
use quinn::AsyncUdpSocket;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::net::environment::{Environment, OpenSocket};
use crate::net::node_context::NodeContext;
use crate::net::sync::Syncer;
use crate::replica::store::Store;

use super::prepared::{Ended, Guard, Prepared};
use super::{NodeError, NodeSettings};

/// A node that runs on the current thread, until it is stopped: dropping this does not.
pub struct LocalNode {
    shared: Arc<NodeContext>,
    ended: Ended,
}

/// What a [`LocalNode`] runs on: a store and a socket for each shard.
pub struct Parts<S, Y> {
    /// As many as the topology gives the node shards.
    pub stores: Vec<S>,
    /// As many as stores.
    pub sockets: Vec<Arc<dyn AsyncUdpSocket>>,
    /// Syncs all stores.
    pub syncer: Y,
    /// How long each sync takes.
    pub sync_takes: Duration,
}

impl LocalNode {
    /// Starts a node as tasks, in a place where local tasks are run. It has no admin server.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running then.
    pub fn start<S: Store + 'static>(
        settings: NodeSettings,
        environment: Environment,
        parts: Parts<S, impl Syncer + 'static>,
    ) -> Result<LocalNode, NodeError> {
        let Parts { stores, sockets, syncer, sync_takes } = parts;
        let shards = stores.len();
        let prepared = Prepared::new(settings, environment, shards)?;
        let shared = prepared.shared.clone();
        let (ending, ended) = watch::channel(0);
        let ending = Arc::new(ending);
        let sockets = sockets.into_iter().map(|socket| -> OpenSocket { Box::new(move || Ok(socket)) }).collect();
        for start in prepared.shards(sockets, stores) {
            let guard = Guard { shared: shared.clone(), ending: ending.clone() };
            let shard = start.shard;
            tokio::task::spawn_local(async move { guard.watch(shard, start.serve().await) });
        }
        let syncing = shared.clone();
        tokio::task::spawn_local(async move {
            let synced = |shard, batch| syncing.synced(shard, batch);
            syncing.after_sync(syncing.sync.run_as_task(&syncer, sync_takes, synced).await);
        });
        Ok(LocalNode { shared, ended: Ended::new(ended, shards) })
    }

    /// What the node knows of itself.
    pub fn status(&self) -> NodeStatus {
        self.shared.status()
    }

    /// What the node has counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Begins to stop, as [`Node::stop`](super::Node::stop) does.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Completes when the shards have ended, for whatever reason.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        self.ended.clone().wait()
    }

    /// Why it had to end, if it had to.
    pub fn fatal(&self) -> Option<String> {
        self.shared.fatal()
    }
}
