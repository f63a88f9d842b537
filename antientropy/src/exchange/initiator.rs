//! The side that asks, and that finds the differences.
//!
//! ```text
//! Comparing ── nodes that differ, one step down a message ──▶ Comparing
//!     │ no node is left to look into
//! Confirming ── a second passes ──▶ Listing ── the leaves as they are now; keys of those that still differ ──▶ Listing
//!                                      │ a thousand differences, or no leaf is left
//!                                   Repairing ── own repairs and the peer's are done ──▶ Listing, or the end
//! ```
//! At most one request is under way, so an answer belongs to it or is ignored. Every node is looked into at most once,
//! and every leaf is listed from its first token to its last, so an exchange ends whatever the peer answers.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

use driftless_ring::{PartitionId, Token, TokenRange};

use super::{Local, Micros, Settings, descendants, differing, pop};
use crate::leaf::{self, Bits, LeafMap, Unreadable};
use crate::message::{
    Answer, Ask, Compared, DIFFER_MAX, ExchangeId, FORMAT, LEAVES_MAX, Leaf, List, Listing, Nodes, Refused, Reply,
    Request, Start,
};
use crate::wire::{Fingerprint, Rising};
use crate::{Layers, Tree};

/// One exchange, on the side that asks. Its owner keeps it until it says `Ended`, and may drop it at any time.
#[derive(Debug)]
pub struct Initiator {
    exchange: ExchangeId,
    partition: PartitionId,
    map: LeafMap,
    bits: Bits,
    settings: Settings,
    state: State,
    /// The tree as it was at the start; dropped once the leaves are known.
    layers: Option<Layers>,
    /// Nodes that differ, by layer, and have not been looked into.
    nodes: BTreeMap<u8, Vec<u32>>,
    /// Leaves that differ, in order, and have not been listed to their end.
    leaves: VecDeque<u32>,
    /// Of the first of `leaves`: what has been listed.
    after: Option<Token>,
    differences: VecDeque<Difference>,
    deadline: Micros,
    end_of_life: Micros,
    step: u32,
    report: Report,
    outputs: VecDeque<InitiatorOutput>,
}

/// What the initiator's owner has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InitiatorOutput {
    /// Send to the responder.
    Send(Request),
    /// These keys differ, in the order of tokens, at most [`Settings::keys_max`] at a time. Send what is held of those
    /// that are not [`Holder::Peer`] only to the responder, as Merge, and then call [`Initiator::resume`]; the
    /// responder does the same with those that it holds.
    Repair(Vec<Difference>),
    /// Drop this machine.
    Ended(Report),
}

/// A token at which the two sides hold different things.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Difference {
    /// The token of the key, or keys.
    pub token: Token,
    /// Who holds something there.
    pub holder: Holder,
}

/// Which sides hold something at a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Holder {
    /// Only this one.
    Me,
    /// Only the other one.
    Peer,
    /// Both, but not the same.
    Both,
}

/// What came of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes sent to the responder.
    pub bytes_sent: u64,
    /// Bytes received from it.
    pub bytes_received: u64,
    /// Requests that were answered.
    pub round_trips: u32,
    /// Leaves that differed when the trees were compared.
    pub leaves: u32,
    /// Keys compared one by one.
    pub keys_compared: u64,
    /// Keys found to differ.
    pub keys_differing: u64,
}

/// How an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything that differed at the start, and still did when it was looked at again, has been found and repaired.
    Complete,
    /// An answer, or a repair, did not come in time.
    TimedOut,
    /// The responder does not go on.
    Refused(Refused),
    /// This side has no tree any more.
    Rebuilding,
    /// This side cannot read its records.
    Unreadable,
    /// The responder answered what no responder answers.
    Misbehaved,
}

#[derive(Debug)]
enum State {
    /// Waits for the answer to a `Start` or `Compare`; of these nodes.
    Comparing(Asked),
    /// Lets pass what is in flight.
    Confirming,
    /// Waits for the answer to a `List` of so many leaves.
    Listing(usize),
    /// Waits for repairs.
    Repairing { mine: bool, theirs: bool },
    /// Nothing is waited for.
    Ended,
}

