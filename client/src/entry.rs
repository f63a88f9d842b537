//! The way into a cluster: its seeds, until one of them has told the topology.
//!
//! ```text
//! connect        asks all seeds, once or for a while          an error: no client
//! connect_lazy   asks nobody; the first request does          an error of that request; the next one asks again
//! ```
//! One request asks at a time, for all that wait; when its time is over, the next one goes on, over the same connections: what one
//! request had no time to wait for is there for the next. Each has its own deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use driftless_proto::Outcome;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout_at};

use crate::clock::Clock;
use crate::error::{Cause, RequestError};
use crate::io::Io;
use crate::link::Link;
use crate::options::Settings;
use crate::retry::Backoff;
use crate::router::Router;

/// Seeds, and what came of them.
pub(crate) struct Entry {
    io: Arc<Io>,
    seeds: Vec<String>,
    settings: Arc<Settings>,
    /// Ways to the seeds, from the first time that they are asked until one has answered.
    links: Mutex<Vec<Arc<Link>>>,
    router: OnceCell<Arc<Router>>,
    /// What happened last at each seed.
    failures: Mutex<BTreeMap<String, Cause>>,
}

impl Entry {
    pub(crate) fn new(io: Arc<Io>, seeds: Vec<String>, settings: Arc<Settings>) -> Entry {
        Entry { io, seeds, settings, links: Mutex::default(), router: OnceCell::new(), failures: Mutex::default() }
    }

    /// The way to every node, if any node has told of them yet.
    pub(crate) fn known(&self) -> Option<&Arc<Router>> {
        self.router.get()
    }

    /// The way to every node. Asks the seeds, if none has answered yet, until one does or the time is over.
    ///
    /// # Errors
    /// What happened last at each seed.
    pub(crate) async fn router(&self, clock: Clock) -> Result<&Arc<Router>, RequestError> {
        if let Some(router) = self.router.get() {
            return Ok(router);
        }
        let found = self.router.get_or_try_init(|| async {
            let (links, mut rounds) = (self.links(), 0);
            loop {
                rounds += 1;
                let found = self.ask(&links).await;
                let backoff = SEEDS.after(rounds, self.io.chance());
                if found.is_ok() || self.is_hopeless() || backoff >= clock.remaining() {
                    return found;
                }
                sleep(backoff).await;
            }
        });
        match timeout_at(clock.deadline, found).await {
            Ok(Ok(router)) => Ok(router),
            Ok(Err(())) | Err(_) => Err(self.failed(clock)),
        }
    }

    /// Ways to the seeds: the same until one of them has answered.
    fn links(&self) -> Vec<Arc<Link>> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.is_empty() {
            *links = self.seeds.iter().map(|seed| Link::new(Arc::clone(&self.io), seed.clone(), 0, None)).collect();
        }
        links.clone()
    }

    /// Asks all seeds once; the first answer is taken.
    async fn ask(&self, links: &[Arc<Link>]) -> Result<Arc<Router>, ()> {
        let report = |seed: &str, cause| {
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).insert(seed.to_owned(), cause);
        };
        let router = Router::start(&self.io, links, &self.settings, report).await.ok_or(())?;
        // What of them has not become a way to a member is closed when it is dropped.
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(router)
    }

    /// Asks all seeds for the topology, once, or for as long as that.
    ///
    /// # Errors
    /// What happened last at each seed.
    pub(crate) async fn open(&self, patience: Duration) -> Result<(), Vec<(String, RequestError)>> {
        // However short the patience is, each seed is heard out once: an error has something to tell.
        let mut opened = self.router.get_or_try_init(|| async { self.ask(&self.links()).await }).await.is_ok();
        if !opened && !patience.is_zero() && !self.is_hopeless() {
            opened = self.router(Clock::start(patience)).await.is_ok();
        }
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let of_seed =
            |(seed, cause): (&String, &Cause)| (seed.clone(), RequestError::once(cause.clone(), Duration::ZERO));
        if opened { Ok(()) } else { Err(failures.iter().map(of_seed).collect()) }
    }

    /// Whether waiting will not help: every seed is there and will not have this client, or is no address.
    fn is_hopeless(&self) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let lasting = |cause: &Cause| matches!(cause, Cause::NotConnected { failure, .. } if failure.is_lasting());
        self.seeds.iter().all(|seed| failures.get(seed).is_some_and(lasting))
    }

    fn failed(&self, clock: Clock) -> RequestError {
        if let Some(ended) = self.io.ended() {
            return RequestError::new(ended, Vec::new(), 0, clock.started.elapsed(), Outcome::Refused);
        }
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let causes: Vec<Cause> = failures.values().cloned().collect();
        let attempts = causes.len() as u32; // one per seed
        match causes.last() {
            Some(last) => RequestError::new(last.clone(), causes, attempts, clock.started.elapsed(), Outcome::Refused),
            // The time was too short to hear anything of any.
            None => clock.over(),
        }
    }
}

/// A cluster that is being started is there within the first waits; one that is away is asked every second.
const SEEDS: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };
