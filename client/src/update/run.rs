//! An update under way: reading, changing and writing back, while others do the same.
//!
//! ```text
//! read ─▶ change ─▶ write ──▶ acknowledged ─▶ alone? ── yes ─▶ done
//!  ▲                  │                        │ no
//!  │     the key is   │                        ▼
//!  └── wait ◀─ full ──┘          wait, and read: is the own value still a sibling? ── no ─▶ done: the writer that
//!                     ▲                        │ yes                                          replaced it has seen it
//!                     └─────── change ◀────────┘
//! ```
//! The change is safe with the first acknowledgement; all that comes after it is tidying up, and whatever happens there the
//! update has succeeded. Waits are random, and grow: of many updaters that made siblings of each other one wakes first,
//! merges, and the others find nothing left to do. An updater that cannot write because the key is full waits likewise; a
//! merge by anybody makes room.

use std::time::Duration;

use bytes::Bytes;
use driftless_proto::{Outcome, Refusal, WriteId};
use tokio::time::{Instant, sleep, timeout_at};

use super::decide::{Decide, Encoded};
use crate::answer::{Context, Updated};
use crate::bucket::Bucket;
use crate::change::Change;
use crate::clock::Clock;
use crate::delete::delete;
use crate::error::{GetError, TryUpdateError, UpdateError};
use crate::get::read;
use crate::options::{Profile, Settings};
use crate::put::put;
use crate::retry::Backoff;
use crate::write::Write;

/// What an update is to do, but for what it decides.
pub(crate) struct Plan {
    pub(crate) bucket: Bucket,
    pub(crate) key: Bytes,
    pub(crate) rounds_max: u32,
    pub(crate) write_id: Option<WriteId>,
    pub(crate) profile: Profile,
}

/// An update that is under way.
struct Run<'a, D> {
    bucket: &'a Bucket,
    key: &'a Bytes,
    decide: D,
    settings: &'a Settings,
    clock: Clock,
    /// Of the user, for the change itself; what tidies up afterwards is another write each time.
    write_id: Option<WriteId>,
    /// How often the change was called.
    rounds: u32,
    /// What was written and not acknowledged, and may be there all the same.
    unsure: Option<(WriteId, UpdateError)>,
}

/// What a round came to.
enum Round<T> {
    /// There was nothing to write.
    Kept { siblings: u32, context: Option<Context> },
    /// The key holds this value, beside the values of other clients. `None`: it was removed.
    Written { own: Option<Encoded<T>>, siblings: u32, context: Option<Context> },
    /// Others have filled the key. Nothing was written.
    Full(UpdateError),
}

impl Plan {
    pub(crate) fn new(bucket: &Bucket, key: Bytes) -> Plan {
        Plan { bucket: bucket.clone(), key, rounds_max: ROUNDS, write_id: None, profile: Profile::new() }
    }

    /// Carries the update out.
    pub(crate) async fn run<D: Decide>(self, decide: D) -> Result<Updated<D::Value>, TryUpdateError<D::Error>> {
        let settings = self.profile.over(&self.bucket.settings);
        let clock = Clock::start(settings.timeout);
        let mut run = Run {
            bucket: &self.bucket,
            key: &self.key,
            decide,
            settings: &settings,
            clock,
            write_id: self.write_id,
            rounds: 0,
            unsure: None,
        };
        self.bucket.inner.check(settings.attempt_timeout, clock).map_err(GetError::from)?;
        let turns = &self.bucket.inner.turns;
        let mut refused = 0;
        let (mut own, mut updated, mut took) = loop {
            let turn = turns.take(&self.bucket.name, &self.key, clock.patience()).await;
            let began = Instant::now();
            match run.round(None).await? {
                Round::Kept { siblings, context } => {
                    return Ok(Updated { context, siblings, rounds: run.rounds, written: false, value: None });
                }
                Round::Written { own, siblings, context } => {
                    let (own, value) = apart(own);
                    let updated = Updated { context, siblings, rounds: run.rounds, written: true, value };
                    if is_tidy(&own, siblings) || turn.has_successors() {
                        return Ok(updated);
                    }
                    break (own, updated, began.elapsed());
                }
                Round::Full(error) => {
                    drop(turn);
                    refused += 1;
                    let backoff = WHEN_FULL.after(refused, run.chance());
                    if !run.wait(backoff).await {
                        return Err(run.fail(error).into());
                    }
                }
            }
        };
        run.write_id = None;
        for written in 1..self.rounds_max {
            let backoff = Backoff { first: (took * TIDY_ROUNDS).clamp(TIDY_MIN, TIDY_MAX), max: TIDY_MAX };
            let backoff = backoff.after(written, run.chance());
            if !run.wait(backoff).await {
                break;
            }
            let turn = turns.take(&self.bucket.name, &self.key, clock.patience()).await;
            let began = Instant::now();
            match run.round(Some(&own)).await {
                Ok(Round::Kept { siblings, context }) => {
                    updated = Updated { context, siblings, rounds: run.rounds, ..updated };
                    break;
                }
                Ok(Round::Written { own: now, siblings, context }) => {
                    let (now, value) = apart(now);
                    updated = Updated { context, siblings, rounds: run.rounds, written: true, value };
                    if is_tidy(&now, siblings) || turn.has_successors() {
                        break;
                    }
                    (own, took) = (now, began.elapsed());
                }
                Ok(Round::Full(_)) => {}
                Err(error) => {
                    let error = error.update();
                    tracing::debug!(error = error.map(tracing::field::display), "siblings are left");
                    break;
                }
            }
        }
        Ok(updated)
    }
}

