//! What the tasks of one shard share. All of them run on one thread, so there is no lock in here.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use driftless_proto::client::Request;
use driftless_proto::frame::FRAME_SHARED_MAX;
use driftless_ring::NodeId;

use super::clients::Client;
use super::inbound::LargeBudget;
use super::inputs::Inputs;
use super::peers::Links;
use super::refusal::{CloseCode, CloseReason, News};
use super::requests::RequestCounts;
use super::shared::Shared;
use super::signal::{Closing, Signal};
use crate::engine::ClientTag;
use crate::peer::{Message, RequestId};
use crate::time::Instant;

/// One per shard, behind an `Rc`.
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shard: u16,
    inbox: RefCell<VecDeque<Input>>,
    /// Wakes the driver.
    pub(crate) wake: Signal,
    pub(crate) clients: RefCell<HashMap<u64, Rc<Client>>>,
    pub(crate) links: RefCell<Links>,
    pub(crate) counts: RequestCounts,
    pub(crate) large: Rc<LargeBudget>,
    /// Client requests under way on connections of this shard.
    pub(crate) pending: Cell<usize>,
    /// Connections are to be closed.
    pub(crate) closing: Closing,
    next_connection: Cell<u64>,
}

/// What the driver gives to the engine.
pub(crate) enum Input {
    Client {
        tag: ClientTag,
        deadline: Instant,
        request: Request,
    },
    Peer {
        from: NodeId,
        message: Message,
    },
    PeerUp(NodeId),
    PeerLost(NodeId),
    /// A request to a peer was not sent: more waits for it than may.
    Unsent {
        to: NodeId,
        id: RequestId,
    },
    /// Part of the detector's conversation.
    Datagram {
        from: NodeId,
        bytes: Bytes,
    },
}

impl Input {
    /// Whether it came on a stream of its own, for what it carries: so nothing rests on its order among others.
    pub(super) fn is_large(&self) -> bool {
        let bytes = match self {
            Input::Client { request, .. } => request.value_bytes(),
            Input::Peer { message, .. } => message.body.value_bytes(),
            _ => 0,
        };
        bytes > FRAME_SHARED_MAX
    }
}

impl Local {
    pub(crate) fn new(shared: Arc<Shared>, shard: u16) -> Local {
        Local {
            shard,
            inbox: RefCell::default(),
            wake: Signal::default(),
            clients: RefCell::default(),
            links: RefCell::default(),
            counts: RequestCounts::new(&shared.metrics),
            large: Rc::new(LargeBudget::new(shared.net.large_bytes_max)),
            pending: Cell::new(0),
            closing: Closing::default(),
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
        if let Some(News { suppressed }) = self.shared.refusals.news(who, reason, self.shared.clock.instant()) {
            tracing::warn!(node = self.shared.name, who, %address, reason, suppressed, "connection refused");
        }
    }
}

/// The shard that serves a connection.
pub(crate) fn shard_of(connection: u64) -> u16 {
    (connection & ((1 << SHARD_BITS) - 1)) as u16
}

/// As many as a shard number has.
const SHARD_BITS: u32 = 16;
