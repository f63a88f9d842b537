//! One attempt of a request at one node.
//!
//! ```text
//! Begin ─▶ connection ─▶ submit ─▶ waiting ──── answer, lost, attempt timeout ────▶ Ended
//!                                   │    ▲
//!             patience is over, or  ▼    │ still waiting, with new patience
//!               all are alarmed   Overdue┘       another attempt may begin meanwhile
//! ```
//! Overdue is either *slow* (the node answers others) or *silent* (it has said nothing while patience ran). Silence makes the
//! connection suspect, and that alarms all attempts under way there: none has to run out of its own patience first.

use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::{Response, ResponseFrame};
use driftless_proto::frame::FRAME_SHARED_MAX;
use driftless_proto::observed::Explanation;
use driftless_proto::{Failure, Refusal};
use driftless_ring::NodeId;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::clock::FAR_FUTURE;
use crate::connection::{Connection, Pending};
use crate::error::Cause;
use crate::latency::Kind;
use crate::link::Link;
use crate::request::Request;
use crate::router::Snapshot;
use crate::told;
use crate::watched::WatchedAttempt;

/// Where an attempt goes. A node that the user chose has no id here: there is no other to go to.
pub(crate) type Target = (Option<NodeId>, Arc<Link>);

/// What is to be done for an attempt until its next [`Event`].
pub(crate) enum Step {
    /// Begin an attempt. One at the best node may pass over others which take long to connect.
    Begin { number: u32, snapshot: Arc<Snapshot>, target: Target, avoid: Option<Vec<NodeId>> },
    /// Go on waiting.
    Wait(Attempt),
}

/// What became of an attempt.
pub(crate) enum Event {
    /// It is over.
    Ended {
        /// Which attempt of its request it was.
        number: u32,
        /// Where it was made in the end.
        target: Target,
        /// Nodes that could not be connected to in time.
        passed_over: Vec<NodeId>,
        /// Another attempt was made because of this one.
        replaced: bool,
        /// How it came about, if the node has said so.
        explanation: Option<Box<Explanation>>,
        result: Result<Response, Cause>,
    },
    /// Its answer should have come by now.
    Overdue { attempt: Attempt, silent: bool },
}

/// An attempt that was sent and not answered yet.
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) target: Target,
    pub(crate) passed_over: Vec<NodeId>,
    /// Another attempt was made because of it.
    pub(crate) replaced: bool,
    pending: Pending,
    snapshot: Arc<Snapshot>,
    kind: Option<Kind>,
    begun: Instant,
    sent: Instant,
    /// Bytes of large values that were on their way to the node with it, its own included; none if it is small.
    large_bytes: usize,
    /// The part of the time that is for carrying them.
    carrying: Duration,
    deadline: Instant,
    /// How long it may take until it is overdue. `None`: as long as it likes.
    patience: Option<Duration>,
    /// Since when patience runs, and how many answers the node had given by then.
    since: (Instant, u64),
    lateness: Lateness,
    watched: WatchedAttempt,
    explanation: Option<Box<Explanation>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lateness {
    InTime,
    /// The node answers other requests.
    Slow,
    /// It has said nothing while patience ran.
    Silent,
}

