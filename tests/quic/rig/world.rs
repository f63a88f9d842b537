//! Running a scenario: hosts, the script, and what the script can do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use driftless_client::{Client, ConnectError, DefaultRetry, Identity, IoRuntime, Profile};
use driftless_node::config::Limits;
use driftless_node::metrics::{LivenessLabels, Metrics};
use driftless_node::net::environment::Environment;
use driftless_node::net::limits::NetLimits;
use driftless_node::node::local::{LocalNode, Parts};
use driftless_node::node::{NodeSettings, Security};
use driftless_node::peer::Incarnation;
use driftless_proto::client::PeerStatus;
use driftless_proto::frame::PACKET_MAX;
use driftless_proto::membership::StoreId;
use driftless_proto::{Topology, WriteId};
use driftless_ring::{Member, NodeId};
use driftless_testkit::{TopologyBuilder, context_keys};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig, TransportConfig};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::identity::Authority;
use super::machine::{Disk, Disks, Machine};
use super::network::{Network, Packet};
use super::socket::SimulatedSocket;
use super::start_of_time;

/// What a scenario begins with.
#[derive(Clone)]
pub(crate) struct Scenario {
    /// Names of the members, in any order.
    pub(crate) nodes: Vec<&'static str>,
    /// Hosts that run a second node of a member's name, and that name. They are started by the script.
    pub(crate) copies: Vec<(&'static str, &'static str)>,
    /// Of each node in turn; the last number is that of all further ones.
    pub(crate) shards: Vec<u16>,
    /// Least and most time that a packet takes. Every packet draws its own: they overtake each other.
    pub(crate) latency: (Duration, Duration),
    /// Bytes of the longest packet that gets through; drawn by seed if absent.
    pub(crate) longest_packet: Option<usize>,
    /// Packets that a socket holds for a host that has not read them.
    pub(crate) receive_queue: usize,
    pub(crate) sync_takes: Duration,
    /// Whether some of what is asked of a store is not in memory.
    pub(crate) fetches: bool,
    /// Changes settings of the node on a host.
    pub(crate) settings: fn(&str, &mut NodeSettings),
    /// Changes how the node on a host sets up QUIC.
    pub(crate) transport: fn(&str, &mut TransportConfig),
    /// The script has ended by then, or it fails.
    pub(crate) limit: Duration,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            nodes: vec!["ada", "bob", "cyd"],
            copies: Vec::new(),
            shards: vec![1],
            latency: (Duration::from_micros(200), Duration::from_millis(3)),
            longest_packet: None,
            receive_queue: 4096,
            sync_takes: Duration::from_millis(1),
            fetches: true,
            settings: |_, _| {},
            transport: |_, _| {},
            limit: Duration::from_secs(120),
        }
    }
}

