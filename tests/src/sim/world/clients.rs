//! What clients do: ask, wait, try again, give up.

use driftless_node::configurations::Configurations;
use driftless_node::engine::ClientTag;
use driftless_node::replica::record;
use driftless_proto::Dot;
use driftless_proto::client::{Read, Request, Response};
use driftless_proto::observed::{Observed, ObservedRequest};
use driftless_proto::{Failure, Refusal};
use rand::Rng;
use rand::seq::IteratorRandom;

use super::super::client::{Current, Next};
use super::super::describe;
use super::super::generator::Intention;
use super::super::history::{Ending, Kind, Operation, Slot, slot_text};
use super::super::node::Input;
use super::super::schedule::{Event, Micros};
use super::super::shape;
use super::super::trace::Line;
use super::super::workload::Attempt;
use super::{Phase, World};

impl World {
    /// Gives a client something to do in the calm phase.
    pub fn assign(&mut self, client: usize, intention: Intention) {
        self.workload.clients[client].script.push_back(intention);
        if self.workload.clients[client].current.is_none() && self.workload.clients[client].script.len() == 1 {
            self.schedule.after(0, Event::ClientNext { client });
        }
    }

    /// Whether no operation is under way or waiting.
    pub fn clients_rest(&self) -> bool {
        self.workload.rests()
    }

    pub(super) fn client_next(&mut self, client: usize) {
        if self.workload.clients[client].current.is_some() {
            return;
        }
        let mut intention = match self.phase {
            Phase::Active => {
                let asks = &mut self.workload.clients[client];
                let deleting = self.workload.deleting.take().filter(|_| asks.rng.random_bool(0.4));
                match (asks.watches.clone(), deleting) {
                    (Some(slot), _) => Intention::watch(slot),
                    (None, Some(slot)) => {
                        Intention::delete_too(slot, &self.profile, self.cluster.topology(), &mut asks.rng)
                    }
                    (None, None) => {
                        Intention::draw(&self.profile, self.cluster.topology(), &mut asks.memory, &mut asks.rng)
                    }
                }
            }
            Phase::Calm => match self.workload.clients[client].script.pop_front() {
                Some(intention) => intention,
                None => return,
            },
        };
        if self.phase == Phase::Active && self.workload.delete_rng.random_bool(self.profile.blind_deletes) {
            let slot = intention.slot;
            intention =
                Intention::delete_too(slot, &self.profile, self.cluster.topology(), &mut self.workload.delete_rng);
        }
        if let Some(ids) = &mut self.workload.reused_ids
            && self.phase == Phase::Active
        {
            ids.rename(&mut intention, &self.workload.history);
        }
        self.note_reuse(&intention);
        if let Some(rng) = &mut self.workload.explain_rng
            && rng.random_bool(if intention.kind == Kind::Get { 0.2 } else { 0.1 })
        {
            intention.explain = true;
            intention.as_older = intention.kind == Kind::Get && rng.random_bool(0.5);
            let is_read = intention.kind == Kind::Get;
            self.judges.coverage.add(if is_read { "reads to be explained" } else { "writes to be explained" }, 1);
        }
        if intention.kind == Kind::Delete {
            self.workload.deleting = Some(intention.slot.clone());
        }
        let op = self.workload.history.invoke(self.operation(client, &intention));
        if intention.stale && intention.kind == Kind::Put {
            self.judges.coverage.add("puts with a stale context", 1);
        }
        let retries = match self.phase {
            Phase::Active => self.workload.clients[client].rng.random_range(0..self.profile.retries),
            // Who is told that there is too much to do tries again later.
            Phase::Calm if self.profile.replica_waiting_max < FEW_WAITING => 20,
            Phase::Calm => 0,
        };
        let node = self.choose_node(client, &intention);
        self.workload.clients[client].current =
            Some(Current { op, intention, attempt: 0, node, retries, doubt: false, shown: Vec::new() });
        self.attempt(client, 0);
    }

    pub(super) fn request_arrives(
        &mut self,
        to: usize,
        client: usize,
        attempt: u64,
        remaining: Micros,
        request: Request,
    ) {
        let slot = describe::slot_of_request(&request);
        let bytes = postcard::to_stdvec(&request).expect("a request can be written");
        let now = self.schedule.now();
        self.trace.note(now, "request", &[to as u64, attempt], &bytes, || {
            let text = format!("is asked by c{client}: {}", describe::request_text(&request, &self.workload.history));
            match &slot {
                Some(slot) => Line::about(shape::name_of(to), slot_text(slot), text),
                None => Line::general(shape::name_of(to), text),
            }
        });
        let is_delete = matches!(
            &request,
            Request::Delete(_) | Request::Observed(Observed { request: ObservedRequest::Delete(_), .. })
        );
        if let (true, Some(slot)) = (is_delete, &slot) {
            let gone = self.known_to_be_gone(to, slot);
            self.workload.gone.insert(attempt, gone);
        }
        let from = ClientTag { connection: connection_of(client, to), request: attempt };
        let deadline = self.instant(to) + std::time::Duration::from_micros(remaining);
        self.give(to, Input::Client { from, deadline, request });
    }

