//! A client that speaks the protocol by hand, for what a well-behaved one does not do.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use driftless_node::net::certificates::{CertificateAuthority, NODE_SERVER_NAME, Validity};
use driftless_proto::client::{Request, RequestFrame};
use driftless_proto::frame::{self, ALPN_CLIENT};
use quinn::{
    ClientConfig, Connecting, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt, WriteError,
};

use crate::by_hand;

/// Whoever has a certificate of the cluster's authority, and an endpoint of its own.
#[derive(Clone)]
pub(super) struct Guest {
    endpoint: Endpoint,
    config: ClientConfig,
}

/// One connection of it.
pub(super) struct Raw {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    /// Nobody reads it: what the node sends on it waits in the windows.
    _unread: RecvStream,
    next: u64,
}

impl Guest {
    /// With a certificate of this name.
    pub(super) fn new(authority: &CertificateAuthority, name: &str) -> Guest {
        let issued = authority.issue_client(name, None, Validity::holder(SystemTime::now())).expect("a plain name");
        let mut transport = TransportConfig::default();
        // It takes whatever the node sends and shows it to nobody; it keeps its connections.
        transport
            .stream_receive_window(VarInt::from_u32(64 << 20))
            .receive_window(VarInt::from_u32(64 << 20))
            .send_window(64 << 20)
            .keep_alive_interval(Some(Duration::from_secs(2)));
        let config =
            by_hand::config(authority.certificate_pem(), &issued.certificate, &issued.key, ALPN_CLIENT, transport);
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
        Guest { endpoint, config }
    }

    /// Calls somebody, who may not answer.
    pub(super) fn call(&self, whom: SocketAddr) -> Option<Connecting> {
        self.endpoint.connect_with(self.config.clone(), whom, NODE_SERVER_NAME).ok()
    }

    /// A connection, if the node lets it in within a few seconds.
    pub(super) async fn connect(&self, node: SocketAddr) -> Option<Raw> {
        let connection = tokio::time::timeout(PATIENCE, self.call(node)?).await.ok()?.ok()?;
        let (mut send, receive) = connection.open_bi().await.ok()?;
        send.write_all(&by_hand::greeting()).await.ok()?;
        Some(Raw { connection, send, _unread: receive, next: 1 })
    }
}

impl Raw {
    /// Sends a request on a stream of its own.
    pub(super) async fn send_alone(&mut self, request: Request) -> Option<()> {
        let frame = self.frame(request);
        let mut stream = self.connection.open_uni().await.ok()?;
        match stream.write_all(&frame).await {
            // The node does not want this one.
            Err(WriteError::Stopped(_)) => Some(()),
            Err(_) => None,
            Ok(()) => stream.finish().ok(),
        }
    }

    /// The next request as a frame.
    pub(super) fn frame(&mut self, request: Request) -> Vec<u8> {
        let id = self.next;
        self.next += 1;
        let mut out = Vec::new();
        frame::encode(&RequestFrame { id, ring_version: 1, deadline_ms: 10_000, request }, &mut out).expect("fits");
        out
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