impl Request<'_> {
    /// Carries an attempt on until there is something to say about it.
    pub(crate) async fn carry_on(&self, step: Step) -> Event {
        match step {
            Step::Wait(attempt) => self.wait(attempt).await,
            Step::Begin { number, snapshot, target, avoid } => {
                let mut watched = WatchedAttempt::begin(number);
                let sent = match target.1.connection_now() {
                    Some(connection) => {
                        let begun = Instant::now();
                        self.send(number, snapshot, target.clone(), &connection, begun, begun)
                            .map_err(|cause| (target, Vec::new(), cause))
                    }
                    // Seldom, and large: a box keeps it out of every request.
                    None => Box::pin(self.connect_and_send(number, snapshot, target, avoid)).await,
                };
                match sent {
                    Ok(mut attempt) => {
                        attempt.watched = watched;
                        self.wait(attempt).await
                    }
                    Err((target, passed_over, cause)) => {
                        watched.ended(target.1.name(), Some(&cause));
                        let result = Err(cause);
                        Event::Ended { number, target, passed_over, replaced: false, explanation: None, result }
                    }
                }
            }
        }
    }

    /// Where it was made in the end and what was passed over is told with an error too.
    async fn connect_and_send(
        &self,
        number: u32,
        snapshot: Arc<Snapshot>,
        target: Target,
        avoid: Option<Vec<NodeId>>,
    ) -> Result<Attempt, (Target, Vec<NodeId>, Cause)> {
        let mut passed_over = Vec::new();
        let target = match (avoid, target) {
            (Some(avoid), (Some(node), link)) => self.reachable(&snapshot, (node, link), avoid, &mut passed_over).await,
            (_, target) => target,
        };
        let begun = Instant::now();
        let sent = match self.connect(&target.1, begun).await {
            Ok(connection) => self.send(number, snapshot, target.clone(), &connection, begun, Instant::now()),
            Err(cause) => Err(cause),
        };
        match sent {
            Ok(mut attempt) => {
                attempt.passed_over = passed_over;
                Ok(attempt)
            }
            Err(cause) => Err((target, passed_over, cause)),
        }
    }

    async fn connect(&self, link: &Arc<Link>, begun: Instant) -> Result<Arc<Connection>, Cause> {
        // Connecting takes no longer for a large value.
        let deadline = self.clock.deadline.min(begun + self.settings.attempt_timeout.min(FAR_FUTURE));
        match timeout_at(deadline, link.connection()).await {
            Ok(connected) => connected.map_err(|failure| Cause::NotConnected { node: link.name().to_owned(), failure }),
            Err(_) => {
                let node = link.name().to_owned();
                Err(Cause::TimedOut { node, after: begun.elapsed(), sent: false, heard: false })
            }
        }
    }

    fn send(
        &self,
        number: u32,
        snapshot: Arc<Snapshot>,
        target: Target,
        connection: &Arc<Connection>,
        begun: Instant,
        sent: Instant,
    ) -> Result<Attempt, Cause> {
        let link = &target.1;
        let deadline = match self.attempt_timeout() {
            Some(timeout) => self.clock.deadline.min(begun + timeout.min(FAR_FUTURE)),
            None => self.clock.deadline,
        };
        let remaining = deadline.saturating_duration_since(sent);
        // The node gives up a little earlier, so that what it knows by then arrives in time. Zero would be no time at all.
        let for_node = remaining - (remaining / 8).min(ANSWER_MARGIN);
        let deadline_ms = u32::try_from(for_node.as_millis()).unwrap_or(u32::MAX).max(1);
        let since = (sent, connection.heard());
        let pending = connection.submit(self.message, snapshot.ring_version(), deadline_ms)?;
        // It travels beside all others that are under way there, so it takes as long as all of them.
        let large_bytes = if self.is_large() { connection.carrying() } else { 0 };
        let carrying = link.latency.time_to_carry(large_bytes);
        // Who explains it waits for replicas that are not needed: no other node would be faster, and what it takes is not its usual time.
        let kind = self.kind.filter(|_| !told::is_explained(self.message));
        let patience = kind.map(|kind| link.latency.patience(kind).saturating_add(carrying));
        Ok(Attempt {
            number,
            target,
            passed_over: Vec::new(),
            replaced: false,
            pending,
            snapshot,
            kind,
            begun,
            sent,
            large_bytes,
            carrying,
            deadline,
            patience,
            since,
            lateness: Lateness::InTime,
            watched: WatchedAttempt::default(),
            explanation: None,
        })
    }

    async fn wait(&self, mut attempt: Attempt) -> Event {
        let connection = Arc::clone(attempt.pending.connection());
        let alarm = connection.suspicion();
        let (since, heard) = attempt.since;
        let until = match attempt.patience {
            Some(patience) if attempt.lateness != Lateness::Silent => {
                attempt.deadline.min(since + patience.min(FAR_FUTURE))
            }
            _ => attempt.deadline,
        };
        let silent = tokio::select! {
            biased;
            answer = attempt.pending.answer() => {
                let result = answer.and_then(|frame| self.read(&mut attempt, frame));
                return attempt.ended(result);
            }
            () = alarm, if attempt.lateness != Lateness::Silent => true,
            () = sleep_until(until) => {
                let silent = connection.heard() == heard;
                if silent {
                    connection.suspect(heard);
                }
                if until == attempt.deadline {
                    let node = attempt.target.1.name().to_owned();
                    let after = attempt.begun.elapsed();
                    return attempt.ended(Err(Cause::TimedOut { node, after, sent: true, heard: !silent }));
                }
                silent
            }
        };
        attempt.lateness = if silent { Lateness::Silent } else { Lateness::Slow };
        attempt.since = (until, connection.heard());
        Event::Overdue { attempt, silent }
    }

    fn read(&self, attempt: &mut Attempt, frame: ResponseFrame) -> Result<Response, Cause> {
        let link = &attempt.target.1;
        if frame.ring_version > attempt.snapshot.ring_version() {
            self.router.refresh_in_background(link);
        }
        let (response, explanation) = frame.response.into_plain();
        attempt.explanation = explanation;
        match response {
            // A refusal is quick, and what a node did not manage in time says how slow others are.
            Response::Failed(failure) => {
                attempt.kind = None;
                if let Failure::Refused(Refusal::Stopping) = failure {
                    link.note_stopping();
                }
                Err(self.cause_of(failure, attempt))
            }
            response => Ok(response),
        }
    }

    /// After what time an attempt is given up. `None`: when the request is. What has been uploaded is not thrown away while it
    /// may still be answered: another node is asked beside it, as for all that is overdue, but only once each. A policy
    /// that forbids this gets the time that the value takes to carry, and may repeat the upload then.
    fn attempt_timeout(&self) -> Option<Duration> {
        let timeout = self.settings.attempt_timeout;
        let bytes = self.message.value_bytes() as u64;
        match self.is_large() {
            false => Some(timeout),
            true if self.settings.retry.hedges() => None,
            true => Some(timeout.saturating_add(Duration::from_micros(bytes / CARRIED_PER_MICROSECOND_MIN))),
        }
    }

    fn is_large(&self) -> bool {
        self.message.value_bytes() > FRAME_SHARED_MAX
    }

    /// A missing bucket is one refusal, whether the client knows of it or the node does.
    fn cause_of(&self, failure: Failure, attempt: &Attempt) -> Cause {
        match (failure, self.message.bucket()) {
            (Failure::Refused(Refusal::NoSuchBucket), Some(id)) => {
                let name = attempt.snapshot.topology.bucket(id).map(|bucket| bucket.name.to_string());
                Cause::NoSuchBucket(name.unwrap_or_else(|| id.0.to_string()))
            }
            (failure, _) => Cause::from_node(attempt.pending.connection().node(), failure),
        }
    }

    /// The best node for a route that is connected or soon will be. A node that takes long to connect is passed over
    /// while there is another; the attempt to connect goes on. If none can be had, it is the best one.
    async fn reachable(
        &self,
        snapshot: &Snapshot,
        best: (NodeId, Arc<Link>),
        mut avoid: Vec<NodeId>,
        passed_over: &mut Vec<NodeId>,
    ) -> Target {
        let mut candidate = best.clone();
        loop {
            let (node, link) = &candidate;
            let patience = self.clock.deadline.min(Instant::now() + CONNECT_PATIENCE);
            if link.connection_now().is_some() || matches!(timeout_at(patience, link.connection()).await, Ok(Ok(_))) {
                return (Some(candidate.0), candidate.1);
            }
            if passed_over.contains(node) {
                return (Some(best.0), best.1);
            }
            passed_over.push(*node);
            avoid.push(*node);
            match snapshot.choose(self.route, self.kind, &avoid) {
                Some(next) => candidate = next,
                None => return (Some(best.0), best.1),
            }
        }
    }
}

