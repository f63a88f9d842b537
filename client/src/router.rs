//! Where a request goes: the cluster's topology as last heard of, and a [`Link`] to every shard in it.
//!
//! ```text
//! (bucket, key) ── token ──▶ partition ── ring ──▶ primaries, then fallbacks      the first promising one
//!                               └── shard_of ──▶ one link per (node, shard)
//! ```
//! Rows of the ring are balanced, so going to the first primary spreads the load. A node whose connection is down, that
//! says nothing, or that has long been far slower than the others is passed over while there is another; when all
//! primaries are, their fallbacks are asked. A [`Snapshot`] never changes; a newer ring makes the next one, which takes over
//! the links that still lead somewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use driftless_proto::Topology;
use driftless_proto::client::{Request, Response};
use driftless_ring::{NodeId, PartitionId, Partitions, Token};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::counts::{Occasion, count};
use crate::error::Cause;
use crate::io::Io;
use crate::latency::Kind;
use crate::link::Link;
use crate::options::Settings;

/// Knows the way to every node.
pub(crate) struct Router {
    io: Arc<Io>,
    seeds: Vec<String>,
    /// The client's own, by which the topology is fetched.
    settings: Arc<Settings>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Links to addresses that are no member's: seeds, and nodes that a user pinned requests to.
    strangers: Mutex<HashMap<String, Arc<Link>>>,
    /// A newer topology is being fetched in the background.
    refreshing: AtomicBool,
}

/// One topology, with a link to every shard in it.
pub(crate) struct Snapshot {
    pub(crate) topology: Arc<Topology>,
    /// In the order of the ring's members, then of shards.
    links: Vec<Vec<Arc<Link>>>,
}

/// What decides which nodes may answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    /// The owners of this token in the class of n.
    Token { n: u8, token: Token },
    /// The owners of this partition, as long as the ring has q arcs.
    Arc { partition: PartitionId, q: Partitions },
    /// Any node.
    Any,
}

impl Router {
    /// Asks all seeds at once for the topology; the first answer is taken. Tells what happened at those that gave none.
    pub(crate) async fn start(
        io: &Arc<Io>,
        seeds: &[Arc<Link>],
        settings: &Arc<Settings>,
        report: impl Fn(&str, Cause),
    ) -> Option<Arc<Router>> {
        let timeout = settings.attempt_timeout;
        let fetches = seeds.iter().map(|link| async move { fetch(link, timeout).await.map_err(|cause| (link, cause)) });
        let mut fetches: futures::stream::FuturesUnordered<_> = fetches.collect();
        while let Some(answer) = futures::StreamExt::next(&mut fetches).await {
            match answer {
                Ok(topology) => {
                    drop(fetches);
                    let snapshot = Snapshot::new(topology, io, None, seeds);
                    return Some(Arc::new(Router {
                        io: Arc::clone(io),
                        seeds: seeds.iter().map(|link| link.name().to_owned()).collect(),
                        settings: Arc::clone(settings),
                        snapshot: RwLock::new(Arc::new(snapshot)),
                        strangers: Mutex::default(),
                        refreshing: AtomicBool::new(false),
                    }));
                }
                Err((link, cause)) => report(link.name(), cause),
            }
        }
        None
    }

