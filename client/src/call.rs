//! One request from its first attempt to its answer or its error.
//!
//! ```text
//! permit ─▶ choose a link ─▶ connection ─▶ submit ─▶ answer ───────────────────────────▶ done
//!               ▲                                      │ failed
//!               └── same node, or the next ◀── wait ◀── policy ── give up, or no time left ──▶ RequestError
//! ```
//! The deadline of the call covers all of it. A put or delete carries its write id through all attempts.

use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::{Request, Response};
use driftless_proto::{BucketDefinition, Outcome};
use driftless_ring::NodeId;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::client::Inner;
use crate::error::{Cause, RequestError};
use crate::link::Link;
use crate::options::Settings;
use crate::retry::{self, Decision, FailedAttempt, RetryAt};
use crate::router::{Route, Snapshot};

/// A call's clock: when it began, and when it must have ended.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    deadline: Instant,
}

impl Clock {
    pub(crate) fn start(timeout: Duration) -> Clock {
        let started = Instant::now();
        Clock { started, deadline: started + timeout.min(FAR_FUTURE) }
    }
}

impl Inner {
    /// The bucket's definition, for which the topology is fetched again if it is not known.
    ///
    /// # Errors
    /// [`Cause::NoSuchBucket`], or why the topology could not be fetched.
    pub(crate) async fn bucket(&self, name: &str, clock: Clock) -> Result<(Arc<Snapshot>, BucketRef), RequestError> {
        let snapshot = self.router.snapshot();
        if let Some(bucket) = snapshot.topology.bucket_named(name).map(BucketRef::of) {
            return Ok((snapshot, bucket));
        }
        let timeout = self.settings.attempt_timeout;
        let fetched = match timeout_at(clock.deadline, self.router.refresh(None, timeout)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(Cause::NoSuchBucket(name.to_owned())),
        };
        let failed = |cause| RequestError::new(cause, 1, clock.started.elapsed(), Outcome::Refused);
        let snapshot = fetched.map_err(failed)?;
        match snapshot.topology.bucket_named(name).map(BucketRef::of) {
            Some(bucket) => Ok((snapshot, bucket)),
            None => Err(failed(Cause::NoSuchBucket(name.to_owned()))),
        }
    }

