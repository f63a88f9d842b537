//! Nodes in this process, and a client that speaks the protocol by hand.
#![allow(clippy::disallowed_methods)] // Time and chance of the system: these tests run real nodes.
#![allow(dead_code, missing_docs, unreachable_pub)] // Every test binary uses a part of this.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use driftless_node::config::Limits;
use driftless_node::metrics::Metrics;
use driftless_node::net::certificates::{CertificateAuthority, Issued, NODE_SERVER_NAME, Validity};
use driftless_node::net::keeper::MemoryKeeper;
use driftless_node::net::limits::NetLimits;
use driftless_node::net::sync::Syncer;
use driftless_node::net::tls::{TlsFiles, TlsIdentity};
use driftless_node::node::{Node, NodeSettings, Security};
use driftless_node::peer::Incarnation;
use driftless_node::replica::store::{ApplyError, Batch, BatchSeq, Store, StoreError};
use driftless_node::store::memory::MemoryStore;
use driftless_proto::client::{Get, Put, Read, Request, RequestFrame, Response, ResponseFrame, Stored};
use driftless_proto::frame::{self, ALPN_CLIENT, FRAME_MAX, FRAME_SHARED_MAX, FrameReader};
use driftless_proto::membership::{ClusterAnswer, ClusterCommand, StoreId};
use driftless_proto::{
    BucketId, ContextToken, Failure, Key, ProtocolVersions, Refusal, Role, Topology, WriteId, greeting,
};
use driftless_ring::Member;
use driftless_testkit::TopologyBuilder;
pub use driftless_testkit::context_keys;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub const CLUSTER: &str = "test";

/// Far more than anything takes that is waited for, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A second bucket, called `carts`.
pub const CARTS: BucketId = BucketId(5);

/// A memory store that the test keeps a hand on, so that a node can be started on it again.
#[derive(Clone, Default)]
pub struct SharedStore(pub Arc<Mutex<MemoryStore>>);

impl Store for SharedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.lock().expect("not poisoned").get(key)
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.lock().expect("not poisoned").scan(range, visit)
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        self.0.lock().expect("not poisoned").apply(batch)
    }
}

pub struct StoresSyncer {
    stores: Vec<SharedStore>,
    pub fail: Arc<Mutex<Option<StoreError>>>,
}

impl Syncer for StoresSyncer {
    fn sync(&self) -> Result<(), StoreError> {
        if let Some(error) = self.fail.lock().expect("not poisoned").clone() {
            return Err(error);
        }
        for store in &self.stores {
            store.0.lock().expect("not poisoned").sync();
        }
        Ok(())
    }
}

/// A cluster whose nodes run in this process.
pub struct Cluster {
    pub authority: CertificateAuthority,
    pub topology: Arc<Topology>,
    pub members: Vec<Member>,
    pub nodes: Vec<Option<Node>>,
    stores: Vec<Vec<SharedStore>>,
    starts: Vec<u64>,
    /// What names the data of each node, and what it has agreed on with others.
    pub data: Vec<(StoreId, Arc<MemoryKeeper>)>,
    pub sync_failures: Vec<Arc<Mutex<Option<StoreError>>>>,
}

impl Cluster {
    pub fn start(shards: &[u16]) -> Cluster {
        let mut cluster = Cluster::plan(shards);
        for i in 0..shards.len() {
            cluster.start_node(i);
        }
        cluster
    }

    /// Everything but running nodes.
    pub fn plan(shards: &[u16]) -> Cluster {
        Cluster::plan_with(shards, shards.len())
    }

    /// The same, but only the first nodes are members from the beginning.
    pub fn plan_with(shards: &[u16], founders: usize) -> Cluster {
        log_to_memory();
        let names = ["a", "b", "c", "d", "e"];
        let members: Vec<Member> = shards
            .iter()
            .zip(names)
            .map(|(shards, name)| {
                let mut member = Member::new(name, format!("127.0.0.1:{}", free_ports(*shards)));
                member.shards = *shards;
                member
            })
            .collect();
        Cluster {
            authority: CertificateAuthority::create(CLUSTER).expect("a plain name"),
            topology: topology(&members[..founders]),
            nodes: shards.iter().map(|_| None).collect(),
            stores: shards.iter().map(|n| (0..*n).map(|_| SharedStore::default()).collect()).collect(),
            starts: vec![0; shards.len()],
            data: shards.iter().map(|_| (StoreId(rand::random()), Arc::default())).collect(),
            sync_failures: shards.iter().map(|_| Arc::default()).collect(),
            members,
        }
    }

    pub fn address(&self, node: usize) -> SocketAddr {
        self.members[node].address.parse().expect("is an address")
    }

