//! The attempts of a request, from the first one to the answer or the error.
//!
//! ```text
//! first attempt ──▶ overdue? ──▶ another node, beside the first      the first answer wins
//!               ──▶ failed?  ──▶ policy: later, same node or next, or give up
//! ```
//! Going to another node because one is *slow* is paid from the client's [`HedgeBudget`](crate::hedge_budget::HedgeBudget).
//! Because one is *silent* it is free, but only nodes that are not silent themselves are gone to: when everything stands still,
//! each request waits where it is. A request is made at most once at each node in this way; all else the policy decides.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use driftless_proto::Outcome;
use driftless_proto::observed::Explanation;
use driftless_ring::NodeId;
use tokio::time::{Instant, timeout_at};

use crate::attempt::{Attempt, Event, Step, Target};
use crate::counts::{Occasion, count};
use crate::error::{CAUSES_MAX, Cause, RequestError};
use crate::link::Link;
use crate::request::Request;
use crate::retry::{self, Decision, FailedAttempt, RetryAt};
use crate::router::{Route, Snapshot};
use crate::told::{self, Answered, Told, Tried};
use crate::watched;

/// How far the attempts of a request have got.
struct Attempts<'a> {
    request: &'a Request<'a>,
    /// How many were begun.
    begun: u32,
    /// How many failed before their time.
    early: u32,
    /// How many in a row the node of the last one has had.
    at_node: u32,
    /// Nodes that had an attempt, once for each.
    nodes: Vec<NodeId>,
    under_way: Vec<UnderWay>,
    /// Of the attempts that are over.
    outcome: Outcome,
    /// Why they did not succeed: the latest [`CAUSES_MAX`].
    causes: VecDeque<Cause>,
    /// The same in words by the attempts' numbers, with those that are only late, of a request that is to be explained.
    tried: Vec<(u32, Tried)>,
    /// How the last failure came about that a node has explained, and of which attempt.
    explanation: Option<(u32, Box<Explanation>)>,
    /// When the next attempt shall be made, and where if not at the best node.
    resume: Option<(Instant, Option<Target>)>,
    /// The policy gave up for this reason; an attempt that is under way may still succeed.
    given_up: Option<Cause>,
}

