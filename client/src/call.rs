//! One request: what it is, how much time it has, and its place among the others under way.
//!
//! ```text
//! permit ─▶ [race](crate::race): attempts at one node after the other, until one is answered or none is worth while
//! ```
//! The deadline of the call covers all of it. A put or delete carries its write id through all attempts.

use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::{Request, Response};
use driftless_proto::{BucketDefinition, Outcome};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::client::Inner;
use crate::error::{Cause, RequestError};
use crate::options::Settings;
use crate::pace::Kind;
use crate::race;
use crate::retry;
use crate::router::{Route, Snapshot};

/// A call's clock: when it began, and when it must have ended.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
}

/// A request and all that was decided about it before its first attempt.
pub(crate) struct Call<'a> {
    pub(crate) inner: &'a Arc<Inner>,
    pub(crate) request: &'a Request,
    pub(crate) route: Route,
    pub(crate) settings: &'a Settings,
    pub(crate) clock: Clock,
    /// `None`: its attempts are given all their time.
    pub(crate) kind: Option<Kind>,
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
        self.budget.earn();
        race::run(&Call { inner: self, request, route, settings, clock, kind: Kind::of(request) }).await
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

/// Longer timeouts mean "never"; adding one to a time must not overflow.
pub(crate) const FAR_FUTURE: Duration = Duration::from_secs(365 * 24 * 3600);
