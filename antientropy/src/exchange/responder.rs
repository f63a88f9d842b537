//! The side that answers.
//!
//! It keeps the layers of its tree as they were at the start, so that all its answers fit together, and drops them when
//! the leaves are found. Everything after that is answered from what it holds at the moment.

use std::collections::VecDeque;

use driftless_ring::{PartitionId, Token};

use super::{Local, Micros, Settings, descendants, differing, pop};
use crate::leaf::{self, Bits, LeafMap};
use crate::message::{
    Answer, Ask, Compared, DIFFER_MAX, ExchangeId, FORMAT, Leaf, List, Listing, Nodes, Refused, Reply, Request,
};
use crate::wire::{Fingerprint, Rising};
use crate::{Layers, Tree};

/// One exchange, on the side that answers. Its owner keeps it until it says `Ended`. It may drop it at any
/// time, best by [`Responder::give_up`]: an initiator that waits for repairs would else wait for as long as those may take.
#[derive(Debug)]
pub struct Responder {
    exchange: ExchangeId,
    partition: PartitionId,
    map: LeafMap,
    bits: Bits,
    settings: Settings,
    layers: Option<Layers>,
    /// The newest request's.
    step: u32,
    repair: Repair,
    /// `None` once the exchange is over.
    deadline: Option<Micros>,
    outputs: VecDeque<ResponderOutput>,
}

/// What the responder's owner has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResponderOutput {
    /// Send to the initiator.
    Send(Reply),
    /// Send what is held of the keys at these tokens to the initiator, as Merge, and then call
    /// [`Responder::resume`].
    Repair(Vec<Token>),
    /// Drop this machine.
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repair {
    None,
    Running(u32),
    Done(u32),
}

impl Responder {
    /// A request has come for an exchange that is not known here. If it begins one, answers it; its first output is
    /// there at once. That this node owns the partition, has room for another exchange, and looks at the same ring as
    /// the initiator, is for the owner to check before, with [`Request::refuse`] if not. *O(2^k)*.
    ///
    /// # Errors
    /// The refusal to send, if there is nothing to begin.
    pub fn start(now: Micros, settings: Settings, local: Local<'_>, request: Request) -> Result<Responder, Reply> {
        let Ask::Start(start) = &request.ask else {
            return Err(request.refuse(Refused::NoSuchExchange));
        };
        if start.format != FORMAT {
            return Err(request.refuse(Refused::OtherFormat));
        }
        let Some(tree) = local.tree else {
            return Err(request.refuse(Refused::Rebuilding));
        };
        if start.partitions != tree.map().partitions() || start.partition.arc != tree.map().arc() {
            return Err(request.refuse(Refused::NotOwner));
        }
        let Some(layers) = tree.layers(start.bits) else {
            return Err(request.refuse(Refused::Coarser(tree.bits())));
        };
        let mut responder = Responder {
            exchange: request.exchange,
            partition: start.partition,
            map: tree.map(),
            bits: start.bits,
            settings,
            layers: Some(layers),
            step: request.step,
            repair: Repair::None,
            deadline: Some(now),
            outputs: VecDeque::new(),
        };
        responder.handle_request(now, local, request);
        Ok(responder)
    }

    /// The initiator asks. Requests of other exchanges, and those that a later one has overtaken, are ignored.
    /// *O(2^k)* at most; reads at most `entries_max` tokens, and no more once that is enough.
    pub fn handle_request(&mut self, now: Micros, local: Local<'_>, request: Request) {
        if self.deadline.is_none() || request.exchange != self.exchange || request.step < self.step {
            return;
        }
        let again = request.step == self.step;
        self.step = request.step;
        self.deadline = Some(self.settings.patience.after(self.settings.confirm).after(now));
        if let Ask::List(_) = request.ask {
            self.layers = None;
        }
        if self.layers.is_none() {
            // The initiator may be waiting for its own repairs.
            self.wait_for_repairs(now);
        }
        let refused = |reason| Some(Answer::Refused(reason));
        let answer = match &request.ask {
            Ask::Start(start) if start.partition == self.partition && start.bits == self.bits => {
                self.compare(&start.nodes)
            }
            Ask::Compare(nodes) => self.compare(nodes),
            Ask::Start(_) => refused(Refused::Malformed),
            Ask::List(list) => match local.tree {
                Some(tree) => self.list(tree, local, list),
                None => refused(Refused::Rebuilding),
            },
            Ask::Differ(tokens) => self.differ(now, again, tokens),
            Ask::Done | Ask::Over => None,
        };
        let ended = matches!(answer, Some(Answer::Refused(_))) || matches!(request.ask, Ask::Done | Ask::Over);
        self.outputs.extend(answer.map(|answer| self.send(answer)));
        if ended {
            self.end();
        }
    }

