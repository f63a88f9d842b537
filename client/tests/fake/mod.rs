//! Nodes that speak the protocol and hold nothing: a test sees every request that arrives, and says what is answered.
//!
//! Only the topology is answered without being asked for.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driftless_client::{Client, ClientBuilder, Identity};
use driftless_proto::client::{NodeStatus, Request, RequestFrame, Response, ResponseFrame, Stored};
use driftless_proto::frame::{self, ALPN_CLIENT, FRAME_MAX, FRAME_SHARED_MAX, FrameReader};
use driftless_proto::{Failure, Key, ProtocolVersions, Refusal, Topology, greeting};
use driftless_ring::{Member, Ring, RingSpec};
use driftless_testkit::{TopologyBuilder, bucket};
use quinn::crypto::rustls::QuicServerConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;

/// A CA, as `driftless cert ca` makes it.
pub struct Authority {
    pub ca: String,
    /// The certificates between the CA and those that are issued, as PEM.
    between: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as PEM.
pub struct Issued {
    pub cert: String,
    pub key: String,
}

/// One shard of a fake node.
pub struct Node {
    pub name: String,
    pub address: SocketAddr,
    endpoint: quinn::Endpoint,
    received: mpsc::UnboundedReceiver<Received>,
}

/// A request that arrived.
pub struct Received {
    pub frame: RequestFrame,
    /// Whether it came on a stream of its own.
    pub alone: bool,
    pub connection: quinn::Connection,
    version: u64,
    out: mpsc::UnboundedSender<Vec<u8>>,
}

pub type SharedTopology = Arc<Mutex<Option<Topology>>>;

/// Nodes, and the topology that they tell of.
pub struct Cluster {
    pub authority: Authority,
    pub nodes: Vec<Node>,
    pub topology: SharedTopology,
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().expect("draws a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("signs").pem();
        Authority { ca, between: String::new(), issuer: Issuer::new(params, key) }
    }

    /// A CA that has another one issue in its place, as companies do.
    pub fn with_another_between() -> Authority {
        let root = Authority::new();
        let key = KeyPair::generate().expect("draws a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "test CA in between");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let between = params.signed_by(&key, &root.issuer).expect("signs").pem();
        Authority { ca: root.ca, between, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, role: &str, name: &str) -> Issued {
        let key = KeyPair::generate().expect("draws a key");
        let mut params = CertificateParams::new(vec!["driftless-node".into()]).expect("a DNS name");
        let uri = rcgen::string::Ia5String::try_from(format!("driftless://shop/{role}/{name}")).expect("is ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
        let cert = params.signed_by(&key, &self.issuer).expect("signs").pem() + &self.between;
        Issued { cert, key: key.serialize_pem() }
    }

    pub fn client(&self) -> Identity {
        let own = self.issue("client", "tester");
        Identity::from_pem(self.ca.as_bytes(), own.cert.as_bytes(), own.key.as_bytes()).expect("fits together")
    }

    fn server_config(&self, own: &Issued) -> quinn::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("is PEM")).expect("is a CA");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .expect("has a root");
        let chain = CertificateDer::pem_slice_iter(own.cert.as_bytes()).collect::<Result<_, _>>().expect("is PEM");
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("is PEM");
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("the key fits");
        tls.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        let crypto = QuicServerConfig::try_from(tls).expect("has a QUIC cipher suite");
        quinn::ServerConfig::with_crypto(Arc::new(crypto))
    }
}

impl Node {
    /// Starts to listen; must run on a tokio runtime.
    pub fn start(authority: &Authority, role: &str, name: &str, topology: SharedTopology) -> Node {
        Node::start_at(authority, role, name, topology, SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
    }

    pub fn start_at(
        authority: &Authority,
        role: &str,
        name: &str,
        topology: SharedTopology,
        address: SocketAddr,
    ) -> std::io::Result<Node> {
        let greeting = greeting::encode(ProtocolVersions::OURS, &()).expect("is short");
        Node::start_saying(authority, role, name, topology, address, greeting)
    }

    /// One that begins every conversation with these bytes.
    pub fn start_saying(
        authority: &Authority,
        role: &str,
        name: &str,
        topology: SharedTopology,
        address: SocketAddr,
        greeting: Vec<u8>,
    ) -> std::io::Result<Node> {
        let config = authority.server_config(&authority.issue(role, name));
        let endpoint = quinn::Endpoint::server(config, address)?;
        let address = endpoint.local_addr()?;
        let (arrivals, received) = mpsc::unbounded_channel();
        tokio::spawn(accept(endpoint.clone(), topology, arrivals, greeting));
        Ok(Node { name: name.to_owned(), address, endpoint, received })
    }

    /// The next request.
    pub async fn next(&mut self) -> Received {
        // A client that gave up would leave the test waiting for ever; its longest call takes ten seconds.
        let received = tokio::time::timeout(Duration::from_secs(30), self.received.recv()).await;
        received.expect("no request arrived").expect("the node is listening")
    }

    /// The next request that is no question for a sign of life.
    pub async fn next_request(&mut self) -> Received {
        loop {
            let received = self.next().await;
            if !received.is_probe() {
                return received;
            }
        }
    }

    /// How many requests have arrived that were not looked at yet, signs of life not counted.
    pub fn calls_waiting(&mut self) -> usize {
        std::iter::from_fn(|| self.received.try_recv().ok()).filter(|received| !received.is_probe()).count()
    }

    /// Whether a request has arrived that was not looked at yet.
    pub fn has_been_asked(&mut self) -> bool {
        !self.received.is_empty()
    }

    /// Ends all connections and stops listening.
    pub fn stop(&self) {
        self.endpoint.close(0_u32.into(), b"stopped");
    }
}

impl Received {
    pub fn answer(&self, response: Response) {
        self.answer_from_ring(self.version, response);
    }

