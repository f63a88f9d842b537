//! One shard's loop around its [`Engine`]: decode, call, encode, sleep. No branch in here decides anything about data.
//!
//! ```text
//! sleep until there is something ─▶ let the readers run ─▶ give what arrived to the engine, as much as a turn takes
//!      ▲                                                        │ commit once
//!      └── writers, each in one write ◀── encode every output ◀─┘
//! ```
//! What carries a large value has a turn for itself ([`Inputs`]).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::accept::Tables;
use super::agreement::{Agreement, Effect};
use super::clients::Clients;
use super::detection::Detection;
use super::dial::dial_all;
use super::endpoint::ShardEndpoint;
use super::findings::{DETECTING_SHARD, Finding};
use super::inputs::Input;
use super::inputs::Inputs;
use super::node_context::{DAMAGED_SHOWN_MAX, ShardMessage};
use super::peers::{Links, is_letter};
use super::reply_routes::Origin;
use super::shard_context::{ShardContext, shard_of};
use super::traces;
use driftless_proto::client::{Request, Response};
use driftless_ring::NodeId;

use crate::configurations::Configurations;
use crate::engine::{ASK_AGAIN_SOON, ClientTag, Engine, Output};
use crate::membership::Progress;
use crate::peer::{self, Body};
use crate::replica::store::{BatchSeq, Store};
use crate::route::MEMBERSHIP_SHARD;
use crate::time::{Instant, Now};

/// Drives an engine until the node stops.
pub(crate) struct Driver<S: Store> {
    tables: Tables,
    context: Rc<ShardContext>,
    clients: Rc<Clients>,
    links: Rc<RefCell<Links>>,
    endpoint: Rc<ShardEndpoint>,
    engine: Engine<S>,
    /// On one shard.
    detection: Option<Detection>,
    /// On one shard.
    agreement: Option<Agreement>,
    /// How far this shard had come when that was published last.
    progress: Option<Progress>,
    /// Who was said last to run on a newer version, and when.
    behind: Option<(NodeId, Instant)>,
    /// Some shard has come further since the machine of the members was told.
    progress_stale: bool,
    messages: UnboundedReceiver<ShardMessage>,
    /// What has arrived and was not given to the engine yet.
    inputs: Inputs,
    /// Something was fetched from the disk since the last turn.
    fetched: bool,
    /// The sync that this turn has asked for.
    sync_wished: Option<BatchSeq>,
    /// When housekeeping is due.
    tick: Instant,
    /// When the figures of hints may be shown again, and whether they have changed.
    figures_due: Instant,
    figures_stale: bool,
    /// When `ReplyRoutes` forget.
    aging: Instant,
    /// Until when what is under way may take, once the node is stopping.
    stopping: Option<Instant>,
    /// This shard has been counted as finished.
    finished: bool,
    halted: bool,
}

impl<S: Store> Driver<S> {
    pub(crate) fn new(
        tables: Tables,
        engine: Engine<S>,
        detection: Option<Detection>,
        agreement: Option<Agreement>,
        messages: UnboundedReceiver<ShardMessage>,
    ) -> Driver<S> {
        let Tables { context, clients, links, endpoint } = tables.clone();
        Driver {
            tables,
            context,
            clients,
            links,
            endpoint,
            engine,
            detection,
            agreement,
            progress: None,
            behind: None,
            progress_stale: false,
            messages,
            inputs: Inputs::default(),
            fetched: false,
            sync_wished: None,
            tick: Instant::default(),
            figures_due: Instant::default(),
            figures_stale: false,
            aging: Instant::default(),
            stopping: None,
            finished: false,
            halted: false,
        }
    }

