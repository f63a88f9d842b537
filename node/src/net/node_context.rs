//! What the threads of a node share: who it is, how to reach its shards, and what it knows of its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dashmap::DashMap;
use driftless_proto::client::{
    AaePartition, AaeStatus, Class, Condition, DamagedKeys, DrainCommand, DrainStatus, HintsFor, Liveness, NodeStatus,
    PeerStatus, Request, Response,
};
use driftless_proto::membership::{ClusterCommand, StoreId};
use driftless_proto::{ContextKeys, Failure, Refusal, Topology};
use driftless_ring::{Member, NodeId};
use tokio::sync::mpsc::UnboundedSender;

use super::accounts::Accounts;
use super::audit::AuditLog;
use super::clock::Clock;
use super::credentials::Credentials;
use super::environment::Environment;
use super::figures::Heard;
use super::findings::Finding;
use super::hello::Incarnations;
use super::inbound::Taken;
use super::limits::NetLimits;
use super::lives::Lives;
use super::refusal::RefusalLog;
use super::settings::NodeSettings;
use super::sync::SyncQueue;
use super::tls::TlsIdentity;
use super::under_way::UnderWay;
use crate::conditions::{self, DiskRoom, Filling, Problem, Standings};
use crate::config::Limits;
use crate::configurations::Configurations;
use crate::engine::{AaeCommand, ClientTag};
use crate::handoff::HintFigures;
use crate::liveness::clocks::{Stance, Standing};
use crate::membership::{Apart, Progress};
use crate::metrics::{LivenessLabels, Metrics};
use crate::peer::Message;
use crate::reconciler::Figures;
use crate::replica::store::{BatchSeq, StoreError, StoreSize};
use crate::time::Instant;

/// One per node, behind an `Arc`.
pub(crate) struct NodeContext {
    pub(crate) name: String,
    pub(crate) node: NodeId,
    pub(crate) cluster: String,
    pub(crate) lives: Lives,
    /// The data that it runs on.
    pub(crate) store: StoreId,
    /// The versions of the cluster that count, as shard 0 has taken them over; each shard follows at its next turn.
    configurations: RwLock<Arc<Configurations>>,
    /// The newest of them.
    ring_version: AtomicU64,
    /// The members that the cluster file names: whom to ask when nobody else can be reached.
    pub(crate) seeds: Vec<Member>,
    /// As they were at the start; shards are told of later ones.
    pub(crate) context_keys: ContextKeys,
    pub(crate) credentials: Credentials,
    pub(crate) limits: Limits,
    pub(crate) net: NetLimits,
    pub(crate) environment: Environment,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sync: SyncQueue,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) incarnations: Incarnations,
    pub(crate) refusals: RefusalLog,
    pub(crate) audit: AuditLog,
    /// Where members are: as the cluster file says, if it says addresses, and where they were found.
    member_addresses: Mutex<BTreeSet<IpAddr>>,
    pub(crate) peers: DashMap<NodeId, PeerState>,
    pub(crate) accounts: Accounts,
    /// Bytes that may wait for one connection to a peer.
    peer_outbound_max: AtomicUsize,
    /// New requests are refused; what is under way is finished.
    pub(crate) stopping: AtomicBool,
    /// An operator wants it to coordinate nothing new; everything else goes on.
    draining: AtomicBool,
    /// How the own clock stands, as shard 0 last said.
    clock_standing: Mutex<Standing>,
    /// How anti-entropy stands on each shard, as its driver last said.
    aae: Mutex<BTreeMap<u16, Figures>>,
    hints: Mutex<BTreeMap<u16, Vec<(NodeId, HintFigures)>>>,
    damaged: Mutex<BTreeMap<u16, DamagedKeys>>,
    /// How far each shard has come with the newest version.
    progress: Mutex<BTreeMap<u16, Progress>>,
    /// Nodes that go by another history of the cluster.
    apart: Mutex<Vec<Apart>>,
    /// Since when this node is connected to no other, if there are others.
    alone_since: Mutex<Option<Instant>>,
    /// What the store of a shard is short of.
    shortages: Mutex<BTreeMap<u16, String>>,
    /// Shards with nothing left under way.
    pub(crate) finished: AtomicUsize,
    fatal: Mutex<Option<String>>,
    standings: Standings,
    /// What peers have said of themselves, while somebody looks.
    pub(crate) heard: Heard,
    /// As shard 0 has last seen it, if it was too full.
    low_disk: Mutex<Option<DiskRoom>>,
    /// From when until when the own certificate counts.
    certificate: Mutex<(SystemTime, SystemTime)>,
}

