//! Bounds of the shell: what one connection, one peer and one process may take.

use std::time::Duration;

use driftless_proto::frame::FRAME_MAX;

/// Bounds and times of connections. The defaults suit a node with a few gigabytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetLimits {
    /// Bytes that requests may take up in all: half of them requests and answers of clients, a quarter client connections and
    /// what QUIC holds of them, an eighth what coordinators are sent by replicas, an eighth what is under way between peers. What
    /// each certificate may have of that is in docs/threat-model.md. The store's memory comes on top.
    pub memory: usize,
    /// Requests of clients under way at once, half of them with one certificate. Beyond it connections are read no further: it
    /// bounds what others have to wait behind, and what can be done a second over a distance.
    pub client_requests_max: usize,
    /// Bytes of answers waiting for one connection. A client that does not read its answers is not read from until
    /// they are below this, and reads it has under way are refused as `Overloaded`. Requests to a peer beyond it are refused in
    /// its place, and answers dropped, as a lossy network would. There a quarter as much of small messages may wait beside the large ones, and states beyond
    /// 4 MiB are counted apart as well: so no kind keeps another from being sent, and one of those may always wait.
    pub outbound_bytes_max: usize,
    /// Connections of one shard that are still in the TLS handshake and whose address has been shown to receive; half of them
    /// from one address, half as many again from members. Of others an eighth as many: beyond that they are sent a Retry.
    pub handshakes_max: usize,
    /// How long a handshake may take. Whoever does not answer holds its place for so long.
    pub handshake_timeout: Duration,
    /// Requests and messages on their way from one shard to another.
    pub handed_over_max: usize,
    /// How long a large frame may take to arrive, with a second more for each megabyte, and a peer to say hello or a client
    /// which versions it speaks; and for how long a client may take nothing of the answers that wait for it.
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
    /// Parts of traces that are recorded a second, so that a client which traces everything fills neither log nor collector.
    pub traces_per_second: u32,
}

impl NetLimits {
    /// Bytes of peers' large frames that one of so many shards takes in at once, from the announcement until its engine has them;
    /// at least one of [`FRAME_MAX`]. Longer ones are taken in one at a time beside them.
    pub(crate) fn peer_frames_max(&self, shards: usize) -> usize {
        (self.memory / 16 / shards.max(1)).max(FRAME_MAX)
    }

    /// Bytes of values that replicas may have sent for what one of so many shards coordinates.
    pub(crate) fn coordinated_max(&self, shards: usize) -> usize {
        (self.memory / 8 / shards.max(1)).max(FRAME_MAX)
    }

    /// Bytes that may wait for one of so many connections to peers.
    pub(crate) fn peer_outbound_max(&self, connections: usize) -> usize {
        (self.memory / 16 / connections.max(1))
            .clamp(PEER_OUTBOUND_MIN.min(self.outbound_bytes_max), self.outbound_bytes_max)
    }
}

/// What a turn of the driver says to one peer has to fit in, several times.
const PEER_OUTBOUND_MIN: usize = 8 << 20;

/// The least [`NetLimits::memory`] that works: half of the half for requests and answers holds a frame of the longest kind, which counts as 27 MiB.
pub const MEMORY_MIN: usize = 128 << 20;

impl Default for NetLimits {
    fn default() -> NetLimits {
        NetLimits {
            memory: 1 << 30,
            client_requests_max: 512,
            outbound_bytes_max: 64 << 20,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(3),
            handed_over_max: 65_536,
            arrival_timeout: Duration::from_secs(30),
            dial_timeout: Duration::from_secs(2),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(6),
            keep_alive: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(5),
            traces_per_second: 100,
        }
    }
}
