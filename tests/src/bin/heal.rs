//! What healing takes: a node loses its disk, and another one 10,000 records behind its back; both are complete again
//! with nobody reading what was lost, while clients go on with keys of their own.
//!
//! ```sh
//! cargo run --release -p driftless-tests --bin heal -- --keys 1000000
//! ```
//! Three nodes in this process, with their stores on disk in the temporary directory, sockets on the loopback interface
//! and default limits. Clients and nodes share the machine's cores.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it measures real time on real nodes")]

use std::net::{SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use driftless_client::{Bucket, Client, Identity};
use driftless_node::config::Limits;
use driftless_node::metrics::Metrics;
use driftless_node::net::certificates::{CertificateAuthority, Issued, Validity};
use driftless_node::net::keeper::MemoryKeeper;
use driftless_node::net::limits::NetLimits;
use driftless_node::net::tls::{TlsFiles, TlsIdentity};
use driftless_node::node::{Node, NodeSettings, Security};
use driftless_node::peer::Incarnation;
use driftless_node::replica::record;
use driftless_node::replica::store::{Batch, Store};
use driftless_node::store::log::{LogDatabase, LogOptions};
use driftless_proto::Topology;
use driftless_proto::membership::StoreId;
use driftless_ring::Member;
use driftless_testkit::{TopologyBuilder, context_keys};
use driftless_tests::damage::before_a_write;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_64;

type Problem = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\nusage: heal [--keys N] [--altered N] [--seconds N]");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let healed = runtime.map_err(Problem::from).and_then(|runtime| runtime.block_on(heal(&options)));
    match healed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    /// Small keys beside the sample data.
    keys: u64,
    /// Records altered behind a node's back.
    altered: usize,
    /// For how long the usual latency is measured.
    seconds: u64,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options { keys: 100_000, altered: 10_000, seconds: 30 };
        while let Some(word) = words.next() {
            let number: u64 = words.next().and_then(|text| text.parse().ok()).ok_or("a number is missing")?;
            match word.as_str() {
                "--keys" => options.keys = number,
                "--altered" => options.altered = number as usize,
                "--seconds" => options.seconds = number.max(1),
                other => return Err(format!("unknown option {other}")),
            }
        }
        Ok(options)
    }
}

