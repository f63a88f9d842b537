//! The whole path: a client, and three nodes in this process that it reaches by QUIC over the loopback interface, n = 3,
//! r = w = 2, values of 1 KiB. Once with stores on disk that sync before they acknowledge, and once in memory, which is
//! the bound of everything else. Client and nodes share the machine's cores.
//!
//! The disk is that of the temporary directory, as for the bench `store`. Times are the inverse of the throughput: with
//! 64 requests under way, each of them takes 64 times as long.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use driftless_benches::{NAMES, context_keys, topology};
use driftless_client::{Bucket, Client, Context, Identity, IoRuntime};
use driftless_node::config::Limits;
use driftless_node::metrics::Metrics;
use driftless_node::net::certificates::{CertificateAuthority, Issued, Validity};
use driftless_node::net::limits::NetLimits;
use driftless_node::net::sync::{NoSync, Syncer};
use driftless_node::net::tls::{TlsFiles, TlsIdentity};
use driftless_node::node::{Node, NodeSettings, Security};
use driftless_node::peer::Incarnation;
use driftless_node::replica::store::{ApplyError, Batch, BatchSeq, Store, StoreError};
use driftless_node::store::log::{LogDatabase, LogOptions};
use driftless_node::store::memory::MemoryStore;
use driftless_proto::membership::StoreId;
use futures::future::join_all;
use tokio::runtime::Runtime;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Enough that all nodes are asked alike, few enough that all are in memory.
const KEYS: usize = 10_000;

const VALUE_BYTES: usize = 1024;

const PREFILL_IN_FLIGHT: usize = 64;

/// A store in memory for which every batch is durable at once, so that nothing gathers for a sync that never comes.
#[derive(Default)]
struct Unsynced(MemoryStore);

impl Store for Unsynced {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(key)
    }

    fn scan(
        &self,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.scan(range, visit)
    }

    fn apply(&mut self, batch: Batch) -> Result<BatchSeq, ApplyError> {
        let applied = self.0.apply(batch)?;
        self.0.sync();
        Ok(applied)
    }
}

/// Three nodes on threads of their own.
struct Cluster {
    nodes: Vec<Node>,
    seeds: [String; 3],
    identity: Identity,
}

impl Cluster {
    /// Starts the nodes, each on the store that `open` gives it.
    fn start<S: Store + Send + 'static, Y: Syncer + 'static>(open: impl Fn(&str) -> (S, Y)) -> Cluster {
        let authority = CertificateAuthority::create("bench").expect("a plain name");
        let ca = authority.certificate_pem().as_bytes();
        let validity = Validity::holder(SystemTime::now());
        let addresses = free_addresses();
        let seeds = addresses.map(|address| address.to_string());
        let topology = topology(seeds.clone());
        let nodes = NAMES.into_iter().zip(addresses).map(|(name, listen)| {
            let Issued { certificate, key } = authority.issue_node(name, validity).expect("a plain name");
            let files = TlsFiles { ca: "ca.pem".into(), cert: "node.pem".into(), key: "node.key".into() };
            let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
            let settings = NodeSettings {
                name: name.to_owned(),
                listen,
                admin: None,
                tls: TlsIdentity::from_pem(&files, ca, certificate, key, SystemTime::now()).expect("just issued"),
                security: Security::default(),
                topology: Arc::clone(&topology),
                member: None,
                store: StoreId(listen.port().into()),
                agreement: None,
                context_keys: context_keys(),
                limits: Limits::default(),
                net: NetLimits::default(),
                lives: None,
                incarnation: Incarnation { starts: 1, nonce: u64::from(listen.port()) },
                reset_key: [7; 64],
                metrics: Arc::new(Metrics::default()),
            };
            let (store, syncer) = open(name);
            Node::start(settings, vec![store], syncer).expect("its port was free a moment ago")
        });
        let nodes: Vec<Node> = nodes.collect();
        let until = Instant::now() + Duration::from_secs(20);
        while !nodes.iter().all(|node| node.status().peers.iter().all(|peer| peer.connected)) {
            assert!(Instant::now() < until, "the nodes do not reach each other");
            std::thread::sleep(Duration::from_millis(10));
        }
        let Issued { certificate, key } = authority.issue_client("bench", None, validity).expect("a plain name");
        let identity = Identity::from_pem(ca, certificate.as_bytes(), key.as_bytes()).expect("just issued");
        Cluster { nodes, seeds, identity }
    }

