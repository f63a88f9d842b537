//! Connections to other nodes: who is on the other side, what goes out, what comes in.
//!
//! ```text
//! dialer                                acceptor          the node with the smaller id dials, and who is no member yet
//!   │── one bidirectional stream, Hello ──▶│
//!   │◀──────────────────────────── Hello ──│              each closes if the other's does not fit
//!   │◀═══════════ messages ═══════════════▶│
//! ```
//! A node that is a member of no version that counts here is a *candidate*: only what it says of members is listened to. It comes to be
//! a member, and a member to be none, while its connections last.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::client;
use driftless_proto::frame::{self, FRAME_PEER_MAX};
use driftless_proto::membership::StoreId;
use driftless_proto::{ProtocolVersion, ProtocolVersions, Refusal, greeting};
use driftless_ring::{Member, NodeId};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;

use super::figures::FIGURES_TIMEOUT;
use super::findings::DETECTING_SHARD;
use super::hello::{self, Admitted};
use super::inbound::{LargeFrames, Room, SharedStream, Take, Taken, large_frames};
use super::inputs::Input;
use super::node_context::ShardMessage;
use super::outbound::{FrameLoad, NotPushed, Outbound};
use super::refusal::{CloseCode, CloseReason, News, STOPPING};
use super::reply_routes::Origin;
use super::shard_context::ShardContext;
use super::traces::{self, Asked};
use crate::engine::ASK_AGAIN_SOON;
use crate::peer::{Body, Hello, Incarnation, Message, Reply, Request, RequestId, WireMessage};
use crate::route::{self, MEMBERSHIP_SHARD};
use crate::time::Instant;

/// The connections of one shard to other nodes.
#[derive(Default)]
pub(crate) struct Links {
    by_node: BTreeMap<NodeId, Vec<Rc<Link>>>,
}

/// One connection to another node.
pub(crate) struct Link {
    number: u64,
    node: NodeId,
    name: String,
    shard: u16,
    incarnation: Incarnation,
    store: StoreId,
    /// What the two sides go by.
    version: ProtocolVersion,
    /// This node has opened it.
    is_dialed: bool,
    /// The other is a member of a version that counts.
    is_member: Cell<bool>,
    /// The other node has more shards than this one, so that replies must go back on the connection they are for.
    one_of_several: Cell<bool>,
    connection: Connection,
    outbound: Outbound,
    /// When a message arrived last; the detector looks at it now and then.
    heard: RefCell<Arc<AtomicU64>>,
}

/// How a conversation with a peer ended.
pub(crate) enum Ended {
    /// This side turned the other away.
    Refused(CloseReason),
    /// The connection ended before the other side had been admitted.
    Never(ConnectionError),
    /// It was up, and was lost.
    Lost,
    /// There was another between the two already.
    Spare,
}

impl Links {
    /// Sends to a node, by the connection that reaches the right shard of it if there is one. Without a connection the
    /// message is dropped: the engine has been told.
    pub(crate) fn send(&self, context: &ShardContext, now: Instant, to: NodeId, message: Message) {
        if let Body::Reply(reply) = &message.body {
            context.shared.traces.replied(to, message.id, reply, now);
        }
        let route = match &message.body {
            Body::Reply(Reply::Coming { .. }) => context.reply_routes.borrow().find(to, message.id),
            Body::Reply(_) => context.reply_routes.borrow_mut().take(to, message.id),
            Body::Request { .. } => None,
        };
        if let Some(origin) = route {
            if origin.shard == context.shard {
                self.send_on(context, now, origin.connection, message);
            } else {
                context.shared.tell(origin.shard, ShardMessage::PeerReply { connection: origin.connection, message });
            }
            return;
        }
        let Some(links) = self.by_node.get(&to) else { return };
        let link = match (links.as_slice(), &message.body) {
            ([], _) => return,
            ([only], _) => only,
            ([first, ..], Body::Request { request, .. }) => {
                let shard = route::of_peer(&context.configurations.borrow(), to, request);
                links.iter().find(|link| Some(link.shard) == shard).unwrap_or(first)
            }
            ([first, ..], Body::Reply(_)) => first,
        };
        link.send(context, now, message);
    }

