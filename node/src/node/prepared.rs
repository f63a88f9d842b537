//! A node between its settings and its threads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use driftless_ring::NodeId;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{mpsc, watch};

use crate::net::agreement::Agreement;
use crate::net::credentials::{Credentials, Shown};
use crate::net::environment::{Environment, OpenSocket};
use crate::net::family;
use crate::net::lives::Lives;
use crate::net::node_context::{NodeContext, ShardMessage};
use crate::net::shard::ShardStart;
use crate::net::tls::ResetKey;
use crate::replica::store::Store;
use crate::route::MEMBERSHIP_SHARD;

use super::{NodeError, NodeSettings, agreed};

/// A node that could start: everything is checked, nothing runs.
pub(super) struct Prepared {
    pub(super) shared: Arc<NodeContext>,
    pub(super) id: NodeId,
    agreement: Agreement,
    reset_key: [u8; 64],
    messages: Vec<UnboundedReceiver<ShardMessage>>,
}

impl Prepared {
    pub(super) fn new(settings: NodeSettings, environment: Environment, stores: usize) -> Result<Prepared, NodeError> {
        let NodeSettings { name, tls, topology, .. } = &settings;
        let (membership, member) = agreed::membership(&settings, (environment.random)())?;
        let configurations = membership.configurations().clone();
        let (id, shards) = (member.id, usize::from(member.shards.max(1)));
        for other in configurations.members().into_iter().filter(|other| other.id != id) {
            if let Ok(address) = other.address.parse::<SocketAddr>()
                && !family::reaches(settings.listen.ip(), address.ip())
            {
                let member = other.name;
                // What was agreed on must not keep the others from starting.
                if configurations.is_agreed() {
                    tracing::warn!(member, %address, listen = %settings.listen, "a member cannot be reached from the address that this node listens on");
                    continue;
                }
                return Err(NodeError::OtherFamily { listen: settings.listen, member, address });
            }
        }
        if stores != shards {
            return Err(NodeError::Shards { expected: shards, given: stores });
        }
        tls.expect_node(topology.cluster(), name)?;
        let credentials =
            Credentials::new(Shown::of(tls)?, settings.security.access.clone(), configurations.access().clone());
        let reset_key = settings.reset_key;
        let (senders, messages): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::unbounded_channel()).unzip();
        let agreement = Agreement::new(membership, settings.agreement.clone());
        let lives = Lives::new(settings.incarnation, settings.lives.clone());
        Ok(Prepared {
            shared: Arc::new(NodeContext::new(settings, id, configurations, lives, environment, credentials, senders)),
            id,
            agreement,
            reset_key,
            messages,
        })
    }

    /// What each shard begins with.
    pub(super) fn shards<S: Store>(
        self,
        sockets: Vec<OpenSocket>,
        stores: Vec<S>,
    ) -> impl Iterator<Item = ShardStart<S>> {
        let Prepared { shared, agreement, reset_key, messages, .. } = self;
        let mut agreement = Some(agreement);
        (0_u16..).zip(sockets.into_iter().zip(messages).zip(stores)).map(move |(shard, ((socket, messages), store))| {
            let agreement = agreement.take_if(|_| shard == MEMBERSHIP_SHARD);
            ShardStart {
                shared: shared.clone(),
                shard,
                socket,
                reset_key: Arc::new(ResetKey::of_shard(&reset_key, shard)),
                store,
                agreement,
                messages,
            }
        })
    }
}

/// Held by what the node cannot go on without: counts its end, and halts the node if that is a panic.
pub(super) struct Guard {
    pub(super) shared: Arc<NodeContext>,
    pub(super) ending: Arc<watch::Sender<usize>>,
}

/// Tells when all shards of a node have ended.
#[derive(Clone)]
pub(super) struct Ended {
    count: watch::Receiver<usize>,
    shards: usize,
}

impl Ended {
    pub(super) fn new(count: watch::Receiver<usize>, shards: usize) -> Ended {
        Ended { count, shards }
    }

    /// Completes when the shards have ended, for whatever reason.
    pub(super) async fn wait(mut self) {
        // An error means that all shards are gone.
        let _ = self.count.wait_for(|ended| *ended >= self.shards).await;
    }
}

impl Guard {
    /// A shard has come to its end.
    pub(super) fn watch(self, shard: u16, ended: io::Result<()>) {
        if let Err(error) = ended {
            self.shared.halt(format!("shard {shard} cannot run: {error}"));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.halt("a thread panicked".to_owned());
        }
        self.ending.send_modify(|ended| *ended += 1);
    }
}