    pub fn settings(&mut self, node: usize) -> NodeSettings {
        self.starts[node] += 1;
        let name = &self.members[node].name;
        let issued = self.authority.issue_node(name, Validity::holder(SystemTime::now())).expect("a plain name");
        NodeSettings {
            name: name.clone(),
            listen: self.address(node),
            admin: Some(([127, 0, 0, 1], 0).into()),
            tls: identity(self.authority.certificate_pem(), &issued),
            security: Security::default(),
            topology: self.topology.clone(),
            // Who is in the file need not say it.
            member: self.topology.ring().member_by_name(name).is_none().then(|| self.members[node].clone()),
            store: self.data[node].0,
            agreement: Some(self.data[node].1.clone()),
            context_keys: context_keys(),
            limits: Limits::default(),
            net: NetLimits::default(),
            incarnation: Incarnation { starts: self.starts[node], nonce: rand::random() },
            lives: None,
            reset_key: [node as u8; 64],
            metrics: Arc::new(Metrics::default()),
        }
    }

    pub fn start_node(&mut self, node: usize) {
        let settings = self.settings(node);
        self.start_with(node, settings);
    }

    pub fn start_with(&mut self, node: usize, settings: NodeSettings) {
        let stores = self.stores[node].clone();
        let syncer = StoresSyncer { stores: stores.clone(), fail: self.sync_failures[node].clone() };
        // The port of a node that has just ended may take a moment to be free.
        let mut started = Err(None);
        eventually("the node starts", || {
            started = Node::start(
                settings.clone(),
                stores.clone(),
                StoresSyncer { stores: syncer.stores.clone(), fail: syncer.fail.clone() },
            )
            .map_err(Some);
            started.is_ok()
        });
        self.nodes[node] = Some(started.unwrap_or_else(|error| panic!("{error:?}")));
    }

    pub fn stop_node(&mut self, node: usize) {
        let node = self.nodes[node].take().expect("runs");
        node.stop();
        node.join().expect("stops without trouble");
    }

    /// All records of a node, whatever shard holds them.
    pub fn records(&self, node: usize) -> BTreeMap<Bytes, Bytes> {
        let mut records = BTreeMap::new();
        for store in &self.stores[node] {
            // Records begin with 1, what a shard notes for itself with 0.
            let all: Range<&[u8]> = &[1]..&[2];
            let visit = &mut |key: &[u8], value| {
                records.insert(Bytes::copy_from_slice(key), value);
                ControlFlow::Continue(())
            };
            store.scan(all, visit).expect("readable");
        }
        records
    }

    /// A node that does not run loses these records, and does not know.
    pub fn forget(&mut self, node: usize, lost: impl Fn(&[u8]) -> bool) -> usize {
        assert!(self.nodes[node].is_none());
        let lost: Vec<Bytes> = self.records(node).into_keys().filter(|key| lost(key)).collect();
        for store in &mut self.stores[node] {
            let changes = lost.iter().map(|key| (key.clone(), None)).collect();
            store.apply(Batch { changes }).expect("has room");
        }
        lost.len()
    }

    /// A node that does not run loses its disk.
    pub fn lose_disk(&mut self, node: usize) {
        assert!(self.nodes[node].is_none());
        self.stores[node].fill_with(SharedStore::default);
        self.data[node] = (StoreId(rand::random()), Arc::default());
    }

    pub fn node(&self, node: usize) -> &Node {
        self.nodes[node].as_ref().expect("runs")
    }

    pub fn wait_connected(&self) {
        eventually("all nodes reach all others", || {
            self.nodes.iter().flatten().map(Node::status).all(|status| {
                let is_alone = status.conditions.iter().any(|condition| condition.name == "file_alone");
                !is_alone && status.peers.iter().all(|peer| peer.connected)
            })
        });
    }

    pub fn client_identity(&self) -> Issued {
        self.authority.issue_client("tester", None, Validity::holder(SystemTime::now())).expect("a plain name")
    }

    pub fn operator_identity(&self) -> Issued {
        let validity = Validity::holder(SystemTime::now());
        self.authority.issue_client("operator", Some(Role::Operator), validity).expect("a plain name")
    }

    pub async fn client(&self, node: usize) -> TestClient {
        let identity = self.client_identity();
        TestClient::connect(self.address(node), self.authority.certificate_pem(), &identity).await
    }

    /// A client of this name, with the role in its certificate.
    pub async fn client_as(&self, node: usize, name: &str, role: Option<Role>) -> TestClient {
        let issued = self.authority.issue_client(name, role, Validity::holder(SystemTime::now()));
        let issued = issued.expect("a plain name");
        TestClient::connect(self.address(node), self.authority.certificate_pem(), &issued).await
    }