    /// Asks every member what it measures. Of one that is not connected, or speaks an older version, nothing is known.
    pub(crate) fn ask_for_figures(&self, context: &ShardContext, now: Instant) {
        let ring_version = context.configurations.borrow().version();
        let links = self.by_node.values().filter_map(|links| links.first());
        for link in links.filter(|link| link.is_member.get() && link.version >= greeting::FIGURES) {
            let request = Request::Forward(client::Request::Figures);
            let body = Body::Request { deadline: now + FIGURES_TIMEOUT, request };
            link.send(context, now, Message { id: FIGURES_ID, ring_version, body });
        }
    }

    /// Whether there is a connection to a node.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.by_node.get(&node).is_some_and(|links| !links.is_empty())
    }

    /// Whether there is a connection to this shard of a node.
    pub(crate) fn has_to(&self, node: NodeId, shard: u16) -> bool {
        self.by_node.get(&node).is_some_and(|links| links.iter().any(|link| link.shard == shard))
    }

    /// Holds all connections against other versions of the cluster: who is now a member, and who is none any more. Connections to
    /// stores that were declared lost are closed.
    pub(crate) fn judge(&self, context: &ShardContext) -> Judged {
        let configurations = context.configurations.borrow().clone();
        let mut judged = Judged::default();
        for link in self.by_node.values().flatten() {
            if configurations.is_lost_store(link.node, link.store) {
                CloseReason::new(CloseCode::Lost, "its store was declared lost").close(&link.connection);
            }
            let (was, is) = (link.is_member.get(), configurations.member(link.node).is_some());
            link.look(context);
            match (was, is) {
                (false, true) => {
                    context.shared.peer_connections(link.node, 1);
                    judged.members.insert(link.node);
                }
                (true, false) => {
                    judged.strangers.insert(link.node);
                }
                _ => {}
            }
        }
        judged
    }

    /// Sends on one connection, if it is still there.
    pub(crate) fn send_on(&self, context: &ShardContext, now: Instant, connection: u64, message: Message) {
        if let Some(link) = self.by_node.values().flatten().find(|link| link.number == connection) {
            link.send(context, now, message);
        }
    }

    /// Sends a datagram on any connection to a node. Whether there is one; what QUIC has no room for is lost.
    pub(crate) fn send_datagram(&self, to: NodeId, bytes: Bytes) -> bool {
        let link = self.by_node.get(&to).and_then(|links| links.first());
        if let Some(link) = link {
            let _ = link.connection.send_datagram(bytes);
        }
        link.is_some()
    }

    /// Closes connections to lives that are over or contested; notes the others' round trips.
    pub(crate) fn inspect(&self, context: &ShardContext) {
        for link in self.by_node.values().flatten() {
            if !context.shared.incarnations.is_current(link.node, link.incarnation) {
                let text = "another process runs as this node";
                CloseReason::new(CloseCode::Incarnation, text).close(&link.connection);
            } else if let Some(mut peer) = context.shared.peers.get_mut(&link.node) {
                peer.rtt = link.connection.rtt();
            }
        }
    }
}

/// Nodes with connections of which another thing is to be thought.
#[derive(Default)]
pub(crate) struct Judged {
    /// They were none.
    pub(crate) members: BTreeSet<NodeId>,
    /// They were members.
    pub(crate) strangers: BTreeSet<NodeId>,
}

impl Link {
    /// Takes up what the versions that count say of the other node.
    fn look(&self, context: &ShardContext) {
        let configurations = context.configurations.borrow();
        let member = configurations.member(self.node);
        self.is_member.set(member.is_some());
        self.one_of_several.set(member.is_some_and(|member| usize::from(member.shards) > context.shared.shards.len()));
        if let Some(peer) = context.shared.peers.get(&self.node) {
            *self.heard.borrow_mut() = peer.heard.clone();
        }
    }