/// How other threads reach a shard.
pub(crate) struct ShardHandle {
    messages: UnboundedSender<ShardMessage>,
    /// Requests and messages handed over and not yet taken in.
    waiting: AtomicUsize,
    /// When its driver last turned.
    pub(crate) beat: AtomicU64,
    pub(crate) under_way: Arc<UnderWay>,
}

/// What other threads tell a shard.
pub(crate) enum ShardMessage {
    /// A sync covers everything up to this batch.
    Synced(BatchSeq),
    /// Something that was not in memory has been fetched.
    Fetched,
    /// A client's request that arrived at another shard.
    Client { account: u64, tag: ClientTag, deadline: Instant, request: Request },
    /// A peer's message that arrived at another shard, on this connection of it.
    Peer { from: NodeId, shard: u16, connection: u64, message: Message, taken: Option<Taken> },
    /// The answer to a request that this shard handed over.
    Reply { to: ClientTag, response: Response },
    /// A request that this shard handed over has expired before anything was done.
    Expired { to: ClientTag },
    /// The answer to a peer's request that this shard handed over.
    PeerReply { connection: u64, message: Message },
    /// The operator tells anti-entropy something.
    Aae(AaeCommand),
    /// A datagram of the detector that arrived at another shard.
    Datagram { from: NodeId, bytes: Bytes },
    /// A datagram of the detector to send, from a shard without a connection to that node.
    SendDatagram { to: NodeId, bytes: Bytes },
    /// What the detector and the clocks have found.
    Found(Finding),
    /// The versions of the cluster that count from now on.
    Configurations(Arc<Configurations>),
    /// A shard has come further with them.
    Progress,
    /// A peer runs on a newer version.
    Behind(NodeId),
    /// A message of the machine of the members to send, from a shard without a connection to that node.
    SendLetter { to: NodeId, message: Message },
    /// Ask every peer what it measures.
    AskForFigures,
    /// Certificates, authorities or what is allowed have changed.
    Credentials,
    /// Seal and open context tokens with these from now on.
    ContextKeys(ContextKeys),
    /// Go by these limits from now on.
    Limits(Arc<Limits>),
    /// Finish what is under way and end.
    Stop,
    /// End at once.
    Halt,
}

/// What a node knows of another.
pub(crate) struct PeerState {
    /// Connections of all shards.
    pub(crate) connections: usize,
    /// How many there are when none is missing.
    expected: usize,
    /// Round trip as QUIC measures it.
    pub(crate) rtt: Duration,
    /// What the detector thinks of it.
    liveness: Liveness,
    /// What was seen when a connection to it was tried last, if it is not connected.
    pub(crate) problem: Option<Problem>,
    /// When that was noted.
    noted: Instant,
    /// When a message of it arrived last, on the node's clock.
    pub(crate) heard: Arc<AtomicU64>,
}

