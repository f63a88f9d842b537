//! Who connected, was turned away, was not allowed something, or gave orders: events of the target `audit`, which the process
//! writes to a file if it is told to, one JSON object a line.
//!
//! Keys are named only where the node was told to, values never. Of each kind of event there is a bound in time, with a
//! count of what was left out, so that no stranger fills a disk and none hides among many: kinds do not take each other's lines.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use driftless_proto::Role;
use driftless_proto::client::{AaeCommand, Class, DrainCommand, Request};
use driftless_proto::membership::ClusterCommand;
use driftless_proto::observed::{Observed, ObservedRequest};

use super::node_context::NodeContext;
use super::verified::Verified;
use crate::log_lines::LogLines;

/// One per node.
pub(crate) struct AuditLog {
    keys: bool,
    kinds: Mutex<[LogLines; KINDS]>,
}

/// What is written down.
#[derive(Clone, Copy)]
enum Kind {
    Connected,
    Disconnected,
    Refused,
    NotAllowed,
    Ordered,
    /// A part of what a backup holds: there is an order for each key.
    Merged,
    Reread,
}

const KINDS: usize = Kind::Reread as usize + 1;

/// Who asks, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) who: &'a str,
    pub(crate) address: SocketAddr,
}

impl AuditLog {
    pub(crate) fn new(keys: bool) -> AuditLog {
        AuditLog { keys, kinds: Mutex::default() }
    }

    /// Somebody has shown a certificate that counts.
    pub(crate) fn connected(&self, shared: &NodeContext, verified: &Verified, address: SocketAddr, role: Role) {
        let Some(left_out) = self.line(shared, Kind::Connected) else { return };
        let (node, who, serial) = (&shared.name, verified.subject.to_string(), verified.serial().to_string());
        tracing::info!(target: TARGET, event = "connected", node, who, %address, role = role.name(), serial, left_out);
    }

    /// Their connection is over.
    pub(crate) fn disconnected(&self, shared: &NodeContext, who: &str, address: SocketAddr, reason: &str) {
        let Some(left_out) = self.line(shared, Kind::Disconnected) else { return };
        tracing::info!(target: TARGET, event = "disconnected", node = shared.name, who, %address, reason, left_out);
    }

    /// Somebody was turned away.
    pub(crate) fn refused(&self, shared: &NodeContext, who: &str, address: SocketAddr, reason: &str) {
        let Some(left_out) = self.line(shared, Kind::Refused) else { return };
        tracing::info!(target: TARGET, event = "refused", node = shared.name, who, %address, reason, left_out);
    }

    /// Somebody asked for what their role does not allow.
    pub(crate) fn not_allowed(&self, shared: &NodeContext, asker: Asker<'_>, request: &Request, needed: Role) {
        let Some(left_out) = self.line(shared, Kind::NotAllowed) else { return };
        let (node, Asker { who, address }, needed) = (&shared.name, asker, needed.name());
        let (request, bucket, key) = (name(request), bucket(shared, request), self.key(request));
        tracing::info!(target: TARGET, event = "not allowed", node, who, %address, request, bucket, key, needed, left_out);
    }

    /// An operator has given an order.
    pub(crate) fn ordered(&self, shared: &NodeContext, asker: Asker<'_>, request: &Request) {
        let kind = if matches!(request, Request::MergeState(_)) { Kind::Merged } else { Kind::Ordered };
        let Some(left_out) = self.line(shared, kind) else { return };
        let (node, Asker { who, address }) = (&shared.name, asker);
        let (request, bucket, key, change) =
            (name(request), bucket(shared, request), self.key(request), change(request));
        tracing::info!(target: TARGET, event = "ordered", node, who, %address, request, bucket, key, change, left_out);
    }

