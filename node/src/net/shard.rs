//! A shard: its socket, its QUIC endpoint, and everything that happens between them and its engine, on one thread.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::frame::PACKET_MAX;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::UnboundedReceiver;

use super::accept::{Tables, accept};
use super::accounts::WINDOW_MIN;
use super::agreement::Agreement;
use super::coalesced::Coalesced;
use super::detection::Detection;
use super::dial::{INITIAL_RTT, dial_all};
use super::driver::Driver;
use super::endpoint::ShardEndpoint;
use super::environment::OpenSocket;
use super::findings::DETECTING_SHARD;
use super::limits::NetLimits;
use super::node_context::{NodeContext, ShardMessage};
use super::refusal::{CloseCode, STOPPING};
use super::shard_context::ShardContext;
use super::tls::ResetKey;
use crate::config::Limits;
use crate::engine::{Engine, EngineConfig};
use crate::planted::Planted;
use crate::replica::store::Store;

/// What a shard begins with.
pub(crate) struct ShardStart<S> {
    pub(crate) shared: Arc<NodeContext>,
    pub(crate) shard: u16,
    pub(crate) socket: OpenSocket,
    pub(crate) reset_key: Arc<ResetKey>,
    pub(crate) store: S,
    /// On the shard that runs it.
    pub(crate) agreement: Option<Agreement>,
    pub(crate) messages: UnboundedReceiver<ShardMessage>,
}

/// Opens the socket of a shard.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    // Room for the bursts of many connections on one socket. The system may grant less, which is no reason not to run.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // For IPv4 as well, whatever this machine is set to; a kernel that cannot has refused IPv6 before.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl<S: Store> ShardStart<S> {
    /// Runs until the node stops or halts, on a runtime of its own.
    pub(crate) fn run(self) -> io::Result<()> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(TASKS_BETWEEN_TURNS)
            .build_local(LocalOptions::default())?;
        let ended = runtime.block_on(self.serve());
        // A look-up of a peer's address may still be blocking a thread; nobody waits for it.
        drop(runtime);
        ended
    }

    /// The same on the runtime of the caller, who has to run local tasks.
    pub(crate) async fn serve(self) -> io::Result<()> {
        let mut transport = transport(&self.shared.net);
        let mut config = endpoint_config(self.reset_key)?;
        (self.shared.environment.tune)(&mut config, &mut transport);
        let transport = Arc::new(transport);
        let shared = self.shared;
        let shown = shared.credentials.shown();
        let server = ShardEndpoint::server(shown.clone(), transport.clone());
        let socket = Arc::new(Coalesced((self.socket)()?));
        let endpoint =
            Endpoint::new_with_abstract_socket(config, Some(server.clone()), socket, Arc::new(TokioRuntime))?;
        let shard_endpoint = Rc::new(ShardEndpoint::new(endpoint.clone(), transport, server, shown));

        let context = Rc::new(ShardContext::new(shared.clone(), self.shard));
        let config = EngineConfig {
            node: shared.node,
            shard: self.shard,
            configurations: context.configurations.borrow().clone(),
            context_keys: shared.context_keys.clone(),
            limits: Limits {
                coordinated_bytes_max: shared.net.coordinated_max(shared.shards.len()),
                ..shared.limits.clone()
            },
            metrics: shared.metrics.clone(),
            seed: (shared.environment.random)(),
            planted: Planted::default(),
        };
        let engine = Engine::new(config, self.store, shared.clock.now());
        let detection = (self.shard == DETECTING_SHARD).then(|| Detection::start(&shared));
        let (clients, links) = (Rc::default(), Rc::default());
        let tables = Tables { context: context.clone(), clients, links, endpoint: shard_endpoint };
        tokio::task::spawn_local(accept(tables.clone()));
        dial_all(&tables);
        let finished = Driver::new(tables, engine, detection, self.agreement, self.messages).run().await;
        if finished {
            context.closing.close();
            let written = async {
                while endpoint.open_connections() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, written).await;
        }
        endpoint.close(VarInt::from_u32(CloseCode::Stopping as u32), STOPPING.as_bytes());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
        Ok(())
    }
}

fn endpoint_config(reset_key: Arc<ResetKey>) -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::new(reset_key);
    config.max_udp_payload_size(PACKET_MAX).map_err(io::Error::other)?;
    config.cid_generator(|| Box::new(AnyId));
    Ok(config)
}

/// Connection ids of chance alone. Those of quinn prove that this process has made them, and a packet with any other is dropped
/// unanswered: also one of a peer that still believes in our life before, and is to learn of its end by a stateless reset.
struct AnyId;

