//! One shard's loop around its [`Engine`]: decode, call, encode, sleep. No branch in here decides anything about data.
//!
//! ```text
//! sleep until there is something ─▶ let the readers run ─▶ give what arrived to the engine, as much as a turn takes
//!      ▲                                                        │ commit once
//!      └── writers, each in one write ◀── encode every output ◀─┘
//! ```
//! What carries a large value has a turn for itself ([`Inputs`]).

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::detection::{Detection, Finding};
use super::inputs::Inputs;
use super::local::{Input, Local, shard_of};
use super::returns::Origin;
use super::shared::{DAMAGED_SHOWN_MAX, Note};
use crate::engine::{Engine, Output};
use crate::replica::store::Store;
use crate::time::{Instant, Now};

/// Drives an engine until the node stops.
pub(crate) struct Driver<S: Store> {
    local: Rc<Local>,
    engine: Engine<S>,
    /// On one shard.
    detection: Option<Detection>,
    notes: UnboundedReceiver<Note>,
    /// What has arrived and was not given to the engine yet.
    inputs: Inputs,
    /// When housekeeping is due.
    tick: Instant,
    /// When the figures of hints may be shown again, and whether they have changed.
    figures_due: Instant,
    figures_stale: bool,
    /// When `Returns` forget.
    aging: Instant,
    /// Until when what is under way may take, once the node is stopping.
    stopping: Option<Instant>,
    /// This shard has been counted as drained.
    drained: bool,
    halted: bool,
}

impl<S: Store> Driver<S> {
    pub(crate) fn new(
        local: Rc<Local>,
        engine: Engine<S>,
        detection: Option<Detection>,
        notes: UnboundedReceiver<Note>,
    ) -> Driver<S> {
        Driver {
            local,
            engine,
            detection,
            notes,
            inputs: Inputs::default(),
            tick: Instant::default(),
            figures_due: Instant::default(),
            figures_stale: true,
            aging: Instant::default(),
            stopping: None,
            drained: false,
            halted: false,
        }
    }