    pub fn answer_from_ring(&self, ring_version: u64, response: Response) {
        self.raw(self.encode(ring_version, response));
    }

    pub fn refuse(&self, refusal: Refusal) {
        self.answer(Response::Failed(Failure::Refused(refusal)));
    }

    pub fn stored(&self) {
        self.answer(Response::Stored(Stored { context: None, acks: 2, primaries: 2, siblings: 1, live: true }));
    }

    pub fn values(&self, values: &[&str]) {
        self.answer(Response::Read(read(values)));
    }

    pub async fn answer_alone(&self, response: Response) {
        let bytes = self.encode(self.version, response);
        let mut stream = self.connection.open_uni().await.expect("the client listens");
        stream.write_all(&bytes).await.expect("the client reads");
        stream.finish().expect("was open");
        // Its task may be gone before all is delivered otherwise.
        stream.stopped().await.ok();
    }

    /// Bytes on the shared stream.
    pub fn raw(&self, bytes: Vec<u8>) {
        self.out.send(bytes).ok();
    }

    pub fn hang_up(&self) {
        self.connection.close(0_u32.into(), b"hung up");
    }

    pub fn is_probe(&self) -> bool {
        matches!(self.frame.request, Request::Status)
    }

    pub fn status(&self) {
        self.answer(Response::Status(Box::new(NodeStatus {
            name: "a node".into(),
            version: "0".into(),
            ring_version: self.version,
            uptime_ms: 1,
            keys: None,
            bytes: None,
            hints: None,
            clock_offset_ms: Some(-3),
            takes_writes: true,
            conditions: Vec::new(),
            peers: vec![],
        })));
    }

    pub fn put(&self) -> &driftless_proto::client::Put {
        match &self.frame.request {
            Request::Put(put) => put,
            other => panic!("expected a put, got {other:?}"),
        }
    }

    pub fn key(&self) -> &Key {
        match &self.frame.request {
            Request::Get(get) => &get.key,
            Request::Put(put) => &put.key,
            Request::Delete(delete) => &delete.key,
            other => panic!("{other:?} has no key"),
        }
    }

    fn encode(&self, ring_version: u64, response: Response) -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = ResponseFrame { id: self.frame.id, ring_version, response };
        frame::encode(&frame, &mut bytes).expect("within limits");
        bytes
    }
}

pub fn read(values: &[&str]) -> driftless_proto::client::Read {
    let siblings = values
        .iter()
        .map(|value| driftless_client::Sibling {
            value: bytes::Bytes::copy_from_slice(value.as_bytes()),
            written_at: driftless_client::Hlc(1),
        })
        .collect();
    // The fake context is the values themselves, so that a test sees which read a put belongs to.
    let context = (!values.is_empty()).then(|| bytes::Bytes::from(values.join("+")).into());
    let basis = driftless_proto::client::Basis { needed: 2, primaries: 2 };
    driftless_proto::client::Read { siblings, context, basis, page: None, explanation: None }
}

impl Cluster {
    /// Nodes of one shard each, with the buckets `default` and `carts`.
    pub fn start(names: &[&str]) -> Cluster {
        Cluster::start_of(Authority::new(), names)
    }

    /// The same, with certificates of this authority.
    pub fn start_of(authority: Authority, names: &[&str]) -> Cluster {
        let topology = SharedTopology::default();
        let nodes: Vec<Node> =
            names.iter().map(|name| Node::start(&authority, "node", name, Arc::clone(&topology))).collect();
        let cluster = Cluster { authority, nodes, topology };
        cluster.tell(&["default", "carts"]);
        cluster
    }

