//! One client: an operation at a time, with attempts, retries under the same write id, and a memory of contexts.

use std::collections::VecDeque;

use driftless_proto::client::Response;
use driftless_proto::{Context, ContextToken, Dot, Failure, Outcome, Refusal};
use rand::Rng;
use rand::rngs::StdRng;

use super::explained;
use super::generator::{Intention, Memory};
use super::history::{Ending, History, Kind, OpId, Seen, Slot};
use super::schedule::Micros;

/// A client and what it is doing.
pub struct Client {
    /// What it has been given.
    pub memory: Memory,
    /// Its own randomness, so that what it asks does not depend on the network's dice.
    pub rng: StdRng,
    /// The operation under way.
    pub current: Option<Current>,
    /// A key that it looks at again and again, strictly, at one node after the other: monotonic reads, if they fail,
    /// fail for somebody who looks often.
    pub watches: Option<Slot>,
    /// What it shall do in the calm phase.
    pub script: VecDeque<Intention>,
}

/// An operation under way.
pub struct Current {
    /// Which.
    pub op: OpId,
    /// What is wanted.
    pub intention: Intention,
    /// The attempt that is waited for.
    pub attempt: u64,
    /// The node it was sent to.
    pub node: usize,
    /// Further attempts allowed.
    pub retries: u32,
    /// Whether an earlier attempt may have happened.
    pub doubt: bool,
    /// What answers to a read that were not the last one have shown.
    pub shown: Vec<(Dot, Option<OpId>)>,
}

/// What follows from an answer, or from none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The operation is over.
    Done(Ending),
    /// The answer was one of several.
    Further,
    /// Try again, at the same node or another.
    Retry {
        /// Whether at the same.
        same_node: bool,
        /// Whether not at once.
        later: bool,
    },
}

impl Client {
    /// A client that has done nothing.
    pub fn new(rng: StdRng) -> Client {
        Client { memory: Memory::default(), rng, current: None, watches: None, script: VecDeque::new() }
    }

