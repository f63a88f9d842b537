//! Who is up, by SWIM: one per node, for all its shards.
//!
//! ```text
//!  every probe_period, one member after the other:
//!    Ping ──▶ Ack within probe_rtt, or others are asked to try; nothing by the end of the period: suspected
//!    the rumour goes round with everything that is said; a node that hears it of itself says otherwise
//!    suspected for suspect_to_down: down
//!  Announce ──▶ each node that is suspected, down or was never heard of, until it answers
//! ```
//! The protocol is foca's; what is ours is what surrounds it here:
//! - who is a member is not for SWIM to say: everybody whom this node was given is one, whether they were ever heard of or not, and
//!   nobody else. Others may know of members that this node does not know yet, or know no more: what they say of those is passed over;
//! - **what we are late with ourselves blames nobody**: while this process did not run, time stood still for its
//!   detector (`OwnTime`), and goes on only after what has been waiting could be read;
//! - **a node that speaks is not called dead**: a message from a peer on its connection outweighs a suspicion for a while.
//!   Whether it also *hears* is not judged here but by its answers (`Reachability`);
//! - **a suspected node is told so**, again and again, by every node that suspects it: foca stops to pass on a rumour after
//!   some times, and a rumour that has not reached its subject would stay for ever;
//! - a node called down comes back by itself as a later `Life`, also when each side thought the other gone;
//! - **which life a node is in, only it says**, in datagrams of its own. News of a later one are dropped: a node that was said to
//!   be in a life that it cannot come to would be thought down for ever.

mod life;
mod own_time;
mod swim;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use driftless_proto::Hlc;
use driftless_ring::NodeId;
use foca::{Codec, Header, Identity, Member, Message, PostcardCodec, State};

use self::life::{Generation, Life};
use self::own_time::OwnTime;
use self::swim::{Effects, Swim, Timers};
use super::Liveness;
use crate::metrics::Metrics;
use crate::peer::Incarnation;
use crate::time::{Instant, Now};

/// How soon members are suspected, and called down. All nodes should have the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DetectorSettings {
    /// How often a node probes another. Everybody does, so that a member is probed once in a period on average, however
    /// many there are. Shorter ones cost packets.
    pub probe_period: Duration,
    /// How long a member may take to answer before others are asked to try. Below `probe_period`; above what a busy
    /// node takes for one turn of its loop.
    pub probe_rtt: Duration,
    /// How long a suspected member has to say that it is alive.
    pub suspect_to_down: Duration,
    /// How often members that are suspected, down, or were never heard of, are spoken to.
    pub announce_period: Duration,
    /// For how long a message from a peer outweighs a suspicion. Not above the time in which a death is to be noticed.
    pub heard_for: Duration,
}

impl Default for DetectorSettings {
    fn default() -> DetectorSettings {
        DetectorSettings {
            probe_period: Duration::from_millis(400),
            probe_rtt: Duration::from_millis(200),
            suspect_to_down: Duration::from_secs(3),
            announce_period: Duration::from_millis(500),
            heard_for: Duration::from_secs(1),
        }
    }
}

/// Everything a detector is made from.
pub struct DetectorConfig {
    /// This node.
    pub node: NodeId,
    /// Which life of its store this is.
    pub incarnation: Incarnation,
    /// All members of the cluster; this node may be among them.
    pub members: Vec<NodeId>,
    /// Times.
    pub settings: DetectorSettings,
    /// Whom to probe when, and whom to tell, is drawn from it.
    pub seed: [u8; 32],
    /// What to count.
    pub metrics: Arc<Metrics>,
}

/// What the shell has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send a datagram, if there is a connection; nothing is lost by losing it.
    Send {
        /// Never this node itself.
        to: NodeId,
        /// At most 1,100 bytes.
        bytes: Bytes,
    },
    /// This node has changed its mind.
    Changed {
        /// About whom.
        peer: NodeId,
        /// What it thinks now.
        liveness: Liveness,
    },
}