    /// Sends, if no more waits to be sent than may. A request that is not sent is refused in the peer's place: the machine
    /// that made it need not wait to find out, and silence would speak against the peer. An answer that is not sent is lost.
    fn send(&self, context: &ShardContext, now: Instant, message: Message) {
        let message = self.trace_asked(context, now, message).in_version(self.version);
        let load = FrameLoad {
            values: message.large_values(),
            frame_max: FRAME_PEER_MAX,
            until: match &message.body {
                Body::Request { deadline, .. } => Some(*deadline),
                Body::Reply(_) => None,
            },
        };
        // Nobody waits for an answer to a letter.
        let is_asked = |request: &Request| !matches!(request, Request::Membership(_));
        let is_request = matches!(&message.body, Body::Request { request, .. } if is_asked(request));
        let id = message.id;
        let pushed = self.outbound.push_within(&message.to_wire(now), &load, context.shared.peer_outbound_max());
        let error = match pushed {
            Ok(()) => return,
            Err(NotPushed::Full) => None,
            Err(NotPushed::Frame(error)) => Some(error),
        };
        let reason = if error.is_some() { "message too long" } else { "outbound full" };
        if let Some(News { suppressed }) = context.shared.refusals.news(&self.name, reason, now) {
            let (peer, bytes) = (&self.name, self.outbound.bytes());
            match error {
                Some(error) => {
                    tracing::error!(peer, %error, suppressed, "a message does not fit into a frame and is not sent");
                }
                None => tracing::warn!(peer, bytes, suppressed, "peer does not keep up: messages to it are not sent"),
            }
        }
        if is_request {
            context.push(Input::Unsent { to: self.node, id });
        }
    }

    /// Notes what is asked for the sake of a trace.
    fn trace_asked(&self, context: &ShardContext, now: Instant, mut message: Message) -> Message {
        let Body::Request { request, .. } = &mut message.body else { return message };
        let Some((_, what, trace)) = traces::of_peer(request) else { return message };
        let (part, traces) = (trace.parent(), &context.shared.traces);
        if traces.asked(part, (self.node, &self.name), message.id, what, now) {
            context.written.borrow_mut().push(part);
        }
        message
    }

    /// Begins to record what a peer asks for the sake of a trace, and notes what it answers.
    fn trace_taken(&self, context: &ShardContext, now: Instant, message: &mut Message) {
        let shared = &context.shared;
        match &mut message.body {
            Body::Request { deadline, request } => {
                let asked = Asked { now, deadline: *deadline, longest: context.deadline_max.get() };
                shared.traces.taken((self.node, &self.name), message.id, request, asked);
            }
            Body::Reply(reply) => shared.traces.heard((self.node, &self.name), message.id, reply, now),
        }
    }

    /// Takes in one frame.
    fn take(&self, context: &ShardContext, body: &[u8], taken: Option<Taken>) -> Result<(), CloseReason> {
        // What had arrived before it was closed, as for a certificate that is denied, is not carried out.
        if self.connection.close_reason().is_some() {
            return Ok(());
        }
        let wire: WireMessage = frame::decode(body)?;
        let shared = &context.shared;
        let now = shared.clock.instant();
        self.heard.borrow().store(now.0, Ordering::Relaxed);
        let message = Message::from_wire(wire, now);
        if !self.is_member.get() && !is_letter(&message) {
            self.refuse_stranger(context, now, &message);
            return Ok(());
        }
        let Message { id, ring_version, body: said } = message;
        let mut message = match said {
            // No shard is needed for these, and a node that coordinates nothing new is looked at all the same.
            Body::Request { request: Request::Forward(client::Request::Figures), .. } => {
                let figures = client::Response::Figures(Box::new(shared.figures()));
                let ring_version = context.configurations.borrow().version();
                let body = Body::Reply(Reply::Forwarded(figures));
                self.send(context, now, Message { id, ring_version, body });
                return Ok(());
            }
            Body::Reply(Reply::Forwarded(client::Response::Figures(figures))) => {
                shared.heard.take(self.node, now, figures, body.len());
                return Ok(());
            }
            said => Message { id, ring_version, body: said },
        };
        if let Body::Request { request: Request::Forward(_), .. } = &message.body
            && shared.coordinates_nothing_new()
        {
            let body = Body::Reply(Reply::Refused(Refusal::Stopping));
            let ring_version = context.configurations.borrow().version();
            self.send(context, now, Message { id: message.id, ring_version, body });
            return Ok(());
        }
        self.trace_taken(context, now, &mut message);
        if let Body::Request { request, .. } = &message.body {
            let elsewhere = match shared.shards.len() {
                1 => None,
                _ => route::of_peer(&context.configurations.borrow(), shared.node, request)
                    .filter(|shard| *shard != context.shard),
            };
            if let Some(shard) = elsewhere {
                let id = message.id;
                let is_asked = matches!(message.body, Body::Request { .. }) && !is_letter(&message);
                let handed_over = ShardMessage::Peer {
                    from: self.node,
                    shard: context.shard,
                    connection: self.number,
                    message,
                    arrived: now,
                    taken,
                };
                // Beyond the bound the peer is to ask again; what it only says is lost, as on a lossy network.
                if !shared.hand_over(shard, handed_over) && is_asked {
                    let reply = Reply::Refused(ASK_AGAIN_SOON);
                    shared.traces.replied(self.node, id, &reply, now);
                    let ring_version = context.configurations.borrow().version();
                    self.send(context, now, Message { id, ring_version, body: Body::Reply(reply) });
                }
                return Ok(());
            }
            if self.one_of_several.get() && !is_letter(&message) {
                let origin = Origin { shard: context.shard, connection: self.number };
                context.reply_routes.borrow_mut().put(self.node, message.id, origin);
            }
        }
        context.push(Input::Peer { from: self.node, message, arrived: now, taken });
        Ok(())
    }