impl Scenario {
    /// Runs a script against the scenario, once for every seed. Fails if the script does, or anything that it made run.
    pub(crate) fn run<F: Future<Output = ()> + 'static>(&self, script: impl Fn(World) -> F) {
        for seed in Scenario::seeds() {
            self.run_seed(seed, &script);
        }
    }

    fn shards_of(&self, name: &str) -> u16 {
        let at = self.nodes.iter().position(|node| *node == name).expect("is a member");
        self.shards[at.min(self.shards.len() - 1)]
    }

    /// One, unless the environment asks for others.
    pub(crate) fn seeds() -> Range<u64> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let first = number("DRIFTLESS_SEED").unwrap_or(1);
        first..first + number("DRIFTLESS_SEEDS").unwrap_or(1)
    }

    /// The same for one seed; what was sent.
    pub(crate) fn run_seed<F: Future<Output = ()> + 'static>(
        &self,
        seed: u64,
        script: impl FnOnce(World) -> F,
    ) -> Vec<Packet> {
        count_panics();
        PANICS.set(0);
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(seed)
            .epoch(start_of_time())
            .simulation_duration(self.limit)
            .min_message_latency(self.latency.0)
            .max_message_latency(self.latency.1)
            .udp_capacity(self.receive_queue);
        let mut sim = builder.build();
        let world = World(Rc::new(Inner::new(self.clone(), seed, |host| sim.lookup(host))));
        for machine in &world.0.machines {
            let (world, machine) = (world.clone(), machine.clone());
            sim.host(machine.host.clone(), move || {
                let (world, machine) = (world.clone(), machine.clone());
                async move { world.serve(&machine).await }
            });
        }
        for (host, _) in &self.copies {
            sim.crash(*host);
        }
        let script = script(world.clone());
        sim.client(SCRIPT, async move {
            script.await;
            Ok(())
        });
        let ended = loop {
            match sim.step() {
                Ok(false) => world.carry_out(&mut sim),
                Ok(true) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        let packets = world.0.network.sent();
        drop(sim);
        let panics = PANICS.replace(0);
        if ended.is_err() || panics > 0 {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            panic!(
                "{panics} panics, ended: {ended:?}; again with\n  DRIFTLESS_SEED={seed} cargo test -p driftless-tests --test quic -- {test}"
            );
        }
        packets
    }
}

/// A running scenario, for its script.
#[derive(Clone)]
pub(crate) struct World(Rc<Inner>);

struct Inner {
    scenario: Scenario,
    seed: u64,
    network: Network,
    authority: Authority,
    topology: Arc<Topology>,
    machines: Vec<Rc<Machine>>,
    /// Of the script's host.
    client_ip: IpAddr,
    client_sockets: Arc<Mutex<Vec<Arc<SimulatedSocket>>>>,
    orders: RefCell<VecDeque<Order>>,
    drawn: Cell<u64>,
}

/// What can only be done between two steps.
enum Order {
    Crash(String),
    Start(String),
}

impl Inner {
    fn new(scenario: Scenario, seed: u64, ip_of: impl Fn(&str) -> IpAddr) -> Inner {
        let hosts = scenario.nodes.iter().map(|name| (*name, *name)).chain(scenario.copies.iter().copied());
        let machines: Vec<Rc<Machine>> = hosts
            .map(|(host, name)| {
                Rc::new(Machine {
                    host: host.to_owned(),
                    ip: ip_of(host),
                    name: name.to_owned(),
                    store: StoreId(u128::from(NodeId::of_name(host).0)),
                    agreement: Arc::default(),
                    disks: (0..scenario.shards_of(name)).map(|_| Disk::new(scenario.fetches)).collect(),
                    clock_ahead_ms: Arc::default(),
                    starts: Cell::new(0),
                    node: RefCell::default(),
                    sockets: RefCell::default(),
                })
            })
            .collect();
        let members = machines.iter().take(scenario.nodes.len()).map(|machine| {
            let mut member = Member::new(machine.name.clone(), format!("{}:{PORT}", machine.ip));
            member.shards = scenario.shards_of(&machine.name);
            member
        });
        Inner {
            seed,
            network: Network::new(seed, scenario.longest_packet),
            authority: Authority::new(CLUSTER, "ours"),
            topology: TopologyBuilder::of_members(members).named(CLUSTER).partitions(16).shared(),
            machines,
            client_ip: ip_of(SCRIPT),
            client_sockets: Arc::default(),
            orders: RefCell::default(),
            drawn: Cell::new(0),
            scenario,
        }
    }
}

/// What a node does, from its start to its end.
impl World {
    async fn serve(&self, machine: &Machine) -> turmoil::Result {
        let starts = machine.starts.get() + 1;
        machine.starts.set(starts);
        let life = self.0.seed ^ xxhash_rust::xxh3::xxh3_64_with_seed(machine.host.as_bytes(), starts);
        let mut settings = self.settings(machine, starts, life);
        (self.0.scenario.settings)(&machine.host, &mut settings);
        let bind = |shard| SimulatedSocket::bind(&self.0.network, machine.ip, PORT + shard);
        let sockets = (0..machine.disks.len() as u16).map(bind).collect::<std::io::Result<Vec<_>>>()?;
        *machine.sockets.borrow_mut() = sockets.iter().map(Arc::downgrade).collect();
        let (host, transport) = (machine.host.clone(), self.0.scenario.transport);
        let clock_ahead_ms = machine.clock_ahead_ms.clone();
        let rng = Mutex::new(StdRng::seed_from_u64(life));
        let environment = Environment {
            wall: Arc::new(move || wall(clock_ahead_ms.load(Ordering::Relaxed))),
            random: Arc::new(move || rng.lock().unwrap_or_else(PoisonError::into_inner).random()),
            tune: Arc::new(move |endpoint, config| {
                pin(endpoint, life);
                transport(&host, config);
            }),
        };
        let parts = Parts {
            stores: machine.disks.clone(),
            sockets: sockets.into_iter().map(|socket| -> Arc<dyn quinn::AsyncUdpSocket> { socket }).collect(),
            syncer: Disks(machine.disks.clone()),
            sync_takes: self.0.scenario.sync_takes,
        };
        let node = Rc::new(LocalNode::start(settings, environment, parts)?);
        *machine.node.borrow_mut() = Some(node.clone());
        node.ended().await;
        *machine.node.borrow_mut() = None;
        Ok(())
    }

    fn settings(&self, machine: &Machine, starts: u64, life: u64) -> NodeSettings {
        NodeSettings {
            name: machine.name.clone(),
            listen: SocketAddr::new(machine.ip, PORT),
            admin: None,
            tls: self.0.authority.tls(&machine.name),
            security: Security::default(),
            topology: self.0.topology.clone(),
            member: None,
            store: machine.store,
            agreement: Some(machine.agreement.clone()),
            context_keys: context_keys(),
            limits: Limits::default(),
            net: NetLimits::default(),
            incarnation: Incarnation { starts, nonce: life },
            lives: None,
            reset_key: [7; 64],
            metrics: Arc::new(Metrics::default()),
        }
    }

    fn carry_out(&self, sim: &mut turmoil::Sim<'_>) {
        while let Some(order) = { self.0.orders.borrow_mut().pop_front() } {
            match order {
                Order::Crash(host) => {
                    sim.crash(host.as_str());
                    self.machine(&host).power_cut();
                }
                Order::Start(host) => sim.bounce(host.as_str()),
            }
        }
    }
}

/// What a script can do.
impl World {
    pub(crate) fn network(&self) -> &Network {
        &self.0.network
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.0.authority
    }

    pub(crate) fn topology(&self) -> &Arc<Topology> {
        &self.0.topology
    }

    pub(crate) fn machine(&self, host: &str) -> &Machine {
        self.0.machines.iter().find(|machine| machine.host == host).expect("is a host")
    }

    /// The node that runs on a host.
    pub(crate) fn node(&self, host: &str) -> Rc<LocalNode> {
        self.machine(host).node.borrow().clone().unwrap_or_else(|| panic!("{host} does not run"))
    }

    pub(crate) fn ip(&self, host: &str) -> IpAddr {
        if host == SCRIPT { self.0.client_ip } else { self.machine(host).ip }
    }

    /// Of shard 0.
    pub(crate) fn address(&self, host: &str) -> SocketAddr {
        SocketAddr::new(self.ip(host), PORT)
    }

    /// Nothing gets from one to the other.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        self.0.network.cut(self.ip(from), self.ip(to));
    }

    pub(crate) fn mend(&self, from: &str, to: &str) {
        self.0.network.mend(self.ip(from), self.ip(to));
    }

    /// The wall clock of a host jumps to so many milliseconds ahead of the truth.
    pub(crate) fn set_clock(&self, host: &str, ahead_ms: i64) {
        self.machine(host).clock_ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    /// The host loses its power.
    pub(crate) async fn crash(&self, host: &str) {
        self.0.orders.borrow_mut().push_back(Order::Crash(host.to_owned()));
        self.until("the host is gone", MOMENT, || self.machine(host).node.borrow().is_none()).await;
    }

    /// The node is started on its host, where it does not run.
    pub(crate) async fn start(&self, host: &str) {
        self.0.orders.borrow_mut().push_back(Order::Start(host.to_owned()));
        self.until("the node runs", MOMENT, || self.machine(host).node.borrow().is_some()).await;
    }

    /// Waits for something that must come within that time; how long it took.
    pub(crate) async fn until(&self, what: &str, within: Duration, holds: impl Fn() -> bool) -> Duration {
        let begun = tokio::time::Instant::now();
        while !holds() {
            assert!(begun.elapsed() < within, "did not come about within {within:?}: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        begun.elapsed()
    }

    /// Waits until every running node reaches every other.
    pub(crate) async fn connected(&self) {
        let nodes = || self.0.machines.iter().filter_map(|machine| machine.node.borrow().clone());
        let reaches_all = |node: Rc<LocalNode>| node.status().peers.iter().all(|peer| peer.connected);
        self.until("all reach all", SECONDS_10, || nodes().count() > 0 && nodes().all(reaches_all)).await;
    }

    /// Until all nodes go by what they have agreed on in the beginning. What they do while that comes begins again, and that counts.
    pub(crate) async fn founded(&self) {
        let nodes = || self.0.machines.iter().filter_map(|machine| machine.node.borrow().clone());
        let has_agreed = |node: Rc<LocalNode>| {
            let status = node.status();
            status.ring_version >= 2
                && status
                    .conditions
                    .iter()
                    .all(|condition| condition.name != driftless_node::conditions::MEMBERS_CHANGING)
        };
        self.until("all have agreed", SECONDS_10, || nodes().count() > 0 && nodes().all(has_agreed)).await;
    }

    /// What the node on a host thinks of another.
    pub(crate) fn sees(&self, host: &str, peer: &str) -> PeerStatus {
        let status = self.node(host).status();
        status.peers.into_iter().find(|status| status.name == peer).expect("is a member")
    }

    /// Whether the node on a host has a connection to another.
    pub(crate) fn reaches(&self, host: &str, peer: &str) -> bool {
        self.sees(host, peer).connected
    }

    /// How often the node on a host has called a peer down.
    pub(crate) fn downs(&self, host: &str) -> u64 {
        self.node(host).metrics().liveness_changes.get_or_create(&LivenessLabels { to: "down" }).get()
    }

    /// The members from the one that dials all others to the one that is dialled by all.
    pub(crate) fn dialling(&self) -> Vec<String> {
        let mut members: Vec<&Member> = self.topology().ring().members().iter().collect();
        members.sort_by_key(|member| member.id);
        members.into_iter().map(|member| member.name.clone()).collect()
    }

    /// A client, as an application would make it.
    pub(crate) async fn client(&self) -> Client {
        self.client_of(&self.0.scenario.nodes).await
    }

    /// The same with these seeds.
    pub(crate) async fn client_of(&self, seeds: &[&str]) -> Client {
        self.try_client(seeds).await.expect("a node answers")
    }

    /// The same where it may fail.
    pub(crate) async fn try_client(&self, seeds: &[&str]) -> Result<Client, ConnectError> {
        let issued = self.0.authority.client("tester");
        let ca = self.0.authority.certificate().as_bytes();
        let identity = Identity::from_pem(ca, issued.certificate.as_bytes(), issued.key.as_bytes()).expect("fits");
        Client::builder()
            .seeds(seeds.iter().map(|name| self.address(name).to_string()))
            .identity(identity)
            .io_runtime(IoRuntime::Caller)
            .environment(self.client_environment())
            .profile(Profile::new().retry(DefaultRetry::new().chance(half)))
            .connect()
            .await
    }

    fn client_environment(&self) -> driftless_client::Environment {
        let (network, ip, seed) = (self.0.network.clone(), self.0.client_ip, self.draw());
        let sockets = self.0.client_sockets.clone();
        let endpoint = move |_| {
            let socket = SimulatedSocket::bind(&network, ip, 0)?;
            sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket.clone());
            endpoint(socket, seed)
        };
        driftless_client::Environment { endpoint: Arc::new(endpoint), chance: half, ..Default::default() }
    }

    /// An endpoint on the script's host.
    pub(crate) fn endpoint(&self) -> quinn::Endpoint {
        let socket = SimulatedSocket::bind(&self.0.network, self.0.client_ip, 0).expect("a port is free");
        endpoint(socket, self.draw()).expect("can be made")
    }

    /// One that hears nothing of what is sent back.
    pub(crate) fn deaf_endpoint(&self) -> quinn::Endpoint {
        let socket = SimulatedSocket::bind(&self.0.network, self.0.client_ip, 0).expect("a port is free");
        socket.deafen();
        endpoint(socket, self.draw()).expect("can be made")
    }

    /// Sockets of all clients so far.
    pub(crate) fn client_sockets(&self) -> Vec<Arc<SimulatedSocket>> {
        self.0.client_sockets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One that no other write has, always as long as any.
    pub(crate) fn write_id(&self) -> WriteId {
        WriteId(1 << 127 | u128::from(self.draw()))
    }

    /// A key whose first owner is this node.
    pub(crate) fn key_of(&self, name: &str, number: usize) -> String {
        let bucket = &self.topology().buckets()[0];
        let owner = NodeId::of_name(name);
        let first = |key: &String| {
            let key = driftless_proto::Key::new(key.clone()).expect("is short");
            let place = self.topology().place(bucket, &key);
            self.topology().ring().owners(place.partition).first() == Some(&owner)
        };
        (0..).map(|n| format!("key {n}")).filter(first).nth(number).expect("there are many keys")
    }

    fn draw(&self) -> u64 {
        let drawn = self.0.drawn.get() + 1;
        self.0.drawn.set(drawn);
        drawn
    }
}

fn endpoint(socket: Arc<SimulatedSocket>, seed: u64) -> std::io::Result<quinn::Endpoint> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(PACKET_MAX).expect("more than QUIC asks for");
    pin(&mut config, seed);
    quinn::Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(quinn::TokioRuntime))
}

/// Takes chance out of an endpoint.
fn pin(config: &mut EndpointConfig, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    config.rng_seed(Some(rng.random()));
    let ids = Arc::new(Mutex::new(rng));
    config.cid_generator(move || Box::new(Ids(ids.clone())));
}

struct Ids(Arc<Mutex<StdRng>>);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ConnectionId::new(&rng.random::<[u8; 8]>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn wall(ahead_ms: i64) -> SystemTime {
    let right = SystemTime::UNIX_EPOCH + turmoil::since_epoch().unwrap_or_default();
    let by = Duration::from_millis(ahead_ms.unsigned_abs());
    if ahead_ms < 0 { right - by } else { right + by }
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{:?}", turmoil::sim_elapsed().unwrap_or_default())
    }
}

fn half() -> f64 {
    0.5
}

/// A task that panics takes nothing else with it, and would go unnoticed.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(filter) = std::env::var("DRIFTLESS_LOG") {
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .with_timer(SimulatedTime)
                .init();
        }
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

pub(crate) const CLUSTER: &str = "test";
/// The host that the script runs on.
pub(crate) const SCRIPT: &str = "client";
const PORT: u16 = 7400;
const MOMENT: Duration = Duration::from_millis(100);
const SECONDS_10: Duration = Duration::from_secs(10);
