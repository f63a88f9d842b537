//! What the client takes from where it runs, so that tests can run it on a simulated network.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::Endpoint;

/// The system's sockets and randomness, unless a test puts others in their places.
#[derive(Clone)]
pub struct Surroundings {
    /// Opens an endpoint on an address of the client's own.
    pub endpoint: Arc<dyn Fn(SocketAddr) -> io::Result<Endpoint> + Send + Sync>,
    /// Between zero and one: the jitter of waits.
    pub chance: fn() -> f64,
}

impl Default for Surroundings {
    fn default() -> Surroundings {
        Surroundings { endpoint: Arc::new(Endpoint::client), chance: rand::random }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}
