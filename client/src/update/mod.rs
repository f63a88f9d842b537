//! Reading, changing and writing back, while others do the same.
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

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::client::Sibling;
use driftless_proto::{Outcome, Refusal, WriteId};
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use crate::answer::{Change, Context, IntoBytes, Updated};
use crate::bucket::Bucket;
use crate::builder::request_options;
use crate::clock::Clock;
use crate::delete::delete;
use crate::error::{GetError, UpdateError};
use crate::get::read;
use crate::options::{Profile, Settings};
use crate::put::put;
use crate::retry::{Backoff, RetryPolicy};
use crate::write::Write;

/// Reads a key, changes it and writes it back. Made by [`Bucket::update`]; awaited, it gives an [`Updated`].
#[must_use = "a request does nothing until it is awaited"]
pub struct Update<F> {
    bucket: Bucket,
    key: Bytes,
    change: F,
    rounds_max: u32,
    profile: Profile,
}

/// An update that is under way.
struct Run<'a, F> {
    bucket: &'a Bucket,
    key: &'a Bytes,
    change: F,
    settings: &'a Settings,
    clock: Clock,
    /// How often the change was called.
    rounds: u32,
    /// What was written and not acknowledged, and may be there all the same.
    unsure: Option<(WriteId, UpdateError)>,
}

/// What a round came to.
enum Round {
    /// There was nothing to write.
    Kept { siblings: u32, context: Option<Context> },
    /// The key holds this value, beside the values of other clients. `None`: it was removed.
    Written { own: Option<Bytes>, siblings: u32, context: Option<Context> },
    /// Others have filled the key. Nothing was written.
    Full(UpdateError),
}

impl Bucket {
    /// Reads a key, lets `change` decide what it shall hold, and writes that with the context of the read.
    ///
    /// What is promised: the write replaces exactly what `change` was shown. If another client writes at the same time,
    /// both results stay, as siblings, and the client that updates next is shown both. So once an update has succeeded, its
    /// change is in a live value of the key, or was seen by what replaced that. Two things are asked of `change`:
    ///
    /// - it must make one value of several, and
    /// - it must give the same when its own result is among them: adding an element to a set does, adding one to a
    ///   number does not (it may be called again, see below, and would add it twice). For such a change keep an element
    ///   per addition, or allow one round and merge when reading.
    ///
    /// Where nothing is found and too few of the key's own replicas could be asked to be certain, `change` is called with
    /// nothing all the same, and what it makes of that becomes a sibling of what the others may hold.
    ///
    /// An update is done when its write is acknowledged. If others wrote meanwhile and siblings are left, it tidies up:
    /// after a short random wait it looks again, and merges them with `change` unless somebody else has done so, at most
    /// [`rounds_max`](Update::rounds_max) rounds in all. It gives that up when others write without pause, when it fails or
    /// when the time is over, and succeeds all the same: [`Updated::siblings`](crate::Updated::siblings) tells how many values are left. With a
    /// [resolver](crate::Get::resolve) a reader sees them as one.
    ///
    /// A write that is refused because others have filled the key ([`Refusal::TooManySiblings`](crate::Refusal)) wrote
    /// nothing: the key is read again after a random wait, as long as the update's time lasts. Updates of one key through
    /// one client take turns, so that they do not make siblings of each other.
    pub fn update<F, C>(&self, key: impl IntoBytes, change: F) -> Update<F>
    where
        F: FnMut(&[Sibling]) -> C,
        C: Into<Change>,
    {
        Update { bucket: self.clone(), key: key.into_bytes(), change, rounds_max: ROUNDS, profile: Profile::new() }
    }
}

