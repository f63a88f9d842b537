//! What the tasks of one shard share. All of them run on one thread, so there is no lock in here.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use driftless_ring::NodeId;

use super::admitted::Admitted;
use super::clients::Room;
use super::inbound::LargeBudget;
use super::inputs::{Input, Inputs};
use super::node_context::NodeContext;
use super::refusal::{CloseCode, CloseReason, News};
use super::reply_routes::ReplyRoutes;
use super::requests::RequestCounts;
use super::signal::{Closing, Signal};
use super::traces::SpanId;
use super::under_way::UnderWay;
use crate::config::Limits;
use crate::configurations::Configurations;
use crate::engine::ClientTag;
use crate::time::Instant;

/// One per shard, behind an `Rc`.
pub(crate) struct ShardContext {
    pub(crate) shared: Arc<NodeContext>,
    pub(crate) shard: u16,
    /// The versions of the cluster that this shard goes by.
    pub(crate) configurations: RefCell<Arc<Configurations>>,
    /// Connections that are kept up: to which node, and which shard of it.
    pub(crate) dialing: RefCell<BTreeSet<(NodeId, u16)>>,
    inbox: RefCell<VecDeque<Input>>,
    /// Wakes the driver.
    pub(crate) wake: Signal,
    pub(crate) reply_routes: RefCell<ReplyRoutes>,
    pub(crate) counts: RequestCounts,
    pub(crate) under_way: Arc<UnderWay>,
    pub(crate) large: Rc<LargeBudget>,
    /// What requests take whose clients have left, and until when they may take to end.
    pub(crate) left_behind: RefCell<HashMap<ClientTag, (Instant, Room)>>,
    /// Parts of traces that have written something in this turn.
    pub(crate) written: RefCell<Vec<SpanId>>,
    /// Connections are to be closed.
    pub(crate) closing: Closing,
    pub(crate) admitted: Admitted,
    /// Of the limits those that tasks ask for; they change while the node runs.
    pub(crate) deadline_max: Cell<Duration>,
    pub(crate) retry_after: Cell<Duration>,
    /// Nobody waits longer for an answer that is under way.
    pub(crate) answer_longest: Cell<Duration>,
    next_connection: Cell<u64>,
}

impl ShardContext {
    pub(crate) fn new(shared: Arc<NodeContext>, shard: u16) -> ShardContext {
        ShardContext {
            shard,
            configurations: RefCell::new(shared.configurations()),
            dialing: RefCell::default(),
            inbox: RefCell::default(),
            wake: Signal::default(),
            reply_routes: RefCell::default(),
            counts: RequestCounts::new(&shared.metrics),
            under_way: shared.shards[usize::from(shard)].under_way.clone(),
            large: Rc::new(LargeBudget::new(shared.net.peer_frames_max(shared.shards.len()))),
            left_behind: RefCell::default(),
            written: RefCell::default(),
            closing: Closing::default(),
            admitted: Admitted::default(),
            deadline_max: Cell::new(shared.limits.deadline_max),
            retry_after: Cell::new(shared.limits.retry_after),
            answer_longest: Cell::new(answer_longest(&shared.limits)),
            next_connection: Cell::new(1),
            shared,
        }
    }

    /// A number that no other connection of this node has; tells the shard in its low bits.
    pub(crate) fn number_connection(&self) -> u64 {
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        number << SHARD_BITS | u64::from(self.shard)
    }

    /// Other limits count from now on.
    pub(crate) fn take_limits(&self, limits: &Limits) {
        self.deadline_max.set(limits.deadline_max);
        self.retry_after.set(limits.retry_after);
        self.answer_longest.set(self.answer_longest.get().max(answer_longest(limits)));
    }

    /// A request was answered whose client is no longer there.
    pub(crate) fn answered_in_vain(&self, tag: ClientTag) {
        self.left_behind.borrow_mut().remove(&tag);
    }

    /// Leaves something for the driver.
    pub(crate) fn push(&self, input: Input) {
        self.inbox.borrow_mut().push_back(input);
        self.wake.set();
    }

    /// Hands over what has arrived; both keep their capacity.
    pub(crate) fn take(&self, inputs: &mut Inputs) {
        inputs.extend(self.inbox.borrow_mut().drain(..));
    }

    pub(crate) fn has_input(&self) -> bool {
        !self.inbox.borrow().is_empty()
    }

    /// Turns a connection away: counts it, says why on both sides, closes.
    pub(crate) fn refuse(&self, connection: &quinn::Connection, who: &str, reason: &CloseReason) {
        reason.close(connection);
        if reason.code == CloseCode::Malformed {
            self.shared.metrics.frames_malformed.inc();
        } else {
            self.shared.metrics.connections_refused.inc();
        }
        self.log_refusal(who, connection.remote_address(), &reason.text);
    }

    /// One line, unless the same was said of the same a moment ago.
    pub(crate) fn log_refusal(&self, who: &str, address: SocketAddr, reason: &str) {
        self.shared.audit.refused(&self.shared, who, address, reason);
        if let Some(News { suppressed }) = self.shared.refusals.news(who, reason, self.shared.clock.instant()) {
            tracing::warn!(node = self.shared.name, who, %address, reason, suppressed, "connection refused");
        }
    }

    /// The same for a connection that had been let in.
    pub(crate) fn log_closing(&self, who: &str, address: SocketAddr, reason: &str) {
        if let Some(News { suppressed }) = self.shared.refusals.news(who, reason, self.shared.clock.instant()) {
            tracing::warn!(node = self.shared.name, who, %address, reason, suppressed, "connection closed");
        }
    }
}

/// For so long somebody may wait for an answer: a client, or a peer for repairs.
fn answer_longest(limits: &Limits) -> Duration {
    limits.deadline_max.max(limits.aae.patience.saturating_add(limits.aae.repair))
}

/// The shard that serves a connection.
pub(crate) fn shard_of(connection: u64) -> u16 {
    (connection & ((1 << SHARD_BITS) - 1)) as u16
}

/// As many as a shard number has.
const SHARD_BITS: u32 = 16;
