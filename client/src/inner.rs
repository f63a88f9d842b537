//! What all clones of a client share, and the way of every request through it.
//!
//! ```text
//! permit ─▶ attempts at one node after the other, until one is answered or none is worth while
//! ```
//! See [`attempts`]. A put or delete carries its write id through all attempts.

use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::{self as wire, Response};
use driftless_proto::observed::{Observed, ObservedRequest};
use driftless_proto::{BucketDefinition, Outcome, WriteId};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;

use crate::attempts;
use crate::clock::Clock;
use crate::entry::Entry;
use crate::error::{CAUSES_MAX, Cause, RequestError};
use crate::hedge_budget::HedgeBudget;
use crate::io::Io;
use crate::latency::Kind;
use crate::options::Settings;
use crate::request::Request;
use crate::retry;
use crate::router::{Route, Router, Snapshot};
use crate::told::Answered;
use crate::turns::Turns;
use crate::watched;

/// Connections, ring and limits of a client.
pub(crate) struct Inner {
    entry: Entry,
    pub(crate) settings: Arc<Settings>,
    /// A permit for each request under way; of a large value several.
    in_flight: Semaphore,
    in_flight_max: usize,
    hedge_budget: HedgeBudget,
    pub(crate) turns: Turns,
    pub(crate) io: Arc<Io>,
}

impl Inner {
    pub(crate) fn new(io: Arc<Io>, entry: Entry, settings: Arc<Settings>, in_flight_max: usize) -> Inner {
        let in_flight_max = in_flight_max.min(Semaphore::MAX_PERMITS);
        Inner {
            entry,
            settings,
            in_flight: Semaphore::new(in_flight_max),
            in_flight_max,
            hedge_budget: HedgeBudget::new(),
            turns: Turns::default(),
            io,
        }
    }

    /// The bucket's definition, for which the topology is fetched again if it is not known.
    ///
    /// # Errors
    /// [`Cause::NoSuchBucket`], or why the topology could not be fetched.
    pub(crate) async fn bucket(&self, name: &str, clock: Clock) -> Result<(Arc<Snapshot>, BucketRef), RequestError> {
        let router = match self.entry.known() {
            Some(router) => router,
            None => {
                self.check(self.settings.attempt_timeout, clock)?;
                self.router(clock).await?
            }
        };
        let snapshot = router.snapshot();
        if let Some(bucket) = snapshot.topology.bucket_named(name).map(BucketRef::of) {
            return Ok((snapshot, bucket));
        }
        let snapshot = Box::pin(self.refresh(clock)).await?;
        match snapshot.topology.bucket_named(name).map(BucketRef::of) {
            Some(bucket) => Ok((snapshot, bucket)),
            None => Err(RequestError::once(Cause::NoSuchBucket(name.to_owned()), clock.started.elapsed())),
        }
    }

    /// Fetches the topology again, from any node that answers.
    ///
    /// # Errors
    /// What happened with each node that was asked.
    pub(crate) async fn refresh(&self, clock: Clock) -> Result<Arc<Snapshot>, RequestError> {
        self.check(self.settings.attempt_timeout, clock)?;
        let router = self.router(clock).await?;
        let refreshed = router.refresh(None, self.settings.attempt_timeout, clock.deadline).await;
        refreshed.map_err(|mut causes| {
            let attempts = causes.len() as u32; // at most one per member and seed
            let last = causes.last().cloned().expect("at least one was asked");
            causes.drain(..causes.len().saturating_sub(CAUSES_MAX));
            RequestError::new(last, causes, attempts, clock.started.elapsed(), Outcome::Refused)
        })
    }

    /// Asks the seeds for the topology, once, or for as long as that.
    ///
    /// # Errors
    /// What happened last at each seed.
    pub(crate) async fn open(&self, patience: Duration) -> Result<(), Vec<(String, RequestError)>> {
        self.entry.open(patience).await
    }

    /// The topology as last heard of, if anything was.
    pub(crate) fn known(&self) -> Option<Arc<Snapshot>> {
        self.entry.known().map(|router| router.snapshot())
    }