impl PeerState {
    /// Of a node that this one with so many shards is not connected to yet.
    fn new(member: &Member, shards: usize) -> PeerState {
        PeerState {
            connections: 0,
            expected: shards.max(usize::from(member.shards)),
            rtt: Duration::ZERO,
            liveness: Liveness::Alive,
            problem: None,
            noted: Instant::default(),
            heard: Arc::default(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connections >= self.expected
    }

    pub(crate) fn liveness(&self) -> Liveness {
        self.liveness
    }
}

impl NodeContext {
    pub(crate) fn new(
        settings: NodeSettings,
        node: NodeId,
        configurations: Arc<Configurations>,
        lives: Lives,
        environment: Environment,
        credentials: Credentials,
        shards: Vec<UnboundedSender<ShardMessage>>,
    ) -> NodeContext {
        let NodeSettings { name, tls, topology, store, context_keys, limits, net, metrics, security, .. } = settings;
        let members = configurations.members();
        let peers = members.iter().filter(|member| member.id != node);
        let peers: DashMap<NodeId, PeerState> =
            peers.map(|member| (member.id, PeerState::new(member, shards.len()))).collect();
        let links = peers.iter().map(|peer| peer.expected).sum();
        let seeds = topology.ring().members().iter().filter(|member| member.id != node).cloned().collect();
        metrics.peers_alive.set(i64::try_from(peers.len()).unwrap_or(i64::MAX));
        metrics.certificate_until.set(seconds(tls.until()));
        let clock = Clock::start(environment.wall.clone());
        metrics.start_time.set(i64::try_from(clock.now().wall.millis() / 1000).unwrap_or(i64::MAX));
        metrics.aae_interval.set(whole_seconds(limits.aae.interval));
        NodeContext {
            cluster: topology.cluster().to_owned(),
            store,
            ring_version: AtomicU64::new(configurations.version()),
            seeds,
            peers,
            clock,
            sync: SyncQueue::new(shards.len()),
            shards: shards
                .into_iter()
                .map(|messages| ShardHandle {
                    messages,
                    waiting: AtomicUsize::new(0),
                    beat: AtomicU64::new(0),
                    under_way: Arc::default(),
                })
                .collect(),
            incarnations: Incarnations::default(),
            refusals: RefusalLog::default(),
            audit: AuditLog::new(security.audit_keys),
            member_addresses: Mutex::new(literal_addresses(&members)),
            accounts: Accounts::new(net.memory, net.client_requests_max),
            peer_outbound_max: AtomicUsize::new(net.peer_outbound_max(links)),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            clock_standing: Mutex::default(),
            aae: Mutex::default(),
            hints: Mutex::default(),
            damaged: Mutex::default(),
            progress: Mutex::default(),
            apart: Mutex::default(),
            alone_since: Mutex::default(),
            shortages: Mutex::default(),
            finished: AtomicUsize::new(0),
            fatal: Mutex::new(None),
            standings: Standings::default(),
            heard: Heard::default(),
            low_disk: Mutex::default(),
            certificate: Mutex::new((tls.since(), tls.until())),
            name,
            node,
            lives,
            configurations: RwLock::new(configurations),
            context_keys,
            credentials,
            limits,
            net,
            environment,
            metrics,
        }
    }

    /// The versions of the cluster that count.
    pub(crate) fn configurations(&self) -> Arc<Configurations> {
        self.configurations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest of them.
    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.configurations().topology().clone()
    }

    /// Its number.
    pub(crate) fn ring_version(&self) -> u64 {
        self.ring_version.load(Ordering::Relaxed)
    }

    /// Other versions count from now on: takes up who is new among the members, and forgets who is none any more. The shards are to
    /// be told next.
    pub(crate) fn adopt(&self, configurations: &Arc<Configurations>) {
        *self.configurations.write().unwrap_or_else(PoisonError::into_inner) = configurations.clone();
        self.ring_version.store(configurations.version(), Ordering::Relaxed);
        let members = configurations.members();
        self.peers.retain(|peer, _| members.iter().any(|member| member.id == *peer));
        for member in members.iter().filter(|member| member.id != self.node) {
            let fresh = PeerState::new(member, self.shards.len());
            let expected = fresh.expected;
            self.peers.entry(member.id).or_insert(fresh).expected = expected;
        }
        let links = self.peers.iter().map(|peer| peer.expected).sum();
        self.peer_outbound_max.store(self.net.peer_outbound_max(links), Ordering::Relaxed);
        self.member_addresses.lock().unwrap_or_else(PoisonError::into_inner).extend(literal_addresses(&members));
        self.count_peers();
    }

    /// Bytes that may wait for one connection to a peer.
    pub(crate) fn peer_outbound_max(&self) -> usize {
        self.peer_outbound_max.load(Ordering::Relaxed)
    }

    /// The name of a member of any version that counts.
    pub(crate) fn name_of(&self, node: NodeId) -> String {
        self.configurations().member(node).map_or_else(|| node.to_string(), |member| member.name.clone())
    }

    /// Keeps how far a shard has come, for shard 0 and for people.
    pub(crate) fn publish_progress(&self, shard: u16, progress: Progress) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, progress);
    }

