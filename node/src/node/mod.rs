//! A node: its shards, their syncs and its admin server, each on a thread of its own.
//!
//! [`Node::start`] runs a node within a process; [`run`] is that and waiting for its end. What the threads do is in
//! [`crate::net`] and [`crate::admin`], which know nothing of each other beyond what a node publishes of itself.

// As in `net`: the machines are told the time and draw from a seed; here threads are made and the system is asked.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod agreed;
mod error;
#[doc(hidden)]
pub mod local;
mod prepared;
mod reread;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use driftless_proto::client::NodeStatus;
use driftless_ring::NodeId;
use quinn::{Runtime, TokioRuntime};
use tokio::sync::watch;

use crate::admin;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::net::environment::{Environment, OpenSocket};
use crate::net::node_context::NodeContext;
pub use crate::net::settings::{CredentialFiles, NodeSettings, Security};
use crate::net::shard::bind;
use crate::net::sync::Syncer;
use crate::replica::store::Store;

pub use error::NodeError;
use prepared::{Ended, Guard, Prepared};
use reread::Rereader;

/// A node that runs in this process, until it is stopped: dropping this does not.
pub struct Node {
    shared: Arc<NodeContext>,
    id: NodeId,
    admin: Option<SocketAddr>,
    admin_remote: Option<SocketAddr>,
    shards: Vec<JoinHandle<()>>,
    sync: JoinHandle<()>,
    admin_thread: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    reread: Option<Rereader>,
    ended: Ended,
}

/// Runs a node until `stop` completes and everything under way is finished, or until it cannot go on.
///
/// # Errors
/// [`NodeError`]: why it did not start, or had to end.
pub async fn run<S: Store + Send + 'static>(
    settings: NodeSettings,
    stores: Vec<S>,
    syncer: impl Syncer + 'static,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let node = Node::start(settings, stores, syncer)?;
    tokio::select! {
        () = stop => node.stop(),
        () = node.ended() => {}
    }
    node.ended().await;
    node.join()
}