/// The nodes of a `Start` or `Compare`, without their fingerprints.
#[derive(Debug)]
struct Asked {
    parents: Vec<u32>,
    node_layer: u8,
    down: u8,
}

impl Initiator {
    /// Begins to compare a partition with a peer that holds it. `exchange` is random and new; `peer_bits` is the size of
    /// the peer's tree, as it said in the round. The first output is there at once. `None` without a tree. *O(2^k)*.
    pub fn start(
        now: Micros,
        settings: Settings,
        exchange: ExchangeId,
        partition: PartitionId,
        peer_bits: Bits,
        local: Local<'_>,
    ) -> Option<Initiator> {
        let tree = local.tree?;
        assert_eq!(tree.map().arc(), partition.arc, "the tree of another partition");
        let mut initiator = Initiator {
            exchange,
            partition,
            map: tree.map(),
            bits: peer_bits.min(tree.bits()),
            settings,
            state: State::Ended,
            layers: None,
            nodes: BTreeMap::new(),
            leaves: VecDeque::new(),
            after: None,
            differences: VecDeque::new(),
            deadline: now,
            end_of_life: settings.lifetime.after(now),
            step: 0,
            report: Report::default(),
            outputs: VecDeque::new(),
        };
        initiator.begin(now, tree);
        Some(initiator)
    }

    /// The responder answers. Answers to other exchanges and to earlier requests are ignored. *O(2^k)* at most; reads at
    /// most about twice `entries_max` tokens, and no more once that is enough.
    pub fn handle_reply(&mut self, now: Micros, local: Local<'_>, reply: Reply) {
        if reply.exchange != self.exchange || reply.step != self.step || !self.waits_for_answer() {
            return;
        }
        self.report.bytes_received += reply.encoded_len() as u64;
        self.report.round_trips += 1;
        match (std::mem::replace(&mut self.state, State::Ended), reply.answer) {
            (State::Comparing(asked), Answer::Compared(compared)) => self.take_compared(now, &asked, &compared),
            (State::Listing(asked), Answer::Listed(listing)) => self.take_listing(now, local, asked, &listing),
            (State::Repairing { mine, .. }, Answer::Noted) => {
                self.state = State::Repairing { mine, theirs: true };
                self.go_on_if_repaired(now, local);
            }
            (State::Comparing(_), Answer::Refused(Refused::Coarser(bits))) if bits < self.bits => {
                let Some(tree) = local.tree else {
                    return self.end(Outcome::Rebuilding);
                };
                self.bits = bits.min(tree.bits());
                self.nodes.clear();
                self.leaves.clear();
                self.begin(now, tree);
            }
            (_, Answer::Refused(reason)) => self.end(Outcome::Refused(reason)),
            _ => self.end(Outcome::Misbehaved),
        }
    }

    /// The owner has done what the last `Repair` asked for, or given up on it.
    pub fn resume(&mut self, now: Micros, local: Local<'_>) {
        if let State::Repairing { mine, .. } = &mut self.state {
            *mine = true;
            self.go_on_if_repaired(now, local);
        }
    }

    /// Its owner will not go on; the answer is what tells the responder, which else keeps the exchange until its patience ends.
    /// `None` if it was over already.
    pub fn give_up(&mut self) -> Option<Request> {
        if matches!(self.state, State::Ended) {
            return None;
        }
        self.state = State::Ended;
        self.step += 1;
        Some(Request { exchange: self.exchange, step: self.step, ask: Ask::Over })
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Micros, local: Local<'_>) {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.state {
            State::Confirming if now < self.end_of_life => self.ask_next(now, local),
            _ => self.end(Outcome::TimedOut),
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<InitiatorOutput> {
        pop(&mut self.outputs)
    }

    /// When to call [`Initiator::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Micros> {
        (!matches!(self.state, State::Ended)).then_some(self.deadline.min(self.end_of_life))
    }