    /// Returns true when finished, false when halted.
    pub(crate) async fn run(mut self) -> bool {
        let (shared, shard) = (self.context.shared.clone(), self.context.shard);
        self.engine.on_fetched(Arc::new(move || shared.tell(shard, ShardMessage::Fetched)));
        let clock = self.context.shared.clock.clone();
        let mut armed = Instant::default();
        let sleep = tokio::time::sleep_until(clock.wake_at(armed));
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                biased;
                () = self.context.wake.wait() => {}
                Some(message) = self.messages.recv() => self.take_message(message),
                () = &mut sleep => {}
            }
            // Readers whose data has arrived go first, so that batches form. On an idle shard this costs one look at
            // the socket.
            tokio::task::yield_now().await;
            while let Ok(message) = self.messages.try_recv() {
                self.take_message(message);
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
        self.context.take(&mut self.inputs);
        if std::mem::take(&mut self.fetched) {
            self.inputs.fetched();
            self.engine.handle_fetched();
        }
        self.sync_wished = None;
        let mut large_bytes = None;
        if let Some(input) = self.inputs.take_large(now.instant) {
            let bytes = input.value_bytes();
            large_bytes = self.give(now, input).then_some(bytes);
        } else {
            while !self.engine.is_full()
                && let Some(input) = self.inputs.take_small()
            {
                self.give(now, input);
            }
        }
        if let Some(detection) = &mut self.detection {
            detection.turn(now, &self.context, &self.links.borrow());
            for finding in detection.take_changes() {
                self.found(now, finding);
            }
        }
        self.agree(now);
        if self.halted {
            return;
        }
        if self.engine.poll_timeout().is_some_and(|deadline| deadline <= now.instant) {
            self.engine.handle_timeout(now);
        }
        self.engine.commit(now);
        for part in self.context.written.borrow().iter() {
            self.context.shared.traces.applied(*part, now.instant);
        }
        self.show_progress(now.instant);
        self.show_hints(now.instant);
        while let Some(output) = self.engine.poll_output() {
            self.output(now.instant, output);
            if self.halted {
                return;
            }
        }
        let written = self.context.written.take();
        if let Some(batch) = self.sync_wished
            && !written.is_empty()
        {
            self.context.shared.traces.await_sync(self.context.shard, written.into_iter(), batch);
        }
        self.context.under_way.show_passed_on(self.engine.passed_on());
        if let Some(bytes) = large_bytes {
            let ended = self.context.shared.clock.instant();
            self.inputs.rest(ended, ended.since(now.instant));
            if let Some(batch) = self.sync_wished {
                self.inputs.brought(batch, bytes);
            }
        }
        if self.inputs.due_at().is_some_and(|due| due <= now.instant) {
            self.context.wake.set();
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
            self.context.shared.publish_hints(self.context.shard, self.engine.hints(now).collect());
        }
    }

    /// Gives an input to the engine, unless that would have to wait for a disk; whether it did.
    fn give(&mut self, now: Now, input: Input) -> bool {
        let is_ready = input.has_expired(now.instant)
            || !self.inputs.has_room_aside()
            || match &input {
                Input::Client { request, .. } => self.engine.prepare_for_client(request),
                Input::Peer { message, .. } => self.engine.prepare_for_peer(message),
                _ => true,
            };
        if is_ready {
            self.input(now, input);
        } else {
            self.inputs.put_aside(input);
        }
        is_ready
    }

    fn input(&mut self, now: Now, input: Input) {
        let input = match (&mut self.agreement, input) {
            (Some(agreement), Input::Client { tag, deadline, request: Request::Cluster(command), .. })
                if deadline > now.instant =>
            {
                let refused = self.context.shared.contradicts(&command);
                if let Some(refused) = refused.or_else(|| agreement.order(now.instant, tag, deadline, command)) {
                    self.reply(tag, refused);
                }
                return;
            }
            (Some(agreement), Input::Peer { from, message, .. }) if is_letter(&message) => {
                if let Body::Request { deadline, request: peer::Request::Membership(letter) } = message.body {
                    agreement.letter(now.instant, from, deadline, *letter);
                }
                return;
            }
            (_, input) => input,
        };
        match input {
            // Nothing was done, and the client may still wait long enough to hear it.
            Input::Client { tag, arrived, deadline, request, .. } if deadline <= now.instant => {
                self.engine.handle_expired(now, arrived, request);
                self.reply(tag, Response::Failed(ASK_AGAIN_SOON.into()));
            }
            Input::Client { tag, arrived, deadline, request, .. } => {
                self.engine.handle_client(now, tag, arrived, deadline, request);
            }
            Input::Peer { from, message, arrived, taken: _taken } => {
                if let Some(part) = traces::of_merge(&message, now.instant) {
                    self.context.written.borrow_mut().push(part);
                }
                self.engine.handle_peer_waiting(now, arrived, from, message);
            }
            Input::PeerUp(peer, speaks) => {
                if let Some(agreement) = &mut self.agreement {
                    agreement.connected(now.instant, peer, speaks);
                }
                if self.context.configurations.borrow().member(peer).is_some() {
                    self.peer_up(now, peer);
                }
            }
            Input::PeerLost(peer) => {
                self.engine.handle_peer_lost(now, peer);
                if let Some(agreement) = &mut self.agreement {
                    agreement.disconnected(now.instant, peer);
                }
            }
            Input::Unsent { to, id } => self.engine.handle_unsent(now, to, id),
            Input::Datagram { from, bytes } => {
                if let Some(detection) = &mut self.detection {
                    detection.datagram(now, &self.context, from, &bytes);
                }
            }
        }
    }

    /// A member is connected.
    fn peer_up(&mut self, now: Now, peer: NodeId) {
        self.engine.handle_peer_up(now, peer);
        if let Some(detection) = &mut self.detection {
            detection.connected(now.instant, peer);
        }
    }

    /// Carries out what the machine of the members wants done, on the shard that runs it.
    fn agree(&mut self, now: Now) {
        let Some(mut agreement) = self.agreement.take() else { return };
        let shared = self.context.shared.clone();
        let progress = std::mem::take(&mut self.progress_stale).then(|| shared.progress()).flatten();
        for (to, response) in agreement.look(now.instant, progress) {
            self.reply(to, response);
        }
        loop {
            let version = self.context.configurations.borrow().version();
            let effect = match agreement.poll_effect(now.instant, version) {
                Ok(Some(effect)) => effect,
                Ok(None) => break,
                Err(reason) => {
                    self.halted = true;
                    shared.halt(reason);
                    break;
                }
            };
            match effect {
                Effect::Send { to, letter } => {
                    Agreement::send(&self.context, &self.links.borrow(), now.instant, to, letter);
                }
                Effect::Configurations(configurations) => {
                    if let Some(reason) = configurations.other_shards() {
                        self.halted = true;
                        shared.halt(reason);
                        break;
                    }
                    shared.adopt(&configurations);
                    for shard in (0..shared.shards.len() as u16).filter(|shard| *shard != self.context.shard) {
                        shared.tell(shard, ShardMessage::Configurations(configurations.clone()));
                    }
                    if let Some(detection) = &mut self.detection {
                        detection.adopt(now, &self.context, &configurations);
                    }
                    self.adopt(now, configurations);
                    shared.look_at_conditions();
                    // For what the detector has found.
                    self.context.wake.set();
                }
                Effect::Apart(apart) => shared.note_apart(apart),
                Effect::Reply { to, response } => self.reply(to, response),
            }
        }
        self.agreement = Some(agreement);
    }

    /// This shard goes by other versions of the cluster.
    fn adopt(&mut self, now: Now, configurations: Arc<Configurations>) {
        self.context.configurations.replace(configurations.clone());
        self.engine.handle_configurations(now, configurations);
        let judged = self.links.borrow().judge(&self.context);
        for peer in judged.strangers {
            self.engine.handle_peer_lost(now, peer);
        }
        for peer in judged.members {
            self.peer_up(now, peer);
        }
        dial_all(&self.tables);
    }

    /// Publishes how far this shard has come, if that is news: what others wait for at once, and what is for people with the next tick.
    fn show_progress(&mut self, now: Instant) {
        let is_due = self.tick <= now;
        if !is_due && self.context.configurations.borrow().is_settled() && self.progress.is_some() {
            return;
        }
        if is_due {
            self.engine.look_at_taking(now);
        }
        let progress = self.engine.progress();
        let steps = |progress: Progress| (progress.version, progress.closed, progress.ready, progress.left);
        let is_news = self.progress.map(steps) != Some(steps(progress));
        if is_news || (is_due && self.progress != Some(progress)) {
            self.progress = Some(progress);
            self.context.shared.publish_progress(self.context.shard, progress);
            match self.context.shard {
                MEMBERSHIP_SHARD => {
                    self.progress_stale = true;
                    self.context.wake.set();
                }
                _ => self.context.shared.tell(MEMBERSHIP_SHARD, ShardMessage::Progress),
            }
        }
    }

    fn output(&mut self, now: Instant, output: Output) {
        let shared = &self.context.shared;
        match output {
            Output::Send { to, message } => self.links.borrow().send(&self.context, now, to, message),
            Output::Reply { to, response } => self.reply(to, response),
            Output::Behind(peer) => {
                // Each of its messages says so until the records are here.
                if self.behind.is_none_or(|(of, told)| of != peer || now.since(told) >= BEHIND_INTERVAL) {
                    self.behind = Some((peer, now));
                    shared.tell(MEMBERSHIP_SHARD, ShardMessage::Behind(peer));
                }
            }
            Output::Sync(batch) => {
                self.sync_wished = Some(batch);
                shared.sync.wish(self.context.shard, batch);
            }
            Output::Halt(reason) => {
                self.halted = true;
                shared.halt(reason);
            }
        }
    }

    fn take_message(&mut self, message: ShardMessage) {
        let context = &self.context;
        match message {
            ShardMessage::Synced(batch) => {
                self.inputs.synced(batch);
                let now = context.shared.clock.now();
                context.shared.traces.synced(context.shard, batch, now.instant);
                self.engine.handle_synced(now, batch);
            }
            ShardMessage::Fetched => self.fetched = true,
            ShardMessage::Client { account, tag, arrived, deadline, request } => {
                context.shared.taken_in(context.shard);
                context.push(Input::Client { account, tag, arrived, deadline, request });
            }
            ShardMessage::Peer { from, shard, connection, message, arrived, taken } => {
                context.shared.taken_in(context.shard);
                if !is_letter(&message) {
                    context.reply_routes.borrow_mut().put(from, message.id, Origin { shard, connection });
                }
                context.push(Input::Peer { from, message, arrived, taken });
            }
            ShardMessage::Reply { to, response } => self.answer(to, response),
            ShardMessage::PeerReply { connection, message } => {
                let now = context.shared.clock.instant();
                self.links.borrow().send_on(context, now, connection, message);
            }
            ShardMessage::Aae(command) => {
                let now = context.shared.clock.now();
                self.engine.handle_aae(now, command);
                context.shared.publish_aae(context.shard, self.engine.aae(now.instant));
            }
            ShardMessage::Datagram { from, bytes } => {
                context.shared.taken_in(context.shard);
                context.push(Input::Datagram { from, bytes });
            }
            ShardMessage::SendDatagram { to, bytes } => Detection::send(context, &self.links.borrow(), to, bytes),
            ShardMessage::Found(finding) => {
                let now = context.shared.clock.now();
                self.found(now, finding);
            }
            ShardMessage::Configurations(configurations) => {
                let now = context.shared.clock.now();
                self.adopt(now, configurations);
            }
            ShardMessage::Progress => self.progress_stale = true,
            ShardMessage::Behind(peer) => {
                let now = context.shared.clock.instant();
                if let Some(agreement) = &mut self.agreement {
                    agreement.behind(now, peer);
                }
            }
            ShardMessage::SendLetter { to, message } => {
                let now = context.shared.clock.instant();
                Agreement::send(context, &self.links.borrow(), now, to, message);
            }
            ShardMessage::AskForFigures => {
                let now = context.shared.clock.instant();
                self.links.borrow().ask_for_figures(context, now);
            }
            ShardMessage::Top(gathering) => {
                let now = context.shared.clock.instant();
                let told = self.engine.top(now, gathering.command());
                if let Some((to, response)) = gathering.take(told, context.shared.shards.len()) {
                    self.reply(to, response);
                    context.shared.answered_top();
                }
            }
            ShardMessage::Credentials => {
                self.endpoint.renew(context.shared.credentials.shown());
                context.admitted.inspect(context);
            }
            ShardMessage::ContextKeys(keys) => self.engine.handle_context_keys(keys),
            ShardMessage::Limits(limits) => {
                context.take_limits(&limits);
                self.engine.handle_limits(context.shared.clock.now(), &limits);
            }
            ShardMessage::Stop => {
                let until = context.shared.clock.instant() + context.shared.net.drain_timeout;
                self.stopping.get_or_insert(until);
            }
            ShardMessage::Halt => self.halted = true,
        }
    }

