//! A client that speaks the protocol by hand, for what a well-behaved one does not do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use driftless_node::net::certificates::{CertificateAuthority, NODE_SERVER_NAME, Validity};
use driftless_proto::client::{Get, Put, Request, RequestFrame};
use driftless_proto::frame::{self, ALPN_CLIENT};
use driftless_proto::{BucketId, Key, WriteId};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connecting, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt, WriteError,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).expect("PEM");
        roots.add(ca).expect("an authority");
        let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("they fit");
        tls.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
        let mut transport = TransportConfig::default();
        // It takes whatever the node sends and shows it to nobody; it keeps its connections.
        transport
            .stream_receive_window(VarInt::from_u32(64 << 20))
            .receive_window(VarInt::from_u32(64 << 20))
            .send_window(64 << 20)
            .keep_alive_interval(Some(Duration::from_secs(2)));
        config.transport_config(Arc::new(transport));
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
        let (send, receive) = connection.open_bi().await.ok()?;
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

pub(super) fn get(key: &str) -> Request {
    let key = Key::new(key.to_owned()).expect("is short");
    Request::Get(Get { bucket: BucketId::DEFAULT, key, r: None, sloppy: None, explain: false, shown: Vec::new() })
}

pub(super) fn put(key: &str, value: impl Into<Bytes>) -> Request {
    Request::Put(Put {
        bucket: BucketId::DEFAULT,
        key: Key::new(key.to_owned()).expect("is short"),
        value: value.into(),
        context: None,
        w: None,
        sloppy: None,
        write_id: WriteId(rand::random()),
    })
}

const PATIENCE: Duration = Duration::from_secs(5);
