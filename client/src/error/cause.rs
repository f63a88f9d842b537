//! Why one attempt of a request did not succeed.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::{Failure, Outcome, Refusal, Unknown};

/// Why there is no connection to a node. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The address is not `host:port`, or the host's name is not known.
    #[error("cannot resolve {address:?}: {source}")]
    Resolve {
        /// The address.
        address: String,
        /// What the resolver says.
        source: Arc<std::io::Error>,
    },
    /// Nothing answered there.
    #[error("{address} cannot be reached: {reason}; is the node running, and does the network let UDP through?")]
    Unreachable {
        /// The address.
        address: String,
        /// What the transport says.
        reason: String,
    },
    /// Its name has several addresses, and none of them can be used.
    #[error("{address} cannot be reached at any of its addresses: {}", of_addresses(failures))]
    EveryAddress {
        /// The address, with the name.
        address: String,
        /// What happened at each, in the order in which they failed.
        failures: Vec<(SocketAddr, ConnectFailure)>,
    },
    /// The node is there and takes no new connections now.
    #[error("{address} takes no new connections now: it has as many under way as it may, or is being stopped")]
    Full {
        /// The address.
        address: String,
    },
    /// The node's certificate was not issued by the CA that this client trusts, or has expired.
    #[error("the certificate of {address} is not trusted: {reason}; is this the CA of the cluster you mean?")]
    Untrusted {
        /// The address.
        address: String,
        /// What the verifier says.
        reason: String,
    },
    /// The node refused this client's certificate.
    #[error(
        "{address} refused this client's certificate: {reason}; was it issued by the CA of this cluster, and is it still valid?"
    )]
    Rejected {
        /// The address.
        address: String,
        /// The alert that the node sent.
        reason: String,
    },
    /// Both sides share no protocol version.
    #[error("{address} and this client share no protocol version: {reason}")]
    Protocol {
        /// The address.
        address: String,
        /// Which versions each of them speaks, as far as that is known, and which one is to be updated.
        reason: String,
    },
    /// The other end has a certificate of the cluster, but not a node's.
    #[error("{address} is not a node of a cluster: its certificate says {found:?}; check the address")]
    NotANode {
        /// The address.
        address: String,
        /// The URI name in its certificate.
        found: String,
    },
    /// Another node than the one meant answers there.
    #[error("{address} is node {found:?}, not {expected:?}; the address in the ring is out of date")]
    WrongNode {
        /// The address.
        address: String,
        /// The node that was meant.
        expected: String,
        /// The node that answered.
        found: String,
    },
    /// The client has no socket to connect with.
    #[error("cannot open a UDP socket: {source}")]
    Socket {
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// There was a connection; it had ended before the request was written.
    #[error("the connection to {address} has ended: {reason}")]
    Ended {
        /// The address.
        address: String,
        /// Why it ended.
        reason: String,
    },
    /// The client was closed.
    #[error("the client was closed")]
    ClientClosed,
    /// The runtime that the client's connections live on has been shut down.
    #[error("the client's I/O runtime is gone")]
    RuntimeGone,
}