    /// Returns true when drained, false when halted.
    pub(crate) async fn run(mut self) -> bool {
        let clock = self.local.shared.clock.clone();
        let mut armed = Instant::default();
        let sleep = tokio::time::sleep_until(clock.wake_at(armed));
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                biased;
                () = self.local.wake.wait() => {}
                Some(note) = self.notes.recv() => self.note(note),
                () = &mut sleep => {}
            }
            // Readers whose data has arrived go first, so that batches form. On an idle shard this costs one look at
            // the socket.
            tokio::task::yield_now().await;
            while let Ok(note) = self.notes.try_recv() {
                self.note(note);
            }
            let now = clock.now();
            self.turn(now);
            if self.halted {
                return false;
            }
            if self.is_done(now.instant) {
                return true;
            }
            // An alarm that rings too early costs an empty turn; moving it later at every turn would cost more.
            let wanted = self.next_deadline();
            if wanted < armed || armed <= now.instant {
                armed = wanted;
                sleep.as_mut().reset(clock.wake_at(armed));
            }
        }
    }

    fn turn(&mut self, now: Now) {
        self.local.take(&mut self.inputs);
        let large = self.inputs.take_large(now.instant);
        let is_large = large.is_some();
        match large {
            Some(input) => self.input(now, input),
            None => {
                while !self.engine.is_full()
                    && let Some(input) = self.inputs.take_small()
                {
                    self.input(now, input);
                }
            }
        }
        if let Some(detection) = &mut self.detection {
            detection.turn(now, &self.local);
            for finding in detection.take_changes() {
                self.found(now, finding);
            }
        }
        if self.engine.poll_timeout().is_some_and(|deadline| deadline <= now.instant) {
            self.engine.handle_timeout(now);
        }
        self.engine.commit(now);
        self.show_hints(now.instant);
        while let Some(output) = self.engine.poll_output() {
            self.output(now.instant, output);
            if self.halted {
                return;
            }
        }
        if is_large {
            let ended = self.local.shared.clock.instant();
            self.inputs.rest(ended, ended.since(now.instant));
        }
        if self.inputs.due_at().is_some_and(|due| due <= now.instant) {
            self.local.wake.set();
        }
        if self.tick <= now.instant {
            self.housekeeping(now.instant);
        }
    }

    /// Shows what is held for whom, a few times per second at most.
    fn show_hints(&mut self, now: Instant) {
        self.figures_stale |= self.engine.take_hints_changed();
        if self.figures_stale && self.figures_due <= now {
            self.figures_stale = false;
            self.figures_due = now + FIGURES_INTERVAL;
            self.local.shared.publish_hints(self.local.shard, self.engine.hints().collect());
        }
    }

    fn input(&mut self, now: Now, input: Input) {
        match input {
            Input::Client { tag, deadline, .. } if deadline <= now.instant => {
                self.local.shared.metrics.expired.inc();
                if shard_of(tag.connection) == self.local.shard
                    && let Some(client) = self.local.clients.borrow().get(&tag.connection)
                {
                    client.expire(&self.local, tag.request);
                }
            }
            Input::Client { tag, deadline, request } => self.engine.handle_client(now, tag, deadline, request),
            Input::Peer { from, message } => self.engine.handle_peer(now, from, message),
            Input::PeerUp(peer) => {
                self.engine.handle_peer_up(now, peer);
                if let Some(detection) = &mut self.detection {
                    detection.connected(now.instant, peer);
                }
            }
            Input::PeerLost(peer) => self.engine.handle_peer_lost(now, peer),
            Input::Unsent { to, id } => self.engine.handle_unsent(now, to, id),
            Input::Datagram { from, bytes } => {
                if let Some(detection) = &mut self.detection {
                    detection.datagram(now, &self.local, from, &bytes);
                }
            }
        }
    }

    fn output(&mut self, now: Instant, output: Output) {
        let shared = &self.local.shared;
        match output {
            Output::Send { to, message } => self.local.links.borrow_mut().send(&self.local, now, to, message),
            Output::Reply { to, response } => {
                let shard = shard_of(to.connection);
                if shard != self.local.shard {
                    shared.tell(shard, Note::Reply { to, response });
                } else if let Some(client) = self.local.clients.borrow().get(&to.connection) {
                    client.answer(&self.local, shared.clock.instant(), to.request, response);
                }
            }
            Output::Sync(batch) => shared.sync.wish(self.local.shard, batch),
            Output::Halt(reason) => {
                self.halted = true;
                shared.halt(reason);
            }
        }
    }

    fn note(&mut self, note: Note) {
        let local = &self.local;
        match note {
            Note::Synced(batch) => {
                let now = local.shared.clock.now();
                self.engine.handle_synced(now, batch);
            }
            Note::Client { tag, deadline, request } => {
                local.shared.taken_in(local.shard);
                local.push(Input::Client { tag, deadline, request });
            }
            Note::Peer { from, shard, connection, message } => {
                local.shared.taken_in(local.shard);
                local.links.borrow_mut().returns.put(from, message.id, Origin { shard, connection });
                local.push(Input::Peer { from, message });
            }
            Note::Reply { to, response } => {
                if let Some(client) = local.clients.borrow().get(&to.connection) {
                    client.answer(local, local.shared.clock.instant(), to.request, response);
                }
            }
            Note::PeerReply { connection, message } => {
                let now = local.shared.clock.instant();
                local.links.borrow().send_on(local, now, connection, message);
            }
            Note::Aae(command) => {
                let now = local.shared.clock.now();
                self.engine.handle_aae(now, command);
                local.shared.publish_aae(local.shard, self.engine.aae(now.instant));
            }
            Note::Datagram { from, bytes } => {
                local.shared.taken_in(local.shard);
                local.push(Input::Datagram { from, bytes });
            }
            Note::SendDatagram { to, bytes } => Detection::send(local, to, bytes),
            Note::Found(finding) => {
                let now = local.shared.clock.now();
                self.found(now, finding);
            }
            Note::Stop => {
                let until = local.shared.clock.instant() + local.shared.net.drain_timeout;
                self.stopping.get_or_insert(until);
            }
            Note::Halt => self.halted = true,
        }
    }

    fn found(&mut self, now: Now, finding: Finding) {
        match finding {
            Finding::Liveness(peer, liveness) => self.engine.handle_liveness(now, peer, liveness),
            Finding::Clock(bounds) => self.engine.handle_clock(bounds),
        }
    }

    /// Whether a stopping node may end: every shard has drained, since one may still be at work for another.
    fn is_done(&mut self, now: Instant) -> bool {
        let Some(until) = self.stopping else { return false };
        let overdue = now >= until;
        let shared = &self.local.shared;
        if !self.drained
            && (overdue || (self.local.pending.get() == 0 && self.inputs.is_empty() && !self.local.has_input()))
        {
            self.drained = true;
            shared.drained.fetch_add(1, Ordering::SeqCst);
        }
        overdue || shared.drained.load(Ordering::SeqCst) >= shared.shards.len()
    }

    fn next_deadline(&self) -> Instant {
        let machines = [self.engine.poll_timeout(), self.detection.as_ref().map(Detection::poll_timeout)];
        let figures = self.figures_stale.then_some(self.figures_due);
        let own = machines.into_iter().chain([self.inputs.due_at(), figures]).flatten().fold(self.tick, Instant::min);
        if self.stopping.is_some() { own.min(self.local.shared.clock.instant() + DRAIN_POLL) } else { own }
    }

    fn housekeeping(&mut self, now: Instant) {
        self.tick = now + TICK;
        let local = &self.local;
        if let Some(post) = local.shared.shards.get(usize::from(local.shard)) {
            post.beat.store(now.0, Ordering::Relaxed);
        }
        local.shared.publish_aae(local.shard, self.engine.aae(now));
        local.shared.publish_damaged(local.shard, self.engine.damaged_keys(DAMAGED_SHOWN_MAX));
        for client in local.clients.borrow().values() {
            client.sweep(local, now);
        }
        let mut links = local.links.borrow_mut();
        links.inspect(local);
        if self.aging <= now {
            self.aging = now + local.shared.limits.deadline_max;
            links.returns.age();
        }
    }
}

/// Also how often a driver shows that it is alive.
const TICK: Duration = Duration::from_secs(1);

/// How often the figures of hints are shown.
const FIGURES_INTERVAL: Duration = Duration::from_millis(200);

/// How often a stopping shard looks whether the others have drained.
const DRAIN_POLL: Duration = Duration::from_millis(5);