    /// Makes the topology have these buckets; its ring stays as it is.
    pub fn tell(&self, buckets: &[&str]) {
        let members = self.nodes.iter().map(|node| Member::new(&*node.name, node.address.to_string())).collect();
        let ring = Ring::first(spec(members)).expect("a ring");
        self.set(topology(ring, buckets));
    }

    pub fn set(&self, topology: Topology) {
        *self.topology.lock().expect("no test panics under the lock") = Some(topology);
    }

    pub fn builder(&self) -> ClientBuilder {
        let seeds = self.nodes.iter().map(|node| node.address.to_string());
        Client::builder().seeds(seeds).identity(self.authority.client())
    }

    pub async fn connect(&self) -> Client {
        self.builder().connect().await.expect("a seed answers")
    }

    /// Keys of the default bucket whose first owner is this node.
    pub fn keys_of(&self, first: usize) -> impl Iterator<Item = String> {
        (0..).map(|i| format!("key {i}")).filter(move |key| self.owners("default", key)[0] == first)
    }

    /// Positions in `nodes` of the owners of a key, first choice first.
    pub fn owners(&self, bucket: &str, key: &str) -> Vec<usize> {
        let topology = self.topology.lock().expect("no test panics under the lock");
        let topology = topology.as_ref().expect("was told");
        let bucket = topology.bucket_named(bucket).expect("exists");
        let place = topology.place(bucket, &Key::new(key.to_owned()).expect("valid"));
        let names = topology.ring().owners(place.partition).iter();
        names
            .map(|&id| topology.ring().member(id).expect("a member").name.clone())
            .map(|name| self.nodes.iter().position(|node| node.name == name).expect("is in the cluster"))
            .collect()
    }
}

pub fn spec(members: Vec<Member>) -> RingSpec {
    TopologyBuilder::of_members(members).spec()
}

pub fn topology(ring: Ring, buckets: &[&str]) -> Topology {
    let n = ring.classes().next().expect("has a class");
    let definitions = (0..).zip(buckets).map(|(id, name)| bucket(id, name, n));
    Topology::new("shop", ring, definitions.collect()).expect("holds together")
}

async fn accept(
    endpoint: quinn::Endpoint,
    topology: SharedTopology,
    arrivals: mpsc::UnboundedSender<Received>,
    greeting: Vec<u8>,
) {
    while let Some(incoming) = endpoint.accept().await {
        let (topology, arrivals, greeting) = (Arc::clone(&topology), arrivals.clone(), greeting.clone());
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                serve(connection, topology, arrivals, greeting).await;
            }
        });
    }
}

async fn serve(
    connection: quinn::Connection,
    topology: SharedTopology,
    arrivals: mpsc::UnboundedSender<Received>,
    greeting: Vec<u8>,
) {
    let Ok((mut send, mut recv)) = connection.accept_bi().await else {
        return;
    };
    if send.write_all(&greeting).await.is_err() {
        return;
    }
    let (out, mut outbound) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(bytes) = outbound.recv().await {
            if send.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let hand_over = {
        let connection = connection.clone();
        move |body: &[u8], alone| {
            let frame: RequestFrame = frame::decode(body).expect("the client writes whole frames");
            let told = topology.lock().expect("no test panics under the lock").clone().expect("was told");
            let version = told.ring().version().0;
            let is_topology = matches!(frame.request, Request::Topology);
            let received = Received { frame, alone, connection: connection.clone(), version, out: out.clone() };
            if is_topology {
                received.answer(Response::Topology(Box::new(told)));
            } else {
                arrivals.send(received).ok();
            }
        }
    };
    let alone = {
        let (connection, hand_over) = (connection.clone(), hand_over.clone());
        async move {
            while let Ok(mut stream) = connection.accept_uni().await {
                let Ok(bytes) = stream.read_to_end(FRAME_MAX + 4).await else {
                    return;
                };
                let mut reader = FrameReader::new(FRAME_MAX);
                reader.push(&bytes);
                let body = reader.next_frame().expect("within limits").expect("exactly one frame");
                reader.finish().expect("exactly one frame");
                hand_over(&body, true);
            }
        }
    };
    tokio::spawn(alone);
    let mut reader = FrameReader::new(FRAME_SHARED_MAX);
    let mut is_greeted = false;
    while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX, true).await {
        reader.push(&chunk.bytes);
        while let Some(body) = reader.next_frame().expect("within limits") {
            match std::mem::replace(&mut is_greeted, true) {
                true => hand_over(&body, false),
                false => drop(greeting::read(&body).expect("the client begins with it")),
            }
        }
    }
}