async fn heal(options: &Options) -> Result<bool, Problem> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path())?;
    let client = cluster.client().await?;
    let bucket = client.bucket("default");

    let sample = sample()?;
    let began = Instant::now();
    let small =
        (0..options.keys).map(|number| (format!("small-{number:012}").into(), Bytes::from_static(b"a small value")));
    let hot = (0..HOT_KEYS).map(|number| (hot_key(number), Bytes::from(vec![7; 200])));
    let written = write(&bucket, sample.into_iter().chain(small).chain(hot)).await?;
    println!("{written} records written in {:.0} s", began.elapsed().as_secs_f64());

    let load = Load::start(bucket.clone());
    load.set(Mode::GetsAndPuts);
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.take();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let usual = load.take();
    println!("usually:              {usual}");

    println!("\nnode {} loses its disk", NAMES[LOST]);
    load.set(Mode::Silent);
    cluster.stop_node(LOST)?;
    std::fs::remove_dir_all(folder.path().join(NAMES[LOST]))?;
    let sent = cluster.sent();
    cluster.start_node(LOST)?;
    cluster.wait_connected().await?;
    load.set(Mode::GetsAndPuts);
    load.take();
    let began = Instant::now();
    let wanted = cluster.keys(0);
    let mut seen = Instant::now();
    while cluster.keys(LOST) < wanted {
        if began.elapsed() > PATIENCE {
            return Err("it does not fill".into());
        }
        if seen.elapsed() > Duration::from_secs(10) {
            seen = Instant::now();
            println!("  {} of {wanted} keys after {:.0} s", cluster.keys(LOST), began.elapsed().as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let filling = load.take();
    println!(
        "complete again:       {} keys in {:.1} s, {} bytes sent by all nodes for it",
        cluster.keys(LOST),
        began.elapsed().as_secs_f64(),
        cluster.sent() - sent
    );
    println!("clients meanwhile:    {filling}");
    let calm_filling = filling.within_twice(&usual);

    println!(
        "\nnode {} loses {} records behind its back, or the newest write of them",
        NAMES[ALTERED], options.altered
    );
    load.set(Mode::Silent);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop_node(ALTERED)?;
    let altered = alter(&folder.path().join(NAMES[ALTERED]), options.altered)?;
    let sent = cluster.sent();
    cluster.start_node(ALTERED)?;
    cluster.wait_connected().await?;
    load.set(Mode::Gets);
    load.take();
    let began = Instant::now();
    while cluster.repaired(ALTERED) < altered as u64 {
        if began.elapsed() > PATIENCE {
            return Err(format!("only {} of {altered} are repaired", cluster.repaired(ALTERED)).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    let repairing = load.take();
    // Whatever else it would repair by mistake.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let repaired = cluster.repaired(ALTERED);
    println!(
        "repaired:             {repaired} of {altered} in {:.1} s, {} bytes sent by all nodes for it",
        took.as_secs_f64(),
        cluster.sent() - sent
    );
    println!("clients meanwhile:    {repairing}");
    let calm_repairing = repairing.gets_within_twice(&usual);

    load.stop().await;
    client.close().await;
    cluster.stop()?;
    let equal = equal(folder.path())?;
    let verdicts = [
        ("exactly what was altered was repaired", repaired == altered as u64),
        ("all replicas hold the same of every key that clients left alone", equal),
        ("p99 of clients within twice the usual while the lost disk was filled", calm_filling),
        ("p99 of gets within twice the usual while the altered records were repaired", calm_repairing),
    ];
    println!();
    for (claim, holds) in verdicts {
        println!("{} {claim}", if holds { "yes:" } else { "NO: " });
    }
    Ok(verdicts.iter().all(|(_, holds)| *holds))
}

struct Cluster {
    folder: PathBuf,
    authority: CertificateAuthority,
    topology: Arc<Topology>,
    agreements: [Arc<MemoryKeeper>; 3],
    addresses: [SocketAddr; 3],
    nodes: [Option<(Node, Arc<Metrics>)>; 3],
    starts: u64,
    /// Sent by processes that are gone.
    sent_before: u64,
}

impl Cluster {
    fn start(folder: &Path) -> Result<Cluster, Problem> {
        let addresses = free_addresses()?;
        let mut cluster = Cluster {
            folder: folder.to_owned(),
            authority: CertificateAuthority::create("heal")?,
            topology: topology(addresses),
            agreements: Default::default(),
            addresses,
            nodes: [None, None, None],
            starts: 0,
            sent_before: 0,
        };
        for node in 0..3 {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    fn start_node(&mut self, node: usize) -> Result<(), Problem> {
        self.starts += 1;
        let (metrics, name) = (Arc::new(Metrics::default()), NAMES[node]);
        let Issued { certificate, key } = self.authority.issue_node(name, Validity::holder(SystemTime::now()))?;
        let files = TlsFiles { ca: "ca.pem".into(), cert: "node.pem".into(), key: "node.key".into() };
        let ca = self.authority.certificate_pem().as_bytes();
        let settings = NodeSettings {
            name: name.to_owned(),
            listen: self.addresses[node],
            admin: None,
            tls: TlsIdentity::from_pem(&files, ca, certificate.as_bytes(), key.as_bytes(), SystemTime::now())?,
            security: Security::default(),
            topology: Arc::clone(&self.topology),
            member: None,
            store: StoreId(node as u128 + 1),
            agreement: Some(self.agreements[node].clone()),
            context_keys: context_keys(),
            limits: Limits::default(),
            net: NetLimits::default(),
            incarnation: Incarnation { starts: self.starts, nonce: rand::random() },
            lives: None,
            reset_key: [node as u8; 64],
            metrics: Arc::clone(&metrics),
        };
        let database = LogDatabase::open(self.folder.join(name), LogOptions::default())?;
        let started = Node::start(settings, vec![database.store(0)], database.syncer())?;
        self.nodes[node] = Some((started, metrics));
        Ok(())
    }

    fn stop_node(&mut self, node: usize) -> Result<(), Problem> {
        if let Some((running, metrics)) = self.nodes[node].take() {
            self.sent_before += metrics.aae_bytes.get();
            running.stop();
            running.join()?;
        }
        Ok(())
    }

    fn stop(mut self) -> Result<(), Problem> {
        (0..3).try_for_each(|node| self.stop_node(node))
    }

    async fn wait_connected(&self) -> Result<(), Problem> {
        let until = Instant::now() + Duration::from_secs(30);
        let running = || self.nodes.iter().flatten();
        while !running().all(|(node, _)| node.status().peers.iter().all(|peer| peer.connected)) {
            if Instant::now() > until {
                return Err("the nodes do not reach each other".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn client(&self) -> Result<Client, Problem> {
        self.wait_connected().await?;
        let Issued { certificate, key } =
            self.authority.issue_client("heal", None, Validity::holder(SystemTime::now()))?;
        let ca = self.authority.certificate_pem().as_bytes();
        let identity = Identity::from_pem(ca, certificate.as_bytes(), key.as_bytes())?;
        let seeds = self.addresses.map(|address| address.to_string());
        Ok(Client::builder().seeds(seeds).identity(identity).connect().await?)
    }

    fn metric(&self, node: usize, read: impl Fn(&Metrics) -> u64) -> u64 {
        self.nodes[node].as_ref().map_or(0, |(_, metrics)| read(metrics))
    }

    fn keys(&self, node: usize) -> u64 {
        self.metric(node, |metrics| u64::try_from(metrics.keys.get()).unwrap_or(0))
    }

    fn repaired(&self, node: usize) -> u64 {
        self.metric(node, |metrics| metrics.aae_keys_repaired.get())
    }

    fn sent(&self) -> u64 {
        self.sent_before + (0..3).map(|node| self.metric(node, |metrics| metrics.aae_bytes.get())).sum::<u64>()
    }
}

fn topology(addresses: [SocketAddr; 3]) -> Arc<Topology> {
    let members = NAMES.iter().zip(addresses).map(|(name, address)| Member::new(*name, address.to_string()));
    TopologyBuilder::of_members(members).named("heal").partitions(256).shared()
}

fn free_addresses() -> Result<[SocketAddr; 3], Problem> {
    let sockets: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    Ok([sockets[0].local_addr()?, sockets[1].local_addr()?, sockets[2].local_addr()?])
}

fn sample() -> Result<Vec<(Bytes, Bytes)>, Problem> {
    let lines = SAMPLE.lines().filter(|line| !line.is_empty());
    let record = |line: &str| -> Result<(Bytes, Bytes), Problem> {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let text = |name: &str| record[name].as_str().map(|text| Bytes::copy_from_slice(text.as_bytes()));
        text("key").zip(text("value")).ok_or_else(|| "the sample data is damaged".into())
    };
    lines.map(record).collect()
}

async fn write(bucket: &Bucket, records: impl Iterator<Item = (Bytes, Bytes)>) -> Result<u64, Problem> {
    let (mut puts, mut written) = (JoinSet::new(), 0);
    for (key, value) in records {
        if puts.len() >= WRITES_AT_ONCE
            && let Some(done) = puts.join_next().await
        {
            done??;
        }
        let bucket = bucket.clone();
        puts.spawn(async move { bucket.put(key, value).await.map(|_| ()) });
        written += 1;
    }
    while let Some(done) = puts.join_next().await {
        done??;
    }
    Ok(written)
}

/// Clients that go on with a few keys of their own, at a moderate pace.
struct Load {
    shared: Arc<LoadState>,
    workers: JoinSet<()>,
}

struct LoadState {
    mode: AtomicU8,
    stop: AtomicBool,
    gets: Mutex<Vec<Duration>>,
    puts: Mutex<Vec<Duration>>,
    failed: Mutex<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Silent,
    Gets,
    GetsAndPuts,
}

impl Load {
    fn start(bucket: Bucket) -> Load {
        let shared = Arc::new(LoadState {
            mode: AtomicU8::new(Mode::Silent as u8),
            stop: AtomicBool::new(false),
            gets: Mutex::default(),
            puts: Mutex::default(),
            failed: Mutex::default(),
        });
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let (shared, bucket) = (Arc::clone(&shared), bucket.clone());
            workers.spawn(async move { shared.work(&bucket, worker).await });
        }
        Load { shared, workers }
    }

    fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// What was measured since the last call.
    fn take(&self) -> Measured {
        let take = |list: &Mutex<Vec<Duration>>| std::mem::take(&mut *list.lock().expect("nobody panics"));
        let failed = std::mem::take(&mut *self.shared.failed.lock().expect("nobody panics"));
        Measured { gets: Latencies::of(take(&self.shared.gets)), puts: Latencies::of(take(&self.shared.puts)), failed }
    }

    async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.workers.join_next().await.is_some() {}
    }
}

impl LoadState {
    /// Each worker has keys of its own, so that puts replace what they have read.
    async fn work(&self, bucket: &Bucket, worker: u64) {
        let mut number = worker;
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(PACE).await;
            let mode = self.mode.load(Ordering::Relaxed);
            if mode == Mode::Silent as u8 {
                continue;
            }
            number = (number + WORKERS) % HOT_KEYS;
            let began = Instant::now();
            let read = bucket.get(hot_key(number)).await;
            self.note(&self.gets, began, read.is_ok());
            if let Ok(read) = read
                && mode == Mode::GetsAndPuts as u8
                && number.is_multiple_of(2)
            {
                let began = Instant::now();
                let put = bucket.put(hot_key(number), vec![8; 200]).context(read.context().cloned()).await;
                self.note(&self.puts, began, put.is_ok());
            }
        }
    }

    fn note(&self, list: &Mutex<Vec<Duration>>, began: Instant, good: bool) {
        list.lock().expect("nobody panics").push(began.elapsed());
        *self.failed.lock().expect("nobody panics") += u64::from(!good);
    }
}

struct Measured {
    gets: Latencies,
    puts: Latencies,
    failed: u64,
}

struct Latencies {
    count: usize,
    p50: Duration,
    p99: Duration,
}

impl Latencies {
    fn of(mut all: Vec<Duration>) -> Latencies {
        all.sort_unstable();
        let at = |part: usize| all.get(all.len() * part / 100).copied().unwrap_or_default();
        Latencies { count: all.len(), p50: at(50), p99: at(99) }
    }
}

impl Measured {
    fn within_twice(&self, usual: &Measured) -> bool {
        self.gets_within_twice(usual) && self.puts.p99 <= 2 * usual.puts.p99
    }

    fn gets_within_twice(&self, usual: &Measured) -> bool {
        self.failed == 0 && self.gets.p99 <= 2 * usual.gets.p99
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |name: &str, latencies: &Latencies| {
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            format!("{} {name} with p50 {:.2} ms, p99 {:.2} ms", latencies.count, ms(latencies.p50), ms(latencies.p99))
        };
        write!(f, "{}; {}; {} failed", text("gets", &self.gets), text("puts", &self.puts), self.failed)
    }
}

/// Alters random records in the database of a node that does not run: half are removed, half lose their newest write.
fn alter(path: &Path, count: usize) -> Result<usize, Problem> {
    let database = LogDatabase::open(path, LogOptions::default())?;
    let mut store = database.store(0);
    let mut names = Vec::new();
    visit(&store, |key, value| {
        if !is_hot(key, value) {
            names.push(Bytes::copy_from_slice(key));
        }
    })?;
    let mut rng = StdRng::seed_from_u64(7);
    let mut changes = Vec::new();
    while changes.len() < count && !names.is_empty() {
        let key = names.swap_remove(rng.random_range(0..names.len()));
        let value = store.get(&key)?.ok_or("a record is gone")?;
        let older = if changes.len() % 2 == 0 { None } else { before_a_write(&key, value) };
        changes.push((key, older));
    }
    let altered = changes.len();
    for part in changes.chunks(1000) {
        store.apply(Batch { changes: part.to_vec() })?;
    }
    database.syncer().sync()?;
    Ok(altered)
}

/// Whether all three databases hold the same, except for the keys that clients were still writing.
fn equal(folder: &Path) -> Result<bool, Problem> {
    let mut sums = Vec::new();
    for name in NAMES {
        let database = LogDatabase::open(folder.join(name), LogOptions::default())?;
        let (mut count, mut sum) = (0_u64, 0_u64);
        visit(&database.store(0), |key, value| {
            if !is_hot(key, value) {
                count += 1;
                sum = sum.rotate_left(7) ^ xxh3_64(key) ^ xxh3_64(value).rotate_left(1);
            }
        })?;
        sums.push((count, sum));
    }
    Ok(sums.windows(2).all(|pair| pair[0] == pair[1]))
}

fn visit(store: &impl Store, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Problem> {
    // Records begin with 1.
    store.scan(&[1]..&[2], &mut |key, value| {
        visit(key, &value);
        ControlFlow::Continue(())
    })?;
    Ok(())
}

fn is_hot(key: &[u8], value: &[u8]) -> bool {
    record::decode_entry(key, value).is_ok_and(|entry| entry.key.as_bytes().starts_with(b"hot-"))
}

fn hot_key(number: u64) -> Bytes {
    format!("hot-{number}").into()
}

const NAMES: [&str; 3] = ["a", "b", "c"];

const LOST: usize = 2;

const ALTERED: usize = 1;

const SAMPLE: &str = include_str!("../../../node/data/debian-packages.jsonl");

const HOT_KEYS: u64 = 1_024;

const WRITES_AT_ONCE: usize = 256;

const WORKERS: u64 = 16;

/// Between two operations of one worker.
const PACE: Duration = Duration::from_millis(20);

const PATIENCE: Duration = Duration::from_secs(3600);