    /// Files were read again; `error` is why they were not taken.
    pub(crate) fn reread(&self, shared: &NodeContext, what: &str, error: Option<&str>) {
        let Some(left_out) = self.line(shared, Kind::Reread) else { return };
        let (node, taken, denied) = (&shared.name, error.is_none(), shared.credentials.allowed().1.denied());
        tracing::info!(target: TARGET, event = "read again", node, what, taken, error, denied, left_out);
    }

    /// Whether a line may be written: then how many of its kind were left out before it.
    fn line(&self, shared: &NodeContext, kind: Kind) -> Option<u64> {
        let now = shared.clock.instant();
        let lines = &mut self.kinds.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize];
        let left_out = lines.take(now, LINES_MAX, SPAN);
        if left_out.is_none() {
            shared.metrics.audit_left_out.inc();
        }
        left_out
    }

    fn key(&self, request: &Request) -> Option<String> {
        match request.class() {
            Class::Key { key, .. } if self.keys => Some(key.to_string()),
            _ => None,
        }
    }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Topology => "topology",
        Request::Get(_) | Request::Observed(Observed { request: ObservedRequest::Get(_), .. }) => "get",
        Request::Put(_) | Request::Observed(Observed { request: ObservedRequest::Put(_), .. }) => "put",
        Request::Delete(_) | Request::Observed(Observed { request: ObservedRequest::Delete(_), .. }) => "delete",
        Request::Scan(_) => "scan",
        Request::Status => "status",
        Request::Hints => "hints",
        Request::Figures => "figures",
        Request::Top(_) => "top",
        Request::Aae(AaeCommand::Status) => "aae status",
        Request::Aae(AaeCommand::Run { .. }) => "aae run",
        Request::Aae(AaeCommand::Pause) => "aae pause",
        Request::Aae(AaeCommand::Resume) => "aae resume",
        Request::Damaged => "damaged list",
        Request::Drain(DrainCommand::Status) => "drain status",
        Request::Drain(DrainCommand::Begin) => "drain",
        Request::Drain(DrainCommand::Undo) => "drain undo",
        Request::Restore(_) => "damaged restore",
        Request::GetState(_) => "get state",
        Request::MergeState(_) => "merge state",
        Request::Cluster(ClusterCommand::State) => "cluster state",
        Request::Cluster(ClusterCommand::Stage(_)) => "cluster stage",
        Request::Cluster(ClusterCommand::Clear) => "cluster clear",
        Request::Cluster(ClusterCommand::Plan) => "cluster plan",
        Request::Cluster(ClusterCommand::Commit { .. }) => "cluster commit",
        Request::Cluster(ClusterCommand::Cancel) => "cluster cancel",
        Request::Cluster(ClusterCommand::History) => "cluster history",
        Request::Cluster(ClusterCommand::Apply(_)) => "cluster apply",
        Request::Cluster(ClusterCommand::Recover { .. }) => "cluster recover",
        Request::Cluster(ClusterCommand::Access) => "cluster access",
        Request::Cluster(ClusterCommand::Found { .. }) => "cluster found",
    }
}

/// What is to become different, in words.
fn change(request: &Request) -> Option<String> {
    match request {
        Request::Cluster(ClusterCommand::Stage(change) | ClusterCommand::Apply(change)) => Some(change.to_string()),
        Request::Cluster(ClusterCommand::Recover { lost, force }) => {
            Some(format!("{} lost{}", are(lost), if *force { "" } else { ", if it were done" }))
        }
        Request::Cluster(ClusterCommand::Found { without, yes }) => {
            Some(format!("{} left out{}", are(without), if *yes { "" } else { ", if it were done" }))
        }
        _ => None,
    }
}

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn bucket(shared: &NodeContext, request: &Request) -> Option<String> {
    let topology = shared.topology();
    let bucket = topology.bucket(request.bucket()?)?;
    Some(bucket.name.to_string())
}

/// What these events are told by.
pub const TARGET: &str = "audit";

const SPAN: Duration = Duration::from_secs(10);

/// Of each kind in that span: some tens of kilobytes a second at most, and more than happens to a node at peace.
const LINES_MAX: usize = 500;
