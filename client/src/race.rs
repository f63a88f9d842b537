//! A request from its first attempt to its answer or its error.
//!
//! ```text
//! first attempt ──▶ overdue? ──▶ another node, beside the first      the first answer wins
//!               ──▶ failed?  ──▶ policy: later, same node or next, or give up
//! ```
//! Going to another node because one is *slow* is paid from the client's [`Budget`](crate::budget::Budget). Because
//! one is *silent* it is free, but only nodes that are not silent themselves are gone to: when everything stands still,
//! each request waits where it is. A request is made at most once at each node in this way; all else the policy decides.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use driftless_proto::Outcome;
use driftless_proto::client::Response;
use driftless_ring::NodeId;
use tokio::time::{Instant, timeout_at};

use crate::attempt::{Event, Flight, Leg, Target};
use crate::call::Call;
use crate::error::{CAUSES_MAX, Cause, RequestError};
use crate::link::Link;
use crate::retry::{self, Decision, FailedAttempt, RetryAt};
use crate::router::{Route, Snapshot};

/// How far a request has got.
struct Race<'a> {
    call: &'a Call<'a>,
    /// Attempts that were begun.
    attempts: u32,
    /// Attempts that failed before their time.
    early: u32,
    /// In a row at the node of the last one.
    at_node: u32,
    /// Nodes that had an attempt, once for each.
    tried: Vec<NodeId>,
    /// Attempts that are under way.
    asked: Vec<Asked>,
    /// Of the attempts that are over.
    outcome: Outcome,
    /// Why they did not succeed: the latest [`CAUSES_MAX`].
    causes: VecDeque<Cause>,
    /// When the next attempt shall be made, and where if not at the best node.
    resume: Option<(Instant, Option<Target>)>,
    /// The policy gave up for this reason; an attempt that is under way may still succeed.
    given_up: Option<Cause>,
}

struct Asked {
    /// Which attempt it is. Its node may turn out to be another one than was thought.
    number: u32,
    /// `None`: the user chose it.
    node: Option<NodeId>,
    link: Arc<Link>,
}

/// Makes attempts until one succeeds.
///
/// # Errors
/// [`RequestError`] when the policy gave up or no time is left.
pub(crate) async fn run(call: &Call<'_>) -> Result<Response, RequestError> {
    let mut race = Race {
        call,
        attempts: 0,
        early: 0,
        at_node: 0,
        tried: Vec::new(),
        asked: Vec::new(),
        outcome: Outcome::Refused,
        causes: VecDeque::new(),
        resume: None,
        given_up: None,
    };
    let mut legs = vec![Box::pin(call.leg(race.begin(None)?))];
    loop {
        let event = match &race.resume {
            None => Some(next_event(&mut legs).await),
            Some((at, _)) => timeout_at(*at, next_event(&mut legs)).await.ok(),
        };
        match event {
            Some(Event::Ended { target, result: Ok(response), .. }) => {
                tracing::debug!(node = target.1.name(), attempts = race.attempts, "answered");
                return Ok(response);
            }
            Some(Event::Ended { number, target, passed_over, replaced, result: Err(cause) }) => {
                race.tried.extend(passed_over);
                race.asked.retain(|asked| asked.number != number);
                race.failed(target, replaced, cause).await?;
            }
            Some(Event::Overdue { mut flight, silent }) => {
                race.learn(&flight);
                let another = race.elsewhere(&mut flight, silent);
                legs.extend([Leg::Wait(flight)].into_iter().chain(another).map(|leg| Box::pin(call.leg(leg))));
            }
            None => {
                let at = race.resume.take().and_then(|(_, at)| at);
                legs.push(Box::pin(call.leg(race.begin(at)?)));
            }
        }
    }
}

