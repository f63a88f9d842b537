//! What the client takes from the machine that it runs on, so that tests can run it on a simulated network.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use driftless_proto::frame::PACKET_MAX;
use futures::future::BoxFuture;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use socket2::SockRef;

/// The system's sockets, names and randomness, unless a test puts others in their places.
#[derive(Clone)]
pub struct Environment {
    /// Opens an endpoint on an address of the client's own.
    pub endpoint: Arc<dyn Fn(SocketAddr) -> io::Result<Endpoint> + Send + Sync>,
    /// All addresses of a `host:port`, in the order in which to try them.
    pub resolve: Arc<Resolver>,
    /// Between zero and one: the jitter of waits.
    pub chance: fn() -> f64,
}

/// Finds the addresses of a name.
pub type Resolver = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

impl Default for Environment {
    fn default() -> Environment {
        let resolve = |name: String| -> BoxFuture<'static, _> {
            Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) })
        };
        Environment { endpoint: Arc::new(endpoint), resolve: Arc::new(resolve), chance: rand::random }
    }
}

fn endpoint(address: SocketAddr) -> io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(PACKET_MAX).map_err(io::Error::other)?;
    let socket = UdpSocket::bind(address)?;
    // Room for the bursts of several nodes. The system may grant less, which is no reason not to go on.
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    Endpoint::new(config, None, socket, Arc::new(TokioRuntime))
}

const RECEIVE_BUFFER: usize = 2 << 20;

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}