    /// Notes an answer to the current attempt, and decides.
    pub fn answered(
        &mut self,
        at: Micros,
        response: &Response,
        history: &mut History,
        open: impl Fn(&ContextToken) -> Context,
    ) -> Next {
        let current = self.current.as_mut().expect("answers without an operation are not looked at");
        let op = current.op;
        let slot = current.intention.slot.clone();
        let mut odd = Vec::new();
        let (response, told) = response.clone().into_plain();
        // To an older client only a get that succeeds is explained.
        let may_lack = current.intention.as_older && matches!(response, Response::Failed(_));
        if told.is_some() != current.intention.explain && !may_lack {
            let (wants, is) = (current.intention.explain, told.is_some());
            odd.push(format!("operation {op} is to be explained: {wants}, and is: {is}"));
        }
        if let Some(told) = told {
            let (r, w) = (history.get(op).r, history.get(op).w);
            let disagrees = explained::oddity(&response, &told, r, w);
            odd.extend(
                disagrees.map(|what| format!("operation {op} is explained otherwise than it is answered: {what}")),
            );
        }
        let ending = match (history.get(op).kind, &response) {
            (Kind::Get, Response::Read(read)) => {
                let inside = read.context.as_ref().map(&open).unwrap_or_default();
                let mut found = Vec::new();
                for sibling in &read.siblings {
                    let is_put = |id: &OpId| {
                        let put = history.get(*id);
                        put.kind == Kind::Put && put.invoked <= at
                    };
                    let id = history.written(&slot, &sibling.value).filter(is_put);
                    if id.is_none() {
                        odd.push(format!("get {op} was shown {:?}, which nobody wrote", sibling.value));
                    }
                    found.push(id);
                }
                if let Some(page) = &read.page {
                    if page.more && read.context.is_some() {
                        odd.push(format!("get {op} was given a context before it had been shown everything"));
                    }
                    current.shown.extend(page.dots.iter().copied().zip(found));
                    if page.more {
                        history.oddities.extend(odd.into_iter().map(|text| (Some(slot.clone()), text)));
                        return Next::Further;
                    }
                    current.shown.retain(|(dot, _)| !page.gone.contains(dot));
                    found = std::mem::take(&mut current.shown).into_iter().map(|(_, id)| id).collect();
                }
                let values: Vec<OpId> = found.into_iter().flatten().collect();
                if read.context.is_none() && !values.is_empty() {
                    odd.push(format!("get {op} was shown {values:?} without a context"));
                }
                if let Some(token) = &read.context {
                    let seen = Seen { values: values.clone(), inside: inside.clone() };
                    self.memory.learn(slot.clone(), token.clone(), seen);
                }
                let operation = history.get_mut(op);
                operation.values = values;
                operation.vv = inside.vv;
                Ending::Ok
            }
            (Kind::Put, Response::Stored(stored)) => {
                if stored.acks < history.get(op).w {
                    odd.push(format!("put {op} wants w = {}, answered after {} acks", history.get(op).w, stored.acks));
                }
                if stored.context.is_some() && stored.siblings != 1 {
                    odd.push(format!("put {op} returned a context though there are {} siblings", stored.siblings));
                }
                if let Some(token) = &stored.context {
                    self.memory.learn(slot.clone(), token.clone(), Seen { values: vec![op], inside: open(token) });
                }
                let operation = history.get_mut(op);
                operation.acks = stored.acks;
                operation.vv = stored.context.as_ref().map(|token| open(token).vv).unwrap_or_default();
                Ending::Ok
            }
            (Kind::Delete, Response::Deleted(deleted)) => {
                if deleted.existed && deleted.acks < history.get(op).w {
                    odd.push(format!("delete {op} wants w = {}, has {} acks", history.get(op).w, deleted.acks));
                }
                history.get_mut(op).acks = if deleted.existed { deleted.acks } else { 0 };
                // A delete that finds nothing on a later attempt may be looking at the work of an earlier one.
                if !deleted.existed && current.doubt { Ending::Unknown } else { Ending::Ok }
            }
            (kind, Response::Failed(failure)) => {
                let id = history.get(op).write_id;
                history.get_mut(op).crowded = matches!(failure, Failure::Refused(Refusal::TooManySiblings { .. }));
                let is_known = || history.named(id).any(|(other, write)| other != op && write.slot == slot);
                if matches!(failure, Failure::Refused(Refusal::WriteIdReused)) && !is_known() {
                    odd.push(format!(
                        "{kind:?} {op} was refused as if its id had been used for another write of its key"
                    ));
                }
                match failure.outcome() {
                    Outcome::Refused => Ending::Refused,
                    Outcome::Unknown => Ending::Unknown,
                }
            }
            (kind, other) => {
                odd.push(format!("{kind:?} {op} was answered with {other:?}"));
                Ending::Unknown
            }
        };
        if current.intention.damaged && ending == Ending::Ok {
            odd.push(format!("operation {op} was done with a damaged context"));
        }
        history.oddities.extend(odd.into_iter().map(|text| (Some(slot.clone()), text)));
        self.conclude(ending)
    }

    /// No answer came in time.
    pub fn unanswered(&mut self) -> Next {
        self.conclude(Ending::Unknown)
    }

    fn conclude(&mut self, ending: Ending) -> Next {
        let current = self.current.as_mut().expect("concludes only what is under way");
        let again = match ending {
            Ending::Ok | Ending::Pending => false,
            Ending::Refused => current.retries > 0 && !current.intention.damaged && self.rng.random_bool(0.7),
            Ending::Unknown => current.retries > 0 && self.rng.random_bool(0.75),
        };
        current.doubt |= ending == Ending::Unknown;
        if again {
            current.retries -= 1;
            return Next::Retry { same_node: self.rng.random_bool(0.65), later: ending == Ending::Refused };
        }
        Next::Done(if ending == Ending::Refused && current.doubt { Ending::Unknown } else { ending })
    }
}