    /// A node that is no member says something that only a member has to say; or it is one, and this node does not know yet.
    fn refuse_stranger(&self, context: &ShardContext, now: Instant, message: &Message) {
        let (theirs, ours) = (message.ring_version, context.configurations.borrow().version());
        if theirs > ours {
            context.shared.tell(MEMBERSHIP_SHARD, ShardMessage::Behind(self.node));
        }
        if let Body::Request { .. } = message.body {
            context.shared.metrics.candidates_refused.inc();
            // The record that makes it a member is on its way here.
            let refusal = if theirs > ours { ASK_AGAIN_SOON } else { Refusal::NotOwner { ring_version: ours } };
            let body = Body::Reply(Reply::Refused(refusal));
            self.send(context, now, Message { id: message.id, ring_version: ours, body });
        }
    }
}

/// Whether it is for the machine of the members.
pub(crate) fn is_letter(message: &Message) -> bool {
    matches!(&message.body, Body::Request { request: Request::Membership(_), .. })
}

/// Accepts the conversation that a dialer opens, which its certificate calls `name`.
pub(crate) async fn accept(
    context: &Rc<ShardContext>,
    links: &RefCell<Links>,
    connection: &Connection,
    name: &str,
) -> Ended {
    let certified = NodeId::of_name(name);
    let streams = tokio::time::timeout(context.shared.net.arrival_timeout, connection.accept_bi()).await;
    let (mut send, receive) = match streams {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return Ended::Never(error),
        Err(_) => return Ended::Refused(CloseReason::new(CloseCode::Hello, "no hello in time")),
    };
    let mut stream = SharedStream::new(receive);
    let ours = ours(context, certified);
    let (version, theirs) = match expect_hello(context, connection, &mut stream, &ours, name).await {
        Ok(greeted) => greeted,
        Err(ended) => return ended,
    };
    if let Err(reason) = admit(context, links, &theirs) {
        // Told of the newer life that is known here, the other side may have a later one to say: it parts by itself then.
        let ours = self::ours(context, certified);
        if ours.knows.is_some_and(|known| known.is_newer_than(theirs.incarnation))
            && say_hello(connection, &mut send, &ours).await.is_ok()
        {
            let _ = tokio::time::timeout(PARTING_TIMEOUT, connection.closed()).await;
        }
        return Ended::Refused(reason);
    }
    if let Err(ended) = say_hello(connection, &mut send, &ours).await {
        return ended;
    }
    let other = Other { hello: theirs, version, name, is_dialed: false };
    converse(context, links, connection, send, stream, other).await
}