    /// Refuses what cannot be sent at all: the client has ended, there is no runtime, or no time is given.
    pub(crate) fn check(&self, attempt_timeout: Duration, clock: Clock) -> Result<(), RequestError> {
        let allowed = clock.allowed().min(attempt_timeout);
        let cause = match self.io.ended() {
            Some(cause) => cause,
            None if Handle::try_current().is_err() => Cause::NoRuntime,
            None if allowed.is_zero() || clock.remaining().is_zero() => Cause::OutOfTime { allowed },
            None => return Ok(()),
        };
        Err(RequestError::new(cause, Vec::new(), 0, clock.started.elapsed(), Outcome::Refused))
    }

    /// Carries a request out.
    ///
    /// # Errors
    /// [`RequestError`] when the policy gave up or no time is left.
    pub(crate) async fn carry_out(
        &self,
        message: &wire::Request,
        route: Route,
        settings: &Settings,
        clock: Clock,
    ) -> Result<Response, RequestError> {
        Ok(self.carry_out_and_tell(message, route, settings, clock).await?.response)
    }

    /// The same, with what is told beside the answer.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn carry_out_and_tell(
        &self,
        message: &wire::Request,
        route: Route,
        settings: &Settings,
        clock: Clock,
    ) -> Result<Answered, RequestError> {
        self.answer(message, route, settings, clock).await.map_err(|error| match write_id(message) {
            Some(id) => error.of_write(id),
            None => error,
        })
    }

    async fn answer(
        &self,
        message: &wire::Request,
        route: Route,
        settings: &Settings,
        clock: Clock,
    ) -> Result<Answered, RequestError> {
        self.check(settings.attempt_timeout, clock)?;
        let router = self.router(clock).await?;
        let _permit = self.permit(message, clock).await?;
        self.hedge_budget.earn();
        watched::note_partition(|| router.snapshot().partition(route));
        let Inner { io, hedge_budget, .. } = self;
        let kind = Kind::of(message);
        attempts::run(&Request { router, io, hedge_budget, message, route, settings, clock, kind }).await
    }

    /// The way to every node. What is large and seldom is in a box, here and below: it would be a part of every request, which is
    /// moved several times before it begins.
    async fn router(&self, clock: Clock) -> Result<&Arc<Router>, RequestError> {
        match self.entry.known() {
            Some(router) => Ok(router),
            None => Box::pin(self.entry.router(clock)).await,
        }
    }

    /// Waits for room among the requests under way. A large value counts as several requests.
    async fn permit(&self, message: &wire::Request, clock: Clock) -> Result<SemaphorePermit<'_>, RequestError> {
        let weight = 1 + message.value_bytes() / PERMIT_BYTES;
        let weight = u32::try_from(weight.min(self.in_flight_max)).unwrap_or(u32::MAX);
        if let Ok(permit) = self.in_flight.try_acquire_many(weight) {
            return Ok(permit);
        }
        let cause = match Box::pin(timeout_at(clock.deadline, self.in_flight.acquire_many(weight))).await {
            Ok(Ok(permit)) => return Ok(permit),
            Ok(Err(_closed)) => Cause::ClientClosed,
            Err(_) => Cause::Busy { limit: self.in_flight_max },
        };
        Err(RequestError::new(cause, Vec::new(), 0, clock.started.elapsed(), Outcome::Refused))
    }

    /// An answer that does not fit its request. The request may have been carried out all the same.
    pub(crate) fn misunderstood(&self, message: &wire::Request) -> RequestError {
        let cause = Cause::Misunderstood { node: "a node".into() };
        let outcome = retry::join(Outcome::Refused, &cause, !message.is_read());
        let error = RequestError::new(cause.clone(), vec![cause], 1, Duration::ZERO, outcome);
        match write_id(message) {
            Some(id) => error.of_write(id),
            None => error,
        }
    }

    pub(crate) async fn close(&self) {
        // Requests that wait for room would wait for nothing.
        self.in_flight.close();
        self.io.close().await;
    }
}

fn write_id(message: &wire::Request) -> Option<WriteId> {
    match message {
        wire::Request::Put(put) | wire::Request::Observed(Observed { request: ObservedRequest::Put(put), .. }) => {
            Some(put.write_id)
        }
        wire::Request::Delete(delete)
        | wire::Request::Observed(Observed { request: ObservedRequest::Delete(delete), .. }) => Some(delete.write_id),
        _ => None,
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