impl Attempt {
    fn ended(mut self, result: Result<Response, Cause>) -> Event {
        if result.is_ok() {
            self.measure();
        }
        self.watched.ended(self.target.1.name(), result.as_ref().err());
        if !matches!(result, Err(Cause::TimedOut { .. })) {
            self.kind = None;
        }
        let (target, passed_over) = (self.target.clone(), std::mem::take(&mut self.passed_over));
        let (replaced, explanation) = (self.replaced, self.explanation.take());
        Event::Ended { number: self.number, target, passed_over, replaced, explanation, result }
    }

    fn measure(&self) {
        if let Some(kind) = self.kind {
            let (now, latency) = (Instant::now(), &self.target.1.latency);
            let took = now - self.sent;
            if self.large_bytes > 0 {
                latency.carried(self.large_bytes, took.saturating_sub(latency.mean(kind).unwrap_or_default()), now);
            }
            // Carrying a large value is not the node's slowness.
            latency.answered(kind, took.saturating_sub(self.carrying), now);
        }
    }
}

impl Drop for Attempt {
    /// An attempt that was overtaken took at least as long as it did take. Would only answers count, a node that has
    /// become slow would never be known to be.
    fn drop(&mut self) {
        if self.lateness == Lateness::Slow {
            self.measure();
        }
        self.watched.overtaken(self.target.1.name());
    }
}

/// Bytes: a megabyte a second is what a bad line to a busy cluster carries.
const CARRIED_PER_MICROSECOND_MIN: u64 = 1;

/// Two round trips between continents: the handshake, and the greeting. Within it a connection is better waited for than passed over.
const CONNECT_PATIENCE: Duration = Duration::from_millis(350);

/// A round trip between continents.
const ANSWER_MARGIN: Duration = Duration::from_millis(150);