impl Node {
    /// Starts a node: opens its sockets, then its threads. `stores` are one per shard, `syncer` syncs them all.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running then.
    pub fn start<S: Store + Send + 'static>(
        settings: NodeSettings,
        stores: Vec<S>,
        syncer: impl Syncer + 'static,
    ) -> Result<Node, NodeError> {
        let (listen, admin, security) = (settings.listen, settings.admin, settings.security.clone());
        let prepared = Prepared::new(settings, Environment::default(), stores.len())?;
        let sockets = (0..stores.len() as u16).map(|shard| listen_on(listen, shard)).collect::<Result<Vec<_>, _>>()?;
        let local = admin.map(admin::listen).transpose()?;
        let remote = security.admin_remote.map(admin::listen_remote).transpose()?;
        let address =
            |listener: &Option<TcpListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (admin, admin_remote) = (address(&local), address(&remote));
        let listeners = (local.is_some() || remote.is_some()).then_some(admin::Listeners { local, remote });

        let (shared, id) = (prepared.shared.clone(), prepared.id);
        let (ending, ended) = watch::channel(0);
        let ending = Arc::new(ending);
        let shards = stores.len();
        let mut threads = Vec::with_capacity(shards);
        let sockets = sockets.into_iter().map(on_this_machine).collect();
        for start in prepared.shards(sockets, stores) {
            let guard = Guard { shared: shared.clone(), ending: ending.clone() };
            let shard = start.shard;
            threads.push(spawn(&shared, format!("shard-{shard}"), move || guard.watch(shard, start.run()))?);
        }
        let sync = {
            let guard = Guard { shared: shared.clone(), ending };
            spawn(&shared, "sync".to_owned(), move || {
                let shared = &guard.shared;
                shared
                    .after_sync(shared.sync.run(&syncer, &shared.metrics, |shard, batch| shared.synced(shard, batch)));
            })?
        };
        let admin_thread = match listeners {
            None => None,
            Some(listeners) => {
                let (stop, stopped) = watch::channel(false);
                let for_admin = shared.clone();
                let thread = spawn(&shared, "admin".to_owned(), move || {
                    admin::run(for_admin, listeners, stopped);
                })?;
                Some((thread, stop))
            }
        };
        let reread = security.files.map(|files| Rereader::start(&shared, files)).transpose()?;
        tracing::info!(node = shared.name, %id, %listen, shards, cluster = shared.cluster, "node started");
        let ended = Ended::new(ended, shards);
        Ok(Node { shared, id, admin, admin_remote, shards: threads, sync, admin_thread, reread, ended })
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where the admin server listens, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where it listens for other machines, if it does.
    pub fn admin_remote_address(&self) -> Option<SocketAddr> {
        self.admin_remote
    }

    /// What the node knows of itself.
    pub fn status(&self) -> NodeStatus {
        self.shared.status()
    }

    /// What the node has counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Reads certificates, access file and context keys again, soon, and goes on with what can be used of them. Nothing
    /// happens if the node was started without files.
    pub fn reread(&self) {
        drop(self.rereading());
    }

    /// The same; completes when that is done.
    pub fn rereading(&self) -> impl Future<Output = ()> + use<> {
        let told = self.reread.as_ref().map(Rereader::reread);
        async move {
            if let Some(told) = told {
                // Nothing is told if the thread has panicked, which the node's end tells.
                let _ = told.await;
            }
        }
    }

    /// The shards that do not turn, each in a sentence, as `/health` says it; none if the node is well.
    pub fn silent_shards(&self) -> Vec<String> {
        admin::silent_shards(&self.shared)
    }

    /// Goes by other limits from now on, as far as a running node can: see [`Limits::take_changeable`].
    pub fn set_limits(&self, limits: &Limits) {
        self.shared.tell_limits(limits);
    }

    /// Begins to stop: new requests are refused, what is under way is finished within a bound, everything is synced,
    /// connections are closed. Returns at once; [`Node::join`] waits.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Ends at once, as a crash would, except that the process lives on: for tests.
    pub fn kill(&self) {
        self.shared.halt("killed".to_owned());
    }

    /// Completes when the shards have ended, for whatever reason.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        self.ended.clone().wait()
    }

    /// Why it had to end, if it had to.
    pub fn fatal(&self) -> Option<String> {
        self.shared.fatal()
    }

    /// Waits until the node has stopped. Call [`Node::stop`] before, or this waits until the node cannot go on.
    ///
    /// # Errors
    /// [`NodeError::Storage`] if it had to stop because its store cannot be trusted any more.
    pub fn join(self) -> Result<(), NodeError> {
        let mut panicked = false;
        for shard in self.shards {
            panicked |= shard.join().is_err();
        }
        self.shared.sync.stop();
        panicked |= self.sync.join().is_err();
        if let Some(reread) = self.reread {
            panicked |= reread.stop();
        }
        if let Some((thread, stop)) = self.admin_thread {
            stop.send_replace(true);
            panicked |= thread.join().is_err();
        }
        if panicked {
            return Err(NodeError::Panicked);
        }
        match self.shared.fatal() {
            Some(reason) => Err(NodeError::Storage(reason)),
            None => {
                tracing::info!(node = self.shared.name, "node stopped");
                Ok(())
            }
        }
    }
}

fn listen_on(listen: SocketAddr, shard: u16) -> Result<UdpSocket, NodeError> {
    let mut address = listen;
    let refuse = |address, reason: String| NodeError::Listen { protocol: "UDP", address, reason };
    match listen.port().checked_add(shard) {
        Some(port) => address.set_port(port),
        None => return Err(refuse(address, format!("shard {shard} has no port above it"))),
    }
    bind(address).map_err(|error| refuse(address, error.to_string()))
}

fn on_this_machine(socket: UdpSocket) -> OpenSocket {
    Box::new(move || TokioRuntime.wrap_udp_socket(socket))
}

/// A named thread. If it cannot be made, those made before are told to end.
fn spawn(
    shared: &Arc<NodeContext>,
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, NodeError> {
    let thread = std::thread::Builder::new().name(format!("{}-{name}", shared.name));
    thread.spawn(body).map_err(|error| {
        shared.halt(format!("cannot start thread {name}: {error}"));
        NodeError::Thread(error.to_string())
    })
}
