//! The shell of a node: threads, sockets, TLS. The only code that awaits, reads the clock and spawns.
//!
//! ```text
//! accept.rs   connections that others open        ┐
//! dial.rs     connections that we open            ├─▶ clients.rs, peers.rs   one conversation each
//! hello.rs    whether a peer fits                 ┘        │ frames: inbound.rs ▼ ▲ outbound.rs
//! tls.rs, subject.rs, certificates.rs                 driver.rs   inbox ─▶ Engine ─▶ outputs
//! shard.rs    one thread: socket, endpoint, tasks          │
//! sync.rs     one thread for all shards' syncs  ◀──────────┘
//! detection.rs        the detector, on shard 0, and its datagrams
//! lives.rs            which life of its data this node says it is
//! surroundings.rs     what the system gives, and tests replace
//! local_node.rs       the same shards as tasks of one thread, for tests in simulated time
//! returns.rs          the way back of what arrived at the wrong shard (which is right: `crate::route`)
//! ```
//! [`Node::start`] runs a node within a process; [`run`] is that and waiting for its end.

// The machines are told the time, draw from a seed and iterate in order; the shell around them is where clocks, threads
// and randomness of the system come in, and no order of a map in here reaches an output.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod accept;
pub mod certificates;
mod clients;
mod clock;
mod detection;
mod dial;
mod driver;
mod handshakes;
pub(crate) mod hello;
mod inbound;
mod inputs;
pub mod limits;
pub mod lives;
mod local;
#[doc(hidden)]
pub mod local_node;
mod outbound;
mod peers;
mod refusal;
mod requests;
mod returns;
mod shard;
pub(crate) mod shared;
mod signal;
mod slots;
pub mod subject;
#[doc(hidden)]
pub mod surroundings;
pub mod sync;
pub mod tls;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use driftless_proto::client::NodeStatus;
use driftless_proto::{ContextKeys, Topology};
use driftless_ring::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Runtime, TokioRuntime};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::net::limits::NetLimits;
use crate::net::lives::{LifeKeeper, Lives};
use crate::net::shard::{ShardStart, bind};
use crate::net::shared::{Note, Shared, SharedParts};
use crate::net::surroundings::{OpenSocket, Surroundings};
use crate::net::sync::Syncer;
use crate::net::tls::{ResetKey, TlsError, TlsIdentity};
use crate::peer::Incarnation;
use crate::replica::store::Store;

/// Everything a node is started with, beside its stores.
#[derive(Clone)]
pub struct NodeSettings {
    /// Name of this member, as the topology and the certificate have it.
    pub name: String,
    /// UDP address of shard 0; shard `k` listens `k` ports above.
    pub listen: SocketAddr,
    /// TCP address of `/metrics`, `/health`, `/ready` and `/status`; loopback only. None: no admin server.
    pub admin: Option<SocketAddr>,
    /// Certificate, key, and the cluster's authority.
    pub tls: TlsIdentity,
    /// The agreed shape of the cluster.
    pub topology: Arc<Topology>,
    /// Seals and opens context tokens; the same on every node.
    pub context_keys: ContextKeys,
    /// Bounds and times of the machines.
    pub limits: Limits,
    /// Bounds and times of connections.
    pub net: NetLimits,
    /// Which life of the store this is.
    pub incarnation: Incarnation,
    /// Where a later life is written down, if the store outlives the process.
    pub lives: Option<Arc<dyn LifeKeeper>>,
    /// 64 random bytes that the data directory keeps for as long as it lives.
    pub reset_key: [u8; 64],
    /// What to count.
    pub metrics: Arc<Metrics>,
}

/// Why a node did not start, or ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NodeError {
    /// The topology does not have this node.
    #[error("node {name:?} is not a member of cluster {cluster:?}; its members are {members}")]
    NotAMember {
        /// This node.
        name: String,
        /// The cluster.
        cluster: String,
        /// Its members, by name.
        members: String,
    },
    /// A store per shard, as many as the topology says.
    #[error("the topology gives this node {expected} shards, but {given} stores are open")]
    Shards {
        /// By the topology.
        expected: usize,
        /// Stores given.
        given: usize,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A socket cannot be opened.
    #[error(
        "cannot listen on {protocol} {address}: {reason}; is another node running, or another program using the port?"
    )]
    Listen {
        /// UDP or TCP.
        protocol: &'static str,
        /// Address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Metrics and health are for this machine only.
    #[error(
        "the admin address {0} is not a loopback address; use 127.0.0.1 and let a proxy with access control publish it"
    )]
    AdminNotLoopback(SocketAddr),
    /// A thread or its runtime cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// The store cannot be trusted any more; nothing was acknowledged since.
    #[error("stopped at once: {0}")]
    Storage(String),
    /// A bug. The node ends rather than go on in part.
    #[error("a thread of the node panicked; this is a bug, please report it with the log")]
    Panicked,
}

