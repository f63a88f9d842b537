//! What operators and scrapers ask over HTTP, on loopback, or over TLS from other machines: `/metrics`, `/health`, `/ready`,
//! `/status`; and for people the status page, `/`, with the stream that feeds it, `/events`.
//!
//! It runs on a thread of its own and reads what the shards publish, so that it answers also when they do not. Any local user may
//! connect, so `serve` bounds what that takes of the process.

mod events;
#[cfg(test)]
mod monitoring;
mod page;
mod remote;
mod serve;
mod sight;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use driftless_proto::client::{Condition, Severity};
use driftless_ring::Member;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::net::node_context::{NodeContext, ShardHandle};
use crate::time::Instant;

/// Why the admin socket is not open.
#[derive(Debug)]
pub(crate) enum ListenError {
    /// What is served is for this machine only.
    NotLoopback(SocketAddr),
    /// What the system said.
    Refused { address: SocketAddr, reason: String },
}

/// Opens the admin socket, on loopback only.
///
/// # Errors
/// [`ListenError`].
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if !address.ip().is_loopback() {
        return Err(ListenError::NotLoopback(address));
    }
    listen_remote(address)
}

/// Opens the admin socket for other machines.
///
/// # Errors
/// [`ListenError::Refused`].
pub(crate) fn listen_remote(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| ListenError::Refused { address, reason: error.to_string() })
}

/// Where the pages are served; without any there is nothing to serve.
pub(crate) struct Listeners {
    /// For this machine.
    pub(crate) local: Option<TcpListener>,
    /// Over TLS.
    pub(crate) remote: Option<TcpListener>,
}

/// Serves until told to stop.
pub(crate) fn run(shared: Arc<NodeContext>, listeners: Listeners, mut stopped: watch::Receiver<bool>) {
    let name = shared.name.clone();
    let served: std::io::Result<()> =
        tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
            runtime.block_on(async move {
                let pages = pages(shared.clone());
                let local = async {
                    let Some(listener) = listeners.local else { return Ok(()) };
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let router = pages.clone().layer(axum::middleware::from_fn(serve::asked_for_by_address));
                    serve::serve(&shared.name, &listener, router, serve::Bounds::USUAL).await;
                    Ok(())
                };
                let remote = async {
                    let Some(listener) = listeners.remote else { return Ok(()) };
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    remote::serve(&shared, &listener, pages.clone(), serve::Bounds::USUAL).await;
                    Ok(())
                };
                tokio::select! {
                    served = async { tokio::try_join!(local, remote) } => served.map(|_| ()),
                    _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
                }
            })
        });
    if let Err(error) = served {
        // The node serves its clients all the same.
        tracing::error!(node = name, %error, "the admin server has ended");
    }
}

fn pages(shared: Arc<NodeContext>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/events", get(events::events))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .with_state(Arc::new(Admin::new(shared)))
}

struct Admin {
    shared: Arc<NodeContext>,
    registry: Registry,
    looked_up: LookedUp,
    peers: PeerGauges,
    watching: events::Watching,
}

/// What is found out when somebody asks.
#[derive(Default)]
struct LookedUp {
    hints_oldest: Gauge,
    shards_silent: Gauge,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
}

#[derive(Default)]
struct PeerGauges {
    shown: Mutex<BTreeSet<String>>,
    connections: Family<PeerLabels, Gauge>,
    round_trip: Family<PeerLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

impl PeerGauges {
    /// Who is a member no more is not shown any more.
    fn forget_others(&self, members: &[Member]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.retain(|name| {
            let stays = members.iter().any(|member| member.name == *name);
            if !stays {
                let labels = PeerLabels { peer: name.clone() };
                self.connections.remove(&labels);
                self.round_trip.remove(&labels);
            }
            stays
        });
        shown.extend(members.iter().map(|member| member.name.clone()));
    }
}

impl Admin {
    fn new(shared: Arc<NodeContext>) -> Admin {
        let (peers, looked_up) = (PeerGauges::default(), LookedUp::default());
        let registry = registry(&shared.metrics, &peers, &looked_up);
        Admin { shared, registry, looked_up, peers, watching: events::Watching::new() }
    }
}

/// Names all that `/metrics` shows.
fn registry(metrics: &Metrics, peers: &PeerGauges, looked_up: &LookedUp) -> Registry {
    let mut registry = Registry::with_prefix("driftless");
    let build = Info::new([
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("protocol_version", driftless_proto::ProtocolVersions::OURS.to_string()),
    ]);
    registry.register("build", "What runs here", build);
    metrics.register(&mut registry);
    registry.register("peer_connections", "Connections to a peer", peers.connections.clone());
    let help = "Round trip to a peer as QUIC measures it";
    registry.register_with_unit("peer_round_trip", help, Unit::Seconds, peers.round_trip.clone());
    let help = "For how long something has been held for another node, or how long after its start";
    registry.register_with_unit("hints_oldest", help, Unit::Seconds, looked_up.hints_oldest.clone());
    let help = "Shards that have not turned for some seconds";
    registry.register("shards_silent", help, looked_up.shards_silent.clone());
    registry
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let members = admin.shared.configurations().members();
    admin.peers.forget_others(&members);
    for member in &members {
        if let Some(peer) = admin.shared.peers.get(&member.id) {
            let labels = PeerLabels { peer: member.name.clone() };
            let connections = i64::try_from(peer.connections).unwrap_or(i64::MAX);
            admin.peers.connections.get_or_create(&labels).set(connections);
            admin.peers.round_trip.get_or_create(&labels).set(peer.rtt.as_secs_f64());
        }
    }
    let oldest_ms = admin.shared.hints().iter().filter_map(|hints| hints.oldest_ms).max().unwrap_or(0);
    admin.looked_up.hints_oldest.set(i64::try_from(oldest_ms / 1000).unwrap_or(i64::MAX));
    admin.looked_up.shards_silent.set(silent_shards(&admin.shared).len() as i64);
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health(State(admin): State<Arc<Admin>>) -> Response {
    let silent = silent_shards(&admin.shared);
    if silent.is_empty() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, silent.join("\n") + "\n").into_response()
    }
}