    /// What an owner of a key knows of it without holding it: whatever rests on that must be known to others too. One whose
    /// disk was lost lets nothing rest on what it knows before it is whole.
    fn known_to_be_gone(&self, node: usize, slot: &Slot) -> Vec<Dot> {
        let is_whole = self.cluster[node].configurations.as_deref().is_none_or(Configurations::is_whole);
        // While members change reads count the old owners: what a new one knows of the key, its delete has not looked at.
        let topology = self.cluster.topology();
        let bucket = topology.bucket(slot.0).expect("slots are drawn from the buckets");
        let partition = topology.place(bucket, &slot.1).partition;
        let is_read =
            |configurations: &Configurations| configurations.read_owners(partition).contains(&self.cluster[node].id);
        let counts = is_whole
            && self.cluster.owners(slot).contains(&node)
            && self.cluster[node].configurations.as_deref().is_none_or(is_read);
        let record = self.cluster[node].store.record(&self.cluster.record_of(slot)).filter(|_| counts);
        let Some(state) = record.map(|bytes| record::decode(bytes).expect("a store holds what its node wrote")) else {
            return Vec::new();
        };
        let dots = self.judges.observer.dots_in(slot).map(|(dot, _)| dot);
        dots.filter(|dot| state.covers(*dot) && state.get(*dot).is_none()).collect()
    }

    pub(super) fn response_arrives(&mut self, client: usize, attempt: u64, response: &Response) {
        let waits = self.workload.clients[client].current.as_ref().is_some_and(|current| current.attempt == attempt);
        if !waits {
            return;
        }
        let now = self.schedule.now();
        let (keys, history) = (self.cluster.context_keys(), &mut self.workload.history);
        let slot = self.workload.clients[client].current.as_ref().expect("it waits").intention.slot.clone();
        let next = self.workload.clients[client].answered(now, response, history, |token| {
            keys.open(slot.0, &slot.1, token).unwrap_or_else(|error| panic!("a node gave a bad token: {error}"))
        });
        let (response, _) = response.clone().into_plain();
        if let Response::Read(Read { page: Some(page), .. }) = &response {
            self.judges.coverage.add(if page.more { "pages of reads" } else { "reads in several pages" }, 1);
            self.judges.coverage.add("gone between pages", page.gone.len() as u64);
        }
        if let Next::Done(Ending::Ok) = next
            && matches!(&response, Response::Stored(stored) if stored.context.is_some())
        {
            self.judges.coverage.add("contexts returned by puts", 1);
        }
        if matches!(response, Response::Failed(Failure::Refused(Refusal::ClockOff { .. }))) {
            self.judges.coverage.add("writes refused for a wrong clock", 1);
        }
        self.go_on(client, next);
    }

    pub(super) fn client_timeout(&mut self, client: usize, attempt: u64) {
        let Some(current) = self.workload.clients[client].current.as_ref().filter(|current| current.attempt == attempt)
        else {
            return;
        };
        let (op, node) = (current.op, current.node);
        self.note("gives up", &[client as u64, attempt], || {
            Line::general(format!("c{client}"), format!("stops waiting for n{node} with op {op}"))
        });
        let next = self.workload.clients[client].unanswered();
        self.go_on(client, next);
    }

    fn go_on(&mut self, client: usize, next: Next) {
        match next {
            Next::Done(ending) => {
                let current = self.workload.clients[client].current.take().expect("something was under way");
                let operation = self.workload.history.get_mut(current.op);
                operation.ending = ending;
                operation.returned = self.schedule.now();
                let (low, high) = match self.phase {
                    Phase::Calm => (0, 2_000),
                    Phase::Active if self.workload.clients[client].watches.is_some() => (0, 1_000),
                    Phase::Active => self.profile.think,
                };
                let delay = self.workload.clients[client].rng.random_range(low..=high);
                self.schedule.after(delay, Event::ClientNext { client });
            }
            Next::Further => self.attempt(client, 0),
            Next::Retry { same_node, later } => {
                let current = self.workload.clients[client].current.as_ref().expect("it tries again");
                let is_left = self.profile.fallback_dies > 0.0 && !self.cluster[current.node].runs();
                if !same_node || is_left {
                    let intention = current.intention.clone();
                    let node = self.choose_node(client, &intention);
                    self.workload.clients[client].current.as_mut().expect("it tries again").node = node;
                }
                let pause = if later { self.workload.clients[client].rng.random_range(0..30_000) } else { 0 };
                self.attempt(client, pause);
            }
        }
    }