    /// Answers a request, whatever shard it came to.
    fn reply(&self, to: ClientTag, response: Response) {
        let shard = shard_of(to.connection);
        if shard != self.context.shard {
            self.context.shared.tell(shard, ShardMessage::Reply { to, response });
        } else {
            self.answer(to, response);
        }
    }

    /// Answers a request that came to this shard.
    fn answer(&self, to: ClientTag, response: Response) {
        match self.clients.borrow().get(&to.connection) {
            Some(client) => client.answer(&self.context, self.context.shared.clock.instant(), to.request, response),
            None => self.context.answered_in_vain(to),
        }
    }

    fn found(&mut self, now: Now, finding: Finding) {
        match finding {
            Finding::Liveness(peer, liveness) => self.engine.handle_liveness(now, peer, liveness),
            Finding::Clock(bounds) => self.engine.handle_clock(bounds),
        }
    }

    /// Whether a stopping node may end: every shard has finished, since one may still be at work for another.
    fn is_done(&mut self, now: Instant) -> bool {
        let Some(until) = self.stopping else { return false };
        let overdue = now >= until;
        let shared = &self.context.shared;
        if !self.finished
            && (overdue || (self.context.under_way.count() == 0 && self.inputs.is_empty() && !self.context.has_input()))
        {
            self.finished = true;
            shared.finished.fetch_add(1, Ordering::SeqCst);
        }
        overdue || shared.finished.load(Ordering::SeqCst) >= shared.shards.len()
    }

    fn next_deadline(&self) -> Instant {
        let machines = [
            self.engine.poll_timeout(),
            self.detection.as_ref().map(Detection::poll_timeout),
            self.agreement.as_ref().map(Agreement::poll_timeout),
        ];
        let figures = self.figures_stale.then_some(self.figures_due);
        let own = machines.into_iter().chain([self.inputs.due_at(), figures]).flatten().fold(self.tick, Instant::min);
        if self.stopping.is_some() { own.min(self.context.shared.clock.instant() + FINISH_POLL) } else { own }
    }

    fn housekeeping(&mut self, now: Instant) {
        self.tick = now + TICK;
        let context = &self.context;
        if let Some(post) = context.shared.shards.get(usize::from(context.shard)) {
            post.beat.store(now.0, Ordering::Relaxed);
        }
        context.shared.publish_aae(context.shard, self.engine.aae(now));
        context.shared.publish_shortage(context.shard, self.engine.shortage());
        context.shared.publish_damaged(context.shard, self.engine.damaged_keys(DAMAGED_SHOWN_MAX));
        if context.shard == DETECTING_SHARD {
            self.progress_stale = true;
            context.shared.publish_store_figures(self.engine.store_figures());
            context.shared.housekeeping();
            context.shared.traces.sweep(now);
        }
        for client in self.clients.borrow().values() {
            client.sweep(context, now);
        }
        context.left_behind.borrow_mut().retain(|_, (until, _)| *until > now);
        context.shared.accounts.publish(&context.shared.metrics);
        self.links.borrow().inspect(context);
        dial_all(&self.tables);
        context.admitted.inspect(context);
        if self.aging <= now {
            self.aging = now + context.answer_longest.get();
            context.reply_routes.borrow_mut().age();
        }
    }
}

/// Also how often a driver shows that it is alive.
const TICK: Duration = Duration::from_secs(1);

/// How often the machine of the members is told of a peer that runs on a newer version.
const BEHIND_INTERVAL: Duration = Duration::from_millis(100);

/// How often the figures of hints are shown.
const FIGURES_INTERVAL: Duration = Duration::from_millis(200);

/// How often a stopping shard looks whether the others have finished.
const FINISH_POLL: Duration = Duration::from_millis(5);