/// The next event of any attempt under way; never, if there is none. They are too few for `FuturesUnordered`, which
/// would wake this task once more for every poll.
async fn next_event(legs: &mut Vec<impl Future<Output = Event> + Unpin>) -> Event {
    poll_fn(|context| {
        for at in 0..legs.len() {
            if let Poll::Ready(event) = Pin::new(&mut legs[at]).poll(context) {
                drop(legs.swap_remove(at));
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    })
    .await
}

impl Race<'_> {
    /// The next attempt: there, or at the best node that is not asked already.
    fn begin(&mut self, at: Option<Target>) -> Result<Leg, RequestError> {
        let snapshot = self.call.router.snapshot();
        if let Route::Arc { q, .. } = self.call.route
            && q != snapshot.topology.ring().partitions()
        {
            return Err(self.error(Cause::RingDivided));
        }
        let (target, avoid) = match (at, &self.call.settings.via) {
            (Some(again), _) => (again, None),
            (None, Some(via)) => match self.call.router.pinned(&snapshot, via, self.call.route) {
                Ok(link) => ((None, link), None),
                Err(cause) => return Err(self.error(cause)),
            },
            (None, None) => match self.choose(&snapshot) {
                Some((node, link)) => ((Some(node), link), Some(self.avoided())),
                None => return Err(self.error(Cause::RingDivided)),
            },
        };
        Ok(self.start(snapshot, target, avoid))
    }

    fn start(&mut self, snapshot: Arc<Snapshot>, target: Target, avoid: Option<Vec<NodeId>>) -> Leg {
        self.attempts += 1;
        self.at_node += 1;
        let (number, (node, link)) = (self.attempts, target.clone());
        self.asked.push(Asked { number, node, link });
        Leg::Start { number, snapshot, target, avoid }
    }

    /// Where an attempt was made in the end.
    fn learn(&mut self, flight: &Flight) {
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.number == flight.number) {
            (asked.node, asked.link) = flight.target.clone();
        }
    }

    /// An attempt at another node because this attempt is overdue, if there is a node that may do better.
    fn elsewhere(&mut self, overdue: &mut Flight, silent: bool) -> Option<Leg> {
        self.tried.append(&mut overdue.passed_over);
        let (node, link) = &overdue.target;
        let node = (*node)?;
        // What comes next has been decided already.
        if overdue.replaced || self.resume.is_some() || self.given_up.is_some() || !self.call.settings.retry.hedges() {
            return None;
        }
        let snapshot = self.call.router.snapshot();
        let (next, next_link) = self.choose(&snapshot)?;
        let is_better = next_link.is_promising() && next != node && !self.avoided().contains(&next);
        if !is_better || !(silent || self.call.budget.spend()) {
            return None;
        }
        tracing::debug!(node = link.name(), attempts = self.attempts, silent, next = next_link.name(), "overdue");
        overdue.replaced = true;
        self.at_node = 0;
        let avoid = self.avoided();
        Some(self.start(snapshot, (Some(next), next_link), Some(avoid)))
    }

    async fn failed(&mut self, target: Target, replaced: bool, cause: Cause) -> Result<(), RequestError> {
        let (node, link) = target;
        let is_write = !self.call.request.is_read();
        self.outcome = retry::join(self.outcome, &cause, is_write);
        tracing::debug!(node = link.name(), attempts = self.attempts, %cause, "attempt failed");
        self.early += u32::from(!matches!(cause, Cause::TimedOut { .. }));
        if self.causes.len() == CAUSES_MAX {
            self.causes.pop_front();
        }
        self.causes.push_back(cause.clone());
        if let Some(ended) = self.call.io.ended() {
            return Err(self.error(ended));
        }
        if let Some(reason) = self.given_up.take() {
            return self.give_up(reason);
        }
        if replaced && (self.resume.is_some() || !self.asked.is_empty()) {
            self.tried.extend(node);
            return Ok(());
        }
        let settings = self.call.settings;
        let elapsed = self.call.clock.started.elapsed();
        let alike = self.causes.iter().filter(|other| retry::is_alike(other, &cause)).count() as u32; // CAUSES_MAX
        let (number, early, at_node) = (self.attempts, self.early, self.at_node);
        let bytes = self.call.request.value_bytes();
        let failed = FailedAttempt { number, early, alike, at_node, cause: &cause, is_write, bytes, elapsed };
        let Decision::Retry { after, at } = settings.retry.decide(&failed) else {
            return self.give_up(cause);
        };
        let resume = Instant::now() + after;
        // What could not be answered in time would only hide why the others were not.
        let worth_while = self.call.clock.deadline.checked_sub(LEAST_TIME.min(self.call.clock.allowed() / 10));
        if worth_while.is_none_or(|until| resume >= until) {
            return self.give_up(cause);
        }
        if retry::wants_ring(&cause) {
            // If it cannot be had now, the next attempt will say so again. It leaves time for that attempt.
            let timeout = settings.attempt_timeout.min(self.call.clock.remaining() / 2);
            let deadline = Instant::now() + timeout;
            let _ = self.call.router.refresh(Some(&link), timeout, deadline).await;
        }
        self.resume = Some(match at {
            RetryAt::Same => (resume, Some((node, link))),
            RetryAt::Next => {
                self.at_node = 0;
                self.tried.extend(node);
                (resume, None)
            }
        });
        Ok(())
    }

    /// Ends the request, unless an attempt is under way at a node that is not known to be silent.
    fn give_up(&mut self, cause: Cause) -> Result<(), RequestError> {
        self.resume = None;
        if self.asked.iter().any(|asked| asked.link.is_promising()) {
            self.given_up = Some(cause);
            return Ok(());
        }
        Err(self.error(cause))
    }

    fn choose(&self, snapshot: &Snapshot) -> Option<(NodeId, Arc<Link>)> {
        snapshot.choose(self.call.route, self.call.kind, &self.avoided())
    }

    /// Nodes that others are better than: they had an attempt, or have one now.
    fn avoided(&self) -> Vec<NodeId> {
        self.tried.iter().copied().chain(self.asked.iter().filter_map(|asked| asked.node)).collect()
    }

    fn error(&self, cause: Cause) -> RequestError {
        // What is still under way may take effect as well.
        let outcome = match self.asked.is_empty() || self.call.request.is_read() {
            true => self.outcome,
            false => Outcome::Unknown,
        };
        let causes = self.causes.iter().cloned().collect();
        RequestError::new(cause, causes, self.attempts, self.call.clock.started.elapsed(), outcome)
    }
}

/// No attempt is begun later than this before the deadline of the call, nor in the last tenth of it if that is less: a
/// round trip, a disk and a busy peer.
const LEAST_TIME: Duration = Duration::from_millis(20);