    /// Which exchange.
    pub fn exchange(&self) -> ExchangeId {
        self.exchange
    }

    /// Which partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// What has come of it so far.
    pub fn report(&self) -> Report {
        self.report
    }

    fn waits_for_answer(&self) -> bool {
        match self.state {
            State::Comparing(_) | State::Listing(_) => true,
            State::Repairing { theirs, .. } => !theirs,
            State::Confirming | State::Ended => false,
        }
    }

    /// Compares from the root on.
    fn begin(&mut self, now: Micros, tree: &Tree) {
        let Some(layers) = tree.layers(self.bits) else {
            return self.end(Outcome::Rebuilding);
        };
        let (nodes, _) = descendants(&layers, self.exchange, 0, &[0]);
        self.layers = Some(layers);
        let asked = Asked::of(&nodes);
        let start = Start {
            format: FORMAT,
            partition: self.partition,
            partitions: self.map.partitions(),
            bits: self.bits,
            nodes,
        };
        self.ask(now, self.settings.patience, Ask::Start(start), State::Comparing(asked));
    }

    fn take_compared(&mut self, now: Micros, asked: &Asked, compared: &Compared) {
        let layers = self.layers.take().expect("kept until no node is left to compare");
        let rest: Vec<u32> =
            compared.rest.as_slice().iter().map(|&node| u32::try_from(node).unwrap_or(u32::MAX)).collect();
        let mut found = vec![(asked.node_layer, rest)];
        if let Some(deeper) = &compared.deeper {
            let fits = deeper.layer() == asked.node_layer && deeper.node_layer() <= self.bits.get();
            if !fits || !asked.names(deeper.parents()) {
                return self.end(Outcome::Misbehaved);
            }
            // A node in both lists would be looked into twice.
            if deeper.parents().any(|parent| found[0].1.binary_search(&parent).is_ok()) {
                return self.end(Outcome::Misbehaved);
            }
            found.push((deeper.node_layer(), differing(&layers, self.exchange, deeper)));
        }
        if !asked.names(found[0].1.iter().copied()) {
            return self.end(Outcome::Misbehaved);
        }
        for (layer, nodes) in found {
            if layer == self.bits.get() {
                self.leaves.extend(nodes);
            } else if !nodes.is_empty() {
                self.nodes.entry(layer).or_default().extend(nodes);
            }
        }
        self.layers = Some(layers);
        self.compare_next(now);
    }

    /// Looks into the deepest nodes first: what is waiting stays small.
    fn compare_next(&mut self, now: Micros) {
        let layers = self.layers.as_ref().expect("kept until no node is left to compare");
        let Some(mut deepest) = self.nodes.last_entry() else {
            return self.confirm(now);
        };
        let layer = *deepest.key();
        deepest.get_mut().sort_unstable();
        let (nodes, taken) = descendants(layers, self.exchange, layer, deepest.get());
        deepest.get_mut().drain(..taken);
        if deepest.get().is_empty() {
            deepest.remove();
        }
        let asked = Asked::of(&nodes);
        self.ask(now, self.settings.patience, Ask::Compare(nodes), State::Comparing(asked));
    }

    fn confirm(&mut self, now: Micros) {
        self.layers = None;
        self.leaves.make_contiguous().sort_unstable();
        self.report.leaves = self.leaves.len() as u32;
        if self.leaves.is_empty() {
            return self.finish();
        }
        self.state = State::Confirming;
        self.deadline = self.settings.confirm.after(now);
    }

    /// Repairs if there is enough to repair, else lists on.
    fn ask_next(&mut self, now: Micros, local: Local<'_>) {
        let keys_max = self.settings.keys_max.clamp(1, DIFFER_MAX);
        let enough = self.differences.len() >= keys_max || self.leaves.is_empty();
        match (enough, self.differences.is_empty()) {
            (true, true) => self.finish(),
            (true, false) => self.repair(now, keys_max),
            (false, _) => self.list(now, local),
        }
    }

