//! What the client takes from the machine that it runs on, so that tests can run it on a simulated network.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::Endpoint;

/// The system's sockets and randomness, unless a test puts others in their places.
#[derive(Clone)]
pub struct Environment {
    /// Opens an endpoint on an address of the client's own.
    pub endpoint: Arc<dyn Fn(SocketAddr) -> io::Result<Endpoint> + Send + Sync>,
    /// Between zero and one: the jitter of waits.
    pub chance: fn() -> f64,
}

impl Default for Environment {
    fn default() -> Environment {
        Environment { endpoint: Arc::new(Endpoint::client), chance: rand::random }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}