    /// A client on the caller's runtime, which takes as little as it can from the nodes beside it.
    async fn client(&self) -> Client {
        let client = Client::builder().seeds(self.seeds.clone()).identity(self.identity.clone());
        client.io_runtime(IoRuntime::Caller).connect().await.expect("the nodes answer")
    }

    fn stop(self) {
        self.nodes.iter().for_each(Node::stop);
        for node in self.nodes {
            node.join().expect("stops without trouble");
        }
    }
}

/// Ports that were free a moment ago.
fn free_addresses() -> [SocketAddr; 3] {
    let sockets = [(); 3].map(|()| UdpSocket::bind(("127.0.0.1", 0)).expect("there are free ports"));
    sockets.map(|socket| socket.local_addr().expect("is bound"))
}

#[derive(Clone, Copy)]
enum Operation {
    Put,
    Get,
}

/// A key, and what the client has last seen of it.
struct Owned {
    key: Bytes,
    context: Option<Context>,
}

/// The keys in use. A request takes one out while it is under way, so that puts replace what they have read and never
/// pile up siblings.
struct Load {
    bucket: Bucket,
    value: Bytes,
    idle: RefCell<VecDeque<Owned>>,
}

impl Load {
    fn new(client: &Client) -> Load {
        let key = |i: usize| Owned { key: format!("bench-{:08}", i * 7919 % KEYS).into(), context: None };
        Load {
            bucket: client.bucket("default"),
            value: vec![7; VALUE_BYTES].into(),
            idle: RefCell::new((0..KEYS).map(key).collect()),
        }
    }

    /// So many requests, so many of them under way at any time; how long they took.
    async fn run(&self, operation: Operation, requests: u64, in_flight: usize) -> Duration {
        let left = Cell::new(requests);
        let worker = async || {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let mut owned = self.idle.borrow_mut().pop_front().expect("more keys than requests at once");
                match operation {
                    Operation::Put => self.put(&mut owned).await,
                    Operation::Get => self.get(&owned).await,
                }
                self.idle.borrow_mut().push_back(owned);
            }
        };
        let started = Instant::now();
        join_all((0..in_flight).map(|_| worker())).await;
        started.elapsed()
    }

    async fn put(&self, owned: &mut Owned) {
        let put = self.bucket.put(owned.key.clone(), self.value.clone()).context(owned.context.take());
        owned.context = match put.send().await.expect("is acknowledged").context() {
            // A retry that two nodes have stamped left a sibling.
            None => self.bucket.get(owned.key.clone()).send().await.expect("is answered").context().cloned(),
            own => own,
        };
    }

    async fn get(&self, owned: &Owned) {
        assert!(self.bucket.get(owned.key.clone()).send().await.expect("is answered").exists());
    }
}

fn measure(criterion: &mut Criterion, name: &str, cluster: Cluster) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = runtime.block_on(cluster.client());
    let load = Load::new(&client);
    runtime.block_on(load.run(Operation::Put, KEYS as u64, PREFILL_IN_FLIGHT));

    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).sample_size(10).throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for (verb, operation) in [("put", Operation::Put), ("get", Operation::Get)] {
        for in_flight in [1, 64] {
            group.bench_function(format!("{verb}, {in_flight} under way"), |bencher| {
                let requests = |requests| load.run(operation, requests, in_flight);
                bencher.to_async::<&Runtime>(&runtime).iter_custom(requests);
            });
        }
    }
    group.finish();

    drop(load);
    runtime.block_on(client.close());
    cluster.stop();
}

fn on_disk(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("the temporary directory can be written to");
    let cluster = Cluster::start(|name| {
        let database = LogDatabase::open(folder.path().join(name), LogOptions::default()).expect("is empty");
        (database.store(0), database.syncer())
    });
    measure(criterion, "cluster, synced to disk", cluster);
}

fn in_memory(criterion: &mut Criterion) {
    measure(criterion, "cluster, in memory", Cluster::start(|_| (Unsynced::default(), NoSync)));
}

criterion_group!(benches, on_disk, in_memory);
criterion_main!(benches);