    pub fn stop(mut self) {
        for node in self.nodes.iter().flatten() {
            node.stop();
        }
        for node in self.nodes.drain(..).flatten() {
            node.join().expect("stops without trouble");
        }
    }
}

pub fn topology(members: &[Member]) -> Arc<Topology> {
    let carts = driftless_testkit::bucket(CARTS.0, "carts", members.len().min(3) as u8);
    TopologyBuilder::of_members(members.to_vec()).named(CLUSTER).partitions(64).bucket(carts).shared()
}

pub fn tls_files() -> TlsFiles {
    let path = |name: &str| PathBuf::from(name);
    TlsFiles { ca: path("ca.pem"), cert: path("node.pem"), key: path("node.key") }
}

pub fn identity(ca: &str, issued: &Issued) -> TlsIdentity {
    let (cert, key) = (issued.certificate.as_bytes(), issued.key.as_bytes());
    TlsIdentity::from_pem(&tls_files(), ca.as_bytes(), cert, key, SystemTime::now()).expect("fits")
}

/// Consecutive UDP ports that were free a moment ago, and that nobody else in this process was given; the first of them.
pub fn free_ports(count: u16) -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let first: u16 = rand::random_range(20_000..32_000);
        let ports = first..first + count;
        // None of them is bound yet: two nodes of one cluster had one port, and one of them never started.
        if ports.clone().any(|port| given.contains(&port)) {
            continue;
        }
        let sockets: Result<Vec<_>, _> = ports.clone().map(|port| UdpSocket::bind(("127.0.0.1", port))).collect();
        if sockets.is_ok() {
            given.extend(ports);
            return first;
        }
    }
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same for a test whose own connections must go on meanwhile.
pub async fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a test's client side.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, future).await.expect("ends in time") })
}

/// Speaks the client protocol frame by frame.
pub struct TestClient {
    pub endpoint: Endpoint,
    pub connection: Connection,
    pub send: SendStream,
    receive: RecvStream,
    reader: FrameReader,
    next: u64,
    /// As far as the node has said; before that, of the file.
    ring_version: u64,
    early: Vec<ResponseFrame>,
}

pub fn endpoint(ca: &str, identity: &Issued, alpn: &[u8]) -> Endpoint {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window((8_u32 << 20).into()).keep_alive_interval(Some(Duration::from_secs(2)));
    endpoint_with(ca, identity, alpn, transport)
}

fn endpoint_with(ca: &str, identity: &Issued, alpn: &[u8], transport: quinn::TransportConfig) -> Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("an authority");
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("fits");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    endpoint.set_default_client_config(config);
    endpoint
}

impl TestClient {
    pub async fn connect(address: SocketAddr, ca: &str, identity: &Issued) -> TestClient {
        TestClient::on(endpoint(ca, identity, ALPN_CLIENT), address).await
    }

    /// One that takes in a few kilobytes of what it does not read.
    pub async fn connect_narrow(address: SocketAddr, ca: &str, identity: &Issued) -> TestClient {
        let mut transport = quinn::TransportConfig::default();
        transport.receive_window((64_u32 << 10).into()).keep_alive_interval(Some(Duration::from_secs(2)));
        TestClient::on(endpoint_with(ca, identity, ALPN_CLIENT, transport), address).await
    }

    /// One of a release that speaks these versions of the protocol.
    pub async fn connect_speaking(
        address: SocketAddr,
        ca: &str,
        identity: &Issued,
        versions: ProtocolVersions,
    ) -> TestClient {
        TestClient::greet(endpoint(ca, identity, ALPN_CLIENT), address, versions).await
    }

    async fn on(endpoint: Endpoint, address: SocketAddr) -> TestClient {
        TestClient::greet(endpoint, address, ProtocolVersions::OURS).await
    }

    async fn greet(endpoint: Endpoint, address: SocketAddr, versions: ProtocolVersions) -> TestClient {
        let connection =
            endpoint.connect(address, NODE_SERVER_NAME).expect("valid").await.expect("the node accepts us");
        let (mut send, receive) = connection.open_bi().await.expect("a stream");
        let greeting = greeting::encode(versions, &()).expect("fits");
        send.write_all(&greeting).await.expect("the connection is up");
        let reader = FrameReader::new(FRAME_SHARED_MAX);
        let mut client =
            TestClient { endpoint, connection, send, receive, reader, next: 1, ring_version: 1, early: Vec::new() };
        client.greeted().await;
        client
    }