    /// These nodes, and no others, go by another history of the cluster.
    pub(crate) fn note_apart(&self, apart: Vec<Apart>) {
        *self.apart.lock().unwrap_or_else(PoisonError::into_inner) = apart;
    }

    /// Nodes that go by another history of the cluster.
    pub(crate) fn apart(&self) -> Vec<Apart> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far this node has come: as far as the shard that is furthest behind. `None` until all have said something.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let shards = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all =
            shards.values().copied().reduce(Progress::together).filter(|_| shards.len() == self.shards.len())?;
        drop(shards);
        all.held_bytes = u64::try_from(self.metrics.value_bytes.get()).unwrap_or(0);
        all.held_slots = self.configurations().kept(self.node).len() as u64;
        Some(all)
    }

    /// Whether it has been connected to no other node for a while, though there are others.
    pub(crate) fn is_alone(&self) -> bool {
        let since = *self.alone_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| self.clock.instant().since(since) >= ALONE_AFTER)
    }

    fn look_whether_alone(&self) {
        let is_alone = !self.peers.is_empty() && self.peers.iter().all(|peer| peer.connections == 0);
        let mut since = self.alone_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = is_alone.then(|| since.unwrap_or_else(|| self.clock.instant()));
    }

    /// Whether a member is, or was lately, at this address.
    pub(crate) fn is_member_address(&self, address: IpAddr) -> bool {
        self.member_addresses.lock().unwrap_or_else(PoisonError::into_inner).contains(&address.to_canonical())
    }

    /// A member was found there.
    pub(crate) fn note_member_address(&self, address: IpAddr) {
        let mut known = self.member_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MEMBER_ADDRESSES_MAX {
            *known = literal_addresses(&self.configurations().members());
        }
        known.insert(address.to_canonical());
    }

    /// Tells a shard; nothing happens if it has ended.
    pub(crate) fn tell(&self, shard: u16, message: ShardMessage) {
        if let Some(handle) = self.shards.get(usize::from(shard)) {
            // It fails only if the shard has ended: then nobody is left to care.
            let _ = handle.messages.send(message);
        }
    }

    /// Hands work over to another shard, unless it has too much waiting already. Whether it was.
    pub(crate) fn hand_over(&self, shard: u16, message: ShardMessage) -> bool {
        let Some(handle) = self.shards.get(usize::from(shard)) else {
            return false;
        };
        if handle.waiting.fetch_add(1, Ordering::Relaxed) >= self.net.handed_over_max {
            handle.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        handle.messages.send(message).is_ok()
    }

    /// To be called for every message that [`NodeContext::hand_over`] delivered.
    pub(crate) fn taken_in(&self, shard: u16) {
        if let Some(handle) = self.shards.get(usize::from(shard)) {
            handle.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Tells all shards to finish what is under way and to end.
    pub(crate) fn stop(&self) {
        if !self.stopping.swap(true, Ordering::SeqCst) {
            tracing::info!(node = self.name, "stopping: finishing what is under way");
        }
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Stop);
        }
    }

    /// Does what an operator says before the node is stopped, or takes back; says how far it is.
    pub(crate) fn drain(&self, command: DrainCommand) -> DrainStatus {
        let told = match command {
            DrainCommand::Status => None,
            DrainCommand::Begin => Some(true),
            DrainCommand::Undo => Some(false),
        };
        if let Some(draining) = told
            && self.draining.swap(draining, Ordering::SeqCst) != draining
        {
            match draining {
                true => tracing::info!(node = self.name, "drained by an operator: coordinates nothing new"),
                false if self.is_stopping() => {}
                false => tracing::info!(node = self.name, "taken back by an operator: coordinates requests again"),
            }
        }
        let under_way: usize = self.shards.iter().map(|shard| shard.under_way.count()).sum();
        // The one that asks for this is among them.
        let under_way = under_way.saturating_sub(1) as u64;
        DrainStatus { draining: self.coordinates_nothing_new(), under_way, hints: self.hint_keys() }
    }

    /// Whether it coordinates nothing new: it is drained, or stops.
    pub(crate) fn coordinates_nothing_new(&self) -> bool {
        self.draining.load(Ordering::SeqCst) || self.is_stopping()
    }

    /// Whether a request of a client is refused for that. Who is drained still says where others are, and takes part in what members
    /// decide; who stops does not.
    pub(crate) fn refuses(&self, request: &Request) -> bool {
        self.is_stopping() || (self.coordinates_nothing_new() && !matches!(request.class(), Class::Node))
    }

    /// Keys held for other nodes; `None` while they are being counted after a start.
    pub(crate) fn hint_keys(&self) -> Option<u64> {
        let is_known = self.metrics.hints_uncounted.get() == 0;
        is_known.then(|| u64::try_from(self.metrics.hint_keys.get()).unwrap_or(0))
    }

    /// Ends everything at once, so that nothing more is acknowledged. The first reason stays.
    pub(crate) fn halt(&self, reason: String) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        if fatal.is_none() {
            tracing::error!(node = self.name, %reason, "stopping at once");
            *fatal = Some(reason);
        }
        drop(fatal);
        self.stopping.store(true, Ordering::SeqCst);
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Halt);
        }
        self.sync.stop();
    }

    /// A sync covers a shard's batches up to this one.
    pub(crate) fn synced(&self, shard: u16, batch: BatchSeq) {
        self.tell(shard, ShardMessage::Synced(batch));
    }

    /// Nothing is acknowledged any more once a sync has failed.
    pub(crate) fn after_sync(&self, ended: Result<(), StoreError>) {
        if let Err(error) = ended {
            self.halt(format!("sync failed: {error}"));
        }
    }

    /// Why everything ended, if it had to.
    pub(crate) fn fatal(&self) -> Option<String> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Records that a shard has one connection more or less to a peer.
    pub(crate) fn peer_connections(&self, peer: NodeId, change: isize) {
        if let Some(mut state) = self.peers.get_mut(&peer) {
            state.connections = state.connections.saturating_add_signed(change);
            if change > 0 {
                state.problem = None;
            }
        }
        self.count_peers();
    }

    fn count_peers(&self) {
        let count = |is: fn(&PeerState) -> bool| {
            i64::try_from(self.peers.iter().filter(|peer| is(peer)).count()).unwrap_or(i64::MAX)
        };
        self.metrics.peers_connected.set(count(PeerState::is_connected));
        self.metrics.peers_alive.set(count(|peer| peer.liveness == Liveness::Alive));
    }

    /// Keeps why there is no connection to a peer. Of one that is connected it says nothing: somebody else was turned away, or
    /// another attempt came first.
    pub(crate) fn note_problem(&self, peer: NodeId, problem: Problem) {
        if let Some(mut state) = self.peers.get_mut(&peer)
            && !state.is_connected()
        {
            state.problem = Some(problem);
            state.noted = self.clock.instant();
        }
    }

    /// What speaks against an order, and the machine of the members cannot know: that a node which is to be declared lost by force is there,
    /// though the two do not listen to each other. It may know that this node was declared lost itself.
    pub(crate) fn contradicts(&self, command: &ClusterCommand) -> Option<Response> {
        let ClusterCommand::Recover { lost, .. } = command else { return None };
        let now = self.clock.instant();
        let (name, problem) = self.peers.iter().find_map(|peer| {
            // Of one that this node does not call itself, nothing else takes it back.
            let is_present = !peer.is_connected() && now.since(peer.noted) < THERE_FOR;
            let problem = peer.problem.as_ref().filter(|problem| problem.is_there && is_present)?;
            let name = self.name_of(*peer.key());
            lost.contains(&name).then(|| (name, problem.text.clone()))
        })?;
        let why = format!("{name} is there, and not lost: {problem}; stop it for good, or see `driftless status`");
        Some(Response::Failed(Failure::Refused(Refusal::Membership(why))))
    }

    /// Takes over what the detector thinks of a peer, and tells the other shards.
    pub(crate) fn peer_liveness(&self, peer: NodeId, liveness: Liveness) {
        if let Some(mut state) = self.peers.get_mut(&peer) {
            state.liveness = liveness;
        }
        self.count_peers();
        let to = match liveness {
            Liveness::Alive => "alive",
            Liveness::Suspect => "suspect",
            Liveness::Down => "down",
        };
        self.metrics.liveness_changes.get_or_create(&LivenessLabels { to }).inc();
        let name = self.name_of(peer);
        match liveness {
            Liveness::Alive => tracing::info!(node = self.name, peer = name, "peer alive again"),
            Liveness::Suspect => tracing::warn!(node = self.name, peer = name, "peer suspected"),
            Liveness::Down => tracing::warn!(node = self.name, peer = name, "peer down"),
        }
    }

    /// Keeps how the own clock stands, for status and readiness.
    pub(crate) fn publish_clock(&self, standing: Standing) {
        let mut clock = self.clock_standing.lock().unwrap_or_else(PoisonError::into_inner);
        if *clock != standing {
            *clock = standing;
            drop(clock);
            self.metrics.clock_offset.set(standing.ahead_ms.unwrap_or(0) as f64 / 1000.0);
            self.metrics.clock_off.set(i64::from(standing.stance == Stance::Off));
        }
    }

    /// How the own clock stands.
    pub(crate) fn clock_standing(&self) -> Standing {
        *self.clock_standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every shard of this node can reach every shard of another, or is it.
    pub(crate) fn reaches(&self, node: NodeId) -> bool {
        node == self.node || self.peers.get(&node).is_some_and(|peer| peer.is_connected())
    }

    /// Tells anti-entropy on all shards something.
    pub(crate) fn tell_aae(&self, command: AaeCommand) {
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Aae(command));
        }
    }

    /// Shows until when the own certificate counts.
    pub(crate) fn note_certificate(&self, identity: &TlsIdentity) {
        let validity = (identity.since(), identity.until());
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = validity;
        self.metrics.certificate_until.set(seconds(identity.until()));
    }

    /// From when until when that is.
    pub(crate) fn certificate_validity(&self) -> (SystemTime, SystemTime) {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all shards that certificates, authorities or what is allowed have changed.
    pub(crate) fn tell_credentials(&self) {
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Credentials);
        }
    }

    /// Tells all shards of other context keys.
    pub(crate) fn tell_context_keys(&self, keys: &ContextKeys) {
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::ContextKeys(keys.clone()));
        }
    }

    /// Tells all shards of other limits.
    pub(crate) fn tell_limits(&self, limits: &Limits) {
        let limits = Arc::new(limits.clone());
        self.metrics.aae_interval.set(whole_seconds(limits.aae.interval));
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Limits(limits.clone()));
        }
    }

    /// Keeps how anti-entropy stands on a shard, for requests that ask any shard.
    pub(crate) fn publish_aae(&self, shard: u16, figures: Figures) {
        let mut aae = self.aae.lock().unwrap_or_else(PoisonError::into_inner);
        aae.insert(shard, figures);
        let uptime = Duration::from_micros(self.clock.instant().0);
        let lines = aae.values().flat_map(|figures| &figures.partitions);
        let oldest = lines.map(|line| line.last_full_round.unwrap_or(uptime)).max().unwrap_or_default();
        self.metrics.aae_last_round_age.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// Keeps what a shard holds for others, for requests that ask any shard.
    pub(crate) fn publish_hints(&self, shard: u16, figures: Vec<(NodeId, HintFigures)>) {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, figures);
    }

    /// Keeps what the store of a shard is short of.
    pub(crate) fn publish_shortage(&self, shard: u16, shortage: Option<String>) {
        let mut shortages = self.shortages.lock().unwrap_or_else(PoisonError::into_inner);
        match shortage {
            Some(shortage) => shortages.insert(shard, shortage),
            None => shortages.remove(&shard),
        };
        self.metrics.store_short.set((!shortages.is_empty()).into());
    }

    /// Shows how large the store is.
    pub(crate) fn publish_store_size(&self, size: Option<StoreSize>) {
        let Some(StoreSize { disk_bytes, live_bytes, keys, index_bytes }) = size else { return };
        let gauge = |figure| i64::try_from(figure).unwrap_or(i64::MAX);
        self.metrics.store_disk.set(gauge(disk_bytes));
        self.metrics.store_live.set(gauge(live_bytes));
        self.metrics.store_keys.set(gauge(keys));
        self.metrics.store_index.set(gauge(index_bytes));
    }

    /// What the store is short of.
    pub(crate) fn shortage(&self) -> Option<String> {
        self.shortages.lock().unwrap_or_else(PoisonError::into_inner).values().next().cloned()
    }

    /// Keeps what is damaged on a shard, for requests that ask any shard.
    pub(crate) fn publish_damaged(&self, shard: u16, damaged: DamagedKeys) {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, damaged);
    }

    /// What is damaged on this node.
    pub(crate) fn damaged(&self) -> DamagedKeys {
        let shards = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = shards.values().flat_map(|damaged| &damaged.keys).cloned().collect();
        keys.sort_unstable();
        keys.truncate(DAMAGED_SHOWN_MAX);
        DamagedKeys { keys, count: shards.values().map(|damaged| damaged.count).sum() }
    }

    /// How many records are damaged on this node.
    pub(crate) fn damaged_count(&self) -> u64 {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).values().map(|damaged| damaged.count).sum()
    }

    /// How anti-entropy stands on this node.
    pub(crate) fn aae_status(&self) -> AaeStatus {
        let aae = self.aae.lock().unwrap_or_else(PoisonError::into_inner);
        let configurations = self.configurations();
        let name = |peer| configurations.member(peer).map_or_else(String::new, |member| member.name.clone());
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let lines = aae.values().flat_map(|figures| &figures.partitions);
        AaeStatus {
            paused: aae.values().any(|figures| figures.paused),
            drift: self.metrics.aae_drift.get(),
            building: u64::try_from(self.metrics.partitions_uncounted.get()).unwrap_or(0),
            partitions: lines
                .map(|line| AaePartition {
                    peer: name(line.peer),
                    partition: line.partition,
                    last_full_round_ms: line.last_full_round.map(milliseconds),
                    compared: line.compared,
                    repaired: line.repaired,
                    unequal: line.unequal,
                    in_progress: line.in_progress,
                    behind: line.behind,
                    rate: line.rate,
                })
                .collect(),
        }
    }

    /// Whether an operator has paused anti-entropy.
    pub(crate) fn is_aae_paused(&self) -> bool {
        self.aae.lock().unwrap_or_else(PoisonError::into_inner).values().any(|figures| figures.paused)
    }

    /// How many comparisons of a partition with a peer are still to be made since the start, and how many there are in all.
    pub(crate) fn comparisons_left(&self) -> (usize, usize) {
        let aae = self.aae.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = || aae.values().flat_map(|figures| &figures.partitions);
        (lines().filter(|line| line.last_full_round.is_none()).count(), lines().count())
    }

    /// Looks whether data that was begun anew has come to be what other nodes hold, or lacks what they hold.
    fn look_at_filling(&self) {
        let Some(filling) = self.lives.filling() else { return };
        let (is_known, lacking) = {
            let aae = self.aae.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = aae.len() == self.shards.len() && self.metrics.partitions_uncounted.get() == 0;
            (is_known, aae.values().map(|figures| figures.lacking).sum::<usize>())
        };
        let owned = self.topology().ring().owned(self.node).count();
        let lacks_most = lacking * 2 >= owned && lacking > 0;
        if filling == Filling::New && lacks_most {
            self.lives.note_lost();
        } else if is_known && self.comparisons_left().0 == 0 {
            self.lives.note_whole();
            // Of one that is no member yet nothing is expected.
            if owned > 0 {
                tracing::info!(node = self.name, "the data directory holds what other nodes do");
            }
        }
    }

    /// To be called once a second: what has changed about the data and its disk, and what is the matter.
    pub(crate) fn housekeeping(&self) {
        self.look_at_filling();
        self.look_whether_alone();
        if (self.clock.instant().0 / 1_000_000).is_multiple_of(WRITE_AGAIN_S) {
            self.lives.write_again();
        }
        let room = self.lives.disk_room();
        if let Some(DiskRoom { free, total }) = room {
            let gauge = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
            self.metrics.disk_free.set(gauge(free));
            self.metrics.disk_total.set(gauge(total));
        }
        let mut low = self.low_disk.lock().unwrap_or_else(PoisonError::into_inner);
        let was_low = low.is_some();
        *low = room.filter(|room| room.is_low(was_low));
        drop(low);
        self.look_at_conditions();
    }

    /// How full the disk was a moment ago, if that was too full.
    pub(crate) fn low_disk(&self) -> Option<DiskRoom> {
        *self.low_disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out what is the matter; says in the log what is new.
    pub(crate) fn look_at_conditions(&self) {
        self.standings.update(&self.name, self.clock.instant(), || conditions::present(self), &self.metrics);
    }

    /// What is the matter with this node, the worst first, as of a moment ago.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        let now = self.clock.instant();
        if self.standings.are_older_than(LOOKED_FOR, now) {
            self.look_at_conditions();
        }
        self.standings.shown(now)
    }

    /// Whether another node may be counted on, or is this one.
    pub(crate) fn counts_on(&self, node: NodeId) -> bool {
        let is_alive = |peer: &PeerState| peer.is_connected() && peer.liveness == Liveness::Alive;
        node == self.node || self.peers.get(&node).is_some_and(|peer| is_alive(&peer))
    }

    /// What this node holds for others, and how its delivery goes.
    pub(crate) fn hints(&self) -> Vec<HintsFor> {
        let now = self.clock.instant();
        let name = |id| self.name_of(id);
        let hints_for = |(id, figures): (NodeId, HintFigures)| {
            let HintFigures { keys, bytes, since, delivered, rate } = figures;
            let eta_ms = (rate > 0.0 && keys > 0).then(|| (keys as f64 / rate * 1000.0) as u64);
            let oldest_ms = since.map(|since| u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX));
            HintsFor { target: name(id), keys, bytes, oldest_ms, delivered, rate, eta_ms }
        };
        let hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        HintFigures::by_target(hints.values().flatten().copied()).into_iter().map(hints_for).collect()
    }

    /// What this node knows of itself.
    pub(crate) fn status(&self) -> NodeStatus {
        let clock = self.clock_standing();
        let counted = self.metrics.partitions_uncounted.get() == 0;
        let gauge = |value: i64| counted.then(|| u64::try_from(value).unwrap_or(0));
        let members = self.configurations().members();
        let members = members.iter().filter(|member| member.id != self.node);
        NodeStatus {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ring_version: self.ring_version(),
            uptime_ms: self.clock.instant().0 / 1000,
            keys: gauge(self.metrics.keys.get()),
            bytes: gauge(self.metrics.value_bytes.get()),
            clock_offset_ms: clock.ahead_ms,
            takes_writes: clock.stance != Stance::Off && self.shortage().is_none(),
            hints: self.hint_keys(),
            peers: members
                .map(|member| {
                    let connected = self.reaches(member.id);
                    let liveness = self.peers.get(&member.id).map_or(Liveness::Alive, |peer| peer.liveness);
                    PeerStatus { name: member.name.clone(), connected, liveness }
                })
                .collect(),
            conditions: self.conditions(),
        }
    }
}