/// Opens the conversation, as the dialer of `member`.
pub(crate) async fn open(
    context: &Rc<ShardContext>,
    links: &RefCell<Links>,
    connection: &Connection,
    member: &Member,
) -> Ended {
    let (mut send, receive): (SendStream, RecvStream) = match connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return Ended::Never(error),
    };
    let mut stream = SharedStream::new(receive);
    let ours = ours(context, member.id);
    if let Err(ended) = say_hello(connection, &mut send, &ours).await {
        return ended;
    }
    let (version, theirs) = match expect_hello(context, connection, &mut stream, &ours, &member.name).await {
        Ok(greeted) => greeted,
        Err(ended) => return ended,
    };
    match admit(context, links, &theirs) {
        Ok(()) => {
            let other = Other { hello: theirs, version, name: &member.name, is_dialed: true };
            converse(context, links, connection, send, stream, other).await
        }
        Err(reason) => Ended::Refused(reason),
    }
}

fn ours(context: &ShardContext, other: NodeId) -> Hello {
    let shared = &context.shared;
    let knows = shared.incarnations.newest(other);
    let configurations = context.configurations.borrow();
    hello::our_hello(shared.node, shared.lives.current(), knows, &configurations, context.shard, shared.store)
}

/// Whether the other side is in a life that may be talked to.
fn admit(context: &ShardContext, links: &RefCell<Links>, theirs: &Hello) -> Result<(), CloseReason> {
    let admitted = context.shared.incarnations.admit(theirs.node, theirs.incarnation, context.shared.clock.now().wall);
    if !matches!(admitted, Ok(Admitted::Same)) {
        links.borrow().inspect(context);
    }
    admitted.map(|_| ())
}

async fn say_hello(connection: &Connection, send: &mut SendStream, ours: &Hello) -> Result<(), Ended> {
    let out = greeting::encode(ProtocolVersions::OURS, ours).map_err(|error| Ended::Refused(error.into()))?;
    match send.write_all(&out).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Ended::Never(connection.closed().await)),
    }
}

async fn expect_hello(
    context: &Rc<ShardContext>,
    connection: &Connection,
    stream: &mut SharedStream,
    ours: &Hello,
    name: &str,
) -> Result<(ProtocolVersion, Hello), Ended> {
    let first = tokio::time::timeout(context.shared.net.arrival_timeout, stream.first()).await;
    let body = match first {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => return Err(Ended::Never(connection.closed().await)),
        Ok(Err(reason)) => return Err(Ended::Refused(reason)),
        Err(_) => return Err(Ended::Refused(CloseReason::new(CloseCode::Hello, "no hello in time"))),
    };
    let (version, theirs) = hello::read(&body, &context.shared.name, name).map_err(Ended::Refused)?;
    let checked = hello::check(ours, &theirs, NodeId::of_name(name), &context.configurations.borrow());
    checked.map_err(Ended::Refused)?;
    if version < greeting::DOUBLING && context.configurations.borrow().topology().ring().partitions().is_doubled() {
        let why = format!(
            "the partitions of this cluster have been doubled, and {name} is of a release that cannot read such a ring (protocol {}): update it",
            version.0
        );
        return Err(Ended::Refused(CloseReason::new(CloseCode::ProtocolVersion, why)));
    }
    if version < greeting::AGREED_ACCESS && !context.configurations.borrow().access().is_empty() {
        let why = format!(
            "this cluster agrees on who may do what, and {name} is of a release that cannot read that (protocol {}): update it",
            version.0
        );
        return Err(Ended::Refused(CloseReason::new(CloseCode::ProtocolVersion, why)));
    }
    let wall = context.shared.clock.now().wall;
    context.shared.lives.handle_known(name, ours.incarnation, theirs.knows, wall).map_err(Ended::Refused)?;
    Ok((version, theirs))
}

/// Who is on the other side.
struct Other<'a> {
    hello: Hello,
    version: ProtocolVersion,
    /// As its certificate has it.
    name: &'a str,
    /// This node has opened the connection.
    is_dialed: bool,
}

