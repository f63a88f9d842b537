//! The client's sockets, and the runtime they live on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use driftless_proto::frame::PACKET_MAX;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::addresses;
use crate::clock::FAR_FUTURE;
use crate::connection::{Connection, failure_of};
use crate::environment::Environment;
use crate::error::{Cause, ConnectFailure};
use crate::greeted::Greeted;
use crate::identity::Identity;
use crate::io_thread::IoThread;
use crate::options::IoRuntime;
use crate::tls;

/// Makes connections. Dropped, it closes all of them.
pub(crate) struct Io {
    handle: Handle,
    config: quinn::ClientConfig,
    connect_timeout: Duration,
    environment: Environment,
    endpoints: Mutex<Endpoints>,
    closed: AtomicBool,
    /// The runtime behind the handle has been shut down.
    gone: Arc<AtomicBool>,
    /// Ends the task that notices it.
    _watched: oneshot::Sender<()>,
    /// The thread that this runs on, if it is not the caller's runtime.
    thread: Option<Arc<IoThread>>,
}

#[derive(Default)]
struct Endpoints {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl Io {
    pub(crate) fn new(
        identity: &Identity,
        runtime: IoRuntime,
        connect_timeout: Duration,
        environment: Environment,
    ) -> io::Result<Arc<Io>> {
        let tls = QuicClientConfig::try_from(identity.tls()).map_err(io::Error::other)?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport()));
        let (handle, thread) = match runtime {
            IoRuntime::Shared => of_thread(IoThread::lease()?),
            IoRuntime::Own => of_thread(Arc::new(IoThread::start()?)),
            IoRuntime::Caller => (Handle::try_current().map_err(io::Error::other)?, None),
        };
        let (gone, watched) = watch(&handle);
        Ok(Arc::new(Io {
            handle,
            config,
            connect_timeout,
            environment,
            endpoints: Mutex::new(Endpoints::default()),
            closed: AtomicBool::new(false),
            gone,
            _watched: watched,
            thread,
        }))
    }

    /// Why nothing can be sent any more, if so: neither another node nor another time will help.
    pub(crate) fn ended(&self) -> Option<Cause> {
        if self.closed.load(Ordering::Acquire) {
            Some(Cause::ClientClosed)
        } else if self.gone.load(Ordering::Acquire) {
            Some(Cause::RuntimeGone)
        } else {
            None
        }
    }

    /// What to say of an attempt to connect that was dropped with the runtime it ran on, or is not made any more.
    pub(crate) fn end_of_connecting(&self) -> ConnectFailure {
        match self.closed.load(Ordering::Acquire) {
            true => ConnectFailure::ClientClosed,
            false => ConnectFailure::RuntimeGone,
        }
    }

    /// Between zero and one.
    pub(crate) fn chance(&self) -> f64 {
        (self.environment.chance)()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// Connects to a shard of a node and checks who answers: at all addresses of its name, which is resolved anew each time. To
    /// be called on the I/O runtime.
    pub(crate) async fn connect(
        &self,
        address: &str,
        shard: u16,
        expected: Option<&str>,
    ) -> Result<Arc<Connection>, ConnectFailure> {
        let deadline = Instant::now() + self.connect_timeout.min(FAR_FUTURE);
        let sockets = self.resolve(address, shard, deadline).await?;
        let delay = addresses::delay(sockets.len(), self.connect_timeout);
        let one_of_many = sockets.len() > 1;
        let attempt = |socket: SocketAddr| async move {
            // Of several it matters which one it was.
            let shown = if one_of_many { socket.to_string() } else { address.to_owned() };
            match timeout_at(deadline, self.handshake(&shown, socket, expected)).await {
                Ok(connected) => connected,
                Err(_) => Err(self.unanswered(shown)),
            }
        };
        addresses::first_of(sockets, delay, attempt).await.map_err(|mut failures| match failures.len() {
            1 => failures.remove(0).1,
            _ => ConnectFailure::EveryAddress { address: address.to_owned(), failures },
        })
    }

    /// The addresses of a node's shard. There is one at least.
    async fn resolve(&self, address: &str, shard: u16, deadline: Instant) -> Result<Vec<SocketAddr>, ConnectFailure> {
        let unresolved = |kind, why: &str| ConnectFailure::Resolve {
            address: address.to_owned(),
            source: Arc::new(io::Error::new(kind, why)),
        };
        let found = match timeout_at(deadline, (self.environment.resolve)(address.to_owned())).await {
            Ok(found) => found
                .map_err(|source| ConnectFailure::Resolve { address: address.to_owned(), source: Arc::new(source) })?,
            Err(_) => return Err(unresolved(io::ErrorKind::TimedOut, "the resolver does not answer")),
        };
        let mut sockets = addresses::in_turns(found);
        for socket in &mut sockets {
            let no_port = || unresolved(io::ErrorKind::InvalidInput, "no port is left for the shard");
            socket.set_port(socket.port().checked_add(shard).ok_or_else(no_port)?);
        }
        match sockets.is_empty() {
            true => Err(unresolved(io::ErrorKind::NotFound, "the name has no addresses")),
            false => Ok(sockets),
        }
    }

    fn unanswered(&self, address: String) -> ConnectFailure {
        ConnectFailure::Unreachable { address, reason: format!("no answer within {:?}", self.connect_timeout) }
    }

    async fn handshake(
        &self,
        address: &str,
        socket: SocketAddr,
        expected: Option<&str>,
    ) -> Result<Arc<Connection>, ConnectFailure> {
        let unreachable = |reason: String| ConnectFailure::Unreachable { address: address.to_owned(), reason };
        let quic = self
            .endpoint_for(socket)?
            .connect_with(self.config.clone(), socket, tls::SERVER_NAME)
            .map_err(|error| unreachable(error.to_string()))?
            .await
            .map_err(|error| failure_of(address, &error, false))?;
        let node = match tls::check_node(&quic, address, expected) {
            Ok(node) => node,
            Err(failure) => {
                quic.close(CODE_WRONG_NODE, b"not the node that was meant");
                return Err(failure);
            }
        };
        let greeted = match Greeted::exchange(&quic, address, &node).await {
            Ok(greeted) => greeted,
            Err(failure) => {
                quic.close(CODE_NO_CONVERSATION, b"no conversation begins");
                return Err(failure);
            }
        };
        Ok(Connection::start(quic, address.to_owned(), node, greeted))
    }

    fn endpoint_for(&self, socket: SocketAddr) -> Result<Endpoint, ConnectFailure> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(ConnectFailure::ClientClosed);
        }
        let (slot, any) = match socket {
            SocketAddr::V4(_) => (&mut endpoints.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (&mut endpoints.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let endpoint =
            (self.environment.endpoint)(any).map_err(|source| ConnectFailure::Socket { source: Arc::new(source) })?;
        Ok(slot.insert(endpoint).clone())
    }

    /// Says goodbye to all nodes and waits until they have heard it, or should have.
    pub(crate) async fn close(&self) {
        for endpoint in self.shut() {
            // The only way to be late is a node that is gone, and it need not be told.
            let _ = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
        }
    }

    fn shut(&self) -> Vec<Endpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a task that opens an endpoint has looked before, or looks after.
        self.closed.store(true, Ordering::Release);
        let open: Vec<Endpoint> = [endpoints.v4.take(), endpoints.v6.take()].into_iter().flatten().collect();
        for endpoint in &open {
            endpoint.close(CODE_DONE, b"client is done");
        }
        open
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        let open = self.shut();
        if let Some(thread) = self.thread.take().filter(|_| !open.is_empty()) {
            let handle = thread.handle().clone();
            handle.spawn(async move {
                for endpoint in open {
                    let _ = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
                }
                // Others may be on it; if not, it ends with this.
                drop(thread);
            });
        }
    }
}