/// Why an attempt of a request did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The node refused it.
    #[error("{node} refused: {refusal}")]
    Refused {
        /// The node.
        node: String,
        /// Its reason.
        #[source]
        refusal: Refusal,
    },
    /// The node does not know how it ended.
    #[error("{node}: {unknown}")]
    Unknown {
        /// The node.
        node: String,
        /// What it knows.
        #[source]
        unknown: Unknown,
    },
    /// There is no connection to the node. Nothing was sent.
    #[error("no connection to {node}: {failure}")]
    NotConnected {
        /// The node.
        node: String,
        /// Why not.
        #[source]
        failure: ConnectFailure,
    },
    /// The connection ended while the request was under way.
    #[error("the connection to {node} was lost before it answered: {reason}")]
    ConnectionLost {
        /// The node.
        node: String,
        /// Why it ended.
        reason: String,
    },
    /// No answer within the time of one attempt.
    #[error("{}", timed_out(node, *after, *sent))]
    TimedOut {
        /// The node.
        node: String,
        /// How long was waited.
        after: Duration,
        /// Whether the request was written at all; if not, nothing has happened.
        sent: bool,
        /// Whether the node answered anything else meanwhile. If not, it is probably gone.
        heard: bool,
    },
    /// The answer is not one to this request: the node speaks another dialect.
    #[error("{node} gave an answer that does not fit the request; client and node may be of releases that do not fit")]
    Misunderstood {
        /// The node.
        node: String,
    },
    /// As many requests as allowed are under way, and stayed so until the deadline.
    #[error(
        "{limit} requests are under way, as many as this client allows; send fewer at a time, or raise `in_flight_max`"
    )]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The message is longer than a frame may be.
    #[error("the request is too long: {0}")]
    TooLong(String),
    /// The request was not awaited on a tokio runtime, which keeps its time.
    #[error(
        "nothing was sent: a request has to be awaited on a tokio runtime with time enabled; make one with `#[tokio::main]`, or \
         `tokio::runtime::Runtime::block_on`"
    )]
    NoRuntime,
    /// The time of the request, or of one attempt, was over before anything could be sent.
    #[error("nothing was sent: the time allowed, {allowed:?}, was over before; allow more with `timeout`")]
    OutOfTime {
        /// The shorter one of the request's timeout and an attempt's.
        allowed: Duration,
    },
    /// The client was closed: by [`Client::close`](crate::Client::close), in this or another clone.
    #[error("the client was closed; a closed client sends nothing, connect a new one")]
    ClientClosed,
    /// The runtime that the client's connections live on has been shut down, or its thread has ended.
    #[error(
        "the client's I/O runtime is gone, so it can send nothing; connect a new client, on a runtime that outlives it or with `IoRuntime::Shared`"
    )]
    RuntimeGone,
    /// The cluster has no such bucket, as a node says or the topology that one sent.
    #[error("there is no bucket {0:?}; `driftless bucket list` shows those that exist")]
    NoSuchBucket(String),
    /// The cluster has no such node.
    #[error("there is no node {0:?}; `driftless status` shows those that exist")]
    NoSuchNode(String),
    /// The number of partitions changed under a scan; it is resumed by itself.
    #[error("the ring was divided anew; start the scan again from its last position")]
    RingDivided,
}

impl Cause {
    /// Whether this attempt may have taken effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Cause::Unknown { .. } | Cause::ConnectionLost { .. } | Cause::Misunderstood { .. } => Outcome::Unknown,
            Cause::TimedOut { sent: true, .. } => Outcome::Unknown,
            _ => Outcome::Refused,
        }
    }

    /// The cluster's reason, if it refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Cause::Refused { refusal, .. } => Some(refusal),
            Cause::NoSuchBucket(_) => Some(&Refusal::NoSuchBucket),
            _ => None,
        }
    }

    /// The node that the attempt was made at, if one was: its name, or its address where that is all that is known.
    pub fn node(&self) -> Option<&str> {
        match self {
            Cause::Refused { node, .. }
            | Cause::Unknown { node, .. }
            | Cause::NotConnected { node, .. }
            | Cause::ConnectionLost { node, .. }
            | Cause::TimedOut { node, .. }
            | Cause::Misunderstood { node } => Some(node),
            _ => None,
        }
    }

    /// Whether the node gave no sign of life at all.
    pub fn is_silence(&self) -> bool {
        match self {
            Cause::NotConnected { failure, .. } => !failure.is_lasting(),
            Cause::ConnectionLost { .. } | Cause::TimedOut { heard: false, .. } => true,
            _ => false,
        }
    }

    pub(crate) fn from_node(node: &str, failure: Failure) -> Cause {
        match failure {
            Failure::Refused(refusal) => Cause::Refused { node: node.to_owned(), refusal },
            Failure::Unknown(unknown) => Cause::Unknown { node: node.to_owned(), unknown },
            _ => Cause::Misunderstood { node: node.to_owned() },
        }
    }
}