/// The opinion of one node about all others. Everybody is thought alive at first.
pub struct Detector {
    me: NodeId,
    /// As it began.
    begun: Life,
    settings: DetectorSettings,
    swim: Swim,
    timers: Timers,
    time: OwnTime,
    /// In own time.
    announce_at: Instant,
    peers: BTreeMap<NodeId, Peer>,
    outputs: VecDeque<Output>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Peer {
    /// As SWIM has it.
    life: Life,
    /// The latest life that it has told of itself.
    told: Generation,
    state: Liveness,
    /// How often it has contradicted a suspicion, in this life.
    incarnation: foca::Incarnation,
    /// Until when what it said on its connection outweighs that.
    heard_until: Instant,
    /// As it was reported last.
    reported: Liveness,
}

impl Peer {
    /// A member that nothing was heard of.
    fn unknown(member: NodeId) -> Peer {
        let (life, state) = (Life::unknown(member), Liveness::Alive);
        let (told, heard_until) = (life.generation, Instant::default());
        Peer { life, told, state, incarnation: 0, heard_until, reported: state }
    }
}

impl Detector {
    /// A detector that has just started; announces itself to everybody.
    pub fn new(config: DetectorConfig, now: Instant) -> Detector {
        let DetectorConfig { node: me, incarnation, members, settings, seed, metrics } = config;
        let life = Life::begun(me, incarnation.starts.max(1));
        let peers: BTreeMap<NodeId, Peer> =
            members.into_iter().filter(|member| *member != me).map(|member| (member, Peer::unknown(member))).collect();
        let mut detector = Detector {
            me,
            begun: life,
            swim: swim::new(life, &settings, seed),
            settings,
            timers: Timers::default(),
            time: OwnTime::new(now),
            announce_at: now,
            peers,
            outputs: VecDeque::new(),
            metrics,
        };
        // Known as members at once, so that nodes that are not there are missed.
        let unmet: Vec<_> = detector.peers.values().map(|peer| Member::alive(peer.life)).collect();
        detector.act(now, |swim, effects| swim.apply_many(unmet.into_iter(), false, effects));
        detector.handle_timeout(now);
        // Nobody is missed before there was time for the first connections.
        detector.time.lose(detector.patience_max());
        detector
    }

    /// These are the members from now on. Who is new is thought alive, and spoken to; who is none any more is forgotten.
    pub fn handle_members(&mut self, now: Instant, members: &[NodeId]) {
        let own = self.tell_time(now);
        let gone: Vec<NodeId> = self.peers.keys().copied().filter(|peer| !members.contains(peer)).collect();
        let gone: Vec<Peer> = gone.iter().filter_map(|peer| self.peers.remove(peer)).collect();
        let new: Vec<NodeId> =
            members.iter().copied().filter(|member| *member != self.me && !self.peers.contains_key(member)).collect();
        for member in &new {
            self.peers.insert(*member, Peer::unknown(*member));
        }
        // It is not probed any more. If it comes to be a member again, it will contradict.
        let gone = gone.iter().map(|peer| Member::new(peer.life, peer.incarnation, State::Down));
        let changed: Vec<_> = gone.chain(new.iter().map(|member| Member::alive(Life::unknown(*member)))).collect();
        if changed.is_empty() {
            return;
        }
        self.act(own, |swim, effects| swim.apply_many(changed.into_iter(), false, effects));
        for member in new {
            self.call(own, member);
        }
        self.make_up_mind(now);
    }

    /// There is a connection to this peer: it is spoken to at once, so that it need not wait to be counted on again.
    pub fn handle_connected(&mut self, now: Instant, peer: NodeId) {
        let own = self.tell_time(now);
        self.call(own, peer);
    }

    /// A message from this peer arrived on its connection at `at`, the latest of them if there were more.
    pub fn handle_heard(&mut self, at: Instant, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.heard_until = peer.heard_until.max(at + self.settings.heard_for);
        }
    }

