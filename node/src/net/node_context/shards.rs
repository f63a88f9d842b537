//! How threads reach the shards of a node, and what they tell them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use driftless_proto::ContextKeys;
use driftless_proto::client::{Request, Response};
use driftless_ring::NodeId;
use tokio::sync::mpsc::UnboundedSender;

use super::super::findings::Finding;
use super::super::inbound::Taken;
use super::super::top::Gathering;
use super::super::under_way::UnderWay;
use super::{NodeContext, whole_seconds};
use crate::config::Limits;
use crate::configurations::Configurations;
use crate::engine::{AaeCommand, ClientTag};
use crate::peer::Message;
use crate::replica::store::BatchSeq;
use crate::time::Instant;

/// How other threads reach a shard.
pub(crate) struct ShardHandle {
    messages: UnboundedSender<ShardMessage>,
    /// Requests and messages handed over and not yet taken in.
    waiting: AtomicUsize,
    /// When its driver last turned.
    pub(crate) beat: AtomicU64,
    pub(crate) under_way: Arc<UnderWay>,
}

impl ShardHandle {
    pub(super) fn new(messages: UnboundedSender<ShardMessage>) -> ShardHandle {
        ShardHandle { messages, waiting: AtomicUsize::new(0), beat: AtomicU64::new(0), under_way: Arc::default() }
    }
}

/// What other threads tell a shard.
pub(crate) enum ShardMessage {
    /// A sync covers everything up to this batch.
    Synced(BatchSeq),
    /// Something that was not in memory has been fetched.
    Fetched,
    /// A client's request that arrived at another shard.
    Client { account: u64, tag: ClientTag, arrived: Instant, deadline: Instant, request: Request },
    /// A peer's message that arrived at another shard, on this connection of it.
    Peer {
        from: NodeId,
        shard: u16,
        connection: u64,
        message: Message,
        /// When this node had it.
        arrived: Instant,
        taken: Option<Taken>,
    },
    /// The answer to a request that this shard handed over.
    Reply { to: ClientTag, response: Response },
    /// The answer to a peer's request that this shard handed over.
    PeerReply { connection: u64, message: Message },
    /// The operator tells anti-entropy something.
    Aae(AaeCommand),
    /// A datagram of the detector that arrived at another shard.
    Datagram { from: NodeId, bytes: Bytes },
    /// A datagram of the detector to send, from a shard without a connection to that node.
    SendDatagram { to: NodeId, bytes: Bytes },
    /// What the detector and the clocks have found.
    Found(Finding),
    /// The versions of the cluster that count from now on.
    Configurations(Arc<Configurations>),
    /// A shard has come further with them.
    Progress,
    /// A peer runs on a newer version.
    Behind(NodeId),
    /// A message of the machine of the members to send, from a shard without a connection to that node.
    SendLetter { to: NodeId, message: Message },
    /// Ask every peer what it measures.
    AskForFigures,
    /// Say which keys are hot.
    Top(Arc<Gathering>),
    /// Certificates, authorities or what is allowed have changed.
    Credentials,
    /// Seal and open context tokens with these from now on.
    ContextKeys(ContextKeys),
    /// Go by these limits from now on.
    Limits(Arc<Limits>),
    /// Finish what is under way and end.
    Stop,
    /// End at once.
    Halt,
}

impl NodeContext {
    /// Tells a shard; nothing happens if it has ended.
    pub(crate) fn tell(&self, shard: u16, message: ShardMessage) {
        if let Some(handle) = self.shards.get(usize::from(shard)) {
            // It fails only if the shard has ended: then nobody is left to care.
            let _ = handle.messages.send(message);
        }
    }

    /// Hands work over to another shard, unless it has too much waiting already. Whether it was.
    pub(crate) fn hand_over(&self, shard: u16, message: ShardMessage) -> bool {
        let Some(handle) = self.shards.get(usize::from(shard)) else {
            return false;
        };
        if handle.waiting.fetch_add(1, Ordering::Relaxed) >= self.net.handed_over_max {
            handle.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        handle.messages.send(message).is_ok()
    }

    /// To be called for every message that [`NodeContext::hand_over`] delivered.
    pub(crate) fn taken_in(&self, shard: u16) {
        if let Some(handle) = self.shards.get(usize::from(shard)) {
            handle.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A sync covers a shard's batches up to this one.
    pub(crate) fn synced(&self, shard: u16, batch: BatchSeq) {
        self.tell(shard, ShardMessage::Synced(batch));
    }

    /// Tells anti-entropy on all shards something.
    pub(crate) fn tell_aae(&self, command: AaeCommand) {
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Aae(command));
        }
    }

    /// Tells all shards that certificates, authorities or what is allowed have changed.
    pub(crate) fn tell_credentials(&self) {
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Credentials);
        }
    }

    /// Tells all shards of other context keys.
    pub(crate) fn tell_context_keys(&self, keys: &ContextKeys) {
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::ContextKeys(keys.clone()));
        }
    }

    /// Tells all shards of other limits.
    pub(crate) fn tell_limits(&self, limits: &Limits) {
        let limits = Arc::new(limits.clone());
        self.metrics.aae_interval.set(whole_seconds(limits.aae.interval));
        for shard in 0..self.shards.len() {
            self.tell(shard as u16, ShardMessage::Limits(limits.clone()));
        }
    }
}