/// Since the epoch.
fn seconds(time: SystemTime) -> i64 {
    whole_seconds(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// For how long what is the matter need not be found out again, however many ask.
const LOOKED_FOR: Duration = Duration::from_millis(100);

/// Seconds after which it is tried again to write down what could not be.
const WRITE_AGAIN_S: u64 = 30;

/// Damaged records that are named: some tens of kilobytes. If there are more, it is the disk that needs looking after.
pub(crate) const DAMAGED_SHOWN_MAX: usize = 1_000;

/// After which time without any connection a node calls others whose part it is to call, and those that only its cluster file names:
/// it may be that it is no member any more, and nobody calls it. Longer than a start or a moment of the network takes.
const ALONE_AFTER: Duration = Duration::from_secs(5);

/// The addresses of members that the cluster file gives as addresses. Names are noted when they are resolved.
fn literal_addresses(members: &[Member]) -> BTreeSet<IpAddr> {
    members
        .iter()
        .filter_map(|member| member.address.parse::<SocketAddr>().ok())
        .map(|address| address.ip().to_canonical())
        .collect()
}

/// Enough for every member of a large cluster to move a few times.
const MEMBER_ADDRESSES_MAX: usize = 1024;

/// Whoever was there, and is heard of no more for so long, is not: it would have called again within a second or two.
const THERE_FOR: Duration = Duration::from_secs(10);
