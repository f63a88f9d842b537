//! Connections to other nodes: who is on the other side, what goes out, what comes in.
//!
//! ```text
//! dialer                                acceptor          the node with the smaller id dials
//!   │── one bidirectional stream, Hello ──▶│
//!   │◀──────────────────────────── Hello ──│              each closes if the other's does not fit
//!   │◀═══════════ messages ═══════════════▶│
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::frame::{self, FRAME_PEER_MAX};
use driftless_ring::{Member, NodeId};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;

use super::findings::DETECTING_SHARD;
use super::hello::{self, Admitted};
use super::inbound::{LargeFrames, Room, SharedStream, Take, Taken, large_frames};
use super::inputs::Input;
use super::node_context::ShardMessage;
use super::outbound::{FrameLoad, NotPushed, Outbound};
use super::refusal::{CloseCode, CloseReason, News, STOPPING};
use super::reply_routes::Origin;
use super::shard_context::ShardContext;
use crate::peer::{Body, Hello, Incarnation, Message, WireMessage};
use crate::route;
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
    /// The other node has more shards than this one, so that replies must go back on the connection they are for.
    one_of_several: bool,
    connection: Connection,
    outbound: Outbound,
    /// When a message arrived last; the detector looks at it now and then.
    heard: Arc<AtomicU64>,
}

/// How a conversation with a peer ended.
pub(crate) enum Ended {
    /// This side turned the other away.
    Refused(CloseReason),
    /// The connection ended before the other side had been admitted.
    Never(ConnectionError),
    /// It was up, and was lost.
    Lost,
}