    /// Carries a request out.
    ///
    /// # Errors
    /// [`RequestError`] when the policy gave up or no time is left.
    pub(crate) async fn call(
        self: &Arc<Self>,
        request: &Request,
        route: Route,
        settings: &Settings,
        clock: Clock,
    ) -> Result<Response, RequestError> {
        let _permit = self.permit(request, clock).await?;
        let is_write = !request.is_read();
        let mut outcome = Outcome::Refused;
        let mut tried: Vec<NodeId> = Vec::new();
        let mut same: Option<(Option<NodeId>, Arc<Link>)> = None;
        let (mut number, mut at_node) = (0, 0);
        loop {
            number += 1;
            let snapshot = self.router.snapshot();
            let fail = |cause: Cause, outcome| RequestError::new(cause, number, clock.started.elapsed(), outcome);
            if let Route::Arc { q, .. } = route
                && q != snapshot.topology.ring().partitions()
            {
                return Err(fail(Cause::RingDivided, outcome));
            }
            let (node, link) = match (same.take(), &settings.via) {
                (Some(again), _) => again,
                (None, Some(via)) => match self.router.pinned(&snapshot, via, route) {
                    Ok(link) => (None, link),
                    Err(cause) => return Err(fail(cause, outcome)),
                },
                (None, None) => match reachable(&snapshot, route, &mut tried, clock).await {
                    Some((node, link)) => (Some(node), link),
                    None => return Err(fail(Cause::RingDivided, outcome)),
                },
            };
            at_node += 1;
            let cause = match self.attempt(request, &snapshot, &link, settings, clock).await {
                Ok(response) => {
                    tracing::debug!(node = link.name(), attempts = number, "answered");
                    return Ok(response);
                }
                Err(cause) => cause,
            };
            outcome = retry::join(outcome, &cause, is_write);
            let elapsed = clock.started.elapsed();
            tracing::debug!(node = link.name(), attempts = number, %cause, "attempt failed");
            let decision = settings.retry.decide(&FailedAttempt { number, at_node, cause: &cause, is_write, elapsed });
            let Decision::Retry { after, at } = decision else {
                return Err(fail(cause, outcome));
            };
            let resume = Instant::now() + after;
            if resume >= clock.deadline {
                return Err(fail(cause, outcome));
            }
            if retry::wants_ring(&cause) {
                // If it cannot be had now, the next attempt will say so again.
                let refreshed = self.router.refresh(Some(&link), settings.attempt_timeout);
                let _ = timeout_at(clock.deadline, refreshed).await;
            }
            tokio::time::sleep_until(resume).await;
            match at {
                RetryAt::Same => same = Some((node, link)),
                RetryAt::Next => {
                    at_node = 0;
                    tried.extend(node);
                }
            }
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        request: &Request,
        snapshot: &Snapshot,
        link: &Arc<Link>,
        settings: &Settings,
        clock: Clock,
    ) -> Result<Response, Cause> {
        let begun = Instant::now();
        let deadline = clock.deadline.min(begun + settings.attempt_timeout.min(FAR_FUTURE));
        let timed_out =
            |sent, heard| Cause::TimedOut { node: link.name().to_owned(), after: begun.elapsed(), sent, heard };
        let connection = match link.connection_now() {
            Some(connection) => connection,
            None => match timeout_at(deadline, link.connection()).await {
                Ok(connected) => {
                    connected.map_err(|failure| Cause::NotConnected { node: link.name().to_owned(), failure })?
                }
                Err(_) => return Err(timed_out(false, false)),
            },
        };
        let remaining = deadline.saturating_duration_since(Instant::now());
        // The node gives up a little earlier, so that what it knows by then arrives in time. Zero would be no time at all.
        let for_node = remaining - (remaining / 8).min(ANSWER_MARGIN);
        let deadline_ms = u32::try_from(for_node.as_millis()).unwrap_or(u32::MAX).max(1);
        let heard_before = connection.heard();
        let pending = connection.submit(request, snapshot.ring_version(), deadline_ms)?;
        let frame = match timeout_at(deadline, pending.answer()).await {
            Ok(answer) => answer?,
            Err(_) => {
                let heard = connection.heard() > heard_before;
                if !heard {
                    connection.suspect();
                }
                return Err(timed_out(true, heard));
            }
        };
        if frame.ring_version > snapshot.ring_version() {
            self.refresh_in_background(link);
        }
        match frame.response {
            Response::Failed(failure) => Err(Cause::from_node(connection.node(), failure)),
            response => Ok(response),
        }
    }

    /// Waits for room among the requests under way. A large value counts as several requests.
    async fn permit(&self, request: &Request, clock: Clock) -> Result<SemaphorePermit<'_>, RequestError> {
        let weight = match request {
            Request::Put(put) => 1 + put.value.len() / PERMIT_BYTES,
            _ => 1,
        };
        let weight = u32::try_from(weight.min(self.in_flight_max)).unwrap_or(u32::MAX);
        if let Ok(permit) = self.in_flight.try_acquire_many(weight) {
            return Ok(permit);
        }
        match timeout_at(clock.deadline, self.in_flight.acquire_many(weight)).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => {
                let cause = Cause::Busy { limit: self.in_flight_max };
                Err(RequestError::new(cause, 0, clock.started.elapsed(), Outcome::Refused))
            }
        }
    }

    /// An answer that does not fit its request. The request may have been carried out all the same.
    pub(crate) fn misunderstood(&self, request: &Request) -> RequestError {
        let cause = Cause::Misunderstood { node: "a node".into() };
        let outcome = retry::join(Outcome::Refused, &cause, !request.is_read());
        RequestError::new(cause, 1, Duration::ZERO, outcome)
    }
}

/// The best node for a route that is connected or soon will be. One that takes long to connect is passed over, and
/// noted as tried, while there is another; the attempt to connect goes on. If none can be had, it is the best one.
async fn reachable(
    snapshot: &Snapshot,
    route: Route,
    tried: &mut Vec<NodeId>,
    clock: Clock,
) -> Option<(NodeId, Arc<Link>)> {
    let best = snapshot.choose(route, tried)?;
    let mut passed_over: Vec<NodeId> = Vec::new();
    let mut candidate = best.clone();
    loop {
        let (node, link) = &candidate;
        let patience = clock.deadline.min(Instant::now() + CONNECT_PATIENCE);
        if link.connection_now().is_some() || matches!(timeout_at(patience, link.connection()).await, Ok(Ok(_))) {
            return Some(candidate);
        }
        if passed_over.contains(node) {
            return Some(best);
        }
        passed_over.push(*node);
        tried.push(*node);
        candidate = snapshot.choose(route, tried)?;
    }
}

/// What a request needs to know of its bucket.
#[derive(Clone, Copy)]
pub(crate) struct BucketRef {
    pub(crate) id: driftless_proto::BucketId,
    pub(crate) n: u8,
}

impl BucketRef {
    fn of(definition: &BucketDefinition) -> BucketRef {
        BucketRef { id: definition.id, n: definition.quorum.n() }
    }
}

/// As much as a frame on the shared stream: with 10,000 permits at most 640 MiB wait to be written.
const PERMIT_BYTES: usize = 64 * 1024;

/// Several round trips between continents. Within it a connection is better waited for than passed over.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);

/// A round trip between continents.
const ANSWER_MARGIN: Duration = Duration::from_millis(150);

/// Longer timeouts mean "never"; adding one to a time must not overflow.
const FAR_FUTURE: Duration = Duration::from_secs(365 * 24 * 3600);
