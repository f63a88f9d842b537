//! Bounds of the shell: what one connection, one peer and one process may take.

use std::time::Duration;

/// Bounds and times of connections. The defaults suit a node with a few gigabytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetLimits {
    /// Requests under way on one client connection. Beyond it they are answered `Overloaded` at once; a larger
    /// number lets one client crowd out the others.
    pub requests_per_connection: usize,
    /// Bytes of answers waiting for one connection. A client that does not read its answers is not read from until
    /// they are below this, and reads it has under way are refused as `Overloaded`. Requests to a peer beyond it are refused in
    /// its place, and answers dropped, as a lossy network would. States beyond 4 MiB are counted apart, so that they hold up
    /// nothing else, and one of them may always wait.
    pub outbound_bytes_max: usize,
    /// Client connections of the whole process, half of them with one certificate. Beyond it new ones are closed.
    pub client_connections_max: usize,
    /// Connections of one shard that are still in the TLS handshake and whose address has been shown to receive; half of them
    /// from one address, half as many again from members. Of others an eighth as many: beyond that they are sent a Retry.
    pub handshakes_max: usize,
    /// How long a handshake may take. Whoever does not answer holds its place for so long.
    pub handshake_timeout: Duration,
    /// Bytes of large frames (each on its own stream) that one shard takes in at once: half of them from peers and half from
    /// clients, of which a quarter with one certificate. Each of these is at least [`driftless_proto::frame::FRAME_MAX`]. Longer
    /// ones, which only peers send, are taken in one at a time beside them.
    pub large_bytes_max: usize,
    /// Requests and messages on their way from one shard to another.
    pub handed_over_max: usize,
    /// How long a large frame may take to arrive, with a second more for each megabyte, and a peer to say hello.
    pub arrival_timeout: Duration,
    /// How long a connection attempt may take. QUIC calls again after 0.3 and 0.9 s; a later call would come later than that
    /// of the next attempt.
    pub dial_timeout: Duration,
    /// First pause between attempts to reach a peer; doubles up to `redial_max`.
    pub redial_min: Duration,
    /// Longest pause between attempts to reach a peer. With `dial_timeout` the bound of how long a peer that is back
    /// waits for a call: 1.6 s with the defaults.
    pub redial_max: Duration,
    /// A connection on which nothing arrives for so long is lost. Attempt timeouts must be well below it. That a peer
    /// is gone the detector knows sooner: this only has to outlast pauses that are worth no new handshake.
    pub idle_timeout: Duration,
    /// Silence after which a sign of life is sent; a third of `idle_timeout` survives two losses.
    pub keep_alive: Duration,
    /// How long a stopping node waits for what is under way.
    pub drain_timeout: Duration,
}

impl Default for NetLimits {
    fn default() -> NetLimits {
        NetLimits {
            requests_per_connection: 4096,
            outbound_bytes_max: 64 << 20,
            client_connections_max: 4096,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(3),
            large_bytes_max: 256 << 20,
            handed_over_max: 65_536,
            arrival_timeout: Duration::from_secs(30),
            dial_timeout: Duration::from_secs(2),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(6),
            keep_alive: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(5),
        }
    }
}