    /// Waits for what the node says first.
    async fn greeted(&mut self) {
        loop {
            if let Some(body) = self.reader.next_frame().expect("well-formed") {
                greeting::read(&body).expect("is one");
                return;
            }
            match self.receive.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => self.reader.push(&chunk.bytes),
                // What is wrong shows with the first request.
                _ => return,
            }
        }
    }

    pub async fn send(&mut self, request: Request) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send_frame(&RequestFrame { id, ring_version: self.ring_version, deadline_ms: 5000, request }).await;
        id
    }

    pub async fn send_frame(&mut self, frame: &RequestFrame) {
        let mut out = Vec::new();
        frame::encode(frame, &mut out).expect("fits");
        if out.len() <= FRAME_SHARED_MAX {
            self.send.write_all(&out).await.expect("the connection is up");
        } else {
            let mut stream = self.connection.open_uni().await.expect("the connection is up");
            stream.write_all(&out).await.expect("the connection is up");
            stream.finish().expect("is open");
        }
    }

    /// The next answer, on whatever stream.
    pub async fn receive(&mut self) -> Option<ResponseFrame> {
        loop {
            if let Some(body) = self.reader.next_frame().expect("well-formed") {
                return Some(frame::decode(&body).expect("well-formed"));
            }
            tokio::select! {
                chunk = self.receive.read_chunk(usize::MAX, true) => match chunk {
                    Ok(Some(chunk)) => self.reader.push(&chunk.bytes),
                    _ => return None,
                },
                stream = self.connection.accept_uni() => {
                    let bytes = stream.ok()?.read_to_end(FRAME_MAX + 4).await.ok()?;
                    return Some(frame::decode(&bytes[4..]).expect("well-formed"));
                }
            }
        }
    }

    pub async fn answer_to(&mut self, id: u64) -> Response {
        if let Some(at) = self.early.iter().position(|frame| frame.id == id) {
            return self.early.remove(at).response;
        }
        loop {
            let frame = self.receive().await.expect("the connection is up");
            self.ring_version = frame.ring_version;
            if frame.id == id {
                return frame.response;
            }
            self.early.push(frame);
        }
    }

    /// Again, if the cluster has just been founded and the node has gone on by another version of the ring.
    pub async fn ask(&mut self, request: Request) -> Response {
        loop {
            let id = self.send(request.clone()).await;
            let response = self.answer_to(id).await;
            let is_stale = matches!(response, Response::Failed(Failure::Refused(Refusal::StaleRing { .. })));
            if !is_stale || id > REQUESTS_MAX {
                return response;
            }
        }
    }

    pub async fn put(&mut self, key: &str, value: impl Into<Bytes>, context: Option<ContextToken>) -> Stored {
        match self.ask(put(key, value, context)).await {
            Response::Stored(stored) => stored,
            other => panic!("put {key}: {other:?}"),
        }
    }

    pub async fn get(&mut self, key: &str) -> Read {
        match self.ask(get(key)).await {
            Response::Read(read) => read,
            other => panic!("get {key}: {other:?}"),
        }
    }
}

/// What is answered to an order, once it can be carried out.
pub async fn order(client: &mut TestClient, command: ClusterCommand) -> ClusterAnswer {
    let mut last = None;
    for _ in 0..200 {
        match client.ask(Request::Cluster(command.clone())).await {
            Response::Cluster(answer) => return answer,
            // The nodes are just finding together.
            Response::Failed(failure) => last = Some(failure),
            other => panic!("{command:?}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{command:?}: {last:?}");
}

pub fn get(key: &str) -> Request {
    Request::Get(Get {
        bucket: BucketId::DEFAULT,
        key: Key::new(key.to_owned()).expect("valid"),
        r: None,
        sloppy: None,
        explain: false,
        shown: Vec::new(),
    })
}

pub fn put(key: &str, value: impl Into<Bytes>, context: Option<ContextToken>) -> Request {
    Request::Put(Put {
        bucket: BucketId::DEFAULT,
        key: Key::new(key.to_owned()).expect("valid"),
        value: value.into(),
        context,
        w: None,
        sloppy: None,
        write_id: WriteId(rand::random()),
    })
}

/// All that the nodes of this test binary have logged so far.
pub fn log() -> String {
    String::from_utf8_lossy(&memory_log().lock().expect("not poisoned")).into_owned()
}

pub fn log_to_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(|| MemoryLog)
            .with_max_level(tracing::Level::INFO)
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("nobody else sets one");
    });
}

fn memory_log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(Mutex::default)
}

struct MemoryLog;

impl Write for MemoryLog {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if std::env::var_os("SHOW_LOG").is_some() {
            std::io::stderr().write_all(line)?;
        }
        memory_log().lock().expect("not poisoned").extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// More than any test asks.
const REQUESTS_MAX: u64 = 100_000;
