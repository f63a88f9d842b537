//! The way to one shard of one node: a connection made when it is first wanted, and made anew when it is lost.
//!
//! ```text
//! Idle ── wanted ──▶ Connecting ── handshake done ──▶ Up ── connection ends ──┐
//!                        ▲  └────── failed ──▶ Down ◀─────────────────────────┘
//!                        └─── backoff over ─────┘
//! ```
//! One attempt to connect serves all requests that wait for it. A link that failed is connected again in the background, so
//! that requests which have another node to go to need not wait for a node that is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::error::ConnectFailure;
use crate::io::Io;
use crate::latency::LatencyEstimator;
use crate::retry::Backoff;

/// A shard of a node, and the connection to it if there is one.
pub(crate) struct Link {
    io: Arc<Io>,
    /// `host:port` of the node's shard 0.
    address: String,
    shard: u16,
    /// The node's name, if it is known which node should answer.
    expected: Option<String>,
    /// How long its answers take.
    pub(crate) latency: LatencyEstimator,
    state: Mutex<State>,
}

enum State {
    Idle,
    Connecting { done: watch::Receiver<Option<Connected>>, failures: u32 },
    Up { connection: Arc<Connection>, failures: u32, stopping: Option<Instant> },
    Down { until: Instant, failures: u32 },
}

type Connected = Result<Arc<Connection>, ConnectFailure>;

impl Link {
    pub(crate) fn new(io: Arc<Io>, address: String, shard: u16, expected: Option<String>) -> Arc<Link> {
        Arc::new(Link {
            io,
            address,
            shard,
            expected,
            latency: LatencyEstimator::default(),
            state: Mutex::new(State::Idle),
        })
    }

    /// A link that takes over a connection of another link which is no longer needed.
    pub(crate) fn adopt(self: Arc<Self>, connection: Option<Arc<Connection>>) -> Arc<Link> {
        if let Some(connection) = connection {
            *self.lock() = State::Up { connection, failures: 0, stopping: None };
        }
        self
    }

    /// Gives the connection away, if `wanted` accepts it.
    pub(crate) fn release(&self, wanted: impl FnOnce(&Connection) -> bool) -> Option<Arc<Connection>> {
        let mut state = self.lock();
        match &*state {
            State::Up { connection, .. } if wanted(connection) => {
                let connection = Arc::clone(connection);
                *state = State::Idle;
                Some(connection)
            }
            _ => None,
        }
    }

    /// Whether this is the way to that shard.
    pub(crate) fn leads_to(&self, address: &str, shard: u16, expected: Option<&str>) -> bool {
        self.address == address && self.shard == shard && self.expected.as_deref() == expected
    }

    /// The node's name, or where it should be.
    pub(crate) fn name(&self) -> &str {
        self.expected.as_deref().unwrap_or(&self.address)
    }

    /// Whether a request sent here has good prospects: there is a connection and no suspicion, or nothing speaks
    /// against one. Starts to connect anew if it is time to.
    pub(crate) fn is_promising(self: &Arc<Self>) -> bool {
        self.may_answer() && !self.is_stopping()
    }

    fn is_stopping(&self) -> bool {
        matches!(&*self.lock(), State::Up { stopping: Some(at), .. } if at.elapsed() < STOPPING_FOR)
    }

    /// Whether what was sent here may well be answered. Starts to connect anew if it is time to.
    pub(crate) fn may_answer(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        self.notice_end(&mut state);
        match &*state {
            State::Idle => true,
            State::Up { connection, .. } => !connection.is_suspect(),
            State::Connecting { failures, .. } => *failures == 0,
            State::Down { until, failures } => {
                if Instant::now() >= *until {
                    let failures = *failures;
                    self.start(&mut state, failures, Duration::ZERO);
                }
                false
            }
        }
    }

    /// The node takes no requests now: others are asked first for a while.
    pub(crate) fn note_stopping(&self) {
        if let State::Up { stopping, .. } = &mut *self.lock() {
            *stopping = Some(Instant::now());
        }
    }

    /// The connection, if there is one now.
    pub(crate) fn connection_now(&self) -> Option<Arc<Connection>> {
        let mut state = self.lock();
        self.notice_end(&mut state);
        match &*state {
            State::Up { connection, .. } => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// The connection, which is made if there is none. After a failure that waits until its backoff is over.
    ///
    /// # Errors
    /// [`ConnectFailure`] of one attempt.
    pub(crate) async fn connection(self: &Arc<Self>) -> Connected {
        let mut done = {
            let mut state = self.lock();
            self.notice_end(&mut state);
            match &*state {
                State::Up { connection, .. } => return Ok(Arc::clone(connection)),
                State::Connecting { done, .. } => done.clone(),
                State::Idle => self.start(&mut state, 0, Duration::ZERO),
                State::Down { until, failures } => {
                    let (wait, failures) = (until.saturating_duration_since(Instant::now()), *failures);
                    self.start(&mut state, failures, wait)
                }
            }
        };
        match done.wait_for(Option::is_some).await {
            Ok(connected) => connected.clone().unwrap_or_else(|| Err(self.io.end_of_connecting())),
            Err(_) => Err(self.io.end_of_connecting()),
        }
    }

    /// A connection that has ended makes room for the next one, after a while.
    fn notice_end(&self, state: &mut State) {
        match state {
            State::Up { connection, failures, .. } if connection.closed().is_some() => {
                // A connection that never answered anything is no success: the backoff goes on growing.
                let failures = if connection.heard() > 0 { 1 } else { *failures + 1 };
                *state = State::Down { until: Instant::now() + RECONNECT.after(failures, self.io.chance()), failures };
            }
            State::Connecting { done, .. } if done.has_changed().is_err() && done.borrow().is_none() => {
                // Its task was dropped with the runtime it ran on.
                *state = State::Idle;
            }
            _ => {}
        }
    }

    fn start(self: &Arc<Self>, state: &mut State, failures: u32, wait: Duration) -> watch::Receiver<Option<Connected>> {
        let (report, done) = watch::channel(None);
        *state = State::Connecting { done: done.clone(), failures };
        let link = Arc::clone(self);
        self.io.spawn(async move {
            tokio::time::sleep(wait).await;
            let connected = link.io.connect(&link.address, link.shard, link.expected.as_deref()).await;
            let next = match &connected {
                Ok(connection) => State::Up { connection: Arc::clone(connection), failures, stopping: None },
                Err(failure) => {
                    tracing::debug!(node = link.name(), shard = link.shard, %failure, "cannot connect");
                    let failures = failures.saturating_add(1);
                    let until = Instant::now() + RECONNECT.after(failures, link.io.chance());
                    State::Down { until, failures }
                }
            };
            *link.lock() = next;
            // Nobody may be waiting.
            let _ = report.send(Some(connected));
        });
        done
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so a panic leaves no half state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link that is no longer in the table has served all its requests.
impl Drop for Link {
    fn drop(&mut self) {
        if let State::Up { connection, .. } = &*self.lock() {
            connection.close();
        }
    }
}

/// A node that is drained costs one round trip in vain each second; one that is taken back has its requests again as soon.
const STOPPING_FOR: Duration = Duration::from_secs(1);

/// A restarted process is back within the first waits; a machine that is gone costs one handshake every two seconds.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(2) };