    /// The topology as last heard of.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches the topology again: from `first`, or from any node that answers within `timeout`, and all by the deadline.
    ///
    /// # Errors
    /// Why each that was asked did not answer.
    pub(crate) async fn refresh(
        &self,
        first: Option<&Arc<Link>>,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<Arc<Snapshot>, Vec<Cause>> {
        let snapshot = self.snapshot();
        let candidates: Vec<Arc<Link>> = match &self.settings.via {
            // A client of one node asks no other.
            Some(only) => vec![self.pinned(&snapshot, only, Route::Any).map_err(|cause| vec![cause])?],
            None => {
                let members = snapshot.links.iter().filter_map(|shards| shards.first().cloned());
                let (promising, others): (Vec<_>, Vec<_>) = members.partition(Link::is_promising);
                let seeds = self.seeds.iter().map(|seed| self.stranger(seed));
                first.cloned().into_iter().chain(promising).chain(others).chain(seeds).collect()
            }
        };
        let mut causes = Vec::new();
        for link in candidates {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if let Some(cause) = self.io.ended() {
                return Err(vec![cause]);
            }
            // The first one is asked whatever happens: an error has a cause.
            if remaining.is_zero() && !causes.is_empty() {
                break;
            }
            match fetch(&link, timeout.min(remaining)).await {
                Ok(topology) => return Ok(self.install(topology)),
                Err(cause) => causes.push(cause),
            }
        }
        Err(causes)
    }

    /// A node has shown a newer ring: fetches it from there, one at a time.
    pub(crate) fn refresh_in_background(self: &Arc<Self>, link: &Arc<Link>) {
        if self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        // Weak: an abandoned client must not live on for this.
        let (router, link) = (Arc::downgrade(self), Arc::clone(link));
        self.io.spawn(async move {
            if let Some(router) = router.upgrade() {
                let deadline = Clock::start(router.settings.timeout).deadline;
                if let Err(causes) = router.refresh(Some(&link), router.settings.attempt_timeout, deadline).await {
                    tracing::debug!(cause = ?causes.last(), "cannot fetch the newer topology");
                }
                router.refreshing.store(false, Ordering::Release);
            }
        });
    }

    /// Takes a topology for true, unless it is older than the one at hand or of another cluster.
    fn install(&self, topology: Topology) -> Arc<Snapshot> {
        let mut current = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let known = &current.topology;
        let is_news = topology.cluster() == known.cluster()
            && topology.ring().version() >= known.ring().version()
            && topology != **known;
        if is_news {
            tracing::debug!(ring_version = topology.ring().version().0, "newer topology");
            *current = Arc::new(Snapshot::new(topology, &self.io, Some(&current), &[]));
        }
        Arc::clone(&current)
    }

    /// The link to exactly the node that a user named: a member's name or address, or any other `host:port`.
    pub(crate) fn pinned(&self, snapshot: &Snapshot, node: &str, route: Route) -> Result<Arc<Link>, Cause> {
        let topology = &snapshot.topology;
        let member = topology.ring().members().iter().find(|member| member.name == node || member.address == node);
        match member {
            Some(member) => {
                let shard = snapshot.partition(route).map_or(0, |partition| topology.shard_of(member.id, partition));
                let link = snapshot.link(member.id, shard).expect("a snapshot has a link to every shard of a member");
                Ok(Arc::clone(link))
            }
            None if node.contains(':') => Ok(self.stranger(node)),
            None => Err(Cause::NoSuchNode(node.to_owned())),
        }
    }

    fn stranger(&self, address: &str) -> Arc<Link> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let link = strangers
            .entry(address.to_owned())
            .or_insert_with(|| Link::new(Arc::clone(&self.io), address.to_owned(), 0, None));
        Arc::clone(link)
    }
}

impl Snapshot {
    /// Links of `before` that still lead somewhere are kept; connections of `spare` links to members are taken over.
    fn new(topology: Topology, io: &Arc<Io>, before: Option<&Snapshot>, spare: &[Arc<Link>]) -> Snapshot {
        let members = topology.ring().members().iter();
        let links = members.map(|member| {
            (0..member.shards.max(1))
                .map(|shard| {
                    let kept = before
                        .and_then(|before| before.link(member.id, shard))
                        .filter(|link| link.leads_to(&member.address, shard, Some(&member.name)));
                    kept.cloned().unwrap_or_else(|| {
                        let adopted = spare.iter().filter(|_| shard == 0).find_map(|link| {
                            link.release(|connection| {
                                connection.node() == member.name && same_port(link.name(), &member.address)
                            })
                        });
                        Link::new(Arc::clone(io), member.address.clone(), shard, Some(member.name.clone()))
                            .adopt(adopted)
                    })
                })
                .collect()
        });
        Snapshot { links: links.collect(), topology: Arc::new(topology) }
    }

