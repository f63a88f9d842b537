//! What the threads of a node share: who it is, how to reach its shards, and what it knows of its peers.
//!
//! ```text
//! shards.rs       how to reach its shards, and what they are told
//! known_peers.rs  the other nodes: connections, opinions, addresses
//! published.rs    what its shards have last said of themselves
//! ```

mod known_peers;
mod published;
mod shards;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use driftless_proto::client::{Class, Condition, DrainCommand, DrainStatus, Liveness, NodeStatus, PeerStatus, Request};
use driftless_proto::membership::StoreId;
use driftless_proto::{ContextKeys, Topology};
use driftless_ring::{Member, NodeId};
use tokio::sync::mpsc::UnboundedSender;

use self::known_peers::{PeerState, literal_addresses};
pub(crate) use self::published::DAMAGED_SHOWN_MAX;
use self::published::Published;
pub(crate) use self::shards::{ShardHandle, ShardMessage};
use super::accounts::Accounts;
use super::audit::AuditLog;
use super::clock::Clock;
use super::credentials::Credentials;
use super::environment::Environment;
use super::figures::Heard;
use super::hello::Incarnations;
use super::limits::NetLimits;
use super::lives::Lives;
use super::refusal::RefusalLog;
use super::settings::NodeSettings;
use super::sync::SyncQueue;
use super::tls::TlsIdentity;
use super::top::Questions;
use super::traces::Traces;
use crate::conditions::{self, DiskRoom, Filling, Standings};
use crate::config::Limits;
use crate::configurations::Configurations;
use crate::liveness::clocks::Stance;
use crate::membership::Apart;
use crate::metrics::Metrics;
use crate::replica::store::StoreError;
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
    pub(crate) traces: Traces,
    pub(crate) sync: SyncQueue,
    pub(crate) shards: Vec<ShardHandle>,
    /// Which keys are hot is gathered from them for one client after the other.
    pub(crate) top_questions: Questions,
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
    published: Published,
    /// Nodes that go by another history of the cluster.
    apart: Mutex<Vec<Apart>>,
    /// Since when this node is connected to no other, if there are others.
    alone_since: Mutex<Option<Instant>>,
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
        let links = peers.iter().map(|peer| peer.expected()).sum();
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
            shards: shards.into_iter().map(ShardHandle::new).collect(),
            top_questions: Questions::default(),
            incarnations: Incarnations::default(),
            refusals: RefusalLog::default(),
            traces: Traces::new(&name, net.traces_per_second, metrics.clone()),
            audit: AuditLog::new(security.audit_keys),
            member_addresses: Mutex::new(literal_addresses(&members)),
            accounts: Accounts::new(net.memory, net.client_requests_max),
            peer_outbound_max: AtomicUsize::new(net.peer_outbound_max(links)),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            published: Published::default(),
            apart: Mutex::default(),
            alone_since: Mutex::default(),
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
        if self.credentials.agree(configurations.access().clone()) {
            let (version, denied) = (configurations.version(), configurations.access().denied().len());
            tracing::info!(node = self.name, version, denied, "the cluster agrees on who may do what");
            self.tell_credentials();
        }
        let members = configurations.members();
        self.peers.retain(|peer, _| members.iter().any(|member| member.id == *peer));
        for member in members.iter().filter(|member| member.id != self.node) {
            let fresh = PeerState::new(member, self.shards.len());
            let expected = fresh.expected();
            self.peers.entry(member.id).or_insert(fresh).expect_as(expected);
        }
        let links = self.peers.iter().map(|peer| peer.expected()).sum();
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

    /// These nodes, and no others, go by another history of the cluster.
    pub(crate) fn note_apart(&self, apart: Vec<Apart>) {
        *self.apart.lock().unwrap_or_else(PoisonError::into_inner) = apart;
    }

    /// Nodes that go by another history of the cluster.
    pub(crate) fn apart(&self) -> Vec<Apart> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Looks whether data that was begun anew has come to be what other nodes hold, or lacks what they hold.
    fn look_at_filling(&self) {
        let Some(filling) = self.lives.filling() else { return };
        let (is_known, lacking) = self.lacking();
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
                    let liveness = self.peers.get(&member.id).map_or(Liveness::Alive, |peer| peer.liveness());
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