    /// Asks for the keys of the next leaves, all that one answer is likely to hold.
    fn list(&mut self, now: Micros, local: Local<'_>) {
        let Some(tree) = local.tree else {
            return self.end(Outcome::Rebuilding);
        };
        let keys_per_leaf = (tree.sum().count >> self.bits.get()).max(1);
        let wanted = (self.settings.entries_max() as u64 / keys_per_leaf).clamp(1, LEAVES_MAX as u64) as usize;
        let mut asked = Vec::with_capacity(wanted.min(self.leaves.len()));
        for &leaf in self.leaves.iter().take(wanted) {
            let Some(digest) = tree.leaf(leaf, self.bits) else {
                return self.end(Outcome::Rebuilding);
            };
            asked.push((leaf, Fingerprint::of(self.exchange, digest)));
        }
        let leaves = asked.len();
        let list = List::new(asked, self.after);
        self.ask(now, self.settings.patience, Ask::List(list), State::Listing(leaves));
    }

    fn take_listing(&mut self, now: Micros, local: Local<'_>, asked: usize, listing: &Listing) {
        match self.compare_listing(local, asked, listing) {
            Ok(true) => self.ask_next(now, local),
            Ok(false) => self.end(Outcome::Misbehaved),
            Err(Unreadable) => self.end(Outcome::Unreadable),
        }
    }

    /// Compares the keys of the leaves asked for with this side's, as far as the listing goes. The answer is whether it
    /// is one that can be.
    fn compare_listing(&mut self, local: Local<'_>, asked: usize, listing: &Listing) -> Result<bool, Unreadable> {
        let entries_max = self.settings.entries_max();
        let (mut theirs, mut read, mut advanced) = (listing.leaves().iter().peekable(), 0, false);
        for _ in 0..asked {
            let Some(&index) = self.leaves.front() else { break };
            let leaf = self.map.tokens_of(index, self.bits);
            let mut tokens = leaf;
            if let Some(after) = self.after {
                tokens.first = Token(after.0 + 1);
            }
            let listed = theirs.next_if(|leaf| leaf.index() == index);
            let enough = read >= entries_max || (advanced && local.records.is_enough());
            if listing.through < tokens.first || (enough && listed.is_some()) {
                break;
            }
            tokens.last = tokens.last.min(listing.through);
            // Who cannot list a leaf to its end in one answer lists a part of it: the next answer goes on behind that.
            if tokens.last != leaf.last && listed.is_none_or(|leaf| leaf.entries().next().is_none()) {
                return Ok(false);
            }
            if let Some(listed) = listed {
                // Twice the peer's bound: where it has a full message, this side may have a few more.
                let through = self.compare_leaf(local, tokens, listed, 2 * entries_max, &mut read)?;
                let Some(through) = through else { return Ok(false) };
                tokens.last = through;
            }
            if tokens.last < leaf.last {
                self.after = Some(tokens.last);
                return Ok(true);
            }
            self.after = None;
            self.leaves.pop_front();
            advanced = true;
        }
        Ok(advanced)
    }

    /// Compares one leaf; the answer is how far. `None` if the peer lists what is not in the leaf.
    fn compare_leaf(
        &mut self,
        local: Local<'_>,
        tokens: TokenRange,
        theirs: &Leaf,
        limit: usize,
        read: &mut usize,
    ) -> Result<Option<Token>, Unreadable> {
        if !theirs.entries().all(|(token, _)| tokens.contains(token)) {
            return Ok(None);
        }
        let mine = leaf::list(local.records, tokens, limit)?;
        *read += mine.entries.len();
        let print = |&(token, digest): &(Token, _)| (token, Fingerprint::of(self.exchange, digest));
        let mine_printed = mine.entries.iter().map(print).peekable();
        let theirs = theirs.entries().take_while(|(token, _)| *token <= mine.through).peekable();
        let before = self.differences.len();
        self.report.keys_compared += compare_entries(mine_printed, theirs, &mut self.differences);
        self.report.keys_differing += (self.differences.len() - before) as u64;
        Ok(Some(mine.through))
    }