    /// The owner has done what the last `Repair` asked for.
    pub fn resume(&mut self, now: Micros) {
        if let Repair::Running(step) = self.repair {
            self.repair = Repair::Done(step);
            // A late answer would carry the step of a request that it does not belong to.
            if step == self.step && self.deadline.is_some() {
                self.wait_for_repairs(now);
                self.outputs.push_back(self.send(Answer::Noted));
            }
        }
    }

    /// The owner could not do all that the last `Repair` asked for, or will not go on: nobody shall think the partition equal now. The
    /// initiator is told why if it waits for an answer, and else when it asks next.
    pub fn give_up(&mut self, why: Refused) {
        if self.repair == Repair::Running(self.step) && self.deadline.is_some() {
            self.outputs.push_back(self.send(Answer::Refused(why)));
        }
        self.end();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Micros) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.end();
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<ResponderOutput> {
        pop(&mut self.outputs)
    }

    /// When to call [`Responder::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.deadline
    }

    /// Which exchange.
    pub fn exchange(&self) -> ExchangeId {
        self.exchange
    }

    /// Which partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    fn compare(&self, nodes: &Nodes) -> Option<Answer> {
        let Some(layers) = &self.layers else {
            return Some(Answer::Refused(Refused::NoSuchExchange));
        };
        let layer = nodes.node_layer();
        if layer > self.bits.get() {
            return Some(Answer::Refused(Refused::Malformed));
        }
        let found = differing(layers, self.exchange, nodes);
        let (deeper, taken) = if found.is_empty() || layer == self.bits.get() {
            (None, 0)
        } else {
            let (deeper, taken) = descendants(layers, self.exchange, layer, &found);
            (Some(deeper), taken)
        };
        let rest = Rising::new(found[taken..].iter().copied().map(u64::from));
        Some(Answer::Compared(Compared { deeper, rest }))
    }

    fn list(&self, tree: &Tree, local: Local<'_>, list: &List) -> Option<Answer> {
        let (mut leaves, mut room, mut after) = (Vec::new(), self.settings.entries_max(), list.after);
        let mut through = self.map.tokens().first;
        for (index, theirs) in list.leaves() {
            let within = index < self.bits.leaves();
            let Some(leaf) = tree.leaf(index, self.bits).filter(|_| within) else {
                return Some(Answer::Refused(if within { Refused::Rebuilding } else { Refused::Malformed }));
            };
            let mut tokens = self.map.tokens_of(index, self.bits);
            if let Some(after) = after.take() {
                if !tokens.contains(after) || after == tokens.last {
                    return Some(Answer::Refused(Refused::Malformed));
                }
                tokens.first = Token(after.0 + 1);
            }
            if Fingerprint::of(self.exchange, leaf) != theirs {
                if room == 0 || (!leaves.is_empty() && local.records.is_enough()) {
                    break;
                }
                let Ok(listed) = leaf::list(local.records, tokens, room) else {
                    return Some(Answer::Refused(Refused::Unreadable));
                };
                room -= listed.entries.len();
                leaves.push(Leaf::new(index, self.exchange, &listed.entries));
                if listed.through != tokens.last {
                    through = listed.through;
                    break;
                }
            }
            through = tokens.last;
        }
        Some(Answer::Listed(Listing::new(leaves, through)))
    }

    fn differ(&mut self, now: Micros, again: bool, tokens: &Rising<DIFFER_MAX>) -> Option<Answer> {
        match self.repair {
            Repair::Done(step) if again && step == self.step => return Some(Answer::Noted),
            Repair::Running(step) if again && step == self.step => return None,
            // Its owner has not finished with the portion before: the initiator is ahead of itself.
            Repair::Running(_) => return Some(Answer::Refused(Refused::Busy)),
            _ => {}
        }
        let tokens: Vec<Token> = tokens.as_slice().iter().copied().map(Token).collect();
        if tokens.iter().any(|token| !self.map.tokens().contains(*token)) {
            return Some(Answer::Refused(Refused::Malformed));
        }
        self.repair = Repair::Running(self.step);
        self.wait_for_repairs(now);
        self.outputs.push_back(ResponderOutput::Repair(tokens));
        None
    }

    fn wait_for_repairs(&mut self, now: Micros) {
        self.deadline = Some(self.settings.repair.after(self.settings.patience).after(now));
    }

    fn send(&self, answer: Answer) -> ResponderOutput {
        ResponderOutput::Send(Reply { exchange: self.exchange, step: self.step, answer })
    }

    fn end(&mut self) {
        self.layers = None;
        self.deadline = None;
        self.outputs.push_back(ResponderOutput::Ended);
    }
}