/// Exchanges messages until the connection is lost.
async fn converse(
    context: &Rc<ShardContext>,
    links: &RefCell<Links>,
    connection: &Connection,
    send: SendStream,
    mut stream: SharedStream,
    other: Other<'_>,
) -> Ended {
    let Other { hello: theirs, version, name, is_dialed } = other;
    let link = Rc::new(Link {
        number: context.number_connection(),
        node: theirs.node,
        name: name.to_owned(),
        shard: theirs.shard,
        incarnation: theirs.incarnation,
        store: theirs.store,
        version,
        is_dialed,
        is_member: Cell::new(false),
        one_of_several: Cell::new(false),
        connection: connection.clone(),
        outbound: Outbound::to_peer(),
        heard: RefCell::default(),
    });
    connection.set_receive_window(VarInt::from_u32(WINDOW));
    connection.set_send_window(u64::from(WINDOW));
    if !link.come_up(context, links) {
        CloseReason::new(CloseCode::Spare, "there is a connection already").close(connection);
        return Ended::Spare;
    }
    // Ends with this function, whatever way that ends.
    let mut writers = JoinSet::new();
    let (shared, large) = (link.clone(), link.clone());
    writers.spawn_local(async move { shared.outbound.write_shared(send).await });
    let clock = context.shared.clock.clone();
    writers.spawn_local(async move { large.outbound.write_alone(&large.connection, &clock).await });
    let take: Rc<Take> = Rc::new({
        let (context, link) = (context.clone(), link.clone());
        move |body, taken| link.take(&context, &body, taken)
    });
    writers.spawn_local(read_datagrams(context.clone(), link.clone()));
    let ended = tokio::select! {
        biased;
        ended = stream.run(&link.outbound, &*take) => ended,
        ended = large_frames(&link.outbound, connection, LARGE_FRAMES, context, take.clone(), Rc::new(|_| ())) => ended,
        _ = connection.closed() => Ok(()),
        () = context.closing.wait() => {
            link.outbound.finish();
            // Bounded by the writers' own timeout for acknowledgements, and by the shard's for all connections.
            while writers.join_next().await.is_some() {}
            CloseReason::new(CloseCode::Stopping, STOPPING).close(connection);
            link.go_down(context, links, STOPPING);
            return Ended::Lost;
        }
    };
    match ended {
        Err(reason) => {
            link.go_down(context, links, &reason.text);
            Ended::Refused(reason)
        }
        Ok(()) => {
            CloseReason::new(CloseCode::Replaced, "the stream has ended").close(connection);
            let reason = connection.close_reason().map_or_else(String::new, |reason| reason.to_string());
            link.go_down(context, links, &reason);
            Ended::Lost
        }
    }
}

impl Link {
    /// Takes the place of an earlier connection to the same shard of the node. Whether it does: if both nodes have opened one, that of
    /// the node with the smaller id stays, as both see it, so that they do not take turns in closing the other's.
    fn come_up(self: &Rc<Link>, context: &ShardContext, links: &RefCell<Links>) -> bool {
        self.look(context);
        let mut links = links.borrow_mut();
        let links = links.by_node.entry(self.node).or_default();
        let stays = |link: &Rc<Link>| {
            (link.shard, link.incarnation) == (self.shard, self.incarnation)
                && link.connection.close_reason().is_none()
                && earlier_stays(context.shared.node, self.node, link.is_dialed, self.is_dialed)
        };
        if links.iter().any(stays) {
            return false;
        }
        if self.is_member.get() {
            context.shared.note_member_address(self.connection.remote_address().ip());
        }
        let superseded = |link: &Rc<Link>| link.shard == self.shard || link.incarnation != self.incarnation;
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(links).into_iter().partition(superseded);
        *links = kept;
        for old in gone {
            CloseReason::new(CloseCode::Replaced, "a newer connection took over").close(&old.connection);
            old.count(context, -1);
            // What was under way on it is lost, whatever else there is.
            context.push(Input::PeerLost(self.node));
        }
        links.push(self.clone());
        self.count(context, 1);
        context.push(Input::PeerUp(self.node, self.version));
        let is_member = self.is_member.get();
        let (node, peer, version) = (&context.shared.name, &self.name, self.version.0);
        tracing::info!(node, peer, shard = self.shard, is_member, version, "peer connected");
        true
    }

