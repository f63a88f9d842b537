//! What can go wrong with each operation, and whether anything may have happened.
//!
//! ```text
//! PutError, GetError, …     one per operation: what was wrong with the call, or
//!   └─ RequestError         the request did not succeed in time: attempts, and whether an earlier one may have
//!        └─ Cause           why the last attempt did not
//!             └─ ConnectFailure, Refusal, Unknown
//! ```
//! Each answers `outcome()`: [`Outcome::Refused`] means that nothing happened and nothing will,
//! [`Outcome::Unknown`] that it may have. An unknown put can be repeated with its write id; reads change nothing and
//! are never unknown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::key::KeyError;
use driftless_proto::{Failure, Outcome, Refusal, Unknown};

use crate::resolve::ResolveError;

/// Why [`ClientBuilder::connect`](crate::ClientBuilder::connect) gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No seed was named.
    #[error("no seeds; name at least one node with `.seeds([\"host:port\"])`")]
    NoSeeds,
    /// No identity was given.
    #[error("no identity; give one with `.identity(Identity::from_pem_files(ca, cert, key)?)`")]
    NoIdentity,
    /// The I/O thread, its runtime or its TLS configuration could not be set up.
    #[error("cannot set up the client's I/O: {0}")]
    Io(#[source] std::io::Error),
    /// No seed answered. One failure for each.
    #[error("no seed could be used: {}", of_seeds(failures))]
    NoSeedAnswered {
        /// What happened with each seed.
        failures: Vec<(String, RequestError)>,
    },
}

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
    #[error(
        "{address} does not speak this client's protocol version; use a release of the client that fits the cluster's"
    )]
    Protocol {
        /// The address.
        address: String,
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
        /// Who was meant.
        expected: String,
        /// Who answered.
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
    #[error("{node} did not answer within {after:.1?}")]
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
    /// The cluster has no such bucket.
    #[error("there is no bucket {0:?}; `driftless bucket list` shows those that exist")]
    NoSuchBucket(String),
    /// The cluster has no such node.
    #[error("there is no node {0:?}; `driftless status` shows those that exist")]
    NoSuchNode(String),
    /// The number of partitions changed under a scan; it is resumed by itself.
    #[error("the ring was divided anew; start the scan again from its last position")]
    RingDivided,
}

/// A request that did not succeed, after all its attempts.
#[derive(Clone, Debug)]
pub struct RequestError(Box<Failed>);

#[derive(Clone, Debug)]
struct Failed {
    cause: Cause,
    attempts: u32,
    elapsed: Duration,
    outcome: Outcome,
}