    pub(crate) fn ring_version(&self) -> u64 {
        self.topology.ring().version().0
    }

    /// The partition that a route leads to in this topology.
    pub(crate) fn partition(&self, route: Route) -> Option<PartitionId> {
        match route {
            Route::Token { n, token } => Some(self.topology.ring().partition(n, token)),
            Route::Arc { partition, .. } => Some(partition),
            Route::Any => None,
        }
    }

    /// The best link for a route: promising links before others, links not tried yet before tried ones, and in
    /// the order of preference among equals. `None` if the ring has no such partition.
    ///
    /// The order is the ring's and not that of measured times, so that all clients send a key's writes to the same
    /// coordinator: it stamps them one after the other, where two would make siblings of them. Only a first owner that
    /// [lags](crate::latency::LatencyEstimator::lags) far behind the others comes after them.
    pub(crate) fn choose(&self, route: Route, kind: Option<Kind>, tried: &[NodeId]) -> Option<(NodeId, Arc<Link>)> {
        let ring = self.topology.ring();
        let partition = self.partition(route);
        let owners = partition.map_or(&[][..], |partition| ring.owners(partition));
        let link = |node| {
            let shard = partition.map_or(0, |partition| self.topology.shard_of(node, partition));
            self.link(node, shard)
        };
        let lags = |first: &Link, others: &[NodeId]| {
            let usual = |kind| others.iter().filter_map(|&node| link(node)?.latency.mean(kind)).min();
            kind.is_some_and(|kind| first.latency.lags(kind, Instant::now(), || usual(kind)))
        };
        let mut laggard = None;
        if let [first, rest @ ..] = owners
            && !tried.contains(first)
            && let Some(link) = link(*first).filter(|link| link.is_promising())
        {
            if !lags(link, rest) {
                return Some((*first, Arc::clone(link)));
            }
            laggard = Some(*first);
        }
        let others = match (partition, owners.first()) {
            (Some(partition), Some(&first)) => ring.preference(partition).fallbacks_for(first),
            (Some(_), None) => return None,
            (None, _) => ring.members().iter().map(|member| member.id).collect(),
        };
        let times = |node: &NodeId| tried.iter().chain(&laggard).filter(|&other| other == node).count();
        let best = owners.iter().chain(&others).filter_map(|&node| Some((node, link(node)?)));
        best.min_by_key(|(node, link)| (!link.is_promising(), times(node))).map(|(node, link)| (node, Arc::clone(link)))
    }

    fn link(&self, node: NodeId, shard: u16) -> Option<&Arc<Link>> {
        let member = self.topology.ring().members().binary_search_by_key(&node, |member| member.id).ok()?;
        self.links.get(member)?.get(usize::from(shard))
    }
}

/// Whether two addresses of a node lead to the same shard, whatever they call its host.
fn same_port(one: &str, other: &str) -> bool {
    one.rsplit(':').next() == other.rsplit(':').next()
}

/// Asks one node for the topology.
async fn fetch(link: &Arc<Link>, timeout: Duration) -> Result<Topology, Cause> {
    let ask = async {
        let connection =
            link.connection().await.map_err(|failure| Cause::NotConnected { node: link.name().to_owned(), failure })?;
        let deadline_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let frame = connection.submit(&Request::Topology, 0, deadline_ms)?.answer().await?;
        match frame.response {
            Response::Topology(topology) => {
                count(Occasion::TopologyFetched);
                Ok(*topology)
            }
            Response::Failed(failure) => Err(Cause::from_node(connection.node(), failure)),
            _ => Err(Cause::Misunderstood { node: connection.node().to_owned() }),
        }
    };
    tokio::time::timeout(timeout, ask).await.unwrap_or_else(|_| {
        Err(Cause::TimedOut { node: link.name().to_owned(), after: timeout, sent: false, heard: false })
    })
}