    fn attempt(&mut self, client: usize, pause: Micros) {
        let op = self.workload.clients[client].current.as_ref().expect("an attempt belongs to an operation").op;
        let number = self.workload.number_attempt(Attempt::Operation { client, op });
        let (low, high) = if self.phase == Phase::Calm { (2_000_000, 2_000_001) } else { self.profile.patience };
        let asks = &mut self.workload.clients[client];
        let patience: Micros = asks.rng.random_range(low..high);
        let current = asks.current.as_mut().expect("an attempt belongs to an operation");
        current.attempt = number;
        let (node, mut request) = (current.node, current.intention.request(op));
        if let Request::Get(get) | Request::Observed(Observed { request: ObservedRequest::Get(get), .. }) = &mut request
        {
            get.shown = current.shown.iter().map(|(dot, _)| *dot).collect();
        }
        self.workload.history.get_mut(op).attempts += 1;
        if let Some(delay) = self.cluster.network.client_delivery() {
            let delay = pause + delay;
            let remaining = patience;
            self.schedule.after(delay, Event::Request { to: node, client, attempt: number, remaining, request });
        }
        // A node answers by the deadline it was given; its answer needs some time to come.
        self.schedule.after(pause + patience + 20_000, Event::ClientTimeout { client, attempt: number });
    }

    /// A primary, as a client that knows the ring would, or any node, so that it forwards or stands in.
    fn choose_node(&mut self, client: usize, intention: &Intention) -> usize {
        let primaries = self.cluster.owners(&intention.slot);
        let rng = &mut self.workload.clients[client].rng;
        // Where fallbacks die, clients look for the others.
        if self.profile.fallback_dies > 0.0 && rng.random_bool(0.7) {
            let nodes = self.cluster.numbers().filter(|node| !primaries.contains(node) && self.cluster[*node].runs());
            if let Some(fallback) = nodes.choose(rng) {
                return fallback;
            }
        }
        if rng.random_bool(self.profile.asks_primary) {
            primaries[rng.random_range(0..primaries.len())]
        } else {
            self.cluster.any(rng)
        }
    }

    fn note_reuse(&mut self, intention: &Intention) {
        if intention.kind != Kind::Get {
            let (of_key, of_others): (Vec<_>, Vec<_>) =
                self.workload.history.named(intention.write_id).partition(|(_, op)| op.slot == intention.slot);
            self.judges.coverage.add("write ids used for another key", u64::from(!of_others.is_empty()));
            self.judges
                .coverage
                .add("write ids and values used for another key", u64::from(intention.repeats.is_some()));
            self.judges.coverage.add("write ids used for another value", u64::from(!of_key.is_empty()));
        }
    }

    pub(super) fn operation(&self, client: usize, intention: &Intention) -> Operation {
        let bucket = self.cluster.topology().bucket(intention.slot.0).expect("slots are drawn from the buckets");
        let quorum = bucket.quorum.with(intention.r, intention.w).expect("numbers are drawn within n");
        Operation {
            client,
            kind: intention.kind,
            slot: intention.slot.clone(),
            write_id: intention.write_id,
            value: intention.value(self.workload.history.len()),
            length: intention.length,
            value_hash: intention.value_hash(self.workload.history.len()),
            seen: intention.context.as_ref().map(|(_, seen)| seen.clone()),
            r: quorum.r(),
            w: quorum.w(),
            strict: !intention.sloppy.unwrap_or(bucket.sloppy),
            invoked: self.schedule.now(),
            returned: 0,
            ending: Ending::Pending,
            values: Vec::new(),
            vv: driftless_proto::VersionVector::new(),
            acks: 0,
            attempts: 0,
            crowded: false,
            calm: self.phase == Phase::Calm,
        }
    }
}

/// Replicas with fewer places than this may have to refuse even when nothing is wrong.
const FEW_WAITING: usize = 100;

/// A client has one connection to each node.
fn connection_of(client: usize, node: usize) -> u64 {
    (client * 100 + node) as u64
}