/// Why a put did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The key cannot be one. Nothing was sent.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value is longer than [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX). Nothing was sent.
    #[error("the value has {bytes} bytes, the limit is {max}; split it over several keys")]
    ValueTooLarge {
        /// Length of the value.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The request did not succeed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a get did not succeed. Reading changes nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The key cannot be one. Nothing was sent.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The siblings were read, but could not be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The request did not succeed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a delete did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// The key cannot be one. Nothing was sent.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request did not succeed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a scan stopped. What it gave before stands, and it can be resumed where it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The request did not succeed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a question to one node, or for the topology, was not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// The request did not succeed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why an update did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// Reading the key did not succeed.
    #[error(transparent)]
    Get(#[from] GetError),
    /// Writing the new value did not succeed.
    #[error(transparent)]
    Put(#[from] PutError),
    /// Removing the key did not succeed.
    #[error(transparent)]
    Delete(#[from] DeleteError),
}

macro_rules! operation_error {
    ($name:ident, reads: $reads:literal, $outcome:literal) => {
        impl $name {
            #[doc = $outcome]
            pub fn outcome(&self) -> Outcome {
                if $reads { Outcome::Refused } else { self.request().map_or(Outcome::Refused, RequestError::outcome) }
            }

            /// Why the request did not succeed, if the call itself was in order.
            pub fn request(&self) -> Option<&RequestError> {
                match self {
                    $name::Request(error) => Some(error),
                    #[allow(unreachable_patterns, reason = "some operations have no other variant")]
                    _ => None,
                }
            }

            /// The cluster's reason, if it refused the request.
            pub fn refusal(&self) -> Option<&Refusal> {
                self.request().and_then(RequestError::refusal)
            }
        }
    };
}

operation_error!(PutError, reads: false, "Whether the value may have been stored.");
operation_error!(DeleteError, reads: false, "Whether the key may have been removed.");
operation_error!(GetError, reads: true, "Always [`Outcome::Refused`]: reading changes nothing.");
operation_error!(ScanError, reads: true, "Always [`Outcome::Refused`]: reading changes nothing.");
operation_error!(StatusError, reads: true, "Always [`Outcome::Refused`]: asking changes nothing.");

impl UpdateError {
    /// Whether the new value may have been stored, or the key removed.
    pub fn outcome(&self) -> Outcome {
        match self {
            UpdateError::Get(error) => error.outcome(),
            UpdateError::Put(error) => error.outcome(),
            UpdateError::Delete(error) => error.outcome(),
        }
    }

    /// Why the request did not succeed, if the call itself was in order.
    pub fn request(&self) -> Option<&RequestError> {
        match self {
            UpdateError::Get(error) => error.request(),
            UpdateError::Put(error) => error.request(),
            UpdateError::Delete(error) => error.request(),
        }
    }

    /// The cluster's reason, if it refused the request.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.request().and_then(RequestError::refusal)
    }
}

impl RequestError {
    pub(crate) fn new(cause: Cause, attempts: u32, elapsed: Duration, outcome: Outcome) -> RequestError {
        RequestError(Box::new(Failed { cause, attempts, elapsed, outcome }))
    }

    /// Before the first attempt: nothing was sent.
    pub(crate) fn unsent(cause: Cause) -> RequestError {
        RequestError::new(cause, 0, Duration::ZERO, Outcome::Refused)
    }

    /// Why the last attempt did not succeed.
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }

    /// The cluster's reason, if it refused the last attempt.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.0.cause {
            Cause::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// From the call to giving up.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// Whether any of the attempts may have taken effect.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed { cause, attempts, elapsed, outcome } = &*self.0;
        write!(f, "{cause}")?;
        if *attempts > 1 {
            write!(f, " (after {attempts} attempts in {elapsed:.1?})")?;
        }
        match (outcome, cause.outcome()) {
            (Outcome::Unknown, Outcome::Refused) => f.write_str(
                "; an earlier attempt may have taken effect: read the key, or repeat with the same write id",
            ),
            (Outcome::Unknown, Outcome::Unknown) => {
                f.write_str("; it may have taken effect: read the key, or repeat with the same write id")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Its text is part of this error's; what comes next is what lies under it.
        std::error::Error::source(&self.0.cause)
    }
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

    pub(crate) fn from_node(node: &str, failure: Failure) -> Cause {
        match failure {
            Failure::Refused(refusal) => Cause::Refused { node: node.to_owned(), refusal },
            Failure::Unknown(unknown) => Cause::Unknown { node: node.to_owned(), unknown },
            _ => Cause::Misunderstood { node: node.to_owned() },
        }
    }
}

impl ConnectFailure {
    /// Whether trying again later is unlikely to help: somebody has to put something right first.
    pub fn is_lasting(&self) -> bool {
        !matches!(
            self,
            ConnectFailure::Unreachable { .. } | ConnectFailure::Ended { .. } | ConnectFailure::Socket { .. }
        )
    }
}

/// The failures of all seeds; where simply nothing answers, that once for all of them.
fn of_seeds(failures: &[(String, RequestError)]) -> String {
    let silent = |(_, error): &&(String, RequestError)| {
        matches!(error.cause(), Cause::NotConnected { failure: ConnectFailure::Unreachable { .. }, .. })
    };
    let (silent, others): (Vec<_>, Vec<_>) = failures.iter().partition(silent);
    let mut said: Vec<String> = others
        .into_iter()
        .map(|(_, error)| match error.cause() {
            // It names the address; so does the cause around it.
            Cause::NotConnected { failure, .. } => failure.to_string(),
            cause => cause.to_string(),
        })
        .collect();
    if !silent.is_empty() {
        let mut seeds: Vec<&str> = silent.into_iter().map(|(seed, _)| seed.as_str()).collect();
        seeds.sort_unstable();
        said.push(format!("nothing answers at {}; does the network let UDP through?", seeds.join(", ")));
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Cause {
        Cause::Refused { node: "ada".into(), refusal: Refusal::Stopping }
    }

    #[test]
    fn a_refusal_after_an_unknown_attempt_is_unknown() {
        let error = PutError::from(RequestError::new(refused(), 2, Duration::from_millis(30), Outcome::Unknown));
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(error.refusal(), Some(&Refusal::Stopping));
        assert_eq!(
            error.to_string(),
            "ada refused: the node is shutting down; try another node (after 2 attempts in 30.0ms); an earlier \
             attempt may have taken effect: read the key, or repeat with the same write id"
        );
    }

    #[test]
    fn what_was_never_sent_is_refused() {
        let timed_out = |sent| Cause::TimedOut { node: "ada".into(), after: Duration::ZERO, sent, heard: false };
        assert_eq!(timed_out(false).outcome(), Outcome::Refused);
        assert_eq!(timed_out(true).outcome(), Outcome::Unknown);
        assert_eq!(PutError::ValueTooLarge { bytes: 9, max: 8 }.outcome(), Outcome::Refused);
    }

    #[test]
    fn seeds_that_do_not_answer_are_told_in_one_sentence() {
        let failed = |seed: &str, failure| {
            let cause = Cause::NotConnected { node: seed.into(), failure };
            (seed.to_owned(), RequestError::unsent(cause))
        };
        let silent =
            |seed: &str| failed(seed, ConnectFailure::Unreachable { address: seed.into(), reason: "no answer".into() });
        let foreign =
            failed("c:1", ConnectFailure::Untrusted { address: "c:1".into(), reason: "UnknownIssuer".into() });
        let error = ConnectError::NoSeedAnswered { failures: vec![silent("b:1"), foreign, silent("a:1")] };
        assert_eq!(
            error.to_string(),
            "no seed could be used: the certificate of c:1 is not trusted: UnknownIssuer; is this the CA of the cluster \
             you mean?; nothing answers at a:1, b:1; does the network let UDP through?"
        );
    }

    #[test]
    fn sources_are_kept() {
        let error = PutError::from(RequestError::new(refused(), 1, Duration::ZERO, Outcome::Refused));
        let refusal = std::error::Error::source(&error).expect("the refusal");
        assert_eq!(refusal.downcast_ref::<Refusal>(), Some(&Refusal::Stopping));
    }
}