impl<F, C> Update<F>
where
    F: FnMut(&[Sibling]) -> C,
    C: Into<Change>,
{
    /// In how many rounds the closure is called and its result written at most: 4 by default, at least 1. With one
    /// round nothing is tidied up. A round that is refused because the key is full wrote nothing and does not count.
    pub fn rounds_max(mut self, rounds: u32) -> Update<F> {
        self.rounds_max = rounds.max(1);
        self
    }

    /// Reads, changes and writes. The same as awaiting the request, without the box that costs.
    ///
    /// # Errors
    /// [`UpdateError`]; its [`outcome`](UpdateError::outcome) tells whether anything may have been written. An update
    /// whose own change is known to be stored succeeds, whatever happens afterwards.
    pub async fn send(self) -> Result<Updated, UpdateError> {
        let span = tracing::debug_span!("update", bucket = %self.bucket.name);
        self.run().instrument(span).await
    }

    async fn run(self) -> Result<Updated, UpdateError> {
        let settings = self.profile.over(&self.bucket.settings);
        let clock = Clock::start(settings.timeout);
        let mut run = Run {
            bucket: &self.bucket,
            key: &self.key,
            change: self.change,
            settings: &settings,
            clock,
            rounds: 0,
            unsure: None,
        };
        let turns = &self.bucket.inner.turns;
        let mut refused = 0;
        let (mut own, mut updated, mut took) = loop {
            let turn = turns.take(&self.bucket.name, &self.key, run.patience()).await;
            let began = Instant::now();
            match run.round(None).await? {
                Round::Kept { siblings, context } => {
                    return Ok(Updated { context, siblings, rounds: run.rounds, written: false });
                }
                Round::Written { own, siblings, context } => {
                    let updated = Updated { context, siblings, rounds: run.rounds, written: true };
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
                        return Err(run.fail(error));
                    }
                }
            }
        };
        for written in 1..self.rounds_max {
            let backoff = Backoff { first: (took * TIDY_ROUNDS).clamp(TIDY_MIN, TIDY_MAX), max: TIDY_MAX };
            let backoff = backoff.after(written, run.chance());
            if !run.wait(backoff).await {
                break;
            }
            let turn = turns.take(&self.bucket.name, &self.key, run.patience()).await;
            let began = Instant::now();
            match run.round(Some(&own)).await {
                Ok(Round::Kept { siblings, context }) => {
                    updated = Updated { context, siblings, rounds: run.rounds, written: true };
                    break;
                }
                Ok(Round::Written { own: now, siblings, context }) => {
                    updated = Updated { context, siblings, rounds: run.rounds, written: true };
                    if is_tidy(&now, siblings) || turn.has_successors() {
                        break;
                    }
                    (own, took) = (now, began.elapsed());
                }
                Ok(Round::Full(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "siblings are left");
                    break;
                }
            }
        }
        Ok(updated)
    }
}

impl<F, C> Run<'_, F>
where
    F: FnMut(&[Sibling]) -> C,
    C: Into<Change>,
{
    /// Reads, changes and writes. `left` is what an earlier round wrote: unless it is still there, beside others,
    /// nothing is left to do.
    async fn round(&mut self, left: Option<&Option<Bytes>>) -> Result<Round, UpdateError> {
        let (bucket, settings, clock) = (self.bucket, self.settings, self.clock);
        let read = match read(bucket, self.key.clone(), false, settings, clock).await {
            Ok(read) => read,
            Err(error) => return Err(self.fail(error.into())),
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
        let change = (self.change)(read.siblings()).into();
        let context = read.context().cloned();
        let write = Write::new(context.clone(), None);
        let write_id = write.write_id;
        let failed = match change {
            Change::Keep => return Ok(Round::Kept { siblings, context }),
            Change::Delete if !read.is_certain() => {
                return Err(self.fail(GetError::NotCertain { read: Box::new(read) }.into()));
            }
            // There is nothing to remove, and a delete without context would remove what came since.
            Change::Delete if siblings == 0 => return Ok(Round::Kept { siblings, context }),
            Change::Put(value) => match put(bucket, self.key.clone(), value.clone(), write, settings, clock).await {
                Ok(stored) => {
                    let (siblings, context) = (stored.siblings(), stored.context());
                    return Ok(Round::Written { own: Some(value), siblings, context });
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
            return Err(failed);
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

    /// Waits, unless the time of the update would be as good as over then.
    async fn wait(&mut self, time: Duration) -> bool {
        let is_worth_while = time < self.clock.remaining() / 2;
        if is_worth_while {
            sleep(time).await;
        }
        is_worth_while
    }

    /// Until when to wait for the turn: a quarter of what is left is for the update itself.
    fn patience(&self) -> Instant {
        Instant::now() + self.clock.remaining() * 3 / 4
    }

    fn chance(&self) -> f64 {
        self.bucket.inner.io.chance()
    }
}

/// Whether no sibling is left beside what was written, or nothing beside what was removed.
fn is_tidy(own: &Option<Bytes>, siblings: u32) -> bool {
    siblings <= u32::from(own.is_some())
}

request_options! {
    impl [F] Update<F>, profile;
}

impl<F, C> IntoFuture for Update<F>
where
    F: FnMut(&[Sibling]) -> C + Send + 'static,
    C: Into<Change> + Send + 'static,
{
    type Output = Result<Updated, UpdateError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
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
