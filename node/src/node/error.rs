//! Why a node did not start, or ended.

use std::net::SocketAddr;

use crate::admin::ListenError;
use crate::net::tls::TlsError;
use crate::remedy::Remedy;

/// Why a node did not start, or ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NodeError {
    /// The topology does not have this node.
    #[error(
        "node {name:?} is not a member of cluster {cluster:?}; its members are {members}. To have it join them, say where they reach \
         it: `address` in its file"
    )]
    NotAMember {
        /// This node.
        name: String,
        /// The cluster.
        cluster: String,
        /// Its members, by name.
        members: String,
    },
    /// A store per shard, as many as the topology says.
    #[error("the topology gives this node {expected} shards, but {given} stores are open")]
    Shards {
        /// By the topology.
        expected: usize,
        /// Stores given.
        given: usize,
    },
    /// What it has agreed on with others cannot be used.
    #[error("what was written of the members of the cluster cannot be used: {0}")]
    Agreement(String),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A socket cannot be opened.
    #[error(
        "cannot listen on {protocol} {address}: {reason}; is another node running, or another program using the port?"
    )]
    Listen {
        /// UDP or TCP.
        protocol: &'static str,
        /// Address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Metrics and health are for this machine only.
    #[error("the admin address {0} is not a loopback address; {USE_LOOPBACK}")]
    AdminNotLoopback(SocketAddr),
    /// A member's address cannot be reached from where this node listens.
    #[error(
        "member {member} is at {address}, which cannot be reached from {listen}: they are of two families; set `listen` to \
         [::]:{port}, which is for both", port = listen.port()
    )]
    OtherFamily {
        /// Where this node listens.
        listen: SocketAddr,
        /// The member.
        member: String,
        /// Its address.
        address: SocketAddr,
    },
    /// A thread or its runtime cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// The store cannot be trusted any more; nothing was acknowledged since.
    #[error("stopped at once: {0}")]
    Storage(String),
    /// A bug. The node ends rather than go on in part.
    #[error("a thread of the node panicked; this is a bug, please report it with the log")]
    Panicked,
}

const USE_LOOPBACK: &str = "use 127.0.0.1, and set `admin_remote` for the same over TLS with certificates";

impl Remedy for NodeError {
    fn remedy(&self) -> Option<String> {
        match self {
            NodeError::AdminNotLoopback(_) => Some(USE_LOOPBACK.to_owned()),
            NodeError::Tls(error) => error.remedy(),
            NodeError::NotAMember { .. }
            | NodeError::Shards { .. }
            | NodeError::Agreement(_)
            | NodeError::Listen { .. }
            | NodeError::OtherFamily { .. }
            | NodeError::Thread(_)
            | NodeError::Storage(_)
            | NodeError::Panicked => None,
        }
    }
}

impl From<ListenError> for NodeError {
    fn from(error: ListenError) -> NodeError {
        match error {
            ListenError::NotLoopback(address) => NodeError::AdminNotLoopback(address),
            ListenError::Refused { address, reason } => NodeError::Listen { protocol: "TCP", address, reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::check;

    #[test]
    fn what_to_do_is_where_the_message_ends() {
        let address = SocketAddr::from(([192, 0, 2, 1], 7));
        let expired = TlsError::Expired { path: "n1.pem".into(), until: "yesterday".to_owned() };
        for error in [NodeError::AdminNotLoopback(address), NodeError::Tls(expired)] {
            assert!(error.remedy().is_some(), "{error}");
            check(&error);
        }
        check(&NodeError::Panicked);
    }
}
