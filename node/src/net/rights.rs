//! What a client may ask: what each request takes, against the role that its certificate has on this node.
//!
//! | takes | requests |
//! |---|---|
//! | reader | get, all that is known of a key, scan, topology, status, figures, hints, damaged records, how anti-entropy stands, how a drain stands, how members stand, what a plan would move, who may do what |
//! | writer | put, delete |
//! | operator | orders to anti-entropy, draining, giving up a damaged record, putting back what a backup holds, changing members, buckets and who may do what; which keys are hot |
//!
//! A role that is for some buckets only is none in the others. What concerns no bucket takes the role in any, but an order to the
//! whole node takes it in all.

use std::cell::RefCell;
use std::net::SocketAddr;

use driftless_proto::client::{AaeCommand, DrainCommand, Request, Response};
use driftless_proto::membership::ClusterCommand;
use driftless_proto::observed::{Observed, ObservedRequest};
use driftless_proto::{BucketId, Grant, Missing, Refusal, Role};

use super::audit::Asker;
use super::node_context::NodeContext;
use super::subject::Subject;

/// The rights of one connection. They follow what is allowed while it is up.
pub(crate) struct Rights {
    subject: Subject,
    who: String,
    address: SocketAddr,
    /// What was allowed when that was looked at last, and its version then.
    held: RefCell<(u64, Grant)>,
}

impl Rights {
    /// Those of the holder of a certificate, who is at this address.
    pub(crate) fn of(shared: &NodeContext, subject: &Subject, address: SocketAddr) -> Rights {
        let (version, allowed) = shared.credentials.allowed();
        let held = RefCell::new((version, allowed.grant(subject)));
        Rights { subject: subject.clone(), who: subject.to_string(), address, held }
    }

    /// Why the request is refused, if it is. Orders are written down.
    pub(crate) fn refusal(&self, shared: &NodeContext, request: &Request) -> Option<Refusal> {
        let (needed, grant) = (needed(request), self.grant(shared));
        let asker = Asker { who: &self.who, address: self.address };
        let Some(missing) = missing(shared, &grant, needed, request.bucket()) else {
            if is_order(request) {
                shared.audit.ordered(shared, asker, request);
            }
            return None;
        };
        shared.metrics.requests_not_allowed.inc();
        shared.audit.not_allowed(shared, asker, request, needed);
        Some(Refusal::NotAllowed { certificate: self.who.clone(), role: grant.role, needed, missing })
    }

    /// An answer without the keys of buckets that are not to be read.
    pub(crate) fn shown(&self, shared: &NodeContext, response: Response) -> Response {
        match response {
            Response::Damaged(mut damaged) => {
                let grant = self.grant(shared);
                if grant.buckets.is_some() {
                    let all = damaged.keys.len() as u64 == damaged.count;
                    let topology = shared.topology();
                    let covers = |bucket| topology.bucket(bucket).is_some_and(|bucket| grant.covers(&bucket.name));
                    damaged.keys.retain(|damaged| covers(damaged.bucket));
                    let shown = damaged.keys.len() as u64;
                    // Of those that are not named nobody knows whose they are: they may be of these buckets.
                    damaged.count = if all { shown } else { damaged.count.max(shown) };
                }
                Response::Damaged(damaged)
            }
            other => other,
        }
    }

    fn grant(&self, shared: &NodeContext) -> Grant {
        let mut held = self.held.borrow_mut();
        if held.0 != shared.credentials.access_version() {
            let (version, allowed) = shared.credentials.allowed();
            *held = (version, allowed.grant(&self.subject));
        }
        held.1.clone()
    }
}

/// In what a grant falls short of a role in a bucket, or on the whole node.
fn missing(shared: &NodeContext, grant: &Grant, needed: Role, bucket: Option<BucketId>) -> Option<Missing> {
    if grant.role < needed {
        return Some(Missing::Role);
    }
    match bucket {
        Some(_) if grant.buckets.is_none() => None,
        Some(bucket) => {
            // That there is no such bucket is said by the machine that looks for it.
            let topology = shared.topology();
            let name = &topology.bucket(bucket)?.name;
            (!grant.covers(name)).then(|| Missing::Bucket(name.to_string()))
        }
        None if needed < Role::Operator || grant.buckets.is_none() => None,
        None => Some(Missing::Buckets),
    }
}

/// Whether it changes anything that is an operator's to change. Who watches which keys are hot asks every second, and gives no order.
fn is_order(request: &Request) -> bool {
    needed(request) == Role::Operator && !matches!(request, Request::Top(_))
}

/// What a request takes.
fn needed(request: &Request) -> Role {
    match request {
        Request::Get(_)
        | Request::GetState(_)
        | Request::Scan(_)
        | Request::Topology
        | Request::Status
        | Request::Hints
        | Request::Damaged
        | Request::Aae(AaeCommand::Status)
        | Request::Drain(DrainCommand::Status)
        | Request::Figures
        | Request::Cluster(
            ClusterCommand::State | ClusterCommand::Plan | ClusterCommand::History | ClusterCommand::Access,
        ) => Role::Reader,
        Request::Put(_) | Request::Delete(_) => Role::Writer,
        Request::Observed(Observed { request, .. }) => match request {
            ObservedRequest::Get(_) => Role::Reader,
            ObservedRequest::Put(_) | ObservedRequest::Delete(_) => Role::Writer,
        },
        // It may show names of keys, of all buckets.
        Request::Top(_)
        | Request::Restore(_)
        | Request::MergeState(_)
        | Request::Aae(AaeCommand::Run { .. } | AaeCommand::Pause | AaeCommand::Resume)
        | Request::Drain(DrainCommand::Begin | DrainCommand::Undo)
        | Request::Cluster(
            ClusterCommand::Stage(_)
            | ClusterCommand::Clear
            | ClusterCommand::Commit { .. }
            | ClusterCommand::Cancel
            | ClusterCommand::Apply(_)
            | ClusterCommand::Recover { .. }
            | ClusterCommand::Found { .. },
        ) => Role::Operator,
    }
}

#[cfg(test)]
mod tests {
    use driftless_proto::top::TopCommand;

    use super::*;

    /// Five hundred lines of it in ten seconds left no room for those of orders.
    #[test]
    fn whoever_watches_which_keys_are_hot_gives_no_order() {
        let top = Request::Top(TopCommand { bucket: None, most: 5 });
        assert_eq!((needed(&top), is_order(&top)), (Role::Operator, false));
        for order in [Request::Drain(DrainCommand::Begin), Request::Aae(AaeCommand::Pause)] {
            assert!(is_order(&order), "{order:?}");
        }
        assert!(!is_order(&Request::Status));
    }
}