impl ConnectionIdGenerator for AnyId {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; CONNECTION_ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport(limits: &NetLimits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut probes = MtuDiscoveryConfig::default();
    probes.upper_bound(PACKET_MAX);
    transport
        .mtu_discovery_config(Some(probes))
        .keep_alive_interval(Some(limits.keep_alive))
        .max_idle_timeout(IdleTimeout::try_from(limits.idle_timeout).ok())
        .max_concurrent_bidi_streams(BIDI_STREAMS)
        .max_concurrent_uni_streams(UNI_STREAMS)
        .stream_receive_window(STREAM_WINDOW)
        .receive_window(FIRST_WINDOW)
        .send_window(u64::from(FIRST_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .initial_rtt(INITIAL_RTT);
    transport
}

/// As long as quinn's own.
const CONNECTION_ID_BYTES: usize = 8;

/// How many other tasks run before the driver and the socket are looked at again. What carries large values always has
/// something to do; tokio's own 61 of its steps take tens of milliseconds.
const TASKS_BETWEEN_TURNS: u32 = 16;

/// The conversation's. What others carry would be held for nobody to read.
const BIDI_STREAMS: VarInt = VarInt::from_u32(1);

/// Large frames under way at once, each on a stream of its own.
const UNI_STREAMS: VarInt = VarInt::from_u32(8);

/// Bytes of one stream that may be under way or unread: 20 MB/s for each stream between continents. All large frames together
/// fill half of a peer's window, however long they wait for room: so they can hold up neither the shared stream nor
/// one of them that has room. Clients' windows are smaller, and nothing of theirs waits for long.
const STREAM_WINDOW: VarInt = VarInt::from_u32(2 << 20);

/// Bytes of one connection that may be under way or unread before it is known whose it is.
const FIRST_WINDOW: VarInt = VarInt::from_u32(WINDOW_MIN as u32);

/// Datagrams of one connection that nobody has read, or QUIC has not sent; beyond it the oldest are lost. Clients have no
/// use for any, but a connection is not known to be a client's when its limits are set.
const DATAGRAM_BYTES: usize = 16 << 10;

pub(crate) const SOCKET_BUFFER: usize = 4 << 20;

/// How long connections may take to say good-bye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use quinn::crypto::HmacKey;

    use super::*;

    #[test]
    fn the_page_of_the_wire_says_what_a_connection_takes() {
        let code = [
            ("CONNECTION_ID_BYTES", CONNECTION_ID_BYTES as u64),
            ("BIDI_STREAMS", BIDI_STREAMS.into_inner()),
            ("UNI_STREAMS", UNI_STREAMS.into_inner()),
            ("STREAM_WINDOW", STREAM_WINDOW.into_inner()),
            ("DATAGRAM_BYTES", DATAGRAM_BYTES as u64),
        ];
        let page = include_str!("../../../docs/wire-format.md");
        driftless_testkit::pages::assert_constants(page, "node/src/net/shard.rs", &code);
        let limits = NetLimits::default();
        for said in [
            format!("silent for {} seconds at most", limits.idle_timeout.as_secs()),
            format!("(a QUIC PING) every {}.", limits.keep_alive.as_secs()),
            format!("said nothing for {} seconds", limits.arrival_timeout.as_secs()),
            format!("may take {} seconds to arrive", limits.arrival_timeout.as_secs()),
        ] {
            assert!(page.contains(&said), "the page does not say {said:?}");
        }
    }

    fn token(shard: u16, id: &[u8]) -> [u8; 32] {
        let mut token = [0; 32];
        ResetKey::of_shard(&[7; 64], shard).sign(id, &mut token);
        token
    }

    /// With quinn's own generator of ids it would be dropped unseen.
    #[tokio::test]
    async fn a_packet_of_a_connection_of_an_earlier_process_is_answered_with_a_reset() {
        let config = endpoint_config(Arc::new(ResetKey::of_shard(&[7; 64], 0))).expect("fits");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime)).expect("can be made");
        let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
        // A short header, and an id that this process has not made.
        let mut packet = [9; 100];
        packet[0] = 0x40;
        let address = endpoint.local_addr().expect("has one");
        peer.send_to(&packet, address).await.expect("can be sent");
        let mut answer = [0; 1_500];
        let answered = tokio::time::timeout(Duration::from_secs(10), peer.recv_from(&mut answer)).await;
        let (length, _) = answered.expect("it is answered").expect("can be received");
        assert!(length < packet.len(), "never longer than what was sent");
        assert_eq!(answer[length - 16..length], token(0, &[9; CONNECTION_ID_BYTES])[..16]);
    }

    #[test]
    fn no_connection_id_comes_twice() {
        let ids: std::collections::BTreeSet<_> = (0..100).map(|_| AnyId.generate_cid().to_vec()).collect();
        assert_eq!(ids.len(), 100);
    }

    /// A shard answers whoever sends it an id that it does not know with the token that belongs to it: it must be of no use elsewhere.
    #[test]
    fn the_token_of_one_shard_ends_no_connection_of_another() {
        assert_ne!(token(0, b"an id"), token(1, b"an id"));
        assert_eq!(token(1, b"an id"), token(1, b"an id"), "also in the next life");
    }
}