/// An attempt that is under way.
struct UnderWay {
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
pub(crate) async fn run(request: &Request<'_>) -> Result<Answered, RequestError> {
    let mut attempts = Attempts {
        request,
        begun: 0,
        early: 0,
        at_node: 0,
        nodes: Vec::new(),
        under_way: Vec::new(),
        outcome: Outcome::Refused,
        causes: VecDeque::new(),
        tried: Vec::new(),
        explanation: None,
        resume: None,
        given_up: None,
    };
    let mut futures = vec![Box::pin(request.carry_on(attempts.begin(None)?))];
    loop {
        let event = match &attempts.resume {
            None => Some(next_event(&mut futures).await),
            Some((at, _)) => timeout_at(*at, next_event(&mut futures)).await.ok(),
        };
        match event {
            Some(Event::Ended { number, target, explanation, result: Ok(response), .. }) => {
                watched::note_answered(target.1.name(), attempts.begun);
                attempts.overtaken(number);
                return Ok(Answered { response, told: Told { explanation, tried: attempts.tried_beside(number) } });
            }
            Some(Event::Ended { number, target, passed_over, replaced, explanation, result: Err(cause) }) => {
                attempts.nodes.extend(passed_over);
                attempts.explanation = explanation.map(|told| (number, told)).or(attempts.explanation.take());
                attempts.under_way.retain(|other| other.number != number);
                attempts.failed(number, target, replaced, cause).await?;
            }
            Some(Event::Overdue { mut attempt, silent }) => {
                attempts.learn(&attempt);
                if silent {
                    attempts.check_arc(&request.router.snapshot())?;
                }
                let another = attempts.elsewhere(&mut attempt, silent);
                futures.extend(
                    [Step::Wait(attempt)].into_iter().chain(another).map(|step| Box::pin(request.carry_on(step))),
                );
            }
            None => {
                let at = attempts.resume.take().and_then(|(_, at)| at);
                count(Occasion::Retry);
                futures.push(Box::pin(request.carry_on(attempts.begin(at)?)));
            }
        }
    }
}

/// The next event of any attempt under way; never, if there is none. They are too few for `FuturesUnordered`, which
/// would wake this task once more for every poll.
async fn next_event(futures: &mut Vec<impl Future<Output = Event> + Unpin>) -> Event {
    poll_fn(|context| {
        for at in 0..futures.len() {
            if let Poll::Ready(event) = Pin::new(&mut futures[at]).poll(context) {
                drop(futures.swap_remove(at));
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    })
    .await
}

impl Attempts<'_> {
    /// The next attempt: there, or at the best node that has none yet.
    fn begin(&mut self, at: Option<Target>) -> Result<Step, RequestError> {
        let snapshot = self.request.router.snapshot();
        self.check_arc(&snapshot)?;
        let (target, avoid) = match (at, &self.request.settings.via) {
            (Some(again), _) => (again, None),
            (None, Some(via)) => match self.request.router.pinned(&snapshot, via, self.request.route) {
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

    /// Whether the request means the same by this ring: that of a later version may have other arcs, and a request that names one must be made
    /// anew.
    fn check_arc(&self, snapshot: &Snapshot) -> Result<(), RequestError> {
        match self.request.route {
            Route::Arc { q, .. } if q != snapshot.topology.ring().partitions() => Err(self.error(Cause::RingDivided)),
            _ => Ok(()),
        }
    }

    fn start(&mut self, snapshot: Arc<Snapshot>, target: Target, avoid: Option<Vec<NodeId>>) -> Step {
        self.begun += 1;
        self.at_node += 1;
        count(Occasion::Attempt);
        let (number, (node, link)) = (self.begun, target.clone());
        self.under_way.push(UnderWay { number, node, link });
        Step::Begin { number, snapshot, target, avoid }
    }

    /// Where an attempt was made in the end.
    fn learn(&mut self, attempt: &Attempt) {
        if let Some(known) = self.under_way.iter_mut().find(|known| known.number == attempt.number) {
            (known.node, known.link) = attempt.target.clone();
        }
    }

    /// An attempt at another node because this attempt is overdue, if there is a node that may do better.
    fn elsewhere(&mut self, overdue: &mut Attempt, silent: bool) -> Option<Step> {
        self.nodes.append(&mut overdue.passed_over);
        let (node, link) = &overdue.target;
        let node = (*node)?;
        // What comes next has been decided already.
        if overdue.replaced || self.resume.is_some() || self.given_up.is_some() || !self.request.settings.retry.hedges()
        {
            return None;
        }
        let snapshot = self.request.router.snapshot();
        self.check_arc(&snapshot).ok()?;
        let (next, next_link) = self.choose(&snapshot)?;
        let is_better = next_link.is_promising() && next != node && !self.avoided().contains(&next);
        if !is_better || !(silent || self.request.hedge_budget.spend()) {
            return None;
        }
        tracing::debug!(node = link.name(), attempts = self.begun, silent, next = next_link.name(), "overdue");
        count(Occasion::Hedge);
        overdue.replaced = true;
        self.at_node = 0;
        let avoid = self.avoided();
        Some(self.start(snapshot, (Some(next), next_link), Some(avoid)))
    }

    async fn failed(&mut self, number: u32, target: Target, replaced: bool, cause: Cause) -> Result<(), RequestError> {
        let (node, link) = target;
        let is_write = !self.request.message.is_read();
        self.outcome = retry::join(self.outcome, &cause, is_write);
        tracing::debug!(node = link.name(), attempts = self.begun, %cause, "attempt failed");
        self.early += u32::from(!matches!(cause, Cause::TimedOut { .. }));
        if self.causes.len() == CAUSES_MAX {
            self.causes.pop_front();
        }
        self.causes.push_back(cause.clone());
        self.note(number, &link, || cause.to_string());
        if let Some(ended) = self.request.io.ended() {
            return Err(self.error(ended));
        }
        if let Some(reason) = self.given_up.take() {
            return self.give_up(reason);
        }
        if replaced && (self.resume.is_some() || !self.under_way.is_empty()) {
            self.nodes.extend(node);
            return Ok(());
        }
        let settings = self.request.settings;
        let elapsed = self.request.clock.started.elapsed();
        let alike = self.causes.iter().filter(|other| retry::is_alike(other, &cause)).count() as u32; // CAUSES_MAX
        let (number, early, at_node) = (self.begun, self.early, self.at_node);
        let bytes = self.request.message.value_bytes();
        let failed = FailedAttempt { number, early, alike, at_node, cause: &cause, is_write, bytes, elapsed };
        let Decision::Retry { after, at } = settings.retry.decide(&failed) else {
            return self.give_up(cause);
        };
        let resume = Instant::now() + after;
        // An attempt that could not be answered in time would only hide why the others were not.
        let worth_while = self.request.clock.deadline.checked_sub(LEAST_TIME.min(self.request.clock.allowed() / 10));
        if worth_while.is_none_or(|until| resume >= until) {
            return self.give_up(cause);
        }
        if retry::wants_ring(&cause) {
            // If it cannot be had now, the next attempt will say so again. It leaves time for that attempt.
            let timeout = settings.attempt_timeout.min(self.request.clock.remaining() / 2);
            let deadline = Instant::now() + timeout;
            // Seldom, and large: a box keeps it out of every request.
            let _ = Box::pin(self.request.router.refresh(Some(&link), timeout, deadline)).await;
        }
        self.resume = Some(match at {
            RetryAt::Same => (resume, Some((node, link))),
            RetryAt::Next => {
                self.at_node = 0;
                self.nodes.extend(node);
                (resume, None)
            }
        });
        Ok(())
    }

    /// Ends the request, unless an attempt is under way at a node that is not known to be silent.
    fn give_up(&mut self, cause: Cause) -> Result<(), RequestError> {
        self.resume = None;
        if self.under_way.iter().any(|other| other.link.may_answer()) {
            self.given_up = Some(cause);
            return Ok(());
        }
        Err(self.error(cause))
    }

    fn choose(&self, snapshot: &Snapshot) -> Option<(NodeId, Arc<Link>)> {
        snapshot.choose(self.request.route, self.request.kind, &self.avoided())
    }

    /// Nodes that others are better than: they had an attempt, or have one now.
    fn avoided(&self) -> Vec<NodeId> {
        self.nodes.iter().copied().chain(self.under_way.iter().filter_map(|other| other.node)).collect()
    }

    fn error(&self, cause: Cause) -> RequestError {
        // What is still under way may take effect as well.
        let outcome = match self.under_way.is_empty() || self.request.message.is_read() {
            true => self.outcome,
            false => Outcome::Unknown,
        };
        let causes = self.causes.iter().cloned().collect();
        let error = RequestError::new(cause, causes, self.begun, self.request.clock.started.elapsed(), outcome);
        match &self.explanation {
            Some((number, explanation)) => error.explained(explanation.clone(), self.tried_beside(*number)),
            None => error,
        }
    }

    /// Another answer was there before those that are still to come.
    fn overtaken(&mut self, by: u32) {
        for other in std::mem::take(&mut self.under_way).into_iter().filter(|other| other.number != by) {
            self.note(other.number, &other.link, || "it had not answered yet when another node did".to_owned());
        }
    }

    /// What was tried besides this attempt.
    fn tried_beside(&self, number: u32) -> Vec<Tried> {
        self.tried.iter().filter(|(other, _)| *other != number).map(|(_, tried)| tried.clone()).collect()
    }

    fn note(&mut self, number: u32, link: &Link, why: impl FnOnce() -> String) {
        if told::is_explained(self.request.message) && self.tried.len() < CAUSES_MAX {
            self.tried.push((number, Tried { node: link.name().to_owned(), why: why() }));
        }
    }
}

/// No attempt is begun later than this before the deadline of the request, nor in the last tenth of it if that is less: a
/// round trip, a disk and a busy peer.
const LEAST_TIME: Duration = Duration::from_millis(20);