    fn repair(&mut self, now: Micros, keys_max: usize) {
        let count = self.differences.len().min(keys_max);
        let differences: Vec<Difference> = self.differences.drain(..count).collect();
        let theirs: Vec<u64> =
            differences.iter().filter(|key| key.holder != Holder::Me).map(|key| key.token.0).collect();
        self.outputs.push_back(InitiatorOutput::Repair(differences));
        let state = |theirs| State::Repairing { mine: false, theirs };
        if theirs.is_empty() {
            self.state = state(true);
            self.deadline = self.settings.repair.after(now);
        } else {
            self.ask(now, self.settings.repair, Ask::Differ(Rising::new(theirs)), state(false));
        }
    }

    fn go_on_if_repaired(&mut self, now: Micros, local: Local<'_>) {
        if let State::Repairing { mine: true, theirs: true } = self.state {
            self.ask_next(now, local);
        }
    }

    fn ask(&mut self, now: Micros, patience: Micros, ask: Ask, state: State) {
        self.deadline = patience.after(now);
        self.state = state;
        self.send(ask);
    }

    fn send(&mut self, ask: Ask) {
        self.step += 1;
        let request = Request { exchange: self.exchange, step: self.step, ask };
        self.report.bytes_sent += request.encoded_len() as u64;
        self.outputs.push_back(InitiatorOutput::Send(request));
    }

    fn finish(&mut self) {
        self.send(Ask::Done);
        self.end(Outcome::Complete);
    }

    fn end(&mut self, outcome: Outcome) {
        // Else the responder would keep room for it until its own patience ends.
        if !matches!(outcome, Outcome::Complete | Outcome::Refused(_)) {
            self.send(Ask::Over);
        }
        self.report.outcome = outcome;
        self.state = State::Ended;
        self.layers = None;
        self.outputs.push_back(InitiatorOutput::Ended(self.report));
    }
}

impl Asked {
    fn of(nodes: &Nodes) -> Asked {
        Asked { parents: nodes.parents().collect(), node_layer: nodes.node_layer(), down: nodes.down() }
    }

    /// Whether these nodes were among those asked about.
    fn names(&self, mut nodes: impl Iterator<Item = u32>) -> bool {
        nodes.all(|node| self.parents.binary_search(&(node >> self.down)).is_ok())
    }
}

impl Default for Report {
    /// Of an exchange that has just begun.
    fn default() -> Report {
        Report {
            outcome: Outcome::TimedOut,
            bytes_sent: 0,
            bytes_received: 0,
            round_trips: 0,
            leaves: 0,
            keys_compared: 0,
            keys_differing: 0,
        }
    }
}

/// Two lists in the order of tokens; the answer is how many different tokens they have.
fn compare_entries(
    mut mine: Peekable<impl Iterator<Item = (Token, Fingerprint)>>,
    mut theirs: Peekable<impl Iterator<Item = (Token, Fingerprint)>>,
    differences: &mut VecDeque<Difference>,
) -> u64 {
    let mut compared = 0;
    loop {
        let token = match (mine.peek(), theirs.peek()) {
            (None, None) => return compared,
            (Some(only), None) | (None, Some(only)) => only.0,
            (Some(here), Some(there)) => here.0.min(there.0),
        };
        compared += 1;
        let here = mine.next_if(|entry| entry.0 == token);
        let there = theirs.next_if(|entry| entry.0 == token);
        let holder = match (here, there) {
            (Some(here), Some(there)) if here == there => continue,
            (Some(_), Some(_)) => Holder::Both,
            (Some(_), None) => Holder::Me,
            (None, _) => Holder::Peer,
        };
        differences.push_back(Difference { token, holder });
    }
}