    /// A datagram from this peer.
    pub fn handle_datagram(&mut self, now: Now, from: NodeId, bytes: &[u8]) {
        let Now { instant: now, wall } = now;
        let own = self.tell_time(now);
        let (header, bytes) = match self.read(wall, from, bytes) {
            Ok(read) => read,
            Err(Unread::Nonsense) => return self.count_violation(from, "a datagram that makes no sense"),
            Err(Unread::Implausible) => {
                return self.count_violation(from, "a life of its own that it cannot have come to");
            }
            // As good as lost on the way: who asks for such a probe, or answers to it, will do so again.
            Err(Unread::Untold) => return,
        };
        if header.dst.generation > self.begun.latest_after(wall) {
            return self.count_violation(from, "a life of this node that it cannot have come to");
        }
        if header.dst.generation > self.swim.identity().generation {
            // Somebody remembers a later life of this node, as after the loss of its disk: only a still later one
            // will be believed.
            return self.begin_life_after(own, header.dst);
        }
        let known = self.peers.get(&from).map_or(header.src, |peer| peer.life);
        if header.src.generation < known.generation {
            // It would be called dead for ever, life after life. This tells it how it is remembered.
            return self.call(own, from);
        }
        let before = *self.swim.identity();
        if !self.act(own, |swim, effects| swim.handle_data(&bytes, effects)) {
            self.count_violation(from, "a datagram that SWIM cannot use");
        }
        if *self.swim.identity() != before {
            // Somebody thought this node down. Nobody answers to what the new life says until they know of it.
            self.call_all(own);
        }
        self.make_up_mind(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let own = self.tell_time(now);
        while let Some(timer) = self.timers.take_due(own) {
            // Fails only for a probe that was forgiven.
            self.act(own, |swim, effects| swim.handle_timer(timer, effects));
        }
        if self.announce_at <= own {
            self.announce_at = own + self.settings.announce_period;
            let missing = self.peers.iter().filter(|(_, peer)| peer.state != Liveness::Alive || !peer.life.is_known());
            let missing: Vec<NodeId> = missing.map(|(id, _)| *id).collect();
            for peer in missing {
                self.call(own, peer);
            }
        }
        self.make_up_mind(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Detector::handle_timeout`].
    pub fn poll_timeout(&self) -> Instant {
        let outweighed = self.peers.values().filter(|peer| peer.state != peer.reported).map(|peer| peer.heard_until);
        outweighed.fold(self.time.real(self.next_due()), Instant::min)
    }

    /// What this node thinks of another.
    pub fn liveness(&self, peer: NodeId) -> Option<Liveness> {
        self.peers.get(&peer).map(|peer| peer.reported)
    }

    /// In own time.
    fn next_due(&self) -> Instant {
        self.timers.next_due().map_or(self.announce_at, |due| due.min(self.announce_at))
    }

    /// Reads the own clock. If this process was late by so much that it could miss an answer, the clock stands still
    /// for that time, and for as long again, within bounds, so that connections can come back and what waits can be read.
    fn tell_time(&mut self, now: Instant) -> Instant {
        let late = now.since(self.time.real(self.next_due()));
        if late >= self.settings.probe_period / 2 {
            let patience = late.clamp(self.settings.probe_rtt, self.patience_max());
            self.time.lose(late + patience);
            self.timers.forgive();
        }
        self.time.read(now)
    }

    /// In which connections are made, or made again.
    fn patience_max(&self) -> Duration {
        4 * self.settings.probe_period
    }

    /// Lets foca act. Whether it could.
    fn act(&mut self, own: Instant, act: impl FnOnce(&mut Swim, Effects<'_>) -> Result<(), foca::Error>) -> bool {
        let effects = Effects { me: self.me, now: own, timers: &mut self.timers, outputs: &mut self.outputs };
        act(&mut self.swim, effects).is_ok()
    }

    /// Speaks to a peer, which will answer. A suspected peer is told that it is.
    fn call(&mut self, own: Instant, id: NodeId) {
        let Some(&Peer { life, state, incarnation, .. }) = self.peers.get(&id) else { return };
        if state == Liveness::Suspect {
            let bytes = swim::rumour(*self.swim.identity(), Member::new(life, incarnation, State::Suspect));
            self.outputs.extend(bytes.map(|bytes| Output::Send { to: id, bytes }));
        }
        self.act(own, |swim, effects| swim.announce(life, effects));
    }

    fn call_all(&mut self, own: Instant) {
        let all: Vec<NodeId> = self.peers.keys().copied().collect();
        for peer in all {
            self.call(own, peer);
        }
    }

    fn begin_life_after(&mut self, own: Instant, known: Life) {
        if let Some(next) = known.renew() {
            self.act(own, |swim, effects| swim.change_identity(next, effects));
            self.call_all(own);
        }
    }

    /// Takes over what SWIM thinks, and reports what is new of it.
    fn make_up_mind(&mut self, now: Instant) {
        for member in self.swim.iter_membership_state() {
            if let Some(peer) = self.peers.get_mut(&member.id().node) {
                peer.life = *member.id();
                peer.incarnation = member.incarnation();
                peer.state = match member.state() {
                    State::Alive => Liveness::Alive,
                    State::Suspect => Liveness::Suspect,
                    State::Down => Liveness::Down,
                };
            }
        }
        for (id, peer) in &mut self.peers {
            let liveness = if peer.heard_until > now { Liveness::Alive } else { peer.state };
            if liveness != peer.reported {
                peer.reported = liveness;
                self.outputs.push_back(Output::Changed { peer: *id, liveness });
            }
        }
    }

    /// A datagram that is what it claims to be: its header, and the whole without the news of nodes that are no members here, and of
    /// lives that their nodes have not told of themselves.
    fn read(&mut self, wall: Hlc, from: NodeId, bytes: &[u8]) -> Result<(Header<Life>, Bytes), Unread> {
        let Datagram { header, head, mut news } = self.decode(from, bytes).ok_or(Unread::Nonsense)?;
        if header.src.generation > Generation::latest_of_others(wall) {
            return Err(Unread::Implausible);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.told = peer.told.max(header.src.generation);
        }
        if !named(&header).is_none_or(|life| self.is_told(life)) {
            return Err(Unread::Untold);
        }
        let count = news.len();
        news.retain(|member| self.is_told(member.id()));
        if news.len() == count {
            return Ok((header, Bytes::copy_from_slice(bytes)));
        }
        swim::with_news(head, &news).map(|bytes| (header, bytes)).ok_or(Unread::Nonsense)
    }

    fn decode<'a>(&self, from: NodeId, bytes: &'a [u8]) -> Option<Datagram<'a>> {
        let mut rest = bytes;
        let header: Header<Life> = PostcardCodec.decode_header(&mut rest).ok()?;
        if header.message == Message::Broadcast {
            return None;
        }
        let is_addressed = header.src.node == from && self.peers.contains_key(&from) && header.dst.node == self.me;
        if !is_addressed {
            return None;
        }
        let head = &bytes[..bytes.len() - rest.len()];
        let mut news = Vec::new();
        if rest.has_remaining() {
            for _ in 0..rest.try_get_u16().ok()? {
                news.push(PostcardCodec.decode_member(&mut rest).ok()?);
            }
        }
        (!rest.has_remaining()).then_some(Datagram { header, head, news })
    }

    /// Whether a member has told of this life, or a later one, itself.
    fn is_told(&self, life: &Life) -> bool {
        let told = match self.peers.get(&life.node) {
            Some(peer) => peer.told,
            None if life.node == self.me => self.swim.identity().generation,
            None => return false,
        };
        life.generation <= told
    }

    fn count_violation(&self, from: NodeId, what: &'static str) {
        tracing::debug!(%from, what);
        self.metrics.protocol_violations.inc();
    }
}

/// One from a member to this node.
struct Datagram<'a> {
    header: Header<Life>,
    /// The bytes of that.
    head: &'a [u8],
    /// What it says of members.
    news: Vec<Member<Life>>,
}

/// Why a datagram is not used.
enum Unread {
    Nonsense,
    /// Its sender says that it is in a life of the far future.
    Implausible,
    /// It is about a life that its node has not told of, or about no member.
    Untold,
}

/// Whom else a message is about.
fn named(header: &Header<Life>) -> Option<&Life> {
    match &header.message {
        Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
        Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => Some(origin),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
