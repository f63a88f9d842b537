//! What the shell takes from where it runs: the wall clock, chance, and how QUIC is set up.
//!
//! Everything else it needs is tokio's: timers and the monotonic clock follow a clock that a test holds, tasks run
//! wherever the shard's future does. So a test can run this very shell in simulated time.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use quinn::{AsyncUdpSocket, EndpointConfig, TransportConfig};

/// The system's clock and randomness, unless a test puts others in their places.
#[derive(Clone)]
pub struct Environment {
    /// The wall clock.
    pub wall: Arc<WallClock>,
    /// Seeds of the machines, and the jitter of redials.
    pub random: Arc<dyn Fn() -> [u8; 32] + Send + Sync>,
    /// Changes how the endpoint of a shard is set up; nothing by default.
    pub tune: Arc<Tune>,
}

impl Default for Environment {
    fn default() -> Environment {
        Environment { wall: Arc::new(SystemTime::now), random: Arc::new(rand::random), tune: Arc::new(|_, _| {}) }
    }
}

impl Environment {
    /// Between zero and one.
    pub(crate) fn chance(&self) -> f64 {
        let [first, second, third, fourth, ..] = (self.random)();
        f64::from(u32::from_le_bytes([first, second, third, fourth])) / f64::from(u32::MAX)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

/// Tells the time. It may jump.
pub type WallClock = dyn Fn() -> SystemTime + Send + Sync;

/// Changes how an endpoint is set up.
pub type Tune = dyn Fn(&mut EndpointConfig, &mut TransportConfig) + Send + Sync;

/// Hands out a shard's socket, on the runtime that the shard runs on.
pub(crate) type OpenSocket = Box<dyn FnOnce() -> io::Result<Arc<dyn AsyncUdpSocket>> + Send>;