/// A node that runs in this process, until it is stopped: dropping this does not.
pub struct Node {
    shared: Arc<Shared>,
    id: NodeId,
    admin: Option<SocketAddr>,
    shards: Vec<JoinHandle<()>>,
    sync: JoinHandle<()>,
    admin_thread: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    ended: watch::Receiver<usize>,
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
        let (listen, admin) = (settings.listen, settings.admin);
        let prepared = Prepared::new(settings, Surroundings::default(), stores.len())?;
        let sockets = (0..stores.len() as u16).map(|shard| listen_on(listen, shard)).collect::<Result<Vec<_>, _>>()?;
        let listener = admin.map(admin::listen).transpose()?;
        let admin = listener.as_ref().and_then(|listener| listener.local_addr().ok());

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
        let admin_thread = match listener {
            None => None,
            Some(listener) => {
                let (stop, stopped) = watch::channel(false);
                let for_admin = shared.clone();
                let thread = spawn(&shared, "admin".to_owned(), move || {
                    admin::run(for_admin, listener, stopped);
                })?;
                Some((thread, stop))
            }
        };
        tracing::info!(node = shared.name, %id, %listen, shards, cluster = shared.topology.cluster(), "node started");
        Ok(Node { shared, id, admin, shards: threads, sync, admin_thread, ended })
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where the admin server listens, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What the node knows of itself.
    pub fn status(&self) -> NodeStatus {
        self.shared.status()
    }

    /// What the node has counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
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
        let (mut ended, shards) = (self.ended.clone(), self.shards.len());
        async move {
            // An error means that all threads are gone.
            let _ = ended.wait_for(|ended| *ended >= shards).await;
        }
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

/// A node that could start: everything is checked, nothing runs.
struct Prepared {
    shared: Arc<Shared>,
    id: NodeId,
    server: Arc<QuicServerConfig>,
    dialer: Arc<QuicClientConfig>,
    reset_key: Arc<ResetKey>,
    notes: Vec<UnboundedReceiver<Note>>,
}

impl Prepared {
    fn new(settings: NodeSettings, surroundings: Surroundings, stores: usize) -> Result<Prepared, NodeError> {
        let NodeSettings { name, tls, topology, .. } = settings;
        let member = topology.ring().member_by_name(&name).ok_or_else(|| NodeError::NotAMember {
            name: name.clone(),
            cluster: topology.cluster().to_owned(),
            members: topology.ring().members().iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let (id, shards) = (member.id, usize::from(member.shards.max(1)));
        if stores != shards {
            return Err(NodeError::Shards { expected: shards, given: stores });
        }
        tls.expect_node(topology.cluster(), &name)?;
        let (server, dialer) = (Arc::new(tls.server()?), Arc::new(tls.dialer()?));
        let reset_key = Arc::new(ResetKey::new(&settings.reset_key));
        let (senders, notes): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::unbounded_channel()).unzip();
        let parts = SharedParts {
            name,
            node: id,
            lives: Lives::new(settings.incarnation, settings.lives),
            topology,
            context_keys: settings.context_keys,
            limits: settings.limits,
            net: settings.net,
            surroundings,
            metrics: settings.metrics,
        };
        Ok(Prepared { shared: Arc::new(Shared::new(parts, senders)), id, server, dialer, reset_key, notes })
    }

    /// What each shard begins with.
    fn shards<S: Store>(self, sockets: Vec<OpenSocket>, stores: Vec<S>) -> impl Iterator<Item = ShardStart<S>> {
        let Prepared { shared, server, dialer, reset_key, notes, .. } = self;
        (0_u16..).zip(sockets.into_iter().zip(notes).zip(stores)).map(move |(shard, ((socket, notes), store))| {
            ShardStart {
                shared: shared.clone(),
                shard,
                socket,
                server: server.clone(),
                dialer: dialer.clone(),
                reset_key: reset_key.clone(),
                store,
                notes,
            }
        })
    }
}

/// Held by what the node cannot go on without: counts its end, and halts the node if that is a panic.
struct Guard {
    shared: Arc<Shared>,
    ending: Arc<watch::Sender<usize>>,
}

impl Guard {
    /// A shard has come to its end.
    fn watch(self, shard: u16, ended: io::Result<()>) {
        if let Err(error) = ended {
            self.shared.halt(format!("shard {shard} cannot run: {error}"));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.halt("a thread panicked".to_owned());
        }
        self.ending.send_modify(|ended| *ended += 1);
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
    shared: &Arc<Shared>,
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, NodeError> {
    let thread = std::thread::Builder::new().name(format!("{}-{name}", shared.name));
    thread.spawn(body).map_err(|error| {
        shared.halt(format!("cannot start thread {name}: {error}"));
        NodeError::Thread(error.to_string())
    })
}
