//! A cluster in the hands of a script: real engines, a network in which the script decides what arrives when, disks that
//! can be set back, and a clock that moves only when it is told to.
//!
//! ```text
//! ask, begin          a client asks a node; `ask` also delivers everything that follows from it
//! hold, arrive, lose  what is under way from one to another
//! cut, mend           the network between nodes
//! stop, start         processes;  backup, restore  their disks
//! wait                time passes at once
//! check               what the scenario claims
//! ```
//! Nothing takes time by itself: syncs are immediate, and so are messages that nobody holds up. What detectors say is not
//! carried; a script says itself who can reach whom. One key, `cart`, with primaries A, B and C.

mod shape;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_node::config::{AaeLimits, Limits};
use driftless_node::engine::ClientTag;
use driftless_node::peer::WireMessage;
use driftless_node::planted::{Bug, Planted};
use driftless_node::store::memory::DiskImage;
use driftless_proto::client::{Delete, Get, Put, Request, Response};
use driftless_proto::{BucketId, Conflict, ContextToken, Failure, Hlc, Siblings, Topology, WriteId};
use driftless_testkit::context_keys;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::sim::node::{Found, Input, Node};
use crate::sim::schedule::Micros;

use super::ask::{Ask, Verb, put};
use super::story::{Change, Check, Fate, Lane, Step, Story};
use super::words::{self, Names, Said};

use shape::key;

/// A client.
pub const ANN: Lane = Lane::Client(0);
/// Another client.
pub const BOB: Lane = Lane::Client(1);
/// The key's first primary.
pub const A: Lane = Lane::Node(0);
/// The key's second primary.
pub const B: Lane = Lane::Node(1);
/// The key's third primary.
pub const C: Lane = Lane::Node(2);
/// A node that does not own the key, in settings of four nodes.
pub const D: Lane = Lane::Node(3);

/// What a scenario starts from.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Three or four nodes; three of them own the key.
    pub nodes: usize,
    /// What the bucket does with concurrent writes.
    pub conflict: Conflict,
    /// Whether replicas compare themselves in the background, each minute.
    pub anti_entropy: bool,
}

impl Setting {
    /// Three nodes, siblings, no anti-entropy.
    pub const PLAIN: Setting = Setting { nodes: 3, conflict: Conflict::Siblings, anti_entropy: false };
}

/// A cluster, and the story of what happens to it.
pub struct World {
    topology: Arc<Topology>,
    limits: Limits,
    planted: Planted,
    rng: StdRng,
    at: Micros,
    nodes: Vec<Node>,
    connected: BTreeSet<(usize, usize)>,
    under_way: VecDeque<Packet>,
    asked: Vec<Asked>,
    answers: BTreeMap<u64, Response>,
    names: Names,
    shown: Shown,
    story: Story,
}

/// A request that was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RequestNo(u64);

/// A request as it was asked.
struct Asked {
    by: Lane,
    request: Request,
    text: String,
}

struct Packet {
    from: Lane,
    to: Lane,
    cargo: Cargo,
    said: Said,
    held: bool,
}

enum Cargo {
    Peer(Box<WireMessage>),
    Answer(u64, Box<Response>),
}

/// How much goes into the story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    All,
    Clients,
    Nothing,
}

impl World {
    /// A cluster that has just started, perhaps with a mistake in its engines.
    pub fn new(setting: Setting, bug: Option<Bug>) -> World {
        let topology = Arc::new(shape::topology(setting));
        let interval = Duration::from_secs(if setting.anti_entropy { 60 } else { 1_000_000_000 });
        let aae = AaeLimits { interval, ..AaeLimits::default() };
        let nodes: Vec<Node> = shape::by_role(&topology).into_iter().map(|id| Node::new(id, (0, 0))).collect();
        let mut world = World {
            names: Names::new(nodes.iter().map(|node| node.id)),
            topology,
            limits: Limits { aae, ..Limits::default() },
            planted: bug.map_or_else(Planted::default, Planted::bug),
            rng: StdRng::seed_from_u64(7),
            at: 1_000_000,
            nodes,
            connected: BTreeSet::new(),
            under_way: VecDeque::new(),
            asked: Vec::new(),
            answers: BTreeMap::new(),
            shown: Shown::Nothing,
            story: Story::default(),
        };
        (0..setting.nodes).for_each(|node| world.launch(node));
        world.connect_all();
        (0..30).for_each(|_| world.pass(Duration::from_secs(1)));
        world.shown = Shown::All;
        world
    }