/// The shards that have not turned for longer than a healthy machine pauses, each in a sentence.
pub(crate) fn silent_shards(shared: &NodeContext) -> Vec<String> {
    let now = shared.clock.instant();
    let silence = |post: &ShardHandle| now.since(Instant(post.beat.load(Ordering::Relaxed)));
    let shards = shared.shards.iter().map(silence).enumerate();
    let silent = shards.filter(|(_, silence)| *silence > SILENCE_MAX);
    silent.map(|(shard, silence)| format!("shard {shard} has not turned for {} s", silence.as_secs())).collect()
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let conditions = admin.shared.conditions();
    let critical = conditions.iter().filter(|condition| condition.severity == Severity::Critical);
    let text: String = critical.map(|Condition { what, remedy, .. }| format!("{what}: {remedy}\n")).collect();
    if text.is_empty() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    Json(admin.shared.status()).into_response()
}

/// The content type of OpenMetrics text, which is what the encoder writes.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Drivers turn once a second at least; five are more than any pause of a healthy machine.
const SILENCE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::{ConditionLabels, LivenessLabels, Operation, OperationLabels, OutcomeLabel, RequestLabels};

    #[test]
    fn every_metric_stands_in_the_documents_and_every_documented_metric_exists() {
        let (registered, documented) = (registered(), documented());
        let undocumented: Vec<_> = registered.difference(&documented).collect();
        assert!(undocumented.is_empty(), "docs/operations.md lacks {undocumented:?}");
        let absent: Vec<_> = documented.difference(&registered).collect();
        assert!(absent.is_empty(), "docs/operations.md has {absent:?}, which no node registers");
    }

    /// Names and types as a scraper sees them.
    fn registered() -> BTreeSet<(String, String)> {
        let text = exposition();
        let shown = text.lines().filter_map(|line| line.strip_prefix("# TYPE driftless_")?.split_once(' '));
        shown.map(|(name, kind)| (format!("{name}{}", suffix(kind)), kind.to_owned())).collect()
    }

    /// What a scraper is told by a node to which everything has happened. A family is shown once it has labels, so each is given all
    /// that it can have.
    pub(super) fn exposition() -> String {
        let (metrics, peers, peer) = (Metrics::default(), PeerGauges::default(), PeerLabels { peer: "b".to_owned() });
        for operation in [Operation::Get, Operation::Put, Operation::Delete, Operation::Scan, Operation::Other] {
            for outcome in [OutcomeLabel::Ok, OutcomeLabel::Refused, OutcomeLabel::Unknown] {
                drop(metrics.requests.get_or_create(&RequestLabels { operation, outcome }));
            }
            drop(metrics.latency.get_or_create(&OperationLabels { operation }));
            drop(metrics.slow_requests.get_or_create(&OperationLabels { operation }));
        }
        drop(metrics.conditions.get_or_create(&ConditionLabels { condition: "counting" }));
        for to in ["alive", "suspect", "down"] {
            drop(metrics.liveness_changes.get_or_create(&LivenessLabels { to }));
        }
        drop(peers.connections.get_or_create(&peer));
        drop(peers.round_trip.get_or_create(&peer));
        let registry = registry(&metrics, &peers, &LookedUp::default());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("writes to a String");
        let shown = text.lines().filter(|line| line.starts_with("# TYPE driftless_")).count();
        let all = format!("{registry:?}").matches("Descriptor {").count();
        assert_eq!(shown, all, "a family of metrics is not shown: give it labels above");
        text
    }

    /// What the encoder adds to the names of samples.
    fn suffix(kind: &str) -> &'static str {
        match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        }
    }

    /// The rows of the table: names in the first column, without labels, and their type in the second.
    fn documented() -> BTreeSet<(String, String)> {
        let page = include_str!("../../../docs/operations.md");
        let (_, section) = page.split_once("\n## Metrics\n").expect("has the section");
        let (section, _) = section.split_once("\n## ").expect("is not the last one");
        let mut documented = BTreeSet::new();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.split(" | ").collect();
            for name in cells[0].split('`').skip(1).step_by(2) {
                let name = name.split('{').next().unwrap_or(name);
                assert!(documented.insert((name.to_owned(), cells[1].to_owned())), "{name} stands there twice");
            }
        }
        documented
    }
}