impl Links {
    /// Sends to a node, by the connection that reaches the right shard of it if there is one. Without a connection the
    /// message is dropped: the engine has been told.
    pub(crate) fn send(&self, context: &ShardContext, now: Instant, to: NodeId, message: Message) {
        let route = match message.body {
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
                let shard = route::of_peer(&context.shared.topology, to, request);
                links.iter().find(|link| Some(link.shard) == shard).unwrap_or(first)
            }
            ([first, ..], Body::Reply(_)) => first,
        };
        link.send(context, now, message);
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

impl Link {
    /// Sends, if no more waits to be sent than may. A request that is not sent is refused in the peer's place: the machine
    /// that made it need not wait to find out, and silence would speak against the peer. An answer that is not sent is lost.
    fn send(&self, context: &ShardContext, now: Instant, message: Message) {
        let load = FrameLoad {
            values: message.large_values(),
            frame_max: FRAME_PEER_MAX,
            until: match &message.body {
                Body::Request { deadline, .. } => Some(*deadline),
                Body::Reply(_) => None,
            },
        };
        let (id, is_request) = (message.id, matches!(message.body, Body::Request { .. }));
        let pushed = self.outbound.push_within(&message.to_wire(now), &load, context.shared.peer_outbound_max);
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

    /// Takes in one frame.
    fn take(&self, context: &ShardContext, body: &[u8], taken: Option<Taken>) -> Result<(), CloseReason> {
        // What had arrived before it was closed, as for a certificate that is denied, is not carried out.
        if self.connection.close_reason().is_some() {
            return Ok(());
        }
        let wire: WireMessage = frame::decode(body)?;
        let shared = &context.shared;
        let now = shared.clock.instant();
        self.heard.store(now.0, Ordering::Relaxed);
        let message = Message::from_wire(wire, now);
        if let Body::Request { request, .. } = &message.body {
            let elsewhere = match shared.shards.len() {
                1 => None,
                _ => route::of_peer(&shared.topology, shared.node, request).filter(|shard| *shard != context.shard),
            };
            if let Some(shard) = elsewhere {
                let handed_over = ShardMessage::Peer {
                    from: self.node,
                    shard: context.shard,
                    connection: self.number,
                    message,
                    taken,
                };
                // Beyond the bound it is lost, as on a lossy network.
                shared.hand_over(shard, handed_over);
                return Ok(());
            }
            if self.one_of_several {
                let origin = Origin { shard: context.shard, connection: self.number };
                context.reply_routes.borrow_mut().put(self.node, message.id, origin);
            }
        }
        context.push(Input::Peer { from: self.node, message, taken });
        Ok(())
    }
}

/// Accepts the conversation that a dialer opens; `certified` is whom its certificate names.
pub(crate) async fn accept(
    context: &Rc<ShardContext>,
    links: &RefCell<Links>,
    connection: &Connection,
    certified: NodeId,
) -> Ended {
    let streams = tokio::time::timeout(context.shared.net.arrival_timeout, connection.accept_bi()).await;
    let (mut send, receive) = match streams {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return Ended::Never(error),
        Err(_) => return Ended::Refused(CloseReason::new(CloseCode::Hello, "no hello in time")),
    };
    let mut stream = SharedStream::new(receive);
    let ours = ours(context, certified);
    let theirs = match expect_hello(context, connection, &mut stream, &ours, certified).await {
        Ok(theirs) => theirs,
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
    converse(context, links, connection, send, stream, theirs).await
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
    let theirs = match expect_hello(context, connection, &mut stream, &ours, member.id).await {
        Ok(theirs) => theirs,
        Err(ended) => return ended,
    };
    match admit(context, links, &theirs) {
        Ok(()) => converse(context, links, connection, send, stream, theirs).await,
        Err(reason) => Ended::Refused(reason),
    }
}

fn ours(context: &ShardContext, other: NodeId) -> Hello {
    let shared = &context.shared;
    let knows = shared.incarnations.newest(other);
    hello::our_hello(shared.node, shared.lives.current(), knows, &shared.topology, context.shard)
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
    let mut out = Vec::new();
    frame::encode(ours, &mut out).map_err(|error| Ended::Refused(error.into()))?;
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
    certified: NodeId,
) -> Result<Hello, Ended> {
    let first = tokio::time::timeout(context.shared.net.arrival_timeout, stream.first()).await;
    let body = match first {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => return Err(Ended::Never(connection.closed().await)),
        Ok(Err(reason)) => return Err(Ended::Refused(reason)),
        Err(_) => return Err(Ended::Refused(CloseReason::new(CloseCode::Hello, "no hello in time"))),
    };
    let theirs = hello::read(&body).map_err(Ended::Refused)?;
    hello::check(ours, &theirs, certified, &context.shared.topology).map_err(Ended::Refused)?;
    let name = context.shared.topology.ring().member(theirs.node).map_or("", |member| &member.name);
    let wall = context.shared.clock.now().wall;
    context.shared.lives.handle_known(name, ours.incarnation, theirs.knows, wall).map_err(Ended::Refused)?;
    Ok(theirs)
}

/// Exchanges messages until the connection is lost.
async fn converse(
    context: &Rc<ShardContext>,
    links: &RefCell<Links>,
    connection: &Connection,
    send: SendStream,
    mut stream: SharedStream,
    theirs: Hello,
) -> Ended {
    context.shared.note_member_address(connection.remote_address().ip());
    let member = context.shared.topology.ring().member(theirs.node);
    let link = Rc::new(Link {
        number: context.number_connection(),
        node: theirs.node,
        name: member.map_or_else(String::new, |member| member.name.clone()),
        shard: theirs.shard,
        incarnation: theirs.incarnation,
        one_of_several: member.is_some_and(|member| usize::from(member.shards) > context.shared.shards.len()),
        connection: connection.clone(),
        outbound: Outbound::to_peer(),
        heard: context.shared.peers.get(&theirs.node).map(|peer| peer.heard.clone()).unwrap_or_default(),
    });
    connection.set_receive_window(VarInt::from_u32(WINDOW));
    connection.set_send_window(u64::from(WINDOW));
    link.come_up(context, links);
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
    writers.spawn_local(read_datagrams(context.clone(), connection.clone(), theirs.node));
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
    /// Takes the place of an earlier connection to the same shard of the node.
    fn come_up(self: &Rc<Link>, context: &ShardContext, links: &RefCell<Links>) {
        let mut links = links.borrow_mut();
        let links = links.by_node.entry(self.node).or_default();
        let superseded = |link: &Rc<Link>| link.shard == self.shard || link.incarnation != self.incarnation;
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(links).into_iter().partition(superseded);
        *links = kept;
        for old in gone {
            CloseReason::new(CloseCode::Replaced, "a newer connection took over").close(&old.connection);
            context.shared.peer_connections(self.node, -1);
            // What was under way on it is lost, whatever else there is.
            context.push(Input::PeerLost(self.node));
        }
        links.push(self.clone());
        context.shared.peer_connections(self.node, 1);
        context.push(Input::PeerUp(self.node));
        tracing::info!(node = context.shared.name, peer = self.name, shard = self.shard, "peer connected");
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
        context.shared.peer_connections(self.node, -1);
        context.push(Input::PeerLost(self.node));
        if !last {
            context.push(Input::PeerUp(self.node));
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

/// Takes in a peer's datagrams until the connection ends.
async fn read_datagrams(context: Rc<ShardContext>, connection: Connection, from: NodeId) {
    while let Ok(bytes) = connection.read_datagram().await {
        if context.shard == DETECTING_SHARD {
            context.push(Input::Datagram { from, bytes });
        } else {
            // Beyond the bound it is lost, as on a lossy network.
            context.shared.hand_over(DETECTING_SHARD, ShardMessage::Datagram { from, bytes });
        }
    }
}

/// How long a node that was told of a newer life of itself has to part by itself.
const PARTING_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of one peer's connection that QUIC may hold, unread or not acknowledged.
const WINDOW: u32 = 32 << 20;

/// What peers send on streams of their own: whole states, however long.
const LARGE_FRAMES: LargeFrames = LargeFrames { max: FRAME_PEER_MAX, room: Room::Peer };