impl ConnectFailure {
    /// Whether trying again later is unlikely to help: somebody has to put something right first. A name that is not known
    /// may be known later, where nodes come and go with their names; one that is no `host:port` will not.
    pub fn is_lasting(&self) -> bool {
        match self {
            ConnectFailure::Unreachable { .. }
            | ConnectFailure::Full { .. }
            | ConnectFailure::Ended { .. }
            | ConnectFailure::Socket { .. } => false,
            ConnectFailure::Resolve { source, .. } => source.kind() == ErrorKind::InvalidInput,
            ConnectFailure::EveryAddress { failures, .. } => failures.iter().all(|(_, failure)| failure.is_lasting()),
            _ => true,
        }
    }

    /// Whether simply nothing answers there, at none of the addresses.
    pub fn is_unreachable(&self) -> bool {
        match self {
            ConnectFailure::Unreachable { .. } => true,
            ConnectFailure::EveryAddress { failures, .. } => {
                failures.iter().all(|(_, failure)| failure.is_unreachable())
            }
            _ => false,
        }
    }

    /// What happened, without advice that would be repeated for each node or address.
    pub(super) fn in_a_list(&self) -> String {
        match self {
            ConnectFailure::Unreachable { address, reason } => format!("{address}: {reason}"),
            ConnectFailure::EveryAddress { failures, .. } => of_addresses(failures),
            other => other.to_string(),
        }
    }
}

fn of_addresses(failures: &[(SocketAddr, ConnectFailure)]) -> String {
    failures.iter().map(|(_, failure)| failure.in_a_list()).collect::<Vec<_>>().join("; ")
}

fn timed_out(node: &str, after: Duration, sent: bool) -> String {
    match sent {
        true => format!("{node} did not answer within {after:.1?}"),
        false => format!("there was no connection to {node} within {after:.1?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_at_each_address_is_told() {
        let unreachable = |address: &str| {
            let reason = "no answer within 1s".to_owned();
            (address.parse().expect("an address"), ConnectFailure::Unreachable { address: address.to_owned(), reason })
        };
        let untrusted = (
            "10.0.0.1:7400".parse().expect("an address"),
            ConnectFailure::Untrusted { address: "10.0.0.1:7400".to_owned(), reason: "UnknownIssuer".to_owned() },
        );
        let every = |failures| ConnectFailure::EveryAddress { address: "localhost:7400".to_owned(), failures };
        let silent = every(vec![unreachable("[::1]:7400"), unreachable("127.0.0.1:7400")]);
        assert_eq!(
            silent.to_string(),
            "localhost:7400 cannot be reached at any of its addresses: [::1]:7400: no answer within 1s; 127.0.0.1:7400: \
             no answer within 1s"
        );
        assert!(silent.is_unreachable() && !silent.is_lasting());
        let mixed = every(vec![untrusted.clone(), unreachable("[::1]:7400")]);
        assert!(!mixed.is_unreachable() && !mixed.is_lasting());
        assert!(mixed.to_string().contains("the certificate of 10.0.0.1:7400 is not trusted"), "{mixed}");
        assert!(every(vec![untrusted.clone(), untrusted]).is_lasting());
    }

    #[test]
    fn a_name_may_be_known_later_and_what_is_no_address_will_not() {
        let unresolved = |kind: ErrorKind| ConnectFailure::Resolve {
            address: "n1:7400".to_owned(),
            source: Arc::new(std::io::Error::from(kind)),
        };
        assert!(!unresolved(ErrorKind::NotFound).is_lasting());
        assert!(unresolved(ErrorKind::InvalidInput).is_lasting());
    }
}