fn of_thread(thread: Arc<IoThread>) -> (Handle, Option<Arc<IoThread>>) {
    (thread.handle().clone(), Some(thread))
}

/// Says when a runtime is gone: it drops its tasks then. The task ends with the sender too.
fn watch(handle: &Handle) -> (Arc<AtomicBool>, oneshot::Sender<()>) {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let gone = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&gone));
    let (watched, unwatched) = oneshot::channel::<()>();
    handle.spawn(async move {
        let _flag = flag;
        // Never sent anything; dropped with the client.
        let _ = unwatched.await;
    });
    (gone, watched)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut probes = MtuDiscoveryConfig::default();
    probes.upper_bound(PACKET_MAX);
    transport
        .mtu_discovery_config(Some(probes))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .max_concurrent_uni_streams(LARGE_STREAMS_MAX)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT);
    transport
}

/// Three of these fit into [`IDLE_MS`], so two may be lost.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How soon a node that vanished without a word is noticed; a longer pause of a network should not look like that.
const IDLE_MS: u32 = 6_000;

/// Large answers that may be under way at once on a connection.
const LARGE_STREAMS_MAX: VarInt = VarInt::from_u32(64);

/// The first retransmission comes after three times this. The default of 333 ms would let one lost packet use up the
/// whole time for connecting.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Ample for one round trip.
const GOODBYE: Duration = Duration::from_millis(500);

const CODE_DONE: VarInt = VarInt::from_u32(0);
const CODE_NO_CONVERSATION: VarInt = VarInt::from_u32(1);
const CODE_WRONG_NODE: VarInt = VarInt::from_u32(2);