    /// Counts it, if it leads to a member.
    fn count(&self, context: &ShardContext, change: isize) {
        if self.is_member.get() {
            context.shared.peer_connections(self.node, change);
        }
    }

    /// Nothing to do if another connection has taken its place already.
    fn go_down(&self, context: &ShardContext, links: &RefCell<Links>, reason: &str) {
        let mut links = links.borrow_mut();
        let Some(links) = links.by_node.get_mut(&self.node) else {
            return;
        };
        let before = links.len();
        links.retain(|link| link.number != self.number);
        if links.len() == before {
            return;
        }
        let last = links.is_empty();
        self.count(context, -1);
        context.push(Input::PeerLost(self.node));
        if !last {
            context.push(Input::PeerUp(self.node, self.version));
        }
        let (node, peer, shard) = (&context.shared.name, &self.name, self.shard);
        if self.left_in_order(reason) {
            tracing::info!(node, peer, shard, reason, "peer left");
        } else {
            tracing::warn!(node, peer, shard, reason, "peer lost");
        }
    }
}

impl Link {
    /// Whether either side is being stopped.
    fn left_in_order(&self, reason: &str) -> bool {
        let code = VarInt::from_u32(CloseCode::Stopping as u32);
        let said = |close: ConnectionError| matches!(close, ConnectionError::ApplicationClosed(close) if close.error_code == code && !close.reason.is_empty());
        reason == STOPPING || self.connection.close_reason().is_some_and(said)
    }
}

/// Which of two connections between the same shards stays: the later one, which may have been made because the earlier is dead; but if
/// each node has opened one, that of the node with the smaller id.
fn earlier_stays(me: NodeId, other: NodeId, earlier_is_dialed: bool, later_is_dialed: bool) -> bool {
    earlier_is_dialed != later_is_dialed && earlier_is_dialed == (me < other)
}

/// Takes in a member's datagrams until the connection ends.
async fn read_datagrams(context: Rc<ShardContext>, link: Rc<Link>) {
    let from = link.node;
    while let Ok(bytes) = link.connection.read_datagram().await {
        // The detector knows members only.
        if !link.is_member.get() {
            continue;
        }
        if context.shard == DETECTING_SHARD {
            context.push(Input::Datagram { from, bytes });
        } else {
            // Beyond the bound it is lost, as on a lossy network.
            context.shared.hand_over(DETECTING_SHARD, ShardMessage::Datagram { from, bytes });
        }
    }
}

/// No machine waits for the answer, so its number says nothing; it is one of those that no machine goes by.
const FIGURES_ID: RequestId = RequestId(3);

/// How long a node that was told of a newer life of itself has to part by itself.
const PARTING_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of one peer's connection that QUIC may hold, unread or not acknowledged.
const WINDOW: u32 = 32 << 20;

/// What peers send on streams of their own: whole states, however long.
const LARGE_FRAMES: LargeFrames = LargeFrames { max: FRAME_PEER_MAX, room: Room::Peer };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_wire_says_how_wide_the_window_of_a_peer_is() {
        let page = include_str!("../../../docs/wire-format.md");
        driftless_testkit::pages::assert_constants(page, "node/src/net/peers.rs", &[("WINDOW", WINDOW.into())]);
    }

    #[test]
    fn of_two_connections_that_cross_both_nodes_keep_the_same_in_whatever_order_they_see_them() {
        let (small, large) = (NodeId(1), NodeId(2));
        // Whether the connection that a node ends up with is the one that it has opened.
        let kept = |me, other, order: [bool; 2]| {
            let [earlier, later] = order;
            if earlier_stays(me, other, earlier, later) { earlier } else { later }
        };
        for order in [[true, false], [false, true]] {
            assert!(kept(small, large, order) && !kept(large, small, order), "{order:?}");
        }
        for is_dialed in [true, false] {
            assert!(!earlier_stays(small, large, is_dialed, is_dialed), "the same node has called again");
        }
    }
}