    /// The story so far is all.
    pub fn finish(self) -> Story {
        self.story
    }

    /// A client asks a node, and everything that follows happens, but for what is held up.
    pub fn ask(&mut self, client: Lane, node: Lane, ask: Ask) -> RequestNo {
        let request = self.begin(client, node, ask);
        self.deliver();
        request
    }

    /// A client asks a node. The messages that follow from it are under way.
    pub fn begin(&mut self, client: Lane, node: Lane, ask: Ask) -> RequestNo {
        let number = self.asked.len() as u64;
        let (request, text) = self.request(number, &ask);
        self.arrow(client, node, text.clone(), Fate::Arrives);
        let from = ClientTag { connection: 0, request: number };
        let deadline = self.nodes[index(node)].clock.now(self.at).instant + CLIENT_PATIENCE;
        self.asked.push(Asked { by: client, request: request.clone(), text });
        self.nodes[index(node)].receive(Input::Client { from, deadline, request });
        self.turn(index(node));
        RequestNo(number)
    }

    /// Everything that is under way arrives, and all that follows from it, but for what is held up.
    pub fn deliver(&mut self) {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.under_way.iter().position(|packet| !packet.held) else { return };
            self.hand_over(next);
        }
        self.check(false, "messages come to an end");
    }

    /// Everything that is under way arrives, and what follows from it, until the answer to this request is on its way:
    /// what its coordinator sends after that can be told from what it waits for.
    pub fn deliver_until_answered(&mut self, request: RequestNo) {
        let is_answer = |packet: &Packet| matches!(packet.cargo, Cargo::Answer(number, _) if number == request.0);
        for _ in 0..STEPS_MAX {
            let next = self.under_way.iter().position(|packet| !packet.held);
            match next.filter(|_| !self.under_way.iter().any(is_answer)) {
                Some(next) => self.hand_over(next),
                None => return,
            }
        }
    }

    /// What is under way from one to another stays so.
    pub fn hold(&mut self, from: Lane, to: Lane) {
        let mut held = Vec::new();
        for packet in self.under_way.iter_mut().filter(|packet| (packet.from, packet.to) == (from, to)) {
            if !std::mem::replace(&mut packet.held, true) {
                held.push(packet.said.clone());
            }
        }
        held.into_iter().for_each(|said| self.tell(from, to, said, Fate::Held));
    }

    /// What was held up from one to another arrives, with all that follows.
    pub fn arrive(&mut self, from: Lane, to: Lane) {
        let is_due = |packet: &Packet| packet.held && (packet.from, packet.to) == (from, to);
        while let Some(next) = self.under_way.iter().position(is_due) {
            self.hand_over(next);
        }
        self.deliver();
    }

    /// What is under way from one to another is lost.
    pub fn lose(&mut self, from: Lane, to: Lane) {
        self.lose_where(|packet| (packet.from, packet.to) == (from, to));
    }

    /// No message goes between these and those any more, and both sides know.
    pub fn cut(&mut self, these: &[Lane], those: &[Lane]) {
        for (this, that) in these.iter().flat_map(|this| those.iter().map(|that| (*this, *that))) {
            self.lose_where(|packet| [(this, that), (that, this)].contains(&(packet.from, packet.to)));
            self.disconnect(index(this), index(that));
        }
        self.deliver();
    }

    /// All that run reach each other again.
    pub fn mend(&mut self) {
        self.connect_all();
        self.deliver();
    }

    /// The process of a node ends without warning; the others notice.
    pub fn stop(&mut self, node: Lane, why: &str) {
        self.lose_where(|packet| packet.from == node || packet.to == node);
        let lost = index(node);
        self.nodes[lost].store.process_death();
        self.nodes[lost].stop();
        self.note_change(node, &format!("{} {why}", node.name()), Change::Ends);
        (0..self.nodes.len()).filter(|other| *other != lost).for_each(|other| self.disconnect(lost, other));
        self.deliver();
    }

    /// It starts again, and the others reach it.
    pub fn start(&mut self, node: Lane, how: &str) {
        self.note_change(node, &format!("{} {how}", node.name()), Change::Begins);
        self.launch(index(node));
        self.mend();
    }

    /// What is on a node's disk now.
    pub fn backup(&self, node: Lane) -> DiskImage {
        self.nodes[index(node)].store.image(false)
    }

    /// The disk of a stopped node is set back.
    pub fn restore(&mut self, node: Lane, image: DiskImage) {
        let node = &mut self.nodes[index(node)];
        node.store.restore(image);
        node.found = Found::Backup;
    }

    /// A node's clock is wrong by so much.
    pub fn set_clock(&mut self, node: Lane, ahead: i64) {
        self.nodes[index(node)].clock.skew_ms = ahead * 1000;
    }

    /// So much time passes, and what was due happens.
    pub fn wait(&mut self, time: Duration, text: &str) {
        self.scene(text);
        self.pass(time);
    }

    /// So much time passes at once, and everything that was due meanwhile happens at its end.
    pub fn pass(&mut self, time: Duration) {
        self.at += time.as_micros() as Micros;
        for _ in 0..STEPS_MAX {
            let is_due = |node: &usize| self.nodes[*node].wakes_at(0).is_some_and(|at| at <= self.at);
            let Some(due) = (0..self.nodes.len()).find(is_due) else { return };
            self.turn(due);
            self.deliver();
        }
        self.check(false, "there is an end to what is due");
    }

    /// Says something to the reader.
    pub fn scene(&mut self, text: &str) {
        self.record(Step::Scene(text.to_owned()));
    }

    /// Shows what a node holds of the key.
    pub fn look(&mut self, node: Lane) {
        let text = format!("{} holds {}", node.name(), self.names.state(&self.held(node)));
        self.note_change(node, &text, Change::Nothing);
    }

    /// Says something of a client or a node.
    pub fn note(&mut self, at: Lane, text: &str) {
        self.note_change(at, text, Change::Nothing);
    }

    /// Does something of which the story tells nothing.
    pub fn quietly<T>(&mut self, act: impl FnOnce(&mut World) -> T) -> T {
        self.showing(Shown::Nothing, act)
    }

    /// Does something of which the story tells only what clients see.
    pub fn for_clients<T>(&mut self, act: impl FnOnce(&mut World) -> T) -> T {
        self.showing(Shown::Clients, act)
    }

    /// Before the story begins, a value is written to all replicas. Answers the write.
    pub fn given(&mut self, value: &'static str) -> RequestNo {
        let write = self.quietly(|world| world.ask(ANN, A, put(value)));
        let text = format!("A, B and C hold {}", self.names.state(&self.held(A)));
        self.scene(&text);
        write
    }

    /// What the scenario claims.
    pub fn check(&mut self, holds: bool, claim: &str) {
        self.story.checks.push(Check { claim: claim.to_owned(), holds });
    }

    /// Whether a read was answered with exactly these values, in whatever order.
    pub fn shows(&self, read: RequestNo, values: &[&str]) -> bool {
        matches!(self.answers.get(&read.0), Some(Response::Read(read)) if words::values(read) == values)
    }

    /// The latest time of what a read was answered with.
    pub fn written_at(&self, read: RequestNo) -> Option<Hlc> {
        match self.answers.get(&read.0)? {
            Response::Read(read) => read.siblings.iter().map(|sibling| sibling.written_at).max(),
            _ => None,
        }
    }

    /// Whether a put was acknowledged.
    pub fn is_stored(&self, put: RequestNo) -> bool {
        matches!(self.answers.get(&put.0), Some(Response::Stored(_) | Response::Deleted(_)))
    }

    /// Whether the answer was that nothing has happened.
    pub fn is_refused(&self, request: RequestNo) -> bool {
        matches!(self.answers.get(&request.0), Some(Response::Failed(Failure::Refused(_))))
    }

    /// Whether the answer was that nobody knows.
    pub fn is_unknown(&self, request: RequestNo) -> bool {
        matches!(self.answers.get(&request.0), Some(Response::Failed(Failure::Unknown(_))))
    }

    /// Whether there is no answer yet.
    pub fn is_waiting(&self, request: RequestNo) -> bool {
        !self.answers.contains_key(&request.0)
    }

    /// Whether the answer carries a context.
    pub fn has_context(&self, request: RequestNo) -> bool {
        self.context(request).is_some()
    }

    /// Concurrent writes that a bucket of last writers has discarded, on all nodes.
    pub fn discarded(&self) -> u64 {
        self.nodes.iter().map(|node| node.metrics.lww_discarded.get()).sum()
    }

    /// Whether these nodes hold the same of the key.
    pub fn agree(&self, nodes: &[Lane]) -> bool {
        nodes.windows(2).all(|pair| self.held(pair[0]) == self.held(pair[1]))
    }

    /// How many live writes a node holds, tombstones included.
    pub fn live(&self, node: Lane) -> usize {
        self.held(node).live().len()
    }

    fn showing<T>(&mut self, shown: Shown, act: impl FnOnce(&mut World) -> T) -> T {
        let before = std::mem::replace(&mut self.shown, shown);
        let result = act(self);
        self.shown = before;
        result
    }

    fn request(&self, number: u64, ask: &Ask) -> (Request, String) {
        let (bucket, key) = (BucketId::DEFAULT, key());
        let (write_id, w, sloppy) = (WriteId(u128::from(number) + 1), ask.w, ask.sloppy());
        let context = ask.seen.and_then(|seen| self.context(seen));
        let mut text = match &ask.verb {
            Verb::Put(value) => format!("put {value}"),
            Verb::Get => "get".to_owned(),
            Verb::Delete => "delete".to_owned(),
            Verb::Retry(request) => {
                let Asked { request, text, .. } = &self.asked[request.0 as usize];
                let text = text.split(',').next().unwrap_or_default();
                return (request.clone(), format!("{text} again, same write id"));
            }
        };
        match &context {
            Some(token) => {
                let context = context_keys().open(bucket, &key, token).expect("it was sealed with these keys");
                text += &format!(", context {}", self.names.vector(&context.vv));
            }
            None if matches!(ask.verb, Verb::Put(_)) => text += ", no context",
            None => {}
        }
        if let Some(w) = w {
            text += &format!(", w = {w}");
        }
        if ask.strict {
            text += ", strict";
        }
        let request = match ask.verb {
            Verb::Put(value) => {
                let value = Bytes::from_static(value.as_bytes());
                Request::Put(Put { bucket, key, value, context, w, sloppy, write_id })
            }
            Verb::Delete => Request::Delete(Delete { bucket, key, context, r: None, w, sloppy, write_id }),
            Verb::Get | Verb::Retry(_) => {
                Request::Get(Get { bucket, key, r: None, sloppy, explain: false, shown: Vec::new() })
            }
        };
        (request, text)
    }

    fn context(&self, request: RequestNo) -> Option<ContextToken> {
        match self.answers.get(&request.0)? {
            Response::Read(read) => read.context.clone(),
            Response::Stored(stored) => stored.context.clone(),
            _ => None,
        }
    }

    /// What a node's process sees of the key.
    fn held(&self, node: Lane) -> Siblings {
        let written = self.nodes[index(node)].store.written();
        written.get(&(BucketId::DEFAULT, key())).map(|held| held.siblings.clone()).unwrap_or_default()
    }

    fn tell(&mut self, from: Lane, to: Lane, said: Said, fate: Fate) {
        match said {
            Said::Words(text) => self.arrow(from, to, text, fate),
            Said::Nothing => {}
            Said::Comparing => {
                let (from, to) = (from.min(to), from.max(to));
                let text = "compare what they hold".to_owned();
                let step = Step::Arrow { from, to, text, fate: Fate::Exchange };
                if self.story.steps.last() != Some(&step) {
                    self.record(step);
                }
            }
        }
    }

    fn arrow(&mut self, from: Lane, to: Lane, text: String, fate: Fate) {
        self.record(Step::Arrow { from, to, text, fate });
    }

    fn note_change(&mut self, at: Lane, text: &str, change: Change) {
        self.record(Step::Note { at, text: text.to_owned(), change });
    }

    fn record(&mut self, step: Step) {
        let is_shown = match (self.shown, &step) {
            (Shown::All, _) => true,
            (Shown::Clients, Step::Arrow { from, to, .. }) => [from, to].iter().any(|at| matches!(at, Lane::Client(_))),
            (Shown::Clients, _) => true,
            (Shown::Nothing, _) => false,
        };
        if is_shown {
            self.story.steps.push(step);
        }
    }
}

fn index(node: Lane) -> usize {
    match node {
        Lane::Node(node) => node,
        Lane::Client(_) => panic!("a client is no node"),
    }
}

/// Longer than anything waits here but for what times out.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// More than any scenario takes: one that takes this many goes in circles.
const STEPS_MAX: usize = 10_000;
