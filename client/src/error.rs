//! What can go wrong with each operation, and whether anything may have happened.
//!
//! ```text
//! PutError, GetError, …     one per operation: what was wrong with its arguments, or
//!   └─ RequestError         the request did not succeed in time: attempts, and whether an earlier one may have
//!        └─ Cause           why an attempt did not
//!             └─ ConnectFailure, Refusal, Unknown
//! ```
//! Each answers `outcome()`: [`Outcome::Refused`] means that nothing happened and nothing will,
//! [`Outcome::Unknown`] that it may have. An unknown put can be repeated with its write id; reads change nothing and
//! are never unknown.

mod cause;
mod create;
mod request;
mod update;

use driftless_proto::key::KeyError;
use driftless_proto::{Outcome, Refusal, WriteId};

use crate::answer::{Deleted, Read};
use crate::codec::{DecodeError, EncodeError};
use crate::resolve::ResolveError;

pub use cause::{Cause, ConnectFailure};
pub use create::CreateError;
pub(crate) use request::CAUSES_MAX;
pub use request::RequestError;
pub use update::{TryUpdateError, UpdateError};

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
    /// It was not called on a tokio runtime.
    #[error(
        "connecting needs a tokio runtime with time enabled; make one with `#[tokio::main]`, or `tokio::runtime::Runtime::block_on`"
    )]
    NoRuntime,
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
    /// The value cannot be encoded. Nothing was sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
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
    /// The siblings were read, but one of them is not what the codec of a [`TypedBucket`](crate::TypedBucket) expects.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Nothing was found, but fewer of the key's own replicas could be asked than must answer: others may hold a value. Only
    /// sloppy quorums end so. A caller that can live with an answer that may be wrong takes the read out of this; one
    /// that cannot tries again later.
    #[error(
        "nothing was found, but only {} of the {} answers came from the key's own replicas: the others may hold a value; start the missing nodes",
        read.primaries(), read.needed()
    )]
    NotCertain {
        /// What was found: no value.
        read: Box<Read>,
    },
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
    /// Nothing was found to remove, but fewer of the key's own replicas could be asked than must answer: others may hold a
    /// value, and keep it. Only sloppy quorums end so.
    #[error(
        "nothing was found to delete, but only {primaries} of the {needed} answers came from the key's own replicas: the others may hold a value; start the missing nodes and delete again"
    )]
    NotCertain {
        /// Answers from the key's own replicas.
        primaries: u8,
        /// Answers needed.
        needed: u8,
        /// What was done all the same: what the answers had seen, which is no value, was made sure of.
        deleted: Deleted,
    },
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

/// Why a question or a change of [`Client::cluster`](crate::Client::cluster) did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A node has refused it, or none could be asked. Nothing has changed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A change was sent and not answered: it may have been made.
    #[error("{request}; whether it was done is not known: say it again, it is the same change")]
    NotCertain {
        /// What happened.
        #[source]
        request: RequestError,
    },
}

impl ClusterError {
    pub(crate) fn of(request: RequestError, is_change: bool) -> ClusterError {
        match request.cause().outcome() {
            Outcome::Unknown if is_change => ClusterError::NotCertain { request },
            Outcome::Unknown | Outcome::Refused => ClusterError::Request(request),
        }
    }

    /// Why the request did not succeed.
    pub fn request(&self) -> &RequestError {
        match self {
            ClusterError::Request(request) | ClusterError::NotCertain { request } => request,
        }
    }

    /// The cluster's reason, if it refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.request().refusal()
    }

    /// Whether anything may have changed.
    pub fn outcome(&self) -> Outcome {
        match self {
            ClusterError::Request(_) => Outcome::Refused,
            ClusterError::NotCertain { .. } => Outcome::Unknown,
        }
    }
}

macro_rules! operation_error {
    ($name:ident) => {
        impl $name {
            /// Why the request did not succeed, if its arguments were in order.
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
    ($name:ident, reads: $outcome:literal) => {
        operation_error!($name);

        impl $name {
            #[doc = $outcome]
            pub fn outcome(&self) -> Outcome {
                Outcome::Refused
            }
        }
    };
    ($name:ident, writes: $outcome:literal) => {
        operation_error!($name);

        impl $name {
            #[doc = $outcome]
            pub fn outcome(&self) -> Outcome {
                self.request().map_or(Outcome::Refused, RequestError::outcome)
            }

            /// The id under which repeating it is safe, with the same value and context: the given id, or else a drawn
            /// one. `None` if nothing was sent because its arguments were not in order.
            pub fn write_id(&self) -> Option<WriteId> {
                self.request().and_then(RequestError::write_id)
            }
        }
    };
}

operation_error!(PutError, writes: "Whether the value may have been stored.");
operation_error!(DeleteError, writes: "Whether the key may have been removed.");
operation_error!(GetError, reads: "Always [`Outcome::Refused`]: reading changes nothing.");
operation_error!(ScanError, reads: "Always [`Outcome::Refused`]: reading changes nothing.");
operation_error!(StatusError, reads: "Always [`Outcome::Refused`]: asking changes nothing.");

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
    use std::time::Duration;

    use super::*;

    fn refused() -> Cause {
        Cause::Refused { node: "ada".into(), refusal: Refusal::Stopping }
    }

    #[test]
    fn what_was_never_sent_is_refused() {
        let timed_out = |sent| Cause::TimedOut { node: "ada".into(), after: Duration::ZERO, sent, heard: false };
        assert_eq!(timed_out(false).outcome(), Outcome::Refused);
        assert_eq!(timed_out(true).outcome(), Outcome::Unknown);
        assert_eq!(PutError::ValueTooLarge { bytes: 9, max: 8 }.outcome(), Outcome::Refused);
    }

    #[test]
    fn a_change_that_was_sent_and_not_answered_may_have_been_made() {
        let timed_out = |sent| {
            let cause = Cause::TimedOut { node: "ada".into(), after: Duration::from_secs(10), sent, heard: false };
            RequestError::once(cause, Duration::ZERO)
        };
        let unknown = ClusterError::of(timed_out(true), true);
        assert_eq!(unknown.outcome(), Outcome::Unknown);
        assert!(unknown.to_string().ends_with("say it again, it is the same change"), "{unknown}");
        assert_eq!(ClusterError::of(timed_out(true), false).outcome(), Outcome::Refused, "a question changes nothing");
        assert_eq!(ClusterError::of(timed_out(false), true).outcome(), Outcome::Refused);
        assert_eq!(ClusterError::of(RequestError::once(refused(), Duration::ZERO), true).outcome(), Outcome::Refused);
    }

    #[test]
    fn seeds_that_do_not_answer_are_told_in_one_sentence() {
        let failed = |seed: &str, failure| {
            let cause = Cause::NotConnected { node: seed.into(), failure };
            (seed.to_owned(), RequestError::once(cause, Duration::ZERO))
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
        let error = PutError::from(RequestError::once(refused(), Duration::ZERO));
        let refusal = std::error::Error::source(&error).expect("the refusal");
        assert_eq!(refusal.downcast_ref::<Refusal>(), Some(&Refusal::Stopping));
    }
}