impl<D: Decide> Run<'_, D> {
    /// Reads, changes and writes. `left` is what an earlier round wrote: unless it is still there, beside others,
    /// nothing is left to do.
    async fn round(&mut self, left: Option<&Option<Bytes>>) -> Result<Round<D::Value>, TryUpdateError<D::Error>> {
        let (bucket, settings, clock) = (self.bucket, self.settings, self.clock);
        let read = match read(bucket, self.key.clone(), false, settings, clock).await {
            Ok(read) => read,
            Err(error) => return Err(self.fail(error.into()).into()),
        };
        let siblings = read.siblings().len() as u32; // at most SIBLINGS_MAX of each coordinator
        let is_done = match left {
            None => false,
            Some(own) => {
                is_tidy(own, siblings) || own.as_ref().is_some_and(|own| !read.values().any(|value| value == own))
            }
        };
        if is_done {
            return Ok(Round::Kept { siblings, context: read.context().filter(|_| siblings <= 1).cloned() });
        }
        self.rounds += 1;
        let change = match timeout_at(clock.deadline, self.decide.decide(self.key, read.siblings())).await {
            Ok(Ok(change)) => change,
            Ok(Err(error)) => return Err(self.fail_to_change(error)),
            Err(_) => return Err(self.fail(GetError::from(clock.over()).into()).into()),
        };
        let context = read.context().cloned();
        let write = Write::new(context.clone(), self.write_id);
        let write_id = write.write_id;
        let failed = match change {
            Change::Keep => return Ok(Round::Kept { siblings, context }),
            Change::Delete if !read.is_certain() => {
                return Err(self.fail(GetError::NotCertain { read: Box::new(read) }.into()).into());
            }
            // There is nothing to remove, and a delete without context would remove what came since.
            Change::Delete if siblings == 0 => return Ok(Round::Kept { siblings, context }),
            Change::Put(own) => match put(bucket, self.key.clone(), own.bytes.clone(), write, settings, clock).await {
                Ok(stored) => {
                    let (siblings, context) = (stored.siblings(), stored.context());
                    return Ok(Round::Written { own: Some(own), siblings, context });
                }
                Err(error) => UpdateError::from(error),
            },
            Change::Delete => match delete(bucket, self.key.clone(), write, settings, clock).await {
                Ok(deleted) => {
                    return Ok(Round::Written { own: None, siblings: deleted.siblings(), context: None });
                }
                Err(error) => UpdateError::from(error),
            },
        };
        let is_full = matches!(failed.refusal(), Some(Refusal::TooManySiblings { .. }));
        let failed = self.fail(failed);
        if !is_full {
            return Err(failed.into());
        }
        if failed.outcome() == Outcome::Unknown {
            self.unsure = Some((write_id, failed.clone()));
        }
        Ok(Round::Full(failed))
    }

    /// How this update failed, if an earlier round may have written.
    fn fail(&self, error: UpdateError) -> UpdateError {
        match &self.unsure {
            None => error,
            // The arguments were not in order in this round; that it may have written is the more important news.
            Some((_, earlier)) if error.request().is_none() => earlier.clone(),
            Some((id, _)) => error.after_unknown(*id),
        }
    }

    fn fail_to_change(&self, error: TryUpdateError<D::Error>) -> TryUpdateError<D::Error> {
        match error {
            TryUpdateError::Update(error) => self.fail(error).into(),
            TryUpdateError::Change { error, .. } => {
                TryUpdateError::Change { error, earlier: self.unsure.as_ref().map(|(_, earlier)| earlier.clone()) }
            }
        }
    }

    /// Waits, unless the time of the update would be as good as over then.
    async fn wait(&mut self, time: Duration) -> bool {
        let is_worth_while = time < self.clock.remaining() / 2;
        if is_worth_while {
            sleep(time).await;
        }
        is_worth_while
    }

    fn chance(&self) -> f64 {
        self.bucket.inner.io.chance()
    }
}

/// The bytes that were written, and the value that they are.
fn apart<T>(own: Option<Encoded<T>>) -> (Option<Bytes>, Option<T>) {
    own.map(|own| (own.bytes, own.value)).unzip()
}

/// Whether no sibling is left beside what was written, or nothing beside what was removed.
fn is_tidy(own: &Option<Bytes>, siblings: u32) -> bool {
    siblings <= u32::from(own.is_some())
}

/// Two clients that made siblings of each other are done after two rounds; a crowd that goes on writing merges by itself.
const ROUNDS: u32 = 4;

/// Waits before tidying up begin with this many times what a round took: on a key that is updated all the time somebody
/// has read, merged and written by then, and nothing is left to do.
const TIDY_ROUNDS: u32 = 4;

/// A round on an idle cluster.
const TIDY_MIN: Duration = Duration::from_millis(1);

/// Longer than a round takes even on a busy cluster; nobody should wait longer for what is done already.
const TIDY_MAX: Duration = Duration::from_millis(500);

/// Waits of updaters that found the key full. A merge of another client makes room, and has to be let through.
const WHEN_FULL: Backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_secs(1) };
